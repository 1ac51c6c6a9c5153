"""Strict lanes: no backfill batch starts while a nightly one of its source waits, none lies at a worker unstarted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from astrid.broker import Broker, Delivery
from tests.broker_bench import PREFETCH, Bench, numbers


async def test_the_nightly_lane_goes_first(bench: Bench) -> None:
    await bench.broker.publish([*(bench.batch(n, "backfill") for n in range(3)), *(bench.batch(n) for n in (10, 11))])
    assert numbers(await bench.receive_all(5)) == [10, 11, 0, 1, 2]


async def test_a_night_that_begins_in_the_middle_of_a_backfill_goes_before_its_rest(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(n, "backfill") for n in range(4)])
    begun = await bench.receive(limit=1)
    await bench.broker.publish([bench.batch(n) for n in (10, 11)])
    assert numbers(begun) == [0]
    taken = await bench.receive_all(PREFETCH)
    assert numbers(taken) == [10, 11, 1, 2]
    for delivery in [*begun, *taken]:
        await bench.broker.ack(delivery)
    assert numbers(await bench.receive_all(1)) == [3]


async def test_a_fresh_worker_finds_the_night_before_the_backfill(bench: Bench) -> None:
    """Nothing has been pushed to it yet when it could ask for a backfill: it asks for the nightly lane first."""
    for turn in range(5):
        await bench.broker.publish([bench.batch(1, "backfill"), bench.batch(10)])
        bench.life += 1
        for expected in (10, 1):
            (delivery,) = await bench.receive(limit=1)
            assert numbers([delivery]) == [expected], turn
            await bench.broker.ack(delivery)


async def test_a_backfill_that_comes_while_nothing_is_to_do_is_found(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.receive(wait_s=20.0))
    await asyncio.sleep(0.3)
    await bench.broker.publish([bench.batch(1, "backfill")])
    assert numbers(await asyncio.wait_for(waiting, 5)) == [1]


async def test_a_night_that_comes_while_a_backfill_is_in_hand_is_found(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(1, "backfill")])
    (held,) = await bench.receive()
    waiting = asyncio.create_task(bench.receive(wait_s=20.0))
    await asyncio.sleep(0.3)
    await bench.broker.publish([bench.batch(2)])
    assert numbers(await asyncio.wait_for(waiting, 5)) == [2]
    await bench.broker.ack(held)


async def test_the_lanes_of_a_source_are_nobody_elses(bench: Bench) -> None:
    """A source with nothing of the night goes on with its backfill, whatever stands in other sources' queues."""
    other = Bench(bench.broker, bench.source + "x", bench.url)
    await bench.broker.publish([other.batch(1), bench.batch(2, "backfill")])
    assert numbers(await bench.receive()) == [2]
    assert numbers(await other.receive()) == [1]
    if bench.url:
        await other.delete_queues()


async def test_rabbitmq_a_worker_takes_no_more_of_a_backfill_than_it_starts(rabbit: Bench) -> None:
    """Its peers find all the rest in the queue."""
    await rabbit.broker.publish([rabbit.batch(n, "backfill") for n in range(6)])
    assert len(await rabbit.receive(limit=1)) == 1
    await asyncio.sleep(0.5)  # whatever would be pushed would have come by now
    assert (await rabbit.counts())["backfill"] == 5
    second = await rabbit.another()
    taken = 0
    while deliveries := await second.receive(rabbit.source, "w#1", 10, 1.0):
        taken += len(deliveries)
    assert taken == 5


async def test_rabbitmq_a_busy_worker_keeps_no_night_from_its_peers(rabbit: Bench) -> None:
    """With a batch of a backfill in hand nothing is pushed to it: what it cannot start now stands in the queue."""
    await rabbit.broker.publish([rabbit.batch(n, "backfill") for n in range(PREFETCH)])
    busy = await rabbit.receive_all(PREFETCH)
    await rabbit.broker.publish([rabbit.batch(n) for n in range(10, 10 + PREFETCH)])
    await asyncio.sleep(0.5)  # whatever would be pushed would have come by now
    assert (await rabbit.counts())["nightly"] == PREFETCH
    for delivery in busy:
        await rabbit.broker.ack(delivery)
    assert len(await rabbit.receive_all(PREFETCH)) == PREFETCH


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_backfill_overtakes_a_night(bench: Bench, seed: int, workers: int) -> None:
    """Both lanes published at random moments: who starts a backfill batch has seen no night waiting.

    What was published before a worker asked stands in the queue, or, where there are two, is on its way to the other.
    """
    rng = random.Random(seed)
    published: list[int] = []
    started: Counter[int] = Counter()
    overtaken: list[tuple[int, list[int]]] = []
    over = asyncio.Event()

    async def produce() -> None:
        for number in range(60):
            lane = rng.choice(("nightly", "backfill"))
            await bench.broker.publish([bench.batch(number, lane)])
            if lane == "nightly":
                published.append(number)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.03)
        over.set()

    async def take(broker: Broker, name: str) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while True:
            waiting = [n for n in published if not started[n]]
            deliveries = await broker.receive(bench.source, name, PREFETCH - len(tasks), 1.5)
            started.update(numbers(deliveries))
            for delivery in deliveries:
                left = [n for n in waiting if not started[n]]
                if delivery.batch.lane == "backfill" and left:
                    overtaken.append((*numbers([delivery]), left))
                tasks.add(asyncio.create_task(end(broker, delivery)))
            while len(tasks) == PREFETCH or (tasks and not deliveries):
                _, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if over.is_set() and not deliveries and not tasks:
                return

    async def end(broker: Broker, delivery: Delivery) -> None:
        await asyncio.sleep(rng.random() * 0.02)
        await broker.ack(delivery)

    brokers = [bench.broker, *[await bench.another() for _ in range(workers - 1)]]
    async with asyncio.timeout(60):
        await asyncio.gather(produce(), *(take(broker, f"w{n}#1") for n, broker in enumerate(brokers)))
    assert started == Counter(range(60))
    assert workers > 1 or not overtaken
