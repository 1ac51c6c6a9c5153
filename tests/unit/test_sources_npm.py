"""npm's ranges: lists and singles, what is believed and what is a gap, by hand and against the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import Malformed, SourceError, TooLarge, Unavailable
from astrid.models import Batch, Entity, Gap, Request, Response
from astrid.simulators.npm import Npm
from astrid.simulators.scenarios import SCENARIOS, Scenario
from astrid.sources.npm import (
    CUT,
    DOWNLOADS,
    FAILED_DAY,
    FAULTY_ZERO,
    FIRST_DAY,
    NO_COUNT,
    NOT_YET,
    SOURCE,
    TOO_EARLY,
    UNKNOWN,
    UNREADABLE,
    Range,
    crawl,
    parse_ranges,
)
from astrid.sources.source import PATIENCE, days_between
from tests.by_fetcher import crawl_batches
from tests.by_hand import BROKEN, JSON, mostly, mutated, ok, run, sound, survives, table
from tests.synthetic_world import NIGHT, make_world

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "npm-downloads"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
DAY = date(2026, 3, 31)


def batch_of(
    *names: str, days: int = 3, attempt: int = 0, end: date = DAY, night: date | None = None, task: str = "bulk"
) -> Batch:
    entities = tuple(Entity(n, f"e{n}", name, (name,)) for n, name in enumerate(names))
    return Batch("npm", task, night or end, end - timedelta(days=days - 1), end, entities, attempt=attempt)


def back(days_ago: int) -> date:
    return DAY - timedelta(days=days_ago)


def rows_of(counts: list[Any], end: date = DAY) -> list[dict[str, Any]]:
    first = end - timedelta(days=len(counts) - 1)
    return [{"downloads": n, "day": (first + timedelta(days=k)).isoformat()} for k, n in enumerate(counts)]


def part(name: str, counts: list[Any], end: date = DAY) -> dict[str, Any]:
    """Return one package's range whose last count is of ``end``."""
    rows = rows_of(counts, end)
    return {"start": rows[0]["day"], "end": end.isoformat(), "package": name, "downloads": rows}


def reasons(gaps: tuple[Gap, ...]) -> list[tuple[date, str, bool]]:
    return [(g.day, g.reason, g.retry) for g in gaps]


class TestRequests:
    def test_unscoped_names_share_requests_and_scoped_ones_do_not(self) -> None:
        names = [f"p{n}" for n in range(130)] + ["@a/b", "@c/d"]
        asked: list[Request] = []

        def answer(request: Request) -> Response:
            asked.append(request)
            listed = request.path.rsplit("/", 1)[1].replace("%2F", "/").split(",")
            parts = {n: part(n, [5] * 10) for n in listed}
            return ok(parts if len(listed) > 1 else parts[listed[0]])

        batch = batch_of(*names, "p0")
        found, _ = run(crawl(batch), answer)
        assert len(table(sound(found, batch))) == 3 * 133
        assert [r.path.count(",") + 1 for r in asked] == [128, 2, 1, 1]
        assert asked[2].path == "/downloads/range/2026-03-22:2026-03-31/@a%2Fb"

    def test_the_neighbours_are_asked_for_too_but_nothing_after_the_night(self) -> None:
        batch = batch_of("a", days=5, end=back(30), night=DAY)
        _, requests = run(crawl(batch), [ok(part("a", [1] * 19, back(23)))])
        assert requests[0].path == f"/downloads/range/{back(41)}:{back(23)}/a"
        _, requests = run(crawl(batch_of("a", days=5, end=back(2), night=DAY)), [ok(part("a", [1] * 14))])
        assert requests[0].path == f"/downloads/range/{back(13)}:{back(0)}/a"

    @pytest.mark.parametrize("task", SOURCE.tasks.values())
    def test_no_batch_asks_for_more_days_than_npm_gives(self, task: Any) -> None:
        spans: list[str] = []

        def refuse(request: Request) -> Response:
            spans.append(request.path.split("/")[3])
            return ok({"error": "exceeded max days"}, 400)

        with pytest.raises(TooLarge):
            run(crawl(batch_of("a", "b", days=task.days_per_batch, end=back(100), night=DAY)), refuse)
        first, last = (date.fromisoformat(d) for d in spans[0].split(":"))
        assert (last - first).days + 1 == 365

    def test_each_task_takes_its_own_entities(self) -> None:
        entities = [Entity(0, "a", "openai"), Entity(1, "b", "@openai/codex")]
        taken = {name: [e.key for e in entities if task.accepts(e)] for name, task in SOURCE.tasks.items()}
        assert taken == {"bulk": ["openai"], "scoped": ["@openai/codex"]}

    def test_before_npm_counted_nothing_is_asked(self) -> None:
        batch = batch_of("a", end=date(2014, 12, 31))
        found, requests = run(crawl(batch), [])
        assert requests == []
        assert {(g.reason, g.retry) for g in sound(found, batch).gaps} == {(TOO_EARLY, False)}
        batch = batch_of("a", days=3, end=FIRST_DAY + timedelta(days=1))
        found, _ = run(crawl(batch), [ok(part("a", [7, 8], batch.end))])
        assert reasons(found.gaps) == [(FIRST_DAY - timedelta(days=1), TOO_EARLY, False)]
        assert sorted(table(sound(found, batch)).values()) == [7.0, 8.0]


class TestZeros:
    def judge(self, counts: list[Any], days: int, *, end: date = DAY, night: date = DAY) -> tuple[list[float], Any]:
        batch = batch_of("a", days=days, end=end, night=night)
        found, _ = run(crawl(batch), [ok(part("a", counts, min(night, end + timedelta(days=7))))])
        values = table(sound(found, batch))
        return [values[k] for k in sorted(values)], reasons(found.gaps)

    @pytest.mark.parametrize("counts", [[9, 8, 7, 6, 0], [900, 800, 700, 600, 0]])
    def test_the_newest_day_is_not_there_yet(self, counts: list[int]) -> None:
        values, gaps = self.judge(counts, 3)
        assert values == [float(n) for n in counts[2:4]]
        assert gaps == [(DAY, NOT_YET, True)]

    def test_a_small_package_rests_for_two_days_and_the_older_zeros_are_counts(self) -> None:
        values, gaps = self.judge([3, 2, 0, 0, 0, 0], 4)
        assert values == [0.0, 0.0]
        assert gaps == [(back(1), NOT_YET, True), (back(0), NOT_YET, True)]

    @pytest.mark.parametrize("owed", [1, 4, 12])
    def test_a_large_package_does_not_rest(self, owed: int) -> None:
        values, gaps = self.judge([500] * 8 + [0] * owed, owed + 2)
        assert values == [500.0, 500.0]
        assert gaps == [(back(n), NOT_YET, True) for n in reversed(range(owed))]

    @pytest.mark.parametrize(
        ("counts", "faulty"),
        [
            ([50, 0, 50], True),
            ([50, 0, 0, 0, 60], True),
            ([50, *[0] * 12, 60], True),
            ([49, 0, 500], False),
            ([500, 0, 49], False),
            ([0, 0, 500], False),  # published that day
        ],
    )
    def test_a_zero_between_large_counts_is_a_fault(self, counts: list[int], faulty: bool) -> None:
        zeros = counts.count(0)
        values, gaps = self.judge([*counts, 800, 800, 800], len(counts) + 3)
        assert values.count(0.0) == (0 if faulty else zeros)
        assert [(r, again) for _, r, again in gaps] == [(FAULTY_ZERO, False)] * (zeros if faulty else 0)

    def test_neighbours_are_seen_beyond_the_wanted_days(self) -> None:
        counts = [700] * 7 + [0, 700, 0] + [700] * 7
        values, gaps = self.judge(counts, 3, end=back(7))
        assert values == [700.0]
        assert [(day, r) for day, r, _ in gaps] == [(back(9), FAULTY_ZERO), (back(7), FAULTY_ZERO)]


class TestTogether:
    """What is no count for the large packages of an answer is none for the small ones either."""

    def judge(self, *series: list[int], scoped: str = "", days: int = 7) -> dict[int, list[tuple[date, str, bool]]]:
        names = [f"{scoped}p{n}" for n in range(len(series))]
        parts = {name: part(name, counts) for name, counts in zip(names, series, strict=True)}
        batch = batch_of(*names, days=days)

        def answer(request: Request) -> Response:
            listed = request.path.rsplit("/", 1)[1].replace("%2F", "/").split(",")
            return ok({n: parts[n] for n in listed} if len(listed) > 1 else parts[listed[0]])

        found, _ = run(crawl(batch), answer)
        sound(found, batch)
        assert len(found) + len(found.gaps) == days * len(series)
        return {n: [(g.day, g.reason, g.retry) for g in found.gaps if g.entity_id == n] for n in range(len(series))}

    def day_of_zero(self, count: int, zeros: tuple[int, ...] = (5,)) -> list[int]:
        return [0 if n in zeros else count for n in reversed(range(13))]

    @pytest.mark.parametrize("scoped", ["", "@s/"])
    def test_a_day_that_failed_for_the_large_ones(self, scoped: str) -> None:
        gaps = self.judge(self.day_of_zero(9000), self.day_of_zero(800), self.day_of_zero(45), [3] * 13, scoped=scoped)
        assert gaps == {
            0: [(back(5), FAULTY_ZERO, False)],
            1: [(back(5), FAULTY_ZERO, False)],
            2: [(back(5), FAILED_DAY, False)],
            3: [],
        }, "a count above 0 stands"

    @pytest.mark.parametrize("scoped", ["", "@s/"])
    def test_days_that_the_large_ones_owe(self, scoped: str) -> None:
        owed = (0, 1, 2, 3)
        gaps = self.judge(
            self.day_of_zero(9000, owed), self.day_of_zero(45, owed), self.day_of_zero(40, (1, 3)), scoped=scoped
        )
        assert [(day, reason) for day, reason, _ in gaps[1]] == [(back(n), NOT_YET) for n in (3, 2, 1, 0)]
        assert gaps[0] == gaps[1]
        assert gaps[2] == [(back(n), NOT_YET, True) for n in (3, 1)]

    def test_one_large_package_of_three_is_a_case_of_its_own(self) -> None:
        gaps = self.judge([700] * 13, [900] * 13, self.day_of_zero(9000), self.day_of_zero(45))
        assert gaps == {0: [], 1: [], 2: [(back(5), FAULTY_ZERO, False)], 3: []}
        gaps = self.judge([700] * 13, self.day_of_zero(9000), self.day_of_zero(45))
        assert gaps[2] == [(back(5), FAILED_DAY, False)], "half of them are enough"

    def test_what_small_packages_owe_is_no_word_about_the_others(self) -> None:
        gaps = self.judge(*([self.day_of_zero(3, (0, 1))] * 5), self.day_of_zero(4, (1,)))
        assert gaps[5] == []
        assert gaps[0] == [(back(n), NOT_YET, True) for n in (1, 0)]

    def test_lists_are_judged_one_by_one(self) -> None:
        small, large = self.day_of_zero(45), self.day_of_zero(900)
        gaps = self.judge(*([small] * 128), small, large, days=6)
        assert gaps[0] == []
        assert gaps[128] == [(back(5), FAILED_DAY, False)]

    def test_without_a_large_one_a_zero_stands(self) -> None:
        assert self.judge(self.day_of_zero(45), self.day_of_zero(12)) == {0: [], 1: []}


class TestGaps:
    def test_unknown_broken_and_absent_packages_of_a_list(self) -> None:
        batch = batch_of("a", "b", "c", "d", days=1)
        body = {"a": part("a", [1, 2]), "b": None, "c": part("other", [1, 2])}
        found, _ = run(crawl(batch), [ok(body)])
        assert table(sound(found, batch)) == {(0, DOWNLOADS, DAY): 2.0}
        assert [(g.entity_id, g.reason, g.retry) for g in found.gaps] == [
            (1, UNKNOWN, False),
            (2, UNREADABLE, True),
            (3, UNREADABLE, True),
        ]

    @pytest.mark.parametrize(
        "refusal", [Response(404, {}, b"<html>404</html>"), ok({}, 404), ok({"error": 5}, 404), ok(["error"], 404)]
    )
    def test_a_404_that_is_not_npms_own_says_nothing(self, refusal: Response) -> None:
        for names in (("@a/b",), ("a", "b")):
            with pytest.raises(Malformed, match="answered 404"):
                run(crawl(batch_of(*names)), [refusal])
        found, _ = run(crawl(batch_of("@a/b", days=1, attempt=PATIENCE)), [refusal])
        assert reasons(found.gaps) == [(DAY, "npm answered 404", True)]

    def test_an_unknown_package_alone(self) -> None:
        found, _ = run(crawl(batch_of("@a/b", days=1)), [ok({"error": "package @a/b not found"}, 404)])
        assert reasons(found.gaps) == [(DAY, UNKNOWN, False)]

    def test_a_range_that_was_cut(self) -> None:
        batch = batch_of("a", days=5, end=back(10), night=DAY)
        whole = part("a", [5] * 12, back(9))
        cut = whole | {"start": back(12).isoformat(), "downloads": whole["downloads"][8:]}
        found, _ = run(crawl(batch), [ok(cut)])
        assert reasons(found.gaps) == [(back(14), CUT, True), (back(13), CUT, True)]
        ended = whole | {"end": back(11).isoformat(), "downloads": whole["downloads"][:-2]}
        found, _ = run(crawl(batch), [ok(ended)])
        assert reasons(found.gaps) == [(back(10), CUT, True)]
        assert len(sound(found, batch)) == 4

    def test_an_answer_that_ends_early_is_late_not_cut(self) -> None:
        found, _ = run(crawl(batch_of("a", days=3)), [ok(part("a", [5] * 8, back(1)))])
        assert reasons(found.gaps) == [(DAY, NOT_YET, True)]

    def test_a_day_stated_twice(self) -> None:
        batch = batch_of("a", days=4)
        twice = part("a", [5] * 10)
        twice["downloads"] += [
            {"downloads": 5, "day": back(3).isoformat()},
            {"downloads": 6, "day": back(2).isoformat()},
        ]
        found, _ = run(crawl(batch), [ok(twice)])
        assert reasons(found.gaps) == [(back(2), NO_COUNT, True)]
        assert [g.doubtful for g in found.gaps] == [True]
        assert len(sound(found, batch)) == 3

    def test_the_newest_day_stated_twice_is_counted_and_not_believed(self) -> None:
        twice = part("a", [5] * 9 + [7])
        twice["downloads"].append({"downloads": 8, "day": str(DAY)})
        found, _ = run(crawl(batch_of("a", days=2)), [ok(twice)])
        assert reasons(found.gaps) == [(DAY, NO_COUNT, True)]

    def test_who_needs_the_others_as_witnesses_is_not_asked_for_alone(self) -> None:
        small = part("b", [3, 3, 3, 0, 3, 3, 3, 3])
        small["downloads"].append({"downloads": 9, "day": back(1).isoformat()})
        body = {"a": part("a", [800, 800, 800, 0, 800, 800, 800, 800]), "b": small}
        found, _ = run(crawl(batch_of("a", "b", days=6)), [ok(body)])
        gaps = {g.day: (g.reason, g.doubtful) for g in found.gaps if g.entity_id == 1}
        assert gaps == {back(4): (FAILED_DAY, False), back(1): (NO_COUNT, False)}

    @pytest.mark.parametrize("value", [None, -1, True, 1.5, "7", [], 10**12, 2**63])
    def test_a_broken_count(self, value: Any) -> None:
        batch = batch_of("a", days=4)
        found, _ = run(crawl(batch), [ok(part("a", [5, 5, 5, 5, 5, value, 5, 5]))])
        assert reasons(sound(found, batch).gaps) == [(back(2), NO_COUNT, True)]

    @pytest.mark.parametrize(
        "bad",
        [
            None,
            5,
            "x",
            [],
            {},
            {"downloads": 5},
            {"day": "31.03.2026", "downloads": 5},
            {"day": "20260331", "downloads": 5},
        ],
    )
    def test_rows_of_any_form(self, bad: Any) -> None:
        body = part("a", [4])
        body["downloads"].insert(0, bad)
        assert parse_ranges(ok(body), ["a"]) == {"a": Range(DAY, DAY, {DAY: 4})}


class TestRefusals:
    @pytest.mark.parametrize("response", [*BROKEN, ok([]), ok({}), ok(part("b", [1])), Response(429, {}, b"")])
    def test_one_broken_package_does_not_take_the_others_with_it(self, response: Response) -> None:
        with pytest.raises(SourceError) as caught:
            run(crawl(batch_of("@a/b", "@c/d")), [response])
        assert isinstance(caught.value, Unavailable if response.status >= 500 else Malformed)
        assert len(str(caught.value)) < 300
        batch = batch_of("@a/b", "@c/d", days=1, attempt=PATIENCE)
        found, _ = run(crawl(batch), [response, ok(part("@c/d", [1, 5]))])
        assert table(sound(found, batch)) == {(1, DOWNLOADS, DAY): 5.0}
        assert [(g.entity_id, g.retry) for g in found.gaps] == [(0, True)]

    @pytest.mark.parametrize("status", [400, 404, 414])
    def test_a_list_that_npm_refuses_is_split(self, status: int) -> None:
        with pytest.raises(TooLarge):
            run(crawl(batch_of("a", "b")), [ok({"error": "no"}, status)])
        with pytest.raises(TooLarge if status == 414 else Malformed):
            run(crawl(batch_of("a", "b")), [Response(status, {}, b"<html>")])

    def test_a_list_that_stays_broken_is_split_and_one_that_fails_is_not(self) -> None:
        for attempt, error in ((0, Malformed), (PATIENCE, TooLarge)):
            with pytest.raises(error):
                run(crawl(batch_of("a", "b", attempt=attempt)), [Response(200, {}, b"<html>")])
            with pytest.raises(Unavailable):
                run(crawl(batch_of("a", "b", attempt=attempt)), [Response(503, {}, b"")])

    def test_any_json(self) -> None:
        accepted = Counter[int]()
        row = st.fixed_dictionaries({"day": mostly(str(DAY)) | st.just(str(back(1))), "downloads": mostly(5)})

        @given(JSON, st.lists(row | JSON, max_size=4))
        def survive(whole: Any, rows: Any) -> None:
            entry = part("a", [4, 4]) | {"downloads": rows}
            entries = (whole, {"a": whole}, entry, {"a": entry, "b": whole}, part("a", [1]) | {"start": whole})
            for attempt in (0, PATIENCE):
                for names in (("a",), ("a", "b")):
                    batch = batch_of(*names, attempt=attempt)
                    for value in entries:
                        accepted[survives(lambda b=batch: crawl(b), lambda _, v=value: ok(v), batch)] += 1

        survive()
        assert min(accepted[0], accepted[1], accepted[2]) > 2, accepted

    @pytest.mark.parametrize("names", [("a",), ("a", "b")])
    def test_answers_with_anything_in_them(self, names: tuple[str, ...]) -> None:
        accepted = Counter[int]()
        whole = {name: part(name, [5, 60, 7, 0, 9]) for name in names}

        @given(mutated(whole if len(names) > 1 else whole["a"]), st.sampled_from((0, PATIENCE)))
        def survive(body: Any, attempt: int) -> None:
            batch = batch_of(*names, attempt=attempt)
            accepted[survives(lambda: crawl(batch), lambda _: ok(body), batch)] += 1

        survive()
        assert min(accepted[0], accepted[3 * len(names)]) > 2, accepted

    @given(st.lists(st.integers(0, 200), min_size=1, max_size=60), st.integers(1, 40), st.integers(0, 40))
    def test_every_day_is_a_count_or_a_gap(self, counts: list[int], days: int, ago: int) -> None:
        batch = batch_of("a", days=days, end=back(ago), night=DAY)
        found, _ = run(crawl(batch), [ok(part("a", counts))])
        known = {k[2] for k in table(sound(found, batch))} | {g.day for g in found.gaps}
        assert known == set(days_between(batch.start, batch.end))


@needs_samples
def test_recorded_answers() -> None:
    body = (SAMPLES / "range_last-week_strict-mode.json").read_bytes()
    found = parse_ranges(Response(200, {}, body), ["strict-mode"])["strict-mode"]
    assert isinstance(found, Range)
    assert (found.start, found.end, sum(found.counts.values())) == (date(2017, 9, 22), date(2017, 9, 28), 218)
    body = (SAMPLES / "range_4days_vitest.json").read_bytes()
    found = parse_ranges(Response(200, {}, body), ["vitest"])["vitest"]
    assert isinstance(found, Range)
    assert list(found.counts.values()) == [1200, 1310, 990, 1405]


# Against the simulator, through the fetcher and the budget


NAMES = (*[f"package-{n}" for n in range(140)], "no-such-thing", "tiny-tool")
SCOPED = (*[f"@lab/package-{n}" for n in range(12)], "@lab/no-such-thing")


def batches(attempt: int = 0) -> list[Batch]:
    bulk = [batch_of(*NAMES[n : n + 128], days=30, end=NIGHT, attempt=attempt) for n in range(0, len(NAMES), 128)]
    return bulk + [batch_of(*SCOPED[n : n + 8], days=30, end=NIGHT, task="scoped") for n in range(0, len(SCOPED), 8)]


def crawl_npm(scenario: Scenario) -> tuple[Npm, Any, dict[tuple[str, date], float], dict[tuple[str, date], Gap]]:
    """Crawl all names and require that every value is the simulator's and every other day a gap."""
    npm = Npm(make_world(), scenario=scenario)
    crawled = crawl_batches(batches(), npm, NIGHT)
    values: dict[tuple[str, date], float] = {}
    gaps: dict[tuple[str, date], Gap] = {}
    for batch, found in crawled.found:
        keys = {e.entity_id: e.key for e in batch.entities}
        values |= {(keys[n], d): v for (n, _, d), v in table(sound(found, batch)).items()}
        gaps |= {(keys[g.entity_id], g.day): g for g in found.gaps}
    for (name, day), value in values.items():
        assert value == npm.downloads(name, day), (name, day)
    if not crawled.dead:
        wanted = {(name, day) for name in NAMES + SCOPED for day in days_between(NIGHT - timedelta(days=29), NIGHT)}
        assert values.keys() | gaps.keys() == wanted
    assert not values.keys() & gaps.keys()
    return npm, crawled, values, gaps


def test_calm_every_day_comes_and_nobody_is_convicted() -> None:
    npm, crawled, values, gaps = crawl_npm(SCENARIOS["calm"])
    assert npm.limits.convictions() == 0
    assert len(crawled.asked) == 2 + len(SCOPED)
    assert crawled.seconds >= 5 * (len(crawled.asked) - 1)
    lost = Counter((name, gap.reason) for (name, _), gap in gaps.items())
    assert lost.pop(("no-such-thing", UNKNOWN)) == lost.pop(("@lab/no-such-thing", UNKNOWN)) == 30
    assert {name for name, _ in lost} <= {"tiny-tool"}
    assert all(reason == NOT_YET for _, reason in lost)
    assert sum(v == 0 for (name, _), v in values.items() if name == "tiny-tool") > 0


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ("npm_range_cut", CUT),
        ("npm_late_day", NOT_YET),
        ("npm_zero_day", FAULTY_ZERO),
        ("npm_failed_day", FAULTY_ZERO),
        ("proxy_not_found", "npm answered 404"),
    ],
)
def test_what_npm_gets_wrong_is_a_gap(scenario: str, reason: str) -> None:
    npm, crawled, _, gaps = crawl_npm(replace(SCENARIOS[scenario], probability=0.8))
    assert npm.limits.report()["faults"][scenario] > 3
    assert sum(g.reason == reason for (name, _), g in gaps.items() if name != "tiny-tool") > 3
    assert npm.limits.convictions() == 0
    assert set(crawled.outcomes) == ({"Done", "RetryIn", "Split"} if scenario == "proxy_not_found" else {"Done"})
    if scenario == "npm_failed_day":
        assert ("tiny-tool", FAILED_DAY) in {(name, g.reason) for (name, _), g in gaps.items()}


def test_a_day_that_is_stated_twice_is_asked_for_once_more() -> None:
    scenario = replace(SCENARIOS["npm_doubled_day"], probability=0.5)
    _, crawled, values, gaps = crawl_npm(scenario)
    asked = Counter(request.path for request, _ in crawled.asked)
    assert sum(asked.values()) > 2 + len(SCOPED)
    assert len(values) > 0.97 * 30 * (len(NAMES) + len(SCOPED) - 2), "most second answers are sound"
    _, _, _, always = crawl_npm(replace(scenario, probability=1.0))
    assert sum(g.reason == NO_COUNT for g in gaps.values()) < sum(g.reason == NO_COUNT for g in always.values())


@pytest.mark.parametrize("scenario", ["npm_error_1015", "npm_error_1015_page"])
def test_cloudflares_refusals_are_waited_out(scenario: str) -> None:
    npm, crawled, _, _ = crawl_npm(replace(SCENARIOS[scenario], probability=0.5))
    assert npm.limits.report()["faults"][scenario] > 3
    assert npm.limits.convictions() == 0
    assert not crawled.dead


def test_foul_weather_ends_without_a_false_value() -> None:
    for seed in range(4):
        npm, crawled, values, _ = crawl_npm(replace(SCENARIOS["faults"], probability=0.4, seed=seed))
        assert npm.limits.convictions() == 0
        assert values
        assert not any("bug" in reason for reason in crawled.dead)
