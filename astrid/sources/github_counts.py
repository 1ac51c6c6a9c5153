"""GitHub's counts of many repositories in one GraphQL query, ``nodes(ids:)``, as large as GitHub bears.

A query that GitHub gives up on (502, an HTML page, resource limits) is halved until it passes, and grows back. A
missing repository is an absent row, never a zero. Facts: GitHub docs, "Rate limits and query limits for the GraphQL
API"; a partial answer with RESOURCE_LIMITS_EXCEEDED keeps what it states.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.models import Batch, Entity, Gap, Identity, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE

GRAPHQL: Final = ORIGIN_BY_NAME["github_graphql"].origin_id
STARS: Final = METRIC_BY_NAME["github_stars"].metric_id
FORKS: Final = METRIC_BY_NAME["github_forks"].metric_id
MAX_FAILURES: Final = 9
"""Queries of one batch that may fail in a row: enough to halve 100 down to one repository that fails alone, few enough
for GitHub's own outages."""
GROWS_AFTER: Final = 2
"""Clean answers after which a halved query doubles again."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}")
_ID: Final = re.compile(r"[!-~]{1,200}")
_RATE = "rateLimit { cost limit remaining used resetAt nodeCount }"

Row = tuple[int, int, date, float, int]


@dataclass(frozen=True, slots=True)
class Field:
    """A repository's field behind a metric: an integer, or with ``arguments`` (may be blank) a connection's count."""

    metric_id: int
    name: str
    arguments: str | None = None

    def __str__(self) -> str:
        return self.name if self.arguments is None else f"{self.name}{self.arguments} {{ totalCount }}"

    def read(self, node: dict[str, Any]) -> object:
        """Return what a repository states for the field."""
        value = node.get(self.name)
        if self.arguments is None:
            return value
        return value.get("totalCount") if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of query: its name, its fields, and how many repositories one asks for at most."""

    name: str
    fields: tuple[Field, ...]
    largest: int

    @property
    def query(self) -> str:
        """Return the query of this form; ``$ids`` are node ids."""
        fields = " ".join(map(str, self.fields))
        return (
            f"query {self.name}($ids: [ID!]!) {{ nodes(ids: $ids) {{ __typename id "
            f"... on Repository {{ databaseId nameWithOwner {fields} }} }} {_RATE} }}"
        )

    def points(self, repositories: int) -> int:
        """Return what a query costs: a hundredth of its connections, rounded, at least one (GitHub docs)."""
        connections = sum(field.arguments is not None for field in self.fields)
        return max(1, (connections * repositories + 50) // 100)


COUNTS: Final = Form("Counts", (Field(STARS, "stargazerCount"), Field(FORKS, "forkCount")), 100)
TOTALS: Final = Form(
    "Totals",
    (
        Field(METRIC_BY_NAME["github_watchers"].metric_id, "watchers", ""),
        Field(METRIC_BY_NAME["github_open_issues"].metric_id, "issues", "(states: OPEN)"),
        Field(METRIC_BY_NAME["github_open_pulls"].metric_id, "pullRequests", "(states: OPEN)"),
        Field(METRIC_BY_NAME["github_releases"].metric_id, "releases", ""),
    ),
    50,
)


def crawl_counts(batch: Batch, form: Form) -> Steps:
    """Read one form's counts of the batch's repositories.

    An entity's ``key`` is its node id, or empty if it is not known yet; ``names[0]`` is ``owner/name``.

    Raises
    ------
    TooLarge, Unavailable
        If GitHub gives up on the look-up of names, or on every query in a row.
    Malformed
        If an answer is no GraphQL answer at all.
    """
    gaps: list[Gap] = []
    identities: list[Identity] = []
    ids = {e.entity_id: e.key for e in batch.entities if e.key}
    unknown = [e for e in batch.entities if not e.key]
    if unknown:
        answer = yield _graphql(resolve_query(unknown))
        found, lost = parse_resolved(answer, unknown, batch.day, form)
        identities += found
        gaps += lost
        ids |= {i.entity_id: i.upstream_id for i in found}
    rows: list[Row] = []
    tracked = [e for e in batch.entities if e.entity_id in ids]
    yield from _ask(tracked, ids, batch, form, rows, gaps, identities)
    return Observations.from_rows(rows, gaps, identities)


def _ask(
    tracked: Sequence[Entity],
    ids: dict[int, str],
    batch: Batch,
    form: Form,
    rows: list[Row],
    gaps: list[Gap],
    identities: list[Identity],
) -> Generator[Request, Response, None]:
    """Ask for all of ``tracked`` in queries as large as GitHub bears, and add what they bring to the lists."""
    waiting = deque(tracked)
    size, clean, failures = form.largest, 0, 0
    answered, said = False, ""
    while waiting:
        group = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        node_ids = [ids[e.entity_id] for e in group]
        answer = yield _graphql(form.query, {"ids": node_ids}, form.points(len(group)))
        try:
            found, lost, renamed, again = parse_counts(answer, group, node_ids, batch.day, form)
        except (TooLarge, Unavailable) as exc:
            failures += 1
            said = f"GitHub gave up on {failures} queries in a row: {exc}"
            if failures >= MAX_FAILURES:
                raise Unavailable(said) from exc
            if len(group) == 1:
                gaps += _gaps(form, group[0], batch.day, "GitHub gives up on this repository alone", True)
            else:
                waiting.extendleft(reversed(group))
            size, clean = max(1, len(group) // 2), 0
            continue
        answered = True
        rows += found
        gaps += lost
        identities += renamed
        if again:
            # A part was answered. Where it is none, the query was too large as a whole.
            waiting.extendleft(reversed(again))
            size, clean = max(1, min(len(group) - len(again), len(group) // 2)), 0
            continue
        clean, failures = clean + 1, 0
        if clean >= GROWS_AFTER and size < form.largest:
            size, clean = min(form.largest, 2 * size), 0
    if said and not answered and batch.attempt < PATIENCE:
        raise Unavailable(said)  # it was GitHub, and not one repository


def resolve_query(entities: Sequence[Entity]) -> str:
    """Return one query that asks for the ids of up to 100 names; aliases are ``r0``, ``r1`` …"""
    parts = []
    for n, entity in enumerate(entities):
        owner, _, name = entity.names[0].partition("/")
        parts.append(
            f"r{n}: repository(owner: {json.dumps(owner)}, name: {json.dumps(name)}) {{ id databaseId nameWithOwner }}"
        )
    return f"query Resolve {{ {' '.join(parts)} {_RATE} }}"


def parse_resolved(
    response: Response, entities: Sequence[Entity], day: date, form: Form = COUNTS
) -> tuple[list[Identity], list[Gap]]:
    """Read the answer to :func:`resolve_query`: an identity, or the gaps of the form, per entity."""
    data, errors, cut = _read_graphql(response, len(entities))
    if cut:
        raise _gave_up("resource limits exceeded", len(entities))
    identities: list[Identity] = []
    gaps: list[Gap] = []
    for n, entity in enumerate(entities):
        node = data.get(f"r{n}")
        stated = (node.get("id"), node.get("nameWithOwner")) if isinstance(node, dict) else (None, None)
        upstream_id, name = _matching(_ID, stated[0]), _matching(_NAME, stated[1])
        if upstream_id and name:
            identities.append(Identity(entity.entity_id, "github", upstream_id, name))
        else:
            gaps += _gaps(form, entity, day, *_reason(errors.get(f"r{n}"), entity.names[0]))
    return identities, gaps


def parse_counts(
    response: Response, entities: Sequence[Entity], node_ids: Sequence[str], day: date, form: Form = COUNTS
) -> tuple[list[Row], list[Gap], list[Identity], list[Entity]]:
    """Read the answer to a form's query: a row per repository and metric, or its gaps; renames as identities.

    The last part names the repositories that a cut answer (RESOURCE_LIMITS_EXCEEDED) does not state, to be asked
    again in a smaller query; at least one is stated then. A node that is null, has another type, or counts that are
    no non-negative integers costs itself alone.

    Raises
    ------
    TooLarge, Unavailable
        If GitHub gave up, or cut the answer before the first repository; the first if the query can be made smaller.
    Malformed
        If it is no answer to this query.
    """
    data, errors, cut = _read_graphql(response, len(entities))
    nodes = data.get("nodes")
    if not isinstance(nodes, list) or len(nodes) != len(entities):
        if cut:
            raise _gave_up("resource limits exceeded", len(entities))
        raise Malformed(f"GitHub answered {_length(nodes)} nodes for {len(entities)} ids")
    if cut and not any(isinstance(node, dict) for node in nodes):
        raise _gave_up("resource limits exceeded", len(entities))
    rows: list[Row] = []
    gaps: list[Gap] = []
    renamed: list[Identity] = []
    again: list[Entity] = []
    for n, (entity, node_id, node) in enumerate(zip(entities, node_ids, nodes, strict=True)):
        error = errors.get(f"nodes.{n}")
        if not isinstance(node, dict):
            if cut and (error is None or error.get("type") == "RESOURCE_LIMITS_EXCEEDED"):
                again.append(entity)
            else:
                gaps += _gaps(form, entity, day, *_reason(error, node_id))
            continue
        if node.get("id") != node_id:
            gaps += _gaps(form, entity, day, "GitHub answered about another id than it was asked for", True)
            continue
        for field in form.fields:
            value = field.read(node)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
                rows.append((entity.entity_id, field.metric_id, day, float(value), GRAPHQL))
            else:
                gaps.append(Gap(entity.entity_id, field.metric_id, day, f"{field.name} is {repr(value)[:80]}", True))
        name = _matching(_NAME, node.get("nameWithOwner"))
        if name and entity.names and name.lower() != entity.names[0].lower():
            renamed.append(Identity(entity.entity_id, "github", node_id, name))
    return rows, gaps, renamed, again


def _graphql(query: str, variables: dict[str, Any] | None = None, cost: int = 1) -> Request:
    body: dict[str, Any] = {"query": query}
    if variables is not None:
        body["variables"] = variables
    return Request(
        "github", "POST", "/graphql", json=body, bucket="graphql", cost=cost, sticky=query[:12] + str(variables)
    )


def _read_graphql(response: Response, size: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]], bool]:
    """Return the data, the errors by path (``nodes.3``, ``r7``), and whether resource limits cut the answer.

    Raises
    ------
    TooLarge, Unavailable
        If GitHub gave up; the first if the query can be made smaller.
    Malformed
        If the body is not a GraphQL answer.
    """
    if response.status >= 500:
        raise _gave_up(f"GitHub answered {response.status}", size)
    if response.status != 200:
        raise Malformed(f"GitHub answered {response.status}: {response.body[:120].decode('utf-8', 'replace')}")
    body = response.json()
    if not isinstance(body, dict):
        raise Malformed(f"GraphQL answer is {type(body).__name__}, not an object")
    stated = body.get("errors")
    errors = [e for e in stated if isinstance(e, dict)] if isinstance(stated, list) else []
    cut = any(e.get("type") == "RESOURCE_LIMITS_EXCEEDED" for e in errors)
    data = body.get("data")
    if not isinstance(data, dict):
        said = str(errors[0].get("message")) if errors else "no data and no errors"
        if cut or "something went wrong" in said.lower() or "respond to your request in time" in said.lower():
            raise _gave_up(said, size)
        raise Malformed(f"GitHub refused the query: {said[:200]}")
    return data, {".".join(map(str, e["path"])): e for e in errors if isinstance(e.get("path"), list)}, cut


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


def _gaps(form: Form, entity: Entity, day: date, reason: str, retry: bool) -> list[Gap]:
    return [Gap(entity.entity_id, field.metric_id, day, reason, retry) for field in form.fields]


def _matching(pattern: re.Pattern[str], value: object) -> str:
    """Return a text that has the expected form, else an empty one."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def _length(value: object) -> str:
    return str(len(value)) if isinstance(value, list) else type(value).__name__
