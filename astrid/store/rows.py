"""The values that the store gives back or takes in columns: frozen, slotted, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """What became of the rows of one write.

    ``new`` + ``changed`` + ``equal`` + ``outranked`` + ``refused`` + ``doubled`` is the number of rows handed in.
    ``outranked`` rows differ from a standing value whose origin goes before theirs; ``refused`` are not
    finite, out of range, or of an unknown metric, origin or entity; ``doubled`` state a key that another
    row of the same write states too. ``healed`` counts gaps that were closed.
    """

    new: int = 0
    changed: int = 0
    equal: int = 0
    outranked: int = 0
    refused: int = 0
    doubled: int = 0
    healed: int = 0

    def __add__(self, other: WriteCounts) -> WriteCounts:
        return WriteCounts(
            self.new + other.new,
            self.changed + other.changed,
            self.equal + other.equal,
            self.outranked + other.outranked,
            self.refused + other.refused,
            self.doubled + other.doubled,
            self.healed + other.healed,
        )


@dataclass(frozen=True, slots=True)
class CommitCounts:
    """What one commit of a batch did; ``already``: it was settled before, as ``state``, and nothing was written."""

    written: WriteCounts = field(default_factory=WriteCounts)
    gaps: int = 0
    parts: int = 0
    already: bool = False
    state: str = ""


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """What one write of scores did: rows that were new, superseded, equal, or withdrawn (scored before, not now)."""

    new: int = 0
    superseded: int = 0
    equal: int = 0
    withdrawn: int = 0


@dataclass(frozen=True, slots=True)
class ScoreComponents:
    """The parts of one day's scores, one row per (entity, metric), in columns of one length.

    ``entity_id`` int32, ``metric_id`` int16, ``flags`` int32, the others float64 with NaN = not known.
    ``level`` is the filtered logarithm, ``growth`` and ``growth_fast`` are logarithms per week, ``z`` standard
    deviations, ``sustain`` 0..1, ``momentum`` 0..1, ``weight`` as used, ``contribution`` in score points.
    """

    entity_id: npt.NDArray[np.int32]
    metric_id: npt.NDArray[np.int16]
    level: Floats
    growth: Floats
    growth_fast: Floats
    z: Floats
    sustain: Floats
    momentum: Floats
    weight: Floats
    contribution: Floats
    flags: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """One day's scores, one row per entity, in columns of one length.

    ``entity_id`` and ``flags`` int32, ``rank`` int32 (0 = not ranked), ``calibrated`` bool, the others float64 with
    NaN = not known. ``score``, ``lo``, ``hi``, ``percentile`` are 0..100, ``growth_per_week`` is a fraction
    (0.05 = 5 % per week), ``breadth`` and ``coverage`` 0..1.
    """

    entity_id: npt.NDArray[np.int32]
    score: Floats
    lo: Floats
    hi: Floats
    calibrated: npt.NDArray[np.bool_]
    percentile: Floats
    growth_per_week: Floats
    breadth: Floats
    coverage: Floats
    flags: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]
    components: ScoreComponents

    def __len__(self) -> int:
        return len(self.entity_id)


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One published score; a value that is not known is None. ``contributions`` is keyed by metric name."""

    day: date
    slug: str
    name: str
    category: str
    rank: int | None
    score: float
    lo: float | None
    hi: float | None
    calibrated: bool
    percentile: float | None
    growth_per_week: float | None
    breadth: float | None
    coverage: float | None
    flags: int
    contributions: Mapping[str, float]
    method_version: str
    run_id: int
    published_at: datetime


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """One name of one upstream id, valid from a day to the day before ``valid_to`` (None = today's name)."""

    platform: str
    upstream_id: str
    name: str
    valid_from: date
    valid_to: date | None


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """One tracked project with everything upstreams said about its identity."""

    entity_id: int
    slug: str
    name: str
    category: str
    first_tracked: date
    identities: tuple[IdentityRow, ...] = ()


class SeriesPoint(NamedTuple):
    """One stored value of a series; days without one are absent."""

    day: date
    value: float
    origin_id: int
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class GapRow:
    """One line of the gap ledger; ``healed_at`` is None while the value is still missing."""

    metric_id: int
    day: date
    reason: str
    attempts: int
    retry: bool
    first_seen_at: datetime
    last_seen_at: datetime
    healed_at: datetime | None


@dataclass(frozen=True, slots=True)
class NoteRow:
    """What a reader must know about a stretch of a metric; ``last_day`` None = to this day."""

    metric_id: int
    first_day: date
    last_day: date | None
    note: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One week of a stock, ``week`` = its Sunday: what the history adds up to, and what the snapshots moved."""

    entity_id: int
    week: date
    history_total: float
    snapshot_delta: float


@dataclass(frozen=True, slots=True)
class ReconciledWeek:
    """A :class:`Reconciliation` with its project, for readers."""

    slug: str
    name: str
    week: date
    history_total: float
    snapshot_delta: float

    @property
    def difference(self) -> float:
        """The difference relative to the larger of both and 10, below which a week is chance."""
        a, b = self.history_total, self.snapshot_delta
        return abs(a - b) / max(abs(a), abs(b), 10.0)


@dataclass(frozen=True, slots=True)
class CanaryRow:
    """What one canary said of a source on the night of ``day``.

    ``value`` is sound from ``low`` to ``high``; None: not measured, or no bound. ``state`` is ok, violated, not judged,
    not asked, or accepted (a violation that an operator takes for the new way). ``first_day`` to ``day`` is what was
    measured; ``since`` is the first night of the violation, None where there is none or it was not looked up.
    """

    source: str
    name: str
    day: date
    state: str
    value: float | None
    low: float | None
    high: float | None
    reason: str
    first_day: date
    run_id: int
    judged_at: datetime
    since: date | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run: what it was, what it planned, what it spent, how it ended."""

    run_id: int
    kind: str
    day: date
    state: str
    code_version: str
    method_version: str
    started_at: datetime
    finished_at: datetime | None
    planned_requests: int
    planned_points: int
    spent: Mapping[str, int]
    note: str


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run as who goes on with it needs it; ``is_planned``: it has batches already, whatever became of them."""

    run_id: int
    state: str
    started_at: datetime
    is_planned: bool
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch as its worker finds it: its state, and how often it was started as a suspect without coming to an end."""

    state: str
    suspect_starts: int


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one run was planned to cost one bucket of an upstream, and what it did cost; None: nobody counted."""

    run_id: int
    upstream: str
    bucket: str
    planned_requests: int
    planned_points: int
    planned_hours: float
    spent_requests: int | None
    spent_points: int | None


@dataclass(frozen=True, slots=True)
class Expected:
    """Whom nights asked a task for from ``first_day`` to ``last_day`` (None: they still do); entity ids ascending."""

    source: str
    task: str
    first_day: date
    last_day: date | None
    entity_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GapMarks:
    """Rows of the ledger without their texts, in columns of one length.

    ``metric_id`` int16, ``entity_id`` int32, ``day`` datetime64[D], the others bool: ``retry``, whether the value came
    late (``healed``), whether nobody was asked for it (``unasked``).
    """

    metric_id: npt.NDArray[np.int16]
    entity_id: npt.NDArray[np.int32]
    day: npt.NDArray[np.datetime64]
    retry: npt.NDArray[np.bool_]
    healed: npt.NDArray[np.bool_]
    unasked: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.day)


@dataclass(frozen=True, slots=True)
class GapEntry:
    """One row of the ledger with the runs that wrote it; a run that nobody noted is None."""

    metric_id: int
    entity_id: int
    day: date
    reason: str
    attempts: int
    retry: bool
    first_seen_at: datetime
    last_seen_at: datetime
    healed_at: datetime | None
    run_id: int | None
    healed_run: int | None


@dataclass(frozen=True, slots=True)
class BatchCount:
    """How many batches of a task of a run stand in a state, with their requests and tries."""

    run_id: int
    source: str
    task: str
    state: str
    count: int
    requests: int
    attempts: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One batch as a reader needs it: what it asked for, of how many entities, and how it ended."""

    batch_id: str
    source: str
    task: str
    state: str
    first_day: date
    last_day: date
    entities: int
    attempts: int
    requests: int
    reason: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class GapCount:
    """How many gaps of a metric a run gave one reason for, and how many of them are open still."""

    metric_id: int
    reason: str
    count: int
    open: int


@dataclass(frozen=True, slots=True)
class ValueVersion:
    """One version of one value: ``superseded_at`` and the run that replaced it are None while it stands."""

    value: float
    origin_id: int
    observed_at: datetime
    run_id: int
    superseded_at: datetime | None
    superseded_by_run: int | None


@dataclass(frozen=True, slots=True)
class ScoreVersion:
    """One version of one score, with its parts as they were stored; what it was computed from is that of ``known_at``,
    None where an earlier version did not say."""

    method_version: str
    score: float
    lo: float | None
    hi: float | None
    percentile: float | None
    coverage: float | None
    flags: int
    rank: int | None
    run_id: int
    published_at: datetime
    superseded_at: datetime | None
    superseded_by_run: int | None
    components: tuple[Mapping[str, float | int | None], ...]
    known_at: datetime | None


@dataclass(frozen=True, slots=True)
class Inputs:
    """The values of one metric of one entity that stood at a moment and came from one run."""

    metric_id: int
    run_id: int
    count: int
    first_day: date
    last_day: date
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How many batches of a source stand in a state, and the requests that they took (planned: that they will take)."""

    source: str
    state: str
    count: int
    requests: int


class CoverageRow(NamedTuple):
    """What there is of a metric from one origin: first and last UTC day, how many days, how many values."""

    metric_id: int
    origin_id: int
    first_day: date
    last_day: date
    days: int
    observations: int


class Tidied(NamedTuple):
    """What one piece of housekeeping did: batches that gave up their wording, answers that were deleted."""

    bodies: int
    answers: int


class TableDigest(NamedTuple):
    """The row count and the SHA-256 (hex) of one table's content."""

    rows: int
    sha256: str
