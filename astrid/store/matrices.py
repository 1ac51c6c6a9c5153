"""Whole series of many entities as one array, for the kernels."""

from __future__ import annotations

from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.store.copy import Layout
from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.transfer import select_columns

_SQL: Final = load_queries("reads")
_SETTINGS: Final = load_queries("observations")["plan_settings"]
# A date is read as the days since 2000-01-01 that it is on the wire: it is only ever an index here.
_CELLS: Final = Layout(entity_id="int4", day="int4", value="float8")
_WRITTEN: Final = Layout(entity_id="int4", day="int4", value="float8", run_id="int8")
_EPOCH: Final = date(2000, 1, 1)


async def read_matrix(
    connection: Connection,
    metric_id: int,
    entity_ids: npt.NDArray[np.int32],
    first: date,
    last: date,
    kept_out: npt.NDArray[np.int64] | None = None,
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
    wanted = (metric_id, entity_ids.tolist(), first, last)
    if kept_out is None or not kept_out.any():
        found = await select_columns(connection, _CELLS, _SQL["read_matrix"], *wanted)
    else:
        found = await select_columns(connection, _WRITTEN, _SQL["read_written_matrix"], *wanted)
        counts = found["run_id"] > kept_out[found["day"] - (first - _EPOCH).days]
        found = {name: values[counts] for name, values in found.items()}
    lowest = int(entity_ids.min())
    column = np.zeros(int(entity_ids.max()) - lowest + 1, np.int64)
    column[entity_ids - lowest] = np.arange(count)
    # Entity by entity the writes jump a row of the matrix each; in (N, T) they run on, and one transposed copy follows.
    by_entity = np.full(count * days, np.nan, np.float32)
    at = column[found["entity_id"] - lowest]
    at *= days
    at += found["day"]
    at -= (first - _EPOCH).days
    by_entity[at] = found["value"]
    matrix[...] = by_entity.reshape(count, days).T
    return matrix
