"""The queue between planner and workers: one protocol, two brokers.

Delivery is at least once. A batch is gone from the broker only when it is acknowledged, and it is
acknowledged only after its observations are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from astrid.errors import BrokerError
from astrid.models import Batch

LANES: Final = ("nightly", "backfill")
"""In the order in which they are drained: no backfill batch starts while a nightly one of its source waits."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch in a worker's hands.

    ``tag`` is the broker's name for it, of no other delivery. ``returns`` counts how often it came back to the queue
    without an end since it was last published: its worker died, was released, or lost its connection.
    """

    tag: int
    batch: Batch
    returns: int = 0


class Broker(Protocol):
    """What planner and workers need of a queue.

    Every method may raise ``BrokerError``. ``ack``, ``retry`` and ``dead_letter`` raise it for a delivery that is no
    longer its consumer's (its connection dropped, another life took it over): it comes again to whoever is there.
    """

    async def publish(self, batches: Sequence[Batch]) -> None:
        """Queue the batches; return when the broker has confirmed all of them.

        After a ``BrokerError`` some of them may be queued: publishing all of them again is safe.
        """

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        """Return up to ``limit`` batches of ``source``, waiting at most ``wait_s`` for the first.

        The nightly lane goes first. ``consumer`` is ``name#life``, a worker and its life: what an earlier life of the
        name holds comes again, and the calls of an earlier life return nothing.
        """

    async def ack(self, delivery: Delivery) -> None:
        """Drop the batch for good: its work is committed."""

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """Deliver ``delivery.batch`` again, one attempt later, after ``delay_s`` real seconds."""

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Set the batch aside with its reason."""

    async def release(self, consumer: str, *, held: bool = True) -> None:
        """Deliver nothing more to this life of a worker, and return what it was sent and has not received.

        With ``held`` also what it received and has not ended; without, it may still end that, and is released later.
        """

    async def ready(self, sources: Sequence[str]) -> dict[str, int]:
        """Return how many batches of each source wait to be received, in both lanes."""

    async def purge(self, sources: Sequence[str]) -> int:
        """Drop what waits in the queues of these sources and return how much; what is held or waits for later stays."""

    async def close(self) -> None:
        """Return what is unacknowledged and close the connection."""


def require_lanes(batches: Sequence[Batch]) -> None:
    """Refuse batches of a lane that nobody drains.

    Raises
    ------
    BrokerError
        If there is one.
    """
    for batch in batches:
        if batch.lane not in LANES:
            raise BrokerError(f"batch {batch.batch_id} is of lane {batch.lane!r}: there are only {' and '.join(LANES)}")
