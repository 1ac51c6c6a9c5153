"""Calendars: every day is drawn once and where it belongs, and days of which the same is to be said are one stretch."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.accounts import Absent, join_days
from api.pages.calendar import LEFT, PATTERNED, PATTERNS, PITCH, TOP, Area, draw_calendar, draw_key
from api.pages.ledger import SHARES, STATES, look_of, say_next
from astrid.catalog import METRIC_BY_NAME
from astrid.pipeline.ledger import Cells, Why
from astrid.pipeline.tries import NextTry
from astrid.sources.source import days_between
from astrid.timeline import night_start

DAY = date(2026, 3, 31)
SVG = "{http://www.w3.org/2000/svg}"
TONIGHT = NextTry("night", DAY, night_start(DAY), "github")
NEVER = NextTry("never", why="a count taken now would stand for another day")


def drawn(markup: str) -> ET.Element:
    return ET.fromstring(str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.lists(st.integers(1, 40), min_size=1, max_size=9))
def test_every_day_is_drawn_once_at_its_week_and_weekday(first: date, lengths: list[int]) -> None:
    areas, begin = [], first
    for n, length in enumerate(lengths):
        areas.append(Area(begin, begin + timedelta(days=length - 1), f"look{n}", f"area {n}"))
        begin += timedelta(days=length)
    svg = drawn(draw_calendar("k", "a & b", "<said>", areas))
    monday = first - timedelta(days=first.weekday())
    seen: dict[tuple[int, int], str] = {}
    for group in svg.iter(f"{SVG}g"):
        title = group.findtext(f"{SVG}title") or ""
        for rect in group.iter(f"{SVG}rect"):
            x, y, width, height = (int(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            for week in range((x - LEFT) // PITCH, (x - LEFT + width) // PITCH):
                for weekday in range((y - TOP) // PITCH, (y - TOP + height) // PITCH):
                    assert (week, weekday) not in seen
                    seen[week, weekday] = title
    expected = {
        divmod((day - monday).days, 7): area.title for area in areas for day in days_between(area.first, area.last)
    }
    assert seen == expected
    width, height = map(int, svg.attrib["viewBox"].split()[2:])
    assert (width, height) == (LEFT + (max(week for week, _ in seen) + 1) * PITCH, TOP + 7 * PITCH)
    assert svg.findtext(f"{SVG}title") == "a & b"
    assert svg.findtext(f"{SVG}desc") == "<said>"


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.integers(1, 400))
def test_month_labels_never_touch_and_name_the_year(first: date, days: int) -> None:
    last = first + timedelta(days=days - 1)
    svg = drawn(draw_calendar("k", "t", "d", [Area(first, last, "complete", "")]))
    labels = [(int(e.attrib["x"]), e.text or "") for e in svg.iter(f"{SVG}text") if e.attrib["x"] != "0"]
    for (x, text), (after, _) in pairwise(labels):
        assert after - x >= PITCH * (5 if len(text) > 3 else 3), labels
    assert all(re.fullmatch(r"[A-Z][a-z]{2}( \d{4})?", text) for _, text in labels)
    if labels:
        assert " " in labels[0][1]


def test_what_shows_in_colour_shows_in_a_pattern_too() -> None:
    patterns = drawn(PATTERNS)
    ids = {e.attrib["id"] for e in patterns.iter(f"{SVG}pattern")}
    assert ids == {f"look-{look}" for look in PATTERNED}
    plain = {*STATES, *SHARES} - PATTERNED
    assert plain == {"complete", "none"}, "all others differ by more than colour"
    for look in (*STATES, *SHARES):
        assert drawn(draw_key(look)).find(f"{SVG}rect") is not None
    assert "style=" not in PATTERNS, "the content security policy forbids inline styles"


def cells_of(name: str, expected: str, observed: str, late: str = "") -> Cells:
    """Return the cells of one entity from strings of a letter per day; any but a dot is yes."""

    def flags(text: str) -> np.ndarray:
        return np.array([[c != "."] for c in (text or "." * len(expected))])

    why = np.where(flags(expected) & ~flags(observed), Why.ROW, Why.NOTHING).astype(np.uint8)
    return Cells(METRIC_BY_NAME[name], DAY, flags(expected), flags(observed), flags(late), why)


def absent(name: str, why: Why = Why.ROW, told: NextTry = TONIGHT) -> dict[str, Absent]:
    return {name: Absent(name, why, "503", told)}


def test_days_of_which_the_same_is_to_be_said_are_one_stretch() -> None:
    stars = cells_of("github_stars", "..xxxxxxxx", ".xxxx..xxx", "....x.....")
    forks = cells_of("github_forks", "..xxxxxxxx", "..xxx.xxx.")
    days = {
        5: absent("github_stars", told=NEVER) | absent("github_forks", told=NEVER),
        6: absent("github_stars"),
        9: absent("github_forks", Why.TURN_TO_COME),
    }
    said = join_days([stars, forks], DAY, {DAY + timedelta(days=n): of for n, of in days.items()})
    assert [((s.first - DAY).days, s.days, s.state, s.expected, s.observed) for s in said] == [
        (0, 1, "none", 0, 0), (1, 1, "complete", 0, 0), (2, 2, "complete", 2, 2), (4, 1, "late", 2, 2),
        (5, 1, "lost", 2, 0), (6, 1, "missing", 2, 1), (7, 2, "complete", 2, 2), (9, 1, "waiting", 2, 1),
    ]  # fmt: skip
    assert [a.metric for a in said[4].absent] == ["github_stars", "github_forks"]


def test_a_day_is_lost_only_if_all_that_failed_is() -> None:
    stars, forks = cells_of("github_stars", "x", "."), cells_of("github_forks", "x", ".")

    def state(one: dict[str, Absent], other: dict[str, Absent]) -> str:
        (stretch,) = join_days([stars, forks], DAY, {DAY: one | other})
        return stretch.state

    gone = absent("github_stars", told=NEVER)
    assert state(gone, absent("github_forks", told=NEVER)) == "lost"
    assert state(gone, absent("github_forks")) == "missing"
    assert state(gone, absent("github_forks", Why.NIGHT_TO_COME)) == "lost", "what waits has not failed"
    assert state(absent("github_stars", Why.NIGHT_TO_COME), absent("github_forks", Why.TURN_TO_COME)) == "waiting"


@pytest.mark.parametrize(
    ("counts", "look"),
    [
        ((0, 0, 0, 0, 0), "none"), ((100, 100, 5, 0, 0), "complete"), ((100, 90, 0, 0, 10), "complete"),
        ((100, 0, 0, 0, 100), "waiting"), ((100, 98, 0, 2, 0), "few"), ((100, 97, 0, 3, 0), "missing"),
        ((100, 80, 0, 20, 0), "missing"), ((100, 79, 0, 21, 0), "lost"), ((100, 0, 0, 100, 0), "lost"),
    ],
)  # fmt: skip
def test_the_look_of_a_day_of_all_projects(counts: tuple[int, int, int, int, int], look: str) -> None:
    assert look_of(*counts) == look
    assert look in SHARES


def test_a_next_try_is_said() -> None:
    assert say_next(TONIGHT) == "the night of 31 Mar 2026, from 1 Apr 2026, 05:00 UTC"
    assert say_next(NextTry("night", DAY, night_start(DAY), "x", "it stands still")).endswith(
        "05:00 UTC; it stands still"
    )
    assert say_next(NextTry("rerun", DAY, night_start(DAY))).startswith("its night, if that is run again until 1 Apr")
    assert say_next(NextTry("backfill", source="npm")) == "a backfill of npm, for no night asks so far back"
    assert say_next(NEVER) == "never, because a count taken now would stand for another day"
