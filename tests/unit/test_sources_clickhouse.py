"""ClickHouse's copy of the download log, answered by hand and by the simulator."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError, TooLarge, Unavailable
from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.clickhouse import ClickHouse
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.clickhouse import MAX_ROWS, NO_COUNT, SOURCE, crawl, parse_rows
from astrid.sources.source import Task, days_between
from tests.by_fetcher import crawl_batches
from tests.by_hand import BROKEN, JSON, mostly, mutated, run, sound, survives, table
from tests.synthetic_world import FIRST_DAY, NIGHT, make_world
from tests.virtual.worlds import make_world as make_small_world
from tests.virtual.year import Weather, live

DAY = date(2026, 3, 31)
DOWNLOADS = 30
BATCH = Batch("clickhouse", "daily", DAY, DAY - timedelta(days=1), DAY, (Entity(1, "a", "a", ("a",)),))


def lines(*rows: Any) -> Response:
    return Response(200, {}, b"".join(json.dumps(r).encode() + b"\n" for r in rows))


def row(days_ago: int, downloads: Any, project: Any = "a") -> dict[str, Any]:
    return {"project": project, "date": (DAY - timedelta(days=days_ago)).isoformat(), "downloads": downloads}


@pytest.mark.parametrize(("one", "two"), [(7, 8), ("7", "8")])
def test_values(one: Any, two: Any) -> None:
    found, requests = run(crawl(BATCH), [lines(row(1, one), row(0, two)), lines({"n": "2"})])
    assert table(sound(found, BATCH)) == {(1, DOWNLOADS, DAY - timedelta(days=1)): 7.0, (1, DOWNLOADS, DAY): 8.0}
    assert found.gaps == ()
    assert set(found.origin_id.tolist()) == {6}
    assert {r.method for r in requests} == {"POST"}
    assert b"BETWEEN '2026-03-30' AND '2026-03-31'" in (requests[0].content or b"")


def test_a_day_without_a_row_is_a_gap() -> None:
    found, _ = run(crawl(BATCH), [lines(row(0, 8)), lines({"n": 1})])
    assert [(g.day, g.retry) for g in sound(found, BATCH).gaps] == [(DAY - timedelta(days=1), False)]
    found, _ = run(crawl(BATCH), [lines(), lines({"n": 0})])
    assert (len(found), len(found.gaps)) == (0, 2)


def test_a_result_that_was_cut_is_noticed() -> None:
    with pytest.raises(TooLarge, match="1 of 2 rows"):
        run(crawl(BATCH), [lines(row(0, 8)), lines({"n": 2})])


@pytest.mark.parametrize("value", [None, -1, True, 1.5, "-1", "1e3", "٣", "", [], 10**12, str(10**12), "9" * 5000])
def test_a_count_that_is_none_costs_itself_alone(value: Any) -> None:
    found, _ = run(crawl(BATCH), [lines(row(1, 7), row(0, value)), lines({"n": 2})])
    assert table(sound(found, BATCH)) == {(1, DOWNLOADS, DAY - timedelta(days=1)): 7.0}
    assert [(g.day, g.reason, g.retry, g.doubtful) for g in found.gaps] == [(DAY, NO_COUNT, True, True)]


@pytest.mark.parametrize("bad", [row(0, 8) | {"date": 20260331}, row(0, 8) | {"date": "2026-W14-2"}, row(0, 8, None)])
def test_a_row_that_cannot_be_read_is_missed_by_the_count(bad: Any) -> None:
    with pytest.raises(TooLarge, match="1 of 2 rows"):
        run(crawl(BATCH), [lines(row(1, 7), bad), lines({"n": 2})])


def test_rows_of_others_do_not_hide_a_cut() -> None:
    for foreign in (row(0, 7, "b"), row(9, 7)):
        with pytest.raises(TooLarge, match="1 of 2 rows"):
            run(crawl(BATCH), [lines(row(1, 5), foreign), lines({"n": 2})])


@pytest.mark.parametrize("second", [row(0, 8), row(0, 9)])
def test_a_day_that_is_stated_twice_was_not_grouped(second: Any) -> None:
    with pytest.raises(Malformed, match="twice"):
        run(crawl(BATCH), [lines(row(0, 8), second)])


def test_a_count_below_what_came_shows_no_cut() -> None:
    with pytest.raises(Malformed, match="2 rows and counts 1"):
        run(crawl(BATCH), [lines(row(0, 8), row(1, 8)), lines({"n": 1})])


@pytest.mark.parametrize("count", [None, True, -1, 1.5, "x", [], {}])
def test_without_a_count_nothing_is_believed(count: Any) -> None:
    with pytest.raises(Malformed, match="did not count"):
        run(crawl(BATCH), [lines(row(0, 8)), lines({"n": count})])
    with pytest.raises(Malformed, match="did not count"):
        run(crawl(BATCH), [lines(row(0, 8)), lines()])


@pytest.mark.parametrize("bad", [None, 5, [], {}, row(0, 1, None), row(0, 1, 7), row(0, 1) | {"date": "yesterday"}])
def test_rows_of_any_form(bad: Any) -> None:
    assert parse_rows(lines(bad, row(1, 7))) == {("a", DAY - timedelta(days=1)): 7}


def test_rows_nobody_asked_for_are_left_out() -> None:
    found, _ = run(crawl(BATCH), [lines(row(0, 8), row(0, 1, "b"), row(9, 5)), lines({"n": 1})])
    assert table(sound(found, BATCH)) == {(1, DOWNLOADS, DAY): 8.0}


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Response(500, {}, b"Code: 159. DB::Exception: Timeout exceeded"), Unavailable),
        (Response(200, {}, b"Code: 159. DB::Exception: Timeout exceeded"), Unavailable),
        (Response(404, {}, b"Code: 60. DB::Exception: Unknown table"), Malformed),
        (Response(200, {}, b"Code: 60. DB::Exception: Unknown table"), Malformed),
        (Response(200, {}, b'{"project": "a", "date": "2026-03'), Malformed),
        (Response(200, {}, json.dumps(row(0, 1)).encode() + b"\nCode: 241. DB::Exc"), Malformed),
    ],
)
def test_exceptions_of_the_server(response: Response, error: type[SourceError]) -> None:
    with pytest.raises(error):
        run(crawl(BATCH), [response])


@pytest.mark.parametrize("response", BROKEN)
def test_what_is_no_answer(response: Response) -> None:
    with pytest.raises(SourceError):
        run(crawl(BATCH), lambda _: response)


def test_any_json() -> None:
    """Every check is met on its own: each field of each row is sound, or anything."""
    accepted = Counter[int]()
    fields = [{k: mostly(v) for k, v in row(n, 7).items()} for n in (0, 1)]

    @given(st.lists(JSON, max_size=3), st.tuples(*map(st.fixed_dictionaries, fields)), mostly(2))
    def survive(rows: list[Any], shaped: tuple[Any, ...], n: Any) -> None:
        for first in (rows, shaped, (*shaped, *rows)):
            answers = [lines(*first), lines({"n": n})]
            accepted[
                survives(lambda: crawl(BATCH), lambda r, a=answers: a[b"uniqExact" in (r.content or b"")], BATCH)
            ] += 1

    survive()
    assert min(accepted[0], accepted[1], accepted[2]) > 2, accepted


def test_answers_with_anything_in_them() -> None:
    accepted = Counter[int]()

    @given(mutated([row(0, 7), row(1, "8")]), st.just([{"n": "2"}]) | mutated([{"n": "2"}]))
    def survive(rows: Any, counted: Any) -> None:
        answers = [lines(*(part if isinstance(part, list) else [part])) for part in (rows, counted)]
        accepted[survives(lambda: crawl(BATCH), lambda r: answers[b"uniqExact" in (r.content or b"")], BATCH)] += 1

    survive()
    assert min(accepted[0], accepted[2]) > 2, accepted


@given(st.text(max_size=20))
def test_no_name_leaves_its_quotes(name: str) -> None:
    batch = replace(BATCH, entities=(Entity(1, "a", name),))
    _, requests = run(crawl(batch), lambda r: lines({"n": 0}) if b"uniqExact" in (r.content or b"") else lines())
    for request in requests:
        sql = (request.content or b"").decode()
        quoted = sql[sql.index("IN (") + 4 : sql.rindex(") AND date")]
        inside, plain = quoted[1:-1], []
        while inside:
            assert inside[0] != "'", "a quote ends the text"
            step = 2 if inside[0] == "\\" else 1
            plain.append(inside[step - 1])
            inside = inside[step:]
        assert "".join(plain) == name


def ask(database: ClickHouse, request: Request) -> Response:
    now = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
    return database.respond(request, token=None, now=now, night=NIGHT)


def test_against_the_simulator() -> None:
    start = NIGHT - timedelta(days=19)
    for number, package in enumerate(("alpha", "beta")):
        batch = Batch("clickhouse", "daily", NIGHT, start, NIGHT, (Entity(number, package, package),))
        found, _ = run(crawl(batch), lambda r: ask(ClickHouse(make_world()), r))
        sound(found, batch)
        assert len(found) + len(found.gaps) == 20
        assert len(found.gaps) == (0, 11)[number]
        world = make_world().downloads[number]
        assert {v <= world[(d - FIRST_DAY).days] for (_, _, d), v in table(found).items()} == {True}


def test_against_a_simulator_that_misbehaves() -> None:
    database = ClickHouse(make_world(), scenario=replace(SCENARIOS["faults"], probability=0.6))
    for n in range(20):
        day = NIGHT - timedelta(days=n)
        batch = Batch("clickhouse", "daily", NIGHT, day, day, (Entity(1, "alpha", "alpha"),))
        survives(lambda b=batch: crawl(b), lambda r: ask(database, r), batch)


@pytest.mark.parametrize("task", SOURCE.tasks.values(), ids=lambda task: task.name)
def test_a_batch_stays_below_the_row_at_which_results_are_cut(task: Task) -> None:
    assert task.entities_per_batch * task.days_per_batch <= MAX_ROWS <= 500
    assert task.lookback_days <= task.days_per_batch


STALLED_TO = date(2025, 3, 15)
DAYS = 60
"""Two months of two packages are more rows than the scenario lets through, and than a batch may hold."""


@pytest.mark.parametrize(
    ("kind", "probability"),
    [
        ("clickhouse_cut", 0.0),
        ("clickhouse_bad_counts", 0.5),
        ("clickhouse_foreign_rows", 0.5),
        ("database_exception", 0.3),
        ("gzip_bomb", 0.3),
        ("proxy_not_found", 0.3),
    ],
)
def test_foul_weather_brings_no_false_value(kind: str, probability: float) -> None:
    world = make_world()
    start = NIGHT - timedelta(days=DAYS - 1)
    entities = tuple(Entity(n, package, package) for n, package in enumerate(world.packages))
    seen = faults = 0
    for seed in range(4):
        database = ClickHouse(world, scenario=replace(SCENARIOS[kind], probability=probability, seed=seed))
        crawled = crawl_batches([Batch("clickhouse", "recent", NIGHT, start, NIGHT, entities)], database, NIGHT)
        values: dict[tuple[int, date], float] = {}
        missed: set[tuple[int, date]] = set()
        for batch, found in crawled.found:
            values |= {(n, d): v for (n, _, d), v in table(sound(found, batch)).items()}
            missed |= {(g.entity_id, g.day) for g in found.gaps}
        for (n, day), value in values.items():
            assert value == world.downloads[n, (day - FIRST_DAY).days], (n, day)
        if not crawled.dead:
            assert values.keys() | missed == {(n, d) for n in range(2) for d in days_between(start, NIGHT)}
        assert database.limits.convictions() == 0
        seen += len(values)
        faults += sum(database.limits.report()["faults"].values())
        if kind == "clickhouse_cut":
            held = {(n, d) for n, d in values.keys() | missed if world.downloads[n, (d - FIRST_DAY).days] >= 0}
            assert values.keys() == held, "everything that the table holds came, in smaller parts"
            assert crawled.outcomes.count("Split") > 4
    assert seen > 100
    assert faults > 2 or kind == "clickhouse_cut"


def test_while_pypistats_stands_still_its_packages_come_from_here_and_then_from_there() -> None:
    """The whole way, night by night: the planner notices, a few are probed, the copy fills in, and is replaced."""
    nights, packages = 17, 24
    year = live(7, nights, Weather(SCENARIOS["pypi_stalls"]), repos=packages, packages=packages)
    world = make_small_world(7, repos=packages, packages=packages, nights=nights)
    assert not year.books.wrong
    assert year.convictions == 0
    found = {(n, day): stated for (metric, n, day), stated in year.books.values.items() if metric == DOWNLOADS}
    for (n, day), (value, _) in found.items():
        assert value == world.downloads[n - 1, (day - world.first_day).days]
    past = {d: [found.get((n, d)) for n in range(1, packages + 1)] for d in days_between(date(2025, 3, 3), STALLED_TO)}
    assert all(None not in stated for stated in past.values()), "nobody lacks a day of the time without a feed"
    origins = Counter(stated[1] for of_day in past.values() for stated in of_day if stated)
    assert min(origins[5], origins[6]) > 24, "some days came from the copy, some came late from where they belong"
    asked = {name: year.report["upstreams"][name]["requests"] for name in ("pypistats", "clickhouse")}
    assert asked["pypistats"] < 0.7 * nights * packages, "a feed that stands still is probed, not read"
    assert asked["clickhouse"] > 10
