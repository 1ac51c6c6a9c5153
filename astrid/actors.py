"""Ray wrappers, once at module level, over plain classes that also run without Ray.

Coarse calls only: a crawl actor is told of a run and drains thousands of batches; a token actor
hands out permits by the handful. This and ``ray_jobs/`` are the only places that import Ray.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, Final

import ray
from ray.util.metrics import Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from astrid import metrics
from astrid.broker import Broker, Delivery
from astrid.broker.memory import MemoryBroker
from astrid.broker.rabbitmq import RabbitBroker, open_rabbitmq
from astrid.clock import count_s, epoch_s
from astrid.custody import Custody
from astrid.errors import AstridError, BrokerError, ConfigError
from astrid.http import Exchange
from astrid.models import Batch
from astrid.pipeline.holdings import Holdings, Key, list_units
from astrid.pipeline.runs import Watch
from astrid.ratelimit import Ask, Budget, Grant, Receipt
from astrid.runtime import CrawlWorker, ScoreWorker, credential_names, make_budget, prefetch_of, read_token_owners
from astrid.settings import Settings
from astrid.sources import SOURCES
from astrid.store import Store
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
    speed
        How fast the run's time passes; None: nobody else spends this budget, so no lease is asked for.
    """

    def __init__(
        self, upstream: str, user: str, leader: ActorName | None, expects_nightly: bool, speed: float | None = None
    ) -> None:
        self._upstream = upstream
        self._leader = leader

        def make() -> Budget:
            # Receipts of an earlier life's permits must not be taken for this one's.
            return make_budget(upstream, user, first_id=secrets.randbits(52), expects_nightly=expects_nightly)

        self._custody = Custody(make, speed or 1.0)
        self._is_leased = speed is not None
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
        """See :meth:`astrid.custody.Custody.exchange`."""
        if self._leader is not None:
            grant: Grant = await self._leader.find().exchange.remote(receipts, unused, ask, now_s)
            return grant
        if not self._is_leased:
            self._begin_alone(now_s)
        grant = self._custody.exchange(receipts, unused, ask, now_s, count_s())
        if receipts:
            self._gauge.set(self._custody.quarantined, {"upstream": self._upstream})
        return grant

    async def begin(
        self, state: Mapping[str, Any], age_s: float, is_clean: bool, trusted_s: float, now_s: float
    ) -> None:
        """See :class:`~astrid.pipeline.holdings.Keeper`; a budget that another driver of this cluster has goes on."""
        until_s = count_s() + trusted_s
        if self._custody.is_ours(count_s()):
            self._custody.renew(until_s)
        else:
            self._custody.begin(state, age_s, is_clean=is_clean, now_s=now_s, until_s=until_s)
        self._is_cold = False

    async def tell(self, now_s: float) -> dict[str, Any]:
        """See :class:`~astrid.pipeline.holdings.Keeper`."""
        return self._custody.tell(now_s)

    async def renew(self, trusted_s: float, now_s: float) -> None:
        """See :class:`~astrid.pipeline.holdings.Keeper`."""
        until_s = count_s() + trusted_s
        if self._is_cold:
            self._custody.begin_blind(now_s, until_s)
            self._is_cold = False
        self._custody.renew(until_s)

    async def end(self) -> None:
        """See :class:`~astrid.pipeline.holdings.Keeper`."""
        self._custody.end()

    def _begin_alone(self, now_s: float) -> None:
        if self._is_cold:
            self._custody.begin_blind(now_s, math.inf)
            self._is_cold = False
        elif not self._custody.is_ours(count_s()):
            self._custody.begin({}, 0.0, is_clean=True, now_s=now_s, until_s=math.inf)


@dataclass(frozen=True, slots=True)
class RemoteKeeper:
    """A budget in its token actor, as :class:`~astrid.pipeline.holdings.Keeper`."""

    place: ActorName
    now_s: Callable[[], float]

    async def begin(self, state: Mapping[str, Any], age_s: float, is_clean: bool, trusted_s: float) -> None:
        with _translated("token"):
            await self.place.find().begin.remote(dict(state), age_s, is_clean, trusted_s, self.now_s())

    async def tell(self) -> Mapping[str, Any]:
        with _translated("token"):
            told: Mapping[str, Any] = await self.place.find().tell.remote(self.now_s())
            return told

    async def renew(self, trusted_s: float) -> None:
        with _translated("token"):
            await self.place.find().renew.remote(trusted_s, self.now_s())

    async def end(self) -> None:
        with _translated("token"):
            await self.place.find().end.remote()


class Cluster:
    """What all drivers of a Ray cluster have in common: the name under which they hold its budgets."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(6)

    def name(self) -> str:
        """Return the name; it is another one after the cluster was started again, as its budgets are."""
        return self._name


class NodeBroker(RabbitBroker):
    """The one connection to RabbitMQ of a node, for all the crawl actors there; it is opened when it is needed.

    One that was restarted holds nothing: the broker delivers again what its crawl actors had in hand.
    """

    def __init__(self, settings: Settings) -> None:
        url = settings.broker_url.get_secret_value()
        # A delivery of an earlier life must not be taken for one of this life's.
        super().__init__(url, prefetch_of(list(SOURCES)), first_tag=secrets.randbits(52))

    async def pid(self) -> int:
        """Return the process that this broker lives in."""
        return os.getpid()


TokenActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(BudgetKeeper)
ClusterActor = ray.remote(num_cpus=0, max_restarts=0)(Cluster)
# Keyword dictionaries, because the types of ``ray.remote`` do not know max_concurrency.
_BROKER: Final[dict[str, Any]] = {"num_cpus": 0, "max_concurrency": 256}
_CRAWL: Final[dict[str, Any]] = {"num_cpus": 0.1, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 4}
_SCORE: Final[dict[str, Any]] = {"num_cpus": 0.5, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2}
BrokerActor = ray.remote(**_BROKER)(MemoryBroker)
NodeBrokerActor = ray.remote(**_BROKER, max_restarts=-1, max_task_retries=-1)(NodeBroker)
CrawlActor = ray.remote(**_CRAWL)(CrawlWorker)
ScoreActor = ray.remote(**_SCORE)(ScoreWorker)


@dataclass(frozen=True, slots=True)
class RemoteBroker:
    """The other end of a broker that lives in an actor: the same protocol, through it.

    Parameters
    ----------
    place
        Where the memory broker's actor stands, or what the RabbitMQ actors of the nodes are called.
    settings
        None: the memory broker. Else RabbitMQ, through the actor of the node that this is used on.
    """

    place: ActorName
    settings: Settings | None = None

    async def publish(self, batches: Sequence[Batch]) -> None:
        await self._call("publish", list(batches))

    async def receive(self, source: str, consumer: str, limit: int, wait_s: float) -> list[Delivery]:
        deliveries: list[Delivery] = await self._call("receive", source, consumer, limit, wait_s)
        return deliveries

    async def ack(self, delivery: Delivery) -> None:
        await self._call("ack", delivery)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        await self._call("retry", delivery, delay_s)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        await self._call("dead_letter", delivery, reason)

    async def release(self, consumer: str, *, held: bool = True) -> None:
        await self._call("release", consumer, held=held)

    async def ready(self, sources: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = await self._call("ready", list(sources))
        return counts

    async def purge(self, sources: Sequence[str]) -> int:
        dropped: int = await self._call("purge", list(sources))
        return dropped

    async def close(self) -> None:
        """Leave the actor alone: others use it."""

    async def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            try:
                return await getattr(self._actor(), method).remote(*arguments, **options)
            except ray.exceptions.RayActorError:
                if self.settings is None:
                    raise
                # Whoever had started it is gone, and it with him.
                _node_brokers.clear()
                return await getattr(self._actor(), method).remote(*arguments, **options)
        except ray.exceptions.RayTaskError as exc:
            cause = exc.cause
            raise (
                cause if isinstance(cause, AstridError) else BrokerError(f"a broker actor failed: {cause!r}")
            ) from exc
        except (ray.exceptions.RayActorError, ValueError) as exc:
            # A broker comes back; what stood in the memory of a dead actor does not, and nobody must wait for it.
            kind = AstridError if self.settings is None else BrokerError
            raise kind(f"the broker's actor is gone: {str(exc).splitlines()[0]}") from exc

    def _actor(self) -> Any:
        if self.settings is None:
            return self.place.find()
        return start_node_broker(self.place, self.settings, ray.get_runtime_context().get_node_id())


_node_brokers: Final[dict[str, Any]] = {}
"""The actors of :func:`start_node_broker` that this process has used, by name."""


def start_node_broker(place: ActorName, settings: Settings, node_id: str) -> Any:
    """Return the RabbitMQ actor of a node, started there if there is none; it ends with the process that started it."""
    name = f"{place.name}:{node_id}"
    if name not in _node_brokers:
        here = NodeAffinitySchedulingStrategy(node_id, soft=False)
        _node_brokers[name] = NodeBrokerActor.options(
            name=name, namespace=place.namespace, get_if_exists=True, scheduling_strategy=here
        ).remote(settings)
    return _node_brokers[name]


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
    broker: Broker
    budgets: RemoteBudgets
    owned: list[Any] = field(default_factory=list)
    crawlers: dict[str, list[Any]] = field(default_factory=dict)
    scorer: Any = None
    cluster: Any = None
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

    @property
    def users(self) -> dict[str, int]:
        """How many budgets each upstream has that can be spent."""
        counts = Counter(upstream for upstream, _ in self.budgets.places)
        return {**counts, "github": self.budgets.owners.count()} if "github" in counts else dict(counts)

    async def claim(self, store: Store, timeline: Timeline) -> Holdings:
        """Return what keeps the leases of all budgets of this pool, under the name of its cluster."""
        with _translated("cluster"):
            name: str = await self.cluster.name.remote()
        keepers: dict[Key, RemoteKeeper] = {}
        users: dict[str, list[str]] = {}
        for upstream, token in self.budgets.places:
            key = upstream, self.budgets.user(upstream, token)
            if key not in keepers:  # of a user's tokens the first by name keeps the budget
                keepers[key] = RemoteKeeper(
                    self.budgets.places[upstream, token], lambda: timeline.at(epoch_s()).timestamp()
                )
                users.setdefault(upstream, []).append(key[1])
        units = list_units({source: SOURCES[source] for source in self.crawlers}, users)
        return Holdings(
            store,
            f"ray {name}#cluster",
            units,
            keepers,
            self.settings.lease_seconds,
            whole=True,
            presence=f"ray {name} {self.driver}",
        )

    async def score(self, run_id: int, day: date, timeline: Timeline) -> int:
        """Let the score actor score a day; errors as in :meth:`crawl`."""
        with _translated("score"):
            ranked: int = await self.scorer.score.remote(run_id, day, timeline)
            return ranked


@asynccontextmanager
async def open_pool(
    settings: Settings, sources: Sequence[str], *, shared: bool, leased: bool = True, crawlers: int = 1
) -> AsyncGenerator[Pool]:
    """Start the actors for some sources and end them afterwards.

    ``shared`` token actors outlive the driver, so that nightly and backfills of a cluster spend from one
    budget; a replayed night keeps its own. ``leased``: others than this cluster spend of the same budgets, so they
    grant only what :meth:`Pool.claim` has leases for.
    """
    upstreams = sorted({u for s in sources for u in SOURCES[s].budgets})
    own = ray.get_runtime_context().namespace
    owned: list[Any] = []
    owners = await read_token_owners(settings) if "github" in upstreams else Owners({})
    space = NAMESPACE if shared else own
    speed = settings.clock_speed if leased else None
    budgets = await _start_budgets(settings, upstreams, owners, owned, space, speed, shared=shared)
    if settings.broker_url.get_secret_value().startswith("memory://"):
        owned.append(BrokerActor.options(name="BrokerActor").remote())
        broker = RemoteBroker(ActorName("BrokerActor", own))
    else:
        async with open_rabbitmq(settings.broker_url.get_secret_value()):
            pass  # an address that cannot be right is said at once, not waited for
        broker = RemoteBroker(ActorName("BrokerActor", own), settings)
        # The driver's, so that they outlive a crawl actor's death; on a node that comes later a crawl actor starts it.
        for node in await asyncio.to_thread(ray.nodes):
            if node["Alive"]:
                start_node_broker(broker.place, settings, node["NodeID"])
    pool = Pool(settings, broker, budgets, owned)
    lasting: dict[str, Any] = {"lifetime": "detached"} if shared else {}
    pool.cluster = ClusterActor.options(name="Cluster", namespace=space, get_if_exists=True, **lasting).remote()
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
        pool.scorer = pool.cluster = None
        _find.cache_clear()
        _node_brokers.clear()


async def _start_budgets(
    settings: Settings,
    upstreams: Sequence[str],
    owners: Owners,
    owned: list[Any],
    space: str,
    speed: float | None,
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
        handle: Any = TokenActor.options(**options).remote(upstream, user, leader, shared, speed)
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
