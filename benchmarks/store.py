"""How fast the store writes and reads, held against what PostgreSQL's own COPY and the driver's own fetch take.

``python -m benchmarks.store [--url URL] [--rows N] [--standing N] [--samples N] [--orders entity day shuffled]`` prints
the results as JSON; without a URL it opens an embedded server in a temporary folder. fsync and synchronous_commit stay
on for both sides, every table is logged, and each side begins right after a checkpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import numpy as np
import orjson

from astrid.models import Batch, Done, Entity, Observations
from astrid.store import Store, migrate, open_embedded, open_store
from astrid.store.copy import encode
from astrid.store.observations import OBSERVATION
from astrid.store.pool import Connection
from benchmarks.turns import open_line

Result = dict[str, Any]

_FIRST: Final = date(2024, 1, 1)
_NOW: Final = datetime(2026, 4, 1, 5, tzinfo=UTC)
_METRIC, _ORIGIN = 1, 1
_WRITE_TARGET, _EXECUTEMANY_TARGET, _FETCH_TARGET, _COPY_TARGET = 0.8, 4.0, 6.0, 0.9
_EXECUTEMANY_ROWS: Final = 20_000
_UPSERT: Final = (
    "INSERT INTO observation VALUES ($1, $2, $3, $4, $5, $6, $7) "
    "ON CONFLICT (metric_id, entity_id, day) DO UPDATE SET value = excluded.value"
)
ORDERS: Final = {"entity": "", "day": "_by_day", "shuffled": "_shuffled"}
"""Orders of rows and what they add to a result's name: a backfill brings series after series, nights day after day."""


@dataclass
class _Side:
    """What one way of writing took: seconds and bytes of WAL per sample."""

    seconds: list[float] = field(default_factory=list)
    wal: list[int] = field(default_factory=list)

    def rate(self, rows: int) -> float:
        return rows / statistics.median(self.seconds)

    def wal_per_row(self, rows: int) -> float:
        return statistics.median(self.wal) / rows


def measure_write(
    url: str,
    *,
    rows: int = 1_000_000,
    standing: int = 5_000_000,
    samples: int = 5,
    entities: int = 10_000,
    orders: Sequence[str] = ("entity", "day"),
) -> list[Result]:
    """Write ``rows`` rows into a table of at least ``standing`` rows: all new, all equal, 5 % changed.

    The peer is a raw binary COPY of the same rows, encoded beforehand, in the same order, into an empty plain table
    with the same key. ``ours`` and ``peer`` are rows per second, medians of ``samples``; the sides take turns, and so
    does who begins.
    """
    return asyncio.run(_measure_write(url, rows, standing, samples, entities, orders))


def measure_night(url: str, *, batches: int = 200, entities: int = 100, metrics: int = 4) -> list[Result]:
    """Commit a night's small batches one after the other: one day of some entities and metrics, and the batch's end.

    The peer writes the same in one transaction per batch as the driver's manual shows it: ``executemany`` upserts and
    an update of the batch's row, both kept prepared. ``ours`` and ``peer`` are batches per second.
    """
    return asyncio.run(_measure_night(url, batches, entities, metrics))


def measure_read(url: str, *, entities: int = 5_000, days: int = 365, samples: int = 5) -> list[Result]:
    """Read a matrix of ``entities`` series of ``days`` days; the peer fetches the rows and fills the same array.

    The bound is the lower one of 6 times the peer and 0.9 times a bare COPY of the same rows out of the database.
    """
    return asyncio.run(_measure_read(url, entities, days, samples))


async def _measure_write(
    url: str, rows: int, standing: int, samples: int, entities: int, orders: Sequence[str]
) -> list[Result]:
    days, there = max(1, rows // entities), max(1, -(-standing // entities))
    rng = np.random.default_rng(1)
    results = []
    async with _fresh_store(url, entities) as (store, connection, _):
        await _fill(store, entities, there, rng)
        upserts = _EXECUTEMANY_ROWS / statistics.median(
            [await _time_executemany(connection, entities, there) for _ in range(samples)]
        )
        size = await _row_sizes(connection, "observation")
        for order in orders:
            sides = {case: (_Side(), _Side()) for case in ("new", "equal", "changed")}
            # New rows differ from sample to sample, so each writes its own days; the other cases rewrite them.
            for sample in range(samples):
                new = _ordered(_block(entities, there, days, rng), order, rng)
                there += days
                changed = _with_changes(new, 0.05, rng)
                for case, found in (("new", new), ("equal", new), ("changed", changed)):
                    ours, peer = sides[case]
                    for side in (ours, peer) if sample % 2 else (peer, ours):
                        if side is peer:
                            peer_size = await _copy_into_empty(connection, found, side)
                        else:
                            await _write(connection, store, found, case, side)
            for case, (ours, peer) in sides.items():
                note = f"{rows} rows, {order} by {order}" if order != "shuffled" else f"{rows} rows, shuffled"
                result = _compare(f"store.write.{case}{ORDERS[order]}", ours, peer, rows, upserts, note)
                result["bytes_per_row"] = {"ours": size, "peer": peer_size}
                results.append(result)
    return results


def _compare(name: str, ours: _Side, peer: _Side, rows: int, upserts: float, note: str) -> Result:
    ours_rate, peer_rate = ours.rate(rows), peer.rate(rows)
    return {
        "name": name,
        "ours": round(ours_rate),
        "peer": round(peer_rate),
        "unit": "rows/s",
        "ratio": round(ours_rate / peer_rate, 3),
        "target": _WRITE_TARGET,
        "met": ours_rate >= _WRITE_TARGET * peer_rate and ours_rate >= _EXECUTEMANY_TARGET * upserts,
        "note": f"{note}; peer: raw binary COPY into an empty table with the same key; {ours_rate / upserts:.0f} x "
        f"executemany upserts ({upserts:.0f} rows/s, wanted 4 x); WAL {ours.wal_per_row(rows):.0f} bytes a row, "
        f"the peer's {peer.wal_per_row(rows):.0f}",
        "samples": [[round(rows / a), round(rows / b)] for a, b in zip(ours.seconds, peer.seconds, strict=True)],
    }


async def _measure_night(url: str, batches: int, entities: int, metrics: int) -> list[Result]:
    per_night = 10_000 // entities
    async with _fresh_store(url, entities * per_night) as (store, connection, own_url):
        days = range(-(-batches // per_night))
        run_id = await store.start_run("nightly", _FIRST, "bench", "bench", _NOW)
        plan = [_night_batch(run_id, _FIRST + timedelta(days=day), part, entities)
                for day in days for part in range(per_night)][:batches]  # fmt: skip
        await store.plan_batches(run_id, plan, _NOW)
        await connection.execute("CHECKPOINT")
        _, own = await _timed(lambda: _commit_night(store, plan, metrics))
        await connection.execute("TRUNCATE observation; UPDATE batch SET state = 'planned'")
        await connection.execute("CHECKPOINT")
        _, peer = await _timed(lambda: _upsert_night(connection, plan, metrics))
        await connection.execute("TRUNCATE observation; UPDATE batch SET state = 'planned'")
        async with open_line(own_url) as (line, through), open_store(through) as far:
            await far.read_runs(1)
            before = line.turns
            await _commit_night(far, plan[:1], metrics)
            turns = line.turns - before
    return [
        {
            "name": "store.night",
            "ours": round(batches / own, 1),
            "peer": round(batches / peer, 1),
            "unit": "batches/s",
            "ratio": round(peer / own, 3),
            "target": None,
            "met": None,
            "note": f"{batches} batches of {entities} entities, {metrics} metrics and one day, one after the other; a "
            f"commit takes {turns} round trips; peer: executemany, its statements kept prepared, 4 round trips",
            "samples": [],
        }
    ]


async def _measure_read(url: str, entities: int, days: int, samples: int) -> list[Result]:
    rng = np.random.default_rng(2)
    async with _fresh_store(url, entities) as (store, connection, _):
        await _fill(store, entities, days, rng)
        await connection.execute("VACUUM ANALYZE observation")
        # Ours does without it as well: compiling takes longer than it saves, and the peers are not to pay for that.
        await connection.execute("SET jit = off")
        ids = np.arange(1, entities + 1, dtype=np.int32)
        last = _FIRST + timedelta(days=days - 1)
        ways: dict[str, Callable[[], Awaitable[Any]]] = {
            "ours": lambda: store.read_matrix(_METRIC, ids, _FIRST, last),
            "fetch": lambda: _fetch_matrix(connection, ids, last),
            "bare": lambda: _copy_out(connection, ids, last),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for sample in range(samples):
            found = {}
            for name in list(ways)[:: 1 if sample % 2 else -1]:
                found[name], took = await _timed(ways[name])
                seconds[name].append(took)
            np.testing.assert_array_equal(found["ours"], found["fetch"])
    count = entities * days
    ours, peer, bare = (count / statistics.median(took) for took in seconds.values())
    bound = min(_FETCH_TARGET * peer, _COPY_TARGET * bare)
    return [
        {
            "name": "store.read",
            "ours": round(ours),
            "peer": round(peer),
            "unit": "rows/s",
            "ratio": round(ours / peer, 3),
            "target": round(bound / peer, 3),
            "met": ours >= bound,
            "note": f"{entities} series of {days} days; {ours / bare:.2f} x a bare COPY out ({bare:.0f} rows/s); "
            "the target is the lower of 6 x fetch and 0.9 x COPY out; samples: ours, fetch, COPY out",
            "samples": [[round(count / took) for took in each] for each in zip(*seconds.values(), strict=True)],
        }
    ]


@asynccontextmanager
async def _fresh_store(url: str, entities: int) -> AsyncIterator[tuple[Store, Connection, str]]:
    """Give a store over a new database of that server, with entities 1..n, and drop the database at the end."""
    name = f"astrid_bench_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE DATABASE {name}")
    parts = urlsplit(url)
    own = urlunsplit(parts._replace(path=f"/{name}"))
    try:
        await migrate(own)
        async with open_store(own) as store:
            connection = await asyncpg.connect(own)
            try:
                await store.sync_watchlist([(f"e{i:06}", f"E{i}", "bench") for i in range(entities)], _NOW)
                yield store, connection, own
            finally:
                await connection.close()
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


def _block(entities: int, start: int, days: int, rng: np.random.Generator) -> Observations:
    """Return a value for each entity and each of ``days`` days from day number ``start`` on, in key order."""
    count = entities * days
    first = np.datetime64(_FIRST, "D") + np.timedelta64(start, "D")
    return Observations(
        np.repeat(np.arange(1, entities + 1, dtype=np.int32), days),
        np.full(count, _METRIC, np.int16),
        np.tile(first + np.arange(days), entities),
        rng.integers(0, 1_000_000, count).astype(np.float64),
        np.full(count, _ORIGIN, np.int16),
    )


def _ordered(found: Observations, order: str, rng: np.random.Generator) -> Observations:
    if order == "entity":
        return found
    which = np.lexsort((found.entity_id, found.day)) if order == "day" else rng.permutation(len(found))
    return Observations(
        found.entity_id[which], found.metric_id[which], found.day[which], found.value[which], found.origin_id[which]
    )


def _with_changes(found: Observations, share: float, rng: np.random.Generator) -> Observations:
    value = found.value + (rng.random(len(found)) < share)
    return Observations(found.entity_id, found.metric_id, found.day, value, found.origin_id)


async def _fill(store: Store, entities: int, days: int, rng: np.random.Generator) -> None:
    for start in range(0, days, 100):
        await store.write_observations(_block(entities, start, min(100, days - start), rng), 1, _NOW)


async def _write(connection: Connection, store: Store, found: Observations, case: str, side: _Side) -> None:
    counts = await _clocked(connection, side, lambda: store.write_observations(found, 1, _NOW))
    assert counts.new + counts.equal + counts.changed == len(found)
    assert case == "changed" or getattr(counts, case) == len(found)


async def _copy_into_empty(connection: Connection, found: Observations, side: _Side) -> dict[str, int]:
    """COPY into a new table, and return its bytes per row."""
    await connection.execute("DROP TABLE IF EXISTS peer")
    await connection.execute("CREATE TABLE peer (LIKE observation INCLUDING ALL)")
    columns = {
        "metric_id": found.metric_id,
        "entity_id": found.entity_id,
        "day": found.day,
        "value": found.value,
        "origin_id": found.origin_id,
        "observed_at": np.datetime64(_NOW.replace(tzinfo=None), "us"),
        "run_id": 1,
    }
    chunks = list(encode(OBSERVATION, columns, len(found)))

    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    def copy() -> Awaitable[str]:
        return connection.copy_to_table("peer", source=stream(), columns=OBSERVATION.names, format="binary")

    await _clocked(connection, side, copy)
    size = await _row_sizes(connection, "peer")
    await connection.execute("DROP TABLE peer")
    return size


async def _clocked(connection: Connection, side: _Side, work: Callable[[], Awaitable[Any]]) -> Any:
    """Do the work right after a checkpoint and note how long it took and how much WAL it made."""
    await connection.execute("CHECKPOINT")
    before = await connection.fetchval(_WAL)
    result, seconds = await _timed(work)
    side.seconds.append(seconds)
    side.wal.append(await connection.fetchval(_WAL) - before)
    return result


_WAL: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8"


async def _row_sizes(connection: Connection, table: str) -> dict[str, int]:
    """Return the bytes per row of a table, all its partitions or chunks together, and of its key's index."""
    parts = (
        "SELECT $1::text::regclass::oid AS relid UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::regclass"
    )
    query = f"SELECT sum(pg_table_size(relid))::int8, sum(pg_indexes_size(relid))::int8 FROM ({parts}) AS parts"
    ((table_bytes, key_bytes),) = await connection.fetch(query, table)
    rows = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return {"table": round(table_bytes / rows), "key": round(key_bytes / rows)}


async def _time_executemany(connection: Connection, entities: int, there: int) -> float:
    """Time upserts of rows that stand already, row by row, as the driver's manual shows it."""
    day = _FIRST + timedelta(days=there - 1)
    rows = [(_METRIC, 1 + i % entities, day - timedelta(days=i // entities), float(i), _ORIGIN, _NOW, 1)
            for i in range(_EXECUTEMANY_ROWS)]  # fmt: skip
    _, seconds = await _timed(lambda: connection.executemany(_UPSERT, rows))
    return seconds


def _night_batch(run_id: int, day: date, part: int, entities: int) -> Batch:
    numbers = range(part * entities + 1, (part + 1) * entities + 1)
    asked = tuple(Entity(number, f"e{number - 1:06}", f"bench/{number}") for number in numbers)
    return Batch("github", "nodes", day, day, day, asked, run_id=run_id)


async def _commit_night(store: Store, plan: Sequence[Batch], metrics: int) -> None:
    for batch in plan:
        ids = np.array([entity.entity_id for entity in batch.entities], np.int32)
        count = len(ids) * metrics
        found = Observations(
            np.tile(ids, metrics),
            np.repeat(np.arange(1, metrics + 1, dtype=np.int16), len(ids)),
            np.full(count, np.datetime64(batch.day, "D")),
            np.arange(count, dtype=np.float64),
            np.full(count, _ORIGIN, np.int16),
        )
        counts = await store.commit_batch(batch, Done(found, 1), _NOW)
        assert counts.written.new == count


async def _upsert_night(connection: Connection, plan: Sequence[Batch], metrics: int) -> None:
    end = (
        "UPDATE batch SET state = 'done', attempts = attempts + 1, updated_at = $3 WHERE run_id = $1 AND batch_id = $2"
    )
    for batch in plan:
        ids = [entity.entity_id for entity in batch.entities]
        keys = [(metric, entity_id) for metric in range(1, metrics + 1) for entity_id in ids]
        rows = [(*key, batch.day, float(at), _ORIGIN, _NOW, batch.run_id) for at, key in enumerate(keys)]
        async with connection.transaction():
            await connection.executemany(_UPSERT, rows)
            await connection.execute(end, batch.run_id, batch.batch_id, _NOW)


_READ: Final = (
    "SELECT entity_id, day, value FROM observation "
    "WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4"
)


async def _fetch_matrix(connection: Connection, ids: Any, last: date) -> Any:
    matrix = np.full(((last - _FIRST).days + 1, len(ids)), np.nan, np.float32)
    column = {int(entity_id): at for at, entity_id in enumerate(ids)}
    for entity_id, day, value in await connection.fetch(_READ, _METRIC, ids.tolist(), _FIRST, last):
        matrix[(day - _FIRST).days, column[entity_id]] = value
    return matrix


async def _copy_out(connection: Connection, ids: Any, last: date) -> int:
    size = 0

    async def count(data: bytes) -> None:
        nonlocal size
        size += len(data)

    await connection.copy_from_query(_READ, _METRIC, ids.tolist(), _FIRST, last, output=count, format="binary")
    return size


async def _timed(work: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = await work()
    return result, time.perf_counter() - start


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 0 where every target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--standing", type=int, default=5_000_000)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--orders", nargs="+", choices=list(ORDERS), default=["entity", "day"])
    parser.add_argument("--url", help="a server on which databases may be created; default: an embedded one")
    chosen = parser.parse_args(arguments)
    if chosen.url:
        results = _measure_all(chosen.url, chosen)
    else:
        with tempfile.TemporaryDirectory() as folder, open_embedded(Path(folder)) as server:
            results = _measure_all(server.url(), chosen)
    print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode())
    return 0 if all(result["met"] is not False for result in results) else 1


def _measure_all(url: str, chosen: argparse.Namespace) -> list[Result]:
    written = measure_write(
        url, rows=chosen.rows, standing=chosen.standing, samples=chosen.samples, orders=chosen.orders
    )
    return [*written, *measure_night(url), *measure_read(url, samples=chosen.samples)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
