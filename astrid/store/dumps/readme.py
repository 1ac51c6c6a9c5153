"""What a dump says of itself to whoever opens it: every table and column, from the comments in the database."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from astrid.catalog import METRICS, ORIGINS
from astrid.store.dumps.files import SUFFIX
from astrid.store.dumps.manifest import Manifest
from astrid.store.dumps.tables import BY_MONTH, Column, Table, is_vocabulary

_TYPES = {
    "bool": "boolean",
    "int2": "integer, 16 bits",
    "int4": "integer, 32 bits",
    "int8": "integer, 64 bits",
    "float8": "float, 64 bits",
    "date": "date",
    "timestamptz": "time, UTC, microseconds",
    "text": "text",
    "jsonb": "text, JSON",
    "bytea": "bytes",
}
_HEAD = """\
# A dump of Astrid

Astrid measures the momentum of open-source AI tools from authoritative public counts.
This is its database as it stood at {moment}: {manifest.rows} rows in {count} tables,
written by version {manifest.code_version}. `manifest.json` lists every file with its rows and checksum.
`astrid import FOLDER` restores the database from it, row by row.

## How to read it

A table is one file, `NAME.{suffix}`, or, where it is large, a file for each month of its column `day`:
`table=NAME/month=YYYY-MM/part-0.{suffix}`. Rows lie in the order of the key. A day is a UTC date. What a
`metric_id` or an `origin_id` stands for is in `metric.csv` and `origin.csv`; an `entity_id` is a row of
`entity`. A missing day is a gap, never a zero.
"""
_READ = {
    "parquet": """\
```python
import pandas, polars
pandas.read_parquet("table=observation")               # months become a column `month`
polars.scan_parquet("table=observation/**/*.parquet")
```

```sql
SELECT e.slug, o.day, o.value                          -- DuckDB
FROM 'table=observation/*/*.parquet' o JOIN 'entity.parquet' e USING (entity_id) WHERE o.metric_id = 1;
```
""",
    "csv": """\
A cell without anything is NULL, `""` is an empty text. Times are UTC, bytes are hexadecimal behind `\\x`.

```python
import polars
polars.scan_csv("table=observation/**/*.csv.gz", try_parse_dates=True)
```

```sql
SELECT e.slug, o.day, o.value                          -- DuckDB
FROM 'table=observation/*/*.csv.gz' o JOIN 'entity.csv.gz' e USING (entity_id) WHERE o.metric_id = 1;
COPY entity FROM PROGRAM 'gunzip -c entity.csv.gz' (FORMAT csv, HEADER MATCH);    -- PostgreSQL, without Astrid
```
""",
}


def render_texts(manifest: Manifest, tables: Iterable[Table]) -> dict[str, str]:
    """Return name -> text of the files that explain a dump and are not restored."""
    return {
        "README.md": render_readme(manifest, sorted(tables, key=lambda t: t.name)),
        "metric.csv": _csv(
            ("metric_id", "name", "unit", "kind", "timing", "family", "weight", "source"),
            [(m.metric_id, m.name, m.unit, m.kind, m.timing, m.family, m.weight, m.source) for m in METRICS],
        ),
        "origin.csv": _csv(
            ("origin_id", "name", "precedence", "title"),
            [(o.origin_id, o.name, o.precedence, o.title) for o in ORIGINS],
        ),
    }


def render_readme(manifest: Manifest, tables: Sequence[Table]) -> str:
    """Return the text that explains the dump."""
    suffix = SUFFIX[manifest.files]
    moment = manifest.moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = [_HEAD.format(moment=moment, manifest=manifest, count=len(manifest.tables), suffix=suffix)]
    parts.append(_READ[manifest.files])
    if manifest.left_out:
        rows = "".join(f"- `{name}`: {why}\n" for name, why in sorted(manifest.left_out.items()))
        parts.append(f"## Left out\n\n{rows}")
    parts.append("## Tables\n\n" + "\n".join(_table(table, manifest) for table in tables))
    return "\n".join(parts)


def _table(table: Table, manifest: Manifest) -> str:
    rows = manifest.tables[table.name].rows
    place = "by month" if table.name in BY_MONTH else f"`{table.name}.{SUFFIX[manifest.files]}`"
    comment = f"{table.comment}. " if table.comment else ""
    lines = "".join(_column(column, column.name in table.key) for column in table.columns)
    return (
        f"### {table.name}\n\n{comment}{rows} rows, {place}.\n\n"
        f"| column | type | key | NULL | what it is |\n|---|---|---|---|---|\n{lines}"
    )


def _column(column: Column, is_key: bool) -> str:
    kind = _TYPES[column.type] + (", dictionary" if is_vocabulary(column) else "")
    comment = (column.comment or "").replace("|", "\\|").replace("\n", " ")
    cells = (f"`{column.name}`", kind, "yes" if is_key else "", "yes" if column.nullable else "", comment)
    return f"| {' | '.join(cells)} |\n"


def _csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()
