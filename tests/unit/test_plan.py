"""Plans: only what is missing, the same every time, everyone in turn, and what it costs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from math import ceil
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.catalog import METRIC_BY_NAME
from astrid.models import Batch, Entity, Gap
from astrid.pipeline.asks import STALE_FEED_DAYS, Missing, is_due
from astrid.pipeline.backfill import PYPISTATS_DAYS, plan_backfill
from astrid.pipeline.costs import cost_plan, count_night_hours
from astrid.pipeline.night import read_missing
from astrid.pipeline.plan import LEFT_OUT, NO_NIGHT, NOT_ASKED, PASSED_OVER, Plan
from astrid.pipeline.plan import plan_night as plan_whole_night
from astrid.pipeline.shares import share
from astrid.sources import SOURCES, Task
from astrid.sources.source import days_between
from astrid.store import Store
from astrid.timeline import night_start
from tests.virtual.books import Books

HISTORY = SOURCES["github"].tasks["history"]
HISTORY_DAYS, HISTORY_SLICE = HISTORY.lookback_days, HISTORY.cadence_days
HN_FINAL_DAYS = SOURCES["hackernews"].tasks["window"].lookback_days
PROBE = SOURCES["pypistats"].tasks["overall"].probe
DAY = date(2026, 3, 31)
FIRST = DAY - timedelta(days=34)
ALL = tuple(SOURCES)
METRICS = ("github_stars", "github_forks", "github_stars_gained", "hn_points", "hn_stories", "pypi_downloads")


def ago(days: int) -> date:
    return DAY - timedelta(days=days)


def entities(count: int, *, known: bool = True) -> dict[str, tuple[Entity, ...]]:
    made = tuple(Entity(n, f"p{n}", f"R_{n}" if known else "", (f"o/p{n}",)) for n in range(count))
    return dict.fromkeys(SOURCES, made)


def lacking(days: Mapping[str, Mapping[int, set[date]]], newest: Mapping[int, date] | None = None) -> Missing:
    frozen = {m: {e: frozenset(d) for e, d in of.items()} for m, of in days.items()}
    return Missing(FIRST, frozen, {"pypi_downloads": newest or {}})


def all_lack(count: int, day: date = DAY) -> Missing:
    return lacking({m: {n: {day} for n in range(count)} for m in METRICS}, {n: ago(1) for n in range(count)})


def plan_night(
    day: date,
    entities: Mapping[str, Sequence[Entity]],
    missing: Missing,
    sources: Collection[str],
    without: Collection[str] = (),
) -> list[Batch]:
    """Plan a night that is long enough for everything."""
    plan = plan_whole_night(day, entities, missing, sources, without, hours=10_000)
    assert {g.reason for g in plan.left_out} <= {PASSED_OVER}
    return list(plan.batches)


def of(batches: list[Batch], source: str, task: str | None = None) -> list[Batch]:
    return [b for b in batches if b.source == source and task in (None, b.task)]


STALE = {("pypi_downloads", "pypistats"): ago(STALE_FEED_DAYS + 1)}
"""A feed that stands still."""


class TestNight:
    def test_nothing_missing_is_nothing_to_do(self) -> None:
        assert plan_night(DAY, entities(30), lacking({}), ALL) == []
        assert plan_night(DAY, entities(30), all_lack(30, ago(3)), ALL) == []
        assert plan_night(DAY, entities(30), all_lack(30), ()) == []
        assert plan_night(DAY, entities(0), all_lack(0), ALL) == []

    def test_the_same_plan_every_time(self) -> None:
        one, two = (plan_night(DAY, entities(230), all_lack(230), ALL) for _ in range(2))
        assert one == two
        assert [b.batch_id for b in one] == [b.batch_id for b in two]
        assert len({b.batch_id for b in one}) == len(one)

    def test_ids_stay_when_node_ids_become_known_and_change_with_the_work(self) -> None:
        before = plan_night(DAY, entities(120, known=False), all_lack(120), ALL)
        after = plan_night(DAY, entities(120), all_lack(120), ALL)
        assert [b.batch_id for b in before] == [b.batch_id for b in after]
        assert before != after
        batch = before[0]
        for change in (
            {"day": ago(1)},
            {"start": ago(1)},
            {"end": ago(-1)},
            {"task": "x"},
            {"source": "x"},
            {"lane": "backfill"},
            {"entities": batch.entities[1:]},
            {"entities": tuple(replace(e, names=("o/else",)) for e in batch.entities)},
        ):
            assert replace(batch, batch_id="", **change).batch_id != batch.batch_id  # type: ignore[arg-type]
        for same in ({"run_id": 9}, {"attempt": 2}, {"pauses": 4}, {"requests": 8}):
            assert replace(batch, batch_id="", **same).batch_id == batch.batch_id  # type: ignore[arg-type]

    def test_counts_of_those_who_lack_one_of_them(self) -> None:
        missing = lacking({"github_stars": {1: {DAY}, 2: {ago(1)}}, "github_forks": {3: {DAY}}})
        (batch,) = plan_night(DAY, entities(6), missing, ("github",))
        assert [e.entity_id for e in batch.entities] == [1, 3]
        assert (batch.task, batch.start, batch.end, batch.requests) == ("counts", DAY, DAY, 1)

    def test_counts_are_cut_at_a_hundred_and_names_cost_a_request_more(self) -> None:
        for known, requests in ((True, 1), (False, 2)):
            batches = of(plan_night(DAY, entities(230, known=known), all_lack(230), ALL), "github", "counts")
            assert [len(b.entities) for b in batches] == [100, 100, 30]
            assert {b.requests for b in batches} == {requests}

    @given(st.sets(st.integers(0, 10_000), max_size=60), st.integers(0, 4000))
    def test_slices_reach_everyone_once_in_seven_nights(self, ids: set[int], shift: int) -> None:
        first = date(2026, 1, 1) + timedelta(days=shift)
        made = {"github": tuple(Entity(n, f"p{n}", "R", ("o/p",)) for n in sorted(ids))}
        seen: Counter[int] = Counter()
        for n in range(HISTORY_SLICE):
            night = first + timedelta(days=n)
            missing = lacking({"github_stars_gained": {i: {night} for i in ids}})
            missing = replace(missing, newest={"github_stars_gained": dict.fromkeys(ids, night - timedelta(days=1))})
            for batch in plan_night(night, made, missing, ("github",)):
                seen.update(e.entity_id for e in batch.entities)
                assert (batch.start, batch.end) == (night - timedelta(days=HISTORY_DAYS - 1), night)
        assert seen == Counter(ids)
        assert HISTORY_DAYS >= HISTORY_SLICE, "a slice must reach back to the one before"

    def test_hacker_news_reads_the_last_days_again_and_older_gaps(self) -> None:
        old = {ago(20), ago(19), ago(9)}
        missing = lacking({"hn_points": {0: {DAY}, 1: old | {DAY}}})
        windows = [(b.start, b.end) for b in plan_night(DAY, entities(3), missing, ("hackernews",))]
        assert windows == [(ago(23), ago(19)), (ago(12), ago(9)), (ago(3), DAY)]
        assert plan_night(DAY, entities(3), lacking({"hn_points": {0: old}}), ("hackernews",)) == []

    def test_a_night_after_missed_ones_reads_again_what_was_young_at_the_last_reading(self) -> None:
        for missed in range(20):
            missing = lacking({"hn_points": {0: {ago(n) for n in range(missed + 1)}}})
            (batch,) = plan_night(DAY, entities(1), missing, ("hackernews",))
            assert (batch.start, batch.end) == (ago(missed + 3), DAY)

    @given(
        st.lists(st.sampled_from(["runs", "runs", "missed", "fails", "backfill"]), min_size=1, max_size=60),
        st.integers(0, 5),
    )
    def test_whatever_nights_are_missed_every_day_is_read_once_it_is_settled(
        self, nights: list[str], joined: int
    ) -> None:
        """Settled is a day in the third night after its own; a later night that reads anything makes up for it."""
        heal_days, stored, last_read = 35, {0: set[date](), 1: set[date]()}, dict[date, int]()
        for n, what in enumerate(nights):
            night = DAY + timedelta(days=n)
            if what == "backfill":  # of the night's day alone, for everybody
                stored = {e: days | {night} for e, days in stored.items()}
                last_read[night] = n
            if what not in ("runs", "fails"):
                continue
            known = [0, 1] if n >= joined else [0]
            window = [night - timedelta(days=k) for k in range(heal_days)]
            missing = replace(
                lacking({"hn_points": {e: set(window) - stored[e] for e in known}}),
                first=window[-1],
                missed=frozenset(
                    DAY + timedelta(days=k) for k, how in enumerate(nights[:n]) if how in ("missed", "backfill")
                ),
            )
            tracked = {"hackernews": entities(2)["hackernews"][: len(known)]}
            batches = plan_night(night, tracked, missing, ("hackernews",))
            if what == "fails":
                continue
            read = {b.start + timedelta(days=k) for b in batches for k in range((b.end - b.start).days + 1)}
            assert set(window) - stored[0] <= read
            stored |= {e: stored[e] | read for e in known}
            last_read |= dict.fromkeys(read, n)
            for age in range(HN_FINAL_DAYS - 1, heal_days):
                settled = last_read.get(night - timedelta(days=age))
                assert settled is not None
                assert settled >= n - age + 3

    def test_windows_are_no_longer_than_a_batch_may_be(self) -> None:
        days = {ago(n) for n in range(35)}
        batches = plan_night(DAY, entities(1), lacking({"hn_points": {0: days}}), ("hackernews",))
        assert [(b.end - b.start).days + 1 for b in batches] == [31, 7]

    def test_pypistats_starts_at_the_first_day_that_is_missing(self) -> None:
        missing = lacking(
            {"pypi_downloads": {0: {DAY}, 1: {DAY, ago(1)}, 2: {DAY, ago(8)}, 3: {DAY}, 4: {ago(2)}}},
            {0: ago(1), 1: ago(2), 2: ago(1), 4: DAY},
        )
        batches = plan_night(DAY, entities(6), missing, ("pypistats",))
        assert {(b.start, tuple(e.entity_id for e in b.entities)) for b in batches} == {
            (ago(PYPISTATS_DAYS - 1), (3,)),  # never seen: all that the site has
            (ago(8), (2,)),  # a hole behind its newest day heals too
            (ago(1), (1,)),
            (DAY, (0,)),
        }, "nobody's turn to be read whole"
        assert {b.end for b in batches} == {DAY}

    def test_a_stale_feed_is_probed_by_a_rotating_few(self) -> None:
        count, asked = 37, Counter[int]()
        for n in range(40):
            night = DAY + timedelta(days=n)
            missing = replace(
                lacking(
                    {"pypi_downloads": {e: {night} for e in range(count)}},
                    dict.fromkeys(range(count), ago(STALE_FEED_DAYS + 1)),
                ),
                feeds=STALE,
            )
            batches = plan_night(night, entities(count), missing, ("pypistats",))
            asked.update(e.entity_id for b in batches for e in b.entities)
            assert sum(len(b.entities) for b in batches) == PROBE
            gaps = plan_whole_night(night, entities(count), missing, ("pypistats",), hours=10_000).left_out
            assert {(g.entity_id, g.day) for g in gaps} == {
                (e, night) for e in range(count) if all(e != x.entity_id for b in batches for x in b.entities)
            }
            assert {(g.reason, g.retry) for g in gaps} == {(PASSED_OVER, True)}
            none = replace(missing, asked={"pypi_downloads": frozenset({1})})
            assert plan_night(night, entities(count), none, ("pypistats",)) == []
        assert set(asked) == set(range(count))

    def test_a_feed_that_is_only_late_is_asked_in_full(self) -> None:
        missing = all_lack(37)
        late = replace(missing, feeds={("pypi_downloads", "pypistats"): ago(STALE_FEED_DAYS)})
        assert sum(len(b.entities) for b in plan_night(DAY, entities(37), late, ("pypistats",))) == 37

    def test_a_probe_of_fewer_than_ten(self) -> None:
        missing = replace(lacking({"pypi_downloads": {e: {DAY} for e in range(3)}}, {0: ago(30)}), feeds=STALE)
        batches = plan_night(DAY, entities(3), missing, ("pypistats",))
        assert sorted(e.entity_id for b in batches for e in b.entities) == [0, 1, 2]


class TestStandIn:
    """While pypistats stands still its packages' days come from the ClickHouse copy."""

    def missing(self, night: date, feed: date | None) -> Missing:
        days = frozenset(night - timedelta(days=n) for n in range(5))
        newest = dict.fromkeys(range(40), night - timedelta(days=5))
        feeds = {} if feed is None else {("pypi_downloads", "pypistats"): feed}
        return Missing(
            night - timedelta(days=34),
            {"pypi_downloads": dict.fromkeys(range(40), days)},
            {"pypi_downloads": newest},
            feeds=feeds,
        )

    def alive(self, missing: Missing) -> Missing:
        """Let the stand-in have stated yesterday."""
        return replace(missing, feeds={**missing.feeds, ("pypi_downloads", "clickhouse_pypi"): ago(1)})

    def test_one_that_has_stated_nothing_lately_is_probed_first(self) -> None:
        batches = plan_night(DAY, entities(40), self.missing(DAY, ago(9)), ALL)
        assert len(of(batches, "clickhouse", "recent")) == 1
        asked = {e.entity_id for b in of(batches, "clickhouse", "recent") for e in b.entities}
        assert 0 < len(asked) <= SOURCES["clickhouse"].tasks["recent"].probe

    def test_it_is_asked_for_everybody_while_the_feed_stands_still_and_only_then(self) -> None:
        for feed, asked in ((None, 0), (ago(STALE_FEED_DAYS), 0), (ago(STALE_FEED_DAYS + 1), 40 - PROBE)):
            batches = plan_night(DAY, entities(40), self.alive(self.missing(DAY, feed)), ALL)
            assert sum(len(b.entities) for b in of(batches, "clickhouse", "recent")) == asked
            assert sum(len(b.entities) for b in of(batches, "pypistats")) == (PROBE if asked else 40)
        night = plan_night(DAY, entities(40), self.alive(self.missing(DAY, ago(5))), ALL)
        assert Counter(e.entity_id for b in night for e in b.entities) == Counter(range(40)), (
            "nobody is asked about twice"
        )
        whole = plan_whole_night(DAY, entities(40), self.alive(self.missing(DAY, ago(5))), ALL, hours=10_000)
        assert not whole.left_out, "who is asked about elsewhere is not passed over"
        batches = of(night, "clickhouse")
        assert {(b.start, b.end) for b in batches} == {(ago(4), DAY)}
        assert max(len(b.entities) * ((b.end - b.start).days + 1) for b in batches) <= 500

    def test_what_it_filled_does_not_make_the_feed_look_alive(self) -> None:
        """Its own days are new; the feed's are not."""
        filled = replace(self.missing(DAY, ago(9)), newest={"pypi_downloads": dict.fromkeys(range(40), ago(1))})
        filled = replace(filled, feeds={**filled.feeds, ("pypi_downloads", "clickhouse_pypi"): ago(1)})
        batches = plan_night(DAY, entities(40), filled, ALL)
        assert of(batches, "clickhouse", "recent")
        assert sum(len(b.entities) for b in of(batches, "pypistats")) == PROBE

    def test_a_stand_in_that_stands_still_itself_is_probed_by_a_batch(self) -> None:
        """Two dead feeds must not cost a night more than one question each."""
        turns = Counter[int]()
        for n in range(12):
            night = DAY + timedelta(days=n)
            later = self.missing(night, ago(9))
            later = replace(later, feeds={**later.feeds, ("pypi_downloads", "clickhouse_pypi"): ago(9)})
            batches = of(plan_night(night, entities(40), later, ALL), "clickhouse", "recent")
            asked = [e.entity_id for b in batches for e in b.entities]
            assert len(batches) <= 1
            assert len(asked) <= SOURCES["clickhouse"].tasks["recent"].probe
            turns.update(asked)
        assert set(turns) == set(range(40))

    def test_once_a_week_a_package_is_read_whole(self) -> None:
        """So what the stand-in filled, and what the site corrected, is read where it belongs."""
        whole = Counter[int]()
        for n in range(7):
            night = DAY + timedelta(days=n)
            batches = of(
                plan_night(night, entities(40), self.missing(night, night - timedelta(days=1)), ALL), "pypistats"
            )
            assert sum(len(b.entities) for b in batches) == 40
            whole.update(
                e.entity_id for b in batches for e in b.entities if (b.end - b.start).days == PYPISTATS_DAYS - 1
            )
        assert set(whole) == set(range(40))
        assert set(whole.values()) == {1}


class TestBackfill:
    @given(st.dates(date(2024, 1, 1), date(2026, 3, 31)), st.integers(0, 800), st.integers(1, 25))
    def test_every_day_of_everyone_exactly_once(self, first: date, days: int, count: int) -> None:
        last = first + timedelta(days=days)
        batches = plan_backfill(first, last, entities(count), ALL)
        assert len({b.batch_id for b in batches}) == len(batches)
        covered: dict[str, Counter[tuple[int, date]]] = {name: Counter() for name in (*ALL, "pypi")}
        for batch in batches:
            assert first <= batch.start <= batch.end <= last
            task = SOURCES[batch.source].tasks[batch.task]
            assert len(batch.entities) <= task.entities_per_batch
            assert (batch.end - batch.start).days < task.days_per_batch
            assert batch.lane == "backfill"
            name = "pypi" if batch.source in ("pypistats", "clickhouse") else batch.source
            ids = [e.entity_id for e in batch.entities]
            covered[name].update(
                (ids[0], batch.start + timedelta(days=n)) for n in range((batch.end - batch.start).days + 1)
            )
            assert len(set(ids)) == len(ids)
        for name in ("archive", "hackernews", "pypi"):
            one = [d for e, d in covered[name] if e == 0]
            assert len(one) == days + 1
            assert max(covered[name].values()) == 1

    def test_months(self) -> None:
        batches = plan_backfill(date(2023, 12, 30), date(2024, 3, 1), entities(2), ("archive",))
        assert [(b.start.isoformat(), b.end.isoformat()) for b in batches] == [
            ("2023-12-30", "2023-12-31"),
            ("2024-01-01", "2024-01-31"),
            ("2024-02-01", "2024-02-29"),
            ("2024-03-01", "2024-03-01"),
        ]

    def test_old_downloads_come_from_the_copy_recent_ones_from_the_site(self) -> None:
        batches = plan_backfill(ago(400), DAY, entities(3), ("pypistats", "clickhouse"))
        site, copy = of(batches, "pypistats"), of(batches, "clickhouse")
        assert {(b.start, b.end) for b in site} == {(ago(PYPISTATS_DAYS - 1), DAY)}
        assert {(b.start, b.end) for b in copy} == {(ago(400), ago(PYPISTATS_DAYS))}
        assert len(copy) == 3
        assert of(plan_backfill(ago(100), DAY, entities(3), ("clickhouse",)), "clickhouse") == []

    @pytest.mark.parametrize("sources", [(), ("github",), ("archive", "hackernews")])
    def test_only_the_sources_that_may_be_asked(self, sources: tuple[str, ...]) -> None:
        assert {b.source for b in plan_backfill(ago(40), DAY, entities(3), sources)} == set(sources)


class TestDeclaredCadence:
    WEEKLY = Task("weekly", ("npm_downloads",), "dated", "core", 8, 30, 8, cadence_days=7, lookback_days=30)
    NIGHTLY = Task("nightly", ("dockerhub_pulls", "dockerhub_stars"), "snapshot", "core", 8, 1, 8, cadence_days=1)

    def missing(self, metric: str, newest: date | None, day: date = DAY) -> Missing:
        return Missing(FIRST, {metric: {5: frozenset({day})}}, {metric: {} if newest is None else {5: newest}})

    def test_a_nightly_task_asks_for_what_lacks_the_day_in_any_metric(self) -> None:
        assert is_due(self.NIGHTLY, 5, DAY, self.missing("dockerhub_stars", ago(1)))
        assert not is_due(self.NIGHTLY, 5, DAY, self.missing("npm_downloads", ago(1)))

    def test_a_weekly_task_asks_once_in_seven_nights_and_again_if_its_night_was_missed(self) -> None:
        nights = [DAY + timedelta(days=n) for n in range(7)]
        due = [is_due(self.WEEKLY, 5, d, self.missing("npm_downloads", d - timedelta(days=2), d)) for d in nights]
        assert sum(due) == 1
        assert all(is_due(self.WEEKLY, 5, d, self.missing("npm_downloads", d - timedelta(days=8), d)) for d in nights)
        assert all(is_due(self.WEEKLY, 5, d, self.missing("npm_downloads", None, d)) for d in nights)


class TestCost:
    def test_ten_thousand_repositories_with_four_totals_stay_below_600_points(self) -> None:
        metrics = ("github_stars", "github_forks", "github_watchers", "github_open_issues", "github_releases")
        lacks = lacking({m: {n: {DAY} for n in range(10_000)} for m in metrics}, {})
        batches = of(plan_night(DAY, entities(10_000), lacks, ("github",)), "github")
        points = {task: sum(b.points for b in batches if b.task == task) for task in ("counts", "totals")}
        assert points == {"counts": 100, "totals": 400}
        left_out = plan_night(DAY, entities(10_000), lacks, ("github",), {"github.totals"})
        assert {b.task for b in left_out} == {"counts"}

    def test_commits_are_weekly_and_a_week_of_ten_thousand_repositories_costs_a_point_for_seven(self) -> None:
        spent = 0
        for n in range(7):
            day = DAY + timedelta(days=n)
            lacks = lacking({"github_commits": {e: {day} for e in range(10_000)}})
            seen = dict.fromkeys(range(10_000), day - timedelta(days=7))
            night = plan_night(day, entities(10_000), replace(lacks, newest={"github_commits": seen}), ("github",))
            assert {(b.task, b.start, b.end) for b in night} == {("commits", day - timedelta(days=7), day)}
            spent += sum(b.points for b in night)
        assert 10_000 / 7 <= spent <= 10_000 / 7 * 1.02

    def test_sums_and_the_longest_window(self) -> None:
        read = {
            "pypi_downloads": dict.fromkeys(range(700), ago(1)),
            "github_stars_gained": dict.fromkeys(range(700), ago(1)),
        }
        batches = plan_night(DAY, entities(700, known=False), replace(all_lack(700), newest=read), ALL)
        costs = {(c.upstream, c.bucket): c for c in cost_plan(batches, {"github": 1})}
        assert list(costs) == [("github", "core"), ("github", "graphql"), ("hn_algolia", "core"), ("pypistats", "core")]
        counts, history = costs["github", "graphql"], costs["github", "core"]
        assert (counts.requests, counts.points) == (7 * 2, 7 * 2)
        assert (history.requests, history.points) == (100 + 5, 100 + 5)  # one look-up per 20 histories
        assert history.hours == pytest.approx(105 / 4900), "the reserve of 100 is never spent"
        assert costs["pypistats", "core"].requests == 700
        assert costs["pypistats", "core"].hours == pytest.approx(700 / 1800)
        assert sum(c.batches for c in costs.values()) == len(batches)

    @pytest.mark.parametrize("users", [1, 2])
    def test_a_night_of_several_windows_states_the_hours_of_each_bucket(self, users: int) -> None:
        """More points than an hour lets through: of 5,000 an hour and user a fiftieth is never spent."""
        count = 10_000 * users + 2_000
        lacks = lacking({m: {n: {DAY} for n in range(count)} for m in METRICS[:3]})
        plan = plan_whole_night(DAY, entities(count), lacks, ["github"], users={"github": users})
        costs = {c.bucket: c for c in plan.costs}
        assert not plan.left_out
        points = {"core": 0, "graphql": 0}
        for batch in plan.batches:
            points[SOURCES["github"].tasks[batch.task].bucket] += batch.points
        assert points["core"] > 2 * 4900 * users
        for bucket, cost in costs.items():
            assert cost.points == points[bucket]
            assert cost.hours == pytest.approx(points[bucket] / 4900 / users)
        # Budgets of hourly windows are through with it in the last of them, at an even pace at the latest.
        windows = ceil(points["core"] / (4900 * users))
        assert windows > 2
        assert windows - 1 <= costs["core"].hours <= windows
        assert count_night_hours(plan.costs) == costs["core"].hours, "the longer of the two"

    def test_no_night_plans_more_points_than_its_windows_have(self) -> None:
        lacks = lacking({"github_stars_gained": {n: {DAY} for n in range(15_000)}})
        plan = plan_whole_night(DAY, entities(15_000), lacks, ["github"], hours=2.0)
        assert 2 * 4900 - 20 <= sum(b.points for b in plan.batches) <= 2 * 4900
        asked = {e.entity_id for b in plan.batches for e in b.entities}
        assert {g.entity_id for g in plan.left_out} == set(range(15_000)) - asked

    def test_more_tokens_take_less_time_and_none_is_like_one(self) -> None:
        batches = of(plan_night(DAY, entities(300), all_lack(300), ALL), "github", "counts")
        hours = [cost_plan(batches, {"github": n})[0].hours for n in (0, 1, 4)]
        assert hours == pytest.approx([hours[1], hours[1], hours[1] / 4])
        assert cost_plan([], {}) == []


class TestNightThatIsTooShort:
    """The hours do not let through what is due."""

    def plan(self, lacks: Missing, hours: float, count: int = 1000, **options: Any) -> Plan:
        return plan_whole_night(DAY, entities(count), lacks, ALL, hours=hours, **options)

    @given(st.floats(0.0, 0.6), st.integers(1, 900))
    def test_what_is_due_is_asked_for_or_stands_in_the_ledger_and_nothing_takes_longer_than_the_night(
        self, hours: float, count: int
    ) -> None:
        lacks = all_lack(count)
        plan = self.plan(lacks, hours, count)
        assert all(c.hours <= hours + 1e-9 for c in plan.costs)
        due = {
            (b.source, b.task, e.entity_id) for b in plan_night(DAY, entities(count), lacks, ALL) for e in b.entities
        }
        asked = {(b.source, b.task, e.entity_id) for b in plan.batches for e in b.entities}
        waiting = {(g.entity_id, g.metric_id) for g in plan.left_out}
        assert asked <= due
        for source, task, entity_id in due - asked:
            metrics = SOURCES[source].tasks[task].metrics
            lacking = [m for m in metrics if lacks.of(m, entity_id)]
            assert lacking
            assert all((entity_id, METRIC_BY_NAME[m].metric_id) in waiting for m in lacking)
        assert {g.reason for g in plan.left_out} <= {LEFT_OUT}
        assert all(g.retry for g in plan.left_out)

    def test_as_much_as_fits_is_asked_for(self) -> None:
        plan = self.plan(all_lack(1000), 0.25)
        assert sum(b.requests for b in of(list(plan.batches), "pypistats")) == 0.25 * 1800

    def test_who_waited_longest_goes_first_and_value_makes_a_wait_count_double(self) -> None:
        newest = {n: ago(1 + n % 5) for n in range(1000)}
        lacks = replace(all_lack(1000), newest={"pypi_downloads": newest})
        plan = self.plan(lacks, 200 / 1800)
        assert {newest[e.entity_id] for b in of(list(plan.batches), "pypistats") for e in b.entities} == {ago(5)}
        even = replace(lacks, newest={"pypi_downloads": dict.fromkeys(range(1000), ago(3))})
        plan = self.plan(even, 10 / 1800, value=dict.fromkeys(range(990, 1000), 1.0))
        assert {e.entity_id for b in of(list(plan.batches), "pypistats") for e in b.entities} == set(range(990, 1000))

    def test_everyone_gets_a_turn_when_not_all_fit_and_the_valuable_twice_as_often(self) -> None:
        count, room, turns = 140, 40, Counter[int]()
        newest = dict.fromkeys(range(count), ago(1))
        valuable = set(range(20))
        for n in range(140):
            night = DAY + timedelta(days=n)
            lacks = lacking({"pypi_downloads": {e: {night} for e in range(count)}}, newest)
            lacks = replace(lacks, first=night - timedelta(days=34))
            plan = plan_whole_night(
                night, entities(count), lacks, ["pypistats"], hours=room / 1800, value=dict.fromkeys(valuable, 1.0)
            )
            asked = {e.entity_id for b in plan.batches for e in b.entities}
            assert len(asked) == room
            turns.update(asked)
            newest = newest | dict.fromkeys(asked, night)
        plain = [turns[e] for e in range(count) if e not in valuable]
        assert min(plain) >= 140 * room / (count + len(valuable)) * 0.8
        assert 1.6 <= min(turns[e] for e in valuable) / max(plain) <= 2.4

    def test_ten_thousand_packages_go_round_in_a_week_whatever_they_are_worth(self) -> None:
        """A night takes 48 minutes of pypistats, and each answer has half a year: no day is lost to the rotation."""
        count, shelf = 10_000, SOURCES["pypistats"].tasks["overall"].lookback_days
        made = {"pypistats": entities(count)["pypistats"]}
        value = {e: e / count for e in range(count)}
        last: dict[int, date] = {}
        lacked = {e: {ago(n) for n in range(35)} for e in range(count)}
        for n in range(15):
            night = DAY + timedelta(days=n)
            for days in lacked.values():
                days.add(night)
            lacks = replace(
                lacking({"pypi_downloads": lacked}, last),
                first=night - timedelta(days=34),
                feeds={("pypi_downloads", "pypistats"): night - timedelta(days=1)},
            )
            plan = plan_whole_night(night, made, lacks, ["pypistats"], value=value)
            (cost,) = plan.costs
            assert cost.hours <= 0.8
            asked = {e.entity_id: b for b in plan.batches for e in b.entities}
            waiting = {(g.entity_id, g.day) for g in plan.left_out}
            assert {g.reason for g in plan.left_out} == {LEFT_OUT}
            for e, days in lacked.items():
                if e in asked:
                    assert asked[e].end == night
                    assert asked[e].start <= max(min(days), night - timedelta(days=shelf - 1))
                    last[e], lacked[e] = night, set()
                else:
                    assert {(e, d) for d in days if d >= lacks.first} <= waiting
            if n >= 7:
                assert max((night - d).days for d in last.values()) < 8
        assert len(last) == count

    @pytest.mark.parametrize("count", [373, 1440])
    def test_as_long_as_48_minutes_hold_them_every_package_is_asked_every_night(self, count: int) -> None:
        plan = plan_whole_night(DAY, entities(count), all_lack(count), ["pypistats"])
        assert sum(len(b.entities) for b in plan.batches) == count
        assert not plan.left_out

    def test_who_has_waited_for_a_week_is_read_whole(self) -> None:
        lacks = lacking({"pypi_downloads": {e: {ago(n) for n in range(9)} for e in range(2)}}, {0: ago(9), 1: ago(6)})
        batches = plan_night(date(2026, 3, 31), {"pypistats": entities(2)["pypistats"]}, lacks, ("pypistats",))
        assert [(b.start, [e.entity_id for e in b.entities]) for b in batches] == [
            (ago(PYPISTATS_DAYS - 1), [0]),
            (ago(8), [1]),
        ]

    def test_a_day_that_was_asked_for_in_vain_keeps_its_own_reason(self) -> None:
        """Else who is left out after a failure would look as if nobody had tried, and go first for ever."""
        lacks = replace(
            lacking({"pypi_downloads": {e: {ago(2), ago(1), DAY} for e in range(3)}}, {0: ago(3), 1: ago(9)}),
            tried={"pypi_downloads": {0: ago(1)}},
        )
        left_out = plan_whole_night(DAY, entities(3), lacks, ["pypistats"], hours=0.0).left_out
        assert sorted(g.day for g in left_out if g.entity_id == 0) == [DAY]
        assert sorted(g.day for g in left_out if g.entity_id == 1) == [ago(2), ago(1), DAY]

    def test_who_never_answers_does_not_stand_before_everybody_else(self) -> None:
        night = DAY
        lacks = replace(
            all_lack(100),
            newest={"pypi_downloads": {e: ago(3) for e in range(1, 100)}},
            tried={"pypi_downloads": {0: ago(1)}},
        )
        plan = plan_whole_night(night, entities(100), lacks, ["pypistats"], hours=99 / 1800)
        assert 0 not in {e.entity_id for b in plan.batches for e in b.entities}

    def test_a_missed_night_is_caught_up_with(self) -> None:
        """Dated days that nobody asked for are asked for in the next night; weekly tasks whose turn was missed too."""
        read = {
            "pypi_downloads": dict.fromkeys(range(70), ago(4)),
            "github_stars_gained": dict.fromkeys(range(70), ago(9)),
        }
        days = {ago(n) for n in range(4)}
        lacks = lacking({m: dict.fromkeys(range(70), days) for m in METRICS})
        plan = plan_whole_night(DAY, entities(70), replace(lacks, newest=read), ALL)
        downloads = of(list(plan.batches), "pypistats")
        assert {(b.start, b.end) for b in downloads} == {(ago(3), DAY), (ago(PYPISTATS_DAYS - 1), DAY)}
        assert sum(len(b.entities) for b in downloads) == 70
        assert len({e.entity_id for b in of(list(plan.batches), "github", "history") for e in b.entities}) == 70
        assert {(b.start, b.end) for b in of(list(plan.batches), "hackernews")} == {(ago(6), DAY)}

    def test_everybody_gets_a_turn_also_where_a_round_takes_longer_than_the_store_is_looked_through(self) -> None:
        """After 35 nights nobody's wait is known any more; lots are drawn, and the last in the list wins some."""
        count, last, turns = 120, dict[int, date](), Counter[int]()
        for n in range(250):
            night = DAY + timedelta(days=n)
            first = night - timedelta(days=34)
            known = {e: d for e, d in last.items() if d >= first}
            lacks = replace(lacking({"pypi_downloads": {e: {night} for e in range(count)}}, known), first=first)
            plan = plan_whole_night(night, entities(count), lacks, ["pypistats"], hours=2 / 1800)
            asked = {e.entity_id for b in plan.batches for e in b.entities}
            last |= dict.fromkeys(asked, night)
            turns.update(asked)
        assert sum(turns.values()) == 500
        assert set(turns) == set(range(count))


class TestOrder:
    """What is spread over a night is the order; how fast it is worked off is the budgets' work."""

    NAMES = (*METRICS, "github_watchers", "github_commits", "dockerhub_pulls", "depsdev_stars")

    @given(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 400), min_size=2))
    def test_however_early_a_night_ends_every_task_of_a_class_has_had_the_same_share(
        self, counts: Mapping[str, int]
    ) -> None:
        lacks = lacking(
            {m: {n: {DAY} for n in range(count)} for m, count in counts.items()}, dict.fromkeys(range(400), ago(1))
        )
        order = plan_night(DAY, entities(400), lacks, ALL)
        timings = [SOURCES[b.source].tasks[b.task].timing for b in order]
        assert timings == sorted(timings, key=["snapshot", "dated"].index), "what is lost tomorrow comes first"
        for timing in set(timings):
            own = [(b.source, b.task) for b, t in zip(order, timings, strict=True) if t == timing]
            whole, had = Counter(own), Counter[tuple[str, str]]()
            for task in own:
                had[task] += 1
                # There is a share of the class's time that every task has had, give or take one batch.
                low = max(Fraction(had[t] - 1, n) for t, n in whole.items())
                high = min(Fraction(had[t] + 1, n) for t, n in whole.items())
                assert low <= high, f"{dict(had)} of {dict(whole)}"


class TestMissedNights:
    """A snapshot of a night that did not run is gone: the ledger says so from the next plan on."""

    LATE = frozenset({ago(3), ago(2), ago(1)})
    STARS, FORKS = (METRIC_BY_NAME[m].metric_id for m in ("github_stars", "github_forks"))

    def missing(self, silent: Collection[date], count: int = 60, **changed: Any) -> Missing:
        days = {m: {n: set(silent) | {DAY} for n in range(count)} for m in ("github_stars", "github_forks")}
        return replace(lacking(days), missed=self.LATE, **changed)

    def gaps(self, missing: Missing, count: int = 60, **options: Any) -> list[Gap]:
        plan = plan_whole_night(DAY, entities(count), missing, options.pop("sources", ALL), hours=10_000, **options)
        return [g for g in plan.left_out if g.reason == NO_NIGHT]

    def test_every_count_of_three_missed_nights_stands_in_the_ledger_once(self) -> None:
        gaps = self.gaps(self.missing(self.LATE))
        keys = [(g.entity_id, g.metric_id, g.day) for g in gaps]
        expected = {(e, m, d) for e in range(60) for m in (self.STARS, self.FORKS) for d in self.LATE}
        assert set(keys) == expected
        assert len(keys) == len(expected)
        assert not any(g.retry for g in gaps), "its moment has passed"
        assert NO_NIGHT.startswith(NOT_ASKED), "nobody was asked: it is no try"

    def test_days_with_a_value_or_a_gap_and_nights_that_ran_are_left_alone(self) -> None:
        noted = {"github_stars": {0: frozenset({ago(2)}), 1: self.LATE}}
        found = {(g.entity_id, g.day) for g in self.gaps(self.missing(self.LATE, noted=noted)) if g.metric_id == 1}
        expected = {(e, d) for e in range(60) for d in self.LATE}
        assert found == expected - {(0, ago(2)), *((1, d) for d in self.LATE)}
        ran = {g.day for g in self.gaps(self.missing({ago(5), ago(4), *self.LATE}))}
        assert ran == self.LATE, "nights that ran have said what they found"
        assert not self.gaps(self.missing({ago(5), ago(4)}))
        assert not self.gaps(self.missing(set()))

    def test_only_what_may_be_asked_and_is_a_snapshot(self) -> None:
        assert not self.gaps(self.missing(self.LATE), sources=["pypistats", "dockerhub"])
        assert not self.gaps(self.missing(self.LATE), without={"github.counts"})
        downloads = lacking({"pypi_downloads": {0: {*self.LATE, DAY}}}, {0: ago(4)})
        assert not self.gaps(replace(downloads, missed=self.LATE)), "dated days can still be had"

    def test_not_before_an_entity_was_tracked_or_its_metric_first_taken(self) -> None:
        whole = {FIRST + timedelta(days=n) for n in range(34)}
        assert not self.gaps(self.missing(whole)), "nothing is known of them before"
        since = self.missing(whole - {ago(2)})
        assert {g.day for g in self.gaps(since)} == {ago(1)}
        noted = {m: dict.fromkeys(range(60), frozenset({ago(2)})) for m in ("github_stars", "github_forks")}
        assert {g.day for g in self.gaps(self.missing(whole, noted=noted))} == {ago(1)}, "a gap is a sign of life too"
        gaps = self.gaps(self.missing(self.LATE, tracked={0: ago(1), 1: DAY}))
        assert {g.day for g in gaps if g.entity_id == 0} == {ago(1)}
        assert not [g for g in gaps if g.entity_id == 1]
        assert {g.day for g in gaps if g.entity_id == 2} == self.LATE

    def test_more_missed_nights_than_are_looked_at(self) -> None:
        whole = frozenset(FIRST + timedelta(days=n) for n in range(34))
        feeds = {("github_stars", "github_graphql"): FIRST - timedelta(days=9)}
        gaps = self.gaps(replace(self.missing(whole, feeds=feeds), missed=whole))
        assert {(g.metric_id, g.day) for g in gaps} == {(self.STARS, d) for d in whole}

    def test_a_weekly_count_is_missed_on_its_turn_alone(self) -> None:
        late = frozenset(ago(n) for n in range(1, 8))
        lacks = replace(lacking({"depsdev_stars": {n: {*late, DAY} for n in range(14)}}), missed=late)
        made = {name: tuple(replace(e, names=("github.com/o/p",)) for e in own) for name, own in entities(14).items()}
        plan = plan_whole_night(DAY, made, lacks, ALL)
        gaps = [g for g in plan.left_out if g.reason == NO_NIGHT]
        assert not self.gaps(lacks, 14), "of whom the task is not for nothing is expected"
        assert sorted(g.entity_id for g in gaps) == list(range(14))
        assert all((g.entity_id + g.day.toordinal()) % 7 == 0 for g in gaps)


class Rotation:
    """Packages of which some never answer, night after night over the simulated year's ledger."""

    DOWNLOADS = METRIC_BY_NAME["pypi_downloads"].metric_id

    def __init__(self, count: int, failing: Mapping[int, bool], room: int) -> None:
        self.packages = {"pypistats": tuple(Entity(n, f"p{n}", f"p{n}", (f"p{n}",)) for n in range(1, count + 1))}
        self.failing, self.room = failing, room
        self.books = Books(random.Random(1))

    def night(self, day: date) -> set[int]:
        """Plan a night and let it happen; return who was asked."""
        now = night_start(day)
        missing = asyncio.run(read_missing(cast(Store, self.books), self.packages, day, now))
        plan = plan_whole_night(day, self.packages, missing, ["pypistats"], hours=self.room / 1800)
        self.books.plan(plan.batches)
        self.books.enter(plan.left_out, now)
        for batch in plan.batches:
            for entity in batch.entities:
                for d in days_between(batch.start, batch.end):
                    key = (self.DOWNLOADS, entity.entity_id, d)
                    if entity.entity_id in self.failing:
                        gap = Gap(entity.entity_id, self.DOWNLOADS, d, "502", self.failing[entity.entity_id])
                        self.books.enter([gap], now)
                    else:
                        self.books.values[key] = (1.0, 5)
                        self.books.gaps.pop(key, None)
        return {e.entity_id for b in plan.batches for e in b.entities}


@given(st.data())
def test_whoever_fails_nobody_who_answers_waits_longer_than_a_round(data: st.DataObject) -> None:
    """A ledger that forgot its tries would take who never answers for never asked, and ask them every second night."""
    count = data.draw(st.integers(2, 16), "packages")
    room = data.draw(st.integers(max(1, count // 5), count), "room")
    failing = data.draw(st.dictionaries(st.integers(1, count), st.booleans(), max_size=count - 1), "who fails")
    rotation = Rotation(count, failing, room)
    within = ceil(count / room) + 1
    asked = [rotation.night(DAY + timedelta(days=n)) for n in range(2 * within + 2)]
    alive = set(range(1, count + 1)) - failing.keys()
    for start in range(len(asked) - within + 1):
        assert alive <= set().union(*asked[start : start + within]), f"nights {start} to {start + within - 1}"


def test_who_was_not_asked_takes_no_tries_place_in_the_books() -> None:
    books, now = Books(random.Random(1)), night_start(DAY)
    tried, unasked = Gap(1, 30, DAY, "502", True), Gap(1, 30, DAY, LEFT_OUT, True)
    for reason in (LEFT_OUT, PASSED_OVER, NO_NIGHT):
        books.enter([tried, replace(unasked, reason=reason)], now)
        assert [g.reason for g, _ in books.gaps.values()] == ["502"]
    books.enter([replace(unasked, day=ago(1)), replace(tried, day=ago(1), reason="503")], now)
    assert sorted(g.reason for g, _ in books.gaps.values()) == ["502", "503"]


@given(
    st.dictionaries(st.tuples(st.text("ab", max_size=2), st.text("cd", max_size=2)), st.floats(0, 10), max_size=6),
    st.floats(0, 30),
)
def test_shares_are_max_min_fair(demand: dict[tuple[str, str], float], supply: float) -> None:
    shares = share(demand, supply)
    assert set(shares) == set(demand)
    assert all(0 <= shares[k] <= demand[k] + 1e-9 for k in demand)
    assert sum(shares.values()) == pytest.approx(min(supply, sum(demand.values())))
    largest = max(shares.values(), default=0.0)
    assert all(shares[k] >= min(demand[k], largest) - 1e-9 for k in demand), (
        "who has less than another has all it needs"
    )


def test_snapshots_leave_dated_tasks_a_quarter() -> None:
    metrics = ("github_stars", "github_watchers", "github_commits")
    read = {"github_commits": dict.fromkeys(range(20_000), ago(8))}
    lacks = replace(lacking({m: {n: {DAY} for n in range(20_000)} for m in metrics}), newest=read)
    costs = Counter[str]()
    plan = plan_whole_night(DAY, entities(20_000), lacks, ["github"], hours=0.1)
    for batch in plan.batches:
        costs[batch.task] += batch.points
    assert costs["commits"] == pytest.approx(0.25 * 490, abs=2)
    assert costs["counts"] + costs["totals"] == pytest.approx(0.75 * 490, abs=8)
    assert costs["counts"] == pytest.approx(0.375 * 490, abs=8), "two tasks that want more than there is get the same"
