"""Digests of the content: two stores that hold the same facts give the same numbers, whatever way they came by them.

A row becomes a record of fixed width, big-endian; a name (slug, metric, origin, method version, reason) becomes the
16 bytes of its MD5, which stands for the text and guards nothing. Records are hashed in key order: metric name,
slug, day, then the values. Rows are read a slice of entities at a time, in slug order, so memory stays bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRICS, ORIGINS
from astrid.store.copy import Layout
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import TableDigest
from astrid.store.transfer import select_columns

_SQL: Final = load_queries("digests")
_SETTINGS: Final = load_queries("observations")["plan_settings"]
_SLICE: Final = 1000

_VALUE: Final = Layout(entity_id="int4", day="int4", value="float8", origin_id="int2")
_BY_METRIC: Final = {
    "observation": _VALUE,
    "observation_revision": _VALUE,
    "gap": Layout(entity_id="int4", day="int4", open="bool", reason="bytes16"),
}
_SCORE: Final = Layout(
    method_version="bytes16",
    entity_id="int4",
    day="int4",
    score="float8",
    lo="float8",
    hi="float8",
    calibrated="bool",
    percentile="float8",
    growth_per_week="float8",
    breadth="float8",
    coverage="float8",
    flags="int4",
    rank="int4",
)
_BY_ENTITY: Final = {
    "reconciliation": Layout(entity_id="int4", day="int4", history_total="float8", snapshot_delta="float8"),
    "score": _SCORE,
    "score_component": Layout(
        method_version="bytes16",
        entity_id="int4",
        metric_id="int2",
        day="int4",
        level="float8",
        growth="float8",
        growth_fast="float8",
        z="float8",
        sustain="float8",
        momentum="float8",
        weight="float8",
        contribution="float8",
        flags="int4",
    ),
    "score_revision": Layout(**_SCORE.kinds, components="bytes16"),
}
TABLES: Final = (*_BY_METRIC, *_BY_ENTITY)
"""The tables that are digested, in the order in which they are printed."""


async def digest(connection: Connection) -> dict[str, TableDigest]:
    """See :meth:`astrid.store.Store.digest`; the caller's transaction decides which moment is seen."""
    await connection.execute(_SETTINGS)
    slugs = [(row["entity_id"], row["slug"]) for row in await connection.fetch(_SQL["read_slugs"])]
    names = _Names(slugs)
    digests: dict[str, TableDigest] = {}
    found_in = await connection.fetch(_SQL["read_present"], [m.metric_id for m in METRICS])
    present = {(row["name"], row["metric_id"]) for row in found_in}
    for table, layout in _BY_METRIC.items():
        hasher, rows = hashlib.sha256(), 0
        for metric in sorted(METRICS, key=lambda m: m.name):
            if (table, metric.metric_id) not in present:
                continue
            for ids in _slices(slugs):
                found = await select_columns(connection, layout, _SQL[table], metric.metric_id, ids)
                found["metric_id"] = np.full(len(found["entity_id"]), metric.metric_id, np.int16)
                rows += _feed(hasher, found, names)
        digests[table] = TableDigest(rows, hasher.hexdigest())
    for table, layout in _BY_ENTITY.items():
        hasher, rows = hashlib.sha256(), 0
        for ids in _slices(slugs):
            rows += _feed(hasher, await select_columns(connection, layout, _SQL[table], ids), names)
        digests[table] = TableDigest(rows, hasher.hexdigest())
    return digests


class _Names:
    """From ids to what they stand for: 16 bytes to hash, and a rank to sort by."""

    def __init__(self, slugs: Sequence[tuple[int, str]]) -> None:
        metrics, origins = {m.metric_id: m.name for m in METRICS}, {o.origin_id: o.name for o in ORIGINS}
        self._bytes = {"entity_id": _table(dict(slugs)), "metric_id": _table(metrics), "origin_id": _table(origins)}
        self.entity_rank = np.zeros(len(self._bytes["entity_id"]), np.int32)
        self.entity_rank[[entity_id for entity_id, _ in slugs]] = np.arange(len(slugs))
        self.metric_rank = np.zeros(len(self._bytes["metric_id"]), np.int32)
        for rank, metric in enumerate(sorted(METRICS, key=lambda m: m.name)):
            self.metric_rank[metric.metric_id] = rank

    def spell(self, column: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._bytes[column][values] if column in self._bytes else values


def _table(names: Mapping[int, str]) -> npt.NDArray[Any]:
    table = np.zeros(max(names, default=0) + 1, "V16")
    for key, name in names.items():
        table[key] = np.void(hashlib.md5(name.encode(), usedforsecurity=False).digest())
    return table


def _slices(slugs: Sequence[tuple[int, str]]) -> list[list[int]]:
    ids = [entity_id for entity_id, _ in slugs]
    return [ids[start : start + _SLICE] for start in range(0, len(ids), _SLICE)]


def _feed(hasher: Any, found: dict[str, npt.NDArray[Any]], names: _Names) -> int:
    """Hash rows of one slice of entities in key order and return how many they are."""
    rows = len(found["entity_id"])
    if not rows:
        return 0
    order = _order(found, names)
    fields, columns = [], []
    for name in sorted(found):
        values = names.spell(name, found[name])
        kind = values.dtype.newbyteorder(">") if values.dtype.kind in "if" else values.dtype
        fields.append((name, kind))
        columns.append(values)
    records = np.empty(rows, np.dtype(fields))
    for (name, _), values in zip(fields, columns, strict=True):
        records[name] = values[order]
    hasher.update(records.view(np.uint8))
    return rows


def _order(found: dict[str, npt.NDArray[Any]], names: _Names) -> npt.NDArray[np.int64]:
    """Return the order by slug, method, metric, day; where a key has several rows, by their values too."""
    rank = names.entity_rank[found["entity_id"]].astype(np.int64)
    if "method_version" not in found and "history_total" not in found:
        key = (rank << 20) + found["day"]
        order = np.argsort(key, kind="stable")
        if bool(np.all(np.diff(key[order]) > 0)):
            return order
    keys: list[npt.NDArray[Any]] = []
    for name in sorted(found, reverse=True):
        values = names.spell(name, found[name]) if name == "origin_id" else found[name]
        keys.append(_sortable(values))
    keys.append(_sortable(found["day"]))
    if "metric_id" in found:
        keys.append(names.metric_rank[found["metric_id"]])
    if "method_version" in found:
        keys.append(_sortable(found["method_version"]))
    keys.append(rank)
    return np.lexsort(keys)


def _sortable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return keys that lexsort can compare: 16 bytes are ranked first."""
    if values.dtype.kind != "V":
        return values
    return np.unique(np.ascontiguousarray(values).view("S16"), return_inverse=True)[1]
