"""What a user reads when the database cannot be used: what, where, what to do, and never a password."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from astrid.errors import AstridError, ConfigError, StoreError
from astrid.store import Store, check_version, migrate, open_store
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


async def test_no_session_state_is_left(store: Store, connection: Any, ids: dict[str, int]) -> None:
    """A pooler in transaction mode hands one server session to many clients: nothing may outlive a transaction."""
    async with open_store(_url_of(connection), pool_size=1) as single:
        await single.digest()
        pool = single._pool
        async with pool.acquire() as inner:
            assert await inner.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
            assert await inner.fetchval("SHOW jit") == await connection.fetchval("SHOW jit")
            assert await inner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
            assert await inner.fetchval("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == 0


def _url_of(connection: Any) -> str:
    host, port = connection._addr
    given = connection._params
    return f"postgresql://{given.user}:{given.password or ''}@{host}:{port}/{given.database}"
