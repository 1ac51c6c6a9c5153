"""The simulated Hugging Face Hub: lists and cursors, expand, refusals and redirects, and the books of its windows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from astrid.models import Request, Response
from astrid.signals import read_huggingface_signal
from astrid.simulators.huggingface import BUCKETS, LISTED, HuggingFace
from astrid.simulators.scenarios import SCENARIOS
from tests.synthetic_world import NIGHT, make_world

NOW = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
API = BUCKETS["api"]
Params = tuple[tuple[str, str], ...]


def ask(
    hub: HuggingFace, path: str = "/api/models", params: Params = (), second: float = 0.0, token: str | None = None
) -> Response:
    request = Request("huggingface", "GET", path, params)
    return hub.respond(request, token=token, now=NOW + timedelta(seconds=second), night=NIGHT)


def next_params(response: Response) -> Params:
    url = response.headers["link"].removeprefix("<").partition(">")[0]
    return tuple(parse_qsl(urlsplit(url).query))


class TestLists:
    def test_the_cursor_leads_through_all_models_once(self) -> None:
        hub = HuggingFace(make_world())
        expand = (("expand", "downloads"), ("expand", "downloadsAllTime"), ("expand", "likes"))
        params: Params = (("sort", "downloads"), ("limit", "500"), *expand)
        models: list[Any] = []
        pages = 0
        while True:
            answer = ask(hub, params=params)
            models += answer.json()
            pages += 1
            if "link" not in answer.headers:
                break
            assert set(params) - {("cursor", dict(params).get("cursor"))} <= set(next_params(answer))
            params = next_params(answer)
        assert pages == LISTED / 500
        assert len({m["id"] for m in models}) == LISTED
        downloads = [m["downloads"] for m in models]
        assert downloads == sorted(downloads, reverse=True)
        assert set(models[0]) == {"_id", "id", "downloads", "downloadsAllTime", "likes"}
        assert models[7] == ask(hub, f"/api/models/{models[7]['id']}", expand).json()

    def test_all_time_only_if_asked_for_and_trending_not_always(self) -> None:
        hub = HuggingFace(make_world())
        plain = ask(hub, params=(("limit", "90"),)).json()
        assert not any("downloadsAllTime" in m for m in plain)
        trending = ask(hub, params=(("limit", "90"), ("expand", "trendingScore"))).json()
        assert 10 < sum("trendingScore" in m for m in trending) < 90

    def test_limits_of_a_page(self) -> None:
        hub = HuggingFace(make_world())
        assert len(ask(hub).json()) == 30
        assert len(ask(hub, params=(("limit", "5000"),)).json()) == 1000

    @pytest.mark.parametrize(
        "bad", [("limit", "0"), ("limit", "x"), ("cursor", "x"), ("cursor", "§"), ("sort", "name")]
    )
    def test_bad_queries(self, bad: tuple[str, str]) -> None:
        assert ask(HuggingFace(make_world()), params=(bad,)).status == 400

    def test_endless_paging(self) -> None:
        hub = HuggingFace(make_world(), scenario=replace(SCENARIOS["endless_paging"], probability=1.0))
        calm = next_params(ask(HuggingFace(make_world())))
        answer = ask(hub, params=calm)
        assert next_params(answer) == calm


class TestModels:
    def test_counts_depend_on_name_night_and_seed_alone(self) -> None:
        hub = HuggingFace(make_world())
        nights = [NIGHT + timedelta(days=n) for n in range(40)]
        series = [hub.counts("a/b", n) for n in nights]
        assert series == [HuggingFace(make_world(5)).counts("a/b", n) for n in nights]
        assert series != [hub.counts("a/c", n) for n in nights]
        totals = [s["downloadsAllTime"] for s in series]
        assert totals == sorted(totals)
        likes = [[hub.counts(f"a/b{k}", n)["likes"] for n in nights] for k in range(10)]
        assert any(later < sooner for row in likes for sooner, later in pairwise(row))

    def test_some_counters_begin_anew(self) -> None:
        hub = HuggingFace(make_world(), scenario=replace(SCENARIOS["counter_reset"], resets=0.3))
        nights = [NIGHT + timedelta(days=n) for n in range(29)]
        series = [[hub.counts(f"a/b{k}", n)["downloadsAllTime"] for n in nights] for k in range(100)]
        falls = [sum(later < sooner for sooner, later in pairwise(row)) for row in series]
        assert 15 < falls.count(1) < 45
        assert falls.count(0) + falls.count(1) == 100

    @pytest.mark.parametrize("token", [None, "t"])
    def test_unknown(self, token: str | None) -> None:
        answer = ask(HuggingFace(make_world()), "/api/models/a/no-such-b", token=token)
        assert (answer.status, answer.headers["x-error-code"]) == (401 if token is None else 404, "RepoNotFound")
        assert ask(HuggingFace(make_world()), "/api/models/a/b/c", token=token).status == 404
        assert ask(HuggingFace(make_world()), "/api/datasets", token=token).status == 404

    def test_gated_and_gone(self) -> None:
        for share, code in (("gated", "GatedRepo"), ("gone", "RepoNotFound")):
            hub = HuggingFace(
                make_world(), scenario=replace(SCENARIOS["calm"], gated=share == "gated", gone=share == "gone")
            )
            answers = [ask(hub, f"/api/models/a/b{n}") for n in range(30)]
            assert {a.headers["x-error-code"] for a in answers} == {code}
            assert {a.status for a in answers} == ({401, 403} if share == "gated" else {401, 404})

    def test_a_renamed_model_keeps_its_id_and_counts(self) -> None:
        hub = HuggingFace(make_world(), scenario=replace(SCENARIOS["renamed"], renamed=1.0))
        params = (("expand", "likes"),)
        answer = ask(hub, "/api/models/a/b", params)
        assert (answer.status, answer.headers["location"]) == (307, "/api/models/new-a/b?expand=likes")
        moved = ask(hub, "/api/models/new-a/b", params).json()
        before = ask(HuggingFace(make_world()), "/api/models/a/b", params).json()
        assert moved == before | {"id": "new-a/b"}

    def test_shares(self) -> None:
        hub = HuggingFace(make_world(), scenario=replace(SCENARIOS["gated"], renamed=0.1, gone=0.1, gated=0.1))
        states = [hub.state(f"a/b{n}") for n in range(2000)]
        assert all(150 < states.count(state) < 250 for state in ("renamed", "gone", "gated"))

    def test_bad_counts(self) -> None:
        hub = HuggingFace(make_world(), scenario=replace(SCENARIOS["huggingface_bad_count"], probability=1.0))
        models = ask(
            hub, params=(("limit", "16"), ("expand", "downloadsAllTime"), ("expand", "downloads"), ("expand", "likes"))
        ).json()
        spoilt = [
            m
            for m in models
            if not all(isinstance(m.get(k), int) and m[k] >= 0 for k in ("downloadsAllTime", "downloads", "likes"))
        ]
        assert len(spoilt) == 8


class TestWindows:
    def test_headers_count_down_per_bucket(self) -> None:
        hub = HuggingFace(make_world())
        first, second = ask(hub), ask(hub, second=10)
        assert first.headers["ratelimit"] == '"api";r=499;t=300'
        assert second.headers["ratelimit"] == '"api";r=498;t=290'
        assert second.headers["ratelimit-policy"] == '"fixed window";"api";q=500;w=300'
        assert ask(hub, "/a/b").headers["ratelimit"] == '"pages";r=99;t=300'
        assert ask(hub, "/a/b/resolve/main/config.json").headers["ratelimit"] == '"resolvers";r=2999;t=300'

    def test_who_goes_on_after_the_last_one_is_convicted(self) -> None:
        hub = HuggingFace(make_world())
        answers = [ask(hub, "/api/models/a/b", second=n / 10) for n in range(API.limit)]
        assert read_huggingface_signal(answers[-1], 0.0).remaining == 0
        assert hub.limits.convictions() == 0
        refused = ask(hub, second=200)
        assert (refused.status, refused.headers["ratelimit"]) == (429, '"api";r=0;t=100')
        assert read_huggingface_signal(refused, 0.0).retry_after_s == 100.0
        assert hub.limits.report()["tokens"]["ip:127.0.0.1"]["convictions"]["reasons"] == {"reset_ignored": 1}
        assert ask(hub, second=300).status == 200
        assert hub.limits.convictions() == 1

    def test_a_refusal_tells_how_long_and_means_it(self) -> None:
        hub = HuggingFace(make_world(), scenario=replace(SCENARIOS["huggingface_too_many"], probability=1.0))
        refused = ask(hub)
        assert (refused.status, read_huggingface_signal(refused, 0.0).retry_after_s) == (429, 55.0)
        again = ask(hub, "/api/models/a/b", second=54)
        assert (again.status, again.headers["ratelimit"]) == (429, '"api";r=0;t=1')
        assert hub.limits.convictions() == 1
