"""Every source through the real fetcher against the simulators' real socket, on the shipped world.

In calm weather what is observed is what the world holds, and no upstream's limit is broken. In foul weather
everything ends, and what is observed is still what the world holds: the rest is a gap or set aside. Where nobody
recorded a series, the simulator that makes it up is what holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import assert_never

import pytest

from astrid.catalog import METRIC_BY_ID, METRIC_BY_NAME, ORIGIN_BY_ID
from astrid.demo import NOT_RECORDED, TOKENS, demo_watchlist, simulated_settings
from astrid.http import HttpFetcher, open_session
from astrid.models import Batch, DeadLetter, Done, Gap, RetryIn, Split, Story
from astrid.pipeline.asks import Missing
from astrid.pipeline.backfill import plan_backfill
from astrid.pipeline.crawl import handle_batch, lost_days
from astrid.pipeline.plan import cut, plan_night
from astrid.pipeline.universe import Universe
from astrid.runtime import credentials_of, local_exchanges
from astrid.settings import load_settings
from astrid.simulators.depsdev import DepsDev
from astrid.simulators.dockerhub import DockerHub
from astrid.simulators.huggingface import HuggingFace
from astrid.simulators.npm import Npm
from astrid.simulators.scenarios import CALM, SCENARIOS, Scenario
from astrid.simulators.server import Server, open_server
from astrid.simulators.world import World, load_world
from astrid.sources import SOURCES
from astrid.sources.source import days_between
from astrid.timeline import Timeline, night_start
from astrid.watchlist import Project, load_watchlist
from astrid.watchlist.matching import StoryMatcher

NIGHT = date(2026, 3, 31)
SPEED = 300.0
PER_TASK = {"archive": 4, "hackernews": 2, "clickhouse": 8}
USUAL = 3
"""How many batches of a task are crawled: enough to meet limits and faults, few enough for seconds."""

FAULTY = {"archive": 0.6, "hackernews": 0.6}
"""The chance of a fault where a batch takes a few requests; 0.25 elsewhere."""

Key = tuple[int, str, date]


@dataclass
class Found:
    """What a source's batches came to: values with their origin, gaps, and how often each outcome was met."""

    values: dict[Key, tuple[float, str]] = field(default_factory=dict)
    gaps: dict[Key, Gap] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def universe(world: World, tmp_path_factory: pytest.TempPathFactory) -> Universe:
    """Give the demo's universe with every identity known, as on any night but the first."""
    projects = load_watchlist(demo_watchlist(world, tmp_path_factory.mktemp("watchlist")))
    return Universe.build(projects, {p.slug: n for n, p in enumerate(projects, 1)}, {})


def batches_of(name: str, universe: Universe) -> list[Batch]:
    """Plan a night and a backfill of one source and take some batches of each task; none is left out."""
    entities = {n: universe.entities(s.key) for n, s in SOURCES.items()}
    ids = [int(i) for i in universe.entity_ids]
    lacking = {i: frozenset({NIGHT}) for i in ids}
    newest = {i: NIGHT - timedelta(days=1) for i in ids}
    missing = Missing(NIGHT, dict.fromkeys(METRIC_BY_NAME, lacking), dict.fromkeys(METRIC_BY_NAME, newest))
    night = list(plan_night(NIGHT, entities, missing, [name], NOT_RECORDED).batches)
    past = plan_backfill(date(2025, 7, 1), NIGHT, entities, [name])
    chosen: list[Batch] = []
    for task in [t for t in SOURCES[name].tasks.values() if f"{name}.{t.name}" not in NOT_RECORDED]:
        planned = [[b for b in plan if b.task == task.name] for plan in (night, past)]
        if not any(planned):  # a stand-in is asked only while its feed stands still
            first = NIGHT - timedelta(days=task.lookback_days - 1)
            asked = [e for e in entities[name] if task.accepts(e)]
            planned = [cut(SOURCES[name], task, NIGHT, first, NIGHT, asked)]
        chosen += [b for own in planned for b in own[-PER_TASK.get(name, USUAL) :]]
        assert any(b.task == task.name for b in chosen)
    return chosen


@asynccontextmanager
async def upstreams(world: World, scenario: Scenario) -> AsyncIterator[tuple[Server, Timeline]]:
    async with open_server(world, speed=SPEED, scenario=scenario, tokens=TOKENS, night=NIGHT) as server:
        yield server, Timeline(night_start(NIGHT), time.time(), SPEED)


async def crawl(name: str, batches: list[Batch], server: Server, timeline: Timeline) -> Found:
    """Work off the batches as a worker does, without a database: retries wait, splits are crawled in parts."""
    settings = simulated_settings(load_settings({}), server.url)
    source = SOURCES[name]
    found = Found()

    def now() -> datetime:
        return timeline.at(time.time())

    async def one(batch: Batch, fetch: HttpFetcher, room: asyncio.Semaphore) -> None:
        async with room:
            outcome = await handle_batch(batch, fetch, now)
        kind = type(outcome).__name__
        found.outcomes[kind] = found.outcomes.get(kind, 0) + 1
        match outcome:
            case Done(observations=seen):
                columns = (seen.entity_id, seen.metric_id, seen.day, seen.value, seen.origin_id)
                for entity_id, metric_id, day, value, origin_id in zip(*(c.tolist() for c in columns), strict=True):
                    found.values[entity_id, METRIC_BY_ID[metric_id].name, day] = (value, ORIGIN_BY_ID[origin_id].name)
                note(seen.gaps)
            case Split(parts=parts):
                await asyncio.gather(*(one(p, fetch, room) for p in parts))
            case RetryIn(delay_s=delay_s, pause=pause):
                await asyncio.sleep(timeline.real_s(delay_s))
                step = {"pauses": batch.pauses + 1} if pause else {"attempt": batch.attempt + 1}
                await one(replace(batch, **step), fetch, room)
            case DeadLetter(reason=reason):
                assert "bug" not in reason, reason
                note(lost_days(batch, reason))
            case _:
                assert_never(outcome)

    def note(gaps: tuple[Gap, ...]) -> None:
        found.gaps.update({(g.entity_id, METRIC_BY_ID[g.metric_id].name, g.day): g for g in gaps})

    async with open_session() as session:
        fetch = HttpFetcher(
            session,
            server.base_urls,
            credentials_of(settings, [source.upstream], local_exchanges()),
            lambda: now().timestamp(),
            timeline.real_s,
        )
        try:
            room = asyncio.Semaphore(source.concurrency)
            await asyncio.gather(*(one(b, fetch, room) for b in batches))
        finally:
            await fetch.close()
    return found


class Truth:
    """What the world holds, read without any source: the value of a key as of the night, or None."""

    def __init__(self, world: World, universe: Universe) -> None:
        self._world = world
        npm, hub, images, depsdev = Npm(world), HuggingFace(world), DockerHub(world), DepsDev(world)

        def package(project: Project) -> tuple[str, str]:
            named = [(system, n) for system in ("pypi", "npm") for n in project.identifiers(system)[:1]]
            return named[0]

        def repository(project: Project, field: str) -> int | None:
            counts = depsdev.counts(f"github.com/{project.github}", NIGHT)
            return None if counts is None else counts[field]

        self.reads: Mapping[str, Callable[[Project, date], int | None]] = {
            "github_stars": lambda p, d: self._count(self._world.stars, p, d),
            "github_forks": lambda p, d: self._count(self._world.forks, p, d),
            "github_stars_gained": self._gained,
            "pypi_downloads": self._downloads,
            "hn_stories": lambda p, d: len(self._of_day(p, d)),
            "hn_points": lambda p, d: sum(s.points for s in self._of_day(p, d)),
            "npm_downloads": lambda p, d: npm.downloads(p.identifiers("npm")[0], d),
            "huggingface_downloads": lambda p, d: hub.counts(p.identifiers("huggingface")[0], d)["downloadsAllTime"],
            "huggingface_downloads_30d": lambda p, d: hub.counts(p.identifiers("huggingface")[0], d)["downloads"],
            "huggingface_likes": lambda p, d: hub.counts(p.identifiers("huggingface")[0], d)["likes"],
            "dockerhub_pulls": lambda p, d: images.counts(p.identifiers("dockerhub")[0], d)["pull_count"],
            "dockerhub_stars": lambda p, d: images.counts(p.identifiers("dockerhub")[0], d)["star_count"],
            "depsdev_stars": lambda p, d: repository(p, "starsCount"),
            "depsdev_forks": lambda p, d: repository(p, "forksCount"),
            "depsdev_releases": lambda p, d: depsdev.releases(*package(p), d),
            "depsdev_dependents": lambda p, d: depsdev.dependents(*package(p), d),
        }
        self._projects: Mapping[int, Project] = {
            int(n): p for n, p in zip(universe.entity_ids, universe.projects, strict=True)
        }
        self._gains: dict[int, dict[date, int]] = {}
        self._points: dict[Key, tuple[int, int]] = {}
        self._matcher = StoryMatcher(universe.projects)
        self._numbers = {p.slug: n for n, p in self._projects.items()}
        self._stories: dict[date, dict[int, list[Story]]] = {}

    def value(self, key: Key) -> float | None:
        entity_id, metric, day = key
        found = self.reads[metric](self._projects[entity_id], day)
        return None if found is None or found < 0 else float(found)

    def origin(self, key: Key) -> str:
        row = self._world.repo_index[(self._projects[key[0]].github or "").lower()]
        return ORIGIN_BY_ID[int(self._world.origin[row, self._world.day_index(key[2])])].name

    def _count(self, panel: object, project: Project, day: date) -> int:
        row = self._world.repo_index[(project.github or "").lower()]
        return int(panel[row, self._world.day_index(day)])  # type: ignore[index]

    def _gained(self, project: Project, day: date) -> int | None:
        row = self._world.repo_index[(project.github or "").lower()]
        if row not in self._gains:
            weeks, days = self._world.star_history(row, NIGHT)
            self._gains[row] = {
                datetime.fromtimestamp(int(w), UTC).date() + timedelta(days=n): int(c)
                for w, counts in zip(weeks, days, strict=True)
                for n, c in enumerate(counts)
            }
        return self._gains[row].get(day)

    def ends_within_the_week(self, key: Key) -> bool:
        """Tell whether a repository's last snapshot is older than the week of a day is long, or than the night."""
        stars = self._world.stars[self._world.repo_index[(self._projects[key[0]].github or "").lower()]]
        last = self._world.first_day + timedelta(days=int((stars >= 0).nonzero()[0][-1]))
        return last < min(NIGHT, key[2] + timedelta(days=6 - key[2].isoweekday() % 7))

    def _downloads(self, project: Project, day: date) -> int:
        return int(self._world.downloads[self._world.package_index[project.pypi[0]], self._world.day_index(day)])

    def _of_day(self, project: Project, day: date) -> list[Story]:
        if day not in self._stories:
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            matched: dict[int, list[Story]] = {}
            for story in self._world.stories_between(start, start + timedelta(days=1)):
                for slug in self._matcher.match(story):
                    matched.setdefault(self._numbers[slug], []).append(story)
            self._stories[day] = matched
        return self._stories[day].get(self._numbers[project.slug], [])


def expected_keys(batches: list[Batch]) -> set[Key]:
    return {
        (entity.entity_id, metric, day)
        for batch in batches
        for metric in SOURCES[batch.source].tasks[batch.task].metrics
        for entity in batch.entities
        for day in days_between(batch.start, batch.end)
    }


def require_true(found: Found, truth: Truth, source: str) -> None:
    """Every value is the world's; a story's points may still grow while it is younger than three days."""
    growing = datetime.combine(NIGHT, datetime.min.time(), UTC).date() - timedelta(days=3)
    for key, (value, origin) in found.values.items():
        held = truth.value(key)
        assert held is not None, f"{key}: {value} observed, the world has a gap"
        if key[1] == "hn_points" and key[2] >= growing:
            assert 0 <= value <= held, key
        else:
            assert value == held, key
        if source == "archive":
            assert origin == truth.origin(key)


@pytest.mark.parametrize("name", SOURCES)
async def test_calm_what_is_observed_is_what_the_world_holds(name: str, world: World, universe: Universe) -> None:
    batches = batches_of(name, universe)
    truth = Truth(world, universe)
    async with upstreams(world, CALM) as (server, timeline):
        found = await crawl(name, batches, server, timeline)
        report = server.report()
    assert report["convictions"] == 0, report
    assert set(found.outcomes) == {"Done"}
    require_true(found, truth, name)
    wanted = expected_keys(batches)
    assert {k[1] for k in wanted} <= truth.reads.keys(), "say above what the world, or the simulator, holds of it"
    held = {k for k in wanted if known(truth, k)}
    # All that the world holds has come, but for weeks of histories that it does not know to their end.
    absent = held - found.values.keys()
    assert len(held) > 20
    if name == "github":
        assert all(k[1] == "github_stars_gained" and k in found.gaps for k in absent)
        assert all(truth.ends_within_the_week(k) for k in absent)
        assert len(absent) < 0.05 * len(held)
    else:
        assert not absent
    assert found.values.keys() <= wanted
    assert not found.values.keys() & found.gaps.keys()


def known(truth: Truth, key: Key) -> bool:
    try:
        return truth.value(key) is not None
    except KeyError:  # a package that the world has no series of
        return False


@pytest.mark.parametrize("name", SOURCES)
async def test_foul_weather_brings_gaps_and_never_a_false_value(name: str, world: World, universe: Universe) -> None:
    batches = batches_of(name, universe)
    truth = Truth(world, universe)
    foul = replace(SCENARIOS["faults"], probability=FAULTY.get(name, 0.25))
    async with upstreams(world, foul) as (server, timeline):
        found = await asyncio.wait_for(crawl(name, batches, server, timeline), 90)
        report = server.report()
    assert report["upstreams"][SOURCES[name].upstream]["faults"], "no fault was met: this test shows nothing"
    assert found.values
    require_true(found, truth, name)
    wanted = expected_keys(batches)
    assert found.values.keys() <= wanted
    silent = {k for k in wanted if known(truth, k)} - found.values.keys() - found.gaps.keys()
    assert not silent, f"{len(silent)} values are neither here nor missed, such as {min(silent)}"
