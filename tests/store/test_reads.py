"""Reads: arrays with gaps where nothing was observed, and series without them."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from astrid.models import Observations
from astrid.store import SeriesPoint, Store
from tests.store.conftest import NOW

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
