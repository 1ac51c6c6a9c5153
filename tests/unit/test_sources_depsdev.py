"""deps.dev's projects and packages, answered by hand and by the simulator."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.catalog import METRIC_BY_NAME
from astrid.errors import Malformed, SourceError
from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.depsdev import AGE_DAYS, LARGEST, DepsDev
from astrid.simulators.scenarios import CALM, SCENARIOS
from astrid.sources.depsdev import (
    DOUBLED,
    MAX_PAGES,
    MISTAKEN,
    NO_COUNT,
    NO_RELEASE,
    NO_VERSION,
    SOURCE,
    UNANSWERED,
    UNKNOWN_PACKAGE,
    UNKNOWN_REPOSITORY,
    Page,
    crawl,
    parse_package,
    parse_projects,
)
from astrid.sources.source import PATIENCE
from tests.by_fetcher import crawl_batches
from tests.by_hand import BROKEN, JSON, mutated, ok, run, sound, survives, table
from tests.synthetic_world import NIGHT, make_world

DAY = date(2026, 3, 31)
RELEASES, DEPENDENTS, STARS, FORKS = (
    METRIC_BY_NAME[f"depsdev_{name}"].metric_id for name in ("releases", "dependents", "stars", "forks")
)


def batch_of(task: str, *entities: tuple[str, ...], attempt: int = 0, day: date = DAY) -> Batch:
    made = tuple(Entity(n, f"p{n}", f"p{n}", names) for n, names in enumerate(entities))
    return Batch("depsdev", task, day, day, day, made, attempt=attempt)


def project(name: str, **changes: Any) -> dict[str, Any]:
    counts = {"projectKey": {"id": name.lower()}, "starsCount": 1200, "forksCount": 30} | changes
    return {"request": {"projectKey": {"id": name}}, "project": counts}


def page(*responses: Any, token: str = "") -> Response:
    return ok({"responses": list(responses), "nextPageToken": token})


PROXY = Response(404, {}, b"<html><h1>404 Not Found</h1></html>")


def version(
    number: str, published: Any = "2026-01-01T00:00:00Z", *, default: Any = False, of: str = "pypi/alpha"
) -> dict[str, Any]:
    system, _, name = of.partition("/")
    key = {"system": system.upper(), "name": name, "version": number}
    return {"versionKey": key, "publishedAt": published, "isDefault": default}


def package(*versions: Any, of: str = "pypi/alpha") -> Response:
    system, _, name = of.partition("/")
    return ok({"packageKey": {"system": system.upper(), "name": name}, "versions": list(versions)})


class TestProjects:
    def test_all_in_one_list_whatever_the_case_of_the_answer(self) -> None:
        batch = batch_of("projects", ("github.com/Own/Alpha", "pypi/alpha"), ("github.com/own/beta",))
        found, requests = run(crawl(batch), [page(project("github.com/own/ALPHA"), project("github.com/own/beta"))])
        assert table(sound(found, batch)) == {
            (n, metric, DAY): value for n in (0, 1) for metric, value in ((STARS, 1200.0), (FORKS, 30.0))
        }
        (request,) = requests
        assert request.json == {
            "requests": [{"projectKey": {"id": name}} for name in ("github.com/own/alpha", "github.com/own/beta")]
        }

    def test_pages_are_followed_and_what_none_holds_is_a_gap(self) -> None:
        batch = batch_of("projects", *((f"github.com/o/r{n}",) for n in range(4)))
        answers = [
            page(project("github.com/o/r0"), token="x"),
            page({"request": {"projectKey": {"id": "github.com/o/r1"}}}, token="y"),
            page(project("github.com/o/r2", starsCount=None)),
        ]
        found, requests = run(crawl(batch), answers)
        assert [r.json["pageToken"] for r in requests[1:]] == ["x", "y"]  # type: ignore[index]
        assert set(table(sound(found, batch))) == {(0, STARS, DAY), (0, FORKS, DAY), (2, FORKS, DAY)}
        assert {(g.entity_id, g.reason, g.retry) for g in found.gaps} == {
            (1, UNKNOWN_REPOSITORY, False),
            (2, NO_COUNT, True),
            (3, UNANSWERED, True),
        }

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"responses": []},
            {"responses": [None]},
            {"responses": [{"request": {"projectKey": {"id": "github.com/some/body"}}}]},
        ],
    )
    def test_silence_is_no_verdict(self, body: Any) -> None:
        with pytest.raises(Malformed, match="none of the 1 repositories"):
            run(crawl(batch_of("projects", ("github.com/o/r",))), [ok(body)])

    def test_only_an_answer_without_a_project_says_that_it_is_unknown(self) -> None:
        batch = batch_of("projects", *((f"github.com/o/r{n}",) for n in range(4)))
        asked = [{"projectKey": {"id": f"github.com/o/r{n}"}} for n in range(4)]
        body = [{"request": asked[0]}, {"request": asked[1], "project": None}, {"request": asked[2], "project": 7}]
        other = project("github.com/o/r3") | {"project": {"projectKey": {"id": "github.com/e/x"}, "starsCount": 9}}
        found, _ = run(crawl(batch), [page(*body, other)])
        assert {(g.entity_id, g.reason, g.retry) for g in sound(found, batch).gaps} == {
            (0, UNKNOWN_REPOSITORY, False),
            (1, UNKNOWN_REPOSITORY, False),
            (2, NO_COUNT, True),
            (3, MISTAKEN, True),
        }
        assert all(g.doubtful == g.retry for g in found.gaps), "a verdict is not asked for twice"

    def test_without_a_repository_nothing_is_asked(self) -> None:
        found, requests = run(crawl(batch_of("projects", ("pypi/alpha",))), [])
        assert requests == []
        assert {g.reason for g in found.gaps} == {UNKNOWN_REPOSITORY}

    @pytest.mark.parametrize("value", [-1, 1.5, "7", None, True, 2**31, [], {}])
    def test_an_unsound_count_costs_itself_alone(self, value: Any) -> None:
        batch = batch_of("projects", ("github.com/o/r",))
        found, _ = run(crawl(batch), [page(project("github.com/o/r", forksCount=value))])
        assert table(sound(found, batch)) == {(0, STARS, DAY): 1200.0}
        assert [(g.metric_id, g.retry) for g in found.gaps] == [(FORKS, True)]

    def test_one_that_is_stated_twice_and_not_alike_is_not_believed(self) -> None:
        name = "github.com/o/r"
        first, second = project(name), project("github.com/O/R", starsCount=7)
        assert parse_projects(page(first, second, first)) == Page({name: DOUBLED}, "")
        assert parse_projects(page(first, first)).found == {name: (1200, 30)}
        for answers in ([page(first, second)], [page(first, token="x"), page(second)]):
            found, _ = run(crawl(batch_of("projects", (name,))), answers)
            assert {(g.metric_id, g.reason, g.retry) for g in found.gaps} == {
                (metric, DOUBLED, True) for metric in (STARS, FORKS)
            }
        found, _ = run(crawl(batch_of("projects", (name,))), [page(first, token="x"), page(first)])
        assert len(found) == 2

    def test_paging_ends(self) -> None:
        batch = batch_of("projects", ("github.com/o/r",))
        with pytest.raises(Malformed, match="lead back"):
            run(crawl(batch), [page(token="x"), page(token="y"), page(token="x")])
        answers = (page(token=str(n)) for n in range(10**6))
        with pytest.raises(Malformed, match=f"more than {MAX_PAGES} pages"):
            run(crawl(batch), lambda _: next(answers))

    @pytest.mark.parametrize("response", BROKEN)
    def test_a_broken_answer_is_no_list(self, response: Response) -> None:
        with pytest.raises(SourceError):
            run(crawl(batch_of("projects", ("github.com/o/r",), attempt=PATIENCE)), [response])

    @given(JSON)
    def test_any_json(self, body: Any) -> None:
        name = "github.com/o/r"
        batch = batch_of("projects", (name,), ("github.com/o/s",))
        for value in (
            body,
            {"responses": body},
            {"responses": [body], "nextPageToken": body},
            {"responses": [{"request": {"projectKey": {"id": name}}, "project": body}]},
            {"responses": [project(name, starsCount=body, forksCount=body)]},
        ):
            survives(lambda: crawl(batch), lambda _, v=value: ok(v), batch)

    def test_an_answer_with_anything_in_it(self) -> None:
        names = ("github.com/o/r", "github.com/o/s")
        batch = batch_of("projects", *((name,) for name in names))
        accepted = Counter[int]()

        @given(mutated({"responses": [project(name) for name in names], "nextPageToken": ""}))
        def survive(body: Any) -> None:
            accepted[survives(lambda: crawl(batch), lambda _: ok(body), batch)] += 1

        survive()
        assert min(accepted[0], accepted[2]) > 2, accepted


class TestPackages:
    def test_releases_and_dependents_of_the_default_version(self) -> None:
        batch = batch_of("packages", ("github.com/a/b", "pypi/alpha", "npm/alpha"), ("npm/@s/beta",))
        answers = [
            package(version("1.0"), version("1.1", default=True)),
            ok({"dependentCount": 9}),
            package(version("2.0-a/b", default=True, of="npm/@s/beta"), of="npm/@s/beta"),
            ok({"dependentCount": 0}),
        ]
        found, requests = run(crawl(batch), answers)
        assert table(sound(found, batch)) == {
            (0, RELEASES, DAY): 2.0,
            (0, DEPENDENTS, DAY): 9.0,
            (1, RELEASES, DAY): 1.0,
            (1, DEPENDENTS, DAY): 0.0,
        }
        assert [r.path.removeprefix("/v3alpha/systems/") for r in requests] == [
            "pypi/packages/alpha",
            "pypi/packages/alpha/versions/1.1:dependents",
            "npm/packages/%40s%2Fbeta",
            "npm/packages/%40s%2Fbeta/versions/2.0-a%2Fb:dependents",
        ]

    def test_releases_of_later_days_are_not_counted(self) -> None:
        late = version("2.0", "2026-04-01T00:00:00Z", default=True)
        rows = (version("1.0"), version("1.0"), version("1.1", None), version("1.2", "some day"), late)
        assert parse_package(package(*rows), "pypi/alpha", DAY) == (3, "")
        assert parse_package(package(late), "pypi/alpha", DAY) == (0, ""), "it was published a day later"

    @pytest.mark.parametrize(
        "junk",
        [
            *(None, 7, "x", [], {}, {"versionKey": None}, {"versionKey": {"version": 7}}),
            *({"versionKey": {"version": "7"}}, version("7", of="npm/alpha"), version("7", of="pypi/beta")),
        ],
    )
    def test_a_row_that_is_none_is_not_counted(self, junk: Any) -> None:
        assert parse_package(package(junk, version("1.0", default=True)), "pypi/alpha", DAY) == (1, "1.0")

    def test_two_versions_cannot_both_be_installed_by_default(self) -> None:
        answer = package(version("1.0", default=True), version("1.1", default=True))
        assert parse_package(answer, "pypi/alpha", DAY) == (2, "")

    def test_a_name_in_the_spelling_of_deps_dev(self) -> None:
        stated = package(version("1", of="pypi/My.Package_x"), of="pypi/my-package-x")
        assert parse_package(stated, "pypi/my_package--X", DAY)[0] == 1
        with pytest.raises(Malformed, match="when asked for npm/a_b"):
            parse_package(package(of="npm/a-b"), "npm/a_b", DAY)

    @pytest.mark.parametrize(
        "key", [None, 7, {}, {"system": "NPM", "name": "alpha"}, {"system": "PYPI", "name": "beta"}, {"name": "alpha"}]
    )
    def test_another_package_is_not_this_one(self, key: Any) -> None:
        body = ok({"packageKey": key, "versions": [version("1.0", default=True)]})
        with pytest.raises(Malformed, match="answered about"):
            run(crawl(batch_of("packages", ("pypi/alpha",))), [body])

    @pytest.mark.parametrize("versions", [None, [], 7, [None, 7, {}], {"versions": None}])
    def test_no_version_that_can_be_read_is_no_count_of_0(self, versions: Any) -> None:
        batch = batch_of("packages", ("pypi/alpha",))
        key = {"packageKey": {"system": "PYPI", "name": "alpha"}}
        for answer in (ok(key | {"versions": versions}), ok(key)):
            found, _ = run(crawl(batch), [answer])
            assert {(g.metric_id, g.reason, g.retry) for g in sound(found, batch).gaps} == {
                (metric, NO_RELEASE, True) for metric in (RELEASES, DEPENDENTS)
            }
            assert all(g.doubtful for g in found.gaps)

    def test_unknown_ones_are_no_reason_to_ask_again(self) -> None:
        batch = batch_of("packages", ("pypi/gone",), ("pypi/plain",), ("pypi/new",), ("github.com/a/b",))
        gone = ok({"code": 5, "message": "package not found"}, 404)
        answers = [
            gone,
            package(version("1.0", of="pypi/plain"), of="pypi/plain"),
            package(version("1.0", default=True, of="pypi/new"), of="pypi/new"),
            gone,
        ]
        found, _ = run(crawl(batch), answers)
        assert table(sound(found, batch)) == {(1, RELEASES, DAY): 1.0, (2, RELEASES, DAY): 1.0}
        assert {(g.entity_id, g.reason, g.retry) for g in found.gaps} == {
            (0, UNKNOWN_PACKAGE, False),
            (1, NO_VERSION, False),
            (2, NO_VERSION, False),
            (3, UNKNOWN_PACKAGE, False),
        }

    @pytest.mark.parametrize("refusal", [PROXY, ok({"code": 12}, 404), ok([5], 404), ok({"code": 5}, 403)])
    def test_a_refusal_that_is_not_deps_devs_own_says_nothing(self, refusal: Response) -> None:
        whole = package(version("1.0", default=True))
        for answers in ([refusal], [whole, refusal]):
            with pytest.raises(Malformed, match=f"answered {refusal.status}"):
                run(crawl(batch_of("packages", ("pypi/alpha",))), answers)
            found, _ = run(crawl(batch_of("packages", ("pypi/alpha",), attempt=PATIENCE)), answers)
            assert {g.retry for g in found.gaps} == {True}

    @pytest.mark.parametrize("response", BROKEN)
    def test_patience_ends_with_a_gap_for_the_broken_one(self, response: Response) -> None:
        names = (("pypi/alpha",), ("github.com/a/b", "pypi/alpha"))
        good = [package(version("1.0", default=True)), ok({"dependentCount": 3})]
        with pytest.raises(SourceError):
            run(crawl(batch_of("packages", *names)), [response])
        patient = batch_of("packages", *names, attempt=PATIENCE)
        for answers in ([response, *good], [good[0], response, *good]):
            found, _ = run(crawl(patient), answers)
            assert {(g.entity_id, g.retry) for g in sound(found, patient).gaps} == {(0, True)}

    @given(JSON, st.integers(0, PATIENCE))
    def test_any_json(self, body: Any, attempt: int) -> None:
        batch = batch_of("packages", ("pypi/alpha",), attempt=attempt)
        key = {"packageKey": {"system": "PYPI", "name": "alpha"}}
        for first, second in (
            (body, body),
            (key | {"versions": body}, body),
            (key | {"versions": [body]}, body),
            (key | {"versions": [version("1", body, default=body)]}, body),
            (key | {"versions": [version("1", default=True)]}, {"dependentCount": body}),
        ):
            survives(
                lambda: crawl(batch),
                lambda r, a=first, b=second: ok(b if r.path.endswith(":dependents") else a),
                batch,
            )

    def test_answers_with_anything_in_them(self) -> None:
        batch = batch_of("packages", ("pypi/alpha",), attempt=PATIENCE)
        accepted = Counter[int]()
        whole = json.loads(package(version("1.0"), version("1.1", default=True)).body)

        @given(mutated(whole), mutated({"dependentCount": 9, "directDependentCount": 2}))
        def survive(first: Any, second: Any) -> None:
            answers = {True: ok(second), False: ok(first)}
            accepted[survives(lambda: crawl(batch), lambda r: answers[r.path.endswith(":dependents")], batch)] += 1

        survive()
        assert min(accepted[0], accepted[1], accepted[2]) > 2, accepted


def test_what_each_task_takes() -> None:
    both, bare, packaged = (
        Entity(n, "p", "p", names)
        for n, names in enumerate((("github.com/a/b", "pypi/a"), ("github.com/a/b",), ("npm/@s/a",)))
    )
    projects, packages = SOURCE.tasks["projects"], SOURCE.tasks["packages"]
    assert [projects.accepts(e) for e in (both, bare, packaged)] == [True, True, False]
    assert [packages.accepts(e) for e in (both, bare, packaged)] == [True, False, True]


class TestSimulator:
    def ask(self, upstream: DepsDev, request: Request, at_s: float = 0.0, night: date = NIGHT) -> Response:
        now = datetime(2025, 9, 9, 5, tzinfo=UTC) + timedelta(seconds=at_s)
        return upstream.respond(request, token=None, now=now, night=night)

    def test_counts_are_those_of_days_ago_and_strangers_are_gaps(self) -> None:
        world = make_world()
        names = [f"github.com/{repo.name}" for repo in world.repos] + ["github.com/no/body"]
        batch = batch_of("projects", *((name,) for name in names), day=NIGHT)
        upstream = DepsDev(world)
        found, requests = run(crawl(batch), lambda r: self.ask(upstream, r))
        assert len(requests) == 1
        counted = table(sound(found, batch))
        day = (NIGHT - timedelta(days=AGE_DAYS) - world.first_day).days
        then = {n: int(count) for n, count in enumerate(world.stars[:, day]) if count >= 0}
        assert {key[0]: value for key, value in counted.items() if key[1] == STARS} == then
        assert len(world.repos) in {g.entity_id for g in found.gaps}

    def test_lists_come_in_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("astrid.simulators.depsdev.PAGE", 2)
        world = make_world()
        names = [f"github.com/{repo.name}" for repo in world.repos]
        batch = batch_of("projects", *((name,) for name in names), day=NIGHT)
        paged, requests = run(crawl(batch), lambda r: self.ask(DepsDev(world), r))
        assert len(requests) == -(-len(names) // 2)
        monkeypatch.undo()
        whole, _ = run(crawl(batch), lambda r: self.ask(DepsDev(world), r))
        assert table(paged) == table(whole)

    def test_releases_and_dependents_grow(self) -> None:
        upstream = DepsDev(make_world())
        totals = []
        for night in (NIGHT, NIGHT + timedelta(days=28)):
            batch = batch_of("packages", ("pypi/alpha",), ("pypi/no-such-thing",), day=night)
            found, _ = run(crawl(batch), lambda r, n=night: self.ask(upstream, r, night=n))
            counted = table(sound(found, batch))
            totals.append(np.array([counted[0, metric, night] for metric in (RELEASES, DEPENDENTS)]))
            assert {g.entity_id for g in found.gaps} == {1}
        assert totals[1][0] == totals[0][0] + 2
        assert totals[1][1] >= totals[0][1]

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"requests": [{"projectKey": {"id": "github.com/a/b"}}] * (LARGEST + 1)}, 400),
            ({"requests": [], "pageToken": "of somebody else"}, 400),
            ({"requests": [{"projectKey": 7}]}, 400),
            ([], 400),
        ],
    )
    def test_a_list_that_is_none(self, body: Any, status: int) -> None:
        request = Request("depsdev", "POST", "/v3alpha/projectbatch", json=body)
        assert self.ask(DepsDev(make_world()), request).status == status

    def test_dependents_that_begin_anew_stand_as_they_are_stated(self) -> None:
        upstream = DepsDev(make_world(), scenario=replace(SCENARIOS["counter_reset"], resets=1.0))
        counted = []
        for night in (NIGHT + timedelta(days=n) for n in range(29)):
            batch = batch_of("packages", ("pypi/alpha",), day=night)
            found, _ = run(crawl(batch), lambda r, n=night: self.ask(upstream, r, at_s=n.toordinal(), night=n))
            counted.append(table(sound(found, batch))[0, DEPENDENTS, night])
            assert counted[-1] == upstream.dependents("pypi", "alpha", night)
        assert sum(later < sooner for sooner, later in pairwise(counted)) == 1

    @pytest.mark.parametrize("given_as", ["json", "content"])
    def test_a_list_is_read_however_it_is_given(self, given_as: str) -> None:
        body = {"requests": [{"projectKey": {"id": "github.com/owner1/repo.1"}}]}
        how: Any = {"json": body} if given_as == "json" else {"content": json.dumps(body).encode()}
        answer = self.ask(DepsDev(make_world()), Request("depsdev", "POST", "/v3alpha/projectbatch", **how))
        assert answer.json()["responses"][0]["project"]["starsCount"] > 0
        for junk in (b"", b"<", b"[]", b"7"):
            request = Request("depsdev", "POST", "/v3alpha/projectbatch", content=junk)
            assert self.ask(DepsDev(make_world()), request).status == 400

    def test_a_client_that_asks_too_fast_is_refused_and_convicted(self) -> None:
        upstream = DepsDev(make_world())
        request = Request("depsdev", "GET", "/v3alpha/systems/pypi/packages/alpha")
        answers = [self.ask(upstream, request, n / 100) for n in range(11)]
        assert [a.status for a in answers] == [200] * 10 + [429]
        assert float(answers[-1].headers["retry-after"]) >= 1
        assert upstream.limits.convictions() == 1
        assert self.ask(upstream, request, 2.0).status == 200


# Through the fetcher and the budget

PACKAGES = [("pypi/alpha",), ("npm/@scope/beta",), ("pypi/no-such-thing",)]


@pytest.mark.parametrize(
    ("kind", "probability", "reasons"),
    [
        ("depsdev_too_many", 0.3, set()),
        ("depsdev_bad_counts", 0.5, {NO_COUNT, NO_RELEASE}),
        ("depsdev_wrong_rows", 0.5, {UNANSWERED, DOUBLED}),
        ("endless_paging", 0.5, set()),
        ("gzip_bomb", 0.3, set()),
        ("proxy_not_found", 0.5, set()),
    ],
)
def test_foul_weather_brings_no_false_value(kind: str, probability: float, reasons: set[str]) -> None:
    world = make_world()
    repositories = [(f"github.com/{repo.name}",) for repo in world.repos]
    met, seen = Counter[str](), 0
    for seed in range(6):
        upstream = DepsDev(world, scenario=replace(SCENARIOS[kind], probability=probability, seed=seed))
        batches = [
            batch_of("projects", *repositories, day=NIGHT),
            batch_of("packages", *PACKAGES, day=NIGHT),
        ]
        crawled = crawl_batches(batches, upstream, NIGHT)
        assert not any("bug" in reason for reason in crawled.dead)
        assert upstream.limits.convictions() == 0
        for batch, found in crawled.found:
            met.update(g.reason for g in found.gaps)
            for (n, metric, _), value in table(sound(found, batch)).items():
                name = batch.entities[n].names[0]
                system, _, bare = name.partition("/")
                if metric in (STARS, FORKS):
                    counts = upstream.counts(name, NIGHT)
                    assert counts is not None
                    assert value == counts["starsCount" if metric == STARS else "forksCount"]
                else:
                    truth = upstream.releases if metric == RELEASES else upstream.dependents
                    assert value == truth(system, bare, NIGHT)
                seen += 1
        met.update(upstream.limits.report()["faults"])
    assert met[kind] > 3
    assert reasons <= set(met)
    assert seen > 30


def test_calm_every_count_comes_and_nobody_is_convicted() -> None:
    upstream = DepsDev(make_world(), scenario=CALM)
    crawled = crawl_batches([batch_of("packages", *PACKAGES, day=NIGHT)], upstream, NIGHT)
    ((batch, found),) = crawled.found
    assert len(sound(found, batch)) == 4
    assert {g.reason for g in found.gaps} == {UNKNOWN_PACKAGE}
    assert upstream.limits.convictions() == 0
