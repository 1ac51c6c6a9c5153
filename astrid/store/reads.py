"""Reads for the API and the planner, of now or as of a moment: rows of a few projects, never whole tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

import asyncpg
import orjson

from astrid.catalog import METRIC_BY_ID
from astrid.models import Gap
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import GapRow, IdentityRow, NoteRow, ProjectRow, ScoreRow, SeriesPoint
from astrid.store.vintages import fetch_as_of

_SQL: Final = load_queries("reads")


async def read_projects(connection: Connection, as_of: datetime | None) -> list[ProjectRow]:
    """See :meth:`astrid.store.Store.read_projects`."""
    return [ProjectRow(**row) for row in await fetch_as_of(connection, _SQL, "read_projects", as_of=as_of)]


async def read_project(connection: Connection, slug: str, as_of: datetime | None) -> ProjectRow | None:
    """See :meth:`astrid.store.Store.read_project`."""
    rows = await fetch_as_of(connection, _SQL, "read_project", slug, as_of=as_of)
    if not rows:
        return None
    (row,) = rows
    found = await fetch_as_of(connection, _SQL, "read_project_identities", row["entity_id"], as_of=as_of)
    return ProjectRow(**row, identities=tuple(IdentityRow(**identity) for identity in found))


async def read_series(
    connection: Connection, slug: str, metric_id: int, start: date, end: date, as_of: datetime | None
) -> list[SeriesPoint]:
    """See :meth:`astrid.store.Store.read_series`."""
    rows = await fetch_as_of(connection, _SQL, "read_series", slug, metric_id, start, end, as_of=as_of)
    return [SeriesPoint(*row) for row in rows]


async def read_open_gaps(connection: Connection, first: date, last: date, as_of: datetime | None) -> list[Gap]:
    """See :meth:`astrid.store.Store.read_open_gaps`."""
    return [Gap(**row) for row in await fetch_as_of(connection, _SQL, "read_open_gaps", first, last, as_of=as_of)]


async def read_waiting_gaps(
    connection: Connection, first: date, last: date, asked_after: datetime, unasked: str
) -> set[tuple[int, int, date]]:
    """See :meth:`astrid.store.Store.read_waiting_gaps`."""
    rows = await connection.fetch(_SQL["read_waiting_gaps"], first, last, asked_after, unasked)
    return {(row["metric_id"], row["entity_id"], row["day"]) for row in rows}


async def read_last_tries(
    connection: Connection, first: date, last: date, unasked: str
) -> list[tuple[int, int, bool, date]]:
    """See :meth:`astrid.store.Store.read_last_tries`."""
    return [tuple(row) for row in await connection.fetch(_SQL["read_last_tries"], first, last, unasked)]


async def read_feeds(
    connection: Connection, metric_ids: Sequence[int], first: date, last: date
) -> list[tuple[int, int, date]]:
    """See :meth:`astrid.store.Store.read_feeds`."""
    return [tuple(row) for row in await connection.fetch(_SQL["read_feeds"], list(metric_ids), first, last)]


async def read_last_days(
    connection: Connection, metric_ids: Sequence[int], first: date, last: date
) -> list[tuple[int, int, date]]:
    """See :meth:`astrid.store.Store.read_last_days`."""
    return [tuple(row) for row in await connection.fetch(_SQL["read_last_days"], list(metric_ids), first, last)]


async def read_percentiles(connection: Connection, method_version: str, as_of: datetime | None) -> dict[int, float]:
    """See :meth:`astrid.store.Store.read_percentiles`."""
    return dict(map(tuple, await fetch_as_of(connection, _SQL, "read_percentiles", method_version, as_of=as_of)))


async def has_scores(connection: Connection, day: date, method_version: str, as_of: datetime | None) -> bool:
    """See :meth:`astrid.store.Store.has_scores`."""
    ((found,),) = await fetch_as_of(connection, _SQL, "has_scores", method_version, day, as_of=as_of)
    return bool(found)


async def read_gaps(connection: Connection, slug: str, as_of: datetime | None) -> list[GapRow]:
    """See :meth:`astrid.store.Store.read_gaps`."""
    return [GapRow(**row) for row in await fetch_as_of(connection, _SQL, "read_gaps", slug, as_of=as_of)]


async def read_notes(connection: Connection, metric_id: int, as_of: datetime | None) -> list[NoteRow]:
    """See :meth:`astrid.store.Store.read_notes`."""
    return [NoteRow(**row) for row in await fetch_as_of(connection, _SQL, "read_notes", metric_id, as_of=as_of)]


async def latest_scored_day(connection: Connection, method_version: str, as_of: datetime | None) -> date | None:
    """See :meth:`astrid.store.Store.latest_scored_day`."""
    ((day,),) = await fetch_as_of(connection, _SQL, "latest_scored_day", method_version, as_of=as_of)
    found: date | None = day
    return found


async def read_leaderboard(
    connection: Connection,
    day: date | None,
    category: str | None,
    limit: int,
    offset: int,
    method_version: str,
    as_of: datetime | None,
) -> list[ScoreRow]:
    """See :meth:`astrid.store.Store.read_leaderboard`."""
    page = (day, category, limit, offset, method_version)
    return [_score_row(row) for row in await fetch_as_of(connection, _SQL, "read_leaderboard", *page, as_of=as_of)]


async def read_score_history(
    connection: Connection, slug: str, days: int, method_version: str, as_of: datetime | None
) -> list[ScoreRow]:
    """See :meth:`astrid.store.Store.read_score_history`."""
    rows = await fetch_as_of(connection, _SQL, "read_score_history", slug, days, method_version, as_of=as_of)
    return [_score_row(row) for row in reversed(rows)]


def _score_row(row: asyncpg.Record) -> ScoreRow:
    by_id: dict[str, float] = orjson.loads(row["contributions"] or "{}")
    named = {METRIC_BY_ID[int(key)].name: value for key, value in by_id.items() if int(key) in METRIC_BY_ID}
    return ScoreRow(**{**row, "contributions": dict(sorted(named.items()))})
