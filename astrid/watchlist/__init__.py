"""The tracked universe: which AI projects are watched, and under which names on which platform."""

from astrid.watchlist.checks import COMMON_WORDS, Problem, check_watchlist
from astrid.watchlist.loading import load_watchlist
from astrid.watchlist.matching import StoryMatcher
from astrid.watchlist.projects import CATEGORIES, PLATFORMS, Counts, Project, counts

__all__ = [
    "CATEGORIES",
    "COMMON_WORDS",
    "PLATFORMS",
    "Counts",
    "Problem",
    "Project",
    "StoryMatcher",
    "check_watchlist",
    "counts",
    "load_watchlist",
]
