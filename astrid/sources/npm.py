"""npm downloads per day from api.npmjs.org: tarballs served, mirrors and CI included.

Names without a scope go 128 to a request, scoped ones singly; so the first are asked for every night, the others
once a week, each answer with the days since. Facts: npm/registry ``docs/download-counts.md`` (128 names and 365 days
per list, no scopes in it, counts since 2015-01-10); no limit is documented, since 2025-11 one request a second is
too many and Cloudflare answers ``error code: 1015``.

What npm states and we do not believe is a gap:

- days outside the ``start`` and ``end`` of the answer: a longer range than npm serves loses its oldest days silently;
- a 0 or nothing at the end of the answer, on the newest two days or after a day of at least 50: not counted yet;
- a 0, or some in a row, between two days of at least 50: a fault of npm's counting, as it has had (chance brings 0
  instead of 50 once in 10^21 days). A package that really falls from 50 to 0 has gaps from there on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import quote

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Source, Task, days_between

BULK: Final = 128
BULK_DAYS: Final = 365
FIRST_DAY: Final = date(2015, 1, 10)
SURROUNDINGS: Final = 7
"""Days before and after the wanted ones that are asked for too, to judge a 0 by its neighbours."""

SURE_COUNT: Final = 50
FRESH_DAYS: Final = 2
DOWNLOADS: Final = METRIC_BY_NAME["npm_downloads"].metric_id
NPM: Final = ORIGIN_BY_NAME["npm"].origin_id

UNKNOWN: Final = "npm knows no package of this name: correct the watchlist"
UNREADABLE: Final = "npm's entry for this package cannot be read"
TOO_EARLY: Final = "npm counts downloads since 2015-01-10"
CUT: Final = "npm's answer covers less than was asked for: the range was cut"
NOT_YET: Final = "npm has not counted this day yet"
FAULTY_ZERO: Final = "npm states 0 between days of many downloads: a fault of its counting"
NO_COUNT: Final = "npm has no usable count for this day"


@dataclass(frozen=True, slots=True)
class Range:
    """One package's answer: the days that it covers (inclusive), and the counts in it; a doubtful day is absent."""

    start: date
    end: date
    counts: Mapping[date, int]


def crawl(batch: Batch) -> Steps:
    """Read the daily downloads of the batch's packages from ``start`` to ``end``; ``key`` is the package.

    Raises
    ------
    TooLarge
        If npm refuses a list as a whole, as it does for one bad name in it: split the batch to find it.
    """
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    wanted = days_between(batch.start, batch.end)
    first = max(FIRST_DAY, batch.start - timedelta(days=SURROUNDINGS))
    last = max(batch.end, min(batch.day, batch.end + timedelta(days=SURROUNDINGS)))
    if last < FIRST_DAY:
        return Observations.from_rows(
            [], [Gap(e.entity_id, DOWNLOADS, d, TOO_EARLY) for e in batch.entities for d in wanted]
        )
    for names in _lists(batch):
        asked = [e for e in batch.entities if e.key in names]
        response = yield Request("npm", "GET", _path(first, last, names))
        try:
            found = parse_ranges(response, names)
        except (Malformed, Unavailable) as exc:
            if isinstance(exc, Malformed) and batch.attempt >= PATIENCE and len(names) > 1:
                raise TooLarge(f"a list of {len(names)} packages, again and again: {exc}") from exc
            if batch.attempt < PATIENCE or len(names) > 1:
                raise
            gaps += [Gap(e.entity_id, DOWNLOADS, day, str(exc), True) for e in asked for day in wanted]
            continue
        for entity in asked:
            judged = _judge(found[entity.key], wanted, batch.day)
            rows += [(entity.entity_id, DOWNLOADS, d, float(n), NPM) for d, n in judged.items() if isinstance(n, int)]
            gaps += [
                Gap(entity.entity_id, DOWNLOADS, day, reason, reason not in (UNKNOWN, TOO_EARLY, FAULTY_ZERO))
                for day, reason in judged.items()
                if isinstance(reason, str)
            ]
    return Observations.from_rows(rows, gaps)


def parse_ranges(response: Response, names: Sequence[str]) -> dict[str, Range | str]:
    """Read ``/downloads/range``: per package its range, or why there is none (:data:`UNKNOWN`, :data:`UNREADABLE`).

    Raises
    ------
    Unavailable, Malformed
        If npm failed, or the answer as a whole is not what was asked for.
    TooLarge
        If npm refuses a list of names.
    """
    if response.status >= 500:
        raise Unavailable(f"npm answered {response.status}")
    if response.status == 404 and len(names) == 1:
        return {names[0]: UNKNOWN}
    if response.status in (400, 404, 405, 413, 414, 422) and len(names) > 1:
        raise TooLarge(f"npm answered {response.status} to a list of {len(names)} packages")
    if response.status != 200:
        raise Malformed(f"npm answered {response.status}")
    body = response.json()
    if not isinstance(body, dict):
        raise Malformed("npm answered with something that is no object")
    if len(names) == 1:
        if body.get("package") != names[0]:
            raise Malformed(f"npm answered about {repr(body.get('package'))[:80]} when asked for {names[0][:80]}")
        return {names[0]: _read_range(body, names[0])}
    if not any(name in body for name in names):
        raise Malformed("npm answered about none of the packages that it was asked for")
    return {
        name: UNKNOWN if name in body and body[name] is None else _read_range(body.get(name), name) for name in names
    }


def _read_range(value: Any, name: str) -> Range | str:
    if not isinstance(value, dict) or value.get("package") != name or not isinstance(value.get("downloads"), list):
        return UNREADABLE
    start, end = _day(value.get("start")), _day(value.get("end"))
    if start is None or end is None:
        return UNREADABLE
    counts: dict[date, int] = {}
    doubled: set[date] = set()
    for row in value["downloads"]:
        day, count = (_day(row.get("day")), row.get("downloads")) if isinstance(row, dict) else (None, None)
        if day is None or not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 10**12:
            continue
        if counts.get(day, count) != count:
            doubled.add(day)
        counts[day] = count
    return Range(start, end, {day: n for day, n in counts.items() if day not in doubled})


def _judge(found: Range | str, wanted: Sequence[date], night: date) -> dict[date, int | str]:
    """Return for each wanted day its count, or the reason why there is none."""
    if isinstance(found, str):
        return dict.fromkeys(wanted, found)
    judged: dict[date, int | str] = {}
    counted = sorted(day for day, n in found.counts.items() if n > 0)
    for day in wanted:
        count = found.counts.get(day)
        place = bisect_left(counted, day)
        before = found.counts[counted[place - 1]] if place else 0
        after = found.counts[counted[place]] if place < len(counted) else None
        if day < FIRST_DAY:
            judged[day] = TOO_EARLY
        elif not count and after is None and ((night - day).days < FRESH_DAYS or before >= SURE_COUNT):
            judged[day] = NOT_YET
        elif not found.start <= day <= found.end:
            judged[day] = CUT
        elif count is None:
            judged[day] = NO_COUNT
        elif count == 0 and before >= SURE_COUNT and after is not None and after >= SURE_COUNT:
            judged[day] = FAULTY_ZERO
        else:
            judged[day] = count
    return judged


def _lists(batch: Batch) -> list[list[str]]:
    """Return the names of each request: unscoped ones together, scoped ones alone."""
    names = list(dict.fromkeys(e.key for e in batch.entities))
    unscoped = [n for n in names if not n.startswith("@")]
    bulk = [unscoped[i : i + BULK] for i in range(0, len(unscoped), BULK)]
    return bulk + [[n] for n in names if n.startswith("@")]


def _path(first: date, last: date, names: Sequence[str]) -> str:
    return f"/downloads/range/{first}:{last}/{','.join(quote(name, safe='@') for name in names)}"


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _is_scoped(entity: Entity) -> bool:
    return entity.key.startswith("@")


def _is_unscoped(entity: Entity) -> bool:
    return not _is_scoped(entity)


SOURCE: Final = Source(
    name="npm",
    upstream="npm",
    key="npm",
    tasks={
        "bulk": Task(
            "bulk",
            ("npm_downloads",),
            "dated",
            "core",
            entities_per_batch=BULK,
            days_per_batch=BULK_DAYS - 2 * SURROUNDINGS,
            requests_per_batch=1,
            cadence_days=1,
            lookback_days=30,
            accepts=_is_unscoped,
        ),
        "scoped": Task(
            "scoped",
            ("npm_downloads",),
            "dated",
            "core",
            entities_per_batch=8,
            days_per_batch=BULK_DAYS - 2 * SURROUNDINGS,
            requests_per_batch=8,
            cadence_days=7,
            lookback_days=30,
            accepts=_is_scoped,
        ),
    },
    crawl=crawl,
    concurrency=1,
    budgets={"npm": BudgetSpec({"core": BucketSpec((Window(1, 5.0),))}, concurrency=1)},
)
