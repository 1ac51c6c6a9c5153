"""One worker over fakes: a store that keeps what it is told, a broker that checks the order, an upstream of choice."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any, cast

from astrid.broker import Delivery
from astrid.broker.memory import MemoryBroker
from astrid.errors import BrokerError, StoreError, StoreRefused
from astrid.models import Batch, DeadLetter, Done, Entity, Gap, Request, Response, Split
from astrid.pipeline.work import Bench, work
from astrid.store import Begun, CommitCounts, Store
from astrid.timeline import Timeline

DAY = date(2026, 3, 31)
NIGHT = datetime(2026, 4, 1, 5, tzinfo=UTC)
TWO = (Entity(1, "a", "R_1", ("o/a",)), Entity(2, "b", "R_2", ("o/b",)))
COUNTS = Batch("github", "counts", DAY, DAY, DAY, TWO)
SETTLED = ("done", "split")

Answer = Callable[[Request], Response]


def sound(request: Request) -> Response:
    names = {e.key: e.names[0] for e in TWO}
    asked = request.json["variables"]["ids"]
    nodes = [{"id": key, "nameWithOwner": names[key], "stargazerCount": 5, "forkCount": 1} for key in asked]
    return Response(200, {}, json.dumps({"data": {"nodes": nodes}}).encode())


def numbered(count: int) -> list[Batch]:
    return [dataclasses.replace(COUNTS, batch_id=f"b{n}") for n in range(count)]


class FakeStore:
    """Keeps what is committed and in which order; ``failures`` calls are refused first, of those named."""

    def __init__(self, planned: list[Batch], failures: int = 0, failing: tuple[str, ...] = ("commit_batch",)) -> None:
        self.states = {b.batch_id: "planned" for b in planned}
        self.ended: list[tuple[str, Any, tuple[Gap, ...]]] = []
        self.starts: Counter[str] = Counter()
        self.expected: list[tuple[str, float]] = []
        self.published: list[str] = []
        self.failures = failures
        self.failing = failing
        self.refused: dict[str, tuple[type, ...]] = {}
        self.is_deaf = False

    @property
    def open(self) -> set[str]:
        return {b for b, state in self.states.items() if state == "planned"}

    async def _meet(self, call: str) -> None:
        await asyncio.sleep(0)
        if self.is_deaf:
            raise StoreError("a killed worker says nothing")
        if call in self.failing and self.failures:
            self.failures -= 1
            raise StoreError("the database is away")

    async def begin_batch(self, batch: Batch, hold_s: float, now: datetime, *, suspect: bool = False) -> Begun:
        await self._meet("begin_batch")
        self.starts[batch.batch_id] += suspect
        return Begun(self.states.setdefault(batch.batch_id, "planned"), self.starts[batch.batch_id])

    async def expect_batch(self, batch: Batch, delay_s: float) -> None:
        await self._meet("expect_batch")
        self.starts.pop(batch.batch_id, None)
        self.expected.append((batch.batch_id, delay_s))

    async def mark_published(self, run_id: int, batch_ids: list[str]) -> None:
        await self._meet("mark_published")
        self.published += batch_ids

    async def commit_batch(self, batch: Batch, outcome: Any, now: datetime, gaps: tuple[Gap, ...] = ()) -> CommitCounts:
        await self._meet("commit_batch")
        if isinstance(outcome, self.refused.get(batch.batch_id, ())) and (gaps or not isinstance(outcome, DeadLetter)):
            raise StoreRefused("the database refuses these values")
        state = self.states.get(batch.batch_id, "planned")
        if state in SETTLED or (state == "dead" and isinstance(outcome, DeadLetter)):
            return CommitCounts(already=True, state=state)
        self.states[batch.batch_id] = {Done: "done", Split: "split", DeadLetter: "dead"}[type(outcome)]
        self.states |= {p.batch_id: "planned" for p in getattr(outcome, "parts", ())}
        self.ended.append((batch.batch_id, outcome, gaps))
        return CommitCounts()


class CheckedBroker(MemoryBroker):
    """Refuses an acknowledgement that comes before the commit."""

    def __init__(self, store: FakeStore) -> None:
        super().__init__()
        self.store = store
        self.returned: list[Batch] = []
        self.came_back = asyncio.Event()
        self.acked: list[str] = []
        self.refused = 0
        self.away = 0

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        if self.away:
            self.away -= 1
            raise BrokerError("away")
        return await super().receive(source, consumer, limit, wait_s)

    async def ack(self, delivery: Delivery) -> None:
        assert self.store.states[delivery.batch.batch_id] in SETTLED, "acknowledged before the commit"
        if self.refused:
            self.refused -= 1
            raise BrokerError("away")
        await super().ack(delivery)
        self.acked.append(delivery.batch.batch_id)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        await super().dead_letter(delivery, reason)
        assert self.store.states.get(delivery.batch.batch_id) == "dead" or self.store.refused, "set aside uncommitted"

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        self.returned.append(delivery.batch)
        self.came_back.set()
        await super().retry(delivery, delay_s)


class Place:
    """One worker of GitHub over fakes, whose waits of minutes pass in milliseconds; its own time stands still."""

    def __init__(self, batches: list[Batch], answer: Answer = sound, store: FakeStore | None = None) -> None:
        self.store = store or FakeStore(batches)
        self.broker = CheckedBroker(self.store)
        self.batches = batches
        self.requests = 0
        self.answer = answer
        self.bench = self.life(1)

    def life(self, number: int, **options: Any) -> Bench:
        timeline = Timeline(NIGHT, 0.0, 100_000.0)
        store = cast(Store, self.store)
        return Bench(f"w#{number}", self.broker, store, lambda _: self.fetch, timeline, lambda: 0.0, **options)

    async def fetch(self, request: Request) -> Response:
        self.requests += 1
        await asyncio.sleep(0)
        return self.answer(request)

    async def is_over(self) -> bool:
        return not self.store.open

    async def drain(self, is_over: Callable[[], Awaitable[bool]] | None = None) -> None:
        await self.broker.publish(self.batches)
        await self.work(is_over)
        await self.broker.close()

    async def work(self, is_over: Callable[[], Awaitable[bool]] | None = None) -> None:
        async with asyncio.timeout(20):
            await work("github", self.bench, is_over or self.is_over)

    def outcomes(self) -> list[type]:
        return [type(outcome) for _, outcome, _ in self.store.ended]

    async def redeliver(self, batch: Batch, times: int) -> None:
        """Queue a batch as one that came back so often."""
        await self.broker.publish([batch])
        for n in range(times):
            consumer = f"killed#{n}"
            assert await self.broker.receive("github", consumer, 1, 0.0)
            await self.broker.release(consumer)
            self.broker._lives.clear()
