"""Recorded cases: a folder of data each, ``tests/recorded/<source>/<case>/case.json``; adding one needs no Python.

A case names a task, its days and entities, the upstream's answers in order, and either what is observed (values as
[entity, metric, day, value], gaps as [entity, metric, day, whether to ask again]) or the error that is raised.
An answer states the method and path of its request, and the params, JSON or text (``content``) where they matter.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from astrid import errors
from astrid.catalog import METRIC_BY_ID
from astrid.models import Batch, Entity, Request, Response
from astrid.sources import SOURCES
from tests.by_hand import run, sound

RECORDED = Path(__file__).parents[1] / "recorded"
CASES = sorted(RECORDED.glob("*/*/case.json"))


def batch_of(source: str, case: dict[str, Any]) -> Batch:
    day, start, end = (date.fromisoformat(case[name]) for name in ("day", "start", "end"))
    entities = tuple(Entity(e["entity_id"], e["slug"], e["key"], tuple(e["names"])) for e in case["entities"])
    return Batch(source, case["task"], day, start, end, entities, attempt=case.get("attempt", 0))


def response_of(answer: dict[str, Any]) -> Response:
    body = answer["text"].encode() if "text" in answer else json.dumps(answer["body"]).encode()
    return Response(answer["status"], answer.get("headers", {}), body)


def require_asked(requests: list[Request], answers: list[dict[str, Any]]) -> None:
    """Require that what was asked is what a case's answers are for, as far as they say."""
    assert [(r.method, r.path) for r in requests] == [(a["method"], a["path"]) for a in answers]
    for request, answer in zip(requests, answers, strict=True):
        if "params" in answer:
            assert [list(pair) for pair in request.params] == answer["params"]
        if "json" in answer:
            assert request.json == answer["json"]
        if "content" in answer:
            assert (request.content or b"").decode() == answer["content"]


@pytest.mark.parametrize("file", CASES, ids=lambda f: f"{f.parts[-3]}/{f.parts[-2]}")
def test_a_recorded_case(file: Path) -> None:
    case = json.loads(file.read_text())
    source = file.parts[-3]
    batch = batch_of(source, case)
    answers = [response_of(a) for a in case["answers"]]
    if "error" in case:
        requests: list[Request] = []
        prepared = iter(answers)

        def answer(request: Request) -> Response:
            requests.append(request)
            return next(prepared)

        with pytest.raises(getattr(errors, case["error"])):
            run(SOURCES[source].crawl(batch), answer)
        require_asked(requests, case["answers"])
        return
    found, requests = run(SOURCES[source].crawl(batch), answers)
    sound(found, batch)
    require_asked(requests, case["answers"])
    columns = (found.entity_id, found.metric_id, found.day, found.value)
    values = [[e, METRIC_BY_ID[m].name, str(d), v] for e, m, d, v in zip(*(c.tolist() for c in columns), strict=True)]
    gaps = [[g.entity_id, METRIC_BY_ID[g.metric_id].name, str(g.day), g.retry] for g in found.gaps]
    assert sorted(values) == sorted(case["values"])
    assert sorted(gaps) == sorted(case["gaps"])
