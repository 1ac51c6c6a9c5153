"""What ``docs/add-a-source.md`` asks of a source is what every registered one has."""

from __future__ import annotations

import ast
import json
import time
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrid.catalog import METRICS, ORIGINS
from astrid.http import HttpFetcher, open_session
from astrid.models import Batch, Entity, Observations, Request, Response, Steps
from astrid.pipeline.crawl import drive
from astrid.pipeline.plan import cut
from astrid.pipeline.universe import Universe
from astrid.runtime import credentials_of, local_exchanges
from astrid.settings import load_settings
from astrid.simulators.faults import draw_fault
from astrid.simulators.scenarios import SCENARIOS
from astrid.simulators.server import open_server
from astrid.simulators.simulation import UPSTREAMS, Simulation
from astrid.simulators.world import World
from astrid.sources import SOURCES
from astrid.sources.source import PATIENCE
from astrid.timeline import Timeline, night_start
from tests.by_hand import mutated, sound, survives
from tests.contract.test_recorded import batch_of
from tests.virtual.worlds import FIRST_DAY, PAST_DAYS, make_watchlist, make_world

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded"
GUIDE = ROOT / "docs" / "add-a-source.md"
DAY = date(2026, 3, 31)
NIGHT = FIRST_DAY + timedelta(days=PAST_DAYS)
SPEED = 300.0
GENERAL = ("bad_gateway_html", "slow", "truncated_body", "cut_connection", "gzip_bomb")
"""Faults that say nothing about what was asked, so that every upstream may meet them."""

TOKENS = ("token-one", "token-two")
STATUSES = (200, 204, 301, 400, 401, 403, 404, 410, 422, 429, 500, 503)


@cache
def small_world() -> World:
    return make_world(1, repos=12, packages=12, nights=2)


@cache
def small_universe() -> Universe:
    projects = make_watchlist(small_world())
    return Universe.build(projects, {p.slug: n for n, p in enumerate(projects, 1)}, {})


def batches_of(name: str, day: date) -> list[Batch]:
    """Return one batch of each task, of the days that a night would ask for, about projects that have everything."""
    source = SOURCES[name]
    entities = small_universe().entities(source.key)
    assert entities, f"say in astrid/pipeline/universe.py what the key {source.key!r} is called by"
    batches = []
    for task in source.tasks.values():
        accepted = [e for e in entities if task.accepts(e)]
        assert accepted, f"no project of tests/virtual/worlds.py has what {name}.{task.name} asks for"
        batches.append(cut(source, task, day, day - timedelta(days=task.lookback_days - 1), day, accepted)[0])
    return batches


@st.composite
def garbled(draw: st.DrawFn, answer: dict[str, Any]) -> Response:
    """Return a recorded answer with something wrong in it, or nothing."""
    if "body" in answer:
        body = json.dumps(draw(mutated(answer["body"]))).encode()
    else:
        lines = answer["text"].encode().splitlines(keepends=True)
        n = draw(st.integers(0, len(lines)))
        tail = draw(st.sampled_from((lines[n:], lines[n + 1 :], [])))
        body = b"".join([*lines[:n], draw(st.just(b"") | st.binary(max_size=9)), *tail])
    status = draw(st.sampled_from((answer["status"],) * 3 * len(STATUSES) + STATUSES))
    return Response(status, answer.get("headers", {}), body)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(small_world(), {})


@pytest.mark.parametrize("name", SOURCES)
class TestEverySource:
    def test_one_file_that_is_pure(self, name: str) -> None:
        file = ROOT / "astrid" / "sources" / f"{name}.py"
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree), "say what the upstream is, what its traps are, and where that is written"
        assert any(isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "SOURCE" for n in tree.body)

    def test_limits_address_and_simulator_for_every_upstream(self, name: str, simulation: Simulation) -> None:
        source = SOURCES[name]
        addresses = load_settings({"ASTRID_ARCHIVE_URL": "http://archive.example"}).base_urls
        assert source.upstream in source.budgets
        for upstream, budget in source.budgets.items():
            assert upstream in addresses, "add the address to astrid/settings.py"
            assert upstream in simulation.upstreams, "add a simulator to astrid/simulators/simulation.py"
            assert upstream in UPSTREAMS
            for kind in GENERAL:
                met = draw_fault(replace(SCENARIOS[kind], probability=1.0), upstream, b"", DAY, 0)
                assert met is not None, f"let {kind} reach {upstream} in astrid/simulators/faults.py"
            assert budget.concurrency > 0
            assert all(bucket.windows or bucket.primary for bucket in budget.buckets.values())

    def test_tasks_fill_metrics_of_the_catalogue(self, name: str) -> None:
        source = SOURCES[name]
        known = {m.name: m for m in METRICS}
        assert source.tasks
        for task_name, task in source.tasks.items():
            assert task.name == task_name
            assert task.bucket in source.budgets[source.upstream].buckets
            assert task.metrics
            for metric in task.metrics:
                assert metric in known, "add the metric to astrid/catalog.py"

    def test_a_recorded_success_and_a_recorded_failure(self, name: str) -> None:
        cases = [json.loads(f.read_text()) for f in (RECORDED / name).glob("*/case.json")]
        assert any(c.get("values") for c in cases), "record an answer with values"
        assert any("error" in c or c.get("gaps") for c in cases), "record an answer that brings a gap or an error"
        assert all(c["origin"] for c in cases), "say where each answer comes from"

    def test_the_guide_names_it(self, name: str) -> None:
        assert f"`{name}`" in GUIDE.read_text()

    async def test_every_task_brings_sound_values_over_a_socket(self, name: str) -> None:
        source = SOURCES[name]
        batches = batches_of(name, NIGHT)
        timeline = Timeline(night_start(NIGHT), time.time(), SPEED)
        async with (
            open_server(small_world(), speed=SPEED, tokens=TOKENS, night=NIGHT) as server,
            open_session() as session,
        ):
            credentials = credentials_of(
                load_settings({"ASTRID_GITHUB_TOKENS": ",".join(TOKENS)}), [*source.budgets], local_exchanges()
            )
            fetch = HttpFetcher(
                session, server.base_urls, credentials, lambda: timeline.at(time.time()).timestamp(), timeline.real_s
            )
            try:
                found = [(await drive(source.crawl(batch), fetch))[0] for batch in batches]
            finally:
                await fetch.close()
            report = server.report()
        assert report["convictions"] == 0, report
        assert report["upstreams"][source.upstream]["requests"]
        for batch, seen in zip(batches, found, strict=True):
            assert len(sound(seen, batch)), f"{name}.{batch.task} brought nothing from its simulator"

    @settings(max_examples=40)
    @given(
        bodies=st.lists(st.binary(max_size=60), min_size=1, max_size=4),
        status=st.sampled_from(STATUSES),
        attempt=st.sampled_from((0, PATIENCE)),
    )
    def test_garbage_brings_a_source_error_or_sound_values(
        self, name: str, bodies: list[bytes], status: int, attempt: int
    ) -> None:
        strange = (Entity(1, "p", "a/b", ("a/b",)), Entity(2, "q", "c", ("c",)))
        for batch in batches_of(name, DAY):
            for entities in (batch.entities, strange):
                require_sound(name, batch, entities, attempt, [Response(status, {}, body) for body in bodies])

    def test_answers_that_are_nearly_right_bring_a_source_error_or_sound_values(self, name: str) -> None:
        cases = [json.loads(f.read_text()) for f in sorted((RECORDED / name).glob("*/case.json"))]
        cases += 4 * [c for c in cases if c.get("values")]
        accepted = 0

        @settings(max_examples=200)
        @given(st.data(), st.sampled_from(cases), st.sampled_from((0, PATIENCE)))
        def survive(data: st.DataObject, case: dict[str, Any], attempt: int) -> None:
            nonlocal accepted
            batch = batch_of(name, case)
            answers = [data.draw(garbled(answer)) for answer in case["answers"]]
            accepted += require_sound(name, batch, batch.entities, attempt, answers)

        survive()
        assert accepted > 40, "too few of these answers are read at all"


def require_sound(name: str, batch: Batch, entities: tuple[Entity, ...], attempt: int, answers: list[Response]) -> int:
    """Crawl a batch, answer by answer and from the first again, and return how many values were accepted."""
    source = SOURCES[name]
    asked = Batch(name, batch.task, batch.day, batch.start, batch.end, entities, attempt=attempt)
    requests: list[Request] = []

    def answer(request: Request) -> Response:
        assert request.upstream in source.budgets
        requests.append(request)
        return answers[(len(requests) - 1) % len(answers)]

    return survives(lambda: source.crawl(asked), answer, asked)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.0, 1e13])
def test_a_source_that_poisons_the_store_does_not_pass(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds the sources to this page must be able to fail."""

    def poison(batch: Batch) -> Steps:
        yield Request("dockerhub", "GET", "/x")
        return Observations.from_rows([(batch.entities[0].entity_id, 70, batch.day, value, 12)])

    monkeypatch.setitem(SOURCES, "dockerhub", replace(SOURCES["dockerhub"], crawl=poison))
    (batch,) = batches_of("dockerhub", DAY)
    with pytest.raises(AssertionError):
        require_sound("dockerhub", batch, batch.entities, 0, [Response(200, {}, b"{}")])


def test_every_metric_and_origin_of_the_catalogue_has_an_id_of_its_own() -> None:
    assert len({m.metric_id for m in METRICS}) == len({m.name for m in METRICS}) == len(METRICS)
    assert len({o.origin_id for o in ORIGINS}) == len({o.name for o in ORIGINS}) == len(ORIGINS)


def test_every_metric_is_filled_by_a_task_of_its_source() -> None:
    filled = {
        (name, metric)
        for name, source in SOURCES.items()
        for t in source.tasks.values()
        for metric in (*t.metrics, *t.also)
    }
    assert [m.name for m in METRICS if (m.source, m.name) not in filled] == []
