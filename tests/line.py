"""A TCP line between a client and a server that a test can cut, at any byte if need be, mend, and freeze."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Line:
    """Passes bytes both ways; :meth:`cut` ends every connection and refuses new ones until :meth:`mend`."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.connections = 0
        self.passed = {"up": 0, "down": 0}
        """How many bytes went to the server and to the client."""
        self._target = (host, port)
        self._is_cut = False
        self._cut_at: dict[str, int] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._frozen: list[asyncio.Event] = []
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Drop every connection without a farewell."""
        self._is_cut = True
        self._abort()
        for frozen in self._frozen:
            frozen.set()

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def cut_after(self, way: str, count: int) -> None:
        """Cut once, as soon as ``count`` more bytes have gone that way; new connections go through at once."""
        self._cut_at[way] = self.passed[way] + count

    def freeze(self) -> None:
        """Let nothing more through on the connections that stand; new ones go through."""
        self._flowing.clear()
        self._frozen.append(self._flowing)
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until either side ends it."""
        if self._is_cut:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()  # the server is down; the client sees what it would see without us
            return
        pair = {writer, far_writer}
        self._writers |= pair
        flowing = self._flowing
        try:
            await asyncio.gather(
                self._pass("up", reader, far_writer, flowing), self._pass("down", far_reader, writer, flowing)
            )
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _pass(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                await flowing.wait()
                left = self._cut_at.get(way, self.passed[way] + len(data) + 1) - self.passed[way]
                writer.write(data[: max(0, left)])
                await writer.drain()
                self.passed[way] += min(len(data), max(0, left))
                if left <= len(data):
                    del self._cut_at[way]
                    # What was written must arrive, or the cut would come earlier than asked for.
                    await asyncio.sleep(0.01)
                    self._abort()
                    return
        with suppress(OSError, RuntimeError):
            writer.write_eof()


@asynccontextmanager
async def open_line(host: str, port: int) -> AsyncIterator[Line]:
    """Listen on a free port of this machine and lead to ``host``:``port``."""
    line = Line(host, port)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        line.cut()
        server.close()
        await server.wait_closed()
