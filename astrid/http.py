"""The only outbound socket: sends one request over aiohttp, within time-outs and a size limit.

Permits, retries and signals are :mod:`astrid.fetcher`'s, limits :mod:`astrid.ratelimit`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import orjson

from astrid.answers import AnswerCache
from astrid.errors import Malformed, Unavailable
from astrid.fetcher import Credential, Exchange, Fetcher, Send
from astrid.models import Request, Response

__all__ = ["Credential", "Exchange", "Fetcher", "HttpFetcher", "HttpTransport", "Send", "open_session"]

MAX_BODY_BYTES: Final = 64 * 2**20


class HttpTransport:
    """A ``Send`` over aiohttp: redirects are not followed, bodies are decompressed and limited in size.

    Parameters
    ----------
    session
        An open aiohttp session; its owner closes it.
    base_urls
        Base URL per upstream.
    """

    def __init__(self, session: aiohttp.ClientSession, base_urls: Mapping[str, str]) -> None:
        self._session = session
        self._base_urls = base_urls

    async def __call__(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send one request.

        Raises
        ------
        Unavailable
            If no whole answer came.
        Malformed
            If the body exceeds the size limit.
        """
        base_url = self._base_urls[request.upstream]
        try:
            async with self._session.request(
                request.method,
                base_url + request.path,
                params=request.params or None,
                data=request.content if request.json is None else orjson.dumps(request.json),
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
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Unavailable(f"{base_url}: {type(exc).__name__} {exc}") from exc


class HttpFetcher(Fetcher):
    """A :class:`~astrid.fetcher.Fetcher` over an open aiohttp session; parameters as there and in the transport."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_urls: Mapping[str, str],
        credentials: Mapping[str, Sequence[Credential]],
        now_s: Callable[[], float],
        real_s: Callable[[float], float],
        answers: AnswerCache | None = None,
        holder: str = "",
    ) -> None:
        super().__init__(HttpTransport(session, base_urls), credentials, now_s, real_s, answers, holder)


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the session that all requests of one worker share: keep-alive, time-outs, no cookies."""
    timeout = aiohttp.ClientTimeout(total=60, sock_connect=10, sock_read=45)
    connector = aiohttp.TCPConnector(limit=128, ttl_dns_cache=300)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
    ) as session:
        yield session
