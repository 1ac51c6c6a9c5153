"""``/v1/leaderboard``: the ranking of a day."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.answers import leaderboard_body, respond
from api.parameters import AskedAsOf, Category, Day, Limit, Offset
from api.schemas import Leaderboard, problem_responses
from api.state import Shared

router = APIRouter(prefix="/v1", tags=["scores"])


@router.get("/leaderboard", response_model=Leaderboard, responses=problem_responses(404, 422, 503))
async def read_leaderboard(
    state: Shared,
    asked: AskedAsOf,
    category: Category = None,
    limit: Limit = 50,
    offset: Offset = 0,
    day: Day = None,
) -> Response:
    """The ranking of a day: who grows, how sure that is, and what drives it.

    `coverage` is the share of the tracked projects that are ranked that day. Each `contributions` adds up to
    `score` − 50. Intervals say by `calibrated` whether they were checked against realised errors. `held_out` names the
    sources of which something was kept out of the scores that night, see `/v1/canaries`.
    """
    directory = await state.directory(asked.as_of)
    directory.tracked(category)
    board = await state.board(day, asked.as_of)
    verdicts = await state.verdicts(board.day, asked.as_of)
    return respond(asked.stamp(leaderboard_body(board, directory, verdicts, category, limit, offset)))
