"""A reader for the family of queries that the simulated ClickHouse knows.

::

    SELECT item, … FROM [pypi.]pypi_downloads_per_day [WHERE condition AND …]
    [GROUP BY project, date] [ORDER BY column [ASC|DESC], …] [LIMIT n [OFFSET m]] [FORMAT name]

    item:      project | date | sum(count) | count() | uniqExact(project, date) | min(date) | max(date)  [AS name]
    condition: project IN ('a', …) | project = 'a' | date BETWEEN 'd' AND 'd' | date (= < <= > >=) 'd'

A day is ``'2026-03-31'`` or ``toDate('2026-03-31')``; the table may be such a query in parentheses
if the outer one counts its rows. Anything else is an error in ClickHouse's words, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Final

TABLE: Final = "pypi_downloads_per_day"
KEYS: Final = ("project", "date")
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.|'')*')|(?P<number>\d+)|(?P<word>[A-Za-z_][A-Za-z_0-9]*)|(?P<mark><=|>=|[(),.=<>;*]))"
)


class SqlError(Exception):
    """A query that ClickHouse would refuse: its code, name, HTTP status and message."""

    def __init__(self, code: int, name: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.status = status


@dataclass(frozen=True, slots=True)
class Item:
    """One column of a result: a key column, or an aggregate; ``alias`` is its name there."""

    function: str
    alias: str


@dataclass(slots=True)
class Select:
    """One query. ``projects`` None means all; days are inclusive; ``inner`` is a query whose rows are counted."""

    items: list[Item] = field(default_factory=list)
    projects: set[str] | None = None
    first: date = date.min
    last: date = date.max
    grouped: tuple[str, ...] = ()
    order: list[tuple[str, bool]] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    format: str = "TabSeparated"
    inner: Select | None = None


def read_select(sql: str) -> Select:
    """Parse one query.

    Raises
    ------
    SqlError
        If it is not of the family: syntax error, unknown table, column, function or format.
    """
    reader = _Reader(sql)
    select = reader.select()
    reader.skip(";")
    if reader.token:
        reader.fail()
    return select


class _Reader:
    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.at = self.next_at = 0
        self.kind = self.token = ""
        self.advance()

    def advance(self) -> str:
        """Step to the next token and return the one just passed."""
        passed = self.token
        self.at = self.next_at
        match = _TOKEN.match(self.sql, self.at)
        if match is None:
            if self.sql[self.at :].strip():
                self.token = "?"
                self.fail()
            self.kind = self.token = ""
            return passed
        self.kind, self.token, self.next_at = str(match.lastgroup), match[match.lastgroup or 0], match.end()
        return passed

    def fail(self) -> None:
        at = min(self.at + 1, len(self.sql))
        shown = self.sql[self.at :].strip()[:40] or "end of query"
        raise SqlError(62, "SYNTAX_ERROR", 400, f"Syntax error: failed at position {at} ({shown}): {shown}.")

    def skip(self, *words: str) -> bool:
        """Pass a sequence of words or marks if it comes next; keywords in any case."""
        if self.token.lower() != words[0].lower() or self.kind == "text":
            return False
        self.advance()
        for word in words[1:]:
            self.expect(word)
        return True

    def expect(self, word: str) -> None:
        if not self.skip(word):
            self.fail()

    def word(self) -> str:
        if self.kind != "word":
            self.fail()
        return self.advance()

    def number(self) -> int:
        if self.kind != "number":
            self.fail()
        return int(self.advance())

    def text(self) -> str:
        if self.kind != "text":
            self.fail()
        return re.sub(r"\\(.)|''", lambda m: m[1] or "'", self.advance()[1:-1])

    def select(self) -> Select:
        self.expect("select")
        select = Select([self.item()])
        while self.skip(","):
            select.items.append(self.item())
        self.expect("from")
        if self.skip("("):
            select.inner = self.select()
            self.expect(")")
        else:
            self.table()
        if self.skip("where"):
            self.condition(select)
            while self.skip("and"):
                self.condition(select)
        if self.skip("group", "by"):
            columns = [self.column(select)]
            while self.skip(","):
                columns.append(self.column(select))
            select.grouped = tuple(columns)
        if self.skip("order", "by"):
            self.ordering(select)
        if self.skip("limit"):
            select.limit = self.number()
            if self.skip("offset"):
                select.offset = self.number()
        if self.skip("format"):
            select.format = self.word()
        _check(select)
        return select

    def item(self) -> Item:
        name = self.word()
        function = name
        if self.skip("("):
            inside = ""
            depth = 1
            while True:
                depth += {"(": 1, ")": -1}.get(self.token, 0)
                if not self.token:
                    self.fail()
                if depth == 0:
                    break
                inside += self.advance()
            self.advance()
            function = f"{name.lower()}({inside.strip('()*')})"
        alias = self.word() if self.skip("as") else (function if function != "count()" else "count()")
        return Item(function, alias)

    def table(self) -> None:
        name = self.word()
        if self.skip("."):
            database, name = name, self.word()
            if database != "pypi":
                raise SqlError(81, "UNKNOWN_DATABASE", 404, f"Database {database} does not exist.")
        if name != TABLE:
            raise SqlError(60, "UNKNOWN_TABLE", 404, f"Table pypi.{name} does not exist.")

    def condition(self, select: Select) -> None:
        column = self.word()
        if column not in KEYS:
            raise SqlError(47, "UNKNOWN_IDENTIFIER", 404, f"Unknown expression identifier `{column}`.")
        if column == "project":
            named = {self.text()} if self.skip("=") else self.names()
            select.projects = named if select.projects is None else select.projects & named
        elif self.skip("between"):
            select.first = max(select.first, self.day())
            self.expect("and")
            select.last = min(select.last, self.day())
        else:
            if self.token not in ("=", "<", "<=", ">", ">="):
                self.fail()
            operator, day = self.advance(), self.day()
            # As ordinals: the day before the first possible date is no date.
            step = 1 if operator in ("<", ">") else 0
            if operator in ("=", ">", ">="):
                select.first = max(select.first, _day(day.toordinal() + step))
            if operator in ("=", "<", "<="):
                select.last = min(select.last, _day(day.toordinal() - step))

    def names(self) -> set[str]:
        self.expect("in")
        self.expect("(")
        named = {self.text()}
        while self.skip(","):
            named.add(self.text())
        self.expect(")")
        return named

    def day(self) -> date:
        wrapped = self.skip("todate", "(")
        text = self.text()
        if wrapped:
            self.expect(")")
        try:
            return date.fromisoformat(text)
        except ValueError:
            message = f"Cannot parse string '{text}' as Date: syntax error."
            raise SqlError(53, "TYPE_MISMATCH", 500, message) from None

    def column(self, select: Select) -> str:
        name = self.word()
        if name not in KEYS and name not in {item.alias for item in select.items}:
            raise SqlError(47, "UNKNOWN_IDENTIFIER", 404, f"Unknown expression identifier `{name}`.")
        return name

    def ordering(self, select: Select) -> None:
        while True:
            name = self.column(select)
            descending = self.skip("desc")
            if not descending:
                self.skip("asc")
            select.order.append((name, descending))
            if not self.skip(","):
                return


def _day(ordinal: int) -> date:
    return date.fromordinal(min(max(ordinal, 1), date.max.toordinal()))


_FUNCTIONS: Final = ("project", "date", "sum(count)", "count()", "uniqexact(project,date)", "min(date)", "max(date)")


def _check(select: Select) -> None:
    for item in select.items:
        if item.function not in _FUNCTIONS:
            name = item.function.partition("(")[0]
            if "(" in item.function:
                raise SqlError(46, "UNKNOWN_FUNCTION", 404, f"Function {name} with these arguments is not known here.")
            raise SqlError(47, "UNKNOWN_IDENTIFIER", 404, f"Unknown expression identifier `{name}`.")
        if item.function in KEYS and item.function not in select.grouped:
            message = f"Column `{item.function}` is not under aggregate function and not in GROUP BY."
            raise SqlError(215, "NOT_AN_AGGREGATE", 400, message)
    if select.inner is not None and any(item.function != "count()" for item in select.items):
        raise SqlError(47, "UNKNOWN_IDENTIFIER", 404, "A query in parentheses can only be counted here.")
    if select.format not in ("TabSeparated", "JSONEachRow", "JSONCompactEachRow"):
        raise SqlError(73, "UNKNOWN_FORMAT", 400, f"Unknown format {select.format}.")
