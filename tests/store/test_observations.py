"""Values on their way into the table: idempotent, revised with both times, and never a bad number."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_ID, ORIGIN_BY_NAME
from astrid.models import Gap, Observations
from astrid.pipeline.plan import LEFT_OUT, NO_NIGHT, PASSED_OVER
from astrid.store import Store, WriteCounts
from tests.store.conftest import NOW

STARS, FORKS, POINTS = (METRIC_BY_NAME[n].metric_id for n in ("github_stars", "github_forks", "hn_points"))
GRAPHQL, ARCHIVE = (ORIGIN_BY_NAME[n].origin_id for n in ("github_graphql", "stars_daily"))
DAY = date(2026, 3, 31)
LATER = NOW + timedelta(hours=1)

Row = tuple[int, int, date, float, int]


def rows(*given: Row) -> Observations:
    return Observations.from_rows(given)


async def content(connection: Any) -> list[tuple[Any, ...]]:
    found = await connection.fetch(
        "SELECT metric_id, entity_id, day, value, origin_id, observed_at, run_id FROM observation ORDER BY 1, 2, 3"
    )
    return [tuple(r) for r in found]


async def revisions(connection: Any) -> list[tuple[Any, ...]]:
    found = await connection.fetch("SELECT * FROM observation_revision ORDER BY 1, 2, 3, superseded_at")
    return [tuple(r) for r in found]


async def test_new_then_equal_then_changed(store: Store, connection: Any, ids: dict[str, int]) -> None:
    a = ids["a"]
    first = rows((a, STARS, DAY, 100.0, GRAPHQL), (a, STARS, date(2026, 3, 30), 90.0, GRAPHQL))
    assert await store.write_observations(first, 1, NOW) == WriteCounts(new=2)
    assert await store.write_observations(first, 2, LATER) == WriteCounts(equal=2)
    assert await content(connection) == [
        (STARS, a, date(2026, 3, 30), 90.0, GRAPHQL, NOW, 1),
        (STARS, a, DAY, 100.0, GRAPHQL, NOW, 1),
    ]
    second = rows((a, STARS, DAY, 101.0, GRAPHQL), (a, STARS, date(2026, 3, 30), 90.0, GRAPHQL))
    assert await store.write_observations(second, 3, LATER) == WriteCounts(changed=1, equal=1)
    assert (await content(connection))[1] == (STARS, a, DAY, 101.0, GRAPHQL, LATER, 3)
    assert await revisions(connection) == [(STARS, a, DAY, 100.0, GRAPHQL, NOW, 1, LATER, 3)]


async def test_the_origin_that_goes_first_stands(store: Store, connection: Any, ids: dict[str, int]) -> None:
    a, b = ids["a"], ids["b"]
    await store.write_observations(rows((a, STARS, DAY, 5.0, GRAPHQL), (b, STARS, DAY, 5.0, ARCHIVE)), 1, NOW)
    late = rows((a, STARS, DAY, 6.0, ARCHIVE), (b, STARS, DAY, 6.0, GRAPHQL))
    assert await store.write_observations(late, 2, LATER) == WriteCounts(outranked=1, changed=1)
    assert [(r[1], r[3], r[4]) for r in await content(connection)] == [(a, 5.0, GRAPHQL), (b, 6.0, GRAPHQL)]
    assert [(r[1], r[3], r[4]) for r in await revisions(connection)] == [(b, 5.0, ARCHIVE)]


BAD: list[Row] = [
    (1, STARS, DAY, float("nan"), GRAPHQL),
    (1, STARS, DAY, float("inf"), GRAPHQL),
    (1, STARS, DAY, float("-inf"), GRAPHQL),
    (1, STARS, DAY, -1.0, GRAPHQL),
    (1, STARS, DAY, 1.1e15, GRAPHQL),
    (1, 999, DAY, 1.0, GRAPHQL),
    (1, -3, DAY, 1.0, GRAPHQL),
    (1, STARS, DAY, 1.0, 999),
    (1, STARS, DAY, 1.0, -1),
    (0, STARS, DAY, 1.0, GRAPHQL),
    (-7, STARS, DAY, 1.0, GRAPHQL),
    (1, STARS, date(1999, 12, 31), 1.0, GRAPHQL),
]


async def test_a_bad_row_is_refused_alone(store: Store, connection: Any, ids: dict[str, int]) -> None:
    for bad in BAD:
        found = rows(bad, (ids["b"], STARS, DAY, 1.0, GRAPHQL))
        assert (await store.write_observations(found, 1, NOW)).refused == 1, bad
        assert [r[1] for r in await content(connection)] == [ids["b"]], bad


async def test_a_day_that_is_no_day_is_refused(store: Store, connection: Any, ids: dict[str, int]) -> None:
    found = rows((ids["a"], STARS, DAY, 1.0, GRAPHQL))
    lost = Observations(found.entity_id, found.metric_id, np.array(["NaT"], "M8[D]"), found.value, found.origin_id)
    assert await store.write_observations(lost, 1, NOW) == WriteCounts(refused=1)
    assert await content(connection) == []


async def test_nothing_is_nothing(store: Store) -> None:
    assert await store.write_observations(rows(), 1, NOW) == WriteCounts()


async def test_of_doubled_keys_the_better_origin_then_the_last_stands(
    store: Store, connection: Any, ids: dict[str, int]
) -> None:
    a, b = ids["a"], ids["b"]
    found = rows(
        (b, STARS, DAY, 1.0, GRAPHQL),
        (b, STARS, DAY, 2.0, GRAPHQL),
        (a, STARS, DAY, 3.0, GRAPHQL),
        (a, STARS, DAY, 4.0, ARCHIVE),
    )
    assert await store.write_observations(found, 1, NOW) == WriteCounts(new=2, doubled=2)
    assert [(r[1], r[3]) for r in await content(connection)] == [(a, 3.0), (b, 2.0)]


class Twin:
    """The obvious version: a dictionary, row by row."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, int, date], tuple[float, int, datetime, int]] = {}
        self.revisions: set[tuple[Any, ...]] = set()

    def write(self, given: list[Row], run_id: int, now: datetime) -> WriteCounts:
        best: dict[tuple[int, int, date], tuple[float, int]] = {}
        counts = dict.fromkeys(("new", "changed", "equal", "outranked", "refused", "doubled"), 0)
        for entity, metric, day, value, origin in given:
            if not 0 <= value <= 1e15:
                counts["refused"] += 1
                continue
            key = (metric, entity, day)
            counts["doubled"] += key in best
            if key not in best or self.rank(origin) <= self.rank(best[key][1]):
                best[key] = (value, origin)
        for key, (value, origin) in best.items():
            old = self.values.get(key)
            if old is not None and old[0] == value:
                counts["equal"] += 1
                continue
            if old is not None and self.rank(origin) > self.rank(old[1]):
                counts["outranked"] += 1
                continue
            if old is not None:
                self.revisions.add((*key, *old, now, run_id))
            counts["new" if old is None else "changed"] += 1
            self.values[key] = (value, origin, now, run_id)
        return WriteCounts(**counts)

    @staticmethod
    def rank(origin_id: int) -> int:
        return ORIGIN_BY_ID[origin_id].precedence


@pytest.mark.parametrize("spread_days", [8, 3000], ids=["dense", "sparse"])
@pytest.mark.parametrize("trial", range(3))
async def test_any_sequence_of_writes_equals_the_obvious_version(
    store: Store, connection: Any, seed: int, trial: int, spread_days: int
) -> None:
    rng = np.random.default_rng([seed, trial, spread_days])
    slugs = [f"p{i:02}" for i in range(40)]
    entity_ids = list((await store.sync_watchlist([(s, s, "x") for s in slugs], NOW)).values())
    # A sparse write spans far more cells than it has rows, so it takes the way through SQL.
    pool = [entity_ids[0], *rng.choice(entity_ids, 5)] if spread_days == 8 else entity_ids
    days = [DAY - timedelta(days=int(d)) for d in rng.integers(0, spread_days, 12)]
    twin = Twin()
    for step in range(6):
        given: list[Row] = [
            (
                int(rng.choice(pool)),
                int(rng.choice([STARS, FORKS, POINTS])),
                days[rng.integers(len(days))],
                float(rng.choice([0.0, -0.0, 1.0, 2.0, 3.0, np.nan, -1.0])),
                int(rng.choice(list(ORIGIN_BY_ID))),
            )
            for _ in range(rng.integers(1, 120))
        ]
        now = NOW + timedelta(minutes=step)
        assert await store.write_observations(rows(*given), step, now) == twin.write(given, step, now)
    assert await content(connection) == [(*k, *v) for k, v in sorted(twin.values.items())]
    assert set(await revisions(connection)) == twin.revisions


async def test_a_value_closes_its_gap(store: Store, ids: dict[str, int]) -> None:
    a, b = ids["a"], ids["b"]
    gaps = [Gap(a, STARS, DAY, "unavailable", True), Gap(b, STARS, DAY, "gone"), Gap(a, FORKS, DAY, "unavailable")]
    assert await store.write_gaps(gaps, NOW) == 3
    assert await store.write_gaps(gaps[:1], LATER) == 1
    counts = await store.write_observations(rows((a, STARS, DAY, 1.0, GRAPHQL)), 1, LATER)
    assert counts == WriteCounts(new=1, healed=1)
    first, second = await store.read_gaps("a")
    assert (first.metric_id, first.attempts, first.retry, first.reason) == (STARS, 2, True, "unavailable")
    assert (first.first_seen_at, first.last_seen_at, first.healed_at) == (NOW, LATER, LATER)
    assert (second.metric_id, second.healed_at) == (FORKS, None)
    assert await store.read_open_gaps(DAY, DAY) == [gaps[1], gaps[2]]
    assert await store.read_open_gaps(DAY + timedelta(days=1), DAY + timedelta(days=9)) == []


async def test_what_has_a_value_is_no_gap(store: Store, ids: dict[str, int]) -> None:
    await store.write_observations(rows((ids["a"], STARS, DAY, 0.0, GRAPHQL)), 1, NOW)
    assert await store.write_gaps([Gap(ids["a"], STARS, DAY, "late")], LATER) == 0
    assert await store.read_gaps("a") == []


async def test_who_was_not_asked_takes_no_tries_place(store: Store, ids: dict[str, int]) -> None:
    """By its tries a plan knows who waits: a dead project whose tries were forgotten would go first for ever."""
    a, b = ids["a"], ids["b"]
    tried = [Gap(a, STARS, DAY, "502", True), Gap(b, STARS, DAY, "gone", False)]
    await store.write_gaps(tried, NOW)
    for n, reason in enumerate((LEFT_OUT, PASSED_OVER, NO_NIGHT)):
        unasked = [Gap(e, STARS, DAY, reason, True) for e in (a, b)]
        assert await store.write_gaps(unasked, LATER + timedelta(hours=n)) == 2, "they stand open all the same"
        assert await store.read_open_gaps(DAY, DAY) == tried
        for slug in "ab":
            (row,) = await store.read_gaps(slug)
            assert (row.attempts, row.last_seen_at) == (1, NOW)
    await store.write_gaps([Gap(a, STARS, DAY, "503", True)], LATER)
    (row,) = await store.read_gaps("a")
    assert (row.reason, row.attempts, row.last_seen_at) == ("503", 2, LATER)


async def test_a_try_takes_the_place_of_not_having_been_asked(store: Store, ids: dict[str, int]) -> None:
    for n in range(3):
        await store.write_gaps([Gap(ids["a"], STARS, DAY, LEFT_OUT, True)], NOW + timedelta(hours=n))
    (row,) = await store.read_gaps("a")
    assert (row.reason, row.attempts, row.retry) == (LEFT_OUT, 0, True), "nobody tried"
    assert (row.first_seen_at, row.last_seen_at) == (NOW, NOW + timedelta(hours=2))
    await store.write_gaps([Gap(ids["a"], STARS, DAY, "gone", False)], NOW + timedelta(hours=3))
    (row,) = await store.read_gaps("a")
    assert (row.reason, row.attempts, row.retry) == ("gone", 1, False)


def _block(entity_ids: list[int], days: int, value: float) -> Observations:
    first = np.datetime64(DAY, "D") - np.timedelta64(days - 1, "D")
    count = len(entity_ids) * days
    return Observations(
        np.repeat(np.array(entity_ids, np.int32), days),
        np.full(count, STARS, np.int16),
        np.tile(first + np.arange(days), len(entity_ids)),
        np.full(count, value),
        np.full(count, GRAPHQL, np.int16),
    )


async def test_two_writers_of_the_same_keys(store: Store, connection: Any, ids: dict[str, int]) -> None:
    found = [_block(list(ids.values()), 500, value) for value in (1.0, 2.0, 3.0, 3.0)]
    done = await asyncio.gather(*(store.write_observations(f, n, NOW) for n, f in enumerate(found)))
    assert sum(c.new for c in done) == 2000
    assert all(c.new + c.changed + c.equal == 2000 for c in done)
    values = {r[3] for r in await content(connection)}
    assert len(values) == 1, "the last writer's value stands for all keys, or keys would be torn between writers"
    assert len(await revisions(connection)) == sum(c.changed for c in done)


@pytest.mark.parametrize("trial", range(3))
async def test_racing_writers_lose_nothing(
    store: Store, connection: Any, ids: dict[str, int], seed: int, trial: int
) -> None:
    rng = np.random.default_rng([seed, trial])
    blocks = []
    for value in range(1, 7):
        whole = _block(list(ids.values()), 60, float(value))
        which = rng.permutation(len(whole))[: rng.integers(40, len(whole))]
        blocks.append(
            Observations(
                whole.entity_id[which],
                whole.metric_id[which],
                whole.day[which],
                whole.value[which],
                whole.origin_id[which],
            )
        )
    moments = [NOW + timedelta(seconds=n) for n in range(6)]
    pairs = enumerate(zip(blocks, moments, strict=True))
    done = await asyncio.gather(*(store.write_observations(b, n, m) for n, (b, m) in pairs))
    seen: dict[tuple[int, Any], set[float]] = {}
    for block in blocks:
        for entity, day, value in zip(block.entity_id.tolist(), block.day.tolist(), block.value.tolist(), strict=True):
            seen.setdefault((entity, day), set()).add(value)
    kept: dict[tuple[int, Any], list[float]] = {}
    for row in [*(await content(connection)), *(await revisions(connection))]:
        kept.setdefault((row[1], row[2]), []).append(row[3])
    assert {key: sorted(values) for key, values in kept.items()} == {k: sorted(v) for k, v in seen.items()}
    assert sum(c.new for c in done) == len(seen)


@pytest.mark.timeout(20)  # a plan that scans takes minutes
async def test_a_hundred_thousand_rows(store: Store, connection: Any) -> None:
    slugs = [(f"p{i:04}", f"P{i}", "x") for i in range(1000)]
    entity_ids = list((await store.sync_watchlist(slugs, NOW)).values())
    block = _block(entity_ids, 100, 7.0)
    order = np.random.default_rng(1).permutation(len(block))
    shuffled = Observations(
        block.entity_id[order], block.metric_id[order], block.day[order], block.value[order], block.origin_id[order]
    )
    assert await store.write_observations(shuffled, 1, NOW) == WriteCounts(new=100_000)
    assert await store.write_observations(block, 2, LATER) == WriteCounts(equal=100_000)
    value = block.value.copy()
    value[::20] += 1
    changed = Observations(block.entity_id, block.metric_id, block.day, value, block.origin_id)
    assert await store.write_observations(changed, 3, LATER) == WriteCounts(equal=95_000, changed=5_000)
    assert await connection.fetchval("SELECT count(*) FROM observation_revision") == 5_000
    assert await connection.fetchval("SELECT sum(value) FROM observation") == 705_000


async def test_times_are_kept_in_utc(store: Store, connection: Any, ids: dict[str, int]) -> None:
    east = datetime.fromisoformat("2026-04-01T07:00:00+02:00")
    await store.write_observations(rows((ids["a"], STARS, DAY, 1.0, GRAPHQL)), 1, east)
    assert (await content(connection))[0][5] == east.astimezone(UTC)
