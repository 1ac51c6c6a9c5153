"""RabbitMQ through aio-pika: quorum queues per (source, lane), confirms, retries by queues with a TTL.

Works on 3.10 and later without plugins. A retry waits in a queue whose TTL is its delay and which
dead-letters into the work queue; a few fixed delays, because in one queue a long wait would block the
short ones behind it. A worker takes nightly batches first among those that the broker has pushed to it; each
lane pushes up to ``prefetch``, so a night waits at most for the batches of a backfill in workers' hands.
Facts: rabbitmq.com, "Quorum Queues", "Time-To-Live", "Dead Letter Exchanges".
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import aio_pika
import aiormq.exceptions
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue, AbstractRobustChannel, AbstractRobustConnection

from astrid.broker import Delivery
from astrid.errors import BrokerError, Malformed
from astrid.models import Batch
from astrid.wire import decode_batch, encode_batch

LANES: Final = ("nightly", "backfill")
DELAYS_MS: Final = (100, 1_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000, 2_400_000, 3_600_000)
"""No wait above ten seconds becomes more than three times as long, none above 30 more than two and a half times."""
DEAD: Final = "astrid.dead"
_ERRORS: Final = (
    aio_pika.exceptions.AMQPError,
    aiormq.exceptions.AMQPError,
    RuntimeError,  # the drivers' for a channel or connection that has just dropped
    OSError,
    TimeoutError,
)

Arrivals = asyncio.PriorityQueue[tuple[int, int, AbstractIncomingMessage]]
"""What the broker has pushed and nobody has taken: (rank of the lane, order of arrival, message)."""


class RabbitBroker:
    """One connection, one channel to publish with confirms, one channel per consumed source."""

    def __init__(self, connection: AbstractRobustConnection, publisher: AbstractRobustChannel, prefetch: int) -> None:
        self._connection = connection
        self._publisher = publisher
        self._prefetch = prefetch
        self._declared: set[str] = set()
        self._arrivals: dict[str, Arrivals] = {}
        self._order = itertools.count()
        self._channels: list[AbstractRobustChannel] = []

    async def publish(self, batches: Sequence[Batch]) -> None:
        with _translated("publish"):
            # Both lanes, before any worker hears of them: RabbitMQ closes the connection of one of two clients
            # that declare the same new quorum queue at the same moment.
            for source in {b.source for b in batches}:
                for lane in LANES:
                    await self._declare_work(self._publisher, source, lane)
            # The channel confirms each message; waiting for all at once keeps the line full.
            await asyncio.gather(*(self._send(_queue(b.source, b.lane), encode_batch(b)) for b in batches))

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        with _translated("receive"):
            if source not in self._arrivals:
                await self._consume(source)
        arrivals = self._arrivals[source]
        deliveries: list[Delivery] = []
        while len(deliveries) < limit:
            try:
                _, _, message = arrivals.get_nowait() if deliveries else await asyncio.wait_for(arrivals.get(), wait_s)
            except (TimeoutError, asyncio.QueueEmpty):
                break
            try:
                deliveries.append(Delivery(message, decode_batch(message.body)))
            except Malformed as exc:
                await self._set_aside(message, str(exc))
        return deliveries

    async def ack(self, delivery: Delivery) -> None:
        with _translated("acknowledge"):
            await delivery.tag.ack()

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        batch = dataclasses.replace(delivery.batch, attempt=delivery.batch.attempt + 1)
        delay_ms = next((d for d in DELAYS_MS if d >= delay_s * 1000), DELAYS_MS[-1])
        with _translated("retry"):
            work = _queue(batch.source, batch.lane)
            waiting = f"{work}.wait.{delay_ms}"
            await self._declare(
                self._publisher,
                waiting,
                {"x-message-ttl": delay_ms, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work},
            )
            # First the copy is safe, then the original goes: a crash in between doubles, never loses.
            await self._send(waiting, encode_batch(batch))
            await delivery.tag.ack()

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        await self._set_aside(delivery.tag, reason)

    async def purge(self, sources: Sequence[str]) -> int:
        dropped = 0
        with _translated("purge"):
            for source in sources:
                for lane in LANES:
                    queue = await self._declare_work(self._publisher, source, lane)
                    dropped += int((await queue.purge()).message_count or 0)
        return dropped

    async def close(self) -> None:
        with contextlib.suppress(*_ERRORS):
            for channel in self._channels:
                await channel.close()
            await self._connection.close()

    async def _consume(self, source: str) -> None:
        arrivals: Arrivals = asyncio.PriorityQueue()
        for rank, lane in enumerate(LANES):
            channel = await self._connection.channel()
            assert isinstance(channel, AbstractRobustChannel)
            self._channels.append(channel)
            await channel.set_qos(prefetch_count=self._prefetch)
            queue = await self._declare_work(channel, source, lane, again=True)
            await queue.consume(functools.partial(self._arrive, arrivals, rank))
        self._arrivals[source] = arrivals

    async def _arrive(self, arrivals: Arrivals, rank: int, message: AbstractIncomingMessage) -> None:
        arrivals.put_nowait((rank, next(self._order), message))

    async def _set_aside(self, message: AbstractIncomingMessage, reason: str) -> None:
        with _translated("dead-letter"):
            await self._declare(self._publisher, DEAD, {"x-queue-type": "quorum"})
            headers: dict[str, str] = {"x-astrid-reason": reason[:1000]}
            await self._publisher.default_exchange.publish(
                aio_pika.Message(message.body, headers=dict(headers), delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
                DEAD,
            )
            await message.ack()

    async def _send(self, queue: str, body: bytes) -> None:
        message = aio_pika.Message(
            body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        try:
            await self._publisher.default_exchange.publish(message, queue)
        except aio_pika.exceptions.DeliveryError:
            self._declared.clear()  # a queue is gone: the next try makes it again
            raise

    async def _declare_work(
        self, channel: AbstractRobustChannel, source: str, lane: str, *, again: bool = False
    ) -> AbstractQueue:
        return await self._declare(channel, _queue(source, lane), {"x-queue-type": "quorum"}, again=again)

    async def _declare(
        self, channel: AbstractRobustChannel, name: str, arguments: dict[str, str | int], *, again: bool = False
    ) -> AbstractQueue:
        if name in self._declared and not again:
            return await channel.get_queue(name, ensure=False)
        queue = await channel.declare_queue(name, durable=True, arguments=dict(arguments))
        self._declared.add(name)
        return queue


@asynccontextmanager
async def open_rabbitmq(url: str, *, prefetch: int = 16) -> AsyncIterator[RabbitBroker]:
    """Connect to RabbitMQ.

    Raises
    ------
    BrokerError
        If the broker cannot be reached or refuses; the message names host and port, never the password.
    """
    where = urlsplit(url)
    try:
        connection = await aio_pika.connect_robust(url, timeout=10, client_properties={"connection_name": "astrid"})
        # The broker confirms also what no queue took; only its return of the message says so.
        publisher = await connection.channel(publisher_confirms=True, on_return_raises=True)
    except (*_ERRORS, ValueError) as exc:
        reason = str(exc).replace(where.password or "\0", "***")
        raise BrokerError(
            f"cannot open RabbitMQ at {where.netloc.rpartition('@')[2]} ({type(exc).__name__}: {reason}): "
            "check ASTRID_BROKER_URL and that the broker runs"
        ) from exc
    assert isinstance(publisher, AbstractRobustChannel)
    broker = RabbitBroker(connection, publisher, prefetch)
    try:
        yield broker
    finally:
        await broker.close()


def _queue(source: str, lane: str) -> str:
    return f"astrid.{source}.{lane}"


class _translated(contextlib.AbstractContextManager[None]):
    """Turn the driver's exceptions into ``BrokerError``, naming what was tried."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, _ERRORS):
            raise BrokerError(
                f"RabbitMQ did not {self._action} ({type(exc).__name__}: {exc}): it is tried again"
            ) from exc
