"""What all routes share: the settings, the store, what was read a moment ago, and the moment it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar
from weakref import WeakValueDictionary

from fastapi import Depends, Request

from api.problems import NOT_SCORED, UNKNOWN_CATEGORY, UNKNOWN_PROJECT, Problem, remedy_of, suggest
from astrid.settings import Settings
from astrid.store import CanaryRow, ProjectRow, ReconciledWeek, ScoreRow, Store
from astrid.timeline import night_of

T = TypeVar("T")

KEEP_S: Final = 5.0
"""How long a whole reading (the list of projects, a day's ranking) serves before it is read anew."""

KEPT_MAX: Final = 16
KEPT_PAST_MAX: Final = 8
RANKED_MAX: Final = 1_000_000

COMPARED_DAYS: Final = 41
"""The latest compared weeks are those with a Sunday in so many days up to the last one."""


@dataclass(frozen=True, slots=True)
class Directory:
    """All tracked projects by slug, and the categories in use with their number of projects."""

    projects: dict[str, ProjectRow]
    categories: dict[str, int]

    def project(self, slug: str) -> ProjectRow:
        """Return the project of a slug.

        Raises
        ------
        Problem
            If no project has it; the nearest slug is suggested.
        """
        found = self.projects.get(slug)
        if found is None:
            raise Problem(
                UNKNOWN_PROJECT,
                f"No tracked project has the slug {slug[:80]!r}.",
                field="slug",
                remedy=remedy_of(suggest(slug, self.projects), "/v1/projects lists every slug."),
            )
        return found

    def tracked(self, category: str | None) -> int:
        """Return how many projects are tracked, in one category or in all.

        Raises
        ------
        Problem
            If no project is in the category.
        """
        if category is None:
            return len(self.projects)
        if category not in self.categories:
            raise Problem(
                UNKNOWN_CATEGORY,
                f"No tracked project is in the category {category[:80]!r}.",
                field="category",
                remedy=remedy_of(suggest(category, self.categories), f"In use: {', '.join(sorted(self.categories))}."),
            )
        return self.categories[category]


@dataclass(frozen=True, slots=True)
class Board:
    """The whole ranking of one day, read in one go, so that every page of it tells of one moment.

    ``rows`` by rank. ``run_id`` is the last run that changed the ranking and ``as_of`` the moment it did:
    scores that came out equal again keep the run that first published them.
    """

    day: date
    rows: tuple[ScoreRow, ...]

    @property
    def run_id(self) -> int:
        """The last run that changed a score of this day."""
        return max(row.run_id for row in self.rows)

    @property
    def as_of(self) -> datetime:
        """When the last change of this day's scores was published (aware, UTC)."""
        return max(row.published_at for row in self.rows).astimezone(UTC)

    def of(self, category: str | None) -> tuple[ScoreRow, ...]:
        """Return the rows of one category, or all; ranks stay those among all projects."""
        return self.rows if category is None else tuple(row for row in self.rows if row.category == category)

    def row(self, slug: str) -> ScoreRow | None:
        """Return one project's row, or None where it is not ranked."""
        return next((row for row in self.rows if row.slug == slug), None)


class State:
    """One application's state; safe to share between the requests of one event loop."""

    def __init__(
        self, settings: Settings, store: Store | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._store = store
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        # Apart, so that who asks for many moments does not push out what everybody asks for.
        self._kept_past: dict[Hashable, tuple[float, Any]] = {}
        self._settled: datetime | None = None
        # One lock a reading: a long one holds up nobody who wants another.
        self._reading: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self.universe = asyncio.Lock()
        """Held by whoever reads a whole universe: one after another, so that connections are left for the others."""

    @property
    def store(self) -> Store:
        """The open store."""
        if self._store is None:
            raise RuntimeError("the store is opened by the application's lifespan, which has not run")
        return self._store

    def open(self, store: Store) -> None:
        """Take the store that the lifespan opened."""
        self._store = store

    def now(self) -> datetime:
        """Return the moment that is now for a reader: ``ASTRID_NOW`` where it is set, else the clock."""
        return self.settings.now or datetime.now(UTC)

    async def is_settled(self, moment: datetime) -> bool:
        """Tell whether all that is answered as of a moment from now on is final; then it is so of earlier ones too."""
        if self._settled is None or moment > self._settled:
            if not await self.store.is_settled(moment, self.now()):
                return False
            self._settled = moment
        return True

    async def keep_past(
        self, key: Hashable, as_of: datetime | None, read: Callable[[], Awaitable[T]], keep_s: float = KEEP_S
    ) -> T:
        """Keep a reading as of a moment (None: of now) as ``keep`` does, but for one that may not be final yet."""
        if as_of is None:
            return await self.keep(key, keep_s, read)
        if not await self.is_settled(as_of):
            return await read()
        found = self._kept_past.get((key, as_of))
        if found is None or self._clock() - found[0] >= keep_s:
            found = (self._clock(), await read())
            self._kept_past.pop((key, as_of), None)
            self._kept_past[key, as_of] = found
            while len(self._kept_past) > KEPT_PAST_MAX:
                del self._kept_past[next(iter(self._kept_past))]
        value: T = found[1]
        return value

    async def keep(self, key: Hashable, keep_s: float, read: Callable[[], Awaitable[T]]) -> T:
        """Return what ``read`` gave at most ``keep_s`` ago; requests that come together cause one reading."""
        found = self._kept.get(key)
        if found is None or self._clock() - found[0] >= keep_s:
            lock = self._reading.get(key)
            if lock is None:
                lock = self._reading[key] = asyncio.Lock()
            async with lock:
                found = self._kept.get(key)
                if found is None or self._clock() - found[0] >= keep_s:
                    found = (self._clock(), await read())
                    self._kept.pop(key, None)
                    self._kept[key] = found
                    while len(self._kept) > KEPT_MAX:
                        del self._kept[next(iter(self._kept))]
        value: T = found[1]
        return value

    async def directory(self, as_of: datetime | None = None) -> Directory:
        """Return all tracked projects."""

        async def read() -> Directory:
            rows = await self.store.read_projects(as_of=as_of)
            categories: dict[str, int] = {}
            for row in rows:
                categories[row.category] = categories.get(row.category, 0) + 1
            return Directory({row.slug: row for row in rows}, dict(sorted(categories.items())))

        return await self.keep_past("directory", as_of, read)

    async def scored_day(self, as_of: datetime | None = None) -> date | None:
        """Return the last day that has scores, or None."""
        return await self.keep_past("scored day", as_of, lambda: self.store.latest_scored_day(as_of=as_of))

    async def board(self, day: date | None = None, as_of: datetime | None = None) -> Board:
        """Return the ranking of a day, or of the last scored one.

        Raises
        ------
        Problem
            If that day has no ranking.
        """
        last = await self.scored_day(as_of)
        wanted = day or last
        board: Board | None = None
        if wanted is not None and last is not None and wanted <= last:

            async def read() -> Board | None:
                rows = await self.store.read_leaderboard(wanted, None, RANKED_MAX, 0, as_of=as_of)
                return Board(wanted, tuple(rows)) if rows else None

            board = await self.keep_past(("board", wanted), as_of, read)
        if board is None:
            raise _unscored(day, wanted, last, as_of)
        return board

    async def verdicts(self, day: date | None = None, as_of: datetime | None = None) -> list[CanaryRow]:
        """Return what the canaries said on the night of a day (None: of the last judged one); empty if unjudged."""
        return await self.keep_past(("verdicts", day), as_of, lambda: self.store.read_canaries(day, as_of=as_of))

    async def compared_weeks(self, as_of: datetime | None = None) -> list[ReconciledWeek]:
        """Return the latest compared weeks of all projects."""
        last = await self.last_day(as_of)

        async def read() -> list[ReconciledWeek]:
            return await self.store.read_reconciled_weeks(last - timedelta(days=COMPARED_DAYS - 1), last, as_of=as_of)

        return await self.keep_past(("weeks", last), as_of, read)

    async def last_day(self, as_of: datetime | None = None) -> date:
        """Return the last day worth asking for: the last that is over, or a later one that is scored."""
        over = night_of(as_of or self.now())
        scored = await self.scored_day(as_of)
        return max(over, scored) if scored else over


def _unscored(day: date | None, wanted: date | None, last: date | None, as_of: datetime | None) -> Problem:
    """Return the problem of a day without a ranking; ``day`` is what was asked for, ``last`` the last scored one."""
    then = f", as of {as_of:%Y-%m-%dT%H:%M:%SZ}" if as_of else ""
    if last:
        remedy = f"The last scored day is {last}{then}."
    else:
        remedy = "Give a later as_of." if as_of else "Run `astrid nightly`, or `astrid demo`."
    return Problem(
        NOT_SCORED,
        f"No project is ranked on {wanted}{then}." if wanted else f"No day has been scored yet{then}.",
        field="day" if day else "as_of" if as_of else None,
        remedy=remedy,
    )


def state_of(request: Request) -> State:
    """Return the state of the application that a request is for."""
    state: State = request.app.state.astrid
    return state


Shared = Annotated[State, Depends(state_of)]
