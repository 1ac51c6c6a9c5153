"""deps.dev: releases and dependents of packages, and a second count of repositories' stars and forks; once a week.

Stars and forks come without a token, up to 5,000 repositories a request; how old they are is not stated, so they can
only contradict GitHub's own counts widely. Dependents are counted in the graphs that deps.dev resolves, public packages
alone: "indicative of relative popularity". Releases are counted here and not asked of the package index. Facts:
google/deps.dev ``api/v3alpha/apiv3alpha.proto`` (the version may change without notice; counts are 32 bits, so JSON
numbers). No limit is published; this asks for one thing a second and everything once a week.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import date
from typing import Any, Final
from urllib.parse import quote

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Price, Source, Task

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
NO_VERSION: Final = "deps.dev states no version that is installed by default"
NO_COUNT: Final = "deps.dev states no sound count"

Row = tuple[int, int, date, float, int]


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
        try:
            found = yield from _crawl_package(entity, batch.day)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            found = {RELEASES: str(exc), DEPENDENTS: str(exc)}
        for metric_id, value in found.items():
            if isinstance(value, str):
                gone = value in (UNKNOWN_PACKAGE, NO_VERSION)
                gaps.append(Gap(entity.entity_id, metric_id, batch.day, value, not gone))
            else:
                rows.append((entity.entity_id, metric_id, batch.day, float(value), DEPSDEV))
    return Observations.from_rows(rows, gaps)


def _crawl_projects(batch: Batch) -> Steps:
    """Page through one list of repositories; what no page holds is a gap."""
    names = list(dict.fromkeys(e.names[0].lower() for e in batch.entities if _is_repository(e)))
    wanted = [{"projectKey": {"id": name}} for name in names]
    counts: dict[str, tuple[int | None, int | None] | None] = {}
    tokens = [""]
    while len(tokens) <= MAX_PAGES:
        body = {"requests": wanted} | ({"pageToken": tokens[-1]} if tokens[-1] else {})
        response = yield Request("depsdev", "POST", "/v3alpha/projectbatch", json=body)
        page, token = parse_projects(response)
        counts |= page
        if not token:
            break
        if token in tokens:
            raise Malformed("deps.dev's pages lead back to one that was read")
        tokens.append(token)
    else:
        raise Malformed(f"deps.dev answers {len(names)} repositories in more than {MAX_PAGES} pages")
    rows: list[Row] = []
    gaps: list[Gap] = []
    for entity in batch.entities:
        known = counts.get(entity.names[0].lower()) if entity.names else None
        for n, metric_id in enumerate((STARS, FORKS)):
            value = None if known is None else known[n]
            if value is not None:
                rows.append((entity.entity_id, metric_id, batch.day, float(value), DEPSDEV))
            else:
                reason = UNKNOWN_REPOSITORY if known is None else NO_COUNT
                gaps.append(Gap(entity.entity_id, metric_id, batch.day, reason, known is not None))
    return Observations.from_rows(rows, gaps)


def parse_projects(response: Response) -> tuple[dict[str, tuple[int | None, int | None] | None], str]:
    """Read one page: (stars, forks) by the name that was asked for, in lower case, and the next page's token or empty.

    A repository that deps.dev does not know is None, a count that is none too. One that is stated twice, and not
    alike, is left out.

    Raises
    ------
    Unavailable, Malformed
        If deps.dev failed, or the answer is no page.
    """
    body = _read_object(response)
    answers, token = body.get("responses", []), body.get("nextPageToken", "")
    if not isinstance(answers, list) or not isinstance(token, str):
        raise Malformed("deps.dev answered without a list of projects")
    found: dict[str, tuple[int | None, int | None] | None] = {}
    doubled: set[str] = set()
    for answer in answers:
        stated = _at(answer, "request", "projectKey", "id")
        if not isinstance(stated, str):
            continue
        name = stated.lower()
        project = answer.get("project")
        counts = (
            (_count(project.get("starsCount")), _count(project.get("forksCount")))
            if isinstance(project, dict) and project
            else None
        )
        if found.get(name, counts) != counts:
            doubled.add(name)
        found[name] = counts
    return {name: counts for name, counts in found.items() if name not in doubled}, token


def _crawl_package(entity: Entity, day: date) -> Generator[Request, Response, dict[int, int | str]]:
    """Return each metric's value, or why there is none."""
    name = next((n for n in entity.names if not n.startswith("github.com/")), "")
    if "/" not in name:
        return {RELEASES: UNKNOWN_PACKAGE, DEPENDENTS: UNKNOWN_PACKAGE}
    system, _, package = name.partition("/")
    path = f"/v3alpha/systems/{system}/packages/{quote(package, safe='')}"
    response = yield Request("depsdev", "GET", path, sticky=name)
    if response.status == 404:
        return {RELEASES: UNKNOWN_PACKAGE, DEPENDENTS: UNKNOWN_PACKAGE}
    releases, default = parse_package(response, day)
    if not default:
        return {RELEASES: releases, DEPENDENTS: NO_VERSION}
    response = yield Request("depsdev", "GET", f"{path}/versions/{quote(default, safe='')}:dependents", sticky=name)
    return {RELEASES: releases, DEPENDENTS: NO_VERSION if response.status == 404 else parse_dependents(response)}


def parse_package(response: Response, day: date) -> tuple[int, str]:
    """Read a package: how many of its versions were published up to ``day``, and its default version, or empty.

    A version without a time of publication counts: it is there. One that is stated twice counts once.

    Raises
    ------
    Unavailable, Malformed
        If deps.dev failed, or the answer is no package.
    """
    body = _read_object(response)
    versions = body.get("versions", [])
    if not isinstance(body.get("packageKey"), dict) or not isinstance(versions, list):
        raise Malformed("deps.dev answered without a package")
    names: set[str] = set()
    default = ""
    for version in versions:
        name = _at(version, "versionKey", "version")
        if not isinstance(name, str) or not name:
            continue
        published = version.get("publishedAt")
        if not isinstance(published, str) or published[:10] <= day.isoformat():
            names.add(name)
            if version.get("isDefault") is True:
                default = name
    return len(names), default


def parse_dependents(response: Response) -> int | str:
    """Read how many packages depend on a version, directly or not; :data:`NO_COUNT` if it is no sound count."""
    count = _count(_read_object(response).get("dependentCount"))
    return NO_COUNT if count is None else count


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
