"""The baskets of an index: who is in it, with what weight, and for how long.

A basket is drawn on the first day of a quarter from what was known five days before, and holds until the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]

CAP: Final = 0.05
"""Largest weight of one entity within its source."""

CONSTITUENTS_MIN: Final = ceil(1 / CAP)
"""With fewer entities the cap cannot hold: there is no basket."""

KNOWN_BEFORE_DAYS: Final = 5
"""A basket is drawn from what was known so many days before it begins."""

UPDATES_MIN: Final = 13
"""Weekly updates of a series before it may enter."""

SEEN_WITHIN_DAYS: Final = 7
"""An entrant was seen within so many days of its source before the basket was drawn."""

KEPT_DRAWS_MAX: Final = 2
"""Draws in a row that a source may miss, after an outage, and keep the weights that it had."""

HELD_AFTER_DEATH_DAYS: Final = 90
"""A series that died stays in, at zero growth, for so long."""

NEVER: Final = np.iinfo(np.int64).max
"""Day of death of what lives."""


@dataclass(frozen=True, slots=True)
class Source:
    """One metric of N entities on T consecutive days; arrays are (T, N) where nothing else is said.

    ``y`` is the cleaned logarithm of the count (resets spliced; the trailing week of a flow), NaN = not observed.
    ``level`` is the smoothed logarithm that weights are drawn from, ``updates`` the weekly updates of the day's
    weekday, ``suspect`` whether the series has the flag SUSPECT. ``growth`` is the shrunken growth in log per
    week and ``noise`` its standard error from counting (both NaN = not known); only the companions need them.
    ``died``, (N,), is the row on which a series was *known* to be gone, NEVER for all others. A gap is no death.
    """

    name: str
    family: str
    y: npt.NDArray[np.floating[Any]]
    level: npt.NDArray[np.floating[Any]]
    updates: npt.NDArray[np.integer[Any]]
    suspect: Bools
    growth: npt.NDArray[np.floating[Any]]
    noise: npt.NDArray[np.floating[Any]]
    died: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other."""
        for name in ("level", "updates", "suspect", "growth", "noise"):
            if getattr(self, name).shape != self.y.shape:
                raise ValueError(f"{name} of {self.name} has shape {getattr(self, name).shape}, y {self.y.shape}")
        if self.y.ndim != 2 or self.died.shape != self.y.shape[1:]:
            raise ValueError(f"y of {self.name} must be (days, entities), died (entities,)")


@dataclass(frozen=True, slots=True)
class Basket:
    """What counts from the day ``start`` (a row) on: ``weights`` (S, N) sum to 1, rows of a source without one to 0."""

    start: int
    weights: F64


def quarter_starts(days: Days) -> list[int]:
    """Return the rows of ``days`` that are the first day of a quarter."""
    months = days.astype("datetime64[M]")
    first = days == months.astype("datetime64[D]")
    return [int(row) for row in np.flatnonzero(first & (months.astype(np.int64) % 3 == 0))]


def draw_baskets(
    sources: Sequence[Source],
    days: Days,
    members: Bools | None = None,
    *,
    cap: float = CAP,
    starts: Sequence[int] | None = None,
) -> list[Basket]:
    """Return one basket per quarter in which at least one source has enough eligible entities, in order of time.

    A source of which a draw finds too few, because it is out or its series are young again after an outage, keeps the
    weights that it had for up to KEPT_DRAWS_MAX draws, unless it was read in the week before the cut and less than half
    of its old weight was seen. Else it leaves. ``members`` (N,) limits the entities, for a category; ``starts``
    overrides the rows on which baskets begin.

    Raises
    ------
    ValueError
        If shapes differ, or the days are not consecutive.
    """
    require_consecutive(days)
    if not sources:
        raise ValueError("an index needs at least one source")
    shape = sources[0].y.shape
    for source in sources:
        if source.y.shape != shape or len(days) != shape[0]:
            raise ValueError(f"{source.name} has shape {source.y.shape}, expected ({len(days)}, {shape[1]})")
    mine = np.ones(shape[1], np.bool_) if members is None else members
    if mine.shape != (shape[1],):
        raise ValueError(f"members must have shape ({shape[1]},), not {mine.shape}")
    baskets: list[Basket] = []
    inside = np.zeros((len(sources), shape[1]))
    missed = np.zeros(len(sources), np.int64)
    for start in quarter_starts(days) if starts is None else starts:
        cut = start - KNOWN_BEFORE_DAYS
        if cut < 0:
            continue
        for s, source in enumerate(sources):
            drawn = _draw(source, cut, mine, inside[s], cap)
            missed[s] = 0 if drawn.any() else missed[s] + 1
            if drawn.any() or missed[s] > KEPT_DRAWS_MAX or not _still_there(source, cut, inside[s]):
                inside[s] = drawn
        if inside.any():
            baskets.append(Basket(start, _share_families(inside, [s.family for s in sources])))
        elif baskets and baskets[-1].weights.any():
            baskets.append(Basket(start, inside.copy()))  # the index ends: nothing may go on by itself
    return baskets


def capped_weights(size: F64, cap: float = CAP) -> F64:
    """Return weights proportional to ``size`` of which none is above ``cap``; they sum to 1.

    What is above is cut to the cap and its surplus shared by the others in proportion, again and again, until none is
    above. Where ``size`` is not positive the weight is 0. With fewer than 1 / cap positive sizes all weights are 0,
    because no weights could sum to 1.
    """
    size = np.where(size > 0, size, 0.0)
    n = np.count_nonzero(size)
    if n * cap < 1 - 1e-12:
        return np.zeros_like(size)
    capped = np.zeros(len(size), np.bool_)
    weights = size / size.sum()
    while (above := (weights > cap * (1 + 1e-12)) & ~capped).any():
        capped |= above
        rest = np.where(capped, 0.0, size)
        if not rest.any():
            return np.asarray(capped / n, np.float64)
        weights = np.where(capped, cap, rest * ((1 - cap * np.count_nonzero(capped)) / rest.sum()))
    return np.asarray(weights, np.float64)


def eligible(source: Source, cut: int) -> Bools:
    """Return who may enter a basket drawn on row ``cut``: old enough, not SUSPECT, alive, and lately seen."""
    seen = _week(source, cut).any(axis=0)
    known: Bools = np.asarray(
        seen
        & (source.updates[cut] >= UPDATES_MIN)
        & ~source.suspect[cut]
        & np.isfinite(source.level[cut])
        & (source.died > cut)
    )
    return known


def require_consecutive(days: Days) -> None:
    """Raise ValueError unless ``days`` are consecutive datetime64[D]."""
    if days.dtype != np.dtype("datetime64[D]") or (len(days) > 1 and (np.diff(days) != np.timedelta64(1, "D")).any()):
        raise ValueError("days must be consecutive and of dtype datetime64[D]")


def _draw(source: Source, cut: int, mine: Bools, was: F64, cap: float) -> F64:
    """Return the weights within one source, (N,), which sum to 1 or are all 0."""
    chosen = eligible(source, cut) & mine
    # Half of a logarithm is that of the square root; the largest is taken out so that none can overflow.
    level = np.where(chosen, source.level[cut].astype(np.float64), -np.inf)
    top = level.max(initial=-np.inf)
    if not np.isfinite(top):
        return np.zeros(len(level))
    drawn = capped_weights(np.exp((level - top) / 2), cap)
    # The recently dead of the old basket stay in at what they weighed, at zero growth: leaving them out at once
    # would be survivorship.
    held = (was > 0) & (source.died <= cut) & (cut - source.died < HELD_AFTER_DEATH_DAYS)
    if held.any() and drawn.any():
        drawn = np.where(held, was, drawn * (1 - was[held].sum()))
    return drawn


def _still_there(source: Source, cut: int, was: F64) -> bool:
    """Return whether the source was not read in the last week, or at least half of the old weight was seen in it."""
    seen = _week(source, cut).any(axis=0)
    return not seen.any() or bool(was[seen].sum() >= 0.5 * was.sum())


def _week(source: Source, cut: int) -> Bools:
    """Return who was observed on which of the last days up to row ``cut``."""
    return np.asarray(np.isfinite(source.y[max(cut - SEEN_WITHIN_DAYS + 1, 0) : cut + 1]), np.bool_)


def _share_families(inside: F64, families: Sequence[str]) -> F64:
    """Return (S, N): each family present has the same total, shared equally by its sources that are present."""
    present = [bool(row.any()) for row in inside]
    counts = {
        family: sum(1 for f, there in zip(families, present, strict=True) if there and f == family)
        for family in families
    }
    alive = sum(1 for count in counts.values() if count)
    share = np.array([1 / (alive * counts[f]) if there else 0.0 for f, there in zip(families, present, strict=True)])
    return np.asarray(inside * share[:, None], np.float64)
