"""Canaries on planted panels: each is silent on a sound source, rings for its own kind of decay, and says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from astrid.catalog import METRIC_BY_NAME, METRICS, Kind
from astrid.models import Batch, Entity, Request, Response
from astrid.pipeline.canaries import (
    ABSENCE,
    CANARIES,
    CAPTURE,
    DAYS,
    LEVEL,
    MEANINGS,
    MOVED_MIN,
    ONLY,
    SERIES_MIN,
    STALE_DAYS,
    Panel,
    Reading,
    Verdict,
    hold,
    judge,
    keeps_out,
    list_doubters,
    relative_difference,
)
from astrid.pipeline.inspection import count_sound_days, list_violated, rhythm_of, watched_metrics
from astrid.simulators.npm import Npm
from astrid.simulators.pypistats import PyPIStats
from astrid.simulators.world import load_world
from astrid.sources import SOURCES
from astrid.store import CanaryRow, KeptOut
from astrid.store.canaries import Episode
from tests.by_hand import ok, run
from tests.synthetic_world import make_world

NIGHT = date(2026, 3, 31)
N = 60
NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
Floats = npt.NDArray[np.float32]


def flow(seed: int = 1, columns: int = N, mean: float = 400.0) -> Floats:
    """Downloads with a week's pattern, chance and some growth: what a sound feed looks like."""
    rng = np.random.default_rng(seed)
    level = mean * rng.uniform(0.5, 20, columns) * np.exp(np.outer(np.arange(DAYS), rng.normal(0.002, 0.002, columns)))
    weekday = np.where(np.arange(DAYS) % 7 >= 5, 0.6, 1.0)
    return rng.poisson(level * weekday[:, None]).astype(np.float32)


def stock(seed: int = 1, columns: int = N) -> Floats:
    """Stars: they gain some each day, and lose one now and then."""
    rng = np.random.default_rng(seed)
    gained = rng.poisson(rng.uniform(0.5, 30, columns), (DAYS, columns)) - (rng.random((DAYS, columns)) < 0.1)
    return (rng.integers(500, 50_000, columns) + gained.cumsum(axis=0)).astype(np.float32)


def panel(values: Floats, kind: Kind = "flow", sound: Floats | None = None) -> Panel:
    return Panel(
        "pypi_downloads" if kind == "flow" else "github_stars", kind, values, values if sound is None else sound
    )


def reading(values: Floats, kind: Kind = "flow", source: str = "", sound: Floats | None = None) -> Reading:
    return Reading(source or ("pypistats" if kind == "flow" else "dockerhub"), NIGHT, (panel(values, kind, sound),))


def verdicts(given_reading: Reading) -> dict[str, Verdict]:
    return {v.name: v for v in judge(given_reading)}


def violated(given_reading: Reading) -> set[str]:
    return {name for name, v in verdicts(given_reading).items() if v.state == "violated"}


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_source_rings_nothing_and_everything_is_judged(seed: int) -> None:
    for sound in (reading(flow(seed)), reading(stock(seed), "stock")):
        found = verdicts(sound)
        assert {v.state for v in found.values()} == {"ok"}, found
        assert set(found) == {"freshness", "truncation", "type_mix", "level"}


def test_every_source_of_the_catalogue_has_at_least_four_canaries() -> None:
    for source in {m.source for m in METRICS if m.source in SOURCES}:
        assert watched_metrics(source), source
        names = [name for name in CANARIES if ONLY.get(name, source) == source]
        assert len(names) >= 4, source
    assert set(MEANINGS) == set(CANARIES)
    assert set(ONLY) <= set(CANARIES)


# Freshness


@pytest.mark.parametrize(
    ("lag", "state"), [(0, "ok"), (STALE_DAYS, "ok"), (STALE_DAYS + 1, "violated"), (90, "violated")]
)
def test_a_feed_that_stands_still(lag: int, state: str) -> None:
    values = flow()
    values[DAYS - lag :] = np.nan
    found = verdicts(reading(values))["freshness"]
    assert found.state == state
    assert f"the newest is of {NIGHT - timedelta(days=lag)}" in found.reason
    assert (found.first_day, found.low, found.high) == (NIGHT, 0.5, None)


def test_half_a_feed_that_stands_still() -> None:
    values = flow()
    values[-30:, : N // 2 + 1] = np.nan
    assert "freshness" in violated(reading(values))
    values = flow()
    values[-30:, : N // 4] = np.nan
    assert violated(reading(values)) == set(), "a quarter that ends is the ledger's matter"


def test_a_feed_that_has_been_still_for_longer_than_anyone_looks_stays_stale() -> None:
    """A few series that lived on a little longer than the others do not end it, nor does their end."""
    values = flow()
    values[3:, 4:] = np.nan
    values[10:] = np.nan
    assert verdicts(reading(values))["freshness"].state == "violated"
    values[:3] = np.nan
    assert verdicts(replace(reading(values), was_stale=True))["freshness"].state == "violated"
    assert verdicts(reading(values))["freshness"].state == "not judged"
    values[:] = np.nan
    assert verdicts(replace(reading(values), was_stale=True))["freshness"].state == "violated"
    values[-3:, :4] = 100
    assert verdicts(replace(reading(values), was_stale=True))["freshness"].state == "ok", "it speaks again"


@pytest.mark.parametrize(
    ("nights", "state"), [(0, "not asked"), (STALE_DAYS, "not judged"), (STALE_DAYS + 1, "violated")]
)
def test_a_source_that_never_said_anything(nights: int, state: str) -> None:
    nothing = np.full((DAYS, 3), np.nan, np.float32)
    asked = np.arange(DAYS) >= DAYS - nights
    found = verdicts(Reading("npm", NIGHT, (replace(panel(nothing), asked=asked),)))
    assert found["freshness"].state == state
    assert {v.state for n, v in found.items() if n != "freshness"} == {"not asked" if not nights else "not judged"}


def test_nights_that_did_not_ask_make_nobody_stale() -> None:
    values = flow()
    values[-30:] = np.nan
    asked = np.ones(DAYS, bool)
    asked[-29:-3] = False
    found = verdicts(Reading("npm", NIGHT, (replace(panel(values), asked=asked),)))["freshness"]
    assert (found.state, found.value) == ("ok", 1.0)
    assert "that were asked for" in found.reason
    asked[-9:] = True
    broken = Reading("npm", NIGHT, (replace(panel(values), asked=asked),))
    assert "freshness" in violated(broken)
    asked[-1] = False
    unasked = verdicts(replace(broken, panels=(replace(panel(values), asked=asked),), was_stale=True))
    assert unasked["freshness"].state == unasked["truncation"].state == "not asked"


def test_every_scored_metric_of_a_source_must_come() -> None:
    """Stars come and forks have not for two months; or half of the forks do not."""
    forks = stock(2)
    forks[-60:] = np.nan
    both = Reading("github", NIGHT, (panel(stock(), "stock"), Panel("github_forks", "stock", forks, forks)))
    assert violated(both) == {"freshness"}
    assert "github_forks" in verdicts(both)["freshness"].reason
    forks = stock(2)
    forks[-14:, : N // 2] = np.nan
    both = Reading("github", NIGHT, (panel(stock(), "stock"), Panel("github_forks", "stock", forks, forks)))
    assert violated(both) == {"truncation"}
    assert "github_forks" in verdicts(both)["truncation"].reason


def test_a_witness_that_falls_silent_rings_by_its_absence_alone() -> None:
    gained = flow()
    witness = Panel("github_stars_gained", "flow", gained, gained)
    sound = Reading("github", NIGHT, (panel(stock(), "stock"),), also=(witness,))
    assert violated(sound) == set()
    gained[-7:] *= 0.01
    assert violated(sound) == set(), "no level of it is judged here"
    gained[-8:] = np.nan
    assert violated(sound) == {"freshness"}


def test_what_a_stand_in_states_is_no_sign_of_life() -> None:
    own = flow()
    own[-20:] = np.nan
    filled = Reading("pypistats", NIGHT, (replace(panel(flow()), own=own),))
    assert violated(filled) == {"freshness"}
    assert verdicts(filled)["level"].state == "ok"


def test_one_night_without_a_source_is_a_gap_and_breaks_nothing() -> None:
    for values, kind in ((flow(), "flow"), (stock(), "stock")):
        values[-1] = np.nan
        assert violated(reading(values, kind)) == set()  # type: ignore[arg-type]
        values[-10] = np.nan
        assert violated(reading(values, kind)) == set()  # type: ignore[arg-type]


# Truncation


def test_ranges_that_are_cut_leave_holes() -> None:
    values = flow()
    for week in range(DAYS - 7, DAYS - 42, -7):
        values[week - 4 : week, 5:] = np.nan  # some packages are not affected, so the days exist
    found = verdicts(reading(values))["truncation"]
    assert found.state == "violated"
    assert found.value == pytest.approx((3 * N + 4 * 5) / (7 * N))


def test_an_alphabet_that_is_cut() -> None:
    values = flow()
    values[-14:, N // 2 :] = np.nan
    assert "truncation" in violated(reading(values))


def test_a_week_that_nobody_has_is_no_truncation() -> None:
    values = flow()
    values[DAYS - 14 : DAYS - 7] = np.nan
    assert verdicts(reading(values))["truncation"].state == "not judged"


def crawl_npm(kept_days: int) -> Floats:
    """Return what weekly slices of the simulated npm bring when an answer keeps its newest days alone, of late."""
    names = [f"package-{n}" for n in range(30)]
    entities = tuple(Entity(n, name, name, (name,)) for n, name in enumerate(names))
    values = np.full((DAYS, len(names)), np.nan, np.float32)
    for week in range(DAYS // 7):
        last = NIGHT - timedelta(days=7 * week)
        whole = Npm(make_world())

        def answer(request: Request, npm: Npm = whole, last: date = last) -> Response:
            body = npm.respond(request, token=None, now=NOW, night=last).json()
            for series in body.values():
                if last > NIGHT - timedelta(days=21):
                    series["downloads"] = series["downloads"][-kept_days:]
                    series["start"] = series["downloads"][0]["day"]
            return ok(body)

        found, _ = run(
            SOURCES["npm"].crawl(Batch("npm", "range", last, last - timedelta(days=6), last, entities)), answer
        )
        assert bool(found.gaps) == (kept_days < 7 and week < 3)
        values[(found.day - np.datetime64(NIGHT - timedelta(days=DAYS - 1), "D")).astype(int), found.entity_id] = (
            found.value
        )
    return values


@pytest.mark.parametrize(("kept_days", "state"), [(7, "ok"), (3, "violated")])
def test_an_npm_that_cuts_its_ranges(kept_days: int, state: str) -> None:
    values = crawl_npm(kept_days)
    values[:, 0] = 100.0  # one package comes whole, so each day exists
    assert verdicts(reading(values, source="npm"))["truncation"].state == state


@pytest.mark.parametrize(("night", "state"), [(date(2026, 2, 20), "ok"), (date(2026, 3, 20), "violated")])
def test_the_simulated_pypistats_whose_feed_ends(night: date, state: str) -> None:
    """The demo's world: real series, whose last day is 2026-02-28; every answer is a 200."""
    world = load_world()
    upstream = PyPIStats(world, windows=())
    entities = tuple(Entity(n, name, name, (name,)) for n, name in enumerate(world.packages))
    batch = Batch("pypistats", "overall", night, night - timedelta(days=DAYS - 1), night, entities)

    def answer(request: Request) -> Response:
        return upstream.respond(request, token=None, now=NOW, night=night)

    found, _ = run(SOURCES["pypistats"].crawl(batch), answer)
    values = np.full((DAYS, len(entities)), np.nan, np.float32)
    values[(found.day - np.datetime64(batch.start, "D")).astype(int), found.entity_id] = found.value
    told = verdicts(Reading("pypistats", night, (panel(values),)))
    assert {name: v.state for name, v in told.items() if v.state != "ok"} == (
        {}
        if state == "ok"
        else {"freshness": "violated", "truncation": "not judged", "type_mix": "not judged", "level": "not judged"}
    )


# Type mix


@pytest.mark.parametrize("zero_days", [7, 20])
def test_a_feed_of_zeros(zero_days: int) -> None:
    values = flow()
    values[-zero_days:] = 0
    found = verdicts(reading(values, sound=_without(values, flow(), zero_days)))
    assert found["type_mix"].state == "violated"
    assert found["type_mix"].value == 0
    assert found["type_mix"].first_day == NIGHT - timedelta(days=6)


def test_a_cache_that_is_stuck() -> None:
    values = stock()
    values[-7:] = values[-8]
    assert violated(reading(values, "stock")) == {"type_mix"}


def test_a_source_in_which_little_ever_moves_is_not_judged() -> None:
    values = np.ones((DAYS, N), np.float32)
    assert verdicts(reading(values, "stock"))["type_mix"].state == "not judged"


@pytest.mark.parametrize("seed", range(20))
def test_a_dozen_series_that_all_move_are_enough(seed: int) -> None:
    values = stock(seed, columns=11)
    values += np.arange(DAYS, dtype=np.float32)[:, None]
    assert {name for name, v in verdicts(reading(values, "stock")).items() if v.state == "ok"} == {
        "freshness", "truncation", "type_mix",
    }  # fmt: skip
    values[-7:] = values[-8]
    assert violated(reading(values, "stock")) == {"type_mix"}
    values[-10:] = np.nan
    assert violated(reading(values, "stock")) == {"freshness"}
    assert {v.state for v in judge(reading(stock(seed, columns=7), "stock"))} == {"not judged"}


def test_few_weeks_are_no_measure() -> None:
    values = flow()
    values[: DAYS - 28] = np.nan
    found = verdicts(reading(values))
    assert (found["type_mix"].state, found["level"].state) == ("not judged", "not judged")
    assert found["type_mix"].value is None


def _without(values: Floats, sound: Floats, days: int) -> Floats:
    """Return what stays sound when the nights of the last days were violated: nothing of these days."""
    kept = sound.copy()
    kept[-days:] = np.nan
    return kept


def test_what_is_broken_does_not_become_its_own_measure() -> None:
    broken = flow()
    broken[-63:] *= 0.1
    assert verdicts(reading(broken))["level"].state == "ok", "nine of the weeks before are as low"
    kept = verdicts(reading(broken, sound=_without(broken, broken, 63)))["level"]
    assert kept.state == "violated"
    assert kept.value == pytest.approx(0.1, rel=0.3)


# Level


@pytest.mark.parametrize("factor", [0.3, 2.5])
def test_everything_shifts_together(factor: float) -> None:
    values = flow()
    values[-7:] *= factor
    found = verdicts(reading(values))["level"]
    assert found.state == "violated"
    assert found.value == pytest.approx(factor, rel=0.3)
    assert (found.low, found.high) == LEVEL


def test_a_few_that_take_off_or_fall_are_no_shift() -> None:
    values = flow()
    values[-7:, :5] *= 50
    values[-7:, 5:10] = 0
    assert violated(reading(values)) == set()
    stars = stock()
    stars[-3:, :3] *= 2
    assert violated(reading(stars, "stock")) == set()


@pytest.mark.parametrize("factor", [0.0, 0.9, 2.0])
def test_levels_that_are_torn(factor: float) -> None:
    values = stock()
    values[-2:, : N // 5] *= factor
    assert "level" in violated(reading(values, "stock"))


def test_the_second_metric_of_a_source_can_ring_too() -> None:
    forks = stock(2)
    forks[-7:] = forks[-8]
    both = Reading("github", NIGHT, (panel(stock(), "stock"), Panel("github_forks", "stock", forks, forks)))
    found = verdicts(both)["type_mix"]
    assert found.state == "violated"
    assert "github_forks" in found.reason


@pytest.mark.parametrize("factor", [0.2, 2.0])
def test_levels_that_stay_torn_are_held_against_what_was_sound(factor: float) -> None:
    values, sound = stock(), stock()
    values[-20:] *= factor
    sound[-20:] = np.nan
    assert verdicts(reading(values, "stock", sound=sound))["level"].state == "ok", "nothing moves within the week"
    standing = replace(reading(values, "stock", sound=sound), standing=frozenset({"level"}))
    assert verdicts(standing)["level"].state == "violated"
    assert "since they were sound" in verdicts(standing)["level"].reason
    back = replace(reading(stock(), "stock", sound=sound), standing=frozenset({"level"}))
    assert verdicts(back)["level"].state == "ok"


def test_an_alarm_is_held_against_weeks_older_than_the_canaries_look_back() -> None:
    values = flow() * np.float32(0.1)
    nothing = np.full((20 * 7, N), np.nan, np.float32)
    sound = np.concatenate([flow()[:70], nothing])
    broken = Reading("pypistats", NIGHT, (panel(values, sound=sound),), standing=frozenset({"level"}))
    assert verdicts(broken)["level"].value == pytest.approx(0.1, rel=0.3)
    assert violated(broken) == {"level"}


def test_an_alarm_does_not_end_for_want_of_evidence() -> None:
    """Too few series, too few weeks, no answer, or one of two metrics gone: what rang rings on."""
    names = frozenset({"type_mix", "level", "truncation"})
    few = replace(reading(flow(columns=5)), standing=names)
    assert violated(few) == names
    assert verdicts(few)["level"].value is None
    assert "nothing has refuted it" in verdicts(few)["level"].reason
    assert violated(replace(reading(flow()), standing=names)) == set(), "sound weeks do end it"
    unasked = replace(few, panels=(replace(few.panels[0], asked=np.zeros(DAYS, bool)),))
    assert violated(unasked) == names - {"truncation"}, "who is not asked cuts nothing off"

    forks = stock(2)
    gone = forks.copy()
    gone[-40:] = np.nan
    both = Reading("github", NIGHT, (panel(stock(), "stock"), Panel("github_forks", "stock", gone, forks)))
    assert verdicts(both)["level"].state == "ok"
    assert verdicts(replace(both, standing=names))["level"].state == "violated"


# The past


def read_anew(factor: float, columns: int = 10, wrong: int = 10, days: int = DAYS) -> Reading:
    before = flow(columns=columns, mean=40.0)
    after = before.copy()
    after[-days:, :wrong] = np.floor(after[-days:, :wrong] * factor)
    return replace(reading(flow()), before=before, after=after)


@pytest.mark.parametrize(
    ("factor", "state"), [(1.0, "ok"), (0.9, "ok"), (1.2, "ok"), (0.7, "violated"), (1.4, "violated"), (0, "violated")]
)
def test_a_past_that_is_told_otherwise(factor: float, state: str) -> None:
    found = verdicts(read_anew(factor))["rewrite"]
    assert found.state == state
    assert f"{factor:.2f} times" in found.reason or factor not in (0, 1)
    assert found.first_day == NIGHT


def test_a_few_pasts_or_a_few_days_that_change_are_no_matter() -> None:
    assert verdicts(read_anew(0.1, wrong=2))["rewrite"].state == "ok"
    assert verdicts(read_anew(0.1, wrong=3))["rewrite"].state == "violated"
    assert verdicts(read_anew(0.1, days=50))["rewrite"].state == "ok", "most of its days are as they were"
    assert verdicts(read_anew(0.1, days=70))["rewrite"].state == "violated"
    assert verdicts(read_anew(0.1, columns=7, wrong=7))["rewrite"].state == "not judged"
    empty = replace(reading(flow()), before=np.full((DAYS, 9), np.nan, np.float32), after=flow(columns=9))
    assert verdicts(empty)["rewrite"].state == "not judged", "nothing stood before"
    assert "rewrite" not in verdicts(reading(flow())), "who is never read anew has no such canary"


def test_new_projects_are_no_shift() -> None:
    values = flow()
    values[: DAYS - 7, N // 2 :] = np.nan
    assert verdicts(reading(values))["level"].state == "ok"


@pytest.mark.parametrize("seed", range(5))
def test_a_snapshot_that_is_taken_weekly_is_judged_like_one_of_every_night(seed: int) -> None:
    values = stock(seed)
    asked = (np.arange(DAYS)[:, None] + np.arange(N)) % 7 == 0
    weekly = np.where(asked, values, np.nan).astype(np.float32)
    assert {v.state for v in judge(reading(hold(weekly, 7), "stock"))} == {"ok"}
    assert "truncation" in violated(reading(weekly, "stock"))
    stuck = weekly.copy()
    for column in range(N):
        rows = np.flatnonzero(asked[:, column])
        stuck[rows[-3:], column] = stuck[rows[-4], column]
    assert violated(reading(hold(stuck, 7), "stock")) == {"type_mix"}
    weekly[-16:] = np.nan
    assert "freshness" in violated(reading(hold(weekly, 7), "stock"))


@pytest.mark.parametrize("missed", [3, 5, 8, 14])
def test_missed_nights_cut_nothing_off_a_weekly_snapshot(missed: int) -> None:
    """Nobody is asked for some nights; then who is overdue is. No night of the weeks after calls that a cut."""
    days = DAYS + 40
    rng = np.random.default_rng(3)
    true = rng.integers(500, 5000, N) + rng.poisson(3, (days, N)).cumsum(axis=0)
    values = np.full((days, N), np.nan, np.float32)
    last = np.full(N, -99)
    for day in range(days):
        if not DAYS <= day < DAYS + missed:
            due = ((np.arange(N) + day) % 7 == 0) | (day - last > 7)
            values[day, due], last[due] = true[day, due], day
    for night in range(DAYS + missed, days):
        held = hold(values[night - DAYS + 1 : night + 1], 7)
        asked = np.isfinite(values[night - DAYS + 1 : night + 1]).any(axis=1)
        weekly = Reading("depsdev", NIGHT, (replace(panel(held, "stock"), asked=asked),))
        assert violated(weekly) == set(), night - DAYS


def test_a_nightly_snapshot_is_not_held() -> None:
    values = stock()
    values[5] = np.nan
    np.testing.assert_array_equal(hold(values, 1), values)
    assert rhythm_of(METRIC_BY_NAME["github_stars"]) == 1
    assert rhythm_of(METRIC_BY_NAME["npm_downloads"]) == 1, "dated values come for every day, however seldom asked"
    assert rhythm_of(METRIC_BY_NAME["github_releases"]) in (1, 7)


# Hacker News


def hacker_news(seed: int = 3, per_day: float = 12.0) -> Reading:
    """Stories and their points: few projects have one, points are as skewed as they are."""
    rng = np.random.default_rng(seed)
    stories = rng.poisson(per_day / N, (DAYS, N)).astype(np.float32)
    points = np.where(stories > 0, stories * np.exp(rng.normal(3.0, 1.2, (DAYS, N))).round() + 1, 0).astype(np.float32)
    return Reading("hackernews", NIGHT, (Panel("hn_points", "flow", points, points),), stories)


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_hacker_news_rings_nothing(seed: int) -> None:
    found = verdicts(hacker_news(seed))
    assert violated(hacker_news(seed)) == set(), found
    assert found["points_per_story"].state == found["level"].state == "ok"


def test_stories_without_their_points() -> None:
    sound = hacker_news()
    assert sound.stories is not None
    points = sound.panels[0].values.copy()
    points[-10:] = sound.stories[-10:]  # every story has the one point it begins with
    broken = replace(sound, panels=(Panel("hn_points", "flow", points, points),))
    assert "points_per_story" in violated(broken)
    assert verdicts(broken)["points_per_story"].first_day == NIGHT - timedelta(days=9)


def test_a_search_that_finds_nothing_any_more() -> None:
    sound = hacker_news()
    assert sound.stories is not None
    stories, points = sound.stories.copy(), sound.panels[0].values.copy()
    stories[-7:], points[-7:] = 0, 0
    assert "level" in violated(replace(sound, stories=stories, panels=(Panel("hn_points", "flow", points, points),)))


def test_too_few_stories_are_not_judged() -> None:
    found = verdicts(hacker_news(per_day=0.5))
    assert (found["points_per_story"].state, found["level"].state) == ("not judged", "not judged")


# Two witnesses


def two_witnesses(capture: float, wrong: float = 0.0, weeks: int = 200) -> Reading:
    rng = np.random.default_rng(5)
    moved = rng.poisson(rng.uniform(5, 300, weeks)).astype(np.float64)
    history = rng.binomial(moved.astype(int), min(capture, 1.0)) * max(1.0, capture)
    history[: int(wrong * weeks)] *= 3
    return Reading("github", NIGHT, (panel(stock(), "stock"),), None, history, moved)


@pytest.mark.parametrize(
    ("capture", "state"), [(1.0, "ok"), (0.95, "ok"), (0.7, "violated"), (0.2, "violated"), (2.0, "violated")]
)
def test_events_that_get_lost(capture: float, state: str) -> None:
    found = verdicts(two_witnesses(capture))["capture"]
    assert found.state == state
    assert found.value == pytest.approx(capture, rel=0.05)
    assert (found.low, found.high) == CAPTURE


def test_some_histories_that_differ_are_usual_and_many_are_not() -> None:
    assert violated(two_witnesses(1.0, wrong=0.1)) == set()
    assert "history_vs_count" in violated(two_witnesses(1.0, wrong=0.3))


def test_without_both_witnesses_nothing_is_judged() -> None:
    found = verdicts(two_witnesses(0.1, weeks=SERIES_MIN - 1))
    assert (found["capture"].state, found["history_vs_count"].state) == ("not judged", "not judged")
    assert verdicts(reading(stock(), "stock", "github"))["capture"].state == "not judged"


def test_sound_weeks_end_what_the_weeks_before_are_full_of() -> None:
    sound = two_witnesses(1.0, weeks=200)
    weeks = np.repeat([0, 1, 2, 3], 50)
    past = np.where(weeks > 0, 0.1, 1.0)
    mended = replace(sound, history=sound.history * past, weeks=weeks)
    assert violated(mended) == set()
    assert "of the newest" in verdicts(mended)["capture"].reason
    assert violated(replace(mended, weeks=weeks[::-1])) == {"capture", "history_vs_count"}
    # Ten of the newest week are too few: the week before belongs to them.
    few = np.where(np.arange(200) < 10, 0, weeks + 1)
    assert violated(replace(mended, weeks=few)) == set()
    bad = (np.arange(200) < 15) | (np.arange(200) >= 50)
    fifteen = np.where(np.arange(200) < 15, 0, weeks + 1)
    told = replace(mended, history=sound.history * np.where(bad, 3.0, 1.0), weeks=fifteen)
    assert "history_vs_count" in violated(told), "nor do the few of the newest week not count"
    assert violated(replace(mended, history=sound.history * np.where(few > 0, 0.1, 1.0), weeks=few)) == {
        "capture", "history_vs_count",
    }  # fmt: skip


def test_a_second_count() -> None:
    own = np.linspace(200, 90_000, 50)
    base = Reading("depsdev", NIGHT, (panel(stock(), "stock"),), own=own, other=own * 0.8)
    assert verdicts(base)["second_count"].state == "ok"
    assert verdicts(replace(base, other=np.zeros(50)))["second_count"].state == "violated"
    assert verdicts(replace(base, other=own * np.nan))["second_count"].state == "not judged"


@given(
    hnp.arrays(np.float64, 8, elements=st.floats(-1e6, 1e6)),
    hnp.arrays(np.float64, 8, elements=st.floats(-1e6, 1e6)),
)
def test_differences_are_symmetric_and_bounded(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> None:
    found = relative_difference(a, b)
    np.testing.assert_array_equal(found, relative_difference(b, a))
    assert ((found >= 0) & (found <= 2)).all()


# The shipped world: real series


def test_real_series_ring_only_where_their_archive_stands_still() -> None:
    """Nights of a year of the demo's world, every fourth: the rate of false alarms that ADR 0017 states."""
    world = load_world()
    downloads, stars, forks = (
        np.where(a >= 0, a, np.nan).T.astype(np.float32) for a in (world.downloads, world.stars, world.forks)
    )
    points, stories = np.zeros((2, world.days, 1), np.float32)
    for story in world.stories:
        day = (story.created_at.date() - world.first_day).days
        if 0 <= day < world.days:
            points[day] += story.points
            stories[day] += 1
    rang: dict[str, list[date]] = {}
    judged: Counter[str] = Counter()
    for end in range(DAYS, world.days + 1, 4):
        night = world.first_day + timedelta(days=end - 1)
        last = slice(end - DAYS, end)
        for found in (
            Reading("pypistats", night, (panel(downloads[last]),)),
            Reading("hackernews", night, (panel(points[last]),), stories[last]),
            Reading(
                "github",
                night,
                (panel(stars[last], "stock"), Panel("github_forks", "stock", forks[last], forks[last])),
            ),
        ):
            for verdict in judge(found):
                if verdict.state == "violated":
                    rang.setdefault(f"{verdict.source} {verdict.name}", []).append(night)
                judged[f"{verdict.source} {verdict.name}"] += verdict.state != "not judged"
    assert set(rang) == {"pypistats freshness"}
    # The package totals of 2025-05-01 to 05-21 are missing, and all after 2026-02-28.
    assert all(date(2025, 5, 8) <= n <= date(2025, 5, 21) or n >= date(2026, 3, 8) for n in rang["pypistats freshness"])
    assert len(rang["pypistats freshness"]) == 10
    nights = len(range(DAYS, world.days + 1, 4))
    assert judged["github freshness"] == judged["github level"] == judged["github type_mix"] == nights
    assert (
        judged["hackernews level"] == judged["hackernews points_per_story"] == judged["pypistats freshness"] == nights
    )
    assert min(judged["pypistats level"], judged["pypistats truncation"]) > 0.8 * nights


# Anything


@given(
    hnp.arrays(
        np.float32,
        (DAYS, SERIES_MIN + 2),
        elements=st.sampled_from([np.nan, 0.0, 1.0, 60.0, 1e6, 1e30]),
        fill=st.sampled_from([np.float32(np.nan), np.float32(0), np.float32(70.0)]),
    ),
    st.sampled_from(["flow", "stock"]),
    st.sampled_from(["github", "hackernews", "npm", "depsdev"]),
)
def test_no_panel_breaks_a_canary(values: Floats, kind: Kind, source: str) -> None:
    stories = values if source == "hackernews" else None
    for verdict in judge(replace(reading(values, kind, source), stories=stories)):
        assert (verdict.value is None) == (verdict.state == "not judged")
        assert verdict.value is None or np.isfinite(verdict.value)
        assert verdict.reason
        assert verdict.first_day <= NIGHT


def test_what_a_violation_keeps_out() -> None:
    assert list_doubters("pypi_downloads") == ["type_mix", "points_per_story", "level", "rewrite"]
    assert list_doubters("github_stars") == list_doubters("pypi_downloads"), "two witnesses differ on the gains alone"
    assert set(list_doubters("github_stars_gained")) - set(list_doubters("github_stars")) == {
        "capture", "history_vs_count",
    }  # fmt: skip
    assert keeps_out("second_count", "depsdev_stars")
    assert not keeps_out("second_count", "depsdev_releases")
    assert not keeps_out("freshness", "github_stars")
    assert set(CANARIES) >= ABSENCE


def test_the_weeks_of_a_baseline_are_sound_ones() -> None:
    def since(first: int, last: int) -> KeptOut:
        days = [NIGHT - timedelta(days=n) for n in (first, last)]
        return KeptOut((Episode(1, 2, 3, *days),))

    assert count_sound_days(KeptOut(), NIGHT) == DAYS
    assert count_sound_days(since(300, 260), NIGHT) == DAYS, "longer ago than it looks back"
    assert count_sound_days(since(13, 7), NIGHT) == DAYS + 7
    assert count_sound_days(since(14, 13), NIGHT) == DAYS + 14
    assert count_sound_days(since(6, 0), NIGHT) == DAYS, "the judged week is none of them"
    assert count_sound_days(since(206, 0), NIGHT) == DAYS + 203


def test_an_empty_universe() -> None:
    empty = reading(np.empty((DAYS, 0), np.float32))
    assert {v.state for v in judge(empty)} == {"not judged"}
    assert {v.state for v in judge(replace(empty, was_stale=True))} == {"not judged"}


def test_violations_are_said_by_source() -> None:
    def row(source: str, name: str, state: str) -> CanaryRow:
        return CanaryRow(source, name, NIGHT, state, 0.0, MOVED_MIN, None, "why", NIGHT, 1, NOW)

    rows = [row("npm", "level", "violated"), row("npm", "type_mix", "violated"), row("github", "level", "ok")]
    assert list_violated(rows) == ["npm (level, type_mix)"]
