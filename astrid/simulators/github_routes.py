"""The paths of GitHub's REST interface: what each answers on a night, before limits and the headers of all answers.

Facts: GitHub docs, "REST API endpoints for" repositories, starring, releases, events and search. ``/stargazers`` has
been closed to all but a repository's collaborators since July 2026, and nobody here is one.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from astrid.models import Request
from astrid.simulators.github_answers import Resource, blocked, cut_page, failed, not_found, read_page, too_far
from astrid.simulators.github_events import MAX_EVENTS, POLL_S, feed_events, repository_events
from astrid.simulators.github_rest import release_body, repository_body, topics_of
from astrid.simulators.github_search import BadQuery, Indexed, read_repository_query, search_repositories
from astrid.simulators.repositories import Repositories, Repository
from astrid.simulators.scenarios import Scenario
from astrid.simulators.upstream import Call

WEEKS_PER_PAGE: Final = 30
MAX_PAGE: Final = 100
REACHABLE: Final = 1000
SEARCH: Final = "/search/repositories"
_SEARCH_DOCS: Final = "https://docs.github.com/v3/search/"
_REPO: Final = re.compile(r"/repos/([^/]+/[^/]+)(/.*)?")
_NUMBER: Final = re.compile(r"/repositories/([0-9]{1,18})(/.*)?")
_NOT_IN_SEARCH: Final = ("temp_clone_token", "custom_properties", "organization", "network_count", "subscribers_count")


class Routes:
    """Answers paths over the repositories; what it builds it keeps until another night is asked for."""

    def __init__(self, repositories: Repositories, scenario: Scenario) -> None:
        self.repositories = repositories
        self._scenario = scenario
        self._night: date | None = None
        self._built: dict[tuple[str, str], Any] = {}
        self._index: list[Indexed] | None = None

    def find(self, call: Call, base_url: str) -> Resource:
        """Answer one request; ``call.now`` is by GitHub's clock, ``base_url`` what absolute links begin with."""
        self._turn_to(call.night)
        path = call.request.path
        if call.request.method not in ("GET", "HEAD"):
            return not_found()
        if path == "/events":
            return _events(feed_events(call.now, base_url), call, f"{base_url}/events")
        if path == SEARCH:
            return self._search(call, base_url)
        if match := _NUMBER.fullmatch(path):
            repository = self.repositories.by_number(int(match[1]), call.night)
        elif match := _REPO.fullmatch(path):
            repository = self.repositories.by_name(match[1], call.night)
            if repository is None and (moved := self.repositories.by_former_name(match[1], call.night)):
                return _moved(f"{base_url}/repositories/{moved.database_id}{match[2] or ''}{_query(call.request)}")
        else:
            return not_found()
        if repository is None or repository.block == "gone":
            return not_found()
        if repository.block is not None:
            return blocked(repository.block)
        return self._of(repository, match[2], call, base_url)

    def node(self, repository: Repository, night: date) -> dict[str, Any]:
        """Return the GraphQL object of a repository as of a night, built once."""
        self._turn_to(night)
        key = ("node", repository.node_id)
        if key not in self._built:
            self._built[key] = self.repositories.node(repository, night)
        node: dict[str, Any] = self._built[key]
        return node

    def _turn_to(self, night: date) -> None:
        if night != self._night:
            self._night, self._index = night, None
            self._built.clear()

    def _of(self, repository: Repository, below: str | None, call: Call, base_url: str) -> Resource:
        numbered = f"{base_url}/repositories/{repository.database_id}{below or ''}"
        match below:
            case None:
                return self._repository(repository, call.night, base_url)
            case "/stargazers/history":
                return self._history(repository, call, numbered)
            case "/stargazers/count":
                stars = self.repositories.stars(repository, call.night)
                return failed() if stars is None else Resource(200, {"count": stars})
            case "/releases":
                return self._releases(repository, call, base_url, numbered)
            case "/events":
                key = ("events", repository.node_id)
                if key not in self._built:
                    self._built[key] = repository_events(self.repositories, repository, call.night, base_url)
                return _events(self._built[key], call, numbered)
            case _:
                return not_found()

    def _repository(self, repository: Repository, night: date, base_url: str) -> Resource:
        key = ("repository", repository.node_id)
        node = self.node(repository, night)
        if key not in self._built:
            whole = node["stargazerCount"] is not None and node["forkCount"] is not None
            self._built[key] = orjson.dumps(repository_body(node, base_url)) if whole else None
        body = self._built[key]
        # A recorded answer's date equals its `updated_at`; whether a new star moves that is not known.
        return failed() if body is None else Resource(200, body, modified_at=datetime.fromisoformat(node["updatedAt"]))

    def _history(self, repository: Repository, call: Call, url: str) -> Resource:
        if self.repositories.has(repository, "ancient"):
            return failed()
        page, size = read_page(call, WEEKS_PER_PAGE)
        if page > MAX_PAGE:
            return too_far()
        key = ("history", repository.node_id)
        if key not in self._built:
            self._built[key] = self.repositories.history(repository, call.night)
        weeks: list[dict[str, Any]] = self._built[key]
        # Recorded answers have no `last`.
        links = [f'<{url}?per_page={size}&page={page - 1}>; rel="prev"'] if page > 1 else []
        if page * size < len(weeks):
            links.append(f'<{url}?per_page={size}&page={page + 1}>; rel="next"')
        rows = weeks[(page - 1) * size : page * size]
        return Resource(200, rows, {"link": ", ".join(links)} if links else {})

    def _releases(self, repository: Repository, call: Call, base_url: str, url: str) -> Resource:
        days = self.repositories.releases(repository, call.night)
        if days is None:
            return failed()
        rows, link = cut_page(list(enumerate(days, 1))[::-1], call, url)
        whose = repository.database_id, repository.name, base_url
        return Resource(200, [release_body(number, day, *whose) for number, day in rows], link)

    def _search(self, call: Call, base_url: str) -> Resource:
        """Search; past 1,000 results the page that begins there is refused (measured: brekkylab/backlot#144)."""
        try:
            query = read_repository_query(call.param("q"))
        except BadQuery as exc:
            told = {"message": str(exc)} if str(exc) else {}
            errors = [{**told, "resource": "Search", "field": "q", "code": exc.code}]
            return _invalid({"message": "Validation Failed", "errors": errors})
        page, size = read_page(call)
        if (page - 1) * size >= REACHABLE:
            return _invalid({"message": "Only the first 1000 search results are available"})
        found = search_repositories(self._indexed(call.night), query, call.param("sort"), call.param("order", "desc"))
        if self._scenario.incomplete_search:
            found = found[::2]
        entries, link = cut_page(found[:REACHABLE], call, f"{base_url}{SEARCH}")
        body = {
            "total_count": len(found),
            "incomplete_results": self._scenario.incomplete_search,
            "items": [self._item(entry, base_url) for entry in entries],
        }
        return Resource(200, body, {"cache-control": "no-cache", **link}, tagged=False)

    def _indexed(self, night: date) -> list[Indexed]:
        if self._index is None:
            self._index = []
            for repository in self.repositories.public(night):
                day = self.repositories.last_known(repository, night)
                if day is None:
                    continue
                stars, forks = self.repositories.stars(repository, day), self.repositories.forks(repository, day)
                if stars is not None and forks is not None:
                    topics = frozenset(topics_of(repository.database_id))
                    self._index.append(Indexed(repository, stars, forks, topics, day))
        return self._index

    def _item(self, entry: Indexed, base_url: str) -> dict[str, Any]:
        body = repository_body(self.repositories.node(entry.repository, entry.counted_on), base_url)
        return {k: v for k, v in body.items() if k not in _NOT_IN_SEARCH} | {"score": 1.0}


def _events(events: list[dict[str, Any]], call: Call, url: str) -> Resource:
    """Return a page of events; where the list may be followed no further is from memory."""
    page, size = read_page(call)
    if (page - 1) * size >= MAX_EVENTS:
        return too_far()
    rows, link = cut_page(events, call, url)
    return Resource(200, rows, {"x-poll-interval": str(POLL_S), **link})


def _moved(url: str) -> Resource:
    docs = "https://docs.github.com/v3/#http-redirects"
    return Resource(301, {"message": "Moved Permanently", "url": url, "documentation_url": docs}, {"location": url})


def _invalid(body: dict[str, Any]) -> Resource:
    return Resource(422, body | {"documentation_url": _SEARCH_DOCS, "status": "422"})


def _query(request: Request) -> str:
    return f"?{urlencode(request.params)}" if request.params else ""
