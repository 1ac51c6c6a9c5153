"""What a model must offer to be evaluated: quantiles of growth per repository, day and horizon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Growth over one horizon, log(C(t+h) + 10) - log(C(t) + 10), of the N repositories of a panel.

    ``median`` and the bounds of the 80 % and 95 % intervals; arrays of length N, NaN = no forecast.
    """

    median: Values
    lo80: Values
    hi80: Values
    lo95: Values
    hi95: Values


class Forecaster(Protocol):
    """A model over one panel, asked for its evaluated days in ascending order."""

    @property
    def name(self) -> str:
        """Name the model and its vintage, for the report."""

    def forecast(self, row: int) -> dict[int, Forecast]:
        """Return the forecast by horizon in days, made with rows up to ``row`` of the panel and nothing later.

        A horizon without a forecast is left out; an empty answer means that nothing could be learned yet.
        """
