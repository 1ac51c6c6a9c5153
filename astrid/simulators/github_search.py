"""What ``/search/repositories`` finds: the words and qualifiers of a query, over the repositories of a night.

Facts: GitHub docs, "REST API endpoints for search" and "Searching for repositories": at most 1,000 results, 256
characters and five AND, OR, NOT; 422 for a query that is not valid. Words are looked for in the names alone, and of the
qualifiers there are ``stars``, ``created``, ``topic`` and ``in:name``; any other, OR and NOT are refused, for nothing
here could find honestly what they mean. The whole text counts for its length. An index is older than what it indexes: a
repository is found with the last counts that the world knows, where the night itself has a gap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from astrid.simulators.repositories import Repository

MAX_QUERY: Final = 256
MAX_OPERATORS: Final = 5
_TERM: Final = re.compile(r'"[^"]*"|\S+')
_QUALIFIER: Final = re.compile(r"(-?[a-z-]+):(.+)", re.DOTALL)
_COMPARED: Final = re.compile(r"(>=|<=|>|<|)([^<>=.*]+)")
_BETWEEN: Final = re.compile(r"(.+)\.\.(.+)")


class BadQuery(ValueError):
    """A query that GitHub refuses; ``code`` is the kind of its error."""

    def __init__(self, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Indexed:
    """A repository as the search knows it; ``counted_on`` is the day of its counts."""

    repository: Repository
    stars: int
    forks: int
    topics: frozenset[str]
    counted_on: date


@dataclass(slots=True)
class RepositoryQuery:
    """What is wanted: words in the name, topics, and inclusive ranges of stars and of days as ordinals."""

    words: list[str] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    stars: list[tuple[float, float]] = field(default_factory=list)
    created: list[tuple[float, float]] = field(default_factory=list)

    def matches(self, entry: Indexed) -> bool:
        """Tell whether a repository is wanted."""
        short = entry.repository.name.rpartition("/")[2].lower()
        created = entry.repository.created_on.toordinal()
        return (
            all(word in short for word in self.words)
            and entry.topics.issuperset(self.topics)
            and all(low <= entry.stars <= high for low, high in self.stars)
            and all(low <= created <= high for low, high in self.created)
        )


def read_repository_query(text: str) -> RepositoryQuery:
    """Read a query.

    Raises
    ------
    BadQuery
        If it is empty or too long, or holds what cannot be read.
    """
    if not text.strip():
        raise BadQuery("", "missing")
    if len(text) > MAX_QUERY:
        raise BadQuery(f"The search is longer than {MAX_QUERY} characters.")
    terms = _TERM.findall(text)
    operators = [term for term in terms if term in ("AND", "OR", "NOT")]
    if len(operators) > MAX_OPERATORS:
        raise BadQuery(f"More than {MAX_OPERATORS} AND / OR / NOT operators were used.")
    if "OR" in operators or "NOT" in operators:
        raise BadQuery("OR and NOT are not simulated.")
    query = RepositoryQuery()
    for term in terms:
        match = _QUALIFIER.fullmatch(term)
        if term == "AND":
            continue
        if match is None:
            query.words.append(term.strip('"').lower())
        elif match[1] == "topic":
            query.topics.append(match[2].strip('"').lower())
        elif match[1] == "stars":
            query.stars.append(_range(match[2], _count))
        elif match[1] == "created":
            query.created.append(_range(match[2], _ordinal))
        elif term != "in:name":
            raise BadQuery(f"The qualifier {match[1]} is not simulated.")
    return query


def search_repositories(index: Iterable[Indexed], query: RepositoryQuery, sort: str, order: str) -> list[Indexed]:
    """Return what matches; most stars first unless ``sort`` is forks or updated, or ``order`` asc."""
    found = sorted((entry for entry in index if query.matches(entry)), key=lambda e: e.repository.node_id)
    keys: dict[str, Callable[[Indexed], int]] = {
        "forks": lambda e: e.forks,
        "updated": lambda e: e.counted_on.toordinal(),
    }
    found.sort(key=keys.get(sort, lambda e: e.stars), reverse=order != "asc")
    return found


def _range(text: str, read: Callable[[str], int]) -> tuple[float, float]:
    """Read ``>A``, ``>=A``, ``<A``, ``<=A``, ``A``, ``A..B``, ``A..*`` or ``*..B`` as an inclusive range."""
    if match := _BETWEEN.fullmatch(text):
        low, high = (side if side == "*" else read(side) for side in match.groups())
        return -float("inf") if low == "*" else float(low), float("inf") if high == "*" else float(high)
    compared = _COMPARED.fullmatch(text)
    if compared is None:
        raise BadQuery(f"{text} is no range.")
    value = read(compared[2])
    match compared[1]:
        case ">" | ">=":
            return float(value + (compared[1] == ">")), float("inf")
        case "<" | "<=":
            return -float("inf"), float(value - (compared[1] == "<"))
        case _:
            return float(value), float(value)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise BadQuery(f"{text} is no number.")
    return int(text)


def _ordinal(text: str) -> int:
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        raise BadQuery(f"{text} is no date.") from None
