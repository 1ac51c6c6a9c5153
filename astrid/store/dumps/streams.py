"""PostgreSQL's binary COPY stream to and from Arrow, texts and NULLs included, without Python code per row.

Format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format). A row is an int16 count of fields, then
per field an int32 length (-1 = NULL) and its bytes, all big-endian; dates are days and timestamps microseconds since
2000-01-01. :mod:`astrid.store.copy` does the same for numpy columns of fixed width, and is the faster one there; here
every value comes back as it was: NULL is not NaN, and infinite dates are values of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astrid.errors import StoreError

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TYPES: Final = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "timestamptz": pa.timestamp("us", "UTC"),
    "text": pa.string(),
    "jsonb": pa.string(),
    "bytea": pa.binary(),
}
"""The column types that a dump can hold, by PostgreSQL's names, and what they are in Arrow."""

_WIDTHS: Final = {"bool": 1, "int2": 2, "int4": 4, "int8": 8, "float8": 8, "date": 4, "timestamptz": 8}
_WIRE: Final = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float8": ">f8", "date": ">i4", "timestamptz": ">i8"}
_EPOCHS: Final = {"date": 10_957, "timestamptz": 946_684_800_000_000}
"""From 1970, where Arrow counts from, to 2000, in the type's own unit."""
_LIMITS: Final = {"date": 2**31 - 1, "timestamptz": 2**63 - 1}
"""``infinity`` of PostgreSQL; one less than its negative is ``-infinity``. Arrow gets plus and minus this."""
_JSONB_VERSION: Final = 1
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_SLICE_ROWS: Final = 32_768
"""Rows that become a piece of a stream at a time."""


class NotInArrow(ValueError):
    """A value that PostgreSQL can hold and Arrow cannot."""


class Decoder:
    """Turns the pieces of one stream into record batches; ``kinds`` are PostgreSQL's types in the stream's order.

    jsonb must come as text (``column::text``), because its binary form is the server's own affair.
    """

    def __init__(self, kinds: Sequence[str], schema: pa.Schema) -> None:
        self._kinds = tuple(kinds)
        self._schema = schema
        self._rest = b""
        self._begun = False

    def feed(self, data: bytes | bytearray) -> pa.RecordBatch:
        """Take the next piece and return the rows that are whole by now, none or more."""
        data = self._rest + bytes(data) if self._rest else data
        skip = 0
        if not self._begun:
            if len(data) < len(_HEADER):
                self._rest = bytes(data)
                return self._batch([], 0)
            if bytes(data[: len(_HEADER)]) != _HEADER:
                raise StoreError("the database sent something else than a binary COPY: this is a defect, report it")
            self._begun, skip = True, len(_HEADER)
        raw = np.frombuffer(data, np.uint8)[skip:]
        columns, rows, used = _decode_dense(self._kinds, raw) or _decode(self._kinds, raw)
        self._rest = raw[used:].tobytes()
        return self._batch(columns, rows)

    def finish(self) -> pa.RecordBatch:
        """Return the rows that are left, and check that the stream has ended where it should."""
        # Behind rows without NULL, rows that are shorter by theirs may have been taken for the beginning of one.
        raw = np.frombuffer(self._rest, np.uint8)
        columns, rows, used = _decode(self._kinds, raw)
        if not self._begun or self._rest[used:] != _TRAILER:
            raise StoreError("the database's COPY ended inside a row: see that the server runs, then try again")
        return self._batch(columns, rows)

    def _batch(self, columns: list[pa.Array], rows: int) -> pa.RecordBatch:
        if not rows:
            columns = [pa.array([], field.type) for field in self._schema]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def encode(kinds: Sequence[str], batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    """Yield the stream of record batches whose columns are of the types ``kinds`` in order."""
    yield _HEADER
    for batch in batches:
        for start in range(0, batch.num_rows, _SLICE_ROWS):
            yield _encode(kinds, batch.slice(start, _SLICE_ROWS))
    yield _TRAILER


# From the stream


def _decode(kinds: Sequence[str], raw: Bytes) -> tuple[list[pa.Array], int, int]:
    """Return the columns of the whole rows at the beginning of ``raw``, their count, and how many bytes they take."""
    starts, used = _row_starts(kinds, raw)
    if not len(starts):
        return [], 0, 0
    at = starts + 2
    columns = []
    for kind in kinds:
        length = _read_int32(raw, at)
        null = length < 0
        length[null] = 0
        at = at + 4
        if kind in _WIDTHS:
            # What a NULL shows is whatever stands there: its bytes are never looked at.
            cells = raw[np.minimum(at, len(raw) - _WIDTHS[kind])[:, None] + np.arange(_WIDTHS[kind])]
            columns.append(_fixed(kind, cells, null))
        else:
            offsets = np.zeros(len(starts) + 1, np.int32)
            np.cumsum(length, out=offsets[1:])
            data = raw[_mask(len(raw), at, at + length)]
            buffers = [_validity(null), pa.py_buffer(offsets), pa.py_buffer(data)]
            columns.append(pa.Array.from_buffers(TYPES[kind], len(starts), buffers))
        at = at + length
    return columns, len(starts), used


def _decode_dense(kinds: Sequence[str], raw: Bytes) -> tuple[list[pa.Array], int, int] | None:
    """Do the same by one look, where every column has a fixed width and nothing is NULL; None where it is not so.

    What is shorter than such a row is left over: whether it is a whole row is then not looked at.
    """
    if any(kind not in _WIDTHS for kind in kinds):
        return None
    template, places = _template(kinds)
    rows = len(raw) // len(template)
    if not rows:
        return None
    table = raw[: rows * len(template)].reshape(rows, len(template))
    fixed = np.ones(len(template), bool)
    for kind, place in zip(kinds, places, strict=True):
        fixed[place : place + _WIDTHS[kind]] = False
    if not all(bool(np.all(table[:, at] == template[at])) for at in np.flatnonzero(fixed)):
        return None
    columns = [
        _fixed(kind, np.ascontiguousarray(table[:, place : place + _WIDTHS[kind]]), None)
        for kind, place in zip(kinds, places, strict=True)
    ]
    return columns, rows, table.size


def _row_starts(kinds: Sequence[str], raw: Bytes) -> tuple[Ints, int]:
    """Find where each whole row begins, and where the last one ends.

    Every position that could begin a row gets the position where the next would begin; the true rows are the chain
    from position 0, which is unrolled by doubling the jump.
    """
    count = len(kinds)
    starts = np.flatnonzero((raw[:-1] == count >> 8) & (raw[1:] == count & 255)).astype(np.int64)
    end = starts + 2
    for kind in kinds:
        inside = end + 4 <= len(raw)
        starts, end = starts[inside], end[inside]
        length = _read_int32(raw, end)
        fits = (length == _WIDTHS[kind]) | (length == -1) if kind in _WIDTHS else length >= -1
        starts, end = starts[fits], end[fits] + 4 + np.maximum(length[fits], 0)
    whole = end <= len(raw)
    starts, end = starts[whole], end[whole]
    if not len(starts) or starts[0] != 0:
        return starts[:0], 0
    if np.array_equal(end[:-1], starts[1:]):  # no position only looked like a row
        return starts, int(end[-1])
    stop = len(starts)
    follows = np.searchsorted(starts, end)
    linked = np.append(starts, -1)[follows] == end
    jump = np.append(np.where(linked, follows, stop), stop)
    chain = np.zeros(1, np.int64)
    while chain[-1] != stop:
        chain = np.concatenate([chain, jump[chain]])
        jump = jump[jump]
    chain = chain[chain < stop]
    return starts[chain], int(end[chain[-1]])


def _fixed(kind: str, cells: Bytes, null: Bools | None) -> pa.Array:
    """Make an Arrow array of cells (rows, width) in the stream's form."""
    rows = len(cells)
    if kind == "bool":
        return pa.array(cells[:, 0] != 0, pa.bool_(), mask=null)
    values = cells.reshape(-1).view(_WIRE[kind])
    if kind in _EPOCHS:
        values = _to_1970(kind, values, null)
    values = values.astype(values.dtype.newbyteorder("="))
    return pa.Array.from_buffers(TYPES[kind], rows, [_validity(null), pa.py_buffer(values)])


def _to_1970(kind: str, values: npt.NDArray[Any], null: Bools | None) -> npt.NDArray[Any]:
    limit, epoch = _LIMITS[kind], _EPOCHS[kind]
    values = values.astype(np.int64)
    late, early = values == limit, values == -limit - 1
    finite = ~(late | early)
    if null is not None:
        finite &= ~null
    if bool(np.any(values[finite] >= limit - epoch)):
        raise NotInArrow("a moment after the year 294246, where those of Parquet end")
    shifted = np.where(finite, values, 0) + epoch
    shifted[late], shifted[early] = limit, -limit
    return shifted.astype(f"i{_WIDTHS[kind]}")


def _validity(null: Bools | None) -> pa.Buffer | None:
    if null is None or not null.any():
        return None
    return pa.py_buffer(np.packbits(~null, bitorder="little"))


# To the stream


def _encode(kinds: Sequence[str], batch: pa.RecordBatch) -> bytes:
    """Return the rows of a batch in the stream's form."""
    columns = [_plain(batch.column(i)) for i in range(len(kinds))]
    if all(kind in _WIDTHS for kind in kinds) and not any(column.null_count for column in columns):
        template, places = _template(kinds)
        table = np.repeat(template[None, :], batch.num_rows, axis=0)
        for kind, place, column in zip(kinds, places, columns, strict=True):
            table[:, place : place + _WIDTHS[kind]] = _cells(kind, column)
        return table.tobytes()
    nulls = [np.asarray(column.is_null()) for column in columns]
    texts = [None if kind in _WIDTHS else _text(column) for kind, column in zip(kinds, columns, strict=True)]
    lengths = [_lengths(kind, text, null) for kind, text, null in zip(kinds, texts, nulls, strict=True)]
    sizes = 2 + 4 * len(kinds) + np.sum(lengths, axis=0)
    ends = np.cumsum(sizes)
    at = ends - sizes
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    out[at], out[at + 1] = len(kinds) >> 8, len(kinds) & 255
    at = at + 2
    for kind, column, null, text, length in zip(kinds, columns, nulls, texts, lengths, strict=True):
        stated = np.where(null, -1, length).astype(">i4")
        out[at[:, None] + np.arange(4)] = stated.view(np.uint8).reshape(-1, 4)
        at = at + 4
        if text is None:
            kept = at[~null]
            out[kept[:, None] + np.arange(_WIDTHS[kind])] = _cells(kind, column)[~null]
        else:
            begin = at
            if kind == "jsonb":
                out[at[~null]] = _JSONB_VERSION
                begin = at + ~null
            out[_mask(len(out), begin, at + length)] = text[1]
        at = at + length
    return out.tobytes()


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _cells(kind: str, column: pa.Array) -> Bytes:
    """Return (rows, width) bytes in the stream's form; zeros where the column is NULL."""
    if kind == "bool":
        return np.asarray(column.fill_null(False)).astype(np.uint8)[:, None]
    native = np.dtype(_WIRE[kind]).newbyteorder("=")
    buffer = column.buffers()[1]
    values = np.frombuffer(buffer, native)[column.offset : column.offset + len(column)]
    if kind in _EPOCHS:
        values = _to_2000(kind, values.astype(np.int64))
    return values.astype(_WIRE[kind]).view(np.uint8).reshape(-1, _WIDTHS[kind])


def _to_2000(kind: str, values: Ints) -> Ints:
    limit, epoch = _LIMITS[kind], _EPOCHS[kind]
    late, early = values == limit, values == -limit
    shifted = np.where(late | early, 0, values) - epoch
    shifted[late], shifted[early] = limit, -limit - 1
    return shifted


def _text(column: pa.Array) -> tuple[Ints, Bytes]:
    """Return the length of each text in bytes, and all their bytes; a NULL has none."""
    column = column.fill_null(b"" if pa.types.is_binary(column.type) else "")
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return np.zeros(len(column), np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    raw = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    return np.diff(ends), raw


def _lengths(kind: str, text: tuple[Ints, Bytes] | None, null: Bools) -> Ints:
    if text is None:
        return np.where(null, 0, _WIDTHS[kind])
    return text[0] + ~null if kind == "jsonb" else text[0]


# Both ways


def _template(kinds: Sequence[str]) -> tuple[Bytes, list[int]]:
    """Return a row of zeros in the stream's form, and where each value begins in it."""
    row, places = bytearray(len(kinds).to_bytes(2, "big")), []
    for kind in kinds:
        row += _WIDTHS[kind].to_bytes(4, "big")
        places.append(len(row))
        row += bytes(_WIDTHS[kind])
    return np.frombuffer(bytes(row), np.uint8), places


def _read_int32(raw: Bytes, at: Ints) -> Ints:
    length: Ints = raw[at[:, None] + np.arange(4)].reshape(-1).view(">i4").astype(np.int64)
    return length


def _mask(size: int, begins: Ints, ends: Ints) -> Bools:
    """Return True in the stretches from ``begins`` to before ``ends``, which lie one behind the other with gaps."""
    change = np.zeros(size + 1, np.int8)
    change[begins] += 1
    change[ends] -= 1
    return np.cumsum(change[:-1], dtype=np.int8).astype(np.bool_)
