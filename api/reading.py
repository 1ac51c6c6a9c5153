"""Readings that both the API and the pages are made of."""

from __future__ import annotations

from datetime import datetime, timedelta

from api.problems import NOT_SCORED, UNKNOWN_PROJECT, Problem
from api.series import DAYS_MAX, DenseSeries, read_dense
from api.state import Board, State
from astrid.catalog import METRICS
from astrid.store import GapRow, ProjectRow, ScoreRow


async def read_board(state: State, as_of: datetime | None = None) -> Board | None:
    """Return the last ranking, or None before the first."""
    try:
        return await state.board(as_of=as_of)
    except Problem as problem:
        if problem.kind is NOT_SCORED:
            return None
        raise


async def read_whole_project(
    state: State, slug: str, as_of: datetime | None = None
) -> tuple[ProjectRow, ScoreRow | None, list[DenseSeries], list[GapRow]]:
    """Return a project, its last score, every metric over all its days (at most DAYS_MAX), and its gaps.

    Raises
    ------
    Problem
        If no project has the slug.
    """
    listed = (await state.directory(as_of)).project(slug)
    project = await state.store.read_project(listed.slug, as_of=as_of)
    if project is None:
        raise Problem(
            UNKNOWN_PROJECT, f"The project {slug!r} was just removed.", field="slug", remedy="/v1/projects lists them."
        )
    history = await state.store.read_score_history(slug, 1, as_of=as_of)
    end = await state.last_day(as_of)
    start = end - timedelta(days=DAYS_MAX - 1)
    series = [await read_dense(state, slug, metric, start, end, as_of) for metric in METRICS]
    gaps = await state.store.read_gaps(slug, as_of=as_of)
    return project, history[-1] if history else None, series, gaps
