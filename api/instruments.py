"""The outermost layer of the application: counts, times, security headers, and an answer for what nobody expected."""

from __future__ import annotations

import logging
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import INTERNAL, Problem
from astrid.metrics import API_REQUESTS, API_SECONDS

log = logging.getLogger(__name__)

HEADERS: Final = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
            b"frame-ancestors 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
UNMATCHED: Final = "unmatched"
"""Label of requests that no route took, so that scanners cannot make labels."""


def _label(path: str, status: int) -> str:
    """Return the label of a request that no API route took: what the framework itself serves, else UNMATCHED."""
    if status < 400:
        return "/static" if path.startswith("/static/") else "/openapi.json" if path == "/openapi.json" else UNMATCHED
    return UNMATCHED


class Instruments:
    """ASGI middleware around everything else.

    Counts requests by route template and status, and puts the security headers on every answer. An exception
    that no handler took is logged with its trace here and answered as a problem without it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s = time.perf_counter()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        except Exception:
            log.exception("no answer for %s", scope["path"])
            if status:
                raise
            problem = Problem(
                INTERNAL,
                "The server could not finish this answer.",
                remedy="Try again; if it stays, tell the operator the address and the time.",
            )
            await problem.respond()(scope, receive, send_marked)
        finally:
            route = getattr(scope.get("route"), "path", None) or _label(scope["path"], status)
            API_REQUESTS.labels(route, str(status)).inc()
            API_SECONDS.labels(route).observe(time.perf_counter() - started_s)
