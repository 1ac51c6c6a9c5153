"""A private pgbouncer in transaction mode for tests: Debian's, in front of a server that runs already.

In this order: the program that is installed; Debian's package installed first, where that is allowed (root, and ``CI``
or ``ASTRID_TEST_INSTALL=1``); else :class:`NoPgbouncer` says why there is none.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

ROOT = Path(__file__).resolve().parent.parent
START_S = 20.0
ATTEMPTS = 8
STATE = """
SELECT 'prepared statement ' || name AS state FROM pg_prepared_statements WHERE name <> ''
UNION ALL SELECT 'session lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'temporary table ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'
UNION ALL SELECT 'listener of ' || channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
UNION ALL SELECT 'setting ' || name || ' = ' || setting FROM pg_settings
WHERE source = 'session' AND context <> 'internal'
  AND name <> ALL ('{client_encoding,DateStyle,TimeZone,application_name,standard_conforming_strings}'::text[])
ORDER BY 1
"""
"""What outlives a transaction in a session, but for the five settings that pgbouncer itself keeps per client."""


class NoPgbouncer(Exception):
    """No pgbouncer can be had here; the message says why."""


def find_program() -> Path:
    """Return pgbouncer, installing Debian's package first where that is allowed."""
    found = _installed()
    if found:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoPgbouncer("pgbouncer is not installed (Debian: as root)")
    if not (os.environ.get("CI") or os.environ.get("ASTRID_TEST_INSTALL") == "1"):
        raise NoPgbouncer("pgbouncer is not installed; ASTRID_TEST_INSTALL=1 lets the tests install it")
    said = ""
    # Workers of one run come here at once: one installs, the others wait and find it.
    with (Path(tempfile.gettempdir()) / "astrid-test-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _installed():
            done = subprocess.run(
                ["sh", str(ROOT / "tools" / "apt.sh"), "pgbouncer"], capture_output=True, text=True, timeout=420
            )
            said = done.stderr.strip()[-200:]
    found = _installed()
    if not found:
        raise NoPgbouncer(f"apt-get could not install pgbouncer: {said}")
    return found


def _installed() -> Path | None:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


@contextmanager
def open_pgbouncer(program: Path, server_url: str, *, pool_size: int, settings: str = "") -> Iterator[str]:
    """Yield the address of the same database through a pgbouncer that shares ``pool_size`` sessions per database.

    It listens on a port of its own on 127.0.0.1, knows the user of ``server_url`` alone, and takes every database.
    """
    parts = urlsplit(server_url)
    user, password = unquote(parts.username or "postgres"), unquote(parts.password or "")
    folder = Path(tempfile.mkdtemp(prefix="pgb-"))
    try:
        _write(folder / "users.txt", f'"{user}" "{password}"\n')
        uid, gid = _whom(folder)
        process, port = _start(program, folder, parts.hostname or "127.0.0.1", parts.port or 5432, pool_size, settings,
                               uid, gid)  # fmt: skip
        try:
            yield urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _whom(folder: Path) -> tuple[int | None, int | None]:
    """Return whom it must run as: it refuses root, so there another user, who is given the folder."""
    if os.geteuid() != 0:
        return None, None
    user = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return user.pw_uid, user.pw_gid


def _start(
    program: Path, folder: Path, host: str, server_port: int, pool_size: int, settings: str, uid: int | None,
    gid: int | None,
) -> tuple[subprocess.Popen[bytes], int]:  # fmt: skip
    for _ in range(ATTEMPTS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        _write(
            folder / "pgbouncer.ini",
            f"""[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
server_idle_timeout = 20
logfile = {folder}/log
{settings}
""",
            uid,
            gid,
        )
        process = subprocess.Popen(
            [program, "-q", folder / "pgbouncer.ini"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
        )
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process, port
            time.sleep(0.02)
        process.kill()
        process.wait()
    log = folder / "log"
    raise ConnectionError(f"pgbouncer does not start: {log.read_text()[-500:] if log.exists() else 'it wrote no log'}")


def _write(path: Path, text: str, uid: int | None = None, gid: int | None = None) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    if uid is not None and gid is not None:
        os.chown(path, uid, gid)


def _end_with_parent() -> None:
    """Ask the kernel to end this process with the tests, even where they are killed."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)


async def read_session_state(url: str, sessions: int) -> list[str]:
    """Return what was left behind in the sessions that a pgbouncer shares, by any client."""
    found: list[str] = []
    async with AsyncExitStack() as stack:
        # Each holds its transaction open until the last has one, so that they stand on as many sessions.
        for _ in range(sessions):
            connection = await asyncpg.connect(url, statement_cache_size=0)
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())
            found += [row["state"] for row in await connection.fetch(STATE)]
    return found
