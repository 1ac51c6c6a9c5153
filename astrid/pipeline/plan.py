"""What a run will ask for, known before it runs: pure, deterministic, only what is missing.

Batches are cut by the sources' own figures; their ids are digests of their content, so planning
twice gives the same plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import ceil

from astrid.models import Batch, Entity
from astrid.sources import BUDGETS, SOURCES
from astrid.sources.source import Source, Task

HN_FINAL_DAYS = 3
"""Points of a story go on changing for about three days; those days are read again each night."""

HISTORY_SLICE = 7
"""Each night re-reads the star history of one project in seven: every project once a week."""

HISTORY_DAYS = 14
STALE_FEED_DAYS = 3
PROBE = 10
"""A feed that has stood still for more than three days is probed with this many packages a night."""

PYPISTATS_DAYS = 180


_OWN_RULES = frozenset({"github", "hackernews", "pypistats"})
"""Sources whose nights follow rules of their own; the others' follow from what their tasks declare."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What the store lacks: per metric the days of each entity from ``first`` to the night's day.

    ``newest`` is the last observed day per metric and entity (absent: never observed), ``asked`` who
    was asked in vain for the night's day a moment ago.
    """

    first: date
    days: Mapping[str, Mapping[int, frozenset[date]]]
    newest: Mapping[str, Mapping[int, date]]
    asked: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def of(self, metric: str, entity_id: int) -> frozenset[date]:
        """Return the days on which this entity lacks this metric."""
        return self.days.get(metric, {}).get(entity_id, frozenset())


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan asks of one source: batches, requests, budget points, and hours at the upstream's limits."""

    source: str
    batches: int
    requests: int
    points: int
    hours: float


def plan_night(
    day: date,
    entities: Mapping[str, Sequence[Entity]],
    missing: Missing,
    sources: Sequence[str],
    without: Collection[str] = (),
) -> list[Batch]:
    """Plan the night of ``day``.

    Parameters
    ----------
    entities
        The tracked entities per source name.
    missing
        What the store lacks; a metric that is complete costs nothing.
    sources
        Which sources may be asked (one without a token or a URL is left out by the caller).
    without
        Tasks, ``source.task``, that are not asked for.
    """
    batches: list[Batch] = []
    if "github" in sources:
        source = SOURCES["github"]
        for task in (source.tasks["counts"], source.tasks["totals"]):
            lacks = [missing.days.get(metric, {}) for metric in task.metrics]
            counted = [e for e in entities["github"] if any(day in days.get(e.entity_id, ()) for days in lacks)]
            if f"github.{task.name}" not in without:
                batches += _cut(source, task, day, day, day, counted)
        sliced = [e for e in entities["github"] if (e.entity_id + day.toordinal()) % HISTORY_SLICE == 0]
        due = [e for e in sliced if day in missing.of("github_stars_gained", e.entity_id)]
        batches += _cut(source, source.tasks["history"], day, day - timedelta(days=HISTORY_DAYS - 1), day, due)
        commits = source.tasks["commits"]
        if "github.commits" not in without:
            due = [e for e in entities["github"] if is_due(commits, e.entity_id, day, missing)]
            batches += _cut(source, commits, day, day - timedelta(days=commits.lookback_days - 1), day, due)
    if "hackernews" in sources:
        source = SOURCES["hackernews"]
        rules = entities["hackernews"]
        lacking = sorted({d for e in rules for d in missing.of("hn_points", e.entity_id)})
        if day in lacking:
            again = {day - timedelta(days=n) for n in range(HN_FINAL_DAYS)}
            for first, last in _runs(sorted({*lacking, *again}), source.tasks["window"].days_per_batch):
                batches += _cut(source, source.tasks["window"], day, first, last, rules)
    if "pypistats" in sources:
        source = SOURCES["pypistats"]
        lacking_day = [e for e in entities["pypistats"] if day in missing.of("pypi_downloads", e.entity_id)]
        late = _probe(lacking_day, day, missing)
        for first, group in _by_first_missing(
            late, "pypi_downloads", missing, day - timedelta(days=PYPISTATS_DAYS - 1)
        ):
            batches += _cut(source, source.tasks["overall"], day, first, day, group)
    for name in [n for n in sources if n not in _OWN_RULES]:
        source = SOURCES[name]
        for task in source.tasks.values():
            if task.cadence_days and f"{name}.{task.name}" not in without:
                due = [e for e in entities[name] if task.accepts(e) and is_due(task, e.entity_id, day, missing)]
                batches += _cut(source, task, day, day - timedelta(days=task.lookback_days - 1), day, due)
    return batches


def is_due(task: Task, entity_id: int, day: date, missing: Missing) -> bool:
    """Tell whether the night of ``day`` asks for an entity: it lacks the day, and its turn has come or was missed."""
    lacking = [metric for metric in task.metrics if day in missing.of(metric, entity_id)]
    if not lacking or task.cadence_days <= 1:
        return bool(lacking)
    newest = [missing.newest.get(metric, {}).get(entity_id) for metric in lacking]
    overdue = any(last is None or (day - last).days > task.cadence_days for last in newest)
    return overdue or (entity_id + day.toordinal()) % task.cadence_days == 0


def plan_backfill(
    first: date, last: date, entities: Mapping[str, Sequence[Entity]], sources: Sequence[str]
) -> list[Batch]:
    """Plan the history from ``first`` to ``last`` (inclusive) of every entity, source by source.

    Days that pypistats still has come from there, older ones from the ClickHouse copy. A batch that an
    earlier run has finished is taken out by the caller: ids are equal for equal work.
    """
    batches: list[Batch] = []
    if "archive" in sources:
        source = SOURCES["archive"]
        for start, end in _months(first, last):
            batches += _cut(source, source.tasks["month"], last, start, end, entities["archive"], "backfill")
    if "hackernews" in sources:
        source = SOURCES["hackernews"]
        for start, end in _months(first, last):
            batches += _cut(source, source.tasks["window"], last, start, end, entities["hackernews"], "backfill")
    recent = max(first, last - timedelta(days=PYPISTATS_DAYS - 1))
    if "pypistats" in sources:
        source = SOURCES["pypistats"]
        batches += _cut(source, source.tasks["overall"], last, recent, last, entities["pypistats"], "backfill")
    if "clickhouse" in sources and first < recent:
        source = SOURCES["clickhouse"]
        older = recent - timedelta(days=1)
        batches += _cut(source, source.tasks["daily"], last, first, older, entities["clickhouse"], "backfill")
    if "github" in sources:
        source = SOURCES["github"]
        batches += _cut(source, source.tasks["history"], last, first, last, entities["github"], "backfill")
    return batches


def cost_plan(batches: Sequence[Batch], credentials: Mapping[str, int]) -> list[Cost]:
    """Add the plan up per source; ``credentials`` is how many budgets each upstream has.

    ``hours`` is the longest of the budget's windows: what the upstream's limits alone take.
    """
    costs = []
    for name, source in SOURCES.items():
        own = [b for b in batches if b.source == name]
        if not own:
            continue
        hours = 0.0
        budgets = max(1, credentials.get(source.upstream, 1))
        for bucket_name, bucket in BUDGETS[source.upstream].buckets.items():
            of_bucket = [b for b in own if source.tasks[b.task].bucket == bucket_name]
            requests = sum(b.requests for b in of_bucket)
            points = sum(b.points for b in of_bucket)
            rates = [w.limit / w.period_s for w in bucket.windows]
            hours = max([hours, *(requests / rate / 3600 / budgets for rate in rates)])
            if bucket.primary:
                hours = max(hours, points / bucket.primary / budgets)
        costs.append(Cost(name, len(own), sum(b.requests for b in own), sum(b.points for b in own), hours))
    return costs


def _cut(
    source: Source, task: Task, day: date, start: date, end: date, entities: Sequence[Entity], lane: str = "nightly"
) -> list[Batch]:
    """Cut a task into batches of at most the entities and days that one may hold."""
    batches = []
    for group in _chunks(entities, task.entities_per_batch):
        for first, last in _spans(start, end, task.days_per_batch):
            requests = ceil(_requests(source, task, group, first, last))
            points = requests * task.points_per_request
            batches.append(
                Batch(source.name, task.name, day, first, last, tuple(group), lane, requests=requests, points=points)
            )
    return batches


def _requests(source: Source, task: Task, group: Sequence[Entity], first: date, last: date) -> float:
    days = (last - first).days + 1
    match source.name, task.name:
        case "github", "counts" | "totals":
            return 1 + any(not e.key for e in group)
        case "github", "history":
            return 1 + len(group) * ceil((days + 6) / 7 / 30)
        case "github", "commits":
            return task.requests_per_batch * len(group) / task.entities_per_batch + any(not e.key for e in group)
        case "pypistats", _:
            return len(group)
        case "hackernews", _:
            return 1 + days / 15
        case _:
            return task.requests_per_batch * (len(group) / task.entities_per_batch if _one_each(task) else 1)


def _one_each(task: Task) -> bool:
    """Tell whether a task sends one request per entity, so that a batch that is not full costs less."""
    return task.requests_per_batch == task.entities_per_batch


def _probe(late: Sequence[Entity], day: date, missing: Missing) -> Sequence[Entity]:
    """Take a rotating few if the whole feed stands still; asking for all of them would bring nothing new.

    A probe that came back empty a moment ago stands for the whole feed.
    """
    newest = missing.newest.get("pypi_downloads", {})
    if not newest or not late or (day - max(newest.values())).days <= STALE_FEED_DAYS:
        return late
    if missing.asked.get("pypi_downloads"):
        return ()
    turn = day.toordinal() * PROBE % len(late)
    return (*late, *late)[turn : turn + min(PROBE, len(late))]


def _by_first_missing(
    entities: Sequence[Entity], metric: str, missing: Missing, earliest: date
) -> Iterator[tuple[date, list[Entity]]]:
    """Group entities by the first day that they lack, ``earliest`` if they have none: one range a batch."""
    groups: dict[date, list[Entity]] = {}
    for entity in entities:
        known = entity.entity_id in missing.newest.get(metric, {})
        first = max(earliest, min(missing.of(metric, entity.entity_id))) if known else earliest
        groups.setdefault(first, []).append(entity)
    yield from sorted(groups.items())


def _runs(days: Sequence[date], longest: int) -> Iterator[tuple[date, date]]:
    """Join sorted days into ranges of consecutive days, none longer than ``longest``."""
    start = previous = None
    for day in days:
        if start is None or previous is None:
            start = day
        elif (day - previous).days > 1 or (day - start).days >= longest:
            yield start, previous
            start = day
        previous = day
    if start is not None and previous is not None:
        yield start, previous


def _spans(first: date, last: date, longest: int) -> Iterator[tuple[date, date]]:
    while first <= last:
        end = min(last, first + timedelta(days=longest - 1))
        yield first, end
        first = end + timedelta(days=1)


def _months(first: date, last: date) -> Iterator[tuple[date, date]]:
    while first <= last:
        end = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        yield first, min(end, last)
        first = end + timedelta(days=1)


def _chunks(entities: Sequence[Entity], size: int) -> Iterator[Sequence[Entity]]:
    for start in range(0, len(entities), size):
        yield entities[start : start + size]
