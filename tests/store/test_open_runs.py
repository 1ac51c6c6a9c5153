"""Runs that nobody closed are taken up; batches are heard of; what was lost on its way is found again."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import date, timedelta
from typing import Any

import pytest

from astrid.errors import StoreError, StoreRefused
from astrid.models import Batch, DeadLetter, Done, Entity, Observations, Split
from astrid.pipeline.crawl import split
from astrid.store import Begun, Store
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)
LATER = NOW + timedelta(hours=1)


def batches(run_id: int, count: int, source: str = "github") -> list[Batch]:
    return [Batch(source, "counts", DAY, DAY, DAY, (Entity(n, f"p{n}", ""),), run_id=run_id) for n in range(count)]


def empty() -> Done:
    return Done(Observations.from_rows([]), 1)


async def opened(store: Store, kind: str = "nightly", day: date = DAY, version: str = "1") -> tuple[int, bool]:
    run = await store.open_run(kind, day, version, "1.0", NOW)
    return run.run_id, run.is_planned


class TestOpening:
    async def test_a_run_is_open_until_it_is_closed(self, store: Store) -> None:
        first = await opened(store)
        assert first[1] is False
        assert await opened(store) == first, "it runs: nobody starts another one beside it"
        assert (await opened(store, "backfill"))[0] != first[0]
        assert (await opened(store, day=DAY - timedelta(days=1)))[0] != first[0]
        await store.plan_batches(first[0], batches(first[0], 2), NOW)
        assert await opened(store, version="2") == (first[0], True)
        assert {r.run_id: r.code_version for r in await store.read_runs()}[first[0]] == "2"
        await store.finish_run(first[0], "gaps", {}, "", LATER)
        again = await opened(store)
        assert again[0] > first[0]
        assert again[1] is False

    async def test_of_two_who_open_at_once_the_second_gets_the_firsts(self, store: Store) -> None:
        for n in range(5):
            day = DAY + timedelta(days=n)
            found = await asyncio.gather(*(store.open_run("nightly", day, "1", "1.0", NOW) for _ in range(4)))
            assert len({run.run_id for run in found}) == 1

    async def test_a_failed_run_is_taken_up_while_it_has_open_batches(self, store: Store) -> None:
        run_id, _ = await opened(store)
        own = batches(run_id, 2)
        await store.plan_batches(run_id, own, NOW)
        await store.finish_run(run_id, "failed", {}, "a worker died", LATER)
        assert await opened(store) == (run_id, True)
        (record,) = await store.read_runs()
        assert (record.state, record.finished_at) == ("running", None)
        for batch in own:
            await store.commit_batch(batch, empty(), NOW)
        await store.finish_run(run_id, "failed", {}, "the scores failed", LATER)
        assert (await opened(store))[0] > run_id, "what is missing is planned anew"

    async def test_only_the_last_failed_run_is_taken_up(self, store: Store) -> None:
        """Its successor has asked for the same: what an older one left open is nobody's any more."""
        first, _ = await opened(store)
        await store.plan_batches(first, batches(first, 1), NOW)
        await store.finish_run(first, "failed", {}, "", LATER)
        second = await store.start_run("nightly", DAY, "1", "1.0", NOW)
        await store.finish_run(second, "complete", {}, "", LATER)
        third, planned = await opened(store)
        assert third > second
        assert not planned

    async def test_of_several_that_were_left_running_the_last_goes_on(self, store: Store) -> None:
        first, second = [await store.start_run("nightly", DAY, "1", "1.0", NOW) for _ in range(2)]
        assert (await opened(store))[0] == second
        states = {r.run_id: (r.state, r.note) for r in await store.read_runs()}
        assert states == {first: ("failed", f"superseded by run {second}"), second: ("running", "")}

    async def test_the_last_run_is_told_in_whatever_state(self, store: Store) -> None:
        assert await store.read_last_run("nightly", DAY) is None
        run_id, _ = await opened(store)
        await store.finish_run(run_id, "gaps", {}, "", LATER)
        run = await store.read_last_run("nightly", DAY)
        assert run is not None
        assert (run.run_id, run.state, run.is_planned, run.finished_at) == (run_id, "gaps", False, LATER)


class TestHearingOfBatches:
    async def test_what_was_never_published_is_told_from_the_rest(self, store: Store) -> None:
        run_id, _ = await opened(store)
        own = batches(run_id, 4)
        await store.plan_batches(run_id, own, NOW)
        await store.mark_published(run_id, [own[0].batch_id])
        await store.begin_batch(own[1], 60.0, NOW)
        await store.commit_batch(own[2], empty(), NOW)
        assert await store.open_batches(run_id, unpublished=True) == [own[3]]
        assert {b.batch_id for b in await store.open_batches(run_id)} == {own[n].batch_id for n in (0, 1, 3)}

    async def test_beginning_tells_how_a_batch_stands_and_counts_the_starts_of_suspects(self, store: Store) -> None:
        run_id, _ = await opened(store)
        own = batches(run_id, 2)
        await store.plan_batches(run_id, own, NOW)
        assert await store.begin_batch(own[0], 60.0, NOW) == Begun("planned", 0)
        assert await store.begin_batch(own[0], 60.0, NOW, suspect=True) == Begun("planned", 1)
        assert await store.begin_batch(own[0], 60.0, NOW, suspect=True) == Begun("planned", 2)
        assert await store.begin_batch(own[1], 60.0, NOW) == Begun("planned", 0)
        await store.expect_batch(own[0], 1.0)
        assert await store.begin_batch(own[0], 60.0, NOW) == Begun("planned", 0)
        for outcome, state in ((DeadLetter("x"), "dead"), (empty(), "done")):
            await store.commit_batch(own[0], outcome, NOW)
            assert (await store.begin_batch(own[0], 60.0, NOW)).state == state
        await store.commit_batch(own[1], Split(split(own[1]), "x"), NOW)
        assert (await store.begin_batch(own[1], 60.0, NOW)).state == "split"

    async def test_a_batch_that_its_run_does_not_know_is_entered(self, store: Store) -> None:
        run_id, _ = await opened(store)
        (stranger,) = batches(run_id, 1)
        assert await store.begin_batch(stranger, 60.0, NOW, suspect=True) == Begun("planned", 1)
        assert await store.open_batches(run_id) == [stranger]

    async def test_a_batch_of_a_run_that_is_not_here_is_refused(self, store: Store) -> None:
        """A message may outlive the database that it was planned in: what it brought could be traced to nothing."""
        (stranger,) = batches(4711, 1)
        with pytest.raises(StoreRefused, match="run 4711 is not in this database"):
            await store.begin_batch(stranger, 60.0, NOW)
        assert await store.open_batches(4711) == []

    async def test_what_is_overdue_is_claimed_by_one(self, store: Store, connection: Any) -> None:
        run_id, _ = await opened(store)
        own = [*batches(run_id, 6), *batches(run_id, 1, "npm")]
        await store.plan_batches(run_id, own, NOW)
        await store.mark_published(run_id, [b.batch_id for b in own[1:]])
        await store.begin_batch(own[1], 600.0, NOW)
        await store.expect_batch(own[2], 600.0)
        await store.commit_batch(own[3], empty(), NOW)
        assert [b.batch_id for b in await store.claim_lost(run_id, ["github"], 60.0)] == [own[0].batch_id]
        assert await store.claim_lost(run_id, ["github"], 60.0) == [], "it is on its way"
        await connection.execute("UPDATE batch SET due_at = due_at - interval '5 minutes' WHERE run_id = $1", run_id)
        claims = await asyncio.gather(*(store.claim_lost(run_id, ["github"], 60.0, 2) for _ in range(4)))
        claimed = [b.batch_id for some in claims for b in some]
        assert sorted(claimed) == sorted(own[n].batch_id for n in (0, 4, 5)), "nothing that is held, waits or has ended"
        assert {b.run_id for some in claims for b in some} == {run_id}

    async def test_a_claimed_batch_of_another_version_is_told(self, store: Store, connection: Any) -> None:
        run_id, _ = await opened(store)
        await store.plan_batches(run_id, batches(run_id, 1), NOW)
        await connection.execute("UPDATE batch SET body = '{\"version\": 99}' WHERE run_id = $1", run_id)
        with pytest.raises(StoreError, match="another version"):
            await store.claim_lost(run_id, ["github"], 60.0)

    async def test_who_works_is_told_of_running_runs_with_word_of_late(self, store: Store, connection: Any) -> None:
        run_id, _ = await opened(store)
        own = [*batches(run_id, 3), *batches(run_id, 1, "npm")]
        await store.plan_batches(run_id, own, NOW)
        assert await store.read_working_runs(["github", "npm"]) == {}, "its producer has not published anything"
        await store.mark_published(run_id, [b.batch_id for b in own])
        assert await store.read_working_runs(["github", "npm"]) == {run_id: {"github": 3, "npm": 1}}
        assert await store.read_working_runs(["pypistats"]) == {}
        await store.commit_batch(own[0], empty(), NOW)
        await connection.execute(
            "UPDATE batch SET due_at = now() - interval '3 days' WHERE batch_id = $1", own[1].batch_id
        )
        assert await store.read_working_runs(["github"]) == {run_id: {"github": 1}}
        await store.finish_run(run_id, "failed", {}, "", LATER)
        assert await store.read_working_runs(["github"]) == {}

    async def test_a_settled_batch_says_as_what(self, store: Store) -> None:
        run_id, _ = await opened(store)
        (own,) = [dataclasses.replace(b, end=DAY, start=DAY - timedelta(days=3)) for b in batches(run_id, 1)]
        await store.plan_batches(run_id, [own], NOW)
        await store.commit_batch(own, Split(split(own), "too large"), NOW)
        for outcome in (empty(), DeadLetter("x"), Split(split(own), "again")):
            counts = await store.commit_batch(own, outcome, NOW)
            assert (counts.already, counts.state) == (True, "split")
