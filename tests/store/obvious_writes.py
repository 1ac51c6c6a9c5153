"""The obvious version of writing values, row by row, and the ways that the store's own version can take."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import pytest

from astrid.catalog import METRIC_BY_ID, ORIGIN_BY_ID
from astrid.models import Observations
from astrid.store import WriteCounts, observations

Key = tuple[int, int, date]
"""(metric_id, entity_id, day)"""
Row = tuple[int, int, date, float, int]
"""(entity_id, metric_id, day, value, origin_id)"""
Stood = tuple[float, int, datetime, int]
"""(value, origin_id, observed_at, run_id)"""

WAYS: Final = {
    "few": {"_FEW": 10**9},
    "many": {"_FEW": 0, "_SPARSE": 10**9, "_PER_PARTITION": 10**9},
    "partitions": {"_FEW": 0, "_SPARSE": 10**9, "_PER_PARTITION": 1},
}
"""Thresholds that send rows, however few, one way: decided by SQL; read, compared and COPYed; that, into partitions."""


def send(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Let every write take one way."""
    for name, value in WAYS[way].items():
        monkeypatch.setattr(observations, name, value)


def is_acceptable(row: Row) -> bool:
    """Say whether a row may be written, from what the catalogue and the documentation say."""
    entity, metric, day, value, origin = row
    known = metric in METRIC_BY_ID and origin in ORIGIN_BY_ID and entity > 0
    return known and 0 <= value <= 1e15 and date(2000, 1, 1) <= day <= date(2199, 12, 31)


class Obvious:
    """What should stand, in dictionaries."""

    def __init__(self) -> None:
        self.values: dict[Key, Stood] = {}
        self.revisions: set[tuple[Any, ...]] = set()

    def write(self, given: Iterable[Row], run_id: int, now: datetime) -> WriteCounts:
        """Write rows one after the other, and say what became of them."""
        best: dict[Key, tuple[float, int]] = {}
        counts = dict.fromkeys(("new", "changed", "equal", "outranked", "refused", "doubled"), 0)
        for row in given:
            entity, metric, day, value, origin = row
            if not is_acceptable(row):
                counts["refused"] += 1
                continue
            key = (metric, entity, day)
            counts["doubled"] += key in best
            if key not in best or rank(origin) <= rank(best[key][1]):
                best[key] = (value, origin)
        for key, (value, origin) in best.items():
            old = self.values.get(key)
            if old is not None and old[0] == value:
                counts["equal"] += 1
                continue
            if old is not None and rank(origin) > rank(old[1]):
                counts["outranked"] += 1
                continue
            moment = now
            if old is not None:
                moment = max(now, old[2])
                self.revisions.add((*key, *old, moment, run_id))
            counts["new" if old is None else "changed"] += 1
            self.values[key] = (value, origin, moment, run_id)
        return WriteCounts(**counts)

    def content(self) -> list[tuple[Any, ...]]:
        """Return what stands, in key order."""
        return [(*key, *stood) for key, stood in sorted(self.values.items())]


def rank(origin_id: int) -> int:
    """Return the precedence of an origin; less goes first."""
    return ORIGIN_BY_ID[origin_id].precedence


def rows(*given: Row) -> Observations:
    """Return rows as a source hands them over."""
    return Observations.from_rows(given)


def take(found: Observations, which: Any) -> Observations:
    """Return some rows, in another order if need be."""
    columns = found.entity_id, found.metric_id, found.day, found.value, found.origin_id
    entity_id, metric_id, day, value, origin_id = (column[which] for column in columns)
    return Observations(entity_id, metric_id, day, value, origin_id)


def listed(found: Observations) -> list[Row]:
    """Return rows one by one."""
    columns = found.entity_id, found.metric_id, found.day, found.value, found.origin_id
    return list(zip(*(column.tolist() for column in columns), strict=True))


def block(
    entity_ids: Iterable[int], last: date, days: int, value: float, metric: int = 1, origin: int = 1
) -> Observations:
    """Return one value for each entity and each of some days, in key order."""
    ids = np.array(list(entity_ids), np.int32)
    count = len(ids) * days
    return Observations(
        np.repeat(ids, days),
        np.full(count, metric, np.int16),
        np.tile(np.datetime64(last, "D") - np.arange(days)[::-1], len(ids)),
        np.full(count, value),
        np.full(count, origin, np.int16),
    )


async def content(connection: Any) -> list[tuple[Any, ...]]:
    """Return what stands in the database, in key order."""
    found = await connection.fetch(
        "SELECT metric_id, entity_id, day, value, origin_id, observed_at, run_id FROM observation ORDER BY 1, 2, 3"
    )
    return [tuple(r) for r in found]


async def revisions(connection: Any) -> list[tuple[Any, ...]]:
    """Return what stood before, in key order."""
    found = await connection.fetch("SELECT * FROM observation_revision ORDER BY 1, 2, 3, superseded_at, value")
    return [tuple(r) for r in found]
