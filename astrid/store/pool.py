"""Connections: one pool, one place where driver errors become ours, one place where transactions are retried.

Everything runs inside a transaction and nothing is kept in a session, so that a pooler in transaction mode
may stand in between: no named prepared statements, no session locks, temporary tables die at commit.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import asyncpg

from astrid.clock import count_s
from astrid.errors import ConfigError, StoreError, StoreRefused
from astrid.store.address import Address, describe, read_address
from astrid.store.vintages import LATE_S, begin_write

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection, Pool = asyncpg.Connection, asyncpg.Pool
T = TypeVar("T")

_ATTEMPTS: Final = 6
_ARRAYS: Final = (
    "$1::int2[], $2::int4[], $3::int8[], $4::float8[], $5::bool[], $6::date[], $7::timestamptz[], $8::text[], "
    "$9::bytea[], $10::jsonb[]"
)
"""Every array type that a query of ours takes or gives."""
_WRONG_NAME: Final = (62, 63, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, _EMAIL_MISMATCH and _IP_ADDRESS_MISMATCH."""
_RETRIED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn what asyncpg and the socket raise into a StoreError that names the place and the remedy."""
    try:
        yield
    except asyncpg.InvalidPasswordError as exc:
        raise StoreError(f"{place} refuses this user or password: correct them in ASTRID_DATABASE_URL") from exc
    except asyncpg.InvalidAuthorizationSpecificationError as exc:
        if "no encryption" in str(exc):
            raise StoreError(f"{place} asks for TLS: add sslmode=verify-full to ASTRID_DATABASE_URL") from exc
        raise StoreError(f"{place} refuses this user ({exc}): correct ASTRID_DATABASE_URL or pg_hba.conf") from exc
    except asyncpg.InvalidCatalogNameError as exc:
        raise StoreError(f"{place} does not exist: create it, or correct the name in ASTRID_DATABASE_URL") from exc
    except asyncpg.TooManyConnectionsError as exc:
        raise StoreError(f"{place} has no connection left: lower the pool sizes or put a pooler in front") from exc
    except asyncpg.LockNotAvailableError as exc:
        raise StoreError(f"{place} is locked by another transaction: see which one is open, then try again") from exc
    except asyncpg.UndefinedTableError as exc:
        raise StoreError(f"{place} lacks a table ({exc}): run `astrid migrate`") from exc
    except asyncpg.InsufficientPrivilegeError as exc:
        raise StoreError(f"{place} does not let this user do that ({exc}): grant it, or use another user") from exc
    except asyncpg.DiskFullError as exc:
        raise StoreError(f"{place} has no disk space left: nothing of this unit was written, free some space") from exc
    except (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError) as exc:
        raise StoreError(_read_pooler(place, str(exc))) from exc
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as exc:
        raise StoreRefused(f"{place} refused: {type(exc).__name__}: {exc}") from exc
    except asyncpg.PostgresError as exc:
        raise StoreError(f"{place} refused: {type(exc).__name__}: {exc}") from exc
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        raise StoreError(f"the connection to {place} could not be used ({exc}): try again") from exc
    except TimeoutError as exc:
        raise StoreError(f"{place} did not answer in time: see that it runs and can be reached") from exc
    except OSError as exc:
        reason = exc.strerror or str(exc) or type(exc).__name__
        raise StoreError(f"{place} cannot be reached ({reason}): start it, or correct ASTRID_DATABASE_URL") from exc


def _read_pooler(place: str, said: str) -> str:
    """Say in our words what a pooler tells of a login: it gives the reason as text, under one code for all."""
    if re.search(r"does not exist|no such database", said):
        return f"{place} does not exist: create it, or correct the name in ASTRID_DATABASE_URL"
    if re.search(r"authentication failed|no such user", said):
        return f"{place} refuses this user or password: correct them in ASTRID_DATABASE_URL"
    if re.search(r"no more connections|query_wait_timeout|pgbouncer cannot connect", said):
        return f"the pooler in front of {place} gives no connection ({said}): see that the server runs, and its sizes"
    return f"{place} closed the connection ({said}): see that it runs, then try again"


@contextmanager
def _connecting(place: str) -> Iterator[None]:
    """Say what is wrong with an address or a certificate when it first meets the server."""
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        if exc.verify_code in _WRONG_NAME:
            raise StoreError(
                f"{place} shows a certificate of another name ({exc.verify_message}): write the host in "
                "ASTRID_DATABASE_URL as the certificate states it, or have one made for this name"
            ) from exc
        raise StoreError(
            f"{place} shows a certificate that is not trusted ({exc.verify_message}): name the file of the root that "
            "signed it as sslrootcert in ASTRID_DATABASE_URL"
        ) from exc
    except ssl.SSLError as exc:
        raise StoreError(f"TLS with {place} failed ({exc.reason}): see the certificates on both sides") from exc
    except ConnectionError as exc:
        if "rejected SSL upgrade" not in str(exc):
            raise
        raise StoreError(
            f"{place} does not speak TLS, which ASTRID_DATABASE_URL asks for: turn it on there, or say "
            "sslmode=disable where the network is trusted"
        ) from exc
    except (
        asyncpg.UndefinedObjectError,
        asyncpg.CantChangeRuntimeParamError,
        asyncpg.InvalidParameterValueError,
    ) as exc:
        raise ConfigError(f"{place} refuses a parameter of ASTRID_DATABASE_URL ({exc}): remove it") from exc
    except asyncpg.ProtocolViolationError as exc:
        if not (found := re.search(r"unsupported startup parameter(?: in options)?: (\S+)", str(exc))):
            raise
        raise ConfigError(
            f"the pooler in front of {place} takes no parameter {found[1]}: remove it from ASTRID_DATABASE_URL"
        ) from exc
    except (asyncpg.ClientConfigurationError, ValueError):
        # The driver's own text may repeat a part of the URL.
        raise ConfigError("ASTRID_DATABASE_URL cannot be read: correct its host, port or parameters") from None


def _arguments(address: Address) -> dict[str, Any]:
    """Return what every connection is opened with: no statement is kept for a second use."""
    return {
        "dsn": address.dsn,
        "ssl": address.tls,
        "timeout": address.timeout_s,
        "statement_cache_size": 0,
    }


async def _learn_types(connection: Any) -> None:
    """Let the driver look up the array types in use, once per connection.

    It turns ``jit`` off while it does so and then sets it to what it found, both for the session. The transaction is
    rolled back, so neither stays in a session that a pooler hands to others; what was looked up stays with the driver.
    """
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchrow(f"SELECT {_ARRAYS}", *([[]] * _ARRAYS.count("$")))
    await transaction.rollback()


async def _keep_session(connection: Any) -> None:
    """Do nothing on release: no session state is ever made, so there is none to reset."""


@asynccontextmanager
async def open_pool(url: str, *, size: int) -> AsyncGenerator[Pool]:
    """Open a pool of at most ``size`` connections and close it at the end.

    Raises
    ------
    ConfigError
        If the URL is not PostgreSQL's, or says what cannot be done; see :func:`astrid.store.address.read_address`.
    StoreError
        If the server cannot be reached or refuses.
    """
    address, place = read_address(url), describe(url)
    with translated(place), _connecting(place):
        pool = await asyncpg.create_pool(
            **_arguments(address),
            min_size=1,
            max_size=max(1, size),
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
    address, place = read_address(url), describe(url)
    with translated(place), _connecting(place):
        connection = await asyncpg.connect(**_arguments(address))
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


async def writing(
    pool: Pool, place: str, work: Callable[[Connection], Awaitable[T]], *, now: datetime | None = None
) -> T:
    """Run ``work`` in one transaction; run it again where the database chose it as the victim of a deadlock.

    ``now`` is the moment that the write is stamped with: where it is given, readers can tell that it is under way, and
    a write that was held up for long is refused, see :mod:`astrid.store.vintages`.
    """
    called_s = count_s()
    with translated(place):
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with pool.acquire() as connection, connection.transaction():
                    if now is not None:
                        await begin_write(connection, now)
                        if (late_s := count_s() - called_s) > LATE_S:
                            raise StoreError(
                                f"a write to {place} was held up for {late_s:.0f} s, so its moment lies too far back: "
                                "nothing was written, try again"
                            )
                    return await work(connection)
            except _RETRIED:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(0.02 * 2**attempt)
    raise AssertionError("unreachable")
