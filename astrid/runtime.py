"""The composition root: settings in, running parts out. Nothing else joins database, broker, network and rules."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
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
from astrid.broker.memory import MemoryBroker
from astrid.broker.rabbitmq import open_rabbitmq
from astrid.catalog import METRIC_BY_NAME
from astrid.errors import ConfigError
from astrid.http import Credential, Exchange, HttpFetcher, HttpTransport, open_session
from astrid.pipeline import crawl
from astrid.pipeline.score import score_and_publish
from astrid.pipeline.universe import Universe
from astrid.ratelimit import Ask, Budget, Grant, Receipt, token_name
from astrid.settings import Settings
from astrid.sources import BUDGETS, SOURCES
from astrid.store import Store, StoreAnswers, migrate, open_embedded, open_store
from astrid.timeline import Timeline
from astrid.tokens import Owners, Viewer, assign_users, match_declared, read_users
from astrid.watchlist import load_watchlist

DEMO_NOW: Final = datetime(2026, 4, 1, 5, tzinfo=UTC)
"""The demo's moment: the night after the last day of its world."""


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
async def with_database(settings: Settings) -> AsyncGenerator[Settings]:
    """Give settings whose database runs and is migrated: the configured one, or the embedded one.

    Raises
    ------
    StoreError
        If it cannot be reached, or belongs to a newer version.
    """
    if settings.database_url is not None:
        await migrate(settings.database_url.get_secret_value())
        yield settings
        return
    embedded = open_embedded(state_folder(settings) / "postgres")
    server = await asyncio.to_thread(embedded.__enter__)
    try:
        await migrate(server.url())
        yield settings.model_copy(update={"database_url": SecretStr(server.url())})
    finally:
        # Not in a thread: the loop may be closing, and there is nothing left for it to do.
        embedded.__exit__(None, None, None)


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
    now_s = time.time()
    return Timeline(settings.now or datetime.fromtimestamp(now_s, UTC), now_s, settings.clock_speed)


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
            lambda: timeline.at(time.time()).timestamp(),
            timeline.real_s,
            known,
        )
        fresh = {n: (v.database_id, v.login) for n, v in owners.told.items() if known.get(n) != v}
        if fresh:
            await store.write_token_users(fresh, timeline.at(time.time()))
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
    ids = await store.sync_watchlist([(p.slug, p.name, p.category) for p in projects], timeline.at(time.time()))
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
        self._parts: _Parts | None = None

    async def work(self, run_id: int, timeline: Timeline) -> None:
        """Drain the run's batches of this source; see :func:`astrid.pipeline.crawl.work`."""
        if self._parts is None:
            self._parts = await self._open()
        parts = self._parts
        answers = StoreAnswers(parts.store, lambda: timeline.at(time.time()))
        fetch = HttpFetcher(
            parts.session,
            self._settings.base_urls,
            credentials_of(self._settings, list(SOURCES[self._source].budgets), self._exchange_for),
            lambda: timeline.at(time.time()).timestamp(),
            timeline.real_s,
            answers,
            self._consumer,
        )
        try:
            await crawl.work(
                self._source, self._consumer, run_id, parts.broker, parts.store, fetch.for_lane, timeline, time.time
            )
        finally:
            await fetch.close()
            await answers.flush()

    async def close(self) -> None:
        """Close what was opened."""
        if self._parts is not None:
            await self._parts.stack.aclose()
            self._parts = None

    def pid(self) -> int:
        """Return the process that this worker lives in."""
        return os.getpid()

    async def _open(self) -> _Parts:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(database_url(self._settings), pool_size=4))
            session = await stack.enter_async_context(open_session())
            broker = self._given_broker
            if broker is None:
                url = self._settings.broker_url.get_secret_value()
                broker = await stack.enter_async_context(open_rabbitmq(url, prefetch=SOURCES[self._source].concurrency))
            return _Parts(store, session, broker, stack.pop_all())


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a crawl worker holds open."""

    store: Store
    session: aiohttp.ClientSession
    broker: Broker
    stack: AsyncExitStack


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
        return await score_and_publish(self._store, universe, day, run_id, timeline.at(time.time()))


@asynccontextmanager
async def open_driver_broker(settings: Settings, memory: Broker | None = None) -> AsyncGenerator[Broker]:
    """Open the driver's end of the broker: RabbitMQ, or the given (else a new) memory broker."""
    url = settings.broker_url.get_secret_value()
    if url.startswith("memory://"):
        yield memory or MemoryBroker()
        return
    async with open_rabbitmq(url) as broker:
        yield broker
