"""The binary COPY codec: what goes in comes out, and a broken stream is refused."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.store import Store, pool
from astrid.store import copy as codec
from astrid.store.copy import Decoder, Layout, decode, encode, join
from astrid.store.transfer import copy_rows, feed_columns, select_columns

ALL = Layout(a="int2", b="int4", c="int8", d="float8", e="date", f="timestamptz", g="bool", h="float8", i="bytes16")
SPARSE = Layout(a="int4", x="float8", y="float8")

_row = st.tuples(
    st.integers(-(2**15), 2**15 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True),
    st.integers(-1000, 60000),
    st.integers(-(10**15), 10**15),
    st.booleans(),
    st.floats(allow_nan=True),
    st.binary(min_size=16, max_size=16),
)


def _columns(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    a, b, c, d, e, f, g, h, i = zip(*rows, strict=True) if rows else ((),) * 9
    return {
        "a": np.array(a, np.int16),
        "b": np.array(b, np.int32),
        "c": np.array(c, np.int64),
        "d": np.array(d, np.float64),
        "e": np.datetime64("2000-01-01", "D") + np.array(e, "timedelta64[D]"),
        "f": np.datetime64("2000-01-01", "us") + np.array(f, "timedelta64[us]"),
        "g": np.array(g, bool),
        "h": np.array(h, np.float64),
        "i": np.array([np.void(x) for x in i], "V16"),
    }


@given(st.lists(_row, max_size=40))
def test_round_trip(rows: list[tuple[Any, ...]]) -> None:
    columns = _columns(rows)
    found = decode(ALL, b"".join(encode(ALL, columns, len(rows))))
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@given(st.lists(_row, min_size=1, max_size=20))
def test_encode_equals_the_format_written_row_by_row(rows: list[tuple[Any, ...]]) -> None:
    def field(code: str, value: Any) -> bytes:
        if isinstance(value, float) and value != value:
            return struct.pack(">i", -1)
        return struct.pack(">i" + code, struct.calcsize(">" + code), value)

    want = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    for row in rows:
        want += struct.pack(">h", 9) + b"".join(field(c, v) for c, v in zip("hiqdiq?d", row[:8], strict=True))
        want += struct.pack(">i", 16) + row[8]
    want += struct.pack(">h", -1)
    assert b"".join(encode(ALL, _columns(rows), len(rows))) == want


# Values whose bytes look like the head of a row (three fields, first of four bytes) must not be taken for one.
_tricky = st.sampled_from(
    [float("nan"), 0.0, 1.5, *(struct.unpack(">d", bytes(n) + b"\0\3\0\0\0\4" + bytes(2 - n))[0] for n in range(3))]
)


@given(st.lists(st.tuples(st.sampled_from([3, 196_608, 0, -1, 4]), _tricky, _tricky), max_size=60))
def test_nulls_make_rows_of_different_lengths(rows: list[tuple[int, float, float]]) -> None:
    columns = {
        "a": np.array([r[0] for r in rows], np.int32),
        "x": np.array([r[1] for r in rows], np.float64),
        "y": np.array([r[2] for r in rows], np.float64),
    }
    found = decode(SPARSE, b"".join(encode(SPARSE, columns, len(rows))))
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)


def test_many_chunks_and_scalars() -> None:
    count = 40_000
    columns = {"a": np.arange(count, dtype=np.int32), "x": 2.5, "y": np.where(np.arange(count) % 7 == 0, np.nan, 1.0)}
    found = decode(SPARSE, b"".join(encode(SPARSE, columns, count)))
    np.testing.assert_array_equal(found["a"], np.arange(count))
    np.testing.assert_array_equal(found["x"], np.full(count, 2.5))
    assert np.isnan(found["y"]).sum() == len(range(0, count, 7))


@given(st.data())
def test_a_stream_may_come_in_any_pieces(data: st.DataObject) -> None:
    """Parts follow each other as rows do, wherever the stream is torn, and from whichever row on there are NULLs."""
    count = data.draw(st.integers(0, 60))
    null_from = data.draw(st.integers(0, 80))
    x = np.where(np.arange(count) < null_from, np.arange(count) / 3, np.nan)
    columns = {"a": np.arange(count, dtype=np.int32), "x": x, "y": np.full(count, -1.0)}
    stream = b"".join(encode(SPARSE, columns, count))
    tears = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_PART_BYTES", data.draw(st.sampled_from([1, 19, 21, 60, 200])))
        decoder = Decoder(SPARSE)
        pieces = zip([0, *tears], [*tears, len(stream)], strict=True)
        parts = [part for start, stop in pieces for part in decoder.feed(stream[start:stop])]
        found = join(SPARSE, [*parts, decoder.finish()])
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_rows_at_some_places() -> None:
    columns = {"a": np.arange(50_000, dtype=np.int32), "x": np.where(np.arange(50_000) % 9, 1.5, np.nan), "y": 2.0}
    which = np.random.default_rng(1).permutation(50_000)[:40_000]
    found = decode(SPARSE, b"".join(encode(SPARSE, columns, len(which), which)))
    np.testing.assert_array_equal(found["a"], which)
    np.testing.assert_array_equal(found["x"], columns["x"][which])
    np.testing.assert_array_equal(found["y"], np.full(len(which), 2.0))


@pytest.mark.parametrize("cut", [3, 19, 25, 40])
def test_a_stream_that_is_cut_off_is_refused(cut: int) -> None:
    whole = b"".join(encode(SPARSE, {"a": np.arange(4, dtype=np.int32), "x": 1.0, "y": 2.0}, 4))
    with pytest.raises(ValueError, match="COPY stream"):
        decode(SPARSE, whole[:-cut])
    with pytest.raises(ValueError, match="COPY stream"):
        decode(SPARSE, whole[: -2 - cut] + whole[-2:])


def test_a_stream_of_another_layout_is_refused() -> None:
    other = Layout(a="int8", x="float8")
    with pytest.raises(ValueError, match="another layout"):
        decode(SPARSE, b"".join(encode(other, {"a": np.arange(9), "x": 1.0}, 9)))


def test_null_where_no_array_can_hold_it_is_refused() -> None:
    nullable = Layout(a="float8")
    stream = b"".join(encode(nullable, {"a": np.array([1.0, np.nan])}, 2))
    with pytest.raises(ValueError, match="int8 holds NULL"):
        decode(Layout(a="int8"), stream)


async def test_an_answer_comes_in_parts(connection: Any) -> None:
    parts: list[dict[str, Any]] = []
    query = "SELECT n, n / 2.0::float8, CASE WHEN n > $2 THEN NULL ELSE 1.0::float8 END FROM generate_series(1, $1) n"
    for last in (100_000, 90_000):
        parts.clear()
        async with connection.transaction():
            await feed_columns(connection, SPARSE, parts.append, query, 100_000, last)
        found = join(SPARSE, parts)
        assert len(parts) > 2
        np.testing.assert_array_equal(found["a"], np.arange(1, 100_001))
        np.testing.assert_array_equal(found["x"], np.arange(1, 100_001) / 2)
        assert np.isnan(found["y"]).sum() == 100_000 - last


async def test_the_server_reads_and_writes_the_same(store: Store, connection: Any) -> None:
    rows = [
        (-1, 7, 2**40, 1.25, 0, -5, True, float("nan"), bytes(range(16))),
        (2, -(2**31), -3, float("nan"), 9000, 10**15, False, -0.5, b"\xff" * 16),
    ]
    columns = _columns(rows)
    async with connection.transaction():
        await connection.execute(
            "CREATE TEMP TABLE t (a int2, b int4, c int8, d float8, e date, f timestamptz, g bool, h float8, i bytea)"
        )
        await copy_rows(connection, "t", ALL, columns, 2)
        read = await connection.fetch("SELECT * FROM t ORDER BY a")
        assert [r["e"].isoformat() for r in read] == ["2000-01-01", "2024-08-22"]
        assert [r["h"] for r in read] == [None, -0.5]
        assert read[0]["f"].isoformat() == "1999-12-31T23:59:59.999995+00:00"
        found = await select_columns(connection, ALL, "SELECT * FROM t ORDER BY a")
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_connection_names_are_spelled_without_the_password() -> None:
    assert pool.describe("postgresql://u:geheim@db.example:6432/astrid") == "database 'astrid' on db.example:6432"
    assert pool.describe("postgresql://u:geheim@/x?host=/run/pg") == "database 'x' on /run/pg"
    assert "geheim" not in pool.describe("postgresql://u:geheim@db:port/x")
