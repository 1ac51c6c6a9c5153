"""No hot query scans a large table: plans of every one, on tables of realistic size, on every flavour."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.store.conftest import Server, _create_database, _drop_database
from tests.store.hot_queries import FILL, LARGE, OTHERS, QUERIES, list_queries

HOT = list(QUERIES)


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[str]:
    """Return the address of a database with half a million values, revisions, scores and gaps; tests only read it."""
    name = f"astrid_test_{uuid4().hex[:12]}"
    asyncio.run(_create_database(server, name, server.template))
    asyncio.run(_fill(server.direct(name)))
    yield server.direct(name)
    asyncio.run(_drop_database(server, name))


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET timezone = 'UTC'")
        await connection.execute(FILL)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


@pytest.fixture
async def reader(filled: str) -> AsyncIterator[Any]:
    """Return a connection in a transaction that is rolled back."""
    connection = await asyncpg.connect(filled)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


async def list_parts(connection: Any) -> dict[str, str]:
    """Return relation -> large table, of the tables, partitions and chunks that hold any row."""
    rows = await connection.fetch(
        """
        WITH RECURSIVE part AS (
            SELECT c.oid, c.relname::text AS name FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY ($1)
            UNION ALL
            SELECT i.inhrelid, p.name FROM part p JOIN pg_inherits i ON i.inhparent = p.oid
        )
        SELECT c.relname::text AS relation, p.name FROM part p JOIN pg_class c USING (oid) WHERE c.reltuples > 0
        """,
        list(LARGE),
    )
    return {row["relation"]: row["name"] for row in rows}


async def plan(connection: Any, query: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return every node of the plan of a query."""
    found = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *arguments))[0]["Plan"]
    nodes, left = [], [found]
    while left:
        node = left.pop()
        nodes.append(node)
        left += node.get("Plans", [])
    return nodes


def list_scans(nodes: list[dict[str, Any]], parts: dict[str, str]) -> list[str]:
    """Return the large tables of which a part is read from one end to the other."""
    whole = [n for n in nodes if n["Node Type"] == "Seq Scan" or (n["Node Type"] == "Custom Scan" and "Filter" in n)]
    return sorted({parts[n["Relation Name"]] for n in whole if n.get("Relation Name") in parts})


def list_looked_up(nodes: list[dict[str, Any]], parts: dict[str, str]) -> set[str]:
    """Return the large tables that are read through an index."""
    through = ("Index Scan", "Index Only Scan", "Bitmap Heap Scan")
    return {parts[n["Relation Name"]] for n in nodes if n["Node Type"] in through and n["Relation Name"] in parts}


def tables_of(text: str) -> set[str]:
    """Return the large tables that a query reads, by its text."""
    named = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", text))
    return (named & set(LARGE)) | ({"gap", "gap_revision"} if "gap_as_of" in named else set())


@pytest.mark.parametrize(("topic", "name"), HOT, ids=[name for _, name in HOT])
async def test_it_goes_through_an_index(reader: Any, topic: str, name: str) -> None:
    text, parts = list_queries()[topic, name], await list_parts(reader)
    assert set(parts.values()) == set(LARGE), "every large table holds rows"
    for arguments in QUERIES[topic, name]:
        nodes = await plan(reader, text, arguments)
        said = f"{name}{arguments}"[:300]
        assert list_scans(nodes, parts) == [], f"{said} scans:\n{json.dumps(nodes[0], indent=1)[:20_000]}"
        assert list_looked_up(nodes, parts) == tables_of(text), f"{said}: the plan leaves a table out"


def test_every_query_is_listed() -> None:
    """A query on a large table that nobody looked at is the one that scans."""
    known, found = set(QUERIES) | set(OTHERS), set(list_queries())
    assert found - known == set(), "enter these into tests/store/hot_queries.py"
    assert known - found == set(), "these are no queries any more, or name no large table"
    assert not set(QUERIES) & set(OTHERS)


# What the guard is worth: without any index it must ring, for every query on the table.


@pytest.mark.parametrize("table", LARGE)
async def test_without_an_index_it_rings(reader: Any, table: str) -> None:
    parts, texts = await list_parts(reader), list_queries()
    for (name,) in await reader.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('p', 'u')", table
    ):
        await reader.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name} CASCADE")
    for (name,) in await reader.fetch(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = $1::regclass", table
    ):
        await reader.execute(f"DROP INDEX {name}")
    # A statement with ON CONFLICT is none without its key.
    read = [key for key in HOT if table in tables_of(texts[key]) and "ON CONFLICT" not in texts[key]]
    assert read
    for key in read:
        for arguments in QUERIES[key]:
            assert table in list_scans(await plan(reader, texts[key], arguments), parts), (key, arguments)
