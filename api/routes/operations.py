"""``/healthz``, ``/readyz`` and ``/metrics``: what operators and their probes ask."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, time, timedelta

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api.answers import respond
from api.problems import NOT_READY, Problem
from api.schemas import Health, Readiness, problem_responses
from api.state import COMPARED_DAYS, Shared, State
from astrid import __version__
from astrid.catalog import METRIC_BY_ID, METRICS
from astrid.errors import StoreError
from astrid.metrics import CANARY_JUDGED, CANARY_VIOLATED, DISCREPANT, OPEN_GAPS, PROJECTS, REGISTRY, SCORED_DAY
from astrid.pipeline import canaries
from astrid.store import check_version
from astrid.timeline import night_of

router = APIRouter(tags=["operations"])
log = logging.getLogger(__name__)

GAUGES_S = 30.0
"""Gauges are read from the database at most this often, however often they are scraped."""

OPEN_GAP_DAYS = 90
"""The gauge counts the gaps of so many days up to the last one: a bounded reading, and those that may still heal."""


@router.get("/healthz", response_model=Health)
async def read_health() -> Response:
    """The process runs; says nothing about the database."""
    return respond({"status": "ok", "version": __version__})


@router.get("/readyz", response_model=Readiness, responses=problem_responses(503))
async def read_readiness(state: Shared) -> Response:
    """The database answers and its schema is the one that this version needs; else 503."""
    try:
        day = await state.store.latest_scored_day()
        if state.settings.database_url is not None:
            await check_version(state.settings.database_url.get_secret_value())
    except StoreError as exc:
        log.warning("not ready: %s", exc)
        raise Problem(
            NOT_READY,
            "The database does not answer, or its schema is not the one that this version needs.",
            remedy="The operator starts the database, or runs `astrid migrate`; the cause is in the server's log.",
        ) from exc
    return respond({"status": "ready", "version": __version__, "scored_day": day})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text"}},
)
async def read_metrics(state: Shared) -> Response:
    """Counters of requests and gauges of freshness, as Prometheus text; answers without the database too."""
    try:
        await state.keep("gauges", GAUGES_S, lambda: set_gauges(state))
    except StoreError as exc:
        log.warning("gauges keep their last value: %s", exc)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def set_gauges(state: State) -> None:
    """Read what the gauges show."""
    store = state.store
    scored = await store.latest_scored_day()
    over = night_of(state.now())
    last = max(over, scored) if scored else over
    open_by_source = {metric.source: 0 for metric in METRICS}
    for gap in await store.read_open_gaps(last - timedelta(days=OPEN_GAP_DAYS - 1), last):
        metric = METRIC_BY_ID.get(gap.metric_id)
        source = metric.source if metric else "unknown"
        open_by_source[source] = open_by_source.get(source, 0) + 1
    PROJECTS.set(len(await store.read_projects()))
    if scored is not None:
        SCORED_DAY.set(datetime.combine(scored, time(), UTC).timestamp())
    for source, count in open_by_source.items():
        OPEN_GAPS.labels(source).set(count)
    for row in await store.read_canaries():
        CANARY_VIOLATED.labels(row.source, row.name).set(row.state == "violated")
        CANARY_JUDGED.labels(row.source, row.name).set(row.state not in canaries.UNJUDGED)
    weeks = await store.read_reconciled_weeks(last - timedelta(days=COMPARED_DAYS - 1), last)
    DISCREPANT.labels("github").set(sum(week.difference > canaries.DISCREPANT for week in weeks))
