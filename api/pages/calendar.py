"""Year calendars as inline SVG: a column per week, a row per weekday, equal days in a row as one area.

A state shows in colour and in pattern; each area says in a title what it stands for, and the page has the same as a
table. Areas are drawn whole and a grid of the paper's colour is laid over them, so a year of days is a few shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from markupsafe import Markup, escape

from api.pages.words import MONTHS

PITCH: Final = 12
"""Units from one day's square to the next."""

LEFT: Final = 30
TOP: Final = 18
WEEKDAYS: Final = ((0, "Mon"), (2, "Wed"), (4, "Fri"))


@dataclass(frozen=True, slots=True)
class Area:
    """Days from ``first`` to ``last`` that look the same, and what is said of them."""

    first: date
    last: date
    look: str
    title: str


PATTERNS: Final = Markup(
    '<svg class="patterns" width="0" height="0" aria-hidden="true" focusable="false"><defs>'
    '<pattern id="look-late" width="4" height="4" patternUnits="userSpaceOnUse">'
    '<rect class="ground complete" width="4" height="4"/><path class="mark" d="M-1 1L1 -1M0 4L4 0M3 5L5 3"/></pattern>'
    '<pattern id="look-waiting" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect class="ground none" width="6" height="6"/><circle class="dot" cx="3" cy="3" r="1"/></pattern>'
    '<pattern id="look-few" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect class="ground complete" width="6" height="6"/><rect class="speck" x="1" y="1" width="3" height="3"/>'
    "</pattern>"
    '<pattern id="look-missing" width="4" height="4" patternUnits="userSpaceOnUse">'
    '<rect class="ground missing" width="4" height="4"/><path class="mark" d="M-1 3L1 5M0 0L4 4M3 -1L5 1"/></pattern>'
    '<pattern id="look-lost" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect class="ground lost" width="6" height="6"/><path class="mark" d="M1 1L5 5M5 1L1 5"/></pattern>'
    "</defs></svg>"
)
"""What the calendars of a page refer to; it stands on the page once, before them."""

PATTERNED: Final = frozenset({"late", "waiting", "few", "missing", "lost"})


def draw_calendar(key: str, title: str, summary: str, areas: Sequence[Area]) -> Markup:
    """Return a calendar of areas, which follow each other without a hole, oldest first.

    ``key`` makes its ids unique on the page and must be an identifier; ``title`` and ``summary`` are read out by
    screen readers.
    """
    first, last = areas[0].first, areas[-1].last
    monday = first - timedelta(days=first.weekday())
    weeks = (last - monday).days // 7 + 1
    width, height = LEFT + weeks * PITCH, TOP + 7 * PITCH
    shapes = "".join(_draw_area(area, monday) for area in areas)
    grid = "".join(f"M{LEFT + n * PITCH} {TOP}V{height}" for n in range(weeks + 1))
    grid += "".join(f"M{LEFT} {TOP + n * PITCH}H{width}" for n in range(8))
    texts = "".join(
        f'<text class="tick" x="0" y="{TOP + n * PITCH + 9}">{name}</text>' for n, name in WEEKDAYS
    ) + "".join(f'<text class="tick" x="{LEFT + n * PITCH}" y="11">{label}</text>' for n, label in _months(first, last))
    return Markup(
        f'<svg class="calendar" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{escape(key)}-t {escape(key)}-d">'
        f'<title id="{escape(key)}-t">{escape(title)}</title><desc id="{escape(key)}-d">{escape(summary)}</desc>'
        f'{shapes}<path class="grid" d="{grid}"/>{texts}</svg>'
    )


def draw_key(look: str) -> Markup:
    """Return one day's square for a legend."""
    size = PITCH - 2
    return Markup(
        f'<svg class="calendar sample" viewBox="0 0 {size} {size}" width="{size}" height="{size}" aria-hidden="true" '
        f'focusable="false">{_rect(look, 0, 0, size, size)}</svg>'
    )


def _draw_area(area: Area, monday: date) -> str:
    rects = "".join(
        _rect(area.look, LEFT + week * PITCH, TOP + row * PITCH, weeks * PITCH, rows * PITCH)
        for week, row, weeks, rows in _blocks((area.first - monday).days, (area.last - monday).days)
    )
    return f"<g><title>{escape(area.title)}</title>{rects}</g>"


def _rect(look: str, x: int, y: int, width: int, height: int) -> str:
    fill = f' fill="url(#look-{look})"' if look in PATTERNED else f' class="{escape(look)}"'
    return f'<rect{fill} x="{x}" y="{y}" width="{width}" height="{height}"/>'


def _blocks(first: int, last: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut days, counted from a Monday, into rectangles: (week, weekday, how many weeks, how many weekdays) of each."""
    week, row = divmod(first, 7)
    end_week, end_row = divmod(last, 7)
    if week == end_week:
        yield week, row, 1, end_row - row + 1
        return
    if row:
        yield week, row, 1, 7 - row
        week += 1
    if end_row < 6:
        if end_week > week:
            yield week, 0, end_week - week, 7
        yield end_week, 0, 1, end_row + 1
    else:
        yield week, 0, end_week - week + 1, 7


def _months(first: date, last: date) -> Iterator[tuple[int, str]]:
    """Yield (week, label) of months: where their first day stands, the year with the first and with each January."""
    monday = first - timedelta(days=first.weekday())
    shown = -3
    for n in range((last - first).days + 1):
        day = first + timedelta(days=n)
        week = (day - monday).days // 7
        # A label takes three weeks, with a year five; what begins late in a week is written at the next.
        if day.day == 1 or n == 0:
            at = week + (1 if day.weekday() and n else 0)
            if at - shown >= 3 and (n or _days_left(day) >= 21):
                label = MONTHS[day.month - 1]
                yield at, f"{label} {day.year}" if shown < 0 or day.month == 1 else label
                shown = at + (2 if shown < 0 or day.month == 1 else 0)


def _days_left(day: date) -> int:
    return ((day.replace(day=28) + timedelta(days=4)).replace(day=1) - day).days
