"""The demo: the main job, whole, on a laptop, on real series replayed by simulated upstreams.

Nothing in the pipeline knows that it is a demo: upstream URLs, tokens and the moment are settings.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import SecretStr
from rich.console import Console

from astrid.actors import open_ray
from astrid.catalog import METRIC_BY_NAME
from astrid.clock import epoch_s
from astrid.errors import ConfigError
from astrid.nightly import open_drivers
from astrid.pipeline.inspection import list_violated
from astrid.pipeline.night import run_backfill, run_night
from astrid.pipeline.reconcile import Reconciled, reconcile
from astrid.pipeline.runs import Watch
from astrid.runtime import DEMO_NOW, demo_settings, load_universe, state_folder, usable_sources, with_database
from astrid.settings import Settings
from astrid.simulators.world import World, load_world
from astrid.sources import SOURCES
from astrid.store import ScoreRow, TableDigest
from astrid.terminal import contributing_sources, leaderboard_table, show_progress
from astrid.timeline import Timeline, night_of, night_start

NIGHTS: Final = 28
NOT_RECORDED: Final = ("github.commits", "github.totals")
"""Tasks that the demo leaves out: nobody recorded these counts, and it shows what was recorded."""

SPEED: Final = 300.0
"""The demo's upstreams enforce their limits on a clock that runs this much faster."""

TOKENS: Final = ("demo-token-one", "demo-token-two")
UPSTREAMS: Final = ("github", "hn_algolia", "hn_firebase", "pypistats", "clickhouse", "archive")
TOP: Final = 50
NOTES: Final = {
    "pypi_downloads": "Demo data: daily values are interpolated from real monthly totals with a weekly pattern.",
    "hn_points": "Demo data: only stories that reached the front page; how points grow in the first days is made up.",
}


@dataclass(slots=True)
class Stages:
    """Seconds that each stage took, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start_s


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo run left: the leaderboard, digests, the simulators' account of us, the stage times, and on the last
    night whose canaries are violated."""

    rows: list[ScoreRow]
    digest: Mapping[str, TableDigest]
    report: Mapping[str, Any]
    compared: Reconciled
    day: date
    stages: Stages
    violated: tuple[str, ...] = ()


@asynccontextmanager
async def simulated_upstreams(speed: float, night: date) -> AsyncGenerator[Simulators]:
    """Run ``astrid simulate`` as a child process and give a handle on it; it ends with the block, or with us."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "astrid",
        "simulate",
        *("--scenario", "calm", "--port", "0", "--speed", str(speed), "--tokens", ",".join(TOKENS)),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not k.startswith("ASTRID_") or k.startswith("ASTRID_TEST_")},
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        if "http://" not in line:
            raise ConfigError(f"the simulated upstreams did not start: {line.strip() or 'no output'}")
        url = "http://" + line.split("http://", 1)[1].split()[0].rstrip("/")
        async with aiohttp.ClientSession() as session:
            simulators = Simulators(url, session)
            await simulators.move_to(night)
            yield simulators
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


@dataclass(frozen=True, slots=True)
class Simulators:
    """The running simulators: where they are, and the controls of their clock."""

    url: str
    session: aiohttp.ClientSession

    async def move_to(self, night: date) -> None:
        """Make it the night of ``night``: what upstreams know, and their clock."""
        async with self.session.put(f"{self.url}/_simulator/night", json={"night": night.isoformat()}) as answer:
            answer.raise_for_status()

    async def report(self) -> dict[str, Any]:
        """Return requests, points and convictions per upstream and token."""
        async with self.session.get(f"{self.url}/_simulator/report") as answer:
            answer.raise_for_status()
            report: dict[str, Any] = await answer.json()
            return report


def demo_watchlist(world: World, folder: Path) -> Path:
    """Write the shipped watchlist without the repositories that the world has no series of; return the file.

    The simulated GitHub would call a repository deleted that it only lacks. What the world knows of these projects,
    packages and stories, stays tracked; a project of which it knows nothing is left out.
    """
    known = {name.lower() for repo in world.repos for name in (repo.name, *repo.former)}
    shipped = resources.files("astrid.watchlist").joinpath("projects.csv").read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "watchlist.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        rows = csv.DictReader(io.StringIO(shipped))
        writer = csv.DictWriter(handle, rows.fieldnames or ())
        writer.writeheader()
        for row in rows:
            if row["github"].lower() not in known:
                if row["pypi"].split(" | ")[0] not in world.packages and not row["hn_names"] and not row["hn_urls"]:
                    continue
                proofs = [p for p in row["evidence"].split(" | ") if "github" not in p.partition(" = ")[0]]
                row |= {"github": "", "former_github": "", "evidence": " | ".join(proofs)}
            writer.writerow(row)
    return path


def simulated_settings(settings: Settings, url: str) -> Settings:
    """Point every upstream of ``settings`` at the simulators."""
    values: dict[str, Any] = {f"{name}_url": f"{url}/{name}" for name in UPSTREAMS}
    values["github_tokens"] = SecretStr(",".join(TOKENS))
    return settings.model_copy(update=values)


async def replay(
    settings: Settings, console: Console, address: str, stages: Stages, nights: int = NIGHTS
) -> DemoResult:
    """Run history and nights up to the settings' ``now`` on a database that is ready, and return what they left.

    Raises
    ------
    ConfigError
        If ``now`` lies outside the demo's world.
    """
    with stages.stage("start"):
        world = load_world()
        last = night_of(settings.now or DEMO_NOW)
        first = last - timedelta(days=nights - 1)
        earliest = world.first_day + timedelta(days=180)
        if not earliest <= first <= last <= world.last_day:
            raise ConfigError(
                f"ASTRID_NOW puts the demo's last night at {last}, outside its world: "
                f"the last night can be {earliest + timedelta(days=nights - 1)} to {world.last_day}; unset ASTRID_NOW"
            )
        stack = AsyncExitStack()
        simulators = await stack.enter_async_context(simulated_upstreams(SPEED, first))
    async with stack:
        watchlist = settings.watchlist or demo_watchlist(world, state_folder(settings))
        ready = simulated_settings(settings, simulators.url).model_copy(update={"watchlist": watchlist})
        usable, _ = usable_sources(ready)
        sources = [name for name in usable if SOURCES[name].upstream in UPSTREAMS]
        with stages.stage("start"):
            await stack.enter_async_context(open_ray(address, f"astrid-demo-{os.getpid()}"))
            store, _, driver = await stack.enter_async_context(open_drivers(ready, sources, shared=False, leased=False))
            before = Timeline(night_start(first - timedelta(days=1)), epoch_s(), SPEED)
            await simulators.move_to(first - timedelta(days=1))
            universe = await load_universe(ready, store, before)
            for metric, note in NOTES.items():
                await store.record_note(
                    METRIC_BY_NAME[metric].metric_id, world.first_day, world.last_day, note, before.at(before.anchor_s)
                )
        console.print(
            f"{len(universe.projects)} projects; history from {world.first_day}, then {nights} nights to {last}. "
            f"Upstream limits run {SPEED:.0f} times faster than real."
        )
        with stages.stage("history"), show_progress(console, "history") as watch:
            await run_backfill(driver(before, watch), universe, world.first_day, first - timedelta(days=1), sources)
        with stages.stage("nights"), show_progress(console, "nights") as watch:
            total: dict[str, tuple[int, int]] = {}
            for n in range(nights):
                night = first + timedelta(days=n)
                await simulators.move_to(night)
                timeline = Timeline(night_start(night), epoch_s(), SPEED)
                universe = await load_universe(ready, store, timeline)
                sums = _Sums(total, watch)
                await run_night(driver(timeline, sums.watch), universe, night, sources, NOT_RECORDED)
                total = sums.total()
                watch({**total, "scores": (n + 1, nights)})
        with stages.stage("reconcile"):
            compared = await reconcile(store, universe, first, last, night_start(last))
        with stages.stage("digest"):
            digest = await store.digest()
        rows, report = await store.read_leaderboard(last, None, TOP, 0), await simulators.report()
        violated = tuple(list_violated(await store.read_canaries(last)))
        return DemoResult(rows, digest, report, compared, last, stages, violated)


async def run_demo(settings: Settings, console: Console, address: str, *, once: bool, nights: int = NIGHTS) -> None:
    """Run the demo and print its leaderboard; unless ``once``, then serve API and page until Ctrl-C."""
    stages = Stages()
    async with AsyncExitStack() as stack:
        if not once:
            from api.serve import require_free_port

            require_free_port("127.0.0.1", settings.http_port)
        with stages.stage("database"):
            ready = await stack.enter_async_context(with_database(demo_settings(settings)))
        show(await replay(ready, console, address, stages, nights), console)
        if not once:
            from api.serve import serve

            console.print(f"\nPage and API at http://127.0.0.1:{settings.http_port} until Ctrl-C.")
            await serve(ready, "127.0.0.1", settings.http_port)


def show(result: DemoResult, console: Console) -> None:
    """Print the leaderboard, where its numbers come from, and what each stage took."""
    console.print(f"\nWhich open-source AI tools are taking off, {result.day}", style="bold", highlight=False)
    explained = "Score = 50, the median project, + the points of each source; growth a week is that of the stars."
    console.print(explained, style="dim")
    console.print(leaderboard_table(result.rows[:20], console.width))
    if result.rows and not result.rows[0].calibrated:
        console.print("Intervals are not calibrated yet.", style="dim")
    for metric, note in NOTES.items():
        console.print(f"{metric}: {note}", style="dim")
    sources = contributing_sources(result.rows)
    console.print(
        f"Sources in the top {len(result.rows)}: " + ", ".join(f"{s} ({n})" for s, n in sorted(sources.items()))
    )
    if result.violated:
        console.print(f"Upstreams that break their contract on the last night: {', '.join(result.violated)}.")
    console.print(result.compared.sentence())
    console.print(simulator_sentence(result.report))
    console.print(
        "Digest: " + "  ".join(f"{t} {d.rows} {d.sha256[:12]}" for t, d in result.digest.items()), style="dim"
    )
    seconds = result.stages.seconds
    console.print(
        "Seconds: "
        + ", ".join(f"{name} {s:.1f}" for name, s in seconds.items())
        + f"; in all {sum(seconds.values()):.1f}"
    )


def simulator_sentence(report: Mapping[str, Any]) -> str:
    """Say how many requests the simulators answered and how many of them broke a documented limit."""
    books: Mapping[str, Any] = report["upstreams"]
    parts = [f"{name} {book['requests']}" for name, book in sorted(books.items()) if book["requests"]]
    return f"Requests: {', '.join(parts) or 'none'}; {report['convictions']} broke an upstream's limit."


@dataclass(slots=True)
class _Sums:
    """Progress of all nights in one bar per source: what earlier nights did, plus this one's."""

    earlier: Mapping[str, tuple[int, int]]
    onward: Watch
    latest: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def watch(self, counts: Mapping[str, tuple[int, int]]) -> None:
        self.latest = dict(counts)
        self.onward(self.total())

    def total(self) -> dict[str, tuple[int, int]]:
        names = {*self.earlier, *self.latest}
        pairs = {n: (self.earlier.get(n, (0, 0)), self.latest.get(n, (0, 0))) for n in names}
        return {n: (a[0] + b[0], a[1] + b[1]) for n, (a, b) in pairs.items()}
