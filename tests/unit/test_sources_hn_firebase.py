"""Hacker News item by item: the fall-back reads the same stories as the search, whatever stands between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.catalog import ORIGIN_BY_ID
from astrid.errors import Malformed, SourceError, TooLarge, Unavailable
from astrid.models import Batch, Done, Entity, Request, Response, RetryIn, Split, Story
from astrid.pipeline.crawl import handle_batch
from astrid.simulators.scenarios import CALM, SCENARIOS, Scenario
from astrid.simulators.simulation import Simulation
from astrid.sources.hackernews import crawl
from astrid.sources.hn_firebase import AT_ONCE, MAX_ITEMS, ROUNDS, parse_item, walk_items
from astrid.sources.source import PATIENCE
from tests.by_hand import BROKEN, JSON, ok, run, sound, table
from tests.synthetic_world import NIGHT, make_stories, make_world

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "hn-firebase" / "items_and_updates.json"
DAY = date(2026, 3, 30)
MIDNIGHT = int(datetime(2026, 3, 30, tzinfo=UTC).timestamp())
EXAMPLE = Entity(3, "example", "example", ("url:example.org",))


def item(number: int, time_s: int = MIDNIGHT, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "type": "story",
        "time": time_s,
        "title": "t",
        "url": "u",
        "score": 5,
        "descendants": 2,
    } | changes


def walk(items: dict[int, Any], first_s: int, end_s: int, newest: int) -> tuple[dict[int, Story], int]:
    """Walk over given items; return the stories and how many requests it took."""
    stories: dict[int, Story] = {}
    asked = 0
    steps = walk_items(first_s, end_s, stories)
    try:
        requests = next(steps)
        while True:
            asked += len(requests)
            requests = steps.send([serve(items, newest, r) for r in requests])
    except StopIteration:
        return stories, asked


def serve(items: dict[int, Any], newest: int, request: Request) -> Response:
    if request.path == "/v0/maxitem.json":
        return ok(newest)
    return ok(items.get(int(request.path.removeprefix("/v0/item/").removesuffix(".json"))))


class TestItems:
    def test_a_story(self) -> None:
        read = parse_item(ok(item(7, score=12)), 7)
        assert read is not None
        assert read.story == Story(7, datetime(2026, 3, 30, tzinfo=UTC), "t", "u", 12, 2)

    @pytest.mark.parametrize("change", [{"type": "comment"}, {"type": "job"}, {"dead": True}, {"deleted": True}])
    def test_what_is_no_story_still_has_a_time(self, change: dict[str, Any]) -> None:
        read = parse_item(ok(item(7) | change), 7)
        assert read is not None
        assert (read.time_s, read.story) == (MIDNIGHT, None)

    @pytest.mark.parametrize(
        "body", [None, item(7, time=None), item(7, time="1"), item(7, time=2**62), item(7, time=True)]
    )
    def test_nothing_there_or_without_a_time(self, body: Any) -> None:
        assert parse_item(ok(body), 7) is None

    @pytest.mark.parametrize("count", [None, -1, 2**31, "9", 1.5, True, []])
    def test_counts_that_are_none(self, count: Any) -> None:
        read = parse_item(ok(item(7, score=count, descendants=count, title=None, url=None)), 7)
        assert read is not None
        assert read.story is not None
        assert (read.story.points, read.story.comments, read.story.title, read.story.url) == (0, 0, "", "")

    @pytest.mark.parametrize("response", [r for r in BROKEN if r.body != b"null"])
    def test_what_is_no_item(self, response: Response) -> None:
        with pytest.raises((Malformed, Unavailable)):
            parse_item(response, 7)

    def test_another_item(self) -> None:
        with pytest.raises(Malformed, match="something else than item 7"):
            parse_item(ok(item(8)), 7)

    @given(
        JSON | st.dictionaries(st.sampled_from(["id", "time", "type", "score", "title", "dead"]), JSON), st.integers()
    )
    def test_any_json(self, body: Any, number: int) -> None:
        try:
            read = parse_item(ok(body), number)
        except SourceError:
            return
        assert read is None or read.story is None or 0 <= read.story.points < 2**31

    @pytest.mark.skipif(not SAMPLES.is_file(), reason="../shared/samples is not there")
    def test_documented_items(self) -> None:
        items = {k: v for k, v in json.loads(SAMPLES.read_text(encoding="utf-8")).items() if k.isdigit()}
        read = {int(k): parse_item(ok(v), int(k)) for k, v in items.items()}
        dropbox = read[8863]
        assert dropbox is not None
        assert dropbox.story is not None
        assert (dropbox.story.points, dropbox.story.comments) == (111, 71)
        assert dropbox.story.url == "http://www.getdropbox.com/u/2/screencast.html"
        comment = read[2921983]
        assert comment is not None
        assert comment.story is None


class TestWalk:
    @given(
        st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["story", "comment", "none", "dead"])), max_size=300),
        st.integers(0, 20_000),
        st.integers(1, 20_000),
    )
    def test_it_finds_what_a_look_at_everything_finds(
        self, steps: list[tuple[int, str]], first: int, length: int
    ) -> None:
        items: dict[int, Any] = {}
        time_s, expected = MIDNIGHT, set()
        for number, (step_s, kind) in enumerate(steps, 1):
            time_s += step_s
            if kind == "none":
                continue
            items[number] = item(number, time_s, type="comment" if kind == "comment" else "story", dead=kind == "dead")
            if kind == "story" and MIDNIGHT + first <= time_s < MIDNIGHT + first + length:
                expected.add(number)
        stories, _ = walk(items, MIDNIGHT + first, MIDNIGHT + first + length, max(1, len(steps)))
        assert set(stories) == expected

    def test_a_day_among_millions_costs_its_own_items_and_little_more(self) -> None:
        class Steady(dict[int, Any]):
            def get(self, number: int, default: Any = None) -> Any:  # type: ignore[override]
                return item(number, number * 5)

        newest = 40_000_000
        stories, asked = walk(Steady(), 150_000_000, 150_086_400, newest)
        assert set(stories) == set(range(30_000_000, 30_017_280))
        assert asked < 17_280 + 2_000

    def test_times_that_do_not_go_with_numbers_end_the_walk(self) -> None:
        class Wild(dict[int, Any]):
            def get(self, number: int, default: Any = None) -> Any:  # type: ignore[override]
                return item(number, 0 if number < 10 else 100 if number < 10 + 2 * MAX_ITEMS else 200)

        with pytest.raises(Malformed, match="items in"):
            walk(Wild(), 50, 150, 3 * MAX_ITEMS)

    @pytest.mark.parametrize("silent", [15, 16, 17, 500])
    def test_many_in_a_row_without_a_time_hide_no_story(self, silent: int) -> None:
        """Wherever the silence lies, a bisection that meets it must not take it for the end of the day."""
        for start in (100, 400, 480, 500, 520):
            items = {n: item(n, MIDNIGHT + 10 * n) for n in range(1, 2001) if not start <= n < start + silent}
            stories, _ = walk(items, MIDNIGHT, MIDNIGHT + 10_000, 2000)
            assert set(stories) == {n for n in items if n < 1000}

    def test_silence_without_an_end_is_no_day(self) -> None:
        items = {n: item(n, MIDNIGHT + n) for n in (*range(1, 100), *range(9_900, 10_000))}
        with pytest.raises(Malformed, match="no item with a time"):
            walk(items, MIDNIGHT + 50, MIDNIGHT + 9_950, 10_000)

    def test_answers_that_cannot_be_read_are_asked_for_again(self) -> None:
        items = {n: item(n, MIDNIGHT + n, url="https://example.org/a") for n in range(1, 301)}
        tries: dict[str, int] = {}

        def answer(request: Request) -> Response:
            tries[request.path] = tries.get(request.path, 0) + 1
            if request.path.endswith("7.json") and tries[request.path] % ROUNDS:
                return Response(200, {}, b'{"id": 7, "ti')
            return serve(items, 300, request)

        batch = Batch("hackernews", "window", DAY, DAY, DAY, (EXAMPLE,), attempt=PATIENCE)
        found, requests = run(crawl(batch), answer)
        assert table(sound(found, batch))[3, 21, DAY] == 300
        assert len([r for r in requests if r.path == "/v0/item/207.json"]) >= ROUNDS

    def test_answers_that_can_never_be_read_end_it(self) -> None:
        def answer(request: Request) -> Response:
            return ok(5) if "maxitem" in request.path else Response(502, {}, b"<html>")

        batch = Batch("hackernews", "window", DAY, DAY, DAY, (EXAMPLE,), attempt=PATIENCE)
        with pytest.raises(Unavailable):
            run(crawl(batch), answer)

    @pytest.mark.parametrize("newest", [0, -1, True, "9", None, 2**40, [1]])
    def test_a_newest_item_that_is_no_number(self, newest: Any) -> None:
        with pytest.raises(Malformed, match="newest item"):
            walk({}, 0, 1, newest)


class TestFallBack:
    def values(self, batch: Batch, simulation: Simulation) -> tuple[dict[Any, float], set[str], list[str]]:
        """Work a batch off as a worker does; return its values, their origins, and the outcomes."""

        async def work() -> tuple[dict[Any, float], set[str], list[str]]:
            waiting, values, origins, outcomes = [batch], {}, set(), []
            moment = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)

            async def fetch(request: Request) -> Response:
                return simulation.respond(request, token=None, now=moment, night=NIGHT)

            while waiting:
                some = waiting.pop(0)
                outcome = await handle_batch(some, fetch, lambda: moment)
                outcomes.append(type(outcome).__name__)
                match outcome:
                    case Done(observations=found):
                        values |= table(found)
                        origins |= {ORIGIN_BY_ID[int(o)].name for o in found.origin_id}
                    case Split(parts=parts):
                        waiting += parts
                    case RetryIn():
                        waiting.append(replace(some, attempt=some.attempt + 1))
                    case _:
                        raise AssertionError(outcome)
            return values, origins, outcomes

        return asyncio.run(work())

    def simulation(self, scenario: Scenario, stories: Sequence[Story]) -> Simulation:
        # Real numbers have others between them: comments, deleted and dead ones, some that are not there.
        spread = tuple(replace(s, story_id=40_000_000 + 7 * n) for n, s in enumerate(stories))
        return Simulation(make_world(stories=spread), {}, scenario=scenario)

    def test_while_the_search_is_down_the_same_values_come_from_the_items(self) -> None:
        stories = make_stories(900, step_s=240)
        batch = Batch(
            "hackernews",
            "window",
            NIGHT,
            NIGHT - timedelta(days=2),
            NIGHT,
            (EXAMPLE, replace(EXAMPLE, entity_id=4, slug="q", names=("name:Nobody",))),
        )
        calm, origins, _ = self.values(batch, self.simulation(CALM, stories))
        assert origins == {"hn_algolia"}
        down, origins, outcomes = self.values(batch, self.simulation(SCENARIOS["hn_search_down"], stories))
        assert origins == {"hn_firebase"}
        assert outcomes[: PATIENCE + 1] == ["RetryIn"] * PATIENCE + ["Split"]
        assert sorted(outcomes[PATIENCE + 1 :]) == ["Done"] * 3 + ["Split"], "day by day"
        assert down == calm
        assert sum(v for (_, metric, _), v in calm.items() if metric == 21) > 100

    def test_a_backfill_waits_for_the_search(self) -> None:
        batch = Batch("hackernews", "window", NIGHT, NIGHT, NIGHT, (EXAMPLE,), lane="backfill", attempt=PATIENCE)
        with pytest.raises(Unavailable):
            run(crawl(batch), lambda _: Response(503, {}, b""))

    def test_several_days_are_cut_into_single_ones(self) -> None:
        batch = Batch("hackernews", "window", NIGHT, NIGHT - timedelta(days=1), NIGHT, (EXAMPLE,), attempt=PATIENCE)
        with pytest.raises(TooLarge):
            run(crawl(batch), [])

    def test_a_search_that_lags_is_read_again(self) -> None:
        stories = make_stories(300, step_s=600)
        batch = Batch("hackernews", "window", NIGHT, NIGHT, NIGHT, (EXAMPLE,))
        key = (3, 21, NIGHT)
        late, _, _ = self.values(batch, self.simulation(SCENARIOS["hn_lag"], stories))
        calm, _, _ = self.values(batch, self.simulation(CALM, stories))
        assert late[key] < calm[key]

    def test_requests_go_out_at_once(self) -> None:
        under_way = most = 0

        async def fetch(request: Request) -> Response:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return serve({n: item(n, MIDNIGHT + n) for n in range(1, 500)}, 499, request)

        batch = Batch("hackernews", "window", DAY, DAY, DAY, (EXAMPLE,), attempt=PATIENCE)
        outcome = asyncio.run(handle_batch(batch, fetch, lambda: datetime(2026, 3, 31, 5, tzinfo=UTC)))
        assert isinstance(outcome, Done)
        assert most == AT_ONCE
        assert outcome.requests > 500

    def test_one_that_fails_ends_the_others(self) -> None:
        cancelled = 0

        async def fetch(request: Request) -> Response:
            nonlocal cancelled
            if "maxitem" in request.path:
                return ok(100)
            if request.path.endswith("/51.json"):
                raise Unavailable("down")
            try:
                await asyncio.Event().wait()  # an answer that never comes
            except asyncio.CancelledError:
                cancelled += 1
                raise
            return ok(None)

        batch = Batch("hackernews", "window", DAY, DAY, DAY, (EXAMPLE,), attempt=PATIENCE)
        outcome = asyncio.run(handle_batch(batch, fetch, lambda: datetime(2026, 3, 31, 5, tzinfo=UTC)))
        assert isinstance(outcome, RetryIn)
        assert cancelled == 15
