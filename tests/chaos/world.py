"""The world in which all trials take place: the same servers, watchlist, night and upstreams, whatever the seed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from uuid import uuid4

import aiohttp

from astrid.store import migrate
from tests.chaos.clock import NotHere, find_faketime
from tests.chaos.servers import Broker, Database
from tests.demo_runs import ROOT, write_watchlist

NIGHT = date(2026, 3, 31)
NOW = "2026-04-01T05:00Z"
PROJECTS = 120
SPEED = 100
LEASE_S = 6
TOKENS = "chaos-token-one,chaos-token-two"
UPSTREAMS = (
    *("GITHUB", "HN_ALGOLIA", "HN_FIREBASE", "PYPISTATS", "CLICKHOUSE", "NPM"),
    *("DOCKERHUB", "HUGGINGFACE", "DEPSDEV", "GHARCHIVE"),
)
TEMPLATE = "chaos_template"


@dataclass
class World:
    """The running servers, the simulated upstreams, and what every program is told."""

    folder: Path
    database: Database
    broker: Broker
    upstreams: str
    watchlist: Path

    def environ(self, database: str, broker: str, instead: dict[str, str] | None = None) -> dict[str, str]:
        """Return a program's environment; ``instead`` has the URLs of upstreams that are asked some other way."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ASTRID_") or k.startswith("ASTRID_TEST_")}
        urls = {f"ASTRID_{name}_URL": f"{self.upstreams}/{name.lower()}" for name in UPSTREAMS}
        return {
            **kept,
            **urls,
            **(instead or {}),
            "ASTRID_DATABASE_URL": database,
            "ASTRID_BROKER_URL": broker,
            "ASTRID_WATCHLIST": str(self.watchlist),
            "ASTRID_GITHUB_TOKENS": TOKENS,
            "ASTRID_NOW": NOW,
            "ASTRID_CLOCK_SPEED": str(SPEED),
            "ASTRID_LEASE_SECONDS": str(LEASE_S),
            "PYTHONFAULTHANDLER": "1",
        }

    async def begin_night(self) -> None:
        """Let the upstreams' night begin anew: clock, windows and books."""
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"{self.upstreams}/_simulator/night", json={"night": NIGHT.isoformat()}) as answer,
        ):
            answer.raise_for_status()

    async def convictions(self) -> Counter[str]:
        """Return how many requests of this night broke which limit of an upstream."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.upstreams}/_simulator/report") as answer:
            books = (await answer.json())["upstreams"]
        counts: Counter[str] = Counter()
        for upstream, book in books.items():
            for account in book["accounts"].values():
                counts.update({f"{upstream} {reason}": n for reason, n in account["convictions"].items()})
        return counts

    async def make_database(self) -> str:
        """Make a migrated, empty database of its own and return its name."""
        name = f"trial_{uuid4().hex[:12]}"
        await self.database.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    async def drop_database(self, name: str) -> None:
        """Drop a trial's database."""
        await self.database.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def open_upstreams() -> Iterator[str]:
    """Run ``astrid simulate`` and give its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "astrid", "simulate", "--port", "0", "--speed", str(SPEED), "--tokens", TOKENS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise OSError(f"the simulated upstreams did not start: {line.strip() or 'no output'}")
        yield "http://" + line.split("http://", 1)[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@contextmanager
def open_world() -> Iterator[World]:
    """Start everything; the slowest first, so that the others start meanwhile."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="cha-"))
        # PostgreSQL does not run as root, so under root it runs as another user, who must get through here.
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name in ("broker", "database"):
            (folder / name).mkdir()
        broker, database = Broker(folder / "broker"), Database(folder / "database")
        stack.callback(broker.close)
        broker.spawn()
        stack.callback(database.close)
        database.prepare()
        watchlist = write_watchlist(folder / "watchlist.csv", PROJECTS)
        upstreams = stack.enter_context(open_upstreams())

        async def begin() -> None:
            await database.start()
            await fill_template(database)
            await broker.ready()

        asyncio.run(begin())
        yield World(folder, database, broker, upstreams, watchlist)


async def fill_template(database: Database) -> None:
    """Make the database that every trial's is a copy of."""
    await database.execute(f"CREATE DATABASE {TEMPLATE}")
    await migrate(database.url(TEMPLATE))
    # A copy of a database begins with a checkpoint: most of it is done here, once.
    await database.execute("CHECKPOINT")


def unavailable(world: World) -> dict[str, str]:
    """Return the kinds of faults that cannot be had here, and why."""
    absent: dict[str, str] = {}
    if world.database.disk_absent:
        absent["disk_full"] = world.database.disk_absent
    try:
        find_faketime()
    except NotHere as exc:
        absent |= {"jump_clocks": str(exc), "jump_database_clock": str(exc)}
    return absent
