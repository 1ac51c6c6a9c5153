"""The parameters of a query, written into its text.

COPY takes no parameters, and a query with parameters costs two round trips where no prepared statement may be kept: one
to describe it, one to run it. Written out it costs one, and COPY can answer it.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final

import numpy as np

_PARAMETER: Final = re.compile(r"\$(\d+)")


def inline(query: str, *arguments: Any) -> str:
    """Return a query with its parameters written out as literals, which get the types that the parameters would get.

    Takes None, bool, numbers, text, dates, aware times, and arrays or lists of numbers, and of days as datetime64. Text
    goes as hexadecimal digits: nothing in it can end the literal, whatever the server's settings.

    Raises
    ------
    TypeError
        If an argument is anything else.
    """
    literals = [_literal(argument) for argument in arguments]
    return _PARAMETER.sub(lambda match: literals[int(match[1]) - 1], query) if literals else query


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f"convert_from(decode('{value.encode().hex()}', 'hex'), 'UTF8')"
    if isinstance(value, np.ndarray | list | tuple):
        return f"'{{{_join(np.asarray(value))}}}'"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"{value} has no time zone")
        return f"'{value.isoformat()}'"
    if isinstance(value, date):
        return f"'{value.isoformat()}'"
    if isinstance(value, bool | int | float | np.integer | np.floating):
        return f"'{value}'"
    raise TypeError(f"a {type(value).__name__} is not written into a query")


def _join(values: np.ndarray[Any, Any]) -> str:
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "biufM"):
        raise TypeError(f"an array of {values.ndim} dimensions and type {values.dtype} is not written into a query")
    # A float's str() is the shortest text that reads back as the same number; a day's is ISO 8601.
    if values.dtype.kind == "M":
        values = values.astype("datetime64[D]")
    return ",".join(map(str, values.tolist()))
