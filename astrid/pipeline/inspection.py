"""The night's look at its upstreams: read what the canaries go by, judge, keep the verdicts, say aloud what is broken.

It stands between crawl and score: a violated source's new values are kept out of the scores of the same night.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRIC_BY_NAME, METRICS, Metric
from astrid.pipeline.canaries import DAYS, Panel, Reading, Verdict, hold, judge
from astrid.pipeline.reconcile import reconcile
from astrid.pipeline.universe import Universe
from astrid.sources import SOURCES
from astrid.store import CanaryRow, Store

log = logging.getLogger(__name__)

RECONCILED_DAYS: Final = 41
"""Whole weeks of these days are compared anew each night: a weekly rotation brings the last of a history by then."""

RECONCILED_WEEKS: Final = 4
"""The canaries go by so many whole weeks."""


async def inspect_night(store: Store, universe: Universe, day: date, run_id: int, now: datetime) -> list[CanaryRow]:
    """Compare snapshots with history, judge every source of the catalogue on the night of ``day``, and keep it all.

    Return the verdicts, by source as in the catalogue. Each violation is one loud line of the log.
    """
    await reconcile(store, universe, day - timedelta(days=RECONCILED_DAYS - 1), day)
    last_states = await store.read_last_states(day, day - timedelta(days=DAYS))
    rows: list[CanaryRow] = []
    for source in dict.fromkeys(m.source for m in METRICS if m.source in SOURCES):
        was_stale = last_states.get((source, "freshness")) == "violated"
        for verdict in judge(await read_reading(store, universe, source, day, was_stale)):
            rows.append(_row(verdict, day, run_id, now))
            if verdict.state == "violated":
                log.error(
                    "the upstream of %s breaks its contract (%s): %s; what it wrote of %s to %s is kept out of the "
                    "scores, see /v1/canaries",
                    *(source, verdict.name, verdict.reason, verdict.first_day, day),
                )
    await store.write_verdicts(rows)
    return rows


async def read_reading(store: Store, universe: Universe, source: str, day: date, was_stale: bool = False) -> Reading:
    """Read what the canaries of a source go by."""
    first = day - timedelta(days=DAYS - 1)
    tracked = np.array(sorted(e.entity_id for e in universe.entities(SOURCES[source].key)), np.int32)
    kept_out = await store.read_kept_out(source, first, day)

    async def panel(metric: Metric) -> Panel:
        days = rhythm_of(metric)
        values = sound = hold(await store.read_matrix(metric.metric_id, tracked, first, day), days)
        if kept_out.any():
            sound = hold(await store.read_matrix(metric.metric_id, tracked, first, day, kept_out), days)
        return Panel(metric.name, metric.kind, values, sound)

    panels = tuple([await panel(metric) for metric in watched_metrics(source)])
    if source == "hackernews":
        stories = await store.read_matrix(METRIC_BY_NAME["hn_stories"].metric_id, tracked, first, day)
        return Reading(source, day, panels, stories, was_stale=was_stale)
    if source == "github":
        # Sundays of the last whole weeks that are at least a week old: a rotation is through with them.
        last = day - timedelta(days=(day.weekday() + 1) % 7 + 7)
        weeks = await store.read_reconciled_weeks(last - timedelta(days=7 * RECONCILED_WEEKS - 1), last)
        history = np.array([w.history_total for w in weeks], np.float64)
        moved = np.array([w.snapshot_delta for w in weeks], np.float64)
        return Reading(source, day, panels, None, history, moved, was_stale=was_stale)
    if source == "depsdev":
        # Both as of their newest day of the last weeks: deps.dev is asked once a week.
        other, own = [await _newest_values(store, name, tracked, day) for name in ("depsdev_stars", "github_stars")]
        return Reading(source, day, panels, other=other, own=own, was_stale=was_stale)
    return Reading(source, day, panels, was_stale=was_stale)


async def _newest_values(
    store: Store, metric_name: str, entity_ids: npt.NDArray[np.int32], day: date
) -> npt.NDArray[np.float64]:
    """Return the newest value of the last two weeks per entity; NaN without one."""
    metric = METRIC_BY_NAME.get(metric_name)
    found = np.full(len(entity_ids), np.nan)
    if metric is not None:
        for row in await store.read_matrix(metric.metric_id, entity_ids, day - timedelta(days=13), day):
            found = np.where(np.isfinite(row), row, found)
    return found


def watched_metrics(source: str) -> tuple[Metric, ...]:
    """Return the metrics that speak for a source: its first in the catalogue, and those that are scored."""
    own = [metric for metric in METRICS if metric.source == source]
    return (*own[:1], *(metric for metric in own[1:] if metric.weight > 0))


def rhythm_of(metric: Metric) -> int:
    """Return how many days lie between two values of a metric by plan: 1 but for snapshots that are taken weekly."""
    tasks = SOURCES[metric.source].tasks.values()
    return max((t.cadence_days for t in tasks if t.timing == "snapshot" and metric.name in t.metrics), default=1) or 1


def list_violated(rows: Sequence[CanaryRow]) -> list[str]:
    """Return ``source (canary, canary)`` for each source with a violated canary."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.state == "violated":
            names.setdefault(row.source, []).append(row.name)
    return [f"{source} ({', '.join(own)})" for source, own in names.items()]


def _row(verdict: Verdict, day: date, run_id: int, now: datetime) -> CanaryRow:
    return CanaryRow(
        verdict.source, verdict.name, day, verdict.state, verdict.value, verdict.low, verdict.high, verdict.reason,
        verdict.first_day, run_id, now,
    )  # fmt: skip
