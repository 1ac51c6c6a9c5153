"""The end of a batch: one transaction, and a second delivery changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from astrid.errors import StoreError, StoreRefused
from astrid.models import Batch, DeadLetter, Done, Entity, Gap, Identity, Observations, Split
from astrid.store import CommitCounts, Progress, Store, WriteCounts
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)
LATER = NOW + timedelta(minutes=10)


async def plan(store: Store, ids: dict[str, int], slugs: Sequence[str] = "ab") -> Batch:
    run_id = await store.start_run("nightly", DAY, "0.1.0", "1.0", NOW)
    entities = tuple(Entity(ids[s], s, f"id-{s}", (f"{s}/old",)) for s in slugs)
    batch = Batch("github", "nodes", DAY, DAY, DAY, entities, run_id=run_id, requests=2, points=3)
    assert await store.plan_batches(run_id, [batch], NOW) == 1
    return batch


def found(ids: dict[str, int], stars: float = 10.0) -> Done:
    observations = Observations.from_rows(
        [(ids["a"], 1, DAY, stars, 1)],
        [Gap(ids["b"], 1, DAY, "EntityGone"), Gap(ids["a"], 1, DAY, "contradicts the value beside it")],
        [Identity(ids["a"], "github", "R_1", "a/a")],
    )
    return Done(observations, requests=4)


async def test_done_writes_everything(store: Store, ids: dict[str, int]) -> None:
    batch = await plan(store, ids)
    assert await store.open_batches(batch.run_id) == [batch]
    counts = await store.commit_batch(batch, found(ids), LATER, [Gap(ids["b"], 2, DAY, "EntityGone")])
    assert counts == CommitCounts(WriteCounts(new=1), gaps=2)
    assert [(g.metric_id, g.reason) for g in await store.read_gaps("b")] == [(1, "EntityGone"), (2, "EntityGone")]
    assert await store.read_gaps("a") == []
    assert await store.read_identities("github") == {ids["a"]: Identity(ids["a"], "github", "R_1", "a/a")}
    assert await store.open_batches(batch.run_id) == []
    assert await store.progress(batch.run_id) == [Progress("github", "done", 1, 4)]


async def test_a_second_delivery_changes_nothing(store: Store, connection: Any, ids: dict[str, int]) -> None:
    batch = await plan(store, ids)
    await store.commit_batch(batch, found(ids), LATER)
    before = await store.digest()
    # The second crawl read a newer snapshot; the day's value was committed, and stays.
    again = await store.commit_batch(batch, found(ids, 11.0), LATER + timedelta(minutes=5))
    assert again == CommitCounts(already=True, state="done")
    assert await store.commit_batch(batch, DeadLetter("late"), LATER) == CommitCounts(already=True, state="done")
    assert await store.digest() == before
    assert await connection.fetchval("SELECT attempts FROM batch") == 3


async def test_deliveries_at_once_write_once(store: Store, connection: Any, ids: dict[str, int]) -> None:
    batch = await plan(store, ids)
    done = await asyncio.gather(*(store.commit_batch(batch, found(ids, float(n)), LATER) for n in range(4)))
    assert sorted(c.already for c in done) == [False, True, True, True]
    assert await connection.fetchval("SELECT count(*) FROM observation_revision") == 0


async def test_split_plans_the_parts(store: Store, ids: dict[str, int]) -> None:
    batch = await plan(store, ids)
    parts = tuple(replace(batch, entities=(e,), batch_id="", requests=1, points=1) for e in batch.entities)
    assert await store.commit_batch(batch, Split(parts, "TooLarge"), LATER) == CommitCounts(parts=2)
    assert (await store.commit_batch(batch, Split(parts, "TooLarge"), LATER)).already
    assert sorted(b.batch_id for b in await store.open_batches(batch.run_id)) == sorted(p.batch_id for p in parts)
    assert await store.progress(batch.run_id) == [
        Progress("github", "planned", 2, 2),
        Progress("github", "split", 1, 0),
    ]
    run = (await store.read_runs(1))[0]
    assert (run.planned_requests, run.planned_points) == (4, 5)


async def test_a_dead_batch_leaves_gaps_and_may_come_back(store: Store, connection: Any, ids: dict[str, int]) -> None:
    batch = await plan(store, ids)
    gap = Gap(ids["a"], 1, DAY, "poison")
    assert await store.commit_batch(batch, DeadLetter("poison"), NOW, [gap]) == CommitCounts(gaps=1)
    assert (await store.commit_batch(batch, DeadLetter("poison"), NOW, [gap])).already
    assert await connection.fetchval("SELECT reason FROM batch WHERE state = 'dead'") == "poison"
    assert (await store.commit_batch(batch, found(ids), LATER)).written == WriteCounts(new=1, healed=1)
    assert await store.progress(batch.run_id) == [Progress("github", "done", 1, 4)]


async def test_a_batch_nobody_planned_is_entered(store: Store, ids: dict[str, int]) -> None:
    run_id = await store.start_run("nightly", DAY, "0.1.0", "1.0", NOW)
    batch = Batch("pypi", "recent", DAY, DAY, DAY, (Entity(ids["a"], "a", "a"),), run_id=run_id)
    await store.commit_batch(batch, found(ids), NOW)
    assert await store.progress(run_id) == [Progress("pypi", "done", 1, 4)]


async def test_a_batch_of_a_run_that_is_not_here_writes_nothing(store: Store, ids: dict[str, int]) -> None:
    """What it brought could be traced to nothing, or to another run of the same number."""
    before = await store.digest()
    batch = Batch("pypi", "recent", DAY, DAY, DAY, (Entity(ids["a"], "a", "a"),), run_id=4711)
    for outcome in (found(ids), DeadLetter("gone")):
        with pytest.raises(StoreRefused, match="run 4711 is not in this database"):
            await store.commit_batch(batch, outcome, NOW)
    assert await store.digest() == before
    assert await store.progress(4711) == []


async def test_a_batch_that_fails_leaves_nothing(store: Store, ids: dict[str, int]) -> None:
    batch, before = await plan(store, ids), await store.digest()
    with pytest.raises(StoreError, match="ForeignKeyViolation"):
        await store.commit_batch(batch, found(ids), NOW, [Gap(999_999, 1, DAY, "nobody")])
    assert await store.digest() == before
    assert await store.open_batches(batch.run_id) == [batch]
    assert await store.read_identities("github") == {}


async def test_planning_twice_plans_once(store: Store, ids: dict[str, int]) -> None:
    batch = await plan(store, ids)
    assert await store.plan_batches(batch.run_id, [batch, batch], LATER) == 0
    run = (await store.read_runs(1))[0]
    assert (run.planned_requests, run.planned_points) == (2, 3)


async def test_a_run_from_start_to_end(store: Store) -> None:
    first = await store.start_run("nightly", DAY, "0.1.0", "1.0", NOW)
    second = await store.start_run("score", DAY, "0.1.0", "1.0", NOW)
    await store.finish_run(first, "complete", {"graphql": 12}, "all there", LATER)
    newest, oldest = await store.read_runs(10)
    assert (newest.run_id, newest.state, newest.finished_at, newest.kind) == (second, "running", None, "score")
    assert (oldest.state, oldest.spent, oldest.note) == ("complete", {"graphql": 12}, "all there")
    assert (oldest.started_at, oldest.finished_at) == (NOW, LATER)
    assert len(await store.read_runs(1)) == 1
    with pytest.raises(StoreError, match="run 77 is not in the database"):
        await store.finish_run(77, "complete", {}, "", NOW)
