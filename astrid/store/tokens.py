"""Whom GitHub last took each token's bearer for, by the token's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from astrid.store.pool import Connection
from astrid.store.queries import load_queries

_SQL: Final = load_queries("tokens")


async def read_token_users(connection: Connection, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """See :meth:`astrid.store.Store.read_token_users`."""
    rows = await connection.fetch(_SQL["read_token_users"], list(names))
    return {row["token"]: (row["user_id"], row["login"]) for row in rows}


async def write_token_users(connection: Connection, users: Mapping[str, tuple[int, str]], now: datetime) -> None:
    """See :meth:`astrid.store.Store.write_token_users`."""
    # In one order, so that two drivers never wait for each other.
    await connection.executemany(
        _SQL["write_token_user"], [(name, user_id, login, now) for name, (user_id, login) in sorted(users.items())]
    )
