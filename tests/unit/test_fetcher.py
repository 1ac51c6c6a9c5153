"""The fetcher in virtual time: what it does with refusals, pauses, probes, lanes and unchanged answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from pydantic import SecretStr

from astrid.answers import MemoryAnswers
from astrid.errors import NoToken, RateLimited, Unavailable
from astrid.fetcher import Credential, Exchange, Fetcher
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Request, Response
from astrid.ratelimit import LEASE_S, Ask, Budget, Grant, Receipt
from tests.virtual.virtual_time import run_virtual

START = 1_775_019_600.0
PROBE = Request("github", "GET", "/rate_limit")
SPEC = BudgetSpec({"core": BucketSpec((Window(900, 60.0),), 5000)}, concurrency=20, reserve=0.0)
Answer = Callable[[str, Request, Mapping[str, str]], Response]
T = TypeVar("T")


def rate(remaining: int = 4000) -> dict[str, str]:
    reset = str(int(START) + 3000)
    return {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": str(remaining), "x-ratelimit-reset": reset}


@dataclass
class House:
    """Budgets by user, an upstream that a function plays, and what was sent to it: (when, token, path)."""

    answer: Answer
    users: Mapping[str, str] = field(default_factory=lambda: {"a": "a"})
    spec: BudgetSpec = SPEC
    took_s: float = 0.1
    sent: list[tuple[float, str, str]] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    answers: MemoryAnswers | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        self.budgets = {user: Budget(self.spec) for user in self.users.values()}
        self.open = self.most_open = 0

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        token = headers["Authorization"].removeprefix("Bearer secret-")
        self.sent.append((self.now_s() - START, token, request.path))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(self.took_s)
        finally:
            self.open -= 1
        return self.answer(token, request, headers)

    def now_last(self) -> float:
        """Return when the last request was sent, in seconds from the start."""
        return self.sent[-1][0]

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def exchange_of(self, user: str) -> Exchange:
        async def exchange(receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float) -> Grant:
            if ask is not None:
                self.asks.append(ask)
            return self.budgets[user].exchange(receipts, unused, ask, now_s)

        return exchange

    def fetcher(self) -> Fetcher:
        credentials = [
            Credential(name, SecretStr(f"secret-{name}"), self.exchange_of(user), user)
            for name, user in self.users.items()
        ]
        return Fetcher(self.send, {"github": credentials}, self.now_s, lambda s: s / self.speed, self.answers)

    def run(self, steps: Callable[[Fetcher], Awaitable[T]]) -> T:
        async def whole() -> T:
            fetch = self.fetcher()
            try:
                return await steps(fetch)
            finally:
                await fetch.close()

        return run_virtual(whole(), START)


def get(path: str = "/x", sticky: str = "") -> Request:
    return Request("github", "GET", path, sticky=sticky)


def ok(*_: object) -> Response:
    return Response(200, rate(), b"{}")


REFUSED = Response(401, {}, b'{"message": "Bad credentials"}')


class TestTokens:
    @pytest.fixture
    def probing(self) -> BudgetSpec:
        return replace(SPEC, probe=PROBE)

    def test_the_probe_goes_first_and_once_per_user(self, probing: BudgetSpec) -> None:
        house = House(ok, {"a": "one", "b": "one", "c": "two"}, probing)

        async def many(fetch: Fetcher) -> None:
            await asyncio.gather(*(fetch(get(f"/{n}", str(n))) for n in range(30)))

        house.run(many)
        probes = [(token, at_s) for at_s, token, path in house.sent if path == "/rate_limit"]
        assert sorted({"a": "one", "b": "one", "c": "two"}[token] for token, _ in probes) == ["one", "two"]
        assert [b.points_spent["core"] for b in house.budgets.values()] == [
            sum(t in names and p != "/rate_limit" for _, t, p in house.sent) for names in ("ab", "c")
        ]

    def test_a_dead_token_is_told_loudly_and_its_work_goes_on(
        self, probing: BudgetSpec, caplog: pytest.LogCaptureFixture
    ) -> None:
        house = House(lambda token, *_: REFUSED if token == "a" else ok(), {"a": "one", "b": "one"}, probing)

        async def one_by_one(fetch: Fetcher) -> list[int]:
            return [(await fetch(get(f"/{n}", str(n)))).status for n in range(20)]

        with caplog.at_level(logging.ERROR):
            assert house.run(one_by_one) == [200] * 20
        (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert "refuses token a (401)" in line
        assert "ASTRID_GITHUB_TOKENS" in line
        assert "secret" not in line
        assert len([1 for _, token, _ in house.sent if token == "a"]) <= 2
        assert house.budgets["one"].quarantined.keys() == {"a"}

    def test_a_torn_probe_is_asked_again_and_seeds_nothing(self, probing: BudgetSpec) -> None:
        torn = iter([Response(200, {}, b'{"resources":{"core":{"limit":5000,"rem')])
        whole = Response(200, {}, b'{"resources":{"core":{"limit":5000,"remaining":1,"reset":1775022600}}}')
        house = House(lambda _, r, __: next(torn, whole) if r.path == "/rate_limit" else ok(), spec=probing)
        assert house.run(lambda fetch: fetch(get())).status == 200
        assert [path for _, _, path in house.sent] == ["/rate_limit", "/rate_limit", "/x"]
        assert len(house.budgets["a"].acquire(Ask("core", 1, 50, token="a"), START + 60).permit_ids) == 1

    def test_a_probe_of_another_form_seeds_what_is_documented(self, probing: BudgetSpec) -> None:
        house = House(ok, spec=probing)
        assert house.run(lambda fetch: fetch(get())).status == 200
        assert [path for _, _, path in house.sent] == ["/rate_limit", "/x"]

    def test_one_odd_refusal_costs_a_probe_and_nothing_else(self, probing: BudgetSpec) -> None:
        refusals = iter([Response(403, {}, b"{}")])
        house = House(lambda _, r, __: ok() if r.path == "/rate_limit" else next(refusals, ok()), spec=probing)
        assert house.run(lambda fetch: fetch(get())).status == 200
        assert [path for _, _, path in house.sent] == ["/rate_limit", "/x", "/rate_limit", "/x"]
        assert house.budgets["a"].quarantined == {}

    def test_what_only_this_request_is_refused_is_its_sources_business(self, probing: BudgetSpec) -> None:
        forbidden = Response(403, {}, b'{"message": "Resource not accessible"}')
        house = House(lambda _, r, __: ok() if r.path == "/rate_limit" else forbidden, spec=probing)
        assert house.run(lambda fetch: fetch(get())) == forbidden
        assert house.budgets["a"].quarantined == {}

    def test_a_token_that_comes_back_is_used_again(self, probing: BudgetSpec) -> None:
        house = House(lambda *_: REFUSED if asyncio.get_running_loop().time() < START + 1000 else ok(), spec=probing)

        async def later(fetch: Fetcher) -> int:
            with pytest.raises(NoToken, match=r"ASTRID_GITHUB_TOKENS.*a: the upstream refuses this token"):
                await fetch(get())
            await asyncio.sleep(800)
            with pytest.raises(NoToken):
                await fetch(get())
            await asyncio.sleep(300)
            return (await fetch(get())).status

        assert house.run(later) == 200
        assert [path for _, _, path in house.sent] == ["/rate_limit", "/rate_limit", "/x"]

    def test_an_upstream_that_is_away_is_unavailable_not_dead(self, probing: BudgetSpec) -> None:
        def away(*_: object) -> Response:
            raise ConnectionResetError("gone")

        house = House(away, spec=probing)
        with pytest.raises(Unavailable, match="did not answer GET /x: ConnectionResetError gone"):
            house.run(lambda fetch: fetch(get()))
        assert len(house.sent) == 3
        assert house.budgets["a"].quarantined == {}


class TestPauses:
    def test_what_is_not_conditional_goes_to_another_user(self) -> None:
        paused = Response(429, {"retry-after": "600"}, b"secondary rate limit")
        house = House(lambda token, *_: paused if token == "a" else ok(), {"a": "a", "b": "b"})
        house.run(lambda fetch: asyncio.gather(*(fetch(get(f"/{n}", str(n))) for n in range(40))))
        assert house.now_last() < 1
        assert {t for at_s, t, _ in house.sent if at_s > 0.05} == {"b"}

    def test_what_may_be_a_304_waits_a_little_for_its_own_token(self) -> None:
        first = iter([Response(429, {"retry-after": "30"}, b"secondary rate limit")])
        house = House(lambda *_: next(first, ok()), {"a": "a", "b": "b"}, answers=MemoryAnswers())
        house.run(lambda fetch: fetch(get("/x", "key")))
        assert len({token for _, token, _ in house.sent}) == 1
        assert house.now_last() == pytest.approx(31, abs=0.5)

    def test_after_three_refusals_the_queue_takes_it(self) -> None:
        house = House(lambda *_: Response(403, {"gh-limited-by": "x"}, b"secondary rate limit"))
        with pytest.raises(RateLimited) as caught:
            house.run(lambda fetch: fetch(get()))
        assert 60 <= caught.value.retry_after_s <= 150
        gaps = [b - a for (a, *_), (b, *_) in zip(house.sent, house.sent[1:], strict=False)]
        assert all(gap >= 60 for gap in gaps)
        assert len(house.sent) == 2, "the second pause doubles, and is longer than a worker waits"

    def test_a_budget_in_a_new_life_is_told_of_the_pause(self) -> None:
        """Its actor died after GitHub had asked for ten minutes; the worker that was told of them goes on asking."""
        refusals = iter([Response(403, {"retry-after": "600"}, b"secondary rate limit")])
        house = House(lambda *_: next(refusals, ok()), spec=replace(SPEC, probe=PROBE))

        async def across(fetch: Fetcher) -> None:
            for at_s in (0, 100, 700):
                await asyncio.sleep(START + at_s - house.now_s())
                if at_s < 600:
                    with pytest.raises(RateLimited):
                        await fetch(get())
                else:
                    await fetch(get())
                house.budgets["a"] = Budget(house.spec, first_id=10_000 * (at_s + 1))

        house.budgets["a"]._seeded = True
        house.run(across)
        assert [round(at_s) for at_s, *_ in house.sent] == [0, 700, 700]

    def test_permits_come_many_at_once_and_concurrency_holds(self) -> None:
        house = House(ok)
        house.run(lambda fetch: asyncio.gather(*(fetch(get(f"/{n}", "k")) for n in range(200))))
        assert house.most_open == 20
        assert len(house.asks) < 60

    def test_a_fast_clock_asks_for_longer_leases(self) -> None:
        for speed, lease_s in ((1.0, LEASE_S), (600.0, 108_000.0)):
            house = House(ok, speed=speed)
            house.run(lambda fetch: fetch(get()))
            assert house.asks[0].lease_s == pytest.approx(lease_s)
            assert house.asks[0].answer_s < house.asks[0].lease_s


def test_the_lane_is_in_every_ask() -> None:
    house = House(ok)

    async def both(fetch: Fetcher) -> None:
        await fetch.for_lane("backfill")(get("/past"))
        await fetch(get("/night"))

    house.run(both)
    assert [ask.lane for ask in house.asks] == ["backfill", "nightly"]
    assert house.budgets["a"].points_by_lane == {("backfill", "core"): 1, ("nightly", "core"): 1}


class TestUnchanged:
    BODY = b'{"stars": 1}'

    def upstream(self, token: str, request: Request, headers: Mapping[str, str]) -> Response:
        etag = f'W/"{token}-{self.BODY.hex()}"'
        if headers.get("If-None-Match") == etag:
            return Response(304, {**rate(), "etag": etag, "date": "now"}, b"")
        kept = {"etag": etag, "link": "<next>", "content-type": "application/json", "x-odd": "1"}
        return Response(200, rate() | kept, self.BODY)

    def test_a_304_comes_back_as_the_answer_that_it_confirms(self) -> None:
        house = House(self.upstream, answers=MemoryAnswers())

        async def twice(fetch: Fetcher) -> list[Response]:
            return [await fetch(get()), await fetch(get())]

        first, second = house.run(twice)
        assert (second.status, second.body, second.headers["link"]) == (200, first.body, "<next>")
        assert second.headers["date"] == "now"
        assert house.budgets["a"].points_spent == {"core": 1}
        assert house.budgets["a"].requests_sent == {"core": 2}

    def test_marks_belong_to_one_token(self) -> None:
        house = House(self.upstream, {"a": "a", "b": "b"}, answers=MemoryAnswers())

        async def by_turns(fetch: Fetcher) -> list[int]:
            return [(await fetch(get())).status for _ in range(4)]  # not sticky: the tokens take turns

        assert house.run(by_turns) == [200] * 4
        assert [b.points_spent["core"] for b in house.budgets.values()] == [1, 1]

    def test_a_body_that_was_cut_is_never_kept(self) -> None:
        cut = iter([True])

        def upstream(token: str, request: Request, headers: Mapping[str, str]) -> Response:
            answer = self.upstream(token, request, headers)
            return replace(answer, body=answer.body[:5]) if next(cut, False) else answer

        house = House(upstream, answers=MemoryAnswers())

        async def twice(fetch: Fetcher) -> list[bytes]:
            return [(await fetch(get())).body, (await fetch(get())).body]

        assert house.run(twice) == [self.BODY[:5], self.BODY]

    def test_without_a_cache_nothing_is_conditional(self) -> None:
        house = House(self.upstream)

        async def twice(fetch: Fetcher) -> None:
            await fetch(get())
            await fetch(get())

        house.run(twice)
        assert house.budgets["a"].points_spent == {"core": 2}
