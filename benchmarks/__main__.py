"""``make bench``: measure the claims of speed and write ``benchmarks/results.json``.

``--only PREFIX`` measures what starts so and keeps the other results as they were recorded. Every name
that later work will measure stands in the file as well, with ``ours: null``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results.json")

NAMES: Final = (
    *("github.points_per_1000", "github.budget_used", "github.unchanged"),
    *("store.write.new", "store.write.equal", "store.write.changed"),
    *("store.write.new_by_day", "store.write.equal_by_day", "store.write.changed_by_day", "store.night", "store.read"),
    *("score.mcells", "score.vs_pandas", "score.vs_polars", "score.increment"),
    *("api.cached", "api.uncached", "broker.publish", "broker.consume"),
    *("gharchive.vs_zcat", "gharchive.vs_duckdb", "gharchive.vs_polars", "gharchive.vs_limit"),
    *("crawl.throughput", "pool.scaling", "ray.overhead", "demo.stages", "virtual.nights"),
    *("dump.export.parquet", "dump.export.csv", "dump.import.parquet", "dump.import.csv"),
)
TARGETS: Final = {
    "api.cached": 0.6,
    "api.uncached": 10.0,
    "broker.publish": 0.8,
    "broker.consume": 0.8,
    "gharchive.vs_zcat": 1.3,
    "gharchive.vs_duckdb": 1.5,
    "gharchive.vs_polars": 1.5,
    "gharchive.vs_limit": 0.5,
    "crawl.throughput": 0.7,
    "pool.scaling": 7.0,
    "ray.overhead": 0.15,
}
"""Targets of what is not measured yet."""

Measure = Callable[[], list[dict[str, Any]]]


def main() -> None:
    """Measure what is asked for, merge it with what was recorded, write, and print a line per result."""
    parser = argparse.ArgumentParser(description="Measure the claims of speed.")
    parser.add_argument("--only", default="", help="names that start so, e.g. score or store.write")
    only = parser.parse_args().only
    standing = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else []
    recorded = {r["name"]: r for r in standing if r["name"] in NAMES}
    for prefix, measure in _measures().items():
        if prefix.startswith(only.split(".")[0]):
            recorded |= {r["name"]: r for r in measure() if r["name"].startswith(only)}
    missing = [n for n in NAMES if n not in recorded]
    recorded |= {n: _unmeasured(n) for n in missing}
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {_cpu()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "results": [recorded[n] for n in sorted(recorded)],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    for r in document["results"]:
        if r["ours"] is None:
            print(f"{r['name']:<24} not measured")
        else:
            met = {True: "met", False: "MISSED", None: "no target"}[r["met"]]
            figures = f"{r['ours']:.4g} against {r['peer']:.4g} {r['unit']}"
            print(f"{r['name']:<24} ratio {r['ratio']:>8.2f}  {met:<9} {figures}")


def _measures() -> dict[str, Measure]:
    from benchmarks import broker, budget, conditional, demo, github, nights, score

    return {
        "github": lambda: [*github.measure_points(), *budget.measure_budget(), *conditional.measure_conditional()],
        "score": score.main,
        "broker": broker.measure_broker,
        "store": _store,
        "demo": demo.measure_demo,
        "virtual": nights.measure_nights,
        "dump": _dump,
    }


def _store() -> list[dict[str, Any]]:
    from astrid.store import open_embedded
    from benchmarks.store import measure_night, measure_read, measure_write

    with tempfile.TemporaryDirectory() as folder, open_embedded(Path(folder)) as server:
        url = server.url()
        return [*measure_write(url), *measure_night(url), *measure_read(url)]


def _dump() -> list[dict[str, Any]]:
    from astrid.store import open_embedded
    from benchmarks.dump import measure_dump

    with tempfile.TemporaryDirectory() as folder, open_embedded(Path(folder)) as server:
        return measure_dump(server.url(), rows=2_000_000, samples=5)


def _unmeasured(name: str) -> dict[str, Any]:
    note = "not measured yet"
    return {
        "name": name,
        "ours": None,
        "peer": None,
        "unit": "",
        "ratio": None,
        "target": TARGETS.get(name),
        "met": False,
        "note": note,
        "samples": {},
    }


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


if __name__ == "__main__":
    main()
