"""A database ahead of the code or behind it: every command refuses with a sentence; `astrid migrate` alone mends it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer

from astrid.cli import app
from astrid.models import Observations
from astrid.store import open_store
from tests.store.conftest import NOW

ROOT = Path(__file__).resolve().parents[2]
REFUSING = ("backfill", "coverage", "digest", "export", "nightly", "plan", "produce", "score", "serve", "trace", "work")
OTHERS = {
    "evaluate": "reads files",
    "leadlag": "reads files",
    "demo": "has a database of its own",
    "import": "brings its own schema",
    "migrate": "is the remedy",
    "simulate": "has no database",
    "version": "has no database",
    "watchlist check": "has no database",
    "dlq list": "has no database",
    "dlq show": "has no database",
    "dlq requeue": "has no database",
    "dlq purge": "has no database",
}


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the name of every command of the command line."""
    if hasattr(group, "commands"):
        for name, command in group.commands.items():
            yield from commands(command, (*before, name))
    else:
        yield " ".join(before)


async def run(url: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run a command on this database; the broker's address leads nowhere."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "astrid", *arguments, cwd=ROOT, stdout=-1, stderr=-1,
        env={**os.environ, "ASTRID_DATABASE_URL": url, "ASTRID_BROKER_URL": "amqp://127.0.0.1:1/", "COLUMNS": "400"},
    )  # fmt: skip
    said, complained = await asyncio.wait_for(process.communicate(), 100)
    return process.returncode, said.decode(), complained.decode()


def test_every_command_is_one_that_refuses_or_needs_not() -> None:
    found = set(commands(typer.main.get_command(app)))
    assert found - set(OTHERS) <= set(REFUSING), "a new command: say here what it does with another version's database"
    assert set(REFUSING) <= found


@pytest.mark.timeout(300)
async def test_every_command_refuses(embedded_url: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(embedded_url)
    gone = await connection.fetchrow("DELETE FROM migration WHERE name LIKE '0003%' RETURNING name, sha256")
    assert gone is not None
    arguments = {
        "export": [str(tmp_path / "x")],
        "trace": ["a", "github_stars", "2026-03-31"],
        "backfill": ["--from", "2026-03-01"],
    }
    for name in REFUSING:
        code, said, complained = await run(embedded_url, name, *arguments.get(name, ()))
        assert code == 1, (name, said, complained)
        assert "is behind this version, it lacks 0003_observation_comments.sql: run `astrid migrate`" in complained, (
            name
        )
    await connection.execute("INSERT INTO migration (name, sha256) VALUES ('9001_future.sql', 'x')")
    for name in ("digest", "migrate", "work"):
        code, said, complained = await run(embedded_url, name)
        assert code == 1, (name, said, complained)
        assert "is ahead of this version of Astrid, it already has 9001_future.sql" in complained, name
    await connection.execute("DELETE FROM migration WHERE name LIKE '9001%'")
    code, said, _ = await run(embedded_url, "migrate")
    assert (code, said.splitlines()[0]) == (0, "applied 0003_observation_comments.sql")
    assert (await run(embedded_url, "digest"))[0] == 0
    await connection.close()


async def test_coverage_is_printed(embedded_url: str) -> None:
    async with open_store(embedded_url) as store:
        ids = await store.sync_watchlist([("a", "A", "x")], NOW)
        rows = [(ids["a"], 1, date(2026, 3, day), 1.0, 10 if day < 3 else 1) for day in range(1, 6)]
        await store.write_observations(Observations.from_rows(rows), 1, NOW)
    code, said, complained = await run(embedded_url, "coverage", "--json")
    assert code == 0, complained
    first, second = json.loads(said)
    assert first == {"metric": "github_stars", "origin": "github_graphql", "first_day": "2026-03-03",
                     "last_day": "2026-03-05", "days": 3, "values": 3}  # fmt: skip
    assert (second["origin"], second["values"]) == ("stars_daily", 2)
    code, said, _ = await run(embedded_url, "coverage")
    assert said.splitlines()[1].split() == ["github_stars", "github_graphql", "2026-03-03", "2026-03-05", "3", "3"]
