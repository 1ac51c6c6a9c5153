"""A process dies before or after every single thing that it says to the database or the broker; nothing is lost.

Every call that producer and worker make is one place to die at. The undisturbed run counts them; then each in turn is
where the process ends, without another word. The next one of its kind goes on, and what stands at the end is what the
undisturbed run left: every batch at its end once, every value, every gap, one dead letter for what deserves it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest

from astrid.broker.memory import MemoryBroker
from astrid.models import Batch, DeadLetter, Done, Entity, Fetch, Gap, Observations, Outcome, RetryIn, Split
from astrid.pipeline import work as work_module
from astrid.pipeline.crawl import list_parts
from astrid.pipeline.plan import Plan
from astrid.pipeline.runs import open_run, prepare
from astrid.pipeline.work import Bench, work
from astrid.store import Store, open_store
from astrid.timeline import Timeline
from tests.store.conftest import NOW

DAY = date(2026, 3, 31)
STARS = 1
ORIGIN = 1
WORDS_OF_A_WORKER = ("begin_batch", "expect_batch", "commit_batch", "mark_published", "publish", "ack", "retry")
WORDS = (
    *WORDS_OF_A_WORKER,
    *("dead_letter", "open_run", "open_batches", "record_expectations", "write_planned", "write_gaps", "plan_batches"),
    "claim_lost",
)


class Death(asyncio.CancelledError):
    """What a process meets that was killed: nothing that it would say afterwards is heard."""


@dataclass
class Life:
    """One life of a process; it ends at a certain word, before or after it is heard."""

    dies_at: int = -1
    heard_first: bool = False
    words: list[str] = field(default_factory=list)
    is_over: bool = False
    task: asyncio.Task[Any] | None = None

    def hear(self, words: Any) -> Any:
        """Return a store or broker that listens to this life only."""
        return Ear(words, self)

    def end(self) -> None:
        self.is_over = True
        if self.task is not None:
            self.task.cancel()


class Ear:
    """A store or broker as one process reaches it."""

    def __init__(self, target: Any, life: Life) -> None:
        self._target = target
        self._life = life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in ("ledger", "leases"):
            return Ear(found, self._life)
        if not inspect.iscoroutinefunction(found):
            return found
        life = self._life

        async def say(*words: Any, **named: Any) -> Any:
            if life.is_over:
                raise Death
            here = False
            if name in WORDS:
                here = len(life.words) == life.dies_at
                life.words.append(name)
            if here and not life.heard_first:
                life.end()
                raise Death
            answer = await found(*words, **named)
            if life.is_over:
                raise Death
            if here:
                life.end()
                raise Death
            return answer

        return say


@dataclass
class Night:
    """One night over the real store: four batches, of which one is split, one has to wait, one fails for good."""

    store: Store
    day: date
    ids: list[int]
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    lives: int = 0
    run_id: int = 0

    @property
    def batches(self) -> tuple[Batch, ...]:
        day, ids = self.day, self.ids
        groups = {"sound": ids[0:1], "split": ids[1:3], "waits": ids[3:4], "fails": ids[4:5]}
        return tuple(
            Batch("github", "counts", day, day, day, tuple(Entity(n, what, "", (what,)) for n in group))
            for what, group in groups.items()
        )

    def plan(self) -> Plan:
        left_out = (Gap(self.ids[5], STARS, self.day, "not asked for a test", True),)
        return Plan(self.batches, left_out, (), {("github", "counts"): tuple(self.ids)})

    async def handle(self, batch: Batch, fetch: Fetch, now: Any) -> Outcome:
        await asyncio.sleep(0)
        what = batch.entities[0].slug
        if what == "split" and len(batch.entities) > 1:
            return Split(list_parts(batch), "too large")
        if what == "waits" and not batch.attempt:
            return RetryIn(1.0, "try again")
        if what == "fails":
            return DeadLetter("it cannot be read")
        rows = [(e.entity_id, STARS, self.day, 5.0, ORIGIN) for e in batch.entities]
        return Done(Observations.from_rows(rows), 1)

    async def produce(self, life: Life) -> None:
        store, broker = life.hear(self.store), life.hear(self.broker)

        async def plan() -> Plan:
            return self.plan()

        run = await open_run(store, "nightly", self.day, "test", NOW)
        await prepare(store, broker, run, self.day, plan, lambda: NOW, queue_lasts=True)
        self.run_id = run.run_id

    async def work(self, life: Life) -> None:
        self.lives += 1
        store, broker = life.hear(self.store), life.hear(self.broker)
        timeline = Timeline(NOW, 0.0, 1_000_000.0)
        bench = Bench(f"w#{self.lives}", broker, store, lambda _: _nobody, timeline, lambda: 0.0)

        async def is_over() -> bool:
            return not any(p.state == "planned" for p in await store.progress(self.run_id))

        await work("github", bench, is_over)

    async def live(self, what: Any, dies_at: int = -1, *, heard_first: bool = False) -> Life:
        """Let a process live to its end, or to where it dies."""
        life = Life(dies_at, heard_first)
        life.task = asyncio.ensure_future(what(life))
        async with asyncio.timeout(30):
            (end,) = await asyncio.gather(life.task, return_exceptions=True)
        if isinstance(end, BaseException) and not life.is_over:
            raise end
        assert life.is_over == (dies_at >= 0), "it was to die, and did not"
        return life

    async def facts(self) -> dict[str, Any]:
        """Return what this night left."""
        states = dict(await self.states())
        names = {batch.batch_id: batch.entities[0].slug for batch in self.batches}
        names |= {p.batch_id: f"part {p.entities[0].entity_id - self.ids[0]}" for p in list_parts(self.batches[1])}
        first = self.ids[0]
        gaps = await self.store.read_open_gaps(self.day, self.day)
        return {
            "batches": {names[b]: s for b, s in states.items()},
            "values": await self.values(),
            "gaps": sorted((g.entity_id - first, g.reason, g.retry) for g in gaps),
            "letters": Counter(names[batch.batch_id] for batch, _ in self.broker.dead_letters),
            "held": len(self.broker._unacked),
            "queued": sum(len(queue) for queue in self.broker._queues.values()),
        }

    async def states(self) -> list[tuple[str, str]]:
        async with self.store._pool.acquire() as connection:
            rows = await connection.fetch("SELECT batch_id, state FROM batch WHERE run_id = $1", self.run_id)
        return [(row["batch_id"], row["state"]) for row in rows]

    async def values(self) -> list[tuple[int, float, int]]:
        """Return (entity, value, revisions) of the night's day."""
        query = (
            "SELECT entity_id, value, (SELECT count(*) FROM observation_revision r WHERE r.entity_id = o.entity_id "
            "AND r.metric_id = o.metric_id AND r.day = o.day) AS revisions FROM observation o WHERE day = $1 ORDER BY 1"
        )
        async with self.store._pool.acquire() as connection:
            rows = await connection.fetch(query, self.day)
        return [(row["entity_id"] - self.ids[0], row["value"], row["revisions"]) for row in rows]


async def _nobody(_: object) -> Any:
    raise AssertionError("nobody is asked here")


@pytest.fixture
async def embedded_store(embedded_url: str) -> AsyncIterator[Store]:
    """Give a store over the embedded server: what is tested here does not differ between flavours."""
    async with open_store(embedded_url) as store:
        yield store


@pytest.fixture
def nights(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a maker of nights over a store; each has a day and a run of its own."""
    made: list[Night] = []
    monkeypatch.setattr(work_module, "CHECK_S", 0.01)
    monkeypatch.setattr("astrid.pipeline.runs.OVERDUE_S", -1.0)

    async def handle(batch: Batch, fetch: Fetch, now: Any) -> Outcome:
        return await made[-1].handle(batch, fetch, now)

    monkeypatch.setattr(work_module, "handle_batch", handle)

    async def make(store: Store) -> Night:
        known = await store.sync_watchlist([(f"p{n}", f"P{n}", "agents") for n in range(6)], NOW)
        made.append(Night(store, DAY + timedelta(days=len(made)), sorted(known.values())))
        return made[-1]

    return make


ENDS = {"sound": "done", "split": "split", "part 1": "done", "part 2": "done", "waits": "done", "fails": "dead"}
EXPECTED = {
    "batches": ENDS,
    "values": [(n, 5.0, 0) for n in range(4)],
    "gaps": [(4, "it cannot be read", True), (5, "not asked for a test", True)],
    "letters": Counter({"fails": 1}),
    "held": 0,
    "queued": 0,
}


def without_other_metrics(facts: dict[str, Any]) -> dict[str, Any]:
    """A counts batch owes stars and forks: one gap of a project is enough here."""
    return facts | {"gaps": sorted(set(facts["gaps"]))}


async def test_a_worker_may_die_at_every_word(embedded_store: Store, nights: Any) -> None:
    whole = await nights(embedded_store)
    await whole.live(whole.produce)
    words = (await whole.live(whole.work)).words
    assert without_other_metrics(await whole.facts()) == EXPECTED
    assert set(words) >= {*WORDS_OF_A_WORKER, "dead_letter"}
    for dies_at in range(len(words)):
        for heard_first in (False, True):
            night = await nights(embedded_store)
            await night.live(night.produce)
            died = await night.live(night.work, dies_at, heard_first=heard_first)
            await night.live(night.work)
            where = f"{'after' if heard_first else 'before'} word {dies_at}: {died.words}"
            assert without_other_metrics(await night.facts()) == EXPECTED, where
            await night.broker.close()


async def test_a_producer_may_die_at_every_word(embedded_store: Store, nights: Any) -> None:
    whole = await nights(embedded_store)
    words = (await whole.live(whole.produce)).words
    assert {"open_run", "plan_batches", "publish", "mark_published"} <= set(words)
    await whole.live(whole.work)
    assert without_other_metrics(await whole.facts()) == EXPECTED
    for dies_at in range(len(words)):
        for heard_first in (False, True):
            night = await nights(embedded_store)
            died = await night.live(night.produce, dies_at, heard_first=heard_first)
            await night.live(night.produce)
            await night.live(night.work)
            where = f"{'after' if heard_first else 'before'} word {dies_at}: {died.words}"
            facts = without_other_metrics(await night.facts())
            # Between publishing and noting it everything is published twice, and what fails is set aside twice.
            assert facts.pop("letters").keys() == {"fails"}, where
            assert facts == {key: EXPECTED[key] for key in facts}, where
            (run,) = [r for r in await embedded_store.read_runs() if r.day == night.day]
            assert run.planned_requests == 4 + 2, "the plan was entered once, and the parts of what was split"


async def test_a_broker_that_loses_everything_is_told_again(embedded_store: Store, nights: Any) -> None:
    """Published, confirmed, and gone: whoever waits for the run finds that nobody has anything of it."""
    night = await nights(embedded_store)
    await night.live(night.produce)
    await night.broker.purge(["github"])
    await night.live(night.produce)
    await night.live(night.work)
    assert without_other_metrics(await night.facts()) == EXPECTED


async def test_doubles_of_every_message_change_nothing(embedded_store: Store, nights: Any) -> None:
    night = await nights(embedded_store)
    await night.live(night.produce)
    lost = [batch for queue in night.broker._queues.values() for batch, _ in queue]
    for _ in range(3):
        await night.broker.publish(lost)
    await night.live(night.work)
    facts = without_other_metrics(await night.facts())
    assert facts.pop("letters") == {"fails": 4}, "what fails is set aside as often as it comes"
    assert facts == {key: EXPECTED[key] for key in facts}
