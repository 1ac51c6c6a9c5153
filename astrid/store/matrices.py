"""Whole series of many entities as one array, for the kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from astrid.store.canaries import AT_NEED, COUNTS, OUT, KeptOut
from astrid.store.copy import Array, Layout
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.transfer import feed_columns, select_columns
from astrid.store.vintages import require_aware

_SQL: Final = load_queries("reads")
_CANARIES: Final = load_queries("canaries")
_SETTINGS: Final = load_queries("observations")["plan_settings"]
# A date is read as the days since 2000-01-01 that it is on the wire: it is only ever an index here.
_CELLS: Final = Layout(entity_id="int4", day="int4", value="float8")
_WRITTEN: Final = Layout(entity_id="int4", day="int4", value="float8", run_id="int8")
_SUPERSEDED: Final = Layout(
    entity_id="int4", day="int4", value="float8", run_id="int8", observed_at="timestamptz", superseded_at="timestamptz"
)
_EPOCH: Final = date(2000, 1, 1)


async def read_matrix(
    connection: Connection,
    metric_id: int,
    entity_ids: npt.NDArray[np.int32],
    first: date,
    last: date,
    kept_out: KeptOut | None = None,
    without: Sequence[int] = (),
    as_of: datetime | None = None,
) -> npt.NDArray[np.float32]:
    """See :meth:`astrid.store.Store.read_matrix`."""
    count, days = len(entity_ids), (last - first).days + 1
    if len(np.unique(entity_ids)) != count:
        raise ValueError("entity_ids holds an id twice")
    if days < 1:
        raise ValueError(f"the last day {last} lies before the first day {first}")
    matrix = np.full((days, count), np.nan, np.float32)
    if not count:
        return matrix
    await connection.execute(_SETTINGS)
    lowest = int(entity_ids.min())
    column = np.zeros(int(entity_ids.max()) - lowest + 1, np.int64)
    column[entity_ids - lowest] = np.arange(count)
    # Entity by entity the writes jump a row of the matrix each; in (N, T) they run on, and one transposed copy follows.
    by_entity = np.full(count * days, np.nan, np.float32)

    def place(found: Mapping[str, Array]) -> None:
        at = column[found["entity_id"] - lowest]
        at *= days
        at += found["day"]
        at -= (first - _EPOCH).days
        by_entity[at] = found["value"]

    wanted = (metric_id, entity_ids.tolist(), first, last)
    if kept_out or without:
        place(await _select_counting(connection, wanted, kept_out or KeptOut(), list(without), as_of))
    elif as_of is None:
        await feed_columns(connection, _CELLS, place, _SQL["read_matrix"], *wanted)
    else:
        await feed_columns(connection, _CELLS, place, _SQL["read_matrix_as_of"], *wanted, require_aware(as_of))
    matrix[...] = by_entity.reshape(count, days).T
    return matrix


async def _select(
    connection: Connection, layout: Layout, queries: Mapping[str, str], name: str, *given: Any, as_of: datetime | None
) -> dict[str, Array]:
    """Return the answer of a named query, or of ``<name>_as_of``; a cell is in it once, for versions never overlap."""
    if as_of is None:
        return await select_columns(connection, layout, queries[name], *given)
    return await select_columns(connection, layout, queries[f"{name}_as_of"], *given, require_aware(as_of))


async def _select_counting(
    connection: Connection,
    wanted: tuple[int, list[int], date, date],
    kept_out: KeptOut,
    without: list[int],
    as_of: datetime | None,
) -> dict[str, Array]:
    """Return one value per cell: the newest that counts, or the oldest at need; none where no value may be taken."""
    standing = await _select(connection, _WRITTEN, _CANARIES, "read_written", *wanted, without, as_of=as_of)
    judged = kept_out.judge(standing["run_id"], standing["day"], _EPOCH)
    doubted = judged > COUNTS
    if not doubted.any():
        return standing
    metric_id, _, first, last = wanted
    whose = np.unique(standing["entity_id"][doubted]).tolist()
    before = (metric_id, whose, first, last, without, kept_out.first_run)
    older = await _select(connection, _SUPERSEDED, _CANARIES, "read_superseded", *before, as_of=as_of)
    judged_older = kept_out.judge(older["run_id"], older["day"], _EPOCH)
    # Newest first: what stands, then what it replaced. Versions of one moment need an order that is always the same.
    newest_first = np.lexsort([older[name] for name in ("value", "run_id", "observed_at", "superseded_at")])[::-1]
    versions = {
        name: np.concatenate([standing[name][doubted], older[name][newest_first]])
        for name in ("entity_id", "day", "value")
    }
    state = np.concatenate([judged[doubted], judged_older[newest_first]])
    cell = (versions["entity_id"].astype(np.int64) << 20) + versions["day"]
    known = np.isin(cell, cell[: np.count_nonzero(doubted)]) & (state < OUT)
    age = np.arange(len(cell))
    order = np.lexsort((np.where(state == AT_NEED, -age, age), state, cell))
    order = order[known[order]]
    chosen = order[np.unique(cell[order], return_index=True)[1]]
    return {name: np.concatenate([standing[name][~doubted], column[chosen]]) for name, column in versions.items()}
