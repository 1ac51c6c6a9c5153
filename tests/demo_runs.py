"""Runs of ``astrid demo`` as a user's process: a small watchlist, few nights, a database of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = 90
NIGHTS = 4


@dataclass
class DemoRun:
    """One database folder and the commands that work on it."""

    folder: Path
    watchlist: Path
    environ: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``astrid`` with these arguments."""
        environ = os.environ | {
            "ASTRID_STATE_DIR": str(self.folder),
            "ASTRID_WATCHLIST": str(self.watchlist),
            # Not the suite's "disabled": a user's demo makes a token of its own.
            "RAY_AUTH_MODE": "token",
            **self.environ,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "astrid", *arguments],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_interrupts,
        )

    def finish(self, *arguments: str, timeout_s: float = 240) -> tuple[int, str]:
        """Run ``astrid`` to its end and return exit code and output."""
        process = self.command(*arguments)
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise AssertionError(
                f"astrid {' '.join(arguments)} took more than {timeout_s} s:\n{said[-3000:]}"
            ) from None
        return process.returncode, said

    def demo(self) -> str:
        """Run the demo once and return its output; it must end well."""
        code, said = self.finish("demo", "--once", "--nights", str(NIGHTS))
        assert code == 0, said[-3000:]
        return said

    def digest(self) -> dict[str, dict[str, object]]:
        """Return the digest of the database."""
        code, said = self.finish("digest", "--demo", "--json")
        assert code == 0, said
        tables: dict[str, dict[str, object]] = json.loads(said)
        return tables


def write_watchlist(path: Path, projects: int = PROJECTS) -> Path:
    """Write a part of the shipped watchlist: projects with package and repository in the demo's world, and others."""
    from astrid.simulators.world import load_world

    world = load_world()
    known = {name.lower() for repo in world.repos for name in (repo.name, *repo.former)}
    packages = set(world.packages)
    with (ROOT / "astrid" / "watchlist" / "projects.csv").open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        rows = [r for r in reader if r["github"].lower() in known]
        fields = reader.fieldnames or []
    first = [r for r in rows if r["slug"] == "ollama" or r["pypi"].split(" | ")[0] in packages]
    rest = [r for r in rows if r not in first]
    chosen = sorted((first[: projects * 2 // 3] + rest)[:projects], key=lambda r: r["slug"])
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, fields)
        writer.writeheader()
        writer.writerows(chosen)
    return path


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs: they, and all that they start, would never hear of a Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def find_worker(process: subprocess.Popen[str], title: str) -> psutil.Process | None:
    """Return the descendant of ``process`` whose title contains ``title``; Ray titles its workers by their call."""
    try:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if title in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
    except psutil.NoSuchProcess:
        return None
    return None
