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


class PastAnswer(Answer):
    """An answer that can be had as of a past moment."""

    settled: bool | None = Field(
        None,
        description="Whether this is final: whoever asks as of this moment again, however late, is answered so. false "
        "for half an hour after it, and while a write of then is still under way; absent where no moment was asked for",
    )


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


class Leaderboard(PastAnswer):
    """The ranking of one day, or a page of it."""

    day: date = Field(description="UTC day that the scores are about")
    run_id: int = Field(description="The last run that changed a score of this day")
    as_of: datetime = Field(
        description="The moment that was asked for; without one, when the last of these scores was published (UTC)"
    )
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


class Series(PastAnswer):
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
        description="The moment that was asked for; without one, when the newest of these values was written (UTC), or "
        "without values when the last run ended"
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


class Projects(PastAnswer):
    """The tracked projects, or a page of them."""

    day: date | None = Field(description="Day of ranks and scores; null = nothing has been scored yet")
    as_of: datetime | None = Field(
        description="The moment that was asked for; without one, when the last of these scores was published (UTC)"
    )
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


class Project(PastAnswer):
    """One tracked project."""

    slug: str
    name: str
    category: str
    first_tracked: date
    as_of: datetime | None = Field(
        description="The moment that was asked for; without one, when the last score of it was published (UTC)"
    )
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


class Canaries(PastAnswer):
    """Whether the upstreams kept their contracts, on one night."""

    day: date | None = Field(description="The night's UTC day; null = no night has been judged yet")
    run_id: int | None = Field(description="The run that judged it")
    as_of: datetime | None = Field(description="The moment that was asked for; without one, when it was judged (UTC)")
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


class ProjectReconciliation(PastAnswer):
    """Snapshots of one project held against GitHub's star history, week by week."""

    slug: str
    as_of: datetime | None = Field(
        description="The moment that was asked for; without one, when the last night compared (UTC)"
    )
    coverage: Fraction = Field(description="Compared weeks over the weeks from the first to the last of them")
    tolerance: float = Field(description="Differences up to here are usual")
    weeks: list[ReconciledWeekItem] = Field(description="Oldest first")


class ReconciliationItem(ReconciledWeekItem):
    """One week of one project."""

    slug: str
    name: str


class ReconciliationList(PastAnswer):
    """The latest compared weeks of all projects, the largest differences first."""

    first_week: date | None = Field(description="Sunday of the earliest week; null = nothing was compared yet")
    last_week: date | None = Field(description="Sunday of the latest week")
    as_of: datetime | None = Field(
        description="The moment that was asked for; without one, when the last night compared (UTC)"
    )
    coverage: Fraction = Field(description="Share of the tracked projects of which a week could be compared")
    tolerance: float = Field(description="Differences up to here are usual")
    total: int = Field(description="Compared project-weeks; `items` is a part of them")
    discrepant: int = Field(description="Those that differ by more than `tolerance`")
    limit: int
    offset: int
    items: list[ReconciliationItem] = Field(description="The largest difference first")


class NextNight(Answer):
    """The night that runs next."""

    day: date = Field(description="The UTC day that it is about")
    at: datetime = Field(description="When it starts, at the earliest (UTC)")


class NextTryAnswer(Answer):
    """What will be done about a missing value."""

    kind: str = Field(
        description="night: the night of the day `night` asks for it, if it has room for everybody; rerun: only a "
        "second run of its own night can still take it, until `at`; backfill: no night asks so far back, a backfill of "
        "`source` does; never: nobody will, because of `why`"
    )
    night: date | None = Field(description="UTC day of the night that asks; null = no night does")
    at: datetime | None = Field(description="When that night starts, or until when a second run may take it (UTC)")
    source: str | None = Field(description="Who is asked; null = nobody")
    why: str | None = Field(description="Why never, or what else is to be said; null = nothing")


class MissingValue(Answer):
    """A value that was expected and did not come, not yet, or late."""

    slug: str = Field(examples=["ollama"])
    source: str = Field(examples=["github"])
    metric: str = Field(examples=["github_stars"])
    day: date
    state: str = Field(description="open = missing; waiting = nobody could have asked yet; healed = it came late")
    reason: str = Field(examples=["after 5 tries: GitHub answered 502"])
    attempts: int = Field(description="How many batches reported it missing; 0 = nobody was asked")
    first_seen_at: datetime | None = Field(description="When it was first reported; null = no run has (UTC)")
    last_seen_at: datetime | None = Field(description="When it was last reported (UTC)")
    healed_at: datetime | None = Field(description="When it came after all (UTC)")
    run_id: int | None = Field(description="The run that gave the reason, see `/v1/runs`; null = it is derived")
    healed_run: int | None = Field(description="The run that brought it")
    next: NextTryAnswer | None = Field(description="When it will be asked for again; null = it is there")


class Gaps(PastAnswer):
    """Expected values that did not come, or a page of them."""

    start: date
    end: date
    as_of: datetime | None = Field(
        description="The moment that was asked for; without one, when the last run ended, or began (UTC)"
    )
    coverage: Fraction = Field(description="Observed over expected values of the days and metrics asked for")
    next_night: NextNight
    total: int = Field(description="Values in the state asked for; `items` is a part of them")
    limit: int
    offset: int
    items: list[MissingValue] = Field(description="The newest day first, then by slug and metric")


class AbsentMetric(Answer):
    """What one metric lacks on the days of a stretch."""

    metric: str
    reason: str
    next: NextTryAnswer


class CalendarStretch(Answer):
    """Days in a row of which the same is to be said."""

    first_day: date
    last_day: date
    days: int
    state: str = Field(
        description="complete; late (all there, some of it came late); waiting (nobody could have asked yet); missing; "
        "lost (missing, and never asked for again); none (nothing expected and nothing there)"
    )
    expected: int = Field(description="Metrics that owe a value on each of these days")
    observed: int = Field(description="Those of them that have one")
    missing: int = Field(description="expected − observed")
    absent: list[AbsentMetric] = Field(description="Which are missing, why, and when they are asked for again")


class CalendarSource(Answer):
    """One source's days."""

    source: str
    metrics: list[str] = Field(description="Its metrics of which anything is expected or known")
    expected: int = Field(description="Values expected on all days")
    observed: int
    missing: int
    coverage: Fraction = Field(description="observed / expected")
    stretches: list[CalendarStretch] = Field(description="Every day of the range, oldest first")


class ProjectCalendar(PastAnswer):
    """What was expected of one project and came, day by day and source by source."""

    slug: str
    start: date
    end: date
    as_of: datetime | None = Field(
        description="The moment that was asked for; without one, when the last run ended, or began (UTC)"
    )
    coverage: Fraction = Field(description="Observed over expected values")
    next_night: NextNight
    sources: list[CalendarSource]


class CoverageMetric(Answer):
    """One metric of all projects, a number per day from `start` to `end`."""

    source: str
    metric: str
    coverage: Fraction = Field(description="Observed over expected values")
    expected: list[int] = Field(description="observed + missing + waiting")
    observed: list[int] = Field(description="Expected values that are there")
    late: list[int] = Field(description="Those of them that came late")
    missing: list[int] = Field(description="Expected values that are not there")
    waiting: list[int] = Field(description="Not there, and nobody could have asked yet")
    unexplained: list[int] = Field(description="Missing ones of which no run and no night says why")
    beyond: list[int] = Field(description="Values that are there though nothing was expected: older history")


class Coverage(PastAnswer):
    """What was expected of all projects and came, per metric and day."""

    start: date
    end: date
    as_of: datetime | None = Field(
        description="The moment that was asked for; without one, when the last run ended, or began (UTC)"
    )
    coverage: Fraction = Field(description="Observed over expected values")
    next_night: NextNight
    projects: int
    metrics: list[CoverageMetric]


class RunItem(Answer):
    """One run of the program."""

    run_id: int
    kind: str = Field(examples=["nightly"])
    day: date = Field(description="UTC day that the run is about")
    state: str = Field(description="running, complete, gaps (something expected did not come), or failed")
    code_version: str
    method_version: str = Field(description="Version of the scoring method")
    started_at: datetime
    finished_at: datetime | None
    planned_requests: int
    planned_points: int
    batches: dict[str, int] = Field(description="Its batches by state", examples=[{"done": 412, "dead": 1}])
    requests: int = Field(description="HTTP requests of the batches that ended well")
    note: str = Field(description="What is to be said of it, or what it failed of")


class Runs(Answer):
    """The runs of the program, or a page of them."""

    as_of: datetime | None = Field(description="When the last of these runs ended, or began (UTC)")
    coverage: Fraction = Field(description="Share of the batches of these runs that ended well")
    total: int
    limit: int
    offset: int
    items: list[RunItem] = Field(description="The newest first")


class RunCost(Answer):
    """What a run was planned to cost one budget, and what it did cost."""

    upstream: str
    bucket: str
    planned_requests: int
    planned_points: int
    planned_hours: float = Field(description="At the limits of the upstream")
    spent_requests: int | None = Field(description="As the budgets counted them, repetitions included; null = unknown")
    spent_points: int | None


class RunBatches(Answer):
    """How many batches of a task of a run are in a state."""

    source: str
    task: str
    state: str = Field(description="planned (not ended), done, split (into others), or dead (set aside)")
    count: int
    requests: int = Field(description="Spent where done, planned where not")
    attempts: int


class DeadBatch(Answer):
    """A batch that was set aside; its days are gaps."""

    batch_id: str
    source: str
    task: str
    first_day: date
    last_day: date
    entities: int
    attempts: int
    reason: str


class RunGaps(Answer):
    """Gaps of one metric for which a run gave one reason."""

    metric: str
    reason: str
    count: int
    open: int = Field(description="Those that are missing still")


class Run(RunItem):
    """One run: what it planned, what it spent, how its work ended, and what it left."""

    as_of: datetime = Field(description="When it ended, or began (UTC)")
    coverage: Fraction = Field(description="Share of its batches that ended well")
    costs: list[RunCost] = Field(description="Per upstream and bucket")
    work: list[RunBatches] = Field(description="By source, task and state")
    dead: list[DeadBatch] = Field(description="At most 100")
    gaps: list[RunGaps] = Field(description="Gaps that it reported, the most frequent reason first; at most 100")
    gap_count: int = Field(description="How many gaps that is in all")
    healed: dict[str, int] = Field(description="Gaps that its values filled, by metric")
    scores: int = Field(description="Scores of its day that stand as it published them")


class TracedRun(Answer):
    """The run behind a number."""

    run_id: int
    kind: str
    day: date
    state: str
    code_version: str
    method_version: str
    started_at: datetime
    finished_at: datetime | None


class TracedBatch(Answer):
    """A batch that asked for a value."""

    batch_id: str
    source: str
    task: str
    first_day: date
    last_day: date
    entities: int
    attempts: int


class TracedValue(Answer):
    """One version of a value."""

    value: int | float
    origin: str
    observed_at: datetime = Field(description="Since when it stood (UTC)")
    superseded_at: datetime | None = Field(description="Until when; null = it stands")
    superseded_by_run: int | None
    run_id: int
    run: TracedRun | None = Field(description="null = that run is not in the record")
    batches: list[TracedBatch] = Field(
        description="The batch that brought it; several where it cannot be told, none where its record was let go of"
    )


class TracedInput(Answer):
    """What a score took from one metric."""

    metric: str
    weight: float | None
    contribution: float | None
    values: int = Field(description="Values from `first_day` to `last_day` of the score that stood at `known_at`")
    first_day: date | None = Field(description="Day of the first of them")
    last_day: date | None
    runs: dict[str, int] = Field(description="How many of them each run wrote")


class TracedScore(Answer):
    """One version of a score."""

    method_version: str
    score: Points
    interval: tuple[Points | None, Points | None]
    rank: int | None
    published_at: datetime
    superseded_at: datetime | None = Field(description="null = it stands")
    superseded_by_run: int | None
    run_id: int
    run: TracedRun | None = Field(description="null = that run is not in the record")
    first_day: date = Field(description="It was computed from values of the days from here")
    last_day: date = Field(description="to here")
    known_at: datetime = Field(description="as they stood at this moment (UTC)")
    known_at_noted: bool = Field(description="Whether that moment was noted; if not, it is that of the publication")
    inputs: list[TracedInput]


class TracedGap(Answer):
    """What the ledger says of a value."""

    reason: str
    attempts: int
    retry: bool = Field(description="Whether the upstream may still have it")
    first_seen_at: datetime
    last_seen_at: datetime
    healed_at: datetime | None
    run_id: int | None
    healed_run: int | None
    run: TracedRun | None


class Trace(Answer):
    """Where one number comes from."""

    slug: str
    metric: str = Field(description="A metric of the catalogue, or `score`")
    day: date
    as_of: datetime | None = Field(description="Since when the last of these versions stands (UTC)")
    coverage: Fraction = Field(description="1 = a version stands, 0 = none does")
    versions: list[TracedValue] = Field(description="Every version of the value, the first first")
    scores: list[TracedScore] = Field(description="Every version of the score, for `metric=score`")
    gap: TracedGap | None = Field(description="The ledger's row of the value; null = it has none")


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
