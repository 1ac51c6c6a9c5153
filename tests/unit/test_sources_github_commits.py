"""GitHub's commits per day: a count for each day, a few repositories a query."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from astrid.models import Entity
from astrid.simulators.github import GitHub, User
from astrid.sources.github import crawl
from astrid.sources.github_commits import MAX_HISTORIES, commits_form
from tests.by_hand import JSON, run, sound, survives, table
from tests.github_by_hand import COMMITS, DAY, ask, commits, entity, github_without, ids_of, node, nodes, worked
from tests.synthetic_world import NIGHT, make_world

WEEK = DAY - timedelta(days=7)
WEEK_OF_NIGHT = NIGHT - timedelta(days=7)


def test_a_value_a_day() -> None:
    batch = commits(entity(1), start=DAY - timedelta(days=2), end=DAY)
    found, (request,) = run(crawl(batch), [nodes(worked(1, 5, 0, 7))])
    assert [v for _, v in sorted(table(sound(found, batch)).items())] == [5.0, 0.0, 7.0]
    assert (found.gaps, request.bucket, request.cost) == ((), "graphql", 1)
    for n in range(3):
        day = batch.start + timedelta(days=n)
        assert f'd{n}: history(since: "{day}T00:00:00Z", until: "{day}T23:59:59Z")' in request.json["query"]


def test_an_empty_repository_has_no_commits_and_an_untold_branch_is_a_gap() -> None:
    batch = commits(entity(1), entity(2), start=DAY, end=DAY)
    answer = nodes(node(1, isEmpty=True, defaultBranchRef=None), node(2, isEmpty=False, defaultBranchRef=None))
    found, _ = run(crawl(batch), [answer])
    assert table(sound(found, batch)) == {(1, COMMITS, DAY): 0.0}
    assert [(g.entity_id, g.retry) for g in found.gaps] == [(2, True)]


@pytest.mark.parametrize(
    "bad", [5, [], {}, {"target": None}, {"target": []}, {"target": {"__typename": "Tag"}}, {"target": {"d0": 5}}]
)
def test_a_branch_of_another_form_costs_itself_alone(bad: Any) -> None:
    batch = commits(entity(1), entity(2), start=DAY, end=DAY)
    found, _ = run(crawl(batch), [nodes(node(1, isEmpty=True, defaultBranchRef=bad), worked(2, 3))])
    assert table(sound(found, batch)) == {(2, COMMITS, DAY): 3.0}
    assert [g.entity_id for g in found.gaps] == [1]


def test_no_query_asks_for_more_than_github_bears() -> None:
    for days in range(1, 60):
        form = commits_form(DAY - timedelta(days=days - 1), DAY)
        assert form.largest == 1 or form.largest * days <= MAX_HISTORIES
    batch = commits(*(entity(n) for n in range(20)), start=WEEK, end=DAY)
    found, requests = run(crawl(batch), lambda r: nodes(*(worked(int(i[2:]), *range(8)) for i in ids_of(r))))
    assert len(sound(found, batch)) == 160
    assert [len(ids_of(r)) for r in requests] == [7, 7, 6]


def test_a_repository_too_deep_for_github_costs_itself_alone() -> None:
    batch = commits(*(entity(n) for n in range(14)), start=WEEK, end=DAY)
    found, _ = run(crawl(batch), github_without({4}))
    assert {g.entity_id for g in sound(found, batch).gaps} == {4}
    assert len(found) == 13 * 8


@given(JSON)
def test_any_branch(branch: Any) -> None:
    batch = commits(entity(1), start=DAY, end=DAY)
    for value in (branch, {"target": branch}, {"target": {"d0": branch}}):
        stated = nodes(node(1, isEmpty=branch, defaultBranchRef=value))
        survives(lambda: crawl(batch), lambda _, s=stated: s, batch)


def test_against_the_simulator() -> None:
    github = GitHub(make_world(), {"t": User(1, "ann")})
    batch = commits(*(Entity(n, "p", f"R_node{n}", (f"o/p{n}",)) for n in range(6)), start=WEEK_OF_NIGHT, end=NIGHT)
    found, requests = run(crawl(batch), lambda r: ask(github, r))
    assert len(sound(found, batch)) == 6 * 8
    points = github.limits.report()["points"]["graphql"]
    assert points == sum(r.cost for r in requests) == 1
