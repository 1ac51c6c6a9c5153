"""The stationary block bootstrap of Politis and Romano (1994): of no relation, and of a slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from astrid.leadlag.alignment import F64, I64
from astrid.leadlag.regression import Slope, slope_of

DRAWS: Final = 999


@dataclass(frozen=True, slots=True)
class Resampled:
    """Bootstrap of the slope: ``p`` two-sided under no relation, ``low`` and ``high`` its 95 % percentile interval."""

    draws: int
    block: float
    p: float
    low: float
    high: float


def block_length(n: int) -> float:
    """Return the mean block length, n^(1/3) and at least 2 changes."""
    return max(2.0, float(np.cbrt(n)))


def stationary_index(n: int, block: float, rng: np.random.Generator) -> I64:
    """Return n row numbers: blocks of geometric length with mean ``block`` from random starts, round the end."""
    fresh = rng.random(n) < 1 / block
    fresh[0] = True
    starts = rng.integers(0, n, n)
    order = np.arange(n)
    since = order - np.maximum.accumulate(np.where(fresh, order, 0))
    begun = starts[np.maximum.accumulate(np.where(fresh, order, 0))]
    index: I64 = (begun + since) % n
    return index


def bootstrap_slope(
    x: F64, y: F64, base: F64, position: I64, rng: np.random.Generator, draws: int = DRAWS
) -> Resampled | None:
    """Resample the slope of ``x`` on ``y`` beside ``base``; None if there is none.

    No relation: blocks of x alone are drawn, so that both keep their own memory and lose what they share, and the HAC t
    is compared. Interval: blocks of (x, y, base) together.
    """
    ok = np.isfinite(x) & np.isfinite(y)
    x, y, base, position = x[ok], y[ok], base[ok], position[ok]
    observed = slope_of(x, y, base, position)
    if observed is None:
        return None
    n, block = len(y), block_length(len(y))
    beyond, slopes = 0, []
    for _ in range(draws):
        index = stationary_index(n, block, rng)
        null = slope_of(x[index], y, base, position)
        beyond += null is not None and abs(null.t) >= abs(observed.t)
        index = stationary_index(n, block, rng)
        again = slope_of(x[index], y[index], base[index], np.arange(n))
        if again is not None:
            slopes.append(again.slope)
    low, high = (float(q) for q in np.quantile(slopes, [0.025, 0.975])) if slopes else (float("nan"),) * 2
    return Resampled(draws, block, (1 + beyond) / (1 + draws), low, high)


def max_t(
    columns: F64, y: F64, base: F64, position: I64, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[list[Slope | None], list[float | None]]:
    """Return the slope of each column (n, lags) and its p adjusted for the search over all of them.

    Rows of ``columns`` are drawn in blocks together, so that lags keep what they share with each other; the adjusted p
    of a lag is how often the largest of all |t| under no relation reaches its own (Westfall and Young, single step).
    """
    found = [slope_of(column, y, base, position) for column in columns.T]
    n = len(y)
    largest = np.empty(draws)
    for draw in range(draws):
        drawn = columns[stationary_index(n, block_length(n), rng)]
        fits = (slope_of(column, y, base, position) for column in drawn.T)
        largest[draw] = max((abs(f.t) for f in fits if f is not None), default=0.0)
    adjusted = [None if f is None else (1 + int((largest >= abs(f.t)).sum())) / (1 + draws) for f in found]
    return found, adjusted
