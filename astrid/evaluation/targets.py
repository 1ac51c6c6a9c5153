"""What is to be foretold, and looking up counts on days that may have no observation."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.evaluation.panel import Counts

Values = npt.NDArray[np.float64]

KAPPA: Final = 10.0
"""Pseudo-count in the logarithm of a stock (astrid.scoring.series.STOCK)."""

TOLERANCE: Final = 3
"""Days by which a look-up may miss its day: later for what comes, earlier for what was."""


def log_count(counts: npt.NDArray[np.floating]) -> Values:
    """Return log(C + KAPPA), float64; NaN stays NaN."""
    y: Values = np.log(counts.astype(np.float64) + KAPPA)
    return y


def count_after(counts: Counts, row: int) -> Values:
    """Return the first observation of each column in the rows ``row`` .. ``row + TOLERANCE``, NaN = none."""
    return _first(counts[max(row, 0) : max(row + TOLERANCE + 1, 0)], counts.shape[1])


def count_before(counts: Counts, row: int) -> Values:
    """Return the last observation of each column in the rows ``row - TOLERANCE`` .. ``row``, NaN = none."""
    return _first(counts[max(row - TOLERANCE, 0) : max(row + 1, 0)][::-1], counts.shape[1])


def realised_growth(counts: Counts, row: int, horizon: int) -> Values:
    """Return log(C(t+h) + 10) - log(C(t) + 10) of each column.

    C(t) must be observed on the day itself; C(t+h) is the first observation of the days t+h .. t+h+3.
    NaN where either is not there, so where the panel ends before t+h.
    """
    return log_count(count_after(counts, row + horizon)) - log_count(counts[row])


def _first(block: Counts, columns: int) -> Values:
    found = np.full(columns, np.nan)
    for values in block:
        np.copyto(found, values, where=np.isnan(found))
    return found
