"""The demo killed and interrupted in the middle: it ends as the one that nobody disturbs."""

from __future__ import annotations

import signal
import time

from tests.demo_runs import DemoRun, find_worker
from tests.e2e.conftest import Undisturbed


def test_a_killed_crawl_actor_loses_nothing(undisturbed: Undisturbed, fresh: DemoRun) -> None:
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
    assert fresh.digest() == undisturbed.digest


def test_an_interrupted_run_is_taken_up_again(undisturbed: Undisturbed, fresh: DemoRun) -> None:
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
    assert fresh.digest() == undisturbed.digest
