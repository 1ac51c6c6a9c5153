"""How much of GitHub's limits a night uses that has more work than they allow, under faults, without breaking one."""

from __future__ import annotations

from typing import Any, Final

from tests.virtual.binding import spend

HOURS: Final = 4.0
SEED: Final = 20260401


def measure_budget() -> list[dict[str, Any]]:
    """Return ``github.budget_used``: points spent of all live users' limits over all windows, less the reserve.

    The peer is the limit itself: what the users' windows hold, less the declared reserve.
    """
    spent = spend(HOURS, seed=SEED)
    whole = spent.limit * (1 - spent.reserve)
    return [
        {
            "name": "github.budget_used",
            "ours": float(spent.points),
            "peer": whole,
            "unit": "points of the limits less the reserve",
            "ratio": spent.used,
            "target": 0.98,
            "met": spent.used >= 0.98 and not spent.convictions and not spent.wrong,
            "note": (
                f"{sum(spent.windows.values())} windows of {len(spent.windows)} users (5 tokens: one dead, two of one "
                f"user), {sum(spent.faults.values())} faults in {spent.requests} requests, "
                f"{spent.convictions} convictions, seed {SEED}"
            ),
            "samples": {"ours": [float(spent.points)], "peer": [whole]},
        }
    ]
