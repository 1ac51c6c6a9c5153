"""What a reading as of a moment costs beside the same reading of now, and both beside COPY and the driver's own fetch.

``python -m benchmarks.as_of [--url URL] [--entities N] [--days N] [--samples N]`` prints the results as JSON; without a
URL it opens an embedded server in a temporary folder. One metric of two is read whole, of a table in which a twentieth
of the values was revised once and a twentieth of these once more; as of now, as of before the revisions, and as of
halfway through. Sides take turns, and so does who begins.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy as np
import orjson

from astrid.models import Observations
from astrid.store import Store, migrate, open_embedded, open_store
from astrid.store.literals import inline
from astrid.store.queries import load_queries

Result = dict[str, Any]
Side = Callable[[], Awaitable[Any]]

_FIRST: Final = date(2024, 4, 1)
_NOW: Final = datetime(2026, 4, 1, 5, tzinfo=UTC)
_QUERIES: Final = load_queries("reads")


def measure_as_of(url: str, *, entities: int = 2_000, days: int = 730, samples: int = 7) -> list[Result]:
    """Read ``entities`` × ``days`` cells by every side; ``ours`` and ``peer`` are cells per second, the best of all."""
    return asyncio.run(_measure(url, entities, days, samples))


async def _measure(url: str, entities: int, days: int, samples: int) -> list[Result]:
    await migrate(url)
    last = _FIRST + timedelta(days=days - 1)
    async with open_store(url, pool_size=2) as store:
        slugs = [(f"p{n:05}", f"P{n}", "x") for n in range(entities)]
        ids = np.array(list((await store.sync_watchlist(slugs, _NOW)).values()), np.int32)
        await _fill(store, ids, days)
        connection = await asyncpg.connect(url, statement_cache_size=0)
        await connection.execute("VACUUM ANALYZE observation, observation_revision")
        query, wanted = _QUERIES["read_matrix"], (1, ids.tolist(), _FIRST, last)

        async def copy_out() -> None:
            async def drop(_: bytes) -> None:
                """Keep nothing."""

            await connection.copy_from_query(inline(query, *wanted), output=drop, format="binary")

        async def fetch() -> None:
            rows = await connection.fetch(query, *wanted)
            matrix = np.full((days, entities), np.nan, np.float32)
            for entity_id, day, value in rows:
                matrix[(day - _FIRST).days, entity_id - ids[0]] = value

        def read(as_of: datetime | None) -> Side:
            return lambda: store.read_matrix(1, ids, _FIRST, last, as_of=as_of)

        sides: dict[str, Side] = {
            "now": read(None),
            "as of now": read(_NOW + timedelta(days=9)),
            "as of halfway": read(_NOW + timedelta(days=1)),
            "as of before": read(_NOW),
            "copy": copy_out,
            "fetch": fetch,
        }
        seconds = await _by_turns(sides, samples)
        await connection.close()
    rate = {name: entities * days / min(taken) for name, taken in seconds.items()}
    return [
        _result("store.as_of.now", rate["as of now"], rate["now"]),
        _result("store.as_of.halfway", rate["as of halfway"], rate["now"]),
        _result("store.as_of.before", rate["as of before"], rate["now"]),
        _result("store.as_of.before_vs_copy", rate["as of before"], rate["copy"]),
        _result("store.as_of.before_vs_fetch", rate["as of before"], rate["fetch"]),
        _result("store.as_of.none_vs_copy", rate["now"], rate["copy"]),
    ]


async def _fill(store: Store, ids: np.ndarray[Any, np.dtype[np.int32]], days: int) -> None:
    cells = len(ids) * days
    entity, day = np.repeat(ids, days), np.tile(np.datetime64(_FIRST, "D") + np.arange(days), len(ids))
    rng = np.random.default_rng(1)
    for metric in (1, 2):
        which: Any = slice(None)
        for step in range(3):
            some = entity[which]
            values = np.full(len(some), float(step))
            found = Observations(
                some, np.full(len(some), metric, np.int16), day[which], values, np.full(len(some), 1, np.int16)
            )
            await store.write_observations(found, step, _NOW + timedelta(days=step))
            every = np.arange(cells)[which]
            which = np.sort(rng.choice(every, len(every) // 20, replace=False))


async def _by_turns(sides: dict[str, Side], samples: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for sample in range(samples):
        names = list(sides)
        for name in names[sample % len(names) :] + names[: sample % len(names)]:
            began = time.perf_counter()
            await sides[name]()
            taken[name].append(time.perf_counter() - began)
    return taken


def _result(name: str, ours: float, peer: float) -> Result:
    return {
        "name": name,
        "ours": ours,
        "peer": peer,
        "unit": "cells/s",
        "ratio": ours / peer,
        "target": None,
        "met": None,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url")
    parser.add_argument("--entities", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--samples", type=int, default=7)
    given = parser.parse_args()
    sizes = {"entities": given.entities, "days": given.days, "samples": given.samples}
    if given.url:
        results = measure_as_of(given.url, **sizes)
    else:
        with tempfile.TemporaryDirectory(prefix="pg-") as folder:
            Path(folder).chmod(0o755)
            with open_embedded(Path(folder)) as server:
                results = measure_as_of(server.url(), **sizes)
    sys.stdout.buffer.write(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
