"""What one user may still ask of an upstream: a pure state machine, time is an argument.

A *budget* belongs to one user of an upstream, or to this machine's address where an upstream counts addresses.
It has buckets (GitHub: core, graphql, search); a bucket has sliding windows, and on GitHub also a primary limit
that the answers' headers drive. The user's tokens are credentials over it: each can be refused by itself, all spend
the same points. A worker leases permits, sends at most that many requests, and hands back a receipt for each.

A permit counts against a sliding window from the moment it is granted until one window after its
*answer*. The server saw the request in between, so no latency can push a client that was granted
its permits past a documented limit, whether the server counts in fixed or in sliding windows.

Limits: GitHub docs, "Rate limits for the REST API", "Rate limits and query limits for the GraphQL
API"; pypistats.org `views/api.py`; Hacker News Search API page.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from astrid.buckets import BUSY_PERIOD_S, FIRST_BACKOFF_S, PRIMARY_PERIOD_S, Bucket, Meter, room
from astrid.limits import BudgetSpec
from astrid.models import Request
from astrid.signals import Signal

NIGHTLY: Final = "nightly"
"""The lane that is never kept waiting by another one."""

NIGHTLY_IDLE_S: Final = 900.0
"""A nightly that has asked for nothing during so many seconds, and was not told to wait, is over: other lanes may have
all."""

NIGHTLY_DUE_S: Final = 23 * 3600.0
"""So long after a nightly began the next one is expected, an hour before its time: what it needs is kept for it."""

LEASE_S: Final = 900.0
"""A permit whose receipt never comes (a killed worker) counts as answered after this many seconds."""

ANSWER_S: Final = 120.0
"""The end of a lease in which its request may be under way but may not start: longer than any time-out."""

MAX_BACKOFF_S: Final = 3600.0
MAX_PAUSE_S: Final = 86_400.0
"""No upstream means a longer pause than a day, whatever number its header holds."""

FIRST_QUARANTINE_S: Final = 900.0
MAX_QUARANTINE_S: Final = 86_400.0

POLL_S: Final = 0.05
PROBE_POLL_S: Final = 0.2

CLOCK_S: Final = 600.0
"""How long a reading of the upstream's clock stands before a later one, which says otherwise, is believed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker wants: up to ``want`` permits of ``cost`` points for one token and lane.

    ``lease_s`` is how long the permits may stay away, ``answer_s`` the end of it in which no request may start;
    both in the run's seconds, so a worker on a fast clock asks for more of them. ``holder`` is who asks: a worker's
    lasting name and its present life, ``name#life``, or empty for one that never dies alone. ``paused_until_s`` is the
    pause that it was told of: a budget in a new life has not heard of it.
    """

    bucket: str
    cost: int = 1
    want: int = 1
    token: str = ""
    lane: str = NIGHTLY
    lease_s: float = LEASE_S
    answer_s: float = ANSWER_S
    holder: str = ""
    paused_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """The end of one permit: which, what the answer said (None: no answer came), when, and after how long.

    ``took_s`` is in real seconds, the upstream's processors know no other; ``readings`` is what a probe read per
    bucket.
    """

    permit_id: int
    signal: Signal | None
    at_s: float
    took_s: float = 0.0
    readings: Mapping[str, Signal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """Permits to send requests until ``expires_s``; or none, and when to ask again.

    With ``probe`` the one permit is for that request and no other: its receipt tells what the token is worth.
    ``dead``: the token is in quarantine for ``wait_s``. ``paused_until_s`` is when the user's last pause ends or ended.
    ``elsewhere``: the budget is another process's at present.
    """

    permit_ids: tuple[int, ...] = ()
    expires_s: float = 0.0
    wait_s: float = 0.0
    reason: str = ""
    dead: bool = False
    probe: Request | None = None
    paused_until_s: float = 0.0
    elsewhere: bool = False


@dataclass(slots=True)
class _Lease:
    token: str
    bucket: str
    cost: int
    lane: str
    busy_ms: int
    expires_s: float
    probe: bool = False
    holder: str = ""

    @property
    def nightly(self) -> bool:
        return self.lane == NIGHTLY


@dataclass(slots=True)
class _Token:
    """The standing of one token: sound, doubted (one refusal, to be confirmed by a probe), or in quarantine."""

    doubted: bool = False
    probing: bool = False
    silences: int = 0
    probe_after_s: float = 0.0
    refusals: int = 0
    quarantined_until_s: float | None = None
    reason: str = ""


class Budget:
    """The permits of one user, for all tokens and lanes.

    Parameters
    ----------
    spec
        What the upstream allows.
    jitter
        Draws a number from [0, 1) for each back-off, an argument so that a replay takes the same steps.
    expects_nightly
        Whether a nightly comes every day. Its share is then kept also while it has not asked: from an hour before the
        next one until it comes, and always as long as none has been seen.
    first_id
        Number of the first permit. A life that follows another one starts elsewhere, so that receipts of the
        former life's permits are not taken for its own.
    """

    def __init__(
        self,
        spec: BudgetSpec,
        jitter: Callable[[], float] = lambda: 0.5,
        expects_nightly: bool = False,
        first_id: int = 1,
    ) -> None:
        self._spec = spec
        self._buckets = {name: Bucket(b, spec.reserve) for name, b in spec.buckets.items()}
        self._busy = None if spec.busy_s is None else Meter(int(spec.busy_s * 1000), BUSY_PERIOD_S)
        self._tokens: dict[str, _Token] = {}
        self._leases: dict[int, _Lease] = {}
        self._lives: dict[str, str] = {}
        self._next_id = first_id
        self._seeded = spec.probe is None
        self._blocked_until_s = 0.0
        self._strikes = 0
        self._jitter = jitter
        self._ahead_s = 0.0
        self._ahead_until_s = -math.inf
        self._expects_nightly = expects_nightly
        self._nightly_began_s = -math.inf
        self._nightly_until_s = -math.inf
        self._nightly_leases = 0
        self.points_spent: dict[str, int] = dict.fromkeys(spec.buckets, 0)
        self.requests_sent: dict[str, int] = dict.fromkeys(spec.buckets, 0)
        self.points_by_lane: Counter[tuple[str, str]] = Counter()
        self.requests_by_lane: Counter[tuple[str, str]] = Counter()

    @property
    def quarantined(self) -> dict[str, str]:
        """The tokens that the upstream refuses, with the reason of each."""
        return {name: t.reason for name, t in self._tokens.items() if t.quarantined_until_s is not None}

    def begin_full(self, now_s: float) -> None:
        """Take every window for full at ``now_s``: what an earlier life has sent is not known here."""
        for bucket in self._buckets.values():
            for meter in bucket.meters:
                meter.end(meter.limit, now_s, nightly=False)

    def tell(self, now_s: float) -> dict[str, Any]:
        """Return, as JSON, what a later keeper of this budget must know: what windows hold, and which pauses last."""
        rests = {name: b.rests_until_s - now_s for name, b in self._buckets.items() if b.rests_until_s > now_s}
        spent = {name: spent for name, b in self._buckets.items() if (spent := b.tell(now_s))}
        paused_s = self._blocked_until_s - now_s
        return {"spent": spent, "rests_s": rests, "paused_s": paused_s if paused_s > 0 else 0.0}

    def resume(self, told: Mapping[str, Any], age_s: float, now_s: float, *, is_clean: bool) -> None:
        """Take over what an earlier keeper told ``age_s`` seconds ago.

        Unless it ended clean, it may have spent more since: up to all of a window, of a long one its allowance.
        """
        for name, bucket in self._buckets.items():
            bucket.resume(told.get("spent", {}).get(name, ()), age_s, now_s, is_clean=is_clean)
            rest_s = float(told.get("rests_s", {}).get(name, 0.0)) - age_s
            bucket.rests_until_s = max(bucket.rests_until_s, now_s + min(rest_s, MAX_PAUSE_S))
        pause_s = float(told.get("paused_s", 0.0)) - age_s
        self._blocked_until_s = max(self._blocked_until_s, now_s + min(pause_s, MAX_PAUSE_S))

    def allowance(self, bucket: str) -> int:
        """Return how many permits of a bucket may be granted before a later keeper must be told."""
        return self._buckets[bucket].allowance

    def acquire(self, ask: Ask, now_s: float) -> Grant:
        """Grant up to ``ask.want`` permits, or say how long to wait.

        Raises
        ------
        KeyError
            If the upstream has no such bucket.
        """
        self._expire(now_s)
        self._bury(ask.holder, now_s)
        self._blocked_until_s = max(self._blocked_until_s, min(ask.paused_until_s, now_s + MAX_PAUSE_S))
        grant = self._grant(ask, self._tokens.setdefault(ask.token, _Token()), now_s)
        if ask.lane == NIGHTLY:
            self._note_nightly(0.0 if grant.dead else grant.wait_s, now_s)
        return replace(grant, paused_until_s=self._blocked_until_s)

    def _grant(self, ask: Ask, token: _Token, now_s: float) -> Grant:
        bucket, nightly = self._buckets[ask.bucket], ask.lane == NIGHTLY
        if token.quarantined_until_s is not None and now_s < token.quarantined_until_s:
            return Grant(dead=True, wait_s=token.quarantined_until_s - now_s, reason=token.reason)
        if now_s < self._blocked_until_s:
            return Grant(wait_s=self._blocked_until_s - now_s, reason="the upstream asked for a pause")
        if not self._seeded or token.doubted or token.quarantined_until_s is not None:
            return self._acquire_probe(ask, token, now_s)
        granted: list[int] = []
        wait = 0.0
        guarded = not nightly and self._is_guarded(now_s)
        while len(granted) < ask.want:
            if len(self._leases) >= room(self._spec.concurrency, guarded=guarded, nightly_used=self._nightly_leases):
                wait = POLL_S
                break
            wait = max(self._wait_s(bucket, ask.cost, now_s, guarded), self._busy_wait_s(bucket, now_s, guarded))
            if wait > 0:
                break
            granted.append(self._lease(ask, ask.bucket, ask.cost, now_s))
        if granted:
            return Grant(tuple(granted), now_s + ask.lease_s - ask.answer_s)
        return Grant(wait_s=max(wait, 0.01), reason=f"the {ask.bucket} budget is spent")

    def exchange(self, receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float) -> Grant:
        """Take receipts and unused permits back, then grant what is asked for (None: nothing), in one call."""
        for receipt in receipts:
            self.settle(receipt)
        for permit_id in unused:
            self.give_back(permit_id)
        return Grant(paused_until_s=self._blocked_until_s) if ask is None else self.acquire(ask, now_s)

    def settle(self, receipt: Receipt) -> None:
        """Take a permit back and learn from its answer. A receipt of an expired permit still teaches."""
        lease = self._leases.pop(receipt.permit_id, None)
        bucket = None if lease is None else self._buckets[lease.bucket]
        signal = receipt.signal
        if signal is not None:
            self._read_clock(signal, receipt.at_s)
        for name, reading in receipt.readings.items():
            if name in self._buckets and (primary := self._buckets[name].primary) is not None:
                primary.learn(reading, receipt.at_s - self._ahead_s)
        counted = signal is not None and self._learn(signal, bucket, receipt.at_s)
        if lease is None:
            return
        self._judge(lease, signal, receipt.at_s)
        points = lease.cost if signal is None or signal.points is None or lease.probe else signal.points
        self._release(lease, receipt.at_s, points, round(receipt.took_s * 1000), counted=counted)
        self.requests_sent[lease.bucket] += 1
        self.points_spent[lease.bucket] += points
        self.points_by_lane[lease.lane, lease.bucket] += points
        self.requests_by_lane[lease.lane, lease.bucket] += 1

    def give_back(self, permit_id: int) -> None:
        """Return a permit that was never used."""
        lease = self._leases.pop(permit_id, None)
        if lease is not None:
            self._close(lease)

    # Tokens

    def _acquire_probe(self, ask: Ask, token: _Token, now_s: float) -> Grant:
        probe = self._spec.probe
        if probe is None:
            # Nothing to ask but what is wanted: one request, as the next try after a quarantine.
            return self._acquire_trial(ask, token, now_s)
        waits = any(t.probing for t in self._tokens.values()) if not self._seeded else token.probing
        if waits or now_s < token.probe_after_s:
            return Grant(wait_s=max(PROBE_POLL_S, token.probe_after_s - now_s), reason="the token is being probed")
        wait = max((m.wait_s(1, now_s, False) for m in self._buckets[probe.bucket].meters), default=0.0)
        if len(self._leases) >= self._spec.concurrency:
            wait = max(wait, POLL_S)
        if wait > 0:
            return Grant(wait_s=wait, reason="the token is to be probed first")
        token.probing = True
        permit_id = self._lease(ask, probe.bucket, 0, now_s, probe=True)
        return Grant((permit_id,), now_s + ask.lease_s - ask.answer_s, probe=probe)

    def _acquire_trial(self, ask: Ask, token: _Token, now_s: float) -> Grant:
        if token.probing:
            return Grant(wait_s=PROBE_POLL_S, reason="the token is being tried again")
        wait = self._wait_s(self._buckets[ask.bucket], ask.cost, now_s, False)
        if wait > 0:
            return Grant(wait_s=wait, reason=f"the {ask.bucket} budget is spent")
        token.probing = True
        permit_id = self._lease(ask, ask.bucket, ask.cost, now_s, probe=True)
        return Grant((permit_id,), now_s + ask.lease_s - ask.answer_s)

    def _judge(self, lease: _Lease, signal: Signal | None, at_s: float) -> None:
        """Take from an answer whether its token is good."""
        token = self._tokens[lease.token]
        refused = signal is not None and signal.verdict == "dead"
        if not lease.probe:
            if refused and self._spec.probe is not None:
                token.doubted = True
            elif refused:
                self._quarantine(token, at_s)
            return
        token.probing = False
        if signal is None:
            token.silences = min(token.silences + 1, 6)
            token.probe_after_s = at_s + 2.0 ** (token.silences - 1)
            return
        token.silences = 0
        if refused:
            self._quarantine(token, at_s)
        elif signal.verdict == "ok":
            token.doubted, token.refusals, token.quarantined_until_s, token.reason = False, 0, None, ""
            self._seeded = True

    def _quarantine(self, token: _Token, at_s: float) -> None:
        token.refusals = min(token.refusals + 1, 10)
        token.doubted = False
        token.quarantined_until_s = at_s + min(FIRST_QUARANTINE_S * 2 ** (token.refusals - 1), MAX_QUARANTINE_S)
        token.reason = "the upstream refuses this token (revoked, expired or suspended)"

    # Books

    def _note_nightly(self, wait_s: float, now_s: float) -> None:
        """Note that a nightly asked; one that is told to wait comes again, so what it waits for is kept for it.

        Its queue may round the wait up to two and a half times as much. A night that is run again does not change when
        the next one is expected.
        """
        if now_s - self._nightly_began_s >= NIGHTLY_DUE_S:
            self._nightly_began_s = now_s
        until_s = now_s + 2.5 * min(wait_s, PRIMARY_PERIOD_S) + NIGHTLY_IDLE_S
        self._nightly_until_s = max(self._nightly_until_s, until_s)

    def _is_guarded(self, now_s: float) -> bool:
        if self._nightly_leases or now_s < self._nightly_until_s:
            return True
        return self._expects_nightly and now_s - self._nightly_began_s >= NIGHTLY_DUE_S

    def _wait_s(self, bucket: Bucket, cost: int, now_s: float, guarded: bool) -> float:
        return bucket.wait_s(cost, now_s, guarded, self._ahead_s)

    def _busy_wait_s(self, bucket: Bucket, now_s: float, guarded: bool) -> float:
        return 0.0 if self._busy is None else self._busy.wait_s(bucket.busy_ms, now_s, guarded)

    def _meters(self, bucket: Bucket) -> list[Meter]:
        return [m for m in (self._busy, bucket.busy) if m is not None]

    def _lease(self, ask: Ask, bucket_name: str, cost: int, now_s: float, *, probe: bool = False) -> int:
        bucket, nightly = self._buckets[bucket_name], ask.lane == NIGHTLY
        busy_ms = bucket.busy_ms
        lease = _Lease(ask.token, bucket_name, cost, ask.lane, busy_ms, now_s + ask.lease_s, probe, ask.holder)
        for meter in bucket.meters:
            meter.open(1, nightly=nightly)
        for meter in self._meters(bucket):
            meter.open(busy_ms, nightly=nightly)
        if bucket.primary is not None:
            bucket.primary.in_flight += cost
            bucket.primary.nightly_points += cost if nightly else 0
        self._nightly_leases += nightly
        self._leases[self._next_id] = lease
        self._next_id += 1
        return self._next_id - 1

    def _close(self, lease: _Lease) -> Bucket:
        """Take a lease out of everything that is under way."""
        bucket = self._buckets[lease.bucket]
        for meter in bucket.meters:
            meter.drop(1, nightly=lease.nightly)
        for meter in self._meters(bucket):
            meter.drop(lease.busy_ms, nightly=lease.nightly)
        if (primary := bucket.primary) is not None:
            primary.in_flight -= lease.cost
            primary.nightly_points -= min(lease.cost, primary.nightly_points) if lease.nightly else 0
        self._nightly_leases -= lease.nightly
        return bucket

    def _release(self, lease: _Lease, at_s: float, points: int, busy_ms: int, *, counted: bool) -> None:
        bucket = self._close(lease)
        for meter in bucket.meters:
            meter.end(1, at_s, nightly=lease.nightly)
        for meter in self._meters(bucket):
            meter.end(busy_ms, at_s, nightly=lease.nightly)
        bucket.measure(busy_ms)
        if (primary := bucket.primary) is not None:
            primary.nightly_points += points if lease.nightly else 0
            if not counted and points:
                primary.charge(points, at_s - self._ahead_s)

    def _read_clock(self, signal: Signal, at_s: float) -> None:
        """Learn how far our clock is ahead from the time that an answer was given at.

        Its way makes it look older than it is, so of the readings of some minutes the least is the best.
        """
        if signal.date_s is None or abs(at_s - signal.date_s) > MAX_PAUSE_S:
            return
        ahead_s = at_s - signal.date_s
        if ahead_s < self._ahead_s or at_s >= self._ahead_until_s:
            self._ahead_s, self._ahead_until_s = ahead_s, at_s + CLOCK_S

    def _learn(self, signal: Signal, bucket: Bucket | None, at_s: float) -> bool:
        """Take over what an answer says; tell whether its request is counted thereby in its own bucket."""
        if signal.verdict == "dead":
            return False  # of one token, not of its user; the headers may be those of anybody at this address
        about = self._buckets.get(signal.resource) if signal.resource else bucket
        primary = None if about is None else about.primary
        counted = primary is not None and primary.learn(signal, at_s - self._ahead_s) and about is bucket
        match signal.verdict:
            case "ok":
                # An answer to a request from before the pause does not say that the pause was long enough.
                if at_s >= self._blocked_until_s:
                    self._strikes = 0
                if about is not None and primary is None and signal.remaining == 0 and signal.reset_s is not None:
                    # The window that the headers tell of is empty, also if others of this address emptied it.
                    self._rest(about, signal, at_s)
            case "primary":
                if primary is None and (refused := about or bucket) is not None:
                    self._rest(refused, signal, at_s)
                elif primary is None:
                    self._block(at_s, signal.retry_after_s)
            case "secondary":
                self._block(at_s, signal.retry_after_s)
        return counted

    def _rest(self, bucket: Bucket, signal: Signal, at_s: float) -> None:
        """Let one bucket rest until its window ends, whose end the answer tells; else for a minute."""
        until_s = at_s + FIRST_BACKOFF_S * (1.0 + 0.25 * self._jitter())
        if signal.retry_after_s is not None:
            until_s = at_s + signal.retry_after_s
        elif signal.reset_s is not None and signal.reset_s + self._ahead_s > at_s:
            until_s = signal.reset_s + self._ahead_s
        bucket.rests_until_s = max(bucket.rests_until_s, min(until_s, at_s + MAX_PAUSE_S) + 1.0)

    def _block(self, at_s: float, retry_after_s: float | None) -> None:
        if at_s >= self._blocked_until_s:
            # Refusals of requests that were all under way when a pause began are one strike, not many.
            self._strikes = min(self._strikes + 1, 7)
        level = max(self._strikes - 1, 0)
        if retry_after_s is None:
            wait = min(FIRST_BACKOFF_S * 2**level, MAX_BACKOFF_S) * (1.0 + 0.25 * self._jitter())
        else:
            # One second more than asked: the upstream's clock and ours may differ by a fraction.
            wait = min(retry_after_s, MAX_PAUSE_S) + 1.0
        self._blocked_until_s = max(self._blocked_until_s, at_s + wait)

    def _expire(self, now_s: float) -> None:
        self._write_off([i for i, lease in self._leases.items() if lease.expires_s <= now_s], now_s)

    def _bury(self, holder: str, now_s: float) -> None:
        """Write off what an earlier life of a worker holds: where only few requests may be under way, the permits of
        a killed worker would keep its next life, and everybody else, waiting until they expire."""
        name, mark, life = holder.partition("#")
        before = self._lives.get(name, life)
        if mark:
            self._lives[name] = life
        if before != life:
            dead = f"{name}#{before}"
            self._write_off([i for i, lease in self._leases.items() if lease.holder == dead], now_s)

    def _write_off(self, permit_ids: Sequence[int], now_s: float) -> None:
        """Take permits whose receipts will not come for used, and for answered just now."""
        for permit_id in permit_ids:
            lease = self._leases.pop(permit_id)
            self._judge(lease, None, now_s)
            self._release(lease, now_s, lease.cost, lease.busy_ms, counted=False)


def rank_tokens(sticky: str, names: Sequence[str]) -> list[str]:
    """Order credentials for one key by rendezvous hashing.

    The first is the key's own; when it dies only its keys move. ETags are bound to tokens, so a key
    that stays on its token earns 304s.
    """
    return sorted(names, key=lambda n: hashlib.blake2b(f"{n}\0{sticky}".encode(), digest_size=8).digest(), reverse=True)


def token_name(token: str) -> str:
    """Return a name for a secret that may stand in logs and actor names: eight hex digits of its digest."""
    return hashlib.blake2b(token.encode(), digest_size=4).hexdigest()
