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
    "secondary_limit_200_bare",
    "secondary_limit_429",
    "secondary_limit_429_bare",
    "too_many_http_date",
    "endpoint_spammed",
    "slow",
    "truncated_body",
    "cut_connection",
    "gzip_bomb",
    "proxy_not_found",
    "github_bad_counts",
    "github_doubled_rows",
    "stale_feed",
    "pypi_late_day",
    "pypi_hole",
    "pypi_zero_day",
    "pypi_too_many",
    "pypi_no_data",
    "pypi_bad_counts",
    "pypi_contradiction",
    "hn_too_many",
    "database_exception",
    "clickhouse_bad_counts",
    "clickhouse_foreign_rows",
    "depsdev_too_many",
    "depsdev_bad_counts",
    "depsdev_wrong_rows",
    "dockerhub_too_many",
    "dockerhub_bad_counts",
    "npm_error_1015",
    "npm_error_1015_page",
    "npm_range_cut",
    "npm_late_day",
    "npm_zero_day",
    "npm_failed_day",
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
    ``dead_tokens`` counts tokens, from the end of the list, that are refused with 401, ``suspended_tokens`` those
    before them that are refused with 403; ``app_tokens``, from the beginning, are an app's, which has no viewer. With
    ``one_user`` all tokens are one user's. ``renamed``, ``gone`` and ``reoccupied`` are shares of the repositories,
    chosen by ``seed``; the first two also of Hugging Face's models, ``gated`` of these alone. ``private`` ones vanish
    for one night in seven; of ``purged`` ones a tenth of the stars is taken away on a day of their own, in the history
    also from the past; ``empty`` ones have no commit, ``archived`` ones no new one; ``early`` ones have a star on the
    day before their creation; the histories of ``ancient`` ones fail. With ``late_week`` a history lacks its newest
    week until Tuesday. GitHub's hourly limits are multiplied by ``quota``, and last ``hour_s`` seconds; its clock is
    ahead by ``skew_s`` seconds; with ``incomplete_search`` its search runs out of time at half of what matches. With
    ``pypi_mirrors`` pypistats states downloads with mirrors too; with ``pypi_stalls_days`` it gets new days only once
    in so many, then all that it owes. ClickHouse cuts results at ``clickhouse_rows``. ``resets`` is the share of the
    counters of deps.dev, Docker Hub and Hugging Face that begin anew every 28 days. With ``hn_search_down`` the search
    of Hacker News fails; it is ``hn_lag_s`` seconds behind Hacker News itself; with ``hn_typos`` a word also finds what
    is one letter off. Every ``hn_crowd``-th number of Hacker News is one of a made-up story; with ``hn_burst_s`` all
    stories are created at full multiples of so many seconds; ``hn_bad_points`` is the share of those whose points are
    no count; with ``hn_newer_form`` hits of the search have the form of newer answers.
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
    private: float = 0.0
    purged: float = 0.0
    empty: float = 0.0
    archived: float = 0.0
    early: float = 0.0
    ancient: float = 0.0
    late_week: bool = False
    suspended_tokens: int = 0
    app_tokens: int = 0
    one_user: bool = False
    quota: float = 1.0
    hour_s: float = 3600.0
    skew_s: float = 0.0
    incomplete_search: bool = False
    pypi_mirrors: bool = False
    pypi_stalls_days: int = 0
    clickhouse_rows: int = 1000
    resets: float = 0.0
    hn_search_down: bool = False
    hn_lag_s: float = 0.0
    hn_typos: bool = False
    hn_crowd: int = 0
    hn_burst_s: int = 0
    hn_bad_points: float = 0.0
    hn_newer_form: bool = False


CALM: Final = Scenario("calm", "no faults")

SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        CALM,
        Scenario("faults", "every fault of single requests, 2 % of them", probability=0.02, faults=FAULTS),
        *(Scenario(kind, f"{kind} on 2 % of the requests", probability=0.02, faults=(kind,)) for kind in FAULTS),
        Scenario("dead_token", "the last token is refused: 401 Bad credentials", dead_tokens=1),
        Scenario("suspended_token", "the last token's user is suspended: 403 without rate headers", suspended_tokens=1),
        Scenario("app_token", "the first token is an app's: it has no viewer (FORBIDDEN)", app_tokens=1),
        Scenario("one_user", "all tokens are one user's and share its limits", one_user=True),
        Scenario("small_quota", "GitHub's hourly limits are a fiftieth: both primary wordings", quota=0.02),
        Scenario(
            "short_windows", "GitHub's windows of an hour last 2 minutes: resets in the run", quota=0.05, hour_s=120
        ),
        Scenario("pypi_mirrors", "pypistats states downloads with mirrors too, made up: 1 % more", pypi_mirrors=True),
        Scenario(
            "pypi_stalls", "pypistats stands still as a whole, and catches up once in 14 days", pypi_stalls_days=14
        ),
        Scenario("clickhouse_cut", "ClickHouse cuts results at 20 rows without a word", clickhouse_rows=20),
        Scenario("counter_reset", "2 % of the cumulative counters begin anew every 28 days", resets=0.02),
        Scenario("hn_search_down", "the search of Hacker News fails: 503 for everything", hn_search_down=True),
        Scenario("hn_lag", "the search of Hacker News is 12 hours behind its items", hn_lag_s=43_200.0),
        Scenario("hn_typos", "the search of Hacker News also finds what is one letter off the words", hn_typos=True),
        Scenario("hn_crowded", "Hacker News has thousands of made-up stories more a day: nights split", hn_crowd=3),
        Scenario(
            "hn_bursts",
            "thousands more, all created at full three quarters of an hour, where nights split",
            hn_crowd=3,
            hn_burst_s=2_700,
        ),
        Scenario("hn_bad_points", "2 % of Hacker News' stories have null, -5 or a text for points", hn_bad_points=0.02),
        Scenario("hn_newer_form", "the search answers in its newer form: a number for story_id", hn_newer_form=True),
        Scenario("clock_skew", "GitHub's clock is 10 minutes fast: dates and resets alike", skew_s=600.0),
        Scenario("clock_slow", "GitHub's clock is 10 minutes slow: dates and resets alike", skew_s=-600.0),
        Scenario("incomplete_search", "GitHub's search ends at half of what matches", incomplete_search=True),
        Scenario(
            "secondary_limit_storm",
            "GitHub refuses half of the requests without a word about how long: longer and longer waits",
            probability=0.5,
            faults=("secondary_limit_bare", "secondary_limit_429_bare", "secondary_limit_200_bare"),
        ),
        Scenario(
            "private", "2 % of the repositories are private for one night in seven (404, then back)", private=0.02
        ),
        Scenario("purged", "2 % of the repositories lose a tenth of their stars, of the past too", purged=0.02),
        Scenario("empty", "2 % of the repositories are empty: null defaultBranchRef", empty=0.02),
        Scenario("archived", "2 % of the repositories are archived", archived=0.02),
        Scenario("early_star", "2 % of the histories have a star on the day before the creation", early=0.02),
        Scenario("ancient", "2 % of the histories fail with 502, as those of very old repositories", ancient=0.02),
        Scenario("late_week", "histories lack their newest week until Tuesday", late_week=True),
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
