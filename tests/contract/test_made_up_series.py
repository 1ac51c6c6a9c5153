"""npm, Hugging Face, deps.dev and Docker Hub through the real fetcher and a real socket.

Paths, lists, bodies and redirects survive the way. Their simulated series are made up, so the shipped world says
nothing of them; the simulators themselves are the truth.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from aiohttp import web

from astrid.catalog import METRIC_BY_NAME
from astrid.http import HttpFetcher, open_session
from astrid.models import Batch, Entity, Observations
from astrid.pipeline.crawl import drive
from astrid.runtime import credentials_of, local_exchanges
from astrid.settings import load_settings
from astrid.simulators.depsdev import DepsDev
from astrid.simulators.dockerhub import DockerHub
from astrid.simulators.huggingface import HuggingFace
from astrid.simulators.npm import Npm
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.server import open_server
from astrid.sources import SOURCES
from astrid.sources.depsdev import UNKNOWN_PACKAGE, UNKNOWN_REPOSITORY
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


def metric(name: str) -> int:
    return METRIC_BY_NAME[name].metric_id


async def test_deps_dev_lists_of_repositories_and_packages() -> None:
    world = make_world()
    depsdev = DepsDev(world)
    repositories = [f"github.com/{repo.name}" for repo in world.repos]
    packages = ("pypi/alpha", "npm/beta", "npm/@scope/gamma", "pypi/no-such-name")
    found = await crawl(
        [
            Batch("depsdev", "projects", NIGHT, NIGHT, NIGHT, entities(*repositories, "github.com/no/body")),
            Batch("depsdev", "packages", NIGHT, NIGHT, NIGHT, entities(*packages)),
        ],
        CALM,
    )
    counts = {n: depsdev.counts(name, NIGHT) for n, name in enumerate(repositories)}
    assert table(found[0]) == {
        (n, metric(name), NIGHT): of[field]
        for n, of in counts.items()
        for name, field in (("depsdev_stars", "starsCount"), ("depsdev_forks", "forksCount"))
        if of
    }
    assert len(table(found[0])) >= 10
    assert {g.reason for g in found[0].gaps} == {UNKNOWN_REPOSITORY}
    named = [name.split("/", 1) for name in packages[:3]]
    assert table(found[1]) == {
        (n, metric(name), NIGHT): read(*name_of, NIGHT)
        for n, name_of in enumerate(named)
        for name, read in (("depsdev_releases", depsdev.releases), ("depsdev_dependents", depsdev.dependents))
    }
    assert {g.reason for g in found[1].gaps} == {UNKNOWN_PACKAGE}


async def test_docker_hub_images() -> None:
    images = ("library/redis", "team/a.b_c-d", "team/no-such-image")
    hub = DockerHub(make_world())
    (found,) = await crawl([Batch("dockerhub", "images", NIGHT, NIGHT, NIGHT, entities(*images))], CALM)
    assert table(found) == {
        (n, metric(name), NIGHT): hub.counts(image, NIGHT)[field]
        for n, image in enumerate(images[:2])
        for name, field in (("dockerhub_pulls", "pull_count"), ("dockerhub_stars", "star_count"))
    }
    assert {(g.entity_id, g.retry) for g in found.gaps} == {(2, False)}


async def test_a_scoped_name_is_one_part_of_the_path_on_the_wire() -> None:
    """The simulators are handed decoded paths; the upstreams are not."""
    seen: list[str] = []

    async def answer(http: web.Request) -> web.Response:
        seen.append(http.raw_path)
        return web.json_response({"code": 5, "error": "package not found"}, status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with open_session() as session:
            for name, task, called in (("npm", "scoped", "@s/a"), ("depsdev", "packages", "npm/@s/a")):
                credentials = credentials_of(load_settings({}), [name], local_exchanges())
                fetch = HttpFetcher(session, {name: url}, credentials, time.time, lambda s: s)
                batch = Batch(name, task, NIGHT, NIGHT, NIGHT, entities(called))
                await drive(SOURCES[name].crawl(batch), fetch)
                await fetch.close()
    finally:
        await runner.cleanup()
    assert [path.rpartition("/")[2] for path in seen] == ["@s%2Fa", "@s%2Fa"]
