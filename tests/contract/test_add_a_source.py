"""What ``docs/add-a-source.md`` asks of a source is what every registered one has."""

from __future__ import annotations

import ast
import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrid.catalog import METRICS, ORIGINS
from astrid.errors import SourceError
from astrid.models import Batch, Entity, Request, Response
from astrid.settings import load_settings
from astrid.simulators.simulation import UPSTREAMS, Simulation
from astrid.sources import SOURCES
from tests.synthetic_world import make_world

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded"
GUIDE = ROOT / "docs" / "add-a-source.md"
DAY = date(2026, 3, 31)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(make_world(), {})


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

    @settings(max_examples=25)
    @given(
        bodies=st.lists(st.binary(max_size=60), min_size=1, max_size=4), status=st.sampled_from([200, 301, 404, 503])
    )
    def test_garbage_brings_a_source_error_or_a_bounded_crawl(
        self, name: str, bodies: list[bytes], status: int
    ) -> None:
        source = SOURCES[name]
        for task in source.tasks:
            batch = Batch(name, task, DAY, DAY, DAY, (Entity(1, "p", "a/b", ("a/b",)), Entity(2, "q", "c", ("c",))))
            steps = source.crawl(batch)
            try:
                request: Request = next(steps)
                for n in range(1_000):
                    assert n < 900, "it asks for ever"
                    assert request.upstream in source.budgets
                    request = steps.send(Response(status, {}, bodies[n % len(bodies)]))
            except (StopIteration, SourceError):
                pass


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
