"""Score one day: series from the store, kernels, composite, and back. The rules are all in ``astrid.scoring``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid import METHOD_VERSION
from astrid.catalog import METRIC_BY_NAME
from astrid.pipeline.canaries import list_doubters
from astrid.pipeline.universe import Universe
from astrid.scoring.kernels import run
from astrid.scoring.score import DayScores, score_day
from astrid.scoring.series import PARAMETERS, Signal
from astrid.scoring.state import FilterState
from astrid.store import ScoreColumns, ScoreComponents, Store

log = logging.getLogger(__name__)

HISTORY_DAYS: Final = 730
"""A day is scored from the two years before it: the filter's memory is a fraction of that, and the
result of a day does not depend on how much older history was imported later."""

EPOCH: Final = date(1970, 1, 1)

SETTLE_S: Final = 60.0
"""How long a scorer waits for writes under way: a backfill beside it commits batch by batch, each in seconds."""

_POLL_S: Final = 0.1


async def score_and_publish(
    store: Store, universe: Universe, day: date, run_id: int, now: Callable[[], datetime], settle_s: float = SETTLE_S
) -> int:
    """Score ``day`` from what the store holds, publish, and return how many projects are ranked.

    The scores are computed as of one moment, which is published with them: :func:`compute_scores` as of it gives the
    same ones at any later time. It is no earlier than anything that stands by now, whoever's clock stamped it.
    """
    newest = await store.read_newest_moment()
    known_at = max(now(), newest) if newest else now()
    await _settle(store, known_at, settle_s)
    columns = await compute_scores(store, universe, day, known_at)
    await store.write_scores(run_id, day, METHOD_VERSION, columns, max(now(), known_at), known_at)
    return int(np.count_nonzero(columns.rank))


async def _settle(store: Store, moment: datetime, patience_s: float) -> None:
    """Wait until every write that is stamped with ``moment`` or earlier has ended."""
    for _ in range(int(patience_s / _POLL_S)):
        if not await store.has_open_writes(moment):
            return
        await asyncio.sleep(_POLL_S)
    log.warning(
        "a write has been under way for more than %.0f s: what it brings is not in these scores, but will be in what "
        "is computed later as of their moment",
        patience_s,
    )


async def compute_scores(store: Store, universe: Universe, day: date, as_of: datetime | None = None) -> ScoreColumns:
    """Compute the scores of a day from what was known at a moment (None: now), without publishing them."""
    weights = universe.weights()
    signals = {name: await read_signal(store, universe, name, day, as_of) for name in weights}
    return to_columns(universe.entity_ids, signals, score_day(signals, weights))


async def read_signal(
    store: Store, universe: Universe, metric_name: str, day: date, as_of: datetime | None = None
) -> Signal:
    """Read one metric of all projects up to ``day``, as of a moment (None: now), and filter it.

    Of what its source wrote while a canary was violated nothing counts: what it replaced does, and where there was
    nothing there is a gap: the state of before carries on, flagged, and drops out of the score when it has been silent
    too long.
    """
    metric = METRIC_BY_NAME[metric_name]
    first = day - timedelta(days=HISTORY_DAYS - 1)
    kept_out = await store.read_kept_out(metric.source, list_doubters(metric.name), as_of=as_of)
    x = await store.read_matrix(metric.metric_id, universe.entity_ids, first, day, kept_out, as_of=as_of)
    # Days are numbered from a fixed origin, so a weekday has the same phase whatever day is scored.
    state = FilterState.empty(x.shape[1], metric.kind, day=(first - EPOCH).days)
    outputs, _ = run(x, metric.kind, state=state)
    return outputs.signal(PARAMETERS[metric.kind])


def to_columns(entity_ids: npt.NDArray[np.int32], signals: dict[str, Signal], scores: DayScores) -> ScoreColumns:
    """Lay a day's scores out as the store writes them; entities without a score are left out.

    Ranks are 1, 2, ... by falling score; equal scores by entity id, so that the order is the same every time.
    """
    n = len(entity_ids)
    scored = np.isfinite(scores.score)
    order = np.lexsort((entity_ids, -np.where(scored, scores.score, -np.inf)))
    rank = np.zeros(n, dtype=np.int32)
    rank[order] = np.arange(1, n + 1, dtype=np.int32)
    kept = np.flatnonzero(scored)
    rows, metrics = np.nonzero((scores.weights > 0) & scored[:, None])
    names = scores.metrics
    stacked = {
        field: np.stack([getattr(signals[m], field).astype(np.float64) for m in names], axis=1)
        for field in ("level", "growth_slow", "growth_fast", "z", "sustain")
    }
    components = ScoreComponents(
        entity_id=entity_ids[rows],
        metric_id=np.array([METRIC_BY_NAME[m].metric_id for m in names], dtype=np.int16)[metrics],
        level=stacked["level"][rows, metrics],
        growth=stacked["growth_slow"][rows, metrics],
        growth_fast=stacked["growth_fast"][rows, metrics],
        z=stacked["z"][rows, metrics],
        sustain=stacked["sustain"][rows, metrics],
        momentum=scores.momentum[rows, metrics],
        weight=scores.weights[rows, metrics],
        contribution=scores.contributions[rows, metrics],
        flags=scores.metric_flags[rows, metrics].astype(np.int32),
    )
    return ScoreColumns(
        entity_id=entity_ids[kept],
        score=scores.score[kept],
        lo=scores.low[kept],
        hi=scores.high[kept],
        calibrated=np.full(len(kept), scores.calibrated),
        percentile=100 * scores.percentile[kept],
        growth_per_week=scores.growth_per_week[kept],
        breadth=scores.breadth[kept],
        coverage=scores.coverage[kept],
        flags=scores.flags[kept].astype(np.int32),
        rank=rank[kept],
        components=components,
    )
