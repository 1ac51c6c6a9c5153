"""Daily snapshots that others took and archived, imported month by month with their origin named.

An archive is a server of files ``<origin>/<YYYY-MM>.csv`` with the columns ``repo,date,stars,forks``.
Where two origins state one day, the first of :data:`ORIGINS` stands. Days keep the archive's label;
its snapshot was taken early on that UTC day (docs/adr/0002-nights-and-snapshot-days.md).
"""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Final

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Observations, Request, Response, Steps
from astrid.sources.source import Source, Task

ORIGINS: Final = ("stars_daily", "ai_stars_daily")
STARS: Final = METRIC_BY_NAME["github_stars"].metric_id
FORKS: Final = METRIC_BY_NAME["github_forks"].metric_id

Snapshot = tuple[str, date, int, int | None]


def crawl(batch: Batch) -> Steps:
    """Read the archived snapshots of one month; an entity's ``names`` are its repository's names, old and new.

    A day that no archive has brings neither row nor gap: nobody can fetch it any more, and what was
    expected but is not there is derived (docs/adr/0004-ledger-of-exceptions.md).
    """
    by_name = {name.lower(): e.entity_id for e in batch.entities for name in reversed(e.names)}
    taken: dict[tuple[int, date], tuple[int, int | None, int]] = {}
    for origin in ORIGINS:
        response = yield Request("archive", "GET", f"/{origin}/{batch.start:%Y-%m}.csv")
        if response.status == 404:
            continue
        for repo, day, stars, forks in parse_month(response):
            entity_id = by_name.get(repo.lower())
            if entity_id is not None and batch.start <= day <= batch.end:
                taken.setdefault((entity_id, day), (stars, forks, ORIGIN_BY_NAME[origin].origin_id))
    rows = []
    for (entity_id, day), (stars, forks, origin_id) in taken.items():
        rows.append((entity_id, STARS, day, float(stars), origin_id))
        if forks is not None:
            rows.append((entity_id, FORKS, day, float(forks), origin_id))
    return Observations.from_rows(rows)


def parse_month(response: Response) -> list[Snapshot]:
    """Read one file; rows that are not a name, a day and counts are left out. An empty cell of forks is None.

    Raises
    ------
    Unavailable, Malformed
        If the server failed, or the file has other columns, or does not end with a line end: cut short, its last
        count could be the beginning of a larger one.
    """
    if response.status >= 500:
        raise Unavailable(f"the archive answered {response.status}")
    if response.status != 200:
        raise Malformed(f"the archive answered {response.status}")
    try:
        rows = list(csv.reader(io.StringIO(response.body.decode("utf-8", "replace"), newline="")))
    except csv.Error as exc:
        raise Malformed(f"the archive's file is no CSV: {exc}") from exc
    header = rows[0] if rows else []
    if header != ["repo", "date", "stars", "forks"]:
        raise Malformed(f"the archive's columns are {str(header)[:120]}, expected repo,date,stars,forks")
    if not response.body.endswith((b"\n", b"\r")):
        raise Malformed("the archive's file was cut short: its last line has no end")
    snapshots: list[Snapshot] = []
    for row in rows[1:]:
        try:
            repo, day_text, stars_text, forks_text = row
            day = date.fromisoformat(day_text)
        except ValueError:
            continue
        stars, forks = _count(stars_text), _count(forks_text)
        if stars is not None and (forks is not None or not forks_text):
            snapshots.append((repo, day, stars, forks))
    return snapshots


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


SOURCE: Final = Source(
    name="archive",
    upstream="archive",
    key="repository",
    tasks={"month": Task("month", ("github_stars", "github_forks"), "dated", "core", 100_000, 31, 2)},
    crawl=crawl,
    concurrency=2,
    budgets={"archive": BudgetSpec({"core": BucketSpec((Window(20, 1.0),))}, concurrency=4)},
)
