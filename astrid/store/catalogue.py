"""What is tracked: entities, the names that upstreams give them, notes, and weekly reconciliations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final

from astrid.errors import StoreError
from astrid.models import Identity
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import Reconciliation
from astrid.store.vintages import fetch_as_of

_SQL: Final = load_queries("catalogue")


async def sync_watchlist(
    connection: Connection, listed: Sequence[tuple[str, str, str]], now: datetime
) -> dict[str, int]:
    """See :meth:`astrid.store.Store.sync_watchlist`; ``listed`` is sorted by slug."""
    slugs, names, categories = (list(column) for column in zip(*listed, strict=True)) if listed else ([], [], [])
    if len(set(slugs)) != len(slugs):
        raise StoreError("the watchlist names a slug twice: nothing was written, mend the watchlist")
    await connection.execute(_SQL["insert_entities"], slugs, names, categories, now.astimezone(UTC).date())
    await connection.execute(_SQL["update_entities"], slugs, names, categories)
    rows = await connection.fetch(_SQL["read_entity_ids"], slugs)
    return {row["slug"]: row["entity_id"] for row in rows}


async def record_identities(connection: Connection, identities: Sequence[Identity], day: date, run_id: int) -> int:
    """See :meth:`astrid.store.Store.record_identities`."""
    latest = {(i.entity_id, i.platform): i for i in identities}
    if not latest:
        return 0
    keys = sorted(latest)
    standing = {
        (row["entity_id"], row["platform"]): row
        for row in await connection.fetch(_SQL["lock_identities"], [k[0] for k in keys], [k[1] for k in keys])
    }
    fresh: list[Identity] = []
    ended: list[tuple[int, str]] = []
    replaced: list[Identity] = []
    for key in keys:
        read, row = latest[key], standing.get(key)
        if row is not None:
            if (row["upstream_id"], row["name"]) == (read.upstream_id, read.name) or row["valid_from"] > day:
                continue
            if row["valid_from"] == day:
                replaced.append(read)
                continue
            ended.append(key)
        fresh.append(read)
    if ended:
        await connection.execute(_SQL["end_identities"], [k[0] for k in ended], [k[1] for k in ended], day)
    if replaced:
        await connection.execute(_SQL["replace_identities"], *_columns(replaced), run_id)
    if fresh:
        await connection.execute(_SQL["insert_identities"], *_columns(fresh), day, run_id)
    return len(fresh) + len(replaced)


def _columns(identities: Sequence[Identity]) -> tuple[list[int], list[str], list[str], list[str]]:
    return (
        [i.entity_id for i in identities],
        [i.platform for i in identities],
        [i.upstream_id for i in identities],
        [i.name for i in identities],
    )


async def read_identities(connection: Connection, platform: str, as_of: datetime | None) -> dict[int, Identity]:
    """See :meth:`astrid.store.Store.read_identities`."""
    rows = await fetch_as_of(connection, _SQL, "read_identities", platform, as_of=as_of)
    return {
        row["entity_id"]: Identity(row["entity_id"], row["platform"], row["upstream_id"], row["name"]) for row in rows
    }


async def read_first_days(
    connection: Connection, metric_id: int, entity_ids: Sequence[int], as_of: datetime | None
) -> dict[int, date]:
    """See :meth:`astrid.store.Store.read_first_days`."""
    rows = await fetch_as_of(connection, _SQL, "read_first_days", metric_id, list(entity_ids), as_of=as_of)
    return {row["entity_id"]: row["first_day"] for row in rows}


async def record_note(
    connection: Connection, metric_id: int, first_day: date, last_day: date | None, note: str
) -> None:
    """See :meth:`astrid.store.Store.record_note`."""
    await connection.execute(_SQL["record_note"], metric_id, first_day, last_day, note)


async def record_reconciliation(connection: Connection, weeks: Sequence[Reconciliation]) -> None:
    """See :meth:`astrid.store.Store.record_reconciliation`."""
    latest = {(w.entity_id, w.week): w for w in weeks}
    rows = list(latest.values())
    await connection.execute(
        _SQL["record_reconciliation"],
        [w.entity_id for w in rows],
        [w.week for w in rows],
        [w.history_total for w in rows],
        [w.snapshot_delta for w in rows],
    )
