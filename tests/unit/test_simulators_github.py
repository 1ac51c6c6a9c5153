"""The simulated GitHub: GraphQL and its price, REST, identity, limits, and the recorded shapes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLEnumType, GraphQLObjectType, parse
from hypothesis import given
from hypothesis import strategies as st

from astrid.models import Request, Response
from astrid.simulators.github import QUOTAS, GitHub, Quotas, User, users_of
from astrid.simulators.github_graphql import SCHEMA, Query, price, read_query
from astrid.simulators.limits import Window
from astrid.simulators.scenarios import CALM, SCENARIOS, Scenario
from tests.synthetic_world import FIRST_DAY, GAP, NIGHT, make_world

NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
EPOCH = date(1970, 1, 1)
TOKEN = "secret-a"
SHARED = Path(__file__).parents[2].parent / "shared"
needs_samples = pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="../shared/samples is not there")
COUNTS = """query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id
  ... on Repository { databaseId nameWithOwner stargazerCount forkCount } }
  rateLimit { cost limit remaining used resetAt nodeCount } }"""


def make_github(scenario: Scenario = CALM, quotas: Quotas = QUOTAS, repos: int = 6) -> GitHub:
    tokens = {"secret-a": User(1, "ann"), "secret-b": User(2, "ben"), "secret-a2": User(1, "ann")}
    return GitHub(make_world(repos), tokens, scenario=scenario, quotas=quotas)


def graphql(
    github: GitHub,
    query: str,
    variables: dict[str, Any] | None = None,
    *,
    token: str | None = TOKEN,
    now: datetime = NOW,
    night: date = NIGHT,
) -> Response:
    body = {"query": query, "variables": variables or {}}
    return github.respond(Request("github", "POST", "/graphql", json=body), token=token, now=now, night=night)


def get(
    github: GitHub,
    path: str,
    params: Iterable[tuple[str, str]] = (),
    *,
    token: str | None = TOKEN,
    now: datetime = NOW,
    night: date = NIGHT,
    headers: tuple[tuple[str, str], ...] = (),
) -> Response:
    request = Request("github", "GET", path, tuple(params), headers=headers)
    return github.respond(request, token=token, now=now, night=night)


class TestNodes:
    def test_counts_of_the_night(self) -> None:
        answer = graphql(make_github(), COUNTS, {"ids": ["R_node0", "R_node1"]}).json()
        assert answer["data"]["nodes"] == [
            {
                "__typename": "Repository",
                "id": f"R_node{n}",
                "databaseId": 1000 + n,
                "nameWithOwner": f"owner{n}/Repo.{n}",
                "stargazerCount": 1000 * (n + 1) + 250 * (n + 1),
                "forkCount": (1000 * (n + 1) + 250 * (n + 1)) // 10,
            }
            for n in (0, 1)
        ]
        assert "errors" not in answer
        assert answer["data"]["rateLimit"] == {
            "cost": 1,
            "limit": 5000,
            "remaining": 4999,
            "used": 1,
            "resetAt": "2026-04-01T06:00:00Z",
            "nodeCount": 2,
        }

    def test_a_gap_is_a_failure_of_that_node_alone(self) -> None:
        answer = graphql(make_github(), COUNTS, {"ids": ["R_node0", f"R_node{GAP}", "R_node1"]}).json()
        assert [n and n["id"] for n in answer["data"]["nodes"]] == ["R_node0", None, "R_node1"]
        (error,) = answer["errors"]
        assert error["path"] == ["nodes", 1]
        assert "type" not in error
        assert error["message"].startswith(
            "Something went wrong while executing your query on 2026-04-01T05:00:00+00:00."
        )

    def test_identity_is_told_on_a_gap(self) -> None:
        query = f'{{ node(id: "R_node{GAP}") {{ ... on Repository {{ nameWithOwner }} }} }}'
        assert graphql(make_github(), query).json() == {"data": {"node": {"nameWithOwner": "owner3/Repo.3"}}}

    def test_unknown_id_and_repository_of_a_later_day(self) -> None:
        github = make_github()
        before = FIRST_DAY + timedelta(days=99)
        answer = graphql(github, COUNTS, {"ids": ["R_nobody", "R_node2"]}, night=before).json()
        assert answer["data"]["nodes"] == [None, None]
        assert [e["type"] for e in answer["errors"]] == ["NOT_FOUND", "NOT_FOUND"]
        assert [e["path"] for e in answer["errors"]] == [["nodes", 0], ["nodes", 1]]
        assert "global id of 'R_nobody'" in answer["errors"][0]["message"]
        assert graphql(github, COUNTS, {"ids": ["R_node2"]}, night=before + timedelta(days=1)).json()["data"]["nodes"][
            0
        ]

    def test_more_than_100_ids_are_refused_for_nothing(self) -> None:
        github = make_github()
        answer = graphql(github, COUNTS, {"ids": ["R_node0"] * 101})
        assert "data" not in answer.json()
        assert "100" in answer.json()["errors"][0]["message"]
        assert answer.headers["x-ratelimit-used"] == "0"
        assert len(graphql(github, COUNTS, {"ids": ["R_node0"] * 100}).json()["data"]["nodes"]) == 100

    def test_closed_stargazer_list_still_counts(self) -> None:
        query = (
            '{ repository(owner: "owner0", name: "Repo.0") { stargazers(first: 10) { totalCount nodes { login } } } }'
        )
        stargazers = graphql(make_github(), query).json()["data"]["repository"]["stargazers"]
        assert stargazers == {"totalCount": 1250, "nodes": []}


class TestRepository:
    def test_aliases_fragments_and_any_case(self) -> None:
        query = """query ($o: String!) { r0: repository(owner: $o, name: "repo.0") { ...F }
          r1: repository(owner: "none", name: "nope") { ...F } me: viewer { databaseId login } }
          fragment F on Repository { id nameWithOwner createdAt pushedAt isArchived }"""
        answer = graphql(make_github(), query, {"o": "OWNER0"}).json()
        assert answer["data"]["r0"]["id"] == "R_node0"
        assert answer["data"]["r0"]["nameWithOwner"] == "owner0/Repo.0"
        assert answer["data"]["r0"]["createdAt"].startswith("2024-06-03T")
        assert answer["data"]["r1"] is None
        assert answer["data"]["me"] == {"databaseId": 1, "login": "ann"}
        (error,) = answer["errors"]
        assert (error["type"], error["path"]) == ("NOT_FOUND", ["r1"])
        assert error["message"] == "Could not resolve to a Repository with the name 'none/nope'."

    def test_former_name_leads_to_the_repository_unless_told_not_to(self) -> None:
        query = """{ a: repository(owner: "first0", name: "repo") { id nameWithOwner }
          b: repository(owner: "first0", name: "repo", followRenames: false) { id } }"""
        data = graphql(make_github(), query).json()["data"]
        assert data == {"a": {"id": "R_node0", "nameWithOwner": "owner0/Repo.0"}, "b": None}

    def test_broken_queries_cost_nothing(self) -> None:
        github = make_github()
        for text in ("{ nodes(", "{ nope }", "", "mutation { x }", "{ repository(owner: 1) { id } }"):
            answer = graphql(github, text)
            assert answer.status == 200
            assert answer.json()["errors"]
            assert "data" not in answer.json()
        assert github.limits.report()["points"].get("graphql", 0) == 0
        request = Request("github", "POST", "/graphql", content=b"{not json")
        assert github.respond(request, token=TOKEN, now=NOW, night=NIGHT).status == 400
        request = Request("github", "POST", "/graphql", json={"query": COUNTS, "variables": [1]})
        assert github.respond(request, token=TOKEN, now=NOW, night=NIGHT).status == 400


def cost_of(text: str, variables: dict[str, Any] | None = None) -> tuple[int, int, list[str]]:
    query = read_query(text, None)
    assert isinstance(query, Query), query
    bill = price(query, variables or {})
    return bill.points, bill.nodes, [e["type"] for e in bill.errors]


class TestPrice:
    def test_scalars_of_100_ids_cost_the_minimum(self) -> None:
        assert cost_of(COUNTS, {"ids": [f"R_{n}" for n in range(100)]}) == (1, 100, [])

    def test_each_connection_of_100_repositories_costs_a_point(self) -> None:
        fields = ["watchers", "issues(states: OPEN)", "pullRequests(states: [OPEN])", "releases"]
        for k in range(1, 5):
            inside = " ".join(f"{f} {{ totalCount }}" for f in fields[:k])
            text = f"query ($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on Repository {{ {inside} }} }} }}"
            assert cost_of(text, {"ids": ["R"] * 100})[0] == k
            assert cost_of(text, {"ids": ["R"] * 50})[0] == max(1, int(k / 2 + 0.5))

    def test_nested_connections_as_in_the_docs(self) -> None:
        # The docs' example: 1 + 100 + 5,000 requests are 51 points. Here the first level is 100 ids: 100 + 5,000.
        text = """query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Repository {
          issues(first: 50) { nodes { labels(first: 60) { totalCount } } } } } }"""
        points, nodes, errors = cost_of(text, {"ids": ["R"] * 100})
        assert (points, nodes, errors) == (51, 100 + 5_000 + 300_000, [])

    def test_too_many_nodes(self) -> None:
        text = """query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Repository {
          issues(first: 100) { nodes { labels(first: 100) { totalCount } } } } } }"""
        assert cost_of(text, {"ids": ["R"] * 100})[2] == ["MAX_NODE_LIMIT_EXCEEDED"]

    @pytest.mark.parametrize(
        ("arguments", "inside", "kind"),
        [
            ("", "nodes { id }", "MISSING_PAGINATION_BOUNDARIES"),
            ("(first: 101)", "nodes { id }", "EXCESSIVE_PAGINATION"),
            ("(last: 0)", "totalCount", "EXCESSIVE_PAGINATION"),
        ],
    )
    def test_page_sizes(self, arguments: str, inside: str, kind: str) -> None:
        text = f'{{ repository(owner: "a", name: "b") {{ issues{arguments} {{ {inside} }} }} }}'
        assert cost_of(text)[2] == [kind]

    def test_bare_total_needs_no_page_size(self) -> None:
        text = '{ repository(owner: "a", name: "b") { issues { totalCount } } }'
        assert cost_of(text) == (1, 0, [])

    def test_variables_and_defaults_and_named_fragments_count(self) -> None:
        text = """query ($n: Int = 50, $ids: [ID!]!) { nodes(ids: $ids) { ...R } }
          fragment R on Repository { issues(first: $n) { nodes { labels(first: 1) { totalCount } } } }"""
        ids = ["R"] * 100
        assert cost_of(text, {"ids": ids})[0] == 51
        assert cost_of(text, {"ids": ids, "n": 1})[0] == 2

    @given(st.integers(1, 100), st.integers(0, 4))
    def test_formula(self, ids: int, connections: int) -> None:
        fields = ["watchers", "issues", "pullRequests", "releases"][:connections]
        inside = " ".join(f"{f} {{ totalCount }}" for f in fields) or "id"
        text = f"query ($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on Repository {{ {inside} }} }} }}"
        assert cost_of(text, {"ids": ["R"] * ids})[0] == max(1, (ids * connections + 50) // 100)


class TestCommits:
    QUERY = """query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Repository {
      a: defaultBranchRef { target { ... on Commit { %s } } } } } }"""

    def count(self, *arguments: str) -> list[int]:
        inside = " ".join(f"h{n}: history{a} {{ totalCount }}" for n, a in enumerate(arguments))
        (node,) = graphql(make_github(), self.QUERY % inside, {"ids": ["R_node1"]}).json()["data"]["nodes"]
        return [node["a"]["target"][f"h{n}"]["totalCount"] for n in range(len(arguments))]

    def test_days_add_up(self) -> None:
        days = [NIGHT - timedelta(days=n) for n in range(7)]
        *each, whole = self.count(
            *(f'(since: "{d}T00:00:00Z", until: "{d}T23:59:59Z")' for d in days),
            f'(since: "{days[-1]}T00:00:00Z", until: "{days[0]}T23:59:59Z")',
        )
        assert sum(each) == whole > 0
        assert len(set(each)) > 2

    def test_what_has_not_happened_and_the_whole_past(self) -> None:
        tomorrow = NIGHT + timedelta(days=1)
        none, past, all_ = self.count(f'(since: "{tomorrow}T00:00:00Z")', f'(until: "{NIGHT}T23:59:59Z")', "")
        assert (none, past) == (0, all_)

    def test_no_moment_is_an_error_of_that_field(self) -> None:
        answer = graphql(make_github(), self.QUERY % 'history(since: "soon") { totalCount }', {"ids": ["R_node1"]})
        assert "soon" in answer.json()["errors"][0]["message"]

    @given(st.integers(1, 100), st.integers(1, 8))
    def test_each_day_is_a_connection(self, ids: int, days: int) -> None:
        inside = " ".join(f'h{n}: history(since: "2026-01-0{n + 1}") {{ totalCount }}' for n in range(days))
        assert cost_of(self.QUERY % inside, {"ids": ["R"] * ids})[0] == max(1, (ids * days + 50) // 100)


class TestRest:
    def test_repository_by_name_and_number(self) -> None:
        github = make_github()
        by_name = get(github, "/repos/owner1/repo.1")
        body = by_name.json()
        assert body == get(github, "/repositories/1001").json()
        assert (body["id"], body["node_id"], body["full_name"]) == (1001, "R_node1", "owner1/Repo.1")
        assert body["stargazers_count"] == body["watchers_count"] == body["watchers"] == 2500
        assert body["forks_count"] == 250

    def test_headers(self) -> None:
        head = get(make_github(), "/repos/owner1/repo.1").headers
        assert head["date"] == "Wed, 01 Apr 2026 05:00:00 GMT"
        assert (head["x-ratelimit-limit"], head["x-ratelimit-remaining"], head["x-ratelimit-used"]) == (
            "5000",
            "4999",
            "1",
        )
        assert head["x-ratelimit-resource"] == "core"
        assert int(head["x-ratelimit-reset"]) == int(NOW.timestamp()) + 3600

    def test_former_name_is_moved_with_its_query(self) -> None:
        answer = get(make_github(), "/repos/first0/repo/stargazers/history", [("per_page", "5")])
        assert answer.status == 301
        assert answer.headers["location"] == "https://api.github.com/repositories/1000/stargazers/history?per_page=5"
        assert answer.json()["message"] == "Moved Permanently"
        assert answer.headers["x-ratelimit-used"] == "1"

    @pytest.mark.parametrize(
        "path",
        [
            "/repos/owner1/none",
            "/repos/owner1/repo.1/",
            "/repositories/9",
            "/repositories/" + "9" * 5000,
            "/repositories/" + "9" * 18,
            "/repos/owner1/Repo.1/stargazers",
            "/x",
        ],
    )
    def test_not_found(self, path: str) -> None:
        answer = get(make_github(), path)
        assert (answer.status, answer.json()["message"]) == (404, "Not Found")

    def test_gap_is_a_server_error_not_a_zero(self) -> None:
        github = make_github()
        assert get(github, f"/repositories/{1000 + GAP}").status == 502
        assert get(github, f"/repositories/{1000 + GAP}/stargazers/count").status == 502
        assert get(github, "/repositories/1001/stargazers/count").json() == {"count": 2500}

    def test_unchanged_answer_is_304_and_free_for_the_same_token_only(self) -> None:
        github = make_github()
        first = get(github, "/repos/owner1/repo.1")
        known = (("if-none-match", first.headers["etag"]),)
        again = get(github, "/repos/owner1/repo.1", headers=known)
        assert (again.status, again.body, again.headers["x-ratelimit-used"]) == (304, b"", "1")
        assert again.headers["etag"] == first.headers["etag"]
        assert get(github, "/repos/owner1/repo.1", headers=known, token="secret-b").status == 200
        assert get(github, "/repos/owner1/repo.1", headers=known, night=NIGHT + timedelta(days=1)).status == 200
        assert github.limits.report()["points"] == {"rest_minute": 4, "core": 3}

    def test_rate_limit_is_free(self) -> None:
        github = make_github()
        graphql(github, COUNTS, {"ids": ["R_node0"]})
        body = get(github, "/rate_limit").json()
        reset = int(NOW.timestamp()) + 3600
        assert body["resources"]["core"] == {"limit": 5000, "used": 0, "remaining": 5000, "reset": reset}
        assert body["resources"]["graphql"] == {"limit": 5000, "used": 1, "remaining": 4999, "reset": reset}
        assert body["rate"] == body["resources"]["core"]
        newer = get(github, "/rate_limit", headers=(("X-GitHub-Api-Version", "2026-03-10"),))
        assert "rate" not in newer.json()
        assert get(github, "/rate_limit", headers=(("x-github-api-version", "1999-01-01"),)).status == 200
        assert get(github, "/repositories/1000", headers=(("x-github-api-version", "1999-01-01"),)).status == 400


class TestHistory:
    def pages(self, github: GitHub, path: str, night: date = NIGHT) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        params: list[tuple[str, str]] = [("per_page", "30"), ("page", "1")]
        while True:
            answer = get(github, path, params, night=night)
            assert answer.status == 200
            rows += answer.json()
            link = answer.headers.get("link", "")
            if 'rel="next"' not in link:
                return rows
            url = next(part for part in link.split(", ") if 'rel="next"' in part).split(">")[0].lstrip("<")
            assert url.startswith("https://api.github.com/repositories/1000/stargazers/history?")
            params = [(k, v) for k, _, v in (p.partition("=") for p in url.partition("?")[2].split("&"))]

    def test_whole_life_in_weeks_newest_first(self) -> None:
        rows = self.pages(make_github(), "/repos/owner0/repo.0/stargazers/history")
        days = {
            EPOCH + timedelta(days=row["week"] // 86_400 + n): count
            for row in rows
            for n, count in enumerate(row["days"])
        }
        assert sum(days.values()) == sum(row["total"] for row in rows) == 1250
        weeks = [row["week"] for row in rows]
        assert weeks == list(range(weeks[0], weeks[-1] - 1, -7 * 86_400))
        assert all(datetime.fromtimestamp(w, UTC).strftime("%a %H:%M") == "Sun 00:00" for w in weeks)
        assert all(len(row["days"]) == 7 for row in rows)
        assert min(days) <= date(2024, 6, 3) <= min(days) + timedelta(days=6)
        assert days[NIGHT] == 1
        assert all(days[d] == 0 for d in days if d > NIGHT)

    def test_at_most_30_weeks_a_page_and_pages_end(self) -> None:
        github = make_github()
        path = "/repositories/1000/stargazers/history"
        assert len(get(github, path, [("per_page", "100")]).json()) == 30
        assert len(get(github, path, [("per_page", "7")]).json()) == 7
        assert get(github, path, [("page", "90")]).json() == []
        assert 'rel="next"' not in get(github, path, [("page", "90")]).headers.get("link", "")
        assert get(github, path, [("page", "101")]).status == 422
        first = get(github, path).json()
        for nonsense in ("9" * 5000, "-1", "1.5", "x", "", "٣"):
            assert get(github, path, [("page", nonsense), ("per_page", nonsense)]).json() == first

    def test_weeks_that_the_world_does_not_know_are_not_served_as_zeros(self) -> None:
        world = make_world()
        stars = world.stars.copy()
        stars[1, 200:] = -1
        github = GitHub(replace(world, stars=stars), users_of([TOKEN]))
        newest = get(github, "/repositories/1001/stargazers/history").json()[0]
        saturday = EPOCH + timedelta(days=newest["week"] // 86_400 + 6)
        assert saturday <= FIRST_DAY + timedelta(days=199) < saturday + timedelta(days=7)

    @needs_samples
    def test_recorded_shape(self) -> None:
        recorded = json.loads((SHARED / "samples/github-rest/stargazers_history_200.json").read_bytes())
        ours = get(make_github(), "/repositories/1000/stargazers/history").json()
        assert [list(row) for row in ours[:3]] == [list(row) for row in recorded]


class TestIdentityScenarios:
    def test_renamed(self) -> None:
        github = make_github(replace(SCENARIOS["renamed"], renamed=1.0))
        assert get(github, "/repos/owner1/repo.1").status == 301
        assert get(github, "/repos/owner1/repo.1-next").json()["id"] == 1001
        node = graphql(github, COUNTS, {"ids": ["R_node1"]}).json()["data"]["nodes"][0]
        assert node["nameWithOwner"] == "owner1/Repo.1-next"

    def test_reoccupied(self) -> None:
        github = make_github(replace(SCENARIOS["reoccupied"], reoccupied=1.0))
        stranger = get(github, "/repos/owner1/repo.1").json()
        assert stranger["id"] != 1001
        assert stranger["node_id"] != "R_node1"
        assert get(github, "/repositories/1001").json()["full_name"] == "owner1/Repo.1-next"
        rows = get(github, f"/repositories/{stranger['id']}/stargazers/history", [("per_page", "30")]).json()
        later = get(github, f"/repositories/{stranger['id']}/stargazers/history", [("page", "2")]).json()
        assert sum(r["total"] for r in rows + later) == stranger["stargazers_count"]

    def test_gone(self) -> None:
        github = make_github(replace(SCENARIOS["gone"], gone=1.0), repos=40)
        seen = {}
        for n in range(40):
            answer = get(github, f"/repositories/{1000 + n}")
            if n != 2 or answer.status != 502:
                seen[answer.status] = answer.json()
        assert set(seen) == {404, 451, 403}
        assert seen[451]["block"]["reason"] == "dmca"
        assert seen[403]["block"]["reason"] in ("tos", "unavailable")
        assert seen[403]["message"] == "Repository access blocked"
        nodes = graphql(github, COUNTS, {"ids": ["R_node0", "R_node1"]}).json()
        assert nodes["data"]["nodes"] == [None, None]
        assert {e["type"] for e in nodes["errors"]} == {"NOT_FOUND"}

    def test_shares_are_shares_and_depend_on_the_seed(self) -> None:
        def renamed(scenario: Scenario) -> set[int]:
            github = make_github(scenario, repos=400)
            ids = [f"R_node{n}" for n in range(400)]
            found = [github.repositories.by_node(i, NIGHT) for i in ids]
            return {n for n, r in enumerate(found) if r is not None and r.name.endswith("-next")}

        some = replace(SCENARIOS["renamed"], renamed=0.25)
        assert 60 < len(renamed(some)) < 140
        assert renamed(some) == renamed(some)
        assert renamed(some) != renamed(replace(some, seed=1))

    def test_private_for_a_night_and_back(self) -> None:
        github = make_github(replace(SCENARIOS["private"], private=1.0))
        nights = [NIGHT + timedelta(days=n) for n in range(21)]
        statuses = [get(github, "/repositories/1001", night=night).status for night in nights]
        assert statuses.count(404) == 3
        away = statuses.index(404)
        assert [n for n, status in enumerate(statuses) if status == 404] == [away, away + 7, away + 14]
        answer = graphql(github, COUNTS, {"ids": ["R_node1"]}, night=nights[away]).json()
        assert (answer["data"]["nodes"], answer["errors"][0]["type"]) == ([None], "NOT_FOUND")

    def test_purged_stars_go_from_the_count_and_from_the_past(self) -> None:
        github = make_github(replace(SCENARIOS["purged"], purged=1.0))
        repository = github.repositories.by_node("R_node1", NIGHT)
        assert repository is not None
        purged_on = github.repositories.purge_day(repository)
        assert purged_on is not None
        before, after = purged_on - timedelta(days=1), purged_on
        stars = [get(github, "/repositories/1001", night=night).json()["stargazers_count"] for night in (before, after)]
        assert stars[1] == stars[0] + 2 - (stars[0] + 2) // 10
        days = [self.gains(github, night) for night in (before, after)]
        revised = [day for day, count in days[0].items() if days[1][day] < count]
        assert len(revised) > 20
        assert all(days[1][day] <= count for day, count in days[0].items() if day < purged_on)
        assert all(count >= 0 for count in days[1].values())
        assert [sum(d.values()) for d in days] == stars
        assert sum(self.gains(github, after + timedelta(days=9)).values()) == stars[1] + 9 * 2

    def gains(self, github: GitHub, night: date) -> dict[date, int]:
        repository = github.repositories.by_number(1001, night)
        assert repository is not None
        rows = github.repositories.history(repository, night)
        return {
            EPOCH + timedelta(days=row["week"] // 86_400 + n): count
            for row in rows
            for n, count in enumerate(row["days"])
        }

    def test_empty_and_archived(self) -> None:
        query = """{ repository(owner: "owner1", name: "Repo.1") { isEmpty isArchived pushedAt
          defaultBranchRef { target { ... on Commit { history { totalCount } } } } } }"""
        empty = graphql(make_github(replace(SCENARIOS["empty"], empty=1.0)), query).json()["data"]["repository"]
        assert (empty["isEmpty"], empty["defaultBranchRef"], empty["pushedAt"]) == (True, None, None)
        archived = graphql(make_github(replace(SCENARIOS["archived"], archived=1.0)), query).json()["data"][
            "repository"
        ]
        assert archived["isArchived"]
        assert archived["defaultBranchRef"]["target"]["history"]["totalCount"] == 0

    @pytest.mark.parametrize("created", [date(2025, 4, 12), date(2025, 4, 13)])
    def test_a_star_before_the_creation(self, created: date) -> None:
        world = make_world()
        facts = (*world.repos[:1], replace(world.repos[1], created_on=created), *world.repos[2:])
        stars = world.stars.copy()
        stars[1, : (created - FIRST_DAY).days] = -1
        changed = replace(world, repos=facts, stars=stars)
        plain, early = (
            self.gains(GitHub(changed, users_of([TOKEN]), scenario=scenario), NIGHT)
            for scenario in (CALM, replace(SCENARIOS["early_star"], early=1.0))
        )
        assert early[created - timedelta(days=1)] == 1
        assert early[created] == plain[created] - 1
        assert sum(early.values()) == sum(plain.values())

    def test_histories_of_very_old_repositories_fail_alone(self) -> None:
        github = make_github(replace(SCENARIOS["ancient"], ancient=1.0))
        assert get(github, "/repositories/1001/stargazers/history").status == 502
        assert get(github, "/repositories/1001").status == 200

    def test_the_newest_week_is_late_until_tuesday(self) -> None:
        github = make_github(SCENARIOS["late_week"])
        sunday = date(2025, 9, 7)
        newest = [max(self.gains(github, sunday + timedelta(days=n))) for n in (-1, 0, 1, 2)]
        assert newest == [sunday - timedelta(days=1)] * 3 + [sunday + timedelta(days=6)]

    def test_suspended_token(self) -> None:
        scenario = replace(SCENARIOS["suspended_token"], dead_tokens=1)
        github = GitHub(make_world(), users_of(["x", "y", "z"]), scenario=scenario)
        answers = {token: get(github, "/repositories/1000", token=token) for token in "xyz"}
        assert [answer.status for answer in answers.values()] == [200, 403, 401]
        assert "suspended" in answers["y"].json()["message"]
        assert not any(name.startswith("x-ratelimit") for name in answers["y"].headers)

    def test_an_app_has_no_viewer(self) -> None:
        github = GitHub(make_world(), users_of(["x", "y"]), scenario=SCENARIOS["app_token"])
        query = "{ viewer { databaseId login } }"
        refused = graphql(github, query, token="x").json()
        assert (refused["data"], refused["errors"][0]["type"]) == (None, "FORBIDDEN")
        assert graphql(github, query, token="y").json()["data"]["viewer"]["login"] == "simulated-2"
        assert get(github, "/rate_limit", token="x").status == 200

    def test_all_tokens_of_one_user(self) -> None:
        github = GitHub(make_world(), users_of(["x", "y"]), scenario=SCENARIOS["one_user"])
        query = "{ viewer { databaseId } }"
        viewers = [graphql(github, query, token=token).json()["data"]["viewer"] for token in "xy"]
        assert viewers[0] == viewers[1]
        assert get(github, "/rate_limit", token="y").json()["resources"]["graphql"]["used"] == 2
        (account,) = github.limits.report()["accounts"].values()
        assert account["requests"] == 3

    def test_small_and_short_quotas(self) -> None:
        small = make_github(SCENARIOS["small_quota"])
        assert get(small, "/repositories/1000").headers["x-ratelimit-limit"] == "100"
        short = make_github(SCENARIOS["short_windows"])
        assert int(get(short, "/repositories/1000").headers["x-ratelimit-reset"]) == NOW.timestamp() + 120
        later = get(short, "/repositories/1000", now=NOW + timedelta(seconds=120))
        assert later.headers["x-ratelimit-used"] == "1"

    @pytest.mark.parametrize(("name", "ahead_s"), [("clock_skew", 600), ("clock_slow", -600)])
    def test_one_clock_is_wrong_everywhere(self, name: str, ahead_s: int) -> None:
        github = make_github(SCENARIOS[name])
        shown = NOW + timedelta(seconds=ahead_s)
        answer = get(github, "/repositories/1000")
        assert parsedate_to_datetime(answer.headers["date"]) == shown
        reset_s = int(answer.headers["x-ratelimit-reset"])
        assert reset_s == (shown + timedelta(hours=1)).timestamp()
        told = graphql(github, COUNTS, {"ids": [f"R_node{GAP}"]})
        assert parsedate_to_datetime(told.headers["date"]) == shown
        reset_at = datetime.fromisoformat(told.json()["data"]["rateLimit"]["resetAt"])
        assert reset_at.timestamp() == int(told.headers["x-ratelimit-reset"]) == reset_s
        assert f"on {shown.isoformat()}" in told.json()["errors"][0]["message"]
        overview = get(github, "/rate_limit").json()
        assert {row["reset"] for n, row in overview["resources"].items() if n != "search"} == {reset_s}
        assert overview["resources"]["search"]["reset"] == (shown + timedelta(minutes=1)).timestamp()

    def test_a_wrong_clock_moves_no_window(self) -> None:
        quotas = replace(QUOTAS, core=Window("core", 1, 3600.0))
        for name in ("clock_skew", "clock_slow"):
            github = make_github(SCENARIOS[name], quotas)
            moments = [NOW, NOW + timedelta(seconds=3599), NOW + timedelta(seconds=3600)]
            statuses = [get(github, "/repositories/1000", now=now).status for now in moments]
            assert (statuses[0], statuses[1] in (403, 429), statuses[2]) == (200, True, 200)

    @pytest.mark.parametrize("fates", [{"dead_tokens": 3}, {"suspended_tokens": 3}])
    def test_refusals_show_the_wrong_clock_too(self, fates: dict[str, int]) -> None:
        github = make_github(replace(SCENARIOS["clock_slow"], **fates))  # type: ignore[arg-type]
        answer = get(github, "/repositories/1000")
        assert parsedate_to_datetime(answer.headers["date"]) == NOW - timedelta(seconds=600)

    def test_dead_token(self) -> None:
        github = GitHub(make_world(), users_of(["x", "y"]), scenario=SCENARIOS["dead_token"])
        assert get(github, "/repositories/1000", token="x").status == 200
        assert get(github, "/repositories/1000", token="y").status == 401


class TestLimits:
    small = replace(
        QUOTAS,
        core=Window("core", 3, 3600.0),
        graphql=Window("graphql", 2, 3600.0),
        anonymous_core=Window("core", 2, 3600.0),
    )

    def test_unknown_and_missing_tokens(self) -> None:
        github = make_github()
        answer = get(github, "/repositories/1000", token="stolen")
        assert (answer.status, answer.json()["message"]) == (401, "Bad credentials")
        assert graphql(github, COUNTS, {"ids": []}, token="stolen").status == 401
        assert graphql(github, COUNTS, {"ids": []}, token=None).status == 401
        assert github.limits.report()["points"] == {}
        anonymous = get(github, "/repositories/1000", token=None)
        assert (anonymous.status, anonymous.headers["x-ratelimit-limit"]) == (200, "60")
        assert anonymous.headers["x-ratelimit-used"] == "1"
        assert "stolen" not in json.dumps(github.limits.report())

    def test_a_401_tells_of_the_address_and_not_of_the_user(self) -> None:
        github = make_github()
        sound = get(github, "/repositories/1000").headers
        later = NOW + timedelta(minutes=7)
        answers = [get(github, "/repositories/1000", token="stolen", now=later)]
        answers += [graphql(github, COUNTS, {"ids": []}, token=token, now=later) for token in ("stolen", None)]
        for answer in answers:
            told = {k.removeprefix("x-ratelimit-"): v for k, v in answer.headers.items() if "ratelimit" in k}
            reset = str(int(later.timestamp()) + 3600)
            assert told == {"limit": "60", "remaining": "60", "used": "0", "resource": "core", "reset": reset}
            assert told["reset"] != sound["x-ratelimit-reset"]

    def test_core_runs_out_and_comes_back(self) -> None:
        github = make_github(quotas=self.small)
        answers = [get(github, "/repositories/1000") for _ in range(4)]
        assert [a.status for a in answers] == [200, 200, 200, 403]
        assert answers[2].headers["x-ratelimit-remaining"] == "0"
        assert "rate limit exceeded" in answers[3].json()["message"]
        assert "retry-after" not in answers[3].headers
        assert github.limits.convictions() == 1
        reset = datetime.fromtimestamp(int(answers[3].headers["x-ratelimit-reset"]), UTC)
        assert get(github, "/repositories/1000", now=reset).status == 200
        assert github.limits.convictions() == 1

    def test_tokens_of_one_user_share_a_limit(self) -> None:
        github = make_github(quotas=self.small)
        for _ in range(3):
            get(github, "/repositories/1000")
        assert get(github, "/repositories/1000", token="secret-a2").status == 403
        assert get(github, "/repositories/1000", token="secret-b").status == 200
        reasons = [t["convictions"]["reasons"] for t in github.limits.report()["tokens"].values()]
        assert sorted(map(str, reasons)) == ["{'reset_ignored': 1}", "{}", "{}"]

    def test_graphql_runs_out_with_status_200_in_both_wordings(self) -> None:
        github = make_github(quotas=self.small)
        answers = [graphql(github, COUNTS, {"ids": ["R_node0"]}) for _ in range(4)]
        assert [a.status for a in answers] == [200] * 4
        assert answers[1].headers["x-ratelimit-remaining"] == "0"
        assert answers[1].json()["data"]["nodes"][0]["id"] == "R_node0"
        assert all("data" not in a.json() for a in answers[2:])
        assert {a.json()["errors"][0]["type"] for a in answers[2:]} == {"RATE_LIMITED", "RATE_LIMIT"}
        assert get(github, "/repositories/1000").status == 200

    def test_secondary_limit_demands_a_wait_and_convicts_who_ignores_it(self) -> None:
        github = make_github(quotas=replace(QUOTAS, rest_minute=Window("rest_minute", 2, 60.0)))
        get(github, "/repositories/1000")
        get(github, "/repositories/1000", now=NOW + timedelta(seconds=10))
        limited = get(github, "/repositories/1000", now=NOW + timedelta(seconds=20))
        assert (limited.status, limited.headers["retry-after"]) == (403, "40")
        assert "secondary rate limit" in limited.json()["message"]
        assert limited.headers["x-ratelimit-remaining"] == "4998"
        # GraphQL and REST of one user wait together.
        eager = graphql(github, COUNTS, {"ids": []}, now=NOW + timedelta(seconds=30))
        assert (eager.status, eager.headers["retry-after"]) == (403, "30")
        assert get(github, "/repositories/1000", now=NOW + timedelta(seconds=60)).status == 200
        (books,) = github.limits.report()["tokens"].values()
        assert books["convictions"]["reasons"] == {"over_limit": 1, "wait_ignored": 1}

    def test_a_limit_that_names_its_time_does_not_end_longer_waits(self) -> None:
        scenario = replace(SCENARIOS["secondary_limit_bare"], probability=1.0)
        github = make_github(scenario, replace(QUOTAS, rest_minute=Window("rest_minute", 1, 300.0)))
        moments = [NOW + timedelta(seconds=s) for s in (0, 60, 300, 301)]
        waits = [get(github, "/repositories/1000", now=now).headers.get("retry-after") for now in moments]
        assert waits == [None, "240", None, "119"]

    def test_graphql_minute(self) -> None:
        github = make_github(quotas=replace(QUOTAS, graphql_minute=Window("graphql_minute", 1, 60.0)))
        graphql(github, COUNTS, {"ids": []})
        assert graphql(github, COUNTS, {"ids": []}).status == 403

    def test_concurrency(self) -> None:
        github = make_github()
        open_requests = [github.arrive(TOKEN, "127.0.0.1", NOW) for _ in range(100)]
        answer = get(github, "/repositories/1000")
        assert (answer.status, answer.headers["retry-after"]) == (403, "60")
        for arrival in open_requests:
            github.limits.leave(arrival)
        assert get(github, "/repositories/1000", now=NOW + timedelta(seconds=61)).status == 200
        (books,) = github.limits.report()["tokens"].values()
        assert books["convictions"]["reasons"] == {"concurrency": 1}


class TestShapes:
    @needs_samples
    def test_repository_has_the_recorded_keys(self) -> None:
        recorded = json.loads((SHARED / "samples/github-rest/repo_get_200_2024.json").read_bytes())["response"]["body"]
        ours = get(make_github(), "/repositories/1000").json()
        # Rights of the one who recorded it: not shown to a token without any.
        assert set(recorded) - set(ours) == {"permissions"}
        assert set(ours) <= set(recorded)
        for key, value in ours.items():
            if value is not None and recorded[key] is not None:
                assert type(value) is type(recorded[key]), key

    @needs_samples
    def test_moved_answer_has_the_recorded_keys(self) -> None:
        recorded = json.loads((SHARED / "samples/github-rest/repo_renamed_301_then_200.json").read_bytes())[0][
            "response"
        ]
        ours = get(make_github(), "/repos/first0/repo")
        assert list(ours.json()) == list(recorded["body"])
        assert "location" in ours.headers

    @needs_samples
    def test_graphql_errors_have_the_recorded_keys(self) -> None:
        cases = json.loads((SHARED / "samples/github-graphql/quoted_error_bodies.json").read_bytes())
        recorded = next(c["body"]["errors"][0] for c in cases if c["case"].startswith("repository not found"))
        query = '{ repository(owner: "ShaxP", name: "nope") { id } }'
        (ours,) = graphql(make_github(), query).json()["errors"]
        assert list(ours) == list(recorded)
        assert (ours["type"], ours["path"], ours["message"]) == (
            recorded["type"],
            recorded["path"],
            recorded["message"],
        )

    def test_schema_is_a_part_of_githubs(self) -> None:
        file = SHARED / "schemas/github.graphql.gz"
        if not file.is_file():
            pytest.skip("../shared/schemas is not there")
        text = gzip.decompress(file.read_bytes()).decode()
        for kind in SCHEMA.type_map.values():
            if kind.name.startswith("__") or not isinstance(kind, GraphQLObjectType | GraphQLEnumType):
                continue
            theirs = _definition(text, kind.name)
            if isinstance(kind, GraphQLEnumType):
                assert set(kind.values) <= {v.name.value for v in theirs.values}
                continue
            fields = {f.name.value: f for f in theirs.fields}
            for name, field in kind.fields.items():
                assert name in fields, f"{kind.name}.{name}"
                assert str(field.type) == _typed(fields[name].type), f"{kind.name}.{name}"
                arguments = {a.name.value: _typed(a.type) for a in fields[name].arguments or ()}
                for argument, ours in field.args.items():
                    assert arguments[argument] == str(ours.type), f"{kind.name}.{name}({argument})"


def _definition(text: str, name: str) -> Any:
    for keyword in ("type", "enum"):
        for opening in (f"\n{keyword} {name} ", f"\n{keyword} {name}{{"):
            start = text.find(opening)
            if start >= 0:
                end = text.index("\n}", start) + 2
                return parse(text[start:end], no_location=True).definitions[0]
    raise AssertionError(f"GitHub's schema has no {name}")


def _typed(node: Any) -> str:
    match node.kind:
        case "non_null_type":
            return _typed(node.type) + "!"
        case "list_type":
            return f"[{_typed(node.type)}]"
        case _:
            return str(node.name.value)
