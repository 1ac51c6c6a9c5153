"""Budgets held against a server that counts by itself, and what answers say about limits."""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Response
from astrid.ratelimit import (
    ANSWER_S,
    FIRST_BACKOFF_S,
    LEASE_S,
    MAX_BACKOFF_S,
    Ask,
    Budget,
    Grant,
    Receipt,
    rank_tokens,
    token_name,
)
from astrid.signals import Signal, read_github_signal, read_plain_signal, read_retry_after
from astrid.sources import BUDGETS

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
START = 1_775_019_600.0
GITHUB = replace(BUDGETS["github"], probe=None, busy_s=None)
"""GitHub's limits without what asks first and what is estimated; those have tests of their own."""


class Server:
    """Counts arrivals on its own: in every sliding window, and in fixed ones that open with a request or at a phase."""

    def __init__(self, windows: tuple[Window, ...], phases: list[float]) -> None:
        self.windows = windows
        self.phases = phases
        self.arrivals: list[float] = []
        self.opened: dict[int, tuple[float, int]] = {}
        self.fixed: Counter[tuple[int, int]] = Counter()
        self.open = self.most_open = 0

    def arrive(self, at_s: float) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.arrivals.append(at_s)
        for n, window in enumerate(self.windows):
            recent = [a for a in self.arrivals[-window.limit - 1 :] if a > at_s - window.period_s + 1e-6]
            assert len(recent) <= window.limit, f"sliding window {window} broken at {at_s}"
            cell = (n, int((at_s + self.phases[n]) // window.period_s))
            self.fixed[cell] += 1
            assert self.fixed[cell] <= window.limit, f"fixed window {window} broken at {at_s}"
            opened_s, used = self.opened.get(n, (-1e9, 0))
            if at_s >= opened_s + window.period_s:
                opened_s, used = at_s, 0
            self.opened[n] = (opened_s, used + 1)
            assert used < window.limit, f"window {window} that opens with a request broken at {at_s}"


def replay(
    spec: BudgetSpec,
    rng: random.Random,
    wanted: int,
    slowest_s: float,
    tokens: tuple[str, ...] = ("",),
    lanes: tuple[str, ...] = ("nightly",),
) -> tuple[Server, float]:
    """Send ``wanted`` requests as fast as the budget lets; way out, work and way back take random times."""
    windows = spec.buckets["core"].windows
    server = Server(windows, [rng.random() * w.period_s for w in windows])
    budget = Budget(spec)
    events: list[tuple[float, int, str, int]] = [(START, 0, "ask", 0)]
    number, sent, waiting = 1, 0, False
    receipts: list[Receipt] = []
    now_s = START
    while events:
        now_s, _, kind, permit = heapq.heappop(events)
        match kind:
            case "ask":
                waiting = False
                give, receipts = receipts, []
                rng.shuffle(give)  # receipts of several workers come in any order
                want = min(rng.randint(1, 9), wanted - sent)
                ask = Ask("core", 1, want, rng.choice(tokens), rng.choice(lanes)) if want else None
                grant = budget.exchange(give, (), ask, now_s)
                unused = [p for p in grant.permit_ids if rng.random() < 0.1]
                for p in unused:
                    budget.give_back(p)
                for p in grant.permit_ids:
                    if p not in unused:
                        heapq.heappush(events, (now_s + rng.random() * slowest_s, number, "arrive", p))
                        number, sent = number + 1, sent + 1
                pause_s = grant.wait_s if not grant.permit_ids else 0.001
                assert grant.permit_ids or pause_s > 0 or not want
            case "arrive":
                server.arrive(now_s)
                heapq.heappush(events, (now_s + rng.random() * slowest_s, number, "answer", permit))
                number, pause_s = number + 1, 0.05
            case _:
                server.open -= 1
                receipts.append(Receipt(permit, Signal(), now_s))
                pause_s = 0.0
        if not waiting and (sent < wanted or receipts):
            heapq.heappush(events, (now_s + pause_s, number, "ask", 0))
            number, waiting = number + 1, True
        assert number < 60 * wanted, "the budget is asked again and again and never grants"
    assert len(server.arrivals) == wanted
    return server, now_s - START


class TestWindows:
    @pytest.mark.parametrize("slowest_s", [0.0, 0.02, 0.5, 3.0])
    @pytest.mark.parametrize("run", range(3))
    def test_no_latency_breaks_a_window(self, seed: int, run: int, slowest_s: float) -> None:
        rng = random.Random(f"{seed} {run} {slowest_s}")
        spec = BudgetSpec({"core": BucketSpec((Window(5, 1.0), Window(12, 6.0)))}, concurrency=4)
        server, _ = replay(spec, rng, 60, slowest_s)
        assert server.most_open <= 4

    @pytest.mark.parametrize("run", range(3))
    def test_tokens_of_one_user_and_lanes_share_every_window(self, seed: int, run: int) -> None:
        spec = BudgetSpec({"core": BucketSpec((Window(5, 1.0), Window(12, 6.0)))}, concurrency=4)
        rng = random.Random(f"{seed} {run} shared")
        server, _ = replay(spec, rng, 60, 0.5, ("a", "b", "c"), ("nightly", "backfill"))
        assert server.most_open <= 4

    @pytest.mark.parametrize("upstream", ["pypistats", "clickhouse", "archive"])
    def test_the_real_specs(self, seed: int, upstream: str) -> None:
        server, _ = replay(BUDGETS[upstream], random.Random(f"{seed} {upstream}"), 100, 0.3)
        assert server.most_open <= BUDGETS[upstream].concurrency

    def test_the_budget_is_used_up_not_only_kept(self, seed: int) -> None:
        spec = BudgetSpec({"core": BucketSpec((Window(5, 1.0), Window(30, 60.0)))}, concurrency=4)
        _, took_s = replay(spec, random.Random(seed), 91, 0.05)
        # 90 requests fill three minutes' windows, the next one opens the fourth.
        assert 180.0 <= took_s < 200.0

    @given(st.lists(st.tuples(st.integers(0, 8), st.floats(0, 2), st.booleans()), max_size=40))
    def test_any_steps_keep_the_books(self, steps: list[tuple[int, float, bool]]) -> None:
        budget = Budget(BudgetSpec({"core": BucketSpec((Window(6, 1.0),))}, concurrency=5))
        now_s, granted, answered = START, 0, 0
        held: list[int] = []
        for want, pause_s, settle in steps:
            now_s += pause_s
            grant = budget.acquire(Ask("core", 1, want), now_s) if want else None
            if grant is not None:
                assert bool(grant.permit_ids) != (grant.wait_s > 0)
                assert len(grant.permit_ids) <= min(want, 5 - len(held))
                held += grant.permit_ids
                granted += len(grant.permit_ids)
            while held and settle:
                budget.settle(Receipt(held.pop(), None, now_s))
                answered += 1
        assert budget.requests_sent["core"] == budget.points_spent["core"] == answered == granted - len(held)
        for permit in held:
            budget.give_back(permit)
            budget.give_back(permit)
        assert len(budget.acquire(Ask("core", 1, 99), now_s + 1.0).permit_ids) == 5

    def test_concurrency_is_shared_by_the_buckets(self) -> None:
        budget = Budget(GITHUB)
        rest = budget.acquire(Ask("core", 1, 60), START)
        graphql = budget.acquire(Ask("graphql", 1, 60), START)
        assert (len(rest.permit_ids), len(graphql.permit_ids)) == (60, 30)
        assert budget.acquire(Ask("search", 1, 1), START).wait_s > 0
        assert len({*rest.permit_ids, *graphql.permit_ids}) == 90

    def test_unknown_bucket(self) -> None:
        with pytest.raises(KeyError):
            Budget(BUDGETS["archive"]).acquire(Ask("graphql", 1, 1), START)


class TestLeases:
    def test_a_lost_permit_comes_back_and_counts_as_sent(self) -> None:
        budget = Budget(BudgetSpec({"core": BucketSpec((Window(2, 60.0),))}, concurrency=2))
        grant = budget.acquire(Ask("core", 1, 2), START)
        assert budget.acquire(Ask("core", 1, 1), START + LEASE_S - 0.001).wait_s > 0
        late = budget.acquire(Ask("core", 1, 1), START + LEASE_S)
        assert not late.permit_ids
        assert late.wait_s == pytest.approx(60.0)
        assert len(budget.acquire(Ask("core", 1, 2), START + LEASE_S + 60.0).permit_ids) == 2
        budget.settle(Receipt(grant.permit_ids[0], None, START + LEASE_S + 61))
        assert not budget.acquire(Ask("core", 1, 1), START + LEASE_S + 61).permit_ids

    def test_a_permit_may_not_start_so_late_that_its_lease_ends_first(self) -> None:
        grant = Budget(BUDGETS["archive"]).acquire(Ask("core", 1, 1), START)
        assert grant.expires_s == START + LEASE_S - ANSWER_S

    def test_a_late_receipt_still_teaches(self) -> None:
        budget = Budget(GITHUB)
        (permit,) = budget.acquire(Ask("core", 1, 1), START).permit_ids
        budget.acquire(Ask("core", 1, 1), START + LEASE_S)
        budget.settle(Receipt(permit, Signal("secondary", 30.0), START + LEASE_S + 1))
        assert budget.acquire(Ask("core", 1, 1), START + LEASE_S + 2).wait_s == pytest.approx(30.0)

    def test_a_worker_on_a_fast_clock_holds_its_permits_for_longer(self) -> None:
        budget = Budget(BudgetSpec({"core": BucketSpec((Window(1, 60.0),))}, concurrency=1))
        grant = budget.acquire(Ask("core", lease_s=90_000.0, answer_s=45_000.0), START)
        assert grant.expires_s == START + 45_000.0
        assert budget.acquire(Ask("core"), START + 89_999.0).wait_s == pytest.approx(0.05)
        assert budget.acquire(Ask("core"), START + 90_060.0).permit_ids == ()
        assert budget.acquire(Ask("core"), START + 90_121.0).permit_ids

    def test_receipts_of_an_earlier_life_settle_nothing(self) -> None:
        spec = BudgetSpec({"core": BucketSpec((Window(9, 60.0),))}, concurrency=1)
        (old,) = Budget(spec).acquire(Ask("core"), START).permit_ids
        budget = Budget(spec, first_id=1000)
        budget.acquire(Ask("core"), START)
        budget.settle(Receipt(old, Signal(), START + 1))
        assert not budget.acquire(Ask("core"), START + 1).permit_ids
        assert budget.requests_sent == {"core": 0}

    @pytest.mark.parametrize("upstream", sorted(BUDGETS))
    def test_a_life_that_follows_another_takes_all_windows_for_full(self, upstream: str) -> None:
        budget = Budget(replace(BUDGETS[upstream], probe=None))
        budget.begin_full(START)
        name, bucket = next(iter(BUDGETS[upstream].buckets.items()))
        longest_s = max(w.period_s for w in bucket.windows)
        assert budget.acquire(Ask(name), START + 1e-3).wait_s == pytest.approx(longest_s, abs=0.01)
        assert budget.acquire(Ask(name), START + longest_s).permit_ids


class TestLives:
    """A killed worker's permits: its next life takes them for used, other workers' stay theirs."""

    SPEC = BudgetSpec({"core": BucketSpec((Window(10, 60.0),))}, concurrency=3)

    def take(self, budget: Budget, holder: str, at_s: float, want: int = 3) -> Grant:
        return budget.acquire(Ask("core", want=want, holder=holder), at_s)

    def test_the_next_life_need_not_wait_for_what_the_killed_one_holds(self) -> None:
        budget = Budget(self.SPEC)
        assert len(self.take(budget, "a#1", START).permit_ids) == 3
        assert not self.take(budget, "a#1", START + 1).permit_ids
        assert len(self.take(budget, "a#2", START + 2).permit_ids) == 3

    def test_what_it_held_counts_as_answered_now(self) -> None:
        budget = Budget(self.SPEC)
        for life in range(3):
            assert len(self.take(budget, f"a#{life}", START + life).permit_ids) == 3
        grant = self.take(budget, "a#3", START + 3)
        assert len(grant.permit_ids) == 1
        assert not self.take(budget, "a#4", START + 4).permit_ids
        assert self.take(budget, "a#4", START + 61.5).permit_ids

    def test_of_other_workers_and_of_nobody_nothing_is_taken(self) -> None:
        budget = Budget(self.SPEC)
        for holder in ("a#1", "b#1", ""):
            assert self.take(budget, holder, START, want=1).permit_ids
        assert not self.take(budget, "c#2", START + 1).permit_ids
        assert not self.take(budget, "", START + 1).permit_ids
        assert len(self.take(budget, "b#2", START + 2).permit_ids) == 1

    def test_a_late_receipt_of_the_dead_teaches_and_frees_nothing_twice(self) -> None:
        budget = Budget(self.SPEC)
        (old, *_) = self.take(budget, "a#1", START).permit_ids
        self.take(budget, "a#2", START + 1)
        budget.settle(Receipt(old, Signal("secondary", retry_after_s=30.0), START + 2))
        grant = self.take(budget, "a#2", START + 3)
        assert grant.wait_s == pytest.approx(30.0)
        assert not grant.permit_ids


def github(limit: int = 100, reserve: float = 0.1, concurrency: int = 1000) -> Budget:
    return Budget(BudgetSpec({"core": BucketSpec((), limit), "graphql": BucketSpec((), limit)}, concurrency, reserve))


def settle(budget: Budget, permit: int, at_s: float, remaining: int, reset_s: float, limit: int = 100) -> None:
    budget.settle(Receipt(permit, Signal("ok", None, limit, remaining, reset_s), at_s))


class TestPrimary:
    def test_the_reserve_is_never_spent_also_not_by_requests_under_way(self) -> None:
        budget = github()
        assert len(budget.acquire(Ask("core", 1, 500), START).permit_ids) == 90
        assert len(budget.acquire(Ask("graphql", 7, 500), START).permit_ids) == 90 // 7
        assert budget.acquire(Ask("core", 1, 1), START).wait_s > 0

    def test_headers_correct_our_count(self) -> None:
        budget = github()
        (permit,) = budget.acquire(Ask("core", 1, 1), START).permit_ids
        settle(budget, permit, START + 1, remaining=15, reset_s=START + 600)  # someone else spends this token too
        assert len(budget.acquire(Ask("core", 1, 99), START + 1).permit_ids) == 5
        assert budget.acquire(Ask("core", 1, 1), START + 1).wait_s == pytest.approx(600.5)

    def test_a_higher_limit_than_documented_is_used(self) -> None:
        budget = github()
        (permit,) = budget.acquire(Ask("core", 1, 1), START).permit_ids
        settle(budget, permit, START + 1, remaining=999, reset_s=START + 600, limit=1000)
        assert len(budget.acquire(Ask("core", 1, 5000), START + 1).permit_ids) == 899

    @given(st.permutations(range(30)), st.lists(st.floats(-2, 2), min_size=30, max_size=30))
    def test_answers_that_overtake_each_other(self, order: list[int], jitter: list[float]) -> None:
        budget = github()
        permits = budget.acquire(Ask("core", 1, 30), START).permit_ids
        for n in order:
            settle(budget, permits[n], START + 1, remaining=99 - n, reset_s=START + 600 + jitter[n])
        assert len(budget.acquire(Ask("core", 1, 500), START + 2).permit_ids) == 60

    def test_an_answer_of_the_window_before_does_not_refill_the_next(self) -> None:
        budget = github()
        old, new = budget.acquire(Ask("core", 1, 2), START).permit_ids
        settle(budget, new, START + 700, remaining=20, reset_s=START + 4200)
        settle(budget, old, START + 700, remaining=60, reset_s=START + 600)
        assert len(budget.acquire(Ask("core", 1, 500), START + 701).permit_ids) == 10

    def test_an_answer_of_the_window_before_does_not_drain_the_next(self) -> None:
        budget = github()
        old, new = budget.acquire(Ask("core", 1, 2), START).permit_ids
        settle(budget, new, START + 700, remaining=99, reset_s=START + 4200)
        settle(budget, old, START + 700, remaining=0, reset_s=START + 600)
        assert len(budget.acquire(Ask("core", 1, 500), START + 701).permit_ids) == 89

    def test_the_window_ends(self) -> None:
        budget = github()
        (permit,) = budget.acquire(Ask("core", 1, 1), START).permit_ids
        settle(budget, permit, START + 1, remaining=0, reset_s=START + 600)
        wait_s = budget.acquire(Ask("core", 1, 1), START + 1).wait_s
        assert budget.acquire(Ask("core", 1, 1), START + 600.9).wait_s > 0
        assert len(budget.acquire(Ask("core", 1, 500), START + 1 + wait_s).permit_ids) == 90

    def test_without_any_answer_the_budget_comes_back_after_an_hour(self) -> None:
        budget = github()
        for permit in budget.acquire(Ask("core", 1, 500), START).permit_ids:
            budget.settle(Receipt(permit, None, START + 60))
        wait_s = budget.acquire(Ask("core", 1, 1), START + 60).wait_s
        assert 0 < wait_s <= 3602
        assert len(budget.acquire(Ask("core", 1, 500), START + 60 + wait_s).permit_ids) == 90

    @pytest.mark.parametrize("reset_s", [None, START - 100])
    def test_a_refusal_without_a_useful_reset_waits_a_minute(self, reset_s: float | None) -> None:
        budget = github()
        (permit,) = budget.acquire(Ask("core", 1, 1), START).permit_ids
        budget.settle(Receipt(permit, Signal("primary", None, None, 0, reset_s), START))
        assert 60 <= budget.acquire(Ask("core", 1, 1), START).wait_s <= 62
        assert budget.acquire(Ask("graphql", 1, 1), START).permit_ids

    def test_a_refusal_of_a_bucket_without_primary_limit_rests_that_bucket_alone(self) -> None:
        budget = Budget(GITHUB, jitter=lambda: 0.0)
        first, second = budget.acquire(Ask("search", 1, 2), START).permit_ids
        budget.settle(Receipt(first, Signal("primary", None, 30, 0, START + 10), START))
        assert budget.acquire(Ask("search"), START).wait_s == pytest.approx(11.0), "its window's end was told"
        budget.settle(Receipt(second, Signal("primary"), START + 20))
        assert budget.acquire(Ask("search"), START + 20).wait_s == pytest.approx(61.0)
        assert budget.acquire(Ask("core"), START).permit_ids
        assert budget.acquire(Ask("graphql"), START).permit_ids

    def test_the_last_search_of_a_window_rests_that_bucket_alone(self) -> None:
        budget = Budget(GITHUB)
        (permit,) = budget.acquire(Ask("search"), START).permit_ids
        budget.settle(Receipt(permit, Signal("ok", None, 30, 0, START + 40, resource="search"), START))
        assert budget.acquire(Ask("search"), START).wait_s == pytest.approx(41.0)
        assert budget.acquire(Ask("core"), START).permit_ids

    @given(st.data())
    def test_requests_of_others_lost_answers_and_any_order_never_break_the_limit(self, data: st.DataObject) -> None:
        budget, now_s, used = github(), START, 0
        answers: list[tuple[int, int | None]] = []
        for _ in range(data.draw(st.integers(1, 15))):
            for permit in budget.acquire(Ask("core", 1, data.draw(st.integers(1, 12))), now_s).permit_ids:
                used += 1
                assert used <= 100 - 1, "the reserve of ten is there for what others spend meanwhile"
                is_lost = data.draw(st.integers(0, 9)) == 0
                answers.append((permit, None if is_lost else 100 - used))
            while answers:
                if data.draw(st.booleans()):
                    break
                permit, remaining = answers.pop(data.draw(st.integers(0, len(answers) - 1)))
                if remaining is None:
                    budget.settle(Receipt(permit, None, now_s))
                else:
                    settle(budget, permit, now_s, remaining, START + 3000 + data.draw(st.floats(-2, 2)))
            used += min(data.draw(st.integers(0, 1)), 9 - max(0, used - 90)) if used < 90 else 0
            now_s += 1.0


class TestSecondary:
    def block(self, budget: Budget, at_s: float, retry_after_s: float | None = None, requests: int = 1) -> None:
        permits = budget.acquire(Ask("core", 1, requests), at_s).permit_ids
        assert len(permits) == requests
        for permit in permits:
            budget.settle(Receipt(permit, Signal("secondary", retry_after_s), at_s))

    def test_retry_after_is_kept_and_blocks_all_buckets(self) -> None:
        budget = Budget(GITHUB)
        self.block(budget, START, 30.0)
        for bucket in ("core", "graphql", "search"):
            assert budget.acquire(Ask(bucket, 1, 1), START).wait_s == pytest.approx(31.0)
        assert budget.acquire(Ask("core", 1, 1), START + 30.0).wait_s > 0
        assert budget.acquire(Ask("core", 1, 1), START + 31.0).permit_ids

    def test_without_a_time_the_pause_doubles_up_to_an_hour(self) -> None:
        budget, now_s, waits = Budget(GITHUB, jitter=lambda: 0.0), START, []
        for _ in range(9):
            self.block(budget, now_s)
            waits.append(budget.acquire(Ask("core", 1, 1), now_s).wait_s)
            now_s += waits[-1]
        assert waits[:6] == pytest.approx([FIRST_BACKOFF_S * 2**n for n in range(6)])
        assert waits[6:] == pytest.approx([MAX_BACKOFF_S] * 3)

    def test_many_refusals_of_one_moment_are_one_strike(self) -> None:
        budget = Budget(GITHUB, jitter=lambda: 0.0)
        self.block(budget, START, requests=90)
        assert budget.acquire(Ask("core", 1, 1), START).wait_s == pytest.approx(60.0)

    def test_a_longer_pause_stands_whatever_comes_after_it(self) -> None:
        budget = Budget(GITHUB, jitter=lambda: 0.0)
        one, two = budget.acquire(Ask("core", 1, 2), START).permit_ids
        budget.settle(Receipt(one, Signal("secondary", 600.0), START))
        budget.settle(Receipt(two, Signal("secondary", 5.0), START + 1))
        assert budget.acquire(Ask("core", 1, 1), START + 1).wait_s == pytest.approx(600.0)

    def test_only_an_answer_after_the_pause_forgives(self) -> None:
        budget = Budget(GITHUB, jitter=lambda: 0.0)
        struck, early = budget.acquire(Ask("core", 1, 2), START).permit_ids
        budget.settle(Receipt(struck, Signal("secondary"), START))
        budget.settle(Receipt(early, Signal("ok"), START + 1))
        self.block(budget, START + 60)
        assert budget.acquire(Ask("core", 1, 1), START + 60).wait_s == pytest.approx(120.0)
        (permit,) = budget.acquire(Ask("core", 1, 1), START + 180).permit_ids
        budget.settle(Receipt(permit, Signal("ok"), START + 181))
        self.block(budget, START + 200)
        assert budget.acquire(Ask("core", 1, 1), START + 200).wait_s == pytest.approx(60.0)

    def test_jitter_only_lengthens(self) -> None:
        for jitter in (0.0, 0.5, 0.999):
            budget = Budget(GITHUB, jitter=iter([jitter]).__next__)
            self.block(budget, START)
            assert 60.0 <= budget.acquire(Ask("core", 1, 1), START).wait_s <= 75.0

    def test_no_upstream_means_more_than_a_day(self) -> None:
        budget = Budget(GITHUB)
        self.block(budget, START, 1e11)
        assert budget.acquire(Ask("core"), START).wait_s == pytest.approx(86_401.0)


class TestHeaders:
    @pytest.mark.parametrize("reset_s", [START * 1000, None])
    def test_an_empty_window_without_a_sound_end_ends_after_an_hour(self, reset_s: float | None) -> None:
        budget = Budget(GITHUB)
        (permit,) = budget.acquire(Ask("core"), START).permit_ids
        budget.settle(Receipt(permit, Signal("ok", None, 5000, 100, reset_s), START))
        wait_s = budget.acquire(Ask("core"), START + 10).wait_s
        assert 3500 < wait_s < 3700
        assert budget.acquire(Ask("core"), START + 10 + wait_s).permit_ids

    def test_a_refused_token_tells_nothing_of_its_users_limits(self) -> None:
        """The headers of a 401 are those of anybody at this address: 60 an hour."""
        budget = Budget(GITHUB)
        live, dead = budget.acquire(Ask("core", 1, 2), START).permit_ids
        budget.settle(Receipt(live, Signal("ok", None, 5000, 4999, START + 600), START))
        budget.settle(Receipt(dead, Signal("dead", None, 60, 57, START + 3600), START))
        assert len(budget.acquire(Ask("core", 1, 500, token="other"), START + 1).permit_ids) == 90

    def test_headers_of_another_bucket_are_that_buckets(self) -> None:
        budget = Budget(GITHUB)
        permits = budget.acquire(Ask("core", 1, 3), START).permit_ids
        budget.settle(Receipt(permits[0], Signal("ok", None, 30, 3, START + 60, resource="search"), START))
        budget.settle(Receipt(permits[1], Signal("ok", None, 5000, 105, START + 600, resource="graphql"), START))
        budget.settle(Receipt(permits[2], Signal("ok", None, 7, 0, START + 60, resource="code_search"), START))
        assert len(budget.acquire(Ask("core", 1, 50), START).permit_ids) == 50
        assert len(budget.acquire(Ask("graphql", 1, 50), START).permit_ids) == 5

    def test_more_left_than_there_is_is_no_figure(self) -> None:
        head = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "900000", "x-ratelimit-reset": "1775023200"}
        signal = read_github_signal(Response(200, head, b"{}"), START)
        assert (signal.limit, signal.remaining) == (None, None)


class TestClock:
    """GitHub tells the end of a window by its clock; ours may differ."""

    @pytest.mark.parametrize("ahead_s", [-9000.0, -600.0, -3.0, 0.0, 3.0, 600.0, 9000.0])
    def test_a_window_ends_by_the_upstreams_clock(self, ahead_s: float) -> None:
        budget = Budget(GITHUB)
        theirs_s = START - ahead_s
        (permit,) = budget.acquire(Ask("core"), START).permit_ids
        signal = Signal("ok", None, 5000, 100, theirs_s + 1800, date_s=theirs_s)
        budget.settle(Receipt(permit, signal, START))
        assert budget.acquire(Ask("core"), START).wait_s == pytest.approx(1801.5)
        assert not budget.acquire(Ask("core"), START + 1800).permit_ids
        assert budget.acquire(Ask("core"), START + 1802).permit_ids

    def test_slow_answers_do_not_move_the_clock(self) -> None:
        budget = Budget(GITHUB)
        one, two, late = budget.acquire(Ask("core", 1, 3), START).permit_ids
        for permit, at_s, left in ((one, START, 4999), (two, START + 1, 4998), (late, START + 31, 100)):
            took_s = 30.0 if permit == late else 0.0
            signal = Signal("ok", None, 5000, left, START + 1800, date_s=at_s - took_s)
            budget.settle(Receipt(permit, signal, at_s, took_s))
        assert budget.acquire(Ask("core"), START + 31).wait_s == pytest.approx(1770.5)

    def test_a_clock_that_was_put_right_is_believed_after_a_while(self) -> None:
        budget, ends_s = Budget(GITHUB), START + 2400
        for ahead_s, theirs_s, left in ((-600.0, START + 600, 4999), (0.0, START + 1200, 100)):
            at_s = theirs_s + ahead_s
            (permit,) = budget.acquire(Ask("core"), at_s).permit_ids
            budget.settle(Receipt(permit, Signal("ok", None, 5000, left, ends_s, date_s=theirs_s), at_s))
        assert budget.acquire(Ask("core"), START + 1200).wait_s == pytest.approx(1201.5)

    @pytest.mark.parametrize("date", ["Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", ""])
    def test_a_date_that_is_none_leaves_our_clock(self, date: str) -> None:
        head = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "100", "date": date}
        head["x-ratelimit-reset"] = str(int(START) + 1800)
        budget = Budget(GITHUB)
        (permit,) = budget.acquire(Ask("core"), START).permit_ids
        budget.settle(Receipt(permit, read_github_signal(Response(200, head, b"{}"), START), START))
        assert budget.acquire(Ask("core"), START).wait_s == pytest.approx(1801.5)


class TestPauseOfAnEarlierLife:
    def test_who_was_told_of_a_pause_tells_the_next_life_of_the_budget(self) -> None:
        before, after = Budget(GITHUB), Budget(GITHUB, first_id=1000)
        (permit,) = before.acquire(Ask("core"), START).permit_ids
        told = before.exchange([Receipt(permit, Signal("secondary", 600.0), START)], (), None, START)
        assert told.paused_until_s == START + 601
        grant = after.acquire(Ask("core", paused_until_s=told.paused_until_s), START + 60)
        assert not grant.permit_ids
        assert grant.wait_s == pytest.approx(541.0)
        assert after.acquire(Ask("core", token="other"), START + 61).wait_s == pytest.approx(540.0)

    def test_no_pause_lasts_for_more_than_a_day(self) -> None:
        grant = Budget(GITHUB).acquire(Ask("core", paused_until_s=START + 1e9), START)
        assert grant.wait_s == pytest.approx(86_400.0)


class TestRendezvous:
    NAMES = tuple(token_name(f"secret{n}") for n in range(7))

    @given(st.text(), st.sampled_from(NAMES))
    def test_only_the_dead_tokens_keys_move(self, key: str, dead: str) -> None:
        before = rank_tokens(key, self.NAMES)
        assert sorted(before) == sorted(self.NAMES)
        assert rank_tokens(key, [n for n in self.NAMES if n != dead]) == [n for n in before if n != dead]
        assert rank_tokens(key, self.NAMES[::-1]) == before

    def test_keys_spread_evenly(self) -> None:
        counts = Counter(rank_tokens(f"owner/repo{n}", self.NAMES)[0] for n in range(3500))
        assert min(counts.values()) > 400
        assert max(counts.values()) < 600

    def test_names_tell_nothing(self) -> None:
        assert "ghp_x" not in token_name("ghp_x")
        assert len(token_name("ghp_x")) == 8


def answer(status: int, body: Any = b"", **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {k.replace("_", "-"): v for k, v in headers.items()}, raw)


RATE = {"x_ratelimit_limit": "5000", "x_ratelimit_remaining": "4000", "x_ratelimit_reset": str(int(START) + 600)}
EMPTY = RATE | {"x_ratelimit_remaining": "0"}
SECONDARY = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
BLOCKED = {"message": "Repository access blocked", "block": {"reason": "dmca"}}


@pytest.mark.parametrize(
    ("response", "verdict", "retry_after_s"),
    [
        (answer(200, {"data": {}}, **EMPTY), "ok", None),
        (answer(304, **RATE), "ok", None),
        (answer(404, {"message": "Not Found"}, **RATE), "ok", None),
        (answer(502, b"<html>"), "ok", None),
        (answer(401, {"message": "Bad credentials"}), "dead", None),
        (answer(403, {"message": "Sorry. Your account was suspended"}), "dead", None),
        (answer(403, {"message": "Sorry. Your account was suspended"}, **RATE), "dead", None),
        (answer(403, BLOCKED, **RATE), "ok", None),
        (answer(403, BLOCKED), "ok", None),
        (answer(451, BLOCKED, **RATE), "ok", None),
        (answer(403, {"message": "Must have push access"}, **RATE), "ok", None),
        (answer(403, {"message": "Must have push access"}, **EMPTY), "primary", None),
        (answer(403, {"message": "API rate limit exceeded for user ID 1."}, **RATE), "primary", None),
        (answer(429, {"message": "API rate limit exceeded for user ID 1."}, **EMPTY), "primary", None),
        (answer(403, SECONDARY, **RATE), "secondary", None),
        (answer(403, SECONDARY, retry_after="60", **RATE), "secondary", 60.0),
        (answer(429, SECONDARY, retry_after="8", **RATE), "secondary", 8.0),
        (answer(429, b"", **RATE), "secondary", None),
        (answer(403, SECONDARY, **EMPTY), "secondary", None),
        (answer(403, {"message": "You have triggered an abuse detection mechanism."}), "secondary", None),
        (answer(200, {"errors": [SECONDARY]}, retry_after="60"), "secondary", 60.0),
        (answer(200, {"data": {"a": 1}, "errors": [{"message": "x", "type": "NOT_FOUND"}]}), "ok", None),
        (answer(200, {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]}), "primary", None),
        (
            answer(
                200,
                {"errors": [{"type": "RATE_LIMIT", "code": "graphql_rate_limit", "message": "limit"}]},
            ),
            "primary",
            None,
        ),
        (answer(422, {"message": "Validation Failed, or the endpoint has been spammed."}), "secondary", None),
        (answer(422, {"message": "Validation Failed"}, **RATE), "ok", None),
        (answer(429, SECONDARY, retry_after="soon"), "secondary", None),
    ],
)
def test_github_signals(response: Response, verdict: str, retry_after_s: float | None) -> None:
    signal = read_github_signal(response, START)
    assert (signal.verdict, signal.retry_after_s) == (verdict, retry_after_s)


@pytest.mark.parametrize("junk", ["", "-1", "1.5", "²", "٣", "1e3", "9" * 400, "9" * 5000, "abc", "NaN", "\x00"])
def test_junk_in_headers_is_no_figure(junk: str) -> None:
    headers = {f"x-ratelimit-{k}": junk for k in ("limit", "remaining", "reset")} | {"retry-after": junk, "date": junk}
    assert read_github_signal(Response(200, headers, b""), START) == Signal()
    assert read_plain_signal(Response(200, headers, b""), START) == Signal()


@given(st.text(max_size=40), st.none() | st.text(max_size=40))
def test_any_retry_after(value: str, date: str | None) -> None:
    wait_s = read_retry_after(value, date, START)
    assert wait_s is None or 0 <= wait_s < 1e12


@pytest.mark.parametrize(
    ("value", "date", "wait_s"),
    [
        ("17", None, 17.0),
        (" 17 ", None, 17.0),
        ("Wed, 01 Apr 2026 05:00:08 GMT", None, 8.0),
        ("Wed, 01 Apr 2026 05:00:08 -0000", None, 8.0),
        ("Wed, 01 Apr 2026 04:59:00 GMT", None, 0.0),
        ("Wed, 01 Apr 2026 09:00:30 GMT", "Wed, 01 Apr 2026 09:00:00 GMT", 30.0),
        ("Wed, 01 Apr 2026 05:00:08 GMT", "some day", 8.0),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None, None),
        (None, "Wed, 01 Apr 2026 09:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, date: str | None, wait_s: float | None) -> None:
    assert read_retry_after(value, date, START) == wait_s


def test_plain_signals() -> None:
    assert read_plain_signal(answer(429, b"<html>"), START) == Signal("secondary")
    assert read_plain_signal(answer(429, b"", retry_after="5"), START) == Signal("secondary", 5.0)
    assert read_plain_signal(answer(403, b"error code: 1015"), START).verdict == "secondary"
    assert read_plain_signal(answer(200, b"{}"), START) == Signal()
    assert read_plain_signal(answer(500, b""), START).verdict == "ok"


def load(path: str) -> Response:
    raw = json.loads((SAMPLES / path).read_text())["response"]
    headers = raw["headers"] if isinstance(raw["headers"], list) else list(raw["headers"].items())
    # Places where the recorder puts the present: eight seconds for a wait, three for a reset, else now.
    filled = {"Retry-After": "Wed, 01 Apr 2026 05:00:08 GMT", "X-RateLimit-Reset": str(int(START) + 3)}
    flat = {k.lower(): filled.get(k, "Wed, 01 Apr 2026 05:00:00 GMT") if "{{" in str(v) else v for k, v in headers}
    body = raw["body"] if isinstance(raw["body"], str) else json.dumps(raw["body"])
    return Response(raw["status"], {k: v for k, v in flat.items() if isinstance(v, str)}, body.encode())


@needs_samples
@pytest.mark.parametrize(
    ("name", "signal"),
    [
        ("secondary_403_body_marker_only", Signal("secondary", None, 30, 21, START + 3)),
        ("secondary_403_no_retry_after", Signal("secondary", None, 5000, 4000, START + 3)),
        ("secondary_429_retry_after", Signal("secondary", 8.0)),
        ("secondary_429_retry_after_http_date", Signal("secondary", 8.0)),
        ("abuse_403_retry_after", Signal("secondary", 60.0)),
        ("primary_403_remaining_0", Signal("primary", None, 5000, 0, START + 3)),
    ],
)
def test_recorded_refusals(name: str, signal: Signal) -> None:
    told = read_github_signal(load(f"github-rest/{name}.json"), START)
    assert told.resource in ("", "core", "search")
    assert replace(told, resource="", date_s=None) == signal


@needs_samples
@pytest.mark.parametrize("folder", ["github-rest", "github-graphql"])
def test_quoted_bodies(folder: str) -> None:
    expected = {
        "secondary limit": "secondary",
        "primary limit, wording 1": "primary",
        "primary limit, wording 2": "primary",
    }
    quoted = json.loads((SAMPLES / folder / "quoted_error_bodies.json").read_text())
    assert len(quoted) >= 5
    for case in quoted:
        signal = read_github_signal(answer(case["status"], case["body"], **RATE), START)
        assert signal.verdict == expected.get(case["case"], "ok"), case["case"]
