"""ClickHouse's public copy of the PyPI download log: SQL over HTTP, over the packages of a world.

User ``demo`` without password; at most 4 queries at once; results end at 1,000 rows without a word, or at those of the
scenario (``result_overflow_mode = 'break'``); 64-bit integers are strings in JSON. Facts: ClickHouse/clickpy README
and ``scripts/create_user.sh``. Codes and HTTP statuses of errors are from memory. The table is taken as
merged, one row per project and day; the real one may hold several, which is why clients must sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from astrid.models import Response
from astrid.simulators.clickhouse_sql import Select, SqlError, read_select
from astrid.simulators.limits import Limits, Refusal
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, text_response

if TYPE_CHECKING:
    from astrid.simulators.world import World

CONCURRENT: Final = 4
_TEXT: Final = "text/plain; charset=UTF-8"
_TABS: Final = "text/tab-separated-values; charset=UTF-8"
_LINES: Final = "application/x-ndjson; charset=UTF-8"
_VERSION: Final = "(version 25.8.1.1 (official build))"

Row = dict[str, Any]


class ClickHouse(Upstream):
    """``sql-clickhouse.clickhouse.com``: POST / with a query in the body."""

    name = "clickhouse"

    def __init__(
        self, world: World, *, scenario: Scenario = CALM, concurrent: int = CONCURRENT, tolerance_s: float = 0.0
    ) -> None:
        super().__init__(world, Limits(concurrent=concurrent, tolerance_s=tolerance_s), scenario)
        self._rows = {package: row for row, package in enumerate(world.packages)}

    def answer(self, call: Call) -> Response:
        """Run a query; errors are text ``Code: NNN. DB::Exception: …`` with a 4xx or 5xx."""
        if call.param("user", call.header("x-clickhouse-user", "default")) != "demo" or call.param("password"):
            user = call.param("user", "default")
            return _failed(call, SqlError(516, "AUTHENTICATION_FAILED", 403, f"{user}: Authentication failed."))
        if call.request.path != "/" or call.request.method != "POST":
            return text_response(call, b"Ok.\n", 200, _TEXT)
        sql = (call.param("query") + " " + (call.request.content or b"").decode("utf-8", "replace")).strip()
        try:
            select = read_select(sql)
            rows = self._run(select, call.night)
        except SqlError as exc:
            return _failed(call, exc)
        rows = rows[: self.scenario.clickhouse_rows]
        names = [item.alias for item in select.items]
        summary = orjson.dumps({"read_rows": str(len(rows)), "result_rows": str(len(rows))}).decode()
        return text_response(
            call,
            _written(rows, names, select.format),
            200,
            _TABS if select.format == "TabSeparated" else _LINES,
            x_clickhouse_format=select.format,
            x_clickhouse_timezone="UTC",
            x_clickhouse_summary=summary,
        )

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer a fifth query at once."""
        message = f"Too many simultaneous queries for user demo. Current: {CONCURRENT}, maximum: {CONCURRENT}."
        return _failed(call, SqlError(202, "TOO_MANY_SIMULTANEOUS_QUERIES", 500, message))

    def _run(self, select: Select, night: date) -> list[Row]:
        """Return the rows of a result, before the silent cut; sums and counts as strings."""
        if select.inner is not None:
            count = str(len(self._run(select.inner, night)))
            return [{item.alias: count for item in select.items}]
        found = self._matching(select, night)
        groups: dict[tuple[str, ...], list[tuple[str, str, int]]] = {}
        for row in found:
            key = tuple(row[0] if column == "project" else row[1] for column in select.grouped)
            groups.setdefault(key, []).append(row)
        if not select.grouped and not groups:
            groups[()] = []
        rows = [{i.alias: _value(i.function, members) for i in select.items} for members in groups.values()]
        for name, descending in reversed(select.order):
            rows.sort(key=lambda row: _sortable(row.get(name)), reverse=descending)
        end = None if select.limit is None else select.offset + select.limit
        return rows[select.offset : end]

    def _matching(self, select: Select, night: date) -> list[tuple[str, str, int]]:
        """Return (project, day, count) of the table's rows that satisfy the conditions, up to the night."""
        world = self.world
        first = max(select.first, world.first_day)
        start = (first - world.first_day).days
        last = min(select.last, night, world.first_day + timedelta(days=world.downloads.shape[1] - 1))
        end = (last - world.first_day).days + 1
        if start >= end:
            return []
        named = world.packages if select.projects is None else sorted(select.projects & self._rows.keys())
        days = [(first + timedelta(days=n)).isoformat() for n in range(end - start)]
        found = []
        for project in named:
            counts = world.downloads[self._rows[project], start:end]
            found += [(project, days[n], int(counts[n])) for n in np.flatnonzero(counts >= 0).tolist()]
        return found


def _value(function: str, rows: Sequence[tuple[str, str, int]]) -> str:
    match function:
        case "project":
            return rows[0][0]
        case "date":
            return rows[0][1]
        case "sum(count)":
            return str(sum(row[2] for row in rows))
        case "min(date)":
            return min((row[1] for row in rows), default="1970-01-01")
        case "max(date)":
            return max((row[1] for row in rows), default="1970-01-01")
        case _:
            return str(len(rows))


def _sortable(value: str | None) -> tuple[int, str]:
    return (int(value), "") if value is not None and value.isdigit() else (0, value or "")


def _written(rows: Sequence[Row], names: Sequence[str], kind: str) -> bytes:
    if kind == "JSONEachRow":
        return b"".join(orjson.dumps({n: row[n] for n in names}) + b"\n" for row in rows)
    if kind == "JSONCompactEachRow":
        return b"".join(orjson.dumps([row[n] for n in names]) + b"\n" for row in rows)
    return "".join("\t".join(str(row[n]) for n in names) + "\n" for row in rows).encode()


def _failed(call: Call, error: SqlError) -> Response:
    body = f"Code: {error.code}. DB::Exception: {error} ({error.name}) {_VERSION}\n".encode()
    return text_response(call, body, error.status, _TEXT, x_clickhouse_exception_code=str(error.code))
