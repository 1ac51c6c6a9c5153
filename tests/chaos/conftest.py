"""The world of the trials, started once for all of them; how many there are; and the sum of what was done to them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.references import References
from tests.chaos.world import World, open_world
from tests.conftest import LONG, SEED
from tests.rabbitmq import NoRabbitmq

TRIALS = int(os.environ.get("ASTRID_TEST_CHAOS_TRIALS", "0")) or (200 if LONG else 10)


def pytest_report_header() -> str:
    """Say which trials run, and what repeats one of them."""
    return f"chaos: {TRIALS} trials, seeds {SEED} to {SEED + TRIALS - 1}; one: make chaos ARGS='--trials 1 --seed SEED'"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each trial."""
    if "trial_seed" in metafunc.fixturenames:
        metafunc.parametrize("trial_seed", range(SEED, SEED + TRIALS))


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Start the servers and the upstreams."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_world())
        except NoRabbitmq as exc:
            pytest.skip(f"no RabbitMQ of its own: {exc}")
        yield opened


@pytest.fixture(scope="session")
def references(world: World, tmp_path_factory: pytest.TempPathFactory) -> References:
    """Give the nights that nobody disturbs; each is run when it is first asked for."""
    own = tmp_path_factory.getbasetemp()
    return References(world, own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how often each kind of fault was done, and which could not be."""
    counts: Counter[str] = Counter()
    absent: dict[str, str] = {}
    trials = 0
    convictions: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", ()):
                if name == "chaos" and report.when == "call":
                    facts = json.loads(value)
                    trials += 1
                    counts.update(facts["faults"])
                    absent |= facts["absent"]
                    convictions.update(facts["convictions"])
    if not trials:
        return
    terminalreporter.section("chaos")
    terminalreporter.write_line(f"{trials} trials, {sum(counts.values())} faults")
    terminalreporter.write_line(", ".join(f"{kind} {n}" for kind, n in sorted(counts.items())))
    terminalreporter.write_line(f"requests that broke an upstream's limit: {convictions.total()} {dict(convictions)}")
    for kind, reason in sorted(absent.items()):
        terminalreporter.write_line(f"not done: {kind}: {reason}")
