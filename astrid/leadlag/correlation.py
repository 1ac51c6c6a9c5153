"""Cross-correlations with Bartlett's bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrid.leadlag.alignment import F64, I64, lagged


@dataclass(frozen=True, slots=True)
class CrossCorrelation:
    """Correlation of the index ``lag`` periods before adoption (negative: after), and the 95 % band of no relation.

    ``band`` is Bartlett's for two unrelated series of which both are autocorrelated, for this lag alone.
    """

    lag: int
    n: int
    r: float
    band: float


def cross_correlations(x: F64, y: F64, segment: I64, position: I64, lags: range) -> list[CrossCorrelation]:
    """Return r(lag) = corr(x at t - lag, y at t) with each segment's mean taken out; fewer than 6 pairs give none.

    Variance of r for unrelated series: (1 / n) (1 + 2 sum over j of rho_x(j) rho_y(j)) (Bartlett 1946), j up to n / 4;
    never below 1 / n, because a negative estimate of so few autocorrelations would promise too much.
    """
    found = []
    cx, cy = _centred(x, segment), _centred(y, segment)
    for lag in lags:
        earlier = lagged(cx, position, lag)
        ok = np.isfinite(earlier) & np.isfinite(cy)
        n = int(np.count_nonzero(ok))
        if n < 6:
            continue
        a, b = earlier[ok] - earlier[ok].mean(), cy[ok] - cy[ok].mean()
        scale = float(np.sqrt((a @ a) * (b @ b)))
        if scale <= 0:
            continue
        reach = max(1, n // 4)
        rho_x, rho_y = autocorrelations(cx, position, reach), autocorrelations(cy, position, reach)
        variance = max(1.0, 1.0 + 2.0 * float(rho_x @ rho_y)) / n
        found.append(CrossCorrelation(lag, n, float(a @ b) / scale, float(1.96 * np.sqrt(variance))))
    return found


def autocorrelations(x: F64, position: I64, reach: int) -> F64:
    """Return the autocorrelations 1..reach, sums of products over the whole sum of squares; NaN values are left out."""
    centred = x - np.nanmean(x)
    total = float(np.nansum(centred * centred))
    if total <= 0:
        return np.zeros(reach)
    products = [float(np.nansum(centred * lagged(centred, position, lag))) for lag in range(1, reach + 1)]
    return np.array(products) / total


def _centred(values: F64, segment: I64) -> F64:
    centred = values.copy()
    for number in np.unique(segment):
        mine = segment == number
        if np.isfinite(values[mine]).any():
            centred[mine] -= np.nanmean(values[mine])
    return centred
