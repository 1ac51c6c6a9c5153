"""Seasonal adjustment and the components of the index."""

from __future__ import annotations

import numpy as np
import pytest

from astrid.index.components import combine, count_distinct, count_entrants, count_events, share
from astrid.index.seasonal import adjust, monthly_means, stl

DAYS = np.arange(np.datetime64("2020-01-01"), np.datetime64("2024-07-01"))
MONTHS = np.arange(48)

REFERENCE = [
    (
        0,
        [0.0102536759678, -0.01733042050297, 0.04481231093637, -0.0496675157692, -0.03547379449059],
        [0.00513815265493, 0.07268358123912, 0.22400477259412, 0.32968014750114, 0.47178426617955],
    ),
    (
        15,
        [0.01308928463421, -0.00835249889456, -0.03947389703596, -0.04495472422074, -0.03622604764606],
        [0.00431936497459, 0.07145405088898, 0.20184975467221, 0.33033006206838, 0.47016463361533],
    ),
]

# --- seasonal adjustment --------------------------------------------------------------------------------


def test_stl_equals_the_program_of_its_authors():
    """Reference values: statsmodels 0.15.0, STL(period=12, seasonal=7).fit(inner_iter=2, outer_iter=0 and 15)."""
    y = 0.01 * MONTHS + 0.05 * np.sin(2 * np.pi * MONTHS / 12) + 0.02 * np.cos(1.7 * MONTHS)
    y[20] += 0.3
    for outer, seasonal, trend in REFERENCE:
        found = stl(y, outer=outer)
        np.testing.assert_allclose(found[0][[0, 7, 20, 33, 47]], seasonal, atol=1e-12)
        np.testing.assert_allclose(found[1][[0, 7, 20, 33, 47]], trend, atol=1e-12)


def test_stl_finds_a_planted_season_and_leaves_a_line_alone():
    season = np.tile(0.1 * np.sin(2 * np.pi * np.arange(12) / 12), 4)
    seasonal, trend = stl(0.02 * MONTHS + season)
    np.testing.assert_allclose(seasonal, season, atol=1e-3)
    np.testing.assert_allclose(trend, 0.02 * MONTHS, atol=1e-3)
    seasonal, trend = stl(0.02 * MONTHS)
    np.testing.assert_allclose(seasonal, 0, atol=1e-12)
    np.testing.assert_allclose(trend, 0.02 * MONTHS, atol=1e-12)


def test_one_wild_month_does_not_make_a_season():
    season = np.tile(0.1 * np.sin(2 * np.pi * np.arange(12) / 12), 4)
    y = 0.02 * MONTHS + season + 0.002 * np.cos(1.7 * MONTHS)
    wild = y.copy()
    wild[26] += 1
    others = np.arange(48) % 12 != 2
    np.testing.assert_allclose(stl(wild)[0][others], stl(y)[0][others], atol=0.006)
    assert abs(stl(wild, outer=0)[0] - stl(y, outer=0)[0])[others].max() > 0.02


def test_stl_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="needs 24 values"):
        stl(np.zeros(23))
    with pytest.raises(ValueError, match="needs 24 values"):
        stl(np.append(np.zeros(30), np.nan))


def test_both_are_published_and_the_season_is_taken_out():
    t = np.arange(len(DAYS))
    month = DAYS.astype("datetime64[M]").astype(int) % 12
    value = 100 * np.exp(0.001 * t + 0.05 * np.sin(2 * np.pi * month / 12))
    found = adjust(DAYS, value)
    assert found.why is None
    assert len(found.months) == 54
    raw, smooth = (np.diff(np.log(x)) for x in (found.nsa, found.sa))
    assert smooth.std() < 0.2 * raw.std()
    np.testing.assert_allclose(found.sa * np.exp(found.seasonal), found.nsa)


def test_with_less_than_three_years_only_the_unadjusted_is_published_and_it_says_why():
    short = adjust(DAYS[:1065], np.full(1065, 100.0))
    assert short.sa is None
    assert short.seasonal is None
    assert short.why.startswith("35 months without a gap")
    assert "needs 36" in short.why
    np.testing.assert_array_equal(short.nsa, 100)
    assert adjust(DAYS[:1096], np.full(1096, 100.0)).why is None


def test_a_gap_starts_the_run_afresh():
    value = np.full(len(DAYS), 100.0)
    value[(np.datetime64("2022-03-01") <= DAYS) & (np.datetime64("2022-03-20") > DAYS)] = np.nan
    found = adjust(DAYS, value)
    assert np.isnan(found.nsa[26])
    assert found.why.startswith("27 months without a gap")


def test_a_month_is_the_mean_of_its_days():
    value = np.arange(float(len(DAYS)))
    value[:5] = np.nan
    months, means = monthly_means(DAYS, value)
    assert str(months[0]) == "2020-01"
    assert means[0] == np.arange(5, 31).mean()
    assert means[1] == np.arange(31, 60).mean()
    assert len(monthly_means(DAYS, np.full(len(DAYS), np.nan))[0]) == 0


# --- components -----------------------------------------------------------------------------------------

T = 400


def test_events_of_unobserved_days_are_not_zero():
    day = np.array([0, 0, 1, 3, 3, 3])
    ours = np.array([True, False, False, True, True, False])
    observed = np.array([True, True, False, True, True])
    counts = count_events(5, day, ours, observed)
    np.testing.assert_array_equal(counts.ours, [1, 0, np.nan, 2, 0])
    np.testing.assert_array_equal(counts.total, [2, 1, np.nan, 3, 0])


def test_a_share_is_that_of_four_weeks_and_a_window_half_unseen_is_a_gap():
    observed = np.ones(T, np.bool_)
    observed[200:215] = False
    day = np.repeat(np.arange(T), 10)
    counts = count_events(T, day, np.tile(np.arange(10) < 3, T), observed)
    value = share(counts)
    assert np.isnan(value[:27]).all()
    np.testing.assert_allclose(np.exp(value[27]), (84 + 0.5) / (280 + 1))
    gap = np.flatnonzero(np.isnan(value[27:])) + 27
    assert gap.tolist() == list(range(214, 228))


def test_a_window_without_any_of_ours_is_small_and_finite():
    counts = count_events(T, np.arange(T), np.zeros(T, np.bool_), np.ones(T, np.bool_))
    np.testing.assert_allclose(share(counts)[27:], np.log(0.5 / 29))


def test_an_entrant_counts_on_its_first_day_and_never_in_the_burn_in():
    day = np.array([9, 5, 5, 2, 11, 9, 12])
    entity = np.array([0, 0, 1, 2, 2, 3, 4])
    ours = np.array([True, True, False, True, True, True, False])
    observed = np.ones(14, np.bool_)
    observed[0] = False
    counts = count_entrants(14, day, entity, ours, observed, burn_in=4)
    assert np.isnan(counts.total[:5]).all()
    np.testing.assert_array_equal(counts.total[5:], [2, 0, 0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(counts.ours[5:], [1, 0, 0, 0, 1, 0, 0, 0, 0])


def test_breadth_counts_an_entity_once_in_a_window():
    rng = np.random.default_rng(5)
    day, entity = rng.integers(0, 60, 200), rng.integers(0, 25, 200)
    mine = entity % 3 == 0
    counts = count_distinct(60, day, entity, mine, np.ones(60, np.bool_), window=7)
    for row in range(6, 60):
        inside = (day > row - 7) & (day <= row)
        assert counts.total[row] == len(np.unique(entity[inside]))
        assert counts.ours[row] == len(np.unique(entity[inside & mine]))


def test_together_is_weighted_against_the_loud_and_causal():
    rng = np.random.default_rng(7)
    days = DAYS[:900]
    quiet, loud = np.cumsum(rng.normal(0, 0.001, 900)), np.cumsum(rng.normal(0, 0.01, 900))
    together, weights = combine({"quiet": quiet, "loud": loud}, days)
    first = min(weights)
    assert str(days[first]) == "2020-10-01"  # half a year of four-week changes by then
    for row, held in weights.items():
        cut = row - 4
        spread = [np.std(c[28:cut] - c[: cut - 28]) for c in (quiet, loud)]
        np.testing.assert_allclose(held, (1 / np.array(spread)) / (1 / np.array(spread)).sum())
    last = list(weights.values())[-1]
    np.testing.assert_allclose(
        together[890] - together[883], last @ [quiet[890] - quiet[883], loud[890] - loud[883]], rtol=1e-9
    )
    part, _ = combine({"quiet": quiet[:700], "loud": loud[:700]}, days[:700])
    np.testing.assert_array_equal(part, together[:700])


def test_a_component_with_a_gap_leaves_the_day_to_the_others_or_it_is_a_gap():
    rng = np.random.default_rng(8)
    days = DAYS[:700]
    parts = {str(k): np.cumsum(rng.normal(0, 0.001, 700)) for k in range(3)}
    parts["0"][500:520] = np.nan
    together, _ = combine(parts, days)
    assert np.isfinite(together[500:520]).all()
    parts["1"][500:520] = np.nan
    together, _ = combine(parts, days)
    assert np.isnan(together[500:520]).all()
    assert np.isfinite(together[520:]).all()
    assert np.isnan(combine({}, days)[0]).all()
