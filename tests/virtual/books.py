"""What a simulated year keeps: the store's promises over dictionaries, so that thousands of nights need no database.

Only what a worker and a plan need of the store is here. That PostgreSQL keeps the same promises is the store
tier's business; here they are the measure that planner, budgets, workers and broker are held against.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from astrid.catalog import ORIGIN_BY_ID
from astrid.errors import StoreError
from astrid.models import Batch, DeadLetter, Done, Gap, Identity, Observations, Split
from astrid.pipeline.plan import NOT_ASKED
from astrid.store import Begun, CommitCounts, Progress, ProjectRow, RunRow

Key = tuple[int, int, date]
"""(metric_id, entity_id, day)"""


@dataclass
class Books:
    """Values and gaps by key, the batches of the run at hand and all that were ever settled, and what must not happen.

    ``lapses`` gives the chance that a commit fails, before or after it took effect.
    """

    draw: random.Random
    lapses: float = 0.0
    values: dict[Key, tuple[float, int]] = field(default_factory=dict)
    gaps: dict[Key, tuple[Gap, datetime]] = field(default_factory=dict)
    identities: dict[int, Identity] = field(default_factory=dict)
    batches: dict[str, tuple[Batch, str]] = field(default_factory=dict)
    settled: dict[str, str] = field(default_factory=dict)
    nights: set[date] = field(default_factory=set)
    starts: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    commits: int = 0
    wrong: list[str] = field(default_factory=list)

    def plan(self, batches: Sequence[Batch]) -> None:
        """Begin a run: its batches are planned."""
        self.batches = {b.batch_id: (b, "planned") for b in batches}
        self.nights.update(b.day for b in batches)
        for batch_id in self.batches:
            self.settled.pop(batch_id, None)
        if len(self.batches) != len(batches):
            self.wrong.append("two batches of one plan have the same id")

    async def progress(self, run_id: int) -> list[Progress]:
        """Count the run's batches by source and state."""
        counts = Counter((b.source, state) for b, state in self.batches.values())
        return [Progress(source, state, n, 0) for (source, state), n in sorted(counts.items())]

    async def begin_batch(self, batch: Batch, hold_s: float, now: datetime, *, suspect: bool = False) -> Begun:
        """Tell how a batch stands, and count the starts of a suspect."""
        self.starts[batch.batch_id] += suspect
        return Begun(self.settled.get(batch.batch_id, "planned"), self.starts[batch.batch_id])

    async def expect_batch(self, batch: Batch, delay_s: float) -> None:
        """Note that a batch left its worker alive."""
        self.starts.pop(batch.batch_id, None)

    async def mark_published(self, run_id: int, batch_ids: Sequence[str]) -> None:
        """Nobody asks for it here."""

    async def commit_batch(
        self, batch: Batch, outcome: Done | Split | DeadLetter, now: datetime, gaps: Sequence[Gap] = ()
    ) -> CommitCounts:
        """Settle a batch once, as the store does; sometimes fail on the way, with or without having done it."""
        lapse = self.draw.random()
        if lapse < self.lapses / 2:
            raise StoreError("the connection broke before the commit")
        counts = self._settle(batch, outcome, now, gaps)
        if lapse < self.lapses:
            raise StoreError("the connection broke after the commit, before its confirmation")
        return counts

    def _settle(
        self, batch: Batch, outcome: Done | Split | DeadLetter, now: datetime, gaps: Sequence[Gap]
    ) -> CommitCounts:
        # A batch of an earlier night may come once more, if its acknowledgement was lost; it must be settled then.
        if batch.batch_id not in self.batches and batch.batch_id not in self.settled:
            self.wrong.append(f"{batch.source} {batch.task}: a batch of no plan was committed")
        state = self.settled.get(batch.batch_id, "planned")
        if state in ("done", "split") or (state == "dead" and isinstance(outcome, DeadLetter)):
            return CommitCounts(already=True, state=state)
        self.commits += 1
        match outcome:
            case Done(observations=found, requests=requests):
                self.requests += requests
                self._write(found)
                self.enter([*found.gaps, *gaps], now)
                self._state(batch, "done")
            case Split(parts=parts):
                for part in parts:
                    self.batches.setdefault(part.batch_id, (part, "planned"))
                self.enter(gaps, now)
                self._state(batch, "split")
            case DeadLetter():
                self.enter(gaps, now)
                self._state(batch, "dead")
        return CommitCounts()

    def _state(self, batch: Batch, state: str) -> None:
        self.settled[batch.batch_id] = state
        if batch.batch_id in self.batches:
            self.batches[batch.batch_id] = (batch, state)

    def _write(self, found: Observations) -> None:
        columns = (found.metric_id, found.entity_id, found.day, found.value, found.origin_id)
        seen: set[Key] = set()
        for metric_id, entity_id, day, value, origin_id in zip(*(c.tolist() for c in columns), strict=True):
            key = (metric_id, entity_id, day)
            if key in seen or not 0 <= value < float("inf"):
                self.wrong.append(f"{key}: {value} stands twice in one batch, or is no count")
            seen.add(key)
            stored = self.values.get(key)
            if stored is None or _precedence(origin_id) <= _precedence(stored[1]):
                self.values[key] = (value, origin_id)
            self.gaps.pop(key, None)
        for identity in found.identities:
            if identity.platform == "github":
                self.identities[identity.entity_id] = identity

    def enter(self, gaps: Sequence[Gap], now: datetime) -> None:
        """Enter expected values that did not come, unless they have come; who was not asked takes no try's place."""
        for gap in gaps:
            key = (gap.metric_id, gap.entity_id, gap.day)
            if not gap.reason:
                self.wrong.append(f"{key}: a gap without a reason")
            known = self.gaps.get(key)
            tried = known is not None and not known[0].reason.startswith(NOT_ASKED)
            if key not in self.values and not (tried and gap.reason.startswith(NOT_ASKED)):
                self.gaps[key] = (replace(gap), now)

    # What ``astrid.pipeline.night.read_missing`` asks of the store

    async def read_waiting_gaps(self, first: date, last: date, asked_after: datetime, unasked: str) -> set[Key]:
        """See :meth:`astrid.store.Store.read_waiting_gaps`."""
        return {
            key
            for key, (gap, at) in self.gaps.items()
            if first <= gap.day <= last and (not gap.retry or (at > asked_after and not gap.reason.startswith(unasked)))
        }

    async def read_last_tries(self, first: date, last: date, unasked: str) -> list[tuple[int, int, bool, date]]:
        """See :meth:`astrid.store.Store.read_last_tries`."""
        tries: dict[tuple[int, int, bool], date] = {}
        for gap, _ in self.gaps.values():
            if first <= gap.day <= last and not gap.reason.startswith(unasked):
                key = (gap.metric_id, gap.entity_id, gap.retry)
                tries[key] = max(gap.day, tries.get(key, gap.day))
        return [(*key, day) for key, day in tries.items()]

    async def read_feeds(self, metric_ids: Sequence[int], first: date, last: date) -> list[tuple[int, int, date]]:
        """See :meth:`astrid.store.Store.read_feeds`."""
        feeds: dict[tuple[int, int], date] = {}
        for (metric_id, _, day), (_, origin_id) in self.values.items():
            if first <= day <= last and metric_id in metric_ids:
                feeds[metric_id, origin_id] = max(day, feeds.get((metric_id, origin_id), day))
        return [(*key, day) for key, day in feeds.items()]

    async def read_last_days(self, metric_ids: Sequence[int], first: date, last: date) -> list[tuple[int, int, date]]:
        """See :meth:`astrid.store.Store.read_last_days`."""
        return await self.read_feeds(metric_ids, first, last)

    async def read_runs(self, limit: int) -> list[RunRow]:
        """See :meth:`astrid.store.Store.read_runs`: nights that had something to do, and here all of them end."""
        at = datetime.min.replace(tzinfo=UTC)
        days = sorted(self.nights, reverse=True)[:limit]
        return [RunRow(0, "nightly", day, "gaps", "", "", at, at, 0, 0, {}, "") for day in days]

    async def read_projects(self) -> list[ProjectRow]:
        """Nobody came later than another."""
        return []

    async def read_open_gaps(self, first: date, last: date) -> list[Gap]:
        """See :meth:`astrid.store.Store.read_open_gaps`."""
        return [gap for gap, _ in self.gaps.values() if first <= gap.day <= last]

    async def read_percentiles(self) -> dict[int, float]:
        """Nobody is worth more than another."""
        return {}

    async def read_missing(
        self, metric_id: int, entity_ids: npt.NDArray[np.int32], first: date, last: date
    ) -> npt.NDArray[np.bool_]:
        """See :meth:`astrid.store.Store.read_missing`: bool (days, entities)."""
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        return np.array([[(metric_id, int(e), d) not in self.values for e in entity_ids] for d in days], dtype=np.bool_)


def _precedence(origin_id: Any) -> int:
    return ORIGIN_BY_ID[int(origin_id)].precedence
