"""The parameters that routes share: what they accept, and how each is described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator

from api.problems import BAD_PARAMETER, Problem
from api.state import Shared

_ISO_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_ISO_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})")
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


def parse_moment(text: str) -> datetime:
    """Return the moment (aware, UTC) that ISO 8601 with a zone names, or the last one of the UTC day that a day names.

    Raises
    ------
    ValueError
        If it is another spelling, or a day or time that does not exist.
    """
    if text.isascii() and _ISO_DAY.fullmatch(text):
        return datetime.combine(date.fromisoformat(text), time.max, UTC)
    if not text.isascii() or not _ISO_MOMENT.fullmatch(text):
        raise ValueError("neither a day nor a moment with a zone")
    return datetime.fromisoformat(text).astimezone(UTC)


def read_as_of(
    state: Shared,
    as_of: Annotated[
        str | None,
        Query(
            max_length=40,
            description="Answer what was known at this moment (ISO 8601 with a zone), or at the end of this UTC day; "
            "without it, what is known now",
            examples=["2026-03-31T12:00:00Z", "2026-03-31"],
        ),
    ] = None,
) -> datetime | None:
    """Return the moment as of which a request wants its answer, None where it wants today's.

    Raises
    ------
    Problem
        If it cannot be read, or has not come yet.
    """
    if as_of is None:
        return None
    now = state.now()
    example = (now - timedelta(days=1)).astimezone(UTC)
    try:
        # In an address a plus stands for a space.
        moment = parse_moment(as_of.replace(" ", "+"))
    except (ValueError, OverflowError):
        raise Problem(
            BAD_PARAMETER,
            f"The parameter as_of cannot be {as_of[:60]!r}.",
            field="as_of",
            remedy=f"Give as_of as a moment with its zone, for example {example:%Y-%m-%dT%H:%M:%SZ}, or as a day, "
            f"for example {example:%Y-%m-%d}.",
        ) from None
    if moment > now:
        raise Problem(
            BAD_PARAMETER,
            f"What will be known at {moment:%Y-%m-%dT%H:%M:%SZ} is not known yet.",
            field="as_of",
            remedy=f"It is {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}: give a moment up to then, a day that is over, or "
            "leave as_of out for what is known now.",
        )
    return moment


AsOf = Annotated[datetime | None, Depends(read_as_of)]


@dataclass(frozen=True, slots=True)
class Asked:
    """The moment as of which an answer is wanted (None: now), and whether all that is read as of it is final."""

    as_of: datetime | None
    settled: bool = False

    def stamp(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body that says so; without a moment it keeps its own ``as_of``, that of its newest value."""
        return {**body, "as_of": self.as_of, "settled": self.settled} if self.as_of else {**body}


async def read_asked(state: Shared, as_of: AsOf) -> Asked:
    """Return as of when a request wants its answer, settled before it is read: what ends meanwhile is not in it."""
    return Asked(as_of, as_of is not None and await state.is_settled(as_of))


AskedAsOf = Annotated[Asked, Depends(read_asked)]

OneProject = Annotated[str | None, Query(max_length=200, description="Only this project, by its slug")]
OneSource = Annotated[str | None, Query(max_length=100, description="Only metrics of this source", examples=["github"])]
OneMetric = Annotated[
    str | None, Query(max_length=100, description="Only this metric, see /docs#metrics", examples=["github_stars"])
]
GapStart = Annotated[
    date | None, _Parsed, Query(description="First UTC day; without it, as many days as the answer says before the end")
]
GapEnd = Annotated[
    date | None, _Parsed, Query(description="Last UTC day; without it, or if it is later, the last day that is over")
]
GapStates = Annotated[
    Literal["open", "waiting", "healed", "all"],
    Query(alias="state", description="open: missing; waiting: nobody could have asked yet; healed: came late; or all"),
]
RunKind = Annotated[str | None, Query(max_length=100, description="Only runs of this kind", examples=["nightly"])]
RunStart = Annotated[date | None, _Parsed, Query(description="Only runs about this UTC day or a later one")]
RunEnd = Annotated[date | None, _Parsed, Query(description="Only runs about this UTC day or an earlier one")]
RunId = Annotated[int, Path(ge=1, le=2**63 - 1, description="Number of the run, see /v1/runs")]
TraceMetric = Annotated[
    str, Query(max_length=100, description="A metric of the catalogue, or `score`", examples=["github_stars"])
]
TraceDay = Annotated[date, _Parsed, Query(description="UTC day of the value or score", examples=["2026-03-31"])]


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
        case "literal_error":
            remedy = f"Give {name} as {context.get('expected')}."
        case "string_too_long":
            remedy = f"Give {name} with at most {context.get('max_length')} characters."
        case _:
            remedy = "/docs lists the parameters and what they accept."
    given = str(first.get("input"))[:60]
    return Problem(BAD_PARAMETER, f"The parameter {name} cannot be {given!r}.", field=name, remedy=remedy)
