"""Whose a GitHub token is: what ``viewer`` says, else said on an earlier day, else what is declared.

GitHub's limits belong to users, so tokens of one user must share one budget. App installations and the
``GITHUB_TOKEN`` of a workflow have no viewer. Whose token is not known may be any of the others': it adds nothing to
what they may spend together, so it is left out beside them; where nobody tells, all are taken for one user's.
Document: GitHub GraphQL reference, ``Query.viewer``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
"""The user of all tokens where none tells whose it is."""
REFUSED: Final = "refused"
"""The user of tokens that GitHub refuses: they spend nothing, and their budget says so."""
TRIES: Final = 4
RETRY_S: Final = 2.0
MAX_PAUSE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whom GitHub takes a token's bearer for."""

    database_id: int
    login: str


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose the tokens are: the user by token name, without those that are left out, and what GitHub said just now.

    ``refused`` are the tokens that GitHub refuses.
    """

    users: Mapping[str, str]
    told: Mapping[str, Viewer] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()

    def count(self) -> int:
        """Return how many budgets there are to spend: users with a token that GitHub accepts."""
        return len({user for name, user in self.users.items() if name not in self.refused})


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
    names: Sequence[str],
    viewers: Mapping[str, Viewer],
    declared: Mapping[str, str],
    refused: Collection[str] = (),
) -> dict[str, str]:
    """Return the user of each token that may be used: what GitHub says, else what is declared.

    A declared login that GitHub named for another token is that user. What nobody tells of is one unknown user's
    if nobody tells of any, else it is absent.
    """
    logins = {v.login.casefold(): f"user:{v.database_id}" for v in viewers.values()}
    users: dict[str, str] = {}
    for name in names:
        if name in viewers:
            users[name] = f"user:{viewers[name].database_id}"
        elif name in declared:
            login = declared[name].casefold()
            users[name] = logins.get(login, f"declared:{login}")
    alone = not users
    for name in names:
        if name not in users and name in refused:
            users[name] = REFUSED
        elif name not in users and alone:
            users[name] = UNKNOWN
    return users


async def read_users(
    send: Send,
    tokens: Sequence[SecretStr],
    declared: Mapping[str, str],
    now_s: Callable[[], float],
    real_s: Callable[[float], float],
    known: Mapping[str, Viewer] | None = None,
) -> Owners:
    """Ask GitHub whose each token is, one point each.

    ``known`` is what it said on earlier days, by token name; that stands where it does not answer today.

    Raises
    ------
    ConfigError
        If ``declared`` names a token that is not there.
    """
    secrets = {token_name(t.get_secret_value()): t for t in tokens}
    names = list(secrets)
    matched = match_declared(declared, names)
    found = {name: await _read_viewer(send, secret, now_s, real_s) for name, secret in secrets.items()}
    told = {name: viewer for name, viewer in found.items() if isinstance(viewer, Viewer)}
    refused = frozenset(name for name, viewer in found.items() if viewer == REFUSED)
    before = {name: viewer for name, viewer in (known or {}).items() if name in secrets}
    users = assign_users(names, before | told, matched, refused)
    untold = [name for name in names if users.get(name, UNKNOWN) == UNKNOWN]
    if len(untold) > 1 or len(users) < len(names):
        log.warning(
            "tokens %s do not tell whose they are and are %s: declare each in ASTRID_GITHUB_TOKEN_USERS",
            ", ".join(untold),
            "not used beside those that do" if len(users) < len(names) else "treated as one user's",
        )
    return Owners(users, told, refused)


async def _read_viewer(
    send: Send, secret: SecretStr, now_s: Callable[[], float], real_s: Callable[[float], float]
) -> Viewer | str:
    """Ask a few times, for a user that is not known costs more than a short wait.

    Return whom GitHub names, :data:`REFUSED`, or :data:`UNKNOWN` if it names nobody.
    """
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
            if viewer is not None:
                return viewer
            if signal.verdict == "dead":
                return REFUSED
            if signal.verdict == "ok" and response.status < 500 and response.is_json():
                return UNKNOWN
            if signal.verdict == "secondary":
                wait_s = min(signal.retry_after_s or 60.0, MAX_PAUSE_S) + 1.0
            elif signal.verdict == "primary":
                return UNKNOWN  # the hour may be long; the budget learns it from the probe
        if attempt < TRIES - 1:
            await asyncio.sleep(real_s(wait_s))
    return UNKNOWN
