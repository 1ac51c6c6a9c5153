"""Plans: only what is missing, the same every time, everyone in turn, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.catalog import METRIC_BY_NAME
from astrid.models import Batch, Entity
from astrid.pipeline.asks import STALE_FEED_DAYS, Missing, is_due
from astrid.pipeline.backfill import PYPISTATS_DAYS, plan_backfill
from astrid.pipeline.costs import cost_plan
from astrid.pipeline.plan import LEFT_OUT, PASSED_OVER, Plan
from astrid.pipeline.plan import plan_night as plan_whole_night
from astrid.pipeline.shares import share
from astrid.sources import SOURCES, Task

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
        assert windows == [(ago(20), ago(19)), (ago(9), ago(9)), (ago(HN_FINAL_DAYS - 1), DAY)]
        assert plan_night(DAY, entities(3), lacking({"hn_points": {0: old}}), ("hackernews",)) == []

    def test_windows_are_no_longer_than_a_batch_may_be(self) -> None:
        days = {ago(n) for n in range(35)}
        batches = plan_night(DAY, entities(1), lacking({"hn_points": {0: days}}), ("hackernews",))
        assert [(b.end - b.start).days + 1 for b in batches] == [31, 4]

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
        assert history.hours == pytest.approx(max(105 / 5000, 105 / 54_000))
        assert costs["pypistats", "core"].requests == 700
        assert costs["pypistats", "core"].hours == pytest.approx(700 / 1800)
        assert sum(c.batches for c in costs.values()) == len(batches)

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

    def test_everyone_gets_a_turn_when_only_a_seventh_fits_and_the_valuable_twice_as_often(self) -> None:
        count, turns = 140, Counter[int]()
        newest = dict.fromkeys(range(count), ago(1))
        valuable = set(range(20))
        for n in range(140):
            night = DAY + timedelta(days=n)
            lacks = lacking({"pypi_downloads": {e: {night} for e in range(count)}}, newest)
            lacks = replace(lacks, first=night - timedelta(days=34))
            plan = plan_whole_night(
                night, entities(count), lacks, ["pypistats"], hours=20 / 1800, value=dict.fromkeys(valuable, 1.0)
            )
            asked = {e.entity_id for b in plan.batches for e in b.entities}
            assert len(asked) == 20
            turns.update(asked)
            newest = newest | dict.fromkeys(asked, night)
        plain = [turns[e] for e in range(count) if e not in valuable]
        assert min(plain) >= 140 * 20 / (count + len(valuable)) * 0.8
        assert 1.6 <= min(turns[e] for e in valuable) / max(plain) <= 2.4

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
        assert {(b.start, b.end) for b in of(list(plan.batches), "hackernews")} == {(ago(3), DAY)}

    def test_snapshots_come_first_and_each_task_is_spread_over_its_class(self) -> None:
        metrics = (*METRICS, "github_watchers", "github_commits")
        lacks = lacking({m: {n: {DAY} for n in range(600)} for m in metrics}, dict.fromkeys(range(600), ago(1)))
        order = [(b.source, b.task) for b in plan_whole_night(DAY, entities(600), lacks, ALL).batches]
        timings = [SOURCES[s].tasks[t].timing for s, t in order]
        assert timings == sorted(timings, key=["snapshot", "dated"].index)
        for task in set(order):
            places = [n for n, t in enumerate(order) if t == task]
            same = [
                n
                for n, (s, t) in enumerate(order)
                if SOURCES[s].tasks[t].timing == SOURCES[task[0]].tasks[task[1]].timing
            ]
            half = sum(1 for n in places if n < same[len(same) // 2])
            assert abs(half - len(places) / 2) <= 1


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
    assert costs["commits"] == pytest.approx(0.25 * 500, abs=2)
    assert costs["counts"] + costs["totals"] == pytest.approx(0.75 * 500, abs=8)
    assert costs["counts"] == pytest.approx(0.375 * 500, abs=8), "two tasks that want more than there is get the same"
