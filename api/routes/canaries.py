"""``/v1/canaries`` and ``/v1/reconciliation``: whether the upstreams can be trusted."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.answers import canaries_body, reconciliation_body, respond
from api.parameters import AskedAsOf, Limit, Night, Offset
from api.schemas import Canaries, ReconciliationList, problem_responses
from api.state import Shared

router = APIRouter(prefix="/v1", tags=["upstreams"])


@router.get("/canaries", response_model=Canaries, responses=problem_responses(422, 503))
async def read_canaries(state: Shared, asked: AskedAsOf, day: Night = None) -> Response:
    """What the canaries said of every upstream on a night: sound, broken since when, too little to judge, or not asked.

    From a violation's first night to the next sound one nothing that its source writes enters a score, whatever day it
    is about: the value that it replaced counts, or a gap. Values that are only missing (`freshness`, `truncation`) keep
    nothing out, and what two witnesses disagree on keeps out that alone.
    """
    return respond(asked.stamp(canaries_body(await state.verdicts(day, asked.as_of))))


@router.get("/reconciliation", response_model=ReconciliationList, responses=problem_responses(422, 503))
async def read_reconciliation(state: Shared, asked: AskedAsOf, limit: Limit = 50, offset: Offset = 0) -> Response:
    """Star snapshots held against GitHub's star history in the latest weeks, the largest differences first."""
    tracked = (await state.directory(asked.as_of)).tracked(None)
    weeks = await state.compared_weeks(asked.as_of)
    verdicts = await state.verdicts(as_of=asked.as_of)
    return respond(asked.stamp(reconciliation_body(weeks, verdicts, tracked, limit, offset)))
