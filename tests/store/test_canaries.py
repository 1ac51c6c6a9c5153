"""Nights over a real database: a broken upstream is kept out of the scores, said aloud, and comes back by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import StringIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from astrid.broker.memory import MemoryBroker
from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.models import Batch, Done, Entity, Observations
from astrid.pipeline.canaries import DAYS, list_doubters
from astrid.pipeline.inspection import inspect_night
from astrid.pipeline.night import Driver, run_night
from astrid.pipeline.score import read_signal, score_and_publish
from astrid.pipeline.universe import Universe
from astrid.scoring.series import Flag
from astrid.store import CanaryRow, KeptOut, Reconciliation, Store
from astrid.terminal import print_result
from astrid.timeline import Timeline
from astrid.watchlist import Project
from tests.store.conftest import NOW

pytestmark = pytest.mark.rules

NIGHT = date(2026, 3, 31)
FIRST = NIGHT - timedelta(days=DAYS - 1)
N = 56
PYPI = METRIC_BY_NAME["pypi_downloads"].metric_id
STARS = METRIC_BY_NAME["github_stars"].metric_id
FORKS = METRIC_BY_NAME["github_forks"].metric_id
GAINED = METRIC_BY_NAME["github_stars_gained"].metric_id
ORIGINS = {PYPI: "pypistats", STARS: "github_graphql", FORKS: "github_graphql", GAINED: "github_stargazers_history"}
Floats = npt.NDArray[np.float32]


def later(days: int) -> date:
    return NIGHT + timedelta(days=days)


@dataclass
class Place:
    """A store with a universe of packages and repositories, and what was written there."""

    store: Store
    universe: Universe
    sound: dict[date, Floats] = field(default_factory=dict)

    async def write(
        self, day: date, values: npt.NDArray[np.floating], run_id: int, metric_id: int = PYPI, origin: str = ""
    ) -> None:
        origin_id = ORIGIN_BY_NAME[origin or ORIGINS.get(metric_id, "depsdev")].origin_id
        ids = self.universe.entity_ids
        rows = [(int(e), metric_id, day, float(v), origin_id) for e, v in zip(ids, values, strict=True)]
        await self.store.write_observations(Observations.from_rows(rows), run_id, NOW)

    async def start(self, day: date, *asked: tuple[str, str]) -> int:
        """Begin the run of a night that asks for these (source, task)."""
        run_id = await self.store.start_run("nightly", day, "test", "1.0.0", NOW)
        entity = Entity(int(self.universe.entity_ids[0]), "p00", "p00")
        batches = [Batch(*task, day, day, day, (entity,), run_id=run_id) for task in asked]
        await self.store.plan_batches(run_id, batches, NOW)
        return run_id

    async def crawl(self, night: date, factor: float | Floats = 1.0, *, known: bool = True) -> int:
        """Crawl PyPI as a night does and return the run: a seventh of the packages anew, of the others the night's day.

        Every answer is ``factor`` times what is true. Unless ``known``, no batch tells what was asked.
        """
        factors = np.broadcast_to(np.float32(factor), N)
        run_id = await self.store.start_run("nightly", night, "test", "1.0.0", NOW)
        anew = (self.universe.entity_ids + night.toordinal()) % 7 == 0
        for whole, first in ((True, FIRST), (False, night)):
            columns = np.flatnonzero(anew == whole)
            rows = [
                (int(self.universe.entity_ids[c]), PYPI, day, float(np.floor(self.sound[day][c] * factors[c])), 5)
                for day in (first + timedelta(days=n) for n in range((night - first).days + 1))
                for c in columns
            ]
            entities = tuple(Entity(int(self.universe.entity_ids[c]), f"p{c:02}", f"p{c:02}") for c in columns)
            batch = Batch("pypistats", "overall", night, first, night, entities, run_id=run_id)
            if known:
                await self.store.commit_batch(batch, Done(Observations.from_rows(rows), 1), NOW)
            else:
                await self.store.write_observations(Observations.from_rows(rows), run_id, NOW)
        return run_id

    async def inspect(self, day: date, run_id: int) -> dict[str, CanaryRow]:
        """Judge a night and return the verdicts on PyPI."""
        await inspect_night(self.store, self.universe, day, run_id, NOW)
        return {r.name: r for r in await self.store.read_canaries(day) if r.source == "pypistats"}

    async def kept_out(self) -> KeptOut:
        return await self.store.read_kept_out("pypistats", list_doubters("pypi_downloads"))

    async def read_counting(self, last: date, first: date = FIRST) -> Floats:
        """Return the downloads that a score would take."""
        return await self.store.read_matrix(PYPI, self.universe.entity_ids, first, last, await self.kept_out())

    def true(self, last: date, first: date = FIRST) -> Floats:
        return np.array([self.sound[first + timedelta(days=n)] for n in range((last - first).days + 1)], np.float32)

    async def count_wrong(self, last: date) -> int:
        """Return how many packages have a value that a score would take and that is not true."""
        counting = await self.read_counting(last)
        return int(np.count_nonzero((np.isfinite(counting) & (counting != self.true(last))).any(axis=0)))

    async def growth(self, day: date) -> npt.NDArray[np.float32]:
        return (await read_signal(self.store, self.universe, "pypi_downloads", day)).growth_slow


def violated(found: dict[str, CanaryRow]) -> set[str]:
    return {name for name, row in found.items() if row.state == "violated"}


def project(n: int) -> Project:
    return Project(f"p{n:02}", f"P{n}", "agents", f"o/p{n}", (), (f"p{n}",), (), (), (), (), (), {})


@pytest.fixture
async def place(store: Store) -> Place:
    """Give a place whose packages and stars have sound values up to the day before ``NIGHT``, all of run 1."""
    projects = [project(n) for n in range(N)]
    ids = await store.sync_watchlist([(p.slug, p.name, p.category) for p in projects], NOW)
    found = Place(store, Universe.build(projects, ids, {}))
    assert await found.start(later(-1)) == 1
    rng = np.random.default_rng(7)
    level, growth = rng.uniform(300, 9000, N), rng.normal(0.003, 0.004, N)
    stars = 5000 + np.cumsum(rng.poisson(9, (DAYS + 40, N)), axis=0)
    parts = []
    for n in range(-DAYS + 1, 40):
        day = later(n)
        weekday = 0.6 if day.weekday() >= 5 else 1.0
        found.sound[day] = rng.poisson(level * weekday * np.exp(growth * n)).astype(np.float32)
        if n < 0:
            counted = stars[n + DAYS - 1]
            for metric_id, values in ((PYPI, found.sound[day]), (STARS, counted), (FORKS, counted // 2)):
                origin_id = ORIGIN_BY_NAME[ORIGINS[metric_id]].origin_id
                parts += [
                    (int(e), metric_id, day, float(v), origin_id)
                    for e, v in zip(found.universe.entity_ids, values, strict=True)
                ]
    await store.write_observations(Observations.from_rows(parts), 1, NOW)
    return found


PYPISTATS = ("pypistats", "overall")
COUNTS = ("github", "counts")
HISTORY = ("github", "history")


async def test_a_broken_feed_is_kept_out_and_comes_back(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A feed that is never read anew: its broken days are gaps, those before the alarm too."""
    store = place.store
    run_id = await place.start(NIGHT, PYPISTATS)
    await place.write(NIGHT, place.sound[NIGHT], run_id)
    assert {n: v.state for n, v in (await place.inspect(NIGHT, run_id)).items() if n != "rewrite"} == dict.fromkeys(
        ("freshness", "truncation", "type_mix", "level"), "ok"
    )
    assert not await place.kept_out()
    before = await place.growth(NIGHT)

    # Night after night the feed says a thirtieth of everything, until all of the week is of it.
    nights: list[date] = []
    for n in range(1, 8):
        night = later(n)
        run_id = await place.start(night, PYPISTATS)
        await place.write(night, np.floor(place.sound[night] / 30), run_id)
        with caplog.at_level(logging.WARNING):
            state = (await place.inspect(night, run_id))["level"].state
        if state == "violated":
            nights.append(night)
    assert nights[0] <= later(5)
    assert nights[-1] == night
    assert len(nights) == (nights[-1] - nights[0]).days + 1
    told = (await place.inspect(night, run_id))["level"]
    assert (told.since, told.first_day) == (nights[0], night - timedelta(days=6))
    said = [
        r.getMessage() for r in caplog.records if r.name == "astrid.pipeline.inspection" and "(level)" in r.msg % r.args
    ]
    assert len(said) == 1, "an alarm is said once, not every night"
    assert "the upstream of pypistats breaks its contract (level)" in said[0]

    # The score goes on from what was known.
    assert np.isnan(await place.read_counting(night, later(1))).all()
    assert np.isfinite(await store.read_matrix(PYPI, place.universe.entity_ids, later(1), night)).all()
    signal = await read_signal(store, place.universe, "pypi_downloads", night)
    assert ((signal.flags & Flag.STALE) != 0).all()
    np.testing.assert_allclose(signal.growth_slow, before, atol=0.02)
    assert await score_and_publish(store, place.universe, night, run_id, lambda: NOW) == N
    board = await store.read_leaderboard(night, None, N, 0)
    assert all("pypi_downloads" in row.contributions for row in board)

    # The feed is mended and states the days anew: the next night is sound, and they count again.
    night += timedelta(days=1)
    run_id = await place.start(night, PYPISTATS)
    for n in range(1, (night - NIGHT).days + 1):
        await place.write(later(n), place.sound[later(n)], run_id)
    with caplog.at_level(logging.WARNING):
        assert violated(await place.inspect(night, run_id)) == set()
    assert "the upstream of pypistats keeps its contract again (level)" in caplog.text
    np.testing.assert_array_equal(await place.read_counting(night, later(1)), place.true(night, later(1)))
    signal = await read_signal(store, place.universe, "pypi_downloads", night)
    assert not ((signal.flags & (Flag.STALE | Flag.SOURCE_GAP)) != 0).any()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("factor", [0.2, 5.0, 0.01])
async def test_a_feed_that_rewrites_the_past_wrongly_reaches_no_score(place: Place, factor: float, known: bool) -> None:
    """Every answer is wrong from one night on, whole series among them: no value of a violated night ever counts.

    Where the store knows what was read anew it rings in the first night, else by the level of the week alone.
    """
    rang: set[str] = set()
    for n in range(9):
        run_id = await place.crawl(later(n), factor, known=known)
        found = violated(await place.inspect(later(n), run_id))
        rang |= found
        if known or rang:
            assert found, (n, "an alarm does not end while the answers are wrong")
            assert await place.count_wrong(later(n)) == 0, n
        assert known or rang or n < 5
    assert rang >= ({"rewrite", "level"} if known else {"level"})
    # What stands is wrong for everybody by now, and what it replaced counts.
    standing = await place.store.read_matrix(PYPI, place.universe.entity_ids, FIRST, later(8))
    assert (np.abs(standing / place.true(later(8)) - factor) < 0.02).mean() > 0.95
    np.testing.assert_array_equal(await place.read_counting(later(-7)), place.true(later(-7)))

    # The feed is mended: the alarm ends, from then on everything new counts, and nothing wrong ever does.
    ended: list[date] = []
    for n in range(9, 24):
        run_id = await place.crawl(later(n), known=known)
        if not violated(await place.inspect(later(n), run_id)):
            ended.append(later(n))
        assert await place.count_wrong(later(n)) == 0, n
    assert ended[0] <= later(15)
    assert len(ended) == (later(23) - ended[0]).days + 1
    np.testing.assert_array_equal(await place.read_counting(later(23), ended[0]), place.true(later(23), ended[0]))


async def test_a_shift_that_no_level_shows_is_seen_in_what_it_replaces(place: Place) -> None:
    found = await place.inspect(NIGHT, await place.crawl(NIGHT, 1.4))
    assert violated(found) == {"rewrite"}
    assert found["rewrite"].value == 1.0
    assert "1.40 times" in found["rewrite"].reason
    assert await place.count_wrong(NIGHT) == 0


async def test_a_feed_that_is_mended_at_once_is_believed_at_once(place: Place) -> None:
    """What was read anew while it was wrong still stands; what tonight was read anew is sound, and that decides."""
    rang = [bool(violated(await place.inspect(later(n), await place.crawl(later(n), 0.7)))) for n in range(3)]
    rang += [bool(violated(await place.inspect(later(n), await place.crawl(later(n))))) for n in range(3, 5)]
    assert rang == [True] * 3 + [False] * 2
    assert await place.count_wrong(later(4)) == 0


async def test_a_sound_feed_that_is_read_anew_rings_nothing_and_mends_a_day(place: Place) -> None:
    await place.write(later(-30), place.sound[later(-30)] / 2, 1)
    for n in range(3):
        found = await place.inspect(later(n), await place.crawl(later(n)))
        assert (violated(found), found["rewrite"].state, found["rewrite"].value) == (set(), "ok", 0.0)


async def test_what_a_stand_in_filled_may_be_read_otherwise(place: Place, connection: Any) -> None:
    """pypistats counts more than ClickHouse: what takes the place of a stand-in's values is no other past."""
    await connection.execute("UPDATE observation SET origin_id = 6, value = value / 2 WHERE metric_id = $1", PYPI)
    found = await place.inspect(NIGHT, await place.crawl(NIGHT))
    assert found["rewrite"].state == "not judged"
    assert violated(found) == set()


async def test_an_alarm_outlasts_what_the_canaries_look_back(place: Place) -> None:
    """After a hundred nights of a tenth no sound week is left in them: the fall is still held against those before."""
    nights = 130
    run_id = await place.start(NIGHT, PYPISTATS)
    rows = []
    for n in range(nights + 1):
        day = later(n)
        true = place.sound[NIGHT - timedelta(days=7 + (-n) % 7)]
        rows += [(int(e), PYPI, day, float(v // 10), 5) for e, v in zip(place.universe.entity_ids, true, strict=True)]
    await place.store.write_observations(Observations.from_rows(rows), run_id, NOW)
    for n in range(4, nights):
        day = later(n)
        verdict = CanaryRow("pypistats", "level", day, "violated", 0.1, 0.5, 1.8, "low", later(n - 6), run_id, NOW)
        await place.store.write_verdicts([verdict])
    night = later(nights)
    found = await place.inspect(night, await place.start(night, PYPISTATS))
    assert (found["level"].state, found["level"].since) == ("violated", later(4))
    assert found["level"].value == pytest.approx(0.1, abs=0.03)

    # It comes back to what it was before, and only that ends it.
    run_id = await place.start(night + timedelta(days=1), PYPISTATS)
    rows = [
        (int(e), PYPI, night + timedelta(days=1 - n), float(v), 5)
        for n in range(7)
        for e, v in zip(place.universe.entity_ids, place.sound[later(-1 - n)], strict=True)
    ]
    await place.store.write_observations(Observations.from_rows(rows), run_id, NOW)
    assert (await place.inspect(night + timedelta(days=1), run_id))["level"].state == "ok"


async def test_an_operator_can_accept_the_new_way(place: Place, connection: Any) -> None:
    """The statement of ADR 0017: what was kept out counts, and nothing of before is held against it any more."""
    for n in range(8):
        run_id = await place.start(later(n), PYPISTATS)
        await place.write(later(n), place.sound[later(n)] * 3, run_id)
        found = await place.inspect(later(n), run_id)
    assert violated(found) == {"level"}
    assert np.isnan(await place.read_counting(later(7), NIGHT)).all()
    await connection.execute(
        "UPDATE canary SET state = 'accepted' "
        "WHERE source = 'pypistats' AND name = 'level' AND day = (SELECT max(day) FROM canary)"
    )
    assert (await place.inspect(later(7), run_id))["level"].state == "accepted", "judging again does not undo it"
    assert not await place.kept_out()
    assert np.isfinite(await place.read_counting(later(7), NIGHT)).all()
    for n in range(8, 40):
        run_id = await place.start(later(n), PYPISTATS)
        await place.write(later(n), place.sound[later(n)] * 3, run_id)
        if n in (8, 39):
            found = await place.inspect(later(n), run_id)
            assert violated(found) == set()
            assert found["level"].state == ("not judged" if n == 8 else "ok"), "of the new way there is little yet"


async def test_a_backfill_from_a_violated_upstream_does_not_count(place: Place) -> None:
    """No canary looks at a backfill: while the source is violated, nothing that one brings counts, for any day."""
    run_id = await place.crawl(NIGHT, 0.2)
    assert violated(await place.inspect(NIGHT, run_id))
    backfill = await place.store.start_run("backfill", NIGHT, "test", "1.0.0", NOW)
    for n in range(10, 20):
        await place.write(later(-n), place.sound[later(-n)] * 2, backfill)
    older = FIRST - timedelta(days=30)
    await place.write(older, np.full(N, 77.0), backfill)
    assert await place.count_wrong(NIGHT) == 0
    assert np.isnan(await place.read_counting(older, older)).all()
    # Nor does it once the source is sound again; a backfill of then does.
    for n in range(1, 12):
        found = await place.inspect(later(n), await place.crawl(later(n)))
    assert violated(found) == set()
    assert np.isnan(await place.read_counting(older, older)).all()
    backfill = await place.store.start_run("backfill", later(11), "test", "1.0.0", NOW)
    await place.write(older, np.full(N, 78.0), backfill)
    assert (await place.read_counting(older, older) == 78).all()


async def test_a_night_that_runs_twice_is_one_night(place: Place) -> None:
    """It broke off before it judged: what its first run wrote belongs to the verdict of the second."""
    first = await place.crawl(NIGHT, 0.2)
    again = await place.start(NIGHT, PYPISTATS)
    await place.inspect(NIGHT, again)
    (episode, *_) = (await place.kept_out()).episodes
    assert (episode.violated_run, again) == (first, first + 1)
    assert await place.count_wrong(NIGHT) == 0
    first = await place.crawl(later(1))
    again = await place.start(later(1), PYPISTATS)
    assert violated(await place.inspect(later(1), again)) == set()
    (episode,) = (await place.kept_out()).episodes
    assert episode.end_run == first
    np.testing.assert_array_equal(await place.read_counting(later(1), later(1)), place.true(later(1), later(1)))


async def test_a_feed_that_is_mended_without_a_word_comes_back_within_a_week(place: Place) -> None:
    """The broken days stay gaps; the canary is silent again as soon as most of the week is sound."""
    states = []
    for n in range(18):
        night = later(n)
        run_id = await place.start(night, PYPISTATS)
        await place.write(night, place.sound[night] * (0 if n < 7 else 1), run_id)
        states.append(bool(violated(await place.inspect(night, run_id))))
    assert states[6]
    assert not any(states[13:]), states
    counting = await place.read_counting(night, NIGHT)
    assert np.isnan(counting[:7]).all()
    assert np.isfinite(counting[13:]).all()


async def test_judging_again_replaces_the_verdict(place: Place) -> None:
    night = later(12)
    for n in range(13):
        run_id = await place.start(later(n), PYPISTATS)
    found = await place.inspect(night, run_id)
    assert found["freshness"].state == "violated"
    assert found["freshness"].since == night
    rows = await place.store.read_canaries()
    for n in range(13):
        await place.write(later(n), place.sound[later(n)], run_id)
    assert (await place.inspect(night, run_id))["freshness"].state == "ok"
    assert len(await place.store.read_canaries()) == len(rows)
    assert not await place.kept_out()


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
    assert await store.read_last_states(later(900)) == {("npm", "level"): "violated"}
    assert await store.read_last_states(later(3)) == {("npm", "level"): "violated"}
    assert await store.read_last_states(later(1)) == {("npm", "level"): "ok"}
    assert await store.read_last_states(NIGHT) == {}
    await store.write_verdicts([])


async def test_what_a_sound_run_wrote_counts_again(store: Store, place: Place) -> None:
    """Run by run: what is doubted, what is out, what it replaced, and what a sound night states anew."""

    async def say(state: str, day: date, run_id: int) -> None:
        first_day = day - timedelta(days=2) if state == "violated" else day
        row = CanaryRow("pypistats", "level", day, state, 0.1, 0.5, 1.8, "why", first_day, run_id, NOW)
        await store.write_verdicts([row])

    async def counting() -> list[float]:
        """Return what counts of the days -5 to 0 and 2, as a share of what is true (nan: nothing)."""
        found = await place.read_counting(later(2), later(-5)) / place.true(later(2), later(-5))
        assert all(np.ptp(row) < 0.001 or np.isnan(row).all() for row in found)
        return [round(float(row[0]), 2) for row in found[[0, 1, 2, 3, 4, 5, 7]]]

    unnoticed = await place.start(later(-2))
    await place.write(later(-5), place.sound[later(-5)] * 0.5, unnoticed)
    await place.write(later(-2), place.sound[later(-2)] * 0.5, unnoticed)
    bad = await place.start(NIGHT)
    await place.write(later(-4), place.sound[later(-4)] * 0.25, bad)
    await place.write(NIGHT, place.sound[NIGHT] * 0.25, bad)
    await say("violated", NIGHT, bad)
    nan = pytest.approx(np.nan, nan_ok=True)
    # Days from -2 on are the stretch that rang; before it, what the unnoticed and the bad run replaced counts.
    assert await counting() == [1, 1, 1, nan, nan, nan, nan]
    assert not await store.read_kept_out("npm", ["level"])
    assert not await store.read_kept_out("pypistats", ["type_mix"])

    unjudged = await place.start(later(1))
    await place.write(later(-4), place.sound[later(-4)] * 0.75, unjudged)
    await place.write(NIGHT, place.sound[NIGHT] * 0.75, unjudged)
    assert await counting() == [1, 1, 1, nan, nan, nan, nan], "nobody has found it sound"
    await say("not judged", later(1), unjudged)
    assert await counting() == [1, 1, 1, nan, nan, nan, nan]

    good = await place.start(later(2))
    for n in (-4, -2, 0, 2):
        await place.write(later(n), place.sound[later(n)], good)
    await say("ok", later(2), good)
    assert await counting() == [1, 1, 1, 1, nan, 1, 1]
    await place.write(later(-5), place.sound[later(-5)] * 0.9, good)
    assert (await counting())[0] == 0.9


async def crawl_github(
    place: Place,
    night: date,
    *asked: tuple[str, str],
    gained: float | None = None,
    stars: npt.NDArray[np.floating] | None = None,
) -> dict[str, CanaryRow]:
    """Take the night's counts, and of a seventh two weeks' gains: ``gained`` times what is true, None: nothing."""
    run_id = await place.start(night, COUNTS, *asked)
    rng = np.random.default_rng(night.toordinal())
    ids = place.universe.entity_ids
    (before,) = await place.store.read_matrix(STARS, ids, *[night - timedelta(days=1)] * 2)
    stars = before + rng.poisson(9, N) if stars is None else stars
    await place.write(night, stars, run_id, STARS)
    await place.write(night, stars // 2, run_id, FORKS)
    if gained is not None:
        first = night - timedelta(days=14)
        moved = np.diff(await place.store.read_matrix(STARS, ids, first, night), axis=0)
        rows = [
            (int(ids[c]), GAINED, first + timedelta(days=n + 1), float(np.floor(moved[n, c] * gained)), 2)
            for n in range(14)
            for c in np.flatnonzero((ids + night.toordinal()) % 7 == 0)
        ]
        await place.store.write_observations(Observations.from_rows(rows), run_id, NOW)
    await inspect_night(place.store, place.universe, night, run_id, NOW)
    return {r.name: r for r in await place.store.read_canaries(night) if r.source == "github"}


async def test_two_witnesses_that_differ_keep_neither_snapshots_nor_forks_out(place: Place) -> None:
    """The history states a tenth of the stars for three weeks, is mended, and at last stops altogether."""
    store, ids = place.store, place.universe.entity_ids
    rang: list[int] = []
    for n in range(50):
        found = await crawl_github(place, later(n), HISTORY, gained=0.1 if 7 <= n < 28 else 1.0)
        if violated(found):
            assert violated(found) <= {"capture", "history_vs_count"}
            rang.append(n)
        if n == 27:
            assert violated(found) == {"capture", "history_vs_count"}
            for metric in ("github_stars", "github_forks"):
                assert not await store.read_kept_out("github", list_doubters(metric))
            kept_out = await store.read_kept_out("github", list_doubters("github_stars_gained"))
            held = await store.read_matrix(GAINED, ids, later(20), later(27), kept_out)
            assert np.isnan(held).all()
    assert (rang[0], rang) == (rang[0], list(range(rang[0], rang[-1] + 1)))
    assert rang[0] <= 16
    assert 28 <= rang[-1] <= 36, "a sound week ends it, not the fourth"

    for n in range(50, 60):
        found = await crawl_github(place, later(n), HISTORY)
    assert violated(found) == {"freshness"}
    assert "github_stars_gained" in found["freshness"].reason


async def test_an_alarm_of_the_history_does_not_end_with_it(place: Place) -> None:
    for n in range(14):
        found = await crawl_github(place, later(n), HISTORY, gained=0.1)
    assert violated(found) == {"capture", "history_vs_count"}
    for n in range(14, 62):
        found = await crawl_github(place, later(n), HISTORY)
    assert violated(found) == {"freshness", "capture", "history_vs_count"}
    assert found["capture"].value is None
    assert found["capture"].reason.startswith("it rang, and nothing has refuted it since")


async def test_stars_that_fall_and_stay_low_ring_on(place: Place) -> None:
    """A week after the tear nothing moves any more within a week: it is held against the last sound counts."""
    (before,) = await place.store.read_matrix(STARS, place.universe.entity_ids, later(-1), later(-1))
    for n in range(12):
        found = await crawl_github(place, later(n), stars=np.floor(before * 0.2) + n)
        assert violated(found) == {"level"}, n
    kept_out = await place.store.read_kept_out("github", list_doubters("github_stars"))
    assert np.isnan(await place.store.read_matrix(STARS, place.universe.entity_ids, NIGHT, later(11), kept_out)).all()
    found = await crawl_github(place, later(12), stars=before + 20)
    assert violated(found) == set()


async def test_snapshots_and_history_are_compared_each_night(store: Store, place: Place) -> None:
    """The history knows a fifth of the stars: stored week by week, and both canaries of GitHub ring."""
    first = NIGHT - timedelta(days=50)
    stars = await store.read_matrix(STARS, place.universe.entity_ids, first - timedelta(days=1), NIGHT)
    for n, gained in enumerate(np.diff(stars, axis=0)[:-1]):
        await place.write(first + timedelta(days=n), np.floor(gained / 5), 1, GAINED)
    run_id = await place.start(NIGHT, COUNTS, HISTORY)
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


async def test_a_stand_in_is_no_sign_of_life_and_its_values_count(place: Place) -> None:
    """pypistats stands still, ClickHouse fills every day: it rings, and keeps nothing out."""
    for n in range(9):
        run_id = await place.start(later(n), PYPISTATS, ("clickhouse", "recent"))
        await place.write(later(n), place.sound[later(n)], run_id, origin="clickhouse_pypi")
    found = await place.inspect(later(8), run_id)
    assert violated(found) == {"freshness"}
    assert f"the newest is of {later(-1)}" in found["freshness"].reason
    assert found["level"].state == "ok"
    np.testing.assert_array_equal(await place.read_counting(later(8)), place.true(later(8)))


async def test_who_is_not_asked_is_not_called_broken(place: Place) -> None:
    """No token, no batches: after weeks it is still "not asked". GitHub was asked in vain."""
    for n in range(20):
        run_id = await place.start(later(n), COUNTS, ("dockerhub", "images"))
    await inspect_night(place.store, place.universe, later(19), run_id, NOW)
    states = {(r.source, r.name): r.state for r in await place.store.read_canaries()}
    assert states["pypistats", "freshness"] == states["pypistats", "level"] == "not asked"
    assert states["npm", "freshness"] == states["npm", "type_mix"] == "not asked"
    assert states["github", "freshness"] == "violated"


async def test_a_source_dead_from_its_first_night_rings(place: Place) -> None:
    """deps.dev is asked night after night and never says anything; a week of that is no news of it, more is."""
    states = []
    for n in range(9):
        run_id = await place.start(later(n), ("depsdev", "projects"), ("depsdev", "packages"))
        await inspect_night(place.store, place.universe, later(n), run_id, NOW)
        states += [r.state for r in await place.store.read_canaries() if (r.source, r.name) == ("depsdev", "freshness")]
    assert states == ["not judged"] * 7 + ["violated"] * 2


async def test_small_weeks_differ_by_little(store: Store, place: Place) -> None:
    entity_id = int(place.universe.entity_ids[0])
    await store.record_reconciliation([Reconciliation(entity_id, date(2026, 3, 22), 3.0, 1.0)], NOW)
    (week,) = await store.read_reconciliation("p00")
    assert week.difference == pytest.approx(0.2)


async def test_a_night_judges_before_it_scores_and_says_so_in_its_record(place: Place) -> None:
    """The driver's score sees the verdicts of its own night; the run's note and result name them."""
    night = later(11)
    for n in range(11):
        await place.start(later(n), PYPISTATS, COUNTS)
    seen: list[Sequence[CanaryRow]] = []

    async def crawl(run_id: int, sources: Sequence[str]) -> None:
        """Nothing comes: every feed stands still."""

    async def score(run_id: int, day: date) -> int:
        seen.append(await place.store.read_canaries(day))
        return await score_and_publish(place.store, place.universe, day, run_id, lambda: NOW)

    timeline = Timeline(NOW + timedelta(days=11), 0.0)
    driver = Driver(place.store, MemoryBroker(), timeline, lambda: 0.0, crawl, score, lambda _: None, "test")
    unasked = await run_night(driver, place.universe, night, [])
    assert unasked.violated == (), "who asks nobody finds nobody broken"
    assert {r.state for r in seen[0]} == {"not asked"}
    night += timedelta(days=1)
    result = await run_night(driver, place.universe, night, ["pypistats"])
    assert result.violated == ("pypistats (freshness)",)
    assert {r.source for r in seen[1] if r.state == "violated"} == {"pypistats"}
    (record,) = [r for r in await place.store.read_runs() if r.run_id == result.run_id]
    assert record.note == "canaries violated: pypistats (freshness)"
    assert result.ranked == N, "what was known before carries on"
    said = Console(record=True, width=200, file=StringIO())
    print_result(said, result)
    assert "The upstream of pypistats (freshness) breaks its contract" in said.export_text()
    again = await run_night(driver, place.universe, night, [])
    assert (again.violated, len(seen)) == ((), 2), "a night that lacks nothing is not judged again"


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
