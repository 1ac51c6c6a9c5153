"""The parameters that routes share: what they accept, and how each is described."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Final

from fastapi import Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator

from api.problems import BAD_PARAMETER, Problem

_ISO_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
OFFSET_MAX: Final = 1_000_000


def parse_day(text: Any) -> date:
    """Return the day that ``YYYY-MM-DD`` names; no other spelling is a day.

    Raises
    ------
    ValueError
        If it is another spelling or a day that does not exist.
    """
    if isinstance(text, date):
        return text
    if not isinstance(text, str) or not text.isascii() or not _ISO_DAY.fullmatch(text):
        raise ValueError("write a day as YYYY-MM-DD, for example 2025-01-29")
    return date.fromisoformat(text)


_Parsed = BeforeValidator(parse_day)

Slug = Annotated[str, Path(max_length=200, description="The project's slug", examples=["ollama"])]
Category = Annotated[
    str | None, Query(max_length=100, description="Only projects of this category", examples=["inference"])
]
Limit = Annotated[int, Query(ge=1, le=500, description="At most so many items")]
Offset = Annotated[int, Query(ge=0, le=OFFSET_MAX, description="Items to pass over")]
Day = Annotated[
    date | None, _Parsed, Query(description="A scored UTC day; without it, the last one", examples=["2026-03-31"])
]
Night = Annotated[
    date | None, _Parsed, Query(description="A judged UTC day; without it, the last one", examples=["2026-03-31"])
]
Metric = Annotated[
    str, Query(max_length=100, description="A metric of the catalogue, see /docs#metrics", examples=["github_stars"])
]
Start = Annotated[
    date | None,
    _Parsed,
    Query(description="First UTC day; without it, 364 days before the end", examples=["2025-01-27"]),
]
End = Annotated[
    date | None,
    _Parsed,
    Query(description="Last UTC day; without it, the last observed or scored one", examples=["2025-02-02"]),
]


def refused(error: RequestValidationError) -> Problem:
    """Return the problem of a request whose parameters could not be read: its first error, with field and remedy."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"] if part not in ("query", "path", "body", "header")]
    name = where[0] if where else None
    context = first.get("ctx", {})
    match first["type"]:
        case "missing":
            remedy = f"Give {name}=…; /docs lists the parameters."
            return Problem(BAD_PARAMETER, f"The parameter {name} is missing.", field=name, remedy=remedy)
        case "greater_than_equal":
            remedy = f"Give {name} as a whole number of at least {context.get('ge')}."
        case "less_than_equal":
            remedy = f"Give {name} as a whole number of at most {context.get('le')}."
        case "int_parsing":
            remedy = f"Give {name} as a whole number."
        case "value_error" | "date_from_datetime_parsing" | "date_type" | "date_parsing":
            remedy = f"Give {name} as an existing day written YYYY-MM-DD, for example 2025-01-29."
        case "string_too_long":
            remedy = f"Give {name} with at most {context.get('max_length')} characters."
        case _:
            remedy = "/docs lists the parameters and what they accept."
    given = str(first.get("input"))[:60]
    return Problem(BAD_PARAMETER, f"The parameter {name} cannot be {given!r}.", field=name, remedy=remedy)
