"""deps.dev: ``/v3alpha/projectbatch``, packages and dependents, over the repositories of a world.

Stars and forks are the world's of three days before: deps.dev does not say how old its counts are. Nobody recorded a
series of releases or dependents, so these are made up from the name and the day; dependents begin anew where the
scenario lets counters do so. A name that begins with ``no-such-`` is unknown. No limit is published; a client that asks
more than ten times in a second is convicted all the same.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from astrid.models import Response
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, days_counted, json_response, made_up, read_object

if TYPE_CHECKING:
    from astrid.simulators.world import World

LARGEST: Final = 5_000
PAGE: Final = 1_000
AGE_DAYS: Final = 3
PER_SECOND: Final = Window("second", 10, 1.0)
_PACKAGE: Final = re.compile(r"/v3alpha/systems/(pypi|npm)/packages/((?:@[^/]+/)?[^/]+)")
_DEPENDENTS: Final = re.compile(_PACKAGE.pattern + r"/versions/(.+):dependents")
"""Of decoded paths: a server gives no others."""


class DepsDev(Upstream):
    """``api.deps.dev``: lists of projects in pages, single packages."""

    name = "depsdev"

    def __init__(
        self, world: World, *, scenario: Scenario = CALM, window: Window = PER_SECOND, tolerance_s: float = 0.0
    ) -> None:
        super().__init__(world, Limits(tolerance_s=tolerance_s), scenario)
        self._window = window
        self._rows = {f"github.com/{repo.name}".lower(): n for n, repo in enumerate(world.repos)}

    def answer(self, call: Call) -> Response:
        """Answer a list of projects, a package, its dependents, or 404."""
        refusal = self.limits.take(call.account, call.client, self._window, 1, call.now)
        if refusal is not None:
            return self.refuse(call, refusal)
        path = unquote(call.request.path)
        if call.request.method == "POST" and path == "/v3alpha/projectbatch":
            return self._projects(call)
        if call.request.method == "GET" and (match := _DEPENDENTS.fullmatch(path)):
            total = self.dependents(match[1], match[2], call.night)
            counts = {"dependentCount": total, "directDependentCount": total // 3}
            return json_response(call, counts | {"indirectDependentCount": total - total // 3})
        if call.request.method == "GET" and (match := _PACKAGE.fullmatch(path)):
            return self._package(call, match[1], match[2])
        return json_response(call, {"code": 5, "message": "not found", "details": []}, 404)

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 with the seconds to wait."""
        wait_s = str(max(1, round(refusal.retry_after_s + 0.5)))
        body = {"code": 8, "message": "resource exhausted", "details": []}
        return json_response(call, body, 429, retry_after=wait_s)

    def _projects(self, call: Call) -> Response:
        given = read_object(call.request)
        if given is None:
            return json_response(call, {"code": 3, "message": "the body is no request", "details": []}, 400)
        requests = given.get("requests", [])
        if not isinstance(requests, list) or len(requests) > LARGEST:
            message = f"too many requests in batch, at most {LARGEST} are allowed"
            return json_response(call, {"code": 3, "message": message, "details": []}, 400)
        names = [_name(request) for request in requests]
        token = given.get("pageToken") or "0"
        if "" in names or not (isinstance(token, str) and token.isdecimal() and len(token) <= 18):
            return json_response(call, {"code": 3, "message": "invalid argument", "details": []}, 400)
        start = int(token)
        answers: list[dict[str, Any]] = []
        for request, name in list(zip(requests, names, strict=True))[start : start + PAGE]:
            counts = self.counts(name, call.night)
            project = {"project": {"projectKey": {"id": name.lower()}, "openIssuesCount": 7} | counts} if counts else {}
            answers.append({"request": request} | project)
        body: dict[str, Any] = {"responses": answers}
        if start + PAGE < len(requests):
            body["nextPageToken"] = str(start + PAGE)
        return json_response(call, body)

    def counts(self, name: str, night: date) -> dict[str, int] | None:
        """Return stars and forks of ``github.com/owner/name`` as deps.dev has them on a night, by its names of them."""
        row = self._rows.get(name.lower())
        day = (night - timedelta(days=AGE_DAYS) - self.world.first_day).days
        if row is None or not 0 <= day < self.world.days:
            return None
        stars, forks = int(self.world.stars[row, day]), int(self.world.forks[row, day])
        if stars < 0 or forks < 0:
            return None
        return {"starsCount": stars, "forksCount": forks}

    def dependents(self, system: str, name: str, night: date) -> int:
        """Return the made-up number of packages that depend on a package on a night."""
        a_day = int(7 * made_up(f"{system}/{name}|rate"))
        anew = days_counted(self.scenario, f"depsdev|{system}/{name}", self._age(night))
        before = int(5_000 * made_up(f"{system}/{name}|before"))
        return before + self._age(night) * a_day if anew is None else anew * (1 + a_day)

    def releases(self, system: str, name: str, night: date) -> int:
        """Return the made-up number of versions of a package up to a night."""
        return 3 + int(20 * made_up(f"{system}/{name}|releases")) + self._age(night) // 14

    def _package(self, call: Call, system: str, name: str) -> Response:
        if name.startswith("no-such-"):
            return json_response(call, {"code": 5, "message": "package not found", "details": []}, 404)
        count = self.releases(system, name, call.night)
        versions = []
        for n in range(count):
            key = {"system": system.upper(), "name": name, "version": f"0.{n}.0"}
            published = call.night - timedelta(days=14 * (count - 1 - n))
            versions.append(
                {"versionKey": key, "publishedAt": f"{published.isoformat()}T06:00:00Z", "isDefault": n == count - 1}
            )
        return json_response(call, {"packageKey": {"system": system.upper(), "name": name}, "versions": versions})

    def _age(self, night: date) -> int:
        return max(0, (night - self.world.first_day).days)


def _name(request: object) -> str:
    key = request.get("projectKey") if isinstance(request, dict) else None
    name = key.get("id") if isinstance(key, dict) else None
    return name if isinstance(name, str) else ""
