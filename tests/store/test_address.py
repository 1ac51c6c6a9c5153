"""Addresses as people paste them: they work as they are, or the error says what to change, without the password."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from astrid.errors import ConfigError, StoreError
from astrid.store import migrate, open_store
from astrid.store.address import describe, read_address
from astrid.store.pool import open_connection
from tests.store.conftest import NOW, Server

SECRET = "geheim"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@x@h/db",
        f"postgresql://u:12/{SECRET}@h/db",
        f"postgresql://u:{SECRET}#1@h/db",
        f"postgresql://u:{SECRET}?1@h/db",
        f"postgresql://u:p@h:{SECRET}/db",
        f"postgresql://u:p@h1:5432,h2:{SECRET}/db",
        f"postgresql://u:{SECRET}@h/db?sslmode",
        f"psql 'postgresql://u:{SECRET}@h/db'",
    ],
)
async def test_what_is_not_quoted_is_refused_without_being_shown(url: str) -> None:
    for call in (migrate, lambda url: open_store(url).__aenter__()):
        with pytest.raises(ConfigError) as caught:
            await call(url)
        assert SECRET not in str(caught.value)
        assert "ASTRID_DATABASE_URL" in str(caught.value)


def test_quoted_secrets_and_blanks_around_are_as_meant() -> None:
    url = "\n postgresql://u%40x:p%40%2F%3F%23%25@db.example:6432/a%20b?application_name=a%20b \n"
    address = read_address(url)
    assert address.dsn == url.strip()
    assert describe(url) == "database 'a b' on db.example:6432"
    assert "p%40" not in repr(address)


def test_what_changes_nothing_is_left_out() -> None:
    query = "keepalives=1&client_encoding=utf8&channel_binding=prefer&gssencmode=disable&sslmode=&connect_timeout=7"
    address = read_address(f"postgresql://u:p@h/db?{query}&options=-c%20work_mem%3D5MB")
    assert address.dsn == "postgresql://u:p@h/db?options=-c%20work_mem%3D5MB"
    assert (address.timeout_s, address.tls) == (7.0, None)
    assert read_address("postgresql://u:p@h/db?connect_timeout=0").timeout_s == 20.0


async def test_settings_of_the_server_go_through(embedded_url: str) -> None:
    asked = "options=-c%20work_mem%3D5MB&application_name=night%20watch"
    async with open_connection(f"{embedded_url}&{asked}") as connection, connection.transaction():
        assert await connection.fetchval("SHOW work_mem") == "5MB"
        assert await connection.fetchval("SHOW application_name") == "night watch"


@asynccontextmanager
async def endpoint_proxy(server_port: int, endpoint: str) -> AsyncIterator[int]:
    """Yield the port of a proxy that lets in who names its endpoint in ``options``, as Neon's does.

    It takes the option out of the first message before the server sees it.
    """

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!I", await reader.readexactly(4))
        message = await reader.readexactly(size - 4)
        option = b"options\0endpoint=" + endpoint.encode() + b"\0"
        if option not in message:
            told = b"SFATAL\0C08004\0Mno endpoint id\0\0"
            writer.write(b"E" + struct.pack("!I", 4 + len(told)) + told)
            writer.close()
            return
        message = message.replace(option, b"")
        inward, outward = await asyncio.open_connection("127.0.0.1", server_port)
        outward.write(struct.pack("!I", len(message) + 4) + message)
        await asyncio.gather(pump(reader, outward), pump(inward, writer), return_exceptions=True)

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()


async def test_an_endpoint_in_the_options(embedded_server: Server, embedded_url: str) -> None:
    """The address for clients that name no server in TLS: ``?options=endpoint%3Dep-…``."""
    parts = urlsplit(embedded_url)
    async with endpoint_proxy(parts.port or 0, "ep-quiet-moon-123") as port:
        own = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}")
        given = own._replace(query="sslmode=disable&options=endpoint%3Dep-quiet-moon-123").geturl()
        await migrate(given)
        async with open_store(given) as store:
            assert await store.sync_watchlist([("a", "A", "x")], NOW) == {"a": 1}
        with pytest.raises(StoreError, match="no endpoint id"):
            async with open_store(own.geturl()):
                pass
