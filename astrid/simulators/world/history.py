"""From star counts to what ``/stargazers/history`` states: stars gained per day, in weeks from Sunday."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_DAY_S: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class HistoryPart:
    """Daily gains, int32, from ``sunday`` on; the days before ``created_on`` are 0."""

    sunday: date
    created_on: date
    gains: npt.NDArray[np.int32]


def daily_gains(stars: npt.NDArray[np.integer[Any]], first_day: date, created_on: date) -> HistoryPart:
    """Return the gain of each day from the Sunday on or before ``created_on`` to the last day of ``stars``.

    ``stars`` (T,) starts on ``first_day``; -1 is a gap. Between two known counts the gain, if positive, is spread
    evenly in whole stars; the first known count is spread from ``created_on``, which must not be later.
    After the last known count, and without any, gains are 0.
    """
    sunday = created_on - timedelta(days=_weekday_from_sunday(created_on))
    end = first_day + timedelta(days=len(stars) - 1)
    gains = np.zeros(max((end - sunday).days + 1, 0), dtype=np.int64)
    known = np.flatnonzero(stars >= 0)
    if known.size:
        shift = (first_day - sunday).days
        stops = known + shift
        starts = np.concatenate(([(created_on - sunday).days - 1], stops[:-1]))
        if stops[0] <= starts[0]:
            raise ValueError(f"created_on {created_on} is later than the first known count")
        rises = np.maximum(np.diff(stars[known].astype(np.int64), prepend=0), 0)
        lengths = stops - starts
        piece = np.repeat(np.arange(known.size), lengths)
        step = np.arange(starts[0] + 1, stops[-1] + 1) - starts[piece]
        upto = rises[piece] * step // lengths[piece]
        before = rises[piece] * (step - 1) // lengths[piece]
        gains[starts[0] + 1 : stops[-1] + 1] = upto - before
    return HistoryPart(sunday, created_on, gains.astype(np.int32))


def weekly_rows(part: HistoryPart, until_day: date) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return (weeks, days) up to ``until_day``, newest first: epoch seconds (W,) and gains from Sunday (W, 7)."""
    if until_day < part.created_on:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 7), dtype=np.int32)
    count = (until_day - part.sunday).days + 1
    weeks = -(-count // 7)
    rows = np.zeros(weeks * 7, dtype=np.int32)
    known = part.gains[:count]
    rows[: len(known)] = known
    first = (part.sunday - _EPOCH).days * _DAY_S
    epochs = first + 7 * _DAY_S * np.arange(weeks - 1, -1, -1, dtype=np.int64)
    return epochs, rows.reshape(weeks, 7)[::-1]


def _weekday_from_sunday(day: date) -> int:
    return day.isoweekday() % 7
