"""The way of values into the table: idempotent by key, at the speed of COPY.

What stands is read with a binary COPY and compared in numpy. Rows of keys that nobody has go straight into the
table by COPY; equal rows cost nothing more; only rows that differ, and those that met another writer, go through
a temporary table and SQL that locks and looks again. The comparison saves work, the SQL decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import asyncpg
import numpy as np
import numpy.typing as npt

from astrid.catalog import METRICS, ORIGINS
from astrid.models import Observations
from astrid.store.copy import Layout
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import WriteCounts
from astrid.store.transfer import affected, copy_rows, moment, select_columns

LARGEST_VALUE: Final = 1e15
"""A count above this is a defect of its source, whatever it is a count of."""

_SQL: Final = load_queries("observations")
OBSERVATION: Final = Layout(
    metric_id="int2",
    entity_id="int4",
    day="date",
    value="float8",
    origin_id="int2",
    observed_at="timestamptz",
    run_id="int8",
)
_INCOMING: Final = Layout(
    metric_id="int2", entity_id="int4", day="date", value="float8", origin_id="int2", precedence="int2"
)
_STANDING: Final = Layout(
    entity_id="int4", day="date", value="float8", origin_id="int2", observed_at="timestamptz", run_id="int8"
)
_DIFFERING: Final = Layout(
    metric_id="int2",
    entity_id="int4",
    day="date",
    value="float8",
    origin_id="int2",
    old_value="float8",
    old_origin_id="int2",
    old_observed_at="timestamptz",
    old_run_id="int8",
)
_REVISION: Final = Layout(
    metric_id="int2",
    entity_id="int4",
    day="date",
    value="float8",
    origin_id="int2",
    observed_at="timestamptz",
    run_id="int8",
    superseded_at="timestamptz",
    superseded_by_run="int8",
)
_IDS: Final = 1 << 15
_SPARSE: Final = 4
"""A write that states fewer than one in this many cells of its rectangle is compared by SQL, not by reading it all."""

_FIRST_DAY: Final = np.datetime64("2000-01-01", "D")
_LAST_DAY: Final = np.datetime64("2199-12-31", "D")
_ORIGIN_IDS: Final = [o.origin_id for o in ORIGINS]
_ORIGIN_PRECEDENCES: Final = [o.precedence for o in ORIGINS]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def _precedences() -> npt.NDArray[np.int16]:
    table = np.full(_IDS, -1, np.int16)
    table[_ORIGIN_IDS] = _ORIGIN_PRECEDENCES
    return table


def _known_metrics() -> Bools:
    table = np.zeros(_IDS, bool)
    table[[m.metric_id for m in METRICS]] = True
    return table


_PRECEDENCE: Final = _precedences()
_IS_METRIC: Final = _known_metrics()


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one metric; ``cell`` is their place in the rectangle of entities and days, unique and ascending."""

    metric_id: int
    entity_id: npt.NDArray[np.int32]
    day: npt.NDArray[np.datetime64]
    value: npt.NDArray[np.float64]
    origin_id: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.value)

    def take(self, which: Any) -> _Rows:
        return _Rows(self.metric_id, self.entity_id[which], self.day[which], self.value[which], self.origin_id[which])


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """The entities and days that some rows span, and where a row lies in it."""

    entity_ids: npt.NDArray[np.int32]
    lowest: int
    position: npt.NDArray[np.int32]
    first: np.datetime64
    days: int

    @property
    def cells(self) -> int:
        return len(self.entity_ids) * self.days

    @property
    def last(self) -> np.datetime64:
        return self.first + np.timedelta64(self.days - 1, "D")

    def locate(self, entity_id: npt.NDArray[np.int32], day: npt.NDArray[np.datetime64]) -> Ints:
        """Return the cell of each row: entity-major, so that ascending cells are key order."""
        cell = self.position[entity_id - self.lowest].astype(np.int64)
        cell *= self.days
        cell += (day - self.first).astype(np.int64)
        return cell


async def write_observations(connection: Connection, found: Observations, run_id: int, now: datetime) -> WriteCounts:
    """See :meth:`astrid.store.Store.write_observations`; runs inside the caller's transaction."""
    good = _acceptable(found)
    counts = WriteCounts(refused=len(found) - int(np.count_nonzero(good)))
    if counts.refused == len(found):
        return counts
    await connection.execute(_SQL["plan_settings"])
    undecided: list[_Rows] = []
    for rows in _by_metric(found, good):
        rectangle = _span(rows)
        rows, doubled = _unique(rows, rectangle)
        counts += WriteCounts(doubled=doubled)
        if rectangle.cells <= _SPARSE * (len(rows) + 16_384):
            part, rest = await _write_dense(connection, rows, rectangle, run_id, now)
            counts += part
        else:
            rest = rows
        if len(rest):
            undecided.append(rest)
        counts += WriteCounts(healed=await _heal(connection, rows, rectangle, now))
    if undecided:
        counts += await _write_staged(connection, undecided, run_id, now)
    return counts


def _acceptable(found: Observations) -> Bools:
    """Say which rows may be written: finite, 0 to LARGEST_VALUE, of a metric and an origin that the catalogue knows."""
    value = found.value
    # NaN compares false with everything, so one range test refuses it and both infinities.
    good = (value >= 0) & (value <= LARGEST_VALUE) & (found.entity_id > 0)
    good &= (found.day >= _FIRST_DAY) & (found.day <= _LAST_DAY)
    good &= (found.metric_id > 0) & _IS_METRIC[np.maximum(found.metric_id, 0)]
    good &= (found.origin_id > 0) & (_PRECEDENCE[np.maximum(found.origin_id, 0)] >= 0)
    return np.asarray(good)


def _by_metric(found: Observations, good: Bools) -> Iterator[_Rows]:
    whole = bool(good.all())
    metrics = np.flatnonzero(np.bincount(found.metric_id[good], minlength=1))
    for metric_id in metrics:
        if whole and len(metrics) == 1:
            which: Any = slice(None)
        else:
            which = good & (found.metric_id == metric_id)
        # Adding 0.0 turns -0.0 into 0.0, which compares equal and would be hashed differently.
        value = found.value[which].astype(np.float64) + 0.0
        day = found.day[which].astype("datetime64[D]")
        yield _Rows(int(metric_id), found.entity_id[which], day, value, found.origin_id[which])


def _span(rows: _Rows) -> _Rectangle:
    lowest, highest = int(rows.entity_id.min()), int(rows.entity_id.max())
    present = np.zeros(highest - lowest + 1, bool)
    present[rows.entity_id - lowest] = True
    position = np.cumsum(present, dtype=np.int32) - 1
    entity_ids = (np.flatnonzero(present) + lowest).astype(np.int32)
    first, last = rows.day.min(), rows.day.max()
    return _Rectangle(entity_ids, lowest, position, first, int((last - first).astype(int)) + 1)


def _unique(rows: _Rows, rectangle: _Rectangle) -> tuple[_Rows, int]:
    """Put rows into key order, one per key: the origin that goes first, of equal origins the row that came last."""
    cell = rectangle.locate(rows.entity_id, rows.day)
    if bool(np.all(cell[1:] > cell[:-1])):
        return rows, 0
    late_first = np.arange(len(rows), 0, -1)
    order = np.lexsort((late_first, _PRECEDENCE[rows.origin_id], cell))
    ordered = cell[order]
    keep = np.ones(len(rows), bool)
    keep[1:] = ordered[1:] > ordered[:-1]
    return rows.take(order[keep]), len(rows) - int(np.count_nonzero(keep))


async def _write_dense(
    connection: Connection, rows: _Rows, rectangle: _Rectangle, run_id: int, now: datetime
) -> tuple[WriteCounts, _Rows]:
    """Compare with what stands, COPY the rows of new keys, and return the rows that SQL must decide."""
    standing = await _read_standing(connection, rows.metric_id, rectangle)
    if not len(standing["value"]):
        return await _insert(connection, rows, run_id, now)
    # Where in the answer each cell of the rectangle stands; -1 = nowhere.
    place = np.full(rectangle.cells, -1, np.int32)
    place[rectangle.locate(standing["entity_id"], standing["day"])] = np.arange(len(standing["value"]), dtype=np.int32)
    at = place[rectangle.locate(rows.entity_id, rows.day)]
    new = at < 0
    differs = standing["value"][at] != rows.value
    differs &= ~new
    later = _PRECEDENCE[rows.origin_id] > _PRECEDENCE[standing["origin_id"][at]]
    changed, outranked = differs & ~later, differs & later
    counts = WriteCounts(outranked=int(np.count_nonzero(outranked)))
    counts += WriteCounts(equal=len(rows) - int(np.count_nonzero(new)) - int(np.count_nonzero(differs)))
    undecided = np.zeros(len(rows), bool)
    if new.any():
        part, rest = await _insert(connection, rows.take(new), run_id, now)
        counts += part
        undecided[new] = len(rest) > 0
    if changed.any():
        old = {name: column[at[changed]] for name, column in standing.items()}
        if await _replace(connection, rows.take(changed), old, run_id, now):
            counts += WriteCounts(changed=int(np.count_nonzero(changed)))
        else:
            undecided |= changed
    return counts, rows.take(undecided)


async def _insert(connection: Connection, rows: _Rows, run_id: int, now: datetime) -> tuple[WriteCounts, _Rows]:
    """COPY rows whose keys were free; all of them are left undecided where another writer took one meanwhile."""
    try:
        async with connection.transaction():
            await _copy_in(connection, rows, run_id, now)
    except asyncpg.UniqueViolationError:
        return WriteCounts(), rows
    return WriteCounts(new=len(rows)), rows.take(slice(0))


async def _replace(connection: Connection, rows: _Rows, old: dict[str, Any], run_id: int, now: datetime) -> bool:
    """Put rows in the place of what was read and keep that; do nothing and say False where it changed meanwhile."""
    first, last = rows.day.min().astype(date), rows.day.max().astype(date)
    key = {"metric_id": rows.metric_id, "entity_id": rows.entity_id, "day": rows.day}
    columns = {
        **key,
        "value": rows.value,
        "origin_id": rows.origin_id,
        "old_value": old["value"],
        "old_origin_id": old["origin_id"],
        "old_observed_at": old["observed_at"],
        "old_run_id": old["run_id"],
    }
    await connection.execute(_SQL["walk_settings"])
    await connection.execute(_SQL["create_differing"])
    await copy_rows(connection, "differing", _DIFFERING, columns, len(rows))
    kept = {name: old[name] for name in ("value", "origin_id", "observed_at", "run_id")}
    columns = {**key, **kept, "superseded_at": moment(now), "superseded_by_run": run_id}
    try:
        async with connection.transaction():
            status = await connection.execute(_SQL["replace_differing"], now, run_id, first, last)
            if affected(status) != len(rows):
                raise _Moved
            await copy_rows(connection, "observation_revision", _REVISION, columns, len(rows))
    except (_Moved, asyncpg.UniqueViolationError):
        return False
    return True


class _Moved(Exception):
    """What stands is no longer what was read."""


async def _read_standing(connection: Connection, metric_id: int, rectangle: _Rectangle) -> dict[str, Any]:
    first, last = (day.astype(date) for day in (rectangle.first, rectangle.last))
    entity_ids = rectangle.entity_ids.tolist()
    return await select_columns(connection, _STANDING, _SQL["read_standing"], metric_id, entity_ids, first, last)


async def _copy_in(connection: Connection, rows: _Rows, run_id: int, now: datetime) -> None:
    columns = {
        "metric_id": rows.metric_id,
        "entity_id": rows.entity_id,
        "day": rows.day,
        "value": rows.value,
        "origin_id": rows.origin_id,
        "observed_at": moment(now),
        "run_id": run_id,
    }
    await copy_rows(connection, "observation", OBSERVATION, columns, len(rows))


async def _write_staged(connection: Connection, parts: list[_Rows], run_id: int, now: datetime) -> WriteCounts:
    first = min(rows.day.min() for rows in parts).astype(date)
    last = max(rows.day.max() for rows in parts).astype(date)
    await connection.execute(_SQL["walk_settings"])
    await connection.execute(_SQL["create_incoming"])
    for rows in parts:
        columns = {
            "metric_id": rows.metric_id,
            "entity_id": rows.entity_id,
            "day": rows.day,
            "value": rows.value,
            "origin_id": rows.origin_id,
            "precedence": _PRECEDENCE[rows.origin_id],
        }
        await copy_rows(connection, "incoming", _INCOMING, columns, len(rows))
    new = affected(await connection.execute(_SQL["insert_incoming"], now, run_id))
    changed = 0
    while True:
        # A statement that had to wait may pass over rows of other partitions than the one that it waited in (seen on
        # PostgreSQL 18.4). The next one has a new snapshot, and what was locked already is equal by then.
        await connection.execute(_SQL["create_replaced"])
        status = await connection.execute(_SQL["lock_replaced"], _ORIGIN_IDS, _ORIGIN_PRECEDENCES, first, last)
        if not affected(status):
            break
        changed += affected(status)
        await connection.execute(_SQL["keep_replaced"], now, run_id)
        await connection.execute(_SQL["index_replaced"])
        await connection.execute(_SQL["update_standing"], now, run_id, first, last)
    row = await connection.fetchrow(_SQL["count_equal"], first, last)
    assert row is not None
    return WriteCounts(new=new, changed=changed, equal=row["equal"] - new - changed, outranked=row["outranked"])


async def _heal(connection: Connection, rows: _Rows, rectangle: _Rectangle, now: datetime) -> int:
    first, last = (day.astype(date) for day in (rectangle.first, rectangle.last))
    lowest, highest = int(rectangle.entity_ids[0]), int(rectangle.entity_ids[-1])
    open_keys = await connection.fetch(_SQL["read_open_keys"], rows.metric_id, first, last, lowest, highest)
    if not open_keys:
        return 0
    entity = np.array([k["entity_id"] for k in open_keys], np.int64)
    day = np.array([k["day"] for k in open_keys], "datetime64[D]")
    filled = np.isin(_key(entity, day), _key(rows.entity_id.astype(np.int64), rows.day))
    if not filled.any():
        return 0
    entities, days = entity[filled].tolist(), day[filled].tolist()
    return affected(await connection.execute(_SQL["heal_gaps"], rows.metric_id, entities, days, now))


def _key(entity_id: Ints, day: npt.NDArray[np.datetime64]) -> Ints:
    return (entity_id << 20) + (day - _FIRST_DAY).astype(np.int64)
