"""The queue between planner and workers: one protocol, two brokers.

Delivery is at least once. A batch is gone from the broker only when it is acknowledged, and it is
acknowledged only after its observations are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import orjson

from astrid.errors import Malformed
from astrid.models import MESSAGE_VERSION, Batch, Entity


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


def encode_batch(batch: Batch) -> bytes:
    """Return the wire form of a batch: JSON with a version."""
    return orjson.dumps(
        {
            "version": MESSAGE_VERSION,
            "batch_id": batch.batch_id,
            "source": batch.source,
            "task": batch.task,
            "day": batch.day,
            "start": batch.start,
            "end": batch.end,
            "lane": batch.lane,
            "run_id": batch.run_id,
            "attempt": batch.attempt,
            "requests": batch.requests,
            "points": batch.points,
            "entities": [[e.entity_id, e.slug, e.key, list(e.names)] for e in batch.entities],
        }
    )


def decode_batch(body: bytes) -> Batch:
    """Read the wire form of a batch.

    Raises
    ------
    Malformed
        If it is no batch, or of another version.
    """
    try:
        raw = orjson.loads(body)
        if raw["version"] != MESSAGE_VERSION:
            raise Malformed(f"message of version {raw['version']!r}, this worker reads {MESSAGE_VERSION}")
        return Batch(
            source=raw["source"],
            task=raw["task"],
            day=date.fromisoformat(raw["day"]),
            start=date.fromisoformat(raw["start"]),
            end=date.fromisoformat(raw["end"]),
            entities=tuple(Entity(i, slug, key, tuple(names)) for i, slug, key, names in raw["entities"]),
            lane=raw["lane"],
            run_id=raw["run_id"],
            attempt=raw["attempt"],
            requests=raw["requests"],
            points=raw["points"],
            batch_id=raw["batch_id"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise Malformed(f"message is not a batch: {type(exc).__name__} {exc}") from exc
