"""Scenarios: every fault is reachable, replays, and looks as it was recorded; the rest is left alone."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

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
ROWS = replace(
    SQL,
    content=b"SELECT project, date, sum(count) AS n FROM pypi.pypi_downloads_per_day WHERE project = 'alpha' "
    b"GROUP BY project, date ORDER BY date LIMIT 9 FORMAT JSONEachRow",
)
IMAGE = Request("dockerhub", "GET", "/v2/repositories/a/b/")
PROJECTS = Request(
    "depsdev",
    "POST",
    "/v3alpha/projectbatch",
    json={"requests": [{"projectKey": {"id": f"github.com/owner{n}/repo.{n}"}} for n in range(3)]},
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

    @pytest.mark.parametrize(("name", "shown"), [("clock_skew", "05:10:00"), ("clock_slow", "04:50:00")])
    def test_a_failure_tells_its_time_by_the_clock_that_the_answer_shows(self, name: str, shown: str) -> None:
        scenario = replace(SCENARIOS["bad_gateway_json"], probability=1.0, skew_s=SCENARIOS[name].skew_s)
        message = exchange(simulate(scenario), NODES).response.json()["errors"][0]["message"]
        assert f"T{shown}+00:00" in message

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

    def test_paging_of_deps_dev_leads_back_to_its_first_page(self) -> None:
        answer, sound = hit("endless_paging", PROJECTS)
        token = answer.response.json()["nextPageToken"]
        assert "nextPageToken" not in sound.json()
        again = replace(PROJECTS, json={**PROJECTS.json, "pageToken": token})
        assert exchange(simulate(SCENARIOS["calm"]), again).response.json() == sound.json()

    @pytest.mark.parametrize("request_", [PACKAGE, ROWS, RANGE, MODELS, IMAGE, PROJECTS])
    def test_the_page_of_a_proxy_is_nobodys_verdict(self, request_: Request) -> None:
        answer, _ = hit("proxy_not_found", request_)
        assert (answer.response.status, answer.response.headers["content-type"]) == (404, "text/html")
        with pytest.raises(Malformed):
            answer.response.json()

    @pytest.mark.parametrize(
        ("kind", "request_", "wait"),
        [
            ("pypi_too_many", PACKAGE, None),
            ("depsdev_too_many", PROJECTS, "60"),
            ("dockerhub_too_many", IMAGE, "60"),
        ],
    )
    def test_who_does_not_wait_is_convicted(self, kind: str, request_: Request, wait: str | None) -> None:
        simulation = simulate(replace(SCENARIOS[kind], probability=1.0))
        refused = exchange(simulation, request_).response
        assert (refused.status, refused.headers.get("retry-after")) == (429, wait)
        limits = simulation.upstreams[request_.upstream].limits
        assert exchange(simulation, request_, NOW + timedelta(seconds=59)).response.status == 429
        assert limits.convictions() == 1
        exchange(simulation, request_, NOW + timedelta(seconds=60))
        assert limits.convictions() == 1

    @pytest.mark.parametrize(
        ("kind", "request_", "names"),
        [
            ("pypi_bad_counts", PACKAGE, {"downloads"}),
            ("clickhouse_bad_counts", ROWS, {"n"}),
            ("depsdev_bad_counts", PROJECTS, {"starsCount", "forksCount"}),
            ("dockerhub_bad_counts", IMAGE, {"pull_count", "star_count"}),
        ],
    )
    def test_counts_of_all_kinds_are_spoilt(self, kind: str, request_: Request, names: set[str]) -> None:
        spoilt = []
        for seed in range(30):
            scenario = replace(SCENARIOS[kind], probability=1.0, seed=seed)
            body = exchange(simulate(scenario), request_).response.body
            for line in body.splitlines():
                spoilt += [v for k, v in _pairs(orjson.loads(line)) if k in names and v not in GOOD]
        assert {type(v).__name__ for v in spoilt} >= {"NoneType", "int", "str", "float", "bool", "dict", "list"}

    def test_endpoint_spammed_strikes_only_the_history(self) -> None:
        answer, _ = hit("endpoint_spammed", HISTORY)
        assert answer.response.status == 422
        assert b"spammed" in answer.response.body
        assert "retry-after" not in answer.response.headers
        untouched, sound = hit("endpoint_spammed", NODES)
        assert (untouched.fault, untouched.response.body) == (None, sound.body)

    def test_endpoint_spammed_demands_a_minute_each_time(self) -> None:
        simulation = simulate(replace(SCENARIOS["endpoint_spammed"], probability=1.0))
        limits = simulation.upstreams["github"].limits
        for minute in range(4):
            assert exchange(simulation, HISTORY, NOW + timedelta(minutes=minute)).response.status == 422
        assert limits.convictions() == 0
        assert exchange(simulation, NODES, NOW + timedelta(minutes=3, seconds=59)).response.status == 403
        (books,) = limits.report()["tokens"].values()
        assert books["convictions"]["reasons"] == {"wait_ignored": 1}

    @pytest.mark.parametrize("kind", [k for k in FAULTS if k.startswith("secondary_limit") and k.endswith("_bare")])
    @pytest.mark.parametrize(("longer", "convicted"), [(1, 2), (2, 0)])
    def test_repeated_refusals_without_a_time_demand_ever_longer_waits(
        self, kind: str, longer: int, convicted: int
    ) -> None:
        simulation = simulate(replace(SCENARIOS[kind], probability=1.0))
        moment, wait_s = NOW, 60
        for _ in range(5):
            answer = exchange(simulation, NODES, moment)
            assert b"secondary rate limit" in answer.response.body
            moment, wait_s = moment + timedelta(seconds=wait_s), wait_s * longer
        assert simulation.upstreams["github"].limits.convictions() == convicted

    @pytest.mark.parametrize("sound", [REPOSITORY, replace(REPOSITORY, path="/repositories/9")])
    def test_a_sound_answer_ends_the_longer_waits_and_a_refusal_with_a_time_does_not(self, sound: Request) -> None:
        bare = replace(SCENARIOS["secondary_limit_bare"], probability=1.0)
        simulation = simulate(bare)
        github = simulation.upstreams["github"]
        exchange(simulation, NODES, NOW)
        github.scenario = replace(SCENARIOS["secondary_limit"], probability=1.0)
        assert exchange(simulation, NODES, NOW + timedelta(seconds=60)).response.headers["retry-after"] == "60"
        github.scenario = bare
        exchange(simulation, NODES, NOW + timedelta(seconds=120))
        waiting = exchange(simulation, NODES, NOW + timedelta(seconds=239)).response
        assert waiting.headers["retry-after"] == "1"
        github.scenario = SCENARIOS["calm"]
        exchange(simulation, sound, NOW + timedelta(seconds=240))
        github.scenario = bare
        exchange(simulation, NODES, NOW + timedelta(seconds=241))
        exchange(simulation, NODES, NOW + timedelta(seconds=301))
        assert github.limits.convictions() == 1

    def test_faults_leave_lists_and_searches_readable(self) -> None:
        paths = ("/releases", "/events", "")
        requests = [replace(REPOSITORY, path=f"/repositories/1005{below}") for below in paths]
        requests += [replace(REPOSITORY, path="/events")]
        requests += [replace(REPOSITORY, path="/search/repositories", params=(("q", "repo"),))]
        for kind in ("github_bad_counts", "github_doubled_rows", "endless_paging", "resource_limits"):
            for request in requests:
                answer, sound = hit(kind, request)
                assert type(answer.response.json()) is type(sound.json())
        spoilt = hit("github_bad_counts", requests[-1])[0].response.json()["items"]
        assert [as_count(item["stargazers_count"]) is None for item in spoilt[:2]] == [True, False]

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
            for request in (NODES, HISTORY, STORIES, PACKAGE, MONTH, ROWS, RANGE, MODELS, IMAGE, PROJECTS):
                exchange(simulation, request)
            books = simulation.report()["upstreams"].values()
            assert {f for b in books for f in b["faults"]} == {kind}

    def test_a_refusal_is_never_struck(self) -> None:
        simulation = simulate(replace(SCENARIOS["bad_gateway_html"], probability=1.0))
        missing = Request("pypistats", "GET", "/api/packages/none/overall")
        assert exchange(simulation, missing).response.status == 404


class _Good:
    """What a source may take for a count."""

    def __contains__(self, value: object) -> bool:
        counted = int(value) if isinstance(value, str) and value.isdigit() else value
        return isinstance(counted, int) and not isinstance(counted, bool) and 0 <= counted < 10**12


GOOD = _Good()


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _pairs(part)
    yield from value.items() if isinstance(value, dict) else ()


class TestNames:
    def test_every_fault_is_a_scenario(self) -> None:
        assert set(FAULTS) <= set(SCENARIOS)
        assert {"calm", "faults", "dead_token", "renamed", "gone", "reoccupied"} <= set(SCENARIOS)
        assert all(name == scenario.name and scenario.summary for name, scenario in SCENARIOS.items())

    def test_everything_that_github_must_be_able_to_do_has_a_name(self) -> None:
        secondary = {f"secondary_limit{kind}{bare}" for kind in ("", "_200", "_429") for bare in ("", "_bare")}
        limits = {*secondary, "secondary_limit_storm", "too_many_http_date", "endpoint_spammed", "small_quota"}
        failures = {"bad_gateway_json", "bad_gateway_html", "resource_limits", "slow", "truncated_body"}
        identity = {"renamed", "reoccupied", "private", "gone", "archived", "empty", "dead_token", "suspended_token"}
        stars = {"purged", "late_week", "early_star", "ancient", "incomplete_search"}
        clocks = {"short_windows", "clock_skew", "clock_slow"}
        for name in (*limits, *failures, *identity, *stars, *clocks, "one_user", "app_token"):
            assert load_scenario(name) != replace(SCENARIOS["calm"], name=name, summary=load_scenario(name).summary)

    def test_in_a_storm_waits_grow_and_end(self) -> None:
        simulation = simulate(SCENARIOS["secondary_limit_storm"])
        github, moment, waits, wait_s = simulation.upstreams["github"], NOW, [], 60
        for _ in range(100):
            limited = b"secondary rate limit" in exchange(simulation, NODES, moment).response.body
            waits.append(wait_s if limited else 0)
            moment += timedelta(seconds=waits[-1] or 1)
            wait_s = min(3600, wait_s * 2) if limited else 60
        assert github.limits.convictions() == 0
        assert {0, 60, 120, 240} <= set(waits)

    def test_unknown_name_is_refused_with_the_nearest(self) -> None:
        assert load_scenario("faults") is SCENARIOS["faults"]
        with pytest.raises(ConfigError, match="did you mean calm"):
            load_scenario("clam")
        with pytest.raises(ConfigError, match="choose one of calm"):
            load_scenario("zzzzzz")
