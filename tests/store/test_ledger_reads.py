"""The ledger's reads on every flavour: what they say is what the rows say, now and as of a past moment."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from astrid.catalog import METRIC_BY_NAME, METRICS
from astrid.models import Batch, Done, Entity, Gap, Observations
from astrid.pipeline.trace import trace_value
from astrid.sources.source import days_between
from astrid.store import Store
from astrid.store.queries import load_queries
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)
STARS, DOWNLOADS = (METRIC_BY_NAME[name].metric_id for name in ("github_stars", "pypi_downloads"))
LATER = NOW + timedelta(hours=1)
SPAN = 150
TASK, OTHER = ("github", "counts"), ("npm", "bulk")


async def test_expectations_begin_and_end_with_the_nights(
    store: Store, ids: Mapping[str, int], connection: Any
) -> None:
    a, b, c, d = (ids[slug] for slug in "abcd")
    record = store.ledger.record_expectations

    async def standing() -> list[tuple[Any, ...]]:
        rows = await connection.fetch("SELECT source, entity_id, first_day, last_day FROM expectation ORDER BY 1, 2, 3")
        return [tuple(row) for row in rows]

    await record(DAY, {TASK: [a, b], OTHER: [c]}, NOW)
    first = [("github", a, DAY, None), ("github", b, DAY, None), ("npm", c, DAY, None)]
    assert await standing() == first
    await record(DAY, {TASK: [a, b], OTHER: [c]}, LATER)
    assert await standing() == first, "the same night once more"
    await record(DAY, {TASK: [a]}, LATER)
    assert await standing() == [first[0], first[2]], "who was never expected after all; the task that is absent stays"
    following = DAY + timedelta(days=1)
    await record(following, {TASK: [b, d]}, LATER)
    assert await standing() == [
        ("github", a, DAY, DAY), ("github", b, following, None), ("github", d, following, None), first[2],
    ]  # fmt: skip
    last = following + timedelta(days=1)
    await record(last, {TASK: [a, b, d]}, LATER)
    assert (await standing())[:2] == [("github", a, DAY, DAY), ("github", a, last, None)], "it came back"
    await store.start_run("nightly", last, "x", "1.0.0", LATER)
    await record(following, {TASK: []}, LATER)
    assert len(await standing()) == 5, "a night of the past changes nothing"
    found = await store.ledger.read_expectations(DAY, DAY)
    assert [(x.source, x.task, x.first_day, x.last_day, x.entity_ids) for x in found] == [
        ("github", "counts", DAY, DAY, (a,)), ("npm", "bulk", DAY, None, (c,)),
    ]  # fmt: skip
    assert [x.entity_ids for x in await store.ledger.read_expectations(last, last, [b, c])] == [(b,), (c,)]
    assert [x.entity_ids for x in await store.ledger.read_expectations(last, last)] == [(b, d), (a,), (c,)]
    before = await store.ledger.read_expectations(DAY, date.max, as_of=NOW)
    assert [x.entity_ids for x in before] == [(a, b), (c,)], "what the first run noted"


async def fill(store: Store, ids: Mapping[str, int]) -> dict[tuple[int, int, date], list[tuple[datetime, int]]]:
    """Write values at two moments, some of them twice; return (moment, run) of each version by key."""
    draw = random.Random(8)
    days = days_between(DAY - timedelta(days=SPAN - 1), DAY)
    known: dict[tuple[int, int, date], list[tuple[datetime, int]]] = {}
    for run_id, moment in ((1, NOW), (2, LATER)):
        rows = []
        for metric_id in (STARS, DOWNLOADS):
            for entity_id in ids.values():
                for day in days:
                    if draw.random() < 0.4:
                        rows.append((entity_id, metric_id, day, float(draw.randrange(1000)) + run_id / 4, 1))
                        known.setdefault((metric_id, entity_id, day), []).append((moment, run_id))
        await store.write_observations(Observations.from_rows(rows), run_id, moment)
    return known


async def test_presence_is_what_has_a_value(store: Store, ids: Mapping[str, int]) -> None:
    known = await fill(store, ids)
    whose = np.array(sorted(ids.values())[1:], np.int32)
    first = DAY - timedelta(days=SPAN + 3)
    for as_of, last in ((None, DAY + timedelta(days=2)), (NOW, DAY), (NOW - timedelta(seconds=1), DAY)):
        found = await store.ledger.read_presence([STARS, DOWNLOADS], whose, first, last, as_of=as_of)
        for metric_id in (STARS, DOWNLOADS):
            there = [
                [
                    any(as_of is None or at <= as_of for at, _ in known.get((metric_id, e, day), []))
                    for e in whose.tolist()
                ]
                for day in days_between(first, last)
            ]
            assert found[metric_id].tolist() == there
    nobody = await store.ledger.read_presence([STARS], np.zeros(0, np.int32), first, DAY)
    assert nobody[STARS].shape == ((DAY - first).days + 1, 0)


async def test_the_newest_day_of_an_origin(store: Store, ids: Mapping[str, int]) -> None:
    a, b = ids["a"], ids["b"]
    old, new = DAY - timedelta(days=9), DAY - timedelta(days=4)
    await store.write_observations(
        Observations.from_rows([(a, DOWNLOADS, old, 5.0, 6), (b, DOWNLOADS, new, 5.0, 6), (b, STARS, DAY, 5.0, 6)]),
        1,
        NOW,
    )
    await store.write_observations(Observations.from_rows([(b, DOWNLOADS, new, 6.0, 5)]), 2, LATER)

    async def newest(origin_id: int, as_of: datetime | None = None) -> date | None:
        first = DAY - timedelta(days=30)
        return await store.ledger.read_newest(DOWNLOADS, origin_id, [a, b], first, DAY, as_of=as_of)

    assert (await newest(6), await newest(5), await newest(7)) == (old, new, None)
    assert (await newest(6, NOW), await newest(5, NOW)) == (new, None), "the other origin's value stood then"


async def test_marks_and_entries_are_the_ledgers_rows(store: Store, ids: Mapping[str, int]) -> None:
    a, b = ids["a"], ids["b"]
    gaps = [
        Gap(a, STARS, DAY, "503", True), Gap(b, STARS, DAY, "there is none"),
        Gap(a, DOWNLOADS, DAY, "not asked tonight", True), Gap(a, STARS, DAY - timedelta(days=9), "503", True),
    ]  # fmt: skip
    await store.write_gaps(gaps, NOW, 4)
    await store.write_observations(Observations.from_rows([(a, STARS, DAY, 7.0, 1)]), 5, LATER)

    async def marks(**more: Any) -> set[tuple[Any, ...]]:
        found = await store.ledger.read_marks([STARS, DOWNLOADS], DAY, DAY, "not asked", **more)
        columns = (found.metric_id, found.entity_id, found.day, found.retry, found.healed, found.unasked)
        assert len(found) == len(found.metric_id)
        return set(zip(*(c.tolist() for c in columns), strict=True))

    healed, none = (STARS, a, DAY, True, True, False), (STARS, b, DAY, False, False, False)
    unasked = (DOWNLOADS, a, DAY, True, False, True)
    assert await marks() == {healed, none, unasked}
    assert await marks(entity_ids=[b]) == {none}
    assert await marks(as_of=NOW) == {(*healed[:4], False, False), none, unasked}
    key = (STARS, a, DAY)
    entries = await store.ledger.read_entries([key, (STARS, b, DAY), (DOWNLOADS, b, DAY)])
    assert set(entries) == {key, (STARS, b, DAY)}
    entry = entries[key]
    assert (entry.reason, entry.run_id, entry.healed_run, entry.healed_at) == ("503", 4, 5, LATER)
    before = (await store.ledger.read_entries([key], as_of=NOW))[key]
    assert (before.run_id, before.healed_run, before.healed_at) == (4, None, None)
    assert await store.ledger.read_entries([]) == {}
    await store.write_gaps([Gap(b, STARS, DAY, "gone")], LATER, 6)
    assert (await store.ledger.read_entries([(STARS, b, DAY)]))[STARS, b, DAY].run_id == 6
    assert [(g.metric_id, g.reason, g.count, g.open) for g in await store.ledger.count_gaps(4)] == [
        (STARS, "503", 2, 1), (STARS, "there is none", 1, 1), (DOWNLOADS, "not asked tonight", 1, 1),
    ], "what a later run says replaces nothing that an earlier one said"  # fmt: skip
    assert await store.ledger.count_healed(5) == {STARS: 1}
    assert await store.ledger.count_healed(4) == {}


async def test_which_nights_ran_and_what_they_asked(store: Store, ids: Mapping[str, int]) -> None:
    days = [DAY - timedelta(days=n) for n in range(4)]
    whom = (Entity(ids["a"], "a", "R_a", ("o/a",)),)
    runs = {}
    for n, (day, state) in enumerate(zip(days, ("complete", "failed", "gaps", None), strict=True)):
        run_id = runs[day] = await store.start_run("nightly", day, "x", "1.0.0", NOW + timedelta(minutes=n))
        source, task = TASK if n % 2 else OTHER
        await store.plan_batches(run_id, [Batch(source, task, day, day, day, whom, run_id=run_id)], NOW)
        if state:
            await store.finish_run(run_id, state, {}, "", LATER)
    await store.start_run("backfill", days[0], "x", "1.0.0", NOW)
    again = await store.start_run("nightly", days[1], "x", "1.0.0", NOW)
    assert await store.ledger.read_nights(days[3], days[0]) == dict(zip(days, (True, False, True, False), strict=True))
    await store.finish_run(again, "gaps", {}, "", LATER)
    assert (await store.ledger.read_nights(days[1], days[1])) == {days[1]: True}, "one of its runs ended well"
    as_of = await store.ledger.read_nights(days[3], days[0], as_of=LATER - timedelta(seconds=1))
    assert as_of == dict.fromkeys(days, False)
    asked = await store.ledger.read_asked(days[3], days[0], [TASK, OTHER, ("npm", "scoped")])
    assert asked == {TASK: {days[1], days[3]}, OTHER: {days[0], days[2]}, ("npm", "scoped"): set()}
    early = await store.ledger.read_asked(days[3], days[0], [TASK, OTHER], as_of=NOW + timedelta(minutes=1))
    assert early == {TASK: {days[1]}, OTHER: {days[0]}}


async def test_every_version_of_a_value_names_run_and_batch(store: Store, ids: Mapping[str, int]) -> None:
    a, b = ids["a"], ids["b"]
    whom = (Entity(a, "a", "R_a", ("o/a",)), Entity(b, "b", "R_b", ("o/b",)))
    made = []
    for value, moment in ((5.0, NOW), (6.0, LATER)):
        run_id = await store.start_run("nightly", DAY, "0.9", "1.0.0", moment)
        batch = Batch("github", "counts", DAY, DAY, DAY, whom, run_id=run_id)
        other = Batch("github", "counts", DAY, DAY, DAY, whom[1:], run_id=run_id)
        await store.plan_batches(run_id, [batch, other], moment)
        found = Observations.from_rows([(a, STARS, DAY, value, 1)])
        await store.commit_batch(batch, Done(found, 1), moment)
        made.append((run_id, batch.batch_id))
    versions = await store.ledger.trace_value(STARS, a, DAY)
    assert [(v.value, v.run_id, v.observed_at, v.superseded_at, v.superseded_by_run) for v in versions] == [
        (5.0, made[0][0], NOW, LATER, made[1][0]), (6.0, made[1][0], LATER, None, None),
    ]  # fmt: skip
    for (run_id, batch_id), moment in zip(made, (NOW, LATER), strict=True):
        (row,) = await store.ledger.trace_batches(run_id, a, DAY, [("github", "counts"), ("github", "totals")])
        assert (row.batch_id, row.entities, row.state, row.updated_at) == (batch_id, 2, "done", moment)
        assert await store.ledger.trace_batches(run_id, a, DAY - timedelta(days=1), [("github", "counts")]) == []
        assert await store.ledger.trace_batches(run_id, a, DAY, [("github", "totals")]) == []
        assert len(await store.ledger.trace_batches(run_id, b, DAY, [("github", "counts")])) == 2
    assert await store.ledger.trace_value(STARS, b, DAY) == []
    then = await store.ledger.trace_inputs([STARS, DOWNLOADS], a, DAY, DAY, NOW)
    assert [(row.metric_id, row.run_id, row.count) for row in then] == [(STARS, made[0][0], 1)]
    now = await store.ledger.trace_inputs([STARS], a, DAY, DAY, LATER)
    assert [(row.run_id, row.first_day, row.observed_at) for row in now] == [(made[1][0], DAY, LATER)]


QUERIES = ("read_presence", "read_presence_as_of", "read_newest", "read_newest_as_of", "trace_value", "trace_inputs")


async def test_no_read_scans_all_observations(store: Store, connection: Any, server: Any) -> None:
    """A universe of 2,000, five metrics, 400 days; what is asked is a quarter of it or less."""
    listed = [(f"p{n:04}", "P", "agents") for n in range(2000)]
    ids = sorted((await store.sync_watchlist(listed, NOW)).values())
    metric_ids = [m.metric_id for m in METRICS[:5]]
    for table, more in (("observation", ""), ("observation_revision", ", now(), 2")):
        await connection.execute(
            f"INSERT INTO {table} SELECT m, e, d::date, 1, 1, now(), 1{more} FROM unnest($1::int2[]) m, "
            "unnest($2::int4[]) e, generate_series($3::date, $4::date, interval '4 days') d ORDER BY 1, 2, 3",
            metric_ids, ids, DAY - timedelta(days=400), DAY,
        )  # fmt: skip
        await connection.execute(f"ANALYZE {table}")
    first, few, one = DAY - timedelta(days=61), ids[:5], metric_ids[:1]
    arguments: dict[str, list[tuple[Any, ...]]] = {
        "read_presence": [(one, ids, first, DAY), (metric_ids, few, first, DAY)],
        "read_newest": [(one[0], ids, 1, first, DAY)],
        "trace_value": [(one[0], ids[7], DAY)],
        "trace_inputs": [(metric_ids, ids[7], DAY - timedelta(days=364), DAY, NOW)],
    }
    queries = load_queries("ledger")
    for name in QUERIES:
        for given in arguments[name.removesuffix("_as_of")]:
            past = (NOW,) if name.endswith("_as_of") else ()
            rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {queries[name]}", *given, *past)
            plan = "\n".join(row[0] for row in rows)
            assert "Index" in plan, plan
            assert "Seq Scan" not in plan, f"{name} scans a whole table:\n{plan}"


@pytest.mark.parametrize("entities", [0, 1])
async def test_a_run_that_is_not_there(store: Store, entities: int) -> None:
    assert await store.ledger.read_runs_by_id([77] * entities) == {}
    assert await store.ledger.read_runs(None, None, None, 5, 0) == ([], 0)


async def test_a_batch_that_came_once_more_is_found_all_the_same(store: Store, ids: Mapping[str, int]) -> None:
    """A second delivery moves the batch's time; then all that asked for the value and ended well are named."""
    a = ids["a"]
    whom = (Entity(a, "a", "R_a", ("o/a",)),)
    run_id = await store.start_run("nightly", DAY, "0.9", "1.0.0", NOW)
    one = Batch("npm", "bulk", DAY, DAY - timedelta(days=3), DAY, whom, run_id=run_id)
    other = Batch("npm", "bulk", DAY, DAY - timedelta(days=9), DAY, whom, run_id=run_id)
    found = Observations.from_rows([(a, METRIC_BY_NAME["npm_downloads"].metric_id, DAY, 5.0, 7)])
    await store.plan_batches(run_id, [one, other], NOW)
    await store.commit_batch(one, Done(found, 1), NOW)
    trace = await trace_value(store, METRIC_BY_NAME["npm_downloads"], a, DAY)
    assert [b.batch_id for b in trace.values[0].batches] == [one.batch_id], "the other has not ended"
    await store.commit_batch(other, Done(Observations.from_rows([]), 1), NOW + timedelta(minutes=1))
    trace = await trace_value(store, METRIC_BY_NAME["npm_downloads"], a, DAY)
    assert [b.batch_id for b in trace.values[0].batches] == [one.batch_id], "it ended when the value was written"
    assert (await store.commit_batch(one, Done(found, 1), LATER)).already
    trace = await trace_value(store, METRIC_BY_NAME["npm_downloads"], a, DAY)
    assert {b.batch_id for b in trace.values[0].batches} == {one.batch_id, other.batch_id}
    assert trace.values[0].run is not None
    assert trace.values[0].run.run_id == run_id
