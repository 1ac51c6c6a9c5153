"""The application: a factory, no global; the store lives as long as the application does."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from api.instruments import Instruments
from api.pages.rendering import render_problem
from api.parameters import refused
from api.problems import METHOD, NOT_FOUND, Problem, problem_of
from api.routes import canaries, leaderboard, ledger, operations, pages, projects, runs
from api.schemas import ProblemAnswer
from api.state import State
from astrid import __version__
from astrid.errors import AstridError, ConfigError
from astrid.settings import Settings
from astrid.store import Store, open_store

log = logging.getLogger(__name__)

GZIP_FROM_BYTES: Final = 1024

DESCRIPTION: Final = """Momentum of open-source AI projects from authoritative public counts.

A day is a UTC date. A missing day is `null`, never a zero. Every answer says how complete it is (`coverage`) and when
the newest of its values was written (`as_of`). Asked with `as_of=`, it is what was known at that moment, whatever was
revised since. Errors are problem details (RFC 9457) with the parameter at fault (`field`) and what to do (`remedy`)."""


def database_url(settings: Settings) -> str:
    """Return the address of the database.

    Raises
    ------
    ConfigError
        If none is set.
    """
    if settings.database_url is None:
        raise ConfigError(
            "the API has no database: set ASTRID_DATABASE_URL, or start it with `astrid serve` or `astrid demo`, "
            "which bring one"
        )
    return settings.database_url.get_secret_value()


def create_app(settings: Settings, *, store: Store | None = None) -> FastAPI:
    """Return the application over ``store``; without one, its lifespan opens the settings' database and closes it.

    Raises
    ------
    ConfigError
        If there is neither a store nor a database in the settings.
    """
    state = State(settings, store)
    if store is None:
        url = database_url(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        if store is not None:
            yield
            return
        async with open_store(url) as opened:
            state.open(opened)
            yield

    app = FastAPI(
        title="Astrid",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        # FastAPI's own pages load their scripts from elsewhere; ours at /docs loads nothing.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.astrid = state
    for module in (leaderboard, projects, ledger, canaries, runs, operations, pages):
        app.include_router(module.router)
    app.mount("/static", pages.STATIC, name="static")
    app.add_middleware(GZipMiddleware, minimum_size=GZIP_FROM_BYTES)
    app.add_middleware(Instruments)
    _handle_errors(app)
    _describe_problems(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def answer_problem(request: Request, problem: Problem) -> Response:
        return _respond(request, problem)

    @app.exception_handler(AstridError)
    async def answer_error(request: Request, error: AstridError) -> Response:
        log.error("no answer for %s: %s", request.url.path, error)
        return _respond(request, problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def answer_refusal(request: Request, error: RequestValidationError) -> Response:
        return _respond(request, refused(error))

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == METHOD.status:
            problem = Problem(METHOD, f"{request.method} is not for {request.url.path}.", remedy="Use GET.")
        else:
            problem = Problem(
                NOT_FOUND, f"There is nothing at {request.url.path[:200]}.", remedy="/docs lists every address."
            )
        answer = _respond(request, problem)
        answer.headers.update(error.headers or {})
        return answer


def _respond(request: Request, problem: Problem) -> Response:
    """Answer people with a page and programs with problem+json, by what the address is for."""
    return render_problem(problem) if pages.is_page(request) else problem.respond()


def _describe_problems(app: FastAPI) -> None:
    """Add the shape of a problem, which no route names as its model, to the API's description."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        schema = describe()
        schema["components"]["schemas"].setdefault(
            "ProblemAnswer", ProblemAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
        )
        return schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend the description
