"""Build the package data of the demo's world from a folder of raw archives.

Usage: ``python tools/build_world.py RAW_FOLDER [--out FOLDER] [--watchlist FILE]``. The result depends on the
raw files and the watchlist alone; a second run writes the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from astrid.simulators.world.packing import forge_identities, pack_json, pack_panels
from astrid.watchlist import load_watchlist
from tools.world_downloads import read_totals, read_windows, spread_downloads
from tools.world_repos import Panel, Wanted, collect_repos
from tools.world_stories import read_stories

FIRST_DAY, LAST_DAY = date(2025, 1, 1), date(2026, 3, 31)
LIMIT_BYTES = 3_000_000
MIN_REPOS, MIN_LONG, LONG_DAYS = 600, 400, 380


def long_repos(panel: Panel) -> int:
    """Return how many repositories span at least :data:`LONG_DAYS` days from their first to their last row."""
    known = panel.stars >= 0
    first, last = known.argmax(axis=1), known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    return int((last - first + 1 >= LONG_DAYS).sum())


def build(data: Path, out: Path, wanted: Sequence[Wanted], packages: Sequence[str]) -> Panel:
    """Write ``facts.json.xz``, ``panels.npz.xz`` and ``stories.json.xz`` into ``out`` and print what was met."""
    days = (LAST_DAY - FIRST_DAY).days + 1
    panel = collect_repos(data, wanted, FIRST_DAY, days)
    names, windows, totals = read_totals(data, read_windows(data, FIRST_DAY, LAST_DAY), packages)
    downloads = spread_downloads(windows, totals, FIRST_DAY, days)
    stories, counts = read_stories(data, FIRST_DAY, LAST_DAY)
    ids = forge_identities([repo.name for repo in panel.repos])
    facts = {
        "first_day": FIRST_DAY.isoformat(),
        "repos": [
            {
                "name": repo.name,
                "former": repo.former(),
                "database_id": database_id,
                "node_id": node_id,
                "created_on": created.isoformat(),
                "created_estimated": estimated,
            }
            for repo, (database_id, node_id), (created, estimated) in zip(panel.repos, ids, panel.created, strict=True)
        ],
        "packages": names,
        "windows": [[day.isoformat() for day in (w.snapshot, w.start, w.end)] for w in windows],
    }
    tales = {
        "story_id_steps": np.diff([s.story_id for s in stories], prepend=0).tolist(),
        "created_minute_steps": np.diff([int(s.created_at.timestamp()) // 60 for s in stories], prepend=0).tolist(),
        "title": [s.title for s in stories],
        "url": [s.url for s in stories],
        "points": [s.points for s in stories],
        "comments": [s.comments for s in stories],
    }
    panels: dict[str, npt.NDArray[Any]] = {
        "stars": panel.stars,
        "forks": panel.forks,
        "origin": panel.origin,
        "downloads": downloads,
        "window_totals": totals,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "facts.json.xz").write_bytes(pack_json(facts))
    (out / "panels.npz.xz").write_bytes(pack_panels(panels))
    (out / "stories.json.xz").write_bytes(pack_json(tales))
    _report(panel, out, names, len(stories), counts, downloads)
    return panel


def _report(
    panel: Panel,
    out: Path,
    packages: Sequence[str],
    stories: int,
    counts: Mapping[str, int],
    downloads: npt.NDArray[np.int64],
) -> None:
    known = panel.stars >= 0
    empty = [str(np.datetime64(FIRST_DAY) + np.timedelta64(int(t), "D")) for t in np.flatnonzero(~known.any(axis=0))]
    print(f"{len(panel.repos)} repositories, {long_repos(panel)} spanning {LONG_DAYS} days or more")
    print(f"{int(known.sum())} repository days; from the AI list {int((panel.origin == 11).sum())}")
    print(f"{sum(e for _, e in panel.created)} creation days estimated; days without any row: {', '.join(empty)}")
    print(f"{len(packages)} packages, {int((downloads >= 0).sum())} package days; {stories} stories")
    for text, count in sorted(counts.items()):
        print(f"stories: {count} {text}")
    for line in panel.notes:
        print(f"names: {line}")
    for line in panel.broken:
        print(f"broken row, now a gap: {line}")
    for path in sorted(out.glob("*.xz")):
        print(f"{path.name}: {path.stat().st_size} bytes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the world for the watchlist, then check its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder of raw archives")
    parser.add_argument("--out", type=Path, help="where to write (default: the package's own folder)")
    parser.add_argument("--watchlist", type=Path, help="watchlist file (default: the shipped one)")
    parser.add_argument("--slice", action="store_true", help="do not demand the full world's number of repositories")
    options = parser.parse_args(arguments)
    out = options.out or Path(__file__).resolve().parents[1] / "astrid" / "simulators" / "world"
    projects = load_watchlist(options.watchlist)
    wanted = [Wanted(p.github, p.former_github) for p in projects if p.github]
    panel = build(options.data, out, wanted, [name for p in projects for name in p.pypi])
    size = sum(path.stat().st_size for path in out.glob("*.xz"))
    problems = []
    if size > LIMIT_BYTES:
        problems.append(f"{size} bytes of package data are more than {LIMIT_BYTES}")
    if not options.slice and len(panel.repos) < MIN_REPOS:
        problems.append(f"{len(panel.repos)} repositories are fewer than {MIN_REPOS}")
    if not options.slice and long_repos(panel) < MIN_LONG:
        problems.append(f"{long_repos(panel)} long series are fewer than {MIN_LONG}")
    if problems:
        raise SystemExit("; ".join(problems))


if __name__ == "__main__":
    main()
