"""Docker Hub: how often an image was pulled so far, and its stars; one request a repository.

Pulls are cumulative and heavy with automation: what a day brought is a difference. They are kept as Docker Hub states
them, also when they have fallen (a repository that was made anew, a recount): what a fall of a level means is for the
score to say (docs/methodology.md, *reset*). Facts: ``GET /v2/repositories/{namespace}/{name}`` as recorded in
simonw/package-stats; an abuse limit per address that is not documented, for which under 100 requests a minute is the
advice (OpenHands/benchmarks#172); JSON with a ``message`` that says *not found* for what is deleted or private.
"""

from __future__ import annotations

import re
from typing import Any, Final

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Gap, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Source, Task, read_refusal

PULLS: Final = METRIC_BY_NAME["dockerhub_pulls"].metric_id
STARS: Final = METRIC_BY_NAME["dockerhub_stars"].metric_id
DOCKERHUB: Final = ORIGIN_BY_NAME["dockerhub"].origin_id
MAX_COUNT: Final = 10**12
"""The most pulled image has about 10^10; a larger number is none."""

_FIELDS: Final = ((PULLS, "pull_count"), (STARS, "star_count"))
_REPOSITORY: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,254}/[a-z0-9][a-z0-9_.-]{0,254}")


def crawl(batch: Batch) -> Steps:
    """Read pulls and stars of each image of the batch; ``key`` is ``namespace/name``, or ``library/name``.

    Raises
    ------
    Malformed, Unavailable
        While the batch's patience lasts; from then on an image that cannot be read costs itself alone.
    """
    rows: list[tuple[int, int, Any, float, int]] = []
    gaps: list[Gap] = []
    for entity in batch.entities:
        if _REPOSITORY.fullmatch(entity.key) is None:
            gaps += _gaps(entity.entity_id, batch, "this cannot be the name of an image: correct the watchlist", False)
            continue
        response = yield Request("dockerhub", "GET", f"/v2/repositories/{entity.key}/", sticky=entity.key)
        if _is_gone(response):
            gaps += _gaps(entity.entity_id, batch, "Docker Hub does not find it: deleted or private", False)
            continue
        try:
            counts = parse_repository(response, entity.key)
        except (Malformed, Unavailable) as exc:
            if batch.attempt < PATIENCE:
                raise
            gaps += _gaps(entity.entity_id, batch, str(exc), True)
            continue
        for metric_id, field in _FIELDS:
            value = counts[field]
            if value is None:
                gaps.append(
                    Gap(entity.entity_id, metric_id, batch.day, f"{field} is no sound count", True, doubtful=True)
                )
            else:
                rows.append((entity.entity_id, metric_id, batch.day, float(value), DOCKERHUB))
    return Observations.from_rows(rows, gaps)


def parse_repository(response: Response, key: str) -> dict[str, int | None]:
    """Read one image: ``pull_count`` and ``star_count``, None where it is no non-negative integer.

    Raises
    ------
    Unavailable, Malformed
        If Docker Hub failed, or the answer is about something else.
    """
    if response.status >= 500:
        raise Unavailable(f"Docker Hub answered {response.status}")
    if response.status != 200:
        raise Malformed(f"Docker Hub answered {response.status} for {key}")
    body = response.json()
    if not isinstance(body, dict):
        raise Malformed(f"Docker Hub's answer for {key} is {type(body).__name__}, not an object")
    stated = f"{body.get('namespace')}/{body.get('name')}"
    if stated != key:
        raise Malformed(f"Docker Hub answered about {stated[:80]!r} when asked for {key}")
    return {field: _count(body.get(field)) for _, field in _FIELDS}


def _is_gone(response: Response) -> bool:
    message = read_refusal(response).get("message")
    return response.status in (404, 410) and isinstance(message, str) and "not found" in message.lower()


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT else None


def _gaps(entity_id: int, batch: Batch, reason: str, retry: bool) -> list[Gap]:
    return [Gap(entity_id, metric_id, batch.day, reason, retry, doubtful=retry) for metric_id, _ in _FIELDS]


SOURCE: Final = Source(
    name="dockerhub",
    upstream="dockerhub",
    key="dockerhub",
    tasks={
        "images": Task("images", ("dockerhub_pulls", "dockerhub_stars"), "snapshot", "core", 20, 1, 20, cadence_days=1)
    },
    crawl=crawl,
    concurrency=2,
    budgets={"dockerhub": BudgetSpec({"core": BucketSpec((Window(90, 60.0),))}, concurrency=2)},
)
