"""The night's look at its upstreams: read what the canaries go by, judge, keep the verdicts, say aloud what is broken.

It stands between crawl and score: what a violated source writes is kept out of the scores of the same night.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRIC_BY_NAME, METRICS, ORIGIN_BY_NAME, Metric
from astrid.pipeline.canaries import (
    ABSENCE,
    COMPARED_DAYS,
    DAYS,
    SERIES_FEW,
    SETTLED_DAYS,
    WEEKS,
    Bools,
    Floats,
    Panel,
    Reading,
    Verdict,
    hold,
    judge,
    list_doubters,
)
from astrid.pipeline.reconcile import reconcile
from astrid.pipeline.universe import Universe
from astrid.sources import SOURCES
from astrid.store import CanaryRow, KeptOut, Store

log = logging.getLogger(__name__)

RECONCILED_DAYS: Final = 41
"""Whole weeks of these days are compared anew each night: a weekly rotation brings the last of a history by then."""

RECONCILED_WEEKS: Final = 4
"""The canaries go by so many whole weeks."""

STAND_INS: Final[Mapping[str, tuple[str, ...]]] = {
    "pypistats": ("clickhouse_pypi",),
    "github": ("stars_daily", "ai_stars_daily"),
}
"""Origins that fill a source's metrics in its stead: what they state is no sign that it lives."""

WITNESSES: Final[Mapping[str, tuple[str, ...]]] = {"github": ("github_stars_gained",)}
"""Metrics that are not scored and that a canary needs: their absence rings, or it would end its alarm."""


async def inspect_night(store: Store, universe: Universe, day: date, run_id: int, now: datetime) -> list[CanaryRow]:
    """Compare snapshots with history, judge every source of the catalogue on the night of ``day``, and keep it all.

    Return the verdicts, by source as in the catalogue. A violation is one loud line of the log when it begins and one
    when it ends.
    """
    await reconcile(store, universe, day - timedelta(days=RECONCILED_DAYS - 1), day, now)
    nights = await store.read_asked(day - timedelta(days=DAYS - 1), day)
    last_states = await store.read_last_states(day)
    rows: list[CanaryRow] = []
    for source in dict.fromkeys(m.source for m in METRICS if m.source in SOURCES):
        own = {name: state for (of, name), state in last_states.items() if of == source}
        for verdict in judge(await read_reading(store, universe, source, day, run_id, nights, own)):
            rows.append(_row(verdict, day, run_id, now))
            _say(verdict, own.get(verdict.name) == "violated")
    await store.write_verdicts(rows)
    return rows


def _say(verdict: Verdict, rang: bool) -> None:
    if verdict.state == "violated" and not rang:
        kept_out = "" if verdict.name in ABSENCE else "what this doubts is kept out of the scores until it is sound; "
        log.error(
            "the upstream of %s breaks its contract (%s): %s; %ssee /v1/canaries",
            *(verdict.source, verdict.name, verdict.reason, kept_out),
        )
    elif verdict.state == "ok" and rang:
        log.warning(
            "the upstream of %s keeps its contract again (%s): %s", verdict.source, verdict.name, verdict.reason
        )


async def read_reading(
    store: Store,
    universe: Universe,
    source: str,
    day: date,
    run_id: int,
    nights: Mapping[tuple[str, str], Collection[date]],
    last_states: Mapping[str, str],
) -> Reading:
    """Read what the canaries of a source go by on the night of ``day``, which ``run_id`` crawled.

    ``nights`` tells when each (source, task) was asked, ``last_states`` what each of its canaries last was.
    """
    first = day - timedelta(days=DAYS - 1)
    tracked = np.array(sorted(e.entity_id for e in universe.entities(SOURCES[source].key)), np.int32)
    stand_ins = [ORIGIN_BY_NAME[name].origin_id for name in STAND_INS.get(source, ())]
    week_run = await store.read_first_run(day - timedelta(days=6), run_id)
    sound_first = first

    async def panel(metric: Metric, *, judged: bool = True) -> Panel:
        nonlocal sound_first
        days = rhythm_of(metric)
        sound = values = hold(await store.read_matrix(metric.metric_id, tracked, first, day), days)
        own = None
        if stand_ins:
            own = hold(await store.read_matrix(metric.metric_id, tracked, first, day, without=stand_ins), days)
        if judged:
            kept_out = await store.read_kept_out(source, list_doubters(metric.name))
            sound_first = day - timedelta(days=count_sound_days(kept_out, day) - 1)
            before = kept_out.doubting(week_run)
            sound = hold(await store.read_matrix(metric.metric_id, tracked, sound_first, day, before), days)
            if kept_out.accepted_from is not None:
                sound[: max(0, (kept_out.accepted_from - sound_first).days)] = np.nan
        return Panel(metric.name, metric.kind, values, sound, own, _asked(metric, first, nights))

    reading = Reading(
        source,
        day,
        tuple([await panel(metric) for metric in watched_metrics(source)]),
        was_stale=last_states.get("freshness") == "violated",
        standing=frozenset(name for name, state in last_states.items() if state == "violated"),
        also=tuple([await panel(METRIC_BY_NAME[name], judged=False) for name in WITNESSES.get(source, ())]),
    )
    if source == "hackernews":
        stories = await store.read_matrix(METRIC_BY_NAME["hn_stories"].metric_id, tracked, sound_first, day)
        return replace(reading, stories=stories)
    if source == "github":
        # Sundays of the last whole weeks that are at least a week old: a rotation is through with them.
        last = day - timedelta(days=(day.weekday() + 1) % 7 + 7)
        weeks = await store.read_reconciled_weeks(last - timedelta(days=7 * RECONCILED_WEEKS - 1), last)
        return replace(
            reading,
            history=np.array([w.history_total for w in weeks], np.float64),
            moved=np.array([w.snapshot_delta for w in weeks], np.float64),
            weeks=np.array([(last - w.week).days // 7 for w in weeks], np.int64),
        )
    if source == "depsdev":
        # Both as of their newest day of the last weeks: deps.dev is asked once a week.
        other, own = [await _newest_values(store, name, tracked, day) for name in ("depsdev_stars", "github_stars")]
        return replace(reading, other=other, own=own)
    if rereads := [t.reread_days for t in SOURCES[source].tasks.values() if t.reread_days]:
        before, after = await _read_anew(store, source, day, run_id, week_run, min(rereads), stand_ins)
        return replace(reading, before=before, after=after)
    return reading


async def _read_anew(
    store: Store, source: str, day: date, run_id: int, week_run: int, nights: int, stand_ins: Sequence[int]
) -> tuple[Floats, Floats]:
    """Return what stood before of the series that the last nights read anew, and what stands now.

    The night alone, and as many before it as it takes to have enough series: what broke or was mended since shows at
    once.
    """
    found = await store.read_anew(source, day - timedelta(days=nights - 1), day, SETTLED_DAYS + COMPARED_DAYS)
    ids, since = np.empty(0, np.int32), day
    for night, own in found:
        if len(ids) < SERIES_FEW:
            ids, since = np.union1d(ids, own), night
    metric = watched_metrics(source)[0]
    kept_out = await store.read_kept_out(source, list_doubters(metric.name))
    stood = kept_out.doubting(week_run).before(await store.read_first_run(since, run_id))
    first = day - timedelta(days=DAYS - 1)
    before = await store.read_matrix(metric.metric_id, ids, first, day, stood, without=stand_ins)
    return before, await store.read_matrix(metric.metric_id, ids, first, day, without=stand_ins)


def count_sound_days(kept_out: KeptOut, day: date) -> int:
    """Return how many days up to ``day`` have WEEKS weeks, the last among them, on which no episode lies."""
    weeks, sound = 1, 1
    while sound < WEEKS:
        last = day - timedelta(days=7 * weeks)
        first = last - timedelta(days=6)
        sound += not any(e.first_day <= last and first <= e.last_day for e in kept_out.episodes)
        weeks += 1
    return 7 * weeks


def _asked(metric: Metric, first: date, nights: Mapping[tuple[str, str], Collection[date]]) -> Bools:
    """Return, for each of DAYS days from ``first``, whether its night asked for a metric."""
    found = np.zeros(DAYS, bool)
    for task in SOURCES[metric.source].tasks.values():
        if metric.name in task.metrics:
            found[[(night - first).days for night in nights.get((metric.source, task.name), ())]] = True
    return found


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
