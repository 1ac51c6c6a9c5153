"""Runs and traces as API and command line tell them: every number leads to the run that wrote it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.schemas import Run, Trace
from astrid.catalog import METRIC_BY_ID
from astrid.commands.trace import read_trace, say_trace
from astrid.errors import ConfigError
from astrid.pipeline.trace import trace_value
from astrid.settings import load_settings
from astrid.store import open_store
from tests.store.conftest import Server
from tests.store.ledger_world import CODE, FAILED, FIRST, LAST, MISSED, NOW, NPM_SILENT, SILENT, open_filled
from tests.store.test_api import client_of, read
from tests.traced import TRACED, untraced

NIGHTS = (LAST - FIRST).days  # one was missed
REVISED = LAST - timedelta(days=3)


@pytest.fixture(scope="session")
def server(embedded_server: Server) -> Server:
    """Run on the embedded server alone: what the flavours differ in is the store's matter, tested there."""
    return embedded_server


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[str]:
    """Return the address of a database after the nights; tests only read it."""
    yield from open_filled(embedded_server)


@pytest.fixture
async def app(filled: str) -> AsyncIterator[FastAPI]:
    application = create_app(load_settings({}, database_url=filled, now=NOW))
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as opened:
        yield opened


async def run_of(client: httpx.AsyncClient, day: date) -> Any:
    """Return the run of a night, as a whole."""
    (item,) = (await read(client, f"/v1/runs?kind=nightly&start={day}&end={day}&limit=1"))["items"]
    answer = await client.get(f"/v1/runs/{item['run_id']}")
    assert answer.status_code == 200
    Run.model_validate(answer.json(), strict=False)
    return answer.json()


async def trace_of(client: httpx.AsyncClient, slug: str, metric: str, day: date) -> Any:
    answer = await client.get(f"/v1/projects/{slug}/trace?metric={metric}&day={day}")
    assert answer.status_code == 200, answer.text
    Trace.model_validate(answer.json(), strict=False)
    return answer.json()


# Runs


async def test_the_runs_are_listed_the_newest_first(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/runs?limit=5")
    assert body["total"] == NIGHTS + 1
    assert [r["run_id"] for r in body["items"]] == [NIGHTS + 1 - n for n in range(5)]
    assert (body["items"][0]["note"], body["items"][0]["batches"]) == ("scored again", {})
    assert body["as_of"] == (NOW - timedelta(minutes=30)).isoformat()
    assert 0 < body["coverage"] < 1
    second = await read(client, "/v1/runs?limit=5&offset=5")
    assert second["items"][0]["run_id"] == NIGHTS - 4
    some = await read(client, f"/v1/runs?start={FAILED}&end={FAILED + timedelta(days=1)}")
    assert [(r["day"], r["state"]) for r in some["items"]] == [
        ((FAILED + timedelta(days=1)).isoformat(), "gaps"), (FAILED.isoformat(), "failed"),
    ]  # fmt: skip
    assert (await read(client, "/v1/runs?kind=backfill"))["items"] == []
    assert (await read(client, f"/v1/runs?start={MISSED}&end={MISSED}"))["total"] == 0


async def test_a_run_says_what_it_planned_did_and_left(client: httpx.AsyncClient) -> None:
    run = await run_of(client, NPM_SILENT)
    assert (run["kind"], run["state"], run["code_version"], run["method_version"]) == ("nightly", "gaps", CODE, "1.0.0")
    assert {(c["upstream"], c["bucket"]) for c in run["costs"]} >= {("github", "graphql"), ("npm", "core")}
    assert all(c["planned_requests"] > 0 and c["spent_requests"] is None for c in run["costs"])
    assert run["planned_requests"] == sum(c["planned_requests"] for c in run["costs"])
    work = {(w["source"], w["task"], w["state"]): w["count"] for w in run["work"]}
    assert work["npm", "bulk", "dead"] == 1
    assert work["github", "counts", "done"] == 1
    states: dict[str, int] = {}
    for (_, _, state), count in work.items():
        states[state] = states.get(state, 0) + count
    assert states == run["batches"]
    assert run["coverage"] == pytest.approx(states["done"] / sum(states.values()))
    (dead,) = [d for d in run["dead"] if d["task"] == "bulk"]
    assert dead["reason"] == "after 5 tries: it answered 503"
    assert (dead["last_day"], dead["entities"]) == (NPM_SILENT.isoformat(), 2)
    gaps = {(g["metric"], g["reason"]): g for g in run["gaps"]}
    npm = gaps["npm_downloads", "after 5 tries: it answered 503"]
    assert npm["count"] >= 2
    assert npm["open"] == npm["count"], "they are missing still, though later nights reported them too"
    assert run["gap_count"] == sum(g["count"] for g in run["gaps"])


async def test_a_run_says_what_it_healed(client: httpx.AsyncClient) -> None:
    run = await run_of(client, SILENT[1] + timedelta(days=1))
    assert run["healed"]["pypi_downloads"] == 3 * 4
    silent = await run_of(client, SILENT[1])
    (gap,) = [g for g in silent["gaps"] if g["metric"] == "pypi_downloads"]
    assert (gap["count"], gap["open"]) == (3 * 4, 0)
    after = await run_of(client, MISSED + timedelta(days=1))
    assert any(g["reason"].startswith("not asked in time") for g in after["gaps"]), "the next plan entered them"


async def test_a_failed_run_says_so(client: httpx.AsyncClient) -> None:
    run = await run_of(client, FAILED)
    assert (run["state"], run["note"]) == ("failed", "killed")
    assert run["batches"]["planned"] > 0
    assert run["coverage"] < 1


# Traces


async def test_a_value_leads_to_its_run_and_its_batch(client: httpx.AsyncClient) -> None:
    body = await trace_of(client, "p01", "npm_downloads", FIRST + timedelta(days=3))
    (version,) = body["versions"]
    assert (version["superseded_at"], body["coverage"], body["gap"]) == (None, 1.0, None)
    assert version["run"]["run_id"] == version["run_id"]
    assert version["run"]["day"] == (FIRST + timedelta(days=3)).isoformat()
    assert version["run"]["code_version"] == CODE
    (batch,) = version["batches"]
    assert (batch["source"], batch["task"]) == ("npm", "bulk")
    assert batch["first_day"] <= body["day"] <= batch["last_day"]
    assert body["as_of"] == version["observed_at"]


async def test_every_version_of_a_revised_value_is_told(client: httpx.AsyncClient) -> None:
    body = await trace_of(client, "p00", "github_stars", REVISED)
    old, new = body["versions"]
    assert (old["superseded_at"], old["superseded_by_run"]) == (new["observed_at"], new["run_id"])
    assert (new["value"], new["superseded_at"], new["run_id"]) == (4999, None, NIGHTS + 1)
    assert len(old["batches"]) == 1
    assert new["batches"] == [], "that run had none"
    assert old["run"]["day"] == REVISED.isoformat()


async def test_a_missing_value_leads_to_who_said_so(client: httpx.AsyncClient) -> None:
    body = await trace_of(client, "p01", "npm_downloads", LAST)
    assert (body["versions"], body["coverage"], body["as_of"]) == ([], 0.0, None)
    gap = body["gap"]
    assert (gap["reason"], gap["retry"], gap["run"]["day"]) == (
        "after 5 tries: it answered 503",
        True,
        LAST.isoformat(),
    )
    late = await trace_of(client, "p00", "pypi_downloads", SILENT[0])
    assert late["gap"]["healed_run"] == late["versions"][0]["run_id"]
    nothing = await trace_of(client, "p01", "npm_downloads", date(2020, 1, 1))
    assert (nothing["versions"], nothing["gap"]) == ([], None)


async def test_a_score_leads_to_its_runs_and_its_input(client: httpx.AsyncClient) -> None:
    body = await trace_of(client, "p00", "score", LAST)
    old, new = body["scores"]
    assert (old["score"], new["score"], body["versions"]) == (60.0, 70.0, [])
    assert (old["superseded_at"], old["superseded_by_run"]) == (new["published_at"], NIGHTS + 1)
    assert (old["run"]["day"], new["run"]["kind"]) == (LAST.isoformat(), "nightly")
    assert (new["run_id"], new["superseded_at"], body["as_of"]) == (NIGHTS + 1, None, new["published_at"])
    for score in (old, new):
        assert (score["first_day"], score["last_day"]) == ((LAST - timedelta(days=729)).isoformat(), LAST.isoformat())
        (part,) = score["inputs"]
        assert (part["metric"], part["weight"], part["contribution"]) == ("github_stars", 0.2, score["score"] - 50)
        assert part["values"] == sum(part["runs"].values()) == NIGHTS + 1 - 2, "two nights took no stars"
        assert (part["first_day"], part["last_day"]) == (FIRST.isoformat(), LAST.isoformat())
    second = str(NIGHTS + 1)
    assert second not in old["inputs"][0]["runs"], "the revised value came after it"
    assert new["inputs"][0]["runs"][second] == 1


@pytest.mark.parametrize(
    ("question", "status", "field", "remedy"),
    [
        ("runs/999", 404, "run_id", "/v1/runs lists them"),
        ("runs/0", 422, "run_id", "at least 1"),
        ("runs/first", 422, "run_id", "whole number"),
        ("runs?limit=501", 422, "limit", "at most 500"),
        ("runs?start=tomorrow", 422, "start", "YYYY-MM-DD"),
        ("projects/p1/trace?metric=github_stars&day=2026-03-31", 404, "slug", "/v1/projects lists every slug."),
        ("projects/p01/trace?metric=stars&day=2026-03-31", 422, "metric", "Did you mean"),
        ("projects/p01/trace?metric=github_stars", 422, "day", "Give day="),
        ("projects/p01/trace?day=2026-03-31", 422, "metric", "Give metric="),
    ],
)
async def test_a_wrong_question_names_field_and_remedy(
    client: httpx.AsyncClient, question: str, status: int, field: str, remedy: str
) -> None:
    answer = await client.get(f"/v1/{question}")
    body = answer.json()
    assert (answer.status_code, body["field"]) == (status, field), body
    assert remedy in body["remedy"]


async def test_the_routes_are_described(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/v1/runs", "/v1/runs/{run_id}", "/v1/projects/{slug}/trace", "/v1/gaps", "/v1/coverage"):
        operation = paths[path]["get"]
        assert operation["description"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert "/v1/runs" in (await client.get("/docs")).text


def told(filled: str, *arguments: str) -> tuple[int, str, str]:
    """Run ``astrid trace`` and return (exit code, what it printed, what it said)."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ASTRID_")}
    ended = subprocess.run(
        [sys.executable, "-m", "astrid", "trace", *arguments],
        env=environ | {"ASTRID_DATABASE_URL": filled, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_the_command_says_the_same(filled: str) -> None:
    code, said, _ = told(filled, "p00", "github_stars", f"{REVISED}", "--json")
    body = orjson.loads(said)
    Trace.model_validate(body, strict=False)
    assert (code, body["versions"][1]["value"]) == (0, 4999)
    code, said, _ = told(filled, "p00", "github_stars", f"{REVISED}")
    assert (code, said.splitlines()) == (0, list(say_trace(restored(body))))


async def test_what_the_command_says(filled: str) -> None:
    async with open_store(filled, pool_size=1) as store:

        async def lines(slug: str, metric: str, day: date) -> list[str]:
            return list(say_trace(await read_trace(store, slug, metric, day)))

        revised = await lines("p00", "github_stars", REVISED)
        assert revised[0] == f"p00, github_stars of {REVISED}"
        assert f"when run {NIGHTS + 1} replaced it" in revised[1]
        assert f"nightly of {REVISED}, begun {REVISED + timedelta(days=1)} 05:00:00 UTC, code {CODE}" in revised[2]
        assert "github.counts for" in revised[3]
        score = "\n".join(await lines("p00", "score", LAST))
        assert "60.00, rank 1, method 1.0.0" in score
        assert f"github_stars: {NIGHTS - 1} values, {FIRST} to {LAST}" in score
        assert "gap, open: after 5 tries: it answered 503" in (await lines("p01", "npm_downloads", LAST))[-1]
        assert "there was none" in (await lines("p01", "npm_downloads", date(2020, 1, 1)))[1]
        with pytest.raises(ConfigError, match="did you mean 'github_stars'"):
            await lines("p00", "github_star", LAST)
        with pytest.raises(ConfigError, match="no tracked project has the slug 'p0'"):
            await lines("p0", "score", LAST)


def restored(body: Any) -> Any:
    """Return a body read from JSON with its moments as such again."""
    if isinstance(body, dict):
        return {
            k: datetime.fromisoformat(v) if isinstance(v, str) and k.endswith("_at") else restored(v)
            for k, v in body.items()
        }
    return [restored(part) for part in body] if isinstance(body, list) else body


# Nothing is without a run


async def test_everything_that_nights_write_names_an_existing_run(filled: str) -> None:
    found = await untraced(filled)
    assert all(rows for rows, _ in found.values()), found
    assert {table: lost for table, (_, lost) in found.items()} == dict.fromkeys(TRACED, 0)


async def test_every_value_of_the_nights_names_the_batch_that_brought_it(filled: str) -> None:
    """But for the one that the second run revised by hand."""
    connection = await asyncpg.connect(filled)
    rows = await connection.fetch(
        "SELECT metric_id, entity_id, day FROM observation WHERE run_id <= $1 "
        "ORDER BY md5(metric_id || ' ' || entity_id || day) LIMIT 150",
        NIGHTS,
    )
    await connection.close()
    async with open_store(filled, pool_size=1) as store:
        for row in rows:
            trace = await trace_value(store, METRIC_BY_ID[row["metric_id"]], row["entity_id"], row["day"])
            (value,) = trace.values
            assert len(value.batches) == 1, row
            assert value.run is not None
