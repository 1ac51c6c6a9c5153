"""The walk forward: every evaluated day is scored with what was known on it, then held against what came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.evaluation.baselines import RULES, growth
from astrid.evaluation.bootstrap import RESAMPLES, Estimate, block_dates, draw_weights, estimate
from astrid.evaluation.forecast import Forecast, Forecaster
from astrid.evaluation.measures import MEASURES, measure
from astrid.evaluation.panel import Day, Panel
from astrid.evaluation.star_score import VERSIONS, Version, open_score
from astrid.evaluation.targets import Values, realised_growth

SAMPLE_MIN: Final = 30
"""A day with fewer repositories in the common sample is not evaluated."""

SCORE: Final = "score"
FORECAST: Final = "forecast"

COVERAGES: Final[Mapping[str, tuple[str, str]]] = {"coverage_80": ("lo80", "hi80"), "coverage_95": ("lo95", "hi95")}

RECENT: Final = growth(28)
"""Today's growth, by which a breakout is new or not."""


@dataclass(frozen=True, slots=True)
class ScoredDay:
    """What was said on one day about the repositories at ``columns`` of the panel; NaN = nothing."""

    row: int
    columns: npt.NDArray[np.intp]
    score: Values
    forecast: Forecast | None


@dataclass(frozen=True, slots=True)
class HorizonResult:
    """The measures of one horizon.

    ``rows`` and ``differences`` map a predictor, or a pair (a minus b), to its estimates by measure;
    ``coverage`` holds the share of realised growth inside the forecast's intervals. ``repos``, ``chance`` and
    ``new_chance`` are means over the dates: the common sample, and what blind picks would reach.
    """

    horizon: int
    days: tuple[Day, ...]
    block: int
    repos: float
    chance: float
    new_chance: float
    rows: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[tuple[str, str], Mapping[str, Estimate]]
    coverage: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Result:
    """What the walk found: per horizon the measures, and every day that was scored."""

    version: Version
    scored: tuple[ScoredDay, ...]
    horizons: tuple[HorizonResult, ...]


def evaluated_rows(panel: Panel, first: Day, last: Day, every: int) -> list[int]:
    """Return the rows of the days ``first``, ``first + every``, ... up to ``last`` that the panel holds."""
    start, end = panel.locate(first), min(panel.locate(last), len(panel.stars) - 1)
    return [row for row in range(start, end + 1, every) if row >= 0]


def evaluate(
    panel: Panel,
    rows: Sequence[int],
    horizons: Sequence[int],
    *,
    version: Version = "1.1",
    every: int = 7,
    forecaster: Forecaster | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """Score the days of ``rows`` (ascending) and measure score, forecast and baselines over each horizon.

    All predictors of a day are measured on the same repositories: those for which every one of them and the
    realised growth is known. On days for which the forecaster has no answer its row is left out, not the day.

    Parameters
    ----------
    version
        Version of the score that is called ``score``; the others are rows ``score_<version>``.
    every
        Days between two rows: the length of the bootstrap's blocks follows from it.
    seed
        Seed of the bootstrap; equal seeds give equal intervals.
    """
    scores = {
        SCORE if v == version else f"{SCORE}_{v}": open_score(v, panel)
        for v in sorted(VERSIONS, key=lambda v: v != version)
    }
    scored: list[ScoredDay] = []
    gathered = {h: _Gathered(tuple(scores), forecaster is not None) for h in horizons}
    for row in rows:
        predictors = {name: score.at(row) for name, score in scores.items()}
        forecasts = {} if forecaster is None else forecaster.forecast(row)
        observed = ~np.isnan(panel.stars[row])
        here = np.flatnonzero(observed)
        if not len(here):
            continue
        scored.append(ScoredDay(row, here, predictors[SCORE][here], forecasts.get(28)))
        predictors |= {name: rule(panel, row) for name, rule in RULES.items()}
        recent = RECENT(panel, row)
        for horizon, into in gathered.items():
            realised = realised_growth(panel.stars, row, horizon)
            into.add(panel.days[row], predictors, forecasts.get(horizon), realised, recent)
    return Result(
        version,
        tuple(scored),
        tuple(into.result(h, block_dates(h, every), seed, resamples) for h, into in gathered.items()),
    )


class _Gathered:
    """The measures of one horizon, day by day."""

    def __init__(self, scores: tuple[str, ...], has_forecast: bool) -> None:
        self._own = (*scores[:1], *([FORECAST] if has_forecast else []))
        self.names = (*self._own, *scores[1:], *RULES)
        self._tables: list[Values] = []
        self._coverage: list[list[float]] = []
        self._context: list[tuple[int, float, float]] = []
        self._days: list[Day] = []

    def add(
        self, day: Day, predictors: Mapping[str, Values], forecast: Forecast | None, realised: Values, recent: Values
    ) -> None:
        """Measure one day, unless too few repositories are in its common sample."""
        there = dict(predictors)
        if forecast is not None:
            there[FORECAST] = forecast.median
        common = np.isfinite(realised) & np.isfinite(recent)
        for values in there.values():
            common &= np.isfinite(values)
        if np.count_nonzero(common) < SAMPLE_MIN:
            return
        names = [name for name in self.names if name in there]
        found = measure(np.stack([there[name][common] for name in names]), realised[common], recent[common])
        table = np.full((len(self.names), len(MEASURES)), np.nan)
        table[[self.names.index(name) for name in names]] = found.table
        self._tables.append(table)
        self._coverage.append(_coverage(forecast, realised, common))
        self._context.append((found.repos, found.chance, found.new_chance))
        self._days.append(day)

    def result(self, horizon: int, block: int, seed: int, resamples: int) -> HorizonResult:
        """Return means over the days, with intervals; empty where no day could be measured."""
        days = len(self._days)
        weights = draw_weights(days, block, resamples, np.random.default_rng(seed)) if days else np.zeros((0, 0))
        table = np.stack(self._tables) if days else np.zeros((0, len(self.names), len(MEASURES)))

        def by_measure(values: Values, names: Iterable[str] = MEASURES) -> dict[str, Estimate]:
            return dict(zip(names, estimate(values, weights, block), strict=True)) if days else {}

        place = {name: i for i, name in enumerate(self.names)}
        context = np.array(self._context) if days else np.full((1, 3), np.nan)
        repos, chance, new_chance = (float(v) for v in _mean(context))
        return HorizonResult(
            horizon=horizon,
            days=tuple(self._days),
            block=block,
            repos=repos,
            chance=chance,
            new_chance=new_chance,
            rows={name: by_measure(table[:, i]) for name, i in place.items()},
            differences={
                (own, other): by_measure(table[:, place[own]] - table[:, place[other]])
                for n, own in enumerate(self._own)
                for other in self.names
                if other not in self._own[n:]
            },
            coverage=by_measure(np.array(self._coverage), COVERAGES) if FORECAST in self._own and days else {},
        )


def _coverage(forecast: Forecast | None, realised: Values, common: npt.NDArray[np.bool_]) -> list[float]:
    """Return the share of realised growth within each of the forecast's intervals, NaN without a forecast."""
    if forecast is None:
        return [np.nan] * len(COVERAGES)
    return [
        float(np.mean((getattr(forecast, lo) <= realised)[common] & (realised <= getattr(forecast, hi))[common]))
        for lo, hi in COVERAGES.values()
    ]


def _mean(values: Values) -> Values:
    """Return the column means of what is known, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    mean: Values = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return mean
