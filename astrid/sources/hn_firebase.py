"""Hacker News item by item, from Firebase: the way that is left while the search does not answer.

Firebase knows items by number only. Numbers rise with time, so a place near the first number of a day is found by
bisection, and from there every item is read as far as the days before and after reach: some 20,000 requests a day
instead of one, and the same stories. A single time may be absurd, so nothing is decided by one item alone.
Facts: HackerNews/API on GitHub: no rate limit is stated; an item that is not there is the JSON ``null``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median_low
from typing import Any, Final, TypeGuard

from astrid.errors import Malformed, SourceError, Unavailable
from astrid.models import Request, Response, Story

UPSTREAM: Final = "hn_firebase"
MAX_ITEMS: Final = 60_000
"""No day has had as many items; a range that is larger shows that numbers and times do not go together."""

AT_ONCE: Final = 100
STRAY: Final = 0.1
"""A border of the days is behind a hundred items of which no larger share is on its other side: numbers are given a
little before times."""

ROUNDS: Final = 6
"""Among thousands of answers some cannot be read; those are asked for again."""

NEIGHBOURS: Final = 16
"""So many items are asked for where one time is wanted: some are missing, deleted ones may have no time."""

WITNESSES: Final = 9
"""The time at a number is the median of so many: one that is absurd among them changes nothing."""

MAX_SILENT: Final = 4_096
"""After so many numbers in a row without a time, other than at the end, times cannot be told from numbers."""

FIRST_S: Final = 1_160_352_000
"""2006-10-09 00:00 UTC, the day of the first item: what is earlier is no time."""

LAST_S: Final = 2**36
"""In the year 4147: what is later is no time, whatever the newest items say."""

FUTURE_S: Final = 86_400
"""What is later than the newest items by more than this is no time either."""

Walk = Generator[tuple[Request, ...], Sequence[Response], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """A story as an upstream states it; without being ``scored`` its points are no count, and 0 stands for them."""

    story: Story
    scored: bool


@dataclass(frozen=True, slots=True)
class Item:
    """What an item says of itself: ``time_s`` in epoch seconds, and the story if it is one that stands."""

    time_s: int
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far items go: the newest number, and the latest second that an item's time may be."""

    newest: int
    until_s: int


def walk_items(first_s: int, end_s: int, stories: dict[int, Reading]) -> Walk:
    """Collect the stories with first_s <= time < end_s.

    Deleted and dead stories are left out, as the search leaves them out; so are those without a time that can be.

    Raises
    ------
    Malformed
        If items cannot be read after some rounds, or the range is larger than any day.
    Unavailable
        If Firebase fails, or has no item of ``end_s`` or later yet: then the last day may be cut.
    """
    (response,) = yield (Request(UPSTREAM, "GET", "/v0/maxitem.json"),)
    newest = _parse_number(response)
    latest_s = yield from _find_time(newest, -1, _Reach(newest, LAST_S))
    reach = _Reach(newest, end_s if latest_s is None else latest_s + FUTURE_S)
    place = yield from _find_place(first_s, reach)
    asked = 0
    ended = False
    # Backwards to a hundred items of the days before, then onwards to a hundred of the days after.
    for step, border_s in ((-1, first_s), (1, end_s)):
        start, silent = place - 1 if step < 0 else place, 0
        while 1 <= start <= newest:
            numbers = _count_on(start, step, AT_ONCE, newest)
            asked += len(numbers)
            if asked > MAX_ITEMS:
                raise Malformed(f"Hacker News counts {asked} items in {(end_s - first_s) / 86_400:.1f} days and more")
            items = yield from _read(numbers, reach)
            found = [item for item in items if item is not None]
            for reading in [i.reading for i in found if i.reading is not None and first_s <= i.time_s < end_s]:
                stories[reading.story.story_id] = reading
            ended = ended or any(item.time_s >= end_s for item in found)
            silent = 0 if found else silent + len(numbers)
            if silent > MAX_SILENT:
                raise Malformed(f"Hacker News has no item with a time among {silent} in a row up to {start}")
            beyond = [item.time_s < border_s if step < 0 else item.time_s >= border_s for item in found]
            if len(beyond) >= WITNESSES and sum(beyond) >= (1 - STRAY) * len(beyond):
                break
            start += step * AT_ONCE
    if not ended:
        raise Unavailable(f"Hacker News has no item of {datetime.fromtimestamp(end_s, UTC):%Y-%m-%d %H:%M} or later")


def _find_place(time_s: int, reach: _Reach) -> Generator[tuple[Request, ...], Sequence[Response], int]:
    """Return the first number around which items are not older than ``time_s``; one past the newest if all are."""
    low, high = 1, reach.newest + 1
    while low < high:
        middle = (low + high) // 2
        found_s = yield from _find_time(middle, 1, reach)
        if found_s is not None and found_s < time_s:
            low = middle + 1
        else:
            high = middle
    return low


def _find_time(number: int, step: int, reach: _Reach) -> Generator[tuple[Request, ...], Sequence[Response], int | None]:
    """Return the median of the first times from ``number`` on, up or down; None if there is none as far as items go.

    The newest numbers are not readable yet, so there nobody having a time means young. In the middle it means nothing:
    taking it for young would cut stories off a day without a word, so the look goes on.
    """
    times: list[int] = []
    start, length = number, NEIGHBOURS
    while 1 <= start <= reach.newest and len(times) < WITNESSES:
        if abs(start - number) > MAX_SILENT:
            raise Malformed(f"Hacker News has no item with a time from {number} to {start}")
        items = yield from _read(_count_on(start, step, length, reach.newest), reach)
        times += [item.time_s for item in items if item is not None]
        start, length = start + step * length, min(2 * length, 4 * AT_ONCE)
    return median_low(times[:WITNESSES]) if times else None


def _count_on(start: int, step: int, length: int, newest: int) -> range:
    """Return up to ``length`` numbers from ``start`` on, up or down, of those that there are."""
    return range(start, max(0, min(start + step * length, newest + 1)), step)


def _read(numbers: range, reach: _Reach) -> Generator[tuple[Request, ...], Sequence[Response], list[Item | None]]:
    """Return the items of some numbers, in order, None for those that are not there or have no time that can be."""
    found: dict[int, Item | None] = {}
    error: SourceError | None = None
    for _ in range(ROUNDS):
        wanted = [n for n in numbers if n not in found]
        if not wanted:
            break
        responses = yield tuple(Request(UPSTREAM, "GET", f"/v0/item/{n}.json") for n in wanted)
        for number, response in zip(wanted, responses, strict=True):
            try:
                found[number] = parse_item(response, number)
            except (Malformed, Unavailable) as exc:
                error = exc
    if error is not None and len(found) < len(numbers):
        raise error
    items = [found[n] for n in numbers]
    return [item if item is not None and item.time_s <= reach.until_s else None for item in items]


def parse_item(response: Response, number: int) -> Item | None:
    """Read one item; None where Firebase has none, or one without a time since Hacker News began.

    Raises
    ------
    Malformed, Unavailable
        If the answer is no item, another one's, or an error.
    """
    if response.status >= 500:
        raise Unavailable(f"Hacker News answered {response.status} for item {number}")
    if response.status != 200:
        raise Malformed(f"Hacker News answered {response.status} for item {number}")
    body = response.json()
    if body is None:
        return None
    if not isinstance(body, dict) or not is_whole(body.get("id")) or body["id"] != number:
        raise Malformed(f"Hacker News answered something else than item {number}")
    time_s = body.get("time")
    if not is_whole(time_s) or not FIRST_S <= time_s < LAST_S:
        return None
    if body.get("type") != "story" or body.get("deleted") or body.get("dead"):
        return Item(time_s, None)
    reading = read_story(number, time_s, body.get("title"), body.get("url"), body.get("score"), body.get("descendants"))
    return Item(time_s, reading)


def read_story(number: int, time_s: int, title: object, url: object, points: object, comments: object) -> Reading:
    """Put a story together from what an upstream states of it; a title or URL that is no text is an empty one."""
    score = read_count(points)
    story = Story(
        number,
        datetime.fromtimestamp(time_s, UTC),
        title if isinstance(title, str) else "",
        url if isinstance(url, str) else "",
        score or 0,
        read_count(comments) or 0,
    )
    return Reading(story, score is not None)


def read_count(value: object) -> int | None:
    """Return a count, or None for what is none: absent, negative, absurdly large, of another type."""
    return value if is_whole(value) and 0 <= value < 2**31 else None


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number; JSON's ``true`` is none although Python counts it as 1."""
    return isinstance(value, int) and not isinstance(value, bool)


def _parse_number(response: Response) -> int:
    if response.status >= 500:
        raise Unavailable(f"Hacker News answered {response.status} for its newest item")
    number: Any = response.json() if response.status == 200 else None
    if not is_whole(number) or not 1 <= number < 2**40:
        raise Malformed(f"Hacker News answered {response.status} without a number for its newest item")
    return number
