"""Budgets that several share: tokens of one user, lanes, processors; what seeds them, and tokens that are refused."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.buckets import LONGEST_WAIT_S, NIGHTLY_SHARE
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Request, Response
from astrid.ratelimit import (
    FIRST_QUARANTINE_S,
    NIGHTLY_DUE_S,
    NIGHTLY_IDLE_S,
    Ask,
    Budget,
    Grant,
    Receipt,
)
from astrid.signals import Signal, read_github_signal, read_rate_limit
from astrid.sources import BUDGETS

START = 1_775_019_600.0
PROBE = Request("github", "GET", "/rate_limit")
GITHUB = BUDGETS["github"]
PLAIN = replace(GITHUB, probe=None, busy_s=None)


def one(grant: Grant) -> int:
    (permit,) = grant.permit_ids
    return permit


def seed(budget: Budget, at_s: float, token: str = "", **remaining: int) -> None:
    grant = budget.acquire(Ask("core", token=token), at_s)
    assert grant.probe is not None
    readings = {name: Signal("ok", None, 5000, left, at_s + 1800) for name, left in remaining.items()}
    budget.settle(Receipt(one(grant), Signal(points=0), at_s, 0.1, readings))


class TestSeed:
    def test_nothing_is_granted_before_the_probe_has_told(self) -> None:
        budget = Budget(GITHUB)
        grant = budget.acquire(Ask("graphql", 1, 50), START)
        assert grant.probe == GITHUB.probe
        assert len(grant.permit_ids) == 1
        for bucket in GITHUB.buckets:
            waits = budget.acquire(Ask(bucket, 1, 50, token="other"), START + 1)
            assert (waits.permit_ids, waits.probe) == ((), None)
            assert 0 < waits.wait_s < 1
        readings = {"core": Signal("ok", None, 5000, 140, START + 60), "graphql": Signal("ok", None, 5000, 100)}
        budget.settle(Receipt(grant.permit_ids[0], Signal(), START + 2, 0.2, readings))
        assert len(budget.acquire(Ask("core", 1, 99), START + 2).permit_ids) == 40
        assert not budget.acquire(Ask("graphql"), START + 2).permit_ids
        assert budget.points_spent == {"core": 0, "graphql": 0, "search": 0}

    @pytest.mark.parametrize("with_rate", [True, False])
    def test_both_bodies_of_rate_limit(self, with_rate: bool) -> None:
        body = b'{"resources":{"core":{"limit":5000,"used":1,"remaining":4999,"reset":1775023200},"code_search":{},'
        body += b'"graphql":{"limit":5000,"remaining":-1,"reset":1},"search":{"limit":30,"remaining":30,"reset":9}}'
        body += b',"rate":{"limit":1,"remaining":1,"reset":1}}' if with_rate else b"}"
        found = read_rate_limit(Response(200, {}, body))
        assert found == {
            "core": Signal("ok", None, 5000, 4999, 1775023200.0, 0),
            "search": Signal("ok", None, 30, 30, 9.0, 0),
        }

    @given(st.binary(max_size=200) | st.sampled_from([b"null", b"[]", b'{"resources": 7}', b'{"resources":{"a":3}}']))
    def test_any_other_body_tells_nothing(self, body: bytes) -> None:
        assert read_rate_limit(Response(200, {}, body)) == {}

    def test_an_upstream_that_does_not_know_the_probe_grants_what_is_documented(self) -> None:
        budget = Budget(GITHUB)
        grant = budget.acquire(Ask("core"), START)
        budget.settle(Receipt(one(grant), read_github_signal(Response(404, {}, b"{}"), START), START))
        assert len(budget.acquire(Ask("core", 1, 60), START).permit_ids) == 60

    def test_a_probe_without_an_answer_comes_again_less_and_less_often(self) -> None:
        budget, now_s, waits = Budget(GITHUB), START, []
        for _ in range(8):
            grant = budget.acquire(Ask("core"), now_s)
            assert grant.probe is not None
            budget.settle(Receipt(one(grant), None, now_s))
            waits.append(budget.acquire(Ask("core"), now_s).wait_s)
            now_s += waits[-1]
        assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 32, 32], abs=1e-3)

    def test_a_lost_probe_is_one_without_an_answer(self) -> None:
        budget = Budget(GITHUB)
        budget.acquire(Ask("core", lease_s=10.0, answer_s=1.0), START)
        assert budget.acquire(Ask("core"), START + 9).probe is None
        assert budget.acquire(Ask("core"), START + 12).probe is None
        assert budget.acquire(Ask("core"), START + 14).probe is not None


class TestQuarantine:
    def refuse(self, budget: Budget, token: str, at_s: float) -> None:
        budget.settle(Receipt(one(budget.acquire(Ask("core", token=token), at_s)), Signal("dead"), at_s))

    def test_one_odd_answer_is_only_a_doubt(self) -> None:
        budget = Budget(GITHUB)
        seed(budget, START, "a", core=4000)
        self.refuse(budget, "a", START)
        assert budget.quarantined == {}
        probe = budget.acquire(Ask("core", token="a"), START)
        assert probe.probe is not None
        assert budget.acquire(Ask("core", token="b"), START).probe is None, "the user's other token is not doubted"
        budget.settle(Receipt(one(probe), Signal(), START + 1))
        assert len(budget.acquire(Ask("core", 1, 50, token="a"), START + 1).permit_ids) == 50

    def test_a_confirmed_refusal_rests_and_is_tried_again_ever_later(self) -> None:
        budget, now_s, rests = Budget(GITHUB), START, []
        seed(budget, START, "a", core=4000)
        self.refuse(budget, "a", START)
        for _ in range(9):
            probe = budget.acquire(Ask("core", token="a"), now_s)
            assert probe.probe is not None
            budget.settle(Receipt(one(probe), Signal("dead"), now_s))
            rest = budget.acquire(Ask("core", token="a"), now_s)
            assert rest.dead
            assert "refuses this token" in rest.reason
            assert list(budget.quarantined) == ["a"]
            assert budget.acquire(Ask("core", token="b"), now_s).permit_ids, "the user's other token goes on"
            rests.append(rest.wait_s)
            now_s += rest.wait_s
        expected = [min(FIRST_QUARANTINE_S * 2**n, 86_400) for n in range(9)]
        assert rests == pytest.approx(expected)
        budget.settle(Receipt(one(budget.acquire(Ask("core", token="a"), now_s)), Signal(), now_s))
        assert budget.quarantined == {}
        assert budget.acquire(Ask("core", token="a"), now_s).probe is None

    def test_without_a_probe_the_next_request_is_the_trial(self) -> None:
        budget = Budget(PLAIN)
        self.refuse(budget, "a", START)
        assert budget.acquire(Ask("core", token="a"), START + FIRST_QUARANTINE_S - 1).dead
        trial = budget.acquire(Ask("core", 1, 50, token="a"), START + FIRST_QUARANTINE_S)
        assert trial.probe is None
        assert budget.acquire(Ask("core", 1, 50, token="a"), START + FIRST_QUARANTINE_S).permit_ids == ()
        budget.settle(Receipt(one(trial), Signal(), START + FIRST_QUARANTINE_S + 1))
        assert len(budget.acquire(Ask("core", 1, 50, token="a"), START + FIRST_QUARANTINE_S + 1).permit_ids) == 50

    def test_a_dead_first_token_does_not_keep_the_second_from_asking(self) -> None:
        budget = Budget(GITHUB)
        probe = budget.acquire(Ask("core", token="a"), START)
        budget.settle(Receipt(one(probe), Signal("dead"), START))
        assert budget.acquire(Ask("core", token="a"), START).dead
        seed(budget, START, "b", core=4000)
        assert budget.acquire(Ask("core", token="b"), START).permit_ids


class TestLanes:
    def test_alone_each_lane_may_have_all(self) -> None:
        for lane in ("nightly", "backfill"):
            budget = Budget(PLAIN)
            assert len(budget.acquire(Ask("core", 1, 500, lane=lane), START).permit_ids) == PLAIN.concurrency

    def test_beside_a_nightly_a_backfill_leaves_its_share_of_the_concurrency(self) -> None:
        budget = Budget(PLAIN)
        budget.give_back(one(budget.acquire(Ask("core"), START)))
        assert len(budget.acquire(Ask("core", 1, 500, lane="backfill"), START).permit_ids) == 45
        assert len(budget.acquire(Ask("core", 1, 500), START).permit_ids) == 45

    def test_beside_a_nightly_a_backfill_leaves_its_share_of_the_primary_limit(self) -> None:
        spec = BudgetSpec({"core": BucketSpec((), 1000)}, concurrency=5000, reserve=0.1)
        budget = Budget(spec)
        budget.give_back(one(budget.acquire(Ask("core"), START)))
        past = budget.acquire(Ask("core", 1, 5000, lane="backfill"), START).permit_ids
        assert len(past) == 450
        for n, permit in enumerate(past):
            budget.settle(Receipt(permit, Signal("ok", None, 1000, 999 - n, START + 600), START + 1))
        refused = budget.acquire(Ask("core", lane="backfill"), START + 1)
        assert 0 < refused.wait_s <= LONGEST_WAIT_S
        assert len(budget.acquire(Ask("core", 1, 5000), START + 1).permit_ids) == 450
        assert not budget.acquire(Ask("core"), START + 1).permit_ids, "the reserve is nobody's"

    def test_a_nightly_that_is_over_leaves_all(self) -> None:
        budget = Budget(PLAIN)
        budget.settle(Receipt(one(budget.acquire(Ask("core"), START)), Signal(), START))
        late_s = START + NIGHTLY_IDLE_S
        grant = budget.acquire(Ask("core", 1, 500, lane="backfill"), late_s - 1)
        assert len(grant.permit_ids) == 45
        for permit in grant.permit_ids:
            budget.give_back(permit)
        assert len(budget.acquire(Ask("core", 1, 500, lane="backfill"), late_s).permit_ids) == 90

    def backfill(self, budget: Budget, at_s: float) -> int:
        """Return how many permits a backfill gets, and give them back."""
        grant = budget.acquire(Ask("core", 1, 500, lane="backfill"), at_s)
        for permit in grant.permit_ids:
            budget.give_back(permit)
        return len(grant.permit_ids)

    def test_an_expected_nightly_finds_its_share_at_whatever_hour_it_comes(self) -> None:
        budget = Budget(PLAIN, expects_nightly=True)
        assert self.backfill(budget, START) == 45, "none was seen yet: it may begin at any moment"
        budget.give_back(one(budget.acquire(Ask("core"), START + 3600)))
        began_s = START + 3600
        assert self.backfill(budget, began_s + NIGHTLY_IDLE_S + 1) == 90
        budget.give_back(one(budget.acquire(Ask("core"), began_s + 15 * 3600)))  # the night is run again
        assert self.backfill(budget, began_s + NIGHTLY_DUE_S - 1) == 90
        assert self.backfill(budget, began_s + NIGHTLY_DUE_S) == 45
        assert self.backfill(budget, began_s + 10 * NIGHTLY_DUE_S) == 45, "nights were missed: one may come any time"
        assert self.backfill(Budget(PLAIN), START) == 90, "on a machine of its own a backfill expects nobody"

    def test_a_nightly_that_waits_for_the_next_window_finds_its_share_there(self) -> None:
        budget = Budget(BudgetSpec({"core": BucketSpec((), 1000)}, concurrency=5000, reserve=0.0))
        spent = one(budget.acquire(Ask("core"), START))
        budget.settle(Receipt(spent, Signal("ok", None, 1000, 0, START + 2400), START + 1))
        told = budget.acquire(Ask("core"), START + 1)
        assert told.wait_s == pytest.approx(2400.5)
        back_s = START + 1 + 2 * told.wait_s  # as late as a queue of few delays brings it back
        assert len(budget.acquire(Ask("core", 1, 5000, lane="backfill"), START + 2410).permit_ids) == 500
        assert len(budget.acquire(Ask("core", 1, 5000), back_s).permit_ids) == 500

    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.floats(0, 1.5), st.integers(0, 9)), max_size=60))
    def test_the_nightly_is_refused_nothing_of_its_share(self, steps: list[tuple[bool, int, float, int]]) -> None:
        """Counted here by itself: what the nightly has open, what of it ended within the window, what it spent."""
        window, primary = Window(10, 6.0), 60
        budget = Budget(BudgetSpec({"core": BucketSpec((window,), primary)}, concurrency=6, reserve=0.0))
        budget.give_back(one(budget.acquire(Ask("core"), START)))
        now_s, spent, remaining = START, 0, primary
        open_: list[tuple[int, bool]] = []
        ended: list[float] = []
        for nightly, want, pause_s, settle in steps:
            now_s += pause_s
            grant = budget.acquire(Ask("core", 1, want, lane="nightly" if nightly else "backfill"), now_s)
            open_ += [(permit, nightly) for permit in grant.permit_ids]
            if nightly and len(grant.permit_ids) < want:
                mine = sum(is_mine for _, is_mine in open_)
                recent = sum(at_s > now_s - window.period_s for at_s in ended)
                shares = (NIGHTLY_SHARE * limit for limit in (6, window.limit, primary))
                used = (mine, mine + recent, mine + spent)
                assert any(u >= s for u, s in zip(used, shares, strict=True)), (used, len(open_))
            for _ in range(min(settle, len(open_))):
                permit, is_mine = open_.pop(0)
                remaining -= 1
                budget.settle(Receipt(permit, Signal("ok", None, primary, remaining, START + 3000), now_s))
                if is_mine:
                    ended.append(now_s)
                    spent += 1
        lanes = budget.points_by_lane
        assert lanes["nightly", "core"] == spent
        assert lanes.total() == budget.points_spent["core"] == primary - remaining


class Processors:
    """Sums what answers took, in any 60 seconds, on its own."""

    def __init__(self) -> None:
        self.ended: list[tuple[float, float]] = []

    def most(self) -> float:
        """Return the largest sum of seconds that ended within any minute."""
        most, first, total = 0.0, 0, 0.0
        for at_s, took_s in self.ended:
            total += took_s
            while self.ended[first][0] <= at_s - 60.0:
                total -= self.ended[first][1]
                first += 1
            most = max(most, total)
        return most


def work(budget: Budget, kinds: list[str], until_s: float, took_s: list[float]) -> dict[str, Processors]:
    """Ask for as much as there is for a while; every answer takes the next of some times."""
    found = {"all": Processors(), **{kind: Processors() for kind in kinds}}
    events: list[tuple[float, int, int, str, float]] = []
    now_s, number = START, 0
    while now_s < until_s:
        wait_s = math.inf
        for kind in kinds:
            grant = budget.acquire(Ask(kind, 1, 20), now_s)
            wait_s = min(wait_s, grant.wait_s or math.inf)
            for permit in grant.permit_ids:
                number += 1
                took = took_s[number % len(took_s)]
                heapq.heappush(events, (now_s + took, number, permit, kind, took))
        now_s = min(now_s + wait_s, events[0][0] if events else math.inf)
        while events and events[0][0] <= now_s:
            at_s, _, permit, kind, took = heapq.heappop(events)
            for who in ("all", kind):
                found[who].ended.append((at_s, took))
            budget.settle(Receipt(permit, Signal(), at_s, took))
    return found


class TestProcessors:
    SPEC = BudgetSpec({"core": BucketSpec(), "graphql": BucketSpec(busy_s=60.0)}, concurrency=90, busy_s=90.0)

    def test_a_minute_holds_ninety_seconds_and_sixty_of_graphql(self) -> None:
        found = work(Budget(self.SPEC), ["graphql", "core"], START + 600, [0.5])
        assert found["graphql"].most() <= 60.0
        assert found["all"].most() <= 90.0
        assert sum(took for _, took in found["all"].ended) >= 0.95 * 90.0 * 10
        assert sum(took for _, took in found["graphql"].ended) >= 0.6 * 60.0 * 10

    def test_the_estimate_follows_what_is_measured(self, seed: int) -> None:
        rng = random.Random(seed)
        found = work(Budget(self.SPEC), ["graphql"], START + 900, [rng.uniform(1.0, 3.0) for _ in range(500)])
        later = Processors()
        later.ended = [(at_s, took) for at_s, took in found["graphql"].ended if at_s > START + 120]
        # What is under way when the window is nearly full counts by its estimate: a few answers more or less.
        assert later.most() <= 60.0 * 1.05
        assert sum(took for _, took in later.ended) >= 0.9 * 60.0 * 13

    def test_one_answer_longer_than_a_window_does_not_stop_everything(self) -> None:
        budget = Budget(self.SPEC)
        for n in range(40):
            at_s = START + n * 1000
            budget.settle(Receipt(one(budget.acquire(Ask("graphql"), at_s)), None, at_s + 200, 200.0))
        assert budget.acquire(Ask("graphql"), START + 50_000).permit_ids


def test_a_binding_budget_is_used_to_the_last_point_but_the_reserve(seed: int) -> None:
    """Four hours, two tokens of one user, more work than points; the server's hour opens with its first request."""
    rng, budget, now_s = random.Random(seed), Budget(GITHUB, random.Random(seed).random), START
    opened_s, used, served, number = -1e9, 0, Counter[int](), 0
    events: list[tuple[float, int, int, bool]] = []
    while now_s < START + 4 * 3600:
        grant = budget.acquire(Ask("graphql", 1, 30, token=rng.choice("ab")), now_s)
        for permit in grant.permit_ids:
            number += 1
            heapq.heappush(events, (now_s + rng.uniform(0.2, 0.6), number, permit, grant.probe is not None))
        wait_s = grant.wait_s if not grant.permit_ids else 0.5
        now_s = min(now_s + max(wait_s, 0.01), events[0][0] if events else math.inf)
        while events and events[0][0] <= now_s:
            at_s, _, permit, is_probe = heapq.heappop(events)
            if not is_probe:
                if at_s >= opened_s + 3600:
                    opened_s, used = at_s, 0
                used += 1
                assert used <= 5000 - 100, "the reserve was spent"
                served[round(opened_s)] += 1
            head = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": str(5000 - used)}
            head["x-ratelimit-reset"] = str(math.ceil(opened_s + 3600))
            signal = read_github_signal(Response(200, head if not is_probe else {}, b"{}"), at_s)
            budget.settle(Receipt(permit, signal, at_s, 0.05))
    assert len(served) == 4
    assert sum(served.values()) >= 0.98 * 4 * 4900
    assert budget.points_spent["graphql"] == sum(served.values())
