"""The brokers that the contract tests are run against."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.broker_bench import Bench, open_bench
from tests.rabbitmq import NoRabbitmq, PrivateNode, find_script


@pytest.fixture(autouse=True)
def unsettled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no new queue to settle, which each test has, but where ``settles`` is asked for."""
    if "settles" not in request.fixturenames:
        monkeypatch.setattr("astrid.broker.rabbitmq.link.SETTLE_S", 0.0)


@pytest.fixture
def settles() -> None:
    """Ask for queues that outlive a kill."""


@pytest.fixture(params=["memory", "rabbitmq"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Give each broker in turn."""
    url = request.getfixturevalue("rabbitmq_url") if request.param == "rabbitmq" else ""
    async with open_bench(url) as found:
        yield found


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> AsyncIterator[Bench]:
    """Give RabbitMQ alone."""
    async with open_bench(rabbitmq_url) as found:
        yield found


@pytest.fixture(scope="session")
def own_node() -> Iterator[PrivateNode]:
    """Give a RabbitMQ that no other test process uses, which speaks TLS too: to kill, to fill, to empty."""
    with tempfile.TemporaryDirectory(prefix="rmq-") as folder:
        try:
            node = PrivateNode(Path(folder), find_script())
            if shutil.which("openssl"):
                node.certificates = make_certificates(Path(folder) / "certificates")
            node.start()
        except NoRabbitmq as exc:
            pytest.skip(f"no RabbitMQ of its own: {exc}")
        try:
            yield node
        finally:
            node.stop()


def make_certificates(folder: Path) -> Path:
    """Make an authority, a server's certificate for localhost signed by it, and an authority that signed nothing."""
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    for name in ("ca", "stranger"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key",
            "-out", "server.csr")  # fmt: skip
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", "server.crt")  # fmt: skip
    return folder


@pytest.fixture
async def own(own_node: PrivateNode) -> AsyncIterator[Bench]:
    """Give a bench on the test's own RabbitMQ, with no dead letters."""
    async with open_bench(own_node.url) as found:
        await found.broker.publish([found.batch(0)])  # makes the dead-letter queue
        await found.broker.purge([found.source])
        own_node.control("purge_queue", "astrid.dead")
        yield found
