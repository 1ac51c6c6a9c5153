"""A wall clock that can be set for some processes alone, by Debian's faketime."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.rabbitmq import ROOT


class NotHere(Exception):
    """Something that a fault needs cannot be had on this machine; the message says why."""


class Clock:
    """The wall clock of one group of processes, moved by a file; see Debian's package faketime.

    Of a process under it, ``time.sleep`` fails (faketime 0.9.10 does not know how Python 3.11 sleeps); event loops and
    locks are fine.
    """

    def __init__(self, path: Path, library: Path) -> None:
        self._path = path
        self._library = library
        self.set(0)

    def set(self, offset_s: int) -> None:
        """Let the wall clock be off by so many seconds; what counts monotonically is not touched."""
        part = self._path.with_suffix(".part")
        part.write_text(f"{offset_s:+d}\n")
        part.chmod(0o644)
        part.replace(self._path)

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that is to see this clock, after all that changes its user."""
        settings = {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return ["env", *(f"{name}={value}" for name, value in settings.items())]

    @staticmethod
    def sweep(pid: int) -> None:
        """Remove what the library left of a process that was killed."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)


def find_faketime() -> Path:
    """Return Debian's library that fakes the wall clock, installing it first where that is allowed."""
    for try_again in (True, False):
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if found:
            return found[0]
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NotHere("faketime is not installed (Debian: as root)")
        if not (os.environ.get("CI") or os.environ.get("ASTRID_TEST_INSTALL") == "1"):
            raise NotHere("faketime is not installed; ASTRID_TEST_INSTALL=1 lets the tests install it")
        if try_again:
            subprocess.run(["sh", str(ROOT / "tools" / "apt.sh"), "faketime"], capture_output=True, timeout=420)
    raise NotHere("apt-get could not install faketime")
