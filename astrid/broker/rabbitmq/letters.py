"""Dead letters: what was set aside, why, and its way back.

A letter is a message of the dead-letter queue; what is told of it stands in its headers. Reading holds the letters
unacknowledged and returns them in their order, so one reader at a time sees them all.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiormq
from aiormq.abc import DeliveredMessage

from astrid.broker import LANES
from astrid.broker.rabbitmq.link import CALL_S, Link, Session, close_quietly, driver_calls
from astrid.broker.rabbitmq.topology import DEAD, DELIVERY_LIMIT, read_work_queue, work_queue
from astrid.errors import Malformed
from astrid.models import Batch
from astrid.wire import decode_batch, encode_batch

HELD_MAX: Final = 900
"""So many letters are held at once: small plans cut a connection that holds a thousand messages."""

RETURN_POLLS: Final = 100
"""So often it is looked whether what was read is back, every 20 ms; somebody else may have taken it meanwhile."""

REASON_MAX: Final = 1_000

PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    ``letter_id`` names the message; ``batch`` is None where the message is none, and then ``unreadable`` says why.
    """

    letter_id: str
    at: datetime | None
    source: str
    reason: str
    queue: str
    batch_id: str
    run_id: int | None
    attempt: int | None
    body: bytes
    batch: Batch | None
    unreadable: str


def head_letter(reason: str, queue: str, source: str, batch: Batch | None, now: datetime) -> dict[str, str | int]:
    """Return the headers of a letter."""
    headers: dict[str, str | int] = {
        "x-astrid-reason": reason[:REASON_MAX],
        "x-astrid-queue": queue,
        "x-astrid-source": source,
        "x-astrid-at": now.isoformat(timespec="seconds"),
    }
    if batch is not None:
        headers |= {"x-astrid-batch": batch.batch_id, "x-astrid-run": batch.run_id, "x-astrid-attempt": batch.attempt}
    return headers


def read_letter(message: DeliveredMessage) -> Letter:
    """Read a letter; also one that RabbitMQ itself, or somebody else, put there."""
    properties = message.header.properties
    headers: dict[str, Any] = dict(properties.headers or {})
    batch, unreadable = None, ""
    try:
        batch = decode_batch(message.body)
    except Malformed as exc:
        unreadable = str(exc)
    death = _first_death(headers)
    queue = str(headers.get("x-astrid-queue", death.get("queue", "")))
    reason = headers.get("x-astrid-reason") or _death_reason(death)
    letter_id = str(properties.message_id or hashlib.blake2b(message.body, digest_size=16).hexdigest())
    return Letter(
        letter_id,
        _moment(headers.get("x-astrid-at"), death.get("time")),
        str(headers.get("x-astrid-source") or read_work_queue(queue) or (batch.source if batch else "")),
        str(reason),
        queue,
        str(headers.get("x-astrid-batch") or (batch.batch_id if batch else "")),
        batch.run_id if batch else None,
        batch.attempt if batch else None,
        message.body,
        batch,
        unreadable,
    )


@dataclass(frozen=True, slots=True)
class Requeued:
    """What became of letters: those that are queued again, and those that stay, with the reason."""

    done: tuple[Letter, ...]
    left: tuple[tuple[Letter, str], ...]


class DeadLetters:
    """The dead-letter queue of a RabbitMQ."""

    def __init__(self, url: str) -> None:
        self._link = Link(url, PATIENCE_S)

    async def open(self) -> None:
        """Connect; errors as in :meth:`.link.Link.open`."""
        await self._link.open()

    async def read(self) -> tuple[list[Letter], int]:
        """Return the letters, oldest first, and how many stand there; at most :data:`HELD_MAX` are read."""

        async def read_all(session: Session) -> tuple[list[Letter], int]:
            async with _open_reader(session) as (channel, count):
                letters = [letter for letter, _ in await _get_some(channel, min(count, HELD_MAX))]
            await _await_return(session, count)
            return letters, count

        return await self._link.attempt("show its dead letters", read_all)

    async def requeue(
        self, choose: Callable[[Sequence[Letter]], Collection[str]] | None, sources: Collection[str]
    ) -> Requeued:
        """Put letters back into their work queues, as if they had never failed.

        Each is in its work queue for good before it is taken from here: an interruption doubles, never loses.

        Parameters
        ----------
        choose
            Returns the ids of those that are meant, of the oldest :data:`HELD_MAX`; None: all letters are.
        sources
            The sources that somebody works on.
        """
        done: list[Letter] = []

        async def requeue_all(session: Session) -> Requeued:
            left: list[tuple[Letter, str]] = []
            gone = len(done)
            async with _open_reader(session) as (channel, count):
                stood = count
                # Not until the queue is empty: what dies again at once would come round for ever.
                while count > 0 and len(left) < HELD_MAX:
                    found = await _get_some(channel, min(count, HELD_MAX - len(left)))
                    count = count - len(found) if found and choose is None else 0
                    chosen = None if choose is None else choose([letter for letter, _ in found])
                    for letter, number in found:
                        if chosen is not None and letter.letter_id not in chosen:
                            continue
                        if refusal := _refusal(letter, sources):
                            left.append((letter, refusal))
                            continue
                        await _send_back(session, letter)
                        await _ack(channel, number)
                        done.append(letter)
            await _await_return(session, stood - (len(done) - gone))
            return Requeued(tuple(done), tuple(left))

        return await self._link.attempt("requeue dead letters", requeue_all)

    async def purge(self) -> int:
        """Drop all letters for good; return how many there were."""

        async def empty(session: Session) -> int:
            async with _open_reader(session) as (channel, _):
                with driver_calls():
                    return (await channel.queue_purge(DEAD.name, timeout=CALL_S)).message_count or 0

        return await self._link.attempt("purge its dead letters", empty)

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()


@asynccontextmanager
async def open_dead_letters(url: str) -> AsyncGenerator[DeadLetters]:
    """Connect to RabbitMQ for its dead letters, and close the connection at the end; errors as in ``open``."""
    letters = DeadLetters(url)
    await letters.open()
    try:
        yield letters
    finally:
        await letters.close()


@asynccontextmanager
async def _open_reader(session: Session) -> AsyncGenerator[tuple[aiormq.Channel, int]]:
    """Give a channel and the count of letters; what was got and not acknowledged returns in order at the end."""
    await session.declare(DEAD)
    channel = await session.channel()
    try:
        with driver_calls():
            found = await channel.queue_declare(DEAD.name, passive=True, timeout=CALL_S)
        yield channel, found.message_count or 0
    finally:
        await close_quietly(channel)


async def _get_some(channel: aiormq.Channel, count: int) -> list[tuple[Letter, int]]:
    """Get so many letters, or as many as there are, each with its number on the channel."""
    found: list[tuple[Letter, int]] = []
    while len(found) < count:
        with driver_calls():
            message = await channel.basic_get(DEAD.name, timeout=CALL_S)
        if isinstance(message.delivery, aiormq.spec.Basic.GetEmpty):
            break
        found.append((read_letter(message), message.delivery_tag or 0))
    return found


async def _await_return(session: Session, count: int) -> None:
    """Wait until so many letters stand in the queue again: RabbitMQ returns them a moment after it says so."""
    channel = await session.channel()
    try:
        for _ in range(RETURN_POLLS):
            with driver_calls():
                found = await channel.queue_declare(DEAD.name, passive=True, timeout=CALL_S)
            if (found.message_count or 0) >= count:
                return
            await asyncio.sleep(0.02)
    finally:
        await close_quietly(channel)


async def _ack(channel: aiormq.Channel, number: int) -> None:
    with driver_calls():
        async with asyncio.timeout(CALL_S):
            await channel.basic_ack(number)


async def _send_back(session: Session, letter: Letter) -> None:
    assert letter.batch is not None
    fresh = dataclasses.replace(letter.batch, attempt=0, pauses=0)
    await session.unblocked(CALL_S)
    await session.send(work_queue(fresh.source, fresh.lane), encode_batch(fresh), {}, CALL_S)


def _refusal(letter: Letter, sources: Collection[str]) -> str:
    """Return why a letter cannot go back; empty if it can."""
    if letter.batch is None:
        return f"it is no batch ({letter.unreadable})"
    if letter.batch.source not in sources or letter.batch.lane not in LANES:
        return f"nobody works on {letter.batch.source!r}, lane {letter.batch.lane!r}, in this version"
    return ""


def _first_death(headers: dict[str, Any]) -> dict[str, Any]:
    """Return RabbitMQ's own note of why it moved a message here; its newest is the first."""
    deaths = headers.get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}


def _death_reason(death: dict[str, Any]) -> str:
    match death.get("reason"):
        case "delivery_limit":
            return f"it came back {DELIVERY_LIMIT} times without an end"
        case None:
            return "not said"
        case other:
            return f"RabbitMQ set it aside: {other}"


def _moment(stated: Any, of_death: Any) -> datetime | None:
    if isinstance(stated, str):
        try:
            return datetime.fromisoformat(stated)
        except ValueError:
            pass
    return of_death.astimezone(UTC) if isinstance(of_death, datetime) else None
