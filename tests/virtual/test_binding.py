"""A night with more work than its tokens may do: all of the budget is used, no limit broken, the rest in the ledger."""

from __future__ import annotations

from math import ceil
from typing import Literal

import pytest

from tests.conftest import LONG, SEED
from tests.virtual.binding import spend

HOURS = 4.0 if LONG else 2.5
FULL, TENTH = (1.0, 1.0) if LONG else (0.2, 0.1)
"""What GitHub's hourly limits are multiplied by: a window that holds less is as long, and takes less of our time."""


@pytest.mark.parametrize(
    ("task", "quota", "ahead_s"), [("history", FULL, 0.0), ("totals", TENTH, 0.0), ("history", FULL / 2, 600.0)]
)
def test_a_binding_night_uses_its_budget_and_breaks_no_limit(
    task: Literal["history", "totals"], quota: float, ahead_s: float
) -> None:
    spent = spend(HOURS, seed=SEED, task=task, quota=quota, ahead_s=ahead_s)
    print(f"seed {SEED}: {spent.used:.4f} of the budget, {spent}")
    assert spent.left_out, "the plan must have more to do than there is room for"
    assert not spent.wrong
    assert spent.convictions == 0
    assert set(spent.windows.values()) == {ceil(HOURS)}, "every window of every hour was opened"
    assert len(spent.windows) == 3, "five tokens: one dead, two of one user"
    assert spent.used >= 0.98
    assert spent.points <= spent.limit * (1 - spent.reserve), "the reserve was spent"
    assert sum(spent.faults.values()) > spent.requests * 0.01
