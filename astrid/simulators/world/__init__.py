"""The demo's world: real daily series of open-source AI repositories, packages and stories, shipped as package data.

``README.md`` beside this module names the sources, their licences and defects, and says which numbers are
interpolated or made up.
"""

from __future__ import annotations

import lzma
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from astrid.errors import Malformed
from astrid.models import Story
from astrid.simulators.world.history import HistoryPart, daily_gains, weekly_rows
from astrid.simulators.world.packing import unpack_json, unpack_panels

__all__ = ["PypiWindow", "RepoFacts", "World", "load_pypi_windows", "load_world"]


@dataclass(frozen=True)
class RepoFacts:
    """One repository: its current full name, older full names (oldest first), ids, and where its history starts.

    ``node_id`` and ``database_id`` are made up. ``created_on`` is the day from which the simulated star
    history runs; :attr:`World.created_estimated` says where it is an estimate.
    """

    name: str
    former: tuple[str, ...]
    node_id: str
    database_id: int
    created_on: date


@dataclass(frozen=True)
class PypiWindow:
    """One real total window: both days inclusive, and the day of the snapshot that stated it."""

    snapshot: date
    start: date
    end: date


@dataclass(frozen=True, eq=False, repr=False)
class World:
    """What really happened, day by day; T days from ``first_day``, N repositories, P packages.

    ``stars`` and ``forks`` int32 (N, T) and ``downloads`` int64 (P, T) hold -1 on a day without a value:
    a gap, never a zero. ``origin`` int8 (N, T) is the catalogue's origin id of a repository's row of that
    day, 0 on a gap. ``stories`` are sorted by (created_at, story_id), with their final points and comments.
    ``created_estimated`` bool (N,) is true where ``created_on`` is not stated by any source. Arrays are read-only.
    """

    first_day: date
    repos: tuple[RepoFacts, ...]
    stars: npt.NDArray[np.int32]
    forks: npt.NDArray[np.int32]
    origin: npt.NDArray[np.int8]
    stories: tuple[Story, ...]
    packages: tuple[str, ...]
    downloads: npt.NDArray[np.int64]
    created_estimated: npt.NDArray[np.bool_]
    _gains: dict[int, HistoryPart] = field(default_factory=dict, init=False, repr=False)

    @property
    def days(self) -> int:
        """The number of days T."""
        return int(self.stars.shape[1])

    @property
    def last_day(self) -> date:
        """The last day of the panels."""
        return self.first_day + timedelta(days=self.days - 1)

    def day_index(self, day: date) -> int:
        """Return the column of ``day``; ``IndexError`` outside ``first_day`` .. ``last_day``."""
        t = (day - self.first_day).days
        if not 0 <= t < self.days:
            raise IndexError(f"{day} is outside the world, which runs from {self.first_day} to {self.last_day}")
        return t

    @cached_property
    def repo_index(self) -> Mapping[str, int]:
        """Row by lower-case full name, current and former; a current name goes before another's former one."""
        rows = {old.lower(): i for i, repo in enumerate(self.repos) for old in repo.former}
        rows.update((repo.name.lower(), i) for i, repo in enumerate(self.repos))
        return rows

    @cached_property
    def node_index(self) -> Mapping[str, int]:
        """Row by node id."""
        return {repo.node_id: i for i, repo in enumerate(self.repos)}

    @cached_property
    def package_index(self) -> Mapping[str, int]:
        """Row of ``downloads`` by normalised package name."""
        return {name: p for p, name in enumerate(self.packages)}

    def stories_between(self, start: datetime, end: datetime) -> tuple[Story, ...]:
        """Return the stories created at ``start`` or later and before ``end`` (aware datetimes)."""
        lo, hi = bisect_left(self._story_times, start), bisect_left(self._story_times, end)
        return self.stories[lo:hi]

    @cached_property
    def _story_times(self) -> list[datetime]:
        return [story.created_at for story in self.stories]

    def star_history(self, i: int, until_day: date) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Return repository ``i``'s weekly star gains up to ``until_day`` as ``/stargazers/history`` states them.

        Returns
        -------
        weeks : int64 (W,)
            Epoch seconds of Sunday 00:00 UTC, newest week first, without holes, ending at the creation week.
        days : int32 (W, 7)
            Stars gained from Sunday to Saturday. Days before ``created_on`` and after ``until_day`` are 0.

        Notes
        -----
        A day's gain is its snapshot less the one before. The gain over a gap is spread evenly over the days of
        the gap and the day that ends it. A fall is clipped to 0: upstream counts stars that still stand by the
        day on which they were given, and does not say when others were taken back. The first snapshot is spread
        evenly from ``created_on``. After a repository's last snapshot its gains are unknown and stated as 0;
        nothing is returned after ``last_day``. Before ``created_on`` both arrays are empty.
        """
        part = self._gains.get(i)
        if part is None:
            part = self._gains[i] = daily_gains(self.stars[i], self.first_day, self.repos[i].created_on)
        return weekly_rows(part, min(until_day, self.last_day))


@lru_cache(maxsize=1)
def load_world() -> World:
    """Return the shipped world; read once per process and shared, so treat it as constant.

    Raises
    ------
    Malformed
        If the package data are missing or damaged: install the package again.
    """
    return read_world(resources.files(__name__))


def read_world(folder: Traversable) -> World:
    """Return the world whose files lie in ``folder``; raises as :func:`load_world` does."""
    facts, panels, tales = (_read(folder, name) for name in ("facts.json.xz", "panels.npz.xz", "stories.json.xz"))
    return World(
        first_day=date.fromisoformat(facts["first_day"]),
        repos=tuple(_repo(entry) for entry in facts["repos"]),
        stars=panels["stars"],
        forks=panels["forks"],
        origin=panels["origin"],
        stories=_stories(tales),
        packages=tuple(facts["packages"]),
        downloads=panels["downloads"],
        created_estimated=np.array([r["created_estimated"] for r in facts["repos"]], dtype=np.bool_),
    )


def load_pypi_windows() -> tuple[tuple[PypiWindow, ...], npt.NDArray[np.int64]]:
    """Return the W real windows behind ``World.downloads`` and their totals, int64 (P, W), -1 where not listed."""
    folder = resources.files(__name__)
    facts, panels = _read(folder, "facts.json.xz"), _read(folder, "panels.npz.xz")
    windows = tuple(PypiWindow(*(date.fromisoformat(day) for day in window)) for window in facts["windows"])
    return windows, panels["window_totals"]


def _read(folder: Traversable, name: str) -> Any:
    try:
        packed = (folder / name).read_bytes()
        return unpack_panels(packed) if name.endswith(".npz.xz") else unpack_json(packed)
    except (OSError, lzma.LZMAError, orjson.JSONDecodeError, ValueError) as exc:
        raise Malformed(f"the demo's package data {name} cannot be read: install the package again") from exc


def _repo(entry: Mapping[str, Any]) -> RepoFacts:
    created_on = date.fromisoformat(entry["created_on"])
    return RepoFacts(entry["name"], tuple(entry["former"]), entry["node_id"], entry["database_id"], created_on)


def _stories(tales: Any) -> tuple[Story, ...]:
    ids = np.cumsum(np.asarray(tales["story_id_steps"], dtype=np.int64)).tolist()
    minutes = np.cumsum(np.asarray(tales["created_minute_steps"], dtype=np.int64)).tolist()
    return tuple(
        Story(story_id, datetime.fromtimestamp(60 * minute, UTC), title, url, points, comments)
        for story_id, minute, title, url, points, comments in zip(
            ids, minutes, tales["title"], tales["url"], tales["points"], tales["comments"], strict=True
        )
    )
