"""TimescaleDB's two licences: what only one has, a change from one to the other, and writes into compressed chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from astrid.errors import StoreError
from astrid.models import Observations
from astrid.store import Store, check_version, migrate, open_embedded, open_store, settle
from astrid.store.migrate import load_migrations
from tests.store.conftest import DEBIAN, FLAVOURS, NOW, PRELOAD, Server, _timescale_absent

FIRST = date(2019, 1, 7)
COMMUNITY = tuple(m.name for m in load_migrations() if m.suffix == "timescale_community")
JOB = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'"
CHUNKS = (
    "SELECT count(*) FROM timescaledb_information.chunks "
    "WHERE hypertable_name = 'observation_revision' AND is_compressed"
)
needs_timescale = pytest.mark.skipif(bool(_timescale_absent()), reason=_timescale_absent() or "it is there")
on_community = pytest.mark.parametrize(
    "server",
    [f for f in FLAVOURS if f.name == "timescale-timescale" and not f.absent],
    ids=lambda f: f.name,
    indirect=True,
)


@contextmanager
def under(licence: str, folder: Path) -> Iterator[str]:
    """Give the address of one database, served under this licence."""
    assert DEBIAN is not None
    settings = {**PRELOAD, "timescaledb.license": licence, "fsync": "off"}
    with open_embedded(folder, install=DEBIAN.parent.parent, settings=settings) as server:
        yield server.url()


def values(ids: dict[str, int], value: float, days: int = 800) -> Observations:
    rows = [(i, 1, FIRST + timedelta(days=n), value + n, 1) for i in ids.values() for n in range(days)]
    return Observations.from_rows(rows)


async def fill(url: str) -> dict[str, int]:
    """Write values of two years long ago and revise each once."""
    async with open_store(url) as store:
        ids = await store.sync_watchlist([("a", "A", "x"), ("b", "B", "x")], NOW)
        await store.write_observations(values(ids, 1), 1, NOW)
        assert (await store.write_observations(values(ids, 2), 2, NOW + timedelta(days=1))).changed == 1600
    return ids


async def compress(url: str) -> int:
    """Run the database's own job, which the tests' servers do not run by themselves; return how many chunks it did."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CALL run_job({await connection.fetchval(JOB)})")
        return int(await connection.fetchval(CHUNKS))
    finally:
        await connection.close()


@needs_timescale
def test_from_apache_to_community_and_back(scratch: Path) -> None:
    """What was pending is done by the next migration; on the way back nothing is read that would be a part of it."""
    with under("apache", scratch) as url:
        done = asyncio.run(migrate(url))
        assert done.pending == COMMUNITY
        ids = asyncio.run(fill(url))
        before = asyncio.run(digest(url))
        asyncio.run(check_version(url))
    with under("timescale", scratch) as url:
        asyncio.run(settle(url))
        assert asyncio.run(migrate(url)).applied == COMMUNITY
        assert asyncio.run(compress(url)) >= 2
        assert asyncio.run(digest(url)) == before
        assert asyncio.run(coverage(url)) == 1600, "values from before the licence are counted too"
    with under("apache", scratch) as url:
        for call in (check_version, settle, migrate):
            with pytest.raises(
                StoreError, match=r"community licence.*'apache' now.*timescaledb\.license = 'timescale'"
            ):
                asyncio.run(call(url))
        assert asyncio.run(revisions(url)) < 1600, "why it is refused: what is compressed is passed over in silence"
    with under("timescale", scratch) as url:
        asyncio.run(check_version(url))
        assert asyncio.run(digest(url)) == before
        assert ids


async def digest(url: str) -> Any:
    async with open_store(url) as store:
        return await store.digest()


async def coverage(url: str) -> int:
    async with open_store(url) as store:
        await store.refresh_coverage()
        return sum(row.observations for row in await store.read_coverage(FIRST, date(2026, 1, 1)))


async def revisions(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM observation_revision"))
    finally:
        await connection.close()


@on_community
async def test_revisions_go_into_compressed_chunks(url: str, server: Server, connection: Any) -> None:
    """By both ways: COPY of what is new, and where a writer repeats itself, ON CONFLICT DO NOTHING."""
    ids = await fill(url)
    assert await compress(url) >= 2
    async with open_store(url) as store:
        assert (await store.write_observations(values(ids, 3), 3, NOW + timedelta(days=2))).changed == 1600
        assert await connection.fetchval("SELECT count(*) FROM observation_revision") == 3200
        # One in a hundred days: too sparse for a comparison in memory, so it takes the way of SQL.
        sparse = Observations.from_rows([(i, 1, FIRST + timedelta(days=n), 9.0, 1)
                                         for i in ids.values() for n in range(0, 800, 100)])  # fmt: skip
        assert (await store.write_observations(sparse, 4, NOW + timedelta(days=3))).changed == 16
        await keep_again(connection)
        assert await connection.fetchval("SELECT count(*) FROM observation_revision") == 3216
        assert await compress(url) >= 2, "and what came is compressed the next time"
        await same_after_decompression(store, connection)


async def keep_again(connection: Any) -> None:
    """What is kept already is kept once, compressed or not."""
    await connection.execute("CREATE TEMP TABLE again AS SELECT * FROM observation_revision")
    await connection.execute("INSERT INTO observation_revision SELECT * FROM again ON CONFLICT DO NOTHING")


async def same_after_decompression(store: Store, connection: Any) -> None:
    facts = await store.digest()
    matrix = await store.read_matrix(1, np.array([1, 2], np.int32), FIRST, FIRST + timedelta(days=799))
    for row in await connection.fetch("SELECT show_chunks('observation_revision')::text AS name"):
        await connection.execute(f"SELECT decompress_chunk('{row['name']}', true)")
    assert await connection.fetchval(CHUNKS) == 0
    assert await store.digest() == facts
    again = await store.read_matrix(1, np.array([1, 2], np.int32), FIRST, FIRST + timedelta(days=799))
    np.testing.assert_array_equal(again, matrix)


async def test_nothing_that_was_promised_is_ever_dropped(connection: Any, server: Server) -> None:
    """No policy deletes chunks: values and revisions stay for good."""
    if server.flavour.schema != "timescale":
        pytest.skip("plain PostgreSQL has no jobs")
    jobs = {row["proc_name"] for row in await connection.fetch(
        "SELECT proc_name FROM timescaledb_information.jobs WHERE hypertable_schema IS NOT NULL")}  # fmt: skip
    community = await connection.fetchval("SELECT current_setting('timescaledb.license')") == "timescale"
    assert jobs == ({"policy_compression", "policy_refresh_continuous_aggregate"} if community else set())


async def test_a_backfill_since_2008_makes_few_chunks(store: Store, ids: dict[str, int], connection: Any) -> None:
    """Whatever the partitions are called, a series of all years is planned over a few dozen of them."""
    days = (date(2026, 4, 1) - date(2008, 1, 1)).days
    rows = [(ids["a"], 1, date(2008, 1, 1) + timedelta(days=n), float(n), 1) for n in range(days)]
    assert (await store.write_observations(Observations.from_rows(rows), 1, NOW)).new == days
    parts = await connection.fetchval(
        "SELECT count(DISTINCT tableoid) FROM observation WHERE metric_id = 1 AND entity_id = $1", ids["a"]
    )
    assert 18 <= parts <= 50
