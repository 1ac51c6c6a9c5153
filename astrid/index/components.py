"""Components of the index, apart and together: established stars, entrants, attention, breadth, usage.

Stars of established projects and usage are indices of baskets (:mod:`astrid.index.chain`). The others are shares of
events: of the stories on Hacker News, of the projects on top lists and trending pages, how many are of the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.index.baskets import F64, KNOWN_BEFORE_DAYS, Bools, Days, quarter_starts, require_consecutive
from astrid.index.chain import CLIP, COVERAGE_MIN

WINDOW_DAYS: Final = 28
"""A share is taken over so many days: whole weeks, so that weekdays cancel."""

PSEUDO_EVENTS: Final = 0.5
"""Added to the events of the field and to the others, so that a window without one is small and not minus infinity."""

OBSERVED_MIN: Final = 0.5
"""A window needs this share of its days observed."""

HISTORY_DAYS_MIN: Final = 182
"""Days of changes before a component's volatility is believed; until then all count the same."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Events per day, (T,): ``ours`` of the field among ``total``; NaN = the source was not observed that day."""

    ours: F64
    total: F64


def share(counts: Counts, window: int = WINDOW_DAYS) -> F64:
    """Return log of the field's share of the events of the trailing ``window`` days, (T,); NaN = a gap.

    A day that was observed without any event is 0 events; a day that was not observed is no day, and a window with
    less than OBSERVED_MIN of its days is a gap.
    """
    if counts.ours.shape != counts.total.shape:
        raise ValueError(f"ours has shape {counts.ours.shape}, total {counts.total.shape}")
    observed = np.isfinite(counts.ours) & np.isfinite(counts.total)
    ours = _trailing(np.where(observed, counts.ours, 0.0), window)
    total = _trailing(np.where(observed, counts.total, 0.0), window)
    known = (_trailing(observed.astype(np.float64), window) >= OBSERVED_MIN * window) & (total > 0)
    value = np.log((ours + PSEUDO_EVENTS) / (np.where(known, total, 1.0) + 2 * PSEUDO_EVENTS))
    return np.where(known, value, np.nan)


def count_events(days: int, day: npt.NDArray[np.int64], ours: Bools, observed: Bools) -> Counts:
    """Return the events per day from one row per event: its ``day`` (a row number) and whether it is of the field.

    ``observed`` (T,) says on which days the source was read at all.
    """
    total = np.bincount(day, minlength=days)[:days].astype(np.float64)
    mine = np.bincount(day[ours], minlength=days)[:days].astype(np.float64)
    return Counts(np.where(observed, mine, np.nan), np.where(observed, total, np.nan))


def count_entrants(
    days: int, day: npt.NDArray[np.int64], entity: npt.NDArray[np.int64], ours: Bools, observed: Bools, burn_in: int
) -> Counts:
    """Return the new entrants per day: entities on the day of their first appearance on a list.

    One row per appearance, in any order. For ``burn_in`` days after the first observed one everybody is new, so those
    days are not observed. An appearance on a day that is not observed still makes the entity known.
    """
    order = np.lexsort((entity, day))
    _, first = np.unique(entity[order], return_index=True)
    chosen = order[first]
    seen = observed.copy()
    start = int(np.argmax(observed)) if observed.any() else 0
    seen[: start + burn_in] = False
    return count_events(days, day[chosen], ours[chosen], seen)


def count_distinct(
    days: int,
    day: npt.NDArray[np.int64],
    entity: npt.NDArray[np.int64],
    ours: Bools,
    observed: Bools,
    window: int = WINDOW_DAYS,
) -> Counts:
    """Return how many different entities appeared in the trailing ``window`` days: the breadth of a list.

    One row per appearance; an entity counts once in a window however often it appears. Hand the result to
    :func:`share` with a window of one day.
    """
    entities = int(entity.max(initial=-1)) + 1
    last = np.full(entities, -window - 1, np.int64)
    # Each entity is in the window from an appearance until ``window`` days later, or until it is extended.
    enters = np.zeros(days + window + 1)
    mine = np.zeros(days + window + 1)
    for row in np.argsort(day, kind="stable"):
        d, e = int(day[row]), int(entity[row])
        fresh = max(d, int(last[e]) + window)
        if fresh < d + window:
            for counter, weight in ((enters, 1.0), (mine, float(ours[row]))):
                counter[fresh] += weight
                counter[d + window] -= weight
        last[e] = d
    enough = _trailing(observed.astype(np.float64), window) >= OBSERVED_MIN * window
    totals, ourselves = np.cumsum(enters)[:days], np.cumsum(mine)[:days]
    return Counts(np.where(enough, ourselves, np.nan), np.where(enough, totals, np.nan))


def combine(components: Mapping[str, F64], days: Days) -> tuple[F64, dict[int, F64]]:
    """Return the components together as one log level (T,), and the weights by the row from which they hold.

    ``components`` are log levels (T,), NaN = a gap. A weekly change of the whole is the mean of the components' weekly
    changes, each weighted by the inverse of its volatility (standard deviation of its four-week changes), so that
    the loudest does not speak for all; the weights sum to 1 and are set each quarter from what was known five
    days before. Days of a quarter link to seven days before. A component without a change that day leaves it to the
    others; if those weigh less than half, the day is a gap, and the weekday goes on from its last value over it. Before
    a component has HISTORY_DAYS_MIN days of changes it does not count.
    """
    require_consecutive(days)
    names = list(components)
    y = np.stack([components[name] for name in names], axis=1) if names else np.empty((len(days), 0))
    weights: dict[int, F64] = {}
    for start in quarter_starts(days):
        if (cut := start - KNOWN_BEFORE_DAYS) > WINDOW_DAYS:
            drawn = _inverse_volatility(y[: cut + 1])
            if drawn.any():
                weights[start] = drawn
    together = np.full(len(days), np.nan)
    if not weights:
        return together, weights
    starts = np.array(list(weights))
    begin = _first_whole(y, int(starts[0]), weights[int(starts[0])])
    if begin is None:
        return together, weights
    rows, levels = np.full(7, begin), np.zeros(7)
    before = np.repeat(y[begin][None], 7, axis=0)
    for row in range(begin, len(days)):
        phase = row % 7
        held = weights[int(starts[int(np.searchsorted(starts, rows[phase], side="right")) - 1])]
        bound = CLIP * max((row - rows[phase]) / 7, 1.0)
        change = y[row] - before[phase]
        known = np.isfinite(change) & (held > 0)
        if held[known].sum() >= COVERAGE_MIN:
            step = float(held[known] @ np.clip(change[known], -bound, bound) / held[known].sum())
            before[phase] = np.where(np.isfinite(y[row]), y[row], before[phase] + step)
            levels[phase] += step
            rows[phase] = row
            together[row] = levels[phase]
    return together, weights


def _inverse_volatility(y: F64) -> F64:
    """Return weights (C,) in proportion to 1 / standard deviation of the four-week changes; 0 = not counted yet."""
    change = y[WINDOW_DAYS:] - y[:-WINDOW_DAYS]
    enough = np.isfinite(change).sum(axis=0) >= HISTORY_DAYS_MIN
    weights = np.zeros(y.shape[1])
    for column in np.flatnonzero(enough):
        spread = float(np.nanstd(change[:, column]))
        weights[column] = 1 / spread if spread > 1e-12 else 0.0
    total = weights.sum()
    return weights / total if total > 0 else weights


def _first_whole(y: F64, start: int, weights: F64) -> int | None:
    whole = np.isfinite(y[start:][:, weights > 0]).all(axis=1)
    return start + int(np.argmax(whole)) if whole.any() else None


def _trailing(x: F64, window: int) -> F64:
    """Return trailing sums of exactly ``window`` days; the first days, which have less, are 0."""
    total = np.zeros(len(x))
    if len(x) >= window:
        total[window - 1 :] = np.lib.stride_tricks.sliding_window_view(x, window).sum(axis=1)
    return total
