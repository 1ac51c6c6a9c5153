"""The shapes of the answers, as the API's own description states them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=0, le=100)]


class Answer(BaseModel):
    """A closed shape: what is not described is not answered."""

    model_config = ConfigDict(extra="forbid")


class ProblemAnswer(Answer):
    """A request that could not be answered (RFC 9457)."""

    type: str = Field(description="Kind of problem, an address under /docs", examples=["/docs#problem-unknown-project"])
    title: str = Field(description="The kind in a few words", examples=["Unknown project"])
    status: int = Field(description="HTTP status", examples=[404])
    detail: str = Field(description="What happened", examples=["No tracked project has the slug 'olama'."])
    field: str | None = Field(description="The parameter to change; null where none is at fault", examples=["slug"])
    remedy: str = Field(description="What to do next", examples=["Did you mean 'ollama'?"])


class Score(Answer):
    """A published score."""

    rank: int | None = Field(description="Place among all projects of the day, 1 = highest; null = not ranked")
    score: Points = Field(description="Momentum, 0..100; 50 = the middle of the projects measured that day")
    interval: tuple[Points | None, Points | None] = Field(
        description="80 % interval of the score, [low, high]; null = not known. See `calibrated`"
    )
    calibrated: bool = Field(description="Whether the interval was calibrated on realised errors; if not, it is rough")
    percentile: Points | None = Field(description="Percentile of the score among all scored that day")
    growth_per_week: float | None = Field(
        description="Smoothed growth of the project's heaviest series (stars before downloads); 0.05 = 5 % per week"
    )
    contributions: dict[str, float] = Field(
        description="Score points per metric, signed; score = 50 + their sum",
        examples=[{"github_stars": 12.4, "pypi_downloads": 9.1, "github_forks": -0.8}],
    )
    breadth: Fraction | None = Field(description="Weighted share of the metrics that grow beyond their counting noise")
    coverage: Fraction | None = Field(description="Weight of the metrics that were observed, of all weights")
    flags: list[str] = Field(description="What a reader should know about the values; explained under /docs#flags")


class LeaderboardItem(Score):
    """One ranked project."""

    slug: str = Field(description="Lasting public name of the project in addresses", examples=["ollama"])
    name: str = Field(description="Name for people", examples=["Ollama"])
    category: str = Field(examples=["inference"])


class Leaderboard(Answer):
    """The ranking of one day, or a page of it."""

    day: date = Field(description="UTC day that the scores are about")
    run_id: int = Field(description="The last run that changed a score of this day")
    as_of: datetime = Field(description="When the last of these scores was published (UTC)")
    coverage: Fraction = Field(
        description="Share of the tracked projects (of the category asked for) that are ranked that day"
    )
    held_out: list[str] = Field(
        description="Sources of which a violated canary keeps values out of these scores; a source that only falls "
        "silent is in `/v1/canaries` alone",
        examples=[["pypistats"]],
    )
    calibrated: bool = Field(description="Whether every interval of the answer is calibrated")
    method_version: str = Field(description="Version of the scoring method")
    total: int = Field(description="Ranked projects of the category asked for; `items` is a part of them")
    limit: int
    offset: int
    items: list[LeaderboardItem] = Field(description="By rank; ranks stay those among all projects")


class SeriesDay(Answer):
    """One day of a series."""

    day: date
    value: int | float | None = Field(description="The observed value; null = no observation (never a zero)")
    origin: str | None = Field(description="Where it was read; null on a day without an observation")


class Note(Answer):
    """What a reader must know about a stretch of a metric."""

    metric: str
    first_day: date | None = Field(description="null = from the beginning")
    last_day: date | None = Field(description="null = to this day")
    note: str = Field(examples=["interpolated from monthly totals"])


class Series(Answer):
    """One metric of one project, every day of the range."""

    slug: str
    metric: str = Field(examples=["github_stars"])
    unit: str = Field(examples=["stars"])
    kind: str = Field(description="stock = a level at the end of the day; flow = a count per UTC day")
    start: date
    end: date
    points: list[SeriesDay] = Field(description="Dense: one entry per day, oldest first")
    coverage: Fraction = Field(description="Observed days over days")
    as_of: datetime | None = Field(
        description="When the newest of these values was written (UTC); without values, when the last run ended"
    )
    notes: list[Note]


class ProjectItem(Answer):
    """One tracked project in a list."""

    slug: str
    name: str
    category: str
    first_tracked: date = Field(description="UTC day on which the watchlist first held it")
    rank: int | None = Field(description="Place among all projects on `day`; null = not ranked")
    score: Points | None = Field(description="Score on `day`; null = not ranked")


class Projects(Answer):
    """The tracked projects, or a page of them."""

    day: date | None = Field(description="Day of ranks and scores; null = nothing has been scored yet")
    as_of: datetime | None = Field(description="When the last of these scores was published (UTC)")
    coverage: Fraction = Field(description="Share of the tracked projects (of the category asked for) that are ranked")
    total: int
    limit: int
    offset: int
    categories: dict[str, int] = Field(description="Every category in use, with its number of projects")
    items: list[ProjectItem] = Field(description="By slug")


class IdentityItem(Answer):
    """What an upstream calls the project."""

    platform: str = Field(examples=["github"])
    upstream_id: str = Field(description="The upstream's own lasting id")
    name: str = Field(examples=["ollama/ollama"])
    valid_from: date = Field(description="First UTC day on which this name was read")
    valid_to: date | None = Field(description="Last UTC day of this name; null = it holds")


class MetricItem(Answer):
    """A metric of which the project has observations."""

    metric: str
    unit: str
    kind: str
    first_day: date = Field(description="First observed day")
    last_day: date = Field(description="Last observed day")
    last_value: int | float
    observed_days: int
    coverage: Fraction = Field(description="Observed days over the days from the first to the last observed one")


class GapItem(Answer):
    """Expected values of one metric that did not come."""

    metric: str
    open: int = Field(description="Days still missing")
    healed: int = Field(description="Days that came late")
    first_open: date | None
    last_open: date | None
    reasons: dict[str, int] = Field(description="Reasons of the open gaps, with their number of days")


class ProjectScore(Score):
    """The project's last published score."""

    day: date
    run_id: int
    method_version: str
    published_at: datetime


class Project(Answer):
    """One tracked project."""

    slug: str
    name: str
    category: str
    first_tracked: date
    as_of: datetime | None = Field(description="When the last score of it was published (UTC)")
    coverage: Fraction | None = Field(description="Weight of the metrics that were observed, of all weights")
    identities: list[IdentityItem]
    score: ProjectScore | None = Field(description="null = never scored")
    metrics: list[MetricItem]
    gaps: list[GapItem]
    notes: list[Note]


class CanaryItem(Answer):
    """What one canary said of one source."""

    source: str = Field(examples=["pypistats"])
    canary: str = Field(examples=["freshness"])
    meaning: str = Field(description="What it measures")
    state: str = Field(
        description="ok; violated; not judged (too little to go by); not asked (that night did not ask the source); "
        "accepted (a violation that the operator takes for the new way)"
    )
    value: float | None = Field(description="What was measured; null = nothing could be")
    low: float | None = Field(description="Sound from here on; null = no lower bound")
    high: float | None = Field(description="Sound up to here; null = no upper bound")
    reason: str = Field(examples=["0% of 212 series have a value of the last 7 days; the newest is of 2026-02-28"])
    first_day: date = Field(description="From here to `day` is what was measured")
    since: date | None = Field(
        description="First night of a violation that lasts; null = not violated. Nothing that was written since then, "
        "for any day, enters a score, but where values are only missing or two witnesses differ"
    )


class Canaries(Answer):
    """Whether the upstreams kept their contracts, on one night."""

    day: date | None = Field(description="The night's UTC day; null = no night has been judged yet")
    run_id: int | None = Field(description="The run that judged it")
    as_of: datetime | None = Field(description="When it was judged (UTC)")
    coverage: Fraction = Field(description="Share of the canaries that are ok or violated")
    violated: list[str] = Field(description="Sources with a violated canary")
    items: list[CanaryItem] = Field(description="By source and canary")


class ReconciledWeekItem(Answer):
    """One week of stars by two witnesses."""

    week: date = Field(description="Sunday of the UTC week")
    history_total: float = Field(description="Stars given in the week, by GitHub's history of stars that still stand")
    snapshot_delta: float = Field(description="Difference of the snapshots at the ends of the week")
    difference: float = Field(description="|history − snapshots| over the larger of both and 10")
    discrepant: bool = Field(description="Whether the difference is larger than `tolerance`")


class ProjectReconciliation(Answer):
    """Snapshots of one project held against GitHub's star history, week by week."""

    slug: str
    as_of: datetime | None = Field(description="When the last night compared (UTC)")
    coverage: Fraction = Field(description="Compared weeks over the weeks from the first to the last of them")
    tolerance: float = Field(description="Differences up to here are usual")
    weeks: list[ReconciledWeekItem] = Field(description="Oldest first")


class ReconciliationItem(ReconciledWeekItem):
    """One week of one project."""

    slug: str
    name: str


class ReconciliationList(Answer):
    """The latest compared weeks of all projects, the largest differences first."""

    first_week: date | None = Field(description="Sunday of the earliest week; null = nothing was compared yet")
    last_week: date | None = Field(description="Sunday of the latest week")
    as_of: datetime | None = Field(description="When the last night compared (UTC)")
    coverage: Fraction = Field(description="Share of the tracked projects of which a week could be compared")
    tolerance: float = Field(description="Differences up to here are usual")
    total: int = Field(description="Compared project-weeks; `items` is a part of them")
    discrepant: int = Field(description="Those that differ by more than `tolerance`")
    limit: int
    offset: int
    items: list[ReconciliationItem] = Field(description="The largest difference first")


class Health(Answer):
    """The process runs."""

    status: str = Field(examples=["ok"])
    version: str


class Readiness(Answer):
    """The database answers and its schema is current."""

    status: str = Field(examples=["ready"])
    version: str
    scored_day: date | None = Field(description="The last scored day; null = nothing has been scored yet")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of problems with these statuses."""
    texts = {404: "Nothing of this name or day", 422: "A parameter cannot be used", 503: "The database is absent"}
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}
    return {status: {"description": texts[status], "content": content} for status in statuses}
