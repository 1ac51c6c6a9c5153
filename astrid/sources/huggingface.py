"""Downloads and likes of models from the Hugging Face Hub, as they stand at the reading.

The Hub lists 500 models a request, the most downloaded first; named models that are not among them cost a request
each. So a batch reads lists as long as they can save requests, and asks for the others singly. Downloads of all time
and likes are stated only if asked for (``expand``). Facts: huggingface/hub-docs ``docs/hub/rate-limits.md`` (500
requests in 5 minutes per address), ``models-download-stats.md``; huggingface_hub ``hf_api.py``, ``_pagination.py``.

Downloads of all time are kept as the Hub states them, also when they have fallen (a recount, a name given to another
model); likes do fall. What a fall of a level means is for the score to say (docs/methodology.md, *reset*).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Gap, Identity, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Price, Source, Task, read_refusal

PAGE: Final = 500
MAX_PAGES: Final = 20
PASSES: Final = 3
HOPELESS: Final = 5
"""Where so many more models failed than came, the Hub is down, and the batch had better wait."""

FIELDS: Final[Mapping[str, str]] = {
    "huggingface_downloads": "downloadsAllTime",
    "huggingface_downloads_30d": "downloads",
    "huggingface_likes": "likes",
}
"""The Hub's name of each metric."""

HUGGINGFACE: Final = ORIGIN_BY_NAME["huggingface"].origin_id
_METRIC_IDS: Final = {field: METRIC_BY_NAME[name].metric_id for name, field in FIELDS.items()}
_EXPAND: Final = tuple(("expand", field) for field in FIELDS.values())
_ROOT: Final = "/api/models"
_MODEL: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{1,64}")
_NEXT: Final = re.compile(r'<([^<>]{1,4000})>\s*;[^,<]*\brel="?next\b')
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

UNKNOWN: Final = "Hugging Face knows no model of this name: correct the watchlist"
GATED: Final = "Hugging Face shows this gated model to approved accounts only"
HIDDEN: Final = "Hugging Face does not show this model without an account: it is private, gated or gone"
LOST: Final = "Hugging Face redirects this model, but to no other model"
NO_COUNT: Final = "Hugging Face states no usable count"


@dataclass(frozen=True, slots=True)
class Model:
    """One model as the Hub states it: its lasting id (empty if absent), its name, and its usable counts by field."""

    upstream_id: str
    name: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Gone:
    """Why the Hub shows no such model, and whether to ask again."""

    reason: str
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One list of models, and the cursor of the next one; empty after the last."""

    models: tuple[Model, ...]
    cursor: str


def crawl(batch: Batch) -> Steps:
    """Read the counts of the batch's models as of now; ``key`` is ``owner/name``.

    A renamed model is followed once, and its new name returned as an :class:`~astrid.models.Identity`.
    """
    rows: list[tuple[int, int, date, float, int]] = []
    gaps: list[Gap] = []
    identities: list[Identity] = []
    wanted = dict.fromkeys(e.key for e in batch.entities)
    known: dict[str, Model | Gone] = {**(yield from _read_lists(batch, wanted.keys()))}
    known |= yield from _read_singles(batch, [name for name in wanted if name not in known])
    for entity in batch.entities:
        found = known[entity.key]
        if isinstance(found, Gone):
            gaps += [Gap(entity.entity_id, m, batch.day, found.reason, found.retry) for m in _METRIC_IDS.values()]
            continue
        if found.name.lower() != entity.key.lower():
            identities.append(Identity(entity.entity_id, "huggingface", found.upstream_id or found.name, found.name))
        for field, metric_id in _METRIC_IDS.items():
            if field in found.counts:
                rows.append((entity.entity_id, metric_id, batch.day, float(found.counts[field]), HUGGINGFACE))
            else:
                gaps.append(Gap(entity.entity_id, metric_id, batch.day, NO_COUNT, True, doubtful=True))
    return Observations.from_rows(rows, gaps, identities)


def parse_page(response: Response) -> Page:
    """Read a list of models; elements that are none are left out.

    Raises
    ------
    Unavailable, Malformed
        If the Hub failed, or the answer is no list.
    """
    body = _read_body(response)
    if not isinstance(body, list):
        raise Malformed("Hugging Face answered with something that is no list of models")
    models = tuple(m for m in map(_read_model, body) if m is not None)
    link = _NEXT.search(response.headers.get("link", ""))
    return Page(models, "" if link is None else _cursor(link[1]))


def parse_model(response: Response, name: str) -> Model | Gone:
    """Read one model's answer, or why there is none: the Hub's own refusals carry ``X-Error-Code``, or say ``error``.

    Raises
    ------
    Unavailable, Malformed
        If the Hub failed, or the answer is about something else.
    """
    code = response.headers.get("x-error-code", "")
    if response.status in (401, 403, 404) and (code or isinstance(read_refusal(response).get("error"), str)):
        if response.status == 404 or code == "RepoNotFound":
            return Gone(UNKNOWN)
        return Gone(GATED if code == "GatedRepo" else HIDDEN)
    model = _read_model(_read_body(response))
    if model is None or model.name.lower() != name.lower():
        stated = "something that is no model" if model is None else repr(model.name)[:80]
        raise Malformed(f"Hugging Face answered with {stated} when asked for {name[:80]}")
    return model


def _read_lists(batch: Batch, wanted: Collection[str]) -> Generator[Request, Response, dict[str, Model]]:
    """Read lists while more models are missing than lists were read: never more than twice what singles would cost."""
    found: dict[str, Model] = {}
    cursors = {""}
    cursor = ""
    for page_number in range(MAX_PAGES):
        if len(wanted) - len(found) <= page_number + 1:
            break
        params = (("sort", "downloads"), ("direction", "-1"), ("limit", str(PAGE)), *_EXPAND)
        response = yield Request(
            "huggingface", "GET", _ROOT, (*params, *((("cursor", cursor),) if cursor else ())), bucket="api"
        )
        try:
            page = parse_page(response)
        except (Malformed, Unavailable):
            if batch.attempt < PATIENCE:
                raise
            break  # lists only save requests
        for model in page.models:
            if model.name in wanted:
                found.setdefault(model.name, model)  # what moves down meanwhile comes twice
        cursor = page.cursor
        if cursor in cursors:
            break  # the end, or a list that leads back
        cursors.add(cursor)
    return found


def _read_singles(batch: Batch, names: Sequence[str]) -> Generator[Request, Response, dict[str, Model | Gone]]:
    """Read models one by one. What fails is asked again after the others; else one failure would cost them all."""
    found: dict[str, Model | Gone] = {}
    failed: dict[str, Malformed | Unavailable] = {}
    for _ in range(PASSES):
        for name in [n for n in names if n not in found]:
            try:
                found[name] = yield from _read_one(name)
                failed.pop(name, None)
            except (Malformed, Unavailable) as exc:
                failed[name] = exc
                if batch.attempt < PATIENCE and len(failed) >= min(len(names), len(found) + HOPELESS):
                    raise
    return found | {name: Gone(str(exc), retry=True) for name, exc in failed.items()}


def _read_one(name: str) -> Generator[Request, Response, Model | Gone]:
    response = yield _single(name)
    if response.status not in _REDIRECTS:
        return parse_model(response, name)
    target = _target(response.headers.get("location", ""))
    if target is None or target == name:
        return Gone(LOST, retry=True)
    response = yield _single(target)
    return Gone(LOST, retry=True) if response.status in _REDIRECTS else parse_model(response, target)


def _single(name: str) -> Request:
    return Request("huggingface", "GET", f"{_ROOT}/{quote(name)}", _EXPAND, bucket="api")


def _target(location: str) -> str | None:
    """Return the model that a redirect leads to; None if it leads elsewhere."""
    path = _path_and_query(location)[0]
    name = unquote(path.rpartition(f"{_ROOT}/")[2])
    return name if f"{_ROOT}/" in path and _MODEL.fullmatch(name) else None


def _cursor(url: str) -> str:
    return dict(parse_qsl(_path_and_query(url)[1])).get("cursor", "")


def _path_and_query(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.path, parts.query


def _read_body(response: Response) -> Any:
    if response.status >= 500:
        raise Unavailable(f"Hugging Face answered {response.status}")
    if response.status != 200:
        raise Malformed(f"Hugging Face answered {response.status}")
    return response.json()


def _read_model(value: Any) -> Model | None:
    if not isinstance(value, dict) or not isinstance(name := value.get("id"), str) or not _MODEL.fullmatch(name):
        return None
    upstream_id = value.get("_id")
    if not isinstance(upstream_id, str) or not _ID.fullmatch(upstream_id):
        upstream_id = ""
    counts = {field: value[field] for field in _METRIC_IDS if _is_count(value.get(field))}
    return Model(upstream_id, name, counts)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def _is_model(entity: Entity) -> bool:
    return "/" in entity.key  # an organisation has no counts of its own


def _price(_: Task, entities: Sequence[Entity], days: int) -> Price:
    """Price lists and singles: half of the models are taken to be among the 10,000 most downloaded."""
    requests = min(MAX_PAGES, len(entities) // 2) + (len(entities) + 1) // 2
    return Price(requests, requests)


SOURCE: Final = Source(
    name="huggingface",
    upstream="huggingface",
    key="huggingface",
    tasks={
        "models": Task(
            "models",
            tuple(FIELDS),
            "snapshot",
            "api",
            entities_per_batch=500,
            days_per_batch=1,
            requests_per_batch=MAX_PAGES + 250,
            cadence_days=1,
            accepts=_is_model,
            price=_price,
        )
    },
    crawl=crawl,
    concurrency=1,
    # At an even pace: a batch that finds the five minutes used up would begin again when they are over.
    budgets={"huggingface": BudgetSpec({"api": BucketSpec((Window(8, 5.0), Window(500, 300.0)))}, concurrency=1)},
)
