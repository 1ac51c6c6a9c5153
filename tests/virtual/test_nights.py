"""A year of nights in virtual time: planner, budgets, workers, memory broker and upstreams with faults, by seed.

What holds after every year: nobody was convicted, every night ended, what stands in the books is what a year without
faults reads, and what such a year reads and this one lacks stands in the ledger with its reason.
"""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from astrid.catalog import METRIC_BY_ID, METRIC_BY_NAME, ORIGIN_BY_ID
from astrid.pipeline.plan import NIGHT_HOURS
from astrid.sources import SOURCES
from tests.conftest import LONG, SEED
from tests.virtual.books import Books
from tests.virtual.year import CALM_YEAR, Year, foul, live, twin_of

NIGHTS = 40
YEARS = 25 if LONG else 5
"""1,000 nights in the long suite, 200 in the fixed slice."""

SEEDS = [SEED + n for n in range(YEARS)]


def compare(foul_year: Books, calm_year: Books) -> list[str]:
    """Return what the foul year has that the calm one does not, and what it lost without a word."""
    wrong = []
    for key, (value, origin_id) in foul_year.values.items():
        expected = calm_year.values.get(key)
        if expected is not None and expected[1] == origin_id and expected[0] != value:
            wrong.append(f"{_name(key)}: {value} from {ORIGIN_BY_ID[origin_id].name}, a calm year reads {expected[0]}")
    for key in calm_year.values:
        known = key in foul_year.values or key in foul_year.gaps
        if not known and not _comes_along(key, foul_year) and not _came_lately(key, foul_year):
            wrong.append(f"{_name(key)}: neither a value nor a gap")
    return wrong


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
    wrong = [*year.books.wrong, *twin.books.wrong, *compare(year.books, twin.books)]
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
