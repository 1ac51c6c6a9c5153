"""The command line: every use of Astrid on one machine, and the small commands of an operator.

Exit codes: 0 complete, 1 failed, 2 configuration, 3 finished with gaps.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.logging import RichHandler

from astrid import __version__
from astrid.commands import backfill, coverage, dlq, evaluate, leadlag, pipeline, trace, transfer
from astrid.settings import load_settings
from astrid.shell import (
    Address,
    Day,
    Demo,
    Json,
    err,
    exit_code,
    guarded,
    load_command_settings,
    out,
    print_json,
    run,
    to_date,
)

app: Final = typer.Typer(
    name="astrid",
    help="Momentum of open-source AI tools from authoritative public counts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
watchlist_app: Final = typer.Typer(help="The tracked universe.", no_args_is_help=True)
app.add_typer(watchlist_app, name="watchlist")
pipeline.add_to(app)
coverage.add_to(app)
transfer.add_to(app)
trace.add_to(app)
backfill.add_to(app)
dlq.add_to(app)
evaluate.add_to(app)
leadlag.add_to(app)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Print the leaderboard and exit.")] = False,
    port: Annotated[int | None, typer.Option("--port", help="Port of page and API [default: 8000].")] = None,
    nights: Annotated[int, typer.Option("--nights", min=1, max=200, help="How many nights to replay.")] = 28,
) -> None:
    """Run the whole nightly on real series against simulated upstreams, then serve page and API."""
    from astrid.runtime import prepare_private_ray

    prepare_private_ray(os.environ)
    from astrid.demo import run_demo

    settings = load_settings(os.environ, http_port=port)
    run(run_demo(settings, out, "local", once=once, nights=nights))


@app.command()
def nightly(day: Day = None, json: Json = False, address: Address = "local") -> None:
    """Crawl and score one night against the live upstreams."""
    if address == "local":
        from astrid.runtime import prepare_private_ray

        prepare_private_ray(os.environ)
    from astrid.nightly import run_nightly
    from astrid.terminal import print_result, show_progress

    settings = load_settings(os.environ)
    console = err if json else out
    with show_progress(console, "nightly") as watch:
        result = run(run_nightly(settings, to_date(day), address, watch, console.print))
    if json:
        print_json(asdict(result) | {"state": result.state})
    else:
        print_result(out, result)
    raise typer.Exit(exit_code(result))


@app.command()
def plan(day: Day = None, json: Json = False) -> None:
    """Print what a night would cost before it runs: batches, requests, points and hours per source."""
    from astrid.nightly import plan_costs
    from astrid.terminal import cost_table

    settings = load_settings(os.environ)
    night, costs, skipped = run(plan_costs(settings, to_date(day)))
    if json:
        print_json({"day": night, "sources": [asdict(c) for c in costs], "skipped": skipped})
        return
    out.print(f"Night of {night}")
    out.print(cost_table(costs))
    for sentence in skipped:
        out.print(sentence)


@app.command()
def serve(
    port: Annotated[int | None, typer.Option("--port", help="Port [default: ASTRID_HTTP_PORT].")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    demo: Demo = False,
) -> None:
    """Serve page and API from the database."""
    from api.serve import require_free_port
    from api.serve import serve as serve_api
    from astrid.runtime import with_database

    settings = load_command_settings(demo, http_port=port)

    async def work() -> None:
        async with with_database(settings) as ready:
            require_free_port(host, ready.http_port)
            out.print(f"Page and API at http://{host}:{ready.http_port} until Ctrl-C.")
            await serve_api(ready, host, ready.http_port)

    run(work())


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema; safe to run twice, and by two at once."""
    from astrid.runtime import migrate_database

    done = run(migrate_database(load_settings(os.environ)))
    for name in done.applied:
        out.print(f"applied {name}", highlight=False)
    for name in done.pending:
        out.print(f"pending {name}: it needs TimescaleDB's community licence, and nothing else does", highlight=False)
    out.print("The database has the schema of this version.")


@app.command()
def digest(json: Json = False, demo: Demo = False) -> None:
    """Print per table the row count and a SHA-256 over its facts: equal digests, equal content."""
    from astrid.runtime import database_url, with_database
    from astrid.store import open_store

    settings = load_command_settings(demo)

    async def work() -> Mapping[str, Any]:
        async with with_database(settings) as ready, open_store(database_url(ready), pool_size=1) as store:
            return await store.digest()

    tables = run(work())
    if json:
        print_json({name: {"rows": t.rows, "sha256": t.sha256} for name, t in tables.items()})
        return
    for name, table in tables.items():
        out.print(f"{name:<22} {table.rows:>10}  {table.sha256}", highlight=False)


@app.command()
def simulate(
    scenario: Annotated[str, typer.Option("--scenario", help="Name of the scenario; calm has no faults.")] = "calm",
    port: Annotated[int, typer.Option("--port", help="Port on localhost; 0 takes a free one.")] = 8900,
    speed: Annotated[float, typer.Option("--speed", help="How much faster than real the upstreams' clock runs.")] = 1.0,
    report: Annotated[Path | None, typer.Option("--report", help="Write the accounts here as JSON at the end.")] = None,
    tokens: Annotated[str, typer.Option("--tokens", help="GitHub tokens that the simulator accepts.")] = "",
    night: Annotated[
        datetime | None, typer.Option("--night", formats=["%Y-%m-%d"], help="The night that the world stands at.")
    ] = None,
) -> None:
    """Serve the simulated upstreams alone, until Ctrl-C."""
    from astrid.simulators.scenarios import load_scenario
    from astrid.simulators.server import DEFAULT_TOKENS
    from astrid.simulators.server import serve as serve_simulators
    from astrid.simulators.world import load_world

    accepted = tuple(t for t in tokens.split(",") if t) or DEFAULT_TOKENS
    run(serve_simulators(load_world(), port, speed, load_scenario(scenario), accepted, report, night=to_date(night)))


@watchlist_app.command("check")
def watchlist_check(
    file: Annotated[
        Path | None, typer.Argument(help="A watchlist; default: ASTRID_WATCHLIST, else the shipped one.")
    ] = None,
) -> None:
    """Validate a watchlist and print how many projects carry which identifier."""
    from astrid.watchlist import counts, load_watchlist

    settings = load_settings(os.environ, watchlist=file)
    projects = load_watchlist(settings.watchlist)
    found = counts(projects)
    out.print(f"{found.projects} projects, no problem found.")
    out.print("by platform: " + ", ".join(f"{name} {n}" for name, n in found.platforms.items()))
    out.print("by category: " + ", ".join(f"{name} {n}" for name, n in found.categories.items()))


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


def main() -> None:
    """Run the command line; every error of ours is one line and an exit code."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err, show_path=False, show_time=False)],
    )
    for library in ("aiormq", "aio_pika", "asyncpg"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what they log we raise, with the remedy
    sys.exit(guarded(app))
