"""The night and the backfill: what the store lacks, planned, and the run that brings it, from opening to closing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.broker import Broker
from astrid.catalog import METRIC_BY_ID, METRIC_BY_NAME, METRICS, ORIGIN_BY_ID
from astrid.errors import StoreError
from astrid.models import Entity
from astrid.pipeline.asks import FEED_DAYS, HEAL_DAYS, Missing
from astrid.pipeline.backfill import leave_out, plan_backfill
from astrid.pipeline.costs import cost_plan
from astrid.pipeline.inspection import inspect_night, list_violated
from astrid.pipeline.leases import LEASE_S, Lease, hold_lease
from astrid.pipeline.plan import NIGHT_HOURS, NOT_ASKED, Plan, plan_night
from astrid.pipeline.runs import (
    MakePlan,
    RunResult,
    Watch,
    by_source,
    close_run,
    follow,
    open_run,
    prepare,
    read_open_sources,
)
from astrid.pipeline.universe import Universe
from astrid.sources import SOURCES
from astrid.sources.source import days_between
from astrid.store import OpenRun, Store
from astrid.timeline import Timeline

log = logging.getLogger(__name__)

NIGHTLY: Final = "nightly"
RANKED_MAX: Final = 1_000_000

RUNS_MAX: Final = 1_000
"""So many runs are looked through for nights that ran."""

RETRY_AFTER: Final = timedelta(minutes=10)
"""A night that runs again asks again for what was missing, but not within this time."""

Crawl = Callable[[int, Sequence[str]], Awaitable[None]]
"""Starts workers for a run's sources and returns when they have drained it: ``crawl(run_id, sources)``."""

Score = Callable[[int, date], Awaitable[int]]
"""Scores and publishes a day under a run and returns how many projects are ranked: ``score(run_id, day)``."""

Inspect = Callable[[int], Awaitable[Sequence[str]]]
"""Judges the upstreams before the scores under a run and returns whose canaries are violated: ``inspect(run_id)``."""


@dataclass(frozen=True, slots=True)
class Driver:
    """What a run needs besides its plan: where it writes, where it queues, what time it is, who works.

    ``users`` is how many budgets each upstream has (absent: one), ``hours`` how long a night may take at the limits
    of any upstream. ``holder`` names this driver and its life for the leases, which outlive a killed one by
    ``lease_s``. ``queue_lasts``: the broker keeps what was published when its driver has ended.
    """

    store: Store
    broker: Broker
    timeline: Timeline
    clock: Callable[[], float]
    crawl: Crawl
    score: Score
    watch: Watch
    code_version: str
    users: Mapping[str, int] = field(default_factory=dict)
    hours: float = NIGHT_HOURS
    holder: str = field(default_factory=lambda: f"driver#{uuid.uuid4().hex[:12]}")
    lease_s: float = LEASE_S
    queue_lasts: bool = False

    def now(self) -> datetime:
        """Return the run's moment."""
        return self.timeline.at(self.clock())


async def run_night(
    driver: Driver, universe: Universe, day: date, sources: Sequence[str], without: Collection[str] = ()
) -> RunResult:
    """Crawl what the night of ``day`` lacks, but for the tasks of ``without``, and score the day.

    A night that lacks nothing any more and is scored does nothing: what later nights revised since then
    does not change a published score. While another driver has this night, it is waited for.
    """
    store = driver.store

    async def plan() -> Plan:
        return await plan_run(store, universe, day, driver.now(), sources, without, driver.users, driver.hours)

    async with hold_lease(store, name_night(day), driver.holder, driver.lease_s) as lease:
        inspect = inspect_with(store, universe, day, driver.now)
        return await lease.guard(execute(driver, lease, NIGHTLY, day, plan, score=True, inspect=inspect))


def name_night(day: date) -> str:
    """Return the name of the lease that the driver of a night holds."""
    return f"night {day}"


def inspect_with(store: Store, universe: Universe, day: date, now: Callable[[], datetime]) -> Inspect:
    """Return what judges the upstreams of a night."""

    async def inspect(run_id: int) -> Sequence[str]:
        return list_violated(await inspect_night(store, universe, day, run_id, now()))

    return inspect


async def plan_run(
    store: Store,
    universe: Universe,
    day: date,
    now: datetime,
    sources: Collection[str],
    without: Collection[str] = (),
    users: Mapping[str, int] | None = None,
    hours: float = NIGHT_HOURS,
) -> Plan:
    """Read what a night lacks, and plan it; see :func:`~astrid.pipeline.plan.plan_night`."""
    by_key = {key: universe.entities(key) for key in {SOURCES[name].key for name in sources}}
    entities = {name: by_key[SOURCES[name].key] for name in sources}
    missing = await read_missing(store, entities, day, now)
    value = await store.read_percentiles()
    return plan_night(day, entities, missing, sources, without, users=users, hours=hours, value=value)


async def run_backfill(
    driver: Driver, universe: Universe, first: date, last: date, sources: Sequence[str]
) -> RunResult:
    """Fetch the history from ``first`` to ``last``; what an earlier run finished, but for gaps, is not asked again."""

    async def plan() -> Plan:
        entities = {name: universe.entities(source.key) for name, source in SOURCES.items()}
        batches = plan_backfill(first, last, entities, sources)
        settled = await driver.store.read_finished([b.batch_id for b in batches])
        gaps = await driver.store.read_open_gaps(first, last) if settled else []
        left = tuple(leave_out(batches, settled, gaps))
        return Plan(left, (), tuple(cost_plan(left, driver.users)))

    async with hold_lease(driver.store, f"backfill {last}", driver.holder, driver.lease_s) as lease:
        # Equal work has equal ids, so what is asked for now and what an unfinished run left are one.
        return await lease.guard(execute(driver, lease, "backfill", last, plan, extends=True))


async def execute(
    driver: Driver,
    lease: Lease,
    kind: str,
    day: date,
    plan: MakePlan,
    *,
    extends: bool = False,
    score: bool = False,
    inspect: Inspect | None = None,
) -> RunResult:
    """Open a run or take up the one that was not closed, plan it, work it off, and close it.

    See :func:`~astrid.pipeline.runs.prepare` for what is planned. With ``score`` its day is scored at the end, if
    anything was fetched or no score is published; before that ``inspect`` judges the upstreams, and whose canaries are
    violated stands in the run's note.
    """
    store = driver.store
    run = await open_run(store, kind, day, driver.code_version, driver.now())
    try:
        await prepare(store, driver.broker, run, day, plan, driver.now, extends=extends, queue_lasts=driver.queue_lasts)
        sources = await read_open_sources(store, run.run_id)
        if sources:
            workers = asyncio.ensure_future(driver.crawl(run.run_id, sources))
            await follow(driver.broker, store, run.run_id, driver.watch, workers)
        scoring = driver.score if score else None
        return await finish(store, run, kind, day, driver.now, driver.watch, scoring, inspect)
    except BaseException as exc:
        if lease.is_lost:
            raise  # the run is another driver's now
        # The record must say so even if the run is being cancelled; the database may be what failed.
        with contextlib.suppress(StoreError):
            await asyncio.shield(
                store.finish_run(run.run_id, "failed", {}, f"{type(exc).__name__}: {exc}"[:500], driver.now())
            )
        raise


async def finish(
    store: Store,
    run: OpenRun,
    kind: str,
    day: date,
    now: Callable[[], datetime],
    watch: Watch,
    score: Score | None = None,
    inspect: Inspect | None = None,
) -> RunResult:
    """Judge the upstreams, score the day, and close a run whose batches have ended; see :func:`execute`."""
    violated: Sequence[str] = ()
    if score is not None and (await store.progress(run.run_id) or not await store.has_scores(day)):
        violated = await inspect(run.run_id) if inspect else ()
        ranked = await score(run.run_id, day)
    else:
        ranked = len(await store.read_leaderboard(day, None, RANKED_MAX, 0)) if kind == NIGHTLY else 0
    watch(by_source(await store.progress(run.run_id)))
    return await close_run(store, run, day, ranked, violated, now())


async def read_missing(
    store: Store, entities: Mapping[str, Sequence[Entity]], day: date, now: datetime, heal_days: int = HEAL_DAYS
) -> Missing:
    """Read what the store lacks for a night: the days without a value, of each metric that a source may be asked for.

    A gap does not count as missing if asking again is useless, or if it was asked for a moment ago. ``entities`` are
    those of each source that may be asked.
    """
    first = day - timedelta(days=heal_days - 1)
    waiting = await store.read_waiting_gaps(first, day, now - RETRY_AFTER, NOT_ASKED)
    waits: dict[tuple[int, int], set[date]] = {}
    for metric_id, entity_id, late in waiting:
        waits.setdefault((metric_id, entity_id), set()).add(late)
    fillers = {m: name for name in entities for t in SOURCES[name].tasks.values() for m in t.metrics}
    days: dict[str, dict[int, frozenset[date]]] = {}
    newest: dict[str, dict[int, date]] = {}
    patterns: dict[bytes, tuple[frozenset[date], date | None]] = {}
    for metric in [m for m in METRICS if m.name in fillers]:
        numbers = np.array([e.entity_id for e in entities[fillers[metric.name]]], np.int32)
        lacking = (await store.read_missing(metric.metric_id, numbers, first, day)).T
        days[metric.name], newest[metric.name] = {}, {}
        for entity_id, row in zip(numbers.tolist(), lacking, strict=True):
            # Most entities lack the same days.
            key = row.tobytes()
            if key not in patterns:
                patterns[key] = _read_pattern(row, first)
            lacked, last = patterns[key]
            days[metric.name][entity_id] = lacked - waits.get((metric.metric_id, entity_id), frozenset())
            if last is not None:
                newest[metric.name][entity_id] = last
    asked: dict[str, frozenset[int]] = {
        m.name: frozenset(e for metric_id, e, d in waiting if metric_id == m.metric_id and d == day) for m in METRICS
    }
    tried: dict[str, dict[int, date]] = {m.name: {} for m in METRICS}
    refused: dict[str, dict[int, date]] = {m.name: {} for m in METRICS}
    for metric_id, entity_id, retry, last in await store.read_last_tries(first, day, NOT_ASKED):
        if metric_id in METRIC_BY_ID:
            name = METRIC_BY_ID[metric_id].name
            tried[name][entity_id] = max(last, tried[name].get(entity_id, last))
            if not retry:
                refused[name][entity_id] = last
    tasks = [t for name in entities for t in SOURCES[name].tasks.values()]
    probed = sorted({METRIC_BY_NAME[t.metrics[0]].metric_id for t in tasks if t.probe})
    oldest = day - timedelta(days=FEED_DAYS - 1)
    stated = await store.read_feeds(probed, oldest, day)
    missed = await _read_missed_days(store, first, day)
    noted: dict[str, dict[int, frozenset[date]]] = {}
    tracked = {row.entity_id: row.first_tracked for row in await store.read_projects()}
    taken = [m for m in METRICS if m.name in days and m.timing == "snapshot"]
    if any(not lacked.isdisjoint(missed) for m in taken for lacked in days[m.name].values()):
        noted = await _read_noted(store, first, day, {m.metric_id: m.name for m in taken})
        stated += await store.read_last_days([m.metric_id for m in taken if m.metric_id not in probed], oldest, day)
    feeds = {
        (METRIC_BY_ID[metric_id].name, ORIGIN_BY_ID[origin_id].name): last
        for metric_id, origin_id, last in stated
        if metric_id in METRIC_BY_ID and origin_id in ORIGIN_BY_ID
    }
    return Missing(first, days, newest, asked, tried, refused, feeds, missed, noted, tracked)


async def _read_missed_days(store: Store, first: date, day: date) -> frozenset[date]:
    """Return the days before ``day``, since the first night of all, of which no night ran to its end."""
    nights = [run for run in await store.read_runs(RUNS_MAX) if run.kind == "nightly"]
    began = min((run.day for run in nights), default=day)
    ran = {run.day for run in nights if run.state in ("complete", "gaps")}
    return frozenset(days_between(max(first, began), day - timedelta(days=1))) - ran


async def _read_noted(
    store: Store, first: date, day: date, names: Mapping[int, str]
) -> dict[str, dict[int, frozenset[date]]]:
    """Return per metric and entity the days before ``day`` of which the ledger has a gap; ``names`` by metric id."""
    noted: dict[str, dict[int, set[date]]] = {name: {} for name in names.values()}
    for gap in await store.read_open_gaps(first, day - timedelta(days=1)):
        if gap.metric_id in names:
            noted[names[gap.metric_id]].setdefault(gap.entity_id, set()).add(gap.day)
    return {name: {entity_id: frozenset(of) for entity_id, of in own.items()} for name, own in noted.items()}


def _read_pattern(lacking: npt.NDArray[np.bool_], first: date) -> tuple[frozenset[date], date | None]:
    """Return the days that are lacking, and the last one that is not."""
    seen = np.flatnonzero(~lacking)
    last = first + timedelta(days=int(seen[-1])) if len(seen) else None
    return frozenset(first + timedelta(days=n) for n in np.flatnonzero(lacking).tolist()), last
