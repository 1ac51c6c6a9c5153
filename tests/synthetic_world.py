"""A small made-up world for tests of simulators: few repositories, known gaps, exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np

from astrid.models import Story
from astrid.simulators.world import RepoFacts, World

FIRST_DAY = date(2025, 1, 1)
DAYS = 300
NIGHT = FIRST_DAY + timedelta(days=250)
GAP = 3
"""Row of the repository without a count on ``NIGHT``."""


def make_world(repos: int = 6, stories: Sequence[Story] | None = None) -> World:
    """Build ``repos`` repositories: row n has 1000·(n+1) stars on the first day and gains n+1 a day.

    Row 0 once had another name; row 2 was created in the world; row ``GAP`` misses ``NIGHT`` and the 4 days before;
    odd rows come from the second archive. The package ``beta`` misses the last 10 days before ``NIGHT``.
    """
    day = np.arange(DAYS)
    rows = np.arange(repos)[:, None]
    stars = (1000 * (rows + 1) + (rows + 1) * day).astype(np.int32)
    forks = (stars // 10).astype(np.int32)
    origin = np.where(rows % 2 == 0, 10, 11) + 0 * day
    gap = np.zeros_like(stars, dtype=bool)
    gap[GAP, 246:251] = True
    if repos > 2:
        gap[2, :100] = True
    stars[gap], forks[gap], origin[gap] = -1, -1, 0
    downloads = np.stack([100 + day, 10_000 + 7 * day]).astype(np.int64)
    downloads[1, 240:251] = -1
    facts = tuple(
        RepoFacts(
            name=f"owner{n}/Repo.{n}",
            former=(f"first{n}/repo",) if n == 0 else (),
            node_id=f"R_node{n}",
            database_id=1000 + n,
            created_on=FIRST_DAY + timedelta(days=100) if n == 2 else date(2024, 6, 3),
        )
        for n in range(repos)
    )
    return World(
        first_day=FIRST_DAY,
        repos=facts,
        stars=stars,
        forks=forks,
        origin=origin.astype(np.int8),
        stories=tuple(stories) if stories is not None else make_stories(40),
        packages=("alpha", "beta"),
        downloads=downloads,
        created_estimated=np.zeros(repos, dtype=np.bool_),
    )


def make_stories(count: int, *, last: datetime | None = None, step_s: int = 3600) -> tuple[Story, ...]:
    """Build stories ``step_s`` apart, the newest at ``last``; every fifth is an Ask HN without URL."""
    newest = last or datetime.combine(NIGHT, datetime.min.time(), UTC) + timedelta(hours=20)
    return tuple(
        Story(
            story_id=5000 + n,
            created_at=newest - timedelta(seconds=step_s * (count - 1 - n)),
            title=f"Ask HN: question {n}" if n % 5 == 0 else f'Tools & "agents" {n}',
            url="" if n % 5 == 0 else f"https://example.org/{n}",
            points=100 + n,
            comments=n,
        )
        for n in range(count)
    )
