"""Lives, limits and returns: what both brokers promise at their edges, the memory broker and a real RabbitMQ."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from astrid.broker import Broker, Delivery
from astrid.broker.rabbitmq import open_rabbitmq
from astrid.errors import BrokerError
from tests.broker_bench import PREFETCH, Bench, new_source, numbers


async def test_a_batch_comes_as_it_was_sent(bench: Bench) -> None:
    sent = dataclasses.replace(bench.batch(5), attempt=2)
    await bench.broker.publish([sent])
    (delivery,) = await bench.receive()
    assert delivery.batch == sent
    assert delivery.batch.batch_id == sent.batch_id
    assert delivery.returns == 0


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


async def test_two_waiting_calls_share_what_comes(bench: Bench) -> None:
    """One batch wakes both; the one that goes away empty waits on."""
    calls = [asyncio.create_task(bench.receive(limit=1, wait_s=10.0)) for _ in range(2)]
    await asyncio.sleep(0.2)
    await bench.broker.publish([bench.batch(1)])
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    await bench.broker.publish([bench.batch(2)])
    assert sorted(numbers([d for taken in await asyncio.gather(*calls) for d in taken])) == [1, 2]


async def test_a_cancelled_receive_loses_nothing(bench: Bench) -> None:
    """Cancelled at any moment, also while the answer is on its way."""
    await bench.receive(wait_s=0.01)
    await bench.broker.publish([bench.batch(n, "backfill") for n in range(2)])
    for turn in range(8):
        call = asyncio.create_task(bench.receive(limit=1))
        for _ in range(turn):
            await asyncio.sleep(0)
        call.cancel()
        done = (await asyncio.gather(call, return_exceptions=True))[0]
        if isinstance(done, list):
            break
    held = done if isinstance(done, list) else []
    while len(held) < 2:
        more = await bench.receive(limit=1, wait_s=3.0)
        assert more
        held += more
    assert sorted(numbers(held)) == [0, 1]
    for delivery in held:
        await bench.broker.ack(delivery)


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


async def test_returns_are_counted_until_the_batch_is_tried_again(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(1)])
    counts = []
    for _ in range(3):
        (delivery,) = await bench.receive_all(1)
        counts.append(delivery.returns)
        await bench.die()
    assert counts == [0, 1, 2]
    (delivery,) = await bench.receive_all(1)
    assert delivery.returns == 3
    await bench.broker.retry(delivery, 0.1)
    (again,) = await bench.receive_all(1)
    assert (again.returns, again.batch.attempt) == (0, 1)


async def test_a_new_life_takes_over_from_the_old_one(bench: Bench) -> None:
    """On one and the same broker, as behind a node's actor: the old life's process is dead, the broker's is not."""
    await bench.broker.publish([bench.batch(n) for n in range(2)])
    stale, _ = await bench.receive_all(2)
    bench.life += 1
    fresh = await bench.receive_all(2)
    assert numbers(fresh) == [0, 1]
    for settle in (bench.broker.ack(stale), bench.broker.retry(stale, 0.0), bench.broker.dead_letter(stale, "late")):
        with pytest.raises(BrokerError, match="no longer"):
            await settle
    for delivery in fresh:
        await bench.broker.ack(delivery)
    assert await bench.receive(wait_s=0.3) == []
    assert await bench.dead_letters() == []


async def test_a_call_of_a_former_life_takes_nothing(bench: Bench) -> None:
    """A worker is killed while it waits: its call is still open at the broker, and nobody would read the answer."""
    lost = asyncio.create_task(bench.receive(wait_s=20.0))
    await asyncio.sleep(0.2)
    bench.life += 1
    alive = asyncio.create_task(bench.receive(wait_s=20.0))
    await asyncio.sleep(0.2)
    await bench.broker.publish([bench.batch(1)])
    assert numbers(await alive) == [1]
    assert await lost == []
    assert await bench.broker.receive(bench.source, "worker#1", 1, 0.0) == []


async def test_what_is_settled_cannot_be_settled_again(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(1)])
    (delivery,) = await bench.receive_all(1)
    await bench.broker.ack(delivery)
    with pytest.raises(BrokerError, match="no longer"):
        await bench.broker.ack(delivery)
    with pytest.raises(BrokerError, match="no longer"):
        await bench.broker.ack(dataclasses.replace(delivery, tag=delivery.tag + 1))


async def test_release_returns_everything_and_delivers_nothing_more(bench: Bench) -> None:
    await bench.broker.publish([bench.batch(n) for n in range(3)])
    waiting = asyncio.create_task(bench.broker.receive(bench.source + "-empty", bench.consumer, 1, 30.0))
    ended, held, _ = await bench.receive_all(3)
    await bench.broker.ack(ended)
    await bench.broker.release(bench.consumer)
    with pytest.raises(BrokerError, match="no longer"):
        await bench.broker.ack(held)
    assert await asyncio.wait_for(waiting, 5) == []
    assert await bench.receive(wait_s=0.2) == []
    bench.life += 1
    assert sorted(numbers(await bench.receive_all(2))) == [1, 2]


async def test_release_without_what_is_held_lets_that_come_to_its_end(bench: Bench) -> None:
    """Drain: nothing new, what was never taken goes to others, what is under way may still be committed."""
    await bench.broker.publish([bench.batch(n) for n in range(PREFETCH)])
    held = await bench.receive_all(1)
    await bench.broker.release(bench.consumer, held=False)
    assert await bench.receive(wait_s=0.2) == []
    other = await bench.broker.receive(bench.source, "other#1", PREFETCH, 5.0)
    while len(other) < PREFETCH - 1:
        other += await bench.broker.receive(bench.source, "other#1", PREFETCH, 5.0)
    assert sorted(numbers(held + other)) == list(range(PREFETCH))
    await bench.broker.ack(held[0])
    await bench.broker.release(bench.consumer)
    assert (await bench.broker.ready([bench.source]))[bench.source] == 0


async def test_ready_counts_what_waits_in_both_lanes(bench: Bench) -> None:
    assert await bench.broker.ready([bench.source]) == {bench.source: 0}
    await bench.broker.publish([*(bench.batch(n) for n in range(3)), bench.batch(3, "backfill")])
    assert await bench.broker.ready([bench.source]) == {bench.source: 4}
    assert await bench.broker.ready([]) == {}


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


async def test_a_retry_of_a_changed_batch_brings_the_changed_one(bench: Bench) -> None:
    """A pause is counted in place of an attempt: what the worker hands back is what comes."""
    await bench.broker.publish([bench.batch(1)])
    (delivery,) = await bench.receive()
    paused = dataclasses.replace(delivery.batch, attempt=-1, pauses=1)
    await bench.broker.retry(dataclasses.replace(delivery, batch=paused), 0.05)
    (again,) = await bench.receive_all(1)
    assert (again.batch.attempt, again.batch.pauses) == (0, 1)


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
    other = dataclasses.replace(bench, source=new_source())
    await bench.broker.publish([bench.batch(1), bench.batch(2, "backfill"), other.batch(3)])
    assert await bench.broker.purge([bench.source]) == 2
    assert await bench.receive(wait_s=0.3) == []
    assert numbers(await other.receive()) == [3]
    if bench.url:
        await other.delete_queues()


async def test_a_lane_that_nobody_drains_is_refused(bench: Bench) -> None:
    with pytest.raises(BrokerError, match="'weekly'"):
        await bench.broker.publish([bench.batch(1), bench.batch(2, "weekly")])
    assert (await bench.broker.ready([bench.source]))[bench.source] == 0


async def test_rabbitmq_hands_one_consumer_no_more_than_it_may_hold(rabbit: Bench) -> None:
    await rabbit.broker.publish([rabbit.batch(n) for n in range(PREFETCH + 3)])
    held = await rabbit.receive_all(PREFETCH)
    assert await rabbit.receive(wait_s=0.5) == []
    assert (await rabbit.counts())["nightly"] == 3
    await rabbit.broker.ack(held[0])
    assert numbers(await rabbit.receive()) == [PREFETCH]


async def test_rabbitmq_two_consumers_share_and_nothing_is_doubled(rabbit: Bench) -> None:
    second = await rabbit.another()
    got: list[int] = []

    async def drain(broker: Broker) -> int:
        count = 0
        while deliveries := await broker.receive(rabbit.source, "w#1", 3, 2.0):
            for delivery in deliveries:
                await broker.ack(delivery)
            got.extend(numbers(deliveries))
            count += len(deliveries)
        return count

    idle = asyncio.gather(drain(rabbit.broker), drain(second))
    await asyncio.sleep(0.3)
    await rabbit.broker.publish([rabbit.batch(n) for n in range(30)])
    shares = await idle
    assert sorted(got) == list(range(30))
    assert all(shares)


async def test_rabbitmq_what_its_worker_does_not_ask_for_goes_to_others(
    rabbit: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that pauses keeps nothing from those that do not."""
    monkeypatch.setattr("astrid.broker.rabbitmq.reception.LINGER_S", 0.3)
    await rabbit.receive(wait_s=0.01)
    await rabbit.broker.publish([rabbit.batch(n) for n in range(PREFETCH)])
    second = await rabbit.another()
    got: list[int] = []
    while len(got) < PREFETCH:
        deliveries = await second.receive(rabbit.source, "w#1", PREFETCH, 10.0)
        assert deliveries
        got += numbers(deliveries)
    assert sorted(got) == list(range(PREFETCH))
    await rabbit.broker.publish([rabbit.batch(9)])
    assert numbers(await rabbit.receive(wait_s=10.0)) == [9]  # and it asks again when it goes on


async def test_rabbitmq_refusals_name_the_place_and_never_the_password(rabbitmq_url: str) -> None:
    place = rabbitmq_url.rpartition("@")[2].partition("/")[0]
    host, _, port = place.partition(":")
    wrong = {
        f"amqp://guest:s3cret%2Fword@{host}:1/": f"{host}:1",
        f"amqp://guest:s3cret%2Fword@{host}:{port}/": place,
        f"amqp://guest:s3cret%2Fword@no-such-host.invalid:{port}/": f"no-such-host.invalid:{port}",
        rabbitmq_url.rstrip("/") + "/no-such-vhost": place,
        f"amqps://guest:s3cret%2Fword@{host}:{port}/": place,
        f"amqps://guest:s3cret%2Fword@{host}:{port}/?cafile=/no/such/file": place,
    }
    for url, expected in wrong.items():
        with pytest.raises(BrokerError) as caught:
            async with open_rabbitmq(url):
                pass
        said = str(caught.value)
        assert expected in said, said
        assert "s3cret" not in said, said
        assert "ASTRID_BROKER_URL" in said
        assert "\n" not in said
    with pytest.raises(BrokerError, match="refuses the user or the password"):
        async with open_rabbitmq(f"amqp://guest:wrong@{place}/"):
            pass


@pytest.mark.parametrize("address", ["amqp://guest:s3cret@localhost:99999/", "amqp://guest:s3cret@[::1/"])
async def test_an_unreadable_address_is_a_setting_to_mend(address: str) -> None:
    with pytest.raises(BrokerError, match="ASTRID_BROKER_URL") as caught:
        async with open_rabbitmq(address):
            pass
    assert "s3cret" not in str(caught.value)
