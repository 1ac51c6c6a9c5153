"""The queue between planner and workers: one protocol, two brokers.

Delivery is at least once. A batch is gone from the broker only when it is acknowledged, and it is
acknowledged only after its observations are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from astrid.models import Batch


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch in a worker's hands; ``tag`` is the broker's name for it."""

    tag: Any
    batch: Batch


class Broker(Protocol):
    """What planner and workers need of a queue. Every method may raise ``BrokerError``."""

    async def publish(self, batches: Sequence[Batch]) -> None:
        """Queue the batches; return when the broker has confirmed all of them."""

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        """Return up to ``limit`` batches of ``source``, waiting at most ``wait_s`` for the first.

        ``consumer`` names the worker's life: batches that an earlier life of it left come again.
        """

    async def ack(self, delivery: Delivery) -> None:
        """Drop the batch for good: its work is committed."""

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """Deliver the batch again, one attempt later, after ``delay_s`` real seconds."""

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Set the batch aside with its reason."""

    async def purge(self, sources: Sequence[str]) -> int:
        """Drop what waits for these sources and return how much; used when a run is taken up again."""

    async def close(self) -> None:
        """Return what is unacknowledged and close the connection."""
