"""Ray wrappers, once at module level, over plain classes that also run without Ray.

Coarse calls only: a crawl actor is told of a run and drains thousands of batches; a token actor
hands out permits by the handful. This and ``ray_jobs/`` are the only places that import Ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, Final

import ray
from ray.util.metrics import Gauge

from astrid import metrics
from astrid.broker import Broker, Delivery
from astrid.broker.memory import MemoryBroker
from astrid.errors import AstridError, ConfigError
from astrid.http import Exchange
from astrid.models import Batch
from astrid.pipeline.night import Spent, Watch
from astrid.ratelimit import Ask, Grant, Receipt
from astrid.runtime import CrawlWorker, ScoreWorker, credential_names, make_budget, read_token_owners
from astrid.settings import Settings
from astrid.sources import SOURCES
from astrid.timeline import Timeline
from astrid.tokens import Owners

log = logging.getLogger(__name__)

NAMESPACE: Final = "astrid"
"""Where the token actors of live runs stand, shared by nightly and backfills of one cluster."""


@dataclass(frozen=True, slots=True)
class ActorName:
    """Where an actor stands. A name, not a handle, travels to other actors: it outlives their restarts."""

    name: str
    namespace: str

    def find(self) -> Any:
        """Return the handle; this process looks it up once."""
        return _find(self.name, self.namespace)


@lru_cache(maxsize=256)
def _find(name: str, namespace: str) -> Any:
    return ray.get_actor(name, namespace)


class BudgetKeeper:
    """One token's end of its user's budget: of a user's tokens the one of the least name keeps the
    :class:`~astrid.ratelimit.Budget`, the others hand on to it.

    A keeper that was restarted knows of no earlier request: it takes every window for full, and where the upstream
    tells what is left, it asks before it grants.

    Parameters
    ----------
    upstream, user
        Whose budget it is.
    leader
        The keeper of the user's budget; None: this is it.
    expects_nightly
        See :class:`~astrid.ratelimit.Budget`.
    """

    def __init__(self, upstream: str, user: str, leader: ActorName | None, expects_nightly: bool) -> None:
        self._upstream = upstream
        self._leader = leader
        # Receipts of an earlier life's permits must not be taken for this one's.
        self._budget = make_budget(upstream, user, first_id=secrets.randbits(52), expects_nightly=expects_nightly)
        self._is_cold = ray.get_runtime_context().was_current_actor_reconstructed
        self._gauge = Gauge(*metrics.TOKENS_QUARANTINED, tag_keys=("upstream",))
        self._gauge.set(0, {"upstream": upstream})

    async def follow(self, leader: ActorName | None) -> None:
        """Hand on to this keeper of the user's budget from now on; None: keep it here."""
        self._leader = leader
        if leader is not None:
            self._gauge.set(0, {"upstream": self._upstream})  # whom it refuses is the other's to say

    async def exchange(
        self, receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float
    ) -> Grant:
        """See :meth:`astrid.ratelimit.Budget.exchange`."""
        if self._leader is not None:
            grant: Grant = await self._leader.find().exchange.remote(receipts, unused, ask, now_s)
            return grant
        if self._is_cold:
            self._budget.begin_full(now_s)
            self._is_cold = False
        grant = self._budget.exchange(receipts, unused, ask, now_s)
        if receipts:
            self._gauge.set(len(self._budget.quarantined), {"upstream": self._upstream})
        return grant

    async def spent(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return (requests, points) per (lane, bucket) since this keeper began; nothing where another one keeps it."""
        if self._leader is not None:
            return {}
        points = self._budget.points_by_lane
        return {key: (sent, points[key]) for key, sent in self._budget.requests_by_lane.items()}


TokenActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(BudgetKeeper)
# Keyword dictionaries, because the types of ``ray.remote`` do not know max_concurrency.
_BROKER: Final[dict[str, Any]] = {"num_cpus": 0, "max_concurrency": 256}
_CRAWL: Final[dict[str, Any]] = {"num_cpus": 0.1, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 4}
_SCORE: Final[dict[str, Any]] = {"num_cpus": 0.5, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2}
BrokerActor = ray.remote(**_BROKER)(MemoryBroker)
CrawlActor = ray.remote(**_CRAWL)(CrawlWorker)
ScoreActor = ray.remote(**_SCORE)(ScoreWorker)


@dataclass(frozen=True, slots=True)
class RemoteBroker:
    """The memory broker's other end: the same protocol through its actor."""

    place: ActorName

    async def publish(self, batches: Sequence[Batch]) -> None:
        await self.place.find().publish.remote(list(batches))

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        deliveries: list[Delivery] = await self.place.find().receive.remote(source, consumer, limit, wait_s)
        return deliveries

    async def ack(self, delivery: Delivery) -> None:
        await self.place.find().ack.remote(delivery)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        await self.place.find().retry.remote(delivery, delay_s)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        await self.place.find().dead_letter.remote(delivery, reason)

    async def purge(self, sources: Sequence[str]) -> int:
        dropped: int = await self.place.find().purge.remote(list(sources))
        return dropped

    async def close(self) -> None:
        """Leave the actor alone: others use it."""


@dataclass(frozen=True, slots=True)
class RemoteBudgets:
    """The token actors by (upstream, credential): an :class:`~astrid.runtime.ExchangeFor` that may travel."""

    places: Mapping[tuple[str, str], ActorName]
    owners: Owners

    def __call__(self, upstream: str, name: str) -> Exchange:
        place = self.places[upstream, name]

        async def exchange(receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float) -> Grant:
            grant: Grant = await place.find().exchange.remote(list(receipts), list(unused), ask, now_s)
            return grant

        return exchange

    def user(self, upstream: str, name: str) -> str:
        return self.owners.users[name] if upstream == "github" else name

    def uses(self, upstream: str, name: str) -> bool:
        return (upstream, name) in self.places


@dataclass(slots=True)
class Pool:
    """The actors of one driver: crawl actors per source, a score actor, the broker's actor, the budgets."""

    settings: Settings
    broker: Broker | None
    budgets: RemoteBudgets
    owned: list[Any] = field(default_factory=list)
    crawlers: dict[str, list[Any]] = field(default_factory=dict)
    scorer: Any = None
    driver: str = field(default_factory=lambda: secrets.token_hex(4))

    def add_crawlers(self, source: str, count: int) -> None:
        """Start ``count`` actors for a source; the first is called ``CrawlActor:<source>``.

        As a worker it has this driver in its name too: other drivers have workers of the same source, and what one
        of those holds is not left behind by an earlier life of this one.
        """
        for n in range(count):
            name = f"CrawlActor:{source}" + (f":{n}" if n else "")
            actor = CrawlActor.options(name=name).remote(
                self.settings, source, f"{name}@{self.driver}", self.broker, self.budgets
            )
            self.crawlers.setdefault(source, []).append(actor)
            self.owned.append(actor)

    async def crawl(self, run_id: int, sources: Sequence[str], timeline: Timeline) -> None:
        """Let the actors of these sources drain a run.

        Raises
        ------
        AstridError
            What a worker could not get over, as it raised it.
        """
        calls = [a.work.remote(run_id, timeline) for s in sources for a in self.crawlers[s]]
        with _translated("crawl"):
            await asyncio.gather(*calls)

    async def spent(self, lane: str) -> Spent:
        """Return what a lane has spent, over all users, since the token actors began."""
        places = self.budgets.places
        with _translated("token"):
            books = await asyncio.gather(*(place.find().spent.remote() for place in places.values()))
        sums: dict[tuple[str, str], tuple[int, int]] = {}
        for (upstream, _), book in zip(places, books, strict=True):
            for (of_lane, bucket), (requests, points) in book.items():
                if of_lane == lane:
                    requests_before, points_before = sums.get((upstream, bucket), (0, 0))
                    sums[upstream, bucket] = (requests_before + requests, points_before + points)
        return sums

    @property
    def users(self) -> dict[str, int]:
        """How many budgets each upstream has that can be spent."""
        counts = Counter(upstream for upstream, _ in self.budgets.places)
        return {**counts, "github": self.budgets.owners.count()} if "github" in counts else dict(counts)

    async def score(self, run_id: int, day: date, timeline: Timeline) -> int:
        """Let the score actor score a day; errors as in :meth:`crawl`."""
        with _translated("score"):
            ranked: int = await self.scorer.score.remote(run_id, day, timeline)
            return ranked


@asynccontextmanager
async def open_pool(
    settings: Settings, sources: Sequence[str], *, shared: bool, crawlers: int = 1
) -> AsyncGenerator[Pool]:
    """Start the actors for some sources and end them afterwards.

    ``shared`` token actors outlive the driver, so that nightly and backfills of a cluster spend from one
    budget; a replayed night keeps its own.
    """
    upstreams = sorted({u for s in sources for u in SOURCES[s].budgets})
    own = ray.get_runtime_context().namespace
    owned: list[Any] = []
    owners = await read_token_owners(settings) if "github" in upstreams else Owners({})
    budgets = await _start_budgets(settings, upstreams, owners, owned, NAMESPACE if shared else own, shared=shared)
    broker: Broker | None = None
    if settings.broker_url.get_secret_value().startswith("memory://"):
        owned.append(BrokerActor.options(name="BrokerActor").remote())
        broker = RemoteBroker(ActorName("BrokerActor", own))
    pool = Pool(settings, broker, budgets, owned)
    for source in sources:
        pool.add_crawlers(source, crawlers)
    pool.scorer = ScoreActor.options(name="ScoreActor").remote(settings)
    owned.append(pool.scorer)
    try:
        yield pool
    finally:
        # Actors without a name that lasts end with their last handle, and at the latest with the driver.
        owned.clear()
        pool.crawlers.clear()
        pool.scorer = None
        _find.cache_clear()


async def _start_budgets(
    settings: Settings,
    upstreams: Sequence[str],
    owners: Owners,
    owned: list[Any],
    space: str,
    *,
    shared: bool,
) -> RemoteBudgets:
    """Start a token actor per credential, or find it, and tell each who keeps its user's budget.

    The keeper is the one of the least name, so that drivers whose lists of tokens differ in their order agree on it.
    """
    names = sorted((u, n) for u, n in credential_names(settings, upstreams) if u != "github" or n in owners.users)
    places = {
        (upstream, name): ActorName(f"TokenActor:{upstream}" + (f":{name}" if name != upstream else ""), space)
        for upstream, name in names
    }
    budgets = RemoteBudgets(places, owners)
    leaders: dict[tuple[str, str], ActorName] = {}
    for upstream, name in names:
        place, user = places[upstream, name], budgets.user(upstream, name)
        options: dict[str, Any] = {"name": place.name, "namespace": space}
        if shared:
            options |= {"lifetime": "detached", "get_if_exists": True}
        first = leaders.setdefault((upstream, user), place)
        leader = None if first == place else first
        handle: Any = TokenActor.options(**options).remote(upstream, user, leader, shared)
        if not shared:
            owned.append(handle)
        await handle.follow.remote(leader)  # one that was there before may have had another
    return budgets


@asynccontextmanager
async def open_ray(address: str, namespace: str) -> AsyncGenerator[None]:
    """Connect to a cluster (``auto`` or an address), or start a private one (``local``) and end it afterwards.

    Raises
    ------
    ConfigError
        If no cluster answers at the address.
    """
    try:
        await asyncio.to_thread(_init, address, namespace)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        said = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        if address == "local":
            raise AstridError(f"a private Ray did not start: {said}") from exc
        raise ConfigError(f"no Ray cluster answers at {address!r} ({said}): start one with `ray start --head`") from exc
    try:
        # Ray writes its warnings to the standard output, which belongs to the results of a command.
        with redirect_stdout(sys.stderr):
            yield
    finally:
        await asyncio.to_thread(ray.shutdown)


def report_batches() -> Watch:
    """Return a watcher that sets the gauges ``ray_astrid_batches_done`` and ``_total`` per source."""
    done_gauge = Gauge(*metrics.BATCHES_DONE, tag_keys=("source",))
    total_gauge = Gauge(*metrics.BATCHES_TOTAL, tag_keys=("source",))

    def watch(counts: Mapping[str, tuple[int, int]]) -> None:
        for source, (done, total) in counts.items():
            done_gauge.set(done, {"source": source})
            total_gauge.set(total, {"source": source})

    return watch


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Raise an actor's own error where it is one of ours, else say which actor failed and how."""
    try:
        yield
    except ray.exceptions.RayTaskError as exc:
        cause = exc.cause
        raise (cause if isinstance(cause, AstridError) else AstridError(f"a {what} actor failed: {cause!r}")) from exc
    except ray.exceptions.RayActorError as exc:
        raise AstridError(f"a {what} actor died and did not come back: {exc}") from exc


def _init(address: str, namespace: str) -> None:
    options: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {
            "num_cpus": max(2, os.cpu_count() or 2),
            "include_dashboard": False,
            "object_store_memory": 200 * 2**20,
        }
    ray.init(address, **options)
