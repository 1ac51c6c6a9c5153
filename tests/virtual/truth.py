"""What GitHub could have told: the values of a night, read from the simulated upstream itself and by no client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from astrid.catalog import METRIC_BY_NAME
from astrid.models import Gap
from astrid.pipeline.plan import NOT_ASKED
from astrid.simulators.repositories import Repositories, Repository
from astrid.simulators.scenarios import Scenario
from astrid.simulators.world import World
from tests.virtual.books import Books, Key

Reader = Callable[[Repositories, Repository, date, date], int | None]
"""``read(repositories, repository, day, night)``: the count of a day as of a night, None where GitHub has none."""


def _total(connection: str) -> Reader:
    def read(repositories: Repositories, repository: Repository, day: date, night: date) -> int | None:
        total: int | None = repositories.node(repository, night)[connection]["totalCount"]
        return total if day == night else None

    return read


def _stars(repositories: Repositories, repository: Repository, day: date, night: date) -> int | None:
    return repositories.stars(repository, night) if day == night else None


def _forks(repositories: Repositories, repository: Repository, day: date, night: date) -> int | None:
    return repositories.forks(repository, night) if day == night else None


def _commits(repositories: Repositories, repository: Repository, day: date, night: date) -> int | None:
    first = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return repositories.commits(repository, first, first + timedelta(days=1, seconds=-1), night)


def _gained(repositories: Repositories, repository: Repository, day: date, night: date) -> int | None:
    if repositories.has(repository, "ancient"):
        return None
    for week in repositories.history(repository, night):
        sunday = datetime.fromtimestamp(week["week"], UTC).date()
        if 0 <= (day - sunday).days < 7:
            return int(week["days"][(day - sunday).days])
    return None


READERS: Mapping[str, Reader] = {
    "github_stars": _stars,
    "github_forks": _forks,
    "github_watchers": _total("watchers"),
    "github_open_issues": _total("issues"),
    "github_open_pulls": _total("pullRequests"),
    "github_releases": _total("releases"),
    "github_commits": _commits,
    "github_stars_gained": _gained,
}


class Truth:
    """A world's repositories as GitHub has them on a night, whatever the weather of single requests."""

    def __init__(self, world: World, scenario: Scenario, night: date) -> None:
        self._repositories = Repositories(world, replace(scenario, probability=0.0, faults=()))
        self._night = night
        self._known: dict[tuple[str, str, date], int | None] = {}

    def value(self, name: str, metric: str, day: date) -> int | None:
        """Return what GitHub serves of a metric under a node id or ``owner/name``; None where it serves nothing."""
        key = (name, metric, day)
        if key not in self._known:
            found = self._repositories.by_node(name, self._night) or self._repositories.by_name(name, self._night)
            found = found or self._repositories.by_former_name(name, self._night)
            seen = found is not None and found.block is None
            self._known[key] = READERS[metric](self._repositories, found, day, self._night) if found and seen else None
        return self._known[key]


def check(books: Books, truth: Truth, asked: Mapping[int, str], metrics: Collection[str], day: date) -> list[str]:
    """Return what is wrong with the books of a night on which ``metrics`` of all in ``asked`` were wanted for ``day``.

    ``asked`` is what each entity was asked for by: a node id, or a name.

    What stands is what GitHub serves, on any day. Of the day that was wanted, what GitHub could give stands, unless
    the plan said that there was no room to ask for it; everything else is in the ledger with its reason.
    """
    ids = {METRIC_BY_NAME[m].metric_id: m for m in metrics}
    wrong = []
    for (metric_id, entity_id, of), (value, _) in books.values.items():
        true = truth.value(asked[entity_id], ids[metric_id], of) if metric_id in ids else None
        if value != true:
            wrong.append(f"{ids.get(metric_id)} of {asked[entity_id]} on {of} is {value}, GitHub has {true}")
    for metric_id, metric in ids.items():
        for entity_id, name in asked.items():
            key: Key = (metric_id, entity_id, day)
            if key in books.values:
                continue
            gap: Gap | None = books.gaps[key][0] if key in books.gaps else None
            if gap is None:
                wrong.append(f"{metric} of {name} is neither in the store nor in the ledger")
            elif truth.value(name, metric, day) is not None and not gap.reason.startswith(NOT_ASKED):
                wrong.append(f"{metric} of {name} could be had and is not there: {gap.reason}")
    return wrong
