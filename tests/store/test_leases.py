"""Leases: one holder at a time by the database's clock, whoever dies is followed, nobody is followed too early."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from astrid.clock import count_s
from astrid.errors import StoreError
from astrid.pipeline import leases as leases_module
from astrid.pipeline.leases import TRUSTED, hold_lease, trusted_until_s
from astrid.store import Store

NIGHT = "night 2026-03-31"


async def expire(connection: Any, name: str = NIGHT) -> None:
    """Let the time of a lease pass at once."""
    await connection.execute("UPDATE lease SET expires_at = now() - interval '1 second' WHERE name = $1", name)


async def test_one_holds_and_the_next_follows_when_it_gives_back(store: Store) -> None:
    first = await store.leases.take(NIGHT, "a#1", 60.0)
    assert (first.is_ours, first.holder) == (True, "")
    refused = await store.leases.take(NIGHT, "b#1", 60.0)
    assert (refused.is_ours, refused.holder, refused.gave_back) == (False, "a#1", False)
    await store.leases.give_back(NIGHT, "b#1")  # it is not b's to give
    assert not (await store.leases.take(NIGHT, "b#1", 60.0)).is_ours
    await store.leases.give_back(NIGHT, "a#1")
    assert (await store.leases.take(NIGHT, "b#1", 60.0)).is_ours


async def test_of_many_who_want_one_at_once_one_gets_it(store: Store) -> None:
    for round_ in range(5):
        name = f"budget github user:{round_}"
        taken = await asyncio.gather(*(store.leases.take(name, f"w{n}#1", 60.0) for n in range(8)))
        (row,) = await store.leases.read(name)
        assert [n for n, t in enumerate(taken) if t.is_ours] == [int(row.holder[1:].partition("#")[0])]


async def test_an_expired_one_is_anybodys_and_its_old_holder_is_told_so(store: Store, connection: Any) -> None:
    await store.leases.take(NIGHT, "a#1", 60.0)
    assert await store.leases.renew("a#1", {NIGHT: {}}, 60.0) == {NIGHT}
    await expire(connection)
    assert await store.leases.read("night") == []
    assert await store.leases.renew("a#1", {NIGHT: {}}, 60.0) == {NIGHT}, "nobody has taken it: it may go on"
    await expire(connection)
    taken = await store.leases.take(NIGHT, "b#1", 60.0)
    assert (taken.is_ours, taken.holder, taken.gave_back) == (True, "a#1", False)
    assert await store.leases.renew("a#1", {NIGHT: {"x": 1}}, 60.0) == set()
    (row,) = await store.leases.read("night")
    assert (row.holder, row.state) == ("b#1", {})


async def test_another_life_of_a_holder_takes_its_lease_up_at_once(store: Store) -> None:
    await store.leases.take(NIGHT, "a#1", 600.0)
    taken = await store.leases.take(NIGHT, "a#2", 600.0)
    assert (taken.is_ours, taken.holder, taken.gave_back) == (True, "a#1", False)
    assert await store.leases.renew("a#1", {NIGHT: {}}, 600.0) == set()
    assert not (await store.leases.take(NIGHT, "ab#1", 600.0)).is_ours, "a longer name is another one"


async def test_what_a_holder_leaves_is_there_for_the_next_one(store: Store) -> None:
    name = "budget npm npm"
    await store.leases.take(name, "a#1", 60.0)
    await store.leases.renew("a#1", {name: {"spent": {"core": [[0.5, 3]]}}}, 60.0)
    await store.leases.give_back(name, "a#1", {"spent": {"core": [[0.1, 4]]}})
    assert await store.leases.read(name) == []
    taken = await store.leases.take(name, "b#1", 60.0)
    assert (taken.holder, taken.gave_back, taken.state) == ("a#1", True, {"spent": {"core": [[0.1, 4]]}})
    assert 0.0 <= taken.age_s < 60.0
    (row,) = await store.leases.read(name)
    assert row.state == {"spent": {"core": [[0.1, 4]]}}, "until it says otherwise"


async def test_renewing_writes_every_state_into_its_own_lease(store: Store) -> None:
    names = ["budget b b", "budget a a", "worker w"]
    for name in names:
        await store.leases.take(name, "w#1", 60.0)
    assert await store.leases.renew("w#1", {n: {"n": n} for n in [*names, "budget c c"]}, 60.0) == set(names)
    assert {row.name: row.state["n"] for row in await store.leases.read("")} == {n: n for n in names}
    assert await store.leases.renew("w#1", {}, 60.0) == set()


async def test_old_leases_are_swept(store: Store, connection: Any) -> None:
    for name in ("budget old old", "budget new new"):
        await store.leases.take(name, "w#1", 60.0)
    await connection.execute("UPDATE lease SET renewed_at = now() - interval '8 days' WHERE name = 'budget old old'")
    await store.leases.sweep()
    assert [r["name"] for r in await connection.fetch("SELECT name FROM lease")] == ["budget new new"]


async def test_the_databases_clock_is_told(store: Store, connection: Any) -> None:
    before = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    now_s = await store.leases.read_now_s()
    assert before <= now_s < before + 60.0


class TestHolding:
    async def test_it_is_renewed_while_it_is_held_and_gone_afterwards(
        self, store: Store, connection: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        renew, twice = store.leases.renew, asyncio.Event()
        expiries = [await self.expiry(connection)]

        async def watched(*arguments: Any) -> set[str]:
            ours = await renew(*arguments)
            expiries.append(await self.expiry(connection))
            if len(expiries) > 2:
                twice.set()
            return ours

        monkeypatch.setattr(store.leases, "renew", watched)
        async with asyncio.timeout(60), hold_lease(store, NIGHT, "a#1", 5.0) as lease:
            await twice.wait()
            assert not lease.is_lost
        assert expiries[0] is None
        assert expiries[1] < expiries[2]
        assert (await store.leases.take(NIGHT, "b#1", 60.0)).holder == ""

    @staticmethod
    async def expiry(connection: Any) -> Any:
        return await connection.fetchval("SELECT expires_at FROM lease WHERE name = $1", NIGHT)

    async def test_another_waits_and_says_once_for_whom(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leases_module, "LONGEST_POLL_S", 0.02)
        said: list[str] = []
        async with contextlib.AsyncExitStack() as first:
            await first.enter_async_context(hold_lease(store, NIGHT, "a#1", 60.0))
            second = hold_lease(store, NIGHT, "b#1", 60.0, said.append)
            waiting = asyncio.create_task(second.__aenter__())
            await asyncio.sleep(0.3)
            assert not waiting.done()
        async with asyncio.timeout(10):
            await waiting
        assert said == [f"{NIGHT}: a is at work on it; waiting until it ends, or its lease does"]
        await second.__aexit__(None, None, None)

    async def test_work_ends_when_the_lease_is_anothers(self, store: Store, connection: Any) -> None:
        """A driver that was stopped for longer than its lease must not go on beside the one that followed it."""
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with asyncio.timeout(60), hold_lease(store, NIGHT, "a#1", 1.0) as lease:
            await connection.execute("UPDATE lease SET holder = 'b#1', expires_at = now() + interval '1 hour'")
            with pytest.raises(StoreError, match=f"{NIGHT}: another process took it over"):
                await lease.guard(work())
        assert ended.is_set()
        assert lease.is_lost
        (row,) = await store.leases.read("night")
        assert row.holder == "b#1", "it is not given back by whom it was taken from"

    async def test_guarded_work_returns_and_raises_as_it_is(self, store: Store) -> None:
        async def work(error: Exception | None) -> int:
            if error is not None:
                raise error
            return 7

        async with hold_lease(store, NIGHT, "a#1", 60.0) as lease:
            assert await lease.guard(work(None)) == 7
            with pytest.raises(ValueError, match="its own"):
                await lease.guard(work(ValueError("its own")))

    async def test_a_database_that_is_away_for_a_moment_costs_no_lease(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        renew, failures, renewed = store.leases.renew, 2, asyncio.Event()

        async def flaky(*arguments: Any) -> set[str]:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StoreError("away")
            ours = await renew(*arguments)
            renewed.set()
            return ours

        monkeypatch.setattr(store.leases, "renew", flaky)
        async with asyncio.timeout(60), hold_lease(store, NIGHT, "a#1", 5.0) as lease:
            await renewed.wait()
            assert not lease.is_lost

    def test_a_holder_trusts_a_little_less_than_the_database_says(self) -> None:
        assert trusted_until_s(100.0, 45.0) == 100.0 + 45.0 * TRUSTED < 145.0
        assert not leases_module.is_trusted(count_s() - 1.0)
        assert leases_module.is_trusted(count_s() + 60.0)


async def test_a_clock_that_was_set_back_gives_a_dead_holder_no_more_than_its_time(
    store: Store, connection: Any
) -> None:
    """Rows that were written hours ahead: of one that died, of one that was given back, and of a worker that lives."""
    await store.leases.take(NIGHT, "a#1", 60.0)
    await store.leases.take("budget npm npm", "a#1", 60.0)
    await store.leases.give_back("budget npm npm", "a#1", {"spent": 3})
    await store.leases.take("worker b", "b#1", 60.0)
    await connection.execute(
        "UPDATE lease SET expires_at = expires_at + interval '7 hours', renewed_at = renewed_at + interval '7 hours'"
    )
    refused = await store.leases.take(NIGHT, "c#1", 60.0)
    assert (refused.is_ours, refused.age_s) == (False, pytest.approx(0.0, abs=5.0))
    left_s = "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM lease WHERE name = $1"
    assert 30.0 < await connection.fetchval(left_s, NIGHT) <= 60.0
    given = await store.leases.take("budget npm npm", "c#1", 60.0)
    assert (given.is_ours, given.gave_back, given.state) == (True, True, {"spent": 3})
    assert given.age_s >= 0.0
    assert await store.leases.renew("b#1", {"worker b": {}}, 60.0) == {"worker b"}
    await expire(connection)
    assert (await store.leases.take(NIGHT, "c#1", 60.0)).is_ours
