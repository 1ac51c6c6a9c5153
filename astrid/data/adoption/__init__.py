"""Series of adoption that ship with Astrid, and how a file of one, or of an index, is read.

What the files are, and where they break, is in the README beside them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from astrid.errors import ConfigError
from astrid.leadlag.alignment import F64, I64, Adoption, Days, Series

BTOS: Final = "btos"
INDEED: Final = "indeed"

BTOS_DELAY_DAYS: Final = 21
INDEED_DELAY_DAYS: Final = 14
"""From the end of a month to its publication: assumptions on the late side, see the README."""

FIGURES_MIN: Final = 12
"""Fewer figures of adoption are refused: nothing could be fitted to their changes."""

_HERE: Final = Path(__file__).parent


def load_btos() -> Adoption:
    """Return the share of US firms that use AI (Census, monthly mean); a new question is a new segment."""
    rows = _read(_HERE / "btos_ai_use.csv", ("month", "ai_use_pct_of_firms", "question_version"))
    share = np.array([float(pct) / 100 if pct else np.nan for _, pct, _ in rows])
    versions = list(dict.fromkeys(version for _, _, version in rows if version))
    # A month without a figure belongs to no version; it takes the next one's number and no part in any change.
    segment, current = np.zeros(len(rows), np.int64), len(versions) - 1
    for place in range(len(rows) - 1, -1, -1):
        current = versions.index(rows[place][2]) if rows[place][2] else current
        segment[place] = current
    return _monthly("Census BTOS, AI use of US firms", [row[0] for row in rows], share, segment, BTOS_DELAY_DAYS)


def load_indeed() -> Adoption:
    """Return the AI share of US job postings on Indeed, monthly means."""
    rows = _read(_HERE / "indeed_ai_postings_us_monthly.csv", ("month", "ai_share_pct"))
    share = np.array([float(pct) / 100 for _, pct in rows])
    months = [row[0] for row in rows]
    name = "Indeed Hiring Lab, AI share of US job postings"
    return _monthly(name, months, share, np.zeros(len(rows), np.int64), INDEED_DELAY_DAYS)


def read_adoption(path: Path) -> Adoption:
    """Read a series of adoption: a CSV file with the columns date, share and, where the question changed, version.

    ``date`` is the day on which the figure was published (YYYY-MM-DD), ``share`` a fraction between 0 and 1, empty =
    not published; a new ``version`` begins a new segment. Monthly figures are recognised by their spacing; others are
    numbered by their usual spacing, so that a figure left out is a hole and not a change.

    Raises
    ------
    ConfigError
        If the file cannot be read, a column is missing, a cell is no date or number, dates are not sorted or appear
        twice, a share is not between 0 and 1, or there are fewer than FIGURES_MIN.
    """
    rows = _read(path, ("date", "share"), optional=("version",))
    dates = _dates(path, [row[0] for row in rows])
    share = np.full(len(rows), np.nan)
    for place, row in enumerate(rows):
        if row[1]:
            share[place] = _number(path, place, "share", row[1])
            if not 0 < share[place] < 1:
                hint = "; give per cent as fractions, 54 % is 0.54" if 1 < share[place] <= 100 else ""
                raise ConfigError(f"{path}: row {place + 2}: the share {row[1]} is not between 0 and 1{hint}")
    if (known := int(np.isfinite(share).sum())) < FIGURES_MIN:
        raise ConfigError(f"{path}: {known} figures are too few: give at least {FIGURES_MIN}, better 37 months")
    versions = list(dict.fromkeys(row[2] for row in rows))
    segment = np.array([versions.index(row[2]) for row in rows], np.int64)
    return Adoption(path.name, dates, share, _periods(path, dates), segment)


def read_index(path: Path) -> Series:
    """Read an index: a CSV file with the columns date (the day on which the value was known) and value, empty = a gap.

    Raises
    ------
    ConfigError
        If the file cannot be read, a column is missing, a cell is no date or number, dates are not sorted or appear
        twice, or a value is not above 0.
    """
    rows = _read(path, ("date", "value"))
    dates = _dates(path, [row[0] for row in rows])
    value = np.full(len(rows), np.nan)
    for place, (_, cell) in enumerate(rows):
        if cell:
            value[place] = _number(path, place, "value", cell)
            if value[place] <= 0:
                raise ConfigError(f"{path}: row {place + 2}: the value {cell} is not above 0; leave a gap empty")
    if np.isfinite(value).sum() < 2:
        raise ConfigError(f"{path}: an index needs at least two values")
    return Series(path.name, dates, value)


def _read(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Return the cells of the named columns, stripped; optional ones that are not there are empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            lines = [[cell.strip() for cell in line] for line in csv.reader(handle) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}): give the path of a UTF-8 CSV file") from exc
    header = lines[0] if lines else []
    if missing := [name for name in columns if name not in header]:
        raise ConfigError(
            f"{path}: no column {', '.join(missing)}: the header must have {','.join(columns)}, "
            f"it has {','.join(header) or 'nothing'}"
        )
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise ConfigError(f"{path}: row {number} has {len(line)} cells, the header has {len(header)}")
    places = [header.index(name) if name in header else -1 for name in (*columns, *optional)]
    return [tuple(line[place] if place >= 0 else "" for place in places) for line in lines[1:]]


def _dates(path: Path, cells: Sequence[str]) -> Days:
    days: list[date] = []
    for number, cell in enumerate(cells, start=2):
        try:
            day = date.fromisoformat(cell)
        except ValueError as exc:
            raise ConfigError(f"{path}: row {number}: {cell!r} is no date of the form YYYY-MM-DD") from exc
        if days and day == days[-1]:
            raise ConfigError(f"{path}: row {number}: {day} appears twice: keep one row per date")
        if days and day < days[-1]:
            raise ConfigError(f"{path}: row {number}: {day} comes after {days[-1]}: sort the rows by date")
        days.append(day)
    return np.array(days, "datetime64[D]")


def _number(path: Path, place: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{path}: row {place + 2}: the {column} {cell!r} is no number; leave what is not known empty")
    return value


def _monthly(name: str, labels: Sequence[str], share: F64, segment: I64, delay: int) -> Adoption:
    months = np.array(labels, "datetime64[M]")
    ends = ((months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")).astype("datetime64[D]")
    return Adoption(name, ends, share, months.astype(np.int64), segment, delay)


def _periods(path: Path, dates: Days) -> I64:
    """Number the periods of the dates: calendar months if the usual spacing is one, else multiples of that spacing."""
    spacing = float(np.median(np.diff(dates).astype(np.int64)))
    if 28 <= spacing <= 31:
        period = dates.astype("datetime64[M]").astype(np.int64)
    else:
        period = np.round((dates - dates[0]).astype(np.int64) / spacing).astype(np.int64)
    twice = np.flatnonzero(np.diff(period) == 0)
    if len(twice):
        row = int(twice[0])
        raise ConfigError(
            f"{path}: row {row + 3}: {dates[row]} and {dates[row + 1]} are in one period of about {spacing:.0f} days: "
            "give one figure per period"
        )
    return period
