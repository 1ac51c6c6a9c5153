"""The upstreams: one file each, registered here and nowhere else.

A source is sans-I/O: a generator that yields requests, is sent answers, and returns observations.
It imports no network, no database, no clock.
"""

from __future__ import annotations

from typing import Final

from astrid.limits import BudgetSpec
from astrid.sources import archive, clickhouse, depsdev, dockerhub, github, hackernews, huggingface, npm, pypistats
from astrid.sources.source import Source, Task

SOURCES: Final[dict[str, Source]] = {
    s.name: s
    for s in (
        github.SOURCE,
        hackernews.SOURCE,
        pypistats.SOURCE,
        clickhouse.SOURCE,
        archive.SOURCE,
        dockerhub.SOURCE,
        depsdev.SOURCE,
        npm.SOURCE,
        huggingface.SOURCE,
    )
}

BUDGETS: Final[dict[str, BudgetSpec]] = {
    upstream: budget for source in SOURCES.values() for upstream, budget in source.budgets.items()
}
"""What each upstream allows one credential."""

__all__ = ["BUDGETS", "SOURCES", "Source", "Task"]
