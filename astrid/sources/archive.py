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
from astrid.models import Batch, Observations, Request, Response, Steps
from astrid.sources.source import Source, Task

ORIGINS: Final = ("stars_daily", "ai_stars_daily")
STARS: Final = METRIC_BY_NAME["github_stars"].metric_id
FORKS: Final = METRIC_BY_NAME["github_forks"].metric_id

Snapshot = tuple[str, date, int, int]


def crawl(batch: Batch) -> Steps:
    """Read the archived snapshots of one month; an entity's ``names`` are its repository's names, old and new.

    A day that no archive has brings neither row nor gap: nobody can fetch it any more, and what was
    expected but is not there is derived (docs/adr/0004-ledger-of-exceptions.md).
    """
    by_name = {name.lower(): e.entity_id for e in batch.entities for name in reversed(e.names)}
    taken: dict[tuple[int, date], tuple[int, int, int]] = {}
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
        rows.append((entity_id, FORKS, day, float(forks), origin_id))
    return Observations.from_rows(rows)


def parse_month(response: Response) -> list[Snapshot]:
    """Read one file; rows that are not a name, a day and two counts are left out.

    Raises
    ------
    Unavailable, Malformed
        If the server failed, or the file has other columns.
    """
    if response.status >= 500:
        raise Unavailable(f"the archive answered {response.status}")
    if response.status != 200:
        raise Malformed(f"the archive answered {response.status}")
    rows = csv.reader(io.StringIO(response.body.decode("utf-8", "replace")))
    header = next(rows, [])
    if header != ["repo", "date", "stars", "forks"]:
        raise Malformed(f"the archive's columns are {header}, expected repo,date,stars,forks")
    snapshots: list[Snapshot] = []
    for row in rows:
        try:
            repo, day, stars, forks = row
            snapshots.append((repo, date.fromisoformat(day), int(stars), int(forks)))
        except ValueError:
            continue
    return [s for s in snapshots if s[2] >= 0 and s[3] >= 0]


SOURCE: Final = Source(
    name="archive",
    upstream="archive",
    key="repository",
    tasks={"month": Task("month", ("github_stars", "github_forks"), "dated", "core", 100_000, 31, 2)},
    crawl=crawl,
    concurrency=2,
)
