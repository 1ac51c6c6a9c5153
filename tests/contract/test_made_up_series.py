"""npm and Hugging Face through the real fetcher and a real socket: paths, lists and redirects survive the way.

Their simulated series are made up, so the shipped world says nothing of them; the simulators themselves are the truth.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from astrid.catalog import METRIC_BY_NAME
from astrid.http import HttpFetcher, open_session
from astrid.models import Batch, Entity, Observations
from astrid.pipeline.crawl import drive
from astrid.runtime import credentials_of, local_exchanges
from astrid.settings import load_settings
from astrid.simulators.huggingface import HuggingFace
from astrid.simulators.npm import Npm
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.server import open_server
from astrid.sources import SOURCES
from astrid.sources.huggingface import FIELDS, UNKNOWN
from astrid.timeline import Timeline, night_start
from tests.by_hand import sound, table
from tests.synthetic_world import NIGHT, make_world

SPEED = 300.0


async def crawl(batches: list[Batch], scenario: Scenario) -> list[Observations]:
    """Crawl batches of one source from a server of its own, and require that nobody is convicted."""
    source = SOURCES[batches[0].source]
    timeline = Timeline(night_start(NIGHT), time.time(), SPEED)
    async with (
        open_server(make_world(), speed=SPEED, scenario=scenario, night=NIGHT) as server,
        open_session() as session,
    ):
        credentials = credentials_of(load_settings({}), [source.upstream], local_exchanges())
        fetch = HttpFetcher(
            session, server.base_urls, credentials, lambda: timeline.at(time.time()).timestamp(), timeline.real_s
        )
        try:
            found = [(await drive(source.crawl(batch), fetch))[0] for batch in batches]
        finally:
            await fetch.close()
        report = server.report()
    assert report["convictions"] == 0, report
    return [sound(seen, batch) for seen, batch in zip(found, batches, strict=True)]


def entities(*names: str) -> tuple[Entity, ...]:
    return tuple(Entity(n, f"p{n}", name, (name,)) for n, name in enumerate(names))


async def test_npm_lists_and_scoped_names() -> None:
    names = ("openai", "tesseract.js", "no-such-name", "@anthropic-ai/claude-code", "@x/no-such-name")
    first = NIGHT - timedelta(days=9)
    batches = [
        Batch("npm", "bulk", NIGHT, first, NIGHT, entities(*names)[:3]),
        Batch("npm", "scoped", NIGHT, first, NIGHT, entities(*names)[3:]),
    ]
    npm = Npm(make_world())
    found = await crawl(batches, CALM)
    values = table(found[0]) | table(found[1])
    metric_id = METRIC_BY_NAME["npm_downloads"].metric_id
    days = [first + timedelta(days=n) for n in range(10)]
    assert values == {(n, metric_id, d): npm.downloads(names[n], d) for n in (0, 1, 3) for d in days}


async def test_hugging_face_lists_singles_and_redirects() -> None:
    names = (*(f"lab-{n}/model-{n}" for n in range(9)), "team/a.b_c-d", "team/no-such-model")
    scenario = replace(CALM, renamed=0.3)
    hub = HuggingFace(make_world(), scenario=scenario)
    (found,) = await crawl([Batch("huggingface", "models", NIGHT, NIGHT, NIGHT, entities(*names))], scenario)
    assert table(found) == {
        (n, METRIC_BY_NAME[metric].metric_id, NIGHT): hub.counts(name, NIGHT)[field]
        for n, name in enumerate(names[:-1])
        for metric, field in FIELDS.items()
    }
    assert {g.reason for g in found.gaps} == {UNKNOWN}
    renamed = [n for n, name in enumerate(names) if hub.state(name) == "renamed"]
    assert renamed
    assert [i.entity_id for i in found.identities] == renamed
