"""How much of GitHub's limits a night uses that has more work than they allow, under faults, without breaking one."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, Final, Literal

from astrid.simulators.faults import kinds_of
from astrid.simulators.scenarios import Scenario
from tests.virtual.binding import Spent, spend
from tests.virtual.year import stormy

HOURS: Final = 4.0
SEED: Final = 20260401
EACH: Final = 1 - 0.98 ** len(kinds_of(stormy(SEED), "github"))
"""Chance of any fault of a request if every kind of them came at 2 % by itself."""

Case = tuple[Literal["history", "totals"], Scenario | None]


def measure_budget() -> list[dict[str, Any]]:
    """Return ``github.budget_used``: points spent of all live users' limits over all windows, less the reserve.

    REST and GraphQL each have a binding night; the worse of both counts. The peer is the limit itself: what the users'
    windows of four hours hold, less the declared reserve. For the record a third night has ever so many more faults.
    """
    harsh = replace(stormy(SEED), probability=EACH)
    cases: list[Case] = [("history", None), ("totals", None), ("totals", harsh)]
    with ProcessPoolExecutor(2) as pool:
        core, graphql, stress = pool.map(_spend, cases)
    worse = min(core, graphql, key=lambda spent: spent.used)
    whole = worse.limit * (1 - worse.reserve)
    return [
        {
            "name": "github.budget_used",
            "ours": float(worse.points),
            "peer": whole,
            "unit": "points of the limits less the reserve",
            "ratio": worse.used,
            "target": 0.98,
            "met": all(s.used >= 0.98 and not s.convictions and not s.wrong for s in (core, graphql)),
            "note": f"REST {_say(core)}; GraphQL {_say(graphql)}; for the record GraphQL with each fault at 2 % "
            f"({EACH:.0%} of the requests) {_say(stress)}; seed {SEED}",
            "samples": {"ours": [core.used, graphql.used], "peer": [1.0, 1.0]},
        }
    ]


def _spend(case: Case) -> Spent:
    task, scenario = case
    return spend(HOURS, seed=SEED, task=task, scenario=scenario)


def _say(spent: Spent) -> str:
    return (
        f"{spent.used:.2%} of {sum(spent.windows.values())} windows of {len(spent.windows)} users (5 tokens: one dead, "
        f"two of one user), {sum(spent.faults.values())} faults in {spent.requests} requests, {spent.convictions} "
        f"convictions, {len(spent.wrong)} things wrong"
    )
