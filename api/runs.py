"""The bodies of the answers about runs, and about the run behind a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from api.answers import metric_name
from api.series import exact, origin_name
from astrid.pipeline.trace import TracedScore, TracedValue, ValueTrace
from astrid.store import BatchCount, BatchRow, CostRow, GapCount, RunRow

DEAD_MAX: Final = 100
GAPS_MAX: Final = 100


def _ended(run: RunRow) -> datetime:
    return (run.finished_at or run.started_at).astimezone(UTC)


def _share(counts: Sequence[BatchCount]) -> float:
    """Return the share of batches that ended well; those that were split are not counted, their parts are."""
    total = sum(c.count for c in counts if c.state != "split")
    return sum(c.count for c in counts if c.state == "done") / total if total else 1.0


def run_item(run: RunRow, counts: Sequence[BatchCount]) -> dict[str, Any]:
    """Return one run in a list; ``counts`` are those of its batches."""
    batches: dict[str, int] = {}
    for count in counts:
        batches[count.state] = batches.get(count.state, 0) + count.count
    return {
        "run_id": run.run_id,
        "kind": run.kind,
        "day": run.day,
        "state": run.state,
        "code_version": run.code_version,
        "method_version": run.method_version,
        "started_at": run.started_at.astimezone(UTC),
        "finished_at": run.finished_at.astimezone(UTC) if run.finished_at else None,
        "planned_requests": run.planned_requests,
        "planned_points": run.planned_points,
        "batches": batches,
        "requests": sum(c.requests for c in counts if c.state == "done"),
        "note": run.note,
    }


def runs_body(
    runs: Sequence[RunRow], counts: Sequence[BatchCount], total: int, limit: int, offset: int
) -> dict[str, Any]:
    """Return a page of runs."""
    return {
        "as_of": max(map(_ended, runs), default=None),
        "coverage": _share(counts),
        "total": total,
        "limit": limit,
        "offset": offset,
        "items": [run_item(run, [c for c in counts if c.run_id == run.run_id]) for run in runs],
    }


def run_body(
    run: RunRow,
    counts: Sequence[BatchCount],
    costs: Sequence[CostRow],
    dead: Sequence[BatchRow],
    gaps: Sequence[GapCount],
    healed: Mapping[int, int],
    scores: int,
) -> dict[str, Any]:
    """Return one run with all that is known of it."""
    return {
        **run_item(run, counts),
        "as_of": _ended(run),
        "coverage": _share(counts),
        "costs": [
            {
                "upstream": cost.upstream,
                "bucket": cost.bucket,
                "planned_requests": cost.planned_requests,
                "planned_points": cost.planned_points,
                "planned_hours": cost.planned_hours,
                "spent_requests": cost.spent_requests,
                "spent_points": cost.spent_points,
            }
            for cost in costs
        ],
        "work": [
            {
                "source": count.source,
                "task": count.task,
                "state": count.state,
                "count": count.count,
                "requests": count.requests,
                "attempts": count.attempts,
            }
            for count in counts
        ],
        "dead": [batch_body(batch) | {"reason": batch.reason} for batch in dead],
        "gaps": [
            {"metric": metric_name(gap.metric_id), "reason": gap.reason, "count": gap.count, "open": gap.open}
            for gap in gaps[:GAPS_MAX]
        ],
        "gap_count": sum(gap.count for gap in gaps),
        "healed": {metric_name(metric_id): count for metric_id, count in healed.items()},
        "scores": scores,
    }


def batch_body(batch: BatchRow) -> dict[str, Any]:
    """Return one batch."""
    return {
        "batch_id": batch.batch_id,
        "source": batch.source,
        "task": batch.task,
        "first_day": batch.first_day,
        "last_day": batch.last_day,
        "entities": batch.entities,
        "attempts": batch.attempts,
    }


def traced_run(run: RunRow | None) -> dict[str, Any] | None:
    """Return the run behind a number."""
    if run is None:
        return None
    names = ("run_id", "kind", "day", "state", "code_version", "method_version")
    return {name: getattr(run, name) for name in names} | {
        "started_at": run.started_at.astimezone(UTC),
        "finished_at": run.finished_at.astimezone(UTC) if run.finished_at else None,
    }


def value_trace_body(slug: str, metric: str, day: date, trace: ValueTrace) -> dict[str, Any]:
    """Return every version of a value."""
    standing = [v.version.observed_at for v in trace.values if v.version.superseded_at is None]
    gap = trace.gap
    return {
        "slug": slug,
        "metric": metric,
        "day": day,
        "as_of": standing[-1].astimezone(UTC) if standing else None,
        "coverage": float(bool(standing)),
        "versions": [_value_body(value) for value in trace.values],
        "scores": [],
        "gap": {
            "reason": gap.reason,
            "attempts": gap.attempts,
            "retry": gap.retry,
            "first_seen_at": gap.first_seen_at.astimezone(UTC),
            "last_seen_at": gap.last_seen_at.astimezone(UTC),
            "healed_at": gap.healed_at.astimezone(UTC) if gap.healed_at else None,
            "run_id": gap.run_id,
            "healed_run": gap.healed_run,
            "run": traced_run(trace.gap_run),
        }
        if gap
        else None,
    }


def _value_body(value: TracedValue) -> dict[str, Any]:
    version = value.version
    return {
        "value": exact(version.value),
        "origin": origin_name(version.origin_id),
        "observed_at": version.observed_at.astimezone(UTC),
        "superseded_at": version.superseded_at.astimezone(UTC) if version.superseded_at else None,
        "superseded_by_run": version.superseded_by_run,
        "run_id": version.run_id,
        "run": traced_run(value.run),
        "batches": [batch_body(batch) for batch in value.batches],
    }


def score_trace_body(slug: str, day: date, scores: Sequence[TracedScore]) -> dict[str, Any]:
    """Return every version of a score."""
    standing = [s.version.published_at for s in scores if s.version.superseded_at is None]
    return {
        "slug": slug,
        "metric": "score",
        "day": day,
        "as_of": max(standing).astimezone(UTC) if standing else None,
        "coverage": float(bool(standing)),
        "versions": [],
        "scores": [_score_body(score) for score in scores],
        "gap": None,
    }


def _score_body(score: TracedScore) -> dict[str, Any]:
    version = score.version
    return {
        "method_version": version.method_version,
        "score": version.score,
        "interval": [version.lo, version.hi],
        "rank": version.rank,
        "published_at": version.published_at.astimezone(UTC),
        "superseded_at": version.superseded_at.astimezone(UTC) if version.superseded_at else None,
        "superseded_by_run": version.superseded_by_run,
        "run_id": version.run_id,
        "run": traced_run(score.run),
        "first_day": score.first,
        "last_day": score.last,
        "known_at": score.at.astimezone(UTC),
        "known_at_noted": score.stated,
        "inputs": [
            {
                "metric": part.metric,
                "weight": part.weight,
                "contribution": part.contribution,
                "values": part.values,
                "first_day": min((row.first_day for row in part.sources), default=None),
                "last_day": max((row.last_day for row in part.sources), default=None),
                "runs": {str(row.run_id): row.count for row in part.sources},
            }
            for part in score.inputs
        ],
    }
