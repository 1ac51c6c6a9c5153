"""Hugging Face's models: lists, single models, renames and refusals, by hand and against the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.catalog import METRIC_BY_NAME
from astrid.errors import Malformed, SourceError, Unavailable
from astrid.models import Batch, Entity, Identity, Request, Response
from astrid.ratelimit import Ask, Budget, Receipt
from astrid.signals import read_huggingface_signal
from astrid.simulators.huggingface import HuggingFace
from astrid.simulators.scenarios import SCENARIOS, Scenario
from astrid.sources.huggingface import (
    FIELDS,
    GATED,
    HIDDEN,
    LOST,
    MAX_PAGES,
    NO_COUNT,
    SOURCE,
    UNKNOWN,
    Model,
    crawl,
    parse_model,
    parse_page,
)
from astrid.sources.source import PATIENCE
from tests.by_fetcher import crawl_batches
from tests.by_hand import BROKEN, JSON, mostly, mutated, ok, run, sound, survives, table
from tests.synthetic_world import NIGHT, make_world

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "huggingface"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
DAY = date(2026, 3, 31)
TOTAL, LATELY, LIKES = (METRIC_BY_NAME[name].metric_id for name in FIELDS)


def batch_of(*names: str, attempt: int = 0, day: date = DAY) -> Batch:
    entities = tuple(Entity(n, f"e{n}", name, (name,)) for n, name in enumerate(names))
    return Batch("huggingface", "models", day, day, day, entities, attempt=attempt)


def model(name: str, n: int = 1, **changed: Any) -> dict[str, Any]:
    return {"_id": "abc0", "id": name, "downloadsAllTime": 100 * n, "downloads": 10 * n, "likes": n} | changed


def page(*models: Any, cursor: str = "") -> Response:
    url = f"https://huggingface.co/api/models?limit=500&sort=downloads&cursor={cursor}"
    return ok(list(models), **({"link": f'<{url}>; rel="next"'} if cursor else {}))


def filler(n: int) -> dict[str, Any]:
    return model(f"other/m{n}")


class TestLists:
    def test_listed_models_cost_no_request_of_their_own(self) -> None:
        names = [f"lab/m{n}" for n in range(6)]
        batch = batch_of(*names)
        pages = [
            page(*(model(n, 2) for n in names[:3]), cursor="x%3D"),
            page(*(model(n, 3) for n in names[2:5]), cursor="y"),
        ]
        found, requests = run(crawl(batch), [*pages, ok(model(names[5], 4))])
        values = table(sound(found, batch))
        assert [values[n, LIKES, DAY] for n in range(6)] == [2, 2, 2, 3, 3, 4]
        assert (values[0, TOTAL, DAY], values[0, LATELY, DAY]) == (200, 20)
        assert [dict(r.params).get("cursor") for r in requests] == [None, "x=", None]
        assert dict(requests[0].params)["limit"] == "500"
        assert [v for k, v in requests[0].params if k == "expand"] == list(FIELDS.values())
        assert requests[2].path == "/api/models/lab/m5"
        assert {r.bucket for r in requests} == {"api"}

    def test_lists_never_cost_more_than_twice_what_singles_would(self) -> None:
        for count in (1, 2, 3, 7, 19, 60):
            names = [f"lab/m{n}" for n in range(count)]
            lists: list[Request] = []

            def answer(request: Request, lists: list[Request] = lists) -> Response:
                if request.path != "/api/models":
                    return ok(model(request.path.removeprefix("/api/models/")))
                lists.append(request)
                return page(filler(len(lists)), cursor=f"c{len(lists)}")

            batch = batch_of(*names)
            found, requests = run(crawl(batch), answer)
            assert len(table(sound(found, batch))) == 3 * count
            assert len(lists) == min(MAX_PAGES, count - 1)
            assert len(requests) == len(lists) + count

    def test_a_list_that_leads_back_ends(self) -> None:
        names = [f"lab/m{n}" for n in range(9)]
        pages = iter([page(filler(0), cursor="a"), page(filler(1), cursor="b"), page(filler(2), cursor="a")])

        def answer(request: Request) -> Response:
            return (
                next(pages) if request.path == "/api/models" else ok(model(request.path.removeprefix("/api/models/")))
            )

        found, requests = run(crawl(batch_of(*names)), answer)
        assert len(requests) == 3 + 9
        assert len(found) == 27

    def test_a_list_that_stays_broken_is_left_alone(self) -> None:
        names = [f"lab/m{n}" for n in range(3)]
        with pytest.raises(Malformed):
            run(crawl(batch_of(*names)), [Response(200, {}, b"<html>")])
        answers = [Response(200, {}, b"<html>"), *(ok(model(n)) for n in names)]
        found, _ = run(crawl(batch_of(*names, attempt=PATIENCE)), answers)
        assert len(found) == 9

    @pytest.mark.parametrize(
        ("link", "cursor"),
        [
            ('<https://huggingface.co/api/models?limit=5&cursor=eyJ%3D>; rel="next"', "eyJ="),
            ('<https://h/api/models?cursor=p>; rel="prev", <https://h/api/models?cursor=n>; rel="next"', "n"),
            ("</api/models?cursor=n>; rel=next", "n"),
            ('<https://h/api/models?cursor=p>; rel="prev"', ""),
            ('<https://h/api/models?page=2>; rel="next"', ""),
            ('<http://[::1/api?cursor=n>; rel="next"', ""),
            ("nonsense", ""),
            ("", ""),
        ],
    )
    def test_links(self, link: str, cursor: str) -> None:
        assert parse_page(ok([], link=link)).cursor == cursor

    def test_elements_of_any_form(self) -> None:
        read = parse_page(ok([None, 5, [], {}, model("no-owner"), model("a/b/c"), model("lab/m", _id=7)]))
        assert read.models == (Model("", "lab/m", {"downloadsAllTime": 100, "downloads": 10, "likes": 1}),)


class TestSingles:
    def test_a_renamed_model_is_followed_once(self) -> None:
        batch = batch_of("old/m")
        moved = Response(307, {"location": "/api/models/new/m%2E1?expand=likes"}, b"")
        found, requests = run(crawl(batch), [moved, ok(model("new/m.1", 3, _id="0f"))])
        assert table(sound(found, batch))[0, LIKES, DAY] == 3
        assert found.identities == (Identity(0, "huggingface", "0f", "new/m.1"),)
        assert [r.path for r in requests] == ["/api/models/old/m", "/api/models/new/m.1"]
        assert requests[0].params == requests[1].params

    @pytest.mark.parametrize(
        "location",
        ["", "/api/models/old/m", "/login", "https://h/api/models/a", "/api/models/a/../b", "//[", "/api/models/a/b/c"],
    )
    def test_redirects_that_lead_nowhere(self, location: str) -> None:
        batch = batch_of("old/m")
        found, _ = run(crawl(batch), [Response(307, {"location": location}, b"")])
        assert {(g.reason, g.retry) for g in sound(found, batch).gaps} == {(LOST, True)}, "the Hub may not have said so"
        assert len(found.gaps) == 3

    def test_a_second_redirect_is_not_followed(self) -> None:
        moved = [Response(307, {"location": f"/api/models/new/m{n}"}, b"") for n in range(2)]
        found, requests = run(crawl(batch_of("old/m")), moved)
        assert {(g.reason, g.retry) for g in found.gaps} == {(LOST, True)}
        assert len(requests) == 2

    @pytest.mark.parametrize(
        ("status", "code", "reason"),
        [
            (404, "RepoNotFound", UNKNOWN),
            (404, "", UNKNOWN),
            (401, "RepoNotFound", UNKNOWN),
            (401, "GatedRepo", GATED),
            (403, "GatedRepo", GATED),
            (401, "", HIDDEN),
            (403, "", HIDDEN),
        ],
    )
    def test_refusals_are_told_apart(self, status: int, code: str, reason: str) -> None:
        batch = batch_of("lab/m")
        found, _ = run(crawl(batch), [ok({"error": "no"}, status, **{"x-error-code": code})])
        assert {(g.metric_id, g.reason, g.retry) for g in sound(found, batch).gaps} == {
            (m, reason, False) for m in (TOTAL, LATELY, LIKES)
        }

    @pytest.mark.parametrize("status", [401, 403, 404])
    @pytest.mark.parametrize("body", [b"<html>blocked</html>", b"", b"{}", b'{"error": 7}', b'["error"]'])
    def test_a_refusal_that_is_not_the_hubs_own_says_nothing(self, status: int, body: bytes) -> None:
        with pytest.raises(Malformed, match=f"answered {status}"):
            run(crawl(batch_of("lab/m")), [Response(status, {}, body)])
        found, _ = run(crawl(batch_of("lab/m", attempt=PATIENCE)), [Response(status, {}, body)] * 3)
        assert {(g.reason, g.retry) for g in found.gaps} == {(f"Hugging Face answered {status}", True)}

    def test_an_error_code_is_no_verdict_where_the_hub_failed(self) -> None:
        with pytest.raises(Unavailable):
            run(crawl(batch_of("lab/m")), [Response(503, {"x-error-code": "RepoNotFound"}, b"")])

    @pytest.mark.parametrize("value", [None, -1, True, 1.5, "7", [], 10**12, 2**63])
    @pytest.mark.parametrize("name", FIELDS)
    def test_a_broken_count_is_a_gap_of_its_own(self, name: str, value: Any) -> None:
        batch = batch_of("lab/m")
        metric_id = METRIC_BY_NAME[name].metric_id
        found, _ = run(crawl(batch), [ok(model("lab/m", **{FIELDS[name]: value}))])
        assert [(g.metric_id, g.reason, g.retry) for g in sound(found, batch).gaps] == [(metric_id, NO_COUNT, True)]
        assert [g.doubtful for g in found.gaps] == [True]
        assert len(found) == 2

    @pytest.mark.parametrize("response", [r for r in BROKEN if r.status != 302] + [ok([]), ok({}), ok(model("a/b"))])
    def test_one_broken_model_does_not_take_the_others_with_it(self, response: Response) -> None:
        with pytest.raises(SourceError) as caught:
            run(crawl(batch_of("lab/m")), [response])
        assert isinstance(caught.value, Unavailable if response.status >= 500 else Malformed)
        assert len(str(caught.value)) < 300
        for attempt in (0, PATIENCE):
            batch = batch_of("lab/m", "lab/n", attempt=attempt)
            found, _ = run(crawl(batch), [page(), response, ok(model("lab/n", 5)), response, response])
            assert table(sound(found, batch))[1, LIKES, DAY] == 5
            assert {(g.entity_id, g.retry) for g in found.gaps} == {(0, True)}

    def test_a_model_that_fails_once_is_asked_again_after_the_others(self) -> None:
        batch = batch_of("lab/m", "lab/n")
        answers = [page(), Response(502, {}, b""), ok(model("lab/n")), ok(model("lab/m", 7))]
        found, requests = run(crawl(batch), answers)
        assert table(sound(found, batch))[0, LIKES, DAY] == 7
        assert [r.path[-1] for r in requests[1:]] == ["m", "n", "m"]
        assert found.gaps == ()

    def test_a_hub_that_is_down_is_not_asked_for_every_model(self) -> None:
        names = [f"lab/m{n}" for n in range(60)]
        asked: list[str] = []

        def answer(request: Request) -> Response:
            asked.append(request.path)
            return page() if request.path == "/api/models" else Response(503, {}, b"")

        with pytest.raises(Unavailable):
            run(crawl(batch_of(*names)), answer)
        assert len(asked) == 1 + 5

    def test_two_projects_of_one_model_cost_one_request(self) -> None:
        batch = batch_of("lab/m", "lab/m")
        found, requests = run(crawl(batch), [ok(model("lab/m"))])
        assert (len(sound(found, batch)), len(requests)) == (6, 1)

    def test_an_organisation_is_not_asked_for(self) -> None:
        accepts = SOURCE.tasks["models"].accepts
        assert [accepts(Entity(0, "a", key)) for key in ("lab/m", "lab")] == [True, False]


def test_any_json() -> None:
    accepted = Counter[int]()

    @given(
        JSON,
        st.fixed_dictionaries({k: mostly(v) for k, v in model("lab/m").items()}),
        st.text('<>;=/?&rel"nextcurso %3', max_size=40) | st.just("/api/models/lab/n"),
    )
    def survive(whole: Any, element: Any, text: str) -> None:
        for attempt in (0, PATIENCE):
            for names in (("lab/m",), ("lab/m", "lab/n", "lab/o")):
                batch = batch_of(*names, attempt=attempt)
                for value in (whole, [whole], element, [element, whole, element]):
                    for status in (200, 307):
                        headers = {"link": text, "location": text}
                        accepted[
                            survives(
                                lambda b=batch: crawl(b),
                                lambda _, v=value, s=status, h=headers: ok(v, s, **h),
                                batch,
                            )
                        ] += 1

    survive()
    assert min(accepted[n] for n in range(4)) > 2, accepted


def test_lists_with_anything_in_them() -> None:
    accepted = Counter[int]()
    names = [f"lab/m{n}" for n in range(6)]

    @given(mutated([model(name) for name in names]))
    def survive(body: Any) -> None:
        batch = batch_of(*names, attempt=PATIENCE)
        answers = {True: ok(body), False: ok({"error": "no"}, 404)}
        accepted[survives(lambda: crawl(batch), lambda r: answers[r.path == "/api/models"], batch)] += 1

    survive()
    assert accepted.keys() >= {0, 15, 17, 18}, accepted


@needs_samples
@pytest.mark.parametrize("name", ["albert", "bert", "sd21"])
def test_recorded_model(name: str) -> None:
    recorded = Response(200, {}, (SAMPLES / f"model_info_{name}.json").read_bytes()).json()
    read = parse_model(ok(recorded["response"]["body"]), recorded["request"]["url"].partition("/api/models/")[2])
    assert isinstance(read, Model)
    assert read.upstream_id == recorded["response"]["body"]["_id"]
    assert read.counts == {k: v for k, v in recorded["response"]["body"].items() if k in FIELDS.values()}


@needs_samples
def test_recorded_list_element() -> None:
    read = parse_page(Response(200, {}, (SAMPLES / "models_list_element_full.json").read_bytes()))
    assert [(m.name, m.counts) for m in read.models] == [
        ("JetBrains/Mellum2-12B-A2.5B-Thinking", {"downloads": 3516, "likes": 288})
    ]


class TestSignal:
    def head(self, left: str, status: int = 200, policy: str = "") -> Any:
        headers = {"ratelimit": left, "ratelimit-policy": policy}
        return read_huggingface_signal(Response(status, headers, b"{}"), 1000.0)

    def test_headers(self) -> None:
        signal = self.head('"api";r=12;t=55', policy='"fixed window";"api";q=500;w=300')
        assert (signal.verdict, signal.remaining, signal.limit, signal.reset_s) == ("ok", 12, 500, 1055.0)
        signal = self.head('"api";r=0;t=55', status=429)
        assert (signal.verdict, signal.remaining, signal.retry_after_s) == ("secondary", 0, 55.0)

    @pytest.mark.parametrize("left", ["", "nonsense", '"api"', '"api";r=-1;t=x', '"api";r=9999999999999;t=', ";r=;t="])
    def test_nonsense_states_nothing(self, left: str) -> None:
        signal = self.head(left)
        assert (signal.verdict, signal.remaining, signal.reset_s, signal.retry_after_s) == ("ok", None, None, None)
        assert self.head(left, status=429).verdict == "secondary"

    def test_an_empty_window_is_waited_out_although_others_emptied_it(self) -> None:
        budget = Budget(SOURCE.budgets["huggingface"])
        (permit,) = budget.acquire(Ask("api"), 1000.0).permit_ids
        budget.settle(Receipt(permit, self.head('"api";r=0;t=55'), 1000.0))
        assert not budget.acquire(Ask("api"), 1055.9).permit_ids
        assert budget.acquire(Ask("api"), 1056.0).permit_ids


# Against the simulator, through the fetcher and the budget

LISTED = [f"lab-{n % 97}/model-{n}" for n in range(0, 3000, 30)]
NAMED = [f"team/tool-{n}" for n in range(20)]
NAMES = [*LISTED, *NAMED, "team/no-such-tool"]


def crawl_hub(scenario: Scenario) -> tuple[HuggingFace, Any, dict[tuple[str, int], float], Counter[str]]:
    """Crawl all names and require that every value is the simulator's and every other one a gap."""
    hub = HuggingFace(make_world(), scenario=scenario)
    batch = batch_of(*NAMES, day=NIGHT)
    crawled = crawl_batches([batch], hub, NIGHT)
    values: dict[tuple[str, int], float] = {}
    gaps: Counter[str] = Counter()
    for part, found in crawled.found:
        values |= {(NAMES[n], m): v for (n, m, _), v in table(sound(found, part)).items()}
        gaps.update(g.reason for g in found.gaps)
        assert len(found) + len(found.gaps) == 3 * len(NAMES)
        for identity in found.identities:
            assert identity.name == hub.new_name(NAMES[identity.entity_id])
    for (name, metric_id), value in values.items():
        field = dict(zip((TOTAL, LATELY, LIKES), FIELDS.values(), strict=True))[metric_id]
        assert value == hub.counts(name, NIGHT)[field]
    return hub, crawled, values, gaps


def test_calm_every_count_comes_and_nobody_is_convicted() -> None:
    hub, crawled, values, gaps = crawl_hub(SCENARIOS["calm"])
    assert hub.limits.convictions() == 0
    assert len(values) == 3 * (len(NAMES) - 1)
    assert gaps == {UNKNOWN: 3}
    lists = [r for r, _ in crawled.asked if r.path == "/api/models"]
    assert (len(lists), len(crawled.asked)) == (6, 6 + len(NAMED) + 1)
    assert all(r.headers["ratelimit"].startswith('"api";r=') for _, r in crawled.asked)


@pytest.mark.parametrize(
    ("scenario", "reasons"),
    [
        (replace(SCENARIOS["gone"], gone=0.3), {UNKNOWN}),
        (replace(SCENARIOS["gated"], gated=0.3), {GATED, UNKNOWN}),
    ],
)
def test_models_that_are_not_shown(scenario: Scenario, reasons: set[str]) -> None:
    hub, _, values, gaps = crawl_hub(scenario)
    assert set(gaps) == reasons
    assert sum(gaps.values()) > 9
    assert values
    assert hub.limits.convictions() == 0


def test_renamed_models() -> None:
    hub, crawled, values, gaps = crawl_hub(replace(SCENARIOS["renamed"], renamed=0.3))
    assert gaps == {UNKNOWN: 3}
    assert len(crawled.found[0][1].identities) == sum(hub.state(name) == "renamed" for name in NAMES) > 9
    assert len(values) == 3 * (len(NAMES) - 1)


def test_bad_counts_and_endless_lists() -> None:
    hub, _, _, gaps = crawl_hub(replace(SCENARIOS["huggingface_bad_count"], probability=1.0))
    assert gaps[NO_COUNT] > 9
    _, crawled, _, fewer = crawl_hub(replace(SCENARIOS["huggingface_bad_count"], probability=0.5))
    assert fewer[NO_COUNT] < gaps[NO_COUNT] / 2, "who is asked about once more often gets a count"
    assert len(crawled.asked) > 6 + len(NAMED) + 1
    assert hub.limits.report()["faults"]
    hub, crawled, values, _ = crawl_hub(replace(SCENARIOS["endless_paging"], probability=1.0))
    assert hub.limits.report()["faults"] == {"endless_paging": 1}
    assert len([r for r, _ in crawled.asked if r.path == "/api/models"]) == 1
    assert len(values) == 3 * (len(NAMES) - 1)


def test_downloads_that_begin_anew_stand_as_they_are_stated() -> None:
    hub = HuggingFace(make_world(), scenario=replace(SCENARIOS["counter_reset"], resets=1.0))
    totals = []
    for n in range(29):
        night = NIGHT + timedelta(days=n)
        ((batch, found),) = crawl_batches([batch_of(*NAMED[:3], day=night)], hub, night).found
        totals.append([table(sound(found, batch))[k, TOTAL, night] for k in range(3)])
    falls = [sum(later < sooner for sooner, later in pairwise(series)) for series in zip(*totals, strict=True)]
    assert falls == [1, 1, 1]


@pytest.mark.parametrize("kind", ["gzip_bomb", "proxy_not_found"])
def test_a_page_in_the_way_costs_no_model_its_day_for_good(kind: str) -> None:
    hub, crawled, values, gaps = crawl_hub(replace(SCENARIOS[kind], probability=0.3))
    assert hub.limits.report()["faults"][kind] > 9
    assert values
    assert gaps[UNKNOWN] == 3
    assert all(g.retry for _, found in crawled.found for g in found.gaps if g.reason != UNKNOWN)
    assert hub.limits.convictions() == 0


def test_limits_are_waited_out() -> None:
    hub, crawled, values, _ = crawl_hub(replace(SCENARIOS["huggingface_too_many"], probability=0.05))
    faults = hub.limits.report()["faults"]["huggingface_too_many"]
    assert faults > 1
    assert crawled.seconds > 55 * faults
    assert hub.limits.convictions() == 0
    assert len(values) == 3 * (len(NAMES) - 1)


def test_a_night_of_more_models_than_one_window_holds() -> None:
    hub = HuggingFace(make_world())
    batches = [batch_of(*(f"team-{k}/tool-{n}" for n in range(450)), day=NIGHT) for k in range(3)]
    crawled = crawl_batches(batches, hub, NIGHT)
    assert set(crawled.outcomes) == {"Done"}
    assert len(crawled.asked) > 1350
    assert hub.limits.convictions() == 0
    assert crawled.seconds < 1.1 * len(crawled.asked) * 300 / 480


def test_foul_weather_ends_without_a_false_value() -> None:
    seen = 0
    for seed in range(4):
        scenario = replace(SCENARIOS["faults"], probability=0.05, seed=seed, renamed=0.02, gone=0.02, gated=0.02)
        hub, crawled, values, _ = crawl_hub(scenario)
        assert hub.limits.convictions() == 0
        assert not any("bug" in reason for reason in crawled.dead)
        seen += len(values)
    assert seen
