"""pypistats.org: daily downloads of the last 180 days, and recent sums, over the packages of a world.

5 requests a second and 30 a minute per address. The world's counts stand for those without mirrors; no world has those
with mirrors, so they are stated only in a scenario that asks for them, made up as 1 % more. Facts:
psf/pypistats.org ``views/api.py``, ``views/error.py``,
``run.py`` (2025-08). Names are not lower-cased upstream, so a name in other case is unknown.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import orjson

from astrid.models import Response
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import JSON, Call, Upstream, text_response

if TYPE_CHECKING:
    from astrid.simulators.world import World

DAYS_KEPT: Final = 180
PER_SECOND: Final = Window("second", 5, 1.0)
PER_MINUTE: Final = Window("minute", 30, 60.0)
_PATH: Final = re.compile(r"/api/packages/([^/]+)/(overall|recent)")
_RECENT: Final = {"day": 1, "week": 7, "month": 30}
_LIMIT_PAGE: Final = b'<a href="/api/#etiquette">429 RATE LIMIT EXCEEDED</a>'


class PyPIStats(Upstream):
    """``pypistats.org``: /api/packages/{package}/overall and /recent."""

    name = "pypistats"

    def __init__(
        self,
        world: World,
        *,
        scenario: Scenario = CALM,
        windows: tuple[Window, ...] = (PER_SECOND, PER_MINUTE),
        tolerance_s: float = 0.0,
    ) -> None:
        super().__init__(world, Limits(tolerance_s=tolerance_s), scenario)
        self._windows = windows
        self._rows = {package: row for row, package in enumerate(world.packages)}
        self._cache: dict[tuple[str, str, str], bytes | None] = {}
        self._cached_night: date | None = None

    def answer(self, call: Call) -> Response:
        """Answer a series or sums; text ``404`` for an unknown package, period or path."""
        for window in self._windows:
            refusal = self.limits.take(call.account, call.client, window, 1, call.now)
            if refusal is not None:
                return self.refuse(call, refusal)
        match = _PATH.fullmatch(call.request.path)
        if match is None or call.request.method != "GET":
            return _not_found(call)
        package = re.sub(r"[._]", "-", match[1])
        if call.night != self._cached_night:
            self._cache.clear()
            self._cached_night = call.night
        option = call.param("mirrors" if match[2] == "overall" else "period")
        key = (package, match[2], option)
        if key not in self._cache:
            build = self._overall if match[2] == "overall" else self._recent
            self._cache[key] = build(package, option, call.night)
        body = self._cache[key]
        return _not_found(call) if body is None else text_response(call, body, 200, JSON)

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 as a page of HTML, without a word about how long."""
        return text_response(call, _LIMIT_PAGE, 429, "text/html; charset=utf-8")

    def _overall(self, package: str, mirrors: str, night: date) -> bytes | None:
        if package not in self._rows or mirrors not in ("", "true", "false"):
            return None
        days = self._days(package, night, DAYS_KEPT)
        data = []
        if mirrors != "false" and self.scenario.pypi_mirrors:
            data += [{"category": "with_mirrors", "date": d, "downloads": n + round(n / 100)} for d, n in days]
        if mirrors != "true":
            data += [{"category": "without_mirrors", "date": d, "downloads": n} for d, n in days]
        return orjson.dumps({"data": data, "package": package, "type": "overall_downloads"})

    def _recent(self, package: str, period: str, night: date) -> bytes | None:
        if package not in self._rows or period not in ("", *_RECENT):
            return None
        sums = {
            f"last_{name}": sum(n for _, n in self._days(package, night, length))
            for name, length in _RECENT.items()
            if period in ("", name)
        }
        return orjson.dumps({"data": sums, "package": package, "type": "recent_downloads"})

    def _days(self, package: str, night: date, length: int) -> list[tuple[str, int]]:
        """Return (day, downloads) of the last ``length`` days up to ``night``; days without a value are absent."""
        first = night - timedelta(days=length - 1)
        offset = (first - self.world.first_day).days
        counts = self.world.downloads[self._rows[package]]
        return [
            ((first + timedelta(days=n)).isoformat(), int(counts[offset + n]))
            for n in range(length)
            if 0 <= offset + n < len(counts) and counts[offset + n] >= 0
        ]


def _not_found(call: Call) -> Response:
    return text_response(call, b"404", 404, "text/html; charset=utf-8")
