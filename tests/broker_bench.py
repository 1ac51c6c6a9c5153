"""One broker and one consumer of one source, for the tests of what the brokers promise."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import aio_pika

from astrid.broker import LANES, Broker, Delivery
from astrid.broker.memory import MemoryBroker
from astrid.broker.rabbitmq import open_rabbitmq
from astrid.broker.rabbitmq.topology import DEAD
from astrid.models import Batch, Entity
from astrid.wire import decode_batch

DAY = date(2026, 3, 31)
PREFETCH = 4


@dataclass
class Bench:
    """A broker and one consumer of one source; ``source`` is new in each test, so that tests share a server."""

    broker: Broker
    source: str
    url: str = ""
    life: int = 1
    patience_s: float = 20.0
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def batch(self, number: int = 0, lane: str = "nightly") -> Batch:
        entities = (Entity(number, f"project-{number}", "R_1", ("owner/é", "old/name")), Entity(number + 1, "b", ""))
        return Batch(self.source, "counts", DAY, DAY, DAY, entities, lane, run_id=7, requests=3, points=2)

    @property
    def consumer(self) -> str:
        return f"worker#{self.life}"

    async def receive(self, limit: int = 10, wait_s: float = 5.0) -> list[Delivery]:
        return await self.broker.receive(self.source, self.consumer, limit, wait_s)

    async def receive_all(self, count: int) -> list[Delivery]:
        """Receive until ``count`` are here; a server's arrive one by one."""
        found: list[Delivery] = []
        while len(found) < count:
            more = await self.receive(count - len(found))
            assert more, f"{len(found)} of {count} arrived"
            found += more
        return found

    async def die(self) -> None:
        """End the consumer without a word and start it anew."""
        self.life += 1
        if self.url:
            # The server sees the same as after a kill: the connection ends with deliveries open.
            await self.broker.close()
            await self.open()

    async def open(self) -> None:
        self.broker = await self.another()

    async def another(self, url: str = "") -> Broker:
        """Return a further broker on the same server; the memory broker is one for all."""
        if not self.url:
            return self.broker
        prefetch = {self.source: PREFETCH}
        opened = open_rabbitmq(url or self.url, prefetch=prefetch, patience_s=self.patience_s)
        return await self.stack.enter_async_context(opened)

    async def dead_letters(self) -> list[tuple[Batch, str]]:
        """Return what was set aside of this source, and why."""
        if isinstance(self.broker, MemoryBroker):
            return self.broker.dead_letters
        return [(decode_batch(body), str(headers["x-astrid-reason"])) for body, headers in await self.letters()]

    async def letters(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Take what is in RabbitMQ's dead-letter queue of this source: bodies and headers."""
        found = []
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(DEAD.name)
            while (message := await queue.get(fail=False, timeout=5)) is not None:
                if self.source in f"{message.headers} {message.body!r}":
                    found.append((message.body, dict(message.headers)))
                    await message.ack()
        return found  # those of others go back with the connection

    async def send(self, body: bytes, lane: str = "nightly", headers: dict[str, Any] | None = None) -> None:
        """Put bytes into a queue past the broker."""
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel(on_return_raises=True)
            message = aio_pika.Message(body, headers=headers or {})
            await channel.default_exchange.publish(message, f"astrid.{self.source}.{lane}")

    async def counts(self) -> dict[str, int]:
        """Return how many messages lie ready in each lane's queue."""
        found = {}
        async with await aio_pika.connect(self.url) as connection:
            for lane in LANES:
                channel = await connection.channel()
                queue = await channel.get_queue(f"astrid.{self.source}.{lane}")
                found[lane] = int(queue.declaration_result.message_count or 0)
        return found

    async def delete_queues(self) -> None:
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            for lane in LANES:
                await channel.queue_delete(f"astrid.{self.source}.{lane}")


def new_source() -> str:
    return f"test-{uuid.uuid4().hex[:10]}"


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [d.batch.entities[0].entity_id for d in deliveries]


@asynccontextmanager
async def open_bench(url: str = "", **options: Any) -> AsyncIterator[Bench]:
    """Give a bench on RabbitMQ at the URL, or on a memory broker; its queues go at the end."""
    bench = Bench(MemoryBroker(), new_source(), url, **options)
    if not url:
        yield bench
        await bench.broker.close()
        return
    async with bench.stack:
        await bench.open()
        yield bench
    await bench.delete_queues()
