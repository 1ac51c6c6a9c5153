"""GitHub's star histories: weeks and days, pages and links, and whose history it is that is read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, RateLimited, SourceError
from astrid.models import Entity, Identity, Response
from astrid.simulators.github import GitHub, User
from astrid.sources.github import crawl
from astrid.sources.github_history import CONTRADICTED, parse_history
from astrid.sources.github_identity import REOCCUPIED
from astrid.sources.source import PATIENCE
from tests.by_hand import BROKEN, JSON, ok, run, sound, survives, table
from tests.github_by_hand import (
    DAY,
    GAINED,
    SHARED,
    SUNDAY,
    ask,
    entity,
    history,
    needs_samples,
    node,
    nodes,
    page,
    past,
    week,
    who_then,
)
from tests.synthetic_world import FIRST_DAY, NIGHT, make_world

API = "https://api.github.com"


def test_days_of_a_week() -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=2), end=SUNDAY + timedelta(days=2))
    pages = [ok([week(SUNDAY, [7, 8, 9]), week(SUNDAY - timedelta(days=7), [0, 1, 2, 3, 4, 5, 6])])]
    found, (request,) = past(batch, pages)
    assert [v for _, v in sorted(table(sound(found, batch)).items())] == [5.0, 6.0, 7.0, 8.0, 9.0]
    assert (request.path, request.bucket) == ("/repositories/1/stargazers/history", "core")
    assert request.params == (("per_page", "30"), ("page", "1"))
    assert found.gaps == ()


def test_pages_are_followed_back_to_the_first_day_only() -> None:
    weeks = [week(SUNDAY - timedelta(days=7 * n), [n] * 7) for n in range(6)]
    batch = history(entity(9), start=SUNDAY - timedelta(days=20), end=SUNDAY)
    pages = [
        page(weeks[2 * n : 2 * n + 2], f"{API}/repositories/9/stargazers/history?per_page=30&page={n + 2}&c=a%3D%26b")
        for n in range(2)
    ]
    found, requests = past(batch, pages)
    assert len(table(sound(found, batch))) == 21
    assert requests[1].path == "/repositories/9/stargazers/history"
    assert requests[1].params == (("per_page", "30"), ("page", "2"), ("c", "a=&b"))


ELSEWHERE = [
    ("/repositories/999/stargazers/history", "repository 1 to that of repository 999"),
    ("/repositories/10/stargazers/history", "repository 1 to that of repository 10"),
    (
        "/repos/owner/repo1/stargazers/history",
        "repository 1 to that of a name, '/repos/owner/repo1/stargazers/history'",
    ),
    ("/repos/repositories/1/stargazers/history", "repository 1 to that of a name"),
    ("/repositories/1/stargazers", "leads elsewhere"),
    ("/repositories/1", "leads elsewhere"),
    ("/repositories/1/stargazers/history/x", "leads elsewhere"),
    (f"/repositories/{'1' * 5000}/stargazers/history", "leads elsewhere"),
]


@pytest.mark.parametrize(("path", "said"), ELSEWHERE)
def test_a_link_or_redirect_to_another_repository_is_refused(path: str, said: str) -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=7), end=SUNDAY)
    first = page([week(SUNDAY, [1] * 7)], API + path)
    stranger = page([week(SUNDAY - timedelta(days=7), [500] * 7)])
    for answers in ([first], [Response(301, {"location": API + path}, b"")]):
        with pytest.raises(Malformed, match=said):
            past(batch, [*answers])
    # What was read of it before stays.
    found, _ = past(replace(batch, attempt=PATIENCE), [first])
    assert table(sound(found, batch)) == {(1, GAINED, SUNDAY): 1.0}
    assert {(said in g.reason, g.retry) for g in found.gaps} == {(True, True)}
    assert len(found.gaps) == 7
    with pytest.raises(AssertionError, match="not asked for"):
        past(replace(batch, attempt=PATIENCE), [first, stranger])


@pytest.mark.parametrize("second", ["/repositories/8/stargazers/history", "/repos/owner/repo1/stargazers/history"])
def test_one_asked_for_by_name_has_the_number_that_it_is_led_to_first(second: str) -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=14), end=SUNDAY)
    first = f"{API}/repositories/7/stargazers/history"
    moved = Response(301, {"location": first}, b"")
    pages = [page([week(SUNDAY - timedelta(days=7 * n), [n] * 7)], first + f"?page={n + 2}") for n in range(2)]
    last = page([week(SUNDAY - timedelta(days=14), [2] * 7)])
    for answers in ([moved, *pages, last], [*pages, last]):
        found, requests = past(batch, answers, databaseId=None)
        assert len(sound(found, batch)) == 15
        assert [r.path for r in requests[1:]] == ["/repositories/7/stargazers/history"] * (len(answers) - 1)
    strange = page([week(SUNDAY - timedelta(days=7), [1] * 7)], API + second)
    for answers in ([moved, strange], [pages[0], strange]):
        with pytest.raises(Malformed, match="repository 7 to that of"):
            past(batch, answers, databaseId=None)


def test_days_before_the_repository_are_no_gaps_later_ones_and_holes_are() -> None:
    start = SUNDAY - timedelta(days=21)
    batch = history(entity(1), start=start, end=SUNDAY + timedelta(days=8))
    weeks = [week(SUNDAY, [1] * 7), week(SUNDAY - timedelta(days=7), [1, -1, None, True, 1, 1, "2"])]  # no total
    found, _ = past(batch, [ok(weeks)])
    sound(found, batch)
    assert [(g.day - SUNDAY).days for g in found.gaps] == [-6, -5, -4, -1, 7, 8]
    assert all(g.retry for g in found.gaps)
    assert {g.reason for g in found.gaps[:4]} == {"the history states no sound count for this day"}
    assert {g.reason for g in found.gaps[4:]} == {"the history does not reach this day yet"}
    assert min(table(found))[2] == SUNDAY - timedelta(days=7)


def test_days_since_the_week_of_the_creation_that_are_not_stated_are_gaps() -> None:
    born = SUNDAY - timedelta(days=3)
    batch = history(entity(1), start=SUNDAY - timedelta(days=9), end=SUNDAY)
    found, _ = past(batch, [ok([week(SUNDAY, [1] * 7)])], createdAt=f"{born}T12:00:00Z")
    assert [g.day for g in sound(found, batch).gaps] == [SUNDAY - timedelta(days=n) for n in range(7, 0, -1)]
    assert all(g.retry for g in found.gaps)


def test_a_star_on_the_day_before_the_creation_is_kept() -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=2), end=SUNDAY)
    weeks = [week(SUNDAY, [1] * 7), week(SUNDAY - timedelta(days=7), [0] * 6 + [1])]
    found, _ = past(batch, [ok(weeks)], createdAt=f"{SUNDAY}T00:00:01Z")
    assert table(sound(found, batch))[1, GAINED, SUNDAY - timedelta(days=1)] == 1.0
    assert found.gaps == ()


def test_a_repository_without_a_number_is_asked_for_by_its_name_of_today() -> None:
    batch = history(entity(1), start=SUNDAY, end=SUNDAY)
    who = nodes(node(1, databaseId=None, nameWithOwner="else/where"))
    found, requests = run(crawl(batch), [who, ok([week(SUNDAY, [5])])])
    assert requests[1].path == "/repos/else/where/stargazers/history"
    assert found.identities == (Identity(1, "github", "R_1", "else/where"),)


def test_who_is_not_found_is_explained_and_the_others_go_on() -> None:
    errors = [{"type": "NOT_FOUND", "path": ["nodes", 0], "message": "x"}]
    batch = history(entity(1), entity(2), start=SUNDAY, end=SUNDAY)
    stranger = ok({"node_id": "R_77", "full_name": "owner/repo1"})
    found, requests = run(crawl(batch), [nodes(None, node(2), errors=errors), stranger, ok([week(SUNDAY, [5])])])
    assert [(g.entity_id, g.reason, g.retry) for g in sound(found, batch).gaps] == [(1, REOCCUPIED, False)]
    assert requests[1].path == "/repos/owner/repo1"
    assert len(found) == 1


def test_a_missing_week_is_seven_gaps() -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=14), end=SUNDAY)
    weeks = [week(SUNDAY, [1] * 7), week(SUNDAY - timedelta(days=14), [1] * 7)]
    found, _ = past(batch, [ok(weeks)])
    assert len(found.gaps) == 7


def test_empty_history() -> None:
    found, _ = past(history(entity(1)), [ok([])])
    assert [(g.reason, g.retry) for g in found.gaps] == [("the history is empty", True)]


@pytest.mark.parametrize(
    "response", [ok({}, 404), ok({"message": "x", "block": {}}, 451), ok({"message": "x", "block": {}}, 403)]
)
def test_gone_is_gone_and_the_others_go_on(response: Response) -> None:
    batch = history(entity(1), entity(2), start=SUNDAY, end=SUNDAY)
    found, _ = past(batch, [response, ok([week(SUNDAY, [5])])])
    assert table(sound(found, batch)) == {(2, GAINED, SUNDAY): 5.0}
    assert [(g.entity_id, g.retry) for g in found.gaps] == [(1, False)]


@pytest.mark.parametrize("query", ["", "?per_page=30&page=1"])
def test_one_redirect_is_followed_with_its_parameters(query: str) -> None:
    moved = Response(301, {"location": f"{API}/repositories/9/stargazers/history{query}"}, b"")
    batch = history(entity(1), start=SUNDAY, end=SUNDAY)
    found, requests = past(batch, [moved, ok([week(SUNDAY, [5])])], databaseId=None)
    assert len(found) == 1
    assert requests[0].path == "/repos/Owner/repo1/stargazers/history"
    assert requests[1].path == "/repositories/9/stargazers/history"
    assert requests[1].params == requests[0].params
    with pytest.raises(Malformed, match="answered 301"):
        past(batch, [moved, moved], databaseId=None)
    # To itself, by number: it is who it is said to be.
    found, requests = past(replace(batch, entities=(entity(9),)), [moved, ok([week(SUNDAY, [5])])])
    assert (len(found), requests[1].path) == (1, "/repositories/9/stargazers/history")


@pytest.mark.parametrize("location", ["", "https://example.org/", "http://[bad", "\x00", "//", "/user/1"])
def test_a_redirect_to_nowhere(location: str) -> None:
    with pytest.raises(Malformed):
        past(history(entity(1)), [Response(302, {"location": location}, b"")])


def test_an_owner_called_repositories() -> None:
    for name in ("x", "7"):
        moved = Response(301, {"location": f"{API}/repos/repositories/{name}/stargazers/history"}, b"")
        _, requests = past(history(entity(1)), [moved, ok([])], databaseId=None)
        assert requests[1].path == f"/repos/repositories/{name}/stargazers/history"


def test_a_week_that_comes_again_on_the_next_page_is_read_once() -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=7), end=SUNDAY)
    first = page([week(SUNDAY, [3] * 7)], f"{API}/repositories/1/stargazers/history?page=2")
    shifted = page([week(SUNDAY, [2] * 7), week(SUNDAY - timedelta(days=7), [1] * 7)])
    found, _ = past(batch, [first, shifted])
    assert table(sound(found, batch))[1, GAINED, SUNDAY] == 3.0
    assert len(found) == 8


@pytest.mark.parametrize("total", [7, 8])
def test_links_in_a_circle_end(total: int) -> None:
    batch = history(entity(1), start=date(2020, 1, 1))
    again = page([week(SUNDAY, [1] * 7, total=total)], f"{API}/repositories/1/stargazers/history?page=1")
    found, requests = past(batch, lambda _: again)
    assert len(requests) == 2
    sound(found, batch)


def test_spammed_is_a_pause() -> None:
    with pytest.raises(RateLimited) as caught:
        past(history(entity(1)), [ok({"message": "endpoint has been spammed"}, 422)])
    assert caught.value.retry_after_s == 60.0


@pytest.mark.parametrize("response", BROKEN)
def test_one_broken_repository_does_not_take_the_others_with_it(response: Response) -> None:
    entities = (entity(1), entity(2))
    answers = [response] if response.status != 302 else [replace(response, headers={"location": "/x"})]
    with pytest.raises(SourceError):
        past(history(*entities, start=SUNDAY, end=SUNDAY), answers)
    batch = history(*entities, start=SUNDAY, end=SUNDAY, attempt=PATIENCE)
    found, _ = past(batch, [*answers, ok([week(SUNDAY, [5])])])
    assert table(sound(found, batch)) == {(2, GAINED, SUNDAY): 5.0}
    assert [(g.entity_id, g.retry, g.doubtful) for g in found.gaps] == [(1, True, True)]


@pytest.mark.parametrize(
    "bad",
    [
        None,
        5,
        [],
        {},
        week(SUNDAY, None),
        week(SUNDAY, {}),
        week(SUNDAY, [1] * 8),
        week(DAY, [1] * 7),
        week(SUNDAY - timedelta(days=7), [1] * 6),
        week(SUNDAY, [1]) | {"week": True},
        *[
            {"week": w, "days": [1] * 7}
            for w in ("1774742400", None, 1774742400.0, 1774742401, -1, 2**62, 253_401_868_800, -259_200)
        ],
    ],
)
def test_a_broken_week_is_left_out(bad: Any) -> None:
    sound_weeks = [week(SUNDAY + timedelta(days=7), [3]), week(SUNDAY - timedelta(days=14), [2] * 7)]
    read = parse_history(ok([bad, *sound_weeks]))
    assert (set(read.gains.values()), read.contradicted) == ({2, 3}, set())


def test_a_week_that_is_stated_twice() -> None:
    again = week(SUNDAY, [1, 2])
    assert parse_history(ok([again, again])).gains == {SUNDAY: 1, SUNDAY + timedelta(days=1): 2}
    for pair in ([again, week(SUNDAY, [1, 3])], [week(SUNDAY, [1, 3]), again], [again, again | {"total": 4}]):
        read = parse_history(ok(pair))
        assert (read.gains, read.contradicted) == ({}, {SUNDAY, SUNDAY + timedelta(days=1)})


@pytest.mark.parametrize(
    ("days", "total", "believed"),
    [
        ([1, 2, 3, 4, 5, 6, 7], 28, True),
        ([0] * 7, 0, True),
        ([1, 2], 3, True),
        ([], 0, True),
        ([1] * 7, None, True),
        ([1, 1, 1, 1, 1, 1, 999999], 7, False),
        ([1] * 7, 0, False),
        ([1, 2], 10, False),
        ([1, 0, 0, 0, 0, 0, 0], True, False),
        ([1, 0, 0, 0, 0, 0, 0], 1.0, False),
        ([1, 0, 0, 0, 0, 0, 0], "1", False),
        ([1, 0, 0, 0, 0, 0, 0], [], False),
        ([1, None, 0, 0, 0, 0, 0], 1, False),
        ([3, -2, 0, 0, 0, 0, 0], 1, False),
        ([True, 0, 0, 0, 0, 0, 0], 1, False),
        ([0, 0, 0, 0, 0, 0, 2**31], 2**31, False),
    ],
)
def test_a_week_whose_total_is_not_its_sum_is_not_believed(days: list[Any], total: Any, believed: bool) -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=7), end=SUNDAY + timedelta(days=6))
    before = week(SUNDAY - timedelta(days=7), [9] * 7)
    found, _ = past(batch, [ok([week(SUNDAY, days, total=total), before])])
    values = [table(sound(found, batch)).get((1, GAINED, SUNDAY + timedelta(days=n))) for n in range(7)]
    reasons = [g.reason for g in found.gaps]
    assert values == ([*days, *[None] * (7 - len(days))] if believed else [None] * 7)
    late = "the history does not reach this day yet"
    assert reasons == [*([] if believed else [CONTRADICTED] * len(days)), *[late] * (7 - len(days))]
    assert all(g.retry for g in found.gaps)
    assert {v for (_, _, day), v in table(found).items() if day < SUNDAY} == {9.0}


def test_a_week_that_is_not_believed_is_not_the_end_of_a_history() -> None:
    batch = history(entity(1), start=SUNDAY - timedelta(days=14), end=SUNDAY)
    link = f"{API}/repositories/1/stargazers/history?page={{}}"
    pages = [
        page([week(SUNDAY, [1] * 7)], link.format(2)),
        page([week(SUNDAY - timedelta(days=7), [1] * 7, total=8)], link.format(3)),
        page([week(SUNDAY - timedelta(days=14), [2] * 7)]),
    ]
    found, _ = past(batch, pages)
    assert sorted(table(sound(found, batch)).values()) == [1.0] + [2.0] * 7
    assert [(g.day, g.reason) for g in found.gaps] == [
        (SUNDAY - timedelta(days=n), CONTRADICTED) for n in range(7, 0, -1)
    ]
    # Where it is the only one, it still tells since when there is a history.
    found, _ = past(batch, [page([week(SUNDAY - timedelta(days=7), [1] * 7, total=8)])])
    assert [(g.day - SUNDAY).days for g in found.gaps] == [*range(-7, 1)]
    assert {g.reason for g in found.gaps[:7]} == {CONTRADICTED}


@given(
    JSON,
    st.lists(
        st.fixed_dictionaries({"week": st.just(1774742400) | JSON, "days": st.lists(JSON), "total": JSON}), max_size=3
    ),
)
def test_any_json(whole: Any, weeks: Any) -> None:
    for attempt in (0, PATIENCE):
        batch = history(entity(1), start=SUNDAY, end=SUNDAY + timedelta(days=6), attempt=attempt)
        for value in (whole, weeks):
            survives(lambda b=batch: crawl(b), who_then(batch, ok(value)), batch)
        survives(lambda b=batch: crawl(b), lambda _: ok({"data": {"nodes": [whole]}}), batch)
        survives(lambda b=batch: crawl(b), lambda _: ok({"data": whole}), batch)


@given(st.text(max_size=60))
def test_any_link(link: str) -> None:
    batch = history(entity(1), start=date(2026, 1, 1))
    paged = page([week(SUNDAY, [1] * 7)], link)
    survives(lambda: crawl(batch), who_then(batch, paged), batch)
    survives(lambda: crawl(batch), who_then(batch, Response(301, {"location": link}, b"")), batch)


@needs_samples
def test_recorded_weeks() -> None:
    body = (SHARED / "samples/github-rest/stargazers_history_200.json").read_bytes()
    read = parse_history(Response(200, {}, body))
    days = read.gains
    assert (len(days), read.contradicted) == (21, set())
    assert sum(days.values()) == 19 + 23 + 35
    assert days[date(2026, 8, 30)] == 2
    other = json.loads((SHARED / "samples/github-rest/stargazers_history_oldest_week_and_link.json").read_text())
    oldest = other["oldest_page_last_object"]
    assert sum(parse_history(ok([oldest])).gains.values()) == oldest["total"] == 36
    answers = [Response(200, {"link": other["response_link_header"]}, body), ok([oldest])]
    _, requests = past(history(entity(608376199), start=date(2023, 2, 26)), answers)
    assert requests[1].path == "/repositories/608376199/stargazers/history"
    assert requests[1].params == (("per_page", "30"), ("page", "2"))


def test_against_the_simulator() -> None:
    github = GitHub(make_world(), {"t": User(1, "ann")})
    young = Entity(2, "p2", "", ("owner2/Repo.2",))
    batch = history(young, start=FIRST_DAY, end=NIGHT)
    found, _ = run(crawl(batch), lambda r: ask(github, r))
    sound(found, batch)
    assert len(found) > 140
    assert min(found.day.tolist()) >= FIRST_DAY + timedelta(days=90)
    assert max(found.day.tolist()) == NIGHT
    assert found.gaps == ()
