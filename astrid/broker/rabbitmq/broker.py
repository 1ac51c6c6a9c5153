"""The broker on RabbitMQ: what planner and workers ask for, by sessions, receptions and queues."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import aiormq

from astrid.broker import LANES, Delivery, require_lanes
from astrid.broker.rabbitmq.letters import head_letter
from astrid.broker.rabbitmq.link import (
    CALL_S,
    ERRORS,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Link,
    Sending,
    Session,
    close_quietly,
    describe,
    driver_calls,
)
from astrid.broker.rabbitmq.reception import MESSAGE_BYTES_MAX, Arrival, Reception, Unreadable
from astrid.broker.rabbitmq.topology import DEAD, Queue, wait_queue, work_queue
from astrid.errors import BrokerError
from astrid.models import Batch
from astrid.wire import encode_batch

log = logging.getLogger(__name__)

PREFETCH: Final = 16
"""How much a worker holds of a source that nothing else is said of."""

PATIENCE_S: Final = 60.0
IN_FLIGHT_MAX: Final = 256
"""Messages are confirmed in parts of so many."""

EMPTY: Final[Mapping[str, int]] = MappingProxyType({})


class RabbitBroker:
    """See :class:`~astrid.broker.Broker`; all its consumers share one connection, which is opened when it is needed.

    Parameters
    ----------
    url
        amqp(s)://user:password@host:port/vhost.
    prefetch
        How many batches of a source a worker can hold.
    patience_s
        How long RabbitMQ may be out of reach before a call says so.
    first_tag
        Where the tags of deliveries begin; one that starts again in the place of another begins elsewhere, so that
        the other's deliveries are not taken for its own.
    clock
        Reads the epoch seconds that dead letters are dated by.
    """

    def __init__(
        self,
        url: str,
        prefetch: Mapping[str, int] = EMPTY,
        *,
        patience_s: float = PATIENCE_S,
        first_tag: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = Link(url, patience_s)
        self._prefetch = prefetch
        self._clock = clock
        self._tags = itertools.count(first_tag)
        self._deliveries: dict[int, tuple[Reception, int]] = {}
        self._receptions: dict[tuple[str, str], Reception] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[Reception | BrokerError]] = {}
        self._lives: dict[str, str] = {}
        self._ended: set[str] = set()

    async def open(self) -> None:
        """Connect now, without patience; errors as in :meth:`.link.Link.open`."""
        await self._link.open()

    async def publish(self, batches: Sequence[Batch]) -> None:
        require_lanes(batches)
        left = [(work_queue(b.source, b.lane), _encode(b)) for b in batches]
        queues = [DEAD, *(queue for _, queue in _work_queues(sorted({b.source for b in batches})))]
        deadline_s = asyncio.get_running_loop().time() + self._link.patience_s

        async def send_left(session: Session) -> None:
            await session.declare(*queues)
            await _send_all(session, left, deadline_s)

        await self._link.attempt("publish", send_left)

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        pause_s = FIRST_PAUSE_S
        await self._begin_life(consumer)
        while consumer not in self._ended:
            reception = await self._reception(consumer, source, max(0.0, deadline_s - loop.time()))
            if reception is None:
                return []
            if arrivals := await reception.receive(limit, deadline_s):
                return [self._hand_out(reception, arrival) for arrival in arrivals]
            if loop.time() >= deadline_s:
                return []
            await asyncio.sleep(pause_s)  # a channel that ends at once, again and again, must not spin
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return []

    async def ack(self, delivery: Delivery) -> None:
        reception, number = self._settle(delivery)
        await self._ack(reception, number)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        again = dataclasses.replace(delivery.batch, attempt=delivery.batch.attempt + 1)
        work = work_queue(again.source, again.lane)
        await self._replace(delivery, "retry", wait_queue(delay_s), encode_batch(again), {}, work.name)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        batch = delivery.batch
        headers = head_letter(reason, work_queue(batch.source, batch.lane).name, batch.source, batch, self._now())
        await self._replace(delivery, "set aside", DEAD, encode_batch(batch), headers)

    async def release(self, consumer: str, *, held: bool = True) -> None:
        self._ended.add(consumer)
        for key in [key for key in self._receptions if key[0] == consumer]:
            if held:
                await self._forget(key)
            else:
                await self._receptions[key].stop()

    async def ready(self, sources: Sequence[str]) -> dict[str, int]:
        async def count(session: Session) -> dict[str, int]:
            counts = dict.fromkeys(sources, 0)
            channel = await self._open_channel(session, sources)
            try:
                with driver_calls():
                    for source, queue in _work_queues(sources):
                        found = await channel.queue_declare(queue.name, passive=True, timeout=CALL_S)
                        counts[source] += found.message_count or 0
            finally:
                await close_quietly(channel)
            return counts

        return await self._link.attempt("count its batches", count)

    async def purge(self, sources: Sequence[str]) -> int:
        async def empty(session: Session) -> int:
            dropped = 0
            channel = await self._open_channel(session, sources)
            try:
                with driver_calls():
                    for _, queue in _work_queues(sources):
                        dropped += (await channel.queue_purge(queue.name, timeout=CALL_S)).message_count or 0
            finally:
                await close_quietly(channel)
            return dropped

        return await self._link.attempt("purge", empty)

    async def close(self) -> None:
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for key in list(self._receptions):
            await self._forget(key)
        await self._link.close()

    async def _open_channel(self, session: Session, sources: Sequence[str]) -> aiormq.Channel:
        """Open a channel to ask about the queues of these sources, which are there then."""
        await session.declare(*(queue for _, queue in _work_queues(sources)))
        return await session.channel()

    async def _begin_life(self, consumer: str) -> None:
        """End the life that this one follows."""
        name = consumer.partition("#")[0]
        before = self._lives.get(name, consumer)
        if consumer not in self._ended:
            self._lives[name] = consumer
            if before != consumer:
                await self.release(before)

    async def _reception(self, consumer: str, source: str, wait_s: float) -> Reception | None:
        """Return the consumer's reception for a source, opened if there is none; None if that takes longer."""
        key = consumer, source
        standing = self._receptions.get(key)
        if standing is not None:
            if standing.is_open and standing.session.is_open:
                return standing
            await self._forget(key)
        if key not in self._opening:
            self._opening[key] = asyncio.create_task(self._open_reception(consumer, source))
        opening = self._opening[key]
        await asyncio.wait([opening], timeout=wait_s)
        if not opening.done():
            return None
        if self._opening.get(key) is opening:
            del self._opening[key]
        found = opening.result()
        if isinstance(found, BrokerError):
            raise type(found)(str(found)) from found
        return found

    async def _open_reception(self, consumer: str, source: str) -> Reception | BrokerError:
        async def open_on(session: Session) -> Reception:
            reception = Reception(session, source, self._prefetch.get(source, PREFETCH), self._set_aside)
            try:
                await reception.open()
            except BaseException:
                await reception.close()
                raise
            return reception

        try:
            reception = await self._link.attempt(f"deliver {source}", open_on)
        except BrokerError as exc:
            return exc
        if consumer in self._ended:
            await reception.close()
        else:
            self._receptions[consumer, source] = reception
        return reception

    async def _forget(self, key: tuple[str, str]) -> None:
        reception = self._receptions.pop(key, None)
        if reception is not None:
            for tag in reception.held:
                self._deliveries.pop(tag, None)
            await reception.close()

    def _hand_out(self, reception: Reception, arrival: Arrival) -> Delivery:
        delivery = Delivery(next(self._tags), arrival.batch, arrival.returns)
        self._deliveries[delivery.tag] = reception, arrival.number
        reception.held.add(delivery.tag)
        return delivery

    def _settle(self, delivery: Delivery) -> tuple[Reception, int]:
        """Take a delivery out of its consumer's hands; refuse one that is not there any more."""
        reception, number = self._deliveries.pop(delivery.tag, (None, 0))
        if reception is not None:
            reception.held.discard(delivery.tag)
            reception.settle(number)
            if reception.is_open:
                return reception, number
        raise BrokerError(
            f"batch {delivery.batch.batch_id} is no longer this worker's (its connection or its life ended): it is "
            "delivered again"
        )

    async def _ack(self, reception: Reception, number: int) -> None:
        try:
            await reception.ack(number)
        except ERRORS as exc:
            if isinstance(exc, TimeoutError):
                await reception.session.close()  # a line that takes nothing for so long is dead
            raise BrokerError(f"RabbitMQ did not acknowledge ({describe(exc)}): the batch is delivered again") from exc
        except asyncio.CancelledError:
            reception.return_later(number)  # it was not said: the message must not stay in nobody's hands
            raise

    async def _replace(
        self,
        delivery: Delivery,
        action: str,
        queue: Queue,
        body: bytes,
        headers: Mapping[str, str | int],
        routing_key: str = "",
    ) -> None:
        """Put a copy elsewhere, then acknowledge: a crash in between doubles, never loses.

        Not with a new session, if this one fails: then the batch comes again by itself.
        """
        reception, number = self._settle(delivery)
        try:
            await reception.session.unblocked(CALL_S)
            await reception.session.send(queue, body, headers, CALL_S, routing_key)
        except BaseException as exc:
            reception.return_later(number)
            if isinstance(exc, ERRORS):
                raise BrokerError(f"RabbitMQ did not {action} ({describe(exc)}): the batch is delivered again") from exc
            raise
        await self._ack(reception, number)

    async def _set_aside(self, reception: Reception, found: Unreadable) -> None:
        log.error("%s: a message is set aside: %s", found.source, found.reason)
        headers = head_letter(found.reason, found.queue, found.source, found.batch, self._now())
        await reception.session.unblocked(CALL_S)
        await reception.session.send(DEAD, found.body, headers, CALL_S)
        await self._ack(reception, found.number)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


@asynccontextmanager
async def open_rabbitmq(
    url: str,
    *,
    prefetch: Mapping[str, int] = EMPTY,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.time,
) -> AsyncGenerator[RabbitBroker]:
    """Connect to RabbitMQ, and close the connection at the end; parameters as of :class:`RabbitBroker`.

    Raises
    ------
    BrokerError
        If the broker cannot be reached or refuses; the message names host and port, never the password.
    """
    broker = RabbitBroker(url, prefetch, patience_s=patience_s, clock=clock)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


def _work_queues(sources: Sequence[str]) -> list[tuple[str, Queue]]:
    return [(source, work_queue(source, lane)) for source in sources for lane in LANES]


def _encode(batch: Batch) -> bytes:
    body = encode_batch(batch)
    if len(body) > MESSAGE_BYTES_MAX:
        raise BrokerError(
            f"batch {batch.batch_id} of {batch.source} takes {len(body)} bytes as a message, workers read at most "
            f"{MESSAGE_BYTES_MAX}: plan it smaller"
        )
    return body


async def _send_all(session: Session, left: list[tuple[Queue, bytes]], deadline_s: float) -> None:
    """Publish messages and take those out of ``left`` that were confirmed; raise the first error of the others."""
    loop = asyncio.get_running_loop()
    await session.unblocked(max(0.0, deadline_s - loop.time()))
    messages = list(left)
    failed: list[tuple[Queue, bytes]] = []
    errors: list[BaseException] = []
    answered = 0
    under_way: deque[Sending] = deque()

    async def finish_oldest() -> None:
        nonlocal answered
        ends = await under_way[0].finish(min(CALL_S, max(0.0, deadline_s - loop.time())))
        answered += len(under_way.popleft())
        failed.extend(message for message, _ in ends)
        errors.extend(error for _, error in ends)

    try:
        for start in range(0, len(messages), IN_FLIGHT_MAX):
            # Two parts under way at once: while the broker works at one, the other is written.
            if len(under_way) > 1:
                await finish_oldest()
            if errors:
                break
            under_way.append(await session.start_sending(messages[start : start + IN_FLIGHT_MAX]))
        while under_way:
            await finish_oldest()
    finally:
        for sending in under_way:
            sending.cancel()
        left[:] = [*failed, *messages[answered:]]  # whatever ended this: only what was confirmed is not sent again
    if any(isinstance(error, TimeoutError) for error in errors):
        await session.unblocked(0)  # to send more would only lengthen the line
        await session.require_answer()
    if errors:
        raise errors[0]
