"""GitHub's events: of one repository, whose stars are the world's, and the public feed, which has all but lost them.

A list reaches back 300 events or 30 days (GitHub docs, "REST API endpoints for events"). Payloads are those since
2025-10-07: no commits, sizes or merge data (google/go-github ``event_types.go``; a PullRequestEvent in
zerocracy/judges-action#1195; what else is left of issues, comments and releases is from memory). Ids are strings that
do not rise with time, and those of different types may be equal: type and id together name an event. The public feed
is five minutes behind (an older copy of that page), and hardly one in 500 of its events is a star
(pingcap/ossinsight#3110).

Stars, forks, pushes and releases are as many as the world's days have; who did it, at what minute, and the rest are
made up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from astrid.simulators.github_rest import release_body, user_body
from astrid.simulators.repositories import Repositories, Repository
from astrid.simulators.upstream import made_up

MAX_EVENTS: Final = 300
MAX_DAYS: Final = 30
POLL_S: Final = 60
"""What ``x-poll-interval`` asks for."""
_BEHIND_S: Final = 300
_COMMITS_PER_PUSH: Final = 3
_DAY_S: Final = 86_400
_ELSEWHERE_ID: Final = 3_000_000_000
_FEED: Final = (
    (0.002, "WatchEvent"),
    (0.012, "CreateEvent"),
    (0.022, "PullRequestEvent"),
    (0.030, "IssuesEvent"),
    (0.036, "IssueCommentEvent"),
    (0.038, "ForkEvent"),
    (1.0, "PushEvent"),
)
"""Shares of the public feed, each added to those before; only those of stars and pushes were measured."""


def repository_events(
    repositories: Repositories, repository: Repository, night: date, base_url: str
) -> list[dict[str, Any]]:
    """Return the newest events of a repository up to the end of ``night``, newest first.

    A star that was taken back later stays; nothing says when that was.
    """
    found: list[dict[str, Any]] = []
    org = _avatar(repository.name.partition("/")[0], repository.database_id + 1, "orgs", base_url)
    published = repositories.published(repository, night)
    first, gains = repositories.gains(repository, night)
    for back in range(MAX_DAYS):
        day = night - timedelta(days=back)
        if day < repository.created_on or len(found) >= MAX_EVENTS:
            break
        place = (day - first).days
        stars = int(gains[place]) if 0 <= place < len(gains) else 0
        releases = [n for n, on in enumerate(published, 1) if on == day]
        counts = _counts(repositories, repository, day) | {"WatchEvent": stars, "ReleaseEvent": len(releases)}
        for second, kind, n in _newest(counts):
            number = releases[n] if kind == "ReleaseEvent" else n
            moment = datetime.combine(day, time(tzinfo=UTC)) + timedelta(seconds=second)
            payload = _payload(kind, number, day, repository, base_url)
            key = f"{repository.node_id}|{day}|{n}"
            found.append(_event(kind, key, moment, repository, payload, base_url) | {"org": org})
    return found[:MAX_EVENTS]


def feed_events(now: datetime, base_url: str) -> list[dict[str, Any]]:
    """Return the public feed of a minute, newest first: of repositories that are not in any world."""
    minute = int(now.timestamp()) // 60
    found = []
    for n in range(MAX_EVENTS):
        key = f"feed|{minute}|{n}"
        draw = made_up(f"{key}|type")
        kind = next(kind for share, kind in _FEED if draw < share)
        number = _ELSEWHERE_ID + int(made_up(f"{key}|where") * 10**9)
        name = f"user{number % 99_991}/project-{number % 97}"
        moment = datetime.fromtimestamp(60 * minute - _BEHIND_S - n // 5, UTC)
        repository = Repository(None, f"R_elsewhere{number}", number, name, moment.date())
        payload = _payload(kind, n, moment.date(), repository, base_url)
        found.append(_event(kind, key, moment, repository, payload, base_url))
    return found


def _counts(repositories: Repositories, repository: Repository, day: date) -> dict[str, int]:
    """Return how many events a day has besides stars and releases."""
    forks, before = (repositories.forks(repository, d) for d in (day, day - timedelta(days=1)))
    start = datetime.combine(day, time(tzinfo=UTC))
    commits = repositories.commits(repository, start, start + timedelta(seconds=_DAY_S - 1), day)
    quiet = repositories.has(repository, "archived")
    talk = {
        kind: 0 if quiet else int(most * made_up(f"{repository.node_id}|{day}|{kind}"))
        for kind, most in (("IssuesEvent", 4), ("IssueCommentEvent", 8), ("PullRequestEvent", 4), ("CreateEvent", 2))
    }
    forked = 0 if forks is None or before is None else max(0, forks - before)
    return {"ForkEvent": forked, "PushEvent": -(-commits // _COMMITS_PER_PUSH), **talk}


def _newest(counts: dict[str, int]) -> list[tuple[int, str, int]]:
    """Return (second, type, number) of the newest events of a day, newest first; each type is spread over the day."""

    def spread() -> Iterator[tuple[int, str, int]]:
        for kind, count in counts.items():
            for n in range(max(0, count - MAX_EVENTS), count):
                yield (2 * n + 1) * _DAY_S // (2 * count), kind, n

    return sorted(spread(), reverse=True)[:MAX_EVENTS]


def _event(
    kind: str, key: str, moment: datetime, repository: Repository, payload: dict[str, Any], base_url: str
) -> dict[str, Any]:
    user_id = 1000 + _number(f"{key}|{kind}|actor", 100_000_000)
    return {
        "id": str(4_000_000_000 + _number(key, 50_000_000_000)),
        "type": kind,
        "actor": _avatar(f"user{user_id}", user_id, "users", base_url) | {"display_login": f"user{user_id}"},
        "repo": _pointer(repository, base_url),
        "payload": payload,
        "public": True,
        "created_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _avatar(login: str, number: int, folder: str, base_url: str) -> dict[str, Any]:
    return {
        "id": number,
        "login": login,
        "gravatar_id": "",
        "url": f"{base_url}/{folder}/{login}",
        "avatar_url": f"https://avatars.githubusercontent.com/u/{number}?",
    }


def _pointer(repository: Repository, base_url: str) -> dict[str, Any]:
    url = f"{base_url}/repos/{repository.name}"
    return {"id": repository.database_id, "name": repository.name, "url": url}


def _payload(kind: str, number: int, day: date, repository: Repository, base_url: str) -> dict[str, Any]:
    """Return what an event holds; ``number`` tells it from others of its type and day, or is the release's own."""
    key = f"{repository.node_id}|{day}|{kind}|{number}"
    match kind:
        case "WatchEvent":
            return {"action": "started"}
        case "ForkEvent":
            name = repository.name.partition("/")[2]
            forkee = {"id": _ELSEWHERE_ID + _number(key, 10**9), "name": name, "fork": True}
            return {"action": "forked", "forkee": forkee | {"full_name": f"user{_number(key, 100_000)}/{name}"}}
        case "PushEvent":
            hashes = {"head": _sha(f"{key}|head"), "before": _sha(f"{key}|before")}
            push_id = 30_000_000_000 + _number(key, 10**9)
            return {"repository_id": repository.database_id, "push_id": push_id, "ref": "refs/heads/main", **hashes}
        case "CreateEvent":
            ref = f"branch-{_number(key, 1000)}"
            names = {"ref": ref, "ref_type": "branch", "full_ref": f"refs/heads/{ref}", "master_branch": "main"}
            return {**names, "description": None, "pusher_type": "user"}
        case "ReleaseEvent":
            release = release_body(number, day, repository.database_id, repository.name, base_url)
            return {"action": "published", "release": release}
        case "PullRequestEvent":
            asked = 1 + _number(key, 9000)
            at = {"repo": _pointer(repository, base_url)}
            request = {
                "url": f"{base_url}/repos/{repository.name}/pulls/{asked}",
                "id": _number(key, 10**9),
                "number": asked,
                "head": {"ref": f"change-{asked}", "sha": _sha(f"{key}|head"), **at},
                "base": {"ref": "main", "sha": _sha(f"{key}|base"), **at},
            }
            return {"action": ("opened", "closed")[number % 2], "number": asked, "pull_request": request}
        case _:
            issue = _issue(key, repository, base_url)
            if kind == "IssuesEvent":
                return {"action": ("opened", "closed")[number % 2], "issue": issue}
            comment_id = _number(f"{key}|comment", 10**9)
            comment = {"id": comment_id, "url": f"{base_url}/repos/{repository.name}/issues/comments/{comment_id}"}
            return {"action": "created", "issue": issue, "comment": comment | {"body": "Thank you."}}


def _issue(key: str, repository: Repository, base_url: str) -> dict[str, Any]:
    number = 1 + _number(f"{key}|issue", 9000)
    return {
        "url": f"{base_url}/repos/{repository.name}/issues/{number}",
        "id": _number(f"{key}|issue id", 10**9),
        "number": number,
        "title": f"Question {number}",
        "user": user_body("asker", 2, base_url),
        "state": "open",
    }


def _sha(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=20).hexdigest()


def _number(key: str, limit: int) -> int:
    return int(limit * made_up(key))
