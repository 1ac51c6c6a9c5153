"""Where one number comes from: every version of a value or a score, with the run, the batch and the input behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from astrid.catalog import METRIC_BY_ID, Metric
from astrid.pipeline.score import HISTORY_DAYS
from astrid.sources import SOURCES
from astrid.store import BatchRow, GapEntry, Inputs, RunRow, ScoreVersion, Store, ValueVersion


@dataclass(frozen=True, slots=True)
class TracedValue:
    """One version of a value, the run that wrote it, and the batches of that run that may have brought it.

    One batch is the one; several asked for the same, none means that it was not written by a batch.
    """

    version: ValueVersion
    run: RunRow | None
    batches: tuple[BatchRow, ...]


@dataclass(frozen=True, slots=True)
class TracedInput:
    """What a score was computed from of one metric: the values from ``first`` to ``last`` that stood at a moment.

    ``weight`` and ``contribution`` are those of the score; ``sources`` the values by the run that wrote them.
    """

    metric: str
    weight: float | None
    contribution: float | None
    sources: tuple[Inputs, ...]

    @property
    def values(self) -> int:
        """How many values stood."""
        return sum(part.count for part in self.sources)


@dataclass(frozen=True, slots=True)
class TracedScore:
    """One version of a score, its run, and its input: values of the days ``first`` to ``last`` as of ``at``.

    ``stated``: the moment was noted; else it is that of the publication, and what came in between may differ.
    """

    version: ScoreVersion
    run: RunRow | None
    first: date
    last: date
    at: datetime
    stated: bool
    inputs: tuple[TracedInput, ...]


@dataclass(frozen=True, slots=True)
class ValueTrace:
    """All that is known of a metric of an entity on one day; ``gap`` is the ledger's row, with the run that gave it."""

    values: tuple[TracedValue, ...]
    gap: GapEntry | None
    gap_run: RunRow | None


async def trace_value(store: Store, metric: Metric, entity_id: int, day: date) -> ValueTrace:
    """Return every version of a value, the first first, and the ledger's row of it."""
    versions = await store.ledger.trace_value(metric.metric_id, entity_id, day)
    key = (metric.metric_id, entity_id, day)
    gap = (await store.ledger.read_entries([key])).get(key)
    gap_run = gap.run_id if gap else None
    runs = await store.ledger.read_runs_by_id([*(v.run_id for v in versions), *([gap_run] if gap_run else [])])
    tasks = [
        (source.name, task.name)
        for source in SOURCES.values()
        for task in source.tasks.values()
        if metric.name in (*task.metrics, *task.also)
    ]
    values = []
    for version in versions:
        batches = await store.ledger.trace_batches(version.run_id, entity_id, day, tasks)
        values.append(TracedValue(version, runs.get(version.run_id), _find_batches(version, batches)))
    return ValueTrace(tuple(values), gap, runs.get(gap_run) if gap_run else None)


def _find_batches(version: ValueVersion, batches: Sequence[BatchRow]) -> tuple[BatchRow, ...]:
    """Return the batch that ended at the moment of a value; where none did, those that ended well and may have."""
    done = [batch for batch in batches if batch.state == "done"]
    return tuple([batch for batch in done if batch.updated_at == version.observed_at] or done)


async def trace_score(store: Store, entity_id: int, day: date) -> tuple[TracedScore, ...]:
    """Return every version of a score by every method, with what each was computed from."""
    versions = await store.ledger.trace_score(entity_id, day)
    runs = await store.ledger.read_runs_by_id([v.run_id for v in versions])
    first = day - timedelta(days=HISTORY_DAYS - 1)
    scores = []
    for version in versions:
        at = version.known_at or version.published_at
        parts = {int(part["metric_id"] or 0): part for part in version.components}
        found = await store.ledger.trace_inputs(list(parts), entity_id, first, day, at)
        inputs = tuple(
            TracedInput(
                METRIC_BY_ID[metric_id].name if metric_id in METRIC_BY_ID else f"metric_{metric_id}",
                part["weight"],
                part["contribution"],
                tuple(row for row in found if row.metric_id == metric_id),
            )
            for metric_id, part in parts.items()
        )
        run = runs.get(version.run_id)
        scores.append(TracedScore(version, run, first, day, at, version.known_at is not None, inputs))
    return tuple(scores)
