"""The whole database as one moment shows it, into a folder that appears when it is complete."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np

from astrid.errors import ConfigError, StoreError
from astrid.store import digests
from astrid.store.address import describe
from astrid.store.copy import Layout
from astrid.store.dumps.files import COPY_FORMAT, SUFFIX, Format, Sink, Written, open_sink, writing
from astrid.store.dumps.manifest import FORMAT, NAME, ColumnFacts, Digest, File, Manifest, TableFacts, render_manifest
from astrid.store.dumps.readme import render_texts
from astrid.store.dumps.tables import BY_MONTH, LEFT_OUT, PRIVATE, SQL, Table, read_tables, table_names
from astrid.store.migrate import check_version
from astrid.store.pool import Connection, open_pool, reading
from astrid.store.queries import load_queries
from astrid.store.transfer import affected, select_columns

Watch = Callable[[str, int], None]
"""Is told the name and the rows of each table when it is done."""

_MIGRATE: Final = load_queries("migrate")
_DAYS: Final = Layout(day="date", rows="int8")
_PIECE_BYTES: Final = 4 << 20
_EPOCH: Final = np.datetime64("2000-01-01", "D")
_INFINITY: Final = 2**31 - 1


async def export_database(
    url: str,
    folder: Path,
    *,
    file_format: Format = "parquet",
    public: bool = False,
    code_version: str,
    watch: Watch = lambda name, rows: None,
) -> Manifest:
    """Write every table into ``folder``, which must be new or empty, and return the manifest.

    Everything is read in one transaction, so the files show one moment; writers are not held up. The files are made in
    a folder beside it, ``NAME.partial-…``, which takes the name when all are on the disk: an export that was
    interrupted leaves no ``folder``. ``public`` leaves out what is the operator's own.

    Raises
    ------
    ConfigError
        If ``folder`` holds something or cannot be made.
    StoreError
        If the database is not of this version, refuses, or a file cannot be written; nothing is kept then.
    """
    await check_version(url)
    folder = _check_target(folder)
    left_out = LEFT_OUT | (PRIVATE if public else {})
    partial = folder.with_name(f"{folder.name}.partial-{uuid4().hex[:8]}")
    with writing(partial):
        partial.mkdir()
    try:
        async with open_pool(url, size=1) as pool, reading(pool, describe(url), snapshot=True) as connection:
            manifest, tables = await _write_tables(connection, partial, file_format, left_out, code_version, watch)
        for name, text in render_texts(manifest, tables).items():
            _write_text(partial / name, text.encode())
        _write_text(partial / NAME, render_manifest(manifest))
        await asyncio.to_thread(_finish, partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


async def _write_tables(
    connection: Connection,
    partial: Path,
    file_format: Format,
    left_out: Mapping[str, str],
    code_version: str,
    watch: Watch,
) -> tuple[Manifest, list[Table]]:
    await connection.execute(SQL["settings"])
    moment = await connection.fetchval(SQL["moment"])
    migrations = {row["name"]: row["sha256"] for row in await connection.fetch(_MIGRATE["read_applied"])}
    tables = await read_tables(connection, set(table_names()) - set(left_out), numbered=True)
    facts = {}
    for table in sorted(tables, key=lambda t: t.name):
        written = await _write_table(connection, partial, table, file_format)
        facts[table.name] = TableFacts(
            rows=sum(file.rows for file in written),
            columns=tuple(ColumnFacts(name=c.name, type=c.type, nullable=c.nullable) for c in table.columns),
            key=table.key,
            next_ids=dict(table.next_ids),
            files=tuple(written),
        )
        watch(table.name, facts[table.name].rows)
    manifest = Manifest(
        format=FORMAT,
        files=file_format,
        moment=moment,
        code_version=code_version,
        flavour=await connection.fetchval(_MIGRATE["read_flavour"]),
        server=await connection.fetchval(SQL["server"]),
        migrations=migrations,
        left_out=dict(left_out),
        tables=facts,
        digest={name: Digest(rows=d.rows, sha256=d.sha256) for name, d in (await digests.digest(connection)).items()},
    )
    return manifest, tables


async def _write_table(connection: Connection, partial: Path, table: Table, file_format: Format) -> list[File]:
    suffix = SUFFIX[file_format]
    if table.name not in BY_MONTH:
        path = f"{table.name}.{suffix}"
        return [_file(path, await _write_file(connection, partial / path, table, table.select, file_format))]
    assert table.select_month is not None, f"{table.name} has no day to be divided by"
    files = []
    for month, first, last in await _read_months(connection, table):
        path = f"table={table.name}/month={month}/part-0.{suffix}"
        statement = await connection.fetchval(SQL["write_statement"], table.select_month, first, last)
        written = await _write_file(connection, partial / path, table, statement, file_format)
        files.append(_file(path, written, first, last))
    return files


def _file(path: str, written: Written, first_day: str | None = None, last_day: str | None = None) -> File:
    return File(path=path, **asdict(written), first_day=first_day, last_day=last_day)


async def _read_months(connection: Connection, table: Table) -> list[tuple[str, str, str]]:
    """Return name, first and last day of each month that has rows, in order, as PostgreSQL writes days."""
    assert table.select_days is not None
    days = (await select_columns(connection, _DAYS, table.select_days))["day"]
    number = (days - _EPOCH).astype(np.int64)
    found = [("-infinity",) * 3] if bool(np.any(number == -_INFINITY - 1)) else []
    for month in np.unique(days[np.abs(number) < _INFINITY].astype("datetime64[M]")):
        last = (month + 1).astype("datetime64[D]") - 1
        found.append((str(month), _spell(month.astype("datetime64[D]")), _spell(last)))
    return found + ([("infinity",) * 3] if bool(np.any(number == _INFINITY)) else [])


def _spell(day: np.datetime64) -> str:
    """Write a day as PostgreSQL reads it: there is no year 0, the one before 1 is 1 BC."""
    text = str(day)
    year, month, date = text[:-6], text[-5:-3], text[-2:]
    return f"{int(year):04}-{month}-{date}" if int(year) > 0 else f"{1 - int(year):04}-{month}-{date} BC"


async def _write_file(connection: Connection, path: Path, table: Table, statement: str, file_format: Format) -> Written:
    async with _fed(open_sink(path, table, file_format)) as feed:
        status = await connection.copy_from_query(statement, output=feed.take, format=COPY_FORMAT[file_format])
        return await feed.finish(affected(status))


class _Feed:
    """Hands a stream to a sink in a thread, a piece at a time, while the next piece comes in."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting = bytearray()
        self._job: asyncio.Task[None] | None = None

    async def take(self, data: bytes) -> None:
        """Take what the driver read; it reads on when this returns."""
        self._waiting += data
        if len(self._waiting) >= _PIECE_BYTES:
            await self._hand_on()

    async def finish(self, rows: int) -> Written:
        """Write the rest and close the file."""
        await self._hand_on()
        await self.settle()
        return await asyncio.to_thread(self._sink.close, rows)

    async def settle(self) -> None:
        """Wait for the thread, also when we are cancelled: what it works on must not be taken away from it."""
        job, self._job = self._job, None
        if job is None:
            return
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])
            raise

    async def _hand_on(self) -> None:
        await self.settle()
        if self._waiting:
            piece, self._waiting = self._waiting, bytearray()
            self._job = asyncio.create_task(asyncio.to_thread(self._sink.write, piece))


@asynccontextmanager
async def _fed(sink: Sink) -> AsyncGenerator[_Feed]:
    feed = _Feed(sink)
    try:
        yield feed
    finally:
        with suppress(StoreError):
            await feed.settle()
        sink.abandon()


def _check_target(folder: Path) -> Path:
    """Return the folder's full path; refuse one that holds something, before anything is read."""
    folder = Path(os.path.abspath(folder.expanduser()))
    advice = "name a folder that does not exist yet, or an empty one"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ConfigError(f"{folder} is no folder: {advice}")
        if os.path.ismount(folder):
            raise ConfigError(
                f"{folder} is a mount point, which no finished folder can take the place of: name one in it"
            )
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: {advice}")
    except OSError as exc:
        raise ConfigError(f"{folder} cannot be used ({exc.strerror}): {advice}") from exc
    return folder


def _write_text(path: Path, text: bytes) -> None:
    with writing(path), path.open("xb") as file:
        file.write(text)


def _finish(partial: Path, folder: Path) -> None:
    """Give the finished folder its name, with everything that it holds safe on the disk."""
    for inner, _, names in os.walk(partial):
        for name in (*names, ""):
            with writing(Path(inner, name)):
                _settle(Path(inner, name))
    with writing(folder):
        os.rename(partial, folder)
        _settle(folder.parent)


def _settle(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
