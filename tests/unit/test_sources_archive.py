"""Archived snapshots, answered by hand and by the simulator."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError, Unavailable
from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.archive import Archive
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.archive import crawl, parse_month
from tests.by_hand import BROKEN, run, sound, survives, table
from tests.synthetic_world import NIGHT, make_world

FIRST, LAST = date(2025, 3, 1), date(2025, 3, 31)
DAY = date(2025, 3, 9)
STARS, FORKS = 1, 2
BATCH = Batch(
    "archive",
    "month",
    LAST,
    FIRST,
    LAST,
    (Entity(1, "one", "", ("Owner/One", "old/one")), Entity(2, "two", "", ("o/two",))),
)
NOTHING = Response(404, {}, b"404 Not Found")


def month(*rows: str, header: str = "repo,date,stars,forks") -> Response:
    return Response(200, {}, ("\n".join([header, *rows]) + "\n").encode())


def test_two_archives_the_first_stands() -> None:
    one = month("owner/one,2025-03-09,100,10", "nobody/else,2025-03-09,5,5", "o/two,2025-02-28,1,1")
    two = month("OLD/ONE,2025-03-09,999,99", "old/one,2025-03-10,101,11", "o/two,2025-04-01,1,1")
    found, requests = run(crawl(BATCH), [one, two])
    later = DAY + timedelta(days=1)
    assert table(sound(found, BATCH)) == {
        (1, STARS, DAY): 100.0,
        (1, FORKS, DAY): 10.0,
        (1, STARS, later): 101.0,
        (1, FORKS, later): 11.0,
    }
    assert dict(zip(found.day.tolist(), found.origin_id.tolist(), strict=True)) == {DAY: 10, later: 11}
    assert [r.path for r in requests] == ["/stars_daily/2025-03.csv", "/ai_stars_daily/2025-03.csv"]


def test_an_unknown_number_of_forks_does_not_cost_the_stars() -> None:
    found, _ = run(crawl(BATCH), [month("owner/one,2025-03-09,100,"), NOTHING])
    assert table(sound(found, BATCH)) == {(1, STARS, DAY): 100.0}


def test_a_month_that_no_archive_has() -> None:
    found, _ = run(crawl(BATCH), [NOTHING, NOTHING])
    assert (len(found), found.gaps) == (0, ())


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "owner/one",
        "owner/one,2025-03-09,1",
        "owner/one,2025-03-09,1,2,3",
        "owner/one,yesterday,1,2",
        "owner/one,2025-03-09,,2",
        *[f"owner/one,2025-03-09,{v},2" for v in ("-1", "1.5", "x", "1_000", "٣", " 5", "9" * 5000)],
        "owner/one,2025-03-09,5,-1",
        "owner/one,2025-03-09,5,x",
        "owner/one,2025-03-09,10000000000,1",
    ],
)
def test_a_broken_row_costs_itself_alone(bad: str) -> None:
    assert parse_month(month(bad, "o/two,2025-03-09,7,3")) == [("o/two", DAY, 7, 3)]


def test_line_ends_and_quotes() -> None:
    body = b'repo,date,stars,forks\r\n"o/two",2025-03-09,7,3\r\no/two,2025-03-10,8,3\rx/y,2025-03-09,1,1\r\n'
    assert [s[2] for s in parse_month(Response(200, {}, body))] == [7, 8, 1]


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 9])
def test_a_file_that_was_cut_short_is_no_file(lost: int) -> None:
    """``678`` cut to ``67`` would be a count like any other."""
    whole = month("o/two,2025-03-09,12345,678")
    assert parse_month(whole) == [("o/two", DAY, 12345, 678)]
    with pytest.raises(Malformed, match="cut short"):
        parse_month(Response(200, {}, whole.body[:-lost]))


def test_a_day_stated_twice_is_one_value() -> None:
    rows = ["owner/one,2025-03-09,100,10", "owner/one,2025-03-09,200,20"]
    found, _ = run(crawl(BATCH), [month(*rows), NOTHING])
    assert table(sound(found, BATCH))[1, STARS, DAY] == 100.0


@pytest.mark.parametrize(
    "response",
    [
        *BROKEN,
        month(header="repo,date,stars"),
        month(header="repo;date;stars;forks"),
        month(header='"' + "x" * 200_000),
        month("o/two,2025-03-09,7," + "3" * 200_000),
    ],
)
def test_what_is_no_file(response: Response) -> None:
    with pytest.raises(SourceError) as caught:
        run(crawl(BATCH), [response])
    assert isinstance(caught.value, Unavailable if response.status >= 500 else Malformed)
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=80), st.lists(st.text(alphabet='o/two,2025-3x"\r\n\0', max_size=30), max_size=5))
def test_any_bytes(junk: bytes, rows: list[str]) -> None:
    for body in (junk, b"repo,date,stars,forks\n" + junk, month(*rows).body):
        survives(lambda: crawl(BATCH), lambda _, b=body: Response(200, {}, b), BATCH)


def ask(archive: Archive, request: Request) -> Response:
    now = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
    return archive.respond(request, token=None, now=now, night=NIGHT)


def test_against_the_simulator() -> None:
    world = make_world()
    entities = tuple(Entity(n, f"p{n}", "", (f"OWNER{n}/repo.{n}",)) for n in range(6))
    batch = Batch("archive", "month", LAST, FIRST, LAST, entities)
    found, _ = run(crawl(batch), lambda r: ask(Archive(world), r))
    sound(found, batch)
    row = (FIRST - world.first_day).days
    stars = {(e, d): v for (e, m, d), v in table(found).items() if m == STARS}
    assert stars == {
        (n, FIRST + timedelta(days=k)): float(world.stars[n, row + k])
        for n in range(6)
        for k in range(31)
        if world.stars[n, row + k] >= 0
    }


def test_against_a_simulator_that_misbehaves() -> None:
    archive = Archive(make_world(), scenario=replace(SCENARIOS["faults"], probability=0.6))
    for n in range(1, 9):
        start = date(2025, n, 1)
        batch = replace(BATCH, start=start, end=start + timedelta(days=27), batch_id="")
        survives(lambda b=batch: crawl(b), lambda r: ask(archive, r), batch)
