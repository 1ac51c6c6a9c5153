"""A dump restores the database exactly: every row of every table, on every flavour, whatever the rows hold."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from astrid.errors import StoreError
from astrid.models import Observations
from astrid.store import migrate, open_store
from astrid.store.dumps import Manifest, export_database, import_database, read_manifest
from astrid.store.dumps.tables import BY_MONTH, LEFT_OUT, PRIVATE, read_tables, table_names
from tests.store.conftest import NOW, Server
from tests.store.dump_world import until_somebody_waits
from tests.store.random_rows import fill_randomly, read_all

FORMATS = ("parquet", "csv")
SCHEMA = Path(__file__).parents[2] / "astrid" / "store" / "schema.sql"


@asynccontextmanager
async def bare(server: Server, url: str) -> AsyncIterator[Any]:
    """Give a bare connection to a database of a server, past any pooler."""
    connection = await asyncpg.connect(server.direct(urlsplit(url).path.lstrip("/")))
    try:
        yield connection
    finally:
        await connection.close()


async def export(url: str, folder: Path, file_format: Any = "parquet", **options: Any) -> Manifest:
    return await export_database(url, folder, file_format=file_format, code_version="0.1.0+test", **options)


@pytest.mark.parametrize("file_format", FORMATS)
async def test_random_rows_come_back(
    url: str, empty_url: str, server: Server, tmp_path: Path, rng: np.random.Generator, file_format: Any
) -> None:
    """Into a database that was never migrated, of the same flavour."""
    async with bare(server, url) as source:
        counts = await fill_randomly(source, rng, 30)
        assert all(count > 5 for count in counts.values()), counts
        before = await read_all(source)
    exported = await export(url, tmp_path / "dump", file_format)
    assert {name: table.rows for name, table in exported.tables.items()} == counts
    restored = await import_database(empty_url, tmp_path / "dump")
    assert restored.manifest == exported == read_manifest(tmp_path / "dump")
    assert restored.digest_compared
    async with bare(server, empty_url) as target:
        assert await read_all(target) == before
    async with open_store(url) as one, open_store(empty_url) as other:
        assert await one.digest() == await other.digest()


@pytest.mark.parametrize(("file_format", "rows"), [("parquet", 12), ("csv", 0)])
async def test_one_flavour_restores_into_another(
    url: str,
    embedded_url: str,
    server: Server,
    embedded_server: Server,
    tmp_path: Path,
    rng: np.random.Generator,
    file_format: Any,
    rows: int,
) -> None:
    """From each flavour into plain PostgreSQL, and what came there back into the flavour, both migrated; also empty."""
    async with bare(server, url) as flavoured:
        await fill_randomly(flavoured, rng, rows)
        before = await read_all(flavoured)
        first = await export(url, tmp_path / "first", file_format)
        await import_database(embedded_url, tmp_path / "first")
        async with bare(embedded_server, embedded_url) as plain:
            assert await read_all(plain) == before
        second = await export(embedded_url, tmp_path / "second", file_format)
        assert second.digest == first.digest
        assert content(second) == content(first)
        names = ", ".join(first.tables)
        await flavoured.execute(f"TRUNCATE {names}")
        await import_database(url, tmp_path / "second")
        assert await read_all(flavoured) == before


def content(manifest: Manifest) -> dict[str, tuple[int, str]]:
    """Return rows and checksum of what each file was made of."""
    return {f.path: (f.rows, f.content_sha256) for t in manifest.tables.values() for f in t.files}


async def test_equal_rows_make_equal_files(
    embedded_url: str, embedded_server: Server, tmp_path: Path, rng: Any
) -> None:
    async with bare(embedded_server, embedded_url) as connection:
        await fill_randomly(connection, rng, 10)
    for file_format in FORMATS:
        one, other = [await export(embedded_url, tmp_path / f"{file_format}{n}", file_format) for n in "ab"]
        assert [t.files for t in one.tables.values()] == [t.files for t in other.tables.values()]


async def test_a_table_reads_the_same_under_any_collation(server: Server, empty_url: str, tmp_path: Path) -> None:
    """Rows come in the order of their bytes, however the database sorts texts."""
    admin = await asyncpg.connect(server.admin_url)
    name = f"astrid_test_{uuid4().hex[:12]}"
    try:
        icu = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'und'"
        try:
            await admin.execute(icu)
        except (asyncpg.FeatureNotSupportedError, asyncpg.InvalidParameterValueError):
            pytest.skip("this server is built without ICU, so it sorts all texts by bytes")
        url = server.direct(name)
        await migrate(url)
        async with bare(server, url) as connection:
            for token in ("a", "B", "b", "A", "ä", "Z", "_", ""):
                await connection.execute("INSERT INTO token_user VALUES ($1, 1, '', now())", token)
            sorted_here = [r["token"] for r in await connection.fetch("SELECT token FROM token_user ORDER BY token")]
        assert sorted_here != sorted(sorted_here), "the database sorts as people do"
        await export(url, tmp_path / "dump", "csv")
        await import_database(empty_url, tmp_path / "dump")
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()


async def test_every_table_is_in_a_dump_or_left_out_by_name(embedded_url: str, tmp_path: Path) -> None:
    declared = re.findall(r"^CREATE TABLE (\w+) (?!PARTITION)", SCHEMA.read_text(), re.MULTILINE)
    exported = await export(embedded_url, tmp_path / "dump")
    assert sorted({*exported.tables, *exported.left_out}) == sorted(declared)
    assert exported.left_out == LEFT_OUT
    assert LEFT_OUT.keys() == {"answer", "lease", "flavour", "migration"}, "what is left out needs a good reason"
    assert set(declared) >= BY_MONTH | PRIVATE.keys()
    files = {f.path for t in exported.tables.values() for f in t.files}
    assert files == {f"{name}.parquet" for name in exported.tables.keys() - BY_MONTH}


async def test_a_public_dump_leaves_out_whose_the_tokens_are(
    embedded_url: str, embedded_server: Server, tmp_path: Path, rng: Any
) -> None:
    async with bare(embedded_server, embedded_url) as connection:
        await fill_randomly(connection, rng, 5)
        login = "login-of-the-operator"
        await connection.execute("INSERT INTO token_user VALUES ('t', 1, $1, now())", login)
        public = await export(embedded_url, tmp_path / "dump", "csv", public=True)
        assert public.left_out.keys() == LEFT_OUT.keys() | {"token_user"}
        assert "token_user" not in public.tables
        readable = [p.read_bytes() for p in (tmp_path / "dump").rglob("*") if p.is_file() and p.suffix != ".gz"]
        assert not any(login.encode() in data for data in readable)
        assert not (tmp_path / "dump" / "token_user.csv.gz").exists()
        kept = await read_all(connection)
        await connection.execute(f"TRUNCATE {', '.join(public.tables)}")
        await import_database(embedded_url, tmp_path / "dump")
        assert await read_all(connection) == kept


async def test_numbers_go_on_behind_the_last(url: str, empty_url: str, tmp_path: Path) -> None:
    """Also behind those that were given out and taken back: a run id in a log names one run for good."""
    async with open_store(url) as store:
        ids = await store.sync_watchlist([(slug, slug, "x") for slug in "abc"], NOW)
        run = await store.start_run("nightly", date(2026, 3, 31), "1", "1.0", NOW)
    connection = await asyncpg.connect(url, statement_cache_size=0)
    async with connection.transaction():
        await connection.execute("DELETE FROM entity WHERE slug = 'c'")
    await connection.close()
    await export(url, tmp_path / "dump")
    await import_database(empty_url, tmp_path / "dump")
    async with open_store(empty_url) as store:
        more = await store.sync_watchlist([(slug, slug, "x") for slug in "abd"], NOW)
        assert more == {"a": ids["a"], "b": ids["b"], "d": ids["c"] + 1}
        assert await store.start_run("nightly", date(2026, 4, 1), "1", "1.0", NOW) == run + 1


async def test_all_files_show_one_moment(url: str, empty_url: str, tmp_path: Path, server: Server) -> None:
    """What is written while an export runs is not in it, in no table; the writer does not wait."""
    async with open_store(url) as store:
        ids = await store.sync_watchlist([("a", "A", "x")], NOW)
        found = Observations.from_rows([(ids["a"], 1, date(2026, 3, 1), 5.0, 1)])
        await store.write_observations(found, 1, NOW)
        before = await store.digest()
        async with bare(server, url) as connection:
            rows = await read_all(connection)
            written: list[asyncio.Task[Any]] = []

            def write(name: str, count: int) -> None:
                if not written:
                    later = Observations.from_rows([(ids["a"], 1, date(2026, 3, d), 7.0, 1) for d in (1, 2)])
                    written.append(asyncio.create_task(store.write_observations(later, 2, NOW)))

            manifest = await export(url, tmp_path / "dump", watch=write)
            assert (await written[0]).changed == 1
        assert await store.digest() != before
    assert {name: (d.rows, d.sha256) for name, d in manifest.digest.items()} == {
        name: (d.rows, d.sha256) for name, d in before.items()
    }
    await import_database(empty_url, tmp_path / "dump")
    async with bare(server, empty_url) as connection:
        assert await read_all(connection) == rows


async def test_an_export_changes_nothing_and_needs_no_room_for_locks(url: str, server: Server, tmp_path: Path) -> None:
    """It reads beside a writer that holds rows and a table locked as writers do."""
    async with bare(server, url) as connection, connection.transaction():
        await connection.execute("LOCK TABLE observation, run IN ROW EXCLUSIVE MODE")
        await asyncio.wait_for(export(url, tmp_path / "dump"), 60)


HELD_WHILE_WAITING = """
SELECT w.mode, (SELECT count(*) FROM pg_locks h JOIN pg_class c ON c.oid = h.relation
                WHERE h.pid = w.pid AND h.granted AND (c.relkind = 'S' OR h.mode <> 'AccessShareLock')
                  AND c.relnamespace = 'public'::regnamespace)
FROM pg_locks w WHERE NOT w.granted"""


async def test_the_second_of_two_imports_at_once_waits_and_finds_rows(
    url: str, empty_url: str, server: Server, tmp_path: Path
) -> None:
    async with open_store(url) as store:
        await store.sync_watchlist([("a", "A", "x")], NOW)
    await export(url, tmp_path / "dump")
    await migrate(empty_url)
    ends: list[Any] = []

    async def import_too() -> None:
        ends.extend(await asyncio.gather(import_database(empty_url, tmp_path / "dump"), return_exceptions=True))

    async def until_it_waits() -> None:
        async with bare(server, empty_url) as connection:
            await until_somebody_waits(connection)
            waits.extend(await connection.fetch(HELD_WHILE_WAITING))

    waits: list[Any] = []
    second = threading.Thread(target=asyncio.run, args=(import_too(),))

    def watch(name: str, rows: int) -> None:
        if not second.ident:
            # In the middle of the first one's transaction, which goes on when the other is known to wait for it.
            second.start()
            waiter = threading.Thread(target=asyncio.run, args=(until_it_waits(),))
            waiter.start()
            waiter.join()
            assert ends == []

    await import_database(empty_url, tmp_path / "dump", watch=watch)
    await asyncio.to_thread(second.join)
    # At the door, with nothing in hand that the first one needs: else either could become a deadlock's victim.
    assert [tuple(row) for row in waits] == [("ShareRowExclusiveLock", 0)]
    assert [type(end) for end in ends] == [StoreError]
    assert "is not empty" in str(ends[0])


async def test_the_months_of_a_table_are_files_of_their_own(embedded_url: str, tmp_path: Path) -> None:
    async with open_store(embedded_url) as store:
        ids = await store.sync_watchlist([(slug, slug, "x") for slug in "ab"], NOW)
        days = [date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 31), date(2026, 4, 1)]
        rows = [(ids[slug], metric, day, 0.1 + metric, 1) for slug in "ba" for metric in (2, 1) for day in days]
        await store.write_observations(Observations.from_rows(rows), 1, NOW)
    manifest = await export(embedded_url, tmp_path / "dump")
    stated = {f.path: f.rows for f in manifest.tables["observation"].files}
    assert stated == {f"table=observation/month=2026-0{m}/part-0.parquet": n for m, n in ((2, 4), (3, 8), (4, 4))}
    march = pq.read_table(
        tmp_path / "dump" / "table=observation" / "month=2026-03" / "part-0.parquet", partitioning=None
    )
    keys = list(zip(*(march[name].to_pylist() for name in ("metric_id", "entity_id", "day")), strict=True))
    assert keys == sorted(keys)
    assert {day for _, _, day in keys} == {date(2026, 3, 1), date(2026, 3, 31)}


async def test_a_dump_opens_in_pandas_and_polars(embedded_url: str, tmp_path: Path) -> None:
    async with open_store(embedded_url) as store:
        ids = await store.sync_watchlist([("a", "Ä", "agents"), ("b", "B", "rag")], NOW)
        await store.write_observations(Observations.from_rows([(ids["a"], 1, date(2026, 3, 1), 5.5, 1)]), 1, NOW)
    await export(embedded_url, tmp_path / "dump")
    await export(embedded_url, tmp_path / "csv", "csv")
    pattern = "table=observation/**/*"
    lazy = pl.scan_parquet(tmp_path / "dump" / f"{pattern}.parquet", hive_partitioning=True)
    frame = lazy.collect()
    assert frame.schema["day"] == pl.Date
    assert frame.schema["observed_at"] == pl.Datetime("us", "UTC")
    assert frame.schema["value"] == pl.Float64
    assert frame["month"].to_list() == ["2026-03"]
    assert frame["observed_at"].to_list() == [NOW]
    entity = pl.read_parquet(tmp_path / "dump" / "entity.parquet")
    assert entity.schema["category"] in (pl.Categorical, pl.Enum)
    assert entity["name"].to_list() == ["Ä", "B"]
    table = pd.read_parquet(tmp_path / "dump" / "table=observation")
    assert str(table["observed_at"].dtype) == "datetime64[us, UTC]"
    assert table["day"].tolist() == [date(2026, 3, 1)]
    assert pd.read_parquet(tmp_path / "dump" / "entity.parquet")["category"].dtype == "category"
    plain = pl.read_csv(tmp_path / "csv" / "table=observation" / "month=2026-03" / "part-0.csv.gz")
    assert plain["value"].to_list() == [5.5]


async def test_a_dump_explains_itself(embedded_url: str, tmp_path: Path) -> None:
    manifest = await export(embedded_url, tmp_path / "dump", "csv")
    text = (tmp_path / "dump" / "README.md").read_text()
    async with open_store(embedded_url) as store, store._pool.acquire() as connection:
        for table in await read_tables(connection, table_names()):
            if table.name in LEFT_OUT:
                assert f"- `{table.name}`: {LEFT_OUT[table.name]}" in text
                continue
            _, _, section = text.partition(f"### {table.name}\n")
            section = section.split("\n### ")[0]
            assert table.comment in section
            assert [c.name for c in table.columns] == re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
            for column in table.columns:
                assert (column.comment or "").replace("|", "\\|") in section
    assert "1,github_stars,stars,stock" in (tmp_path / "dump" / "metric.csv").read_text()
    assert "5,pypistats,10,pypistats.org" in (tmp_path / "dump" / "origin.csv").read_text()
    facts = json.loads((tmp_path / "dump" / "manifest.json").read_text())
    assert facts["format"] == 1
    assert facts["moment"] == manifest.moment.isoformat().replace("+00:00", "Z")
    assert facts["code_version"] == "0.1.0+test"
    assert facts["flavour"] == "native"
    assert facts["migrations"].keys() >= {"0001_tables.sql", "0002_observation.native.sql"}
