"""Flavours of the server: what was named must answer, what is required must be there, and absence has a reason."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.store.conftest import FLAVOURS, Server, required_flavours

ROOT = Path(__file__).resolve().parents[2]
ONE_TEST = ("tests/store/test_tokens.py", "-k", "url")
REQUIRED = "tests/store/test_flavours.py::test_every_flavour_that_is_required_is_at_hand"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a part of this suite by itself, with these variables more."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ASTRID_TEST_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, env=env | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_every_flavour_that_is_required_is_at_hand() -> None:
    absent = {flavour.name: flavour.absent for flavour in FLAVOURS}
    unknown = [name for name in required_flavours() if name not in absent]
    assert unknown == [], f"ASTRID_TEST_REQUIRED_FLAVOURS names no flavour: it may hold {', '.join(absent)}"
    missing = {name: absent[name] for name in required_flavours() if absent[name]}
    assert missing == {}


@pytest.mark.parametrize("variable", ["ASTRID_TEST_TIMESCALE_URL", "ASTRID_TEST_DATABASE_URL"])
def test_a_named_server_that_does_not_answer_is_a_failure(variable: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        done = run(*ONE_TEST, **{variable: f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/x"})
    assert done.returncode == 1, done.stdout
    assert f"{variable} does not answer" in done.stdout
    assert "skipped" not in done.stdout


def test_a_server_without_timescaledb_is_a_failure_where_one_with_it_is_named(embedded_server: Server) -> None:
    done = run(*ONE_TEST, ASTRID_TEST_TIMESCALE_URL=embedded_server.admin_url)
    assert done.returncode == 1, done.stdout
    assert "ASTRID_TEST_TIMESCALE_URL is a server without TimescaleDB" in done.stdout


def test_a_named_server_that_answers_is_used(embedded_server: Server) -> None:
    done = run(*ONE_TEST, ASTRID_TEST_DATABASE_URL=embedded_server.admin_url)
    assert done.returncode == 0, done.stdout
    assert "plain-url: ran: 1 passed, 0 failed" in done.stdout
    assert "timescale-url: not run: ASTRID_TEST_TIMESCALE_URL is not set" in done.stdout


def test_a_required_flavour_that_is_absent_is_a_failure() -> None:
    done = run(REQUIRED, ASTRID_TEST_REQUIRED_FLAVOURS="embedded,timescale-url")
    assert done.returncode == 1, done.stdout
    assert "'timescale-url': 'ASTRID_TEST_TIMESCALE_URL is not set'" in done.stdout
    done = run(REQUIRED, ASTRID_TEST_REQUIRED_FLAVOURS="mysql")
    assert "names no flavour" in done.stdout


def test_the_workflow_requires_what_its_services_give() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]
    required = job["env"]["ASTRID_TEST_REQUIRED_FLAVOURS"].split(",")
    assert set(required) <= {flavour.name for flavour in FLAVOURS}
    assert {"embedded", "pgbouncer", "timescale-url"} <= set(required)
    service = job["services"]["timescaledb"]
    assert service["image"].startswith("timescale/timescaledb:")
    port = service["ports"][0].split(":")[0]
    assert f"@localhost:{port}/{service['env']['POSTGRES_DB']}" in job["env"]["ASTRID_TEST_TIMESCALE_URL"]
