"""TLS to a real server with certificates of its own: what holds, and what a user reads where it does not."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from astrid.errors import AstridError, ConfigError, StoreError
from astrid.store import open_embedded
from astrid.store.embedded import _owner
from astrid.store.pool import open_connection, open_pool
from tests.pgbouncer import NoPgbouncer, find_program, open_pgbouncer
from tests.store.conftest import DEBIAN, Server

PASSWORD = "geheim"
HBA = """\
host all postgres 127.0.0.1/32 scram-sha-256
hostssl all careful 127.0.0.1/32 scram-sha-256
hostssl all carded 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
"""


@dataclass(frozen=True)
class TlsServer:
    """A server that speaks TLS: its port, its superuser's password, and the folder of the certificates."""

    port: int
    password: str
    folder: Path

    def url(self, query: str, *, user: str = "careful", host: str = "localhost") -> str:
        """Return an address with these parameters; ``{ca}`` and the like stand for the files."""
        files = {name: self.folder / f"{name}.crt" for name in ("ca", "stranger", "client")}
        return f"postgresql://{user}:{PASSWORD}@{host}:{self.port}/astrid?" + query.format(
            **files, key=self.folder / "client.key", empty=self.folder / "empty.crt"
        )


@pytest.fixture(scope="module")
def tls_server() -> Iterator[TlsServer]:
    """Return a server whose certificate names localhost alone and is signed by ``ca.crt``."""
    if DEBIAN is None or shutil.which("openssl") is None:
        pytest.skip("no PostgreSQL under /usr/lib/postgresql, or no openssl to make certificates with")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="tls-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        make_certificates(folder)
        (folder / "hba.conf").write_text(HBA)
        data = folder / "d"
        data.mkdir(mode=0o755)
        uid, gid = _owner(data)
        if uid is not None and gid is not None:
            for path in folder.glob("*.*"):
                os.chown(path, uid, gid)
        settings = {
            "ssl": "on",
            "ssl_cert_file": str(folder / "server.crt"),
            "ssl_key_file": str(folder / "server.key"),
            "ssl_ca_file": str(folder / "ca.crt"),
            "hba_file": str(folder / "hba.conf"),
            "fsync": "off",
        }
        server = stack.enter_context(open_embedded(data, install=DEBIAN.parent.parent, settings=settings))
        asyncio.run(make_users(server.url()))
        yield TlsServer(server.port, server.password, folder)


async def make_users(url: str) -> None:
    connection = await asyncpg.connect(url)
    for name in ("careful", "carded"):
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    await connection.close()


def make_certificates(folder: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "stranger"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip
    (folder / "names.conf").write_text("subjectAltName=DNS:localhost\n")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "names.conf", "-out", f"{name}.crt")  # fmt: skip
        (folder / f"{name}.key").chmod(0o600)
    (folder / "empty.crt").write_text("no certificate\n")


async def is_encrypted(url: str) -> bool:
    async with open_connection(url) as connection, connection.transaction():
        return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))


async def refusal(url: str) -> AstridError:
    """Return the error of a connection and of a pool, after checking that they are one and hold no password."""
    said = []
    for opener in (open_connection(url), open_pool(url, size=2)):
        with pytest.raises(AstridError) as caught:
            async with opener:
                pass
        said.append(caught.value)
        assert PASSWORD not in str(caught.value)
    assert type(said[0]) is type(said[1])
    assert str(said[0]) == str(said[1])
    return said[0]


@pytest.mark.parametrize(
    ("query", "host"),
    [
        ("sslmode=require", "127.0.0.1"),
        ("sslmode=require&sslrootcert={ca}", "127.0.0.1"),
        ("sslmode=verify-ca&sslrootcert={ca}", "127.0.0.1"),
        ("sslmode=verify-full&sslrootcert={ca}", "localhost"),
        ("sslmode=require&channel_binding=prefer", "127.0.0.1"),
        ("sslmode=require&channel_binding=require&sslrootcert={ca}", "localhost"),
        ("sslrootcert={ca}&channel_binding=require&connect_timeout=10&keepalives=1&application_name=a", "localhost"),
    ],
)
async def test_what_holds(tls_server: TlsServer, query: str, host: str) -> None:
    assert await is_encrypted(tls_server.url(query, host=host))


@pytest.mark.parametrize("query", ["sslmode=verify-full&sslrootcert={stranger}", "sslmode=require&sslrootcert=system",
                                   "sslmode=verify-ca&sslrootcert={stranger}", "sslmode=verify-full",
                                   "sslmode=require&channel_binding=require", "channel_binding=require"])  # fmt: skip
async def test_a_root_that_is_not_trusted(tls_server: TlsServer, query: str) -> None:
    error = await refusal(tls_server.url(query))
    assert isinstance(error, StoreError)
    assert f"on localhost:{tls_server.port} shows a certificate that is not trusted" in str(error)
    assert "as sslrootcert in ASTRID_DATABASE_URL" in str(error)


@pytest.mark.parametrize("query", ["sslmode=verify-full&sslrootcert={ca}",
                                   "sslmode=require&channel_binding=require&sslrootcert={ca}"])  # fmt: skip
async def test_a_certificate_of_another_name(tls_server: TlsServer, query: str) -> None:
    error = await refusal(tls_server.url(query, host="127.0.0.1"))
    assert isinstance(error, StoreError)
    assert "shows a certificate of another name" in str(error)
    assert "127.0.0.1" in str(error)


async def test_the_roots_of_the_system(tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hosted database's console gives to copy works where the system trusts the server's root."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.folder / "ca.crt"))
    for query in ("sslmode=require&channel_binding=require", "sslmode=verify-full", "sslrootcert=system"):
        assert await is_encrypted(tls_server.url(query))
        error = await refusal(tls_server.url(query, host="127.0.0.1"))
        assert "certificate of another name" in str(error), query
    error = await refusal(tls_server.url("sslmode=verify-ca", host="127.0.0.1"))
    assert "certificate of another name" in str(error), "the system's roots vouch for everybody"


async def test_a_root_in_the_users_folder(
    tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".postgresql").mkdir()
    shutil.copy(tls_server.folder / "ca.crt", tmp_path / ".postgresql" / "root.crt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await is_encrypted(tls_server.url("sslmode=verify-full"))
    assert "another name" in str(await refusal(tls_server.url("channel_binding=require", host="127.0.0.1")))


async def test_a_server_that_asks_for_tls(tls_server: TlsServer) -> None:
    error = await refusal(tls_server.url("sslmode=disable"))
    assert isinstance(error, StoreError)
    assert "asks for TLS: add sslmode=verify-full" in str(error)


async def test_a_client_certificate(tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    card = "&sslcert={client}&sslkey={key}"
    assert await is_encrypted(tls_server.url("sslmode=verify-full&sslrootcert={ca}" + card, user="carded"))
    assert "valid client certificate" in str(await refusal(tls_server.url("sslmode=require", user="carded")))
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.folder / "ca.crt"))
    assert await is_encrypted(tls_server.url("sslmode=verify-full" + card, user="carded"))


async def test_a_server_without_tls(embedded_server: Server, tls_server: TlsServer) -> None:
    bare = embedded_server.admin_url.split("?")[0].replace("127.0.0.1", "localhost")
    for query in ("sslmode=require", f"sslmode=verify-full&sslrootcert={tls_server.folder / 'ca.crt'}"):
        error = await refusal(f"{bare}?{query}")
        assert isinstance(error, StoreError)
        assert "does not speak TLS" in str(error)
        assert "sslmode=disable" in str(error)
    assert not await is_encrypted(f"{bare}?sslmode=prefer")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sslmode=verify-full&sslrootcert=/no/such/root.crt", r"sslrootcert .* names /no/such/root\.crt"),
        ("sslmode=verify-full&sslcert=/no/such/card.crt", r"sslcert .* names /no/such/card\.crt"),
        ("sslmode=strict", "sslmode .* must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslmode=disable&channel_binding=require", "exclude each other"),
        ("channel_binding=perhaps", "must be disable, prefer or require"),
        ("ssl=true", "ssl in ASTRID_DATABASE_URL is not understood"),
        ("require_auth=scram-sha-256", "require_auth in ASTRID_DATABASE_URL is not understood"),
        ("gssencmode=require", "gssencmode in ASTRID_DATABASE_URL is not understood"),
        ("sslmode=require&pgbouncer=true", 'parameter "pgbouncer"'),
        ("sslmode=require&wal_level=logical", 'parameter "wal_level"'),
        ("sslmode=require&work_mem=lots", '"work_mem"'),
        ("sslmode=require&sslnegotiation=maybe", "cannot be read"),
        ("sslmode", "a parameter without a value"),
        ("connect_timeout=soon", "connect_timeout"),
    ],
)
async def test_what_cannot_be_meant(tls_server: TlsServer, query: str, said: str) -> None:
    error = await refusal(tls_server.url(query))
    assert isinstance(error, ConfigError)
    with pytest.raises(ConfigError, match=said):
        raise error


async def test_a_root_file_that_holds_none(tls_server: TlsServer) -> None:
    error = await refusal(tls_server.url("sslmode=verify-full&sslrootcert={empty}"))
    assert "certificate" in str(error).lower()


async def test_tls_to_a_pooler(tls_server: TlsServer) -> None:
    try:
        program = find_program()
    except NoPgbouncer as exc:
        pytest.skip(str(exc))
    shown = tls_server.folder
    settings = f"client_tls_sslmode = require\nclient_tls_cert_file = {shown}/server.crt\n"
    own = shown / "pooler.key"
    shutil.copy(shown / "server.key", own)
    if os.geteuid() == 0:
        own.chmod(0o644)
    settings += f"client_tls_key_file = {own}\n"
    server = f"postgresql://postgres:{tls_server.password}@127.0.0.1:{tls_server.port}/astrid"
    with open_pgbouncer(program, server, pool_size=2, settings=settings) as url:
        named = url.replace("127.0.0.1", "localhost")
        async with open_pool(f"{named}?sslmode=verify-full&sslrootcert={shown}/ca.crt", size=2) as pool:
            assert await pool.fetchval("SELECT 1") == 1
        assert "not trusted" in str(await refusal(f"{named}?sslmode=verify-full&sslrootcert={shown}/stranger.crt"))
        assert "takes no parameter work_mem" in str(await refusal(f"{named}?sslmode=require&work_mem=5MB"))
