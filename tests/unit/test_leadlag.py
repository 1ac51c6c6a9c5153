"""The tests of lead and lag against independent references, and their size when nothing leads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from astrid.leadlag.alignment import (
    SEGMENT_STEP,
    Adoption,
    Series,
    changes,
    dummies,
    growth_on_grid,
    lagged,
)
from astrid.leadlag.correlation import autocorrelations, cross_correlations
from astrid.leadlag.forecasts import compare, diebold_mariano
from astrid.leadlag.power import simulate_power
from astrid.leadlag.regression import bandwidth, fit, granger, slope_of
from astrid.leadlag.resampling import block_length, bootstrap_slope, max_t, stationary_index
from tests.conftest import SEED

ONE = np.ones((40, 1))
PLACES = np.arange(40)


def autoregressive(rng, n, memory=0.3):
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for t in range(1, n):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * rng.standard_normal()
    return x


def monthly(share, *, segment=None, first="2022-01", **more):
    months = np.arange(np.datetime64(first), np.datetime64(first) + len(share))
    ends = (months + 1).astype("datetime64[D]") - 1
    number = np.zeros(len(share), np.int64) if segment is None else np.asarray(segment)
    return Adoption("t", ends, np.asarray(share, float), months.astype(np.int64), number, **more)


# --- the sample -----------------------------------------------------------------------------------------


def test_no_change_is_taken_across_a_break_or_a_hole():
    share = [0.03, 0.04, 0.05, np.nan, 0.10, 0.17, 0.18]
    found = changes(monthly(share, segment=[0, 0, 0, 0, 0, 1, 1]))
    logit = np.log(np.array(share) / (1 - np.array(share)))
    np.testing.assert_allclose(found.y, [logit[1] - logit[0], logit[2] - logit[1], logit[6] - logit[5]])
    assert found.segment.tolist() == [0, 0, 1]
    assert np.diff(found.position).tolist() == [1, SEGMENT_STEP + 4]
    left_out = Adoption("t", found.closed, np.array([0.1, 0.2, 0.3]), np.array([0, 1, 3]), np.zeros(3, np.int64))
    assert len(changes(left_out).y) == 1


def test_no_lag_reaches_into_another_segment():
    found = changes(monthly(np.linspace(0.1, 0.3, 8), segment=[0, 0, 0, 0, 1, 1, 1, 1]))
    assert np.isfinite(lagged(found.y, found.position, 1)).tolist() == [False, True, True, False, True, True]
    np.testing.assert_array_equal(dummies(found.segment).sum(axis=0), [3, 3])


def test_the_index_is_averaged_on_the_grid_of_publication():
    days = np.arange(np.datetime64("2021-06-01"), np.datetime64("2023-01-01"))
    rate = np.where(np.arange(len(days)) % 60 < 30, 0.002, 0.006)
    index = Series("i", days, np.exp(np.cumsum(rate)))
    grid = changes(monthly(np.linspace(0.1, 0.2, 12), delay_days=21))
    assert str(grid.closed[0]) == "2022-03-21"
    found = growth_on_grid(index, grid, 56)
    for k in range(len(grid.y)):
        inside = (days > grid.opened[k] - 56) & (days <= grid.closed[k] - 56)
        np.testing.assert_allclose(found[k], 7 * rate[inside].mean())


def test_nothing_that_was_not_known_yet_enters_the_grid():
    days = np.arange(np.datetime64("2021-06-01"), np.datetime64("2023-01-01"))
    value = np.exp(0.001 * np.arange(len(days)))
    grid = changes(monthly(np.linspace(0.1, 0.2, 12)))
    later = np.where(days > grid.closed[4] - 56, value * 2, value)
    before, after = (growth_on_grid(Series("i", days, v), grid, 56) for v in (value, later))
    np.testing.assert_array_equal(before[:5], after[:5])
    assert before[5] != after[5]


def test_an_index_with_a_gap_has_no_growth_there_and_a_coarse_one_is_not_stale():
    days = np.arange(np.datetime64("2021-06-01"), np.datetime64("2023-01-01"))
    grid = changes(monthly(np.linspace(0.1, 0.2, 12)))
    value = np.exp(0.001 * np.arange(len(days)))
    end = grid.closed[3]
    gap = np.where((days > end - 8) & (days < end + 5), np.nan, value)
    assert np.isnan(growth_on_grid(Series("i", days, gap), grid, 0)).tolist() == [False] * 3 + [True] * 2 + [False] * 6
    short = np.where((days > end - 7) & (days < end + 5), np.nan, value)
    assert np.isfinite(growth_on_grid(Series("i", days, short), grid, 0)).all()
    first = days.astype("datetime64[M]").astype("datetime64[D]") == days
    assert np.isfinite(growth_on_grid(Series("i", days[first], value[first]), grid, 0)).all()
    assert np.isnan(growth_on_grid(Series("i", days[:0], value[:0]), grid, 0)).all()


# --- regression -----------------------------------------------------------------------------------------


def reference_hac(x, residual, lags):
    """Newey and West, term by term."""
    n, k = x.shape
    meat = np.zeros((k, k))
    for s in range(n):
        for t in range(n):
            if abs(s - t) <= lags:
                weight = 1 - abs(s - t) / (lags + 1)
                meat += weight * residual[s] * residual[t] * np.outer(x[s], x[t])
    bread = np.linalg.inv(x.T @ x)
    return bread @ meat @ bread * n / (n - k)


@pytest.mark.parametrize("lags", [0, 1, 3])
def test_the_covariance_is_that_of_newey_and_west(lags):
    rng = np.random.default_rng(1)
    x = np.column_stack([autoregressive(rng, 40), np.ones(40)])
    y = 0.5 * x[:, 0] + autoregressive(rng, 40, 0.6)
    found = fit(x, y, PLACES, lags)
    np.testing.assert_allclose(found.hac, reference_hac(x, y - x @ found.beta, lags), rtol=1e-10)
    if lags == 0:
        return
    # Two stretches far apart are two blocks: what is between them adds nothing.
    apart = np.where(PLACES < 25, PLACES, PLACES + SEGMENT_STEP)
    parts = fit(x, y, apart, lags)
    bread = np.linalg.inv(x.T @ x)
    inner = np.zeros((2, 2))
    for part, m in ((slice(0, 25), 25), (slice(25, 40), 15)):
        own = x[part].T @ x[part]
        inner += own @ reference_hac(x[part], parts.residual[part], lags) @ own * (m - 2) / m
    np.testing.assert_allclose(parts.hac, bread @ inner @ bread * 40 / 38, rtol=1e-10)


def test_by_hand():
    """Four points, x = -1, 0, 0, 1 with a constant: slope (y4 - y1) / 2, its HAC variance from two residuals alone."""
    x = np.array([-1.0, 0, 0, 1])
    y = np.array([0.0, 1, 3, 4])
    found = fit(np.column_stack([x, np.ones(4)]), y, np.arange(4), lags=1)
    np.testing.assert_allclose(found.beta, [2, 2])
    np.testing.assert_allclose(found.residual, [0, -1, 1, 0], atol=1e-14)
    # Scores of the slope are x e = 0 everywhere, of the constant e: 2 + 2 (1/2) (-1) = 1, over 4 squared, times 4 / 2.
    np.testing.assert_allclose(found.hac, [[0, 0], [0, 2 / 16]], atol=1e-14)


def test_the_bandwidth_is_the_rule_of_thumb():
    assert [bandwidth(n) for n in (5, 24, 36, 86, 100, 400)] == [2, 2, 3, 3, 4, 5]


def test_a_segment_has_a_mean_of_its_own():
    rng = np.random.default_rng(2)
    segment = np.where(PLACES < 30, 0, 1)
    x = rng.standard_normal(40) + 5 * segment
    y = 0.3 * x + rng.standard_normal(40)
    position = PLACES + SEGMENT_STEP * segment
    same, shifted = (slope_of(x, y + shift * segment, dummies(segment), position) for shift in (0, 50))
    assert same.slope == pytest.approx(shifted.slope)
    assert same.t == pytest.approx(shifted.t)
    demeaned = [v - np.where(segment, v[30:].mean(), v[:30].mean()) for v in (x, y)]
    assert same.r == pytest.approx(np.corrcoef(*demeaned)[0, 1])
    assert same.p == pytest.approx(2 * stats.t.sf(abs(same.t), 37))
    assert same.p > 1e-6  # else any tail would do


def test_what_cannot_be_fitted_is_none():
    assert slope_of(np.ones(40), np.arange(40.0), ONE, PLACES) is None
    assert slope_of(np.full(40, np.nan), np.arange(40.0), ONE, PLACES) is None
    assert slope_of(np.arange(2.0), np.arange(2.0), ONE[:2], PLACES[:2]) is None
    assert granger(np.arange(5.0), np.arange(5.0), ONE[:5], PLACES[:5], 2) is None
    with pytest.raises(ValueError, match="2 observations for 2"):
        fit(np.ones((2, 2)), np.ones(2), np.arange(2))


@pytest.mark.parametrize("order", [1, 2])
def test_granger_is_the_f_test_of_two_nested_regressions(order):
    rng = np.random.default_rng(3)
    x = autoregressive(rng, 40)
    y = np.append(0, 0.5 * x[:-1]) + autoregressive(rng, 40)
    rows = range(order, 40)
    own = np.array([[y[t - k] for k in range(1, order + 1)] for t in rows])
    other = np.array([[x[t - k] for k in range(1, order + 1)] for t in rows])
    one = np.ones((len(rows), 1))

    def rest(columns):
        return float(np.linalg.lstsq(columns, y[order:], rcond=None)[1][0])

    full, part = np.hstack([own, other, one]), np.hstack([own, one])
    freedom = len(rows) - 2 * order - 1
    f = (rest(part) - rest(full)) / order / (rest(full) / freedom)
    found = granger(x, y, ONE, PLACES, order)
    assert (found.n, found.order) == (40 - order, order)
    assert found.f == pytest.approx(f)
    assert found.p_f == pytest.approx(stats.f.sf(f, order, freedom))
    beta = np.linalg.lstsq(full, y[order:], rcond=None)[0]
    cov = reference_hac(full, y[order:] - full @ beta, bandwidth(len(rows)))[order : 2 * order, order : 2 * order]
    w = beta[order : 2 * order] @ np.linalg.inv(cov) @ beta[order : 2 * order] / order
    assert found.w == pytest.approx(w)
    assert found.p_hac == pytest.approx(stats.f.sf(w, order, freedom))


# --- out of sample --------------------------------------------------------------------------------------


def test_diebold_and_mariano_by_hand():
    first, second = np.array([2.0, 1, 3, 0]), np.array([1.0, 1, 1, 1])
    d = np.array([3.0, 0, 8, -1])  # mean 2.5, variance (0.25 + 6.25 + 30.25 + 12.25) / 4 = 12.25
    dm = np.sqrt(3 / 4) * 2.5 / np.sqrt(12.25 / 4)
    found = diebold_mariano(first, second)
    assert found == pytest.approx((dm, stats.t.sf(dm, 3)))
    # Two steps ahead: autocovariance 1 is (0.5 * -2.5 - 2.5 * 5.5 - 5.5 * 3.5) / 4, correction (4 + 1 - 4 + 2 / 4) / 4.
    variance = 12.25 + 2 * (0.5 * -2.5 - 2.5 * 5.5 - 5.5 * 3.5) / 4
    assert variance < 0
    assert diebold_mariano(first, second, horizon=2) == (0.0, 0.5)
    d = np.array([1.0, 2, 3, 4, 0])
    dm = np.sqrt((5 + 1 - 4 + 2 / 5) / 5) * 2 / np.sqrt((2 + 2 * (0 + 0 + 2 - 4) / 5) / 5)
    assert diebold_mariano(np.sqrt(d), np.zeros(5), horizon=2)[0] == pytest.approx(dm)
    assert diebold_mariano(first, first) == (0.0, 0.5)


def test_forecasts_use_the_past_alone():
    rng = np.random.default_rng(4)
    x, y = autoregressive(rng, 40), autoregressive(rng, 40)
    found = compare(x, y, ONE, PLACES)
    errors = []
    for now in range(13, 40):
        past = slice(1, now)
        both = []
        for columns in ([y[:-1]], [y[:-1], x[1:]]):
            design = np.column_stack([*columns, np.ones(39)])
            beta = np.linalg.lstsq(design[: now - 1], y[past], rcond=None)[0]
            both.append(y[now] - design[now - 1] @ beta)
        errors.append(both)
    plain, helped = np.array(errors).T
    assert found.n == 27
    assert found.rmse_ar == pytest.approx(np.sqrt((plain**2).mean()))
    assert found.ratio == pytest.approx(np.sqrt((helped**2).mean() / (plain**2).mean()))
    assert (found.dm, found.p) == pytest.approx(diebold_mariano(plain, helped))


def test_a_new_segment_is_forecast_only_once_its_mean_can_be_known():
    rng = np.random.default_rng(5)
    segment = np.where(PLACES < 30, 0, 1)
    position = PLACES + SEGMENT_STEP * segment
    found = compare(autoregressive(rng, 40), autoregressive(rng, 40), dummies(segment), position)
    # 29 + 9 changes with a predecessor, 12 of them for training, and the first of the second segment.
    assert found.n == 38 - 12 - 1
    assert compare(autoregressive(rng, 20), autoregressive(rng, 20), ONE[:20], PLACES[:20]) is None


# --- correlation, bootstrap, power ------------------------------------------------------------------------


def test_cross_correlations_and_bartletts_band():
    rng = np.random.default_rng(6)
    x = autoregressive(rng, 40, 0.7)
    y = np.append([0, 0], x[:-2]) + 0.1 * autoregressive(rng, 40, 0.7)
    found = {c.lag: c for c in cross_correlations(x, y, np.zeros(40), PLACES, range(-6, 7))}
    assert max(found, key=lambda lag: found[lag].r) == 2
    assert found[2].n == 38
    cx, cy = x - x.mean(), y - y.mean()
    assert found[2].r == pytest.approx(np.corrcoef(cx[:-2], cy[2:])[0, 1])
    rho = [(c[:-1] @ c[1:]) / (c @ c) for c in (cx, cy)]
    assert [autocorrelations(c, PLACES, 1)[0] for c in (cx, cy)] == pytest.approx(rho)
    product = sum(float(autocorrelations(cx, PLACES, 9)[j] * autocorrelations(cy, PLACES, 9)[j]) for j in range(9))
    assert found[2].band == pytest.approx(1.96 * np.sqrt((1 + 2 * product) / 38))
    assert found[2].band > 1.96 / np.sqrt(38)


def test_blocks_are_geometric_and_go_round():
    rng = np.random.default_rng(7)
    index = stationary_index(100_000, 4.0, rng)
    following = (np.diff(index) == 1) | (np.diff(index) == 1 - 100_000)
    assert following.mean() == pytest.approx(0.75, abs=0.01)
    assert np.bincount(index, minlength=100_000).max() < 12
    assert block_length(24) == pytest.approx(24 ** (1 / 3))
    assert block_length(3) == 2


def test_a_slope_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(8)
    x = autoregressive(rng, 40)
    y = 0.8 * x + 0.5 * autoregressive(rng, 40)
    found = bootstrap_slope(x, y, ONE, PLACES, rng, 199)
    assert found.p == 1 / 200
    assert found.low < 0.8 < found.high
    slopes, adjusted = max_t(np.column_stack([autoregressive(rng, 40), x]), y, ONE, PLACES, rng, 199)
    assert adjusted[1] == 1 / 200
    assert adjusted[0] >= slopes[0].p  # a search costs


def test_power_is_that_of_the_specification():
    """One registered lag: 82 % with 36 changes, 62 % with 24, 97 % with 60 (design figures, R² = 0.25)."""
    rng = np.random.default_rng(SEED)
    found = {n: simulate_power(n, 0.25, rng) for n in (24, 36, 60)}
    for n, one in ((24, 0.62), (36, 0.82), (60, 0.97)):
        assert found[n].one_lag == pytest.approx(one, abs=0.04)
        assert found[n].searched < found[n].one_lag - 0.05
    assert found[36].critical_r == pytest.approx(0.37, abs=0.03)
    assert simulate_power(36, 0.0, rng).one_lag == pytest.approx(0.05, abs=0.02)


def test_size_when_nothing_leads():
    """At 36 changes of memory 0.3 a test at 5 % must not reject much more; HAC in so few changes does somewhat."""
    rng = np.random.default_rng(SEED)
    runs, n = 600, 36
    hits = {"hac": 0, "f": 0, "granger hac": 0, "dm": 0}
    for _ in range(runs):
        x, y = autoregressive(rng, n), autoregressive(rng, n)
        hits["hac"] += slope_of(x, y, ONE[:n], PLACES[:n]).p <= 0.05
        found = granger(x, y, ONE[:n], PLACES[:n], 2)
        hits["f"] += found.p_f <= 0.05
        hits["granger hac"] += found.p_hac <= 0.05
        hits["dm"] += compare(x, y, ONE[:n], PLACES[:n]).p <= 0.10
    share = {name: count / runs for name, count in hits.items()}
    assert 0.02 <= share["f"] <= 0.08, share
    assert 0.02 <= share["hac"] <= 0.13, share
    assert share["granger hac"] <= 0.20, share
    assert share["dm"] <= 0.10, share


def test_size_of_the_bootstrap_and_of_the_search():
    rng = np.random.default_rng(SEED + 1)
    runs, n = 100, 36
    alone = search = 0
    for _ in range(runs):
        x, y = autoregressive(rng, n), autoregressive(rng, n)
        alone += bootstrap_slope(x, y, ONE[:n], PLACES[:n], rng, 39).p <= 0.05
        columns = np.column_stack([np.roll(x, k) for k in range(4)])
        search += min(max_t(columns, y, ONE[:n], PLACES[:n], rng, 39)[1]) <= 0.05
    assert alone <= 0.13 * runs
    assert search <= 0.13 * runs
