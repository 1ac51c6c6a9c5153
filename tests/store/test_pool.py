"""What a user reads when the database cannot be used: what, where, what to do, and never a password."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from astrid.errors import AstridError, ConfigError, StoreError
from astrid.store import Store, check_version, migrate, open_store
from tests.pgbouncer import STATE, NoPgbouncer, find_program, open_pgbouncer
from tests.store.conftest import NOW, Server


async def refusal(url: str) -> AstridError:
    """Return the error of opening a store, after checking that neither it nor its cause's text shows the password."""
    with pytest.raises(AstridError) as caught:
        async with open_store(url):
            pass
    assert "geheim" not in str(caught.value)
    return caught.value


async def test_wrong_password(embedded_server: Server) -> None:
    port = urlsplit(embedded_server.admin_url).port
    error = await refusal(f"postgresql://postgres:geheim@127.0.0.1:{port}/astrid")
    assert isinstance(error, StoreError)
    assert str(error).startswith(f"database 'astrid' on 127.0.0.1:{port} refuses this user or password")


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await refusal(f"postgresql://u:geheim@127.0.0.1:{port}/astrid")
    assert isinstance(error, StoreError)
    assert f"on 127.0.0.1:{port} cannot be reached" in str(error)
    assert "start it, or correct ASTRID_DATABASE_URL" in str(error)


async def test_a_host_that_does_not_exist() -> None:
    error = await refusal("postgresql://u:geheim@no-such-host.invalid/astrid")
    assert isinstance(error, StoreError)
    assert "no-such-host.invalid" in str(error)


async def test_a_database_that_does_not_exist(server: Server) -> None:
    error = await refusal(server.url("no_such_database"))
    assert isinstance(error, StoreError)
    assert "'no_such_database'" in str(error)
    assert "create it" in str(error)


@pytest.mark.parametrize(
    "url",
    ["mysql://u:geheim@h/x", "sqlite:///x", "", "postgresql://u:geheim@h:port/x", "postgresql://u:geheim@h:99999/x"],
)
async def test_a_url_that_cannot_be_meant(url: str) -> None:
    error = await refusal(url)
    assert isinstance(error, ConfigError)
    assert "ASTRID_DATABASE_URL" in str(error)
    for call in (migrate, check_version):
        with pytest.raises(ConfigError, match="ASTRID_DATABASE_URL"):
            await call(url)


async def test_a_database_that_was_never_migrated(empty_url: str) -> None:
    async with open_store(empty_url) as store:
        with pytest.raises(StoreError, match=r"lacks a table.*astrid migrate"):
            await store.read_projects()


async def test_a_connection_that_is_cut(store: Store, connection: Any) -> None:
    await store.read_projects()
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await connection.execute(f"SELECT pg_terminate_backend(pid) {others}")
    said = ""
    try:
        await store.read_projects()
    except StoreError as exc:
        said = str(exc)
    assert not said or "connection" in said.lower()
    assert await store.sync_watchlist([("a", "A", "x")], NOW), "the pool replaces what was cut"


async def test_no_session_state_is_left(store: Store, url: str, connection: Any, ids: dict[str, int]) -> None:
    """A pooler in transaction mode hands one server session to many clients: nothing may outlive a transaction."""
    async with open_store(url, pool_size=1) as single:
        await single.digest()
        pool = single._pool
        async with pool.acquire() as inner, inner.transaction():
            assert [row["state"] for row in await inner.fetch(STATE)] == []
            assert await inner.fetchval("SHOW jit") == await connection.fetchval("SHOW jit")


async def test_what_a_pooler_says_is_said_in_our_words(embedded_url: str, embedded_server: Server) -> None:
    try:
        program = find_program()
    except NoPgbouncer as exc:
        pytest.skip(str(exc))
    settings = "max_client_conn = 2\nquery_wait_timeout = 1"
    with open_pgbouncer(program, embedded_url, pool_size=1, settings=settings) as url:
        secret = urlsplit(url).password or ""
        for wrong in (url.replace(secret, "geheim"), url.replace("//postgres:", "//nobody:")):
            error = await refusal(wrong)
            assert isinstance(error, StoreError)
            assert "refuses this user or password: correct them in ASTRID_DATABASE_URL" in str(error)
            assert secret not in str(error)
        async with open_store(url, pool_size=1) as store:
            async with store._pool.acquire() as held, held.transaction():
                await held.execute("SELECT 1")
                error = await refusal(url)
                assert "the pooler in front of" in str(error)
                assert "query_wait_timeout" in str(error)
            async with open_store(url, pool_size=1):
                assert "no more connections allowed" in str(await refusal(url))
