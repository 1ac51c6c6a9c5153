"""One batch from queue to commit: drive the source, map what went wrong to one reaction, write, acknowledge."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from astrid.broker import Broker, Delivery
from astrid.errors import (
    BrokerError,
    EntityGone,
    Malformed,
    NoToken,
    RateLimited,
    SourceError,
    StoreError,
    TokenDead,
    TooLarge,
    TooLate,
    Unavailable,
)
from astrid.models import (
    Batch,
    DeadLetter,
    Done,
    Fetch,
    Gap,
    Observations,
    Outcome,
    Request,
    Response,
    RetryIn,
    Split,
    Steps,
)
from astrid.sources import SOURCES
from astrid.sources.source import Source, expected_gaps
from astrid.store import Store
from astrid.timeline import Timeline, snapshot_day

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 5
"""After this many failures of an upstream or its answers a batch is set aside and its days become gaps."""

MAX_PAUSES: Final = 60
"""Pauses that an upstream asks for are not failures, but a batch does not wait for ever."""

FIRST_RETRY_S: Final = 30.0
SHORT_WAIT_S: Final = 0.05
LONG_WAIT_S: Final = 0.5
"""An idle worker's first and longest wait for a delivery, in real seconds."""


async def drive(steps: Steps, fetch: Fetch) -> tuple[Observations, int]:
    """Answer a source's requests until it returns; give its observations and how many requests it took."""
    requests = 0
    try:
        asked = next(steps)
        while True:
            if isinstance(asked, tuple):
                responses = await _fetch_all(asked, fetch)
                requests += len(asked)
                asked = steps.send(responses)
            else:
                response = await fetch(asked)
                requests += 1
                asked = steps.send(response)
    except StopIteration as stop:
        observations: Observations = stop.value
        return observations, requests
    finally:
        steps.close()


async def _fetch_all(requests: Sequence[Request], fetch: Fetch) -> list[Response]:
    """Answer requests at once, as many as their budget lets; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(fetch(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def handle_batch(batch: Batch, fetch: Fetch, now: Callable[[], datetime]) -> Outcome:
    """Crawl one batch and say what becomes of it. A snapshot is checked against the clock before and after.

    Whom an answer told nonsense of is asked about once more.
    """
    source = SOURCES.get(batch.source)
    if source is None or batch.task not in source.tasks:
        return DeadLetter(f"no source {batch.source!r} with a task {batch.task!r} in this version")
    snapshot = source.tasks[batch.task].timing == "snapshot"
    try:
        if snapshot:
            _require_day(batch, now())
        observations, requests = await drive(source.crawl(batch), fetch)
        if any(gap.doubtful for gap in observations.gaps):
            observations, more = await _ask_again(batch, source, observations, fetch)
            requests += more
        if snapshot:
            _require_day(batch, now())
    except SourceError as exc:
        return react(batch, source, exc)
    except Exception as exc:
        # A bug, met by this batch: it must not stop the worker, and come again to stop the next one.
        log.exception("%s batch %s met a bug", batch.source, batch.batch_id)
        return DeadLetter(f"a bug of this version: {type(exc).__name__}")
    return Done(observations, requests)


async def _ask_again(batch: Batch, source: Source, found: Observations, fetch: Fetch) -> tuple[Observations, int]:
    """Ask once more about those with a doubtful gap; give all that is known now and how many requests it took.

    A second try that fails leaves what the first one brought.
    """
    doubted = {gap.entity_id for gap in found.gaps if gap.doubtful}
    part = dataclasses.replace(batch, entities=tuple(e for e in batch.entities if e.entity_id in doubted))
    try:
        second, requests = await drive(source.crawl(part), fetch)
    except SourceError as exc:
        log.info("%s batch %s: asking again brought nothing: %s", batch.source, batch.batch_id, exc)
        return found, 0
    return found.filled_by(second), requests


def react(batch: Batch, source: Source, error: SourceError) -> Outcome:
    """Map an error to the one reaction that its name demands."""
    match error:
        case RateLimited():
            if batch.pauses >= MAX_PAUSES:
                return DeadLetter(f"limited {MAX_PAUSES} times: {error}")
            return RetryIn(error.retry_after_s, str(error), pause=True)
        case TooLarge():
            parts = split(batch, by_days=source.tasks[batch.task].span == "windows")
            return Split(parts, str(error)) if parts else _again(batch, str(error))
        case TooLate() | EntityGone():
            gaps = expected_gaps(batch, source.tasks[batch.task], str(error), retry=False)
            return Done(dataclasses.replace(Observations.from_rows([]), gaps=gaps))
        case NoToken():
            return DeadLetter(str(error))
        case Unavailable() | Malformed() | TokenDead() | SourceError():
            return _again(batch, str(error))
        case _:
            assert_never(error)


def split(batch: Batch, *, by_days: bool = False) -> tuple[Batch, ...]:
    """Halve a batch by its entities, or by its days if it has one entity; empty if it is one of each.

    ``by_days`` never halves the entities: a window costs the same for all of them as for one.
    """
    if len(batch.entities) > 1 and not by_days:
        middle = len(batch.entities) // 2
        halves = (batch.entities[:middle], batch.entities[middle:])
        return tuple(
            dataclasses.replace(
                batch, entities=h, requests=(batch.requests + 1) // 2, points=(batch.points + 1) // 2, batch_id=""
            )
            for h in halves
        )
    days = (batch.end - batch.start).days
    if days < 1:
        return ()
    middle_day = batch.start + timedelta(days=days // 2)
    return (
        dataclasses.replace(batch, end=middle_day, batch_id=""),
        dataclasses.replace(batch, start=middle_day + timedelta(days=1), batch_id=""),
    )


async def work(
    source_name: str,
    consumer: str,
    run_id: int,
    broker: Broker,
    store: Store,
    fetch_for: Callable[[str], Fetch],
    timeline: Timeline,
    clock: Callable[[], float],
) -> None:
    """Drain one source's queue until the run has no open batch of it.

    Parameters
    ----------
    consumer
        Name of this worker and its life, ``name#life``: what an earlier life left comes again.
    fetch_for
        Gives the network of a lane: a backfill must not spend the nightly's share.
    clock
        Reads the machine's epoch seconds; with ``timeline`` it gives the run's moment.
    """
    limit = SOURCES[source_name].concurrency
    tasks: set[asyncio.Task[None]] = set()
    receiving: asyncio.Task[list[Delivery]] | None = None
    idle_s = SHORT_WAIT_S

    def now() -> datetime:
        return timeline.at(clock())

    try:
        while True:
            room = limit - len(tasks)
            if room and receiving is None:
                receiving = asyncio.create_task(broker.receive(source_name, consumer, room, idle_s))
            done, _ = await asyncio.wait({*tasks, *filter(None, [receiving])}, return_when=asyncio.FIRST_COMPLETED)
            ended = tasks & done
            tasks -= ended
            for batch_task in ended:
                batch_task.result()
            if receiving is None or receiving not in done:
                continue
            deliveries, receiving = receiving.result(), None
            for delivery in deliveries:
                tasks.add(
                    asyncio.create_task(
                        _process(delivery, broker, store, fetch_for(delivery.batch.lane), timeline, now)
                    )
                )
            # An idle worker asks less and less often whether others, or the time, have something left for it.
            idle_s = SHORT_WAIT_S if deliveries or ended else min(2 * idle_s, LONG_WAIT_S)
            if not tasks and not deliveries:
                counts = await store.progress(run_id)
                if not any(p.state == "planned" and p.source == source_name for p in counts):
                    return
    finally:
        left: list[asyncio.Task[Any]] = [*tasks, *filter(None, [receiving])]
        for unfinished in left:
            unfinished.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _process(
    delivery: Delivery, broker: Broker, store: Store, fetch: Fetch, timeline: Timeline, now: Callable[[], datetime]
) -> None:
    batch = delivery.batch
    outcome = await handle_batch(batch, fetch, now)
    try:
        match outcome:
            case Done():
                await store.commit_batch(batch, outcome, now())
                await broker.ack(delivery)
            case Split(parts=parts):
                await store.commit_batch(batch, outcome, now())
                await broker.publish(parts)
                await broker.ack(delivery)
            case RetryIn(delay_s=delay_s, reason=reason, pause=pause):
                log.info("%s batch %s waits %.0f s: %s", batch.source, batch.batch_id, delay_s, reason)
                await broker.retry(_paused(delivery) if pause else delivery, timeline.real_s(delay_s))
            case DeadLetter(reason=reason):
                log.error("%s batch %s is set aside: %s", batch.source, batch.batch_id, reason)
                await store.commit_batch(batch, outcome, now(), lost_days(batch, reason))
                await broker.dead_letter(delivery, reason)
            case _:
                assert_never(outcome)
    except StoreError as exc:
        # Nothing was committed, so nothing may be acknowledged: the batch comes again when the database is back.
        log.warning("%s batch %s goes back to the queue: %s", batch.source, batch.batch_id, exc)
        await asyncio.sleep(0.5)
        with contextlib.suppress(BrokerError):  # unacknowledged, it comes again by itself
            await broker.retry(_paused(delivery), 2.0)  # the upstream did not fail
    except BrokerError as exc:
        # The broker delivers again what was not acknowledged; the commit's key makes that harmless.
        log.warning("%s batch %s: %s", batch.source, batch.batch_id, exc)


def _paused(delivery: Delivery) -> Delivery:
    """Count a pause in place of the attempt that the broker counts for every return: pauses are not failures."""
    batch = delivery.batch
    again = dataclasses.replace(batch, attempt=batch.attempt - 1, pauses=batch.pauses + 1)
    return dataclasses.replace(delivery, batch=again)


def lost_days(batch: Batch, reason: str) -> tuple[Gap, ...]:
    """Return the gaps that a set-aside batch leaves; none for work of a source that this version does not know."""
    source = SOURCES.get(batch.source)
    if source is None or batch.task not in source.tasks:
        return ()
    return expected_gaps(batch, source.tasks[batch.task], reason, retry=True)


def _again(batch: Batch, reason: str) -> Outcome:
    if batch.attempt + 1 >= MAX_ATTEMPTS:
        return DeadLetter(f"after {MAX_ATTEMPTS} tries: {reason}")
    return RetryIn(FIRST_RETRY_S * 2**batch.attempt, reason)


def _require_day(batch: Batch, now: datetime) -> None:
    if snapshot_day(now) != batch.day:
        raise TooLate(f"a count taken at {now:%Y-%m-%d %H:%M} UTC cannot stand for {batch.day}")
