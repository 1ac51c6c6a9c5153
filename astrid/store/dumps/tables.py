"""What a dump is made of: the tables of the database as its own catalogue describes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import orjson
import pyarrow as pa

from astrid.errors import StoreError
from astrid.store.dumps.streams import TYPES
from astrid.store.pool import Connection
from astrid.store.queries import load_queries

SQL: Final = load_queries("dumps")

LEFT_OUT: Final = {
    "answer": "a cache of what upstreams said; any row may be deleted at any time, and it may hold what is not ours to "
    "hand on",
    "lease": "who of the running programs may do what, for minutes; after a restore none of them runs",
    "flavour": "a property of the database that is restored into; the manifest states it",
    "migration": "a property of the database that is restored into; the manifest states it",
}
"""Tables that no dump holds, and why."""

PRIVATE: Final = {"token_user": "names the operator's GitHub tokens (by a digest) and their users"}
"""Tables that a public dump leaves out as well, and why."""

BY_MONTH: Final = frozenset({"observation", "observation_revision", "score", "score_component", "score_revision"})
"""The large tables; each month of ``day`` has a file of its own."""

VOCABULARIES: Final = frozenset(
    {
        *("category", "platform", "source", "task", "lane", "kind", "state", "reason"),
        *("code_version", "method_version", "upstream", "bucket"),
    }
)
"""Text columns of few values, which are of a dictionary type in Arrow; all other texts are plain."""

_OURS: Final = re.compile(r"^CREATE TABLE (\w+) \(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``type`` as PostgreSQL calls it (``int4``, ``timestamptz``), and what its comment says."""

    name: str
    type: str
    nullable: bool
    comment: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and the statements over it.

    ``next_ids`` is the next number of each identity column; ``restarts`` are, per such column, the query of its largest
    number and the statement that goes on at the number behind it. ``select_month`` wants two days put in.
    """

    name: str
    comment: str | None
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    next_ids: Mapping[str, int]
    restarts: Mapping[str, tuple[str, str]]
    parents: tuple[str, ...]
    select: str
    select_month: str | None
    select_days: str | None
    has_rows: str
    lock: str
    analyze: str

    @property
    def kinds(self) -> list[str]:
        """The types of the columns in order."""
        return [column.type for column in self.columns]

    @property
    def schema(self) -> pa.Schema:
        """The columns as they come out of the database, in Arrow."""
        return pa.schema([pa.field(c.name, TYPES[c.type], c.nullable) for c in self.columns])

    @property
    def file_schema(self) -> pa.Schema:
        """The columns as they stand in a Parquet file: with dictionaries, and with the comments."""
        return pa.schema(
            [
                pa.field(
                    c.name,
                    pa.dictionary(pa.int32(), pa.string()) if is_vocabulary(c) else TYPES[c.type],
                    c.nullable,
                    {"postgresql_type": c.type} | ({"comment": c.comment} if c.comment else {}),
                )
                for c in self.columns
            ],
            {"comment": self.comment} if self.comment else None,
        )


def is_vocabulary(column: Column) -> bool:
    """Say whether a column is of a dictionary type in Arrow."""
    return column.type == "text" and column.name in VOCABULARIES


@cache
def table_names() -> tuple[str, ...]:
    """Return the names of all tables of this version's schema, partitions apart, in their order."""
    return tuple(_OURS.findall(files("astrid.store").joinpath("schema.sql").read_text(encoding="utf-8")))


async def read_tables(connection: Connection, names: Iterable[str], *, numbered: bool = False) -> list[Table]:
    """Return those of the tables ``names`` that the database has, each behind those that it refers to.

    ``next_ids`` are known only if ``numbered``: to look them up locks the sequences until the transaction ends.

    Raises
    ------
    StoreError
        If a table has no key, or a column of a type that a dump cannot hold.
    """
    rows = await connection.fetch(SQL["read_tables"], orjson.dumps(sorted(names)).decode(), numbered)
    return _parents_first([_read_table(orjson.loads(row[0])) for row in rows])


def _read_table(facts: dict[str, object]) -> Table:
    name, columns = facts.pop("name"), facts.pop("columns")
    assert isinstance(columns, list)
    table = Table(
        name=str(name),
        columns=tuple(Column(**column) for column in columns),
        key=tuple(facts.pop("key") or ()),  # type: ignore[arg-type]  # a list of names
        parents=tuple(facts.pop("parents")),  # type: ignore[arg-type]  # a list of names
        restarts={c: (a, b) for c, (a, b) in facts.pop("restarts").items()},  # type: ignore[attr-defined]
        **facts,  # type: ignore[arg-type]  # texts and numbers, as the query makes them
    )
    if not table.key:
        raise StoreError(f"table {name} has no primary key, without which no dump can be compared: give it one")
    for column in table.columns:
        if column.type not in TYPES:
            raise StoreError(
                f"column {name}.{column.name} is of type {column.type}, which a dump cannot hold: "
                "teach it to astrid.store.dumps.streams"
            )
    return table


def _parents_first(tables: list[Table]) -> list[Table]:
    names, placed = {t.name for t in tables}, dict[str, Table]()
    while len(placed) < len(tables):
        ready = [
            t
            for t in tables
            if t.name not in placed and all(p in placed or p == t.name for p in t.parents if p in names)
        ]
        if not ready:
            raise StoreError("tables refer to each other in a circle, so none can be restored first")
        placed |= {t.name: t for t in ready}
    return list(placed.values())
