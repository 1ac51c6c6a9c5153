"""The memory of the weekly filter: what must be kept of N series so that one new day is enough."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import Kind
from astrid.scoring.series import UNSEEN

PHASES: Final = 7
RING_DAYS: Final = 28

Floats = npt.NDArray[np.floating]

_LEADING: Final[dict[str, tuple[int, ...]]] = {
    "level": (2, PHASES),
    "growth": (2, PHASES),
    "variance": (2, PHASES),
    "surprise": (2, PHASES),
    "value": (PHASES,),
    "y": (PHASES,),
    "updates": (PHASES,),
    "silent_weeks": (PHASES,),
    "silent_days": (),
    "offset": (),
    "last": (),
    "steps": (RING_DAYS,),
}
_INTEGER: Final = {"updates": np.uint8, "silent_weeks": np.uint8, "silent_days": np.uint16}


@dataclass(slots=True)
class FilterState:
    """State of N series after ``day`` days; the phase of the next day is ``day % 7``.

    The last axis is always the series, axis 0 of the first four fields is the speed (0 slow, 1 fast)
    and the axis of length 7 the phase, so that one day touches one row of each.

    ``level``, ``growth``, ``variance``, ``surprise``
        Filter state per speed and phase: l, b, s2 and u of the last week (0 where it had no update).
    ``value``
        Flow: the last seven days, observed or filled, NaN = unknown. Stock: the cleaned level of the
        last seven days, carried forward over gaps, 0 before the first.
    ``y``
        Last log reading of the phase; only meaningful where ``silent_weeks`` is 0 and ``updates`` > 0.
    ``updates``, ``silent_weeks``
        Updates of the phase, and weeks since its last one.
    ``silent_days``
        Days since the last observation, UNSEEN and more before the first.
    ``offset``, ``last``
        Stock only: what resets have taken away so far, and the last cleaned level.
    ``steps``
        Ring of the daily counts of 28 days (slot ``day % 28``); a stock's step over a gap is spread over it.
    """

    kind: Kind
    day: int
    level: Floats
    growth: Floats
    variance: Floats
    surprise: Floats
    value: Floats
    y: Floats
    updates: npt.NDArray[np.uint8]
    silent_weeks: npt.NDArray[np.uint8]
    silent_days: npt.NDArray[np.uint16]
    offset: Floats
    last: Floats
    steps: Floats

    @staticmethod
    def empty(n: int, kind: Kind, *, day: int = 0, dtype: npt.DTypeLike = np.float32) -> FilterState:
        """Return the state of ``n`` series that were never observed.

        ``day`` numbers the first day to come (any origin: the number of days since 1970-01-01 makes the
        phase the same for every run). float32 is the working type; float64 is for measuring what it costs.
        """
        arrays = {name: np.zeros((*lead, n), _INTEGER.get(name, dtype)) for name, lead in _LEADING.items()}
        arrays["silent_days"][:] = UNSEEN
        if kind == "flow":
            arrays["value"][:] = np.nan
        return FilterState(kind, day, **arrays)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the arrays by name, not copied."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in _LEADING}

    def columns(self, start: int, stop: int) -> FilterState:
        """Return a contiguous copy of the series ``start`` to ``stop``."""
        cut = {name: np.ascontiguousarray(a[..., start:stop]) for name, a in self.arrays().items()}
        if stop - start == len(self):  # ascontiguousarray does not copy what is contiguous already
            cut = {name: a.copy() for name, a in cut.items()}
        return FilterState(self.kind, self.day, **cut)

    def put(self, start: int, part: FilterState) -> None:
        """Write ``part`` over the series from ``start`` on."""
        for name, a in part.arrays().items():
            self.arrays()[name][..., start : start + len(part)] = a

    def take(self, index: npt.NDArray[np.integer]) -> FilterState:
        """Return the series at ``index`` in that order; -1 gives a series that was never observed."""
        picked = FilterState.empty(len(index), self.kind, day=self.day, dtype=self.level.dtype)
        known = np.flatnonzero(index >= 0)
        for name, a in picked.arrays().items():
            a[..., known] = self.arrays()[name][..., index[known]]
        return picked

    def to_rows(self) -> npt.NDArray[np.uint8]:
        """Return one row of bytes per series, (N, ROW_BYTES), as a database stores it."""
        parts = [
            np.ascontiguousarray(np.moveaxis(a, -1, 0)).reshape(len(self), -1).view(np.uint8)
            for a in self.arrays().values()
        ]
        return np.concatenate(parts, axis=1)

    @staticmethod
    def from_rows(rows: npt.NDArray[np.uint8], kind: Kind, *, day: int) -> FilterState:
        """Read back what :meth:`to_rows` wrote (float32 states).

        Raises
        ------
        ValueError
            If a row has another length than this version of the state.
        """
        if rows.ndim != 2 or rows.shape[1] != ROW_BYTES:
            raise ValueError(f"rows must have shape (N, {ROW_BYTES}), not {rows.shape}")
        state = FilterState.empty(len(rows), kind, day=day)
        start = 0
        for a in state.arrays().values():
            size = a.itemsize * int(np.prod(a.shape[:-1]))
            cut = np.ascontiguousarray(rows[:, start : start + size]).view(a.dtype)
            a[...] = np.moveaxis(cut.reshape(len(rows), *a.shape[:-1]), 0, -1)
            start += size
        return state

    def __len__(self) -> int:
        return len(self.silent_days)


ROW_BYTES: Final = sum(
    int(np.prod(lead)) * np.dtype(_INTEGER.get(name, np.float32)).itemsize for name, lead in _LEADING.items()
)
"""Bytes per series of a float32 state."""
