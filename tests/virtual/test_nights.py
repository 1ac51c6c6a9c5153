"""A year of nights in virtual time: planner, budgets, workers, memory broker and upstreams with faults, by seed.

What holds after every year: nobody was convicted, every night ended, what stands in the books is what a year without
faults reads, and what such a year reads and this one lacks stands in the ledger with its reason. That is little: a
value is lost only where every try of a night met a fault, or a feed was not through yet when the year ended.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from astrid.catalog import METRIC_BY_ID, METRIC_BY_NAME, ORIGIN_BY_ID
from astrid.models import Gap
from astrid.pipeline.plan import NIGHT_HOURS, NOT_ASKED
from astrid.simulators.scenarios import CALM
from astrid.sources import SOURCES
from tests.conftest import LONG, SEED
from tests.virtual.books import Books
from tests.virtual.year import CALM_YEAR, CHANCES, Weather, Year, foul, live, twin_of

NIGHTS = 40
YEARS = 28 if LONG else 6
"""1,000 nights in the long suite, 200 in the fixed slice, missed ones not counted."""

LOST_MAX = dict(zip(CHANCES, (0.001, 0.003, 0.03), strict=True))
"""The most that a foul year may lack of what a calm one has, by its weather."""
EXTRA_MAX = 0.01
"""The most that it may have beside: what is asked for once a week comes on another night."""

SEEDS = [SEED + n for n in range(YEARS)]


def compare(foul_year: Books, calm_year: Books, chance: float) -> list[str]:
    """Return what the foul year has that the calm one does not, what it lost without a word, and whether it lost much.

    What nobody was asked for, for want of hours or because a feed stands still, is not lost.
    """
    wrong = []
    for key, (value, origin_id) in foul_year.values.items():
        expected = calm_year.values.get(key)
        if expected is not None and expected[1] == origin_id and expected[0] != value:
            wrong.append(f"{_name(key)}: {value} from {ORIGIN_BY_ID[origin_id].name}, a calm year reads {expected[0]}")
    lost: Counter[str] = Counter()
    for key in calm_year.values.keys() - foul_year.values.keys():
        if key in foul_year.gaps:
            reason = foul_year.gaps[key][0].reason
            lost[reason] += not reason.startswith(NOT_ASKED)
        elif not _comes_along(key, foul_year) and not _came_lately(key, foul_year):
            wrong.append(f"{_name(key)}: neither a value nor a gap")
    if lost.total() > LOST_MAX[chance] * len(calm_year.values):
        wrong.append(f"{lost.total()} of {len(calm_year.values)} values are lost, most of all {lost.most_common(3)}")
    extra = foul_year.values.keys() - calm_year.values.keys()
    if len(extra) > EXTRA_MAX * len(calm_year.values):
        wrong.append(f"{len(extra)} values are there that a calm year of {len(calm_year.values)} does not have")
    wrong += [f"{_name(key)} is there, and in no calm year" for key in extra if not _is_rotated(key)]
    return wrong


def _is_rotated(key: tuple[int, int, date]) -> bool:
    """Tell whether a metric is not asked for every night."""
    metric = METRIC_BY_ID[key[0]]
    tasks = SOURCES[metric.source].tasks.values()
    return any(metric.name in (*t.metrics, *t.also) and (t.cadence_days > 1 or t.reread_days) for t in tasks)


def _comes_along(key: tuple[int, int, date], year: Books) -> bool:
    """Tell whether nobody expects a value: it comes with another one, and that did not come from the same place."""
    metric = METRIC_BY_ID[key[0]]
    for task in SOURCES[metric.source].tasks.values():
        if metric.name in task.also:
            leading = year.values.get((METRIC_BY_NAME[task.metrics[0]].metric_id, *key[1:]))
            return leading is None or ORIGIN_BY_ID[leading[1]].name != task.origin
    return False


def _came_lately(key: tuple[int, int, date], year: Books) -> bool:
    """Tell whether nobody expects a count yet: it is taken every few days, and the last turn came late."""
    metric_id, entity_id, day = key
    metric = METRIC_BY_ID[metric_id]
    return any(
        (metric_id, entity_id, day - timedelta(days=n)) in year.values
        for task in SOURCES[metric.source].tasks.values()
        if task.timing == "snapshot" and metric.name in task.metrics
        for n in range(1, task.cadence_days + 1)
    )


def _name(key: tuple[int, int, date]) -> str:
    metric_id, entity_id, day = key
    return f"{METRIC_BY_ID[metric_id].name} of {entity_id} on {day}"


def lived(seed: int) -> tuple[Year, list[str]]:
    """Live through a foul year and its calm twin; return the foul one and all that is wrong with it."""
    weather = foul(seed)
    year = live(seed, NIGHTS, weather)
    twin = live(seed, NIGHTS, twin_of(weather))
    chance = weather.scenario.probability
    wrong = [*year.books.wrong, *twin.books.wrong, *compare(year.books, twin.books, chance)]
    for which in (year, twin):
        if which.convictions:
            wrong.append(f"{which.convictions} requests convicted: {_examples(which)}")
    return year, wrong


def _examples(year: Year) -> list[object]:
    books = year.report["upstreams"].values()
    return [e for b in books for t in b["tokens"].values() for e in t["convictions"]["examples"]][:5]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_foul_year_loses_nothing_and_breaks_no_limit(seed: int) -> None:
    year, wrong = lived(seed)
    print(f"seed {seed}: {year.nights} nights, {year.requests} requests, faults {dict(year.faults)}")
    assert not wrong, f"seed {seed} (ASTRID_TEST_SEED={seed}): {len(wrong)} things are wrong, first {wrong[:5]}"
    assert year.nights > NIGHTS / 2
    assert year.faults, "a foul year without a fault shows nothing"
    assert bool(year.left_out) == (foul(seed).hours < NIGHT_HOURS), "short nights leave some out, others nobody"


def test_every_task_of_a_night_has_its_turn() -> None:
    """Whatever a night may ask for is asked for in some weather: what never runs is never tested."""
    down = Weather(replace(CALM, hn_search_down=True, pypi_stalls_days=14))
    planned = live(SEED, 8, CALM_YEAR).planned + (still := live(SEED, 8, down)).planned
    nightly = {f"{s.name}.{t.name}" for s in SOURCES.values() for t in s.tasks.values() if t.cadence_days}
    assert set(planned) == nightly
    requests = still.report["upstreams"]
    assert all(book["requests"] for name, book in requests.items() if name != "archive"), "an upstream was never asked"


@pytest.mark.parametrize("spoil", ["a third is lost", "a value is wrong", "a value is invented"])
def test_the_comparison_can_fail(spoil: str) -> None:
    calm = live(SEED, 3, CALM_YEAR).books
    spoilt = Books(random.Random(0), values=dict(calm.values), gaps=dict(calm.gaps))
    keys = sorted(key for key in calm.values if METRIC_BY_ID[key[0]].name == "github_stars")
    assert not compare(spoilt, calm, CHANCES[0])
    if spoil == "a third is lost":
        for metric_id, entity_id, day in keys[::3]:
            del spoilt.values[metric_id, entity_id, day]
            spoilt.gaps[metric_id, entity_id, day] = (Gap(entity_id, metric_id, day, "x", True), datetime.now(UTC))
    elif spoil == "a value is wrong":
        value, origin_id = spoilt.values[keys[0]]
        spoilt.values[keys[0]] = (value + 1, origin_id)
    else:
        metric_id, entity_id, day = keys[0]
        spoilt.values[metric_id, entity_id, day - timedelta(days=300)] = (1.0, 1)
    assert compare(spoilt, calm, CHANCES[0])


def test_a_seed_replays_exactly() -> None:
    first, second = (live(SEED, 6, foul(SEED)) for _ in range(2))
    assert first.requests == second.requests > 0
    assert first.trace.digest() == second.trace.digest()
    assert live(SEED + 1, 6, foul(SEED + 1)).trace.digest() != first.trace.digest()


def test_a_calm_year_has_every_value_that_its_nights_could_read() -> None:
    books = live(SEED, 5, CALM_YEAR).books
    assert not books.wrong
    snapshots = {k for k in books.values if METRIC_BY_ID[k[0]].name == "github_stars"}
    assert len(snapshots) == 60 * 5
