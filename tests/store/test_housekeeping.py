"""What may go goes, a piece at a time; what was promised stays, whoever keeps house and how often."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest

from astrid.answers import StoredAnswer
from astrid.errors import StoreError
from astrid.models import Batch, DeadLetter, Done, Entity, Gap, Observations, Split
from astrid.pipeline.runs import close_run
from astrid.store import Store, housekeeping, open_store
from astrid.store.housekeeping import ANSWERS_KEPT, BODIES_KEPT
from astrid.store.rows import Tidied
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)
LATER = NOW + BODIES_KEPT + timedelta(hours=1)


def a_batch(run_id: int, n: int, ids: dict[str, int]) -> Batch:
    start = DAY - timedelta(days=n)
    return Batch("github", "counts", DAY, start, start, (Entity(ids["a"], "a", "a"),), run_id=run_id)


async def settle(store: Store, ids: dict[str, int], count: int) -> dict[str, str]:
    """Plan and end batches in every way and return batch_id -> state; one is left open."""
    run_id = await store.start_run("nightly", DAY, "c", "m", NOW)
    batches = [a_batch(run_id, n, ids) for n in range(count + 1)]
    await store.plan_batches(run_id, batches, NOW)
    states = {batches[-1].batch_id: "planned"}
    for n, batch in enumerate(batches[:-1]):
        rows = [(ids["a"], 1, DAY - timedelta(days=n), 1.0, 1)]
        ends = (
            ("done", Done(Observations.from_rows(rows, [Gap(ids["b"], 1, DAY - timedelta(days=n), "none", True)]), 1)),
            ("split", Split((), "too large")),
            ("dead", DeadLetter("poison")),
        )
        states[batch.batch_id], outcome = ends[n % 3]
        await store.commit_batch(batch, outcome, NOW)
    return states


async def bodies(connection: Any) -> dict[str, bool]:
    rows = await connection.fetch("SELECT batch_id, body <> '{}' AS kept FROM batch")
    return {row["batch_id"]: row["kept"] for row in rows}


async def test_only_what_ended_well_and_long_ago_gives_up_its_wording(
    store: Store, ids: dict[str, int], connection: Any
) -> None:
    states = await settle(store, ids, 9)
    facts, ledger = await store.digest(), await store.read_gaps("b")
    assert await store.tidy(NOW + BODIES_KEPT) == Tidied(0, 0)
    assert await store.tidy(LATER) == Tidied(6, 0)
    assert await bodies(connection) == {name: state in ("planned", "dead") for name, state in states.items()}
    assert await store.tidy(LATER) == Tidied(0, 0)
    assert await store.digest() == facts
    assert await store.read_gaps("b") == ledger
    done = {name for name, state in states.items() if state == "done"}
    assert await store.read_finished(list(states)) == done, "that it was done is known for good"
    (open_one,) = await store.open_batches(1)
    assert states[open_one.batch_id] == "planned"


async def test_a_call_takes_a_bounded_piece_the_oldest_first(
    store: Store, ids: dict[str, int], connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PIECE", 2)
    await settle(store, ids, 9)
    await connection.execute(
        "UPDATE batch SET updated_at = updated_at + (length(batch_id) + ascii(batch_id)) * '1 s'::interval"
    )
    order = await connection.fetch("SELECT batch_id FROM batch WHERE state IN ('done', 'split') ORDER BY updated_at")
    assert await store.tidy(LATER) == Tidied(2, 0)
    emptied = {name for name, kept in (await bodies(connection)).items() if not kept}
    assert len(emptied) == 2
    assert emptied <= {row["batch_id"] for row in order}
    assert [await store.tidy(LATER) for _ in range(3)] == [Tidied(2, 0), Tidied(2, 0), Tidied(0, 0)]


async def test_several_at_once_share_the_work(
    store: Store, url: str, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PIECE", 4)
    await settle(store, ids, 30)
    answer = StoredAnswer("e", None, {}, b"x")
    await store.write_answers([(("t", bytes([n])), answer) for n in range(20)], [], NOW)
    async with open_store(url) as other:
        done = await asyncio.gather(*((store, other)[n % 2].tidy(LATER) for n in range(12)))
        rest = await store.tidy(LATER)
        while rest != Tidied(0, 0):
            done, rest = [*done, rest], await store.tidy(LATER)
    assert sum(d.bodies for d in done) == 20
    assert sum(d.answers for d in done) == 20


async def test_what_another_has_in_hand_is_passed_over(store: Store, ids: dict[str, int], connection: Any) -> None:
    """Housekeeping waits for nobody: a batch that is just being touched is emptied the next time."""
    states = await settle(store, ids, 3)
    held = next(name for name, state in states.items() if state == "done")
    async with connection.transaction():
        await connection.execute("SELECT FROM batch WHERE batch_id = $1 FOR UPDATE", held)
        assert await asyncio.wait_for(store.tidy(LATER), 30) == Tidied(1, 0)
    assert await store.tidy(LATER) == Tidied(1, 0)


async def test_an_old_answer_goes_and_one_that_is_asked_for_stays(store: Store) -> None:
    answer = StoredAnswer("e", None, {}, b"x")
    await store.write_answers([(("t", b"1"), answer), (("t", b"2"), answer)], [], NOW)
    await store.write_answers([], [("t", b"1")], NOW + ANSWERS_KEPT / 2)
    assert await store.tidy(NOW + ANSWERS_KEPT + timedelta(hours=1)) == Tidied(0, 1)
    assert await store.read_answer("t", b"1") == answer


async def test_it_finds_its_rows_by_an_index(store: Store, ids: dict[str, int], connection: Any) -> None:
    await settle(store, ids, 3)
    await connection.execute("SET enable_seqscan = off")
    text = housekeeping._SQL["empty_bodies"].replace("$1", "'2027-01-01'").replace("$2", "5")
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {text}"))
    assert "batch_bodied" in plan
    assert "Seq Scan" not in plan


async def test_a_night_that_is_over_tidies_up_and_does_not_fail_by_it(
    store: Store, ids: dict[str, int], connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settle(store, ids, 3)
    run = await store.open_run("nightly", DAY + timedelta(days=410), "c", "m", LATER)
    result = await close_run(store, run, DAY + timedelta(days=410), 0, [], LATER)
    assert sum((await bodies(connection)).values()) == 2, "the open one and the dead one"

    async def refuse(self: Store, now: Any) -> Tidied:
        raise StoreError("the database is full")

    monkeypatch.setattr(Store, "tidy", refuse)
    later = LATER + timedelta(days=1)
    run = await store.open_run("nightly", DAY + timedelta(days=411), "c", "m", later)
    assert (await close_run(store, run, DAY + timedelta(days=411), 0, [], later)).state == result.state
