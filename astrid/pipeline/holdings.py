"""Which budgets are this worker's: every budget has one keeper at a time, and workers share them out evenly.

A budget is held by a lease ``budget UPSTREAM USER``. Every worker also holds a lease ``worker NAME`` in which it says
which budgets its sources need. From these rows all workers compute the same shares: nobody tells them, and a worker
that comes or goes moves as few as an even share needs. Who holds what is another's share ends what it runs and gives
it back; who should have something takes it as soon as it is free. A driver on a Ray cluster takes the whole of what it
needs: the cluster's token actors are one keeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from astrid.clock import count_s
from astrid.errors import ConfigError, StoreError
from astrid.pipeline.leases import LEASE_S, RENEWALS, trusted_until_s
from astrid.pipeline.outages import Outage
from astrid.sources.source import Source
from astrid.store import LeaseRow, Store

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""(upstream, user): one budget."""

TICK_S: Final = 2.0
HANDOVER_S: Final = 60.0
"""What still runs of a budget that is to be another's is waited for so long."""

LONGEST_WINDOW_S: Final = 3600.0
BUDGET, WORKER = "budget ", "worker "


class Keeper(Protocol):
    """Where a budget is kept: in this process, or behind an actor. Times are seconds from now."""

    async def begin(self, state: Mapping[str, Any], age_s: float, is_clean: bool, trusted_s: float) -> None:
        """Take the budget over; see :meth:`astrid.custody.Custody.begin`."""

    async def tell(self) -> Mapping[str, Any]:
        """Return what the next keeper must know."""

    async def renew(self, trusted_s: float) -> None:
        """Trust the lease for so long; what was last told stands in it."""

    async def end(self) -> None:
        """Use the budget no more."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Budgets that only help together, because a source needs all of these upstreams."""

    name: str
    keys: tuple[Key, ...]
    sources: tuple[str, ...]


def list_units(sources: Mapping[str, Source], users: Mapping[str, Sequence[str]]) -> list[Unit]:
    """Return what is shared out, by name: per upstream and user, but upstreams that a source joins are one unit.

    ``users`` are those of each upstream that can be asked; upstreams without any are left out. Of joined upstreams
    every unit has one user of each, as far as there are.
    """
    group: dict[str, set[str]] = {}
    for source in sources.values():
        joined = set(source.budgets).union(*(group.get(u, {u}) for u in source.budgets))
        group |= dict.fromkeys(joined, joined)
    units = []
    for upstreams in {tuple(sorted(g)) for g in group.values()}:
        named = tuple(sorted(name for name, s in sources.items() if set(s.budgets) <= set(upstreams)))
        for n in range(max(len(users.get(u, ())) for u in upstreams)):
            keys = tuple((u, users[u][n]) for u in upstreams if n < len(users.get(u, ())))
            units.append(Unit(" + ".join(_name(key) for key in keys), keys, named))
    return sorted(units, key=lambda u: u.name)


def share_out(
    wants: Mapping[str, Collection[str]], holders: Mapping[str, str], whole: Sequence[str] = ()
) -> dict[str, str]:
    """Return unit -> worker, the same for everybody who sees the same rows.

    Parameters
    ----------
    wants
        Worker -> units that it can use.
    holders
        Unit -> worker that holds it now; it keeps it where that is as even.
    whole
        Workers that get all that they want, the first of them first: each of two that had a part and waited for the
        rest would wait for ever.
    """
    shares: dict[str, str] = {}
    load: Counter[str] = Counter()
    # What few can use is given away first, or those who can use nothing else might get nothing.
    rarity = Counter(unit for units in wants.values() for unit in units)
    for unit in sorted(rarity, key=lambda u: (rarity[u], u)):
        takers = sorted(worker for worker, units in wants.items() if unit in units)
        first = [worker for worker in whole if worker in takers]
        best = first[0] if first else min(takers, key=lambda w: (load[w], w != holders.get(unit), w))
        shares[unit] = best
        load[best] += 1
    return shares


class Holdings:
    """The budgets of one worker; :meth:`run` keeps them in step with the database.

    Parameters
    ----------
    holder
        ``name#life`` of this worker. Another life of the name takes its leases up at once.
    units
        What its sources can use.
    keepers
        Where each of their budgets is kept.
    is_busy
        Whether something of a source still runs that needs its budgets.
    whole
        Whether it takes all that it wants.
    presence
        Under which name it says what it wants, where that is not the holder's: drivers of one cluster are one holder.
    """

    def __init__(
        self,
        store: Store,
        holder: str,
        units: Sequence[Unit],
        keepers: Mapping[Key, Keeper],
        ttl_s: float = LEASE_S,
        is_busy: Callable[[str], bool] = lambda _: False,
        *,
        whole: bool = False,
        presence: str = "",
    ) -> None:
        self._store = store
        self._holder = holder
        self._name = holder.partition("#")[0]
        self._presence = WORKER + (presence or self._name)
        self._units = {unit.name: unit for unit in units}
        self._keepers = keepers
        self._ttl_s = ttl_s
        self._is_busy = is_busy
        self._whole = whole
        self._until_s: dict[Key, float] = {}
        self._leaving_s: dict[str, float] = {}
        self._known = False
        self._since_s = 0.0
        self._away = Outage("the database")

    def may_ask(self, source: str) -> bool:
        """Tell whether a source's upstreams can all be asked, each with a budget that is ours and stays so."""
        return any(
            source in unit.sources and name not in self._leaving_s and all(self.holds(key) for key in unit.keys)
            for name, unit in self._units.items()
        )

    def holds(self, key: Key) -> bool:
        """Tell whether a budget is ours now."""
        return count_s() < self._until_s.get(key, 0.0)

    @property
    def is_whole(self) -> bool:
        """Whether every budget that it wants is ours."""
        return all(self.holds(key) for unit in self._units.values() for key in unit.keys)

    async def run(self) -> None:
        """Take, renew and hand over until cancelled.

        Raises
        ------
        ConfigError
            If another worker runs under the same name.
        """
        while True:
            try:
                await self.tick()
                self._away.end()
            except StoreError as exc:
                self._away.note(exc)
            await asyncio.sleep(min(TICK_S, self._ttl_s / RENEWALS))

    async def take_all(self, say: Callable[[str], None]) -> None:
        """Return when every budget that it wants is ours; ``say`` is told once whom we wait for.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        told = False
        while True:
            await self.tick()
            if self.is_whole:
                return
            if not told:
                held = await self._store.leases.read(BUDGET)
                others = sorted({row.holder.partition("#")[0] for row in held} - {self._name})
                say(f"waiting for the budgets that {', '.join(others) or 'another worker'} gives back")
                told = True
            await asyncio.sleep(min(TICK_S, self._ttl_s / RENEWALS))

    async def tick(self) -> None:
        """Renew what is held, then take what is due and give back what is another's."""
        leases, asked_s = self._store.leases, count_s()
        held = [key for key in self._keepers if key in self._until_s]
        states: dict[str, Mapping[str, Any]] = {_name(key): await self._keepers[key].tell() for key in held}
        wants = {"wants": sorted(self._units), "whole": self._whole, "since_s": self._since_s}
        ours = await leases.renew(self._holder, {**states, self._presence: wants}, self._ttl_s)
        until_s = trusted_until_s(asked_s, self._ttl_s)
        for key in held:
            if _name(key) in ours:
                self._until_s[key] = until_s
                await self._keepers[key].renew(until_s - count_s())
            else:
                log.warning("%s is another worker's now: this one was silent for too long", _name(key))
                await self._drop(key)
        if self._presence not in ours:
            await self._announce(wants)
        await self._follow_shares(await leases.read(WORKER), await leases.read(BUDGET))

    async def close(self) -> None:
        """Give everything back, with what the next keepers must know."""
        shared = False
        with contextlib.suppress(StoreError):
            await self._store.leases.give_back(self._presence, self._holder)
            others = await self._store.leases.read(WORKER)
            shared = any(row.holder == self._holder for row in others)  # another driver of this cluster goes on
        for key in [] if shared else list(self._until_s):
            with contextlib.suppress(StoreError):  # it expires by itself
                await self._give_back(key)
        self._until_s.clear()

    async def _announce(self, wants: Mapping[str, Any]) -> None:
        if self._known:
            raise ConfigError(
                f"another worker runs under the name {self._name!r} and took over: give each its own with --name"
            )
        taken = await self._store.leases.take(self._presence, self._holder, self._ttl_s)
        if taken.is_ours:
            self._since_s = await self._store.leases.read_now_s()
            await self._store.leases.renew(
                self._holder, {self._presence: {**wants, "since_s": self._since_s}}, self._ttl_s
            )
            self._known = True

    async def _follow_shares(self, workers: Sequence[LeaseRow], budgets: Sequence[LeaseRow]) -> None:
        holder_of = {row.name: row.holder.partition("#")[0] for row in budgets}
        wanted: dict[str, set[str]] = defaultdict(set)
        for row in workers:
            wanted[row.holder.partition("#")[0]].update(row.state.get("wants", ()))
        by_age = sorted(workers, key=lambda row: (row.state.get("since_s", 0.0), row.name))
        whole = [row.holder.partition("#")[0] for row in by_age if row.state.get("whole")]
        holders = {unit: holder_of.get(unit.partition(" + ")[0], "") for units in wanted.values() for unit in units}
        shares = share_out(wanted, holders, whole)
        now_s = asyncio.get_running_loop().time()
        for name, unit in self._units.items():
            if shares.get(name) == self._name:
                self._leaving_s.pop(name, None)
                for key in unit.keys:
                    if key not in self._until_s:
                        await self._take(key)
            elif any(key in self._until_s for key in unit.keys):
                since_s = self._leaving_s.setdefault(name, now_s)
                if now_s - since_s >= HANDOVER_S or not self._is_needed(unit):
                    for key in unit.keys:
                        await self._give_back(key)
                    self._leaving_s.pop(name, None)

    def _is_needed(self, unit: Unit) -> bool:
        return any(self._is_busy(source) for source in unit.sources)

    async def _take(self, key: Key) -> None:
        asked_s = count_s()
        taken = await self._store.leases.take(_name(key), self._holder, self._ttl_s)
        if not taken.is_ours:
            return
        # An earlier life of ours that was killed told as little of its last seconds as a stranger.
        knows = not taken.holder or taken.gave_back or taken.age_s > self._ttl_s + LONGEST_WINDOW_S
        until_s = trusted_until_s(asked_s, self._ttl_s)
        await self._keepers[key].begin(taken.state, taken.age_s, knows, until_s - count_s())
        self._until_s[key] = until_s

    async def _give_back(self, key: Key) -> None:
        if key not in self._until_s:
            return
        await self._drop(key)
        await self._store.leases.give_back(_name(key), self._holder, await self._keepers[key].tell())

    async def _drop(self, key: Key) -> None:
        self._until_s.pop(key, None)
        await self._keepers[key].end()


def _name(key: Key) -> str:
    return BUDGET + " ".join(key)
