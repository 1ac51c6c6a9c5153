"""pypistats.org: daily downloads of the last 180 days, and recent sums, over the packages of a world.

5 requests a second and 30 a minute per address. The world's counts stand for those without mirrors; no world has those
with mirrors, so they are stated only in a scenario that asks for them, made up as 1 % more. Nor has any world a split
by Python or system: ``python_major``, ``python_minor`` and ``system`` divide its counts in made-up shares. Facts:
psf/pypistats.org ``views/api.py``, ``views/error.py``, ``run.py`` (2025-08). Names are not lower-cased upstream, so a
name in other case is unknown: the text ``404``, but an empty list where the counts are split.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import orjson

from astrid.models import Response
from astrid.simulators.faults import PYPI_LIMIT_PAGE
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import JSON, Call, Upstream, text_response

if TYPE_CHECKING:
    from astrid.simulators.world import World

DAYS_KEPT: Final = 180
PER_SECOND: Final = Window("second", 5, 1.0)
PER_MINUTE: Final = Window("minute", 30, 60.0)
_PATH: Final = re.compile(r"/api/packages/([^/]+)/(overall|recent|python_major|python_minor|system)")
_RECENT: Final = {"day": 1, "week": 7, "month": 30}
_OPTIONS: Final = {
    "overall": "mirrors",
    "recent": "period",
    "python_major": "version",
    "python_minor": "version",
    "system": "os",
}
_SHARES: Final = {
    "python_major": {"3": 0.98, "null": 0.02},
    "python_minor": {"3.11": 0.3, "3.12": 0.5, "3.13": 0.18, "null": 0.02},
    "system": {"Darwin": 0.06, "Linux": 0.85, "Windows": 0.06, "null": 0.02, "other": 0.01},
}


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
        """Answer a series or sums; text ``404`` for an unknown period or path, and for most unknown packages."""
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
        option = call.param(_OPTIONS[match[2]])
        key = (package, match[2], option)
        if key not in self._cache:
            self._cache[key] = self._build(*key, self.newest_day(call.night))
        body = self._cache[key]
        return _not_found(call) if body is None else text_response(call, body, 200, JSON)

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 as a page of HTML, without a word about how long."""
        return text_response(call, PYPI_LIMIT_PAGE, 429, "text/html; charset=utf-8")

    def newest_day(self, night: date) -> date:
        """Return the last day that the site has on a night: that one, unless the feed stands still."""
        stalls = self.scenario.pypi_stalls_days
        return night - timedelta(days=night.toordinal() % stalls) if stalls else night

    def _build(self, package: str, kind: str, option: str, newest: date) -> bytes | None:
        if kind in _SHARES:
            return self._split(package, kind, option, newest)
        return (self._overall if kind == "overall" else self._recent)(package, option, newest)

    def _split(self, package: str, kind: str, option: str, night: date) -> bytes:
        days = self._days(package, night, DAYS_KEPT) if package in self._rows else []
        data = [
            {"category": category, "date": d, "downloads": round(n * share)}
            for category, share in _SHARES[kind].items()
            if option in ("", category)
            for d, n in days
        ]
        return orjson.dumps({"data": data, "package": package, "type": f"{kind}_downloads"})

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
