"""Named scenarios: which faults an upstream shows, how often, and what is odd about its entities."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from astrid.errors import ConfigError

FAULTS: Final = (
    "bad_gateway_json",
    "bad_gateway_html",
    "resource_limits",
    "secondary_limit",
    "secondary_limit_bare",
    "secondary_limit_200",
    "too_many_http_date",
    "endpoint_spammed",
    "slow",
    "truncated_body",
    "cut_connection",
    "stale_feed",
    "hn_too_many",
    "database_exception",
    "npm_error_1015",
    "npm_error_1015_page",
    "npm_range_cut",
    "npm_late_day",
    "npm_zero_day",
    "npm_doubled_day",
    "huggingface_too_many",
    "huggingface_bad_count",
    "endless_paging",
)
"""Faults of single requests, see :mod:`astrid.simulators.faults`."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How the upstreams of one run behave.

    ``probability`` is the chance of a fault per request and ``faults`` the kinds to draw from.
    ``dead_tokens`` counts tokens, from the end of the list, that are refused with 401. ``renamed``,
    ``gone`` and ``reoccupied`` are shares of the repositories, chosen by ``seed``; the first two also of Hugging Face's
    models, ``gated`` of these alone.
    """

    name: str
    summary: str
    seed: int = 20260331
    probability: float = 0.0
    faults: tuple[str, ...] = ()
    dead_tokens: int = 0
    renamed: float = 0.0
    gone: float = 0.0
    reoccupied: float = 0.0
    gated: float = 0.0


CALM: Final = Scenario("calm", "no faults")

SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        CALM,
        Scenario("faults", "every fault of single requests, 2 % of them", probability=0.02, faults=FAULTS),
        *(Scenario(kind, f"{kind} on 2 % of the requests", probability=0.02, faults=(kind,)) for kind in FAULTS),
        Scenario("dead_token", "the last token is refused: 401 Bad credentials", dead_tokens=1),
        Scenario("renamed", "2 % of the repositories have a new name", renamed=0.02),
        Scenario("gone", "2 % of the repositories are deleted (404) or blocked (451, 403)", gone=0.02),
        Scenario("reoccupied", "2 % of the repositories moved and a stranger took the old name", reoccupied=0.02),
        Scenario("gated", "2 % of Hugging Face's models are for approved accounts only (401, 403)", gated=0.02),
    )
}


def load_scenario(name: str) -> Scenario:
    """Return the scenario called ``name``.

    Raises
    ------
    ConfigError
        If there is none; the message names the nearest.
    """
    if name not in SCENARIOS:
        near = difflib.get_close_matches(name, SCENARIOS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(SCENARIOS)}"
        raise ConfigError(f"unknown scenario {name!r}: {hint}")
    return SCENARIOS[name]
