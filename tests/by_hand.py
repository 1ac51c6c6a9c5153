"""Drive a source's generator by hand: answers in, requests and observations out, no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Any

import numpy as np
from hypothesis import strategies as st

from astrid.catalog import METRIC_BY_ID, ORIGIN_BY_ID
from astrid.errors import SourceError
from astrid.models import Batch, Observations, Request, Response, Steps

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
"""Any JSON."""

NO_COUNTS = st.sampled_from((-1, -(2**31), 10**12, 2**53, 1.5, True, None, "7", "many"))
"""What stands where a count should, and is none."""

BROKEN = (
    Response(200, {}, b""),
    Response(200, {}, b"<html><body>We will be back soon</body></html>"),
    Response(200, {}, b'{"data": [{"da'),
    Response(200, {}, b"\xff\xfe\x00\x00"),
    Response(200, {}, b"null"),
    Response(200, {}, b"[" * 3000),
    Response(302, {}, b""),
    Response(400, {}, b"bad \x00 request"),
    Response(500, {}, b""),
    Response(502, {}, b"<html>502 Bad Gateway</html>"),
)
"""Answers that no source may take for one."""


def ok(value: Any, status: int = 200, **headers: str) -> Response:
    """Wrap a value as a JSON answer."""
    return Response(status, headers, json.dumps(value).encode())


def run(
    steps: Steps, answers: Iterable[Response] | Callable[[Request], Response]
) -> tuple[Observations, list[Request]]:
    """Answer every request in turn; return what the source found and what it asked. All answers must be used."""
    given = None if callable(answers) else iter(answers)
    requests: list[Request] = []
    found: Any = None
    try:
        request = next(steps)
        while True:
            several = request if isinstance(request, tuple) else (request,)
            requests += several
            responses = [answers(r) if callable(answers) else next(given) for r in several]  # type: ignore[arg-type]
            request = steps.send(responses if isinstance(request, tuple) else responses[0])
    except StopIteration as stop:
        found = stop.value
    assert isinstance(found, Observations), "the source asked for more than was prepared"
    assert given is None or next(given, None) is None, "an answer was not asked for"
    return found, requests


def sound(found: Observations, batch: Batch) -> Observations:
    """Check what the store relies on: one length and type, finite counts, known ids, own days, storable texts."""
    columns = (found.entity_id, found.metric_id, found.day, found.value, found.origin_id)
    assert {len(c) for c in columns} == {len(found)}
    assert [c.dtype.str[1:] for c in columns] == ["i4", "i2", "M8[D]", "f8", "i2"]
    assert bool(np.all(np.isfinite(found.value) & (found.value >= 0) & (found.value < 1e12)))
    assert set(found.metric_id.tolist()) <= set(METRIC_BY_ID)
    assert set(found.origin_id.tolist()) <= set(ORIGIN_BY_ID)
    assert set(found.entity_id.tolist()) <= {e.entity_id for e in batch.entities}
    assert all(batch.start <= d <= batch.end for d in found.day.tolist())
    keys = list(zip(found.entity_id.tolist(), found.metric_id.tolist(), found.day.tolist(), strict=True))
    assert len(set(keys)) == len(keys), "a value is stated twice"
    missing = [(g.entity_id, g.metric_id, g.day) for g in found.gaps]
    assert not set(missing) & set(keys), "a value is also a gap"
    for text in [g.reason for g in found.gaps] + [t for i in found.identities for t in (i.upstream_id, i.name)]:
        assert text
        assert len(text) < 400
        assert "\0" not in text
    return found


def survives(make_steps: Callable[[], Steps], answers: Callable[[Request], Response], batch: Batch) -> int:
    """Require that a source either returns sound observations or raises a SourceError, and asks only so often.

    Returns how many values it accepted: a property over answers of which none is ever accepted shows little.
    """
    asked = accepted = 0

    def counted(request: Request) -> Response:
        nonlocal asked
        asked += 1
        assert asked < 500, "the source asks for ever"
        return answers(request)

    said = ""
    try:
        found, _ = run(make_steps(), counted)
        accepted = len(sound(found, batch))
    except SourceError as exc:
        said = str(exc)
    assert len(said) < 500
    assert "\0" not in said
    return accepted


def mostly(value: Any) -> st.SearchStrategy[Any]:
    """Return ``value`` three times in four, else any JSON; so that several fields are sound at once often enough."""
    return st.just(value) | st.just(value) | st.just(value) | JSON


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Return JSON in which up to three parts are something else, are gone, or (in a list) stand once more."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2, 3)))):
        places = list(_places(value))
        if not places or draw(st.sampled_from((False,) * 14 + (True,))):
            value = draw(JSON)
            continue
        numbers = [(holder, key) for holder, key in places if isinstance(holder[key], int | float)]
        holder, key = draw(st.sampled_from(numbers if numbers and draw(st.booleans()) else places))
        match draw(st.sampled_from(("other",) * 4 + ("gone", "twice"))):
            case "gone":
                del holder[key]
            case "twice" if isinstance(holder, list):
                holder.append(holder[key])
            case _:
                holder[key] = draw(NO_COUNTS if (holder, key) in numbers else JSON)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every holder of a part of ``value`` and the part's key or index in it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def table(found: Observations) -> dict[tuple[int, int, date], float]:
    """Return the values by (entity, metric, day)."""
    keys = zip(found.entity_id.tolist(), found.metric_id.tolist(), found.day.tolist(), strict=True)
    return dict(zip(keys, found.value.tolist(), strict=True))
