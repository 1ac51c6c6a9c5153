"""The plan of a backfill: years of history, source by source. Pure, deterministic."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from astrid.catalog import METRIC_BY_NAME, Metric
from astrid.models import Batch, Entity, Gap
from astrid.pipeline.asks import reach_of
from astrid.pipeline.plan import cut
from astrid.sources import SOURCES
from astrid.sources.npm import FIRST_DAY as NPM_FIRST_DAY
from astrid.sources.source import Task

PYPISTATS_DAYS = 180


@dataclass(frozen=True, slots=True)
class Past:
    """What of the past a task can be asked for.

    Its upstream serves days from ``first`` on, those of the last ``kept_days`` (0 = all); a stand-in is asked only for
    what is older than the last ``after_days``. ``monthly`` batches hold a month of all entities. A task that is dear
    is asked only where it is ``named``, as ``source.task``.
    """

    source: str
    task: str
    first: date = date.min
    kept_days: int = 0
    after_days: int = 0
    monthly: bool = False
    named: bool = False

    def span(self, first: date, last: date) -> tuple[date, date]:
        """Return what of the days from ``first`` to ``last`` (inclusive) it is asked for; empty where they cross."""
        begin = max(first, self.first)
        if self.kept_days:
            begin = max(begin, last - timedelta(days=self.kept_days - 1))
        return begin, last - timedelta(days=self.after_days)

    def is_wanted(self, sources: Collection[str]) -> bool:
        """Tell whether it is among what is asked for."""
        return f"{self.source}.{self.task}" in sources or (not self.named and self.source in sources)

    @property
    def what(self) -> Task:
        """The task itself."""
        return SOURCES[self.source].tasks[self.task]


PASTS: Final = (
    Past("archive", "month", monthly=True),
    Past("hackernews", "window", monthly=True),
    Past("pypistats", "overall", kept_days=PYPISTATS_DAYS),
    Past("clickhouse", "daily", after_days=PYPISTATS_DAYS),
    Past("github", "history"),
    Past("github", "commits", named=True),
    Past("npm", "bulk", first=NPM_FIRST_DAY),
    Past("npm", "scoped", first=NPM_FIRST_DAY),
)
"""What a backfill can read, in the order in which it does. Commits cost a GitHub point for every 56 days."""


def plan_backfill(
    first: date, last: date, entities: Mapping[str, Sequence[Entity]], sources: Collection[str]
) -> list[Batch]:
    """Plan the history from ``first`` to ``last`` (inclusive) of every entity, source by source.

    ``sources`` are sources, or single tasks as ``source.task``. Days that pypistats still has come from there, older
    ones from the ClickHouse copy. A batch that an earlier run has finished is taken out by the caller
    (:func:`leave_out`): ids are equal for equal work.
    """
    batches: list[Batch] = []
    for past in PASTS:
        begin, end = past.span(first, last)
        if not past.is_wanted(sources) or begin > end:
            continue
        whom = [e for e in entities[past.source] if past.what.accepts(e)]
        for start, stop in _months(begin, end) if past.monthly else [(begin, end)]:
            batches += cut(SOURCES[past.source], past.what, last, start, stop, whom, "backfill")
    return batches


def find_backfill(metric: str, day: date, last: date, sources: Collection[str]) -> str:
    """Return what to give a backfill up to ``last`` so that it asks for a metric on ``day``; empty if nothing does.

    ``sources`` are those that can be asked. What is taken from others' archives is not counted: who knows what they
    have.
    """
    for past in PASTS:
        known = past.source in sources and past.source != "archive"
        begin, end = past.span(day, last)
        if known and metric in (*past.what.metrics, *past.what.also) and begin <= day <= end:
            return f"{past.source}.{past.task}" if past.named else past.source
    return ""


def leave_out(batches: Sequence[Batch], done: Collection[str], gaps: Sequence[Gap]) -> list[Batch]:
    """Return the batches without those that some run has done and that left nothing behind.

    One that left a gap which is worth another try, and lies further back than nights ask, is asked again: equal work
    need not have an equal end.
    """
    open_days: dict[tuple[int, int], set[date]] = {}
    for gap in gaps:
        if gap.retry:
            open_days.setdefault((gap.metric_id, gap.entity_id), set()).add(gap.day)

    def left_something(batch: Batch) -> bool:
        metrics = [METRIC_BY_NAME[name] for name in SOURCES[batch.source].tasks[batch.task].metrics]
        return any(
            batch.start <= day <= min(batch.end, batch.day - timedelta(days=nightly_reach(metric)))
            for entity in batch.entities
            for metric in metrics
            for day in open_days.get((metric.metric_id, entity.entity_id), ())
        )

    return [b for b in batches if b.batch_id not in done or left_something(b)]


def nightly_reach(metric: Metric) -> int:
    """Return how far back nights ask for a metric, in days."""
    tasks = SOURCES[metric.source].tasks.values()
    return max((reach_of(task) for task in tasks if metric.name in task.metrics), default=0)


def _months(first: date, last: date) -> Iterator[tuple[date, date]]:
    while first <= last:
        end = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        yield first, min(end, last)
        first = end + timedelta(days=1)
