"""What one series is filtered with, which flags it can carry, and its signal of one day.

Formulas and the reason of every default: docs/methodology.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import Kind

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SILENT_DAYS_MAX: Final = 35
"""After this many days without any observation a series is not available any more."""

UNSEEN: Final = 20_000
"""Silent days of a series that was never observed; larger than any real silence."""


class Flag(IntFlag):
    """What a reader should know about a value; a bitmask that fits in 16 bits."""

    RESET = 1
    """The level fell by more than max(20, 10 %): the fall was spliced out."""
    PURGE = 2
    """Within 28 days more than 2 % of the level was taken away in small steps."""
    GAP = 4
    """This day has no observation."""
    SOURCE_GAP = 8
    """This day has no observation of anyone: the source was out."""
    YOUNG = 16
    """Fewer than four updates of this weekday: not ranked."""
    SMALL = 32
    """Fewer than ten events in the week: noise rules."""
    SPIKE = 64
    """A surprise that sits on very few days of the last 28."""
    SUSPECT = 128
    """A burst that no other source confirms, or a purge: suspicious, not proven anything."""
    RENAMED = 256
    """The project changed its name within this series."""
    STALE = 512
    """No observation for more than three days."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """All constants of the filter for one kind of series.

    ``slow`` and ``fast`` are the variances (ql, qb) of level and growth per week, relative to the
    noise of one weekly reading. ``kappa`` is the pseudo-count in the logarithm, ``phi`` the
    overdispersion of the counting noise, ``tau`` the spread of true growth that counting noise is
    weighed against, ``delta`` the weekly rate at which the variance learns, ``clip`` the bound of an
    unconfirmed surprise in standard deviations. ``splice`` switches the repair of resets, which a
    level that truly falls (a rolling 30-day count) must not have.
    """

    kind: Kind
    slow: tuple[float, float]
    fast: tuple[float, float]
    kappa: float
    tau: float
    phi: float = 1.5
    clip: float = 2.0
    delta: float = 0.06
    splice: bool = True
    reset_floor: float = 20.0
    reset_share: float = 0.10
    purge_share: float = 0.02
    silent_weeks: int = 5
    stale_days: int = 3
    fill_growth_max: float = 0.5
    publish_updates: int = 4
    small: float = 10.0
    spike_surprise: float = 4.0
    spike_sustain: float = 0.25


STOCK: Final = Parameters("stock", slow=(10.0, 0.1), fast=(10.0, 1.0), kappa=10.0, tau=0.01)
FLOW: Final = Parameters("flow", slow=(0.05, 0.002), fast=(0.1, 0.02), kappa=3.0, tau=0.03)
PARAMETERS: Final[Mapping[Kind, Parameters]] = {"stock": STOCK, "flow": FLOW}

UPDATES_MAX: Final = 250
"""Updates are counted up to here (4.8 years of weeks); the gains have converged long before."""


@dataclass(frozen=True, slots=True)
class Gains:
    """Kalman gains of the local linear trend after 0..UPDATES_MAX updates, float64.

    ``inverse_s`` is 1/S, the inverse of the innovation variance in units of the noise (the level gain
    is 1 - 1/S), ``beta`` the growth gain, ``p_bb`` the variance of the growth in units of the noise.
    """

    inverse_s: F64
    beta: F64
    p_bb: F64

    @property
    def beta_limit(self) -> float:
        """The growth gain after many updates."""
        return float(self.beta[-1])


@lru_cache(maxsize=32)
def gains(ql: float, qb: float) -> Gains:
    """Return the gain table from the Riccati recursion with a diffuse start.

    The first update sets the level, the second the growth (the limit of an infinite starting
    variance, in closed form); from the third on F = [[1, 1], [0, 1]], Q = diag(ql, qb), R = 1.
    """
    inverse_s, beta, p_bb = (np.zeros(UPDATES_MAX + 1) for _ in range(3))
    p_bb[:2] = np.inf
    # Two readings y1, y2 of a random walk with drift: growth = y2 - y1 errs by both noises and both steps.
    level, cross, growth = 1.0, 1.0, 2.0 + ql + qb
    beta[2], p_bb[2] = 1.0, growth
    for k in range(3, UPDATES_MAX + 1):
        level, cross, growth = level + 2 * cross + growth + ql, cross + growth, growth + qb
        inverse_s[k] = 1.0 / (level + 1.0)
        beta[k] = cross * inverse_s[k]
        growth -= cross * beta[k]
        cross *= inverse_s[k]
        level *= inverse_s[k]
        p_bb[k] = growth
    for table in (inverse_s, beta, p_bb):
        table.flags.writeable = False
    return Gains(inverse_s, beta, p_bb)


def shrink(growth: F32, se_counting: F32, tau: float) -> F64:
    """Pull growth towards 0 by its counting noise alone: g * tau^2 / (tau^2 + se_c^2); NaN stays NaN.

    Not by the full variance of the series: that punishes the fast growers (measured, docs/methodology.md).
    """
    variance = np.square(se_counting.astype(np.float64))
    return growth * (tau * tau / (tau * tau + variance))


@dataclass(frozen=True, slots=True)
class Signal:
    """One metric of N entities on one day; every array has length N, NaN = not known.

    ``growth_slow`` and ``growth_fast`` in log per week, ``last_week`` = y(t) - y(t-7), ``se`` the
    model's standard error of the slow growth, ``se_counting`` its part from counting noise, ``z`` the
    surprise of the day, ``z_week`` the largest of the last seven days, ``sustain`` in (0, 1],
    ``level`` in log units, ``updates`` of the day's weekday, ``flags`` of :class:`Flag`.
    """

    kind: Kind
    tau: float
    level: F32
    growth_slow: F32
    growth_fast: F32
    last_week: F32
    z: F32
    z_week: F32
    se: F32
    se_counting: F32
    sustain: F32
    updates: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint16]
    silent_days: npt.NDArray[np.uint16]

    @property
    def available(self) -> Bools:
        """Whether the entity is ranked on this metric: old enough, and seen within SILENT_DAYS_MAX days."""
        young = (self.flags & np.uint16(Flag.YOUNG)) != 0
        known: Bools = np.isfinite(self.growth_slow) & ~young & (self.silent_days <= SILENT_DAYS_MAX)
        return known

    @property
    def shrunken(self) -> F64:
        """Slow growth after shrinkage by counting noise."""
        return shrink(self.growth_slow, self.se_counting, self.tau)

    def __len__(self) -> int:
        return len(self.growth_slow)
