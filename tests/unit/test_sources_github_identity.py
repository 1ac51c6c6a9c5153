"""Who a repository is to GitHub: ids before names, strangers told apart, and why one is not found."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import pytest

from astrid.errors import SourceError
from astrid.models import Entity, Identity, Response
from astrid.simulators.github import GitHub, User
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.github import crawl
from astrid.sources.github_counts import parse_counts
from astrid.sources.github_graphql import NOT_FOUND
from astrid.sources.github_identity import (
    BLOCKED_BY_GITHUB,
    BLOCKED_BY_LAW,
    DELETED,
    NAMELESS,
    REOCCUPIED,
    YOUNGER,
    parse_resolved,
)
from tests.by_hand import BROKEN, ok, run, sound, table
from tests.github_by_hand import (
    DAY,
    FORKS,
    GAINED,
    SHARED,
    STARS,
    ask,
    counts,
    entity,
    history,
    needs_samples,
    node,
    nodes,
)
from tests.synthetic_world import FIRST_DAY, NIGHT, make_world


def test_names_are_looked_up_once() -> None:
    batch = counts(entity(1), entity(2, known=False), entity(3, known=False))
    resolved = ok({"data": {"r0": {"id": "R_2", "databaseId": 2, "nameWithOwner": "New/Name"}, "r1": None}})
    found, requests = run(crawl(batch), [resolved, nodes(node(1), node(2, nameWithOwner="New/Name"))])
    sound(found, batch)
    assert requests[1].json["variables"]["ids"] == ["R_1", "R_2"]
    assert set(found.identities) == {Identity(2, "github", "R_2", "New/Name")}
    assert [(g.entity_id, g.metric_id, g.retry) for g in found.gaps] == [(3, STARS, True), (3, FORKS, True)]


def test_a_known_id_wins_over_the_name() -> None:
    found, requests = run(crawl(counts(replace(entity(1), since=date(2020, 1, 1)))), [nodes(node(1))])
    assert [r.json["variables"] for r in requests] == [{"ids": ["R_1"]}]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("created", "since", "stranger"),
    [
        ("2025-06-02T00:00:01Z", date(2025, 6, 1), True),
        ("2025-06-01T23:59:59Z", date(2025, 6, 1), False),
        ("2025-06-02T00:00:01Z", None, False),
        (None, date(2025, 6, 1), False),
        ("yesterday", date(2025, 6, 1), False),
    ],
)
def test_a_stranger_under_the_projects_name_is_not_adopted(
    created: str | None, since: date | None, stranger: bool
) -> None:
    asked = replace(entity(1, known=False), since=since)
    resolved = ok({"data": {"r0": {"id": "R_1", "nameWithOwner": "owner/repo1", "createdAt": created}}})
    found, requests = run(crawl(counts(asked)), [resolved] if stranger else [resolved, nodes(node(1))])
    assert len(requests) == (1 if stranger else 2)
    assert {(g.reason, g.retry) for g in found.gaps} == ({(YOUNGER, False)} if stranger else set())
    assert [i.upstream_id for i in found.identities] == ([] if stranger else ["R_1"])


def test_a_name_that_is_not_found() -> None:
    errors = [{"type": "NOT_FOUND", "path": ["r0"], "message": "Could not resolve"}]
    answers = [ok({"data": {"r0": None}, "errors": errors}), ok({}, 404)]
    found, _ = run(crawl(counts(entity(1, known=False))), answers)
    assert len(found) == 0
    assert {(g.reason, g.retry) for g in found.gaps} == {(DELETED, False)}


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (ok({"message": "Not Found"}, 404), DELETED),
        (ok({"message": "x", "block": {"reason": "dmca"}}, 451), BLOCKED_BY_LAW),
        (ok({"message": "x", "block": {"reason": "tos"}}, 403), BLOCKED_BY_GITHUB),
        (ok({"node_id": "R_77", "full_name": "owner/repo1"}), REOCCUPIED),
        (ok({"node_id": "R_1", "full_name": "owner/repo1"}), NOT_FOUND),
        *[(response, NOT_FOUND) for response in BROKEN],
    ],
)
def test_why_a_repository_is_not_found_is_asked_once(response: Response, reason: str) -> None:
    errors = [{"type": "NOT_FOUND", "path": ["nodes", 0], "message": "Could not resolve at 12:00"}]
    batch = counts(entity(1), entity(2))
    found, requests = run(crawl(batch), [nodes(None, node(2), errors=errors), response])
    assert {e for e, _, _ in table(sound(found, batch))} == {2}
    assert [(g.metric_id, g.reason, g.retry) for g in found.gaps] == [
        (STARS, reason, False),
        (FORKS, reason, False),
    ]
    assert (requests[1].method, requests[1].path, requests[1].bucket) == ("GET", "/repos/owner/repo1", "core")


@needs_samples
def test_quoted_partial_answer() -> None:
    cases = json.loads((SHARED / "samples/github-graphql/quoted_error_bodies.json").read_text())
    body = next(c["body"] for c in cases if c["case"] == "alias batch, one of two missing")
    found, lost = parse_resolved(ok(body), [entity(1, known=False), entity(2, known=False)])
    assert found == []  # its first node has no name
    assert [(e.entity_id, retry) for e, _, retry in lost] == [(1, True), (2, False)]
    for case in cases:
        with pytest.raises(SourceError):
            parse_counts(ok(case["body"], case["status"]), [entity(1), entity(2)], ["R_1", "R_2"], DAY)


def test_a_stranger_that_took_the_name_is_told_and_never_read() -> None:
    github = GitHub(make_world(), {"t": User(1, "ann")}, scenario=replace(SCENARIOS["reoccupied"], reoccupied=1.0))
    name = ("owner1/Repo.1",)
    known, nameless = Entity(1, "p", "R_node1", name), Entity(1, "p", "", name, FIRST_DAY - timedelta(days=1))
    found, _ = run(crawl(counts(known, day=NIGHT)), lambda r: ask(github, r))
    assert table(found)[1, STARS, NIGHT] == 2500.0
    assert [i.name for i in found.identities] == ["owner1/Repo.1-next"]
    found, _ = run(crawl(counts(nameless, day=NIGHT)), lambda r: ask(github, r))
    assert (len(found), found.identities, {g.reason for g in found.gaps}) == (0, (), {YOUNGER})
    found, _ = run(crawl(history(known, start=NIGHT, end=NIGHT)), lambda r: ask(github, r))
    assert table(found) == {(1, GAINED, NIGHT): 2.0}


def test_gone_in_three_ways() -> None:
    github = GitHub(make_world(40), {"t": User(1, "ann")}, scenario=replace(SCENARIOS["gone"], gone=1.0))
    batch = counts(*(Entity(n, "p", f"R_node{n}", (f"owner{n}/Repo.{n}",)) for n in range(40)), day=NIGHT)
    found, _ = run(crawl(batch), lambda r: ask(github, r))
    assert {g.reason for g in sound(found, batch).gaps} == {DELETED, BLOCKED_BY_LAW, BLOCKED_BY_GITHUB}
    assert not any(g.retry for g in found.gaps)


def test_who_has_neither_id_nor_name_costs_itself_alone() -> None:
    nobody = Entity(2, "p2", "")
    for batch in (counts(entity(1), nobody), history(entity(1), nobody)):
        found, _ = run(crawl(batch), [nodes(node(1)), *([ok([])] if batch.task == "history" else [])])
        assert {(g.reason, g.retry) for g in sound(found, batch).gaps if g.entity_id == 2} == {(NAMELESS, False)}
    found, requests = run(crawl(counts(nobody)), [])
    assert (len(found.gaps), requests) == (2, [])
