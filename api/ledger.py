"""The bodies of the answers about the ledger: what is missing, why, and when it will be asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from api.accounts import Absent, Item, Listing, Scope, SourceCalendar, Stretch, Tally
from api.state import Directory
from astrid.pipeline.ledger import WAITING, Why
from astrid.pipeline.tries import NextTry
from astrid.timeline import night_start


def next_body(told: NextTry) -> dict[str, Any]:
    """Return what will be done about a missing value."""
    return {
        "kind": told.kind,
        "night": told.night,
        "at": told.at,
        "source": told.source or None,
        "why": told.why or None,
    }


def _head(scope: Scope, as_of: datetime | None, expected: int, observed: int) -> dict[str, Any]:
    return {
        "start": scope.start,
        "end": scope.end,
        "as_of": as_of.astimezone(UTC) if as_of else None,
        "coverage": observed / expected if expected else 0.0,
        "next_night": {"day": scope.nights.next, "at": night_start(scope.nights.next)},
    }


def gaps_body(
    scope: Scope,
    listing: Listing,
    items: Sequence[Item],
    directory: Directory,
    as_of: datetime | None,
    limit: int,
    offset: int,
) -> dict[str, Any]:
    """Return a page of missing or late values."""
    slugs = {project.entity_id: project.slug for project in directory.projects.values()}
    return {
        **_head(scope, as_of, listing.expected, listing.observed),
        "total": len(listing.rows),
        "limit": limit,
        "offset": offset,
        "items": [gap_body(slugs[item.entity_id], item) for item in items],
    }


def gap_body(slug: str, item: Item) -> dict[str, Any]:
    """Return one missing or late value; what no run wrote a row about has no run and no times."""
    entry = item.entry
    late = item.why == Why.NOTHING
    return {
        "slug": slug,
        "source": item.metric.source,
        "metric": item.metric.name,
        "day": item.day,
        "state": "healed" if late else "waiting" if item.why in WAITING else "open",
        "reason": item.reason,
        "attempts": entry.attempts if entry else 0,
        "first_seen_at": entry.first_seen_at.astimezone(UTC) if entry else None,
        "last_seen_at": entry.last_seen_at.astimezone(UTC) if entry else None,
        "healed_at": entry.healed_at.astimezone(UTC) if entry and entry.healed_at else None,
        "run_id": entry.run_id if entry else None,
        "healed_run": entry.healed_run if entry else None,
        "next": next_body(item.next) if item.next else None,
    }


def calendar_body(
    slug: str, scope: Scope, calendar: Sequence[SourceCalendar], as_of: datetime | None
) -> dict[str, Any]:
    """Return the days of one project, source by source, equal days in a row as one."""
    expected, observed = (sum(getattr(c, name) for c in calendar) for name in ("expected", "observed"))
    return {
        "slug": slug,
        **_head(scope, as_of, expected, observed),
        "sources": [
            {
                "source": source.source,
                "metrics": list(source.metrics),
                "expected": source.expected,
                "observed": source.observed,
                "missing": source.expected - source.observed,
                "coverage": source.observed / source.expected if source.expected else 0.0,
                "stretches": [_stretch_body(stretch) for stretch in source.stretches],
            }
            for source in calendar
        ],
    }


def _stretch_body(stretch: Stretch) -> dict[str, Any]:
    return {
        "first_day": stretch.first,
        "last_day": stretch.last,
        "days": stretch.days,
        "state": stretch.state,
        "expected": stretch.expected,
        "observed": stretch.observed,
        "missing": stretch.expected - stretch.observed,
        "absent": [_absent_body(absent) for absent in stretch.absent],
    }


def _absent_body(absent: Absent) -> dict[str, Any]:
    return {"metric": absent.metric, "reason": absent.reason, "next": next_body(absent.next)}


def coverage_body(scope: Scope, tallies: Sequence[Tally], as_of: datetime | None) -> dict[str, Any]:
    """Return counts per metric and day."""
    expected, observed = (sum(int(getattr(t, name).sum()) for t in tallies) for name in ("expected", "observed"))
    counts = ("expected", "observed", "late", "missing", "waiting", "unexplained", "beyond")
    return {
        **_head(scope, as_of, expected, observed),
        "projects": len(scope.entity_ids),
        "metrics": [
            {
                "source": tally.metric.source,
                "metric": tally.metric.name,
                "coverage": _share(tally),
                **{name: getattr(tally, name).tolist() for name in counts},
            }
            for tally in tallies
        ],
    }


def _share(tally: Tally) -> float:
    expected = int(tally.expected.sum())
    return int(tally.observed.sum()) / expected if expected else 0.0
