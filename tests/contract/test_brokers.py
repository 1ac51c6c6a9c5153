"""Both brokers keep the same promises: nothing is gone before it is acknowledged."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date

import aio_pika
import pytest

from astrid.broker import Broker
from astrid.broker.memory import MemoryBroker
from astrid.broker.rabbitmq import open_rabbitmq
from astrid.errors import BrokerError
from astrid.models import Batch, Entity

DAY = date(2026, 3, 31)
Open = Callable[[], AbstractAsyncContextManager[Broker]]


@pytest.fixture
def source() -> str:
    """Give each test queues of its own."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["memory", "rabbitmq"])
def open_broker(request: pytest.FixtureRequest) -> Open:
    """Give a way to connect: to one shared memory broker, or anew to RabbitMQ."""
    if request.param == "memory":
        shared = MemoryBroker()

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Broker]:
            yield shared

        return open_memory
    url: str = request.getfixturevalue("rabbitmq_url")

    @asynccontextmanager
    async def open_rabbit() -> AsyncIterator[Broker]:
        async with open_rabbitmq(url) as broker:
            yield broker

    return open_rabbit


def batches(source: str, count: int, lane: str = "nightly") -> list[Batch]:
    """Make batches that differ by their entity."""
    return [Batch(source, "t", DAY, DAY, DAY, (Entity(n, f"p{n}", f"k{n}", (f"n{n}",)),), lane) for n in range(count)]


async def drain(broker: Broker, source: str, count: int, consumer: str = "w#1") -> list[Batch]:
    """Receive and acknowledge until ``count`` batches came, or nothing comes any more."""
    found: list[Batch] = []
    while len(found) < count:
        deliveries = await broker.receive(source, consumer, 10, 2.0)
        if not deliveries:
            break
        for delivery in deliveries:
            found.append(delivery.batch)
            await broker.ack(delivery)
    return found


async def test_what_is_published_comes_once(open_broker: Open, source: str) -> None:
    sent = batches(source, 25)
    async with open_broker() as broker:
        await broker.publish(sent)
        got = await drain(broker, source, 25)
        assert sorted(b.batch_id for b in got) == sorted(b.batch_id for b in sent)
        assert {b.entities for b in got} == {b.entities for b in sent}
        assert await broker.receive(source, "w#1", 10, 0.2) == []


async def test_receive_keeps_to_its_limit_and_to_its_source(open_broker: Open, source: str) -> None:
    async with open_broker() as broker:
        await broker.publish([*batches(source, 5), *batches(source + "-other", 5)])
        deliveries = await broker.receive(source, "w#1", 3, 2.0)
        assert 1 <= len(deliveries) <= 3
        assert {d.batch.source for d in deliveries} == {source}
        for delivery in deliveries:
            await broker.ack(delivery)
        await drain(broker, source, 5 - len(deliveries))
        await drain(broker, source + "-other", 5)


async def test_both_lanes_are_drained(open_broker: Open, source: str) -> None:
    async with open_broker() as broker:
        await broker.publish([*batches(source, 4, "backfill"), *batches(source, 4)])
        lanes = [b.lane for b in await drain(broker, source, 8)]
        assert sorted(lanes) == ["backfill"] * 4 + ["nightly"] * 4


async def test_a_retry_comes_later_and_counts_the_attempt(open_broker: Open, source: str) -> None:
    async with open_broker() as broker:
        await broker.publish(batches(source, 1))
        (delivery,) = await broker.receive(source, "w#1", 1, 2.0)
        await broker.retry(delivery, 0.05)
        (again,) = await broker.receive(source, "w#1", 1, 5.0)
        assert (again.batch.batch_id, again.batch.attempt) == (delivery.batch.batch_id, 1)
        await broker.ack(again)
        assert await broker.receive(source, "w#1", 1, 0.2) == []


async def test_what_a_dead_worker_held_comes_again(open_broker: Open, source: str) -> None:
    """The first life takes three and acknowledges one; the next life gets the other two."""
    async with open_broker() as broker:
        await broker.publish(batches(source, 3))
        held = []
        while len(held) < 3:
            held += await broker.receive(source, "w#1", 3 - len(held), 2.0)
        await broker.ack(held[0])
    async with open_broker() as broker:
        got = await drain(broker, source, 2, "w#2")
        assert sorted(b.batch_id for b in got) == sorted(d.batch.batch_id for d in held[1:])


async def test_a_dead_letter_does_not_come_again(open_broker: Open, source: str) -> None:
    async with open_broker() as broker:
        await broker.publish(batches(source, 1))
        (delivery,) = await broker.receive(source, "w#1", 1, 2.0)
        await broker.dead_letter(delivery, "for a test")
        assert await broker.receive(source, "w#1", 1, 0.3) == []


async def test_purge_empties_the_queues(open_broker: Open, source: str) -> None:
    async with open_broker() as broker:
        await broker.publish(batches(source, 3))
        assert await broker.purge([source]) == 3
        assert await broker.receive(source, "w#1", 1, 0.2) == []


async def test_garbage_is_set_aside_and_the_worker_goes_on(rabbitmq_url: str, source: str) -> None:
    async with open_rabbitmq(rabbitmq_url) as broker:
        await broker.publish(batches(source, 1))
        connection = await aio_pika.connect(rabbitmq_url)
        async with connection:
            channel = await connection.channel()
            for body in (b"not json", b'{"version": 99}', b"[]"):
                await channel.default_exchange.publish(aio_pika.Message(body), f"astrid.{source}.nightly")
        assert len(await drain(broker, source, 1)) == 1
        assert await broker.receive(source, "w#1", 10, 0.5) == []


async def test_an_unreachable_broker_is_named_without_its_password() -> None:
    with pytest.raises(BrokerError) as caught:
        async with open_rabbitmq("amqp://user:hidden-word@127.0.0.1:1/"):
            pass
    assert "127.0.0.1:1" in str(caught.value)
    assert "ASTRID_BROKER_URL" in str(caught.value)
    assert "hidden-word" not in str(caught.value)


async def test_publishing_waits_for_confirms(rabbitmq_url: str, source: str) -> None:
    """What publish returned from is in the broker, also for another connection."""
    async with open_rabbitmq(rabbitmq_url) as producer:
        await producer.publish(batches(source, 50))
    async with open_rabbitmq(rabbitmq_url) as worker:
        assert len(await asyncio.wait_for(drain(worker, source, 50), 20)) == 50
