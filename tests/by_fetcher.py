"""Crawl a source's batches through the real fetcher and budget against a simulator: virtual time, no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from astrid.fetcher import Credential, Fetcher
from astrid.models import Batch, DeadLetter, Done, Observations, Request, Response, RetryIn, Split
from astrid.pipeline.crawl import handle_batch
from astrid.ratelimit import Budget
from astrid.simulators.upstream import Upstream
from astrid.sources import SOURCES
from astrid.timeline import night_start
from tests.virtual.virtual_time import run_virtual

WAY_S = 0.05


@dataclass
class Crawled:
    """What the batches came to, what was asked and answered, and how many virtual seconds it took."""

    found: list[tuple[Batch, Observations]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    asked: list[tuple[Request, Response]] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def crawl_batches(batches: Sequence[Batch], upstream: Upstream, night: date) -> Crawled:
    """Work off ``batches`` one after the other, as a worker does: retries wait, splits are crawled in parts."""
    return run_virtual(_crawl(batches, upstream, night), night_start(night).timestamp())


async def _crawl(batches: Sequence[Batch], upstream: Upstream, night: date) -> Crawled:
    crawled = Crawled()
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    def now() -> datetime:
        return datetime.fromtimestamp(loop.time(), UTC)

    async def send(request: Request, headers: Mapping[str, str]) -> Response:
        seen = replace(request, headers=tuple((k.lower(), v) for k, v in headers.items()))
        await asyncio.sleep(WAY_S)
        arrival = upstream.arrive(None, "127.0.0.1", now())
        try:
            answer = upstream.exchange(seen, arrival, token=None, now=now(), night=night, address="127.0.0.1")
            await asyncio.sleep(answer.delay_s)
        finally:
            upstream.limits.leave(arrival)
        await asyncio.sleep(WAY_S)
        crawled.asked.append((request, answer.response))
        if answer.cut:
            raise ConnectionResetError("the upstream cut the connection")
        return answer.response

    budget = Budget(SOURCES[batches[0].source].budgets[upstream.name])

    async def exchange(receipts: Any, unused: Any, ask: Any, now_s: float) -> Any:
        return budget.exchange(receipts, unused, ask, now_s)

    fetch = Fetcher(send, {upstream.name: [Credential(upstream.name, None, exchange)]}, loop.time, lambda s: s)
    waiting = list(batches)
    try:
        while waiting:
            batch = waiting.pop(0)
            outcome = await handle_batch(batch, fetch, now)
            crawled.outcomes.append(type(outcome).__name__)
            match outcome:
                case Done(observations=found):
                    crawled.found.append((batch, found))
                case Split(parts=parts):
                    waiting += parts
                case RetryIn(delay_s=delay_s, pause=pause):
                    await asyncio.sleep(delay_s)
                    waiting.append(
                        replace(batch, pauses=batch.pauses + 1) if pause else replace(batch, attempt=batch.attempt + 1)
                    )
                case DeadLetter(reason=reason):
                    crawled.dead.append(reason)
    finally:
        await fetch.close()
    crawled.seconds = loop.time() - started_s
    return crawled
