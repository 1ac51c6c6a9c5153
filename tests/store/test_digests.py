"""Digests: equal for equal facts, whatever way they came; different for any fact that differs."""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from astrid.models import Gap, Observations
from astrid.store import Reconciliation, Store, open_store
from astrid.store.digests import TABLES, digest
from tests.store.conftest import NOW, Server
from tests.store.test_scores import columns

DAY = date(2026, 3, 31)
LATER = NOW + timedelta(hours=3)


async def fill(store: Store, ids: dict[str, int], run_id: int, order: int) -> None:
    """Write the same facts in one of two orders, at other times and under another run."""
    rows = [(ids[s], m, DAY - timedelta(days=n), float(n + m), 1) for s in "abcd" for m in (1, 2, 30) for n in range(9)]
    halves = [rows[:50], rows[50:]][::order]
    now = NOW + timedelta(minutes=run_id)
    for half in halves:
        await store.write_observations(Observations.from_rows(half[::order]), run_id, now)
    await store.write_observations(Observations.from_rows([(ids["b"], 1, DAY, 77.0, 1)]), run_id, LATER)
    await store.write_gaps([Gap(ids["c"], 20, DAY, "unavailable"), Gap(ids["a"], 20, DAY, "gone")], now)
    if order < 0:
        await store.write_gaps([Gap(ids["c"], 20, DAY, "unavailable")], LATER)
    await store.write_scores(run_id, DAY, "1.0", columns(ids), now)
    await store.write_scores(run_id, DAY, "1.0", columns(ids, b=81.0), LATER)
    await store.record_reconciliation([Reconciliation(ids["a"], date(2026, 3, 22), 1.0, 2.0)], NOW)


async def test_the_way_does_not_matter(store: Store, ids: dict[str, int], server: Server, connection: Any) -> None:
    await fill(store, ids, 1, 1)
    first = await store.digest()
    assert {t: d.rows for t, d in first.items()} == {
        "observation": 108,
        "observation_revision": 1,
        "gap": 2,
        "reconciliation": 1,
        "score": 3,
        "score_component": 6,
        "score_revision": 1,
    }
    await connection.execute(f"TRUNCATE {', '.join(TABLES)}, identity, expectation, entity")
    # Other ids for the same slugs, and others in between.
    await store.sync_watchlist([("zz", "Z", "x"), ("d", "D", "rag")], NOW)
    again = await store.sync_watchlist([(s, s.upper(), "agents" if s < "c" else "rag") for s in "dcba"], NOW)
    assert again != ids
    await fill(store, again, 2, -1)
    assert await store.digest() == first


async def test_the_slice_does_not_matter(store: Store, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store, ids, 1, 1)
    whole = await store.digest()
    monkeypatch.setattr("astrid.store.digests._SLICE", 1)
    assert await store.digest() == whole


CHANGES = {
    "observation": [
        "UPDATE observation SET value = value + 1 WHERE metric_id = 30 AND day = '2026-03-25'",
        "UPDATE observation SET origin_id = 2 WHERE metric_id = 30 AND day = '2026-03-25'",
        "DELETE FROM observation WHERE metric_id = 30 AND day = '2026-03-25'",
        "UPDATE observation SET day = day - 100 WHERE metric_id = 30 AND day = '2026-03-25'",
        "UPDATE observation SET metric_id = 21 WHERE metric_id = 30",
    ],
    "observation_revision": ["UPDATE observation_revision SET value = 4", "DELETE FROM observation_revision"],
    "gap": ["UPDATE gap SET healed_at = now() WHERE reason = 'gone'", "UPDATE gap SET reason = 'lost'"],
    "reconciliation": ["UPDATE reconciliation SET snapshot_delta = 3"],
    "score": ["UPDATE score SET hi = 99 WHERE rank = 1", "UPDATE score SET rank = NULL WHERE rank = 1"],
    "score_component": [
        "UPDATE score_component SET z = z + 1e-12",
        "UPDATE score_component SET metric_id = 2 WHERE metric_id = 1",
    ],
    "score_revision": ["UPDATE score_revision SET components = '[]'", "UPDATE score_revision SET lo = NULL"],
}
SAME = [
    "UPDATE observation SET observed_at = now(), run_id = 99",
    "UPDATE observation_revision SET superseded_at = now(), superseded_by_run = 5",
    "UPDATE gap SET attempts = 9, last_seen_at = now(), retry = NOT retry",
    "UPDATE score SET run_id = 9, published_at = now()",
    "UPDATE entity SET name = 'x', category = 'y'",
]


async def test_every_fact_matters_and_nothing_else(store: Store, ids: dict[str, int], connection: Any) -> None:
    await fill(store, ids, 1, 1)
    before = await store.digest()
    for table, statements in CHANGES.items():
        for statement in statements:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(statement)
            changed = await digest(connection)
            await transaction.rollback()
            assert {t for t in before if changed[t] != before[t]} == {table}, statement
    for statement in SAME:
        await connection.execute(statement)
        assert await store.digest() == before, statement
    await connection.execute("UPDATE entity SET slug = 'zz' WHERE slug = 'a'")
    renamed = await store.digest()
    assert {t for t in before if renamed[t] != before[t]} >= {"observation", "gap", "score", "score_component"}


@pytest.mark.long
async def test_a_million_and_a_half_rows_in_five_seconds(embedded_url: str) -> None:
    async with open_store(embedded_url) as store:
        ids = await store.sync_watchlist([(f"p{i:04}", "P", "x") for i in range(1000)], NOW)
        entity = np.repeat(np.array(list(ids.values()), np.int32), 500)
        day = np.tile(np.datetime64(DAY, "D") - np.arange(500), 1000)
        for metric in (1, 2, 30):
            count = len(entity)
            found = Observations(
                entity, np.full(count, metric, np.int16), day, np.arange(count) * 1.0, np.full(count, 1, np.int16)
            )
            await store.write_observations(found, 1, NOW)
        start = time.perf_counter()
        digests = await store.digest()
        assert digests["observation"].rows == 1_500_000
        assert time.perf_counter() - start < 5.0
