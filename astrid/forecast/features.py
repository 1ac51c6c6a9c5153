"""What is known on a day about each repository, as one row of numbers per repository.

Every feature of day t is made from rows up to t. Those that compare repositories (ranks) compare those observed on t.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.forecast.attention import Appearances
from astrid.scoring.kernels import run
from astrid.scoring.score import percentile
from astrid.scoring.series import STOCK, UNSEEN, shrink
from astrid.scoring.state import FilterState

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]

SPANS: Final = (1, 3, 7, 14, 28, 56, 90, 180, 365)
"""Days over which the growth of stars is taken."""

FORK_SPANS: Final = (7, 28, 90, 180)
"""The same for forks."""

WEEKS: Final = 13
"""Weekly growths whose spread and course are described."""

LATE_SHARE: Final = 0.5
LATE_MIN: Final = 3
"""A span may begin up to max(3, half of it) days earlier where the day itself has no observation."""

RANKED: Final = ("level", "grown_7d", "grown_28d", "grown_90d", "grown_180d", "slow", "forks_28d", "forks_90d")
"""Features that are also given as percentiles of the day."""

KERNEL: Final = ("growth_slow", "growth_fast", "se", "se_counting", "z", "z_week", "sustain", "silent_days")


@dataclass(frozen=True, slots=True)
class DayFeatures:
    """Features of one day: ``values`` float32 (n, F) of the repositories at ``columns``; NaN = not known."""

    row: int
    columns: Ints
    values: F32


class FeatureWalk:
    """Features over one panel of counts, asked for days in ascending order, each day once.

    Parameters
    ----------
    stars, forks
        (T, N) float32, time-major, consecutive days, NaN = not observed; ``forks`` may be None.
    first_day
        The day of row 0, which only decides what weekday a row is.
    attention
        Sources of appearances; their features are there only if they are given.
    """

    def __init__(
        self, stars: F32, forks: F32 | None, first_day: np.datetime64, attention: Sequence[Appearances] = ()
    ) -> None:
        self._stars, self._forks, self._attention = stars, forks, tuple(attention)
        self._day = int(first_day.astype("datetime64[D]").astype(np.int64))
        self._seen = _last_seen(stars)
        born = ~np.isnan(stars)
        self._born = np.where(born.any(axis=0), born.argmax(axis=0), len(stars))
        self._kernels = [_Kernel(counts, self._day) for counts in (stars, forks) if counts is not None]
        self._row = -1

    @property
    def names(self) -> tuple[str, ...]:
        """Name the features in the order of the columns of :attr:`DayFeatures.values`."""
        stars = (
            "level", "gain_7d", "gain_28d", "age", "at_start", "lifetime", "seen_28d", "seen_90d",
            *(f"grown_{s}d" for s in SPANS),
            "week_median", "week_spread", "week_max", "week_min", "week_median_4", "week_turn", "week_slope",
            "slow", "fast", "se", "se_counting", "z", "z_week", "sustain", "shrunken",
        )  # fmt: skip
        forks = (
            "fork_ratio", *(f"forks_{s}d" for s in FORK_SPANS), "forks_slow", "forks_fast", "forks_z_week",
        )  # fmt: skip
        names = (*stars, *forks) if self._forks is not None else stars
        ranks = tuple(f"rank_{name}" for name in RANKED if name in names)
        return (*names, *(n for source in self._attention for n in source.names), *ranks)

    def at(self, row: int) -> DayFeatures:
        """Return the features of the repositories observed on the day of ``row``.

        Raises
        ------
        ValueError
            If ``row`` is not later than the one asked for before.
        """
        if row <= self._row:
            raise ValueError(f"rows must ascend: {row} comes after {self._row}")
        self._row = row
        kernels = [kernel.advance(row) for kernel in self._kernels]
        here = np.flatnonzero(~np.isnan(self._stars[row]))
        found = dict(zip(self.names, self._of_stars(row, here, kernels[0]), strict=False))
        if self._forks is not None:
            known = len(found)
            found |= dict(zip(self.names[known:], self._of_forks(row, here, kernels[1]), strict=False))
        for source in self._attention:
            found |= dict(zip(source.names, source.at(row, self._stars.shape[1])[:, here], strict=True))
        found |= {f"rank_{name}": percentile(found[name].astype(np.float64)) for name in RANKED if name in found}
        values = np.column_stack([found[name] for name in self.names]).astype(np.float32)
        values[np.isinf(values)] = np.nan
        return DayFeatures(row, here, values)

    def _of_stars(self, row: int, here: Ints, kernel: dict[str, F32]) -> list[npt.NDArray[np.floating]]:
        count = self._stars[row, here].astype(np.float64)
        y = np.log(count + STOCK.kappa)
        out: list[npt.NDArray[np.floating]] = [y]
        for span in (7, 28):
            then, days = self._then(self._stars, row, span, here)
            out.append((count - then) / days)
        born = self._born[here]
        age = (row - born).astype(np.float64)
        first = np.log(self._stars[born, here].astype(np.float64) + STOCK.kappa)
        # What was there on the first rows did not begin there.
        out += [
            age,
            (born < 7).astype(np.float64),
            np.divide(y - first, age, out=np.full(len(y), np.nan), where=age > 0),
        ]
        for span in (28, 90):
            window = self._stars[max(row - span + 1, 0) : row + 1, here]
            out.append((~np.isnan(window)).mean(axis=0))
        out += [self._grown(self._stars, row, span, here, y) for span in SPANS]
        out += self._weeks(row, here, y)
        k = {name: values[here] for name, values in kernel.items()}
        out += [k[n] for n in ("growth_slow", "growth_fast", "se", "se_counting", "z", "z_week", "sustain")]
        out.append(shrink(k["growth_slow"], k["se_counting"], STOCK.tau))
        return out

    def _of_forks(self, row: int, here: Ints, kernel: dict[str, F32]) -> list[npt.NDArray[np.floating]]:
        assert self._forks is not None
        y = np.log(self._forks[row, here].astype(np.float64) + STOCK.kappa)
        stars = np.log(self._stars[row, here].astype(np.float64) + STOCK.kappa)
        out: list[npt.NDArray[np.floating]] = [y - stars]
        out += [self._grown(self._forks, row, span, here, y) for span in FORK_SPANS]
        out += [kernel[n][here] for n in ("growth_slow", "growth_fast", "z_week")]
        return out

    def _then(
        self, counts: F32, row: int, span: int, here: Ints
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the last count known ``span`` days ago and the days since; NaN where none is near enough."""
        if row < span:
            return np.full(len(here), np.nan), np.full(len(here), np.nan)
        when = self._seen[row - span, here].astype(np.intp)
        days = (row - when).astype(np.float64)
        near = (when >= 0) & (days <= span + max(LATE_MIN, int(LATE_SHARE * span)))
        days[~near] = np.nan
        return np.where(near, counts[when, here], np.nan).astype(np.float64), days

    def _grown(
        self, counts: F32, row: int, span: int, here: Ints, y: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return the growth per day over about ``span`` days, in log."""
        then, days = self._then(counts, row, span, here)
        grown: npt.NDArray[np.float64] = (y - np.log(then + STOCK.kappa)) / days
        return grown

    def _weeks(self, row: int, here: Ints, y: npt.NDArray[np.float64]) -> list[npt.NDArray[np.floating]]:
        """Describe the last WEEKS weekly growths: median, spread, extremes, the last four, and where they turn."""
        levels, when = [y], [np.full(len(here), float(row))]
        for week in range(1, WEEKS + 1):
            then, days = self._then(self._stars, row, 7 * week, here)
            levels.append(np.log(then + STOCK.kappa))
            when.append(row - days)
        steps = -np.diff(np.stack(when), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            weekly = -np.diff(np.stack(levels), axis=0) * 7 / steps
        weekly[~np.isfinite(weekly)] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a series too short to have a week has NaN
            median, recent = np.nanmedian(weekly, axis=0), np.nanmedian(weekly[:4], axis=0)
            earlier = np.nanmedian(weekly[4:], axis=0)
            middle = np.nanmean(weekly, axis=0)
            place = np.where(np.isnan(weekly), np.nan, np.arange(WEEKS)[:, None])
            place -= np.nanmean(place, axis=0)
            slope = -np.nansum(place * (weekly - middle), axis=0) / np.nansum(place * place, axis=0)
            return [
                median,
                np.nanmedian(np.abs(weekly - median), axis=0),
                np.nanmax(weekly, axis=0),
                np.nanmin(weekly, axis=0),
                recent,
                recent - earlier,
                slope,
            ]


class _Kernel:
    """The weekly filter over one block of counts, kept at the last row that was asked for."""

    def __init__(self, counts: F32, day: int) -> None:
        self._counts, self._done = counts, 0
        # Days are numbered from 1970-01-01, so that a weekday has the same filter wherever the panel begins.
        self._state = FilterState.empty(counts.shape[1], "stock", day=day)

    def advance(self, row: int) -> dict[str, F32]:
        out, self._state = run(self._counts[self._done : row + 1], "stock", state=self._state, keep=1, fields=KERNEL)
        self._done = row + 1
        never = out.silent_days[0] >= UNSEEN
        return {
            name: np.where(never, np.nan, getattr(out, name)[0]).astype(np.float32)
            for name in KERNEL
            if name != "silent_days"
        }


def _last_seen(counts: F32) -> npt.NDArray[np.int16]:
    """Return for each row and column the row of the last observation up to there, -1 = none yet."""
    if len(counts) > np.iinfo(np.int16).max:
        raise ValueError(f"a panel holds at most {np.iinfo(np.int16).max} days, not {len(counts)}")
    seen = np.full(counts.shape, -1, np.int16)
    last = np.full(counts.shape[1], -1, np.int16)
    for row, values in enumerate(counts):
        last[~np.isnan(values)] = row
        seen[row] = last
    return seen
