"""The score for a star target: which repositories will gain stars fastest, from stars and forks alone.

Two versions, both percentiles among the repositories of the day, both fitted on days up to 2022-12-31:

* 1.0: the weekly filter's slow growth, the last week, and the slow growth of forks;
* 1.1: growth per day over five spans from a week to a year, and of forks over 90 days. Growth persists for longer
  than the slow filter remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from astrid.evaluation.panel import Counts, Panel
from astrid.evaluation.targets import TOLERANCE, Values, log_count
from astrid.scoring.kernels import run
from astrid.scoring.score import percentile
from astrid.scoring.series import SILENT_DAYS_MAX, STOCK, shrink
from astrid.scoring.state import FilterState

Version = Literal["1.0", "1.1"]
VERSIONS: Final[tuple[Version, ...]] = ("1.0", "1.1")

FITTED_UNTIL: Final = np.datetime64("2022-12-31")
"""No later day had a part in the choice of anything in this module."""

STARS_ALONE: Final = (0.80, 0.20)
"""Version 1.0: shares of the slow growth and the last week."""

WITH_FORKS: Final = (0.75, 0.15, 0.10)
"""Version 1.0: shares of the slow growth, the last week and the slow growth of forks."""

SPANS: Final[Mapping[int, float]] = {7: 0.09, 28: 0.18, 90: 0.24, 180: 0.16, 365: 0.26}
"""Version 1.1: shares of the growth over so many days."""

FORK_SPAN: Final = (90, 0.07)
"""Version 1.1: the span of forks and its share; without forks the shares of the stars are scaled up."""

KNOWN_DAYS_MIN: Final = 28
"""Version 1.1 scores a repository only if one of the spans from this one on is known."""


class StarScore(Protocol):
    """A score of all repositories of a panel, asked for days in ascending order."""

    def at(self, row: int) -> Values:
        """Return the score of each column in (0, 100), NaN = none, from rows up to ``row`` alone."""


def open_score(version: Version, panel: Panel) -> StarScore:
    """Return the score of that version over a panel."""
    return FilterScore(panel) if version == "1.0" else SpanScore(panel)


class FilterScore:
    """Version 1.0, run forward through the panel once."""

    def __init__(self, panel: Panel) -> None:
        self._stars = _Forward(panel, panel.stars)
        self._forks = None if panel.forks is None else _Forward(panel, panel.forks)

    def at(self, row: int) -> Values:
        """Return the score: 100 (0.75 r(slow) + 0.15 r(last week) + 0.10 r(slow, forks)), r a percentile.

        Where the last week is not known, and for repositories without forks, the slow growth and the shares of
        stars alone stand in. Days must be asked for in ascending order, each once.
        """
        slow, week = self._stars.advance(row)
        place = percentile(slow)
        recent = percentile(np.where(np.isnan(slow), np.nan, week))
        recent = np.where(np.isnan(recent), place, recent)
        score = STARS_ALONE[0] * place + STARS_ALONE[1] * recent
        if self._forks is not None:
            forks = percentile(self._forks.advance(row)[0])
            both = WITH_FORKS[0] * place + WITH_FORKS[1] * recent + WITH_FORKS[2] * forks
            score = np.where(np.isnan(forks), score, both)
        return 100 * score


class _Forward:
    """The weekly filter over one block, kept at the last row that was asked for."""

    def __init__(self, panel: Panel, counts: Counts) -> None:
        self._counts = counts
        self._done = 0
        # Days are numbered from 1970-01-01, so that a weekday has the same filter wherever the panel begins.
        self._state = FilterState.empty(len(panel.repos), "stock", day=int(panel.first_day.astype(np.int64)))

    def advance(self, row: int) -> tuple[Values, Values]:
        """Return shrunken slow growth (NaN where not ranked) and the last week's growth on the day of ``row``."""
        if row < self._done:
            raise ValueError(f"rows must ascend: {row} comes after {self._done - 1}")
        fields = ("growth_slow", "se_counting", "last_week", "updates", "silent_days")
        block = self._counts[self._done : row + 1]
        out, self._state = run(block, "stock", state=self._state, keep=1, fields=fields)
        self._done = row + 1
        ranked = (out.updates[0] >= STOCK.publish_updates) & (out.silent_days[0] <= SILENT_DAYS_MAX)
        slow = shrink(out.growth_slow[0], out.se_counting[0], STOCK.tau)
        return np.where(ranked, slow, np.nan), out.last_week[0].astype(np.float64)


class SpanScore:
    """Version 1.1, computed for each day anew from the counts of the year before it."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def at(self, row: int) -> Values:
        """Return the score: 100 (sum of share r(growth per day over the span)), r a percentile.

        Only repositories observed on the day are scored. Where a span is not known, the percentile of the next
        shorter one that is stands in, else that of the next longer one; where forks are not, that of the stars.
        """
        panel = self._panel
        here = np.flatnonzero(~np.isnan(panel.stars[row]))
        grown = [growth_per_day(panel.stars, row, span, here) for span in SPANS]
        known = np.zeros(len(here), bool)
        for span, per_day in zip(SPANS, grown, strict=True):
            known |= (span >= KNOWN_DAYS_MIN) & ~np.isnan(per_day)
        places = [percentile(np.where(known, per_day, np.nan)) for per_day in grown]
        _fill(places)
        blend = np.zeros(len(here))
        for share, place in zip(SPANS.values(), places, strict=True):
            blend += share * place
        blend /= sum(SPANS.values())
        if panel.forks is not None:
            span, share = FORK_SPAN
            forks = percentile(np.where(known, growth_per_day(panel.forks, row, span, here), np.nan))
            blend = np.where(np.isnan(forks), blend, (1 - share) * blend + share * forks)
        score = np.full(len(panel.repos), np.nan)
        score[here] = 100 * blend
        return score


def growth_per_day(counts: Counts, row: int, span: int, columns: npt.NDArray[np.intp]) -> Values:
    """Return (log(C(t) + 10) - log(C(s) + 10)) / (t - s) of the columns, NaN = not known.

    s is the last observation of the days t-span-3 .. t-span. C(t) must be observed on the day itself.
    """
    base, when = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    for r in range(max(row - span - TOLERANCE, 0), row - span + 1):
        values = counts[r, columns]
        found = ~np.isnan(values)
        base[found], when[found] = values[found], r
    per_day: Values = (log_count(counts[row, columns]) - log_count(base)) / (row - when)
    return per_day


def _fill(places: list[Values]) -> None:
    """Let an unknown place be the next shorter span's that is known, else the next longer one's; in place."""
    for shorter, place in pairwise(places):
        np.copyto(place, shorter, where=np.isnan(place))
    for longer, place in pairwise(reversed(places)):
        np.copyto(place, longer, where=np.isnan(place))
