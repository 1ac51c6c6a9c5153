"""Which projects a Hacker News story is about: by its URL, then by product names in its title."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from astrid.models import Story

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WORD: Final = re.compile(r"\w+")
_GLUE_BEFORE: Final = frozenset(".-@")
"""A character that joins what follows to a longer name: the ``vLLM`` of ``nano-vLLM`` is another product."""
LONGEST_URL: Final = 2_000
"""Characters; what a story with a longer URL is about is told by its title alone."""


class Rules(Protocol):
    """What a project is recognised by: ``hn_urls`` as :func:`strip_url` returns them, ``hn_names`` as written."""

    @property
    def slug(self) -> str: ...
    @property
    def hn_urls(self) -> Sequence[str]: ...
    @property
    def hn_names(self) -> Sequence[str]: ...


class StoryMatcher:
    """The rules of all projects at once: built once, then asked story by story.

    Pure and deterministic; the cost of a story depends neither on the number of projects nor on the length of its URL.
    """

    def __init__(self, projects: Iterable[Rules]) -> None:
        self._by_url: dict[str, list[str]] = {}
        self._by_word: dict[str, list[_Name]] = {}
        self._deepest = 0
        for project in projects:
            for url in project.hn_urls:
                self._by_url.setdefault(url, []).append(project.slug)
                self._deepest = max(self._deepest, url.count("/") + 1)
            for name in project.hn_names:
                head = _WORD.match(name)
                if head:
                    entry = _Name(project.slug, name)
                    self._by_word.setdefault(head.group().lower(), []).append(entry)
        for names in self._by_word.values():
            names.sort(key=lambda entry: (-len(entry.text), entry.text, entry.slug))

    def match(self, story: Story) -> tuple[str, ...]:
        """Return the slugs of the projects that a story is about, each once, empty if there is none.

        The URL comes first, the longest prefix before shorter ones; then product names in the order of
        the title. A name must stand as a whole word. One written in lower case is found in any case; one
        with a capital only as written. Where names overlap the longest wins: ``PyTorch Lightning`` is
        not also a mention of ``PyTorch``.
        """
        found = dict.fromkeys(self._from_url(story.url))
        found.update(dict.fromkeys(self._from_title(story.title)))
        return tuple(found)

    def _from_url(self, url: str) -> list[str]:
        if len(url) > LONGEST_URL:
            return []
        segments = strip_url(url).split("/")[: self._deepest]
        found: list[str] = []
        for length in range(len(segments), 0, -1):
            found += self._by_url.get("/".join(segments[:length]), ())
        return found

    def _from_title(self, raw: str) -> list[str]:
        title = " ".join(html.unescape(raw).split())
        lower = _lower(title)
        found: list[str] = []
        end = 0
        for word in _WORD.finditer(lower):
            start = word.start()
            entries = self._by_word.get(word.group())
            if entries is None or start < end or (start and title[start - 1] in _GLUE_BEFORE):
                continue
            longest = 0
            for entry in entries:
                if len(entry.text) < longest:
                    break
                text = lower if entry.any_case else title
                stop = start + len(entry.text)
                if text.startswith(entry.text, start) and _ends(title, stop):
                    longest = len(entry.text)
                    end = stop
                    found.append(entry.slug)
        return found


class _Name:
    """One product name of one project."""

    __slots__ = ("any_case", "slug", "text")

    def __init__(self, slug: str, text: str) -> None:
        self.slug = slug
        self.text = text
        self.any_case = text == text.lower()


def strip_url(url: str) -> str:
    """Return a URL as ``hn_urls`` states it: host and path in lower case, without scheme, ``www.``, query or slash.

    Port and user are dropped, and the ``.git`` of a repository's address. An empty text stays empty.
    """
    rest = url.strip()
    scheme = _SCHEME.match(rest)
    rest = rest[scheme.end() if scheme else 0 :].lower()
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, _, path = rest.partition("/")
    host = host.rpartition("@")[2].partition(":")[0].removeprefix("www.").rstrip(".")
    segments = [segment for segment in path.split("/") if segment]
    if host == "github.com" and len(segments) > 1:
        segments[1] = segments[1].removesuffix(".git")
    return "/".join([host, *segments]) if host else ""


def _lower(text: str) -> str:
    """Return a text in lower case with every character at its old position (``İ`` would grow by one)."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _ends(title: str, stop: int) -> bool:
    """Tell whether a name that ends before ``stop`` ends there as a word.

    ``Llama 3.2`` is not ``Llama 3``, ``TensorFlow.js`` not ``TensorFlow``; ``Ollama.`` and ``Ollama's`` are Ollama.
    """
    rest = title[stop : stop + 2]
    if not rest:
        return True
    if rest[0].isalnum() or rest[0] == "_":
        return False
    return not (rest[0] == "." and len(rest) > 1 and rest[1].isalnum())
