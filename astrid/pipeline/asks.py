"""Who is asked tonight, and for which days: from what the tasks declare and what the store lacks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final

from astrid.models import Entity
from astrid.sources import SOURCES
from astrid.sources.source import Source, Task, days_between

HEAL_DAYS: Final = 35
"""How far back a night looks for missing days; older ones are a backfill's work."""

FEED_DAYS: Final = 180
"""How far back the newest day of a feed is looked for."""

STALE_FEED_DAYS: Final = 3
"""A feed whose newest day is older than this stands still: it is probed, not read."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What the store lacks: per metric the days of each entity from ``first`` to the night's day.

    ``newest`` is the last observed day per metric and entity (absent: never observed); ``asked`` who was asked in
    vain for the night's day a moment ago. ``tried`` is the last day that an upstream gave no value for although it
    was asked, ``refused`` the last one for which it said that there is none; both absent where there is no such day.
    ``feeds`` is the last day that an origin stated a metric for anybody.

    ``missed`` are earlier days since the first night of all whose night did not run to its end. Only where somebody
    lacks a snapshot of such a day, ``noted`` is filled, the days of snapshots for which the ledger has a gap.
    ``tracked`` is the day on which the watchlist first held an entity (absent: it always did).
    """

    first: date
    days: Mapping[str, Mapping[int, frozenset[date]]]
    newest: Mapping[str, Mapping[int, date]]
    asked: Mapping[str, frozenset[int]] = field(default_factory=dict)
    tried: Mapping[str, Mapping[int, date]] = field(default_factory=dict)
    refused: Mapping[str, Mapping[int, date]] = field(default_factory=dict)
    feeds: Mapping[tuple[str, str], date] = field(default_factory=dict)
    missed: frozenset[date] = frozenset()
    noted: Mapping[str, Mapping[int, frozenset[date]]] = field(default_factory=dict)
    tracked: Mapping[int, date] = field(default_factory=dict)

    def of(self, metric: str, entity_id: int) -> frozenset[date]:
        """Return the days on which this entity lacks this metric."""
        return self.days.get(metric, {}).get(entity_id, frozenset())


@dataclass(frozen=True, slots=True)
class Ask:
    """The days from ``first`` to ``last`` (inclusive) that a task is asked for, and about whom."""

    source: Source
    task: Task
    first: date
    last: date
    entities: tuple[Entity, ...]


def find_asks(source: Source, task: Task, day: date, entities: Sequence[Entity], missing: Missing) -> list[Ask]:
    """Return what the night of ``day`` asks of a task, by what the task declares; nothing if nothing is missing."""
    accepted = [e for e in entities if task.accepts(e)]
    if not task.cadence_days or (task.relieves and not stands_still(_task_of(task.relieves), day, missing)):
        return []
    if task.span == "windows":
        return [Ask(source, task, *days, tuple(accepted)) for days in _windows(task, day, accepted, missing)]
    due = _probed(task, day, [e for e in accepted if is_due(task, e.entity_id, day, missing)], missing)
    if task.relieves:
        # Who is probed is asked about elsewhere tonight: two sources must not give two reasons for one gap.
        relieved = _task_of(task.relieves)
        late = [e for e in accepted if is_due(relieved, e.entity_id, day, missing)]
        probed = {e.entity_id for e in _probed(relieved, day, late, missing)}
        due = [e for e in due if e.entity_id not in probed]
    if not due:
        return []
    groups: dict[date, list[Entity]] = {}
    for entity in due:
        groups.setdefault(first_asked(task, entity.entity_id, day, missing), []).append(entity)
    return [Ask(source, task, first, day, tuple(group)) for first, group in sorted(groups.items())]


def first_asked(task: Task, entity_id: int, day: date, missing: Missing) -> date:
    """Return the first of the days, up to its own, for which the night of ``day`` asks about an entity that is due.

    Not for windows, which are asked about everybody.
    """
    earliest = day - timedelta(days=task.lookback_days - 1)
    if task.span == "lookback":
        if task.heal_days <= task.lookback_days:
            return earliest
        since = max(day - timedelta(days=task.heal_days - 1), missing.tracked.get(entity_id, date.min))
        lacking = [d for metric in task.metrics for d in missing.of(metric, entity_id) if d >= since]
        return min([earliest, *lacking])
    whole = task.reread_days and (entity_id + day.toordinal()) % task.reread_days == 0
    # Who is asked only once in so many nights might never meet a night of its own number.
    whole = whole or is_overdue(task, entity_id, day, missing)
    return earliest if whole else _first_missing(task, entity_id, earliest, missing)


def asks_for(task: Task, entity_id: int, of: date, day: date, missing: Missing) -> bool:
    """Tell whether the night of ``day`` asks a task about an entity on the day ``of``, if there is room.

    While its whole feed stands still a task asks a few for all, or another in its place; that is not looked at here.
    Nor is what a window is read for because others lack days in it.
    """
    if not task.cadence_days or not is_due(task, entity_id, day, missing):
        return False
    if task.span == "windows":
        return of in _reread(task, missing.of(task.metrics[0], entity_id))
    return first_asked(task, entity_id, day, missing) <= of <= day


def reach_of(task: Task) -> int:
    """Return in how many nights, that of a day itself included, a task may be asked for the day."""
    if not task.cadence_days:
        return 0
    known = {"lookback": 0, "since_missing": HEAL_DAYS, "windows": HEAL_DAYS + task.lookback_days - 1}[task.span]
    return max(task.lookback_days, task.heal_days, known)


def look_ahead(missing: Missing, night: date, day: date) -> Missing:
    """Return what the night of a later ``day`` will lack if nothing comes, from what that of ``night`` lacks."""
    first = missing.first + (day - night)

    def recent(of: Mapping[str, Mapping[int, date]]) -> dict[str, dict[int, date]]:
        return {name: {e: d for e, d in own.items() if d >= first} for name, own in of.items()}

    new = frozenset(days_between(night + timedelta(days=1), day))
    days = {
        name: {e: frozenset(d for d in lacked if d >= first) | new for e, lacked in own.items()}
        for name, own in missing.days.items()
    }
    return replace(
        missing,
        first=first,
        days=days,
        newest=recent(missing.newest),
        tried=recent(missing.tried),
        refused=recent(missing.refused),
        asked={},
    )


def find_passed_over(task: Task, day: date, entities: Sequence[Entity], missing: Missing) -> tuple[Entity, ...]:
    """Return who is due and is not asked for, because the whole feed stands still and a few are asked for all."""
    if not task.probe or not task.cadence_days:
        return ()
    if task.relieves and not stands_still(_task_of(task.relieves), day, missing):
        return ()
    due = [e for e in entities if task.accepts(e) and is_due(task, e.entity_id, day, missing)]
    probed = {e.entity_id for e in _probed(task, day, due, missing)}
    return tuple(e for e in due if e.entity_id not in probed)


def find_missed(task: Task, day: date, entities: Sequence[Entity], missing: Missing) -> Iterator[tuple[int, str, date]]:
    """Yield (entity id, metric, day) of snapshots whose night did not run, and of which nothing is known therefore.

    Only of days since a metric is known to be taken of an entity: the first one with a value or a gap, or where nobody
    has a value as far back as is looked, all of them. A snapshot of several nights is missed on its turn alone.
    """
    if task.timing != "snapshot" or not task.cadence_days or not missing.missed:
        return
    past = days_between(missing.first, day - timedelta(days=1))
    for metric in task.metrics:
        stopped = _latest(last for (name, _), last in missing.feeds.items() if name == metric)
        since = missing.first if stopped is not None and stopped < missing.first else day
        noted = missing.noted.get(metric, {})
        for entity_id in [e.entity_id for e in entities if task.accepts(e)]:
            lacking = missing.of(metric, entity_id)
            if lacking.isdisjoint(missing.missed):
                continue
            silent = lacking - noted.get(entity_id, frozenset())
            first = max(next((d for d in past if d not in silent), since), missing.tracked.get(entity_id, date.min))
            for late in past:
                if late in silent and late in missing.missed and late >= first and _has_turn(task, entity_id, late):
                    yield entity_id, metric, late


def is_due(task: Task, entity_id: int, day: date, missing: Missing) -> bool:
    """Tell whether the night of ``day`` asks for an entity: it lacks the day, and its turn has come or was missed."""
    lacking = [metric for metric in task.metrics if day in missing.of(metric, entity_id)]
    if not lacking or task.cadence_days <= 1:
        return bool(lacking)
    answered = (
        _latest(of.get(metric, {}).get(entity_id) for of in (missing.newest, missing.refused)) for metric in lacking
    )
    overdue = any(last is None or (day - last).days > task.cadence_days for last in answered)
    return overdue or _has_turn(task, entity_id, day)


def measure_staleness(task: Task, entity_id: int, day: date, missing: Missing) -> float:
    """Return how many of its cadences ago a task last heard of, or asked for, an entity; at least one.

    Who has never been asked waits since before the first day that is looked at. An answer without a value counts as
    one, so that who never answers does not stand before everybody else for ever.
    """
    return max(_waited_days(task, entity_id, day, missing) / max(task.cadence_days, 1), 1.0)


def is_overdue(task: Task, entity_id: int, day: date, missing: Missing) -> bool:
    """Tell whether an entity has waited for as many nights as its task lets pass between two whole readings."""
    return bool(task.reread_days) and _waited_days(task, entity_id, day, missing) >= task.reread_days


def stands_still(task: Task, day: date, missing: Missing) -> bool:
    """Tell whether a task's whole feed has had nothing new for days; not so if it never had anything."""
    newest = missing.feeds.get((task.metrics[0], task.origin))
    return newest is not None and (day - newest).days > STALE_FEED_DAYS


def _has_turn(task: Task, entity_id: int, day: date) -> bool:
    return (entity_id + day.toordinal()) % task.cadence_days == 0


def _waited_days(task: Task, entity_id: int, day: date, missing: Missing) -> int:
    last = [
        _latest(of.get(metric, {}).get(entity_id) for of in (missing.newest, missing.tried)) for metric in task.metrics
    ]
    never = missing.first - timedelta(days=1)
    return max((day - (d or never)).days for d in last)


def _task_of(name: str) -> Task:
    source, _, task = name.partition(".")
    return SOURCES[source].tasks[task]


def _windows(task: Task, day: date, entities: Sequence[Entity], missing: Missing) -> list[tuple[date, date]]:
    """Return the ranges of days that anybody lacks, each with the days before it; none if nobody lacks the night's day.

    A night reads again the days that its ``lookback_days`` reach back to, for their values change until they are
    settled. A day that is lacking is the day of a night that read nothing, and so may be one of the missed nights just
    before this one, though a backfill has filled it; what such a night should have read again is read now. Thus every
    day is read once more after ``lookback_days - 1`` days, whichever nights were missed.
    """
    lacking = {d for e in entities for d in missing.of(task.metrics[0], e.entity_id)}
    if day not in lacking:
        return []
    unread, before = set(lacking), day - timedelta(days=1)
    while before in missing.missed:
        unread.add(before)
        before -= timedelta(days=1)
    return list(_runs(sorted(_reread(task, unread)), task.days_per_batch))


def _reread(task: Task, unread: Iterable[date]) -> set[date]:
    """Return the days that a night reads which has ``unread`` to read: each with the days before it."""
    return {d - timedelta(days=n) for d in unread for n in range(task.lookback_days)}


def _probed(task: Task, day: date, due: Sequence[Entity], missing: Missing) -> Sequence[Entity]:
    """Take a rotating few if the whole feed stands still; asking for all of them would bring nothing new.

    A stand-in that has stated nothing lately is probed too, before it is asked for everybody. A probe that came back
    empty a moment ago stands for the whole feed.
    """
    untried = task.relieves and (task.metrics[0], task.origin) not in missing.feeds
    if not task.probe or not due or not (untried or stands_still(task, day, missing)):
        return due
    if missing.asked.get(task.metrics[0]):
        return ()
    turn = day.toordinal() * task.probe % len(due)
    return (*due, *due)[turn : turn + min(task.probe, len(due))]


def _first_missing(task: Task, entity_id: int, earliest: date, missing: Missing) -> date:
    """Return the first day that an entity lacks; ``earliest``, all that there is, if it has none."""
    metric = task.metrics[0]
    if entity_id not in missing.newest.get(metric, {}):
        return earliest
    return max(earliest, min(missing.of(metric, entity_id), default=earliest))


def _latest(days: Iterable[date | None]) -> date | None:
    return max((d for d in days if d is not None), default=None)


def _runs(days: Sequence[date], longest: int) -> Iterator[tuple[date, date]]:
    """Join sorted days into ranges of consecutive days, none longer than ``longest``."""
    start = previous = None
    for day in days:
        if start is None or previous is None:
            start = day
        elif (day - previous).days > 1 or (day - start).days >= longest:
            yield start, previous
            start = day
        previous = day
    if start is not None and previous is not None:
        yield start, previous
