"""``/v1/gaps``, ``/v1/coverage``, and of a project ``calendar``: what was expected, what came, what is missing."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.accounts import (
    CALENDAR_DAYS_DEFAULT,
    CALENDAR_DAYS_MAX,
    UNIVERSE_DAYS_MAX,
    metrics_asked,
    read_calendar,
    read_items,
    read_listing,
    read_moment,
    read_scope,
    read_tallies,
)
from api.answers import respond
from api.ledger import calendar_body, coverage_body, gaps_body
from api.parameters import AskedAsOf, GapEnd, GapStart, GapStates, Limit, Offset, OneMetric, OneProject, OneSource, Slug
from api.schemas import Coverage, Gaps, ProjectCalendar, problem_responses
from api.state import Shared

router = APIRouter(prefix="/v1", tags=["ledger"])


@router.get("/gaps", response_model=Gaps, responses=problem_responses(404, 422, 503))
async def read_gaps(
    state: Shared,
    asked: AskedAsOf,
    project: OneProject = None,
    source: OneSource = None,
    metric: OneMetric = None,
    start: GapStart = None,
    end: GapEnd = None,
    state_: GapStates = "open",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """Values that were expected and did not come, or came late: why, and when they are asked for again.

    A value is expected of every project that nights ask about, on every day (or, of a snapshot of several nights, on
    its turn), and wherever a run asked for it in vain. Of all projects at most 92 days are listed at a time, of one
    project 400.
    """
    directory = await state.directory(asked.as_of)
    longest = UNIVERSE_DAYS_MAX if project is None else CALENDAR_DAYS_MAX
    metrics = metrics_asked(metric, source)
    scope = await read_scope(state, metrics, project, start, end, asked.as_of, longest=longest, field="project")
    listing = await read_listing(state, scope, state_, directory)
    items = await read_items(state, scope, listing.page(scope, offset, limit))
    moment = await read_moment(state, scope)
    return respond(asked.stamp(gaps_body(scope, listing, items, directory, moment, limit, offset)))


@router.get("/coverage", response_model=Coverage, responses=problem_responses(422, 503))
async def read_coverage(
    state: Shared,
    asked: AskedAsOf,
    source: OneSource = None,
    metric: OneMetric = None,
    start: GapStart = None,
    end: GapEnd = None,
) -> Response:
    """How many values of all projects were expected and came, per metric and day, of at most 92 days.

    A metric of which nothing is expected or known is left out.
    """
    scope = await read_scope(state, metrics_asked(metric, source), None, start, end, asked.as_of)
    tallies = await read_tallies(state, scope)
    return respond(asked.stamp(coverage_body(scope, tallies, await read_moment(state, scope))))


@router.get("/projects/{slug}/calendar", response_model=ProjectCalendar, responses=problem_responses(404, 422, 503))
async def read_project_calendar(
    state: Shared,
    asked: AskedAsOf,
    slug: Slug,
    source: OneSource = None,
    metric: OneMetric = None,
    start: GapStart = None,
    end: GapEnd = None,
) -> Response:
    """What was expected of one project and came, every day of a range of at most 400 days, source by source.

    Without a range it is the last 365 days. Days in a row of which the same is to be said are one stretch.
    """
    scope = await read_scope(
        state, metrics_asked(metric, source), slug, start, end, asked.as_of,
        default=CALENDAR_DAYS_DEFAULT, longest=CALENDAR_DAYS_MAX,
    )  # fmt: skip
    calendar = await read_calendar(state, scope)
    return respond(asked.stamp(calendar_body(slug, scope, calendar, await read_moment(state, scope))))
