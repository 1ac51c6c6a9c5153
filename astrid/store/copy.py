"""PostgreSQL's binary COPY format to and from numpy arrays, without Python code per row.

Format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format). A row is an int16 count of
fields, then per field an int32 length (-1 = NULL) and its bytes, all big-endian. Dates are days and
timestamps microseconds since 2000-01-01.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["bool", "int2", "int4", "int8", "float8", "date", "timestamptz", "bytes16"]
Array = npt.NDArray[Any]

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_WIRE: Final[Mapping[Kind, str]] = {
    "bool": "u1",
    "int2": ">i2",
    "int4": ">i4",
    "int8": ">i8",
    "float8": ">f8",
    "date": ">i4",
    "timestamptz": ">i8",
    "bytes16": "V16",
}
_EPOCH_DAY: Final = np.datetime64("2000-01-01", "D")
_EPOCH_US: Final = np.datetime64("2000-01-01", "us")
_CHUNK_ROWS: Final = 16_384
_PART_BYTES: Final = 1 << 20
"""So much of a stream is turned into arrays at a time, while the server sends on: little enough for the caches."""


class Layout:
    """The columns of one COPY: names and kinds in wire order, every one of a fixed width."""

    def __init__(self, **kinds: Kind) -> None:
        self.kinds: Final[Mapping[str, Kind]] = kinds
        fields: list[tuple[str, str]] = [("_fields", ">i2")]
        for name, kind in kinds.items():
            fields += [(f"_{name}", ">i4"), (name, _WIRE[kind])]
        self.dtype: Final = np.dtype(fields)
        self.widths: Final = {name: np.dtype(_WIRE[kind]).itemsize for name, kind in kinds.items()}
        template = np.zeros(1, self.dtype)
        template["_fields"] = len(kinds)
        for name, width in self.widths.items():
            template[f"_{name}"] = width
        self.template: Final = template

    @property
    def names(self) -> list[str]:
        """The column names in wire order."""
        return list(self.kinds)


def encode(
    layout: Layout, columns: Mapping[str, Any], rows: int, which: npt.NDArray[np.int64] | None = None
) -> Iterator[bytes]:
    """Yield the stream of ``rows`` rows in chunks.

    A column is an array of length ``rows`` or one scalar for all; where ``which`` gives ``rows`` places in longer
    arrays, those alone are written, in that order. ``date`` takes datetime64, ``timestamptz`` datetime64 in UTC.
    NaN in a ``float8`` column is written as NULL.
    """
    given = {name: np.asarray(columns[name]) for name in layout.kinds}
    buffer = np.repeat(layout.template, min(rows, _CHUNK_ROWS))
    for name, values in given.items():
        if values.ndim == 0:
            buffer[name] = _to_wire(layout.kinds[name], values)
    yield _HEADER
    for start in range(0, rows, _CHUNK_ROWS):
        chunk = buffer[: min(_CHUNK_ROWS, rows - start)]
        nulls: dict[str, npt.NDArray[np.bool_]] = {}
        at: Any = slice(start, start + len(chunk))
        if which is not None:
            at = which[at]
        for name, values in given.items():
            part = values if values.ndim == 0 else values[at]
            if values.ndim:
                chunk[name] = _to_wire(layout.kinds[name], part)
            if layout.kinds[name] == "float8":
                null = np.broadcast_to(np.isnan(part), len(chunk))
                if null.any():
                    nulls[name] = null
        yield _without_nulls(layout, chunk, nulls) if nulls else chunk.tobytes()
    yield _TRAILER


def decode(layout: Layout, data: bytes | bytearray) -> dict[str, Array]:
    """Turn a whole stream into native arrays, one per column; see :class:`Decoder`."""
    decoder = Decoder(layout)
    return join(layout, [*decoder.feed(data), decoder.finish()])


class Decoder:
    """Turns a stream into native arrays while it comes in: in parts of whole rows, one array per column.

    ``date`` becomes datetime64[D], ``timestamptz`` datetime64[us], ``bool`` bool. NULL becomes NaN in a float8
    column and NaT in a date or timestamp column. From the first NULL on, rows are of different lengths and wait for
    the end.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._raw = bytearray()
        self._has_begun = False
        self._has_nulls = False

    def feed(self, data: bytes | bytearray) -> Iterator[dict[str, Array]]:
        """Take some bytes more and yield a part where there are enough."""
        self._raw += data
        if len(self._raw) >= _PART_BYTES + len(_HEADER) and not self._has_nulls:
            self._begin()
            part = self._take(len(self._raw) // self._layout.dtype.itemsize)
            if part is None:
                self._has_nulls = True
            else:
                yield part

    def finish(self) -> dict[str, Array]:
        """Return what is left once the stream has ended.

        Raises
        ------
        ValueError
            If the stream is cut off or of another layout, or if a column of another kind than above holds NULL.
        """
        self._begin()
        if self._raw[-2:] != _TRAILER:
            raise ValueError("not a whole binary COPY stream")
        del self._raw[-2:]
        if len(self._raw) % self._layout.dtype.itemsize == 0:
            part = self._take(len(self._raw) // self._layout.dtype.itemsize)
            if part is not None:
                return part
        return _decode_sparse(self._layout, np.frombuffer(self._raw, np.uint8))

    def _begin(self) -> None:
        if not self._has_begun:
            if self._raw[: len(_HEADER)] != _HEADER:
                raise ValueError("not a whole binary COPY stream")
            del self._raw[: len(_HEADER)]
            self._has_begun = True

    def _take(self, rows: int) -> dict[str, Array] | None:
        """Take so many rows without NULL from the front, or nothing where one of them is of another length."""
        table = np.frombuffer(self._raw, self._layout.dtype, rows)
        if not _is_dense(self._layout, table):
            return None
        part = {name: _from_wire(kind, table[name], None) for name, kind in self._layout.kinds.items()}
        size = table.nbytes
        del table  # nobody may look at the bytes while they go
        del self._raw[:size]
        return part


def join(layout: Layout, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return parts one after the other as one."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in layout.names}


def _is_dense(layout: Layout, table: Array) -> bool:
    if not np.all(table["_fields"] == len(layout.kinds)):
        return False
    return all(bool(np.all(table[f"_{name}"] == width)) for name, width in layout.widths.items())


def _decode_sparse(layout: Layout, raw: npt.NDArray[np.uint8]) -> dict[str, Array]:
    starts = _row_starts(layout, raw)
    at = starts + 2
    columns: dict[str, Array] = {}
    for name, kind in layout.kinds.items():
        width = layout.widths[name]
        null = _lengths(raw, at) < 0
        at = at + 4
        taken = at[~null, None] + np.arange(width)
        cells = np.zeros((len(starts), width), np.uint8)
        cells[~null] = raw[taken]
        values = cells.reshape(-1).view(_WIRE[kind])
        columns[name] = _from_wire(kind, values, null if null.any() else None)
        at = at + np.where(null, 0, width)
    return columns


def _row_starts(layout: Layout, raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Find where each row begins in a stream whose rows differ in length because of NULLs.

    Every position that could begin a row gets the position where the next would begin; the true rows are the
    chain from position 0, which is unrolled by doubling the jump.
    """
    count = len(layout.kinds)
    least = 2 + 4 * count
    if len(raw) < least:
        if len(raw):
            raise ValueError("the COPY stream ends inside a row")
        return np.zeros(0, np.int64)
    hits = (raw[: len(raw) - least + 1] == count >> 8) & (raw[1 : len(raw) - least + 2] == count & 255)
    starts = np.flatnonzero(hits).astype(np.int64)
    end, alive = starts + 2, np.ones(len(starts), bool)
    for width in layout.widths.values():
        alive &= end + 4 <= len(raw)
        length = _lengths(raw, np.where(alive, end, 0))
        alive &= (length == width) | (length == -1)
        end = end + 4 + np.maximum(length, 0) * alive
    alive &= end <= len(raw)
    starts, end = starts[alive], end[alive]
    stop = len(starts)
    follows = np.searchsorted(starts, end)
    known = np.append(starts, len(raw))
    broken = (end != len(raw)) & (known[follows] != end)
    jump = np.append(np.where((end == len(raw)) | broken, stop, follows), stop)
    if not stop or starts[0] != 0:
        raise ValueError("the COPY stream is of another layout")
    chain = np.zeros(1, np.int64)
    while chain[-1] != stop:
        chain = np.concatenate([chain, jump[chain]])
        jump = jump[jump]
    chain = chain[chain < stop]
    if end[chain[-1]] != len(raw):
        raise ValueError("the COPY stream is of another layout")
    return starts[chain]


def _lengths(raw: npt.NDArray[np.uint8], at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    length: npt.NDArray[np.int64] = raw[at[:, None] + np.arange(4)].reshape(-1).view(">i4").astype(np.int64)
    return length


def _without_nulls(layout: Layout, chunk: Array, nulls: Mapping[str, npt.NDArray[np.bool_]]) -> bytes:
    cells = chunk.copy()
    for name, null in nulls.items():
        cells[f"_{name}"][null] = -1
    raw = cells.view(np.uint8).reshape(len(chunk), layout.dtype.itemsize)
    keep = np.ones(raw.shape, bool)
    for name, null in nulls.items():
        assert layout.dtype.fields is not None
        offset = layout.dtype.fields[name][1]
        keep[null, offset : offset + layout.widths[name]] = False
    return raw[keep].tobytes()


def _to_wire(kind: Kind, values: Array) -> Array:
    if kind == "date":
        return np.asarray((values.astype("datetime64[D]") - _EPOCH_DAY).astype(np.int64))
    if kind == "timestamptz":
        return np.asarray((values.astype("datetime64[us]") - _EPOCH_US).astype(np.int64))
    return values


def _from_wire(kind: Kind, values: Array, null: npt.NDArray[np.bool_] | None) -> Array:
    result: Array
    if kind == "date":
        result = _EPOCH_DAY + values.astype("timedelta64[D]")
    elif kind == "timestamptz":
        result = _EPOCH_US + values.astype("timedelta64[us]")
    elif kind == "bool":
        result = values.astype(np.bool_)
    elif kind == "bytes16":
        result = values.copy()
    else:
        result = values.astype(values.dtype.newbyteorder("="))
    if null is not None:
        if kind == "float8":
            result[null] = np.nan
        elif kind in ("date", "timestamptz"):
            result[null] = np.datetime64("NaT")
        else:
            raise ValueError(f"a column of kind {kind} holds NULL")
    return result
