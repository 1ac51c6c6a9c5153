"""Random rows for every table of the schema, as awkward as the columns' types allow, and what a database holds as text.

The types come from the database's own catalogue, so a new table is filled without a word here; only what a constraint
demands is stated, in ``KEPT``.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from astrid.catalog import METRICS, ORIGINS
from astrid.store.dumps.tables import LEFT_OUT, Table, read_tables, table_names

ALPHABET = "a b\tc\nd\re\"'\\,;|%$\x01\x07\x1b\x7f\u0085\u00a0äßΩ漢字\u200b\u2028\ufeff\ufffd🦙\U0010ffff\\.\\NNULL"
WORDS = ("", "NULL", "\\N", "\\.", "a\n\\.\nb", '"', '""', "'", " ", "\n", "\r\n", "-infinity", "{}", "é", "e\u0301")
JSONS = ("null", "{}", "[]", '""', '"\\n"', "1.10", "-0", "1e400", "123456789012345678901234567890.5", "true")

Rng = np.random.Generator
Row = dict[str, str | None]


def text(rng: Rng) -> str:
    """Return a text without NUL, which PostgreSQL cannot hold."""
    if rng.random() < 0.3:
        return str(rng.choice(WORDS))
    return "".join(rng.choice(list(ALPHABET), int(rng.choice([1, 3, 40]))))


def float8(rng: Rng) -> str:
    """Return a float of any sign and exponent, subnormal, infinite or not a number."""
    kind = rng.random()
    if kind < 0.1:
        return str(rng.choice(["-0", "0", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "0.1"]))
    value = math.nan
    while math.isnan(value):
        (value,) = struct.unpack("d", rng.bytes(8))
    return repr(value) if math.isfinite(value) else "Infinity"


def integer(bits: int) -> Callable[[Rng], str]:
    """Return what gives integers of a width, its ends among them."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return lambda rng: str(rng.choice([low, -1, 0, 1, high, int(rng.integers(low, high, endpoint=True))]))


def day(rng: Rng) -> str:
    """Return a day from 4713 BC to the end of the type, or an infinite one."""
    if rng.random() < 0.1:
        return str(
            rng.choice(["infinity", "-infinity", "4713-12-31 BC", "0001-01-01", "0001-12-31 BC", "5874897-12-31"])
        )
    return _calendar(rng, 5_874_897)


def moment(rng: Rng) -> str:
    """Return a moment from 4713 BC to where 64 bits from 1970 end, or an infinite one."""
    if rng.random() < 0.1:
        return str(rng.choice(["infinity", "-infinity", "1970-01-01 00:00:00+00", "294246-12-31 23:59:59.999999+00"]))
    clock = f"{rng.integers(24):02}:{rng.integers(60):02}:{rng.integers(60):02}.{rng.integers(10**6):06}+00"
    date = _calendar(rng, 294_246)
    return f"{date.removesuffix(' BC')} {clock}" + (" BC" if date.endswith("BC") else "")


def _calendar(rng: Rng, last_year: int) -> str:
    # Mostly near: each month of a large table is a file of its own.
    near = rng.random() < 0.9
    year = 2026 if near else int(rng.integers(-4711, last_year))
    month = int(rng.integers(1, 4 if near else 13))
    date = f"{year if year > 0 else 1 - year:04}-{month:02}-{rng.integers(1, 29):02}"
    return date if year > 0 else f"{date} BC"


def document(rng: Rng) -> str:
    """Return a JSON document."""
    if rng.random() < 0.5:
        return str(rng.choice(JSONS))
    leaves: list[Any] = [text(rng), int(rng.integers(-(2**53), 2**53)), None, [], {text(rng): [text(rng)]}]
    return json.dumps({text(rng): leaves[int(rng.integers(len(leaves)))] for _ in range(rng.integers(4))})


RANDOM: dict[str, Callable[[Rng], str]] = {
    "bool": lambda rng: str(bool(rng.integers(2))),
    "int2": integer(16),
    "int4": integer(32),
    "int8": integer(64),
    "float8": float8,
    "date": day,
    "timestamptz": moment,
    "text": text,
    "jsonb": document,
    "bytea": lambda rng: f"\\x{rng.bytes(int(rng.integers(6))).hex()}",
}


def _one_of(*values: str) -> Callable[[Rng, Row], str | None]:
    return lambda rng, row: str(rng.choice(values))


def _same_as(column: str) -> Callable[[Rng, Row], str | None]:
    return lambda rng, row: row[column] if rng.random() < 0.7 else None


def _sunday(rng: Rng, row: Row) -> str:
    return str(np.datetime64("2026-03-29") + 7 * int(rng.integers(-5000, 5000)))


def _metric(rng: Rng, row: Row) -> str:
    return str(METRICS[int(rng.integers(len(METRICS)))].metric_id)


def _origin(rng: Rng, row: Row) -> str:
    return str(ORIGINS[int(rng.integers(len(ORIGINS)))].origin_id)


KEPT: dict[tuple[str, str], Callable[[Rng, Row], str | None]] = {
    ("batch", "state"): _one_of("planned", "done", "dead", "split"),
    ("canary", "state"): _one_of("ok", "violated", "not judged", "not asked", "accepted"),
    ("canary", "first_day"): lambda rng, row: row["day"],
    ("expectation", "last_day"): _same_as("first_day"),
    ("identity", "valid_to"): _same_as("valid_from"),
    ("metric_note", "last_day"): _same_as("first_day"),
    ("reconciliation", "week"): _sunday,
    ("entity", "entity_id"): lambda rng, row: str(rng.integers(1, 50_000)),
    ("run", "run_id"): lambda rng, row: str(rng.integers(1, 2**62)),
    ("score_revision", "revision_id"): lambda rng, row: str(rng.integers(1, 2**62)),
    **{(name, "metric_id"): _metric for name in ("gap", "observation", "observation_revision", "score_component")},
    **{(name, "origin_id"): _origin for name in ("observation", "observation_revision")},
}
"""What constraints demand of a column, given the columns before it; and ids that a digest knows by name."""


async def fill_randomly(connection: Any, rng: Rng, rows: int) -> dict[str, int]:
    """Fill every table that a dump holds with up to ``rows`` rows; return how many each has."""
    counts = {}
    is_hyper = await connection.fetchval("SELECT name = 'timescale' FROM flavour")
    for table in await read_tables(connection, set(table_names()) - set(LEFT_OUT)):
        parents = await _parents(connection, table)
        transaction = connection.transaction()
        await transaction.start()
        for _ in range(rows):
            row: Row = {}
            for column in table.columns:
                kept = KEPT.get((table.name, column.name))
                if kept:
                    row[column.name] = kept(rng, row)
                elif column.nullable and rng.random() < 0.3:
                    row[column.name] = None
                elif column.name == "day" and is_hyper and table.name.startswith("observation"):
                    row[column.name] = _chunked_day(rng)
                elif column.name in ("note", "reason") and column.name not in table.key and rng.random() < 0.1:
                    row[column.name] = text(rng) * 5_000
                else:
                    row[column.name] = RANDOM[column.type](rng)
            for columns, keys in parents:
                row |= dict(zip(columns, keys[int(rng.integers(len(keys)))], strict=True))
            await _insert(connection, table, row)
        await transaction.commit()
        counts[table.name] = await connection.fetchval(f"SELECT count(*) FROM {table.name}")
    return counts


def _chunked_day(rng: Rng) -> str:
    """Return a day that a hypertable takes; each year of them makes a chunk."""
    return str(np.datetime64("2026-01-01") + int(rng.integers(-60, 90))) if rng.random() < 0.9 else "0001-02-03"


async def _insert(connection: Any, table: Table, row: Row) -> None:
    names = ", ".join(row)
    places = ", ".join(f"${at}::text::{column.type}" for at, column in enumerate(table.columns, 1))
    # Without OVERRIDING the database would choose the numbers of identity columns.
    await connection.execute(
        f"INSERT INTO {table.name} ({names}) OVERRIDING SYSTEM VALUE VALUES ({places}) ON CONFLICT DO NOTHING",
        *row.values(),
    )


async def _parents(connection: Any, table: Table) -> list[tuple[list[str], list[Any]]]:
    """Return, per reference of a table, its columns and the keys, as texts, that they may have."""
    references = await connection.fetch(
        "SELECT confrelid::regclass::text AS parent, conrelid, confrelid, conkey, confkey FROM pg_constraint "
        "WHERE contype = 'f' AND conrelid = $1::text::regclass",
        table.name,
    )
    found = []
    name = (
        "SELECT attname::text FROM unnest($2::int2[]) WITH ORDINALITY k (num, place) JOIN pg_attribute ON attnum = num"
    )
    for r in references:
        own, theirs = [
            [row[0] for row in await connection.fetch(f"{name} AND attrelid = $1 ORDER BY place", oid, keys)]
            for oid, keys in ((r["conrelid"], r["conkey"]), (r["confrelid"], r["confkey"]))
        ]
        columns = ", ".join(f"{c}::text" for c in theirs)
        keys = [tuple(row) for row in await connection.fetch(f"SELECT DISTINCT {columns} FROM {r['parent']}")]
        found.append((own, keys))
    return found


async def read_all(connection: Any) -> dict[str, list[str]]:
    """Return every row of every table, flavour and migrations apart, as PostgreSQL writes it, in order."""
    await connection.execute("SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET DateStyle = ISO")
    found = {}
    for name in sorted(set(table_names()) - {"flavour", "migration"}):
        rows = await connection.fetch(f'SELECT t::text AS row FROM {name} t ORDER BY t::text COLLATE "C"')
        found[name] = [row["row"] for row in rows]
    return found
