"""The server process: one port, one event loop, a clean end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from api.app import create_app, database_url
from astrid.errors import ConfigError
from astrid.settings import Settings
from astrid.store import open_store

POOL_SIZE: Final = 8
STOP_TIMEOUT_S: Final = 5
"""How long open requests may go on after the server was told to stop."""


def require_free_port(host: str, port: int) -> None:
    """Pass where a server could listen on ``host`` and ``port`` now.

    Raises
    ------
    ConfigError
        If the port is in use or forbidden, or the host is no address of this machine.
    """
    bind(host, port).close()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to ``host`` and ``port``; errors as in :func:`require_free_port`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as exc:
        raise ConfigError(f"{host} is no address of this machine ({exc.strerror}): give --host 127.0.0.1") from exc
    listener = socket.socket(family, kind, protocol)
    try:
        # Lets a new server follow one that has just ended; a port on which someone listens is refused all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Two sockets may be bound with SO_REUSEADDR as long as neither listens: only this call settles it.
        listener.listen(2048)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            reason = "is in use: stop the program that has it, or choose another with --port or ASTRID_HTTP_PORT"
        elif exc.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(f"{host} is no address of this machine: give --host 127.0.0.1") from exc
        else:
            reason = f"cannot be had ({os.strerror(exc.errno or 0)}): choose another with --port or ASTRID_HTTP_PORT"
        raise ConfigError(f"port {port} on {host} {reason}") from exc
    return listener


class _Server(uvicorn.Server):
    """uvicorn inside an event loop of ours: SIGINT and SIGTERM end :meth:`serve` and are not raised again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        taken: list[signal.Signals] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self.handle_exit, number, None)
                taken.append(number)
            except (RuntimeError, ValueError):
                break  # not the main thread: whoever runs us ends us by cancellation
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)


async def serve(settings: Settings, host: str, port: int) -> None:
    """Serve API and page until SIGINT, SIGTERM or cancellation; returns after the last request has ended.

    Raises
    ------
    ConfigError
        If the port cannot be had, or no database is set.
    StoreError
        If the database cannot be reached at the start.
    """
    with bind(host, port) as listener:
        async with open_store(database_url(settings), pool_size=POOL_SIZE) as store:
            config = uvicorn.Config(
                create_app(settings, store=store),
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
            )
            server = _Server(config)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                server.should_exit = True
                await running
                raise
