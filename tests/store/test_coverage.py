"""What there is, by metric and origin: the same answer from a continuous aggregate as from the values themselves."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import date, timedelta
from random import Random
from typing import Any

from astrid.models import Observations
from astrid.store import Store
from astrid.store.rows import CoverageRow
from tests.conftest import SEED
from tests.store.conftest import NOW, Server

FIRST, LAST = date(2024, 12, 1), date(2026, 2, 28)
Written = dict[tuple[int, int, date], int]


def expected(written: Written, first: date = FIRST, last: date = LAST) -> list[CoverageRow]:
    """Count by hand: the origin that stands per metric, entity and day."""
    days: defaultdict[tuple[int, int], list[date]] = defaultdict(list)
    for (metric, _, day), origin in written.items():
        if first <= day <= last:
            days[metric, origin].append(day)
    return [CoverageRow(*key, min(of), max(of), len(set(of)), len(of)) for key, of in sorted(days.items())]


async def write(store: Store, ids: dict[str, int], random: Random, written: Written, now: int) -> None:
    """Write some values of any day: late ones, equal ones, changed ones, ones of an origin that goes first."""
    rows = []
    for _ in range(300):
        key = (random.choice((1, 30)), ids[random.choice("abcd")], FIRST + timedelta(days=random.randrange(455)))
        origin = {1: (1, 10), 30: (5, 6)}[key[0]][random.random() < 0.5]
        if key in {(r[1], r[0], r[2]) for r in rows}:
            continue
        rows.append((key[1], key[0], key[2], float(random.randrange(3)), origin))
    before = {(r[1], r[0], r[2]): r for r in rows}
    await store.write_observations(Observations.from_rows(rows), now, NOW + timedelta(hours=now))
    for point in before:
        written.setdefault(point, before[point][4])


async def stands(connection: Any) -> Written:
    rows = await connection.fetch("SELECT metric_id, entity_id, day, origin_id FROM observation")
    return {(r["metric_id"], r["entity_id"], r["day"]): r["origin_id"] for r in rows}


async def test_any_writes_then_a_refresh_give_the_plain_answer(
    store: Store, ids: dict[str, int], connection: Any
) -> None:
    random, written = Random(SEED), Written()
    assert await store.read_coverage(FIRST, LAST) == []
    for now in range(1, 6):
        await write(store, ids, random, written, now)
        await store.refresh_coverage()
        standing = await stands(connection)
        assert set(standing) == set(written)
        assert await store.read_coverage(FIRST, LAST) == expected(standing)
        part = (date(2025, 3, 7), date(2025, 3, 20))
        assert await store.read_coverage(*part) == expected(standing, *part)


async def test_two_refreshes_at_once_and_none_without_need(store: Store, ids: dict[str, int], connection: Any) -> None:
    random, written = Random(SEED + 1), Written()
    await write(store, ids, random, written, 1)
    await asyncio.gather(*(store.refresh_coverage() for _ in range(3)))
    await store.refresh_coverage()
    assert await store.read_coverage(FIRST, LAST) == expected(await stands(connection))


async def test_only_the_community_licence_keeps_counts(
    store: Store, ids: dict[str, int], connection: Any, server: Server
) -> None:
    """Between refreshes a kept count is that of the last one; the database's own job brings it up to date."""
    community = await connection.fetchval("SELECT current_setting('timescaledb.license', true)") == "timescale"
    assert await connection.fetchval("SELECT to_regclass('observed') IS NOT NULL") == community
    random, written = Random(SEED + 2), Written()
    await write(store, ids, random, written, 1)
    await store.refresh_coverage()
    before = await stands(connection)
    await write(store, ids, random, written, 2)
    after = await stands(connection)
    assert expected(before) != expected(after)
    if community and not server.flavour.url:
        assert await store.read_coverage(FIRST, LAST) == expected(before)
        job = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'"
        await connection.execute(f"CALL run_job({await connection.fetchval(job)})")
    if not server.flavour.url:
        assert await store.read_coverage(FIRST, LAST) == expected(after)
