"""The ledger over real nights: everything expected is there or explained, and what it foretells is what nights ask."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, timedelta

import asyncpg
import numpy as np
import pytest

from astrid.catalog import METRICS
from astrid.models import Gap
from astrid.pipeline.audit import describe, read_nights, read_outlook, walk_cells
from astrid.pipeline.ledger import Why
from astrid.pipeline.tries import find_next_try
from astrid.sources.source import days_between
from astrid.store import Store, migrate, open_store
from astrid.store.migrate import load_migrations
from astrid.timeline import night_start
from tests.store.conftest import Server
from tests.store.nights_by_hand import NIGHTLY, NightsByHand

START = date(2026, 1, 5)


@pytest.fixture(scope="session")
def server(embedded_server: Server) -> Server:
    """Run on the embedded server alone: what the flavours differ in is the store's matter, tested there."""
    return embedded_server


@pytest.mark.parametrize(("seed", "silent"), [(1, "npm"), (2, "github"), (3, "hackernews"), (4, "pypistats")])
async def test_what_is_foretold_is_what_the_nights_ask(store: Store, seed: int, silent: str) -> None:
    """One source never answers until the day on which the future is told, the others now and then do not."""
    print(f"seed {seed}")
    draw = random.Random(seed)
    nights = NightsByHand(store, draw)
    last = START + timedelta(days=55)
    for day in days_between(START, last):
        if draw.random() < 0.85 or day == last:
            broken = [s for s in NIGHTLY if s == silent or draw.random() < 0.1]
            await nights.night(day, broken=broken, ends=draw.random() < 0.95)
    now = night_start(last) + timedelta(hours=8)
    ids = np.array(sorted((await nights.universe(last)).entity_ids), np.int32)
    known = await read_nights(store, START, last, now)
    cells = [c async for c in walk_cells(store, METRICS, ids, START, last, known)]
    keys = {
        (c.metric.metric_id, int(ids[e]), START + timedelta(days=int(t))): Why(int(c.why[t, e]))
        for c in cells
        for t, e in np.argwhere(c.why > 0)
    }
    lacking = await describe(store, keys)
    outlook = await read_outlook(store, METRICS, ids, now, known, NIGHTLY)
    foretold = {(x.metric.name, x.entity_id, x.day): find_next_try(x.gap, outlook) for x in lacking}
    # What comes after is drawn like what came before; what is foretold may not depend on it.
    horizon = last + timedelta(days=12)
    await nights.nights(last + timedelta(days=1), horizon)
    kinds = Counter(t.kind for t in foretold.values())
    print(kinds)
    assert kinds["night"] > 50
    assert kinds["never"] > 50
    assert kinds["backfill"] > 5 or silent == "pypistats", "one answer of which holds 180 days"
    others: Counter[str] = Counter()
    for (metric, entity_id, day), told in foretold.items():
        asked = nights.first_asked(metric, entity_id, day, last)
        if metric.startswith("hn_") and asked is not None and (told.night is None or asked < told.night):
            others[metric] += 1  # the window was read because somebody else lacks a day in it
        elif told.night is not None and told.kind == "night" and told.night <= horizon:
            assert asked == told.night, (metric, entity_id, day, told)
        else:
            assert asked is None, (metric, entity_id, day, told)
    assert sum(others.values()) < 10


async def test_what_earlier_versions_wrote_is_given_its_runs(empty_url: str) -> None:
    """A database of before: whom nights asked is taken from their batches, who wrote a gap from its moment."""
    whole = load_migrations()
    await migrate(empty_url, [m for m in whole if m.name < "0013"])
    connection = await asyncpg.connect(empty_url)
    night = night_start(START)
    await connection.execute(
        "INSERT INTO entity (slug, name, category, first_tracked) VALUES ('a', 'A', 'x', $1)", START
    )
    for n, kind in enumerate(("nightly", "nightly", "backfill")):
        began = night + timedelta(days=n)
        run_id = await connection.fetchval(
            "INSERT INTO run (kind, day, state, code_version, method_version, started_at, finished_at) "
            "VALUES ($1, $2, 'gaps', 'old', '1.0.0', $3, $4) RETURNING run_id",
            kind, START + timedelta(days=n), began, began + timedelta(hours=1),
        )  # fmt: skip
        for task, whom in (("counts", '[[1, "a", "R", ["o/a"], null], [9, "gone", "", [], null]]'), ("history", "[]")):
            await connection.execute(
                "INSERT INTO batch (run_id, batch_id, source, task, day, lane, body, state, updated_at) "
                "VALUES ($1, $2, 'github', $2, $3, 'nightly', ($4::jsonb), 'done', $5)",
                run_id, task, START, f'{{"entities": {whom}}}', began,
            )  # fmt: skip
    moments = [
        (START, night + timedelta(minutes=5), None),
        (START + timedelta(days=1), night + timedelta(days=1), night + timedelta(days=2)),
        (START + timedelta(days=2), night - timedelta(days=1), None),
    ]  # fmt: skip
    for day, seen, healed in moments:
        await connection.execute(
            "INSERT INTO gap (metric_id, entity_id, day, reason, retry, first_seen_at, last_seen_at, healed_at) "
            "VALUES (1, 1, $1, '503', true, $2, $2, $3)",
            day, seen, healed,
        )  # fmt: skip
    await migrate(empty_url)
    rows = await connection.fetch("SELECT entity_id, source, task, first_day, last_day FROM expectation")
    assert [tuple(row) for row in rows] == [(1, "github", "counts", START, None)]
    rows = await connection.fetch("SELECT run_id, healed_run FROM gap ORDER BY day")
    assert [tuple(row) for row in rows] == [(1, None), (2, 3), (None, None)], "of the last no run was under way"
    await connection.close()
    async with open_store(empty_url, pool_size=1) as store:
        (row,) = await store.ledger.read_expectations(START, START, as_of=night)
        assert row.entity_ids == (1,)
        assert await store.write_gaps([Gap(1, 1, START, "still", True)], night + timedelta(days=5), 3) == 1
        key = (1, 1, START)
        assert (await store.ledger.read_entries([key], as_of=night + timedelta(days=4)))[key].run_id == 1
        assert (await store.ledger.read_entries([key]))[key].run_id == 3
