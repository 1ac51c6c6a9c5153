"""The history that no night asks for any more."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from astrid.settings import load_settings
from astrid.shell import Address, Json, err, exit_code, out, print_json, run, to_date


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(backfill)


def backfill(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day (UTC).")],
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Last day (UTC); default: the last one that is over."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Ask this source, or task (github.commits); again for more (default: all)."),
    ] = None,
    json: Json = False,
    address: Address = "local",
) -> None:
    """Read history: what earlier runs have read is not asked for again, but where it left gaps."""
    if address == "local":
        from astrid.runtime import prepare_private_ray

        prepare_private_ray(os.environ)
    from astrid.history import run_history
    from astrid.terminal import show_progress, spent_table

    settings = load_settings(os.environ)
    begin, end, console = first.date(), to_date(last), err if json else out
    with show_progress(console, "backfill") as watch:
        result = run(run_history(settings, begin, end, source or [], address, watch, console.print))
    if json:
        print_json(asdict(result) | {"state": result.state})
    else:
        batches = sum(result.batches.values())
        out.print(f"{begin} to {result.day}: run {result.run_id}, {result.state}; {batches} batches.")
        if result.costs:
            out.print(spent_table(result.costs))
    raise typer.Exit(exit_code(result))
