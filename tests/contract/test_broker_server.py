"""A RabbitMQ that dies, is started again, refuses, takes nothing more, or speaks TLS: on a node of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from astrid.broker import Broker
from astrid.broker.rabbitmq import open_rabbitmq
from astrid.errors import BrokerError
from tests.broker_bench import PREFETCH, Bench, numbers, open_bench
from tests.rabbitmq import PrivateNode

LASTING = ThreadPoolExecutor(1)
"""The node ends with the thread that started it."""


async def drain(broker: Broker, bench: Bench, count: int, commits: Counter[int]) -> None:
    """Commit each batch once, and acknowledge, until ``count`` are committed and the queue is empty."""
    while True:
        deliveries = []
        with contextlib.suppress(BrokerError):
            deliveries = await broker.receive(bench.source, "w#1", PREFETCH, 0.5)
        for delivery in deliveries:
            (number,) = numbers([delivery])
            if not commits[number]:
                commits[number] += 1
            with contextlib.suppress(BrokerError):
                await broker.ack(delivery)
        if len(commits) >= count and not deliveries:
            return


@pytest.mark.parametrize("ends", ["killed", "stopped"])
async def test_a_broker_that_dies_keeps_what_it_confirmed(
    settles: None, own: Bench, own_node: PrivateNode, ends: str
) -> None:
    """kill -9, or an orderly stop, with batches waiting, in hand, waiting for a retry, and being published."""
    await own.broker.publish([own.batch(n, ("nightly", "backfill")[n % 2]) for n in range(8)])
    held = await own.receive_all(3)
    await own.broker.ack(held[0])
    await own.broker.retry(held[1], 1.0)
    commits = Counter(numbers(held[:1]))

    publishing = asyncio.create_task(own.broker.publish([own.batch(n) for n in range(8, 12)]))
    if ends == "killed":
        await asyncio.to_thread(own_node.kill)
    else:
        await asyncio.to_thread(own_node.control, "stop_app")
    async with asyncio.timeout(100):
        if ends == "killed":
            await asyncio.get_running_loop().run_in_executor(LASTING, own_node.start)
        else:
            await asyncio.to_thread(own_node.control, "start_app")
        own.patience_s = 60.0
        with contextlib.suppress(BrokerError):  # the patience of twenty seconds may be over
            await publishing
        worker = await own.another()
        if publishing.exception() is not None:
            await worker.publish([own.batch(n) for n in range(8, 12)])
        await own.broker.release(own.consumer)
        await drain(worker, own, 12, commits)
    assert commits == Counter(range(12))
    assert await own.counts() == {"nightly": 0, "backfill": 0}
    assert await own.letters() == []


async def test_what_a_new_queue_has_confirmed_outlives_a_kill_at_once(settles: None, own_node: PrivateNode) -> None:
    """RabbitMQ 3.10 notes a new queue on disk late: nothing may be entrusted to it before."""
    for _ in range(2):
        async with open_bench(own_node.url, patience_s=60.0) as bench:
            await bench.broker.publish([bench.batch(1), bench.batch(2, "backfill")])
            own_node.kill()
            await asyncio.get_running_loop().run_in_executor(LASTING, own_node.start)
            async with asyncio.timeout(60):
                assert numbers(await bench.receive_all(2)) == [1, 2]
                await bench.broker.publish([bench.batch(3)])
                assert numbers(await bench.receive_all(1)) == [3]


@pytest.mark.parametrize("resource", ["memory", "disk"])
async def test_a_broker_that_is_full_is_said_and_waited_for(own: Bench, own_node: PrivateNode, resource: str) -> None:
    """It reads nothing from who publishes: the first one learns it on the way, the next before it sends."""
    await own.broker.publish([own.batch(1)])
    (held,) = await own.receive_all(1)
    alarm = f"{{resource_limit,{resource},node()}}"
    own.patience_s = 3.0
    producer = await own.another()
    await asyncio.to_thread(own_node.control, "eval", f"rabbit_alarm:set_alarm({{{alarm},[]}}).")
    try:
        for _ in range(2):
            start = time.perf_counter()
            with pytest.raises(BrokerError, match="low on memory or disk"):
                await producer.publish([own.batch(2)])
            assert time.perf_counter() - start < 30
        # What is in hand is not lost to the worker; who only consumes is not blocked at all.
        await own.broker.ack(held)
    finally:
        await asyncio.to_thread(own_node.control, "eval", f"rabbit_alarm:clear_alarm({alarm}).")
    await producer.publish([own.batch(3)])
    got: set[int] = set()
    while deliveries := await own.receive(wait_s=2.0):
        for delivery in deliveries:
            await own.broker.ack(delivery)
        got |= set(numbers(deliveries))
    assert got in ({3}, {2, 3})  # what was on the way when the alarm began may arrive after it


async def test_a_retry_that_cannot_be_written_gives_the_batch_back(
    own: Bench, own_node: PrivateNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is told so forgets the batch; it must not stay in nobody's hands."""
    monkeypatch.setattr("astrid.broker.rabbitmq.broker.CALL_S", 1.0)
    await own.broker.publish([own.batch(1)])
    (held,) = await own.receive_all(1)
    alarm = "{resource_limit,memory,node()}"
    await asyncio.to_thread(own_node.control, "eval", f"rabbit_alarm:set_alarm({{{alarm},[]}}).")
    try:
        with pytest.raises(BrokerError):
            await own.broker.retry(held, 0.1)
    finally:
        await asyncio.to_thread(own_node.control, "eval", f"rabbit_alarm:clear_alarm({alarm}).")
    again = await own.receive_all(1)
    assert numbers(again) == [1]


async def test_a_wait_that_ends_without_its_work_queue_is_kept_until_there_is_one(
    own: Bench, own_node: PrivateNode
) -> None:
    """Dead-lettered at least once: between the two queues nothing is lost, whatever befalls the second one."""
    # RabbitMQ tries again after three minutes; the wait queue must be new to see another time.
    setting = "rabbit, dead_letter_worker_publisher_confirm_timeout"
    await asyncio.to_thread(own_node.control, "eval", f"application:set_env({setting}, 1000).")
    with contextlib.suppress(AssertionError):
        await asyncio.to_thread(own_node.control, "delete_queue", "astrid.wait.1000")
    await own.broker.publish([own.batch(1)])
    (delivery,) = await own.receive_all(1)
    await own.broker.retry(delivery, 0.8)
    await own.broker.release(own.consumer)
    await own.delete_queues()
    await asyncio.sleep(2.5)  # its time is over, and there is no queue that would tell us
    own.life += 1
    (again,) = await own.receive(wait_s=30.0)
    assert (numbers([again]), again.batch.attempt) == ([1], 1)


async def test_tls_with_the_authority_named_in_the_address(own: Bench, own_node: PrivateNode) -> None:
    folder = own_node.certificates
    if folder is None:
        pytest.skip("no openssl to make certificates with")
    await own.broker.publish([own.batch(1)])
    async with open_rabbitmq(own_node.tls_url(f"cafile={folder / 'ca.crt'}")) as broker:
        assert numbers(await broker.receive(own.source, "w#1", 1, 10.0)) == [1]
        await broker.publish([own.batch(2)])


async def test_tls_that_cannot_be_trusted_is_said_with_the_remedy(own_node: PrivateNode) -> None:
    folder = own_node.certificates
    if folder is None:
        pytest.skip("no openssl to make certificates with")
    wrong = {
        own_node.tls_url(): "not trusted",
        own_node.tls_url(f"cafile={folder / 'stranger.crt'}"): "not trusted",
        own_node.tls_url(f"cafile={folder / 'ca.crt'}", host="127.0.0.1"): "not trusted",
        own_node.tls_url(f"cafile={folder / 'server.key'}"): "cannot open",
        own_node.tls_url().replace("amqps", "amqp"): "cannot open",
    }
    for url, expected in wrong.items():
        secret = url.replace("guest:guest", "guest:s3cret")
        with pytest.raises(BrokerError) as caught:
            async with open_rabbitmq(secret):
                pass
        assert expected in str(caught.value), url
        assert "ASTRID_BROKER_URL" in str(caught.value)
        assert "s3cret" not in str(caught.value)
        if expected == "not trusted":
            assert "cafile=" in str(caught.value)


async def test_a_user_without_rights_is_told_which(own: Bench, own_node: PrivateNode) -> None:
    for arguments in (["add_user", "reader", "s3cret"], ["set_permissions", "reader", "^$", "^$", ".*"]):
        await asyncio.to_thread(own_node.control, *arguments)
    try:
        async with open_rabbitmq(own_node.url.replace("guest:guest", "reader:s3cret"), patience_s=5.0) as broker:
            for attempt in (broker.publish([own.batch(1)]), broker.receive(own.source, "w#1", 1, 10.0)):
                with pytest.raises(BrokerError, match="rights to configure, write and read") as caught:
                    await attempt
                assert "s3cret" not in str(caught.value)
    finally:
        await asyncio.to_thread(own_node.control, "delete_user", "reader")


async def test_an_operators_close_of_the_connection_is_survived(own: Bench, own_node: PrivateNode) -> None:
    """CONNECTION_FORCED, as a hosted plan does it when a limit is passed."""
    await own.broker.publish([own.batch(1)])
    (held,) = await own.receive_all(1)
    await asyncio.to_thread(own_node.control, "close_all_connections", "for a test")
    await asyncio.sleep(0.2)
    with pytest.raises(BrokerError):
        await own.broker.ack(held)
    assert numbers(await own.receive_all(1)) == [1]
    await own.broker.publish([own.batch(2)])
    assert numbers(await own.receive_all(1)) == [2]
