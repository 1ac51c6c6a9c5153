"""``/v1/projects``: what is tracked, what is known about one project, and its series."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.answers import project_body, project_reconciliation_body, projects_body, respond, series_body
from api.parameters import AskedAsOf, Category, End, Limit, Metric, Offset, Slug, Start
from api.reading import read_board, read_whole_project
from api.schemas import Project, ProjectReconciliation, Projects, Series, problem_responses
from api.series import metric_named, read_dense
from api.state import Shared

router = APIRouter(prefix="/v1/projects", tags=["projects"])


@router.get("", response_model=Projects, responses=problem_responses(422, 503))
async def list_projects(
    state: Shared, asked: AskedAsOf, category: Category = None, limit: Limit = 100, offset: Offset = 0
) -> Response:
    """The tracked projects by slug, with their rank on the last scored day."""
    directory = await state.directory(asked.as_of)
    board = await read_board(state, asked.as_of)
    return respond(asked.stamp(projects_body(directory, board, category, limit, offset)))


@router.get("/{slug}", response_model=Project, responses=problem_responses(404, 422, 503))
async def read_project(state: Shared, asked: AskedAsOf, slug: Slug) -> Response:
    """One project: what upstreams call it, its last score, the metrics it has, and what is missing."""
    return respond(asked.stamp(project_body(*await read_whole_project(state, slug, asked.as_of))))


@router.get("/{slug}/reconciliation", response_model=ProjectReconciliation, responses=problem_responses(404, 422, 503))
async def read_project_reconciliation(state: Shared, asked: AskedAsOf, slug: Slug) -> Response:
    """Star snapshots of one project held against GitHub's star history, week by week.

    The history counts stars that still stand, by the day on which they were given; snapshots also see stars taken back.
    """
    project = (await state.directory(asked.as_of)).project(slug)
    weeks = await state.store.read_reconciliation(project.slug, as_of=asked.as_of)
    verdicts = await state.verdicts(as_of=asked.as_of)
    return respond(asked.stamp(project_reconciliation_body(project.slug, weeks, verdicts)))


@router.get("/{slug}/series", response_model=Series, responses=problem_responses(404, 422, 503))
async def read_series(
    state: Shared, asked: AskedAsOf, slug: Slug, metric: Metric, start: Start = None, end: End = None
) -> Response:
    """One metric of one project on every day of a range of at most 5,000 days.

    A day without an observation has the value null and no origin; a zero is 0. Counts are whole numbers.
    """
    project = (await state.directory(asked.as_of)).project(slug)
    series = await read_dense(state, project.slug, metric_named(metric), start, end, asked.as_of)
    return respond(asked.stamp(series_body(series)))
