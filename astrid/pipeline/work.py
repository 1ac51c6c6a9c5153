"""A worker's loop: receive, crawl, commit, acknowledge, until the work is over or somebody asks it to stop.

What becomes of one batch is :mod:`astrid.pipeline.crawl`'s. Here is what happens around it: a batch is begun in the
database before it is crawled, committed before it is acknowledged, and never held longer than the broker allows. What
may have ended an earlier worker runs alone, its start committed first. A database or broker that is away is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar, assert_never

from astrid.broker import Broker, Delivery
from astrid.errors import BrokerError, StoreError, StoreRefused
from astrid.models import Batch, DeadLetter, Done, Fetch, Gap, Outcome, RetryIn, Split
from astrid.pipeline.crawl import MAX_PAUSES, fail, handle_batch, list_parts, lost_days
from astrid.pipeline.outages import Outage
from astrid.pipeline.runs import publish_batches
from astrid.sources import SOURCES
from astrid.store import Begun, CommitCounts, Store
from astrid.timeline import Timeline

log = logging.getLogger(__name__)

T = TypeVar("T")

HOLD_S: Final = 1500.0
"""A batch is held at most 25 minutes: RabbitMQ closes the channel of a consumer that has not acknowledged in 30."""

SUSPECT_RETURNS: Final = 2
"""What came back so often without an end may be what ends its workers: it runs alone from then on."""

SUSPECT_STARTS: Final = 3
"""After so many starts alone without an end a batch is set aside."""

SHORT_WAIT_S: Final = 0.05
LONG_WAIT_S: Final = 0.5
"""An idle worker's first and longest wait for a delivery, in real seconds."""

CHECK_S: Final = 1.0
"""An idle worker asks at most so often whether all is over."""


async def never() -> bool:
    """Stand for work that is never over: that of a service."""
    return False


class Solitude:
    """Lets batches run side by side, or one of them alone; who wants to be alone goes before all who come later."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._running = 0
        self._alone = False
        self._waiting = 0

    @property
    def is_wanted(self) -> bool:
        """Whether somebody is alone or waits for it: nothing new should be taken on."""
        return self._alone or self._waiting > 0

    @asynccontextmanager
    async def together(self) -> AsyncGenerator[None]:
        """Run beside others, but not beside one that is alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.is_wanted)
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            await self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Run when all others have ended; let nobody begin meanwhile."""
        self._waiting += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._alone and not self._running)
                self._alone = True
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._alone = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def spend_nothing(_: int) -> None:
    """Stand for books that nobody keeps."""


async def tend_nothing() -> None:
    """Stand for a worker that leaves nothing to be written later."""


@dataclass
class Bench:
    """What the loops of one worker share.

    Parameters
    ----------
    consumer
        Name of this worker and its life, ``name#life``: what an earlier life left comes again.
    fetch_for
        Gives the network of a batch: a backfill must not spend the nightly's share, and each run keeps its own books.
    clock
        Reads the epoch second; with ``timeline`` it gives the run's moment.
    spend
        Writes what a run's requests cost into its books; called before each commit.
    tend
        Writes down what waits to be written, whatever run it is of.
    may_ask
        Whether the budgets of a source are ours at present: nothing is received that could not be asked for.
    """

    consumer: str
    broker: Broker
    store: Store
    fetch_for: Callable[[Batch], Fetch]
    timeline: Timeline
    clock: Callable[[], float]
    spend: Callable[[int], Awaitable[None]] = spend_nothing
    tend: Callable[[], Awaitable[None]] = tend_nothing
    may_ask: Callable[[str], bool] = lambda _: True
    hold_s: float = HOLD_S
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    solitude: Solitude = field(default_factory=Solitude)
    database: Outage = field(default_factory=lambda: Outage("the database"))
    queue: Outage = field(default_factory=lambda: Outage("the broker"))
    busy: dict[str, int] = field(default_factory=dict)

    def now(self) -> datetime:
        """Return the run's moment."""
        return self.timeline.at(self.clock())


async def work(source: str, bench: Bench, is_over: Callable[[], Awaitable[bool]] = never) -> None:
    """Drain one source's queue until ``is_over`` says so while nothing is at hand, or the bench is told to stop.

    Told to stop, nothing more is received, and what runs is waited for. Cancelled, what runs is cancelled too: it was
    not acknowledged and comes again.
    """
    limit = SOURCES[source].concurrency
    tasks: set[asyncio.Task[None]] = set()
    receiving: asyncio.Task[list[Delivery]] | None = None
    stopping = asyncio.ensure_future(bench.stopping.wait())
    idle_s = SHORT_WAIT_S
    asked_s = -CHECK_S
    loop = asyncio.get_running_loop()
    try:
        while not bench.stopping.is_set() or tasks or receiving is not None:
            room = limit - len(tasks)
            if room and receiving is None and not bench.stopping.is_set():
                receiving = asyncio.create_task(_receive(source, bench, room, idle_s))
            waited = [*tasks, *filter(None, [receiving]), *([] if stopping.done() else [stopping])]
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            ended = tasks & done
            tasks -= ended
            for batch_task in ended:
                batch_task.result()
            bench.busy[source] = len(tasks)
            if receiving is None or receiving not in done:
                continue
            deliveries, receiving = receiving.result(), None
            for delivery in deliveries:
                tasks.add(asyncio.create_task(process(delivery, bench)))
            bench.busy[source] = len(tasks)
            # An idle worker asks less and less often whether others, or the time, have something left for it.
            idle_s = SHORT_WAIT_S if deliveries or ended else min(2 * idle_s, LONG_WAIT_S)
            if not tasks and not deliveries and loop.time() - asked_s >= min(CHECK_S, 2 * idle_s):
                asked_s = loop.time()
                if await _asked(bench, is_over):
                    return
    finally:
        left: list[asyncio.Task[Any] | asyncio.Future[Any]] = [*tasks, *filter(None, [receiving]), stopping]
        for unfinished in left:
            unfinished.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        bench.busy[source] = 0


async def _receive(source: str, bench: Bench, room: int, wait_s: float) -> list[Delivery]:
    """Receive what there is room for; nothing while a suspect is alone, the budgets are another's, or all is away."""
    if bench.solitude.is_wanted or not bench.may_ask(source):
        await asyncio.sleep(wait_s)
        return []
    try:
        deliveries = await bench.broker.receive(source, bench.consumer, room, wait_s)
        bench.queue.end()
        return deliveries
    except BrokerError as exc:
        bench.queue.note(exc)
        await asyncio.sleep(bench.queue.wait_s)
        return []


async def _asked(bench: Bench, is_over: Callable[[], Awaitable[bool]]) -> bool:
    try:
        over = await is_over()
        bench.database.end()
        return over
    except StoreError as exc:
        bench.database.note(exc)
    except BrokerError as exc:
        bench.queue.note(exc)
    await asyncio.sleep(max(bench.database.wait_s, bench.queue.wait_s))
    return False


async def process(delivery: Delivery, bench: Bench) -> None:
    """Bring one delivery to an end: begin, crawl, commit, acknowledge; or give it back."""
    batch = delivery.batch
    until_s = asyncio.get_running_loop().time() + bench.hold_s
    try:
        begun = await _persist(bench, until_s, lambda: bench.store.begin_batch(batch, bench.hold_s, bench.now()))
        if begun is None:
            await _give_back(delivery, bench, "the database is away")
        elif begun.state in ("done", "split"):
            await _settle_again(delivery, bench, begun.state)
        elif delivery.returns >= SUSPECT_RETURNS or begun.suspect_starts:
            await _process_suspect(delivery, bench, begun, until_s)
        else:
            async with bench.solitude.together():
                await _process(delivery, bench, until_s)
    except StoreRefused as exc:
        await _end(delivery, bench, fail(batch, str(exc)), until_s)
    except BrokerError as exc:
        # The broker delivers again what was not acknowledged; the commit's key makes that harmless.
        log.warning("%s batch %s: %s", batch.source, batch.batch_id, exc)


async def _process_suspect(delivery: Delivery, bench: Bench, begun: Begun, until_s: float) -> None:
    batch = delivery.batch
    fresh = begun.state == "dead" and delivery.returns == 0  # somebody gives it another chance
    if begun.suspect_starts >= SUSPECT_STARTS and not fresh:
        reason = f"its worker ended {SUSPECT_STARTS} times while nothing else ran: the batch is not run again"
        await _end(delivery, bench, DeadLetter(reason), until_s)
        return
    log.warning("%s batch %s came back %d times: it runs alone", batch.source, batch.batch_id, delivery.returns)
    async with bench.solitude.alone():
        if fresh:
            await _persist(bench, until_s, lambda: bench.store.expect_batch(batch, bench.hold_s))
        again = await _persist(
            bench, until_s, lambda: bench.store.begin_batch(batch, bench.hold_s, bench.now(), suspect=True)
        )
        if again is None:
            await _give_back(delivery, bench, "the database is away")
            return
        try:
            await _process(delivery, bench, until_s)
        except asyncio.CancelledError:
            # This worker lives: the batch is not what ends it.
            with contextlib.suppress(StoreError):
                await asyncio.shield(bench.store.expect_batch(batch, 0.0))
            raise


async def _process(delivery: Delivery, bench: Bench, until_s: float) -> None:
    batch = delivery.batch
    try:
        async with asyncio.timeout_at(until_s):
            outcome = await handle_batch(batch, bench.fetch_for(batch), bench.now)
    except TimeoutError:
        outcome = RetryIn(1.0, f"not at its end after {bench.hold_s / 60:.0f} minutes", pause=True)
        if batch.pauses >= MAX_PAUSES:
            outcome = DeadLetter(f"paused {MAX_PAUSES} times, the last time {outcome.reason}")
    await _end(delivery, bench, outcome, until_s + GRACE_S)


GRACE_S: Final = 120.0
"""How long after the longest hold an outcome may still be committed: RabbitMQ waits five minutes more."""


async def _end(delivery: Delivery, bench: Bench, outcome: Outcome, until_s: float) -> None:
    """Commit an outcome, then tell the broker. With the outcome in hand a database that is away is waited for."""
    batch, broker = delivery.batch, bench.broker
    match outcome:
        case Done() | Split():
            counts = await _commit(delivery, bench, outcome, until_s)
            if counts is not None:
                await _publish_parts(batch, bench, outcome, counts)
                await broker.ack(delivery)
        case RetryIn(delay_s=delay_s, reason=reason, pause=pause):
            log.info("%s batch %s waits %.0f s: %s", batch.source, batch.batch_id, delay_s, reason)
            await _spend(bench, batch)
            await _return(delivery, bench, bench.timeline.real_s(delay_s), pause=pause)
        case DeadLetter(reason=reason):
            log.error("%s batch %s is set aside: %s", batch.source, batch.batch_id, reason)
            counts = await _commit_dead(delivery, bench, outcome, until_s)
            if counts is None:
                return
            if counts.state in ("done", "split"):
                await _settle_again(delivery, bench, counts.state)  # another delivery of it ended well meanwhile
            else:
                await broker.dead_letter(delivery, reason)
        case _:
            assert_never(outcome)


async def _commit(
    delivery: Delivery,
    bench: Bench,
    outcome: Done | Split | DeadLetter,
    until_s: float,
    gaps: tuple[Gap, ...] = (),
) -> CommitCounts | None:
    """Commit; None where the database was away for longer than a batch may be held, and the batch went back."""
    batch = delivery.batch
    await _spend(bench, batch)
    counts = await _persist(bench, until_s, lambda: bench.store.commit_batch(batch, outcome, bench.now(), gaps))
    if counts is None:
        await _give_back(delivery, bench, "the database is away")
    return counts


async def _commit_dead(delivery: Delivery, bench: Bench, outcome: DeadLetter, until_s: float) -> CommitCounts | None:
    """Commit that a batch is set aside, with its gaps; without, where the database refuses even these."""
    batch = delivery.batch
    for gaps in (lost_days(batch, outcome.reason), ()):
        try:
            return await _commit(delivery, bench, outcome, until_s, gaps)
        except StoreRefused as exc:
            log.error("%s batch %s cannot be written as set aside: %s", batch.source, batch.batch_id, exc)
    return CommitCounts()  # the broker at least keeps it, with its reason


async def _publish_parts(batch: Batch, bench: Bench, outcome: Done | Split, counts: CommitCounts) -> None:
    """Publish the parts of what was split, by this commit or by another delivery's before."""
    if counts.already and counts.state == "split":
        await publish_batches(bench.broker, bench.store, batch.run_id, list_parts(batch))
    elif isinstance(outcome, Split) and not counts.already:
        await publish_batches(bench.broker, bench.store, batch.run_id, outcome.parts)


async def _settle_again(delivery: Delivery, bench: Bench, state: str) -> None:
    """Acknowledge what was settled before; its worker may have ended before it published the parts."""
    batch = delivery.batch
    if state == "split":
        await publish_batches(bench.broker, bench.store, batch.run_id, list_parts(batch))
    await bench.broker.ack(delivery)


async def _persist(bench: Bench, until_s: float, write: Callable[[], Awaitable[T]]) -> T | None:
    """Return what a write returns, made again while the database is away; None where that lasts too long."""
    while True:
        try:
            result = await write()
            bench.database.end()
            return result
        except StoreRefused:
            raise
        except StoreError as exc:
            bench.database.note(exc)
            if asyncio.get_running_loop().time() + bench.database.wait_s > until_s:
                return None
            await asyncio.sleep(bench.database.wait_s)


async def _spend(bench: Bench, batch: Batch) -> None:
    with contextlib.suppress(StoreError):  # bookkeeping waits for the next commit
        await bench.spend(batch.run_id)


async def _give_back(delivery: Delivery, bench: Bench, why: str) -> None:
    """Return a batch that met no failure of its own."""
    log.warning("%s batch %s goes back to the queue: %s", delivery.batch.source, delivery.batch.batch_id, why)
    await _return(delivery, bench, 2.0, pause=True)


async def _return(delivery: Delivery, bench: Bench, real_delay_s: float, *, pause: bool) -> None:
    with contextlib.suppress(StoreError):  # it is then heard of earlier than it is due
        # The broker's queues of waiting batches round a delay up, to at most three times as much.
        await bench.store.expect_batch(delivery.batch, 3 * real_delay_s)
    await bench.broker.retry(_paused(delivery) if pause else delivery, real_delay_s)


def _paused(delivery: Delivery) -> Delivery:
    """Count a pause in place of the attempt that the broker counts for every return: pauses are not failures."""
    batch = delivery.batch
    again = dataclasses.replace(batch, attempt=batch.attempt - 1, pauses=batch.pauses + 1)
    return dataclasses.replace(delivery, batch=again)
