"""The walk forward: nothing later enters, order and names do not matter, a forecast is measured for what it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from astrid.evaluation.baselines import RULES
from astrid.evaluation.forecast import Forecast
from astrid.evaluation.panel import Panel
from astrid.evaluation.report import list_limits, to_dict
from astrid.evaluation.star_score import SPANS, VERSIONS, FilterScore, SpanScore, growth_per_day, open_score
from astrid.evaluation.targets import realised_growth
from astrid.evaluation.walk import evaluate, evaluated_rows
from astrid.scoring.score import percentile

FIRST = np.datetime64("2023-01-02")


def made_up(days=260, n=60, seed=0, forks=True) -> Panel:
    """Growing counts with gaps, births, a reset and a day without anybody."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(1, 1, n)) * np.exp(np.outer(np.arange(days) / 7, rng.normal(0.01, 0.03, n)))
    stars = 200 + np.cumsum(rng.poisson(np.minimum(rate, 1e4)), axis=0).astype(float)
    work = np.floor(stars / 5 + np.cumsum(rng.poisson(1, stars.shape), axis=0))
    stars[150:, 3] -= stars[140, 3] / 2
    lost = rng.random(stars.shape) < 0.08
    lost[200] = True
    for column in range(0, n, 9):
        lost[: int(rng.integers(1, 120)), column] = True
    stars[lost] = np.nan
    work[lost | (rng.random(stars.shape) < 0.02)] = np.nan
    return Panel(
        tuple(f"owner/{i:03}" for i in range(n)),
        FIRST,
        stars.astype(np.float32),
        work.astype(np.float32) if forks else None,
    )


def rows_of(panel, start=100, every=7):
    return list(range(start, len(panel.stars), every))


class Oracle:
    """Knows the growth of the next 28 days, from its third day on; its 80 % interval misses on purpose."""

    name = "oracle"

    def __init__(self, panel, silent_until):
        self.panel, self.silent_until, self.asked = panel, silent_until, []

    def forecast(self, row):
        self.asked.append(row)
        if row < self.silent_until:
            return {}
        truth = realised_growth(self.panel.stars, row, 28)
        return {28: Forecast(truth, truth + 0.1, truth + 0.2, truth - 0.1, truth + 0.1)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("forks", [True, False])
def test_nothing_after_the_day_enters_a_score(version, forks):
    panel = made_up(forks=forks)
    rows = rows_of(panel)
    score = open_score(version, panel)
    whole = [score.at(row) for row in rows]
    rng = np.random.default_rng(9)
    for at in (3, 8, len(rows) - 2):
        stars = panel.stars.copy()
        stars[rows[at] + 1 :] = rng.integers(0, 10**6, stars[rows[at] + 1 :].shape)
        changed = replace(panel, stars=stars, forks=stars[:, ::-1].copy() if forks else None)
        if forks:
            changed.forks[: rows[at] + 1] = panel.forks[: rows[at] + 1]
        for other in (changed, panel.until(rows[at])):
            again = open_score(version, other)
            for row, expected in zip(rows[: at + 1], whole, strict=False):
                np.testing.assert_array_equal(again.at(row), expected)
        assert np.isfinite(whole[at]).any()


@pytest.mark.parametrize("version", VERSIONS)
def test_permuting_repositories_permutes_scores(version):
    panel = made_up()
    order = np.random.default_rng(1).permutation(len(panel.repos))
    mixed = Panel(tuple(panel.repos[i] for i in order), FIRST, panel.stars[:, order], panel.forks[:, order])
    a, b = open_score(version, panel), open_score(version, mixed)
    for row in rows_of(panel):
        np.testing.assert_array_equal(b.at(row), a.at(row)[order])


@pytest.mark.parametrize("version", VERSIONS)
def test_identical_repositories_are_all_in_the_middle(version):
    days = np.arange(400.0)
    block = np.repeat((100 + 3 * days)[:, None], 40, axis=1).astype(np.float32)
    score = open_score(version, Panel(tuple(map(str, range(40))), FIRST, block, block))
    np.testing.assert_allclose(score.at(399), 50, atol=1e-9)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_score_does_not_depend_on_which_days_are_asked_for(version):
    panel = made_up()
    daily, weekly = open_score(version, panel), open_score(version, panel)
    every_day = {row: daily.at(row) for row in range(100, 160)}
    for row in range(100, 160, 7):
        np.testing.assert_array_equal(weekly.at(row), every_day[row])


def test_the_filter_goes_forward_only():
    score = FilterScore(made_up())
    score.at(120)
    with pytest.raises(ValueError, match="ascend"):
        score.at(120)


@pytest.mark.parametrize(("version", "days"), [("1.0", 21), ("1.1", 28)])
def test_the_young_have_no_score(version, days):
    born = 150
    stars = made_up().stars[: born + days + 1].copy()
    stars[:, 4:] = 100 + np.arange(56) * np.arange(len(stars))[:, None]  # no gaps
    stars[:born, 11] = np.nan
    score = open_score(version, Panel(tuple(map(str, range(60))), FIRST, stars))
    assert np.isnan(score.at(born + days - 1)[11])
    assert np.isfinite(score.at(born + days)[11])


def test_fewer_than_thirty_repositories_have_no_score():
    panel = made_up(n=29)
    for version in VERSIONS:
        assert np.isnan(open_score(version, panel).at(180)).all()


def test_version_1_1_by_hand():
    days, n = np.arange(500.0), 41
    pace = np.arange(n)  # repository i gains i stars a day, and did so in reverse order until day 300
    stars = 1000 + np.where(
        days[:, None] < 300, days[:, None] * pace[::-1], 300 * pace[::-1] + np.outer(days - 300, pace)
    )
    stars[:200, 7] = np.nan
    stars[475:, 9] = np.nan
    stars[498, 9] = 5000
    panel = Panel(tuple(map(str, range(n))), FIRST, stars.astype(np.float32))
    got = SpanScore(panel).at(499)
    assert np.isnan(got[9])
    here = np.flatnonzero(~np.isnan(panel.stars[499]))
    expected = np.zeros(len(here))
    shorter = None
    for span, share in SPANS.items():
        base = stars[499 - span, here]
        place = percentile(np.log((stars[499, here] + 10) / (base + 10)))
        if shorter is not None:
            place = np.where(np.isnan(place), shorter, place)
        expected += share * place
        shorter = place
    np.testing.assert_allclose(got[here], 100 * expected / 0.93, rtol=1e-6)
    with_forks = SpanScore(replace(panel, forks=panel.stars[:, ::-1].copy())).at(499)
    assert not np.allclose(with_forks[here], got[here])


def test_growth_per_day_tolerates_three_earlier_days():
    stars = np.full((40, 2), np.nan, np.float32)
    stars[39] = [990, 990]
    stars[39 - 10, 0] = 490  # a week and three days ago
    stars[39 - 11, 1] = 490
    got = growth_per_day(stars, 39, 7, np.arange(2))
    assert got[0] == pytest.approx(np.log(2) / 10)
    assert np.isnan(got[1])
    stars[39 - 6, 1] = 490  # six days ago is no week
    assert np.isnan(growth_per_day(stars, 39, 7, np.arange(2))[1])


def test_evaluated_days_are_counted_from_the_first_day_asked_for():
    panel = made_up().until(29)
    assert evaluated_rows(panel, FIRST - 10, FIRST + 400, 7) == [4, 11, 18, 25]
    assert evaluated_rows(panel, FIRST + 2, FIRST + 5, 1) == [2, 3, 4, 5]
    assert evaluated_rows(panel, FIRST + 200, FIRST + 400, 7) == []


def test_the_measures_are_those_of_the_common_sample():
    panel = made_up()
    rows = [170, 177]
    result = evaluate(panel, rows, [28], resamples=20)
    (h,) = result.horizons
    assert [str(d) for d in h.days] == [str(FIRST + r) for r in rows]
    ics = {name: [] for name in ("score", "score_1.0", *RULES)}
    sizes = []
    scores = {"score": SpanScore(panel), "score_1.0": FilterScore(panel)}
    for row in rows:
        values = {name: s.at(row) for name, s in scores.items()} | {name: r(panel, row) for name, r in RULES.items()}
        truth = realised_growth(panel.stars, row, 28)
        common = np.isfinite(truth) & np.all([np.isfinite(v) for v in values.values()], axis=0)
        sizes.append(common.sum())
        for name, v in values.items():
            ics[name].append(spearmanr(v[common], truth[common]).statistic)
    assert h.repos == np.mean(sizes)
    for name, expected in ics.items():
        assert h.rows[name]["ic"].value == pytest.approx(np.mean(expected))
    gap = h.differences["score", "ratio_90d"]["ic"].value
    assert gap == pytest.approx(np.mean(ics["score"]) - np.mean(ics["ratio_90d"]))


def test_a_forecast_is_measured_on_the_days_it_answers_and_asked_once_a_day_in_order():
    panel = made_up()
    rows = rows_of(panel, 120)
    oracle = Oracle(panel, silent_until=rows[3])
    result = evaluate(panel, rows, [7, 28], forecaster=oracle, resamples=20)
    assert oracle.asked == rows
    week, month = result.horizons
    assert week.rows["forecast"]["ic"].dates == 0
    assert "score" in week.rows
    assert month.rows["forecast"]["ic"].value == pytest.approx(1)
    assert month.rows["forecast"]["ic"].dates == len(month.days) - 3
    assert month.rows["score"]["ic"].dates == len(month.days)
    lead = month.differences["forecast", "score"]["ic"]
    assert lead.dates == len(month.days) - 3
    assert 0 < lead.value < 1
    assert ("score", "forecast") not in month.differences
    assert month.coverage["coverage_80"].value == 0
    assert month.coverage["coverage_95"].value == 1
    said = {day.row: day.forecast is not None for day in result.scored}
    assert [said.get(row) for row in rows[:5]] == [False, False, False, True, True]


def test_days_without_anybody_or_without_outcome_are_left_out():
    panel = made_up()
    result = evaluate(panel, [200, 207, 255], [7], resamples=20)
    assert [day.row for day in result.scored] == [207, 255]
    assert [str(d) for d in result.horizons[0].days] == [str(FIRST + 207)]


def test_a_day_with_fewer_than_thirty_outcomes_is_not_measured():
    stars = (100 + np.arange(60) * np.arange(160)[:, None]).astype(np.float32)
    for known, days in ((29, 0), (30, 1)):
        partly = stars.copy()
        partly[131:, known:] = np.nan
        panel = Panel(tuple(map(str, range(60))), FIRST, partly)
        assert len(evaluate(panel, [130], [7], resamples=5).horizons[0].days) == days


def test_the_version_asked_for_is_the_score_and_equal_seeds_give_equal_results():
    panel = made_up()
    rows = rows_of(panel, 150)
    one, two = (evaluate(panel, rows, [7], version=v, seed=3, resamples=50) for v in ("1.0", "1.1"))
    assert one.horizons[0].rows["score"] == two.horizons[0].rows["score_1.0"]
    assert one.horizons[0].rows["score_1.1"] == two.horizons[0].rows["score"]
    again = evaluate(panel, rows, [7], version="1.1", seed=3, resamples=50)
    assert to_dict(panel, again, every=7, seed=3) == to_dict(panel, two, every=7, seed=3)


def test_the_report_says_its_limits_and_holds_no_nan():
    panel = made_up()
    result = evaluate(panel, rows_of(panel, 150), [7, 90], resamples=20)
    said = "\n".join(list_limits(panel, result))
    assert "persists" in said
    assert "no precision at 100 can exceed 0.0" in said
    assert "fewer than two blocks" in said
    assert "no test" not in said
    before = Panel(panel.repos, np.datetime64("2022-01-03"), panel.stars, panel.forks)
    assert "2022-12-31" in "\n".join(list_limits(before, evaluate(before, [150], [7], resamples=5)))
    empty = evaluate(panel, [20], [28], resamples=5)
    assert "28 days: no day could be measured" in "\n".join(list_limits(panel, empty))

    def walk(value):
        if isinstance(value, dict):
            return [leaf for v in value.values() for leaf in walk(v)]
        return [value]

    for outcome in (result, empty):
        assert not [v for v in walk(to_dict(panel, outcome, every=7, seed=0)) if v != v]
