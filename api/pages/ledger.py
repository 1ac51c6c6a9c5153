"""What the pages show of the ledger: a project's calendars, the calendars of all projects, and the last runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, timedelta
from typing import Any, Final

from api.accounts import Absent, DayState, Scope, SourceCalendar, Stretch, Tally
from api.pages.calendar import PATTERNS, Area, draw_calendar, draw_key
from api.pages.leaderboard import Address
from api.pages.words import SOURCES, count_things, words_of, write_count, write_day, write_moment, write_share
from astrid.pipeline.tries import NextTry
from astrid.store import BatchCount, RunRow

STATES: Final[dict[DayState, str]] = {
    "complete": "complete",
    "late": "complete, some of it late",
    "waiting": "not asked yet",
    "missing": "something is missing",
    "lost": "something is missing for good",
    "none": "nothing expected",
}
SHARES: Final = {
    "complete": "complete",
    "few": "up to 2 % missing",
    "missing": "more than 2 % missing",
    "lost": "more than 20 % missing",
    "waiting": "not asked yet",
    "none": "nothing expected",
}
FEW: Final = 0.02
MANY: Final = 0.2
RUNS_SHOWN: Final = 20


def say_days(first: date, last: date) -> str:
    """Return a day, or a stretch of them: 3 Mar 2026 to 9 Mar 2026."""
    return write_day(first) if first == last else f"{write_day(first)} to {write_day(last)}"


def say_next(told: NextTry) -> str:
    """Say when something is asked for again."""
    match told.kind:
        case "night":
            when = f"the night of {write_day(told.night)}, from {write_moment(told.at)}" if told.night else ""
            return f"{when}; {told.why}" if told.why else when
        case "rerun":
            return f"its night, if that is run again until {write_moment(told.at)}"
        case "backfill":
            return f"a backfill of {told.source}, for no night asks so far back"
        case _:
            return f"never, because {told.why}"


def say_absent(absent: Sequence[Absent]) -> list[dict[str, str]]:
    """Say what is missing; metrics of which the same is to be said together."""
    together: dict[tuple[str, NextTry], list[str]] = {}
    for one in absent:
        together.setdefault((one.reason, one.next), []).append(words_of(one.metric).title)
    return [
        {"titles": ", ".join(titles), "reason": reason, "next": say_next(told)}
        for (reason, told), titles in together.items()
    ]


def say_stretch(stretch: Stretch) -> str:
    """Say what an area of a calendar stands for."""
    said = [f"{say_days(stretch.first, stretch.last)}: {STATES[stretch.state]}"]
    said += [f"{one['titles']}: {one['reason']}" for one in say_absent(stretch.absent)]
    return "; ".join(said)


def calendars_section(scope: Scope, calendar: Sequence[SourceCalendar], json: str) -> dict[str, Any]:
    """Return the values of a project's calendars."""
    shown = []
    for source in calendar:
        title = SOURCES.get(source.source, source.source)
        found = f"{source.observed:,} of {count_things(source.expected, 'expected value')}"
        counts = [f"{source.count(state):,} {STATES[state]}" for state in STATES if source.count(state)]
        summary = f"{say_days(scope.start, scope.end)}. {found} are there. Days: {', '.join(counts)}."
        areas = [Area(s.first, s.last, s.state, say_stretch(s)) for s in source.stretches]
        shown.append(
            {
                "title": title,
                "chart": draw_calendar(f"calendar-{source.source}", f"{title}, day by day", summary, areas),
                "found": found,
                "share": write_share(source.observed / source.expected) if source.expected else "",
                "stretches": [_row(s) for s in reversed(source.stretches) if s.state not in ("none", "complete")],
            }
        )
    used = {s.state for source in calendar for s in source.stretches}
    return {
        "patterns": PATTERNS,
        "calendars": shown,
        "calendar_key": [(draw_key(state), text) for state, text in STATES.items() if state in used],
        "calendar_json": json,
        "calendar_start": scope.start,
        "calendar_end": scope.end,
        "next_night": scope.nights.next,
    }


def _row(stretch: Stretch) -> dict[str, Any]:
    return {
        "days": say_days(stretch.first, stretch.last),
        "number": stretch.days,
        "state": STATES[stretch.state],
        "absent": say_absent(stretch.absent),
    }


def status_page(
    scope: Scope,
    tallies: Sequence[Tally],
    runs: Sequence[RunRow],
    counts: Sequence[BatchCount],
    address: Address,
) -> dict[str, Any]:
    """Return the values of the page of all projects' calendars and of the last runs."""
    by_source: dict[str, list[Tally]] = {}
    for tally in tallies:
        by_source.setdefault(tally.metric.source, []).append(tally)
    calendars = [_universe(scope, source, own) for source, own in by_source.items()]
    used = {day["look"] for calendar in calendars for day in calendar["days"]}
    dates = {"start": scope.start, "end": scope.end}
    return {
        "patterns": PATTERNS,
        "projects": len(scope.entity_ids),
        "start": scope.start,
        "end": scope.end,
        "next_night": scope.nights.next,
        "calendars": calendars,
        "calendar_key": [(draw_key(look), text) for look, text in SHARES.items() if look in used],
        "runs": [_run(run, [c for c in counts if c.run_id == run.run_id]) for run in runs],
        "coverage_json": address("/v1/coverage", dates),
        "gaps_json": address("/v1/gaps", dates),
    }


def _universe(scope: Scope, source: str, tallies: Sequence[Tally]) -> dict[str, Any]:
    sums = {
        name: sum(getattr(t, name) for t in tallies).tolist()
        for name in ("expected", "observed", "late", "missing", "waiting")
    }
    days = []
    for n in range(scope.days):
        day = {name: values[n] for name, values in sums.items()}
        days.append(day | {"day": scope.start + timedelta(days=n), "look": look_of(**day)})
    title = SOURCES.get(source, source)
    expected, observed = sum(sums["expected"]), sum(sums["observed"])
    found = f"{observed:,} of {count_things(expected, 'expected value')}"
    areas = [
        Area(
            d["day"],
            d["day"],
            d["look"],
            f"{write_day(d['day'])}: {write_count(d['observed'])} of {write_count(d['expected'])} there, "
            f"{write_count(d['missing'])} missing, {write_count(d['waiting'])} not asked yet",
        )
        for d in days
    ]
    worst = sum(d["look"] in ("missing", "lost") for d in days)
    summary = (
        f"{say_days(scope.start, scope.end)}. {found} are there; more than 2 % missing on {count_things(worst, 'day')}."
    )
    return {
        "title": title,
        "chart": draw_calendar(f"status-{source}", f"{title}, all projects", summary, areas),
        "found": found,
        "share": write_share(observed / expected) if expected else "",
        "days": days,
        "rows": [d for d in reversed(days) if d["missing"] or d["late"] or d["waiting"]],
    }


def look_of(expected: int, observed: int, late: int, missing: int, waiting: int) -> str:
    """Return how a day of all projects looks, by the share of what is missing."""
    if not expected:
        return "none"
    if not missing:
        return "complete" if observed else "waiting"
    share = missing / expected
    return "few" if share <= FEW else "missing" if share <= MANY else "lost"


def _run(run: RunRow, counts: Sequence[BatchCount]) -> dict[str, Any]:
    batches = {state: sum(c.count for c in counts if c.state == state) for state in ("done", "planned", "dead")}
    took = (run.finished_at - run.started_at).total_seconds() / 60 if run.finished_at else None
    return {
        "run": run,
        "started_at": run.started_at.astimezone(UTC),
        "minutes": None if took is None else f"{took:,.0f} min" if took >= 1 else "under a minute",
        "batches": batches,
        "requests": sum(c.requests for c in counts if c.state == "done"),
        "json": f"/v1/runs/{run.run_id}",
    }
