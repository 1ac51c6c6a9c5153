"""What batches cost at their upstreams' limits: requests, points, hours. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from astrid.limits import BucketSpec
from astrid.models import Batch
from astrid.sources import BUDGETS, SOURCES


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan asks of one bucket of a source: batches, requests, points, and hours at the upstream's limits."""

    source: str
    upstream: str
    bucket: str
    batches: int
    requests: int
    points: int
    hours: float


def cost_plan(batches: Sequence[Batch], users: Mapping[str, int]) -> list[Cost]:
    """Add a plan up per source and bucket; ``users`` is how many budgets each upstream has, one where it is absent."""
    costs = []
    for name, source in SOURCES.items():
        for bucket, spec in BUDGETS[source.upstream].buckets.items():
            own = [b for b in batches if b.source == name and source.tasks[b.task].bucket == bucket]
            if own:
                requests, points = sum(b.requests for b in own), sum(b.points for b in own)
                reserve = BUDGETS[source.upstream].reserve
                hours = count_hours(spec, requests, points, users.get(source.upstream, 1), reserve)
                costs.append(Cost(name, source.upstream, bucket, len(own), requests, points, hours))
    return costs


def count_hours(bucket: BucketSpec, requests: int, points: int, users: int, reserve: float = 0.0) -> float:
    """Return the hours that the tightest of a bucket's limits takes, spread over the budgets of ``users``.

    ``reserve`` is the share of the primary limit that is never spent. The hours are those at an even pace; points are
    let through by the hour, and the last hour's may be gone in its first minutes.
    """
    rates = [w.limit / w.period_s * 3600 for w in bucket.windows]
    hours = [requests / rate for rate in rates]
    if bucket.primary:
        hours.append(points / (bucket.primary * (1 - reserve)))
    return max(hours, default=0.0) / max(users, 1)


def count_night_hours(costs: Sequence[Cost]) -> float:
    """Return the hours that a plan takes in all: those of the bucket that takes longest, for they pass side by side."""
    by_bucket: dict[tuple[str, str], float] = {}
    for cost in costs:
        key = cost.upstream, cost.bucket
        by_bucket[key] = by_bucket.get(key, 0.0) + cost.hours
    return max(by_bucket.values(), default=0.0)
