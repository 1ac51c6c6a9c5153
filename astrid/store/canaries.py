"""Verdicts on upstreams night by night, what they keep out of scores, and the weeks of two witnesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from astrid.store.pool import Connection
from astrid.store.queries import load_queries
from astrid.store.rows import CanaryRow, ReconciledWeek
from astrid.store.vintages import fetch_as_of

_SQL: Final = load_queries("canaries")

OPEN: Final = 2**63 - 1
"""The end of what has not ended: later than any run."""

COUNTS, AT_NEED, OUT = 0, 1, 2
"""What becomes of a value: it counts; it counts where nothing older does; it does not."""


@dataclass(frozen=True, slots=True)
class Episode:
    """From ``violated_run`` to before ``end_run`` a source was violated: nothing that these runs wrote counts.

    The runs from ``first_run`` on wrote while it went wrong unnoticed. What they wrote for ``first_day`` and later does
    not count; where they replaced older values, these do.
    """

    first_run: int
    violated_run: int
    end_run: int = OPEN
    first_day: date = date.max
    last_day: date = date.max


@dataclass(frozen=True, slots=True)
class KeptOut:
    """What of a source does not count, and the day from which on it counts as an operator accepted it (None: always).

    False where all counts.
    """

    episodes: tuple[Episode, ...] = ()
    accepted_from: date | None = None

    def __bool__(self) -> bool:
        return bool(self.episodes)

    def doubting(self, run_id: int) -> KeptOut:
        """Return the same, and where a run from ``run_id`` on replaced a value that counts, the replaced one does."""
        return replace(self, episodes=(*self.episodes, Episode(run_id, OPEN)))

    def before(self, run_id: int) -> KeptOut:
        """Return the same, and nothing counts that a run from ``run_id`` on wrote."""
        return replace(self, episodes=(*self.episodes, Episode(run_id, run_id)))

    @property
    def first_run(self) -> int:
        """The first run of which not all counts."""
        return min((e.first_run for e in self.episodes), default=OPEN)

    def judge(self, run_id: npt.NDArray[np.int64], day: npt.NDArray[np.int64], epoch: date) -> npt.NDArray[np.int8]:
        """Return COUNTS, AT_NEED or OUT per value by the run that wrote it and its day, counted from ``epoch``."""
        found = np.full(len(run_id), COUNTS, np.int8)
        for e in self.episodes:
            found[(run_id >= e.violated_run) & (run_id < e.end_run)] = OUT
            early = (run_id >= e.first_run) & (run_id < e.violated_run)
            late_day = day >= (e.first_day - epoch).days
            found[early & late_day] = OUT
            np.maximum(found, np.int8(AT_NEED), out=found, where=early & ~late_day)
        return found


async def write_verdicts(connection: Connection, rows: Sequence[CanaryRow]) -> None:
    """See :meth:`astrid.store.Store.write_verdicts`."""
    for run_id, now, day in sorted({(row.run_id, row.judged_at, row.day) for row in rows}):
        own = [row for row in rows if (row.run_id, row.judged_at, row.day) == (run_id, now, day)]
        fields = ("source", "name", "state", "value", "low", "high", "reason", "first_day")
        columns = [[getattr(row, name) for row in own] for name in fields]
        await connection.execute(_SQL["write_verdicts"], run_id, now, day, *columns)


async def read_canaries(connection: Connection, day: date | None, as_of: datetime | None) -> list[CanaryRow]:
    """See :meth:`astrid.store.Store.read_canaries`."""
    return [CanaryRow(**row) for row in await fetch_as_of(connection, _SQL, "read_canaries", day, as_of=as_of)]


async def read_last_states(connection: Connection, before: date) -> dict[tuple[str, str], str]:
    """See :meth:`astrid.store.Store.read_last_states`."""
    rows = await connection.fetch(_SQL["read_last_states"], before)
    return {(row["source"], row["name"]): row["state"] for row in rows}


async def read_kept_out(connection: Connection, source: str, names: Sequence[str], as_of: datetime | None) -> KeptOut:
    """See :meth:`astrid.store.Store.read_kept_out`."""
    rows = await fetch_as_of(connection, _SQL, "read_episodes", source, list(names), as_of=as_of)
    return KeptOut(
        tuple(
            Episode(r["first_run"], r["violated_run"], r["end_run"] or OPEN, r["first_day"], r["last_day"])
            for r in rows
            if not r["accepted"]
        ),
        max((r["first_day"] for r in rows if r["accepted"]), default=None),
    )


async def read_first_run(connection: Connection, since: date, run_id: int) -> int:
    """See :meth:`astrid.store.Store.read_first_run`."""
    return int(await connection.fetchval(_SQL["read_first_run"], since, run_id))


async def read_asked(connection: Connection, first: date, last: date) -> dict[tuple[str, str], set[date]]:
    """See :meth:`astrid.store.Store.read_asked`."""
    nights: dict[tuple[str, str], set[date]] = {}
    for row in await connection.fetch(_SQL["read_asked"], first, last):
        nights.setdefault((row["source"], row["task"]), set()).add(row["day"])
    return nights


async def read_anew(
    connection: Connection, source: str, first: date, last: date, days: int
) -> list[tuple[date, npt.NDArray[np.int32]]]:
    """See :meth:`astrid.store.Store.read_anew`."""
    nights: dict[date, list[int]] = {}
    for row in await connection.fetch(_SQL["read_anew"], source, first, last, days):
        nights.setdefault(row["day"], []).append(row["entity_id"])
    return [(night, np.array(ids, np.int32)) for night, ids in nights.items()]


async def read_reconciliation(connection: Connection, slug: str, as_of: datetime | None) -> list[ReconciledWeek]:
    """See :meth:`astrid.store.Store.read_reconciliation`."""
    rows = await fetch_as_of(connection, _SQL, "read_reconciliation", slug, as_of=as_of)
    return [ReconciledWeek(**row) for row in rows]


async def read_reconciled_weeks(
    connection: Connection, first: date, last: date, as_of: datetime | None
) -> list[ReconciledWeek]:
    """See :meth:`astrid.store.Store.read_reconciled_weeks`."""
    rows = await fetch_as_of(connection, _SQL, "read_weeks", first, last, as_of=as_of)
    return [ReconciledWeek(**row) for row in rows]
