"""The forecast walked forward: on each day a model that was fitted on what was realised by then.

Features are kept for one day a week (the grid). A pair of a grid day t' and its growth over h days may be learned from,
and its error calibrated on, once t' + h + 3 <= t: no count of a later day than t can then be in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.forecast.attention import Appearances
from astrid.forecast.calibration import conformal_quantiles
from astrid.forecast.features import DayFeatures, FeatureWalk
from astrid.forecast.model import HORIZONS, PROBABILITIES, VERSION, HorizonModel, Quantiles, canonical_order, fit, to_z
from astrid.forecast.shipped import Shipped
from astrid.scoring.series import STOCK

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

TOLERANCE: Final = 3
"""Days by which the count that realises a growth may be late."""

REFIT_WEEKS: Final = 13
"""Weeks between two fits of one horizon."""

DAYS_MIN: Final = 6
PAIRS_MIN: Final = 600
"""Grid days and pairs that must be realised before a first fit."""

CALIBRATION_WEEKS: Final = 52
"""Realised errors of the last so many grid days are calibrated on."""

CALIBRATION_MIN: Final = 4
"""With errors of fewer days, errors between two halves of the repositories stand in."""

KEPT_MAX: Final = 3_000
"""Repositories of a grid day that are kept to learn from."""


def realised(stars: F32, row: int, columns: npt.NDArray[np.intp], horizon: int) -> F64:
    """Return log(C(t+h) + 10) - log(C(t) + 10) of the columns, C(t+h) the first count of the days t+h .. t+h+3."""
    after = np.full(len(columns), np.nan)
    for values in stars[row + horizon : row + horizon + TOLERANCE + 1, columns]:
        np.copyto(after, values, where=np.isnan(after))
    grown: F64 = np.log(after + STOCK.kappa) - np.log(stars[row, columns].astype(np.float64) + STOCK.kappa)
    return grown


@dataclass(slots=True)
class _Horizon:
    """What is kept for one horizon: the newest model, and scaled errors by grid day."""

    model: HorizonModel | None = None
    fitted: int = -1
    pending: list[tuple[int, npt.NDArray[np.intp], F64, F64]] = field(default_factory=list)
    errors: list[F64] = field(default_factory=list)
    stand_in: F64 = field(default_factory=lambda: np.zeros(0))


class WalkForward:
    """Forecasts over one panel, asked for days in ascending order.

    Parameters
    ----------
    stars, forks, first_day, attention
        As for :class:`~astrid.forecast.features.FeatureWalk`.
    horizons
        Days ahead.
    seed
        Of the fits; equal input and seeds give equal forecasts.
    """

    def __init__(
        self,
        stars: F32,
        forks: F32 | None,
        first_day: np.datetime64,
        attention: Sequence[Appearances] = (),
        *,
        horizons: Sequence[int] = HORIZONS,
        seed: int = 0,
    ) -> None:
        self._stars, self._seed, self._first_day = stars, seed, first_day.astype("datetime64[D]")
        self._features = FeatureWalk(stars, forks, first_day, attention)
        self._names = self._features.names
        # The grid is the days 4, 11, ... from 1970-01-01, the Mondays, wherever the panel begins.
        self._phase = (4 - int(first_day.astype("datetime64[D]").astype(np.int64))) % 7
        self._grid: list[DayFeatures] = []
        self._horizons = {h: _Horizon() for h in horizons}
        self._next = self._phase
        self._begin = -1
        self._last = -1

    @property
    def name(self) -> str:
        """Name the model and how it is trained."""
        return f"forecast {VERSION}, walk-forward, refitted every {REFIT_WEEKS} weeks"

    def vintage(self, horizon: int) -> int | None:
        """Return the last row whose counts the model of a horizon was fitted on, None before the first fit."""
        model = self._horizons[horizon].model
        return None if model is None else model.vintage

    def forecast(self, row: int) -> dict[int, Quantiles]:
        """Return the forecasts of all N repositories by horizon, NaN for those without a count on the day.

        A horizon that nothing could be learned for yet is left out.

        Raises
        ------
        ValueError
            If ``row`` is not later than the one asked for before.
        """
        day = self._advance(row)
        out = {}
        for horizon, kept in self._horizons.items():
            if kept.model is not None:
                out[horizon] = _spread(kept.model.forecast(day.values, self._errors(kept)), day, self._stars.shape[1])
        return out

    def freeze(self) -> Shipped:
        """Return the newest models with what their errors tell so far, to be kept.

        Raises
        ------
        ValueError
            If nothing was learned yet.
        """
        known = {h: (kept.model, self._errors(kept)) for h, kept in self._horizons.items() if kept.model is not None}
        if not known:
            raise ValueError("nothing was learned yet: ask for a forecast of a later day first")
        return Shipped(
            self._first_day + max(model.vintage for model, _ in known.values()),
            {h: model for h, (model, _) in known.items()},
            {h: errors for h, (_, errors) in known.items()},
        )

    def explain(self, row: int, horizon: int) -> tuple[DayFeatures, dict[str, F64]]:
        """Return the features of a day and what each group of them adds to its median growth; asked like forecast."""
        day = self._advance(row)
        kept = self._horizons[horizon]
        if kept.model is None:
            return day, {}
        return day, kept.model.explain(day.values, self._errors(kept))

    def _advance(self, row: int) -> DayFeatures:
        if row <= self._last:
            raise ValueError(f"rows must ascend: {row} comes after {self._last}")
        self._last = row
        if self._begin < 0:
            # Errors of a year before the first day asked for are made too, so that its bands are calibrated.
            self._begin = max(row - 7 * CALIBRATION_WEEKS, 0)
        today: DayFeatures | None = None
        while self._next <= row:
            day = self._features.at(self._next)
            self._step(day)
            today = day if self._next == row else None
            self._next += 7
        if today is None:
            today = self._features.at(row)
            for horizon in self._horizons:
                self._realise(horizon, row)
        return today

    def _step(self, day: DayFeatures) -> None:
        """Take in a grid day: realise what is due, fit again where it is time, and note what is said of it."""
        for horizon, kept in self._horizons.items():
            self._realise(horizon, day.row)
            # Before the first day asked for, only that horizon's own year of errors needs models.
            if day.row >= self._begin - horizon and (kept.model is None or day.row - kept.fitted >= 7 * REFIT_WEEKS):
                self._fit(horizon, day.row)
            if kept.model is not None and len(day.columns):
                location, scale = kept.model.errors_and_scale(day.values)
                kept.pending.append((day.row, day.columns, location, scale))
        if len(day.columns):
            order = canonical_order(day.values)
            if len(order) > KEPT_MAX:
                rng = np.random.default_rng((self._seed, day.row))
                order = order[np.sort(rng.choice(len(order), KEPT_MAX, replace=False))]
            self._grid.append(DayFeatures(day.row, day.columns[order], day.values[order]))

    def _realise(self, horizon: int, row: int) -> None:
        """Turn forecasts whose growth is known on the day of ``row`` into scaled errors."""
        kept = self._horizons[horizon]
        while kept.pending and kept.pending[0][0] + horizon + TOLERANCE <= row:
            then, columns, location, scale = kept.pending.pop(0)
            growth = realised(self._stars, then, columns, horizon)
            known = np.isfinite(growth)
            if known.any():
                kept.errors.append((to_z(growth[known], horizon) - location[known]) / scale[known])
                del kept.errors[:-CALIBRATION_WEEKS]

    def _fit(self, horizon: int, row: int) -> None:
        days = [d for d in self._grid if d.row + horizon + TOLERANCE <= row]
        if len(days) < DAYS_MIN:
            return
        growth = [realised(self._stars, d.row, d.columns, horizon) for d in days]
        known = [np.isfinite(g) for g in growth]
        y = np.concatenate([g[k] for g, k in zip(growth, known, strict=True)])
        if len(y) < PAIRS_MIN or sum(map(bool, map(np.any, known))) < DAYS_MIN:
            return
        x = np.concatenate([d.values[k] for d, k in zip(days, known, strict=True)])
        kept = self._horizons[horizon]
        if len(kept.errors) < CALIBRATION_MIN:
            columns = np.concatenate([d.columns[k] for d, k in zip(days, known, strict=True)])
            kept.stand_in = self._cross(x, y, self._halves(columns), horizon, row)
        kept.model = fit(x, y, self._names, horizon, vintage=row, seed=self._seed)
        kept.fitted = row

    def _halves(self, columns: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Return a half for each repository that does not depend on its place: by its first count's last bit."""
        seen = ~np.isnan(self._stars)
        first = self._stars[seen.argmax(axis=0), np.arange(self._stars.shape[1])]
        odd: npt.NDArray[np.bool_] = np.nan_to_num(first).astype(np.int64)[columns] % 2 == 1
        return odd

    def _cross(self, x: F32, y: F64, odd: npt.NDArray[np.bool_], horizon: int, row: int) -> F64:
        """Return scaled errors of each half of the repositories by a model of the other half."""
        errors = []
        for half in (odd, ~odd):
            if np.count_nonzero(half) < PAIRS_MIN // 6 or np.count_nonzero(~half) < PAIRS_MIN // 6:
                continue
            model = fit(x[half], y[half], self._names, horizon, vintage=row, seed=self._seed)
            location, scale = model.errors_and_scale(x[~half])
            errors.append((to_z(y[~half], horizon) - location) / scale)
        return np.concatenate(errors) if errors else np.zeros(0)

    def _errors(self, kept: _Horizon) -> F64:
        """Return the quantiles of scaled errors known today."""
        enough = len(kept.errors) >= CALIBRATION_MIN
        errors = np.concatenate(kept.errors) if enough else kept.stand_in
        return conformal_quantiles(errors, PROBABILITIES) if len(errors) else np.array([-3.0, -1.5, 0.0, 1.5, 3.0])


def _spread(found: Quantiles, day: DayFeatures, count: int) -> Quantiles:
    """Put the forecasts of a day's repositories at their places among all."""

    def put(values: F64) -> F64:
        full = np.full(count, np.nan)
        full[day.columns] = values
        return full

    return Quantiles(*(put(getattr(found, n)) for n in ("median", "lo80", "hi80", "lo95", "hi95")))
