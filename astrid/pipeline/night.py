"""One run from plan to end: record it, publish its batches, watch the workers, say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid import METHOD_VERSION
from astrid.broker import Broker
from astrid.catalog import METRIC_BY_ID, METRICS, ORIGIN_BY_ID
from astrid.errors import AstridError, StoreError
from astrid.models import Entity
from astrid.pipeline.asks import Missing
from astrid.pipeline.backfill import plan_backfill
from astrid.pipeline.costs import cost_plan
from astrid.pipeline.inspection import inspect_night, list_violated
from astrid.pipeline.plan import NIGHT_HOURS, NOT_ASKED, Plan, plan_night
from astrid.pipeline.universe import Universe
from astrid.sources import SOURCES
from astrid.sources.source import days_between
from astrid.store import CostRow, Progress, Store
from astrid.timeline import Timeline

log = logging.getLogger(__name__)

RANKED_MAX: Final = 1_000_000
POLL_S: Final = 0.2
STALLED_S: Final = 120.0
"""If no batch of a run ends for this long, its open batches are published again: a broker may have lost them."""

HEAL_DAYS: Final = 35
"""How far back a night looks for missing days; older ones are a backfill's work."""

FEED_DAYS: Final = 180
"""How far back the newest day of a feed is looked for."""

GAPS_AT_ONCE: Final = 50_000
"""So many gaps of a plan are written in one transaction: a month of missed nights leaves millions."""

RUNS_MAX: Final = 1_000
"""So many runs are looked through for nights that ran."""

SPENT_TIMEOUT_S: Final = 60.0
"""A run does not wait longer, in real seconds, for the count of what it spent: the counters may have died with it."""

RETRY_AFTER: Final = timedelta(minutes=10)
"""A night that runs again asks again for what was missing, but not within this time."""

Crawl = Callable[[int, Sequence[str]], Awaitable[None]]
"""Starts workers for a run's sources and returns when they have drained it: ``crawl(run_id, sources)``."""

Score = Callable[[int, date], Awaitable[int]]
"""Scores and publishes a day under a run and returns how many projects are ranked: ``score(run_id, day)``."""

Inspect = Callable[[int], Awaitable[Sequence[str]]]
"""Judges the upstreams before the scores under a run and returns whose canaries are violated: ``inspect(run_id)``."""

Watch = Callable[[Mapping[str, tuple[int, int]]], None]
"""Is told (done, total) batches per source, now and then and at the end."""

Spent = Mapping[tuple[str, str], tuple[int, int]]
"""(requests, points) per (upstream, bucket)."""

CountSpent = Callable[[str], Awaitable[Spent]]
"""Returns what a lane has spent since the budgets began: ``count_spent(lane)``."""


async def count_nothing(_: str) -> Spent:
    """Stand for budgets that nobody counts."""
    return {}


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: its batches by state, requests per source, the gaps that its day still has, how many projects
    it ranked, per bucket what it was planned to cost and did cost, whose canaries are violated, and how many hours it
    took."""

    run_id: int
    day: date
    batches: Mapping[str, int]
    requests: Mapping[str, int]
    open_gaps: int
    ranked: int
    costs: tuple[CostRow, ...] = ()
    violated: tuple[str, ...] = ()
    hours: float = 0.0

    @property
    def state(self) -> str:
        """``complete``, or ``gaps`` if something expected did not come."""
        return "gaps" if self.open_gaps or self.batches.get("dead") else "complete"


@dataclass(frozen=True, slots=True)
class Driver:
    """What a run needs besides its plan: where it writes, where it queues, what time it is, who works.

    ``users`` is how many budgets each upstream has (absent: one), ``hours`` how long a night may take at the limits
    of any upstream.
    """

    store: Store
    broker: Broker
    timeline: Timeline
    clock: Callable[[], float]
    crawl: Crawl
    score: Score
    watch: Watch
    code_version: str
    count_spent: CountSpent = count_nothing
    users: Mapping[str, int] = field(default_factory=dict)
    hours: float = NIGHT_HOURS

    def now(self) -> datetime:
        """Return the run's moment."""
        return self.timeline.at(self.clock())


async def run_night(
    driver: Driver, universe: Universe, day: date, sources: Sequence[str], without: Collection[str] = ()
) -> RunResult:
    """Crawl what the night of ``day`` lacks, but for the tasks of ``without``, and score the day.

    A night that lacks nothing any more and is scored does nothing: what later nights revised since then
    does not change a published score.
    """
    plan = await plan_run(driver.store, universe, day, driver.now(), sources, without, driver.users, driver.hours)
    score = bool(plan.batches) or not await driver.store.has_scores(day)

    async def inspect(run_id: int) -> Sequence[str]:
        return list_violated(await inspect_night(driver.store, universe, day, run_id, driver.now()))

    return await execute(driver, "nightly", day, plan, score=score, inspect=inspect)


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
    """Fetch the history from ``first`` to ``last``; batches that an earlier run finished are not asked for again."""
    entities = {name: universe.entities(source.key) for name, source in SOURCES.items()}
    batches = plan_backfill(first, last, entities, sources)
    settled = await driver.store.read_finished([b.batch_id for b in batches])
    left = tuple(b for b in batches if b.batch_id not in settled)
    plan = Plan(left, (), tuple(cost_plan(left, driver.users)))
    return await execute(driver, "backfill", last, plan, score=False)


async def execute(
    driver: Driver, kind: str, day: date, plan: Plan, *, score: bool, inspect: Inspect | None = None
) -> RunResult:
    """Run a plan to its end and record it. The batches stand in the database before any is published.

    Before it scores, ``inspect`` judges the upstreams; whose canaries are violated stands in the run's note. What was
    spent is recorded however the crawl ends.
    """
    store = driver.store
    violated: Sequence[str] = ()
    started_at = driver.now()
    run_id = await store.start_run(kind, day, driver.code_version, METHOD_VERSION, started_at)
    own = [dataclasses.replace(b, run_id=run_id) for b in plan.batches]
    try:
        await store.plan_batches(run_id, own, driver.now())
        await store.write_planned(run_id, {(c.upstream, c.bucket): (c.requests, c.points, c.hours) for c in plan.costs})
        for start in range(0, len(plan.left_out), GAPS_AT_ONCE):
            await store.write_gaps(plan.left_out[start : start + GAPS_AT_ONCE], driver.now())
        before = await _count_spent(driver, kind)
        try:
            await driver.broker.publish(own)
            if own:
                workers = asyncio.ensure_future(driver.crawl(run_id, sorted({b.source for b in own})))
                await _follow(run_id, driver, workers)
        finally:
            await _record_spent(driver, run_id, kind, before)
        if score:
            violated = await inspect(run_id) if inspect else ()
            ranked = await driver.score(run_id, day)
        else:
            ranked = len(await store.read_leaderboard(day, None, RANKED_MAX, 0)) if kind == "nightly" else 0
        progress = await store.progress(run_id)
        driver.watch(_by_source(progress))
        gaps = await store.read_open_gaps(day, day)
        costs = await store.read_costs([run_id])
        hours = (driver.now() - started_at).total_seconds() / 3600
        result = dataclasses.replace(
            _result(run_id, day, progress, len(gaps), ranked, costs), violated=tuple(violated), hours=hours
        )
    except BaseException as exc:
        # The record must say so even if the run is being cancelled; the database may be what failed.
        with contextlib.suppress(StoreError):
            await asyncio.shield(
                store.finish_run(run_id, "failed", {}, f"{type(exc).__name__}: {exc}"[:500], driver.now())
            )
        raise
    note = f"canaries violated: {'; '.join(violated)}" if violated else ""
    await store.finish_run(run_id, result.state, result.requests, note, driver.now())
    return result


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
    stated = await store.read_feeds(day - timedelta(days=FEED_DAYS - 1), day)
    feeds = {
        (METRIC_BY_ID[metric_id].name, ORIGIN_BY_ID[origin_id].name): last
        for metric_id, origin_id, last in stated
        if metric_id in METRIC_BY_ID and origin_id in ORIGIN_BY_ID
    }
    missed = await _read_missed_days(store, first, day)
    noted: dict[str, dict[int, frozenset[date]]] = {}
    tracked: dict[int, date] = {}
    taken = [m for m in METRICS if m.name in days and m.timing == "snapshot"]
    if any(not lacked.isdisjoint(missed) for m in taken for lacked in days[m.name].values()):
        noted = await _read_noted(store, first, day, {m.metric_id: m.name for m in taken})
        tracked = {row.entity_id: row.first_tracked for row in await store.read_projects()}
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


async def _follow(run_id: int, driver: Driver, workers: asyncio.Future[None]) -> None:
    """Report progress until the workers are through; publish again what stalls."""
    store = driver.store
    ended_before, still_s = -1, 0.0
    try:
        while not workers.done():
            await asyncio.wait([workers], timeout=POLL_S)
            progress = await store.progress(run_id)
            driver.watch(_by_source(progress))
            ended = sum(p.count for p in progress if p.state != "planned")
            still_s = still_s + POLL_S if ended == ended_before else 0.0
            ended_before = ended
            if still_s >= STALLED_S:
                lost = await store.open_batches(run_id)
                log.warning("no batch ended for %.0f s: %d open batches are published again", still_s, len(lost))
                await driver.broker.publish([dataclasses.replace(b, run_id=run_id) for b in lost])
                still_s = 0.0
        workers.result()
    finally:
        if not workers.done():
            workers.cancel()
            await asyncio.gather(workers, return_exceptions=True)


def _by_source(progress: Sequence[Progress]) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for row in progress:
        done, total = counts.get(row.source, (0, 0))
        counts[row.source] = (done + (row.count if row.state != "planned" else 0), total + row.count)
    return counts


async def _count_spent(driver: Driver, lane: str) -> Spent | None:
    """Return what a lane has spent, None where it cannot be told: bookkeeping must not cost a night its scores."""
    try:
        async with asyncio.timeout(SPENT_TIMEOUT_S):
            return await driver.count_spent(lane)
    except TimeoutError:
        log.warning("what this run spends is not counted: nobody answers")
    except AstridError as exc:
        log.warning("what this run spends is not counted: %s", exc)
    return None


async def _record_spent(driver: Driver, run_id: int, lane: str, before: Spent | None) -> None:
    """Write what a lane has spent since ``before``; say so where that fails."""
    after = None if before is None else await _count_spent(driver, lane)
    if before is None or after is None:
        return
    try:
        await driver.store.write_spent(run_id, _between(before, after))
    except StoreError as exc:
        log.warning("what this run spent is not recorded: %s", exc)


def _between(before: Spent, after: Spent) -> dict[tuple[str, str], tuple[int, int]]:
    """Return what was spent since ``before``; a budget that began anew meanwhile counts from its beginning."""
    spent = {}
    for key, (requests, points) in after.items():
        requests_before, points_before = before.get(key, (0, 0))
        restarted = requests < requests_before
        spent[key] = (requests, points) if restarted else (requests - requests_before, points - points_before)
    return {key: count for key, count in spent.items() if any(count)}


def _result(
    run_id: int, day: date, progress: Sequence[Progress], open_gaps: int, ranked: int, costs: Sequence[CostRow]
) -> RunResult:
    batches: dict[str, int] = {}
    requests: dict[str, int] = {}
    for row in progress:
        batches[row.state] = batches.get(row.state, 0) + row.count
        requests[row.source] = requests.get(row.source, 0) + row.requests
    return RunResult(run_id, day, batches, requests, open_gaps, ranked, tuple(costs))
