"""A model of the growth over one horizon: where it will be, how far off that may be, and what it rests on.

Growth Y is learned as z = asinh(Y / unit): near 0 it is Y, far from it the logarithm, so that neither the still nor the
explosive rule the fit. Two ensembles of trees are fitted, for z and for the size of the error; the quantiles of past
errors in units of that size (calibration) make the median and the bands, and one monotone map leads back to Y.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

VERSION: Final = "1.0"
"""Changes with the features, the learner or the calibration; a forecast is known by it and its vintage."""

HORIZONS: Final = (7, 28, 90)

PROBABILITIES: Final = (0.025, 0.10, 0.50, 0.90, 0.975)
"""Bounds of the 95 % and 80 % bands, and the median between them."""

UNIT_PER_DAY: Final = 0.002 / 28
"""Growth per day at which the map turns from linear to logarithmic (chosen on days up to 2022-12)."""

Z_MAX: Final = 12.0
"""Larger values of z are growth beyond any count."""

PAIRS_MAX: Final = 80_000
"""A fit uses at most so many pairs, drawn from all."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "size and age": ("level", "gain_", "age", "at_start", "lifetime", "seen_", "rank_level"),
    "growth of a week": ("grown_1d", "grown_3d", "grown_7d", "rank_grown_7d"),
    "growth of months": ("grown_", "rank_grown_", "week_median"),
    "weekly filter": ("slow", "fast", "se", "se_counting", "z", "z_week", "shrunken", "rank_slow"),
    "spread and course": ("week_", "sustain"),
    "forks": ("fork", "rank_forks"),
    "Hacker News": ("hn_",),
    "trending pages": ("trending_",),
}
"""Groups of features by the beginnings of their names; the first group that fits has the feature."""


class Regressor(Protocol):
    """Anything that predicts one number per row of features."""

    def predict(self, X: F32, /) -> F64:
        """Return (n,) for features (n, F), NaN allowed."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Growth over one horizon, log(C(t+h) + 10) - log(C(t) + 10): the median, and the 80 % and 95 % bands."""

    median: F64
    lo80: F64
    hi80: F64
    lo95: F64
    hi95: F64


@dataclass(frozen=True, slots=True)
class HorizonModel:
    """The model of one horizon.

    ``used`` are the columns of the features that the trees know: those not known for any training pair are left out.
    ``floor`` is the least size of an error. ``vintage`` is the last row whose counts had a part in the fit.
    """

    horizon: int
    names: tuple[str, ...]
    used: npt.NDArray[np.intp]
    location: Regressor
    scale: Regressor
    floor: float
    vintage: int
    pairs: int

    def errors_and_scale(self, features: F32) -> tuple[F64, F64]:
        """Return the location of z and the size of its error for features (n, F)."""
        if not len(features):
            return np.zeros(0), np.zeros(0)
        known = np.ascontiguousarray(features[:, self.used])
        return self.location.predict(known), np.maximum(self.scale.predict(known), self.floor)

    def forecast(self, features: F32, errors: F64) -> Quantiles:
        """Return quantiles of growth for features (n, F), given quantiles of scaled errors at PROBABILITIES."""
        location, scale = self.errors_and_scale(features)
        z = np.clip(location + scale * errors[:, None], -Z_MAX, Z_MAX)
        lo95, lo80, median, hi80, hi95 = from_z(z, self.horizon)
        return Quantiles(median, lo80, hi80, lo95, hi95)

    def explain(self, features: F32, errors: F64) -> dict[str, F64]:
        """Return what each group of features adds to the median growth of each row.

        The contribution of a group is the median forecast minus the one with that group's features set to their medians
        over the rows given (the repositories of the day). Contributions of groups that act together do not add up
        to the whole; they are effects of one change each.
        """
        whole = self.forecast(features, errors).median
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a feature that nobody has stays unknown
            middle = np.nanmedian(features, axis=0) if len(features) else np.zeros(features.shape[1])
        found: dict[str, F64] = {}
        for group, columns in group_columns(self.names).items():
            plain = features.copy()
            plain[:, columns] = middle[columns]
            found[group] = whole - self.forecast(plain, errors).median
        return found


def group_columns(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns of each group of GROUPS that has any."""
    exact = {"z", "se", "slow", "fast", "level", "age"}
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        for group, begins in GROUPS.items():
            if any(name == b or (b not in exact and name.startswith(b)) for b in begins):
                groups.setdefault(group, []).append(column)
                break
        else:
            raise ValueError(f"feature {name} has no group; add it to GROUPS")
    return groups


def to_z(growth: F64, horizon: int) -> F64:
    """Return asinh(Y / unit)."""
    z: F64 = np.arcsinh(growth / (UNIT_PER_DAY * horizon))
    return z


def from_z(z: F64, horizon: int) -> F64:
    """Return Y of z."""
    growth: F64 = np.sinh(z) * (UNIT_PER_DAY * horizon)
    return growth


def canonical_order(features: F32) -> npt.NDArray[np.intp]:
    """Return an order of the rows that depends on their values alone, not on the order of repositories."""
    return np.lexsort(features.T[::-1])


def fit(features: F32, growth: F64, names: Sequence[str], horizon: int, *, vintage: int, seed: int) -> HorizonModel:
    """Fit the model of one horizon.

    Parameters
    ----------
    features, growth
        Pairs (n, F) and (n,), realised, in an order that depends on their values alone (canonical_order).
    vintage
        The last row whose counts are in ``growth``; kept with the model.
    seed
        Equal pairs and seeds give equal models.
    """
    if len(features) > PAIRS_MAX:
        drawn = np.sort(np.random.default_rng(seed).choice(len(features), PAIRS_MAX, replace=False))
        features, growth = features[drawn], growth[drawn]
    used = np.flatnonzero(np.isfinite(features).any(axis=0))
    known = np.ascontiguousarray(features[:, used])
    z = to_z(growth, horizon)
    leaf = int(np.clip(len(z) / 500, 20, 200))
    location = _boosting(160, 0.07, 31, leaf, seed).fit(known, z)
    errors = np.abs(z - location.predict(known))
    scale = _boosting(50, 0.1, 15, 2 * leaf, seed).fit(known, errors)
    floor = max(float(np.quantile(errors, 0.25)) / 2, 1e-6)
    return HorizonModel(horizon, tuple(names), used, location, scale, floor, vintage, len(z))


def _boosting(trees: int, rate: float, leaves: int, leaf: int, seed: int) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=trees,
        learning_rate=rate,
        max_leaf_nodes=leaves,
        min_samples_leaf=leaf,
        max_features=0.3,
        l2_regularization=5.0,
        early_stopping=False,
        random_state=seed,
    )
