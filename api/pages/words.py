"""The words of the pages: what metrics and flags are called, and how numbers and days are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from astrid.catalog import METRIC_BY_NAME, Metric

MINUS: Final = "\N{MINUS SIGN}"
NONE: Final = "\N{EN DASH}"
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
THIN: Final = "\N{NARROW NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Words:
    """How a metric is called: in a heading, in a table cell, and what it counts."""

    title: str
    short: str
    explained: str


METRICS: Final[Mapping[str, Words]] = {
    "github_stars": Words("GitHub stars", "stars", "accounts that star the repository, at the end of the day"),
    "github_forks": Words("GitHub forks", "forks", "forks of the repository, at the end of the day"),
    "github_watchers": Words(
        "GitHub watchers", "watchers", "accounts that watch the repository, at the end of the day"
    ),
    "github_open_issues": Words("Open issues", "issues", "issues that are open, without pull requests"),
    "github_open_pulls": Words("Open pull requests", "pulls", "pull requests that are open"),
    "github_releases": Words("GitHub releases", "releases", "releases of the repository so far"),
    "github_stars_gained": Words("Stars gained", "new stars", "stars given on the day, by GitHub's own history"),
    "github_commits": Words("Commits", "commits", "commits on the default branch, by the committer's day"),
    "hn_points": Words("Hacker News points", "HN", "points of the stories about the project, by the day of the story"),
    "hn_stories": Words("Hacker News stories", "HN stories", "stories about the project, by the day of the story"),
    "pypi_downloads": Words("PyPI downloads", "PyPI", "downloads of its Python packages, without mirrors"),
    "pypi_downloads_with_mirrors": Words(
        "PyPI downloads with mirrors", "PyPI+", "downloads of its Python packages, those by mirrors included"
    ),
    "npm_downloads": Words("npm downloads", "npm", "downloads of its npm package"),
    "huggingface_downloads": Words("Hugging Face downloads", "HF", "downloads of its model so far"),
    "huggingface_downloads_30d": Words(
        "Hugging Face, 30 days", "HF 30 d", "downloads of its model in the last 30 days"
    ),
    "huggingface_likes": Words("Hugging Face likes", "HF likes", "likes of its model"),
    "depsdev_releases": Words("Package releases", "releases", "versions of its package so far"),
    "depsdev_dependents": Words("Dependents", "dependents", "public packages that depend on its package"),
    "depsdev_stars": Words("Stars by deps.dev", "stars (deps.dev)", "stars as deps.dev states them, of unknown age"),
    "depsdev_forks": Words("Forks by deps.dev", "forks (deps.dev)", "forks as deps.dev states them, of unknown age"),
    "dockerhub_pulls": Words("Docker pulls", "pulls", "pulls of its image so far"),
    "dockerhub_stars": Words("Docker Hub stars", "Docker stars", "stars of its image"),
}

SOURCES: Final[Mapping[str, str]] = {
    "github": "GitHub",
    "hackernews": "Hacker News",
    "pypistats": "PyPI downloads",
    "npm": "npm",
    "huggingface": "Hugging Face",
    "dockerhub": "Docker Hub",
    "depsdev": "deps.dev",
}

FLAGS: Final[Mapping[str, str]] = {
    "reset": "A count fell abruptly (by more than a tenth); the fall was taken out of the growth.",
    "purge": "More than 2 % of a count was taken away within four weeks.",
    "gap": "A series has no observation on this day.",
    "source_gap": "A source had no observation of any project on this day.",
    "young": "A series is younger than four weekly readings and does not count yet.",
    "small": "Fewer than ten events in the week: chance weighs heavily.",
    "spike": "The growth of the last four weeks sits on very few days.",
    "suspect": "A burst that no other source confirms, or a purge. It counts for a quarter. Suspicious, not proven.",
    "renamed": "The project changed its name within the series.",
    "stale": "A series has not been observed for more than three days.",
}

CATEGORY_NAMES: Final[Mapping[str, str]] = {
    "rag": "RAG",
    "mcp": "MCP",
    "data-mlops": "Data and MLOps",
    "ui-workflow": "UI and workflow",
    "speech-vision": "Speech and vision",
    "evaluation-observability": "Evaluation and observability",
}


def words_of(metric: str) -> Words:
    """Return the words of a metric; one without gets its own name."""
    found = METRICS.get(metric)
    if found:
        return found
    known: Metric | None = METRIC_BY_NAME.get(metric)
    name = metric.replace("_", " ")
    return Words(name.capitalize(), name, known.unit if known else "")


def name_category(category: str) -> str:
    """Return a category as people write it."""
    return CATEGORY_NAMES.get(category) or category.replace("-", " ").capitalize()


def write_count(value: float) -> str:
    """Return a number with all its digits: 113,346; halves keep one decimal."""
    text = f"{abs(value):,.0f}" if float(value).is_integer() else f"{abs(value):,.1f}"
    return (MINUS if value < 0 else "") + text


def write_short(value: float) -> str:
    """Return a number in at most four digits: 940, 9.4k, 113k, 1.21M."""
    size = abs(value)
    for limit, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        # What would round up to the next unit (999,950 -> 1,000k) is written in that unit.
        if size >= limit * 0.9995:
            digits = 0 if size >= 99.95 * limit else 1 if size >= 9.995 * limit else 2
            text = f"{size / limit:.{digits}f}"
            return (MINUS if value < 0 else "") + (text.rstrip("0").rstrip(".") if "." in text else text) + unit
    return write_count(round(value) if size >= 10 else round(value, 1))


def write_signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign; what rounds to nothing has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def write_growth(growth: float | None) -> str:
    """Return a fraction per week in per cent with a sign: 0.0123 is +1.2 %."""
    if growth is None:
        return NONE
    percent = growth * 100
    return write_signed(percent, 0 if abs(percent) >= 100 else 1) + THIN + "%"


def write_share(share: float | None) -> str:
    """Return a share of 0..1 in whole per cent; only all is 100 % and only nothing is 0 %."""
    if share is None:
        return NONE
    percent = share * 100
    if 0 < percent < 1:
        return f"<1{THIN}%"
    rounded = 99 if 99 < percent < 100 else round(percent)
    return f"{rounded}{THIN}%"


def write_day(day: date) -> str:
    """Return a day: 29 Jan 2025."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def write_moment(moment: datetime | None) -> str:
    """Return a UTC moment to the minute: 1 Apr 2026, 05:20 UTC."""
    return f"{write_day(moment.date())}, {moment:%H:%M} UTC" if moment else NONE


def count_things(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: 1 day, 2 days."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def describe_age(day: date, over: date) -> str:
    """Say how fresh scores of ``day`` are when ``over`` is the last day that is over."""
    behind = (over - day).days
    if behind <= 0:
        return "up to date: the last day that is over"
    return f"{count_things(behind, 'day')} behind the last day that is over"
