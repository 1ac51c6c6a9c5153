"""What a watchlist must fulfil before anything is collected for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astrid.watchlist.projects import CATEGORIES, PROVEN_FIELDS, Project

_SLUG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REPO: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/[A-Za-z0-9._-]{1,100}")
_PYPI: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NPM: Final = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*")
_HUGGINGFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_DOCKERHUB: Final = re.compile(r"(library|[a-z0-9]{2,255})/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*")
_URL: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+(/[^/\s?#]+)*")
_NAME: Final = re.compile(r"[^\W_].*[\w+]", re.DOTALL)

SHARED_HOSTS: Final = frozenset(
    {
        "arxiv.org",
        "bsky.app",
        "discord.com",
        "docs.google.com",
        "facebook.com",
        "github.com",
        "gitlab.com",
        "google.com",
        "huggingface.co",
        "linkedin.com",
        "medium.com",
        "microsoft.com",
        "news.ycombinator.com",
        "openai.com",
        "reddit.com",
        "substack.com",
        "twitter.com",
        "wikipedia.org",
        "x.com",
        "youtube.com",
    }
)
"""Hosts on which many projects live: a rule for one of them needs a path."""

COMMON_WORDS: Final = frozenset(Path(__file__).with_name("common_words.txt").read_text(encoding="utf-8").split())
"""Words, and names that several products share: as a rule for titles each of them finds mostly other things."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a watchlist: the project's position and slug, the field, what is wrong, what to do."""

    position: int
    slug: str
    field: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.slug or '(no slug)'}: {self.field}: {self.what}: {self.remedy}"


def check_watchlist(projects: Sequence[Project]) -> list[Problem]:
    """Return every problem, in the order of the projects; an empty list means that the watchlist is sound."""
    problems: list[Problem] = []
    for position, project in enumerate(projects):
        for field, what, remedy in _faults(project):
            problems.append(Problem(position, project.slug, field, what, remedy))
    problems += _collisions(projects)
    problems.sort(key=lambda problem: problem.position)
    return problems


def _faults(project: Project) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, remedy) for what is wrong with one project by itself."""
    if not _SLUG.fullmatch(project.slug):
        yield "slug", f"{project.slug!r} is no slug", "use lower-case letters, digits and single hyphens"
    if not project.name:
        yield "name", "is empty", "write the name as the project spells it"
    if project.category not in CATEGORIES:
        yield "category", f"{project.category!r} is unknown", f"choose one of {', '.join(CATEGORIES)}"
    if not any(project.identifiers(field) for field in PROVEN_FIELDS):
        yield "github", "no platform knows this project", "add one proven identifier, or remove the row"
    yield from _misspelt(project)
    yield from _weak_rules(project)
    for field in PROVEN_FIELDS:
        items = project.identifiers(field)
        for item in items:
            if not project.proof(field, item):
                yield field, f"{item!r} has no evidence", "say in `evidence` where it is proven, or remove it"
        for item in sorted({item for item in items if items.count(item) > 1}):
            yield field, f"{item!r} is listed twice", "keep one of them"
    for key in project.evidence:
        field, _, item = key.partition(":")
        if field not in PROVEN_FIELDS:
            yield "evidence", f"{key!r} names no field", f"use one of {', '.join(PROVEN_FIELDS)}"
        elif item not in project.identifiers(field) if item else not project.identifiers(field):
            yield "evidence", f"{key!r} proves an identifier that is not listed", "list the identifier, or drop this"


def _misspelt(project: Project) -> Iterator[tuple[str, str, str]]:
    """Yield identifiers that cannot exist in that form on their platform."""
    for field in ("github", "former_github"):
        for repo in project.identifiers(field):
            if not _REPO.fullmatch(repo) or repo.endswith(".git"):
                yield field, f"{repo!r} is not owner/repo", "give the two names that GitHub shows, without a URL"
    if project.github in project.former_github:
        yield "former_github", f"{project.github!r} is also the current name", "list former names only"
    for package in project.pypi:
        if not _PYPI.fullmatch(package):
            yield "pypi", f"{package!r} is not normalised", "lower case, with '-' for '.', '_' and runs of them"
    for package in project.npm:
        if not _NPM.fullmatch(package):
            yield "npm", f"{package!r} is no package name", "write name or @scope/name in lower case"
    for repo in project.huggingface:
        if not _HUGGINGFACE.fullmatch(repo):
            yield "huggingface", f"{repo!r} is no organisation or repository", "write organisation or organisation/name"
    for image in project.dockerhub:
        if not _DOCKERHUB.fullmatch(image) or len(image) > 255:
            remedy = "write namespace/repository in lower case, library/name for an official image, without a tag"
            yield "dockerhub", f"{image!r} is no repository", remedy


def _weak_rules(project: Project) -> Iterator[tuple[str, str, str]]:
    """Yield rules for Hacker News that would match nothing, or too much."""
    for url in project.hn_urls:
        if url != url.lower() or not _URL.fullmatch(url) or url.startswith("www."):
            remedy = "write host/path in lower case, without scheme, www., query and trailing slash"
            yield "hn_urls", f"{url!r} is no URL prefix", remedy
        elif url in SHARED_HOSTS or (url.startswith("github.com/") and url.count("/") < 2):
            yield "hn_urls", f"{url!r} covers many projects", "add the path of this one"
    for name in project.hn_names:
        if not _NAME.fullmatch(name) or len(name) < 3:
            remedy = "use at least 3 characters, with a letter or digit at both ends"
            yield "hn_names", f"{name!r} cannot be found as a word", remedy
        elif name.lower() in COMMON_WORDS:
            yield "hn_names", f"{name!r} is a common word", "use a longer, distinctive name, or leave it out"


def _collisions(projects: Sequence[Project]) -> Iterator[Problem]:
    """Yield identifiers that two projects claim; the later project is the one that is named."""
    slugs: dict[str, int] = {}
    owners: dict[tuple[str, str], int] = {}
    for position, project in enumerate(projects):
        first = slugs.setdefault(project.slug, position)
        if first != position:
            yield Problem(position, project.slug, "slug", "is used twice", "choose another slug for one of them")
        for field in PROVEN_FIELDS:
            # A repository's current and former names, in any case, are one name space on GitHub.
            space = "github" if field == "former_github" else field
            for item in dict.fromkeys(item.lower() for item in project.identifiers(field)):
                other = owners.setdefault((space, item), position)
                if other != position:
                    what = f"{item!r} belongs to {projects[other].slug} too"
                    remedy = "one of them is wrong, or the two are one project"
                    yield Problem(position, project.slug, field, what, remedy)
    urls = {item: position for (space, item), position in owners.items() if space == "hn_urls"}
    for url, position in urls.items():
        for depth in range(1, url.count("/") + 1):
            parent = urls.get(url.rsplit("/", depth)[0], position)
            if parent != position:
                what = f"{url!r} lies within a URL of {projects[parent].slug}"
                remedy = "give the outer project narrower paths"
                yield Problem(position, projects[position].slug, "hn_urls", what, remedy)
