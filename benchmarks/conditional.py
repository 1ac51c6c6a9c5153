"""How many repeats come back as 304 with four tokens in rotation: ours beside any token for any request.

An *eligible repeat* asks for what this token was already told and what has not changed since; the count is kept at
the upstream's door, from the bodies, not by the client. The simulated GitHub binds each ETag to its token.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from pydantic import SecretStr

from astrid.answers import MemoryAnswers
from astrid.fetcher import Credential, Fetcher
from astrid.models import Request, Response
from astrid.ratelimit import token_name
from astrid.runtime import LocalBudgets
from astrid.simulators.github import User
from astrid.simulators.simulation import Simulation
from astrid.simulators.world import World, load_world
from astrid.timeline import night_start

TOKENS = {f"token-{n}": User(9_000_000 + n, f"user-{n}") for n in range(4)}
NIGHTS = (date(2026, 3, 26), date(2026, 3, 27), date(2026, 3, 27), date(2026, 3, 28), date(2026, 3, 28))
"""Two nights come twice, as after a failed run: their bodies are the same, as those of all old weeks are."""
REPOSITORIES = 150
PAGES = 3
TARGET = 0.95


@dataclass
class Door:
    """What went through: per (token, address) the last body, and how many repeats were eligible and unchanged."""

    told: dict[tuple[str, str], bytes] = field(default_factory=dict)
    requests: int = 0
    eligible: int = 0
    unchanged: int = 0

    def note(self, token: str, request: Request, whole: Response, answer: Response) -> None:
        """Count one request; ``whole`` is what the upstream would answer without any condition."""
        key, body = (token, f"{request.path} {request.params}"), hashlib.sha256(whole.body).digest()
        self.requests += 1
        if whole.status == 200:
            self.eligible += self.told.get(key) == body
            self.unchanged += answer.status == 304
            self.told[key] = body


@dataclass
class Nights:
    """Some nights of GETs over one simulated GitHub, and their books."""

    world: World
    sticky: bool = True
    door: Door = field(default_factory=Door)
    points: int = 0
    convictions: int = 0

    async def run(self, repositories: int = REPOSITORIES) -> None:
        """Ask for every repository and the first pages of its star history, night after night."""
        simulation, shadow = Simulation(self.world, TOKENS), Simulation(self.world, TOKENS)
        answers, budgets = MemoryAnswers(), LocalBudgets({token_name(t): u.login for t, u in TOKENS.items()})
        moment = [night_start(NIGHTS[0])]
        asked_of = [NIGHTS[0]]

        async def send(request: Request, headers: Mapping[str, str]) -> Response:
            await asyncio.sleep(0)
            token = headers["Authorization"].removeprefix("Bearer ")
            seen = dataclasses.replace(request, headers=tuple((k.lower(), v) for k, v in headers.items()))
            answer = simulation.respond(seen, token=token, now=moment[0], night=asked_of[0])
            if request.path != "/rate_limit":
                shadow.restart()
                whole = shadow.respond(request, token=token, now=moment[0], night=asked_of[0])
                self.door.note(token, request, whole, answer)
            moment[0] += timedelta(seconds=0.1)  # no minute holds more than 600
            return answer

        for n, night in enumerate(NIGHTS):
            asked_of[0], moment[0] = night, night_start(NIGHTS[0]) + timedelta(days=n)
            credentials = [
                Credential(token_name(t), SecretStr(t), budgets("github", token_name(t)), u.login)
                for t, u in TOKENS.items()
            ]
            # A new fetcher every night: only the answers outlive the workers.
            fetch = Fetcher(send, {"github": credentials}, lambda: moment[0].timestamp(), lambda s: s * 1e-6, answers)
            for repo in self.world.repos[:repositories]:
                # The usual way: which token a request gets has nothing to do with what it asks for.
                for request in _requests(repo.name, repo.name if self.sticky else f"{repo.name} {n}"):
                    await fetch(request)
            await fetch.close()
        self.convictions = simulation.convictions()
        self.points = int(simulation.report()["upstreams"]["github"]["points"]["core"])


def measure_conditional() -> list[dict[str, Any]]:
    """Return ``github.unchanged``: the share of eligible repeats that were 304s, and the points of both ways."""
    world = load_world()
    ours, peer = Nights(world), Nights(world, sticky=False)
    for nights in (ours, peer):
        asyncio.run(nights.run())
    share = ours.door.unchanged / ours.door.eligible
    return [
        {
            "name": "github.unchanged",
            "ours": share,
            "peer": peer.door.unchanged / peer.door.requests,
            "unit": "share: ours 304s of eligible repeats, peer 304s of all requests",
            "ratio": peer.points / ours.points,
            "target": TARGET,
            "met": share >= TARGET and not ours.convictions,
            "note": f"{ours.door.unchanged} of {ours.door.eligible} eligible repeats in {ours.door.requests} requests; "
            f"{ours.points} points beside {peer.points} where a request takes any token (304s of {peer.door.requests} "
            "requests); ratio is of points",
            "samples": {"ours": [share], "peer": [peer.door.unchanged / peer.door.requests]},
        }
    ]


def _requests(name: str, key: str) -> list[Request]:
    history = f"/repos/{name}/stargazers/history"
    pages = [(("per_page", "30"), ("page", str(page))) for page in range(1, PAGES + 1)]
    return [
        Request("github", "GET", f"/repos/{name}", sticky=key),
        *(Request("github", "GET", history, params, sticky=key) for params in pages),
    ]
