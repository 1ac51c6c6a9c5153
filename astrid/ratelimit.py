"""What one credential may still ask of an upstream: a pure state machine, time is an argument.

A *budget* belongs to one token, or to this machine's address where an upstream counts addresses.
It has buckets (GitHub: core, graphql, search); a bucket has sliding windows, and on GitHub also a
primary limit that the answers' headers drive. A worker leases permits, sends at most that many
requests, and hands back a receipt for each.

A permit counts against a sliding window from the moment it is granted until one window after its
*answer*. The server saw the request in between, so no latency can push a client that was granted
its permits past a documented limit, whether the server counts in fixed or in sliding windows.

Limits: GitHub docs, "Rate limits for the REST API", "Rate limits and query limits for the GraphQL
API"; pypistats.org `views/api.py`; Hacker News Search API page.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from astrid.limits import BucketSpec, BudgetSpec
from astrid.models import Response

LEASE_S: Final = 900.0
"""A permit whose receipt never comes (a killed worker) counts as answered after this many seconds."""

ANSWER_S: Final = 120.0
"""The end of a lease in which its request may be under way but may not start: longer than any time-out."""

RESET_JITTER_S: Final = 5.0
"""Answers of one primary window may state its end a few seconds apart; a later end is the next window's."""

PRIMARY_PERIOD_S: Final = 3600.0
FIRST_BACKOFF_S: Final = 60.0
MAX_BACKOFF_S: Final = 3600.0

Verdict = Literal["ok", "primary", "secondary", "dead"]


@dataclass(frozen=True, slots=True)
class Signal:
    """What one answer says about the budget. ``reset_s`` is epoch seconds, ``points`` what it cost."""

    verdict: Verdict = "ok"
    retry_after_s: float | None = None
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The end of one permit: which, what the answer said (None: no answer came), and when."""

    permit_id: int
    signal: Signal | None
    at_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """Permits to send requests until ``expires_s``; or none, and when to ask again."""

    permit_ids: tuple[int, ...] = ()
    expires_s: float = 0.0
    wait_s: float = 0.0
    reason: str = ""
    dead: bool = False


@dataclass(slots=True)
class _Lease:
    bucket: str
    cost: int
    expires_s: float


@dataclass(slots=True)
class _Bucket:
    spec: BucketSpec
    reserve: float
    limit: int = 0
    remaining: int = 0
    reset_s: float | None = None
    guessed_reset_s: float | None = None
    in_flight: int = 0
    points_in_flight: int = 0
    answered: list[deque[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answered = [deque() for _ in self.spec.windows]
        if self.spec.primary is not None:
            self.limit = self.remaining = self.spec.primary

    def wait_s(self, cost: int, now_s: float) -> float:
        """Seconds until one more request of ``cost`` points fits; 0 if it fits now."""
        wait = 0.0
        for window, answered in zip(self.spec.windows, self.answered, strict=True):
            while answered and answered[0] + window.period_s <= now_s:
                answered.popleft()
            over = self.in_flight + len(answered) + 1 - window.limit
            if over > 0:
                # With enough answers the oldest one's expiry frees a place; else an answer must come first.
                wait = max(wait, answered[over - 1] + window.period_s - now_s if over <= len(answered) else 0.05)
        if self.spec.primary is not None:
            ends_s = self.guessed_reset_s if self.reset_s is None else self.reset_s
            if ends_s is not None and now_s > ends_s + 1.0:
                self.remaining, self.reset_s, self.guessed_reset_s, ends_s = self.limit, None, None, None
            floor = int(self.limit * self.reserve)
            if self.remaining - self.points_in_flight - cost < floor:
                wait = max(wait, 1.0 if ends_s is None else ends_s + 1.5 - now_s)
        return wait

    def charge(self, cost: int, at_s: float) -> None:
        """Count a used permit whose answer does not say what is left of the primary limit."""
        if self.reset_s is None and self.guessed_reset_s is None:
            # Requests that get no answer count too. If none ever does, the window must still end some day.
            self.guessed_reset_s = at_s + PRIMARY_PERIOD_S
        self.remaining -= cost

    def learn(self, signal: Signal, at_s: float) -> bool:
        """Take over what an answer says of the primary window; tell whether its request is counted thereby.

        What is said of a window that is over counts there, not here.
        """
        stated_s, known_s = signal.reset_s, self.reset_s
        counted = False
        if known_s is not None and stated_s is not None and stated_s < known_s - RESET_JITTER_S:
            return stated_s <= at_s
        if stated_s is None or stated_s > at_s:
            new_window = stated_s is not None and (known_s is None or stated_s > known_s + RESET_JITTER_S)
            self.limit = signal.limit or self.limit
            if signal.remaining is not None:
                # Answers overtake each other: inside one window the lowest figure is the latest.
                self.remaining = signal.remaining if new_window else min(self.remaining, signal.remaining)
                counted = True
            if stated_s is not None:
                self.reset_s = stated_s if known_s is None else max(stated_s, known_s)
        if signal.verdict == "primary":
            self.remaining = 0
            if self.reset_s is None or self.reset_s <= at_s:
                self.reset_s = at_s + FIRST_BACKOFF_S
        return counted


class Budget:
    """The permits of one credential.

    Parameters
    ----------
    spec
        What the upstream allows.
    jitter
        Numbers in [0, 1) for the back-off, an argument so that a replay takes the same steps.
    """

    def __init__(self, spec: BudgetSpec, jitter: Sequence[float] = (0.5,)) -> None:
        self._spec = spec
        self._buckets = {name: _Bucket(b, spec.reserve) for name, b in spec.buckets.items()}
        self._leases: dict[int, _Lease] = {}
        self._next_id = 1
        self._blocked_until_s = 0.0
        self._strikes = 0
        self._jitter = tuple(jitter)
        self.dead_reason: str | None = None
        self.points_spent: dict[str, int] = dict.fromkeys(spec.buckets, 0)
        self.requests_sent = 0

    def acquire(self, bucket: str, cost: int, want: int, now_s: float) -> Grant:
        """Grant up to ``want`` permits of ``cost`` points each, or say how long to wait.

        Raises
        ------
        KeyError
            If the upstream has no such bucket.
        """
        if self.dead_reason is not None:
            return Grant(dead=True, reason=self.dead_reason)
        self._expire(now_s)
        b = self._buckets[bucket]
        if now_s < self._blocked_until_s:
            return Grant(wait_s=self._blocked_until_s - now_s, reason="the upstream asked for a pause")
        granted: list[int] = []
        wait = 0.0
        while len(granted) < want:
            if len(self._leases) >= self._spec.concurrency:
                wait = 0.05
                break
            wait = b.wait_s(cost, now_s)
            if wait > 0:
                break
            self._leases[self._next_id] = _Lease(bucket, cost, now_s + LEASE_S)
            b.in_flight += 1
            b.points_in_flight += cost
            granted.append(self._next_id)
            self._next_id += 1
        if granted:
            return Grant(tuple(granted), now_s + LEASE_S - ANSWER_S)
        return Grant(wait_s=max(wait, 0.01), reason=f"the {bucket} budget is spent")

    def exchange(
        self, receipts: Sequence[Receipt], unused: Sequence[int], bucket: str, cost: int, want: int, now_s: float
    ) -> Grant:
        """Take receipts and unused permits back, then grant up to ``want`` new ones (0: none), in one call."""
        for receipt in receipts:
            self.settle(receipt)
        for permit_id in unused:
            self.give_back(permit_id)
        return self.acquire(bucket, cost, want, now_s) if want else Grant()

    def settle(self, receipt: Receipt) -> None:
        """Take a permit back and learn from its answer. A receipt of an expired permit still teaches."""
        lease = self._leases.pop(receipt.permit_id, None)
        bucket = None if lease is None else self._buckets[lease.bucket]
        counted = receipt.signal is not None and self._learn(receipt.signal, bucket, receipt.at_s)
        if lease is not None:
            self._release(lease, receipt.at_s, counted)
            self.requests_sent += 1
            self.points_spent[lease.bucket] += lease.cost

    def give_back(self, permit_id: int) -> None:
        """Return a permit that was never used."""
        lease = self._leases.pop(permit_id, None)
        if lease is not None:
            b = self._buckets[lease.bucket]
            b.in_flight -= 1
            b.points_in_flight -= lease.cost

    def _release(self, lease: _Lease, at_s: float, counted: bool) -> None:
        b = self._buckets[lease.bucket]
        b.in_flight -= 1
        b.points_in_flight -= lease.cost
        for answered in b.answered:
            # Receipts of several workers may arrive out of order; the deque must stay sorted.
            answered.append(max(at_s, answered[-1]) if answered else at_s)
        if b.spec.primary is not None and not counted:
            b.charge(lease.cost, at_s)

    def _learn(self, signal: Signal, bucket: _Bucket | None, at_s: float) -> bool:
        has_primary = bucket is not None and bucket.spec.primary is not None
        counted = bucket is not None and has_primary and bucket.learn(signal, at_s)
        match signal.verdict:
            case "ok":
                # An answer to a request from before the pause does not say that the pause was long enough.
                if at_s >= self._blocked_until_s:
                    self._strikes = 0
            case "dead":
                self.dead_reason = "the upstream refuses this token (revoked, expired or suspended)"
            case "primary":
                if not has_primary:
                    self._block(at_s, signal.retry_after_s)
            case "secondary":
                self._block(at_s, signal.retry_after_s)
        return counted

    def _block(self, at_s: float, retry_after_s: float | None) -> None:
        if at_s >= self._blocked_until_s:
            # Refusals of requests that were all under way when a pause began are one strike, not many.
            self._strikes = min(self._strikes + 1, 7)
        level = max(self._strikes - 1, 0)
        jitter = self._jitter[level % len(self._jitter)]
        backoff = min(FIRST_BACKOFF_S * 2**level, MAX_BACKOFF_S) * (1.0 + 0.25 * jitter)
        # One second more than asked: the upstream's clock and ours may differ by a fraction.
        wait = backoff if retry_after_s is None else retry_after_s + 1.0
        self._blocked_until_s = max(self._blocked_until_s, at_s + wait)

    def _expire(self, now_s: float) -> None:
        for permit_id in [i for i, lease in self._leases.items() if lease.expires_s <= now_s]:
            self._release(self._leases.pop(permit_id), now_s, counted=False)


def read_github_signal(response: Response, now_s: float) -> Signal:
    """Read what a GitHub answer says about limits: headers, status, and the message in a 200 body.

    A 403 or 429 is a limit only if headers or message say so: blocked repositories (``block``), missing
    rights and dead tokens share the status. An answer with ``remaining: 0`` and data is not an error.
    """
    head = response.headers
    remaining, limit, reset = (_int(head.get(f"x-ratelimit-{k}")) for k in ("remaining", "limit", "reset"))
    retry_after = read_retry_after(head.get("retry-after"), head.get("date"), now_s)
    verdict: Verdict = "ok"
    body = response.body[:4096].lower()
    if response.status == 401:
        verdict = "dead"
    elif response.status in (403, 429) or (response.status == 422 and b"spammed" in body):
        said_so = b"secondary rate limit" in body or b"abuse detection" in body or response.status == 422
        if said_so or retry_after is not None:
            verdict = "secondary"
        elif remaining == 0 or b"rate limit exceeded" in body:
            verdict = "primary"
        elif response.status == 429:
            verdict = "secondary"
        elif b'"block"' not in body and (remaining is None or b"suspended" in body):
            verdict = "dead"  # suspended accounts answer 403 without any rate-limit header
    elif response.status == 200 and b'"errors"' in body:
        if b"secondary rate limit" in body:
            verdict = "secondary"
        elif b'"rate_limit' in body or b"rate limit exceeded" in body or b"rate limit already exceeded" in body:
            verdict = "primary"
    return Signal(verdict, retry_after, limit, remaining, None if reset is None else float(reset))


def read_plain_signal(response: Response, now_s: float) -> Signal:
    """Read what an upstream without rate headers says: 429 (and Cloudflare's 1015) means a pause."""
    limited = response.status == 429 or b"error code: 1015" in response.body[:200]
    wait = read_retry_after(response.headers.get("retry-after"), response.headers.get("date"), now_s)
    return Signal("secondary" if limited else "ok", wait)


def read_retry_after(value: str | None, date: str | None, now_s: float) -> float | None:
    """Return ``Retry-After`` in seconds from seconds or an HTTP date; None if absent or unreadable.

    A date is held against the answer's own ``Date``, so that a wrong clock here does not matter.
    """
    if value is None:
        return None
    seconds = _int(value)
    if seconds is not None:
        return float(seconds)
    until_s, from_s = _epoch_s(value), now_s if date is None else _epoch_s(date)
    return None if until_s is None else max(0.0, until_s - (now_s if from_s is None else from_s))


def rank_tokens(sticky: str, names: Sequence[str]) -> list[str]:
    """Order credentials for one key by rendezvous hashing.

    The first is the key's own; when it dies only its keys move. ETags are bound to tokens, so a key
    that stays on its token earns 304s.
    """
    return sorted(names, key=lambda n: hashlib.blake2b(f"{n}\0{sticky}".encode(), digest_size=8).digest(), reverse=True)


def token_name(token: str) -> str:
    """Return a name for a secret that may stand in logs and actor names: eight hex digits of its digest."""
    return hashlib.blake2b(token.encode(), digest_size=4).hexdigest()


def _int(value: str | None) -> int | None:
    """Read a whole number of up to twelve ASCII digits; anything else in a header is no figure."""
    text = "" if value is None else value.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def _epoch_s(http_date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(http_date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # The zone "-0000" gives a naive moment, which Python would take for local time.
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
