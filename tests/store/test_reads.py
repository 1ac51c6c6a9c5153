"""Reads: arrays with gaps where nothing was observed, and plans that never scan a large table."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from astrid.models import Observations
from astrid.store import SeriesPoint, Store
from astrid.store.queries import load_queries
from tests.store.conftest import NOW
from tests.store.test_scores import columns

DAY = date(2026, 3, 31)


async def test_a_matrix(store: Store, ids: dict[str, int]) -> None:
    a, b, c = ids["a"], ids["b"], ids["c"]
    given = [
        (a, 1, date(2025, 12, 31), 1.0, 1),
        (a, 1, date(2026, 1, 2), 3.0, 1),
        (c, 1, date(2026, 1, 1), 0.0, 1),
        (c, 1, date(2026, 1, 3), 99.0, 1),
        (c, 2, date(2026, 1, 2), 7.0, 1),
    ]
    await store.write_observations(Observations.from_rows(given), 1, NOW)
    wanted = np.array([c, a, b], np.int32)
    matrix = await store.read_matrix(1, wanted, date(2025, 12, 31), date(2026, 1, 2))
    nan = np.nan
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, [[nan, 1, nan], [0, nan, nan], [nan, 3, nan]])
    missing = await store.read_missing(1, wanted, date(2025, 12, 31), date(2026, 1, 2))
    np.testing.assert_array_equal(missing, np.isnan(matrix))
    assert (await store.read_matrix(1, np.array([], np.int32), DAY, DAY)).shape == (1, 0)
    with pytest.raises(ValueError, match="twice"):
        await store.read_matrix(1, np.array([a, a], np.int32), DAY, DAY)
    with pytest.raises(ValueError, match="before the first day"):
        await store.read_matrix(1, wanted, DAY, DAY - timedelta(days=1))


async def test_a_series(store: Store, ids: dict[str, int]) -> None:
    given = [(ids["a"], 1, DAY - timedelta(days=n), float(n), 1) for n in (0, 1, 3)]
    await store.write_observations(Observations.from_rows(given), 1, NOW)
    points = await store.read_series("a", 1, DAY - timedelta(days=3), DAY - timedelta(days=1))
    assert points == [
        SeriesPoint(DAY - timedelta(days=3), 3.0, 1, NOW),
        SeriesPoint(DAY - timedelta(days=1), 1.0, 1, NOW),
    ]
    assert await store.read_series("nobody", 1, DAY, DAY) == []


@pytest.fixture
async def filled(store: Store, connection: Any) -> None:
    """Fill the store with 300 projects of 800 days, and scores of 60 of these, so that a plan has a choice."""
    slugs = [(f"p{i:03}", f"P{i}", f"c{i % 7}") for i in range(300)]
    ids = await store.sync_watchlist(slugs, NOW)
    entity = np.repeat(np.array(list(ids.values()), np.int32), 800)
    day = np.tile(np.datetime64(DAY, "D") - np.arange(800), 300)
    ones = np.ones(len(entity))
    both = [
        Observations(entity, np.full(len(entity), m, np.int16), day, ones, np.full(len(entity), 1, np.int16))
        for m in (1, 2)
    ]
    await store.write_observations(Observations.concatenate(both), 1, NOW)
    for n in range(60):
        await store.write_scores(1, DAY - timedelta(days=n), "1.0", columns(ids, list(ids)), NOW)  # type: ignore[arg-type]
    for table in ("observation", "score", "score_component", "entity"):
        await connection.execute(f"ANALYZE {table}")


PLANS = {
    "read_series": ("p123", 1, DAY - timedelta(days=365), DAY),
    "read_leaderboard": (None, None, 50, 0, "1.0"),
    "read_score_history": ("p123", 30, "1.0"),
    "latest_scored_day": ("1.0",),
}


async def test_hot_queries_never_scan_a_large_table(filled: None, connection: Any) -> None:
    queries = load_queries("reads")
    for name, arguments in PLANS.items():
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {queries[name]}", *arguments)
        plan = "\n".join(row[0] for row in rows)
        scans = [line for line in plan.splitlines() if "Seq Scan on" in line and "entity" not in line]
        assert not scans, f"{name} scans a whole table:\n{plan}"
        assert "Index" in plan, plan
    few = (1, list(range(1, 6)), DAY - timedelta(days=90), DAY)
    rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {queries['read_matrix']}", *few)
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
