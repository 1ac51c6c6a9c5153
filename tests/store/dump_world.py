"""What tests of dumps share: a filled database, its dump, and whether a database is still untouched."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from astrid.models import Gap, Observations
from astrid.store import open_store
from astrid.store.dumps import export_database
from tests.store.conftest import NOW, Server, _create_database, _drop_database
from tests.store.random_rows import read_all

DAY = date(2026, 3, 31)


async def fill(url: str) -> None:
    """Write some rows that refer to each other."""
    async with open_store(url) as store:
        ids = await store.sync_watchlist([(slug, slug.upper(), "x") for slug in "abc"], NOW)
        rows = [(i, metric, date(2026, 3, d), 1.5 * d, 1) for i in ids.values() for metric in (1, 2) for d in (1, 30)]
        await store.write_observations(Observations.from_rows(rows), 1, NOW)
        await store.write_gaps([Gap(ids["a"], 20, DAY, "gone"), Gap(ids["c"], 20, DAY, "")], NOW)


async def export(url: str, folder: Path, file_format: Any = "csv") -> None:
    await export_database(url, folder, file_format=file_format, code_version="0.1.0")


def listing(folder: Path) -> list[str]:
    """Return the paths of everything in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def make_dump(server: Server, folder: Path, file_format: str) -> Path:
    """Return a dump of a filled database that is gone again; call it outside of any event loop."""
    name = f"astrid_test_{uuid4().hex[:12]}"

    async def make() -> None:
        await _create_database(server, name, server.template)
        try:
            await fill(server.url(name))
            await export(server.url(name), folder / "dump", file_format)
        finally:
            await _drop_database(server, name)

    asyncio.run(make())
    return folder / "dump"


async def is_untouched(url: str) -> bool:
    """Tell whether a database has no table at all, or only empty ones."""
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL"):
            return True
        return not any((await read_all(connection)).values())
    finally:
        await connection.close()


async def insert_many(url: str, count: int) -> None:
    """Write that many values of one day past the store, which is the fastest way."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO observation SELECT 1, i, '2026-03-01', random(), 1, now(), i "
                f"FROM generate_series(1, {count}) i"
            )
    finally:
        await connection.close()


async def until_somebody_waits(connection: Any) -> None:
    """Wait until a session of any database of the server waits for a lock."""
    for _ in range(6_000):
        if await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for a lock")
