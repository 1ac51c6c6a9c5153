"""npm's download counts: ``/downloads/range/{period}/{packages}``, for any package name.

Nobody recorded npm's series, so every count here is made up: a function of the scenario's seed, the name and the day,
with a package's own size, a slow growth, quiet weekends and noise. A package is published on a day of 2015 to 2024 and
has 0 before. Names that begin with ``no-such-`` (after the scope) are unknown, those with ``tiny-`` have a few
downloads a day and none on many.

What is documented (npm/registry ``docs/download-counts.md``): lists of at most 128 names and 365 days, no scopes in a
list, no day before 2015-01-10. What others found: a single package's range over 547 days loses its oldest days
silently, a day that is not over is 0. npm documents no rate; here it is 20 requests a minute, told by a 429 whose text
is Cloudflare's ``error code: 1015``, without a word about how long. Texts of other refusals are ours where only the
status is known.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from astrid.models import Response
from astrid.simulators.faults import CLOUDFLARE_LINE
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, json_response, made_up, text_response

if TYPE_CHECKING:
    from astrid.simulators.world import World

PER_MINUTE: Final = Window("minute", 20, 60.0)
BULK: Final = 128
BULK_DAYS: Final = 365
SINGLE_DAYS: Final = 547
FIRST_DAY: Final = date(2015, 1, 10)
UNKNOWN: Final = "no-such-"
TINY: Final = "tiny-"
_PATH: Final = re.compile(r"/downloads/range/([^/]+)/(.+)")
_SPAN: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?::(\d{4}-\d\d-\d\d))?", re.ASCII)
_PERIODS: Final = {"last-day": 1, "last-week": 7, "last-month": 30, "last-year": 365}
_WEEKDAYS: Final = (1.0, 1.05, 1.06, 1.04, 0.95, 0.42, 0.4)


class Npm(Upstream):
    """``api.npmjs.org``: ranges of one package, or of a list of unscoped ones."""

    name = "npm"

    def __init__(
        self,
        world: World,
        *,
        scenario: Scenario = CALM,
        windows: tuple[Window, ...] = (PER_MINUTE,),
        tolerance_s: float = 0.0,
    ) -> None:
        super().__init__(world, Limits(concurrent=None, tolerance_s=tolerance_s), scenario)
        self._windows = windows

    def answer(self, call: Call) -> Response:
        """Answer a range; a list as an object keyed by package, with null for an unknown one."""
        for window in self._windows:
            refusal = self.limits.take(call.account, call.client, window, 1, call.now)
            if refusal is not None:
                return self.refuse(call, refusal)
        match = _PATH.fullmatch(call.request.path)
        if match is None or call.request.method != "GET":
            return _error(call, 404, "not found")
        names = [unquote(name) for name in match[2].split(",")]
        span = _read_period(match[1], call.night)
        if span is None or span[0] > span[1]:
            return _error(call, 400, "invalid date")
        first, last = max(span[0], FIRST_DAY), max(span[1], FIRST_DAY)
        if len(names) == 1:
            if not self.is_known(names[0]):
                return _error(call, 404, f"package {names[0]} not found")
            first = max(first, last - timedelta(days=SINGLE_DAYS - 1))
            return json_response(call, self._range(names[0], first, last, call.night))
        if (last - first).days + 1 > BULK_DAYS:
            return _error(call, 400, "exceeded max days of 365 for bulk query")
        if len(names) > BULK:
            return _error(call, 400, "exceeded max of 128 packages for bulk query")
        if any(name.startswith("@") for name in names):
            return _error(call, 400, "scoped packages are not supported in bulk queries")
        known = {n: self._range(n, first, last, call.night) if self.is_known(n) else None for n in names}
        return json_response(call, known)

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 in Cloudflare's words, which state no wait."""
        return text_response(call, CLOUDFLARE_LINE, 429, "text/plain; charset=UTF-8")

    def is_known(self, name: str) -> bool:
        """Tell whether there is such a package."""
        return not name.rpartition("/")[2].startswith(UNKNOWN)

    def downloads(self, name: str, day: date) -> int:
        """Return the made-up downloads of a known package on a day that is over."""
        size, published, growth = _traits(self.scenario.seed, name)
        age_days = (day - published).days
        if age_days < 0:
            return 0
        noise = 0.8 + 0.4 * made_up(f"{self.scenario.seed}|npm|{name}|{day.toordinal()}")
        return int(size * (1 + growth * age_days / 365) * _WEEKDAYS[day.weekday()] * noise)

    def _range(self, name: str, first: date, last: date, night: date) -> dict[str, Any]:
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        rows = [{"downloads": self.downloads(name, d) if d <= night else 0, "day": d.isoformat()} for d in days]
        return {"start": first.isoformat(), "end": last.isoformat(), "package": name, "downloads": rows}


@lru_cache(maxsize=4096)
def _traits(seed: int, name: str) -> tuple[float, date, float]:
    """Return a package's downloads on its first day, that day, and its growth a year as a share of the first."""
    size, born, growth = (made_up(f"{seed}|npm|{name}|{trait}") for trait in ("size", "born", "growth"))
    tiny = name.rpartition("/")[2].startswith(TINY)
    published = FIRST_DAY + timedelta(days=int(born * (date(2025, 1, 1) - FIRST_DAY).days))
    return 0.5 + size if tiny else 400.0 * 10 ** (3 * size), published, 0.0 if tiny else growth


def _read_period(text: str, night: date) -> tuple[date, date] | None:
    if text in _PERIODS:
        return night - timedelta(days=_PERIODS[text] - 1), night
    match = _SPAN.fullmatch(text)
    try:
        return None if match is None else (date.fromisoformat(match[1]), date.fromisoformat(match[2] or match[1]))
    except ValueError:
        return None


def _error(call: Call, status: int, text: str) -> Response:
    return json_response(call, {"error": text}, status)
