"""The repositories of a world as GitHub's two interfaces see them: by id, by name, by former name.

A scenario may rename, remove or block some of them, or give an old name to a stranger. Which ones
is decided by the scenario's seed and the node id. Counts that a world does not state (watchers,
issues, pull requests, releases) are made up from its stars and forks, and grow with them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from astrid.simulators.scenarios import CALM, Scenario

if TYPE_CHECKING:
    from astrid.simulators.world import World

Block = Literal["gone", "dmca", "tos", "unavailable"]
_BLOCKS: Final[tuple[Block, ...]] = ("gone", "dmca", "tos", "unavailable")
_STRANGER_ID: Final = 2_000_000_000
_DAY_S: Final = 86_400


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
        return _existing(self._by_node.get(node_id), night)

    def by_number(self, database_id: int, night: date) -> Repository | None:
        """Return the repository of a numeric id."""
        return _existing(self._by_number.get(database_id), night)

    def by_name(self, name: str, night: date) -> Repository | None:
        """Return the repository that has this full name now; case does not matter."""
        return _existing(self._by_name.get(name.lower()), night)

    def by_former_name(self, name: str, night: date) -> Repository | None:
        """Return the repository that once had this name, if nobody has it now."""
        return _existing(self._former.get(name.lower()), night)

    def stars(self, repository: Repository, night: date) -> int | None:
        """Return the star count at the end of ``night``; None on a gap."""
        if repository.row is None:
            return 40 + (night - repository.created_on).days
        return self._value(self._world.stars, repository.row, night)

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

    def history(self, repository: Repository, night: date) -> list[dict[str, Any]]:
        """Return the weeks of ``/stargazers/history``, newest first, down to the week of creation.

        A week that the world does not know up to its end, or to ``night``, is not served (the real
        endpoint, too, is sometimes late with its newest week); days after ``night`` count 0.
        """
        if repository.row is None:
            return _stranger_history(repository, night)
        known = self._known[repository.row]
        if not known.size:
            return []
        last_known = self._world.first_day + timedelta(days=int(known[-1]))
        weeks, days = self._world.star_history(repository.row, night)
        rows = []
        for week, counts in zip(weeks.tolist(), days.tolist(), strict=True):
            saturday = date.fromordinal(date(1970, 1, 1).toordinal() + week // _DAY_S + 6)
            if min(saturday, night) <= last_known:
                rows.append({"week": week, "total": sum(counts), "days": counts})
        return rows

    def created_at(self, repository: Repository) -> str:
        """Return the moment of creation; the time of day is made up."""
        seconds = int.from_bytes(hashlib.blake2b(repository.node_id.encode(), digest_size=4).digest(), "big") % _DAY_S
        midnight = datetime.combine(repository.created_on, time(tzinfo=UTC))
        return _zulu(midnight + timedelta(seconds=seconds))

    def node(self, repository: Repository, night: date) -> dict[str, Any]:
        """Return the repository as a GraphQL object; a count that is a gap is None."""
        stars, forks = self.stars(repository, night), self.forks(repository, night)
        owner, _, short = repository.name.partition("/")
        touched = _zulu(datetime.combine(night, time(12, tzinfo=UTC)))
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
            "isArchived": False,
            "isDisabled": False,
            "isEmpty": False,
            "isFork": False,
            "isLocked": False,
            "isMirror": False,
            "isPrivate": False,
            "createdAt": self.created_at(repository),
            "updatedAt": touched,
            "pushedAt": touched,
            "watchers": _connection(None if stars is None else 1 + stars // 150),
            "issues": _connection(None if forks is None else forks // 12),
            "pullRequests": _connection(None if forks is None else forks // 20),
            "releases": _connection(None if stars is None else min(400, stars // 400)),
            "stargazers": _connection(stars),
        }


def _connection(total: int | None) -> dict[str, Any]:
    """Return a connection that counts and lists nothing, as GitHub's closed stargazer list does."""
    page = {"endCursor": None, "startCursor": None, "hasNextPage": False, "hasPreviousPage": False}
    return {"totalCount": total, "nodes": [], "edges": [], "pageInfo": page}


def _existing(repository: Repository | None, night: date) -> Repository | None:
    return repository if repository is not None and repository.created_on <= night else None


def _stranger_history(repository: Repository, night: date) -> list[dict[str, Any]]:
    """Return 40 stars on the day of creation and one a day from then on, as :meth:`Repositories.stars` counts."""
    rows: list[dict[str, Any]] = []
    sunday = repository.created_on - timedelta(days=repository.created_on.isoweekday() % 7)
    while sunday <= night:
        days = [0] * 7
        for n in range(7):
            day = sunday + timedelta(days=n)
            if repository.created_on <= day <= night:
                days[n] = 40 if day == repository.created_on else 1
        rows.append({"week": (sunday - date(1970, 1, 1)).days * _DAY_S, "total": sum(days), "days": days})
        sunday += timedelta(days=7)
    return rows[::-1]


def _zulu(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _draw(scenario: Scenario, what: str, node_id: str) -> float:
    digest = hashlib.blake2b(f"{scenario.seed}|{what}|{node_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _chosen(scenario: Scenario, what: str, node_id: str, share: float) -> bool:
    return share > 0 and _draw(scenario, what, node_id) < share
