"""The demo as a user runs it: real Ray, real PostgreSQL, simulated upstreams; killed, interrupted, repeated."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.demo_runs import DemoRun, find_worker, write_watchlist


@pytest.fixture(scope="module")
def watchlist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the small watchlist once."""
    return write_watchlist(tmp_path_factory.mktemp("watchlist") / "watchlist.csv")


@pytest.fixture
def fresh(tmp_path: Path, watchlist: Path) -> DemoRun:
    """Give a run on an empty folder."""
    return DemoRun(tmp_path / "state", watchlist)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, watchlist: Path) -> DemoRun:
    """Run the demo once undisturbed; its digest is what every other run must reach."""
    run = DemoRun(tmp_path_factory.mktemp("undisturbed"), watchlist)
    run.environ["ASTRID_TEST_SAID"] = run.demo()
    return run


def test_the_leaderboard_has_three_sources_and_no_conviction(undisturbed: DemoRun) -> None:
    said = undisturbed.environ["ASTRID_TEST_SAID"]
    assert "Which open-source AI tools are taking off, 2026-03-31" in said
    line = next(line for line in said.splitlines() if line.startswith("Sources in the top 50"))
    assert all(source in line for source in ("github", "hackernews", "pypistats")), line
    assert "; 0 broke an upstream's limit." in said
    tables = undisturbed.digest()
    assert tables["observation"]["rows"] > 60_000
    assert tables["score"]["rows"] > 4 * 60


def test_a_second_run_changes_nothing(undisturbed: DemoRun) -> None:
    before = undisturbed.digest()
    undisturbed.demo()
    assert undisturbed.digest() == before


def test_a_killed_crawl_actor_loses_nothing(undisturbed: DemoRun, fresh: DemoRun) -> None:
    """kill -9 in the middle of the history: Ray starts the actor again, the broker gives its batches again."""
    process = fresh.command("demo", "--once", "--nights", "4")
    victim = None
    deadline = time.monotonic() + 120
    while victim is None and time.monotonic() < deadline and process.poll() is None:
        victim = find_worker(process, "CrawlWorker.work")
        time.sleep(0.05)  # waiting for a process of another program to appear; there is no event for it
    assert victim is not None, "no crawl actor was seen at work"
    victim.kill()
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said[-3000:]
    assert fresh.digest() == undisturbed.digest()


def test_an_interrupted_run_is_taken_up_again(undisturbed: DemoRun, fresh: DemoRun) -> None:
    """Ctrl-C in the middle: one line, its exit code, no process left (checked at the end), the next run completes."""
    process = fresh.command("demo", "--once", "--nights", "4")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and find_worker(process, "CrawlWorker.work") is None:
        time.sleep(0.05)  # waiting for a process of another program to appear; there is no event for it
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said[-3000:]
    assert "Traceback" not in said, said[-3000:]
    assert "interrupted" in said
    fresh.demo()
    assert fresh.digest() == undisturbed.digest()


def test_the_same_night_through_rabbitmq(undisturbed: DemoRun, fresh: DemoRun, rabbitmq_url: str) -> None:
    fresh.environ["ASTRID_BROKER_URL"] = rabbitmq_url
    fresh.demo()
    assert fresh.digest() == undisturbed.digest()
