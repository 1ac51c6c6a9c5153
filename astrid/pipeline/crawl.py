"""What becomes of one batch: drive its source, and map what went wrong to one reaction."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never

from astrid.errors import (
    EntityGone,
    Malformed,
    NoToken,
    RateLimited,
    SourceError,
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
from astrid.timeline import snapshot_day

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 5
"""After this many failures of an upstream or its answers a batch is set aside and its days become gaps."""

MAX_PAUSES: Final = 60
"""Pauses that an upstream asks for are not failures, but a batch does not wait for ever."""

FIRST_RETRY_S: Final = 30.0


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
            parts = list_parts(batch)
            return Split(parts, str(error)) if parts else fail(batch, str(error))
        case TooLate() | EntityGone():
            gaps = expected_gaps(batch, source.tasks[batch.task], str(error), retry=False)
            return Done(dataclasses.replace(Observations.from_rows([]), gaps=gaps))
        case NoToken():
            return DeadLetter(str(error))
        case Unavailable() | Malformed() | TokenDead() | SourceError():
            return fail(batch, str(error))
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


def list_parts(batch: Batch) -> tuple[Batch, ...]:
    """Return the parts that a batch is split into; the same ones every time, with the same ids."""
    source = SOURCES[batch.source]
    return split(batch, by_days=source.tasks[batch.task].span == "windows")


def lost_days(batch: Batch, reason: str) -> tuple[Gap, ...]:
    """Return the gaps that a set-aside batch leaves; none for work of a source that this version does not know."""
    source = SOURCES.get(batch.source)
    if source is None or batch.task not in source.tasks:
        return ()
    return expected_gaps(batch, source.tasks[batch.task], reason, retry=True)


def fail(batch: Batch, reason: str) -> RetryIn | DeadLetter:
    """Say what becomes of a batch that failed: it waits longer each time, and is set aside after the last."""
    if batch.attempt + 1 >= MAX_ATTEMPTS:
        return DeadLetter(f"after {MAX_ATTEMPTS} tries: {reason}")
    return RetryIn(FIRST_RETRY_S * 2**batch.attempt, reason)


def _require_day(batch: Batch, now: datetime) -> None:
    if snapshot_day(now) != batch.day:
        raise TooLate(f"a count taken at {now:%Y-%m-%d %H:%M} UTC cannot stand for {batch.day}")
