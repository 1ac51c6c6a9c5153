"""Repositories of the demo's world: names joined across renames, two archives merged day by day."""

from __future__ import annotations

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrid.catalog import ORIGIN_BY_NAME
from astrid.simulators.world.packing import GAP

HAND_RENAMES = (
    ("hwchase17/langchain", "langchain-ai/langchain"),
    ("Torantulino/Auto-GPT", "Significant-Gravitas/Auto-GPT"),
    ("Significant-Gravitas/Auto-GPT", "Significant-Gravitas/AutoGPT"),
    ("ggerganov/llama.cpp", "ggml-org/llama.cpp"),
    ("jmorganca/ollama", "ollama/ollama"),
    ("comfyanonymous/ComfyUI", "Comfy-Org/ComfyUI"),
    ("clawdbot/clawdbot", "moltbot/moltbot"),
    ("moltbot/moltbot", "openclaw/openclaw"),
)
"""Renames that the inferred list lacks or that were checked by hand."""
ARCHIVES = (
    ("stars_daily", "stars_daily.csv.gz", ORIGIN_BY_NAME["stars_daily"].origin_id),
    ("ai_stars_daily", "ai_stars_daily.csv.gz", ORIGIN_BY_NAME["ai_stars_daily"].origin_id),
)
"""In the order in which they are asked for a (repository, day)."""
FALL_LIMIT = 0.5
"""A count below this share of the one before it, after thousands, is a broken row and becomes a gap."""
PACE_DAYS = 56
MAX_AGE_DAYS = 5 * 365
"""An estimated creation day lies at most this long before the first count."""


@dataclass(frozen=True)
class Wanted:
    """One repository to extract: its current name and the former names that are known already."""

    name: str
    former: tuple[str, ...] = ()


@dataclass
class Repo:
    """One repository with all its names (lower case → generations before the current one)."""

    name: str
    generation: dict[str, int]
    spelling: dict[str, tuple[str, str]] = field(default_factory=dict)
    first_seen: str = "9999"
    created_at: str = "9999"
    counts: dict[str, int] = field(default_factory=dict)

    def former(self) -> list[str]:
        """Older full names, oldest first, in the spelling last seen; without mere changes of case."""
        older = [low for low in self.generation if low != self.name.lower()]
        older.sort(key=lambda low: (-self.generation[low], self.spelling.get(low, ("", low))[0], low))
        return [self.spelling.get(low, ("", low))[1] for low in older]


@dataclass(frozen=True)
class Panel:
    """What the archives say about ``repos`` (rows) in the world's days (columns); see ``World`` for the arrays."""

    repos: list[Repo]
    stars: npt.NDArray[np.int32]
    forks: npt.NDArray[np.int32]
    origin: npt.NDArray[np.int8]
    created: list[tuple[date, bool]]
    broken: list[str]
    notes: list[str]


def read_rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a gzipped or plain CSV file without its header."""
    reader = gzip.open if path.suffix == ".gz" else open
    with reader(path, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        yield from rows


def collect_repos(data: Path, wanted: Iterable[Wanted], first_day: date, days: int) -> Panel:
    """Read the archives in ``data`` for ``wanted``; repositories without a row in the world's days are left out."""
    edges = [*HAND_RENAMES, *((row[0], row[1]) for row in read_rows(data / "stars_repo_renames.csv"))]
    repos, notes = _join_names(wanted, edges)
    by_name = {low: i for i, repo in enumerate(repos) for low in repo.generation}
    column = {(first_day + timedelta(days=t)).isoformat(): t for t in range(days)}
    shape = (len(repos), days)
    stars, forks = np.full(shape, GAP, dtype=np.int32), np.full(shape, GAP, dtype=np.int32)
    origin = np.zeros(shape, dtype=np.int8)
    last = max(column)
    for _, file, origin_id in ARCHIVES:
        rank: dict[tuple[int, int], tuple[int, int]] = {}
        for spelled, day, count, forked, *_rest in read_rows(data / file):
            low = sys.intern(spelled.lower())
            i = by_name.get(low)
            if i is None or day > last:
                continue
            repo = repos[i]
            repo.first_seen = min(repo.first_seen, day)
            repo.spelling[low] = max(repo.spelling.get(low, ("", "")), (day, spelled))
            repo.counts.setdefault(day, int(count))
            t = column.get(day)
            if t is None or (origin[i, t] and origin[i, t] != origin_id):
                continue
            newer = (-repo.generation[low], int(count))
            if rank.get((i, t), (-999, 0)) < newer:
                rank[i, t] = newer
                stars[i, t], forks[i, t], origin[i, t] = int(count), int(forked), origin_id
    _read_first_days(data, repos, by_name)
    broken = _drop_broken(repos, stars, forks, origin, first_day)
    keep = [i for i in sorted(range(len(repos)), key=lambda i: repos[i].name.lower()) if (stars[i] >= 0).any()]
    absent = sorted(repo.name for i, repo in enumerate(repos) if i not in set(keep))
    if absent:
        notes.append(f"{len(absent)} without a row in the world's days: {', '.join(absent)}")
    chosen = [repos[i] for i in keep]
    return Panel(chosen, stars[keep], forks[keep], origin[keep], [_creation(r) for r in chosen], broken, notes)


def _join_names(wanted: Iterable[Wanted], edges: Sequence[tuple[str, str]]) -> tuple[list[Repo], list[str]]:
    older: dict[str, set[str]] = defaultdict(set)
    newer: dict[str, set[str]] = defaultdict(set)
    spelled: dict[str, str] = {}
    for old, new in edges:
        if old.lower() != new.lower():
            older[new.lower()].add(old.lower())
            newer[old.lower()].add(new.lower())
            spelled[old.lower()] = old
    joined: dict[str, Wanted] = {}
    for one in wanted:
        before = joined.get(one.name.lower(), Wanted(one.name))
        joined[one.name.lower()] = Wanted(before.name, before.former + one.former)
    repos, notes = [], []
    claimed = dict.fromkeys(joined, "")
    for low, one in sorted(joined.items()):
        generation = {low: 0}
        queue = [(low, 0), *((name.lower(), 1) for name in one.former)]
        while queue:
            name, age = queue.pop(0)
            if name != low and name in claimed:
                notes.append(f"{name} is not joined to {one.name}: it is another project's name")
                continue
            if name not in generation or name == low:
                generation.setdefault(name, age)
                queue += [(old, age + 1) for old in sorted(older[name]) if old not in generation]
        claimed.update(dict.fromkeys(generation, one.name))
        later = sorted(newer[low] - set(generation))
        if later:
            notes.append(f"{one.name} was later renamed to {', '.join(later)}, which is not joined")
        former = {name: ("", spelled.get(name, name)) for name in generation if name != low}
        former |= {name.lower(): ("", name) for name in one.former if name.lower() != low}
        repos.append(Repo(one.name, generation, {k: v for k, v in former.items() if k in generation}))
    return repos, notes


def _read_first_days(data: Path, repos: list[Repo], by_name: Mapping[str, int]) -> None:
    for row in read_rows(data / "bestof_projects_weekly.csv.gz"):
        i = by_name.get(row[2].lower())
        if i is not None:
            repos[i].first_seen = min(repos[i].first_seen, row[0])
            if row[22]:
                repos[i].created_at = min(repos[i].created_at, row[22])
    for row in read_rows(data / "trending_daily.csv.gz"):
        i = by_name.get(row[4].lower())
        if i is not None:
            repos[i].first_seen = min(repos[i].first_seen, row[0])


def _drop_broken(
    repos: Sequence[Repo],
    stars: npt.NDArray[np.int32],
    forks: npt.NDArray[np.int32],
    origin: npt.NDArray[np.int8],
    first_day: date,
) -> list[str]:
    broken = []
    for i, repo in enumerate(repos):
        before = GAP
        for t in np.flatnonzero(stars[i] >= 0):
            now = int(stars[i, t])
            if before >= 1000 and now < FALL_LIMIT * before:
                broken.append(f"{repo.name} {first_day + timedelta(days=int(t))}: {before} -> {now}")
                stars[i, t] = forks[i, t] = GAP
                origin[i, t] = 0
            else:
                before = now
    return broken


def _creation(repo: Repo) -> tuple[date, bool]:
    """Return the creation day and whether it is estimated.

    Without a stated day the first appearance is only an upper bound: lists show a repository when it is large
    already. Its first count divided by its pace in the following weeks says how long it had been growing.
    """
    if repo.created_at != "9999":
        return date.fromisoformat(min(repo.created_at, repo.first_seen)), False
    days = sorted(repo.counts)
    first = date.fromisoformat(days[0])
    horizon = (first + timedelta(days=PACE_DAYS)).isoformat()
    end = [day for day in days if day <= horizon][-1]
    gained = repo.counts[end] - repo.counts[days[0]]
    pace = max(gained / max((date.fromisoformat(end) - first).days, 1), repo.counts[days[0]] / MAX_AGE_DAYS)
    age = min(ceil(repo.counts[days[0]] / pace), MAX_AGE_DAYS) if pace else 0
    return min(first - timedelta(days=age), date.fromisoformat(repo.first_seen)), True
