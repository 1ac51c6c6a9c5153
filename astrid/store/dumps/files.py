"""The files of a dump: one stream of COPY into one file, and back, Parquet or gzipped CSV, with bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from astrid.errors import StoreError
from astrid.store.dumps.manifest import File
from astrid.store.dumps.streams import Decoder, NotInArrow, encode
from astrid.store.dumps.tables import Table

Format = Literal["parquet", "csv"]
SUFFIX: Final[Mapping[Format, str]] = {"parquet": "parquet", "csv": "csv.gz"}
COPY_FORMAT: Final[Mapping[Format, Literal["binary", "csv"]]] = {"parquet": "binary", "csv": "csv"}

_GROUP_ROWS: Final = 1 << 20
_GROUP_BYTES: Final = 64 << 20
"""A row group is full at either; it is what a writer, and most readers, hold in memory."""
_READ_ROWS, _LEAST_ROWS, _READ_BYTES = 32_768, 256, 8 << 20
_PIECE_BYTES: Final = 1 << 20
_GZIP_LEVEL: Final = 4
_ENCODINGS: Final = {"float8": "BYTE_STREAM_SPLIT", "date": "DELTA_BINARY_PACKED", "int4": "DELTA_BINARY_PACKED"}
"""What makes numbers of series small; all other columns are encoded by dictionary."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: rows, bytes and checksum of the file, checksum of the stream that it was made of."""

    rows: int
    bytes: int
    sha256: str
    content_sha256: str


class Sink(Protocol):
    """Takes the pieces of one COPY stream into one file."""

    def write(self, data: bytes | bytearray) -> None:
        """Take the next piece."""

    def close(self, rows: int) -> Written:
        """Finish the file of a stream of ``rows`` rows."""

    def abandon(self) -> None:
        """Let go of the file, whatever state it is in."""


def open_sink(path: Path, table: Table, file_format: Format) -> Sink:
    """Open a new file for the rows of a table.

    Raises
    ------
    StoreError
        Here and in every call after it: if the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        target = _Target(path)
        return ParquetSink(target, table) if file_format == "parquet" else CsvSink(target, table)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a StoreError."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise StoreError(
            f"{path} cannot be written ({reason}): free space, or choose another folder; nothing of this export is kept"
        ) from exc


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the file system or a decoder refuses into a StoreError."""
    try:
        yield
    except FileNotFoundError as exc:
        raise StoreError(f"{path} is missing: take a whole copy of the dump") from exc
    except (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowException) as exc:
        raise StoreError(f"{path} is damaged ({exc}): take another copy of the dump") from exc
    except OSError as exc:
        raise StoreError(f"{path} cannot be read ({exc.strerror or exc}): correct its rights or the path") from exc


class _Target(io.RawIOBase):
    """A new file that knows the checksum of what was written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._file = path.open("xb", buffering=_PIECE_BYTES)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self.sha256.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def settle(self) -> None:
        """Hand everything to the system, which says here whether it takes it."""
        self._file.flush()

    def close(self) -> None:
        if not self.closed:
            # What could not be written has been said already; the rest of it must not be said once more.
            with suppress(OSError):
                self._file.close()
        super().close()


class ParquetSink:
    """Decodes a binary stream and writes a row group whenever enough rows have come."""

    def __init__(self, target: _Target, table: Table) -> None:
        self._target = target
        self._table = table.name
        self._schema = table.file_schema
        self._decoder = Decoder(table.kinds, table.schema)
        self._content = hashlib.sha256()
        self._batches: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = self._rows = 0
        encodings = {c.name: _ENCODINGS[c.type] for c in table.columns if c.type in _ENCODINGS}
        self._writer = pq.ParquetWriter(
            target,
            self._schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=[c.name for c in table.columns if c.name not in encodings],
            column_encoding=encodings,
        )

    def write(self, data: bytes | bytearray) -> None:
        """See :class:`Sink`."""
        self._content.update(data)
        try:
            self._keep(self._decoder.feed(data))
        except NotInArrow as exc:
            raise StoreError(f"table {self._table} has {exc}: correct the row, or export as CSV") from exc

    def close(self, rows: int) -> Written:
        """See :class:`Sink`."""
        self._keep(self._decoder.finish())
        self._flush()
        if self._rows != rows:
            raise StoreError(f"{self._target.path} got {self._rows} of {rows} rows: this is a defect, report it")
        with writing(self._target.path):
            self._writer.close()
            self._target.settle()
        self._target.close()
        return Written(rows, self._target.size, self._target.sha256.hexdigest(), self._content.hexdigest())

    def abandon(self) -> None:
        """See :class:`Sink`."""
        with suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        self._target.close()

    def _keep(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        self._batches.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches)
        columns = [
            column.dictionary_encode() if pa.types.is_dictionary(field.type) else column
            for field, column in zip(self._schema, table.columns, strict=True)
        ]
        with writing(self._target.path):
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=_GROUP_ROWS)
        self._rows += self._waiting_rows
        self._batches, self._waiting_rows, self._waiting_bytes = [], 0, 0


class CsvSink:
    """Writes the server's own CSV, under a line of column names: NULL is nothing at all, an empty text is ``""``."""

    def __init__(self, target: _Target, table: Table) -> None:
        self._target = target
        self._content = hashlib.sha256()
        # Without a name and a time of its own, so that equal rows make equal files.
        self._gzip = gzip.GzipFile("", "wb", _GZIP_LEVEL, target, mtime=0)
        self._gzip.write(header([c.name for c in table.columns]))

    def write(self, data: bytes | bytearray) -> None:
        """See :class:`Sink`."""
        self._content.update(data)
        with writing(self._target.path):
            self._gzip.write(data)

    def close(self, rows: int) -> Written:
        """See :class:`Sink`."""
        with writing(self._target.path):
            self._gzip.close()
            self._target.settle()
        self._target.close()
        return Written(rows, self._target.size, self._target.sha256.hexdigest(), self._content.hexdigest())

    def abandon(self) -> None:
        """See :class:`Sink`."""
        with suppress(OSError, ValueError):
            self._gzip.close()
        self._target.close()


def header(names: Sequence[str]) -> bytes:
    """Return the line of column names of a CSV file."""
    return ",".join(names).encode() + b"\n"


def check_file(path: Path, stated: File, file_format: Format) -> None:
    """Hold a file against what the manifest states of it.

    Raises
    ------
    StoreError
        If it is missing, shorter, longer or another, or holds another number of rows.
    """
    with reading(path), path.open("rb") as file:
        hasher, size = hashlib.sha256(), 0
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
            size += len(piece)
        if size != stated.bytes:
            raise StoreError(f"{path} has {size} bytes instead of {stated.bytes}: take a whole copy of the dump")
        if hasher.hexdigest() != stated.sha256:
            raise StoreError(f"{path} was altered, its checksum is another: take another copy of the dump")
        if file_format == "parquet":
            rows = pq.read_metadata(path).num_rows
            if rows != stated.rows:
                raise StoreError(f"{path} holds {rows} rows, the manifest says {stated.rows}: take another copy")


def read_pieces(path: Path, table: Table, file_format: Format) -> Generator[bytes]:
    """Yield the file of a table as the stream that COPY takes.

    Raises
    ------
    StoreError
        If the file is damaged or is not one of this table.
    """
    with reading(path):
        yield from _parquet_pieces(path, table) if file_format == "parquet" else _csv_pieces(path, table)


def _parquet_pieces(path: Path, table: Table) -> Generator[bytes]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        if not file.schema_arrow.equals(table.file_schema):
            raise StoreError(f"{path} has other columns than table {table.name}: take another copy of the dump")
        yield from encode(table.kinds, file.iter_batches(_batch_rows(file.metadata)))


def _batch_rows(facts: pq.FileMetaData) -> int:
    """Return how many rows are read at a time, so that long texts do not fill the memory."""
    size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
    return int(min(_READ_ROWS, max(_LEAST_ROWS, _READ_BYTES * facts.num_rows // max(size, 1))))


def _csv_pieces(path: Path, table: Table) -> Generator[bytes]:
    with gzip.open(path, "rb") as file:
        wanted = header([c.name for c in table.columns])
        if file.readline(len(wanted)) != wanted:
            raise StoreError(f"{path} has other columns than table {table.name}: take another copy of the dump")
        while piece := file.read(_PIECE_BYTES):
            yield piece
