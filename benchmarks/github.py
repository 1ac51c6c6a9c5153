"""What a snapshot of 1,000 repositories costs in GraphQL points, ours beside 10 aliases a query and REST one by one.

All three are asked of the same simulated GitHub, which counts by the documented formula; REST needs a
request, and so a point of the core budget, per repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from astrid.models import Batch, Entity, Observations, Request
from astrid.simulators.github import users_of
from astrid.simulators.simulation import Simulation
from astrid.simulators.world import RepoFacts, World, load_world
from astrid.sources.github import SOURCE

REPOSITORIES = 1_000
LARGE = 10_000
"""The size at which what a night may cost is promised: 100 points for scalars, 600 with four counts."""
NIGHT = date(2026, 3, 31)
NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
TOKEN = "bench-token"


def measure_points() -> list[dict[str, Any]]:
    """Return ``github.points_per_1000``: points of our batches, and of the two usual ways."""
    world = load_world()
    facts = [world.repos[n % len(world.repos)] for n in range(LARGE)]
    ours = _cost(world, facts[:REPOSITORIES], "counts")
    scalars, totals = (_cost(world, facts, task) for task in ("counts", "totals"))
    aliases = sum(
        _alias_points(Simulation(world, users_of([TOKEN])), facts[n : n + 10]) for n in range(0, REPOSITORIES, 10)
    )
    return [
        {
            "name": "github.points_per_1000",
            "ours": float(ours),
            "peer": float(aliases),
            "unit": "GraphQL points per 1,000 repositories",
            "ratio": aliases / ours,
            "target": 10.0,
            "met": ours <= 10 and scalars <= 100 and scalars + totals <= 600,
            "note": f"at most 10 points wanted; 10 aliases a query cost {aliases}, REST {REPOSITORIES} requests; "
            f"{LARGE} cost {scalars} points for scalars (at most 100) and {totals} for four counts more (at most 600)",
            "samples": {"ours": [float(ours)], "peer": [float(aliases)]},
        }
    ]


def _cost(world: World, facts: Sequence[RepoFacts], task: str) -> int:
    """Return the points of a night's batches of one task."""
    size = SOURCE.tasks[task].entities_per_batch
    points = 0
    for start in range(0, len(facts), size):
        group = tuple(
            Entity(n + 1, f"p{n}", f.node_id, (f.name,)) for n, f in enumerate(facts[start : start + size], start)
        )
        points += _points(Simulation(world, users_of([TOKEN])), Batch("github", task, NIGHT, NIGHT, NIGHT, group))
    return points


def _points(simulation: Simulation, batch: Batch) -> int:
    steps = SOURCE.crawl(batch)
    points = 0
    try:
        request = next(steps)
        while True:
            assert isinstance(request, Request), "GitHub is asked one by one"
            response = simulation.respond(request, token=TOKEN, now=NOW, night=NIGHT)
            points += int(response.json()["data"]["rateLimit"]["cost"])
            request = steps.send(response)
    except StopIteration as stop:
        found: Observations = stop.value
        metrics = SOURCE.tasks[batch.task].metrics
        assert len(found) + len(found.gaps) == len(metrics) * len(batch.entities)
    return points


def _alias_points(simulation: Simulation, facts: list[Any]) -> int:
    parts = []
    for n, repo in enumerate(facts):
        owner, _, name = repo.name.partition("/")
        parts.append(f'r{n}: repository(owner: "{owner}", name: "{name}") {{ stargazerCount forkCount }}')
    query = f"query {{ {' '.join(parts)} rateLimit {{ cost }} }}"
    request = Request("github", "POST", "/graphql", json={"query": query}, bucket="graphql")
    return int(simulation.respond(request, token=TOKEN, now=NOW, night=NIGHT).json()["data"]["rateLimit"]["cost"])
