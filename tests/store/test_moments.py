"""The moment of a write: what is changed in place keeps what it was, clocks may differ, and readers see who writes."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest

from astrid.errors import StoreError
from astrid.models import Gap, Identity, Observations
from astrid.store import ScoreRow, Store, migrate, pool
from astrid.store.migrate import Migration, load_migrations
from astrid.store.vintages import LATE_S, SETTLED_AFTER
from tests.store.conftest import NOW, Server
from tests.store.histories import BEGIN, History, ask_all, differing
from tests.store.test_scores import columns

DAY = date(2026, 3, 31)
LATER = NOW + timedelta(hours=1)
SOON = NOW + timedelta(minutes=30)

# Where two versions of one key hold at one moment.
OVERLAPS = {
    "observation": """
        SELECT count(*) FROM (
            SELECT metric_id, entity_id, day, observed_at AS began, 'infinity' AS ended FROM observation
            UNION ALL
            SELECT metric_id, entity_id, day, observed_at, superseded_at FROM observation_revision
            WHERE superseded_at > observed_at) a
        JOIN (
            SELECT metric_id, entity_id, day, observed_at AS began, 'infinity'::timestamptz AS ended FROM observation
            UNION ALL
            SELECT metric_id, entity_id, day, observed_at, superseded_at FROM observation_revision
            WHERE superseded_at > observed_at) b
        ON (a.metric_id, a.entity_id, a.day) = (b.metric_id, b.entity_id, b.day) AND a.began < b.began
           AND b.began < a.ended::timestamptz
    """,
    "score": """
        SELECT count(*) FROM (
            SELECT day, entity_id, published_at AS began, 'infinity'::timestamptz AS ended FROM score
            UNION ALL
            SELECT day, entity_id, published_at, superseded_at FROM score_revision WHERE superseded_at > published_at) a
        JOIN (
            SELECT day, entity_id, published_at AS began, 'infinity'::timestamptz AS ended FROM score
            UNION ALL
            SELECT day, entity_id, published_at, superseded_at FROM score_revision WHERE superseded_at > published_at) b
        ON (a.day, a.entity_id) = (b.day, b.entity_id) AND a.began < b.began AND b.began < a.ended
    """,
    # Of one platform an entity has one name at a time.
    "identity": """
        WITH current AS (
            SELECT entity_id, platform, recorded_at AS began, 'infinity'::timestamptz AS ended FROM identity
            WHERE valid_to IS NULL
            UNION ALL
            SELECT entity_id, platform, recorded_at, superseded_at FROM identity_revision WHERE valid_to IS NULL)
        SELECT count(*) FROM current a JOIN current b
        ON (a.entity_id, a.platform) = (b.entity_id, b.platform) AND a.began < b.began AND b.began < a.ended
    """,
}


async def test_clocks_that_differ(store: Store, connection: Any, server: Server, seed: int) -> None:
    """Every write has its own clock, up to five seconds off: no two versions ever hold together, and what is older than
    that is final."""
    history = History(store, connection, np.random.default_rng([seed, *server.flavour.name.encode(), 5]))
    await history.begin()
    true, told = history.now, {}
    for n, step in enumerate(history.plan(3)):
        true += timedelta(seconds=1)
        history.now = true + timedelta(seconds=int(history.rng.integers(-5, 6)))
        await step()
        if n % 6 == 0:
            moment = true - timedelta(seconds=6)
            told[moment] = await ask_all(history, moment)
    for moment, answers in told.items():
        assert differing(answers, await ask_all(history, moment)) == [], f"as of {moment}"
    for table, query in OVERLAPS.items():
        assert await connection.fetchval(query) == 0, table
    for table in ("entity", "metric_note", "reconciliation", "canary", "run", "run_cost", "gap"):
        for second in range(-10, 80):
            moment = BEGIN + timedelta(seconds=second)
            both = await connection.fetchval(
                f"SELECT count(*) - count(DISTINCT t) FROM (SELECT {KEYS[table]} FROM {table}_as_of($1)) t", moment
            )
            assert both == 0, f"{table} as of {moment}"


KEYS = {
    "entity": "entity_id",
    "metric_note": "metric_id, first_day, note",
    "reconciliation": "entity_id, week",
    "canary": "source, name, day",
    "run": "run_id",
    "run_cost": "run_id, upstream, bucket",
    "gap": "metric_id, entity_id, day",
}


async def test_a_clock_that_lags_takes_no_value_back(store: Store, connection: Any, ids: dict[str, int]) -> None:
    """A value that a lagging worker writes stands from the moment of the one that it replaces."""
    a = ids["a"]
    for dense in (False, True):
        days = [DAY - timedelta(days=n) for n in range(1 if not dense else 40)]
        key = (a, 2 if dense else 1)
        for value, moment in ((1.0, NOW), (2.0, LATER), (3.0, SOON)):
            rows = [(*key, day, value, 1) for day in days]
            await store.write_observations(Observations.from_rows(rows), 1, moment)
        stood = [await store.read_series("a", key[1], DAY, DAY, as_of=at) for at in (NOW, SOON, LATER)]
        assert [[point.value for point in points] for points in stood] == [[1.0], [1.0], [3.0]]
    await store.write_scores(1, DAY, "1.0", columns(ids), NOW)
    await store.write_scores(1, DAY, "1.0", columns(ids, b=85.0), LATER)
    await store.write_scores(1, DAY, "1.0", columns(ids, "ac"), SOON)

    async def ranked(at: datetime) -> list[tuple[str, float]]:
        return [(r.slug, r.score) for r in await store.read_leaderboard(DAY, None, 9, 0, as_of=at)]

    assert await ranked(SOON) == [("a", 90.0), ("b", 80.0), ("c", 70.0)]
    assert await ranked(LATER) == [("a", 90.0), ("c", 80.0)]
    for name, moment in (("Second", LATER), ("Third", SOON)):
        await store.sync_watchlist([("a", name, "agents")], moment)
    called = [[p.name for p in await store.read_projects(as_of=at) if p.slug == "a"] for at in (NOW, SOON, LATER)]
    assert called == [["A"], ["A"], ["Third"]]
    await store.record_identities([Identity(a, "github", "R_1", "a/a")], DAY, 1, NOW)
    await store.record_identities([Identity(a, "github", "R_1", "b/a")], DAY + timedelta(days=1), 1, LATER)
    await store.record_identities([Identity(a, "github", "R_2", "c/a")], DAY + timedelta(days=2), 1, SOON)
    names = [(await store.read_identities("github", as_of=at))[a].name for at in (NOW, SOON, LATER)]
    assert names == ["a/a", "a/a", "c/a"]
    project = await store.read_project("a", as_of=SOON)
    assert project is not None
    assert [identity.name for identity in project.identities if identity.valid_to is None] == ["a/a"]


async def test_a_change_by_hand_is_kept_too(store: Store, connection: Any, ids: dict[str, int]) -> None:
    """Whoever changes a row, and whatever it forgets: what stood is kept, until the moment of the clock."""
    before = await connection.fetchval("SELECT clock_timestamp()")
    await connection.execute("UPDATE entity SET name = 'By hand' WHERE slug = 'a'")
    await store.write_gaps([Gap(ids["a"], 1, DAY, "out", True)], NOW)
    await connection.execute("DELETE FROM gap")
    assert (await store.read_projects())[0].name == "By hand"
    assert (await store.read_projects(as_of=before))[0].name == "A"
    assert await store.read_gaps("a") == []
    assert [gap.reason for gap in await store.read_gaps("a", as_of=before)] == ["out"]


async def test_within_one_moment_the_last_one_stands(store: Store, connection: Any, ids: dict[str, int]) -> None:
    for name in ("First", "Second", "Third"):
        await store.sync_watchlist([("a", name, "agents")], LATER)
    assert (await store.read_projects(as_of=LATER))[0].name == "Third"
    assert (await store.read_projects(as_of=LATER - timedelta(microseconds=1)))[0].name == "A"
    assert await connection.fetchval("SELECT count(*) FROM entity_revision") == 1, "what never held is not kept"


async def test_an_equal_write_is_no_change(store: Store, connection: Any, ids: dict[str, int]) -> None:
    await store.sync_watchlist([("a", "A", "agents")], LATER)
    await connection.execute("UPDATE entity SET name = name")
    assert await connection.fetchval("SELECT count(*) FROM entity_revision") == 0
    assert await connection.fetchval("SELECT recorded_at FROM entity WHERE slug = 'a'") == NOW


async def test_moments_in_any_zone(store: Store, ids: dict[str, int]) -> None:
    east = datetime.fromisoformat("2026-04-01T08:00:00.000001+02:00")
    await store.sync_watchlist([("a", "Alpha", "agents")], east)
    moment = east.astimezone(UTC)
    assert (await store.read_projects(as_of=moment))[0].name == "Alpha"
    assert (await store.read_projects(as_of=moment - timedelta(microseconds=1)))[0].name == "A"
    for read in (store.read_projects, store.latest_scored_day, store.read_percentiles):
        with pytest.raises(ValueError, match="no time zone"):
            await read(as_of=datetime(2026, 4, 1))
    with pytest.raises(ValueError, match="no time zone"):
        await store.read_matrix(1, np.array([1], np.int32), DAY, DAY, as_of=datetime(2026, 4, 1))
    with pytest.raises(ValueError, match="no time zone"):
        await store.sync_watchlist([], datetime(2026, 4, 1))


# Writes under way


async def test_a_write_under_way_is_seen(store: Store, ids: dict[str, int]) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def hold(connection: Any) -> None:
        await connection.execute("UPDATE entity SET name = 'Held' WHERE slug = 'a'")
        begun.set()
        await go.wait()

    write = asyncio.ensure_future(pool.writing(store._pool, store._place, hold, now=NOW))
    await begun.wait()
    assert await store.has_open_writes(NOW)
    assert await store.has_open_writes(LATER)
    assert not await store.has_open_writes(NOW - timedelta(seconds=1))
    long_after = NOW + timedelta(days=1)
    assert not await store.is_settled(NOW, long_after)
    assert await store.is_settled(NOW - timedelta(seconds=1), long_after)
    assert (await store.read_projects(as_of=LATER))[0].name == "A"
    go.set()
    await write
    assert not await store.has_open_writes(long_after)
    assert await store.is_settled(NOW, NOW + SETTLED_AFTER)
    assert not await store.is_settled(NOW, NOW + SETTLED_AFTER - timedelta(microseconds=1))


async def test_a_write_that_fails_is_under_way_no_more(store: Store, ids: dict[str, int]) -> None:
    with pytest.raises(StoreError):
        await store.sync_watchlist([("a", "A", "x"), ("a", "B", "x")], NOW)

    async def fail(connection: Any) -> None:
        await connection.execute("SELECT 1 / 0")

    with pytest.raises(StoreError, match="DivisionByZero"):
        await pool.writing(store._pool, store._place, fail, now=NOW)
    assert not await store.has_open_writes(LATER)


async def test_every_write_shows_itself(
    store: Store, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch, connection: Any
) -> None:
    """Each write that stamps something does so in a transaction of its moment."""
    stamped = []

    async def remember(connection: Any, now: datetime) -> None:
        stamped.append(now)

    monkeypatch.setattr("astrid.store.pool.begin_write", remember)
    history = History(store, connection, np.random.default_rng(1))
    await history.begin()
    for step in history.plan(1):
        stamped.clear()
        await step()
        if step.__name__ != "accept":
            assert set(stamped) == {history.now}, step.__name__


async def test_a_write_that_was_held_up_is_refused(
    store: Store, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped between taking the time and writing must not change what is settled."""
    counted = iter([0.0, LATE_S - 1, 0.0, LATE_S + 1])
    monkeypatch.setattr("astrid.store.pool.count_s", lambda: next(counted))
    await store.sync_watchlist([("a", "Alpha", "agents")], LATER)
    with pytest.raises(StoreError, match=r"held up for 901 s.*nothing was written, try again"):
        await store.sync_watchlist([("a", "Beta", "agents")], LATER)
    monkeypatch.undo()
    assert (await store.read_projects())[0].name == "Alpha"
    assert not await store.has_open_writes(LATER)


# Tables that get a history later


async def test_a_table_gets_a_history_and_then_a_column(empty_url: str, server: Server) -> None:
    """What later migrations do: rows that are there hold since a moment, a new column is kept from then on."""
    texts = (
        "CREATE TABLE thing (a int4, b int4, note text, PRIMARY KEY (b, a)); INSERT INTO thing VALUES (1, 2, 'old')",
        "SELECT start_history('thing', $$timestamptz '2026-01-01Z'$$)",
        "ALTER TABLE thing ADD COLUMN more int8 NOT NULL DEFAULT 7; SELECT start_history('thing')",
    )
    added = tuple(Migration(f"900{n}_thing.sql", "", text) for n, text in enumerate(texts))
    await migrate(empty_url, (*load_migrations(), *added))
    connection = await asyncpg.connect(server.direct(empty_url.rsplit("/", 1)[1].split("?")[0]))
    try:
        for n, statement in enumerate(("UPDATE thing SET note = 'new', more = 8", "UPDATE thing SET a = 5, more = 9")):
            async with connection.transaction():
                await connection.execute(f"SELECT set_config('astrid.moment', '2026-02-0{n + 1}T00:00Z', true)")
                await connection.execute(statement)
        assert await connection.fetchval("SELECT count(*) FROM thing_as_of('2025-12-31Z')") == 0
        stood = [
            [tuple(r) for r in await connection.fetch("SELECT * FROM thing_as_of($1::text::timestamptz)", day)]
            for day in ("2026-01-01Z", "2026-02-01Z", "2026-02-03Z")
        ]
        assert [[(r[0], r[1], r[2], r[4]) for r in rows] for rows in stood] == [
            [(1, 2, "old", 7)],
            [(1, 2, "new", 8)],
            [(5, 2, "new", 9)],
        ]
    finally:
        await connection.close()


async def test_a_history_has_every_column_of_its_table(connection: Any) -> None:
    """A migration that adds a column calls start_history, or the column would not be kept."""
    rows = await connection.fetch(
        """
        SELECT t.relname AS name, array(SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
                                        WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped ORDER BY 1) AS own,
               array(SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
                     WHERE attrelid = r.oid AND attnum > 0 AND NOT attisdropped ORDER BY 1) AS kept,
               pg_get_functiondef(to_regproc(t.relname || '_history')) AS body
        FROM pg_class t JOIN pg_class r ON r.relname = t.relname || '_revision' AND r.relnamespace = t.relnamespace
        WHERE t.relnamespace = 'public'::regnamespace AND t.relname NOT IN ('observation', 'score')
        """
    )
    assert {row["name"] for row in rows} >= set(KEYS) | {"identity"}
    for row in rows:
        assert sorted([*row["own"], "superseded_at timestamp with time zone"]) == row["kept"], row["name"]
        for column in row["own"]:
            assert f"OLD.{column.split()[0]}" in row["body"], (row["name"], column)


async def test_what_was_there_before_the_migration(empty_url: str, server: Server) -> None:
    """Rows of earlier versions hold since the best moment that they tell."""
    older = tuple(m for m in load_migrations() if m.name < "0012")
    await migrate(empty_url, older)
    connection = await asyncpg.connect(server.direct(empty_url.rsplit("/", 1)[1].split("?")[0]))
    try:
        await connection.execute(
            """
            INSERT INTO entity (slug, name, category, first_tracked) VALUES ('a', 'A', 'rag', '2026-03-01');
            INSERT INTO run (kind, day, state, code_version, method_version, started_at, finished_at, note)
            VALUES ('nightly', '2026-03-30', 'complete', '0', '1.0', '2026-03-31T05:00Z', '2026-03-31T06:00Z', 'fine'),
                   ('nightly', '2026-03-31', 'running', '0', '1.0', '2026-04-01T05:00Z', NULL, '');
            INSERT INTO identity VALUES (1, 'github', 'R', 'a/a', '2026-03-30', '2026-03-30', 1),
                                        (1, 'github', 'R', 'b/a', '2026-03-31', NULL, 2);
            INSERT INTO gap VALUES
                (1, 1, '2026-03-29', 'out', 2, true, '2026-03-30T05:00Z', '2026-03-31T05:30Z', '2026-04-01T05:30Z'),
                (1, 1, '2026-03-30', 'out', 1, true, '2026-03-31T05:30Z', '2026-03-31T05:30Z', NULL);
            INSERT INTO score (method_version, day, entity_id, score, calibrated, flags, rank, run_id, published_at)
            VALUES ('1.0', '2026-03-30', 1, 60, false, 0, 1, 2, '2026-04-01T05:45Z');
            INSERT INTO score_revision (method_version, day, entity_id, score, calibrated, flags, rank, run_id,
                                        published_at, components, superseded_at, superseded_by_run)
            VALUES ('1.0', '2026-03-30', 1, 50, false, 0, 1, 1, '2026-03-31T05:45Z', '[]', '2026-04-01T05:45Z', 2),
                   ('1.0', '2026-03-31', 1, 55, false, 0, 1, 2, '2026-04-01T05:50Z', '[]', '2026-04-01T05:55Z', 2);
            INSERT INTO metric_note VALUES (1, '2026-01-01', NULL, 'made up');
            """
        )
    finally:
        await connection.close()
    await migrate(empty_url)
    from astrid.store import open_store

    async with open_store(empty_url) as store:

        def at(text: str) -> datetime:
            return datetime.fromisoformat(text).astimezone(UTC)

        assert await store.read_projects(as_of=at("2026-02-28T23:59Z")) == []
        assert len(await store.read_projects(as_of=at("2026-03-01T00:00Z"))) == 1
        runs = await store.read_runs(as_of=at("2026-03-31T05:30Z"))
        assert [(r.run_id, r.state, r.finished_at, r.note) for r in runs] == [(1, "running", None, "")]
        assert [r.state for r in await store.read_runs(as_of=at("2026-04-01T05:00Z"))] == ["running", "complete"]
        names = [
            (await store.read_identities("github", as_of=at(moment)))[1].name
            for moment in ("2026-03-31T05:00Z", "2026-04-01T04:59Z", "2026-04-01T05:00Z")
        ]
        assert names == ["a/a", "a/a", "b/a"]
        still = [
            [gap.day.day for gap in await store.read_gaps("a", as_of=at(moment)) if gap.healed_at is None]
            for moment in ("2026-03-30T04:00Z", "2026-03-30T06:00Z", "2026-03-31T06:00Z", "2026-04-01T06:00Z")
        ]
        assert still == [[], [29], [29, 30], [30]]
        days = [
            await store.latest_scored_day(as_of=at(moment))
            for moment in ("2026-03-31T05:44Z", "2026-03-31T05:45Z", "2026-04-01T05:52Z", "2026-04-01T06:00Z")
        ]
        assert days == [None, date(2026, 3, 30), date(2026, 3, 31), date(2026, 3, 30)]
        shown: list[list[ScoreRow]] = [
            await store.read_leaderboard(None, None, 9, 0, as_of=at(moment))
            for moment in ("2026-03-31T06:00Z", "2026-04-01T05:52Z", "2026-04-01T06:00Z")
        ]
        assert [[r.score for r in rows] for rows in shown] == [[50.0], [55.0], [60.0]]
        assert len(await store.read_notes(1, as_of=at("2020-01-01T00:00Z"))) == 1
