"""deps.dev's projects and packages, answered by hand and by the simulator."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.catalog import METRIC_BY_NAME
from astrid.errors import Malformed, SourceError
from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.depsdev import AGE_DAYS, LARGEST, DepsDev
from astrid.sources.depsdev import (
    MAX_PAGES,
    NO_COUNT,
    NO_VERSION,
    SOURCE,
    UNKNOWN_PACKAGE,
    UNKNOWN_REPOSITORY,
    crawl,
    parse_package,
    parse_projects,
)
from astrid.sources.source import PATIENCE
from tests.by_hand import BROKEN, JSON, ok, run, sound, survives, table
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


def version(number: str, published: Any = "2026-01-01T00:00:00Z", *, default: Any = False) -> dict[str, Any]:
    return {"versionKey": {"version": number}, "publishedAt": published, "isDefault": default}


def package(*versions: Any) -> Response:
    return ok({"packageKey": {"system": "PYPI", "name": "alpha"}, "versions": list(versions)})


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
            (3, UNKNOWN_REPOSITORY, False),
        }

    @pytest.mark.parametrize("value", [-1, 1.5, "7", None, True, 2**31, [], {}])
    def test_an_unsound_count_costs_itself_alone(self, value: Any) -> None:
        batch = batch_of("projects", ("github.com/o/r",))
        found, _ = run(crawl(batch), [page(project("github.com/o/r", forksCount=value))])
        assert table(sound(found, batch)) == {(0, STARS, DAY): 1200.0}
        assert [(g.metric_id, g.retry) for g in found.gaps] == [(FORKS, True)]

    def test_one_that_is_stated_twice_and_not_alike_is_not_believed(self) -> None:
        twice = [project("github.com/o/r"), project("github.com/O/R", starsCount=7)]
        assert parse_projects(page(*twice)) == ({}, "")
        assert parse_projects(page(twice[0], twice[0]))[0] == {"github.com/o/r": (1200, 30)}

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


class TestPackages:
    def test_releases_and_dependents_of_the_default_version(self) -> None:
        batch = batch_of("packages", ("github.com/a/b", "pypi/alpha", "npm/alpha"), ("npm/@s/beta",))
        answers = [
            package(version("1.0"), version("1.1", default=True)),
            ok({"dependentCount": 9}),
            package(version("2.0-a/b", default=True)),
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
        assert parse_package(package(version("1.0"), version("1.0"), version("1.1", None), late), DAY) == (2, "")

    @pytest.mark.parametrize("junk", [None, 7, "x", [], {}, {"versionKey": None}, {"versionKey": {"version": 7}}])
    def test_a_row_that_is_none_is_not_counted(self, junk: Any) -> None:
        assert parse_package(package(junk, version("1.0", default=True)), DAY) == (1, "1.0")

    def test_unknown_ones_are_no_reason_to_ask_again(self) -> None:
        batch = batch_of("packages", ("pypi/gone",), ("pypi/empty",), ("pypi/new",), ("github.com/a/b",))
        gone = ok({"code": 5, "message": "package not found"}, 404)
        answers = [gone, package(), package(version("1.0", default=True)), gone]
        found, _ = run(crawl(batch), answers)
        assert table(sound(found, batch)) == {(1, RELEASES, DAY): 0.0, (2, RELEASES, DAY): 1.0}
        assert {(g.entity_id, g.reason, g.retry) for g in found.gaps} == {
            (0, UNKNOWN_PACKAGE, False),
            (1, NO_VERSION, False),
            (2, NO_VERSION, False),
            (3, UNKNOWN_PACKAGE, False),
        }

    @pytest.mark.parametrize("response", BROKEN)
    def test_patience_ends_with_a_gap_for_the_broken_one(self, response: Response) -> None:
        names = (("pypi/a",), ("pypi/b",))
        good = [package(version("1.0", default=True)), ok({"dependentCount": 3})]
        with pytest.raises(SourceError):
            run(crawl(batch_of("packages", *names)), [response])
        patient = batch_of("packages", *names, attempt=PATIENCE)
        for answers in ([response, *good], [good[0], response, *good]):
            found, _ = run(crawl(patient), answers)
            assert {(g.entity_id, g.retry) for g in sound(found, patient).gaps} == {(0, True)}

    @given(JSON, st.integers(0, PATIENCE))
    def test_any_json(self, body: Any, attempt: int) -> None:
        batch = batch_of("packages", ("pypi/a",), attempt=attempt)
        whole = {"packageKey": {}, "versions": [version("1", default=True)]}
        for first, second in (
            (body, body),
            ({"packageKey": {}, "versions": body}, body),
            ({"packageKey": {}, "versions": [body]}, body),
            ({"packageKey": {}, "versions": [version("1", body, default=body)]}, body),
            (whole, {"dependentCount": body}),
        ):
            survives(
                lambda: crawl(batch),
                lambda r, a=first, b=second: ok(b if r.path.endswith(":dependents") else a),
                batch,
            )


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
            ([], 200),
        ],
    )
    def test_a_list_that_is_none(self, body: Any, status: int) -> None:
        request = Request("depsdev", "POST", "/v3alpha/projectbatch", json=body)
        assert self.ask(DepsDev(make_world()), request).status == status

    def test_a_client_that_asks_too_fast_is_refused_and_convicted(self) -> None:
        upstream = DepsDev(make_world())
        request = Request("depsdev", "GET", "/v3alpha/systems/pypi/packages/alpha")
        answers = [self.ask(upstream, request, n / 100) for n in range(11)]
        assert [a.status for a in answers] == [200] * 10 + [429]
        assert float(answers[-1].headers["retry-after"]) >= 1
        assert upstream.limits.convictions() == 1
        assert self.ask(upstream, request, 2.0).status == 200
