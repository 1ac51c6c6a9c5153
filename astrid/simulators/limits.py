"""Server-side accounting: it enforces an upstream's limits and convicts clients that ignore them.

A *conviction* is a request that a well-behaved client could have avoided: one sent while a wait
that it was told still runs, one over the number of concurrent requests, one past a documented limit,
or one sent although answers of the last minute had taken more processor time than is allowed. Windows
are fixed and open with the first request in them. Time is an argument.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

MAX_EXAMPLES: Final = 20
"""Convictions that the report describes one by one, per client; the others are only counted."""

LONGEST_BARE_WAIT_S: Final = 3600.0
"""What repeated refusals that name no time demand at most; GitHub's docs name no such end."""

BUSY_PERIOD_S: Final = 60.0
"""The time in which an upstream's processors may be busy for so many seconds."""

Reason = Literal["wait_ignored", "reset_ignored", "over_limit", "concurrency", "cpu_seconds"]


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``limit`` points in a window of ``length_s`` seconds."""

    name: str
    limit: int
    length_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of one window as an answer's headers tell it; ``reset_s`` is epoch seconds."""

    limit: int
    used: int
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served. ``window`` is empty unless a window ran full."""

    reason: Reason
    window: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request at the moment it came in: who pays, when, and how many of that account were open, itself included."""

    account: str
    at_s: float
    open_requests: int


@dataclass(slots=True)
class _OpenWindow:
    opened_s: float
    used: int = 0
    told_empty: bool = False


@dataclass(slots=True)
class _Hold:
    """A wait; ``arrivals`` counts the requests since its end."""

    told_s: float
    until_s: float
    arrivals: int = 0


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    points: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    convictions: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """Answers of the last minute as (end, seconds, kind), and the sum of their seconds."""

    answers: deque[tuple[float, float, str]] = field(default_factory=deque)
    total_s: float = 0.0


class Limits:
    """The books of one upstream.

    An *account* is what limits are counted for (a user, an address); a *client* is what the report
    names (a token, an address). Tokens of one user share an account and are convicted one by one; the
    report sums up both.

    Parameters
    ----------
    concurrent
        Most open requests per account; None for no limit.
    tolerance_s
        Seconds around the edges of a wait that was told in which nobody is convicted, because a
        request may have been on its way, or a clock a little off. Limits hold regardless.
    busy_s
        Processor seconds in 60 seconds per kind of request, under ``""`` those of all kinds together.
        The time that an answer took counts when it is over, for nobody can know it before.
    """

    def __init__(
        self,
        *,
        concurrent: int | None = None,
        tolerance_s: float = 0.0,
        busy_s: Mapping[str, float] | None = None,
    ) -> None:
        self.concurrent = concurrent
        self.tolerance_s = tolerance_s
        self.busy_s = dict(busy_s or {})
        self._work: dict[str, _Work] = {}
        self._accounts: dict[str, _Tally] = {}
        self._windows: dict[tuple[str, str], _OpenWindow] = {}
        self._holds: dict[str, _Hold] = {}
        self._bare: Counter[str] = Counter()
        self._open: Counter[str] = Counter()
        self._tallies: dict[str, _Tally] = {}

    def arrive(self, account: str, now: datetime) -> Arrival:
        """Note that a request came in; each arrival is followed by one :meth:`leave`."""
        self._open[account] += 1
        hold = self._holds.get(account)
        if hold is not None and hold.until_s <= now.timestamp():
            hold.arrivals += 1
        return Arrival(account, now.timestamp(), self._open[account])

    def leave(self, arrival: Arrival) -> None:
        """Note that a request was answered."""
        self._open[arrival.account] -= 1
        if not self._open[arrival.account]:
            del self._open[arrival.account]

    def check(self, arrival: Arrival, client: str, kind: str = "") -> Refusal | None:
        """Refuse a request that came during a wait its account was told, over the concurrency or the busy time."""
        hold = self._holds.get(arrival.account)
        # A request that came in before the wait was told is judged by what held at its arrival.
        if hold is not None and hold.told_s <= arrival.at_s < hold.until_s:
            left_s = hold.until_s - arrival.at_s
            if hold.told_s + self.tolerance_s <= arrival.at_s < hold.until_s - self.tolerance_s:
                self._convict(client, arrival.account, arrival.at_s, "wait_ignored", f"{left_s:.0f} s before the end")
            return Refusal("wait_ignored", "", left_s)
        if self.concurrent is not None and arrival.open_requests > self.concurrent:
            detail = f"{arrival.open_requests} open, {self.concurrent} allowed"
            self._convict(client, arrival.account, arrival.at_s, "concurrency", detail)
            return Refusal("concurrency", "", 60.0)
        return self._check_busy(arrival, client, kind)

    def _check_busy(self, arrival: Arrival, client: str, kind: str) -> Refusal | None:
        work = self._work.get(arrival.account)
        if work is None:
            return None
        while work.answers and work.answers[0][0] <= arrival.at_s - BUSY_PERIOD_S:
            work.total_s -= work.answers.popleft()[1]
        for name, most_s in self.busy_s.items():
            if name not in ("", kind) or work.total_s < most_s:
                continue
            over = [a for a in work.answers if a[0] <= arrival.at_s - self.tolerance_s and name in ("", a[2])]
            spent_s = sum(a[1] for a in over)
            if spent_s >= most_s:
                detail = f"{spent_s:.0f} s of processor time in 60 s, {most_s:.0f} allowed"
                self._convict(client, arrival.account, arrival.at_s, "cpu_seconds", detail)
                return Refusal("cpu_seconds", name, BUSY_PERIOD_S)
        return None

    def work(self, account: str, kind: str, seconds: float, end: datetime) -> None:
        """Note how long an answer kept the upstream's processors busy, and when it was over."""
        if self.busy_s:
            work = self._work.setdefault(account, _Work())
            work.answers.append((end.timestamp(), seconds, kind))
            work.total_s += seconds

    def take(self, account: str, client: str, window: Window, points: int, now: datetime) -> Refusal | None:
        """Charge ``points`` to a window, or refuse because it was full already.

        The request that empties a window is served whole, even if it costs more than was left.
        """
        now_s = now.timestamp()
        state = self._state(account, window, now_s)
        if state.used >= window.limit:
            left_s = state.opened_s + window.length_s - now_s
            reason: Reason = "reset_ignored" if state.told_empty else "over_limit"
            # Whoever counts requests from sending until one window after the answer never gets here, however slow
            # the way. Only one who was told a reset may be a little early by a clock of its own.
            if reason == "over_limit" or left_s > self.tolerance_s:
                detail = f"{window.name}: {state.used} of {window.limit} used, {left_s:.0f} s before the reset"
                self._convict(client, account, now_s, reason, detail)
            return Refusal(reason, window.name, left_s)
        state.used += points
        self._tally(client).points[window.name] += points
        self._accounts.setdefault(account, _Tally()).points[window.name] += points
        return None

    def read(self, account: str, window: Window, now: datetime) -> Reading:
        """Return what the headers of an answer say about a window."""
        state = self._state(account, window, now.timestamp())
        return Reading(
            window.limit,
            state.used,
            max(0, window.limit - state.used),
            math.ceil(state.opened_s + window.length_s),
        )

    def tell_empty(self, account: str, window: Window, now: datetime) -> None:
        """Remember that an answer said ``remaining: 0`` for a window."""
        self._state(account, window, now.timestamp()).told_empty = True

    def hold(self, account: str, now: datetime, wait_s: float) -> None:
        """Remember that an account was told to wait; a running longer wait stands."""
        until_s = now.timestamp() + wait_s
        running = self._holds.get(account)
        if running is None or running.until_s < until_s:
            told_s = running.told_s if running is not None and running.until_s > now.timestamp() else now.timestamp()
            self._holds[account] = _Hold(told_s, until_s)

    def hold_bare(self, arrival: Arrival, now: datetime, least_s: float) -> None:
        """Remember that a request was refused without a word about how long to wait: ``least_s``, then ever longer.

        The wait doubles with each such refusal until :meth:`end_bare`, up to an hour, but only where the client cannot
        have seen anything in between: its request was alone, and the first after the last wait. Of others the answers
        may overtake each other, and a sound one that came first has let the client begin anew.
        """
        account = arrival.account
        hold = self._holds.get(account)
        wait_s = least_s
        if not self._bare[account]:
            self._bare[account] = 1
        elif hold is not None and hold.until_s <= arrival.at_s and hold.arrivals == arrival.open_requests == 1:
            wait_s = min(least_s * 2.0 ** min(self._bare[account], 30), LONGEST_BARE_WAIT_S)
            self._bare[account] += 1
        self.hold(account, now, wait_s)

    def end_bare(self, account: str) -> None:
        """Note a sound answer: the next refusal that names no time is a first one."""
        del self._bare[account]

    def forget_wait(self, account: str) -> None:
        """Take back a wait whose answer reached nobody, because the one who asked died: no client can obey it."""
        self._holds.pop(account, None)
        del self._bare[account]

    def count(self, account: str, client: str, status: int, fault: str | None = None) -> None:
        """Enter one answered request into the report."""
        for tally in (self._tally(client), self._accounts.setdefault(account, _Tally())):
            tally.requests += 1
            tally.statuses[str(status)] += 1
            if fault is not None:
                tally.faults[fault] += 1

    def restart(self) -> None:
        """Begin all windows and waits anew, as after a jump of the clock; the report stays."""
        self._windows.clear()
        self._holds.clear()
        self._bare.clear()
        self._work.clear()

    def convictions(self) -> int:
        """Return how many requests were convicted so far."""
        return sum(t.convictions.total() for t in self._tallies.values())

    def report(self) -> dict[str, Any]:
        """Return requests, points, status counts and convictions, in sum, per account and per client."""
        tallies = self._tallies.values()
        return {
            "requests": sum(t.requests for t in tallies),
            "points": dict(sum((t.points for t in tallies), Counter())),
            "statuses": dict(sum((t.statuses for t in tallies), Counter())),
            "faults": dict(sum((t.faults for t in tallies), Counter())),
            "convictions": self.convictions(),
            "accounts": {
                account: {
                    "requests": t.requests,
                    "points": dict(t.points),
                    "convictions": dict(t.convictions),
                }
                for account, t in sorted(self._accounts.items())
            },
            "tokens": {
                client: {
                    "requests": t.requests,
                    "points": dict(t.points),
                    "statuses": dict(t.statuses),
                    "convictions": {
                        "count": t.convictions.total(),
                        "reasons": dict(t.convictions),
                        "examples": list(t.examples),
                    },
                }
                for client, t in sorted(self._tallies.items())
            },
        }

    def _state(self, account: str, window: Window, now_s: float) -> _OpenWindow:
        key = (account, window.name)
        state = self._windows.get(key)
        if state is None or now_s >= state.opened_s + window.length_s:
            state = self._windows[key] = _OpenWindow(now_s)
        return state

    def _tally(self, client: str) -> _Tally:
        tally = self._tallies.get(client)
        if tally is None:
            tally = self._tallies[client] = _Tally()
        return tally

    def _convict(self, client: str, account: str, at_s: float, reason: Reason, detail: str) -> None:
        tally = self._tally(client)
        tally.convictions[reason] += 1
        self._accounts.setdefault(account, _Tally()).convictions[reason] += 1
        if len(tally.examples) < MAX_EXAMPLES:
            at = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")
            tally.examples.append({"at": at, "reason": reason, "detail": detail})
