"""GitHub's ``/stargazers/history``: daily star gains of a repository, 30 weeks a page, newest week first.

A gain counts stars that still stand by the day on which they were given, so what is past may shrink. The newest week
may be late, a throttle answers 422, very old repositories may fail alone. Facts: github.blog changelog 2026-09-04.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, RateLimited, Unavailable
from astrid.models import Batch, Gap, Observations, Request, Response, Steps
from astrid.sources.github_graphql import NOT_FOUND, as_count
from astrid.sources.github_identity import API_VERSION, Known, absence, explain_absence, identify, identities
from astrid.sources.source import PATIENCE, days_between

WEEKS_PER_PAGE: Final = 30
MAX_PAGES: Final = 100
GAINED: Final = METRIC_BY_NAME["github_stars_gained"].metric_id
ENDPOINT: Final = "/stargazers/history"
CONTRADICTED: Final = "the history contradicts itself about this week"
HISTORY: Final = ORIGIN_BY_NAME["github_stargazers_history"].origin_id
_HISTORY_PATH: Final = re.compile(rf"/(repositories/(?P<number>[0-9]{{1,18}})|repos/[^/]+/[^/]+){ENDPOINT}\Z")


@dataclass(slots=True)
class Past:
    """What a history states so far: star gains by UTC day, and the days of weeks of which it says two things."""

    gains: dict[date, int] = field(default_factory=dict)
    contradicted: set[date] = field(default_factory=set)

    @property
    def stated(self) -> set[date]:
        """Return all days that the history speaks of."""
        return self.gains.keys() | self.contradicted


def crawl_history(batch: Batch) -> Steps:
    """Read the daily star gains of the batch's repositories, by their numbers: a name may lead to a stranger.

    A history reaches back to the week of the creation: days from there on that it does not state are gaps, earlier
    ones are not. A star stated for the day before the creation is kept, as GitHub states it. A batch takes what
    :func:`identify` takes, and of each repository at most ``MAX_PAGES`` requests, or one if it is not found.

    Raises
    ------
    Malformed, Unavailable
        While the batch's patience lasts; from then on a repository that cannot be read costs itself alone, and what
        was read of it stays. Unavailable also if GitHub identifies nobody at all.
    RateLimited
        If GitHub throttles the endpoint (422).
    """
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    asked = days_between(batch.start, batch.end)
    known, lost = yield from identify(batch.entities, batch.attempt)
    for entity, reason, retry in lost:
        if reason == NOT_FOUND:
            reason = yield from explain_absence(entity)
        gaps += [Gap(entity.entity_id, GAINED, day, reason, retry) for day in asked]
    for repository in known:
        number, past, failed = repository.entity.entity_id, Past(), False
        try:
            reason, retry = yield from _read_history(repository, batch.start, past)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            reason, retry, failed = str(exc), True, True
        stated = past.stated
        first = _first_day(repository, stated, batch.start, whole=not reason)
        for day in asked:
            if day in past.gains:
                rows.append((number, GAINED, day, float(past.gains[day]), HISTORY))
            elif day >= first:
                why = CONTRADICTED if day in past.contradicted else reason
                late = "the history does not reach this day yet" if stated and day > max(stated) else ""
                why = why or late or "the history states no sound count for this day"
                odd = failed or day in past.contradicted or not (reason or late)
                gaps.append(Gap(number, GAINED, day, why, retry, doubtful=odd))
    return Observations.from_rows(rows, gaps, identities(known))


def _first_day(repository: Known, stated: set[date], asked: date, *, whole: bool) -> date:
    """Return since when a day without a count is a gap: the creation, else where a history ends that was read whole."""
    if repository.created_on is not None:
        return _week_of(repository.created_on)
    return min(stated, default=asked) if whole else asked


def _read_history(repository: Known, first: date, past: Past) -> Generator[Request, Response, tuple[str, bool]]:
    """Page back to ``first`` and add what is stated to ``past``; return why there is nothing, and whether to ask again.

    A link or redirect that leads to another repository's history is refused. One that is asked for by name, for its
    number is not told, has the number that GitHub leads to first.
    """
    number = repository.database_id
    path = f"/repos/{repository.name}{ENDPOINT}" if number is None else f"/repositories/{number}{ENDPOINT}"
    params: tuple[tuple[str, str], ...] = (("per_page", str(WEEKS_PER_PAGE)), ("page", "1"))
    moved = False
    for _ in range(MAX_PAGES):
        response = yield Request(
            "github", "GET", path, params, headers=(API_VERSION,), bucket="core", sticky=repository.node_id
        )
        if response.status in (301, 302, 307, 308) and not moved:
            moved = True
            path, stated_params, number = _follow(response.headers.get("location", ""), number)
            params = stated_params or params
            continue
        gone = absence(response)
        if gone:
            return gone, False
        _raise_for_status(response)
        page, reached = parse_history(response), past.stated
        past.gains = page.gains | past.gains
        past.contradicted |= page.contradicted
        following = _next_page(response.headers.get("link", ""))
        oldest = min(page.stated, default=None)
        # A page that brings nothing older leads in a circle.
        if oldest is None or (reached and oldest >= min(reached)) or oldest <= first or following is None:
            break
        path, params, number = _follow(following, number)
    return "" if past.stated else "the history is empty", True


def parse_history(response: Response) -> Past:
    """Read one page: star gains per UTC day.

    Weeks that do not start on a Sunday 00:00 UTC or have not seven days (only the newest may have fewer),
    and days without a non-negative count are left out: a gap, not a guess. So are weeks stated twice with different
    counts, and those whose total, where it states one, is not the sum of their days; these are named.

    Raises
    ------
    Malformed
        If the body is no list of weeks.
    """
    weeks = response.json()
    if not isinstance(weeks, list):
        raise Malformed(f"star history is {type(weeks).__name__}, not a list of weeks")
    stated: dict[date, list[Any]] = {}
    contradicted: set[date] = set()
    for week in weeks:
        sunday = _sunday(week.get("week")) if isinstance(week, dict) else None
        if sunday is None or not isinstance(week.get("days"), list):
            continue
        same = stated.setdefault(sunday, week["days"]) == week["days"]
        if not same or not _adds_up(week["days"], week.get("total")):
            contradicted.add(sunday)
    newest = max(stated, default=None)
    past = Past()
    for sunday, counts in stated.items():
        if len(counts) > 7 or (len(counts) < 7 and sunday != newest):
            continue
        for n, stated_count in enumerate(counts):
            day, gained = sunday + timedelta(days=n), as_count(stated_count)
            if sunday in contradicted:
                past.contradicted.add(day)
            elif gained is not None:
                past.gains[day] = gained
    return past


def _adds_up(days: list[Any], total: object) -> bool:
    counts = [as_count(day) for day in days]
    return total is None or (as_count(total) is not None and None not in counts and total == sum(filter(None, counts)))


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


def _follow(url: str, known: int | None) -> tuple[str, tuple[tuple[str, str], ...], int | None]:
    """Return path and parameters of a link of GitHub's, relative to the configured base URL, and whose number it has.

    GitHub's own links have numbers (GitHub docs, "Using pagination in the REST API"); a name may be a stranger's.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise Malformed(f"GitHub's link is no URL: {url[:120]!r}") from exc
    below = _HISTORY_PATH.search(parts.path)
    if below is None:
        raise Malformed(f"GitHub's link leads elsewhere: {url[:120]!r}")
    number = int(below["number"]) if below["number"] else None
    if known is not None and number != known:
        other = f"repository {number}" if number is not None else f"a name, {below[0][:120]!r}"
        raise Malformed(f"GitHub leads from the history of repository {known} to that of {other}")
    return below[0], tuple(parse_qsl(parts.query)), number
