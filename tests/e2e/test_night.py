"""Whole nights in one process, without Ray: real workers, real PostgreSQL, simulated upstreams on a socket.

Whatever happens in between (a worker that is killed, a database that goes away), the facts at the end are those of an
undisturbed run: their digests are equal.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest

from api.app import create_app
from astrid.broker.memory import MemoryBroker
from astrid.catalog import METRIC_BY_NAME
from astrid.demo import TOKENS, UPSTREAMS, simulated_settings
from astrid.errors import StoreError
from astrid.nightly import plan_costs
from astrid.pipeline.night import Driver, RunResult, run_backfill, run_night
from astrid.pipeline.score import score_and_publish
from astrid.ratelimit import token_name
from astrid.runtime import CrawlWorker, load_universe, local_exchanges, usable_sources
from astrid.settings import Settings, load_settings
from astrid.simulators.server import Server, open_server
from astrid.simulators.world import load_world
from astrid.sources import SOURCES
from astrid.store import EmbeddedServer, Store, TableDigest, migrate, open_embedded, open_store
from astrid.timeline import Timeline, night_start
from tests.demo_runs import write_watchlist
from tests.line import Line, open_line
from tests.traced import TRACED, untraced

PROJECTS = 60
START = date(2025, 9, 1)
NIGHTS = (date(2026, 3, 30), date(2026, 3, 31))
SPEED = 300.0

Disturb = Callable[["House", int], Awaitable[None]]
"""Does harm to a house during the crawl of a run: ``disturb(house, run_id)``."""


@dataclass
class House:
    """All parts of one installation in this process."""

    settings: Settings
    store: Store
    upstreams: Server
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    disturb: Disturb | None = None
    workers: dict[str, CrawlWorker] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.exchanges = local_exchanges()

    async def backfill(self, first: date, last: date) -> RunResult:
        """Fetch the history on the night of ``last``."""
        driver, sources = self._driver(last)
        universe = await load_universe(self.settings, self.store, driver.timeline)
        return await run_backfill(driver, universe, first, last, sources)

    async def night(self, day: date, *, late: timedelta = timedelta(0)) -> RunResult:
        """Run the night of ``day``, ``late`` after its proper hour."""
        driver, sources = self._driver(day, late)
        universe = await load_universe(self.settings, self.store, driver.timeline)
        return await run_night(driver, universe, day, sources)

    async def whole(self) -> dict[str, TableDigest]:
        """Run history and all nights, and return the digest."""
        await self.backfill(START, NIGHTS[0] - timedelta(days=1))
        for day in NIGHTS:
            await self.night(day)
        return await self.store.digest()

    def hire(self, source: str, run_id: int, timeline: Timeline) -> None:
        """Put a new life of a source's worker to work."""
        self.workers[source] = CrawlWorker(self.settings, source, f"worker:{source}", self.broker, self.exchanges)
        self.tasks[source] = asyncio.create_task(self.workers[source].work(run_id, timeline))

    async def dismiss(self, source: str) -> None:
        """End a worker wherever it stands."""
        task = self.tasks.pop(source)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.workers.pop(source).close()

    def requests(self, upstream: str) -> int:
        """Return how many requests an upstream has answered."""
        count: int = self.upstreams.report()["upstreams"][upstream]["requests"]
        return count

    def _driver(self, day: date, late: timedelta = timedelta(0)) -> tuple[Driver, list[str]]:
        self.upstreams.move_to(day)
        timeline = Timeline(night_start(day) + late, time.time(), SPEED)
        usable, _ = usable_sources(self.settings)
        # The others would be asked at their real addresses, where nobody may answer a test.
        sources = [name for name in usable if SOURCES[name].upstream in UPSTREAMS]

        async def crawl(run_id: int, named: Sequence[str]) -> None:
            for source in named:
                self.hire(source, run_id, timeline)
            try:
                if self.disturb is not None:
                    disturb, self.disturb = self.disturb, None
                    await disturb(self, run_id)
                await asyncio.gather(*self.tasks.values())
            finally:
                for source in list(self.tasks):
                    await self.dismiss(source)

        async def score(run_id: int, scored: date) -> int:
            universe = await load_universe(self.settings, self.store, timeline)
            return await score_and_publish(self.store, universe, scored, run_id, lambda: timeline.at(time.time()))

        def watch(_: object) -> None:
            """Nobody looks."""

        return Driver(self.store, self.broker, timeline, time.time, crawl, score, watch, "test"), sources


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedServer]:
    """Give one server for all tests here."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    with open_embedded(folder, settings={"fsync": "off"}) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def database(postgres: EmbeddedServer) -> str:
    """Give the address of a migrated database of its own."""
    name = f"night_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    await migrate(postgres.url(name))
    return postgres.url(name)


@pytest.fixture(scope="module")
def watchlist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_watchlist(tmp_path_factory.mktemp("watchlist") / "watchlist.csv", PROJECTS)


@asynccontextmanager
async def open_house(
    database: str, watchlist: Path, disturb: Disturb | None = None, workers_url: str = ""
) -> AsyncIterator[House]:
    """Open a house on a database; ``workers_url`` is another way to the same for its workers."""
    async with (
        open_server(load_world(), speed=SPEED, tokens=TOKENS, night=NIGHTS[0]) as upstreams,
        open_store(database) as store,
    ):
        plain = load_settings({}, database_url=workers_url or database, watchlist=watchlist)
        house = House(simulated_settings(plain, upstreams.url), store, upstreams, disturb=disturb)
        yield house
        assert upstreams.report()["convictions"] == 0


@pytest.fixture(scope="module")
def undisturbed(postgres: EmbeddedServer, watchlist: Path) -> tuple[str, dict[str, TableDigest]]:
    """Run it all once without harm; give the database and its digest."""
    name = f"undisturbed_{uuid4().hex[:12]}"

    async def run() -> dict[str, TableDigest]:
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        await migrate(postgres.url(name))
        async with open_house(postgres.url(name), watchlist) as house:
            return await house.whole()

    return postgres.url(name), asyncio.run(run())


async def test_two_nights_end_in_a_leaderboard_that_the_api_serves(
    undisturbed: tuple[str, dict[str, TableDigest]],
) -> None:
    url, digest = undisturbed
    assert digest["observation"].rows > 10_000
    async with open_store(url) as store:
        rows = await store.read_leaderboard(NIGHTS[-1], None, 50, 0)
        app = create_app(load_settings({}, database_url=url), store=store)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://astrid") as client:
            answer = await client.get("/v1/leaderboard", params={"limit": 50})
    assert len(rows) >= PROJECTS // 2
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["day"] == "2026-03-31"
    assert [e["slug"] for e in body["items"]] == [row.slug for row in rows]
    assert [e["score"] for e in body["items"]] == pytest.approx([row.score for row in rows], abs=0.05)


async def test_every_row_of_it_names_the_run_that_wrote_it(undisturbed: tuple[str, dict[str, TableDigest]]) -> None:
    found = await untraced(undisturbed[0])
    assert all(rows for table, (rows, _) in found.items() if not table.endswith("_revision")), found
    assert {table: lost for table, (_, lost) in found.items()} == dict.fromkeys(TRACED, 0)


async def test_running_it_all_again_changes_no_digest(
    undisturbed: tuple[str, dict[str, TableDigest]], watchlist: Path
) -> None:
    url, digest = undisturbed
    async with open_house(url, watchlist) as house:
        assert await house.whole() == digest


async def in_mid_run(house: House, run_id: int) -> None:
    """Wait until some batches of a run have ended and others have not."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        states = {p.state for p in await house.store.progress(run_id) if p.count}
        if states == {"planned", "done"} and house.requests("github") > 3:
            return
        await asyncio.sleep(0.002)
    raise AssertionError(f"the run was never half done: {states}")


async def test_workers_that_are_cancelled_and_come_again_lose_nothing(
    undisturbed: tuple[str, dict[str, TableDigest]], database: str, watchlist: Path
) -> None:
    lives = []

    async def cancel_all(house: House, run_id: int) -> None:
        timeline = Timeline(night_start(NIGHTS[0] - timedelta(days=1)), time.time(), SPEED)
        for _ in range(2):
            await in_mid_run(house, run_id)
            sources = list(house.tasks)
            for source in sources:
                await house.dismiss(source)
            lives.append({p.state for p in await house.store.progress(run_id)})
            for source in sources:
                house.hire(source, run_id, timeline)

    async with open_house(database, watchlist, cancel_all) as house:
        assert await house.whole() == undisturbed[1]
    assert lives
    assert all("planned" in states for states in lives), "the workers were through already"


async def test_a_database_that_goes_away_in_mid_run_loses_nothing(
    undisturbed: tuple[str, dict[str, TableDigest]], database: str, watchlist: Path
) -> None:
    """The workers' line to the database is cut: either they wait, or the run ends and the next one completes it."""
    where = urlsplit(database)
    async with open_line("127.0.0.1", where.port or 5432) as line:

        async def cut(house: House, run_id: int) -> None:
            await in_mid_run(house, run_id)
            await break_for(line, 1.0)

        credentials = where.netloc.rpartition("@")[0]
        through = urlunsplit(where._replace(netloc=f"{credentials}@127.0.0.1:{line.port}"))
        async with open_house(database, watchlist, cut, through) as house:
            failure = ""
            try:
                await house.whole()
            except StoreError as exc:
                failure = str(exc)
            record = (await house.store.read_runs())[-1]
        async with open_house(database, watchlist) as house:
            assert await house.whole() == undisturbed[1]
    assert line.connections > 3
    if failure:
        assert record.state == "failed"
        assert "cannot be reached" in record.note or "closed the connection" in record.note
        assert "ASTRID_DATABASE_URL" in failure or "try again" in failure
    else:
        assert record.state in ("complete", "gaps")


async def break_for(line: Line, seconds: float) -> None:
    line.cut()
    await asyncio.sleep(seconds)
    line.mend()


async def test_a_night_that_comes_too_late_leaves_gaps_and_no_count(database: str, watchlist: Path) -> None:
    """Nine hours late it is past noon: a count taken now stands for another day. Dated metrics still come."""
    day = NIGHTS[0]
    async with open_house(database, watchlist) as house:
        await house.backfill(START, day - timedelta(days=1))
        result = await house.night(day, late=timedelta(hours=9))
        universe = await load_universe(house.settings, house.store, Timeline(night_start(day), time.time()))
        entities = universe.entities("repository")
        missed = await house.store.read_open_gaps(day, day)
        stars = METRIC_BY_NAME["github_stars"].metric_id
        matrix = await house.store.read_matrix(stars, universe.entity_ids, day, day)
        points = await house.store.read_matrix(METRIC_BY_NAME["hn_points"].metric_id, universe.entity_ids, day, day)
        again = await house.night(day, late=timedelta(hours=9, minutes=30))
        tries = [g.attempts for e in entities for g in await house.store.read_gaps(e.slug) if g.metric_id == stars]
    late = [g for g in missed if g.metric_id == stars]
    assert {g.entity_id for g in late} == {e.entity_id for e in entities}
    assert all("cannot stand for 2026-03-30" in g.reason and not g.retry for g in late)
    # Archives of that day may have been read by the backfill; nothing may have been counted for it now.
    assert bool((matrix != matrix).all())
    assert bool((points == points).any())
    assert result.state == again.state == "gaps"
    assert result.ranked > 0
    assert set(tries) == {1}, "a moment that has passed was asked for again"


async def test_a_plan_counts_users_not_tokens(database: str, watchlist: Path) -> None:
    """Two tokens of one user have one budget; what a night has read of them goes before what is declared."""

    async def hours(tokens: str, users: str) -> dict[str, float]:
        settings = load_settings(
            {}, database_url=database, watchlist=watchlist, github_tokens=tokens, github_token_users=users
        )
        _, costs, _ = await plan_costs(settings, NIGHTS[0])
        return {c.bucket: c.hours for c in costs if c.source == "github"}

    one = await hours("token-1", "1=octocat")
    assert set(one) == {"core", "graphql"}
    assert await hours("token-1,token-2", "1=octocat,2=octocat") == one
    halves = {bucket: pytest.approx(h / 2) for bucket, h in one.items()}
    assert await hours("token-1,token-2", "1=octocat,2=builds") == halves
    async with open_store(database) as store:
        read = {token_name(token): (7, "octocat") for token in ("token-1", "token-2")}
        await store.write_token_users(read, night_start(NIGHTS[0]))
    assert await hours("token-1,token-2", "1=octocat,2=builds") == one
    # Without a token nothing is asked of GitHub, and nobody needs to be counted.
    assert await hours("", "") == {}
