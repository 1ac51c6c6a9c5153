"""What the page of the leaderboard shows, computed from one reading of the ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from api.answers import flag_names, ranked_share
from api.pages.charts import draw_interval, draw_parts, reach_of, say_parts
from api.pages.words import FLAGS, METRICS, describe_age, words_of
from api.series import notes_within
from api.state import Board, Directory
from astrid.catalog import METRIC_BY_ID, METRIC_BY_NAME
from astrid.catalog import METRICS as CATALOGUE
from astrid.store import NoteRow, ScoreRow

PAGE_ITEMS: Final = 100
Address = Callable[[str, Mapping[str, Any]], str]
SHORT: Final = {name: words.short for name, words in METRICS.items()}


def say_notes(notes: Sequence[NoteRow]) -> list[tuple[str, NoteRow]]:
    """Return (metric's title, note), once each."""
    found: dict[tuple[int, str], tuple[str, NoteRow]] = {}
    for note in notes:
        metric = METRIC_BY_ID.get(note.metric_id)
        if metric:
            found.setdefault((note.metric_id, note.note), (words_of(metric.name).title, note))
    return list(found.values())


def describe_row(row: ScoreRow, reach: tuple[float, float]) -> dict[str, Any]:
    """Return a row of the table: its values, its two drawings, and their texts."""
    return {
        "row": row,
        "flags": flag_names(row.flags),
        "interval": draw_interval(row.score, row.lo, row.hi),
        "parts": draw_parts(row.contributions, *reach),
        "parts_said": say_parts(row.contributions, SHORT),
    }


def leaderboard_page(
    directory: Directory,
    board: Board | None,
    notes: Sequence[NoteRow],
    over: date,
    category: str | None,
    offset: int,
    day: date | None,
    address: Address,
) -> dict[str, Any]:
    """Return the values of the template; ``over`` is the last day that is over, ``board`` None before any score."""
    rows = board.of(category) if board else ()
    shown = rows[offset : offset + PAGE_ITEMS]
    reach = reach_of([row.contributions for row in shown])
    used = {metric for row in shown for metric in row.contributions}

    scored = board.day if board else None

    def link(**changed: Any) -> str:
        return address("/", {"category": category, "day": day, "offset": offset} | changed)

    return {
        "board": board,
        "category": category,
        "total": len(rows),
        "tracked": directory.tracked(category),
        "coverage": ranked_share(board, directory, category),
        "age": describe_age(board.day, over) if board else "",
        "is_current": board is not None and board.day >= over,
        "items": [describe_row(row, reach) for row in shown],
        "legend": [(metric.name, SHORT.get(metric.name, metric.name)) for metric in CATALOGUE if metric.name in used],
        "weights": [(words_of(m.name), m.unit, m.weight) for m in METRIC_BY_NAME.values() if m.weight],
        "flags": [(name, FLAGS.get(name, "")) for name in FLAGS if any(name in flag_names(r.flags) for r in shown)],
        "uncalibrated": any(not row.calibrated for row in shown),
        "notes": say_notes(notes_within(notes, board.day, board.day)) if board else [],
        "categories": [("", None, len(directory.projects), link(category=None, offset=0))]
        + [(name, name, number, link(category=name, offset=0)) for name, number in directory.categories.items()],
        "first": offset + 1 if shown else 0,
        "last": offset + len(shown),
        "before": link(offset=max(0, offset - PAGE_ITEMS)) if offset else None,
        "after": link(offset=offset + PAGE_ITEMS) if offset + PAGE_ITEMS < len(rows) else None,
        "json": address("/v1/leaderboard", {"category": category, "day": scored, "offset": offset}),
    }
