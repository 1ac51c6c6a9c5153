"""Seasonal adjustment of the published index: STL on monthly means, in logarithms.

Cleveland, Cleveland, McRae, Terpenning, "STL: a seasonal-trend decomposition procedure based on loess", Journal of
Official Statistics 6 (1990). The package that is best kept for it would bring pandas into every installation for
120 lines; results here are held against it in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from astrid.index.baskets import F64, Days

PERIOD: Final = 12

YEARS_MIN: Final = 3
"""With less, a season cannot be told from a trend."""

SEASONAL_SPAN: Final = 7
"""Neighbours (years) in the smoothing of each calendar month; the smallest that the authors advise."""

INNER: Final = 2
OUTER: Final = 15
"""Passes of the robust fit; the authors' advice is 1 and 5 to 10, more cost nothing here."""


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Monthly means of an index, not adjusted and adjusted; arrays are (M,).

    ``sa`` and ``seasonal`` (log factor; sa = nsa / exp(seasonal)) are None where there is no adjustment; ``why`` says
    why.
    """

    months: Days
    nsa: F64
    sa: F64 | None
    seasonal: F64 | None
    why: str | None


def adjust(days: Days, value: F64) -> Adjusted:
    """Return the monthly means of a published index, seasonally adjusted if there are three whole years of them.

    A month with a value on less than half of its days is a gap. The adjustment uses the longest run of months without a
    gap that reaches the last month; it looks at the whole of it, so earlier adjusted values are revised by
    later months, whereas the unadjusted ones are not.
    """
    months, nsa = monthly_means(days, value)
    gaps = np.flatnonzero(np.isnan(nsa))
    start = int(gaps[-1]) + 1 if len(gaps) else 0
    run = len(nsa) - start
    if run < YEARS_MIN * PERIOD:
        why = (
            f"{run} months without a gap up to the last one: seasonal adjustment needs {YEARS_MIN * PERIOD}, "
            "so only the unadjusted index is published"
        )
        return Adjusted(months, nsa, None, None, why)
    seasonal, _ = stl(np.log(nsa[start:]))
    factor = np.concatenate([np.full(start, np.nan), seasonal])
    return Adjusted(months, nsa, nsa / np.exp(factor), factor, None)


def monthly_means(days: Days, value: F64) -> tuple[Days, F64]:
    """Return months (datetime64[M]) from the first to the last value, and the means of their days, NaN = a gap."""
    known = np.flatnonzero(np.isfinite(value))
    if not len(known):
        return days[:0].astype("datetime64[M]"), np.empty(0)
    labels = days.astype("datetime64[M]")
    months = np.arange(labels[known[0]], labels[known[-1]] + 1)
    place = (labels[known] - months[0]).astype(np.int64)
    count = np.bincount(place, minlength=len(months))
    total = np.bincount(place, value[known], minlength=len(months))
    length = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    enough = 2 * count >= length
    return months, np.where(enough, total / np.maximum(count, 1), np.nan)


def stl(y: F64, period: int = PERIOD, *, outer: int = OUTER, inner: int = INNER) -> tuple[F64, F64]:
    """Return (seasonal, trend) of a series without gaps; what is left over is y minus both.

    Degree 1 everywhere; spans are the authors' rules from ``period`` and SEASONAL_SPAN. ``outer`` robustness passes
    (0 = plain least squares).

    Raises
    ------
    ValueError
        If there are fewer than two whole periods, or a value is missing.
    """
    n = len(y)
    if n < 2 * period or not np.isfinite(y).all():
        raise ValueError(f"STL needs {2 * period} values without a gap, there are {np.count_nonzero(np.isfinite(y))}")
    low = period + 1 if period % 2 == 0 else period
    span = int(np.ceil(1.5 * period / (1 - 1.5 / SEASONAL_SPAN)))
    span += span % 2 == 0
    robust = np.ones(n)
    seasonal, trend = np.zeros(n), np.zeros(n)
    for turn in range(outer + 1):
        for _ in range(inner):
            cycle = np.empty(n + 2 * period)
            detrended = y - trend
            for month in range(period):
                part = detrended[month::period]
                m = len(part)
                cycle[month::period] = _loess(
                    np.arange(1.0, m + 1), part, np.arange(0.0, m + 2), SEASONAL_SPAN, robust[month::period]
                )
            smooth = _moving(_moving(_moving(cycle, period), period), 3)
            steps = np.arange(1.0, n + 1)
            seasonal = cycle[period : period + n] - _loess(steps, smooth, steps, low, np.ones(n))
            trend = _loess(steps, y - seasonal, steps, span, robust)
        if turn < outer:
            rest = np.abs(y - seasonal - trend)
            bound = 6 * float(np.median(rest))
            ratio = rest / bound if bound > 0 else np.zeros(n)
            robust = np.where(ratio >= 1, 0.0, (1 - np.minimum(ratio, 1.0) ** 2) ** 2)
            # The same limits as in the authors' program: nearly nothing counts fully, nearly all not at all.
            robust = np.where(ratio <= 0.001, 1.0, np.where(ratio > 0.999, 0.0, robust))
    return seasonal, trend


def _moving(x: F64, span: int) -> F64:
    return np.asarray(np.lib.stride_tricks.sliding_window_view(x, span).mean(axis=1), np.float64)


def _loess(x: F64, y: F64, at: F64, span: int, weights: F64) -> F64:
    """Return local linear fits at ``at`` with the ``span`` nearest points, tricube weights times ``weights``."""
    n = len(x)
    distance = np.abs(at[:, None] - x[None, :])
    nearest = np.sort(distance, axis=1)[:, min(span, n) - 1]
    # With fewer points than the span, the authors widen the neighbourhood by the missing half.
    h = nearest + max(span - n, 0) // 2
    # A neighbour at the bound still counts, as in the authors' program: 1 below 0.001 h, 0 above 0.999 h.
    r = distance / h[:, None]
    w = np.where(r <= 0.001, 1.0, np.where(r <= 0.999, (1 - np.minimum(r, 1.0) ** 3) ** 3, 0.0)) * weights
    total = w.sum(axis=1)
    empty = total <= 0  # robustness took all neighbours away
    w /= np.where(empty, 1.0, total)[:, None]
    center = w @ x
    spread = (w * (x[None, :] - center[:, None]) ** 2).sum(axis=1)
    far = np.sqrt(spread) > 0.001 * (x[-1] - x[0])
    slope = np.where(far, (at - center) / np.where(far, spread, 1.0), 0.0)
    fit: F64 = (w * (1 + slope[:, None] * (x[None, :] - center[:, None]))) @ y
    for place in np.flatnonzero(empty):  # then the value itself stands, beyond the ends the fit at the end
        near = int(np.abs(x - at[place]).argmin())
        fit[place] = y[near] if x[near] == at[place] else np.nan
    if np.isnan(fit[0]):
        fit[0] = fit[1]
    if np.isnan(fit[-1]):
        fit[-1] = fit[-2]
    return fit
