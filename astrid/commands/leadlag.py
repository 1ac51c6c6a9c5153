"""Does an index lead adoption: the pre-registered protocol on files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from astrid.errors import ConfigError
from astrid.shell import Json, out, print_json

if TYPE_CHECKING:
    from astrid.leadlag.alignment import Adoption
    from astrid.leadlag.protocol import Report

SEED: Final = 20260401
"""Of the bootstrap and of the simulated power, so that the same files give the same report."""

USED_MIN: Final = 8
"""With fewer changes nothing can be computed."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(leadlag)


def leadlag(
    target: Annotated[
        str, typer.Option("--target", help="Adoption: btos, indeed, or a CSV file with date,share (0 to 1).")
    ] = "btos",
    index: Annotated[Path | None, typer.Option("--index", help="The index: a CSV file with date,value.")] = None,
    control: Annotated[
        Path | None, typer.Option("--control", help="The control basket's index, for the placebo: date,value.")
    ] = None,
    json: Json = False,
) -> None:
    """Test whether an index leads adoption, by rules that were written down first."""
    import numpy as np

    from astrid.data.adoption import read_index
    from astrid.leadlag.protocol import run_protocol

    if index is None:
        raise ConfigError(
            "no index is given: name one with --index FILE.csv, a CSV file with the columns date,value (a row per day "
            "on which a value was known, sorted, values above 0); for the placebo also --control FILE.csv of that form"
        )
    adoption = read_target(target)
    series = read_index(index)
    placebo = None if control is None else read_index(control)
    report = run_protocol(adoption, series, placebo, np.random.default_rng(SEED))
    if report.used < USED_MIN:
        raise ConfigError(
            f"{index}: too few points: {report.used} of {report.changes} changes of {adoption.name} have a value of "
            f"the index 8 weeks before, {USED_MIN} are needed to compute anything; no lead is established. The "
            f"figures run from {_span(adoption)}, the index from {series.dates[0]} to {series.dates[-1]}"
        )
    if json:
        print_json(asdict(report))
        return
    for line in say(report):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def read_target(target: str) -> Adoption:
    """Return a shipped series by its name, else read the file.

    Raises
    ------
    ConfigError
        If it is neither the name of a shipped series nor a file that can be read.
    """
    from astrid.data.adoption import BTOS, INDEED, load_btos, load_indeed, read_adoption

    if target == BTOS:
        return load_btos()
    if target == INDEED:
        return load_indeed()
    path = Path(target)
    if not path.exists():
        raise ConfigError(f"--target {target}: neither btos, indeed nor a file: give one of the names or a path")
    return read_adoption(path)


def say(report: Report) -> Iterator[str]:
    """Yield the lines that say a report."""
    yield f"Lead of {report.index} over {report.target}: {report.verdict}"
    for rule in report.rules:
        yield f"  {'yes' if rule.holds else 'no '} {rule.name}: {rule.demand}; found: {rule.found}"
    yield (
        f"{report.used} of {report.changes} changes of logit(share) in {report.segments} segments, published "
        f"{report.first} to {report.last}; no change spans a break or a hole"
    )
    economic = report.economic_lead_days
    yield (
        f"Registered lag: {report.publication_lead_days} days before publication, "
        + ("not known how long" if economic is None else f"{economic} days")
        + " before the end of the period itself"
    )
    if slope := report.slope:
        yield f"  slope {slope.slope:+.3f}, r {slope.r:+.3f}, HAC t {slope.t:+.2f}, p {slope.p:.3f}"
    if boot := report.bootstrap:
        yield f"  bootstrap p {boot.p:.3f}, slope 95 % {boot.low:+.3f} to {boot.high:+.3f}"
    if fore := report.forecast:
        yield (
            f"Out of sample, {fore.n} forecasts: error against AR(1) {fore.ratio:.3f}, "
            f"Diebold-Mariano {fore.dm:+.2f}, p {fore.p:.3f}"
        )
    else:
        yield "Out of sample: too few changes to compare forecasts"
    for title, tests in (("index to adoption", report.leads), ("adoption to index", report.follows)):
        for g in tests:
            yield f"Granger {title}, order {g.order}, n {g.n}: F {g.f:.2f} p {g.p_f:.3f}, HAC p {g.p_hac:.3f}"
    if report.placebo:
        p = report.placebo
        yield f"Placebo {report.control}: slope {p.slope:+.3f}, r {p.r:+.3f}, HAC t {p.t:+.2f}, p {p.p:.3f}"
    elif report.control is None:
        yield "Placebo: no control basket given (--control FILE.csv)"
    yield "Explored lags, for no verdict (weeks before publication: r, p, p by Bonferroni, p by max-t):"
    for e in report.explored:
        yield f"  {e.weeks:3d}: {e.r:+.2f}  {e.p:.3f}  {e.p_bonferroni:.3f}  {e.p_max_t:.3f}  (n {e.n})"
    yield "Cross-correlations (periods that the index is ahead: r, 95 % band of no relation):"
    for c in report.correlations:
        yield f"  {c.lag:+3d}: {c.r:+.2f} ± {c.band:.2f}  (n {c.n})"
    yield "Power at this size, at the one lag / searching seven (r beyond which the one lag counts):"
    for w in report.power:
        yield f"  R² {w.r2:.2f}: {w.one_lag:.0%} / {w.searched:.0%} ({w.critical_r:.2f})"
    if (own := report.power_own) and (memory := report.memory):
        yield (
            f"  R² {own.r2:.2f} with this sample's memory ({memory[0]:+.2f} index, {memory[1]:+.2f} adoption): "
            f"{own.one_lag:.0%} / {own.searched:.0%}"
        )


def _span(adoption: Adoption) -> str:
    return f"{adoption.dates[0]} to {adoption.dates[-1]}"
