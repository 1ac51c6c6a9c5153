"""What could have been seen: power of the correlation test by simulation at the size of the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from astrid.leadlag.alignment import F64

LEAD: Final = 2
"""Periods by which the simulated index leads: 8 weeks in a monthly series."""

SEARCHED: Final = 7
"""Lags 0 to 6 of a search."""

MEMORY: Final = 0.3
"""Autocorrelation of the simulated series, unless the sample's own is given."""

SIMULATIONS: Final = 4000


@dataclass(frozen=True, slots=True)
class Power:
    """Chance to detect a lead with ``r2`` in ``n`` changes at 5 % (two-sided): at the one lag, and searching all lags.

    ``critical_r`` is the correlation beyond which the one lag counts.
    """

    n: int
    r2: float
    one_lag: float
    searched: float
    critical_r: float


def simulate_power(
    n: int, r2: float, rng: np.random.Generator, *, memory: float = MEMORY, simulations: int = SIMULATIONS
) -> Power:
    """Return the power for x an AR(1) and y(t) = sqrt(r2) x(t - LEAD) + sqrt(1 - r2) e(t), e an AR(1) of the same
    memory.

    Critical values are simulated too, from unrelated series of the same memory; the search takes the largest |r| of
    lags 0 to SEARCHED - 1, each over the pairs that it has.
    """
    x, e = (_autoregressive(n, memory, simulations, rng) for _ in range(2))
    null = _correlations(x, e)
    one, many = (float(np.quantile(v, 0.95)) for v in (null[:, LEAD], null.max(axis=1)))
    # The first LEAD values of y depend on x from before the sample: it is simulated longer and cut.
    x = _autoregressive(n + LEAD, memory, simulations, rng)
    e = _autoregressive(n, memory, simulations, rng)
    y = np.sqrt(r2) * x[:, :n] + np.sqrt(1 - r2) * e
    found = _correlations(x[:, LEAD:], y)
    return Power(n, r2, float((found[:, LEAD] > one).mean()), float((found.max(axis=1) > many).mean()), one)


def _autoregressive(n: int, memory: float, simulations: int, rng: np.random.Generator) -> F64:
    """Return stationary AR(1) series of variance 1, (simulations, n)."""
    noise = rng.standard_normal((simulations, n))
    x = np.empty_like(noise)
    x[:, 0] = noise[:, 0]
    for t in range(1, n):
        x[:, t] = memory * x[:, t - 1] + np.sqrt(1 - memory * memory) * noise[:, t]
    return x


def _correlations(x: F64, y: F64) -> F64:
    """Return |corr(x(t - lag), y(t))| for lag 0 to SEARCHED - 1, (simulations, SEARCHED)."""
    n = x.shape[1]
    found = np.zeros((len(x), SEARCHED))
    for lag in range(min(SEARCHED, n - 3)):
        a, b = x[:, : n - lag], y[:, lag:]
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        found[:, lag] = np.abs((a * b).sum(axis=1)) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return found
