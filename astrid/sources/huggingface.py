"""Downloads and likes of models from the Hugging Face Hub, as they stand at the reading.

The Hub lists 500 models a request, the most downloaded first; named models that are not among them cost a request
each. So a batch reads lists as long as they can save requests, and asks for the others singly. Downloads of all time
and likes are stated only if asked for (``expand``). Facts: huggingface/hub-docs ``docs/hub/rate-limits.md`` (500
requests in 5 minutes per address), ``models-download-stats.md``; huggingface_hub ``hf_api.py``, ``_pagination.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from astrid.catalog import METRIC_BY_NAME, ORIGIN_BY_NAME
from astrid.errors import Malformed, Unavailable
from astrid.limits import BucketSpec, BudgetSpec, Window
from astrid.models import Batch, Entity, Gap, Identity, Observations, Request, Response, Steps
from astrid.sources.source import PATIENCE, Source, Task

PAGE: Final = 500
MAX_PAGES: Final = 20
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
class Page:
    """One list of models, and the cursor of the next one; empty after the last."""

    models: tuple[Model, ...]
    cursor: str


def crawl(batch: Batch) -> Steps:
    """Read the counts of the batch's models as of now; ``key`` is ``owner/name``.

    A renamed model is followed once and its new name returned as an :class:`~astrid.models.Identity`.
    """
    missing = {e.key for e in batch.entities}
    listed = yield from _read_lists(batch, missing)
    rows: list[tuple[int, int, Any, float, int]] = []
    gaps: list[Gap] = []
    identities: list[Identity] = []
    answers: dict[str, Model | Gap] = {}
    for entity in batch.entities:
        found = listed.get(entity.key)
        if found is None:
            pass
    return Observations.from_rows(rows, gaps, identities)
