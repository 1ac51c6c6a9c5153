"""What upstreams allow, as values: windows, buckets, budgets. The machine that obeys them is :mod:`astrid.ratelimit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
