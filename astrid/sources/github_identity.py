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

from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.models import Entity, Identity, Request, Response
from astrid.sources.github_graphql import (
    ALONE,
    MAX_FAILURES,
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

API_VERSION: Final = ("x-github-api-version", "2026-03-10")
IDENTITY: Final = Form("Identity", "createdAt", (), 0, 100)

DELETED: Final = "GitHub answers 404: deleted or private"
BLOCKED_BY_LAW: Final = "GitHub answers 451: blocked for legal reasons"
BLOCKED_BY_GITHUB: Final = "GitHub answers 403 with a block: blocked by GitHub"
REOCCUPIED: Final = "another repository has its name now: the name was taken by a stranger"
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


def resolve_names(entities: Sequence[Entity]) -> Generator[Request, Response, tuple[list[Known], Lost]]:
    """Look up names, 100 a query; halve a look-up that GitHub gives up on.

    Raises
    ------
    Unavailable
        If GitHub gives up on every look-up, or on many in a row.
    Malformed
        If an answer is no GraphQL answer.
    """
    return (yield from _in_parts(entities, lambda group: ask(resolve_query(group)), parse_resolved))


def identify(entities: Sequence[Entity]) -> Generator[Request, Response, tuple[list[Known], Lost]]:
    """Ask for number, name and creation of all entities, by id where it is known, else by name; raises as above."""
    with_id = [e for e in entities if e.key]
    known, lost = yield from _in_parts(
        with_id, lambda group: ask(IDENTITY.query, {"ids": [e.key for e in group]}), parse_identified
    )
    more, unknown = yield from resolve_names([e for e in entities if not e.key])
    return known + more, lost + unknown


def _in_parts(
    entities: Sequence[Entity],
    question: Callable[[Sequence[Entity]], Request],
    parse: Callable[[Response, Sequence[Entity]], tuple[list[Known], Lost]],
) -> Generator[Request, Response, tuple[list[Known], Lost]]:
    known: list[Known] = []
    lost: Lost = []
    failures, answered, said = 0, False, ""
    waiting = [entities[n : n + IDENTITY.largest] for n in range(0, len(entities), IDENTITY.largest)]
    while waiting:
        group = waiting.pop()
        answer = yield question(group)
        try:
            found, missing = parse(answer, group)
        except (TooLarge, Unavailable) as exc:
            failures += 1
            said = f"GitHub gave up on {failures} look-ups in a row: {exc}"
            if failures >= MAX_FAILURES:
                raise Unavailable(said) from exc
            middle = len(group) // 2
            if middle:
                waiting += [group[middle:], group[:middle]]
            else:
                lost.append((group[0], ALONE, True))
            continue
        answered, failures = True, 0
        known += found
        lost += missing
    if said and not answered:
        raise Unavailable(said)
    return known, lost


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
