"""Published scores: equal ones stay, different ones supersede, and what was published is kept with its parts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import orjson
import pytest

from astrid.errors import StoreError
from astrid.store import ScoreColumns, ScoreComponents, ScoreCounts, Store
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)
LATER = NOW + timedelta(hours=2)


def columns(ids: dict[str, int], slugs: str = "abc", **changed: float) -> ScoreColumns:
    """Give slugs the scores 90, 80, 70 …; two parts each, of stars and downloads; ``a=95`` changes one score."""
    n = len(slugs)
    entity = np.array([ids[s] for s in slugs], np.int32)
    score = np.array([changed.get(s, 90.0 - 10 * i) for i, s in enumerate(slugs)])
    unknown = np.full(2 * n, np.nan)
    components = ScoreComponents(
        np.repeat(entity, 2),
        np.tile(np.array([1, 30], np.int16), n),
        *(np.arange(2 * n) / 10 + k for k in range(6)),
        weight=np.tile([0.2, 0.4], n),
        contribution=np.where(np.arange(2 * n) % 4 == 3, unknown, 0.125),
        flags=np.zeros(2 * n, np.int32),
    )
    return ScoreColumns(
        entity,
        score,
        score - 5,
        np.full(n, np.nan),
        np.zeros(n, bool),
        np.linspace(99, 1, n),
        np.full(n, 0.05),
        np.full(n, 0.5),
        np.full(n, 0.75),
        np.arange(n, dtype=np.int32),
        np.arange(1, n + 1, dtype=np.int32),
        components,
    )


async def test_a_leaderboard(store: Store, ids: dict[str, int]) -> None:
    assert await store.latest_scored_day() is None
    assert await store.read_leaderboard(None, None, 10, 0) == []
    assert await store.write_scores(7, DAY, "1.0", columns(ids), NOW) == ScoreCounts(new=3)
    await store.write_scores(7, DAY - timedelta(days=1), "1.0", columns(ids, "ba"), NOW)
    await store.write_scores(7, DAY + timedelta(days=1), "2.0", columns(ids, "ba"), NOW)
    assert await store.latest_scored_day() == DAY
    top, second, third = await store.read_leaderboard(None, None, 10, 0)
    assert (top.slug, top.name, top.category, top.rank, top.score) == ("a", "A", "agents", 1, 90.0)
    assert (top.lo, top.hi, top.calibrated, top.flags, top.run_id) == (85.0, None, False, 0, 7)
    assert (top.day, top.published_at, top.method_version) == (DAY, NOW, "1.0")
    assert top.contributions == {"github_stars": 0.125, "pypi_downloads": 0.125}
    assert second.contributions == {"github_stars": 0.125}
    assert [r.slug for r in await store.read_leaderboard(DAY, "rag", 10, 0)] == ["c"] == [third.slug]
    assert [r.slug for r in await store.read_leaderboard(DAY, None, 1, 1)] == ["b"]
    assert [(r.day, r.rank) for r in await store.read_score_history("a", 9)] == [(DAY - timedelta(days=1), 2), (DAY, 1)]
    assert [r.day for r in await store.read_score_history("a", 1)] == [DAY]
    assert await store.read_score_history("nobody", 9) == []


async def test_equal_scores_stay_as_they_were_published(store: Store, ids: dict[str, int]) -> None:
    await store.write_scores(1, DAY, "1.0", columns(ids), NOW)
    before = await store.digest()
    assert await store.write_scores(2, DAY, "1.0", columns(ids), LATER) == ScoreCounts(equal=3)
    assert await store.digest() == before
    assert {(r.run_id, r.published_at) for r in await store.read_leaderboard(DAY, None, 9, 0)} == {(1, NOW)}


async def test_a_different_score_supersedes(store: Store, connection: Any, ids: dict[str, int]) -> None:
    await store.write_scores(1, DAY, "1.0", columns(ids), NOW)
    assert await store.write_scores(2, DAY, "1.0", columns(ids, b=85.0), LATER) == ScoreCounts(superseded=1, equal=2)
    old = await connection.fetchrow("SELECT * FROM score_revision")
    assert (old["entity_id"], old["score"], old["rank"], old["run_id"]) == (ids["b"], 80.0, 2, 1)
    assert (old["published_at"], old["superseded_at"], old["superseded_by_run"]) == (NOW, LATER, 2)
    parts = orjson.loads(old["components"])
    assert [p["metric_id"] for p in parts] == [1, 30]
    assert (parts[0]["level"], parts[1]["contribution"]) == (0.2, None)
    rows = await store.read_leaderboard(DAY, None, 9, 0)
    assert [(r.score, r.run_id) for r in rows] == [(90.0, 1), (85.0, 2), (70.0, 1)]


@pytest.mark.parametrize("name", ["z", "contribution", "flags"])
async def test_a_different_part_supersedes(store: Store, ids: dict[str, int], name: str) -> None:
    first = columns(ids)
    await store.write_scores(1, DAY, "1.0", first, NOW)
    values = getattr(first.components, name).copy()
    values[2] += 1
    second = replace(first, components=replace(first.components, **{name: values}))
    assert await store.write_scores(2, DAY, "1.0", second, LATER) == ScoreCounts(superseded=1, equal=2)


async def test_a_part_that_is_no_longer_given_supersedes(store: Store, ids: dict[str, int]) -> None:
    first = columns(ids)
    await store.write_scores(1, DAY, "1.0", first, NOW)
    keep = np.arange(6) != 3
    parts = ScoreComponents(*(getattr(first.components, name)[keep] for name in ScoreComponents.__dataclass_fields__))
    assert await store.write_scores(2, DAY, "1.0", replace(first, components=parts), LATER) == ScoreCounts(
        superseded=1, equal=2
    )


async def test_a_score_that_is_no_longer_given_is_withdrawn(store: Store, connection: Any, ids: dict[str, int]) -> None:
    await store.write_scores(1, DAY, "1.0", columns(ids), NOW)
    assert await store.write_scores(2, DAY, "1.0", columns(ids, "ab"), LATER) == ScoreCounts(
        superseded=1, equal=1, withdrawn=1
    ), "the percentile of b moves with it"
    assert [r.slug for r in await store.read_leaderboard(DAY, None, 9, 0)] == ["a", "b"]
    assert await connection.fetchval("SELECT count(*) FROM score_revision") == 2
    assert await connection.fetchval("SELECT count(*) FROM score_component") == 4


async def test_rank_zero_is_no_rank(store: Store, ids: dict[str, int]) -> None:
    given = columns(ids)
    unranked = replace(given, rank=np.array([1, 0, 2], np.int32))
    await store.write_scores(1, DAY, "1.0", unranked, NOW)
    assert [r.slug for r in await store.read_leaderboard(DAY, None, 9, 0)] == ["a", "c"]
    assert (await store.read_score_history("b", 1))[0].rank is None
    assert await store.write_scores(2, DAY, "1.0", unranked, LATER) == ScoreCounts(equal=3)


async def test_nonsense_is_refused_whole(store: Store, ids: dict[str, int]) -> None:
    given = columns(ids)
    with pytest.raises(StoreError, match="not a number"):
        await store.write_scores(1, DAY, "1.0", replace(given, score=np.array([1.0, np.nan, 2.0])), NOW)
    stray = replace(given.components, entity_id=np.full(6, ids["d"], np.int32))
    with pytest.raises(StoreError, match="parts but no score"):
        await store.write_scores(1, DAY, "1.0", replace(given, components=stray), NOW)
    assert await store.latest_scored_day() is None
