"""One batch as bytes: the message of the brokers, and what the database keeps of a planned batch."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import orjson

from astrid.errors import Malformed
from astrid.models import Batch, Entity

MESSAGE_VERSION: Final = 1
"""Another version is dead-lettered, never guessed."""

_TEXTS: Final = ("source", "task", "lane", "batch_id")
_COUNTS: Final = ("run_id", "attempt", "pauses", "requests", "points")
_DAYS: Final = ("day", "start", "end")


def encode_batch(batch: Batch) -> bytes:
    """Return the wire form of a batch: JSON with a version."""
    fields = {name: getattr(batch, name) for name in (*_TEXTS, *_COUNTS, *_DAYS)}
    entities = [[e.entity_id, e.slug, e.key, e.names, e.since] for e in batch.entities]
    return orjson.dumps({"version": MESSAGE_VERSION, **fields, "entities": entities})


def decode_batch(body: bytes | str) -> Batch:
    """Read the wire form of a batch.

    Raises
    ------
    Malformed
        If it is no batch, or of another version.
    """
    try:
        raw = orjson.loads(body)
        if raw["version"] != MESSAGE_VERSION:
            raise Malformed(f"message of version {str(raw['version'])[:20]!r}, this worker reads {MESSAGE_VERSION}")
        fields: dict[str, Any] = {name: _text(raw[name]) for name in _TEXTS}
        fields |= {name: _count(raw[name]) for name in _COUNTS}
        fields |= {name: date.fromisoformat(raw[name]) for name in _DAYS}
        return Batch(**fields, entities=tuple(_entity(*parts) for parts in raw["entities"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise Malformed(f"message is not a batch: {type(exc).__name__} {str(exc)[:200]}") from exc


def _entity(entity_id: Any, slug: Any, key: Any, names: Any, since: Any = None) -> Entity:
    # A batch has thousands of these: what is sound, as almost all are, is looked at once and in place.
    if not (
        type(entity_id) is int
        and 0 <= entity_id < 2**31
        and type(slug) is str
        and type(key) is str
        and type(names) is list
        and all(type(name) is str for name in names)
    ):
        if not isinstance(names, list):
            raise TypeError("the names of an entity are no list")
        for text in (slug, key, *names):
            _text(text)
        _count(entity_id)
    return Entity(entity_id, slug, key, tuple(names), None if since is None else date.fromisoformat(_text(since)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise TypeError(f"{str(value)[:40]!r} is no count")
    return value
