"""What a run was planned to cost beside what it did cost; whom a plan asks first, and whom it leaves out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest

from astrid import METHOD_VERSION
from astrid.broker.memory import MemoryBroker
from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import AstridError
from astrid.models import Batch, Done, Gap, Observations
from astrid.pipeline.night import Driver, plan_run, run_night
from astrid.pipeline.plan import LEFT_OUT, NO_NIGHT, NOT_ASKED
from astrid.pipeline.runs import RunResult
from astrid.pipeline.universe import Universe
from astrid.sources import SOURCES
from astrid.sources.source import days_between, expected_gaps
from astrid.store import CostRow, Store
from astrid.timeline import Timeline, night_start
from tests.store.conftest import NOW
from tests.store.test_canaries import project
from tests.store.test_scores import columns

pytestmark = pytest.mark.rules

DAY = date(2026, 3, 31)
UNASKED = NOT_ASKED
DOWNLOADS = METRIC_BY_NAME["pypi_downloads"].metric_id


async def test_planned_and_spent_stand_side_by_side(store: Store, ids: dict[str, int]) -> None:
    run_id = await store.start_run("nightly", DAY, "x", "1.0", NOW)
    await store.write_planned(run_id, {("github", "core"): (100, 90, 0.02), ("pypistats", "core"): (5, 5, 0.1)})
    assert {row.spent_requests for row in await store.read_costs([run_id])} == {None}
    await store.add_spent(run_id, {("github", "core"): (100, 90)})
    await asyncio.gather(
        store.add_spent(run_id, {("github", "core"): (1, 0), ("hn_firebase", "core"): (5, 5)}),
        store.add_spent(run_id, {("hn_firebase", "core"): (2, 2), ("github", "core"): (2, 1)}),
    )
    await store.add_spent(run_id + 1, {("github", "core"): (9, 9)})
    assert await store.read_costs([run_id, run_id + 1]) == [
        CostRow(run_id, "github", "core", 100, 90, 0.02, 103, 91),
        CostRow(run_id, "hn_firebase", "core", 0, 0, 0.0, 7, 7),
        CostRow(run_id, "pypistats", "core", 5, 5, 0.1, None, None),
    ]
    await store.write_planned(run_id, {("github", "core"): (1, 1, 0.5)})
    (github, *_) = await store.read_costs([run_id])
    assert (github.planned_requests, github.spent_requests) == (1, 103), "written twice, the last plan stands"
    await store.write_planned(run_id, {})
    await store.add_spent(run_id, {})


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


@dataclass
class Nights:
    """Nights over a real store without Ray or upstreams: what is asked of whom, and who never answers.

    ``asked`` are the entities that the last night asked about; ``batches`` its batches in the order of the queue. A
    crawl takes half an hour.
    """

    store: Store
    universe: Universe
    sources: Sequence[str]
    hours: float
    failing: frozenset[int] = frozenset()
    batches: list[Batch] = field(default_factory=list)
    breaks: BaseException | None = None
    clock_s: float = 0.0

    @property
    def asked(self) -> set[int]:
        return {e.entity_id for b in self.batches for e in b.entities}

    async def run(self, day: date, **options: Any) -> RunResult:
        broker = MemoryBroker()
        timeline = Timeline(night_start(day), self.clock_s)
        self.batches = []

        async def crawl(run_id: int, sources: Sequence[str]) -> None:
            self.clock_s += 1800
            for source in sources:
                for delivery in await broker.receive(source, "worker#1", 10_000, 0.0):
                    self.batches.append(delivery.batch)
                    await self.store.add_spent(run_id, {("pypistats", "core"): (1, 1)})
                    await self.store.commit_batch(delivery.batch, self.answer(delivery.batch), NOW)
                    await broker.ack(delivery)
            if self.breaks is not None:
                raise self.breaks

        async def score(run_id: int, day: date) -> int:
            return 0

        driver = Driver(
            *(self.store, broker, timeline, lambda: self.clock_s, crawl, score, lambda _: None, "test"),
            hours=self.hours,
        )
        return await run_night(driver, self.universe, day, self.sources, **options)

    def answer(self, batch: Batch) -> Done:
        """Give every value that a batch asks for, but for those who never answer."""
        task = SOURCES[batch.source].tasks[batch.task]
        rows = [
            (entity.entity_id, METRIC_BY_NAME[metric].metric_id, day, 1.0, ORIGIN_BY_NAME["pypistats"].origin_id)
            for entity in batch.entities
            for metric in task.metrics
            for day in days_between(batch.start, batch.end)
            if entity.entity_id not in self.failing
        ]
        gaps = [g for g in expected_gaps(batch, task, "502", retry=True) if g.entity_id in self.failing]
        return Done(Observations.from_rows(rows, gaps), 1)


async def nights(store: Store, count: int, sources: Sequence[str], hours: float, began: date = DAY) -> Nights:
    """Give nights of so many projects, each with a package and a repository, tracked since ``began``."""
    projects = [project(n) for n in range(count)]
    listed = [(p.slug, p.name, p.category) for p in projects]
    ids = await store.sync_watchlist(listed, night_start(began))
    return Nights(store, Universe.build(projects, ids, {}), sources, hours)


async def test_who_never_answers_starves_nobody(store: Store) -> None:
    """Of 30 packages 12 never answer and 6 fit into a night: everyone has a turn within a round, again and again."""
    rotation = await nights(store, 30, ["pypistats"], hours=6 / 1800)
    everyone = set(rotation.universe.entity_ids.tolist())
    rotation.failing = frozenset(sorted(everyone)[:12])
    turns: list[set[int]] = []
    for n in range(18):
        await rotation.run(DAY + timedelta(days=n))
        turns.append(rotation.asked)
        assert len(rotation.asked) == 6
    for start in range(12):
        waiting = everyone - set().union(*turns[start : start + 6])
        assert not waiting, f"{waiting} have no turn in six nights from night {start}"
    last = DAY + timedelta(days=17)
    reasons = {g.entity_id: g.reason for g in await store.read_open_gaps(last, last)}
    assert {e for e, reason in reasons.items() if reason == LEFT_OUT} == everyone - turns[-1]
    assert {e for e, reason in reasons.items() if reason == "502"} == turns[-1] & rotation.failing


async def test_a_short_night_asks_the_most_read_first_and_enters_who_is_left_out(store: Store) -> None:
    place = await nights(store, 12, ["pypistats"], hours=3 / 1800)
    by_slug = {p.slug: int(e) for p, e in zip(place.universe.projects, place.universe.entity_ids, strict=True)}
    worth = ["p07", "p11", "p02"]
    rest = [slug for slug in by_slug if slug not in worth]
    scores = columns(by_slug, [*worth, *rest])  # type: ignore[arg-type]  # the best first
    await store.write_scores(1, DAY - timedelta(days=1), METHOD_VERSION, scores, NOW)
    assert set(await store.read_percentiles()) == set(by_slug.values()), "everyone has a score"
    before = DAY - timedelta(days=1)
    rows = [(e, DOWNLOADS, before, 1.0, ORIGIN_BY_NAME["pypistats"].origin_id) for e in by_slug.values()]
    await store.write_observations(Observations.from_rows(rows), 1, NOW)
    result = await place.run(DAY)
    assert place.asked == {by_slug[slug] for slug in worth}
    left = await store.read_open_gaps(DAY, DAY)
    assert {(g.entity_id, g.metric_id, g.reason, g.retry) for g in left} == {
        (by_slug[slug], DOWNLOADS, LEFT_OUT, True) for slug in rest
    }
    assert (result.state, result.open_gaps, result.hours) == ("gaps", len(rest), 0.5)


async def test_what_a_night_spent_is_recorded_however_its_crawl_ends(store: Store) -> None:
    place = await nights(store, 4, ["pypistats"], hours=6.0)
    place.breaks = AstridError("a worker is gone for good")
    with pytest.raises(AstridError, match="gone for good"):
        await place.run(DAY)
    (run,) = await store.read_runs()
    assert (run.state, run.note) == ("failed", "AstridError: a worker is gone for good")
    (cost,) = await store.read_costs([run.run_id])
    assert (cost.spent_requests, cost.spent_points) == (len(place.batches), len(place.batches))
    assert cost.spent_requests
    assert cost.planned_hours == pytest.approx(4 / 1800)


class TestMissedNights:
    """Nights that did not run leave no batch and no ledger row of their own: the next one enters what they lost."""

    COUNTS: Mapping[str, int] = {m: METRIC_BY_NAME[m].metric_id for m in SOURCES["github"].tasks["counts"].metrics}

    async def gaps(self, store: Store, first: date, last: date) -> set[tuple[int, int, date, bool]]:
        return {
            (g.entity_id, g.metric_id, g.day, g.retry)
            for g in await store.read_open_gaps(first, last)
            if g.reason == NO_NIGHT
        }

    async def github(self, store: Store, count: int = 20) -> Nights:
        place = await nights(store, count, ["github"], hours=6.0)
        assert (await place.run(DAY)).state == "complete"
        return place

    async def test_three_missed_nights_stand_in_the_ledger(self, store: Store) -> None:
        place = await self.github(store)
        back = DAY + timedelta(days=4)
        lost = days_between(DAY + timedelta(days=1), DAY + timedelta(days=3))
        await place.run(back)
        metrics = {
            METRIC_BY_NAME[m].metric_id for t in ("counts", "totals") for m in SOURCES["github"].tasks[t].metrics
        }
        expected = {(int(e), m, d, False) for e in place.universe.entity_ids for m in metrics for d in lost}
        assert await self.gaps(store, DAY - timedelta(days=40), back) == expected
        plan = await plan_run(store, place.universe, back + timedelta(days=1), night_start(back), ["github"])
        assert not plan.left_out, "once is enough"
        tries = await store.read_last_tries(DAY, back, NOT_ASKED)
        assert not tries, "nobody was asked"

    async def test_a_night_that_did_not_end_is_a_missed_one_but_for_what_it_found(self, store: Store) -> None:
        place = await self.github(store)
        day = DAY + timedelta(days=1)
        some = frozenset(place.universe.entity_ids[:5].tolist())
        run_id = await store.start_run("nightly", day, "test", "1.0.0", NOW)
        stars = self.COUNTS["github_stars"]
        rows = [(e, stars, day, 3.0, ORIGIN_BY_NAME["github_graphql"].origin_id) for e in some]
        await store.write_observations(Observations.from_rows(rows), run_id, NOW)
        refused, waiting = place.universe.entity_ids[7:9].tolist()
        noted = [Gap(refused, stars, day, "502", True), Gap(waiting, stars, day, LEFT_OUT, True)]
        await store.write_gaps(noted, NOW)
        await place.run(day + timedelta(days=1))
        found = {e for e, m, d, _ in await self.gaps(store, day, day) if m == stars}
        assert found == set(place.universe.entity_ids.tolist()) - some - {refused, waiting}
        assert set(noted) <= set(await store.read_open_gaps(day, day)), "what is known of them stands"

    async def test_not_before_an_entity_was_tracked(self, store: Store) -> None:
        place = await self.github(store, 10)
        began = DAY + timedelta(days=3)
        place = await nights(store, 12, ["github"], hours=6.0, began=began)
        stars, origin = self.COUNTS["github_stars"], ORIGIN_BY_NAME["stars_daily"].origin_id
        new = place.universe.entity_ids[-2:].tolist()
        # An archive knows of days on which nobody tracked them yet.
        rows = [(e, stars, DAY - timedelta(days=9), 5.0, origin) for e in new]
        await store.write_observations(Observations.from_rows(rows), 1, NOW)
        await place.run(DAY + timedelta(days=5))
        found = {(e, d) for e, m, d, _ in await self.gaps(store, DAY, DAY + timedelta(days=5)) if m == stars}
        days = days_between(DAY + timedelta(days=1), DAY + timedelta(days=4))
        assert found == {(int(e), d) for e in place.universe.entity_ids for d in days if e not in new or d > began}

    async def test_a_first_night_has_missed_nothing(self, store: Store) -> None:
        place = await self.github(store)
        assert not await store.read_open_gaps(DAY - timedelta(days=40), DAY)
        # A source that is new tonight has missed nothing either.
        place.sources = ["github", "pypistats"]
        await place.run(DAY + timedelta(days=1))
        assert not await store.read_open_gaps(DAY - timedelta(days=40), DAY + timedelta(days=1))

    async def test_before_the_first_night_of_all_there_was_none_to_miss(self, store: Store) -> None:
        """A backfill has read archives for those days; nobody has promised counts yet."""
        place = await nights(store, 4, ["github"], hours=6.0, began=DAY - timedelta(days=20))
        stars, origin = self.COUNTS["github_stars"], ORIGIN_BY_NAME["stars_daily"].origin_id
        rows = [(int(e), stars, DAY - timedelta(days=9), 5.0, origin) for e in place.universe.entity_ids]
        await store.write_observations(Observations.from_rows(rows), 1, NOW)
        await place.run(DAY)
        assert not await store.read_open_gaps(DAY - timedelta(days=40), DAY)

    async def test_a_month_without_nights_is_entered_in_pieces(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("astrid.pipeline.runs.GAPS_AT_ONCE", 7)
        place = await self.github(store, 2)
        back = DAY + timedelta(days=60)
        await place.run(back)
        found = await self.gaps(store, DAY, back)
        assert {d for _, _, d, _ in found} == set(days_between(back - timedelta(days=34), back - timedelta(days=1)))
        assert len(found) == 2 * 6 * 34
