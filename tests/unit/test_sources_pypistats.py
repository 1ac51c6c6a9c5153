"""pypistats' series, answered by hand, by recorded answers and by the simulator."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError, Unavailable
from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.pypistats import PyPIStats
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.pypistats import CONTRADICTION, FAILED_IMPORT, crawl, judge_days, parse_overall
from astrid.sources.source import PATIENCE
from tests.by_fetcher import crawl_batches
from tests.by_hand import BROKEN, JSON, mostly, mutated, ok, run, sound, survives, table
from tests.synthetic_world import FIRST_DAY, NIGHT, make_world

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "pypistats"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
DAY = date(2026, 3, 31)
DOWNLOADS, WITH_MIRRORS = 30, 31


def batch_of(*packages: str, days: int = 3, attempt: int = 0, end: date = DAY) -> Batch:
    entities = tuple(Entity(n, p, p, (p,)) for n, p in enumerate(packages))
    return Batch("pypistats", "overall", end, end - timedelta(days=days - 1), end, entities, attempt=attempt)


def row(days_ago: int, downloads: Any, category: Any = "without_mirrors") -> dict[str, Any]:
    return {"category": category, "date": (DAY - timedelta(days=days_ago)).isoformat(), "downloads": downloads}


def series(package: str, *rows: Any) -> Response:
    return ok({"data": list(rows), "package": package, "type": "overall_downloads"})


def test_values_and_both_kinds_of_gaps() -> None:
    batch = batch_of("a", "b", days=4)
    answers = [
        series("a", row(3, 10), row(1, 12), row(9, 1), row(1, 99, "with_mirrors")),
        series("b", *[row(n, n) for n in range(4)]),
    ]
    found, requests = run(crawl(batch), answers)
    assert table(sound(found, batch)) == {
        (0, DOWNLOADS, DAY - timedelta(days=3)): 10.0,
        (0, DOWNLOADS, DAY - timedelta(days=1)): 12.0,
        (0, WITH_MIRRORS, DAY - timedelta(days=1)): 99.0,
        **{(1, DOWNLOADS, DAY - timedelta(days=n)): float(n) for n in range(4)},
    }
    mirrored = [g.day for g in found.gaps if g.metric_id == WITH_MIRRORS]
    assert mirrored == [DAY - timedelta(days=n) for n in (3, 2, 0)], "b never states them and owes none"
    assert [(g.day, g.reason, g.retry) for g in found.gaps if g.metric_id == DOWNLOADS] == [
        (DAY - timedelta(days=2), "the feed has no row for this day", True),
        (DAY, "the feed ends with 2026-03-30", True),
    ]
    assert [r.path for r in requests] == ["/api/packages/a/overall", "/api/packages/b/overall"]
    assert requests[0].params == (), "one answer holds both"


@pytest.mark.parametrize(
    ("counts", "failed"),
    [
        ([500, 0, 400], [1]),
        ([500, 400, 0], [2]),
        ([500, 0, 0, 400], [1, 2]),
        ([50, 0, 400], []),
        ([500, 0, 40], []),
        ([0, 500], []),
        ([0, 0, 0], []),
    ],
)
def test_a_zero_beside_days_of_many_downloads_is_no_count(counts: list[int], failed: list[int]) -> None:
    days = len(counts)
    batch = batch_of("a", days=days)
    found, _ = run(crawl(batch), [series("a", *(row(days - 1 - n, c) for n, c in enumerate(counts)))])
    sound(found, batch)
    assert [(g.day, g.retry) for g in found.gaps] == [(DAY - timedelta(days=days - 1 - n), True) for n in failed]
    assert {g.reason for g in found.gaps} <= {FAILED_IMPORT}
    assert len(found) == days - len(failed)


def test_an_empty_feed() -> None:
    found, _ = run(crawl(batch_of("a", days=1)), [series("a")])
    assert [(g.reason, g.retry) for g in found.gaps] == [("the feed ends with None", True)]


def test_an_unknown_package_is_not_asked_for_again() -> None:
    batch = batch_of("a", "b", days=1)
    found, _ = run(crawl(batch), [Response(404, {}, b"404"), series("b", row(0, 5))])
    assert table(sound(found, batch)) == {(1, DOWNLOADS, DAY): 5.0}
    assert [(g.entity_id, g.retry) for g in found.gaps] == [(0, False)]


@pytest.mark.parametrize("body", [b"<html><h1>404 Not Found</h1></html>", b"", b"4040", b'{"error": 404}'])
def test_a_404_that_is_not_the_sites_own_says_nothing(body: bytes) -> None:
    with pytest.raises(Malformed, match="answered 404"):
        run(crawl(batch_of("a", days=1)), [Response(404, {}, body)])
    found, _ = run(crawl(batch_of("a", days=1, attempt=PATIENCE)), [Response(404, {}, body)])
    assert [g.retry for g in found.gaps] == [True]


@pytest.mark.parametrize(("mirrored", "believed"), [(5, False), (49, False), (0, False), (50, True), (51, True)])
def test_fewer_downloads_with_mirrors_than_without_are_no_counts(mirrored: int, believed: bool) -> None:
    batch = batch_of("a", days=2)
    rows = [row(1, 50), row(0, 50), row(1, 60, "with_mirrors"), row(0, mirrored, "with_mirrors")]
    found, _ = run(crawl(batch), [series("a", *rows)])
    assert len(sound(found, batch)) == (4 if believed else 2)
    assert {(g.metric_id, g.day, g.reason, g.retry) for g in found.gaps} == (
        set() if believed else {(metric, DAY, CONTRADICTION, True) for metric in (DOWNLOADS, WITH_MIRRORS)}
    )


def test_what_is_doubtful_is_no_witness_of_a_failed_import() -> None:
    counts = {DAY - timedelta(days=n): c for n, c in ((2, 500), (1, 0), (0, 900))}
    assert judge_days(counts, list(counts))[DAY - timedelta(days=1)] == FAILED_IMPORT
    doubtful = judge_days(counts, list(counts), {DAY - timedelta(days=2)})
    assert doubtful == {DAY - timedelta(days=2): CONTRADICTION, DAY - timedelta(days=1): 0, DAY: 900}


@pytest.mark.parametrize("value", [None, -1, True, 1.5, "7", [], 10**12, 2**63])
def test_a_broken_row_is_a_gap_with_a_reason(value: Any) -> None:
    batch = batch_of("a", days=2)
    found, _ = run(crawl(batch), [series("a", row(1, value), row(0, 4))])
    assert table(sound(found, batch)) == {(0, DOWNLOADS, DAY): 4.0}
    assert [(g.day, g.retry) for g in found.gaps] == [(DAY - timedelta(days=1), True)]


@pytest.mark.parametrize(
    "bad",
    [
        None,
        5,
        "x",
        [],
        {},
        row(0, 5, None),
        row(0, 5, 7),
        row(0, 5) | {"date": None},
        row(0, 5) | {"date": "31.03.2026"},
        row(0, 5) | {"date": 20260331},
        row(0, 5) | {"date": "20260331"},
        row(0, 5) | {"date": "2026-W14-2"},
        row(0, 5) | {"date": "2026-03-31T00:00:00"},
        row(0, 5) | {"date": "٢٠٢٦-٠٣-٣١"},
    ],
)
def test_rows_of_any_form(bad: Any) -> None:
    assert parse_overall(series("a", bad, row(1, 4)), "a")[0] == {DAY - timedelta(days=1): 4}


def test_a_day_stated_twice() -> None:
    assert parse_overall(series("a", row(0, 5), row(0, 5)), "a")[0] == {DAY: 5}
    assert parse_overall(series("a", row(0, 5), row(0, 6), row(0, 5)), "a")[0] == {}


@pytest.mark.parametrize(
    "response",
    [
        *BROKEN,
        ok([]),
        ok({}),
        ok({"data": {}}),
        series("b"),
        ok({"data": []}),
        ok({"data": [], "package": ["x" * 9000]}),
    ],
)
def test_one_broken_package_does_not_take_the_others_with_it(response: Response) -> None:
    with pytest.raises(SourceError) as caught:
        run(crawl(batch_of("a", "c")), [response])
    assert isinstance(caught.value, Unavailable if response.status >= 500 else Malformed)
    assert len(str(caught.value)) < 300
    batch = batch_of("a", "c", days=1, attempt=PATIENCE)
    found, _ = run(crawl(batch), [response, series("c", row(0, 5))])
    assert table(sound(found, batch)) == {(1, DOWNLOADS, DAY): 5.0}
    assert [(g.entity_id, g.retry) for g in found.gaps] == [(0, True)]


def test_any_json() -> None:
    accepted = Counter[int]()
    fields = {"category": mostly("without_mirrors") | st.just("with_mirrors"), "date": mostly(str(DAY))}
    rows = st.lists(st.fixed_dictionaries(fields | {"downloads": mostly(5) | st.integers(0, 9)}) | JSON, max_size=4)

    @given(JSON, rows)
    def survive(whole: Any, data: Any) -> None:
        for attempt in (0, PATIENCE):
            batch = batch_of("a", attempt=attempt)
            for value in (whole, {"data": whole, "package": "a"}, {"data": data, "package": "a"}):
                accepted[survives(lambda b=batch: crawl(b), lambda _, v=value: ok(v), batch)] += 1

    survive()
    assert min(accepted[0], accepted[1]) > 30, accepted


def test_answers_with_anything_in_them() -> None:
    accepted = Counter[int]()
    whole = series("a", row(1, 5), row(0, 7), row(1, 6, "with_mirrors"), row(0, 9, "with_mirrors"))

    @given(mutated(json.loads(whole.body)), st.sampled_from((0, PATIENCE)))
    def survive(body: Any, attempt: int) -> None:
        batch = batch_of("a", attempt=attempt)
        accepted[survives(lambda: crawl(batch), lambda _: ok(body), batch)] += 1

    survive()
    assert min(accepted[0], accepted[3], accepted[4]) > 2, accepted


@needs_samples
def test_recorded_answer() -> None:
    counts, mirrored = parse_overall(Response(200, {}, (SAMPLES / "overall_pip.json").read_bytes()), "pip")
    assert mirrored == {date(2020, 5, 1): 2100139, date(2020, 5, 2): 1487218}
    assert counts == {date(2020, 5, 1): 2083472, date(2020, 5, 2): 1475979}


def ask(site: PyPIStats, request: Request, minute: int = 0) -> Response:
    now = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5, minutes=minute)
    return site.respond(request, token=None, now=now, night=NIGHT)


def test_against_the_simulator() -> None:
    batch = batch_of("alpha", "beta", "unknown", days=15, end=NIGHT)
    found, requests = run(crawl(batch), lambda r: ask(PyPIStats(make_world()), r))
    values = table(sound(found, batch))
    assert len(requests) == 3
    assert values[0, DOWNLOADS, NIGHT] == 100 + (NIGHT - FIRST_DAY).days
    assert len(values) == 15 + 4
    assert [sum(g.entity_id == n for g in found.gaps) for n in range(3)] == [0, 11, 15]
    assert {g.retry for g in found.gaps if g.entity_id == 1} == {True}
    assert {g.retry for g in found.gaps if g.entity_id == 2} == {False}


def test_against_a_simulator_that_misbehaves() -> None:
    site = PyPIStats(make_world(), scenario=replace(SCENARIOS["faults"], probability=0.6))
    for n in range(20):
        batch = batch_of("alpha", "beta", days=12, attempt=n % 5, end=NIGHT)
        survives(lambda b=batch: crawl(b), lambda r, m=n: ask(site, r, 2 * m), batch)


DAYS = 120


@pytest.mark.parametrize(
    ("kind", "probability"),
    [
        ("pypi_too_many", 0.3),
        ("pypi_no_data", 0.5),
        ("pypi_bad_counts", 0.5),
        ("pypi_contradiction", 0.5),
        ("pypi_stalls", 0.0),
        ("gzip_bomb", 0.3),
        ("proxy_not_found", 0.5),
    ],
)
def test_foul_weather_brings_no_false_value(kind: str, probability: float) -> None:
    """Through the fetcher and the budget: what is believed is what the world holds."""
    world = make_world()
    seen, met = 0, Counter[str]()
    for seed in range(6):
        scenario = replace(SCENARIOS[kind], probability=probability, seed=seed, pypi_mirrors=True)
        site = PyPIStats(world, scenario=scenario)
        batch = batch_of("alpha", "beta", "unknown", days=DAYS, end=NIGHT)
        crawled = crawl_batches([batch], site, NIGHT)
        assert site.limits.convictions() == 0
        assert not any("bug" in reason for reason in crawled.dead)
        met.update(site.limits.report()["faults"])
        for done, found in crawled.found:
            met.update(g.reason for g in found.gaps)
            for (n, metric, day), value in table(sound(found, done)).items():
                held = int(world.downloads[n, (day - FIRST_DAY).days])
                assert value == (held if metric == DOWNLOADS else held + round(held / 100))
                assert day <= site.newest_day(NIGHT)
                seen += 1
    assert seen > 500
    assert met[kind] > 3 or kind == "pypi_stalls"
    said = {
        "pypi_no_data": "the feed ends with None",
        "pypi_bad_counts": "the feed has no row for this day",
        "pypi_contradiction": CONTRADICTION,
        "pypi_stalls": f"the feed ends with {PyPIStats(world, scenario=SCENARIOS['pypi_stalls']).newest_day(NIGHT)}",
    }
    assert met[said.get(kind, kind)] > 3
