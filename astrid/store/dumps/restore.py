"""A dump back into a database: checked before, loaded in one transaction, compared after."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astrid import __version__
from astrid.errors import StoreError
from astrid.store import digests
from astrid.store.address import describe
from astrid.store.dumps.export import Watch
from astrid.store.dumps.files import COPY_FORMAT, check_file, read_pieces
from astrid.store.dumps.manifest import File, Manifest, TableFacts, check_level, level, read_manifest, stem
from astrid.store.dumps.tables import SQL, Table, read_tables, table_names
from astrid.store.migrate import Migration, load_migrations, migrate
from astrid.store.pool import Connection, Pool, open_pool, reading, writing
from astrid.store.queries import load_queries
from astrid.store.transfer import affected

_MIGRATE: Final = load_queries("migrate")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: the dump's manifest, and whether its digest was compared.

    It is not where the dump is of another version, which may digest otherwise; the rows were compared in any case.
    """

    manifest: Manifest
    digest_compared: bool


async def import_database(url: str, folder: Path, *, watch: Watch = lambda name, rows: None) -> Restored:
    """Restore the dump in ``folder`` into an empty database.

    The database may be new, or migrated and empty, of any flavour. A dump of an older schema goes into one that was
    never migrated, or no further than the dump: that is brought to the dump's schema, filled, and then brought up.
    Every row is loaded in one transaction, read back and compared before it is committed.

    Raises
    ------
    StoreError
        If the dump is damaged, incomplete or of a newer version, or the database holds rows, is ahead of the dump, or
        refuses; no row is restored then.
    """
    folder, manifest = await asyncio.to_thread(_open_dump, folder)
    known = load_migrations()
    steps, every = check_level(manifest, known, folder), level([m.name for m in known], known)
    place = describe(url)
    async with open_pool(url, size=1) as pool:
        await _check_database(pool, place, folder, manifest, known, steps)
        await asyncio.to_thread(_check_files, manifest, folder)
        await migrate(url, known if steps == every else [m for m in known if stem(m.name) <= steps[-1]])
        compared = steps == every and manifest.code_version.split("+")[0] == __version__
        await writing(pool, place, lambda c: _load(c, manifest, folder, place, watch, compared))
    await migrate(url)
    return Restored(manifest, compared)


def _open_dump(folder: Path) -> tuple[Path, Manifest]:
    folder = folder.expanduser().absolute()
    return folder, read_manifest(folder)


async def _check_database(
    pool: Pool, place: str, folder: Path, manifest: Manifest, known: Sequence[Migration], steps: Sequence[str]
) -> None:
    """Refuse a database that holds rows or is ahead of the dump; this changes nothing."""
    async with reading(pool, place) as connection:
        if not await connection.fetchval(_MIGRATE["record_exists"]):
            return
        applied = [row["name"] for row in await connection.fetch(_MIGRATE["read_applied"])]
        for table in await read_tables(connection, set(manifest.tables) & set(table_names())):
            await _refuse_rows(connection, table, place)
    ahead = [step for step in level(applied, known) if step not in steps]
    if ahead:
        raise StoreError(
            f"{folder} is of an older schema than {place}, which already has {', '.join(ahead)}: "
            "import into a database that was never migrated, which is then brought up"
        )


def _check_files(manifest: Manifest, folder: Path) -> None:
    """Hold every file against the manifest before any of them is loaded."""
    for table in manifest.tables.values():
        for file in table.files:
            check_file(folder / file.path, file, manifest.files)


async def _load(
    connection: Connection, manifest: Manifest, folder: Path, place: str, watch: Watch, compared: bool
) -> None:
    """Fill the tables; runs inside the caller's transaction, which a refusal takes back."""
    await connection.execute(SQL["settings"])
    for table in sorted(await read_tables(connection, set(manifest.tables) & set(table_names())), key=lambda t: t.name):
        # Readers may go on; whoever would write, migrate, or import too, waits and then finds rows.
        await connection.execute(table.lock)
    tables = _match_tables(await read_tables(connection, table_names()), manifest, folder, place)
    for table in tables:
        await _refuse_rows(connection, table, place)
    for table in tables:
        facts = manifest.tables[table.name]
        for file in facts.files:
            await _load_file(connection, table, folder / file.path, file, manifest)
        await _restart_ids(connection, table, facts)
        await connection.execute(table.analyze)
        for file in facts.files:
            await _compare(connection, table, file, manifest, folder / file.path)
        watch(table.name, facts.rows)
    if compared:
        await _compare_digest(connection, manifest, folder)


def _match_tables(tables: list[Table], manifest: Manifest, folder: Path, place: str) -> list[Table]:
    """Return the tables that the dump fills; refuse one whose tables or columns are not the database's."""
    there = {table.name: table for table in tables}
    missing = sorted(manifest.tables.keys() - there.keys())
    if missing:
        raise StoreError(f"{folder} has tables that {place} does not know: {', '.join(missing)}; take another dump")
    silent = sorted(there.keys() - manifest.tables.keys() - manifest.left_out.keys())
    if silent:
        raise StoreError(f"{folder} does not say what becomes of {', '.join(silent)}: its manifest is damaged")
    for name, facts in manifest.tables.items():
        stated = [(c.name, c.type, c.nullable) for c in facts.columns]
        found = [(c.name, c.type, c.nullable) for c in there[name].columns]
        if stated != found or facts.key != there[name].key:
            raise StoreError(
                f"table {name} of {folder} has other columns than that of {place}: its manifest is damaged"
            )
    return [table for table in tables if table.name in manifest.tables]


async def _refuse_rows(connection: Connection, table: Table, place: str) -> None:
    if await connection.fetchval(table.has_rows):
        raise StoreError(
            f"{place} is not empty, it has rows in {table.name}: import into a new database, for nothing is merged"
        )


async def _load_file(connection: Connection, table: Table, path: Path, file: File, manifest: Manifest) -> None:
    async with aclosing(_ahead(read_pieces(path, table, manifest.files))) as source:
        status = await connection.copy_to_table(
            table.name,
            source=source,
            columns=[column.name for column in table.columns],
            format=COPY_FORMAT[manifest.files],
        )
    if affected(status) != file.rows:
        raise StoreError(f"{path} holds {affected(status)} rows, the manifest says {file.rows}: take another copy")


async def _ahead(pieces: Generator[bytes]) -> AsyncGenerator[bytes]:
    """Yield the pieces; a thread makes the next one while the driver sends the last."""
    job = asyncio.create_task(asyncio.to_thread(next, pieces, None))
    try:
        while (piece := await asyncio.shield(job)) is not None:
            job = asyncio.create_task(asyncio.to_thread(next, pieces, None))
            yield piece
    finally:
        # The thread must be done with the file before anybody else takes it.
        with suppress(StoreError):
            await job
        pieces.close()


async def _restart_ids(connection: Connection, table: Table, facts: TableFacts) -> None:
    """Let the numbers of identity columns go on where the exported database would have."""
    for column, (largest, restart) in table.restarts.items():
        following = max(facts.next_ids.get(column, 1), (await connection.fetchval(largest) or 0) + 1)
        await connection.execute(f"{restart}{following}")


async def _compare(connection: Connection, table: Table, file: File, manifest: Manifest, path: Path) -> None:
    """Read back what a file was loaded as; it must be, byte by byte, the stream that the file was made of."""
    statement = table.select
    if file.first_day is not None:
        statement = await connection.fetchval(SQL["write_statement"], table.select_month, file.first_day, file.last_day)
    hasher = hashlib.sha256()

    async def take(data: bytes) -> None:
        hasher.update(data)

    await connection.copy_from_query(statement, output=take, format=COPY_FORMAT[manifest.files])
    if hasher.hexdigest() != file.content_sha256:
        raise StoreError(
            f"the rows of {path} read back from the database differ from those that were exported: nothing was "
            "restored; take another copy of the dump, and see that the database's encoding is UTF8"
        )


async def _compare_digest(connection: Connection, manifest: Manifest, folder: Path) -> None:
    found = await digests.digest(connection)
    stated = {name: (digest.rows, digest.sha256) for name, digest in manifest.digest.items()}
    differing = [n for n, d in found.items() if stated.get(n) != (d.rows, d.sha256)] + sorted(
        stated.keys() - found.keys()
    )
    if differing:
        raise StoreError(
            f"the digest of {', '.join(differing)} is another than the manifest of {folder} states: nothing was "
            "restored; take another copy of the dump"
        )
