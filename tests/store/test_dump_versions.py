"""Dumps of other versions: older ones are restored at their own schema and brought up, newer ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from astrid.errors import StoreError
from astrid.store import check_version, migrate, open_store
from astrid.store.dumps import import_database, read_manifest
from astrid.store.dumps.manifest import check_level, level
from astrid.store.migrate import Migration, load_migrations

OLD = Path(__file__).with_name("dump_0011")
"""What version 0.1.0 held after a night, at migration 0011: names, gaps, revisions, scores, a batch that died."""

KNOWN = (
    Migration("0001_tables.sql", "", "a"),
    Migration("0002_large.native.sql", "native", "b"),
    Migration("0002_large.timescale.sql", "timescale", "c"),
    Migration("0003_columnar.timescale_community.sql", "timescale_community", "d"),
    Migration("0004_vacuum.native.sql", "native", "e"),
    Migration("0005_more.sql", "", "f"),
)


def test_a_level_is_what_every_kind_of_database_has() -> None:
    assert level([m.name for m in KNOWN], KNOWN) == ["0001_tables", "0002_large", "0005_more"]
    native = ["0001_tables.sql", "0002_large.native.sql", "0004_vacuum.native.sql"]
    timescale = ["0001_tables.sql", "0002_large.timescale.sql", "0003_columnar.timescale_community.sql"]
    assert level(native, KNOWN) == level(timescale, KNOWN) == ["0001_tables", "0002_large"]


def spoilt(folder: Path, **migrations: str) -> Path:
    shutil.copytree(OLD, folder)
    facts = json.loads((folder / "manifest.json").read_text())
    facts["migrations"] = migrations
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        ("1 2", ["0001_tables", "0002_large"]),
        ("1 2t 3", ["0001_tables", "0002_large"]),
        ("1 2 4 5", ["0001_tables", "0002_large", "0005_more"]),
        ("1 5", "lack 0002_large"),
        ("2 5", "lack 0001_tables"),
        ("", "lack 0001_tables"),
    ],
)
def test_steps_are_known_up_to_the_last(tmp_path: Path, names: str, steps: list[str] | str) -> None:
    by_short = {m.name[3] + ("t" if ".timescale." in m.name else ""): m for m in KNOWN}
    held = {by_short[n].name: by_short[n].sha256 for n in names.split()}
    manifest = read_manifest(spoilt(tmp_path / "dump", **held))
    if isinstance(steps, str):
        with pytest.raises(StoreError, match=f"never was.*{steps}"):
            check_level(manifest, KNOWN, tmp_path)
    else:
        assert check_level(manifest, KNOWN, tmp_path) == steps


@pytest.mark.parametrize("before", [None, "0003", "0012"])
async def test_an_old_dump_is_restored_and_brought_up(empty_url: str, before: str | None) -> None:
    """Into a database that was never migrated, or less far than the dump, or just as far."""
    if before:
        await migrate(empty_url, [m for m in load_migrations() if m.name < before])
    restored = await import_database(empty_url, OLD)
    assert not restored.digest_compared
    await check_version(empty_url)
    async with open_store(empty_url) as store:
        digests = await store.digest()
        for name in ("observation", "observation_revision", "score", "score_component", "score_revision"):
            stated = restored.manifest.digest[name]
            assert digests[name] == (stated.rows, stated.sha256), name
        assert {p.slug: p.category for p in await store.read_projects()} == dict.fromkeys(
            "ab", "agents"
        ) | dict.fromkeys("cd", "rag")
        (gap,) = await store.read_gaps("c")
        assert gap.reason == 'unavailable, "quoted"\nand on two lines'
        assert await store.sync_watchlist([("e", "E", "x")], restored.manifest.moment) == {"e": 5}


async def test_an_old_dump_does_not_go_into_a_newer_database(url: str) -> None:
    with pytest.raises(StoreError, match=r"older schema than .* already has 0012_lease.*never migrated"):
        await import_database(url, OLD)
    await check_version(url)
    async with open_store(url) as store:
        assert await store.read_projects() == []


async def test_a_dump_that_fails_to_load_leaves_its_schema_and_no_row(empty_url: str, tmp_path: Path) -> None:
    """Tried again with a good copy, it goes on from there."""
    shutil.copytree(OLD, tmp_path / "bad")
    facts = json.loads((tmp_path / "bad" / "manifest.json").read_text())
    facts["tables"]["score_revision"]["files"][0]["content_sha256"] = "0" * 64
    (tmp_path / "bad" / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match="read back"):
        await import_database(empty_url, tmp_path / "bad")
    with pytest.raises(StoreError, match="run `astrid migrate`"):
        await check_version(empty_url)
    await import_database(empty_url, OLD)
    async with open_store(empty_url) as store:
        assert len(await store.read_projects()) == 4
