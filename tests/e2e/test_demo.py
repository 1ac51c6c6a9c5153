"""The demo as a user runs it: real Ray, real PostgreSQL, simulated upstreams; once, repeated, through RabbitMQ."""

from __future__ import annotations

from tests.demo_runs import DemoRun
from tests.e2e.conftest import Undisturbed


def test_the_leaderboard_has_three_sources_and_no_conviction(undisturbed: Undisturbed) -> None:
    said = undisturbed.said
    assert "Which open-source AI tools are taking off, 2026-03-31" in said
    line = next(line for line in said.splitlines() if line.startswith("Sources in the top 50"))
    assert all(source in line for source in ("github", "hackernews", "pypistats")), line
    assert "; 0 broke an upstream's limit." in said
    tables = undisturbed.digest
    assert tables["observation"]["rows"] > 60_000
    assert tables["score"]["rows"] > 4 * 60


def test_a_second_run_changes_nothing(undisturbed: Undisturbed) -> None:
    undisturbed.run.demo()
    assert undisturbed.run.digest() == undisturbed.digest


def test_the_same_night_through_rabbitmq(undisturbed: Undisturbed, fresh: DemoRun, rabbitmq_url: str) -> None:
    fresh.environ["ASTRID_BROKER_URL"] = rabbitmq_url
    fresh.demo()
    assert fresh.digest() == undisturbed.digest
