"""Hacker News windows, answered by hand, by recorded answers and by the simulator."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError, Unavailable
from astrid.models import Batch, Done, Entity, Gap, Request, Response
from astrid.pipeline.crawl import handle_batch
from astrid.simulators.hackernews import BAD_POINTS, Algolia, points_as_of
from astrid.simulators.scenarios import CALM, SCENARIOS, load_scenario
from astrid.simulators.upstream import reading_moment
from astrid.simulators.world import World
from astrid.sources.hackernews import NO_POINTS, REACHABLE, SOURCE, crawl, parse_page
from tests.by_hand import BROKEN, JSON, mostly, ok, run, sound, survives, table
from tests.synthetic_world import NIGHT, make_stories, make_world

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "hn-algolia"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
DAY = date(2026, 3, 30)
MIDNIGHT = int(datetime(2026, 3, 30, tzinfo=UTC).timestamp())
POINTS, STORIES = 20, 21
OLLAMA = Entity(1, "ollama", "ollama", ("url:github.com/ollama/ollama", "url:ollama.com"))
QUIET = Entity(2, "quiet", "quiet", ("url:github.com/owner/quiet",))
BATCH = Batch("hackernews", "window", DAY, DAY, DAY + timedelta(days=1), (OLLAMA, QUIET))


def hit(n: int, at_s: int = MIDNIGHT, **changes: Any) -> dict[str, Any]:
    url = "https://github.com/ollama/ollama"
    return {
        "objectID": str(n),
        "created_at_i": at_s,
        "title": "x",
        "url": url,
        "points": 5,
        "num_comments": 1,
    } | changes


def page(*hits: Any, total: Any = None) -> Response:
    return ok({"hits": list(hits), "nbHits": len(hits) if total is None else total})


def window_of(request: Request) -> tuple[int, int]:
    found = re.fullmatch(r"created_at_i>=(\d+),created_at_i<(\d+)", dict(request.params)["numericFilters"])
    assert found is not None
    return int(found[1]), int(found[2])


def serve(
    hits: list[dict[str, Any]], reachable: int = REACHABLE, most: int | None = None
) -> Callable[[Request], Response]:
    """Answer windows of ``hits``, of which some can be reached; the total says ``most`` at most."""

    def answer(request: Request) -> Response:
        first, end = window_of(request)
        inside = [h for h in hits if first <= h["created_at_i"] < end]
        return page(*inside[:reachable], total=len(inside) if most is None else min(most, len(inside)))

    return answer


def test_one_request_counts_everyone_and_silence_is_a_zero() -> None:
    late = MIDNIGHT + 86_400
    hits = [hit(1), hit(2, MIDNIGHT + 86_399, points=7), hit(3, late, url="https://ollama.com/blog"), hit(4, url="")]
    found, (request,) = run(crawl(BATCH), [page(*hits)])
    assert table(sound(found, BATCH)) == {
        (1, POINTS, DAY): 12.0,
        (1, STORIES, DAY): 2.0,
        (1, POINTS, DAY + timedelta(days=1)): 5.0,
        (1, STORIES, DAY + timedelta(days=1)): 1.0,
        **{(2, m, DAY + timedelta(days=n)): 0.0 for m in (POINTS, STORIES) for n in (0, 1)},
    }
    assert window_of(request) == (MIDNIGHT, MIDNIGHT + 2 * 86_400)
    assert dict(request.params)["tags"] == "story"


@given(st.lists(st.integers(0, 2 * 86_400 - 1), max_size=60), st.integers(1, 9))
def test_windows_that_hide_stories_are_halved_until_all_are_seen(times: list[int], reachable: int) -> None:
    crowded = max((times.count(t) for t in times), default=0)
    hits = [hit(n, MIDNIGHT + t) for n, t in enumerate(times, 1)]
    if crowded > reachable:
        with pytest.raises(Malformed, match="in the second"):
            run(crawl(BATCH), serve(hits, reachable))
        return
    found, requests = run(crawl(BATCH), serve(hits, reachable))
    assert sum(v for (e, m, _), v in table(sound(found, BATCH)).items() if (e, m) == (1, STORIES)) == len(times)
    assert len({window_of(r) for r in requests}) == len(requests)


@pytest.mark.parametrize("total", [1, 10**9, 2**63 - 1])
def test_an_upstream_that_miscounts_is_not_asked_for_ever(total: int) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        return page(total=total)

    with pytest.raises(Malformed, match="in the second"):
        run(crawl(BATCH), answer)
    assert len(asked) < 25


@pytest.mark.parametrize("count", [REACHABLE - 1, REACHABLE, REACHABLE + 1, 5 * REACHABLE])
def test_a_full_page_hides_some_whatever_the_total_says(count: int) -> None:
    """A total that is cut at what can be reached, as of an index that counts no further, must not end the search."""
    hits = [hit(n + 1, MIDNIGHT + 17 * n) for n in range(count)]
    found, requests = run(crawl(BATCH), serve(hits, most=REACHABLE))
    assert sum(v for (e, m, _), v in table(sound(found, BATCH)).items() if (e, m) == (1, STORIES)) == count
    assert (len(requests) == 1) == (count < REACHABLE)


def test_a_second_with_a_full_page_cannot_be_split() -> None:
    with pytest.raises(Malformed, match="in the second"):
        run(crawl(BATCH), serve([hit(n) for n in range(1, REACHABLE + 1)]))


def test_a_story_that_stands_twice_is_one() -> None:
    found, _ = run(crawl(BATCH), [page(hit(1), hit(1, title="y"), hit(2), total=2)])
    assert table(found)[1, STORIES, DAY] == 2.0
    assert table(found)[1, POINTS, DAY] == 10.0


def test_one_that_stands_twice_does_not_stand_for_one_that_is_hidden() -> None:
    """The page has as many hits as are counted, and yet one story is missing: the halves show it."""
    hits = [hit(1), hit(2, MIDNIGHT + 1), hit(3, MIDNIGHT + 86_400)]
    halves = serve(hits)
    whole = (MIDNIGHT, MIDNIGHT + 2 * 86_400)
    found, requests = run(crawl(BATCH), lambda r: page(*hits[:2], hits[1]) if window_of(r) == whole else halves(r))
    assert sum(v for (_, m, _), v in table(found).items() if m == STORIES) == 3
    assert len(requests) == 3
    with pytest.raises(Malformed, match="in the second"):
        run(crawl(BATCH), lambda r: page(hit(1, window_of(r)[0]), hit(1, window_of(r)[0])))


@pytest.mark.parametrize("at_s", [MIDNIGHT - 1, MIDNIGHT + 2 * 86_400, MIDNIGHT - 86_400])
def test_a_story_outside_the_window_shows_that_the_answer_is_another_ones(at_s: int) -> None:
    for hits in ([hit(1, at_s)], [hit(1), hit(2, at_s)], [hit(n, at_s) for n in range(9)]):
        with pytest.raises(Malformed, match="shows a story of"):
            run(crawl(BATCH), [page(*hits)])


@pytest.mark.parametrize("points", [None, -5, True, 1.5, "7", [], {}, 2**31, 10**30])
def test_points_that_are_no_count_are_a_gap_and_the_story_counts(points: Any) -> None:
    day_after = DAY + timedelta(days=1)
    hits = [hit(1, points=points), hit(2), hit(3, MIDNIGHT + 86_400), hit(4, url="", points=points)]
    found, _ = run(crawl(BATCH), [page(*hits)])
    values = table(sound(found, BATCH))
    assert found.gaps == (Gap(1, POINTS, DAY, NO_POINTS, True),)
    assert (1, POINTS, DAY) not in values
    assert (values[1, STORIES, DAY], values[1, POINTS, day_after]) == (2.0, 5.0)
    assert values[2, POINTS, DAY] == 0.0, "a story about nothing costs nobody"


def test_absent_points_are_none_and_comments_do_not_matter() -> None:
    without = hit(1)
    del without["points"]
    found, _ = run(crawl(BATCH), [page(without)])
    assert [g.reason for g in found.gaps] == [NO_POINTS]
    found, _ = run(crawl(BATCH), [page(hit(1, num_comments="many"))])
    assert not found.gaps


def test_points_that_come_in_a_second_answer_fill_the_gap() -> None:
    asked = 0

    async def fetch(_: Request) -> Response:
        nonlocal asked
        asked += 1
        return page(hit(1, points=None if asked == 1 else 6), hit(2, points=7))

    outcome = asyncio.run(handle_batch(BATCH, fetch, lambda: datetime(2026, 4, 1, 5, tzinfo=UTC)))
    assert isinstance(outcome, Done)
    assert (outcome.requests, outcome.observations.gaps) == (2, ())
    assert table(sound(outcome.observations, BATCH))[1, POINTS, DAY] == 13.0


BAD_HITS = (
    None,
    5,
    [],
    {},
    hit(1, objectID=None),
    hit(1, objectID="x"),
    hit(1, objectID="²"),
    hit(1, objectID=""),
    hit(1, objectID="-7"),
    hit(1, objectID=-7),
    hit(1, objectID=0),
    hit(1, objectID=True),
    hit(1, objectID=1.0),
    hit(1, objectID=1.9),
    hit(1, objectID="1.0"),
    hit(1, objectID="9" * 5000),
    hit(1, created_at_i=None),
    hit(1, created_at_i="x"),
    hit(1, created_at_i=str(MIDNIGHT)),
    hit(1, created_at_i=float(MIDNIGHT)),
    hit(1, created_at_i=True),
    hit(1, created_at_i=0),
    hit(1, created_at_i=10**18),
    hit(1, created_at_i=[]),
)


@pytest.mark.parametrize("bad", BAD_HITS)
def test_a_broken_hit_costs_itself_alone(bad: Any) -> None:
    found, _ = run(crawl(BATCH), [page(bad, hit(7))])
    assert table(sound(found, BATCH))[1, STORIES, DAY] == 1.0
    with pytest.raises(Malformed, match="cannot be read"):
        run(crawl(BATCH), [page(bad)])


@pytest.mark.parametrize(
    ("count", "broken", "believed"),
    [(1, 0, True), (1, 1, False), (2, 1, True), (3, 2, False), (50, 5, True), (50, 6, False), (500, 500, False)],
)
def test_where_more_than_a_tenth_cannot_be_read_nothing_is_a_count(count: int, broken: int, believed: bool) -> None:
    hits = [hit(n, created_at_i=None if n <= broken else MIDNIGHT) for n in range(1, count + 1)]
    if not believed:
        with pytest.raises(Malformed, match=f"{count} hits, {broken} of which cannot be read"):
            run(crawl(BATCH), [page(*hits)])
        return
    found, _ = run(crawl(BATCH), [page(*hits)])
    assert table(found)[1, STORIES, DAY] == count - broken


def test_an_id_may_be_a_number_or_a_text_of_one_and_story_id_says_nothing() -> None:
    found, _ = run(
        crawl(BATCH), [page(hit(1, objectID=1, story_id=9), hit(1, story_id=1), hit(2, story_id=2), total=2)]
    )
    assert table(found)[1, STORIES, DAY] == 2.0


@pytest.mark.parametrize("odd", [None, 5, [], {"a": 1}, True])
def test_odd_titles_and_urls(odd: Any) -> None:
    found, _ = run(crawl(BATCH), [page(hit(1, title=odd), hit(2, url=odd))])
    assert table(sound(found, BATCH))[1, STORIES, DAY] == 1.0


@pytest.mark.parametrize(
    "response",
    [
        *BROKEN,
        ok([]),
        ok({}),
        ok({"hits": {}, "nbHits": 1}),
        ok({"hits": []}),
        *[page(hit(1), total=t) for t in ("1", True, 1.5, -1, -(2**63))],
    ],
)
def test_what_is_no_page(response: Response) -> None:
    with pytest.raises(SourceError) as caught:
        run(crawl(BATCH), [response])
    assert isinstance(caught.value, Unavailable if response.status >= 500 else Malformed)


def answers() -> st.SearchStrategy[Any]:
    """Return answers of which each part is sound more often than not, so that every check is reached."""
    parts = {
        "objectID": st.sampled_from(["1", "2", "3", 4]) | JSON,
        "created_at_i": st.sampled_from([MIDNIGHT, MIDNIGHT + 86_400, MIDNIGHT + 2 * 86_400]) | JSON,
        "title": mostly("x"),
        "url": mostly(hit(1)["url"]),
        "points": mostly(5),
        "num_comments": mostly(1),
    }
    hits = st.lists(st.fixed_dictionaries(parts) | st.builds(hit, st.integers(1, 9)), max_size=4)
    counted = hits.flatmap(lambda h: st.fixed_dictionaries({"hits": st.just(h), "nbHits": mostly(len(h))}))
    loose = st.fixed_dictionaries({"hits": hits | JSON, "nbHits": JSON})
    return st.integers(0, 9).flatmap(lambda n: counted if n < 8 else loose if n < 9 else JSON)


def look(answer: Any) -> str:
    """Say what becomes of one answer that is given to every request, and check it against an obvious count."""
    try:
        found, _ = run(crawl(BATCH), lambda _: ok(answer))
    except SourceError as exc:
        said = str(exc)
        assert len(said) < 500
        kinds = ("without hits", "cannot be read", "shows a story of", "in the second", "not JSON")
        return next(kind for kind in kinds if kind in said)
    values = table(sound(found, BATCH))
    readable = [
        h
        for h in answer["hits"]
        if isinstance(h, dict)
        and type(h.get("created_at_i")) is int
        and MIDNIGHT <= h["created_at_i"] < MIDNIGHT + 2 * 86_400
        and re.fullmatch("int[1-9][0-9]*|str0*[1-9][0-9]*", f"{type(h.get('objectID')).__name__}{h.get('objectID')}")
    ]
    linked = {int(h["objectID"]) for h in readable if h.get("url") == hit(1)["url"]}
    stories = sum(v for (e, m, _), v in values.items() if (e, m) == (1, STORIES))
    # Of one that stands twice with two URLs the last one counts.
    assert len({int(h["objectID"]) for h in readable}) >= stories >= 0
    if len(readable) == len({int(h["objectID"]) for h in readable}):
        assert stories == len(linked)
    assert all(g.reason == NO_POINTS for g in found.gaps)
    return "gap" if found.gaps else "stories" if stories else "no story"


@given(answers())
def test_any_json(answer: Any) -> None:
    look(answer)


@pytest.mark.parametrize(
    "kind", ["without hits", "cannot be read", "shows a story of", "in the second", "gap", "stories", "no story"]
)
def test_any_json_reaches_every_check(kind: str) -> None:
    once = settings(max_examples=1000, derandomize=True, database=None, phases=[Phase.generate])
    find(answers(), lambda a: look(a) == kind, settings=once)


@needs_samples
def test_recorded_answers() -> None:
    recorded = json.loads((SAMPLES / "recorded_26_requests.json").read_text())
    searches = [r for r in recorded if r["url"].startswith("/api/v1/search")]
    assert len(searches) > 10
    for one in searches:
        read = parse_page(ok(one["reply"]))
        assert (len(read.stories), read.dropped) == (len(one["reply"]["hits"]), 0)
        assert read.total == one["reply"]["nbHits"]
    refusal = json.loads((SAMPLES / "error_points_not_filterable_400.json").read_text())
    with pytest.raises(Malformed, match="invalid numeric attribute"):
        parse_page(ok(refusal["body"], refusal["status"]))


def ask(algolia: Algolia, request: Request) -> Response:
    now = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
    return algolia.respond(request, token=None, now=now, night=NIGHT)


EXAMPLE = Entity(3, "example", "example", ("url:example.org",))


def spread_world(count: int, step_s: int = 600) -> World:
    """Return a world whose stories have other numbers between them, as real ones have: a number every 8 s."""
    stories = make_stories(count, step_s=step_s)
    return make_world(stories=tuple(replace(s, story_id=40_000_000 + step_s // 8 * n) for n, s in enumerate(stories)))


def expected(world: World, batch: Batch, burst_s: int = 1) -> Counter[tuple[int, int, date]]:
    """Count what the world holds of ``EXAMPLE``, with the points at the moment of reading."""
    counts: Counter[tuple[int, int, date]] = Counter()
    for story in world.stories:
        day = story.created_at.date()
        if story.url and batch.start <= day <= batch.end:
            counts[3, STORIES, day] += 1
            created_s = story.created_at.timestamp() // burst_s * burst_s
            moved = replace(story, created_at=datetime.fromtimestamp(created_s, UTC))
            counts[3, POINTS, day] += points_as_of(moved, reading_moment(NIGHT).timestamp())
    return counts


def night_of(days: int) -> Batch:
    return Batch("hackernews", "window", NIGHT, NIGHT - timedelta(days=days - 1), NIGHT, (EXAMPLE,))


@pytest.mark.parametrize("scenario", ["calm", "hn_crowded", "hn_bursts", "hn_newer_form", "hn_typos"])
def test_what_a_scenario_adds_changes_no_count(scenario: str) -> None:
    world, batch = spread_world(800), night_of(4)
    algolia = Algolia(world, scenario=load_scenario(scenario))
    answers: list[tuple[Request, Any]] = []

    def answer(request: Request) -> Response:
        response = ask(algolia, request)
        answers.append((request, response.json()))
        return response

    found, requests = run(crawl(batch), answer)
    assert table(sound(found, batch)) == expected(world, batch, algolia.scenario.hn_burst_s or 1)
    assert not found.gaps
    crowded = scenario in ("hn_crowded", "hn_bursts")
    assert (answers[0][1]["nbHits"] > 3 * REACHABLE) == crowded
    assert (len(requests) > 1) == crowded
    if scenario == "hn_bursts":
        borders = {second for request, _ in answers for second in window_of(request)}
        created = Counter(h["created_at_i"] for _, body in answers for h in body["hits"])
        assert max(created[second] for second in borders) > 50, "no burst lies on a border of two windows"
    if scenario == "hn_newer_form":
        (hits,) = (body["hits"] for _, body in answers)
        assert {(type(h["objectID"]), type(h["story_id"])) for h in hits} == {(str, int)}


def test_a_night_of_real_size_costs_some_dozen_requests() -> None:
    algolia = Algolia(spread_world(800), scenario=SCENARIOS["hn_crowded"])
    _, requests = run(crawl(night_of(4)), lambda r: ask(algolia, r))
    assert len(requests) < 100


def test_stories_with_points_that_are_no_count() -> None:
    world, batch = spread_world(800, 120), night_of(1)
    scenario = replace(load_scenario("hn_bad_points"), hn_bad_points=0.01)
    calm, _ = run(crawl(batch), lambda r: ask(Algolia(world), r))
    assert not calm.gaps
    bad: list[Any] = []
    for seed in range(30):
        algolia = Algolia(world, scenario=replace(scenario, seed=seed))
        seen: list[Any] = []

        def answer(request: Request, algolia: Algolia = algolia, seen: list[Any] = seen) -> Response:
            response = ask(algolia, request)
            seen += [h["points"] for h in response.json()["hits"] if h["url"]]
            return response

        found, _ = run(crawl(batch), answer)
        values = table(sound(found, batch))
        spoilt = [p for p in seen if p in BAD_POINTS]
        bad += spoilt
        assert values[3, STORIES, NIGHT] == table(calm)[3, STORIES, NIGHT]
        assert [g.metric_id for g in found.gaps] == [POINTS] * bool(spoilt)
        assert values.get((3, POINTS, NIGHT)) == (None if spoilt else table(calm)[3, POINTS, NIGHT])
    assert {str(p) for p in bad} == {str(p) for p in BAD_POINTS}


def test_points_rise_from_night_to_night_until_the_last_reading() -> None:
    """The last of the nights that read a day reads what any later one would."""
    world = spread_world(2400)
    algolia = Algolia(world, scenario=CALM)
    day = NIGHT - timedelta(days=6)
    points = []
    for n in range(6):
        batch = Batch("hackernews", "window", day, day, day, (EXAMPLE,))
        moment, night = reading_moment(day + timedelta(days=n)), day + timedelta(days=n)
        found, _ = run(
            crawl(batch),
            lambda r, m=moment, n=night: algolia.respond(r, token=None, now=m, night=n),  # type: ignore[misc]
        )
        points.append(table(found)[3, POINTS, day])
    last = SOURCE.tasks["window"].lookback_days - 1
    assert points == sorted(points)
    assert points[0] < points[1] < points[2] < points[last] == points[4] == points[5]
    assert last == 3


def test_against_the_simulator() -> None:
    stories = make_stories(1500, step_s=60)
    algolia = Algolia(make_world(stories=stories))
    entity = Entity(3, "example", "example", ("url:example.org",))
    batch = Batch("hackernews", "window", NIGHT, NIGHT - timedelta(days=1), NIGHT, (entity,))
    found, requests = run(crawl(batch), lambda r: ask(algolia, r))
    linked = [s for s in stories if s.url and s.created_at.date() >= batch.start]
    assert sum(v for (_, m, _), v in table(sound(found, batch)).items() if m == STORIES) == len(linked)
    assert sum(v for (_, m, _), v in table(found).items() if m == POINTS) <= sum(s.points for s in linked)
    assert len(requests) > 1


def test_against_a_simulator_that_misbehaves() -> None:
    hard = replace(SCENARIOS["faults"], probability=0.5)
    algolia = Algolia(make_world(), scenario=hard)
    for n in range(20):
        day = NIGHT - timedelta(days=n)
        batch = Batch("hackernews", "window", NIGHT, day, day, (OLLAMA,))
        survives(lambda b=batch: crawl(b), lambda r: ask(algolia, r), batch)
