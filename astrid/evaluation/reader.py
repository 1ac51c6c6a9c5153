"""Reading a panel, and the renames of its repositories, from CSV files."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from astrid.errors import ConfigError
from astrid.evaluation.panel import Counts, Day, Panel

HEADER_BYTES: Final = 65_536
"""The first line, with the names of the columns, must be shorter."""

DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]*)?([eE]\+?[0-9]{1,3})?")

COUNT_MAX: Final = 1e15
"""A larger number is no count (astrid.scoring.comb)."""

EARLIEST: Final = np.datetime64("2000-01-01")
"""An earlier day is a defect, and would only cost memory."""

SPAN_MAX: Final = 20_000
"""Days between the first and the last row; more means that a date is wrong."""

EFFECTIVE: Final = ("date", "new_first_seen")
"""Columns of a file of renames that may hold the day of the rename."""


@dataclass(frozen=True, slots=True)
class Rename:
    """From ``day`` on the repository ``old`` is called ``new``."""

    old: str
    new: str
    day: Day


@dataclass(slots=True)
class Reading:
    """A panel and what was met in reading it: rows in the file, and rows refused by reason."""

    panel: Panel
    rows: int
    refused: dict[str, int] = field(default_factory=dict)


def read_panel(path: Path, renames: Path | None = None, *, today: Day | None = None) -> Panel:
    """Return the panel of a CSV file; :func:`read` tells what was refused as well."""
    return read(path, renames, today=today).panel


def read(path: Path, renames: Path | None = None, *, today: Day | None = None) -> Reading:
    """Read ``repo,date,stars[,forks]`` (other columns are ignored), plain or compressed, in any order.

    Parameters
    ----------
    path
        The file. Of two rows of one repository and day the last wins.
    renames
        ``old_repo,new_repo`` with the day in ``date`` or ``new_first_seen``; rows of ``confidence`` low are left
        out. Rows of the old name before that day are the new one's, later ones are another repository's.
    today
        Rows of later days are refused; None refuses none.

    Returns
    -------
    reading
        Row by row are refused and counted: no repository, no date, a day before 2000 or to come, no count (empty,
        negative, not a number, above 1e15). A defect of the forks alone costs the forks, not the row.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no CSV, lacks a column, or holds no usable row.
    """
    table = _read_csv(path, ("repo", "date", "stars"), ("forks",))
    rows = len(table)
    names, codes = _encode(table["repo"])
    day = _days(table["date"])
    stars = _counts(table["stars"])
    forks = _counts(table["forks"]) if "forks" in table.column_names else None

    refused: dict[str, int] = {}
    usable = np.ones(rows, bool)
    checks = [
        ("no repository", codes >= 0),
        ("no date", ~np.isnat(day)),
        (f"a day before {EARLIEST}", ~(day < EARLIEST)),
        ("a day to come", usable if today is None else ~(day > today)),
        ("no count of stars", ~np.isnan(stars)),
    ]
    for reason, good in checks:
        if lost := int(np.count_nonzero(usable & ~good)):
            refused[reason] = lost
        usable &= good
    if not usable.any():
        why = ", ".join(f"{n} with {reason}" for reason, n in refused.items()) or "it has no rows"
        raise ConfigError(f"{path}: no usable row ({why}); rows must be repo,date (YYYY-MM-DD),stars (0 or more)")
    if forks is not None and (lost := int(np.count_nonzero(usable & np.isnan(forks)))):
        refused["no count of forks (the stars were used)"] = lost

    codes, day, stars = codes[usable], day[usable], stars[usable]
    forks = None if forks is None else forks[usable]
    moves = _follow(names, codes, day, read_renames(renames)) if renames is not None else codes
    return Reading(_arrange(path, names, codes, moves, day, stars, forks), rows, refused)


def read_renames(path: Path) -> list[Rename]:
    """Read a file of renames; rows without a name or a day, and those of low confidence, are left out.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no CSV, or lacks a column.
    """
    table = _read_csv(path, ("old_repo", "new_repo"), (*EFFECTIVE, "confidence"))
    column = next((name for name in EFFECTIVE if name in table.column_names), None)
    if column is None:
        raise ConfigError(f"{path} has no column {' or '.join(EFFECTIVE)}: add the first day of the new name")
    day = _days(table[column])
    low = (
        [c == "low" for c in table["confidence"].to_pylist()]
        if "confidence" in table.column_names
        else [False] * len(table)
    )
    return [
        Rename(old, new, d)
        for old, new, d, doubtful in zip(
            table["old_repo"].to_pylist(), table["new_repo"].to_pylist(), day, low, strict=True
        )
        if old and new and old != new and not np.isnat(d) and not doubtful
    ]


def read_dated(
    path: Path, name: str, number: str
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.datetime64], npt.NDArray[np.float64]]:
    """Read ``date``, a column of texts and one of counts; rows without a usable date are NaT, not left out.

    Returns
    -------
    texts, codes, days, numbers
        The distinct texts, and per row the index of its text (-1 = none), its day and its number (NaN = none).

    Raises
    ------
    ConfigError
        If the file cannot be read, is no CSV, or lacks a column.
    """
    table = _read_csv(path, ("date", name, number), ())
    texts, codes = _encode(table[name])
    return texts, codes, _days(table["date"]), _counts(table[number])


def chain(name: str, day: Day, renames: dict[str, list[Rename]]) -> list[str]:
    """Return the names that the repository called ``name`` on ``day`` has had from then on."""
    found, moment, met = [name], day, set[tuple[str, str]]()
    first = True
    while True:
        later = [
            r
            for r in renames.get(found[-1], ())
            if (r.day > moment if first else r.day >= moment) and (r.old, r.new) not in met
        ]
        if not later:
            return found
        step = min(later, key=lambda r: r.day)
        met.add((step.old, step.new))
        found.append(step.new)
        moment, first = step.day, False


def _follow(
    names: list[str], codes: npt.NDArray[np.int64], day: npt.NDArray[np.datetime64], renames: Sequence[Rename]
) -> npt.NDArray[np.int64]:
    """Return, per row, the code of the last name in the input that its repository came to have."""
    by_old = defaultdict(list)
    for rename in renames:
        by_old[rename.old].append(rename)
    code_of = {name: code for code, name in enumerate(names)}
    concerned = [code_of[old] for old in by_old if old in code_of]
    moves = codes.copy()
    if not concerned:
        return moves
    rows = np.flatnonzero(np.isin(codes, concerned))
    rows = rows[np.argsort(codes[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(codes[rows], prepend=-1))
    for part in np.split(rows, starts[1:]):
        name = names[int(codes[part[0]])]
        # Between two days of its renames all rows of a name go the same way.
        turns = np.array(sorted({r.day for r in by_old[name]}), dtype="datetime64[D]")
        stretch = np.searchsorted(turns, day[part], side="right")
        for s in np.unique(stretch):
            members = part[stretch == s]
            known = [n for n in chain(name, day[members].max(), by_old) if n in code_of]
            moves[members] = code_of[known[-1]]
    return moves


def _arrange(
    path: Path,
    names: list[str],
    codes: npt.NDArray[np.int64],
    moves: npt.NDArray[np.int64],
    day: npt.NDArray[np.datetime64],
    stars: npt.NDArray[np.float64],
    forks: npt.NDArray[np.float64] | None,
) -> Panel:
    """Write the rows into blocks, the columns in the order of the names."""
    first, last = day.min(), day.max()
    row = (day - first).astype(np.int64)
    span = int((last - first).astype(np.int64)) + 1
    if span > SPAN_MAX:
        raise ConfigError(f"{path}: the rows run from {first} to {last}; mend the wrong date")
    kept = sorted(set(np.unique(moves).tolist()), key=lambda code: names[code])
    place = np.full(len(names), -1)
    place[kept] = np.arange(len(kept))
    column = place[moves]

    # Where both names of a day are there, the later one counts: rows that were moved are written first.
    order = np.argsort(moves == codes, kind="stable")
    cells = (row[order], column[order])
    blocks: list[Counts | None] = []
    for values in (stars, forks):
        if values is None:
            blocks.append(None)
            continue
        block = np.full((span, len(kept)), np.nan, np.float32)
        block[cells] = values[order]
        blocks.append(block)
    assert blocks[0] is not None

    former = _former_names(row[order], column[order], codes[order], moves[order] != codes[order], names)
    return Panel(tuple(names[code] for code in kept), first, blocks[0], blocks[1], former)


def _former_names(
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64],
    moved: npt.NDArray[np.bool_],
    names: list[str],
) -> tuple[tuple[int, int, str], ...]:
    """Return (column, last row, name) of every stretch of rows whose name is not the column's; rows as written."""
    concerned = np.flatnonzero(np.isin(column, np.unique(column[moved])))
    # The row that was written last is the one that counts: the first of its cell from behind.
    _, from_behind = np.unique(np.column_stack([column[concerned], row[concerned]])[::-1], axis=0, return_index=True)
    cells = concerned[::-1][from_behind]
    found: list[tuple[int, int, str]] = []
    for cell, after in zip(cells, [*cells[1:], None], strict=False):  # no cell, no pair
        if after is None or column[after] != column[cell]:
            if moved[cell]:
                found.append((int(column[cell]), int(row[cell]), names[int(codes[cell])]))
        elif codes[after] != codes[cell]:
            found.append((int(column[cell]), int(row[after]) - 1, names[int(codes[cell])]))
    return tuple(found)


def _read_csv(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Any:
    """Return the columns asked for, as distinct texts and indices into them."""
    wanted = [*needed, *optional]
    try:
        with pa.input_stream(path) as head:
            line = head.read(HEADER_BYTES).split(b"\n", 1)[0]
        there = next(csv.reader([line.decode("utf-8-sig").strip("\r")]), [])
    except FileNotFoundError as exc:
        raise ConfigError(f"{path} does not exist: name a CSV file with the columns {','.join(needed)}") from exc
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as exc:
        raise _not_csv(path, needed, exc) from exc
    for name in wanted:
        if name in needed and name not in there:
            raise ConfigError(f"{path} has no column {name}: its first line must name {','.join(needed)}")
        if there.count(name) > 1:
            raise ConfigError(f"{path} has the column {name} {there.count(name)} times: leave one")
    convert = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.dictionary(pa.int32(), pa.string())),
        include_columns=[name for name in wanted if name in there],
        strings_can_be_null=True,
    )
    try:
        return pa_csv.read_csv(path, convert_options=convert)
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as exc:
        raise _not_csv(path, needed, exc) from exc


def _not_csv(path: Path, needed: Sequence[str], exc: Exception) -> ConfigError:
    why = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    return ConfigError(f"{path} cannot be read as CSV ({why}): give a CSV file with the columns {','.join(needed)}")


def _encode(column: Any) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the distinct texts, stripped, and each row's index into them, -1 where there is none."""
    joined = column.unify_dictionaries().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # of no chunks, or of one
        joined = joined.chunk(0) if joined.num_chunks else pa.array([], joined.type)
    indices = joined.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    found: dict[str, int] = {}
    place = [
        found.setdefault(text.strip(), len(found)) if text and text.strip() else -1
        for text in joined.dictionary.to_pylist()
    ]
    return list(found), np.array([*place, -1])[indices]


def _days(column: Any) -> npt.NDArray[np.datetime64]:
    """Return the first ten characters of each text as a day, NaT where they are none."""
    distinct, codes = _encode(column)
    return np.array([_day(text[:10]) for text in distinct] + [np.datetime64("NaT")], dtype="datetime64[D]")[codes]


def _day(text: str) -> Day:
    try:
        if DAY.fullmatch(text):
            return np.datetime64(text, "D")
    except ValueError:
        pass
    return np.datetime64("NaT")


def _counts(column: Any) -> npt.NDArray[np.float64]:
    """Return each text as a count, NaN where it is none."""
    distinct, codes = _encode(column)
    return np.array([_count(text) for text in distinct] + [np.nan])[codes]


def _count(text: str) -> float:
    number = float(text) if NUMBER.fullmatch(text) else np.nan
    return number if number <= COUNT_MAX else np.nan
