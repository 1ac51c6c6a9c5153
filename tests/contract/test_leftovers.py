"""The check at the end of each run finds what outlives it, however it was detached."""

from __future__ import annotations

import subprocess
import sys
import uuid

import psutil

from tests.leftovers import end, list_leftovers

SLEEPER = "import time; print('ready', flush=True); time.sleep(60)"
"""Says when it runs, for its command line is empty for a moment while the kernel loads it."""

DAEMON = f"""
import os, subprocess, sys
environment = {{**os.environ, "ASTRID_TEST_SESSION": sys.argv[1]}}
command = [sys.executable, "-c", {SLEEPER!r}]
child = subprocess.Popen(
    command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
)
child.stdout.readline()
print(child.pid)
"""


def test_a_detached_process_is_found_and_ended() -> None:
    session = f"other-{uuid.uuid4().hex}"
    started = subprocess.run([sys.executable, "-c", DAEMON, session], capture_output=True, text=True, check=True)
    pid = int(started.stdout)
    found = list_leftovers(session, grace_s=0.0)
    assert [leftover.pid for leftover in found] == [pid]
    assert "time.sleep(60)" in found[0].title
    end(found)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert list_leftovers(session, grace_s=0.0) == []


def test_a_process_that_only_names_the_session_folder_is_found() -> None:
    session = f"other-{uuid.uuid4().hex}"
    # Titles of servers that write over their environment still name their data folder.
    command = [sys.executable, "-c", SLEEPER, f"/tmp/{session}/data"]
    with subprocess.Popen(command, env={}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert [leftover.pid for leftover in list_leftovers(session, grace_s=0.0)] == [process.pid]
        finally:
            process.kill()
