"""RabbitMQ's queues: declared by anybody at any time, of one form, and what is said where they have another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest

from astrid.broker.rabbitmq.topology import (
    DEAD,
    DELAYS_MS,
    DELIVERY_LIMIT,
    read_work_queue,
    wait_queue,
    work_queue,
)
from astrid.errors import BrokerError
from astrid.sources import SOURCES
from astrid.wire import encode_batch
from tests.broker_bench import Bench, new_source, numbers


def test_the_queues_of_all_sources_fit_into_a_small_plan() -> None:
    """Shared plans allow a hundred queues; a second deployment must find room beside the first."""
    assert len(DELAYS_MS) + 1 + 2 * len(SOURCES) <= 50


def test_no_wait_becomes_much_longer_than_asked_for() -> None:
    names = {wait_queue(d / 1000).name for d in DELAYS_MS}
    assert names == {f"astrid.wait.{d}" for d in DELAYS_MS}
    assert wait_queue(0.0).name == "astrid.wait.100"
    assert wait_queue(1e9).name == "astrid.wait.3600000"
    for delay_s in range(11, 3600):
        chosen_s = int(wait_queue(delay_s).name.rpartition(".")[2]) / 1000
        assert delay_s <= chosen_s <= 3 * delay_s


def test_a_work_queues_name_tells_its_source() -> None:
    assert read_work_queue(work_queue("hn.firebase", "nightly").name) == "hn.firebase"
    assert read_work_queue("somebody.elses") == ""


@pytest.fixture
async def channel(rabbit: Bench) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(rabbit.url) as connection:
        yield await connection.channel()


async def test_many_clients_may_declare_the_same_new_queues_at_once(rabbitmq_url: str) -> None:
    """RabbitMQ 3.10 closes the connection of one of two that do; who is cut comes again."""
    benches = [Bench(None, new_source(), rabbitmq_url) for _ in range(4)]  # type: ignore[arg-type]
    sources = [bench.source for bench in benches]
    clients = 5
    async with asyncio.timeout(90):
        brokers = [await benches[0].another() for _ in range(clients)]
        # None of them knows any queue yet: publishing, counting and receiving declare them, all at the same moment.
        await asyncio.gather(
            *(b.publish([bench.batch(n) for bench in benches]) for n, b in enumerate(brokers[:2])),
            brokers[2].ready(sources),
            *(b.receive(s, "w#1", 1, 0.0) for b in brokers[3:] for s in sources),
        )
        counts = await brokers[2].ready(sources)
        for bench in benches:
            bench.broker = brokers[3]
            got = numbers(await bench.receive_all(2))
            assert sorted(got) == [0, 1], counts
    await benches[0].stack.aclose()
    for bench in benches:
        await bench.delete_queues()


async def test_an_older_versions_queue_is_named_with_what_to_do(
    rabbit: Bench, channel: aio_pika.abc.AbstractChannel
) -> None:
    name = f"astrid.{rabbit.source}.nightly"
    await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
    for attempt in (
        rabbit.broker.publish([rabbit.batch(1)]),
        rabbit.receive(wait_s=20.0),
        rabbit.broker.ready([rabbit.source]),
        rabbit.broker.purge([rabbit.source]),
    ):
        with pytest.raises(BrokerError) as caught:
            await asyncio.wait_for(attempt, 10)
        assert name in str(caught.value)
        assert "drain" in str(caught.value)
        assert f"rabbitmqctl delete_queue {name}" in str(caught.value)
    # Mended, it goes on without a new start; other sources never noticed.
    await channel.queue_delete(name)
    await rabbit.broker.publish([rabbit.batch(2)])
    assert numbers(await rabbit.receive_all(1)) == [2]


async def test_what_waited_in_an_older_versions_queues_still_arrives(
    rabbit: Bench, channel: aio_pika.abc.AbstractChannel
) -> None:
    """Version 0 had classic wait queues per work queue; they lead into the queues of the same names."""
    await rabbit.broker.ready([rabbit.source])
    work = f"astrid.{rabbit.source}.nightly"
    arguments = {"x-message-ttl": 300, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work}
    await channel.declare_queue(f"{work}.wait.300", durable=True, arguments=dict(arguments))
    await channel.default_exchange.publish(aio_pika.Message(encode_batch(rabbit.batch(5))), f"{work}.wait.300")
    assert numbers(await rabbit.receive_all(1)) == [5]
    await channel.queue_delete(f"{work}.wait.300")


async def test_a_queue_that_goes_while_it_is_used_is_made_anew(rabbit: Bench) -> None:
    """Deleted under a waiting consumer, under a producer, and under a batch that is to be tried again."""
    waiting = asyncio.create_task(rabbit.receive(wait_s=30.0))
    await asyncio.sleep(0.3)
    await rabbit.delete_queues()
    await rabbit.broker.publish([rabbit.batch(1)])
    assert numbers(await waiting) == [1]
    await rabbit.delete_queues()
    await rabbit.broker.publish([rabbit.batch(2)])
    (held,) = [d for d in await rabbit.receive_all(1) if numbers([d]) == [2]]
    await rabbit.broker.ack(held)


async def test_a_wait_queue_that_is_gone_is_made_anew(rabbit: Bench, channel: aio_pika.abc.AbstractChannel) -> None:
    await rabbit.broker.publish([rabbit.batch(1)])
    (delivery,) = await rabbit.receive_all(1)
    await rabbit.broker.retry(delivery, 0.1)
    (delivery,) = await rabbit.receive_all(1)
    for name in (wait_queue(0.1).name, DEAD.name):
        await channel.queue_delete(name)
    await channel.exchange_delete(wait_queue(0.1).exchange)
    await rabbit.broker.retry(delivery, 0.1)
    (delivery,) = await rabbit.receive_all(1)
    await rabbit.broker.dead_letter(delivery, "for a test")
    assert len(await rabbit.letters()) == 1


async def test_rabbitmq_itself_sets_aside_what_comes_back_for_ever(
    rabbit: Bench, channel: aio_pika.abc.AbstractChannel
) -> None:
    await rabbit.broker.publish([rabbit.batch(1)])
    queue = await channel.get_queue(f"astrid.{rabbit.source}.nightly")
    for returns in range(DELIVERY_LIMIT + 1):
        message = await queue.get(timeout=10)
        assert message.headers.get("x-delivery-count", 0) == returns
        await message.reject(requeue=True)  # what counts as a failure on 4.3 too
        await asyncio.sleep(0.01)  # until it stands in the queue again
    assert await rabbit.receive(wait_s=0.3) == []
    await asyncio.sleep(1.0)  # RabbitMQ moves it when it finds the time; nothing tells when
    ((body, headers),) = await rabbit.letters()
    assert body == encode_batch(rabbit.batch(1))
    assert headers["x-death"][0]["reason"] == "delivery_limit"
