"""Answers kept for conditional requests: what an upstream said to one token, and the mark to ask by.

ETags of GitHub are bound to the token that they were given to, so an answer is kept by (token, address).
What is kept is only ever used where the upstream itself says that it has not changed (304).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from astrid.models import Request, Response

MAX_KEPT_BYTES: Final = 256 * 1024
"""Larger bodies are not kept: they are archives and dumps, which nobody asks for twice."""

KEPT_HEADERS: Final = ("content-type", "etag", "last-modified", "link")


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One 200 answer: its marks, the headers that a source reads, and its body."""

    etag: str | None
    last_modified: str | None
    headers: Mapping[str, str]
    body: bytes

    def conditions(self) -> dict[str, str]:
        """Return the request headers that ask for it only if it has changed; the strong mark wins."""
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified or ""}

    def revive(self, unchanged: Response) -> Response:
        """Return the kept answer as a 200, with the newer headers of the 304 that confirmed it."""
        return Response(200, {**self.headers, **unchanged.headers}, self.body)


class AnswerCache(Protocol):
    """Where answers are kept; both methods may lose any of them at any time."""

    async def get(self, token: str, address: bytes) -> StoredAnswer | None:
        """Return what this token was last told at this address."""

    async def put(self, token: str, address: bytes, answer: StoredAnswer) -> None:
        """Keep an answer in place of the one before."""


class MemoryAnswers:
    """Keeps the last ``limit`` answers of this process; for simulations, and workers without a database."""

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = limit
        self._answers: OrderedDict[tuple[str, bytes], StoredAnswer] = OrderedDict()

    async def get(self, token: str, address: bytes) -> StoredAnswer | None:
        """See :class:`AnswerCache`."""
        answer = self._answers.get((token, address))
        if answer is not None:
            self._answers.move_to_end((token, address))
        return answer

    async def put(self, token: str, address: bytes, answer: StoredAnswer) -> None:
        """See :class:`AnswerCache`."""
        self._answers[token, address] = answer
        self._answers.move_to_end((token, address))
        while len(self._answers) > self._limit:
            self._answers.popitem(last=False)


def address_of(request: Request) -> bytes | None:
    """Return a digest of what a request asks for and in which form; None if it cannot be asked conditionally."""
    if request.method != "GET" or request.json is not None or request.content is not None:
        return None
    headers = sorted((name.lower(), value) for name, value in request.headers)
    if any(name in ("if-none-match", "if-modified-since", "range") for name, _ in headers):
        return None  # the source's own business
    digest = hashlib.blake2b(digest_size=16)
    digest.update(orjson.dumps((request.upstream, request.path, request.params, headers)))
    return digest.digest()


def keep_answer(response: Response) -> StoredAnswer | None:
    """Return what to keep of an answer; None unless it is a whole 200 with a mark.

    JSON that does not parse is not kept: it was cut on the way, and its mark belongs to the whole.
    """
    etag, last_modified = response.headers.get("etag"), response.headers.get("last-modified")
    if response.status != 200 or not (etag or last_modified) or len(response.body) > MAX_KEPT_BYTES:
        return None
    if "json" in response.headers.get("content-type", ""):
        try:
            orjson.loads(response.body)
        except orjson.JSONDecodeError:
            return None
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    return StoredAnswer(etag, last_modified, headers, response.body)
