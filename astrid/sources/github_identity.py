"""Which repository an entity is: the id wins over the name, and a name that a stranger has taken is not followed.

A name is looked up once, when no id is known. A repository that was created after the project's first observation
cannot be the one that was observed: somebody re-used the name. Facts: GitHub docs, "Rate limits and query limits for
the GraphQL API"; a name may serve another repository as soon as its old one has moved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from astrid.errors import Malformed
from astrid.models import Entity, Identity, Request, Response
from astrid.sources.github_graphql import (
    NODE_ID,
    NOT_FOUND,
    RATE,
    REPOSITORY_NAME,
    Form,
    as_count,
    ask,
    gave_up,
    matching,
    null_reason,
    read_answer,
)
from astrid.sources.github_inquiry import Inquiry, Question

API_VERSION: Final = ("x-github-api-version", "2026-03-10")
IDENTITY: Final = Form("Identity", "createdAt", (), 0, 100)

DELETED: Final = "GitHub answers 404: deleted or private"
BLOCKED_BY_LAW: Final = "GitHub answers 451: blocked for legal reasons"
BLOCKED_BY_GITHUB: Final = "GitHub answers 403 with a block: blocked by GitHub"
REOCCUPIED: Final = "another repository has its name now: the name was taken by a stranger"
NAMELESS: Final = "neither its id nor its name is known"
YOUNGER: Final = "the repository of this name is younger than what is known of the project: taken by a stranger"

Lost = list[tuple[Entity, str, bool]]
"""Entities that were not identified: why, and whether a later request may find them."""


@dataclass(frozen=True, slots=True)
class Known:
    """A repository that was identified: its number in GitHub's REST interface (None if not told), day of creation."""

    entity: Entity
    node_id: str
    name: str
    database_id: int | None
    created_on: date | None


def resolve_query(entities: Sequence[Entity]) -> str:
    """Return one query that asks for the ids of up to 100 names; aliases are ``r0``, ``r1`` …"""
    parts = []
    for n, entity in enumerate(entities):
        owner, _, name = entity.names[0].partition("/")
        parts.append(
            f"r{n}: repository(owner: {json.dumps(owner)}, name: {json.dumps(name)}) "
            "{ id databaseId nameWithOwner createdAt }"
        )
    return f"query Resolve {{ {' '.join(parts)} {RATE} }}"


def parse_resolved(response: Response, entities: Sequence[Entity]) -> tuple[list[Known], Lost]:
    """Read the answer to :func:`resolve_query`.

    Raises
    ------
    TooLarge, Unavailable
        If GitHub gave up, in whole or in part.
    Malformed
        If it is no GraphQL answer.
    """
    data, errors, cut = read_answer(response, len(entities))
    if cut:
        raise gave_up("resource limits exceeded", len(entities))
    return _sort_out(entities, [(data.get(f"r{n}"), errors.get(f"r{n}")) for n in range(len(entities))])


def parse_identified(response: Response, entities: Sequence[Entity]) -> tuple[list[Known], Lost]:
    """Read the answer to :data:`IDENTITY` about entities whose ``key`` is their id; raises as the other."""
    data, errors, cut = read_answer(response, len(entities))
    nodes = data.get("nodes")
    if cut:
        raise gave_up("resource limits exceeded", len(entities))
    if not isinstance(nodes, list) or len(nodes) != len(entities):
        raise Malformed("GitHub answered another number of nodes than it was asked for")
    return _sort_out(entities, [(node, errors.get(f"nodes.{n}")) for n, node in enumerate(nodes)])


def _sort_out(
    entities: Sequence[Entity], stated: Sequence[tuple[Any, dict[str, Any] | None]]
) -> tuple[list[Known], Lost]:
    known: list[Known] = []
    lost: Lost = []
    for entity, (node, error) in zip(entities, stated, strict=True):
        fields = node if isinstance(node, dict) else {}
        node_id, name = matching(NODE_ID, fields.get("id")), matching(REPOSITORY_NAME, fields.get("nameWithOwner"))
        created_on = _day(fields.get("createdAt"))
        if not node_id or not name:
            lost.append((entity, *null_reason(error)))
        elif entity.key and node_id != entity.key:
            lost.append((entity, "GitHub answered about another id than it was asked for", True))
        elif not entity.key and _is_stranger(entity, created_on):
            lost.append((entity, YOUNGER, False))
        else:
            known.append(Known(entity, node_id, name, as_count(fields.get("databaseId")), created_on))
    return known, lost


def _is_stranger(entity: Entity, created_on: date | None) -> bool:
    return entity.since is not None and created_on is not None and created_on > entity.since


def resolve_names(
    entities: Sequence[Entity], inquiry: Inquiry
) -> Generator[Request, Response, tuple[list[Known], Lost, list[Entity]]]:
    """Look up names, 100 a query; return who is known, who is lost, and whom nothing is known of yet.

    An entity without a name is lost. Bounds and errors are those of :meth:`Inquiry.ask`.
    """
    known, lost, undecided = yield from _look_up(
        [e for e in entities if e.names], inquiry, lambda group: ask(resolve_query(group)), parse_resolved
    )
    return known, lost + [(e, NAMELESS, False) for e in entities if not e.names], undecided


def identify(entities: Sequence[Entity], attempt: int) -> Generator[Request, Response, tuple[list[Known], Lost]]:
    """Ask for number, name and creation of all entities, by id where it is known, else by name.

    One on which GitHub gives up is lost alone. n entities take at most 2 n + 21 queries where they are all known by
    id, or all by name, and 21 more where they are not; an outage 14 or 28, and one more after the batch's patience.

    Raises
    ------
    Unavailable
        If GitHub answers nothing at all; while the batch's patience lasts also if it stops answering.
    Malformed
        While the batch's patience lasts, if an answer is no GraphQL answer at all.
    """
    inquiry = Inquiry(attempt)
    known: list[Known] = []
    lost: Lost = []
    waiting = list(entities)
    while waiting:
        by_id = yield from _look_up([e for e in waiting if e.key], inquiry, _ask_by_id, parse_identified)
        by_name = yield from resolve_names([e for e in waiting if not e.key], inquiry)
        known += by_id[0] + by_name[0]
        lost += by_id[1] + by_name[1]
        # Where one kind of query was answered at last, the other may have been given up too soon.
        waiting = by_id[2] + by_name[2]
        if waiting and not inquiry.answered:
            yield from inquiry.decide(_ask_by_id, _read_nobody)
    return known, lost


def _ask_by_id(group: Sequence[Entity]) -> Request:
    return ask(IDENTITY.query, {"ids": [e.key for e in group]})


def _read_nobody(answer: Response, nobody: Sequence[Entity]) -> tuple[()]:
    parse_identified(answer, nobody)
    return ()


def _look_up(
    entities: Sequence[Entity],
    inquiry: Inquiry,
    question: Question,
    parse: Callable[[Response, Sequence[Entity]], tuple[list[Known], Lost]],
) -> Generator[Request, Response, tuple[list[Known], Lost, list[Entity]]]:
    known: list[Known] = []
    lost: Lost = []

    def read(answer: Response, group: Sequence[Entity]) -> tuple[()]:
        found, missing = parse(answer, group)
        known.extend(found)
        lost.extend(missing)
        return ()

    given_up, undecided = yield from inquiry.ask(entities, IDENTITY.largest, question, read)
    lost += [(entity, reason, True) for entity, reason in given_up]
    return known, lost, undecided


def identities(known: Sequence[Known]) -> list[Identity]:
    """Return what is to be recorded: the ids of names that were looked up, and names that have changed."""
    return [
        Identity(k.entity.entity_id, "github", k.node_id, k.name)
        for k in known
        if not k.entity.key or not k.entity.names or k.name.lower() != k.entity.names[0].lower()
    ]


def explain_absence(entity: Entity) -> Generator[Request, Response, str]:
    """Ask the REST interface why a repository cannot be seen, which GraphQL does not tell; one request.

    A repository that answers under the name is compared by id: a stranger's is told, never read.
    """
    if not entity.names:
        return NOT_FOUND
    response = yield Request(
        "github", "GET", f"/repos/{entity.names[0]}", headers=(API_VERSION,), bucket="core", sticky=entity.names[0]
    )
    reason = absence(response)
    if reason or response.status != 200:
        return reason or NOT_FOUND
    try:
        body = response.json()
    except Malformed:
        return NOT_FOUND
    node_id = matching(NODE_ID, body.get("node_id")) if isinstance(body, dict) else ""
    return REOCCUPIED if node_id and entity.key and node_id != entity.key else NOT_FOUND


def absence(response: Response) -> str:
    """Return why a repository cannot be seen, told apart as GitHub tells it; empty if it can, or if it is a limit."""
    if response.status == 404:
        return DELETED
    if response.status == 451:
        return BLOCKED_BY_LAW
    return BLOCKED_BY_GITHUB if response.status == 403 and b'"block"' in response.body else ""


def _day(value: object) -> date | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).date()
    except ValueError:
        return None
