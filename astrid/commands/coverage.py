"""What there is: per metric and origin the first day, the last one, and how many values."""

from __future__ import annotations

from datetime import date
from typing import Final

import typer
from rich.table import Table

from astrid.catalog import METRIC_BY_ID, ORIGIN_BY_ID
from astrid.settings import Settings
from astrid.shell import Demo, Json, load_command_settings, out, print_json, run
from astrid.store.rows import CoverageRow

EVER: Final = (date(2000, 1, 1), date(2199, 12, 31))
"""The days that a value may be about."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(coverage)


def coverage(json: Json = False, demo: Demo = False) -> None:
    """Print per metric and origin from when to when there are values, on how many days, and how many."""
    rows = run(read(load_command_settings(demo)))
    named = [
        {
            "metric": METRIC_BY_ID[row.metric_id].name if row.metric_id in METRIC_BY_ID else str(row.metric_id),
            "origin": ORIGIN_BY_ID[row.origin_id].name if row.origin_id in ORIGIN_BY_ID else str(row.origin_id),
            "first_day": row.first_day,
            "last_day": row.last_day,
            "days": row.days,
            "values": row.observations,
        }
        for row in rows
    ]
    if json:
        print_json(named)
        return
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "origin", "first day", "last day"):
        table.add_column(name, no_wrap=True)
    for name in ("days", "values"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in named:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in line.values()))
    out.print(table)


async def read(settings: Settings) -> list[CoverageRow]:
    """Count, or where the database keeps counts bring them up to date and read them."""
    from astrid.runtime import database_url, with_database
    from astrid.store import open_store

    async with with_database(settings) as ready, open_store(database_url(ready), pool_size=1) as store:
        await store.refresh_coverage()
        return await store.read_coverage(*EVER)
