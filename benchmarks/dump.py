"""How fast a dump is written and restored, held against PostgreSQL's own COPY of the same rows in the same run.

``python benchmarks/dump.py [--rows N] [--samples N] [--url URL]`` prints the results as JSON; without a URL it opens an
embedded server in a temporary folder. Ours is the whole of it: snapshot, files, checksums and digest out; checksums,
load, reading back and digest in. The peer is a bare binary COPY of the table's rows, to nowhere, and from memory into
an empty table with the same key. fsync and synchronous_commit stay on for both sides.
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
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import numpy as np
import orjson

from astrid.models import Observations
from astrid.store import migrate, open_embedded, open_store
from astrid.store.dumps import export_database, import_database
from astrid.store.dumps.files import Format

Result = dict[str, Any]

_NOW: Final = datetime(2026, 4, 1, 5, tzinfo=UTC)
_FIRST: Final = date(2025, 1, 1)
_DAYS: Final = 365
_FORMATS: Final[tuple[Format, ...]] = ("parquet", "csv")
_COLUMNS: Final = "metric_id, entity_id, day, value, origin_id, observed_at, run_id"


def measure_dump(url: str, *, rows: int = 2_000_000, samples: int = 5) -> list[Result]:
    """Export a table of ``rows`` values over a year, and restore it, in both formats, by turns with the peers.

    ``ours`` and ``peer`` are rows per second, medians of ``samples``.
    """
    return asyncio.run(_measure(url, rows, samples))


async def _measure(url: str, rows: int, samples: int) -> list[Result]:
    times: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, float] = {}
    async with _fresh_database(url) as source:
        count = await _fill(source, rows)
        connection = await asyncpg.connect(source)
        for _ in range(samples):
            for file_format in _FORMATS:
                with tempfile.TemporaryDirectory() as scratch:
                    pieces, copy_out = await _timed(lambda: _copy_out(connection))
                    folder = Path(scratch, "dump")
                    await connection.execute("CHECKPOINT")
                    manifest, ours = await _timed(
                        lambda folder=folder, file_format=file_format: export_database(  # type: ignore[misc]
                            source, folder, file_format=file_format, code_version="0.1.0"
                        )
                    )
                    assert manifest.tables["observation"].rows == count
                    sizes[file_format] = manifest.bytes / count
                    times.setdefault(f"dump.export.{file_format}", []).append((ours, copy_out))
                    async with _fresh_database(url) as target:
                        copy_in = await _time_copy_in(connection, pieces)
                        _, ours = await _timed(lambda folder=folder, target=target: import_database(target, folder))  # type: ignore[misc]
                    times.setdefault(f"dump.import.{file_format}", []).append((ours, copy_in))
        await connection.close()
    return [_result(name, pairs, count, sizes) for name, pairs in times.items()]


def _result(name: str, pairs: list[tuple[float, float]], count: int, sizes: dict[str, float]) -> Result:
    ours, peer = (count / statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    return {
        "name": name,
        "ours": round(ours),
        "peer": round(peer),
        "unit": "rows/s",
        "ratio": round(ours / peer, 3),
        "target": None,
        "met": None,
        "note": f"{count} rows of a year, {sizes[name.rsplit('.', 1)[-1]]:.1f} bytes a row in the files; "
        "peer: bare binary COPY of the same rows; ours with checksums, digest and reading back",
        "samples": [[round(count / a), round(count / b)] for a, b in pairs],
    }


@asynccontextmanager
async def _fresh_database(url: str) -> AsyncIterator[str]:
    """Give the address of a new, migrated database of that server, and drop it at the end."""
    name = f"astrid_bench_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE DATABASE {name}")
    own = f"{url.rsplit('/', 1)[0]}/{name}"
    try:
        await migrate(own)
        yield own
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def _fill(url: str, rows: int) -> int:
    """Write counts that grow from day to day, as stocks do, of as many entities as make ``rows``."""
    rng = np.random.default_rng(3)
    entities = max(1, rows // _DAYS)
    async with open_store(url) as store:
        ids = await store.sync_watchlist([(f"e{i:06}", f"E{i}", "bench") for i in range(entities)], _NOW)
        entity = np.repeat(np.sort(np.array(list(ids.values()), np.int32)), _DAYS)
        value = np.cumsum(rng.poisson(rng.gamma(1.0, 8.0, (entities, 1)), (entities, _DAYS)), axis=1)
        found = Observations(
            entity,
            np.full(len(entity), 1, np.int16),
            np.tile(np.datetime64(_FIRST, "D") + np.arange(_DAYS), entities),
            value.reshape(-1).astype(np.float64),
            np.full(len(entity), 1, np.int16),
        )
        await store.write_observations(found, 1, _NOW)
    connection = await asyncpg.connect(url)
    await connection.execute("VACUUM ANALYZE observation")
    await connection.close()
    return len(entity)


async def _copy_out(connection: asyncpg.Connection[asyncpg.Record]) -> list[bytes]:
    pieces: list[bytes] = []

    async def keep(data: bytes) -> None:
        pieces.append(data)

    await connection.copy_from_query(f"SELECT {_COLUMNS} FROM observation", output=keep, format="binary")
    return pieces


async def _time_copy_in(connection: asyncpg.Connection[asyncpg.Record], pieces: list[bytes]) -> float:
    await connection.execute("DROP TABLE IF EXISTS peer")
    await connection.execute("CREATE TABLE peer (LIKE observation INCLUDING ALL)")

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    await connection.execute("CHECKPOINT")
    _, seconds = await _timed(lambda: connection.copy_to_table("peer", source=stream(), format="binary"))
    await connection.execute("DROP TABLE peer")
    return seconds


async def _timed(work: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = await work()
    return result, time.perf_counter() - start


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--url", help="a server on which databases may be created; default: an embedded one")
    chosen = parser.parse_args(arguments)
    if chosen.url:
        results = measure_dump(chosen.url, rows=chosen.rows, samples=chosen.samples)
    else:
        with tempfile.TemporaryDirectory() as folder, open_embedded(Path(folder)) as server:
            results = measure_dump(server.url(), rows=chosen.rows, samples=chosen.samples)
    print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
