"""Just enough of AMQP 0-9-1, PostgreSQL and HTTP to see the moments at which a fault hurts most.

A reader takes the bytes of one direction of one connection and gives them back in whole units (a frame, a message),
each with the name of what it is, or without one. Nothing is changed, and what is not understood passes as it is.
Facts: AMQP 0-9-1 specification, 2.3.5 "Frame Details" and the method numbers of class basic (60); PostgreSQL manual,
"Message Formats".
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from typing import Final, Protocol

Unit = tuple[bytes, str]
"""Some bytes that belong together, and what they are: one of EVENTS, or an empty string."""

EVENTS: Final = ("publish", "ack", "deliver", "confirm", "commit", "settle", "request")
"""Named units: a client publishes or acknowledges; the broker delivers or confirms; the database says that it has
committed something that was written, or (settle) the end of a batch; a client asks an upstream."""

SETTLES: Final = re.compile(rb"UPDATE\s+batch(\s+AS)?(\s+\w+)?\s+SET\s+state", re.IGNORECASE)
"""What a transaction says that writes down the end of a batch."""

_WRITES: Final = re.compile(rb"\b(INSERT\s+INTO|(?<!FOR )UPDATE|DELETE\s+FROM|MERGE\s+INTO)\s+\w", re.IGNORECASE)
"""What a statement says that changes rows; the server does not say it of one from which only the first row is read."""

MOVING: Final = re.compile(rb'("dependentCount":\s*\d+?)(\d{1,3})(?=\D)')
"""A counter of deps.dev of two digits or more, and the digits of it that move."""
_ASKED: Final = itertools.count(1)

_AMQP_METHODS: Final = {
    "client": {(60, 40): "publish", (60, 80): "ack"},
    "server": {(60, 60): "deliver", (60, 71): "deliver", (60, 80): "confirm"},
}


class Reader(Protocol):
    """Cuts one direction of a connection into units."""

    def read(self, data: bytes) -> Iterator[Unit]:
        """Take what has arrived and give the units that are complete."""


class AmqpReader:
    """Frames of one direction; a content's header and body frames have no name."""

    def __init__(self, side: str) -> None:
        self._methods = _AMQP_METHODS[side]
        self._rest = b""
        self._greeted = side == "server"

    def read(self, data: bytes) -> Iterator[Unit]:
        """See :class:`Reader`."""
        self._rest += data
        if not self._greeted and len(self._rest) >= 8:
            self._greeted = True
            yield self._take(8), ""
        while self._greeted and len(self._rest) >= 7:
            kind, _, size = struct.unpack(">BHI", self._rest[:7])
            if len(self._rest) < size + 8:
                return
            frame = self._take(size + 8)
            name = ""
            if kind == 1:
                class_id, method_id = struct.unpack(">HH", frame[7:11])
                name = self._methods.get((class_id, method_id), "")
            yield frame, name

    def _take(self, count: int) -> bytes:
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


class Statements:
    """What one PostgreSQL connection has asked for in its present transaction; both directions share it."""

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}
        self.settles = False
        self.writes = False

    def see(self, kind: bytes, body: bytes) -> None:
        """Note a client's message: the text of a statement, or the use of one that was named before."""
        text = b""
        if kind == b"P":
            name, parsed = body.split(b"\0")[:2]
            self._texts[name] = parsed
        elif kind == b"B":
            text = self._texts.get(body.split(b"\0")[1], b"")
        elif kind == b"Q":
            text = body
        self.settles |= SETTLES.search(text) is not None
        self.writes |= _WRITES.search(text) is not None


class PostgresReader:
    """Messages of one direction; without TLS, which would hide them."""

    def __init__(self, side: str, statements: Statements) -> None:
        self._is_client = side == "client"
        self._started = side == "server"
        self._statements = statements
        self._rest = b""

    def read(self, data: bytes) -> Iterator[Unit]:
        """See :class:`Reader`."""
        self._rest += data
        while True:
            head = 1 if self._started else 0  # a client's first message has no letter
            if len(self._rest) < head + 4:
                return
            size = head + int.from_bytes(self._rest[head : head + 4], "big")
            if len(self._rest) < size:
                return
            message, self._rest = self._rest[:size], self._rest[size:]
            if not self._started:
                self._started = True
                yield message, ""
                continue
            yield message, self._name(message[:1], message[5:])

    def _name(self, kind: bytes, body: bytes) -> str:
        if self._is_client:
            self._statements.see(kind, body)
            return ""
        now = self._statements
        if kind == b"G":  # a COPY into the database begins
            now.writes = True
        if kind != b"C" or not body.startswith((b"COMMIT", b"ROLLBACK")):
            return ""
        settles, writes = now.settles, now.writes
        now.settles = now.writes = False
        if not writes or body.startswith(b"ROLLBACK"):
            return ""
        return "settle" if settles else "commit"


class HttpReader:
    """Requests whose path has a mark in it; the rest passes without a name."""

    def __init__(self, mark: bytes) -> None:
        self._mark = re.compile(rb"^[A-Z]+ \S*" + re.escape(mark), re.MULTILINE)

    def read(self, data: bytes) -> Iterator[Unit]:
        """See :class:`Reader`; a request of ours fits into one segment."""
        yield data, "request" if self._mark.search(data) else ""


class MovingReader:
    """An upstream's answers with counters that move: whoever asks twice is told two values."""

    def read(self, data: bytes) -> Iterator[Unit]:
        """See :class:`Reader`; the length of an answer stays."""
        yield MOVING.sub(self._move, data), ""

    def _move(self, found: re.Match[bytes]) -> bytes:
        digits = len(found[2])
        return found[1] + b"%0*d" % (digits, next(_ASKED) % 10**digits)


def readers(protocol: str, mark: str = "") -> tuple[Reader, Reader]:
    """Return the readers of a new connection: the client's direction and the server's."""
    if protocol == "amqp":
        return AmqpReader("client"), AmqpReader("server")
    if protocol == "postgres":
        statements = Statements()
        return PostgresReader("client", statements), PostgresReader("server", statements)
    if protocol == "http":
        return HttpReader(mark.encode()), MovingReader()
    raise ValueError(f"no such protocol: {protocol}")
