"""An archive of daily star and fork counts that others took: ``/{origin}/{YYYY-MM}.csv``.

Each file has the columns ``repo,date,stars,forks`` and holds the points of one origin and month, up to
the night. A client that accepts gzip gets it.
"""

from __future__ import annotations

import gzip
import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from astrid.catalog import ORIGIN_BY_NAME
from astrid.models import Response
from astrid.simulators.limits import Limits, Refusal
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, text_response

if TYPE_CHECKING:
    from astrid.simulators.world import World

ORIGINS: Final = ("stars_daily", "ai_stars_daily")
_PATH: Final = re.compile(r"/([a-z_]+)/(2\d{3})-(0[1-9]|1[0-2])\.csv")
_TEXT: Final = "text/plain; charset=utf-8"


class Archive(Upstream):
    """The importer's upstream; no limits."""

    name = "archive"

    def __init__(self, world: World, *, scenario: Scenario = CALM) -> None:
        super().__init__(world, Limits(), scenario)
        self._files: dict[tuple[str, date, date], bytes] = {}
        self._packed: dict[tuple[str, date, date], bytes] = {}

    def answer(self, call: Call) -> Response:
        """Answer one file; 404 for another path and for a month without points."""
        match = _PATH.fullmatch(call.request.path)
        if match is None or match[1] not in ORIGINS or call.request.method not in ("GET", "HEAD"):
            return text_response(call, b"404 Not Found\n", 404, _TEXT)
        first = date(int(match[2]), int(match[3]), 1)
        last = min((first + timedelta(days=31)).replace(day=1) - timedelta(days=1), call.night)
        key = (match[1], first, last)
        if key not in self._files:
            self._files[key] = self._write(*key)
        body = self._files[key]
        if not body:
            return text_response(call, b"404 Not Found\n", 404, _TEXT)
        if "gzip" not in call.header("accept-encoding"):
            return text_response(call, body, 200, "text/csv; charset=utf-8")
        if key not in self._packed:
            self._packed[key] = gzip.compress(body, compresslevel=1, mtime=0)
        return text_response(call, self._packed[key], 200, "text/csv; charset=utf-8", content_encoding="gzip")

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 503; nothing here refuses, for there are no limits."""
        return text_response(call, b"503 Service Unavailable\n", 503, _TEXT)

    def _write(self, origin: str, first: date, last: date) -> bytes:
        """Return the file, empty if it has no point; an unknown fork count is an empty cell."""
        world = self.world
        start = max(0, (first - world.first_day).days)
        end = min(world.stars.shape[1], (last - world.first_day).days + 1)
        if start >= end:
            return b""
        mine = world.origin[:, start:end] == ORIGIN_BY_NAME[origin].origin_id
        lines = ["repo,date,stars,forks"]
        days = [(world.first_day + timedelta(days=d)).isoformat() for d in range(start, end)]
        for row, column in np.argwhere(mine & (world.stars[:, start:end] >= 0)).tolist():
            stars, forks = world.stars[row, start + column], world.forks[row, start + column]
            lines.append(f"{world.repos[row].name},{days[column]},{stars},{forks if forks >= 0 else ''}")
        return ("\n".join(lines) + "\n").encode() if len(lines) > 1 else b""
