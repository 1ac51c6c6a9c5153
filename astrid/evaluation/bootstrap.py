"""Intervals of means over dates: the circular block bootstrap.

Forecasts of neighbouring dates share most of the days they are about, so whole stretches of dates are drawn.
Politis and Romano, "A circular block-resampling procedure for stationary data" (1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
BLOCK_WEEKS_MIN: Final = 8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over dates with its 95 % interval; the bounds are NaN where the dates are fewer than two blocks."""

    value: float
    lo: float
    hi: float
    dates: int


def block_dates(horizon: int, every: int) -> int:
    """Return the length of a block, in evaluated dates: at least 8 weeks, and twice the horizon."""
    weeks = max(BLOCK_WEEKS_MIN, math.ceil(2 * horizon / 7))
    return math.ceil(7 * weeks / every)


def draw_weights(dates: int, block: int, resamples: int, rng: np.random.Generator) -> Values:
    """Return how often each date is in each resample, (resamples, dates): blocks from a circle, cut to ``dates``."""
    blocks = math.ceil(dates / block)
    starts = rng.integers(0, dates, (resamples, blocks))
    drawn = (starts[:, :, None] + np.arange(block)) % dates
    drawn = drawn.reshape(resamples, -1)[:, :dates]
    flat = (drawn + dates * np.arange(resamples)[:, None]).reshape(-1)
    counts = np.bincount(flat, minlength=resamples * dates)
    return counts.reshape(resamples, dates).astype(np.float64)


def estimate(values: Values, weights: Values, block: int) -> list[Estimate]:
    """Return the mean and interval of each column of ``values`` (dates, M); NaN dates do not count.

    All columns share the resamples of ``weights``, so that a difference of two is paired.
    """
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    # Around its first known value, so that the resampled means of a constant are exactly that constant.
    first = values[known.argmax(axis=0), np.arange(values.shape[1])] if len(values) else np.zeros(values.shape[1])
    centred = np.where(known, values - first, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = first + centred.sum(axis=0) / counts
        drawn = (weights @ centred) / (weights @ known.astype(np.float64))
    found = []
    for column, (mean, count) in enumerate(zip(means, counts, strict=True)):
        draws = drawn[:, column]
        draws = draws[np.isfinite(draws)]
        lo, hi = math.nan, math.nan
        if count >= 2 * block and len(draws):
            lo, hi = first[column] + np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found.append(Estimate(float(mean) if count else math.nan, float(lo), float(hi), int(count)))
    return found
