"""What can go wrong in an answer, said as problem details (RFC 9457) that name the field and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.responses import Response

from astrid.errors import AstridError, ConfigError, StoreError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem; its address ``/docs#problem-<name>`` is explained there."""

    name: str
    status: int
    title: str
    meaning: str

    @property
    def address(self) -> str:
        """The ``type`` member: a reference that resolves to this server's own documentation."""
        return f"/docs#problem-{self.name}"


UNKNOWN_PROJECT: Final = Kind("unknown-project", 404, "Unknown project", "No tracked project has this slug.")
NOT_SCORED: Final = Kind("not-scored", 404, "No scores", "No scores were published for this day.")
UNKNOWN_RUN: Final = Kind("unknown-run", 404, "Unknown run", "There is no run of this number.")
NOT_FOUND: Final = Kind("not-found", 404, "No such address", "This server has nothing at this path.")
METHOD: Final = Kind("method-not-allowed", 405, "Method not allowed", "This address is read-only.")
UNKNOWN_METRIC: Final = Kind("unknown-metric", 422, "Unknown metric", "The catalogue holds no metric of this name.")
UNKNOWN_SOURCE: Final = Kind("unknown-source", 422, "Unknown source", "No metric is observed by this source.")
UNKNOWN_CATEGORY: Final = Kind("unknown-category", 422, "Unknown category", "No tracked project is in this category.")
BAD_PARAMETER: Final = Kind("bad-parameter", 422, "Parameter out of range", "A parameter cannot be read or used.")
BAD_RANGE: Final = Kind("bad-range", 422, "Impossible range of days", "The range is empty or too long.")
MISCONFIGURED: Final = Kind("misconfigured", 500, "Server misconfigured", "The operator must mend a setting.")
INTERNAL: Final = Kind("internal", 500, "Internal error", "The server failed; the cause is in its log.")
NOT_READY: Final = Kind("not-ready", 503, "Not ready", "The database is absent, or its schema is not current.")
DATABASE: Final = Kind("database", 503, "Database unavailable", "The database refused or did not answer; try again.")

KINDS: Final = (
    UNKNOWN_PROJECT, NOT_SCORED, UNKNOWN_RUN, NOT_FOUND, METHOD, UNKNOWN_METRIC, UNKNOWN_SOURCE, UNKNOWN_CATEGORY,
    BAD_PARAMETER, BAD_RANGE, MISCONFIGURED, INTERNAL, NOT_READY, DATABASE,
)  # fmt: skip


class Problem(Exception):
    """A request that gets a problem for an answer.

    ``field`` is the parameter to change (None where it is no parameter's fault), ``remedy`` what to do next.
    """

    def __init__(self, kind: Kind, detail: str, *, field: str | None = None, remedy: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.remedy = remedy

    def body(self) -> dict[str, Any]:
        """Return the members of the answer."""
        return {
            "type": self.kind.address,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "field": self.field,
            "remedy": self.remedy,
        }

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields beside the body: 503 says when to come again."""
        return {"Retry-After": str(RETRY_AFTER_S)} if self.kind.status == 503 else {}

    def respond(self) -> Response:
        """Return the answer as problem+json."""
        return Response(orjson.dumps(self.body()), self.kind.status, dict(self.headers), MEDIA_TYPE)


def problem_of(error: AstridError) -> Problem:
    """Return the problem that an error of ours is to a client.

    A client cannot act on the operator's configuration and must not read about it: 500 names no setting's value.
    """
    match error:
        case StoreError():
            return Problem(
                DATABASE,
                "The database refused or did not answer, so this answer cannot be given now.",
                remedy=f"Send the same request again in {RETRY_AFTER_S} s; /readyz says when the database is back.",
            )
        case ConfigError():
            return Problem(
                MISCONFIGURED,
                "The server's configuration is wrong.",
                remedy="The operator finds the setting to mend in the server's log.",
            )
        case _:
            return Problem(
                INTERNAL,
                "The server could not finish this answer.",
                remedy="Try again; if it stays, tell the operator the address and the time.",
            )


def suggest(wanted: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to ``wanted``, or None where none is near; long input costs no more than short."""
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(wanted[:80].casefold(), folded, n=1, cutoff=0.5)
    return folded[near[0]] if near else None


def remedy_of(suggestion: str | None, otherwise: str) -> str:
    """Return a remedy that offers the nearest name, or else says where the names are listed."""
    return f"Did you mean {suggestion!r}? {otherwise}" if suggestion else otherwise
