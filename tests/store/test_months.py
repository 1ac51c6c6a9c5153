"""Migration 0016: values that lay in partitions of years lie in months, and not one is lost."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest

from astrid.store import migrate, open_store
from astrid.store.migrate import load_migrations
from tests.store.conftest import NOW, Server

YEARS, MONTHS = range(2008, 2041), range(2024, 2032)
DAYS = [
    date(2000, 1, 1), date(2007, 12, 31), date(2008, 1, 1), date(2023, 12, 31), date(2024, 1, 1), date(2024, 2, 29),
    date(2024, 3, 1), date(2026, 3, 31), date(2031, 12, 31), date(2032, 1, 1), date(2040, 12, 31), date(2041, 1, 1),
]  # fmt: skip


async def test_years_become_months(empty_url: str, server: Server) -> None:
    if server.flavour.schema != "native":
        pytest.skip("TimescaleDB keeps chunks of 364 days")
    await migrate(empty_url, [m for m in load_migrations() if m.name < "0016"])
    connection = await asyncpg.connect(server.direct(empty_url.rsplit("/", 1)[1].split("?")[0]))
    try:
        insert = "INSERT INTO observation VALUES ($1, $2, $3, $4, 1, $5, 7)"
        keys = [(metric, entity, day) for metric in (1, 2) for entity in (9, 3, 5) for day in DAYS]
        rows = [(*key, float(n), NOW + timedelta(seconds=n)) for n, key in enumerate(keys)]
        await connection.executemany(insert, rows)
        before = await _content(connection)
        assert len(before) == len(rows)
        await migrate(empty_url)
        assert await _content(connection) == before
        assert await _partitions(connection) == _wanted()
        found = await connection.fetch("SELECT DISTINCT day, tableoid::regclass::text AS name FROM observation")
        assert {r["day"]: r["name"].removeprefix("observation_") for r in found} == {day: _name(day) for day in DAYS}
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(insert, *rows[7])
        async with open_store(empty_url) as store:
            assert len((await store.digest())["observation"].sha256) == 64
    finally:
        await connection.close()


def _name(day: date) -> str:
    if day.year in MONTHS:
        return f"{day:%Y_%m}"
    return str(day.year) if day.year in YEARS else "default"


def _wanted() -> list[tuple[str, str, str]]:
    """Return (name, from, to) of every partition with bounds: one month or year after the other, without a hole."""
    firsts = [date(year, month, 1) for year in YEARS for month in (range(1, 13) if year in MONTHS else (1,))]
    return [(f"observation_{_name(first)}", str(first), str(after))
            for first, after in zip(firsts, [*firsts[1:], date(2041, 1, 1)], strict=True)]  # fmt: skip


async def _partitions(connection: Any) -> list[tuple[str, str, str]]:
    rows = await connection.fetch(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'observation'::regclass"
    )
    bounded = [(r["relname"], *r["bound"].split("'")[1::2]) for r in rows if r["bound"] != "DEFAULT"]
    assert len(bounded) == len(rows) - 1
    return sorted(bounded, key=lambda part: part[1])


async def _content(connection: Any) -> list[tuple[Any, ...]]:
    return [tuple(r) for r in await connection.fetch("SELECT * FROM observation ORDER BY 1, 2, 3")]
