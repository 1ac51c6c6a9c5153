"""When a missing value will be asked for again, or why nobody will ask. Pure.

There is one rule, the planner's own (:func:`astrid.pipeline.asks.asks_for`); here it is asked about nights to come.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRIC_BY_ID
from astrid.models import Gap
from astrid.pipeline.asks import HEAL_DAYS, Missing, asks_for, look_ahead, reach_of, stands_still
from astrid.pipeline.backfill import find_backfill
from astrid.pipeline.ledger import Bools, tasks_of
from astrid.store import GapMarks
from astrid.timeline import SNAPSHOT_NOON, night_of, night_start, snapshot_day

SNAPSHOT_OVER: Final = "a count taken now would stand for another day"
NOT_TRACKED: Final = "no night asks for it any more: the watchlist has dropped it"
REFUSED: Final = "the upstream said that it has none"
FORGOTTEN: Final = "no night asks so far back, and no backfill reads it"
UNKNOWN: Final = "this version knows no such metric"
SILENT: Final = "the last night did not ask for it: the source has to be one that can be asked"
STANDING_STILL: Final = "while the whole feed stands still, a few are asked for all"


@dataclass(frozen=True, slots=True)
class NextTry:
    """What will be done about a missing value.

    ``night``: the night of the day ``night`` asks, from ``at`` on. ``rerun``: a second run of its own night can still
    take it, until ``at``. ``backfill``: no night asks so far back, a backfill of ``source`` does. ``never``: nobody
    will. ``why`` says more, and always why never.
    """

    kind: Literal["night", "rerun", "backfill", "never"]
    night: date | None = None
    at: datetime | None = None
    source: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of the coming nights.

    ``night`` is the day of the next one and ``missing`` what it will lack if nothing comes until then; ``tasks`` by
    entity the (source, task) that nights ask about it, ``sources`` those that a backfill could ask; ``silent`` are
    tasks of every night that the last one did not ask.
    """

    now: datetime
    night: date
    missing: Missing
    tasks: Mapping[int, Collection[tuple[str, str]]]
    sources: Collection[str]
    silent: Collection[tuple[str, str]] = ()
    _ahead: dict[date, Missing] = field(default_factory=dict, compare=False)

    def lacking(self, day: date) -> Missing:
        """Return what the night of ``day`` will lack if nothing comes until then."""
        if day not in self._ahead:
            self._ahead[day] = self.missing if day == self.night else look_ahead(self.missing, self.night, day)
        return self._ahead[day]


def find_next_try(gap: Gap, outlook: Outlook) -> NextTry:
    """Say when a missing value will be asked for again; ``gap.retry`` says whether its upstream may still have it.

    The first night that asks is named; one that has no room for everybody may put it off.
    """
    metric = METRIC_BY_ID.get(gap.metric_id)
    if metric is None:
        return NextTry("never", why=UNKNOWN)
    asked = outlook.tasks.get(gap.entity_id, ())
    tasks = [task for task in tasks_of(metric) if (metric.source, task.name) in asked]
    night = max(outlook.night, gap.day)
    while night < gap.day + timedelta(days=max(map(reach_of, tasks), default=0)):
        for task in tasks:
            if asks_for(task, gap.entity_id, gap.day, night, outlook.lacking(night)):
                still = task.probe and stands_still(task, night, outlook.lacking(night))
                said = SILENT if (metric.source, task.name) in outlook.silent else STANDING_STILL if still else ""
                return NextTry("night", night, night_start(night), metric.source, said)
        night += timedelta(days=1)
    if metric.timing == "snapshot":
        if snapshot_day(outlook.now) != gap.day:
            return NextTry("never", why=SNAPSHOT_OVER)
        if tasks and gap.retry:
            until = datetime.combine(gap.day + timedelta(days=1), SNAPSHOT_NOON)
            return NextTry("rerun", gap.day, until, metric.source)
    if not tasks:
        return NextTry("never", why=NOT_TRACKED)
    if not gap.retry:
        return NextTry("never", why=REFUSED)
    source = find_backfill(metric.name, gap.day, night_of(outlook.now), outlook.sources)
    return NextTry("backfill", source=source) if source else NextTry("never", why=FORGOTTEN)


def lacking_of(
    night: date,
    entity_ids: npt.NDArray[np.int32],
    observed: Mapping[int, Bools],
    marks: GapMarks,
    feeds: Mapping[tuple[str, str], date],
    tracked: Mapping[int, date],
) -> Missing:
    """Return what a coming night lacks of some entities, as it would read it itself (``night.read_missing``).

    ``observed`` by metric id are bool arrays (T, N) of the ``HEAL_DAYS`` days up to ``night``.
    """
    first = night - timedelta(days=HEAL_DAYS - 1)
    names = {metric_id: METRIC_BY_ID[metric_id].name for metric_id in observed}
    newest: dict[str, dict[int, date]] = {name: {} for name in names.values()}
    tried: dict[str, dict[int, date]] = {name: {} for name in names.values()}
    refused: dict[str, dict[int, date]] = {name: {} for name in names.values()}
    hopeless: dict[tuple[str, int], set[date]] = {}
    columns = (marks.metric_id, marks.entity_id, marks.day, marks.retry, marks.healed, marks.unasked)
    for metric_id, entity_id, day, retry, healed, unasked in zip(*(c.tolist() for c in columns), strict=True):
        if healed or metric_id not in names or not first <= day <= night:
            continue
        name = names[metric_id]
        if not retry:
            hopeless.setdefault((name, entity_id), set()).add(day)
        for kept in () if unasked else (tried,) if retry else (tried, refused):
            kept[name][entity_id] = max(day, kept[name].get(entity_id, day))
    days: dict[str, dict[int, frozenset[date]]] = {}
    for metric_id, name in names.items():
        days[name] = {}
        for entity_id, seen in zip(entity_ids.tolist(), observed[metric_id].T, strict=True):
            lacked = frozenset(first + timedelta(days=n) for n in np.flatnonzero(~seen).tolist())
            days[name][entity_id] = lacked - hopeless.get((name, entity_id), set())
            if seen.any():
                newest[name][entity_id] = first + timedelta(days=int(np.flatnonzero(seen)[-1]))
    return Missing(first, days, newest, {}, tried, refused, feeds, tracked=tracked)
