"""What all tiers share: a printed seed, a home of their own, and the proof that no process stays behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from tests.leftovers import end, list_leftovers
from tests.rabbitmq import rabbitmq_url

__all__ = ["rabbitmq_url"]

SEED = int(os.environ.get("ASTRID_TEST_SEED", "20260401"))
LONG = os.environ.get("ASTRID_TEST_LONG", "0") == "1"
IS_XDIST_WORKER = "PYTEST_XDIST_WORKER" in os.environ

# "fixed" tries the same examples on every run; "long" follows --hypothesis-seed. How fast the machine is says nothing
# about the code, so neither has a deadline. No database: a run must not depend on the one before it.
_quiet = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "fixed", derandomize=True, deadline=None, database=None, suppress_health_check=_quiet
)
hypothesis.settings.register_profile(
    "long", max_examples=2000, deadline=None, database=None, print_blob=True, suppress_health_check=_quiet
)
hypothesis.settings.load_profile("long" if LONG else "fixed")


def _isolate() -> Path:
    """Give this run a home and no settings of the person who starts it; return the home's parent."""
    # A short name: Unix sockets of Ray and PostgreSQL under it must stay below 108 bytes.
    base = tempfile.gettempdir() if len(tempfile.gettempdir()) <= 20 else "/tmp"
    scratch = Path(tempfile.mkdtemp(prefix="ast-", dir=base))
    # PostgreSQL refuses to run as root, so under root it runs as another user, who must get through here.
    scratch.chmod(0o755)
    for name in list(os.environ):
        ours = name.startswith("ASTRID_") and not name.startswith("ASTRID_TEST_")
        if ours or name in {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "PGHOST", "PGUSER", "PGPASSWORD"}:
            del os.environ[name]
    home = scratch / "home"
    for variable, folder in {
        "HOME": home,
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local" / "share",
        "XDG_STATE_HOME": home / ".local" / "state",
        "XDG_RUNTIME_DIR": scratch / "run",
        "RAY_TMPDIR": scratch / "ray",
    }.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder)
    os.environ |= {
        "ASTRID_TEST_SESSION": scratch.name,
        # A test that is about tokens sets "token" itself; all others must not depend on Ray's default.
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return scratch


# At import, so that it holds before any test module is imported. Workers of xdist inherit the controller's.
_scratch = None if IS_XDIST_WORKER else _isolate()


def pytest_report_header() -> str:
    """Say what repeats this run."""
    return f"astrid: ASTRID_TEST_SEED={SEED} ASTRID_TEST_LONG={int(LONG)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Show what only `make long` runs as skipped, with that reason."""
    if LONG:
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long suite: `make long` runs it whole"))


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail a run that leaves a process behind, name the process, and end it."""
    yield
    if _scratch is None:
        return
    found = list_leftovers(os.environ["ASTRID_TEST_SESSION"], grace_s=10.0)
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for process in found:
            print(f"\nLEFT BEHIND: pid {process.pid}: {process.title[:150]}")
        end(found)
    shutil.rmtree(_scratch, ignore_errors=True)


@pytest.fixture(scope="session")
def seed() -> int:
    """Return the seed of this run, printed in its header."""
    return SEED


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Return a generator that starts anew from the run's seed in each test."""
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def long_mode() -> bool:
    """Tell whether suites run whole (`make long`) or in their fixed slice."""
    return LONG
