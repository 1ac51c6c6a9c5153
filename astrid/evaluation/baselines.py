"""The rules that a score has to beat: each ranks repositories by counts known on the day.

Where a day of the past has no observation, the last one of the three days before it stands in, unscaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from astrid.evaluation.panel import Counts, Panel
from astrid.evaluation.targets import Values, count_before, log_count

MONTH: Final = 30
"""Days in the window of the OSS-Insight-like rule."""

Rule = Callable[[Panel, int], Values]
"""From a panel and a row the value of each column; it reads no later row."""


def ratio(days: int) -> Rule:
    """Return the rule C(t) / C(t - days): with 90 days the one of the ROSS index, without its floor of 1,000 stars."""

    def rule(panel: Panel, row: int) -> Values:
        then = count_before(panel.stars, row - days)
        grown: Values = panel.stars[row].astype(np.float64) / np.where(then > 0, then, np.nan)
        return grown

    return rule


def growth(days: int) -> Rule:
    """Return the rule log(C(t) + 10) - log(C(t - days) + 10)."""

    def rule(panel: Panel, row: int) -> Values:
        return log_count(panel.stars[row]) - log_count(count_before(panel.stars, row - days))

    return rule


def gained(days: int) -> Rule:
    """Return the rule C(t) - C(t - days): with 7 days what trending pages show."""

    def rule(panel: Panel, row: int) -> Values:
        gain: Values = panel.stars[row].astype(np.float64) - count_before(panel.stars, row - days)
        return gain

    return rule


def total(panel: Panel, row: int) -> Values:
    """Rank by the count itself."""
    count: Values = panel.stars[row].astype(np.float64)
    return count


def oss_insight_like(panel: Panel, row: int) -> Values:
    """Rank as OSS Insight's trending query does, as far as daily counts allow.

    With f running from 0 to 1 over the last month, a star weighs clamp(3 f, 2, 5), a fork clamp(3 f, 1, 4), and
    200 / (1 + years) is added. Not repeated: its filters (distinct actors, bots, pushes, 5 to 50,000 stars), and the
    years count from the first observation in the panel. A day's net loss counts as no stars.
    Source: api/queries/trending-repos/template.sql of pingcap/ossinsight.
    """
    weighed = _weigh(panel.stars, row, 2.0, 5.0)
    if panel.forks is not None:
        weighed += np.nan_to_num(_weigh(panel.forks, row, 1.0, 4.0))
    seen = ~np.isnan(panel.stars[: row + 1])
    years = np.where(seen.any(axis=0), row - seen.argmax(axis=0), 0) / 365.25
    aged: Values = weighed + 200 / (1 + years)
    return aged


def _weigh(counts: Counts, row: int, least: float, most: float) -> Values:
    """Return the daily gains of the last month, weighted by how recent they are; NaN where its start is unknown."""
    last = count_before(counts, row - MONTH)
    score = last - last  # 0, or NaN
    for ago in range(min(MONTH, row + 1) - 1, -1, -1):
        today = counts[row - ago].astype(np.float64)
        weight = min(max(3 * (MONTH - ago) / MONTH, least), most)
        gain = np.maximum(today - last, 0)
        score += np.where(np.isnan(gain) & ~np.isnan(score), 0, weight * gain)
        np.copyto(last, today, where=~np.isnan(today))
    return score


RULES: Final[Mapping[str, Rule]] = {
    "ratio_90d": ratio(90),
    "growth_90d": growth(90),
    "growth_28d": growth(28),
    "growth_7d": growth(7),
    "oss_insight_like": oss_insight_like,
    "gained_7d": gained(7),
    "total": total,
}
"""The baselines by name, in the order of the report."""
