"""The ledger and the record of runs for readers: what was expected, what is there, and which run wrote what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import asyncpg
import numpy as np
import numpy.typing as npt
import orjson

from astrid.store import pool
from astrid.store.copy import Array, Layout
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import (
    BatchCount,
    BatchRow,
    Expected,
    GapCount,
    GapEntry,
    GapMarks,
    Inputs,
    RunRow,
    ScoreVersion,
    ValueVersion,
)
from astrid.store.transfer import select_columns
from astrid.store.vintages import fetch_as_of, require_aware

_SQL: Final = load_queries("ledger")
_SETTINGS: Final = load_queries("observations")["plan_settings"]
_BLOCK: Final = 62
"""Days to a number in ``read_presence``: what an int8 holds without its sign."""

_PRESENCE: Final = Layout(metric_id="int2", entity_id="int4", days="int8")
_MARKS: Final = Layout(metric_id="int2", entity_id="int4", day="date", retry="bool", healed="bool", unasked="bool")


class Ledger:
    """Reads of the ledger and of runs, and the one write of whom nights ask; reached as ``store.ledger``."""

    def __init__(self, connections: pool.Pool, place: str) -> None:
        self._pool = connections
        self._place = place

    # What is expected and what is there

    async def record_expectations(
        self, day: date, expected: Mapping[tuple[str, str], Sequence[int]], now: datetime
    ) -> None:
        """Note whom the night of ``day`` asks for, by (source, task): whoever is new from this day on, whoever is
        missing until the day before.

        A task that is absent keeps what it has: that tonight nobody can be asked does not end what is expected. A
        night of a past day, after which others have run, changes nothing.
        """

        async def work(connection: Connection) -> None:
            if await connection.fetchval(_SQL["has_later_night"], day):
                return
            for (source, task), entity_ids in sorted(expected.items()):
                for query in ("drop_expectations", "end_expectations", "begin_expectations"):
                    await connection.execute(_SQL[query], source, task, day, list(entity_ids))

        await pool.writing(self._pool, self._place, work, now=now)

    async def read_expectations(
        self, first: date, last: date, entity_ids: Sequence[int] | None = None, *, as_of: datetime | None = None
    ) -> list[Expected]:
        """Return whom nights asked on any day from ``first`` to ``last``, of all entities or of some."""
        async with pool.reading(self._pool, self._place) as connection:
            ids = None if entity_ids is None else list(entity_ids)
            rows = await fetch_as_of(connection, _SQL, "read_expectations", first, last, ids, as_of=as_of)
        return [Expected(**{**row, "entity_ids": tuple(sorted(row["entity_ids"]))}) for row in rows]

    async def read_presence(
        self,
        metric_ids: Sequence[int],
        entity_ids: npt.NDArray[np.int32],
        first: date,
        last: date,
        *,
        as_of: datetime | None = None,
    ) -> dict[int, npt.NDArray[np.bool_]]:
        """Return per metric a bool array (T, N): which days have a value, as of one moment; a query for 62 days.

        Columns are in the order of ``entity_ids``, which ascend.
        """
        span, ids = (last - first).days + 1, entity_ids.tolist()
        found = {metric_id: np.zeros((span, len(ids)), np.bool_) for metric_id in metric_ids}
        async with pool.reading(self._pool, self._place, snapshot=True) as connection:
            await connection.execute(_SETTINGS)
            for start in range(0, span, _BLOCK):
                days = min(_BLOCK, span - start)
                begin, end = first + timedelta(days=start), first + timedelta(days=start + days - 1)
                rows = await _columns(
                    connection, _PRESENCE, "read_presence", list(metric_ids), ids, begin, end, as_of=as_of
                )
                for metric_id, table in found.items():
                    own = rows["metric_id"] == metric_id
                    at = np.searchsorted(entity_ids, rows["entity_id"][own])
                    bits = (rows["days"][own] >> np.arange(days)[:, None]) & 1
                    table[start : start + days, at] = bits.astype(np.bool_)
        return found

    async def read_newest(
        self,
        metric_id: int,
        origin_id: int,
        entity_ids: Sequence[int],
        first: date,
        last: date,
        *,
        as_of: datetime | None = None,
    ) -> date | None:
        """Return the last day from ``first`` to ``last`` that an origin stated a metric for any of these, or None."""
        async with pool.reading(self._pool, self._place) as connection:
            await connection.execute(_SETTINGS)
            ids = list(entity_ids)
            (row,) = await fetch_as_of(
                connection, _SQL, "read_newest", metric_id, ids, origin_id, first, last, as_of=as_of
            )
        found: date | None = row[0]
        return found

    async def read_marks(
        self,
        metric_ids: Sequence[int],
        first: date,
        last: date,
        unasked: str,
        entity_ids: Sequence[int] | None = None,
        *,
        as_of: datetime | None = None,
    ) -> GapMarks:
        """Return the ledger's rows of some days, healed ones too, of all entities or of some; in no order.

        ``unasked`` is how the reason of gaps begins that stand for not having been asked at all.
        """
        ids = None if entity_ids is None else list(entity_ids)
        async with pool.reading(self._pool, self._place) as connection:
            columns = await _columns(
                connection, _MARKS, "read_marks", first, last, list(metric_ids), ids, unasked, as_of=as_of
            )
        return GapMarks(**columns)

    async def read_entries(
        self, keys: Sequence[tuple[int, int, date]], *, as_of: datetime | None = None
    ) -> dict[tuple[int, int, date], GapEntry]:
        """Return the ledger's rows of these (metric_id, entity_id, day); keys without one are absent."""
        columns = [list(column) for column in zip(*keys, strict=True)] if keys else [[], [], []]
        async with pool.reading(self._pool, self._place) as connection:
            rows = await fetch_as_of(connection, _SQL, "read_entries", *columns, as_of=as_of)
        return {(row["metric_id"], row["entity_id"], row["day"]): GapEntry(**row) for row in rows}

    async def read_nights(self, first: date, last: date, *, as_of: datetime | None = None) -> dict[date, bool]:
        """Return which days a nightly run is about, and whether one of them ran to its end."""
        async with pool.reading(self._pool, self._place) as connection:
            rows = await fetch_as_of(connection, _SQL, "read_nights", first, last, as_of=as_of)
        return {row["day"]: row["ended"] for row in rows}

    async def read_asked(
        self, first: date, last: date, tasks: Sequence[tuple[str, str]], *, as_of: datetime | None = None
    ) -> dict[tuple[str, str], set[date]]:
        """Return (source, task) -> the nights from ``first`` to ``last`` that planned to ask for it."""
        asked: dict[tuple[str, str], set[date]] = {task: set() for task in tasks}
        sources, names = [source for source, _ in tasks], [name for _, name in tasks]
        async with pool.reading(self._pool, self._place) as connection:
            for row in await fetch_as_of(connection, _SQL, "read_asked", first, last, sources, names, as_of=as_of):
                asked[row["source"], row["task"]].add(row["day"])
        return asked

    # Runs

    async def read_runs(
        self, kind: str | None, first: date | None, last: date | None, limit: int, offset: int
    ) -> tuple[list[RunRow], int]:
        """Return a page of the runs of a kind and of days, the newest first, and how many there are in all."""
        async with pool.reading(self._pool, self._place, snapshot=True) as connection:
            rows = await connection.fetch(_SQL["read_runs"], kind, first, last, limit, offset)
            total: int = await connection.fetchval(_SQL["count_runs"], kind, first, last)
        return [_run_row(row) for row in rows], total

    async def read_runs_by_id(self, run_ids: Sequence[int]) -> dict[int, RunRow]:
        """Return the runs of these ids; those that there are not are absent."""
        async with pool.reading(self._pool, self._place) as connection:
            rows = await connection.fetch(_SQL["read_runs_by_id"], sorted(set(run_ids)))
        return {row["run_id"]: _run_row(row) for row in rows}

    async def read_batch_counts(self, run_ids: Sequence[int]) -> list[BatchCount]:
        """Return the batches of runs, counted by source, task and state."""
        async with pool.reading(self._pool, self._place) as connection:
            rows = await connection.fetch(_SQL["read_batch_counts"], list(run_ids))
        return [BatchCount(**row) for row in rows]

    async def read_dead_batches(self, run_id: int, limit: int) -> list[BatchRow]:
        """Return the batches of a run that were set aside, with their reasons."""
        async with pool.reading(self._pool, self._place) as connection:
            rows = await connection.fetch(_SQL["read_dead_batches"], run_id, limit)
        return [BatchRow(**row, state="dead", requests=0) for row in rows]

    async def count_gaps(self, run_id: int) -> list[GapCount]:
        """Return the gaps that a run gave a reason for, by metric and reason, the most frequent first."""
        async with pool.reading(self._pool, self._place) as connection:
            return [GapCount(**row) for row in await connection.fetch(_SQL["count_gaps"], run_id)]

    async def count_healed(self, run_id: int) -> dict[int, int]:
        """Return how many gaps a run's values healed, by metric."""
        async with pool.reading(self._pool, self._place) as connection:
            return {row["metric_id"]: row["count"] for row in await connection.fetch(_SQL["count_healed"], run_id)}

    async def count_scores(self, run: RunRow) -> int:
        """Return how many scores of its day, by its method, stand as a run published them."""
        async with pool.reading(self._pool, self._place) as connection:
            return int(await connection.fetchval(_SQL["count_scores"], run.method_version, run.day, run.run_id))

    # Where one number comes from

    async def trace_value(self, metric_id: int, entity_id: int, day: date) -> list[ValueVersion]:
        """Return every version of a value, the first first; the last one stands."""
        async with pool.reading(self._pool, self._place, snapshot=True) as connection:
            rows = await connection.fetch(_SQL["trace_value"], metric_id, entity_id, day)
        return [ValueVersion(**row) for row in rows]

    async def trace_batches(
        self, run_id: int, entity_id: int, day: date, tasks: Sequence[tuple[str, str]]
    ) -> list[BatchRow]:
        """Return the batches of a run that asked one of ``tasks`` (source, task) for an entity and day."""
        sources, names = [source for source, _ in tasks], [name for _, name in tasks]
        async with pool.reading(self._pool, self._place) as connection:
            rows = await connection.fetch(_SQL["trace_batches"], run_id, entity_id, day, sources, names)
        return [BatchRow(**row) for row in rows]

    async def trace_score(self, entity_id: int, day: date) -> list[ScoreVersion]:
        """Return every version of a score by every method, per method the first first; the last one stands."""
        async with pool.reading(self._pool, self._place, snapshot=True) as connection:
            rows = await connection.fetch(_SQL["trace_score"], entity_id, day)
        return [ScoreVersion(**{**row, "components": tuple(orjson.loads(row["components"]))}) for row in rows]

    async def trace_inputs(
        self, metric_ids: Sequence[int], entity_id: int, first: date, last: date, at: datetime
    ) -> list[Inputs]:
        """Return what stood at a moment of an entity's values, by metric and the run that wrote them."""
        async with pool.reading(self._pool, self._place, snapshot=True) as connection:
            rows = await connection.fetch(_SQL["trace_inputs"], list(metric_ids), entity_id, first, last, at)
        return [Inputs(**row) for row in rows]


async def _columns(
    connection: Connection, layout: Layout, name: str, *arguments: Any, as_of: datetime | None
) -> dict[str, Array]:
    """Return the answer of a named query, or of its sister as of a moment, in columns."""
    if as_of is None:
        return await select_columns(connection, layout, _SQL[name], *arguments)
    return await select_columns(connection, layout, _SQL[f"{name}_as_of"], *arguments, require_aware(as_of))


def _run_row(row: asyncpg.Record) -> RunRow:
    return RunRow(**{**row, "spent": orjson.loads(row["spent"])})
