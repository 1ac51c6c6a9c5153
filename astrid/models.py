"""The values that travel through Astrid: frozen, slotted, without behaviour that does I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from astrid.errors import Malformed


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request that a source wants answered.

    ``upstream`` names a base URL of the settings (``github``, ``hn_algolia`` …), ``path`` starts
    with a slash. ``bucket`` names the budget that pays and ``cost`` its price in that budget's
    points. ``sticky`` keeps requests of one key on one token, so that conditional requests work.
    """

    upstream: str
    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    json: Any = None
    content: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    bucket: str = "core"
    cost: int = 1
    sticky: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer: ``headers`` with lower-case names, ``body`` decoded from its transfer encoding."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the parsed body.

        Raises
        ------
        Malformed
            If the body is not JSON (an HTML error page, a truncated answer).
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as exc:
            start = " ".join(self.body[:60].decode("utf-8", "replace").split())
            said = f"it starts with {start!r}" if start.isprintable() else "it is no text"
            raise Malformed(f"answer {self.status} is not JSON, {said}") from exc

    def is_json(self) -> bool:
        """Tell whether the body is whole JSON, whatever it says."""
        try:
            self.json()
        except Malformed:
            return False
        return True


Fetch = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Entity:
    """One tracked project as a batch needs it: its database id, its slug, and its id upstream.

    ``key`` is what the upstream calls it (a node id, ``owner/name``, a package name); ``names``
    are further spellings to match (former names, URLs, product names). ``since`` is the day of its
    first observation, where that helps to tell it from a stranger of the same name; None if not known.
    """

    entity_id: int
    slug: str
    key: str
    names: tuple[str, ...] = ()
    since: date | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One unit of work: a task of a source for some entities and days.

    ``day`` is the night that it belongs to; ``start`` and ``end`` (inclusive) the days that it
    asks for. ``batch_id`` is a digest of the work: source, task, days, and whom it is about under which
    names. Planning the same work again gives the same id, also when an upstream id became known meanwhile.
    ``attempt`` counts its failures, ``pauses`` how often it had to wait for a limit.
    """

    source: str
    task: str
    day: date
    start: date
    end: date
    entities: tuple[Entity, ...] = ()
    lane: str = "nightly"
    run_id: int = 0
    attempt: int = 0
    pauses: int = 0
    requests: int = 1
    points: int = 1
    batch_id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.batch_id:
            object.__setattr__(self, "batch_id", _batch_id(self))


def _batch_id(batch: Batch) -> str:
    parts = [
        batch.source,
        batch.task,
        batch.day.isoformat(),
        batch.start.isoformat(),
        batch.end.isoformat(),
        batch.lane,
    ]
    parts += [f"{e.entity_id}:{e.slug}:{chr(31).join(sorted(e.names))}" for e in batch.entities]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Gap:
    """One expected value that did not come: who, which metric, which day, why, and whether to ask again.

    ``doubtful``: the upstream answered and what it said cannot be, so that another answer may well be sound.
    """

    entity_id: int
    metric_id: int
    day: date
    reason: str
    retry: bool = False
    doubtful: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What an upstream says an entity is: its own lasting id, and its name at the moment of reading."""

    entity_id: int
    platform: str
    upstream_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Observations:
    """What one batch found, in columns of one length.

    ``entity_id`` int32, ``metric_id`` int16, ``day`` datetime64[D], ``value`` float64 (finite,
    never negative), ``origin_id`` int16. Days without a value are absent here and listed in ``gaps``.
    """

    entity_id: npt.NDArray[np.int32]
    metric_id: npt.NDArray[np.int16]
    day: npt.NDArray[np.datetime64]
    value: npt.NDArray[np.float64]
    origin_id: npt.NDArray[np.int16]
    gaps: tuple[Gap, ...] = ()
    identities: tuple[Identity, ...] = ()

    def __len__(self) -> int:
        return len(self.value)

    @staticmethod
    def from_rows(
        rows: Sequence[tuple[int, int, date, float, int]],
        gaps: Sequence[Gap] = (),
        identities: Sequence[Identity] = (),
    ) -> Observations:
        """Build from (entity_id, metric_id, day, value, origin_id) tuples; for the small answers of a night."""
        entity, metric, day, value, origin = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return Observations(
            np.asarray(entity, dtype=np.int32),
            np.asarray(metric, dtype=np.int16),
            np.asarray(day, dtype="datetime64[D]"),
            np.asarray(value, dtype=np.float64),
            np.asarray(origin, dtype=np.int16),
            tuple(gaps),
            tuple(identities),
        )

    def dated_keys(self) -> list[tuple[int, int, date]]:
        """Return (entity_id, metric_id, day) of every value, in order."""
        return list(zip(self.entity_id.tolist(), self.metric_id.tolist(), self.day.tolist(), strict=True))

    def filled_by(self, second: Observations) -> Observations:
        """Return these with their doubtful gaps filled for which a second answer has a value; all else stands.

        What comes along with a filled value, and the first answer did not speak of at all, comes too.
        """
        standing = set(self.dated_keys())
        doubted = {(g.entity_id, g.metric_id, g.day) for g in self.gaps if g.doubtful} - standing
        filled = doubted.intersection(second.dated_keys())
        spoken_of = standing | {(g.entity_id, g.metric_id, g.day) for g in self.gaps}
        days = {(entity_id, day) for entity_id, _, day in filled}

        def is_new(key: tuple[int, int, date]) -> bool:
            return key in filled or (key not in spoken_of and (key[0], key[2]) in days)

        new = np.array([is_new(key) for key in second.dated_keys()], np.bool_)
        along = tuple(g for g in second.gaps if is_new((g.entity_id, g.metric_id, g.day)))
        named = {(i.entity_id, i.platform) for i in self.identities}
        return Observations(
            np.concatenate([self.entity_id, second.entity_id[new]]),
            np.concatenate([self.metric_id, second.metric_id[new]]),
            np.concatenate([self.day, second.day[new]]),
            np.concatenate([self.value, second.value[new]]),
            np.concatenate([self.origin_id, second.origin_id[new]]),
            (*(g for g in self.gaps if (g.entity_id, g.metric_id, g.day) not in filled), *along),
            (*self.identities, *(i for i in second.identities if (i.entity_id, i.platform) not in named)),
        )

    @staticmethod
    def concatenate(parts: Sequence[Observations]) -> Observations:
        """Join parts in order."""
        if not parts:
            return Observations.from_rows([])
        return Observations(
            np.concatenate([p.entity_id for p in parts]),
            np.concatenate([p.metric_id for p in parts]),
            np.concatenate([p.day for p in parts]),
            np.concatenate([p.value for p in parts]),
            np.concatenate([p.origin_id for p in parts]),
            tuple(g for p in parts for g in p.gaps),
            tuple(i for p in parts for i in p.identities),
        )


Steps = Generator[Request | tuple[Request, ...], Any, Observations]
"""What a source's ``crawl`` is: it yields requests, is sent responses, and returns observations.

For one request it is sent its response; for several that may be under way at once, their responses in the same order.
"""


@dataclass(frozen=True, slots=True)
class Done:
    """The batch is finished: write, commit, acknowledge."""

    observations: Observations
    requests: int = 0


@dataclass(frozen=True, slots=True)
class RetryIn:
    """The batch goes back to the broker for ``delay_s`` seconds; a ``pause`` that a limit asks for is no failure."""

    delay_s: float
    reason: str
    pause: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """The batch was too large for its upstream: its parts go to the broker instead."""

    parts: tuple[Batch, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The batch cannot succeed: it is set aside with its reason, and its days become gaps."""

    reason: str


Outcome = Done | RetryIn | Split | DeadLetter


@dataclass(frozen=True, slots=True)
class Story:
    """One Hacker News story as an upstream states it; ``points`` and ``comments`` as of the reading."""

    story_id: int
    created_at: datetime
    title: str
    url: str
    points: int
    comments: int
