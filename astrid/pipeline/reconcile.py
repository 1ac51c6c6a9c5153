"""Snapshots held against ``/stargazers/history``, week by week: two readings of one thing, their difference kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

from astrid.catalog import METRIC_BY_NAME
from astrid.pipeline.canaries import relative_difference
from astrid.pipeline.universe import Universe
from astrid.store import Reconciliation, Store


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many project-weeks could be compared, and the median and 95th percentile of the relative difference.

    Relative to the larger of the two weekly gains and 10; NaN if nothing could be compared.
    """

    weeks: int
    median: float
    p95: float

    def sentence(self) -> str:
        """Say it in one line."""
        if not self.weeks:
            return "Reconciliation: no project-week has both snapshots and history."
        return (
            f"Reconciliation of star snapshots with /stargazers/history: {self.weeks} project-weeks, "
            f"median difference {self.median:.1%}, 95th percentile {self.p95:.1%}."
        )


async def reconcile(store: Store, universe: Universe, first: date, last: date, now: datetime) -> Reconciled:
    """Compare every whole week (Sunday to Saturday, UTC) inside ``first`` .. ``last`` and keep the result.

    History counts stars that still stand, by the day they were given; snapshots also see stars taken
    back. A week counts where both ends have a snapshot and all seven days a history.
    """
    sunday = first + timedelta(days=(6 - first.weekday()) % 7)
    n_weeks = ((last - sunday).days + 1) // 7
    if n_weeks < 1 or not len(universe.entity_ids):
        return Reconciled(0, float("nan"), float("nan"))
    end = sunday + timedelta(days=7 * n_weeks - 1)
    ids = universe.entity_ids
    stars = await store.read_matrix(METRIC_BY_NAME["github_stars"].metric_id, ids, sunday - timedelta(days=1), end)
    gained = await store.read_matrix(METRIC_BY_NAME["github_stars_gained"].metric_id, ids, sunday, end)
    closes = stars[::7].astype(np.float64)
    moved = np.diff(closes, axis=0)
    totals = gained.astype(np.float64).reshape(n_weeks, 7, len(ids)).sum(axis=1)
    weeks, columns = np.nonzero(np.isfinite(moved) & np.isfinite(totals))
    await store.record_reconciliation(
        [
            Reconciliation(int(ids[c]), sunday + timedelta(days=7 * int(w)), float(totals[w, c]), float(moved[w, c]))
            for w, c in zip(weeks, columns, strict=True)
        ],
        now,
    )
    if not len(weeks):
        return Reconciled(0, float("nan"), float("nan"))
    a, b = totals[weeks, columns], moved[weeks, columns]
    relative = relative_difference(a, b)
    return Reconciled(len(weeks), float(np.median(relative)), float(np.quantile(relative, 0.95)))
