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
                hours = count_hours(spec, requests, points, users.get(source.upstream, 1))
                costs.append(Cost(name, source.upstream, bucket, len(own), requests, points, hours))
    return costs


def count_hours(bucket: BucketSpec, requests: int, points: int, users: int) -> float:
    """Return the hours that the tightest of a bucket's limits takes, spread over the budgets of ``users``."""
    rates = [w.limit / w.period_s * 3600 for w in bucket.windows]
    hours = [requests / rate for rate in rates] + ([points / bucket.primary] if bucket.primary else [])
    return max(hours, default=0.0) / max(users, 1)
