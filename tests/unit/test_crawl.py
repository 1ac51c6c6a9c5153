"""One batch in a worker's hands: every error to one reaction, nothing lost by splitting, commit before ack."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid import errors
from astrid.broker import Delivery
from astrid.broker.memory import MemoryBroker
from astrid.errors import BrokerError, RateLimited, SourceError, StoreError
from astrid.models import Batch, DeadLetter, Done, Entity, Gap, Observations, Request, Response, RetryIn, Split, Steps
from astrid.pipeline.crawl import (
    FIRST_RETRY_S,
    MAX_ATTEMPTS,
    MAX_PAUSES,
    drive,
    handle_batch,
    lost_days,
    react,
    split,
    work,
)
from astrid.sources import SOURCES
from astrid.store import Progress
from astrid.timeline import Timeline

DAY = date(2026, 3, 31)
NIGHT = datetime(2026, 4, 1, 5, tzinfo=UTC)
TWO = (Entity(1, "a", "R_1", ("o/a",)), Entity(2, "b", "R_2", ("o/b",)))
COUNTS = Batch("github", "counts", DAY, DAY, DAY, TWO)
GITHUB = SOURCES["github"]


def sound(_: Request) -> Response:
    nodes = [{"id": e.key, "nameWithOwner": e.names[0], "stargazerCount": 5, "forkCount": 1} for e in TWO]
    return Response(200, {}, json.dumps({"data": {"nodes": nodes}}).encode())


def fetch_of(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    async def fetch(request: Request) -> Response:
        await asyncio.sleep(0)
        return answer(request)

    return fetch


def classes(base: type[SourceError]) -> Iterator[type[SourceError]]:
    yield base
    for below in base.__subclasses__():
        yield from classes(below)


REACTIONS: dict[str, tuple[type[Any], type[Any]]] = {
    # error: (first attempt, last attempt) for a batch that can be split
    "SourceError": (RetryIn, DeadLetter),
    "Unavailable": (RetryIn, DeadLetter),
    "Malformed": (RetryIn, DeadLetter),
    "TokenDead": (RetryIn, DeadLetter),
    "EntityGone": (Done, Done),
    "TooLate": (Done, Done),
    "TooLarge": (Split, Split),
    "NoToken": (DeadLetter, DeadLetter),
    "RateLimited": (RetryIn, RetryIn),
}


class TestReact:
    def test_every_class_has_its_reaction(self) -> None:
        assert {c.__name__ for c in classes(SourceError)} == set(REACTIONS)

    @pytest.mark.parametrize("name", sorted(REACTIONS))
    def test_reactions(self, name: str) -> None:
        kind = getattr(errors, name)
        error = kind("why", retry_after_s=9.0) if kind is RateLimited else kind("why")
        for attempt, expected in zip((0, MAX_ATTEMPTS - 1), REACTIONS[name], strict=True):
            batch = dataclasses.replace(COUNTS, attempt=attempt)
            outcome = react(batch, GITHUB, error)
            assert isinstance(outcome, expected)
            if isinstance(outcome, Done):
                assert len(outcome.observations) == 0
                assert {(g.entity_id, g.metric_id, g.day, g.reason, g.retry) for g in outcome.observations.gaps} == {
                    (e, m, DAY, "why", False) for e in (1, 2) for m in (1, 2)
                }
            else:
                assert "why" in outcome.reason

    async def test_handling_maps_them_too(self) -> None:
        for name in REACTIONS:
            kind = getattr(errors, name)

            def fail(_: Request, kind: Any = kind) -> Response:
                raise kind("why", retry_after_s=9.0) if kind is RateLimited else kind("why")

            outcome = await handle_batch(COUNTS, fetch_of(fail), lambda: NIGHT)
            assert isinstance(outcome, REACTIONS[name][0])

    def test_failures_wait_longer_each_time(self) -> None:
        waits = []
        for attempt in range(MAX_ATTEMPTS - 1):
            outcome = react(dataclasses.replace(COUNTS, attempt=attempt), GITHUB, errors.Unavailable())
            assert isinstance(outcome, RetryIn)
            assert not outcome.pause
            waits.append(outcome.delay_s)
        assert waits == [FIRST_RETRY_S * 2**n for n in range(MAX_ATTEMPTS - 1)]

    def test_pauses_are_no_failures_but_have_an_end(self) -> None:
        limited = RateLimited("slow down", retry_after_s=77.0)
        patient = dataclasses.replace(COUNTS, attempt=MAX_ATTEMPTS - 1, pauses=MAX_PAUSES - 1)
        assert react(patient, GITHUB, limited) == RetryIn(77.0, "slow down", pause=True)
        paused = dataclasses.replace(COUNTS, pauses=MAX_PAUSES)
        assert isinstance(react(paused, GITHUB, limited), DeadLetter)
        assert isinstance(react(paused, GITHUB, errors.Unavailable()), RetryIn)

    def test_what_cannot_be_split_is_tried_again(self) -> None:
        one = dataclasses.replace(COUNTS, entities=TWO[:1])
        assert isinstance(react(one, GITHUB, errors.TooLarge()), RetryIn)
        last = dataclasses.replace(one, attempt=MAX_ATTEMPTS - 1)
        assert isinstance(react(last, GITHUB, errors.TooLarge()), DeadLetter)

    async def test_a_bug_sets_the_batch_aside_and_not_the_worker(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(_: Request) -> Response:
            raise ZeroDivisionError

        assert await handle_batch(COUNTS, fetch_of(fail), lambda: NIGHT) == DeadLetter(
            "a bug of this version: ZeroDivisionError"
        )
        assert "ZeroDivisionError" in caplog.text

    @pytest.mark.parametrize("change", [{"source": "gone"}, {"task": "gone"}])
    async def test_work_of_another_version(self, change: dict[str, str]) -> None:
        batch = dataclasses.replace(COUNTS, **change)  # type: ignore[arg-type]
        assert isinstance(await handle_batch(batch, fetch_of(sound), lambda: NIGHT), DeadLetter)
        assert lost_days(batch, "x") == ()


class TestAskingAgain:
    """npm states a day twice, with different counts: a doubtful gap. The second answer may be sound."""

    DAYS = (date(2026, 3, 1), date(2026, 3, 2))
    BATCH = Batch("npm", "scoped", DAYS[1], *DAYS, (Entity(1, "a", "@x/a"), Entity(2, "b", "@x/b")))

    def answers(self, *of_a: list[int] | int) -> tuple[Callable[[Request], Response], list[str]]:
        """Play npm: @x/b is sound, @x/a answers in turn with counts of the second day, or a status."""
        asked: list[str] = []
        turns = iter(of_a)

        def answer(request: Request) -> Response:
            name = "@x/a" if "a" in request.path.rpartition("/")[2] else "@x/b"
            asked.append(name)
            counts = next(turns) if name == "@x/a" else [8]
            if isinstance(counts, int):
                return Response(counts, {}, b"")
            rows = [{"day": "2026-03-01", "downloads": 5}]
            rows += [{"day": "2026-03-02", "downloads": n} for n in counts]
            body = {"package": name, "start": "2026-02-22", "end": "2026-03-02", "downloads": rows}
            return Response(200, {}, json.dumps(body).encode())

        return answer, asked

    async def handle(self, answer: Callable[[Request], Response]) -> Done:
        outcome = await handle_batch(self.BATCH, fetch_of(answer), lambda: NIGHT)
        assert isinstance(outcome, Done)
        return outcome

    async def test_whom_nonsense_was_told_of_is_asked_about_once_more(self) -> None:
        answer, asked = self.answers([7, 9], [7])
        done = await self.handle(answer)
        assert asked == ["@x/a", "@x/b", "@x/a"]
        assert done.requests == 3
        values = zip(done.observations.entity_id.tolist(), done.observations.value.tolist(), strict=True)
        assert sorted(values) == [(1, 5.0), (1, 7.0), (2, 5.0), (2, 8.0)]
        assert not done.observations.gaps

    @pytest.mark.parametrize("second", [[6, 8], 502])
    async def test_what_is_doubtful_twice_is_a_gap(self, second: list[int] | int) -> None:
        answer, asked = self.answers([7, 9], second, [1])
        done = await self.handle(answer)
        assert asked == ["@x/a", "@x/b", "@x/a"]
        assert len(done.observations) == 3
        assert [(g.entity_id, g.day) for g in done.observations.gaps] == [(1, self.DAYS[1])]

    def test_only_what_was_doubtful_is_filled(self) -> None:
        """A day that failed for everybody is believed to have failed by all of a list, and not by one alone."""
        late, odd = (Gap(1, 40, day, "x", True, doubtful=day == self.DAYS[1]) for day in self.DAYS)
        first = Observations.from_rows([(2, 40, self.DAYS[0], 5.0, 7)], [late, odd])
        second = Observations.from_rows(
            [
                *((1, 40, self.DAYS[0], 0.0, 7), (1, 40, self.DAYS[1], 6.0, 7), (2, 40, self.DAYS[0], 9.0, 7)),
                *((1, 31, self.DAYS[0], 8.0, 7), (1, 31, self.DAYS[1], 8.0, 7)),  # comes along
            ],
        )
        filled = first.filled_by(second)
        assert dict(zip(filled.dated_keys(), filled.value.tolist(), strict=True)) == {
            (2, 40, self.DAYS[0]): 5.0,
            (1, 40, self.DAYS[1]): 6.0,
            (1, 31, self.DAYS[1]): 8.0,
        }
        assert filled.gaps == (late,)


class TestSnapshots:
    @pytest.mark.parametrize(
        ("moments", "asked", "late"),
        [
            ([NIGHT, NIGHT], 1, False),
            ([NIGHT.replace(hour=11, minute=59)] * 2, 1, False),
            ([NIGHT.replace(hour=12), NIGHT], 0, True),
            ([NIGHT, NIGHT.replace(hour=12)], 1, True),
            ([NIGHT - timedelta(hours=17, seconds=1), NIGHT], 0, True),
        ],
    )
    async def test_too_late_before_and_after(self, moments: list[datetime], asked: int, late: bool) -> None:
        requests: list[Request] = []

        def answer(request: Request) -> Response:
            requests.append(request)
            return sound(request)

        left = iter(moments)
        outcome = await handle_batch(COUNTS, fetch_of(answer), lambda: next(left))
        assert len(requests) == asked
        assert isinstance(outcome, Done)
        assert len(outcome.observations) == (0 if late else 4)
        assert [g.retry for g in outcome.observations.gaps] == ([False] * 4 if late else [])

    async def test_dated_values_have_no_such_moment(self) -> None:
        batch = Batch("github", "history", DAY, DAY, DAY, TWO[:1])
        who = json.dumps({"data": {"nodes": [{"id": TWO[0].key, "nameWithOwner": "o/p"}]}}).encode()
        outcome = await handle_batch(
            batch,
            fetch_of(lambda r: Response(200, {}, who if r.path == "/graphql" else b"[]")),
            lambda: NIGHT + timedelta(days=90),
        )
        assert isinstance(outcome, Done)
        assert outcome.requests == 2


DATES = st.integers(0, 400).map(lambda n: date(2025, 1, 1) + timedelta(days=n))


@given(DATES, st.integers(0, 60), st.integers(0, 12), st.integers(0, 100))
def test_splitting_loses_nothing_and_ends(start: date, days: int, count: int, requests: int) -> None:
    made = tuple(Entity(n, f"p{n}", "", ()) for n in range(count))
    whole = Batch(
        "clickhouse", "daily", DAY, start, start + timedelta(days=days), made, run_id=4, attempt=2, requests=requests
    )
    leaves, open_ = [], [whole]
    while open_:
        batch = open_.pop()
        parts = split(batch)
        assert len(parts) in (0, 2)
        leaves += [] if parts else [batch]
        open_ += parts
        assert all((p.run_id, p.attempt, p.lane, p.day) == (4, 2, whole.lane, DAY) for p in parts)
    cells = [(e.entity_id, b.start, b.end) for b in leaves for e in b.entities]
    expected = {(n, d, d) for n in range(count) for d in (start + timedelta(days=k) for k in range(days + 1))}
    assert set(cells) == expected
    assert len(cells) == len(expected)
    assert len({b.batch_id for b in leaves}) == len(leaves)


class TestDrive:
    @staticmethod
    def steps(closed: list[str], fail: bool = False) -> Steps:
        try:
            for n in range(2):
                yield Request("github", "GET", f"/{n}")
            if fail:
                raise errors.Malformed("broken")
            return Observations.from_rows([])
        finally:
            closed.append("closed")

    async def test_answers_until_it_returns(self) -> None:
        closed: list[str] = []
        observations, requests = await drive(self.steps(closed), fetch_of(lambda _: Response(200, {}, b"")))
        assert (len(observations), requests, closed) == (0, 2, ["closed"])

    async def test_the_generator_is_closed_whatever_happens(self) -> None:
        for kind in (errors.Unavailable, ZeroDivisionError, asyncio.CancelledError):
            closed: list[str] = []

            def fail(_: Request, kind: Any = kind) -> Response:
                raise kind

            with pytest.raises(kind):
                await drive(self.steps(closed), fetch_of(fail))
            assert closed == ["closed"]
        closed = []
        with pytest.raises(errors.Malformed):
            await drive(self.steps(closed, fail=True), fetch_of(lambda _: Response(200, {}, b"")))
        assert closed == ["closed"]


class FakeStore:
    """Keeps what is committed and in which order; ``failures`` commits are refused first."""

    def __init__(self, planned: list[Batch], failures: int = 0) -> None:
        self.open = {b.batch_id for b in planned}
        self.ended: list[tuple[str, Any, tuple[Gap, ...]]] = []
        self.failures = failures

    async def commit_batch(self, batch: Batch, outcome: Any, now: datetime, gaps: tuple[Gap, ...] = ()) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise StoreError("the database is away")
        self.open.discard(batch.batch_id)
        self.open |= {p.batch_id for p in getattr(outcome, "parts", ())}
        self.ended.append((batch.batch_id, outcome, gaps))

    async def progress(self, run_id: int) -> list[Progress]:
        return [Progress("github", "planned", len(self.open), 0)] if self.open else []


class CheckedBroker(MemoryBroker):
    """Refuses an acknowledgement that comes before the commit."""

    def __init__(self, store: FakeStore) -> None:
        super().__init__()
        self.store = store
        self.returned: list[Batch] = []
        self.came_back = asyncio.Event()
        self.refused = 0

    async def ack(self, delivery: Delivery) -> None:
        assert delivery.batch.batch_id in [b for b, _, _ in self.store.ended], "acknowledged before the commit"
        if self.refused:
            self.refused -= 1
            raise BrokerError("away")
        await super().ack(delivery)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        self.returned.append(delivery.batch)
        self.came_back.set()
        await super().retry(delivery, delay_s)


async def drain(
    batches: list[Batch], answer: Callable[[Request], Response], failures: int = 0, refused: int = 0
) -> CheckedBroker:
    store = FakeStore(batches, failures)
    broker = CheckedBroker(store)
    broker.refused = refused
    await broker.publish(batches)
    # A run whose waits of minutes pass in milliseconds; its own time stands still.
    timeline = Timeline(NIGHT, 0.0, 100_000.0)
    async with asyncio.timeout(20):
        fetch = fetch_of(answer)
        await work("github", "w#1", 1, broker, store, lambda _: fetch, timeline, lambda: 0.0)  # type: ignore[arg-type]
    await broker.close()
    return broker


class TestWork:
    async def test_drains_and_returns(self) -> None:
        batches = [dataclasses.replace(COUNTS, batch_id=f"b{n}") for n in range(40)]
        broker = await drain(batches, sound)
        assert sorted(b for b, _, _ in broker.store.ended) == sorted(b.batch_id for b in batches)
        assert not broker.store.open
        assert not broker._unacked

    async def test_a_broken_repository_costs_itself_alone(self) -> None:
        many = tuple(Entity(n, f"p{n}", f"R_{n}", (f"o/p{n}",)) for n in range(8))

        def answer(request: Request) -> Response:
            ids = request.json["variables"]["ids"]
            if "R_5" in ids:
                return Response(502, {}, b"")
            nodes = [{"id": i, "nameWithOwner": "o/p", "stargazerCount": 5, "forkCount": 1} for i in ids]
            return Response(200, {}, json.dumps({"data": {"nodes": nodes}}).encode())

        broker = await drain([dataclasses.replace(COUNTS, entities=many, batch_id="")], answer)
        read = {int(e) for _, o, _ in broker.store.ended if isinstance(o, Done) for e in o.observations.entity_id}
        assert read == {0, 1, 2, 3, 4, 6, 7}
        (done,) = [o for _, o, _ in broker.store.ended if isinstance(o, Done)]
        assert {(g.entity_id, g.metric_id, g.retry) for g in done.observations.gaps} == {(5, 1, True), (5, 2, True)}
        assert broker.dead_letters == []

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

        broker = await drain([dataclasses.replace(COUNTS, entities=many, batch_id="")], answer)
        (done,) = [o for _, o, _ in broker.store.ended if isinstance(o, Done)]
        assert {(g.entity_id, g.metric_id, g.retry) for g in done.observations.gaps} == {(5, 1, True), (5, 2, True)}
        assert set(done.observations.entity_id.tolist()) == {0, 1, 2, 3, 4, 6, 7}
        assert broker.dead_letters == []

    async def test_an_outage_sets_the_batch_aside_and_leaves_gaps(self) -> None:
        many = tuple(Entity(n, f"p{n}", "", (f"o/p{n}",)) for n in range(8))
        broker = await drain(
            [dataclasses.replace(COUNTS, entities=many, batch_id="")], lambda _: Response(502, {}, b"")
        )
        ((dead, gaps),) = [(o, gaps) for _, o, gaps in broker.store.ended]
        assert isinstance(dead, DeadLetter)
        assert {(g.entity_id, g.metric_id) for g in gaps} == {(n, m) for n in range(8) for m in (1, 2)}
        assert len(broker.dead_letters) == 1

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

        broker = await drain([COUNTS], answer)
        assert [(b.pauses, b.attempt) for b in broker.returned[-2:]] == [(2 * MAX_ATTEMPTS, -1), (2 * MAX_ATTEMPTS, 0)]
        assert [type(o) for _, o, _ in broker.store.ended] == [Done]

    async def test_a_refused_commit_brings_the_batch_again(self) -> None:
        store = FakeStore([COUNTS], failures=1)
        broker = CheckedBroker(store)
        await broker.publish([COUNTS])
        worker = asyncio.create_task(
            work("github", "w#1", 1, broker, store, lambda _: fetch_of(sound), Timeline(NIGHT, 0.0), lambda: 0.0)  # type: ignore[arg-type]
        )
        async with asyncio.timeout(10):
            await broker.came_back.wait()
        assert store.open
        assert not store.ended
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await broker.close()
        assert not broker._unacked

    async def test_a_refused_acknowledgement_stops_nothing(self) -> None:
        batches = [dataclasses.replace(COUNTS, batch_id=f"b{n}") for n in range(3)]
        broker = await drain(batches, sound, refused=1)
        assert len(broker.store.ended) == 3
        assert len(broker._unacked) == 1
