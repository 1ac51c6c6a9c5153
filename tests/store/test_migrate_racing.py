"""Migrations beside others: ten at once, killed in the middle, behind an open transaction, and during a night."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from astrid.errors import StoreError
from astrid.models import Batch, Done, Entity, Gap, Observations
from astrid.store import Store, check_version, migrate, open_store
from astrid.store.migrate import Migration, load_migrations, settle
from tests.conftest import SEED
from tests.store.conftest import FLAVOURS, NOW

ROOT = Path(__file__).resolve().parents[2]
ONE = """
import asyncio, os, signal, sys
import asyncpg
from astrid.store.migrate import migrate

last, said = int(sys.argv[2]), 0
execute = asyncpg.Connection.execute

async def count(self, *given, **named):
    global said
    said += 1
    if said == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return await execute(self, *given, **named)

asyncpg.Connection.execute = count
print(len(asyncio.run(migrate(sys.argv[1])).applied))
"""
own_servers = pytest.mark.parametrize(
    "server",
    [f for f in FLAVOURS if f.name in ("embedded", "timescale-timescale", "pgbouncer") and not f.absent],
    ids=lambda f: f.name,
    indirect=True,
)


async def start(url: str, killed_at: int = 0) -> asyncio.subprocess.Process:
    """Start a process that migrates and, in place of its ``killed_at``-th statement, is killed."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", ONE, url, str(killed_at), cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@own_servers
async def test_ten_processes_at_once(empty_url: str) -> None:
    processes = [await start(empty_url) for _ in range(10)]
    said = [(await process.communicate())[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 10
    assert sorted(int(text) > 0 for text in said) == [False] * 9 + [True]
    await check_version(empty_url)


@own_servers
async def test_killed_between_statements_and_begun_again(empty_url: str) -> None:
    """Every file is two statements at least, so each of these moments lies inside."""
    statements = 2 * sum(m.suffix == "" for m in load_migrations())
    moments = random.Random(SEED).sample(range(3, statements), 3)
    for moment in [1, *moments]:
        process = await start(empty_url, moment)
        await process.communicate()
        assert process.returncode == -signal.SIGKILL, moment
        with pytest.raises(StoreError, match="never migrated"):
            await check_version(empty_url)
    assert (await migrate(empty_url)).applied
    await check_version(empty_url)
    async with open_store(empty_url) as store:
        assert await store.sync_watchlist([("a", "A", "x")], NOW)


def with_another(text: str) -> tuple[Migration, ...]:
    return (*load_migrations(), Migration("9999_another.sql", "", text))


async def has_column(connection: Any) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'gap'::regclass AND attname = 'more')"
    return bool(await connection.fetchval(query))


async def test_behind_an_open_transaction(url: str, direct_url: str, connection: Any) -> None:
    """It says who is in the way, holds nobody up meanwhile, and comes through when the way is free."""
    wanted = with_another("CREATE TABLE half (a int); ALTER TABLE gap ADD COLUMN more int")
    other = await asyncpg.connect(direct_url, server_settings={"application_name": "analyst"})
    held = other.transaction()
    await held.start()
    await other.fetchval("SELECT count(*) FROM gap")
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        await migrate(url, wanted, lock_wait_s=0.2, patience_s=0.8)
    assert 0.8 <= time.monotonic() - began < 30
    assert "was not migrated, nothing was changed" in str(caught.value)
    assert f"process {other.get_server_pid()} of 'analyst', idle in transaction" in str(caught.value)
    assert await connection.fetchval("SELECT to_regclass('half')") is None

    waiting = asyncio.create_task(migrate(url, wanted, lock_wait_s=0.3, patience_s=60))
    for _ in range(20):
        # Between two tries, or within one short wait, everybody else gets through.
        await asyncio.wait_for(connection.fetchval("SELECT count(*) FROM gap"), 30)
        await asyncio.sleep(0.05)
    assert not waiting.done()
    await held.rollback()
    assert (await waiting).applied == ("9999_another.sql",)
    assert await has_column(connection)
    await other.close()


async def test_another_that_does_not_end(url: str, connection: Any) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(4706235481230001)")
        with pytest.raises(StoreError, match=r"is being migrated by another process for more than 0 s"):
            await migrate(url, with_another("SELECT 1"), turn_s=0.3)
        assert (await migrate(url)).applied == (), "where nothing is to be done, no lock is taken"
    assert (await migrate(url, with_another("SELECT 1"))).applied


async def test_during_a_night(url: str, store: Store, ids: dict[str, int], connection: Any) -> None:
    """Writers that hold rows and a migration that wants tables: both come through, and nothing is lost."""
    day = date(2026, 3, 31)
    run_id = await store.start_run("nightly", day, "c", "m", NOW)
    stop = asyncio.Event()

    async def write(worker: int) -> int:
        done = 0
        while not stop.is_set() and done < 400:
            start = date(2010 + 2 * worker, 1, 1) + timedelta(days=done)
            batch = Batch("github", "counts", day, start, start, (Entity(ids["a"], "a", "a"),), run_id=run_id)
            missing = Gap(ids["b"], 1, date(2026, 1, 1) + timedelta(days=done % 28), "none", True)
            found = Observations.from_rows([(ids["a"], 1, start, 1.0, 1)], [missing])
            await store.commit_batch(batch, Done(found, 1), NOW)
            done += 1
            await asyncio.sleep(0.02)  # a crawl waits for its upstream between two batches
        return done

    writers = [asyncio.create_task(write(n)) for n in range(3)]
    await asyncio.sleep(0.2)
    # In the order that meets a batch's end from behind.
    text = "ALTER TABLE {} ADD CHECK (run_id > 0)"
    tables = ("gap", "observation", "batch")
    done = await migrate(url, with_another("; ".join(text.format(name) for name in tables)))
    stop.set()
    written = await asyncio.gather(*writers)
    assert done.applied == ("9999_another.sql",)
    assert await connection.fetchval("SELECT count(*) FROM observation") == sum(written)
    assert await connection.fetchval("SELECT count(*) FROM batch WHERE state = 'done'") == sum(written)
    assert min(written) > 0


async def test_commands_set_up_a_fresh_database_and_refuse_one_that_does_not_fit(
    empty_url: str, direct_url: str, connection: Any, url: str
) -> None:
    await settle(empty_url)
    await check_version(empty_url)
    await connection.execute("DELETE FROM migration WHERE name = '0003_observation_comments.sql'")
    with pytest.raises(StoreError, match=r"behind.*0003_observation_comments\.sql.*astrid migrate"):
        await settle(url)
    await connection.execute("INSERT INTO migration (name, sha256) VALUES ('9001_future.sql', 'x')")
    with pytest.raises(StoreError, match=r"ahead.*9001_future\.sql"):
        await settle(url)
