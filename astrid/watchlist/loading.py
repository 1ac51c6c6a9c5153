"""The watchlist as a file: one row of ``projects.csv`` per project."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from astrid.errors import ConfigError
from astrid.watchlist.checks import Problem, check_watchlist
from astrid.watchlist.projects import Project, github_url

COLUMNS: Final = (
    "slug",
    "name",
    "category",
    "github",
    "former_github",
    "pypi",
    "npm",
    "huggingface",
    "dockerhub",
    "hn_urls",
    "hn_names",
    "evidence",
)
SEPARATOR: Final = " | "
"""Between the items of a cell; no identifier of any platform can contain it."""

_SHIPPED: Final = Path(__file__).with_name("projects.csv")


def load_watchlist(path: Path | None = None) -> tuple[Project, ...]:
    """Read the watchlist and check it, in the order of the file.

    ``path`` names a CSV file with the columns of ``COLUMNS``; without it the shipped file is read.

    Raises
    ------
    ConfigError
        If the file cannot be read, a row is broken, or ``check_watchlist`` finds a problem. The
        message names file, row, slug, field, what is wrong and what to do, for the first 20 problems.
    """
    file = path or _SHIPPED
    try:
        with file.open(encoding="utf-8", newline="") as handle:
            lines = [(number, cells) for number, cells in _numbered(handle) if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{file}: the watchlist cannot be read ({exc}): give the path of a UTF-8 CSV file") from exc
    if not lines or tuple(lines[0][1]) != COLUMNS:
        raise ConfigError(f"{file}: row 1: the header must be {','.join(COLUMNS)}")

    projects: list[Project] = []
    rows: list[int] = []
    problems: list[tuple[int, Problem]] = []
    for number, cells in lines[1:]:
        try:
            projects.append(_project(cells))
            rows.append(number)
        except _BrokenRow as exc:
            problems.append((number, exc.problem))
    problems += [(rows[problem.position], problem) for problem in check_watchlist(projects)]
    if problems:
        problems.sort(key=lambda pair: pair[0])
        text = [f"{file}: row {number}: {problem}" for number, problem in problems[:20]]
        if len(problems) > 20:
            text.append(f"… and {len(problems) - 20} more")
        raise ConfigError("\n".join(text))
    return tuple(projects)


class _BrokenRow(Exception):
    """A row that cannot become a project at all."""

    def __init__(self, slug: str, field: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.problem = Problem(0, slug, field, what, remedy)


def _numbered(handle: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(handle, strict=True)
    for cells in reader:
        yield reader.line_num, cells


def _project(cells: list[str]) -> Project:
    if len(cells) != len(COLUMNS):
        what = f"has {len(cells)} cells instead of {len(COLUMNS)}"
        raise _BrokenRow(cells[0], "row", what, "add or remove commas; quote a cell that contains one")
    cell = dict(zip(COLUMNS, cells, strict=True))
    slug = cell["slug"]
    for column, text in cell.items():
        if text != text.strip() or "  " in text:
            raise _BrokenRow(slug, column, f"{text!r} has stray blanks", "remove them")
    github = cell["github"] or None
    former = _items(cell["former_github"])
    addresses = [github_url(repo) for repo in ((github,) if github else ()) + former]
    return Project(
        slug=slug,
        name=cell["name"],
        category=cell["category"],
        github=github,
        former_github=former,
        pypi=_items(cell["pypi"]),
        npm=_items(cell["npm"]),
        huggingface=_items(cell["huggingface"]),
        dockerhub=_items(cell["dockerhub"]),
        hn_urls=tuple(dict.fromkeys(addresses)) + _items(cell["hn_urls"]),
        hn_names=_items(cell["hn_names"]),
        evidence=_evidence(slug, cell["evidence"]),
    )


def _items(text: str) -> tuple[str, ...]:
    return tuple(text.split(SEPARATOR)) if text else ()


def _evidence(slug: str, text: str) -> dict[str, str]:
    proven: dict[str, str] = {}
    for item in _items(text):
        key, equals, source = item.partition(" = ")
        if not (key and equals and source):
            raise _BrokenRow(slug, "evidence", f"{item!r} has no ' = '", "write 'field = where it is proven'")
        if key in proven:
            raise _BrokenRow(slug, "evidence", f"states {key!r} twice", "keep one of them")
        proven[key] = source
    return proven
