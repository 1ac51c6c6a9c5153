"""How fast the store writes and reads, held against what PostgreSQL's own COPY and the driver's own fetch take.

``python benchmarks/store.py [--rows N] [--standing N] [--samples N] [--url URL]`` prints the results as JSON; without
a URL it opens an embedded server in a temporary folder. fsync and synchronous_commit stay on for both sides.
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
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import numpy as np
import orjson

from astrid.models import Observations
from astrid.store import Store, migrate, open_embedded, open_store
from astrid.store.copy import encode
from astrid.store.observations import OBSERVATION
from astrid.store.pool import Connection

Result = dict[str, Any]

_FIRST: Final = date(2024, 1, 1)
_NOW: Final = datetime(2026, 4, 1, 5, tzinfo=UTC)
_METRIC, _ORIGIN = 1, 1
_WRITE_TARGET, _EXECUTEMANY_TARGET, _FETCH_TARGET, _COPY_TARGET = 0.8, 4.0, 6.0, 0.9
_EXECUTEMANY_ROWS: Final = 20_000


def measure_write(
    url: str, *, rows: int = 1_000_000, standing: int = 5_000_000, samples: int = 3, entities: int = 10_000
) -> list[Result]:
    """Write ``rows`` rows into a table of at least ``standing`` rows: all new, all equal, 5 % changed.

    The peer is a raw binary COPY of the same rows, encoded beforehand, in the same order, into an empty plain table
    with the same key. ``ours`` and ``peer`` are rows per second, medians of ``samples`` taken in turns.
    """
    return asyncio.run(_measure_write(url, rows, standing, samples, entities))


def measure_read(url: str, *, entities: int = 5_000, days: int = 365, samples: int = 3) -> list[Result]:
    """Read a matrix of ``entities`` series of ``days`` days; the peer fetches the rows and fills the same array.

    The bound is the lower one of 6 times the peer and 0.9 times a bare COPY of the same rows out of the database.
    """
    return asyncio.run(_measure_read(url, entities, days, samples))


async def _measure_write(url: str, rows: int, standing: int, samples: int, entities: int) -> list[Result]:
    days, there = max(1, rows // entities), max(1, -(-standing // entities))
    rng = np.random.default_rng(1)
    async with _fresh_store(url, entities) as (store, connection):
        await _fill(store, entities, there, rng)
        times: dict[str, list[tuple[float, float]]] = {"new": [], "equal": [], "changed": []}
        slow = [await _time_executemany(connection, entities, there) for _ in range(samples)]
        # New rows differ from sample to sample, so each sample writes its own days; the other cases rewrite the last.
        for sample in range(samples):
            new = _block(entities, there + sample * days, days, rng)
            changed = _with_changes(new, 0.05, rng)
            for case, found in (("new", new), ("equal", new), ("changed", changed)):
                peer = await _time_copy(connection, found)
                await connection.execute("CHECKPOINT")
                counts, ours = await _timed(lambda found=found: store.write_observations(found, 1, _NOW))  # type: ignore[misc]
                assert counts.new + counts.equal + counts.changed == len(found)
                assert case == "changed" or getattr(counts, case) == len(found)
                times[case].append((ours, peer))
    count = entities * days
    upserts = _EXECUTEMANY_ROWS / statistics.median(slow)
    results = []
    for case, pairs in times.items():
        ours = count / statistics.median(pair[0] for pair in pairs)
        peer = count / statistics.median(pair[1] for pair in pairs)
        results.append(
            {
                "name": f"store.write.{case}",
                "ours": round(ours),
                "peer": round(peer),
                "unit": "rows/s",
                "ratio": round(ours / peer, 3),
                "target": _WRITE_TARGET,
                "met": ours >= _WRITE_TARGET * peer and ours >= _EXECUTEMANY_TARGET * upserts,
                "note": f"{count} rows into {entities * there}+; peer: raw binary COPY into an empty table with the "
                f"same key; {ours / upserts:.0f} x executemany upserts ({upserts:.0f} rows/s, wanted 4 x)",
                "samples": [[round(count / a), round(count / b)] for a, b in pairs],
            }
        )
    return results


async def _measure_read(url: str, entities: int, days: int, samples: int) -> list[Result]:
    rng = np.random.default_rng(2)
    async with _fresh_store(url, entities) as (store, connection):
        await _fill(store, entities, days, rng)
        await connection.execute("VACUUM ANALYZE observation")
        ids = np.arange(1, entities + 1, dtype=np.int32)
        last = _FIRST + timedelta(days=days - 1)
        pairs, copies = [], []
        for _ in range(samples):
            matrix, ours = await _timed(lambda: store.read_matrix(_METRIC, ids, _FIRST, last))
            fetched, peer = await _timed(lambda: _fetch_matrix(connection, ids, last))
            np.testing.assert_array_equal(matrix, fetched)
            _, bare = await _timed(lambda: _copy_out(connection, ids, last))
            pairs.append((ours, peer))
            copies.append(bare)
    count = entities * days
    ours, peer = (count / statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    bare = count / statistics.median(copies)
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
            "the target is the lower of 6 x fetch and 0.9 x COPY out",
            "samples": [[round(count / a), round(count / b)] for a, b in pairs],
        }
    ]


@asynccontextmanager
async def _fresh_store(url: str, entities: int) -> AsyncIterator[tuple[Store, Connection]]:
    """Give a store over a new database of that server, with entities 1..n, and drop the database at the end."""
    name = f"astrid_bench_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE DATABASE {name}")
    own = f"{url.rsplit('/', 1)[0]}/{name}"
    try:
        await migrate(own)
        async with open_store(own) as store:
            connection = await asyncpg.connect(own)
            try:
                await store.sync_watchlist([(f"e{i:06}", f"E{i}", "bench") for i in range(entities)], _NOW)
                yield store, connection
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


def _with_changes(found: Observations, share: float, rng: np.random.Generator) -> Observations:
    value = found.value + (rng.random(len(found)) < share)
    return Observations(found.entity_id, found.metric_id, found.day, value, found.origin_id)


async def _fill(store: Store, entities: int, days: int, rng: np.random.Generator) -> None:
    for start in range(0, days, 100):
        await store.write_observations(_block(entities, start, min(100, days - start), rng), 1, _NOW)


async def _time_copy(connection: Connection, found: Observations) -> float:
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

    await connection.execute("CHECKPOINT")
    _, seconds = await _timed(
        lambda: connection.copy_to_table("peer", source=stream(), columns=OBSERVATION.names, format="binary")
    )
    await connection.execute("DROP TABLE peer")
    return seconds


async def _time_executemany(connection: Connection, entities: int, there: int) -> float:
    """Time upserts of rows that stand already, row by row, as the driver's manual shows it."""
    day = _FIRST + timedelta(days=there - 1)
    rows = [(_METRIC, 1 + i % entities, day - timedelta(days=i // entities), float(i), _ORIGIN, _NOW, 1)
            for i in range(_EXECUTEMANY_ROWS)]  # fmt: skip
    query = (
        "INSERT INTO observation VALUES ($1, $2, $3, $4, $5, $6, $7) "
        "ON CONFLICT (metric_id, entity_id, day) DO UPDATE SET value = excluded.value"
    )
    _, seconds = await _timed(lambda: connection.executemany(query, rows))
    return seconds


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
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--url", help="a server on which databases may be created; default: an embedded one")
    chosen = parser.parse_args(arguments)
    if chosen.url:
        results = _measure_all(chosen.url, chosen)
    else:
        with tempfile.TemporaryDirectory() as folder, open_embedded(Path(folder)) as server:
            results = _measure_all(server.url(), chosen)
    print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode())
    return 0 if all(result["met"] for result in results) else 1


def _measure_all(url: str, chosen: argparse.Namespace) -> list[Result]:
    written = measure_write(url, rows=chosen.rows, standing=chosen.standing, samples=chosen.samples)
    return written + measure_read(url, samples=chosen.samples)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
