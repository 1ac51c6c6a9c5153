"""npm downloads per day from api.npmjs.org: tarballs served, mirrors and CI included.

Names without a scope go 128 to a request, scoped ones singly; so the first are asked for every night, the others
once a week, each answer with the days since. Facts: npm/registry ``docs/download-counts.md`` (128 names and 365 days
per list, no scopes in it, counts since 2015-01-10); no limit is documented, since 2025-11 one request a second is
too many and Cloudflare answers ``error code: 1015``.

What npm states and we do not believe is a gap:

- days outside the ``start`` and ``end`` of the answer: a longer range than npm serves loses its oldest days silently;
- a 0 or nothing at the end of the answer, on the newest two days or after a day of at least 50: not counted yet;
- a 0, or some in a row, between two days of at least 50: a fault of npm's counting, as it has had (chance brings 0
  instead of 50 once in 10^21 days). A package that really falls from 50 to 0 has gaps from there on;
- a 0 of any package on a day that one of the two last judgements takes from most large packages of its list: the day
  failed for all of them. Scoped packages, one to an answer, are judged with the other scoped ones of their batch.

What cannot be known: whether a 0 among small counts is one, where no large package was asked for at the same time. It
is taken for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import quote

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Source, Task, days_between, read_day, read_refusal

BULK: Final = 128
BULK_DAYS: Final = 365
FIRST_DAY: Final = date(2015, 1, 10)
SURROUNDINGS: Final = 7
"""Days before and after the wanted ones that are asked for too, to judge a 0 by its neighbours."""

LOOKBACK_DAYS: Final = 35
"""One answer holds a year, so a night asks for all days that it knows about."""

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
FAILED_DAY: Final = "npm states 0 on a day that failed for large packages of the same list"
NO_COUNT: Final = "npm has no usable count for this day"
COUNTED: Final = "npm has counted this day"
FINAL: Final = (UNKNOWN, TOO_EARLY, FAULTY_ZERO, FAILED_DAY)
"""Reasons for which a day is not asked for once more; the next nights' answers reach back to it anyway."""


@dataclass(frozen=True, slots=True)
class Range:
    """One package's answer: the days that it covers (inclusive), the counts in it, and the days of two counts."""

    start: date
    end: date
    counts: Mapping[date, int]
    doubled: frozenset[date] = frozenset()


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
    lists = _lists(batch)
    # What is judged together: each list, and all singles.
    together: dict[int, dict[str, Range | str]] = {}
    for n, names in enumerate(lists):
        response = yield Request("npm", "GET", _path(first, last, names))
        try:
            found = parse_ranges(response, names)
        except (Malformed, Unavailable) as exc:
            if isinstance(exc, Malformed) and batch.attempt >= PATIENCE and len(names) > 1:
                raise TooLarge(f"a list of {len(names)} packages, again and again: {exc}") from exc
            if batch.attempt < PATIENCE or len(names) > 1:
                raise
            found = dict.fromkeys(names, str(exc))
        together.setdefault(n if len(names) > 1 else -1, {}).update(found)
    judged: dict[str, dict[date, int | str]] = {}
    for answered in together.values():
        judged |= judge_together(answered, wanted, batch.day)
    for entity in batch.entities:
        days = judged[entity.key]
        # Asked again, alone, without the large packages of its list, it would have its 0 believed.
        alone = not {FAILED_DAY, NOT_YET} & set(days.values())
        for day, value in days.items():
            if isinstance(value, int):
                rows.append((entity.entity_id, DOWNLOADS, day, float(value), NPM))
            else:
                doubtful = alone and value == NO_COUNT
                gaps.append(Gap(entity.entity_id, DOWNLOADS, day, value, value not in FINAL, doubtful))
    return Observations.from_rows(rows, gaps)


def parse_ranges(response: Response, names: Sequence[str]) -> dict[str, Range | str]:
    """Read ``/downloads/range``: per package its range, or why there is none (:data:`UNKNOWN`, :data:`UNREADABLE`).

    Raises
    ------
    Unavailable, Malformed
        If npm failed, or the answer as a whole is not what was asked for.
    TooLarge
        If npm refuses a list of names, or somebody on the way the length of the address.
    """
    if response.status >= 500:
        raise Unavailable(f"npm answered {response.status}")
    refused = response.status in (400, 404, 405, 422) and isinstance(read_refusal(response).get("error"), str)
    if response.status == 404 and refused and len(names) == 1:
        return {names[0]: UNKNOWN}
    if (refused or response.status in (413, 414)) and len(names) > 1:
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
    start, end = read_day(value.get("start")), read_day(value.get("end"))
    if start is None or end is None:
        return UNREADABLE
    counts: dict[date, int] = {}
    doubled: set[date] = set()
    for row in value["downloads"]:
        day, count = (read_day(row.get("day")), row.get("downloads")) if isinstance(row, dict) else (None, None)
        if day is None or not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 10**12:
            continue
        if counts.get(day, count) != count:
            doubled.add(day)
        counts[day] = count
    return Range(start, end, {day: n for day, n in counts.items() if day not in doubled}, frozenset(doubled))


def judge_together(
    answered: Mapping[str, Range | str], wanted: Sequence[date], night: date
) -> dict[str, dict[date, int | str]]:
    """Return for each package and wanted day its count, or why there is none; packages are witnesses of each other."""
    judged = {name: _judge(found, wanted, night) for name, found in answered.items()}
    votes: dict[date, Counter[str]] = {day: Counter() for day in wanted}
    for name, days in judged.items():
        for day, value in days.items():
            votes[day][_vote(answered[name], day, value)] += 1
    failed = {
        day: FAILED_DAY if of[FAULTY_ZERO] >= of[NOT_YET] else NOT_YET
        for day, of in votes.items()
        if of[FAULTY_ZERO] + of[NOT_YET] >= max(of[COUNTED], 1)
    }
    return {
        name: {day: failed[day] if value == 0 and day in failed else value for day, value in days.items()}
        for name, days in judged.items()
    }


def _vote(found: Range | str, day: date, value: int | str) -> str:
    """Return what a large package says of a day: :data:`FAULTY_ZERO`, :data:`NOT_YET`, or :data:`COUNTED`."""
    if isinstance(value, int):
        return COUNTED if value >= SURE_COUNT else ""
    if value == NOT_YET and isinstance(found, Range) and _beside(found.counts, day)[0] >= SURE_COUNT:
        return NOT_YET
    return FAULTY_ZERO if value == FAULTY_ZERO else ""


def _judge(found: Range | str, wanted: Sequence[date], night: date) -> dict[date, int | str]:
    """Return for each wanted day its count, or the reason why there is none."""
    if isinstance(found, str):
        return dict.fromkeys(wanted, found)
    judged: dict[date, int | str] = {}
    for day in wanted:
        count = found.counts.get(day)
        before, after = (0, 0) if count else _beside(found.counts, day)
        if day < FIRST_DAY:
            judged[day] = TOO_EARLY
        elif day in found.doubled:
            judged[day] = NO_COUNT
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


def _beside(counts: Mapping[date, int], day: date) -> tuple[int, int | None]:
    """Return the counts of the last day before ``day`` that has any, 0 for none, and of the next one, None for none."""
    before = max((d for d, n in counts.items() if n > 0 and d < day), default=None)
    after = min((d for d, n in counts.items() if n > 0 and d > day), default=None)
    return 0 if before is None else counts[before], None if after is None else counts[after]


def _lists(batch: Batch) -> list[list[str]]:
    """Return the names of each request: unscoped ones together, scoped ones alone."""
    names = list(dict.fromkeys(e.key for e in batch.entities))
    unscoped = [n for n in names if not n.startswith("@")]
    bulk = [unscoped[i : i + BULK] for i in range(0, len(unscoped), BULK)]
    return bulk + [[n] for n in names if n.startswith("@")]


def _path(first: date, last: date, names: Sequence[str]) -> str:
    return f"/downloads/range/{first}:{last}/{','.join(quote(name, safe='@') for name in names)}"


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
            lookback_days=LOOKBACK_DAYS,
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
            lookback_days=LOOKBACK_DAYS,
            accepts=_is_scoped,
        ),
    },
    crawl=crawl,
    concurrency=1,
    budgets={"npm": BudgetSpec({"core": BucketSpec((Window(1, 5.0),))}, concurrency=1)},
)
