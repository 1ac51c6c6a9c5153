"""What a person sees in the terminal: progress per source, the leaderboard, the costs of a plan."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from astrid.catalog import METRIC_BY_NAME
from astrid.pipeline.costs import Cost, count_night_hours
from astrid.pipeline.plan import LEFT_OUT, NO_NIGHT, PASSED_OVER, Plan
from astrid.pipeline.runs import RunResult, Watch
from astrid.scoring.series import Flag
from astrid.sources import BUDGETS
from astrid.store import CostRow, ScoreRow

WIDE: Final = 110
LINE_EVERY_S: Final = 5.0
SHORT: Final = {"github_stars": "stars", "github_forks": "forks", "hn_points": "HN", "pypi_downloads": "PyPI"}


@contextmanager
def show_progress(console: Console, title: str) -> Iterator[Watch]:
    """Give a watcher that draws one bar per source; without a terminal it prints lines."""
    if not console.is_terminal:
        lines = _Lines(console, title)
        yield lines.watch
        lines.say()
        return
    with Progress(
        TextColumn(f"[bold]{title}[/]"),
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=False,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def watch(counts: Mapping[str, tuple[int, int]]) -> None:
            for source, (done, total) in sorted(counts.items()):
                if source not in tasks:
                    tasks[source] = progress.add_task(source, total=total)
                progress.update(tasks[source], completed=done, total=total)

        yield watch


class _Lines:
    """Progress as lines of a log: one at most every few seconds, and one at the end."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._latest: Mapping[str, tuple[int, int]] = {}
        self._said = ""
        self._said_s = time.monotonic()

    def watch(self, counts: Mapping[str, tuple[int, int]]) -> None:
        self._latest = dict(counts)
        if time.monotonic() - self._said_s >= LINE_EVERY_S:
            self.say()

    def say(self) -> None:
        line = ", ".join(f"{source} {done}/{total}" for source, (done, total) in sorted(self._latest.items()))
        if line and line != self._said:
            self._console.print(f"{self._title}: {line}", soft_wrap=True, highlight=False)
        self._said, self._said_s = line, time.monotonic()


def leaderboard_table(rows: Sequence[ScoreRow], width: int) -> Table:
    """Return the leaderboard: rank, project, score with interval, growth a week, points per source, coverage, flags.

    A narrow terminal does without category and flags. SMALL is left to the API: hardly a project is often on
    Hacker News.
    """
    wide = width >= WIDE
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("project", overflow="ellipsis", no_wrap=True, max_width=28)
    if wide:
        table.add_column("category", no_wrap=True)
    for heading in ("score", "80 %", "a week", *SHORT.values(), "cover"):
        table.add_column(heading, justify="right", no_wrap=True)
    if wide:
        table.add_column("flags", overflow="fold")
    for row in rows:
        interval = "" if row.lo is None or row.hi is None else f"{row.lo:.0f}-{row.hi:.0f}"
        growth = "" if row.growth_per_week is None else f"{row.growth_per_week:+.1%}"
        cover = "" if row.coverage is None else f"{row.coverage:.0%}"
        cells: list[str | Text] = [str(row.rank or ""), row.name]
        if wide:
            cells.append(row.category)
        cells += [f"{row.score:.1f}", interval, growth, *(_points(row.contributions.get(m)) for m in SHORT), cover]
        if wide:
            shown = Flag(row.flags) & ~Flag.SMALL
            cells.append(", ".join(f.name.lower() for f in shown if f.name))
        table.add_row(*cells)
    return table


def _points(points: float | None) -> Text:
    if points is None:
        return Text("-", "dim")
    return Text(f"{points:+.1f}", "green" if points > 0.05 else "red" if points < -0.05 else "dim")


def contributing_sources(rows: Sequence[ScoreRow]) -> dict[str, int]:
    """Return per source how many of the rows it contributes to."""
    counts: dict[str, int] = {}
    for row in rows:
        for source in {METRIC_BY_NAME[name].source for name, points in row.contributions.items() if points != 0}:
            counts[source] = counts.get(source, 0) + 1
    return counts


def cost_table(costs: Sequence[Cost]) -> Table:
    """Return what a plan costs per source and budget bucket, and under it what the night takes in all.

    Points only where the upstream counts them apart from requests.
    """
    table = Table(header_style="bold", caption_justify="left", caption_style="")
    for heading in ("source", "budget", "batches", "requests", "points", "time at the limit"):
        table.add_column(heading, justify="left" if heading in ("source", "budget") else "right")
    for cost in costs:
        points = str(cost.points) if BUDGETS[cost.upstream].buckets[cost.bucket].primary else "-"
        time_taken = _duration(cost.hours)
        table.add_row(cost.source, cost.bucket, str(cost.batches), str(cost.requests), points, time_taken)
    table.add_section()
    batches, requests = sum(c.batches for c in costs), sum(c.requests for c in costs)
    hours = count_night_hours(costs)
    table.add_row("all", "", str(batches), str(requests), "", _duration(hours))
    table.caption = (
        f"The night takes {_duration(hours)} at the limits, as long as its slowest budget."
        if costs
        else "The night has nothing to ask."
    )
    return table


def explain_left_out(plan: Plan, hours: float) -> list[str]:
    """Return a sentence for each reason for which a plan leaves something out."""
    counts = Counter(gap.reason for gap in plan.left_out)
    sentences = {
        LEFT_OUT: f"{counts[LEFT_OUT]} values wait for another night: what is due takes longer than the night's "
        f"{hours:g} hours, or than its upstream is asked a night; raise ASTRID_NIGHT_HOURS, or add tokens of further "
        "users",
        PASSED_OVER: f"{counts[PASSED_OVER]} values are not asked for: their feed stands still, and a few are asked "
        "for all",
        NO_NIGHT: f"{counts[NO_NIGHT]} counts of earlier days are lost: no night of these days ran to its end, and a "
        "count can only be taken at its time",
    }
    return [sentence for reason, sentence in sentences.items() if counts[reason]]


def spent_table(costs: Sequence[CostRow]) -> Table:
    """Return what a run was planned to cost and did cost, per upstream and budget bucket; a dash: nobody counted."""
    table = Table(header_style="bold")
    headings = ("upstream", "budget", "requests planned", "spent", "points planned", "spent", "time planned")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("upstream", "budget") else "right")
    for cost in costs:
        spent = ["-" if n is None else str(n) for n in (cost.spent_requests, cost.spent_points)]
        planned = (str(cost.planned_requests), str(cost.planned_points))
        time_planned = _duration(cost.planned_hours)
        table.add_row(cost.upstream, cost.bucket, planned[0], spent[0], planned[1], spent[1], time_planned)
    return table


def _duration(hours: float) -> str:
    """Write a duration as a person says it: ``under a minute``, ``14 min``, ``2 h 08 min``."""
    minutes = round(hours * 60)
    if minutes < 1:
        return "under a minute" if hours else "no time"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def print_result(console: Console, result: RunResult) -> None:
    """Print how a night ended, and its plan beside what it spent."""
    console.print(
        f"Night of {result.day}: {result.state}; {sum(result.batches.values())} batches, {result.ranked} projects "
        f"ranked, {result.open_gaps} gaps; it took {_duration(result.hours)}."
    )
    for source in result.violated:
        console.print(
            f"The upstream of {source} breaks its contract; why, and what is kept out of the scores: /v1/canaries",
            style="bold red",
        )
    if result.costs:
        console.print(spent_table(result.costs))


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or error; what is no terminal (a log, a pipe) gets lines of 140 columns."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, stderr=stderr, width=None if stream.isatty() else 140)
