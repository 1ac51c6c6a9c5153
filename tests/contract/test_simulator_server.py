"""The simulators on a real socket: the same answers, the clock, the report, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from astrid.errors import ConfigError
from astrid.models import Request
from astrid.simulators.scenarios import CALM, SCENARIOS, Scenario
from astrid.simulators.server import Server, open_server
from tests.synthetic_world import NIGHT, make_world

TOKENS = ("secret-a", "secret-b")
BEARER = {"Authorization": "Bearer secret-a"}
ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from pathlib import Path
from astrid.simulators.server import serve
from tests.synthetic_world import NIGHT, make_world
asyncio.run(serve(make_world(), 0, 60.0, tokens=["secret-a"], report_path=Path(sys.argv[1]), night=NIGHT))
"""


@asynccontextmanager
async def serving(scenario: Scenario = CALM, speed: float = 1.0) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    async with (
        open_server(make_world(), speed=speed, scenario=scenario, tokens=TOKENS, night=NIGHT) as server,
        aiohttp.ClientSession() as client,
    ):
        yield server, client


async def read_json(client: aiohttp.ClientSession, url: str, **options: Any) -> Any:
    async with client.get(url, **options) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json(content_type=None)


async def test_every_upstream_answers_as_without_a_socket() -> None:
    requests = [
        ("github", "/repos/owner1/repo.1/stargazers/history", {"per_page": "3"}),
        (
            "hn_algolia",
            "/api/v1/search_by_date",
            {"tags": "story", "numericFilters": "created_at_i>1,created_at_i<2000000000"},
        ),
        ("hn_firebase", "/v0/item/5001.json", {}),
        ("pypistats", "/api/packages/alpha/overall", {"mirrors": "false"}),
        ("archive", "/stars_daily/2025-02.csv", {}),
        ("dockerhub", "/v2/repositories/a/b/", {}),
        ("npm", "/downloads/range/2025-09-01:2025-09-07/alpha", {}),
        ("huggingface", "/api/models/a/b", {}),
        ("depsdev", "/v3alpha/systems/pypi/packages/alpha", {}),
    ]
    async with serving() as (server, client):
        assert set(server.base_urls) == {*(upstream for upstream, _, _ in requests), "clickhouse"}
        for upstream, path, params in requests:
            async with client.get(server.base_urls[upstream] + path, params=params, headers=BEARER) as answer:
                body, status = await answer.read(), answer.status
            direct = server.simulation.respond(
                Request(upstream, "GET", path, tuple(params.items())),
                token="secret-a" if upstream == "github" else None,
                now=server.now(),
                night=NIGHT,
            )
            assert (status, body) == (direct.status, direct.body), upstream
        sql = b"SELECT count() AS n FROM pypi.pypi_downloads_per_day FORMAT JSONEachRow"
        async with client.post(server.base_urls["clickhouse"] + "/", params={"user": "demo"}, data=sql) as answer:
            assert await answer.read() == b'{"n":"491"}\n'
        asked = {"requests": [{"projectKey": {"id": "github.com/owner1/repo.1"}}]}
        async with client.post(server.base_urls["depsdev"] + "/v3alpha/projectbatch", json=asked) as answer:
            assert (await answer.json())["responses"][0]["project"]["starsCount"] > 0


async def test_graphql_and_links_that_lead_back_here() -> None:
    async with serving() as (server, client):
        body = {
            "query": "query ($i: [ID!]!) { nodes(ids: $i) { id } viewer { login } }",
            "variables": {"i": ["R_node0"]},
        }
        async with client.post(server.base_urls["github"] + "/graphql", json=body, headers=BEARER) as answer:
            assert (await answer.json())["data"]["nodes"] == [{"id": "R_node0"}]
            assert answer.headers["x-ratelimit-resource"] == "graphql"
            moment = parsedate_to_datetime(answer.headers["date"])
            assert moment.date() == NIGHT + timedelta(days=1)
            assert len(answer.headers.getall("date")) == 1
        moved = server.base_urls["github"] + "/repos/first0/repo"
        async with client.get(moved, headers=BEARER, allow_redirects=False) as answer:
            assert answer.headers["location"] == server.base_urls["github"] + "/repositories/1000"
        async with client.get(moved, headers=BEARER) as answer:
            assert (await answer.json())["id"] == 1000


async def test_gzip_and_conditional_requests() -> None:
    async with serving() as (server, client):
        url = server.base_urls["archive"] + "/stars_daily/2025-02.csv"
        async with client.get(url, auto_decompress=False, headers={"Accept-Encoding": "gzip"}) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert (await answer.read())[:2] == b"\x1f\x8b"
        async with client.get(url) as answer:
            assert (await answer.read()).startswith(b"repo,date,stars,forks\n")
        url = server.base_urls["github"] + "/repositories/1000"
        async with client.get(url, headers=BEARER) as answer:
            etag = answer.headers["etag"]
        async with client.get(url, headers={**BEARER, "If-None-Match": etag}) as answer:
            assert (answer.status, answer.headers["x-ratelimit-used"]) == (304, "1")


async def test_lists_and_the_search_of_github() -> None:
    async with serving() as (server, client):
        base = server.base_urls["github"]
        params = {"q": "repo stars:>=2500 created:>2024-01-01", "per_page": "2"}
        async with client.get(base + "/search/repositories", params=params, headers=BEARER) as answer:
            body = await answer.json()
            assert (answer.status, answer.headers["x-ratelimit-resource"]) == (200, "search")
            assert (body["total_count"], len(body["items"])) == (5, 2)
            last = answer.links["last"]["url"]
        async with client.get(last, headers=BEARER) as answer:
            assert [item["id"] for item in (await answer.json())["items"]] == [1001]
        assert str(last).startswith(base + "/search/repositories?")
        for path in ("/repos/owner5/repo.5/events", "/events", "/repos/owner5/repo.5/releases"):
            async with client.get(base + path, params={"per_page": "4"}, headers=BEARER) as answer:
                assert len(await answer.json()) == 4
                assert str(answer.links["next"]["url"]).startswith(base)


async def test_digits_without_end_are_no_server_error() -> None:
    digits = "9" * 5000
    asked = [
        ("github", f"/repositories/{digits}", {}, 404),
        ("github", "/repositories/1001/stargazers/history", {"page": digits}, 200),
        ("github", "/repositories/1001/releases", {"per_page": digits}, 200),
        ("github", "/search/repositories", {"q": "repo", "page": digits}, 200),
        ("hn_algolia", "/api/v1/search_by_date", {"page": digits}, 200),
        ("hn_algolia", "/api/v1/search_by_date", {"numericFilters": f"created_at_i>{digits}"}, 400),
        ("hn_firebase", f"/v0/item/{digits}.json", {}, 401),
        ("huggingface", "/api/models", {"limit": digits}, 400),
    ]
    async with serving() as (server, client):
        for upstream, path, params, status in asked:
            async with client.get(server.base_urls[upstream] + path, params=params, headers=BEARER) as answer:
                assert answer.status == status, (upstream, path)
        body = {"requests": [{"projectKey": {"id": "github.com/a/b"}}], "pageToken": digits}
        async with client.post(server.base_urls["depsdev"] + "/v3alpha/projectbatch", json=body) as answer:
            assert answer.status == 400


async def test_unknown_token_user_agent_and_path() -> None:
    async with serving() as (server, client):
        url = server.base_urls["github"] + "/repositories/1000"
        async with client.get(url, headers={"Authorization": "token nobody"}) as answer:
            assert answer.status == 401
        async with client.get(url, headers=BEARER, skip_auto_headers=["User-Agent"]) as answer:
            assert answer.status == 403
        async with client.get(server.url + "/nobody/x") as answer:
            assert answer.status == 404
        report = await read_json(client, server.url + "/_simulator/report")
        assert "secret-a" not in json.dumps(report)
        assert "nobody" not in json.dumps(report)


async def test_night_moves_world_and_clock_and_opens_windows_anew() -> None:
    async with serving() as (server, client):
        url = server.base_urls["github"] + "/repositories/1001"
        before = (await read_json(client, url, headers=BEARER))["stargazers_count"]
        earlier = NIGHT - timedelta(days=7)
        async with client.put(server.url + "/_simulator/night", json={"night": earlier.isoformat()}) as answer:
            moved = await answer.json()
        assert moved["night"] == earlier.isoformat()
        assert moved["now"].startswith(f"{earlier + timedelta(days=1)}T05:00:0")
        async with client.get(url, headers=BEARER) as answer:
            assert (await answer.json())["stargazers_count"] == before - 2 * 7
            assert answer.headers["x-ratelimit-used"] == "1"
        health = await read_json(client, server.url + "/_simulator/health")
        assert (health["status"], health["night"], health["scenario"]) == ("ok", earlier.isoformat(), "calm")
        assert health["upstreams"]["github"] == server.base_urls["github"]
        for wrong in ({"night": "2031-01-01"}, {"night": "soon"}, {}, []):
            async with client.put(server.url + "/_simulator/night", json=wrong) as answer:
                assert answer.status == 422
        assert server.night == earlier


async def test_clock_runs_at_its_speed() -> None:
    async with serving(speed=3600.0) as (server, client):
        first = datetime.fromisoformat((await read_json(client, server.url + "/_simulator/health"))["now"])
        await asyncio.sleep(0.2)
        later = datetime.fromisoformat((await read_json(client, server.url + "/_simulator/health"))["now"])
        assert later - first >= timedelta(seconds=0.2 * 3600 * 0.95)


async def test_open_requests_are_counted_and_the_guilty_convicted() -> None:
    scenario = replace(SCENARIOS["slow"], probability=1.0)
    async with serving(scenario, speed=20.0) as (server, client):
        url = server.base_urls["clickhouse"] + "/"
        sql = b"SELECT count() FROM pypi.pypi_downloads_per_day"

        async def ask() -> int:
            async with client.post(url, params={"user": "demo"}, data=sql) as answer:
                await answer.read()
                return answer.status

        assert sorted(await asyncio.gather(*(ask() for _ in range(6)))) == [200] * 4 + [500] * 2
        assert await ask() == 200
        books = server.report()["upstreams"]["clickhouse"]
        assert books["convictions"] == 2
        assert books["tokens"]["ip:127.0.0.1"]["convictions"]["reasons"] == {"concurrency": 2}


async def test_dropped_connection_reaches_the_client_as_one() -> None:
    async with serving(replace(SCENARIOS["cut_connection"], probability=1.0)) as (server, client):
        url = server.base_urls["hn_firebase"] + "/v0/item/5001.json"
        with pytest.raises(aiohttp.ClientError):
            async with client.get(url) as answer:
                await answer.read()


async def test_a_taken_port_and_a_wrong_night_are_said_plainly() -> None:
    async with serving() as (server, _):
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port {port}"):
            async with open_server(make_world(), port):
                pass
    with pytest.raises(ConfigError, match="runs from"):
        async with open_server(make_world(), night=NIGHT + timedelta(days=5000)):
            pass


def start(report: Path, code: str = PROGRAM) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(report)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_child_process_says_ready_and_writes_its_report(tmp_path: Path, number: signal.Signals) -> None:
    report = tmp_path / "report.json"
    with start(report) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.startswith("simulators ready on http://127.0.0.1:")
        url = line.split()[3]

        async def ask() -> None:
            async with aiohttp.ClientSession() as client:
                await read_json(client, url + "/github/repositories/1000", headers=BEARER)

        asyncio.run(ask())
        child.send_signal(number)
        assert child.wait(10) == 0
        assert child.stdout.read() == ""
    books = json.loads(report.read_text())
    assert (books["requests"], books["convictions"], books["speed"]) == (1, 0, 60.0)
    (token,) = books["upstreams"]["github"]["tokens"].values()
    assert (token["requests"], token["points"]["core"], token["statuses"]) == (1, 1, {"200": 1})


def test_child_process_ends_with_its_parent(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    parent_code = (
        "import subprocess, sys, time\n"
        f"command = [sys.executable, '-c', {PROGRAM!r}, sys.argv[1]]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with start(report, parent_code) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait(10)
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone
    assert json.loads(report.read_text())["requests"] == 0
