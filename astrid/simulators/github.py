"""GitHub, REST and GraphQL, over the repositories of a world.

Limits per user: 5,000 requests and 5,000 GraphQL points an hour; 900 REST and 2,000 GraphQL points a
minute; 30 searches a minute, which are not charged to the hour; 100 concurrent requests. Without a token
REST allows 60 an hour and 10 searches a minute to an address, GraphQL nothing. Facts: GitHub docs, "Rate
limits for the REST API", "Rate limits and query limits for the GraphQL API", "Best practices for using the
REST API" (2026). A count that the world does not have on the night fails as GitHub's own time-outs do, so
that a client can only record a gap.

There is one clock: where a scenario has it wrong, the ``date`` of an answer, resets in headers and bodies,
and waits that are told as dates are wrong alike.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from astrid.models import Response
from astrid.simulators.faults import HOLD_S, secondary_limit
from astrid.simulators.github_answers import DOCS
from astrid.simulators.github_graphql import price, read_query, run_query
from astrid.simulators.github_resolvers import Root
from astrid.simulators.github_routes import SEARCH, Routes
from astrid.simulators.limits import Limits, Reading, Refusal, Window
from astrid.simulators.repositories import Repositories
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import LOCALHOST, Call, Upstream, http_date, json_response, read_object

if TYPE_CHECKING:
    from astrid.simulators.world import World

API_VERSIONS: Final = ("2022-11-28", "2026-03-10")
_JSON: Final = {"content-type": "application/json; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class User:
    """Who a token belongs to; tokens of one ``database_id`` share all limits.

    A dead one is refused with 401, a suspended one with 403; an app's has no viewer.
    """

    database_id: int
    login: str
    dead: bool = False
    suspended: bool = False
    app: bool = False


@dataclass(frozen=True, slots=True)
class Quotas:
    """GitHub's limits; a test replaces some by smaller ones."""

    core: Window
    graphql: Window
    search: Window
    anonymous_core: Window
    anonymous_search: Window
    rest_minute: Window
    graphql_minute: Window
    concurrent: int
    busy_s: Mapping[str, float]


QUOTAS: Final = Quotas(
    core=Window("core", 5000, 3600.0),
    graphql=Window("graphql", 5000, 3600.0),
    search=Window("search", 30, 60.0),
    anonymous_core=Window("core", 60, 3600.0),
    anonymous_search=Window("search", 10, 60.0),
    rest_minute=Window("rest_minute", 900, 60.0),
    graphql_minute=Window("graphql_minute", 2000, 60.0),
    concurrent=100,
    busy_s={"": 90.0, "graphql": 60.0},
)


def users_of(tokens: Sequence[str]) -> dict[str, User]:
    """Give each token a user of its own."""
    return {token: User(9_000_001 + n, f"simulated-{n + 1}") for n, token in enumerate(tokens)}


def _users_in(tokens: Mapping[str, User], scenario: Scenario) -> dict[str, User]:
    """Give the users their fates in a scenario, by the place of their tokens."""
    found: dict[str, User] = {}
    first = next(iter(tokens.values()), None)
    for place, (token, user) in enumerate(tokens.items()):
        from_end = len(tokens) - place
        owner = first if scenario.one_user and first is not None else user
        found[token] = replace(
            owner,
            dead=user.dead or from_end <= scenario.dead_tokens,
            suspended=user.suspended or 0 < from_end - scenario.dead_tokens <= scenario.suspended_tokens,
            app=user.app or place < scenario.app_tokens,
        )
    return found


def _scaled(quotas: Quotas, scenario: Scenario) -> Quotas:
    """Return the quotas with the scenario's hourly limits."""

    def hourly(window: Window) -> Window:
        length_s = window.length_s * scenario.hour_s / 3600.0
        return Window(window.name, max(1, round(window.limit * scenario.quota)), length_s)

    return replace(
        quotas,
        core=hourly(quotas.core),
        graphql=hourly(quotas.graphql),
        anonymous_core=hourly(quotas.anonymous_core),
    )


class GitHub(Upstream):
    """``api.github.com``: POST /graphql, the paths of :mod:`astrid.simulators.github_routes`, rate limits.

    Parameters
    ----------
    tokens
        The users by token; any other token is refused with 401.
    base_url
        What absolute links (``location``, ``link``) begin with.
    """

    name = "github"

    def __init__(
        self,
        world: World,
        tokens: Mapping[str, User],
        *,
        scenario: Scenario = CALM,
        quotas: Quotas = QUOTAS,
        base_url: str = "https://api.github.com",
        tolerance_s: float = 0.0,
    ) -> None:
        limits = Limits(concurrent=quotas.concurrent, tolerance_s=tolerance_s, busy_s=quotas.busy_s)
        super().__init__(world, limits, scenario)
        self._users = _users_in(tokens, scenario)
        self.base_url = base_url
        self.repositories = Repositories(world, scenario)
        self._routes = Routes(self.repositories, scenario)
        self._quotas = _scaled(quotas, scenario)
        self._answers = 0

    def account(self, token: str | None, address: str = LOCALHOST) -> str:
        """Return the user who pays, or the address of one without a valid token."""
        user = self._users.get(token) if token is not None else None
        return f"ip:{address}" if user is None or user.dead else f"user:{user.database_id}"

    def answer(self, call: Call) -> Response:
        """Answer, or refuse with 401, 403, 404, 422 and what else GitHub has."""
        self._answers += 1
        user = self._users.get(call.token) if call.token is not None else None
        if call.token is not None and (user is None or user.dead):
            return self._unauthorized(call, "Bad credentials")
        if user is not None and user.suspended:
            message = "Sorry. Your account was suspended. Please contact GitHub Support."
            body = {"message": message, "documentation_url": DOCS, "status": "403"}
            return json_response(self._by_its_clock(call), body, 403)
        if call.request.path == "/graphql":
            return self._graphql(call, user)
        return self._rest(call, user)

    def kind(self, call: Call) -> str:
        """Return the interface: GraphQL has a busy time of its own."""
        return "graphql" if call.request.path == "/graphql" else "rest"

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer a request over the concurrency or the busy time, or during a wait, with the secondary limit."""
        retry_after_s = max(1, math.ceil(refusal.retry_after_s))
        if refusal.reason in ("concurrency", "cpu_seconds"):
            self.limits.hold(call.account, call.now, HOLD_S)
            retry_after_s = int(HOLD_S)
        headers = self._headers(call, self._window(call))
        return secondary_limit(headers["x-github-request-id"], headers, str(retry_after_s))

    # GraphQL

    def _graphql(self, call: Call, user: User | None) -> Response:
        if user is None:
            return self._unauthorized(call, "This endpoint requires you to be authenticated.")
        if call.request.method != "POST":
            return self._message(call, 404, "Not Found")
        refusal = self.limits.take(call.account, call.client, self._quotas.graphql_minute, 1, call.now)
        if refusal is not None:
            return self._secondary(call, refusal)
        body = read_object(call.request)
        if body is None:
            return self._message(call, 400, "Problems parsing JSON")
        variables, operation = body.get("variables") or {}, body.get("operationName")
        if not isinstance(variables, dict) or not isinstance(operation, str | None):
            return self._message(call, 400, "Problems parsing JSON")
        query = read_query(str(body.get("query") or ""), operation)
        if isinstance(query, tuple):
            return self._graphql_response(call, {"errors": list(query)})
        bill = price(query, variables)
        if bill.errors:
            return self._graphql_response(call, {"errors": list(bill.errors)})
        refusal = self.limits.take(call.account, call.client, self._quotas.graphql, bill.points, call.now)
        if refusal is not None:
            return self._graphql_response(call, _rate_limited(user, self._answers))
        viewer = {"databaseId": user.database_id, "login": user.login, "id": f"U_{user.database_id}"}
        root = Root(
            self._routes,
            call.night,
            self._by_its_clock(call).now,
            None if user.app else viewer,
            query.asks_counts,
            bill,
            self._read(call, self._quotas.graphql),
        )
        return self._graphql_response(call, run_query(query, root, variables))

    def _graphql_response(self, call: Call, body: dict[str, Any]) -> Response:
        return Response(200, {**self._headers(call, self._quotas.graphql), **_JSON}, orjson.dumps(body))

    # REST

    def _rest(self, call: Call, user: User | None) -> Response:
        refusal = self.limits.take(call.account, call.client, self._quotas.rest_minute, 1, call.now)
        if refusal is not None:
            return self._secondary(call, refusal)
        if call.request.path == "/rate_limit":
            return self._rate_limit(call)
        version = call.header("x-github-api-version", API_VERSIONS[0])
        if version not in API_VERSIONS:
            return self._message(call, 400, f"'{version}' is not a supported version of the API")
        window = self._window(call)
        found = self._routes.find(self._by_its_clock(call), self.base_url)
        status, extra = found.status, dict(found.headers)
        encoded = found.body if isinstance(found.body, bytes) else orjson.dumps(found.body)
        if status == 200 and found.tagged:
            etag = f'W/"{hashlib.sha256((call.token or "").encode() + encoded).hexdigest()}"'
            extra |= {"etag": etag, "cache-control": "private, max-age=60, s-maxage=60"}
            if found.modified_at is not None:
                extra["last-modified"] = http_date(found.modified_at)
            if _is_known(call, etag, found.modified_at):
                # GitHub docs, best practices: a 304 does not count against the primary limit.
                return Response(304, {**self._headers(call, window), **extra}, b"")
        refusal = self.limits.take(call.account, call.client, window, 1, call.now)
        headers = self._headers(call, window)
        if refusal is not None:
            who = f"user ID {user.database_id}" if user else LOCALHOST
            body = {
                "message": f"API rate limit exceeded for {who}.",
                "documentation_url": f"{DOCS}/overview/rate-limits-for-the-rest-api",
            }
            # Both statuses are documented; they take turns.
            status, encoded, extra = 429 if self._answers % 2 else 403, orjson.dumps(body), {}
        return Response(status, {**headers, **_JSON, **extra}, encoded)

    def _rate_limit(self, call: Call) -> Response:
        windows = {"core": self._core(call), "search": self._search(call), "graphql": self._quotas.graphql}
        readings = {name: self._read(call, window) for name, window in windows.items()}
        resources = {
            name: {"limit": r.limit, "used": r.used, "remaining": r.remaining, "reset": r.reset_s}
            for name, r in readings.items()
        }
        body: dict[str, Any] = {"resources": resources}
        if call.header("x-github-api-version", API_VERSIONS[0]) < "2026-03-10":
            body["rate"] = resources["core"]
        return Response(200, {**self._headers(call, windows["core"]), **_JSON}, orjson.dumps(body))

    # Headers and refusals

    def _by_its_clock(self, call: Call) -> Call:
        """Return a call as of the moment that GitHub takes it for. Limits go by the true one, as durations do."""
        return replace(call, now=call.now + timedelta(seconds=self.scenario.skew_s))

    def _window(self, call: Call) -> Window:
        """Return the primary window that pays for a path."""
        match call.request.path:
            case "/graphql":
                return self._quotas.graphql
            case path if path == SEARCH:
                return self._search(call)
            case _:
                return self._core(call)

    def _core(self, call: Call) -> Window:
        return self._quotas.core if call.account.startswith("user:") else self._quotas.anonymous_core

    def _search(self, call: Call) -> Window:
        return self._quotas.search if call.account.startswith("user:") else self._quotas.anonymous_search

    def _read(self, call: Call, window: Window) -> Reading:
        """Return the state of a window with its end by GitHub's clock."""
        reading = self.limits.read(call.account, window, call.now)
        return replace(reading, reset_s=math.ceil(reading.reset_s + self.scenario.skew_s))

    def _headers(self, call: Call, window: Window) -> dict[str, str]:
        reading = self._read(call, window)
        if reading.remaining == 0:
            self.limits.tell_empty(call.account, window, call.now)
        version = call.header("x-github-api-version", API_VERSIONS[0])
        digest = hashlib.blake2b(f"{call.now.timestamp()}|{self._answers}".encode(), digest_size=12).hexdigest().upper()
        return {
            "date": http_date(self._by_its_clock(call).now),
            "server": "github.com",
            "vary": "Accept, Authorization, Cookie, X-GitHub-OTP,Accept-Encoding, Accept, X-Requested-With",
            "x-github-api-version-selected": version,
            "x-github-media-type": "github.v4; format=json" if window.name == "graphql" else "github.v3; format=json",
            "x-github-request-id": f"{digest[:4]}:{digest[4:10]}:{digest[10:16]}:{digest[16:]}",
            "x-ratelimit-limit": str(reading.limit),
            "x-ratelimit-remaining": str(reading.remaining),
            "x-ratelimit-reset": str(reading.reset_s),
            "x-ratelimit-resource": window.name,
            "x-ratelimit-used": str(reading.used),
        }

    def _message(self, call: Call, status: int, message: str) -> Response:
        body = orjson.dumps({"message": message, "documentation_url": DOCS, "status": str(status)})
        return Response(status, {**self._headers(call, self._window(call)), **_JSON}, body)

    def _unauthorized(self, call: Call, message: str) -> Response:
        """Answer 401 with the rate headers of the anonymous address, uncharged.

        So from memory, and seen in renovatebot/renovate#2286 (2018) and maxlath/backup-github-repo#10 (2024), where it
        was charged too; brekkylab/backlot#273 (2026-09) measured that a bad token's had none, and no charge.
        """
        body = orjson.dumps({"message": message, "documentation_url": DOCS, "status": "401"})
        return Response(401, {**self._headers(call, self._quotas.anonymous_core), **_JSON}, body)

    def _secondary(self, call: Call, refusal: Refusal) -> Response:
        wait_s = math.ceil(refusal.retry_after_s)
        self.limits.hold(call.account, call.now, wait_s)
        headers = self._headers(call, self._window(call))
        return secondary_limit(headers["x-github-request-id"], headers, str(wait_s))


def _is_known(call: Call, etag: str, modified_at: datetime | None) -> bool:
    """Tell whether the client has the answer already; the tag goes before the date (RFC 9110, 13.2.2)."""
    if tags := call.header("if-none-match"):
        return etag in [tag.strip() for tag in tags.split(",")]
    since = _moment(call.header("if-modified-since"))
    return since is not None and modified_at is not None and modified_at <= since


def _moment(text: str) -> datetime | None:
    """Return the moment of an HTTP date; None of any other text."""
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    except (ValueError, OverflowError):
        return None


def _rate_limited(user: User, count: int) -> dict[str, Any]:
    """Return one of the two bodies that were seen in the field; they take turns."""
    if count % 2:
        message = f"API rate limit exceeded for user ID {user.database_id}."
        return {"errors": [{"type": "RATE_LIMITED", "message": message}]}
    message = f"API rate limit already exceeded for user ID {user.database_id}."
    return {"errors": [{"type": "RATE_LIMIT", "code": "graphql_rate_limit", "message": message}]}
