"""What upstreams allow, as values: windows, buckets, budgets. :mod:`astrid.ratelimit` is the machine that obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from astrid.models import Request


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``limit`` requests in any ``period_s`` seconds."""

    limit: int
    period_s: float


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """One bucket: its sliding windows, and its primary limit in points per hour if headers state one.

    ``busy_s`` is how many seconds of the upstream's processors its requests may take in any 60 seconds.
    """

    windows: tuple[Window, ...] = ()
    primary: int | None = None
    busy_s: float | None = None


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """What an upstream allows one user; ``reserve`` is the share of the primary limit never spent.

    ``busy_s`` is as in a bucket, for all of them together. ``probe`` is a request that costs no points and tells what
    is left per bucket, and whether a token is good; None where an upstream has none.
    """

    buckets: Mapping[str, BucketSpec]
    concurrency: int
    reserve: float = 0.02
    busy_s: float | None = None
    probe: Request | None = None
