"""Schema migrations: plain SQL files, forward only, in order, each remembered with its checksum.

The suffix of a file says where it belongs: ``NNNN_name.sql`` everywhere, ``.native.sql`` where TimescaleDB is
absent, ``.timescale.sql`` on TimescaleDB under any licence, ``.timescale_community.sql`` only under its community
licence; the last kind stays pending elsewhere. All pending files are applied in one transaction.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Literal

import asyncpg

from astrid.errors import StoreError
from astrid.store.pool import Connection, describe, open_connection, translated
from astrid.store.queries import load_queries

Suffix = Literal["", "native", "timescale", "timescale_community"]

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


async def migrate(url: str, migrations: Sequence[Migration] | None = None) -> Migrated:
    """Bring the database up to this code; safe to run twice and by several processes at once.

    Raises
    ------
    StoreError
        If the server is older than PostgreSQL 15, the database is ahead of this code, or an applied file was changed.
    """
    ordered = load_migrations() if migrations is None else tuple(migrations)
    place = describe(url)
    async with open_connection(url) as connection:
        with translated(place):
            if connection.get_server_version() < (15,):
                raise StoreError(
                    f"{place} is PostgreSQL {connection.get_server_version().major}: 15 or newer is needed"
                )
            async with connection.transaction():
                await connection.execute(_SQL["lock"])
                # The notices of IF NOT EXISTS say nothing that matters here.
                await connection.execute("SET LOCAL client_min_messages = warning")
                await connection.execute(_SQL["create_record"])
                flavour = await _settle_flavour(connection)
                return await _apply(connection, place, ordered, flavour)


async def check_version(url: str) -> None:
    """Pass where the database fits this code.

    Raises
    ------
    StoreError
        If it was never migrated, is behind, is ahead, or holds a file that was changed since.
    """
    place = describe(url)
    async with open_connection(url) as connection:
        with translated(place):
            async with connection.transaction(readonly=True):
                if not await connection.fetchval(_SQL["record_exists"]):
                    raise StoreError(f"{place} was never migrated: run `astrid migrate`")
                flavour = await connection.fetchval(_SQL["read_flavour"])
                applied = {row["name"]: row["sha256"] for row in await connection.fetch(_SQL["read_applied"])}
    known = load_migrations()
    _refuse_foreign(place, known, applied)
    behind = [m.name for m in known if m.suffix in ("", flavour) and m.name not in applied]
    if behind:
        raise StoreError(f"{place} is behind this version, it lacks {', '.join(behind)}: run `astrid migrate`")


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


async def _apply(connection: Connection, place: str, migrations: Sequence[Migration], flavour: str) -> Migrated:
    applied = {row["name"]: row["sha256"] for row in await connection.fetch(_SQL["read_applied"])}
    _refuse_foreign(place, migrations, applied)
    wanted = {"", flavour}
    if flavour == "timescale" and await connection.fetchval(_SQL["timescale_license"]) == "timescale":
        wanted.add("timescale_community")
    done, pending = [], []
    for migration in migrations:
        if migration.name in applied:
            continue
        if migration.suffix in wanted:
            await connection.execute(migration.text)
            await connection.execute(_SQL["record_applied"], migration.name, migration.sha256)
            done.append(migration.name)
        elif migration.suffix == "timescale_community" and flavour == "timescale":
            pending.append(migration.name)
    return Migrated(flavour, tuple(done), tuple(pending))


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
