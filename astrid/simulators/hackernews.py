"""Hacker News: the Algolia search by date, and the Firebase items, over the stories of a world.

A story's final points are real; how they grew is made up: with the square root of its age, done after
three days. Authors are made up too, and so is all that a scenario adds, and what stands between two stories: comments,
deleted ones, numbers without an item. Facts: HN Search API page and recorded answers; since June 2026 only
``created_at_i`` can be filtered; at most 1,000 hits are reachable whatever ``nbHits`` says.
"""

from __future__ import annotations

import hashlib
import html
import math
import re
from bisect import bisect_left
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from astrid.models import Response, Story
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, json_response, made_up, read_whole, reading_moment

if TYPE_CHECKING:
    from astrid.simulators.world import World

REACHABLE: Final = 1000
DAY_S: Final = 86_400
GROWTH_S: Final = 3 * DAY_S
HOURLY: Final = Window("requests", 10_000, 3600.0)
UNREADABLE: Final = 3
"""Firebase counts items that it does not show yet."""
BEFORE_S: Final = 4.0
AFTER_S: Final = 60.0
"""So many seconds pass from item to item before the first story of a world, and after its last one."""
DAYS_KEPT: Final = 64
BAD_POINTS: Final[tuple[Any, ...]] = (None, -5, "many")
SHORTEST_TYPO: Final = 4
"""Shorter words are searched for as they are (Algolia's default ``minWordSizefor1Typo``)."""
_FILTER: Final = re.compile(r"(\w+)(<=|>=|!=|=|<|>)(-?[0-9]{1,18})")
_ITEM: Final = re.compile(r"/v0/item/([0-9]{1,18})\.json")


def as_of(final: int, story: Story, moment_s: float) -> int:
    """Return a count of a story at a moment: it rises with the root of the age to ``final`` within three days."""
    age = max(0.0, moment_s - story.created_at.timestamp())
    return final if age >= GROWTH_S else int(final * math.sqrt(age / GROWTH_S))


def points_as_of(story: Story, moment_s: float) -> int:
    """Return the points at a moment; a story starts with the one of its author."""
    return max(min(1, story.points), as_of(story.points, story, moment_s))


def author_of(story: Story) -> str:
    """Return a made-up name: the world does not state who submitted a story."""
    return "user" + hashlib.blake2b(str(story.story_id).encode(), digest_size=3).hexdigest()


class Feed:
    """Everything that has a number: a world's stories, those that a scenario adds, and what lies between.

    Numbers rise with times, evenly between two stories of the world.
    """

    def __init__(self, world: World, scenario: Scenario) -> None:
        self.scenario = scenario
        own = (replace(s, created_at=self._moment(s.created_at.timestamp())) for s in world.stories)
        self._own = world.stories if not scenario.hn_burst_s else tuple(own)
        self._created = [int(s.created_at.timestamp()) for s in self._own]
        self._by_id = {s.story_id: s for s in self._own}
        self._ids = sorted(self._by_id)
        self._times = [self._by_id[n].created_at.timestamp() for n in self._ids]
        self._days: dict[int, tuple[Story, ...]] = {}

    def time_of(self, number: int) -> float:
        """Return when a number was given, in epoch seconds; for ever after in a world without stories."""
        after = bisect_left(self._ids, number)
        if not self._ids:
            return math.inf
        if after == 0:
            return self._times[0] - BEFORE_S * (self._ids[0] - number)
        earlier, earlier_s = self._ids[after - 1], self._times[after - 1]
        if after == len(self._ids):
            return earlier_s + AFTER_S * (number - earlier)
        share = (number - earlier) / (self._ids[after] - earlier)
        return earlier_s + share * (self._times[after] - earlier_s)

    def first_since(self, moment_s: float) -> int:
        """Return the first number that was given at a moment or later."""
        return bisect_left(range(2**40), moment_s, key=self.time_of)

    def story(self, number: int) -> Story | None:
        """Return the story of a number, the world's or a made-up one about nothing; None for what is none."""
        every = self.scenario.hn_crowd
        if number in self._by_id or not every or number % every or not self._ids or number < self._ids[0]:
            return self._by_id.get(number)
        created_at = self._moment(self.time_of(number))
        url = f"https://elsewhere.invalid/{number}"
        return Story(number, created_at, f"Made-up story {number}", url, number % 90, number % 40)

    def next_story(self, number: int) -> Story | None:
        """Return the next story of the world from a number on."""
        after = bisect_left(self._ids, number)
        return self._by_id[self._ids[after]] if after < len(self._ids) else None

    def between(self, first_s: int, end_s: int) -> list[Story]:
        """Return the stories with first_s <= created < end_s, oldest first."""
        found = list(self._own[bisect_left(self._created, first_s) : max(0, bisect_left(self._created, end_s))])
        if not self.scenario.hn_crowd or not self._created:
            return found
        for day in range(max(first_s, self._created[0]) // DAY_S, (end_s - 1) // DAY_S + 1):
            found += [s for s in self._crowd(day) if first_s <= s.created_at.timestamp() < end_s]
        return sorted(found, key=lambda s: (s.created_at, s.story_id))

    def points(self, story: Story, moment_s: float) -> Any:
        """Return what is stated as a story's points at a moment: a count, or what the scenario puts in its place."""
        draw, share = made_up(f"{self.scenario.seed}|hn|{story.story_id}|points"), self.scenario.hn_bad_points
        return BAD_POINTS[int(draw / share * len(BAD_POINTS))] if draw < share else points_as_of(story, moment_s)

    def _crowd(self, day: int) -> tuple[Story, ...]:
        """Return the made-up stories of a day, counted from 1970; a few days' are kept."""
        if day not in self._days:
            if len(self._days) >= DAYS_KEPT:
                self._days.clear()
            every = self.scenario.hn_crowd
            first, end = self.first_since(day * DAY_S), self.first_since((day + 1) * DAY_S)
            stories = (self.story(n) for n in range(first + -first % every, end, every) if n not in self._by_id)
            self._days[day] = tuple(s for s in stories if s is not None)
        return self._days[day]

    def _moment(self, time_s: float) -> datetime:
        burst_s = self.scenario.hn_burst_s or 1
        return datetime.fromtimestamp(time_s // burst_s * burst_s, UTC)


class Algolia(Upstream):
    """``hn.algolia.com``: /api/v1/search_by_date and /api/v1/search (both newest first), 10,000 requests an hour."""

    name = "hn_algolia"

    def __init__(
        self, world: World, *, scenario: Scenario = CALM, hourly: Window = HOURLY, tolerance_s: float = 0.0
    ) -> None:
        super().__init__(world, Limits(tolerance_s=tolerance_s), scenario)
        self._hourly = hourly
        self._feed = Feed(world, scenario)

    def answer(self, call: Call) -> Response:
        """Answer a search; unknown paths are 404, filters on other attributes 400."""
        refusal = self.limits.take(call.account, call.client, self._hourly, 1, call.now)
        if refusal is not None:
            return self.refuse(call, refusal)
        if call.request.method != "GET" or call.request.path not in ("/api/v1/search_by_date", "/api/v1/search"):
            return json_response(call, {"status": 404, "error": "Not Found"}, 404)
        if self.scenario.hn_search_down:
            return Response(503, {"content-type": "text/html"}, b"<html><h1>503 Service Unavailable</h1></html>")
        moment_s = reading_moment(call.night).timestamp() - self.scenario.hn_lag_s
        conditions = []
        for text in ",".join(v for k, v in call.request.params if k == "numericFilters").split(","):
            if not text.strip():
                continue
            match = _FILTER.fullmatch(text.strip())
            if match is None:
                return _bad(call, f"invalid numeric filter: {text.strip()}")
            if match[1] != "created_at_i":
                return _bad(
                    call,
                    f"invalid numeric attribute({match[1]}), attribute not specified in "
                    "numericAttributesForFiltering setting",
                )
            conditions.append((match[2], int(match[3])))
        found = self._matching(call, conditions, int(moment_s))
        size = min(read_whole(call.param("hitsPerPage"), 20), REACHABLE)
        page = read_whole(call.param("page"), 0)
        reachable = found[: min(len(found), REACHABLE)]
        hits = reachable[page * size : (page + 1) * size] if size else []
        pages = math.ceil(min(len(found), REACHABLE) / size) if size else 0
        given = {"advancedSyntax": "true", "analytics": "false"} | dict(call.request.params)
        body = {
            "hits": [self._hit(story, moment_s) for story in hits],
            "nbHits": len(found),
            "page": page,
            "nbPages": pages,
            "hitsPerPage": size,
            "processingTimeMS": 7,
            "query": call.param("query"),
            "params": urlencode(sorted(given.items())),
        }
        if self.scenario.hn_newer_form:
            exhaustive = len(found) <= REACHABLE
            body |= {"exhaustive": {"nbHits": exhaustive, "typo": True}, "exhaustiveNbHits": exhaustive}
            body |= {"exhaustiveTypo": True, "processingTimingsMS": {"total": 7}, "serverTimeMS": 8}
        return json_response(call, body)

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 in Algolia's form."""
        return json_response(call, {"message": "Too many requests", "status": 429}, 429)

    def _matching(self, call: Call, conditions: list[tuple[str, int]], until_s: int) -> list[Story]:
        """Return the stories that satisfy filters, tags and query, newest first."""
        first_s, end_s = 0, until_s + 1
        unequal = set()
        for operator, bound in conditions:
            if operator in (">", ">=", "="):
                first_s = max(first_s, bound + (operator == ">"))
            if operator in ("<", "<=", "="):
                end_s = min(end_s, bound + (operator != "<"))
            if operator == "!=":
                unequal.add(bound)
        stories = self._feed.between(first_s, end_s)[::-1]
        wanted = _tag_groups(call.param("tags"))
        words = call.param("query").lower().split()
        if wanted == [{"story"}] and not unequal and not words:
            return stories
        return [
            s
            for s in stories
            if int(s.created_at.timestamp()) not in unequal
            and (wanted == [{"story"}] or all(group & set(_tags(s)) for group in wanted))
            and all(word in s.title.lower() or word in s.url.lower() or self._mistakes(call, word, s) for word in words)
        ]

    def _hit(self, story: Story, moment_s: float) -> dict[str, Any]:
        """Return a story as a hit: in the older, recorded form, or with what newer answers add and leave out."""
        hit = _hit(story, moment_s) | {"points": self._feed.points(story, moment_s)}
        if not self.scenario.hn_newer_form:
            return hit
        newer = {"story_id": story.story_id, "updated_at": hit["created_at"].replace(".000Z", "Z"), "children": []}
        return {name: value for name, value in (hit | newer).items() if value is not None}

    def _mistakes(self, call: Call, word: str, story: Story) -> bool:
        """Tell whether the search takes a word of a title for ``word``."""
        if not self.scenario.hn_typos or len(word) < SHORTEST_TYPO or call.param("typoTolerance") == "false":
            return False
        return any(_one_letter_off(word, other) for other in re.findall(r"\w+", story.title.lower()))


class Firebase(Upstream):
    """``hacker-news.firebaseio.com``: /v0/item/{id}.json and /v0/maxitem.json, without limits."""

    name = "hn_firebase"

    def __init__(self, world: World, *, scenario: Scenario = CALM) -> None:
        super().__init__(world, Limits(), scenario)
        self._feed = Feed(world, scenario)
        self._newest: tuple[date, int] | None = None

    def answer(self, call: Call) -> Response:
        """Answer an item, the JSON ``null`` for one that is unknown or not there yet, or the largest id."""
        moment_s = reading_moment(call.night).timestamp()
        if call.request.path == "/v0/maxitem.json":
            if self._newest is None or self._newest[0] != call.night:
                self._newest = (call.night, max(1, self._feed.first_since(moment_s + 1) - 1) + UNREADABLE)
            return json_response(call, self._newest[1])
        match = _ITEM.fullmatch(call.request.path)
        if match is None:
            return json_response(call, {"error": "Permission denied"}, 401)
        number = int(match[1])
        if self._feed.time_of(number) > moment_s:
            return json_response(call, None)
        story = self._feed.story(number)
        if story is None:
            return json_response(call, self._filler(number))
        item: dict[str, Any] = {
            "by": author_of(story),
            "descendants": as_of(story.comments, story, moment_s),
            "id": story.story_id,
            "score": self._feed.points(story, moment_s),
            "time": int(story.created_at.timestamp()),
            "title": _escaped(story.title),
            "type": "story",
        }
        if story.url:
            item["url"] = story.url
        return json_response(call, item)

    def _filler(self, number: int) -> dict[str, Any] | None:
        """Make up what stands between two stories: comments, some deleted, some dead stories, some not there at all."""
        kind = number * 2_654_435_761 % 2**32 % 100
        if kind < 3:
            return None
        item = {"id": number, "time": int(self._feed.time_of(number)), "by": f"user{number % 9999}"}
        if kind < 6:
            return {"id": number, "time": item["time"], "type": "story", "deleted": True}
        if kind < 9:
            later = self._feed.next_story(number)
            dead = later.url if later is not None and later.url else "https://example.org"
            return item | {"type": "story", "dead": True, "title": "[flagged]", "url": dead, "score": 40}
        if kind < 10:
            return item | {"type": "job", "title": "Somebody is hiring", "score": 1}
        return item | {"type": "comment", "parent": number - 1, "text": "I <i>like</i> it &amp; use it."}

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 503; nothing here refuses, for no limit is stated."""
        return json_response(call, {"error": "Service Unavailable"}, 503)


def _hit(story: Story, moment_s: float) -> dict[str, Any]:
    created = story.created_at.astimezone(UTC)
    author = author_of(story)
    title = _escaped(story.title)
    return {
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "title": title,
        "url": story.url or None,
        "author": author,
        "points": points_as_of(story, moment_s),
        "story_text": "",
        "comment_text": None,
        "num_comments": as_of(story.comments, story, moment_s),
        "story_id": None,
        "story_title": None,
        "story_url": None,
        "parent_id": None,
        "created_at_i": int(created.timestamp()),
        "_tags": _tags(story),
        "objectID": str(story.story_id),
        "_highlightResult": {
            "title": _unmatched(title),
            "url": _unmatched(story.url),
            "author": _unmatched(author),
            "story_text": _unmatched(""),
        },
    }


def _unmatched(value: str) -> dict[str, Any]:
    return {"value": value, "matchLevel": "none", "matchedWords": []}


def _tags(story: Story) -> list[str]:
    tags = ["story", f"author_{author_of(story)}", f"story_{story.story_id}"]
    title = story.title.lower()
    return tags + [tag for tag, start in (("ask_hn", "ask hn"), ("show_hn", "show hn")) if title.startswith(start)]


def _one_letter_off(a: str, b: str) -> bool:
    """Tell whether one letter was changed, added or left out."""
    if abs(len(a) - len(b)) > 1:
        return False
    same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[same + (len(a) >= len(b)) :] == b[same + (len(b) >= len(a)) :]


def _tag_groups(text: str) -> list[set[str]]:
    """Read ``story,(ask_hn,show_hn)``: a comma is AND, inside parentheses OR."""
    return [
        {tag.strip() for tag in (many or one).split(",") if tag.strip()}
        for many, one in re.findall(r"\(([^)]*)\)|([^,()]+)", text)
    ]


def _escaped(title: str) -> str:
    """Escape a title as the feed does, unless it holds entities already."""
    return title if html.unescape(title) != title else html.escape(title)


def _bad(call: Call, message: str) -> Response:
    return json_response(call, {"code": 400, "message": message}, 400)
