"""Every Prometheus metric of Astrid, declared once.

Labels are bounded (a source, an outcome), never an entity. Actors report the same names through
Ray's metrics, where they carry the prefix ``ray_``.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry(auto_describe=True)

API_REQUESTS: Final = Counter(
    "astrid_api_requests", "Requests that the API answered.", ["route", "status"], registry=REGISTRY
)
API_SECONDS: Final = Histogram(
    "astrid_api_request_seconds",
    "Seconds from request to answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)
SCORED_DAY: Final = Gauge(
    "astrid_scored_day_timestamp_seconds", "Start of the last scored day, as epoch seconds.", registry=REGISTRY
)
PROJECTS: Final = Gauge("astrid_projects", "Projects on the watchlist.", registry=REGISTRY)
OPEN_GAPS: Final = Gauge(
    "astrid_open_gaps", "Expected values that have not come, by source.", ["source"], registry=REGISTRY
)
CANARY_VIOLATED: Final = Gauge(
    "astrid_canary_violated",
    "1 while an upstream breaks the contract that this canary watches, else 0.",
    ["source", "canary"],
    registry=REGISTRY,
)
CANARY_JUDGED: Final = Gauge(
    "astrid_canary_judged",
    "1 if this canary had enough to go by on the last night, 0 if it said nothing: then 0 violated is no all-clear.",
    ["source", "canary"],
    registry=REGISTRY,
)
DISCREPANT: Final = Gauge(
    "astrid_reconciliation_discrepant",
    "Project-weeks of the last compared ones in which snapshots and history differ, by source.",
    ["source"],
    registry=REGISTRY,
)

BATCHES_TOTAL: Final = ("astrid_batches_total", "Batches planned in the current run, by source.")
BATCHES_DONE: Final = ("astrid_batches_done", "Batches of the current run that have ended, by source.")
TOKENS_QUARANTINED: Final = (
    "astrid_tokens_quarantined",
    "Tokens in quarantine because the upstream refuses them, by upstream.",
)
REQUESTS: Final = ("astrid_requests", "Requests sent, by upstream and class of answer.")
"""Names and help texts of what actors and drivers report through Ray."""
