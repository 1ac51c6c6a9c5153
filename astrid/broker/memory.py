"""A broker in the memory of one process; behind one actor it serves a whole Ray cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import defaultdict, deque
from collections.abc import Sequence

from astrid.broker import Delivery
from astrid.models import Batch

LANES = ("nightly", "backfill")


class MemoryBroker:
    """Queues per (source, lane), the nightly lane first; a consumer's new life gets its old batches back."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], deque[Batch]] = defaultdict(deque)
        self._unacked: dict[int, tuple[str, Batch]] = {}
        self._tags = itertools.count(1)
        self._lives: dict[str, str] = {}
        self._arrived: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._delayed: set[asyncio.TimerHandle] = set()
        self.dead_letters: list[tuple[Batch, str]] = []

    async def publish(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._put(batch)

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        name, _, life = consumer.partition("#")
        if self._lives.setdefault(name, life) != life:
            self._recover(self._lives[name], name)
            self._lives[name] = life
        if not self._waiting(source):
            self._arrived[source].clear()
            try:
                await asyncio.wait_for(self._arrived[source].wait(), wait_s)
            except TimeoutError:
                return []
            if self._lives[name] != life:
                return []  # a killed worker's call: nobody is left to read its answer
        deliveries: list[Delivery] = []
        for lane in LANES:
            queue = self._queues[source, lane]
            while queue and len(deliveries) < limit:
                tag = next(self._tags)
                batch = queue.popleft()
                self._unacked[tag] = (consumer, batch)
                deliveries.append(Delivery(tag, batch))
        return deliveries

    async def ack(self, delivery: Delivery) -> None:
        self._unacked.pop(delivery.tag, None)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        if self._unacked.pop(delivery.tag, None) is None:
            return  # another life of this consumer has it already
        again = dataclasses.replace(delivery.batch, attempt=delivery.batch.attempt + 1)
        loop = asyncio.get_running_loop()

        def put() -> None:
            self._delayed.discard(handle)
            self._put(again)

        handle = loop.call_later(delay_s, put)
        self._delayed.add(handle)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        if self._unacked.pop(delivery.tag, None) is not None:
            self.dead_letters.append((delivery.batch, reason))

    async def purge(self, sources: Sequence[str]) -> int:
        dropped = 0
        for (source, _), queue in self._queues.items():
            if source in sources:
                dropped += len(queue)
                queue.clear()
        return dropped

    async def close(self) -> None:
        for handle in self._delayed:
            handle.cancel()
        self._delayed.clear()

    def _put(self, batch: Batch) -> None:
        self._queues[batch.source, batch.lane].append(batch)
        self._arrived[batch.source].set()

    def _waiting(self, source: str) -> bool:
        return any(self._queues[source, lane] for lane in LANES)

    def _recover(self, life: str, name: str) -> None:
        lost = [tag for tag, (consumer, _) in self._unacked.items() if consumer == f"{name}#{life}"]
        for tag in sorted(lost, reverse=True):
            _, batch = self._unacked.pop(tag)
            self._queues[batch.source, batch.lane].appendleft(batch)
            self._arrived[batch.source].set()
