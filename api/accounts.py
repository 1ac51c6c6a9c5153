"""Readings of the ledger that both the API and the pages are made of: counts, lists of what is missing, calendars."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from api.problems import BAD_PARAMETER, BAD_RANGE, UNKNOWN_SOURCE, Problem, remedy_of, suggest
from api.series import metric_named
from api.state import KEEP_S as SHORT_KEEP_S
from api.state import Directory, State
from astrid.catalog import METRIC_BY_ID, METRICS, Metric
from astrid.pipeline.audit import Key, describe, read_nights, read_outlook, walk_cells
from astrid.pipeline.ledger import WAITING, Cells, Nights, Why
from astrid.pipeline.tries import NextTry, Outlook, find_next_try
from astrid.sources import SOURCES
from astrid.store import GapEntry, ProjectRow
from astrid.timeline import night_of

KEEP_S: Final = 60.0
"""How long a reading of many entities serves before it is read anew."""

DAYS_DEFAULT: Final = 35
UNIVERSE_DAYS_MAX: Final = 92
CALENDAR_DAYS_DEFAULT: Final = 365
CALENDAR_DAYS_MAX: Final = 400
LISTED_MAX: Final = 500_000
"""So many missing values are listed at most; who wants to see more asks for fewer days, one source or one project."""

GapState = Literal["open", "waiting", "healed", "all"]
DayState = Literal["none", "complete", "late", "waiting", "missing", "lost"]
"""Of a source's day: nothing expected, nor there; all there; all there, some of it late; not all there, and nobody
could have asked yet; not all there; not all there, and what is missing is never asked for again."""

SOURCE_NAMES: Final = tuple(dict.fromkeys(metric.source for metric in METRICS))


@dataclass(frozen=True, slots=True)
class Scope:
    """What a question is about: metrics, entities (int32, ascending), days, and what is known of the nights."""

    metrics: tuple[Metric, ...]
    entity_ids: npt.NDArray[np.int32]
    start: date
    end: date
    nights: Nights
    now: datetime
    as_of: datetime | None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other questions; one about one project from one about all by its entities."""
        whose = tuple(self.entity_ids.tolist()) if len(self.entity_ids) < 2 else len(self.entity_ids)
        return (self.metrics, whose, self.start, self.end, self.nights.next, self.as_of)

    @property
    def days(self) -> int:
        """How many days it is about."""
        return (self.end - self.start).days + 1


@dataclass(frozen=True, slots=True)
class Item:
    """One value that is missing, or came late: then ``why`` is NOTHING and ``next`` is None."""

    metric: Metric
    entity_id: int
    day: date
    why: Why
    reason: str
    entry: GapEntry | None
    next: NextTry | None


@dataclass(frozen=True, slots=True)
class Absent:
    """What one metric lacks on the days of a stretch, and what will be done about it."""

    metric: str
    why: Why
    reason: str
    next: NextTry


@dataclass(frozen=True, slots=True)
class Stretch:
    """Days in a row of which one thing can be said: how many of a source's metrics were expected, and came."""

    first: date
    last: date
    state: DayState
    expected: int
    observed: int
    absent: tuple[Absent, ...]

    @property
    def days(self) -> int:
        """How many days it holds."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True, slots=True)
class SourceCalendar:
    """A source's days of one project, all of them, oldest first."""

    source: str
    metrics: tuple[str, ...]
    stretches: tuple[Stretch, ...]

    def count(self, *states: DayState) -> int:
        """Return how many days are in some states."""
        return sum(s.days for s in self.stretches if s.state in states)

    @property
    def expected(self) -> int:
        """How many values were expected."""
        return sum(s.days * s.expected for s in self.stretches)

    @property
    def observed(self) -> int:
        """How many of them are there."""
        return sum(s.days * s.observed for s in self.stretches)


@dataclass(frozen=True, slots=True)
class Tally:
    """One metric on every day of a scope: int arrays (T,).

    ``missing`` + ``waiting`` + ``observed`` = ``expected``; ``late`` are some of the observed, ``unexplained`` of the
    missing. ``beyond`` came though nothing was expected: history from before a project was tracked.
    """

    metric: Metric
    expected: npt.NDArray[np.int64]
    observed: npt.NDArray[np.int64]
    late: npt.NDArray[np.int64]
    missing: npt.NDArray[np.int64]
    waiting: npt.NDArray[np.int64]
    unexplained: npt.NDArray[np.int64]
    beyond: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Listing:
    """Where values are missing or came late, the newest day first, then by slug and metric; and how many values of the
    whole scope were expected and came.

    ``rows`` is int32 (n, 4): day and entity as positions in the scope, metric as one in the catalogue, and the Why.
    """

    rows: npt.NDArray[np.int32]
    expected: int
    observed: int

    def page(self, scope: Scope, offset: int, limit: int) -> dict[Key, Why]:
        """Return some of them; NOTHING stands for a value that came late."""
        ids = scope.entity_ids.tolist()
        return {
            (METRICS[place].metric_id, ids[column], scope.start + timedelta(days=day)): Why(why)
            for day, column, place, why in self.rows[offset : offset + limit].tolist()
        }


def metrics_asked(metric: str | None, source: str | None) -> tuple[Metric, ...]:
    """Return the metrics of a question: one, those of a source, or all.

    Raises
    ------
    Problem
        If there is no such metric or source, or the metric is another source's.
    """
    if source is not None and source not in SOURCE_NAMES:
        raise Problem(
            UNKNOWN_SOURCE,
            f"No metric is observed by the source {source[:80]!r}.",
            field="source",
            remedy=remedy_of(suggest(source, SOURCE_NAMES), f"Sources: {', '.join(SOURCE_NAMES)}."),
        )
    if metric is None:
        return tuple(m for m in METRICS if source in (None, m.source))
    found = metric_named(metric)
    if source not in (None, found.source):
        raise Problem(
            BAD_PARAMETER,
            f"The metric {found.name} is observed by {found.source}, not by {source}.",
            field="source",
            remedy=f"Leave the source out, or give source={found.source}.",
        )
    return (found,)


async def read_scope(
    state: State,
    metrics: Sequence[Metric],
    project: str | None,
    start: date | None,
    end: date | None,
    as_of: datetime | None,
    *,
    default: int = DAYS_DEFAULT,
    longest: int = UNIVERSE_DAYS_MAX,
    field: str = "slug",
) -> Scope:
    """Settle what a question is about; without ``end`` it goes to the last day that is over.

    ``field`` is the parameter that names the project.

    Raises
    ------
    Problem
        If no project has the slug, or the range is empty, in the future, or longer than ``longest``.
    """
    directory = await state.directory(as_of)
    now = as_of or state.now()
    over = night_of(now)
    last = min(end or over, over)
    first = start or last - timedelta(days=default - 1)
    if first > last:
        raise Problem(
            BAD_RANGE,
            f"There is no day from {first} to {end or last} that is over: the last one is {over}.",
            field="start",
            remedy=f"Give a start that is not after the end, and not after {over}.",
        )
    if (days := (last - first).days + 1) > longest:
        raise Problem(
            BAD_RANGE,
            f"{first} to {last} is {days:,} days; one answer of this kind has at most {longest}.",
            field="start",
            remedy=f"Give a start that is at most {longest - 1} days before the end.",
        )
    ids = np.array(sorted(p.entity_id for p in _entities(directory, project, field)), np.int32)
    nights = await read_nights(state.store, first, last, now, as_of)
    return Scope(tuple(metrics), ids, first, last, nights, now, as_of)


def _entities(directory: Directory, project: str | None, field: str) -> Collection[ProjectRow]:
    if project is None:
        return directory.projects.values()
    try:
        return [directory.project(project)]
    except Problem as problem:
        problem.field = field
        raise


async def read_moment(state: State, scope: Scope) -> datetime | None:
    """Return as of when an answer is: the moment that was asked for, else when the last run ended, or began."""
    if scope.as_of is not None:
        return scope.as_of
    runs = await state.keep("last run", SHORT_KEEP_S, lambda: state.store.read_runs(1))
    return (runs[0].finished_at or runs[0].started_at) if runs else None


async def read_tallies(state: State, scope: Scope) -> list[Tally]:
    """Count what was expected and came, per metric and day, of all metrics of which anything is known."""

    async def read() -> list[Tally]:
        tallies = []
        async with state.universe:
            async for cells in walk_cells(
                state.store, scope.metrics, scope.entity_ids, scope.start, scope.end, scope.nights, scope.as_of
            ):
                observed = cells.expected & cells.observed
                counted = (
                    cells.expected, observed, cells.expected & cells.late, cells.missing, cells.waiting,
                    cells.why == Why.UNEXPLAINED, cells.observed & ~cells.expected,
                )  # fmt: skip
                tallies.append(Tally(cells.metric, *(part.sum(axis=1, dtype=np.int64) for part in counted)))
        return [t for t in tallies if t.expected.any() or t.beyond.any()]

    return await state.keep_past(("tallies", scope.key), scope.as_of, read, KEEP_S)


async def read_listing(state: State, scope: Scope, wanted: GapState, directory: Directory) -> Listing:
    """Find the values of a scope that are in a state, the newest day first, then by slug and metric.

    Raises
    ------
    Problem
        If there are more than LISTED_MAX.
    """

    async def read() -> Listing:
        parts: list[npt.NDArray[np.int64]] = []
        expected = observed = found = 0
        async with state.universe:
            async for cells in walk_cells(
                state.store, scope.metrics, scope.entity_ids, scope.start, scope.end, scope.nights, scope.as_of
            ):
                expected += int(cells.expected.sum())
                observed += int((cells.expected & cells.observed).sum())
                chosen = {"open": cells.missing, "waiting": cells.waiting, "healed": cells.late}
                which = np.logical_or.reduce(list(chosen.values())) if wanted == "all" else chosen[wanted]
                days, columns = np.nonzero(which)
                found += len(days)
                if found > LISTED_MAX:
                    raise Problem(
                        BAD_RANGE,
                        f"More than {LISTED_MAX:,} values are {wanted} from {scope.start} to {scope.end}.",
                        field="start",
                        remedy="Ask for fewer days, for one source or metric, or for one project.",
                    )
                place = np.full(len(days), METRICS.index(cells.metric))
                parts.append(np.stack([days, columns, place, cells.why[days, columns].astype(np.int64)], axis=1))
        rows = np.concatenate(parts) if parts else np.zeros((0, 4), np.int64)
        slugs = {p.entity_id: n for n, p in enumerate(directory.projects.values())}
        by_slug = np.array([slugs[e] for e in scope.entity_ids.tolist()], np.int64)
        order = np.lexsort((rows[:, 2], by_slug[rows[:, 1]], -rows[:, 0]))
        return Listing(rows[order].astype(np.int32), expected, observed)

    return await state.keep_past(("listing", scope.key, wanted), scope.as_of, read, KEEP_S)


async def read_outlook_of(state: State, scope: Scope, keys: Collection[Key]) -> Outlook:
    """Read what the coming nights will ask about what is missing."""
    ids = np.array(sorted({entity_id for _, entity_id, _ in keys}), np.int32)
    metrics = {METRIC_BY_ID[metric_id] for metric_id, _, _ in keys}
    sources = [name for name, source in SOURCES.items() if source.upstream in state.settings.base_urls]
    return await read_outlook(state.store, metrics, ids, scope.now, scope.nights, sources, scope.as_of)


async def read_items(state: State, scope: Scope, keys: Mapping[Key, Why]) -> list[Item]:
    """Return values of a scope with their rows of the ledger and what will be done about them, in order."""
    healed_keys = [key for key, why in keys.items() if why == Why.NOTHING]
    healed = await state.store.ledger.read_entries(healed_keys, as_of=scope.as_of)
    absent = {key: why for key, why in keys.items() if why != Why.NOTHING}
    lacking = {(x.metric.metric_id, x.entity_id, x.day): x for x in await describe(state.store, absent, scope.as_of)}
    outlook = await read_outlook_of(state, scope, absent)
    items = []
    for key in keys:
        if key in lacking:
            x = lacking[key]
            items.append(Item(x.metric, x.entity_id, x.day, x.why, x.reason, x.entry, find_next_try(x.gap, outlook)))
        elif key in healed:
            entry, metric = healed[key], METRIC_BY_ID[key[0]]
            items.append(Item(metric, entry.entity_id, entry.day, Why.NOTHING, entry.reason, entry, None))
    return items


async def read_calendar(state: State, scope: Scope) -> list[SourceCalendar]:
    """Return the calendar of a project: a source for each of which anything was expected or came."""
    cells = [
        c
        async for c in walk_cells(
            state.store, scope.metrics, scope.entity_ids, scope.start, scope.end, scope.nights, scope.as_of
        )
        if c.expected.any() or c.observed.any()
    ]
    (entity_id,) = scope.entity_ids.tolist()
    keys: dict[Key, Why] = {}
    for c in cells:
        for day in np.flatnonzero(c.why[:, 0]).tolist():
            keys[c.metric.metric_id, entity_id, scope.start + timedelta(days=day)] = Why(int(c.why[day, 0]))
    absent: dict[date, dict[str, Absent]] = {}
    for item in await read_items(state, scope, keys):
        assert item.next is not None, "what is missing has a next try"
        absent.setdefault(item.day, {})[item.metric.name] = Absent(item.metric.name, item.why, item.reason, item.next)
    by_source: dict[str, list[Cells]] = {}
    for c in cells:
        by_source.setdefault(c.metric.source, []).append(c)
    return [
        SourceCalendar(source, tuple(c.metric.name for c in own), join_days(own, scope.start, absent))
        for source, own in by_source.items()
    ]


def join_days(cells: Sequence[Cells], start: date, absent: Mapping[date, Mapping[str, Absent]]) -> tuple[Stretch, ...]:
    """Join the days of a source's metrics, each of one entity, of which the same is to be said."""
    stretches: list[Stretch] = []
    for n in range(len(cells[0].expected)):
        day = start + timedelta(days=n)
        expected = sum(bool(c.expected[n, 0]) for c in cells)
        observed = sum(bool(c.expected[n, 0] and c.observed[n, 0]) for c in cells)
        lacks = tuple(absent[day][c.metric.name] for c in cells if c.metric.name in absent.get(day, {}))
        if lacks:
            failed = [x for x in lacks if x.why not in WAITING]
            state: DayState = (
                "waiting" if not failed else "lost" if all(x.next.kind == "never" for x in failed) else "missing"
            )
        elif any(c.late[n, 0] for c in cells):
            state = "late"
        else:
            state = "complete" if expected or any(c.observed[n, 0] for c in cells) else "none"
        made = Stretch(day, day, state, expected, observed, lacks)
        last = stretches[-1] if stretches else None
        if last and (last.state, last.expected, last.observed, last.absent) == (state, expected, observed, lacks):
            stretches[-1] = replace(last, last=day)
        else:
            stretches.append(made)
    return tuple(stretches)
