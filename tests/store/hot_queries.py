"""Every query that reads a large table, with arguments as pages, the API, planner and scoring ask; or why it is none.

``QUERIES`` holds (topic, name) -> argument lists, of each of which a plan is made. A new query on a large table is
entered here, with its ``_as_of`` sister, or among ``OTHERS``.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

from astrid.store.queries import load_queries

LARGE: Final = (
    "observation", "observation_revision", "score", "score_component", "score_revision", "gap", "gap_revision",
)  # fmt: skip

METRICS: Final = (1, 2, 3, 4, 5, 6, 10, 11, 20, 21, 30, 31)
PROJECTS: Final = 100
DAYS: Final = 480
LAST: Final = date(2026, 3, 31)
AS_OF: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)

_FEW: Final = [3, 4, 5, 6, 7]
_ALL: Final = list(range(1, PROJECTS + 1))
_QUARTER: Final = LAST - timedelta(days=90)
_FIRST: Final = LAST - timedelta(days=DAYS - 1)
_YEAR: Final = LAST - timedelta(days=364)
_MOMENT: Final = datetime(2026, 4, 1, 4, tzinfo=UTC)
_KEYS: Final = ([1, 1, 30], [3, 4, 5], [LAST, LAST - timedelta(days=9), _QUARTER])


def _both(*calls: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the argument lists of a query and of its sister as of a moment."""
    return list(calls), [(*call, AS_OF) for call in calls]


def _pairs(topic: str, queries: dict[str, list[tuple[Any, ...]]]) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
    found = {}
    for name, calls in queries.items():
        now, past = _both(*calls)
        found[topic, name], found[topic, f"{name}_as_of"] = now, past
    return found


QUERIES: Final[dict[tuple[str, str], list[tuple[Any, ...]]]] = {
    # Pages, API, scoring
    **_pairs(
        "reads",
        {
            "read_series": [("p050", 1, _YEAR, LAST)],
            "read_matrix": [(1, _FEW, _QUARTER, LAST), (1, _ALL, _FIRST, LAST)],
            "read_gaps": [("p050",)],
            "read_open_gaps": [(LAST - timedelta(days=34), LAST), (LAST, LAST)],
            "read_percentiles": [("1.0",)],
            "read_leaderboard": [(None, None, 50, 0, "1.0"), (_QUARTER, "c3", 100_000, 0, "1.0")],
            "read_score_history": [("p050", 30, "1.0"), ("p050", 5_000, "1.0")],
        },
    ),
    ("reads", "has_scores"): [("1.0", LAST)],
    ("reads", "latest_scored_day"): [("1.0",)],
    **_pairs("catalogue", {"read_first_days": [(1, _FEW), (1, _ALL)]}),
    **_pairs(
        "canaries",
        {
            "read_written": [(1, _ALL, _FIRST, LAST, []), (30, _FEW, _QUARTER, LAST, [6])],
            "read_superseded": [(1, _FEW, _FIRST, LAST, [], 400), (1, _ALL, _FIRST, LAST, [], 400)],
        },
    ),
    # The ledger's pages and routes
    **_pairs(
        "ledger",
        {
            "read_presence": [([1], _ALL, LAST - timedelta(days=34), LAST), (list(METRICS), [50], _QUARTER, LAST)],
            "read_newest": [(30, _ALL, 5, LAST - timedelta(days=179), LAST)],
            "read_marks": [
                (LAST - timedelta(days=34), LAST, list(METRICS), None, "not asked"),
                (_YEAR, LAST, list(METRICS), [50], "not asked"),
            ],
            "read_entries": [_KEYS],
        },
    ),
    ("ledger", "count_gaps"): [(470,)],
    ("ledger", "count_healed"): [(470,)],
    ("ledger", "count_scores"): [("1.0", LAST, 470)],
    ("ledger", "trace_value"): [(1, 50, _QUARTER)],
    ("ledger", "trace_score"): [(50, LAST)],
    ("ledger", "trace_inputs"): [([1, 2, 20, 30], 50, _FIRST, LAST, AS_OF)],
    # The planner
    ("reads", "read_waiting_gaps"): [(LAST - timedelta(days=34), LAST, _MOMENT, "not asked")],
    ("reads", "read_last_tries"): [(LAST - timedelta(days=34), LAST, "not asked")],
    ("reads", "read_feeds"): [([30], LAST - timedelta(days=179), LAST)],
    ("reads", "read_last_days"): [([1, 2, 3, 4, 5, 6], LAST - timedelta(days=179), LAST)],
    # Writes whose statement stands alone
    ("observations", "read_standing"): [(1, _FEW, _QUARTER, LAST), (1, _ALL, _FIRST, LAST)],
    ("observations", "decide"): [
        (*_KEYS, [1.0, 2.0, 3.0], [1, 1, 5], [10, 10, 10], _MOMENT, 481, _QUARTER, LAST, [1, 5], [10, 10])
    ],
    ("observations", "read_open_keys"): [(1, _QUARTER, LAST, 1, PROJECTS)],
    ("observations", "heal_gaps"): [(1, [3, 4], [LAST, _QUARTER], _MOMENT, 481)],
    ("observations", "write_gaps"): [
        (*_KEYS, ["out", "out", "out"], [True, True, False], _MOMENT, 481, _QUARTER, LAST)
    ],
    ("digests", "read_present"): [(list(range(1, 73)),)],
    ("scores", "record_publication"): [("1.0", LAST, _MOMENT, 470, None)],
}

_TEMPORARY: Final = "joins a temporary table that its transaction makes, key by key"
_DAY: Final = "joins a temporary table with the scores of one day, by (method_version, day)"
_WHOLE: Final = "reads whole tables on purpose, a slice of projects at a time: a digest or an export, no page"
OTHERS: Final[dict[tuple[str, str], str]] = {
    ("observations", "replace_differing"): _TEMPORARY,
    **{("scores", name): _DAY for name in (
        "mark_changes", "keep_superseded", "drop_superseded", "publish_scores", "publish_components",
    )},
    **{("digests", name): _WHOLE for name in LARGE if name != "gap_revision"},
}  # fmt: skip


def list_queries() -> dict[tuple[str, str], str]:
    """Return (topic, name) -> text of every query of the store that names a large table, or what it was as of then."""
    names = "|".join((*LARGE, "gap_as_of"))
    named = re.compile(rf"\b(?:FROM|JOIN|INTO|UPDATE|USING)\s+(?:{names})\b")
    found = {}
    for entry in files("astrid.store.queries").iterdir():
        topic, dot, suffix = entry.name.partition(".")
        if dot and suffix == "sql":
            for name, text in load_queries(topic).items():
                body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
                body = body.replace('"{table}"', "observation")  # or a partition of it
                if named.search(body):
                    found[topic, name] = body
    return found


FILL: Final = """
INSERT INTO entity (slug, name, category, first_tracked)
SELECT 'p' || lpad(n::text, 3, '0'), 'P' || n, 'c' || n % 7, '2024-01-01' FROM generate_series(1, {projects}) n;

INSERT INTO observation (metric_id, entity_id, day, value, origin_id, observed_at, run_id)
SELECT m, e, date '{last}' - d, e * 1000 - d, CASE WHEN m = 30 THEN 5 ELSE 1 END,
       (date '{last}' - d + 1)::timestamptz + interval '5 hours', {days} - d
FROM unnest(array{metrics}) m, generate_series(1, {projects}) e, generate_series(0, {days} - 1) d
ORDER BY m, e, d DESC;

INSERT INTO observation_revision (metric_id, entity_id, day, value, origin_id, observed_at, run_id, superseded_at,
                                  superseded_by_run)
SELECT metric_id, entity_id, day, value - 1, origin_id, observed_at, run_id, observed_at + interval '1 day', run_id + 1
FROM observation WHERE (metric_id + entity_id + (day - date '2020-01-01')) % 10 = 0;

INSERT INTO run (kind, day, state, code_version, method_version, started_at, finished_at)
SELECT 'nightly', date '{last}' - d, 'complete', '0', '1.0', (date '{last}' - d + 1)::timestamptz + interval '5 hours',
       (date '{last}' - d + 1)::timestamptz + interval '6 hours'
FROM generate_series({days} - 1, 0, -1) d;

INSERT INTO score (method_version, day, entity_id, score, calibrated, percentile, flags, rank, run_id, published_at)
SELECT '1.0', date '{last}' - d, e, 50, false, e, 0, e, {days} - d,
       (date '{last}' - d + 1)::timestamptz + interval '6 hours'
FROM generate_series(0, 199) d, generate_series(1, {projects}) e;
INSERT INTO score_component (method_version, day, entity_id, metric_id, contribution, flags)
SELECT method_version, day, entity_id, m, 0.5, 0 FROM score, unnest(array[1, 2, 20, 30]) m;
INSERT INTO score_revision (method_version, day, entity_id, score, calibrated, percentile, flags, rank, run_id,
                            published_at, components, superseded_at, superseded_by_run)
SELECT method_version, day, entity_id, 49, false, percentile, flags, rank, run_id, published_at - interval '1 hour',
       '[]', published_at, run_id FROM score;
INSERT INTO publication (method_version, day, published_at, run_id, scores)
SELECT method_version, day, published_at, max(run_id), count(*) FROM score GROUP BY method_version, day, published_at;

INSERT INTO gap (metric_id, entity_id, day, reason, attempts, retry, first_seen_at, last_seen_at, healed_at, run_id,
                 healed_run, recorded_at)
SELECT m, e, date '{last}' - d, 'out', 2, e % 3 = 0, (date '{last}' - d + 1)::timestamptz,
       (date '{last}' - d + 2)::timestamptz, CASE WHEN (e + d) % 5 > 0 THEN (date '{last}' - d + 3)::timestamptz END,
       {days} - d, CASE WHEN (e + d) % 5 > 0 THEN {days} - d END, (date '{last}' - d + 3)::timestamptz
FROM unnest(array{metrics}) m, generate_series(1, {projects}) e, generate_series(0, {days} - 1) d
WHERE (m + e + d) % 16 = 0;
INSERT INTO gap_revision (superseded_at, metric_id, entity_id, day, reason, attempts, retry, first_seen_at,
                          last_seen_at, run_id, recorded_at)
SELECT recorded_at, metric_id, entity_id, day, 'out', 1, retry, first_seen_at, first_seen_at, run_id, first_seen_at
FROM gap;
""".format(projects=PROJECTS, days=DAYS, last=LAST, metrics=list(METRICS))
"""Half a million values in statements that the server runs by itself, everything about a tenth revised."""
