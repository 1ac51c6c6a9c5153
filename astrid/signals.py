"""What answers say about limits: headers, statuses and messages to one :class:`Signal`. Pure; time is an argument.

Limits: GitHub docs, "Rate limits for the REST API", "Rate limits and query limits for the GraphQL API",
"REST API endpoints for rate limits".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeGuard

from astrid.errors import Malformed
from astrid.models import Response

Verdict = Literal["ok", "primary", "secondary", "dead"]

_CLOUDFLARE: Final = re.compile(rb"error[^0-9]{1,80}1015\b", re.IGNORECASE)
_RATE_FIELD: Final = re.compile(r";\s*([rtqw])\s*=\s*([0-9]{1,12})\b")
_COST: Final = re.compile(rb'"rateLimit"\s*:\s*\{[^{}]*"cost"\s*:\s*(\d{1,6})\b')


@dataclass(frozen=True, slots=True)
class Signal:
    """What one answer says about the budget.

    ``reset_s`` and ``date_s``, when it was given, are epoch seconds of the upstream's clock; ``resource`` is the bucket
    that limit, remaining and reset are of, empty where it does not say; ``points`` what the answer cost of the primary
    limit, None where it does not say.
    """

    verdict: Verdict = "ok"
    retry_after_s: float | None = None
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    points: int | None = None
    resource: str = ""
    date_s: float | None = None


def read_github_signal(response: Response, now_s: float) -> Signal:
    """Read what a GitHub answer says about limits: headers, status, and the message in a 200 body.

    A 403 or 429 is a limit only if headers or message say so: blocked repositories (``block``), missing
    rights and dead tokens share the status. An answer with ``remaining: 0`` and data is not an error.
    """
    head = response.headers
    remaining, limit, reset = (_int(head.get(f"x-ratelimit-{k}")) for k in ("remaining", "limit", "reset"))
    if remaining is not None and limit is not None and remaining > limit:
        remaining = limit = None  # nobody has more left than there is
    retry_after = read_retry_after(head.get("retry-after"), head.get("date"), now_s)
    verdict: Verdict = "ok"
    body = response.body[:4096].lower()
    if response.status == 401:
        verdict = "dead"
    elif response.status in (403, 429) or (response.status == 422 and b"spammed" in body):
        said_so = b"secondary rate limit" in body or b"abuse detection" in body or response.status == 422
        # Seen on a recorded 403 that states no time at all: which kind of limit it was.
        said_so = said_so or "gh-limited-by" in head
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
    reset_s = None if reset is None else float(reset)
    date_s = _epoch_s(head["date"]) if "date" in head else None
    resource = head.get("x-ratelimit-resource", "").strip().lower()
    return Signal(verdict, retry_after, limit, remaining, reset_s, _points(response), resource, date_s)


def read_rate_limit(response: Response) -> dict[str, Signal]:
    """Read the body of ``GET /rate_limit``: what is left per bucket; empty where it cannot be read.

    Only ``resources`` is read: API version 2026-03-10 dropped ``rate``, which repeated ``resources.core``.
    """
    if response.status != 200:
        return {}
    try:
        body: Any = response.json()
    except Malformed:
        return {}
    resources = body.get("resources") if isinstance(body, dict) else None
    found: dict[str, Signal] = {}
    for bucket, row in (resources if isinstance(resources, dict) else {}).items():
        if isinstance(row, dict):
            limit, remaining, reset = (row.get(key) for key in ("limit", "remaining", "reset"))
            if _is_count(limit) and _is_count(remaining) and _is_count(reset) and 0 < limit >= remaining:
                found[bucket] = Signal("ok", None, limit, remaining, float(reset), 0)
    return found


def read_plain_signal(response: Response, now_s: float) -> Signal:
    """Read what an upstream without rate headers says: 429 means a pause, and so does Cloudflare's error 1015.

    Cloudflare says it in a line of text or on a page of HTML, with 429, 403 or 503; a wait is rarely stated.
    """
    refused = response.status in (403, 429, 503) and _CLOUDFLARE.search(response.body[:8192]) is not None
    limited = response.status == 429 or refused or b"error code: 1015" in response.body[:200]
    wait = read_retry_after(response.headers.get("retry-after"), response.headers.get("date"), now_s)
    return Signal("secondary" if limited else "ok", wait)


def read_huggingface_signal(response: Response, now_s: float) -> Signal:
    """Read ``RateLimit: "api";r=0;t=55`` and ``RateLimit-Policy: "fixed window";"api";q=500;w=300``.

    ``r`` is what is left of the window, ``t`` the seconds until the next one, ``q`` what a whole one holds (hub-docs,
    ``docs/hub/rate-limits.md``). A 429 without them means a pause of unknown length.
    """
    left = dict(_RATE_FIELD.findall(response.headers.get("ratelimit", "")))
    policy = dict(_RATE_FIELD.findall(response.headers.get("ratelimit-policy", "")))
    remaining, wait_s, limit = _int(left.get("r")), _int(left.get("t")), _int(policy.get("q"))
    reset_s = None if wait_s is None else now_s + wait_s
    plain = read_plain_signal(response, now_s)
    asked_s = plain.retry_after_s
    if plain.verdict != "ok" and asked_s is None and wait_s is not None:
        asked_s = float(wait_s)
    return Signal(plain.verdict, asked_s, limit, remaining, reset_s)


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


def _points(response: Response) -> int | None:
    """Return what an answer cost: nothing for a 304, for GraphQL what its ``rateLimit.cost`` says."""
    if response.status == 304:
        return 0
    # Our queries ask for it last; whole answers are not searched.
    stated = _COST.search(response.body, max(0, len(response.body) - 4096)) if response.status == 200 else None
    return None if stated is None else int(stated[1])


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


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
