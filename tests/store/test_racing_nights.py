"""Two drivers of one night at once: one crawls, the other waits and finds nothing to do; one that dies is followed.

Real database, real workers, a fake upstream in this process; each driver has a memory broker of its own, so that
nothing but the database keeps them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest

from astrid.broker.memory import MemoryBroker
from astrid.clock import epoch_s
from astrid.models import Batch, Fetch, Request, Response
from astrid.pipeline.night import Driver, run_night
from astrid.pipeline.runs import RunResult
from astrid.pipeline.score import score_and_publish
from astrid.pipeline.universe import Universe
from astrid.pipeline.work import Bench, work
from astrid.store import Store, TableDigest, open_store
from astrid.timeline import Timeline, night_start
from tests.store.test_canaries import project

DAY = date(2026, 3, 31)
PACKAGES = 40
SOURCES = ["pypistats"]


@dataclass
class Upstream:
    """A pypistats that counts who is asked for, and answers the same whenever it is asked."""

    asked: Counter[str] = field(default_factory=Counter)
    half: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(self, request: Request) -> Response:
        name = request.path.split("/")[3]
        self.asked[name] += 1
        if len(self.asked) >= PACKAGES // 2:
            self.half.set()
        await asyncio.sleep(0.005)
        number = int(name.removeprefix("p"))
        days = [DAY - timedelta(days=n) for n in range(180)]
        rows = [
            {"category": category, "date": day.isoformat(), "downloads": number * 1000 + day.toordinal() % 7}
            for day in days
            for category in ("with_mirrors", "without_mirrors")
        ]
        return Response(200, {}, json.dumps({"package": name, "type": "overall_downloads", "data": rows}).encode())


@dataclass
class House:
    """One driver with its own broker and pool, over a database and an upstream that others use too."""

    store: Store
    upstream: Upstream
    universe: Universe
    name: str
    lease_s: float = 30.0
    crawls: int = 0
    said: list[str] = field(default_factory=list)

    async def night(self) -> RunResult:
        broker = MemoryBroker()
        timeline = Timeline(night_start(DAY), epoch_s())

        async def crawl(run_id: int, sources: Sequence[str]) -> None:
            self.crawls += 1

            def fetch_for(batch: Batch) -> Fetch:
                return self.upstream.fetch

            async def is_over() -> bool:
                return not any(p.state == "planned" for p in await self.store.progress(run_id))

            bench = Bench(f"{self.name}#1", broker, self.store, fetch_for, timeline, epoch_s)
            await asyncio.gather(*(work(source, bench, is_over) for source in sources))

        async def score(run_id: int, day: date) -> int:
            return await score_and_publish(self.store, self.universe, day, run_id, driver.now)

        driver = Driver(
            *(self.store, broker, timeline, epoch_s, crawl, score, lambda _: None, "test"),
            holder=f"{self.name}#1",
            lease_s=self.lease_s,
        )
        try:
            return await run_night(driver, self.universe, DAY, SOURCES)
        finally:
            await broker.close()


@contextlib.asynccontextmanager
async def open_house(url: str, upstream: Upstream, name: str, lease_s: float = 30.0) -> Any:
    async with open_store(url) as store:
        projects = [project(n) for n in range(PACKAGES)]
        listed = [(p.slug, p.name, p.category) for p in projects]
        ids = await store.sync_watchlist(listed, night_start(DAY))
        yield House(store, upstream, Universe.build(projects, ids, {}), name, lease_s)


@pytest.fixture
async def undisturbed(embedded_url: str) -> dict[str, TableDigest]:
    """Run the night once, alone, in a database of its own."""
    upstream = Upstream()
    async with open_house(embedded_url, upstream, "alone") as house:
        await house.night()
        assert set(upstream.asked.values()) == {1}
        assert len(upstream.asked) == PACKAGES
        digest: dict[str, TableDigest] = await house.store.digest()
        assert digest["observation"].rows >= PACKAGES * 180
        assert digest["score"].rows > 0
        return digest


async def test_of_two_at_once_one_crawls_and_the_other_finds_nothing_to_do(
    url: str, undisturbed: dict[str, TableDigest]
) -> None:
    upstream = Upstream()
    async with asyncio.timeout(100), open_house(url, upstream, "a") as one, open_house(url, upstream, "b") as other:
        results = await asyncio.gather(one.night(), other.night())
        assert sorted([one.crawls, other.crawls]) == [0, 1]
        assert set(upstream.asked.values()) == {1}, "nobody was asked twice"
        assert len({r.run_id for r in results}) == 2
        assert sorted(sum(r.batches.values()) > 0 for r in results) == [False, True]
        assert len({r.ranked for r in results}) == 1
        assert await one.store.digest() == undisturbed
        assert await one.store.leases.read("") == [], "all is given back"


async def test_one_that_dies_in_the_middle_is_followed_when_its_lease_is_over(
    url: str, undisturbed: dict[str, TableDigest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, it gives nothing back and writes nothing down: its run stands open, some of its batches in nobody's
    hands."""
    upstream = Upstream()
    async with (
        asyncio.timeout(100),
        open_house(url, upstream, "a", lease_s=3.0) as one,
        open_house(url, upstream, "b", lease_s=3.0) as other,
    ):
        first = asyncio.create_task(one.night())
        await upstream.half.wait()

        async def nothing(*_: object, **__: object) -> None:
            """A killed process does no more."""

        with monkeypatch.context() as killed:
            killed.setattr(one.store.leases, "give_back", nothing)
            killed.setattr(one.store, "finish_run", nothing)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        (held,) = await other.store.leases.read("night")
        assert held.holder == "a#1"
        (run,) = await other.store.read_runs()
        assert run.state == "running"
        states = {p.state: p.count for p in await other.store.progress(run.run_id)}
        assert states.get("planned"), "it was through already"
        result = await other.night()
        assert result.run_id == run.run_id, "it goes on with the run that was left"
        assert other.crawls == 1
        assert await other.store.digest() == undisturbed
        assert [r.state for r in await other.store.read_runs()] == [result.state]
