"""How well score, forecast and simple rules foretold the growth in a file of counts."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from rich import box
from rich.table import Table

from astrid.clock import epoch_s
from astrid.errors import ConfigError
from astrid.settings import load_settings
from astrid.shell import Json, err, out, print_json

if TYPE_CHECKING:
    from astrid.evaluation.bootstrap import Estimate
    from astrid.evaluation.forecast import Forecast, Forecaster
    from astrid.evaluation.panel import Panel
    from astrid.evaluation.walk import HorizonResult, Result, ScoredDay

SEED: Final = 20230101
"""Seed of the bootstrap; equal files and options give equal figures."""

HORIZON_MAX: Final = 365

COLUMNS: Final = "repo,date,score,forecast28,lo80,hi80,lo95,hi95"

SHOWN: Final = {
    "precision_at_100": "p@100",
    "precision_at_top": "p@top",
    "decile_spread": "spread",
    "new_precision_at_100": "new p@100",
    "new_recall": "new recall",
    "new_false_alarm": "false alarms",
}
"""Measures beside the IC in the table, with their headings."""


class Model(StrEnum):
    """Where the forecast comes from."""

    walk_forward = "walk-forward"
    shipped = "shipped"
    none = "none"


class ScoreVersion(StrEnum):
    """Version of the score for a star target."""

    filter = "1.0"
    spans = "1.1"


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)


def evaluate(
    stars: Annotated[Path, typer.Option("--stars", help="CSV, plain or .gz: repo,date,stars[,forks].")],
    hn: Annotated[Path | None, typer.Option("--hn", help="Hacker News appearances, for the forecast.")] = None,
    trending: Annotated[Path | None, typer.Option("--trending", help="Trending pages, for the forecast.")] = None,
    packages: Annotated[Path | None, typer.Option("--packages", help="Package downloads, for the forecast.")] = None,
    renames: Annotated[
        Path | None, typer.Option("--renames", help="CSV: old_repo,new_repo and the first day of the new name.")
    ] = None,
    horizon: Annotated[str, typer.Option("--horizon", help="Days ahead, with commas.")] = "7,28,90",
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="First evaluated day; default: the file's first."),
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day; default: the file's last.")
    ] = None,
    every: Annotated[int, typer.Option("--every", help="Days between two evaluated days: 1 or 7.")] = 7,
    model: Annotated[Model, typer.Option("--model", help="The forecast beside the score.")] = Model.none,
    score: Annotated[ScoreVersion, typer.Option("--score", help="Version of the score.")] = ScoreVersion.spans,
    scores_out: Annotated[
        Path | None, typer.Option("--scores-out", help=f"Write what was said on each day: {COLUMNS}.")
    ] = None,
    json: Json = False,
) -> None:
    """Walk forward through a file of star counts and measure who foretold its growth, and how well."""
    from astrid.evaluation.reader import read
    from astrid.evaluation.report import list_limits, to_dict
    from astrid.evaluation.walk import evaluate as walk
    from astrid.evaluation.walk import evaluated_rows

    horizons = parse_horizons(horizon)
    if every not in (1, 7):
        raise ConfigError(f"--every {every}: give 1 (each day) or 7 (the weekday of --from)")
    if scores_out is not None and not scores_out.absolute().parent.is_dir():
        raise ConfigError(f"--scores-out {scores_out}: its folder does not exist; make it, or name another")
    now = load_settings(os.environ).now or datetime.fromtimestamp(epoch_s(), UTC)
    reading = read(stars, renames, today=np.datetime64(now.astimezone(UTC).date(), "D"))
    panel = reading.panel
    begin = panel.days[0] if first is None else np.datetime64(first.date(), "D")
    end = panel.days[-1] if last is None else np.datetime64(last.date(), "D")
    rows = evaluated_rows(panel, begin, end, every)
    if not rows:
        raise ConfigError(
            f"no day to evaluate from {begin} to {end}: {stars} holds {panel.days[0]} to {panel.days[-1]}; "
            "set --from and --to"
        )
    forecaster = open_forecaster(model, panel, horizons, hn, trending)
    for name, path in (("--hn", hn), ("--trending", trending), ("--packages", packages)):
        if path is not None and forecaster is None:
            err.print(f"{name} is for the forecast; with --model {model} it is not read", highlight=False)
        elif path is not None and name == "--packages":
            err.print("--packages is not read: no forecast uses downloads yet", highlight=False)
    for reason, count in reading.refused.items():
        err.print(f"{stars}: {count} of {reading.rows} rows refused: {reason}", highlight=False, soft_wrap=True)

    result = walk(panel, rows, horizons, version=score.value, every=every, forecaster=forecaster, seed=SEED)
    if scores_out is not None:
        write_scores(scores_out, panel, result.scored)
    if json:
        read_from = {"rows": reading.rows, "refused": reading.refused, "model": model.value}
        print_json(read_from | to_dict(panel, result, every=every, seed=SEED))
        return
    print_result(panel, result, list_limits(panel, result))


def open_forecaster(
    model: Model, panel: Panel, horizons: Sequence[int], hn: Path | None, trending: Path | None
) -> Forecaster | None:
    """Return the forecaster that was asked for over a panel, None for ``none``."""
    if model is Model.none:
        return None
    if model is Model.walk_forward:
        from astrid.evaluation.learned import WalkForwardForecaster, read_appearances

        sources = (("trending", trending, "repo"), ("hn", hn, "url"))
        attention = [
            read_appearances(path, panel, name=name, column=column)
            for name, path, column in sources
            if path is not None
        ]
        return WalkForwardForecaster(panel, attention, horizons=horizons, seed=SEED)
    raise ConfigError(f"--model {model}: this version has no such model yet; use --model none")


def parse_horizons(text: str) -> list[int]:
    """Return the horizons of an option, ascending."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= HORIZON_MAX for part in parts):
        raise ConfigError(f"--horizon {text}: give days from 1 to {HORIZON_MAX} with commas, as in 7,28,90")
    return sorted({int(part) for part in parts})


def print_result(panel: Panel, result: Result, limits: Iterable[str]) -> None:
    """Print one table per horizon, and under them what they do not show."""
    out.print(
        f"{len(panel.repos):,} repositories, {panel.days[0]} to {panel.days[-1]}; {len(result.scored)} evaluated days; "
        f"score {result.version}. In brackets: 95 % intervals by block bootstrap over days.",
        highlight=False,
    )
    for h in result.horizons:
        if h.days:
            out.print(horizon_table(h))
    out.print("What these figures do not show:", style="bold")
    for sentence in limits:
        out.print(f"- {sentence}", highlight=False)


def horizon_table(h: HorizonResult) -> Table:
    """Return the measures of one horizon, a row per predictor, with the paired difference of the score's IC."""
    table = Table(
        title=f"Growth of the next {h.horizon} days: {len(h.days)} days from {h.days[0]} to {h.days[-1]}, "
        f"{h.repos:.0f} repositories a day; by chance: p {h.chance:.3f}, new p {h.new_chance:.3f}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("predictor", no_wrap=True)
    for heading in ("IC", *SHOWN.values(), "score's IC minus this"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in h.rows.items():
        lead = h.differences.get(("score", name))
        gap = _bracketed(lead["ic"], "+.4f") if lead else ""
        if name == "forecast":
            ahead = h.differences["forecast", "score"]["ic"]
            gap = f"(forecast minus score) {_bracketed(ahead, '+.4f')}"
        # A name beside the interval of p@100 would not fit: intervals of all measures are in the JSON.
        table.add_row(name, _bracketed(row["ic"], ".3f"), *(_number(row[m].value) for m in SHOWN), gap)
    for name, e in h.coverage.items():
        table.add_row(f"forecast, {name.replace('_', ' ')} %", _bracketed(e, ".3f"))
    return table


def _bracketed(e: Estimate, form: str) -> str:
    if not np.isfinite(e.value):
        return "-"
    return f"{e.value:{form}}" + (rf" \[{e.lo:{form}}, {e.hi:{form}}]" if np.isfinite(e.lo) else "")


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def write_scores(path: Path, panel: Panel, scored: Iterable[ScoredDay]) -> None:
    """Write one line per repository and day of which something was said; gzipped where the name ends in .gz."""
    half = path.with_name(path.name + ".part")
    try:
        with half.open("wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
                    packed.writelines(_lines(panel, scored))
            else:
                raw.writelines(_lines(panel, scored))
        half.replace(path)
    except OSError as exc:
        half.unlink(missing_ok=True)
        raise ConfigError(f"--scores-out {path} cannot be written ({exc.strerror}): name another file") from exc


def _lines(panel: Panel, scored: Iterable[ScoredDay]) -> Iterator[bytes]:
    yield COLUMNS.encode() + b"\n"
    for day in scored:
        names, date = panel.names(day.row), str(panel.days[day.row])
        parts = [day.score, *_parts(day.forecast, day)]
        said = np.isfinite(np.stack(parts)).any(axis=0)
        for i in np.flatnonzero(said):
            cells = ",".join(f"{part[i]:.8g}" if np.isfinite(part[i]) else "" for part in parts)
            yield f"{_quoted(names[day.columns[i]])},{date},{cells}\n".encode()


def _parts(forecast: Forecast | None, day: ScoredDay) -> list[np.typing.NDArray[np.float64]]:
    if forecast is None:
        return [np.full(len(day.columns), np.nan)] * 5
    bounds = (forecast.median, forecast.lo80, forecast.hi80, forecast.lo95, forecast.hi95)
    return [values[day.columns] for values in bounds]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n\r') else name
