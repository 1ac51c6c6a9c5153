"""The composition root: settings in, running parts out. Nothing else joins database, broker, network and rules."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import uuid
from collections.abc import AsyncGenerator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from pydantic import SecretStr

from astrid import __version__
from astrid.broker import Broker
from astrid.broker.rabbitmq import open_rabbitmq
from astrid.catalog import METRIC_BY_NAME
from astrid.clock import epoch_s
from astrid.errors import ConfigError, StoreError
from astrid.http import Credential, Exchange, HttpFetcher, HttpTransport, open_session
from astrid.models import Batch, Fetch
from astrid.pipeline import work
from astrid.pipeline.score import score_and_publish
from astrid.pipeline.universe import Universe
from astrid.pipeline.work import Bench
from astrid.ratelimit import Ask, Budget, Grant, Receipt, token_name
from astrid.settings import Settings
from astrid.sources import BUDGETS, SOURCES
from astrid.store import Migrated, Store, StoreAnswers, check_version, migrate, open_embedded, open_store, settle
from astrid.timeline import Timeline
from astrid.tokens import Owners, Viewer, assign_users, match_declared, read_users
from astrid.watchlist import load_watchlist

DEMO_NOW: Final = datetime(2026, 4, 1, 5, tzinfo=UTC)
"""The demo's moment: the night after the last day of its world."""


CLOCKS_APART_S: Final = 300.0
"""So far the clocks of this machine and of the database may be apart."""


class ExchangeFor(Protocol):
    """Gives the permit exchange of a credential, and says whose it is and whether it is used at all."""

    def __call__(self, upstream: str, name: str) -> Exchange:
        """Return the exchange of the credential ``name``."""

    def user(self, upstream: str, name: str) -> str:
        """Return the user whose budget it spends."""

    def uses(self, upstream: str, name: str) -> bool:
        """Tell whether it is one of those that are used."""


def code_version() -> str:
    """Return the version of this code, with the commit where the deployment states it in ``GIT_COMMIT``."""
    commit = os.environ.get("GIT_COMMIT", "")
    return f"{__version__}+{commit[:12]}" if commit else __version__


def prepare_private_ray(environ: MutableMapping[str, str]) -> None:
    """Give a Ray cluster of our own a token of its own; call it before Ray is imported, which reads it then.

    Nothing is written to the user's home, where a later ``ray start`` would find it, and no other user of
    this machine can reach the cluster. What the environment says already stands.
    """
    environ.setdefault("RAY_AUTH_MODE", "token")
    if environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in environ:
        environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # There is an actor for every source and more; four times this many workers Ray would take for a mistake.
    environ.setdefault("RAY_worker_maximum_startup_concurrency", "4")


def state_folder(settings: Settings) -> Path:
    """Return the state folder: the setting, else ``$XDG_STATE_HOME/astrid``, else ``~/.local/state/astrid``."""
    if settings.state_dir is not None:
        return settings.state_dir
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "astrid"


def demo_settings(settings: Settings) -> Settings:
    """Give the demo an embedded database of its own, and its moment: simulated nights never mix with live ones."""
    return settings.model_copy(update={"state_dir": state_folder(settings) / "demo", "now": settings.now or DEMO_NOW})


@asynccontextmanager
async def with_server(settings: Settings) -> AsyncGenerator[Settings]:
    """Give settings whose database runs, whatever is in it: the configured one, or the embedded one."""
    if settings.database_url is not None:
        yield settings
        return
    embedded = open_embedded(state_folder(settings) / "postgres")
    server = await asyncio.to_thread(embedded.__enter__)
    try:
        yield settings.model_copy(update={"database_url": SecretStr(server.url())})
    finally:
        # Not in a thread: the loop may be closing, and there is nothing left for it to do.
        embedded.__exit__(None, None, None)


@asynccontextmanager
async def with_database(settings: Settings, *, migrates: bool = True) -> AsyncGenerator[Settings]:
    """Give settings whose database runs and fits this version: the configured one, or the embedded one.

    The embedded one is migrated, a configured one is set up where it is fresh, or, without ``migrates``, only looked
    at: a schema that others use is changed by `astrid migrate` alone.

    Raises
    ------
    StoreError
        If it cannot be reached, or belongs to a newer version or, where it is not migrated, to an older one.
    ConfigError
        If this machine's clock and the database's are far apart.
    """
    async with with_server(settings) as ready:
        if settings.database_url is None:
            await migrate(database_url(ready))
        else:
            await (settle if migrates else check_version)(database_url(ready))
        if settings.database_url is not None:
            await check_clock(settings)
        yield ready


async def migrate_database(settings: Settings) -> Migrated:
    """Bring the configured or embedded database to this version; see :func:`astrid.store.migrate.migrate`."""
    async with with_server(settings) as ready:
        return await migrate(database_url(ready))


async def check_clock(settings: Settings) -> None:
    """Hold this machine's clock against the database's, unless the run's moment is given and no clock's business.

    Raises
    ------
    ConfigError
        If they are more than five minutes apart: counts would be written for the wrong day, and nobody could tell.
    """
    if settings.now is not None:
        return
    async with open_store(database_url(settings), pool_size=1) as store:
        ahead_s = epoch_s() - await store.leases.read_now_s()
    if abs(ahead_s) > CLOCKS_APART_S:
        raise ConfigError(
            f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the database's: "
            "set the one that is wrong (NTP), then start again"
        )


def database_url(settings: Settings) -> str:
    """Return the database's URL.

    Raises
    ------
    ConfigError
        If none is set and none was started.
    """
    if settings.database_url is None:
        raise ConfigError("ASTRID_DATABASE_URL is not set and no embedded database was started")
    return settings.database_url.get_secret_value()


def timeline_of(settings: Settings) -> Timeline:
    """Start the run's time: at ASTRID_NOW if it is set, else now."""
    now_s = epoch_s()
    return Timeline(settings.now or datetime.fromtimestamp(now_s, UTC), now_s, settings.clock_speed)


def name_process(name: str | None = None) -> str:
    """Return ``name#life``: the given name, or one of this machine and process, and a life made up now.

    Raises
    ------
    ConfigError
        If the name cannot be one.
    """
    lasting = name or f"{socket.gethostname()}-{os.getpid()}"
    if "#" in lasting or not lasting.isprintable() or not lasting.strip():
        raise ConfigError(f"{lasting!r} cannot name a worker: it is empty, or holds # or what cannot be printed")
    return f"{lasting}#{uuid.uuid4().hex[:12]}"


def usable_sources(settings: Settings) -> tuple[list[str], list[str]]:
    """Return the sources that can be asked, and a sentence for each that cannot."""
    usable, skipped = [], []
    for name, source in SOURCES.items():
        if name == "github" and not settings.read_github_tokens():
            skipped.append("github is skipped: set ASTRID_GITHUB_TOKENS to at least one token (no scope is needed)")
        elif source.upstream in settings.base_urls:  # archives are optional, and a backfill's business
            usable.append(name)
    return usable, skipped


def credential_names(settings: Settings, upstreams: Sequence[str]) -> list[tuple[str, str]]:
    """Return (upstream, name) of every credential: one per GitHub token, one per address for the others."""
    names: list[tuple[str, str]] = []
    for upstream in upstreams:
        own = [token_name(t) for t in settings.read_github_tokens()] if upstream == "github" else [upstream]
        names += [(upstream, name) for name in dict.fromkeys(own)]
    return names


def credentials_of(
    settings: Settings, upstreams: Sequence[str], exchange_for: ExchangeFor
) -> dict[str, list[Credential]]:
    """Return the credentials per upstream that are used, in the order of :func:`credential_names`."""
    secrets_by_name = {token_name(t): SecretStr(t) for t in settings.read_github_tokens()}
    found: dict[str, list[Credential]] = {upstream: [] for upstream in upstreams}
    for upstream, name in credential_names(settings, upstreams):
        if not exchange_for.uses(upstream, name):
            continue
        secret = secrets_by_name[name] if upstream == "github" else None
        found[upstream].append(
            Credential(name, secret, exchange_for(upstream, name), exchange_for.user(upstream, name))
        )
    return found


async def read_token_owners(settings: Settings) -> Owners:
    """Ask GitHub whose the configured tokens are, and keep what it says; see :mod:`astrid.tokens`.

    Raises
    ------
    ConfigError
        If ASTRID_GITHUB_TOKEN_USERS names a token that is not there.
    """
    tokens = [SecretStr(t) for t in settings.read_github_tokens()]
    names = [token_name(t) for t in settings.read_github_tokens()]
    timeline = timeline_of(settings)
    async with open_store(database_url(settings), pool_size=1) as store, open_session() as session:
        known = {name: Viewer(*user) for name, user in (await store.read_token_users(names)).items()}
        owners = await read_users(
            HttpTransport(session, settings.base_urls),
            tokens,
            settings.read_github_token_users(),
            lambda: timeline.at(epoch_s()).timestamp(),
            timeline.real_s,
            known,
        )
        fresh = {n: (v.database_id, v.login) for n, v in owners.told.items() if known.get(n) != v}
        if fresh:
            await store.write_token_users(fresh, timeline.at(epoch_s()))
    return owners


async def count_users(settings: Settings, store: Store) -> int:
    """Return how many users' limits the GitHub tokens may spend, as far as it is known without asking."""
    names = [token_name(t) for t in settings.read_github_tokens()]
    known = {name: Viewer(*user) for name, user in (await store.read_token_users(names)).items()}
    declared = match_declared(settings.read_github_token_users(), list(dict.fromkeys(names)))
    return Owners(assign_users(names, known, declared)).count()


def make_budget(upstream: str, user: str, *, first_id: int = 1, expects_nightly: bool = False) -> Budget:
    """Return the budget of one user; its jitter is its own and the same in every run."""
    return Budget(BUDGETS[upstream], random.Random(f"{upstream} {user}").random, expects_nightly, first_id)


class LocalBudgets:
    """All budgets of a run in this process: for one worker, for simulations and tests.

    Parameters
    ----------
    users
        User by token name, as :func:`astrid.tokens.read_users` returns it; others have a budget of their own.
    """

    def __init__(self, users: Mapping[str, str] | None = None) -> None:
        self._users = dict(users or {})
        self.budgets: dict[tuple[str, str], Budget] = {}

    def __call__(self, upstream: str, name: str) -> Exchange:
        """See :class:`ExchangeFor`."""
        user = self.user(upstream, name)
        if (upstream, user) not in self.budgets:
            self.budgets[upstream, user] = make_budget(upstream, user)
        budget = self.budgets[upstream, user]

        async def exchange(receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float) -> Grant:
            return budget.exchange(receipts, unused, ask, now_s)

        return exchange

    def user(self, upstream: str, name: str) -> str:
        """See :class:`ExchangeFor`."""
        return self._users.get(name, name) if upstream == "github" else name

    def uses(self, upstream: str, name: str) -> bool:
        """See :class:`ExchangeFor`."""
        return True


def local_exchanges(users: Mapping[str, str] | None = None) -> LocalBudgets:
    """Keep all budgets in this process."""
    return LocalBudgets(users)


async def load_universe(settings: Settings, store: Store, timeline: Timeline) -> Universe:
    """Read the watchlist, give every project its id, and join what is known of their identities."""
    projects = load_watchlist(settings.watchlist)
    ids = await store.sync_watchlist([(p.slug, p.name, p.category) for p in projects], timeline.at(epoch_s()))
    github = await store.read_identities("github")
    # Whose id is known needs no past: the id tells it from a stranger.
    nameless = [ids[p.slug] for p in projects if p.github and ids[p.slug] not in github]
    since = await store.read_first_days(METRIC_BY_NAME["github_stars"].metric_id, nameless) if nameless else {}
    return Universe.build(projects, ids, github, since)


class CrawlWorker:
    """One worker of one source: opens its database, network and broker on first use, then drains runs.

    Carries nothing that is not rebuilt from them: a killed worker that starts again goes on.

    Parameters
    ----------
    settings
        With the database's URL set.
    source
        Which source's queue it drains.
    name
        Its lasting name, of no other worker; its life is made up anew at every start.
    broker
        Where its batches come from; None opens RabbitMQ at the configured URL.
    exchange_for
        Where its permits come from.
    """

    def __init__(
        self, settings: Settings, source: str, name: str, broker: Broker | None, exchange_for: ExchangeFor
    ) -> None:
        self._settings = settings
        self._source = source
        self._consumer = f"{name}#{uuid.uuid4().hex[:12]}"
        self._given_broker = broker
        self._exchange_for = exchange_for
        self._parts: Parts | None = None

    async def work(self, run_id: int, timeline: Timeline) -> None:
        """Drain the run's batches of this source; see :func:`astrid.pipeline.work.work`."""
        if self._parts is None:
            self._parts = await self._open()
        store, source = self._parts.store, self._source

        async def is_over() -> bool:
            counts = await store.progress(run_id)
            return not any(p.state == "planned" and p.source == source for p in counts)

        async with open_bench(
            self._settings, [source], self._consumer, self._parts, self._exchange_for, timeline
        ) as bench:
            await work.work(source, bench, is_over)

    async def close(self) -> None:
        """Close what was opened."""
        if self._parts is not None:
            await self._parts.stack.aclose()
            self._parts = None

    def pid(self) -> int:
        """Return the process that this worker lives in."""
        return os.getpid()

    async def _open(self) -> Parts:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(database_url(self._settings), pool_size=4))
            session = await stack.enter_async_context(open_session())
            broker = self._given_broker
            if broker is None:
                url = self._settings.broker_url.get_secret_value()
                broker = await stack.enter_async_context(open_rabbitmq(url, prefetch=prefetch_of([self._source])))
            return Parts(store, session, broker, stack.pop_all())


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker holds open."""

    store: Store
    session: aiohttp.ClientSession
    broker: Broker
    stack: AsyncExitStack


@asynccontextmanager
async def open_bench(
    settings: Settings,
    sources: Sequence[str],
    consumer: str,
    parts: Parts,
    exchange_for: ExchangeFor,
    timeline: Timeline,
) -> AsyncGenerator[Bench]:
    """Give what the loops of these sources share; at the end hand back permits and write what was spent."""
    store = parts.store
    upstreams = sorted({u for s in sources for u in SOURCES[s].budgets})
    answers = StoreAnswers(store, lambda: timeline.at(epoch_s()))
    fetch = HttpFetcher(
        parts.session,
        settings.base_urls,
        credentials_of(settings, upstreams, exchange_for),
        lambda: timeline.at(epoch_s()).timestamp(),
        timeline.real_s,
        answers,
        consumer,
    )

    async def spend(run_id: int) -> None:
        spent = fetch.take_spent(run_id)
        try:
            await store.add_spent(run_id, spent, timeline.at(epoch_s()))
        except StoreError:
            fetch.put_back(run_id, spent)
            raise

    def fetch_for(batch: Batch) -> Fetch:
        return fetch.for_run(batch.lane, batch.run_id)

    async def tend() -> None:
        await answers.flush()
        for run_id in fetch.spenders:
            with contextlib.suppress(StoreError):
                await spend(run_id)

    try:
        yield Bench(consumer, parts.broker, store, fetch_for, timeline, epoch_s, spend, tend)
    finally:
        await fetch.close()
        await tend()


class ScoreWorker:
    """Scores days; opens its database on first use and carries nothing that is not read from it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack: AsyncExitStack | None = None

    async def score(self, run_id: int, day: date, timeline: Timeline) -> int:
        """Score and publish a day; return how many projects are ranked."""
        if self._stack is None:
            self._stack = AsyncExitStack()
            self._store = await self._stack.enter_async_context(open_store(database_url(self._settings), pool_size=2))
        universe = await load_universe(self._settings, self._store, timeline)
        return await score_and_publish(self._store, universe, day, run_id, lambda: timeline.at(epoch_s()))


def prefetch_of(sources: Sequence[str]) -> dict[str, int]:
    """Return how many batches of each source a worker can have in hand: as many as it runs at once."""
    return {name: SOURCES[name].concurrency for name in sources}
