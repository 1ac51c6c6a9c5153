"""Hacker News item by item, from Firebase: the way that is left while the search does not answer.

Firebase knows items by number only. Numbers rise with time, so the first number of a day is found by bisection, and
every item from there to the next day's first is read: some 20,000 requests a day instead of one, and the same stories.
Facts: HackerNews/API on GitHub: no rate limit is stated; an item that is not there is the JSON ``null``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from astrid.errors import Malformed, SourceError, Unavailable
from astrid.models import Request, Response, Story

UPSTREAM: Final = "hn_firebase"
MAX_ITEMS: Final = 60_000
"""No day has had as many items; a range that is larger shows that numbers and times do not go together."""

MARGIN: Final = 100
"""Items so near to a border may be on its other side: numbers are given a little before times."""

AT_ONCE: Final = 100
ROUNDS: Final = 3
"""Among thousands of answers some cannot be read; those are asked for again."""

NEIGHBOURS: Final = 16
"""So many items are asked for where one time is wanted: some are missing, deleted ones may have no time."""

MAX_SILENT: Final = 4_096
"""After so many numbers in a row without a time, other than at the end, times cannot be told from numbers."""

Walk = Generator[tuple[Request, ...], Sequence[Response], None]


@dataclass(frozen=True, slots=True)
class Item:
    """What an item says of itself: ``time_s`` in epoch seconds, and the story if it is one that stands."""

    time_s: int
    story: Story | None


def walk_items(first_s: int, end_s: int, stories: dict[int, Story]) -> Walk:
    """Collect the stories with first_s <= time < end_s.

    Deleted and dead stories are left out, as the search leaves them out.

    Raises
    ------
    Malformed
        If items cannot be read after some rounds, or the range is larger than any day.
    Unavailable
        If Firebase fails.
    """
    (response,) = yield (Request(UPSTREAM, "GET", "/v0/maxitem.json"),)
    newest = _parse_number(response)
    low = yield from _find_first(first_s, newest)
    high = yield from _find_first(end_s, newest)
    numbers = range(max(1, low - MARGIN), min(newest, high + MARGIN) + 1)
    if len(numbers) > MAX_ITEMS:
        raise Malformed(f"Hacker News counts {len(numbers)} items in {(end_s - first_s) / 86_400:.1f} days")
    for start in range(0, len(numbers), AT_ONCE):
        items = yield from _read(numbers[start : start + AT_ONCE])
        for item in items:
            if item is not None and item.story is not None and first_s <= item.time_s < end_s:
                stories[item.story.story_id] = item.story


def _find_first(time_s: int, newest: int) -> Generator[tuple[Request, ...], Sequence[Response], int]:
    """Return the first number whose item is not older than ``time_s``; one past the newest if all are."""
    low, high = 1, newest + 1
    while low < high:
        middle = (low + high) // 2
        found_s = yield from _find_time(middle, newest)
        if found_s is not None and found_s < time_s:
            low = middle + 1
        else:
            high = middle
    return low


def _find_time(number: int, newest: int) -> Generator[tuple[Request, ...], Sequence[Response], int | None]:
    """Return the time of the first item from ``number`` on that has one; None if none has, up to the newest.

    The newest numbers are not readable yet, so there nobody having a time means young. In the middle it means nothing:
    taking it for young would cut stories off a day without a word, so the look goes on.
    """
    start, length = number, NEIGHBOURS
    while start <= newest:
        if start - number > MAX_SILENT:
            raise Malformed(f"Hacker News has no item with a time from {number} to {start}")
        items = yield from _read(range(start, min(start + length, newest + 1)))
        times = [item.time_s for item in items if item is not None]
        if times:
            return times[0]
        start, length = start + length, min(2 * length, 4 * AT_ONCE)
    return None


def _read(numbers: range) -> Generator[tuple[Request, ...], Sequence[Response], list[Item | None]]:
    """Return the items of some numbers, in order, None for those that are not there."""
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
    return [found[n] for n in numbers]


def parse_item(response: Response, number: int) -> Item | None:
    """Read one item; None where Firebase has none, or one without a time.

    Absent or broken counts are 0, as those of the search.

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
    if not isinstance(body, dict) or body.get("id") != number or isinstance(body["id"], bool):
        raise Malformed(f"Hacker News answered something else than item {number}")
    time_s = body.get("time")
    if not isinstance(time_s, int) or isinstance(time_s, bool):
        return None
    try:
        created_at = datetime.fromtimestamp(time_s, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if body.get("type") != "story" or body.get("deleted") or body.get("dead"):
        return Item(time_s, None)
    title, url = body.get("title"), body.get("url")
    story = Story(
        number,
        created_at,
        str(title or ""),
        str(url or ""),
        read_count(body.get("score")),
        read_count(body.get("descendants")),
    )
    return Item(time_s, story)


def read_count(value: object) -> int:
    """Return a count, or 0 for what is none: absent, negative, absurdly large, of another type."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _parse_number(response: Response) -> int:
    if response.status >= 500:
        raise Unavailable(f"Hacker News answered {response.status} for its newest item")
    number: Any = response.json() if response.status == 200 else None
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number < 2**40:
        raise Malformed(f"Hacker News answered {response.status} without a number for its newest item")
    return number
