"""Hacker News stories of the demo's world: one row per story from daily lists, with a creation time for each."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from astrid.models import Story
from tools.world_repos import read_rows

ANCHOR_MARGIN = timedelta(days=10)
_MARKS = tuple(
    (re.compile(rf"<{tag}>(.*?)</{tag}>"), rf"{mark}\1{mark}")
    for tag, mark in (("em", "*"), ("code", "`"), ("strong", "**"))
)
_LONE_MARK = re.compile(r"</?(?:em|code|strong)>")


@dataclass
class _Row:
    title: str
    url: str
    points: int
    comments: int
    timed: bool


def read_stories(data: Path, first_day: date, last_day: date) -> tuple[list[Story], Counter[str]]:
    """Return the stories created in the days (UTC, both inclusive), and counts of what was met on the way.

    One story of several lists takes its highest points and comments, and the words of the list that states
    times. A missing time is interpolated between the stories with the next lower and higher id: ids rise
    with time. Rows without numbers, and rows into which their list's markup spilled, are skipped.
    """
    counts: Counter[str] = Counter()
    rows: dict[int, _Row] = {}
    anchors: dict[int, int] = {}
    lo, hi = (first_day - ANCHOR_MARGIN).isoformat(), (last_day + ANCHOR_MARGIN).isoformat()
    for day, _source, _rank, story_id, title, url, points, comments, _scrapes, time_utc, _by in read_rows(
        data / "hn_daily.csv.gz"
    ):
        if not lo <= day <= hi:
            continue
        if not (story_id.isdigit() and points.isdigit() and comments.isdigit() and title):
            counts["rows without numbers, skipped"] += 1
            continue
        if "\n" in title + url or "</a>" in title + url:
            counts["rows with spilled markup, skipped"] += 1
            continue
        key = int(story_id)
        if time_utc:
            moment = datetime.strptime(time_utc, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
            anchors[key] = int(moment.timestamp()) // 60
        row = _Row(_mend(title), _own_url(key, url), int(points), int(comments), bool(time_utc))
        known = rows.get(key)
        if known is not None:
            counts["rows of a story met before, merged"] += 1
            words = row if row.timed or not known.timed else known
            row = _Row(words.title, words.url, *_most(known, row), known.timed or row.timed)
        rows[key] = row
    return _dated(rows, anchors, first_day, last_day, counts), counts


def _dated(
    rows: dict[int, _Row], anchors: dict[int, int], first_day: date, last_day: date, counts: Counter[str]
) -> list[Story]:
    ids = np.array(sorted(anchors), dtype=np.float64)
    minutes = np.array([anchors[int(i)] for i in ids], dtype=np.float64)
    if (np.diff(minutes) < 0).any():
        raise ValueError("creation times do not rise with the ids, so that they cannot be interpolated")
    stories = []
    for key, row in rows.items():
        if not row.timed and not ids[0] < key < ids[-1]:
            counts["stories outside the known times, left out"] += 1
            continue
        minute = anchors[key] if row.timed else int(np.interp(key, ids, minutes))
        created = datetime.fromtimestamp(60 * minute, UTC)
        if first_day <= created.date() <= last_day:
            counts["stories with a stated time" if row.timed else "stories with an interpolated time"] += 1
            stories.append(Story(key, created, row.title, row.url, row.points, row.comments))
    return sorted(stories, key=lambda s: (s.created_at, s.story_id))


def _most(a: _Row, b: _Row) -> tuple[int, int]:
    return max(a.points, b.points), max(a.comments, b.comments)


def _mend(title: str) -> str:
    """Undo what one list's markup made of a title: escaped quotes, and emphasis from stars and backticks."""
    title = title.replace('\\"', '"')
    for pair, mark in _MARKS:
        title = pair.sub(mark, title)
    return _LONE_MARK.sub("", title)


def _own_url(story_id: int, url: str) -> str:
    """Return the link, or an empty string for a text post, which some lists give as a link to itself."""
    return "" if url == f"https://news.ycombinator.com/item?id={story_id}" else url
