"""GitHub's counts of many repositories in one GraphQL query, ``nodes(ids:)``, as large as GitHub bears.

A missing repository is an absent row, never a zero; a partial answer with RESOURCE_LIMITS_EXCEEDED keeps what it
states. Facts: GitHub docs, "Rate limits and query limits for the GraphQL API".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from astrid.catalog import METRIC_BY_NAME
from astrid.errors import Malformed
from astrid.models import Batch, Entity, Gap, Identity, Observations, Request, Response, Steps
from astrid.sources.github_graphql import (
    GRAPHQL,
    NOT_FOUND,
    REPOSITORY_NAME,
    Field,
    Form,
    as_count,
    ask,
    gave_up,
    matching,
    null_reason,
    read_answer,
)
from astrid.sources.github_identity import explain_absence, identities, resolve_names
from astrid.sources.github_inquiry import Inquiry

STARS: Final = METRIC_BY_NAME["github_stars"].metric_id
FORKS: Final = METRIC_BY_NAME["github_forks"].metric_id

Row = tuple[int, int, date, float, int]


def _scalar(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda node: node.get(name)


def _total(name: str) -> Callable[[dict[str, Any]], object]:
    def read(node: dict[str, Any]) -> object:
        connection = node.get(name)
        return connection.get("totalCount") if isinstance(connection, dict) else None

    return read


def _form(name: str, largest: int, connected: bool, **fields: str) -> Form:
    """Build a form of metric=GitHub's field, the field with its arguments."""
    short = {metric: text.partition("(")[0] for metric, text in fields.items()}
    read = _total if connected else _scalar
    return Form(
        name,
        " ".join(f"{text} {{ totalCount }}" if connected else text for text in fields.values()),
        tuple(Field(METRIC_BY_NAME[m].metric_id, named, read(named)) for m, named in short.items()),
        len(fields) if connected else 0,
        largest,
    )


COUNTS: Final = _form("Counts", 100, False, github_stars="stargazerCount", github_forks="forkCount")
TOTALS: Final = _form(
    "Totals",
    50,
    True,
    github_watchers="watchers",
    github_open_issues="issues(states: OPEN)",
    github_open_pulls="pullRequests(states: OPEN)",
    github_releases="releases",
)


@dataclass(slots=True)
class Found:
    """What a batch has found so far: rows, gaps, identities, and whom GitHub does not find under a known id."""

    rows: list[Row] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)
    unseen: list[Entity] = field(default_factory=list)
    again: list[Entity] = field(default_factory=list)
    """Whom a cut answer did not state."""

    def add(self, other: Found) -> None:
        """Take over what one answer brought."""
        self.rows += other.rows
        self.gaps += other.gaps
        self.identities += other.identities
        self.unseen += other.unseen


def crawl_counts(batch: Batch, form: Form, *, explains: bool = False) -> Steps:
    """Read one form's counts of the batch's repositories.

    An entity's ``key`` is its node id, or empty if it is not known yet; ``names[0]`` is ``owner/name``. With
    ``explains`` the REST interface is asked why a repository is not found, one request each.

    A repository on which GitHub gives up costs itself alone, a gap that is asked for again; rows that were found are
    lost to no other. A batch of n repositories takes at most 2 n + 21 queries, where all ids are known; names, where
    some are looked up, as many once more. An outage ends it after 14, or 28 with names, and one more when its
    patience is used up.

    Raises
    ------
    Unavailable
        If GitHub answers nothing at all; while the batch's patience lasts also if it stops answering.
    Malformed
        While the batch's patience lasts, if an answer is no GraphQL answer at all.
    """
    found = Found()
    inquiry = Inquiry(batch.attempt)
    ids = {e.entity_id: e.key for e in batch.entities if e.key}

    def question(group: Sequence[Entity]) -> Request:
        return ask(form.query, {"ids": [ids[e.entity_id] for e in group]}, form.points(len(group)))

    def read(answer: Response, group: Sequence[Entity]) -> list[Entity]:
        part = parse_counts(answer, group, [ids[e.entity_id] for e in group], batch.day, form)
        found.add(part)
        return part.again

    waiting = list(batch.entities)
    while waiting:
        known, lost, unnamed = yield from resolve_names([e for e in waiting if e.entity_id not in ids], inquiry)
        found.identities += identities(known)
        ids |= {k.entity.entity_id: k.node_id for k in known}
        for entity, reason, retry in lost:
            if reason == NOT_FOUND:
                found.unseen.append(entity)
            else:
                found.gaps += form.gaps(entity, batch.day, reason, retry)
        asked = [e for e in waiting if e.entity_id in ids]
        given_up, uncounted = yield from inquiry.ask(asked, form.largest, question, read)
        for entity, reason in given_up:
            found.gaps += form.gaps(entity, batch.day, reason, True)
        # Where one kind of query was answered at last, the other may have been given up too soon.
        waiting = unnamed + uncounted
        if waiting and not inquiry.answered:
            yield from inquiry.decide(question, read)
    for entity in found.unseen:
        reason = (yield from explain_absence(entity)) if explains else NOT_FOUND
        found.gaps += form.gaps(entity, batch.day, reason, False)
    return Observations.from_rows(found.rows, found.gaps, found.identities)


def parse_counts(
    response: Response, entities: Sequence[Entity], node_ids: Sequence[str], day: date, form: Form = COUNTS
) -> Found:
    """Read the answer to a form's query: a row per repository and count, or its gaps; renames as identities.

    ``again`` names the repositories that a cut answer (RESOURCE_LIMITS_EXCEEDED) does not state, to be asked for
    again in a smaller query; at least one is stated then. A node that is null, has another type, or counts that are
    no non-negative integers costs itself alone.

    Raises
    ------
    TooLarge, Unavailable
        If GitHub gave up, or cut the answer before the first repository; the first if the query can be made smaller.
    Malformed
        If it is no answer to this query.
    """
    data, errors, cut = read_answer(response, len(entities))
    nodes = data.get("nodes")
    if not isinstance(nodes, list) or len(nodes) != len(entities):
        if cut:
            raise gave_up("resource limits exceeded", len(entities))
        raise Malformed(f"GitHub answered {_length(nodes)} nodes for {len(entities)} ids")
    if cut and not any(isinstance(node, dict) for node in nodes):
        raise gave_up("resource limits exceeded", len(entities))
    found = Found()
    for n, (entity, node_id, node) in enumerate(zip(entities, node_ids, nodes, strict=True)):
        error = errors.get(f"nodes.{n}")
        if not isinstance(node, dict):
            reason, retry = null_reason(error)
            if cut and (error is None or error.get("type") == "RESOURCE_LIMITS_EXCEEDED"):
                found.again.append(entity)
            elif reason == NOT_FOUND:
                found.unseen.append(entity)
            else:
                found.gaps += form.gaps(entity, day, reason, retry, doubtful=retry)
            continue
        if node.get("id") != node_id:
            reason = "GitHub answered about another id than it was asked for"
            found.gaps += form.gaps(entity, day, reason, True, doubtful=True)
            continue
        for counted in form.fields:
            value, at = as_count(counted.read(node)), counted.day or day
            if value is None:
                reason = f"{counted.name} is no count that a repository can have"
                found.gaps.append(Gap(entity.entity_id, counted.metric_id, at, reason, True, doubtful=True))
            else:
                found.rows.append((entity.entity_id, counted.metric_id, at, float(value), GRAPHQL))
        name = matching(REPOSITORY_NAME, node.get("nameWithOwner"))
        if name and entity.names and name.lower() != entity.names[0].lower():
            found.identities.append(Identity(entity.entity_id, "github", node_id, name))
    return found


def _length(value: object) -> str:
    return str(len(value)) if isinstance(value, list) else type(value).__name__
