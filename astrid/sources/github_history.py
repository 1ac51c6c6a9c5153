"""GitHub's ``/stargazers/history``: daily star gains of a repository, 30 weeks a page, newest week first.

A gain counts stars that still stand by the day on which they were given, so what is past may shrink. The newest week
may be late, a throttle answers 422, very old repositories may fail alone. Facts: github.blog changelog 2026-09-04.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, RateLimited, Unavailable
from astrid.models import Batch, Entity, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, days_between

API_VERSION: Final = ("x-github-api-version", "2026-03-10")
WEEKS_PER_PAGE: Final = 30
MAX_PAGES: Final = 100
GAINED: Final = METRIC_BY_NAME["github_stars_gained"].metric_id
HISTORY: Final = ORIGIN_BY_NAME["github_stargazers_history"].origin_id


def crawl_history(batch: Batch) -> Steps:
    """Read the daily star gains of the batch's repositories; ``names[0]`` is ``owner/name``.

    Raises
    ------
    Malformed, Unavailable
        While the batch's patience lasts; from then on a repository that cannot be read costs itself alone.
    """
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    for entity in batch.entities:
        try:
            days, reason, retry = yield from _history_of(entity, batch.start)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            days, reason, retry = {}, str(exc), True
        for day in days_between(batch.start, batch.end):
            if day in days:
                rows.append((entity.entity_id, GAINED, day, float(days[day]), HISTORY))
            elif reason or day > min(days):
                # Days before the first one are no gaps: the repository did not exist yet.
                late = "the history does not reach this day yet" if days and day > max(days) else ""
                why = reason or late or "the history states no sound count for this day"
                gaps.append(Gap(entity.entity_id, GAINED, day, why, retry))
    return Observations.from_rows(rows, gaps)


def _history_of(entity: Entity, first: date) -> Generator[Request, Response, tuple[dict[date, int], str, bool]]:
    """Page back to ``first``; return gains per day, or why there are none and whether to ask again."""
    days: dict[date, int] = {}
    path = f"/repos/{entity.names[0]}/stargazers/history"
    params: tuple[tuple[str, str], ...] = (("per_page", str(WEEKS_PER_PAGE)), ("page", "1"))
    moved = False
    for _ in range(MAX_PAGES):
        response = yield Request(
            "github", "GET", path, params, headers=(API_VERSION,), bucket="core", sticky=entity.names[0]
        )
        if response.status in (301, 302, 307, 308) and not moved:
            moved = True
            path, stated = _follow(response.headers.get("location", ""))
            params = stated or params
            continue
        gone = _gone(response)
        if gone:
            return {}, f"GitHub answers {response.status} for {entity.names[0]}: {gone}", False
        _raise_for_status(response)
        weeks = parse_history(response)
        days |= weeks
        following = _next_page(response.headers.get("link", ""))
        if not weeks or min(weeks) <= first or following is None:
            break
        path, params = _follow(following)
    return days, "" if days else "the history is empty", True


def parse_history(response: Response) -> dict[date, int]:
    """Read one page: star gains per UTC day.

    Weeks that do not start on a Sunday 00:00 UTC or have not seven days (only the newest may have fewer),
    days without a non-negative count, and weeks stated twice with different counts are left out: a gap, not a guess.

    Raises
    ------
    Malformed
        If the body is no list of weeks.
    """
    weeks = response.json()
    if not isinstance(weeks, list):
        raise Malformed(f"star history is {type(weeks).__name__}, not a list of weeks")
    stated: dict[date, list[Any]] = {}
    doubled: set[date] = set()
    for week in weeks:
        sunday = _sunday(week.get("week")) if isinstance(week, dict) else None
        if sunday is None or not isinstance(week.get("days"), list):
            continue
        if stated.setdefault(sunday, week["days"]) != week["days"]:
            doubled.add(sunday)
    newest = max(stated, default=None)
    return {
        sunday + timedelta(days=n): count
        for sunday, counts in stated.items()
        if sunday not in doubled and (len(counts) == 7 or (sunday == newest and len(counts) < 7))
        for n, count in enumerate(counts)
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31
    }


def _sunday(epoch_s: object) -> date | None:
    # Until the year 2100: a later week is a mistake, and dates end in 9999.
    if not isinstance(epoch_s, int) or not 0 <= epoch_s < 4_102_444_800 or epoch_s % 86_400:
        return None
    day = datetime.fromtimestamp(epoch_s, UTC).date()
    return day if day.weekday() == 6 else None


def _gone(response: Response) -> str:
    """Return why a repository cannot be seen, told apart as GitHub tells it; empty if it can."""
    if response.status == 404:
        return "deleted or private"
    blocked = b'"block"' in response.body
    if response.status == 451:
        return "blocked for legal reasons"
    return "blocked by GitHub" if response.status == 403 and blocked else ""


def _raise_for_status(response: Response) -> None:
    if response.status >= 500:
        raise Unavailable(f"GitHub answered {response.status}")
    if response.status == 422 and b"spammed" in response.body.lower():
        raise RateLimited("GitHub throttles the history endpoint (422)", retry_after_s=60.0)
    if response.status != 200:
        raise Malformed(f"GitHub answered {response.status}: {response.body[:120].decode('utf-8', 'replace')}")


def _next_page(link: str) -> str | None:
    for part in link.split(","):
        url, _, rel = part.partition(";")
        if 'rel="next"' in rel:
            return url.strip().strip("<>")
    return None


def _follow(url: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return path and parameters of a link of GitHub's, relative to the configured base URL."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise Malformed(f"GitHub's link is no URL: {url[:120]!r}") from exc
    below = re.search(r"/(repositories|repos)/.*", parts.path)
    if below is None:
        raise Malformed(f"GitHub's link leads elsewhere: {url[:120]!r}")
    return below[0], tuple(parse_qsl(parts.query))
