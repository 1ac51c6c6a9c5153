"""A backfill on Ray against the configured upstreams: the history that no night asks for any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from astrid.actors import open_ray
from astrid.clock import epoch_s
from astrid.errors import ConfigError
from astrid.nightly import Say, open_drivers
from astrid.pipeline.backfill import PASTS
from astrid.pipeline.night import run_backfill
from astrid.pipeline.runs import RunResult, Watch
from astrid.runtime import load_universe, timeline_of, usable_sources, with_database
from astrid.settings import Settings
from astrid.timeline import night_of


def choose_sources(usable: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return what a backfill is asked of: ``wanted`` sources or single tasks, or without any all usable sources.

    Raises
    ------
    ConfigError
        If one is no source of the past, or cannot be used.
    """
    past = {p.source for p in PASTS} | {f"{p.source}.{p.task}" for p in PASTS}
    for name in wanted:
        if name not in past:
            raise ConfigError(f"no backfill reads {name!r}: choose from {', '.join(sorted(past))}")
        if name.partition(".")[0] not in usable:
            raise ConfigError(f"{name} cannot be asked: it has no address or no token, see docs/configuration.md")
    return list(dict.fromkeys(wanted)) or [name for name in usable if name in past]


async def run_history(
    settings: Settings, first: date, last: date | None, wanted: Sequence[str], address: str, watch: Watch, say: Say
) -> RunResult:
    """Read the days from ``first`` to ``last``, by default the last one that is over.

    Raises
    ------
    ConfigError
        If there are no such days, or nobody can be asked.
    """
    timeline = timeline_of(settings)
    over = night_of(timeline.at(epoch_s()))
    end = last or over
    if not first <= end <= over:
        raise ConfigError(f"there is nothing to read from {first} to {end}: the last day that is over is {over}")
    usable, skipped = usable_sources(settings)
    sources = choose_sources(usable, wanted)
    asked = sorted({name.partition(".")[0] for name in sources})
    for sentence in skipped if not wanted else ():
        say(sentence)
    async with (
        with_database(settings) as ready,
        open_ray(address, "astrid-backfill"),
        open_drivers(ready, asked, shared=address != "local", say=say) as (store, _, driver),
    ):
        universe = await load_universe(ready, store, timeline)
        return await run_backfill(driver(timeline, watch), universe, first, end, sources)
