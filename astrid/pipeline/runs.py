"""The life of a run: opened, entered, published, followed, closed. Its driver and separate programs share these steps.

Whatever ends between two steps, the next one who opens the run of the same kind and day goes on: the batches stand in
the database before any is published, which of them were published stands there too, and who is to be heard of by when.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final

from astrid import METHOD_VERSION
from astrid.broker import Broker
from astrid.errors import BrokerError, StoreError
from astrid.models import Batch
from astrid.pipeline.outages import Outage
from astrid.pipeline.plan import Plan
from astrid.sources import SOURCES
from astrid.store import CostRow, OpenRun, Progress, Store

log = logging.getLogger(__name__)

PUBLISHED_AT_ONCE: Final = 1_000
"""So many batches are published before it is noted that they were: what a crash publishes again is no more."""

GAPS_AT_ONCE: Final = 50_000
"""So many gaps of a plan are written in one transaction: a month of missed nights leaves millions."""

LOST_CHECK_S: Final = 30.0
OVERDUE_S: Final = 120.0
"""What was to be heard of so long ago, while the broker has nothing ready of its source, was lost: it is published
again. A batch is heard of when it is begun, when it goes back, and when it ends."""

Watch = Callable[[Mapping[str, tuple[int, int]]], None]
"""Is told (done, total) batches per source, now and then and at the end."""


MakePlan = Callable[[], Awaitable[Plan]]
"""Makes the plan of a run, where one is needed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """How many batches of a run were published, and its plan where one was made."""

    published: int
    plan: Plan | None


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


async def prepare(
    store: Store,
    broker: Broker,
    run: OpenRun,
    day: date,
    plan: MakePlan,
    now: Callable[[], datetime],
    *,
    extends: bool = False,
    queue_lasts: bool,
) -> Prepared:
    """Plan an open run and publish what of it is open and in no queue.

    A run that has batches already is not planned again, unless ``extends``: then what it lacks of the new plan is
    added. ``queue_lasts``: the broker keeps what an earlier driver published; else everything open is published.
    """
    made = None
    if extends or not run.is_planned:
        made = await plan()
        await enter_plan(store, run, day, made, now())
    if made is not None and not run.is_planned:
        await publish_batches(broker, store, run.run_id, made.batches)  # in its own order: what is urgent goes first
        return Prepared(len(made.batches), made)
    published = await publish_open(broker, store, run.run_id, queue_lasts=queue_lasts)
    if queue_lasts:
        published += await publish_lost(broker, store, run.run_id, await read_open_sources(store, run.run_id))
    return Prepared(published, made)


async def read_open_sources(store: Store, run_id: int) -> list[str]:
    """Return the sources of which a run has open batches."""
    return sorted({p.source for p in await store.progress(run_id) if p.state == "planned"})


async def enter_plan(store: Store, run: OpenRun, day: date, plan: Plan, now: datetime) -> None:
    """Write a run's plan: its batches, what they are to cost, whom it leaves out and whom it expects.

    The batches come last: a run that has some is planned, and what must stand beside them stands.
    """
    await store.ledger.record_expectations(day, plan.expected, now)
    costs = {(c.upstream, c.bucket): (c.requests, c.points, c.hours) for c in plan.costs}
    await store.write_planned(run.run_id, costs, now)
    for start in range(0, len(plan.left_out), GAPS_AT_ONCE):
        await store.write_gaps(plan.left_out[start : start + GAPS_AT_ONCE], now, run.run_id)
    await store.plan_batches(run.run_id, [replace(b, run_id=run.run_id) for b in plan.batches], now)


async def publish_batches(broker: Broker, store: Store, run_id: int, batches: Sequence[Batch]) -> None:
    """Publish batches of a run, and note that they were."""
    for start in range(0, len(batches), PUBLISHED_AT_ONCE):
        some = [replace(b, run_id=run_id) for b in batches[start : start + PUBLISHED_AT_ONCE]]
        await broker.publish(some)
        try:
            await store.mark_published(run_id, [b.batch_id for b in some])
        except StoreError as exc:
            # They may be published once more: whoever gets a batch that has ended acknowledges it.
            log.warning("run %d: that %d batches were published is not noted: %s", run_id, len(some), exc)


async def publish_open(broker: Broker, store: Store, run_id: int, *, queue_lasts: bool) -> int:
    """Publish what of a run is open and in no queue, and return how much that was.

    ``queue_lasts``: the broker keeps what an earlier driver published; else everything open is published.
    """
    left = await store.open_batches(run_id, unpublished=queue_lasts)
    # Counts that must be taken tonight go first, as in the plan; for the rest a digest of the work is a fair lot.
    left.sort(key=lambda b: (not _is_snapshot(b), b.batch_id))
    await publish_batches(broker, store, run_id, left)
    return len(left)


def _is_snapshot(batch: Batch) -> bool:
    source = SOURCES.get(batch.source)
    task = source.tasks.get(batch.task) if source else None
    return task is not None and task.timing == "snapshot"


async def publish_lost(broker: Broker, store: Store, run_id: int, sources: Sequence[str]) -> int:
    """Publish again what the broker lost of these sources of a run, and return how much that was."""
    ready = await broker.ready(sources)
    idle = [source for source in sources if not ready.get(source)]
    lost = await store.claim_lost(run_id, idle, OVERDUE_S) if idle else []
    if lost:
        log.warning("run %d: %d batches were lost on their way and are published again", run_id, len(lost))
        await broker.publish(lost)
    return len(lost)


async def follow(
    broker: Broker,
    store: Store,
    run_id: int,
    watch: Watch,
    workers: asyncio.Future[None] | None = None,
    *,
    poll_s: float = 0.2,
) -> None:
    """Report progress until the workers are through, or, without any, until no batch of the run is open.

    What the broker lost is published again. A database or broker that is away is waited for.
    """
    database, queue = Outage("the database"), Outage("the broker")
    loop = asyncio.get_running_loop()
    checked_s = loop.time()
    try:
        while workers is None or not workers.done():
            try:
                progress = await store.progress(run_id)
                database.end()
                watch(by_source(progress))
                left = sorted({p.source for p in progress if p.state == "planned" and p.count})
                if workers is None and not left:
                    return
                if loop.time() - checked_s >= LOST_CHECK_S:
                    checked_s = loop.time()
                    await publish_lost(broker, store, run_id, left)
                    queue.end()
                wait_s = poll_s
            except StoreError as exc:
                database.note(exc)
                wait_s = database.wait_s
            except BrokerError as exc:
                queue.note(exc)
                wait_s = poll_s
            if workers is None:
                await asyncio.sleep(wait_s)
            else:
                await asyncio.wait([workers], timeout=wait_s)
        workers.result()
    finally:
        if workers is not None and not workers.done():
            workers.cancel()
            await asyncio.gather(workers, return_exceptions=True)


def by_source(progress: Sequence[Progress]) -> dict[str, tuple[int, int]]:
    """Return (done, total) batches per source."""
    counts: dict[str, tuple[int, int]] = {}
    for row in progress:
        done, total = counts.get(row.source, (0, 0))
        counts[row.source] = (done + (row.count if row.state != "planned" else 0), total + row.count)
    return counts


async def close_run(
    store: Store, run: OpenRun, day: date, ranked: int, violated: Sequence[str], now: datetime
) -> RunResult:
    """Close a run, and return and record how it ended."""
    result = await sum_up(store, run, day, ranked, violated, now)
    note = f"canaries violated: {'; '.join(violated)}" if violated else ""
    await store.finish_run(run.run_id, result.state, result.requests, note, now)
    try:
        await store.tidy(now)
    except StoreError as exc:
        log.warning("nothing was tidied up: %s", exc)  # the next night does it, and the night is over
    return result


async def sum_up(
    store: Store, run: OpenRun, day: date, ranked: int, violated: Sequence[str], ended_at: datetime
) -> RunResult:
    """Return how a run stands."""
    progress = await store.progress(run.run_id)
    batches: dict[str, int] = {}
    requests: dict[str, int] = {}
    for row in progress:
        batches[row.state] = batches.get(row.state, 0) + row.count
        requests[row.source] = requests.get(row.source, 0) + row.requests
    gaps = await store.read_open_gaps(day, day)
    costs = tuple(await store.read_costs([run.run_id]))
    hours = (ended_at - run.started_at).total_seconds() / 3600
    return RunResult(run.run_id, day, batches, requests, len(gaps), ranked, costs, tuple(violated), hours)


async def open_run(store: Store, kind: str, day: date, code_version: str, now: datetime) -> OpenRun:
    """Open the run of a kind and day, or take up the one that nobody closed."""
    run = await store.open_run(kind, day, code_version, METHOD_VERSION, now)
    if run.is_planned:
        log.warning("run %d, the %s run of %s, was not closed: it is taken up", run.run_id, kind, day)
    return run
