"""The API and the pages over a real database with a few known rows."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import jsonschema
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from api.app import create_app
from api.schemas import Leaderboard, ProblemAnswer, Project, Projects, Series
from api.serve import require_free_port, serve
from api.state import KEEP_S, State
from astrid.catalog import CAVEATS, METRIC_BY_NAME
from astrid.errors import ConfigError
from astrid.models import Gap, Identity, Observations
from astrid.scoring.series import Flag
from astrid.settings import Settings
from astrid.store import ScoreColumns, ScoreComponents, Store, migrate, open_store
from tests.store.conftest import Server

NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
LAST = date(2026, 3, 31)
FIRST = date(2026, 3, 1)
HOSTILE = "<script>alert(1)</script> & \"Co\" 'x'"
PROJECTS = [
    ("hostile", HOSTILE, "agents"),
    ("ollama", "Ollama", "inference"),
    ("quiet", "Quiet", "mlops<b>"),
    ("vllm", "vLLM", "inference"),
]
STARS, HN, PYPI = (METRIC_BY_NAME[name].metric_id for name in ("github_stars", "hn_points", "pypi_downloads"))
GAPS = (date(2026, 3, 10), date(2026, 3, 11))


def score_columns(rows: list[tuple[int, float, dict[int, float], int]]) -> ScoreColumns:
    """Return scores ranked in the order given, from (entity, score, contributions by metric, flags)."""
    parts = [(entity, metric, points) for entity, _, by_metric, _ in rows for metric, points in by_metric.items()]
    entity, metric, points = (np.array(column) for column in zip(*parts, strict=True))
    score = np.array([row[1] for row in rows])
    nothing = np.full(len(points), np.nan)
    return ScoreColumns(
        entity_id=np.array([row[0] for row in rows], np.int32),
        score=score,
        lo=score - 5,
        hi=np.where(score > 60, score + 5, np.nan),
        calibrated=np.zeros(len(rows), np.bool_),
        percentile=score,
        growth_per_week=np.where(score > 60, 0.0123, np.nan),
        breadth=np.full(len(rows), 0.5),
        coverage=np.full(len(rows), 0.75),
        flags=np.array([row[3] for row in rows], np.int32),
        rank=np.arange(1, len(rows) + 1, dtype=np.int32),
        components=ScoreComponents(
            entity.astype(np.int32), metric.astype(np.int16), *[nothing] * 6,
            np.full(len(points), 0.2), points.astype(np.float64), np.zeros(len(points), np.int32),
        ),
    )  # fmt: skip


async def fill(url: str) -> None:
    """Write the rows that every test here knows."""
    async with open_store(url, pool_size=2) as store:
        ids = await store.sync_watchlist(PROJECTS, NOW - timedelta(days=30))
        run = await store.start_run("nightly", LAST, "test", "1.0", NOW)
        days = [FIRST + timedelta(days=n) for n in range(31)]
        rows = [(ids["ollama"], STARS, day, 113_000.0 + 100 * n, 1) for n, day in enumerate(days) if day not in GAPS]
        rows += [(ids["ollama"], HN, day, 250.0 if n == 20 else 0.0, 3) for n, day in enumerate(days)]
        rows += [(ids["ollama"], PYPI, LAST, 16_777_217.0, 6), (ids["vllm"], STARS, LAST, 0.0, 10)]
        rows += [(ids["hostile"], STARS, LAST, 5.0, 1)]
        await store.write_observations(Observations.from_rows(rows), run, NOW)
        await store.record_identities(
            [
                Identity(ids["ollama"], "github", "R_1", "ollama/ollama"),
                Identity(ids["hostile"], "github", '"><img src=x onerror=alert(1)>', 'x"onmouseover="alert(1)/<i>'),
            ],
            LAST,
            run,
            NOW,
        )
        await store.write_gaps([Gap(ids["ollama"], STARS, day, "<b>upstream</b> was out", True) for day in GAPS], NOW)
        await store.record_note(PYPI, FIRST, None, "interpolated from <i>monthly</i> totals", NOW)
        await store.record_note(HN, date(2025, 1, 1), date(2025, 1, 31), "long ago", NOW)
        for day, moment in ((LAST - timedelta(days=1), NOW - timedelta(days=1)), (LAST, NOW)):
            scored = [
                (ids["ollama"], 72.5, {STARS: 12.5, HN: -2.0, PYPI: 12.0}, 0),
                (ids["hostile"], 61.0, {STARS: 11.0}, int(Flag.SMALL | Flag.SUSPECT)),
                (ids["vllm"], 41.0, {STARS: -9.0}, 0),
            ]
            await store.write_scores(run, day, "1.0", score_columns(scored), moment)
        await store.finish_run(run, "done", {}, "", NOW)


@pytest.fixture(scope="session")
def server(embedded_server: Server) -> Server:
    """Run on the embedded server alone: what the flavours differ in is the store's matter, tested there."""
    return embedded_server


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[str]:
    """Return the address of a database with the known rows; tests only read it."""
    name = f"astrid_test_{uuid4().hex[:12]}"

    async def make(statement: str) -> None:
        connection = await asyncpg.connect(embedded_server.admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(make(f"CREATE DATABASE {name}"))
    asyncio.run(_migrate(embedded_server.url(name)))
    asyncio.run(fill(embedded_server.url(name)))
    yield embedded_server.url(name)
    asyncio.run(make(f"DROP DATABASE {name} WITH (FORCE)"))


async def _migrate(url: str) -> None:
    await migrate(url)


def settings_for(url: str | None) -> Settings:
    return Settings(database_url=SecretStr(url) if url else None, now=NOW)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@pytest.fixture
async def app(filled: str) -> AsyncIterator[FastAPI]:
    """Return the application over the known rows, its lifespan run."""
    application = create_app(settings_for(filled))
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as opened:
        yield opened


async def read(client: httpx.AsyncClient, address: str) -> Any:
    """Return the body of a good answer that fits the API's own description of it."""
    answer = await client.get(address)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    description = (await client.get("/openapi.json")).json()
    route = re.sub(r"/projects/[^/?]+", "/projects/{slug}", httpx.URL(address).path)
    check(description, description["paths"][route]["get"]["responses"]["200"]["content"]["application/json"], answer)
    return answer.json()


def check(description: Any, content: Any, answer: httpx.Response) -> None:
    """Validate a body against a schema of the description."""
    schema = {**content["schema"], "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())


# The leaderboard


async def test_the_leaderboard_has_the_promised_shape(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/leaderboard")
    assert {"day", "run_id", "as_of", "coverage", "items"} <= set(body)
    assert body["day"] == "2026-03-31"
    assert body["as_of"] == "2026-04-01T05:00:00+00:00"
    assert body["run_id"] == 1
    assert body["coverage"] == 0.75  # three of four tracked projects are ranked
    assert body["calibrated"] is False
    assert [item["slug"] for item in body["items"]] == ["ollama", "hostile", "vllm"]
    first = body["items"][0]
    assert first == {
        "rank": 1, "slug": "ollama", "name": "Ollama", "category": "inference", "score": 72.5,
        "interval": [67.5, 77.5], "calibrated": False, "percentile": 72.5, "growth_per_week": 0.0123,
        "contributions": {"github_stars": 12.5, "hn_points": -2.0, "pypi_downloads": 12.0},
        "breadth": 0.5, "coverage": 0.75, "flags": [],
    }  # fmt: skip
    assert body["items"][1]["flags"] == ["small", "suspect"]
    assert body["items"][2]["interval"] == [36.0, None]
    assert body["items"][2]["growth_per_week"] is None
    for item in body["items"]:
        assert item["score"] == 50 + sum(item["contributions"].values())
    Leaderboard.model_validate(body)


async def test_a_category_keeps_the_ranks_among_all_and_its_own_coverage(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/leaderboard?category=inference")
    assert [(item["slug"], item["rank"]) for item in body["items"]] == [("ollama", 1), ("vllm", 3)]
    assert (body["coverage"], body["total"]) == (1.0, 2)
    empty = await read(client, "/v1/leaderboard?category=mlops%3Cb%3E")
    assert (empty["items"], empty["coverage"]) == ([], 0.0)


async def test_pages_of_the_leaderboard_join_without_overlap(client: httpx.AsyncClient) -> None:
    pages = [(await read(client, f"/v1/leaderboard?limit=2&offset={n}"))["items"] for n in (0, 2, 4)]
    assert [[item["rank"] for item in page] for page in pages] == [[1, 2], [3], []]


async def test_a_past_day_can_be_read(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/leaderboard?day=2026-03-30")
    assert (body["day"], body["as_of"]) == ("2026-03-30", "2026-03-31T05:00:00+00:00")


async def test_superseded_scores_show_with_their_run_and_moment(url: str) -> None:
    await fill(url)
    seconds = [100.0]
    async with open_store(url) as store:
        application = create_app(settings_for(url), store=store)
        application.state.astrid = State(settings_for(url), store, clock=lambda: seconds[0])
        async with client_of(application) as client:
            assert (await read(client, "/v1/leaderboard"))["run_id"] == 1
            ids = await store.sync_watchlist(PROJECTS, NOW)
            later = NOW + timedelta(hours=3)
            run = await store.start_run("nightly", LAST, "test", "1.0", later)
            await store.write_scores(run, LAST, "1.0", score_columns([(ids["vllm"], 90.0, {STARS: 40.0}, 0)]), later)
            seconds[0] += KEEP_S - 0.1
            assert (await read(client, "/v1/leaderboard"))["run_id"] == 1
            seconds[0] += 0.2
            body = await read(client, "/v1/leaderboard")
            assert (body["run_id"], body["as_of"]) == (run, "2026-04-01T08:00:00+00:00")
            assert [item["slug"] for item in body["items"]] == ["vllm"]


async def test_requests_that_come_together_cause_one_reading(url: str) -> None:
    await fill(url)
    async with open_store(url) as store:
        state = State(settings_for(url), store, clock=lambda: 0.0)
        readings = []

        async def once() -> int:
            readings.append(1)
            await asyncio.sleep(0.01)
            return len(readings)

        assert await asyncio.gather(*(state.keep("x", 5, once) for _ in range(20))) == [1] * 20


# Projects


async def test_projects_are_listed_with_their_rank(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/projects")
    Projects.model_validate(body)
    assert [(item["slug"], item["rank"]) for item in body["items"]] == [
        ("hostile", 2), ("ollama", 1), ("quiet", None), ("vllm", 3),
    ]  # fmt: skip
    assert body["categories"] == {"agents": 1, "inference": 2, "mlops<b>": 1}
    assert (body["total"], body["coverage"], body["day"]) == (4, 0.75, "2026-03-31")
    some = await read(client, "/v1/projects?category=inference&limit=1&offset=1")
    assert [item["slug"] for item in some["items"]] == ["vllm"]


async def test_a_project_tells_what_it_has_and_what_is_missing(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/projects/ollama")
    Project.model_validate(body)
    assert body["identities"][0]["name"] == "ollama/ollama"
    assert body["score"]["score"] == 72.5
    assert body["score"]["day"] == "2026-03-31"
    stars = body["metrics"][0]
    assert (stars["metric"], stars["last_value"], stars["observed_days"]) == ("github_stars", 116_000, 29)
    assert stars["coverage"] == pytest.approx(29 / 31)
    assert [metric["metric"] for metric in body["metrics"]] == ["github_stars", "hn_points", "pypi_downloads"]
    assert body["gaps"] == [
        {
            "metric": "github_stars", "open": 2, "healed": 0, "first_open": "2026-03-10", "last_open": "2026-03-11",
            "reasons": {"<b>upstream</b> was out": 2},
        }
    ]  # fmt: skip
    assert "interpolated from <i>monthly</i> totals" in [note["note"] for note in body["notes"]]


async def test_a_project_without_a_score_says_null(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/projects/quiet")
    assert (body["score"], body["as_of"], body["coverage"]) == (None, None, None)
    assert (body["metrics"], body["gaps"], body["identities"], body["notes"]) == ([], [], [], [])


# Series


async def test_a_series_is_dense_and_a_gap_is_null(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/projects/ollama/series?metric=github_stars&start=2026-03-09&end=2026-03-12")
    body = await read(client, str(answer.url))
    Series.model_validate(body)
    assert {"slug", "metric", "unit", "points", "coverage", "as_of"} <= set(body)
    assert body["points"] == [
        {"day": "2026-03-09", "value": 113_800, "origin": "github_graphql"},
        {"day": "2026-03-10", "value": None, "origin": None},
        {"day": "2026-03-11", "value": None, "origin": None},
        {"day": "2026-03-12", "value": 114_100, "origin": "github_graphql"},
    ]
    assert '"value":113800,' in answer.text  # an integer, not 113800.0
    assert (body["coverage"], body["unit"], body["kind"]) == (0.5, "stars", "stock")
    assert body["as_of"] == "2026-04-01T05:00:00+00:00"


async def test_a_zero_is_0_and_not_null(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/projects/ollama/series?metric=hn_points&start=2026-03-20&end=2026-03-22")
    assert [point["value"] for point in answer.json()["points"]] == [0, 250, 0]
    assert '"value":0,' in answer.text
    assert answer.json()["coverage"] == 1.0


async def test_large_counts_keep_every_digit_and_notes_come_with_their_days(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/projects/ollama/series?metric=pypi_downloads&start=2026-03-31&end=2026-03-31")
    assert body["points"] == [{"day": "2026-03-31", "value": 16_777_217, "origin": "clickhouse_pypi"}]
    assert body["notes"] == [
        {
            "metric": "pypi_downloads", "first_day": "2026-03-01", "last_day": None,
            "note": "interpolated from <i>monthly</i> totals",
        },
        {"metric": "pypi_downloads", "first_day": None, "last_day": None, "note": CAVEATS["pypi_downloads"]},
    ]  # fmt: skip
    assert (await read(client, "/v1/projects/ollama/series?metric=hn_points"))["notes"] == []
    old = await read(client, "/v1/projects/ollama/series?metric=hn_points&start=2025-01-31&end=2025-02-01")
    assert [note["note"] for note in old["notes"]] == ["long ago"]


async def test_without_a_range_it_is_the_year_up_to_the_last_scored_day(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/projects/ollama/series?metric=github_stars")
    assert (len(body["points"]), body["start"], body["end"]) == (365, "2025-04-01", "2026-03-31")
    assert body["coverage"] == pytest.approx(29 / 365)
    until = await read(client, "/v1/projects/ollama/series?metric=github_stars&end=2026-03-05")
    assert (len(until["points"]), until["end"]) == (365, "2026-03-05")
    since = await read(client, "/v1/projects/ollama/series?metric=github_stars&start=2026-03-30")
    assert [point["day"] for point in since["points"]] == ["2026-03-30", "2026-03-31"]


async def test_a_series_without_values_is_all_null(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/projects/quiet/series?metric=github_forks&start=2026-03-01&end=2026-03-02")
    assert [point["value"] for point in body["points"]] == [None, None]
    assert (body["coverage"], body["as_of"]) == (0.0, "2026-04-01T05:00:00+00:00")


async def test_the_longest_range_is_answered(client: httpx.AsyncClient) -> None:
    start = LAST - timedelta(days=4_999)
    body = await read(client, f"/v1/projects/ollama/series?metric=github_stars&start={start}&end={LAST}")
    assert len(body["points"]) == 5_000


# Problems


@pytest.mark.parametrize(
    ("address", "status", "field", "remedy"),
    [
        ("/v1/projects/olama", 404, "slug", "Did you mean 'ollama'?"),
        ("/v1/projects/olama/series?metric=github_stars", 404, "slug", "Did you mean 'ollama'?"),
        ("/v1/projects/%00", 404, "slug", "/v1/projects lists every slug"),
        ("/v1/projects/" + "x" * 300, 422, "slug", "at most 200 characters"),
        ("/v1/projects/ollama/series", 422, "metric", "Give metric="),
        ("/v1/projects/ollama/series?metric=github_star", 422, "metric", "Did you mean 'github_stars'?"),
        ("/v1/projects/ollama/series?metric=github_stars&start=2026-03-02&end=2026-03-01", 422, "start", "not after"),
        ("/v1/projects/ollama/series?metric=github_stars&start=2026-04-02", 422, "start", "not after"),
        ("/v1/projects/ollama/series?metric=github_stars&start=2012-07-22&end=2026-03-31", 422, "start", "in parts"),
        ("/v1/projects/ollama/series?metric=github_stars&start=0001-01-01", 422, "start", "in parts"),
        ("/v1/projects/ollama/series?metric=github_stars&start=2025-02-30", 422, "start", "YYYY-MM-DD"),
        ("/v1/projects/ollama/series?metric=github_stars&end=20250130", 422, "end", "YYYY-MM-DD"),
        ("/v1/projects?category=inferenc", 422, "category", "Did you mean 'inference'?"),
        ("/v1/projects?limit=0", 422, "limit", "at least 1"),
        ("/v1/leaderboard?category=nothing-like-it", 422, "category", "In use: agents, inference"),
        ("/v1/leaderboard?category=%00", 422, "category", "In use"),
        ("/v1/leaderboard?limit=501", 422, "limit", "at most 500"),
        ("/v1/leaderboard?limit=ten", 422, "limit", "whole number"),
        ("/v1/leaderboard?offset=-1", 422, "offset", "at least 0"),
        ("/v1/leaderboard?offset=99999999999999999999", 422, "offset", "at most"),
        ("/v1/leaderboard?day=yesterday", 422, "day", "YYYY-MM-DD"),
        ("/v1/leaderboard?day=2026-03-01", 404, "day", "The last scored day is 2026-03-31"),
        ("/v1/leaderboard?day=9999-12-31", 404, "day", "The last scored day is 2026-03-31"),
        ("/v1/leaderbord", 404, None, "/docs lists"),
        ("/static/../app.py", 404, None, "/docs lists"),
        ("/static/%2e%2e/rendering.py", 404, None, "/docs lists"),
    ],
)
async def test_a_problem_names_the_field_and_the_remedy(
    client: httpx.AsyncClient, address: str, status: int, field: str | None, remedy: str
) -> None:
    answer = await client.get(address)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = ProblemAnswer.model_validate(answer.json())
    assert (body.status, body.field) == (status, field)
    assert remedy in body.remedy
    assert body.detail
    assert f'id="{body.type.partition("#")[2]}"' in (await client.get("/docs")).text


async def test_other_methods_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/leaderboard")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert "GET" in answer.headers["allow"]


async def test_without_the_database_it_is_503_and_comes_again(filled: str) -> None:
    async with open_store(filled) as store:
        application = create_app(settings_for(None), store=store)
    async with client_of(application) as client:  # the store is closed now
        for address in ("/v1/leaderboard", "/v1/projects", "/v1/projects/ollama", "/readyz"):
            answer = await client.get(address)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["remedy"]
            assert filled not in answer.text
        page = await client.get("/")
        assert (page.status_code, page.headers["retry-after"]) == (503, "5")
        assert page.headers["content-type"].startswith("text/html")
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200


async def test_what_nobody_expected_is_logged_and_not_told(
    app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def divide() -> None:
        raise ZeroDivisionError("the secret of the divisor")

    async def misconfigure() -> None:
        raise ConfigError("ASTRID_SECRET is hunter2")

    app.add_api_route("/v1/divide", divide)
    app.add_api_route("/v1/misconfigure", misconfigure)
    with caplog.at_level(logging.ERROR):
        for address in ("/v1/divide", "/v1/misconfigure"):
            answer = await client.get(address)
            assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
            assert "secret" not in answer.text
            assert "hunter2" not in answer.text
            assert "content-security-policy" in answer.headers
    assert "ZeroDivisionError" in caplog.text


def test_without_a_database_there_is_no_application() -> None:
    with pytest.raises(ConfigError, match="ASTRID_DATABASE_URL"):
        create_app(settings_for(None))


# Operations


async def test_health_and_readiness(client: httpx.AsyncClient) -> None:
    assert (await read(client, "/healthz"))["status"] == "ok"
    assert (await read(client, "/readyz"))["scored_day"] == "2026-03-31"


async def test_a_database_that_was_never_migrated_is_not_ready(empty_url: str) -> None:
    settings = settings_for(empty_url)
    async with open_store(empty_url) as store, client_of(create_app(settings, store=store)) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "astrid migrate" in answer.json()["remedy"]


async def test_a_migrated_database_without_a_score_is_ready_and_says_so(url: str) -> None:
    async with open_store(url) as store, client_of(create_app(settings_for(url), store=store)) as client:
        assert (await read(client, "/readyz"))["scored_day"] is None
        assert (await read(client, "/v1/projects"))["items"] == []
        answer = await client.get("/v1/leaderboard")
        assert (answer.status_code, answer.json()["field"]) == (404, None)
        assert "astrid nightly" in answer.json()["remedy"]
        page = await client.get("/")
        assert page.status_code == 200
        assert "No day has been scored yet" in page.text


async def measured(client: httpx.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


async def test_requests_are_counted_by_route_template(client: httpx.AsyncClient) -> None:
    before = await measured(client)
    for address in ("/v1/projects/ollama", "/v1/projects/vllm", "/v1/projects/nobody", "/wp-login.php", "/"):
        await client.get(address)
    after = await measured(client)

    def grown(route: str, status: str) -> float:
        key = ("astrid_api_requests_total", frozenset({("route", route), ("status", status)}))
        return after.get(key, 0) - before.get(key, 0)

    assert grown("/v1/projects/{slug}", "200") == 2
    assert grown("/v1/projects/{slug}", "404") == 1
    assert grown("unmatched", "404") == 1
    assert grown("/", "200") == 1
    assert not any("wp-login" in label for _, labels in after for _, label in labels)
    seconds = ("astrid_api_request_seconds_count", frozenset({("route", "/v1/projects/{slug}")}))
    assert after[seconds] - before.get(seconds, 0) == 3


async def test_gauges_show_what_is_served_and_are_read_rarely(url: str) -> None:
    await fill(url)
    seconds = [0.0]
    async with open_store(url) as store:
        application = create_app(settings_for(url), store=store)
        application.state.astrid = State(settings_for(url), store, clock=lambda: seconds[0])
        async with client_of(application) as client:
            found = await measured(client)
            assert found["astrid_projects", frozenset()] == 4
            assert found["astrid_scored_day_timestamp_seconds", frozenset()] == 1_774_915_200
            github = ("astrid_open_gaps", frozenset({("source", "github")}))
            assert found[github] == 2
            assert found["astrid_open_gaps", frozenset({("source", "pypistats")})] == 0
            ids = await store.sync_watchlist(PROJECTS, NOW)
            await store.write_gaps([Gap(ids["vllm"], STARS, LAST - timedelta(days=1), "out", True)], NOW)
            seconds[0] = 29.0
            assert (await measured(client))[github] == 2
            seconds[0] = 31.0
            assert (await measured(client))[github] == 3


async def test_the_description_is_sound_and_describes_every_field(client: httpx.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    assert description["openapi"].startswith("3.1")
    schemas = description["components"]["schemas"]

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    assert {reference.rpartition("/")[2] for reference in references(description)} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for path, operations in description["paths"].items():
        operation = operations["get"]
        assert operation["description"], path
        assert all(parameter["description"] for parameter in operation.get("parameters", ())), path
        for status, response in operation["responses"].items():
            if status != "200":
                assert list(response["content"]) == ["application/problem+json"], (path, status)
    problem = await client.get("/v1/projects/nobody")
    content = description["paths"]["/v1/projects/{slug}"]["get"]["responses"]["404"]["content"]
    check(description, content["application/problem+json"], problem)


async def test_long_answers_are_compressed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/projects/ollama/series?metric=github_stars", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.json()["points"]) == 365
    plain = await client.get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


# Pages


class Page(HTMLParser):
    """The tags, ids and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.said))

    @property
    def addresses(self) -> list[str]:
        return [value for _, attrs in self.tags for name, value in attrs.items() if value and name in ("href", "src")]

    @property
    def ids(self) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get("id"))]


PAGES = (
    "/", "/?category=inference", "/?day=2026-03-30", "/projects/ollama", "/projects/ollama?days=90",
    "/projects/ollama?days=all", "/projects/hostile", "/projects/quiet", "/docs", "/projects/nobody", "/?category=x",
)  # fmt: skip


@pytest.mark.parametrize("address", PAGES)
async def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing(client: httpx.AsyncClient, address: str) -> None:
    answer = await client.get(address)
    page = Page(answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "iframe", "object", "embed", "img", "form", "b"})
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not {name for name in attributes if name.startswith("on") or name in ("style", "srcset")}
    for link in page.addresses:
        assert link.startswith(("/", "#", "https://github.com/")), link
        assert not link.startswith("//")
    assert len(page.ids) == len(set(page.ids))
    assert not re.findall(r"https?://(?!github\.com/)", answer.text)


async def test_every_own_link_leads_somewhere(client: httpx.AsyncClient) -> None:
    seen: set[str] = set()
    open_addresses = ["/"]
    while open_addresses:
        address = open_addresses.pop()
        if address in seen:
            continue
        seen.add(address)
        answer = await client.get(address)
        assert answer.status_code == 200, address
        if answer.headers["content-type"].startswith("text/html"):
            page = Page(answer.text)
            for link in page.addresses:
                if link.startswith("#"):
                    assert link[1:] in page.ids, (address, link)
                elif link.startswith("/"):
                    open_addresses.append(link)
    assert {"/", "/docs", "/openapi.json", "/projects/ollama", "/projects/hostile", "/v1/projects/ollama"} <= seen
    assert any(address.startswith("/v1/projects/ollama/series?metric=github_stars") for address in seen)


async def test_hostile_texts_are_shown_as_text(client: httpx.AsyncClient) -> None:
    for address in ("/", "/projects/hostile"):
        answer = await client.get(address)
        assert "<script" not in answer.text
        assert "<img" not in answer.text
        assert HOSTILE in Page(answer.text).text
    project = await client.get("/projects/hostile")
    assert "github.com" not in project.text  # what is no repository's name is not linked
    page = await client.get("/projects/ollama")
    assert "<b>upstream" not in page.text
    assert "<b>upstream</b> was out" in Page(page.text).text
    reflected = await client.get("/projects/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "<script" not in reflected.text
    assert reflected.status_code == 404


async def test_the_leaderboard_page_explains_itself(client: httpx.AsyncClient) -> None:
    text = Page((await client.get("/")).text).text
    for said in (
        "31 Mar 2026", "up to date", "run 1", "3 of 4 tracked projects ranked (75 %)", "50 is the median",
        "The intervals are not calibrated yet", "PyPI downloads. interpolated from", "72.5", "68–78", "+1.2 %",
        "stars +12.5", "PyPI +12.0", "HN −2.0", "suspect", "Flag “suspect”",
    ):  # fmt: skip
        assert said in text, said
    assert "long ago" not in text
    category = Page((await client.get("/?category=inference")).text)
    assert "suspect" not in category.text
    assert ("a", {"href": "/?category=inference", "aria-current": "true"}) in category.tags


async def test_the_project_page_shows_every_series_with_its_gaps(client: httpx.AsyncClient) -> None:
    answer = await client.get("/projects/ollama")
    page = Page(answer.text)
    for said in (
        "72.5 of 100", "Rank 1 of 3", "80 % interval 67.5 to 77.5", "Intervals are not calibrated yet",
        "50 + 12.5 (stars) + 12.0 (PyPI) − 2.0 (HN) = 72.5", "116,000 on 31 Mar 2026",
        "29 of 31 days observed, 2 gap days",
        "16,777,217", "10 Mar 2026 – 11 Mar 2026", "interpolated from <i>monthly</i> totals",
        "No observation in this range: GitHub forks",
    ):  # fmt: skip
        assert said in page.text, said
    images = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    charts = [attrs for attrs in images if str(attrs["class"]).startswith("chart")]
    assert len(charts) == 4  # the score and three series
    for chart in charts:
        assert set(str(chart["aria-labelledby"]).split()) <= set(page.ids)
    assert sum(tag == "rect" and attrs.get("class") == "gap" for tag, attrs in page.tags) >= 2
    links = [attrs.get("href") for tag, attrs in page.tags if tag == "a"]
    assert "https://github.com/ollama/ollama" in links


async def test_pages_answer_problems_as_pages(client: httpx.AsyncClient) -> None:
    for address, status, said in (
        ("/projects/olama", 404, "Did you mean 'ollama'?"),
        ("/projects/ollama?days=7", 422, "/docs lists the parameters"),
        ("/?day=2020-01-01", 404, "The last scored day is 2026-03-31"),
        ("/?category=inferenc", 422, "Did you mean 'inference'?"),
    ):
        answer = await client.get(address)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert said in Page(answer.text).text


async def test_pages_answer_head_and_an_empty_category_is_all(client: httpx.AsyncClient) -> None:
    assert (await client.head("/")).status_code == 200
    assert (await client.get("/?category=")).status_code == 200
    assert (await client.get("/favicon.ico", follow_redirects=True)).headers["content-type"] == "image/svg+xml"


async def test_days_behind_are_told(filled: str) -> None:
    late = Settings(database_url=SecretStr(filled), now=NOW + timedelta(days=3))
    async with open_store(filled) as store, client_of(create_app(late, store=store)) as client:
        assert "3 days behind the last day that is over" in (await client.get("/")).text


# The server


def test_a_port_in_use_is_a_configuration_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use: .*--port or ASTRID_HTTP_PORT"):
            require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)
    with pytest.raises(ConfigError, match="no address of this machine"):
        require_free_port("203.0.113.7", port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until_served(port: int) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(200):
            try:
                return await client.get(f"http://127.0.0.1:{port}/readyz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    raise AssertionError("the server never answered")


async def test_it_serves_until_it_is_cancelled_and_frees_the_port(filled: str) -> None:
    port = free_port()
    running = asyncio.create_task(serve(settings_for(filled), "127.0.0.1", port))
    assert (await until_served(port)).json()["status"] == "ready"
    with pytest.raises(ConfigError, match="in use"):
        await serve(settings_for(filled), "127.0.0.1", port)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    require_free_port("127.0.0.1", port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_end_it_cleanly(filled: str, number: signal.Signals) -> None:
    port = free_port()
    program = (
        "import asyncio, os\nfrom api.serve import serve\nfrom astrid.settings import load_settings\n"
        f"asyncio.run(serve(load_settings(os.environ), '127.0.0.1', {port}))\nprint('ended')\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={**os.environ, "ASTRID_DATABASE_URL": filled, "PYTHONPATH": os.getcwd()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert (await until_served(port)).status_code == 200
    process.send_signal(number)
    said, errors = await asyncio.wait_for(process.communicate(), 15)
    assert (process.returncode, said.decode().strip(), errors.decode()) == (0, "ended", "")


async def test_an_unreachable_database_is_one_sentence(store: Store) -> None:
    from astrid.errors import StoreError

    nowhere = f"postgresql://u:hunter2@127.0.0.1:{free_port()}/astrid"
    with pytest.raises(StoreError, match="cannot be reached") as told:
        await serve(settings_for(nowhere), "127.0.0.1", free_port())
    assert "hunter2" not in str(told.value)
