"""The command line: every use of Astrid on one machine, and the small commands of an operator.

Exit codes: 0 complete, 1 failed, 2 configuration, 3 finished with gaps.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import orjson
import typer
from rich.logging import RichHandler

from astrid import __version__
from astrid.errors import AstridError, ConfigError
from astrid.settings import Settings, load_settings
from astrid.terminal import open_console

if TYPE_CHECKING:
    from astrid.pipeline.night import RunResult

T = TypeVar("T")

COMPLETE, FAILED, CONFIGURATION, GAPS, INTERRUPTED = 0, 1, 2, 3, 130

out: Final = open_console()
err: Final = open_console(stderr=True)

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

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Day = Annotated[
    datetime | None,
    typer.Option("--day", formats=["%Y-%m-%d"], help="The day (UTC); default: the last one that is over."),
]
Address = Annotated[
    str,
    typer.Option(
        "--address", envvar="RAY_ADDRESS", help="Ray: local (a private one), auto, or the address of a cluster."
    ),
]


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
    _run(run_demo(settings, out, "local", once=once, nights=nights))


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
        result = _run(run_nightly(settings, _date(day), address, watch, console.print))
    if json:
        _print_json(asdict(result) | {"state": result.state})
    else:
        print_result(out, result)
    raise typer.Exit(exit_code(result))


@app.command()
def plan(day: Day = None, json: Json = False) -> None:
    """Print what a night would cost before it runs: batches, requests, points and hours per source."""
    from astrid.nightly import plan_costs
    from astrid.terminal import cost_table

    settings = load_settings(os.environ)
    night, costs, skipped = _run(plan_costs(settings, _date(day)))
    if json:
        _print_json({"day": night, "sources": [asdict(c) for c in costs], "skipped": skipped})
        return
    out.print(f"Night of {night}")
    out.print(cost_table(costs))
    for sentence in skipped:
        out.print(sentence)


Demo = Annotated[bool, typer.Option("--demo", help="Use the demo's embedded database.")]


def _load_settings(demo_database: bool, **overrides: Any) -> Settings:
    """Load the settings; ``demo_database`` points the state folder at the demo's."""
    from astrid.runtime import demo_settings

    settings = load_settings(os.environ, **overrides)
    return demo_settings(settings) if demo_database else settings


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

    settings = _load_settings(demo, http_port=port)

    async def run() -> None:
        async with with_database(settings) as ready:
            require_free_port(host, ready.http_port)
            out.print(f"Page and API at http://{host}:{ready.http_port} until Ctrl-C.")
            await serve_api(ready, host, ready.http_port)

    _run(run())


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema; safe to run twice, and by two at once."""
    from astrid.runtime import with_database

    settings = load_settings(os.environ)

    async def run() -> None:
        async with with_database(settings):
            pass

    _run(run())
    out.print("The database has the schema of this version.")


@app.command()
def digest(json: Json = False, demo: Demo = False) -> None:
    """Print per table the row count and a SHA-256 over its facts: equal digests, equal content."""
    from astrid.runtime import database_url, with_database
    from astrid.store import open_store

    settings = _load_settings(demo)

    async def run() -> Mapping[str, Any]:
        async with with_database(settings) as ready, open_store(database_url(ready), pool_size=1) as store:
            return await store.digest()

    tables = _run(run())
    if json:
        _print_json({name: {"rows": t.rows, "sha256": t.sha256} for name, t in tables.items()})
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
    _run(serve_simulators(load_world(), port, speed, load_scenario(scenario), accepted, report, night=_date(night)))


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
    for library in ("aiormq", "aio_pika"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what they log we raise, with the remedy
    sys.exit(guarded(app))


def guarded(run: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; say an error of ours in one line on standard error."""
    try:
        return run() or COMPLETE
    except ConfigError as exc:
        return _say(exc, CONFIGURATION)
    except AstridError as exc:
        return _say(exc, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def exit_code(result: RunResult) -> int:
    """Return 0 for a complete run, 3 for one with gaps."""
    return COMPLETE if result.state == "complete" else GAPS


def _say(exc: AstridError, code: int) -> int:
    err.print(f"astrid: {exc}", markup=False, highlight=False, soft_wrap=True)
    return code


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        err.print("astrid: interrupted; what was committed stays, the next run takes up the rest")
        raise typer.Exit(INTERRUPTED) from None


def _date(value: datetime | None) -> date | None:
    return None if value is None else value.date()


def _print_json(value: object) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
