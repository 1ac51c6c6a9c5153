"""Axes: which values and days get a label, and how a value label is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from api.pages.words import MINUS, MONTHS, write_day

_UNITS: Final = ((1e9, "bn"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Scale:
    """A range of values with its labelled ticks; the ticks lie in [low, high]."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Return where a value lies, 0 = low, 1 = high."""
        return (value - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """Return the ticks as texts that tell each from the next: 113,100 and 113,200, but 100k and 200k."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 0.0
        largest = max(abs(tick) for tick in self.ticks)
        for limit, unit in _UNITS:
            # A unit is used where every tick has at most one decimal in it.
            if largest >= limit and math.isclose(step / limit * 10, round(step / limit * 10), abs_tol=1e-9) and step:
                return [_write(tick / limit) + unit if tick else "0" for tick in self.ticks]
        return [_write(tick, grouped=True) for tick in self.ticks]


def _write(value: float, *, grouped: bool = False) -> str:
    rounded = round(value, 6)
    text = f"{abs(rounded):,.6f}" if grouped else f"{abs(rounded):.6f}"
    return (MINUS if rounded < 0 else "") + text.rstrip("0").rstrip(".")


FINEST: Final = 1e-6
"""No label has more decimals, so values that lie closer together are equal on a page."""


def choose_scale(lowest: float, highest: float, *, from_zero: bool, whole: bool = True, steps: int = 4) -> Scale:
    """Return a scale that holds lowest..highest with ticks at 1, 2 or 5 times a power of ten.

    ``from_zero`` starts at 0. ``whole`` never labels a part of a count. All-equal values get room on both sides.
    """
    low, high = (0.0, max(highest, 0.0)) if from_zero else (lowest, highest)
    if high - low < FINEST:
        room = 1.0 if from_zero or not low else max(1.0 if whole else 0.0, abs(low) * 0.01)
        low, high = (low, low + room) if from_zero or low - room < 0 <= low else (low - room, high + room)
    raw = (high - low) / steps
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999999)
    if whole:
        step = max(step, 1.0)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    ticks = tuple(n * step for n in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def choose_days(days: Sequence[date], most: int = 6) -> list[tuple[int, str]]:
    """Return (index, label) of at most ``most`` days to label: first days of months, or single days in short ranges.

    The year stands at the first label and wherever it changes.
    """
    start, end = days[0], days[-1]
    months = [
        date(year, month, 1)
        for year in range(start.year, end.year + 1)
        for month in range(1, 13)
        if start <= date(year, month, 1) <= end
    ]
    if len(months) >= 3:
        for every in (1, 2, 3, 6, 12, 24, 60, 120):
            chosen = [day for day in months if (day.year * 12 + day.month - 1) % every == 0]
            if len(chosen) <= most:
                break
        labels = []
        for i, day in enumerate(chosen):
            new_year = i == 0 or day.year != chosen[i - 1].year
            month = MONTHS[day.month - 1]
            labels.append(((day - start).days, f"{month} {day.year}" if new_year else month))
        return labels
    span = (end - start).days + 1
    every_days = next((n for n in (1, 2, 7, 14, 28) if math.ceil(span / n) <= most), 28)
    picked = [start + timedelta(days=n) for n in range(0, span, every_days)]
    return [
        ((day - start).days, write_day(day) if i == 0 else f"{day.day} {MONTHS[day.month - 1]}")
        for i, day in enumerate(picked)
    ]
