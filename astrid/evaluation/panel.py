"""A panel: daily counts of many repositories, days down and repositories across."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float32]
Day = np.datetime64


@dataclass(frozen=True, slots=True)
class Panel:
    """Counts of N repositories on T consecutive UTC days.

    ``repos`` are sorted names as in the input, each the last one its repository had there. ``stars`` and
    ``forks`` are float32 of shape (T, N), time-major, NaN = not observed; ``forks`` is None where the input
    has no such column. ``former`` holds (column, last row, name) for stretches of rows in which
    the input calls a repository otherwise; of several the one with the earliest last row not yet passed holds.
    """

    repos: tuple[str, ...]
    first_day: Day
    stars: Counts
    forks: Counts | None = None
    former: tuple[tuple[int, int, str], ...] = ()

    def __post_init__(self) -> None:
        if self.stars.ndim != 2 or self.stars.shape[1] != len(self.repos):
            raise ValueError(f"stars must have shape (days, {len(self.repos)}), not {self.stars.shape}")
        if self.forks is not None and self.forks.shape != self.stars.shape:
            raise ValueError(f"forks must have shape {self.stars.shape}, not {self.forks.shape}")

    @property
    def days(self) -> npt.NDArray[np.datetime64]:
        """Return the T days, datetime64[D]."""
        return self.first_day + np.arange(len(self.stars))

    def locate(self, day: Day) -> int:
        """Return the row of a day; negative, or T and more, where the panel does not hold it."""
        return int((day.astype("datetime64[D]") - self.first_day).astype(np.int64))

    def until(self, row: int) -> Panel:
        """Return what is known on the day of ``row``: its rows and those before, as views."""
        return Panel(
            self.repos,
            self.first_day,
            self.stars[: row + 1],
            None if self.forks is None else self.forks[: row + 1],
            self.former,
        )

    def names(self, row: int) -> list[str]:
        """Return the name that each repository had in the input on the day of ``row``."""
        named = list(self.repos)
        for column, name in self._former_at(row):
            named[column] = name
        return named

    def _former_at(self, row: int) -> Iterator[tuple[int, str]]:
        # The latest first, so that the earliest name that was still in use is written last.
        for column, last, name in sorted(self.former, reverse=True):
            if row <= last:
                yield column, name
