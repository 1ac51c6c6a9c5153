"""Whose a GitHub token is: read once through ``viewer``, else declared, else the same unknown user for all.

GitHub's limits belong to users, so tokens of one user must share one budget. App installations and the
``GITHUB_TOKEN`` of a workflow have no viewer. Document: GitHub GraphQL reference, ``Query.viewer``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from astrid.errors import ConfigError, Malformed, Unavailable
from astrid.fetcher import USER_AGENT, Send
from astrid.models import Request, Response
from astrid.ratelimit import token_name
from astrid.signals import read_github_signal

log = logging.getLogger(__name__)

VIEWER_QUERY: Final = "query Viewer { viewer { databaseId login } rateLimit { cost limit remaining used resetAt } }"
VIEWER: Final = Request("github", "POST", "/graphql", json={"query": VIEWER_QUERY}, bucket="graphql")
UNKNOWN: Final = "unknown"
TRIES: Final = 4
RETRY_S: Final = 2.0
MAX_PAUSE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whom GitHub takes a token's bearer for."""

    database_id: int
    login: str


def parse_viewer(response: Response) -> Viewer | None:
    """Read the answer to :data:`VIEWER`; None if this token cannot tell whose it is."""
    if response.status != 200:
        return None
    try:
        body = response.json()
    except Malformed:
        return None
    data = body.get("data") if isinstance(body, dict) else None
    viewer = data.get("viewer") if isinstance(data, dict) else None
    if not isinstance(viewer, dict):
        return None
    number, login = viewer.get("databaseId"), viewer.get("login")
    if isinstance(number, bool) or not isinstance(number, int) or number <= 0 or not isinstance(login, str):
        return None
    return Viewer(number, login)


def match_declared(declared: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Turn the setting's keys, each a token's place from 1 or its name, into names.

    Raises
    ------
    ConfigError
        If a key is no token's.
    """
    found: dict[str, str] = {}
    for key, user in declared.items():
        # Eight digits are a name, also where all of them are decimal.
        place = int(key) if key.isdigit() and len(key) < 8 else 0
        if key in names:
            found[key] = user
        elif 1 <= place <= len(names):
            found[names[place - 1]] = user
        else:
            raise ConfigError(
                f"ASTRID_GITHUB_TOKEN_USERS names a token {key!r} that ASTRID_GITHUB_TOKENS does not hold: "
                f"write its place (1 to {len(names)}) or its name ({', '.join(names) or 'there are none'})"
            )
    return found


def assign_users(
    names: Sequence[str], viewers: Mapping[str, Viewer | None], declared: Mapping[str, str]
) -> dict[str, str]:
    """Return the user of each token: what GitHub says, else what is declared, else one unknown user for all.

    A declared login that GitHub named for another token is that user.
    """
    logins = {v.login.casefold(): f"user:{v.database_id}" for v in viewers.values() if v is not None}
    users: dict[str, str] = {}
    for name in names:
        viewer = viewers.get(name)
        if viewer is not None:
            users[name] = f"user:{viewer.database_id}"
        elif name in declared:
            login = declared[name].casefold()
            users[name] = logins.get(login, f"declared:{login}")
        else:
            users[name] = UNKNOWN
    return users


async def read_users(
    send: Send,
    tokens: Sequence[SecretStr],
    declared: Mapping[str, str],
    now_s: Callable[[], float],
    real_s: Callable[[float], float],
) -> dict[str, str]:
    """Ask GitHub whose each token is, one point each, and return token name -> user.

    Raises
    ------
    ConfigError
        If ``declared`` names a token that is not there.
    """
    secrets = {token_name(t.get_secret_value()): t for t in tokens}
    matched = match_declared(declared, list(secrets))
    viewers = {name: await _read_viewer(send, secret, now_s, real_s) for name, secret in secrets.items()}
    users = assign_users(list(secrets), viewers, matched)
    untold = [name for name, user in users.items() if user == UNKNOWN]
    if len(untold) > 1:
        log.warning(
            "tokens %s do not tell whose they are and are treated as one user's: if they are not, declare each in "
            "ASTRID_GITHUB_TOKEN_USERS",
            ", ".join(untold),
        )
    return users


async def _read_viewer(
    send: Send, secret: SecretStr, now_s: Callable[[], float], real_s: Callable[[float], float]
) -> Viewer | None:
    """Ask a few times, for a user that is not known costs more than a short wait."""
    headers = {
        "User-Agent": USER_AGENT,
        "Content-Type": "application/json",
        "Authorization": f"Bearer {secret.get_secret_value()}",
    }
    for attempt in range(TRIES):
        wait_s = RETRY_S * 2**attempt
        try:
            response = await send(VIEWER, headers)
        except (Unavailable, Malformed, TimeoutError, OSError):
            pass
        else:
            signal = read_github_signal(response, now_s())
            viewer = parse_viewer(response)
            if viewer is not None or signal.verdict == "dead":
                return viewer
            if signal.verdict == "ok" and response.status < 500 and _is_whole(response):
                return None
            if signal.verdict == "secondary":
                wait_s = min(signal.retry_after_s or 60.0, MAX_PAUSE_S) + 1.0
            elif signal.verdict == "primary":
                return None  # the hour may be long; the budget learns it from the probe
        if attempt < TRIES - 1:
            await asyncio.sleep(real_s(wait_s))
    return None


def _is_whole(response: Response) -> bool:
    try:
        response.json()
    except Malformed:
        return False
    return True
