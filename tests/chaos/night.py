"""One trial's night: its database, virtual host, lines and programs, and what a fault needs to know of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import asyncpg

from tests.chaos.clock import Clock, find_faketime
from tests.chaos.lines import Line, open_lines
from tests.chaos.programs import Ailing, Program
from tests.chaos.schedule import Schedule
from tests.chaos.world import World

KILLER = "/dockerhub/v2/repositories/"
"""What the batch that kills its worker asks for: its worker dies of it each time, as of too little memory."""

THROUGH = ("dockerhub", "depsdev")
"""The upstreams that workers ask through a line of their own: one whose batch may kill, one whose counters move."""

_AWAY = (
    *(OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(asyncpg.OperatorInterventionError, asyncpg.InsufficientResourcesError),
)
"""What a database says that a fault has hold of."""


async def until(condition: Callable[[], Awaitable[object]], timeout_s: float = 60.0, every_s: float = 0.1) -> bool:
    """Wait until a condition holds; say whether it did in time. There is nothing to wait on but asking again."""
    deadline = time.monotonic() + timeout_s
    while True:
        if await condition():
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(every_s)


@dataclass
class Trial:
    """The parts of one trial while it runs; ``planned`` is how many batches a night has."""

    world: World
    folder: Path
    schedule: Schedule
    planned: int = 0
    database: str = ""
    vhost: str = ""
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)
    clock: Clock | None = None
    settled: int = 0
    poison: list[str] = field(default_factory=list)
    applied: Counter[str] = field(default_factory=Counter)
    killing: asyncio.Lock = field(default_factory=asyncio.Lock)
    database_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    broker_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _began_s: float = field(default_factory=time.monotonic)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _minders: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Write down what was done and when."""
        with (self.folder / "trial.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.monotonic() - self._began_s:7.2f}s {self.settled:3d} settled: {text}\n")

    async def reach(self, settled: int, timeout_s: float) -> bool:
        """Wait until so many batches were seen to be settled; say whether that came in time."""
        deadline = time.monotonic() + timeout_s
        while self.settled < settled:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                return False
        return True

    async def query(self, sql: str, *arguments: Any) -> list[Any]:
        """Ask the trial's database past all lines, as soon as it answers."""
        deadline = time.monotonic() + 90
        while True:
            try:
                connection = await asyncpg.connect(self.world.database.url(self.database), timeout=10)
                try:
                    rows: list[Any] = await connection.fetch(sql, *arguments)
                    return rows
                finally:
                    await connection.close(timeout=5)
            except _AWAY:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    def start(self, name: str) -> None:
        """Have a program looked after."""
        self._minders[name] = asyncio.create_task(self.programs[name].look_after())

    async def ended(self, name: str, timeout_s: float) -> None:
        """Wait until a program is done.

        Raises
        ------
        Ailing
            If it takes too long, or did what none may do.
        """
        done, _ = await asyncio.wait({self._minders[name]}, timeout=timeout_s)
        if not done:
            raise Ailing(f"{name} was not through after {timeout_s:.0f} s")
        self._minders[name].result()

    def complain(self) -> None:
        """Raise what a program did that none may do."""
        for minder in self._minders.values():
            if minder.done():
                minder.result()

    async def close(self) -> None:
        """End every program."""
        for program in self.programs.values():
            program.wanted = False
            program.kill()
        for minder in self._minders.values():
            minder.cancel()
        await asyncio.gather(*self._minders.values(), return_exceptions=True)
        for program in self.programs.values():
            await program.end()

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[Any]:
        """Give a channel to the trial's virtual host past all lines."""
        connection = await aio_pika.connect(self.world.broker.url(self.vhost), timeout=20)
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def work_queues(self, channel: Any) -> list[Any]:
        """Return the queues in which batches wait for a worker."""
        names = self.world.broker.queues(self.vhost)
        return [
            await channel.declare_queue(name, passive=True)
            for name in names
            if name.endswith((".nightly", ".backfill"))
        ]

    def watch(self, event: str) -> None:
        """Hear of an event on any line."""
        if event == "settle":
            self.settled += 1
            self._moved.set()


@asynccontextmanager
async def open_trial(world: World, folder: Path, schedule: Schedule, planned: int = 0) -> AsyncGenerator[Trial]:
    """Give a trial a database, a virtual host, a clock, lines and programs of its own, and end them all afterwards."""
    trial = Trial(world, folder, schedule, planned)
    trial.note(str(schedule))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.broker.mend)
        stack.push_async_callback(world.database.mend)
        if schedule.has("jump_clocks"):
            trial.clock = Clock(folder / "clock", find_faketime())
        if schedule.has("jump_database_clock"):
            stack.push_async_callback(_give_clock_back, world)
            await _give_clock(world)
        trial.database = await world.make_database()
        stack.push_async_callback(world.drop_database, trial.database)
        trial.vhost = trial.database
        world.broker.add_vhost(trial.vhost)
        stack.callback(world.broker.delete_vhost, trial.vhost)
        await world.begin_night()
        for name in ("produce", "score", *schedule.workers):
            await stack.enter_async_context(_open_program(trial, name))
        stack.push_async_callback(trial.close)
        yield trial


async def _give_clock(world: World) -> None:
    world.database.stop()
    world.database.clock = Clock(world.database.folder / "clock", find_faketime())
    await world.database.start()


async def _give_clock_back(world: World) -> None:
    world.database.stop()
    world.database.clock = None
    await world.database.start()


@asynccontextmanager
async def _open_program(trial: Trial, name: str) -> AsyncGenerator[None]:
    world = trial.world
    upstreams = urlsplit(world.upstreams)
    lines = {
        "database": Line(f"{name} to database", "postgres", "127.0.0.1", world.database.port),
        "broker": Line(f"{name} to broker", "amqp", "127.0.0.1", world.broker.node.port),
    }
    if name in trial.schedule.workers:
        where = upstreams.hostname or "", upstreams.port or 0
        lines["upstream"] = Line(f"{name} to upstream", "http", *where, mark=KILLER)
    async with open_lines(*lines.values()):
        instead = {
            f"ASTRID_{upstream.upper()}_URL": f"http://127.0.0.1:{line.port}/{upstream}"
            for upstream in THROUGH
            if (line := lines.get("upstream")) is not None
        }
        environ = world.environ(
            world.database.url(trial.database, lines["database"].port),
            world.broker.url(trial.vhost, lines["broker"].port),
            instead,
        )
        arguments = [name] if name in ("produce", "score") else ["work", "--name", name, "--grace", "10"]
        log = trial.folder / f"{name}.log"
        trial.programs[name] = Program(
            name, arguments, environ, log, serves=name in trial.schedule.workers, clock=trial.clock
        )
        for kind, line in lines.items():
            line.watch = trial.watch
            trial.lines[name, kind] = line
        yield
