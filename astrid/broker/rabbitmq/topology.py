"""The queues: what they are called, how they are declared, and what is said where they exist in another form.

A work queue per (source, lane); a wait queue per delay that all sources share; one for dead letters. All are quorum
queues, with none but arguments that RabbitMQ 3.10 and 4.x both take. A retry waits in a queue whose TTL is its delay
and which dead-letters into the work queue: a few fixed delays, because in one queue a long wait would block the short
ones behind it. What enters a wait queue keeps its routing key, the name of the work queue, because it comes through a
fanout exchange of the wait queue's own.

Both hops dead-letter at least once, so that no broker's crash loses a message between two queues; that demands that a
full queue refuses what is published (which a limit set by a policy would do otherwise by dropping the oldest).
Facts: rabbitmq.com, "Quorum Queues", "Time-To-Live", "Dead Letter Exchanges".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import aiormq

from astrid.errors import BrokerError

DELAYS_MS: Final = (100, 1_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000, 2_400_000, 3_600_000)
"""No wait above ten seconds becomes more than three times as long, none above 30 more than two and a half times."""

DELIVERY_LIMIT: Final = 50
"""So often a batch may come back without an end before RabbitMQ itself sets it aside: a backstop, because the workers'
own rules end a batch long before."""

NO_LIMIT: Final = 2**31 - 1
"""Reading dead letters returns them, which counts: 4.x would drop them after 20 times if nothing were said."""

_AT_LEAST_ONCE: Final[dict[str, str | int]] = {
    "x-dead-letter-exchange": "",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


class Refused(BrokerError):
    """RabbitMQ refuses for a reason that no waiting mends."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and the arguments that it is declared with; ``exchange`` is its fanout exchange, empty: none."""

    name: str
    arguments: tuple[tuple[str, str | int], ...]
    exchange: str = ""


DEAD: Final = Queue("astrid.dead", (("x-queue-type", "quorum"), ("x-delivery-limit", NO_LIMIT)))


def work_queue(source: str, lane: str) -> Queue:
    """Return the queue of a source's lane."""
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        **_AT_LEAST_ONCE,
        "x-dead-letter-routing-key": DEAD.name,
    }
    return Queue(f"astrid.{source}.{lane}", tuple(arguments.items()))


def wait_queue(delay_s: float) -> Queue:
    """Return the queue whose delay is the shortest that is not below ``delay_s``, or the longest of all."""
    delay_ms = next((d for d in DELAYS_MS if d >= delay_s * 1000), DELAYS_MS[-1])
    arguments = {"x-queue-type": "quorum", "x-message-ttl": delay_ms, **_AT_LEAST_ONCE}
    return Queue(f"astrid.wait.{delay_ms}", tuple(arguments.items()), exchange=f"astrid.wait.{delay_ms}")


def read_work_queue(name: str) -> str:
    """Return the source whose work queue has this name; empty if it is no work queue."""
    prefix, _, rest = name.partition(".")
    return rest.rpartition(".")[0] if prefix == "astrid" else ""


async def declare(channel: aiormq.Channel, queue: Queue) -> None:
    """Make a queue, and its exchange, unless they are there already.

    Raises
    ------
    Refused
        If it is there in another form, or the user may not declare it; the channel is closed then.
    """
    try:
        await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        if queue.exchange:
            await channel.exchange_declare(queue.exchange, exchange_type="fanout", durable=True)
            await channel.queue_bind(queue.name, queue.exchange)
    except aiormq.ChannelPreconditionFailed as exc:
        raise Refused(
            f"the queue {queue.name} is there in another form ({exc}): another version of Astrid, or somebody else, "
            f"made it. Let that version's workers drain it, delete it (rabbitmqctl delete_queue {queue.name}, or on "
            "the management page) and start again"
        ) from exc
    except aiormq.ChannelAccessRefused as exc:
        raise Refused(
            f"RabbitMQ does not let this user declare {queue.name} ({exc}): give the user of ASTRID_BROKER_URL the "
            "rights to configure, write and read what is called astrid.*, and to write to amq.default"
        ) from exc
