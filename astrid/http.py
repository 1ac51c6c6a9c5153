"""The only outbound socket: takes a permit, sends one request, hands the receipt back.

Rules of upstreams live in :mod:`astrid.ratelimit` and in the sources; here is only what every
request shares: permits, the token's header, time-outs, a size limit, and short retries.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson
from pydantic import SecretStr

from astrid import __version__
from astrid.errors import Malformed, NoToken, RateLimited, Unavailable
from astrid.models import Request, Response
from astrid.ratelimit import Grant, Receipt, Signal, rank_tokens, read_github_signal, read_plain_signal

USER_AGENT: Final = f"astrid/{__version__} (open-source adoption index)"
MAX_BODY_BYTES: Final = 64 * 2**20
MAX_WAIT_S: Final = 90.0
"""Longest wait for our own budget inside a request; longer ones go back to the broker."""
TRIES: Final = 3
RETRY_DELAYS_S: Final = (1.0, 4.0)
FLUSH_S: Final = 0.2

Exchange = Callable[[Sequence[Receipt], Sequence[int], str, int, int, float], Awaitable[Grant]]
"""Receipts and unused permits in, permits out: ``(receipts, unused, bucket, cost, want, now_s) -> Grant``.

``want`` 0 only hands back. :meth:`astrid.ratelimit.Budget.exchange`, here or behind an actor, answers."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One budget of an upstream: its name for logs, its secret if it has one, and who keeps it."""

    name: str
    secret: SecretStr | None
    exchange: Exchange


@dataclass(slots=True)
class _Permits:
    """Permits of one (credential, bucket, cost) that are here and not used yet."""

    ready: deque[tuple[int, float]]
    lock: asyncio.Lock
    waiting: int = 0


class HttpFetcher:
    """A ``Fetch`` over aiohttp.

    Parameters
    ----------
    session
        An open aiohttp session; its owner closes it.
    base_urls
        Base URL per upstream.
    credentials
        Budgets per upstream, at least one for each that is asked.
    now_s, real_s
        The run's epoch seconds, and how many real seconds a duration of the run takes.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_urls: Mapping[str, str],
        credentials: Mapping[str, Sequence[Credential]],
        now_s: Callable[[], float],
        real_s: Callable[[float], float],
    ) -> None:
        self._session = session
        self._base_urls = base_urls
        self._credentials = credentials
        self._now_s = now_s
        self._real_s = real_s
        self._permits: dict[tuple[str, str, int], _Permits] = {}
        self._receipts: dict[str, list[Receipt]] = defaultdict(list)
        self._flushes: dict[str, asyncio.Task[None]] = {}
        self._dead: set[str] = set()
        self.requests: dict[tuple[str, str], int] = defaultdict(int)

    async def __call__(self, request: Request) -> Response:
        """Send one request within its budget and return the answer, whatever its status.

        Raises
        ------
        RateLimited
            If the upstream, or our budget, demands a longer wait than a worker should sleep.
        Unavailable
            If no answer came after short retries.
        NoToken
            If every credential of the upstream is dead or none is set.
        Malformed
            If the body exceeds the size limit.
        """
        failures = 0
        while failures < TRIES:
            credential, permit_id = await self._acquire(request)
            signal: Signal | None = None
            try:
                response = await self._send(request, credential)
                signal = self._read_signal(request, response)
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                self._count(request.upstream, "unreachable")
                failures += 1
                if failures == TRIES:
                    raise Unavailable(
                        f"{request.upstream} at {self._base_urls[request.upstream]} did not answer "
                        f"{request.method} {request.path}: {type(exc).__name__} {exc}"
                    ) from exc
                await asyncio.sleep(self._real_s(RETRY_DELAYS_S[failures - 1]))
                continue
            finally:
                self._settle(credential, Receipt(permit_id, signal, self._now_s()))
            self._count(request.upstream, f"{response.status // 100}xx")
            if signal.verdict == "dead":
                self._dead.add(credential.name)  # no failure of the request: it goes on with the next token
                continue
            if signal.verdict == "ok":
                return response
            failures += 1
            # The budget now knows how long to wait; the next permit comes after the pause or not at all.
        raise RateLimited(
            f"{request.upstream} limits {request.path} again and again: the batch goes back to the queue",
            retry_after_s=60.0,
        )

    async def close(self) -> None:
        """Hand back every receipt and unused permit."""
        for task in self._flushes.values():
            task.cancel()
        await asyncio.gather(*self._flushes.values(), return_exceptions=True)
        for credentials in self._credentials.values():
            for credential in credentials:
                await self._hand_back(credential)

    async def _acquire(self, request: Request) -> tuple[Credential, int]:
        credentials = {c.name: c for c in self._credentials.get(request.upstream, ())}
        for name in rank_tokens(request.sticky, list(credentials)):
            if name in self._dead:
                continue
            permit_id = await self._permit(credentials[name], request)
            if permit_id is not None:
                return credentials[name], permit_id
            self._dead.add(name)
        raise NoToken(
            f"no live credential for {request.upstream}: "
            + ("set ASTRID_GITHUB_TOKENS" if request.upstream == "github" else "see the errors above")
        )

    async def _permit(self, credential: Credential, request: Request) -> int | None:
        key = (credential.name, request.bucket, request.cost)
        permits = self._permits.get(key)
        if permits is None:
            permits = self._permits[key] = _Permits(deque(), asyncio.Lock())
        permits.waiting += 1
        try:
            waited_s = 0.0
            async with permits.lock:
                while True:
                    while permits.ready:
                        permit_id, expires_s = permits.ready.popleft()
                        if self._now_s() < expires_s:
                            return permit_id
                    receipts = self._receipts.pop(credential.name, [])
                    asking = asyncio.ensure_future(
                        credential.exchange(receipts, (), request.bucket, request.cost, permits.waiting, self._now_s())
                    )
                    try:
                        grant = await asyncio.shield(asking)
                    except asyncio.CancelledError:
                        # The budget has taken the receipts and leased the permits; keep them, to be handed back.
                        late = await asking
                        permits.ready.extend((p, late.expires_s) for p in late.permit_ids)
                        raise
                    if grant.dead:
                        return None
                    if grant.permit_ids:
                        permits.ready.extend((p, grant.expires_s) for p in grant.permit_ids)
                        continue
                    waited_s += grant.wait_s
                    if waited_s > MAX_WAIT_S:
                        raise RateLimited(
                            f"{request.upstream} ({credential.name}): {grant.reason}", retry_after_s=grant.wait_s
                        )
                    # At least a millisecond: on a fast clock a wait must still let answers arrive.
                    await asyncio.sleep(max(self._real_s(grant.wait_s), 0.001))
        finally:
            permits.waiting -= 1

    async def _send(self, request: Request, credential: Credential) -> Response:
        headers = {"User-Agent": USER_AGENT, **dict(request.headers)}
        if credential.secret is not None:
            headers["Authorization"] = f"Bearer {credential.secret.get_secret_value()}"
        data = request.content
        if request.json is not None:
            data = orjson.dumps(request.json)
            headers["Content-Type"] = "application/json"
        async with self._session.request(
            request.method,
            self._base_urls[request.upstream] + request.path,
            params=request.params or None,
            data=data,
            headers=headers,
            allow_redirects=False,
        ) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_chunked(2**16):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise Malformed(
                        f"{request.upstream} {request.path}: more than {MAX_BODY_BYTES} bytes after decompression"
                    )
            return Response(answer.status, {k.lower(): v for k, v in answer.headers.items()}, bytes(body))

    def _read_signal(self, request: Request, response: Response) -> Signal:
        read = read_github_signal if request.upstream == "github" else read_plain_signal
        return read(response, self._now_s())

    def _settle(self, credential: Credential, receipt: Receipt) -> None:
        self._receipts[credential.name].append(receipt)
        if credential.name not in self._flushes or self._flushes[credential.name].done():
            self._flushes[credential.name] = asyncio.create_task(self._flush_later(credential))

    async def _flush_later(self, credential: Credential) -> None:
        await asyncio.sleep(FLUSH_S)
        await self._hand_back(credential)

    async def _hand_back(self, credential: Credential) -> None:
        receipts = self._receipts.pop(credential.name, [])
        unused: list[int] = []
        for (name, _, _), permits in self._permits.items():
            if name == credential.name and not permits.waiting:
                unused += [permit_id for permit_id, _ in permits.ready]
                permits.ready.clear()
        if receipts or unused:
            await credential.exchange(receipts, unused, "", 0, 0, self._now_s())

    def _count(self, upstream: str, outcome: str) -> None:
        self.requests[upstream, outcome] += 1


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the session that all requests of one worker share: keep-alive, time-outs, no cookies."""
    timeout = aiohttp.ClientTimeout(total=60, sock_connect=10, sock_read=45)
    connector = aiohttp.TCPConnector(limit=128, ttl_dns_cache=300)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
    ) as session:
        yield session
