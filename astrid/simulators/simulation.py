"""All simulated upstreams of one world together, and one night that they all stand at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from astrid.models import Request, Response
from astrid.simulators.archive import Archive
from astrid.simulators.clickhouse import ClickHouse
from astrid.simulators.depsdev import DepsDev
from astrid.simulators.dockerhub import DockerHub
from astrid.simulators.github import QUOTAS, GitHub, Quotas, User
from astrid.simulators.hackernews import Algolia, Firebase
from astrid.simulators.huggingface import HuggingFace
from astrid.simulators.npm import Npm
from astrid.simulators.pypistats import PyPIStats
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.upstream import LOCALHOST, Upstream

if TYPE_CHECKING:
    from astrid.simulators.world import World

UPSTREAMS: Final = (
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
)
"""Names of the upstreams; also their path prefixes on the server."""


class Simulation:
    """The upstreams of one world by name.

    Parameters
    ----------
    tokens
        GitHub's users by token.
    tolerance_s
        Simulated seconds around the edges of waits and windows in which nobody is convicted.
    """

    def __init__(
        self,
        world: World,
        tokens: Mapping[str, User],
        *,
        scenario: Scenario = CALM,
        quotas: Quotas = QUOTAS,
        tolerance_s: float = 0.0,
    ) -> None:
        self.scenario = scenario
        self.github = GitHub(world, tokens, scenario=scenario, quotas=quotas, tolerance_s=tolerance_s)
        self.upstreams: Mapping[str, Upstream] = {
            upstream.name: upstream
            for upstream in (
                self.github,
                Algolia(world, scenario=scenario, tolerance_s=tolerance_s),
                Firebase(world, scenario=scenario),
                PyPIStats(world, scenario=scenario, tolerance_s=tolerance_s),
                ClickHouse(world, scenario=scenario, tolerance_s=tolerance_s),
                Archive(world, scenario=scenario),
                Npm(world, scenario=scenario, tolerance_s=tolerance_s),
                HuggingFace(world, scenario=scenario, tolerance_s=tolerance_s),
                DockerHub(world, scenario=scenario, tolerance_s=tolerance_s),
                DepsDev(world, scenario=scenario, tolerance_s=tolerance_s),
            )
        }

    def respond(
        self, request: Request, *, token: str | None, now: datetime, night: date, address: str = LOCALHOST
    ) -> Response:
        """Let the upstream that the request names answer it."""
        upstream = self.upstreams[request.upstream]
        return upstream.respond(request, token=token, now=now, night=night, address=address)

    def restart(self) -> None:
        """Begin all windows, waits and attempt counts anew after a jump to another night."""
        for upstream in self.upstreams.values():
            upstream.restart()

    def convictions(self) -> int:
        """Return how many requests were convicted so far, over all upstreams."""
        return sum(u.limits.convictions() for u in self.upstreams.values())

    def report(self) -> dict[str, Any]:
        """Return the books of all upstreams."""
        books = {name: upstream.limits.report() for name, upstream in self.upstreams.items()}
        return {
            "scenario": self.scenario.name,
            "seed": self.scenario.seed,
            "requests": sum(b["requests"] for b in books.values()),
            "convictions": self.convictions(),
            "upstreams": books,
        }
