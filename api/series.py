"""One series, day by day: what was observed is a number, a day without an observation is None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from api.problems import BAD_RANGE, UNKNOWN_METRIC, Problem, remedy_of, suggest
from api.state import State
from astrid.catalog import CAVEATS, METRIC_BY_NAME, ORIGIN_BY_ID, Metric
from astrid.store import NoteRow, SeriesPoint

DAYS_DEFAULT: Final = 365
DAYS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class DenseSeries:
    """A series on every day from ``start`` to ``end`` (inclusive).

    ``values`` and ``origins`` have one entry per day, None on a day without an observation; whole numbers are ints.
    ``as_of`` is the moment as of which it was read, else when the newest of these values was written.
    """

    slug: str
    metric: Metric
    start: date
    end: date
    values: tuple[int | float | None, ...]
    origins: tuple[str | None, ...]
    as_of: datetime | None
    notes: tuple[NoteRow, ...] = ()

    @property
    def days(self) -> list[date]:
        """The days, one per value."""
        return [self.start + timedelta(days=i) for i in range(len(self.values))]

    @property
    def observed(self) -> int:
        """How many days have a value."""
        return sum(value is not None for value in self.values)

    @property
    def coverage(self) -> float:
        """Observed days over days."""
        return self.observed / len(self.values)

    @property
    def last(self) -> tuple[date, int | float] | None:
        """The last observed day and its value, or None."""
        for i in range(len(self.values) - 1, -1, -1):
            value = self.values[i]
            if value is not None:
                return self.start + timedelta(days=i), value
        return None


def metric_named(name: str) -> Metric:
    """Return the metric of a name.

    Raises
    ------
    Problem
        If the catalogue has none; the nearest name is suggested.
    """
    metric = METRIC_BY_NAME.get(name)
    if metric is None:
        raise Problem(
            UNKNOWN_METRIC,
            f"The catalogue holds no metric {name[:80]!r}.",
            field="metric",
            remedy=remedy_of(suggest(name, METRIC_BY_NAME), f"Metrics: {', '.join(METRIC_BY_NAME)}."),
        )
    return metric


def exact(value: float) -> int | float:
    """Return a whole number as int, so that a count never reads 113346.0."""
    return int(value) if value.is_integer() else value


def origin_name(origin_id: int) -> str:
    """Return the catalogue's name of an origin; one that this version does not know keeps its number."""
    origin = ORIGIN_BY_ID.get(origin_id)
    return origin.name if origin else f"origin_{origin_id}"


def densify(
    points: Sequence[SeriesPoint], start: date, end: date
) -> tuple[tuple[int | float | None, ...], tuple[str | None, ...]]:
    """Return values and origins on every day from ``start`` to ``end``; None where ``points`` has no such day."""
    length = (end - start).days + 1
    values: list[int | float | None] = [None] * length
    origins: list[str | None] = [None] * length
    for point in points:
        at = (point.day - start).days
        if 0 <= at < length:
            values[at] = exact(point.value)
            origins[at] = origin_name(point.origin_id)
    return tuple(values), tuple(origins)


def check_range(start: date, end: date) -> None:
    """Pass where the range can be answered.

    Raises
    ------
    Problem
        If it is empty or longer than DAYS_MAX.
    """
    if start > end:
        raise Problem(
            BAD_RANGE,
            f"start {start} is after end {end}.",
            field="start",
            remedy="Give a start that is not after the end.",
        )
    days = (end - start).days + 1
    if days > DAYS_MAX:
        raise Problem(
            BAD_RANGE,
            f"{start} to {end} is {days:,} days; one answer has at most {DAYS_MAX:,}.",
            field="start",
            remedy="Ask for it in parts.",
        )


def _back(day: date, days: int) -> date:
    return day - timedelta(days=min(days, day.toordinal() - 1))


def notes_within(notes: Sequence[NoteRow], start: date, end: date) -> tuple[NoteRow, ...]:
    """Return the notes that speak of a day from ``start`` to ``end``."""
    return tuple(n for n in notes if n.first_day <= end and (n.last_day is None or n.last_day >= start))


async def read_notes(state: State, metric: Metric, as_of: datetime | None = None) -> list[NoteRow]:
    """Return the notes of a metric, as read a moment ago, and what holds on every day of it."""
    number = metric.metric_id
    notes = await state.keep_past(("notes", number), as_of, lambda: state.store.read_notes(number, as_of=as_of))
    always = [NoteRow(metric.metric_id, date.min, None, CAVEATS[metric.name])] if metric.name in CAVEATS else []
    return [*notes, *always]


async def read_dense(
    state: State, slug: str, metric: Metric, start: date | None, end: date | None, as_of: datetime | None = None
) -> DenseSeries:
    """Read a series of a known project, as of a moment (None: now).

    Without ``end`` it goes to the last day that was observed or scored, without ``start`` it has 365 days.

    Raises
    ------
    Problem
        If the range is empty or longer than DAYS_MAX.
    """
    if end is not None:
        first = start or _back(end, DAYS_DEFAULT - 1)
        check_range(first, end)
        points = await state.store.read_series(slug, metric.metric_id, first, end, as_of=as_of)
        last = end
    else:
        scored, horizon = await state.scored_day(as_of), await state.last_day(as_of)
        # Read from a start that holds for every end still possible, then settle the end by what was found.
        if start:
            check_range(start, scored or horizon)
        reach = start or _back(scored or horizon, (DAYS_DEFAULT if scored else DAYS_MAX) - 1)
        points = await state.store.read_series(slug, metric.metric_id, reach, horizon, as_of=as_of)
        last = max([day for day in (scored, points[-1].day if points else None) if day], default=horizon)
        first = start or _back(last, DAYS_DEFAULT - 1)
        check_range(first, last)
        points = [point for point in points if point.day >= first]
    values, origins = densify(points, first, last)
    moment = as_of or max((point.observed_at for point in points), default=None)
    if moment is None:
        runs = await state.store.read_runs(1)
        moment = (runs[0].finished_at or runs[0].started_at) if runs else None
    notes = notes_within(await read_notes(state, metric, as_of), first, last)
    return DenseSeries(slug, metric, first, last, values, origins, moment.astimezone(UTC) if moment else None, notes)
