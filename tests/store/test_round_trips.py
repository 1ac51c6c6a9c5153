"""How often a commit waits for the database: a night makes thousands of them, over a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from astrid.models import Batch, DeadLetter, Done, Entity, Gap, Identity, Observations
from astrid.store import Store, WriteCounts, open_store
from benchmarks.turns import Line, open_line
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)
ENTITIES, METRICS = 100, 4


@pytest.fixture
async def far(url: str) -> AsyncIterator[tuple[Line, Store]]:
    """Return a store behind a line that counts round trips, with its connection open."""
    async with open_line(url) as (line, through), open_store(through) as store:
        await store.sync_watchlist([(f"p{i:03}", f"P{i}", "x") for i in range(ENTITIES)], NOW)
        yield line, store


def _batch(run_id: int, number: int) -> Batch:
    entities = tuple(Entity(i, f"p{i - 1:03}", f"k{i}") for i in range(1, ENTITIES + 1 - number))
    return Batch("github", "nodes", DAY, DAY, DAY, entities, run_id=run_id)


def _night(value: float, days: int = 1) -> Observations:
    count = ENTITIES * METRICS * days
    return Observations(
        np.tile(np.arange(1, ENTITIES + 1, dtype=np.int32), METRICS * days),
        np.tile(np.repeat(np.arange(1, METRICS + 1, dtype=np.int16), ENTITIES), days),
        np.repeat(np.datetime64(DAY, "D") - np.arange(days), ENTITIES * METRICS),
        np.full(count, value),
        np.ones(count, np.int16),
    )


async def test_a_nights_commit_waits_six_times(far: tuple[Line, Store]) -> None:
    """BEGIN, the moment, the batch's end (described, then run), all of its values, COMMIT."""
    line, store = far
    run_id = await store.start_run("nightly", DAY, "0.1.0", "1.0", NOW)
    plan = [_batch(run_id, n) for n in range(6)]
    await store.plan_batches(run_id, plan, NOW)
    rows = ENTITIES * METRICS
    known = tuple(Identity(i, "github", f"R{i}", f"a/{i}") for i in range(1, ENTITIES + 1))
    gap = Gap(1, 5, DAY, "unavailable", True)
    steps = [
        (Done(_night(1.0)), WriteCounts(new=rows), 6),
        (Done(_night(1.0)), WriteCounts(equal=rows), 6),
        (Done(_night(2.0)), WriteCounts(changed=rows), 6),
        (Done(replace(_night(2.0), gaps=(gap,))), WriteCounts(equal=rows), 8),
        (Done(replace(_night(2.0), identities=known)), WriteCounts(equal=rows), 10),
        (DeadLetter("poison"), WriteCounts(), 5),
    ]
    for batch, (outcome, counts, turns) in zip(plan, steps, strict=True):
        before = line.turns
        committed = await store.commit_batch(batch, outcome, NOW + timedelta(hours=1))
        assert committed.written == counts
        assert line.turns - before <= turns, outcome
    before = line.turns
    assert (await store.commit_batch(plan[0], steps[0][0], NOW)).already
    assert line.turns - before <= 5


async def test_more_rows_do_not_wait_more_often(far: tuple[Line, Store]) -> None:
    """Whatever their number, bulk rows take some round trips per metric, and none per row or partition."""
    line, store = far
    new, equal, changed = 4 + 5 * METRICS, 4 + 2 * METRICS, 4 + 14 * METRICS
    steps = [(20, 1.0, new), (20, 1.0, equal), (20, 2.0, changed), (200, 3.0, changed + 3 * METRICS), (200, 3.0, equal),
             (200, 4.0, changed)]  # fmt: skip
    for days, value, turns in steps:
        before = line.turns
        await store.write_observations(_night(value, days), 1, NOW)
        assert line.turns - before <= turns, (days, value)


async def test_a_matrix_waits_four_times(far: tuple[Line, Store]) -> None:
    line, store = far
    await store.write_observations(_night(1.0, 20), 1, NOW)
    before = line.turns
    await store.read_matrix(1, np.arange(1, ENTITIES + 1, dtype=np.int32), DAY - timedelta(days=19), DAY)
    assert line.turns - before <= 4
