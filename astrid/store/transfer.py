"""Whole columns over a connection: numpy arrays to a table, a query's answer to numpy arrays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from astrid.store.copy import Array, Decoder, Layout, encode, join
from astrid.store.literals import inline
from astrid.store.pool import Connection


async def copy_rows(
    connection: Connection,
    table: str,
    layout: Layout,
    columns: Mapping[str, Any],
    rows: int,
    which: npt.NDArray[np.int64] | None = None,
) -> None:
    """COPY columns into a table; what a column is, and ``which``: see :func:`astrid.store.copy.encode`."""

    async def stream() -> AsyncIterator[bytes]:
        for chunk in encode(layout, columns, rows, which):
            yield chunk

    await connection.copy_to_table(table, source=stream(), columns=layout.names, format="binary")


async def select_columns(connection: Connection, layout: Layout, query: str, *arguments: Any) -> dict[str, Array]:
    """Return the answer of a query, whose columns are those of the layout in order; ``arguments`` as for ``inline``."""
    parts: list[dict[str, Array]] = []
    await feed_columns(connection, layout, parts.append, query, *arguments)
    return join(layout, parts)


async def feed_columns(
    connection: Connection, layout: Layout, sink: Callable[[dict[str, Array]], None], query: str, *arguments: Any
) -> None:
    """Hand over the answer of a query in parts, while the server still sends; otherwise as :func:`select_columns`."""
    decoder = Decoder(layout)

    async def feed(data: bytes) -> None:
        for part in decoder.feed(data):
            sink(part)

    await connection.copy_from_query(inline(query, *arguments), output=feed, format="binary")
    sink(decoder.finish())


def moment(now: datetime) -> np.datetime64:
    """Return an aware time as numpy knows it: UTC, in microseconds, without a zone."""
    return np.datetime64(now.astimezone(UTC).replace(tzinfo=None), "us")


def affected(status: str) -> int:
    """Return the row count of a command's status line, such as ``INSERT 0 42``."""
    return int(status.rsplit(" ", 1)[-1])
