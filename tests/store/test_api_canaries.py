"""Canaries and reconciliation as the API, the page and the gauges show them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta

import httpx
import pytest

from api.app import create_app
from api.schemas import Canaries, ProjectReconciliation, ReconciliationList
from astrid.store import CanaryRow, Reconciliation, Store, open_store
from tests.store.conftest import Server
from tests.store.test_api import LAST, NOW, PROJECTS, Page, client_of, fill, measured, read, settings_for

SUNDAY = date(2026, 3, 15)
WHY = "0% of 212 series have a value of the last 7 days; the newest is of <b>2026-02-28</b>"


@pytest.fixture(scope="session")
def server(embedded_server: Server) -> Server:
    """Run on the embedded server alone: what the flavours differ in is the store's matter, tested there."""
    return embedded_server


def verdict(source: str, name: str, state: str, day: date, value: float | None = 0.0, reason: str = WHY) -> CanaryRow:
    return CanaryRow(source, name, day, state, value, 0.5, None, reason, day, 1, NOW)


async def judge(store: Store) -> None:
    """Write the verdicts of two nights: PyPI stands still on both, on the second npm cannot be judged and deps.dev is
    not asked."""
    for day in (LAST - timedelta(days=1), LAST):
        await store.write_verdicts(
            [
                verdict("pypistats", "freshness", "violated", day),
                verdict("pypistats", "level", "ok", day, 1.04, "as usual"),
                verdict("github", "freshness", "ok", day, 0.98, "98 % fresh"),
                verdict("npm", "freshness", "ok" if day < LAST else "not judged", day, None, "too few"),
                verdict(
                    "depsdev", "freshness", "ok" if day < LAST else "not asked", day, None, "the night did not ask"
                ),
            ]
        )


async def compare(store: Store) -> None:
    """Write three weeks of one project and one of another, half of them discrepant."""
    ids = await store.sync_watchlist(PROJECTS, NOW)
    weeks = [
        (SUNDAY, 700.0, 690.0),
        (SUNDAY + timedelta(days=7), 100.0, 400.0),
        (SUNDAY - timedelta(days=14), 5.0, 5.0),
    ]
    rows = [Reconciliation(ids["ollama"], *week) for week in weeks]
    await store.record_reconciliation([*rows, Reconciliation(ids["hostile"], SUNDAY, 0.0, 50.0)], NOW)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    await fill(url)
    async with open_store(url) as opened:
        yield opened


@pytest.fixture
async def client(url: str, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(settings_for(url), store=store)) as opened:
        yield opened


async def test_before_any_night_was_judged(client: httpx.AsyncClient) -> None:
    assert await read(client, "/v1/canaries") == {
        "day": None, "run_id": None, "as_of": None, "coverage": 0.0, "violated": [], "items": [],
    }  # fmt: skip
    body = await read(client, "/v1/reconciliation")
    assert (body["first_week"], body["total"], body["items"], body["coverage"]) == (None, 0, [], 0.0)
    assert (await read(client, "/v1/projects/ollama/reconciliation"))["weeks"] == []
    assert (await read(client, "/v1/leaderboard"))["held_out"] == []
    page = Page((await client.get("/")).text)
    assert "breaks its contract" not in page.text
    assert "upstreams" not in page.ids


async def test_the_canaries_of_a_night(client: httpx.AsyncClient, store: Store) -> None:
    await judge(store)
    body = await read(client, "/v1/canaries")
    Canaries.model_validate(body)
    assert (body["day"], body["run_id"], body["as_of"]) == ("2026-03-31", 1, "2026-04-01T05:00:00+00:00")
    assert (body["coverage"], body["violated"]) == (0.6, ["pypistats"])
    assert [(i["source"], i["canary"], i["state"]) for i in body["items"]] == [
        ("depsdev", "freshness", "not asked"), ("github", "freshness", "ok"), ("npm", "freshness", "not judged"),
        ("pypistats", "freshness", "violated"), ("pypistats", "level", "ok"),
    ]  # fmt: skip
    assert body["items"][3] == {
        "source": "pypistats", "canary": "freshness", "meaning": "Share of the series with a value of the last week",
        "state": "violated", "value": 0.0, "low": 0.5, "high": None, "reason": WHY, "first_day": "2026-03-31",
        "since": "2026-03-30",
    }  # fmt: skip
    assert body["items"][2]["value"] is None
    assert (await read(client, "/v1/canaries?day=2026-03-30"))["coverage"] == 1.0
    assert (await read(client, "/v1/canaries?day=2025-01-01"))["items"] == []
    assert (await client.get("/v1/canaries?day=yesterday")).json()["field"] == "day"


async def test_the_leaderboard_and_its_page_name_what_is_held_out(client: httpx.AsyncClient, store: Store) -> None:
    await judge(store)
    assert (await read(client, "/v1/leaderboard"))["held_out"] == [], "what is missing keeps nothing out"
    answer = await client.get("/")
    page = Page(answer.text)
    assert "PyPI downloads breaks its contract. Freshness: 0% of 212 series" in page.text
    assert "since 30 Mar 2026" in page.text
    assert "<b>2026-02-28</b>" in page.text
    assert "<b>2026" not in answer.text
    assert "What is missing is a gap, and nothing is kept out of the scores." in page.text
    assert "1 canary had too little to go by; not asked: deps.dev." in page.text
    assert "upstreams" in page.ids
    for link in page.addresses:
        if link.startswith("/v1/"):
            assert (await client.get(link)).status_code == 200, link


async def test_only_what_is_doubted_is_held_out_of_the_scores(client: httpx.AsyncClient, store: Store) -> None:
    await judge(store)
    rows = [
        verdict("pypistats", "level", "violated", LAST, 0.1, "a tenth"),
        verdict("github", "capture", "violated", LAST),
    ]
    await store.write_verdicts([*rows, verdict("npm", "level", "violated", LAST)])
    assert (await read(client, "/v1/leaderboard"))["held_out"] == ["pypistats"]
    assert (await read(client, "/v1/canaries"))["violated"] == ["github", "npm", "pypistats"]
    text = Page((await client.get("/")).text).text
    assert text.count("What it writes meanwhile is kept out of the scores") == 1
    assert text.count("nothing is kept out of the scores") == 2


async def test_the_weeks_of_a_project_by_two_witnesses(client: httpx.AsyncClient, store: Store) -> None:
    await judge(store)
    await compare(store)
    body = await read(client, "/v1/projects/ollama/reconciliation")
    ProjectReconciliation.model_validate(body)
    assert body["as_of"] == "2026-04-01T05:00:00+00:00"
    assert body["coverage"] == 0.75, "three of the four weeks from the first to the last"
    assert [w["week"] for w in body["weeks"]] == ["2026-03-01", "2026-03-15", "2026-03-22"]
    assert body["weeks"][-1] == {
        "week": "2026-03-22", "history_total": 100.0, "snapshot_delta": 400.0, "difference": 0.75, "discrepant": True,
    }  # fmt: skip
    assert (await client.get("/v1/projects/olama/reconciliation")).json()["remedy"].startswith("Did you mean 'ollama'?")


async def test_the_largest_differences_stand_first(client: httpx.AsyncClient, store: Store) -> None:
    await judge(store)
    await compare(store)
    body = await read(client, "/v1/reconciliation")
    ReconciliationList.model_validate(body)
    assert [(i["slug"], i["week"], i["difference"]) for i in body["items"]] == [
        ("hostile", "2026-03-15", 1.0), ("ollama", "2026-03-22", 0.75),
        ("ollama", "2026-03-15", pytest.approx(1 / 70)), ("ollama", "2026-03-01", 0.0),
    ]  # fmt: skip
    assert (body["total"], body["discrepant"], body["tolerance"], body["coverage"]) == (4, 2, 0.3, 0.5)
    assert (body["first_week"], body["last_week"]) == ("2026-03-01", "2026-03-22")
    some = await read(client, "/v1/reconciliation?limit=1&offset=1")
    assert [i["slug"] for i in some["items"]] == ["ollama"]
    assert "2 project-weeks of 4 project-weeks differ by more than 30" in Page((await client.get("/")).text).text


async def test_the_gauges_alarm(client: httpx.AsyncClient, store: Store) -> None:
    await judge(store)
    await compare(store)
    found = await measured(client)

    def gauge(source: str, canary: str) -> float:
        return found["astrid_canary_violated", frozenset({("source", source), ("canary", canary)})]

    assert (gauge("pypistats", "freshness"), gauge("pypistats", "level"), gauge("npm", "freshness")) == (1, 0, 0)
    judged = {
        source: found["astrid_canary_judged", frozenset({("source", source), ("canary", "freshness")})]
        for source in ("pypistats", "github", "npm", "depsdev")
    }
    assert judged == {"pypistats": 1, "github": 1, "npm": 0, "depsdev": 0}, "0 violated is an all-clear of two alone"
    assert found["astrid_reconciliation_discrepant", frozenset({("source", "github")})] == 2
