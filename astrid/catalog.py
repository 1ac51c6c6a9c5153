"""What is measured: the one table of metrics and the one table of origins.

Ids are part of the database; they are never reused. A *stock* is a level that stands at a moment
(stars), a *flow* a count per UTC day (downloads). A *snapshot* is true only when it is fetched; a
*dated* value carries its day from upstream and can be fetched later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["stock", "flow"]
Timing = Literal["snapshot", "dated"]
Family = Literal["usage", "attention", "work"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured series per project.

    ``weight`` is its share of the composite score (0 = not scored), see docs/methodology.md;
    ``source`` the entry of ``astrid.sources.SOURCES`` that observes it night by night.
    """

    metric_id: int
    name: str
    source: str
    unit: str
    kind: Kind
    timing: Timing
    family: Family
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was read. Of two of one day the lower ``precedence`` stands, of equal ones the later reading."""

    origin_id: int
    name: str
    precedence: int
    title: str


METRICS: Final = (
    Metric(1, "github_stars", "github", "stars", "stock", "snapshot", "attention", 0.20),
    Metric(2, "github_forks", "github", "forks", "stock", "snapshot", "work", 0.10),
    Metric(3, "github_watchers", "github", "watchers", "stock", "snapshot", "attention"),
    Metric(4, "github_open_issues", "github", "open issues", "stock", "snapshot", "work"),
    Metric(5, "github_open_pulls", "github", "open pull requests", "stock", "snapshot", "work"),
    Metric(6, "github_releases", "github", "releases", "stock", "snapshot", "work"),
    Metric(10, "github_stars_gained", "github", "stars per day", "flow", "dated", "attention"),
    Metric(11, "github_commits", "github", "commits per day", "flow", "dated", "work"),
    Metric(20, "hn_points", "hackernews", "points per day", "flow", "dated", "attention", 0.05),
    Metric(21, "hn_stories", "hackernews", "stories per day", "flow", "dated", "attention"),
    Metric(30, "pypi_downloads", "pypistats", "downloads per day", "flow", "dated", "usage", 0.40),
    Metric(31, "pypi_downloads_with_mirrors", "pypistats", "downloads per day", "flow", "dated", "usage"),
    Metric(40, "npm_downloads", "npm", "downloads per day", "flow", "dated", "usage"),
    Metric(50, "huggingface_downloads", "huggingface", "downloads", "stock", "snapshot", "usage"),
    Metric(51, "huggingface_downloads_30d", "huggingface", "downloads in 30 days", "stock", "snapshot", "usage"),
    Metric(52, "huggingface_likes", "huggingface", "likes", "stock", "snapshot", "attention"),
    Metric(60, "depsdev_releases", "depsdev", "releases", "stock", "snapshot", "work"),
    Metric(61, "depsdev_dependents", "depsdev", "dependent packages", "stock", "snapshot", "usage"),
    Metric(62, "depsdev_stars", "depsdev", "stars", "stock", "snapshot", "attention"),
    Metric(63, "depsdev_forks", "depsdev", "forks", "stock", "snapshot", "work"),
    Metric(70, "dockerhub_pulls", "dockerhub", "pulls", "stock", "snapshot", "usage"),
    Metric(71, "dockerhub_stars", "dockerhub", "stars", "stock", "snapshot", "attention"),
)

ORIGINS: Final = (
    Origin(1, "github_graphql", 10, "GitHub GraphQL API, snapshot"),
    Origin(2, "github_stargazers_history", 10, "GitHub REST /stargazers/history"),
    Origin(3, "hn_algolia", 10, "Hacker News Search (Algolia)"),
    Origin(4, "hn_firebase", 10, "Hacker News items (Firebase)"),
    Origin(5, "pypistats", 10, "pypistats.org"),
    Origin(6, "clickhouse_pypi", 20, "ClickHouse public copy of the PyPI download log"),
    Origin(7, "npm", 10, "npm download counts"),
    Origin(8, "huggingface", 10, "Hugging Face Hub API"),
    Origin(9, "depsdev", 10, "deps.dev, of unknown age"),
    Origin(12, "dockerhub", 10, "Docker Hub API"),
    Origin(10, "stars_daily", 30, "EvanLi/Github-Ranking daily archive (MIT)"),
    Origin(11, "ai_stars_daily", 31, "yuxiaopeng/Github-Ranking-AI daily archive (MIT)"),
)

CAVEATS: Final[dict[str, str]] = {
    "pypi_downloads": "Downloads are not people: on weekdays in August 2024 installers said of 31 % of all downloads "
    "from PyPI that they ran in continuous integration, and of the others nothing. None is subtracted.",
    "npm_downloads": "All tarballs served, those to mirrors and continuous integration included; npm tells no share.",
    "dockerhub_pulls": "All pulls, those of continuous integration included; Docker Hub tells no share.",
}
"""What a reader of a metric must know on every day of it; sources in docs/methodology.md, section 8."""

METRIC_BY_NAME: Final = {m.name: m for m in METRICS}
METRIC_BY_ID: Final = {m.metric_id: m for m in METRICS}
ORIGIN_BY_NAME: Final = {o.name: o for o in ORIGINS}
ORIGIN_BY_ID: Final = {o.origin_id: o for o in ORIGINS}
