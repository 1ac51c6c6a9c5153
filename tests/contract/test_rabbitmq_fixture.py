"""The broker that the tests are given is a real one: it confirms, delivers, remembers and forgets."""

from __future__ import annotations

import uuid

import aio_pika
from aio_pika.abc import DeliveryMode


async def test_publish_get_and_acknowledge(rabbitmq_url: str) -> None:
    name = f"astrid-test-{uuid.uuid4().hex}"
    connection = await aio_pika.connect(rabbitmq_url, timeout=10)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue(name, durable=True)
        try:
            message = aio_pika.Message(b"one batch", delivery_mode=DeliveryMode.PERSISTENT, message_id="1")
            confirmation = await channel.default_exchange.publish(message, routing_key=name, mandatory=True)
            assert type(confirmation).__name__ == "Ack"

            first = await queue.get(timeout=5)
            assert (first.body, first.message_id, first.redelivered) == (b"one batch", "1", False)
            await first.nack(requeue=True)
            again = await queue.get(timeout=5)
            assert again.redelivered
            await again.ack()
            assert await queue.get(timeout=5, fail=False) is None
        finally:
            await queue.delete(if_unused=False, if_empty=False)
