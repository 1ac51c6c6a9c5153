"""The process that keeps an embedded PostgreSQL: it starts the server, and stops it when nobody uses it any more.

Run as a script with the standard library alone (:mod:`astrid.store.embedded` does). Who uses the server holds a
shared lock on ``users.lock``; the kernel drops it however that process ends, so the keeper, which waits for the
exclusive lock, needs no count and no heartbeat. The keeper itself holds ``keeper.lock`` for its life.

PostgreSQL refuses to run as root. Where root starts this, the server runs as another user, who may have no way to
the data folder (``/root`` is closed). The server is therefore told that its data lie in ``/proc/self/cwd`` and is
started there: an open working directory needs no way to it, and no permission of any folder is changed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

DATA = "pgdata"
SERVER = "server.json"
LOG = "postgres.log"
USERS_LOCK, KEEPER_LOCK = "users.lock", "keeper.lock"

_READY_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 60.0
_PORT_ATTEMPTS = 8
_LARGEST_LOG_BYTES = 8_000_000
_PR_SET_PDEATHSIG = 1
_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


class Stop(Exception):
    """The keeper was asked to end, or its server ended."""


class Failure(Exception):
    """The server cannot be started; the text says why."""


class Keeper:
    """One data folder and its server; ``uid`` and ``gid`` are set where root must hand the server to another user."""

    def __init__(self, folder: Path, install: Path, uid: int | None, gid: int | None, settings: dict[str, str]) -> None:
        self.folder = folder
        self.settings = settings
        self.install = install
        self.uid = uid
        self.gid = gid
        self.server: subprocess.Popen[bytes] | None = None

    def ensure_cluster(self) -> str:
        """Make the data folder where there is none, all or nothing, and return the superuser's password."""
        data, password_file = self.folder / DATA, self.folder / "password"
        major = (
            subprocess.run([self.install / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True)
            .stdout.split()[-1]
            .split(".")[0]
        )
        if (data / "PG_VERSION").exists():
            found = (data / "PG_VERSION").read_text().strip()
            if found != major:
                raise Failure(
                    f"its data are of PostgreSQL {found}, not {major}: export them there, or choose another folder"
                )
            return password_file.read_text().strip()
        fresh = self.folder / f"{DATA}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self.uid is not None and self.gid is not None:
            os.chown(fresh, self.uid, self.gid)
        self._run(fresh, "initdb", "-D", _address(fresh), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale")
        password = secrets.token_urlsafe(24)
        orders = f"CREATE DATABASE astrid\nALTER USER postgres PASSWORD '{password}'\n"
        self._run(fresh, "postgres", "--single", "-D", _address(fresh), "postgres", orders=orders)
        (fresh / "pg_hba.conf").write_text(_HBA)
        _write_secret(password_file, password)
        fresh.rename(data)
        return password

    def stop_leftover(self) -> None:
        """End a server that outlived its keeper, and remove the pid file of one that did not stop in order.

        A pid file alone proves nothing: after a restart of a container its number often belongs to another process.
        """
        pid_file = self.folder / DATA / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            pid_file.unlink(missing_ok=True)
            return
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while _works_in(pid, self.folder / DATA):
            os.kill(pid, signal.SIGINT if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(0.1)
        pid_file.unlink(missing_ok=True)

    def start(self) -> int:
        """Start the server on a free port of the loopback address and return the port once it takes connections."""
        for _ in range(_PORT_ATTEMPTS):
            port = _free_port()
            before = (self.folder / LOG).stat().st_size
            self._spawn(port)
            if self._await_ready():
                return port
            told = self._log_since(before)
            if "Address already in use" not in told:
                raise Failure(f"the server ended at its start: {_last_complaint(told)} (see {self.folder / LOG})")
        raise Failure("no free port of 127.0.0.1 was found")

    def stop(self) -> None:
        """Stop the server: first in order, then at once, then by force."""
        (self.folder / SERVER).unlink(missing_ok=True)
        for number, wait_s in ((signal.SIGINT, _STOP_TIMEOUT_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            if self.server is None or self.server.poll() is not None:
                return
            self.server.send_signal(number)
            try:
                self.server.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue

    def _spawn(self, port: int) -> None:
        data = self.folder / DATA
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_wal_size": "2GB",
            **self.settings,
        }
        command = [str(self.install / "bin" / "postgres"), "-D", _address(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        log = os.open(self.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.server = subprocess.Popen(
                command,
                cwd=data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
            )
        finally:
            os.close(log)

    def _await_ready(self) -> bool:
        assert self.server is not None
        pid_file, deadline = self.folder / DATA / "postmaster.pid", time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.server.poll() is not None:
                return False
            try:
                lines = pid_file.read_text().splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[0] == str(self.server.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.02)
        self.stop()
        raise Failure(f"the server was not ready within {_READY_TIMEOUT_S:.0f} s (see {self.folder / LOG})")

    def _run(self, data: Path, program: str, *arguments: str, orders: str | None = None) -> None:
        done = subprocess.run(
            [str(self.install / "bin" / program), *arguments],
            cwd=data,
            input=orders or "",
            capture_output=True,
            text=True,
            check=False,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )
        if done.returncode or "ERROR:" in done.stderr:
            raise Failure(f"{program} failed: {_last_complaint(done.stderr)}")

    def _log_since(self, offset: int) -> str:
        with (self.folder / LOG).open("rb") as log:
            log.seek(offset)
            return log.read().decode("utf-8", "replace")


def _address(data: Path) -> str:
    return "/proc/self/cwd" if Path("/proc/self/cwd").exists() else str(data)


def _works_in(pid: int, data: Path) -> bool:
    """Say whether a live process is a server of these data."""
    try:
        if Path("/proc/self").exists():
            return (
                Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
                and "postgres" in Path(f"/proc/{pid}/comm").read_text()
            )
        command = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return "postgres" in command.stdout and str(data) in command.stdout
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Ask the kernel to stop this process in order when the keeper dies, even by kill -9."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _last_complaint(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    grave = [line for line in lines if "FATAL" in line or "ERROR" in line or "error:" in line or "PANIC" in line]
    return (grave or lines or ["it said nothing"])[-1]


def _write_secret(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Stop


def _trim_log(path: Path) -> None:
    path.touch(mode=0o600)
    if path.stat().st_size > _LARGEST_LOG_BYTES:
        os.truncate(path, 0)


def main(arguments: list[str]) -> int:
    """Keep the server of ``arguments`` until nobody uses it; say ``ready`` or why not.

    Arguments are folder, installation, uid and gid (or ``-``), then settings as ``name=value``.
    """
    folder, install = Path(arguments[0]), Path(arguments[1])
    uid, gid = (None if text == "-" else int(text) for text in arguments[2:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    own = os.open(folder / KEEPER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    users = os.open(folder / USERS_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("failed another keeper holds this folder", flush=True)
        return 1
    os.umask(0o077)
    settings = dict(text.split("=", 1) for text in arguments[4:])
    keeper = Keeper(folder, install, uid, gid, settings)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _trim_log(folder / LOG)
        password = keeper.ensure_cluster()
        keeper.stop_leftover()
        port = keeper.start()
        signal.signal(signal.SIGCHLD, _interrupt)
        _write_secret(folder / SERVER, json.dumps({"port": port, "password": password}))
        print("ready", flush=True)
        sys.stdout.close()
        if keeper.server is not None and keeper.server.poll() is None:
            fcntl.flock(users, fcntl.LOCK_EX)
    except Stop:
        pass
    except (Failure, OSError, subprocess.SubprocessError) as exc:
        print(f"failed {exc}", flush=True)
        return 1
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keeper.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
