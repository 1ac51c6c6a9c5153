"""The night as programs of their own, which meet in the database and in RabbitMQ: produce, work, score."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from astrid.settings import load_settings
from astrid.shell import COMPLETE, Day, Json, err, exit_code, out, print_json, run, to_date


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (produce, work, score):
        app.command()(command)


def produce(day: Day = None, json: Json = False) -> None:
    """Plan a night, publish its batches to RabbitMQ, and end; an unfinished run of that night is taken up."""
    from astrid.programs import produce as run_producer

    console = err if json else out
    produced = run(run_producer(load_settings(os.environ), to_date(day), console.print))
    if json:
        print_json(asdict(produced))
    elif produced.closed is not None:
        out.print(f"Night of {produced.day}: it lacks nothing; run {produced.run_id} is closed.")
    else:
        taken = " (taken up)" if produced.taken_up else ""
        out.print(f"Night of {produced.day}: run {produced.run_id}{taken}, {produced.published} batches published.")
    raise typer.Exit(COMPLETE if produced.closed is None else exit_code(produced.closed))


def work(
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Drain this source; again for more [default: all].")
    ] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when no run has an open batch of these sources.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", help="A lasting name of its own: started again, it takes up its leases at once."),
    ] = None,
    grace: Annotated[
        float, typer.Option("--grace", min=0, max=1500, help="Seconds for what runs, when it is told to stop.")
    ] = 25.0,
) -> None:
    """Drain RabbitMQ in one process, without Ray, until SIGTERM or, if so asked, until the work is done."""
    from astrid.programs import drain

    settings = load_settings(os.environ)
    run(drain(settings, source or [], out.print, until_empty=until_empty, name=name, grace_s=grace))


def score(day: Day = None, json: Json = False) -> None:
    """Wait for the end of a night's run, judge its upstreams, score the day, and close the run."""
    from astrid.programs import score as run_score
    from astrid.terminal import print_result, show_progress

    settings = load_settings(os.environ)
    console = err if json else out
    with show_progress(console, "score") as watch:
        result = run(run_score(settings, to_date(day), watch, console.print))
    if json:
        print_json(asdict(result) | {"state": result.state})
    else:
        print_result(out, result)
    raise typer.Exit(exit_code(result))
