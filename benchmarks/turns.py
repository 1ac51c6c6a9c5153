"""A line to a database that counts round trips, and can make each take a given time, as a network would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


class Line:
    """Passes bytes both ways; ``turns`` counts how often a client spoke after the server had.

    That is the number of round trips that the client waited for, on all connections together; ``delay_s`` is added to
    each of them, and to nothing else.
    """

    def __init__(self, host: str, port: int) -> None:
        self.turns = 0
        self.delay_s = 0.0
        self._target = (host, port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until either side ends it."""
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        answered = asyncio.Event()
        answered.set()

        async def ask() -> None:
            while data := await reader.read(2**16):
                if answered.is_set():
                    self.turns += 1
                    answered.clear()
                    await asyncio.sleep(self.delay_s)
                far_writer.write(data)
                await far_writer.drain()

        async def answer() -> None:
            while data := await far_reader.read(2**16):
                answered.set()
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        with suppress(OSError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, far_writer):
            end.close()


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
