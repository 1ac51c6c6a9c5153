"""The plan of a backfill: years of history, source by source. Pure, deterministic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta

from astrid.models import Batch, Entity
from astrid.pipeline.plan import cut
from astrid.sources import SOURCES

PYPISTATS_DAYS = 180


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
            batches += cut(source, source.tasks["month"], last, start, end, entities["archive"], "backfill")
    if "hackernews" in sources:
        source = SOURCES["hackernews"]
        for start, end in _months(first, last):
            batches += cut(source, source.tasks["window"], last, start, end, entities["hackernews"], "backfill")
    recent = max(first, last - timedelta(days=PYPISTATS_DAYS - 1))
    if "pypistats" in sources:
        source = SOURCES["pypistats"]
        batches += cut(source, source.tasks["overall"], last, recent, last, entities["pypistats"], "backfill")
    if "clickhouse" in sources and first < recent:
        source = SOURCES["clickhouse"]
        older = recent - timedelta(days=1)
        batches += cut(source, source.tasks["daily"], last, first, older, entities["clickhouse"], "backfill")
    if "github" in sources:
        source = SOURCES["github"]
        batches += cut(source, source.tasks["history"], last, first, last, entities["github"], "backfill")
    return batches


def _months(first: date, last: date) -> Iterator[tuple[date, date]]:
    while first <= last:
        end = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        yield first, min(end, last)
        first = end + timedelta(days=1)
