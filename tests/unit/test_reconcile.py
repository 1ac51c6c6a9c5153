"""Weeks compared: snapshots' movement against the history's sum, on made-up matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest

from astrid.pipeline.reconcile import Reconciled, reconcile
from astrid.pipeline.universe import Universe
from astrid.store import Reconciliation

SUNDAY = date(2026, 3, 1)
NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
UNIVERSE = Universe((), np.array([4, 9], dtype=np.int32), {})


class Store:
    """Holds two matrices whose first row is ``first``, and what is recorded."""

    def __init__(self, first: date, stars: npt.NDArray[np.float32], gained: npt.NDArray[np.float32]) -> None:
        self.first = first
        self.matrices = {1: stars, 10: gained}
        self.recorded: list[Reconciliation] = []

    async def read_matrix(
        self, metric_id: int, entity_ids: npt.NDArray[np.int32], first: date, last: date
    ) -> npt.NDArray[np.float32]:
        start = (first - self.first).days
        rows = self.matrices[metric_id][start : start + (last - first).days + 1]
        assert len(rows) == (last - first).days + 1
        return rows

    async def record_reconciliation(self, weeks: Sequence[Reconciliation], now: datetime) -> None:
        assert now == NOW
        self.recorded += weeks


def make_store(days: int = 22) -> Store:
    gained = np.full((days, 2), (10, 100), dtype=np.float32)
    return Store(SUNDAY - timedelta(days=1), 1000 + np.cumsum(gained, axis=0, dtype=np.float32), gained)


async def compare(store: Store, first: date = SUNDAY, last: date = SUNDAY + timedelta(days=20)) -> Reconciled:
    return await reconcile(store, UNIVERSE, first, last, NOW)  # type: ignore[arg-type]


async def test_equal_weeks() -> None:
    store = make_store()
    result = await compare(store)
    assert result == Reconciled(6, 0.0, 0.0)
    assert store.recorded[:2] == [Reconciliation(4, SUNDAY, 70.0, 70.0), Reconciliation(9, SUNDAY, 700.0, 700.0)]
    assert "6 project-weeks, median difference 0.0%" in result.sentence()


@pytest.mark.parametrize(
    ("first", "last", "weeks"), [(0, 20, 3), (1, 20, 2), (-1, 19, 2), (0, 6, 1), (0, 5, 0), (1, 13, 1), (5, 3, 0)]
)
async def test_only_whole_weeks_inside(first: int, last: int, weeks: int) -> None:
    store = make_store()
    result = await compare(store, SUNDAY + timedelta(days=first), SUNDAY + timedelta(days=last))
    assert result.weeks == 2 * weeks
    assert {r.week.weekday() for r in store.recorded} <= {6}


async def test_a_gap_costs_the_weeks_that_it_touches() -> None:
    store = make_store()
    store.matrices[1][7, 0] = np.nan  # the close between the first and the second week
    store.matrices[10][20, 1] = np.nan  # one day of the third week
    store.matrices[1][3, 1] = np.nan  # inside a week: not needed
    await compare(store)
    assert {(r.entity_id, (r.week - SUNDAY).days) for r in store.recorded} == {(4, 14), (9, 0), (9, 7)}


async def test_differences_are_relative_to_the_larger_and_at_least_ten() -> None:
    store = make_store(8)
    store.matrices[1][7] = store.matrices[1][0] + (63, 693)
    result = await compare(store, SUNDAY, SUNDAY + timedelta(days=6))
    assert result.median == pytest.approx((0.1 + 0.01) / 2)
    store = make_store(8)
    store.matrices[10][:] = 0
    store.matrices[1][7] = store.matrices[1][0] + (-5, 5)
    assert (await compare(store, SUNDAY, SUNDAY + timedelta(days=6))).median == pytest.approx(0.5)


async def test_nothing_to_compare() -> None:
    store = make_store()
    store.matrices[1][:] = np.nan
    result = await compare(store)
    assert (result.weeks, store.recorded) == (0, [])
    assert math.isnan(result.median)
    assert result.sentence() == "Reconciliation: no project-week has both snapshots and history."
    empty = Universe((), np.array([], dtype=np.int32), {})
    assert (await reconcile(make_store(), empty, SUNDAY, SUNDAY + timedelta(days=20), NOW)).weeks == 0  # type: ignore[arg-type]
