"""Schema migrations: plain SQL files, forward only, in order, each remembered with its checksum.

The suffix of a file says where it belongs: ``NNNN_name.sql`` everywhere, ``.native.sql`` where TimescaleDB is
absent, ``.timescale.sql`` on TimescaleDB under any licence, ``.timescale_community.sql`` only under its community
licence; the last kind stays pending elsewhere. All pending files are applied in one transaction, so a process that is
killed in the middle leaves nothing, and the next one begins anew.

A migration never waits long for a lock, because everybody else would queue up behind it: it gives up after
:data:`LOCK_WAIT_S`, lets the others through, and tries again for :data:`PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Literal

import asyncpg

from astrid.errors import StoreError
from astrid.store.address import describe
from astrid.store.pool import Connection, open_connection, translated
from astrid.store.queries import load_queries

Suffix = Literal["", "native", "timescale", "timescale_community"]

LOCK_WAIT_S: Final = 3.0
PATIENCE_S: Final = 60.0
TURN_S: Final = 600.0
"""So long another migration may take before the next one gives up."""

_SQL: Final = load_queries("migrate")
_FILE: Final = re.compile(r"^(\d{4}_[a-z0-9_]+)(?:\.(native|timescale|timescale_community))?\.sql$")
_OLDEST: Final = 15
_ORDER: Final = ("", "native", "timescale", "timescale_community")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name, where it belongs, and its text."""

    name: str
    suffix: Suffix
    text: str

    @property
    def sha256(self) -> str:
        """The checksum under which it is remembered."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration did: the database's flavour, the files applied now, and those pending for want of a licence."""

    flavour: str
    applied: tuple[str, ...]
    pending: tuple[str, ...]


def load_migrations() -> tuple[Migration, ...]:
    """Return the migration files in the order in which they are applied."""
    found = []
    for entry in files("astrid.store").joinpath("migrations").iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = _FILE.match(entry.name)
        if match is None:
            raise ValueError(f"migrations/{entry.name} is not named NNNN_name[.native|.timescale…].sql")
        suffix: Suffix = match.group(2) or ""  # type: ignore[assignment]  # the pattern allows these four only
        found.append(Migration(entry.name, suffix, entry.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda m: (m.name.split(".")[0], _ORDER.index(m.suffix))))


async def migrate(
    url: str,
    migrations: Sequence[Migration] | None = None,
    *,
    lock_wait_s: float = LOCK_WAIT_S,
    patience_s: float = PATIENCE_S,
    turn_s: float = TURN_S,
) -> Migrated:
    """Bring the database up to this code; safe to run twice, by several processes at once, and beside a night.

    Where nothing is to be done, nothing is locked.

    Raises
    ------
    StoreError
        If the server is older than PostgreSQL 15, the database does not fit this code (see :func:`check_version`), a
        lock was not to be had within ``patience_s``, or another migration did not end within ``turn_s``. Nothing was
        changed then.
    """
    ordered = load_migrations() if migrations is None else tuple(migrations)
    place = describe(url)
    began = time.monotonic()
    async with open_connection(url) as connection:
        with translated(place):
            if connection.get_server_version() < (15,):
                raise StoreError(
                    f"{place} is PostgreSQL {connection.get_server_version().major}: 15 or newer is needed"
                )
            async with connection.transaction(readonly=True):
                done = await _find_done(connection, place, ordered)
            pause_s = 0.1
            while done is None:
                waited_s = time.monotonic() - began
                try:
                    done = await _try_to_apply(connection, place, ordered, lock_wait_s)
                    if done is None and waited_s > turn_s:
                        raise StoreError(
                            f"{place} is being migrated by another process for more than {turn_s:.0f} s: "
                            "see what became of it, then run `astrid migrate` again"
                        )
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as exc:
                    if waited_s > patience_s:
                        raise StoreError(
                            f"{place} was not migrated, nothing was changed: other transactions held what it needs "
                            f"for more than {patience_s:.0f} s{await _name_holder(connection)}: let them end, or end "
                            "them, then run `astrid migrate` again"
                        ) from exc
                if done is None:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, 2.0)
    return done


async def _try_to_apply(
    connection: Connection, place: str, ordered: Sequence[Migration], lock_wait_s: float
) -> Migrated | None:
    """Apply all that is pending in one transaction; return None where another process is at it."""
    async with connection.transaction():
        if not await connection.fetchval(_SQL["lock"]):
            return None
        await connection.fetchval(_SQL["bound_waits"], f"{lock_wait_s * 1000:.0f}ms")
        # The notices of IF NOT EXISTS say nothing that matters here.
        await connection.execute("SET LOCAL client_min_messages = warning")
        await connection.execute(_SQL["create_record"])
        flavour = await _settle_flavour(connection)
        return await _apply(connection, place, ordered, flavour)


async def _find_done(connection: Connection, place: str, ordered: Sequence[Migration]) -> Migrated | None:
    """Return what a migration would say that has nothing to do, or None where there is something."""
    if not await connection.fetchval(_SQL["record_exists"]):
        return None
    flavour = await connection.fetchval(_SQL["read_flavour"])
    applied = await _read_applied(connection, place, ordered)
    wanted = await _wanted(connection, flavour)
    if flavour is None or any(m.suffix in wanted and m.name not in applied for m in ordered):
        return None
    return Migrated(flavour, (), _pending(ordered, flavour, applied))


async def _name_holder(connection: Connection) -> str:
    async with connection.transaction(readonly=True):
        row = await connection.fetchrow(_SQL["read_oldest_transaction"])
    if row is None:
        return ""
    named = f" of {row['application_name']!r}" if row["application_name"] else ""
    return f" (the oldest now: process {row['pid']}{named}, {row['state']}, open for {row['open_s']} s)"


async def check_version(url: str) -> None:
    """Pass where the database fits this code.

    Raises
    ------
    StoreError
        If it was never migrated, is behind, is ahead, holds a file that was changed since, or was migrated under a
        licence that its server no longer has.
    """
    place, known = describe(url), load_migrations()
    async with open_connection(url) as connection:
        with translated(place):
            async with connection.transaction(readonly=True):
                if not await connection.fetchval(_SQL["record_exists"]):
                    raise StoreError(f"{place} was never migrated: run `astrid migrate`")
                flavour = await connection.fetchval(_SQL["read_flavour"])
                applied = await _read_applied(connection, place, known)
    behind = [m.name for m in known if m.suffix in ("", flavour) and m.name not in applied]
    if behind:
        raise StoreError(f"{place} is behind this version, it lacks {', '.join(behind)}: run `astrid migrate`")


async def settle(url: str) -> None:
    """Set up a database that was never migrated, and pass where it fits this code.

    Only ``astrid migrate`` changes a database that is in use: a command that begins does not do so by the way.

    Raises
    ------
    StoreError
        As :func:`check_version` and, for a fresh database, :func:`migrate`.
    """
    async with open_connection(url) as connection:
        with translated(describe(url)):
            async with connection.transaction(readonly=True):
                fresh = not await connection.fetchval(_SQL["record_exists"])
    if fresh:
        await migrate(url)
    else:
        await check_version(url)


async def _settle_flavour(connection: Connection) -> str:
    flavour: str | None = await connection.fetchval(_SQL["read_flavour"])
    if flavour is None:
        flavour = "timescale" if await _has_timescale(connection) else "native"
        await connection.execute(_SQL["record_flavour"], flavour)
    return flavour


async def _has_timescale(connection: Connection) -> bool:
    if await connection.fetchval(_SQL["timescale_installed"]):
        return True
    if not await connection.fetchval(_SQL["timescale_offered"]):
        return False
    try:
        async with connection.transaction():
            await connection.execute(_SQL["create_timescale"])
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True


async def _wanted(connection: Connection, flavour: str | None) -> set[str | None]:
    """Return the suffixes of the files that belong into a database."""
    wanted = {"", flavour}
    if flavour == "timescale" and await connection.fetchval(_SQL["timescale_license"]) == "timescale":
        wanted.add("timescale_community")
    return wanted


def _pending(migrations: Sequence[Migration], flavour: str, applied: Container[str]) -> tuple[str, ...]:
    community = flavour == "timescale"
    return tuple(
        m.name for m in migrations if community and m.suffix == "timescale_community" and m.name not in applied
    )


async def _read_applied(connection: Connection, place: str, known: Sequence[Migration]) -> dict[str, str]:
    applied = {row["name"]: row["sha256"] for row in await connection.fetch(_SQL["read_applied"])}
    _refuse_foreign(place, known, applied)
    if any(m.name in applied and m.suffix == "timescale_community" for m in known):
        licence = await connection.fetchval(_SQL["timescale_license"])
        if licence != "timescale":
            # Such a server refuses writes, and worse: it passes over compressed rows without a word.
            raise StoreError(
                f"{place} was migrated under TimescaleDB's community licence, its server runs under {licence!r} now, "
                "where part of the data cannot be read: set timescaledb.license = 'timescale' there, if only until "
                "`astrid export` and `astrid import` have moved the data"
            )
    return applied


async def _apply(connection: Connection, place: str, migrations: Sequence[Migration], flavour: str) -> Migrated:
    applied = await _read_applied(connection, place, migrations)
    wanted = await _wanted(connection, flavour)
    done = []
    for migration in migrations:
        if migration.name not in applied and migration.suffix in wanted:
            await connection.execute(migration.text)
            await connection.execute(_SQL["record_applied"], migration.name, migration.sha256)
            done.append(migration.name)
    return Migrated(flavour, tuple(done), _pending(migrations, flavour, {*applied, *done}))


def _refuse_foreign(place: str, known: Sequence[Migration], applied: Mapping[str, str]) -> None:
    checksums = {m.name: m.sha256 for m in known}
    ahead = [name for name in applied if name not in checksums]
    if ahead:
        raise StoreError(
            f"{place} is ahead of this version of Astrid, it already has {', '.join(ahead)}: install a newer version"
        )
    changed = [name for name, checksum in applied.items() if checksums[name] != checksum]
    if changed:
        raise StoreError(
            f"{place} was migrated with another text of {', '.join(changed)}: applied files are never edited, "
            "put the file back and write a new one"
        )


async def read_schema(connection: Connection) -> str:
    """Return the schema of a native database as statements that would build it again (``schema.sql``)."""
    rows = await connection.fetch(_SQL["read_schema"])
    head = "-- Generated from the migrations; a test keeps it equal to them. Native flavour.\n\n"
    return head + "".join(f"{row['body']};\n" for row in rows)
