"""GitHub's answers made up by hand, for the tests of its tasks: repositories, weeks, a GitHub that fails on some."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from astrid.models import Batch, Entity, Observations, Request, Response
from astrid.simulators.github import GitHub
from astrid.sources.github import crawl
from astrid.sources.github_identity import IDENTITY
from tests.by_hand import ok, run
from tests.synthetic_world import NIGHT

SHARED = Path(__file__).parents[1].parent / "shared"
needs_samples = pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="../shared/samples is not there")
DAY = date(2026, 3, 31)
SUNDAY = date(2026, 3, 29)
STARS, FORKS, GAINED, COMMITS = 1, 2, 10, 11


def counts(*entities: Entity, day: date = DAY, attempt: int = 0) -> Batch:
    return Batch("github", "counts", day, day, day, entities, attempt=attempt)


def commits(*entities: Entity, start: date, end: date, attempt: int = 0) -> Batch:
    return Batch("github", "commits", end, start, end, entities, attempt=attempt)


def history(*entities: Entity, start: date = DAY, end: date = DAY, attempt: int = 0) -> Batch:
    return Batch("github", "history", end, start, end, entities, attempt=attempt)


def entity(n: int, *, known: bool = True) -> Entity:
    return Entity(n, f"p{n}", f"R_{n}" if known else "", (f"owner/repo{n}",))


def node(n: int, **changes: Any) -> dict[str, Any]:
    sound_one = {"__typename": "Repository", "id": f"R_{n}", "databaseId": n, "nameWithOwner": f"Owner/repo{n}"}
    return sound_one | {"stargazerCount": 100 + n, "forkCount": n} | changes


def nodes(*values: Any, errors: Any = None) -> Response:
    return ok({"data": {"nodes": list(values)}} | ({} if errors is None else {"errors": errors}))


def worked(n: int, *counted: int) -> dict[str, Any]:
    """Return a repository with commits on each day of a batch."""
    target = {"__typename": "Commit"} | {f"d{k}": {"totalCount": count} for k, count in enumerate(counted)}
    return node(n, isEmpty=False, defaultBranchRef={"target": target})


def ids_of(request: Request) -> list[str]:
    ids: list[str] = request.json["variables"]["ids"]
    return ids


def numbers_in(request: Request) -> list[int]:
    """Return whom a query asks about, by id or by name, in its order."""
    if "variables" in request.json:
        return [int(node_id.removeprefix("R_")) for node_id in ids_of(request)]
    return [int(n) for n in re.findall(r'name: "repo(\d+)"', request.json["query"])]


def answer_soundly(request: Request) -> Response:
    """Answer any query about repositories of :func:`entity`; histories of one week, and nobody is explained."""
    if request.path != "/graphql":
        return ok([week(SUNDAY, [5] * 7)] if request.path.endswith("/history") else {})
    asked = numbers_in(request)
    if "variables" in request.json:
        return nodes(*(worked(n, *range(30)) for n in asked))
    return ok({"data": {f"r{k}": node(n) for k, n in enumerate(asked)}})


def github_without(bad: Collection[int]) -> Callable[[Request], Response]:
    """Return a GitHub that gives up on every query about one of the bad repositories, by id or by name."""

    def answer(request: Request) -> Response:
        if request.path == "/graphql" and not set(bad).isdisjoint(numbers_in(request)):
            return Response(502, {}, b"<html>")
        return answer_soundly(request)

    return answer


def ask(github: GitHub, request: Request) -> Response:
    """Let the simulated GitHub answer, five hours after the night's day."""
    now = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
    return github.respond(request, token="t", now=now, night=NIGHT)


def week(sunday: date, days: Any, **changes: Any) -> dict[str, Any]:
    """Return a week of a history; without a total where its days have no sum."""
    epoch_s = int(datetime(sunday.year, sunday.month, sunday.day, tzinfo=UTC).timestamp())
    summable = isinstance(days, list) and all(type(count) is int for count in days)
    return {"week": epoch_s, "days": days} | ({"total": sum(days)} if summable else {}) | changes


def page(weeks: list[Any], following: str = "") -> Response:
    """Return a page of a history and the link to the next one, if there is one."""
    return Response(200, {"link": f'<{following}>; rel="next"'} if following else {}, json.dumps(weeks).encode())


def who_then(batch: Batch, response: Response) -> Callable[[Request], Response]:
    """Say who the repositories are, and answer everything else alike."""
    who = nodes(*(node(e.entity_id) for e in batch.entities))
    return lambda request: who if request.path == "/graphql" else response


def past(
    batch: Batch, answers: Iterable[Response] | Callable[[Request], Response], **changes: Any
) -> tuple[Observations, list[Request]]:
    """Crawl histories: say who the repositories are, then give the answers; return also what was asked after that."""
    who = nodes(*(node(e.entity_id, **changes) for e in batch.entities))
    given = None if callable(answers) else iter(answers)

    def answer(request: Request) -> Response:
        if request.path == "/graphql":
            return who
        return answers(request) if callable(answers) else next(given)  # type: ignore[arg-type]

    found, (first, *rest) = run(crawl(batch), answer)
    assert first.json == {"query": IDENTITY.query, "variables": {"ids": [e.key for e in batch.entities]}}
    assert (first.bucket, first.cost) == ("graphql", 1)
    assert given is None or next(given, None) is None, "an answer was not asked for"
    return found, rest
