"""The command line: exit codes, one clear line for bad input, and what scripts read."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.demo_runs import ROOT, write_watchlist

ASTRID = [sys.executable, "-m", "astrid"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Give an environment whose state folder is the test's own."""
    return os.environ | {"ASTRID_STATE_DIR": str(tmp_path / "state"), "RAY_AUTH_MODE": "token"}


def run(environ: dict[str, str], *arguments: str, timeout_s: float = 120) -> tuple[int, str, str]:
    """Run astrid and return exit code, standard output and standard error."""
    done = subprocess.run(
        [*ASTRID, *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def simulators(*arguments: str) -> Iterator[str]:
    """Run ``astrid simulate`` and give its URL; SIGTERM at the end."""
    process = subprocess.Popen(
        [*ASTRID, "simulate", "--port", "0", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield "http://" + line.split("http://", 1)[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("settings", "arguments", "code", "words"),
    [
        ({"ASTRID_DATABSE_URL": "x"}, ["plan"], 2, ["ASTRID_DATABSE_URL", "ASTRID_DATABASE_URL"]),
        ({"ASTRID_NOW": "2026-04-01"}, ["plan"], 2, ["ASTRID_NOW", "time zone"]),
        ({"ASTRID_NOW": "2025-02-01T05:00Z"}, ["demo", "--once"], 2, ["ASTRID_NOW", "outside"]),
        ({"ASTRID_BROKER_URL": "redis://x"}, ["plan"], 2, ["ASTRID_BROKER_URL", "amqp://"]),
        ({"ASTRID_GITHUB_TOKENS": "/no/such/file"}, ["plan"], 2, ["ASTRID_GITHUB_TOKENS", "file"]),
        (
            {"ASTRID_DATABASE_URL": "postgresql://u:hidden-word@127.0.0.1:1/x"},
            ["plan"],
            1,
            ["127.0.0.1:1", "cannot be reached", "ASTRID_DATABASE_URL"],
        ),
        ({}, ["simulate", "--scenario", "no-such"], 2, ["no-such", "calm"]),
        ({}, ["watchlist", "check", "/no/such/file.csv"], 2, ["/no/such/file.csv"]),
    ],
)
def test_bad_input_is_one_line_with_its_exit_code(
    environ: dict[str, str], settings: dict[str, str], arguments: list[str], code: int, words: list[str]
) -> None:
    got, _, said = run(environ | settings, *arguments)
    assert got == code, said
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert "hidden-word" not in said
    assert len(said.strip().splitlines()) == 1, said


def test_an_unreachable_broker_ends_the_run(environ: dict[str, str]) -> None:
    settings = {"ASTRID_BROKER_URL": "amqp://u:hidden-word@127.0.0.1:1/"}
    code, _, said = run(environ | settings, "demo", "--once")
    assert code == 1, said
    assert "127.0.0.1:1" in said
    assert "hidden-word" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["demo", "serve", "simulate"])
def test_a_port_in_use_is_named(environ: dict[str, str], command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, said = run(environ, command, "--port", port)
    assert code == 2, said
    assert port in said
    assert "--port" in said


def test_a_broken_watchlist_row_names_row_and_field(environ: dict[str, str], tmp_path: Path) -> None:
    path = write_watchlist(tmp_path / "w.csv", 5)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2].replace(lines[2].split(",")[2], "no-such-category", 1)
    path.write_text("\n".join(lines), encoding="utf-8")
    code, _, said = run(environ, "watchlist", "check", str(path))
    assert code == 2
    assert "row 3" in said
    assert "category" in said


def test_the_shipped_watchlist_passes(environ: dict[str, str]) -> None:
    code, out, _ = run(environ, "watchlist", "check")
    assert code == 0
    assert "1143 projects" in out
    assert "pypi 373" in out


UPSTREAMS = ("GITHUB", "HN_ALGOLIA", "PYPISTATS", "CLICKHOUSE", "NPM", "DOCKERHUB", "HUGGINGFACE", "DEPSDEV")


def pointed_at(url: str, folder: Path) -> dict[str, str]:
    """Return the settings of a live night on a small watchlist against simulators."""
    return {
        "ASTRID_NOW": "2026-04-01T05:00Z",
        "ASTRID_CLOCK_SPEED": "300",
        "ASTRID_WATCHLIST": str(write_watchlist(folder / "w.csv", 40)),
        **{f"ASTRID_{name}_URL": f"{url}/{name.lower()}" for name in UPSTREAMS},
    }


def test_a_live_night_without_a_token_skips_github(environ: dict[str, str], tmp_path: Path) -> None:
    """HN and PyPI run, the plan is known before, and the report convicts nobody."""
    report = tmp_path / "report.json"
    with simulators("--speed", "300", "--report", str(report)) as url:
        live = environ | pointed_at(url, tmp_path)
        code, out, _ = run(live, "plan", "--json")
        assert code == 0
        planned = json.loads(out)
        assert {s["source"] for s in planned["sources"]} == {"hackernews", "pypistats", "npm", "dockerhub", "depsdev"}
        assert any("github is skipped" in sentence for sentence in planned["skipped"])
        _, out, _ = run(live, "plan")
        assert "Night of 2026-03-31" in out
        longest = round(max(s["hours"] for s in planned["sources"]) * 60)
        assert f"The night takes {longest} min at the limits" in out
        assert "github is skipped: set ASTRID_GITHUB_TOKENS" in out

        code, out, said = run(live, "nightly", "--json")
        assert code == 3, said  # the feed of PyPI ends before this night: a gap, said so
        assert "github is skipped" in said
        night = json.loads(out)
        assert night["day"] == "2026-03-31"
        assert night["requests"]["hackernews"] >= 1
        assert night["batches"] == {"done": sum(s["batches"] for s in planned["sources"])}

        code, out, _ = run(live, "digest", "--json")
        assert json.loads(out)["observation"]["rows"] > 1000
    books = json.loads(report.read_text(encoding="utf-8"))
    assert books["convictions"] == 0
    assert books["upstreams"]["github"]["requests"] == 0


@pytest.mark.long
def test_two_tokens_of_one_user_spend_one_budget(environ: dict[str, str], tmp_path: Path) -> None:
    """The second token's actor hands on to the first's: what the night spent is what GitHub saw, of both tokens."""
    report = tmp_path / "report.json"
    tokens = "token-one,token-two"
    with simulators("--speed", "300", "--scenario", "one_user", "--tokens", tokens, "--report", str(report)) as url:
        live = environ | pointed_at(url, tmp_path) | {"ASTRID_GITHUB_TOKENS": tokens}
        code, out, said = run(live, "nightly", "--json")
        assert code == 3, said
        night = json.loads(out)
    books = json.loads(report.read_text())
    assert books["convictions"] == 0
    github = books["upstreams"]["github"]
    assert len(github["tokens"]) == 2
    assert all(sum(t["points"].values()) > 0 for t in github["tokens"].values()), "both tokens are used"
    spent = {c["bucket"]: c["spent_points"] for c in night["costs"] if c["upstream"] == "github"}
    seen = {
        bucket: sum(t["points"].get(bucket, 0) for t in github["tokens"].values()) for bucket in ("core", "graphql")
    }
    assert spent["core"] == seen["core"]
    # Whose the tokens are is asked before the run, with one point of each.
    assert spent["graphql"] == seen["graphql"] - 2
