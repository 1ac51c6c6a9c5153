"""Entities, names that change, notes and reconciliations."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from astrid.errors import StoreError
from astrid.models import Batch, Done, Entity, Identity, Observations
from astrid.store import IdentityRow, NoteRow, ProjectRow, Reconciliation, Store
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)


async def test_ids_follow_the_slugs_and_stay(store: Store) -> None:
    first = await store.sync_watchlist([("b", "B", "x"), ("a", "A", "x")], NOW)
    assert list(first) == ["a", "b"]
    assert first["b"] == first["a"] + 1
    later = NOW + timedelta(days=3)
    second = await store.sync_watchlist([("a", "Alpha", "y"), ("0", "Zero", "x")], later)
    assert second == {"0": first["b"] + 1, "a": first["a"]}
    assert await store.read_projects() == [
        ProjectRow(second["0"], "0", "Zero", "x", later.date()),
        ProjectRow(first["a"], "a", "Alpha", "y", NOW.date()),
        ProjectRow(first["b"], "b", "B", "x", NOW.date()),
    ]
    assert await store.sync_watchlist([], NOW) == {}


async def test_a_slug_twice_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="slug twice"):
        await store.sync_watchlist([("a", "A", "x"), ("a", "B", "x")], NOW)
    assert await store.read_projects() == []


async def test_the_first_day_of_a_metric(store: Store, ids: dict[str, int]) -> None:
    a, b = ids["a"], ids["b"]
    batch = Batch("github", "counts", DAY, DAY, DAY, (Entity(a, "a", "R_a"),))
    rows = [(a, 1, DAY - timedelta(days=n), 5.0, 10) for n in (3, 1)] + [(b, 2, DAY, 5.0, 10)]
    run_id = await store.start_run("nightly", DAY, "test", "1.0.0", NOW)
    await store.plan_batches(run_id, [replace(batch, run_id=run_id)], NOW)
    await store.commit_batch(replace(batch, run_id=run_id), Done(Observations.from_rows(rows)), NOW)
    assert await store.read_first_days(1, [a, b]) == {a: DAY - timedelta(days=3)}
    assert await store.read_first_days(1, []) == {}


async def test_names_are_history(store: Store, ids: dict[str, int]) -> None:
    a = ids["a"]

    async def read(upstream_id: str, name: str, day: date) -> int:
        return await store.record_identities([Identity(a, "github", upstream_id, name)], day, 1, NOW)

    assert await read("R_1", "a/a", DAY) == 1
    assert await read("R_1", "a/a", DAY + timedelta(days=1)) == 0
    assert await read("R_1", "b/a", DAY + timedelta(days=5)) == 1
    assert await read("R_1", "late/reading", DAY) == 0
    assert await read("R_1", "c/a", DAY + timedelta(days=5)) == 1
    assert await read("R_2", "c/a", DAY + timedelta(days=9)) == 1
    await store.record_identities([Identity(a, "pypi", "a", "a")], DAY, 1, NOW)
    project = await store.read_project("a")
    assert project is not None
    assert project.identities == (
        IdentityRow("github", "R_1", "a/a", DAY, DAY + timedelta(days=4)),
        IdentityRow("github", "R_1", "c/a", DAY + timedelta(days=5), DAY + timedelta(days=8)),
        IdentityRow("github", "R_2", "c/a", DAY + timedelta(days=9), None),
        IdentityRow("pypi", "a", "a", DAY, None),
    )
    assert await store.read_identities("github") == {a: Identity(a, "github", "R_2", "c/a")}
    assert await store.read_project("nobody") is None


async def test_notes(store: Store) -> None:
    for last in (None, DAY):
        await store.record_note(30, date(2025, 1, 1), last, "interpolated from monthly totals", NOW)
    await store.record_note(30, date(2024, 1, 1), None, "without mirrors", NOW)
    assert await store.read_notes(30) == [
        NoteRow(30, date(2024, 1, 1), None, "without mirrors"),
        NoteRow(30, date(2025, 1, 1), DAY, "interpolated from monthly totals"),
    ]
    assert await store.read_notes(1) == []


async def test_reconciliations_are_replaced(store: Store, ids: dict[str, int]) -> None:
    sunday = date(2026, 3, 22)
    await store.record_reconciliation([Reconciliation(ids["a"], sunday, 10.0, 9.0)], NOW)
    before = await store.digest()
    await store.record_reconciliation([Reconciliation(ids["a"], sunday, 10.0, 9.0)], NOW)
    assert await store.digest() == before
    await store.record_reconciliation([Reconciliation(ids["a"], sunday, 10.0, 10.0)], NOW)
    after = await store.digest()
    assert {t for t in after if after[t] != before[t]} == {"reconciliation"}
    with pytest.raises(StoreError, match="CheckViolation"):
        await store.record_reconciliation([Reconciliation(ids["a"], DAY, 1.0, 1.0)], NOW)
