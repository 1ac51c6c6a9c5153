"""A night on Ray against the configured upstreams: the driver that the CLI and ``ray_jobs`` share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date

from astrid.actors import Pool, open_pool, open_ray, report_batches
from astrid.clock import epoch_s
from astrid.pipeline.costs import Cost
from astrid.pipeline.night import Driver, plan_run, run_night
from astrid.pipeline.runs import RunResult, Watch
from astrid.runtime import (
    code_version,
    count_users,
    database_url,
    load_universe,
    name_process,
    timeline_of,
    usable_sources,
    with_database,
)
from astrid.settings import Settings
from astrid.store import Store, open_store
from astrid.terminal import explain_left_out
from astrid.timeline import Timeline, night_of

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@asynccontextmanager
async def open_drivers(
    settings: Settings, sources: Sequence[str], *, shared: bool, leased: bool = True, say: Say = log.warning
) -> AsyncGenerator[tuple[Store, Pool, Callable[[Timeline, Watch], Driver]]]:
    """Open store, actors and broker on a running Ray, and give a maker of drivers for one run each.

    ``leased``: the budgets are others' too, and all of them must be ours first; see
    :class:`~astrid.pipeline.holdings.Holdings`.
    """
    async with (
        open_store(database_url(settings), pool_size=4) as store,
        open_pool(settings, sources, shared=shared, leased=leased) as pool,
        hold_budgets(pool, store, settings, say) if leased else contextlib.nullcontext(),
    ):
        gauges = report_batches()

        def driver(timeline: Timeline, watch: Watch) -> Driver:
            return _bind(pool, store, timeline, watch, gauges, settings)

        yield store, pool, driver


@asynccontextmanager
async def hold_budgets(pool: Pool, store: Store, settings: Settings, say: Say) -> AsyncGenerator[None]:
    """Hold the leases of all of a pool's budgets during the block."""
    holdings = await pool.claim(store, timeline_of(settings))
    try:
        await holdings.take_all(say)
        keeping = asyncio.create_task(holdings.run())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    finally:
        await holdings.close()


def _bind(pool: Pool, store: Store, timeline: Timeline, watch: Watch, gauges: Watch, settings: Settings) -> Driver:
    async def crawl(run_id: int, sources: Sequence[str]) -> None:
        await pool.crawl(run_id, sources, timeline)

    async def score(run_id: int, day: date) -> int:
        return await pool.score(run_id, day, timeline)

    def both(counts: Mapping[str, tuple[int, int]]) -> None:
        gauges(counts)
        watch(counts)

    return Driver(
        store,
        pool.broker,
        timeline,
        epoch_s,
        crawl,
        score,
        both,
        code_version(),
        pool.users,
        settings.night_hours,
        name_process(),
        settings.lease_seconds,
        queue_lasts=not settings.broker_url.get_secret_value().startswith("memory://"),
    )


async def run_nightly(settings: Settings, day: date | None, address: str, watch: Watch, say: Say) -> RunResult:
    """Run one night: the last day that is over, or ``day``.

    Parameters
    ----------
    address
        ``local`` starts a private Ray; ``auto`` or an address uses a cluster.
    say
        Is told what is skipped, and why.
    """
    timeline = timeline_of(settings)
    night = day or night_of(timeline.at(epoch_s()))
    sources, skipped = usable_sources(settings)
    for sentence in skipped:
        say(sentence)
    async with (
        with_database(settings) as ready,
        open_ray(address, "astrid-nightly"),
        open_drivers(ready, sources, shared=address != "local", say=say) as (store, _, driver),
    ):
        universe = await load_universe(ready, store, timeline)
        return await run_night(driver(timeline, watch), universe, night, sources)


async def plan_costs(settings: Settings, day: date | None) -> tuple[date, list[Cost], list[str]]:
    """Return the night, what it would cost per source, and what is skipped; nothing is asked of any upstream.

    How many budgets GitHub's tokens have is what is known of their users without asking.
    """
    timeline = timeline_of(settings)
    night = day or night_of(timeline.at(epoch_s()))
    sources, skipped = usable_sources(settings)
    async with with_database(settings) as ready, open_store(database_url(ready), pool_size=1) as store:
        universe = await load_universe(ready, store, timeline)
        users = {"github": await count_users(ready, store)} if "github" in sources else {}
        now = timeline.at(epoch_s())
        plan = await plan_run(store, universe, night, now, sources, users=users, hours=settings.night_hours)
    return night, list(plan.costs), [*skipped, *explain_left_out(plan, settings.night_hours)]
