"""The composite: percentiles, exact contributions, flags, weights, intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrid.catalog import METRICS
from astrid.scoring.kernels import run
from astrid.scoring.score import (
    PRIOR_WEIGHT,
    Q80,
    nominal_weights,
    peer_percentile,
    percentile,
    score_day,
)
from astrid.scoring.series import FLOW, SILENT_DAYS_MAX, STOCK, UNSEEN, Flag, Signal

N = 60


def signal(growth, *, kind="stock", **arrays):
    """A signal with the given slow growth and quiet everything else; NaN growth is an entity without the source."""
    growth = np.asarray(growth, dtype=np.float32)
    n = len(growth)
    none = np.isnan(growth)

    def column(value):
        return np.where(none, np.nan, value).astype(np.float32)

    values = {
        "level": column(np.linspace(5, 9, n)),
        "growth_slow": growth,
        "growth_fast": growth.copy(),
        "last_week": growth.copy(),
        "z": column(0.0),
        "z_week": column(0.0),
        "se": column(0.01),
        "se_counting": column(0.0),
        "sustain": column(1.0),
        "updates": np.where(none, 0, 9).astype(np.uint8),
        "flags": np.zeros(n, np.uint16),
        "silent_days": np.where(none, UNSEEN, 0).astype(np.uint16),
    }
    for name, value in arrays.items():
        values[name] = np.array(np.broadcast_to(value, n), dtype=values[name].dtype)
    return Signal(kind, STOCK.tau if kind == "stock" else FLOW.tau, **values)


def rising(n=N):
    return np.linspace(-0.05, 0.2, n)


def shuffled(seed, n=N):
    return np.random.default_rng(seed).permutation(rising(n))


WEIGHTS = {"github_stars": 0.2, "github_forks": 0.1, "pypi_downloads": 0.4}


def three(seed=0, n=N):
    return {
        "github_stars": signal(shuffled(seed, n)),
        "github_forks": signal(shuffled(seed + 1, n)),
        "pypi_downloads": signal(shuffled(seed + 2, n), kind="flow"),
    }


# --- percentiles ----------------------------------------------------------------------------------------


def test_percentiles_are_mid_ranks():
    values = np.arange(30.0)
    values[29] = values[28]
    values = np.append(values, np.nan)
    places = percentile(values)
    np.testing.assert_allclose(places[:28], (np.arange(28) + 0.5) / 30)
    assert places[28] == places[29] == 29 / 30
    assert np.isnan(places[30])


def test_fewer_than_thirty_have_no_percentile():
    assert np.isnan(percentile(np.arange(29.0))).all()
    assert not np.isnan(percentile(np.arange(30.0))).any()
    assert len(percentile(np.empty(0))) == 0


def test_identical_values_are_all_the_median():
    assert (percentile(np.full(41, 0.3)) == 0.5).all()


@given(st.lists(st.floats(-1, 1, width=32), min_size=30, max_size=60), st.floats(-2, 2))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_the_place_among_others_is_monotone_and_agrees_with_the_own_percentile(values, shift):
    x = np.array(values, dtype=np.float64)
    np.testing.assert_array_equal(percentile(x, among=x), percentile(x))
    moved = percentile(x + abs(shift), among=x)
    assert (moved >= percentile(x)).all()
    assert ((moved >= 0) & (moved <= 1)).all()


def test_peers_are_of_a_similar_level():
    level = np.repeat([1.0, 5.0, 9.0], 40)
    growth = np.tile(np.linspace(0, 1, 40), 3) + level
    places = peer_percentile(growth, level)
    np.testing.assert_allclose(places[:40], places[80:])
    assert percentile(growth)[:40].max() < 0.34


def test_peers_need_thirty_a_bin():
    assert np.isnan(peer_percentile(np.arange(29.0), np.arange(29.0))).all()
    small = np.arange(59.0)
    np.testing.assert_array_equal(peer_percentile(small, small), percentile(small))


# --- the composite ----------------------------------------------------------------------------------------


def test_the_score_is_exactly_50_plus_its_contributions():
    scores = score_day(three(), WEIGHTS)
    total = np.full(N, 50.0)
    for column in scores.contributions.T:
        total += column
    np.testing.assert_array_equal(scores.score, total)
    assert ((scores.score > 0) & (scores.score < 100)).all()


def test_the_score_is_the_weighted_mean_of_the_formula():
    scores = score_day(three(), WEIGHTS)
    w = np.array([0.2, 0.1, 0.4])
    want = 100 * (PRIOR_WEIGHT * 0.5 + scores.momentum @ w) / (PRIOR_WEIGHT + w.sum())
    np.testing.assert_allclose(scores.score, want, rtol=1e-14)
    np.testing.assert_allclose(scores.coverage, 0.7)
    assert scores.metrics == ("github_stars", "github_forks", "pypi_downloads")


def test_identical_entities_have_exactly_50():
    signals = {"github_stars": signal(np.full(N, 0.07)), "pypi_downloads": signal(np.full(N, 0.01), kind="flow")}
    scores = score_day(signals, {"github_stars": 0.2, "pypi_downloads": 0.4})
    assert (scores.score == 50).all()
    assert (scores.percentile == 0.5).all()
    assert (scores.peer_score == 50).all()
    assert (scores.contributions == 0).all()


def test_permuting_entities_permutes_scores():
    order = np.random.default_rng(9).permutation(N)
    signals = three()
    mixed = {
        name: replace(s, **{f: getattr(s, f)[order] for f in s.__dataclass_fields__ if f not in ("kind", "tau")})
        for name, s in signals.items()
    }
    a, b = score_day(signals, WEIGHTS), score_day(mixed, WEIGHTS)
    for name in ("score", "percentile", "low", "high", "peer_score", "growth_per_week", "breadth", "contributions"):
        np.testing.assert_array_equal(getattr(a, name)[order], getattr(b, name), err_msg=name)


def test_a_source_at_the_median_moves_the_score_toward_50():
    one = {"github_stars": signal(rising())}
    two = {**one, "github_forks": signal(np.full(N, 0.02))}
    alone = score_day(one, {"github_stars": 0.2}).score
    both = score_day(two, {"github_stars": 0.2, "github_forks": 0.1}).score
    assert (np.abs(both - 50) < np.abs(alone - 50)).all()
    assert (np.sign(both - 50) == np.sign(alone - 50)).all()


def test_little_evidence_stays_nearer_to_50():
    one = {"github_stars": signal(rising())}
    light, heavy = (score_day(one, {"github_stars": w}).score[-1] for w in (0.05, 0.4))
    assert 50 < light < heavy < 100


def test_momentum_blends_slow_growth_and_last_week():
    slow, week = rising(), rising()[::-1].copy()
    scores = score_day({"github_stars": signal(slow, last_week=week)}, {"github_stars": 0.2})
    np.testing.assert_allclose(scores.momentum[:, 0], 0.8 * percentile(slow) + 0.2 * percentile(week))


def test_an_unknown_last_week_is_replaced_by_the_slow_growth():
    week = rising()
    week[5] = np.nan
    scores = score_day({"github_stars": signal(rising(), last_week=week)}, {"github_stars": 0.2})
    assert scores.momentum[5, 0] == percentile(rising())[5]


def test_an_entity_without_a_source_is_scored_on_the_others():
    stars = rising()
    stars[3] = np.nan
    scores = score_day(
        {"github_stars": signal(stars), "github_forks": signal(shuffled(1))}, {"github_stars": 0.2, "github_forks": 0.1}
    )
    assert scores.contributions[3, 0] == 0
    assert np.isnan(scores.momentum[3, 0])
    assert scores.coverage[3] == pytest.approx(0.1)
    assert np.isfinite(scores.score[3])
    assert scores.ranked.tolist() == [N - 1, N]


def test_an_entity_without_anything_is_not_ranked():
    stars = rising()
    stars[3] = np.nan
    scores = score_day({"github_stars": signal(stars)}, {"github_stars": 0.2})
    for field in (
        scores.score,
        scores.percentile,
        scores.low,
        scores.high,
        scores.breadth,
        scores.growth_per_week,
        scores.peer_score,
    ):
        assert np.isnan(field[3])
        assert np.isfinite(np.delete(field, 3)).all()
    assert scores.coverage[3] == 0
    assert scores.growth_metric[3] == -1


def test_with_fewer_than_thirty_a_source_is_not_counted():
    stars = np.full(N, np.nan)
    stars[:29] = rising(29)
    scores = score_day(
        {"github_stars": signal(stars), "github_forks": signal(rising())}, {"github_stars": 0.2, "github_forks": 0.1}
    )
    assert (scores.weights[:, 0] == 0).all()
    assert scores.ranked.tolist() == [29, N]
    assert np.isnan(scores.momentum[:, 0]).all()


def test_young_entities_are_listed_but_not_ranked():
    flags = np.zeros(N, np.uint16)
    flags[:4] = Flag.YOUNG
    scores = score_day({"github_stars": signal(rising(), flags=flags, updates=3)}, {"github_stars": 0.2})
    assert np.isnan(scores.score[:4]).all()
    assert ((scores.flags[:4] & Flag.YOUNG) != 0).all()
    assert scores.ranked[0] == N - 4
    assert scores.momentum[4, 0] == pytest.approx(0.5 / (N - 4))


def test_a_silent_source_counts_for_five_weeks():
    silent = np.zeros(N, np.uint16)
    silent[0], silent[1] = SILENT_DAYS_MAX, SILENT_DAYS_MAX + 1
    scores = score_day({"github_stars": signal(rising(), silent_days=silent)}, {"github_stars": 0.2})
    assert np.isfinite(scores.score[0])
    assert np.isnan(scores.score[1])


def test_a_metric_without_weight_is_shown_but_does_not_count():
    signals = {"github_stars": signal(rising()), "hn_stories": signal(shuffled(4), kind="flow")}
    scores = score_day(signals, {"github_stars": 0.2})
    np.testing.assert_array_equal(
        scores.score, score_day({"github_stars": signals["github_stars"]}, {"github_stars": 0.2}).score
    )
    assert np.isfinite(scores.momentum[:, 1]).all()


def test_nobody_and_nothing():
    assert len(score_day({}, {}).score) == 0
    empty = score_day({"github_stars": signal(np.empty(0))}, {"github_stars": 0.2})
    assert empty.contributions.shape == (0, 1)
    nothing = score_day({"github_stars": signal(np.full(40, np.nan))}, {"github_stars": 0.2})
    assert np.isnan(nothing.score).all()
    assert (nothing.flags == 0).all()


# --- shrinkage, breadth, growth -----------------------------------------------------------------------------


def test_counting_noise_shrinks_growth_before_it_is_ranked():
    noise = np.zeros(N)
    noise[-1] = 1.0
    scores = score_day({"github_stars": signal(rising(), se_counting=noise)}, {"github_stars": 0.2})
    assert scores.momentum[-1, 0] < 0.5


def test_breadth_is_the_share_of_weight_that_grows_beyond_noise():
    up, down = np.full(N, 0.1), np.full(N, -0.1)
    scores = score_day(
        {"github_stars": signal(up), "github_forks": signal(down)}, {"github_stars": 0.2, "github_forks": 0.1}
    )
    np.testing.assert_allclose(scores.breadth, 2 / 3)
    noisy = score_day({"github_stars": signal(up, se_counting=0.5)}, {"github_stars": 0.2})
    assert (noisy.breadth == 0).all()


def test_growth_per_week_is_that_of_the_heaviest_stock_else_of_the_heaviest():
    stars, downloads = np.full(N, 0.1), np.full(N, 0.3)
    stars[0] = np.nan
    signals = {
        "pypi_downloads": signal(downloads, kind="flow"),
        "github_forks": signal(np.full(N, 0.05)),
        "github_stars": signal(stars),
    }
    scores = score_day(signals, WEIGHTS)
    assert scores.growth_per_week[1] == pytest.approx(np.expm1(0.1))
    assert scores.metrics[scores.growth_metric[1]] == "github_stars"
    assert scores.metrics[scores.growth_metric[0]] == "github_forks"
    only = score_day({"pypi_downloads": signals["pypi_downloads"]}, {"pypi_downloads": 0.4})
    assert only.growth_per_week[0] == pytest.approx(np.expm1(0.3))


# --- bursts ---------------------------------------------------------------------------------------------------


def bursting(**more):
    flags = np.zeros(N, np.uint16)
    flags[0] = Flag.SPIKE
    week = rising()
    week[0] = 5.0
    z = np.zeros(N)
    z[0] = 6.0
    return signal(rising(), flags=flags, last_week=week, z=z, z_week=z, **more)


def test_an_unconfirmed_star_burst_is_suspect_and_does_not_lift():
    quiet = {"github_stars": signal(rising()), "github_forks": signal(shuffled(1))}
    burst = {**quiet, "github_stars": bursting()}
    weights = {"github_stars": 0.2, "github_forks": 0.1}
    scores = score_day(burst, weights)
    assert scores.flags[0] & Flag.SUSPECT
    assert scores.flagged(0) == {"github_stars": Flag.SPIKE | Flag.SUSPECT}
    assert scores.flagged(1) == {}
    assert scores.weights[0, 0] == pytest.approx(0.05)
    assert scores.momentum[0, 0] <= score_day(quiet, weights).momentum[0, 0]
    assert not (scores.flags[1:] & Flag.SUSPECT).any()


def test_another_source_confirms_a_burst():
    z = np.zeros(N)
    z[0] = 1.6
    weights = {"github_stars": 0.2}
    for other in ("github_forks", "hn_points", "pypi_downloads"):
        scores = score_day({"github_stars": bursting(), other: signal(shuffled(1), z_week=z)}, weights)
        assert not scores.flags[0] & Flag.SUSPECT
        assert scores.weights[0, 0] == 0.2
        slow, week = percentile(rising())[0], percentile(bursting().last_week.astype(float))[0]
        assert scores.momentum[0, 0] == pytest.approx(0.8 * slow + 0.2 * week)
    weak = score_day({"github_stars": bursting(), "github_forks": signal(shuffled(1), z_week=z * 0.9)}, weights)
    assert weak.flags[0] & Flag.SUSPECT


def test_stars_gained_cannot_confirm_stars():
    z = np.full(N, 9.0)
    scores = score_day(
        {"github_stars": bursting(), "github_stars_gained": signal(shuffled(1), kind="flow", z_week=z)},
        {"github_stars": 0.2},
    )
    assert scores.flags[0] & Flag.SUSPECT


def test_a_purge_makes_stars_suspect_even_when_confirmed():
    flags = np.zeros(N, np.uint16)
    flags[7] = Flag.PURGE
    signals = {"github_stars": signal(rising(), flags=flags), "hn_points": signal(shuffled(1), kind="flow", z_week=9.0)}
    scores = score_day(signals, {"github_stars": 0.2})
    assert np.flatnonzero(scores.flags & Flag.SUSPECT).tolist() == [7]


def test_a_download_spike_is_damped_but_not_suspect():
    scores = score_day({"pypi_downloads": replace(bursting(), kind="flow")}, {"pypi_downloads": 0.4})
    assert not (scores.flags & Flag.SUSPECT).any()
    assert scores.momentum[0, 0] == percentile(rising())[0]


def test_the_flags_of_the_signals_are_not_altered():
    burst = bursting()
    before = burst.flags.copy()
    score_day({"github_stars": burst}, {"github_stars": 0.2})
    np.testing.assert_array_equal(burst.flags, before)


# --- the interval -----------------------------------------------------------------------------------------------


def test_the_interval_encloses_the_score_and_widens_with_the_error():
    narrow = score_day({"github_stars": signal(rising(), se=0.005)}, {"github_stars": 0.2})
    wide = score_day({"github_stars": signal(rising(), se=0.05)}, {"github_stars": 0.2})
    for scores in (narrow, wide):
        assert (scores.low <= scores.score).all()
        assert (scores.high >= scores.score).all()
    assert ((wide.high - wide.low) > (narrow.high - narrow.low)).all()
    exact = score_day({"github_stars": signal(rising(), se=0.0)}, {"github_stars": 0.2})
    np.testing.assert_array_equal(exact.low, exact.score)
    np.testing.assert_array_equal(exact.high, exact.score)


def test_one_source_moves_by_the_monotone_map():
    scores = score_day({"github_stars": signal(rising(), se=0.02)}, {"github_stars": 0.2})
    g = rising().astype(np.float32).astype(float)
    up = percentile(g + 1.28 * Q80["github_stars"] * np.float32(0.02), among=g)
    want = 50 + 100 * 0.2 * (up + 0.2 * (percentile(g) - up) - 0.5) / 0.35
    np.testing.assert_allclose(scores.high, want)


def test_independent_sources_have_a_narrower_interval_than_their_sum():
    both = score_day(three(), WEIGHTS)
    parts = np.zeros(N)
    for name in WEIGHTS:
        signals = {k: (replace(s, se=np.zeros(N, np.float32)) if k != name else s) for k, s in three().items()}
        one = score_day(signals, WEIGHTS)
        parts += one.high - one.score
    assert (both.high - both.score <= parts + 1e-9).all()


def test_the_interval_is_calibrated_only_if_every_counted_metric_is():
    assert not score_day(three(), WEIGHTS).calibrated
    assert not score_day(three(), WEIGHTS, calibration={"github_stars": 0.5}).calibrated
    full = score_day(three(), WEIGHTS, calibration=dict.fromkeys(WEIGHTS, 0.5))
    assert full.calibrated
    wider = score_day(three(), WEIGHTS, calibration=dict.fromkeys(WEIGHTS, 2.0))
    assert (wider.high - wider.low >= full.high - full.low).all()


# --- weights ----------------------------------------------------------------------------------------------------------


def test_usage_is_shared_by_the_channels_a_project_has(monkeypatch):
    has = {"github_stars": np.array([True, True]), "pypi_downloads": np.array([True, False])}
    weights = nominal_weights(has)
    assert weights["github_stars"].tolist() == [0.2, 0.2]
    assert weights["pypi_downloads"].tolist() == [0.4, 0.0]
    pypi = next(m for m in METRICS if m.name == "pypi_downloads")
    monkeypatch.setattr(
        "astrid.scoring.score.METRIC_BY_NAME",
        {"pypi_downloads": pypi, "npm_downloads": replace(pypi, name="npm_downloads")},
    )
    shared = nominal_weights(
        {"pypi_downloads": np.array([True, True, False]), "npm_downloads": np.array([True, False, False])}
    )
    assert shared["pypi_downloads"].tolist() == [0.2, 0.4, 0.0]
    assert shared["npm_downloads"].tolist() == [0.2, 0.0, 0.0]


def test_a_metric_of_no_weight_has_none():
    assert nominal_weights({"hn_stories": np.array([True])})["hn_stories"].tolist() == [0.0]


def test_weights_may_differ_by_entity():
    w = np.full(N, 0.2)
    w[0] = 0
    scores = score_day({"github_stars": signal(rising())}, {"github_stars": w})
    assert np.isnan(scores.score[0])
    assert np.isfinite(scores.score[1:]).all()


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_weights_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        score_day({"github_stars": signal(rising())}, {"github_stars": bad})


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one length"):
        score_day({"a": signal(rising()), "b": signal(rising(31))}, {})
    with pytest.raises(ValueError, match="without signal"):
        score_day({"a": signal(rising())}, {"b": 1.0})


# --- from raw counts to scores ----------------------------------------------------------------------------------------


def test_from_counts_to_scores_the_faster_grower_ranks_higher():
    days = np.arange(200)[:, None] / 7
    rates = np.linspace(0, 0.1, 50)
    stars, _ = run((5000 * np.exp(days * rates)).astype(np.float32), "stock")
    loads, _ = run((9000 * np.exp(days * rates)).astype(np.float32), "flow")
    signals = {"github_stars": stars.signal(STOCK), "pypi_downloads": loads.signal(FLOW)}
    scores = score_day(signals, nominal_weights({name: np.ones(50, bool) for name in signals}))
    assert (np.diff(scores.score) > 0).all()
    np.testing.assert_allclose(scores.growth_per_week, np.expm1(rates), atol=2e-3)
    assert scores.coverage == pytest.approx(0.6)
