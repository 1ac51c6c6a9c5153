"""Values on their way into the table: idempotent, revised with both times, and never a bad number."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_ID, ORIGIN_BY_NAME
from astrid.models import Gap, Observations
from astrid.pipeline.plan import LEFT_OUT, NO_NIGHT, PASSED_OVER
from astrid.store import Store, WriteCounts
from tests.store.conftest import NOW, Server
from tests.store.obvious_writes import WAYS, Obvious, Row, block, content, listed, revisions, rows, send, take

STARS, FORKS, POINTS = (METRIC_BY_NAME[n].metric_id for n in ("github_stars", "github_forks", "hn_points"))
GRAPHQL, ARCHIVE = (ORIGIN_BY_NAME[n].origin_id for n in ("github_graphql", "stars_daily"))
DAY = date(2026, 3, 31)
LATER = NOW + timedelta(hours=1)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send the writes of a test each way in turn."""
    send(monkeypatch, request.param)
    return str(request.param)


async def test_new_then_equal_then_changed(way: str, store: Store, connection: Any, ids: dict[str, int]) -> None:
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


async def test_the_origin_that_goes_first_stands(way: str, store: Store, connection: Any, ids: dict[str, int]) -> None:
    a, b = ids["a"], ids["b"]
    await store.write_observations(rows((a, STARS, DAY, 5.0, GRAPHQL), (b, STARS, DAY, 5.0, ARCHIVE)), 1, NOW)
    late = rows((a, STARS, DAY, 6.0, ARCHIVE), (b, STARS, DAY, 6.0, GRAPHQL))
    assert await store.write_observations(late, 2, LATER) == WriteCounts(outranked=1, changed=1)
    assert [(r[1], r[3], r[4]) for r in await content(connection)] == [(a, 5.0, GRAPHQL), (b, 6.0, GRAPHQL)]
    assert [(r[1], r[3], r[4]) for r in await revisions(connection)] == [(b, 5.0, ARCHIVE)]


async def test_a_value_that_comes_and_goes_within_one_moment_is_kept_once(
    way: str, store: Store, connection: Any, ids: dict[str, int]
) -> None:
    for n in range(6):
        counts = await store.write_observations(rows((ids["a"], STARS, DAY, float(n % 2), GRAPHQL)), n, NOW)
        assert counts == (WriteCounts(changed=1) if n else WriteCounts(new=1))
    assert [r[3:7] for r in await content(connection)] == [(1.0, GRAPHQL, NOW, 5)]
    assert [(r[3], r[5], r[7]) for r in await revisions(connection)] == [(0.0, NOW, NOW), (1.0, NOW, NOW)]


REFUSED: dict[str, Row] = {
    "not a number": (1, STARS, DAY, float("nan"), GRAPHQL),
    "infinite": (1, STARS, DAY, float("inf"), GRAPHQL),
    "minus infinite": (1, STARS, DAY, float("-inf"), GRAPHQL),
    "negative": (1, STARS, DAY, -5e-324, GRAPHQL),
    "too large": (1, STARS, DAY, float(np.nextafter(1e15, np.inf)), GRAPHQL),
    "unknown metric": (1, 999, DAY, 1.0, GRAPHQL),
    "negative metric": (1, -3, DAY, 1.0, GRAPHQL),
    "no metric": (1, 0, DAY, 1.0, GRAPHQL),
    "unknown origin": (1, STARS, DAY, 1.0, 999),
    "negative origin": (1, STARS, DAY, 1.0, -1),
    "no entity": (0, STARS, DAY, 1.0, GRAPHQL),
    "negative entity": (-7, STARS, DAY, 1.0, GRAPHQL),
    "too early": (1, STARS, date(1999, 12, 31), 1.0, GRAPHQL),
    "too late": (1, STARS, date(2200, 1, 1), 1.0, GRAPHQL),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_bad_row_is_refused_alone(kind: str, store: Store, connection: Any, ids: dict[str, int]) -> None:
    b, others = ids["b"], [(1, STARS, DAY - timedelta(days=n), 1.0, GRAPHQL) for n in range(1, 4)]
    found = rows(others[0], REFUSED[kind], (b, STARS, DAY, 1.0, GRAPHQL), REFUSED[kind], *others[1:])
    assert await store.write_observations(found, 1, NOW) == WriteCounts(new=4, refused=2)
    want = {(STARS, 1, other[2]) for other in others} | {(STARS, b, DAY)}
    assert {r[:3] for r in await content(connection)} == want
    assert await store.write_observations(rows(REFUSED[kind]), 2, LATER) == WriteCounts(refused=1)


async def test_a_bad_row_neither_replaces_nor_heals(
    way: str, store: Store, connection: Any, ids: dict[str, int]
) -> None:
    a, b = ids["a"], ids["b"]
    await store.write_observations(rows((a, STARS, DAY, 5.0, GRAPHQL)), 1, NOW)
    await store.write_gaps([Gap(b, STARS, DAY, "unavailable", True)], NOW)
    bad = rows(*((entity, STARS, DAY, value, GRAPHQL) for entity in (a, b) for value in (np.nan, np.inf, -1.0, 1e16)))
    assert await store.write_observations(bad, 2, LATER) == WriteCounts(refused=8)
    assert [r[3:] for r in await content(connection)] == [(5.0, GRAPHQL, NOW, 1)]
    assert await revisions(connection) == []
    assert [g.healed_at for g in await store.read_gaps("b")] == [None]


@pytest.mark.parametrize("value", [0.0, -0.0, 5e-324, 1e15, 16_777_217.0, 0.1])
async def test_the_last_acceptable_values_are_kept_exactly(
    way: str, value: float, store: Store, connection: Any, ids: dict[str, int]
) -> None:
    days = [date(2000, 1, 1), date(2007, 12, 31), date(2023, 12, 31), date(2024, 1, 1), date(2031, 12, 31),
            date(2032, 1, 1), date(2041, 1, 1), date(2199, 12, 31)]  # fmt: skip
    found = rows(*((ids["a"], STARS, day, value, GRAPHQL) for day in days))
    assert await store.write_observations(found, 1, NOW) == WriteCounts(new=len(days))
    stands = [(r[2], r[3], np.signbit(r[3])) for r in await content(connection)]
    assert stands == [(day, value, False) for day in days]


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


POOL_DAYS = [DAY - timedelta(days=d) for d in (0, 1, 30, 31, 89, 400, 820, 821)]
EDGES = [date(2000, 1, 1), date(2023, 12, 31), date(2024, 1, 1), date(2024, 2, 1), date(2032, 1, 1), date(2199, 12, 31)]


@pytest.mark.parametrize("days", [POOL_DAYS[:5], POOL_DAYS + EDGES], ids=["near", "far"])
@pytest.mark.parametrize("trial", range(2))
async def test_any_sequence_of_writes_equals_the_obvious_version(
    way: str, days: list[date], store: Store, connection: Any, seed: int, trial: int
) -> None:
    rng = np.random.default_rng([seed, trial, len(days)])
    entity_ids = list((await store.sync_watchlist([(f"p{i:02}", f"P{i}", "x") for i in range(40)], NOW)).values())
    pool = [*rng.choice(entity_ids, 6), 2_000_000_000]
    obvious = Obvious()
    for step in range(6):
        given: list[Row] = [
            (
                int(rng.choice(pool)),
                int(rng.choice([STARS, FORKS, POINTS, 999])),
                days[rng.integers(len(days))],
                float(rng.choice([0.0, -0.0, 1.0, 2.0, 3.0, np.nan, -1.0])),
                int(rng.choice(list(ORIGIN_BY_ID))),
            )
            for _ in range(rng.integers(1, 160))
        ]
        # Clocks of workers differ: a later write may carry an earlier moment.
        now = NOW + timedelta(minutes=step, seconds=int(rng.integers(-90, 90)))
        assert await store.write_observations(rows(*given), step, now) == obvious.write(given, step, now)
    assert await content(connection) == obvious.content()
    assert set(await revisions(connection)) == obvious.revisions


async def test_real_thresholds_equal_the_obvious_version(store: Store, connection: Any, seed: int) -> None:
    """Thousands of rows of several metrics, some of them few, some many, some of them scattered; shuffled."""
    rng = np.random.default_rng(seed)
    entity_ids = list((await store.sync_watchlist([(f"p{i:03}", f"P{i}", "x") for i in range(60)], NOW)).values())
    obvious = Obvious()
    for step in range(3):
        parts = [block(entity_ids, DAY, 40 + 20 * step, 1.0, STARS), block(entity_ids[:9], DAY, 30, 1.0, FORKS),
                 take(block(entity_ids, DAY, 1_500, 1.0, POINTS), rng.permutation(60 * 1_500)[:2_500])]  # fmt: skip
        found = Observations(*(np.concatenate([getattr(part, name) for part in parts])
                               for name in ("entity_id", "metric_id", "day", "value", "origin_id")))  # fmt: skip
        value = np.where(rng.random(len(found)) < 0.4, rng.integers(1, 4, len(found)), 1).astype(float)
        found = take(Observations(found.entity_id, found.metric_id, found.day, value, found.origin_id),
                     rng.permutation(len(found)))  # fmt: skip
        now = NOW + timedelta(minutes=step)
        assert await store.write_observations(found, step, now) == obvious.write(listed(found), step, now)
    assert await content(connection) == obvious.content()
    assert set(await revisions(connection)) == obvious.revisions


async def test_rows_lie_in_the_partition_of_their_day(
    way: str, store: Store, connection: Any, server: Server, ids: dict[str, int]
) -> None:
    if server.flavour.schema != "native":
        pytest.skip("TimescaleDB names its chunks as it likes")
    days = {date(2007, 1, 1): "default", date(2023, 12, 31): "2023", date(2024, 1, 1): "2024_01",
            date(2026, 3, 31): "2026_03", date(2026, 4, 1): "2026_04", date(2031, 12, 31): "2031_12",
            date(2032, 1, 1): "2032", date(2041, 1, 1): "default"}  # fmt: skip
    await store.write_observations(rows(*((ids["a"], STARS, day, 1.0, GRAPHQL) for day in days)), 1, NOW)
    found = await connection.fetch("SELECT day, tableoid::regclass::text AS name FROM observation ORDER BY day")
    assert [(r["day"], r["name"]) for r in found] == [(day, f"observation_{name}") for day, name in days.items()]


async def test_a_value_closes_its_gap(way: str, store: Store, ids: dict[str, int]) -> None:
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


@pytest.mark.timeout(20)  # a plan that scans takes minutes
async def test_a_hundred_thousand_rows(store: Store, connection: Any) -> None:
    slugs = [(f"p{i:04}", f"P{i}", "x") for i in range(1000)]
    entity_ids = list((await store.sync_watchlist(slugs, NOW)).values())
    whole = block(entity_ids, DAY, 100, 7.0)
    order = np.random.default_rng(1).permutation(len(whole))
    shuffled = take(whole, order)
    assert await store.write_observations(shuffled, 1, NOW) == WriteCounts(new=100_000)
    assert await store.write_observations(whole, 2, LATER) == WriteCounts(equal=100_000)
    value = whole.value.copy()
    value[::20] += 1
    changed = Observations(whole.entity_id, whole.metric_id, whole.day, value, whole.origin_id)
    assert await store.write_observations(changed, 3, LATER) == WriteCounts(equal=95_000, changed=5_000)
    assert await connection.fetchval("SELECT count(*) FROM observation_revision") == 5_000
    assert await connection.fetchval("SELECT sum(value) FROM observation") == 705_000


async def test_times_are_kept_in_utc(store: Store, connection: Any, ids: dict[str, int]) -> None:
    east = datetime.fromisoformat("2026-04-01T07:00:00+02:00")
    await store.write_observations(rows((ids["a"], STARS, DAY, 1.0, GRAPHQL)), 1, east)
    assert (await content(connection))[0][5] == east.astimezone(UTC)
