"""Where an export may go, and what becomes of one that does not come to its end: nothing of it stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from astrid.errors import ConfigError, StoreError
from astrid.store import migrate
from astrid.store.dumps import export_database
from astrid.store.migrate import load_migrations
from tests.store.dump_world import export, fill, listing, until_somebody_waits

# The folder of an export


@pytest.mark.parametrize("kind", ["filled", "file", "link", "mount", "below a file"])
async def test_an_export_takes_no_folder_that_is_something_already(
    embedded_url: str, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "dump"
    match kind:
        case "filled":
            folder.mkdir()
            (folder / "mine").write_text("kept")
        case "file" | "below a file":
            folder.write_text("kept")
            folder = folder / "inner" if kind == "below a file" else folder
        case "link":
            (tmp_path / "other").mkdir()
            folder.symlink_to(tmp_path / "other")
        case "mount":
            folder = Path("/proc")
    before = listing(tmp_path)
    with pytest.raises(ConfigError, match=r"is not empty|is no folder|is a mount point|cannot be used"):
        await export(embedded_url, folder)
    assert listing(tmp_path) == before


async def test_an_empty_folder_is_filled_and_a_missing_one_made(embedded_url: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "not/there/yet"):
        await export(embedded_url, tmp_path / name)
        assert {"manifest.json", "README.md", "entity.csv.gz"} <= set(listing(tmp_path / name))
    assert {name.split("/")[0] for name in listing(tmp_path)} == {"not", "there"}
    (tmp_path / "made").mkdir()
    assert (tmp_path / "there").stat().st_mode == (tmp_path / "made").stat().st_mode


async def test_somebody_fills_the_folder_meanwhile(embedded_url: str, tmp_path: Path) -> None:
    def interfere(name: str, rows: int) -> None:
        (tmp_path / "dump").mkdir(exist_ok=True)
        (tmp_path / "dump" / "mine").write_text("kept")

    with pytest.raises(StoreError, match="not empty"):
        await export_database(embedded_url, tmp_path / "dump", code_version="0.1.0", watch=interfere)
    assert listing(tmp_path) == ["dump", "dump/mine"]


async def test_an_export_that_is_cancelled_leaves_nothing(embedded_url: str, tmp_path: Path) -> None:
    await fill(embedded_url)
    connection = await asyncpg.connect(embedded_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
            done: list[str] = []
            job = asyncio.create_task(
                export_database(
                    embedded_url, tmp_path / "dump", code_version="1", watch=lambda name, rows: done.append(name)
                )
            )
            await until_somebody_waits(connection)
            assert "observation" in done
            assert {name.partition("-")[0] for name in listing(tmp_path)} == {"dump.partial"}
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
    finally:
        await connection.close()
    assert listing(tmp_path) == []


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
async def test_a_full_disk_ends_an_export_and_nothing_stays(
    embedded_url: str, small_disk: Path, file_format: Any
) -> None:
    connection = await asyncpg.connect(embedded_url)
    await connection.execute(
        "INSERT INTO observation SELECT 1, i, '2026-03-01', random(), 1, now(), i FROM generate_series(1, 60000) i"
    )
    await connection.close()
    with pytest.raises(StoreError, match=r"dump\.partial-.*No space left.*nothing of this export is kept"):
        await export(embedded_url, small_disk / "dump", file_format)
    assert listing(small_disk) == []


async def test_a_database_that_is_behind_is_not_exported(fresh_url: str, tmp_path: Path) -> None:
    await migrate(fresh_url, [m for m in load_migrations() if m.name < "0011"])
    with pytest.raises(StoreError, match="run `astrid migrate`"):
        await export(fresh_url, tmp_path / "dump")
    assert listing(tmp_path) == []
