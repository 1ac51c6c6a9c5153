"""GitHub's GraphQL interface: what a query asks of many repositories, what it costs, what its answer states.

Data and errors come together; an answer cut by RESOURCE_LIMITS_EXCEEDED keeps what it states. Facts: GitHub docs, "Rate
limits and query limits for the GraphQL API".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from astrid.catalog import ORIGIN_BY_NAME
from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.models import Entity, Gap, Request, Response

GRAPHQL: Final = ORIGIN_BY_NAME["github_graphql"].origin_id
RATE: Final = "rateLimit { cost limit remaining used resetAt nodeCount }"
REPOSITORY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}")
NODE_ID: Final = re.compile(r"[!-~]{1,200}")
NOT_FOUND: Final = "GitHub does not find it: deleted, private or blocked"


@dataclass(frozen=True, slots=True)
class Field:
    """One count of a repository: how to ask for it, how to read it from its node, and the day that it is of.

    ``day`` None means the batch's own: a snapshot.
    """

    metric_id: int
    name: str
    read: Callable[[dict[str, Any]], object]
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of query: its name, what it selects of a repository, the counts in it, the most repositories of one.

    ``connections`` is how many connections of one repository it counts: they are what GitHub charges for.
    """

    name: str
    selection: str
    fields: tuple[Field, ...]
    connections: int
    largest: int

    @property
    def query(self) -> str:
        """Return the query of this form; ``$ids`` are node ids."""
        return (
            f"query {self.name}($ids: [ID!]!) {{ nodes(ids: $ids) {{ __typename id "
            f"... on Repository {{ databaseId nameWithOwner {self.selection} }} }} {RATE} }}"
        )

    def points(self, repositories: int) -> int:
        """Return what a query costs: a hundredth of its connections, rounded, at least one (GitHub docs)."""
        return max(1, (self.connections * repositories + 50) // 100)

    def gaps(self, entity: Entity, day: date, reason: str, retry: bool, *, doubtful: bool = False) -> list[Gap]:
        """Return the gaps of a repository of which nothing is known."""
        return [Gap(entity.entity_id, f.metric_id, f.day or day, reason, retry, doubtful) for f in self.fields]


def ask(query: str, variables: dict[str, Any] | None = None, cost: int = 1) -> Request:
    """Return the request of a query; ``cost`` is what GitHub will charge for it, in points."""
    body: dict[str, Any] = {"query": query}
    if variables is not None:
        body["variables"] = variables
    return Request(
        "github", "POST", "/graphql", json=body, bucket="graphql", cost=cost, sticky=query[:12] + str(variables)
    )


def read_answer(response: Response, size: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]], bool]:
    """Return the data, the errors by path (``nodes.3``, ``r7``), and whether resource limits cut the answer.

    Raises
    ------
    TooLarge, Unavailable
        If GitHub gave up, or the body is no JSON (a page of HTML, a torn answer); the first if the query of ``size``
        repositories can be made smaller.
    Malformed
        If the body is JSON but not a GraphQL answer.
    """
    if response.status >= 500:
        raise gave_up(f"GitHub answered {response.status}", size)
    if response.status != 200:
        raise Malformed(f"GitHub answered {response.status}: {response.body[:120].decode('utf-8', 'replace')}")
    try:
        body = response.json()
    except Malformed as exc:
        raise gave_up(str(exc), size) from exc
    if not isinstance(body, dict):
        raise Malformed(f"GraphQL answer is {type(body).__name__}, not an object")
    stated = body.get("errors")
    errors = [e for e in stated if isinstance(e, dict)] if isinstance(stated, list) else []
    cut = any(e.get("type") == "RESOURCE_LIMITS_EXCEEDED" for e in errors)
    data = body.get("data")
    if not isinstance(data, dict):
        said = str(errors[0].get("message")) if errors else "no data and no errors"
        if cut or "something went wrong" in said.lower() or "respond to your request in time" in said.lower():
            raise gave_up(said[:200], size)
        raise Malformed(f"GitHub refused the query: {said[:200]}")
    return data, {".".join(map(str, e["path"])): e for e in errors if isinstance(e.get("path"), list)}, cut


def gave_up(said: str, size: int) -> TooLarge | Unavailable:
    """Return the error of a query that GitHub did not answer, by whether it can be made smaller."""
    return TooLarge(f"{said} for {size} repositories") if size > 1 else Unavailable(said)


def null_reason(error: dict[str, Any] | None) -> tuple[str, bool]:
    """Return why a repository is null, and whether a later request may find it."""
    # Reasons are few and fixed: the upstream's own text carries times and request ids.
    if error is None:
        return "GitHub gave null and no reason", True
    match error.get("type"):
        case "NOT_FOUND":
            return NOT_FOUND, False
        case "FORBIDDEN":
            return "GitHub forbids this token to see it", True
        case _:
            return "GitHub could not answer for this repository", True


def as_count(value: object) -> int | None:
    """Return a count that a repository can have, else None: no text, no truth value, nothing negative or absurd."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def matching(pattern: re.Pattern[str], value: object) -> str:
    """Return a text that has the expected form, else an empty one."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""
