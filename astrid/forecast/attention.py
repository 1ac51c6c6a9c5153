"""Appearances of repositories on pages that many people read, counted over trailing windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]

WINDOWS: Final = (7, 28, 90)
"""Trailing days over which appearances are counted."""

LAG: Final = 1
"""Days until an appearance may be used: a page of a day is complete only when the day is over."""

MEMORY: Final = 365
"""Days after which an appearance is forgotten."""

QUIET_MAX: Final = 14
"""A source without any row for so many days is taken as not observed, not as silent."""


@dataclass(frozen=True, slots=True)
class Appearances:
    """Rows of one source: ``rows`` are days counted from the panel's first (ascending; may be negative).

    ``columns`` are the repositories of the panel, -1 where it has none by that name (such rows only show that
    the source was read that day); ``ranks`` are places on the page from 1. Points are left out on purpose:
    archives state final ones, which were not known on the day.
    """

    name: str
    rows: Ints
    columns: Ints
    ranks: F32

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.columns) == len(self.ranks):
            raise ValueError("rows, columns and ranks must have one length")
        if len(self.rows) and (np.diff(self.rows) < 0).any():
            raise ValueError("rows must ascend")

    @property
    def names(self) -> tuple[str, ...]:
        """Name the features of :meth:`at`."""
        return (*(f"{self.name}_{w}d" for w in WINDOWS), f"{self.name}_since", f"{self.name}_best")

    def at(self, row: int, count: int) -> F32:
        """Return the features of one day, (5, count): appearances in WINDOWS, days since the last, best place.

        Only rows up to ``row - LAG`` are read. NaN everywhere while the source is not observed; days since the last
        appearance are NaN where there was none in MEMORY days, the best place (of 90 days) likewise.
        """
        last = row - LAG
        out = np.full((len(WINDOWS) + 2, count), np.nan, np.float32)
        end = int(np.searchsorted(self.rows, last, "right"))
        if end == 0 or last - self.rows[end - 1] > QUIET_MAX:
            return out
        for i, window in enumerate(WINDOWS):
            _, columns, _ = self._cut(last - window + 1, end)
            out[i] = np.bincount(columns, minlength=count)
        rows, columns, _ = self._cut(last - MEMORY + 1, end)
        out[-2, columns] = row - rows  # rows ascend, so the latest is written last
        _, columns, ranks = self._cut(last - WINDOWS[-1] + 1, end)
        best = np.full(count, np.inf, np.float32)
        np.minimum.at(best, columns, ranks)
        out[-1] = np.where(np.isfinite(best), best, np.nan)
        return out

    def _cut(self, first: int, end: int) -> tuple[Ints, Ints, F32]:
        begin = int(np.searchsorted(self.rows, first, "left"))
        ours = self.columns[begin:end] >= 0
        return self.rows[begin:end][ours], self.columns[begin:end][ours], self.ranks[begin:end][ours]
