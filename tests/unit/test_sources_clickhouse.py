"""ClickHouse's copy of the download log, answered by hand and by the simulator."""

from __future__ import annotations

import json
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
from astrid.sources.clickhouse import MAX_ROWS, SOURCE, crawl, parse_rows
from tests.by_hand import BROKEN, JSON, run, sound, survives, table
from tests.synthetic_world import FIRST_DAY, NIGHT, make_world

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


@pytest.mark.parametrize("value", [None, -1, True, 1.5, "-1", "1e3", "٣", "", [], 10**15, "9" * 5000])
def test_a_row_that_cannot_be_read_is_missed_by_the_count(value: Any) -> None:
    with pytest.raises(TooLarge):
        run(crawl(BATCH), [lines(row(1, 7), row(0, value)), lines({"n": 2})])


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


@given(st.lists(JSON, max_size=3), st.lists(st.fixed_dictionaries(dict.fromkeys(row(0, 1), JSON)), max_size=3), JSON)
def test_any_json(rows: list[Any], shaped: list[Any], n: Any) -> None:
    for first in (rows, shaped):
        answers = [lines(*first), lines({"n": n})]
        survives(lambda: crawl(BATCH), lambda r, a=answers: a[b"uniqExact" in (r.content or b"")], BATCH)


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


def test_a_batch_stays_below_the_row_at_which_results_are_cut() -> None:
    task = SOURCE.tasks["daily"]
    assert task.entities_per_batch * task.days_per_batch <= MAX_ROWS < 1000
