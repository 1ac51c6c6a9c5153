"""What the page of one project shows: its score and what it is made of, every series, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

from markupsafe import Markup

from api.answers import flag_names, summarise_gaps
from api.pages.axes import Scale, choose_scale
from api.pages.charts import draw_chart, draw_interval, draw_parts, mean_of_week, reach_of, say_parts
from api.pages.leaderboard import SHORT, Address, say_notes
from api.pages.words import FLAGS, MINUS, count_things, words_of, write_count, write_day
from api.series import DenseSeries, notes_within
from api.state import Board
from astrid.store import GapRow, IdentityRow, ProjectRow, ScoreRow

RANGES: Final = {"90": "90 days", "365": "one year", "all": "everything"}
HUNDRED: Final = Scale(0.0, 100.0, (0.0, 25.0, 50.0, 75.0, 100.0))
SPARSE: Final = 0.5
"""From this share of zeros on, a count per day is drawn as single strokes."""

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")


def link_identity(identity: IdentityRow) -> str | None:
    """Return the address of a GitHub repository that holds its name today; nothing else is linked."""
    if identity.platform != "github" or identity.valid_to is not None or not _REPOSITORY.fullmatch(identity.name):
        return None
    return f"https://github.com/{identity.name}"


def cut(series: DenseSeries, start: date, end: date) -> tuple[list[date], list[int | float | None]]:
    """Return the days from ``start`` to ``end`` with their values; days outside the series are None."""
    days = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    length = len(series.values)
    at = [(day - series.start).days for day in days]
    return days, [series.values[i] if 0 <= i < length else None for i in at]


def draw_series(series: DenseSeries, start: date, end: date) -> dict[str, Any] | None:
    """Return a metric's figure from ``start`` to ``end``, or None where nothing was observed in it."""
    days, values = cut(series, start, end)
    seen = [(day, value) for day, value in zip(days, values, strict=True) if value is not None]
    if not seen:
        return None
    words, metric = words_of(series.metric.name), series.metric
    numbers = [float(value) for _, value in seen]
    flow = metric.kind == "flow"
    sparse = flow and sum(number == 0 for number in numbers) >= SPARSE * len(numbers)
    smooth = mean_of_week(values) if flow and not sparse else None
    missing = len(days) - len(seen)
    covered = f"{len(seen):,} of {count_things(len(days), 'day')} observed"
    summary = (
        f"{write_day(start)} to {write_day(end)}, {covered}. Lowest {write_count(min(numbers))}, "
        f"highest {write_count(max(numbers))}, last {write_count(seen[-1][1])} on {write_day(seen[-1][0])}."
    )
    change = None
    if not flow and len(seen) > 1:
        moved = seen[-1][1] - seen[0][1]
        change = f"{'+' if moved > 0 else ''}{write_count(moved)} since {write_day(seen[0][0])}"
    chart: Markup = draw_chart(
        metric.name,
        f"{words.title}, {metric.unit}",
        summary,
        days,
        values if smooth is None else smooth,
        choose_scale(min(numbers), max(numbers), from_zero=flow),
        tone=metric.name,
        thin=None if smooth is None else values,
        bars=sparse,
    )
    return {
        "metric": metric,
        "words": words,
        "chart": chart,
        "covered": covered,
        "missing": missing,
        "last_day": seen[-1][0],
        "last_value": seen[-1][1],
        "change": change,
        "smooth": smooth is not None,
        "notes": say_notes(notes_within(series.notes, start, end)),
    }


def draw_history(history: Sequence[ScoreRow], start: date, end: date) -> dict[str, Any] | None:
    """Return the figure of the scores from ``start`` to ``end``, with the interval as a band."""
    by_day = {row.day: row for row in history if start <= row.day <= end}
    if not by_day:
        return None
    first = min(by_day)
    days = [first + timedelta(days=n) for n in range((max(by_day) - first).days + 1)]
    rows = [by_day.get(day) for day in days]
    last = by_day[days[-1]]
    covered = f"{len(by_day):,} of {count_things(len(days), 'day')} scored"
    return {
        "chart": draw_chart(
            "score",
            "Score, 0 to 100",
            f"{write_day(first)} to {write_day(last.day)}, {covered}. Last score {last.score:.1f}.",
            days,
            [row.score if row else None for row in rows],
            HUNDRED,
            tone="score",
            band=([row.lo if row else None for row in rows], [row.hi if row else None for row in rows]),
            reference=50.0,
        ),
        "covered": covered,
    }


def sum_up(score: ScoreRow) -> str:
    """Return the sum that a reader can repeat: 50 + 14.2 (PyPI) − 1.3 (forks) = 62.9."""
    parts = sorted(score.contributions.items(), key=lambda part: (-abs(part[1]), part[0]))
    terms = [
        f"{'+' if points >= 0 else MINUS} {abs(points):.1f} ({SHORT.get(metric, metric)})"
        for metric, points in parts
        if abs(points) >= 0.05
    ]
    return " ".join(["50", *terms, "=", f"{score.score:.1f}"])


def project_page(
    project: ProjectRow,
    score: ScoreRow | None,
    history: Sequence[ScoreRow],
    series: Sequence[DenseSeries],
    gaps: Sequence[GapRow],
    board: Board | None,
    end: date | None,
    days: str,
    address: Address,
) -> dict[str, Any]:
    """Return the values of the template, but for the calendars; ``end`` is the charts' last day, None without any."""
    figures: list[dict[str, Any]] = []
    shown_history = None
    start = None
    if end is not None:
        earliest = min([_first_day(one) for one in series if one.last] + [row.day for row in history[:1]], default=end)
        start = earliest if days == "all" else max(earliest, end - timedelta(days=int(days) - 1))
        figures = [figure for one in series if (figure := draw_series(one, start, end))]
        shown_history = draw_history(history, start, end)
    drawn = {figure["metric"].name for figure in figures}
    flags = flag_names(score.flags) if score else []
    path = f"/projects/{project.slug}"
    return {
        "project": project,
        "score": score,
        "ranked": len(board.rows) if board else 0,
        "is_current": bool(score and board and score.day == board.day),
        "board_day": board.day if board else None,
        "interval": draw_interval(score.score, score.lo, score.hi) if score else None,
        "parts": draw_parts(score.contributions, *reach_of([score.contributions])) if score else None,
        "parts_said": say_parts(score.contributions, SHORT) if score else [],
        "sum": sum_up(score) if score else "",
        "flags": [(name, FLAGS.get(name, "")) for name in flags],
        "history": shown_history,
        "figures": [
            figure
            | {"json": address(f"/v1{path}/series", {"metric": figure["metric"].name, "start": start, "end": end})}
            for figure in figures
        ],
        "unseen": [words_of(one.metric.name).title for one in series if one.metric.name not in drawn],
        "start": start,
        "end": end,
        "ranges": [(key, title, address(path, {} if key == "365" else {"days": key})) for key, title in RANGES.items()],
        "range": days,
        "identities": [(identity, link_identity(identity)) for identity in project.identities],
        "gaps": [gap | {"words": words_of(gap["metric"])} for gap in summarise_gaps(gaps)],
        "gaps_json": address("/v1/gaps", {"project": project.slug, "state": "all"}),
        "json": address(f"/v1{path}", {}),
        "back": address("/", {"category": project.category}),
    }


def _first_day(series: DenseSeries) -> date:
    return next(day for day, value in zip(series.days, series.values, strict=True) if value is not None)
