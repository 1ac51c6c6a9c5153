"""Holding a lease: taken and renewed in the background, trusted by our own clock, given back at the end.

The database's row is the truth for others, who wait until it expires by the database's clock. A holder must not look at
the row to know whether it may go on: it was stopped, or cut off, and the row is another one's meanwhile. It trusts
the lease until the moment at which it asked for the last renewal, by a clock that nobody sets, plus its time, or a
little less.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from astrid.clock import count_s
from astrid.errors import StoreError
from astrid.pipeline.outages import Outage
from astrid.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")

LEASE_S: Final = 45.0
"""How long a lease outlives a holder that was killed, unless told otherwise."""

TRUSTED: Final = 0.9
"""The part of its time for which a holder trusts a lease: clocks need not run at quite the same rate."""

RENEWALS: Final = 5
"""A lease is renewed so often within its time."""

LONGEST_POLL_S: Final = 2.0


class Lease:
    """One lease in our hands: a name, and whether it is still ours as far as its renewals tell."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lost = asyncio.Event()

    def lose(self) -> None:
        """Note that another one has it."""
        self._lost.set()

    @property
    def is_lost(self) -> bool:
        """Whether another one has it."""
        return self._lost.is_set()

    async def guard(self, work: Awaitable[T]) -> T:
        """Return what ``work`` returns; end it where the lease is lost.

        Raises
        ------
        StoreError
            If another one took the lease, which it can only after this process was silent for longer than its time.
        """
        task = asyncio.ensure_future(work)
        losing = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({task, losing}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise StoreError(f"{self.name}: another process took it over while this one was silent, and goes on")
        finally:
            for pending in (task, losing):
                pending.cancel()
            await asyncio.gather(task, losing, return_exceptions=True)


@asynccontextmanager
async def hold_lease(
    store: Store, name: str, holder: str, ttl_s: float = LEASE_S, say: Callable[[str], None] = log.warning
) -> AsyncGenerator[Lease]:
    """Wait for a lease, hold it during the block, and give it back.

    ``say`` is told once whom we wait for. A database that is away is waited for while the lease is held, not before.

    Raises
    ------
    StoreError
        If the database does not answer before the lease is ours.
    """
    told = False
    while not (taken := await store.leases.take(name, holder, ttl_s)).is_ours:
        if not told:
            say(f"{name}: {taken.holder.partition('#')[0]} is at work on it; waiting until it ends, or its lease does")
            told = True
        await asyncio.sleep(min(LONGEST_POLL_S, ttl_s / RENEWALS))
    lease = Lease(name)
    renewing = asyncio.create_task(_renew(store, lease, holder, ttl_s))
    try:
        yield lease
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        if not lease.is_lost:
            with contextlib.suppress(StoreError):  # it expires by itself
                await asyncio.shield(store.leases.give_back(name, holder))


async def _renew(store: Store, lease: Lease, holder: str, ttl_s: float) -> None:
    away = Outage("the database")
    while not lease.is_lost:
        await asyncio.sleep(ttl_s / RENEWALS)
        try:
            if lease.name not in await store.leases.renew(holder, {lease.name: {}}, ttl_s):
                log.warning("the lease %r was taken by another process", lease.name)
                lease.lose()
            away.end()
        except StoreError as exc:
            away.note(exc)


def trusted_until_s(asked_s: float, ttl_s: float) -> float:
    """Return until when, by :func:`astrid.clock.count_s`, a lease may be trusted whose renewal was asked for then."""
    return asked_s + TRUSTED * ttl_s


def is_trusted(until_s: float) -> bool:
    """Tell whether a lease that may be trusted until then may be trusted now."""
    return count_s() < until_s
