"""PyPI downloads of any past day from ClickHouse's public copy of the download log.

The demo account may cut a result at about 1,000 rows without saying so, hence at most 450 rows a
query and a second query that counts them. Facts: ClickHouse/clickpy ``scripts/create_user.sh`` and
README (user ``demo``; SummingMergeTree, so always ``sum(count)``). Rows whose client states no Python
version or system are not in the copy, so its counts lie below pypistats'.

A backfill reads here what pypistats has no more. While pypistats stands still a night does too (task ``recent``): it
asks for all packages that lack days, many at once. pypistats' values go before these once they are there.

What is counted against the second query are the rows that were asked for, each once: a row of somebody else must not
hide one that was cut off.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import orjson

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Gap, Observations, Request, Response, Steps
from astrid.sources.source import Source, Task, days_between, read_day

MAX_ROWS: Final = 450
RECENT_DAYS: Final = 30
MAX_COUNT: Final = 10**12
NO_ROW: Final = "the ClickHouse copy has no row for this day"
NO_COUNT: Final = "the ClickHouse copy states no sound count for this day"
DOWNLOADS: Final = METRIC_BY_NAME["pypi_downloads"].metric_id
CLICKHOUSE: Final = ORIGIN_BY_NAME["clickhouse_pypi"].origin_id


def crawl(batch: Batch) -> Steps:
    """Read the daily downloads of the batch's packages from ``start`` to ``end``; ``key`` is the package.

    Raises
    ------
    TooLarge
        If fewer rows came than the upstream counts: the result was cut, split the batch.
    Malformed
        If more came than it counts, or one of them twice: what it counts shows no cut then.
    """
    packages = sorted({e.key for e in batch.entities})
    where = (
        f"project IN ({', '.join(_quote(p) for p in packages)}) "
        f"AND date BETWEEN '{batch.start.isoformat()}' AND '{batch.end.isoformat()}'"
    )
    rows_sql = (
        "SELECT project, date, sum(count) AS downloads FROM pypi.pypi_downloads_per_day "
        f"WHERE {where} GROUP BY project, date ORDER BY project, date LIMIT 1000 FORMAT JSONEachRow"
    )
    count_sql = (
        f"SELECT uniqExact(project, date) AS n FROM pypi.pypi_downloads_per_day WHERE {where} FORMAT JSONEachRow"
    )
    days = days_between(batch.start, batch.end)
    wanted = {(package, day) for package in packages for day in days}
    counts = {key: n for key, n in parse_rows((yield _query(rows_sql))).items() if key in wanted}
    stated = _read_lines((yield _query(count_sql)))
    total = _whole(stated[0].get("n")) if stated else None
    if total is None:
        raise Malformed("ClickHouse did not count its rows")
    if total > len(counts):
        raise TooLarge(f"ClickHouse returned {len(counts)} of {total} rows: its result was cut")
    if total < len(counts):
        raise Malformed(f"ClickHouse returned {len(counts)} rows and counts {total}")
    rows = []
    gaps = []
    for entity in batch.entities:
        for day in days:
            value = counts.get((entity.key, day))
            if value is not None:
                rows.append((entity.entity_id, DOWNLOADS, day, float(value), CLICKHOUSE))
            elif (entity.key, day) in counts:
                gaps.append(Gap(entity.entity_id, DOWNLOADS, day, NO_COUNT, True, doubtful=True))
            else:
                # Of a day long past nothing more will come; the last ones may be on their way.
                gaps.append(Gap(entity.entity_id, DOWNLOADS, day, NO_ROW, batch.task == "recent"))
    return Observations.from_rows(rows, gaps)


def parse_rows(response: Response) -> dict[tuple[str, date], int | None]:
    """Read JSONEachRow lines of project, date, downloads (a number, or a string as ClickHouse quotes 64 bits).

    None stands where a row has no sound count; a row without project or date is left out.

    Raises
    ------
    Unavailable, Malformed
        If ClickHouse failed, or states a project and date twice: it did not group its rows.
    """
    counts: dict[tuple[str, date], int | None] = {}
    for row in _read_lines(response):
        project, day = row.get("project"), read_day(row.get("date"))
        if not isinstance(project, str) or day is None:
            continue
        if (project, day) in counts:
            raise Malformed(f"ClickHouse states {project[:80]!r} on {day} twice")
        counts[project, day] = _whole(row.get("downloads"))
    return counts


def _read_lines(response: Response) -> list[dict[str, Any]]:
    if response.status >= 500 or response.body.startswith(b"Code: 159"):  # 159: time limit of the query
        raise Unavailable(f"ClickHouse answered {response.status}: {response.body[:160].decode('utf-8', 'replace')}")
    if response.status != 200 or b"DB::Exception" in response.body[:400]:
        raise Malformed(f"ClickHouse refused: {response.body[:200].decode('utf-8', 'replace')}")
    try:
        rows = [orjson.loads(line) for line in response.body.splitlines() if line.strip()]
    except orjson.JSONDecodeError as exc:
        raise Malformed("ClickHouse's answer has a line that is not JSON: it was cut in transit") from exc
    return [row for row in rows if isinstance(row, dict)]


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 and int(text) < MAX_COUNT else None


def _query(sql: str) -> Request:
    params = (("user", "demo"), ("database", "pypi"))
    return Request("clickhouse", "POST", "/", params, content=sql.encode())


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SOURCE: Final = Source(
    name="clickhouse",
    upstream="clickhouse",
    key="package",
    tasks={
        "daily": Task("daily", ("pypi_downloads",), "dated", "core", 1, MAX_ROWS, 2),
        "recent": Task(
            "recent",
            ("pypi_downloads",),
            "dated",
            "core",
            MAX_ROWS // RECENT_DAYS,
            RECENT_DAYS,
            2,
            cadence_days=1,
            lookback_days=RECENT_DAYS,
            span="since_missing",
            probe=MAX_ROWS // RECENT_DAYS,  # one batch tells whether the copy goes on
            origin="clickhouse_pypi",
            relieves="pypistats.overall",
        ),
    },
    crawl=crawl,
    concurrency=2,
    budgets={"clickhouse": BudgetSpec({"core": BucketSpec((Window(10, 1.0),))}, concurrency=2)},
)
