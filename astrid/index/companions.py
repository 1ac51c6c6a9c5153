"""What stands beside the index: momentum, diffusion, and the index against a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from astrid.index.baskets import F64, Basket, Days, Source
from astrid.index.chain import COVERAGE_MIN, rebase

WEEKS_PER_YEAR: Final = 52

BEYOND_NOISE: Final = 1.645
"""Standard errors of counting noise that a growth must exceed; a series that stands still does so 1 time in 20."""


def momentum(sources: Sequence[Source], baskets: Sequence[Basket], days: int) -> F64:
    """Return 52 times the weighted mean shrunken growth of the basket in force, (T,), log per year; NaN = a gap.

    Constituents whose growth is not known are left out of the mean; if they weigh more than half, the day is a gap.
    """
    return WEEKS_PER_YEAR * _mean(sources, baskets, days, diffuse=False)


def diffusion(sources: Sequence[Source], baskets: Sequence[Basket], days: int) -> F64:
    """Return the share of constituents that grow beyond noise, (T,), in 0..1; NaN = a gap.

    Each constituent of a source counts the same, however large; sources are weighted as in the basket.
    """
    return _mean(sources, baskets, days, diffuse=True)


def relative(days: Days, value: F64, control: F64, base_month: np.datetime64) -> F64:
    """Return the index against the control basket, 100 on the mean of ``base_month``; NaN where either is.

    Raises
    ------
    ValueError
        If either has a gap in the base month.
    """
    return rebase(days, value / control, base_month)


def _mean(sources: Sequence[Source], baskets: Sequence[Basket], days: int, *, diffuse: bool) -> F64:
    result = np.full(days, np.nan)
    for number, basket in enumerate(baskets):
        end = baskets[number + 1].start if number + 1 < len(baskets) else days
        if not basket.weights.any():
            continue
        rows = slice(basket.start, end)
        total = np.zeros(max(end - basket.start, 0))
        for source, weights in zip(sources, basket.weights, strict=True):
            inside = np.flatnonzero(weights)
            if not len(inside):
                continue
            growth = source.growth[rows, inside].astype(np.float64)
            known = np.isfinite(growth)
            each = np.full(len(inside), 1 / len(inside)) if diffuse else weights[inside] / weights[inside].sum()
            if diffuse:
                noise = source.noise[rows, inside].astype(np.float64)
                known &= np.isfinite(noise)
                growth = (growth > BEYOND_NOISE * noise).astype(np.float64)
            observed = known @ each
            summed = np.where(known, growth, 0.0) @ each
            enough = observed >= COVERAGE_MIN
            mean = np.where(enough, summed / np.where(enough, observed, 1.0), np.nan)
            total += weights.sum() * mean
        result[rows] = total
    return result
