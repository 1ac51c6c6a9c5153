"""What a run was planned to cost beside what it did cost; whom a plan asks first."""

from __future__ import annotations

from datetime import date, timedelta

from astrid.models import Gap, Observations
from astrid.store import CostRow, Store
from tests.store.conftest import NOW
from tests.store.test_scores import columns

DAY = date(2026, 3, 31)
UNASKED = "not asked"


async def test_planned_and_spent_stand_side_by_side(store: Store, ids: dict[str, int]) -> None:
    run_id = await store.start_run("nightly", DAY, "x", "1.0", NOW)
    await store.write_planned(run_id, {("github", "core"): (100, 90, 0.02), ("pypistats", "core"): (5, 5, 0.1)})
    assert {row.spent_requests for row in await store.read_costs([run_id])} == {None}
    await store.write_spent(run_id, {("github", "core"): (103, 91), ("hn_firebase", "core"): (7, 7)})
    assert await store.read_costs([run_id, run_id + 1]) == [
        CostRow(run_id, "github", "core", 100, 90, 0.02, 103, 91),
        CostRow(run_id, "hn_firebase", "core", 0, 0, 0.0, 7, 7),
        CostRow(run_id, "pypistats", "core", 5, 5, 0.1, None, None),
    ]
    await store.write_planned(run_id, {("github", "core"): (1, 1, 0.5)})
    (github, *_) = await store.read_costs([run_id])
    assert (github.planned_requests, github.spent_requests) == (1, 103), "written twice, the last plan stands"
    await store.write_planned(run_id, {})
    await store.write_spent(run_id, {})


async def test_last_tries_tell_refusals_from_failures_and_forget_who_was_not_asked(
    store: Store, ids: dict[str, int]
) -> None:
    a, b, c = ids["a"], ids["b"], ids["c"]

    def ago(days: int) -> date:
        return DAY - timedelta(days=days)

    gaps = [
        Gap(a, 1, ago(3), "gone", False),
        Gap(a, 1, ago(2), "down", True),
        Gap(a, 1, ago(1), UNASKED, True),
        Gap(b, 1, ago(4), "down", True),
        Gap(c, 1, DAY, f"{UNASKED}, for some reason", True),
        Gap(c, 2, ago(50), "down", True),
    ]
    await store.write_gaps(gaps, NOW)
    await store.write_observations(Observations.from_rows([(b, 1, ago(4), 1.0, 1)]), 1, NOW)
    tries = await store.read_last_tries(ago(34), DAY, UNASKED)
    assert sorted(tries) == [(1, a, False, ago(3)), (1, a, True, ago(2))], "what was healed was no try in vain"
    soon = await store.read_waiting_gaps(ago(34), DAY, NOW - timedelta(minutes=10), UNASKED)
    assert soon == {(1, a, ago(3)), (1, a, ago(2))}, "who was not asked may be asked at once"
    assert await store.read_waiting_gaps(ago(34), DAY, NOW, UNASKED) == {(1, a, ago(3))}


async def test_percentiles_of_the_last_scores(store: Store, ids: dict[str, int]) -> None:
    assert await store.read_percentiles() == {}
    for day in (DAY - timedelta(days=1), DAY):
        await store.write_scores(1, day, "1.0", columns(ids, ["a", "b"]), NOW)  # type: ignore[arg-type]
    found = await store.read_percentiles()
    assert set(found) == {ids["a"], ids["b"]}
    assert all(0.0 <= p <= 1.0 for p in found.values())
