"""GitHub: star and fork counts by GraphQL ``nodes(ids:)``, daily star gains by ``/stargazers/history``.

Counts are snapshots, 100 repositories for one point; the id is the identity, a name is looked up
once and its changes are recorded. History rows are dated. Facts: docs.github.com, "Rate limits and
query limits for the GraphQL API"; github.blog changelog 2026-09-04 (star history endpoint).
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, RateLimited, TooLarge, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Gap, Identity, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Source, Task, days_between

API_VERSION: Final = ("x-github-api-version", "2026-03-10")
WEEKS_PER_PAGE: Final = 30
MAX_PAGES: Final = 100
STARS: Final = METRIC_BY_NAME["github_stars"].metric_id
FORKS: Final = METRIC_BY_NAME["github_forks"].metric_id
GAINED: Final = METRIC_BY_NAME["github_stars_gained"].metric_id
GRAPHQL: Final = ORIGIN_BY_NAME["github_graphql"].origin_id
HISTORY: Final = ORIGIN_BY_NAME["github_stargazers_history"].origin_id

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}")
_ID: Final = re.compile(r"[!-~]{1,200}")
_RATE = "rateLimit { cost limit remaining used resetAt nodeCount }"
COUNTS_QUERY: Final = (
    "query Counts($ids: [ID!]!) { nodes(ids: $ids) { __typename id "
    "... on Repository { databaseId nameWithOwner stargazerCount forkCount } } " + _RATE + " }"
)

Row = tuple[int, int, date, float, int]


def crawl(batch: Batch) -> Steps:
    """Read counts (task ``counts``) or daily star gains (task ``history``) of the batch's repositories.

    An entity's ``key`` is its node id, or empty if it is not known yet; ``names[0]`` is ``owner/name``.

    Raises
    ------
    TooLarge
        If GitHub gave up on the query's size (502, resource limits): split the batch.
    Unavailable
        If GitHub failed on a query that cannot be split.
    """
    return (yield from (_counts(batch) if batch.task == "counts" else _history(batch)))


def _counts(batch: Batch) -> Steps:
    gaps: list[Gap] = []
    identities: list[Identity] = []
    ids = {e.entity_id: e.key for e in batch.entities if e.key}
    unknown = [e for e in batch.entities if not e.key]
    if unknown:
        answer = yield _graphql(resolve_query(unknown))
        found, lost = parse_resolved(answer, unknown, batch.day)
        identities += found
        gaps += lost
        ids |= {i.entity_id: i.upstream_id for i in found}
    tracked = [e for e in batch.entities if e.entity_id in ids]
    if not tracked:
        return Observations.from_rows([], gaps, identities)
    node_ids = [ids[e.entity_id] for e in tracked]
    answer = yield _graphql(COUNTS_QUERY, {"ids": node_ids})
    rows, lost, renamed = parse_counts(answer, tracked, node_ids, batch.day)
    return Observations.from_rows(rows, gaps + lost, identities + renamed)


def resolve_query(entities: Sequence[Entity]) -> str:
    """Return one query that asks for the ids of up to 100 names; aliases are ``r0``, ``r1`` …"""
    parts = []
    for n, entity in enumerate(entities):
        owner, _, name = entity.names[0].partition("/")
        parts.append(
            f"r{n}: repository(owner: {json.dumps(owner)}, name: {json.dumps(name)}) {{ id databaseId nameWithOwner }}"
        )
    return f"query Resolve {{ {' '.join(parts)} {_RATE} }}"


def parse_resolved(response: Response, entities: Sequence[Entity], day: date) -> tuple[list[Identity], list[Gap]]:
    """Read the answer to :func:`resolve_query`: an identity or a pair of gaps per entity."""
    data, errors = _read_graphql(response, len(entities))
    identities: list[Identity] = []
    gaps: list[Gap] = []
    for n, entity in enumerate(entities):
        node = data.get(f"r{n}")
        stated = (node.get("id"), node.get("nameWithOwner")) if isinstance(node, dict) else (None, None)
        upstream_id, name = _matching(_ID, stated[0]), _matching(_NAME, stated[1])
        if upstream_id and name:
            identities.append(Identity(entity.entity_id, "github", upstream_id, name))
        else:
            gaps += _snapshot_gaps(entity, day, *_reason(errors.get(f"r{n}"), entity.names[0]))
    return identities, gaps


def parse_counts(
    response: Response, entities: Sequence[Entity], node_ids: Sequence[str], day: date
) -> tuple[list[Row], list[Gap], list[Identity]]:
    """Read the answer to ``COUNTS_QUERY``: two rows per repository, or its gaps; renames as identities.

    A node that is null, has another type, or counts that are no non-negative integers costs itself alone.
    """
    data, errors = _read_graphql(response, len(entities))
    nodes = data.get("nodes")
    if not isinstance(nodes, list) or len(nodes) != len(entities):
        raise Malformed(f"GitHub answered {_length(nodes)} nodes for {len(entities)} ids")
    rows: list[Row] = []
    gaps: list[Gap] = []
    renamed: list[Identity] = []
    for n, (entity, node_id, node) in enumerate(zip(entities, node_ids, nodes, strict=True)):
        if not isinstance(node, dict):
            gaps += _snapshot_gaps(entity, day, *_reason(errors.get(f"nodes.{n}"), node_id))
            continue
        if node.get("id") != node_id:
            gaps += _snapshot_gaps(entity, day, f"asked for {node_id}, got {repr(node.get('id'))[:80]}", True)
            continue
        for metric_id, field in ((STARS, "stargazerCount"), (FORKS, "forkCount")):
            value = node.get(field)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
                rows.append((entity.entity_id, metric_id, day, float(value), GRAPHQL))
            else:
                gaps.append(Gap(entity.entity_id, metric_id, day, f"{field} is {repr(value)[:80]}", True))
        name = _matching(_NAME, node.get("nameWithOwner"))
        if name and entity.names and name.lower() != entity.names[0].lower():
            renamed.append(Identity(entity.entity_id, "github", node_id, name))
    return rows, gaps, renamed


def _history(batch: Batch) -> Steps:
    rows: list[Row] = []
    gaps: list[Gap] = []
    for entity in batch.entities:
        try:
            days, reason, retry = yield from _history_of(entity, batch.start)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            days, reason, retry = {}, str(exc), True
        for day in days_between(batch.start, batch.end):
            if day in days:
                rows.append((entity.entity_id, GAINED, day, float(days[day]), HISTORY))
            elif reason or day > min(days):
                # Days before the first one are no gaps: the repository did not exist yet.
                late = "the history does not reach this day yet" if days and day > max(days) else ""
                why = reason or late or "the history states no sound count for this day"
                gaps.append(Gap(entity.entity_id, GAINED, day, why, retry))
    return Observations.from_rows(rows, gaps)


def _history_of(entity: Entity, first: date) -> Generator[Request, Response, tuple[dict[date, int], str, bool]]:
    """Page back to ``first``; return gains per day, or why there are none and whether to ask again."""
    days: dict[date, int] = {}
    path = f"/repos/{entity.names[0]}/stargazers/history"
    params: tuple[tuple[str, str], ...] = (("per_page", str(WEEKS_PER_PAGE)), ("page", "1"))
    moved = False
    for _ in range(MAX_PAGES):
        response = yield Request(
            "github", "GET", path, params, headers=(API_VERSION,), bucket="core", sticky=entity.names[0]
        )
        if response.status in (301, 302, 307, 308) and not moved:
            moved = True
            path, stated = _follow(response.headers.get("location", ""))
            params = stated or params
            continue
        if response.status in (404, 451) or (response.status == 403 and b'"block"' in response.body):
            return {}, f"GitHub answers {response.status} for {entity.names[0]}: deleted, private or blocked", False
        _raise_for_status(response, 1)
        weeks = parse_history(response)
        days |= weeks
        following = _next_page(response.headers.get("link", ""))
        if not weeks or min(weeks) <= first or following is None:
            break
        path, params = _follow(following)
    return days, "" if days else "the history is empty", True


def parse_history(response: Response) -> dict[date, int]:
    """Read one page: star gains per UTC day.

    Weeks that do not start on a Sunday 00:00 UTC or have not seven days (only the newest may have fewer),
    days without a non-negative count, and weeks stated twice with different counts are left out: a gap, not a guess.

    Raises
    ------
    Malformed
        If the body is no list of weeks.
    """
    weeks = response.json()
    if not isinstance(weeks, list):
        raise Malformed(f"star history is {type(weeks).__name__}, not a list of weeks")
    stated: dict[date, list[Any]] = {}
    doubled: set[date] = set()
    for week in weeks:
        sunday = _sunday(week.get("week")) if isinstance(week, dict) else None
        if sunday is None or not isinstance(week.get("days"), list):
            continue
        if stated.setdefault(sunday, week["days"]) != week["days"]:
            doubled.add(sunday)
    newest = max(stated, default=None)
    return {
        sunday + timedelta(days=n): count
        for sunday, counts in stated.items()
        if sunday not in doubled and (len(counts) == 7 or (sunday == newest and len(counts) < 7))
        for n, count in enumerate(counts)
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31
    }


def _sunday(epoch_s: object) -> date | None:
    # Until the year 2100: a later week is a mistake, and dates end in 9999.
    if not isinstance(epoch_s, int) or not 0 <= epoch_s < 4_102_444_800 or epoch_s % 86_400:
        return None
    day = datetime.fromtimestamp(epoch_s, UTC).date()
    return day if day.weekday() == 6 else None


def _graphql(query: str, variables: dict[str, Any] | None = None) -> Request:
    body: dict[str, Any] = {"query": query}
    if variables is not None:
        body["variables"] = variables
    return Request(
        "github", "POST", "/graphql", json=body, bucket="graphql", cost=1, sticky=query[:12] + str(variables)
    )


def _read_graphql(response: Response, size: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the data and the errors by path (``nodes.3``, ``r7``).

    Raises
    ------
    TooLarge, Unavailable
        If GitHub gave up; the first if the query can be made smaller.
    Malformed
        If the body is not a GraphQL answer.
    """
    _raise_for_status(response, size)
    body = response.json()
    if not isinstance(body, dict):
        raise Malformed(f"GraphQL answer is {type(body).__name__}, not an object")
    stated = body.get("errors")
    errors = [e for e in stated if isinstance(e, dict)] if isinstance(stated, list) else []
    if any(e.get("type") == "RESOURCE_LIMITS_EXCEEDED" for e in errors):
        raise _gave_up("resource limits exceeded", size)
    data = body.get("data")
    if not isinstance(data, dict):
        said = str(errors[0].get("message")) if errors else "no data and no errors"
        if "something went wrong" in said.lower() or "respond to your request in time" in said.lower():
            raise _gave_up(said, size)
        raise Malformed(f"GitHub refused the query: {said[:200]}")
    return data, {".".join(map(str, e["path"])): e for e in errors if isinstance(e.get("path"), list)}


def _raise_for_status(response: Response, size: int) -> None:
    if response.status >= 500:
        raise _gave_up(f"GitHub answered {response.status}", size)
    if response.status == 422 and b"spammed" in response.body.lower():
        raise RateLimited("GitHub throttles the history endpoint (422)", retry_after_s=60.0)
    if response.status != 200:
        raise Malformed(f"GitHub answered {response.status}: {response.body[:120].decode('utf-8', 'replace')}")


def _gave_up(said: str, size: int) -> TooLarge | Unavailable:
    return TooLarge(f"{said} for {size} repositories") if size > 1 else Unavailable(said)


def _reason(error: dict[str, Any] | None, what: str) -> tuple[str, bool]:
    """Return why a node is null, and whether a later request may find it."""
    # Reasons are few and fixed: the upstream's own text carries times and request ids.
    if error is None:
        return f"GitHub gave null for {what} and no reason", True
    kind = error.get("type")
    if kind == "NOT_FOUND":
        return "GitHub does not find it: deleted, private or blocked", False
    return f"GitHub could not answer for this repository ({str(kind or 'no type')[:40]})", True


def _snapshot_gaps(entity: Entity, day: date, reason: str, retry: bool) -> list[Gap]:
    return [Gap(entity.entity_id, metric_id, day, reason, retry) for metric_id in (STARS, FORKS)]


def _next_page(link: str) -> str | None:
    for part in link.split(","):
        url, _, rel = part.partition(";")
        if 'rel="next"' in rel:
            return url.strip().strip("<>")
    return None


def _follow(url: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return path and parameters of a link of GitHub's, relative to the configured base URL."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise Malformed(f"GitHub's link is no URL: {url[:120]!r}") from exc
    below = re.search(r"/(repositories|repos)/.*", parts.path)
    if below is None:
        raise Malformed(f"GitHub's link leads elsewhere: {url[:120]!r}")
    return below[0], tuple(parse_qsl(parts.query))


def _matching(pattern: re.Pattern[str], value: object) -> str:
    """Return a text that has the expected form, else an empty one."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def _length(value: object) -> str:
    return str(len(value)) if isinstance(value, list) else type(value).__name__


SOURCE: Final = Source(
    name="github",
    upstream="github",
    key="repository",
    tasks={
        "counts": Task("counts", ("github_stars", "github_forks"), "snapshot", "graphql", 100, 1, 1, cadence_days=1),
        "history": Task("history", ("github_stars_gained",), "dated", "core", 10, 10_000, 10, cadence_days=7, lookback_days=14),
    },
    crawl=crawl,
    concurrency=12,
    budgets={
        "github": BudgetSpec(
            {
                "core": BucketSpec((Window(900, 60.0),), 5000),
                "graphql": BucketSpec((Window(2000, 60.0),), 5000),
                "search": BucketSpec((Window(30, 60.0),)),
            },
            concurrency=90,  # GitHub allows 100, shared by REST and GraphQL
        )
    },
)
