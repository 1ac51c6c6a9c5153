"""Hacker News: every story of a window of days from Algolia, matched here against all projects at once.

One window costs the same for ten projects and for ten thousand. A window with more hits than can be reached splits
itself. Points go on changing for days, so the last days are read again each night. While the search fails the days are
read item by item (:mod:`astrid.sources.hn_firebase`).
Facts: Algolia's HN Search API page; at most 1,000 hits are reachable; only ``created_at_i`` filters.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Observations, Request, Response, Steps, Story
from astrid.sources.hn_firebase import read_count, walk_items
from astrid.sources.source import PATIENCE, Price, Source, Task, days_between
from astrid.watchlist.matching import StoryMatcher

REACHABLE: Final = 1000
POINTS: Final = METRIC_BY_NAME["hn_points"].metric_id
STORIES: Final = METRIC_BY_NAME["hn_stories"].metric_id
ALGOLIA: Final = ORIGIN_BY_NAME["hn_algolia"].origin_id
FIREBASE: Final = ORIGIN_BY_NAME["hn_firebase"].origin_id


@dataclass(frozen=True, slots=True)
class _Rules:
    """The matching rules that travel in an entity's ``names``."""

    slug: str
    hn_urls: tuple[str, ...]
    hn_names: tuple[str, ...]

    @staticmethod
    def of(entity: Entity) -> _Rules:
        urls = tuple(n.removeprefix("url:") for n in entity.names if n.startswith("url:"))
        names = tuple(n.removeprefix("name:") for n in entity.names if n.startswith("name:"))
        return _Rules(entity.slug, urls, names)


def crawl(batch: Batch) -> Steps:
    """Read all stories created from ``batch.start`` to ``batch.end`` and count them per project and day.

    An entity's ``names`` are its rules: ``url:`` prefixes and ``name:`` exact product names. A project
    without a story has the value 0: the window was read whole, or the batch fails.

    A nightly batch that has failed :data:`~astrid.sources.source.PATIENCE` times is read from Firebase, day by day. A
    backfill's waits for the search: its months would take weeks.

    Raises
    ------
    TooLarge
        If more than a day is to be read from Firebase.
    """
    stories: dict[int, Story] = {}
    first = datetime(batch.start.year, batch.start.month, batch.start.day, tzinfo=UTC)
    last = datetime(batch.end.year, batch.end.month, batch.end.day, tzinfo=UTC) + timedelta(days=1)
    if batch.attempt < PATIENCE or batch.lane != "nightly":
        yield from _window(int(first.timestamp()), int(last.timestamp()), stories)
        return count_stories(batch, stories, ALGOLIA)
    if batch.start < batch.end:
        raise TooLarge("the search fails, and Firebase is read one day at a time")
    yield from walk_items(int(first.timestamp()), int(last.timestamp()), stories)
    return count_stories(batch, stories, FIREBASE)


def _window(first_s: int, end_s: int, stories: dict[int, Story]) -> Generator[Request, Response, None]:
    """Collect the stories with first_s <= created_at_i < end_s, halving windows that hide some.

    A second that still hides some ends the batch: an upstream that miscounts must not be asked for ever.
    """
    response = yield Request(
        "hn_algolia",
        "GET",
        "/api/v1/search_by_date",
        (
            ("tags", "story"),
            ("numericFilters", f"created_at_i>={first_s},created_at_i<{end_s}"),
            ("hitsPerPage", str(REACHABLE)),
            ("page", "0"),
        ),
    )
    found, total = parse_stories(response)
    if total > len(found):
        if end_s - first_s <= 1:
            raise Malformed(f"Hacker News Search counts {total} stories in the second {first_s} and shows {len(found)}")
        middle = (first_s + end_s) // 2
        yield from _window(first_s, middle, stories)
        yield from _window(middle, end_s, stories)
        return
    stories.update((s.story_id, s) for s in found if first_s <= s.created_at.timestamp() < end_s)


def parse_stories(response: Response) -> tuple[list[Story], int]:
    """Read one page of hits: the valid stories, and how many the upstream counts in all.

    Hits without id or time are dropped; absent points and comments count as 0 (they are null for some
    kinds of items), an absent URL as empty.

    Raises
    ------
    Malformed, Unavailable
        If the answer is no page of hits, or an error of the upstream.
    """
    if response.status >= 500:
        raise Unavailable(f"Hacker News Search answered {response.status}")
    if response.status != 200:
        raise Malformed(
            f"Hacker News Search answered {response.status}: {response.body[:160].decode('utf-8', 'replace')}"
        )
    body = response.json()
    hits = body.get("hits") if isinstance(body, dict) else None
    total = body.get("nbHits") if isinstance(body, dict) else None
    if not isinstance(hits, list) or not isinstance(total, int) or isinstance(total, bool):
        raise Malformed("Hacker News Search answered without hits or nbHits")
    stories = [s for s in (_story(h) for h in hits) if s is not None]
    # A dropped hit was counted upstream; it must not look like one that could not be reached.
    return stories, max(0, total - (len(hits) - len(stories)))


def _story(hit: Any) -> Story | None:
    if not isinstance(hit, dict):
        return None
    try:
        story_id, created_s = int(hit["objectID"]), int(hit["created_at_i"])
        created_at = datetime.fromtimestamp(created_s, UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
    points, comments = hit.get("points"), hit.get("num_comments")
    return Story(
        story_id,
        created_at,
        str(hit.get("title") or ""),
        str(hit.get("url") or ""),
        read_count(points),
        read_count(comments),
    )


def count_stories(batch: Batch, stories: dict[int, Story], origin_id: int) -> Observations:
    """Sum points and stories per entity and UTC day of creation; every entity has every day."""
    matcher = StoryMatcher(_Rules.of(e) for e in batch.entities)
    ids = {e.slug: e.entity_id for e in batch.entities}
    points: dict[tuple[int, date], int] = {}
    counts: dict[tuple[int, date], int] = {}
    for story in sorted(stories.values(), key=lambda s: s.story_id):
        for slug in matcher.match(story):
            key = (ids[slug], story.created_at.date())
            points[key] = points.get(key, 0) + story.points
            counts[key] = counts.get(key, 0) + 1
    rows = []
    for day in days_between(batch.start, batch.end):
        for entity in batch.entities:
            key = (entity.entity_id, day)
            rows.append((entity.entity_id, POINTS, day, float(points.get(key, 0)), origin_id))
            rows.append((entity.entity_id, STORIES, day, float(counts.get(key, 0)), origin_id))
    return Observations.from_rows(rows)


def _price(_: Task, entities: Sequence[Entity], days: int) -> Price:
    """Price some days: a request reads about fifteen of them, where windows do not have to be split."""
    requests = 1 + days / 15
    return Price(requests, requests)


SOURCE: Final = Source(
    name="hackernews",
    upstream="hn_algolia",
    key="rules",
    tasks={
        "window": Task(
            "window",
            ("hn_points", "hn_stories"),
            "dated",
            "core",
            100_000,
            31,
            3,
            cadence_days=1,
            lookback_days=3,
            span="windows",
            price=_price,
        )
    },
    crawl=crawl,
    concurrency=4,
    budgets={
        "hn_algolia": BudgetSpec({"core": BucketSpec((Window(9_800, 3600.0),))}, concurrency=4),
        "hn_firebase": BudgetSpec({"core": BucketSpec((Window(60, 1.0),))}, concurrency=20),
    },
)
