"""A night with more work than its tokens may do: all of the budget is used, no limit broken, the rest in the ledger."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.conftest import LONG, SEED
from tests.virtual.binding import spend


@pytest.mark.parametrize(("task", "quota"), [("history", 1.0), ("totals", 0.1)])
def test_a_binding_night_uses_its_budget_and_breaks_no_limit(task: Literal["history", "totals"], quota: float) -> None:
    spent = spend(4.0 if LONG else 1.0, seed=SEED, task=task, quota=quota)
    print(f"seed {SEED}: {spent}")
    assert spent.left_out, "the plan must have more to do than there is room for"
    assert not spent.wrong
    assert spent.convictions == 0
    assert len(spent.windows) == 3, "five tokens: one dead, two of one user"
    assert spent.used >= 0.98
    assert spent.points <= spent.limit * (1 - spent.reserve), "the reserve was spent"
    assert sum(spent.faults.values()) > spent.requests * 0.01
