"""A line to a database that counts the round trips that its clients wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_WAITED_FOR: Final = b"Zt"
"""ReadyForQuery, at the end of each request, a whole COPY included; ParameterDescription, of a query to be prepared."""
_TLS_REQUEST: Final = bytes([0, 0, 0, 8, 4, 210, 22, 47])


class Line:
    """Passes bytes both ways; ``turns`` counts the answers of the server that the driver waits for."""

    def __init__(self, host: str, port: int) -> None:
        self.turns = 0
        self._target = (host, port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until either side ends it."""
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        tasks = [
            asyncio.create_task(self._ask(reader, far_writer)),
            asyncio.create_task(self._answer(far_reader, writer)),
        ]
        with suppress(OSError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, far_writer):
            end.close()

    async def _ask(self, reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if data == _TLS_REQUEST:
                raise ValueError("a line to count on speaks no TLS: put sslmode=disable into the URL")
            far_writer.write(data)
            await far_writer.drain()

    async def _answer(self, far_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A message is a type of one byte and the length of the rest, itself included."""
        while True:
            head = await far_reader.readexactly(5)
            self.turns += head[0] in _WAITED_FOR
            writer.write(head + await far_reader.readexactly(int.from_bytes(head[1:]) - 4))
            await writer.drain()


@asynccontextmanager
async def open_line(url: str) -> AsyncIterator[tuple[Line, str]]:
    """Listen on a free port of this machine; yield the line and the URL of the database through it."""
    parts = urlsplit(url)
    line = Line(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user, at, _ = parts.netloc.rpartition("@")
    try:
        yield line, urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{port}"))
    finally:
        server.close()
        await server.wait_closed()
