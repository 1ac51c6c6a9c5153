"""PyPI downloads of the last 180 days from pypistats.org, without known mirrors.

One answer holds every day that the site still has, so a missed night heals itself. The feed can
stand still for days while answering 200: what counts is the newest day in it. Facts: psf/pypistats.org
``views/api.py`` (30 requests a minute and 5 a second per address; text ``404`` for an unknown package).
"""

from __future__ import annotations

from datetime import date
from typing import Final

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Source, Task, days_between

DAYS_KEPT: Final = 180
DOWNLOADS: Final = METRIC_BY_NAME["pypi_downloads"].metric_id
PYPISTATS: Final = ORIGIN_BY_NAME["pypistats"].origin_id


def crawl(batch: Batch) -> Steps:
    """Read the daily downloads of each package of the batch; ``key`` is the normalised package name."""
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    wanted = days_between(batch.start, batch.end)
    for entity in batch.entities:
        response = yield Request(
            "pypistats", "GET", f"/api/packages/{entity.key}/overall", (("mirrors", "false"),), sticky=entity.key
        )
        if response.status == 404:
            reason = f"pypistats knows no package {entity.key}: correct the watchlist"
            gaps += [Gap(entity.entity_id, DOWNLOADS, day, reason, False) for day in wanted]
            continue
        try:
            counts = parse_overall(response, entity.key)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            gaps += [Gap(entity.entity_id, DOWNLOADS, day, str(exc), True) for day in wanted]
            continue
        newest = max(counts, default=None)
        for day in wanted:
            if day in counts:
                rows.append((entity.entity_id, DOWNLOADS, day, float(counts[day]), PYPISTATS))
            else:
                late = newest is None or day > newest
                reason = f"the feed ends with {newest}" if late else "the feed has no row for this day"
                gaps.append(Gap(entity.entity_id, DOWNLOADS, day, reason, True))
    return Observations.from_rows(rows, gaps)


def parse_overall(response: Response, package: str) -> dict[date, int]:
    """Read ``/overall``: downloads without mirrors per day. Broken rows are left out, a repeated day is too.

    Raises
    ------
    Unavailable, Malformed
        If the site failed, or the answer is about something else.
    """
    if response.status >= 500:
        raise Unavailable(f"pypistats answered {response.status}")
    if response.status != 200:
        raise Malformed(f"pypistats answered {response.status} for {package}")
    body = response.json()
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        raise Malformed(f"pypistats answered without data for {package}")
    if body.get("package") != package:
        raise Malformed(f"pypistats answered about {repr(body.get('package'))[:80]} when asked for {package}")
    counts: dict[date, int] = {}
    doubled: set[date] = set()
    for row in body["data"]:
        if not isinstance(row, dict) or row.get("category") != "without_mirrors":
            continue
        downloads = row.get("downloads")
        try:
            day = date.fromisoformat(str(row.get("date")))
        except ValueError:
            continue
        if isinstance(downloads, int) and not isinstance(downloads, bool) and 0 <= downloads < 10**12:
            if counts.get(day, downloads) != downloads:
                doubled.add(day)
            counts[day] = downloads
    return {day: n for day, n in counts.items() if day not in doubled}


SOURCE: Final = Source(
    name="pypistats",
    upstream="pypistats",
    key="package",
    tasks={
        "overall": Task(
            "overall",
            ("pypi_downloads",),
            "dated",
            "core",
            10,
            DAYS_KEPT,
            10,
            cadence_days=1,
            lookback_days=DAYS_KEPT,
            span="since_missing",
            probe=10,
        )
    },
    crawl=crawl,
    concurrency=4,
    budgets={"pypistats": BudgetSpec({"core": BucketSpec((Window(5, 1.0), Window(30, 60.0)))}, concurrency=4)},
)
