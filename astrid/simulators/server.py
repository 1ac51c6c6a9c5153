"""All upstreams of one world on one port of localhost, on a clock that may run faster than real.

``http://127.0.0.1:PORT/<upstream><path>`` for each upstream, and under ``/_simulator``: ``GET health``,
``GET report``, ``PUT night {"night": "2026-03-31"}``. The clock starts at the night's moment, 05:00 UTC of
the next day, and a new night moves it to its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from astrid.errors import ConfigError
from astrid.models import Request, Response
from astrid.simulators.github import User, users_of
from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.simulation import UPSTREAMS, Simulation
from astrid.timeline import Timeline, night_start

if TYPE_CHECKING:
    from astrid.simulators.world import World

DEFAULT_TOKENS: Final = ("simulated-token-1", "simulated-token-2")
TOLERANCE_REAL_S: Final = 0.05
"""A request may be this long on its way; in that time around an edge nobody is convicted."""
PARENT_CHECK_S: Final = 0.5


class Server:
    """One world's upstreams as an aiohttp application; :func:`open_server` runs it."""

    def __init__(self, simulation: Simulation, first_night: date, last_night: date, night: date, speed: float) -> None:
        self.simulation = simulation
        self.url = ""
        self.speed = speed
        self.night = night
        self._first_night = first_night
        self._last_night = last_night
        self._timeline = Timeline(night_start(night), time.monotonic(), speed)
        self.app = web.Application(client_max_size=2**20)
        self.app.router.add_get("/_simulator/health", self._health)
        self.app.router.add_get("/_simulator/report", self._report)
        self.app.router.add_put("/_simulator/night", self._put_night)
        self.app.router.add_route("*", "/{upstream}{path:.*}", self._serve)

    @property
    def base_urls(self) -> dict[str, str]:
        """Base URL per upstream name."""
        return {name: f"{self.url}/{name}" for name in UPSTREAMS}

    def now(self) -> datetime:
        """Return the simulated moment."""
        return self._timeline.at(time.monotonic())

    def move_to(self, night: date) -> None:
        """Move the world to a night: its clock jumps to the night's moment, all windows begin anew.

        Raises
        ------
        ValueError
            If the world does not have that night.
        """
        if not self._first_night <= night <= self._last_night:
            raise ValueError(f"the world runs from {self._first_night} to {self._last_night}, {night} is not in it")
        self.night = night
        self._timeline = Timeline(night_start(night), time.monotonic(), self.speed)
        self.simulation.restart()

    def report(self) -> dict[str, Any]:
        """Return the books of all upstreams with the night and the clock."""
        return {
            "night": self.night.isoformat(),
            "now": self.now().isoformat(),
            "speed": self.speed,
        } | self.simulation.report()

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        name = http.match_info["upstream"]
        upstream = self.simulation.upstreams.get(name)
        if upstream is None:
            return web.Response(status=404, text=f"no such upstream: {name}; there are {', '.join(UPSTREAMS)}\n")
        address = http.remote or "127.0.0.1"
        token = _token(http.headers.get("Authorization"))
        arrival = upstream.arrive(token, address, self.now())
        try:
            content = await http.read() if http.body_exists else None
            # Let other requests that are already here arrive first: they are open at the same time.
            await asyncio.sleep(0)
            request = Request(
                name,
                http.method,
                http.match_info["path"] or "/",
                tuple(http.query.items()),
                content=content,
                headers=tuple((k.lower(), v) for k, v in http.headers.items()),
            )
            if name == "github" and "User-Agent" not in http.headers:
                return web.Response(status=403, text="Request forbidden by administrative rules.\n")
            answer = upstream.exchange(request, arrival, token=token, now=self.now(), night=self.night, address=address)
            if answer.delay_s:
                await asyncio.sleep(self._timeline.real_s(answer.delay_s))
        finally:
            upstream.limits.leave(arrival)
        if answer.cut:
            return await _cut(http, answer.response)
        return web.Response(status=answer.response.status, headers=answer.response.headers, body=answer.response.body)

    async def _health(self, http: web.Request) -> web.Response:
        state = {
            "status": "ok",
            "night": self.night.isoformat(),
            "now": self.now().isoformat(),
            "speed": self.speed,
            "scenario": self.simulation.scenario.name,
            "upstreams": self.base_urls,
        }
        return _json(state)

    async def _report(self, http: web.Request) -> web.Response:
        return _json(self.report())

    async def _put_night(self, http: web.Request) -> web.Response:
        try:
            body = orjson.loads(await http.read())
            self.move_to(date.fromisoformat(body["night"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            return _json({"error": f'send {{"night": "YYYY-MM-DD"}}: {exc}'}, 422)
        return _json({"night": self.night.isoformat(), "now": self.now().isoformat()})


@asynccontextmanager
async def open_server(
    world: World,
    port: int = 0,
    *,
    speed: float = 1.0,
    scenario: Scenario = CALM,
    tokens: Mapping[str, User] | Sequence[str] = DEFAULT_TOKENS,
    night: date | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Server]:
    """Serve a world inside this process until the block ends; port 0 takes a free one.

    ``night`` unset is the world's last day. A list of tokens gives each a user of its own.

    Raises
    ------
    ConfigError
        If the port is taken or the speed is not above 0.
    """
    if speed <= 0:
        raise ConfigError(f"the speed of the simulated clock must be above 0, it is {speed}")
    users = dict(tokens) if isinstance(tokens, Mapping) else users_of(tokens)
    last = world.first_day + timedelta(days=world.stars.shape[1] - 1)
    simulation = Simulation(world, users, scenario=scenario, tolerance_s=TOLERANCE_REAL_S * speed)
    server = Server(simulation, world.first_day, last, last, speed)
    if night is not None:
        try:
            server.move_to(night)
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
    runner = web.AppRunner(server.app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as exc:
            message = f"port {port} of {host} cannot be used ({exc.strerror}): choose another with --port"
            raise ConfigError(message) from exc
        server.url = f"http://{host}:{runner.addresses[0][1]}"
        simulation.github.base_url = server.base_urls["github"]
        yield server
    finally:
        await runner.cleanup()


async def serve(
    world: World,
    port: int,
    speed: float = 1.0,
    scenario: Scenario = CALM,
    tokens: Mapping[str, User] | Sequence[str] = DEFAULT_TOKENS,
    report_path: Path | None = None,
    *,
    night: date | None = None,
    watch_parent: bool = True,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or the death of the parent process, then write the report.

    Prints one line when ready, or hands it to ``announce``. Must run in the main thread.
    """
    parent = os.getppid()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with open_server(world, port, speed=speed, scenario=scenario, tokens=tokens, night=night) as server:
            line = (
                f"simulators ready on {server.url} (scenario {scenario.name}, night {server.night}, "
                f"clock x{speed:g}): {' '.join('/' + name for name in UPSTREAMS)}"
            )
            if announce is None:
                print(line, flush=True)
            else:
                announce(line)
            while not stop.is_set():
                try:
                    await asyncio.wait_for(stop.wait(), PARENT_CHECK_S)
                except TimeoutError:
                    if watch_parent and os.getppid() != parent:
                        break
            report = server.report()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if report_path is not None:
        write_report(report, report_path)


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write the report whole or not at all.

    Raises
    ------
    ConfigError
        If the folder does not exist or cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        part.replace(path)
    except OSError as exc:
        raise ConfigError(f"the report cannot be written to {path}: {exc.strerror}") from exc


def _token(authorization: str | None) -> str | None:
    kind, _, token = (authorization or "").partition(" ")
    return token.strip() if kind.lower() in ("bearer", "token") and token.strip() else None


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")


async def _cut(http: web.Request, response: Response) -> web.StreamResponse:
    """Promise more than is sent, then drop the connection."""
    cut = web.StreamResponse(status=response.status, headers=dict(response.headers))
    cut.content_length = len(response.body) * 2 + 16
    await cut.prepare(http)
    await cut.write(response.body)
    if http.transport is not None:
        http.transport.abort()
    return cut
