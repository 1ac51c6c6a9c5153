"""The simulated npm: documented limits, silent losses, made-up but fixed counts, and who is convicted."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from astrid.models import Request, Response
from astrid.signals import read_plain_signal
from astrid.simulators.npm import BULK, PER_MINUTE, SINGLE_DAYS, Npm
from astrid.simulators.scenarios import SCENARIOS
from tests.synthetic_world import NIGHT, make_world

NOW = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "npm-downloads"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")


def ask(npm: Npm, path: str, second: float = 0.0) -> Response:
    request = Request("npm", "GET", f"/downloads/range/{path}")
    return npm.respond(request, token=None, now=NOW + timedelta(seconds=second), night=NIGHT)


def ago(days: int) -> date:
    return NIGHT - timedelta(days=days)


class TestAnswers:
    def test_a_single_range(self) -> None:
        npm = Npm(make_world())
        body = ask(npm, f"{ago(3)}:{NIGHT}/openai").json()
        assert list(body) == ["start", "end", "package", "downloads"]
        assert (body["start"], body["end"], body["package"]) == (ago(3).isoformat(), NIGHT.isoformat(), "openai")
        assert body["downloads"] == [
            {"downloads": npm.downloads("openai", ago(n)), "day": ago(n).isoformat()} for n in (3, 2, 1, 0)
        ]
        assert ask(npm, f"{ago(3)}:{NIGHT}/@scope%2Fname").json()["package"] == "@scope/name"
        assert ask(npm, f"{ago(3)}:{NIGHT}/@scope/name").json()["package"] == "@scope/name"

    @needs_samples
    def test_recorded_shapes(self) -> None:
        recorded: Any = json.loads((SAMPLES / "range_last-week_strict-mode.json").read_bytes())
        body = ask(Npm(make_world()), "last-week/strict-mode").json()
        assert (list(body), len(body["downloads"])) == (list(recorded), len(recorded["downloads"]))
        assert list(body["downloads"][0]) == list(recorded["downloads"][0])
        recorded = json.loads((SAMPLES / "error_bulk_over_365_days_400.json").read_bytes())
        answer = ask(Npm(make_world()), f"{ago(365)}:{NIGHT}/a,b")
        assert (answer.status, answer.json()) == (recorded["status"], recorded["body"])

    def test_a_list_is_keyed_by_package_and_null_is_unknown(self) -> None:
        body = ask(Npm(make_world()), f"{ago(1)}:{NIGHT}/a,no-such-b,c").json()
        assert list(body) == ["a", "no-such-b", "c"]
        assert body["no-such-b"] is None
        assert body["c"]["package"] == "c"

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            (f"{ago(364)}:{NIGHT}/a,b", 200),
            (f"{ago(365)}:{NIGHT}/a,b", 400),
            (f"{ago(365)}:{NIGHT}/a", 200),
            ("last-day/" + ",".join(f"p{n}" for n in range(BULK)), 200),
            ("last-day/" + ",".join(f"p{n}" for n in range(BULK + 1)), 400),
            ("last-day/a,@b/c", 400),
            ("last-day/no-such-a", 404),
            ("last-day/@x/no-such-a", 404),
            ("yesterday/a", 400),
            ("2026-13-01/a", 400),
            (f"{NIGHT}:{ago(1)}/a", 400),
            ("a", 404),
        ],
    )
    def test_refusals(self, path: str, status: int) -> None:
        answer = ask(Npm(make_world()), path)
        assert answer.status == status
        assert ("error" in answer.json()) == (status != 200)

    def test_a_long_single_range_loses_its_oldest_days_silently(self) -> None:
        body = ask(Npm(make_world()), f"{ago(900)}:{NIGHT}/a").json()
        assert body["start"] == ago(SINGLE_DAYS - 1).isoformat() == body["downloads"][0]["day"]
        assert len(body["downloads"]) == SINGLE_DAYS

    def test_a_day_that_is_not_over_is_zero_and_none_is_before_2015(self) -> None:
        npm = Npm(make_world())
        rows = ask(npm, f"{NIGHT}:{ago(-1)}/a").json()["downloads"]
        assert rows[0]["downloads"] > 0
        assert rows[1]["downloads"] == 0
        assert ask(npm, "2014-01-01:2015-01-12/a").json()["start"] == "2015-01-10"

    def test_counts_depend_on_name_day_and_seed_alone(self) -> None:
        days = [ago(n) for n in range(60)]
        counts = [Npm(make_world()).downloads("a", d) for d in days]
        assert counts == [Npm(make_world(5)).downloads("a", d) for d in days]
        assert counts != [Npm(make_world()).downloads("b", d) for d in days]
        other = Npm(make_world(), scenario=replace(SCENARIOS["calm"], seed=1))
        assert counts != [other.downloads("a", d) for d in days]
        assert min(counts) > 0
        tiny = [Npm(make_world()).downloads("tiny-a", d) for d in days]
        assert 0 in tiny
        assert max(tiny) < 5


class TestLimits:
    def test_the_twenty_first_request_of_a_minute_is_convicted(self) -> None:
        npm = Npm(make_world())
        answers = [ask(npm, "last-day/a", n) for n in range(PER_MINUTE.limit + 1)]
        assert [a.status for a in answers] == [200] * PER_MINUTE.limit + [429]
        assert answers[-1].body == b"error code: 1015"
        assert "retry-after" not in answers[-1].headers
        assert read_plain_signal(answers[-1], 0.0).verdict == "secondary"
        assert npm.limits.convictions() == 1
        assert ask(npm, "last-day/a", 60).status == 200
        assert npm.limits.convictions() == 1

    @pytest.mark.parametrize(("kind", "status"), [("npm_error_1015", 429), ("npm_error_1015_page", 403)])
    def test_who_does_not_wait_after_a_1015_is_convicted(self, kind: str, status: int) -> None:
        npm = Npm(make_world(), scenario=replace(SCENARIOS[kind], probability=1.0))
        refused = ask(npm, "last-day/a")
        assert refused.status == status
        assert read_plain_signal(refused, 0.0).verdict == "secondary"
        assert ask(npm, "last-day/b", 59).status == 429
        assert npm.limits.convictions() == 1
        ask(npm, "last-day/b", 60)
        assert npm.limits.convictions() == 1


class TestFaults:
    def struck(self, kind: str, path: str, seed: int = 1) -> Any:
        return ask(Npm(make_world(), scenario=replace(SCENARIOS[kind], probability=1.0, seed=seed)), path).json()

    def test_range_cut(self) -> None:
        body = self.struck("npm_range_cut", f"{ago(8)}:{NIGHT}/a,b")
        for name in ("a", "b"):
            assert body[name]["start"] == body[name]["downloads"][0]["day"] == ago(5).isoformat()
            assert body[name]["end"] == NIGHT.isoformat()

    def test_late_day_takes_three_forms(self) -> None:
        seen = set()
        for seed in range(40):
            body = self.struck("npm_late_day", f"{ago(8)}:{NIGHT}/a", seed)
            newest = body["downloads"][-1]
            owed = newest["day"] != NIGHT.isoformat()
            assert owed or newest["downloads"] == 0
            seen.add((owed, body["end"] == NIGHT.isoformat()))
        assert seen == {(False, True), (True, True), (True, False)}
        past = self.struck("npm_late_day", f"{ago(18)}:{ago(9)}/a")
        assert past["downloads"][-1]["downloads"] > 0

    def test_zero_day_is_the_same_for_all_and_spares_the_small(self) -> None:
        body = self.struck("npm_zero_day", f"{ago(20)}:{NIGHT}/a,b,tiny-c")
        zeros = {n: [r["day"] for r in body[n]["downloads"] if r["downloads"] == 0] for n in ("a", "b")}
        assert zeros["a"] == zeros["b"]
        assert len(zeros["a"]) == 1
        npm = Npm(make_world(), scenario=replace(SCENARIOS["calm"], seed=1))
        assert [r["downloads"] for r in body["tiny-c"]["downloads"]] == [
            npm.downloads("tiny-c", ago(n)) for n in range(20, -1, -1)
        ]

    def test_a_day_that_failed_is_0_for_everybody(self) -> None:
        body = self.struck("npm_failed_day", f"{ago(20)}:{NIGHT}/a,b,tiny-c,no-such-d")
        assert body.pop("no-such-d") is None
        calm = ask(
            Npm(make_world(), scenario=replace(SCENARIOS["calm"], seed=1)), f"{ago(20)}:{NIGHT}/a,b,tiny-c"
        ).json()
        failed = set()
        for name, part in body.items():
            assert part["start"] == calm[name]["start"]
            failed |= {r["day"] for r, was in zip(part["downloads"], calm[name]["downloads"], strict=True) if r != was}
        (day,) = failed
        assert all(r["downloads"] == 0 for part in body.values() for r in part["downloads"] if r["day"] == day)

    def test_doubled_day(self) -> None:
        rows = self.struck("npm_doubled_day", f"{ago(8)}:{NIGHT}/a")["downloads"]
        counts = [r["downloads"] for r in rows if r["day"] == rows[-1]["day"]]
        assert len(counts) == 2
        assert counts[0] != counts[1]
