"""One bucket of a budget: its sliding windows, and the primary limit that answers' headers drive. Pure.

Windows are told in our seconds. A primary window's end is told by the upstream's clock, which need not agree with
ours, and is kept as it was told: who asks says how far our clock is ahead.

Limits: GitHub docs, "Rate limits for the REST API", "Rate limits and query limits for the GraphQL API".
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from astrid.limits import BucketSpec
from astrid.signals import Signal

NIGHTLY_SHARE: Final = 0.5
"""While a nightly works or is expected, other lanes leave it this share of every limit, less what it has used."""

LONGEST_WAIT_S: Final = 900.0
"""What a lane under guard is told to wait at most: the guard may end before the window does."""

RESET_JITTER_S: Final = 5.0
"""Answers of one primary window may state its end a few seconds apart; a later end is the next window's."""

PRIMARY_PERIOD_S: Final = 3600.0
BUSY_PERIOD_S: Final = 60.0
FIRST_BUSY_MS: Final = 500
"""What an answer is taken to cost of the upstream's processors before any was seen."""

SHORT_PERIOD_S: Final = 300.0
"""To wait for the end of a window that is no longer than this costs little."""

SLICES: Final = 60
"""A window is told to a later keeper in so many parts."""

FIRST_BACKOFF_S: Final = 60.0
POLL_S: Final = 0.05


def room(limit: float, *, guarded: bool, nightly_used: float) -> float:
    """Return how much of a limit a lane may fill: under guard what the nightly has not used of its share stays free."""
    return limit - max(0.0, math.ceil(NIGHTLY_SHARE * limit) - nightly_used) if guarded else limit


@dataclass(slots=True)
class Meter:
    """One sliding window over amounts: requests, or milliseconds of the upstream's processors."""

    limit: int
    period_s: float
    ended: deque[tuple[float, int, bool]] = field(default_factory=deque)
    used: int = 0
    pending: int = 0
    nightly: int = 0

    def wait_s(self, amount: int, now_s: float, guarded: bool) -> float:
        """Return the seconds until ``amount`` more fits; 0 if it fits now."""
        while self.ended and self.ended[0][0] + self.period_s <= now_s:
            _, gone, was_nightly = self.ended.popleft()
            self.used -= gone
            self.nightly -= gone if was_nightly else 0
        if not self.used + self.pending:
            return 0.0  # also what is larger than the window must go some day
        over = self.used + self.pending + amount - room(self.limit, guarded=guarded, nightly_used=self.nightly)
        if over <= 0:
            return 0.0
        for at_s, ended, was_nightly in self.ended:
            # What the nightly's oldest gives back belongs to the nightly.
            over -= 0 if guarded and was_nightly else ended
            if over <= 0:
                return at_s + self.period_s - now_s
        return POLL_S  # an answer must come first

    def open(self, amount: int, *, nightly: bool) -> None:
        """Count something as under way."""
        self.pending += amount
        self.nightly += amount if nightly else 0

    def drop(self, amount: int, *, nightly: bool) -> None:
        """Count it no more."""
        self.pending -= amount
        self.nightly -= amount if nightly else 0

    def end(self, amount: int, at_s: float, *, nightly: bool) -> None:
        """Count something that ended, for one period."""
        # Receipts of several workers may arrive out of order; the deque must stay sorted.
        self.ended.append((max(at_s, self.ended[-1][0]) if self.ended else at_s, amount, nightly))
        self.used += amount
        self.nightly += amount if nightly else 0


@dataclass(slots=True)
class Primary:
    """A limit of points in a window whose end the upstream tells; all times are of the upstream's clock.

    ``guessed_reset_s`` stands while nobody has told an end. ``nightly_points`` is what the nightly used of the window,
    and holds.
    """

    limit: int
    reserve: float
    remaining: int
    reset_s: float | None = None
    guessed_reset_s: float | None = None
    in_flight: int = 0
    nightly_points: int = 0

    @property
    def ends_s(self) -> float | None:
        """The end of the window at hand, told or guessed."""
        return self.guessed_reset_s if self.reset_s is None else self.reset_s

    def wait_s(self, cost: int, clock_s: float, guarded: bool) -> float:
        """Return the seconds until a request of ``cost`` points fits; 0 if it fits now."""
        if self.ends_s is not None and clock_s > self.ends_s + 1.0:
            self.remaining, self.reset_s, self.guessed_reset_s = self.limit, None, None
            self.nightly_points = 0
        spendable = self.limit - int(self.limit * self.reserve)
        kept = self.limit - room(spendable, guarded=guarded, nightly_used=self.nightly_points)
        if self.remaining - self.in_flight - cost >= kept:
            return 0.0
        until_reset_s = 1.0 if self.ends_s is None else self.ends_s + 1.5 - clock_s
        return min(until_reset_s, LONGEST_WAIT_S) if guarded else until_reset_s

    def charge(self, points: int, clock_s: float) -> None:
        """Count a used permit whose answer does not say what is left."""
        self._guess(clock_s)
        self.remaining -= points

    def learn(self, signal: Signal, clock_s: float) -> bool:
        """Take over what an answer says of the window; tell whether its request is counted thereby.

        What is said of a window that is over counts there, not here.
        """
        stated_s, known_s = signal.reset_s, self.reset_s
        if stated_s is not None and stated_s > clock_s + 2 * PRIMARY_PERIOD_S:
            stated_s = None  # milliseconds, or nonsense: no window is that long
        counted = False
        if known_s is not None and stated_s is not None and stated_s < known_s - RESET_JITTER_S:
            return stated_s <= clock_s
        if stated_s is None or stated_s > clock_s:
            new_window = stated_s is not None and (known_s is None or stated_s > known_s + RESET_JITTER_S)
            self.limit = signal.limit or self.limit
            if signal.remaining is not None:
                # Answers overtake each other: inside one window the lowest figure is the latest.
                self.remaining = signal.remaining if new_window else min(self.remaining, signal.remaining)
                self.nightly_points = 0 if new_window and known_s is not None else self.nightly_points
                counted = True
            if stated_s is not None:
                self.reset_s = stated_s if known_s is None else max(stated_s, known_s)
            elif counted:
                self._guess(clock_s)  # a window that nobody ends must end some day
        if signal.verdict == "primary":
            self.remaining = 0
            if self.reset_s is None or self.reset_s <= clock_s:
                self.reset_s = clock_s + FIRST_BACKOFF_S
        return counted

    def _guess(self, clock_s: float) -> None:
        if self.ends_s is None:
            # Requests that get no answer count too. If none ever does, the window must still end some day.
            self.guessed_reset_s = clock_s + PRIMARY_PERIOD_S


class Bucket:
    """The windows, the processor time and the primary limit of one bucket; ``reserve`` is never spent of the last.

    ``rests_until_s`` is when a pause of this bucket alone ends.
    """

    def __init__(self, spec: BucketSpec, reserve: float) -> None:
        self.meters = [Meter(w.limit, w.period_s) for w in spec.windows]
        self.busy = None if spec.busy_s is None else Meter(int(spec.busy_s * 1000), BUSY_PERIOD_S)
        self.primary = None if spec.primary is None else Primary(spec.primary, reserve, spec.primary)
        self.rests_until_s = 0.0
        self._busy_mean_ms = float(FIRST_BUSY_MS)
        self._busy_spread_ms = 0.0

    @property
    def busy_ms(self) -> int:
        """What the next answer is taken to cost of the upstream's processors: the recent mean and its spread."""
        return round(self._busy_mean_ms + self._busy_spread_ms)

    @property
    def allowance(self) -> int:
        """How many requests may be sent before a later keeper must be told: a tenth of the long windows."""
        return min((m.limit // 10 for m in self.meters if m.period_s > SHORT_PERIOD_S), default=sys.maxsize)

    def tell(self, now_s: float) -> list[tuple[float, int]]:
        """Return how many seconds ago how many requests ended, for the longest window, in slices of it.

        What is under way counts as ending now.
        """
        longest = max(self.meters, key=lambda m: m.period_s, default=None)
        if longest is None:
            return []
        slices: dict[int, tuple[float, int]] = {}
        for at_s, amount, _ in longest.ended:
            age_s = now_s - at_s
            if age_s < longest.period_s:
                slot = int(age_s * SLICES / longest.period_s)
                youngest_s, before = slices.get(slot, (age_s, 0))
                slices[slot] = (min(youngest_s, age_s), before + amount)
        under_way = [(0.0, longest.pending)] if longest.pending else []
        return [*under_way, *((max(age_s, 0.0), amount) for age_s, amount in slices.values())]

    def resume(self, told: Sequence[tuple[float, int]], age_s: float, now_s: float, *, is_clean: bool) -> None:
        """Take over what an earlier keeper told ``age_s`` seconds ago; unless it was all, add what may be missing."""
        for meter in self.meters:
            for spent_s, amount in sorted(told, reverse=True):
                if spent_s + age_s < meter.period_s:
                    meter.end(int(amount), now_s - age_s - spent_s, nightly=False)
            if not is_clean:
                untold = self.allowance if meter.period_s > SHORT_PERIOD_S else meter.limit
                meter.end(max(0, min(untold, meter.limit - meter.used)), now_s, nightly=False)

    def measure(self, busy_ms: int) -> None:
        """Learn from what an answer took."""
        off = busy_ms - self._busy_mean_ms
        self._busy_spread_ms += 0.1 * (abs(off) - self._busy_spread_ms)
        self._busy_mean_ms += 0.1 * off

    def wait_s(self, cost: int, now_s: float, guarded: bool, ahead_s: float) -> float:
        """Return the seconds until one more request of ``cost`` points fits; 0 if it fits now.

        ``ahead_s`` is how far our clock is before the upstream's.
        """
        wait = max(self.rests_until_s - now_s, 0.0)
        wait = max((m.wait_s(1, now_s, guarded) for m in self.meters), default=0.0) if wait <= 0 else wait
        if self.busy is not None:
            wait = max(wait, self.busy.wait_s(self.busy_ms, now_s, guarded))
        if self.primary is not None:
            wait = max(wait, self.primary.wait_s(cost, now_s - ahead_s, guarded))
        return wait
