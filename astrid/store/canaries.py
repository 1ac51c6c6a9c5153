"""Verdicts on upstreams night by night, which values they keep out of scores, and the weeks of two witnesses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import CanaryRow, ReconciledWeek

_SQL: Final = load_queries("canaries")


async def write_verdicts(connection: Connection, rows: Sequence[CanaryRow]) -> None:
    """See :meth:`astrid.store.Store.write_verdicts`."""
    for run_id, now, day in sorted({(row.run_id, row.judged_at, row.day) for row in rows}):
        own = [row for row in rows if (row.run_id, row.judged_at, row.day) == (run_id, now, day)]
        fields = ("source", "name", "state", "value", "low", "high", "reason", "first_day")
        columns = [[getattr(row, name) for row in own] for name in fields]
        await connection.execute(_SQL["write_verdicts"], run_id, now, day, *columns)


async def read_canaries(connection: Connection, day: date | None) -> list[CanaryRow]:
    """See :meth:`astrid.store.Store.read_canaries`."""
    return [CanaryRow(**row) for row in await connection.fetch(_SQL["read_canaries"], day)]


async def read_last_states(connection: Connection, before: date, since: date) -> dict[tuple[str, str], str]:
    """See :meth:`astrid.store.Store.read_last_states`."""
    rows = await connection.fetch(_SQL["read_last_states"], before, since)
    return {(row["source"], row["name"]): row["state"] for row in rows}


async def read_kept_out(connection: Connection, source: str, first: date, last: date) -> npt.NDArray[np.int64]:
    """See :meth:`astrid.store.Store.read_kept_out`."""
    runs = np.zeros((last - first).days + 1, np.int64)
    for row in await connection.fetch(_SQL["read_violations"], source, first, last):
        start, end = max(0, (row["first_day"] - first).days), (row["day"] - first).days + 1
        runs[start:end] = np.maximum(runs[start:end], row["run_id"])
    return runs


async def read_reconciliation(connection: Connection, slug: str) -> list[ReconciledWeek]:
    """See :meth:`astrid.store.Store.read_reconciliation`."""
    return [ReconciledWeek(**row) for row in await connection.fetch(_SQL["read_reconciliation"], slug)]


async def read_reconciled_weeks(connection: Connection, first: date, last: date) -> list[ReconciledWeek]:
    """See :meth:`astrid.store.Store.read_reconciled_weeks`."""
    return [ReconciledWeek(**row) for row in await connection.fetch(_SQL["read_weeks"], first, last)]
