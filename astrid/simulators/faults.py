"""Faults of single requests: which request meets which, and what becomes of its answer.

The draw depends on the seed, the upstream, the night, the request without its credentials, and how
often that request came before; so a run replays, whatever order its requests come in.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import cache
from typing import Any, Final

import orjson

from astrid.models import Request, Response
from astrid.simulators.scenarios import Scenario

SLOW_S: Final = 9.5
"""GitHub ends a request after 10 s; this one just makes it."""
BOMB_BYTES: Final = 80 * 2**20
"""What the body of a gzip bomb unpacks to: more than the client takes."""
HOLD_S: Final = 60.0
"""What a secondary limit asks for, and the least to wait where it names no time (GitHub docs, best practices)."""

SECONDARY_MESSAGE: Final = (
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. "
    "If you reach out to GitHub Support for help, please include the request ID {request_id}."
)
SECONDARY_URL: Final = "https://docs.github.com/free-pro-team@latest/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"
_HTML_502: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)

_PROXY_PAGE: Final = b"<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1></body></html>\n"
PYPI_LIMIT_PAGE: Final = b'<a href="/api/#etiquette">429 RATE LIMIT EXCEEDED</a>'
CLOUDFLARE_LINE: Final = b"error code: 1015"
_CLOUDFLARE_PAGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Access denied | api.npmjs.org used Cloudflare to restrict access</title>"
    b'</head><body><h1><span class="cf-error-type">Error</span> <span class="cf-error-code">1015</span></h1>'
    b"<h2>You are being rate limited</h2></body></html>\n"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and how it travels: after ``delay_s`` seconds, and ``cut`` off in the middle or not.

    ``hold_s`` is the wait that the answer demands of its account, 0 for none; of a ``bare`` refusal, which names no
    time, the least (see :meth:`astrid.simulators.limits.Limits.hold_bare`).
    """

    response: Response
    fault: str | None = None
    delay_s: float = 0.0
    cut: bool = False
    hold_s: float = 0.0
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Strike:
    """What a fault needs to know: the request, the sound answer, the moment, and a draw from [0, 1)."""

    request: Request
    response: Response
    now: datetime
    night: date
    draw: float


def fingerprint(request: Request) -> bytes:
    """Return a digest of what a request asks for, without who asks."""
    digest = hashlib.blake2b(digest_size=16)
    body = request.content if request.json is None else orjson.dumps(request.json)
    for part in (request.upstream, request.method, request.path, orjson.dumps(request.params), body or b""):
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.digest()


def draw_fault(scenario: Scenario, upstream: str, key: bytes, night: date, attempt: int) -> tuple[str, float] | None:
    """Return the fault that a request meets and a further draw from [0, 1), or None for a sound answer."""
    kinds = kinds_of(scenario, upstream)
    if not kinds or not scenario.probability:
        return None
    seed = f"{scenario.seed}|{upstream}|{night.isoformat()}|{attempt}|".encode()
    digest = hashlib.blake2b(seed + key, digest_size=24).digest()
    chance, choice, further = (int.from_bytes(digest[i : i + 8], "big") / 2**64 for i in (0, 8, 16))
    if chance >= scenario.probability:
        return None
    return kinds[int(choice * len(kinds))], further


def kinds_of(scenario: Scenario, upstream: str) -> list[str]:
    """Return the faults of a scenario that an upstream may show."""
    return [kind for kind in scenario.faults if upstream in _UPSTREAMS[kind]]


def strike(kind: str, hit: Strike) -> Answer:
    """Return the answer as the fault leaves it; one that the fault cannot touch comes back sound."""
    if hit.response.status != 200:
        return Answer(hit.response)
    answer = _FAULTS[kind](hit)
    touched = answer.response is not hit.response or answer.delay_s or answer.cut
    return replace(answer, fault=kind) if touched else answer


def secondary_limit(request_id: str, headers: Mapping[str, str], retry_after: str | None) -> Response:
    """Build the 403 of a GitHub secondary limit; ``retry_after`` None leaves the header out."""
    kept = {k: v for k, v in headers.items() if k.startswith(("x-ratelimit", "date", "x-github"))}
    if retry_after is not None:
        kept["retry-after"] = retry_after
    body = {"documentation_url": SECONDARY_URL, "message": SECONDARY_MESSAGE.format(request_id=request_id)}
    return Response(403, {**kept, "content-type": "application/json; charset=utf-8"}, orjson.dumps(body))


def _replaced(hit: Strike, status: int, body: bytes, kind: str, **more: str) -> Response:
    kept = {k: v for k, v in hit.response.headers.items() if k.startswith(("x-ratelimit", "date", "x-github"))}
    return Response(status, {**kept, "content-type": kind, **{k.replace("_", "-"): v for k, v in more.items()}}, body)


def _request_id(hit: Strike) -> str:
    return hit.response.headers.get("x-github-request-id", "0000:0000:0000000")


def _clock(hit: Strike) -> datetime:
    """Return the moment by the upstream's clock, which need not be right: the one that the answer shows."""
    shown = hit.response.headers.get("date")
    return parsedate_to_datetime(shown) if shown else hit.now


def _bad_gateway_json(hit: Strike) -> Answer:
    body: dict[str, Any] = {"message": "Server Error"}
    if hit.request.path == "/graphql":
        body = {"data": None, "errors": [{"message": went_wrong(_clock(hit), _request_id(hit))}]}
    return Answer(_replaced(hit, 502, orjson.dumps(body), "application/json; charset=utf-8"))


def went_wrong(now: datetime, request_id: str) -> str:
    """Return GitHub's message for a query that failed on its side (a time-out or a bug)."""
    return (
        f"Something went wrong while executing your query on {now.isoformat(timespec='seconds')}. This may be the "
        f"result of a timeout, or it could be a GitHub bug. Please include `{request_id}` when reporting this issue."
    )


def _bad_gateway_html(hit: Strike) -> Answer:
    return Answer(_replaced(hit, 502, _HTML_502, "text/html"))


def _resource_limits(hit: Strike) -> Answer:
    """Take away the second half of the answer, and say so in an error: data and error come together."""
    if hit.request.path != "/graphql":
        return Answer(hit.response)
    body = orjson.loads(hit.response.body)
    data = body.get("data") or {}
    path: list[str | int] = []
    for name, value in data.items():
        if isinstance(value, list) and value:
            half = len(value) // 2
            value[half:] = [None] * (len(value) - half)
            path = [name, half]
    aliases = [name for name, value in data.items() if isinstance(value, dict) and "nameWithOwner" in value]
    if not path and aliases:
        for name in aliases[len(aliases) // 2 :]:
            data[name] = None
        path = [aliases[len(aliases) // 2]]
    if not path:
        return Answer(hit.response)
    error = {
        "type": "RESOURCE_LIMITS_EXCEEDED",
        "path": path,
        "message": "Resource limits for this query exceeded.",
    }
    body["errors"] = [*body.get("errors", ()), error]
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _secondary_limit(hit: Strike) -> Answer:
    response = secondary_limit(_request_id(hit), hit.response.headers, str(int(HOLD_S)))
    return Answer(response, hold_s=HOLD_S)


def _secondary_limit_bare(hit: Strike) -> Answer:
    response = secondary_limit(_request_id(hit), hit.response.headers, None)
    return Answer(response, hold_s=HOLD_S, bare=True)


def _secondary_limit_200(hit: Strike) -> Answer:
    if hit.request.path != "/graphql":
        return Answer(hit.response)
    body = orjson.dumps({"errors": [{"message": SECONDARY_MESSAGE.format(request_id=_request_id(hit))}]})
    response = _replaced(hit, 200, body, "application/json; charset=utf-8", retry_after=str(int(HOLD_S)))
    return Answer(response, hold_s=HOLD_S)


def _secondary_limit_200_bare(hit: Strike) -> Answer:
    if hit.request.path != "/graphql":
        return Answer(hit.response)
    body = orjson.dumps({"errors": [{"message": SECONDARY_MESSAGE.format(request_id=_request_id(hit))}]})
    return Answer(_replaced(hit, 200, body, "application/json; charset=utf-8"), hold_s=HOLD_S, bare=True)


def _secondary_limit_429(hit: Strike) -> Answer:
    answer = _secondary_limit(hit)
    return replace(answer, response=replace(answer.response, status=429))


def _secondary_limit_429_bare(hit: Strike) -> Answer:
    answer = _secondary_limit_bare(hit)
    return replace(answer, response=replace(answer.response, status=429))


def _too_many_http_date(hit: Strike) -> Answer:
    until = (hit.now + timedelta(seconds=HOLD_S)).replace(microsecond=0)
    told = (_clock(hit) + timedelta(seconds=HOLD_S)).replace(microsecond=0)
    body = orjson.dumps({"message": SECONDARY_MESSAGE.format(request_id=_request_id(hit))})
    response = _replaced(
        hit, 429, body, "application/json; charset=utf-8", retry_after=format_datetime(told, usegmt=True)
    )
    return Answer(response, hold_s=(until - hit.now).total_seconds())


def _endpoint_spammed(hit: Strike) -> Answer:
    """Throttle ``/stargazers/history`` with a 422, as third-party notes report; the wording and the wait are ours."""
    if not hit.request.path.endswith("/stargazers/history"):
        return Answer(hit.response)
    body = orjson.dumps(
        {
            "message": "Validation Failed, or the endpoint has been spammed.",
            "documentation_url": "https://docs.github.com/rest/activity/starring",
            "status": "422",
        }
    )
    return Answer(_replaced(hit, 422, body, "application/json; charset=utf-8"), hold_s=HOLD_S)


def _slow(hit: Strike) -> Answer:
    return Answer(hit.response, delay_s=SLOW_S)


def _truncated_body(hit: Strike) -> Answer:
    """Cut the text short inside a complete HTTP answer: the cut shows only when it is parsed."""
    headers = {k: v for k, v in hit.response.headers.items() if k != "content-encoding"}
    if "content-encoding" in hit.response.headers or len(hit.response.body) < 2:
        return Answer(hit.response)
    end = max(1, int(len(hit.response.body) * (0.2 + 0.6 * hit.draw)))
    return Answer(Response(200, headers, hit.response.body[:end]))


def _cut_connection(hit: Strike) -> Answer:
    end = len(hit.response.body) // 2
    return Answer(Response(200, hit.response.headers, hit.response.body[:end]), cut=True)


def _proxy_not_found(hit: Strike) -> Answer:
    """Answer 404 with the page of something in between, which says nothing about what was asked for."""
    return Answer(_replaced(hit, 404, _PROXY_PAGE, "text/html"))


def _changed(hit: Strike, body: object) -> Answer:
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _bad_count(hit: Strike) -> Any:
    return _BAD_COUNTS[int(hit.draw * len(_BAD_COUNTS))]


def _stale_feed(hit: Strike) -> Answer:
    """Hold back the newest 3 to 10 days of a pypistats series."""
    body = orjson.loads(hit.response.body)
    if not isinstance(body.get("data"), list):
        return Answer(hit.response)
    newest = (hit.night - timedelta(days=3 + int(hit.draw * 8))).isoformat()
    body["data"] = [row for row in body["data"] if row["date"] <= newest]
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _pypi_late_day(hit: Strike) -> Answer:
    """Lack the newest day, as before the site's nightly import has run."""
    return _without(hit, hit.night.isoformat())


def _pypi_hole(hit: Strike) -> Answer:
    """Lack one day in the middle."""
    return _without(hit, (hit.night - timedelta(days=2 + int(hit.draw * 60))).isoformat())


def _without(hit: Strike, day: str) -> Answer:
    body = orjson.loads(hit.response.body)
    if not isinstance(body.get("data"), list):
        return Answer(hit.response)
    body["data"] = [row for row in body["data"] if row["date"] != day]
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _pypi_zero_day(hit: Strike) -> Answer:
    """State 0 on one day of a package with at least 100 downloads on the days around it: an import that failed."""
    body = orjson.loads(hit.response.body)
    rows = body["data"] if isinstance(body.get("data"), list) else []
    n = len(rows) - 3 - int(hit.draw * 60)
    if n < 1 or min(row["downloads"] for row in rows[n - 1 : n + 2]) < 100:
        return Answer(hit.response)
    rows[n]["downloads"] = 0
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _pypi_too_many(hit: Strike) -> Answer:
    """Refuse as the site does: a page, without a word about how long."""
    return Answer(_replaced(hit, 429, PYPI_LIMIT_PAGE, "text/html; charset=utf-8"), hold_s=HOLD_S)


def _pypi_no_data(hit: Strike) -> Answer:
    """State nothing, with 200, as the site does for packages that it does not know where it splits counts."""
    body = orjson.loads(hit.response.body)
    return _changed(hit, body | {"data": []}) if isinstance(body.get("data"), list) else Answer(hit.response)


def _pypi_bad_counts(hit: Strike) -> Answer:
    """Spoil the count of every seventh day."""
    body = orjson.loads(hit.response.body)
    rows = body["data"] if isinstance(body.get("data"), list) else []
    for row in rows[int(hit.draw * 7) :: 7]:
        row["downloads"] = _bad_count(hit)
    return _changed(hit, body) if rows else Answer(hit.response)


def _pypi_contradiction(hit: Strike) -> Answer:
    """State fewer downloads with mirrors than without them on one day."""
    body = orjson.loads(hit.response.body)
    rows = body["data"] if isinstance(body.get("data"), list) else []
    plain = [row for row in rows if row["category"] == "without_mirrors" and row["downloads"] > 0]
    if not plain:
        return Answer(hit.response)
    wrong = plain[-1 - int(hit.draw * min(len(plain), 60))]
    kept = [row for row in rows if (row["category"], row["date"]) != ("with_mirrors", wrong["date"])]
    body["data"] = [wrong | {"category": "with_mirrors", "downloads": wrong["downloads"] // 2}, *kept]
    return _changed(hit, body)


def _hn_too_many(hit: Strike) -> Answer:
    body = orjson.dumps({"message": "Too many requests", "status": 429})
    return Answer(_replaced(hit, 429, body, "application/json; charset=utf-8"))


def _database_exception(hit: Strike) -> Answer:
    body = b"Code: 159. DB::Exception: Timeout exceeded: elapsed 60.002 seconds, maximum: 60. (TIMEOUT_EXCEEDED)\n"
    return Answer(_replaced(hit, 500, body, "text/plain; charset=UTF-8", x_clickhouse_exception_code="159"))


def _clickhouse_bad_counts(hit: Strike) -> Answer:
    """Spoil every third count of a result."""
    rows = _rows(hit)
    for row in rows[int(hit.draw * 3) :: 3]:
        for name in row.keys() - {"project", "date"}:
            row[name] = _bad_count(hit)
    return _written(hit, rows)


def _clickhouse_foreign_rows(hit: Strike) -> Answer:
    """Put the row of a package that nobody asked for in the place of one."""
    rows = _rows(hit)
    if rows and "project" in rows[0]:
        rows[int(hit.draw * len(rows))]["project"] = "a-package-of-somebody-else"
    return _written(hit, rows)


def _rows(hit: Strike) -> list[dict[str, Any]]:
    """Return the rows of a result that are objects; none of another format."""
    lines = hit.response.body.splitlines() if hit.response.body.startswith(b"{") else []
    return [orjson.loads(line) for line in lines]


def _written(hit: Strike, rows: list[dict[str, Any]]) -> Answer:
    body = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    return Answer(Response(200, hit.response.headers, body) if rows and body != hit.response.body else hit.response)


def _too_many(hit: Strike, body: dict[str, Any]) -> Answer:
    refused = _replaced(hit, 429, orjson.dumps(body), "application/json; charset=utf-8", retry_after=str(int(HOLD_S)))
    return Answer(refused, hold_s=HOLD_S)


def _depsdev_too_many(hit: Strike) -> Answer:
    return _too_many(hit, {"code": 8, "message": "resource exhausted", "details": []})


def _dockerhub_too_many(hit: Strike) -> Answer:
    return _too_many(hit, {"detail": "Rate limit exceeded", "error": False})


def _depsdev_bad_counts(hit: Strike) -> Answer:
    """Spoil a count of every second project, the count of dependents, or all versions of a package."""
    body = orjson.loads(hit.response.body)
    for answer in body.get("responses", [])[::2]:
        if "project" in answer:
            answer["project"]["starsCount" if hit.draw < 0.5 else "forksCount"] = _bad_count(hit)
    if "dependentCount" in body:
        body["dependentCount"] = _bad_count(hit)
    if "versions" in body:
        body["versions"] = [{"versionKey": _bad_count(hit)}] if hit.draw < 0.5 else []
    return _changed(hit, body)


def _depsdev_wrong_rows(hit: Strike) -> Answer:
    """Leave a repository out, and state another twice, the second time with other counts; or name another package."""
    body = orjson.loads(hit.response.body)
    rows = body.get("responses", [])
    if len(rows) > 1:
        del rows[int(hit.draw * len(rows))]
    for row in [r for r in rows if "project" in r][:1]:
        project = row["project"]
        rows.append(row | {"project": project | {"starsCount": project["starsCount"] + 1}})
    if "packageKey" in body:
        body["packageKey"]["name"] += "-of-somebody-else"
    return _changed(hit, body) if rows or "packageKey" in body else Answer(hit.response)


def _dockerhub_bad_counts(hit: Strike) -> Answer:
    body = orjson.loads(hit.response.body)
    return _changed(hit, body | {"pull_count" if hit.draw < 0.5 else "star_count": _bad_count(hit)})


def _npm_error_1015(hit: Strike) -> Answer:
    return Answer(Response(429, {"content-type": "text/plain; charset=UTF-8"}, CLOUDFLARE_LINE), hold_s=HOLD_S)


def _npm_error_1015_page(hit: Strike) -> Answer:
    return Answer(_replaced(hit, 403, _CLOUDFLARE_PAGE, "text/html; charset=UTF-8"), hold_s=HOLD_S)


def _npm_ranges(hit: Strike) -> tuple[Any, list[dict[str, Any]]]:
    """Return npm's body and the ranges in it: one, or one per known package of a list."""
    body = orjson.loads(hit.response.body)
    return body, [body] if isinstance(body.get("downloads"), list) else [r for r in body.values() if r is not None]


def _npm_range_cut(hit: Strike) -> Answer:
    """Lose the oldest third of the days; only ``start`` tells."""
    body, ranges = _npm_ranges(hit)
    for part in ranges:
        part["downloads"] = part["downloads"][(len(part["downloads"]) + 2) // 3 :]
        part["start"] = part["downloads"][0]["day"] if part["downloads"] else part["end"]
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _npm_late_day(hit: Strike) -> Answer:
    """Owe the newest day: its count is 0, its row is absent, or the range ends before it."""
    body, ranges = _npm_ranges(hit)
    if not any(part["downloads"] and part["downloads"][-1]["day"] == hit.night.isoformat() for part in ranges):
        return Answer(hit.response)
    for part in ranges:
        if hit.draw < 1 / 3:
            part["downloads"][-1]["downloads"] = 0
        else:
            part["downloads"].pop()
            if hit.draw > 2 / 3 and part["downloads"]:
                part["end"] = part["downloads"][-1]["day"]
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _npm_zero_day(hit: Strike) -> Answer:
    """State 0 on one day for every package that had at least 100 downloads on it and on the days beside it."""
    body, ranges = _npm_ranges(hit)
    changed = False
    for part in ranges:
        rows = part["downloads"]
        n = 1 + int(hit.draw * (len(rows) - 2))
        if len(rows) > 2 and min(row["downloads"] for row in rows[n - 1 : n + 2]) >= 100:
            rows[n]["downloads"] = 0
            changed = True
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)) if changed else hit.response)


def _npm_failed_day(hit: Strike) -> Answer:
    """State 0 on one day for every package of the answer, however small."""
    body, ranges = _npm_ranges(hit)
    for part in ranges:
        rows = part["downloads"]
        if len(rows) > 2:
            rows[1 + int(hit.draw * (len(rows) - 2))]["downloads"] = 0
    return _changed(hit, body)


def _npm_doubled_day(hit: Strike) -> Answer:
    """State one day twice, the second time with another count."""
    body, ranges = _npm_ranges(hit)
    for part in ranges:
        if part["downloads"]:
            row = part["downloads"][int(hit.draw * len(part["downloads"]))]
            part["downloads"].append({"downloads": row["downloads"] + 1, "day": row["day"]})
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _huggingface_too_many(hit: Strike) -> Answer:
    """Say that others of this address have used up the window, 55 s before its end."""
    headers = {"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
    body = orjson.dumps({"error": "We had to rate limit your IP. To continue, wait or log in."})
    response = _replaced(hit, 429, body, "application/json; charset=utf-8")
    return Answer(Response(429, {**response.headers, **headers}, body), hold_s=55.0)


def _huggingface_bad_count(hit: Strike) -> Answer:
    """Spoil one count of every second model: it is absent, null, below 0, or a text."""
    body = orjson.loads(hit.response.body)
    field = ("downloadsAllTime", "downloads", "likes")[int(hit.draw * 3)]
    models = body[::2] if isinstance(body, list) else [body]
    for n, model in enumerate(m for m in models if field in m):
        match n % 4:
            case 0:
                del model[field]
            case 1:
                model[field] = None
            case 2:
                model[field] = -model[field] - 1
            case _:
                model[field] = str(model[field])
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(BOMB_BYTES), compresslevel=9, mtime=0)


def _gzip_bomb(hit: Strike) -> Answer:
    """Answer little that unpacks to much."""
    headers = {**hit.response.headers, "content-encoding": "gzip"}
    return Answer(Response(200, headers, _bomb()))


_BAD_COUNTS: Final[tuple[Any, ...]] = (None, -1, 2**53, "many", 1.5, True, {}, [7])


def _github_bad_counts(hit: Strike) -> Answer:
    """Spoil counts: null, negative, absurd, of another type; of every second repository, or on a day of every week."""
    body = orjson.loads(hit.response.body)
    bad = _BAD_COUNTS[int(hit.draw * len(_BAD_COUNTS))]
    if isinstance(body, list):
        for week in _weeks(body):
            week["days"][int(hit.draw * 7)] = bad
    elif not sum(_spoil(node, bad) for node in _repositories(body)[::2]):
        return Answer(hit.response)
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _spoil(node: dict[str, Any], bad: object) -> bool:
    spoilt = False
    for name in ("stargazerCount", "forkCount", "stargazers_count"):
        if name in node:
            node[name], spoilt = bad, True
    for connection in node.values():
        if isinstance(connection, dict) and "totalCount" in connection:
            connection["totalCount"], spoilt = bad, True
    return spoilt


def _github_doubled_rows(hit: Strike) -> Answer:
    """State a week twice, the second time with other counts; state one repository in the place of the next too."""
    body = orjson.loads(hit.response.body)
    if weeks := _weeks(body):
        week = weeks[int(hit.draw * len(weeks))]
        body.append({**week, "days": [count + 1 for count in week["days"]]})
        return Answer(Response(200, hit.response.headers, orjson.dumps(body)))
    nodes = (body.get("data") or {}).get("nodes") if isinstance(body, dict) else None
    if not nodes or len(nodes) < 2:
        return Answer(hit.response)
    place = int(hit.draw * (len(nodes) - 1))
    nodes[place + 1] = nodes[place]
    return Answer(Response(200, hit.response.headers, orjson.dumps(body)))


def _weeks(body: Any) -> list[dict[str, Any]]:
    """Return the weeks of a star history; none of another answer."""
    return [row for row in body if isinstance(row, dict) and "days" in row] if isinstance(body, list) else []


def _repositories(body: Any) -> list[dict[str, Any]]:
    """Return the repositories in an answer of GitHub's, of either interface."""
    if "full_name" in body:
        return [body]
    if "items" in body:
        return list(body["items"])
    data = body.get("data") or {}
    nodes = data.get("nodes") or list(data.values())
    return [node for node in nodes if isinstance(node, dict) and "nameWithOwner" in node]


def _endless_paging(hit: Strike) -> Answer:
    """Let a list's ``next`` lead back to the page that was asked for; deps.dev's to its first one."""
    if hit.request.path == "/v3alpha/projectbatch":
        return _changed(hit, orjson.loads(hit.response.body) | {"nextPageToken": "0"})
    link = hit.response.headers.get("link", "")
    asked = dict(hit.request.params)
    back = re.sub(r"cursor=[^&>]*", f"cursor={asked.get('cursor', '')}", link)
    back = re.sub(r'([?&]page=)\d+([^>]*>; rel="next")', rf"\g<1>{asked.get('page', '1')}\g<2>", back)
    return Answer(
        hit.response if back == link else replace(hit.response, headers={**hit.response.headers, "link": back})
    )


_EVERYWHERE: Final = frozenset(
    {
        "github",
        "hn_algolia",
        "hn_firebase",
        "pypistats",
        "clickhouse",
        "archive",
        "dockerhub",
        "npm",
        "huggingface",
        "depsdev",
    }
)
_GITHUB: Final = frozenset({"github"})
_ASKED_BY_NAME: Final = frozenset({"pypistats", "clickhouse", "npm", "huggingface", "dockerhub", "depsdev"})
_UPSTREAMS: Final[Mapping[str, frozenset[str]]] = {
    "bad_gateway_json": _GITHUB,
    "bad_gateway_html": _EVERYWHERE,
    "resource_limits": _GITHUB,
    "secondary_limit": _GITHUB,
    "secondary_limit_bare": _GITHUB,
    "secondary_limit_200": _GITHUB,
    "secondary_limit_200_bare": _GITHUB,
    "secondary_limit_429": _GITHUB,
    "secondary_limit_429_bare": _GITHUB,
    "gzip_bomb": _EVERYWHERE,
    "proxy_not_found": _ASKED_BY_NAME,
    "github_bad_counts": _GITHUB,
    "github_doubled_rows": _GITHUB,
    "too_many_http_date": _GITHUB,
    "endpoint_spammed": _GITHUB,
    "slow": _EVERYWHERE,
    "truncated_body": _EVERYWHERE,
    "cut_connection": _EVERYWHERE,
    "stale_feed": frozenset({"pypistats"}),
    "pypi_late_day": frozenset({"pypistats"}),
    "pypi_hole": frozenset({"pypistats"}),
    "pypi_zero_day": frozenset({"pypistats"}),
    "pypi_too_many": frozenset({"pypistats"}),
    "pypi_no_data": frozenset({"pypistats"}),
    "pypi_bad_counts": frozenset({"pypistats"}),
    "pypi_contradiction": frozenset({"pypistats"}),
    "hn_too_many": frozenset({"hn_algolia"}),
    "database_exception": frozenset({"clickhouse"}),
    "clickhouse_bad_counts": frozenset({"clickhouse"}),
    "clickhouse_foreign_rows": frozenset({"clickhouse"}),
    "depsdev_too_many": frozenset({"depsdev"}),
    "depsdev_bad_counts": frozenset({"depsdev"}),
    "depsdev_wrong_rows": frozenset({"depsdev"}),
    "dockerhub_too_many": frozenset({"dockerhub"}),
    "dockerhub_bad_counts": frozenset({"dockerhub"}),
    "npm_error_1015": frozenset({"npm"}),
    "npm_error_1015_page": frozenset({"npm"}),
    "npm_range_cut": frozenset({"npm"}),
    "npm_late_day": frozenset({"npm"}),
    "npm_zero_day": frozenset({"npm"}),
    "npm_failed_day": frozenset({"npm"}),
    "npm_doubled_day": frozenset({"npm"}),
    "huggingface_too_many": frozenset({"huggingface"}),
    "huggingface_bad_count": frozenset({"huggingface"}),
    "endless_paging": frozenset({"github", "huggingface", "depsdev"}),
}
_FAULTS: Final[Mapping[str, Callable[[Strike], Answer]]] = {
    "bad_gateway_json": _bad_gateway_json,
    "bad_gateway_html": _bad_gateway_html,
    "resource_limits": _resource_limits,
    "secondary_limit": _secondary_limit,
    "secondary_limit_bare": _secondary_limit_bare,
    "secondary_limit_200": _secondary_limit_200,
    "secondary_limit_200_bare": _secondary_limit_200_bare,
    "secondary_limit_429": _secondary_limit_429,
    "secondary_limit_429_bare": _secondary_limit_429_bare,
    "gzip_bomb": _gzip_bomb,
    "proxy_not_found": _proxy_not_found,
    "github_bad_counts": _github_bad_counts,
    "github_doubled_rows": _github_doubled_rows,
    "too_many_http_date": _too_many_http_date,
    "endpoint_spammed": _endpoint_spammed,
    "slow": _slow,
    "truncated_body": _truncated_body,
    "cut_connection": _cut_connection,
    "stale_feed": _stale_feed,
    "pypi_late_day": _pypi_late_day,
    "pypi_hole": _pypi_hole,
    "pypi_zero_day": _pypi_zero_day,
    "pypi_too_many": _pypi_too_many,
    "pypi_no_data": _pypi_no_data,
    "pypi_bad_counts": _pypi_bad_counts,
    "pypi_contradiction": _pypi_contradiction,
    "hn_too_many": _hn_too_many,
    "database_exception": _database_exception,
    "clickhouse_bad_counts": _clickhouse_bad_counts,
    "clickhouse_foreign_rows": _clickhouse_foreign_rows,
    "depsdev_too_many": _depsdev_too_many,
    "depsdev_bad_counts": _depsdev_bad_counts,
    "depsdev_wrong_rows": _depsdev_wrong_rows,
    "dockerhub_too_many": _dockerhub_too_many,
    "dockerhub_bad_counts": _dockerhub_bad_counts,
    "npm_error_1015": _npm_error_1015,
    "npm_error_1015_page": _npm_error_1015_page,
    "npm_range_cut": _npm_range_cut,
    "npm_late_day": _npm_late_day,
    "npm_zero_day": _npm_zero_day,
    "npm_failed_day": _npm_failed_day,
    "npm_doubled_day": _npm_doubled_day,
    "huggingface_too_many": _huggingface_too_many,
    "huggingface_bad_count": _huggingface_bad_count,
    "endless_paging": _endless_paging,
}
