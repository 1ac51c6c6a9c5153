"""The wire form of a batch: there and back, other versions, garbage."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed
from astrid.models import Batch, Entity
from astrid.wire import MESSAGE_VERSION, decode_batch, encode_batch
from tests.by_hand import JSON

COUNTS = st.integers(0, 2**31 - 1)
TEXTS = st.text(max_size=12)
BATCHES = st.builds(
    Batch,
    source=TEXTS,
    task=TEXTS,
    day=st.dates(),
    start=st.dates(),
    end=st.dates(),
    entities=st.lists(
        st.builds(Entity, COUNTS, TEXTS, TEXTS, st.lists(TEXTS, max_size=3).map(tuple), st.none() | st.dates()),
        max_size=3,
    ).map(tuple),
    lane=TEXTS,
    run_id=COUNTS,
    attempt=COUNTS,
    pauses=COUNTS,
    requests=COUNTS,
    points=COUNTS,
)
DAY = date(2026, 3, 31)
BATCH = Batch("github", "counts", DAY, DAY, DAY, (Entity(1, "a", "R_1", ("o/a",)),), run_id=7, attempt=2, pauses=3)
RAW = orjson.loads(encode_batch(BATCH))


@given(BATCHES)
def test_there_and_back(batch: Batch) -> None:
    again = decode_batch(encode_batch(batch))
    assert again == batch
    assert again.batch_id == batch.batch_id, "equality leaves the id out"
    assert decode_batch(encode_batch(batch).decode()) == batch


def test_every_field_travels() -> None:
    assert set(RAW) == {f.name for f in dataclasses.fields(Batch)} | {"version"}
    assert len(RAW["entities"][0]) == len(dataclasses.fields(Entity))
    assert RAW["version"] == MESSAGE_VERSION


@pytest.mark.parametrize("version", [0, 2, "1", None, [1], "9" * 9000])
def test_another_version_is_named(version: Any) -> None:
    with pytest.raises(Malformed, match="message of version") as caught:
        decode_batch(orjson.dumps(RAW | {"version": version}))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", sorted(RAW))
def test_no_field_may_be_absent(name: str) -> None:
    with pytest.raises(Malformed, match=name):
        decode_batch(orjson.dumps({k: v for k, v in RAW.items() if k != name}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(n, v) for n in ("source", "task", "lane", "batch_id") for v in (None, 5, ["x"], True)],
        *[
            (n, v)
            for n in ("run_id", "attempt", "pauses", "requests", "points")
            for v in (None, "5", 1.5, True, -1, 2**31)
        ],
        *[(n, v) for n in ("day", "start", "end") for v in (None, 5, "", "yesterday", "2026-02-30", [])],
        *[
            ("entities", v)
            for v in (
                None,
                5,
                "abcd",
                ["abcd"],
                [[]],
                [[1, "a", "k"]],
                [[1, "a", "k", "names"]],
                [["1", "a", "k", []]],
                [[1, None, "k", []]],
                [[1, "a", "k", [5]]],
                [[1, "a", "k", [], 0]],
            )
        ],
    ],
)
def test_a_field_of_another_type(name: str, value: Any) -> None:
    with pytest.raises(Malformed, match="message is not a batch"):
        decode_batch(orjson.dumps(RAW | {name: value}))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b"[]", b'"x"', b"5", b"{}", b"[" * 5000])
def test_garbage(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_batch(body)


@given(st.sampled_from(sorted(RAW)), JSON)
def test_any_value_in_any_field(name: str, value: Any) -> None:
    said = ""
    try:
        batch = decode_batch(orjson.dumps(RAW | {name: value}))
        assert decode_batch(encode_batch(batch)) == batch
    except Malformed as exc:
        said = str(exc)
    assert len(said) < 400
