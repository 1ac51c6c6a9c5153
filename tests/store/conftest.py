"""Real PostgreSQL for the store's tests: one server per flavour and worker, one database per test.

Flavours: the embedded server (in `make long` also the older version of its wheel); Debian's, where it is installed;
TimescaleDB under both licences, where Debian's has the extension; the embedded server behind Debian's pgbouncer in
transaction mode; a plain server named by ASTRID_TEST_DATABASE_URL and one with TimescaleDB by
ASTRID_TEST_TIMESCALE_URL (each as a user who may create databases). A test that takes ``url`` or ``store`` runs on each
flavour at hand. A server that is named and does not answer is a failure, and so is the absence of a flavour in
ASTRID_TEST_REQUIRED_FLAVOURS.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from astrid.store import Store, migrate, open_embedded, open_store
from astrid.store.embedded import _find_install
from tests.conftest import LONG
from tests.pgbouncer import NoPgbouncer, find_program, open_pgbouncer, read_session_state

NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
DEBIAN = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None, key=lambda p: int(p.parts[-3]))
PRELOAD = {"shared_preload_libraries": "timescaledb", "timescaledb.max_background_workers": "0"}
PRELOAD |= {"timescaledb.telemetry_level": "off"}
POOLED_SESSIONS = 3
"""So few that the clients of one test really share them."""


@dataclass(frozen=True)
class Flavour:
    """One kind of server: its name, why it is absent (empty = it is there), and how it is opened."""

    name: str
    absent: str = ""
    url: str = ""
    install: Path | None = None
    settings: tuple[tuple[str, str], ...] = ()
    schema: str = "native"
    pooler: Path | None = None


def _timescale_absent() -> str:
    if DEBIAN is None:
        return "no PostgreSQL under /usr/lib/postgresql"
    if not (Path("/usr/share/postgresql") / DEBIAN.parts[-3] / "extension" / "timescaledb.control").exists():
        return f"PostgreSQL {DEBIAN.parts[-3]} has no TimescaleDB extension"
    return ""


def _pooler() -> tuple[Path | None, str]:
    try:
        return find_program(), ""
    except NoPgbouncer as exc:
        return None, str(exc)


def _older_wheel() -> Flavour:
    """Return the older of the two PostgreSQLs that the wheel brings; only `make long` has the time for one more."""
    install = _find_install()
    older = min(install.parent.glob("pginstall*"), key=lambda path: int(path.name.removeprefix("pginstall") or 16))
    absent = "" if LONG else "one version more only in `make long`"
    return Flavour("embedded-16", absent if older != install else "the wheel has one PostgreSQL", install=older)


def _flavours() -> list[Flavour]:
    install = DEBIAN.parent.parent if DEBIAN else None
    plain, timescale = (os.environ.get(f"ASTRID_TEST_{kind}_URL", "") for kind in ("DATABASE", "TIMESCALE"))
    licences = [
        Flavour(
            f"timescale-{licence}",
            _timescale_absent(),
            "",
            install,
            tuple({**PRELOAD, "timescaledb.license": licence}.items()),
            "timescale",
        )
        for licence in ("apache", "timescale")
    ]
    pooler, unpooled = _pooler()
    return [
        Flavour("embedded"),
        Flavour("debian", "" if install else "no PostgreSQL under /usr/lib/postgresql", "", install),
        *licences,
        Flavour("pgbouncer", unpooled, pooler=pooler),
        _older_wheel(),
        Flavour("plain-url", "" if plain else "ASTRID_TEST_DATABASE_URL is not set", plain),
        Flavour(
            "timescale-url", "" if timescale else "ASTRID_TEST_TIMESCALE_URL is not set", timescale, schema="timescale"
        ),
    ]


FLAVOURS = _flavours()


@dataclass(frozen=True)
class Server:
    """A running server of a flavour: the address of a database from which others are created.

    ``pooled_url`` is the same database through the pooler, where the flavour has one.
    """

    flavour: Flavour
    admin_url: str
    template: str | None
    pooled_url: str = ""

    def url(self, database: str) -> str:
        """Return the address of another database of this server, through the pooler where there is one."""
        return _rename(self.pooled_url or self.admin_url, database)

    def direct(self, database: str) -> str:
        """Return the address of another database of this server, past any pooler."""
        return _rename(self.admin_url, database)


def _rename(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def required_flavours() -> list[str]:
    """Return the names in ASTRID_TEST_REQUIRED_FLAVOURS: flavours that must be at hand."""
    return [name.strip() for name in os.environ.get("ASTRID_TEST_REQUIRED_FLAVOURS", "").split(",") if name.strip()]


VALUES = ("known_at", "leases", "moments", "observations", "racing_nights", "round_trips", "vintages", "write_races")
"""Modules about rows, which are alike under both of TimescaleDB's licences."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `make long` has the time to try on every flavour."""
    if LONG:
        return
    left_out = {item for item in items if _is_for_long(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_for_long(item: pytest.Item) -> bool:
    flavour = (
        item.callspec.params.get("server") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )
    if not isinstance(flavour, Flavour):
        return False
    if item.get_closest_marker("rules"):
        return flavour.name != "embedded"
    return flavour.name == "timescale-apache" and item.path.stem.removeprefix("test_") in VALUES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print one line per flavour: how many tests ran on it, or why none did."""
    passed = [r.nodeid for r in terminalreporter.stats.get("passed", [])]
    failed = [r.nodeid for r in terminalreporter.stats.get("failed", [])]
    terminalreporter.section("store flavours")
    for flavour in FLAVOURS:
        mark = f"[{flavour.name}"
        good, bad = sum(mark in n for n in passed), sum(mark in n for n in failed)
        line = f"not run: {flavour.absent}" if flavour.absent else f"ran: {good} passed, {bad} failed"
        terminalreporter.write_line(f"{flavour.name}: {line}")


@pytest.fixture(scope="session", params=[f for f in FLAVOURS if not f.absent], ids=lambda f: f.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server of each flavour at hand in turn."""
    yield from _open_server(request.param)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    """Return the embedded server, for what does not differ between flavours."""
    yield from _open_server(FLAVOURS[0])


def _open_server(flavour: Flavour) -> Iterator[Server]:
    with ExitStack() as stack:
        url = flavour.url
        if not url:
            folder = Path(tempfile.mkdtemp(prefix="pg-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            # PostgreSQL 15 returns to its working directory by name, so it needs a way there where root runs the tests.
            folder.chmod(0o755)
            # Tests that ask for durability set it themselves; the rest need not wait for the disk.
            fast = {"fsync": "off", "max_connections": "60", **dict(flavour.settings)}
            url = stack.enter_context(open_embedded(folder, install=flavour.install, settings=fast)).url("postgres")
        if flavour.url:
            asyncio.run(_require(flavour))
        pooled = ""
        if flavour.pooler:
            pooled = stack.enter_context(open_pgbouncer(flavour.pooler, url, pool_size=POOLED_SESSIONS))
        template = f"astrid_template_{uuid4().hex[:10]}"
        server = Server(flavour, url, template, pooled)
        asyncio.run(_create_database(server, template))
        asyncio.run(_fill_template(server, template))
        yield server
        asyncio.run(_drop_database(server, template))


async def _require(flavour: Flavour) -> None:
    """Fail where a server that was named on purpose is not what it is named as: its silence is no skip."""
    variable = "ASTRID_TEST_TIMESCALE_URL" if flavour.schema == "timescale" else "ASTRID_TEST_DATABASE_URL"
    try:
        connection = await asyncpg.connect(flavour.url, timeout=20)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as exc:
        raise ConnectionError(f"{variable} does not answer: {exc or type(exc).__name__}") from None
    try:
        offered = await connection.fetchval("SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'")
    finally:
        await connection.close()
    if flavour.schema == "timescale" and not offered:
        raise ConnectionError(f"{variable} is a server without TimescaleDB")


async def _fill_template(server: Server, name: str) -> None:
    await migrate(server.direct(name))
    connection = await asyncpg.connect(server.admin_url)
    try:
        # What has a session in it cannot be copied, and TimescaleDB's scheduler keeps one wherever it may enter.
        await connection.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        await connection.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    finally:
        await connection.close()


async def _create_database(server: Server, name: str, template: str | None = None) -> None:
    connection = await asyncpg.connect(server.admin_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    finally:
        await connection.close()


async def _drop_database(server: Server, name: str) -> None:
    connection = await asyncpg.connect(server.admin_url)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture
async def empty_url(server: Server) -> AsyncIterator[str]:
    """Return the address of a database of its own that was never migrated."""
    name = f"astrid_test_{uuid4().hex[:12]}"
    await _create_database(server, name)
    try:
        yield server.url(name)
        await _require_clean_sessions(server, name)
    finally:
        await _drop_database(server, name)


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    """Return the address of a migrated, empty database of its own."""
    name = f"astrid_test_{uuid4().hex[:12]}"
    await _create_database(server, name, server.template)
    try:
        yield server.url(name)
        await _require_clean_sessions(server, name)
    finally:
        await _drop_database(server, name)


async def _require_clean_sessions(server: Server, name: str) -> None:
    """Fail where a test left something behind in a session that a pooler hands to others."""
    if server.pooled_url:
        assert await read_session_state(server.url(name), POOLED_SESSIONS) == []


@pytest.fixture
def direct_url(url: str, server: Server) -> str:
    """Return the address of the same database past any pooler."""
    return server.direct(urlsplit(url).path.lstrip("/"))


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """Return a store over a migrated, empty database of its own."""
    async with open_store(url, pool_size=4) as opened:
        yield opened


@pytest.fixture
async def connection(direct_url: str) -> AsyncIterator[Any]:
    """Return a bare connection to the same database, past any pooler, to look past the store."""
    opened = await asyncpg.connect(direct_url)
    yield opened
    await opened.close()


@pytest.fixture
async def ids(store: Store) -> dict[str, int]:
    """Return slug -> entity_id of four tracked projects: a, b, c, d."""
    return await store.sync_watchlist([(slug, slug.upper(), "agents" if slug < "c" else "rag") for slug in "abcd"], NOW)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Return a short folder that other users can pass through, gone after the test."""
    folder = Path(tempfile.mkdtemp(prefix="st-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def embedded_url(embedded_server: Server) -> AsyncIterator[str]:
    """Return the address of a migrated, empty database of its own on the embedded server."""
    name = f"astrid_test_{uuid4().hex[:12]}"
    await _create_database(embedded_server, name, embedded_server.template)
    yield embedded_server.url(name)
    await _drop_database(embedded_server, name)


@pytest.fixture
async def fresh_url(embedded_server: Server) -> AsyncIterator[str]:
    """Return the address of a database of its own on the embedded server that was never migrated."""
    name = f"astrid_test_{uuid4().hex[:12]}"
    await _create_database(embedded_server, name)
    yield embedded_server.url(name)
    await _drop_database(embedded_server, name)


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    """Return a folder on a file system of half a megabyte."""
    folder = scratch / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
