"""First prints and revisions: what was published first stays, and what changed since is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from astrid.index.baskets import F64, Days

DECIMALS: Final = 2
"""An index is printed with so many decimals; what rounds to the same print is no revision."""

Change = Literal["revised", "withdrawn", "filled"]


@dataclass(frozen=True, slots=True)
class Revision:
    """One day whose value is not what was printed.

    ``revised``: both are there and differ as printed. ``withdrawn``: it was printed and is a gap now. ``filled``: the
    day was printed as a gap and has a value now. ``printed`` and ``recomputed`` are None where there is no value.
    """

    day: np.datetime64
    change: Change
    printed: float | None
    recomputed: float | None


def find_revisions(days: Days, printed: F64, recomputed: F64, last_printed: np.datetime64) -> tuple[Revision, ...]:
    """Return what differs between the values as printed and as recomputed, in the order of ``days``.

    Arrays are (T,), NaN = no value. Days after ``last_printed`` were never printed: they are new, not revised.

    Raises
    ------
    ValueError
        If shapes differ, or something was printed for a day after ``last_printed``.
    """
    if not len(days) == len(printed) == len(recomputed):
        raise ValueError(f"{len(days)} days, {len(printed)} printed and {len(recomputed)} recomputed values")
    if np.isfinite(printed[days > last_printed]).any():
        raise ValueError(f"a value is printed for a day after the last printed day {last_printed}")
    found = []
    for day, old, new in zip(days, as_printed(printed), as_printed(recomputed), strict=True):
        if day > last_printed or old == new or (np.isnan(old) and np.isnan(new)):
            continue
        change: Change = "filled" if np.isnan(old) else "withdrawn" if np.isnan(new) else "revised"
        found.append(
            Revision(day, change, None if np.isnan(old) else float(old), None if np.isnan(new) else float(new))
        )
    return tuple(found)


def keep_first(days: Days, printed: F64, recomputed: F64, last_printed: np.datetime64) -> F64:
    """Return the series of first prints after today's print: old ones as they are, gaps too, and the new days."""
    return np.where(days > last_printed, as_printed(recomputed), printed)


def as_printed(value: F64) -> F64:
    """Return the values as they are printed; NaN stays NaN."""
    return np.round(value, DECIMALS)
