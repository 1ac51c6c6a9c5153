"""``/v1/runs``, and of a project ``trace``: what each run did, and which run is behind a number."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.answers import respond
from api.parameters import Limit, Offset, RunEnd, RunId, RunKind, RunStart, Slug, TraceDay, TraceMetric
from api.problems import UNKNOWN_RUN, Problem
from api.runs import DEAD_MAX, run_body, runs_body, score_trace_body, value_trace_body
from api.schemas import Run, Runs, Trace, problem_responses
from api.series import metric_named
from api.state import Shared
from astrid.pipeline.trace import trace_score, trace_value

router = APIRouter(prefix="/v1", tags=["runs"])


@router.get("/runs", response_model=Runs, responses=problem_responses(422, 503))
async def list_runs(
    state: Shared,
    kind: RunKind = None,
    start: RunStart = None,
    end: RunEnd = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Response:
    """The runs of the program, the newest first: what each was about, what it planned, and how it ended."""
    ledger = state.store.ledger
    runs, total = await ledger.read_runs(kind, start, end, limit, offset)
    counts = await ledger.read_batch_counts([run.run_id for run in runs])
    return respond(runs_body(runs, counts, total, limit, offset))


@router.get("/runs/{run_id}", response_model=Run, responses=problem_responses(404, 422, 503))
async def read_run(state: Shared, run_id: RunId) -> Response:
    """One run: plan and spending per budget, batches, those that were set aside, and the gaps that it left."""
    ledger = state.store.ledger
    run = (await ledger.read_runs_by_id([run_id])).get(run_id)
    if run is None:
        raise Problem(
            UNKNOWN_RUN, f"There is no run {run_id}.", field="run_id", remedy="/v1/runs lists them, the newest first."
        )
    body = run_body(
        run,
        await ledger.read_batch_counts([run_id]),
        await state.store.read_costs([run_id]),
        await ledger.read_dead_batches(run_id, DEAD_MAX),
        await ledger.count_gaps(run_id),
        await ledger.count_healed(run_id),
        await ledger.count_scores(run),
    )
    return respond(body)


@router.get("/projects/{slug}/trace", response_model=Trace, responses=problem_responses(404, 422, 503))
async def read_trace(state: Shared, slug: Slug, metric: TraceMetric, day: TraceDay) -> Response:
    """Where one number comes from: every version of a value, or with `metric=score` of a score.

    A value names the run that wrote it, with its code version, and the batch that brought it. A score names the run
    that published it, and what it was computed from: which metrics, of which days, as known at which moment.
    """
    project = (await state.directory()).project(slug)
    if metric == "score":
        scores = await trace_score(state.store, project.entity_id, day)
        return respond(score_trace_body(project.slug, day, scores))
    found = metric_named(metric)
    trace = await trace_value(state.store, found, project.entity_id, day)
    return respond(value_trace_body(project.slug, found.name, day, trace))
