"""Daily downloads of the demo's world: real window totals of the package index, spread over their days."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from re import sub

import numpy as np
import numpy.typing as npt

from astrid.simulators.world.packing import GAP
from tools.world_repos import read_rows

WEEKEND_SHARE = 0.6
"""Assumed downloads of a Saturday or Sunday as a share of a weekday's."""
FIT_ROUNDS = 60
SPLIT_STEPS = 2001


@dataclass(frozen=True)
class Window:
    """Days ``start`` .. ``end``, inclusive, whose total the snapshot of day ``snapshot`` states."""

    snapshot: date
    start: date
    end: date


@dataclass(frozen=True)
class Segment:
    """Columns ``start`` .. ``stop`` (exclusive) and the downloads that they share."""

    start: int
    stop: int
    total: int


def normalise(name: str) -> str:
    """Return a package name in the index's normal form (PEP 503)."""
    return sub(r"[-_.]+", "-", name).lower()


def read_windows(data: Path, first_day: date, last_day: date) -> list[Window]:
    """Return the windows that lie wholly within the days, oldest first.

    A "last calendar month" snapshot covers the calendar month before its day, others the
    ``window_days`` days that end on the day before.
    """
    windows = []
    for snapshot_text, _rows, _least, window_days, _installers, method, *_ in read_rows(data / "pypi_snapshots.csv"):
        snapshot = date.fromisoformat(snapshot_text)
        end = (snapshot.replace(day=1) if "calendar month" in method else snapshot) - timedelta(days=1)
        start = end.replace(day=1) if "calendar month" in method else snapshot - timedelta(days=int(window_days))
        if (end - start).days + 1 != int(window_days):
            raise ValueError(f"the snapshot of {snapshot} states {window_days} days, its window has another length")
        if first_day <= start and end <= last_day:
            windows.append(Window(snapshot, start, end))
    return sorted(windows, key=lambda w: w.snapshot)


def read_totals(
    data: Path, windows: Sequence[Window], wanted: Collection[str]
) -> tuple[list[str], list[Window], npt.NDArray[np.int64]]:
    """Return the packages listed at least once, the windows that list anything, and totals (P, W), -1 = not listed."""
    column = {w.snapshot.isoformat(): k for k, w in enumerate(windows)}
    names = {normalise(name) for name in wanted}
    listed = np.zeros(len(windows), dtype=bool)
    found: dict[str, npt.NDArray[np.int64]] = {}
    for package, snapshot, downloads, _rank in read_rows(data / "pypi_monthly_top.csv.gz"):
        k = column.get(snapshot)
        if k is None:
            continue
        listed[k] = True
        name = normalise(package)
        if name in names:
            found.setdefault(name, np.full(len(windows), GAP, dtype=np.int64))[k] = int(downloads)
    packages = sorted(found)
    totals = np.array([found[name] for name in packages], dtype=np.int64).reshape(len(packages), len(windows))
    return packages, [w for w, seen in zip(windows, listed, strict=True) if seen], totals[:, listed]


def spread_downloads(
    windows: Sequence[Window], totals: npt.NDArray[np.int64], first_day: date, days: int
) -> npt.NDArray[np.int64]:
    """Return downloads per day, int64 (P, days), whose sum over each listed window is its total exactly.

    A day is a level times a weekly pattern (:data:`WEEKEND_SHARE`). The level's logarithm is linear between
    the middles of neighbouring windows and flat outside the outermost; its knots are moved until the sums fit, so
    there is no step between windows. Days in no listed window hold -1.
    """
    weekday = np.array([(first_day + timedelta(days=t)).weekday() for t in range(days)])
    weight = np.where(weekday >= 5, WEEKEND_SHARE, 1.0)
    out = np.full((len(totals), days), GAP, dtype=np.int64)
    spans = [((w.start - first_day).days, (w.end - first_day).days + 1) for w in windows]
    for p, row in enumerate(totals):
        segments = [Segment(*span, int(total)) for span, total in zip(spans, row, strict=True) if total != GAP]
        if not segments:
            continue
        segments = _split_overlaps(segments, weight)
        shape = _fit_shape(segments, weight)
        for segment in segments:
            part = slice(segment.start, segment.stop)
            out[p, part] = _round_to_total(shape[part], segment.total)
    return out


def _split_overlaps(segments: Sequence[Segment], weight: npt.NDArray[np.float64]) -> list[Segment]:
    """Cut two overlapping windows into three disjoint parts that keep both totals.

    The one unknown, the overlap's share, is chosen so that the logarithm of the level bends least.
    """
    parts: list[Segment] = []
    for new in segments:
        if not parts or parts[-1].stop <= new.start:
            parts.append(new)
            continue
        old = parts.pop()
        if (parts and parts[-1].stop > new.start) or not old.start < new.start < old.stop < new.stop:
            raise ValueError("only two neighbouring windows may overlap, and neither may hold the other")
        sums = [weight[a:b].sum() for a, b in ((old.start, new.start), (new.start, old.stop), (old.stop, new.stop))]
        shared = np.linspace(0, min(old.total, new.total), SPLIT_STEPS + 2)[1:-1]
        levels = [np.log(x / s) for x, s in zip((old.total - shared, shared, new.total - shared), sums, strict=True)]
        bend = (levels[1] - levels[0]) ** 2 + (levels[2] - levels[1]) ** 2
        middle = round(float(shared[int(np.argmin(bend))]))
        parts.append(Segment(old.start, new.start, old.total - middle))
        parts.append(Segment(new.start, old.stop, middle))
        parts.append(Segment(old.stop, new.stop, new.total - middle))
    return parts


def _fit_shape(segments: Sequence[Segment], weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    days = np.arange(len(weight))
    middles = np.array([(s.start + s.stop - 1) / 2 for s in segments])
    wanted = np.array([max(s.total, 0.5) for s in segments], dtype=np.float64)
    starts = [(s.start, s.stop) for s in segments]
    knots = np.log(wanted / [weight[a:b].sum() for a, b in starts])
    for _ in range(FIT_ROUNDS):
        shape = weight * np.exp(np.interp(days, middles, knots))
        knots += np.log(wanted / [shape[a:b].sum() for a, b in starts])
    return np.asarray(weight * np.exp(np.interp(days, middles, knots)))


def _round_to_total(shape: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Scale ``shape`` to ``total`` in whole downloads: floors, then one more for the largest remainders."""
    exact = shape * (total / shape.sum())
    floors: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    missing = int(total - floors.sum())
    order = np.argsort(floors - exact, kind="stable")
    floors[order[:missing]] += 1
    return floors
