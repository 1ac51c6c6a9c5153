"""GitHub, REST and GraphQL, over the repositories of a world.

Limits per user: 5,000 requests and 5,000 GraphQL points an hour; 900 REST and 2,000 GraphQL points a
minute; 100 concurrent requests. Without a token REST allows 60 an hour and address, GraphQL nothing.
Facts: GitHub docs, "Rate limits for the REST API", "Rate limits and query limits for the GraphQL API",
"Best practices for using the REST API" (2026). A count that the world does not have on the night fails
as GitHub's own time-outs do, so that a client can only record a gap.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson
from graphql import GraphQLError, GraphQLResolveInfo

from astrid.models import Request, Response
from astrid.simulators.faults import HOLD_S, secondary_limit, went_wrong
from astrid.simulators.github_graphql import Price, Query, price, read_query, run_query
from astrid.simulators.github_rest import repository_body
from astrid.simulators.limits import Limits, Reading, Refusal, Window
from astrid.simulators.repositories import Repositories, Repository
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import LOCALHOST, Call, Upstream, http_date, json_response

if TYPE_CHECKING:
    from astrid.simulators.world import World

WEEKS_PER_PAGE: Final = 30
MAX_PAGE: Final = 100
API_VERSIONS: Final = ("2022-11-28", "2026-03-10")
_REPO: Final = re.compile(r"/repos/([^/]+/[^/]+)(/.*)?")
_NUMBER: Final = re.compile(r"/repositories/(\d+)(/.*)?")
_DOCS: Final = "https://docs.github.com/rest"


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
    rest_minute: Window
    graphql_minute: Window
    concurrent: int
    busy_s: Mapping[str, float]


QUOTAS: Final = Quotas(
    core=Window("core", 5000, 3600.0),
    graphql=Window("graphql", 5000, 3600.0),
    search=Window("search", 30, 60.0),
    anonymous_core=Window("core", 60, 3600.0),
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
    """``api.github.com``: POST /graphql, repositories by name and number, star history, rate limits.

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
        self._quotas = _scaled(quotas, scenario)
        self._answers = 0
        self._cache: dict[tuple[object, ...], Any] = {}
        self._cached_night: date | None = None

    def account(self, token: str | None, address: str = LOCALHOST) -> str:
        """Return the user who pays, or the address of one without a valid token."""
        user = self._users.get(token) if token is not None else None
        return f"ip:{address}" if user is None or user.dead else f"user:{user.database_id}"

    def answer(self, call: Call) -> Response:
        """Answer, or refuse with 401, 403, 404, 422 and what else GitHub has."""
        self._answers += 1
        if call.night != self._cached_night:
            self._cache.clear()
            self._cached_night = call.night
        user = self._users.get(call.token) if call.token is not None else None
        if call.token is not None and (user is None or user.dead):
            return json_response(call, {"message": "Bad credentials", "documentation_url": _DOCS, "status": "401"}, 401)
        if user is not None and user.suspended:
            message = "Sorry. Your account was suspended. Please contact GitHub Support."
            return json_response(call, {"message": message, "documentation_url": _DOCS, "status": "403"}, 403)
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
        window = self._quotas.graphql if call.request.path == "/graphql" else self._core(call)
        headers = self._headers(call, self.limits.read(call.account, window, call.now), window)
        return secondary_limit(call.now, headers["x-github-request-id"], headers, str(retry_after_s))

    # GraphQL

    def _graphql(self, call: Call, user: User | None) -> Response:
        if user is None:
            return json_response(call, {"message": "This endpoint requires you to be authenticated."}, 401)
        if call.request.method != "POST":
            return self._message(call, self._quotas.graphql, 404, "Not Found")
        refusal = self.limits.take(call.account, call.client, self._quotas.graphql_minute, 1, call.now)
        if refusal is not None:
            return self._secondary(call, self._quotas.graphql, refusal)
        body = _json_body(call.request)
        if body is None:
            return self._message(call, self._quotas.graphql, 400, "Problems parsing JSON")
        variables, operation = body.get("variables") or {}, body.get("operationName")
        if not isinstance(variables, dict) or not isinstance(operation, str | None):
            return self._message(call, self._quotas.graphql, 400, "Problems parsing JSON")
        query = read_query(str(body.get("query") or ""), operation)
        if isinstance(query, tuple):
            return self._graphql_response(call, {"errors": list(query)})
        bill = price(query, variables)
        if bill.errors:
            return self._graphql_response(call, {"errors": list(bill.errors)})
        refusal = self.limits.take(call.account, call.client, self._quotas.graphql, bill.points, call.now)
        if refusal is not None:
            return self._graphql_response(call, _rate_limited(user, self._answers))
        root = _Root(self, call, user, query, bill, self.limits.read(call.account, self._quotas.graphql, call.now))
        return self._graphql_response(call, run_query(query, root, variables))

    def _graphql_response(self, call: Call, body: dict[str, Any]) -> Response:
        reading = self.limits.read(call.account, self._quotas.graphql, call.now)
        headers = self._headers(call, reading, self._quotas.graphql)
        return Response(200, {**headers, "content-type": "application/json; charset=utf-8"}, orjson.dumps(body))

    def node(self, repository: Repository, night: date) -> dict[str, Any]:
        """Return the GraphQL object of a repository as of a night, built once."""
        key = ("node", repository.node_id)
        if key not in self._cache:
            self._cache[key] = self.repositories.node(repository, night)
        node: dict[str, Any] = self._cache[key]
        return node

    # REST

    def _rest(self, call: Call, user: User | None) -> Response:
        refusal = self.limits.take(call.account, call.client, self._quotas.rest_minute, 1, call.now)
        if refusal is not None:
            return self._secondary(call, self._core(call), refusal)
        if call.request.path == "/rate_limit":
            return self._rate_limit(call)
        version = call.header("x-github-api-version", API_VERSIONS[0])
        if version not in API_VERSIONS:
            message = f"'{version}' is not a supported version of the API"
            return self._message(call, self._core(call), 400, message)
        status, body, extra = self._resource(call)
        encoded = body if isinstance(body, bytes) else orjson.dumps(body)
        if status == 200:
            etag = f'W/"{hashlib.sha256((call.token or "").encode() + encoded).hexdigest()}"'
            extra = {**extra, "etag": etag, "cache-control": "private, max-age=60, s-maxage=60"}
            if etag in [e.strip() for e in call.header("if-none-match").split(",")]:
                # GitHub docs, best practices: a 304 does not count against the primary limit.
                window = self._core(call)
                reading = self.limits.read(call.account, window, call.now)
                return Response(304, {**self._headers(call, reading, window), **extra}, b"")
        refusal = self.limits.take(call.account, call.client, self._core(call), 1, call.now)
        window = self._core(call)
        headers = self._headers(call, self.limits.read(call.account, window, call.now), window)
        if refusal is not None:
            who = f"user ID {user.database_id}" if user else LOCALHOST
            body = {
                "message": f"API rate limit exceeded for {who}.",
                "documentation_url": f"{_DOCS}/overview/rate-limits-for-the-rest-api",
            }
            # Both statuses are documented; they take turns.
            status, encoded, extra = 429 if self._answers % 2 else 403, orjson.dumps(body), {}
        return Response(status, {**headers, "content-type": "application/json; charset=utf-8", **extra}, encoded)

    def _resource(self, call: Call) -> tuple[int, object, dict[str, str]]:
        path, night = call.request.path, call.night
        if call.request.method not in ("GET", "HEAD"):
            return 404, _not_found(), {}
        if match := _NUMBER.fullmatch(path):
            repository = self.repositories.by_number(int(match[1]), night)
        elif match := _REPO.fullmatch(path):
            repository = self.repositories.by_name(match[1], night)
            if repository is None and (moved := self.repositories.by_former_name(match[1], night)):
                url = f"{self.base_url}/repositories/{moved.database_id}{match[2] or ''}{_query(call.request)}"
                body = {
                    "message": "Moved Permanently",
                    "url": url,
                    "documentation_url": "https://docs.github.com/v3/#http-redirects",
                }
                return 301, body, {"location": url}
        else:
            return 404, _not_found(), {}
        if repository is None or repository.block == "gone":
            return 404, _not_found(), {}
        if repository.block is not None:
            return _blocked(repository.block)
        match match[2]:
            case None:
                return self._repository(call, repository)
            case "/stargazers/history":
                return self._history(call, repository)
            case "/stargazers/count":
                stars = self.repositories.stars(repository, night)
                return (502, {"message": "Server Error"}, {}) if stars is None else (200, {"count": stars}, {})
            case _:
                # Among others /stargazers: closed to all but collaborators since July 2026.
                return 404, _not_found(), {}

    def _repository(self, call: Call, repository: Repository) -> tuple[int, object, dict[str, str]]:
        key = ("repository", repository.node_id)
        if key not in self._cache:
            node = self.node(repository, call.night)
            whole = node["stargazerCount"] is not None and node["forkCount"] is not None
            self._cache[key] = orjson.dumps(repository_body(node, self.base_url)) if whole else None
        body = self._cache[key]
        return (502, {"message": "Server Error"}, {}) if body is None else (200, body, {})

    def _history(self, call: Call, repository: Repository) -> tuple[int, object, dict[str, str]]:
        if self.repositories.has(repository, "ancient"):
            return 502, {"message": "Server Error"}, {}
        size = min(_whole(call.param("per_page"), WEEKS_PER_PAGE), WEEKS_PER_PAGE)
        page = _whole(call.param("page"), 1)
        if page > MAX_PAGE:
            message = "In order to keep the API fast for everyone, pagination is limited for this resource."
            return 422, {"message": message}, {}
        key = ("history", repository.node_id)
        if key not in self._cache:
            self._cache[key] = self.repositories.history(repository, call.night)
        weeks: list[dict[str, Any]] = self._cache[key]
        rows = weeks[(page - 1) * size : page * size]
        url = f"{self.base_url}/repositories/{repository.database_id}/stargazers/history?per_page={size}&page="
        links = [f'<{url}{page - 1}>; rel="prev"'] if page > 1 else []
        if page * size < len(weeks):
            links.append(f'<{url}{page + 1}>; rel="next"')
        return 200, rows, {"link": ", ".join(links)} if links else {}

    def _rate_limit(self, call: Call) -> Response:
        windows = {"core": self._core(call), "search": self._quotas.search, "graphql": self._quotas.graphql}
        readings = {name: self.limits.read(call.account, window, call.now) for name, window in windows.items()}
        resources = {
            name: {"limit": r.limit, "used": r.used, "remaining": r.remaining, "reset": r.reset_s}
            for name, r in readings.items()
        }
        body: dict[str, Any] = {"resources": resources}
        if call.header("x-github-api-version", API_VERSIONS[0]) < "2026-03-10":
            body["rate"] = resources["core"]
        headers = self._headers(call, readings["core"], windows["core"])
        return Response(200, {**headers, "content-type": "application/json; charset=utf-8"}, orjson.dumps(body))

    # Headers and refusals

    def _core(self, call: Call) -> Window:
        return self._quotas.core if call.account.startswith("user:") else self._quotas.anonymous_core

    def _headers(self, call: Call, reading: Reading, window: Window) -> dict[str, str]:
        if reading.remaining == 0:
            self.limits.tell_empty(call.account, window, call.now)
        version = call.header("x-github-api-version", API_VERSIONS[0])
        digest = hashlib.blake2b(f"{call.now.timestamp()}|{self._answers}".encode(), digest_size=12).hexdigest().upper()
        return {
            "date": http_date(call.now + timedelta(seconds=self.scenario.skew_s)),
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

    def _message(self, call: Call, window: Window, status: int, message: str) -> Response:
        headers = self._headers(call, self.limits.read(call.account, window, call.now), window)
        body = orjson.dumps({"message": message, "documentation_url": _DOCS, "status": str(status)})
        return Response(status, {**headers, "content-type": "application/json; charset=utf-8"}, body)

    def _secondary(self, call: Call, window: Window, refusal: Refusal) -> Response:
        wait_s = math.ceil(refusal.retry_after_s)
        self.limits.hold(call.account, call.now, wait_s)
        headers = self._headers(call, self.limits.read(call.account, window, call.now), window)
        return secondary_limit(call.now, headers["x-github-request-id"], headers, str(wait_s))


@dataclass(frozen=True)
class _Root:
    """Resolves the fields of ``Query`` for one request; argument names are the schema's."""

    upstream: GitHub
    call: Call
    user: User
    query: Query
    bill: Price
    reading: Reading

    def viewer(self, info: GraphQLResolveInfo[Any]) -> dict[str, Any]:
        if self.user.app:
            raise GraphQLError("Resource not accessible by integration", extensions={"type": "FORBIDDEN"})
        return {"databaseId": self.user.database_id, "login": self.user.login, "id": f"U_{self.user.database_id}"}

    def rateLimit(self, info: GraphQLResolveInfo[Any], dryRun: bool = False) -> dict[str, Any]:
        return {
            "cost": self.bill.points,
            "limit": self.reading.limit,
            "nodeCount": self.bill.nodes,
            "remaining": self.reading.remaining,
            "resetAt": datetime.fromtimestamp(self.reading.reset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "used": self.reading.used,
        }

    def repository(
        self,
        info: GraphQLResolveInfo[Any],
        owner: str,
        name: str,
        followRenames: bool = True,
    ) -> dict[str, Any]:
        full, night = f"{owner}/{name}", self.call.night
        found = self.upstream.repositories.by_name(full, night)
        if found is None and followRenames:
            found = self.upstream.repositories.by_former_name(full, night)
        if found is None or found.block is not None:
            raise _not_resolved(f"Could not resolve to a Repository with the name '{full}'.")
        value = self._value(found)
        if isinstance(value, GraphQLError):
            raise value
        return value

    def node(self, info: GraphQLResolveInfo[Any], id: str) -> dict[str, Any]:
        value = self._by_id(id)
        if isinstance(value, GraphQLError):
            raise value
        return value

    def nodes(self, info: GraphQLResolveInfo[Any], ids: list[str]) -> list[dict[str, Any] | GraphQLError]:
        return [self._by_id(node_id) for node_id in ids]

    def _by_id(self, node_id: str) -> dict[str, Any] | GraphQLError:
        found = self.upstream.repositories.by_node(node_id, self.call.night)
        if found is None or found.block is not None:
            return _not_resolved(f"Could not resolve to a node with the global id of '{node_id}'")
        return self._value(found)

    def _value(self, repository: Repository) -> dict[str, Any] | GraphQLError:
        node = self.upstream.node(repository, self.call.night)
        if self.query.asks_counts and (node["stargazerCount"] is None or node["forkCount"] is None):
            return GraphQLError(went_wrong(self.call.now, repository.node_id))
        return node


def _not_resolved(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"type": "NOT_FOUND"})


def _rate_limited(user: User, count: int) -> dict[str, Any]:
    """Return one of the two bodies that were seen in the field; they take turns."""
    if count % 2:
        message = f"API rate limit exceeded for user ID {user.database_id}."
        return {"errors": [{"type": "RATE_LIMITED", "message": message}]}
    message = f"API rate limit already exceeded for user ID {user.database_id}."
    return {"errors": [{"type": "RATE_LIMIT", "code": "graphql_rate_limit", "message": message}]}


def _blocked(reason: str) -> tuple[int, object, dict[str, str]]:
    block = {"reason": reason, "created_at": "2025-01-01T00:00:00Z", "html_url": "https://github.com/tos"}
    return (451 if reason == "dmca" else 403), {"message": "Repository access blocked", "block": block}, {}


def _not_found() -> dict[str, str]:
    return {"message": "Not Found", "documentation_url": _DOCS, "status": "404"}


def _json_body(request: Request) -> dict[str, Any] | None:
    if request.json is not None:
        return request.json if isinstance(request.json, dict) else None
    try:
        body = orjson.loads(request.content or b"")
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _query(request: Request) -> str:
    return "?" + "&".join(f"{k}={v}" for k, v in request.params) if request.params else ""


def _whole(text: str, default: int) -> int:
    return max(1, int(text)) if text.isascii() and text.isdigit() else default
