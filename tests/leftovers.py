"""Finds processes that a test run started and did not stop, also those that became daemons."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Leftover:
    """One process that outlived its test: what it is called, and when it started (a pid may be given anew)."""

    pid: int
    title: str
    started_s: float


def list_leftovers(session: str, grace_s: float) -> list[Leftover]:
    """Return what is still there of a session after at most ``grace_s`` seconds.

    A process belongs to the session if its environment names it (``ASTRID_TEST_SESSION``), if its command line
    names the session's folder, or if an ancestor does. Programs that write their title over their environment
    (PostgreSQL, Ray's workers) are found by the last two.
    """
    deadline = time.monotonic() + grace_s
    while found := _scan(session):
        if time.monotonic() > deadline:
            break
        # Servers take a moment to close; there is no event to wait for in processes that are not our children.
        time.sleep(0.2)
    return found


def _scan(session: str) -> list[Leftover]:
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    mark = f"ASTRID_TEST_SESSION={session}"
    found: dict[int, Leftover] = {}
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        for candidate in _family(process, mark, session):
            leftover = _describe(candidate)
            if leftover is not None and candidate.pid not in spared:
                found[candidate.pid] = leftover
    return list(found.values())


def _family(process: psutil.Process, mark: str, session: str) -> list[psutil.Process]:
    try:
        environment = _read(f"/proc/{process.pid}/environ")
        if mark not in environment and session not in _read(f"/proc/{process.pid}/cmdline"):
            return []
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:  # gone in the meantime, or another user's
        return ""


def _describe(process: psutil.Process) -> Leftover | None:
    try:
        title = " ".join(process.cmdline())
        if process.status() == psutil.STATUS_ZOMBIE or "multiprocessing.resource_tracker" in title:
            return None  # dead already; or Python's own helper, which ends with the process that it serves
        return Leftover(process.pid, title or process.name(), process.create_time())
    except psutil.Error:
        return None


def end(leftovers: list[Leftover]) -> None:
    """End processes that ``list_leftovers`` found; one whose pid was given to another in the meantime is spared."""
    alive = []
    for leftover in leftovers:
        try:
            process = psutil.Process(leftover.pid)
            if process.create_time() == leftover.started_s:
                process.terminate()
                alive.append(process)
        except psutil.NoSuchProcess:
            continue
    for process in psutil.wait_procs(alive, timeout=5.0)[1]:
        process.kill()
