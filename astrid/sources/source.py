"""What a source is: a frozen record around one generator function."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import inf
from typing import Any, Final, Literal

from astrid.catalog import METRIC_BY_NAME, Timing
from astrid.errors import Malformed
from astrid.limits import BudgetSpec
from astrid.models import Batch, Entity, Gap, Response, Steps

Key = Literal["repository", "package", "npm", "huggingface", "dockerhub", "depsdev", "rules"]
"""What a source's entities are called by: a GitHub repository, a PyPI package, an identifier of that platform in the
watchlist, the names by which deps.dev knows repository and packages, or the rules that find a project in stories."""

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

PATIENCE: Final = 3
"""Where one entity costs one request, an answer that cannot be read fails the batch this often; from then on it
costs its entity alone, which is asked once more at once (a *doubtful* gap). Else one broken entity would take the
others of its batch with it, night after night."""


Span = Literal["lookback", "since_missing", "windows"]
"""Which days a nightly batch asks for: always the same number back from the night's day; all from the first day that
an entity lacks; or, for all entities at once, every range of days that any of them lacks."""


def _any_entity(_: Entity) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Price:
    """What a batch is expected to take: requests, and points where its upstream counts them (else the same)."""

    requests: float
    points: float


def price_by_size(task: Task, entities: Sequence[Entity], days: int) -> Price:
    """Price a batch: by entity where a full one sends a request for each, else the same however full it is."""
    one_each = task.requests_per_batch == task.entities_per_batch
    requests = task.requests_per_batch * (len(entities) / task.entities_per_batch if one_each else 1)
    return Price(requests, requests * task.points_per_request)


@dataclass(frozen=True, slots=True)
class Task:
    """One thing a source can be asked for.

    ``metrics`` are the series that it fills; ``also`` further ones that come along where the upstream states them, and
    of which nobody expects a value. ``entities_per_batch`` and ``days_per_batch`` how much
    one batch holds, ``requests_per_batch`` and ``points_per_request`` what a full one is expected to cost.
    ``cadence_days`` says how often a night asks for an entity: 0 never (backfills only), 1 every night, 7 each entity
    once in seven nights; ``lookback_days`` how many days back such a batch asks for, the night's day included.
    With ``heal_days`` it asks so many back for an entity that lacks some of them, however few it asks for otherwise.
    ``span`` says which days such a batch asks for where that is not simply so many back; ``probe`` how many entities
    are asked while the whole feed stands still, 0 for all of them. ``relieves`` names the task, ``source.task``, whose
    feed this one stands in for: it is asked only while that stands still. ``origin`` names the origin of its values.
    With ``reread_days`` an entity that is asked is asked for everything, as far back as the upstream keeps it, once in
    so many nights: upstreams revise, and what a stand-in filled is read where it belongs.
    ``hours`` is the most that a night gives the task of its bucket's time, at the upstream's limits: for an upstream
    that would rather be asked less than it allows. Who has waited ``reread_days`` goes first then, so that a long list
    goes round. ``accepts`` says which of the source's entities the task is for. ``price`` says what a batch of some
    entities and days is expected to take.
    """

    name: str
    metrics: tuple[str, ...]
    timing: Timing
    bucket: str
    entities_per_batch: int
    days_per_batch: int
    requests_per_batch: float
    points_per_request: int = 1
    cadence_days: int = 0
    lookback_days: int = 1
    heal_days: int = 0
    span: Span = "lookback"
    probe: int = 0
    relieves: str = ""
    origin: str = ""
    reread_days: int = 0
    hours: float = inf
    also: tuple[str, ...] = ()
    accepts: Callable[[Entity], bool] = _any_entity
    price: Callable[[Task, Sequence[Entity], int], Price] = price_by_size


@dataclass(frozen=True, slots=True)
class Source:
    """One upstream, or one way into it.

    ``key`` says what its batches' entities are called by; ``budgets`` what each upstream that it asks allows one
    credential, its own ``upstream`` among them; ``concurrency`` how many batches one worker holds at a time.
    """

    name: str
    upstream: str
    key: Key
    tasks: Mapping[str, Task]
    crawl: Callable[[Batch], Steps]
    concurrency: int
    budgets: Mapping[str, BudgetSpec]


def expected_gaps(batch: Batch, task: Task, reason: str, *, retry: bool) -> tuple[Gap, ...]:
    """Return a gap for every value that ``batch`` should have brought: entities x metrics x days."""
    metric_ids = [METRIC_BY_NAME[name].metric_id for name in task.metrics]
    return tuple(
        Gap(entity.entity_id, metric_id, day, reason, retry)
        for entity in batch.entities
        for metric_id in metric_ids
        for day in days_between(batch.start, batch.end)
    )


def days_between(first: date, last: date) -> list[date]:
    """Return every day from ``first`` to ``last``, both included; none if ``last`` is earlier."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def read_day(value: object) -> date | None:
    """Read ``YYYY-MM-DD``; None for anything else, the other forms of ISO 8601 (a week, no dashes) among it."""
    if not isinstance(value, str) or _DAY.fullmatch(value) is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def read_refusal(response: Response) -> Mapping[str, Any]:
    """Return the JSON object in which an upstream refuses; empty for any other body.

    A 404 says something about an entity only in its upstream's own words: the page of a proxy that is in the way says
    nothing, and would cost a snapshot its day for good if it were believed.
    """
    try:
        body = response.json()
    except Malformed:
        return {}
    return body if isinstance(body, dict) else {}


def gaps_for(entities: tuple[Entity, ...], metrics: tuple[str, ...], days: list[date], reason: str) -> list[Gap]:
    """Return retryable gaps for some entities and days."""
    ids = [METRIC_BY_NAME[name].metric_id for name in metrics]
    return [Gap(e.entity_id, m, d, reason, True) for e in entities for m in ids for d in days]
