"""The drawings and the words of the pages: scales, paths with gaps, bars, numbers, escaping."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers import flag_names
from api.pages.axes import choose_days, choose_scale
from api.pages.charts import (
    PLOT,
    WIDTH,
    draw_chart,
    draw_interval,
    draw_parts,
    find_runs,
    mean_of_week,
    reach_of,
    say_parts,
    trace,
    trace_band,
    trace_bars,
)
from api.pages.project import HUNDRED, link_identity, sum_up
from api.pages.rendering import mark_code
from api.pages.words import (
    FLAGS,
    METRICS,
    describe_age,
    write_count,
    write_day,
    write_growth,
    write_share,
    write_short,
    write_signed,
)
from api.parameters import parse_day
from api.problems import KINDS, suggest
from api.series import densify
from astrid import catalog
from astrid.scoring.series import Flag
from astrid.store import IdentityRow, ScoreRow, SeriesPoint

DAY = date(2026, 3, 31)
MOMENT = datetime(2026, 4, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (0, "0"), (7, "7"), (0.25, "0.2"), (940, "940"), (999, "999"), (999.6, "1k"), (1000, "1k"), (9_440, "9.44k"),
        (12_345, "12.3k"), (113_346, "113k"), (999_600, "1M"), (1_210_000, "1.21M"), (2.5e9, "2.5bn"),
        (-113_346, "−113k"),
    ],
)  # fmt: skip
def test_short_numbers_have_at_most_four_digits(value: float, short: str) -> None:
    assert write_short(value) == short


def test_counts_keep_every_digit() -> None:
    assert write_count(113_346) == "113,346"
    assert write_count(16_777_217.0) == "16,777,217"
    assert write_count(-3) == "−3"
    assert write_count(2.5) == "2.5"


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert [write_signed(v) for v in (0.04, -0.04, 0.05001, -1.26)] == ["0.0", "0.0", "+0.1", "−1.3"]


def test_growth_and_shares_read_as_per_cent() -> None:
    assert [write_growth(g) for g in (0.0123, -0.5, 12.0, None)] == ["+1.2\u202f%", "−50.0\u202f%", "+1200\u202f%", "–"]
    assert [write_share(s) for s in (0.0, 0.004, 0.35, 0.9923, 0.9999, 1.0, None)] == [
        "0\u202f%", "<1\u202f%", "35\u202f%", "99\u202f%", "99\u202f%", "100\u202f%", "–",
    ]  # fmt: skip


def test_age_is_told_against_the_last_day_that_is_over() -> None:
    assert describe_age(DAY, DAY).startswith("up to date")
    assert describe_age(DAY, DAY + timedelta(days=1)).startswith("1 day behind")
    assert describe_age(DAY, DAY + timedelta(days=40)).startswith("40 days behind")
    assert write_day(date(2025, 1, 29)) == "29 Jan 2025"


def test_every_metric_and_flag_has_words() -> None:
    assert set(METRICS) == {metric.name for metric in catalog.METRICS}
    assert set(FLAGS) == {str(flag.name).lower() for flag in Flag}


def test_flags_are_named_and_unknown_bits_are_kept() -> None:
    assert flag_names(0) == []
    assert flag_names(int(Flag.SMALL | Flag.RESET)) == ["reset", "small"]
    assert flag_names(int(Flag.GAP) | 1 << 14) == ["gap", "flag_16384"]


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.booleans())
def test_a_scale_holds_its_values_with_few_distinct_labels(a: float, b: float, from_zero: bool) -> None:
    low, high = min(a, b), max(a, b)
    scale = choose_scale(low, high, from_zero=from_zero)
    slack = 1e-6 * max(1.0, high)
    assert scale.low <= low + slack
    assert scale.high >= high - slack
    assert 2 <= len(scale.ticks) <= 7
    assert scale.ticks[0] == scale.low
    assert scale.ticks[-1] == scale.high
    assert len(set(scale.labels())) == len(scale.ticks)
    if from_zero:
        assert scale.low == 0
    assert all(abs(tick - round(tick)) < slack for tick in scale.ticks)


def test_labels_tell_ticks_apart_without_needless_digits() -> None:
    assert choose_scale(130_000, 166_000, from_zero=False).labels() == ["130k", "140k", "150k", "160k", "170k"]
    assert choose_scale(113_110, 113_440, from_zero=False).labels()[:2] == ["113.1k", "113.2k"]
    assert choose_scale(113_346, 113_352, from_zero=False).labels()[0] == "113,346"
    assert choose_scale(0, 0, from_zero=True).labels() == ["0", "1"]
    flat = choose_scale(5_000, 5_000, from_zero=False)
    assert flat.low < 5_000 < flat.high


def test_days_on_the_axis_name_the_year_once() -> None:
    year = [date(2025, 4, 1) + timedelta(days=n) for n in range(365)]
    labels = choose_days(year)
    assert [label for _, label in labels] == ["May 2025", "Jul", "Sep", "Nov", "Jan 2026", "Mar"]
    assert all(year[i].day == 1 for i, _ in labels)
    week = [date(2025, 1, 27) + timedelta(days=n) for n in range(7)]
    assert [label for _, label in choose_days(week)] == ["27 Jan 2025", "29 Jan", "31 Jan", "2 Feb"]
    assert choose_days([DAY]) == [(0, "31 Mar 2026")]


@given(st.integers(1, 5_000), st.dates(date(2010, 1, 1), date(2030, 1, 1)))
def test_an_axis_never_has_more_labels_than_fit(length: int, start: date) -> None:
    days = [start + timedelta(days=n) for n in range(length)]
    labels = choose_days(days)
    assert 1 <= len(labels) <= 6
    assert all(0 <= i < length for i, _ in labels)


def test_runs_split_at_every_gap() -> None:
    values = [None, 1, 0, None, None, 5]
    assert list(find_runs(values, present=True)) == [(1, 2), (5, 5)]
    assert list(find_runs(values, present=False)) == [(0, 0), (3, 4)]


def test_a_line_breaks_at_a_gap_and_a_zero_is_drawn() -> None:
    scale = choose_scale(0, 4, from_zero=True)
    path = trace([0, 4, None, 2, None], scale)
    assert path.count("M") == 2
    first, second = path.split("M")[1:]
    assert first == f"100.0 {PLOT:.1f}L300.0 0.0"
    assert second == f"700.0 {PLOT / 2:.1f}L700.0 {PLOT / 2:.1f}"  # a single value is a dot
    assert trace([None, None], scale) == ""


def test_bars_stand_on_zero_and_only_where_something_is() -> None:
    scale = choose_scale(0, 4, from_zero=True)
    assert trace_bars([0, None, 4], scale) == f"M833.3 {PLOT:.1f}V0.0"


def test_a_band_needs_both_ends() -> None:
    path = trace_band([10, None, 20, 30], [20, 30, None, 40], HUNDRED)
    assert path.count("Z") == 2


def test_the_mean_of_a_week_needs_seven_days() -> None:
    assert mean_of_week([7.0] * 6) == [None] * 6
    assert mean_of_week([1, 2, 3, 4, 5, 6, 7, None, 9])[6:] == [4.0, None, None]


def _numbers(svg: str) -> list[float]:
    return [float(x) for d in re.findall(r' d="([^"]*)"', svg) for x in re.findall(r"-?\d+(?:\.\d+)?", d)]


counts = st.lists(st.one_of(st.none(), st.integers(0, 10**9)), min_size=1, max_size=60)


@given(counts.filter(lambda values: any(value is not None for value in values)))
def test_a_chart_is_well_formed_stays_in_its_box_and_shades_every_gap(values: list[int | None]) -> None:
    days = [DAY + timedelta(days=n) for n in range(len(values))]
    seen = [v for v in values if v is not None]
    scale = choose_scale(min(seen), max(seen), from_zero=False)
    svg = draw_chart("k", "Stars & <more>", "said", days, values, scale, tone="github_stars")
    root = ET.fromstring(svg)
    assert root.find("title") is not None
    assert root.findtext("title") == "Stars & <more>"
    assert root.findtext("desc") == "said"
    assert root.get("aria-labelledby") == "k-t k-d"
    box = root.find("svg")
    assert box is not None
    shaded = sum(float(rect.get("width", "0")) for rect in box.findall("rect"))
    assert shaded == pytest.approx(values.count(None) / len(values) * WIDTH, abs=0.1 * len(values))
    assert all(-0.5 <= n <= WIDTH + 0.5 for n in _numbers(svg))
    assert "style=" not in svg


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_an_interval_shows_score_and_whisker(score: float, a: float, b: float) -> None:
    svg = draw_interval(score, min(a, b), max(a, b))
    ET.fromstring(svg)
    assert f"M{score:.2f} 1V13" in svg
    assert f"M{min(a, b):.2f} 7H{max(a, b):.2f}" in svg
    assert "whisker" not in draw_interval(score, None, max(a, b))


parts = st.dictionaries(st.sampled_from(sorted(METRICS)), st.floats(-40, 40), max_size=6)


@given(parts, parts)
def test_stacked_bars_stay_on_their_side_of_zero_and_on_the_axis(
    row: dict[str, float], other: dict[str, float]
) -> None:
    least, most = reach_of([row, other])
    root = ET.fromstring(draw_parts(row, least, most))
    zero = -least / (most - least) * 100
    for sign, total in ((1, sum(p for p in row.values() if p > 0)), (-1, sum(p for p in row.values() if p < 0))):
        side = [
            rect for rect in root.findall("rect")
            if (float(rect.get("x", "0")) >= zero - 0.02) == (sign > 0)
        ]  # fmt: skip
        drawn = sum(float(rect.get("width", "0")) for rect in side)
        assert drawn == pytest.approx(abs(total) / (most - least) * 100, abs=0.35 * 6)
    assert all(-0.02 <= float(r.get("x", "0")) <= 100.02 for r in root.findall("rect"))


def test_parts_are_said_largest_first_and_without_what_is_nothing() -> None:
    found = say_parts(
        {"github_stars": 2.0, "pypi_downloads": -7.0, "hn_points": 0.01, "new_one": 1.0}, {"github_stars": "stars"}
    )
    assert found == [
        ("pypi_downloads", "pypi_downloads", "−7.0"),
        ("github_stars", "stars", "+2.0"),
        ("new_one", "new_one", "+1.0"),
    ]


def test_the_sum_of_a_score_can_be_repeated() -> None:
    parts = {"github_stars": 12.5, "hn_points": -1.0, "github_forks": 0.0}
    known = (1, 61.5, 50.0, 70.0, False, 80.0, 0.01, 1.0, 0.35, 0)
    row = ScoreRow(DAY, "a", "A", "agents", *known, parts, "1.0", 1, MOMENT)
    assert sum_up(row) == "50 + 12.5 (stars) − 1.0 (HN) = 61.5"


@pytest.mark.parametrize("name", ["javascript:alert(1)", 'a/b"onload', "a/b/c", "../x", "a/<b>", "-a/b", "a"])
def test_only_a_repository_is_linked(name: str) -> None:
    assert link_identity(IdentityRow("github", "R_1", name, DAY, None)) is None


def test_a_former_name_is_not_linked() -> None:
    assert link_identity(IdentityRow("github", "R_1", "a/b", DAY, None)) == "https://github.com/a/b"
    assert link_identity(IdentityRow("github", "R_1", "a/b", DAY, DAY)) is None
    assert link_identity(IdentityRow("pypi", "b", "a/b", DAY, None)) is None


def test_code_is_marked_and_everything_escaped() -> None:
    assert mark_code("Use `a<b` & go") == "Use <code>a&lt;b</code> &amp; go"


def test_a_series_is_dense_with_gaps_as_none_and_counts_as_ints() -> None:
    points = [SeriesPoint(DAY, 0.0, 1, MOMENT), SeriesPoint(DAY + timedelta(days=2), 16_777_217.0, 99, MOMENT)]
    values, origins = densify(points, DAY, DAY + timedelta(days=3))
    assert values == (0, None, 16_777_217, None)
    assert [type(v) for v in values] == [int, type(None), int, type(None)]
    assert origins == ("github_graphql", None, "origin_99", None)


@pytest.mark.parametrize(
    "text", ["2025-1-2", "20250102", "1735776000", "2025-02-30", "2025-01-02T00:00", "", "２０２５-01-02"]
)
def test_only_an_iso_day_is_a_day(text: str) -> None:
    with pytest.raises(ValueError, match=r"day|month|YYYY"):
        parse_day(text)


def test_the_nearest_name_is_suggested_and_far_ones_are_not() -> None:
    assert suggest("olama", ["ollama", "vllm"]) == "ollama"
    assert suggest("GitHub_Stars", ["github_stars"]) == "github_stars"
    assert suggest("zzzzzz", ["ollama"]) is None


def test_problems_have_addresses_of_their_own() -> None:
    assert len({kind.address for kind in KINDS}) == len(KINDS)
