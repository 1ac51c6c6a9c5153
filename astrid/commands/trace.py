"""Where one number comes from: its versions, the runs and batches behind them, and what a score was computed from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from astrid.catalog import METRIC_BY_NAME
from astrid.errors import ConfigError
from astrid.shell import Demo, Json, load_command_settings, out, print_json, run

if TYPE_CHECKING:
    from astrid.store import Store

SCORE: Final = "score"


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(trace)


def trace(
    slug: Annotated[str, typer.Argument(help="The project's slug.")],
    metric: Annotated[str, typer.Argument(help="A metric of the catalogue, or score.")],
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="The day (UTC) of the value or score.")],
    json: Json = False,
    demo: Demo = False,
) -> None:
    """Print where one number comes from: every version of it, and the run that wrote each."""
    from astrid.runtime import database_url, with_database
    from astrid.store import open_store

    settings = load_command_settings(demo)

    async def work() -> dict[str, Any]:
        async with with_database(settings) as ready, open_store(database_url(ready), pool_size=1) as store:
            return await read_trace(store, slug, metric, day.date())

    body = run(work())
    if json:
        print_json(body)
        return
    for line in say_trace(body):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


async def read_trace(store: Store, slug: str, metric: str, day: date) -> dict[str, Any]:
    """Return the answer of the API to the same question.

    Raises
    ------
    ConfigError
        If no project has the slug, or the catalogue has no such metric.
    """
    from api.problems import suggest
    from api.runs import score_trace_body, value_trace_body
    from astrid.pipeline.trace import trace_score, trace_value

    project = await store.read_project(slug)
    if project is None:
        near = suggest(slug, [p.slug for p in await store.read_projects()])
        raise ConfigError(f"no tracked project has the slug {slug!r}: " + _remedy(near, "see the watchlist"))
    if metric == SCORE:
        return score_trace_body(slug, day, await trace_score(store, project.entity_id, day))
    found = METRIC_BY_NAME.get(metric)
    if found is None:
        near = suggest(metric, [*METRIC_BY_NAME, SCORE])
        raise ConfigError(f"there is no metric {metric!r}: " + _remedy(near, f"one of {', '.join(METRIC_BY_NAME)}"))
    return value_trace_body(slug, metric, day, await trace_value(store, found, project.entity_id, day))


def _remedy(near: str | None, otherwise: str) -> str:
    return f"did you mean {near!r}?" if near else otherwise


def say_trace(body: dict[str, Any]) -> Iterable[str]:
    """Yield the lines that say a trace."""
    yield f"{body['slug']}, {body['metric']} of {body['day']}"
    if not body["versions"] and not body["scores"]:
        yield "  There is no such value, and there was none." if not body["gap"] else "  There is no value."
    for version in body["versions"]:
        yield f"  {version['value']:,} from {version['origin']}, {_held(version, version['observed_at'])}"
        yield f"    {_say_run(version)}"
        for batch in version["batches"]:
            days = f"{batch['first_day']} to {batch['last_day']}"
            asked = f"{batch['entities']} projects, {days}"
            yield f"    batch {batch['batch_id']}: {batch['source']}.{batch['task']} for {asked}"
        if not version["batches"]:
            yield "    no batch of this run is known to have brought it"
    for score in body["scores"]:
        rank = f", rank {score['rank']}" if score["rank"] else ""
        method = f"method {score['method_version']}"
        yield f"  {score['score']:.2f}{rank}, {method}, {_held(score, score['published_at'])}"
        yield f"    {_say_run(score)}"
        noted = "" if score["known_at_noted"] else ", the moment of publication"
        yield (
            f"    computed from values of {score['first_day']} to {score['last_day']} "
            f"as of {_moment(score['known_at'])}{noted}"
        )
        for part in score["inputs"]:
            runs = ", ".join(f"{run} ({count})" for run, count in part["runs"].items())
            span = f", {part['first_day']} to {part['last_day']}" if part["values"] else ""
            yield f"    {part['metric']}: {part['values']:,} values{span}; runs {runs or 'none'}"
    if gap := body["gap"]:
        state = f"healed {_moment(gap['healed_at'])} by run {gap['healed_run']}" if gap["healed_at"] else "open"
        tried = f"reported {gap['attempts']} times, last {_moment(gap['last_seen_at'])} by run {gap['run_id']}"
        yield f"  gap, {state}: {gap['reason']}; {tried}"


def _say_run(version: dict[str, Any]) -> str:
    run_of = version["run"]
    if run_of is None:
        return f"run {version['run_id']}, which is not on record"
    began = _moment(run_of["started_at"])
    return f"run {run_of['run_id']}: {run_of['kind']} of {run_of['day']}, begun {began}, code {run_of['code_version']}"


def _held(version: dict[str, Any], since: datetime) -> str:
    until = version["superseded_at"]
    ended = f" until {_moment(until)}, when run {version['superseded_by_run']} replaced it" if until else ", stands"
    return f"since {_moment(since)}{ended}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
