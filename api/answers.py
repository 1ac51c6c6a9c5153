"""The bodies of the answers: rows of the store as plain values, in the shapes of :mod:`api.schemas`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import orjson
from starlette.responses import Response

from api.series import DenseSeries
from api.state import Board, Directory
from astrid.catalog import METRIC_BY_ID
from astrid.pipeline.canaries import DISCREPANT, MEANINGS, UNJUDGED, keeps_out_scores
from astrid.scoring.series import Flag
from astrid.store import CanaryRow, GapRow, NoteRow, ProjectRow, ReconciledWeek, ScoreRow


def respond(body: Mapping[str, Any]) -> Response:
    """Return a body as JSON. Bodies are tested against their schema and not checked again at run time."""
    return Response(orjson.dumps(body), media_type="application/json")


def flag_names(flags: int) -> list[str]:
    """Return the names of a bit mask in lower case; a bit that this version does not know keeps its number."""
    known = [flag for flag in Flag if flags & flag]
    rest = flags & ~sum(int(flag) for flag in Flag)
    return [str(flag.name).lower() for flag in known] + ([f"flag_{rest}"] if rest else [])


def metric_name(metric_id: int) -> str:
    """Return the catalogue's name of a metric; one that this version does not know keeps its number."""
    metric = METRIC_BY_ID.get(metric_id)
    return metric.name if metric else f"metric_{metric_id}"


def score_body(row: ScoreRow) -> dict[str, Any]:
    """Return one score."""
    return {
        "rank": row.rank,
        "score": row.score,
        "interval": [row.lo, row.hi],
        "calibrated": row.calibrated,
        "percentile": row.percentile,
        "growth_per_week": row.growth_per_week,
        "contributions": dict(row.contributions),
        "breadth": row.breadth,
        "coverage": row.coverage,
        "flags": flag_names(row.flags),
    }


def leaderboard_body(
    board: Board, directory: Directory, verdicts: Sequence[CanaryRow], category: str | None, limit: int, offset: int
) -> dict[str, Any]:
    """Return a page of a day's ranking."""
    rows = board.of(category)
    return {
        "day": board.day,
        "run_id": board.run_id,
        "as_of": board.as_of,
        "coverage": ranked_share(board, directory, category),
        "held_out": violated_sources([row for row in verdicts if keeps_out_scores(row.source, row.name)]),
        "calibrated": all(row.calibrated for row in rows),
        "method_version": board.rows[0].method_version,
        "total": len(rows),
        "limit": limit,
        "offset": offset,
        "items": [
            {"slug": row.slug, "name": row.name, "category": row.category, **score_body(row)}
            for row in rows[offset : offset + limit]
        ],
    }


def violated_sources(verdicts: Sequence[CanaryRow]) -> list[str]:
    """Return the sources with a violated canary, each once."""
    return list(dict.fromkeys(row.source for row in verdicts if row.state == "violated"))


def canaries_body(verdicts: Sequence[CanaryRow]) -> dict[str, Any]:
    """Return the verdicts of one night."""
    judged = sum(row.state not in UNJUDGED for row in verdicts)
    return {
        "day": verdicts[0].day if verdicts else None,
        "run_id": max((row.run_id for row in verdicts), default=None),
        "as_of": judged_at(verdicts),
        "coverage": judged / len(verdicts) if verdicts else 0.0,
        "violated": violated_sources(verdicts),
        "items": [
            {
                "source": row.source,
                "canary": row.name,
                "meaning": MEANINGS.get(row.name, ""),
                "state": row.state,
                "value": row.value,
                "low": row.low,
                "high": row.high,
                "reason": row.reason,
                "first_day": row.first_day,
                "since": row.since,
            }
            for row in verdicts
        ],
    }


def judged_at(verdicts: Sequence[CanaryRow]) -> datetime | None:
    """Return when a night's verdicts were given; None without any."""
    return max((row.judged_at.astimezone(UTC) for row in verdicts), default=None)


def week_body(week: ReconciledWeek) -> dict[str, Any]:
    """Return one compared week."""
    return {
        "week": week.week,
        "history_total": week.history_total,
        "snapshot_delta": week.snapshot_delta,
        "difference": week.difference,
        "discrepant": week.difference > DISCREPANT,
    }


def project_reconciliation_body(
    slug: str, weeks: Sequence[ReconciledWeek], verdicts: Sequence[CanaryRow]
) -> dict[str, Any]:
    """Return the compared weeks of one project."""
    span = (weeks[-1].week - weeks[0].week).days // 7 + 1 if weeks else 0
    return {
        "slug": slug,
        "as_of": judged_at(verdicts),
        "coverage": len(weeks) / span if span else 0.0,
        "tolerance": DISCREPANT,
        "weeks": [week_body(week) for week in weeks],
    }


def reconciliation_body(
    weeks: Sequence[ReconciledWeek], verdicts: Sequence[CanaryRow], tracked: int, limit: int, offset: int
) -> dict[str, Any]:
    """Return a page of compared weeks, the largest difference first."""
    ordered = sorted(weeks, key=lambda w: (-w.difference, w.slug, w.week))
    return {
        "first_week": min((w.week for w in weeks), default=None),
        "last_week": max((w.week for w in weeks), default=None),
        "as_of": judged_at(verdicts),
        "coverage": min(1.0, len({w.slug for w in weeks}) / tracked) if tracked else 0.0,
        "tolerance": DISCREPANT,
        "total": len(weeks),
        "discrepant": sum(w.difference > DISCREPANT for w in weeks),
        "limit": limit,
        "offset": offset,
        "items": [{"slug": w.slug, "name": w.name, **week_body(w)} for w in ordered[offset : offset + limit]],
    }


def ranked_share(board: Board | None, directory: Directory, category: str | None) -> float:
    """Return the share of the tracked projects, of one category or of all, that are ranked."""
    tracked = directory.tracked(category)
    return min(1.0, len(board.of(category)) / tracked) if board and tracked else 0.0


def projects_body(
    directory: Directory, board: Board | None, category: str | None, limit: int, offset: int
) -> dict[str, Any]:
    """Return a page of the tracked projects with their rank on the last scored day."""
    share = ranked_share(board, directory, category)
    ranked = {row.slug: row for row in board.rows} if board else {}
    rows = [p for p in directory.projects.values() if category is None or p.category == category]
    items = []
    for project in rows[offset : offset + limit]:
        row = ranked.get(project.slug)
        items.append(
            {
                "slug": project.slug,
                "name": project.name,
                "category": project.category,
                "first_tracked": project.first_tracked,
                "rank": row.rank if row else None,
                "score": row.score if row else None,
            }
        )
    return {
        "day": board.day if board else None,
        "as_of": board.as_of if board else None,
        "coverage": share,
        "total": len(rows),
        "limit": limit,
        "offset": offset,
        "categories": directory.categories,
        "items": items,
    }


def note_body(note: NoteRow) -> dict[str, Any]:
    """Return one note."""
    return {
        "metric": metric_name(note.metric_id),
        "first_day": None if note.first_day == date.min else note.first_day,
        "last_day": note.last_day,
        "note": note.note,
    }


def series_body(series: DenseSeries) -> dict[str, Any]:
    """Return one series, dense."""
    return {
        "slug": series.slug,
        "metric": series.metric.name,
        "unit": series.metric.unit,
        "kind": series.metric.kind,
        "start": series.start,
        "end": series.end,
        "points": [
            {"day": day, "value": value, "origin": origin}
            for day, value, origin in zip(series.days, series.values, series.origins, strict=True)
        ],
        "coverage": series.coverage,
        "as_of": series.as_of,
        "notes": [note_body(note) for note in series.notes],
    }


def summarise_gaps(gaps: Sequence[GapRow]) -> list[dict[str, Any]]:
    """Return, per metric, how many expected days are missing and how many came late."""
    by_metric: dict[int, list[GapRow]] = {}
    for gap in gaps:
        by_metric.setdefault(gap.metric_id, []).append(gap)
    found = []
    for metric_id, rows in sorted(by_metric.items()):
        still: list[date] = sorted(row.day for row in rows if row.healed_at is None)
        reasons: dict[str, int] = {}
        for row in rows:
            if row.healed_at is None:
                reasons[row.reason] = reasons.get(row.reason, 0) + 1
        found.append(
            {
                "metric": metric_name(metric_id),
                "open": len(still),
                "healed": len(rows) - len(still),
                "first_open": still[0] if still else None,
                "last_open": still[-1] if still else None,
                "reasons": dict(sorted(reasons.items(), key=lambda r: (-r[1], r[0]))),
            }
        )
    return found


def metric_body(series: DenseSeries) -> dict[str, Any] | None:
    """Return what a project has of one metric, from a series over all its days; None without an observation."""
    seen = [day for day, value in zip(series.days, series.values, strict=True) if value is not None]
    if not seen or series.last is None:
        return None
    return {
        "metric": series.metric.name,
        "unit": series.metric.unit,
        "kind": series.metric.kind,
        "first_day": seen[0],
        "last_day": seen[-1],
        "last_value": series.last[1],
        "observed_days": len(seen),
        "coverage": len(seen) / ((seen[-1] - seen[0]).days + 1),
    }


def project_body(
    project: ProjectRow, score: ScoreRow | None, series: Sequence[DenseSeries], gaps: Sequence[GapRow]
) -> dict[str, Any]:
    """Return one project with everything that is known about it but the series themselves."""
    published: datetime | None = score.published_at.astimezone(UTC) if score else None
    return {
        "slug": project.slug,
        "name": project.name,
        "category": project.category,
        "first_tracked": project.first_tracked,
        "as_of": published,
        "coverage": score.coverage if score else None,
        "identities": [
            {
                "platform": identity.platform,
                "upstream_id": identity.upstream_id,
                "name": identity.name,
                "valid_from": identity.valid_from,
                "valid_to": identity.valid_to,
            }
            for identity in project.identities
        ],
        "score": {
            "day": score.day,
            "run_id": score.run_id,
            "method_version": score.method_version,
            "published_at": published,
            **score_body(score),
        }
        if score
        else None,
        "metrics": [body for body in map(metric_body, series) if body],
        "gaps": summarise_gaps(gaps),
        "notes": [note_body(note) for one in series if one.last for note in one.notes],
    }
