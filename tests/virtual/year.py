"""Nights one after another in virtual time: plan, queue, workers, budgets and simulated upstreams, nothing between.

Everything random comes from one seed, and time is the loop's own, so a seed replays exactly.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, cast

from pydantic import SecretStr

from astrid.answers import MemoryAnswers
from astrid.broker.memory import MemoryBroker
from astrid.fetcher import Credential, Fetcher
from astrid.models import Batch, Fetch, Request, Response
from astrid.pipeline.night import plan_run
from astrid.pipeline.plan import LEFT_OUT, NIGHT_HOURS
from astrid.pipeline.universe import Universe
from astrid.pipeline.work import Bench
from astrid.pipeline.work import work as drain
from astrid.ratelimit import token_name
from astrid.runtime import local_exchanges
from astrid.simulators.faults import Answer
from astrid.simulators.github import User
from astrid.simulators.limits import Arrival
from astrid.simulators.scenarios import CALM, SCENARIOS, Scenario
from astrid.simulators.simulation import Simulation
from astrid.simulators.upstream import Upstream
from astrid.simulators.world import World
from astrid.sources import SOURCES
from astrid.store import Store
from astrid.timeline import Timeline, night_start
from tests.virtual.books import Books
from tests.virtual.virtual_time import run_virtual
from tests.virtual.worlds import FIRST_DAY, PAST_DAYS, make_watchlist, make_world

WAY_S = 0.2
"""The longest way of a request to its upstream, and of an answer back, in seconds."""
TOLERANCE_S = 2 * WAY_S + 0.1
"""Nobody can obey a wait that is still on its way, with a request that is already on its own."""
SHORT_HOURS = 0.005
CHANCES = (0.02, 0.08, 0.25)
"""Of a fault, per request."""
ODDITIES = ("renamed", "gone", "reoccupied", "gated", "private", "purged", "empty", "archived", "early", "ancient")
"""What may be odd about a repository, or a model."""
NIGHT_H = 23.0
"""A night that still works when the next begins does not end."""


@dataclass(frozen=True)
class Weather:
    """What may go wrong in a year, per request, commit, worker and night; and how long a night may plan to be.

    ``ahead_s`` is how far our clock is before everybody else's.
    """

    scenario: Scenario = CALM
    lapses: float = 0.0
    kills: float = 0.0
    missed: float = 0.0
    hours: float = NIGHT_HOURS
    ahead_s: float = 0.0


CALM_YEAR = Weather()


def foul(seed: int) -> Weather:
    """Return every fault at 2, 8 or 25 %, a dead token, dying workers, failing commits and missed nights.

    Every fifth year's nights are so short that some who are due have to wait for another one; in every eighth the
    search of Hacker News is down, in every other it forgives typos, or a user is suspended; GitHub's clock and ours
    are ten minutes apart in two of three.
    """
    scenario = replace(
        stormy(seed),
        probability=CHANCES[seed % 3],
        hn_search_down=seed % 8 == 1,
        hn_typos=seed % 2 == 0,
        suspended_tokens=seed % 2,
    )
    hours = SHORT_HOURS if seed % 5 == 0 else NIGHT_HOURS
    return Weather(scenario, lapses=0.02, kills=0.3, missed=0.1, hours=hours, ahead_s=(0.0, 600.0, -600.0)[seed % 3])


def twin_of(weather: Weather) -> Weather:
    """Return the same repositories, renamed and gone alike, and the same nights, without any fault."""
    calm = replace(
        weather.scenario, probability=0.0, faults=(), dead_tokens=0, suspended_tokens=0, hn_search_down=False
    )
    return Weather(calm, missed=weather.missed, hours=weather.hours)


def stormy(seed: int) -> Scenario:
    """Return every fault of single requests at 2 % and every oddity of repositories at 2 %, and a dead token."""
    oddities = dict.fromkeys(ODDITIES, 0.02)
    return replace(SCENARIOS["faults"], seed=seed, dead_tokens=1, late_week=True, pypi_mirrors=True, **oddities)  # type: ignore[arg-type]


@dataclass
class Year:
    """What became of the nights: the books, how upstreams saw the client, and a digest of every step."""

    seed: int
    books: Books
    nights: int = 0
    requests: int = 0
    left_out: int = 0
    convictions: int = 0
    planned: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    trace: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    report: Mapping[str, Any] = field(default_factory=dict)


def live(seed: int, nights: int, weather: Weather, *, repos: int = 60, packages: int = 20) -> Year:
    """Live through ``nights`` nights; equal arguments give equal steps, whatever the machine."""
    world = make_world(seed, repos=repos, packages=packages, nights=nights)
    year = Year(seed, Books(random.Random(f"{seed} lapses"), weather.lapses))
    start_s = night_start(FIRST_DAY + timedelta(days=PAST_DAYS)).timestamp()
    run_virtual(_nights(year, world, weather, nights), start_s)
    return year


async def _nights(year: Year, world: World, weather: Weather, nights: int) -> None:
    simulation = Simulation(world, tokens_of(5), scenario=weather.scenario, tolerance_s=TOLERANCE_S)
    house = House(year, simulation, random.Random(f"{year.seed} house"), weather.ahead_s)
    projects = make_watchlist(world)
    for n in range(nights):
        day = FIRST_DAY + timedelta(days=PAST_DAYS + n)
        # Every draw is made also in calm weather, so that both weathers miss the same nights.
        missed = house.draw_of(f"missed {n}").random() < weather.missed
        await asyncio.sleep(max(0.0, night_start(day).timestamp() - house.now_s()))
        if missed:
            continue
        universe = Universe.build(projects, {p.slug: k for k, p in enumerate(projects, 1)}, dict(year.books.identities))
        await house.night(universe, day, weather)
        year.nights += 1
    report = simulation.report()
    year.report, year.requests, year.convictions = report, report["requests"], report["convictions"]
    for books in report["upstreams"].values():
        year.faults.update(books["faults"])


def tokens_of(count: int) -> dict[str, User]:
    """Return tokens of which the second and the third belong to one user."""
    users = [1, 2, 2, *range(3, count)]
    return {f"token-{n}": User(9_000_000 + user, f"user-{user}") for n, user in enumerate(users[:count], 1)}


@dataclass
class Life:
    """One life of a worker: what it says after its end reaches nobody."""

    ended: bool = False


class House:
    """Everything of one year that outlives a night: the broker, the budgets, the upstreams.

    Our clock is ``ahead_s`` before the upstreams'.
    """

    def __init__(self, year: Year, simulation: Simulation, draw: random.Random, ahead_s: float = 0.0) -> None:
        self.year = year
        self.ahead_s = ahead_s
        self.simulation = simulation
        self.broker = MemoryBroker()
        tokens = tokens_of(5)
        self.exchange_for = local_exchanges({token_name(t): user.login for t, user in tokens.items()})
        self.answers: MemoryAnswers | None = MemoryAnswers()
        self._draw = draw
        self._lives = 0

    def draw_of(self, what: str) -> random.Random:
        """Return a source of random numbers for one purpose, whatever else was drawn before."""
        return random.Random(f"{self.year.seed} {what}")

    def now_s(self) -> float:
        """Return the virtual epoch second by our clock."""
        return asyncio.get_running_loop().time() + self.ahead_s

    async def night(self, universe: Universe, day: date, weather: Weather) -> None:
        """Plan a night, let workers drain it, some of which die, and check that it ended whole."""
        books = self.year.books
        now = datetime.fromtimestamp(self.now_s(), night_start(day).tzinfo)
        sources = [name for name in SOURCES if SOURCES[name].upstream in self.simulation.upstreams]
        plan = await plan_run(cast(Store, books), universe, day, now, sources, hours=weather.hours)
        batches = plan.batches
        books.plan(batches)
        self.year.planned.update(f"{b.source}.{b.task}" for b in batches)
        books.enter(plan.left_out, now)
        self.year.left_out += sum(g.reason == LEFT_OUT for g in plan.left_out)
        await self.broker.publish(batches)
        timeline = Timeline(now, self.now_s())
        names = sorted({b.source for b in batches})
        workers = [self._worker(name, day, timeline, weather) for name in names]
        async with asyncio.timeout(NIGHT_H * 3600):
            await asyncio.gather(*workers)
        left = [b for b, state in books.batches.values() if state == "planned"]
        if left:
            books.wrong.append(f"{day}: {len(left)} batches never ended, {left[0].source} {left[0].task}")
        for name in names:
            for delivery in await self.broker.receive(name, f"checker-{name}#{day}", 10_000, 0.0):
                if books.batches[delivery.batch.batch_id][1] == "planned":
                    books.wrong.append(f"{day}: an open batch was left in the queue")
                await self.broker.ack(delivery)

    async def _worker(self, source: str, day: date, timeline: Timeline, weather: Weather) -> None:
        """Keep one worker of a source alive: one that dies is followed by the next."""
        draw = self.draw_of(f"{source} {day}")
        while True:
            life = Life()
            self._lives += 1
            fetch = self.fetcher(source, day, life, draw)
            books = cast(Store, self.year.books)
            consumer = f"{source}#{self._lives}"
            bench = Bench(consumer, self.broker, books, fetch_for(fetch), timeline, self.now_s)
            work = asyncio.create_task(drain(source, bench, self.is_over(source)))
            if draw.random() >= weather.kills:
                await work
                await fetch.close()
                return
            await asyncio.wait([work], timeout=draw.expovariate(1 / 20.0))
            life.ended = True
            if work.done():
                work.result()
                return
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def is_over(self, source: str) -> Callable[[], Awaitable[bool]]:
        """Return what tells whether the run has no open batch of a source."""

        async def is_over() -> bool:
            counts = await self.year.books.progress(0)
            return not any(p.state == "planned" and p.source == source for p in counts)

        return is_over

    def fetcher(self, source: str, day: date, life: Life, draw: random.Random) -> Fetcher:
        """Give a worker's life its own end of the network."""
        credentials: dict[str, list[Credential]] = {}
        for upstream in SOURCES[source].budgets:
            secrets = {token_name(t): SecretStr(t) for t in tokens_of(5)} if upstream == "github" else {upstream: None}
            credentials[upstream] = [
                Credential(name, secret, self.exchange_for(upstream, name), self.exchange_for.user(upstream, name))
                for name, secret in secrets.items()
            ]
        return Fetcher(self._transport(day, life, draw), credentials, self.now_s, lambda s: s, self.answers)

    def _transport(self, day: date, life: Life, draw: random.Random) -> Any:
        async def send(request: Request, headers: Mapping[str, str]) -> Response:
            upstream = self.simulation.upstreams[request.upstream]
            authorization = headers.get("Authorization", "")
            token = authorization.removeprefix("Bearer ") or None
            await asyncio.sleep(draw.uniform(0.01, WAY_S))
            seen = replace(request, headers=tuple((k.lower(), v) for k, v in headers.items()))
            arrival = upstream.arrive(token, "127.0.0.1", self._now())
            answer = None
            try:
                await asyncio.sleep(draw.uniform(0.02, 0.5))
                answer = upstream.exchange(seen, arrival, token=token, now=self._now(), night=day, address="127.0.0.1")
                await asyncio.sleep(answer.delay_s)
            except asyncio.CancelledError:
                _reach_nobody(upstream, arrival, answer)
                raise
            finally:
                upstream.limits.leave(arrival)
            try:
                await asyncio.sleep(draw.uniform(0.01, WAY_S))
            except asyncio.CancelledError:
                _reach_nobody(upstream, arrival, answer)
                raise
            status = answer.response.status
            self.year.trace.update(f"{self.now_s():.6f} {request.upstream} {request.path} {status}\n".encode())
            self.seen(token, answer.response)
            if answer.cut:
                raise ConnectionResetError("the upstream cut the connection")
            return answer.response

        return send

    def seen(self, token: str | None, response: Response) -> None:
        """Look at an answer on its way."""

    def _now(self) -> datetime:
        """Return the upstreams' moment."""
        return datetime.fromtimestamp(asyncio.get_running_loop().time(), night_start(FIRST_DAY).tzinfo)


def fetch_for(fetch: Fetcher) -> Callable[[Batch], Fetch]:
    """Return the network of each batch over one fetcher."""
    return lambda batch: fetch.for_lane(batch.lane)


def _reach_nobody(upstream: Upstream, arrival: Arrival, answer: Answer | None) -> None:
    """Take back the wait of an answer that is on its way to a life that has ended."""
    if answer is not None and answer.hold_s:
        upstream.limits.forget_wait(arrival.account)
