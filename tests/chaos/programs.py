"""The programs of a night as child processes: each has a name, many lives, and one file with all that it said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.clock import Clock
from tests.rabbitmq import ROOT

AGAIN_S = 0.3
"""How soon whoever looks after a program starts it again."""

LIVES_MAX = 60
"""A program that ends so often is broken, whatever is done to it."""

FINE = (0, 3)
"""Exit codes of a program that did what it was for: complete, or with gaps."""


class Ailing(AssertionError):
    """A program did what none may do, whatever is done to it."""


@dataclass
class Life:
    """One process of a program: since when, and with what it ended; negative = by that signal."""

    pid: int
    began_s: float
    code: int | None = None


@dataclass
class Program:
    """One program, run again and again under one name.

    ``serves`` says that it is never done: it is started again however it ends.
    """

    name: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    serves: bool = False
    clock: Clock | None = None
    lives: list[Life] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: bool = True
    _process: asyncio.subprocess.Process | None = None
    _stopped: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether a process of it runs."""
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to its process, if there is one; say whether there was."""
        if self._process is None or self._process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            # Not through the event loop's transport, which may have heard of the end of another life.
            os.kill(self._process.pid, number)
            self._stopped = number == signal.SIGSTOP
            return True
        return False

    def kill(self) -> bool:
        """End its process at once, also one that is stopped; say whether there was one."""
        return self.send(signal.SIGKILL)

    async def start(self) -> None:
        """Begin a life."""
        command = [sys.executable, "-m", "astrid", *self.arguments]
        if self.clock is not None:
            command = [*self.clock.prefix, *command]
        if shutil.which("setpriv"):  # if the tests are killed, the kernel ends their programs
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with self.log.open("ab") as output:
            output.write(f"--- life {len(self.lives) + 1} of {self.name}: {' '.join(self.arguments)}\n".encode())
            output.flush()
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env=dict(self.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.lives.append(Life(self._process.pid, time.monotonic()))

    async def wait(self) -> int:
        """Wait for the end of the present life and return its code."""
        assert self._process is not None
        code = await self._process.wait()
        self.lives[-1].code = code
        Clock.sweep(self._process.pid)
        with self.log.open("ab") as output:
            output.write(f"--- life {len(self.lives)} of {self.name} ended with {code}\n".encode())
        return code

    async def look_after(self) -> None:
        """Start it, and again whenever it ends before it is done, until it is no longer wanted.

        Raises
        ------
        Ailing
            If it blames its configuration, which is right, or ends again and again.
        """
        while self.wanted:
            await self.start()
            code = await self.wait()
            if code == 2:
                raise Ailing(f"{self.name} ended with 2, a configuration that cannot be, see {self.log}")
            if code in FINE and not self.serves:
                break
            if len(self.lives) >= LIVES_MAX:
                raise Ailing(f"{self.name} ended {LIVES_MAX} times, see {self.log}")
            if self.wanted:
                await asyncio.sleep(AGAIN_S)
        self.done.set()

    async def run(self, timeout_s: float) -> int:
        """Run one life to its end and return its code.

        Raises
        ------
        Ailing
            If it takes too long.
        """
        await self.start()
        try:
            return await asyncio.wait_for(self.wait(), timeout_s)
        except TimeoutError:
            raise Ailing(f"{self.name} did not end within {timeout_s:.0f} s, see {self.log}") from None

    async def end(self) -> None:
        """Kill what is left of it."""
        self.wanted = False
        if self.is_alive:
            self.kill()
            await self.wait()
