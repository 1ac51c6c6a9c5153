"""A night with more work than its tokens may do: how much of their limits is used, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil
from typing import Literal, cast

from astrid.models import Entity, Response
from astrid.pipeline.asks import Missing
from astrid.pipeline.plan import plan_night
from astrid.pipeline.work import Bench
from astrid.pipeline.work import work as drain
from astrid.simulators.scenarios import Scenario
from astrid.simulators.simulation import Simulation
from astrid.sources import BUDGETS, SOURCES
from astrid.store import Store
from astrid.timeline import Timeline, night_start
from tests.virtual.books import Books
from tests.virtual.truth import Truth, check
from tests.virtual.virtual_time import run_virtual
from tests.virtual.worlds import FIRST_DAY, PAST_DAYS, make_world
from tests.virtual.year import TOLERANCE_S, House, Life, Year, fetch_for, stormy, tokens_of

REPOS = 500
LIVE_USERS = 3
PRIMARY = 5000


@dataclass(frozen=True)
class Spent:
    """What a binding night came to after its hours.

    ``limit`` is the sum of the limits of the distinct live users over all windows of the night's hours: a window that
    nobody opened counts in full. ``windows`` are those that were opened, per user. ``left_out`` is how many values the
    plan had no room for, ``wrong`` what is wrong once the night is over.
    """

    points: int
    limit: int
    reserve: float
    windows: Mapping[str, int]
    convictions: int
    wrong: tuple[str, ...]
    requests: int
    faults: Mapping[str, int]
    left_out: int

    @property
    def used(self) -> float:
        """The share of the limits, less the declared reserve, that was spent."""
        return self.points / (self.limit * (1 - self.reserve))


def spend(
    hours: float,
    *,
    seed: int,
    task: Literal["history", "totals"] = "history",
    quota: float = 1.0,
    ahead_s: float = 0.0,
    scenario: Scenario | None = None,
) -> Spent:
    """Let one worker crawl a task of GitHub for ``hours``: five tokens, one dead, two of one user, every fault.

    ``quota`` is what GitHub's hourly limits are multiplied by; the plan does not know of it. Our clock is ``ahead_s``
    before GitHub's. ``scenario`` unset is every fault of single requests at 2 % in sum.
    """
    year = Year(seed, Books(random.Random(f"{seed} lapses"), 0.0))
    day = FIRST_DAY + timedelta(days=PAST_DAYS)
    weather = replace(scenario or stormy(seed), quota=quota)
    return run_virtual(_spend(year, hours, task, weather, ahead_s), night_start(day).timestamp())


async def _spend(year: Year, hours: float, task_name: str, scenario: Scenario, ahead_s: float) -> Spent:
    quota = scenario.quota
    world = make_world(year.seed, repos=REPOS, packages=1, nights=1)
    task = SOURCES["github"].tasks[task_name]
    simulation = Simulation(world, tokens_of(5), scenario=scenario, tolerance_s=TOLERANCE_S)
    house = CountingHouse(year, simulation, random.Random(f"{year.seed} house"), task.bucket, ahead_s)
    day = FIRST_DAY + timedelta(days=PAST_DAYS)
    # A tenth more than the plan has room for; a repository stands for many entities, each a project of its own.
    points = task.price(task, [Entity(0, "", "R", ("",))] * task.entities_per_batch, 14).points
    windows = ceil(hours)
    count = int(1.15 * LIVE_USERS * PRIMARY * quota * windows / points * task.entities_per_batch)
    # Totals are asked for by ids, as on all nights but the first, histories of names whose ids must be looked up.
    facts = [world.repos[n % REPOS] for n in range(count)]
    by_id = task_name == "totals"
    entities = [Entity(n, f"e{n}", f.node_id if by_id else "", (f.name,)) for n, f in enumerate(facts, 1)]
    lacking = {e.entity_id: frozenset({day}) for e in entities}
    missing = Missing(day - timedelta(days=34), dict.fromkeys(task.metrics, lacking), {})
    others = {f"github.{name}" for name in SOURCES["github"].tasks} - {f"github.{task_name}"}
    plan = plan_night(
        day, {"github": entities}, missing, ["github"], others, users={"github": LIVE_USERS}, hours=windows * quota
    )
    house.answers = None  # an entity shares its repository with others; a 304 would make its answer free
    timeline = Timeline(night_start(day), house.now_s())
    year.books.plan(plan.batches)
    year.books.enter(plan.left_out, timeline.at(house.now_s()))
    await house.broker.publish(plan.batches)
    fetch = house.fetcher("github", day, Life(), house.draw_of("binding"))
    books = cast(Store, year.books)
    bench = Bench("binding#1", house.broker, books, fetch_for(fetch), timeline, house.now_s)
    work = asyncio.ensure_future(drain("github", bench, house.is_over("github")))
    await asyncio.wait([work], timeout=hours * 3600)
    wrong = ["the night was over before its hours were: its budget did not bind"] if work.done() else []
    at_the_end = simulation.report()["upstreams"]["github"]
    opened = {user: len(resets) for user, resets in house.windows.items()}
    async with asyncio.timeout(6 * 3600):
        await work
    await fetch.close()
    report = simulation.report()["upstreams"]["github"]
    wrong += year.books.wrong
    wrong += [str(e) for t in report["tokens"].values() for e in t["convictions"]["examples"][:3]]
    asked = {e.entity_id: e.key or e.names[0] for e in entities}
    found = check(year.books, Truth(world, scenario, day), asked, task.metrics, day)
    wrong += [f"{len(found)} values:", *found[:5]] if found else []
    return Spent(
        sum(t["points"].get(task.bucket, 0) for t in at_the_end["tokens"].values()),
        round(PRIMARY * quota) * LIVE_USERS * windows,
        BUDGETS["github"].reserve,
        opened,
        report["convictions"],
        tuple(wrong),
        report["requests"],
        dict(report["faults"]),
        len(plan.left_out),
    )


class CountingHouse(House):
    """A house that notes which windows of a bucket its users opened, as the answers' headers tell them."""

    def __init__(
        self, year: Year, simulation: Simulation, draw: random.Random, bucket: str, ahead_s: float = 0.0
    ) -> None:
        super().__init__(year, simulation, draw, ahead_s)
        self.bucket = bucket
        self.windows: dict[str, set[str]] = {}

    def seen(self, token: str | None, response: Response) -> None:
        """Note the window of an answer; ends that differ by a second are one window's."""
        users = tokens_of(5)
        if response.status == 401:
            return  # its headers are those of the address
        if response.headers.get("x-ratelimit-resource") == self.bucket and token in users:
            self.windows.setdefault(users[token].login, set()).add(response.headers["x-ratelimit-reset"])
