"""What a snapshot of 1,000 repositories costs in GraphQL points, ours beside 10 aliases a query and REST one by one.

All three are asked of the same simulated GitHub, which counts by the documented formula; REST needs a
request, and so a point of the core budget, per repository.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from astrid.models import Batch, Entity, Observations, Request
from astrid.simulators.github import users_of
from astrid.simulators.simulation import Simulation
from astrid.simulators.world import load_world
from astrid.sources.github import SOURCE

REPOSITORIES = 1_000
NIGHT = date(2026, 3, 31)
NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
TOKEN = "bench-token"


def measure_points() -> list[dict[str, Any]]:
    """Return ``github.points_per_1000``: points of our batches, and of the two usual ways."""
    world = load_world()
    facts = [world.repos[n % len(world.repos)] for n in range(REPOSITORIES)]
    size = SOURCE.tasks["counts"].entities_per_batch
    ours = 0
    for start in range(0, REPOSITORIES, size):
        group = tuple(
            Entity(n + 1, f"p{n}", f.node_id, (f.name,)) for n, f in enumerate(facts[start : start + size], start)
        )
        ours += _points(Simulation(world, users_of([TOKEN])), Batch("github", "counts", NIGHT, NIGHT, NIGHT, group))
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
            "met": ours <= 10,
            "note": f"at most 10 points wanted; 10 aliases a query cost {aliases}, REST {REPOSITORIES} requests",
            "samples": {"ours": [float(ours)], "peer": [float(aliases)]},
        }
    ]


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
        assert len(found) + len(found.gaps) == 2 * len(batch.entities)
    return points


def _alias_points(simulation: Simulation, facts: list[Any]) -> int:
    parts = []
    for n, repo in enumerate(facts):
        owner, _, name = repo.name.partition("/")
        parts.append(f'r{n}: repository(owner: "{owner}", name: "{name}") {{ stargazerCount forkCount }}')
    query = f"query {{ {' '.join(parts)} rateLimit {{ cost }} }}"
    request = Request("github", "POST", "/graphql", json={"query": query}, bucket="graphql")
    return int(simulation.respond(request, token=TOKEN, now=NOW, night=NIGHT).json()["data"]["rateLimit"]["cost"])
