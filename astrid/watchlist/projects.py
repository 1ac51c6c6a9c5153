"""What the watchlist knows of a project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

CATEGORIES: Final = (
    "frameworks",
    "agents",
    "coding-assistants",
    "inference",
    "training",
    "vector-stores",
    "rag",
    "evaluation-observability",
    "mcp",
    "ui-workflow",
    "speech-vision",
    "data-mlops",
    "models",
    "learning",
)
"""The closed set of categories; a project has exactly one, the one that its users would look under."""

PLATFORMS: Final = ("github", "pypi", "npm", "huggingface", "dockerhub", "hackernews")
PROVEN_FIELDS: Final = ("github", "former_github", "pypi", "npm", "huggingface", "dockerhub", "hn_urls", "hn_names")
"""The fields whose identifiers need evidence."""


@dataclass(frozen=True, slots=True)
class Project:
    """One tracked project: what it is called on every platform, and where each of these names is proven.

    ``github`` is ``owner/repo`` in GitHub's own spelling, ``former_github`` its older full names
    (spellings that differ only in case included, since archives keep them). ``hn_urls`` are URL
    prefixes without scheme and ``www.``, lower case; the GitHub addresses stand first among them and
    come from the two fields above, not from the file's column. ``hn_names`` are exact product names.
    ``evidence`` maps a field, or ``field:identifier`` for one identifier of it, to where it is proven.
    """

    slug: str
    name: str
    category: str
    github: str | None
    former_github: tuple[str, ...]
    pypi: tuple[str, ...]
    npm: tuple[str, ...]
    huggingface: tuple[str, ...]
    dockerhub: tuple[str, ...]
    hn_urls: tuple[str, ...]
    hn_names: tuple[str, ...]
    evidence: Mapping[str, str]

    def identifiers(self, field: str) -> tuple[str, ...]:
        """Return the identifiers of one of ``PROVEN_FIELDS`` as a tuple, empty when there is none."""
        value: str | tuple[str, ...] | None = getattr(self, field)
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    def proof(self, field: str, identifier: str) -> str:
        """Return where an identifier is proven, or an empty string if nothing says so.

        A GitHub address among ``hn_urls`` is as well proven as the repository name that it is made of.
        """
        if field == "hn_urls":
            for source in ("github", "former_github"):
                for repo in self.identifiers(source):
                    if identifier == github_url(repo):
                        return self.proof(source, repo)
        return self.evidence.get(f"{field}:{identifier}") or self.evidence.get(field, "")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many projects the watchlist has: in all, per platform on which they are known, per category."""

    projects: int
    platforms: Mapping[str, int]
    categories: Mapping[str, int]


def github_url(repo: str) -> str:
    """Return the URL prefix of a repository as ``hn_urls`` states it."""
    return f"github.com/{repo.lower()}"


def counts(projects: Iterable[Project]) -> Counts:
    """Count projects per platform and per category; every platform and category appears, also with 0."""
    platforms = dict.fromkeys(PLATFORMS, 0)
    categories = dict.fromkeys(CATEGORIES, 0)
    total = 0
    for project in projects:
        total += 1
        categories[project.category] += 1
        for platform in PLATFORMS[:-1]:
            platforms[platform] += bool(project.identifiers(platform))
        platforms["hackernews"] += bool(project.hn_urls or project.hn_names)
    return Counts(total, platforms, categories)
