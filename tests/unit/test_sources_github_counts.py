"""GitHub's counts: what an answer states of each repository, and what a broken one costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError
from astrid.models import Batch, Entity, Identity, Response
from astrid.simulators.github import GitHub, User
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.github import SOURCE, crawl
from astrid.sources.github_counts import COUNTS
from tests.by_hand import BROKEN, JSON, ok, run, sound, survives, table
from tests.github_by_hand import DAY, FORKS, STARS, ask, commits, counts, entity, history, node, nodes
from tests.synthetic_world import GAP, NIGHT, make_world


def test_two_values_a_repository() -> None:
    batch = counts(entity(1), entity(2))
    found, requests = run(crawl(batch), [nodes(node(1), node(2))])
    assert table(sound(found, batch)) == {
        (1, STARS, DAY): 101.0,
        (1, FORKS, DAY): 1.0,
        (2, STARS, DAY): 102.0,
        (2, FORKS, DAY): 2.0,
    }
    assert set(found.origin_id.tolist()) == {1}
    assert (found.gaps, found.identities) == ((), ())
    (request,) = requests
    assert (request.method, request.path, request.bucket, request.cost) == ("POST", "/graphql", "graphql", 1)
    assert request.json == {"query": COUNTS.query, "variables": {"ids": ["R_1", "R_2"]}}


def test_a_new_name_is_recorded_another_spelling_is_not() -> None:
    found, _ = run(crawl(counts(entity(1), entity(2))), [nodes(node(1, nameWithOwner="else/where"), node(2))])
    assert found.identities == (Identity(1, "github", "R_1", "else/where"),)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        "x",
        [],
        {},
        {"id": "R_2"},
        {"id": None},
        {"id": ["R_1"]},
        node(2),
        {"__typename": "Issue", "id": "R_1"},
        node(1, id="R_other"),
        node(1, id={"a": "b" * 9000}),
        *[
            node(1, stargazerCount=v, forkCount=v)
            for v in (None, -1, True, 1.5, "7", [], 2**31, 2**63, {"x": "y" * 9000})
        ],
    ],
)
def test_a_broken_node_costs_itself_alone(bad: Any) -> None:
    batch = counts(entity(1), entity(5))
    found, _ = run(crawl(batch), [nodes(bad, node(5))])
    assert table(sound(found, batch)) == {(5, STARS, DAY): 105.0, (5, FORKS, DAY): 5.0}
    assert [(g.entity_id, g.metric_id, g.day, g.retry) for g in found.gaps] == [
        (1, STARS, DAY, True),
        (1, FORKS, DAY, True),
    ]


def test_one_count_may_be_sound_without_the_other() -> None:
    found, _ = run(crawl(counts(entity(1))), [nodes(node(1, forkCount=None))])
    assert table(found) == {(1, STARS, DAY): 101.0}
    assert [(g.metric_id, g.reason) for g in found.gaps] == [
        (FORKS, "forkCount is no count that a repository can have")
    ]


@pytest.mark.parametrize("name", [None, 5, "", "no-slash", "a/b\x00", "x/" + "y" * 5000, "a b/c"])
def test_a_name_that_no_repository_can_have_is_not_recorded(name: Any) -> None:
    batch = counts(entity(1))
    assert sound(run(crawl(batch), [nodes(node(1, nameWithOwner=name))])[0], batch).identities == ()
    unknown = counts(entity(1, known=False))
    found, _ = run(crawl(unknown), [ok({"data": {"r0": {"id": "R_1", "nameWithOwner": name}}})])
    assert sound(found, unknown).identities == ()
    assert len(found.gaps) == 2


@pytest.mark.parametrize("values", [[], [node(1)], [node(1), node(2), node(3)]])
def test_another_number_of_nodes_is_no_answer(values: list[Any]) -> None:
    with pytest.raises(Malformed, match=f"{len(values)} nodes for 2 ids"):
        run(crawl(counts(entity(1), entity(2))), [nodes(*values)])


def test_four_totals_a_repository() -> None:
    counted = {"watchers": 7, "issues": 5, "pullRequests": 3, "releases": 0}
    stated = node(1) | {name: {"totalCount": n} for name, n in counted.items()}
    batch = Batch("github", "totals", DAY, DAY, DAY, (entity(1), entity(2)))
    found, (request,) = run(crawl(batch), [nodes(stated, node(2) | {"watchers": {"totalCount": -1}})])
    values = table(sound(found, batch))
    assert [values[1, metric_id, DAY] for metric_id in (3, 4, 5, 6)] == [7.0, 5.0, 3.0, 0.0]
    assert {(g.entity_id, g.metric_id) for g in found.gaps} == {(2, 3), (2, 4), (2, 5), (2, 6)}
    assert request.cost == 1


@pytest.mark.parametrize(
    "errors",
    [
        5,
        "x",
        {"a": 1},
        [5, None],
        [{"path": 5}],
        [{"path": {"a": 1}}],
        [{"path": None, "type": 7}],
        [{"path": [[]]}],
    ],
)
def test_errors_of_any_form(errors: Any) -> None:
    batch = counts(entity(1))
    found, _ = run(crawl(batch), [nodes(None, errors=errors)])
    assert [g.retry for g in sound(found, batch).gaps] == [True, True]


def test_reasons_of_null_nodes() -> None:
    errors = [
        {"type": "NOT_FOUND", "path": ["nodes", 0], "message": "Could not resolve at 12:00, id 77"},
        {"path": ["nodes", 1], "message": "Something went wrong at 12:00, id 78"},
    ]
    errors += [{"type": "FORBIDDEN", "path": ["nodes", 3], "message": "by order 79"}]
    answers = [nodes(None, None, None, None, errors=errors), ok({}, 404)]
    found, _ = run(crawl(counts(entity(1), entity(2), entity(3), entity(4))), answers)
    assert {g.entity_id for g in found.gaps if not g.retry} == {1}
    assert len({g.reason for g in found.gaps}) == 4
    assert not any("12:00" in g.reason for g in found.gaps)


@pytest.mark.parametrize("response", BROKEN)
def test_what_is_no_answer(response: Response) -> None:
    with pytest.raises(SourceError):
        run(crawl(counts(entity(1), entity(2))), lambda _: response)


@given(JSON, JSON, JSON)
def test_any_json(whole: Any, node_: Any, errors: Any) -> None:
    for value in (whole, {"data": whole}, {"data": {"nodes": [node_], "r0": node_}, "errors": errors}):
        for batch in (counts(entity(1)), counts(entity(1, known=False))):
            survives(lambda b=batch: crawl(b), lambda _, v=value: ok(v), batch)


@given(st.dictionaries(st.sampled_from(list(node(1))), JSON))
def test_any_node(changes: dict[str, Any]) -> None:
    batch = counts(entity(1), entity(2))
    found, _ = run(crawl(batch), [nodes(node(1, **changes), node(2))])
    sound(found, batch)
    assert len(found) + len(found.gaps) == 4
    assert (2, STARS, DAY) in table(found)


def test_against_the_simulator() -> None:
    github = GitHub(make_world(), {"t": User(1, "ann")})
    known = [Entity(n, f"p{n}", f"R_node{n}", (f"owner{n}/Repo.{n}",)) for n in (1, GAP)]
    former = Entity(0, "p0", "", ("first0/repo",))
    batch = counts(*known, former, day=NIGHT)
    found, requests = run(crawl(batch), lambda r: ask(github, r))
    sound(found, batch)
    assert len(requests) == 2
    assert table(found) == {
        (0, STARS, NIGHT): 1250.0,
        (0, FORKS, NIGHT): 125.0,
        (1, STARS, NIGHT): 2500.0,
        (1, FORKS, NIGHT): 250.0,
    }
    assert set(found.identities) == {Identity(0, "github", "R_node0", "owner0/Repo.0")}
    assert [(g.entity_id, g.retry) for g in found.gaps] == [(GAP, True), (GAP, True)]


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if not s.startswith(("hn_", "npm_", "huggingface_"))])
def test_against_a_simulator_that_misbehaves(scenario: str) -> None:
    hard = replace(SCENARIOS[scenario], probability=0.5, gone=0.4, renamed=0.4)
    github = GitHub(make_world(12), {"t": User(1, "ann")}, scenario=hard)
    for n in range(12):
        known = counts(Entity(n, "p", f"R_node{n}", (f"owner{n}/Repo.{n}",)), day=NIGHT)
        survives(lambda b=known: crawl(b), lambda r: ask(github, r), known)
        past = history(*known.entities, start=NIGHT - timedelta(days=20), end=NIGHT)
        survives(lambda b=past: crawl(b), lambda r: ask(github, r), past)
        worked = commits(*known.entities, start=NIGHT - timedelta(days=7), end=NIGHT)
        survives(lambda b=worked: crawl(b), lambda r: ask(github, r), worked)


def test_the_record_fits_the_crawl() -> None:
    assert SOURCE.tasks["counts"].timing == "snapshot"
    assert SOURCE.tasks["counts"].entities_per_batch <= 100, "more ids than GitHub takes in one query"
