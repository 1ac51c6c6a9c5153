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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from astrid.models import Response

LEASE_S: Final = 900.0
"""A permit whose receipt never comes (a killed worker) counts as answered after this many seconds."""

FIRST_BACKOFF_S: Final = 60.0
MAX_BACKOFF_S: Final = 3600.0

Verdict = Literal["ok", "primary", "secondary", "dead"]


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``limit`` requests in any ``period_s`` seconds."""

    limit: int
    period_s: float


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """One bucket: its sliding windows, and its primary limit in points per hour if headers state one."""

    windows: tuple[Window, ...] = ()
    primary: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """What an upstream allows one credential; ``reserve`` is the share of the primary limit never spent."""

    buckets: Mapping[str, BucketSpec]
    concurrency: int
    reserve: float = 0.02


SPECS: Final[Mapping[str, BudgetSpec]] = {
    "github": BudgetSpec(
        {
            "core": BucketSpec((Window(900, 60.0),), 5000),
            "graphql": BucketSpec((Window(2000, 60.0),), 5000),
            "search": BucketSpec((Window(30, 60.0),)),
        },
        concurrency=90,  # GitHub allows 100, shared by REST and GraphQL
    ),
    "hn_algolia": BudgetSpec({"core": BucketSpec((Window(9_800, 3600.0),))}, concurrency=4),
    "hn_firebase": BudgetSpec({"core": BucketSpec((Window(60, 1.0),))}, concurrency=20),
    "pypistats": BudgetSpec({"core": BucketSpec((Window(5, 1.0), Window(30, 60.0)))}, concurrency=4),
    "clickhouse": BudgetSpec({"core": BucketSpec((Window(10, 1.0),))}, concurrency=2),
    "archive": BudgetSpec({"core": BucketSpec((Window(20, 1.0),))}, concurrency=4),
}


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
            if self.reset_s is not None and now_s > self.reset_s + 1.0:
                self.remaining, self.reset_s = self.limit, None
            floor = int(self.limit * self.reserve)
            if self.remaining - self.points_in_flight - cost < floor:
                known = self.reset_s is not None
                wait = max(wait, (self.reset_s or 0.0) + 1.5 - now_s if known else 1.0)
        return wait


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
            return Grant(tuple(granted), now_s + LEASE_S)
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
        if lease is not None:
            self._release(lease, receipt.at_s)
            self.requests_sent += 1
            self.points_spent[lease.bucket] += lease.cost
        if receipt.signal is not None:
            self._learn(receipt.signal, self._buckets[lease.bucket] if lease else None, receipt.at_s)

    def give_back(self, permit_id: int) -> None:
        """Return a permit that was never used."""
        lease = self._leases.pop(permit_id, None)
        if lease is not None:
            b = self._buckets[lease.bucket]
            b.in_flight -= 1
            b.points_in_flight -= lease.cost

    def _release(self, lease: _Lease, at_s: float) -> None:
        b = self._buckets[lease.bucket]
        b.in_flight -= 1
        b.points_in_flight -= lease.cost
        for answered in b.answered:
            # Receipts of several workers may arrive out of order; the deque must stay sorted.
            answered.append(max(at_s, answered[-1]) if answered else at_s)
        if b.spec.primary is not None:
            b.remaining -= lease.cost

    def _learn(self, signal: Signal, bucket: _Bucket | None, at_s: float) -> None:
        if bucket is not None and bucket.spec.primary is not None and signal.remaining is not None:
            bucket.limit = signal.limit or bucket.limit
            same_window = bucket.reset_s is not None and signal.reset_s == bucket.reset_s
            # Answers overtake each other: inside one window the lowest figure is the latest.
            bucket.remaining = min(bucket.remaining, signal.remaining) if same_window else signal.remaining
            bucket.reset_s = signal.reset_s
        match signal.verdict:
            case "ok":
                self._strikes = 0
            case "dead":
                self.dead_reason = "the upstream refuses this token (revoked, expired or suspended)"
            case "primary":
                if bucket is not None and bucket.spec.primary is not None:
                    bucket.remaining = 0
                    bucket.reset_s = signal.reset_s if signal.reset_s is not None else at_s + FIRST_BACKOFF_S
                else:
                    self._block(at_s, signal.retry_after_s)
            case "secondary":
                self._block(at_s, signal.retry_after_s)

    def _block(self, at_s: float, retry_after_s: float | None) -> None:
        jitter = self._jitter[self._strikes % len(self._jitter)]
        backoff = min(FIRST_BACKOFF_S * 2**self._strikes, MAX_BACKOFF_S) * (1.0 + 0.25 * jitter)
        # One second more than asked: the upstream's clock and ours may differ by a fraction.
        wait = backoff if retry_after_s is None else retry_after_s + 1.0
        self._blocked_until_s = max(self._blocked_until_s, at_s + wait)
        self._strikes = min(self._strikes + 1, 6)

    def _expire(self, now_s: float) -> None:
        for permit_id in [i for i, lease in self._leases.items() if lease.expires_s <= now_s]:
            self._release(self._leases.pop(permit_id), now_s)


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
    if value.strip().isdigit():
        return float(value)
    try:
        until_s = parsedate_to_datetime(value).timestamp()
        from_s = parsedate_to_datetime(date).timestamp() if date else now_s
    except ValueError:
        return None
    return max(0.0, until_s - from_s)


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
    return int(value) if value is not None and value.strip().isdigit() else None
