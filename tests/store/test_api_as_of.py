"""``as_of=`` over HTTP: yesterday's bodies again, and clear problems for moments that cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from api.app import create_app
from astrid.settings import Settings
from astrid.store import CanaryRow, Store
from tests.store.histories import BEGIN, DAYS, SLUGS, History, score_columns

ROUNDS = 2
WRITES_PER_QUESTION = 5
END = BEGIN + timedelta(days=2)
PLACES = {
    "/v1/leaderboard": ["", "?category=rag", f"?day={DAYS[-2]}&limit=2&offset=1"],
    "/v1/projects": ["", "?category=rag&limit=1"],
    "/v1/projects/{slug}": [""],
    "/v1/projects/{slug}/series": ["?metric=github_stars", f"?metric=pypi_downloads&start={DAYS[0]}&end={DAYS[-1]}"],
    "/v1/projects/{slug}/reconciliation": [""],
    "/v1/projects/{slug}/calendar": ["", "?source=github"],
    "/v1/canaries": ["", f"?day={DAYS[-2]}"],
    "/v1/reconciliation": ["", "?limit=1"],
    "/v1/gaps": ["?state=all", "?project=a"],
    "/v1/coverage": ["?source=pypistats"],
    "/v1/runs": ["", "?kind=nightly&limit=2"],
    "/v1/runs/{run_id}": [""],
    "/v1/projects/{slug}/trace": [f"?metric=score&day={DAYS[-1]}", f"?metric=github_stars&day={DAYS[-1]}"],
}


@asynccontextmanager
async def client_at(store: Store, now: datetime) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an application for which it is ``now``, with nothing kept from before."""
    app = create_app(Settings(now=now), store=store)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield client


async def ask(client: httpx.AsyncClient, addresses: list[str], **parameters: str) -> dict[str, Any]:
    """Return the answers by address, without what tells of the moment that was asked for."""
    found: dict[str, Any] = {}
    for address in addresses:
        answer = await client.get(str(httpx.URL(address).copy_merge_params(parameters)))
        body = answer.json()
        if answer.status_code == 200:
            told = body.pop("as_of"), body.pop("settled", None)
            if parameters:
                assert told == (parameters["as_of"], True), address
            found[address] = body
        else:
            assert answer.status_code in (404, 422), answer.text
            found[address] = (answer.status_code, body["type"])
    return found


async def list_addresses(client: httpx.AsyncClient) -> list[str]:
    """Return the addresses of every route of the API that takes ``as_of``."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    told = [
        path
        for path, methods in paths.items()
        if any(parameter["name"] == "as_of" for parameter in methods["get"].get("parameters", []))
    ]
    data = {path for path in paths if path.startswith("/v1/")}
    assert set(told) <= data == set(PLACES), "a route is missing in PLACES"
    assert {path for path in PLACES if path in data and "run" not in path and "trace" not in path} <= set(told)
    return [
        path.format(slug=slug, run_id=1) + query
        for path in told
        for slug in (SLUGS if "{slug}" in path else "-")
        for query in PLACES[path]
    ]


async def test_yesterdays_bodies_are_given_again(embedded_url: str, seed: int) -> None:
    import asyncpg

    from astrid.store import open_store

    connection = await asyncpg.connect(embedded_url)
    async with open_store(embedded_url) as store:
        history = History(store, connection, np.random.default_rng([seed, 21]))
        await history.begin()
        async with client_at(store, END) as client:
            addresses = await list_addresses(client)
        told: dict[datetime, dict[str, Any]] = {}
        for n, step in enumerate(history.plan(ROUNDS)):
            history.now += timedelta(seconds=int(history.rng.integers(3)))
            told.pop(history.now, None)
            await step()
            if n % WRITES_PER_QUESTION == 0:
                async with client_at(store, history.now) as client:
                    told[history.now] = await ask(client, addresses)
        changed = set()
        async with client_at(store, END) as client:
            last = await ask(client, addresses)
            for moment, answers in told.items():
                again = await ask(client, addresses, as_of=moment.isoformat())
                for address, answer in answers.items():
                    assert again[address] == answer, f"{address} as of {moment}"
                    changed |= {address} if answer != last[address] else set()
        assert len(changed) > len(addresses) / 2
    await connection.close()


@pytest.fixture
async def store(embedded_url: str) -> AsyncIterator[Store]:
    from astrid.store import open_store

    async with open_store(embedded_url) as opened:
        ids = await opened.sync_watchlist([("a", "A", "rag")], BEGIN - timedelta(days=2))
        await opened.start_run("nightly", DAYS[-1], "0", "1.0", BEGIN)
        await opened.write_scores(1, DAYS[-1], "1.0", score_columns([ids["a"]], [60.0], False), BEGIN)
        later = BEGIN + timedelta(days=1)
        await opened.sync_watchlist([("a", "Alpha", "agents")], later)
        await opened.write_scores(1, DAYS[-1], "1.0", score_columns([ids["a"]], [70.0], False), later)
        yield opened


async def board(client: httpx.AsyncClient, as_of: str) -> tuple[str, float, str, bool]:
    body = (await client.get("/v1/leaderboard", params={"as_of": as_of})).json()
    return body["items"][0]["name"], body["items"][0]["score"], body["as_of"], body["settled"]


async def test_a_moment_or_the_end_of_a_day(store: Store) -> None:
    async with client_at(store, END) as client:
        assert await board(client, "2026-04-01") == ("A", 60.0, "2026-04-01T23:59:59.999999+00:00", True)
        assert await board(client, "2026-04-02T05:00:00Z") == ("Alpha", 70.0, "2026-04-02T05:00:00+00:00", True)
        assert (await board(client, "2026-04-02T04:59:59.999999Z"))[:2] == ("A", 60.0)
        assert (await board(client, "2026-04-02T07:00+02:00"))[2] == "2026-04-02T05:00:00+00:00"
        raw = await client.get("/v1/leaderboard?as_of=2026-04-02T07:00+02:00")
        assert raw.json()["as_of"] == "2026-04-02T05:00:00+00:00", "an unescaped plus is a plus"
        now = await client.get("/v1/leaderboard")
        assert (now.json()["as_of"], "settled" in now.json()) == ("2026-04-02T05:00:00+00:00", False)


async def test_an_answer_is_final_only_after_a_while(store: Store) -> None:
    moment = "2026-04-02T06:00:00Z"
    for minutes, settled in ((0, False), (29, False), (30, True), (600, True)):
        async with client_at(store, datetime(2026, 4, 2, 6, minutes % 60, tzinfo=UTC)) as client:
            if minutes < 60:
                assert (await board(client, moment))[3] is settled


@pytest.mark.parametrize(
    "text",
    [
        "yesterday", "", "2026-04-01T05:00", "2026-04-01T05:00:00", "2026-02-30", "2026-04-01T25:00Z", "20260401",
        "2026-W14-3", "2026-04-01T05:00:00.1234567Z", "２０２６-04-01", "1e9", "0001-01-01T00:00:00+23:59", "null",
        "2026-04-01T05:00:00 UTC",
    ],
)  # fmt: skip
async def test_what_is_no_moment(store: Store, text: str) -> None:
    async with client_at(store, END) as client:
        for path in ("/v1/leaderboard", "/v1/projects", "/v1/projects/a", "/v1/projects/a/series?metric=github_stars"):
            answer = await client.get(str(httpx.URL(path).copy_merge_params({"as_of": text})))
            body = answer.json()
            assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
            assert (body["type"], body["field"]) == ("/docs#problem-bad-parameter", "as_of")
            assert "2026-04-02T05:00:00Z" in body["remedy"]
            assert "for example 2026-04-02." in body["remedy"]


@pytest.mark.parametrize("text", ["2026-04-03", "2026-04-03T05:00:01Z", "2026-04-03T06:00+00:30", "9999-12-31"])
async def test_what_is_not_known_yet(store: Store, text: str) -> None:
    """The end of a day that goes on lies in the future too."""
    async with client_at(store, END) as client:
        answer = await client.get("/v1/projects", params={"as_of": text})
        assert (answer.status_code, answer.json()["field"]) == (422, "as_of")
        assert "not known yet" in answer.json()["detail"]
        assert "It is 2026-04-03T05:00:00Z" in answer.json()["remedy"]
        assert (await client.get("/v1/projects", params={"as_of": "2026-04-03T05:00:00Z"})).status_code == 200


async def test_before_there_was_anything(store: Store) -> None:
    early = {"as_of": "2026-03-30"}
    async with client_at(store, END) as client:
        unscored = await client.get("/v1/leaderboard", params={"as_of": "2026-03-31"})
        assert (unscored.status_code, unscored.json()["field"]) == (404, "as_of")
        assert unscored.json()["detail"] == "No day has been scored yet, as of 2026-03-31T23:59:59Z."
        of_day = await client.get("/v1/leaderboard", params={"as_of": "2026-03-31", "day": "2026-03-31"})
        assert of_day.json()["detail"] == "No project is ranked on 2026-03-31, as of 2026-03-31T23:59:59Z."
        assert (await client.get("/v1/projects", params={"as_of": "2020-01-01"})).json()["items"] == []
        assert (await client.get("/v1/projects/a", params={"as_of": "2020-01-01"})).status_code == 404
        assert (await client.get("/v1/projects/a", params=early)).json()["score"] is None
        assert (await client.get("/v1/canaries", params=early)).json()["items"] == []


async def test_moments_do_not_push_out_what_is_kept(store: Store) -> None:
    """Who asks for many moments costs readings of his own; what everybody asks for stays kept."""
    app = create_app(Settings(now=END), store=store)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        await client.get("/v1/leaderboard")
        kept = dict(app.state.astrid._kept)
        for n in range(40):
            moment = (BEGIN + timedelta(minutes=n)).isoformat()
            assert (await client.get("/v1/leaderboard", params={"as_of": moment})).status_code == 200
        assert app.state.astrid._kept == kept
        assert len(app.state.astrid._kept_past) <= 8


async def test_the_held_out_sources_are_those_of_then(store: Store) -> None:
    judged = BEGIN + timedelta(hours=1)
    row = CanaryRow("pypistats", "level", DAYS[-1], "violated", 3.0, 0.5, 1.8, "why", date(2026, 3, 25), 1, judged)
    await store.write_verdicts([row])
    async with client_at(store, END) as client:
        for moment, held_out in ((BEGIN, []), (judged, ["pypistats"])):
            answer = await client.get("/v1/leaderboard", params={"as_of": moment.isoformat()})
            assert answer.json()["held_out"] == held_out
