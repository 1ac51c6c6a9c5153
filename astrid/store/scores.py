"""Publication of scores: a published score is never altered, only superseded."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

import numpy as np

from astrid.errors import StoreError
from astrid.store.copy import Layout
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import ScoreColumns, ScoreCounts
from astrid.store.transfer import copy_rows

_SQL: Final = load_queries("scores")
_SCORES: Final = Layout(
    entity_id="int4",
    score="float8",
    lo="float8",
    hi="float8",
    calibrated="bool",
    percentile="float8",
    growth_per_week="float8",
    breadth="float8",
    coverage="float8",
    flags="int4",
    rank="int4",
)
_COMPONENTS: Final = Layout(
    entity_id="int4",
    metric_id="int2",
    level="float8",
    growth="float8",
    growth_fast="float8",
    z="float8",
    sustain="float8",
    momentum="float8",
    weight="float8",
    contribution="float8",
    flags="int4",
)


async def write_scores(
    connection: Connection,
    run_id: int,
    day: date,
    method_version: str,
    columns: ScoreColumns,
    now: datetime,
    known_at: datetime | None,
) -> ScoreCounts:
    """See :meth:`astrid.store.Store.write_scores`; runs inside the caller's transaction."""
    parts = columns.components
    if bool((columns.score != columns.score).any()):
        raise StoreError(f"a score of {day} is not a number: leave the entity out, nothing was written")
    if not bool(np.isin(parts.entity_id, columns.entity_id).all()):
        raise StoreError(f"a score of {day} has parts but no score: nothing was written")
    await connection.execute(_SQL["lock_day"], method_version, day)
    await connection.execute(_SQL["create_given"])
    given = {name: getattr(columns, name) for name in _SCORES.names}
    await copy_rows(connection, "given", _SCORES, given, len(columns))
    given = {name: getattr(parts, name) for name in _COMPONENTS.names}
    await copy_rows(connection, "given_component", _COMPONENTS, given, len(parts.entity_id))
    await connection.execute(_SQL["analyze_given"])
    await connection.execute(_SQL["mark_changes"], method_version, day)
    changes = {row["kind"]: row["count"] for row in await connection.fetch(_SQL["count_changes"])}
    if changes:
        # Clocks differ: what supersedes a score never comes before it, or both would be published at one moment.
        last: datetime | None = await connection.fetchval(_SQL["read_last_publication"], method_version, day)
        moment = max(now, last) if last else now
        await connection.execute(_SQL["keep_superseded"], method_version, day, moment, run_id)
        await connection.execute(_SQL["drop_superseded"], method_version, day)
        await connection.execute(_SQL["publish_scores"], method_version, day, moment, run_id)
        await connection.execute(_SQL["publish_components"], method_version, day)
        await connection.execute(_SQL["record_publication"], method_version, day, moment, run_id, known_at)
    new, superseded = changes.get("new", 0), changes.get("superseded", 0)
    return ScoreCounts(new, superseded, len(columns) - new - superseded, changes.get("withdrawn", 0))
