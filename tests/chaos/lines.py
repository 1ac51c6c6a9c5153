"""The line between one program and one server: it can be cut, frozen or slowed, and it springs traps.

A trap is set on the n-th event of a kind (a commit's reply, an acknowledgement, ...). What it does happens at exactly
that moment: the bytes of the event are held back until it is done, and pass on or never do.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.chaos.wire import Reader, readers

CHUNK = 2**16

Pair = tuple[asyncio.StreamWriter, asyncio.StreamWriter]
"""Both ends of one connection: to the client, to the server."""


@dataclass
class Trap:
    """Waits for the ``nth`` event of a kind, from now on, on any of its lines.

    ``then`` is called at that moment; whether the event itself still ``passes`` comes after. With ``cuts`` the
    connection of the event is cut then, and all connections of ``cuts_lines``. A trap springs once, or ``again`` and
    again.
    """

    event: str
    nth: int
    passes: bool = False
    cuts: bool = False
    cuts_lines: Sequence[Line] = ()
    then: Callable[[], object] | None = None
    again: bool = False
    sprung: asyncio.Event = field(default_factory=asyncio.Event)


class Line:
    """One listening port that leads to one server."""

    def __init__(self, name: str, protocol: str, host: str, port: int, mark: str = "") -> None:
        self.name = name
        self.port = 0
        self.seen: Counter[str] = Counter()
        self.traps: list[Trap] = []
        self.watch: Callable[[str], None] | None = None
        self.delay_s = 0.0
        self.chunk = CHUNK
        self._protocol = protocol
        self._target = (host, port)
        self._mark = mark
        self._is_cut = False
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._pairs: set[Pair] = set()
        self._abandoned: dict[Pair, asyncio.Event] = {}
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        """Drop every connection without a farewell; new ones come through."""
        for pair in list(self._pairs):
            _abort(pair)
            if pair in self._abandoned:
                self._abandoned.pop(pair).set()

    def close_door(self) -> None:
        """Drop every connection, and every new one too, until the door is opened."""
        self._is_cut = True
        self.cut()

    def open_door(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def freeze(self) -> None:
        """Swallow nothing and pass nothing: both ends wait for the other and are not told."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Pass on again what was held back, in order."""
        self._thawed.set()

    def abandon(self) -> None:
        """Drop every connection towards the server only; the client hears nothing more, until it is cut."""
        for pair in self._pairs:
            self._abandoned[pair] = asyncio.Event()
            _abort(pair[1:])

    def slow(self, delay_s: float, chunk: int) -> None:
        """Pass on only ``chunk`` bytes every ``delay_s`` seconds in each direction of each connection."""
        self.delay_s, self.chunk = delay_s, chunk

    def heal(self) -> None:
        """Be a good line again."""
        self.slow(0.0, CHUNK)
        self.open_door()
        self.thaw()
        self.traps.clear()

    async def open(self) -> None:
        """Listen on a free port of this machine."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Drop all and listen no more."""
        self.heal()
        self.close_door()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._thawed.wait()
        if self._is_cut:
            _abort([writer])
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the server is down: as if it had been asked directly
            _abort([writer])
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        client, server = readers(self._protocol, self._mark)
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, client, pair), self._pass(far_reader, writer, server, pair)
            )
        finally:
            self._pairs.discard(pair)
            _abort(pair)

    async def _pass(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        units: Reader,
        pair: Pair,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(self.chunk):
                await self._thawed.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for unit, event in units.read(data):
                    if pair not in self._pairs or not self._let_through(event, unit, target, pair):
                        return
                await target.drain()
        if pair in self._abandoned:
            await self._abandoned[pair].wait()
        with suppress(OSError, RuntimeError):
            target.write_eof()

    def _let_through(
        self,
        event: str,
        unit: bytes,
        target: asyncio.StreamWriter,
        pair: Pair,
    ) -> bool:
        """Write one unit unless a trap forbids it; say whether the connection lives on."""
        trap = self._sprung_by(event) if event else None
        if trap is None or trap.passes:
            target.write(unit)
        if trap is None:
            return True
        if trap.then is not None:
            trap.then()
        if trap.cuts:
            _end(pair, target if trap.passes else None)
        for line in trap.cuts_lines:
            line.cut()
        trap.sprung.set()
        return not trap.cuts and trap.passes

    def _sprung_by(self, event: str) -> Trap | None:
        self.seen[event] += 1
        if self.watch is not None:
            self.watch(event)
        for trap in self.traps:
            if trap.event == event:
                trap.nth -= 1
                if trap.nth <= 0:
                    if not trap.again:
                        self.traps.remove(trap)
                    return trap
        return None


def _abort(writers: Sequence[asyncio.StreamWriter]) -> None:
    """Reset connections: an end in order would be a farewell."""
    for writer in writers:
        if (own := writer.get_extra_info("socket")) is not None and own.fileno() >= 0:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def _end(pair: Sequence[asyncio.StreamWriter], last: asyncio.StreamWriter | None) -> None:
    """Abort both ends; ``last`` may first send what it was given: an abort would throw it away."""
    for writer in pair:
        if writer is last:
            with suppress(OSError, RuntimeError):
                writer.close()
        else:
            _abort([writer])


@asynccontextmanager
async def open_lines(*lines: Line) -> AsyncGenerator[None]:
    """Open lines and close them at the end."""
    try:
        for line in lines:
            await line.open()
        yield
    finally:
        for line in lines:
            await line.close()
