"""Export and import as commands: what they print, what a killed one leaves, and the drill that docs/backup.md gives."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from astrid.models import Observations
from astrid.store import EmbeddedServer, migrate, open_embedded, open_store
from astrid.store.embedded import _find_install
from tests.demo_runs import ROOT
from tests.e2e.test_cli import ASTRID, run

NOW = datetime(2026, 4, 1, 5, tzinfo=UTC)
BACKUP = ROOT / "docs" / "backup.md"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """Return a server of this module's own."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    with open_embedded(folder, settings={"fsync": "off"}) as opened:
        yield opened
    shutil.rmtree(folder, ignore_errors=True)


def prepare(server: EmbeddedServer, name: str, rows: int = 0) -> str:
    """Make a database with two projects and some values and return its address."""
    return asyncio.run(_prepare(server, name, rows))


async def _prepare(server: EmbeddedServer, name: str, rows: int) -> str:
    admin = await asyncpg.connect(server.url("postgres"))
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    url = server.url(name)
    if rows:
        await migrate(url)
        async with open_store(url) as store:
            ids = await store.sync_watchlist([("a", "A", "x"), ("b", "B", "x")], NOW)
            day = NOW.date()
            found = [(ids["a"], 1, day.replace(month=1 + n % 3), float(n), 1) for n in range(rows)]
            await store.write_observations(Observations.from_rows(found), 1, NOW)
    return url


def environ_of(url: str, tmp_path: Path) -> dict[str, str]:
    return os.environ | {"ASTRID_STATE_DIR": str(tmp_path / "state"), "ASTRID_DATABASE_URL": url}


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_a_database_goes_out_and_comes_back(server: EmbeddedServer, tmp_path: Path, file_format: str) -> None:
    source = environ_of(prepare(server, "source", 3), tmp_path)
    target = environ_of(prepare(server, "target"), tmp_path)
    dump = str(tmp_path / "dump")
    code, out, said = run(source, "export", dump, "--format", file_format)
    assert code == 0, said
    assert re.search(r"^observation +3 rows$", out, re.MULTILINE), out
    assert re.search(rf"{re.escape(dump)}: \d+ rows of \d+ tables in \d+ files, \d\.\d MB, as of \d{{4}}-", out), out
    code, out, said = run(target, "import", dump, "--json")
    assert code == 0, said
    summary = json.loads(out)
    assert summary["tables"]["observation"] == 3
    assert summary["digest_compared"] is True
    one, other = [json.loads(run(environ, "digest", "--json")[1]) for environ in (source, target)]
    assert one == other == summary["digest"]
    code, _, said = run(target, "import", dump)
    assert code == 1
    assert "is not empty" in said
    assert len(said.strip().splitlines()) == 1, said
    code, _, said = run(source, "export", dump)
    assert code == 2
    assert "is not empty" in said


def test_bad_arguments_are_said_in_a_line(tmp_path: Path) -> None:
    environ = environ_of("postgresql://u:hidden-word@127.0.0.1:1/x", tmp_path)
    for arguments, words in (
        (["export", str(tmp_path / "new")], "127.0.0.1:1"),
        (["import", str(tmp_path / "none")], "is no folder"),
    ):
        code, _, said = run(environ, *arguments)
        assert code == 1, said
        assert words in said
        assert "hidden-word" not in said
        assert "Traceback" not in said
        assert len(said.strip().splitlines()) == 1, said
    assert not (tmp_path / "new").exists()
    assert run(environ, "export", str(tmp_path / "new"), "--format", "xml")[0] == 2


@contextmanager
def locked(runner: asyncio.Runner, url: str) -> Iterator[Callable[[], bool]]:
    """Hold a table that an export reads near its end; give what tells whether somebody waits for it."""
    holder = runner.run(asyncpg.connect(url))
    runner.run(holder.execute("BEGIN; LOCK TABLE run IN ACCESS EXCLUSIVE MODE"))
    waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
    yield lambda: bool(runner.run(holder.fetchval(waiting)))
    runner.run(holder.close())


@pytest.mark.parametrize(("sent", "code", "kept"), [(signal.SIGKILL, -9, 1), (signal.SIGINT, 130, 0)])
def test_an_export_that_is_ended_is_no_dump(
    server: EmbeddedServer, tmp_path: Path, sent: signal.Signals, code: int, kept: int
) -> None:
    url = prepare(server, "ended", 3)
    with asyncio.Runner() as runner, locked(runner, url) as is_awaited:
        process = subprocess.Popen(
            [*ASTRID, "export", str(tmp_path / "dump")],
            cwd=ROOT,
            env=environ_of(url, tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not is_awaited():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert not (tmp_path / "dump").exists()
    partial = list(tmp_path.glob("dump.partial-*"))
    assert len(partial) == kept
    for folder in partial:
        assert list(folder.rglob("*.parquet")), "it was ended in the middle"
        refused, _, said = run(environ_of(prepare(server, "target"), tmp_path), "import", str(folder))
        assert refused == 1
        assert "interrupted" in said
    # What stays of a killed one is in nobody's way.
    assert run(environ_of(url, tmp_path), "export", str(tmp_path / "dump"))[0] == 0


def test_no_room_for_a_file_is_said_and_nothing_stays(server: EmbeddedServer, tmp_path: Path) -> None:
    """The system lets the process write 512 bytes to a file, and no more."""
    environ = environ_of(prepare(server, "source", 3), tmp_path)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    done = subprocess.run(
        [*ASTRID, "export", str(tmp_path / "dump")],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be written (File too large)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("dump*"))


def test_the_restore_drill_of_the_documentation_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    """Its commands, as they stand there, against a server with a database ``astrid``."""
    url = prepare(server, "astrid", 3)
    text = BACKUP.read_text(encoding="utf-8")
    section = text.partition("## The drill")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    commands = [line.removeprefix("$ ").partition("  #")[0] for line in block.splitlines() if line.startswith("$ ")]
    assert [c.split()[1] for c in commands if c.startswith("astrid ")] == ["digest", "export", "import", "digest"]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "astrid").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m astrid "$@"\n')
    (programs / "astrid").chmod(0o755)
    environ = environ_of(url, tmp_path) | {
        "PATH": f"{programs}:{_find_install() / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGPASSWORD": server.password,
    }
    script = "set -eux\n" + "\n".join(commands)
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "after.json").read_text())["observation"]["rows"] == 3
