"""Who keeps which budget: equal shares, nothing kept twice, handed over when it is idle or when its keeper dies."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import ConfigError, StoreError
from astrid.pipeline import holdings as holdings_module
from astrid.pipeline.holdings import Holdings, Key, Unit, list_units, share_out
from astrid.sources import SOURCES
from astrid.store import LeaseRow, Store, Taken

USERS = {upstream: [upstream] for source in SOURCES.values() for upstream in source.budgets}


class TestUnits:
    def test_upstreams_that_a_source_joins_are_one(self) -> None:
        units = {u.name: u for u in list_units(SOURCES, USERS | {"github": ["user:1", "user:2"]})}
        news = units["budget hn_algolia hn_algolia + budget hn_firebase hn_firebase"]
        assert news.keys == (("hn_algolia", "hn_algolia"), ("hn_firebase", "hn_firebase"))
        assert news.sources == ("hackernews",)
        assert [units[f"budget github user:{n}"].keys for n in (1, 2)] == [(("github", f"user:{n}"),) for n in (1, 2)]
        assert {s for u in units.values() for s in u.sources} == set(SOURCES)
        assert len({key for u in units.values() for key in u.keys}) == sum(len(u.keys) for u in units.values())

    def test_who_has_no_token_has_no_unit(self) -> None:
        units = list_units({"github": SOURCES["github"], "npm": SOURCES["npm"]}, {"npm": ["npm"], "github": []})
        assert [u.name for u in units] == ["budget npm npm"]

    def test_all_see_the_same_names_whatever_they_drain(self) -> None:
        everything = {u.name for u in list_units(SOURCES, USERS)}
        for name, source in SOURCES.items():
            assert {u.name for u in list_units({name: source}, USERS)} <= everything


WANTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]), st.sets(st.sampled_from(list("uvwxyz")), min_size=1), min_size=1
)


class TestShares:
    @given(WANTS, st.dictionaries(st.sampled_from(list("uvwxyz")), st.sampled_from(["a", "b", "c", "d", "gone"])))
    def test_everything_wanted_is_somebodys_who_wants_it_and_it_stays_so(
        self, wants: Mapping[str, set[str]], holders: Mapping[str, str]
    ) -> None:
        shares = share_out(wants, holders)
        assert set(shares) == set().union(*wants.values())
        assert all(unit in wants[worker] for unit, worker in shares.items())
        assert share_out(wants, shares) == shares, "once shared out, nothing moves any more"

    @given(st.integers(1, 9), st.integers(1, 12), st.randoms())
    def test_equal_wishes_get_equal_shares(self, workers: int, units: int, draw: Any) -> None:
        names = [f"unit {n}" for n in range(units)]
        wants = {f"worker {n}": names for n in range(workers)}
        holders = {unit: draw.choice([*wants, "gone"]) for unit in names}
        counts = [list(share_out(wants, holders).values()).count(worker) for worker in wants]
        assert max(counts) - min(counts) <= 1

    def test_who_can_use_little_is_not_passed_over(self) -> None:
        assert share_out({"a": ["x", "y"], "b": ["y"]}, {"x": "a", "y": "a"}) == {"x": "a", "y": "b"}

    def test_one_more_worker_takes_half_and_no_more(self) -> None:
        units = list("abcdefgh")
        alone = share_out({"one": units}, {})
        both = share_out({"one": units, "two": units}, alone)
        assert list(both.values()).count("two") == 4

    def test_a_cluster_takes_the_whole_of_what_it_wants(self) -> None:
        wants = {"w": ["x", "y", "z"], "ray 1": ["x", "y"], "ray 2": ["y", "z"]}
        assert share_out(wants, {}, ["ray 2", "ray 1"]) == {"x": "ray 1", "y": "ray 2", "z": "ray 2"}


@dataclass
class FakeLeases:
    """The lease table of one database whose clock stands until it is told to go on."""

    rows: dict[str, tuple[str, float, dict[str, Any], float]] = field(default_factory=dict)
    now_s: float = 1000.0
    away: bool = False

    def _meet(self) -> None:
        if self.away:
            raise StoreError("away")

    async def take(self, name: str, holder: str, ttl_s: float) -> Taken:
        self._meet()
        before, expires_s, state, renewed_s = self.rows.get(name, ("", 0.0, {}, self.now_s))
        same = before.partition("#")[0] == holder.partition("#")[0]
        if expires_s > self.now_s and not same:
            return Taken(False, before, False, state)
        self.rows[name] = (holder, self.now_s + ttl_s, state, self.now_s)
        return Taken(True, before, expires_s == float("-inf"), state, self.now_s - renewed_s)

    async def renew(self, holder: str, states: Mapping[str, Any], ttl_s: float) -> set[str]:
        self._meet()
        ours = {name for name in states if self.rows.get(name, ("",))[0] == holder}
        self.rows |= {n: (holder, self.now_s + ttl_s, dict(states[n]), self.now_s) for n in ours}
        return ours

    async def give_back(self, name: str, holder: str, state: Mapping[str, Any] | None = None) -> None:
        self._meet()
        if self.rows.get(name, ("",))[0] != holder:
            return
        if state is None:
            del self.rows[name]
        else:
            self.rows[name] = (holder, float("-inf"), dict(state), self.now_s)

    async def read(self, prefix: str) -> list[LeaseRow]:
        self._meet()
        rows = sorted((n, r) for n, r in self.rows.items() if n.startswith(prefix) and r[1] > self.now_s)
        return [LeaseRow(name, holder, state) for name, (holder, _, state, _) in rows]

    async def read_now_s(self) -> float:
        self._meet()
        return self.now_s


@dataclass
class FakeKeeper:
    """A budget that notes when it is whose."""

    name: str
    owners: dict[str, str]
    began: list[tuple[Any, bool]] = field(default_factory=list)
    ours: bool = False
    spent: int = 0

    async def begin(self, state: Mapping[str, Any], age_s: float, is_clean: bool, trusted_s: float) -> None:
        self.began.append((dict(state), is_clean))
        self.ours = True

    async def tell(self) -> Mapping[str, Any]:
        return {"spent": self.spent}

    async def renew(self, trusted_s: float) -> None:
        assert trusted_s > 0
        self.ours = True

    async def end(self) -> None:
        self.ours = False


UNITS = [Unit(f"budget {u} {u}", ((u, u),), (f"source-{u}",)) for u in ("m", "n", "o", "p")]
TTL_S = 45.0


class World:
    """Workers over one lease table, whose own clock goes with the database's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leases = FakeLeases()
        self.busy: dict[str, set[str]] = defaultdict(set)
        self.keepers: dict[str, dict[Key, FakeKeeper]] = {}
        for module in (holdings_module, "astrid.pipeline.leases"):
            target = f"{module}.count_s" if isinstance(module, str) else f"{module.__name__}.count_s"
            monkeypatch.setattr(target, lambda: self.leases.now_s)

    def worker(self, name: str, units: list[Unit] | None = None, **options: Any) -> Holdings:
        own = UNITS if units is None else units
        keepers = {key: FakeKeeper(key[0], {}) for u in own for key in u.keys}
        self.keepers[name] = keepers
        store = cast(Store, SimpleNamespace(leases=self.leases))
        return Holdings(store, name, own, keepers, TTL_S, lambda s: s in self.busy[name], **options)

    def held(self, holdings: Holdings) -> set[str]:
        return {key[0] for unit in UNITS for key in unit.keys if holdings.holds(key)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def tick(*all_: Holdings, times: int = 3) -> None:
    for _ in range(times):
        for holdings in all_:
            await holdings.tick()


async def test_one_alone_has_all_and_two_share(world: World) -> None:
    a, b = world.worker("a#1"), world.worker("b#1")
    await tick(a)
    assert world.held(a) == {"m", "n", "o", "p"}
    assert a.is_whole
    await tick(a, b)
    assert world.held(a) | world.held(b) == {"m", "n", "o", "p"}
    assert world.held(a) & world.held(b) == set()
    assert len(world.held(a)) == len(world.held(b)) == 2
    for unit in UNITS:
        owners = [h for h in (a, b) if h.may_ask(unit.sources[0])]
        assert len(owners) == 1
    moved = next(k for k in world.keepers["b#1"].values() if k.ours)
    assert moved.began == [({"spent": 0}, True)], "it is told what was spent, and that this is all"


async def test_what_still_runs_is_waited_for_and_nothing_new_is_received(world: World) -> None:
    a, b = world.worker("a#1"), world.worker("b#1")
    await tick(a)
    world.busy["a#1"] = {f"source-{u}" for u in "mnop"}
    await tick(a, b)
    assert world.held(a) == {"m", "n", "o", "p"}
    assert world.held(b) == set()
    leaving = [u for u in UNITS if not a.may_ask(u.sources[0])]
    assert len(leaving) == 2
    world.busy["a#1"] = set()
    await tick(a, b)
    assert len(world.held(b)) == 2


async def test_but_not_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = world.worker("a#1"), world.worker("b#1")
    await tick(a)
    world.busy["a#1"] = {f"source-{u}" for u in "mnop"}
    await tick(a, b)
    monkeypatch.setattr(holdings_module, "HANDOVER_S", 0.0)
    await tick(a, b)
    assert len(world.held(b)) == 2


async def test_a_killed_worker_is_followed_when_its_leases_are_over(world: World) -> None:
    a, b = world.worker("a#1"), world.worker("b#1")
    await tick(a, b, times=5)
    before = world.held(a)
    world.leases.now_s += TTL_S - 1
    await tick(b)
    assert world.held(b) & before == set(), "not a second too early"
    world.leases.now_s += 2
    await tick(b)
    assert world.held(b) == {"m", "n", "o", "p"}
    taken = [k for k in world.keepers["b#1"].values() if k.name in before]
    assert [k.began[-1][1] for k in taken] == [False, False], "what it spent last, nobody tells"


async def test_a_stopped_worker_stops_by_its_own_clock_before_others_may_begin(world: World) -> None:
    a = world.worker("a#1")
    await tick(a)
    world.leases.now_s += TTL_S * 0.95
    assert world.held(a) == set()
    assert not any(a.may_ask(u.sources[0]) for u in UNITS)
    b = world.worker("b#1")
    await tick(b)
    assert world.held(b) == set(), "by the database's clock they are still a's"
    await tick(a)
    assert len(world.held(a)) >= 2, "it was silent and nobody took them: it goes on"


async def test_one_that_wakes_up_too_late_finds_that_it_has_nothing(world: World) -> None:
    a, b = world.worker("a#1"), world.worker("b#1")
    await tick(a)
    world.leases.now_s += TTL_S + 1
    await tick(b)
    assert world.held(b) == {"m", "n", "o", "p"}
    await a.tick()
    assert world.held(a) == set()
    assert not any(k.ours for k in world.keepers["a#1"].values())
    await tick(a, b)
    assert len(world.held(a)) == len(world.held(b)) == 2


async def test_the_next_life_of_a_name_has_its_budgets_at_once(world: World) -> None:
    await tick(world.worker("a#1"))
    again = world.worker("a#2")
    await tick(again)
    assert world.held(again) == {"m", "n", "o", "p"}
    assert {k.began[0][1] for k in world.keepers["a#2"].values()} == {False}


async def test_two_living_workers_of_one_name_are_told(world: World) -> None:
    first = world.worker("a#1")
    await tick(first)
    await tick(world.worker("a#2"))
    with pytest.raises(ConfigError, match="another worker runs under the name 'a'"):
        await first.tick()


async def test_a_worker_that_ends_gives_everything_back_with_what_was_spent(world: World) -> None:
    a, b = world.worker("a#1"), world.worker("b#1")
    await tick(a)
    for keeper in world.keepers["a#1"].values():
        keeper.spent = 7
    await a.close()
    assert world.held(a) == set()
    await tick(b, times=1)
    assert world.held(b) == {"m", "n", "o", "p"}
    assert {str(k.began) for k in world.keepers["b#1"].values()} == {str([({"spent": 7}, True)])}


async def test_a_database_that_is_away_costs_the_budgets_only_for_so_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings_module, "TICK_S", 0.001)
    a = world.worker("a#1")
    running = asyncio.create_task(a.run())
    await asyncio.sleep(0.1)
    assert a.is_whole
    world.leases.away = True
    world.leases.now_s += TTL_S
    await asyncio.sleep(0.1)
    assert world.held(a) == set()
    world.leases.away = False
    await asyncio.sleep(0.1)
    assert a.is_whole
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class TestClusters:
    async def test_a_cluster_takes_all_and_workers_stand_back(self, world: World) -> None:
        a = world.worker("a#1")
        await tick(a)
        cluster = world.worker("ray x#cluster", whole=True, presence="ray x driver-1")
        await tick(a, cluster)
        assert cluster.is_whole
        assert world.held(a) == set()
        await cluster.close()
        await tick(a)
        assert a.is_whole

    async def test_of_two_clusters_the_first_goes_first(self, world: World) -> None:
        """Each with a part, waiting for the rest, would wait for ever."""
        later_by_name = world.worker("ray z#cluster", UNITS[:3], whole=True)
        await tick(later_by_name)
        world.leases.now_s += 1
        sooner_by_name = world.worker("ray b#cluster", UNITS[1:], whole=True)
        await tick(later_by_name, sooner_by_name, times=5)
        assert world.held(later_by_name) == {"m", "n", "o"}
        assert world.held(sooner_by_name) == {"p"}
        await later_by_name.close()
        await tick(sooner_by_name)
        assert sooner_by_name.is_whole

    async def test_two_drivers_of_one_cluster_hold_together(self, world: World) -> None:
        one = world.worker("ray x#cluster", whole=True, presence="ray x one")
        await tick(one)
        other = world.worker("ray x#cluster", whole=True, presence="ray x two")
        await tick(one, other)
        assert one.is_whole
        assert other.is_whole
        await one.close()
        assert {row.holder for row in await world.leases.read("budget ")} == {"ray x#cluster"}
        await tick(other)
        assert other.is_whole
        await other.close()
        assert await world.leases.read("") == []

    async def test_taking_all_waits_and_says_for_whom(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(holdings_module, "TICK_S", 0.001)
        a = world.worker("a#1")
        await tick(a)
        said: list[str] = []
        cluster = world.worker("ray x#cluster", whole=True, presence="ray x one")
        taking = asyncio.create_task(cluster.take_all(said.append))
        await asyncio.sleep(0.05)
        assert not taking.done()
        await tick(a)
        async with asyncio.timeout(10):
            await taking
        assert said == ["waiting for the budgets that a gives back"]
