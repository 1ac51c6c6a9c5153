"""A broker in the memory of one process; behind one actor it serves a whole Ray cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from astrid.broker import LANES, Delivery, require_lanes
from astrid.errors import BrokerError
from astrid.models import Batch


@dataclass(frozen=True, slots=True)
class _Held:
    """A batch in a consumer's hands, and how often it had come back before."""

    consumer: str
    batch: Batch
    returns: int


class MemoryBroker:
    """Queues per (source, lane), the nightly lane first; a consumer's new life gets its old batches back."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], deque[tuple[Batch, int]]] = defaultdict(deque)
        self._unacked: dict[int, _Held] = {}
        self._tags = itertools.count(1)
        self._lives: dict[str, str] = {}
        self._ended: set[str] = set()
        self._arrived: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._delayed: set[asyncio.TimerHandle] = set()
        self.dead_letters: list[tuple[Batch, str]] = []

    async def publish(self, batches: Sequence[Batch]) -> None:
        require_lanes(batches)
        for batch in batches:
            self._put(batch)

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        name = consumer.partition("#")[0]
        before = self._lives.get(name, consumer)
        if consumer not in self._ended:
            self._lives[name] = consumer
            if before != consumer:
                await self.release(before)
        deadline_s = asyncio.get_running_loop().time() + wait_s
        # A killed worker's call may still wait here when its next life has begun: nobody is left to read its answer.
        while consumer not in self._ended and not self._waiting(source):
            self._arrived[source].clear()
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._arrived[source].wait()
            except TimeoutError:
                return []
        if consumer in self._ended:
            return []
        deliveries: list[Delivery] = []
        for lane in LANES:
            queue = self._queues[source, lane]
            while queue and len(deliveries) < limit:
                batch, returns = queue.popleft()
                delivery = Delivery(next(self._tags), batch, returns)
                self._unacked[delivery.tag] = _Held(consumer, batch, returns)
                deliveries.append(delivery)
        return deliveries

    async def ack(self, delivery: Delivery) -> None:
        self._end(delivery)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        self._end(delivery)
        again = dataclasses.replace(delivery.batch, attempt=delivery.batch.attempt + 1)
        loop = asyncio.get_running_loop()

        def put() -> None:
            self._delayed.discard(handle)
            self._put(again)

        handle = loop.call_later(delay_s, put)
        self._delayed.add(handle)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        self._end(delivery)
        self.dead_letters.append((delivery.batch, reason))

    async def release(self, consumer: str, *, held: bool = True) -> None:
        self._ended.add(consumer)
        lost = [tag for tag, found in self._unacked.items() if held and found.consumer == consumer]
        for tag in sorted(lost, reverse=True):
            found = self._unacked.pop(tag)
            self._queues[found.batch.source, found.batch.lane].appendleft((found.batch, found.returns + 1))
        for arrived in self._arrived.values():
            arrived.set()  # also for the calls of this consumer that wait: they end

    async def ready(self, sources: Sequence[str]) -> dict[str, int]:
        return {source: sum(len(self._queues[source, lane]) for lane in LANES) for source in sources}

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

    def _end(self, delivery: Delivery) -> None:
        if self._unacked.pop(delivery.tag, None) is None:
            raise BrokerError(f"batch {delivery.batch.batch_id} is no longer this worker's: it is delivered again")

    def _put(self, batch: Batch) -> None:
        self._queues[batch.source, batch.lane].append((batch, 0))
        self._arrived[batch.source].set()

    def _waiting(self, source: str) -> bool:
        return any(self._queues[source, lane] for lane in LANES)
