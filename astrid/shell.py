"""How a command runs: its consoles, its common options, its exit code.

Exit codes: 0 complete, 1 failed, 2 configuration, 3 finished with gaps, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import orjson
import typer

from astrid.errors import AstridError, ConfigError
from astrid.settings import Settings, load_settings
from astrid.terminal import open_console

if TYPE_CHECKING:
    from astrid.pipeline.runs import RunResult

T = TypeVar("T")

COMPLETE, FAILED, CONFIGURATION, GAPS, INTERRUPTED = 0, 1, 2, 3, 130

out: Final = open_console()
err: Final = open_console(stderr=True)

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
Demo = Annotated[bool, typer.Option("--demo", help="Use the demo's embedded database.")]


def load_command_settings(demo_database: bool = False, **overrides: Any) -> Settings:
    """Load the settings; ``demo_database`` points the state folder at the demo's."""
    from astrid.runtime import demo_settings

    settings = load_settings(os.environ, **overrides)
    return demo_settings(settings) if demo_database else settings


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


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; Ctrl-C ends it with one line."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        err.print("astrid: interrupted; what was committed stays, the next run takes up the rest")
        raise typer.Exit(INTERRUPTED) from None


def to_date(value: datetime | None) -> date | None:
    """Return the date of an option."""
    return None if value is None else value.date()


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def exit_code(result: RunResult) -> int:
    """Return 0 for a complete run, 3 for one with gaps."""
    return COMPLETE if result.state == "complete" else GAPS


def _say(exc: AstridError, code: int) -> int:
    err.print(f"astrid: {exc}", markup=False, highlight=False, soft_wrap=True)
    return code
