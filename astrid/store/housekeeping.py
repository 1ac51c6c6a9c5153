"""What may go, and what is counted beside: the database's own upkeep, a bounded piece of it at a time.

Nothing that was observed, missed, replaced or published is ever deleted, nor a run or that a batch was done. What may
go is a cache, and the wording of work that nobody will run again (docs/adr/0024-database-flavours.md).
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final

from astrid.store.pool import Connection, Pool, translated
from astrid.store.queries import load_queries
from astrid.store.rows import CoverageRow, Tidied
from astrid.store.transfer import affected

BODIES_KEPT: Final = timedelta(days=400)
"""A finished batch keeps its wording for so long: a night can still be traced, and held against the one a year before.

No reader goes back further: canaries and the ledger look at half a year at most.
"""

ANSWERS_KEPT: Final = timedelta(days=60)
"""An answer that nobody asked for in so long is deleted: the longest cadence is a week, so whoever asks has asked."""

PIECE: Final = 5_000
"""Rows of each kind that one call takes: more than a night adds, and done in a moment."""

_SQL: Final = load_queries("housekeeping")


async def tidy(connection: Connection, now: datetime) -> Tidied:
    """See :meth:`astrid.store.Store.tidy`; runs inside the caller's transaction."""
    emptied = await connection.execute(_SQL["empty_bodies"], now - BODIES_KEPT, PIECE)
    deleted = await connection.execute(_SQL["expire_answers"], now - ANSWERS_KEPT, PIECE)
    return Tidied(affected(emptied), affected(deleted))


async def read_coverage(connection: Connection, first: date, last: date) -> list[CoverageRow]:
    """See :meth:`astrid.store.Store.read_coverage`."""
    return [CoverageRow(**row) for row in await connection.fetch(_SQL["read_coverage"], first, last)]


async def refresh_coverage(pool: Pool, place: str) -> None:
    """Bring the kept counts up to date, where counts are kept; two at once take turns."""
    with translated(place):
        async with pool.acquire() as connection:
            async with connection.transaction(readonly=True):
                kept = await connection.fetchval(_SQL["has_aggregate"])
            if kept:
                await connection.execute(_SQL["refresh_aggregate"])
