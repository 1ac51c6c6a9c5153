"""What is said with every result: its figures as plain data, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from astrid.evaluation.bootstrap import LEVEL, RESAMPLES, Estimate
from astrid.evaluation.measures import PICKS, TOP_SHARE
from astrid.evaluation.panel import Panel
from astrid.evaluation.star_score import FITTED_UNTIL
from astrid.evaluation.walk import HorizonResult, Result

LIMITS: Final = (
    "The result holds for the repositories of the file, on one platform; a list of large repositories holds survivors.",
    "A high IC mostly reflects that growth persists: read every row beside the 90-day ratio and the 28-day growth.",
    "Score and target share the count of the day, so its error is in both.",
    "Measured is who has a count on the day, 90 days before it and at the horizon: nobody younger, nobody who left.",
    "The file of renames and the choice of the repositories in the file use hindsight.",
)


def list_limits(panel: Panel, result: Result) -> list[str]:
    """Return sentences on what the result does not show: the general ones, then those of these very days."""
    limits = list(LIMITS)
    if result.scored and panel.days[result.scored[0].row] <= FITTED_UNTIL:
        limits.append(
            f"The score was fitted on days up to {FITTED_UNTIL}: those of them that are evaluated here are no test."
        )
    for h in result.horizons:
        if not h.days:
            limits.append(
                f"{h.horizon} days: no day could be measured; it takes 30 repositories with every rule's look-back "
                "and a count at the horizon."
            )
            continue
        bound = h.chance * h.repos / PICKS
        if bound < 1:
            limits.append(
                f"{h.horizon} days: the top {TOP_SHARE:.0%} are {h.chance * h.repos:.0f} repositories on average: no "
                f"precision at {PICKS} can exceed {bound:.2f}; the one at top takes a list as long as that top."
            )
        if len(h.days) < 2 * h.block:
            limits.append(
                f"{h.horizon} days: {len(h.days)} evaluated days are fewer than two blocks of {h.block}, so there are "
                "no intervals."
            )
    return limits


def to_dict(panel: Panel, result: Result, *, every: int, seed: int) -> dict[str, Any]:
    """Return the whole result as plain data; what is not known is None."""
    return {
        "score_version": result.version,
        "score_fitted_until": str(FITTED_UNTIL),
        "panel": {
            "repos": len(panel.repos),
            "first_day": str(panel.days[0]),
            "last_day": str(panel.days[-1]),
            "observations": int(np.count_nonzero(~np.isnan(panel.stars))),
            "forks": panel.forks is not None,
        },
        "evaluated": {
            "every": every,
            "days": len(result.scored),
            "first_day": str(panel.days[result.scored[0].row]) if result.scored else None,
            "last_day": str(panel.days[result.scored[-1].row]) if result.scored else None,
        },
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL, "seed": seed},
        "horizons": {str(h.horizon): _horizon(h) for h in result.horizons},
        "limits": list_limits(panel, result),
    }


def _horizon(h: HorizonResult) -> dict[str, Any]:
    return {
        "days": len(h.days),
        "first_day": str(h.days[0]) if h.days else None,
        "last_day": str(h.days[-1]) if h.days else None,
        "block": h.block,
        "repos_mean": _known(h.repos),
        "chance": _known(h.chance),
        "new_chance": _known(h.new_chance),
        "rows": {name: _estimates(row) for name, row in h.rows.items()},
        "differences": {f"{a} - {b}": _estimates(row) for (a, b), row in h.differences.items()},
        "coverage": _estimates(h.coverage),
    }


def _estimates(row: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"value": _known(e.value), "lo": _known(e.lo), "hi": _known(e.hi), "days": e.dates}
        for name, e in row.items()
    }


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
