"""What a night will ask for, known before it runs: pure, deterministic, only what is missing, no more than fits.

Who is due follows from what the sources' tasks declare (:mod:`astrid.pipeline.asks`). A night has so many hours;
where the limits of an upstream do not let through in them what is due, it is shared out
(:mod:`astrid.pipeline.shares`), and who is left out stands in the ledger. Batches' ids are digests of their content,
so planning twice gives the same plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import ceil
from typing import Final

from astrid.catalog import METRIC_BY_NAME
from astrid.limits import BucketSpec
from astrid.models import Batch, Entity, Gap
from astrid.pipeline.asks import (
    Ask,
    Missing,
    find_asks,
    find_missed,
    find_passed_over,
    is_overdue,
    measure_staleness,
)
from astrid.pipeline.costs import Cost, cost_plan, count_hours
from astrid.pipeline.shares import fit
from astrid.sources import BUDGETS, SOURCES
from astrid.sources.source import Source, Task, days_between

NIGHT_HOURS: Final = 6.0

NOT_ASKED: Final = "not asked"
"""How the reasons of gaps begin that no upstream was asked for: they are no tries, and take no try's place."""

LEFT_OUT: Final = NOT_ASKED + " tonight: the night's hours went to what had waited longer"
"""The ledger's reason for what did not fit into a night."""

PASSED_OVER: Final = NOT_ASKED + " tonight: the feed stands still, and a few were asked for all"
"""The ledger's reason for the night's day of whom no probe of a feed that stands still was about."""

NO_NIGHT: Final = NOT_ASKED + " in time: no night of this day ran to its end"
"""The ledger's reason for a snapshot of a night that was missed: its moment has passed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A night's batches in the order in which they are worked off, what they cost, and the gaps that it leaves.

    Among the gaps are those of earlier nights that did not run: only the next plan can say so. ``expected`` is whom
    this and later nights ask, by (source, task), asked tonight or not: of them values are expected from now on.
    """

    batches: tuple[Batch, ...]
    left_out: tuple[Gap, ...]
    costs: tuple[Cost, ...]
    expected: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)


def plan_night(
    day: date,
    entities: Mapping[str, Sequence[Entity]],
    missing: Missing,
    sources: Collection[str],
    without: Collection[str] = (),
    *,
    users: Mapping[str, int] | None = None,
    hours: float = NIGHT_HOURS,
    value: Mapping[int, float] | None = None,
) -> Plan:
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
    users
        How many budgets each upstream has; one where it is absent.
    hours
        How long the night may take at the limits of any upstream.
    value
        From 0 to 1 per entity, what its freshness is worth to readers, 0 where it is absent. It makes a wait count
        up to double, so where not all can be asked each night the most valuable are asked twice as often. Who is
        overdue counts as most valuable: nobody's turn comes later because others had a second one.
    """
    users, value = users or {}, value or {}
    asks: dict[tuple[str, str], list[Ask]] = defaultdict(list)
    tasks = [
        (source, task)
        for source in [s for name, s in SOURCES.items() if name in sources]
        for task in [t for t in source.tasks.values() if f"{source.name}.{t.name}" not in without]
    ]
    for source, task in tasks:
        asks[source.upstream, task.bucket] += find_asks(source, task, day, entities[source.name], missing)

    def rank(task: Task, entity: Entity) -> float:
        overdue = is_overdue(task, entity.entity_id, day, missing)
        worth = 1.0 if overdue else value.get(entity.entity_id, 0.0)
        return measure_staleness(task, entity.entity_id, day, missing) * (1 + worth)

    kept: list[Ask] = []
    left_out: list[Gap] = []
    for (upstream, bucket), own in asks.items():
        budget, budgets = BUDGETS[upstream], users.get(upstream, 1)

        def price(
            some: Sequence[Ask],
            spec: BucketSpec = budget.buckets[bucket],
            budgets: int = budgets,
            reserve: float = budget.reserve,
        ) -> float:
            pieces = [p for ask in some for p in _pieces(ask.task, ask.first, ask.last, ask.entities)]
            requests, points = sum(p.requests for p in pieces), sum(p.points for p in pieces)
            return count_hours(spec, requests, points, budgets, reserve)

        fitting = fit(own, hours, price, rank)
        kept += fitting
        left_out += _leave_out(own, fitting, missing)
    left_out += _pass_over(day, entities, missing, tasks, kept)
    left_out += [
        Gap(entity_id, METRIC_BY_NAME[metric].metric_id, late, NO_NIGHT)
        for source, task in tasks
        for entity_id, metric, late in find_missed(task, day, entities[source.name], missing)
    ]
    batches = _interleave([cut(ask.source, ask.task, day, ask.first, ask.last, ask.entities) for ask in kept])
    expected = {
        (source.name, task.name): tuple(e.entity_id for e in entities[source.name] if task.accepts(e))
        for source, task in tasks
        if task.cadence_days and not task.relieves  # who stands in for another owes nothing of its own
    }
    return Plan(tuple(batches), tuple(left_out), tuple(cost_plan(batches, users)), expected)


def cut(
    source: Source, task: Task, day: date, first: date, last: date, entities: Sequence[Entity], lane: str = "nightly"
) -> list[Batch]:
    """Cut the days from ``first`` to ``last`` of a task into batches of at most what one may hold."""
    return [
        Batch(source.name, task.name, day, p.first, p.last, p.entities, lane, requests=p.requests, points=p.points)
        for p in _pieces(task, first, last, entities)
    ]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one batch holds and is expected to cost."""

    first: date
    last: date
    entities: tuple[Entity, ...]
    requests: int
    points: int


def _pieces(task: Task, first: date, last: date, entities: Sequence[Entity]) -> Iterator[_Piece]:
    for start in range(0, len(entities), task.entities_per_batch):
        group = tuple(entities[start : start + task.entities_per_batch])
        for n in range(0, (last - first).days + 1, task.days_per_batch):
            begin = first + timedelta(days=n)
            end = min(last, begin + timedelta(days=task.days_per_batch - 1))
            price = task.price(task, group, (end - begin).days + 1)
            yield _Piece(begin, end, group, ceil(price.requests), ceil(price.points))


def _interleave(batches_of_asks: Sequence[Sequence[Batch]]) -> list[Batch]:
    """Order batches: snapshots first, and every task spread evenly over the time of its class.

    However early a night ends, by an outage or its machine's end, each task has lost the same share.
    """
    by_task: dict[tuple[str, str], list[Batch]] = defaultdict(list)
    for batches in batches_of_asks:
        for batch in batches:
            by_task[batch.source, batch.task].append(batch)
    placed = [
        (SOURCES[source].tasks[task].timing == "dated", (n + 0.5) / len(own), turn, batch)
        for turn, ((source, task), own) in enumerate(by_task.items())
        for n, batch in enumerate(own)
    ]
    return [place[-1] for place in sorted(placed, key=lambda p: p[:3])]


def _pass_over(
    day: date,
    entities: Mapping[str, Sequence[Entity]],
    missing: Missing,
    tasks: Sequence[tuple[Source, Task]],
    kept: Sequence[Ask],
) -> Iterator[Gap]:
    """Return the gaps of the night's day whose feed stands still and whose stand-in is not asked either."""
    asked = {(metric, e.entity_id) for ask in kept for metric in ask.task.metrics for e in ask.entities}
    for source, task in tasks:
        for entity in find_passed_over(task, day, entities[source.name], missing):
            for metric in task.metrics:
                if (metric, entity.entity_id) not in asked and day in missing.of(metric, entity.entity_id):
                    asked.add((metric, entity.entity_id))
                    yield Gap(entity.entity_id, METRIC_BY_NAME[metric].metric_id, day, PASSED_OVER, True)


def _leave_out(asks: Sequence[Ask], kept: Sequence[Ask], missing: Missing) -> Iterator[Gap]:
    """Return the gaps of what was due and is not asked for: every day that is missing of those it would have filled.

    Not so the days for which an upstream was asked in vain: their own reasons stand in the ledger, and are the tries by
    which the next nights know who has waited.
    """
    asked = {(a.task.name, a.first, e.entity_id) for a in kept for e in a.entities}
    for ask in asks:
        days = days_between(max(ask.first, missing.first), ask.last)
        for entity in ask.entities:
            if (ask.task.name, ask.first, entity.entity_id) not in asked:
                for metric in ask.task.metrics:
                    lacking = missing.of(metric, entity.entity_id)
                    metric_id = METRIC_BY_NAME[metric].metric_id
                    tried = missing.tried.get(metric, {}).get(entity.entity_id, date.min)
                    yield from (
                        Gap(entity.entity_id, metric_id, d, LEFT_OUT, True) for d in days if d in lacking and d > tried
                    )
