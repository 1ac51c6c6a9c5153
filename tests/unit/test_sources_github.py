"""GitHub's tasks, answered by hand, by recorded answers and by the simulator."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import graphql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, RateLimited, SourceError, Unavailable
from astrid.models import Batch, Entity, Identity, Observations, Request, Response
from astrid.simulators.github import GitHub, User
from astrid.simulators.github_graphql import Query, price, read_query
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.github import SOURCE, crawl
from astrid.sources.github_commits import MAX_HISTORIES, commits_form
from astrid.sources.github_counts import COUNTS, TOTALS, parse_counts
from astrid.sources.github_graphql import MAX_FAILURES, NOT_FOUND, Form
from astrid.sources.github_history import parse_history
from astrid.sources.github_identity import (
    BLOCKED_BY_GITHUB,
    BLOCKED_BY_LAW,
    DELETED,
    IDENTITY,
    REOCCUPIED,
    YOUNGER,
    parse_resolved,
    resolve_query,
)
from astrid.sources.source import PATIENCE
from tests.by_hand import BROKEN, JSON, ok, run, sound, survives, table
from tests.synthetic_world import FIRST_DAY, GAP, NIGHT, make_world

SHARED = Path(__file__).parents[2].parent / "shared"
needs_samples = pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="../shared/samples is not there")
DAY = date(2026, 3, 31)
WEEK = DAY - timedelta(days=7)
STARS, FORKS, GAINED, COMMITS = 1, 2, 10, 11


def counts(*entities: Entity, day: date = DAY) -> Batch:
    return Batch("github", "counts", day, day, day, entities)


def history(*entities: Entity, start: date = DAY, end: date = DAY, attempt: int = 0) -> Batch:
    return Batch("github", "history", end, start, end, entities, attempt=attempt)


def entity(n: int, *, known: bool = True) -> Entity:
    return Entity(n, f"p{n}", f"R_{n}" if known else "", (f"owner/repo{n}",))


def node(n: int, **changes: Any) -> dict[str, Any]:
    sound_one = {"__typename": "Repository", "id": f"R_{n}", "databaseId": n, "nameWithOwner": f"Owner/repo{n}"}
    return sound_one | {"stargazerCount": 100 + n, "forkCount": n} | changes


def nodes(*values: Any, errors: Any = None) -> Response:
    return ok({"data": {"nodes": list(values)}} | ({} if errors is None else {"errors": errors}))


@pytest.fixture(scope="module")
def schema() -> graphql.GraphQLSchema:
    """The types and fields that our queries touch; building the whole schema takes seconds."""
    file = SHARED / "schemas" / "github.graphql.gz"
    if not file.is_file():
        pytest.skip("../shared/schemas/github.graphql.gz is not there")
    types = {"Query", "Node", "Repository", "RateLimit", "DateTime", "IssueState", "PullRequestState"}
    types |= {"UserConnection", "IssueConnection", "PullRequestConnection", "ReleaseConnection"}
    types |= {"GitObject", "GitTimestamp", "Ref", "Commit", "CommitHistoryConnection"}
    fields = {"node", "nodes", "repository", "rateLimit", "id", "databaseId", "nameWithOwner", "stargazerCount"}
    fields |= {"totalCount", "watchers", "issues", "pullRequests", "releases", "createdAt"}
    fields |= {"isEmpty", "defaultBranchRef", "target", "history"}
    fields |= {"forkCount", "cost", "limit", "remaining", "used", "resetAt", "nodeCount"}
    return cut_schema(gzip.decompress(file.read_bytes()).decode(), types, fields)


class TestQueries:
    @pytest.mark.parametrize("form", [COUNTS, TOTALS, IDENTITY, commits_form(WEEK, DAY)], ids=lambda f: f.name)
    def test_counts_are_valid_against_githubs_schema(self, schema: graphql.GraphQLSchema, form: Form) -> None:
        assert graphql.validate(schema, graphql.parse(form.query)) == []

    @pytest.mark.parametrize("names", [["owner/repo"], ["a/b", 'q"uo/te\\s', "no-slash", "ümlaut/😀"]])
    def test_valid_against_githubs_schema(self, schema: graphql.GraphQLSchema, names: list[str]) -> None:
        entities = [Entity(n, "p", "", (name,)) for n, name in enumerate(names)]
        document = graphql.parse(resolve_query(entities))
        assert graphql.validate(schema, document) == []
        (operation,) = document.definitions
        assert isinstance(operation, graphql.OperationDefinitionNode)
        asked = [f for f in operation.selection_set.selections if isinstance(f, graphql.FieldNode) and f.arguments]
        assert len(asked) == len(names)
        for name, field in zip(names, asked, strict=False):
            owner, _, repo = name.partition("/")
            stated = {a.name.value: graphql.value_from_ast_untyped(a.value) for a in field.arguments}
            assert stated == {"owner": owner, "name": repo}

    def test_a_field_that_is_not_there_is_noticed(self, schema: graphql.GraphQLSchema) -> None:
        assert graphql.validate(schema, graphql.parse(COUNTS.query.replace("forkCount", "forksCount")))


def cut_schema(text: str, types: set[str], fields: set[str]) -> graphql.GraphQLSchema:
    """Take the definitions of some types out of a schema's text, with the fields that are named, and build them."""
    blocks: list[str] = []
    inputs: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        kind, _, rest = line.partition(" ")
        name = rest.split(" ")[0].split("(")[0]
        if kind == "scalar" and name in types:
            blocks.append(f"scalar {name}")
        elif kind == "enum" and name in types:
            body = [line]
            while body[-1] != "}":
                body.append(next(lines))
            blocks.append("\n".join(body))
        elif kind == "input":
            inputs.append(name)
        elif kind in ("type", "interface") and name in types:
            body = [line]
            while body[-1] != "}":
                body.append(next(lines))
            parsed = graphql.parse("\n".join(body)).definitions[0]
            assert isinstance(parsed, graphql.ObjectTypeDefinitionNode | graphql.InterfaceTypeDefinitionNode)
            wanted = {"totalCount"} if name.endswith("Connection") else fields
            kept = [graphql.print_ast(f) for f in parsed.fields or () if f.name.value in wanted]
            above = [i.name.value for i in parsed.interfaces or () if i.name.value in types]
            implements = f" implements {' & '.join(above)}" if above else ""
            blocks.append(f"{kind} {name}{implements} {{ {chr(10).join(kept)} }}")
    assert len(blocks) == len(types)
    # Our queries pass none of the input objects; arguments of such types only have to exist.
    blocks += [f"scalar {name}" for name in inputs if any(f": {name}" in block for block in blocks)]
    return graphql.build_schema("\n".join(blocks), assume_valid_sdl=True)


class TestCounts:
    def test_two_values_a_repository(self) -> None:
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

    def test_names_are_looked_up_once(self) -> None:
        batch = counts(entity(1), entity(2, known=False), entity(3, known=False))
        resolved = ok({"data": {"r0": {"id": "R_2", "databaseId": 2, "nameWithOwner": "New/Name"}, "r1": None}})
        found, requests = run(crawl(batch), [resolved, nodes(node(1), node(2, nameWithOwner="New/Name"))])
        sound(found, batch)
        assert requests[1].json["variables"]["ids"] == ["R_1", "R_2"]
        assert set(found.identities) == {Identity(2, "github", "R_2", "New/Name")}
        assert [(g.entity_id, g.metric_id, g.retry) for g in found.gaps] == [(3, STARS, True), (3, FORKS, True)]

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
    def test_why_a_repository_is_not_found_is_asked_once(self, response: Response, reason: str) -> None:
        errors = [{"type": "NOT_FOUND", "path": ["nodes", 0], "message": "Could not resolve at 12:00"}]
        batch = counts(entity(1), entity(2))
        found, requests = run(crawl(batch), [nodes(None, node(2), errors=errors), response])
        assert {e for e, _, _ in table(sound(found, batch))} == {2}
        assert [(g.metric_id, g.reason, g.retry) for g in found.gaps] == [
            (STARS, reason, False),
            (FORKS, reason, False),
        ]
        assert (requests[1].method, requests[1].path, requests[1].bucket) == ("GET", "/repos/owner/repo1", "core")

    def test_a_name_that_is_not_found(self) -> None:
        errors = [{"type": "NOT_FOUND", "path": ["r0"], "message": "Could not resolve"}]
        answers = [ok({"data": {"r0": None}, "errors": errors}), ok({}, 404)]
        found, _ = run(crawl(counts(entity(1, known=False))), answers)
        assert len(found) == 0
        assert {(g.reason, g.retry) for g in found.gaps} == {(DELETED, False)}

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
        self, created: str | None, since: date | None, stranger: bool
    ) -> None:
        asked = replace(entity(1, known=False), since=since)
        resolved = ok({"data": {"r0": {"id": "R_1", "nameWithOwner": "owner/repo1", "createdAt": created}}})
        found, requests = run(crawl(counts(asked)), [resolved] if stranger else [resolved, nodes(node(1))])
        assert len(requests) == (1 if stranger else 2)
        assert {(g.reason, g.retry) for g in found.gaps} == ({(YOUNGER, False)} if stranger else set())
        assert [i.upstream_id for i in found.identities] == ([] if stranger else ["R_1"])

    def test_a_known_id_wins_over_the_name(self) -> None:
        found, requests = run(crawl(counts(replace(entity(1), since=date(2020, 1, 1)))), [nodes(node(1))])
        assert [r.json["variables"] for r in requests] == [{"ids": ["R_1"]}]
        assert len(found) == 2

    def test_a_new_name_is_recorded_another_spelling_is_not(self) -> None:
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
    def test_a_broken_node_costs_itself_alone(self, bad: Any) -> None:
        batch = counts(entity(1), entity(5))
        found, _ = run(crawl(batch), [nodes(bad, node(5))])
        assert table(sound(found, batch)) == {(5, STARS, DAY): 105.0, (5, FORKS, DAY): 5.0}
        assert [(g.entity_id, g.metric_id, g.day, g.retry) for g in found.gaps] == [
            (1, STARS, DAY, True),
            (1, FORKS, DAY, True),
        ]

    def test_one_count_may_be_sound_without_the_other(self) -> None:
        found, _ = run(crawl(counts(entity(1))), [nodes(node(1, forkCount=None))])
        assert table(found) == {(1, STARS, DAY): 101.0}
        assert [(g.metric_id, g.reason) for g in found.gaps] == [
            (FORKS, "forkCount is no count that a repository can have")
        ]

    @pytest.mark.parametrize("name", [None, 5, "", "no-slash", "a/b\x00", "x/" + "y" * 5000, "a b/c"])
    def test_a_name_that_no_repository_can_have_is_not_recorded(self, name: Any) -> None:
        batch = counts(entity(1))
        assert sound(run(crawl(batch), [nodes(node(1, nameWithOwner=name))])[0], batch).identities == ()
        unknown = counts(entity(1, known=False))
        found, _ = run(crawl(unknown), [ok({"data": {"r0": {"id": "R_1", "nameWithOwner": name}}})])
        assert sound(found, unknown).identities == ()
        assert len(found.gaps) == 2

    @pytest.mark.parametrize("values", [[], [node(1)], [node(1), node(2), node(3)]])
    def test_another_number_of_nodes_is_no_answer(self, values: list[Any]) -> None:
        with pytest.raises(Malformed, match=f"{len(values)} nodes for 2 ids"):
            run(crawl(counts(entity(1), entity(2))), [nodes(*values)])

    @pytest.mark.parametrize(
        "response",
        [
            ok({}, 502),
            Response(504, {}, b"<html>"),
            Response(200, {}, b"<html>502 Bad Gateway</html>"),
            ok({"data": None, "errors": [{"message": "Something went wrong while executing your query on 2026."}]}),
            ok({"errors": [{"message": "We couldn't respond to your request in time."}]}),
            nodes(node(1), None, errors=[{"type": "RESOURCE_LIMITS_EXCEEDED", "path": ["nodes", 1]}]),
        ],
    )
    def test_giving_up_on_one_repository_or_on_its_name(self, response: Response) -> None:
        with pytest.raises(Unavailable, match="gave up"):
            run(crawl(counts(entity(1))), [response])
        with pytest.raises(Unavailable, match="gave up on 3 look-ups in a row"):
            run(crawl(counts(entity(1, known=False), entity(2, known=False))), [response] * 3)

    def test_a_name_that_github_cannot_look_up_costs_itself_alone(self) -> None:
        def answer(request: Request) -> Response:
            if "variables" in request.json:
                return nodes(*(node(int(i[2:])) for i in request.json["variables"]["ids"]))
            asked = re.findall(r'name: "repo(\d+)"', request.json["query"])
            if "70" in asked:
                return Response(502, {}, b"")
            return ok(
                {"data": {f"r{n}": {"id": f"R_{i}", "nameWithOwner": f"owner/repo{i}"} for n, i in enumerate(asked)}}
            )

        batch = counts(*(entity(n, known=False) for n in range(100)))
        found, requests = run(crawl(batch), answer)
        assert {g.entity_id for g in sound(found, batch).gaps} == {70}
        assert len(found) == 198
        assert len(requests) < 20

    @pytest.mark.parametrize("bears", [1, 3, 24, 99])
    def test_a_query_is_halved_until_github_bears_it_and_grows_back(self, bears: int) -> None:
        sizes: list[int] = []

        def answer(request: Request) -> Response:
            ids = request.json["variables"]["ids"]
            sizes.append(len(ids))
            return Response(502, {}, b"<html>") if len(ids) > bears else nodes(*(node(int(i[2:])) for i in ids))

        batch = counts(*(entity(n) for n in range(400)))
        found, _ = run(crawl(batch), answer)
        assert len(sound(found, batch)) == 800
        assert not found.gaps
        assert all(smaller == larger // 2 for larger, smaller in itertools.pairwise(sizes) if larger > bears)
        assert sizes[0] == 100
        assert max(sizes[3:]) > bears, "it never grows back"

    def test_one_repository_that_github_cannot_answer_costs_itself_alone(self) -> None:
        def answer(request: Request) -> Response:
            ids = request.json["variables"]["ids"]
            return Response(502, {}, b"") if "R_70" in ids else nodes(*(node(int(i[2:])) for i in ids))

        batch = counts(*(entity(n) for n in range(100)))
        found, requests = run(crawl(batch), answer)
        assert {g.entity_id for g in sound(found, batch).gaps} == {70}
        assert len(found) == 198
        assert len(requests) < 40

    def test_a_cut_answer_keeps_what_it_states(self) -> None:
        asked: list[list[str]] = []

        def answer(request: Request) -> Response:
            ids = request.json["variables"]["ids"]
            asked.append(ids)
            stated = [node(int(i[2:])) if n < 20 else None for n, i in enumerate(ids)]
            errors = [{"type": "RESOURCE_LIMITS_EXCEEDED", "path": ["nodes", 20]}] if len(ids) > 20 else None
            return nodes(*stated, errors=errors)

        batch = counts(*(entity(n) for n in range(60)))
        found, _ = run(crawl(batch), answer)
        assert len(sound(found, batch)) == 120
        assert not found.gaps
        counted = [i for ids in asked for i in ids[:20]]
        assert len(counted) == len(set(counted)), "what was stated was asked for again"

    def test_an_outage_ends_the_batch(self) -> None:
        sent = 0

        def answer(request: Request) -> Response:
            nonlocal sent
            sent += 1
            return Response(502, {}, b"<html>")

        with pytest.raises(Unavailable, match="in a row"):
            run(crawl(counts(*(entity(n) for n in range(100)))), answer)
        assert sent == MAX_FAILURES

    def test_four_totals_a_repository(self) -> None:
        counted = {"watchers": 7, "issues": 5, "pullRequests": 3, "releases": 0}
        stated = node(1) | {name: {"totalCount": n} for name, n in counted.items()}
        batch = Batch("github", "totals", DAY, DAY, DAY, (entity(1), entity(2)))
        found, (request,) = run(crawl(batch), [nodes(stated, node(2) | {"watchers": {"totalCount": -1}})])
        values = table(sound(found, batch))
        assert [values[1, metric_id, DAY] for metric_id in (3, 4, 5, 6)] == [7.0, 5.0, 3.0, 0.0]
        assert {(g.entity_id, g.metric_id) for g in found.gaps} == {(2, 3), (2, 4), (2, 5), (2, 6)}
        assert request.cost == 1

    @pytest.mark.parametrize("form", [COUNTS, TOTALS, IDENTITY, commits_form(WEEK, DAY)], ids=lambda f: f.name)
    @given(st.integers(1, 100))
    def test_a_request_costs_what_githubs_formula_says(self, form: Form, size: int) -> None:
        query = read_query(form.query, None)
        assert isinstance(query, Query)
        assert form.points(size) == price(query, {"ids": ["R_1"] * size}).points

    @pytest.mark.parametrize(("form", "most"), [(COUNTS, 100), (TOTALS, 400)], ids=["counts", "totals"])
    def test_what_ten_thousand_repositories_cost(self, form: Form, most: int) -> None:
        github = GitHub(make_world(), {"t": User(1, "ann")})
        points = 0
        for start in range(0, 10_000, form.largest):
            group = [Entity(n, "p", f"R_node{n % 2}", (f"owner{n % 2}/Repo.{n % 2}",)) for n in range(form.largest)]
            batch = Batch("github", form.name.lower(), NIGHT, NIGHT, NIGHT, tuple(group))
            steps = crawl(batch)
            request = next(steps)
            assert start or request.cost == form.points(form.largest)
            points += ask(github, request).json()["data"]["rateLimit"]["cost"]
            steps.close()
        assert points == form.points(form.largest) * 10_000 // form.largest <= most

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
    def test_errors_of_any_form(self, errors: Any) -> None:
        batch = counts(entity(1))
        found, _ = run(crawl(batch), [nodes(None, errors=errors)])
        assert [g.retry for g in sound(found, batch).gaps] == [True, True]

    def test_reasons_of_null_nodes(self) -> None:
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
    def test_what_is_no_answer(self, response: Response) -> None:
        with pytest.raises(SourceError):
            run(crawl(counts(entity(1), entity(2))), lambda _: response)

    @given(JSON, JSON, JSON)
    def test_any_json(self, whole: Any, node_: Any, errors: Any) -> None:
        for value in (whole, {"data": whole}, {"data": {"nodes": [node_], "r0": node_}, "errors": errors}):
            for batch in (counts(entity(1)), counts(entity(1, known=False))):
                survives(lambda b=batch: crawl(b), lambda _, v=value: ok(v), batch)

    @given(st.dictionaries(st.sampled_from(list(node(1))), JSON))
    def test_any_node(self, changes: dict[str, Any]) -> None:
        batch = counts(entity(1), entity(2))
        found, _ = run(crawl(batch), [nodes(node(1, **changes), node(2))])
        sound(found, batch)
        assert len(found) + len(found.gaps) == 4
        assert (2, STARS, DAY) in table(found)

    @needs_samples
    def test_quoted_partial_answer(self) -> None:
        cases = json.loads((SHARED / "samples/github-graphql/quoted_error_bodies.json").read_text())
        body = next(c["body"] for c in cases if c["case"] == "alias batch, one of two missing")
        found, lost = parse_resolved(ok(body), [entity(1, known=False), entity(2, known=False)])
        assert found == []  # its first node has no name
        assert [(e.entity_id, retry) for e, _, retry in lost] == [(1, True), (2, False)]
        for case in cases:
            with pytest.raises(SourceError):
                parse_counts(ok(case["body"], case["status"]), [entity(1), entity(2)], ["R_1", "R_2"], DAY)

    def test_against_the_simulator(self) -> None:
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
    def test_against_a_simulator_that_misbehaves(self, scenario: str) -> None:
        hard = replace(SCENARIOS[scenario], probability=0.5, gone=0.4, renamed=0.4)
        github = GitHub(make_world(12), {"t": User(1, "ann")}, scenario=hard)
        for n in range(12):
            known = counts(Entity(n, "p", f"R_node{n}", (f"owner{n}/Repo.{n}",)), day=NIGHT)
            survives(lambda b=known: crawl(b), lambda r: ask(github, r), known)
            past = history(*known.entities, start=NIGHT - timedelta(days=20), end=NIGHT)
            survives(lambda b=past: crawl(b), lambda r: ask(github, r), past)
            worked = commits(*known.entities, start=NIGHT - timedelta(days=7), end=NIGHT)
            survives(lambda b=worked: crawl(b), lambda r: ask(github, r), worked)

    def test_a_stranger_that_took_the_name_is_told_and_never_read(self) -> None:
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

    def test_gone_in_three_ways(self) -> None:
        github = GitHub(make_world(40), {"t": User(1, "ann")}, scenario=replace(SCENARIOS["gone"], gone=1.0))
        batch = counts(*(Entity(n, "p", f"R_node{n}", (f"owner{n}/Repo.{n}",)) for n in range(40)), day=NIGHT)
        found, _ = run(crawl(batch), lambda r: ask(github, r))
        assert {g.reason for g in sound(found, batch).gaps} == {DELETED, BLOCKED_BY_LAW, BLOCKED_BY_GITHUB}
        assert not any(g.retry for g in found.gaps)


class TestCommits:
    def test_a_value_a_day(self) -> None:
        batch = commits(entity(1), start=DAY - timedelta(days=2), end=DAY)
        found, (request,) = run(crawl(batch), [nodes(worked(1, 5, 0, 7))])
        assert [v for _, v in sorted(table(sound(found, batch)).items())] == [5.0, 0.0, 7.0]
        assert (found.gaps, request.bucket, request.cost) == ((), "graphql", 1)
        for n in range(3):
            day = batch.start + timedelta(days=n)
            assert f'd{n}: history(since: "{day}T00:00:00Z", until: "{day}T23:59:59Z")' in request.json["query"]

    def test_an_empty_repository_has_no_commits_and_an_untold_branch_is_a_gap(self) -> None:
        batch = commits(entity(1), entity(2), start=DAY, end=DAY)
        answer = nodes(node(1, isEmpty=True, defaultBranchRef=None), node(2, isEmpty=False, defaultBranchRef=None))
        found, _ = run(crawl(batch), [answer])
        assert table(sound(found, batch)) == {(1, COMMITS, DAY): 0.0}
        assert [(g.entity_id, g.retry) for g in found.gaps] == [(2, True)]

    @pytest.mark.parametrize(
        "bad", [5, [], {}, {"target": None}, {"target": []}, {"target": {"__typename": "Tag"}}, {"target": {"d0": 5}}]
    )
    def test_a_branch_of_another_form_costs_itself_alone(self, bad: Any) -> None:
        batch = commits(entity(1), entity(2), start=DAY, end=DAY)
        found, _ = run(crawl(batch), [nodes(node(1, isEmpty=True, defaultBranchRef=bad), worked(2, 3))])
        assert table(sound(found, batch)) == {(2, COMMITS, DAY): 3.0}
        assert [g.entity_id for g in found.gaps] == [1]

    def test_no_query_asks_for_more_than_github_bears(self) -> None:
        for days in range(1, 60):
            form = commits_form(DAY - timedelta(days=days - 1), DAY)
            assert form.largest == 1 or form.largest * days <= MAX_HISTORIES
        batch = commits(*(entity(n) for n in range(20)), start=WEEK, end=DAY)
        found, requests = run(crawl(batch), lambda r: nodes(*(worked(int(i[2:]), *range(8)) for i in ids_of(r))))
        assert len(sound(found, batch)) == 160
        assert [len(ids_of(r)) for r in requests] == [7, 7, 6]

    def test_a_repository_too_deep_for_github_costs_itself_alone(self) -> None:
        batch = commits(*(entity(n) for n in range(14)), start=WEEK, end=DAY)

        def answer(request: Request) -> Response:
            ids = ids_of(request)
            if "R_4" in ids:
                return Response(502, {}, b"<html>")
            return nodes(*(worked(int(i[2:]), *range(8)) for i in ids))

        found, _ = run(crawl(batch), answer)
        assert {g.entity_id for g in sound(found, batch).gaps} == {4}
        assert len(found) == 13 * 8

    @given(JSON)
    def test_any_branch(self, branch: Any) -> None:
        batch = commits(entity(1), start=DAY, end=DAY)
        for value in (branch, {"target": branch}, {"target": {"d0": branch}}):
            stated = nodes(node(1, isEmpty=branch, defaultBranchRef=value))
            survives(lambda: crawl(batch), lambda _, s=stated: s, batch)

    def test_against_the_simulator(self) -> None:
        github = GitHub(make_world(), {"t": User(1, "ann")})
        batch = commits(*(Entity(n, "p", f"R_node{n}", (f"o/p{n}",)) for n in range(6)), start=WEEK_OF_NIGHT, end=NIGHT)
        found, requests = run(crawl(batch), lambda r: ask(github, r))
        assert len(sound(found, batch)) == 6 * 8
        points = github.limits.report()["points"]["graphql"]
        assert points == sum(r.cost for r in requests) == 1


def commits(*entities: Entity, start: date, end: date) -> Batch:
    return Batch("github", "commits", end, start, end, entities)


def worked(n: int, *counted: int) -> dict[str, Any]:
    """Return a repository with commits on each day of a batch."""
    target = {"__typename": "Commit"} | {f"d{k}": {"totalCount": count} for k, count in enumerate(counted)}
    return node(n, isEmpty=False, defaultBranchRef={"target": target})


def ids_of(request: Request) -> list[str]:
    ids: list[str] = request.json["variables"]["ids"]
    return ids


def ask(github: GitHub, request: Request) -> Response:
    now = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
    return github.respond(request, token="t", now=now, night=NIGHT)


SUNDAY = date(2026, 3, 29)
WEEK_OF_NIGHT = NIGHT - timedelta(days=7)


def week(sunday: date, days: Any) -> dict[str, Any]:
    epoch_s = int(datetime(sunday.year, sunday.month, sunday.day, tzinfo=UTC).timestamp())
    return {"week": epoch_s, "total": 0, "days": days}


def who_then(batch: Batch, response: Response) -> Callable[[Request], Response]:
    """Say who the repositories are, and answer everything else alike."""
    who = nodes(*(node(e.entity_id) for e in batch.entities))
    return lambda request: who if request.path == "/graphql" else response


def past(
    batch: Batch, answers: Iterable[Response] | Callable[[Request], Response], created: str | None = None
) -> tuple[Observations, list[Request]]:
    """Crawl histories: say who the repositories are, then give the answers; return also what was asked after that."""
    who = nodes(*(node(e.entity_id, createdAt=created) for e in batch.entities))
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


class TestHistory:
    def test_days_of_a_week(self) -> None:
        batch = history(entity(1), start=SUNDAY - timedelta(days=2), end=SUNDAY + timedelta(days=2))
        pages = [ok([week(SUNDAY, [7, 8, 9]), week(SUNDAY - timedelta(days=7), [0, 1, 2, 3, 4, 5, 6])])]
        found, (request,) = past(batch, pages)
        assert [v for _, v in sorted(table(sound(found, batch)).items())] == [5.0, 6.0, 7.0, 8.0, 9.0]
        assert (request.path, request.bucket) == ("/repositories/1/stargazers/history", "core")
        assert request.params == (("per_page", "30"), ("page", "1"))
        assert found.gaps == ()

    def test_pages_are_followed_back_to_the_first_day_only(self) -> None:
        weeks = [week(SUNDAY - timedelta(days=7 * n), [n] * 7) for n in range(6)]
        url = "https://api.github.com/repositories/9/stargazers/history?per_page=30&page={}&c=a%3D%26b"
        batch = history(entity(1), start=SUNDAY - timedelta(days=20), end=SUNDAY)
        pages = [
            Response(200, {"link": f'<{url.format(n + 2)}>; rel="next"'}, json.dumps(weeks[2 * n : 2 * n + 2]).encode())
            for n in range(2)
        ]
        found, requests = past(batch, pages)
        assert len(table(sound(found, batch))) == 21
        assert requests[1].path == "/repositories/9/stargazers/history"
        assert requests[1].params == (("per_page", "30"), ("page", "2"), ("c", "a=&b"))

    def test_days_before_the_repository_are_no_gaps_later_ones_and_holes_are(self) -> None:
        start = SUNDAY - timedelta(days=21)
        batch = history(entity(1), start=start, end=SUNDAY + timedelta(days=8))
        weeks = [week(SUNDAY, [1] * 7), week(SUNDAY - timedelta(days=7), [1, -1, None, True, 1, 1, "2"])]
        found, _ = past(batch, [ok(weeks)])
        sound(found, batch)
        assert [(g.day - SUNDAY).days for g in found.gaps] == [-6, -5, -4, -1, 7, 8]
        assert all(g.retry for g in found.gaps)
        assert {g.reason for g in found.gaps[:4]} == {"the history states no sound count for this day"}
        assert {g.reason for g in found.gaps[4:]} == {"the history does not reach this day yet"}
        assert min(table(found))[2] == SUNDAY - timedelta(days=7)

    def test_days_since_the_week_of_the_creation_that_are_not_stated_are_gaps(self) -> None:
        born = SUNDAY - timedelta(days=3)
        batch = history(entity(1), start=SUNDAY - timedelta(days=9), end=SUNDAY)
        found, _ = past(batch, [ok([week(SUNDAY, [1] * 7)])], created=f"{born}T12:00:00Z")
        assert [g.day for g in sound(found, batch).gaps] == [SUNDAY - timedelta(days=n) for n in range(7, 0, -1)]
        assert all(g.retry for g in found.gaps)

    def test_a_star_on_the_day_before_the_creation_is_kept(self) -> None:
        batch = history(entity(1), start=SUNDAY - timedelta(days=2), end=SUNDAY)
        weeks = [week(SUNDAY, [1] * 7), week(SUNDAY - timedelta(days=7), [0] * 6 + [1])]
        found, _ = past(batch, [ok(weeks)], created=f"{SUNDAY}T00:00:01Z")
        assert table(sound(found, batch))[1, GAINED, SUNDAY - timedelta(days=1)] == 1.0
        assert found.gaps == ()

    def test_a_repository_without_a_number_is_asked_for_by_its_name_of_today(self) -> None:
        batch = history(entity(1), start=SUNDAY, end=SUNDAY)
        who = nodes(node(1, databaseId=None, nameWithOwner="else/where"))
        found, requests = run(crawl(batch), [who, ok([week(SUNDAY, [5])])])
        assert requests[1].path == "/repos/else/where/stargazers/history"
        assert found.identities == (Identity(1, "github", "R_1", "else/where"),)

    def test_who_is_not_found_is_explained_and_the_others_go_on(self) -> None:
        errors = [{"type": "NOT_FOUND", "path": ["nodes", 0], "message": "x"}]
        batch = history(entity(1), entity(2), start=SUNDAY, end=SUNDAY)
        stranger = ok({"node_id": "R_77", "full_name": "owner/repo1"})
        found, requests = run(crawl(batch), [nodes(None, node(2), errors=errors), stranger, ok([week(SUNDAY, [5])])])
        assert [(g.entity_id, g.reason, g.retry) for g in sound(found, batch).gaps] == [(1, REOCCUPIED, False)]
        assert requests[1].path == "/repos/owner/repo1"
        assert len(found) == 1

    def test_a_missing_week_is_seven_gaps(self) -> None:
        batch = history(entity(1), start=SUNDAY - timedelta(days=14), end=SUNDAY)
        weeks = [week(SUNDAY, [1] * 7), week(SUNDAY - timedelta(days=14), [1] * 7)]
        found, _ = past(batch, [ok(weeks)])
        assert len(found.gaps) == 7

    def test_empty_history(self) -> None:
        found, _ = past(history(entity(1)), [ok([])])
        assert [(g.reason, g.retry) for g in found.gaps] == [("the history is empty", True)]

    @pytest.mark.parametrize(
        "response", [ok({}, 404), ok({"message": "x", "block": {}}, 451), ok({"message": "x", "block": {}}, 403)]
    )
    def test_gone_is_gone_and_the_others_go_on(self, response: Response) -> None:
        batch = history(entity(1), entity(2), start=SUNDAY, end=SUNDAY)
        found, _ = past(batch, [response, ok([week(SUNDAY, [5])])])
        assert table(sound(found, batch)) == {(2, GAINED, SUNDAY): 5.0}
        assert [(g.entity_id, g.retry) for g in found.gaps] == [(1, False)]

    @pytest.mark.parametrize("query", ["", "?per_page=30&page=1"])
    def test_one_redirect_is_followed_with_its_parameters(self, query: str) -> None:
        moved = Response(301, {"location": f"https://api.github.com/repositories/9/stargazers/history{query}"}, b"")
        found, requests = past(history(entity(1), start=SUNDAY, end=SUNDAY), [moved, ok([week(SUNDAY, [5])])])
        assert len(found) == 1
        assert requests[1].path == "/repositories/9/stargazers/history"
        assert requests[1].params == requests[0].params
        with pytest.raises(Malformed, match="answered 301"):
            past(history(entity(1)), [moved, moved])

    @pytest.mark.parametrize("location", ["", "https://example.org/", "http://[bad", "\x00", "//", "/user/1"])
    def test_a_redirect_to_nowhere(self, location: str) -> None:
        with pytest.raises(Malformed):
            past(history(entity(1)), [Response(302, {"location": location}, b"")])

    def test_an_owner_called_repositories(self) -> None:
        moved = Response(301, {"location": "https://api.github.com/repos/repositories/x/stargazers/history"}, b"")
        _, requests = past(history(entity(1)), [moved, ok([])])
        assert requests[1].path == "/repos/repositories/x/stargazers/history"

    def test_links_in_a_circle_end(self) -> None:
        link = {"link": '<https://api.github.com/repos/o/r/stargazers/history?page=1>; rel="next"'}
        batch = history(entity(1), start=date(2020, 1, 1))
        found, requests = past(batch, lambda _: Response(200, link, json.dumps([week(SUNDAY, [1] * 7)]).encode()))
        assert len(requests) == 2
        sound(found, batch)

    def test_spammed_is_a_pause(self) -> None:
        with pytest.raises(RateLimited) as caught:
            past(history(entity(1)), [ok({"message": "endpoint has been spammed"}, 422)])
        assert caught.value.retry_after_s == 60.0

    @pytest.mark.parametrize("response", BROKEN)
    def test_one_broken_repository_does_not_take_the_others_with_it(self, response: Response) -> None:
        entities = (entity(1), entity(2))
        answers = [response] if response.status != 302 else [replace(response, headers={"location": "/x"})]
        with pytest.raises(SourceError):
            past(history(*entities, start=SUNDAY, end=SUNDAY), answers)
        batch = history(*entities, start=SUNDAY, end=SUNDAY, attempt=PATIENCE)
        found, _ = past(batch, [*answers, ok([week(SUNDAY, [5])])])
        assert table(sound(found, batch)) == {(2, GAINED, SUNDAY): 5.0}
        assert [(g.entity_id, g.retry) for g in found.gaps] == [(1, True)]

    @pytest.mark.parametrize(
        "bad",
        [
            None,
            5,
            [],
            {},
            week(SUNDAY, None),
            week(SUNDAY, {}),
            week(SUNDAY, [1] * 8),
            week(DAY, [1] * 7),
            week(SUNDAY - timedelta(days=7), [1] * 6),
            week(SUNDAY, [1]) | {"week": True},
            *[
                {"week": w, "days": [1] * 7}
                for w in ("1774742400", None, 1774742400.0, 1774742401, -1, 2**62, 253_401_868_800, -259_200)
            ],
        ],
    )
    def test_a_broken_week_is_left_out(self, bad: Any) -> None:
        sound_weeks = [week(SUNDAY + timedelta(days=7), [3]), week(SUNDAY - timedelta(days=14), [2] * 7)]
        assert set(parse_history(ok([bad, *sound_weeks])).values()) == {2, 3}

    def test_a_week_that_is_stated_twice(self) -> None:
        again = week(SUNDAY, [1, 2])
        assert parse_history(ok([again, again])) == {SUNDAY: 1, SUNDAY + timedelta(days=1): 2}
        assert parse_history(ok([again, week(SUNDAY, [1, 3])])) == {}

    @given(
        JSON, st.lists(st.fixed_dictionaries({"week": st.just(1774742400) | JSON, "days": st.lists(JSON)}), max_size=3)
    )
    def test_any_json(self, whole: Any, weeks: Any) -> None:
        for attempt in (0, PATIENCE):
            batch = history(entity(1), start=SUNDAY, end=SUNDAY + timedelta(days=6), attempt=attempt)
            for value in (whole, weeks):
                survives(lambda b=batch: crawl(b), who_then(batch, ok(value)), batch)
            survives(lambda b=batch: crawl(b), lambda _: ok({"data": {"nodes": [whole]}}), batch)
            survives(lambda b=batch: crawl(b), lambda _: ok({"data": whole}), batch)

    @given(st.text(max_size=60))
    def test_any_link(self, link: str) -> None:
        batch = history(entity(1), start=date(2026, 1, 1))
        body = json.dumps([week(SUNDAY, [1] * 7)]).encode()
        paged = Response(200, {"link": f'<{link}>; rel="next"'}, body)
        survives(lambda: crawl(batch), who_then(batch, paged), batch)
        survives(lambda: crawl(batch), who_then(batch, Response(301, {"location": link}, b"")), batch)

    @needs_samples
    def test_recorded_weeks(self) -> None:
        body = (SHARED / "samples/github-rest/stargazers_history_200.json").read_bytes()
        days = parse_history(Response(200, {}, body))
        assert len(days) == 21
        assert sum(days.values()) == 19 + 23 + 35
        assert days[date(2026, 8, 30)] == 2
        other = json.loads((SHARED / "samples/github-rest/stargazers_history_oldest_week_and_link.json").read_text())
        answers = [Response(200, {"link": other["response_link_header"]}, body), ok([other["oldest_page_last_object"]])]
        _, requests = past(history(entity(1), start=date(2023, 2, 26)), answers)
        assert requests[1].path == "/repositories/608376199/stargazers/history"
        assert requests[1].params == (("per_page", "30"), ("page", "2"))

    def test_against_the_simulator(self) -> None:
        github = GitHub(make_world(), {"t": User(1, "ann")})
        young = Entity(2, "p2", "", ("owner2/Repo.2",))
        batch = history(young, start=FIRST_DAY, end=NIGHT)
        found, _ = run(crawl(batch), lambda r: ask(github, r))
        sound(found, batch)
        assert len(found) > 140
        assert min(found.day.tolist()) >= FIRST_DAY + timedelta(days=90)
        assert max(found.day.tolist()) == NIGHT
        assert found.gaps == ()


def test_the_record_fits_the_crawl() -> None:
    assert SOURCE.tasks["counts"].timing == "snapshot"
    assert SOURCE.tasks["counts"].entities_per_batch <= 100, "more ids than GitHub takes in one query"
