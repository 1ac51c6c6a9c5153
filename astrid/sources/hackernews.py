"""Hacker News: every story of a window of days from Algolia, matched here against all projects at once.

One window costs the same for ten projects and for ten thousand. A window with more hits than can be reached splits
itself. Points go on changing for days, so the last days are read again each night. While the search fails, or refuses,
the days are read item by item (:mod:`astrid.sources.hn_firebase`).
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
from astrid.models import Batch, Entity, Gap, Observations, Request, Response, Steps
from astrid.sources.hn_firebase import FIRST_S, LAST_S, Reading, is_whole, read_story, walk_items
from astrid.sources.source import PATIENCE, Price, Source, Task, days_between
from astrid.watchlist.matching import StoryMatcher

REACHABLE: Final = 1000
PAUSES: Final = 5
"""A search that refuses names no time, so pauses double from two minutes on. Five take more than an hour, in which any
limit of the search begins anew: one that still refuses is as good as down, and the night has hours left for items."""

BROKEN: Final = 0.1
"""One hit of a page, or this share of them, may be broken: then they are dropped, for they must not cost everybody the
day. Where more are, or all, the form of the answers has changed."""

SETTLED_DAYS: Final = 3
"""So many days after its end a day's points are final."""

NO_POINTS: Final = "Hacker News has no usable points for a story about this project"
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


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the search: its readable hits by story, the number of the others, and how many it counts in all.

    A ``full`` page has as many hits as can be reached: then there may be more, whatever ``total`` says.
    """

    stories: dict[int, Reading]
    dropped: int
    total: int
    full: bool

    @property
    def whole(self) -> bool:
        """Whether every story of the window is here, or is known to be unreadable; one that stands twice is one."""
        return not self.full and self.total <= len(self.stories) + self.dropped


def crawl(batch: Batch) -> Steps:
    """Read all stories created from ``batch.start`` to ``batch.end`` and count them per project and day.

    An entity's ``names`` are its rules: ``url:`` prefixes and ``name:`` exact product names. A project
    without a story has the value 0: the window was read whole, or the batch fails. One with a story whose points are
    no count has a gap in place of that day's points.

    A nightly batch that has failed :data:`~astrid.sources.source.PATIENCE` times, or paused :data:`PAUSES` times, is
    read from Firebase, day by day. A backfill's waits for the search: its months would take weeks.

    Raises
    ------
    TooLarge
        If more than a day is to be read from Firebase.
    """
    stories: dict[int, Reading] = {}
    first = datetime(batch.start.year, batch.start.month, batch.start.day, tzinfo=UTC)
    last = datetime(batch.end.year, batch.end.month, batch.end.day, tzinfo=UTC) + timedelta(days=1)
    if batch.lane != "nightly" or (batch.attempt < PATIENCE and batch.pauses < PAUSES):
        yield from _window(int(first.timestamp()), int(last.timestamp()), stories)
        return count_stories(batch, stories, ALGOLIA)
    if batch.start < batch.end:
        raise TooLarge("the search fails or refuses, and Firebase is read one day at a time")
    yield from walk_items(int(first.timestamp()), int(last.timestamp()), stories)
    return count_stories(batch, stories, FIREBASE)


def _window(first_s: int, end_s: int, stories: dict[int, Reading]) -> Generator[Request, Response, None]:
    """Collect the stories with first_s <= created_at_i < end_s, halving windows that hide some.

    A second that still hides some ends the batch: an upstream that miscounts must not be asked for ever. So does a hit
    outside the window, for an answer that does not obey its filter says nothing about what is inside.
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
    page = parse_page(response)
    for reading in page.stories.values():
        if not first_s <= reading.story.created_at.timestamp() < end_s:
            raise Malformed(
                f"Hacker News Search shows a story of {reading.story.created_at} between {first_s} and {end_s}"
            )
    if not page.whole:
        if end_s - first_s <= 1:
            shown = f"{page.total} stories in the second {first_s} and shows {len(page.stories)}"
            raise Malformed(f"Hacker News Search counts {shown}")
        middle = (first_s + end_s) // 2
        yield from _window(first_s, middle, stories)
        yield from _window(middle, end_s, stories)
        return
    stories.update(page.stories)


def parse_page(response: Response) -> Page:
    """Read one page of hits.

    Hits without id or time are dropped; an absent URL is an empty one.

    Raises
    ------
    Malformed, Unavailable
        If the answer is no page of hits, or one of which too many are broken, or an error of the upstream.
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
    if not isinstance(hits, list) or not is_whole(total) or total < 0:
        raise Malformed("Hacker News Search answered without hits or nbHits")
    readings = [reading for reading in (_read_hit(hit) for hit in hits) if reading is not None]
    dropped = len(hits) - len(readings)
    if dropped > min(len(readings), max(1, BROKEN * len(hits))):
        raise Malformed(f"Hacker News Search answered {len(hits)} hits, {dropped} of which cannot be read")
    return Page({r.story.story_id: r for r in readings}, dropped, total, len(hits) >= REACHABLE)


def _read_hit(hit: Any) -> Reading | None:
    if not isinstance(hit, dict):
        return None
    story_id, created_s = hit.get("objectID"), hit.get("created_at_i")
    if isinstance(story_id, str) and story_id.isascii() and story_id.isdigit() and len(story_id) < 16:
        story_id = int(story_id)
    if not is_whole(story_id) or story_id < 1 or not is_whole(created_s) or not FIRST_S <= created_s < LAST_S:
        return None
    return read_story(story_id, created_s, hit.get("title"), hit.get("url"), hit.get("points"), hit.get("num_comments"))


def count_stories(batch: Batch, stories: dict[int, Reading], origin_id: int) -> Observations:
    """Sum points and stories per entity and UTC day of creation; every entity has every day, or a gap."""
    matcher = StoryMatcher(_Rules.of(e) for e in batch.entities)
    ids = {e.slug: e.entity_id for e in batch.entities}
    points: dict[tuple[int, date], int] = {}
    counts: dict[tuple[int, date], int] = {}
    unscored: set[tuple[int, date]] = set()
    for _, reading in sorted(stories.items()):
        for slug in matcher.match(reading.story):
            key = (ids[slug], reading.story.created_at.date())
            points[key] = points.get(key, 0) + reading.story.points
            counts[key] = counts.get(key, 0) + 1
            if not reading.scored:
                unscored.add(key)
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    for day in days_between(batch.start, batch.end):
        for entity in batch.entities:
            key = (entity.entity_id, day)
            rows.append((entity.entity_id, STORIES, day, float(counts.get(key, 0)), origin_id))
            if key in unscored:
                # A window costs little to read once more; the items of a day cost a thousand times as much.
                doubtful = origin_id == ALGOLIA
                gaps.append(Gap(entity.entity_id, POINTS, day, NO_POINTS, True, doubtful=doubtful))
            else:
                rows.append((entity.entity_id, POINTS, day, float(points.get(key, 0)), origin_id))
    return Observations.from_rows(rows, gaps)


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
            lookback_days=SETTLED_DAYS + 1,
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
