"""Ray wrappers, once at module level, over plain classes that also run without Ray.

Coarse calls only: a crawl actor is told of a run and drains thousands of batches; a token actor
hands out permits by the handful. This and ``ray_jobs/`` are the only places that import Ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
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
from astrid.pipeline.night import Watch
from astrid.ratelimit import Budget, Grant, Receipt
from astrid.runtime import CrawlWorker, ExchangeFor, ScoreWorker, credentials_of
from astrid.settings import Settings
from astrid.sources import BUDGETS, SOURCES
from astrid.timeline import Timeline

log = logging.getLogger(__name__)

NAMESPACE: Final = "astrid"
"""Where the token actors of live runs stand, shared by nightly and backfills of one cluster."""


class BudgetKeeper:
    """A :class:`~astrid.ratelimit.Budget` that an actor holds. A restarted one knows of no earlier request;
    the headers of the next answers correct it where the upstream has any.
    """

    def __init__(self, upstream: str) -> None:
        self._budget = Budget(BUDGETS[upstream])

    def exchange(
        self, receipts: Sequence[Receipt], unused: Sequence[int], bucket: str, cost: int, want: int, now_s: float
    ) -> Grant:
        """See :meth:`astrid.ratelimit.Budget.exchange`."""
        return self._budget.exchange(receipts, unused, bucket, cost, want, now_s)

    def spent(self) -> dict[str, int]:
        """Return the points spent per bucket."""
        return dict(self._budget.points_spent)


TokenActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(BudgetKeeper)
# Keyword dictionaries, because the types of ``ray.remote`` do not know max_concurrency.
_BROKER: Final[dict[str, Any]] = {"num_cpus": 0, "max_concurrency": 256}
_CRAWL: Final[dict[str, Any]] = {"num_cpus": 0.1, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 4}
_SCORE: Final[dict[str, Any]] = {"num_cpus": 0.5, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2}
BrokerActor = ray.remote(**_BROKER)(MemoryBroker)
CrawlActor = ray.remote(**_CRAWL)(CrawlWorker)
ScoreActor = ray.remote(**_SCORE)(ScoreWorker)


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
    """The token actors by (upstream, credential): an :data:`~astrid.runtime.ExchangeFor` that may travel."""

    places: Mapping[tuple[str, str], ActorName]

    def __call__(self, upstream: str, name: str) -> Exchange:
        place = self.places[upstream, name]

        async def exchange(
            receipts: Sequence[Receipt], unused: Sequence[int], bucket: str, cost: int, want: int, now_s: float
        ) -> Grant:
            grant: Grant = await place.find().exchange.remote(list(receipts), list(unused), bucket, cost, want, now_s)
            return grant

        return exchange


@dataclass(slots=True)
class Pool:
    """The actors of one driver: crawl actors per source, a score actor, the broker's actor, the budgets."""

    settings: Settings
    broker: Broker | None
    budgets: ExchangeFor
    owned: list[Any] = field(default_factory=list)
    crawlers: dict[str, list[Any]] = field(default_factory=dict)
    scorer: Any = None

    def add_crawlers(self, source: str, count: int) -> None:
        """Start ``count`` actors for a source; the first is called ``CrawlActor:<source>``."""
        for n in range(count):
            name = f"CrawlActor:{source}" + (f":{n}" if n else "")
            actor = CrawlActor.options(name=name).remote(self.settings, source, name, self.broker, self.budgets)
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
    places: dict[tuple[str, str], ActorName] = {}
    upstreams = sorted({SOURCES[s].upstream for s in sources})
    own = ray.get_runtime_context().namespace
    owned: list[Any] = []

    def start(upstream: str, name: str) -> Exchange:
        label = f"TokenActor:{upstream}" + (f":{name}" if name != upstream else "")
        options: dict[str, Any] = {"name": label, "namespace": own}
        if shared:
            options |= {"namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
        places[upstream, name] = ActorName(label, options["namespace"])
        handle = TokenActor.options(**options).remote(upstream)
        if not shared:
            owned.append(handle)
        return RemoteBudgets(places)(upstream, name)

    credentials_of(settings, upstreams, start)
    broker: Broker | None = None
    if settings.broker_url.get_secret_value().startswith("memory://"):
        owned.append(BrokerActor.options(name="BrokerActor").remote())
        broker = RemoteBroker(ActorName("BrokerActor", own))
    pool = Pool(settings, broker, RemoteBudgets(places), owned)
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
