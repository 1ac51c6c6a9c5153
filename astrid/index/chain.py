"""The index itself: weekly links per weekday, chained, published as the mean of the last seven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from astrid.index.baskets import (
    F64,
    HELD_AFTER_DEATH_DAYS,
    Basket,
    Bools,
    Days,
    Source,
    draw_baskets,
    require_consecutive,
)

PHASES: Final = 7

CLIP: Final = 0.5
"""Bound of what one entity may add to a link, in log per week."""

COVERAGE_MIN: Final = 0.5
"""Below this weight of observed constituents a source is out that day, and the link waits."""

OVERALL: Final = "overall"


@dataclass(frozen=True, slots=True)
class Index:
    """An index on T consecutive days.

    ``value`` is what is published, 100 on the mean of ``base_month``, NaN = a gap. ``linked`` is the chained logarithm
    of the day's own weekday, before the mean and the base, NaN = no link. ``baskets`` are those it was made with.
    """

    days: Days
    value: F64
    linked: F64
    base_month: np.datetime64
    baskets: tuple[Basket, ...]


def build_index(
    sources: Sequence[Source],
    days: Days,
    members: Bools | None = None,
    *,
    base_month: np.datetime64 | None = None,
    cap: float | None = None,
    clip: float = CLIP,
) -> Index | None:
    """Return the index of ``sources`` over ``members``, or None without a basket or without a whole month for the base.

    ``base_month`` (datetime64[M]) is by default the first month of which every day has a value; it must lie in ``days``
    as a whole, so that no later day can move the base.

    Raises
    ------
    ValueError
        If shapes differ, days are not consecutive, or the base month has a gap.
    """
    baskets = draw_baskets(sources, days, members) if cap is None else draw_baskets(sources, days, members, cap=cap)
    if not baskets:
        return None
    linked = link(sources, baskets, len(days), clip=clip)
    value = publish(linked)
    base = first_whole_month(days, value) if base_month is None else base_month
    if base is None:
        return None
    return Index(days, rebase(days, value, base), linked, base, tuple(baskets))


def build_indices(
    sources: Sequence[Source],
    days: Days,
    categories: Mapping[str, Bools],
    *,
    base_month: np.datetime64 | None = None,
) -> dict[str, Index]:
    """Return the overall index and that of every category that has enough entities for one.

    A category whose base month has a gap is left out rather than shown on another base.
    """
    found: dict[str, Index] = {}
    overall = build_index(sources, days, base_month=base_month)
    if overall is None:
        return found
    found[OVERALL] = overall
    for name, members in categories.items():
        baskets = draw_baskets(sources, days, members)
        if not baskets:
            continue
        linked = link(sources, baskets, len(days))
        value = publish(linked)
        if _month_is_whole(days, value, overall.base_month):
            value = rebase(days, value, overall.base_month)
            found[name] = Index(days, value, linked, overall.base_month, tuple(baskets))
    return found


def link(sources: Sequence[Source], baskets: Sequence[Basket], days: int, *, clip: float = CLIP) -> F64:
    """Return the chained log level (T,) of each day, linked to the same weekday of the last week that has one.

    A link goes from the day on which it begins and uses the basket in force *then*, so an entrant cannot move the
    index on the day it enters. A constituent without a reading moves with the mean of its source and is set right by
    its next reading; one that died stands still for HELD_AFTER_DEATH_DAYS days and then counts no more. If less than
    COVERAGE_MIN of a source's weight is observed the day has no link; the next one then spans the weeks between.
    The seven weekdays start from one common day, so that they share one level.
    """
    logs = np.full(days, np.nan)
    starts = np.array([basket.start for basket in baskets], np.int64)
    began = _common_start(sources, baskets, days)
    if began is None:
        return logs
    # Where a quarter has no basket the index ends; it does not resume at an invented level.
    ended = min((basket.start for basket in baskets if basket.start > began and not basket.weights.any()), default=days)
    rows = np.full(PHASES, began)
    levels = np.zeros(PHASES)
    readings = [np.repeat(source.y[began][None].astype(np.float64), PHASES, axis=0) for source in sources]
    for row in range(began, min(ended + PHASES, days)):
        phase = row % PHASES
        begin = int(rows[phase])
        weights = baskets[int(np.searchsorted(starts, begin, side="right")) - 1].weights
        weeks = max((row - begin) / PHASES, 1.0)
        growth = np.zeros(len(sources))
        for s, source in enumerate(sources):
            if weights[s].any():
                growth[s] = _grow(source, row, weights[s], readings[s][phase], clip * weeks)
        if np.isnan(growth).any():
            continue
        for s, source in enumerate(sources):
            now = source.y[row].astype(np.float64)
            imputed = np.where(weights[s] > 0, readings[s][phase] + growth[s], np.nan)
            readings[s][phase] = np.where(np.isfinite(now), now, imputed)
        levels[phase] += float(weights.sum(axis=1) @ growth)
        rows[phase] = row
        logs[row] = levels[phase]
    return logs


def publish(linked: F64) -> F64:
    """Return the mean of the last seven days' links, exp(log); NaN where one of the seven is missing."""
    value = np.full(len(linked), np.nan)
    if len(linked) >= PHASES:
        windows = np.lib.stride_tricks.sliding_window_view(np.exp(linked), PHASES)
        value[PHASES - 1 :] = windows.mean(axis=1)
    return value


def rebase(days: Days, value: F64, base_month: np.datetime64) -> F64:
    """Return ``value`` with a mean of 100 in ``base_month``.

    Raises
    ------
    ValueError
        If a day of the month is not there or has no value.
    """
    if not _month_is_whole(days, value, base_month):
        raise ValueError(f"the base month {base_month} has a gap: choose one of which every day has a value")
    base = value[days.astype("datetime64[M]") == base_month]
    # The first value is divided out so that a constant index is 100 to the last bit.
    scaled: F64 = 100 * ((value / base[0]) / (base / base[0]).mean())
    return scaled


def first_whole_month(days: Days, value: F64) -> np.datetime64 | None:
    """Return the first month (datetime64[M]) of which every day has a value."""
    for month in np.unique(days[np.isfinite(value)].astype("datetime64[M]")):
        if _month_is_whole(days, value, month):
            return np.datetime64(month, "M")
    return None


def _month_is_whole(days: Days, value: F64, month: np.datetime64) -> bool:
    require_consecutive(days)
    inside = days.astype("datetime64[M]") == month
    length = (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")
    return bool(np.count_nonzero(inside) == length.astype(int) and np.isfinite(value[inside]).all())


def _grow(source: Source, row: int, weights: F64, before: F64, bound: float) -> float:
    """Return the weighted mean growth of one source since ``before``; NaN if too little of it is observed."""
    age = row - source.died
    dead = (age >= 0) & (age <= HELD_AFTER_DEATH_DAYS)
    counted = (weights > 0) & (age <= HELD_AFTER_DEATH_DAYS)
    change = source.y[row] - before
    known = counted & (np.isfinite(change) | dead)
    total = weights[counted].sum()
    observed = weights[known].sum()
    if total <= 0 or observed < COVERAGE_MIN * total:
        return float("nan")
    steps = np.where(dead[known], 0.0, np.clip(change[known], -bound, bound))
    return float(weights[known] @ steps / observed)


def _common_start(sources: Sequence[Source], baskets: Sequence[Basket], days: int) -> int | None:
    """Return the first row on which every source of the first basket is observed well enough."""
    if not baskets:
        return None
    first = baskets[0]
    end = baskets[1].start if len(baskets) > 1 else days
    for row in range(first.start, end):
        seen = (
            weights[np.isfinite(source.y[row])].sum() >= COVERAGE_MIN * weights.sum()
            for source, weights in zip(sources, first.weights, strict=True)
        )
        if all(seen):
            return row
    return _common_start(sources, baskets[1:], days)
