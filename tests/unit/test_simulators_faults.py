"""Scenarios: every fault is reachable, replays, and looks as it was recorded; the rest is left alone."""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import orjson
import pytest

from astrid.errors import ConfigError, Malformed
from astrid.http import MAX_BODY_BYTES
from astrid.models import Request, Response
from astrid.simulators.faults import BOMB_BYTES, SLOW_S, Answer, draw_fault, fingerprint
from astrid.simulators.github import users_of
from astrid.simulators.scenarios import FAULTS, SCENARIOS, Scenario, load_scenario
from astrid.simulators.simulation import UPSTREAMS, Simulation
from astrid.sources.github_graphql import as_count
from tests.synthetic_world import NIGHT, make_world

NOW = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
QUERY = "query ($ids: [ID!]!) { nodes(ids: $ids) { id ... on Repository { nameWithOwner stargazerCount } } }"
NODES = Request(
    "github",
    "POST",
    "/graphql",
    json={"query": QUERY, "variables": {"ids": ["R_node0", "R_node1", "R_node4", "R_node5"]}},
)
ALIASES = Request(
    "github",
    "POST",
    "/graphql",
    json={
        "query": '{ a: repository(owner: "owner0", name: "repo.0") { id nameWithOwner } '
        'b: repository(owner: "owner1", name: "repo.1") { id nameWithOwner } }'
    },
)
HISTORY = Request("github", "GET", "/repositories/1000/stargazers/history")
REPOSITORY = Request("github", "GET", "/repositories/1000")
STORIES = Request("hn_algolia", "GET", "/api/v1/search_by_date", (("tags", "story"),))
PACKAGE = Request("pypistats", "GET", "/api/packages/alpha/overall", (("mirrors", "false"),))
MONTH = Request("archive", "GET", "/stars_daily/2025-02.csv")
SQL = Request(
    "clickhouse",
    "POST",
    "/",
    (("user", "demo"),),
    content=b"SELECT count() FROM pypi.pypi_downloads_per_day FORMAT JSONEachRow",
)
RANGE = Request("npm", "GET", f"/downloads/range/{NIGHT - timedelta(days=9)}:{NIGHT}/openai,n8n")
MODELS = Request("huggingface", "GET", "/api/models", (("limit", "5"), ("sort", "downloads"), ("direction", "-1")))


def simulate(scenario: Scenario) -> Simulation:
    return Simulation(make_world(), users_of(["t"]), scenario=scenario)


def exchange(simulation: Simulation, request: Request, now: datetime = NOW) -> Answer:
    upstream = simulation.upstreams[request.upstream]
    token = "t" if request.upstream == "github" else None
    arrival = upstream.arrive(token, "127.0.0.1", now)
    try:
        return upstream.exchange(request, arrival, token=token, now=now, night=NIGHT, address="127.0.0.1")
    finally:
        upstream.limits.leave(arrival)


def hit(kind: str, request: Request) -> tuple[Answer, Response]:
    """Return what the fault makes of a request, and the sound answer."""
    sound = exchange(simulate(SCENARIOS["calm"]), request).response
    return exchange(simulate(replace(SCENARIOS[kind], probability=1.0)), request), sound


class TestDraw:
    def test_replays_and_depends_on_each_part(self) -> None:
        scenario = replace(SCENARIOS["faults"], probability=0.5)
        key = fingerprint(NODES)
        draws = [draw_fault(scenario, "github", key, NIGHT, n) for n in range(200)]
        assert draws == [draw_fault(scenario, "github", key, NIGHT, n) for n in range(200)]
        for other in (
            [draw_fault(replace(scenario, seed=1), "github", key, NIGHT, n) for n in range(200)],
            [draw_fault(scenario, "github", fingerprint(HISTORY), NIGHT, n) for n in range(200)],
            [draw_fault(scenario, "github", key, NIGHT + timedelta(days=1), n) for n in range(200)],
        ):
            assert other != draws
        assert 60 < sum(d is not None for d in draws) < 140

    def test_two_percent(self) -> None:
        key = fingerprint(NODES)
        struck = sum(draw_fault(SCENARIOS["faults"], "github", key, NIGHT, n) is not None for n in range(20_000))
        assert 300 < struck < 500

    def test_fingerprint_ignores_who_asks_and_how_the_body_was_given(self) -> None:
        assert fingerprint(NODES) == fingerprint(replace(NODES, json=None, content=orjson.dumps(NODES.json)))
        assert fingerprint(NODES) == fingerprint(replace(NODES, headers=(("authorization", "x"),)))
        assert fingerprint(NODES) != fingerprint(HISTORY)

    def test_a_run_replays_whatever_the_order(self) -> None:
        scenario = replace(SCENARIOS["faults"], probability=0.3, faults=("bad_gateway_html", "truncated_body"))
        requests = [replace(STORIES, params=(("page", str(n)),)) for n in range(30)]

        def run(order: list[Request]) -> dict[bytes, Response]:
            simulation = simulate(scenario)
            return {fingerprint(r): exchange(simulation, r).response for r in order}

        assert run(requests) == run(requests[::-1])

    def test_calm_is_calm(self) -> None:
        simulation = simulate(SCENARIOS["calm"])
        for request in (NODES, HISTORY, STORIES, PACKAGE, MONTH, SQL):
            answer = exchange(simulation, request)
            assert (answer.response.status, answer.fault, answer.delay_s, answer.cut) == (200, None, 0.0, False)
        report = simulation.report()
        assert (report["requests"], report["convictions"]) == (6, 0)
        assert set(report["upstreams"]) == set(UPSTREAMS)


class TestKinds:
    def test_bad_gateway(self) -> None:
        answer, _ = hit("bad_gateway_json", NODES)
        assert answer.response.status == 502
        assert answer.response.json()["data"] is None
        assert answer.response.json()["errors"][0]["message"].startswith(
            "Something went wrong while executing your query"
        )
        assert hit("bad_gateway_json", HISTORY)[0].response.json() == {"message": "Server Error"}
        page, _ = hit("bad_gateway_html", NODES)
        assert (page.response.status, page.response.headers["content-type"]) == (502, "text/html")
        with pytest.raises(Malformed):
            page.response.json()

    def test_resource_limits_keep_half_of_the_data(self) -> None:
        answer, sound = hit("resource_limits", NODES)
        assert answer.response.status == 200
        body = answer.response.json()
        assert body["data"]["nodes"] == [*sound.json()["data"]["nodes"][:2], None, None]
        assert body["errors"][-1]["type"] == "RESOURCE_LIMITS_EXCEEDED"
        aliases = hit("resource_limits", ALIASES)[0].response.json()
        assert aliases["data"]["a"]["id"] == "R_node0"
        assert aliases["data"]["b"] is None

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            ("secondary_limit", 403),
            ("secondary_limit_bare", 403),
            ("secondary_limit_200", 200),
            ("secondary_limit_200_bare", 200),
            ("secondary_limit_429", 429),
            ("secondary_limit_429_bare", 429),
            ("too_many_http_date", 429),
        ],
    )
    def test_secondary_limits_demand_a_wait(self, kind: str, status: int) -> None:
        simulation = simulate(replace(SCENARIOS[kind], probability=1.0))
        limited = exchange(simulation, NODES).response
        assert limited.status == status
        assert b"secondary rate limit" in limited.body
        assert int(limited.headers["x-ratelimit-remaining"]) > 0
        wait = limited.headers.get("retry-after")
        if kind.endswith("_bare"):
            assert wait is None
        elif kind == "too_many_http_date":
            assert wait is not None
            assert parsedate_to_datetime(wait) == NOW + timedelta(seconds=60)
        else:
            assert wait == "60"
        github = simulation.upstreams["github"]
        assert exchange(simulation, HISTORY, NOW + timedelta(seconds=59)).response.status == 403
        assert github.limits.convictions() == 1
        exchange(simulation, HISTORY, NOW + timedelta(seconds=60))
        assert github.limits.convictions() == 1

    def test_the_http_date_is_of_the_clock_that_the_answer_shows(self) -> None:
        simulation = simulate(replace(SCENARIOS["too_many_http_date"], probability=1.0, skew_s=-600.0))
        limited = exchange(simulation, NODES).response
        told, shown = (parsedate_to_datetime(limited.headers[name]) for name in ("retry-after", "date"))
        assert (shown - NOW, told - shown) == (timedelta(seconds=-600), timedelta(seconds=60))
        assert exchange(simulation, HISTORY, NOW + timedelta(seconds=60)).response.status != 403

    def test_a_bomb_unpacks_to_more_than_the_client_takes(self) -> None:
        answer, _ = hit("gzip_bomb", HISTORY)
        assert answer.response.headers["content-encoding"] == "gzip"
        assert len(answer.response.body) < 2**17
        assert len(gzip.decompress(answer.response.body)) == BOMB_BYTES > MAX_BODY_BYTES

    @pytest.mark.parametrize("seed", range(12))
    def test_bad_counts_are_no_counts(self, seed: int) -> None:
        scenario = replace(SCENARIOS["github_bad_counts"], probability=1.0, seed=seed)
        nodes = exchange(simulate(scenario), NODES).response.json()["data"]["nodes"]
        assert [as_count(n["stargazerCount"]) is None for n in nodes] == [True, False, True, False]
        weeks = exchange(simulate(scenario), HISTORY).response.json()
        assert all(sum(as_count(count) is None for count in week["days"]) == 1 for week in weeks)
        body = exchange(simulate(scenario), REPOSITORY).response.json()
        assert as_count(body["stargazers_count"]) is None

    def test_doubled_rows_contradict(self) -> None:
        weeks = hit("github_doubled_rows", HISTORY)[0].response.json()
        (twice,) = [w for w in weeks[:-1] if w["week"] == weeks[-1]["week"]]
        assert twice["days"] != weeks[-1]["days"]
        nodes = hit("github_doubled_rows", NODES)[0].response.json()["data"]["nodes"]
        assert len(nodes) == 4
        assert len({n["id"] for n in nodes}) == 3

    def test_paging_that_leads_back(self) -> None:
        answer, sound = hit("endless_paging", HISTORY)
        assert 'page=2>; rel="next"' in sound.headers["link"]
        assert 'page=1>; rel="next"' in answer.response.headers["link"]

    def test_endpoint_spammed_strikes_only_the_history(self) -> None:
        answer, _ = hit("endpoint_spammed", HISTORY)
        assert answer.response.status == 422
        assert b"spammed" in answer.response.body
        untouched, sound = hit("endpoint_spammed", NODES)
        assert (untouched.fault, untouched.response.body) == (None, sound.body)

    def test_slow_and_cut(self) -> None:
        slow, sound = hit("slow", NODES)
        assert (slow.delay_s, slow.response.json()["data"]) == (SLOW_S, sound.json()["data"])
        cut, sound = hit("cut_connection", STORIES)
        assert cut.cut
        assert sound.body.startswith(cut.response.body)
        assert len(cut.response.body) < len(sound.body)

    @pytest.mark.parametrize("request_", [NODES, HISTORY, STORIES, PACKAGE])
    def test_truncated_body(self, request_: Request) -> None:
        answer, sound = hit("truncated_body", request_)
        assert answer.response.status == 200
        assert 0 < len(answer.response.body) < len(sound.body)
        with pytest.raises(Malformed):
            answer.response.json()

    def test_stale_feed_ends_days_before_the_night(self) -> None:
        answer, sound = hit("stale_feed", PACKAGE)
        late = NIGHT - datetime.fromisoformat(answer.response.json()["data"][-1]["date"]).date()
        assert 3 <= late.days <= 10
        assert sound.json()["data"][-1]["date"] == NIGHT.isoformat()

    def test_hacker_news_and_clickhouse(self) -> None:
        assert hit("hn_too_many", STORIES)[0].response.status == 429
        answer, _ = hit("database_exception", SQL)
        assert answer.response.status == 500
        assert answer.response.body.startswith(b"Code: 159. DB::Exception: ")

    def test_every_kind_strikes_something_and_is_counted(self) -> None:
        for kind in FAULTS:
            simulation = simulate(replace(SCENARIOS[kind], probability=1.0))
            for request in (NODES, HISTORY, STORIES, PACKAGE, MONTH, SQL, RANGE, MODELS):
                exchange(simulation, request)
            books = simulation.report()["upstreams"].values()
            assert {f for b in books for f in b["faults"]} == {kind}

    def test_a_refusal_is_never_struck(self) -> None:
        simulation = simulate(replace(SCENARIOS["bad_gateway_html"], probability=1.0))
        missing = Request("pypistats", "GET", "/api/packages/none/overall")
        assert exchange(simulation, missing).response.status == 404


class TestNames:
    def test_every_fault_is_a_scenario(self) -> None:
        assert set(FAULTS) <= set(SCENARIOS)
        assert {"calm", "faults", "dead_token", "renamed", "gone", "reoccupied"} <= set(SCENARIOS)
        assert all(name == scenario.name and scenario.summary for name, scenario in SCENARIOS.items())

    def test_unknown_name_is_refused_with_the_nearest(self) -> None:
        assert load_scenario("faults") is SCENARIOS["faults"]
        with pytest.raises(ConfigError, match="did you mean calm"):
            load_scenario("clam")
        with pytest.raises(ConfigError, match="choose one of calm"):
            load_scenario("zzzzzz")
