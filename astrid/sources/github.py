"""GitHub: counts and commits by GraphQL ``nodes(ids:)``, daily star gains by ``/stargazers/history``.

Counts are snapshots; the id is the identity, a name is looked up once and its changes are recorded. Commits and
history rows are dated. Limits: GitHub docs, "Rate limits for the REST API" and "Rate limits and query limits for the
GraphQL API".
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Request, Steps
from astrid.sources.github_commits import DAYS, MAX_HISTORIES, crawl_commits
from astrid.sources.github_counts import COUNTS, TOTALS, crawl_counts
from astrid.sources.github_history import WEEKS_PER_PAGE, crawl_history
from astrid.sources.github_identity import API_VERSION
from astrid.sources.source import Price, Source, Task

HEALED_DAYS: Final = 35
"""GitHub serves histories back to the beginning; a night reads what it lacks of the days that it knows about."""


def crawl(batch: Batch) -> Steps:
    """Read counts (tasks ``counts``, ``totals``), commits or star gains per day (``commits``, ``history``).

    An entity's ``key`` is its node id, or empty if it is not known yet; ``names[0]`` is ``owner/name``.
    """
    match batch.task:
        case "counts":
            return (yield from crawl_counts(batch, COUNTS, explains=True))
        case "totals":
            return (yield from crawl_counts(batch, TOTALS))
        case "commits":
            return (yield from crawl_commits(batch))
        case _:
            return (yield from crawl_history(batch))


def _price_counts(task: Task, entities: Sequence[Entity], days: int) -> Price:
    return _with_lookup(1, task.points_per_request, entities)


def _price_commits(task: Task, entities: Sequence[Entity], days: int) -> Price:
    """Price some days: a query counts the commits of so many days in all, whosever they are."""
    requests = len(entities) / max(1, MAX_HISTORIES // days)
    return _with_lookup(requests, requests * task.points_per_request, entities)


def _price_history(_: Task, entities: Sequence[Entity], days: int) -> Price:
    """Price the pages of each repository, and the one request that finds out what they are called today."""
    requests = 1 + len(entities) * ceil((days + 6) / 7 / WEEKS_PER_PAGE)
    return Price(requests, requests)


def _with_lookup(requests: float, points: float, entities: Sequence[Entity]) -> Price:
    """Add the request, of one point, that it takes to look up names without an id."""
    lookup = int(any(not e.key for e in entities))
    return Price(requests + lookup, points + lookup)


SOURCE: Final = Source(
    name="github",
    upstream="github",
    key="repository",
    tasks={
        "counts": Task(
            "counts",
            ("github_stars", "github_forks"),
            "snapshot",
            "graphql",
            COUNTS.largest,
            1,
            1,
            cadence_days=1,
            price=_price_counts,
        ),
        "totals": Task(
            "totals",
            ("github_watchers", "github_open_issues", "github_open_pulls", "github_releases"),
            "snapshot",
            "graphql",
            TOTALS.largest,
            1,
            1,
            points_per_request=TOTALS.points(TOTALS.largest),
            cadence_days=1,
            price=_price_counts,
        ),
        "commits": Task(
            "commits",
            ("github_commits",),
            "dated",
            "graphql",
            5 * (MAX_HISTORIES // DAYS),
            28,
            5,
            cadence_days=7,
            lookback_days=DAYS,
            heal_days=HEALED_DAYS,
            price=_price_commits,
        ),
        "history": Task(
            "history",
            ("github_stars_gained",),
            "dated",
            "core",
            20,
            10_000,
            21,
            cadence_days=7,
            lookback_days=14,
            heal_days=HEALED_DAYS,
            price=_price_history,
        ),
    },
    crawl=crawl,
    concurrency=12,
    budgets={
        "github": BudgetSpec(
            {
                "core": BucketSpec((Window(900, 60.0),), 5000),
                "graphql": BucketSpec((Window(2000, 60.0),), 5000, busy_s=60.0),
                "search": BucketSpec((Window(30, 60.0),)),
            },
            concurrency=90,  # GitHub allows 100, shared by REST and GraphQL
            busy_s=90.0,
            probe=Request("github", "GET", "/rate_limit", headers=(API_VERSION,)),
        )
    },
)
