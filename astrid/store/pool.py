"""Connections: one pool, one place where driver errors become ours, one place where transactions are retried.

Everything runs inside a transaction and nothing is kept in a session, so that a pooler in transaction mode
may stand in between: no named prepared statements, no session locks, temporary tables die at commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from astrid.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection, Pool = asyncpg.Connection, asyncpg.Pool
T = TypeVar("T")

_ATTEMPTS: Final = 6
_CONNECT_TIMEOUT_S: Final = 20.0
_RETRIED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


def describe(url: str) -> str:
    """Name the database of a URL for a message: host, port and database, never a user's password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or parse_qs(parts.query).get("host", ["the local socket"])[0]
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the database of ASTRID_DATABASE_URL"
    return f"database {unquote(parts.path.lstrip('/')) or 'postgres'!r} on {host}{port}"


def require_postgresql(url: str) -> None:
    """Refuse a URL that is not PostgreSQL's.

    Raises
    ------
    ConfigError
        If the scheme is another one, or the host or port cannot be read.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(
            "ASTRID_DATABASE_URL must start with postgresql://, "
            "for example postgresql://astrid:PASSWORD@localhost:5432/astrid"
        )
    try:
        parts = urlsplit(url)
        # A list of hosts has a port per host, which only the driver can read.
        _ = None if "," in parts.netloc else parts.port
    except ValueError:
        raise ConfigError("ASTRID_DATABASE_URL has a port or a host that cannot be: correct it") from None


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn what asyncpg and the socket raise into a StoreError that names the place and the remedy."""
    try:
        yield
    except asyncpg.InvalidPasswordError as exc:
        raise StoreError(f"{place} refuses this user or password: correct them in ASTRID_DATABASE_URL") from exc
    except asyncpg.InvalidAuthorizationSpecificationError as exc:
        raise StoreError(f"{place} refuses this user ({exc}): correct ASTRID_DATABASE_URL or pg_hba.conf") from exc
    except asyncpg.InvalidCatalogNameError as exc:
        raise StoreError(f"{place} does not exist: create it, or correct the name in ASTRID_DATABASE_URL") from exc
    except asyncpg.TooManyConnectionsError as exc:
        raise StoreError(f"{place} has no connection left: lower the pool sizes or put a pooler in front") from exc
    except asyncpg.UndefinedTableError as exc:
        raise StoreError(f"{place} lacks a table ({exc}): run `astrid migrate`") from exc
    except asyncpg.InsufficientPrivilegeError as exc:
        raise StoreError(f"{place} does not let this user do that ({exc}): grant it, or use another user") from exc
    except asyncpg.DiskFullError as exc:
        raise StoreError(f"{place} has no disk space left: nothing of this unit was written, free some space") from exc
    except (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError) as exc:
        raise StoreError(f"{place} closed the connection ({exc}): see that it runs, then try again") from exc
    except asyncpg.PostgresError as exc:
        raise StoreError(f"{place} refused: {type(exc).__name__}: {exc}") from exc
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        raise StoreError(f"the connection to {place} could not be used ({exc}): try again") from exc
    except TimeoutError as exc:
        raise StoreError(f"{place} did not answer in time: see that it runs and can be reached") from exc
    except OSError as exc:
        reason = exc.strerror or str(exc) or type(exc).__name__
        raise StoreError(f"{place} cannot be reached ({reason}): start it, or correct ASTRID_DATABASE_URL") from exc


async def _learn_types(connection: Any) -> None:
    """Let the driver look up the array types in use, once per connection.

    It turns ``jit`` off while it does so and then puts it back to what it found. Done later, it would find what one of
    our transactions had set for itself alone, and leave that behind in the server's session.
    """
    async with connection.transaction():
        query = "SELECT $1::int2[], $2::int4[], $3::float8[], $4::bool[], $5::date[], $6::text[]"
        await connection.fetchrow(query, [], [], [], [], [], [])


async def _keep_session(connection: Any) -> None:
    """Do nothing on release: no session state is ever made, so there is none to reset."""


@asynccontextmanager
async def open_pool(url: str, *, size: int) -> AsyncGenerator[Pool]:
    """Open a pool of at most ``size`` connections and close it at the end.

    Raises
    ------
    ConfigError
        If the URL is not PostgreSQL's.
    StoreError
        If the server cannot be reached or refuses.
    """
    require_postgresql(url)
    with translated(describe(url)):
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=max(1, size),
            statement_cache_size=0,
            timeout=_CONNECT_TIMEOUT_S,
            max_inactive_connection_lifetime=60.0,
            init=_learn_types,
            reset=_keep_session,
        )
    try:
        yield pool
    finally:
        await _close(pool)


async def _close(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), timeout=10.0)
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        pool.terminate()


@asynccontextmanager
async def open_connection(url: str) -> AsyncGenerator[Connection]:
    """Open one connection outside any pool; errors as in :func:`open_pool`."""
    require_postgresql(url)
    with translated(describe(url)):
        connection = await asyncpg.connect(url, statement_cache_size=0, timeout=_CONNECT_TIMEOUT_S)
    try:
        yield connection
    finally:
        if not connection.is_closed():
            try:
                await connection.close(timeout=10.0)
            except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                connection.terminate()


@asynccontextmanager
async def reading(pool: Pool, place: str, *, snapshot: bool = False) -> AsyncGenerator[Connection]:
    """Give a connection inside a read-only transaction; with ``snapshot`` every statement sees one moment."""
    with translated(place):
        async with pool.acquire() as connection:
            isolation: Any = "repeatable_read" if snapshot else "read_committed"
            async with connection.transaction(isolation=isolation, readonly=True):
                yield connection


async def writing(pool: Pool, place: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run ``work`` in one transaction; run it again where the database chose it as the victim of a deadlock."""
    with translated(place):
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with pool.acquire() as connection, connection.transaction():
                    return await work(connection)
            except _RETRIED:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(0.02 * 2**attempt)
    raise AssertionError("unreachable")
