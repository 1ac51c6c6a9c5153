"""Kept answers: what is written comes back as it was, nothing grows for ever, and no failure reaches a request."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from astrid.answers import StoredAnswer
from astrid.errors import StoreError
from astrid.store import Store, StoreAnswers
from astrid.store.answers import FLUSH_AT
from astrid.store.housekeeping import ANSWERS_KEPT
from tests.store.conftest import NOW

HEADERS = {"link": '<https://x/?page=2>; rel="next"', "etag": 'W/"1"'}
ANSWER = StoredAnswer('W/"1"', None, HEADERS, bytes(range(256)))
NEWER = StoredAnswer(None, "Wed, 01 Apr 2026 05:00:00 GMT", {}, b"{}")


async def count(connection: Any) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM answer"))


async def test_what_is_written_comes_back(store: Store) -> None:
    assert await store.read_answer("a", b"\0\1") is None
    await store.write_answers([(("a", b"\0\1"), ANSWER), (("b", b"\0\1"), NEWER)], [], NOW)
    assert await store.read_answer("a", b"\0\1") == ANSWER
    assert await store.read_answer("b", b"\0\1") == NEWER
    await store.write_answers([(("a", b"\0\1"), NEWER)], [], NOW)
    assert await store.read_answer("a", b"\0\1") == NEWER


async def test_what_nobody_asks_for_goes_and_what_is_confirmed_stays(store: Store) -> None:
    await store.write_answers([(("a", b"1"), ANSWER), (("a", b"2"), ANSWER)], [], NOW)
    await store.write_answers([], [("a", b"1"), ("a", b"unknown")], NOW + ANSWERS_KEPT / 2)
    assert (await store.tidy(NOW + ANSWERS_KEPT)).answers == 0
    assert (await store.tidy(NOW + ANSWERS_KEPT + timedelta(hours=1))).answers == 1
    assert await store.read_answer("a", b"1") == ANSWER
    assert await store.read_answer("a", b"2") is None


async def test_a_confirmation_of_the_same_day_writes_nothing(store: Store, connection: Any) -> None:
    await store.write_answers([(("a", b"1"), ANSWER)], [], NOW)
    before = await connection.fetchval("SELECT xmin::text FROM answer")
    await store.write_answers([], [("a", b"1")], NOW + timedelta(hours=23))
    assert await connection.fetchval("SELECT xmin::text FROM answer") == before


async def test_answers_outlive_the_worker(store: Store, connection: Any) -> None:
    answers = StoreAnswers(store, lambda: NOW)
    await answers.put("a", b"1", ANSWER)
    assert await answers.get("a", b"1") == ANSWER
    assert await count(connection) == 0
    await answers.flush()
    assert await StoreAnswers(store, lambda: NOW).get("a", b"1") == ANSWER
    assert await StoreAnswers(store, lambda: NOW).get("b", b"1") is None


async def test_they_are_written_by_the_handful_and_by_several_workers_at_once(store: Store, connection: Any) -> None:
    async def worker(n: int) -> None:
        answers = StoreAnswers(store, lambda: NOW)
        for k in range(2 * FLUSH_AT + 1):
            await answers.put("a", f"{(k * 7 + n) % 150}".encode(), ANSWER)
        await answers.flush()

    await asyncio.gather(*(worker(n) for n in range(4)))
    assert await count(connection) == len({(k * 7 + n) % 150 for n in range(4) for k in range(2 * FLUSH_AT + 1)})


async def test_a_database_that_is_away_fails_no_request(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("away")

    answers = StoreAnswers(store, lambda: NOW)
    with monkeypatch.context() as away:
        away.setattr(store, "read_answer", fail)
        away.setattr(store, "write_answers", fail)
        for _ in range(20):
            assert await answers.get("a", b"1") is None
        assert caplog.text.count("no kept answer can be read: away") == 1, "once per outage"
        for n in range(1000):
            await answers.put("a", str(n).encode(), ANSWER)
        await answers.flush()
    assert "not kept: away" in caplog.text
    await answers.flush()
    assert await store.read_answer("a", b"999") == ANSWER
    assert await store.read_answer("a", b"0") is None, "what the database did not take must not grow for ever"
