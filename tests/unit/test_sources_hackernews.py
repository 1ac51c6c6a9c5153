"""Hacker News windows, answered by hand, by recorded answers and by the simulator."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError, Unavailable
from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.hackernews import Algolia
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.hackernews import REACHABLE, crawl, parse_stories
from tests.by_hand import BROKEN, JSON, ok, run, sound, survives, table
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


def serve(hits: list[dict[str, Any]], reachable: int = REACHABLE) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        first, end = window_of(request)
        inside = [h for h in hits if first <= h["created_at_i"] < end]
        return page(*inside[:reachable], total=len(inside))

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
    hits = [hit(n, MIDNIGHT + t) for n, t in enumerate(times)]
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


def test_stories_outside_the_window_and_doubles_do_not_count() -> None:
    hits = [hit(1), hit(1), hit(2, MIDNIGHT - 1), hit(3, MIDNIGHT + 2 * 86_400)]
    found, _ = run(crawl(BATCH), [page(*hits)])
    assert table(found)[1, STORIES, DAY] == 1.0
    assert table(found)[1, POINTS, DAY] == 5.0


@pytest.mark.parametrize("points", [None, -5, True, 1.5, "7", [], {}, 2**31, 10**30])
def test_points_that_are_no_count_are_none(points: Any) -> None:
    found, _ = run(crawl(BATCH), [page(hit(1, points=points, num_comments=points))])
    assert table(sound(found, BATCH))[1, POINTS, DAY] == 0.0
    assert table(found)[1, STORIES, DAY] == 1.0


@pytest.mark.parametrize(
    "bad",
    [
        None,
        5,
        [],
        {},
        hit(1, objectID=None),
        hit(1, objectID="x"),
        hit(1, created_at_i=None),
        hit(1, created_at_i="x"),
        hit(1, created_at_i=10**18),
        hit(1, created_at_i=[]),
        hit(1, objectID="9" * 5000),
    ],
)
def test_a_broken_hit_costs_itself_alone(bad: Any) -> None:
    found, _ = run(crawl(BATCH), [page(bad, hit(7))])
    assert table(sound(found, BATCH))[1, STORIES, DAY] == 1.0


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
        *[page(total=t) for t in ("1", True, 1.5)],
    ],
)
def test_what_is_no_page(response: Response) -> None:
    with pytest.raises(SourceError) as caught:
        run(crawl(BATCH), [response])
    assert isinstance(caught.value, Unavailable if response.status >= 500 else Malformed)


def test_a_negative_total_is_no_reason_to_search_on() -> None:
    assert parse_stories(page(hit(1), total=-7))[1] == 0


@given(JSON, st.lists(st.fixed_dictionaries(dict.fromkeys(hit(1), JSON)) | JSON, max_size=3), st.integers() | JSON)
def test_any_json(whole: Any, hits: Any, total: Any) -> None:
    for value in (whole, {"hits": hits, "nbHits": total}, {"hits": hits, "nbHits": len(hits)}):
        survives(lambda: crawl(BATCH), lambda _, v=value: ok(v), BATCH)


@needs_samples
def test_recorded_answers() -> None:
    recorded = json.loads((SAMPLES / "recorded_26_requests.json").read_text())
    searches = [r for r in recorded if r["url"].startswith("/api/v1/search")]
    assert len(searches) > 10
    for one in searches:
        stories, total = parse_stories(ok(one["reply"]))
        assert len(stories) == len(one["reply"]["hits"])
        assert total == one["reply"]["nbHits"]
    refusal = json.loads((SAMPLES / "error_points_not_filterable_400.json").read_text())
    with pytest.raises(Malformed, match="invalid numeric attribute"):
        parse_stories(ok(refusal["body"], refusal["status"]))


def ask(algolia: Algolia, request: Request) -> Response:
    now = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
    return algolia.respond(request, token=None, now=now, night=NIGHT)


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
