"""The servers that trials do harm to: a PostgreSQL on a small disk of its own, and a RabbitMQ node.

They are started here and not by the fixtures of other tiers: they are killed with all their processes, filled up, and
moved in time, and they keep their data through all of it. One of each serves many trials; each trial has a database
and a virtual host of its own.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import aio_pika
import asyncpg
import psutil
from aio_pika.exceptions import AMQPError

from astrid.store.embedded import _find_install, reachable_install
from tests.chaos.clock import Clock, NotHere
from tests.rabbitmq import PrivateNode, _free_ports, find_script

READY_S = 60.0
DISK = "640m"
HEARTBEAT_S = 4
"""Short, so that a client that is stopped or cut off is noticed within a trial."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "80",
    "shared_buffers": "32MB",
    # The disk is small: a full one must be full, and an empty one empty, within seconds.
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "60s",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class Database:
    """One PostgreSQL server: its data survive the death of its processes, and its disk can be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "postgres.log"
        self.clock: Clock | None = None
        self.disk_absent = ""
        self._disk = folder / "disk"
        self._password = secrets.token_hex(12)
        self._holder: subprocess.Popen[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._user: int | None = None
        self._group: int | None = None
        self._bin = Path()
        self.port = 0

    def url(self, database: str, port: int = 0) -> str:
        """Return the address of a database, by default without anything in between."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{port or self.port}/{database}?sslmode=disable"

    def prepare(self) -> None:
        """Make the disk and an empty cluster of databases on it."""
        self.folder.chmod(0o755)
        self._disk.mkdir()
        install = _find_install()
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres" if _has_user("postgres") else "nobody")
            self._user, self._group = user.pw_uid, user.pw_gid
            install = reachable_install(install, user.pw_uid)
        self._bin = install / "bin"
        self._mount()
        (self.port,) = _free_ports(1)
        secret = self.folder / "password"
        secret.write_text(self._password)
        secret.chmod(0o644)
        data = self._disk / "data"
        self._inside(["mkdir", "-m", "700", str(data)])
        initdb = [str(self._bin / "initdb"), "-D", str(data), "-U", "postgres", f"--pwfile={secret}"]
        initdb += ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._inside(initdb)
        secret.unlink()

    def spawn(self) -> None:
        """Start the server; its parent is this very thread, whose end would end it too."""
        settings = {**SETTINGS, "port": str(self.port)}
        command = [str(self._bin / "postgres"), "-D", str(self._disk / "data")]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as output:
            self._server = subprocess.Popen(
                self._as_user([*(self.clock.prefix if self.clock else []), *command]),
                cwd="/",
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Wait until the server lets a client in; start it again where it gave up meanwhile (a full disk)."""
        deadline = time.monotonic() + READY_S
        while True:
            try:
                connection = await asyncpg.connect(self.url("postgres"), timeout=5)
                await connection.close()
                return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as exc:
                if time.monotonic() > deadline:
                    tail = self.log.read_text(errors="replace")[-1500:]
                    raise TimeoutError(f"PostgreSQL did not start ({exc}):\n{tail}") from exc
            if self._server is None or self._server.poll() is not None:
                self.spawn()
            # A server that starts offers nothing to wait on but its port.
            await asyncio.sleep(0.1)

    async def start(self) -> None:
        """Start the server and wait for it."""
        self.spawn()
        await self.ready()

    async def mend(self) -> None:
        """Undo what a fault that was broken off left."""
        self.free()
        await self.ready()

    def kill(self) -> None:
        """End all processes of the server at once, as the kernel would."""
        if self._server is None:
            return
        family = _family(self._server.pid)
        self._server.kill()
        for process in family:
            with _gone_is_fine():
                process.kill()
        self._server.wait()
        psutil.wait_procs(family, timeout=10)
        Clock.sweep(self._server.pid)
        self._server = None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends it in order, SIGQUIT at once and without a checkpoint."""
        if self._server is None:
            return
        self._server.send_signal(how)
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            return
        Clock.sweep(self._server.pid)
        self._server = None

    def close(self) -> None:
        """Stop the server and give the disk back."""
        self.stop()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()

    def fill(self, leave_bytes: int) -> None:
        """Fill the disk up with a ballast file, but for a little."""
        ballast = self._seen() / "ballast"
        with ballast.open("ab") as file:
            while (free := shutil.disk_usage(self._seen()).free - leave_bytes) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), free)
                except OSError:  # the server was faster and took a part of it
                    continue
                file.seek(0, os.SEEK_END)

    def free(self) -> None:
        """Throw the ballast off."""
        (self._seen() / "ballast").unlink(missing_ok=True)

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement past all lines."""
        connection = await asyncpg.connect(self.url(database), timeout=20)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _mount(self) -> None:
        """Put a small disk under the data, in a namespace of its own that ends with us, however we end."""
        if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "setpriv"))):
            self.disk_absent = "a small disk for the database can only be mounted by root, with util-linux"
        else:
            mount = f"mount -t tmpfs -o size={DISK},mode=0755 tmpfs {self._disk} && echo mounted && exec sleep infinity"
            command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private"]
            self._holder = subprocess.Popen(
                [*command, "sh", "-c", mount], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            assert self._holder.stdout is not None
            assert self._holder.stderr is not None
            with self._holder.stdout as said, self._holder.stderr as wrong:
                if said.readline().strip() != "mounted":
                    self.disk_absent = f"no small disk can be mounted here: {wrong.readline().strip()}"
                    self._holder.wait()
                    self._holder = None
        if self._user is not None:
            os.chown(self._seen(), self._user, self._group or 0)

    def _seen(self) -> Path:
        """Return the disk's folder as this process sees it."""
        return self._disk if self._holder is None else Path(f"/proc/{self._holder.pid}/root{self._disk}")

    def _as_user(self, command: list[str]) -> list[str]:
        """Return the command as it runs on the disk, as the database's user, and not longer than we do."""
        inside = [] if self._holder is None else ["nsenter", "--target", str(self._holder.pid), "--mount", "--"]
        priv = [] if shutil.which("setpriv") is None else ["setpriv"]
        if priv and self._user is not None:
            priv += ["--reuid", str(self._user), "--regid", str(self._group), "--clear-groups"]
        return [*inside, *priv, *(["--pdeathsig", "INT", "--"] if priv else []), *command]

    def _inside(self, command: list[str]) -> None:
        done = subprocess.run(
            self._as_user(command), cwd="/", env=self._environ(), capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            raise OSError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")

    def _environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LD_"))}
        return kept | {"LC_ALL": "C"}


class Broker:
    """One RabbitMQ node; a virtual host of it is a broker of its own for a trial."""

    def __init__(self, folder: Path) -> None:
        self.node = PrivateNode(folder, find_script())

    def spawn(self) -> None:
        """Start the node; its parent is this very thread, whose end would end it too."""
        node = self.node
        if not node._env:
            node._prepare()
        log = node.folder / "server.log"
        if node._epmd is None:
            node._epmd = node._spawn([str(node._epmd_program()), "-address", "127.0.0.1"], log)
        node._server = node._spawn([str(node.script)], log)

    async def ready(self, vhost: str = "/") -> None:
        """Wait until the node lets a client in; start it again where it gave up meanwhile, as a supervisor would.

        A node that is started in the moment in which it was killed may find its own name still taken.
        """
        deadline = time.monotonic() + READY_S
        while True:
            try:
                connection = await aio_pika.connect(self.url(vhost), timeout=5)
                await connection.close()
                return
            except (OSError, AMQPError, TimeoutError) as exc:
                if time.monotonic() > deadline:
                    tail = (self.node.folder / "server.log").read_text(errors="replace")[-1500:]
                    raise TimeoutError(f"RabbitMQ did not start ({exc}):\n{tail}") from exc
            if self.node._server is None or self.node._server.poll() is not None:
                self.spawn()
            await asyncio.sleep(0.2)

    async def mend(self) -> None:
        """Undo what a fault that was broken off left."""
        await self.ready()

    def kill(self) -> None:
        """End the node at once."""
        self.node.kill()

    def stop(self) -> None:
        """Let the node end in order; its epmd stays."""
        server = self.node._server
        if server is None:
            return
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        self.node._server = None

    def close(self) -> None:
        """End node and epmd."""
        self.node.stop()

    def url(self, vhost: str, port: int = 0) -> str:
        """Return the address of a virtual host, by default without anything in between."""
        where = f"127.0.0.1:{port or self.node.port}"
        return f"amqp://guest:guest@{where}/{quote(vhost, safe='')}?heartbeat={HEARTBEAT_S}"

    def add_vhost(self, name: str) -> None:
        """Make a virtual host that guest may use."""
        self._call(
            f'rabbit_vhost:add(<<"{name}">>, <<"guest">>), rabbit_auth_backend_internal:set_permissions(<<"guest">>, '
            f'<<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"guest">>)'
        )

    def delete_vhost(self, name: str) -> None:
        """Drop a virtual host with all its queues."""
        self._call(f'rabbit_vhost:delete(<<"{name}">>, <<"guest">>)')

    def queues(self, vhost: str) -> list[str]:
        """Return the names of all queues of a virtual host."""
        names = f'[element(4, N) || [{{name, N}}] <- rabbit_amqqueue:info_all(<<"{vhost}">>, [name])]'
        found = re.findall(r"#Bin<([0-9,]+)>", self._call(names))
        return sorted(bytes(map(int, numbers.split(","))).decode() for numbers in found)

    def _call(self, expression: str) -> str:
        """Evaluate an Erlang expression on the node: rabbitmqctl would take seconds to start each time."""
        node = self.node
        cookie = (node.folder / ".erlang.cookie").read_text().strip()
        program = shutil.which("erl_call") or next(map(str, Path("/usr/lib/erlang").rglob("erl_call")), None)
        if program is None:
            raise NotHere("Erlang's erl_call is not installed")
        done = subprocess.run(
            [program, "-timeout", "20", "-n", node._env["RABBITMQ_NODENAME"], "-c", cookie, "-e"],
            input=f"{expression}.\n",
            env=node._env,
            cwd=node.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode or not done.stdout.startswith("{ok,"):
            raise OSError(f"RabbitMQ did not do it: {done.stdout.strip()} {done.stderr.strip()}")
        return done.stdout


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


class _gone_is_fine:
    """Let a process be gone already."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> bool:
        return isinstance(exc, psutil.NoSuchProcess | ProcessLookupError)
