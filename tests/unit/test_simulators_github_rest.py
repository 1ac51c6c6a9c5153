"""The simulated GitHub's REST lists: releases, events, the search, and what a client need not be sent again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest

from astrid.models import Request, Response
from astrid.simulators.github import GitHub, User
from astrid.simulators.github_events import MAX_DAYS, MAX_EVENTS
from astrid.simulators.github_rest import TOPICS, topics_of
from astrid.simulators.github_search import BadQuery, read_repository_query
from astrid.simulators.scenarios import CALM, SCENARIOS, Scenario
from astrid.simulators.world import World
from tests.synthetic_world import DAYS, FIRST_DAY, GAP, NIGHT, make_world

NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
TOKENS = {"a": User(1, "ann"), "b": User(2, "ben")}
SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")


def make_github(scenario: Scenario = CALM, *, repos: int = 6, world: World | None = None) -> GitHub:
    return GitHub(make_world(repos) if world is None else world, TOKENS, scenario=scenario)


def rising(a_day: int) -> World:
    """Return a world whose second repository gains so many stars a day."""
    world = make_world()
    stars = world.stars.copy()
    stars[1] = 2000 + a_day * np.arange(DAYS)
    return replace(world, stars=stars)


def get(
    github: GitHub,
    path: str,
    *,
    token: str | None = "a",
    now: datetime = NOW,
    night: date = NIGHT,
    headers: dict[str, str] | None = None,
    **params: str | int,
) -> Response:
    given = tuple((k, str(v)) for k, v in params.items())
    request = Request("github", "GET", path, given, headers=tuple((headers or {}).items()))
    return github.respond(request, token=token, now=now, night=night)


def linked(response: Response) -> dict[str, str]:
    """Return the addresses of a ``link`` header by relation."""
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', response.headers.get("link", ""))
    return {rel: url for url, rel in found}


def pages(github: GitHub, path: str, **params: str | int) -> Iterator[Response]:
    """Follow a list's ``next`` to its end."""
    answer = get(github, path, **params)
    yield answer
    while url := linked(answer).get("next"):
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}" == "https://api.github.com"
        answer = get(github, parts.path, **dict(parse_qsl(parts.query)))
        yield answer


def rows(github: GitHub, path: str, **params: str | int) -> list[dict[str, Any]]:
    answers = list(pages(github, path, **params))
    assert {a.status for a in answers} == {200}
    return [row for a in answers for row in a.json()]


def counted_releases(github: GitHub, number: int, night: date = NIGHT) -> int:
    query = f'{{ node(id: "R_node{number}") {{ ... on Repository {{ releases {{ totalCount }} }} }} }}'
    request = Request("github", "POST", "/graphql", json={"query": query})
    answer = github.respond(request, token="a", now=NOW, night=night).json()
    count: int = answer["data"]["node"]["releases"]["totalCount"]
    return count


class TestReleases:
    @pytest.mark.parametrize("path", ["/repos/owner5/repo.5/releases", "/repositories/1005/releases"])
    @pytest.mark.parametrize("size", [5, 6, 100])
    def test_as_many_as_are_counted(self, path: str, size: int) -> None:
        github = make_github()
        releases = rows(github, path, per_page=size)
        assert len(releases) == counted_releases(github, 5) == 18
        assert len({r["id"] for r in releases}) == len({r["tag_name"] for r in releases}) == 18
        days = [datetime.fromisoformat(r["published_at"]).date() for r in releases]
        assert days == sorted(days, reverse=True)
        assert date(2024, 6, 3) <= days[-1] <= days[0] <= NIGHT

    def test_links_are_numeric_and_name_first_and_last(self) -> None:
        github = make_github()
        url = "https://api.github.com/repositories/1005/releases?per_page=5&page="
        path = "/repos/owner5/repo.5/releases"
        assert linked(get(github, path, per_page=5)) == {"next": f"{url}2", "last": f"{url}4"}
        middle = {"prev": f"{url}1", "next": f"{url}3", "last": f"{url}4", "first": f"{url}1"}
        assert linked(get(github, path, per_page=5, page=2)) == middle
        assert linked(get(github, path, per_page=5, page=4)) == {"prev": f"{url}3", "first": f"{url}1"}
        beyond = get(github, path, per_page=5, page=9)
        assert (beyond.json(), linked(beyond)) == ([], {"prev": f"{url}4", "first": f"{url}1"})
        assert len(get(github, path).json()) == 18
        assert "link" not in get(github, path).headers
        assert get(github, path, page="9" * 5000, per_page="9" * 5000).json() == get(github, path).json()

    @needs_samples
    def test_the_order_of_the_relations_is_the_recorded_one(self) -> None:
        recorded = json.loads((SAMPLES / "github-rest/paginate_link_headers.json").read_bytes())[1]["response"]
        link = next(value for name, value in recorded["headers"] if name == "Link")
        ours = get(make_github(), "/repositories/1005/releases", per_page=3, page=2).headers["link"]
        assert re.findall(r'rel="\w+"', ours) == re.findall(r'rel="\w+"', link)

    def test_what_was_published_stays(self) -> None:
        github = make_github()
        before = get(github, "/repositories/1005/releases", night=NIGHT - timedelta(days=70)).json()
        assert len(before) == counted_releases(github, 5, NIGHT - timedelta(days=70)) == 17
        assert get(github, "/repositories/1005/releases").json()[1:] == before

    def test_stars_that_are_taken_back_take_releases_with_them_from_both_lists(self) -> None:
        github = make_github(replace(SCENARIOS["purged"], purged=1.0))
        last = FIRST_DAY + timedelta(days=DAYS - 1)
        listed = get(github, "/repositories/1005/releases", night=last).json()
        assert len(listed) == counted_releases(github, 5, last) < 18

    def test_a_gap_is_a_server_error_and_none_is_none(self) -> None:
        github = make_github()
        assert get(github, f"/repositories/{1000 + GAP}/releases").status == 502
        few = replace(make_world(), stars=make_world().stars // 100)
        assert get(make_github(world=few), "/repositories/1001/releases").json() == []

    def test_other_ways_to_ask(self) -> None:
        github = make_github()
        moved = get(github, "/repos/first0/repo/releases", per_page=2)
        assert moved.headers["location"] == "https://api.github.com/repositories/1000/releases?per_page=2"
        gone = make_github(replace(SCENARIOS["gone"], gone=1.0), repos=20)
        statuses = [
            [get(gone, f"/repositories/{1000 + n}{below}").status for n in range(20)]
            for below in ("", "/releases", "/events")
        ]
        assert statuses[0] == statuses[1] == statuses[2]
        assert set(statuses[0]) >= {403, 404, 451}
        stranger = make_github(replace(SCENARIOS["reoccupied"], reoccupied=1.0))
        late = FIRST_DAY + timedelta(days=DAYS - 1)
        assert get(stranger, "/repos/owner1/repo.1/releases", night=late).json() == []


class TestEvents:
    def test_stars_are_those_of_the_days(self) -> None:
        events = rows(make_github(), "/repos/owner1/repo.1/events", per_page=100)
        days = [datetime.fromisoformat(e["created_at"]) for e in events]
        assert days == sorted(days, reverse=True)
        assert days[0].date() == NIGHT
        stars = Counter(d.date() for d, e in zip(days, events, strict=True) if e["type"] == "WatchEvent")
        oldest = days[-1].date()
        whole = [NIGHT - timedelta(days=n) for n in range((NIGHT - oldest).days)]
        assert len(whole) > 7
        assert {stars[day] for day in whole} == {2}
        assert len(events) <= MAX_EVENTS
        assert NIGHT - oldest < timedelta(days=MAX_DAYS)

    @pytest.mark.parametrize(("a_day", "whole_days"), [(0, 0), (100, 2), (200, 1), (5000, 0)])
    def test_as_far_as_300_events_reach(self, a_day: int, whole_days: int) -> None:
        github = make_github(world=rising(a_day))
        events = rows(github, "/repositories/1001/events", per_page=100)
        stars = [datetime.fromisoformat(e["created_at"]).date() for e in events if e["type"] == "WatchEvent"]
        if not a_day:
            assert not stars
            return
        assert len(events) == MAX_EVENTS
        for n in range(whole_days):
            assert stars.count(NIGHT - timedelta(days=n)) == a_day
        assert 0 < stars.count(NIGHT - timedelta(days=whole_days)) < a_day
        assert events[0]["created_at"] > f"{NIGHT}T23"

    def test_a_full_mix_in_the_shape_of_2026(self) -> None:
        events = rows(make_github(world=rising(40)), "/repositories/1001/events", per_page=100)
        payloads = {e["type"]: e["payload"] for e in events}
        kinds = ["CreateEvent", "ForkEvent", "IssueCommentEvent", "IssuesEvent", "PullRequestEvent", "PushEvent"]
        assert sorted(payloads) == sorted([*kinds, "ReleaseEvent", "WatchEvent"])
        assert payloads["WatchEvent"] == {"action": "started"}
        assert set(payloads["PushEvent"]) == {"repository_id", "push_id", "ref", "head", "before"}
        assert set(payloads["PullRequestEvent"]["pull_request"]) == {"url", "id", "number", "head", "base"}
        assert "author_association" not in json.dumps(events)
        releases = {r["tag_name"]: r for r in get(make_github(world=rising(40)), "/repositories/1001/releases").json()}
        told = payloads["ReleaseEvent"]["release"]
        assert releases[told["tag_name"]] == told
        for event in events:
            assert event["repo"] == {
                "id": 1001,
                "name": "owner1/Repo.1",
                "url": "https://api.github.com/repos/owner1/Repo.1",
            }
            assert event["org"]["login"] == "owner1"

    @needs_samples
    def test_recorded_keys(self) -> None:
        (push, watch) = map(json.loads, (SAMPLES / "gharchive/events_after_2025-10-07.ndjson").read_text().splitlines())
        whole = json.loads((SAMPLES / "gharchive/events_before_2025-10-07.ndjson").read_text().splitlines()[0])
        ours = {e["type"]: e for e in rows(make_github(), "/repositories/1001/events", per_page=100)}
        assert set(ours["PushEvent"]["payload"]) == set(push["payload"])
        assert ours["WatchEvent"]["payload"] == watch["payload"]
        assert set(ours["PushEvent"]) == set(whole)
        for part in ("actor", "repo", "org"):
            assert set(ours["PushEvent"][part]) == set(whole[part])

    def test_ids_are_strings_that_neither_rise_nor_are_unique_without_the_type(self) -> None:
        events = rows(make_github(), "/repositories/1001/events", per_page=100)
        ids = [e["id"] for e in events]
        assert all(isinstance(i, str) and i.isdigit() for i in ids)
        numbers = [int(i) for i in ids]
        assert numbers not in (sorted(numbers), sorted(numbers, reverse=True))
        assert len({(e["type"], e["id"]) for e in events}) == len(events)
        assert len(set(ids)) < len(ids)

    def test_an_event_is_the_same_on_the_next_night(self) -> None:
        github = make_github()
        before = get(github, "/repositories/1001/events", per_page=100).json()
        after = get(github, "/repositories/1001/events", per_page=100, night=NIGHT + timedelta(days=1)).json()
        again = [e for e in after if e in before]
        assert again == before[: len(again)]
        assert {e["created_at"][:10] for e in after if e not in before} == {str(NIGHT + timedelta(days=1))}

    @pytest.mark.parametrize("oddity", ["empty", "archived"])
    def test_nobody_pushes_to_what_is_empty_or_archived(self, oddity: str) -> None:
        github = make_github(replace(SCENARIOS[oddity], **{oddity: 1.0}))  # type: ignore[arg-type]
        kinds = {e["type"] for e in rows(github, "/repositories/1001/events", per_page=100)}
        assert "PushEvent" not in kinds
        assert "WatchEvent" in kinds
        assert ("IssuesEvent" in kinds) == ("CreateEvent" in kinds) == (oddity == "empty")

    def test_a_young_repository_has_no_event_before_its_creation(self) -> None:
        world = make_world()
        github = make_github(world=replace(world, stars=np.where(world.stars < 0, -1, world.stars // 100)))
        created = FIRST_DAY + timedelta(days=100)
        answer = get(github, "/repositories/1002/events", per_page=100, night=created + timedelta(days=3))
        assert {e["created_at"][:10] for e in answer.json()} >= {str(created), str(created + timedelta(days=3))}
        assert min(e["created_at"][:10] for e in answer.json()) == str(created)
        assert len(answer.json()) < 100

    def test_pages_are_numeric_and_end_at_300(self) -> None:
        github = make_github(world=rising(5000))
        first = get(github, "/repos/owner1/repo.1/events")
        url = "https://api.github.com/repositories/1001/events?page="
        assert linked(first) == {"next": f"{url}2", "last": f"{url}10"}
        assert len(first.json()) == 30
        assert len(get(github, "/repositories/1001/events", page=10).json()) == 30
        assert len(get(github, "/repositories/1001/events", page=43, per_page=7).json()) == 6
        for page, size in ((11, 30), (4, 100), (301, 1)):
            refused = get(github, "/repositories/1001/events", page=page, per_page=size)
            assert (refused.status, "pagination is limited" in refused.json()["message"]) == (422, True)
        assert len(get(github, "/repositories/1001/events", per_page=101).json()) == 100


class TestPolling:
    @pytest.mark.parametrize("path", ["/repositories/1001/events", "/events"])
    def test_interval_and_tag_of_a_token(self, path: str) -> None:
        github = make_github()
        first = get(github, path)
        assert first.headers["x-poll-interval"] == "60"
        known = {"if-none-match": first.headers["etag"]}
        again = get(github, path, headers=known)
        assert (again.status, again.body, again.headers["x-poll-interval"]) == (304, b"", "60")
        assert again.headers["x-ratelimit-used"] == "1"
        assert get(github, path, headers=known, token="b").status == 200
        assert "last-modified" not in first.headers


class TestPublicFeed:
    def events(self, github: GitHub, minute: int) -> list[dict[str, Any]]:
        moment = NOW + timedelta(minutes=minute)
        return [e for n in (1, 2, 3) for e in get(github, "/events", per_page=100, page=n, now=moment).json()]

    def test_almost_no_stars(self) -> None:
        github = make_github()
        kinds = Counter(e["type"] for minute in range(20) for e in self.events(github, minute))
        assert kinds.total() == 20 * MAX_EVENTS
        assert 0 < kinds["WatchEvent"] < 0.01 * kinds.total()
        assert 0.9 < kinds["PushEvent"] / kinds.total() < 1.0

    def test_a_page_of_it(self) -> None:
        github = make_github()
        events = self.events(github, 0)
        moments = [datetime.fromisoformat(e["created_at"]) for e in events]
        assert moments == sorted(moments, reverse=True)
        assert timedelta(minutes=4) < NOW - moments[0] < timedelta(minutes=7)
        assert len({(e["type"], e["id"]) for e in events}) == MAX_EVENTS
        assert not {e["repo"]["id"] for e in events} & {1000 + n for n in range(6)}
        assert all("org" not in e for e in events)
        assert (
            linked(get(github, "/events", per_page=100))["last"] == "https://api.github.com/events?per_page=100&page=3"
        )
        assert get(github, "/events", per_page=100, page=4).status == 422

    def test_changes_with_the_minute_and_goes_by_the_clock_that_is_shown(self) -> None:
        github = make_github()
        first = get(github, "/events")
        known = {"if-none-match": first.headers["etag"]}
        assert get(github, "/events", headers=known, now=NOW + timedelta(seconds=59)).status == 304
        assert get(github, "/events", headers=known, now=NOW + timedelta(seconds=60)).status == 200
        ahead = get(make_github(SCENARIOS["clock_skew"]), "/events").json()[0]["created_at"]
        moved = datetime.fromisoformat(ahead) - datetime.fromisoformat(first.json()[0]["created_at"])
        assert moved == timedelta(seconds=600)


def search(github: GitHub, q: str, **params: str | int) -> Response:
    return get(github, "/search/repositories", q=q, **params)


def found(github: GitHub, q: str, **params: str | int) -> list[int]:
    answer = search(github, q, per_page=100, **params)
    assert answer.status == 200, answer.body
    ids = [item["id"] - 1000 for item in answer.json()["items"]]
    assert answer.json()["total_count"] == len(ids)
    return ids


class TestSearchLimits:
    def test_is_charged_to_search_and_not_to_core(self) -> None:
        github = make_github()
        head = search(github, "repo").headers
        told = {k.removeprefix("x-ratelimit-"): v for k, v in head.items() if "ratelimit" in k}
        reset = str(int(NOW.timestamp()) + 60)
        assert told == {"limit": "30", "remaining": "29", "used": "1", "resource": "search", "reset": reset}
        resources = get(github, "/rate_limit").json()["resources"]
        assert [resources[name]["used"] for name in ("core", "search", "graphql")] == [0, 1, 0]

    def test_thirty_a_minute(self) -> None:
        github = make_github()
        answers = [search(github, "repo") for _ in range(31)]
        assert {a.status for a in answers[:30]} == {200}
        assert answers[30].status in (403, 429)
        assert "rate limit exceeded" in answers[30].json()["message"]
        assert answers[30].headers["x-ratelimit-resource"] == "search"
        assert get(github, "/repositories/1000").status == 200
        assert search(github, "repo", token="b").status == 200
        assert search(github, "repo", now=NOW + timedelta(seconds=60)).status == 200
        assert github.limits.convictions() == 1

    def test_ten_without_a_token(self) -> None:
        github = make_github()
        assert search(github, "repo", token=None).headers["x-ratelimit-limit"] == "10"
        resources = get(github, "/rate_limit", token=None).json()["resources"]
        assert (resources["search"]["limit"], resources["search"]["used"]) == (10, 1)

    def test_a_refused_query_is_charged_too_and_nothing_is_tagged(self) -> None:
        github = make_github()
        assert search(github, "").headers["x-ratelimit-used"] == "1"
        sound = search(github, "repo")
        assert (sound.headers["x-ratelimit-used"], sound.headers["cache-control"]) == ("2", "no-cache")
        assert "etag" not in sound.headers


class TestSearchResults:
    @pytest.mark.parametrize(
        ("q", "expected"),
        [
            ("repo", [5, 4, 2, 1, 0]),
            ("REPO.2", [2]),
            ("owner2", []),
            ("repo .1", [1]),
            ("repo AND .1", [1]),
            ('"Repo.4"', [4]),
            ("repo in:name", [5, 4, 2, 1, 0]),
            ("stars:>2500", [5, 4, 2]),
            ("stars:>=2500", [5, 4, 2, 1]),
            ("stars:<2500", [0]),
            ("stars:<=2500", [1, 0]),
            ("stars:2500", [1]),
            ("stars:1250..2500", [1, 0]),
            ("stars:2501..*", [5, 4, 2]),
            ("stars:*..1249", []),
            ("stars:>1000 stars:<3000", [1, 0]),
            (f"created:{FIRST_DAY + timedelta(days=100)}", [2]),
            ("created:>2024-06-03", [2]),
            ("created:>=2024-06-03", [5, 4, 2, 1, 0]),
            ("created:<2024-06-03", []),
            ("created:2024-06-01..2024-06-30 stars:>2000", [5, 4, 1]),
        ],
    )
    def test_words_and_ranges(self, q: str, expected: list[int]) -> None:
        world = make_world()
        unseen = world.stars.copy()
        unseen[GAP] = -1
        assert found(make_github(world=replace(world, stars=unseen)), q) == expected

    def test_topics_are_those_of_the_repository_object(self) -> None:
        github = make_github(repos=40)
        topics = {n: get(github, f"/repositories/{1000 + n}").json().get("topics") for n in range(40)}
        for topic in TOPICS:
            expected = {n for n, known in topics.items() if known is not None and topic in known}
            assert set(found(github, f"topic:{topic}")) - {GAP} == expected
            assert 0 < len(expected) < 40
        assert found(github, "topic:nothing") == []
        first, second = topics_of(1000)[:2]
        assert set(found(github, f"topic:{first} topic:{second}")) == set(found(github, f"topic:{first}")) & set(
            found(github, f"topic:{second}")
        )

    def test_order(self) -> None:
        github = make_github()
        assert found(github, "repo", sort="stars", order="asc") == [0, 1, 2, 3, 4, 5]
        assert found(github, "repo", sort="forks") == [5, 4, 3, 2, 1, 0]
        assert found(github, "repo", sort="updated")[-1] == GAP

    def test_a_gap_is_found_with_its_last_counts(self) -> None:
        github = make_github()
        (item,) = search(github, "repo.3").json()["items"]
        assert item["stargazers_count"] == 4000 + 4 * 245
        assert get(github, "/repositories/1003").status == 502

    def test_what_nobody_can_see_is_not_found(self) -> None:
        for name in ("private", "gone"):
            github = make_github(replace(SCENARIOS[name], **{name: 1.0}), repos=20)  # type: ignore[arg-type]
            visible = {n for n in range(20) if get(github, f"/repositories/{1000 + n}").status in (200, 502)}
            assert set(found(github, "repo")) == visible
            assert len(visible) < 20
        assert found(make_github(), "repo.2", night=FIRST_DAY + timedelta(days=99)) == []

    def test_an_item_is_the_repository_less_what_a_search_leaves_out(self) -> None:
        github = make_github()
        body = search(github, "repo.1").json()
        (item,) = body["items"]
        whole = get(github, "/repositories/1001").json()
        assert item.pop("score") == 1.0
        assert item == {k: v for k, v in whole.items() if k in item}
        assert set(whole) - set(item) >= {"subscribers_count", "network_count"}
        assert list(body) == ["total_count", "incomplete_results", "items"]
        assert body["incomplete_results"] is False

    def test_a_thousand_can_be_reached_and_all_are_counted(self) -> None:
        github = make_github(repos=1200)
        answers = list(pages(github, "/search/repositories", q="stars:>0", per_page=100))
        assert [len(a.json()["items"]) for a in answers] == [100] * 10
        assert {a.json()["total_count"] for a in answers} == {1200}
        assert len({item["id"] for a in answers for item in a.json()["items"]}) == 1000
        for page, size in ((11, 100), (35, 30), (1001, 1)):
            refused = search(github, "stars:>0", per_page=size, page=page, token="b")
            assert refused.status == 422
            assert refused.json()["message"] == "Only the first 1000 search results are available"
        last = search(github, "stars:>0", page=34, token="b")
        assert len(last.json()["items"]) == 10
        url = linked(search(github, "stars:>0", token="b"))["last"]
        assert url == "https://api.github.com/search/repositories?q=stars%3A%3E0&page=34"
        few = make_github()
        assert search(few, "repo", page=10, per_page=100).json()["items"] == []
        assert search(few, "repo", page=11, per_page=100).status == 422

    def test_windows_of_days_reach_all(self) -> None:
        github = make_github(repos=1200)
        created = FIRST_DAY + timedelta(days=100)
        parts = [search(github, f"created:{span}").json()["total_count"] for span in (f"<{created}", f">={created}")]
        assert parts == [1199, 1]

    def test_a_search_that_runs_out_of_time(self) -> None:
        body = search(make_github(SCENARIOS["incomplete_search"]), "repo").json()
        assert body["incomplete_results"] is True
        assert body["total_count"] == len(body["items"]) == 3


class TestSearchRefusals:
    @pytest.mark.parametrize(
        ("q", "code", "words"),
        [
            ("", "missing", None),
            ("   ", "missing", None),
            ("x" * 257, "invalid", "longer than 256"),
            ("a AND b AND c AND d AND e AND f AND g", "invalid", "More than 5"),
            ("a OR b", "invalid", "not simulated"),
            ("NOT a", "invalid", "not simulated"),
            ("stars:many", "invalid", "no number"),
            ("stars:>-1", "invalid", "no number"),
            ("stars:10..many", "invalid", "no number"),
            ("stars:" + "9" * 200, "invalid", "no number"),
            ("stars:==3", "invalid", "no range"),
            ("created:>soon", "invalid", "no date"),
            ("created:2024-13-01", "invalid", "no date"),
            ("created:2024-02-30..2024-03-01", "invalid", "no date"),
            ("language:python", "invalid", "language is not simulated"),
            ("-topic:ai", "invalid", "-topic is not simulated"),
            ("in:readme agents", "invalid", "not simulated"),
        ],
    )
    def test_in_the_shape_of_github(self, q: str, code: str, words: str | None) -> None:
        answer = search(make_github(), q)
        body = answer.json()
        assert (answer.status, body["message"], body["status"]) == (422, "Validation Failed", "422")
        (error,) = body["errors"]
        message = error.pop("message", None)
        assert error == {"resource": "Search", "field": "q", "code": code}
        assert (words is None) == (message is None)
        assert words is None or words in message
        with pytest.raises(BadQuery):
            read_repository_query(q)

    def test_what_is_just_allowed(self) -> None:
        github = make_github()
        assert search(github, "x" * 256).status == 200
        assert search(github, "a AND b AND c AND d AND e AND f").status == 200
        assert get(github, "/search/repositories").status == 422
        assert get(github, "/search/code", q="x").status == 404
        nonsense = search(github, "repo", page="9" * 5000, per_page="9" * 5000)
        assert len(nonsense.json()["items"]) == 6


class TestUnchangedSince:
    path = "/repositories/1001"

    def test_last_modified_is_updated_at(self) -> None:
        answer = get(make_github(), self.path)
        updated_at = datetime.fromisoformat(answer.json()["updated_at"])
        assert parsedate_to_datetime(answer.headers["last-modified"]) == updated_at

    @needs_samples
    def test_as_recorded(self) -> None:
        recorded = json.loads((SAMPLES / "github-rest/repo_get_200.json").read_bytes())
        response = (recorded[0] if isinstance(recorded, list) else recorded)["response"]
        headers = {name.lower(): value for name, value in response["headers"]}
        updated_at = datetime.fromisoformat(response["body"]["updated_at"])
        assert parsedate_to_datetime(headers["last-modified"]) == updated_at

    def test_what_has_not_changed_is_free_whoever_asks(self) -> None:
        github = make_github()
        known = {"if-modified-since": get(github, self.path).headers["last-modified"]}
        for token, used in (("a", "1"), ("b", "0")):
            again = get(github, self.path, headers=known, token=token)
            assert (again.status, again.body, again.headers["x-ratelimit-used"]) == (304, b"", used)
            assert again.headers["last-modified"] == known["if-modified-since"]
        assert get(github, self.path, headers=known, night=NIGHT + timedelta(days=1)).status == 200

    @pytest.mark.parametrize(
        ("since", "status"),
        [
            (lambda at: at, 304),
            (lambda at: at + timedelta(days=1), 304),
            (lambda at: at - timedelta(seconds=1), 200),
        ],
    )
    def test_a_date_is_compared(self, since: Callable[[datetime], datetime], status: int) -> None:
        github = make_github()
        at = parsedate_to_datetime(get(github, self.path).headers["last-modified"])
        asked = {"if-modified-since": format_datetime(since(at), usegmt=True)}
        assert get(github, self.path, headers=asked).status == status

    @pytest.mark.parametrize("text", ["", "soon", "Mon, 99 Foo 2026 00:00:00 GMT", "9" * 5000])
    def test_what_is_no_date_is_passed_over(self, text: str) -> None:
        assert get(make_github(), self.path, headers={"if-modified-since": text}).status == 200

    def test_the_tag_goes_before_the_date(self) -> None:
        github = make_github()
        head = get(github, self.path).headers
        other = {"if-none-match": 'W/"other"', "if-modified-since": head["last-modified"]}
        assert get(github, self.path, headers=other).status == 200
        long_ago = format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)
        same = {"if-none-match": head["etag"], "if-modified-since": long_ago}
        assert get(github, self.path, headers=same).status == 304

    @pytest.mark.parametrize("below", ["/releases", "/events", "/stargazers/history", "/stargazers/count"])
    def test_lists_have_no_date(self, below: str) -> None:
        github = make_github()
        answer = get(github, self.path + below, headers={"if-modified-since": format_datetime(NOW, usegmt=True)})
        assert answer.status == 200
        assert "last-modified" not in answer.headers
