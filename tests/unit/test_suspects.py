"""What may have ended its worker runs alone, its start committed before; what does it again and again is set aside."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from astrid.errors import RateLimited
from astrid.models import Batch, Request, Response
from astrid.pipeline import work as work_module
from astrid.pipeline.work import SUSPECT_RETURNS, SUSPECT_STARTS, Solitude
from tests.by_worker import COUNTS, Place, numbered, sound


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask often whether all is over."""
    monkeypatch.setattr(work_module, "CHECK_S", 0.01)


class TestSuspects:
    async def test_a_suspect_runs_alone_and_its_start_is_committed_before(self) -> None:
        place = Place(numbered(6))
        suspect = dataclasses.replace(COUNTS, batch_id="suspect")
        running: set[str] = set()
        company: list[set[str]] = []

        def fetch_for(batch: Batch) -> Any:
            async def fetch(request: Request) -> Response:
                running.add(batch.batch_id)
                if batch.batch_id == "suspect":
                    assert place.store.starts["suspect"] == 1
                for _ in range(20):
                    await asyncio.sleep(0)
                    if "suspect" in running:
                        company.append(set(running))
                running.discard(batch.batch_id)
                return sound(request)

            return fetch

        place.store.states["suspect"] = "planned"
        place.bench.fetch_for = fetch_for
        await place.redeliver(suspect, SUSPECT_RETURNS)
        await place.broker.publish(place.batches)
        await place.work()
        assert place.store.states == dict.fromkeys(place.store.states, "done")
        assert company
        assert all(among == {"suspect"} for among in company)

    async def test_nothing_is_taken_on_while_a_suspect_runs(self) -> None:
        """What lies in the worker's hands unstarted would come back with the suspect, and be suspected too."""
        place = Place([])
        place.store.states[COUNTS.batch_id] = "planned"
        began, go_on = asyncio.Event(), asyncio.Event()

        async def fetch(request: Request) -> Response:
            began.set()
            await go_on.wait()
            return sound(request)

        place.bench.fetch_for = lambda _: fetch
        await place.redeliver(COUNTS, SUSPECT_RETURNS)
        worker = asyncio.create_task(place.work())
        async with asyncio.timeout(10):
            await began.wait()
        await asyncio.sleep(0.6)  # a call that waited when the suspect began may still return
        place.store.states |= dict.fromkeys((b.batch_id for b in numbered(3)), "planned")
        await place.broker.publish(numbered(3))
        await asyncio.sleep(0.6)
        assert len(place.broker._unacked) == 1
        go_on.set()
        await worker
        assert set(place.store.states.values()) == {"done"}

    async def test_one_return_makes_no_suspect(self) -> None:
        place = Place([])
        place.store.states[COUNTS.batch_id] = "planned"
        await place.redeliver(COUNTS, SUSPECT_RETURNS - 1)
        await place.work()
        assert place.store.starts[COUNTS.batch_id] == 0

    async def test_what_ends_its_worker_is_set_aside_without_being_run_again(self) -> None:
        """Poison: each start ends the worker. The batches around it come through."""
        good = numbered(3)
        poison = dataclasses.replace(COUNTS, batch_id="poison")
        place = Place(good)
        place.store.states["poison"] = "planned"
        deaths = 0

        def fetch_for(batch: Batch) -> Any:
            async def fetch(request: Request) -> Response:
                nonlocal deaths
                if batch.batch_id == "poison":
                    deaths += 1
                    place.store.is_deaf = True
                    worker.cancel()
                    await asyncio.Event().wait()
                await asyncio.sleep(0)
                return sound(request)

            return fetch

        await place.broker.publish([poison, *good])
        for life in range(1, 12):
            place.bench = place.life(life)
            place.bench.fetch_for = fetch_for
            worker = asyncio.create_task(place.work())
            (end,) = await asyncio.gather(worker, return_exceptions=True)
            place.store.is_deaf = False
            if end is None:
                break
        assert deaths == SUSPECT_RETURNS + SUSPECT_STARTS
        assert place.store.states == {"poison": "dead", **dict.fromkeys((b.batch_id for b in good), "done")}
        ((batch, reason),) = place.broker.dead_letters
        assert batch.batch_id == "poison"
        assert f"its worker ended {SUSPECT_STARTS} times" in reason
        (gaps,) = [gaps for b, _, gaps in place.store.ended if b == "poison"]
        assert len(gaps) == 4

    async def test_who_is_told_to_go_in_time_is_no_culprit(self) -> None:
        """A worker that is cancelled lives: its suspect is not what ended it."""
        place = Place([])
        place.store.states[COUNTS.batch_id] = "planned"
        began = asyncio.Event()

        async def hang(_: Request) -> Response:
            began.set()
            await asyncio.Event().wait()
            raise AssertionError

        place.bench.fetch_for = lambda _: hang
        await place.redeliver(COUNTS, SUSPECT_RETURNS)
        worker = asyncio.create_task(place.work())
        async with asyncio.timeout(10):
            await began.wait()
        assert place.store.starts[COUNTS.batch_id] == 1
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert place.store.starts[COUNTS.batch_id] == 0

    async def test_a_suspect_that_has_to_wait_is_a_suspect_no_more(self) -> None:
        place = Place([])
        place.store.states[COUNTS.batch_id] = "planned"

        def answer(request: Request) -> Response:
            if place.requests == 1:
                raise RateLimited("slow down", retry_after_s=60.0)
            return sound(request)

        place.answer = answer
        await place.redeliver(COUNTS, SUSPECT_RETURNS)
        await place.work()
        assert place.store.states[COUNTS.batch_id] == "done"
        assert place.store.starts[COUNTS.batch_id] == 0

    async def test_what_was_set_aside_and_is_queued_anew_has_all_its_starts_again(self) -> None:
        place = Place([COUNTS])
        place.store.states[COUNTS.batch_id] = "dead"
        place.store.starts[COUNTS.batch_id] = SUSPECT_STARTS

        async def is_over() -> bool:
            return place.store.states[COUNTS.batch_id] == "done"

        await place.drain(is_over)
        assert place.store.starts[COUNTS.batch_id] == 1

    async def test_solitude_lets_nobody_in_who_comes_after(self) -> None:
        solitude = Solitude()
        order: list[str] = []

        async def together(name: str, turns: int) -> None:
            async with solitude.together():
                order.append(f"{name} in")
                for _ in range(turns):
                    await asyncio.sleep(0)
                order.append(f"{name} out")

        async def alone() -> None:
            async with solitude.alone():
                order.append("alone in")
                for _ in range(3):
                    await asyncio.sleep(0)
                order.append("alone out")

        first = asyncio.create_task(together("first", 5))
        await asyncio.sleep(0)
        single = asyncio.create_task(alone())
        await asyncio.sleep(0)
        assert solitude.is_wanted
        second = asyncio.create_task(together("second", 1))
        cancelled = asyncio.create_task(alone())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(first, single, second, cancelled, return_exceptions=True)
        assert order == ["first in", "first out", "alone in", "alone out", "second in", "second out"]
        assert not solitude.is_wanted
