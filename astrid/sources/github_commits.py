"""GitHub's commits per UTC day on the default branch, each day a count of its own, a few repositories a query.

``history { totalCount }`` is what GitHub finds hardest to answer: about 60 of them pass in one query, 70 did not. So a
query asks for 56, and the few that it can are halved like any other query. The day is the committer's; what is pushed
late changes past days, until they are read again. Facts: GitHub docs, GraphQL object ``Commit``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, Final

from astrid.catalog import METRIC_BY_NAME
from astrid.models import Batch, Steps
from astrid.sources.github_counts import crawl_counts
from astrid.sources.github_graphql import Field, Form
from astrid.sources.source import days_between

COMMITS: Final = METRIC_BY_NAME["github_commits"].metric_id
MAX_HISTORIES: Final = 56
"""Counts of commits that one query asks for."""
DAYS: Final = 8
"""The days of a nightly batch: those of a week, and one more for a night that was missed."""


def crawl_commits(batch: Batch) -> Steps:
    """Read the commits of every day of the batch; raises as :func:`crawl_counts`."""
    return (yield from crawl_counts(batch, commits_form(batch.start, batch.end)))


def commits_form(first: date, last: date) -> Form:
    """Return the query for the days from ``first`` to ``last``, aliases ``d0``, ``d1`` …"""
    days = days_between(first, last)
    # git compares whole seconds, both ends included.
    asked = " ".join(
        f'd{n}: history(since: "{day}T00:00:00Z", until: "{day}T23:59:59Z") {{ totalCount }}'
        for n, day in enumerate(days)
    )
    return Form(
        "Commits",
        f"isEmpty defaultBranchRef {{ target {{ __typename ... on Commit {{ {asked} }} }} }}",
        tuple(Field(COMMITS, "the history of a day", _commits_of(f"d{n}"), day) for n, day in enumerate(days)),
        len(days),
        max(1, MAX_HISTORIES // max(1, len(days))),
    )


def _commits_of(alias: str) -> Callable[[dict[str, Any]], object]:
    def read(node: dict[str, Any]) -> object:
        branch = node.get("defaultBranchRef")
        if branch is None and node.get("isEmpty") is True:
            return 0  # a repository without a commit has no default branch
        target = branch.get("target") if isinstance(branch, dict) else None
        history = target.get(alias) if isinstance(target, dict) else None
        return history.get("totalCount") if isinstance(history, dict) else None

    return read
