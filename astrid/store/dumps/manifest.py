"""``manifest.json``: what a dump holds, by which a restore is checked; written last, so what has one is whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from astrid.errors import StoreError
from astrid.store.migrate import Migration

FORMAT: Final = 1
"""The version of the form of a dump; a higher one is refused."""
NAME: Final = "manifest.json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError("must be a path inside the dump")
    return path


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Part):
    """One file of a table: ``sha256`` of the file, ``content_sha256`` of what COPY gave when it was written."""

    path: Annotated[str, AfterValidator(_inside)]
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    content_sha256: Sha256
    first_day: str | None = None
    last_day: str | None = None


class ColumnFacts(_Part):
    """A column as PostgreSQL names and types it."""

    name: str
    type: str
    nullable: bool


class TableFacts(_Part):
    """A table: its columns in order, its key, the next number of each identity column, and its files."""

    rows: NonNegativeInt
    columns: tuple[ColumnFacts, ...]
    key: tuple[str, ...]
    next_ids: dict[str, int]
    files: tuple[File, ...]


class Digest(_Part):
    """What ``astrid digest`` says of a table."""

    rows: NonNegativeInt
    sha256: Sha256


class Manifest(_Part):
    """The whole of it; ``moment`` is the one that the dump shows, by the database's clock."""

    format: int
    files: Literal["parquet", "csv"]
    moment: AwareDatetime
    code_version: str
    flavour: str
    server: str
    migrations: dict[str, Sha256]
    left_out: dict[str, str]
    tables: dict[str, TableFacts]
    digest: dict[str, Digest]

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def bytes(self) -> int:
        """The bytes of all files of tables."""
        return sum(file.bytes for table in self.tables.values() for file in table.files)

    @property
    def file_count(self) -> int:
        """How many files of tables there are."""
        return sum(len(table.files) for table in self.tables.values())


def render_manifest(manifest: Manifest) -> bytes:
    """Return the text of the file."""
    return orjson.dumps(manifest.model_dump(mode="json", exclude_none=True), option=orjson.OPT_INDENT_2) + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a dump and check its form.

    Raises
    ------
    StoreError
        If there is none, it cannot be read, was altered, or is of a newer form than this version knows.
    """
    path = folder / NAME
    try:
        if not folder.is_dir():
            raise StoreError(f"{folder} is no folder: name the folder that `astrid export` wrote")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(
            f"{folder} holds no {NAME}, which an export writes last: this is no dump, or one that was interrupted; "
            "take another"
        ) from None
    except OSError as exc:
        raise StoreError(f"{path} cannot be read ({exc.strerror}): correct its rights or the path") from exc
    broken = f"{path} is damaged"
    try:
        facts = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise StoreError(f"{broken}: it is no JSON ({exc}); take another copy of the dump") from exc
    stated = facts.get("format") if isinstance(facts, dict) else None
    if not isinstance(stated, int) or isinstance(stated, bool):
        raise StoreError(f"{broken}: it states no format; take another copy of the dump")
    if stated > FORMAT:
        wrote = facts.get("code_version", "of unknown number")
        raise StoreError(
            f"{path} is of format {stated}, this version of Astrid knows {FORMAT}: "
            f"install the version that wrote it ({wrote}) or a later one"
        )
    try:
        manifest = Manifest.model_validate(facts)
    except ValidationError as exc:
        where = ".".join(str(part) for part in exc.errors()[0]["loc"])
        raise StoreError(f"{broken} at {where} ({exc.errors()[0]['msg']}); take another copy of the dump") from exc
    for name, table in manifest.tables.items():
        if table.rows != sum(file.rows for file in table.files):
            raise StoreError(
                f"{broken}: the files of table {name} hold {sum(file.rows for file in table.files)} rows, the table "
                f"{table.rows}; take another copy of the dump"
            )
    return manifest


def stem(migration: str) -> str:
    """Return a migration's name without its suffixes: equal for the variants of one step."""
    return migration.split(".")[0]


def level(names: Sequence[str], known: Sequence[Migration]) -> list[str]:
    """Return the steps that any database has which has these migrations, in order.

    That is without the steps that exist for one kind of database alone, whose purpose is not what the tables hold.
    """
    suffixes: dict[str, set[str]] = {}
    for migration in known:
        suffixes.setdefault(stem(migration.name), set()).add(migration.suffix)
    own = {step for step, kinds in suffixes.items() if "" not in kinds and not {"native", "timescale"} <= kinds}
    return sorted({stem(name) for name in names} - own)


def check_level(manifest: Manifest, known: Sequence[Migration], folder: Path) -> list[str]:
    """Return the steps of a dump where all of them are this version's own.

    Raises
    ------
    StoreError
        If the dump has a migration that this version does not know, or knows with another text, or lacks one in
        between.
    """
    checksums = {migration.name: migration.sha256 for migration in known}
    wrote = f"install the version that wrote it ({manifest.code_version}) or a later one"
    foreign = [name for name in manifest.migrations if name not in checksums]
    if foreign:
        raise StoreError(f"{folder} is of a newer schema, with {', '.join(foreign)}: {wrote}")
    changed = [name for name, checksum in manifest.migrations.items() if checksums[name] != checksum]
    if changed:
        raise StoreError(
            f"{folder} is of a schema whose {', '.join(changed)} has another text than this version's: {wrote}"
        )
    steps = level(list(manifest.migrations), known)
    every = level([migration.name for migration in known], known)
    if not steps or steps != every[: len(steps)]:
        missing = next((step for step in every if step not in steps), "all of them")
        raise StoreError(f"{folder} is of a schema that never was: its migrations lack {missing}; take another dump")
    return steps
