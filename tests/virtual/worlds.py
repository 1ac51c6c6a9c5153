"""Small made-up worlds that last for many nights: everything a simulated year of nights is read from."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta

import numpy as np

from astrid.models import Story
from astrid.simulators.world import RepoFacts, World
from astrid.watchlist import Project

FIRST_DAY = date(2025, 1, 1)
PAST_DAYS = 60
"""Days of the world before its first night."""


def make_world(seed: int, *, repos: int, packages: int, nights: int) -> World:
    """Build a world of counts that grow at random, and a few stories a day about some of its repositories."""
    rng = np.random.default_rng(seed)
    days = PAST_DAYS + nights + 1
    stars = (100 + np.cumsum(rng.poisson(5.0, (repos, days)), axis=1)).astype(np.int32)
    forks = (stars // 7).astype(np.int32)
    draw = random.Random(seed)
    facts = tuple(
        RepoFacts(
            name=f"owner{n}/repo{n}",
            former=(f"first{n}/repo{n}",) if n % 5 == 0 else (),
            node_id=f"R_node{n}",
            database_id=1000 + n,
            created_on=FIRST_DAY - timedelta(days=draw.randrange(1, 400)),
        )
        for n in range(repos)
    )
    stories = [
        Story(
            100_000 + 10 * day + n,
            datetime.combine(FIRST_DAY + timedelta(days=day), time(6 * n, draw.randrange(60)), UTC),
            f"About number {day}",
            f"https://github.com/owner{(target := draw.randrange(repos))}/repo{target}",
            draw.randrange(500),
            draw.randrange(90),
        )
        for day in range(days)
        for n in range(3)
    ]
    return World(
        first_day=FIRST_DAY,
        repos=facts,
        stars=stars,
        forks=forks,
        origin=np.full((repos, days), 10, dtype=np.int8),
        stories=tuple(stories),
        packages=tuple(f"package-{n}" for n in range(packages)),
        downloads=(1000 + rng.poisson(300.0, (packages, days))).astype(np.int64),
        created_estimated=np.zeros(repos, dtype=np.bool_),
    )


def make_watchlist(world: World) -> tuple[Project, ...]:
    """Return one project per repository of a world; the first ones have the packages."""
    return tuple(
        Project(
            slug=f"project-{n:05}",
            name=f"Project {n}",
            category="agents",
            github=facts.former[0] if facts.former else facts.name,
            former_github=(),
            pypi=(world.packages[n],) if n < len(world.packages) else (),
            npm=(f"package-{n}" if n % 4 == 1 else f"@scope/package-{n}",) if n % 2 else (),
            huggingface=(f"owner{n}/model",) if n % 4 == 0 else (),
            dockerhub=(f"owner{n}/image",) if n % 4 == 1 else (),
            hn_urls=(f"github.com/{facts.name}",),
            hn_names=(),
            evidence={},
        )
        for n, facts in enumerate(world.repos)
    )
