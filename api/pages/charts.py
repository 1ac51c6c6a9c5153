"""Charts as inline SVG, drawn on the server.

Lines are drawn in a box that stretches with the page while texts keep their size: the box is a nested ``<svg>``
without a fixed aspect, the texts stand beside it at percentages. A gap is a gap in the line, and shaded.
Colours come from the style sheet by class; there are no inline styles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Final

from markupsafe import Markup, escape

from api.pages.axes import Scale, choose_days
from api.pages.words import write_signed

WIDTH: Final = 1000.0
"""Units across the stretched box."""

TOP: Final = 14
PLOT: Final = 150
BOTTOM: Final = 20
Values = Sequence[float | None]


def find_runs(values: Sequence[object | None], *, present: bool) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each stretch of values that are there, or that are None."""
    first: int | None = None
    for i, value in enumerate(values):
        if (value is not None) == present:
            first = i if first is None else first
        elif first is not None:
            yield first, i - 1
            first = None
    if first is not None:
        yield first, len(values) - 1


def mean_of_week(values: Values) -> list[float | None]:
    """Return the mean of each day and the six before; None unless all seven are known."""
    means: list[float | None] = []
    for i in range(len(values)):
        week = [value for value in values[max(0, i - 6) : i + 1] if value is not None]
        means.append(sum(week) / 7 if len(week) == 7 else None)
    return means


def _x(i: int, count: int) -> str:
    return f"{(i + 0.5) / count * WIDTH:.1f}"


def _y(value: float, scale: Scale) -> str:
    return f"{(1 - scale.share(value)) * PLOT:.1f}"


def trace(values: Values, scale: Scale) -> str:
    """Return the path of a line that breaks at every None; a value between two gaps is a dot."""
    parts = []
    for first, last in find_runs(values, present=True):
        points = [
            f"{_x(i, len(values))} {_y(value, scale)}"
            for i, value in enumerate(values[first : last + 1], first)
            if value is not None
        ]
        parts.append("M" + "L".join(points if len(points) > 1 else points * 2))
    return "".join(parts)


def trace_bars(values: Values, scale: Scale) -> str:
    """Return the path of a stroke from the zero line to each value above it."""
    return "".join(
        f"M{_x(i, len(values))} {_y(0, scale)}V{_y(value, scale)}" for i, value in enumerate(values) if value
    )


def trace_band(low: Values, high: Values, scale: Scale) -> str:
    """Return the path of the area between two lines, over the days on which both are known."""
    both = [None if a is None or b is None else (a, b) for a, b in zip(low, high, strict=True)]
    parts = []
    for first, last in find_runs(both, present=True):
        stretch = [(i, pair) for i, pair in enumerate(both[first : last + 1], first) if pair is not None]
        upper = [f"{_x(i, len(both))} {_y(pair[1], scale)}" for i, pair in stretch]
        lower = [f"{_x(i, len(both))} {_y(pair[0], scale)}" for i, pair in reversed(stretch)]
        parts.append("M" + "L".join(upper + lower) + "Z")
    return "".join(parts)


def draw_chart(
    key: str,
    title: str,
    summary: str,
    days: Sequence[date],
    values: Values,
    scale: Scale,
    *,
    tone: str,
    thin: Values | None = None,
    bars: bool = False,
    band: tuple[Values, Values] | None = None,
    reference: float | None = None,
) -> Markup:
    """Return a chart of ``values``, one per day.

    ``key`` makes its ids unique on the page and must be an identifier; ``title`` and ``summary`` are read out by
    screen readers. ``thin`` is a second, faint line (then the gaps shown are its), ``band`` an area from low to high,
    ``reference`` a dashed level.
    """
    count = len(days)
    observed = values if thin is None else thin
    layers = []
    for first, last in find_runs(observed, present=False):
        x, width = first / count * WIDTH, (last - first + 1) / count * WIDTH
        layers.append(f'<rect class="gap" x="{x:.1f}" y="0" width="{width:.1f}" height="{PLOT}"/>')
    for tick in scale.ticks:
        layers.append(f'<path class="{"base" if tick == scale.low else "grid"}" d="M0 {_y(tick, scale)}H{WIDTH:.0f}"/>')
    if reference is not None:
        layers.append(f'<path class="reference" d="M0 {_y(reference, scale)}H{WIDTH:.0f}"/>')
    if band is not None:
        layers.append(f'<path class="band" d="{trace_band(*band, scale)}"/>')
    if thin is not None:
        layers.append(f'<path class="thin" d="{trace(thin, scale)}"/>')
    drawn = trace_bars(values, scale) if bars else trace(values, scale)
    layers.append(f'<path class="{"bars" if bars else "line"}" d="{drawn}"/>')

    texts = []
    for i, label in choose_days(days):
        percent = (i + 0.5) / count * 100
        anchor = "start" if percent < 6 else "end" if percent > 94 else "middle"
        texts.append(
            f'<text class="tick" x="{percent:.2f}%" y="{TOP + PLOT + 15}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    for tick, label in zip(scale.ticks, scale.labels(), strict=True):
        y = TOP + (1 - scale.share(tick)) * PLOT
        texts.append(f'<text class="tick level" x="0" y="{y - 3:.1f}">{escape(label)}</text>')
    ends = [(i, value) for i, value in enumerate(values) if value is not None]
    if ends and not bars:
        i, value = ends[-1]
        y = TOP + (1 - scale.share(value)) * PLOT
        texts.append(f'<circle class="end" cx="{(i + 0.5) / count * 100:.2f}%" cy="{y:.1f}" r="3.5"/>')
    return Markup(
        f'<svg class="chart tone-{escape(tone)}" width="100%" height="{TOP + PLOT + BOTTOM}" role="img" '
        f'aria-labelledby="{escape(key)}-t {escape(key)}-d">'
        f'<title id="{escape(key)}-t">{escape(title)}</title><desc id="{escape(key)}-d">{escape(summary)}</desc>'
        f'<svg x="0" y="{TOP}" width="100%" height="{PLOT}" viewBox="0 0 {WIDTH:.0f} {PLOT}" '
        f'preserveAspectRatio="none" overflow="visible">{"".join(layers)}</svg>{"".join(texts)}</svg>'
    )


def draw_interval(score: float, low: float | None, high: float | None) -> Markup:
    """Return a score on the line 0..100: a bar from the middle (50) to the score, a whisker from low to high."""
    left, width = min(score, 50.0), abs(score - 50.0)
    whisker = ""
    if low is not None and high is not None:
        whisker = f'<path class="whisker" d="M{low:.2f} 7H{high:.2f}M{low:.2f} 4V10M{high:.2f} 4V10"/>'
    return Markup(
        '<svg class="interval" viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<path class="track" d="M0 13.5H100"/>'
        f'<rect class="value" x="{left:.2f}" y="3" width="{width:.2f}" height="8"/>'
        f'<path class="middle" d="M50 0V14"/>{whisker}<path class="mark" d="M{score:.2f} 1V13"/></svg>'
    )


def draw_parts(contributions: Mapping[str, float], least: float, most: float) -> Markup:
    """Return contributions as stacked bars on both sides of zero, on an axis from ``least`` (<= 0) to ``most`` (>= 0).

    Each side starts with its largest part at zero. The axis is given so that the bars of a table can be compared.
    """
    span = most - least or 1.0

    def place(points: float) -> float:
        return (points - least) / span * 100

    bars = []
    for sign in (1, -1):
        reached = 0.0
        for metric, points in sorted(contributions.items(), key=lambda part: -abs(part[1])):
            if points * sign > 0:
                ends = sorted((place(reached), place(reached + points)))
                bars.append(
                    f'<rect class="tone-{escape(metric)}" x="{ends[0]:.2f}" y="2" '
                    f'width="{max(ends[1] - ends[0], 0.3):.2f}" height="9"/>'
                )
                reached += points
    zero = place(0.0)
    return Markup(
        '<svg class="parts" viewBox="0 0 100 13" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'{"".join(bars)}<path class="zero" d="M{zero:.2f} 0V13"/></svg>'
    )


def reach_of(contributions: Sequence[Mapping[str, float]], least_span: float = 5.0) -> tuple[float, float]:
    """Return the axis (least, most) that holds the stacked bars of all rows."""
    least = min((sum(p for p in row.values() if p < 0) for row in contributions), default=0.0)
    most = max((sum(p for p in row.values() if p > 0) for row in contributions), default=0.0)
    return min(least, 0.0), max(most, least_span)


def say_parts(contributions: Mapping[str, float], names: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (metric, name, signed points) of what counts, largest first; parts that round to 0.0 are left out."""
    found = []
    for metric, points in sorted(contributions.items(), key=lambda part: (-abs(part[1]), part[0])):
        if abs(points) >= 0.05:
            found.append((metric, names.get(metric, metric), write_signed(points)))
    return found
