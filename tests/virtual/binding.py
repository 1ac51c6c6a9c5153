"""A night with more work than its tokens may do: how much of their limits is used, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from astrid.catalog import METRIC_BY_NAME
from astrid.models import Batch, Entity, Gap, Response
from astrid.pipeline import crawl
from astrid.pipeline.crawl import lost_days
from astrid.simulators.simulation import Simulation
from astrid.sources import BUDGETS
from astrid.sources.source import days_between
from astrid.store import Store
from astrid.timeline import Timeline, night_start
from tests.virtual.books import Books
from tests.virtual.virtual_time import run_virtual
from tests.virtual.worlds import FIRST_DAY, PAST_DAYS, make_world
from tests.virtual.year import TOLERANCE_S, House, Life, Year, stormy, tokens_of

REPOS = 500
LOOKBACK_DAYS = 14
GAINED = METRIC_BY_NAME["github_stars_gained"].metric_id
NOT_ASKED = "not asked tonight: the budget of github ends"


@dataclass(frozen=True)
class Spent:
    """What a binding night came to. ``limit`` is the sum of the limits of live users over all their windows."""

    points: int
    limit: int
    reserve: float
    windows: Mapping[str, int]
    convictions: int
    wrong: tuple[str, ...]
    requests: int
    faults: Mapping[str, int]

    @property
    def used(self) -> float:
        """The share of the limits, less the declared reserve, that was spent."""
        return self.points / (self.limit * (1 - self.reserve))


def spend(hours: float, *, seed: int) -> Spent:
    """Let one worker crawl star histories for ``hours``: five tokens, one dead, two of one user, every fault."""
    year = Year(seed, Books(random.Random(f"{seed} lapses"), 0.0))
    day = FIRST_DAY + timedelta(days=PAST_DAYS)
    return run_virtual(_spend(year, hours), night_start(day).timestamp())


async def _spend(year: Year, hours: float) -> Spent:
    world = make_world(year.seed, repos=REPOS, packages=1, nights=1)
    scenario = stormy(year.seed)
    simulation = Simulation(world, tokens_of(5), scenario=scenario, tolerance_s=TOLERANCE_S)
    house = CountingHouse(year, simulation, random.Random(f"{year.seed} house"))
    day = FIRST_DAY + timedelta(days=PAST_DAYS)
    first = day - timedelta(days=LOOKBACK_DAYS - 1)
    # A tenth more than three users can ask for; a repository stands for many entities, none is asked twice.
    count = int(1.1 * 3 * 5000 * (int(hours) + 1))
    entities = [Entity(n, f"e{n}", "", (world.repos[n % REPOS].name,)) for n in range(1, count + 1)]
    batches = [
        Batch("github", "history", day, first, day, tuple(entities[n : n + 10]), requests=10, points=10)
        for n in range(0, count, 10)
    ]
    house.answers = None  # an entity shares its repository with others; a 304 would make its answer free
    year.books.plan(batches)
    await house.broker.publish(batches)
    fetch = house.fetcher("github", day, Life(), house.draw_of("binding"))
    timeline = Timeline(night_start(day), house.now_s())
    books = cast(Store, year.books)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(hours * 3600):
            await crawl.work("github", "binding#1", 0, house.broker, books, fetch.for_lane, timeline, house.now_s)
    asked = {b.batch_id for b, state in year.books.batches.values() if state != "planned"}
    rest = [b for b in batches if b.batch_id not in asked]
    gaps: list[Gap] = [gap for batch in rest for gap in lost_days(batch, NOT_ASKED)]
    year.books.enter(gaps, timeline.at(house.now_s()))
    report = simulation.report()["upstreams"]["github"]
    points = sum(t["points"].get("core", 0) for t in report["tokens"].values())
    windows = {user: len(resets) for user, resets in house.windows.items()}
    wrong = [*year.books.wrong]
    wrong += [str(e) for t in report["tokens"].values() for e in t["convictions"]["examples"][:3]]
    keys = {(GAINED, e.entity_id, d) for e in entities for d in days_between(first, day)}
    known = year.books.values.keys() | year.books.gaps.keys()
    if keys - known:
        wrong.append(f"{len(keys - known)} days are neither in the store nor in the ledger")
    return Spent(
        points,
        5000 * sum(windows.values()),
        BUDGETS["github"].reserve,
        windows,
        report["convictions"],
        tuple(wrong),
        report["requests"],
        dict(report["faults"]),
    )


class CountingHouse(House):
    """A house that notes which primary windows its users opened, as the answers' headers tell them."""

    def __init__(self, year: Year, simulation: Simulation, draw: random.Random) -> None:
        super().__init__(year, simulation, draw)
        self.windows: dict[str, set[str]] = {}

    def seen(self, token: str | None, response: Response) -> None:
        """Note the window of an answer; ends that differ by a second are one window's."""
        users = tokens_of(5)
        if response.headers.get("x-ratelimit-resource") == "core" and token in users:
            self.windows.setdefault(users[token].login, set()).add(response.headers["x-ratelimit-reset"])
