"""deps.dev: releases and dependents of packages, and a second count of repositories' stars and forks; once a week.

Stars and forks come without a token, up to 5,000 repositories a request; how old they are is not stated, so they can
only contradict GitHub's own counts widely. Dependents are counted in the graphs that deps.dev resolves, public packages
alone: "indicative of relative popularity". Releases are counted here and not asked of the package index. Facts:
google/deps.dev ``api/v3alpha/apiv3alpha.proto`` (the version may change without notice; counts are 32 bits, so JSON
numbers). No limit is published; this asks for one thing a second and everything once a week.

Silence is no verdict: unknown is only what deps.dev answers without a project, or refuses with gRPC's code 5. A count
that fell is kept as it is stated: dependents do when graphs are resolved anew, releases when versions are taken away.
What a fall of a level means is for the score to say (docs/methodology.md, *reset*).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from urllib.parse import quote

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Price, Source, Task, read_day, read_refusal

RELEASES: Final = METRIC_BY_NAME["depsdev_releases"].metric_id
DEPENDENTS: Final = METRIC_BY_NAME["depsdev_dependents"].metric_id
STARS: Final = METRIC_BY_NAME["depsdev_stars"].metric_id
FORKS: Final = METRIC_BY_NAME["depsdev_forks"].metric_id
DEPSDEV: Final = ORIGIN_BY_NAME["depsdev"].origin_id

BATCH: Final = 5_000
MAX_PAGES: Final = 50
MAX_COUNT: Final = 2**31
UNKNOWN_REPOSITORY: Final = "deps.dev does not know the repository"
UNKNOWN_PACKAGE: Final = "deps.dev does not know the package"
UNANSWERED: Final = "deps.dev's answer leaves the repository out"
DOUBLED: Final = "deps.dev states the repository twice, and not alike"
MISTAKEN: Final = "deps.dev answered about another repository"
NO_RELEASE: Final = "deps.dev states no version of the package that can be read"
NO_VERSION: Final = "deps.dev states no version that is installed by default"
NO_COUNT: Final = "deps.dev states no sound count"
DOUBTFUL: Final = (UNANSWERED, DOUBLED, MISTAKEN, NO_RELEASE, NO_COUNT)
"""Reasons for which a second answer may be sound."""

NOT_FOUND: Final = 5
"""gRPC's code, which stands in the body of a 404."""

Row = tuple[int, int, date, float, int]
Counts = tuple[int | None, int | None]
"""Stars and forks; None where no sound count is stated."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: by name in lower case the counts, or why there are none; and the next page's token, or empty."""

    found: Mapping[str, Counts | str]
    token: str


def crawl(batch: Batch) -> Steps:
    """Read stars and forks (task ``projects``), or releases and dependents (``packages``).

    An entity's ``names`` are what deps.dev may call it: ``github.com/owner/name``, ``pypi/name``, ``npm/name``; of
    packages the first is asked for.

    Raises
    ------
    Malformed, Unavailable
        While the batch's patience lasts; from then on a package that cannot be read costs itself alone.
    """
    if batch.task == "projects":
        return (yield from _crawl_projects(batch))
    rows: list[Row] = []
    gaps: list[Gap] = []
    for entity in batch.entities:
        failed = False
        try:
            found = yield from _crawl_package(entity, batch.day)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            found, failed = {RELEASES: str(exc), DEPENDENTS: str(exc)}, True
        for metric_id, value in found.items():
            if isinstance(value, str):
                gone = value in (UNKNOWN_PACKAGE, NO_VERSION)
                gaps.append(Gap(entity.entity_id, metric_id, batch.day, value, not gone, failed or value in DOUBTFUL))
            else:
                rows.append((entity.entity_id, metric_id, batch.day, float(value), DEPSDEV))
    return Observations.from_rows(rows, gaps)


def _crawl_projects(batch: Batch) -> Steps:
    """Page through one list of repositories; what no page holds is a gap."""
    names = list(dict.fromkeys(e.names[0].lower() for e in batch.entities if _is_repository(e)))
    found = (yield from _read_pages(names)) if names else {}
    rows: list[Row] = []
    gaps: list[Gap] = []
    for entity in batch.entities:
        known = found.get(entity.names[0].lower(), UNANSWERED) if _is_repository(entity) else UNKNOWN_REPOSITORY
        for n, metric_id in enumerate((STARS, FORKS)):
            value = known if isinstance(known, str) else known[n]
            if isinstance(value, int):
                rows.append((entity.entity_id, metric_id, batch.day, float(value), DEPSDEV))
            else:
                reason = value or NO_COUNT
                known_to_it = reason != UNKNOWN_REPOSITORY
                gaps.append(Gap(entity.entity_id, metric_id, batch.day, reason, known_to_it, reason in DOUBTFUL))
    return Observations.from_rows(rows, gaps)


def _read_pages(names: Sequence[str]) -> Generator[Request, Response, dict[str, Counts | str]]:
    """Ask for a list of names, page by page.

    Raises
    ------
    Malformed
        If the pages do not end, or none of them says anything about what was asked for.
    """
    wanted = [{"projectKey": {"id": name}} for name in names]
    found: dict[str, Counts | str] = {}
    tokens = [""]
    while len(tokens) <= MAX_PAGES:
        body = {"requests": wanted} | ({"pageToken": tokens[-1]} if tokens[-1] else {})
        page = parse_projects((yield Request("depsdev", "POST", "/v3alpha/projectbatch", json=body)))
        for name, stated in page.found.items():
            found[name] = stated if found.get(name, stated) == stated else DOUBLED
        if not page.token:
            break
        if page.token in tokens:
            raise Malformed("deps.dev's pages lead back to one that was read")
        tokens.append(page.token)
    else:
        raise Malformed(f"deps.dev answers {len(names)} repositories in more than {MAX_PAGES} pages")
    if not found.keys() & set(names):
        raise Malformed(f"deps.dev answered about none of the {len(names)} repositories that it was asked for")
    return found


def parse_projects(response: Response) -> Page:
    """Read one page of repositories, by the names under which they were asked for.

    One without a project is unknown to deps.dev. One that is stated twice, and not alike, or with the project of
    another one, has a reason in place of counts.

    Raises
    ------
    Unavailable, Malformed
        If deps.dev failed, or the answer is no page.
    """
    body = _read_object(response)
    answers, token = body.get("responses", []), body.get("nextPageToken", "")
    if not isinstance(answers, list) or not isinstance(token, str):
        raise Malformed("deps.dev answered without a list of projects")
    found: dict[str, Counts | str] = {}
    for answer in answers:
        asked = _at(answer, "request", "projectKey", "id")
        if isinstance(asked, str):
            stated = _read_project(answer.get("project"), asked.lower())
            found[asked.lower()] = stated if found.get(asked.lower(), stated) == stated else DOUBLED
    return Page(found, token)


def _read_project(project: Any, name: str) -> Counts | str:
    if project is None:
        return UNKNOWN_REPOSITORY
    if not isinstance(project, dict):
        return NO_COUNT
    stated = _at(project, "projectKey", "id")
    if not isinstance(stated, str) or stated.lower() != name:
        return MISTAKEN
    return _count(project.get("starsCount")), _count(project.get("forksCount"))


def _crawl_package(entity: Entity, day: date) -> Generator[Request, Response, dict[int, int | str]]:
    """Return each metric's value, or why there is none."""
    name = next((n for n in entity.names if not n.startswith("github.com/")), "")
    if "/" not in name:
        return {RELEASES: UNKNOWN_PACKAGE, DEPENDENTS: UNKNOWN_PACKAGE}
    system, _, package = name.partition("/")
    path = f"/v3alpha/systems/{system}/packages/{quote(package, safe='')}"
    response = yield Request("depsdev", "GET", path, sticky=name)
    if _is_unknown(response):
        return {RELEASES: UNKNOWN_PACKAGE, DEPENDENTS: UNKNOWN_PACKAGE}
    releases, default = parse_package(response, name, day)
    if not default:
        return {RELEASES: releases, DEPENDENTS: NO_RELEASE if releases == NO_RELEASE else NO_VERSION}
    response = yield Request("depsdev", "GET", f"{path}/versions/{quote(default, safe='')}:dependents", sticky=name)
    return {RELEASES: releases, DEPENDENTS: NO_VERSION if _is_unknown(response) else parse_dependents(response)}


def parse_package(response: Response, name: str, day: date) -> tuple[int | str, str]:
    """Read the package ``name`` (``pypi/…``, ``npm/…``): its versions up to ``day``, and its default one, or empty.

    A version without a time of publication counts: it is there. One that is stated twice counts once. Where no version
    at all can be read there is no count, but :data:`NO_RELEASE`: a package without a release is none.

    Raises
    ------
    Unavailable, Malformed
        If deps.dev failed, or the answer is about something else.
    """
    body = _read_object(response)
    versions = body.get("versions")
    if not _is_of(body.get("packageKey"), name):
        raise Malformed(f"deps.dev answered about {repr(body.get('packageKey'))[:120]} when asked for {name[:80]}")
    stated: set[str] = set()
    published: set[str] = set()
    defaults: set[str] = set()
    for version in versions if isinstance(versions, list) else ():
        number = _at(version, "versionKey", "version")
        if not isinstance(number, str) or not number or not _is_of(version["versionKey"], name):
            continue
        stated.add(number)
        at = version.get("publishedAt")
        day_of_it = read_day(at[:10]) if isinstance(at, str) else None
        if day_of_it is None or day_of_it <= day:
            published.add(number)
            if version.get("isDefault") is True:
                defaults.add(number)
    return len(published) if stated else NO_RELEASE, defaults.pop() if len(defaults) == 1 else ""


def parse_dependents(response: Response) -> int | str:
    """Read how many packages depend on a version, directly or not; :data:`NO_COUNT` if it is no sound count."""
    count = _count(_read_object(response).get("dependentCount"))
    return NO_COUNT if count is None else count


def _is_unknown(response: Response) -> bool:
    return response.status == 404 and read_refusal(response).get("code") == NOT_FOUND


def _is_of(key: Any, name: str) -> bool:
    """Tell whether a key of deps.dev's, which may spell a name in its own way, is the one that was asked for."""
    system, package = _at(key, "system"), _at(key, "name")
    if not isinstance(system, str) or not isinstance(package, str):
        return False
    return _normalised(f"{system.lower()}/{package}") == _normalised(name)


def _normalised(name: str) -> str:
    system, _, package = name.partition("/")
    return f"{system}/{re.sub('[-_.]+', '-', package).lower()}" if system == "pypi" else name


def _read_object(response: Response) -> dict[str, Any]:
    if response.status >= 500:
        raise Unavailable(f"deps.dev answered {response.status}")
    if response.status != 200:
        raise Malformed(f"deps.dev answered {response.status}")
    body = response.json()
    if not isinstance(body, dict):
        raise Malformed(f"deps.dev answered with {type(body).__name__}, not an object")
    return body


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT else None


def _is_repository(entity: Entity) -> bool:
    return any(name.startswith("github.com/") for name in entity.names[:1])


def _is_package(entity: Entity) -> bool:
    return any(not name.startswith("github.com/") for name in entity.names)


def _price_packages(_: Task, entities: Sequence[Entity], days: int) -> Price:
    return Price(2 * len(entities), 2 * len(entities))


SOURCE: Final = Source(
    name="depsdev",
    upstream="depsdev",
    key="depsdev",
    tasks={
        "projects": Task(
            "projects",
            ("depsdev_stars", "depsdev_forks"),
            "snapshot",
            "core",
            BATCH,
            1,
            2,
            cadence_days=7,
            accepts=_is_repository,
        ),
        "packages": Task(
            "packages",
            ("depsdev_releases", "depsdev_dependents"),
            "snapshot",
            "core",
            20,
            1,
            40,
            cadence_days=7,
            accepts=_is_package,
            price=_price_packages,
        ),
    },
    crawl=crawl,
    concurrency=1,
    budgets={"depsdev": BudgetSpec({"core": BucketSpec((Window(1, 1.0),))}, concurrency=2)},
)
