"""Whose tokens are, across runs."""

from __future__ import annotations

from typing import Any

from astrid.store import Store
from tests.store.conftest import NOW


async def test_what_was_told_last_stands(store: Store, connection: Any) -> None:
    assert await store.read_token_users(["aaaaaaaa"]) == {}
    await store.write_token_users({"aaaaaaaa": (7, "octocat"), "bbbbbbbb": (2**40, "x")}, NOW)
    await store.write_token_users({"aaaaaaaa": (7, "renamed")}, NOW)
    assert await store.read_token_users(["aaaaaaaa", "bbbbbbbb", "cccccccc"]) == {
        "aaaaaaaa": (7, "renamed"),
        "bbbbbbbb": (2**40, "x"),
    }
    assert await connection.fetchval("SELECT count(*) FROM token_user") == 2
