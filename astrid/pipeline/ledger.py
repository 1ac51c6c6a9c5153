"""What was expected, what came, and why the rest did not. Pure.

Expected is derived: whom nights ask a task for since when (``expectation``), on which days the task owes a value (the
catalogue and the sources' tasks), and what any run asked for in vain (``gap``). Missing is expected minus observed; a
missing day without a row in the ledger is explained by the nights: its own is still to come, did not run, or did not
ask. When it will be asked for again says :mod:`astrid.pipeline.tries`; see docs/adr/0022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import Metric
from astrid.sources import SOURCES
from astrid.sources.source import Task
from astrid.store import Expected, GapMarks
from astrid.timeline import night_of, night_start

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Why(IntEnum):
    """Why an expected value is not there; ``ROW``: the ledger has a row with the reason."""

    NOTHING = 0
    ROW = 1
    NIGHT_TO_COME = 2
    TURN_TO_COME = 3
    NO_NIGHT = 4
    NOT_ASKED = 5
    UNEXPLAINED = 6


WAITING: Final = (Why.NIGHT_TO_COME, Why.TURN_TO_COME)
"""Nothing has failed: nobody could have asked yet."""

REASONS: Final[Mapping[Why, str]] = {
    Why.NIGHT_TO_COME: "its night is still to come",
    Why.TURN_TO_COME: "its turn is still to come: it is asked for once in several nights",
    Why.NO_NIGHT: "the night that would have asked for it did not run to its end",
    Why.NOT_ASKED: "its night asked nothing of this kind",
    Why.UNEXPLAINED: "its night asked and left neither value nor reason",
}
"""Reasons that are derived, where no row of the ledger states one."""


@dataclass(frozen=True, slots=True)
class Nights:
    """What is known of the nights: ``over`` is the last day that is over, ``next`` the day of the next night, ``ended``
    the days of those that ran to an end, ``asked`` by (source, task) the nights that planned to ask for it."""

    over: date
    next: date
    ended: frozenset[date]
    asked: Mapping[tuple[str, str], frozenset[date]]


@dataclass(frozen=True, slots=True)
class Cells:
    """One metric of some entities on some days: arrays (T, N), a row per day from ``first`` on, a column per entity.

    ``expected`` and ``observed`` are bool, ``late`` says that an observed value came after it had been entered as
    missing, ``why`` (uint8) holds a :class:`Why` where a value is expected and absent.
    """

    metric: Metric
    first: date
    expected: Bools
    observed: Bools
    late: Bools
    why: npt.NDArray[np.uint8]

    @property
    def waiting(self) -> Bools:
        """What is not there, and nobody could have asked for yet."""
        return np.isin(self.why, WAITING)

    @property
    def missing(self) -> Bools:
        """What should be there and is not."""
        return np.asarray((self.why != Why.NOTHING) & ~self.waiting)


def next_night(now: datetime, ran: Mapping[date, bool]) -> date:
    """Return the day of the next night: the day that is just over, unless its night was run.

    ``ran`` says of days with a night whether one ran to its end. A night that failed is followed by the next day's.
    """
    over = night_of(now)
    done = ran.get(over)
    return over + timedelta(days=1) if done or (done is False and now >= night_start(over)) else over


def tasks_of(metric: Metric) -> list[Task]:
    """Return the tasks of a metric's own source by which nights fill it, those with which it only comes along too."""
    tasks = SOURCES[metric.source].tasks.values()
    return [task for task in tasks if task.cadence_days and metric.name in (*task.metrics, *task.also)]


def judge(
    metric: Metric,
    entity_ids: npt.NDArray[np.int32],
    first: date,
    observed: Bools,
    asked: Sequence[Expected],
    marks: GapMarks,
    nights: Nights,
) -> Cells:
    """Say of every day of a metric whether a value is expected and whether it is there, and if not, why.

    Parameters
    ----------
    entity_ids
        int32 (N,), ascending.
    observed
        bool (T, N), the days from ``first`` on.
    asked
        Whom nights ask, of any tasks.
    marks
        Rows of the ledger, of any metrics, entities and days.
    """
    expected = np.zeros(observed.shape, np.bool_)
    why = np.full(observed.shape, Why.UNEXPLAINED, np.uint8)
    days = (first.toordinal() + np.arange(observed.shape[0], dtype=np.int64))[:, None]
    for task in tasks_of(metric):
        if metric.name not in task.metrics:
            continue  # comes along where there is one, and nobody expects it
        turn = days + (-(entity_ids.astype(np.int64) + days)) % task.cadence_days
        own = np.zeros(observed.shape, np.bool_)
        for row in asked:
            if (row.source, row.task) == (metric.source, task.name):
                columns, known = _columns(entity_ids, np.array(row.entity_ids, np.int32))
                columns = columns[known]
                # Who is dropped before its turn was never to be asked for the days until then.
                kept = turn[:, columns] <= (row.last_day or date.max).toordinal()
                own[:, columns] |= kept & (days >= row.first_day.toordinal()) & (days <= nights.over.toordinal())
        if task.timing == "snapshot":
            own &= turn == days
        expected |= own
        why[own] = _explain(days, turn, nights, (metric.source, task.name))[own]
    rows, healed = _place(metric, entity_ids, first, observed.shape, marks)
    expected |= rows | healed
    why[rows] = Why.ROW
    why[observed | ~expected] = Why.NOTHING
    return Cells(metric, first, expected, observed, observed & healed, why)


def _explain(days: Ints, turn: Ints, nights: Nights, task: tuple[str, str]) -> npt.NDArray[np.uint8]:
    """Return why there is nothing, by the first night that would have asked for it: that of the entity's turn."""
    if not turn.size:
        return np.zeros(turn.shape, np.uint8)
    low, high = int(days.min()), int(turn.max())
    ended, asked = (_flags(known, low, high)[turn - low] for known in (nights.ended, nights.asked.get(task, ())))
    past = np.where(ended, np.where(asked, Why.UNEXPLAINED, Why.NOT_ASKED), Why.NO_NIGHT)
    coming = np.where(turn == days, Why.NIGHT_TO_COME, Why.TURN_TO_COME)
    return np.where(turn >= nights.next.toordinal(), coming, past).astype(np.uint8)


def _flags(known: Sequence[date] | frozenset[date], low: int, high: int) -> Bools:
    flags = np.zeros(high - low + 1, np.bool_)
    for day in known:
        if low <= day.toordinal() <= high:
            flags[day.toordinal() - low] = True
    return flags


def _place(
    metric: Metric, entity_ids: npt.NDArray[np.int32], first: date, shape: tuple[int, ...], marks: GapMarks
) -> tuple[Bools, Bools]:
    """Return where the ledger has open rows of a metric, and where healed ones."""
    columns, known = _columns(entity_ids, marks.entity_id)
    at = (marks.day - np.datetime64(first, "D")).astype(np.int64)
    known &= (marks.metric_id == metric.metric_id) & (at >= 0) & (at < shape[0])
    rows, healed = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    rows[at[known & ~marks.healed], columns[known & ~marks.healed]] = True
    healed[at[known & marks.healed], columns[known & marks.healed]] = True
    return rows, healed


def _columns(entity_ids: npt.NDArray[np.int32], wanted: npt.NDArray[np.int32]) -> tuple[Ints, Bools]:
    """Return the column of each wanted entity, and whether it has one."""
    if not len(entity_ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(entity_ids, wanted), len(entity_ids) - 1)
    return at, np.asarray(entity_ids[at] == wanted)
