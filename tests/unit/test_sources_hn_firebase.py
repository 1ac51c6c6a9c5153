"""Hacker News item by item: the fall-back reads the same stories as the search, whatever stands between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from astrid.catalog import ORIGIN_BY_ID, ORIGIN_BY_NAME
from astrid.errors import Malformed, RateLimited, SourceError, TooLarge, Unavailable
from astrid.models import Batch, Done, Entity, Gap, Request, Response, RetryIn, Split, Story
from astrid.pipeline.crawl import handle_batch
from astrid.simulators.hackernews import Algolia
from astrid.simulators.scenarios import CALM, SCENARIOS, Scenario
from astrid.simulators.simulation import Simulation
from astrid.sources.hackernews import NO_POINTS, PAUSES, crawl
from astrid.sources.hn_firebase import AT_ONCE, FIRST_S, FUTURE_S, MAX_ITEMS, ROUNDS, Reading, parse_item, walk_items
from astrid.sources.source import PATIENCE
from tests.by_fetcher import crawl_batches
from tests.by_hand import BROKEN, JSON, mostly, ok, run, sound, table
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


def walk(items: dict[int, Any], first_s: int, end_s: int, newest: Any) -> tuple[dict[int, Reading], list[int]]:
    """Walk over given items; return the stories, and the numbers that were asked for."""
    stories: dict[int, Reading] = {}
    asked: list[int] = []
    steps = walk_items(first_s, end_s, stories)
    try:
        requests = next(steps)
        while True:
            asked += [number_of(r) for r in requests if r.path != "/v0/maxitem.json"]
            assert len(asked) < 3 * MAX_ITEMS, "the walk does not end"
            requests = steps.send([serve(items, newest, r) for r in requests])
    except StopIteration:
        return stories, asked


def number_of(request: Request) -> int:
    return int(request.path.removeprefix("/v0/item/").removesuffix(".json"))


def serve(items: dict[int, Any], newest: Any, request: Request) -> Response:
    return ok(newest) if request.path == "/v0/maxitem.json" else ok(items.get(number_of(request)))


def filled(story_count: int, step_s: int = 10, **changes: Any) -> dict[int, Any]:
    """Return stories one after another from midnight on."""
    return {n: item(n, MIDNIGHT + step_s * n, **changes) for n in range(1, story_count + 1)}


BODIES = JSON | st.fixed_dictionaries(
    {"id": mostly(7), "time": st.sampled_from([MIDNIGHT, 0]) | mostly(MIDNIGHT)},
    optional={
        "type": st.sampled_from(["story", "comment"]) | mostly("story"),
        "score": mostly(5),
        "title": mostly("t"),
        "url": mostly("u"),
        "descendants": JSON,
        "dead": JSON,
        "deleted": JSON,
    },
)
ONCE = settings(max_examples=2000, derandomize=True, database=None, phases=[Phase.generate])


class TestItems:
    def test_a_story(self) -> None:
        read = parse_item(ok(item(7, score=12)), 7)
        assert read is not None
        assert read.reading == Reading(Story(7, datetime(2026, 3, 30, tzinfo=UTC), "t", "u", 12, 2), scored=True)

    @pytest.mark.parametrize("change", [{"type": "comment"}, {"type": "job"}, {"dead": True}, {"deleted": True}])
    def test_what_is_no_story_still_has_a_time(self, change: dict[str, Any]) -> None:
        read = parse_item(ok(item(7) | change), 7)
        assert read is not None
        assert (read.time_s, read.reading) == (MIDNIGHT, None)

    @pytest.mark.parametrize(
        "body", [None, *(item(7, time=t) for t in (None, "1", 2**62, 2**36, True, 1.0, -1, 0, FIRST_S - 1))]
    )
    def test_nothing_there_or_without_a_time(self, body: Any) -> None:
        assert parse_item(ok(body), 7) is None

    def test_the_first_item_of_all_has_a_time(self) -> None:
        read = parse_item(ok(item(1, 1_160_418_111)), 1)
        assert read is not None
        assert read.time_s == 1_160_418_111

    @pytest.mark.parametrize("count", [None, -1, 2**31, "9", 1.5, True, []])
    def test_counts_that_are_none(self, count: Any) -> None:
        read = parse_item(ok(item(7, score=count, descendants=count, title=None, url=None)), 7)
        assert read is not None
        assert read.reading == Reading(Story(7, datetime(2026, 3, 30, tzinfo=UTC), "", "", 0, 0), scored=False)

    @pytest.mark.parametrize("odd", [5, ["t"], {"t": 1}, True])
    def test_a_title_or_url_that_is_no_text(self, odd: Any) -> None:
        read = parse_item(ok(item(7, title=odd, url=odd)), 7)
        assert read is not None
        assert read.reading is not None
        assert (read.reading.story.title, read.reading.story.url) == ("", "")

    @pytest.mark.parametrize("response", [r for r in BROKEN if r.body != b"null"])
    def test_what_is_no_item(self, response: Response) -> None:
        with pytest.raises((Malformed, Unavailable)):
            parse_item(response, 7)

    @pytest.mark.parametrize("number", [8, 7.0, "7", None, [7]])
    def test_another_item(self, number: Any) -> None:
        with pytest.raises(Malformed, match="something else than item 7"):
            parse_item(ok(item(number)), 7)

    def test_true_is_no_number(self) -> None:
        with pytest.raises(Malformed, match="something else than item 1"):
            parse_item(ok(item(1, id=True)), 1)

    @given(BODIES)
    def test_any_json(self, body: Any) -> None:
        assert self.look(body)

    @pytest.mark.parametrize("kind", ["refused", "nothing", "no story", "a story", "a story without points"])
    def test_any_json_reaches_every_check(self, kind: str) -> None:
        find(BODIES, lambda body: self.look(body) == kind, settings=ONCE)

    def look(self, body: Any) -> str:
        """Say what becomes of a body, and check it against what the body says."""
        try:
            read = parse_item(ok(body), 7)
        except SourceError:
            assert body is not None
            assert not isinstance(body, dict) or type(body.get("id")) is not int or body["id"] != 7
            return "refused"
        if read is None:
            assert body is None or type(body.get("time")) is not int or not FIRST_S <= body["time"] < 2**36
            return "nothing"
        assert read.time_s == body["time"]
        if read.reading is None:
            assert body.get("type") != "story" or body.get("dead") or body.get("deleted")
            return "no story"
        score = body.get("score")
        assert read.reading.scored == (type(score) is int and 0 <= score < 2**31)
        assert read.reading.story.points == (score if read.reading.scored else 0)
        return "a story" if read.reading.scored else "a story without points"

    @pytest.mark.skipif(not SAMPLES.is_file(), reason="../shared/samples is not there")
    def test_documented_items(self) -> None:
        items = {k: v for k, v in json.loads(SAMPLES.read_text(encoding="utf-8")).items() if k.isdigit()}
        read = {int(k): parse_item(ok(v), int(k)) for k, v in items.items()}
        dropbox = read[8863]
        assert dropbox is not None
        assert dropbox.reading is not None
        assert (dropbox.reading.story.points, dropbox.reading.story.comments) == (111, 71)
        assert dropbox.reading.story.url == "http://www.getdropbox.com/u/2/screencast.html"
        comment = read[2921983]
        assert comment is not None
        assert comment.reading is None


KINDS = ("story", "story", "story", "comment", "none", "dead", "early", "late")
"""What may stand under a number: two kinds of stories have times that cannot be."""


def lay_out(steps: Sequence[tuple[int, str]]) -> tuple[dict[int, Any], dict[int, int]]:
    """Return items and the times of the stories whose times can be; of five times in a row one may be absurd."""
    items: dict[int, Any] = {}
    stories: dict[int, int] = {}
    time_s, timed = MIDNIGHT, 0
    for number, (step_s, kind) in enumerate(steps, 1):
        time_s += step_s
        if kind == "none":
            continue
        timed += 1
        absurd = {"early": timed, "late": 2**31 + timed}.get(kind) if timed % 5 == 0 else None
        kind = "comment" if kind == "comment" else "story"
        items[number] = item(number, absurd or time_s, type=kind, dead=steps[number - 1][1] == "dead")
        if absurd is None and kind == "story" and not items[number]["dead"]:
            stories[number] = time_s
    return items, stories


class TestWalk:
    @given(
        st.lists(st.tuples(st.integers(0, 400), st.sampled_from(KINDS)), max_size=300),
        st.integers(0, 20_000),
        st.integers(1, 20_000),
    )
    def test_it_finds_what_a_look_at_everything_finds(
        self, steps: list[tuple[int, str]], first: int, length: int
    ) -> None:
        assert self.look(steps, first, length)

    @pytest.mark.parametrize("kind", ["cut", "some", "none", "absurd"])
    def test_such_walks_show_something(self, kind: str) -> None:
        steps = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(KINDS)), min_size=20, max_size=300)
        cases = st.tuples(steps, st.integers(0, 20_000), st.integers(1, 20_000))
        find(cases, lambda case: kind in self.look(*case), settings=ONCE)

    def look(self, steps: list[tuple[int, str]], first: int, length: int) -> set[str]:
        """Check a walk against a look at everything; say what it showed."""
        items, times = lay_out(steps)
        first_s, end_s = MIDNIGHT + first, MIDNIGHT + first + length
        expected = {n for n, time_s in times.items() if first_s <= time_s < end_s}
        sane = [i["time"] for i in items.values() if MIDNIGHT <= i["time"] < 2**31]
        if max(sane, default=0) < end_s:
            with pytest.raises(Unavailable, match="or later"):
                walk(items, first_s, end_s, max(1, len(steps)))
            return {"cut"}
        stories, _ = walk(items, first_s, end_s, len(steps))
        assert set(stories) == expected
        return {"some" if expected else "none", "absurd" if len(sane) < len(items) and expected else ""}

    def test_a_day_among_millions_costs_its_own_items_and_little_more(self) -> None:
        first_s = 1_400_000_000

        class Steady(dict[int, Any]):
            def get(self, number: int, default: Any = None) -> Any:  # type: ignore[override]
                return item(number, first_s + number * 5)

        stories, asked = walk(Steady(), first_s + 150_000_000, first_s + 150_086_400, 40_000_000)
        assert set(stories) == set(range(30_000_000, 30_017_280))
        assert len(asked) < 17_280 + 1_000

    def test_times_that_do_not_go_with_numbers_end_the_walk(self) -> None:
        class Wild(dict[int, Any]):
            def get(self, number: int, default: Any = None) -> Any:  # type: ignore[override]
                late = 0 if number < 10 else 100 if number < 10 + 2 * MAX_ITEMS else 200
                return item(number, MIDNIGHT + late)

        with pytest.raises(Malformed, match="items in"):
            walk(Wild(), MIDNIGHT + 50, MIDNIGHT + 150, 3 * MAX_ITEMS)

    @pytest.mark.parametrize("absurd_s", [0, FIRST_S, 2**31, MIDNIGHT + 10 * 1500 + FUTURE_S])
    def test_one_absurd_time_wherever_a_bisection_looks_costs_its_own_story_at_most(self, absurd_s: int) -> None:
        items = filled(1500)
        first_s, end_s = MIDNIGHT + 6_000, MIDNIGHT + 8_000
        stories, asked = walk(items, first_s, end_s, 1500)
        assert set(stories) == set(range(600, 800))
        for number in set(asked):
            stories, _ = walk(items | {number: item(number, absurd_s)}, first_s, end_s, 1500)
            assert set(stories) == set(range(600, 800)) - {number}, number

    @pytest.mark.parametrize("place", [1, 626, 1000, 1251, 2000, 2501, 2996])
    def test_absurd_times_in_a_row_that_mislead_the_bisection_are_walked_around(self, place: int) -> None:
        """Sixteen numbers in a row that all lie: the border is looked for until a hundred items tell where it is."""
        for absurd_s in (FIRST_S, MIDNIGHT + 10 * 5000):
            items = filled(5000) | {n: item(n, absurd_s) for n in range(place, place + 16)}
            stories, _ = walk(items, MIDNIGHT + 10_000, MIDNIGHT + 30_000, 5000)
            assert set(stories) == set(range(1000, 3000)) - set(range(place, place + 16))

    def test_some_absurd_times_beyond_the_border_do_not_make_a_walk_longer(self) -> None:
        items = filled(5000) | {n: item(n, FIRST_S) for n in range(25, 5000, 50)}
        stories, asked = walk(items, MIDNIGHT + 10_000, MIDNIGHT + 20_000, 5000)
        assert set(stories) == set(range(1000, 2000)) - set(range(25, 5000, 50))
        assert len([n for n in asked if n > 2200]) < 100

    @pytest.mark.parametrize("absurd_s", [2**31, MIDNIGHT + 10 * 3000 + 2 * FUTURE_S])
    def test_times_that_nobody_has_reached_yet_do_not_end_a_day(self, absurd_s: int) -> None:
        for place in (1000, 1400, 1450, 1500, 1550):
            items = filled(3000) | {n: item(n, absurd_s) for n in range(place, place + 250)}
            stories, _ = walk(items, MIDNIGHT + 10_000, MIDNIGHT + 20_000, 3000)
            assert set(stories) == set(range(1000, 2000)) - set(range(place, place + 250))

    def test_numbers_that_are_given_a_little_before_their_times_are_found_beyond_the_border(self) -> None:
        items = filled(3000)
        for early, late in ((970, 1029), (1970, 2029)):
            items[early], items[late] = item(early, items[late]["time"]), item(late, items[early]["time"])
        stories, _ = walk(items, MIDNIGHT + 10_000, MIDNIGHT + 20_000, 3000)
        assert set(stories) == set(range(1000, 2000)) - {1029, 1970} | {970, 2029}

    def test_a_day_that_is_not_over_there_is_not_read(self) -> None:
        """An answer that stands still hides the rest of a day; its stories would look like all that there were."""
        for newest in (1, 500, 1999):
            with pytest.raises(Unavailable, match="no item of 2026-03-30 05:33 or later"):
                walk(filled(newest), MIDNIGHT, MIDNIGHT + 20_000, newest)
        with pytest.raises(Unavailable, match="or later"):
            walk({}, MIDNIGHT, MIDNIGHT + 20_000, 5)
        stories, _ = walk(filled(2000), MIDNIGHT, MIDNIGHT + 20_000, 2000)
        assert set(stories) == set(range(1, 2000))

    @given(
        st.lists(
            st.sampled_from([MIDNIGHT - 10**6, MIDNIGHT, MIDNIGHT + 50, MIDNIGHT + 10**6, 0, 2**31, 2**40]),
            max_size=200,
        ),
        st.integers(1, 250),
    )
    def test_whatever_times_there_are_only_stories_of_the_days_are_found(self, times: list[int], newest: int) -> None:
        items = {n: item(n, time_s) for n, time_s in enumerate(times, 1)}
        try:
            stories, asked = walk(items, MIDNIGHT, MIDNIGHT + 100, newest)
        except SourceError:
            return
        assert all(MIDNIGHT <= items[n]["time"] < MIDNIGHT + 100 for n in stories)
        assert len(asked) < 4000
        assert set(asked) <= set(range(1, newest + 1))

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

    def test_silence_in_a_day_that_no_bisection_meets(self) -> None:
        items = {n: i for n, i in filled(40_000, 1).items() if not 25_100 <= n < 29_400}
        with pytest.raises(Malformed, match="no item with a time among"):
            walk(items, MIDNIGHT + 20_050, MIDNIGHT + 35_000, 40_000)

    def test_a_bisection_does_not_look_through_a_million_numbers(self) -> None:
        newest = 1_000_000
        items = {n: item(n, MIDNIGHT + n) for n in (*range(1, 100), *range(newest - 100, newest + 1))}
        with pytest.raises(Malformed, match="no item with a time from 500001 to 50"):
            walk(items, MIDNIGHT + 50, MIDNIGHT + 90, newest)

    def test_answers_that_cannot_be_read_are_asked_for_again(self) -> None:
        items = filled(300, 1, url="https://example.org/a") | {301: item(301, MIDNIGHT + 86_400)}
        tries: dict[str, int] = {}

        def answer(request: Request) -> Response:
            tries[request.path] = tries.get(request.path, 0) + 1
            if request.path.endswith("7.json") and tries[request.path] % ROUNDS:
                return Response(200, {}, b'{"id": 7, "ti')
            return serve(items, 301, request)

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


@dataclass
class Worked:
    """What a batch came to: its values and their origins, its gaps, and what became of it on the way."""

    values: dict[Any, float] = field(default_factory=dict)
    origins: set[str] = field(default_factory=set)
    gaps: list[Gap] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)


class TestFallBack:
    def work(self, batch: Batch, simulation: Simulation) -> Worked:
        """Work a batch off as a worker does; a refusal that names no time makes it wait for a while."""
        moment = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)

        async def fetch(request: Request) -> Response:
            response = simulation.respond(request, token=None, now=moment, night=NIGHT)
            if response.status == 429:
                raise RateLimited("too many", retry_after_s=600.0)
            return response

        async def work() -> Worked:
            waiting, worked = [batch], Worked()
            while waiting:
                some = waiting.pop(0)
                outcome = await handle_batch(some, fetch, lambda: moment)
                worked.outcomes.append(type(outcome).__name__)
                match outcome:
                    case Done(observations=found):
                        worked.values |= table(sound(found, some))
                        worked.origins |= {ORIGIN_BY_ID[int(o)].name for o in found.origin_id}
                        worked.gaps += found.gaps
                    case Split(parts=parts):
                        waiting += parts
                    case RetryIn(pause=pause):
                        step = {"pauses": some.pauses + 1} if pause else {"attempt": some.attempt + 1}
                        waiting.append(replace(some, **step))  # type: ignore[arg-type]
                    case _:
                        raise AssertionError(outcome)
            return worked

        return asyncio.run(work())

    def simulation(self, scenario: Scenario, stories: Sequence[Story]) -> Simulation:
        # Real numbers have others between them: comments, deleted and dead ones, some that are not there.
        spread = tuple(replace(s, story_id=40_000_000 + 7 * n) for n, s in enumerate(stories))
        return Simulation(make_world(stories=spread), {}, scenario=scenario)

    @pytest.mark.parametrize("name", ["calm", "hn_crowded", "hn_bursts"])
    def test_while_the_search_is_down_the_same_values_come_from_the_items(self, name: str) -> None:
        stories = make_stories(900, step_s=240)
        batch = Batch(
            "hackernews",
            "window",
            NIGHT,
            NIGHT - timedelta(days=2),
            NIGHT,
            (EXAMPLE, replace(EXAMPLE, entity_id=4, slug="q", names=("name:Nobody",))),
        )
        up = self.work(batch, self.simulation(SCENARIOS[name], stories))
        assert up.origins == {"hn_algolia"}
        down = self.work(batch, self.simulation(replace(SCENARIOS[name], hn_search_down=True), stories))
        assert down.origins == {"hn_firebase"}
        assert down.outcomes[: PATIENCE + 1] == ["RetryIn"] * PATIENCE + ["Split"]
        assert sorted(down.outcomes[PATIENCE + 1 :]) == ["Done"] * 3 + ["Split"], "day by day"
        assert down.values == up.values
        assert sum(v for (_, metric, _), v in up.values.items() if metric == 21) > 100

    def test_a_search_that_refuses_for_hours_is_left_while_there_is_night(self) -> None:
        stories = make_stories(900, step_s=240)
        batch = Batch("hackernews", "window", NIGHT, NIGHT - timedelta(days=1), NIGHT, (EXAMPLE,))
        calm = self.work(batch, self.simulation(CALM, stories))
        refused = self.work(batch, self.simulation(replace(SCENARIOS["hn_too_many"], probability=1.0), stories))
        assert (refused.values, refused.origins) == (calm.values, {"hn_firebase"})
        assert refused.outcomes[: PAUSES + 1] == ["RetryIn"] * PAUSES + ["Split"]

    def test_a_search_that_refuses_is_left_after_its_longest_limit_has_begun_anew(self) -> None:
        """With the real fetcher and budget, which have no way to Firebase here, so that the time shows."""
        refusing = Algolia(make_world(), scenario=replace(SCENARIOS["hn_too_many"], probability=1.0))
        batch = Batch("hackernews", "window", NIGHT, NIGHT, NIGHT, (EXAMPLE,))
        crawled = crawl_batches([batch], refusing, NIGHT)
        assert crawled.outcomes == ["RetryIn"] * PAUSES + ["DeadLetter"]
        assert "hn_firebase" in crawled.dead[0]
        assert 1.0 < crawled.seconds / 3600 < 1.5

    def test_who_has_waited_now_and_then_asks_the_search_again(self) -> None:
        """A budget that begins anew waits a whole window by itself, and a store that is away makes batches pause."""
        batch = Batch("hackernews", "window", NIGHT, NIGHT, NIGHT, (EXAMPLE,), pauses=PAUSES - 1)
        assert self.work(batch, self.simulation(CALM, make_stories(50))).origins == {"hn_algolia"}

    @pytest.mark.parametrize("tried", [{"attempt": PATIENCE}, {"pauses": 59}])
    def test_a_backfill_waits_for_the_search(self, tried: dict[str, int]) -> None:
        batch = Batch("hackernews", "window", NIGHT, NIGHT, NIGHT, (EXAMPLE,), lane="backfill", **tried)  # type: ignore[arg-type]
        with pytest.raises(Unavailable):
            run(crawl(batch), lambda _: Response(503, {}, b""))

    def test_of_both_ways_the_later_reading_stands(self) -> None:
        """Points grow: a value of the search must not stand for ever before what is read while the search is down."""
        ways = {ORIGIN_BY_NAME[name].precedence for name in ("hn_algolia", "hn_firebase")}
        assert len(ways) == 1

    def test_points_that_are_no_count_are_a_gap_and_are_not_walked_for_again(self) -> None:
        stories = make_stories(300, step_s=600)
        batch = Batch("hackernews", "window", NIGHT, NIGHT, NIGHT, (EXAMPLE,), attempt=PATIENCE)
        scenario = replace(SCENARIOS["hn_bad_points"], hn_bad_points=0.1)
        worked = self.work(batch, self.simulation(scenario, stories))
        assert worked.gaps == [Gap(3, 20, NIGHT, NO_POINTS, True)]
        assert not worked.gaps[0].doubtful
        calm = self.work(batch, self.simulation(CALM, stories))
        assert worked.values == {key: v for key, v in calm.values.items() if key[1] == 21}
        by_search = self.work(replace(batch, attempt=0), self.simulation(scenario, stories))
        assert (by_search.values, by_search.gaps) == (worked.values, worked.gaps)

    def test_several_days_are_cut_into_single_ones(self) -> None:
        batch = Batch("hackernews", "window", NIGHT, NIGHT - timedelta(days=1), NIGHT, (EXAMPLE,), attempt=PATIENCE)
        with pytest.raises(TooLarge):
            run(crawl(batch), [])

    def test_a_search_that_lags_is_read_again(self) -> None:
        stories = make_stories(300, step_s=600)
        batch = Batch("hackernews", "window", NIGHT, NIGHT, NIGHT, (EXAMPLE,))
        key = (3, 21, NIGHT)
        late, calm = (self.work(batch, self.simulation(SCENARIOS[n], stories)) for n in ("hn_lag", "calm"))
        assert late.values[key] < calm.values[key]

    def test_requests_go_out_at_once(self) -> None:
        under_way = most = 0

        async def fetch(request: Request) -> Response:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return serve(filled(499, 200), 499, request)

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
            if request.path.endswith("/95.json"):
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
