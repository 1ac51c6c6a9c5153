"""PyPI downloads of the last 180 days from pypistats.org, without known mirrors and with them.

One answer holds every day that the site still has, so a missed night heals itself, and once a week each package is
read whole: late corrections come in. The feed can stand still for days while answering 200: what counts is the newest
day in it. Facts: psf/pypistats.org ``views/api.py`` (30 requests a minute and 5 a second per address; text ``404`` for
an unknown package), ``tasks/pypi.py`` (known mirrors are bandersnatch, z3c.pypimirror, Artifactory and devpi; rows
whose installer is not stated count as mirrored).

The site asks not to be asked for everything: a night takes at most 48 minutes of its limits. That is every package of a
short list, and of 10,000 each once in seven nights (docs/adr/0018); no day is lost, since an answer holds 180.

Much of it is no person's choice: in August 2024 the installer said in 31 % of a weekday's downloads that it ran in CI
(gist miketheman/9ed181f0278823659468aaf0d37137cb), and who says nothing may run there too. No public daily count tells
CI apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any, Final

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Source, Task, days_between, read_day

DAYS_KEPT: Final = 180
SURE_COUNT: Final = 100
HOURS: Final = 0.8
CONTRADICTION: Final = "the feed states fewer downloads with mirrors than without them"
FAILED_IMPORT: Final = "0 beside days of many downloads is taken for a failed import"
DOWNLOADS: Final = METRIC_BY_NAME["pypi_downloads"].metric_id
WITH_MIRRORS: Final = METRIC_BY_NAME["pypi_downloads_with_mirrors"].metric_id
PYPISTATS: Final = ORIGIN_BY_NAME["pypistats"].origin_id


def crawl(batch: Batch) -> Steps:
    """Read the daily downloads of each package of the batch; ``key`` is the normalised package name."""
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    wanted = days_between(batch.start, batch.end)
    for entity in batch.entities:
        response = yield Request("pypistats", "GET", f"/api/packages/{entity.key}/overall", sticky=entity.key)
        if response.status == 404 and response.body.strip() == b"404":
            reason = f"pypistats knows no package {entity.key}: correct the watchlist"
            gaps += [Gap(entity.entity_id, DOWNLOADS, day, reason, False) for day in wanted]
            continue
        try:
            counts, mirrored = parse_overall(response, entity.key)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            gaps += [Gap(entity.entity_id, DOWNLOADS, day, str(exc), True, doubtful=True) for day in wanted]
            continue
        doubtful = {day for day in counts.keys() & mirrored.keys() if mirrored[day] < counts[day]}
        # A package of which downloads with mirrors are never stated owes none.
        for metric_id, series in ((DOWNLOADS, counts), *([(WITH_MIRRORS, mirrored)] if mirrored else [])):
            judged = judge_days(series, wanted, doubtful)
            rows += [
                (entity.entity_id, metric_id, d, float(n), PYPISTATS)
                for d, n in judged.items()
                if not isinstance(n, str)
            ]
            gaps += [
                Gap(entity.entity_id, metric_id, d, why, True) for d, why in judged.items() if isinstance(why, str)
            ]
    return Observations.from_rows(rows, gaps)


def parse_overall(response: Response, package: str) -> tuple[dict[date, int], dict[date, int]]:
    """Read ``/overall``: downloads per day without mirrors, and with them.

    Broken rows are left out; so is a day that is stated twice with different counts.

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
    return _read_category(body["data"], "without_mirrors"), _read_category(body["data"], "with_mirrors")


def judge_days(
    counts: Mapping[date, int], wanted: Sequence[date], doubtful: Collection[date] = ()
) -> dict[date, int | str]:
    """Return for each wanted day its count, or the reason why there is none.

    ``doubtful`` are days on which the two series contradict each other: nothing tells which of them is wrong.
    """
    newest = max(counts, default=None)
    failed = find_failed_imports({day: n for day, n in counts.items() if day not in doubtful})
    judged: dict[date, int | str] = {}
    for day in wanted:
        if day in doubtful:
            judged[day] = CONTRADICTION
        elif day in failed:
            judged[day] = FAILED_IMPORT
        elif day in counts:
            judged[day] = counts[day]
        else:
            late = newest is None or day > newest
            judged[day] = f"the feed ends with {newest}" if late else "the feed has no row for this day"
    return judged


def find_failed_imports(counts: Mapping[date, int]) -> set[date]:
    """Return the days of 0 downloads that follow, and precede where more are stated, days of at least ``SURE_COUNT``.

    pypistats has stated such days when its import failed (psf/pypistats.org issues 29, 34 and 67).
    """
    stated = sorted(day for day, n in counts.items() if n > 0)
    failed = set()
    for day in (day for day, n in counts.items() if n == 0):
        place = bisect_left(stated, day)
        beside = [counts[d] for d in (*stated[max(place - 1, 0) : place], *stated[place : place + 1])]
        if place and min(beside) >= SURE_COUNT:
            failed.add(day)
    return failed


def _read_category(data: list[Any], category: str) -> dict[date, int]:
    counts: dict[date, int] = {}
    doubled: set[date] = set()
    for row in data:
        if not isinstance(row, dict) or row.get("category") != category:
            continue
        day, downloads = read_day(row.get("date")), row.get("downloads")
        if day is None:
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
            origin="pypistats",
            reread_days=7,
            hours=HOURS,
            also=("pypi_downloads_with_mirrors",),
        )
    },
    crawl=crawl,
    concurrency=4,
    budgets={"pypistats": BudgetSpec({"core": BucketSpec((Window(5, 1.0), Window(30, 60.0)))}, concurrency=4)},
)
