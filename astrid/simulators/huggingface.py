"""The Hugging Face Hub's models: lists by downloads with a cursor, and single models by name.

Nobody recorded these series, so every count here is made up: a function of the scenario's seed, the name and the day.
Any name ``owner/model`` is a model unless the model's part begins with ``no-such-``; the lists hold 3,000 made-up ones,
``lab-N/model-N``, and none else. Likes fall by a few now and then, as people take them back; downloads of all time
begin anew where the scenario lets counters do so.

The scenario's shares decide by name what has moved (``renamed``: 307 to the owner's new name), what is gone (404, or
401 with ``X-Error-Code: RepoNotFound`` as anonymous callers see it) and what is ``gated`` (401 or 403). Limits are per
address and 5 minutes, told in ``RateLimit`` and ``RateLimit-Policy`` on every answer (hub-docs ``rate-limits.md``, 500
for the API); those of the other two buckets, the texts of refusals and the cursor's inside are ours.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from datetime import date
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode

from astrid.models import Response
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, days_counted, json_response, made_up, read_whole, text_response

if TYPE_CHECKING:
    from astrid.simulators.world import World

BUCKETS: Final = {
    "api": Window("api", 500, 300.0),
    "pages": Window("pages", 100, 300.0),
    "resolvers": Window("resolvers", 3000, 300.0),
}
LISTED: Final = 3000
MAX_LIMIT: Final = 1000
UNKNOWN: Final = "no-such-"
NEW: Final = "new-"
HOST: Final = "https://huggingface.co"
_MODEL: Final = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_EXPANDABLE: Final = frozenset({"downloads", "downloadsAllTime", "likes", "trendingScore"})


class HuggingFace(Upstream):
    """``huggingface.co``: /api/models and /api/models/{owner}/{model}."""

    name = "huggingface"

    def __init__(self, world: World, *, scenario: Scenario = CALM, tolerance_s: float = 0.0) -> None:
        super().__init__(world, Limits(tolerance_s=tolerance_s), scenario)
        self._ranking: list[str] = []
        self._ranked_night: date | None = None

    def answer(self, call: Call) -> Response:
        """Answer a list or a model, with the state of the bucket that pays."""
        window = BUCKETS[_bucket(call.request.path)]
        refusal = self.limits.take(call.account, call.client, window, 1, call.now)
        if refusal is not None:
            return self.refuse(call, refusal)
        response = self._served(call)
        reading = self.limits.read(call.account, window, call.now)
        if not reading.remaining:
            self.limits.tell_empty(call.account, window, call.now)
        wait_s = max(0, math.ceil(reading.reset_s - call.now.timestamp()))
        return Response(
            response.status, {**response.headers, **_rate(window, reading.remaining, wait_s)}, response.body
        )

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 with the seconds until the window ends."""
        window = BUCKETS[_bucket(call.request.path)]
        body = {"error": f"We had to rate limit your IP. To continue, wait or log in. Limit: {window.limit} requests."}
        headers = {k.replace("-", "_"): v for k, v in _rate(window, 0, math.ceil(refusal.retry_after_s)).items()}
        return json_response(call, body, 429, **headers)

    def counts(self, name: str, night: date) -> dict[str, int]:
        """Return a model's made-up counts at the end of ``night``, by the Hub's names of them."""
        seed, name = self.scenario.seed, _first_name(name)
        a_day = 10 ** (1 + 4 * made_up(f"{seed}|hf|{name}|size"))
        age_days = 30 + int(900 * made_up(f"{seed}|hf|{name}|age")) + (night - self.world.first_day).days
        lately = 0.9 + 0.2 * made_up(f"{seed}|hf|{name}|{night.toordinal()}")
        anew = days_counted(self.scenario, f"hf|{name}", age_days)
        liked = 1 + int(a_day * (0.01 + age_days / 10_000))
        return {
            "downloads": int(30 * a_day * lately),
            "downloadsAllTime": int(a_day * (age_days if anew is None else anew)),
            "likes": max(0, liked - int(3 * made_up(f"{seed}|hf|{name}|{night.toordinal()}|unliked"))),
            "trendingScore": int(100 * lately),
        }

    def state(self, name: str) -> str:
        """Return what has become of a model: "listed", "renamed", "gone", "gated", or "unknown"."""
        if name.rpartition("/")[2].startswith(UNKNOWN):
            return "unknown"
        scenario = self.scenario
        draw = made_up(f"{scenario.seed}|hf|{name}|state")
        for state, share in (("renamed", scenario.renamed), ("gone", scenario.gone), ("gated", scenario.gated)):
            if draw < share and not name.startswith(NEW):
                return state
            draw -= share
        return "listed"

    def new_name(self, name: str) -> str:
        """Return the name that a renamed model has now."""
        return f"{NEW}{name}"

    def _served(self, call: Call) -> Response:
        path = call.request.path
        if call.request.method != "GET" or not path.startswith("/api/models"):
            return json_response(call, {"error": "Not Found"}, 404)
        if path == "/api/models":
            return self._list(call)
        name = unquote(path.removeprefix("/api/models/"))
        if not _MODEL.fullmatch(name):
            return _missing(call, 404)
        match self.state(name):
            case "renamed":
                query = urlencode(call.request.params)
                location = f"/api/models/{quote(self.new_name(name))}" + (f"?{query}" if query else "")
                return text_response(call, b"", 307, "text/plain; charset=utf-8", location=location)
            case "unknown":
                return _missing(call, 404 if call.token else 401)
            case "gone":
                return _missing(call, 404 if made_up(f"{name}|status") < 0.5 else 401)
            case "gated":
                status = 403 if call.token or made_up(f"{name}|status") < 0.5 else 401
                body = {"error": f"Access to model {name} is restricted. You must be authenticated to access it."}
                return json_response(call, body, status, x_error_code="GatedRepo", x_error_message=body["error"])
            case _:
                return json_response(call, self._element(name, call))

    def _list(self, call: Call) -> Response:
        limit = min(read_whole(call.param("limit", "30"), 0), MAX_LIMIT)
        start = _read_cursor(call.param("cursor"))
        if limit < 1 or start is None or call.param("sort", "downloads") != "downloads":
            return json_response(call, {"error": "Invalid query"}, 400)
        ranking = self._rank(call.night)
        end = start + limit
        listed = [self._element(name, call) for name in ranking[start:end] if self.state(name) != "gone"]
        if end >= len(ranking):
            return json_response(call, listed)
        params = [(k, v) for k, v in call.request.params if k != "cursor"]
        cursor = base64.urlsafe_b64encode(f"rank:{end}".encode()).decode()
        url = f"{HOST}/api/models?{urlencode([*params, ('cursor', cursor)])}"
        return json_response(call, listed, link=f'<{url}>; rel="next"')

    def _rank(self, night: date) -> list[str]:
        """Return the listed models of a night, the most downloaded first."""
        if self._ranked_night != night:
            names = [f"lab-{n % 97}/model-{n}" for n in range(LISTED)]
            now = [self.new_name(name) if self.state(name) == "renamed" else name for name in names]
            self._ranking = sorted(now, key=lambda n: (-self.counts(n, night)["downloads"], n))
            self._ranked_night = night
        return self._ranking

    def _element(self, name: str, call: Call) -> dict[str, Any]:
        """Return a model with the fields that are asked for; ``trendingScore`` is absent for one in three."""
        counts = self.counts(name, call.night)
        if made_up(f"{name}|trending") < 1 / 3:
            del counts["trendingScore"]
        expand = [v for k, v in call.request.params if k in ("expand", "expand[]")]
        wanted = _EXPANDABLE & set(expand) if expand else {"downloads", "likes", "trendingScore"}
        identity = {"_id": hashlib.blake2b(_first_name(name).encode(), digest_size=12).hexdigest(), "id": name}
        more = {} if expand else {"modelId": name, "private": False, "tags": []}
        return {**identity, **more, **{k: v for k, v in counts.items() if k in wanted}}


def _first_name(name: str) -> str:
    return name.removeprefix(NEW)


def _bucket(path: str) -> str:
    return "api" if path.startswith("/api/") else "resolvers" if "/resolve/" in path else "pages"


def _rate(window: Window, remaining: int, wait_s: int) -> dict[str, str]:
    return {
        "ratelimit": f'"{window.name}";r={remaining};t={wait_s}',
        "ratelimit-policy": f'"fixed window";"{window.name}";q={window.limit};w={int(window.length_s)}',
    }


def _missing(call: Call, status: int) -> Response:
    text = "Repository not found"
    return json_response(call, {"error": text}, status, x_error_code="RepoNotFound", x_error_message=text)


def _read_cursor(cursor: str) -> int | None:
    """Return the rank that a cursor stands for: 0 without one, None for one that is not ours."""
    try:
        kind, _, rank = base64.urlsafe_b64decode(cursor).decode().partition(":")
        return int(rank) if kind == "rank" else None if cursor else 0
    except ValueError:
        return None
