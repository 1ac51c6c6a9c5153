"""The pre-registered protocol as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from astrid.leadlag.alignment import F64, Adoption, Changes, Series, changes, dummies, growth_on_grid
from astrid.leadlag.correlation import CrossCorrelation, autocorrelations, cross_correlations
from astrid.leadlag.forecasts import Comparison, compare
from astrid.leadlag.power import Power, simulate_power
from astrid.leadlag.regression import Granger, Slope, granger, slope_of
from astrid.leadlag.resampling import DRAWS, Resampled, bootstrap_slope, max_t
from astrid.leadlag.verdict import GRANGER_ORDERS, LAG_DAYS, PROTOCOL_VERSION, Rule, Verdict, judge

EXPLORED_WEEKS: Final = (0, 4, 8, 12, 16, 20, 26)
"""Lags of the search; only the registered one counts for the verdict."""

CORRELATED_PERIODS: Final = range(-6, 7)

POWERS: Final = (0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Explored:
    """One lag of the search: ``p`` alone, ``p_bonferroni``, and ``p_max_t`` from the bootstrap of the whole search."""

    weeks: int
    n: int
    slope: float
    t: float
    r: float
    p: float
    p_bonferroni: float
    p_max_t: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the protocol found; fields are None or empty where there is too little to compute.

    ``changes`` counts those of adoption, ``segments`` the stretches that they come from, ``used`` those with a value of
    the index at the one lag. ``publication_lead_days`` is how long before adoption's figure is published the index is
    read, ``economic_lead_days`` how long before the end of the period that the figure is about (None = not known).
    ``memory`` is the autocorrelation of (index, adoption) that ``power_own`` is simulated with; ``power`` uses the
    registered 0.3.
    """

    protocol: str
    verdict: Verdict
    rules: tuple[Rule, ...]
    target: str
    index: str
    control: str | None
    changes: int
    segments: int
    used: int
    first: str
    last: str
    publication_lead_days: int
    economic_lead_days: int | None
    slope: Slope | None
    bootstrap: Resampled | None
    explored: tuple[Explored, ...]
    correlations: tuple[CrossCorrelation, ...]
    leads: tuple[Granger, ...]
    follows: tuple[Granger, ...]
    forecast: Comparison | None
    placebo: Slope | None
    placebo_bootstrap: Resampled | None
    power: tuple[Power, ...]
    power_own: Power | None
    memory: tuple[float, float] | None


def run_protocol(
    adoption: Adoption, index: Series, control: Series | None, rng: np.random.Generator, *, draws: int = DRAWS
) -> Report:
    """Test whether ``index`` leads ``adoption`` by the registered lag; the verdict follows from the rules alone.

    Changes of adoption never span a break of the question or a missing figure, and every segment has a mean of its own.
    ``rng`` feeds bootstrap and power; ``draws`` are the bootstrap's.
    """
    grid = changes(adoption)
    base = dummies(grid.segment)
    at_lag = growth_on_grid(index, grid, LAG_DAYS)
    now = growth_on_grid(index, grid, 0)
    slope = slope_of(at_lag, grid.y, base, grid.position)
    resampled = bootstrap_slope(at_lag, grid.y, base, grid.position, rng, draws)
    leads = {order: granger(now, grid.y, base, grid.position, order) for order in GRANGER_ORDERS}
    follows = {order: granger(grid.y, now, base, grid.position, order) for order in GRANGER_ORDERS}
    forecast = compare(at_lag, grid.y, base, grid.position)
    placebo, placebo_resampled = None, None
    if control is not None:
        at_control = growth_on_grid(control, grid, LAG_DAYS)
        placebo = slope_of(at_control, grid.y, base, grid.position)
        placebo_resampled = bootstrap_slope(at_control, grid.y, base, grid.position, rng, draws)
    verdict, rules = judge(slope, resampled, leads, follows, forecast, placebo, control is not None)
    used = np.isfinite(at_lag)
    n = int(np.count_nonzero(used))
    memory = _memory(at_lag, grid) if n >= 6 else None
    return Report(
        protocol=PROTOCOL_VERSION,
        verdict=verdict,
        rules=rules,
        target=adoption.name,
        index=index.name,
        control=None if control is None else control.name,
        changes=len(grid.y),
        segments=len(np.unique(grid.segment)),
        used=n,
        first=str(grid.closed[used][0]) if n else "",
        last=str(grid.closed[used][-1]) if n else "",
        publication_lead_days=LAG_DAYS,
        economic_lead_days=None if adoption.delay_days is None else LAG_DAYS - adoption.delay_days,
        slope=slope,
        bootstrap=resampled,
        explored=_explore(index, grid, base, rng, draws),
        correlations=tuple(cross_correlations(now, grid.y, grid.segment, grid.position, CORRELATED_PERIODS)),
        leads=tuple(g for g in leads.values() if g is not None),
        follows=tuple(g for g in follows.values() if g is not None),
        forecast=forecast,
        placebo=placebo,
        placebo_bootstrap=placebo_resampled,
        power=tuple(simulate_power(n, r2, rng) for r2 in POWERS) if n >= 8 else (),
        power_own=None
        if memory is None or n < 8
        else simulate_power(n, 0.25, rng, memory=float(np.sqrt(max(memory[0] * memory[1], 0.0)))),
        memory=memory,
    )


def _explore(index: Series, grid: Changes, base: F64, rng: np.random.Generator, draws: int) -> tuple[Explored, ...]:
    if not len(grid.y):
        return ()
    columns = np.column_stack([growth_on_grid(index, grid, 7 * weeks) for weeks in EXPLORED_WEEKS])
    slopes, adjusted = max_t(columns, grid.y, base, grid.position, rng, draws)
    return tuple(
        Explored(weeks, found.n, found.slope, found.t, found.r, found.p, min(1.0, found.p * len(EXPLORED_WEEKS)), p_max)
        for weeks, found, p_max in zip(EXPLORED_WEEKS, slopes, adjusted, strict=True)
        if found is not None and p_max is not None
    )


def _memory(x: F64, grid: Changes) -> tuple[float, float]:
    rho_x, rho_y = (float(autocorrelations(v, grid.position, 1)[0]) for v in (x, grid.y))
    return min(max(rho_x, -0.95), 0.95), min(max(rho_y, -0.95), 0.95)
