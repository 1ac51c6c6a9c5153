"""The ledger's rules: what is expected, why it is not there, and when it is asked for again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrid.catalog import METRIC_BY_NAME, METRICS, Metric
from astrid.models import Entity, Gap
from astrid.pipeline.asks import HEAL_DAYS, STALE_FEED_DAYS, Missing, find_asks
from astrid.pipeline.backfill import PASTS, find_backfill, leave_out, nightly_reach, plan_backfill
from astrid.pipeline.ledger import REASONS, Nights, Why, judge, next_night, tasks_of
from astrid.pipeline.night import read_missing
from astrid.pipeline.plan import NOT_ASKED
from astrid.pipeline.tries import (
    FORGOTTEN,
    NOT_TRACKED,
    REFUSED,
    SILENT,
    SNAPSHOT_OVER,
    STANDING_STILL,
    NextTry,
    Outlook,
    find_next_try,
    lacking_of,
)
from astrid.sources import SOURCES
from astrid.sources.source import days_between
from astrid.store import Expected, GapMarks, Store
from astrid.timeline import night_start
from tests.virtual.books import Books

DAY = date(2026, 3, 31)
NAMES = ("github_stars", "github_commits", "depsdev_stars", "pypi_downloads", "npm_downloads", "hn_points")
SPAN = 20


def marks_of(rows: Sequence[tuple[int, int, date, bool, bool, bool]]) -> GapMarks:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    kinds = ("i2", "i4", "M8[D]", "?", "?", "?")
    return GapMarks(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


def slow_judgement(
    metric: Metric,
    entity_id: int,
    day: date,
    observed: bool,
    asked: Sequence[Expected],
    rows: Sequence[tuple[int, int, date, bool, bool, bool]],
    nights: Nights,
) -> tuple[bool, bool, Why]:
    """Say the same of one day as ``judge``, from the definitions: (expected, late, why)."""
    own = [row for row in rows if row[:3] == (metric.metric_id, entity_id, day)]
    healed = any(row[4] for row in own)
    open_row = any(not row[4] for row in own)
    expected, why = bool(own), Why.UNEXPLAINED
    for task in SOURCES[metric.source].tasks.values():
        if not task.cadence_days or metric.name not in task.metrics:
            continue
        following = days_between(day, day + timedelta(days=9))
        turn = next(d for d in following if not (entity_id + d.toordinal()) % task.cadence_days)
        known = day <= nights.over and any(
            entity_id in x.entity_ids and x.first_day <= day and turn <= (x.last_day or date.max)
            for x in asked
            if (x.source, x.task) == (metric.source, task.name)
        )
        if not known or (task.timing == "snapshot" and turn != day):
            continue
        expected = True
        if turn >= nights.next:
            why = Why.NIGHT_TO_COME if turn == day else Why.TURN_TO_COME
        elif turn not in nights.ended:
            why = Why.NO_NIGHT
        else:
            asked_then = turn in nights.asked.get((metric.source, task.name), ())
            why = Why.UNEXPLAINED if asked_then else Why.NOT_ASKED
    if open_row:
        why = Why.ROW
    return expected, observed and healed, why if expected and not observed else Why.NOTHING


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(NAMES))
def test_judging_whole_arrays_is_judging_each_day(seed: int, name: str) -> None:
    draw = random.Random(seed)
    metric = METRIC_BY_NAME[name]
    ids = np.array(sorted(draw.sample(range(1, 40), 4)), np.int32)
    days = days_between(DAY - timedelta(days=SPAN - 1), DAY)
    over = DAY - timedelta(days=draw.randrange(3))
    nights = Nights(
        over,
        over + timedelta(days=draw.randrange(2)),
        frozenset(d for d in days if draw.random() < 0.8),
        {(s.name, t): frozenset(d for d in days if draw.random() < 0.8) for s in SOURCES.values() for t in s.tasks},
    )
    asked = []
    for source in SOURCES.values():
        for task in source.tasks:
            whom = tuple(sorted(draw.sample(range(1, 40), 20)))
            first = draw.choice(days)
            asked.append(
                Expected(source.name, task, first, draw.choice([None, *(d for d in days if d >= first)]), whom)
            )
    rows = []
    for m in (metric, METRIC_BY_NAME["dockerhub_pulls"]):
        for entity_id in (*ids.tolist(), 40):
            for day in (*days, DAY + timedelta(days=1), days[0] - timedelta(days=1)):
                if draw.random() < 0.1:
                    rows.append((m.metric_id, entity_id, day, draw.random() < 0.5, draw.random() < 0.5, False))
    observed = np.array([[draw.random() < 0.6 for _ in ids] for _ in days])
    cells = judge(metric, ids, days[0], observed, asked, marks_of(rows), nights)
    for t, day in enumerate(days):
        for n, entity_id in enumerate(ids.tolist()):
            slow = slow_judgement(metric, entity_id, day, bool(observed[t, n]), asked, rows, nights)
            assert (bool(cells.expected[t, n]), bool(cells.late[t, n]), Why(int(cells.why[t, n]))) == slow
    assert not (cells.missing & cells.waiting).any()
    lacking = int((cells.expected & ~cells.observed).sum())
    assert int(cells.missing.sum()) + int(cells.waiting.sum()) == lacking, "missing is expected minus observed"


def test_every_reason_but_a_rows_own_is_in_words() -> None:
    assert set(REASONS) == set(Why) - {Why.NOTHING, Why.ROW}
    assert len(set(REASONS.values())) == len(REASONS)


def test_which_night_is_next() -> None:
    start = night_start(DAY)
    assert next_night(start - timedelta(hours=2), {}) == DAY, "its night is still to come"
    assert next_night(start + timedelta(hours=9), {}) == DAY, "nobody has run it yet"
    assert next_night(start + timedelta(hours=9), {DAY: True}) == DAY + timedelta(days=1)
    assert next_night(start + timedelta(hours=9), {DAY: False}) == DAY + timedelta(days=1), "it failed, or still runs"
    assert next_night(start - timedelta(hours=1), {DAY: False}) == DAY


EVERY_TASK = tuple((source.name, task) for source in SOURCES.values() for task in source.tasks)


def outlook_of(
    now: datetime,
    lacking: dict[str, set[date]],
    *,
    night: date = DAY + timedelta(days=1),
    tasks: Sequence[tuple[str, str]] = EVERY_TASK,
    newest: date | None = None,
    **more: object,
) -> Outlook:
    """Return the outlook for entity 7, which lacks some days of some metrics and the coming night's of all."""
    first = night - timedelta(days=HEAL_DAYS - 1)
    days = {m.name: {7: frozenset(lacking.get(m.name, set()) | {night})} for m in METRICS}
    seen = {m.name: {7: newest} if newest else {} for m in METRICS}
    missing = replace(Missing(first, days, seen), **more)  # type: ignore[arg-type]
    return Outlook(now, night, missing, {7: tasks}, tuple(SOURCES))


def told(metric: str, day: date, outlook: Outlook, *, retry: bool = True) -> NextTry:
    return find_next_try(Gap(7, METRIC_BY_NAME[metric].metric_id, day, "503", retry), outlook)


MORNING = night_start(DAY) + timedelta(hours=3)
EVENING = night_start(DAY) + timedelta(hours=12)
NEXT = DAY + timedelta(days=1)


def test_a_snapshot_can_only_be_had_on_its_own_day() -> None:
    rerun = told("github_stars", DAY, outlook_of(MORNING, {}))
    assert (rerun.kind, rerun.night, rerun.at) == ("rerun", DAY, datetime(2026, 4, 1, 12, tzinfo=UTC))
    assert told("github_stars", DAY, outlook_of(EVENING, {})) == NextTry("never", why=SNAPSHOT_OVER)
    assert told("github_stars", DAY, outlook_of(MORNING, {}), retry=False).why == REFUSED
    assert told("github_stars", DAY - timedelta(days=1), outlook_of(MORNING, {})).why == SNAPSHOT_OVER
    ahead = told("github_stars", NEXT, outlook_of(EVENING, {}))
    assert (ahead.kind, ahead.night, ahead.at) == ("night", NEXT, night_start(NEXT))


def test_a_dated_value_is_asked_for_as_far_back_as_its_task_looks() -> None:
    for name, reach in (("npm_downloads", 35), ("hn_points", 35), ("github_stars_gained", 35), ("pypi_downloads", 180)):
        edge = NEXT - timedelta(days=reach - 1)
        lacking = {name: {edge, DAY}}
        at_edge = told(name, edge, outlook_of(EVENING, lacking))
        assert at_edge.kind == "night", (name, at_edge)
        assert at_edge.night is not None
        assert NEXT <= at_edge.night < NEXT + timedelta(days=7)
        before = told(name, edge - timedelta(days=8), outlook_of(EVENING, lacking))
        assert before.kind == "backfill", (name, before)


def test_what_no_night_and_no_backfill_asks_for_is_never_asked() -> None:
    old = DAY - timedelta(days=400)
    outlook = outlook_of(EVENING, {})
    assert told("npm_downloads", old, outlook) == NextTry("backfill", source="npm")
    assert told("github_commits", old, outlook).source == "github.commits"
    assert told("pypi_downloads", old, outlook).source == "clickhouse"
    assert told("npm_downloads", old, outlook, retry=False) == NextTry("never", why=REFUSED)
    assert told("npm_downloads", old, replace(outlook, sources=("github",))) == NextTry("never", why=FORGOTTEN)
    assert told("pypi_downloads_with_mirrors", old, outlook) == NextTry("never", why=FORGOTTEN)
    assert told("npm_downloads", DAY, outlook_of(EVENING, {}, tasks=())) == NextTry("never", why=NOT_TRACKED)
    assert find_next_try(Gap(7, 999, DAY, ""), outlook).kind == "never"


def test_a_weekly_task_names_its_turn_and_an_overdue_one_the_next_night() -> None:
    lacking = {"github_commits": {DAY}}
    turn = next(d for d in days_between(NEXT, NEXT + timedelta(days=7)) if not (7 + d.toordinal()) % 7)
    assert told("github_commits", DAY, outlook_of(EVENING, lacking, newest=DAY - timedelta(days=1))).night == turn
    assert turn > NEXT
    assert told("github_commits", DAY, outlook_of(EVENING, lacking, newest=DAY - timedelta(days=8))).night == NEXT
    assert told("github_commits", DAY, outlook_of(EVENING, lacking)).night == NEXT, "never heard of"


def test_of_a_feed_that_stands_still_it_is_said() -> None:
    stale = {("pypi_downloads", "pypistats"): NEXT - timedelta(days=STALE_FEED_DAYS + 1)}
    lacking = {"pypi_downloads": {DAY}}
    newest = DAY - timedelta(days=1)
    assert told("pypi_downloads", DAY, outlook_of(EVENING, lacking, newest=newest, feeds=stale)).why == STANDING_STILL
    assert told("pypi_downloads", DAY, outlook_of(EVENING, lacking, newest=newest)).why == ""


def test_of_a_source_that_the_last_night_did_not_ask_it_is_said() -> None:
    outlook = replace(
        outlook_of(EVENING, {"npm_downloads": {DAY}}), silent=frozenset({("npm", "bulk"), ("npm", "scoped")})
    )
    asked = told("npm_downloads", DAY, outlook)
    assert (asked.kind, asked.night, asked.why) == ("night", NEXT, SILENT)
    assert told("hn_points", DAY, replace(outlook_of(EVENING, {"hn_points": {DAY}}), silent=outlook.silent)).why == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_what_a_reader_takes_for_lacking_is_what_the_night_reads(seed: int) -> None:
    draw = random.Random(seed)
    books = Books(random.Random(0))
    ids = np.array(sorted(draw.sample(range(1, 30), 3)), np.int32)
    metrics = [METRIC_BY_NAME[name] for name in NAMES]
    days = days_between(DAY - timedelta(days=HEAL_DAYS + 4), DAY)
    at = datetime(2026, 4, 1, tzinfo=UTC)
    rows = []
    for metric in metrics:
        for entity_id in ids.tolist():
            for day in days:
                key = (metric.metric_id, entity_id, day)
                if draw.random() < 0.5:
                    books.values[key] = (1.0, 1)
                elif draw.random() < 0.5:
                    reason = draw.choice([f"{NOT_ASKED} tonight", "503"])
                    gap = Gap(entity_id, metric.metric_id, day, reason, draw.random() < 0.5)
                    books.gaps[key] = (gap, at)
                    rows.append((metric.metric_id, entity_id, day, gap.retry, False, reason != "503"))
                elif key in books.values and draw.random() < 0.2:
                    rows.append((metric.metric_id, entity_id, day, True, True, False))
    own = {s.name: tuple(Entity(e, f"p{e}", "R", ("o/p",)) for e in ids.tolist()) for s in SOURCES.values()}
    read = asyncio.run(read_missing(cast(Store, books), own, DAY, at + timedelta(days=1)))
    first = DAY - timedelta(days=HEAL_DAYS - 1)
    observed = {
        m.metric_id: np.array(
            [[(m.metric_id, e, d) in books.values for e in ids.tolist()] for d in days_between(first, DAY)]
        )
        for m in metrics
    }
    found = lacking_of(DAY, ids, observed, marks_of(rows), read.feeds, {})
    assert found.first == read.first
    for name in NAMES:
        for mine, theirs in ((found.days, read.days), (found.newest, read.newest)):
            assert dict(mine[name]) == dict(theirs[name]), name
        assert dict(found.tried[name]) == dict(read.tried[name])
        assert dict(found.refused[name]) == dict(read.refused[name])


class TestHealing:
    @pytest.mark.parametrize(("task", "metric"), [("history", "github_stars_gained"), ("commits", "github_commits")])
    def test_who_lacks_older_days_is_asked_for_them_too(self, task: str, metric: str) -> None:
        declared = SOURCES["github"].tasks[task]
        hole = DAY - timedelta(days=20)
        people = [Entity(n, f"p{n}", f"R{n}", ("o/p",)) for n in (1, 2, 3)]
        first = DAY - timedelta(days=HEAL_DAYS - 1)
        days = {1: frozenset({DAY, hole}), 2: frozenset({DAY}), 3: frozenset({DAY, hole, first})}
        missing = Missing(first, {metric: days}, {}, tracked={3: DAY - timedelta(days=2)})
        asks = find_asks(SOURCES["github"], declared, DAY, people, missing)
        usual = DAY - timedelta(days=declared.lookback_days - 1)
        assert [(a.first, [e.entity_id for e in a.entities]) for a in asks] == [(hole, [1]), (usual, [2, 3])]

    def test_longer_readings_of_commits_cost_more(self) -> None:
        task = SOURCES["github"].tasks["commits"]
        people = [Entity(n, f"p{n}", f"R{n}", ("o/p",)) for n in range(task.entities_per_batch)]
        assert task.price(task, people, 8).requests == task.requests_per_batch
        assert task.price(task, people, 28).requests == pytest.approx(17.5)
        assert task.price(task, people[:1], 1).requests == pytest.approx(1 / 56)


class TestBackfill:
    @given(st.sampled_from([m.name for m in METRICS]), st.integers(0, 5000), st.sets(st.sampled_from(sorted(SOURCES))))
    def test_a_backfill_that_is_named_asks_for_the_day(self, metric: str, age: int, sources: set[str]) -> None:
        day = DAY - timedelta(days=age)
        named = find_backfill(metric, day, DAY, sources)
        people = dict.fromkeys(SOURCES, (Entity(1, "a", "key", ("o/a",)), Entity(2, "b", "@s/key", ("o/b",))))
        asked = {n: plan_backfill(day, DAY, people, [n]) for n in (*sources, *(f"{p.source}.{p.task}" for p in PASTS))}

        def covers(name: str) -> bool:
            return any(
                b.start <= day <= b.end and metric in (*(t := SOURCES[b.source].tasks[b.task]).metrics, *t.also)
                for b in asked[name]
            )

        if named:
            assert named.partition(".")[0] in sources
            assert covers(named)
        else:
            assert not any(covers(name) for name in asked if name.partition(".")[0] in sources - {"archive"})

    def test_dear_commits_only_where_they_are_named(self) -> None:
        people = dict.fromkeys(SOURCES, (Entity(1, "a", "R_1", ("o/a",)),))
        whole = plan_backfill(DAY - timedelta(days=59), DAY, people, ["github"])
        assert {b.task for b in whole} == {"history"}
        named = plan_backfill(DAY - timedelta(days=59), DAY, people, ["github.commits"])
        assert [(b.task, (b.end - b.start).days + 1) for b in named] == [
            ("commits", 28),
            ("commits", 28),
            ("commits", 4),
        ]

    def test_npm_is_read_since_it_counts_with_and_without_scopes(self) -> None:
        people = dict.fromkeys(SOURCES, (Entity(1, "a", "a", ("a",)), Entity(2, "b", "@s/b", ("@s/b",))))
        batches = plan_backfill(date(2014, 1, 1), date(2015, 2, 1), people, ["npm"])
        assert {(b.task, b.start, b.end, b.entities[0].entity_id) for b in batches} == {
            ("bulk", date(2015, 1, 10), date(2015, 2, 1), 1), ("scoped", date(2015, 1, 10), date(2015, 2, 1), 2),
        }  # fmt: skip

    def test_finished_work_is_left_out_unless_it_left_a_gap_worth_a_try(self) -> None:
        people = dict.fromkeys(SOURCES, (Entity(1, "a", "a", ("a",)), Entity(2, "b", "b", ("b",))))
        batches = plan_backfill(date(2026, 1, 1), date(2026, 3, 31), people, ["hackernews"])
        done = {b.batch_id for b in batches[:2]}
        points, stars = (METRIC_BY_NAME[name].metric_id for name in ("hn_points", "github_stars"))
        inside = date(2026, 2, 11)
        assert leave_out(batches, done, []) == batches[2:]
        assert leave_out(batches, (), [Gap(1, points, inside, "", True)]) == batches
        assert leave_out(batches, done, [Gap(2, points, inside, "", True)]) == batches[1:]
        useless = [
            Gap(2, points, inside, "there is none", False), Gap(3, points, inside, "", True),
            Gap(2, stars, inside, "", True), Gap(2, points, date(2025, 12, 31), "", True),
        ]  # fmt: skip
        assert leave_out(batches, done, useless) == batches[2:]
        everything = {b.batch_id for b in batches}
        edge = date(2026, 3, 31) - timedelta(days=nightly_reach(METRIC_BY_NAME["hn_points"]))
        assert leave_out(batches, everything, [Gap(1, points, edge, "", True)]) == batches[1:2]
        nearer = Gap(1, points, edge + timedelta(days=1), "", True)
        assert leave_out(batches, everything, [nearer]) == [], "nights ask for it themselves"


def test_metrics_that_come_along_owe_nothing_and_have_a_task() -> None:
    assert [t.name for t in tasks_of(METRIC_BY_NAME["pypi_downloads_with_mirrors"])] == ["overall"]
    assert all(tasks_of(metric) for metric in METRICS), "every metric is filled by nights"
