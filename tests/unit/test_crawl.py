"""What becomes of one batch: every error to one reaction, nothing lost by splitting, no count of a wrong day."""

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
from astrid.errors import RateLimited, SourceError
from astrid.models import Batch, DeadLetter, Done, Entity, Gap, Observations, Request, Response, RetryIn, Split, Steps
from astrid.pipeline.crawl import (
    FIRST_RETRY_S,
    MAX_ATTEMPTS,
    MAX_PAUSES,
    drive,
    handle_batch,
    list_parts,
    lost_days,
    react,
    split,
)
from astrid.sources import SOURCES

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


def test_the_parts_of_a_batch_are_the_same_every_time() -> None:
    """Whoever finds a batch split publishes its parts without having crawled it."""
    outcome = react(COUNTS, GITHUB, errors.TooLarge())
    assert isinstance(outcome, Split)
    assert [p.batch_id for p in list_parts(COUNTS)] == [p.batch_id for p in outcome.parts]
    window = Batch("hackernews", "window", DAY, DAY - timedelta(days=3), DAY, TWO)
    assert [(p.start, p.end, p.entities) for p in list_parts(window)] == [
        (DAY - timedelta(days=3), DAY - timedelta(days=2), TWO),
        (DAY - timedelta(days=1), DAY, TWO),
    ]


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
