"""The fetcher against a real socket: sizes, time-outs, tokens, pauses, and permits that all come back."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from astrid import http as fetching
from astrid.errors import Malformed, NoToken, RateLimited, Unavailable
from astrid.http import Credential, Exchange, HttpFetcher
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Request
from astrid.ratelimit import Ask, Budget, Grant, Receipt, rank_tokens

SPEC = BudgetSpec({"core": BucketSpec((Window(50, 60.0),))}, concurrency=4)
SPEED = 1000.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Bench:
    """One server with a handler of the test's, one fetcher, and the budgets behind it."""

    fetch: HttpFetcher
    budgets: dict[str, Budget]
    base_urls: dict[str, str]
    seen: list[dict[str, str]] = field(default_factory=list)
    clock_s: Callable[[], float] = time.monotonic

    async def free(self, name: str = "a") -> int:
        """Return how many permits a budget can grant at this moment, and give them back."""
        grant = self.budgets[name].acquire(Ask("core", 1, 100), self.clock_s())
        for permit_id in grant.permit_ids:
            self.budgets[name].give_back(permit_id)
        return len(grant.permit_ids)


@asynccontextmanager
async def serving(
    handler: Handler, *names: str, upstream: str = "github", spec: BudgetSpec = SPEC, lag_s: float = 0.0
) -> AsyncIterator[Bench]:
    """Serve ``handler`` and fetch from it with a credential per name; ``lag_s`` is how long an exchange takes."""
    seen: list[dict[str, str]] = []

    async def record(request: web.Request) -> web.StreamResponse:
        seen.append({k.lower(): v for k, v in request.headers.items()} | {"path": request.path_qs})
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", record)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    budgets = {name: Budget(spec) for name in names or ("a",)}
    start_s = time.monotonic()

    def clock_s() -> float:
        return 1_000_000.0 + (time.monotonic() - start_s) * SPEED

    def exchange_with(budget: Budget) -> Exchange:
        async def exchange(receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float) -> Grant:
            # As with an actor: the budget acts at once, its answer takes its way.
            grant = budget.exchange(receipts, unused, ask, now_s)
            if lag_s:
                await asyncio.sleep(lag_s)
            return grant

        return exchange

    credentials = {upstream: [Credential(n, SecretStr(f"secret-{n}"), exchange_with(b)) for n, b in budgets.items()]}
    timeout = aiohttp.ClientTimeout(total=1.0, sock_connect=0.5, sock_read=0.3)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        base_urls = {upstream: f"http://127.0.0.1:{runner.addresses[0][1]}/base"}
        fetcher = HttpFetcher(session, base_urls, credentials, clock_s, lambda s: s / SPEED)
        try:
            yield Bench(fetcher, budgets, base_urls, seen, clock_s)
        finally:
            await fetcher.close()
            await runner.cleanup()


def ask(path: str = "/x", **options: Any) -> Request:
    return Request("github", "GET", path, **options)


async def ok(_: web.Request) -> web.Response:
    return web.Response(text="{}", headers={"X-Kind": "Sound"})


async def test_what_is_sent_and_what_comes_back() -> None:
    async with serving(ok) as bench:
        answer = await bench.fetch(ask("/p", params=(("a", "1 2"), ("b", "é&="))))
        assert (answer.status, answer.body, answer.headers["x-kind"]) == (200, b"{}", "Sound")
        (sent,) = bench.seen
        assert sent["path"] in ("/base/p?a=1+2&b=%C3%A9%26%3D", "/base/p?a=1%202&b=%C3%A9%26%3D")
        assert sent["user-agent"].startswith("astrid/")
        assert sent["authorization"] == "Bearer secret-a"
        assert "cookie" not in sent


async def test_json_is_sent_as_json_and_redirects_are_the_sources_business() -> None:
    async def echo(request: web.Request) -> web.Response:
        assert request.content_type == "application/json"
        return web.Response(status=301, headers={"Location": "/elsewhere"}, body=await request.read())

    async with serving(echo) as bench:
        answer = await bench.fetch(Request("github", "POST", "/graphql", json={"query": "ü"}))
        assert (answer.status, answer.headers["location"]) == (301, "/elsewhere")
        assert answer.json() == {"query": "ü"}
        assert len(bench.seen) == 1


async def test_a_body_beyond_the_limit_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BODY_BYTES", 200_000)

    async def sized(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * int(request.query["n"]))

    async with serving(sized) as bench:
        assert len((await bench.fetch(ask(params=(("n", "200000"),)))).body) == 200_000
        with pytest.raises(Malformed, match="200000 bytes"):
            await bench.fetch(ask(params=(("n", "200001"),)))
        await bench.fetch.close()
        assert await bench.free() == SPEC.concurrency


async def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    """200 MB of zeros in 200 kB: refused at the limit of what is read, not after all of it."""
    bomb = gzip.compress(b"\0" * 200_000_000, compresslevel=6)
    assert len(bomb) < 300_000

    async def explode(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(explode) as bench:
        with pytest.raises(Malformed, match="after decompression"):
            await bench.fetch(ask())
        assert len(bench.seen) == 1


async def test_broken_compression_is_an_upstream_that_fails() -> None:
    async def broken(_: web.Request) -> web.Response:
        return web.Response(body=b"this is no gzip", headers={"Content-Encoding": "gzip"})

    async with serving(broken) as bench:
        with pytest.raises(Unavailable):
            await bench.fetch(ask())


@pytest.mark.parametrize("kind", ["silent", "stalled", "dropped"])
async def test_no_whole_answer_is_unavailable_after_three_tries(kind: str) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        if kind == "silent":
            await asyncio.sleep(5)  # the slow upstream that this test is about; the client gives up long before
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"half")
        if kind == "dropped":
            assert request.transport is not None
            request.transport.abort()
        else:
            await asyncio.sleep(5)  # as above: half an answer, then nothing
        return answer

    async with serving(fail) as bench:
        with pytest.raises(Unavailable, match="did not answer GET /x"):
            await bench.fetch(ask())
        assert len(bench.seen) == 3
        await bench.fetch.close()
        assert await bench.free() == SPEC.concurrency
        assert bench.budgets["a"].requests_sent["core"] == 3


async def test_nobody_listens() -> None:
    async with serving(ok) as bench:
        bench.base_urls["github"] = "http://127.0.0.1:1"
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1") as caught:
            await bench.fetch(ask())
        assert "secret" not in str(caught.value)


async def test_a_short_failure_is_got_over() -> None:
    tries = 0

    async def once(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        if tries == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="{}")

    async with serving(once) as bench:
        assert (await bench.fetch(ask())).status == 200
        assert tries == 2


async def test_errors_of_the_upstream_are_the_sources_business() -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>")

    async with serving(fail) as bench:
        assert (await bench.fetch(ask())).status == 502
        assert len(bench.seen) == 1


def accepting(*live: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"].removeprefix("Bearer secret-") in live:
            return web.Response(text="{}")
        return web.Response(status=401, text='{"message": "Bad credentials"}', content_type="application/json")

    return answer


async def test_dead_tokens_fall_over_to_the_live_one_at_once() -> None:
    """More dead tokens than a request has tries: a refused token is no failure of the request."""
    names = ["a", "b", "c", "d", "e"]
    keys = [f"key-{n}" for n in range(40)]
    keys.sort(key=lambda key: -rank_tokens(key, names).index("e"))  # the first meets all the dead ones before
    async with serving(accepting("e"), *names) as bench:
        for key in keys:
            assert (await bench.fetch(ask(sticky=key))).status == 200
        refused = [s for s in bench.seen if s["authorization"] != "Bearer secret-e"]
        assert len({s["authorization"] for s in refused}) == len(refused) == 4, "a dead token was asked again"
        assert not bench.budgets["e"].quarantined


async def test_without_a_live_token_there_is_none() -> None:
    async with serving(accepting(), "a", "b") as bench:
        for _ in range(2):
            with pytest.raises(NoToken, match="ASTRID_GITHUB_TOKENS"):
                await bench.fetch(ask())
        assert len(bench.seen) == 2
        await bench.fetch.close()
        assert all(budget.quarantined for budget in bench.budgets.values())


async def test_an_upstream_without_credentials_has_no_token() -> None:
    async with serving(ok) as bench:
        with pytest.raises(NoToken):
            await bench.fetch(Request("elsewhere", "GET", "/"))


async def test_a_429_pauses_the_whole_budget_for_as_long_as_it_says() -> None:
    moments: list[float] = []

    async def limit_once(_: web.Request) -> web.Response:
        moments.append(time.monotonic())
        if len(moments) == 1:
            return web.Response(status=429, headers={"Retry-After": "60"})
        return web.Response(text="{}")

    async with serving(limit_once, upstream="pypistats") as bench:
        answer = await bench.fetch(Request("pypistats", "GET", "/x"))
        assert answer.status == 200
        assert (moments[1] - moments[0]) * SPEED >= 60
        assert len(moments) == 2


async def test_a_long_pause_goes_back_to_the_queue_with_its_length() -> None:
    async def limit(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    async with serving(limit, upstream="pypistats") as bench:
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                await bench.fetch(Request("pypistats", "GET", "/x"))
            assert 3000 < caught.value.retry_after_s <= 3600 * 1.5
        assert len(bench.seen) == 1, "an upstream that asked for a pause was asked again"


async def test_permits_lie_nowhere_after_close() -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response(text="{}")

    async with serving(slow, lag_s=0.01) as bench:
        answers = await asyncio.gather(*(bench.fetch(ask(f"/{n}")) for n in range(12)))
        assert {a.status for a in answers} == {200}
        await bench.fetch.close()
        assert await bench.free() == SPEC.concurrency
        assert bench.budgets["a"].requests_sent["core"] == 12


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.05, 0.1])
async def test_cancelled_requests_leak_no_permit(after_s: float) -> None:
    """Cancelled while permits are on their way, while waiting for one, and while the answer is awaited."""

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.06)
        return web.Response(text="{}")

    async with serving(slow, lag_s=0.015) as bench:
        tasks = [asyncio.create_task(bench.fetch(ask(f"/{n}"))) for n in range(10)]
        await asyncio.sleep(after_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bench.fetch.close()
        assert await bench.free() == SPEC.concurrency
        assert (await bench.fetch(ask())).status == 200
