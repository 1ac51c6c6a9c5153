"""The ledger as it stands, read from the store: what was expected and is there, and what coming nights will ask.

Every reading can be made as of a past moment; then that moment is also ``now``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRIC_BY_ID, METRIC_BY_NAME, ORIGIN_BY_NAME, Metric
from astrid.models import Gap
from astrid.pipeline.asks import FEED_DAYS, HEAL_DAYS
from astrid.pipeline.ledger import REASONS, Cells, Nights, Why, judge, next_night, tasks_of
from astrid.pipeline.plan import NOT_ASKED
from astrid.pipeline.tries import Outlook, lacking_of
from astrid.sources import SOURCES
from astrid.store import GapEntry, Store
from astrid.timeline import night_of

TASKS: Final = tuple((s.name, t.name) for s in SOURCES.values() for t in s.tasks.values() if t.cadence_days)
LONGEST_CADENCE: Final = timedelta(days=max(SOURCES[source].tasks[task].cadence_days for source, task in TASKS))

SERIES_AT_ONCE: Final = 5_000
"""So many series are read in one query: all metrics of a few entities, one of a universe."""

FEW: Final = 1_000
"""Of so many entities only their own rows of the ledger are read; of more, all rows are."""

Key = tuple[int, int, date]
"""(metric_id, entity_id, day)"""


@dataclass(frozen=True, slots=True)
class Lacking:
    """One missing value: why, in words, and the ledger's row where there is one."""

    metric: Metric
    entity_id: int
    day: date
    why: Why
    reason: str
    entry: GapEntry | None

    @property
    def gap(self) -> Gap:
        """The value as the planner knows missing ones; what no row speaks of is worth a try."""
        retry = self.entry.retry if self.entry else True
        return Gap(self.entity_id, self.metric.metric_id, self.day, self.reason, retry)


async def read_nights(store: Store, first: date, last: date, now: datetime, as_of: datetime | None = None) -> Nights:
    """Read which nights ran and what they asked, as far as days from ``first`` to ``last`` depend on it."""
    over = night_of(now)
    until = max(last, over) + LONGEST_CADENCE
    ran = await store.ledger.read_nights(min(first, over), until, as_of=as_of)
    asked = await store.ledger.read_asked(first, until, TASKS, as_of=as_of)
    ended = frozenset(day for day, well in ran.items() if well)
    return Nights(over, next_night(now, ran), ended, {task: frozenset(days) for task, days in asked.items()})


async def walk_cells(
    store: Store,
    metrics: Sequence[Metric],
    entity_ids: npt.NDArray[np.int32],
    first: date,
    last: date,
    nights: Nights,
    as_of: datetime | None = None,
) -> AsyncGenerator[Cells]:
    """Read some metrics of some entities (int32, ascending) from ``first`` to ``last`` (inclusive), and judge them.

    Metrics come one after another, so that a universe needs the room of one.
    """
    whose = entity_ids.tolist() if len(entity_ids) <= FEW else None
    ledger, metric_ids = store.ledger, [m.metric_id for m in metrics]
    asked = await ledger.read_expectations(first, last, whose, as_of=as_of)
    marks = await ledger.read_marks(metric_ids, first, last, NOT_ASKED, whose, as_of=as_of)
    at_once = max(1, SERIES_AT_ONCE // max(len(entity_ids), 1))
    for start in range(0, len(metrics), at_once):
        some = metrics[start : start + at_once]
        observed = await ledger.read_presence([m.metric_id for m in some], entity_ids, first, last, as_of=as_of)
        for metric in some:
            yield judge(metric, entity_ids, first, observed[metric.metric_id], asked, marks, nights)


async def describe(store: Store, keys: Mapping[Key, Why], as_of: datetime | None = None) -> list[Lacking]:
    """Give missing values their reasons, in the order of ``keys``."""
    rows = await store.ledger.read_entries([key for key, why in keys.items() if why == Why.ROW], as_of=as_of)
    found = []
    for key, why in keys.items():
        metric_id, entity_id, day = key
        entry = rows.get(key)
        # A row that went while this was read says nothing any more.
        stated = why if entry or why != Why.ROW else Why.UNEXPLAINED
        reason = entry.reason if entry else REASONS[stated]
        found.append(Lacking(METRIC_BY_ID[metric_id], entity_id, day, stated, reason, entry))
    return found


async def read_outlook(
    store: Store,
    metrics: Collection[Metric],
    entity_ids: npt.NDArray[np.int32],
    now: datetime,
    nights: Nights,
    sources: Collection[str],
    as_of: datetime | None = None,
) -> Outlook:
    """Read what the coming nights will lack of some metrics of some entities (int32, ascending).

    ``sources`` are those that a backfill could ask.
    """
    ids = entity_ids.tolist()
    night, first = nights.next, nights.next - timedelta(days=HEAL_DAYS - 1)
    # A task asks for all its metrics if one of them is lacking.
    wanted = {name for m in metrics for task in tasks_of(m) for name in (m.name, *task.metrics)}
    ledger, metric_ids = store.ledger, [METRIC_BY_NAME[name].metric_id for name in sorted(wanted)]
    observed = await ledger.read_presence(metric_ids, entity_ids, first, night, as_of=as_of)
    marks = await ledger.read_marks(metric_ids, first, night, NOT_ASKED, ids, as_of=as_of)
    asked: dict[tuple[str, str], set[int]] = {}
    for row in await ledger.read_expectations(night, date.max, as_of=as_of):
        if row.last_day is None:  # one row a task, and one for everybody who joined later
            asked.setdefault((row.source, row.task), set()).update(row.entity_ids)
    tasks = {e: [task for task, everybody in asked.items() if e in everybody] for e in ids}
    feeds = await _read_feeds(store, {k: v for k, v in asked.items() if fills(k, wanted)}, night, as_of)
    tracked = {p.entity_id: p.first_tracked for p in await store.read_projects(as_of=as_of)}
    missing = lacking_of(night, entity_ids, observed, marks, feeds, tracked)
    last = max((day for day in nights.ended if day < night), default=None)
    daily = [task for task in TASKS if SOURCES[task[0]].tasks[task[1]].cadence_days == 1]
    silent = frozenset(task for task in daily if last and last not in nights.asked.get(task, ()))
    return Outlook(now, night, missing, tasks, sources, silent)


def fills(task: tuple[str, str], metrics: Collection[str]) -> bool:
    """Tell whether a (source, task) fills one of some metrics."""
    source, name = task
    known = SOURCES[source].tasks.get(name) if source in SOURCES else None
    return known is not None and any(metric in metrics for metric in known.metrics)


async def _read_feeds(
    store: Store, asked: Mapping[tuple[str, str], Collection[int]], night: date, as_of: datetime | None
) -> dict[tuple[str, str], date]:
    """Return the last day on which anything was stated, of the feeds that are probed when they stand still."""
    feeds = {}
    for (source, name), everybody in asked.items():
        task = SOURCES[source].tasks[name]
        if task.probe:
            metric, origin = METRIC_BY_NAME[task.metrics[0]], ORIGIN_BY_NAME[task.origin]
            first = night - timedelta(days=FEED_DAYS - 1)
            newest = await store.ledger.read_newest(
                metric.metric_id, origin.origin_id, list(everybody), first, night, as_of=as_of
            )
            if newest is not None:
                feeds[metric.name, origin.name] = newest
    return feeds
