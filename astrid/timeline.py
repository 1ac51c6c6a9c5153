"""Which moment it is for this run: real time, or a replayed night on a clock that runs faster.

There is no clock object that code asks for the time: a :class:`Timeline` is a value, the reading of
the machine's clock is an argument, and what travels through the program is ``now``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

SNAPSHOT_NOON = time(12, tzinfo=UTC)
NIGHT_START = time(5, tzinfo=UTC)
"""The night of day D starts at 05:00 UTC of D+1, when every upstream has closed day D."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A mapping from the machine's epoch seconds to the run's moments.

    ``anchor_at`` is the run's moment when the machine's clock showed ``anchor_s``; from there the
    run's time passes ``speed`` times as fast.
    """

    anchor_at: datetime
    anchor_s: float
    speed: float = 1.0

    def at(self, clock_s: float) -> datetime:
        """Return the run's moment (aware, UTC) at the machine's epoch second ``clock_s``."""
        return self.anchor_at + timedelta(seconds=(clock_s - self.anchor_s) * self.speed)

    def real_s(self, duration_s: float) -> float:
        """Return how many real seconds a duration of the run takes."""
        return duration_s / self.speed


def snapshot_day(now: datetime) -> date:
    """Return the day that a count taken at ``now`` belongs to: the UTC day whose end is nearest.

    A count stands for the close of a day. From noon of D until noon of D+1 it is D's.
    """
    moment = now.astimezone(UTC)
    return moment.date() if moment.timetz() >= SNAPSHOT_NOON else moment.date() - timedelta(days=1)


def night_of(now: datetime) -> date:
    """Return the last day that is over at ``now``: the day whose night this is."""
    return now.astimezone(UTC).date() - timedelta(days=1)


def night_start(day: date) -> datetime:
    """Return the moment at which the night of ``day`` starts."""
    return datetime.combine(day + timedelta(days=1), NIGHT_START)
