"""Docker Hub: ``/v2/repositories/{namespace}/{name}/``, 100 requests a minute and address.

Nobody recorded a series of pulls, so counts are made up from the name and the day: they grow by a rate of the name's
own, and begin anew where the scenario lets counters do so. A name that begins with ``no-such-`` is unknown, told in
the words that clients quote (``httperror 404: object not found``); the wording of the other refusal is made up.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Final

from astrid.models import Response
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, days_counted, json_response, made_up

if TYPE_CHECKING:
    from astrid.simulators.world import World

PER_MINUTE: Final = Window("minute", 100, 60.0)
_PATH: Final = re.compile(r"/v2/repositories/([^/]+)/([^/]+)/?")


class DockerHub(Upstream):
    """``hub.docker.com``: one repository at a time."""

    name = "dockerhub"

    def __init__(
        self, world: World, *, scenario: Scenario = CALM, window: Window = PER_MINUTE, tolerance_s: float = 0.0
    ) -> None:
        super().__init__(world, Limits(tolerance_s=tolerance_s), scenario)
        self._window = window

    def answer(self, call: Call) -> Response:
        """Answer one image, or 404."""
        refusal = self.limits.take(call.account, call.client, self._window, 1, call.now)
        if refusal is not None:
            return self.refuse(call, refusal)
        match = _PATH.fullmatch(call.request.path)
        if match is None or call.request.method != "GET" or match[2].startswith("no-such-"):
            where = {} if match is None else {"namespace": match[1], "repository": match[2]}
            return json_response(call, {"message": "httperror 404: object not found", "errinfo": where}, 404)
        body = {
            "user": match[1],
            "namespace": match[1],
            "name": match[2],
            "repository_type": "image",
            "status": 1,
            "is_private": False,
            **self.counts(f"{match[1]}/{match[2]}", call.night),
            "last_updated": f"{call.night.isoformat()}T00:00:00.000000Z",
        }
        return json_response(call, body)

    def counts(self, key: str, night: date) -> dict[str, int]:
        """Return the made-up stars and pulls of an image at the end of ``night``, by Docker Hub's names of them."""
        age = max(0, (night - self.world.first_day).days)
        a_day = 1 + int(1000 * made_up(f"dockerhub|{key}|rate"))
        anew = days_counted(self.scenario, f"dockerhub|{key}", age)
        pulls = int(10**6 * made_up(f"dockerhub|{key}|before")) + age * a_day if anew is None else anew * a_day
        return {"star_count": int(500 * made_up(f"dockerhub|{key}|stars")) + age // 30, "pull_count": pulls}

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 with the seconds to wait."""
        wait_s = str(max(1, round(refusal.retry_after_s + 0.5)))
        return json_response(call, {"detail": "Rate limit exceeded", "error": False}, 429, retry_after=wait_s)
