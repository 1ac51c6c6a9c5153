"""The night as three programs over RabbitMQ and PostgreSQL: the producer has ended before any worker starts, two
workers share the night, one of them is killed, and what stands at the end is what one undisturbed run leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import asyncpg
import pytest

from astrid.store import EmbeddedServer, migrate, open_embedded
from tests.demo_runs import ROOT, heed_interrupts, write_watchlist

ASTRID = [sys.executable, "-m", "astrid"]
UPSTREAMS = (
    *("GITHUB", "HN_ALGOLIA", "HN_FIREBASE", "PYPISTATS", "CLICKHOUSE", "NPM", "DOCKERHUB", "HUGGINGFACE", "DEPSDEV"),
    "ARCHIVE",
)
TOKENS = "token-one,token-two"
PROJECTS = 60
LEASE_S = "4"
SPEED = "120"


@dataclass
class House:
    """One installation: a database, a broker, simulated upstreams, and the programs that work on them."""

    environ: dict[str, str]
    simulators: str
    report: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def database(self) -> str:
        return self.environ["ASTRID_DATABASE_URL"]

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """Start a program."""
        process = subprocess.Popen(
            [*ASTRID, *arguments],
            cwd=ROOT,
            env=os.environ | self.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_interrupts,
        )
        self.started.append(process)
        return process

    def finish(self, *arguments: str, code: int | tuple[int, ...] = 0, timeout_s: float = 150, **settings: str) -> str:
        """Run a program to its end and return what it said."""
        return await_end(self.start(*arguments, **settings), code, timeout_s)

    def digest(self) -> dict[str, Any]:
        digest: dict[str, Any] = json.loads(self.finish("digest", "--json"))
        return digest

    def ask(self, query: str) -> list[Any]:
        """Return the rows of a query."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.database)
            try:
                return [tuple(row) for row in await connection.fetch(query)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def await_rows(self, query: str, expected: Callable[[list[Any]], bool], timeout_s: float = 60) -> list[Any]:
        """Wait for what another process writes; there is no event for it."""
        deadline = time.monotonic() + timeout_s
        while not expected(rows := self.ask(query)):
            assert time.monotonic() < deadline, f"{query}: {rows}"
            time.sleep(0.05)
        return rows

    def counts(self) -> dict[str, int]:
        return dict(self.ask("SELECT state, count(*) FROM batch GROUP BY state"))

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()
            elif process.stdout is not None:
                process.stdout.close()


def await_end(process: subprocess.Popen[str], code: int | tuple[int, ...] = 0, timeout_s: float = 150) -> str:
    """Wait for a program's end, which must be as expected, and return what it said."""
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        raise AssertionError(f"{process.args} took more than {timeout_s} s:\n{said[-3000:]}") from None
    assert process.returncode in (code if isinstance(code, tuple) else (code,)), said[-3000:]
    assert "Traceback" not in said, said[-3000:]
    return said


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Give one server for all tests here."""
    with open_embedded(tmp_path_factory.mktemp("programs") / "pg", settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture(scope="module")
def watchlist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_watchlist(tmp_path_factory.mktemp("watchlist") / "watchlist.csv", PROJECTS)


@contextmanager
def open_house(postgres: EmbeddedServer, watchlist: Path, broker_url: str, folder: Path) -> Iterator[House]:
    """Give a house of its own: a database, a virtual host's worth of empty queues, simulators with clean books."""
    name = f"programs_{uuid4().hex[:12]}"

    async def prepare() -> None:
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        await empty(broker_url)

    asyncio.run(prepare())
    report = folder / f"{name}.json"
    simulator = subprocess.Popen(
        [*ASTRID, "simulate", "--port", "0", "--speed", SPEED, "--tokens", TOKENS, "--report", str(report)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert simulator.stdout is not None
    url = "http://" + simulator.stdout.readline().split("http://", 1)[1].split()[0]
    environ = {
        "ASTRID_DATABASE_URL": postgres.url(name),
        "ASTRID_BROKER_URL": broker_url,
        "ASTRID_STATE_DIR": str(folder / "state"),
        "ASTRID_WATCHLIST": str(watchlist),
        "ASTRID_GITHUB_TOKENS": TOKENS,
        "ASTRID_NOW": "2026-04-01T05:00Z",
        "ASTRID_CLOCK_SPEED": SPEED,
        "ASTRID_LEASE_SECONDS": LEASE_S,
        **{f"ASTRID_{upstream}_URL": f"{url}/{upstream.lower()}" for upstream in UPSTREAMS},
    }
    house = House(environ, url, report)
    try:
        yield house
    finally:
        simulator.send_signal(signal.SIGTERM)
        try:
            house.end()
        finally:
            simulator.communicate(timeout=60)


async def empty(broker_url: str) -> None:
    """Take every message of ours out of the broker: tests share it."""
    from astrid.broker.rabbitmq import open_rabbitmq
    from astrid.sources import SOURCES

    async with open_rabbitmq(broker_url) as broker:
        await broker.purge(list(SOURCES))


async def publish_garbage(broker_url: str) -> None:
    """Put something into npm's queue that is no batch."""
    connection = await aio_pika.connect(broker_url)
    async with connection, connection.channel() as channel:
        message = aio_pika.Message(b"no batch", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "astrid.npm.nightly")


def count_dead_letters(house: House) -> int:
    """Return how many dead letters there are; tests share a broker."""
    said = house.finish("dlq", "list", "--json")
    count: int = json.loads(said[said.index("{") :])["count"]
    return count


@pytest.fixture
def house(postgres: EmbeddedServer, watchlist: Path, rabbitmq_url: str, tmp_path: Path) -> Iterator[House]:
    with open_house(postgres, watchlist, rabbitmq_url, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(
    postgres: EmbeddedServer, watchlist: Path, rabbitmq_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Run the same night undisturbed, one program after the other, and return its digest."""
    with open_house(postgres, watchlist, rabbitmq_url, tmp_path_factory.mktemp("undisturbed")) as alone:
        alone.finish("produce")
        alone.finish("work", "--until-empty")
        alone.finish("score", code=(0, 3))
        digest = alone.digest()
        assert digest["observation"]["rows"] > 1_000
        assert digest["score"]["rows"] > 20
        return digest


@pytest.mark.timeout(400)
def test_a_worker_is_killed_and_the_night_is_what_it_would_have_been(house: House, undisturbed: dict[str, Any]) -> None:
    letters = count_dead_letters(house)
    said = house.finish("produce", "--json")
    produced = json.loads(said[said.index("{") :])
    assert produced["published"] == house.counts()["planned"] > 20
    assert house.ask("SELECT name FROM lease WHERE expires_at > now()") == [], "the producer has ended"

    workers = [house.start("work", "--until-empty", "--name", name) for name in ("one", "two")]
    house.await_rows(
        "SELECT split_part(holder, '#', 1), count(*) FROM lease WHERE name LIKE 'budget%' GROUP BY 1",
        lambda rows: len(rows) == 2,
    )
    house.await_rows("SELECT count(*) FROM batch WHERE state = 'done'", lambda rows: rows[0][0] >= 1)
    workers[0].kill()
    workers[0].communicate()
    left = house.counts()
    assert left.get("planned", 0) > 0, f"the night was over before the kill: {left}"
    assert house.ask("SELECT name FROM lease WHERE holder LIKE 'one#%'"), "what it held is left behind"
    scoring = house.start("score", "--json")
    await_end(workers[1])
    said = await_end(scoring, (0, 3))
    result = json.loads(said[said.index("{") :])
    assert result["batches"] == {"done": produced["published"]}
    assert result["run_id"] == produced["run_id"]
    assert house.digest() == undisturbed
    assert count_dead_letters(house) == letters
    assert [row[0] for row in house.ask("SELECT state FROM run")] == [result["state"]]
    books = json.loads(read_report(house))
    assert books["convictions"] == 0, "no budget was spent twice"


@pytest.mark.timeout(400)
def test_what_two_workers_spend_stands_in_the_books(house: House, undisturbed: dict[str, Any]) -> None:
    """Undisturbed, what the run is said to have spent is what the upstreams saw."""
    house.finish("produce")
    workers = [house.start("work", "--until-empty") for _ in range(2)]
    for worker in workers:
        await_end(worker)
    said = house.finish("score", "--json", code=(0, 3))
    result = json.loads(said[said.index("{") :])
    assert house.digest() == undisturbed
    spent: dict[str, int] = {}
    for cost in result["costs"]:
        spent[cost["upstream"]] = spent.get(cost["upstream"], 0) + (cost["spent_requests"] or 0)
    books = json.loads(read_report(house))
    seen = {name: book["requests"] for name, book in books["upstreams"].items() if book["requests"]}
    assert books["convictions"] == 0
    # Whose GitHub's tokens are is asked by every worker, of each token, before any run.
    assert spent == seen | {"github": seen["github"] - 2 * 2}


def read_report(house: House) -> str:
    """Return the simulators' books."""
    with urllib.request.urlopen(f"{house.simulators}/_simulator/report", timeout=10) as answer:
        report: str = answer.read().decode()
        return report


@pytest.mark.timeout(400)
def test_told_to_stop_a_worker_gives_back_what_it_cannot_end(house: House, undisturbed: dict[str, Any]) -> None:
    house.finish("produce")
    first = house.start("work", "--name", "first", "--grace", "0")
    house.await_rows("SELECT count(*) FROM batch WHERE state = 'done'", lambda rows: rows[0][0] >= 2)
    first.send_signal(signal.SIGTERM)
    said = await_end(first, 0, 60)
    assert [line for line in said.splitlines() if "asked to stop" in line] == [
        "asked to stop: what runs may end within 0 s, the rest goes back"
    ]
    assert house.counts().get("planned", 0) > 0, "the night was over before the signal"
    assert house.ask("SELECT name FROM lease WHERE expires_at > now()") == [], "its leases are given back"
    second = house.start("work", "--until-empty", "--name", "second")
    await_end(second)
    house.finish("score", code=(0, 3))
    assert house.digest() == undisturbed


@pytest.mark.timeout(400)
def test_a_producer_that_is_run_again_starts_no_second_run(
    house: House, undisturbed: dict[str, Any], rabbitmq_url: str
) -> None:
    first = house.finish("produce")
    again = house.finish("produce")
    assert "taken up" in again
    assert "0 batches published" in again
    assert len(house.ask("SELECT run_id FROM run")) == 1
    house.finish("work", "--until-empty")
    house.finish("score", code=(0, 3))
    assert house.digest() == undisturbed
    nothing = house.finish("produce", code=(0, 3))
    assert "it lacks nothing" in nothing, (first, nothing)
    said = house.finish("score", code=(0, 3))
    assert "is closed already" in said
    letters = count_dead_letters(house)
    asyncio.run(publish_garbage(rabbitmq_url))
    house.finish("work", "--until-empty")
    assert count_dead_letters(house) == letters + 1, "a queue that holds what is no batch is not empty either"
    assert house.digest() == undisturbed


@pytest.mark.timeout(400)
def test_a_nightly_on_ray_takes_up_what_a_producer_left(house: House, undisturbed: dict[str, Any]) -> None:
    """And while it holds the budgets, a worker beside it asks nobody."""
    house.finish("produce")
    worker = house.start("work", "--name", "beside")
    house.await_rows("SELECT count(*) FROM batch WHERE state = 'done'", lambda rows: rows[0][0] >= 1)
    said = house.finish("nightly", code=(0, 3), timeout_s=240, RAY_AUTH_MODE="token")
    assert "Night of 2026-03-31" in said
    assert len(house.ask("SELECT run_id FROM run")) == 1
    worker.send_signal(signal.SIGTERM)
    await_end(worker, 0, 60)
    assert house.digest() == undisturbed
    books = json.loads(read_report(house))
    assert books["convictions"] == 0


class TestBadInput:
    @pytest.mark.parametrize("command", ["produce", "work", "score"])
    def test_a_broker_of_one_process_is_refused(self, house: House, command: str) -> None:
        said = house.finish(command, code=2, ASTRID_BROKER_URL="memory://")
        assert "ASTRID_BROKER_URL" in said
        assert "astrid nightly" in said
        assert len(said.strip().splitlines()) == 1, said

    @pytest.mark.parametrize("command", ["produce", "work", "score"])
    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("amqp://guest:hidden-word@127.0.0.1:1/", ["127.0.0.1:1"]),
            ("amqp://guest:hidden-word@{place}/", ["ASTRID_BROKER_URL"]),
        ],
    )
    def test_a_broker_that_does_not_let_in_is_named(
        self, house: House, command: str, url: str, words: list[str], rabbitmq_url: str
    ) -> None:
        asyncio.run(migrate(house.database))
        place = rabbitmq_url.rpartition("@")[2].partition("/")[0]
        said = house.finish(command, code=1, ASTRID_BROKER_URL=url.format(place=place))
        assert all(word in said for word in words), said
        assert "hidden-word" not in said

    @pytest.mark.parametrize("command", ["work", "score"])
    def test_a_database_of_another_version_is_refused(self, house: House, command: str) -> None:
        said = house.finish(command, code=1)
        assert "was never migrated: run `astrid migrate`" in said
        asyncio.run(migrate(house.database))
        house.ask("DELETE FROM migration WHERE name = '0012_lease.sql' RETURNING name")
        assert "lacks 0012_lease.sql" in house.finish(command, code=1)
        house.ask("INSERT INTO migration (name, sha256) VALUES ('9999_later.sql', 'x') RETURNING name")
        assert "is ahead of this version" in house.finish(command, code=1)

    def test_sources_names_and_nights_that_cannot_be(self, house: House) -> None:
        asyncio.run(migrate(house.database))
        assert "there is no source 'gihtub'" in house.finish("work", "--source", "gihtub", code=2)
        said = house.finish("work", "--source", "github", code=2, ASTRID_GITHUB_TOKENS="")
        assert "set ASTRID_GITHUB_TOKENS" in said
        assert "cannot name a worker" in house.finish("work", "--name", "a#b", code=2)
        assert "astrid produce --day 2026-03-31" in house.finish("score", code=1)

    def test_a_clock_that_is_far_off_is_refused(self, house: House) -> None:
        """Held against the database's; where the run's moment is given, no clock counts."""
        asyncio.run(migrate(house.database))
        script = (
            "import sys, time\n"
            "real = time.time\n"
            "time.time = lambda: real() + 3600\n"
            "from astrid.cli import main\n"
            "sys.argv = ['astrid', 'work', '--until-empty', '--source', 'npm']\n"
            "main()\n"
        )
        for now, code in (("", 2), (house.environ["ASTRID_NOW"], 0)):
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=ROOT,
                env=os.environ | house.environ | {"ASTRID_NOW": now},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == code, done.stderr
            assert ("s ahead of the database's" in done.stderr) == (code == 2)
