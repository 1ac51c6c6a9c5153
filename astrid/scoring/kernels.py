"""The weekly filter over blocks of series: cleaning, level, growth, surprise, sustain.

Every weekday has a filter of its own (a *comb* of seven phases), each one step per week, so that a
weekly pattern cancels exactly. Days are worked through in blocks that end with phase 6, series in
chunks that stay in the cache; no arithmetic depends on where a block or chunk ends, so a history in
one call, in pieces, or day by day gives the same bits.

Convention of the start: a phase has its first reading as soon as there is one. A flow needs seven
days for it, so phase 6 of a series born on day 0 reads on day 6, one week before phases 0 to 5.

The obvious version is tests/reference/weekly_filter.py; formulas are in docs/methodology.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from astrid.catalog import Kind
from astrid.scoring.comb import COUNT_MAX, RINGED, Comb
from astrid.scoring.series import PARAMETERS, SILENT_DAYS_MAX, Bools, Parameters, Signal
from astrid.scoring.state import PHASES, RING_DAYS, FilterState

OUTAGE_SERIES_MIN: Final = 30
"""With fewer living series an outage of the source cannot be told from gaps of its series."""

CHUNK: Final = 8192
"""Series per chunk, by measurement: fewer cost more in calls, more no longer fit in the cache."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the filter says about each kept day (axis 0) and series (axis 1); a field not asked for has 0 rows.

    float32 with NaN = not known: ``level`` (log), ``growth_slow``, ``growth_fast`` (log per week),
    ``last_week`` = y(t) - y(t-7), ``z`` (standardised surprise of an observed day), ``z_week`` (its
    maximum of seven days), ``se`` and ``se_counting`` of the slow growth, ``sustain`` in (0, 1].
    ``updates`` uint8 of the day's phase, ``flags`` uint16, ``silent_days`` uint16 (UNSEEN and more: never).
    """

    level: npt.NDArray[np.float32]
    growth_slow: npt.NDArray[np.float32]
    growth_fast: npt.NDArray[np.float32]
    last_week: npt.NDArray[np.float32]
    z: npt.NDArray[np.float32]
    z_week: npt.NDArray[np.float32]
    se: npt.NDArray[np.float32]
    se_counting: npt.NDArray[np.float32]
    sustain: npt.NDArray[np.float32]
    updates: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint16]
    silent_days: npt.NDArray[np.uint16]

    def signal(self, parameters: Parameters, row: int = -1) -> Signal:
        """Return one kept day as the input of the score."""
        return Signal(parameters.kind, parameters.tau, **{name: getattr(self, name)[row] for name in FIELDS})


FIELDS: Final = tuple(f.name for f in fields(Outputs))
_INTEGER: Final = {"updates": np.uint8, "flags": np.uint16, "silent_days": np.uint16}


def run(
    x: npt.NDArray[np.floating],
    kind: Kind,
    *,
    parameters: Parameters | None = None,
    state: FilterState | None = None,
    keep: int | None = 1,
    fields: Collection[str] = FIELDS,
    outages: Bools | None = None,
    chunk: int = CHUNK,
    dtype: npt.DTypeLike = np.float32,
) -> tuple[Outputs, FilterState]:
    """Run the filter over the days of ``x`` and return the last days' outputs and the state after them.

    Parameters
    ----------
    x
        Shape (T, N), time-major, consecutive UTC days of one metric, raw counts. NaN is not observed,
        and so is what cannot be a count: negative, infinite, above COUNT_MAX.
    kind
        ``"stock"`` or ``"flow"``; selects the parameters unless ``parameters`` is given.
    state
        What an earlier call returned, or None to begin. It is not altered.
    keep
        Number of last days to return outputs for; None returns all T.
    fields
        Outputs to compute; leaving out ``sustain`` and ``flags`` makes a full history cheaper.
    outages
        Shape (T,): days on which the whole source was out. None finds them (:func:`find_outages`),
        which needs all series of the source in one call: shards of a source must be handed the mask.
    chunk
        Series worked on at a time; changes the speed, never a bit of the result.
    dtype
        Type of a new state.

    Returns
    -------
    outputs
        Arrays of shape (min(keep, T), N).
    state
        To be handed in with the next day.

    Raises
    ------
    ValueError
        If shapes or kinds do not fit each other, or a field is unknown.
    """
    parameters = parameters or PARAMETERS[kind]
    if x.ndim != 2:
        raise ValueError(f"x must have shape (days, series), not {x.shape}")
    days, n = x.shape
    before = FilterState.empty(n, kind, dtype=dtype) if state is None else state
    if len(before) != n or before.kind != kind or parameters.kind != kind:
        raise ValueError(
            f"x has {n} series of kind {kind}, the state {len(before)} of kind {before.kind}, "
            f"the parameters are of kind {parameters.kind}"
        )
    if unknown := set(fields) - set(FIELDS):
        raise ValueError(f"fields has unknown names {sorted(unknown)}")
    if keep is not None and keep < 0:
        raise ValueError(f"keep must not be negative, it is {keep}")
    if chunk < 1:
        raise ValueError(f"chunk must be positive, it is {chunk}")
    if outages is None:
        outages = find_outages(x, before.silent_days)
    elif outages.shape != (days,):
        raise ValueError(f"outages must have shape ({days},), not {outages.shape}")

    kept = days if keep is None else min(keep, days)
    arrays = {name: np.empty((kept if name in fields else 0, n), _INTEGER.get(name, np.float32)) for name in FIELDS}
    outputs = Outputs(**arrays)
    after = FilterState.empty(n, kind, day=before.day + days, dtype=before.level.dtype)
    for start in range(0, n, chunk):
        part = before.columns(start, min(start + chunk, n))
        columns = slice(start, start + len(part))
        _run_chunk(
            part,
            x[:, columns],
            outages,
            parameters,
            days - kept,
            {k: a[:, columns] for k, a in arrays.items() if len(a)},
        )
        after.put(start, part)
    return outputs, after


def find_outages(x: npt.NDArray[np.floating], silent_days: npt.NDArray[np.uint16]) -> Bools:
    """Return the days, shape (T,), on which more than half of the living series have no observation.

    A series lives from its first observation on (a day on which many begin is no outage), and while its
    last one is at most SILENT_DAYS_MAX days old; with fewer than OUTAGE_SERIES_MIN of them no day is an
    outage. ``silent_days`` is the state before the first day.
    """
    outages = np.zeros(len(x), bool)
    silent = silent_days.copy()
    missing = np.empty(x.shape[1], bool)
    for day, row in enumerate(x):
        np.logical_not((row >= 0) & (row <= COUNT_MAX), out=missing)
        alive = silent < SILENT_DAYS_MAX
        lost = np.count_nonzero(alive & missing)
        living = lost + len(missing) - np.count_nonzero(missing)
        outages[day] = living >= OUTAGE_SERIES_MIN and 2 * lost > living
        silent += 1
        if not outages[day]:
            silent *= missing
    return outages


def _run_chunk(
    s: FilterState,
    x: npt.NDArray[np.floating],
    outages: Bools,
    par: Parameters,
    keep_from: int,
    out: dict[str, npt.NDArray[Any]],
) -> None:
    """Advance ``s`` in place over all rows of ``x``; write the rows from ``keep_from`` on to ``out``."""
    comb = Comb(s, par)
    begin = 0
    # The ring forgets after 28 days: what no output and no later day can see need not be written into it.
    ring_from = (min(keep_from, len(x)) if RINGED & out.keys() else len(x)) - RING_DAYS
    while begin < len(x):
        end = min(begin + PHASES - s.day % PHASES, len(x))
        rows = (
            {name: a[max(begin - keep_from, 0) : end - keep_from] for name, a in out.items()} if end > keep_from else {}
        )
        comb.advance(x[begin:end], outages[begin:end], rows, max(keep_from - begin, 0), end > ring_from)
        begin = end
