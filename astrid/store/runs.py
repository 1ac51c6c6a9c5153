"""Runs and their batches: what was planned, what is open, what it cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

import orjson

from astrid.errors import Malformed, StoreError
from astrid.models import Batch
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import CostRow, Progress, RunRow
from astrid.wire import decode_batch, encode_batch

_SQL: Final = load_queries("runs")


async def start_run(
    connection: Connection, kind: str, day: date, code_version: str, method_version: str, now: datetime
) -> int:
    """See :meth:`astrid.store.Store.start_run`."""
    return int(await connection.fetchval(_SQL["start_run"], kind, day, code_version, method_version, now))


async def finish_run(
    connection: Connection, run_id: int, state: str, spent: Mapping[str, int], note: str, now: datetime
) -> None:
    """See :meth:`astrid.store.Store.finish_run`."""
    body = orjson.dumps(dict(spent)).decode()
    if await connection.fetchval(_SQL["finish_run"], run_id, state, body, note, now) is None:
        raise StoreError(f"run {run_id} is not in the database: start_run must come first")


async def read_runs(connection: Connection, limit: int) -> list[RunRow]:
    """See :meth:`astrid.store.Store.read_runs`."""
    rows = await connection.fetch(_SQL["read_runs"], limit)
    return [RunRow(**{**row, "spent": orjson.loads(row["spent"])}) for row in rows]


async def plan_batches(connection: Connection, run_id: int, batches: Sequence[Batch], now: datetime) -> int:
    """See :meth:`astrid.store.Store.plan_batches`."""
    by_id = {batch.batch_id: batch for batch in batches}
    planned = list(by_id.values())
    rows = await connection.fetch(
        _SQL["plan_batches"],
        run_id,
        [b.batch_id for b in planned],
        [b.source for b in planned],
        [b.task for b in planned],
        [b.day for b in planned],
        [b.lane for b in planned],
        [encode_batch(b).decode() for b in planned],
        now,
        [b.requests for b in planned],
    )
    entered = [by_id[row["batch_id"]] for row in rows]
    if entered:
        requests, points = sum(b.requests for b in entered), sum(b.points for b in entered)
        await connection.execute(_SQL["grow_plan"], run_id, requests, points)
    return len(entered)


async def write_planned(
    connection: Connection, run_id: int, planned: Mapping[tuple[str, str], tuple[int, int, float]]
) -> None:
    """See :meth:`astrid.store.Store.write_planned`."""
    columns = zip(*((*key, *cost) for key, cost in planned.items()), strict=True)
    if planned:
        await connection.execute(_SQL["write_planned"], run_id, *map(list, columns))


async def write_spent(connection: Connection, run_id: int, spent: Mapping[tuple[str, str], tuple[int, int]]) -> None:
    """See :meth:`astrid.store.Store.write_spent`."""
    columns = zip(*((*key, *cost) for key, cost in spent.items()), strict=True)
    if spent:
        await connection.execute(_SQL["write_spent"], run_id, *map(list, columns))


async def read_costs(connection: Connection, run_ids: Sequence[int]) -> list[CostRow]:
    """See :meth:`astrid.store.Store.read_costs`."""
    return [CostRow(**row) for row in await connection.fetch(_SQL["read_costs"], list(run_ids))]


async def open_batches(connection: Connection, run_id: int) -> list[Batch]:
    """See :meth:`astrid.store.Store.open_batches`."""
    rows = await connection.fetch(_SQL["open_batches"], run_id)
    try:
        return [dataclasses.replace(decode_batch(row["body"]), run_id=run_id) for row in rows]
    except Malformed as exc:
        raise StoreError(f"run {run_id} keeps a batch of another version of Astrid: plan the run again") from exc


async def progress(connection: Connection, run_id: int) -> list[Progress]:
    """See :meth:`astrid.store.Store.progress`."""
    return [Progress(**row) for row in await connection.fetch(_SQL["progress"], run_id)]


async def read_finished(connection: Connection, batch_ids: Sequence[str]) -> set[str]:
    """See :meth:`astrid.store.Store.read_finished`."""
    return {row["batch_id"] for row in await connection.fetch(_SQL["read_finished"], list(batch_ids))}


async def lock_batch(connection: Connection, batch: Batch, now: datetime) -> str:
    """Lock a batch's row until the transaction ends and return its state; enter it as planned where it is not there."""
    state: str | None = await connection.fetchval(_SQL["lock_batch"], batch.run_id, batch.batch_id)
    if state is None:
        await plan_batches(connection, batch.run_id, [batch], now)
        state = await connection.fetchval(_SQL["lock_batch"], batch.run_id, batch.batch_id)
    assert state is not None, "the row was inserted, or another transaction's was waited for"
    return state


async def settle_batch(
    connection: Connection, batch: Batch, state: str, requests: int, reason: str, now: datetime
) -> None:
    """Write a batch's end."""
    await connection.execute(_SQL["settle_batch"], batch.run_id, batch.batch_id, state, requests, reason, now)


async def count_attempt(connection: Connection, batch: Batch, now: datetime) -> None:
    """Note that a batch that was settled came in once more."""
    await connection.execute(_SQL["count_attempt"], batch.run_id, batch.batch_id, now)
