"""What was known when: the moment that a write is stamped with, reads as of one, and when the past is settled.

A row is stamped with the ``now`` of its write, which is taken before the commit. So an answer as of a moment is final
when nothing stamped with it or earlier is still to be committed. Every write shows its moment as a shared advisory lock
that ends with its transaction, and is refused where it begins more than LATE_S after it was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from astrid.store.literals import inline
from astrid.store.queries import load_queries

_SQL: Final = load_queries("vintages")
_ZERO: Final = datetime(2000, 1, 1, tzinfo=UTC)

LATE_S: Final = 900.0
"""A write that begins so long after it was asked for is not made: its moment lies too far back."""

SETTLED_AFTER: Final = timedelta(minutes=30)
"""So long ago nothing more is stamped, but for writes that are seen under way: LATE_S, and twice the five minutes by
which the clock of a process may differ from the database's, and some."""


def require_aware(moment: datetime) -> datetime:
    """Return a moment that has a zone.

    Raises
    ------
    ValueError
        If it has none.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone: as_of is an aware moment")
    return moment


def _second(moment: datetime) -> int:
    return max(0, int((moment - _ZERO).total_seconds()))


async def begin_write(connection: Any, now: datetime) -> None:
    """Stamp the transaction with its moment, and show that a write of it is under way."""
    stamp = require_aware(now).astimezone(UTC)
    await connection.execute(inline(_SQL["begin_write"], stamp, _second(stamp)))


async def has_open_writes(connection: Any, moment: datetime) -> bool:
    """See :meth:`astrid.store.Store.has_open_writes`."""
    oldest: int | None = await connection.fetchval(_SQL["read_oldest_write"])
    return oldest is not None and oldest <= _second(require_aware(moment))


async def read_newest_moment(connection: Any) -> datetime | None:
    """See :meth:`astrid.store.Store.read_newest_moment`."""
    moment: datetime | None = await connection.fetchval(_SQL["read_newest_moment"])
    return moment


async def fetch_as_of(
    connection: Any, queries: Mapping[str, str], name: str, *arguments: Any, as_of: datetime | None
) -> list[asyncpg.Record]:
    """Run a named query, or where a moment is given its sister ``<name>_as_of``, which takes it as last argument."""
    rows: list[asyncpg.Record]
    if as_of is None:
        rows = await connection.fetch(queries[name], *arguments)
    else:
        rows = await connection.fetch(queries[f"{name}_as_of"], *arguments, require_aware(as_of))
    return rows
