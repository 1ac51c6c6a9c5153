"""What end-to-end modules share: the demo that nobody disturbs, run once for all of them."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.demo_runs import DemoRun, write_watchlist


@dataclass(frozen=True)
class Undisturbed:
    """A demo that ran to its end: where it lies, what it said, and the digest that every other run must reach."""

    run: DemoRun
    said: str
    digest: dict[str, Any]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run the demo once; the first worker of xdist that asks runs it, others wait for it."""
    own = tmp_path_factory.getbasetemp()
    shelf = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "undisturbed"
    shelf.mkdir(exist_ok=True)
    kept = shelf / "kept.json"
    with (shelf / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_text("{}", encoding="utf-8")
            run = DemoRun(shelf / "state", write_watchlist(shelf / "watchlist.csv"))
            said = run.demo()
            kept.write_text(json.dumps({"said": said, "digest": run.digest()}), encoding="utf-8")
        found = json.loads(kept.read_text(encoding="utf-8"))
    assert found, "the demo that nobody disturbs failed before: see the first failure"
    return Undisturbed(DemoRun(shelf / "state", shelf / "watchlist.csv"), found["said"], found["digest"])


@pytest.fixture
def fresh(tmp_path: Path, undisturbed: Undisturbed) -> DemoRun:
    """Give a run on an empty folder, of the same watchlist."""
    return DemoRun(tmp_path / "state", undisturbed.run.watchlist)
