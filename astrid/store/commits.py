"""The end of a batch: what it found and how it ended, in one transaction that comes before the acknowledgement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, assert_never

from astrid.catalog import METRIC_BY_ID
from astrid.models import Batch, DeadLetter, Done, Gap, Split
from astrid.store import catalogue, runs
from astrid.store.observations import write_observations
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import CommitCounts
from astrid.store.transfer import affected

_SQL: Final = load_queries("observations")


async def commit_batch(
    connection: Connection, batch: Batch, outcome: Done | Split | DeadLetter, now: datetime, gaps: Sequence[Gap]
) -> CommitCounts:
    """See :meth:`astrid.store.Store.commit_batch`; runs inside the caller's transaction.

    The batch is settled first, so a second delivery waits here and then finds it settled. A settled batch is never
    written again: a snapshot crawled twice would otherwise look like a change of the value.
    """
    before, settled = await runs.settle_batch(connection, batch, outcome, now)
    if settled:
        return CommitCounts(already=True, state=before)
    match outcome:
        case Done(observations=found):
            written = await write_observations(connection, found, batch.run_id, now)
            missing = await write_gaps(connection, [*found.gaps, *gaps], batch.run_id, now)
            await catalogue.record_identities(connection, found.identities, batch.day, batch.run_id)
            return CommitCounts(written, missing)
        case Split(parts=parts):
            entered = await runs.plan_batches(connection, batch.run_id, parts, now)
            missing = await write_gaps(connection, gaps, batch.run_id, now)
            return CommitCounts(gaps=missing, parts=entered)
        case DeadLetter():
            missing = await write_gaps(connection, gaps, batch.run_id, now)
            return CommitCounts(gaps=missing)
        case _ as never:
            assert_never(never)


async def write_gaps(connection: Connection, gaps: Sequence[Gap], run_id: int | None, now: datetime) -> int:
    """See :meth:`astrid.store.Store.write_gaps`; of two gaps with one key the later is written."""
    latest = {(g.metric_id, g.entity_id, g.day): g for g in gaps if g.metric_id in METRIC_BY_ID}
    if not latest:
        return 0
    rows = list(latest.values())
    status = await connection.execute(
        _SQL["write_gaps"],
        [g.metric_id for g in rows],
        [g.entity_id for g in rows],
        [g.day for g in rows],
        [g.reason for g in rows],
        [g.retry for g in rows],
        now,
        run_id,
        min(g.day for g in rows),
        max(g.day for g in rows),
    )
    return affected(status)
