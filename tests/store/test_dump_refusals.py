"""What is not whole, not ours or not empty is refused with a sentence, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from astrid.errors import StoreError
from astrid.store import migrate, open_store
from astrid.store.dumps import import_database
from tests.store.conftest import Server
from tests.store.dump_world import export, insert_many, is_untouched, make_dump
from tests.store.random_rows import read_all

# What an import takes


def spoil_file(change: Callable[[bytes], bytes], name: str = "entity.csv.gz") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return spoil


def spoil_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        facts = json.loads((folder / "manifest.json").read_text())
        change(facts)
        (folder / "manifest.json").write_text(json.dumps(facts))

    return spoil


def forge(change: Callable[[bytes], bytes], rows: int = 0) -> Callable[[Path], None]:
    """Change the rows of entities, and the manifest with them, as only somebody who wants to could."""

    def spoil(folder: Path) -> None:
        path = folder / "entity.csv.gz"
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
        facts = json.loads((folder / "manifest.json").read_text())
        table = facts["tables"]["entity"]
        table["files"][0] |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        table["files"][0]["rows"] += rows
        table["rows"] += rows
        (folder / "manifest.json").write_text(json.dumps(facts))

    return spoil


BAD = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json.*interrupted"),
    "no JSON": (lambda f: (f / "manifest.json").write_text('{"format": 1,'), "damaged.*no JSON"),
    "no object": (lambda f: (f / "manifest.json").write_text("[1]"), "states no format"),
    "newer format": (spoil_manifest(lambda m: m.update(format=2)), r"format 2, .* knows 1.*0\.1\.0"),
    "no tables": (spoil_manifest(lambda m: m.pop("tables")), "damaged at tables"),
    "a path outside": (
        spoil_manifest(lambda m: m["tables"]["run"]["files"][0].update(path="../run.csv.gz")),
        "damaged at tables.run.files.0.path",
    ),
    "sums that do not add up": (spoil_manifest(lambda m: m["tables"]["gap"].update(rows=7)), "table gap.*2 rows.*7"),
    "a table that nobody knows": (
        spoil_manifest(lambda m: m["tables"].update(wish=m["tables"]["run"])),
        "does not know: wish",
    ),
    "a table less": (spoil_manifest(lambda m: m["tables"].pop("run")), "what becomes of run"),
    "other columns": (spoil_manifest(lambda m: m["tables"]["gap"]["columns"].reverse()), "table gap.*other columns"),
    "an unknown migration": (
        spoil_manifest(lambda m: m["migrations"].update({"0999_future.sql": "0" * 64})),
        r"newer schema, with 0999_future\.sql.*0\.1\.0",
    ),
    "another text of a migration": (
        spoil_manifest(lambda m: m["migrations"].update({"0005_answer.sql": "0" * 64})),
        "0005_answer.sql has another text",
    ),
    "a migration less": (
        spoil_manifest(lambda m: m["migrations"].pop("0005_answer.sql")),
        "never was.*lack 0005_answer",
    ),
    "another digest": (
        spoil_manifest(lambda m: m["digest"]["gap"].update(sha256="0" * 64)),
        "digest of gap is another",
    ),
    "a digest less": (spoil_manifest(lambda m: m["digest"].pop("gap")), "digest of gap is another"),
    "a file cut short": (spoil_file(lambda data: data[:-1]), r"entity.csv.gz has \d+ bytes instead of"),
    "a file with more": (spoil_file(lambda data: data + b"\n"), r"entity.csv.gz has \d+ bytes instead of"),
    "an empty file": (spoil_file(lambda data: b""), r"entity.csv.gz has 0 bytes instead of"),
    "a bit turned over": (
        spoil_file(lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:]),
        "entity.csv.gz was altered",
    ),
    "a missing file": (lambda f: (f / "entity.csv.gz").unlink(), "entity.csv.gz is missing"),
    "a missing month": (lambda f: shutil.rmtree(f / "table=observation" / "month=2026-03"), "part-0.csv.gz is missing"),
    "a folder for a file": (
        lambda f: [(f / "entity.csv.gz").unlink(), (f / "entity.csv.gz").mkdir()],
        "entity.csv.gz cannot be read",
    ),
    "a forged value": (forge(lambda text: text.replace(b"A", b"B")), "read back.*differ"),
    "a forged number of rows": (forge(lambda text: text, rows=1), "holds 3 rows, the manifest says 4"),
    "a forged header": (forge(lambda text: text.replace(b"slug", b"snail")), "other columns than table entity"),
    "a forged row less": (
        forge(lambda text: b"".join(text.splitlines(True)[:-1]), rows=-1),
        "read back.*differ",
    ),
    "a forged type": (forge(lambda text: text.replace(b"\n1,", b"\none,")), "refused.*one"),
}


@pytest.fixture(scope="module")
def dump(embedded_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a good dump in CSV, made once."""
    return make_dump(embedded_server, tmp_path_factory.mktemp("made"), "csv")


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_dump_is_refused_and_nothing_is_restored(
    dump: Path, embedded_url: str, tmp_path: Path, what: str
) -> None:
    shutil.copytree(dump, tmp_path / "dump")
    spoil, words = BAD[what]
    spoil(tmp_path / "dump")
    with pytest.raises(StoreError, match=f"(?s){words}") as refusal:
        await import_database(embedded_url, tmp_path / "dump")
    assert "\n" not in str(refusal.value)
    assert await is_untouched(embedded_url)


@pytest.mark.parametrize("change", [lambda d: d[: len(d) // 2], lambda d: d.replace(b"PAR1", b"PAR2")])
async def test_a_damaged_parquet_file_is_refused(
    embedded_server: Server, embedded_url: str, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """Also where the manifest was made to agree."""
    folder = await asyncio.to_thread(make_dump, embedded_server, tmp_path, "parquet")
    spoil_file(change, "entity.parquet")(folder)
    with pytest.raises(StoreError, match=r"entity\.parquet (has|was altered)"):
        await import_database(embedded_url, folder)
    path = folder / "entity.parquet"
    stated = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    spoil_manifest(lambda m: m["tables"]["entity"]["files"][0].update(stated))(folder)
    with pytest.raises(StoreError, match=r"entity\.parquet is damaged"):
        await import_database(embedded_url, folder)
    assert await is_untouched(embedded_url)


@pytest.mark.parametrize("name", ["nothing", "a file"])
async def test_what_is_no_folder_is_no_dump(embedded_url: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(StoreError, match="is no folder: name the folder"):
        await import_database(embedded_url, tmp_path / name)


async def test_what_an_interrupted_export_left_is_no_dump(dump: Path, embedded_url: str, tmp_path: Path) -> None:
    shutil.copytree(dump, tmp_path / "dump.partial-0011")
    (tmp_path / "dump.partial-0011" / "manifest.json").unlink()
    with pytest.raises(StoreError, match="interrupted"):
        await import_database(embedded_url, tmp_path / "dump.partial-0011")


ROWS = {
    "run": "INSERT INTO run (kind, day, state, code_version, method_version, started_at) "
    "VALUES ('nightly', '2026-03-31', 'running', '', '', now())",
    "entity": "INSERT INTO entity (slug, name, category, first_tracked) VALUES ('a', 'A', 'x', now())",
    "metric_note": "INSERT INTO metric_note VALUES (1, '2026-01-01', NULL, 'n')",
    "observation": "INSERT INTO observation VALUES (1, 1, '2026-01-01', 1, 1, now(), 1)",
}


@pytest.mark.parametrize("table", ROWS)
async def test_a_database_with_rows_is_left_as_it_is(dump: Path, embedded_url: str, table: str) -> None:
    connection = await asyncpg.connect(embedded_url)
    try:
        await connection.execute(ROWS[table])
        before = await read_all(connection)
        with pytest.raises(StoreError, match=f"is not empty, it has rows in {table}: import into a new database"):
            await import_database(embedded_url, dump)
        assert await read_all(connection) == before
    finally:
        await connection.close()


async def test_an_import_whose_connection_is_cut_goes_back_whole(
    url: str, empty_url: str, server: Server, tmp_path: Path
) -> None:
    await insert_many(url, 100)
    await export(url, tmp_path / "dump")
    await migrate(empty_url)
    database = urlsplit(empty_url).path.lstrip("/")
    loaded: list[str] = []

    async def cut() -> None:
        admin = await asyncpg.connect(url, statement_cache_size=0)
        async with admin.transaction():
            await admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        await admin.close()

    def watch(table: str, rows: int) -> None:
        loaded.append(table)
        if table == "observation":
            # Told in the middle of the transaction; the import goes on when this is over.
            thread = threading.Thread(target=asyncio.run, args=(cut(),))
            thread.start()
            thread.join()

    with pytest.raises(StoreError, match=r"closed the connection|could not be used"):
        await import_database(empty_url, tmp_path / "dump", watch=watch)
    assert "observation" in loaded
    assert await is_untouched(server.direct(database))
    await import_database(empty_url, tmp_path / "dump")
    async with open_store(empty_url) as store:
        assert (await store.digest())["observation_revision"].rows == 0


def make_space(disk: Path, server_pid: int) -> Path:
    """Make the disk as large as an empty database needs, and a folder in it that is the server's."""
    subprocess.run(["mount", "-o", "remount,size=24m", str(disk)], check=True)
    disk.chmod(0o755)
    space = disk / "space"
    space.mkdir()
    owner = Path(f"/proc/{server_pid}").stat()
    os.chown(space, owner.st_uid, owner.st_gid)
    return space


async def test_an_import_that_fills_the_disk_goes_back_whole(
    embedded_server: Server, embedded_url: str, small_disk: Path, tmp_path: Path
) -> None:
    """The database lies on a disk that takes the schema, and not the rows."""
    await insert_many(embedded_url, 400_000)
    await export(embedded_url, tmp_path / "dump", "parquet")
    admin = await asyncpg.connect(embedded_server.admin_url)
    try:
        space = make_space(small_disk, await admin.fetchval("SELECT pg_backend_pid()"))
        await admin.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        await admin.execute("CREATE DATABASE astrid_small TABLESPACE small")
        target = embedded_server.url("astrid_small")
        await migrate(target)
        with pytest.raises(StoreError, match="no disk space left"):
            await import_database(target, tmp_path / "dump")
        assert await is_untouched(target)
    finally:
        await admin.execute("DROP DATABASE IF EXISTS astrid_small")
        await admin.execute("DROP TABLESPACE IF EXISTS small")
        await admin.close()
