"""The night as three programs that need no Ray: one publishes and ends, some drain, one closes and scores.

They meet in the database and in RabbitMQ alone. Each may be killed and started again at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from astrid.broker.rabbitmq import open_rabbitmq
from astrid.clock import count_s, epoch_s
from astrid.custody import Custody
from astrid.errors import AstridError, BrokerError, ConfigError
from astrid.http import Exchange, open_session
from astrid.pipeline.holdings import Holdings, Key, Unit, list_units
from astrid.pipeline.inspection import list_violated
from astrid.pipeline.leases import hold_lease
from astrid.pipeline.night import NIGHTLY, RANKED_MAX, finish, inspect_with, name_night, plan_run
from astrid.pipeline.plan import Plan
from astrid.pipeline.runs import (
    LOST_CHECK_S,
    RunResult,
    Watch,
    close_run,
    follow,
    open_run,
    prepare,
    publish_lost,
    read_open_sources,
    sum_up,
)
from astrid.pipeline.score import score_and_publish
from astrid.pipeline.universe import Universe
from astrid.pipeline.work import Bench, work
from astrid.ratelimit import Ask, Budget, Grant, Receipt
from astrid.runtime import (
    Parts,
    code_version,
    count_users,
    database_url,
    load_universe,
    make_budget,
    name_process,
    open_bench,
    prefetch_of,
    read_token_owners,
    timeline_of,
    usable_sources,
    with_database,
)
from astrid.settings import Settings
from astrid.sources import SOURCES
from astrid.store import Store, open_store
from astrid.terminal import explain_left_out
from astrid.timeline import Timeline, night_of
from astrid.tokens import Owners

Say = Callable[[str], None]

POLL_S: Final = 1.0
GRACE_S: Final = 25.0
"""How long what runs may go on when a worker is told to stop; Kubernetes kills after thirty seconds."""

CLOSED: Final = ("complete", "gaps")
CONNECTIONS: Final = 6
FLUSH_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Produced:
    """What a producer did: of which run, whether it was there before, and how many batches it published."""

    run_id: int
    day: date
    taken_up: bool
    published: int
    closed: RunResult | None = None


def require_queue(settings: Settings, command: str) -> str:
    """Return the broker's URL.

    Raises
    ------
    ConfigError
        If it is the memory of one process: the others would never see what is in it.
    """
    url = settings.broker_url.get_secret_value()
    if url.startswith("memory://"):
        raise ConfigError(
            f"`astrid {command}` needs a broker that several processes share: set ASTRID_BROKER_URL to amqp:// or "
            "amqps://, or run the whole night in one with `astrid nightly`"
        )
    return url


async def produce(settings: Settings, day: date | None, say: Say) -> Produced:
    """Plan a night, or take up the run of it that was not closed; publish what is in no queue, and end.

    A night that lacks nothing and is scored is closed at once.
    """
    url = require_queue(settings, "produce")
    async with AsyncExitStack() as stack:
        ready = await stack.enter_async_context(with_database(settings))
        store = await stack.enter_async_context(open_store(database_url(ready), pool_size=2))
        broker = await stack.enter_async_context(open_rabbitmq(url))
        timeline = timeline_of(ready)
        night = day or night_of(timeline.at(epoch_s()))
        _, skipped = usable_sources(ready)
        for sentence in skipped:
            say(sentence)
        universe = await load_universe(ready, store, timeline)
        lease = await stack.enter_async_context(
            hold_lease(store, name_night(night), name_process(), ready.lease_seconds, say)
        )

        def now() -> datetime:
            return timeline.at(epoch_s())

        async def publish() -> Produced:
            run = await open_run(store, NIGHTLY, night, code_version(), now())
            plan = _planner(ready, store, universe, night, now)
            prepared = await prepare(store, broker, run, night, plan, now, queue_lasts=True)
            closed = None
            if prepared.plan is not None:
                for sentence in explain_left_out(prepared.plan, ready.night_hours):
                    say(sentence)
                if not prepared.plan.batches and await store.has_scores(night):
                    closed = await close_run(store, run, night, 0, (), now())
            return Produced(run.run_id, night, run.is_planned, prepared.published, closed)

        return await lease.guard(publish())


def _planner(
    settings: Settings, store: Store, universe: Universe, night: date, now: Callable[[], datetime]
) -> Callable[[], Awaitable[Plan]]:
    """Return what plans a night for all sources that can be asked."""

    async def plan() -> Plan:
        sources, _ = usable_sources(settings)
        users = {"github": await count_users(settings, store)} if "github" in sources else {}
        return await plan_run(store, universe, night, now(), sources, users=users, hours=settings.night_hours)

    return plan


async def score(settings: Settings, day: date | None, watch: Watch, say: Say) -> RunResult:
    """Wait until no batch of a night's run is open, judge the upstreams, score the day, close the run.

    What the broker lost meanwhile is published again. A run that is closed already is told as it ended.
    """
    url = require_queue(settings, "score")
    async with AsyncExitStack() as stack:
        ready = await stack.enter_async_context(with_database(settings, migrates=False))
        store = await stack.enter_async_context(open_store(database_url(ready), pool_size=2))
        broker = await stack.enter_async_context(open_rabbitmq(url))
        timeline = timeline_of(ready)
        night = day or night_of(timeline.at(epoch_s()))

        def now() -> datetime:
            return timeline.at(epoch_s())

        async def close() -> RunResult | None:
            run = await store.read_last_run(NIGHTLY, night)
            if run is None:
                raise AstridError(f"the night of {night} has no run yet: `astrid produce --day {night}` first")
            if run.state in CLOSED:
                say(f"run {run.run_id} of the night of {night} is closed already")
                ranked = len(await store.read_leaderboard(night, None, RANKED_MAX, 0))
                violated = list_violated(await store.read_canaries(night))
                return await sum_up(store, run, night, ranked, violated, run.finished_at or now())
            if await read_open_sources(store, run.run_id):
                return None
            universe = await load_universe(ready, store, timeline)
            if not run.is_planned:
                # Its producer may have died before it had planned it, which looks like a night that lacks nothing.
                plan = _planner(ready, store, universe, night, now)
                if (await prepare(store, broker, run, night, plan, now, queue_lasts=True)).published:
                    return None

            async def score_day(run_id: int, scored: date) -> int:
                return await score_and_publish(store, universe, scored, run_id, now)

            inspect = inspect_with(store, universe, night, now)
            return await finish(store, run, NIGHTLY, night, now, watch, score_day, inspect)

        holder = name_process()
        while True:
            run = await store.read_last_run(NIGHTLY, night)
            if run is not None and run.state not in CLOSED:
                await follow(broker, store, run.run_id, watch, poll_s=POLL_S)
            # Not held while it waits: a producer may publish again what a broker lost.
            async with hold_lease(store, name_night(night), holder, ready.lease_seconds, say) as lease:
                result = await lease.guard(close())
            if result is not None:
                return result


async def drain(
    settings: Settings,
    sources: Sequence[str],
    say: Say,
    *,
    until_empty: bool = False,
    name: str | None = None,
    grace_s: float = GRACE_S,
) -> None:
    """Work off what is queued of some sources (none named: of all that can be asked), without Ray, in one process.

    Ends on SIGTERM or SIGINT: nothing more is received, what runs may end within ``grace_s``, the rest goes back. With
    ``until_empty`` it ends also when no run has an open batch of these sources.

    Raises
    ------
    ConfigError
        If a source is unknown or cannot be asked, or another worker has the same name.
    """
    url = require_queue(settings, "work")
    names = choose_sources(settings, sources, say)
    consumer = name_process(name)
    async with AsyncExitStack() as stack:
        ready = await stack.enter_async_context(with_database(settings, migrates=False))
        store = await stack.enter_async_context(open_store(database_url(ready), pool_size=CONNECTIONS))
        session = await stack.enter_async_context(open_session())
        broker = await stack.enter_async_context(open_rabbitmq(url, prefetch=prefetch_of(names)))
        timeline = timeline_of(ready)
        owners = await read_token_owners(ready) if "github" in names else Owners({})
        exchanges = KeptBudgets(names, owners, timeline)
        parts = Parts(store, session, broker, stack)
        bench = await stack.enter_async_context(open_bench(ready, names, consumer, parts, exchanges, timeline))
        holdings = Holdings(
            store, consumer, exchanges.units, exchanges.keepers, ready.lease_seconds, lambda s: bench.busy.get(s, 0) > 0
        )
        stack.push_async_callback(holdings.close)
        bench.may_ask = holdings.may_ask
        say(f"worker {consumer.partition('#')[0]} drains {', '.join(names)}")
        with stop_on_signals(bench.stopping):
            await _run(bench, holdings, names, until_empty=until_empty, grace_s=grace_s, say=say)


async def _run(
    bench: Bench, holdings: Holdings, names: Sequence[str], *, until_empty: bool, grace_s: float, say: Say
) -> None:
    keeping = asyncio.create_task(holdings.run())
    tending = asyncio.create_task(_tend(bench))
    ending = _emptiness if until_empty else _service
    loops = asyncio.gather(*(work(source, bench, ending(bench, source)) for source in names))
    stopping = asyncio.create_task(bench.stopping.wait())
    waited: list[asyncio.Future[Any]] = [keeping, loops, stopping]
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()
        if loops.done():
            loops.result()
            return
        say(f"asked to stop: what runs may end within {grace_s:g} s, the rest goes back")
        with contextlib.suppress(BrokerError):
            await bench.broker.release(bench.consumer, held=False)
        await asyncio.wait([loops], timeout=grace_s)
        if loops.done():
            loops.result()
    finally:
        for task in (keeping, loops, stopping, tending):
            task.cancel()
        await asyncio.gather(keeping, loops, stopping, tending, return_exceptions=True)
        with contextlib.suppress(BrokerError):
            await bench.broker.release(bench.consumer)


def _service(bench: Bench, source: str) -> Callable[[], Any]:
    """Return what is never over, and meanwhile looks for what the broker lost."""
    look = _lookout(bench, source)

    async def is_over() -> bool:
        await look()
        return False

    return is_over


def _emptiness(bench: Bench, source: str) -> Callable[[], Any]:
    """Return what tells whether no run has an open batch of a source and nothing waits for a worker.

    A queue may hold more than batches: copies of what is done, and what is none. They too are taken, or they would lie
    there until the next night.
    """
    look = _lookout(bench, source)

    async def is_over() -> bool:
        return not await look() and not (await bench.broker.ready([source]))[source]

    return is_over


def _lookout(bench: Bench, source: str) -> Callable[[], Any]:
    """Return what lists the runs with open batches of a source; what the broker lost of them is published again."""
    loop = asyncio.get_running_loop()
    checked_s = loop.time()

    async def look() -> dict[int, dict[str, int]]:
        nonlocal checked_s
        working = await bench.store.read_working_runs([source])
        if loop.time() - checked_s >= LOST_CHECK_S:
            checked_s = loop.time()
            for run_id in working:
                await publish_lost(bench.broker, bench.store, run_id, [source])
        return working

    return look


def choose_sources(settings: Settings, named: Sequence[str], say: Say) -> list[str]:
    """Return the sources to drain.

    Raises
    ------
    ConfigError
        If a named one is unknown or cannot be asked, or none is left.
    """
    usable, skipped = usable_sources(settings)
    for source in named:
        if source not in SOURCES:
            raise ConfigError(f"there is no source {source!r}: there are {', '.join(SOURCES)}")
        if source not in usable:
            reason = next((s for s in skipped if s.startswith(source)), f"{source} has no URL")
            raise ConfigError(f"{source} cannot be asked: {reason}")
    if not named:
        for sentence in skipped:
            say(sentence)
    if not usable:
        raise ConfigError("no source can be asked: see docs/configuration.md")
    return list(dict.fromkeys(named)) or usable


class KeptBudgets:
    """The budgets of one worker, each usable only while it is ours: an :class:`~astrid.runtime.ExchangeFor`."""

    def __init__(self, sources: Sequence[str], owners: Owners, timeline: Timeline) -> None:
        upstreams = sorted({u for s in sources for u in SOURCES[s].budgets})
        self._owners = owners
        self._now_s = lambda: timeline.at(epoch_s()).timestamp()
        users = {u: sorted(set(owners.users.values())) if u == "github" else [u] for u in upstreams}
        self.units: list[Unit] = list_units({s: SOURCES[s] for s in sources}, users)
        speed = 1 / timeline.real_s(1.0)
        self._custodies = {
            (upstream, user): Custody(functools.partial(_renew_budget, upstream, user), speed)
            for upstream in upstreams
            for user in users[upstream]
        }
        self.keepers: Mapping[Key, LocalKeeper] = {
            key: LocalKeeper(custody, self._now_s) for key, custody in self._custodies.items()
        }

    def __call__(self, upstream: str, name: str) -> Exchange:
        """See :class:`~astrid.runtime.ExchangeFor`."""
        custody = self._custodies[upstream, self.user(upstream, name)]

        async def exchange(receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float) -> Grant:
            return custody.exchange(receipts, unused, ask, now_s, count_s())

        return exchange

    def user(self, upstream: str, name: str) -> str:
        """See :class:`~astrid.runtime.ExchangeFor`."""
        return self._owners.users[name] if upstream == "github" else name

    def uses(self, upstream: str, name: str) -> bool:
        """See :class:`~astrid.runtime.ExchangeFor`."""
        return upstream != "github" or name in self._owners.users


def _renew_budget(upstream: str, user: str) -> Budget:
    # Receipts of an earlier life's permits must not be taken for this one's.
    return make_budget(upstream, user, first_id=secrets.randbits(52))


@dataclass(frozen=True, slots=True)
class LocalKeeper:
    """A budget in this process, as :class:`~astrid.pipeline.holdings.Keeper`."""

    custody: Custody
    now_s: Callable[[], float]

    async def begin(self, state: Mapping[str, Any], age_s: float, is_clean: bool, trusted_s: float) -> None:
        self.custody.begin(state, age_s, is_clean=is_clean, now_s=self.now_s(), until_s=count_s() + trusted_s)

    async def tell(self) -> Mapping[str, Any]:
        return self.custody.tell(self.now_s())

    async def renew(self, trusted_s: float) -> None:
        self.custody.renew(count_s() + trusted_s)

    async def end(self) -> None:
        self.custody.end()


@contextmanager
def stop_on_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Set an event on SIGTERM or SIGINT during the block."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _tend(bench: Bench) -> None:
    """Write down now and then what waits to be written, also while there is no work."""
    while True:
        await asyncio.sleep(FLUSH_S)
        await bench.tend()
