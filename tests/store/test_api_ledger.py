"""The ledger as API and pages tell it, over forty nights with known troubles."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from astrid.settings import load_settings
from astrid.sources.source import days_between
from tests.store.conftest import Server
from tests.store.ledger_world import (
    FAILED,
    FIRST,
    JOINED,
    LAST,
    LEFT,
    MISSED,
    NOW,
    NPM_SILENT,
    SILENT,
    open_filled,
)
from tests.store.test_api import Page, client_of, read

COUNTS = ("expected", "observed", "late", "missing", "waiting", "unexplained", "beyond")
WHOLE = f"start={FIRST}&end={LAST}"


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


async def listed(client: httpx.AsyncClient, question: str) -> list[Any]:
    """Return all items of /v1/gaps, page by page."""
    items: list[Any] = []
    while True:
        body = await read(client, f"/v1/gaps?{question}&limit=500&offset={len(items)}")
        items += body["items"]
        if len(items) >= body["total"]:
            return items


async def test_a_silent_source_is_missing_and_asked_again_tomorrow(client: httpx.AsyncClient) -> None:
    items = await listed(client, "source=npm")
    days = days_between(NPM_SILENT, LAST)
    assert {i["metric"] for i in items} == {"npm_downloads"}
    bulk = [i for i in items if i["slug"] in ("p01", "p05")]
    assert Counter(i["day"] for i in bulk) == {day.isoformat(): 2 for day in days}
    assert [i["day"] for i in items] == sorted((i["day"] for i in items), reverse=True)
    first = bulk[0]
    assert (first["state"], first["reason"], first["attempts"]) == ("open", "after 5 tries: it answered 503", 1)
    assert first["next"] == {
        "kind": "night", "night": "2026-04-01", "at": "2026-04-02T05:00:00+00:00", "source": "npm", "why": None,
    }  # fmt: skip
    assert bulk[-1]["attempts"] == len(days), "every night reported it again"
    assert first["first_seen_at"].startswith("2026-04-01")
    waiting = await listed(client, "source=npm&state=waiting")
    assert {i["slug"] for i in waiting} == {"p03"}, "with a scope it is asked for once in seven nights"
    assert all(i["next"]["night"] > LAST.isoformat() for i in waiting)


async def test_what_left_the_watchlist_is_not_expected_any_more(client: httpx.AsyncClient) -> None:
    calendar = await read(client, f"/v1/projects/p07/calendar?{WHOLE}")
    for source in calendar["sources"]:
        assert all(s["expected"] == 0 for s in source["stretches"] if s["first_day"] >= LEFT.isoformat()), source
    before = await listed(client, f"project=p07&start={FIRST}&end={LEFT - timedelta(days=1)}")
    assert {i["day"] for i in before} <= {MISSED.isoformat(), FAILED.isoformat()}, (
        "its turns that never came owe nothing"
    )


async def test_a_project_that_joined_owes_nothing_from_before(client: httpx.AsyncClient) -> None:
    (github,) = (await read(client, f"/v1/projects/p08/calendar?source=github&metric=github_stars&{WHOLE}"))["sources"]
    assert [(s["first_day"], s["state"], s["expected"]) for s in github["stretches"]] == [
        (FIRST.isoformat(), "none", 0), (JOINED.isoformat(), "complete", 1),
    ]  # fmt: skip
    assert (github["expected"], github["coverage"]) == ((LAST - JOINED).days + 1, 1.0)


async def test_a_missed_night_costs_its_snapshots_for_good_and_nothing_dated(client: httpx.AsyncClient) -> None:
    items = await listed(client, f"start={MISSED}&end={MISSED}&state=all")
    snapshots = [i for i in items if i["state"] == "open"]
    assert {i["reason"] for i in snapshots} == {"not asked in time: no night of this day ran to its end"}
    assert {i["next"]["why"] for i in snapshots} == {"a count taken now would stand for another day"}
    assert {i["attempts"] for i in snapshots} == {0}
    metrics = {i["metric"] for i in snapshots}
    assert {"github_stars", "github_watchers", "dockerhub_pulls", "huggingface_likes"} <= metrics
    assert metrics.isdisjoint({"hn_points", "pypi_downloads", "npm_downloads", "github_commits"})
    failed = await listed(client, f"start={FAILED}&end={FAILED}")
    assert failed
    assert all(i["next"]["kind"] == "never" for i in failed)


async def test_what_came_late_says_who_brought_it(client: httpx.AsyncClient) -> None:
    items = await listed(client, "source=pypistats&state=healed")
    assert {i["day"] for i in items} == {day.isoformat() for day in days_between(*SILENT)}
    runs = {r["run_id"]: r for r in (await read(client, "/v1/runs?limit=100"))["items"]}
    for item in items:
        assert item["next"] is None
        assert runs[item["run_id"]]["day"] == SILENT[1].isoformat()
        assert runs[item["healed_run"]]["day"] == (SILENT[1] + timedelta(days=1)).isoformat()
        assert item["healed_at"][:10] == (SILENT[1] + timedelta(days=2)).isoformat()
    (source,) = (await read(client, f"/v1/projects/p00/calendar?source=pypistats&{WHOLE}"))["sources"]
    assert [(s["state"], s["days"]) for s in source["stretches"]] == [("complete", 28), ("late", 3), ("complete", 9)]


async def test_what_waits_for_its_turn_is_neither_missing_nor_unexplained(client: httpx.AsyncClient) -> None:
    items = await listed(client, "metric=github_commits&state=waiting")
    assert items
    assert {i["reason"] for i in items} == {"its turn is still to come: it is asked for once in several nights"}
    assert all(i["next"]["night"] > LAST.isoformat() and i["attempts"] == 0 for i in items)
    assert (await read(client, "/v1/gaps?metric=github_commits"))["total"] == 0
    body = await read(client, f"/v1/coverage?{WHOLE}")
    assert all(sum(m["unexplained"]) == 0 for m in body["metrics"]), "whatever is missing has its reason"


async def test_counts_lists_and_calendars_agree(client: httpx.AsyncClient) -> None:
    body = await read(client, f"/v1/coverage?{WHOLE}")
    days = (LAST - FIRST).days + 1
    assert all(len(m[name]) == days for m in body["metrics"] for name in COUNTS)
    for m in body["metrics"]:
        for expected, observed, late, missing, waiting, unexplained, _ in zip(*(m[n] for n in COUNTS), strict=True):
            assert expected == observed + missing + waiting
            assert late <= observed
            assert unexplained <= missing
    for state, name in (("open", "missing"), ("waiting", "waiting"), ("healed", "late")):
        items = await listed(client, f"{WHOLE}&state={state}")
        found = Counter((i["metric"], (date.fromisoformat(i["day"]) - FIRST).days) for i in items)
        assert found == {(m["metric"], n): c for m in body["metrics"] for n, c in enumerate(m[name]) if c}, state
        assert len({(i["slug"], i["metric"], i["day"]) for i in items}) == len(items)
    total = dict.fromkeys(("expected", "observed"), 0)
    for n in range(9):
        calendar = await read(client, f"/v1/projects/p{n:02}/calendar?{WHOLE}")
        for source in calendar["sources"]:
            stretches = source["stretches"]
            assert [s["first_day"] for s in stretches[1:]] == [
                (date.fromisoformat(s["last_day"]) + timedelta(days=1)).isoformat() for s in stretches[:-1]
            ]
            assert sum(s["days"] for s in stretches) == days
            assert source["missing"] == sum(s["days"] * s["missing"] for s in stretches)
            for name in total:
                total[name] += source[name]
    assert total == {name: sum(sum(m[name]) for m in body["metrics"]) for name in total}
    assert body["coverage"] == pytest.approx(total["observed"] / total["expected"])
    assert body["projects"] == 9


async def test_a_page_is_a_part_of_the_whole(client: httpx.AsyncClient) -> None:
    whole = await listed(client, f"{WHOLE}&state=all")
    part = await read(client, f"/v1/gaps?{WHOLE}&state=all&limit=7&offset=11")
    assert part["items"] == whole[11:18]
    assert part["total"] == len(whole)
    assert (await read(client, f"/v1/gaps?{WHOLE}&offset={len(whole)}"))["items"] == []
    mine = await listed(client, f"{WHOLE}&state=all&project=p01")
    assert mine == [i for i in whole if i["slug"] == "p01"]


async def test_yesterdays_ledger_can_still_be_read(client: httpx.AsyncClient) -> None:
    """In the middle of the silence of pypistats: what was missing then, and what was to be done about it."""
    moment = f"{SILENT[1] + timedelta(days=1)}T12:00:00Z"
    body = await read(client, f"/v1/gaps?source=pypistats&as_of={moment}")
    assert body["end"] == SILENT[1].isoformat()
    assert body["as_of"] == moment.replace("Z", "+00:00")
    assert {i["day"] for i in body["items"]} == {day.isoformat() for day in days_between(*SILENT)}
    assert {(i["state"], i["healed_at"], i["next"]["kind"]) for i in body["items"]} == {("open", None, "night")}
    assert {i["next"]["night"] for i in body["items"]} == {(SILENT[1] + timedelta(days=1)).isoformat()}
    (source,) = (await read(client, f"/v1/projects/p00/calendar?source=pypistats&as_of={moment}"))["sources"]
    assert source["stretches"][-1]["state"] == "missing"
    (metric,) = (await read(client, f"/v1/coverage?source=pypistats&as_of={moment}"))["metrics"]
    assert metric["missing"][-3:] == [4, 4, 4] if len(metric["missing"]) > 2 else False
    assert sum(metric["missing"]) == len(body["items"])
    slugs = {p["slug"] for p in (await read(client, f"/v1/projects?as_of={moment}"))["items"]}
    assert "p08" not in slugs


@pytest.mark.parametrize(
    ("question", "status", "field", "remedy"),
    [
        ("gaps?project=p0", 404, "project", "/v1/projects lists every slug."),
        ("gaps?source=nmp", 422, "source", "Did you mean 'npm'?"),
        ("gaps?metric=github_star", 422, "metric", "Did you mean 'github_stars'?"),
        ("gaps?metric=github_stars&source=npm", 422, "source", "Leave the source out, or give source=github."),
        ("gaps?state=closed", 422, "state", "Give state as 'open', 'waiting', 'healed' or 'all'."),
        ("gaps?start=2026-03-31&end=2026-03-01", 422, "start", "not after the end"),
        ("gaps?start=2027-01-01", 422, "start", "not after 2026-03-31"),
        ("gaps?start=2025-01-01", 422, "start", "at most 91 days before the end"),
        ("gaps?end=2026-02-30", 422, "end", "YYYY-MM-DD"),
        ("gaps?limit=0", 422, "limit", "at least 1"),
        ("coverage?start=2025-01-01", 422, "start", "at most 91 days before the end"),
        ("coverage?source=clickhouse", 422, "source", "Sources: github"),
        ("projects/p99/calendar", 404, "slug", "/v1/projects lists every slug."),
        ("projects/p01/calendar?start=2020-01-01", 422, "start", "at most 399 days before the end"),
        ("gaps?as_of=2030-01-01", 422, "as_of", "leave as_of out"),
    ],
)
async def test_a_wrong_question_names_field_and_remedy(
    client: httpx.AsyncClient, question: str, status: int, field: str, remedy: str
) -> None:
    answer = await client.get(f"/v1/{question}")
    body = answer.json()
    assert (answer.status_code, body["field"]) == (status, field), body
    assert remedy in body["remedy"]
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_range_that_ends_in_the_future_ends_with_the_last_day(client: httpx.AsyncClient) -> None:
    body = await read(client, "/v1/gaps?end=2026-12-31&start=2026-03-30")
    assert (body["start"], body["end"]) == ("2026-03-30", "2026-03-31")
    assert body["next_night"] == {"day": "2026-04-01", "at": "2026-04-02T05:00:00+00:00"}


async def test_the_page_of_a_project_draws_its_calendars(client: httpx.AsyncClient) -> None:
    answer = await client.get("/projects/p01")
    page = Page(answer.text)
    assert answer.status_code == 200
    body = await read(client, "/v1/projects/p01/calendar")
    for source in body["sources"]:
        assert f"calendar-{source['source']}-t" in page.ids
    assert answer.text.count('class="calendar"') == len(body["sources"])
    assert answer.text.count('class="patterns"') == 1
    assert "Next: the night of 1 Apr 2026, from 2 Apr 2026, 05:00 UTC." in page.text
    assert "Next: never, because a count taken now would stand for another day." in page.text
    assert "style=" not in answer.text
    for link in page.addresses:
        if link.startswith("/v1/"):
            assert (await client.get(link)).status_code == 200, link


async def test_the_status_page_draws_all_projects_and_lists_the_runs(client: httpx.AsyncClient) -> None:
    answer = await client.get("/status")
    page = Page(answer.text)
    assert answer.status_code == 200
    body = await read(client, "/v1/coverage?start=2025-12-30")
    sources = {m["source"] for m in body["metrics"]}
    assert {f"status-{source}-t" for source in sources} <= set(page.ids)
    assert f"{LAST.day} Mar 2026: " in answer.text, "each day says what it stands for"
    assert "failed" in (await client.get("/v1/runs?limit=100")).text
    assert "scored again" in page.text
    for link in page.addresses:
        if link.startswith("/v1/"):
            assert (await client.get(link)).status_code == 200, link
    problem = await client.get("/status?", headers={"accept": "text/html"})
    assert problem.status_code == 200


async def test_before_any_night_nothing_is_expected(embedded_url: str) -> None:
    application = create_app(load_settings({}, database_url=embedded_url, now=NOW))
    async with application.router.lifespan_context(application), client_of(application) as client:
        body = await read(client, "/v1/gaps")
        assert (body["total"], body["items"], body["coverage"], body["as_of"]) == (0, [], 0.0, None)
        assert (await read(client, "/v1/coverage"))["metrics"] == []
        assert (await read(client, "/v1/runs"))["items"] == []
        page = await client.get("/status")
        assert "no night has run" in page.text
