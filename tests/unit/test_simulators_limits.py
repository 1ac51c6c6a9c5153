"""Accounting of the simulated upstreams: windows, waits, concurrency, and who is convicted for what."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.simulators.limits import LONGEST_BARE_WAIT_S, MAX_EXAMPLES, Limits, Refusal, Window

START = datetime(2026, 4, 1, 5, tzinfo=UTC)
HOUR = Window("core", 5, 3600.0)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def convictions(limits: Limits, client: str = "t") -> dict[str, int]:
    reasons: dict[str, int] = limits.report()["tokens"][client]["convictions"]["reasons"]
    return reasons


def spend(limits: Limits, seconds: float, points: int = 1, account: str = "u", client: str = "t") -> Refusal | None:
    return limits.take(account, client, HOUR, points, at(seconds))


class TestWindows:
    def test_opens_with_the_first_request_and_ends_one_length_later(self) -> None:
        limits = Limits()
        assert spend(limits, 100) is None
        reading = limits.read("u", HOUR, at(200))
        assert (reading.limit, reading.used, reading.remaining) == (5, 1, 4)
        assert reading.reset_s == START.timestamp() + 100 + 3600
        assert limits.read("u", HOUR, at(3700)).used == 0

    def test_request_past_the_limit_is_refused_and_convicted(self) -> None:
        limits = Limits()
        assert [spend(limits, s) for s in range(5)] == [None] * 5
        refusal = spend(limits, 10)
        assert refusal == Refusal("over_limit", "core", 3590.0)
        assert convictions(limits) == {"over_limit": 1}
        assert spend(limits, 3600) is None
        assert limits.convictions() == 1

    def test_one_who_was_told_that_nothing_remains_is_convicted_of_that(self) -> None:
        limits = Limits()
        spend(limits, 0, points=5)
        limits.tell_empty("u", HOUR, at(0))
        spend(limits, 1)
        assert convictions(limits) == {"reset_ignored": 1}

    def test_last_affordable_request_is_served_whole(self) -> None:
        limits = Limits()
        spend(limits, 0, points=4)
        assert spend(limits, 1, points=9) is None
        assert limits.read("u", HOUR, at(1)).remaining == 0
        assert limits.report()["points"] == {"core": 13}

    def test_tokens_of_one_user_share_the_window_and_the_guilty_one_is_named(self) -> None:
        limits = Limits()
        spend(limits, 0, points=5, client="a")
        spend(limits, 1, client="b")
        books = limits.report()["tokens"]
        assert books["a"]["convictions"]["count"] == 0
        assert books["b"]["convictions"]["count"] == 1

    def test_restart_opens_everything_anew_but_keeps_the_books(self) -> None:
        limits = Limits()
        spend(limits, 0, points=5)
        limits.hold("u", at(0), 600)
        spend(limits, 1)
        limits.restart()
        assert spend(limits, 2) is None
        assert limits.check(limits.arrive("u", at(3)), "t") is None
        assert limits.convictions() == 1

    @given(st.lists(st.floats(0, 20_000), max_size=60))
    def test_never_more_than_the_limit_in_one_window(self, moments: list[float]) -> None:
        limits = Limits()
        served = [s for s in sorted(moments) if spend(limits, s) is None]
        opened = None
        count = 0
        for s in served:
            # The same subtraction as in epoch seconds, so that rounding does not matter.
            if opened is None or at(s).timestamp() >= at(opened).timestamp() + HOUR.length_s:
                opened, count = s, 0
            count += 1
            assert count <= HOUR.limit


class TestWaits:
    def test_request_during_a_told_wait_is_refused_and_convicted(self) -> None:
        limits = Limits()
        limits.hold("u", at(0), 60)
        refusal = limits.check(limits.arrive("u", at(20)), "t")
        assert refusal == Refusal("wait_ignored", "", 40.0)
        assert convictions(limits) == {"wait_ignored": 1}
        assert limits.check(limits.arrive("u", at(60)), "t") is None

    def test_request_that_was_here_before_the_wait_was_told_is_innocent(self) -> None:
        limits = Limits()
        arrival = limits.arrive("u", at(0))
        limits.hold("u", at(5), 60)
        assert limits.check(arrival, "t") is None
        assert limits.convictions() == 0

    def test_tolerance_refuses_without_conviction(self) -> None:
        limits = Limits(tolerance_s=5)
        limits.hold("u", at(0), 60)
        for s, convicted in ((2, 0), (57, 0), (30, 1)):
            assert limits.check(limits.arrive("u", at(s)), "t") is not None
            assert limits.convictions() == convicted

    def test_a_longer_wait_extends_a_running_one_and_a_shorter_does_not(self) -> None:
        limits = Limits()
        limits.hold("u", at(0), 60)
        limits.hold("u", at(10), 20)
        assert limits.check(limits.arrive("u", at(50)), "t") is not None
        limits.hold("u", at(50), 60)
        assert limits.check(limits.arrive("u", at(109)), "t") is not None
        assert limits.check(limits.arrive("u", at(110)), "t") is None

    def test_another_account_is_free(self) -> None:
        limits = Limits()
        limits.hold("u", at(0), 60)
        assert limits.check(limits.arrive("v", at(1)), "w") is None


class TestBareWaits:
    """Refusals that name no time: the first demands a minute, each further one twice as much as the one before."""

    def refuse(self, limits: Limits, seconds: float) -> float:
        """Let one request come alone and be refused, and return how long its account must wait."""
        arrival = limits.arrive("u", at(seconds))
        assert limits.check(arrival, "t") is None, f"it still waits after {seconds} s"
        limits.hold_bare(arrival, at(seconds), 60.0)
        limits.leave(arrival)
        return self.left(limits, seconds)

    def left(self, limits: Limits, seconds: float) -> float:
        """Return what is left of a wait, asked for by one who is not counted."""
        refusal = limits.check(replace(limits.arrive("nobody", at(seconds)), account="u"), "spy")
        return 0.0 if refusal is None else refusal.retry_after_s

    def test_doubles_up_to_an_hour(self) -> None:
        limits, now_s, waits = Limits(), 0.0, []
        for _ in range(9):
            waits.append(self.refuse(limits, now_s))
            now_s += waits[-1]
        assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
        assert LONGEST_BARE_WAIT_S == 3600

    def test_a_client_that_waits_a_minute_each_time_is_convicted(self) -> None:
        limits = Limits()
        for n, innocent in enumerate((True, True, False)):
            arrival = limits.arrive("u", at(61 * n))
            assert (limits.check(arrival, "t") is None) is innocent
            limits.hold_bare(arrival, at(61 * n), 60.0)
            limits.leave(arrival)
        assert convictions(limits) == {"wait_ignored": 1}

    def test_a_sound_answer_begins_anew(self) -> None:
        limits = Limits()
        assert [self.refuse(limits, 0), self.refuse(limits, 60)] == [60, 120]
        limits.end_bare("other")
        assert self.refuse(limits, 180) == 240
        limits.end_bare("u")
        assert self.refuse(limits, 420) == 60

    def test_a_wait_that_reached_nobody_and_a_restart_begin_anew(self) -> None:
        for forget in (Limits.restart, lambda limits: limits.forget_wait("u")):
            limits = Limits()
            self.refuse(limits, 0)
            self.refuse(limits, 60)
            forget(limits)
            assert [self.refuse(limits, 300), self.refuse(limits, 360)] == [60, 120]

    def test_only_the_first_request_after_a_wait_doubles_it(self) -> None:
        limits = Limits()
        self.refuse(limits, 0)
        limits.leave(limits.arrive("u", at(60)))
        assert self.refuse(limits, 61) == 60
        assert self.refuse(limits, 121) == 120

    def test_only_a_request_that_is_alone_doubles_it(self) -> None:
        limits = Limits()
        slow = limits.arrive("u", at(0))
        self.refuse(limits, 0)
        assert self.refuse(limits, 60) == 60, "an answer that began before the wait is still under way"
        limits.leave(slow)
        assert self.refuse(limits, 120) == 120

    def test_a_request_from_before_the_wait_doubles_nothing(self) -> None:
        limits = Limits()
        slow = limits.arrive("u", at(0))
        self.refuse(limits, 0)
        limits.leave(limits.arrive("u", at(60)))
        limits.hold_bare(slow, at(61), 60.0)
        assert self.left(limits, 61) == 60

    def test_another_request_that_comes_before_the_refusal_leaves_it_at_a_minute(self) -> None:
        limits = Limits()
        self.refuse(limits, 0)
        first, second = limits.arrive("u", at(60)), limits.arrive("u", at(60.1))
        limits.leave(second)
        limits.hold_bare(first, at(60.2), 60.0)
        assert self.left(limits, 60.2) == pytest.approx(60)

    def test_requests_during_a_wait_are_not_the_first_after_it(self) -> None:
        limits = Limits()
        self.refuse(limits, 0)
        early = limits.arrive("u", at(59))
        assert limits.check(early, "t") is not None
        limits.leave(early)
        assert self.refuse(limits, 60) == 120

    def test_a_longer_wait_that_was_named_stands_and_counts_as_the_last(self) -> None:
        limits = Limits()
        self.refuse(limits, 0)
        limits.hold("u", at(10), 600)
        assert self.left(limits, 60) == 550
        assert self.refuse(limits, 610) == 120

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**6)), max_size=40))
    def test_who_doubles_after_each_refusal_that_it_sees_is_never_convicted(self, turns: list[tuple[int, int]]) -> None:
        """A client sends some requests at once, sees their answers in any order, and waits by what it has seen last."""
        limits, now_s, strikes, until_s = Limits(), 0.0, 0, 0.0
        for others, fates in turns:
            now_s = max(now_s, until_s)
            arrivals = [limits.arrive("u", at(now_s + n / 100)) for n in range(others + 1)]
            answers = []
            for n, arrival in enumerate(arrivals):
                assert limits.check(arrival, "t") is None
                if fates >> n & 1:
                    limits.hold_bare(arrival, at(now_s + 0.1), 60.0)
                else:
                    limits.end_bare("u")
                limits.leave(arrival)
                answers.append(bool(fates >> n & 1))
            now_s += 1.0
            for refused in answers if fates >> 5 else answers[::-1]:
                if not refused and now_s >= until_s:
                    strikes = 0
                elif refused:
                    strikes += now_s >= until_s
                    until_s = max(until_s, now_s + min(60.0 * 2 ** (strikes - 1), 3600.0))
        assert limits.convictions() == 0


class TestConcurrency:
    def test_counts_open_requests_per_account(self) -> None:
        limits = Limits(concurrent=2)
        open_requests = [limits.arrive("u", at(0)) for _ in range(3)]
        assert [limits.check(a, "t") is None for a in open_requests] == [True, True, False]
        assert convictions(limits) == {"concurrency": 1}
        limits.leave(open_requests[0])
        limits.leave(open_requests[1])
        assert limits.check(limits.arrive("u", at(1)), "t") is None
        assert limits.check(limits.arrive("other", at(1)), "t") is None

    def test_report_describes_a_bounded_number_of_convictions(self) -> None:
        limits = Limits(concurrent=0)
        for s in range(MAX_EXAMPLES + 7):
            arrival = limits.arrive("u", at(s))
            limits.check(arrival, "t")
            limits.leave(arrival)
        verdict = limits.report()["tokens"]["t"]["convictions"]
        assert verdict["count"] == MAX_EXAMPLES + 7
        assert len(verdict["examples"]) == MAX_EXAMPLES
        assert verdict["examples"][0] == {
            "at": "2026-04-01T05:00:00+00:00",
            "reason": "concurrency",
            "detail": "1 open, 0 allowed",
        }


def test_counts_statuses_and_faults_per_client() -> None:
    limits = Limits()
    limits.count("u", "a", 200)
    limits.count("u", "a", 502, "bad_gateway_json")
    limits.count("v", "b", 200)
    report = limits.report()
    assert report["requests"] == 3
    assert report["statuses"] == {"200": 2, "502": 1}
    assert report["faults"] == {"bad_gateway_json": 1}
    assert report["tokens"]["a"]["statuses"] == {"200": 1, "502": 1}
    assert {account: books["requests"] for account, books in report["accounts"].items()} == {"u": 2, "v": 1}


def test_tokens_of_one_user_are_summed_up_and_told_apart() -> None:
    limits = Limits()
    spend(limits, 0, points=3, client="a")
    spend(limits, 1, points=2, client="b")
    spend(limits, 2, client="b")
    report = limits.report()
    assert report["accounts"]["u"] == {"requests": 0, "points": {"core": 5}, "convictions": {"over_limit": 1}}
    assert [report["tokens"][t]["points"]["core"] for t in "ab"] == [3, 2]
    assert [report["tokens"][t]["convictions"]["count"] for t in "ab"] == [0, 1]


def test_a_wait_that_reached_nobody_is_taken_back() -> None:
    limits = Limits()
    limits.hold("u", at(0), 60)
    limits.forget_wait("u")
    assert limits.check(limits.arrive("u", at(1)), "t") is None


class TestBusy:
    def busy(self) -> Limits:
        return Limits(busy_s={"": 90.0, "graphql": 60.0})

    def test_a_request_after_too_long_answers_is_refused_and_convicted(self) -> None:
        limits = self.busy()
        for n in range(10):
            assert limits.check(limits.arrive("u", at(n)), "t", "rest") is None
            limits.work("u", "rest", 9.0, at(n + 9))
        assert limits.check(limits.arrive("u", at(17)), "t", "rest") is None, "the tenth answer is not over yet"
        assert limits.check(limits.arrive("u", at(18)), "t", "rest") == Refusal("cpu_seconds", "", 60.0)
        assert convictions(limits) == {"cpu_seconds": 1}
        assert limits.check(limits.arrive("other", at(18)), "t", "rest") is None
        assert limits.check(limits.arrive("u", at(69)), "t", "rest") is None, "the first one is a minute old"

    def test_graphql_has_less_and_leaves_the_rest_to_rest(self) -> None:
        limits = self.busy()
        limits.work("u", "graphql", 61.0, at(0))
        assert limits.check(limits.arrive("u", at(1)), "t", "rest") is None
        assert limits.check(limits.arrive("u", at(1)), "t", "graphql") == Refusal("cpu_seconds", "graphql", 60.0)

    def test_rest_does_not_count_for_graphql(self) -> None:
        limits = self.busy()
        limits.work("u", "rest", 89.0, at(0))
        assert limits.check(limits.arrive("u", at(1)), "t", "graphql") is None

    def test_within_the_tolerance_nobody_can_know(self) -> None:
        limits = Limits(busy_s={"": 90.0}, tolerance_s=5)
        limits.work("u", "rest", 100.0, at(10))
        assert limits.check(limits.arrive("u", at(14)), "t", "rest") is None
        assert limits.check(limits.arrive("u", at(15)), "t", "rest") is not None
        limits.restart()
        assert limits.check(limits.arrive("u", at(15)), "t", "rest") is None


def test_reading_charges_nothing() -> None:
    limits = Limits()
    for _ in range(9):
        limits.read("u", HOUR, at(0))
    assert spend(limits, 0, points=5) is None
    assert limits.report()["requests"] == 0
