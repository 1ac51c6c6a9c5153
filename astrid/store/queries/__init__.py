"""The SQL of the store: ``.sql`` files of named queries, and the function that reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(topic: str) -> Mapping[str, str]:
    """Return name -> text of the queries in ``<topic>.sql``.

    A query begins with a line ``-- name: its_name``; the comment lines below say what it does.
    """
    parts = _NAME.split(files(__name__).joinpath(f"{topic}.sql").read_text(encoding="utf-8"))
    names, texts = parts[1::2], [text.strip() for text in parts[2::2]]
    if len(set(names)) != len(names):
        raise ValueError(f"{topic}.sql names a query twice")
    return MappingProxyType(dict(zip(names, texts, strict=True)))
