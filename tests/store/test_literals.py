"""Parameters written into a query mean what they would mean as parameters, and nothing in them is ever SQL."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.store.literals import inline

TRICKY = [
    "",
    "it's",
    "a\\",
    "\\x41",
    "$1",
    "$2$",
    "'; DROP TABLE observation; --",
    "E'\\n'",
    "öäü €",
    "\n\r\t",
    "{a,b}",
    '"',
]
EAST = timezone(timedelta(hours=5, minutes=30))
SAME: dict[str, tuple[str, Any]] = {
    "bool": ("bool", True),
    "int2": ("int2", -7),
    "int8": ("int8", -(2**63)),
    "numpy int": ("int4", np.int32(5)),
    "float8": ("float8", 0.1),
    "smallest": ("float8", 5e-324),
    "infinite": ("float8", float("-inf")),
    "numpy float": ("float8", np.float64(1e300)),
    "date": ("date", date(1999, 12, 31)),
    "moment": ("timestamptz", datetime(2026, 4, 1, 5, 0, 0, 123_456, tzinfo=UTC)),
    "moment elsewhere": ("timestamptz", datetime(2026, 4, 1, 5, tzinfo=EAST)),
    "none": ("int4[]", None),
    "no numbers": ("int4[]", []),
    "numbers": ("int4[]", [1, -2, 3]),
    "floats": ("float8[]", [0.1, 1e-9, -0.0, float("inf")]),
    **{f"text {n}": ("text", text) for n, text in enumerate(TRICKY)},
}


@pytest.fixture
async def embedded(embedded_url: str) -> AsyncIterator[Any]:
    """Return a connection to the embedded server; literals do not differ between flavours."""
    opened = await asyncpg.connect(embedded_url)
    yield opened
    await opened.close()


async def test_a_literal_is_the_parameter(embedded: Any) -> None:
    for kind, (typed, value) in SAME.items():
        want = value.item() if isinstance(value, np.generic) else value
        query = f"SELECT {inline(f'$1::{typed}', value)} IS NOT DISTINCT FROM $1::{typed}"
        assert await embedded.fetchval(query, want) is True, kind
        assert await embedded.fetchval(inline(f"SELECT $1::{typed}", value)) == want, kind


async def test_days_and_numbers_of_numpy(embedded: Any) -> None:
    days = np.array(["2026-02-28", "2000-01-01", "0999-01-01"], "M8[D]")
    assert await embedded.fetchval(inline("SELECT $1::date[]", days)) == days.tolist()
    for dtype in (np.int16, np.int32, np.int64, np.float64):
        numbers = np.array([0, 1, -3, 32_000], dtype)
        assert await embedded.fetchval(inline("SELECT $1::float8[]", numbers)) == numbers.tolist()


@given(st.floats(allow_nan=False))
def test_a_float_is_spelled_so_that_it_reads_back(value: float) -> None:
    assert float(inline("$1", value)[1:-1]) == value
    assert [float(x) for x in inline("$1", [value])[2:-2].split(",")] == [value]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_leaves_no_trace_of_itself(value: str) -> None:
    found = re.fullmatch(r"convert_from\(decode\('([0-9a-f]*)', 'hex'\), 'UTF8'\)", inline("$1", value))
    assert found is not None
    assert bytes.fromhex(found[1]).decode() == value


def test_each_parameter_is_told_from_the_others() -> None:
    arguments = list(range(1, 13))
    assert inline("$1,$2,$12,$11,$1", *arguments) == "'1','2','12','11','1'"
    assert inline("SELECT '$1'") == "SELECT '$1'", "a query without arguments is left as it is"
    assert inline("$1 $2", "$2", 3).endswith(" '3'"), "what is put in is not read again"


@pytest.mark.parametrize(
    "value",
    [datetime(2026, 4, 1), b"x", {1}, {1: 2}, ["a"], [[1, 2]], [None], [date(2026, 4, 1)], np.array(["a"]), 1j],
    ids=repr,
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        inline("$1", value)
