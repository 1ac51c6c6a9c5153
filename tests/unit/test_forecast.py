"""The learned forecast: nothing from the future, nothing from the order of repositories, bands that hold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from astrid.errors import ConfigError
from astrid.evaluation.targets import realised_growth
from astrid.forecast.attention import LAG, QUIET_MAX, WINDOWS, Appearances
from astrid.forecast.calibration import conformal_quantiles
from astrid.forecast.features import FeatureWalk
from astrid.forecast.model import PROBABILITIES, fit, from_z, group_columns, to_z
from astrid.forecast.shipped import forecast_rows, load, save
from astrid.forecast.trees import Trees, export, from_arrays
from astrid.forecast.walk import TOLERANCE, WalkForward, realised

FIRST = np.datetime64("2024-01-01")
BOUNDS = ("lo95", "lo80", "median", "hi80", "hi95")


def counts(days=260, n=90, seed=1):
    """Stars and forks that grow at lasting rates, with noise, gaps, late births and defects."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(1.0, 1.2, n))
    daily = rng.poisson(rate * np.exp(rng.normal(0, 0.3, (days, n))))
    stars = (rng.integers(200, 9000, n) + np.cumsum(daily, axis=0)).astype(np.float32)
    forks = np.floor(stars / 7)
    stars[rng.random(stars.shape) < 0.05] = np.nan
    for c in range(0, n, 6):
        stars[: rng.integers(10, 120), c] = np.nan
    stars[:, 1] = np.nan
    stars[:-1, 2] = np.nan
    stars[-1, 2] = 500
    stars[:, 3] = 777
    stars[:, 4] = 3e14
    forks[np.isnan(stars)] = np.nan
    return stars, forks.astype(np.float32)


def appearances(days, n, seed=5):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, days, 300))
    return Appearances("hn", rows, rng.integers(-1, n, 300), rng.integers(1, 30, 300).astype(np.float32))


def walk(stars, forks, attention=(), **options):
    return WalkForward(stars, forks, FIRST, attention, **({"horizons": (7, 28)} | options))


def stacked(found):
    return {h: np.stack([getattr(q, b) for b in BOUNDS]) for h, q in found.items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for h in a:
        np.testing.assert_array_equal(a[h], b[h])


# --- features -----------------------------------------------------------------------------------------


def test_features_know_nothing_of_later_days():
    stars, forks = counts()
    seen = appearances(*stars.shape)
    whole = FeatureWalk(stars, forks, FIRST, [seen])
    rng = np.random.default_rng(0)
    for row in (3, 100, 181, 202):
        later = stars.copy()
        later[row + 1 :] = rng.integers(1, 1e6, later[row + 1 :].shape)
        later_forks = forks.copy()
        later_forks[row + 1 :] = np.nan
        kept = seen.rows <= row - LAG
        extra = np.concatenate([seen.rows[kept], np.arange(row, row + 90)])
        columns = np.concatenate([seen.columns[kept], np.arange(90)])
        ranks = np.concatenate([seen.ranks[kept], np.ones(90, np.float32)])
        changed = FeatureWalk(later, later_forks, FIRST, [Appearances("hn", extra, columns, ranks)])
        a, b = whole.at(row), changed.at(row)
        np.testing.assert_array_equal(a.columns, b.columns)
        np.testing.assert_array_equal(a.values, b.values)


def test_features_do_not_depend_on_the_days_that_were_asked_for_before():
    stars, forks = counts()
    often = FeatureWalk(stars, forks, FIRST)
    for row in range(0, 230, 7):
        often.at(row)
    np.testing.assert_array_equal(often.at(230).values, FeatureWalk(stars, forks, FIRST).at(230).values)


def test_growth_features_are_growth_per_day_also_over_a_gap():
    stars = 1e6 * np.exp(0.01 * np.arange(300))[:, None] * np.ones((1, 2)) - 10
    stars[250:262, 1] = np.nan  # 14 days before row 270 is in the gap
    walked = FeatureWalk(stars.astype(np.float32), None, FIRST)
    values = dict(zip(walked.names, walked.at(270).values.T, strict=True))
    for span in (7, 14, 28, 90, 180):
        np.testing.assert_allclose(values[f"grown_{span}d"], 0.01, rtol=1e-4)
    np.testing.assert_allclose(values["week_median"], 0.07, rtol=1e-3)
    np.testing.assert_allclose(values["lifetime"], 0.01, rtol=1e-4)
    assert (values["age"] == 270).all()
    assert np.isnan(values["grown_365d"]).all()


def test_odd_series_have_defined_features():
    stars, forks = counts()
    day = FeatureWalk(stars, forks, FIRST).at(len(stars) - 1)
    assert 1 not in day.columns
    assert {2, 3} <= set(day.columns.tolist())
    assert not np.isinf(day.values).any()
    walked = FeatureWalk(stars, forks, FIRST)
    values = dict(zip(walked.names, walked.at(len(stars) - 1).values.T, strict=True))
    constant = list(day.columns).index(3)
    assert values["grown_28d"][constant] == 0 == values["slow"][constant] == values["week_spread"][constant]
    newborn = list(day.columns).index(2)
    assert values["age"][newborn] == 0
    assert np.isnan(values["grown_1d"][newborn])


def test_days_must_ascend():
    stars, forks = counts(days=60)
    walked = FeatureWalk(stars, forks, FIRST)
    walked.at(30)
    with pytest.raises(ValueError, match="ascend"):
        walked.at(30)


def test_appearances_are_counted_in_trailing_windows_one_day_late():
    seen = Appearances(
        "hn", np.array([10, 40, 90, 95, 100]), np.array([0, 0, -1, 0, -1]), np.array([5, 2, 1, 9, 1], np.float32)
    )
    at = dict(zip(seen.names, seen.at(96, 2), strict=True))
    assert [at[f"hn_{w}d"].tolist() for w in WINDOWS] == [[1, 0], [1, 0], [3, 0]]
    assert at["hn_since"][0] == 1
    assert at["hn_best"][0] == 2
    assert np.isnan(at["hn_since"][1])
    assert dict(zip(seen.names, seen.at(95, 2), strict=True))["hn_7d"][0] == 0
    assert np.isnan(seen.at(100 + LAG + QUIET_MAX + 1, 2)).all()
    assert not np.isnan(seen.at(100 + LAG + QUIET_MAX, 2)[:3]).any()


# --- target, map and calibration -----------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [7, 28, 90])
def test_the_target_is_the_one_that_is_evaluated(horizon):
    stars, _ = counts()
    for row in (50, 200, 255):
        here = np.flatnonzero(~np.isnan(stars[row]))
        np.testing.assert_allclose(
            realised(stars, row, here, horizon), realised_growth(stars, row, horizon)[here], rtol=1e-12, atol=1e-12
        )


def test_the_map_of_growth_leads_back():
    growth = np.array([-0.5, -1e-4, 0, 1e-5, 0.3, 4.0])
    np.testing.assert_allclose(from_z(to_z(growth, 28), 28), growth, rtol=1e-12)


@pytest.mark.parametrize("n", [60, 500])
def test_bands_hold_new_exchangeable_errors_as_often_as_said(n):
    rng = np.random.default_rng(8)
    inside80, inside95 = [], []
    for _ in range(4000):
        errors = rng.standard_t(3, n + 1) ** 3 + 0.4
        q = conformal_quantiles(errors[:-1], PROBABILITIES)
        inside80.append(q[1] <= errors[-1] <= q[3])
        inside95.append(q[0] <= errors[-1] <= q[4])
    assert 0.80 - 0.02 <= np.mean(inside80) <= 0.80 + 2.5 / n + 0.02
    assert 0.95 - 0.01 <= np.mean(inside95) <= 0.95 + 2.5 / n + 0.01


def test_bounds_are_the_ranked_errors_of_split_conformal_prediction():
    errors = np.arange(1.0, 40)[::-1]
    assert conformal_quantiles(errors, PROBABILITIES).tolist() == [1, 4, 20, 36, 39]
    with pytest.raises(ValueError, match="no errors"):
        conformal_quantiles(np.zeros(0), PROBABILITIES)


# --- the walk ------------------------------------------------------------------------------------------


def test_nothing_is_said_before_anything_is_realised():
    stars, forks = counts()
    w = walk(stars, forks)
    assert w.forecast(20) == {}
    assert w.vintage(7) is None


def test_forecasts_know_nothing_of_later_days_and_all_is_realised():
    stars, forks = counts()
    rng = np.random.default_rng(2)
    row = 199
    later, later_forks = stars.copy(), forks.copy()
    later[row + 1 :] = rng.integers(1, 1e6, later[row + 1 :].shape)
    later_forks[row + 1 :] = np.nan
    a, b = walk(stars, forks), walk(later, later_forks)
    found = stacked(a.forecast(row))
    assert found.keys() == {7, 28}
    assert_equal(found, stacked(b.forecast(row)))
    assert all(v is not None and v <= row for v in (a.vintage(7), a.vintage(28)))
    # Cutting the panel off at the day says the same: not even a look at later rows' absence.
    assert_equal(found, stacked(walk(stars[: row + 1], forks[: row + 1]).forecast(row)))


def test_a_pair_is_learned_from_only_once_it_is_realised(monkeypatch):
    stars, forks = counts()
    now, asked = [-1], []

    class Watched(WalkForward):
        def _step(self, day):
            now[0] = day.row
            super()._step(day)

    def spy(block, row, columns, horizon):
        asked.append((row, horizon, now[0]))
        return realised(block, row, columns, horizon)

    monkeypatch.setattr("astrid.forecast.walk.realised", spy)
    w = Watched(stars, forks, FIRST, horizons=(7, 28))
    now[0] = w._phase
    w.forecast(w._phase + 7 * 28)
    assert {horizon for _, horizon, _ in asked} == {7, 28}
    assert all(then + horizon + TOLERANCE <= day for then, horizon, day in asked)
    assert min(day - then - horizon for then, horizon, day in asked) < 7 + TOLERANCE


def test_permuted_repositories_have_permuted_forecasts():
    stars, forks = counts()
    order = np.random.default_rng(4).permutation(stars.shape[1])
    a = stacked(walk(stars, forks).forecast(200))
    b = stacked(walk(stars[:, order], forks[:, order]).forecast(200))
    for h in a:
        np.testing.assert_allclose(a[h][:, order], b[h], rtol=1e-9)


def test_equal_seeds_give_equal_forecasts_and_bounds_do_not_cross():
    stars, forks = counts()
    seen = [appearances(*stars.shape)]
    a = walk(stars, forks, seen)
    found = stacked(a.forecast(200))
    assert_equal(found, stacked(walk(stars, forks, seen).forecast(200)))
    here = ~np.isnan(stars[200])
    for bounds in found.values():
        assert np.isnan(bounds[:, ~here]).all()
        assert np.isfinite(bounds[:, here]).all()
        assert (np.diff(bounds[:, here], axis=0) >= 0).all()
        assert (bounds[0, here] < bounds[4, here]).all()


def test_lasting_growth_is_found_and_stars_alone_suffice():
    stars, _ = counts(days=300, n=120)
    median = walk(stars, None).forecast(230)[28].median
    grown = realised_growth(stars, 230, 28)
    both = np.isfinite(median) & np.isfinite(grown)
    assert np.corrcoef(np.argsort(np.argsort(median[both])), np.argsort(np.argsort(grown[both])))[0, 1] > 0.8


def test_an_empty_panel_day_has_no_forecast_but_is_no_error():
    stars, forks = counts()
    stars[200], forks[200] = np.nan, np.nan
    for bounds in stacked(walk(stars, forks).forecast(200)).values():
        assert np.isnan(bounds).all()


# --- a model in a file ---------------------------------------------------------------------------------


def test_a_model_in_a_file_says_what_the_walk_said(tmp_path):
    stars, forks = counts()
    seen = [appearances(*stars.shape)]
    w = walk(stars, forks, seen)
    said = w.forecast(200)
    frozen = w.freeze()
    save(frozen, tmp_path / "model.npz")
    read = load(tmp_path / "model.npz")
    assert read.name == frozen.name
    assert FIRST < read.vintage <= FIRST + 200
    assert all(isinstance(m.location, Trees) and isinstance(m.scale, Trees) for m in read.models.values())
    day, found = forecast_rows(read, FeatureWalk(stars, forks, FIRST, seen), 200)
    for h in (7, 28):
        for bound in BOUNDS:
            np.testing.assert_allclose(
                getattr(found[h], bound), getattr(said[h], bound)[day.columns], rtol=1e-9, atol=1e-15
            )
    # The same file serves panels without forks and appearances.
    _, bare = forecast_rows(read, FeatureWalk(stars, None, FIRST), 200)
    assert np.isfinite(bare[28].median).all()


def test_exported_trees_equal_scikit_learn_also_where_features_are_missing():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(3000, 5)).astype(np.float32)
    y = x[:, 0] * np.nan_to_num(x[:, 1]) + (x[:, 2] > 0) + rng.normal(0, 0.1, 3000)
    x[rng.random(x.shape) < 0.2] = np.nan
    y += np.isnan(x[:, 3])
    fitted = HistGradientBoostingRegressor(max_iter=40, random_state=0).fit(x, y)
    trees = export(fitted)
    np.testing.assert_allclose(trees.predict(x), fitted.predict(x), rtol=1e-10, atol=1e-12)
    on_thresholds = np.resize(trees.threshold[trees.feature >= 0], (200, 5)).astype(np.float32)
    np.testing.assert_allclose(trees.predict(on_thresholds), fitted.predict(on_thresholds), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="out of its"):
        from_arrays(trees.arrays() | {"left": trees.left + len(trees.left)})


def test_a_file_that_is_no_model_is_refused(tmp_path):
    for name, content in (("text.npz", b"no model"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="no model of the forecast"):
            load(tmp_path / name)
    with pytest.raises(ConfigError, match="no model of the forecast"):
        load(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="nothing was learned"):
        walk(*counts(days=30)).freeze()


# --- the model -----------------------------------------------------------------------------------------


def test_a_feature_that_nobody_has_is_left_out_and_explanations_name_what_matters():
    rng = np.random.default_rng(3)
    names = ("level", "grown_28d", "forks_28d", "hn_7d")
    x = rng.normal(size=(2000, 4)).astype(np.float32)
    x[:, 3] = np.nan
    model = fit(x, 0.02 * x[:, 1].astype(float), names, 28, vintage=9, seed=0)
    assert model.used.tolist() == [0, 1, 2]
    errors = np.array([-2.0, -1, 0, 1, 2])
    told = model.explain(x[:200], errors)
    assert set(told) == {"size and age", "growth of months", "forks", "Hacker News"}
    assert (told["Hacker News"] == 0).all()
    assert np.abs(told["growth of months"]).mean() > 8 * np.abs(told["forks"]).mean()
    assert np.corrcoef(told["growth of months"], x[:200, 1])[0, 1] > 0.95


def test_every_feature_has_a_group():
    stars, forks = counts(days=10)
    names = FeatureWalk(stars, forks, FIRST, [appearances(10, 90)]).names
    assert sorted(c for columns in group_columns(names).values() for c in columns) == list(range(len(names)))
    with pytest.raises(ValueError, match="weather"):
        group_columns(["weather"])
