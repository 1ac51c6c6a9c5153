"""How fast the RabbitMQ broker publishes and drains, held against a bare aio-pika loop on the same queue.

``python -m benchmarks.broker [--batches N] [--samples N]`` prints the results as JSON. The peer's messages are the
same bytes, encoded beforehand; it confirms, prefetches and acknowledges in the same way, and does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Sequence
from datetime import date
from typing import Any, Final
from uuid import uuid4

import aio_pika
import orjson
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from astrid.broker.rabbitmq import RabbitBroker, open_rabbitmq
from astrid.broker.rabbitmq.broker import IN_FLIGHT_MAX
from astrid.broker.rabbitmq.topology import work_queue
from astrid.models import Batch, Entity
from astrid.wire import encode_batch
from tests.rabbitmq import open_rabbitmq as open_server

Result = dict[str, Any]

TARGET: Final = 0.8
PREFETCH: Final = 16
"""Of the order of what a worker of a source runs at once."""

ENTITIES: Final = 20
"""Half of the batches of a night of the shipped watchlist ask about so many or fewer."""


def measure_broker(*, batches: int = 3_000, samples: int = 7) -> list[Result]:
    """Publish and drain ``batches`` batches in turns with the peer; ``ours`` and ``peer`` are medians in messages/s."""
    with open_server() as url:
        return asyncio.run(_measure(url, batches, samples))


async def _measure(url: str, count: int, samples: int) -> list[Result]:
    source = f"bench-{uuid4().hex[:8]}"
    queue = work_queue(source, "nightly").name
    batches = [_batch(source, n) for n in range(count)]
    bodies = [encode_batch(batch) for batch in batches]
    times: dict[str, list[tuple[float, float]]] = {"publish": [], "consume": []}
    async with open_rabbitmq(url, prefetch={source: PREFETCH}) as broker, await aio_pika.connect(url) as connection:
        peer = await connection.channel(publisher_confirms=True)
        # Both begin with what they need open, and the queue is there.
        await broker.publish(batches[:1])
        await broker.purge([source])
        await broker.receive(source, "bench#0", 1, 0.1)
        for sample in range(samples):
            found: dict[str, tuple[float, float]] = {}
            for side in ("ours", "peer") if sample % 2 else ("peer", "ours"):
                if side == "ours":
                    turn = (broker.publish(batches), _drain(broker, source, f"bench#{sample + 1}", count))
                else:
                    turn = (_publish_bare(peer, queue, bodies), _drain_bare(peer, queue, count))
                found[side] = await _time(turn[0]), await _time(turn[1])
            for at, name in enumerate(times):
                times[name].append((found["ours"][at], found["peer"][at]))
        for lane in ("nightly", "backfill"):
            await peer.queue_delete(work_queue(source, lane).name)
    size = len(bodies[0])
    return [_result(side, pairs, count, size) for side, pairs in times.items()]


async def _time(work: Awaitable[None]) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def _drain(broker: RabbitBroker, source: str, life: str, count: int) -> None:
    """Receive and acknowledge each batch, then be gone: what the peer publishes is not to be pushed here."""
    left = count
    while left:
        for delivery in await broker.receive(source, life, PREFETCH, 5.0):
            await broker.ack(delivery)
            left -= 1
    await broker.release(life)


async def _publish_bare(channel: AbstractChannel, queue: str, bodies: Sequence[bytes]) -> None:
    for start in range(0, len(bodies), IN_FLIGHT_MAX):
        await asyncio.gather(
            *(
                channel.default_exchange.publish(
                    aio_pika.Message(
                        body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
                    ),
                    queue,
                )
                for body in bodies[start : start + IN_FLIGHT_MAX]
            )
        )


async def _drain_bare(channel: AbstractChannel, queue: str, count: int) -> None:
    left, done = count, asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        nonlocal left
        await message.ack()
        left -= 1
        if not left:
            done.set()

    await channel.set_qos(prefetch_count=PREFETCH)
    source = await channel.get_queue(queue)
    tag = await source.consume(take)
    await done.wait()
    await source.cancel(tag)


def _batch(source: str, number: int) -> Batch:
    entities = tuple(
        Entity(e, f"project-{e}", f"R_kgDO{e:08x}", (f"owner-{e}/project-{e}",))
        for e in range(number, number + ENTITIES)
    )
    day = date(2026, 3, 31)
    return Batch(source, "counts", day, day, day, entities, run_id=1)


def _result(side: str, pairs: Sequence[tuple[float, float]], count: int, size: int) -> Result:
    ours, peer = (count / statistics.median(pair[at] for pair in pairs) for at in (0, 1))
    return {
        "name": f"broker.{side}",
        "ours": round(ours),
        "peer": round(peer),
        "unit": "messages/s",
        "ratio": round(ours / peer, 3),
        "target": TARGET,
        "met": ours >= TARGET * peer,
        "note": f"{count} batches of {size} bytes; peer: a bare aio-pika loop with confirms, prefetch {PREFETCH}, on "
        "the same quorum queue, its messages encoded beforehand; medians of runs in turns",
        "samples": [[round(count / a), round(count / b)] for a, b in pairs],
    }


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 0 where every target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=3_000)
    parser.add_argument("--samples", type=int, default=7)
    chosen = parser.parse_args(arguments)
    results = measure_broker(batches=chosen.batches, samples=chosen.samples)
    print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode())
    return 0 if all(result["met"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
