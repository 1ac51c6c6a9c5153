"""The store: always PostgreSQL, SQL only here, every write one transaction and idempotent by key.

``open_store(url)`` gives a :class:`Store`. Its methods are the whole interface: each is one transaction, takes
``now`` where it writes a time, and raises :class:`astrid.errors.StoreError` when the database refuses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime

import numpy as np
import numpy.typing as npt

from astrid import METHOD_VERSION
from astrid.answers import StoredAnswer
from astrid.models import Batch, DeadLetter, Done, Gap, Identity, Observations, Split
from astrid.store import (
    answers,
    canaries,
    catalogue,
    commits,
    digests,
    housekeeping,
    matrices,
    observations,
    pool,
    reads,
    runs,
    scores,
    tokens,
    vintages,
)
from astrid.store.address import describe
from astrid.store.answers import StoreAnswers
from astrid.store.canaries import KeptOut
from astrid.store.embedded import EmbeddedServer, open_embedded
from astrid.store.leases import LeaseRow, Leases, Taken
from astrid.store.ledger import Ledger
from astrid.store.migrate import Migrated, check_version, migrate, settle
from astrid.store.rows import (
    BatchCount,
    BatchRow,
    Begun,
    CanaryRow,
    CommitCounts,
    CostRow,
    CoverageRow,
    Expected,
    GapCount,
    GapEntry,
    GapMarks,
    GapRow,
    IdentityRow,
    Inputs,
    NoteRow,
    OpenRun,
    Progress,
    ProjectRow,
    ReconciledWeek,
    Reconciliation,
    RunRow,
    ScoreColumns,
    ScoreComponents,
    ScoreCounts,
    ScoreRow,
    ScoreVersion,
    SeriesPoint,
    TableDigest,
    Tidied,
    ValueVersion,
    WriteCounts,
)

__all__ = [
    "BatchCount",
    "BatchRow",
    "Begun",
    "CanaryRow",
    "CommitCounts",
    "CostRow",
    "CoverageRow",
    "EmbeddedServer",
    "Expected",
    "GapCount",
    "GapEntry",
    "GapMarks",
    "GapRow",
    "IdentityRow",
    "Inputs",
    "KeptOut",
    "LeaseRow",
    "Leases",
    "Ledger",
    "Migrated",
    "NoteRow",
    "OpenRun",
    "Progress",
    "ProjectRow",
    "ReconciledWeek",
    "Reconciliation",
    "RunRow",
    "ScoreColumns",
    "ScoreComponents",
    "ScoreCounts",
    "ScoreRow",
    "ScoreVersion",
    "SeriesPoint",
    "Store",
    "StoreAnswers",
    "TableDigest",
    "Taken",
    "Tidied",
    "ValueVersion",
    "WriteCounts",
    "check_version",
    "migrate",
    "open_embedded",
    "open_store",
    "settle",
]


@asynccontextmanager
async def open_store(url: str, *, pool_size: int = 4) -> AsyncGenerator[Store]:
    """Open a pool of at most ``pool_size`` connections and give a :class:`Store` over it.

    The schema is not looked at here: call :func:`migrate` or :func:`check_version` first.

    Raises
    ------
    ConfigError
        If the URL is not PostgreSQL's.
    StoreError
        If the server cannot be reached or refuses.
    """
    async with pool.open_pool(url, size=pool_size) as connections:
        yield Store(connections, describe(url))


class Store:
    """Everything that is read from and written to the database; safe to share between tasks of one event loop.

    Reads that take ``as_of`` (an aware moment; None: now) answer what they would have answered at that moment: what was
    written up to it, as it stood then. See docs/adr/0021-as-of.md for what that promises.
    """

    def __init__(self, connections: pool.Pool, place: str) -> None:
        self._pool = connections
        self._place = place
        self.leases = Leases(connections, place)
        self.ledger = Ledger(connections, place)

    # Entities and identities

    async def sync_watchlist(self, projects: Iterable[tuple[str, str, str]], now: datetime) -> dict[str, int]:
        """Make an entity of every (slug, name, category) and return slug -> entity_id of these.

        New slugs get their ids in slug order; names and categories follow the watchlist; entities that left it stay.
        """
        listed = sorted(set(projects))
        return await pool.writing(self._pool, self._place, lambda c: catalogue.sync_watchlist(c, listed, now), now=now)

    async def record_identities(self, identities: Sequence[Identity], day: date, run_id: int, now: datetime) -> int:
        """Keep what upstreams called the entities on ``day``; return how many rows are new.

        The upstream id is the identity, a name holds from the day it was first read. A new name or a new id of
        the same platform ends the former row the day before.
        """
        return await pool.writing(
            self._pool, self._place, lambda c: catalogue.record_identities(c, identities, day, run_id), now=now
        )

    async def read_identities(self, platform: str, *, as_of: datetime | None = None) -> dict[int, Identity]:
        """Return entity_id -> what the platform calls it now."""
        async with pool.reading(self._pool, self._place) as connection:
            return await catalogue.read_identities(connection, platform, as_of)

    async def read_first_days(
        self, metric_id: int, entity_ids: Sequence[int], *, as_of: datetime | None = None
    ) -> dict[int, date]:
        """Return entity_id -> the first day with a value of a metric; entities without any are absent."""
        async with pool.reading(self._pool, self._place) as connection:
            return await catalogue.read_first_days(connection, metric_id, entity_ids, as_of)

    async def read_projects(self, *, as_of: datetime | None = None) -> list[ProjectRow]:
        """Return all entities by slug, without their identities."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_projects(connection, as_of)

    async def read_project(self, slug: str, *, as_of: datetime | None = None) -> ProjectRow | None:
        """Return one entity with every identity it ever had, or None."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_project(connection, slug, as_of)

    # Runs and batches

    async def start_run(self, kind: str, day: date, code_version: str, method_version: str, now: datetime) -> int:
        """Open a run record and return its id."""
        return await pool.writing(
            self._pool, self._place, lambda c: runs.start_run(c, kind, day, code_version, method_version, now), now=now
        )

    async def open_run(self, kind: str, day: date, code_version: str, method_version: str, now: datetime) -> OpenRun:
        """Open the run of a kind and day, and return it: a new one, or the one that nobody has closed.

        That is one that still runs, or the last one, where it failed and left open batches; it is then a running one of
        this version. Of two who open at once the second gets the first one's.
        """
        return await pool.writing(
            self._pool, self._place, lambda c: runs.open_run(c, kind, day, code_version, method_version, now), now=now
        )

    async def read_last_run(self, kind: str, day: date) -> OpenRun | None:
        """Return the last run of a kind and day, in whatever state; None where there is none."""
        async with pool.reading(self._pool, self._place) as connection:
            return await runs.read_last_run(connection, kind, day)

    async def finish_run(self, run_id: int, state: str, spent: Mapping[str, int], note: str, now: datetime) -> None:
        """Close a run with its end state, what it spent (bucket or source -> count), and a sentence."""
        await pool.writing(
            self._pool, self._place, lambda c: runs.finish_run(c, run_id, state, spent, note, now), now=now
        )

    async def read_runs(self, limit: int = 50, *, as_of: datetime | None = None) -> list[RunRow]:
        """Return the newest runs first."""
        async with pool.reading(self._pool, self._place) as connection:
            return await runs.read_runs(connection, limit, as_of)

    async def plan_batches(self, run_id: int, batches: Sequence[Batch], now: datetime) -> int:
        """Enter batches as planned and return how many were not there before; the run's planned sums grow with them."""
        return await pool.writing(
            self._pool, self._place, lambda c: runs.plan_batches(c, run_id, batches, now), now=now
        )

    async def write_planned(
        self,
        run_id: int,
        planned: Mapping[tuple[str, str], tuple[int, int, float]],
        now: datetime | None = None,
    ) -> None:
        """Note what a run is planned to cost: (requests, points, hours) per (upstream, bucket).

        ``now`` None: by the database's clock.
        """
        await pool.writing(self._pool, self._place, lambda c: runs.write_planned(c, run_id, planned), now=now)

    async def add_spent(
        self, run_id: int, spent: Mapping[tuple[str, str], tuple[int, int]], now: datetime | None = None
    ) -> None:
        """Add to what a run did cost: (requests, points) per (upstream, bucket); an unknown run's is dropped.

        ``now`` None: by the database's clock.
        """
        await pool.writing(self._pool, self._place, lambda c: runs.add_spent(c, run_id, spent), now=now)

    async def read_costs(self, run_ids: Sequence[int], *, as_of: datetime | None = None) -> list[CostRow]:
        """Return planned and spent per bucket of these runs, by run, upstream and bucket."""
        async with pool.reading(self._pool, self._place) as connection:
            return await runs.read_costs(connection, run_ids, as_of)

    async def open_batches(self, run_id: int, *, unpublished: bool = False) -> list[Batch]:
        """Return the batches of a run that are planned and not settled, by source and batch id.

        With ``unpublished`` only those that ``mark_published`` never heard of.
        """
        async with pool.reading(self._pool, self._place) as connection:
            return await runs.open_batches(connection, run_id, unpublished=unpublished)

    async def mark_published(self, run_id: int, batch_ids: Sequence[str]) -> None:
        """Note that the broker has confirmed these batches."""
        await pool.writing(self._pool, self._place, lambda c: runs.mark_published(c, run_id, batch_ids))

    async def begin_batch(self, batch: Batch, hold_s: float, now: datetime, *, suspect: bool = False) -> Begun:
        """Note that a worker has a batch in hand, for at most ``hold_s`` seconds, and return how it stands.

        A batch that is not there is entered. ``suspect`` counts a start that must be committed before it is made: if it
        ends the worker, the count stays.
        """
        return await pool.writing(
            self._pool, self._place, lambda c: runs.begin_batch(c, batch, hold_s, now, suspect=suspect), now=now
        )

    async def expect_batch(self, batch: Batch, delay_s: float) -> None:
        """Note that a batch left its worker alive and will come again within ``delay_s`` seconds."""
        await pool.writing(self._pool, self._place, lambda c: runs.expect_batch(c, batch, delay_s))

    async def claim_lost(
        self, run_id: int, sources: Sequence[str], overdue_s: float, limit: int = 1_000
    ) -> list[Batch]:
        """Return open batches of a run that were to be heard of more than ``overdue_s`` seconds ago, for publishing.

        Never published ones are overdue too. Who claims at the same time gets others.
        """
        return await pool.writing(
            self._pool, self._place, lambda c: runs.claim_lost(c, run_id, sources, overdue_s, limit)
        )

    async def read_working_runs(self, sources: Sequence[str]) -> dict[int, dict[str, int]]:
        """Return run_id -> source -> open batches, of running runs with batches that were heard of within two days."""
        async with pool.reading(self._pool, self._place) as connection:
            return await runs.read_working_runs(connection, sources)

    async def read_finished(self, batch_ids: Sequence[str]) -> set[str]:
        """Return which of these batches some run has done; equal ids are equal work."""
        async with pool.reading(self._pool, self._place) as connection:
            return await runs.read_finished(connection, batch_ids)

    async def progress(self, run_id: int) -> list[Progress]:
        """Return (source, state, count, requests) of a run's batches."""
        async with pool.reading(self._pool, self._place) as connection:
            return await runs.progress(connection, run_id)

    # Answers kept for conditional requests

    async def read_answer(self, token: str, address: bytes) -> StoredAnswer | None:
        """Return what an upstream last told a token (by name) at an address (a digest), or None."""
        async with pool.reading(self._pool, self._place) as connection:
            return await answers.read_answer(connection, token, address)

    async def write_answers(
        self, told: Sequence[tuple[answers.Key, StoredAnswer]], confirmed: Sequence[answers.Key], now: datetime
    ) -> None:
        """Keep answers by (token, address), and note which were confirmed; :meth:`tidy` deletes the old ones."""
        await pool.writing(self._pool, self._place, lambda c: answers.write_answers(c, told, confirmed, now))

    async def read_token_users(self, names: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Return GitHub's number and login of the user of each token (by name) that is known."""
        async with pool.reading(self._pool, self._place) as connection:
            return await tokens.read_token_users(connection, names)

    async def write_token_users(self, users: Mapping[str, tuple[int, str]], now: datetime) -> None:
        """Keep whom GitHub took the bearers of tokens (by name) for: its number and login."""
        await pool.writing(self._pool, self._place, lambda c: tokens.write_token_users(c, users, now))

    # Observations, gaps

    async def commit_batch(
        self, batch: Batch, outcome: Done | Split | DeadLetter, now: datetime, gaps: Sequence[Gap] = ()
    ) -> CommitCounts:
        """Write everything one batch found, and its end, in one transaction; acknowledge the message after this.

        ``gaps`` are added to those of a Done outcome; a DeadLetter's lost days come in here. A batch that is done
        or split already is left alone (``already``); one that was dead may still become done.
        """
        return await pool.writing(
            self._pool, self._place, lambda c: commits.commit_batch(c, batch, outcome, now, gaps), now=now
        )

    async def write_observations(self, found: Observations, run_id: int, now: datetime) -> WriteCounts:
        """Write values (not the gaps or identities) in one transaction and close the gaps that they fill.

        A value equal to the stored one is left alone with its first time. One that differs moves the stored row
        to ``observation_revision``, unless the stored row's origin goes before it (``astrid.catalog.ORIGINS``).
        """
        return await pool.writing(
            self._pool, self._place, lambda c: observations.write_observations(c, found, run_id, now), now=now
        )

    async def write_gaps(self, gaps: Sequence[Gap], now: datetime, run_id: int | None = None) -> int:
        """Enter expected values that did not come; return how many keys now stand open among them.

        A gap that stands already gets one more attempt; a key that has a value is no gap and is passed over.
        ``run_id`` is the run that says so; None: somebody does by hand.
        """
        return await pool.writing(self._pool, self._place, lambda c: commits.write_gaps(c, gaps, run_id, now), now=now)

    async def read_open_gaps(self, first: date, last: date, *, as_of: datetime | None = None) -> list[Gap]:
        """Return the gaps from ``first`` to ``last`` (inclusive) that are not healed, in key order."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_open_gaps(connection, first, last, as_of)

    async def read_waiting_gaps(
        self, first: date, last: date, asked_after: datetime, unasked: str
    ) -> set[tuple[int, int, date]]:
        """Return (metric_id, entity_id, day) of open gaps that need no new try: hopeless, or asked after a moment.

        ``unasked`` is how the reason of gaps begins that stand for not having been asked at all.
        """
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_waiting_gaps(connection, first, last, asked_after, unasked)

    async def read_last_tries(self, first: date, last: date, unasked: str) -> list[tuple[int, int, bool, date]]:
        """Return (metric_id, entity_id, retry, day): the last days that were asked for in vain, hopeless ones apart."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_last_tries(connection, first, last, unasked)

    async def read_feeds(self, metric_ids: Sequence[int], first: date, last: date) -> list[tuple[int, int, date]]:
        """Return (metric_id, origin_id, day): the last day that each origin stated each of some metrics for anybody."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_feeds(connection, metric_ids, first, last)

    async def read_last_days(self, metric_ids: Sequence[int], first: date, last: date) -> list[tuple[int, int, date]]:
        """Return (metric_id, origin_id, day) of the newest values of all projects: the last day of each metric.

        An origin whose values are nobody's newest ones is absent.
        """
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_last_days(connection, metric_ids, first, last)

    async def read_percentiles(self, *, as_of: datetime | None = None) -> dict[int, float]:
        """Return the percentile, from 0 to 1, of every entity in the last published scores."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_percentiles(connection, METHOD_VERSION, as_of)

    async def read_gaps(self, slug: str, *, as_of: datetime | None = None) -> list[GapRow]:
        """Return every gap of an entity, healed ones too, by metric and day."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_gaps(connection, slug, as_of)

    async def record_note(
        self, metric_id: int, first_day: date, last_day: date | None, note: str, now: datetime
    ) -> None:
        """Attach a sentence to a stretch of a metric; the same note twice is one."""
        await pool.writing(
            self._pool, self._place, lambda c: catalogue.record_note(c, metric_id, first_day, last_day, note), now=now
        )

    async def read_notes(self, metric_id: int, *, as_of: datetime | None = None) -> list[NoteRow]:
        """Return the notes of a metric by first day."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_notes(connection, metric_id, as_of)

    async def record_reconciliation(self, weeks: Sequence[Reconciliation], now: datetime) -> None:
        """Keep, per entity and week, what history and snapshots say; a later comparison replaces the former."""
        await pool.writing(self._pool, self._place, lambda c: catalogue.record_reconciliation(c, weeks), now=now)

    async def read_reconciliation(self, slug: str, *, as_of: datetime | None = None) -> list[ReconciledWeek]:
        """Return the compared weeks of a project, oldest first."""
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_reconciliation(connection, slug, as_of)

    async def read_reconciled_weeks(
        self, first: date, last: date, *, as_of: datetime | None = None
    ) -> list[ReconciledWeek]:
        """Return the weeks of all projects with a Sunday in ``first`` .. ``last``, by week and slug."""
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_reconciled_weeks(connection, first, last, as_of)

    # Canaries

    async def write_verdicts(self, rows: Sequence[CanaryRow]) -> None:
        """Keep the verdicts of a night; judging it again replaces them, but for those that an operator accepted."""
        now = max((row.judged_at for row in rows), default=None)
        await pool.writing(self._pool, self._place, lambda c: canaries.write_verdicts(c, rows), now=now)

    async def read_canaries(self, day: date | None = None, *, as_of: datetime | None = None) -> list[CanaryRow]:
        """Return the verdicts of a night (None = the last that was judged), each violation with its first night."""
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_canaries(connection, day, as_of)

    async def read_last_states(self, before: date) -> dict[tuple[str, str], str]:
        """Return (source, canary) -> ok, violated or accepted: what it last was on a night before ``before``.

        Nights on which it could not be judged are passed over, however many.
        """
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_last_states(connection, before)

    async def read_kept_out(self, source: str, names: Sequence[str], *, as_of: datetime | None = None) -> KeptOut:
        """Return what violations of these canaries of a source keep out of the scores, for ``read_matrix``.

        Nothing counts that was written from the first violated night on to before the next sound one, by any run and
        for any day; see :class:`KeptOut` for what was written shortly before. Of an episode that an operator accepted
        all counts.
        """
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_kept_out(connection, source, names, as_of)

    async def read_first_run(self, since: date, run_id: int) -> int:
        """Return the first run about the day ``since`` or a later one, of the runs up to ``run_id``, or that one."""
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_first_run(connection, since, run_id)

    async def read_asked(self, first: date, last: date) -> dict[tuple[str, str], set[date]]:
        """Return (source, task) -> the nights from ``first`` to ``last`` that planned to ask for it."""
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_asked(connection, first, last)

    async def read_anew(
        self, source: str, first: date, last: date, days: int
    ) -> list[tuple[date, npt.NDArray[np.int32]]]:
        """Return the nights from ``first`` to ``last``, the newest first, with the entities of which a source then read
        the last ``days`` days and more."""
        async with pool.reading(self._pool, self._place) as connection:
            return await canaries.read_anew(connection, source, first, last, days)

    # Series

    async def read_matrix(
        self,
        metric_id: int,
        entity_ids: npt.NDArray[np.int32],
        first: date,
        last: date,
        kept_out: KeptOut | None = None,
        without: Sequence[int] = (),
        *,
        as_of: datetime | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return a metric as a float32 array (T, N): day by day from ``first`` to ``last``, a column per entity.

        NaN is a gap. Columns are in the order of ``entity_ids``, which may hold no id twice. float32 keeps counts up
        to 16 777 216 exactly, larger ones to 7 digits. With ``kept_out`` (see ``read_kept_out``) a value that does not
        count gives way to the one that it replaced, or is a gap. Values of the origins ``without`` are gaps.
        """
        async with pool.reading(self._pool, self._place) as connection:
            return await matrices.read_matrix(connection, metric_id, entity_ids, first, last, kept_out, without, as_of)

    async def read_missing(
        self,
        metric_id: int,
        entity_ids: npt.NDArray[np.int32],
        first: date,
        last: date,
        *,
        as_of: datetime | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Return a bool array (T, N), True where a metric has no value; shape and order as in ``read_matrix``."""
        async with pool.reading(self._pool, self._place) as connection:
            return np.isnan(await matrices.read_matrix(connection, metric_id, entity_ids, first, last, as_of=as_of))

    async def read_series(
        self, slug: str, metric_id: int, start: date, end: date, *, as_of: datetime | None = None
    ) -> list[SeriesPoint]:
        """Return the stored points of a series from ``start`` to ``end`` (inclusive); days without one are absent."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_series(connection, slug, metric_id, start, end, as_of)

    # Scores

    async def write_scores(
        self,
        run_id: int,
        day: date,
        method_version: str,
        columns: ScoreColumns,
        now: datetime,
        known_at: datetime | None = None,
    ) -> ScoreCounts:
        """Publish all scores of one day in one transaction.

        A score that is equal, parts included, is left alone. One that differs, or that is no longer given, is moved
        to ``score_revision`` with its parts before the new one takes its place. ``known_at`` is the moment as of which
        the scores were computed.
        """

        async def work(connection: pool.Connection) -> ScoreCounts:
            return await scores.write_scores(connection, run_id, day, method_version, columns, now, known_at)

        return await pool.writing(self._pool, self._place, work, now=now)

    async def has_scores(
        self, day: date, method_version: str = METHOD_VERSION, *, as_of: datetime | None = None
    ) -> bool:
        """Say whether scores of a day are published."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.has_scores(connection, day, method_version, as_of)

    async def latest_scored_day(
        self, method_version: str = METHOD_VERSION, *, as_of: datetime | None = None
    ) -> date | None:
        """Return the last day that has scores, or None."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.latest_scored_day(connection, method_version, as_of)

    async def read_leaderboard(
        self,
        day: date | None,
        category: str | None,
        limit: int,
        offset: int,
        method_version: str = METHOD_VERSION,
        *,
        as_of: datetime | None = None,
    ) -> list[ScoreRow]:
        """Return ranked scores of a day (None = the last scored one) by rank, of one category or of all."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_leaderboard(connection, day, category, limit, offset, method_version, as_of)

    async def read_score_history(
        self, slug: str, days: int, method_version: str = METHOD_VERSION, *, as_of: datetime | None = None
    ) -> list[ScoreRow]:
        """Return the scores of one entity on the last ``days`` scored days of it, oldest first."""
        async with pool.reading(self._pool, self._place) as connection:
            return await reads.read_score_history(connection, slug, days, method_version, as_of)

    # Moments

    async def has_open_writes(self, moment: datetime) -> bool:
        """Say whether a write is under way that is stamped with ``moment`` or earlier."""
        async with pool.reading(self._pool, self._place) as connection:
            return await vintages.has_open_writes(connection, moment)

    async def is_settled(self, moment: datetime, now: datetime) -> bool:
        """Say whether what is answered as of ``moment`` is final: no write that ends after ``now`` changes it."""
        return moment <= now - vintages.SETTLED_AFTER and not await self.has_open_writes(moment)

    async def read_newest_moment(self) -> datetime | None:
        """Return the newest moment that batches, verdicts and runs are stamped with, by whatever clock, or None."""
        async with pool.reading(self._pool, self._place) as connection:
            return await vintages.read_newest_moment(connection)

    # Upkeep

    async def tidy(self, now: datetime) -> Tidied:
        """Let go of a bounded piece of what may go: old answers, and the wording of batches that ended long ago.

        Cheap where there is nothing to do, safe to repeat and for two at once; call it when a night is over.
        """
        return await pool.writing(self._pool, self._place, lambda c: housekeeping.tidy(c, now))

    async def read_coverage(self, first: date, last: date) -> list[CoverageRow]:
        """Return what there is from ``first`` to ``last`` (inclusive), by metric and origin.

        Counted from the values, or under TimescaleDB's community licence as of the last :meth:`refresh_coverage`, which
        the database also does once an hour by itself. Counts whole chunks where it must count: no read of a page.
        """
        async with pool.reading(self._pool, self._place) as connection:
            return await housekeeping.read_coverage(connection, first, last)

    async def refresh_coverage(self) -> None:
        """Make :meth:`read_coverage` exact as of now; does nothing where it counts the values themselves."""
        await housekeeping.refresh_coverage(self._pool, self._place)

    # Comparison

    async def digest(self) -> dict[str, TableDigest]:
        """Return row count and SHA-256 of each content table, as of one moment.

        Over keys and values in key order, with slugs and names instead of ids; times of observation, run ids and
        attempts do not enter, so two stores that hold the same facts have the same digests.
        """
        async with pool.reading(self._pool, self._place, snapshot=True) as connection:
            return await digests.digest(connection)
