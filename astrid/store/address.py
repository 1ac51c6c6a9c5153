"""What ASTRID_DATABASE_URL says: checked before anything is opened, and put as the driver understands it.

The driver (asyncpg) knows most parameters of libpq's URLs and sends every other one to the server as a setting, which
refuses it. So what libpq knows and the driver does not is dealt with here: it is honoured, left out where nothing is
lost by that, or refused where leaving it out would be weaker than what was asked for. Settings of the server
(``application_name``, ``options``, ...) go through.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from astrid.errors import ConfigError

CONNECT_TIMEOUT_S: Final = 20.0
_EXAMPLE: Final = "postgresql://astrid:PASSWORD@localhost:5432/astrid"
_QUOTING: Final = "in a user or a password, write % @ / ? # as %25 %40 %2F %3F %23"
_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_MATTERS_NOT: Final = frozenset(
    {
        "client_encoding",
        "fallback_application_name",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "load_balance_hosts",
        "sslcompression",
        "sslsni",
        "tcp_user_timeout",
    }
)
"""What libpq knows and the driver does not, and what changes nothing for us when it is left out."""
_OPTIONAL: Final = {"channel_binding": ("disable", "prefer", "require"), "gssencmode": ("disable", "prefer")}
_DEMANDS: Final = ("gssencmode", "require_auth", "requirepeer", "requiressl", "ssl")


@dataclass(frozen=True, slots=True)
class Address:
    """What the driver is given: a URL that it understands, a TLS context in place of its own, and how long to try."""

    dsn: str = field(repr=False)
    tls: ssl.SSLContext | None
    timeout_s: float


def describe(url: str) -> str:
    """Name the database of a URL for a message: host, port and database, never a user's password."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or parse_qs(parts.query).get("host", ["the local socket"])[0]
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the database of ASTRID_DATABASE_URL"
    return f"database {unquote(parts.path.lstrip('/')) or 'postgres'!r} on {host}{port}"


def read_address(url: str) -> Address:
    """Check a URL and put it as the driver understands it.

    ``channel_binding=require``, which the driver cannot do, becomes ``sslmode=verify-full``: both prove that nobody
    stands between, the one by the password and the other by the certificate. A check of the certificate for which no
    root is named goes by ``~/.postgresql/root.crt`` where there is one, as with libpq, and else by the system's roots,
    which also ``sslrootcert=system`` names. The system's roots vouch for every host, so the name is then checked too.

    Raises
    ------
    ConfigError
        If the URL is not PostgreSQL's, cannot be read, names a file that is not there, or demands what cannot be done.
    """
    url = url.strip()
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(f"ASTRID_DATABASE_URL must start with postgresql://, for example {_EXAMPLE}")
    try:
        parts = urlsplit(url)
        # A list of hosts has a port per host, which only the driver can read.
        _ = None if "," in parts.netloc else parts.port
    except ValueError:
        raise ConfigError(f"ASTRID_DATABASE_URL has a port or a host that cannot be: correct it ({_QUOTING})") from None
    if parts.fragment or "@" in parts.path or parts.netloc.count("@") > 1:
        raise ConfigError(f"ASTRID_DATABASE_URL cannot be read: {_QUOTING}")
    given = _read_parameters(parts.query)
    timeout_s = _take_timeout(given)
    _drop_optional(given)
    tls = _take_tls(given)
    query = urlencode(given, quote_via=quote)
    return Address(urlunsplit(parts._replace(query=query)), tls, timeout_s)


def _read_parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigError("ASTRID_DATABASE_URL has a parameter without a value: give it one, or remove it") from None
    return {name: value for name, value in pairs if value}


def _take_timeout(given: dict[str, str]) -> float:
    text = given.pop("connect_timeout", "0")
    if not text.isdecimal():
        raise ConfigError("connect_timeout in ASTRID_DATABASE_URL must be a number of seconds: correct it")
    return float(text) or CONNECT_TIMEOUT_S


def _drop_optional(given: dict[str, str]) -> None:
    """Leave out what changes nothing; refuse what would be a weaker connection than was asked for."""
    for name in _MATTERS_NOT & given.keys():
        del given[name]
    for name, values in _OPTIONAL.items():
        if given.get(name) in values and given[name] != "require":
            del given[name]
    for name in _DEMANDS:
        if name in given:
            raise ConfigError(
                f"{name} in ASTRID_DATABASE_URL is not understood here: remove it, and say sslmode=verify-full "
                "where nobody may stand between"
            )
    if given.get("channel_binding", "require") != "require":
        raise ConfigError("channel_binding in ASTRID_DATABASE_URL must be disable, prefer or require: correct it")


def _take_tls(given: dict[str, str]) -> ssl.SSLContext | None:
    """Return a context where the driver's own would not do, and take what it says out of the parameters."""
    mode = given.get("sslmode")
    if mode is not None and mode not in _MODES:
        raise ConfigError(f"sslmode in ASTRID_DATABASE_URL must be one of {', '.join(_MODES)}: correct it")
    bound = given.pop("channel_binding", None) is not None
    if bound and mode in ("disable", "allow"):
        raise ConfigError(
            f"channel_binding=require and sslmode={mode} in ASTRID_DATABASE_URL exclude each other: remove one"
        )
    root = given.get("sslrootcert", os.environ.get("PGSSLROOTCERT", ""))
    if bound or root == "system":
        mode = given["sslmode"] = "verify-full"
    for name in _FILES:
        if name in given and given[name] != "system" and not os.access(given[name], os.R_OK):
            raise ConfigError(
                f"{name} in ASTRID_DATABASE_URL names {given[name]}, which cannot be read: correct the path"
            )
    own = Path("~/.postgresql/root.crt").expanduser()
    if mode not in ("verify-ca", "verify-full") or (root and root != "system") or (not root and own.exists()):
        return None
    return _trust_system(given)


def _trust_system(given: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if "sslcert" in given:
            secret = given.get("sslpassword", "")
            context.load_cert_chain(given["sslcert"], given.get("sslkey"), lambda: secret)
        if "sslcrl" in given:
            context.load_verify_locations(given["sslcrl"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    except ssl.SSLError as exc:
        raise ConfigError(
            f"the certificate files of ASTRID_DATABASE_URL cannot be used ({exc.reason}): correct them"
        ) from exc
    for name in ("sslmode", "sslpassword", *_FILES):
        given.pop(name, None)
    return context
