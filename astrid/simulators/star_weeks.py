"""What scenarios do to the weeks of a star history: stars taken back, one before its time, a made-up repository."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

import numpy as np

PURGED: Final = 10
"""A purge takes every tenth star."""
STRANGER_STARS: Final = 40
DAY_S: Final = 86_400


def purged_weeks(weeks: Any, days: Any, purged_on: date) -> Any:
    """Take every tenth star that was given up to a day, counted from the first; weeks are newest first."""
    moments = weeks[:, None] + DAY_S * np.arange(7)
    limit = (purged_on - date(1970, 1, 1)).days * DAY_S
    given = np.where(moments <= limit, days, 0)[::-1].reshape(-1)
    lost = np.diff(np.cumsum(given) // PURGED, prepend=0)
    return days - lost.reshape(days.shape)[::-1]


def move_first_star(rows: list[dict[str, Any]], created_on: date) -> None:
    """Bucket one star of the day of creation on the day before it, in place."""
    epoch = date(1970, 1, 1)
    place = created_on.isoweekday() % 7
    sunday_s = (created_on - timedelta(days=place) - epoch).days * DAY_S
    first = next((row for row in rows if row["week"] == sunday_s), None)
    if first is None or not first["days"][place]:
        return
    first["days"][place] -= 1
    if place:
        first["days"][place - 1] += 1
    else:
        first["total"] -= 1
        rows.append({"week": sunday_s - 7 * DAY_S, "total": 1, "days": [0, 0, 0, 0, 0, 0, 1]})


def stranger_weeks(created_on: date, night: date) -> list[dict[str, Any]]:
    """Return the weeks of a repository that a scenario made up: ``STRANGER_STARS`` at once, then one a day."""
    rows: list[dict[str, Any]] = []
    sunday = created_on - timedelta(days=created_on.isoweekday() % 7)
    while sunday <= night:
        days = [0] * 7
        for n in range(7):
            day = sunday + timedelta(days=n)
            if created_on <= day <= night:
                days[n] = STRANGER_STARS if day == created_on else 1
        rows.append({"week": (sunday - date(1970, 1, 1)).days * DAY_S, "total": sum(days), "days": days})
        sunday += timedelta(days=7)
    return rows[::-1]
