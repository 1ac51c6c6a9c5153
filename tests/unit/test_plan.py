"""Plans: only what is missing, the same every time, everyone in turn, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.models import Batch, Entity
from astrid.pipeline.plan import (
    HISTORY_DAYS,
    HISTORY_SLICE,
    HN_FINAL_DAYS,
    PROBE,
    PYPISTATS_DAYS,
    STALE_FEED_DAYS,
    Missing,
    cost_plan,
    is_due,
    plan_backfill,
    plan_night,
)
from astrid.sources import SOURCES, Task

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


def of(batches: list[Batch], source: str, task: str | None = None) -> list[Batch]:
    return [b for b in batches if b.source == source and task in (None, b.task)]


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
        }
        assert {b.end for b in batches} == {DAY}

    def test_a_stale_feed_is_probed_by_a_rotating_few(self) -> None:
        count, asked = 37, Counter[int]()
        for n in range(40):
            night = DAY + timedelta(days=n)
            missing = lacking(
                {"pypi_downloads": {e: {night} for e in range(count)}},
                dict.fromkeys(range(count), ago(STALE_FEED_DAYS + 1)),
            )
            batches = plan_night(night, entities(count), missing, ("pypistats",))
            asked.update(e.entity_id for b in batches for e in b.entities)
            assert sum(len(b.entities) for b in batches) == PROBE
            none = replace(missing, asked={"pypi_downloads": frozenset({1})})
            assert plan_night(night, entities(count), none, ("pypistats",)) == []
        assert set(asked) == set(range(count))

    def test_a_feed_that_is_only_late_is_asked_in_full(self) -> None:
        missing = all_lack(37)
        late = replace(missing, newest={"pypi_downloads": dict.fromkeys(range(37), ago(STALE_FEED_DAYS))})
        assert sum(len(b.entities) for b in plan_night(DAY, entities(37), late, ("pypistats",))) == 37

    def test_a_probe_of_fewer_than_ten(self) -> None:
        missing = lacking({"pypi_downloads": {e: {DAY} for e in range(3)}}, {0: ago(30)})
        batches = plan_night(DAY, entities(3), missing, ("pypistats",))
        assert sorted(e.entity_id for b in batches for e in b.entities) == [0, 1, 2]


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
        batches = plan_night(DAY, entities(700, known=False), all_lack(700), ALL)
        costs = {c.source: c for c in cost_plan(batches, {"github": 1})}
        assert list(costs) == ["github", "hackernews", "pypistats"]
        assert costs["github"].requests == 7 * 2 + 100 + 5  # one look-up per 20 histories
        assert costs["github"].points == costs["github"].requests
        assert costs["github"].hours == pytest.approx(max(14 / 5000, 105 / 5000, 105 / 54_000))
        assert costs["pypistats"].requests == 700
        assert costs["pypistats"].hours == pytest.approx(700 / 1800)
        assert sum(c.batches for c in costs.values()) == len(batches)

    def test_more_tokens_take_less_time_and_none_is_like_one(self) -> None:
        batches = of(plan_night(DAY, entities(300), all_lack(300), ALL), "github")
        hours = [cost_plan(batches, {"github": n})[0].hours for n in (0, 1, 4)]
        assert hours == pytest.approx([hours[1], hours[1], hours[1] / 4])
        assert cost_plan([], {}) == []
