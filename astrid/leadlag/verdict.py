"""The rules by which a lead is established. They were written down before any result was looked at.

All must hold. What cannot be computed does not hold. Changing a rule needs a new PROTOCOL_VERSION and a line in the
decision record; a figure is published with the version that it was judged by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from astrid.leadlag.forecasts import Comparison
from astrid.leadlag.regression import Granger, Slope
from astrid.leadlag.resampling import Resampled

PROTOCOL_VERSION: Final = "1"

LAG_DAYS: Final = 56
"""The one lag: eight weeks."""

ALPHA: Final = 0.05
"""Level of every test in sample. Tests are two-sided and the sign must be positive as well."""

ALPHA_FORECAST: Final = 0.10
"""Level of the comparison out of sample: with nested models it rejects too rarely."""

CHANGES_MIN: Final = 24
"""Fewer changes decide nothing: a lead that explains a quarter is missed more often than not in a search."""

GRANGER_ORDERS: Final = (1, 2)
JUDGED_ORDER: Final = 2
"""The order that holds eight weeks of a monthly series."""

ESTABLISHED: Final = "established"
NOT_ESTABLISHED: Final = "not established"
Verdict = Literal["established", "not established"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, whether it holds, and the figures that decide it."""

    name: str
    demand: str
    holds: bool
    found: str


def judge(
    slope: Slope | None,
    resampled: Resampled | None,
    leads: dict[int, Granger | None],
    follows: dict[int, Granger | None],
    comparison: Comparison | None,
    control: Slope | None,
    has_control: bool,
) -> tuple[Verdict, tuple[Rule, ...]]:
    """Return the verdict and every rule with its figures.

    ``slope`` and ``resampled`` are of the index at the one lag, ``leads`` and ``follows`` the Granger tests from index
    to adoption and back by order, ``control`` the slope of the control basket at the same lag.
    """
    n = 0 if slope is None else slope.n
    judged = leads.get(JUDGED_ORDER)
    back = [follows.get(order) for order in GRANGER_ORDERS]
    placebo_passes = control is not None and control.slope > 0 and control.p <= ALPHA
    rules = (
        Rule("size", f"at least {CHANGES_MIN} changes", n >= CHANGES_MIN, f"{n}"),
        Rule(
            "slope",
            f"positive at {LAG_DAYS // 7} weeks, HAC p ≤ {ALPHA}",
            slope is not None and slope.slope > 0 and slope.p <= ALPHA,
            _figures(() if slope is None else (("t", slope.t), ("p", slope.p))),
        ),
        Rule(
            "bootstrap",
            f"stationary block bootstrap p ≤ {ALPHA}",
            resampled is not None and resampled.p <= ALPHA,
            _figures(() if resampled is None else (("p", resampled.p),)),
        ),
        Rule(
            "precedence",
            f"Granger index to adoption, order {JUDGED_ORDER}: F and HAC p ≤ {ALPHA}",
            judged is not None and judged.p_f <= ALPHA and judged.p_hac <= ALPHA,
            _figures(() if judged is None else (("p F", judged.p_f), ("p HAC", judged.p_hac))),
        ),
        Rule(
            "direction",
            f"Granger adoption to index does not pass the same test at order 1 or 2 (F and HAC p ≤ {ALPHA})",
            all(g is not None and max(g.p_f, g.p_hac) > ALPHA for g in back),
            "; ".join(_figures(() if g is None else (("p F", g.p_f), ("p HAC", g.p_hac))) for g in back),
        ),
        Rule(
            "forecast",
            f"smaller error than AR(1) out of sample, Diebold-Mariano p ≤ {ALPHA_FORECAST}",
            comparison is not None and comparison.ratio < 1 and comparison.p <= ALPHA_FORECAST,
            _figures(() if comparison is None else (("ratio", comparison.ratio), ("p", comparison.p))),
        ),
        Rule(
            "placebo",
            f"the control basket was tested on as many changes and does not pass (positive, HAC p ≤ {ALPHA})",
            has_control and control is not None and control.n >= CHANGES_MIN and not placebo_passes,
            "no control given"
            if not has_control
            else _figures(() if control is None else (("t", control.t), ("p", control.p), ("n", control.n))),
        ),
    )
    return (ESTABLISHED if all(rule.holds for rule in rules) else NOT_ESTABLISHED), rules


def _figures(pairs: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in pairs) if pairs else "not computable"
