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
from astrid.models import Batch, Gap, Observations, Request, Response, Steps
from astrid.sources.github_graphql import NOT_FOUND
from astrid.sources.github_identity import API_VERSION, Known, absence, explain_absence, identify, identities
from astrid.sources.source import PATIENCE, days_between

WEEKS_PER_PAGE: Final = 30
MAX_PAGES: Final = 100
GAINED: Final = METRIC_BY_NAME["github_stars_gained"].metric_id
HISTORY: Final = ORIGIN_BY_NAME["github_stargazers_history"].origin_id


def crawl_history(batch: Batch) -> Steps:
    """Read the daily star gains of the batch's repositories, by their numbers: a name may lead to a stranger.

    A history reaches back to the week of the creation: days from there on that it does not state are gaps, earlier
    ones are not. A star stated for the day before the creation is kept, as GitHub states it.

    Raises
    ------
    Malformed, Unavailable
        While the batch's patience lasts; from then on a repository that cannot be read costs itself alone.
    RateLimited
        If GitHub throttles the endpoint (422).
    """
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    asked = days_between(batch.start, batch.end)
    known, lost = yield from identify(batch.entities)
    for entity, reason, retry in lost:
        if reason == NOT_FOUND:
            reason = yield from explain_absence(entity)
        gaps += [Gap(entity.entity_id, GAINED, day, reason, retry) for day in asked]
    for repository in known:
        number = repository.entity.entity_id
        try:
            days, reason, retry = yield from _history_of(repository, batch.start)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            days, reason, retry = {}, str(exc), True
        first = min(days, default=batch.start) if repository.created_on is None else _week_of(repository.created_on)
        for day in asked:
            if day in days:
                rows.append((number, GAINED, day, float(days[day]), HISTORY))
            elif day >= first:
                late = "the history does not reach this day yet" if days and day > max(days) else ""
                why = reason or late or "the history states no sound count for this day"
                gaps.append(Gap(number, GAINED, day, why, retry))
    return Observations.from_rows(rows, gaps, identities(known))


def _history_of(repository: Known, first: date) -> Generator[Request, Response, tuple[dict[date, int], str, bool]]:
    """Page back to ``first``; return gains per day, or why there are none and whether to ask again."""
    days: dict[date, int] = {}
    root = f"/repos/{repository.name}" if repository.database_id is None else f"/repositories/{repository.database_id}"
    path = f"{root}/stargazers/history"
    params: tuple[tuple[str, str], ...] = (("per_page", str(WEEKS_PER_PAGE)), ("page", "1"))
    moved = False
    for _ in range(MAX_PAGES):
        response = yield Request(
            "github", "GET", path, params, headers=(API_VERSION,), bucket="core", sticky=repository.node_id
        )
        if response.status in (301, 302, 307, 308) and not moved:
            moved = True
            path, stated = _follow(response.headers.get("location", ""))
            params = stated or params
            continue
        gone = absence(response)
        if gone:
            return {}, gone, False
        _raise_for_status(response)
        weeks = parse_history(response)
        earlier = not days or (bool(weeks) and min(weeks) < min(days))
        days = weeks | days
        following = _next_page(response.headers.get("link", ""))
        # A page that brings nothing older leads in a circle.
        if not weeks or not earlier or min(weeks) <= first or following is None:
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


def _week_of(day: date) -> date:
    return day - timedelta(days=day.isoweekday() % 7)


def _sunday(epoch_s: object) -> date | None:
    # Until the year 2100: a later week is a mistake, and dates end in 9999.
    if not isinstance(epoch_s, int) or not 0 <= epoch_s < 4_102_444_800 or epoch_s % 86_400:
        return None
    day = datetime.fromtimestamp(epoch_s, UTC).date()
    return day if day.weekday() == 6 else None


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
