"""The embedded server: it starts anywhere, is shared, survives what was killed, and leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from astrid.errors import StoreError
from astrid.store import open_embedded
from astrid.store.embedded import _find_install, _is_open_to, reachable_install

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import os, sys, time
from pathlib import Path
from astrid.store.embedded import open_embedded
with open_embedded(Path(sys.argv[1])) as server:
    print(server.url(), flush=True)
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")


@pytest.fixture
def start_owner(scratch: Path) -> Iterator[Callable[[Path], tuple[subprocess.Popen[str], str]]]:
    """Return a function that starts a process which opens a server and holds it until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(owner)
        assert owner.stdout is not None
        return owner, owner.stdout.readline().strip()

    yield start
    for owner in started:
        owner.kill()
        owner.communicate()


def servers_of(folder: Path) -> list[psutil.Process]:
    """Return the keeper and the PostgreSQL processes of a data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) and "keeper" in " ".join(process.cmdline()):
                found += [process, *process.children(recursive=True)]
            elif process.cwd() == str(folder / "pgdata"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def await_none(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while servers_of(folder):
        assert time.monotonic() < deadline, f"left behind: {servers_of(folder)}"
        time.sleep(0.05)


async def ask(url: str, query: str = "SELECT 1") -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_data_stay_and_processes_go(scratch: Path) -> None:
    folder = scratch / ("long" * 40) / "data"
    with open_embedded(folder) as server:
        await ask(server.url(), "CREATE TABLE t AS SELECT 42 AS a")
        assert server.password not in repr(server)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(server.url().replace(server.password, "geheim"))
    assert servers_of(folder) == []
    with open_embedded(folder) as server:
        assert await ask(server.url(), "SELECT a FROM t") == 42
    assert servers_of(folder) == []


async def test_secrets_are_for_the_owner_alone(scratch: Path) -> None:
    with open_embedded(scratch / "d"):
        for name in ("password", "server.json"):
            assert (scratch / "d" / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_killed_owner_leaves_no_process(
    scratch: Path, start_owner: Callable[[Path], tuple[subprocess.Popen[str], str]], number: signal.Signals
) -> None:
    folder = scratch / "d"
    owner, url = start_owner(folder)
    assert await ask(url) == 1
    assert servers_of(folder)
    owner.send_signal(number)
    owner.communicate(timeout=30)
    await_none(folder)
    with open_embedded(folder) as server:
        assert await ask(server.url()) == 1


async def test_two_processes_share_one_server(
    scratch: Path, start_owner: Callable[[Path], tuple[subprocess.Popen[str], str]]
) -> None:
    folder = scratch / "d"
    first, url = start_owner(folder)
    second, same = start_owner(folder)
    with open_embedded(folder) as server:
        assert server.url() == url == same
    first.kill()
    first.communicate()
    await asyncio.sleep(0.5)
    assert await ask(url) == 1, "the second still uses it"
    second.communicate(timeout=30)
    assert servers_of(folder) == [], "the last to leave waits for the server's end"


def test_many_come_and_go_at_once(scratch: Path) -> None:
    code = OWNER.replace("sys.stdin.read()", "time.sleep(float(sys.argv[2]))")
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(scratch / "d"), str(n / 20)], cwd=ROOT, stdout=subprocess.PIPE
        )
        for n in range(6)
    ]
    for owner in owners:
        owner.communicate(timeout=60)
    assert [owner.returncode for owner in owners] == [0] * 6
    assert servers_of(scratch / "d") == []


async def test_a_killed_keeper_takes_its_server_along(
    scratch: Path, start_owner: Callable[[Path], tuple[subprocess.Popen[str], str]]
) -> None:
    folder = scratch / "d"
    owner, _ = start_owner(folder)
    keeper = next(p for p in servers_of(folder) if "keeper" in " ".join(p.cmdline()))
    keeper.kill()
    await_none(folder)
    with open_embedded(folder) as server:
        assert await ask(server.url()) == 1
    owner.communicate(timeout=30)


async def test_a_server_killed_in_mid_write_comes_back(scratch: Path) -> None:
    folder = scratch / "d"
    with open_embedded(folder) as server:
        await ask(server.url(), "CREATE TABLE t AS SELECT generate_series(1, 50000) AS a")
        for process in [p for p in servers_of(folder) if p.name() == "postgres"]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    await_none(folder)
    # The number in the pid file now belongs to a living process that has nothing to do with it: this one.
    pid_file = folder / "pgdata" / "postmaster.pid"
    assert pid_file.exists(), "nothing could tidy up"
    pid_file.write_text(pid_file.read_text().replace(pid_file.read_text().split("\n")[0], str(os.getpid()), 1))
    with open_embedded(folder) as server:
        assert await ask(server.url(), "SELECT count(*) FROM t") == 50000


async def test_a_first_start_that_was_cut_short_is_begun_again(scratch: Path) -> None:
    (scratch / "d" / "pgdata.new" / "base").mkdir(parents=True)
    (scratch / "d" / "pgdata.new" / "PG_VERSION").write_text("18\n")
    with open_embedded(scratch / "d") as server:
        assert await ask(server.url()) == 1


async def test_data_of_another_version_are_refused(scratch: Path) -> None:
    with open_embedded(scratch / "d"):
        pass
    (scratch / "d" / "pgdata" / "PG_VERSION").write_text("11\n")
    with pytest.raises(StoreError, match=r"its data are of PostgreSQL 11, not \d+"), open_embedded(scratch / "d"):
        pass
    assert servers_of(scratch / "d") == []


def test_a_folder_that_is_a_file_is_refused(scratch: Path) -> None:
    (scratch / "d").write_text("")
    with pytest.raises(StoreError, match="choose another one"), open_embedded(scratch / "d"):
        pass


@as_root
async def test_closed_folders_stay_closed(scratch: Path) -> None:
    closed = scratch / "root"
    closed.mkdir(mode=0o700)
    users = [user.pw_name for user in pwd.getpwall()]
    with open_embedded(closed / "deep" / "data") as server:
        assert await ask(server.url()) == 1
        (name,) = {p.username() for p in servers_of(server.folder) if p.name() == "postgres"}
        assert name in ("postgres", "nobody")
    assert closed.stat().st_mode & 0o777 == 0o700
    assert [user.pw_name for user in pwd.getpwall()] == users


@as_root
def test_a_closed_installation_is_copied_once(scratch: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    install = scratch / "closed" / "pginstall18"
    shutil.copytree(_find_install(), install, symlinks=True)
    assert reachable_install(install, nobody, [scratch]) == install
    install.parent.chmod(0o700)
    (scratch / "shelf").mkdir(mode=0o755)
    copy = reachable_install(install, nobody, [scratch / "no such shelf", scratch / "shelf"])
    assert copy.parent == scratch / "shelf"
    assert _is_open_to(copy / "bin" / "postgres", nobody)
    made = copy.stat().st_mtime_ns
    assert reachable_install(install, nobody, [scratch / "shelf"]).stat().st_mtime_ns == made
    done = subprocess.run(
        [copy / "bin" / "postgres", "--version"], user=nobody, group=nobody, capture_output=True, check=True
    )
    assert b"PostgreSQL" in done.stdout
    os.chown(copy, nobody, nobody)
    with pytest.raises(StoreError, match="made by someone else"):
        reachable_install(install, nobody, [scratch / "shelf"])


@as_root
def test_a_user_without_rights_runs_it_too(scratch: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home = scratch / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    if not _is_open_to(Path(sys.executable).resolve(), nobody.pw_uid) or not _is_open_to(Path(__file__), nobody.pw_uid):
        pytest.skip("this Python or this checkout is closed to other users")
    done = subprocess.run(
        [sys.executable, "-c", OWNER, str(home / "d")],
        cwd=ROOT,
        input="",
        capture_output=True,
        text=True,
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        env={**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("postgresql://postgres:")
    with open_embedded(home / "d") as server:
        assert json.loads((server.folder / "server.json").read_text())["port"] == server.port
