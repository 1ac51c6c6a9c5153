"""Lives, lanes and refusals: what the brokers promise at their edges, on the memory broker and on a real RabbitMQ.

A test whose name says ``rabbitmq`` is about what only a server can do (garbage, prefetch, refusal, a cut line),
one that says ``memory`` about what only one process can do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest

from astrid.broker import Broker, Delivery
from astrid.broker.memory import MemoryBroker
from astrid.broker.rabbitmq import DEAD, DELAYS_MS, LANES, open_rabbitmq
from astrid.errors import BrokerError
from astrid.models import Batch, Entity
from astrid.wire import decode_batch, encode_batch
from tests.line import open_line

DAY = date(2026, 3, 31)
PREFETCH = 4


@dataclass
class Bench:
    """A broker and one consumer of one source; ``source`` is new in each test, so that tests share a server."""

    broker: Broker
    source: str
    url: str = ""
    life: int = 1
    opened: list[Any] = field(default_factory=list)

    def batch(self, number: int = 0, lane: str = "nightly") -> Batch:
        entities = (Entity(number, f"project-{number}", "R_1", ("owner/é", "old/name")), Entity(number + 1, "b", ""))
        return Batch(self.source, "counts", DAY, DAY, DAY, entities, lane, run_id=7, requests=3, points=2)

    async def receive(self, limit: int = 10, wait_s: float = 5.0) -> list[Delivery]:
        return await self.broker.receive(self.source, f"worker#{self.life}", limit, wait_s)

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
        context = open_rabbitmq(self.url, prefetch=PREFETCH)
        self.broker = await context.__aenter__()
        self.opened.append(context)

    async def dead_letters(self) -> list[tuple[Batch, str]]:
        """Return what was set aside of this source, and why."""
        if isinstance(self.broker, MemoryBroker):
            return self.broker.dead_letters
        return [(decode_batch(body), reason) for body, reason in await self.raw_dead_letters()]

    async def raw_dead_letters(self) -> list[tuple[bytes, str]]:
        found = []
        connection = await aio_pika.connect(self.url)
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(DEAD, durable=True, arguments={"x-queue-type": "quorum"})
            while (message := await queue.get(fail=False, timeout=5)) is not None:
                if self.source.encode() in message.body:
                    found.append((message.body, str(message.headers["x-astrid-reason"])))
                    await message.ack()
        return found  # those of others go back with the connection

    async def send(self, body: bytes) -> None:
        """Put bytes into the nightly queue past the broker."""
        connection = await aio_pika.connect(self.url)
        async with connection:
            channel = await connection.channel()
            await channel.default_exchange.publish(aio_pika.Message(body), f"astrid.{self.source}.nightly")

    async def delete_queues(self) -> None:
        connection = await aio_pika.connect(self.url)
        async with connection:
            channel = await connection.channel()
            for lane in LANES:
                work = f"astrid.{self.source}.{lane}"
                for name in (work, *(f"{work}.wait.{ms}" for ms in DELAYS_MS)):
                    await channel.queue_delete(name)


def new_source() -> str:
    return f"test-{uuid.uuid4().hex[:10]}"


async def close(bench: Bench) -> None:
    for context in bench.opened:
        await context.__aexit__(None, None, None)
    await bench.delete_queues()


@pytest.fixture(params=["memory", "rabbitmq"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Give each broker in turn."""
    if request.param == "memory":
        memory = MemoryBroker()
        yield Bench(memory, new_source())
        await memory.close()
        return
    found = Bench(MemoryBroker(), new_source(), request.getfixturevalue("rabbitmq_url"))
    await found.open()
    yield found
    await close(found)


@pytest.fixture
async def memory() -> AsyncIterator[Bench]:
    """Give the memory broker alone: a closed connection can neither wait nor speak."""
    broker = MemoryBroker()
    yield Bench(broker, new_source())
    await broker.close()


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> AsyncIterator[Bench]:
    """Give RabbitMQ alone."""
    found = Bench(MemoryBroker(), new_source(), rabbitmq_url)
    await found.open()
    yield found
    await close(found)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [d.batch.entities[0].entity_id for d in deliveries]


async def test_a_batch_comes_as_it_was_sent(bench: Bench) -> None:
    sent = dataclasses.replace(bench.batch(5), attempt=2)
    await bench.broker.publish([sent])
    (delivery,) = await bench.receive()
    assert delivery.batch == sent
    assert delivery.batch.batch_id == sent.batch_id


async def test_a_limit_is_kept_and_order_within_a_lane(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(n) for n in range(4)])
    first = await bench.receive(limit=1)
    assert numbers(first) == [0]
    rest: list[Delivery] = []
    while len(rest) < 3:
        more = await bench.receive(limit=2)
        assert 1 <= len(more) <= 2
        rest += more
    assert numbers(rest) == [1, 2, 3]


async def test_an_empty_queue_waits_as_long_as_asked_and_no_longer(bench: Bench) -> None:
    await bench.receive(wait_s=0.01)  # opens what must be opened
    start = time.perf_counter()
    assert await bench.receive(wait_s=0.3) == []
    assert 0.25 < time.perf_counter() - start < 2.0


async def test_a_waiting_consumer_is_woken(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.receive(wait_s=20.0))
    await asyncio.sleep(0.2)
    start = time.perf_counter()
    await bench.broker.publish([bench.batch(1)])
    assert numbers(await waiting) == [1]
    assert time.perf_counter() - start < 5.0


async def test_the_nightly_lane_goes_before_what_waits_of_a_backfill(bench: Bench) -> None:
    """Holds for one consumer and what has reached it.

    The memory broker is strict. RabbitMQ pushes each lane on a channel of its own; what has arrived is handed
    out nightly lane first, but up to ``prefetch`` batches of a backfill lie at other consumers already.
    """
    await bench.broker.publish([bench.batch(n, "backfill") for n in range(3)])
    begun = await bench.receive(limit=1)
    await bench.broker.publish([bench.batch(n) for n in (10, 11)])
    await asyncio.sleep(0.5)  # until RabbitMQ has pushed what the consumer may hold; there is no event for it
    assert numbers(begun) == [0]
    assert numbers(await bench.receive(limit=4)) == [10, 11, 1, 2]


async def test_an_acknowledged_batch_never_comes_again(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(n) for n in range(3)])
    first, second, third = await bench.receive_all(3)
    await bench.broker.ack(first)
    await bench.broker.ack(third)
    await bench.die()
    assert numbers(await bench.receive_all(1)) == numbers([second])
    assert await bench.receive(wait_s=0.3) == []


async def test_a_dead_consumers_batches_come_again_unchanged_and_in_order(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(n) for n in range(4)])
    held = await bench.receive_all(3)
    await bench.die()
    again = await bench.receive_all(4)
    assert sorted(numbers(again)) == [0, 1, 2, 3]
    assert numbers(again)[:3] == numbers(held)
    assert {d.batch.attempt for d in again} == {0}


async def test_memory_an_answer_of_a_former_life_harms_nothing(memory: Bench) -> None:
    """What a killed worker still says about its batch must not take it from its next life."""
    await memory.broker.publish([memory.batch(1)])
    (stale,) = await memory.receive_all(1)
    await memory.die()
    (fresh,) = await memory.receive_all(1)
    await memory.broker.retry(stale, 0.0)
    await memory.broker.dead_letter(stale, "said by the dead")
    assert await memory.receive(wait_s=0.1) == []
    assert await memory.dead_letters() == []
    await memory.broker.ack(fresh)


async def test_memory_a_call_of_a_former_life_takes_nothing(memory: Bench) -> None:
    """A worker is killed while it waits: its call is still open at the broker, and nobody would read the answer."""
    lost = asyncio.create_task(memory.receive(wait_s=5.0))
    await asyncio.sleep(0.05)
    await memory.die()
    alive = asyncio.create_task(memory.receive(wait_s=5.0))
    await asyncio.sleep(0.05)
    await memory.broker.publish([memory.batch(1)])
    assert await lost == []
    assert numbers(await alive) == [1]


async def test_a_retry_comes_later_and_counts(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(1)])
    (delivery,) = await bench.receive()
    start = time.perf_counter()
    await bench.broker.retry(delivery, 0.4)
    (again,) = await bench.receive_all(1)
    waited_s = time.perf_counter() - start
    assert 0.35 < waited_s < 4.0
    assert again.batch.attempt == 1
    assert again.batch.batch_id == delivery.batch.batch_id
    assert (again.batch.requests, again.batch.run_id) == (3, 7)
    await bench.broker.ack(again)
    await bench.die()
    assert await bench.receive(wait_s=0.3) == []


async def test_a_long_wait_does_not_hold_up_a_short_one(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(n) for n in (1, 2)])
    long, short = await bench.receive_all(2)
    await bench.broker.retry(long, 30.0)
    await bench.broker.retry(short, 0.1)
    assert numbers(await bench.receive_all(1)) == numbers([short])


async def test_a_dead_letter_is_kept_with_its_reason(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(1)])
    (delivery,) = await bench.receive()
    await bench.broker.dead_letter(delivery, "after 5 tries: the answer is no JSON — ünlesbar")
    await bench.die()
    assert await bench.receive(wait_s=0.3) == []
    ((batch, reason),) = await bench.dead_letters()
    assert batch == delivery.batch
    assert reason == "after 5 tries: the answer is no JSON — ünlesbar"


async def test_purge_drops_what_waits_of_these_sources_alone(bench: Bench) -> None:
    other = Bench(bench.broker, new_source(), bench.url)
    batches = [bench.batch(1), bench.batch(2, "backfill"), other.batch(3)]
    await bench.broker.publish(batches)
    assert await bench.broker.purge([bench.source]) == 2
    assert await bench.receive(wait_s=0.3) == []
    assert numbers(await other.receive()) == [3]
    if bench.url:
        await other.delete_queues()


async def test_rabbitmq_hands_one_consumer_no_more_than_it_may_hold(rabbit: Bench) -> None:
    await rabbit.broker.publish([rabbit.batch(n) for n in range(PREFETCH + 3)])
    held = await rabbit.receive_all(PREFETCH)
    assert await rabbit.receive(wait_s=0.5) == []
    await rabbit.broker.ack(held[0])
    assert numbers(await rabbit.receive()) == [PREFETCH]


async def test_rabbitmq_two_consumers_share_and_nothing_is_doubled(rabbit: Bench) -> None:
    await rabbit.broker.purge([rabbit.source])  # makes the queues, as the driver does before workers start
    async with open_rabbitmq(rabbit.url, prefetch=PREFETCH) as second:
        got: list[int] = []

        async def drain(broker: Broker) -> int:
            count = 0
            while deliveries := await broker.receive(rabbit.source, "w#1", 3, 1.0):
                for delivery in deliveries:
                    await broker.ack(delivery)
                got.extend(numbers(deliveries))
                count += len(deliveries)
            return count

        idle = asyncio.gather(drain(rabbit.broker), drain(second))
        await asyncio.sleep(0.3)
        await rabbit.broker.publish([rabbit.batch(n, LANES[n % 2]) for n in range(30)])
        shares = await idle
    assert sorted(got) == list(range(30))
    assert all(shares)


@pytest.mark.parametrize("kind", ["garbage", "version", "field"])
async def test_rabbitmq_sets_aside_what_is_no_batch(rabbit: Bench, kind: str) -> None:
    """A message of a newer version, or of nobody, stops no worker and is not lost."""
    sound = encode_batch(rabbit.batch(1))
    bodies = {
        "garbage": b"\xff\x00 " + rabbit.source.encode(),
        "version": sound.replace(b'"version":1', b'"version":99'),
        "field": sound.replace(b'"entities"', b'"who"'),
    }
    await rabbit.receive(wait_s=0.01)
    await rabbit.send(bodies[kind])
    await rabbit.broker.publish([rabbit.batch(2)])
    assert numbers(await rabbit.receive_all(1)) == [2]
    ((body, reason),) = await rabbit.raw_dead_letters()
    assert body == bodies[kind]
    assert {"garbage": "JSONDecodeError", "version": "version '99'", "field": "entities"}[kind] in reason


async def test_rabbitmq_confirms_or_says_so(rabbit: Bench) -> None:
    """A batch that no queue took must not count as published."""
    await rabbit.broker.publish([rabbit.batch(1)])
    await rabbit.delete_queues()
    with pytest.raises(BrokerError, match="publish"):
        await rabbit.broker.publish([rabbit.batch(2)])
    await rabbit.broker.publish([rabbit.batch(3)])
    assert numbers(await rabbit.receive_all(1)) == [3]


async def test_rabbitmq_a_cut_line_loses_nothing_and_ends_no_worker(rabbit: Bench) -> None:
    """The line drops with a batch in hand: its ack says BrokerError; it comes again once the line is back."""
    where = urlsplit(rabbit.url)
    async with open_line(where.hostname or "", where.port or 5672) as line:
        url = rabbit.url.replace(where.netloc.rpartition("@")[2], f"127.0.0.1:{line.port}")
        async with open_rabbitmq(url, prefetch=PREFETCH) as broker:
            await broker.publish([rabbit.batch(1)])
            (held,) = await broker.receive(rabbit.source, "w#1", 1, 5.0)
            line.cut()
            await asyncio.sleep(0.1)
            with pytest.raises(BrokerError, match="acknowledge"):
                await broker.ack(held)
            line.mend()
            (again,) = await broker.receive(rabbit.source, "w#1", 1, 30.0)
            assert (again.batch, again.batch.attempt) == (held.batch, 0)
            await broker.ack(again)
            await publish_until_it_works(broker, rabbit.batch(2))
            got = numbers(await broker.receive(rabbit.source, "w#1", 5, 10.0))
            assert set(got) == {2}


async def publish_until_it_works(broker: Broker, batch: Batch) -> None:
    """Publish as a driver that comes again: the channels open one after the other."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return await broker.publish([batch])
        except BrokerError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def test_rabbitmq_refusals_name_the_place_and_never_the_password(rabbitmq_url: str) -> None:
    good = urlsplit(rabbitmq_url)
    port = good.port or 5672
    wrong = {
        f"amqp://guest:s3cret%2Fword@{good.hostname}:1/": f"{good.hostname}:1",
        f"amqp://guest:s3cret%2Fword@{good.hostname}:{port}/": f"{good.hostname}:{port}",
        f"amqp://guest:s3cret%2Fword@no-such-host.invalid:{port}/": f"no-such-host.invalid:{port}",
        f"amqp://guest:{good.password}@{good.hostname}:{port}/no-such-vhost": f"{good.hostname}:{port}",
    }
    for url, place in wrong.items():
        with pytest.raises(BrokerError) as caught:
            async with open_rabbitmq(url):
                pass
        said = str(caught.value)
        assert place in said, said
        assert "s3cret" not in said, said
        assert "ASTRID_BROKER_URL" in said
        assert "\n" not in said


async def test_an_unreadable_address_is_a_setting_to_mend() -> None:
    with pytest.raises(BrokerError, match="ASTRID_BROKER_URL") as caught:
        async with open_rabbitmq("amqp://guest:s3cret@localhost:99999/"):
            pass
    assert "s3cret" not in str(caught.value)
