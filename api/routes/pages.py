"""``/``, ``/projects/{slug}`` and ``/docs``: the pages for people; all but the style sheet is rendered per request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Path, Query
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from api.accounts import (
    CALENDAR_DAYS_DEFAULT,
    CALENDAR_DAYS_MAX,
    UNIVERSE_DAYS_MAX,
    read_calendar,
    read_scope,
    read_tallies,
)
from api.pages.leaderboard import leaderboard_page
from api.pages.ledger import RUNS_SHOWN, calendars_section, status_page
from api.pages.project import RANGES, project_page
from api.pages.reference import reference_page
from api.pages.rendering import HERE, render
from api.pages.upstreams import upstreams_section
from api.parameters import Category, Day, Offset
from api.reading import read_board, read_whole_project
from api.series import read_notes
from api.state import Shared
from astrid.catalog import METRICS
from astrid.timeline import night_of

HISTORY_DAYS: Final = 5_000
STATIC: Final = StaticFiles(directory=HERE / "static")

router = APIRouter(include_in_schema=False)
_GET: Final = ["GET", "HEAD"]


def is_page(request: HTTPConnection) -> bool:
    """Tell whether an address is one that people read."""
    path = request.scope["path"]
    return path in ("/", "/status", "/docs") or path.startswith("/projects/")


def address(path: str, parameters: Mapping[str, Any]) -> str:
    """Return an own address with the parameters that are set."""
    given = {name: value for name, value in parameters.items() if value not in (None, "", 0)}
    return quote(path) + (f"?{urlencode(given)}" if given else "")


@router.api_route("/", methods=_GET)
async def show_leaderboard(state: Shared, category: Category = None, offset: Offset = 0, day: Day = None) -> Response:
    """The leaderboard as a page."""
    directory = await state.directory()
    directory.tracked(category or None)
    board = await (state.board(day) if day else read_board(state))
    notes = [note for metric in METRICS if metric.weight for note in await read_notes(state, metric)]
    verdicts = await state.verdicts(board.day if board else None)
    over = night_of(state.now())
    return render(
        "leaderboard.html",
        **leaderboard_page(directory, board, notes, over, category or None, offset, day, address),
        **upstreams_section(verdicts, await state.compared_weeks()),
    )


@router.api_route("/projects/{slug}", methods=_GET)
async def show_project(
    state: Shared,
    slug: Annotated[str, Path(max_length=200)],
    days: Annotated[str, Query(pattern=f"^({'|'.join(RANGES)})$")] = "365",
) -> Response:
    """One project as a page."""
    project, score, series, gaps = await read_whole_project(state, slug)
    history = await state.store.read_score_history(project.slug, HISTORY_DAYS)
    board = await read_board(state)
    end = max([one.last[0] for one in series if one.last] + ([board.day] if board else []), default=None)
    scope = await read_scope(
        state, METRICS, project.slug, None, None, None, default=CALENDAR_DAYS_DEFAULT, longest=CALENDAR_DAYS_MAX
    )
    calendar = await read_calendar(state, scope)
    json = address(f"/v1/projects/{project.slug}/calendar", {})
    return render(
        "project.html",
        **project_page(project, score, history, series, gaps, board, end, days, address),
        **calendars_section(scope, calendar, json),
    )


@router.api_route("/status", methods=_GET)
async def show_status(state: Shared) -> Response:
    """What was expected of all projects and came, and the last runs."""
    scope = await read_scope(state, METRICS, None, None, None, None, default=UNIVERSE_DAYS_MAX)
    runs, _ = await state.store.ledger.read_runs(None, None, None, RUNS_SHOWN, 0)
    counts = await state.store.ledger.read_batch_counts([run.run_id for run in runs])
    return render("status.html", **status_page(scope, await read_tallies(state, scope), runs, counts, address))


@router.api_route("/docs", methods=_GET)
async def show_reference(request: Request) -> Response:
    """The API explained, from its own description."""
    return render("reference.html", **reference_page(request.app.openapi()))


@router.api_route("/favicon.ico", methods=_GET)
async def redirect_icon() -> Response:
    """Where browsers look for an icon when a page names none."""
    return RedirectResponse("/static/icon.svg", 308)
