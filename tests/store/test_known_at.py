"""A published score can be computed again from what was known when it was, whatever was revised since."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from astrid.catalog import METRIC_BY_NAME
from astrid.models import Batch, Done, Observations
from astrid.pipeline.score import compute_scores, score_and_publish
from astrid.pipeline.universe import Universe
from astrid.store import CanaryRow, ScoreColumns, Store, pool
from astrid.watchlist import Project
from tests.store.conftest import NOW

N = 56
DAYS = 120
NIGHT = date(2026, 3, 31)
STARS, PYPI = (METRIC_BY_NAME[name].metric_id for name in ("github_stars", "pypi_downloads"))
PROJECTS = tuple(
    Project(f"p{n:02}", f"P{n}", "agents", f"o/p{n:02}", (), (f"p{n:02}",), (), (), (), (), (), {}) for n in range(N)
)


async def fill(store: Store, rng: np.random.Generator) -> Universe:
    """Track N projects and write DAYS days of stars and downloads, by a run of the night before last."""
    ids = await store.sync_watchlist([(p.slug, p.name, p.category) for p in PROJECTS], NOW - timedelta(days=2))
    run_id = await store.start_run("nightly", NIGHT - timedelta(days=1), "0", "1.0", NOW - timedelta(days=1))
    await write(store, list(ids.values()), rng, run_id, NOW - timedelta(days=1))
    return Universe.build(PROJECTS, ids, {})


def block(entity_ids: Sequence[int], rng: np.random.Generator) -> Observations:
    """Return DAYS days of growing stars and of downloads."""
    count = len(entity_ids) * DAYS
    entity = np.repeat(np.array(entity_ids, np.int32), DAYS)
    day = np.tile(np.datetime64(NIGHT, "D") - np.arange(DAYS)[::-1], len(entity_ids))
    stars = 1000 + np.cumsum(rng.poisson(5, (len(entity_ids), DAYS)), axis=1).reshape(-1).astype(float)
    downloads = rng.poisson(300, count).astype(float)
    return Observations.concatenate(
        [
            Observations(entity, np.full(count, metric, np.int16), day, value, np.full(count, origin, np.int16))
            for metric, value, origin in ((STARS, stars, 1), (PYPI, downloads, 5))
        ]
    )


async def write(store: Store, entity_ids: list[int], rng: np.random.Generator, run_id: int, now: datetime) -> None:
    await store.write_observations(block(entity_ids, rng), run_id, now)


def equal(a: ScoreColumns, b: ScoreColumns) -> bool:
    """Tell whether two days of scores are the same to the last bit, parts included."""
    parts = a.components, b.components
    names = [name for name in ScoreColumns.__dataclass_fields__ if name != "components"]
    same = [np.array_equal(getattr(a, n), getattr(b, n), equal_nan=n != "calibrated") for n in names]
    same += [
        np.array_equal(getattr(parts[0], n), getattr(parts[1], n), equal_nan=True)
        for n in type(parts[0]).__dataclass_fields__
    ]
    return all(same)


async def test_a_score_is_computed_again(store: Store, connection: Any, rng: np.random.Generator) -> None:
    universe = await fill(store, rng)
    ids = universe.entity_ids.tolist()
    run_id = await store.start_run("nightly", NIGHT, "0", "1.0", NOW)
    batch = Batch("pypistats", "overall", NIGHT, NIGHT, NIGHT, (), run_id=run_id)
    late = NOW + timedelta(minutes=3)  # this worker's clock is ahead of the scorer's
    doubted = block(ids, rng)
    await store.commit_batch(batch, Done(doubted), late)
    await store.write_verdicts(
        [CanaryRow("pypistats", "level", NIGHT, "violated", 3.0, 0.5, 1.8, "", NIGHT - timedelta(days=6), run_id, NOW)]
    )
    assert await score_and_publish(store, universe, NIGHT, run_id, lambda: NOW) == N
    (published,) = await connection.fetch("SELECT * FROM publication")
    assert published["known_at"] == late, "nothing that was there is left out, and the moment says so"
    assert published["published_at"] == late
    assert (published["run_id"], published["scores"]) == (run_id, N)
    first = await compute_scores(store, universe, NIGHT)
    board = await store.read_leaderboard(NIGHT, None, N, 0)

    # Later nights revise the values, and judge the upstream otherwise.
    for n in range(1, 4):
        now = late + timedelta(days=n)
        later = await store.start_run("nightly", NIGHT + timedelta(days=n), "0", "1.0", now)
        await write(store, ids[n::2], rng, later, now)
        state = ("violated", "ok", "violated")[n - 1]
        await store.write_verdicts(
            [CanaryRow("pypistats", "level", NIGHT + timedelta(days=n - 1), state, 1.0, 0.5, 1.8, "",
                       NIGHT - timedelta(days=3), later, now)]
        )  # fmt: skip
        await score_and_publish(store, universe, NIGHT, later, lambda now=now: now)  # type: ignore[misc]
    again = await compute_scores(store, universe, NIGHT, late)
    assert equal(again, first)
    assert not equal(again, await compute_scores(store, universe, NIGHT))
    assert not equal(again, await compute_scores(store, universe, NIGHT, late - timedelta(minutes=1)))
    for row in await connection.fetch("SELECT published_at, known_at FROM publication"):
        columns = await compute_scores(store, universe, NIGHT, row["known_at"])
        shown = await store.read_leaderboard(NIGHT, None, N, 0, as_of=row["published_at"])
        by_rank = np.argsort(columns.rank)
        assert [r.score for r in shown] == columns.score[by_rank].tolist()
        assert [r.growth_per_week for r in shown] == columns.growth_per_week[by_rank].tolist()
    assert await store.read_leaderboard(NIGHT, None, N, 0, as_of=late) == board
    assert await connection.fetchval("SELECT count(*) FROM publication") == 4


async def test_a_scorer_waits_for_writes_under_way(store: Store, connection: Any, rng: np.random.Generator) -> None:
    """What a backfill beside it stamped before the scores, and commits after, is in them: else they could not be
    computed again."""
    universe = await fill(store, rng)
    run_id = await store.start_run("nightly", NIGHT, "0", "1.0", NOW)
    begun, go = asyncio.Event(), asyncio.Event()

    async def hold(held: Any) -> None:
        await held.execute("UPDATE observation SET value = value * 2, observed_at = $1 WHERE entity_id < 9", NOW)
        begun.set()
        await go.wait()

    backfill = asyncio.ensure_future(pool.writing(store._pool, store._place, hold, now=NOW))
    await begun.wait()
    scoring = asyncio.ensure_future(score_and_publish(store, universe, NIGHT, run_id, lambda: NOW))
    await asyncio.sleep(0.5)
    assert not scoring.done()
    assert await connection.fetchval("SELECT count(*) FROM publication") == 0
    go.set()
    await backfill
    assert await scoring == N
    known_at = await connection.fetchval("SELECT known_at FROM publication")
    shown = [row.score for row in await store.read_leaderboard(NIGHT, None, N, 0)]
    columns = await compute_scores(store, universe, NIGHT, known_at)
    assert columns.score[np.argsort(columns.rank)].tolist() == shown


async def test_a_scorer_does_not_wait_for_ever(
    store: Store, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    universe = await fill(store, rng)
    run_id = await store.start_run("nightly", NIGHT, "0", "1.0", NOW)
    begun, go = asyncio.Event(), asyncio.Event()

    async def hold(_: Any) -> None:
        begun.set()
        await go.wait()

    stuck = asyncio.ensure_future(pool.writing(store._pool, store._place, hold, now=NOW))
    await begun.wait()
    assert await score_and_publish(store, universe, NIGHT, run_id, lambda: NOW, settle_s=0.3) == N
    assert "a write has been under way for more than 0 s" in caplog.text
    go.set()
    await stuck


async def test_what_an_earlier_run_stamped_ahead_of_the_clock_counts(store: Store, rng: np.random.Generator) -> None:
    """Where time was set back between two runs, or ran faster in one, nothing that stands is left out."""
    universe = await fill(store, rng)
    ids = universe.entity_ids.tolist()
    ahead = NOW + timedelta(hours=30)
    earlier = await store.start_run("nightly", NIGHT - timedelta(days=1), "0", "1.0", ahead - timedelta(hours=1))
    await write(store, ids, rng, earlier, ahead)
    await store.finish_run(earlier, "complete", {}, "", ahead)
    run_id = await store.start_run("nightly", NIGHT, "0", "1.0", NOW)
    await score_and_publish(store, universe, NIGHT, run_id, lambda: NOW)
    columns = await compute_scores(store, universe, NIGHT)
    shown = await store.read_leaderboard(NIGHT, None, N, 0)
    assert [row.score for row in shown] == columns.score[np.argsort(columns.rank)].tolist()
    assert {row.published_at for row in shown} == {ahead}


async def test_what_a_later_run_wrote_is_no_older_version(store: Store, ids: dict[str, int]) -> None:
    """What counts instead of a doubted value is what it had replaced by then, not what replaced it since."""
    a, whom = ids["a"], np.array([ids["a"]], np.int32)

    async def night(n: int, state: str, value: float) -> int:
        """Run a night that finds one value for the first day, and judge it."""
        now, day = NOW + timedelta(days=n), NIGHT + timedelta(days=n)
        run_id = await store.start_run("nightly", day, "0", "1.0", now)
        await store.write_observations(Observations.from_rows([(a, PYPI, NIGHT, value, 5)]), run_id, now)
        await store.write_verdicts([CanaryRow("pypistats", "level", day, state, 1.0, 0.5, 1.8, "", day, run_id, now)])
        return run_id

    async def counting(as_of: datetime | None) -> list[float]:
        kept_out = await store.read_kept_out("pypistats", ["level"], as_of=as_of)
        assert kept_out, "an episode lies behind"
        return (await store.read_matrix(PYPI, whom, NIGHT, NIGHT, kept_out, as_of=as_of)).reshape(-1).tolist()

    await night(0, "ok", 1.0)
    await night(1, "violated", 2.0)
    await night(2, "ok", 2.0)
    moment = NOW + timedelta(days=2)
    assert await counting(None) == [1.0], "what a violated run wrote does not count while it stands"
    for n, value in ((3, 3.0), (4, 4.0)):
        await night(n, "ok", value)
    assert await counting(None) == [4.0]
    assert await counting(NOW + timedelta(days=3)) == [3.0]
    assert await counting(moment) == [1.0]
