"""What a person sees in the terminal: progress per source, the leaderboard, the costs of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from astrid.catalog import METRIC_BY_NAME
from astrid.pipeline.night import Watch
from astrid.pipeline.plan import Cost
from astrid.scoring.series import Flag
from astrid.store import ScoreRow

SHORT = {"github_stars": "stars", "github_forks": "forks", "hn_points": "HN", "pypi_downloads": "PyPI"}


@contextmanager
def show_progress(console: Console, title: str) -> Iterator[Watch]:
    """Give a watcher that draws one bar per source; without a terminal it prints a line when a source ends."""
    if not console.is_terminal:
        yield _lines(console, title)
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


def _lines(console: Console, title: str) -> Watch:
    ended: set[str] = set()

    def watch(counts: Mapping[str, tuple[int, int]]) -> None:
        for source, (done, total) in sorted(counts.items()):
            if done == total and source not in ended:
                ended.add(source)
                console.print(f"{title}  {source}: {done}/{total} batches")

    return watch


def leaderboard_table(rows: Sequence[ScoreRow], title: str) -> Table:
    """Return the leaderboard: rank, project, score with interval, stars per week, what drives it, flags."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", pad_edge=False)
    for heading, justify in (
        ("#", "right"),
        ("project", "left"),
        ("category", "left"),
        ("score", "right"),
        ("interval", "right"),
        ("per week", "right"),
        ("what drives it (points above or below 50)", "left"),
        ("flags", "left"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=heading != "flags")
    for row in rows:
        interval = "" if row.lo is None or row.hi is None else f"{row.lo:.0f}-{row.hi:.0f}"
        growth = "" if row.growth_per_week is None else f"{row.growth_per_week:+.1%}"
        table.add_row(
            str(row.rank or ""),
            row.name,
            row.category,
            f"{row.score:.1f}",
            interval,
            growth,
            drivers(row.contributions),
            ", ".join(f.name.lower() for f in Flag(row.flags) if f.name),
        )
    return table


def drivers(contributions: Mapping[str, float]) -> Text:
    """Return the contributions as signed points, largest first."""
    text = Text()
    for name, points in sorted(contributions.items(), key=lambda c: -abs(c[1])):
        style = "green" if points > 0.05 else "red" if points < -0.05 else "dim"
        text.append(f"{SHORT.get(name, name)} {points:+.1f}  ", style)
    return text


def contributing_sources(rows: Sequence[ScoreRow]) -> dict[str, int]:
    """Return per source how many of the rows it contributes to."""
    counts: dict[str, int] = {}
    for row in rows:
        for source in {METRIC_BY_NAME[name].source for name, points in row.contributions.items() if points != 0}:
            counts[source] = counts.get(source, 0) + 1
    return counts


def cost_table(costs: Sequence[Cost]) -> Table:
    """Return what a plan costs per source."""
    table = Table(header_style="bold")
    for heading in ("source", "batches", "requests", "points", "hours at the limit"):
        table.add_column(heading, justify="left" if heading == "source" else "right")
    for cost in costs:
        table.add_row(cost.source, str(cost.batches), str(cost.requests), str(cost.points), f"{cost.hours:.2f}")
    table.add_section()
    table.add_row("all", *(str(sum(getattr(c, f) for c in costs)) for f in ("batches", "requests", "points")), "")
    return table
