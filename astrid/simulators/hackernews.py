"""Hacker News: the Algolia search by date, and the Firebase items, over the stories of a world.

A story's final points are real; how they grew is made up: with the square root of its age, done after
three days. Authors are made up too. Facts: HN Search API page and recorded answers; since June 2026 only
``created_at_i`` can be filtered; at most 1,000 hits are reachable whatever ``nbHits`` says.
"""

from __future__ import annotations

import hashlib
import html
import math
import re
from bisect import bisect_left, bisect_right
from datetime import UTC, date
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from astrid.models import Response, Story
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, json_response, reading_moment

if TYPE_CHECKING:
    from astrid.simulators.world import World

REACHABLE: Final = 1000
GROWTH_S: Final = 3 * 86_400
HOURLY: Final = Window("requests", 10_000, 3600.0)
UNREADABLE: Final = 3
"""Firebase counts items that it does not show yet."""
SHORTEST_TYPO: Final = 4
"""Shorter words are searched for as they are (Algolia's default ``minWordSizefor1Typo``)."""
_FILTER: Final = re.compile(r"(\w+)(<=|>=|!=|=|<|>)(-?\d+)")
_ITEM: Final = re.compile(r"/v0/item/(\d+)\.json")


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


class Algolia(Upstream):
    """``hn.algolia.com``: /api/v1/search_by_date and /api/v1/search (both newest first), 10,000 requests an hour."""

    name = "hn_algolia"

    def __init__(
        self, world: World, *, scenario: Scenario = CALM, hourly: Window = HOURLY, tolerance_s: float = 0.0
    ) -> None:
        super().__init__(world, Limits(tolerance_s=tolerance_s), scenario)
        self._hourly = hourly
        self._created = [int(s.created_at.timestamp()) for s in world.stories]

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
        size = min(_whole(call.param("hitsPerPage"), 20), REACHABLE)
        page = _whole(call.param("page"), 0)
        reachable = found[: min(len(found), REACHABLE)]
        hits = reachable[page * size : (page + 1) * size] if size else []
        pages = math.ceil(min(len(found), REACHABLE) / size) if size else 0
        given = {"advancedSyntax": "true", "analytics": "false"} | dict(call.request.params)
        return json_response(
            call,
            {
                "hits": [_hit(story, moment_s) for story in hits],
                "nbHits": len(found),
                "page": page,
                "nbPages": pages,
                "hitsPerPage": size,
                "processingTimeMS": 7,
                "query": call.param("query"),
                "params": urlencode(sorted(given.items())),
            },
        )

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 in Algolia's form."""
        return json_response(call, {"message": "Too many requests", "status": 429}, 429)

    def _matching(self, call: Call, conditions: list[tuple[str, int]], until_s: int) -> list[Story]:
        """Return the stories that satisfy filters, tags and query, newest first."""
        start, end = 0, bisect_right(self._created, until_s)
        unequal = set()
        for operator, bound in conditions:
            if operator in (">", ">=", "="):
                start = max(start, (bisect_right if operator == ">" else bisect_left)(self._created, bound))
            if operator in ("<", "<=", "="):
                end = min(end, (bisect_left if operator == "<" else bisect_right)(self._created, bound))
            if operator == "!=":
                unequal.add(bound)
        stories = self.world.stories[start : max(start, end)][::-1]
        wanted = _tag_groups(call.param("tags"))
        words = call.param("query").lower().split()
        return [
            s
            for s in stories
            if int(s.created_at.timestamp()) not in unequal
            and (wanted == [{"story"}] or all(group & set(_tags(s)) for group in wanted))
            and all(word in s.title.lower() or word in s.url.lower() or self._mistakes(call, word, s) for word in words)
        ]

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
        self._by_id = {s.story_id: s for s in world.stories}
        self._ids = sorted(self._by_id)
        self._newest: tuple[date, int] | None = None

    def answer(self, call: Call) -> Response:
        """Answer an item, the JSON ``null`` for one that is unknown or not there yet, or the largest id."""
        moment = reading_moment(call.night)
        if call.request.path == "/v0/maxitem.json":
            if self._newest is None or self._newest[0] != call.night:
                ids = [s.story_id for s in self.world.stories if s.created_at <= moment]
                self._newest = (call.night, max(ids, default=1) + UNREADABLE)
            return json_response(call, self._newest[1])
        match = _ITEM.fullmatch(call.request.path)
        if match is None:
            return json_response(call, {"error": "Permission denied"}, 401)
        story = self._by_id.get(int(match[1]))
        if story is None:
            return json_response(call, self._filler(int(match[1]), moment.timestamp()))
        if story.created_at > moment:
            return json_response(call, None)
        item: dict[str, Any] = {
            "by": author_of(story),
            "descendants": as_of(story.comments, story, moment.timestamp()),
            "id": story.story_id,
            "score": points_as_of(story, moment.timestamp()),
            "time": int(story.created_at.timestamp()),
            "title": _escaped(story.title),
            "type": "story",
        }
        if story.url:
            item["url"] = story.url
        return json_response(call, item)

    def _filler(self, number: int, moment_s: float) -> dict[str, Any] | None:
        """Make up what stands between two stories: comments, some deleted, some dead stories, some not there at all."""
        after = bisect_left(self._ids, number)
        if after == len(self._ids):
            return None
        later = self._by_id[self._ids[after]]
        earlier = self._by_id[self._ids[after - 1]] if after else None
        later_s = later.created_at.timestamp()
        if earlier is None:
            time_s = later_s - 4.0 * (later.story_id - number)
        else:
            share = (number - earlier.story_id) / (later.story_id - earlier.story_id)
            time_s = earlier.created_at.timestamp() + share * (later_s - earlier.created_at.timestamp())
        kind = number * 2_654_435_761 % 2**32 % 100
        if kind < 3 or time_s > moment_s:
            return None
        item = {"id": number, "time": int(time_s), "by": f"user{number % 9999}"}
        if kind < 6:
            return {"id": number, "time": int(time_s), "type": "story", "deleted": True}
        if kind < 9:
            dead = later.url or "https://example.org"
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


def _whole(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() else default
