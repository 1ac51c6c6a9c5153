"""Runs and their batches: what was planned, what is open, what it cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final, assert_never

import orjson

from astrid.errors import Malformed, StoreError, StoreRefused
from astrid.models import Batch, DeadLetter, Done, Split
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import Begun, CostRow, OpenRun, Progress, RunRow
from astrid.store.transfer import affected
from astrid.store.vintages import fetch_as_of
from astrid.wire import decode_batch, encode_batch

_SQL: Final = load_queries("runs")


async def start_run(
    connection: Connection, kind: str, day: date, code_version: str, method_version: str, now: datetime
) -> int:
    """See :meth:`astrid.store.Store.start_run`."""
    return int(await connection.fetchval(_SQL["start_run"], kind, day, code_version, method_version, now))


async def open_run(
    connection: Connection, kind: str, day: date, code_version: str, method_version: str, now: datetime
) -> OpenRun:
    """See :meth:`astrid.store.Store.open_run`; runs inside the caller's transaction, which holds the lock."""
    await connection.execute(_SQL["lock_runs"], kind, day)
    found = await connection.fetchrow(_SQL["find_open_run"], kind, day)
    if found is None:
        return OpenRun(await start_run(connection, kind, day, code_version, method_version, now), "running", now, False)
    await connection.execute(_SQL["reopen_run"], found["run_id"], code_version, method_version)
    await connection.execute(_SQL["supersede_runs"], kind, day, found["run_id"], now)
    return OpenRun(**found)


async def read_last_run(connection: Connection, kind: str, day: date) -> OpenRun | None:
    """See :meth:`astrid.store.Store.read_last_run`."""
    row = await connection.fetchrow(_SQL["read_last_run"], kind, day)
    return None if row is None else OpenRun(**row)


async def finish_run(
    connection: Connection, run_id: int, state: str, spent: Mapping[str, int], note: str, now: datetime
) -> None:
    """See :meth:`astrid.store.Store.finish_run`."""
    body = orjson.dumps(dict(spent)).decode()
    if await connection.fetchval(_SQL["finish_run"], run_id, state, body, note, now) is None:
        raise StoreError(f"run {run_id} is not in the database: start_run must come first")


async def read_runs(connection: Connection, limit: int, as_of: datetime | None) -> list[RunRow]:
    """See :meth:`astrid.store.Store.read_runs`."""
    rows = await fetch_as_of(connection, _SQL, "read_runs", limit, as_of=as_of)
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
        if not affected(await connection.execute(_SQL["grow_plan"], run_id, requests, points)):
            # What it would bring could be traced to nothing.
            raise StoreRefused(f"run {run_id} is not in this database: its batches are another one's, plan them anew")
    return len(entered)


async def write_planned(
    connection: Connection, run_id: int, planned: Mapping[tuple[str, str], tuple[int, int, float]]
) -> None:
    """See :meth:`astrid.store.Store.write_planned`."""
    columns = zip(*((*key, *cost) for key, cost in planned.items()), strict=True)
    if planned:
        await connection.execute(_SQL["write_planned"], run_id, *map(list, columns))


async def add_spent(connection: Connection, run_id: int, spent: Mapping[tuple[str, str], tuple[int, int]]) -> None:
    """See :meth:`astrid.store.Store.add_spent`."""
    columns = zip(*((*key, *cost) for key, cost in spent.items()), strict=True)
    if spent:
        await connection.execute(_SQL["add_spent"], run_id, *map(list, columns))


async def read_costs(connection: Connection, run_ids: Sequence[int], as_of: datetime | None) -> list[CostRow]:
    """See :meth:`astrid.store.Store.read_costs`."""
    return [CostRow(**row) for row in await fetch_as_of(connection, _SQL, "read_costs", list(run_ids), as_of=as_of)]


async def open_batches(connection: Connection, run_id: int, *, unpublished: bool = False) -> list[Batch]:
    """See :meth:`astrid.store.Store.open_batches`."""
    rows = await connection.fetch(_SQL["unpublished_batches" if unpublished else "open_batches"], run_id)
    return [_decode(row["body"], run_id) for row in rows]


async def mark_published(connection: Connection, run_id: int, batch_ids: Sequence[str]) -> None:
    """See :meth:`astrid.store.Store.mark_published`."""
    await connection.execute(_SQL["mark_published"], run_id, list(batch_ids))


async def begin_batch(
    connection: Connection, batch: Batch, hold_s: float, now: datetime, *, suspect: bool = False
) -> Begun:
    """See :meth:`astrid.store.Store.begin_batch`."""
    arguments = (batch.run_id, batch.batch_id, hold_s, int(suspect))
    row = await connection.fetchrow(_SQL["begin_batch"], *arguments)
    if row is None:
        await plan_batches(connection, batch.run_id, [batch], now)
        row = await connection.fetchrow(_SQL["begin_batch"], *arguments)
    assert row is not None, "the row was inserted, or another transaction's was waited for"
    return Begun(row["state"], row["suspect_starts"])


async def expect_batch(connection: Connection, batch: Batch, delay_s: float) -> None:
    """See :meth:`astrid.store.Store.expect_batch`."""
    await connection.execute(_SQL["expect_batch"], batch.run_id, batch.batch_id, delay_s)


async def claim_lost(
    connection: Connection, run_id: int, sources: Sequence[str], overdue_s: float, limit: int
) -> list[Batch]:
    """See :meth:`astrid.store.Store.claim_lost`."""
    rows = await connection.fetch(_SQL["claim_lost"], run_id, list(sources), overdue_s, limit)
    lost = [_decode(row["body"], run_id) for row in rows]
    return sorted(lost, key=lambda b: (b.source, b.batch_id))


async def read_working_runs(connection: Connection, sources: Sequence[str]) -> dict[int, dict[str, int]]:
    """See :meth:`astrid.store.Store.read_working_runs`."""
    found: dict[int, dict[str, int]] = {}
    for row in await connection.fetch(_SQL["read_working_runs"], list(sources)):
        found.setdefault(row["run_id"], {})[row["source"]] = row["count"]
    return found


async def progress(connection: Connection, run_id: int) -> list[Progress]:
    """See :meth:`astrid.store.Store.progress`."""
    return [Progress(**row) for row in await connection.fetch(_SQL["progress"], run_id)]


async def read_finished(connection: Connection, batch_ids: Sequence[str]) -> set[str]:
    """See :meth:`astrid.store.Store.read_finished`."""
    return {row["batch_id"] for row in await connection.fetch(_SQL["read_finished"], list(batch_ids))}


async def settle_batch(
    connection: Connection, batch: Batch, outcome: Done | Split | DeadLetter, now: datetime
) -> tuple[str, bool]:
    """Lock a batch's row until the transaction ends and write its end; return its state before, and whether that stays.

    A batch that is not there is entered first. Of one that was settled only the attempt is counted.
    """
    match outcome:
        case Done(requests=requests):
            end = ("done", requests, "")
        case Split(reason=reason):
            end = ("split", 0, reason)
        case DeadLetter(reason=reason):
            end = ("dead", 0, reason)
        case _ as never:
            assert_never(never)
    row = await connection.fetchrow(_SQL["settle_batch"], batch.run_id, batch.batch_id, *end, now)
    if row is None:
        await plan_batches(connection, batch.run_id, [batch], now)
        row = await connection.fetchrow(_SQL["settle_batch"], batch.run_id, batch.batch_id, *end, now)
    assert row is not None, "the row was inserted, or another transaction's was waited for"
    return row["state"], row["settled"]


def _decode(body: str, run_id: int) -> Batch:
    try:
        return dataclasses.replace(decode_batch(body), run_id=run_id)
    except Malformed as exc:
        raise StoreError(f"run {run_id} keeps a batch of another version of Astrid: plan the run again") from exc
