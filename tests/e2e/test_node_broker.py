"""On Ray: one connection to RabbitMQ per node, in an actor; killed, it comes back, and what it held comes again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import ray
from pydantic import SecretStr

from astrid.actors import ActorName, BrokerActor, RemoteBroker, _node_brokers, open_ray, start_node_broker
from astrid.errors import AstridError, BrokerError
from astrid.settings import Settings
from tests.broker_bench import Bench, new_source, numbers

SPACE = "node-broker"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start a private Ray for this module."""
    with asyncio.Runner() as runner:
        opened = open_ray("local", SPACE)
        runner.run(opened.__aenter__())
        yield
        _node_brokers.clear()
        runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
async def remote(cluster: None, rabbitmq_url: str) -> AsyncIterator[Bench]:
    """Give a bench whose broker is the node's actor."""
    settings = Settings(broker_url=SecretStr(rabbitmq_url))
    place = ActorName(f"BrokerActor-{new_source()}", SPACE)
    bench = Bench(RemoteBroker(place, settings), new_source(), rabbitmq_url)
    yield bench
    await bench.broker.release(bench.consumer)
    await bench.delete_queues()


def actor_of(bench: Bench) -> Any:
    broker = bench.broker
    assert isinstance(broker, RemoteBroker)
    assert broker.settings is not None
    return start_node_broker(broker.place, broker.settings, ray.get_runtime_context().get_node_id())


@ray.remote(num_cpus=0, max_restarts=0)
class Neighbour:
    """Another process of the node that uses its broker, as a crawl actor does."""

    async def receive(self, broker: RemoteBroker, source: str, consumer: str) -> list[int]:
        return numbers(await broker.receive(source, consumer, 1, 10.0))

    async def broker_pid(self, broker: RemoteBroker) -> int:
        return int(await broker._actor().pid.remote())

    async def pid(self) -> int:
        return os.getpid()


async def test_the_protocol_goes_through_the_actor(remote: Bench) -> None:
    await remote.broker.publish([remote.batch(n) for n in range(4)])
    assert await remote.broker.ready([remote.source]) == {remote.source: 4}
    ended, tried, dead, held = await remote.receive_all(4)
    await remote.broker.ack(ended)
    await remote.broker.retry(tried, 0.1)
    await remote.broker.dead_letter(dead, "for a test")
    (again,) = await remote.receive_all(1)
    assert (numbers([again]), again.batch.attempt) == ([1], 1)
    await remote.broker.release(remote.consumer, held=False)
    assert await remote.receive(wait_s=0.1) == []
    await remote.broker.ack(held)
    with pytest.raises(BrokerError, match="no longer"):
        await remote.broker.ack(held)
    await remote.broker.release(remote.consumer)
    remote.life += 1
    assert [(numbers([d]), d.returns) for d in await remote.receive_all(1)] == [([1], 1)]
    assert await remote.broker.purge([remote.source]) == 0
    assert len(await remote.letters()) == 1


async def test_all_processes_of_a_node_share_one_broker(remote: Bench) -> None:
    neighbour: Any = Neighbour.remote()
    assert await neighbour.broker_pid.remote(remote.broker) == await actor_of(remote).pid.remote()
    await remote.broker.publish([remote.batch(1)])
    assert await neighbour.receive.remote(remote.broker, remote.source, "neighbour#1") == [1]
    # It dies with the batch in hand; its next life is given it, over the same connection.
    ray.kill(neighbour)
    reborn: Any = Neighbour.remote()
    assert await reborn.receive.remote(remote.broker, remote.source, "neighbour#2") == [1]
    await remote.broker.release("neighbour#2")


async def test_a_killed_broker_actor_comes_back_and_what_it_held_comes_again(remote: Bench) -> None:
    await remote.broker.publish([remote.batch(n) for n in range(2)])
    held = await remote.receive_all(2)
    waiting = asyncio.create_task(remote.broker.receive(remote.source + "-none", remote.consumer, 1, 30.0))
    pid = await actor_of(remote).pid.remote()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BrokerError, match="delivered again"):
        await remote.broker.ack(held[0])
    again = await remote.receive_all(2)
    assert sorted(numbers(again)) == [0, 1]
    assert not {d.tag for d in again} & {d.tag for d in held}
    assert all(d.returns >= 1 for d in again)
    assert await actor_of(remote).pid.remote() != pid
    for delivery in again:
        await remote.broker.ack(delivery)
    waiting.cancel()


async def test_a_broker_whose_starter_died_is_started_by_who_needs_it(remote: Bench) -> None:
    """A node that came later: a crawl actor there started the broker, and takes it along when it is killed."""
    starter: Any = Neighbour.remote()
    await remote.broker.publish([remote.batch(1)])
    _node_brokers.clear()  # the one of this process ends with it
    await asyncio.sleep(1.0)
    assert await starter.receive.remote(remote.broker, remote.source, "starter#1") == [1]
    os.kill(await starter.pid.remote(), signal.SIGKILL)
    async with asyncio.timeout(60):
        assert numbers(await remote.receive(wait_s=30.0)) == [1]


async def test_a_dead_memory_broker_is_no_outage_to_wait_for(cluster: None) -> None:
    """What stood in its memory is gone, so whoever asks is told for good."""
    name = f"Memory-{new_source()}"
    actor: Any = BrokerActor.options(name=name).remote()
    broker = RemoteBroker(ActorName(name, SPACE))
    bench = Bench(broker, new_source())
    await broker.publish([bench.batch(1)])
    ray.kill(actor)
    with pytest.raises(AstridError, match="gone") as caught:
        await broker.receive(bench.source, "w#1", 1, 5.0)
    assert not isinstance(caught.value, BrokerError)
