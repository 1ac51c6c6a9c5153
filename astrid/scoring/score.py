"""From the signals of one day to scores: percentiles, the composite, its contributions and its interval.

Everything is relative to the day: a score of 50 is the middle of the projects measured that day.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRIC_BY_NAME, METRICS
from astrid.scoring.series import F64, Bools, Flag, Signal

RANKED_MIN: Final = 30
"""With fewer entities a percentile says nothing and is left out."""

SLOW_SHARE: Final = 0.80
"""Share of the slow growth in the momentum of one metric; the rest is the last week."""

PRIOR_WEIGHT: Final = 0.15
"""Weight of the median in the composite: with little observed, the score stays near 50."""

CORROBORATION: Final = 1.5
"""Surprise of another source, within seven days, that confirms a burst."""

SUSPECT_FACTOR: Final = 0.25
"""What remains of the weight of a suspicious metric."""

BURST_CHECKED: Final = frozenset({"github_stars"})
"""Metrics that can be bought: their unconfirmed bursts and purges make them SUSPECT."""

NORMAL_80: Final = 1.28
"""Quantile of the 80 % interval of a normal error."""

Q80: Final[Mapping[str, float]] = {"github_stars": 0.48}
"""Shipped calibration of the interval, measured on the daily stars of established repositories; others are 1."""

PEER_BINS: Final = 10

_SAME_QUANTITY: Final[Mapping[str, str]] = {"github_stars_gained": "github_stars", "hn_stories": "hn_points"}
"""Two views of one thing cannot confirm each other."""

_T = TypeVar("_T", bound=np.generic)

USAGE_WEIGHT: Final = max(m.weight for m in METRICS if m.family == "usage")
"""Weight of the usage family, shared by the channels that a project has."""


@dataclass(frozen=True, slots=True)
class DayScores:
    """Scores of N entities on one day, S metrics in the order of ``metrics``; NaN = not ranked.

    ``score`` = 50 + contributions in the order of ``metrics``, in (0, 100); ``percentile`` and
    ``momentum`` are in (0, 1); ``low`` and ``high`` bound 80 % of the score, calibrated only if
    ``calibrated``. ``contributions`` are score points, 0 where ``weights`` is 0. ``growth_per_week`` is a
    fraction (0.05 = 5 %) of the metric ``growth_metric`` (index into ``metrics``, -1 = none).
    ``ranked`` counts the entities each metric was ranked among. ``peer_score`` is the same score with
    percentiles among entities of a similar level, for display beside ``score``.
    ``metric_flags`` keeps each metric's own flags; ``flags`` unites them.
    """

    metrics: tuple[str, ...]
    score: F64
    percentile: F64
    low: F64
    high: F64
    calibrated: bool
    peer_score: F64
    growth_per_week: F64
    growth_metric: npt.NDArray[np.int16]
    breadth: F64
    coverage: F64
    contributions: F64
    momentum: F64
    weights: F64
    ranked: npt.NDArray[np.int64]
    metric_flags: npt.NDArray[np.uint16]
    flags: npt.NDArray[np.uint16]

    def flagged(self, entity: int) -> dict[str, Flag]:
        """Return the flags of one entity by the metric that they come from."""
        return {name: Flag(int(f)) for name, f in zip(self.metrics, self.metric_flags[entity], strict=True) if f}


def nominal_weights(present: Mapping[str, Bools]) -> dict[str, F64]:
    """Return the weight of each metric per entity from whether the project has that source at all.

    Weights are those of the catalogue, except that the usage family's is shared equally by the
    channels that the project has, so that three package registries do not count three times.

    Raises
    ------
    KeyError
        If a name is no metric of the catalogue.
    """
    usage = [name for name in present if METRIC_BY_NAME[name].family == "usage" and METRIC_BY_NAME[name].weight > 0]
    channels = sum((present[name].astype(np.float64) for name in usage), np.zeros(1))
    weights: dict[str, F64] = {}
    for name, has in present.items():
        share = USAGE_WEIGHT / np.maximum(channels, 1) if name in usage else METRIC_BY_NAME[name].weight
        weights[name] = np.asarray(has * share, dtype=np.float64)
    return weights


def percentile(values: F64, among: F64 | None = None) -> F64:
    """Return (rank - 0.5) / n of each value, with mid-ranks for ties; NaN stays NaN and does not count.

    With ``among``, the place of each value in those numbers instead (a monotone map).
    All NaN where fewer than RANKED_MIN numbers are ranked.
    """
    among = values if among is None else among
    order = np.sort(among[~np.isnan(among)])
    place = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    if len(order) >= RANKED_MIN:
        below = np.searchsorted(order, values[known], side="left")
        up_to = np.searchsorted(order, values[known], side="right")
        place[known] = (below + up_to) / (2 * len(order))
    return place


def peer_percentile(values: F64, level: F64) -> F64:
    """Return percentiles within groups of similar level: quantile bins, at most PEER_BINS, of at least RANKED_MIN."""
    place = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values) & ~np.isnan(level))
    bins = min(PEER_BINS, len(known) // RANKED_MIN)
    if not bins:
        return place
    edges = np.quantile(level[known], np.arange(1, bins) / bins)
    group = np.searchsorted(edges, level[known], side="right")
    for g in range(bins):
        members = known[group == g]
        place[members] = percentile(values[members])
    return place


def score_day(
    signals: Mapping[str, Signal],
    weights: Mapping[str, float | F64],
    *,
    calibration: Mapping[str, float] | None = None,
    burst_checked: Collection[str] = BURST_CHECKED,
    prior_weight: float = PRIOR_WEIGHT,
) -> DayScores:
    """Score all entities of one day.

    Parameters
    ----------
    signals
        By metric; arrays of one length N, entity i at place i in all of them, NaN and ``available`` False
        where an entity has no such source. A metric without weight is not scored but can confirm a burst.
    weights
        By metric, one number or one per entity (:func:`nominal_weights`); a metric not named has 0.
    calibration
        Conformal factor of the 80 % interval by metric; None takes Q80 and says ``calibrated=False``.
    burst_checked
        Metrics that an unconfirmed burst makes SUSPECT.
    prior_weight
        Weight of the median.

    Raises
    ------
    ValueError
        If lengths differ, a weight is negative or not finite, or a weight names a metric without signal.
    """
    names = tuple(signals)
    lengths = {len(signal) for signal in signals.values()}
    if len(lengths) > 1:
        raise ValueError(f"signals must have one length, not {sorted(lengths)}")
    n = lengths.pop() if lengths else 0
    nominal = _weight_columns(names, weights, n)
    factors = Q80 if calibration is None else calibration

    shape = (n, len(names))
    available = _columns([signal.available for signal in signals.values()], shape, np.bool_)
    flags = _columns([signal.flags for signal in signals.values()], shape, np.uint16)
    growth = _columns([signal.shrunken for signal in signals.values()], shape, np.float64)
    growth[~available] = np.nan
    confirmed = _confirmed(signals, shape)
    burst = (flags & np.uint16(Flag.SPIKE)) != 0
    for s, name in enumerate(names):
        if name in burst_checked:
            suspect = (burst[:, s] & ~confirmed[:, s]) | ((flags[:, s] & np.uint16(Flag.PURGE)) != 0)
            flags[:, s] |= suspect * np.uint16(Flag.SUSPECT)

    momentum, low, high, peers = (np.full(shape, np.nan) for _ in range(4))
    ranked = np.zeros(len(names), np.int64)
    for s, (name, signal) in enumerate(signals.items()):
        g = growth[:, s]
        week = np.where(available[:, s], signal.last_week, np.nan).astype(np.float64)
        doubtful = burst[:, s] & ~confirmed[:, s]
        reach = NORMAL_80 * factors.get(name, 1.0) * signal.se.astype(np.float64)
        place, recent = percentile(g), percentile(week)
        ranked[s] = np.count_nonzero(available[:, s])
        momentum[:, s] = _blend(place, recent, doubtful)
        low[:, s] = _blend(percentile(g - reach, among=g), recent, doubtful)
        high[:, s] = _blend(percentile(g + reach, among=g), recent, doubtful)
        level = signal.level.astype(np.float64)
        peers[:, s] = _blend(peer_percentile(g, level), peer_percentile(week, level), doubtful)

    counted = available & ~np.isnan(momentum) & (nominal > 0)
    effective = np.where(counted, nominal, 0.0)
    effective[(flags & np.uint16(Flag.SUSPECT)) != 0] *= SUSPECT_FACTOR
    total = effective.sum(axis=1)
    share = effective / (prior_weight + total)[:, None]
    contributions = _points(momentum, share)
    scored = total > 0
    score = np.where(scored, _add_up(contributions), np.nan)
    down = np.sqrt(np.square(contributions - _points(low, share)).sum(axis=1))
    up = np.sqrt(np.square(_points(high, share) - contributions).sum(axis=1))
    noise = _columns([signal.se_counting for signal in signals.values()], shape, np.float64)
    growing = np.where(growth > 0.5 * noise, effective, 0.0).sum(axis=1)
    shown, source = _headline_growth(signals, np.where(counted, nominal, 0.0), growth)
    return DayScores(
        metrics=names,
        score=score,
        percentile=percentile(score),
        low=np.maximum(score - down, 0.0),
        high=np.minimum(score + up, 100.0),
        calibrated=calibration is not None
        and all(name in calibration for s, name in enumerate(names) if effective[:, s].any()),
        peer_score=_peer_score(peers, effective, prior_weight),
        growth_per_week=shown,
        growth_metric=source,
        breadth=np.divide(growing, total, out=np.full(n, np.nan), where=scored),
        coverage=total,
        contributions=contributions,
        momentum=np.where(available, momentum, np.nan),
        weights=effective,
        ranked=ranked,
        metric_flags=flags,
        flags=np.bitwise_or.reduce(flags, axis=1) if names else np.zeros(n, np.uint16),
    )


def _columns(arrays: Sequence[npt.NDArray[Any]], shape: tuple[int, int], dtype: type[_T]) -> npt.NDArray[_T]:
    """Return the arrays side by side, (N, S); there may be none."""
    table = np.zeros(shape, dtype)
    for s, a in enumerate(arrays):
        table[:, s] = a
    return table


def _weight_columns(names: tuple[str, ...], weights: Mapping[str, float | F64], n: int) -> F64:
    """Return the weights as (N, S)."""
    if missing := set(weights) - set(names):
        raise ValueError(f"weights names metrics without signal: {sorted(missing)}")
    table = np.zeros((n, len(names)))
    for s, name in enumerate(names):
        table[:, s] = weights.get(name, 0.0)
    if not (np.isfinite(table) & (table >= 0)).all():
        raise ValueError("weights must be finite and not negative")
    return table


def _confirmed(signals: Mapping[str, Signal], shape: tuple[int, int]) -> Bools:
    """Return, per entity and metric, whether another quantity was surprised upwards within the last seven days."""
    surprised = _columns([signal.z_week > CORROBORATION for signal in signals.values()], shape, np.bool_)
    quantities = [_SAME_QUANTITY.get(name, name) for name in signals]
    confirmed = np.zeros(shape, np.bool_)
    for s, quantity in enumerate(quantities):
        others = [i for i, other in enumerate(quantities) if other != quantity]
        confirmed[:, s] = surprised[:, others].any(axis=1)
    return confirmed


def _blend(place: F64, recent: F64, doubtful: Bools) -> F64:
    """Return the momentum of one metric from its percentiles of slow growth and of the last week.

    Where last week is not known the slow growth stands for it; where a burst is doubtful it cannot lift.
    """
    week = np.where(np.isnan(recent), place, recent)
    week = np.where(doubtful, np.minimum(week, place), week)
    return place + (1 - SLOW_SHARE) * (week - place)  # in this form two equal percentiles blend to themselves exactly


def _points(momentum: F64, share: F64) -> F64:
    """Return contributions in score points, 0 where a metric has no share."""
    return np.where(share > 0, 100 * share * (momentum - 0.5), 0.0)


def _add_up(contributions: F64) -> F64:
    """Return 50 + the contributions, added in the order of the metrics so that a reader can repeat it."""
    score = np.full(len(contributions), 50.0)
    for column in contributions.T:
        score += column
    return score


def _peer_score(peers: F64, effective: F64, prior_weight: float) -> F64:
    weights = np.where(np.isnan(peers), 0.0, effective)
    total = weights.sum(axis=1)
    points = _points(peers, weights / (prior_weight + total)[:, None])
    return np.where(total > 0, _add_up(points), np.nan)


def _headline_growth(signals: Mapping[str, Signal], weights: F64, growth: F64) -> tuple[F64, npt.NDArray[np.int16]]:
    """Return growth per week of the heaviest counted stock, else of the heaviest counted metric, and which it is."""
    n = len(weights)
    if not signals:
        return np.full(n, np.nan), np.full(n, -1, np.int16)
    stock = np.array([signal.kind == "stock" for signal in signals.values()])
    order = np.where(weights > 0, weights + np.where(stock, weights.sum(axis=1)[:, None], 0.0), 0.0)
    best = order.argmax(axis=1)
    rows = np.arange(n)
    found = order[rows, best] > 0
    shown = np.where(found, np.expm1(growth[rows, best]), np.nan)
    return shown, np.where(found, best, -1).astype(np.int16)
