"""RabbitMQ: messages that are no batch, or none for their queue, are set aside with a reason; the worker goes on."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from astrid.broker.rabbitmq.reception import MESSAGE_BYTES_MAX, count_returns
from astrid.errors import BrokerError
from astrid.models import Entity
from astrid.wire import encode_batch
from tests.broker_bench import PREFETCH, Bench, numbers


def bad_body(rabbit: Bench, kind: str, lane: str) -> bytes:
    sound = encode_batch(rabbit.batch(1, lane))
    stranger = dataclasses.replace(rabbit.batch(1, lane), source=f"{rabbit.source}-other")
    return {
        "garbage": b"\xff\x00 " + rabbit.source.encode(),
        "empty": b"",
        "no object": b"[]",
        "version": sound.replace(b'"version":1', b'"version":99'),
        "no version": sound.replace(b'"version":1', b'"v":1'),
        "field": sound.replace(b'"entities"', b'"who"'),
        "deep": b"[" * 100_000,
        "too large": sound + b" " * MESSAGE_BYTES_MAX,
        "another source": encode_batch(stranger),
        "another lane": encode_batch(rabbit.batch(1, "backfill" if lane == "nightly" else "nightly")),
    }[kind]


REASONS = {
    "garbage": "JSONDecodeError",
    "empty": "JSONDecodeError",
    "no object": "TypeError",
    "version": "version '99'",
    "no version": "version",
    "field": "entities",
    "deep": "JSONDecodeError",
    "too large": f"at most {MESSAGE_BYTES_MAX}",
    "another source": "in the queue of",
    "another lane": "in the queue of",
}


@pytest.mark.parametrize("lane", ["nightly", "backfill"])
@pytest.mark.parametrize("kind", REASONS)
async def test_what_is_no_batch_is_set_aside(rabbit: Bench, kind: str, lane: str) -> None:
    """Pushed or asked for, it stops no worker and is kept as it came."""
    await rabbit.broker.ready([rabbit.source])  # makes the queues
    body = bad_body(rabbit, kind, lane)
    await rabbit.send(body, lane)
    await rabbit.broker.publish([rabbit.batch(2, lane)])
    (sound,) = await rabbit.receive_all(1)
    assert numbers([sound]) == [2]
    await rabbit.broker.ack(sound)
    assert await rabbit.receive(wait_s=0.7) == []
    ((kept, headers),) = await rabbit.letters()
    assert kept == body
    assert REASONS[kind] in headers["x-astrid-reason"]
    assert headers["x-astrid-source"] == rabbit.source
    assert headers["x-astrid-queue"] == f"astrid.{rabbit.source}.{lane}"
    assert await rabbit.counts() == {"nightly": 0, "backfill": 0}


async def test_more_garbage_than_a_worker_can_hold_does_not_stop_it(rabbit: Bench) -> None:
    await rabbit.broker.ready([rabbit.source])  # makes the queues
    for n in range(3 * PREFETCH):
        await rabbit.send(f"garbage {n} {rabbit.source}".encode())
    await rabbit.broker.publish([rabbit.batch(2)])
    assert numbers(await rabbit.receive_all(1)) == [2]
    assert len(await rabbit.letters()) == 3 * PREFETCH


async def test_a_dead_letter_tells_whence_it_came(rabbit: Bench) -> None:
    batch = dataclasses.replace(rabbit.batch(1), attempt=4)
    await rabbit.broker.publish([batch])
    (delivery,) = await rabbit.receive_all(1)
    await rabbit.broker.dead_letter(delivery, "x" * 5_000)
    ((_, headers),) = await rabbit.letters()
    at = datetime.fromisoformat(headers.pop("x-astrid-at"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert at.utcoffset() is not None
    reason = headers.pop("x-astrid-reason")
    assert set(reason) == {"x"}
    assert len(reason) == 1_000
    headers.pop("x-delivery-count")
    assert headers == {
        "x-astrid-source": rabbit.source,
        "x-astrid-queue": f"astrid.{rabbit.source}.nightly",
        "x-astrid-batch": batch.batch_id,
        "x-astrid-run": 7,
        "x-astrid-attempt": 4,
    }


async def test_a_batch_that_no_worker_would_read_is_not_published(rabbit: Bench) -> None:
    huge = Entity(1, "slug", "key", ("n" * MESSAGE_BYTES_MAX,))
    batch = dataclasses.replace(rabbit.batch(1), entities=(huge,))
    with pytest.raises(BrokerError, match=batch.batch_id):
        await rabbit.broker.publish([rabbit.batch(2), batch])
    assert await rabbit.broker.ready([rabbit.source]) == {rabbit.source: 0}


async def test_headers_of_strangers_do_not_confuse_the_count_of_returns(rabbit: Bench) -> None:
    await rabbit.broker.ready([rabbit.source])  # makes the queues
    await rabbit.send(encode_batch(rabbit.batch(1)), headers={"x-acquired-count": "many", "x-astrid-reason": "none"})
    (delivery,) = await rabbit.receive_all(1)
    assert delivery.returns == 0


@pytest.mark.parametrize(
    ("headers", "returns"),
    [
        (None, 0),
        ({}, 0),
        ({"x-delivery-count": 2}, 2),
        # 4.3 counts what ended as a failure apart from how often a consumer was handed the message.
        ({"x-delivery-count": 1, "x-acquired-count": 3}, 3),
        ({"x-acquired-count": 3}, 3),
        ({"x-delivery-count": -1}, 0),
        ({"x-delivery-count": b"7"}, 0),
    ],
)
def test_returns_are_read_from_either_count(headers: dict[str, object] | None, returns: int) -> None:
    assert count_returns(headers) == returns
