"""A RabbitMQ broker for tests: one that is there already, or a private node that is stopped at the end.

In this order: ``ASTRID_TEST_BROKER_URL``; a broker on localhost:5672 that lets guest in; a private node from
Debian's package; the package installed first, where that is allowed (root, and ``CI`` or ``ASTRID_TEST_INSTALL=1``);
else the tests that ask for it are skipped with the reason.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError

ROOT = Path(__file__).resolve().parent.parent
LOCAL_URL = "amqp://guest:guest@localhost:5672/"
SCRIPTS = (Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), Path("/opt/rabbitmq/sbin/rabbitmq-server"))
START_S = 60.0
STOP_S = 20.0


class NoRabbitmq(Exception):
    """No broker can be had here; the message says why, and it becomes the reason of the skip."""


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """Yield the URL of a broker that answers; see the module for where it comes from."""
    try:
        with open_rabbitmq() as url:
            yield url
    except NoRabbitmq as exc:
        pytest.skip(f"no RabbitMQ: {exc}")


@contextmanager
def open_rabbitmq() -> Iterator[str]:
    """Yield a broker's URL, and stop the broker afterwards if it was started here."""
    named = os.environ.get("ASTRID_TEST_BROKER_URL")
    if named:
        refusal = refuses(named)
        if refusal:  # named on purpose, so its silence is a failure and no skip
            raise ConnectionError(f"ASTRID_TEST_BROKER_URL does not answer: {refusal}")
        yield named
    elif not refuses(LOCAL_URL):
        yield LOCAL_URL
    else:
        with tempfile.TemporaryDirectory(prefix="rmq-") as folder:
            node = PrivateNode(Path(folder), find_script())
            try:
                node.start()
                yield node.url
            finally:
                node.stop()


def refuses(url: str) -> str:
    """Return why a broker does not let us in, or an empty string if it does."""
    reasons: list[str] = []

    async def connect() -> None:
        try:
            connection = await aio_pika.connect(url, timeout=3)
            await connection.close()
        except (OSError, AMQPError, TimeoutError) as exc:
            reasons.append(str(exc) or type(exc).__name__)

    # A thread of its own: the caller may be inside an event loop.
    thread = threading.Thread(target=lambda: asyncio.run(connect()))
    thread.start()
    thread.join()
    return "".join(reasons)


def find_script() -> Path:
    """Return the server's start script, installing Debian's package first where that is allowed."""
    found = _installed()
    if found:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoRabbitmq("nothing answers on localhost:5672, and rabbitmq-server is not installed (Debian: as root)")
    if not (os.environ.get("CI") or os.environ.get("ASTRID_TEST_INSTALL") == "1"):
        raise NoRabbitmq("rabbitmq-server is not installed; ASTRID_TEST_INSTALL=1 lets the tests install it")
    done = subprocess.run(
        ["sh", str(ROOT / "tools" / "apt.sh"), "rabbitmq-server"], capture_output=True, text=True, timeout=420
    )
    found = _installed()
    if done.returncode or not found:
        raise NoRabbitmq(f"apt-get could not install rabbitmq-server: {done.stderr.strip()[-200:]}")
    return found


def _installed() -> Path | None:
    return next((path for path in SCRIPTS if path.exists()), None)


@dataclass
class PrivateNode:
    """One RabbitMQ node with its own name, ports, data folder and epmd; it shares nothing with a node of the system.

    ``kill`` and ``start`` again keep the data, for tests of what a broker's death does. With ``certificates``, a folder
    of ``ca.crt``, ``server.crt`` and ``server.key``, it speaks TLS too.
    """

    folder: Path
    script: Path
    port: int = 0
    certificates: Path | None = None
    tls_port: int = 0
    _epmd: subprocess.Popen[bytes] | None = None
    _server: subprocess.Popen[bytes] | None = None
    _env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL for the node's default user, who may only come from this machine."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def tls_url(self, query: str = "", host: str = "localhost") -> str:
        """The URL of its TLS end."""
        return f"amqps://guest:guest@{host}:{self.tls_port}/{query and '?'}{query}"

    def control(self, *arguments: str) -> str:
        """Let ``rabbitmqctl`` do something with the node and return what it says."""
        done = subprocess.run(
            [str(self.script.with_name("rabbitmqctl")), "--quiet", *arguments],
            env=self._env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Start epmd and the node, and wait until the node lets a client in."""
        if not self._env:
            self._prepare()
        log = self.folder / "server.log"
        # Started in the foreground as our child: an epmd that Erlang starts itself would stay for ever.
        if self._epmd is None:
            self._epmd = self._spawn([str(self._epmd_program()), "-address", "127.0.0.1"], log)
        self._server = self._spawn([str(self.script)], log)
        deadline = time.monotonic() + START_S
        while reason := refuses(self.url):
            if self._server.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-600:]
                self.stop()
                raise NoRabbitmq(f"the private node did not start ({reason}): {tail}")
            # A node that boots offers nothing to wait on but its port.
            time.sleep(0.3)

    def kill(self) -> None:
        """End the node at once, as a crash would; its data stay."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def stop(self) -> None:
        """End the node and its epmd, and wait until both are gone."""
        for process in (self._server, self._epmd):
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._server = self._epmd = None

    def _prepare(self) -> None:
        self.port, dist_port, epmd_port, self.tls_port = _free_ports(4)
        config = self.folder / "rabbitmq.conf"
        # Little is written, so the default alarm at low disk space must not stop a test on a nearly full machine.
        config.write_text("disk_free_limit.absolute = 1MB\nnum_acceptors.tcp = 2\n" + self._tls())
        (self.folder / "empty.conf").touch()
        (self.folder / "plugins").write_text("[].\n")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        self._env = inherited | {
            "HOME": str(self.folder),  # the cookie goes here
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "LC_ALL": "C.UTF-8",
            "RABBITMQ_NODENAME": f"astrid-{os.getpid()}-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "empty.conf"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self.folder / "feature_flags"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # One scheduler that does not spin: the machine belongs to the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            # Makes the script become the node, so that our child's pid is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _tls(self) -> str:
        if self.certificates is None:
            return ""
        files = {"cacertfile": "ca.crt", "certfile": "server.crt", "keyfile": "server.key"}
        lines = [f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}", "num_acceptors.ssl = 2"]
        lines += [f"ssl_options.{option} = {self.certificates / name}" for option, name in files.items()]
        return "\n".join(lines) + "\n"

    def _epmd_program(self) -> Path:
        found = shutil.which("epmd") or next((str(p) for p in Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None)
        if found is None:
            raise NoRabbitmq("Erlang's epmd is not installed")
        return Path(found)

    def _spawn(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        # If the tests are killed, the kernel tells the node; without setpriv a kill -9 of the tests leaves it behind.
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        with log.open("ab") as output:
            return subprocess.Popen(
                command, env=self._env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago; held together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()
