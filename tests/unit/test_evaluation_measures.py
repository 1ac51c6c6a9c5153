"""Measures against scipy, against enumeration and by hand; the bootstrap; targets and baselines on a small panel."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from astrid.evaluation.baselines import RULES, ratio
from astrid.evaluation.bootstrap import block_dates, draw_weights, estimate
from astrid.evaluation.measures import MEASURES, decile_spread, hits, measure, spearman, top_mask
from astrid.evaluation.panel import Panel
from astrid.evaluation.targets import count_after, count_before, realised_growth

NAN = float("nan")
FEW = st.integers(-3, 3).map(float)


def panel_of(stars, forks=None) -> Panel:
    block = np.asarray(stars, np.float32)
    return Panel(
        tuple(f"r/{i}" for i in range(block.shape[1])),
        np.datetime64("2024-01-01"),
        block,
        None if forks is None else np.asarray(forks, np.float32),
    )


# --- measures ---------------------------------------------------------------------------------------


@given(arrays(np.float64, (3, 12), elements=FEW), arrays(np.float64, 12, elements=FEW))
def test_ic_is_the_rank_correlation_of_scipy(predictors, realised):
    assume(len(set(realised)) > 1 and all(len(set(row)) > 1 for row in predictors))
    expected = [spearmanr(row, realised).statistic for row in predictors]
    np.testing.assert_allclose(spearman(predictors, realised), expected, atol=1e-12)


def test_ic_of_a_constant_is_not_known():
    assert np.isnan(spearman(np.ones((1, 5)), np.arange(5.0)))[0]
    assert np.isnan(spearman(np.arange(5.0)[None], np.ones(5)))[0]


@given(arrays(np.float64, 7, elements=FEW), arrays(np.bool_, 7), st.integers(0, 9))
def test_hits_are_the_mean_over_all_lists_that_the_ties_allow(values, marked, picks):
    size = min(picks, 7)
    best = max((sum(values[list(c)]) for c in combinations(range(7), size)), default=0)
    allowed = [c for c in combinations(range(7), size) if sum(values[list(c)]) == best]
    expected = np.mean([np.count_nonzero(marked[list(c)]) for c in allowed])
    assert hits(values[None], marked, picks)[0] == pytest.approx(expected)


def test_the_top_is_the_largest_values_and_those_equal_to_the_last():
    assert top_mask(np.array([3.0, 1.0, 3.0, 5.0, 0.0]), 2).tolist() == [True, False, True, True, False]
    assert not top_mask(np.arange(3.0), 0).any()


def test_decile_spread_is_the_first_tenth_minus_the_last():
    realised = np.arange(40.0) ** 2
    expected = realised[-4:].mean() - realised[:4].mean()
    assert decile_spread(np.array([np.arange(40.0), -np.arange(40.0)]), realised) == pytest.approx(
        [expected, -expected]
    )
    assert np.isnan(decile_spread(np.ones((1, 40)), realised))[0]


def test_all_measures_of_a_day_by_hand():
    # 200 repositories: the top 5 % are 10, today's top 10 % are 20.
    realised = np.arange(200.0)
    recent = realised.copy()
    recent[[198, 199]] = -1  # two of the coming ten are not hot today; 178 and 179 are hot in their place
    seer = realised.copy()
    blind = -realised
    found = measure(np.stack([seer, blind]), realised, recent)
    got = [dict(zip(MEASURES, row, strict=True)) for row in found.table]
    assert (found.repos, found.eligible, found.chance, found.new_chance) == (200, 180, 0.05, 2 / 180)
    assert got[0] == pytest.approx(
        {
            "ic": 1,
            "precision_at_100": 0.10,
            "precision_at_top": 1,
            "decile_spread": 180,
            "new_precision_at_100": 0.02,
            "new_recall": 1,
            "new_false_alarm": 98 / 178,
        }
    )
    assert got[1] == pytest.approx(
        {
            "ic": -1,
            "precision_at_100": 0,
            "precision_at_top": 0,
            "decile_spread": -180,
            "new_precision_at_100": 0,
            "new_recall": 0,
            "new_false_alarm": 100 / 178,
        }
    )


def test_the_hundred_and_first_is_no_pick():
    n = 400
    realised, recent = np.zeros(n), np.arange(float(n))
    order = -np.arange(float(n))  # repository 0 is named first
    realised[100:120] = 1  # the top 5 %, none of them hot today
    for first, expected in ((100, 0.0), (99, 0.01)):
        shifted = np.roll(realised, first - 100)
        found = dict(zip(MEASURES, measure(order[None], shifted, recent).table[0], strict=True))
        assert found["precision_at_100"] == found["new_precision_at_100"] == pytest.approx(expected)


def test_without_a_new_breakout_recall_is_not_known():
    x = np.arange(60.0)
    found = dict(zip(MEASURES, measure(x[None], x, x).table[0], strict=True))
    assert math.isnan(found["new_recall"])
    assert found["new_precision_at_100"] == 0


@given(st.permutations(range(40)), arrays(np.float64, (2, 40), elements=FEW), arrays(np.float64, 40, elements=FEW))
def test_the_order_of_the_repositories_does_not_matter(order, predictors, realised):
    recent = np.cos(np.arange(40.0))
    mixed = measure(predictors[:, order], realised[order], recent[order])
    np.testing.assert_allclose(mixed.table, measure(predictors, realised, recent).table, atol=1e-12)


# --- the bootstrap ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("horizon", "every", "dates"), [(7, 7, 8), (28, 7, 8), (90, 7, 26), (28, 1, 56), (90, 1, 182)])
def test_a_block_is_eight_weeks_and_twice_the_horizon(horizon, every, dates):
    assert block_dates(horizon, every) == dates


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 2**31))
def test_a_resample_has_as_many_dates_as_there_are(dates, block, seed):
    weights = draw_weights(dates, block, 5, np.random.default_rng(seed))
    assert weights.shape == (5, dates)
    assert (weights.sum(axis=1) == dates).all()


def test_resamples_are_blocks_of_a_circle_cut_to_length():
    class Drawn:
        def integers(self, low, high, shape):
            assert (low, high, shape) == (0, 10, (2, 2))
            return np.array([[8, 2], [0, 6]])

    weights = draw_weights(10, 6, 2, Drawn())
    assert weights.tolist() == [[1, 1, 2, 2, 1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]


@given(st.floats(-1e3, 1e3), st.integers(16, 60), st.integers(0, 99))
def test_the_interval_of_a_constant_has_no_width(value, dates, seed):
    column = np.full((dates, 1), value)
    column[3] = NAN
    found = estimate(column, draw_weights(dates, 7, 50, np.random.default_rng(seed)), 7)[0]
    assert (found.value, found.lo, found.hi, found.dates) == (value, value, value, dates - 1)


def test_the_interval_of_independent_dates_is_the_normal_one():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (400, 2))
    values[:, 1] += 5
    found = estimate(values, draw_weights(400, 1, 4000, rng), 1)
    for e, column in zip(found, values.T, strict=True):
        assert e.value == pytest.approx(column.mean())
        assert (e.hi - e.lo) == pytest.approx(2 * 1.96 * column.std() / 20, rel=0.06)
        assert e.lo < e.value < e.hi


def test_dependent_dates_widen_the_interval_only_in_blocks():
    wave = np.repeat(np.random.default_rng(2).normal(0, 1, 50), 8)[:, None]
    widths = [
        e.hi - e.lo
        for block in (1, 16)
        for e in estimate(wave, draw_weights(400, block, 2000, np.random.default_rng(3)), block)
    ]
    assert widths[1] > 2 * widths[0]


def test_dates_without_a_value_weigh_nothing():
    values = np.random.default_rng(5).normal(10, 0.1, (200, 1))
    values[0] = 0
    values[1::2] = NAN
    (found,) = estimate(values, draw_weights(200, 4, 1000, np.random.default_rng(6)), 4)
    assert found.value == pytest.approx(9.9, abs=0.05)
    assert found.lo < found.value < found.hi
    assert found.hi - found.lo < 0.8


def test_a_difference_is_paired():
    rng = np.random.default_rng(4)
    common = rng.normal(0, 5, 100)
    a, b = common + 1 + rng.normal(0, 0.01, 100), common
    own, pair = estimate(np.column_stack([a, a - b]), draw_weights(100, 8, 500, rng), 8)
    assert pair.value == pytest.approx(1, abs=0.01)
    assert pair.hi - pair.lo < 0.01 < own.hi - own.lo


def test_too_few_dates_have_no_interval_and_none_no_mean():
    weights = draw_weights(15, 8, 50, np.random.default_rng(0))
    few, none = estimate(np.column_stack([np.arange(15.0), np.full(15, NAN)]), weights, 8)
    assert few.value == 7
    assert math.isnan(few.lo)
    assert math.isnan(few.hi)
    assert math.isnan(none.value)
    assert none.dates == 0


# --- targets and baselines --------------------------------------------------------------------------


def test_a_look_up_tolerates_three_days_and_not_a_fourth():
    counts = np.array([[1], [NAN], [NAN], [NAN], [5], [NAN], [NAN], [8]], np.float32)
    assert [count_before(counts, row)[0] for row in (-1, 0, 3, 4)] == pytest.approx([NAN, 1, 1, 5], nan_ok=True)
    assert count_before(counts[1:], 2)[0] != 1
    assert [count_after(counts, row)[0] for row in (1, 4, 5, 7, 8)] == pytest.approx([5, 5, 8, 8, NAN], nan_ok=True)
    gap = np.array([[1], [NAN], [NAN], [NAN], [NAN], [6]], np.float32)
    assert np.isnan([count_before(gap, 4)[0], count_after(gap, 1)[0]]).all()


def test_the_target_is_the_log_growth_to_the_first_day_that_is_there():
    stars = np.full((12, 3), NAN)
    stars[0] = [90, 90, NAN]
    stars[7:] = 190  # the day itself
    stars[7:9, 1] = NAN  # comes two days late
    stars[9, 1] = 90
    assert realised_growth(stars.astype(np.float32), 0, 7) == pytest.approx([math.log(2), 0, NAN], nan_ok=True)
    assert np.isnan(realised_growth(stars.astype(np.float32), 7, 28)).all()
    assert np.isnan(realised_growth(stars.astype(np.float32), 2, 7)).all()  # seen two days before, not on the day


def test_the_baselines_by_hand():
    days = np.arange(101.0)
    stars = np.column_stack([1000 + 10 * days, 100 + days, np.full(101, 50.0)])
    stars[10, 0] = NAN  # 90 days ago: the day before stands in
    forks = np.column_stack([2 * days, np.zeros(101), np.full(101, NAN)])
    panel = panel_of(stars, forks)
    got = {name: rule(panel, 100) for name, rule in RULES.items()}
    assert got["ratio_90d"] == pytest.approx([2000 / 1090, 200 / 110, 1])
    assert got["growth_90d"] == pytest.approx([math.log(2010 / 1100), math.log(210 / 120), 0])
    assert got["growth_28d"] == pytest.approx([math.log(2010 / 1730), math.log(210 / 182), 0])
    assert got["growth_7d"] == pytest.approx([math.log(2010 / 1940), math.log(210 / 203), 0])
    assert got["gained_7d"] == pytest.approx([70, 7, 0])
    assert got["total"] == pytest.approx([2000, 200, 50])
    star = sum(min(max(3 * k / 30, 2), 5) for k in range(1, 31))
    fork = sum(min(max(3 * k / 30, 1), 4) for k in range(1, 31))
    aged = 200 / (1 + 100 / 365.25)
    assert got["oss_insight_like"] == pytest.approx([10 * star + 2 * fork + aged, star + aged, aged])


def test_a_ratio_to_nothing_is_not_known_and_a_month_with_gaps_loses_no_star():
    stars = np.zeros((40, 1))
    stars[39] = 5
    assert np.isnan(ratio(28)(panel_of(stars), 39))[0]
    dip = np.full((40, 1), 100.0)
    dip[20:25] = 90
    assert RULES["oss_insight_like"](panel_of(dip), 39)[0] == pytest.approx(10 * 2 + 200 / (1 + 39 / 365.25))
    steady = 100.0 + np.arange(40)[:, None]
    steady[20:30] = NAN
    with_gap = RULES["oss_insight_like"](panel_of(steady), 39)[0]
    aged = 200 / (1 + 39 / 365.25)
    assert with_gap - aged == pytest.approx(2 * 10 + 2.1 * 11 + sum(0.1 * k for k in range(22, 31)))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_reads_no_later_day(rule):
    rng = np.random.default_rng(5)
    stars = np.cumsum(rng.poisson(5, (130, 6)), axis=0).astype(float)
    changed = stars.copy()
    changed[111:] = rng.poisson(900, (19, 6))
    changed[115, 2] = NAN
    before, after = panel_of(stars, stars / 2), panel_of(changed, changed / 2)
    np.testing.assert_array_equal(RULES[rule](before, 110), RULES[rule](after, 110))
