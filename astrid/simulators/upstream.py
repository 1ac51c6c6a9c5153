"""What all simulated upstreams share: accounts, faults, and the order in which a request is judged."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from astrid.models import Request, Response
from astrid.ratelimit import token_name
from astrid.simulators import faults
from astrid.simulators.limits import Arrival, Limits, Refusal
from astrid.simulators.scenarios import CALM, Scenario

if TYPE_CHECKING:
    from astrid.simulators.world import World

JSON: Final = "application/json; charset=utf-8"
LOCALHOST: Final = "127.0.0.1"
BUSY_S: Final = 0.02
"""Processor seconds of an answer that is not slow."""
RESET_DAYS: Final = 28
"""How many days a counter counts before it begins anew, where a scenario lets it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as an upstream sees it; ``account`` pays, ``client`` is the name in the report."""

    request: Request
    token: str | None
    account: str
    client: str
    now: datetime
    night: date

    def param(self, name: str, default: str = "") -> str:
        """Return the last query parameter of that name."""
        return next((v for k, v in reversed(self.request.params) if k == name), default)

    def header(self, name: str, default: str = "") -> str:
        """Return a request header; ``name`` in lower case."""
        return next((v for k, v in self.request.headers if k.lower() == name), default)


class Upstream(ABC):
    """One simulated service over one world.

    ``respond`` is deterministic given the world, the night, the scenario and the requests so far.
    """

    name: str

    def __init__(self, world: World, limits: Limits, scenario: Scenario = CALM) -> None:
        self.world = world
        self.limits = limits
        self.scenario = scenario
        self._attempts: Counter[tuple[date, bytes]] = Counter()

    @abstractmethod
    def answer(self, call: Call) -> Response:
        """Answer a request that is neither over the concurrency nor sent during a wait."""

    @abstractmethod
    def refuse(self, call: Call, refusal: Refusal) -> Response:
        """Say no in the upstream's own words."""

    def account(self, token: str | None, address: str) -> str:
        """Return what limits are counted for: here the address."""
        return f"ip:{address}"

    def client(self, token: str | None, address: str) -> str:
        """Return the name in the report: a token's short digest, never the token, or the address."""
        return f"ip:{address}" if token is None else token_name(token)

    def kind(self, call: Call) -> str:
        """Return which of the upstream's busy times a request counts for; only GitHub has any."""
        return ""

    def arrive(self, token: str | None, address: str, now: datetime) -> Arrival:
        """Note that a request came in; for callers that keep several open at once (the server)."""
        return self.limits.arrive(self.account(token, address), now)

    def respond(
        self, request: Request, *, token: str | None, now: datetime, night: date, address: str = LOCALHOST
    ) -> Response:
        """Answer one request as of ``night``; ``now`` (aware) drives limits and the ``date`` header."""
        arrival = self.arrive(token, address, now)
        try:
            return self.exchange(request, arrival, token=token, now=now, night=night, address=address).response
        finally:
            self.limits.leave(arrival)

    def exchange(
        self, request: Request, arrival: Arrival, *, token: str | None, now: datetime, night: date, address: str
    ) -> faults.Answer:
        """Judge and answer a request that has arrived; the caller lets it leave."""
        call = Call(request, token, arrival.account, self.client(token, address), now, night)
        refusal = self.limits.check(arrival, call.client, self.kind(call))
        if refusal is not None:
            answer = faults.Answer(self.refuse(call, refusal))
        else:
            answer = self._faulty(call, self.answer(call))
        if answer.bare:
            self.limits.hold_bare(arrival, now, answer.hold_s)
        elif answer.hold_s:
            self.limits.hold(call.account, now, answer.hold_s)
        elif refusal is None and "retry-after" not in answer.response.headers:
            self.limits.end_bare(call.account)
        if refusal is None:
            took_s = max(BUSY_S, answer.delay_s)
            self.limits.work(call.account, self.kind(call), took_s, now + timedelta(seconds=answer.delay_s))
        self.limits.count(call.account, call.client, answer.response.status, answer.fault)
        return answer

    def restart(self) -> None:
        """Begin windows, waits and attempt counts anew after a jump to another night."""
        self.limits.restart()
        self._attempts.clear()

    def _faulty(self, call: Call, response: Response) -> faults.Answer:
        if not self.scenario.faults:
            return faults.Answer(response)
        key = faults.fingerprint(call.request)
        attempt = self._attempts[call.night, key]
        self._attempts[call.night, key] += 1
        drawn = faults.draw_fault(self.scenario, self.name, key, call.night, attempt)
        if drawn is None:
            return faults.Answer(response)
        return faults.strike(drawn[0], faults.Strike(call.request, response, call.now, call.night, drawn[1]))


def read_object(request: Request) -> dict[str, Any] | None:
    """Return the JSON object in a request's body, however the caller gave it; None if it is none."""
    value: Any = request.json
    if value is None:
        try:
            value = orjson.loads(request.content or b"")
        except orjson.JSONDecodeError:
            return None
    return value if isinstance(value, dict) else None


def read_whole(text: str, default: int) -> int:
    """Return a whole number of up to 18 ASCII digits; ``default`` for any other text, which is passed over."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else default


def made_up(text: str) -> float:
    """Return a number from [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def days_counted(scenario: Scenario, name: str, age_days: int) -> int | None:
    """Return since how many days a counter counts that has begun anew; None for one that never did."""
    if made_up(f"{scenario.seed}|{name}|resets") >= scenario.resets:
        return None
    return (age_days + int(RESET_DAYS * made_up(f"{scenario.seed}|{name}|reset day"))) % RESET_DAYS


def reading_moment(night: date) -> datetime:
    """Return the moment at which the night of a day is read: 05:00 UTC of the next day."""
    return datetime.combine(night + timedelta(days=1), time(5, tzinfo=UTC))


def json_response(call: Call, value: object, status: int = 200, **headers: str) -> Response:
    """Encode a JSON answer; keyword ``x_y`` becomes header ``x-y``."""
    return text_response(call, orjson.dumps(value), status, JSON, **headers)


def text_response(call: Call, body: bytes, status: int, kind: str, **headers: str) -> Response:
    """Wrap a body with its type and the date of the simulated clock."""
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return Response(status, {"content-type": kind, "date": http_date(call.now), **named}, body)


def http_date(moment: datetime) -> str:
    """Format a moment for HTTP headers."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)
