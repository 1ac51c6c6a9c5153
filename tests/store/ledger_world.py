"""Forty nights of eight projects with known troubles, for the tests of what is told of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from uuid import uuid4

import asyncpg
import numpy as np

from astrid.catalog import METRIC_BY_NAME
from astrid.models import Observations
from astrid.sources.source import days_between
from astrid.store import ScoreColumns, ScoreComponents, Store, migrate, open_store
from astrid.timeline import night_start
from tests.store.conftest import Server
from tests.store.nights_by_hand import NightsByHand, make_project

FIRST = date(2026, 2, 20)
LAST = date(2026, 3, 31)
NOW = night_start(LAST) + timedelta(hours=3)
MISSED = date(2026, 3, 10)
FAILED = date(2026, 3, 15)
SILENT = (date(2026, 3, 20), date(2026, 3, 22))
"""pypistats does not answer on these nights, and is asked again afterwards."""

NPM_SILENT = date(2026, 3, 27)
"""From here on npm does not answer any more."""

JOINED = date(2026, 3, 25)
LEFT = date(2026, 3, 28)
"""The first nights with p08, and without p07."""

CODE = "0.9+test"
STARS = METRIC_BY_NAME["github_stars"].metric_id


def open_filled(server: Server) -> Iterator[str]:
    """Make a database, run the nights in it, give its address, and drop it."""
    name = f"astrid_test_{uuid4().hex[:12]}"

    async def make(statement: str) -> None:
        connection = await asyncpg.connect(server.admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def build() -> None:
        await migrate(server.url(name))
        await fill(server.url(name))

    asyncio.run(make(f"CREATE DATABASE {name}"))
    asyncio.run(build())
    yield server.url(name)
    asyncio.run(make(f"DROP DATABASE {name} WITH (FORCE)"))


async def fill(url: str) -> dict[date, int]:
    """Run the nights and return their runs by day."""
    async with open_store(url, pool_size=2) as store:
        nights = NightsByHand(store, random.Random(20260401), troubles=0.0)
        everybody = tuple(make_project(n) for n in range(9))
        for day in days_between(FIRST, LAST):
            nights.projects = tuple(
                p for n, p in enumerate(everybody) if (n != 8 or day >= JOINED) and (n != 7 or day < LEFT)
            )
            broken = {"pypistats"} if SILENT[0] <= day <= SILENT[1] else {"npm"} if day >= NPM_SILENT else ()
            if day != MISSED:
                await nights.night(day, broken=broken, ends=day != FAILED)
        await score(store, nights.runs[LAST])
        return nights.runs


async def score(store: Store, run_id: int) -> None:
    """Publish the last day's scores, revise a value, and publish them once more by a second run."""
    ids = await store.sync_watchlist([("p00", "Project 0", "rag"), ("p01", "Project 1", "agents")], NOW)
    whom = np.array(sorted(ids.values()), np.int32)
    second = await store.start_run("nightly", LAST, CODE, "1.0.0", NOW - timedelta(hours=1))
    for run, at, points in ((run_id, NOW - timedelta(hours=2), 60.0), (second, NOW - timedelta(hours=1), 70.0)):
        nothing = np.full(2, np.nan)
        components = ScoreComponents(
            whom,
            np.full(2, STARS, np.int16),
            *[nothing] * 6,
            np.full(2, 0.2),
            np.full(2, points - 50),
            np.zeros(2, np.int32),
        )
        columns = ScoreColumns(
            whom, np.full(2, points), nothing, nothing, np.zeros(2, bool), np.full(2, points), *[nothing] * 3,
            np.zeros(2, np.int32), np.array([1, 2], np.int32), components,
        )  # fmt: skip
        await store.write_scores(run, LAST, "1.0.0", columns, at)
        if run == run_id:
            value = [(int(whom[0]), STARS, LAST - timedelta(days=3), 4_999.0, 1)]
            await store.write_observations(replace(Observations.from_rows(value)), second, at + timedelta(minutes=30))
    await store.finish_run(second, "complete", {}, "scored again", NOW - timedelta(minutes=30))
