"""Migrations: in order, once, by however many at a time; and the schema file says what they add up to."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from astrid.errors import StoreError
from astrid.store import check_version, migrate
from astrid.store.migrate import Migration, load_migrations, read_schema
from astrid.store.queries import load_queries
from tests.store.conftest import Server


def database_of(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


SCHEMA = files("astrid.store").joinpath("schema.sql")


async def test_twice_applies_once(empty_url: str, server: Server) -> None:
    first, second = await migrate(empty_url), await migrate(empty_url)
    assert first.flavour == second.flavour == server.flavour.schema
    assert first.applied
    assert second.applied == ()
    community = any("community" in name for name in first.applied)
    if server.flavour.name.startswith("timescale-") and not server.flavour.url:
        assert community == (server.flavour.name == "timescale-timescale")
        assert bool(first.pending) == (not community)
    await check_version(empty_url)


async def test_by_several_at_once(empty_url: str) -> None:
    done = await asyncio.gather(*(migrate(empty_url) for _ in range(4)))
    assert sorted(bool(d.applied) for d in done) == [False, False, False, True]
    await check_version(empty_url)


async def test_a_file_that_fails_leaves_nothing(empty_url: str) -> None:
    broken = (*load_migrations(), Migration("9999_broken.sql", "", "CREATE TABLE half (a int); SELECT 1 / 0"))
    with pytest.raises(StoreError, match="DivisionByZero"):
        await migrate(empty_url, broken)
    with pytest.raises(StoreError, match="never migrated: run `astrid migrate`"):
        await check_version(empty_url)
    await migrate(empty_url)


async def test_a_database_that_is_ahead_is_refused(url: str, connection: Any) -> None:
    await connection.execute("INSERT INTO migration (name, sha256) VALUES ('9001_future.sql', 'x')")
    for call in (migrate, check_version):
        with pytest.raises(StoreError, match=r"ahead of this version of Astrid.*9001_future\.sql.*newer version"):
            await call(url)


async def test_a_database_that_is_behind_is_refused(url: str, connection: Any) -> None:
    await connection.execute("DELETE FROM migration WHERE name = '0003_observation_comments.sql'")
    with pytest.raises(StoreError, match=r"behind.*0003_observation_comments\.sql.*astrid migrate"):
        await check_version(url)


async def test_an_edited_file_is_refused(url: str, connection: Any) -> None:
    await connection.execute("UPDATE migration SET sha256 = 'x' WHERE name = '0001_tables.sql'")
    for call in (migrate, check_version):
        with pytest.raises(StoreError, match=r"another text of 0001_tables\.sql"):
            await call(url)


async def test_the_flavour_is_decided_once(empty_url: str, server: Server) -> None:
    connection = await asyncpg.connect(server.direct(database_of(empty_url)))
    try:
        await connection.execute(load_queries("migrate")["create_record"])
        await connection.execute("INSERT INTO flavour (name) VALUES ('native')")
        assert (await migrate(empty_url)).flavour == "native"
        kind = "SELECT relkind::text FROM pg_class WHERE relname = 'observation'"
        assert await connection.fetchval(kind) == "p"
    finally:
        await connection.close()
    await check_version(empty_url)


def test_files_are_in_order_and_common_ones_come_first() -> None:
    names = [m.name for m in load_migrations()]
    assert names[0] == "0001_tables.sql"
    assert [n[:4] for n in names] == sorted(n[:4] for n in names)


async def test_schema_file_equals_the_migrations(url: str, connection: Any, server: Server) -> None:
    if server.flavour.schema != "native":
        pytest.skip("schema.sql describes the native flavour")
    assert await read_schema(connection) == SCHEMA.read_text(encoding="utf-8")


async def test_schema_file_builds_the_same_schema(empty_url: str, server: Server) -> None:
    if server.flavour.schema != "native":
        pytest.skip("schema.sql describes the native flavour")
    connection = await asyncpg.connect(server.direct(database_of(empty_url)))
    try:
        await connection.execute(SCHEMA.read_text(encoding="utf-8"))
        assert await read_schema(connection) == SCHEMA.read_text(encoding="utf-8")
    finally:
        await connection.close()


async def test_every_table_and_large_column_is_explained(connection: Any) -> None:
    bare = await connection.fetch(
        "SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition AND obj_description(oid, 'pg_class') IS NULL"
    )
    assert [row["relname"] for row in bare] == []


async def test_days_outside_the_years_have_a_place(connection: Any) -> None:
    insert = "INSERT INTO observation VALUES (1, 1, $1::text::date, 1, 1, now(), 1)"
    for day in ("1999-12-31", "2008-01-01", "2040-12-31", "2041-01-01"):
        await connection.execute(insert, day)
    assert await connection.fetchval("SELECT count(*) FROM observation") == 4
