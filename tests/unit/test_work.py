"""The worker's loop: begin, crawl, commit, acknowledge; what is away is waited for, what ended is not done again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging

import pytest

from astrid import errors
from astrid.errors import RateLimited, StoreError
from astrid.models import Batch, DeadLetter, Done, Entity, Request, Response
from astrid.pipeline import work as work_module
from astrid.pipeline.crawl import MAX_ATTEMPTS, MAX_PAUSES, list_parts
from tests.by_worker import COUNTS, SETTLED, Answer, FakeStore, Place, numbered, sound


async def drain(batches: list[Batch], answer: Answer) -> Place:
    place = Place(batches, answer)
    await place.drain()
    return place


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let outages pass quickly."""
    monkeypatch.setattr("astrid.pipeline.outages.FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(work_module, "CHECK_S", 0.01)


class TestOneByOne:
    async def test_drains_and_returns(self) -> None:
        place = await drain(numbered(40), sound)
        assert sorted(b for b, _, _ in place.store.ended) == sorted(b.batch_id for b in place.batches)
        assert not place.store.open
        assert not place.broker._unacked

    async def test_a_broken_repository_costs_itself_alone(self) -> None:
        many = tuple(Entity(n, f"p{n}", f"R_{n}", (f"o/p{n}",)) for n in range(8))

        def answer(request: Request) -> Response:
            ids = request.json["variables"]["ids"]
            if "R_5" in ids:
                return Response(502, {}, b"")
            nodes = [{"id": i, "nameWithOwner": "o/p", "stargazerCount": 5, "forkCount": 1} for i in ids]
            return Response(200, {}, json.dumps({"data": {"nodes": nodes}}).encode())

        place = await drain([dataclasses.replace(COUNTS, entities=many, batch_id="")], answer)
        read = {int(e) for _, o, _ in place.store.ended if isinstance(o, Done) for e in o.observations.entity_id}
        assert read == {0, 1, 2, 3, 4, 6, 7}
        (done,) = [o for _, o, _ in place.store.ended if isinstance(o, Done)]
        assert {(g.entity_id, g.metric_id, g.retry) for g in done.observations.gaps} == {(5, 1, True), (5, 2, True)}
        assert place.broker.dead_letters == []

    async def test_a_name_that_cannot_be_looked_up_costs_itself_alone(self) -> None:
        many = tuple(Entity(n, f"p{n}", "", (f"o/p{n}",)) for n in range(8))

        def answer(request: Request) -> Response:
            if "ids" in request.json.get("variables", ()):
                ids = request.json["variables"]["ids"]
                nodes = [{"id": i, "nameWithOwner": "o/p", "stargazerCount": 5, "forkCount": 1} for i in ids]
                return Response(200, {}, json.dumps({"data": {"nodes": nodes}}).encode())
            if '"p5"' in request.json["query"]:
                return Response(502, {}, b"")
            asked = [e for e in many if f'"p{e.entity_id}"' in request.json["query"]]
            data = {f"r{n}": {"id": f"R_{e.entity_id}", "nameWithOwner": e.names[0]} for n, e in enumerate(asked)}
            return Response(200, {}, json.dumps({"data": data}).encode())

        place = await drain([dataclasses.replace(COUNTS, entities=many, batch_id="")], answer)
        (done,) = [o for _, o, _ in place.store.ended if isinstance(o, Done)]
        assert {(g.entity_id, g.metric_id, g.retry) for g in done.observations.gaps} == {(5, 1, True), (5, 2, True)}
        assert set(done.observations.entity_id.tolist()) == {0, 1, 2, 3, 4, 6, 7}
        assert place.broker.dead_letters == []

    async def test_an_outage_sets_the_batch_aside_and_leaves_gaps(self) -> None:
        many = tuple(Entity(n, f"p{n}", "", (f"o/p{n}",)) for n in range(8))
        place = await drain([dataclasses.replace(COUNTS, entities=many, batch_id="")], lambda _: Response(502, {}, b""))
        ((dead, gaps),) = [(o, gaps) for _, o, gaps in place.store.ended]
        assert isinstance(dead, DeadLetter)
        assert {(g.entity_id, g.metric_id) for g in gaps} == {(n, m) for n in range(8) for m in (1, 2)}
        assert len(place.broker.dead_letters) == 1

    async def test_pauses_do_not_use_up_attempts(self) -> None:
        asked = 0

        def answer(request: Request) -> Response:
            nonlocal asked
            asked += 1
            if asked <= 2 * MAX_ATTEMPTS:
                raise RateLimited("slow down", retry_after_s=60.0)
            if asked == 2 * MAX_ATTEMPTS + 1:
                raise errors.Unavailable
            return sound(request)

        place = await drain([COUNTS], answer)
        returned = [(b.pauses, b.attempt) for b in place.broker.returned[-2:]]
        assert returned == [(2 * MAX_ATTEMPTS, -1), (2 * MAX_ATTEMPTS, 0)]
        assert place.outcomes() == [Done]
        assert len(place.store.expected) == 2 * MAX_ATTEMPTS + 1, "each return says when it will be heard of"

    async def test_work_of_an_unknown_task_is_set_aside_and_the_worker_goes_on(self) -> None:
        strange = dataclasses.replace(COUNTS, task="gone", batch_id="strange")
        place = await drain([strange, COUNTS], sound)
        ((batch, reason),) = place.broker.dead_letters
        assert batch.batch_id == "strange"
        assert "no source 'github' with a task 'gone' in this version" in reason
        assert place.store.states == {"strange": "dead", COUNTS.batch_id: "done"}


class TestWhatIsAway:
    @pytest.mark.parametrize("failing", ["begin_batch", "commit_batch"])
    async def test_a_database_that_is_away_is_waited_for_with_the_outcome_in_hand(
        self, failing: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        place = Place([COUNTS], store=FakeStore([COUNTS], failures=4, failing=(failing,)))
        with caplog.at_level(logging.WARNING):
            await place.drain()
        assert place.outcomes() == [Done]
        assert place.requests == 1, "nothing is asked again"
        assert not place.broker.returned
        said = [r.message for r in caplog.records if "the database" in r.message]
        assert [s.split(",")[0].split(" after")[0] for s in said] == ["the database is away", "the database is back"]

    async def test_a_database_that_stays_away_gives_the_batch_back_in_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(work_module, "GRACE_S", 0.05)
        place = Place([COUNTS], store=FakeStore([COUNTS], failures=10**6))
        place.bench = place.life(1, hold_s=0.05)
        await place.broker.publish([COUNTS])
        worker = asyncio.create_task(place.work())
        async with asyncio.timeout(10):
            await place.broker.came_back.wait()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await place.broker.close()
        assert place.store.open
        assert not place.store.ended
        (returned,) = place.broker.returned
        assert (returned.pauses, returned.attempt) == (1, -1), "the upstream did not fail"

    async def test_asking_whether_all_is_over_waits_too(self) -> None:
        place = Place([COUNTS])
        tries = 0

        async def is_over() -> bool:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise StoreError("away")
            return not place.store.open

        await place.drain(is_over)
        assert tries == 4

    async def test_a_broker_that_is_away_is_waited_for(self, caplog: pytest.LogCaptureFixture) -> None:
        place = Place([COUNTS])
        place.broker.away = 5
        with caplog.at_level(logging.WARNING):
            await place.drain()
        assert place.outcomes() == [Done]
        assert sum("the broker is away" in r.message for r in caplog.records) == 1

    async def test_a_refused_acknowledgement_stops_nothing_and_is_made_by_the_next_life(self) -> None:
        place = Place(numbered(3))
        place.broker.refused = 1
        await place.broker.publish(place.batches)
        await place.work()
        assert len(place.store.ended) == 3
        assert len(place.broker._unacked) == 1
        place.bench = place.life(2)
        asked = place.requests
        await place.broker.publish([dataclasses.replace(COUNTS, batch_id="later")])
        place.store.states["later"] = "planned"
        await place.work()
        assert place.requests == asked + 1, "what was committed is not crawled again"
        assert not place.broker._unacked
        assert len(place.store.ended) == 4

    async def test_books_that_cannot_be_kept_cost_no_batch(self) -> None:
        place = Place([COUNTS])

        async def spend(run_id: int) -> None:
            raise StoreError("away")

        place.bench = place.life(1, spend=spend)
        await place.drain()
        assert place.outcomes() == [Done]


class TestValuesThatTheDatabaseRefuses:
    async def test_they_are_tried_again_and_then_set_aside(self) -> None:
        store = FakeStore([COUNTS])
        store.refused = {COUNTS.batch_id: (Done,)}
        place = Place([COUNTS], store=store)
        await place.drain()
        ((batch, reason),) = place.broker.dead_letters
        assert batch.attempt == MAX_ATTEMPTS - 1
        assert f"after {MAX_ATTEMPTS} tries: the database refuses these values" in reason
        (_, dead, gaps) = place.store.ended[-1]
        assert isinstance(dead, DeadLetter)
        assert len(gaps) == 4

    async def test_gaps_that_it_refuses_too_do_not_stop_the_worker(self) -> None:
        batches = [dataclasses.replace(COUNTS, attempt=MAX_ATTEMPTS - 1), *numbered(1)]
        store = FakeStore(batches)
        store.refused = {COUNTS.batch_id: (Done, DeadLetter)}
        place = Place(batches, store=store)
        await place.drain()
        assert store.states == {COUNTS.batch_id: "dead", "b0": "done"}
        assert [gaps for _, o, gaps in store.ended if isinstance(o, DeadLetter)] == [()]
        assert len(place.broker.dead_letters) == 1


class TestSettledBefore:
    async def test_a_double_is_acknowledged_without_being_crawled(self) -> None:
        place = Place([COUNTS, COUNTS, COUNTS])
        place.store.states[COUNTS.batch_id] = "done"
        await place.broker.publish(place.batches)
        await place.work()
        assert place.requests == 0
        assert place.broker.acked == [COUNTS.batch_id] * 3

    async def test_the_parts_of_what_was_split_are_published_by_whoever_finds_it_split(self) -> None:
        """Its worker ended between the commit and the publishing: nobody else would ever do it."""
        place = Place([COUNTS])
        parts = list_parts(COUNTS)
        place.store.states = {COUNTS.batch_id: "split"} | {p.batch_id: "planned" for p in parts}
        await place.drain()
        assert {b for b, _, _ in place.store.ended} == {p.batch_id for p in parts}
        assert set(place.store.published) == {p.batch_id for p in parts}
        assert place.requests == len(parts), "what was split is not crawled again"

    async def test_nor_are_they_lost_where_another_delivery_splits_while_this_one_succeeds(self) -> None:
        place = Place([COUNTS])

        def answer(request: Request) -> Response:
            if place.requests == 1:
                place.store.states |= {COUNTS.batch_id: "split", **{p.batch_id: "planned" for p in list_parts(COUNTS)}}
            return sound(request)

        place.answer = answer
        await place.drain()
        assert {b for b, _, _ in place.store.ended} == {p.batch_id for p in list_parts(COUNTS)}

    @pytest.mark.parametrize("state", SETTLED)
    async def test_another_delivery_ended_well_while_this_one_failed(self, state: str) -> None:
        """What is committed is no dead letter."""
        place = Place([dataclasses.replace(COUNTS, attempt=MAX_ATTEMPTS - 1)])

        def answer(_: Request) -> Response:
            place.store.states |= {COUNTS.batch_id: state}
            if state == "split":
                place.store.states |= {p.batch_id: "done" for p in list_parts(COUNTS)}
            raise errors.Unavailable("down")

        place.answer = answer
        await place.drain()
        assert place.broker.dead_letters == []
        assert COUNTS.batch_id in place.broker.acked

    async def test_what_was_dead_may_be_given_another_chance(self) -> None:
        place = Place([COUNTS])
        place.store.states[COUNTS.batch_id] = "dead"

        async def is_over() -> bool:
            return place.store.states[COUNTS.batch_id] == "done"

        await place.drain(is_over)
        assert place.outcomes() == [Done]


class TestEnds:
    async def test_a_batch_that_takes_too_long_goes_back_as_a_pause(self) -> None:
        place = Place([COUNTS])
        place.bench = place.life(1, hold_s=0.05)

        async def fetch(request: Request) -> Response:
            place.requests += 1
            if place.requests == 1:
                await asyncio.Event().wait()
            return sound(request)

        place.bench.fetch_for = lambda _: fetch
        await place.drain()
        assert [(b.pauses, b.attempt) for b in place.broker.returned] == [(1, -1)]
        assert place.outcomes() == [Done]

    async def test_but_not_for_ever(self) -> None:
        place = Place([dataclasses.replace(COUNTS, pauses=MAX_PAUSES)])
        place.bench = place.life(1, hold_s=0.02)

        async def hang(_: Request) -> Response:
            await asyncio.Event().wait()
            raise AssertionError

        place.bench.fetch_for = lambda _: hang
        await place.drain()
        ((_, reason),) = place.broker.dead_letters
        assert "not at its end after" in reason

    async def test_told_to_stop_it_ends_what_runs_and_receives_nothing_more(self) -> None:
        place = Place(numbered(60))
        began, go_on = asyncio.Event(), asyncio.Event()

        async def fetch(request: Request) -> Response:
            began.set()
            await go_on.wait()
            return sound(request)

        place.bench.fetch_for = lambda _: fetch
        await place.broker.publish(place.batches)
        worker = asyncio.create_task(place.work())
        async with asyncio.timeout(10):
            await began.wait()
        running = len(place.broker._unacked)
        place.bench.stopping.set()
        await asyncio.sleep(0.01)
        assert not worker.done()
        go_on.set()
        await worker
        assert 1 <= len(place.store.ended) == running < 60
        assert not place.broker._unacked

    async def test_nothing_is_received_of_what_may_not_be_asked(self) -> None:
        place = Place([COUNTS])
        allowed = False
        place.bench = place.life(1, may_ask=lambda source: allowed and source == "github")
        await place.broker.publish(place.batches)
        worker = asyncio.create_task(place.work())
        await asyncio.sleep(0.2)
        assert not place.broker._unacked
        allowed = True
        await worker
        assert place.outcomes() == [Done]
        await place.broker.close()
