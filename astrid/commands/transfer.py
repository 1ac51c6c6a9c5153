"""The database as a folder of files, and back: export, import."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astrid.shell import Demo, Json, err, load_command_settings, out, print_json, run

if TYPE_CHECKING:
    from astrid.store.dumps import Manifest


class FileFormat(StrEnum):
    """What the files of an export are."""

    parquet = "parquet"
    csv = "csv"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("export")(export)
    app.command("import")(restore)


def export(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet, or an empty one.")],
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="Parquet, or gzipped CSV that PostgreSQL itself can read.")
    ] = FileFormat.parquet,
    public: Annotated[
        bool, typer.Option("--public", help="Leave out what is yours alone: whose your tokens are.")
    ] = False,
    demo: Demo = False,
    json: Json = False,
) -> None:
    """Write the whole database, as one moment shows it, into a folder of files."""
    from astrid.runtime import code_version, database_url, with_server
    from astrid.store.dumps import export_database

    settings = load_command_settings(demo)
    console = err if json else out

    async def work() -> Manifest:
        async with with_server(settings) as ready:
            return await export_database(
                database_url(ready),
                folder,
                file_format=file_format.value,
                public=public,
                code_version=code_version(),
                watch=lambda name, rows: console.print(f"{name:<22} {rows:>12} rows", highlight=False),
            )

    manifest = run(work())
    if json:
        print_json(_summary(folder, manifest))
    else:
        out.print(
            f"{folder}: {manifest.rows} rows of {len(manifest.tables)} tables in {manifest.file_count} files, "
            f"{manifest.bytes / 1e6:.1f} MB, as of {manifest.moment:%Y-%m-%d %H:%M:%S} UTC.",
            highlight=False,
            soft_wrap=True,
        )


def restore(
    folder: Annotated[Path, typer.Argument(help="What `astrid export` wrote.")],
    demo: Demo = False,
    json: Json = False,
) -> None:
    """Restore an export, row by row, into an empty database of any kind; nothing is merged."""
    from astrid.runtime import database_url, with_server
    from astrid.store.dumps import Restored, import_database

    settings = load_command_settings(demo)
    console = err if json else out

    async def work() -> Restored:
        async with with_server(settings) as ready:
            return await import_database(
                database_url(ready),
                folder,
                watch=lambda name, rows: console.print(f"{name:<22} {rows:>12} rows", highlight=False),
            )

    restored = run(work())
    manifest = restored.manifest
    if json:
        print_json(_summary(folder, manifest) | {"digest_compared": restored.digest_compared})
        return
    compared = "rows and digest are those" if restored.digest_compared else "rows are those"
    out.print(
        f"Restored {manifest.rows} rows of {len(manifest.tables)} tables: {compared} of {folder}, "
        f"as of {manifest.moment:%Y-%m-%d %H:%M:%S} UTC.",
        highlight=False,
        soft_wrap=True,
    )


def _summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "format": manifest.files,
        "moment": manifest.moment,
        "rows": manifest.rows,
        "files": manifest.file_count,
        "bytes": manifest.bytes,
        "tables": {name: table.rows for name, table in manifest.tables.items()},
        "digest": {name: digest.model_dump() for name, digest in manifest.digest.items()},
    }
