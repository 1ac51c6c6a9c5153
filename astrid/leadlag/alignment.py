"""The sample: changes of adoption, and the growth of an index on the grid of adoption's publication days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]

STALE_DAYS: Final = 7
"""An index value stands for so many days, or one and a half of its own usual spacing if that is more."""

SEGMENT_STEP: Final = 1_000_000
"""Positions of different segments are so far apart that no lag reaches from one into another."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """A published series of adoption: M figures in the order of time.

    ``dates`` are the ends of the reference periods (datetime64[D]), ``share`` in (0, 1), NaN = not published.
    ``period`` numbers the reference periods: consecutive figures differ by 1. ``segment`` numbers the stretches that
    are one series: where the question was reworded a new one begins. ``delay_days`` is from the end of a period to
    publication; None where ``dates`` are days of publication and the delay is not known.
    """

    name: str
    dates: Days
    share: F64
    period: I64
    segment: I64
    delay_days: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """An index: ``dates`` on which ``value`` was known, increasing; NaN = a gap."""

    name: str
    dates: Days
    value: F64


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of logit(share), (n,): ``y`` from publication day ``opened`` to ``closed``.

    ``position`` is the period number, shifted by SEGMENT_STEP per segment, so that two changes are neighbours if and
    only if their positions differ by 1.
    """

    y: F64
    opened: Days
    closed: Days
    position: I64
    segment: I64


def changes(adoption: Adoption) -> Changes:
    """Return the changes between consecutive figures of one segment; none is ever taken across a break or a hole."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logit = np.log(adoption.share / (1 - adoption.share))
    step = np.diff(logit)
    kept = np.isfinite(step) & (np.diff(adoption.period) == 1) & (np.diff(adoption.segment) == 0)
    published = adoption.dates + np.timedelta64(adoption.delay_days or 0, "D")
    segment = adoption.segment[1:][kept]
    return Changes(
        step[kept],
        published[:-1][kept],
        published[1:][kept],
        adoption.period[1:][kept] + SEGMENT_STEP * segment,
        segment,
    )


def growth_on_grid(series: Series, grid: Changes, lag_days: int) -> F64:
    """Return the mean log growth per week of ``series`` over each interval of the grid, moved back by ``lag_days``.

    Only values known at the ends of the moved interval count: at each end the last value up to that day stands, if it
    is no older than STALE_DAYS (or 1.5 times the usual spacing of the series). Else the mean is NaN: a gap is a gap.
    """
    lag = np.timedelta64(lag_days, "D")
    begin, end = _as_of(series, grid.opened - lag), _as_of(series, grid.closed - lag)
    weeks = (grid.closed - grid.opened).astype(np.int64) / 7
    mean: F64 = (end - begin) / weeks
    return mean


def dummies(segment: I64) -> F64:
    """Return one column of 0 and 1 per segment, (n, segments): every segment has a mean of its own."""
    columns: F64 = (segment[:, None] == np.unique(segment)[None, :]).astype(np.float64)
    return columns


def lagged(values: F64, position: I64, steps: int) -> F64:
    """Return the value ``steps`` positions earlier (later if negative), NaN where there is none in the segment."""
    place = {int(p): i for i, p in enumerate(position)}
    return np.array([values[place[q]] if (q := int(p) - steps) in place else np.nan for p in position], np.float64)


def _as_of(series: Series, days: Days) -> F64:
    known = np.isfinite(series.value) & (series.value > 0)
    dates, logs = series.dates[known], np.log(series.value[known])
    if len(dates) == 0:
        return np.full(len(days), np.nan)
    spacing = float(np.median(np.diff(dates).astype(np.int64))) if len(dates) > 1 else 1.0
    oldest = max(float(STALE_DAYS), 1.5 * spacing)
    place = np.searchsorted(dates, days, side="right") - 1
    age = (days - dates[np.maximum(place, 0)]).astype(np.int64)
    return np.where((place >= 0) & (age <= oldest), logs[np.maximum(place, 0)], np.nan)
