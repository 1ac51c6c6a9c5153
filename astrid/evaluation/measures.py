"""How well values known today order what was realised later, on one day.

Every measure takes P predictors at once, (P, n) without NaN, and gives P numbers. Equal values share what they get:
a rank is a middle rank, and where the cut of a top list goes through equal values, each counts by its chance to be in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Values = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PICKS: Final = 100
"""Length of the list that precision is measured on."""

TOP_SHARE: Final = 0.05
"""Who grows as fast as the fastest twentieth has broken out."""

HOT_SHARE: Final = 0.10
"""Who grows today as fast as the fastest tenth would be no new breakout."""

MEASURES: Final = (
    "ic",
    "precision_at_100",
    "precision_at_top",
    "decile_spread",
    "new_precision_at_100",
    "new_recall",
    "new_false_alarm",
)


@dataclass(frozen=True, slots=True)
class DayMeasures:
    """``table`` has one row per predictor and the columns of MEASURES; the chances are what blind picks would get."""

    table: Values
    chance: float
    new_chance: float
    repos: int
    eligible: int


def measure(predictors: Values, realised: Values, recent: Values) -> DayMeasures:
    """Measure all predictors on one day.

    Parameters
    ----------
    predictors
        (P, n), larger means: will grow faster.
    realised
        (n,) growth over the horizon.
    recent
        (n,) growth of the last 28 days, which tells who is new in the top.

    Returns
    -------
    measures
        ``ic`` is Spearman's rank correlation; ``precision_at_100`` the share of the first 100 that are in the
        realised top 5 %, ``precision_at_top`` the same with a list as long as that top; ``decile_spread`` the mean
        growth of the first tenth minus that of the last; the ``new_`` ones are among the repositories outside
        today's top 10 %: share of the first 100 that get into the top 5 %, share of those which get there that are
        found, share of those which do not get there that were named. NaN where nothing can be divided by.
    """
    n = len(realised)
    top = top_mask(realised, math.ceil(TOP_SHARE * n))
    eligible = ~top_mask(recent, math.ceil(HOT_SHARE * n))
    new = top[eligible]
    candidates = predictors[:, eligible]
    found = hits(candidates, new, PICKS)
    picked = min(PICKS, len(new))
    breakouts = int(np.count_nonzero(new))
    quiet = len(new) - breakouts
    nothing = np.full(len(predictors), np.nan)
    table = np.column_stack(
        [
            spearman(predictors, realised),
            hits(predictors, top, PICKS) / min(PICKS, n),
            hits(predictors, top, int(np.count_nonzero(top))) / np.count_nonzero(top),
            decile_spread(predictors, realised),
            found / picked if picked else nothing,
            found / breakouts if breakouts else nothing,
            (picked - found) / quiet if quiet else nothing,
        ]
    )
    return DayMeasures(table, float(top.mean()), float(new.mean()) if len(new) else math.nan, n, len(new))


def spearman(predictors: Values, realised: Values) -> Values:
    """Return the rank correlation of each predictor with ``realised``; NaN where either is constant."""
    ranks = rankdata(predictors, axis=1)
    target = rankdata(realised)
    ranks -= ranks.mean(axis=1, keepdims=True)
    target -= target.mean()
    size = np.sqrt(np.square(ranks).sum(axis=1) * np.square(target).sum())
    ic: Values = np.divide(ranks @ target, size, out=np.full(len(ranks), np.nan), where=size > 0)
    return ic


def top_mask(values: Values, count: int) -> Bools:
    """Return which values are at least as large as the ``count``-th largest."""
    if not count:
        return np.zeros(len(values), bool)
    mask: Bools = values >= np.partition(values, len(values) - count)[len(values) - count]
    return mask


def hits(predictors: Values, marked: Bools, picks: int) -> Values:
    """Return how many of the first ``picks`` of each predictor are marked; ties at the cut count by their chance."""
    n = len(marked)
    picks = min(picks, n)
    if not picks:
        return np.zeros(len(predictors))
    cut = np.partition(predictors, n - picks, axis=1)[:, n - picks][:, None]
    above, level = predictors > cut, predictors == cut
    slots = picks - above.sum(axis=1)
    certain: Values = (above & marked).sum(axis=1) + slots * (level & marked).sum(axis=1) / level.sum(axis=1)
    return certain


def decile_spread(predictors: Values, realised: Values) -> Values:
    """Return mean growth of the first tenth minus that of the last, by middle ranks; NaN where a tenth is empty."""
    place = (rankdata(predictors, axis=1) - 0.5) / predictors.shape[1]
    means = []
    for tenth in (place > 0.9, place < 0.1):
        count = tenth.sum(axis=1)
        means.append(np.divide(tenth @ realised, count, out=np.full(len(count), np.nan), where=count > 0))
    spread: Values = means[0] - means[1]
    return spread
