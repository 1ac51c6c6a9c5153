"""Canaries: does an upstream still keep the contract that its numbers rest on? Pure functions of arrays.

An upstream that decays does not fail: it answers 200 with less, or with something else (GH Archive lost four fifths
of its stars that way, and no alarm rang). Each canary measures one thing of one source from what stands in the store
after a night's crawl and gives a :class:`Verdict`. Too little to go by is a verdict of its own, never a pass.

Why these measures and thresholds, and how often each rings on sound data: docs/adr/0017-canaries.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from astrid.catalog import Kind

F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
State = Literal["ok", "violated", "not judged"]

WEEKS: Final = 15
DAYS: Final = 7 * WEEKS
"""How far back the canaries look: the week that is judged, and the weeks that it is held against."""

BASELINE_MIN: Final = 4
"""Fewer sound weeks before are no measure."""

SERIES_MIN: Final = 20
"""Fewer series are chance, where one project's doing counts."""

SERIES_FEW: Final = 8
"""Enough where they all do the same: all are fresh, or nearly all (ALL) move every week."""

ALL: Final = 0.9

STALE_DAYS: Final = 7
"""Each weekday has its own reading of the filter: after a week without a value every one of them has missed it."""

FRESH_MIN: Final = 0.5
CAME_MIN: Final = 0.7
MOVED_MIN: Final = 0.5
PER_STORY: Final = (1 / 3, 3.0)
LEVEL: Final = (0.5, 1.8)
STORIES: Final = (0.2, 5.0)
SURE_WEEK: Final = 350.0
"""Events in a week (50 a day) from which a series' own weeks tell a level."""

TORN_MAX: Final = 0.1
TORN: Final = (0.98, 1.5)
"""A level that leaves this range of itself within a week is torn; projects do that one at a time, not together."""

CAPTURE: Final = (0.9, 1.5)
MOVED_SUM_MIN: Final = 500.0
COUNTED: Final = (0.5, 1.25)
COUNT_MIN: Final = 100.0
DISCREPANT: Final = 0.3
DISCREPANT_MAX: Final = 0.25


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one canary says of one source on one night.

    ``value`` is what was measured (None: not judged), ``low`` and ``high`` the range in which it is sound (None: no
    bound). ``first_day`` to the night's day is the stretch whose values the verdict doubts: the days that were
    measured, or the night alone where values are missing and those that came are sound.
    """

    source: str
    name: str
    state: State
    value: float | None
    low: float | None
    high: float | None
    reason: str
    first_day: date


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric of a source's projects up to a night: float32 (DAYS, N), a row per day, the last is the night's day.

    ``values`` as they stand, NaN is a gap; ``sound`` the same without what earlier nights wrote while the source was
    violated, so that what is broken never becomes its own measure.
    """

    metric: str
    kind: Kind
    values: Floats
    sound: Floats


@dataclass(frozen=True, slots=True)
class Reading:
    """What the canaries of one source go by.

    ``panels`` hold the source's leading metric and its scored ones, the leading one first. ``stories`` is the number
    of stories beside ``panels[0]`` where the source counts points of stories. ``history`` and ``moved`` are the weekly
    gains that history and snapshots state, one entry per project and week; ``other`` and ``own`` the counts of one
    thing that this source and the one it is held against state, one entry per project. ``was_stale`` says that the
    last verdict on freshness was a violation.
    """

    source: str
    night: date
    panels: tuple[Panel, ...]
    stories: Floats | None = None
    history: F64 = field(default_factory=lambda: np.empty(0))
    moved: F64 = field(default_factory=lambda: np.empty(0))
    other: F64 = field(default_factory=lambda: np.empty(0))
    own: F64 = field(default_factory=lambda: np.empty(0))
    was_stale: bool = False


Measure = Callable[[Reading], Verdict]


def judge(reading: Reading) -> list[Verdict]:
    """Return the verdict of every canary that a source has, in the order of :data:`CANARIES`."""
    return [measure(reading) for name, measure in CANARIES.items() if _applies(name, reading)]


def judge_freshness(reading: Reading) -> Verdict:
    """Measure the share of the source's series whose newest value is at most STALE_DAYS days old.

    A series belongs to it if it had a value in the last DAYS days. A source that was stale and has no value left in
    them is stale still.
    """
    newest = _newest(reading.panels[0].values)
    living = newest >= 0
    if not living.any() and reading.was_stale:
        return _verdict(reading, "freshness", 0.0, FRESH_MIN, None, f"no value in the last {DAYS} days")
    if np.count_nonzero(living) < SERIES_FEW:
        return _unjudged(reading, "freshness", FRESH_MIN, None, f"fewer than {SERIES_FEW} series in {DAYS} days")
    age = DAYS - 1 - newest[living]
    share = float(np.mean(age <= STALE_DAYS))
    last = reading.night - timedelta(days=int(age.min()))
    said = f"{share:.0%} of {len(age)} series have a value of the last {STALE_DAYS} days; the newest is of {last}"
    return _verdict(reading, "freshness", share, FRESH_MIN, None, said)


def judge_truncation(reading: Reading) -> Verdict:
    """Measure the share of the values of the week before last that came, in the series of the four weeks before it.

    By then every feed is through with the week, and every slice of a weekly rotation has been asked for it: what is
    still missing was cut off. Days that nobody has are gaps of the whole feed, which the ledger and freshness know.
    """
    values = reading.panels[0].values
    newest = int(_newest(values).max(initial=-1))
    window = values[DAYS - 14 : min(DAYS - 7, newest + 1)]
    window = window[np.isfinite(window).any(axis=1)]
    living = np.isfinite(values[DAYS - 42 : DAYS - 14]).sum(axis=0) >= 4
    if not len(window) or np.count_nonzero(living) < SERIES_FEW:
        return _unjudged(reading, "truncation", CAME_MIN, None, "too few series in the weeks before, or none since")
    share = float(np.mean(np.isfinite(window[:, living])))
    said = f"{share:.1%} of the values of the week before last came, in {np.count_nonzero(living)} series"
    return _verdict(reading, "truncation", share, CAME_MIN, None, said)


def judge_mix(reading: Reading) -> Verdict:
    """Measure the share of series that move in a week, held against the median of the weeks before.

    A flow moves if it is not 0 throughout, a level if it changes. Stuck caches and zeros for all end it.
    """
    found = []
    for panel in reading.panels:
        now, earlier = _weeks(panel)
        moving = [_moving(week, panel.kind) for week in earlier]
        shares = [float(np.mean(m)) for m in moving if len(m) >= SERIES_FEW]
        current = _moving(now, panel.kind)
        usual = float(np.median(shares)) if len(shares) >= BASELINE_MIN else 0.0
        if usual * len(current) < SERIES_MIN and (usual < ALL or len(current) < SERIES_FEW):
            continue
        share = float(np.mean(current))
        said = f"{share:.1%} of {len(current)} series of {panel.metric} moved this week, {usual:.1%} usually"
        found.append(_verdict(reading, "type_mix", share / usual, MOVED_MIN, None, said, days=7))
    return _worst(found) or _unjudged(reading, "type_mix", MOVED_MIN, None, "too few moving series or sound weeks")


def judge_points(reading: Reading) -> Verdict:
    """Measure the points per story in the last week whose points have settled, held against the weeks before it."""
    panel, stories = reading.panels[0], reading.stories
    low, high = PER_STORY
    if stories is not None:
        # Points of the last three days still grow.
        told = [float(np.nansum(stories[end - 7 : end])) for end in range(DAYS - 3, 6, -7)]
        earlier = [float(np.nansum(panel.sound[end - 7 : end])) for end in range(DAYS - 10, 6, -7)]
        usual = [p / s for p, s in zip(earlier, told[1:], strict=True) if s >= SERIES_MIN and p > 0]
        if told[0] >= SERIES_MIN and len(usual) >= BASELINE_MIN:
            now = float(np.nansum(panel.values[DAYS - 10 : DAYS - 3])) / told[0]
            median = float(np.median(usual))
            said = f"{now:.1f} points per story, {median:.1f} usually, in {told[0]:.0f} stories"
            return _verdict(reading, "points_per_story", now / median, low, high, said, days=10)
    return _unjudged(reading, "points_per_story", low, high, "too few stories this week or before")


def judge_level(reading: Reading) -> Verdict:
    """Measure whether all series shift together: what is counted has changed, not what is counted of.

    Flows: the median, over series of SURE_WEEK events a week or more, of this week over the median of the weeks
    before. Levels: the share of series that leave the range TORN of themselves within a week. Stories are few per
    project: there it is the number of all stories of the week, over the usual number.
    """
    if reading.stories is not None:
        return _judge_stories(reading, reading.stories)
    found = []
    for panel in reading.panels:
        now, earlier = _weeks(panel)
        if panel.kind == "stock":
            change = _change(now)
            if len(change) >= SERIES_MIN:
                torn = float(np.mean((change < TORN[0]) | (change > TORN[1])))
                said = f"{torn:.1%} of {len(change)} series of {panel.metric} fell by 2 % or rose by half within a week"
                found.append(_verdict(reading, "level", torn, None, TORN_MAX, said, days=7))
            continue
        with np.errstate(invalid="ignore"):
            sums = np.array([_sum(week) for week in earlier])
            known = np.isfinite(sums).sum(axis=0) >= BASELINE_MIN
            current = _sum(now)
            known &= np.isfinite(current)
            usual = np.nanmedian(sums[:, known], axis=0) if known.any() else np.empty(0)
        large = usual >= SURE_WEEK
        if np.count_nonzero(large) >= SERIES_MIN:
            ratio = float(np.median(current[known][large] / usual[large]))
            said = f"{panel.metric} of {np.count_nonzero(large)} series is {ratio:.2f} times its usual weeks"
            found.append(_verdict(reading, "level", ratio, *LEVEL, said, days=7))
    low, high = (None, TORN_MAX) if reading.panels[0].kind == "stock" else LEVEL
    return _worst(found) or _unjudged(reading, "level", low, high, "too few large series or sound weeks")


def _judge_stories(reading: Reading, stories: Floats) -> Verdict:
    weeks = [stories[end - 7 : end] for end in range(DAYS, 6, -7)]
    told = [float(np.nansum(week)) for week in weeks if np.isfinite(week).any()]
    usual = float(np.median(told[1:])) if len(told) > BASELINE_MIN else 0.0
    if usual < SERIES_MIN or not np.isfinite(weeks[0]).any():
        return _unjudged(reading, "level", STORIES[0], STORIES[1], "too few stories or weeks before")
    said = f"{told[0]:.0f} stories this week, {usual:.0f} usually"
    return _verdict(reading, "level", told[0] / usual, *STORIES, said, days=7)


def judge_capture(reading: Reading) -> Verdict:
    """Measure what the events of the history add up to, over what the snapshots moved, over all projects and weeks."""
    total = float(reading.moved.sum())
    low, high = CAPTURE
    if len(reading.moved) < SERIES_MIN or total < MOVED_SUM_MIN:
        return _unjudged(reading, "capture", low, high, "too few project-weeks with both snapshots and history")
    ratio = float(reading.history.sum()) / total
    said = f"the history has {ratio:.1%} of what the snapshots moved in {len(reading.moved)} project-weeks"
    return _verdict(reading, "capture", ratio, low, high, said, days=7)


def judge_history(reading: Reading) -> Verdict:
    """Measure the share of project-weeks in which history and snapshots differ by more than DISCREPANT."""
    if len(reading.moved) < SERIES_MIN:
        said = "too few project-weeks with both snapshots and history"
        return _unjudged(reading, "history_vs_count", None, DISCREPANT_MAX, said)
    share = float(np.mean(relative_difference(reading.history, reading.moved) > DISCREPANT))
    said = f"{share:.1%} of {len(reading.moved)} project-weeks differ by more than {DISCREPANT:.0%}"
    return _verdict(reading, "history_vs_count", share, None, DISCREPANT_MAX, said, days=7)


def judge_count(reading: Reading) -> Verdict:
    """Measure the share of projects whose count another upstream states quite otherwise (outside COUNTED of ours).

    The range is wide: how old the other's copy is, it does not say.
    """
    known = np.isfinite(reading.other) & (reading.own >= COUNT_MIN)
    if np.count_nonzero(known) < SERIES_MIN:
        return _unjudged(reading, "second_count", None, DISCREPANT_MAX, "too few projects that both count")
    ratio = reading.other[known] / reading.own[known]
    share = float(np.mean((ratio < COUNTED[0]) | (ratio > COUNTED[1])))
    said = f"{share:.1%} of {len(ratio)} projects have less than half or more than 1.25 times GitHub's count"
    return _verdict(reading, "second_count", share, None, DISCREPANT_MAX, said)


CANARIES: Final[Mapping[str, Measure]] = {
    "freshness": judge_freshness,
    "truncation": judge_truncation,
    "type_mix": judge_mix,
    "points_per_story": judge_points,
    "level": judge_level,
    "capture": judge_capture,
    "history_vs_count": judge_history,
    "second_count": judge_count,
}
"""Every canary by name. All sources have freshness, truncation, type_mix and level."""

ONLY: Final[Mapping[str, str]] = {
    "points_per_story": "hackernews",
    "capture": "github",
    "history_vs_count": "github",
    "second_count": "depsdev",
}
"""The one source that a canary is for, where it is for one."""

MEANINGS: Final[Mapping[str, str]] = {
    "freshness": "Share of the series with a value of the last week",
    "truncation": "Share of the values of the week before last that came",
    "type_mix": "Share of the series that move in a week, over the usual share",
    "points_per_story": "Points per story, over the usual number",
    "level": "How far all series shift together within a week",
    "capture": "Stars that the history states, over those that the snapshots moved",
    "history_vs_count": "Share of project-weeks in which history and snapshots differ",
    "second_count": "Share of projects of which another upstream counts quite otherwise",
}
"""What each canary measures, for readers."""


def relative_difference(a: F64, b: F64) -> F64:
    """Return |a - b| relative to the larger of both and 10, below which a week is chance."""
    return np.asarray(np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), 10.0), np.float64)


def hold(values: Floats, days: int) -> Floats:
    """Let each value of a snapshot that is taken every ``days`` days stand until the next is due."""
    held = values.copy()
    for n in range(1, days):
        shifted = np.full_like(values, np.nan)
        shifted[n:] = values[:-n]
        held = np.where(np.isnan(held), shifted, held)
    return held


def _applies(name: str, reading: Reading) -> bool:
    return ONLY.get(name, reading.source) == reading.source


def _verdict(
    reading: Reading, name: str, value: float, low: float | None, high: float | None, said: str, days: int = 1
) -> Verdict:
    broken = (low is not None and value < low) or (high is not None and value > high)
    first = reading.night - timedelta(days=days - 1)
    return Verdict(reading.source, name, "violated" if broken else "ok", value, low, high, said, first)


def _unjudged(reading: Reading, name: str, low: float | None, high: float | None, said: str) -> Verdict:
    return Verdict(reading.source, name, "not judged", None, low, high, said, reading.night)


def _worst(found: Sequence[Verdict]) -> Verdict | None:
    """Return the first violated verdict, else the first."""
    return next((v for v in found if v.state == "violated"), found[0] if found else None)


def _newest(values: Floats) -> npt.NDArray[np.int64]:
    """Return the row of each column's last value; -1 for a column without any."""
    seen = np.isfinite(values)
    return np.where(seen.any(axis=0), len(values) - 1 - seen[::-1].argmax(axis=0), -1)


def _weeks(panel: Panel) -> tuple[Floats, list[Floats]]:
    """Return the last seven days as they stand, and the weeks before them as far as they are sound."""
    earlier = [panel.sound[end - 7 : end] for end in range(DAYS - 7, 6, -7)]
    return panel.values[DAYS - 7 :], earlier


def _sum(week: Floats) -> F64:
    """Return the sum of each column over a week, a missing day counted as the mean of at least four; else NaN."""
    seen = np.isfinite(week).sum(axis=0)
    total = np.nansum(week.astype(np.float64), axis=0)
    return np.where(seen >= 4, total * 7 / np.maximum(seen, 1), np.nan)


def _change(week: Floats) -> F64:
    """Return last over first value of each column that has both at least four days apart, and is above 0 at first."""
    seen = np.isfinite(week)
    first, last = seen.argmax(axis=0), _newest(week)
    known = seen.any(axis=0) & (last - first >= 4)
    columns = np.flatnonzero(known)
    before = week[first[known], columns].astype(np.float64)
    after = week[last[known], columns].astype(np.float64)
    return np.asarray(after[before > 0] / before[before > 0], np.float64)


def _moving(week: Floats, kind: Kind) -> npt.NDArray[np.bool_]:
    """Return, for each column with enough values in a week, whether it moved."""
    if kind == "stock":
        return np.asarray(_change(week) != 1, np.bool_)
    total = _sum(week)
    return np.asarray(total[np.isfinite(total)] > 0, np.bool_)
