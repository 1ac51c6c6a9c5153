"""Out of sample: does the index improve on adoption's own past?"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from scipy import stats

from astrid.leadlag.alignment import F64, I64, lagged

TRAINING_MIN: Final = 12
"""Changes in the first training window; the rest are forecast one by one."""

FORECASTS_MIN: Final = 8
"""With fewer forecasts there is no comparison."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Forecasts of AR(1) against AR(1) with the index.

    ``ratio`` of the root mean squared errors, below 1 if the index helps. ``dm`` is the statistic of Diebold and
    Mariano with the correction of Harvey, Leybourne and Newbold, positive if the index helps; ``p`` is one-sided, from
    t with n - 1 degrees of freedom.
    """

    n: int
    rmse_ar: float
    rmse_index: float
    ratio: float
    dm: float
    p: float


def compare(x: F64, y: F64, base: F64, position: I64) -> Comparison | None:
    """Forecast each change from all earlier ones (expanding window) with and without ``x``; None with too little.

    ``x`` is what was known before the change was published. Both models have the columns ``base``; a change whose
    segment has no earlier one is not forecast, for nobody could know the segment's mean.
    """
    own = lagged(y, position, 1)
    ok = np.isfinite(x) & np.isfinite(y) & np.isfinite(own)
    x, y, own, base = x[ok], y[ok], own[ok], base[ok]
    errors: list[tuple[float, float]] = []
    for now in range(TRAINING_MIN, len(y)):
        past = base[:now].any(axis=0)
        if (base[now] != 0)[~past].any():
            continue
        both = []
        for columns in ([own], [own, x]):
            design = np.column_stack([*columns, base[:, past]])
            beta, _, rank, _ = np.linalg.lstsq(design[:now], y[:now], rcond=None)
            if rank < design.shape[1]:
                break
            both.append(float(y[now] - design[now] @ beta))
        if len(both) == 2:
            errors.append((both[0], both[1]))
    if len(errors) < FORECASTS_MIN:
        return None
    plain, helped = np.array(errors).T
    dm, p = diebold_mariano(plain, helped)
    rmse_ar, rmse_index = (float(np.sqrt(np.mean(e * e))) for e in (plain, helped))
    return Comparison(len(errors), rmse_ar, rmse_index, rmse_index / rmse_ar, dm, p)


def diebold_mariano(first: F64, second: F64, horizon: int = 1) -> tuple[float, float]:
    """Return the corrected statistic and the one-sided p that ``second`` has the smaller squared errors.

    Diebold and Mariano (1995) with the variance of a moving average of order horizon - 1; corrected by
    sqrt((n + 1 - 2h + h (h - 1) / n) / n) and read from t with n - 1 degrees of freedom (Harvey, Leybourne, Newbold
    1997). Equal forecasts, or a variance that is estimated below 0, give (0, 0.5).
    """
    d = first * first - second * second
    n = len(d)
    centred = d - d.mean()
    variance = float(centred @ centred) / n
    for lag in range(1, horizon):
        variance += 2 * float(centred[lag:] @ centred[:-lag]) / n
    if n < 2 or variance <= 0:
        return 0.0, 0.5
    correction = sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    dm = correction * float(d.mean()) / sqrt(variance / n)
    return dm, float(stats.t.sf(dm, n - 1))
