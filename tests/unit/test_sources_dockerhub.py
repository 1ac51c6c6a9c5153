"""Docker Hub's images, answered by hand, by a recorded answer and by the simulator."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError
from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.dockerhub import DockerHub
from astrid.simulators.scenarios import SCENARIOS
from astrid.sources.dockerhub import crawl, parse_repository
from astrid.sources.source import PATIENCE
from tests.by_fetcher import crawl_batches
from tests.by_hand import BROKEN, JSON, mutated, ok, run, sound, survives, table
from tests.synthetic_world import NIGHT, make_world

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "dockerhub"
DAY = date(2026, 3, 31)
PULLS, STARS = 70, 71


def batch_of(*images: str, attempt: int = 0, day: date = DAY) -> Batch:
    entities = tuple(Entity(n, f"p{n}", image, (image,)) for n, image in enumerate(images))
    return Batch("dockerhub", "images", day, day, day, entities, attempt=attempt)


def image(key: str, **changes: Any) -> Response:
    namespace, _, name = key.partition("/")
    return ok({"namespace": namespace, "name": name, "pull_count": 1200, "star_count": 3} | changes)


def test_two_values_an_image() -> None:
    batch = batch_of("a/b", "c/d")
    found, requests = run(crawl(batch), [image("a/b"), image("c/d", pull_count=0)])
    assert table(sound(found, batch)) == {
        (0, PULLS, DAY): 1200.0,
        (0, STARS, DAY): 3.0,
        (1, PULLS, DAY): 0.0,
        (1, STARS, DAY): 3.0,
    }
    assert [r.path for r in requests] == ["/v2/repositories/a/b/", "/v2/repositories/c/d/"]


@pytest.mark.parametrize("value", [-1, 1.5, "7", None, True, 10**12, [], {}])
def test_an_unsound_count_costs_itself_alone(value: Any) -> None:
    batch = batch_of("a/b")
    found, _ = run(crawl(batch), [image("a/b", pull_count=value)])
    assert table(sound(found, batch)) == {(0, STARS, DAY): 3.0}
    assert [(g.metric_id, g.retry, g.doubtful) for g in found.gaps] == [(PULLS, True, True)]


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("message", ["object not found", "httperror 404: object not found"])
def test_one_that_is_gone_is_no_reason_to_ask_again(message: str, status: int) -> None:
    batch = batch_of("a/gone", "c/d")
    found, _ = run(crawl(batch), [ok({"message": message, "errinfo": {}}, status), image("c/d")])
    assert {(g.entity_id, g.retry) for g in sound(found, batch).gaps} == {(0, False)}
    assert len(found) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        Response(404, {}, b"<html><h1>404 Not Found</h1></html>"),
        ok({"message": 7}, 404),
        ok({"message": "no such route"}, 404),
        ok(["object not found"], 404),
        ok({"message": "object not found"}, 403),
    ],
)
def test_a_refusal_that_is_not_docker_hubs_own_says_nothing(refusal: Response) -> None:
    with pytest.raises(Malformed, match=f"answered {refusal.status}"):
        run(crawl(batch_of("a/b")), [refusal])
    found, _ = run(crawl(batch_of("a/b", attempt=PATIENCE)), [refusal])
    assert {g.retry for g in found.gaps} == {True}


@pytest.mark.parametrize("key", ["", "a", "../b", "a/b/c", "A/b", "a/b?x=1"])
def test_what_is_no_name_is_not_asked_for(key: str) -> None:
    found, requests = run(crawl(batch_of(key)), [])
    assert requests == []
    assert [g.retry for g in found.gaps] == [False, False]


@pytest.mark.parametrize("response", [*BROKEN, image("other/name")])
def test_patience_ends_with_a_gap_for_the_broken_one(response: Response) -> None:
    with pytest.raises(SourceError):
        run(crawl(batch_of("a/b", "c/d")), [response])
    patient = batch_of("a/b", "c/d", attempt=PATIENCE)
    found, _ = run(crawl(patient), [response, image("c/d")])
    assert {(g.entity_id, g.retry) for g in sound(found, patient).gaps} == {(0, True)}


@given(JSON, st.integers(0, PATIENCE))
def test_any_json(body: Any, attempt: int) -> None:
    for value in (body, {"namespace": "a", "name": "b", "pull_count": body, "star_count": body}):
        batch = batch_of("a/b", attempt=attempt)
        survives(lambda b=batch: crawl(b), lambda _, v=value: ok(v), batch)


def test_answers_with_anything_in_them() -> None:
    accepted = Counter[int]()
    more = {"user": "a", "repository_type": "image", "status": 1, "is_private": False, "last_updated": "2026-03-31"}

    @given(mutated(json.loads(image("a/b", **more).body)))
    def survive(body: Any) -> None:
        batch = batch_of("a/b", attempt=PATIENCE)
        accepted[survives(lambda: crawl(batch), lambda _: ok(body), batch)] += 1

    survive()
    assert min(accepted[0], accepted[1], accepted[2]) > 2, accepted


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
def test_recorded_answer() -> None:
    body = json.loads((SAMPLES / "repository_datasette.json").read_text())
    assert parse_repository(ok(body), "datasetteproject/datasette") == {"pull_count": 231874, "star_count": 15}
    with pytest.raises(Malformed, match="answered about"):
        parse_repository(ok(body), "a/b")


class TestSimulator:
    def ask(self, hub: DockerHub, request: Request, at_s: float = 0.0, night: date = NIGHT) -> Response:
        now = datetime(2025, 9, 9, 5, tzinfo=UTC) + timedelta(seconds=at_s)
        return hub.respond(request, token=None, now=now, night=night)

    def test_counts_grow_and_unknown_ones_are_gaps(self) -> None:
        hub = DockerHub(make_world())
        pulls = []
        for night in (NIGHT, NIGHT + timedelta(days=1)):
            batch = batch_of("a/b", "a/no-such-image", day=night)
            found, _ = run(crawl(batch), lambda r, n=night: self.ask(hub, r, night=n))
            pulls.append(table(sound(found, batch))[0, PULLS, night])
            assert {g.entity_id for g in found.gaps} == {1}
        assert pulls[0] < pulls[1]

    def test_a_counter_that_begins_anew_stands_as_it_is_stated(self) -> None:
        hub = DockerHub(make_world(), scenario=replace(SCENARIOS["counter_reset"], resets=1.0))
        pulls = []
        for n in range(57):
            night = NIGHT + timedelta(days=n)
            batch = batch_of("a/b", day=night)
            found, _ = run(crawl(batch), lambda r, d=night, s=60.0 * n: self.ask(hub, r, s, night=d))
            assert found.gaps == ()
            pulls.append(table(sound(found, batch))[0, PULLS, night])
            assert pulls[-1] == hub.counts("a/b", night)["pull_count"]
        assert sum(later < sooner for sooner, later in pairwise(pulls)) == 2
        plain = DockerHub(make_world(), scenario=SCENARIOS["calm"])
        whole = [plain.counts("a/b", NIGHT + timedelta(days=n))["pull_count"] for n in range(57)]
        assert whole == sorted(whole)

    @pytest.mark.parametrize(
        "kind", ["dockerhub_too_many", "dockerhub_bad_counts", "gzip_bomb", "proxy_not_found", "bad_gateway_html"]
    )
    def test_foul_weather_brings_no_false_value(self, kind: str) -> None:
        hub = DockerHub(make_world(), scenario=replace(SCENARIOS[kind], probability=0.3))
        images = [*(f"lab/image-{n}" for n in range(30)), "lab/no-such-image"]
        crawled = crawl_batches([batch_of(*images, day=NIGHT)], hub, NIGHT)
        assert hub.limits.report()["faults"][kind] > 3
        assert hub.limits.convictions() == 0
        ((batch, found),) = crawled.found
        names = {PULLS: "pull_count", STARS: "star_count"}
        values = table(sound(found, batch))
        for (n, metric, _), value in values.items():
            assert value == hub.counts(images[n], NIGHT)[names[metric]]
        assert len(values) + len(found.gaps) == 2 * len(images)
        assert len(values) > 25

    def test_a_client_that_asks_too_fast_is_refused_and_convicted(self) -> None:
        hub = DockerHub(make_world())
        request = Request("dockerhub", "GET", "/v2/repositories/a/b/")
        statuses = [self.ask(hub, request, n / 10).status for n in range(101)]
        assert statuses == [200] * 100 + [429]
        assert hub.limits.convictions() == 1
        assert self.ask(hub, request, 61.0).status == 200
