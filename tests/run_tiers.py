"""Runs the linters and each tier of tests as a process of its own, and closes with one count over all of them.

Usage: ``python tests/run_tiers.py [--long] [--only TIER ...] [--seed N] [--trials N] [--budget-s N]``. Exit code 0
only if every check and test passed. A tier that ends badly without a failed test (a crash, a process left behind,
nothing collected, no time left) counts as one failure and says so.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXED_SEED = 20260401
BUDGET_S = 1_200.0
"""What takes longer hangs. The tiers are to take less than 15 minutes on two quiet cores; a busy machine may take
longer."""
MEMORY_DISK = Path("/dev/shm")
MEMORY_DISK_FREE = 4 << 30
"""Bytes that must be free there. All tiers held less than 1 GB at once; Ray's stores lie there too."""
TYPED = ("astrid", "api", "ray_jobs", "benchmarks", "tools")


@dataclass(frozen=True)
class Tier:
    """One folder under tests/ and the options that its kind of test needs."""

    name: str
    options: tuple[str, ...] = ()
    says: str = ""


TIERS = (
    Tier("unit", ("-n", "auto", "--timeout", "60"), "no socket, no database"),
    Tier("virtual", ("-n", "auto", "--timeout", "300"), "nights in virtual time"),
    Tier("contract", ("-n", "4", "--dist", "worksteal", "--timeout", "120"), "one suite for each broker and source"),
    Tier("store", ("-n", "4", "--timeout", "180"), "real PostgreSQL"),
    Tier("e2e", ("-n", "4", "--dist", "loadfile", "--timeout", "420"), "the night on local Ray"),
    Tier("chaos", ("-n", "4", "--dist", "worksteal", "--timeout", "420"), "kill -9, restarts, full disks"),
    Tier("deploy", ("--timeout", "120"), "manifests and charts"),
    Tier("docs", ("--timeout", "300"), "what is written is true"),
)


@dataclass
class Result:
    """The counts of one tier, the reasons of its skips, and what failed."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    skips: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    note: str = ""

    def fail(self, what: str) -> None:
        """Count one failure that is not a test's."""
        self.failed += 1
        self.failures.append(what)


def run(command: list[str], timeout_s: float, env: dict[str, str]) -> int | None:
    """Run a command in its own process group and return its exit code, or None when it had to be ended."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True)
    try:
        return process.wait(timeout=max(timeout_s, 1.0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Reached on Ctrl-C and SIGTERM too: first the polite way, so that fixtures stop their servers.
        for number, grace_s in ((signal.SIGINT, 30), (signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            if process.poll() is not None:
                break
            os.killpg(process.pid, number)
            try:
                process.wait(timeout=grace_s)
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def fast_scratch(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Give the environment with a temporary folder in memory, where the machine has room for one and names none.

    Each store test has a database of its own, and a database is some 750 files: on ext4 creating one took 0.5 s, in
    memory 0.02 s. What a full or a slow disk does is tested on file systems that those tests mount themselves.
    """
    free = shutil.disk_usage(MEMORY_DISK).free if MEMORY_DISK.is_dir() and os.access(MEMORY_DISK, os.W_OK) else 0
    if "TMPDIR" in env or free < MEMORY_DISK_FREE:
        yield env
        return
    # A short name: Unix sockets below it must stay under 108 bytes. Open, as PostgreSQL runs as another user than root.
    folder = Path(tempfile.mkdtemp(prefix="at-", dir=MEMORY_DISK))
    folder.chmod(0o755)
    try:
        # What a failed trial leaves to be looked at must outlive the folder.
        yield env | {"TMPDIR": str(folder), "ASTRID_TEST_KEPT": tempfile.gettempdir()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lint(env: dict[str, str], timeout_s: float) -> Result:
    """Run the linters; each counts as one check."""
    bin_dir = Path(sys.executable).parent
    typed = [name for name in TYPED if any((ROOT / name).rglob("*.py"))]
    checks = {
        "ruff check": [str(bin_dir / "ruff"), "check", "."],
        "ruff format": [str(bin_dir / "ruff"), "format", "--check", "."],
        "mypy --strict": [
            str(bin_dir / "mypy"),
            *typed,
            *(f"tests/{name}.py" for name in ("run_tiers", "rabbitmq", "pgbouncer", "leftovers")),
        ],
        "lint-imports": [str(bin_dir / "lint-imports"), "--no-logo"],
    }
    result = Result("lint")
    began = time.monotonic()
    for name, command in checks.items():
        print(f"--- {name}", flush=True)
        code = run(command, timeout_s - (time.monotonic() - began), env)
        if code == 0:
            result.passed += 1
        else:
            result.fail(f"{name}: {'no time left' if code is None else f'exit code {code}'}")
    result.seconds = time.monotonic() - began
    return result


def run_tier(tier: Tier, env: dict[str, str], timeout_s: float, extra: list[str]) -> Result:
    """Run one tier under pytest and read its counts from the JUnit report."""
    result = Result(tier.name)
    folder = ROOT / "tests" / tier.name
    if not any(folder.rglob("test_*.py")):
        result.note = "no tests in this tier"
        return result
    print(f"--- {tier.name}: {tier.says}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="astrid-tiers-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"tests/{tier.name}", "-q", f"--junit-xml={report}"]
        code = run([*command, *tier.options, *extra], timeout_s, env)
        if report.exists():
            read_report(report, result)
    result.seconds = time.monotonic() - began
    if code is None:
        result.fail(f"{tier.name}: ended after {result.seconds:.0f} s, no time left")
    elif code != 0 and not result.failed:
        result.fail(f"{tier.name}: pytest ended with {code} without a failed test, see above")
    return result


def read_report(report: Path, result: Result) -> None:
    """Add the outcomes of one JUnit file to a result; a test that passes and then errs in its teardown failed."""
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        outcome = "passed"
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = "failed"
            elif child.tag == "skipped" and outcome == "passed":
                outcome = "skipped"
                result.skips[(child.get("message") or "no reason given").splitlines()[0]] += 1
        if outcomes.get(name) != "failed":
            outcomes[name] = outcome
    counts = Counter(outcomes.values())
    result.passed += counts["passed"]
    result.skipped += counts["skipped"]
    result.failed += counts["failed"]
    result.failures += [name for name, outcome in outcomes.items() if outcome == "failed"]


def print_summary(results: list[Result], seed: int, mode: str) -> None:
    """Print the table, the reasons of the skips, what failed, and the closing line."""
    print(f"\n{'tier':10} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for r in results:
        print(f"{r.name:10} {r.passed:7d} {r.failed:7d} {r.skipped:8d} {r.seconds:8.1f}  {r.note}".rstrip())
    for r in results:
        for reason, count in r.skips.most_common():
            print(f"skipped in {r.name}: {count} x {reason}")
    for r in results:
        for failure in r.failures:
            print(f"FAILED in {r.name}: {failure}")
    print(f"seed {seed} ({mode}), {sum(r.seconds for r in results):.0f} s")
    passed, failed, skipped = (sum(getattr(r, key) for r in results) for key in ("passed", "failed", "skipped"))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)


def main(arguments: list[str]) -> int:
    """Run what was asked for and return the exit code."""
    names = ["lint", *(tier.name for tier in TIERS)]
    parser = argparse.ArgumentParser(description="Run the linters and the tiers of tests.")
    parser.add_argument("--long", action="store_true", help="whole suites, a new seed, no limit of time")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these tiers alone")
    parser.add_argument("--seed", type=int, default=None, help="default: fixed, or with --long a new one")
    parser.add_argument("--trials", type=int, default=None, help="of the chaos suite: default 10, with --long 200")
    parser.add_argument("--budget-s", type=float, default=None, help=f"default {BUDGET_S:.0f}, with --long none")
    options = parser.parse_args(arguments)

    seed = options.seed if options.seed is not None else int(os.environ.get("ASTRID_TEST_SEED", "0"))
    seed = seed or (random.SystemRandom().randrange(1, 2**31) if options.long else FIXED_SEED)
    budget_s = options.budget_s or (float("inf") if options.long else BUDGET_S)
    env = os.environ | {"ASTRID_TEST_SEED": str(seed), "ASTRID_TEST_LONG": "1" if options.long else "0"}
    if options.trials is not None:
        env["ASTRID_TEST_CHAOS_TRIALS"] = str(options.trials)
    extra = [f"--hypothesis-seed={seed}", "--timeout=3600"] if options.long else []
    mode = "long" if options.long else "fixed slice"
    print(f"seed {seed}, {mode}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    results: list[Result] = []
    try:
        with fast_scratch(env) as env_of_tiers:
            for name in names:
                if name not in options.only:
                    continue
                left_s = min(budget_s - (time.monotonic() - began), 86_400.0)
                if name == "lint":
                    results.append(lint(env, left_s))
                else:
                    tier = next(t for t in TIERS if t.name == name)
                    results.append(run_tier(tier, env_of_tiers, left_s, extra))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print_summary(results, seed, mode)
    return 1 if any(r.failed for r in results) or not any(r.passed for r in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
