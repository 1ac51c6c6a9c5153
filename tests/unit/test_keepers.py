"""What a token actor adds to a budget: a restart, a leader, a gauge. Ray itself is not asked here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from astrid import actors, metrics
from astrid.actors import ActorName, BudgetKeeper
from astrid.ratelimit import Ask, Receipt
from astrid.signals import Signal

START = 1_775_019_600.0


class FakeGauge:
    """Keeps what was set last, by the gauge's name and labels."""

    values: dict[tuple[str, str], float]

    def __init__(self, name: str, text: str, tag_keys: tuple[str, ...]) -> None:
        self.name = name

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self.name, tags["upstream"]] = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], float]:
    """Stand in for Ray's metrics and give what was set."""
    FakeGauge.values = {}
    monkeypatch.setattr(actors, "Gauge", FakeGauge)
    return FakeGauge.values


def keeper(
    monkeypatch: pytest.MonkeyPatch, upstream: str, *, restarted: bool = False, speed: float | None = None
) -> BudgetKeeper:
    context = SimpleNamespace(was_current_actor_reconstructed=restarted)
    monkeypatch.setattr(actors.ray, "get_runtime_context", lambda: context)
    return BudgetKeeper(upstream, "user", None, False, speed)


@pytest.mark.parametrize(("restarted", "granted"), [(False, 1), (True, 0)])
async def test_a_restarted_keeper_takes_the_window_for_full(
    monkeypatch: pytest.MonkeyPatch, gauges: object, restarted: bool, granted: int
) -> None:
    npm = keeper(monkeypatch, "npm", restarted=restarted)
    grant = await npm.exchange([], [], Ask("core"), START)
    assert len(grant.permit_ids) == granted
    if restarted:
        assert grant.wait_s == pytest.approx(5.0), "npm's whole window"
        assert (await npm.exchange([], [], Ask("core"), START + 5)).permit_ids


async def test_a_refused_token_shows_in_the_gauge_until_another_keeps_the_budget(
    monkeypatch: pytest.MonkeyPatch, gauges: dict[tuple[str, str], float]
) -> None:
    name = metrics.TOKENS_QUARANTINED[0]
    github = keeper(monkeypatch, "github")
    assert gauges == {(name, "github"): 0}
    probe = await github.exchange([], [], Ask("core", token="a"), START)
    await github.exchange([Receipt(probe.permit_ids[0], Signal("dead"), START)], [], None, START)
    assert gauges == {(name, "github"): 1}
    await github.follow(ActorName("TokenActor:github:b", "astrid"))
    assert gauges == {(name, "github"): 0}


async def test_a_follower_hands_on(monkeypatch: pytest.MonkeyPatch, gauges: object) -> None:
    handed: list[tuple[Any, ...]] = []

    class Leader:
        class exchange:
            @staticmethod
            async def remote(*given: Any) -> str:
                handed.append(given)
                return "grant"

    github = keeper(monkeypatch, "github")
    await github.follow(ActorName("TokenActor:github:a", "astrid"))
    monkeypatch.setattr(ActorName, "find", lambda self: Leader)
    assert await github.exchange([], [7], None, START) == "grant"
    assert handed == [([], [7], None, START)]


class TestLeased:
    """On clusters whose budgets others spend too, a keeper grants only what its driver has a lease for."""

    async def test_nothing_is_granted_without_a_lease(self, monkeypatch: pytest.MonkeyPatch, gauges: object) -> None:
        npm = keeper(monkeypatch, "npm", speed=1.0)
        assert (await npm.exchange([], [], Ask("core"), START)).elsewhere
        await npm.begin({}, 0.0, True, 60.0, START)
        assert (await npm.exchange([], [], Ask("core"), START)).permit_ids
        await npm.end()
        assert (await npm.exchange([], [], Ask("core"), START + 100)).elsewhere

    async def test_what_others_spent_counts(self, monkeypatch: pytest.MonkeyPatch, gauges: object) -> None:
        npm = keeper(monkeypatch, "npm", speed=1.0)
        await npm.begin({"spent": {"core": [[1.0, 1]]}}, 1.0, True, 60.0, START)
        grant = await npm.exchange([], [], Ask("core"), START)
        assert not grant.permit_ids
        assert grant.wait_s == pytest.approx(3.0), "one request in five seconds, two of which have passed"

    async def test_a_second_driver_of_the_cluster_does_not_begin_anew(
        self, monkeypatch: pytest.MonkeyPatch, gauges: object
    ) -> None:
        npm = keeper(monkeypatch, "npm", speed=1.0)
        await npm.begin({}, 0.0, True, 60.0, START)
        (permit,) = (await npm.exchange([], [], Ask("core"), START)).permit_ids
        await npm.begin({}, 0.0, True, 60.0, START)
        await npm.exchange([Receipt(permit, Signal("ok"), START)], [], None, START)
        assert not (await npm.exchange([], [], Ask("core"), START + 1.0)).permit_ids
        assert (await npm.tell(START + 1.0))["spent"]["core"] == [(1.0, 1)]

    async def test_one_that_was_restarted_begins_full_at_the_next_renewal(
        self, monkeypatch: pytest.MonkeyPatch, gauges: object
    ) -> None:
        npm = keeper(monkeypatch, "npm", restarted=True, speed=1.0)
        assert (await npm.exchange([], [], Ask("core"), START)).elsewhere
        await npm.renew(60.0, START)
        grant = await npm.exchange([], [], Ask("core"), START)
        assert not grant.permit_ids
        assert grant.wait_s == pytest.approx(5.0)
        await npm.renew(60.0, START + 5.0)
        assert (await npm.exchange([], [], Ask("core"), START + 5.0)).permit_ids
