"""The way of values into the table: idempotent by key, at the speed of COPY.

Many rows of a metric: what stands in their rectangle of entities and days is read with one binary COPY and compared in
numpy. Rows of keys that nobody has go straight into the table by COPY; equal rows cost nothing more; rows that differ
replace what stands, where it still stands. Few rows, scattered ones, and those that met another writer are decided by
one SQL statement that locks and looks again. The comparison saves work, the database decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import asyncpg
import numpy as np
import numpy.typing as npt

from astrid.catalog import METRICS, ORIGINS
from astrid.models import Observations
from astrid.store.copy import Layout
from astrid.store.literals import inline
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
_REVISION: Final = Layout(**OBSERVATION.kinds, superseded_at="timestamptz", superseded_by_run="int8")
_DECIDED: Final = Layout(new="int8", changed="int8", equal="int8", outranked="int8", open="int8")
_OPEN: Final = Layout(entity_id="int4", day="date")

_FEW: Final = 1_000
"""So many rows of a metric are cheaper to decide by SQL, in one round trip, than to read, compare and COPY."""
_SLICE: Final = 2_000
"""So many rows one statement decides: beyond, its estimated cost would have it compiled, for longer than it runs."""
_SPARSE: Final = 16
"""A write that states fewer than one in this many cells of its rectangle is decided by SQL, not by reading it all."""

_TURNS: Final = 3
"""So often rows are compared and COPYed before SQL must decide those that meet other writers every time."""
_PER_PARTITION: Final = 10_000
"""So many rows of each partition that they are spread over are worth a COPY of their own."""

_IDS: Final = 1 << 15
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
    """Rows of one metric, one per key and in key order."""

    metric_id: int
    entity_id: npt.NDArray[np.int32]
    day: npt.NDArray[np.datetime64]
    value: npt.NDArray[np.float64]
    origin_id: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.value)

    def take(self, which: Any) -> _Rows:
        return _Rows(self.metric_id, self.entity_id[which], self.day[which], self.value[which], self.origin_id[which])

    def span(self) -> tuple[date, date]:
        """Return the first and the last day."""
        return _span(self.day)


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """The entities (ascending) and days that some rows span, and where a row lies in it."""

    entity_ids: npt.NDArray[np.int32]
    first: np.datetime64
    days: int

    @classmethod
    def around(cls, rows: _Rows) -> _Rectangle:
        begins = np.flatnonzero(rows.entity_id[1:] != rows.entity_id[:-1]) + 1
        first, last = rows.span()
        return cls(rows.entity_id[np.append(0, begins)], np.datetime64(first, "D"), (last - first).days + 1)

    @property
    def cells(self) -> int:
        return len(self.entity_ids) * self.days

    def locate(self, entity_id: npt.NDArray[np.int32], day: npt.NDArray[np.datetime64]) -> Ints:
        """Return the cell of each row; in key order cells ascend."""
        lowest, highest = int(self.entity_ids[0]), int(self.entity_ids[-1])
        if highest - lowest == len(self.entity_ids) - 1:
            cell = entity_id.astype(np.int64) - lowest
        else:
            cell = np.searchsorted(self.entity_ids, entity_id)
        cell *= self.days
        cell += (day - self.first).astype(np.int64)
        return cell


async def write_observations(connection: Connection, found: Observations, run_id: int, now: datetime) -> WriteCounts:
    """See :meth:`astrid.store.Store.write_observations`; runs inside the caller's transaction."""
    good = _acceptable(found)
    counts = WriteCounts(refused=len(found) - int(np.count_nonzero(good)))
    many: list[_Rows] = []
    few: list[_Rows] = []
    for rows, doubled in _by_metric(found, good):
        counts += WriteCounts(doubled=doubled)
        rest = rows
        # Rows that met another writer's are compared once more: then what it wrote is seen.
        for turn in range(_TURNS):
            if len(rest) <= _FEW or (rectangle := _Rectangle.around(rest)).cells > _SPARSE * len(rest):
                break
            if not many:
                await connection.execute(_SQL["plan_settings"])
            if not turn:
                many.append(rows)
            part, rest = await _write_many(connection, rest, rectangle, run_id, now)
            counts += part
        if len(rest):
            few.append(rest)
    if few:
        part, has_gaps = await _write_few(connection, few, run_id, now)
        counts += part
        many += few if has_gaps else []
    for rows in many:
        counts += WriteCounts(healed=await _heal(connection, rows, run_id, now))
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


def _by_metric(found: Observations, good: Bools) -> Iterator[tuple[_Rows, int]]:
    """Yield the good rows of each metric in turn, in key order, and how many of them stated a key once more."""
    whole = bool(good.all())
    metrics = np.flatnonzero(np.bincount(found.metric_id[good], minlength=1))
    for metric_id in metrics:
        which: Any = slice(None) if whole and len(metrics) == 1 else good & (found.metric_id == metric_id)
        # Adding 0.0 turns -0.0 into 0.0, which compares equal and would be hashed differently.
        value = np.add(found.value[which], 0.0, dtype=np.float64)
        day = found.day[which].astype("datetime64[D]", copy=False)
        rows = _Rows(int(metric_id), found.entity_id[which], day, value, found.origin_id[which])
        order = _key_order(rows)
        yield (rows, 0) if order is None else (rows.take(order), len(rows) - len(order))


def _key_order(rows: _Rows) -> Ints | None:
    """Return which rows to take, in which order: one per key, in key order; None where they are so already.

    Of several rows of a key, that of the origin which goes first is taken; of equal origins the row that came last.
    """
    key = _key(rows.entity_id, rows.day)
    if bool(np.all(key[1:] > key[:-1])):
        return None
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    if bool(np.all(ordered[1:] > ordered[:-1])):
        return order
    late_first = np.arange(len(rows), 0, -1)
    order = np.lexsort((late_first, _PRECEDENCE[rows.origin_id], key))
    return order[np.unique(key[order], return_index=True)[1]]


async def _write_many(
    connection: Connection, rows: _Rows, rectangle: _Rectangle, run_id: int, now: datetime
) -> tuple[WriteCounts, _Rows]:
    """Compare with what stands, COPY the rows of new keys, and return those that SQL must decide."""
    wanted = (rows.metric_id, rectangle.entity_ids, *rows.span())
    standing = await select_columns(connection, _STANDING, _SQL["read_standing"], *wanted)
    there = rectangle.locate(standing["entity_id"], standing["day"])
    if not len(there):
        return await _insert(connection, rows, run_id, now)
    # Where in the answer each cell of the rectangle stands; -1 = nowhere.
    place = np.full(rectangle.cells, -1, np.int32)
    place[there] = np.arange(len(there), dtype=np.int32)
    at = place[rectangle.locate(rows.entity_id, rows.day)]
    new = at < 0
    differs = (standing["value"][at] != rows.value) & ~new
    outranked = differs & (_PRECEDENCE[rows.origin_id] > _PRECEDENCE[standing["origin_id"][at]])
    changed = differs & ~outranked
    counts = WriteCounts(equal=int(np.count_nonzero(~new & ~differs)), outranked=int(np.count_nonzero(outranked)))
    undecided = changed.copy()
    if new.any():
        part, met = await _insert(connection, rows.take(new), run_id, now)
        counts += part
        undecided[new] = len(met) > 0
    if np.count_nonzero(changed) > _FEW:
        old = {name: column[at[changed]] for name, column in standing.items()}
        if await _replace(connection, rows.take(changed), old, run_id, now):
            counts += WriteCounts(changed=int(np.count_nonzero(changed)))
            undecided &= ~changed
    return counts, rows.take(undecided)


async def _insert(connection: Connection, rows: _Rows, run_id: int, now: datetime) -> tuple[WriteCounts, _Rows]:
    """COPY rows whose keys were free; all of them are left undecided where another writer took one meanwhile."""
    columns = {
        "metric_id": rows.metric_id,
        "entity_id": rows.entity_id,
        "day": rows.day,
        "value": rows.value,
        "origin_id": rows.origin_id,
        "observed_at": moment(now),
        "run_id": run_id,
    }
    try:
        async with connection.transaction():
            for table, which in await _targets(connection, rows):
                count = len(rows) if which is None else len(which)
                await copy_rows(connection, table, OBSERVATION, columns, count, which)
    except asyncpg.UniqueViolationError:
        return WriteCounts(), rows
    return WriteCounts(new=len(rows)), rows.take(slice(0))


async def _targets(connection: Connection, rows: _Rows) -> list[tuple[str, Ints | None]]:
    """Return the tables that rows go into, and which rows; None = all.

    Many rows go straight into their partitions, each filled in key order: PostgreSQL checks there that they belong, but
    need not look for the partition of every row. The names are read in the transaction that has read the table itself,
    so no partition leaves it meanwhile. TimescaleDB's chunks are no partitions: there all rows go into the table.
    """
    if len(rows) < _PER_PARTITION:
        return [("observation", None)]
    partitions = await _partitions(connection, rows)
    if len(rows) < _PER_PARTITION * len(partitions):
        return [("observation", None)]
    targets: list[tuple[str, Ints | None]] = []
    left = np.ones(len(rows), bool)
    for name, first, after in partitions:
        inside = (rows.day >= np.datetime64(first, "D")) & (rows.day < np.datetime64(after, "D"))
        targets.append((name, np.flatnonzero(inside)))
        left &= ~inside
    targets.append(("observation", np.flatnonzero(left)))
    return [(table, which) for table, which in targets if which is None or len(which)]


async def _partitions(connection: Connection, rows: _Rows) -> list[tuple[str, date, date]]:
    """Return the partitions that days of rows lie in: name, first day, day after the last; none on TimescaleDB."""
    found = await connection.fetch(_SQL["read_partitions"], *rows.span())
    return [(row["name"], row["first"], row["after"]) for row in found]


async def _replace(connection: Connection, rows: _Rows, old: dict[str, Any], run_id: int, now: datetime) -> bool:
    """Put rows in the place of what was read and keep that; do nothing and say False where it changed meanwhile."""
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
    await connection.execute(_SQL["create_differing"])
    await copy_rows(connection, "differing", _DIFFERING, columns, len(rows))
    kept = {name: old[name] for name in ("value", "origin_id", "observed_at", "run_id")}
    # Clocks differ: what takes a value's place never comes before it, or both would hold at one moment.
    replaced_at = np.maximum(old["observed_at"], moment(now))
    columns = {**key, **kept, "superseded_at": replaced_at, "superseded_by_run": run_id}
    try:
        async with connection.transaction():
            replaced: int = await connection.fetchval(await _replacement(connection, rows, run_id, now))
            # Days of a default partition lie in none of those; what they lack, SQL decides.
            if replaced != len(rows):
                raise _Moved
            await copy_rows(connection, "observation_revision", _REVISION, columns, len(rows))
    except (_Moved, asyncpg.UniqueViolationError):
        return False
    return True


async def _replacement(connection: Connection, rows: _Rows, run_id: int, now: datetime) -> str:
    """Return one statement that replaces the staged rows, each partition by itself, and counts what it replaced."""
    first, last = rows.span()
    parts = [
        (name, max(first, begin), min(last, after - timedelta(1)))
        for name, begin, after in await _partitions(connection, rows)
    ] or [("observation", first, last)]
    each = [
        inline(_SQL["replace_differing"].replace("{table}", name), now, run_id, *days)  # the catalogue gave the name
        for name, *days in parts
    ]
    updates = ", ".join(f"part_{n} AS ({statement})" for n, statement in enumerate(each))
    return f"WITH {updates} SELECT " + " + ".join(f"(SELECT count(*) FROM part_{n})" for n in range(len(each)))


class _Moved(Exception):
    """What stands is no longer what was read."""


async def _write_few(
    connection: Connection, parts: Sequence[_Rows], run_id: int, now: datetime
) -> tuple[WriteCounts, bool]:
    """Decide rows by SQL, all metrics together, and say whether there are open gaps at their keys."""
    each = [(np.full(len(r), r.metric_id), r.entity_id, r.day, r.value, r.origin_id) for r in parts]
    columns = [np.concatenate(column) for column in zip(*each, strict=True)]
    counts, has_gaps = WriteCounts(), False
    for start in range(0, len(columns[0]), _SLICE):
        part, has = await _decide(connection, [column[start : start + _SLICE] for column in columns], run_id, now)
        counts += part
        has_gaps |= has
    return counts, has_gaps


async def _decide(
    connection: Connection, columns: Sequence[npt.NDArray[Any]], run_id: int, now: datetime
) -> tuple[WriteCounts, bool]:
    """Run the statement until every row is decided: one that met another writer falls out, and is seen the next time.

    What an earlier turn inserted or replaced is equal by then.
    """
    *_, day, _, origin_id = columns
    query = inline(
        _SQL["decide"], *columns, _PRECEDENCE[origin_id], now, run_id, *_span(day), _ORIGIN_IDS, _ORIGIN_PRECEDENCES
    )
    new = changed = 0
    while True:
        turn = {name: int(column[0]) for name, column in (await select_columns(connection, _DECIDED, query)).items()}
        new, changed = new + turn["new"], changed + turn["changed"]
        if turn["new"] + turn["changed"] + turn["equal"] + turn["outranked"] == len(day):
            equal = len(day) - new - changed - turn["outranked"]
            return WriteCounts(new=new, changed=changed, equal=equal, outranked=turn["outranked"]), turn["open"] > 0


async def _heal(connection: Connection, rows: _Rows, run_id: int, now: datetime) -> int:
    """Close the open gaps at the keys of rows and return how many they were."""
    wanted = (rows.metric_id, *rows.span(), rows.entity_id.min(), rows.entity_id.max())
    found = await select_columns(connection, _OPEN, _SQL["read_open_keys"], *wanted)
    if not len(found["day"]):
        return 0
    filled = np.isin(_key(found["entity_id"], found["day"]), _key(rows.entity_id, rows.day))
    if not filled.any():
        return 0
    keys = (rows.metric_id, found["entity_id"][filled], found["day"][filled])
    return affected(await connection.execute(inline(_SQL["heal_gaps"], *keys, now, run_id)))


def _span(days: npt.NDArray[np.datetime64]) -> tuple[date, date]:
    # As numbers: numpy looks for NaT in days one by one, and there is none here.
    numbers = days.view(np.int64)
    first, last = np.array([numbers.min(), numbers.max()]).view("datetime64[D]").tolist()
    return first, last


def _key(entity_id: npt.NDArray[np.int32], day: npt.NDArray[np.datetime64]) -> Ints:
    """Return one number per row that sorts as entity and day do; a day that may be written has 17 bits."""
    key = entity_id.astype(np.int64)
    key <<= 20
    key += day.view(np.int64)
    return key
