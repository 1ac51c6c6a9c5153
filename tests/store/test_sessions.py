"""No session state: a pooler in transaction mode hands one session of the server to many clients, one after the other.

Read from the text of every statement, and seen on a real pgbouncer with one session and with two. The whole suite runs
through it too, see ``conftest.py``.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

import astrid.store
from astrid.models import Batch, Done, Entity, Gap, Observations
from astrid.store import Store, migrate, open_store
from astrid.store.pool import Connection, writing
from tests.pgbouncer import NoPgbouncer, find_program, open_pgbouncer, read_session_state
from tests.store.conftest import NOW, Server, _create_database, _drop_database

STORE = Path(astrid.store.__file__).parent
FORBIDDEN = {
    "a setting for the session":
        r"^SET\s+(?!LOCAL\b|CONSTRAINTS\b)|^RESET\b|^DISCARD\b|set_config\([^)]*,\s*false\s*\)",
    "a lock for the session": r"pg_(try_)?advisory_(lock|unlock)",
    "a listener": r"^(UN)?LISTEN\b",
    "a named statement": r"^(PREPARE|DEALLOCATE)\b",
    "a cursor that outlives its transaction": r"\bWITH\s+HOLD\b",
    "a temporary table that outlives its transaction":
        r"^CREATE\s+(LOCAL\s+|GLOBAL\s+)?TEMP(ORARY)?\s+(?!TABLE\b)|"
        r"^CREATE\s+(LOCAL\s+|GLOBAL\s+)?TEMP(ORARY)?\s+TABLE\b(?!.*\bON\s+COMMIT\s+DROP\b)",
}  # fmt: skip
CALLS = {"prepare", "add_listener", "add_log_listener", "set_type_codec", "reload_schema_state"}


def find_in_sql(text: str) -> Iterator[str]:
    """Yield what a text of SQL leaves behind in its session, statement by statement."""
    text = re.sub(r"--[^\n]*", "", text)
    for statement in re.split(r";|\$\$|\bBEGIN\b", text):
        flat = " ".join(statement.split())
        for what, pattern in FORBIDDEN.items():
            if re.search(pattern, flat, re.IGNORECASE):
                yield f"{what}: {flat[:80]}"


def find_in_python(text: str) -> Iterator[str]:
    """Yield calls that keep something in a session, connections that keep statements, and SQL outside of its files."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.match(r"\s*(SET|LISTEN|PREPARE|CREATE|DISCARD|RESET)\s+[A-Z_a-z]+", node.value):
                yield from find_in_sql(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in CALLS:
                yield f"a call of {node.func.attr}"
            if node.func.attr in ("connect", "create_pool") and getattr(node.func.value, "id", "") == "asyncpg":
                given = {k.arg for k in node.keywords}
                if not given & {"statement_cache_size", None}:
                    yield f"{node.func.attr} without statement_cache_size=0"


def test_no_statement_of_the_store_leaves_anything() -> None:
    texts = [*STORE.rglob("*.sql")]
    assert len(texts) > 15
    found = [f"{path.name}: {what}" for path in texts for what in find_in_sql(path.read_text(encoding="utf-8"))]
    found += [f"{path.name}: {what}" for path in STORE.rglob("*.py")
              for what in find_in_python(path.read_text(encoding="utf-8"))]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    "sql",
    [
        "SET jit = off",
        "SELECT 1; SET SESSION lock_timeout = '1s'",
        "SELECT set_config('jit', 'off', false)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock(1)",
        "LISTEN night",
        "PREPARE a AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "CREATE TEMP TABLE a (b int)",
        "CREATE TEMPORARY TABLE a AS SELECT 1",
        "CREATE TEMP TABLE a (b int) ON COMMIT DELETE ROWS",
        "CREATE TEMP VIEW a AS SELECT 1",
        "DO $$ BEGIN SET jit = off; END $$",
    ],
)
def test_the_check_of_texts_finds_them(sql: str) -> None:
    assert list(find_in_sql(sql))


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL jit = off",
        "UPDATE a SET b = 1",
        "SELECT set_config('lock_timeout', $1, true)",
        "SELECT pg_advisory_xact_lock(1)",
        "CREATE TEMP TABLE a (b int) ON COMMIT DROP",
        "INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE\nSET b = 2",
    ],
)
def test_the_check_of_texts_lets_the_rest_pass(sql: str) -> None:
    assert not list(find_in_sql(sql))


def test_the_check_of_code_finds_them() -> None:
    for text in ("c.prepare('SELECT 1')", "c.add_listener('a', f)", "asyncpg.connect(url)", "run('SET jit = off')"):
        assert list(find_in_python(text)), text
    assert not list(find_in_python("asyncpg.connect(url, statement_cache_size=0)"))


@pytest.fixture(scope="module")
def pgbouncer() -> Path:
    """Return the program, or skip with the reason why there is none."""
    try:
        return find_program()
    except NoPgbouncer as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("sessions", [1, 2])
async def test_interleaved_clients_share_sessions(embedded_server: Server, pgbouncer: Path, sessions: int) -> None:
    """Three clients with transactions by turns, on fewer sessions than clients: the truth of one is that of all."""
    name = f"astrid_test_{uuid4().hex[:12]}"
    await _create_database(embedded_server, name)
    try:
        with open_pgbouncer(pgbouncer, embedded_server.direct(name), pool_size=sessions) as url:
            await migrate(url)
            await race(url)
            assert await read_session_state(url, sessions) == []
    finally:
        await _drop_database(embedded_server, name)


async def race(url: str) -> None:
    day = date(2026, 3, 31)

    async def work(store: Store, worker: int, ids: dict[str, int], run_id: int) -> None:
        for n in range(12):
            start = day - timedelta(days=100 * worker + n)
            batch = Batch("github", "counts", day, start, start, (Entity(ids["a"], "a", "a"),), run_id=run_id)
            rows = [(ids["a"], 1, day - timedelta(days=k), float(1 + worker + n), 1) for k in range(40)]
            gaps = [Gap(ids["b"], 1, day - timedelta(days=n), "none", True)]
            await store.commit_batch(batch, Done(Observations.from_rows(rows, gaps), 1), NOW + timedelta(minutes=n))
            assert len(await store.read_series("a", 1, day - timedelta(days=39), day)) == 40
            await store.digest()

    async with open_store(url, pool_size=2) as first, open_store(url, pool_size=2) as second:
        ids = await first.sync_watchlist([("a", "A", "x"), ("b", "B", "x")], NOW)
        run_id = await second.start_run("nightly", day, "c", "m", NOW)
        await asyncio.gather(*(work(s, n, ids, run_id) for n, s in enumerate((first, second, first))))


SINS = {
    "session lock": "SELECT pg_advisory_lock(7)",
    "setting work_mem = 5120": "SET work_mem = '5MB'",
    "listener of night": "LISTEN night",
    "temporary table kept": "CREATE TEMP TABLE kept (a int)",
    "prepared statement kept": "PREPARE kept AS SELECT 1",
    "cursor kept": "BEGIN; DECLARE kept CURSOR WITH HOLD FOR SELECT 1; COMMIT",
}


@pytest.mark.parametrize("found", SINS)
async def test_the_check_of_sessions_finds_them(embedded_server: Server, pgbouncer: Path, found: str) -> None:
    with open_pgbouncer(pgbouncer, embedded_server.admin_url, pool_size=2) as url:
        assert await read_session_state(url, 2) == []
        client = await asyncpg.connect(url, statement_cache_size=0)
        await client.execute(SINS[found])
        await client.close()
        (state,) = await read_session_state(url, 2)
        assert state.startswith(found)


async def test_a_write_that_keeps_a_table_breaks_another(embedded_url: str, pgbouncer: Path) -> None:
    """What the rule protects from, on one session: the second client's table is there already."""

    async def careless(connection: Connection) -> None:
        await connection.execute("CREATE TEMP TABLE mine (a int)")

    with open_pgbouncer(pgbouncer, embedded_url, pool_size=1) as url:
        async with open_store(url, pool_size=1) as first, open_store(url, pool_size=1) as second:
            stores: list[Any] = [first, second]
            await writing(stores[0]._pool, "here", careless)
            with pytest.raises(astrid.errors.StoreError, match="DuplicateTable"):
                await writing(stores[1]._pool, "here", careless)
