"""Docker Hub: ``/v2/repositories/{namespace}/{name}/``, 100 requests a minute and address.

Nobody recorded a series of pulls, so counts are made up from the name and the day: they grow by a rate of the name's
own. A name that begins with ``no-such-`` is unknown. The wording of refusals is made up as well.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from astrid.models import Response
from astrid.simulators.limits import Limits, Refusal, Window
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import Call, Upstream, json_response

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
            return json_response(call, {"message": "object not found", "errinfo": {}}, 404)
        draw = int.from_bytes(hashlib.blake2b(f"{match[1]}/{match[2]}".encode(), digest_size=8).digest(), "big")
        age = max(0, (call.night - self.world.first_day).days)
        body = {
            "user": match[1],
            "namespace": match[1],
            "name": match[2],
            "repository_type": "image",
            "status": 1,
            "is_private": False,
            "star_count": draw % 500 + age // 30,
            "pull_count": draw % 10**6 + age * (1 + draw % 1000),
            "last_updated": f"{call.night.isoformat()}T00:00:00.000000Z",
        }
        return json_response(call, body)

    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Answer 429 with the seconds to wait."""
        wait_s = str(max(1, round(refusal.retry_after_s + 0.5)))
        return json_response(call, {"detail": "Rate limit exceeded", "error": False}, 429, retry_after=wait_s)
