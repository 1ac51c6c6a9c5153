"""The binary COPY codec to Arrow: what goes in comes out, however it is cut, and it reads what PostgreSQL writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import asyncpg
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrid.errors import StoreError
from astrid.store.dumps.streams import TYPES, Decoder, NotInArrow, encode

HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
DAY_LIMIT, MOMENT_LIMIT = 2**31 - 1, 2**63 - 1
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    # As bits, because NaN is not equal to itself, and which NaN it is must not change either.
    "float8": st.integers(-(2**63), 2**63 - 1),
    # In days and microseconds since 2000, as the stream has them, the infinite ones included.
    "date": st.integers(-2_451_545, 2_145_031_948) | st.sampled_from([DAY_LIMIT, -DAY_LIMIT - 1]),
    "timestamptz": st.integers(-(2**57), MOMENT_LIMIT - 946_684_800_000_001)
    | st.sampled_from([MOMENT_LIMIT, -MOMENT_LIMIT - 1]),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40).map(str.encode),
    "jsonb": st.text('ab"{}[]12:, \n漢', max_size=20).map(str.encode),
    # Bytes that look like the beginnings of rows and like lengths.
    "bytea": st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 255]), max_size=40).map(bytes),
}
PACKED = {"bool": ">B", "int2": ">h", "int4": ">i", "int8": ">q", "float8": ">q", "date": ">i", "timestamptz": ">q"}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[Any]]]:
    """Draw column types, fixed ones alone or with texts, and rows with or without NULLs."""
    pool = draw(st.sampled_from([sorted(PACKED), sorted(VALUES)]))
    kinds = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=8))
    cells = [st.none() | VALUES[kind] if draw(st.booleans()) else VALUES[kind] for kind in kinds]
    return kinds, draw(st.lists(st.tuples(*cells).map(list), max_size=30))


def spell(kinds: Sequence[str], rows: Sequence[Sequence[Any]], *, into: bool) -> bytes:
    """Write a stream value by value. ``into`` the database jsonb has a byte for its version, out of it it is text."""
    out = bytearray(HEADER)
    for row in rows:
        out += struct.pack(">h", len(kinds))
        for kind, value in zip(kinds, row, strict=True):
            if value is None:
                out += struct.pack(">i", -1)
                continue
            cell = struct.pack(PACKED[kind], value) if kind in PACKED else value
            cell = b"\x01" + cell if kind == "jsonb" and into else cell
            out += struct.pack(">i", len(cell)) + cell
    return bytes(out + TRAILER)


def schema_of(kinds: Sequence[str]) -> pa.Schema:
    return pa.schema([pa.field(f"c{i}", TYPES[kind]) for i, kind in enumerate(kinds)])


def decode(kinds: Sequence[str], pieces: Sequence[bytes]) -> list[pa.RecordBatch]:
    decoder = Decoder(kinds, schema_of(kinds))
    batches = [*(decoder.feed(piece) for piece in pieces), decoder.finish()]
    for batch in batches:
        batch.validate(full=True)
    return batches


def whole(kinds: Sequence[str], pieces: Sequence[bytes]) -> pa.RecordBatch:
    return pa.concat_batches(decode(kinds, pieces))


@settings(max_examples=400)
@given(tables(), st.lists(st.integers(0, 3000), max_size=6), st.integers(1, 7))
def test_what_goes_in_comes_out(table: tuple[list[str], list[list[Any]]], cuts: list[int], slice_rows: int) -> None:
    kinds, rows = table
    stream = spell(kinds, rows, into=False)
    at = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    batches = decode(kinds, [stream[a:b] for a, b in pairwise(at)])
    assert sum(batch.num_rows for batch in batches) == len(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("astrid.store.dumps.streams._SLICE_ROWS", slice_rows)
        assert b"".join(encode(kinds, iter(batches))) == spell(kinds, rows, into=True)


@given(tables(), st.data())
def test_slices_and_dictionaries_are_encoded_alike(
    table: tuple[list[str], list[list[Any]]], data: st.DataObject
) -> None:
    kinds, rows = table
    batch = whole(kinds, [spell(kinds, rows, into=False)])
    first = data.draw(st.integers(0, len(rows)))
    columns = [c.dictionary_encode() if kind == "text" else c for kind, c in zip(kinds, batch.columns, strict=True)]
    part = pa.RecordBatch.from_arrays(columns, names=batch.schema.names).slice(first)
    assert b"".join(encode(kinds, iter([part]))) == spell(kinds, rows[first:], into=True)


def test_values_mean_what_arrow_says() -> None:
    kinds = ["date", "timestamptz", "text", "bool", "int2"]
    row = [9_587, 829_285_200_000_001, "é".encode(), 1, None]
    batch = whole(kinds, [spell(kinds, [row], into=False)])
    when = datetime(2026, 4, 12, 5, 0, 0, 1, UTC)
    assert batch.to_pylist() == [{"c0": date(2026, 4, 1), "c1": when, "c2": "é", "c3": True, "c4": None}]


def test_infinite_days_are_the_ends_of_the_type() -> None:
    kinds = ["date", "timestamptz"]
    rows = [[DAY_LIMIT, MOMENT_LIMIT], [-DAY_LIMIT - 1, -MOMENT_LIMIT - 1]]
    batch = whole(kinds, [spell(kinds, rows, into=False)])
    assert batch.column(0).cast(pa.int32()).to_pylist() == [DAY_LIMIT, -DAY_LIMIT]
    assert batch.column(1).cast(pa.int64()).to_pylist() == [MOMENT_LIMIT, -MOMENT_LIMIT]


@pytest.mark.parametrize("beyond", [MOMENT_LIMIT - 946_684_800_000_000, 9_223_371_331_199_999_999])
def test_a_moment_that_arrow_cannot_tell_is_refused(beyond: int) -> None:
    with pytest.raises(NotInArrow, match="after the year 294246"):
        decode(["timestamptz"], [spell(["timestamptz"], [[beyond]], into=False)])
    decode(["timestamptz", "int2"], [spell(["timestamptz", "int2"], [[None, 1]], into=False)])


@pytest.mark.parametrize("kinds", [["int4", "float8"], ["int4", "text"]])
@pytest.mark.parametrize("cut", [0, 5, 19, 25, -1, -2, -3])
def test_a_stream_that_ends_early_is_refused(kinds: list[str], cut: int) -> None:
    row = [1, 2] if "float8" in kinds else [1, b"abc"]
    whole = spell(kinds, [row, row], into=False)
    with pytest.raises(StoreError, match="ended inside a row"):
        decode(kinds, [whole[:cut]])


def test_another_stream_is_refused() -> None:
    with pytest.raises(StoreError, match="something else"):
        decode(["int4"], [b"1,2,3\n" * 10])
    with pytest.raises(StoreError, match="ended inside a row"):
        decode(["int4", "int4"], [spell(["int4"], [[1]], into=False)])


async def test_it_reads_and_writes_what_postgresql_does(embedded_url: str) -> None:
    kinds = list(TYPES)
    rows = [
        ("true", "-1", "2", "3", "1e-300", "infinity", "-infinity", "a\u0001é", '{"a": [1.10, null]}', "\\x00ff"),
        (None,) * len(kinds),
        ("false", "32767", "-5", "6", "NaN", "4713-01-01 BC", "0044-03-15 12:00:00+00 BC", "", '""', ""),
    ]
    declared = ", ".join(f"c{i} {kind}" for i, kind in enumerate(kinds))
    selected = ", ".join(f"c{i}::text" if kind == "jsonb" else f"c{i}" for i, kind in enumerate(kinds))
    connection = await asyncpg.connect(embedded_url)
    try:
        await connection.execute(f"CREATE TABLE one ({declared}); CREATE TABLE other ({declared})")
        places = ", ".join(f"${i + 1}::text::{kind}" for i, kind in enumerate(kinds))
        await connection.executemany(f"INSERT INTO one VALUES ({places})", rows)
        pieces: list[bytes] = []

        async def take(data: bytes) -> None:
            pieces.append(data)

        await connection.copy_from_query(f"SELECT {selected} FROM one", output=take, format="binary")

        async def give() -> Any:
            for piece in encode(kinds, iter(decode(kinds, [b"".join(pieces)]))):
                yield piece

        await connection.copy_to_table("other", source=give(), format="binary")
        one, other = [await connection.fetch(f"SELECT t::text FROM {name} t") for name in ("one", "other")]
        assert one == other
        assert len(one) == 3
    finally:
        await connection.close()


def test_bytes_that_are_a_row_themselves_are_not_taken_for_one() -> None:
    """The true rows are the chain from the first one on, over many rows and however the stream is cut."""
    rng = np.random.default_rng(7)
    likeness = spell(["int4", "bytea"], [[1, b""], [2, None]], into=False)[len(HEADER) : -len(TRAILER)]
    rows = [[int(n), None if n % 3 else likeness * int(n % 5)] for n in rng.integers(0, 1000, 20_000)]
    stream = spell(["int4", "bytea"], rows, into=False)
    pieces = [stream[at : at + 70_001] for at in range(0, len(stream), 70_001)]
    batches = decode(["int4", "bytea"], pieces)
    assert [list(r.values()) for batch in batches for r in batch.to_pylist()] == rows
