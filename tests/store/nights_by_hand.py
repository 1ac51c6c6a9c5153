"""Nights without upstreams: the real planner and the real store, and batches whose ends are drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.models import Batch, DeadLetter, Done, Gap, Identity, Observations
from astrid.pipeline.crawl import lost_days
from astrid.pipeline.night import plan_run
from astrid.pipeline.universe import Universe
from astrid.sources import SOURCES
from astrid.sources.source import days_between
from astrid.store import Store
from astrid.timeline import night_start
from astrid.watchlist import Project

NIGHTLY = tuple(name for name, source in SOURCES.items() if any(t.cadence_days for t in source.tasks.values()))
ORIGIN_OF = {
    "github": "github_graphql", "hackernews": "hn_algolia", "pypistats": "pypistats", "npm": "npm",
    "clickhouse": "clickhouse_pypi", "huggingface": "huggingface", "dockerhub": "dockerhub", "depsdev": "depsdev",
}  # fmt: skip


def make_project(n: int) -> Project:
    """Return a project that every source knows, or every second one, or every third; npm with and without a scope."""
    return Project(
        slug=f"p{n:02}",
        name=f"Project {n}",
        category="agents" if n % 2 else "rag",
        github=f"o/p{n}",
        former_github=(),
        pypi=(f"p{n}",) if n % 2 == 0 else (),
        npm=(f"p{n}" if n % 4 == 1 else f"@o/p{n}",) if n % 2 else (),
        huggingface=(f"o/p{n}",) if n % 3 == 0 else (),
        dockerhub=(f"o/p{n}",) if n % 3 == 1 else (),
        hn_urls=(f"github.com/o/p{n}",),
        hn_names=(),
        evidence={},
    )


@dataclass
class NightsByHand:
    """Nights over a store: ``asked`` keeps the batches of each, ``troubles`` is the share of values that do not come.

    A batch of a source in ``broken`` is set aside. Of values that do not come half are worth another try.
    """

    store: Store
    draw: random.Random
    projects: tuple[Project, ...] = tuple(make_project(n) for n in range(8))
    troubles: float = 0.1
    without: tuple[str, ...] = ()
    asked: dict[date, list[Batch]] = field(default_factory=dict)
    runs: dict[date, int] = field(default_factory=dict)

    async def universe(self, day: date) -> Universe:
        """Return whom the night of ``day`` tracks."""
        ids = await self.store.sync_watchlist([(p.slug, p.name, p.category) for p in self.projects], night_start(day))
        return Universe.build(self.projects, ids, await self.store.read_identities("github"))

    async def night(
        self, day: date, *, sources: Sequence[str] = NIGHTLY, broken: Collection[str] = (), ends: bool = True
    ) -> int:
        """Run one night and return its run; one that does not end leaves every second batch, and is marked failed."""
        now = night_start(day)
        run_id = await self.store.start_run("nightly", day, "0.9+test", "1.0.0", now)
        universe = await self.universe(day)
        plan = await plan_run(self.store, universe, day, now, sources, self.without, hours=10_000)
        batches = [replace(batch, run_id=run_id) for batch in plan.batches]
        await self.store.ledger.record_expectations(day, plan.expected, now)
        await self.store.write_gaps(plan.left_out, now, run_id)
        await self.store.plan_batches(run_id, batches, now)
        costs = {(c.upstream, c.bucket): (c.requests, c.points, c.hours) for c in plan.costs}
        await self.store.write_planned(run_id, costs)
        for n, batch in enumerate(batches):
            if ends or n % 2:
                await self._settle(batch, batch.source in broken, now + timedelta(seconds=10 * n))
        end = now + timedelta(hours=2)
        await self.store.finish_run(run_id, "gaps" if ends else "failed", {}, "" if ends else "killed", end)
        self.asked[day], self.runs[day] = batches, run_id
        return run_id

    async def nights(self, first: date, last: date, broken: Collection[str] = ()) -> None:
        """Run every night from ``first`` to ``last``."""
        for day in days_between(first, last):
            await self.night(day, broken=broken)

    async def _settle(self, batch: Batch, broken: bool, now: datetime) -> None:
        if broken:
            reason = "after 5 tries: it answered 503"
            await self.store.commit_batch(batch, DeadLetter(reason), now, lost_days(batch, reason))
            return
        task = SOURCES[batch.source].tasks[batch.task]
        origin = ORIGIN_BY_NAME[ORIGIN_OF[batch.source]].origin_id
        rows, gaps = [], []
        for entity in batch.entities:
            for name in task.metrics:
                metric_id = METRIC_BY_NAME[name].metric_id
                for day in days_between(batch.start, batch.end):
                    if self.draw.random() < self.troubles:
                        retry = self.draw.random() < 0.5
                        gaps.append(
                            Gap(entity.entity_id, metric_id, day, "not yet" if retry else "there is none", retry)
                        )
                    else:
                        rows.append(
                            (entity.entity_id, metric_id, day, float(value_of(entity.entity_id, name, day)), origin)
                        )
        known = [Identity(e.entity_id, "github", f"R_{e.entity_id}", e.names[0]) for e in batch.entities]
        found = Observations.from_rows(rows, gaps, known if batch.task == "counts" else ())
        await self.store.commit_batch(batch, Done(found, batch.requests), now)

    def first_asked(self, metric: str, entity_id: int, of: date, after: date) -> date | None:
        """Return the first night after ``after`` of which a batch asked for a metric of an entity on the day ``of``."""
        for night, batches in sorted(self.asked.items()):
            for batch in batches if night > after else ():
                task = SOURCES[batch.source].tasks[batch.task]
                asked = metric in task.metrics and batch.start <= of <= batch.end
                if asked and any(e.entity_id == entity_id for e in batch.entities):
                    return night
        return None


def value_of(entity_id: int, metric: str, day: date) -> int:
    """Return what the upstreams say of a day, now and later."""
    return (entity_id * 7919 + METRIC_BY_NAME[metric].metric_id * 104_729 + day.toordinal() * 31) % 5000
