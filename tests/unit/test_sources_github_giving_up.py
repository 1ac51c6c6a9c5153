"""What GitHub gives up on costs itself alone, an outage costs few requests, and no batch costs more than its bound."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, Unavailable
from astrid.models import Batch, Observations, Request, Response
from astrid.pipeline.crawl import MAX_ATTEMPTS
from astrid.sources.github import SOURCE, crawl
from astrid.sources.github_inquiry import ALONE, MAX_FAILURES, SILENT, UNREADABLE
from astrid.sources.source import PATIENCE, days_between
from tests.by_hand import ok, run, sound
from tests.github_by_hand import (
    DAY,
    SUNDAY,
    answer_soundly,
    commits,
    counts,
    entity,
    github_without,
    history,
    ids_of,
    node,
    nodes,
    numbers_in,
)

OUTAGE = Response(502, {}, b"<html>")
NO_ANSWER = ok({"message": "Bad credentials"}, 401)
SHAPES: dict[str, Callable[..., Batch]] = {
    "counts": counts,
    "commits": lambda *e, attempt=0: commits(*e, start=DAY - timedelta(days=7), end=DAY, attempt=attempt),
    "history": lambda *e, attempt=0: history(*e, start=SUNDAY, end=SUNDAY, attempt=attempt),
}


def most_queries(batch: Batch) -> int:
    """Return the bound that the docstrings state: of one kind of query, or of two where there are names beside ids."""
    n = len(batch.entities)
    if batch.task == "history":
        return 2 * n + (21 if len({bool(e.key) for e in batch.entities}) == 1 else 42)
    return (2 * n + 21) * (1 if all(e.key for e in batch.entities) else 2)


def queries_of(requests: Sequence[Request]) -> int:
    return sum(r.path == "/graphql" for r in requests)


def told(batch: Batch, found: Observations) -> set[int]:
    """Return whose values are all there; nobody's may be there in part, or be neither here nor a gap."""
    metrics = len(SOURCE.tasks[batch.task].metrics)
    each = metrics * len(days_between(batch.start, batch.end))
    here, gaps = found.entity_id.tolist(), [g.entity_id for g in found.gaps]
    for n in (e.entity_id for e in batch.entities):
        assert (here.count(n), gaps.count(n)) in ((each, 0), (0, each)), n
    return set(here)


def settle(batch: Batch, answer: Callable[[Request], Response]) -> tuple[Observations, list[Request], int]:
    """Crawl as the pipeline does, attempt by attempt; return what is found, the last one's requests, its number."""
    for attempt in range(MAX_ATTEMPTS):
        asked: list[Request] = []

        def heard(request: Request, asked: list[Request] = asked) -> Response:
            asked.append(request)
            return answer(request)

        try:
            found, requests = run(crawl(replace(batch, attempt=attempt)), heard)
        except Unavailable:
            assert all(answer(r).status == 502 for r in asked), "rows that were found are thrown away"
            assert len(asked) <= 2 * MAX_FAILURES + (attempt >= PATIENCE)
            continue
        return sound(found, batch), requests, attempt
    raise AssertionError("the whole batch is lost")


@pytest.mark.parametrize("task", SHAPES)
@given(st.data())
def test_whoever_github_gives_up_on_costs_itself_alone(task: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, SOURCE.tasks[task].entities_per_batch), "size")
    everybody = st.integers(0, size - 1)
    bad = data.draw(st.sets(everybody) | st.sets(everybody, min_size=size // 2), "bad")
    unnamed = data.draw(st.just(set()) | st.sets(everybody), "whose ids are not known")
    batch = SHAPES[task](*(entity(n, known=n not in unnamed) for n in range(size)))
    found, requests, attempt = settle(batch, github_without(bad))
    assert told(batch, found) == set(range(size)) - bad
    assert {(g.entity_id, g.reason, g.retry) for g in found.gaps} == {(n, ALONE, True) for n in bad}
    assert queries_of(requests) <= most_queries(batch)
    assert attempt <= PATIENCE
    if len(bad) < min(8, size):
        assert attempt == 0


@pytest.mark.parametrize("attempt", [0, MAX_ATTEMPTS - 1])
@pytest.mark.parametrize(("task", "size"), [("counts", 100), ("commits", 35), ("history", 20)])
def test_neighbours_that_are_all_bad_cost_themselves_alone(task: str, size: int, attempt: int) -> None:
    for first, many in itertools.product(range(size), (2, 3, 5, 9)):
        bad = range(first, min(first + many, size))
        batch = SHAPES[task](*(entity(n) for n in range(size)), attempt=attempt)
        found, requests = run(crawl(batch), github_without(bad))
        assert told(batch, found) == set(range(size)) - set(bad)
        assert queries_of(requests) < 60


@pytest.mark.parametrize("attempt", range(MAX_ATTEMPTS))
@pytest.mark.parametrize("size", [1, 2, 7, 20, 35])
@pytest.mark.parametrize("task", SHAPES)
def test_an_outage_ends_a_batch_soon_so_that_a_retry_finds_it_whole(task: str, size: int, attempt: int) -> None:
    size = min(size, SOURCE.tasks[task].entities_per_batch)
    batch = SHAPES[task](*(entity(n) for n in range(size)), attempt=attempt)
    asked: list[list[int]] = []

    def answer(request: Request) -> Response:
        asked.append(numbers_in(request))
        return OUTAGE

    with pytest.raises(Unavailable, match=f"gave up on {(failed := first_failures(task, size))} queries in a row"):
        run(crawl(batch), answer)
    assert len(asked) == failed + (attempt >= PATIENCE)
    alone = [n for n, *more in asked[:failed] if not more]
    assert len(set(alone)) == len(alone) >= min(8, size), "too few were asked for alone"
    if size > 16:
        assert all(abs(one - other) > 1 for one, other in itertools.pairwise(alone)), "neighbours may be bad together"


def first_failures(task: str, size: int) -> int:
    """Return after how many failures nothing is known of ``size`` repositories."""
    halvings = min(size, 7 if task == "commits" else 100).bit_length() - 1
    return min(MAX_FAILURES, halvings + size)


@pytest.mark.parametrize("task", ["counts", "history"])
def test_an_outage_where_names_and_ids_are_asked_for(task: str) -> None:
    for attempt in range(MAX_ATTEMPTS):
        batch = SHAPES[task](*(entity(n, known=n % 2 == 0) for n in range(40)), attempt=attempt)
        sent: list[Request] = []
        with pytest.raises(Unavailable, match="in a row"):
            run(crawl(batch), lambda request, sent=sent: sent.append(request) or OUTAGE)
        assert len(sent) == 2 * MAX_FAILURES + (attempt >= PATIENCE)


@pytest.mark.parametrize("task", SHAPES)
def test_a_github_that_answers_for_nobody_costs_its_bound_once(task: str) -> None:
    size = SOURCE.tasks[task].entities_per_batch
    found, requests, attempt = settle(batch := SHAPES[task](*map(entity, range(size))), github_without(range(size)))
    assert attempt == PATIENCE
    assert told(batch, found) == set()
    assert len(requests) <= most_queries(batch)


@pytest.mark.parametrize("task", ["counts", "history"])
@pytest.mark.parametrize("known", [range(1, 20), range(1), range(19)])
def test_what_was_given_up_too_soon_is_asked_for_again(task: str, known: range) -> None:
    """Of those without an id, or of those with one, only the last is good: found out after the others answered."""
    batch = SHAPES[task](*(entity(n, known=n in known) for n in range(20)))
    for several in (set(known), set(range(20)) - set(known)):
        bad = several - {max(several)} if len(several) > 1 else several
        found, requests = run(crawl(batch), github_without(bad))
        assert told(batch, found) == set(range(20)) - bad
        assert queries_of(requests) <= most_queries(batch)


def test_an_outage_in_the_middle_of_a_batch() -> None:
    batch = SHAPES["commits"](*map(entity, range(35)))

    def fail_after(sound_ones: int, sent: list[Request]) -> Callable[[Request], Response]:
        return lambda r: sent.append(r) or (answer_soundly(r) if len(sent) <= sound_ones else OUTAGE)

    with pytest.raises(Unavailable, match="in a row"):
        run(crawl(batch), fail_after(1, early := []))
    found, requests = run(crawl(replace(batch, attempt=PATIENCE)), fail_after(1, []))
    assert told(batch, sound(found, batch)) == set(range(7)), "rows that were found are lost"
    assert len(early) == len(requests) == 1 + MAX_FAILURES + 1
    assert {g.reason for g in found.gaps} == {ALONE, SILENT}
    assert all(g.retry for g in found.gaps)
    # Names were told, and then GitHub fell silent: who they are is worth keeping.
    nameless = counts(*(entity(n, known=False) for n in range(40)), attempt=PATIENCE)
    found, requests = run(crawl(nameless), fail_after(1, []))
    assert (len(found.identities), told(nameless, found), len(requests)) == (40, set(), 1 + MAX_FAILURES + 1)


def test_many_failures_in_a_row_are_no_outage_where_github_answers() -> None:
    bad = range(20, 70)
    batch = counts(*map(entity, range(100)))
    found, requests = run(crawl(batch), github_without(bad))
    assert told(batch, found) == set(range(100)) - set(bad)
    assert sum(ids_of(r) == [] for r in requests) >= 3, "it was not asked whether GitHub answers at all"


ANSWERS = ("whole", "half", "outage", "page", "none")


@pytest.mark.parametrize("task", SHAPES)
@given(st.data())
def test_no_answers_make_a_batch_cost_more_than_its_bound(task: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, SOURCE.tasks[task].entities_per_batch), "size")
    unnamed = data.draw(st.just(set()) | st.sets(st.integers(0, size - 1)), "whose ids are not known")
    attempt = data.draw(st.integers(0, MAX_ATTEMPTS - 1), "attempt")
    batch = SHAPES[task](*(entity(n, known=n not in unnamed) for n in range(size)), attempt=attempt)
    before = data.draw(st.lists(st.sampled_from(ANSWERS), max_size=20), "answers")
    for_ever = data.draw(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=6), "and for ever")
    given_ = itertools.chain(before, itertools.cycle(for_ever if attempt >= PATIENCE else [*for_ever, "whole"]))
    kinds: list[str] = []

    def answer(request: Request) -> Response:
        if request.path != "/graphql":
            return answer_soundly(request)
        assert len(kinds) <= most_queries(batch), "more queries than the bound"
        kind = next(given_)
        kinds.append("outage" if kind == "none" and attempt < PATIENCE else kind)
        return answer_as(kinds[-1], request)

    try:
        found, _ = run(crawl(batch), answer)
    except Unavailable:
        assert attempt < PATIENCE or "whole" not in kinds, "rows that were found are thrown away"
    else:
        told(batch, sound(found, batch))


def answer_as(kind: str, request: Request) -> Response:
    asked = numbers_in(request)
    match kind:
        case "outage":
            return OUTAGE
        case "page":
            return Response(200, {}, b"<html>We will be back soon</html>")
        case "none":
            return NO_ANSWER
        case "half" if asked and "variables" in request.json:
            stated = len(asked) // 2 if len(asked) > 1 else 0
            values = [
                answer_soundly(request).json()["data"]["nodes"][k] if k < stated else None for k in range(len(asked))
            ]
            return nodes(*values, errors=[{"type": "RESOURCE_LIMITS_EXCEEDED", "path": ["nodes", stated]}])
        case "half" if asked:
            return ok({"data": {"r0": None}, "errors": [{"type": "RESOURCE_LIMITS_EXCEEDED", "path": ["r0"]}]})
        case _:
            return answer_soundly(request)


def test_an_answer_that_cannot_be_read_fails_a_batch_while_its_patience_lasts() -> None:
    batch = SHAPES["commits"](*map(entity, range(35)))

    def answer(request: Request) -> Response:
        return NO_ANSWER if 10 in numbers_in(request) else answer_soundly(request)

    for attempt in range(PATIENCE):
        with pytest.raises(Malformed, match="401"):
            run(crawl(replace(batch, attempt=attempt)), answer)
    found, _ = run(crawl(replace(batch, attempt=PATIENCE)), answer)
    assert told(batch, found) == set(range(35)) - {10}
    assert {(g.reason, g.retry) for g in found.gaps} == {(UNREADABLE, True)}
    with pytest.raises(Unavailable, match="401"):
        run(crawl(replace(batch, attempt=PATIENCE)), lambda _: NO_ANSWER)


@pytest.mark.parametrize(
    "response",
    [
        ok({}, 502),
        Response(504, {}, b"<html>"),
        Response(200, {}, b"<html>502 Bad Gateway</html>"),
        ok({"data": None, "errors": [{"message": "Something went wrong while executing your query on 2026."}]}),
        ok({"errors": [{"message": "We couldn't respond to your request in time."}]}),
        nodes(node(1), None, errors=[{"type": "RESOURCE_LIMITS_EXCEEDED", "path": ["nodes", 1]}]),
    ],
)
def test_giving_up_on_one_repository_or_on_its_name(response: Response) -> None:
    with pytest.raises(Unavailable, match="gave up"):
        run(crawl(counts(entity(1))), [response])
    with pytest.raises(Unavailable, match="gave up on 3 queries in a row"):
        run(crawl(counts(entity(1, known=False), entity(2, known=False))), [response] * 3)


@pytest.mark.parametrize("bears", [1, 3, 24, 99])
def test_a_query_is_halved_until_github_bears_it_and_grows_back(bears: int) -> None:
    sizes: list[int] = []

    def answer(request: Request) -> Response:
        ids = request.json["variables"]["ids"]
        sizes.append(len(ids))
        return Response(502, {}, b"<html>") if len(ids) > bears else nodes(*(node(int(i[2:])) for i in ids))

    batch = counts(*(entity(n) for n in range(400)))
    found, _ = run(crawl(batch), answer)
    assert len(sound(found, batch)) == 800
    assert not found.gaps
    assert all(smaller == larger // 2 for larger, smaller in itertools.pairwise(sizes) if larger > bears)
    assert sizes[0] == 100
    assert max(sizes[3:]) > bears, "it never grows back"
    for before, last, grown in zip(sizes, sizes[1:], sizes[2:], strict=False):
        assert grown <= last or before == last, "it grows after one clean answer"


def test_a_cut_answer_keeps_what_it_states() -> None:
    asked: list[list[str]] = []

    def answer(request: Request) -> Response:
        ids = request.json["variables"]["ids"]
        asked.append(ids)
        stated = [node(int(i[2:])) if n < 20 else None for n, i in enumerate(ids)]
        errors = [{"type": "RESOURCE_LIMITS_EXCEEDED", "path": ["nodes", 20]}] if len(ids) > 20 else None
        return nodes(*stated, errors=errors)

    batch = counts(*(entity(n) for n in range(60)))
    found, _ = run(crawl(batch), answer)
    assert len(sound(found, batch)) == 120
    assert not found.gaps
    counted = [i for ids in asked for i in ids[:20]]
    assert len(counted) == len(set(counted)), "what was stated was asked for again"
