"""Canaries: does an upstream still keep the contract that its numbers rest on? Pure functions of arrays.

An upstream that decays does not fail: it answers 200 with less, or with something else (GH Archive lost four fifths
of its stars that way, and no alarm rang). Each canary measures one thing of one source from what stands in the store
after a night's crawl and gives a :class:`Verdict`. Too little to go by is a verdict of its own, never a pass.

Why these measures and thresholds, and how often each rings on sound data: docs/adr/0017-canaries.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRICS, Kind

F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
State = Literal["ok", "violated", "not judged", "not asked"]

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

SETTLED_DAYS: Final = 14
"""Older days have been stated for good: an upstream that states them otherwise tells another story."""

COMPARED_DAYS: Final = 28
"""A series is compared with what it replaced over so many settled days or more."""

REWRITTEN: Final = (0.8, 1.25)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one canary says of one source on one night.

    ``value`` is what was measured (None: nothing could be), ``low`` and ``high`` the range in which it is sound (None:
    no bound). ``first_day`` to the night's day is the stretch that was measured: whatever runs before this one wrote
    for these days is doubted with it.
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
    """One metric of a source's projects up to a night: float32 arrays (T, N), a row per day, the last the night's day.

    ``values`` (DAYS, N) as they stand, NaN is a gap. ``sound`` (DAYS or more, N) is what they are held against: as it
    stood before the week that is judged, without what was written while the source was violated, and as far back as it
    takes to have WEEKS of it; so what is broken never becomes its own measure, however long it lasts and whatever it
    rewrites. ``own`` are the values that the source itself stated (None: all are): a stand-in's say nothing of it.
    ``asked`` (DAYS,) tells the nights on which anybody was asked (None: all).
    """

    metric: str
    kind: Kind
    values: Floats
    sound: Floats
    own: Floats | None = None
    asked: Bools | None = None

    @property
    def stated(self) -> Floats:
        """What the source itself stated."""
        return self.values if self.own is None else self.own

    @property
    def nights(self) -> Bools:
        """Bool (DAYS,): the nights on which anybody was asked."""
        return np.ones(len(self.values), bool) if self.asked is None else self.asked


@dataclass(frozen=True, slots=True)
class Reading:
    """What the canaries of one source go by.

    ``panels`` hold the source's leading metric and its scored ones, the leading one first; ``also`` further ones of
    which only the absence counts. ``stories`` is the number of stories beside ``panels[0].sound``, its last rows beside
    ``values``, where the source counts points of stories. ``history`` and ``moved`` are the weekly gains that history
    and snapshots state, one entry per project and week, ``weeks`` how many weeks before the newest one each is of;
    ``other`` and ``own`` the counts of one thing that this source and the one it is held against state, one entry per
    project. ``before`` and ``after`` (DAYS, M) are the series that the last nights read anew as a whole, as they stood
    and as they stand; None: the source never reads anew.

    ``was_stale`` says that the last verdict on freshness was a violation, ``standing`` which other canaries' alarms
    have not been refuted yet.
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
    standing: frozenset[str] = frozenset()
    also: tuple[Panel, ...] = ()
    weeks: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    before: Floats | None = None
    after: Floats | None = None

    @property
    def asked(self) -> bool:
        """Whether the night asked for anything."""
        return not self.panels or any(panel.nights[-1] for panel in (*self.panels, *self.also))


Measure = Callable[[Reading], Verdict]


def judge(reading: Reading) -> list[Verdict]:
    """Return the verdict of every canary that a source has, in the order of :data:`CANARIES`.

    An alarm lasts until something refutes it: a night that has too little to go by does not end it.
    """
    return [_hold(measure(reading), reading) for name, measure in CANARIES.items() if _applies(name, reading)]


def _hold(verdict: Verdict, reading: Reading) -> Verdict:
    if verdict.state != "not judged":
        return verdict
    if not reading.asked and verdict.name in ABSENCE:
        return replace(verdict, state="not asked", reason="the night did not ask it")
    if verdict.name in reading.standing:
        return replace(verdict, state="violated", reason=f"it rang, and nothing has refuted it since: {verdict.reason}")
    if not reading.asked:
        return replace(verdict, state="not asked", reason="the night did not ask it")
    return verdict


def judge_freshness(reading: Reading) -> Verdict:
    """Measure the share of the series, metric by metric, whose newest value is at most STALE_DAYS days old.

    A series belongs to it if it had a value in the last DAYS days; while the source was stale, any number of them is
    enough. A metric that was asked for on more than STALE_DAYS nights and has no value at all is stale too. Nights that
    did not ask do not count, and a metric that this night did not ask for is not judged.
    """
    found = []
    for panel in (*reading.panels, *reading.also):
        values, nights = panel.stated, panel.nights
        if not values.shape[1] or not nights[-1]:
            continue
        newest = _newest(values)
        living = newest >= 0
        few = np.count_nonzero(living) < SERIES_FEW
        if not living.any() and (reading.was_stale or np.count_nonzero(nights) > STALE_DAYS):
            said = f"no value of {panel.metric} in the last {DAYS} days, of {len(living)} series"
            found.append(_verdict(reading, "freshness", 0.0, FRESH_MIN, None, said))
        if not living.any() or (few and not reading.was_stale):
            continue
        asked_since = np.count_nonzero(nights) - np.cumsum(nights)
        share = float(np.mean(asked_since[newest[living]] <= STALE_DAYS))
        last = reading.night - timedelta(days=DAYS - 1 - int(newest.max()))
        said = (
            f"{share:.0%} of {np.count_nonzero(living)} series of {panel.metric} have a value of the last {STALE_DAYS} "
            f"days{'' if nights[-STALE_DAYS:].all() else ' that were asked for'}; the newest is of {last}"
        )
        found.append(_verdict(reading, "freshness", share, FRESH_MIN, None, said))
    few_said = f"fewer than {SERIES_FEW} series in {DAYS} days"
    return _worst(found) or _unjudged(reading, "freshness", FRESH_MIN, None, few_said)


def judge_truncation(reading: Reading) -> Verdict:
    """Measure the share of the values of the week before last that came, in the series of the four weeks before it.

    By then every feed is through with the week, and every slice of a weekly rotation has been asked for it: what is
    still missing was cut off. Days that nobody has are gaps of the whole feed, which the ledger and freshness know, or
    nobody was asked on them (see :func:`hold`).
    """
    found = []
    for panel in reading.panels:
        values = panel.stated
        if not panel.nights[-1]:
            continue
        window = values[DAYS - 14 : min(DAYS - 7, int(_newest(values).max(initial=-1)) + 1)]
        window = window[np.isfinite(window).any(axis=1)]
        living = np.isfinite(values[DAYS - 42 : DAYS - 14]).sum(axis=0) >= 4
        if not len(window) or np.count_nonzero(living) < SERIES_FEW:
            continue
        share = float(np.mean(np.isfinite(window[:, living])))
        count = np.count_nonzero(living)
        said = f"{share:.1%} of the values of the week before last came, in {count} series of {panel.metric}"
        found.append(_verdict(reading, "truncation", share, CAME_MIN, None, said))
    few_said = "too few series in the weeks before, or none since"
    return _worst(found) or _unjudged(reading, "truncation", CAME_MIN, None, few_said)


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
    few_said = "too few moving series or sound weeks"
    return _conclude(found, reading) or _unjudged(reading, "type_mix", MOVED_MIN, None, few_said)


def judge_points(reading: Reading) -> Verdict:
    """Measure the points per story in the last week whose points have settled, held against the weeks before it."""
    panel, stories = reading.panels[0], reading.stories
    low, high = PER_STORY
    if stories is not None:
        # Points of the last three days still grow.
        told = [float(np.nansum(week)) for week in _cut(stories, 3)]
        earlier = [float(np.nansum(week)) for week in _cut(panel.sound, 10)]
        usual = [p / s for p, s in zip(earlier, told[1:], strict=False) if s >= SERIES_MIN and p > 0]
        if told[0] >= SERIES_MIN and len(usual) >= BASELINE_MIN:
            now = float(np.nansum(panel.values[DAYS - 10 : DAYS - 3])) / told[0]
            median = float(np.median(usual))
            said = f"{now:.1f} points per story, {median:.1f} usually, in {told[0]:.0f} stories"
            return _verdict(reading, "points_per_story", now / median, low, high, said, days=10)
    return _unjudged(reading, "points_per_story", low, high, "too few stories this week or before")


def judge_level(reading: Reading) -> Verdict:
    """Measure whether all series shift together: what is counted has changed, not what is counted of.

    Flows: the median, over series of SURE_WEEK events a week or more, of this week over the median of the weeks
    before. Levels: the share of series that leave the range TORN of themselves within a week; once that rang, of their
    last sound value. Stories are few per project: there it is the number of all stories of the week, over the usual
    number.
    """
    if reading.stories is not None:
        return _judge_stories(reading, reading.stories)
    found = []
    for panel in reading.panels:
        now, earlier = _weeks(panel)
        if panel.kind == "stock":
            rang = "level" in reading.standing
            change = _since_sound(panel) if rang else _change(now)
            if len(change) >= SERIES_MIN:
                torn = float(np.mean((change < TORN[0]) | (change > TORN[1])))
                since = "since they were sound" if rang else "within a week"
                said = f"{torn:.1%} of {len(change)} series of {panel.metric} fell by 2 % or rose by half {since}"
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
    few_said = "too few large series or sound weeks"
    return _conclude(found, reading) or _unjudged(reading, "level", low, high, few_said)


def _judge_stories(reading: Reading, stories: Floats) -> Verdict:
    now, *earlier = _cut(stories)
    # What was kept out of the points was kept out of the stories: the same answers brought both.
    sound = _cut(reading.panels[0].sound)[1:]
    told = [
        float(np.nansum(w)) for w, s in zip(earlier, sound, strict=False) if np.isfinite(w).any() & np.isfinite(s).any()
    ]
    usual = float(np.median(told)) if len(told) >= BASELINE_MIN else 0.0
    if usual < SERIES_MIN or not np.isfinite(now).any():
        return _unjudged(reading, "level", STORIES[0], STORIES[1], "too few stories or weeks before")
    count = float(np.nansum(now))
    said = f"{count:.0f} stories this week, {usual:.0f} usually"
    return _verdict(reading, "level", count / usual, *STORIES, said, days=7)


def judge_rewrite(reading: Reading) -> Verdict:
    """Measure the share of the series read anew whose settled days now read quite otherwise (outside REWRITTEN).

    Per series it is the median over its settled days, so a day that is mended is no matter.
    """
    if reading.before is not None and reading.after is not None:
        before, after = (a[: DAYS - SETTLED_DAYS].astype(np.float64) for a in (reading.before, reading.after))
        known = np.isfinite(before) & np.isfinite(after) & (before > 0)
        enough = known.sum(axis=0) >= COMPARED_DAYS
        if np.count_nonzero(enough) >= SERIES_FEW:
            ratio = np.full(before.shape, np.nan)
            np.divide(after, before, out=ratio, where=known)
            median = np.nanmedian(ratio[:, enough], axis=0)
            share = float(np.mean((median < REWRITTEN[0]) | (median > REWRITTEN[1])))
            said = (
                f"{share:.1%} of {len(median)} series read anew have another past than before; the median series is "
                f"{float(np.median(median)):.2f} times what it was"
            )
            return _verdict(reading, "rewrite", share, None, DISCREPANT_MAX, said)
    return _unjudged(reading, "rewrite", None, DISCREPANT_MAX, "too few series were read anew")


def judge_capture(reading: Reading) -> Verdict:
    """Measure what the events of the history add up to, over what the snapshots moved, over all projects and weeks.

    What is wrong with weeks past stays so: where the newest are sound by themselves, they are all that counts.
    """
    low, high = CAPTURE
    found = []
    for chosen, when in _witnessed(reading, MOVED_SUM_MIN):
        ratio = float(reading.history[chosen].sum() / reading.moved[chosen].sum())
        said = f"the history has {ratio:.1%} of what the snapshots moved in {np.count_nonzero(chosen)} {when}"
        found.append(_verdict(reading, "capture", ratio, low, high, said, days=7))
    few_said = "too few project-weeks with both snapshots and history"
    return _soundest(found) or _unjudged(reading, "capture", low, high, few_said)


def judge_history(reading: Reading) -> Verdict:
    """Measure the share of project-weeks in which history and snapshots differ by more than DISCREPANT.

    As with :func:`judge_capture` the newest weeks are all that counts where they are sound.
    """
    found = []
    for chosen, when in _witnessed(reading):
        share = float(np.mean(relative_difference(reading.history[chosen], reading.moved[chosen]) > DISCREPANT))
        said = f"{share:.1%} of {np.count_nonzero(chosen)} {when} differ by more than {DISCREPANT:.0%}"
        found.append(_verdict(reading, "history_vs_count", share, None, DISCREPANT_MAX, said, days=7))
    few_said = "too few project-weeks with both snapshots and history"
    return _soundest(found) or _unjudged(reading, "history_vs_count", None, DISCREPANT_MAX, few_said)


def _witnessed(reading: Reading, moved_min: float = -np.inf) -> list[tuple[Bools, str]]:
    """Return which project-weeks are judged together, with their name: all, and the newest that are enough."""

    def suffices(chosen: Bools) -> bool:
        return int(chosen.sum()) >= SERIES_MIN and float(reading.moved[chosen].sum()) >= moved_min

    every = np.ones(len(reading.moved), bool)
    newest = (reading.weeks <= age for age in np.unique(reading.weeks))
    found = [(every, "project-weeks")] if suffices(every) else []
    return found + [(chosen, "project-weeks of the newest") for chosen in newest if suffices(chosen)][:1]


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
    "rewrite": judge_rewrite,
    "capture": judge_capture,
    "history_vs_count": judge_history,
    "second_count": judge_count,
}
"""Every canary by name. All sources have freshness, truncation, type_mix and level; rewrite those that read anew."""

ABSENCE: Final = frozenset({"freshness", "truncation"})
"""The canaries that miss values. What did come is as sound as ever, and what did not is a gap by itself."""

_KEEPS_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(ABSENCE, ()),
    "capture": ("github_stars_gained",),
    "history_vs_count": ("github_stars_gained",),
    "second_count": ("depsdev_stars",),
}
"""What a violated canary keeps out of the scores, where that is not all that its source wrote."""

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
    "rewrite": "Share of the series read anew that have another past than before",
    "capture": "Stars that the history states, over those that the snapshots moved",
    "history_vs_count": "Share of project-weeks in which history and snapshots differ",
    "second_count": "Share of projects of which another upstream counts quite otherwise",
}
"""What each canary measures, for readers."""

UNJUDGED: Final = frozenset({"not judged", "not asked"})
"""The states that say nothing of an upstream."""


def keeps_out(canary: str, metric: str) -> bool:
    """Tell whether a violation of ``canary`` keeps a metric of its source out of the scores."""
    return metric in _KEEPS_OUT.get(canary, (metric,))


def keeps_out_scores(source: str, canary: str) -> bool:
    """Tell whether a violation of ``canary`` keeps anything of a source out of the scores."""
    return any(keeps_out(canary, metric.name) for metric in METRICS if metric.source == source and metric.weight > 0)


def list_doubters(metric: str) -> list[str]:
    """Return the canaries of a metric's source that keep it out of the scores while they are violated."""
    return [name for name in CANARIES if keeps_out(name, metric)]


def relative_difference(a: F64, b: F64) -> F64:
    """Return |a - b| relative to the larger of both and 10, below which a week is chance."""
    return np.asarray(np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), 10.0), np.float64)


def hold(values: Floats, days: int) -> Floats:
    """Let each value of a snapshot that is taken every ``days`` days stand until the next is due.

    A day without any value is one on which nobody was asked, and stays a gap of all.
    """
    held = values.copy()
    for n in range(1, days):
        shifted = np.full_like(values, np.nan)
        shifted[n:] = values[:-n]
        held = np.where(np.isnan(held), shifted, held)
    held[np.isnan(values).all(axis=1)] = np.nan
    return held


def _applies(name: str, reading: Reading) -> bool:
    if name == "rewrite":
        return reading.before is not None
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


def _conclude(found: Sequence[Verdict], reading: Reading) -> Verdict | None:
    """Return the worst verdict; none that ends an alarm while one of the metrics that may have rung is not judged."""
    worst = _worst(found)
    if worst is None or worst.state == "violated" or worst.name not in reading.standing:
        return worst
    known = [panel for panel in reading.panels if np.count_nonzero(_newest(panel.sound) >= 0) >= SERIES_MIN]
    return worst if len(found) >= len(known) else None


def _soundest(found: Sequence[Verdict]) -> Verdict | None:
    """Return the first verdict that is not violated, else the first."""
    return next((v for v in found if v.state == "ok"), found[0] if found else None)


def _newest(values: Floats) -> npt.NDArray[np.int64]:
    """Return the row of each column's last value; -1 for a column without any."""
    seen = np.isfinite(values)
    return np.where(seen.any(axis=0), len(values) - 1 - seen[::-1].argmax(axis=0), -1)


def _weeks(panel: Panel) -> tuple[Floats, list[Floats]]:
    """Return the last seven days as they stand, and the weeks before them as far as they are sound."""
    return panel.values[DAYS - 7 :], _cut(panel.sound)[1:]


def _cut(rows: Floats, ago: int = 0) -> list[Floats]:
    """Cut an array into the weeks of which the newest ends ``ago`` days before its last row, the newest first."""
    return [rows[end - 7 : end] for end in range(len(rows) - ago, 6, -7)]


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


def _since_sound(panel: Panel) -> F64:
    """Return, per column that has both, the last value of this week over the last sound one before it (above 0)."""
    sound, now = panel.sound[:-7], panel.values[DAYS - 7 :]
    last, current = _newest(sound), _newest(now)
    columns = np.flatnonzero((last >= 0) & (current >= 0))
    before = sound[last[columns], columns].astype(np.float64)
    after = now[current[columns], columns].astype(np.float64)
    return np.asarray(after[before > 0] / before[before > 0], np.float64)


def _moving(week: Floats, kind: Kind) -> npt.NDArray[np.bool_]:
    """Return, for each column with enough values in a week, whether it moved."""
    if kind == "stock":
        return np.asarray(_change(week) != 1, np.bool_)
    total = _sum(week)
    return np.asarray(total[np.isfinite(total)] > 0, np.bool_)
