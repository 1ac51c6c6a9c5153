"""A budget that changes hands: what the next keeper is told, what a killed one may have spent, when ours ends."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.custody import ELSEWHERE_S, Custody
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.ratelimit import Ask, Budget, Grant, Receipt
from astrid.runtime import make_budget
from astrid.signals import Signal
from astrid.sources import BUDGETS

START = 1_775_019_600.0
OK = Signal("ok")
HOUR = BudgetSpec({"core": BucketSpec((Window(100, 3600.0),))}, concurrency=1000)
MINUTE = BudgetSpec({"core": BucketSpec((Window(5, 1.0), Window(30, 60.0)))}, concurrency=1000)


def custody(spec: BudgetSpec, speed: float = 1.0) -> Custody:
    return Custody(lambda: Budget(spec, random.Random(1).random), speed)


def held(
    spec: BudgetSpec, now_s: float = START, *, state: Any = None, age_s: float = 0.0, is_clean: bool = True
) -> Custody:
    found = custody(spec)
    found.begin(state or {}, age_s, is_clean=is_clean, now_s=now_s, until_s=1e9)
    return found


def spend(kept: Custody, now_s: float, want: int = 1) -> int:
    """Send as many requests as are granted at once, and return how many that were."""
    grant = kept.exchange([], [], Ask("core", want=want), now_s, 0.0)
    kept.exchange([Receipt(p, OK, now_s) for p in grant.permit_ids], [], None, now_s, 0.0)
    return len(grant.permit_ids)


def through_the_database(state: Any) -> Any:
    return json.loads(json.dumps(state))


class TestHandingOn:
    def test_what_was_spent_counts_for_the_next_keeper(self) -> None:
        first = held(MINUTE)
        assert spend(first, START, 100) == 5
        assert spend(first, START + 2.0, 100) == 5
        second = held(MINUTE, START + 3.0, state=through_the_database(first.tell(START + 3.0)))
        assert [spend(second, START + 3.0 + n, 100) for n in range(8)] == [5, 5, 5, 5, 0, 0, 0, 0]
        assert spend(second, START + 61.5, 100) == 5, "what the first spent is a minute old"

    def test_what_is_told_in_one_slice_counts_as_long_as_its_youngest(self) -> None:
        first = held(HOUR)
        assert spend(first, START, 10) == 10
        first.tell(START)
        first.renew(1e9)
        assert spend(first, START + 50.0, 10) == 10
        state = through_the_database(first.tell(START + 50.0))
        assert state["spent"]["core"] == [[0.0, 20]], "a minute is a slice of an hour"
        second = held(HOUR, START + 3610.0, state=state, age_s=3560.0)
        assert second.tell(START + 3610.0)["spent"]["core"] == [(pytest.approx(3560.0), 20)]

    def test_time_that_passes_between_two_keepers_counts(self) -> None:
        first = held(MINUTE)
        assert spend(first, START, 100) == 5
        state = through_the_database(first.tell(START))
        second = held(MINUTE, START + 90.0, state=state, age_s=90.0)
        assert sum(spend(second, START + 90.0 + n, 100) for n in range(10)) == 30

    def test_the_runs_time_passes_as_fast_as_it_does(self) -> None:
        first = held(MINUTE)
        spend(first, START, 100)
        second = custody(MINUTE, speed=300.0)
        second.begin(first.tell(START), 0.3, is_clean=True, now_s=START, until_s=1e9)
        assert sum(spend(second, START + n, 100) for n in range(10)) == 30, "0.3 s are a minute and a half"

    def test_what_is_under_way_counts_as_ending_now(self) -> None:
        first = held(MINUTE)
        assert len(first.exchange([], [], Ask("core", want=3), START, 0.0).permit_ids) == 3
        second = held(MINUTE, START + 10.0, state=first.tell(START + 10.0))
        assert spend(second, START + 10.0, 100) == 2
        assert spend(second, START + 11.5, 100) == 5

    def test_a_pause_is_handed_on(self) -> None:
        first = held(MINUTE)
        grant = first.exchange([], [], Ask("core"), START, 0.0)
        refused = Receipt(grant.permit_ids[0], Signal("secondary", retry_after_s=100.0), START)
        first.exchange([refused], [], None, START, 0.0)
        state = through_the_database(first.tell(START + 10.0))
        second = held(MINUTE, START + 20.0, state=state, age_s=10.0)
        (wait_s,) = [second.exchange([], [], Ask("core"), START + 20.0, 0.0).wait_s]
        assert wait_s == pytest.approx(81.0)
        assert spend(second, START + 102.0) == 1

    def test_a_rest_of_one_bucket_is_handed_on(self) -> None:
        first = held(MINUTE)
        grant = first.exchange([], [], Ask("core"), START, 0.0)
        empty = Receipt(grant.permit_ids[0], Signal("primary", retry_after_s=50.0), START)
        first.exchange([empty], [], None, START, 0.0)
        second = held(MINUTE, START + 30.0, state=through_the_database(first.tell(START + 30.0)))
        told = second.exchange([], [], Ask("core"), START + 30.0, 0.0)
        assert not told.permit_ids
        assert 20.0 <= told.wait_s <= 22.0

    def test_nonsense_in_a_lease_stops_nobody_for_ever(self) -> None:
        kept = held(MINUTE, state={"paused_s": 1e12, "rests_s": {"core": 1e12}, "spent": {"other": [[1, 2]]}})
        assert kept.exchange([], [], Ask("core"), START, 0.0).wait_s <= 86_400.0 + 1.0


class TestAfterAKill:
    def test_short_windows_are_taken_for_full(self) -> None:
        second = held(MINUTE, is_clean=False)
        assert spend(second, START + 59.0, 100) == 0
        assert spend(second, START + 60.5, 100) == 5

    def test_of_a_long_window_a_tenth_is_taken_for_spent(self) -> None:
        first = held(HOUR)
        assert spend(first, START, 7) == 7
        state = through_the_database(first.tell(START))
        first.renew(1e9)
        assert spend(first, START + 1.0, 100) == 10, "a tenth between two renewals"
        refused = first.exchange([], [], Ask("core"), START + 1.0, 0.0)
        assert not refused.permit_ids
        assert 0 < refused.wait_s < 5
        second = held(HOUR, START + 2.0, state=state, age_s=2.0, is_clean=False)
        second_spent = 0
        for n in range(30):
            second_spent += spend(second, START + 2.0 + n, 100)
            second.tell(START + 2.0 + n)
            second.renew(1e9)
        assert second_spent == 100 - 7 - 10
        assert 7 + 10 + second_spent <= 100

    def test_only_a_renewal_that_stands_in_the_lease_lets_more_go(self) -> None:
        kept = held(HOUR)
        assert spend(kept, START, 100) == 10
        kept.tell(START)
        assert spend(kept, START, 100) == 0
        kept.renew(1e9)
        assert spend(kept, START, 100) == 10

    def test_who_knows_nothing_of_itself_begins_full(self) -> None:
        kept = custody(HOUR)
        kept.begin_blind(START, 1e9)
        assert spend(kept, START + 3599.0, 100) == 0
        assert spend(kept, START + 3601.0, 100) == 10

    @given(
        st.lists(
            st.tuples(
                st.floats(0.0, 40.0) | st.floats(0.0, 900.0),
                st.integers(1, 40),
                st.sampled_from(["go on", "hand on", "kill"]),
            ),
            min_size=1,
            max_size=25,
        ),
        st.sampled_from([HOUR, MINUTE]),
    )
    def test_no_window_is_ever_exceeded_whoever_dies_when(
        self, steps: list[tuple[float, int, str]], spec: BudgetSpec
    ) -> None:
        """Keepers follow each other, told or not; an upstream that counts all of their requests sees one client."""
        now_s, told_s = START, START
        kept = held(spec)
        sent: list[float] = []
        state: Any = kept.tell(now_s)
        for pause_s, want, end in steps:
            now_s += pause_s
            sent += [now_s] * spend(kept, now_s, want)
            if end == "kill":
                kept = held(spec, now_s, state=through_the_database(state), age_s=now_s - told_s, is_clean=False)
            elif end == "hand on":
                kept = held(spec, now_s, state=through_the_database(kept.tell(now_s)))
            state, told_s = kept.tell(now_s), now_s
            kept.renew(1e9)
        for window in spec.buckets["core"].windows:
            for at_s in sent:
                assert sum(at_s <= other < at_s + window.period_s - 1e-6 for other in sent) <= window.limit


class TestWhoseItIs:
    def test_it_is_nobodys_at_first_and_after_its_end(self) -> None:
        kept = custody(MINUTE, speed=300.0)
        elsewhere = kept.exchange([], [], Ask("core"), START, 0.0)
        assert elsewhere.elsewhere
        assert not elsewhere.permit_ids
        assert elsewhere.wait_s == ELSEWHERE_S * 300.0, "in real seconds"
        assert kept.exchange([], [], None, START, 0.0) == Grant()
        assert kept.tell(START) == {}
        kept.begin({}, 0.0, is_clean=True, now_s=START, until_s=100.0)
        assert kept.exchange([], [], Ask("core"), START, 99.0).permit_ids
        kept.end()
        assert kept.exchange([], [], Ask("core"), START, 99.0).elsewhere
        assert kept.tell(START)["spent"], "the next one is still told"

    def test_it_ends_by_our_own_clock(self) -> None:
        kept = custody(MINUTE)
        kept.begin({}, 0.0, is_clean=True, now_s=START, until_s=100.0)
        assert kept.is_ours(99.9)
        assert not kept.is_ours(100.0)
        assert kept.exchange([], [], Ask("core"), START, 100.0).elsewhere
        kept.renew(200.0)
        assert kept.exchange([], [], Ask("core"), START, 100.0).permit_ids

    def test_no_permit_outlives_the_lease(self) -> None:
        """A worker that was stopped in between may not use what it was granted before."""
        kept = custody(MINUTE, speed=10.0)
        kept.begin({}, 0.0, is_clean=True, now_s=START, until_s=100.0)
        grant = kept.exchange([], [], Ask("core"), START, 97.0)
        assert grant.expires_s == START + 30.0, "three real seconds"

    def test_receipts_come_home_also_when_it_is_anothers(self) -> None:
        kept = custody(MINUTE)
        kept.begin({}, 0.0, is_clean=True, now_s=START, until_s=100.0)
        (permit,) = kept.exchange([], [], Ask("core"), START, 99.0).permit_ids
        late = kept.exchange([Receipt(permit, OK, START + 2.0)], [], Ask("core"), START + 2.0, 101.0)
        assert late.elsewhere
        assert kept.tell(START + 2.0)["spent"]["core"] == [(0.0, 1)]

    def test_a_keeper_that_comes_again_takes_no_receipts_of_its_former_life(self) -> None:
        kept = Custody(lambda: make_budget("npm", "npm", first_id=random.randrange(2**52)), 1.0)
        kept.begin({}, 0.0, is_clean=True, now_s=START, until_s=1e9)
        (permit,) = kept.exchange([], [], Ask("core"), START, 0.0).permit_ids
        kept.begin(kept.tell(START), 0.0, is_clean=False, now_s=START, until_s=1e9)
        kept.exchange([Receipt(permit, OK, START)], [], None, START, 0.0)
        assert not kept.exchange([], [], Ask("core"), START + 1.0, 0.0).permit_ids

    @pytest.mark.parametrize("upstream", sorted(BUDGETS))
    def test_every_upstreams_budget_can_be_told_and_taken_over(self, upstream: str) -> None:
        bucket = next(iter(BUDGETS[upstream].buckets))
        kept = Custody(lambda: make_budget(upstream, "user"), 1.0)
        kept.begin({}, 0.0, is_clean=False, now_s=START, until_s=1e9)
        state = through_the_database(kept.tell(START))
        again = Custody(lambda: make_budget(upstream, "user"), 1.0)
        again.begin(state, 10_000.0, is_clean=True, now_s=START + 10_000.0, until_s=1e9)
        assert again.exchange([], [], Ask(bucket), START + 10_000.0, 0.0).permit_ids
