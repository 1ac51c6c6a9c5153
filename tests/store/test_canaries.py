"""Nights over a real database: a broken upstream is kept out of the scores, said aloud, and comes back by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import StringIO

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from astrid.broker.memory import MemoryBroker
from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.models import Observations
from astrid.pipeline.canaries import DAYS
from astrid.pipeline.inspection import inspect_night
from astrid.pipeline.night import Driver, run_night
from astrid.pipeline.score import read_signal, score_and_publish
from astrid.pipeline.universe import Universe
from astrid.scoring.series import Flag
from astrid.store import CanaryRow, Reconciliation, Store
from astrid.terminal import print_result
from astrid.timeline import Timeline
from astrid.watchlist import Project
from tests.store.conftest import NOW

NIGHT = date(2026, 3, 31)
N = 40
PYPI = METRIC_BY_NAME["pypi_downloads"].metric_id
STARS = METRIC_BY_NAME["github_stars"].metric_id
GAINED = METRIC_BY_NAME["github_stars_gained"].metric_id
Floats = npt.NDArray[np.float32]


@dataclass
class Place:
    """A store with a universe of packages and repositories, and what was written there."""

    store: Store
    universe: Universe
    sound: dict[date, Floats] = field(default_factory=dict)

    async def write(self, day: date, values: npt.NDArray[np.floating], run_id: int, metric_id: int = PYPI) -> None:
        origin = ORIGIN_BY_NAME["pypistats" if metric_id == PYPI else "github_graphql"].origin_id
        rows = [
            (int(e), metric_id, day, float(v), origin) for e, v in zip(self.universe.entity_ids, values, strict=True)
        ]
        await self.store.write_observations(Observations.from_rows(rows), run_id, NOW)

    async def start(self, day: date) -> int:
        return await self.store.start_run("nightly", day, "test", "1.0.0", NOW)

    async def inspect(self, day: date, run_id: int) -> dict[str, CanaryRow]:
        """Judge a night and return the verdicts on PyPI."""
        await inspect_night(self.store, self.universe, day, run_id, NOW)
        return {r.name: r for r in await self.store.read_canaries(day) if r.source == "pypistats"}

    async def growth(self, day: date) -> npt.NDArray[np.float32]:
        return (await read_signal(self.store, self.universe, "pypi_downloads", day)).growth_slow


def project(n: int) -> Project:
    return Project(f"p{n:02}", f"P{n}", "agents", f"o/p{n}", (), (f"p{n}",), (), (), (), (), (), {})


@pytest.fixture
async def place(store: Store) -> Place:
    """Give a place whose packages and stars have sound values up to the day before ``NIGHT``, all of run 1."""
    projects = [project(n) for n in range(N)]
    ids = await store.sync_watchlist([(p.slug, p.name, p.category) for p in projects], NOW)
    found = Place(store, Universe.build(projects, ids, {}))
    assert await found.start(NIGHT - timedelta(days=1)) == 1
    rng = np.random.default_rng(7)
    level, growth = rng.uniform(300, 9000, N), rng.normal(0.003, 0.004, N)
    stars = 5000 + np.cumsum(rng.poisson(9, (DAYS + 20, N)), axis=0)
    parts = []
    for n in range(-DAYS + 1, 20):
        day = NIGHT + timedelta(days=n)
        weekday = 0.6 if day.weekday() >= 5 else 1.0
        found.sound[day] = rng.poisson(level * weekday * np.exp(growth * n)).astype(np.float32)
        if n < 0:
            parts += [
                (int(e), PYPI, day, float(v), 5)
                for e, v in zip(found.universe.entity_ids, found.sound[day], strict=True)
            ]
            parts += [
                (int(e), STARS, day, float(v), 1)
                for e, v in zip(found.universe.entity_ids, stars[n + DAYS - 1], strict=True)
            ]
    await store.write_observations(Observations.from_rows(parts), 1, NOW)
    return found


async def test_a_broken_feed_is_kept_out_and_comes_back(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    store = place.store
    run_id = await place.start(NIGHT)
    await place.write(NIGHT, place.sound[NIGHT], run_id)
    assert {v.state for v in (await place.inspect(NIGHT, run_id)).values()} == {"ok"}
    assert not (await store.read_kept_out("pypistats", NIGHT - timedelta(days=9), NIGHT)).any()
    before = await place.growth(NIGHT)

    # Night after night the feed says a thirtieth of everything, until all of the week is of it.
    broken_from = NIGHT + timedelta(days=1)
    nights: list[date] = []
    for n in range(1, 8):
        night = NIGHT + timedelta(days=n)
        run_id = await place.start(night)
        await place.write(night, np.floor(place.sound[night] / 30), run_id)
        with caplog.at_level(logging.ERROR):
            state = (await place.inspect(night, run_id))["level"].state
        if state == "violated":
            nights.append(night)
    assert nights[0] <= NIGHT + timedelta(days=5)
    assert nights[-1] == night
    assert len(nights) == (nights[-1] - nights[0]).days + 1
    assert "the upstream of pypistats breaks its contract (level)" in caplog.text
    told = (await place.inspect(night, run_id))["level"]
    assert (told.since, told.first_day) == (nights[0], night - timedelta(days=6))

    # Every broken day is a gap, also those before the canary rang; the score goes on from what was known.
    kept_out = await store.read_kept_out("pypistats", broken_from, night)
    assert (kept_out > 0).all()
    held = await store.read_matrix(PYPI, place.universe.entity_ids, broken_from, night, kept_out)
    assert np.isnan(held).all()
    assert np.isfinite(await store.read_matrix(PYPI, place.universe.entity_ids, broken_from, night)).all()
    signal = await read_signal(store, place.universe, "pypi_downloads", night)
    assert ((signal.flags & Flag.STALE) != 0).all()
    np.testing.assert_allclose(signal.growth_slow, before, atol=0.02)
    assert await score_and_publish(store, place.universe, night, run_id, NOW) == N
    board = await store.read_leaderboard(night, None, N, 0)
    assert all("pypi_downloads" in row.contributions for row in board)

    # The feed is mended and states the days anew: the next night is sound, and they count again.
    night += timedelta(days=1)
    run_id = await place.start(night)
    for n in range((night - broken_from).days + 1):
        day = broken_from + timedelta(days=n)
        await place.write(day, place.sound[day], run_id)
    assert {v.state for v in (await place.inspect(night, run_id)).values()} == {"ok"}
    kept_out = await store.read_kept_out("pypistats", broken_from, night)
    again = await store.read_matrix(PYPI, place.universe.entity_ids, broken_from, night, kept_out)
    np.testing.assert_array_equal(again, [place.sound[broken_from + timedelta(days=n)] for n in range(len(again))])
    signal = await read_signal(store, place.universe, "pypi_downloads", night)
    assert not ((signal.flags & (Flag.STALE | Flag.SOURCE_GAP)) != 0).any()


async def test_a_feed_that_is_mended_without_a_word_comes_back_within_a_week(place: Place) -> None:
    """The broken days stay gaps; the canary is silent again as soon as most of the week is sound."""
    states = []
    for n in range(18):
        night = NIGHT + timedelta(days=n)
        run_id = await place.start(night)
        await place.write(night, place.sound[night] * (0 if n < 7 else 1), run_id)
        found = await place.inspect(night, run_id)
        states.append("violated" in {v.state for v in found.values()})
    assert states[6]
    assert not any(states[13:]), states
    kept_out = await place.store.read_kept_out("pypistats", NIGHT, night)
    assert (kept_out[:7] > 0).all()
    assert not kept_out[13:].any()


async def test_judging_again_replaces_the_verdict(place: Place) -> None:
    run_id = await place.start(NIGHT)
    night = NIGHT + timedelta(days=12)
    found = await place.inspect(night, run_id)
    assert found["freshness"].state == "violated"
    assert found["freshness"].since == night
    rows = await place.store.read_canaries()
    for n in range(13):
        day = NIGHT + timedelta(days=n)
        await place.write(day, place.sound[day], run_id)
    assert (await place.inspect(night, run_id))["freshness"].state == "ok"
    assert len(await place.store.read_canaries()) == len(rows)
    assert not (await place.store.read_kept_out("pypistats", NIGHT, night)).any()


async def test_a_violation_lasts_over_nights_that_could_not_be_judged(store: Store, place: Place) -> None:
    run_id = await place.start(NIGHT)
    states = ["ok", "violated", "not judged", "violated"]
    for n, state in enumerate(states):
        day = NIGHT + timedelta(days=n)
        await store.write_verdicts([CanaryRow("npm", "level", day, state, None, 0.5, 1.8, "why", day, run_id, NOW)])
    (last,) = await store.read_canaries()
    assert last == CanaryRow(
        "npm", "level", NIGHT + timedelta(days=3), "violated", None, 0.5, 1.8, "why", NIGHT + timedelta(days=3), run_id,
        NOW, NIGHT + timedelta(days=1),
    )  # fmt: skip
    (first,) = await store.read_canaries(NIGHT)
    assert (first.state, first.since) == ("ok", None)
    assert await store.read_canaries(NIGHT - timedelta(days=1)) == []
    later = NIGHT + timedelta(days=9)
    assert await store.read_last_states(later, NIGHT) == {("npm", "level"): "violated"}
    assert await store.read_last_states(NIGHT, NIGHT - timedelta(days=9)) == {}
    await store.write_verdicts([])


async def test_what_a_later_run_wrote_for_a_day_counts_again(store: Store, place: Place) -> None:
    bad, good = await place.start(NIGHT), await place.start(NIGHT)
    await store.write_verdicts(
        [CanaryRow("pypistats", "level", NIGHT, "violated", 0.1, 0.5, 1.8, "why", NIGHT - timedelta(days=2), bad, NOW)]
    )
    await place.write(NIGHT, np.zeros(N), bad)
    first = NIGHT - timedelta(days=4)
    kept_out = await store.read_kept_out("pypistats", first, NIGHT)
    assert kept_out.tolist() == [0, 0, bad, bad, bad]
    assert (await store.read_kept_out("npm", first, NIGHT)).tolist() == [0] * 5
    held = await store.read_matrix(PYPI, place.universe.entity_ids, first, NIGHT, kept_out)
    assert np.isfinite(held).all(axis=1).tolist() == [True, True, False, False, False]
    await place.write(NIGHT, place.sound[NIGHT], good)
    held = await store.read_matrix(PYPI, place.universe.entity_ids, first, NIGHT, kept_out)
    assert np.isfinite(held).all(axis=1).tolist() == [True, True, False, False, True]


async def test_snapshots_and_history_are_compared_each_night(store: Store, place: Place) -> None:
    """The history knows a fifth of the stars: stored week by week, and both canaries of GitHub ring."""
    first = NIGHT - timedelta(days=50)
    stars = await store.read_matrix(STARS, place.universe.entity_ids, first - timedelta(days=1), NIGHT)
    for n, gained in enumerate(np.diff(stars, axis=0)[:-1]):
        await place.write(first + timedelta(days=n), np.floor(gained / 5), 1, GAINED)
    run_id = await place.start(NIGHT)
    await place.write(NIGHT, stars[-2] + 9, run_id, STARS)
    await inspect_night(store, place.universe, NIGHT, run_id, NOW)
    found = {r.name: r for r in await store.read_canaries() if r.source == "github"}
    assert found["capture"].state == found["history_vs_count"].state == "violated"
    assert found["capture"].value == pytest.approx(0.15, abs=0.06)
    assert found["freshness"].state == found["level"].state == "ok"
    weeks = await store.read_reconciliation("p07")
    assert len(weeks) >= 4
    assert all(w.difference > 0.6 and w.week.weekday() == 6 for w in weeks)
    assert [w.week for w in weeks] == sorted(w.week for w in weeks)
    everyone = await store.read_reconciled_weeks(weeks[0].week, weeks[-1].week)
    assert len(everyone) == N * len(weeks)
    assert await store.read_reconciliation("nobody") == []


async def test_small_weeks_differ_by_little(store: Store, place: Place) -> None:
    entity_id = int(place.universe.entity_ids[0])
    await store.record_reconciliation([Reconciliation(entity_id, date(2026, 3, 22), 3.0, 1.0)])
    (week,) = await store.read_reconciliation("p00")
    assert week.difference == pytest.approx(0.2)


async def test_a_night_judges_before_it_scores_and_says_so_in_its_record(place: Place) -> None:
    """The driver's score sees the verdicts of its own night; the run's note and result name them."""
    night = NIGHT + timedelta(days=11)
    seen: list[Sequence[CanaryRow]] = []

    async def crawl(run_id: int, sources: Sequence[str]) -> None:
        """Nothing comes: every feed stands still."""

    async def score(run_id: int, day: date) -> int:
        seen.append(await place.store.read_canaries(day))
        return await score_and_publish(place.store, place.universe, day, run_id, NOW)

    timeline = Timeline(NOW + timedelta(days=11), 0.0)
    driver = Driver(place.store, MemoryBroker(), timeline, lambda: 0.0, crawl, score, lambda _: None, "test")
    result = await run_night(driver, place.universe, night, [])
    assert result.violated == ("github (freshness)", "pypistats (freshness)")
    assert {r.source for r in seen[0] if r.state == "violated"} == {"github", "pypistats"}
    (record,) = [r for r in await place.store.read_runs() if r.run_id == result.run_id]
    assert record.note == "canaries violated: github (freshness); pypistats (freshness)"
    assert record.state == "complete", "a violation is no gap and changes no exit code"
    assert result.ranked == N, "what was known before carries on"
    said = Console(record=True, width=200, file=StringIO())
    print_result(said, result)
    assert "The upstream of pypistats (freshness) breaks its contract" in said.export_text()
    again = await run_night(driver, place.universe, night, [])
    assert (again.violated, len(seen)) == ((), 1), "a night that lacks nothing is not judged again"


async def test_deps_dev_that_counts_quite_otherwise_is_found(place: Place) -> None:
    """Its newest weekly count is held against our own of the same days, project by project."""
    theirs = METRIC_BY_NAME["depsdev_stars"].metric_id
    night = NIGHT - timedelta(days=1)
    ours = (await place.store.read_matrix(STARS, place.universe.entity_ids, night, night))[0]
    run_id = await place.start(night)
    for age, share in ((9, 0.1), (2, 0.97)):
        await place.write(night - timedelta(days=age), ours * share, run_id, theirs)

    async def verdict() -> CanaryRow:
        await inspect_night(place.store, place.universe, night, run_id, NOW)
        rows = await place.store.read_canaries(night)
        return next(r for r in rows if (r.source, r.name) == ("depsdev", "second_count"))

    assert (await verdict()).state == "ok"
    await place.write(night, ours * 0.4, run_id, theirs)
    broken = await verdict()
    assert broken.state == "violated"
    assert f"{N} projects" in broken.reason
