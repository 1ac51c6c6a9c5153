"""Leases: rows with an expiry, by the database's clock, that say who may do what only one may do at a time.

No session holds anything, so a pooler in transaction mode may stand in between, and a holder that dies is followed when
its lease expires. What a holder must not rely on is the row alone: see :mod:`astrid.pipeline.leases`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from astrid.store import pool
from astrid.store.pool import Connection
from astrid.store.queries import load_queries

_SQL: Final = load_queries("leases")


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to who wants a lease: whether it got it, and what stood there before.

    ``holder`` is who had it, or has it (empty: nobody ever had), ``gave_back`` whether that one gave it back, ``state``
    what it left, ``age_s`` how many seconds ago it was last heard of.
    """

    is_ours: bool
    holder: str = ""
    gave_back: bool = False
    state: Mapping[str, Any] = field(default_factory=dict)
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One lease that is held: its name, who holds it, and what stands in it."""

    name: str
    holder: str
    state: Mapping[str, Any]


class Leases:
    """Leases by name; reached as ``store.leases``. A holder is called ``name#life``."""

    def __init__(self, connections: pool.Pool, place: str) -> None:
        self._pool = connections
        self._place = place

    async def take(self, name: str, holder: str, ttl_s: float) -> Taken:
        """Take a lease for ``ttl_s`` seconds where it is free, expired, or of another life of this holder."""

        async def work(connection: Connection) -> Taken:
            await connection.execute(_SQL["redate_leases"])
            before = await connection.fetchrow(_SQL["lock_lease"], name)
            got = await connection.fetchval(_SQL["take_lease"], name, holder, ttl_s)
            if got is None and before is None:  # another one was faster by a moment
                before = await connection.fetchrow(_SQL["lock_lease"], name)
            if before is None:
                return Taken(got is not None)
            state = orjson.loads(before["state"])
            return Taken(got is not None, before["holder"], before["gave_back"], state, before["age_s"])

        return await pool.writing(self._pool, self._place, work)

    async def renew(self, holder: str, states: Mapping[str, Mapping[str, Any]], ttl_s: float) -> set[str]:
        """Renew the leases of ``states`` (name -> what to keep in it) and return those that are still this holder's."""

        async def work(connection: Connection) -> set[str]:
            await connection.execute(_SQL["redate_leases"])
            names, bodies = list(states), [orjson.dumps(dict(s)).decode() for s in states.values()]
            rows = await connection.fetch(_SQL["renew_leases"], names, holder, ttl_s, bodies)
            return {row["name"] for row in rows}

        return await pool.writing(self._pool, self._place, work) if states else set()

    async def give_back(self, name: str, holder: str, state: Mapping[str, Any] | None = None) -> None:
        """End a lease; with ``state`` its row stays, for the next holder to read."""

        async def work(connection: Connection) -> None:
            if state is None:
                await connection.execute(_SQL["delete_lease"], name, holder)
            else:
                await connection.execute(_SQL["give_lease_back"], name, holder, orjson.dumps(dict(state)).decode())

        await pool.writing(self._pool, self._place, work)

    async def read(self, prefix: str) -> list[LeaseRow]:
        """Return the leases that are held and whose names start with ``prefix``, by name."""
        async with pool.reading(self._pool, self._place) as connection:
            rows = await connection.fetch(_SQL["read_leases"], prefix)
            return [LeaseRow(row["name"], row["holder"], orjson.loads(row["state"])) for row in rows]

    async def sweep(self) -> None:
        """Delete what nobody has renewed for a week."""
        await pool.writing(self._pool, self._place, lambda c: c.execute(_SQL["sweep_leases"]))

    async def read_now_s(self) -> float:
        """Return the epoch second by the database's clock."""
        async with pool.reading(self._pool, self._place) as connection:
            return float(await connection.fetchval(_SQL["read_now"]))
