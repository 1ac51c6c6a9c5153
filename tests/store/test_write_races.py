"""Writers of the same keys at once: nothing is lost or doubled, and each key ends as if they had taken turns."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.models import Observations
from astrid.store import Store, WriteCounts, observations
from tests.store.conftest import NOW
from tests.store.obvious_writes import (
    WAYS,
    Key,
    Obvious,
    block,
    content,
    listed,
    rank,
    revisions,
    rows,
    send,
    take,
)

STARS = METRIC_BY_NAME["github_stars"].metric_id
GRAPHQL, ARCHIVE = (ORIGIN_BY_NAME[n].origin_id for n in ("github_graphql", "stars_daily"))
DAY = date(2026, 3, 31)
LATER = NOW + timedelta(hours=1)


def _some(rng: np.random.Generator, entity_ids: list[int], size: int, value: float) -> Observations:
    """Return ``size`` rows of a rectangle over several partitions, shuffled, of two origins, a few of them doubled."""
    whole = block(entity_ids, DAY, 75, value)
    found = take(whole, rng.choice(len(whole), size, replace=False))
    found = take(found, rng.permutation(np.arange(-10, size)))
    origin = np.where(rng.random(len(found)) < 0.3, ARCHIVE, GRAPHQL).astype(np.int16)
    value_of = found.value + (rng.random(len(found)) < 0.2)
    return Observations(found.entity_id, found.metric_id, found.day, value_of, origin)


@pytest.mark.parametrize("sizes", [(700, 700), (2_500, 2_500), (2_500, 700), (2_500, 1_500, 400)], ids=str)
@pytest.mark.parametrize("trial", range(2))
async def test_writers_at_once_end_as_if_they_had_taken_turns(
    store: Store, connection: Any, monkeypatch: pytest.MonkeyPatch, seed: int, trial: int, sizes: tuple[int, ...]
) -> None:
    """More than 1,000 rows go by COPY, here into partitions; fewer are decided by SQL. A third of the keys stand."""
    monkeypatch.setattr(observations, "_PER_PARTITION", 100)
    rng = np.random.default_rng([seed, trial, *sizes])
    entity_ids = list((await store.sync_watchlist([(f"p{i:02}", f"P{i}", "x") for i in range(40)], NOW)).values())
    before = _some(rng, entity_ids, 1_000, 0.0)
    await store.write_observations(before, 99, NOW)
    found = [_some(rng, entity_ids, size, float(10 * n)) for n, size in enumerate(sizes, 1)]
    moments = [LATER + timedelta(minutes=n) for n in range(len(sizes))]
    done = await asyncio.gather(*(store.write_observations(f, n, moments[n]) for n, f in enumerate(found)))

    stands = {row[:3]: row[3:] for row in await content(connection)}
    kept: dict[Key, set[Any]] = {}
    for row in await revisions(connection):
        kept.setdefault(row[:3], set()).add(row[3:])
    ways = [_turns(before, found, moments, order) for order in itertools.permutations(range(len(sizes)))]
    keys = {key for way in ways for key in way.values}
    assert set(stands) == keys
    for key in keys:
        want = [(way.values[key], {r[3:] for r in way.revisions if r[:3] == key}) for way in ways]
        assert (stands[key], kept.get(key, set())) in want, key
    assert sum(counts.new for counts in done) == len(keys) - len({(m, e, d) for e, m, d, _, _ in listed(before)})
    assert sum(counts.changed for counts in done) == sum(len(versions) for versions in kept.values())
    for counts, given in zip(done, found, strict=True):
        assert _total(counts) == len(given)


def _turns(before: Observations, found: list[Observations], moments: list[datetime], order: tuple[int, ...]) -> Obvious:
    obvious = Obvious()
    obvious.write(listed(before), 99, NOW)
    for n in order:
        obvious.write(listed(found[n]), n, moments[n])
    return obvious


def _total(counts: WriteCounts) -> int:
    return counts.new + counts.changed + counts.equal + counts.outranked + counts.refused + counts.doubled


async def test_many_writers_of_the_same_rows(store: Store, connection: Any, ids: dict[str, int]) -> None:
    found = [block(ids.values(), DAY, 500, value) for value in (1.0, 2.0, 3.0, 3.0)]
    done = await asyncio.gather(*(store.write_observations(f, n, NOW) for n, f in enumerate(found)))
    assert sum(c.new for c in done) == 2000
    assert all(c.new + c.changed + c.equal == 2000 for c in done)
    values = {r[3] for r in await content(connection)}
    assert len(values) == 1, "the last writer's value stands for all keys, or keys would be torn between writers"
    assert len(await revisions(connection)) == sum(c.changed for c in done)


# One other transaction, held open at the moment that matters. ``first`` stands before; ``other`` is what the other one
# does; then ours says 7.0 from the archive, an origin of lesser precedence.

INSERT = "INSERT INTO observation VALUES ($1, $2, $3, $4, $5, $6, 50)"
UPDATE = (
    "UPDATE observation SET value = $4, origin_id = $5, observed_at = $6, run_id = 50 "
    "WHERE metric_id = $1 AND entity_id = $2 AND day = $3"
)
DELETE = "DELETE FROM observation WHERE metric_id = $1 AND entity_id = $2 AND day = $3"
OURS = 7.0
CASES: dict[str, tuple[float | None, str, tuple[float, int], bool, WriteCounts, list[float]]] = {
    # first, the other's statement, its value and origin, whether it commits, what became of ours, what is kept
    "inserts another value": (None, INSERT, (6.0, ARCHIVE), True, WriteCounts(changed=1), [6.0]),
    "inserts the same value": (None, INSERT, (OURS, ARCHIVE), True, WriteCounts(equal=1), []),
    "inserts from a better origin": (None, INSERT, (6.0, GRAPHQL), True, WriteCounts(outranked=1), []),
    "inserts and takes it back": (None, INSERT, (6.0, ARCHIVE), False, WriteCounts(new=1), []),
    "changes the value": (1.0, UPDATE, (6.0, ARCHIVE), True, WriteCounts(changed=1), [6.0]),
    "changes to the same value": (1.0, UPDATE, (OURS, ARCHIVE), True, WriteCounts(equal=1), []),
    "changes to a better origin": (1.0, UPDATE, (6.0, GRAPHQL), True, WriteCounts(outranked=1), []),
    "changes and takes it back": (1.0, UPDATE, (6.0, ARCHIVE), False, WriteCounts(changed=1), [1.0]),
    "deletes": (1.0, DELETE, (), True, WriteCounts(new=1), []),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", WAYS)
async def test_another_writer_in_between(
    store: Store, connection: Any, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch, way: str, case: str
) -> None:
    send(monkeypatch, way)
    first, statement, said, commits, counts, kept = CASES[case]
    if case == "deletes" and way == "few":  # ON CONFLICT cannot say that the row it read is there no more
        counts, kept = WriteCounts(changed=1), [1.0]
    a, day = ids["a"], DAY - timedelta(days=40)
    key = (STARS, a, day)
    if first is not None:
        await store.write_observations(rows((a, STARS, day, first, ARCHIVE)), 1, NOW)
    other = connection.transaction()
    await other.start()
    await connection.execute(statement, *key, *said, *([NOW + timedelta(minutes=1)] if said else []))
    # Rows on both sides of the contested one, in other partitions too, show that its neighbours are not harmed.
    beside = [(ids[slug], STARS, DAY - timedelta(days=n), OURS, ARCHIVE) for slug in "ab" for n in (0, 39, 41, 80)]
    ours = asyncio.create_task(store.write_observations(rows(*beside, (a, STARS, day, OURS, ARCHIVE)), 2, LATER))
    await _until_blocked(connection)
    await (other.commit() if commits else other.rollback())
    assert await ours == counts + WriteCounts(new=len(beside))
    stands = {row[:3]: row[3:] for row in await content(connection)}
    assert len(stands) == len(beside) + 1
    value, origin = (6.0, GRAPHQL) if counts.outranked else (OURS, ARCHIVE)
    assert stands[key][:2] == (value, origin)
    assert stands[key][3] == (50 if counts.outranked or counts.equal else 2)
    assert [(row[:3], row[3], row[7], row[8]) for row in await revisions(connection)] == [
        (key, value, LATER, 2) for value in kept
    ]


async def _until_blocked(connection: Any) -> None:
    """Wait until some other session of this database waits for a lock."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    for _ in range(600):
        if await connection.fetchval(query):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits for the other transaction")


@pytest.mark.parametrize("way", WAYS)
async def test_a_row_that_changes_again_and_again(
    store: Store, connection: Any, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Two writers of hundreds of versions: each is kept once, and the versions follow each other without a hole."""
    send(monkeypatch, way)
    a = ids["a"]

    async def many(numbers: range) -> list[WriteCounts]:
        found = [rows(*((a, STARS, DAY - timedelta(days=d), float(n), GRAPHQL) for d in (0, 60))) for n in numbers]
        pairs = zip(numbers, found, strict=True)
        return [await store.write_observations(f, n, NOW + timedelta(seconds=n)) for n, f in pairs]

    done = [counts for part in await asyncio.gather(many(range(0, 60, 2)), many(range(1, 60, 2))) for counts in part]
    assert sum(counts.new for counts in done) == 2
    assert sum(counts.changed for counts in done) == 118
    versions: dict[date, list[tuple[Any, ...]]] = {}
    for row in [*(await revisions(connection)), *((*r, None, None) for r in await content(connection))]:
        versions.setdefault(row[2], []).append(row)
    for same in versions.values():
        assert Counter(row[3] for row in same) == Counter(float(n) for n in range(60))
        begins, ends = Counter(row[5] for row in same), Counter(row[7] for row in same)
        assert (begins - ends).total() == 1, "every version but the first begins where another ends"
        assert all(row[7] is None or row[5] <= row[7] for row in same)


def test_precedences_differ() -> None:
    """The cases above mean nothing if both origins are of one rank."""
    assert rank(GRAPHQL) < rank(ARCHIVE)


async def test_bulk_rows_that_meet_are_compared_again(
    store: Store, connection: Any, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand rows that meet one of another writer are not decided one by one for that."""
    decided: list[int] = []
    decide = observations._decide

    async def counted(bare: Any, columns: Any, run_id: int, now: datetime) -> Any:
        decided.append(len(columns[0]))
        return await decide(bare, columns, run_id, now)

    monkeypatch.setattr(observations, "_decide", counted)
    found = block(ids.values(), DAY, 2_500, OURS, origin=ARCHIVE)
    other = connection.transaction()
    await other.start()
    await connection.execute(INSERT, STARS, ids["c"], DAY - timedelta(days=7), 6.0, ARCHIVE, NOW)
    ours = asyncio.create_task(store.write_observations(found, 2, LATER))
    await _until_blocked(connection)
    await other.commit()
    assert await ours == WriteCounts(new=len(found) - 1, changed=1)
    assert decided == [1]
    assert {row[3] for row in await content(connection)} == {OURS}
