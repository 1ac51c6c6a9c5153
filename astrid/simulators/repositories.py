"""The repositories of a world as GitHub's two interfaces see them: by id, by name, by former name.

A scenario may rename, remove, hide or block some of them, take stars away, or give an old name to a stranger.
Which ones is decided by the scenario's seed and the node id. Counts that a world does not state are made up, for
nobody recorded them: watchers, issues, pull requests and releases from its stars and forks, commits of a day from
its id and the day. A release is published on each day on which another 400 stars have been given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from astrid.simulators.scenarios import CALM, Scenario
from astrid.simulators.star_weeks import DAY_S, PURGED, STRANGER_STARS, move_first_star, purged_weeks, stranger_weeks

if TYPE_CHECKING:
    from astrid.simulators.world import World

Block = Literal["gone", "dmca", "tos", "unavailable"]
_BLOCKS: Final[tuple[Block, ...]] = ("gone", "dmca", "tos", "unavailable")
_STRANGER_ID: Final = 2_000_000_000
STARS_PER_RELEASE: Final = 400
MAX_RELEASES: Final = 400


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository. ``row`` is its row in the world, None for a stranger that a scenario made up."""

    row: int | None
    node_id: str
    database_id: int
    name: str
    created_on: date
    block: Block | None = None


class Repositories:
    """Finds repositories and reads their counts as of a night."""

    def __init__(self, world: World, scenario: Scenario = CALM) -> None:
        self._world = world
        self._scenario = scenario
        self._purges: dict[int, int] = {}
        self._by_node: dict[str, Repository] = {}
        self._by_number: dict[int, Repository] = {}
        self._by_name: dict[str, Repository] = {}
        former: dict[str, Repository] = {}
        for row, facts in enumerate(world.repos):
            renamed = _chosen(scenario, "renamed", facts.node_id, scenario.renamed)
            reoccupied = _chosen(scenario, "reoccupied", facts.node_id, scenario.reoccupied)
            name = facts.name + ("-next" if renamed or reoccupied else "")
            block = None
            if _chosen(scenario, "gone", facts.node_id, scenario.gone):
                block = _BLOCKS[int(_draw(scenario, "block", facts.node_id) * len(_BLOCKS))]
            repository = Repository(row, facts.node_id, facts.database_id, name, facts.created_on, block)
            self._add(repository)
            for old in facts.former:
                former.setdefault(old.lower(), repository)
            if reoccupied:
                number = _STRANGER_ID + row
                self._add(Repository(None, f"R_stranger{number}", number, facts.name, world.first_day))
            elif renamed:
                former.setdefault(facts.name.lower(), repository)
        self._former = {name: r for name, r in former.items() if name not in self._by_name}
        self._known = [np.flatnonzero(row >= 0) for row in world.stars]

    def _add(self, repository: Repository) -> None:
        self._by_node[repository.node_id] = repository
        self._by_number[repository.database_id] = repository
        self._by_name[repository.name.lower()] = repository

    def by_node(self, node_id: str, night: date) -> Repository | None:
        """Return the repository of a node id if it existed on that night; blocked ones too."""
        return self._existing(self._by_node.get(node_id), night)

    def by_number(self, database_id: int, night: date) -> Repository | None:
        """Return the repository of a numeric id."""
        return self._existing(self._by_number.get(database_id), night)

    def by_name(self, name: str, night: date) -> Repository | None:
        """Return the repository that has this full name now; case does not matter."""
        return self._existing(self._by_name.get(name.lower()), night)

    def by_former_name(self, name: str, night: date) -> Repository | None:
        """Return the repository that once had this name, if nobody has it now."""
        return self._existing(self._former.get(name.lower()), night)

    def _existing(self, repository: Repository | None, night: date) -> Repository | None:
        if repository is None or repository.created_on > night:
            return None
        if repository.block is None and self.has(repository, "private"):
            turn = int(_draw(self._scenario, "turn", repository.node_id) * 7)
            if (night.toordinal() + turn) % 7 == 0:
                return replace(repository, block="gone")
        return repository

    def public(self, night: date) -> Iterator[Repository]:
        """Yield every repository that everybody can see on that night."""
        for known in self._by_node.values():
            repository = self._existing(known, night)
            if repository is not None and repository.block is None:
                yield repository

    def has(self, repository: Repository, oddity: str) -> bool:
        """Tell whether the scenario's share of that name holds this repository."""
        return _chosen(self._scenario, oddity, repository.node_id, getattr(self._scenario, oddity))

    def purge_day(self, repository: Repository) -> date | None:
        """Return the day on which a tenth of the stars given until then is taken away; None for most."""
        if repository.row is None or not self.has(repository, "purged"):
            return None
        days = self._world.stars.shape[1]
        return self._world.first_day + timedelta(days=int(_draw(self._scenario, "day", repository.node_id) * days))

    def stars(self, repository: Repository, night: date) -> int | None:
        """Return the star count at the end of ``night``; None on a gap."""
        if repository.row is None:
            return STRANGER_STARS + (night - repository.created_on).days
        stars = self._value(self._world.stars, repository.row, night)
        purged_on = self.purge_day(repository)
        if stars is None or purged_on is None or night < purged_on:
            return stars
        if repository.row not in self._purges:
            given = int(self._world.star_history(repository.row, purged_on)[1].sum())
            self._purges[repository.row] = given // PURGED
        return max(0, stars - self._purges[repository.row])

    def commits(self, repository: Repository, first: datetime, last: datetime, night: date) -> int:
        """Return the commits of the UTC days that lie whole between two moments, up to ``night``; made up."""
        if self.has(repository, "empty") or self.has(repository, "archived"):
            return 0
        day = first.date() if first.time() == time.min else first.date() + timedelta(days=1)
        total = 0
        while day <= night and datetime.combine(day, time(23, 59, 59), first.tzinfo) <= last:
            if day >= repository.created_on:
                key = f"{repository.node_id}|{day}".encode()
                total += max(0, hashlib.blake2b(key, digest_size=1).digest()[0] - 128) // 8
            day += timedelta(days=1)
        return total

    def forks(self, repository: Repository, night: date) -> int | None:
        """Return the fork count at the end of ``night``; None on a gap."""
        if repository.row is None:
            return 2
        return self._value(self._world.forks, repository.row, night)

    def _value(self, panel: Any, row: int, night: date) -> int | None:
        day = (night - self._world.first_day).days
        if not 0 <= day < panel.shape[1] or panel[row, day] < 0:
            return None
        return int(panel[row, day])

    def last_known(self, repository: Repository, night: date) -> date | None:
        """Return the last day up to ``night`` on which stars and forks are known; None before the first."""
        if repository.row is None:
            return night
        end = max(0, (night - self._world.first_day).days + 1)
        stars, forks = self._world.stars[repository.row, :end], self._world.forks[repository.row, :end]
        days = np.flatnonzero((stars >= 0) & (forks >= 0))
        return self._world.first_day + timedelta(days=int(days[-1])) if days.size else None

    def gains(self, repository: Repository, night: date) -> tuple[date, npt.NDArray[np.int64]]:
        """Return a first day and the stars given on each day from it to ``night``, whatever was taken back later."""
        if repository.row is None:
            given = np.ones(max(0, (night - repository.created_on).days + 1), dtype=np.int64)
            given[:1] = STRANGER_STARS
            return repository.created_on, given
        weeks, days = self._world.star_history(repository.row, night)
        if not len(weeks):
            return night, np.zeros(0, dtype=np.int64)
        sunday = date(1970, 1, 1) + timedelta(days=int(weeks[-1]) // DAY_S)
        return sunday, days[::-1].reshape(-1)[: (night - sunday).days + 1].astype(np.int64)

    def published(self, repository: Repository, night: date) -> list[date]:
        """Return the days on which releases were published up to ``night``, oldest first."""
        first, gains = self.gains(repository, night)
        given = np.cumsum(gains)
        count = min(MAX_RELEASES, int(given[-1]) // STARS_PER_RELEASE) if given.size else 0
        days = np.searchsorted(given, STARS_PER_RELEASE * np.arange(1, count + 1))
        return [first + timedelta(days=int(day)) for day in days]

    def releases(self, repository: Repository, night: date) -> list[date] | None:
        """Return the days of the releases that there are on ``night``; None on a gap.

        They are as many as :meth:`node` counts: with stars that are taken back the newest go.
        """
        stars = self.stars(repository, night)
        return None if stars is None else self.published(repository, night)[: _release_count(stars)]

    def history(self, repository: Repository, night: date) -> list[dict[str, Any]]:
        """Return the weeks of ``/stargazers/history``, newest first, down to the week of creation.

        A week that the world does not know up to its end, or to ``night``, is not served (the real
        endpoint, too, is sometimes late with its newest week); days after ``night`` count 0.
        """
        if repository.row is None:
            return stranger_weeks(repository.created_on, night)
        known = self._known[repository.row]
        if not known.size:
            return []
        last_known = self._world.first_day + timedelta(days=int(known[-1]))
        weeks, days = self._world.star_history(repository.row, night)
        if self._scenario.late_week and len(weeks) and night.isoweekday() in (7, 1):
            weeks, days = weeks[1:], days[1:]
        purged_on = self.purge_day(repository)
        if purged_on is not None and purged_on <= night:
            days = purged_weeks(weeks, days, purged_on)
        rows = []
        for week, counts in zip(weeks.tolist(), days.tolist(), strict=True):
            saturday = date.fromordinal(date(1970, 1, 1).toordinal() + week // DAY_S + 6)
            if min(saturday, night) <= last_known:
                rows.append({"week": week, "total": sum(counts), "days": counts})
        if self.has(repository, "early"):
            move_first_star(rows, repository.created_on)
        return rows

    def created_at(self, repository: Repository) -> str:
        """Return the moment of creation; the time of day is made up."""
        seconds = int.from_bytes(hashlib.blake2b(repository.node_id.encode(), digest_size=4).digest(), "big") % DAY_S
        midnight = datetime.combine(repository.created_on, time(tzinfo=UTC))
        return _zulu(midnight + timedelta(seconds=seconds))

    def node(self, repository: Repository, night: date) -> dict[str, Any]:
        """Return the repository as a GraphQL object; a count that is a gap is None."""
        stars, forks = self.stars(repository, night), self.forks(repository, night)
        owner, _, short = repository.name.partition("/")
        touched = _zulu(datetime.combine(night, time(12, tzinfo=UTC)))
        empty = self.has(repository, "empty")
        return {
            "__typename": "Repository",
            "id": repository.node_id,
            "databaseId": repository.database_id,
            "name": short,
            "nameWithOwner": repository.name,
            "owner": {"__typename": "Organization", "login": owner, "id": f"O_{owner}"},
            "url": f"https://github.com/{repository.name}",
            "description": None,
            "stargazerCount": stars,
            "forkCount": forks,
            "isArchived": self.has(repository, "archived"),
            "isDisabled": False,
            "isEmpty": empty,
            "isFork": False,
            "isLocked": False,
            "isMirror": False,
            "isPrivate": False,
            "createdAt": self.created_at(repository),
            "updatedAt": touched,
            "pushedAt": None if empty else touched,
            "defaultBranchRef": None if empty else {"name": "main", "target": self._head(repository, night)},
            "watchers": _connection(None if stars is None else 1 + stars // 150),
            "issues": _connection(None if forks is None else forks // 12),
            "pullRequests": _connection(None if forks is None else forks // 20),
            "releases": _connection(None if stars is None else _release_count(stars)),
            "stargazers": _connection(stars),
        }

    def _head(self, repository: Repository, night: date) -> dict[str, Any]:
        """Return the newest commit, whose history counts."""

        def history(_: object, since: str | None = None, until: str | None = None) -> dict[str, Any]:
            first = _moment(since) if since else datetime.combine(repository.created_on, time(tzinfo=UTC))
            last = _moment(until) if until else datetime.combine(night, time(23, 59, 59, tzinfo=UTC))
            return _connection(self.commits(repository, first, last, night))

        head: dict[str, str | Callable[..., dict[str, Any]]] = {
            "__typename": "Commit",
            "id": f"C_{repository.node_id}",
            "history": history,
        }
        return head


def _release_count(stars: int) -> int:
    return min(MAX_RELEASES, stars // STARS_PER_RELEASE)


def _connection(total: int | None) -> dict[str, Any]:
    """Return a connection that counts and lists nothing, as GitHub's closed stargazer list does."""
    page = {"endCursor": None, "startCursor": None, "hasNextPage": False, "hasPreviousPage": False}
    return {"totalCount": total, "nodes": [], "edges": [], "pageInfo": page}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _zulu(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _draw(scenario: Scenario, what: str, node_id: str) -> float:
    digest = hashlib.blake2b(f"{scenario.seed}|{what}|{node_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _chosen(scenario: Scenario, what: str, node_id: str, share: float) -> bool:
    return share > 0 and _draw(scenario, what, node_id) < share
