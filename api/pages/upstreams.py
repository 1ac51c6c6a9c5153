"""What the pages say of the upstreams: a banner while a contract is broken, and a table of all canaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.pages.words import NONE, SOURCES, count_things
from astrid.pipeline.canaries import DISCREPANT, MEANINGS, UNJUDGED, keeps_out_scores
from astrid.store import CanaryRow, ReconciledWeek

ORDER: Final = {"violated": 0, "accepted": 1, "ok": 2}


def upstreams_section(verdicts: Sequence[CanaryRow], weeks: Sequence[ReconciledWeek]) -> dict[str, Any]:
    """Return the values of the banner and of the section: violations first; of what said nothing the number alone."""
    ordered = sorted(verdicts, key=lambda row: (ORDER.get(row.state, len(ORDER)), row.source, row.name))
    broken: dict[str, list[CanaryRow]] = {}
    for row in ordered:
        if row.state == "violated":
            broken.setdefault(SOURCES.get(row.source, row.source), []).append(row)
    unjudged = sum(row.state == "not judged" for row in verdicts)
    unasked = sorted({SOURCES.get(row.source, row.source) for row in verdicts if row.state == "not asked"})
    differing = sum(week.difference > DISCREPANT for week in weeks)
    return {
        "broken": [
            (source, rows, any(keeps_out_scores(row.source, row.name) for row in rows))
            for source, rows in broken.items()
        ],
        "canaries": [describe_canary(row) for row in ordered if row.state not in UNJUDGED],
        "unjudged": count_things(unjudged, "canary", "canaries") if unjudged else "",
        "unasked": ", ".join(unasked),
        "judged_day": verdicts[0].day if verdicts else None,
        "compared": count_things(len(weeks), "project-week") if weeks else "",
        "differing": count_things(differing, "project-week"),
        "tolerance": DISCREPANT,
    }


def describe_canary(row: CanaryRow) -> dict[str, Any]:
    """Return a row of the table."""
    bounds = [f"at least {row.low:.2g}" if row.low is not None else "", f"at most {row.high:.2g}" if row.high else ""]
    return {
        "row": row,
        "source": SOURCES.get(row.source, row.source),
        "meaning": MEANINGS.get(row.name, ""),
        "value": NONE if row.value is None else f"{row.value:.3g}",
        "sound": ", ".join(filter(None, bounds)),
    }
