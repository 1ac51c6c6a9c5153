"""What a path of GitHub's REST interface answers, before limits and common headers: bodies, refusals, pages.

Facts: GitHub docs, "Using pagination in the REST API" (30 a page unless told otherwise, at most 100; no ``link`` where
one page suffices). The order of the relations in ``link`` is that of recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from astrid.simulators.upstream import Call, read_whole

DOCS: Final = "https://docs.github.com/rest"
PER_PAGE: Final = 30
MAX_PER_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Resource:
    """An answer: its body as JSON or encoded, when that changed (None: it does not say), whether it has an ETag."""

    status: int
    body: object
    headers: Mapping[str, str] = field(default_factory=dict)
    modified_at: datetime | None = None
    tagged: bool = True


def not_found() -> Resource:
    """Return the answer to what is not there, private, or not offered."""
    return Resource(404, {"message": "Not Found", "documentation_url": DOCS, "status": "404"})


def failed() -> Resource:
    """Return the answer of a server that could not do it."""
    return Resource(502, {"message": "Server Error"})


def blocked(reason: str) -> Resource:
    """Return the answer of a repository that was taken down: 451 for ``dmca``, else 403."""
    block = {"reason": reason, "created_at": "2025-01-01T00:00:00Z", "html_url": "https://github.com/tos"}
    return Resource(451 if reason == "dmca" else 403, {"message": "Repository access blocked", "block": block})


def too_far() -> Resource:
    """Return the answer to a page past the last that a list may be followed to."""
    message = (
        "In order to keep the API fast for everyone, pagination is limited for this resource. "
        "Check the rel=last link relation in the Link response header to see how far back you can traverse."
    )
    return Resource(422, {"message": message, "documentation_url": "https://docs.github.com/v3/#pagination"})


def read_page(call: Call, most: int = MAX_PER_PAGE) -> tuple[int, int]:
    """Return the number and the size of the page that is asked for; what is no number is passed over."""
    size = min(max(1, read_whole(call.param("per_page"), PER_PAGE)), most)
    return max(1, read_whole(call.param("page"), 1)), size


def cut_page(rows: Sequence[Any], call: Call, url: str) -> tuple[list[Any], dict[str, str]]:
    """Return the rows of the page that is asked for, and its ``link`` header; ``url`` is the list's own."""
    page, size = read_page(call)
    last = -(-len(rows) // size)
    turns = [("prev", min(page - 1, last)), ("next", page + 1), ("last", last), ("first", 1)]
    wanted = {"prev": page > 1 and last > 0, "next": page < last, "last": page < last, "first": page > 1}
    kept = [(k, v) for k, v in call.request.params if k != "page"]
    links = [f'<{url}?{urlencode([*kept, ("page", n)])}>; rel="{rel}"' for rel, n in turns if wanted[rel]]
    return list(rows[(page - 1) * size : page * size]), {"link": ", ".join(links)} if links else {}
