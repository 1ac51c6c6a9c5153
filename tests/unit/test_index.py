"""The index: closed forms, the cap, entrants and deaths, gaps, no look-ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.index.baskets import NEVER, Source, capped_weights, draw_baskets, eligible, quarter_starts
from astrid.index.chain import build_index, build_indices, link, publish, rebase
from astrid.index.companions import diffusion, momentum, relative
from astrid.index.vintages import find_revisions, keep_first

N = 30
DAYS = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-12-31"))
START = 91
"""2024-04-01, the first quarter whose cut lies in the days and finds series of 13 weeks."""


def source(y, *, name="stars", family="attention", level=None, **arrays):
    y = np.asarray(y, np.float64)
    age = np.minimum(np.arange(len(y)) // 7 + 1, 250)
    values = {
        "level": np.nan_to_num(y) if level is None else np.array(np.broadcast_to(level, y.shape)),
        "updates": np.repeat(age[:, None], y.shape[1], axis=1),
        "suspect": np.zeros(y.shape, np.bool_),
        "growth": np.zeros(y.shape),
        "noise": np.full(y.shape, 0.01),
        "died": np.full(y.shape[1], NEVER),
    }
    for key, value in arrays.items():
        values[key] = np.array(np.broadcast_to(value, values[key].shape), dtype=values[key].dtype)
    return Source(name, family, y, **values)


def growing(rate, n=N, days=DAYS, spread=0.05):
    """Entities of different size that all grow at ``rate`` per day."""
    return 6 + spread * np.arange(n) + rate * np.arange(len(days))[:, None]


def noisy(seed, n=N, days=DAYS, missing=0.0):
    rng = np.random.default_rng(seed)
    y = 6 + rng.normal(0, 0.4, n) + np.cumsum(rng.normal(0.001, 0.01, (len(days), n)), axis=0)
    y[rng.random(y.shape) < missing] = np.nan
    return y


def constituent_day(day):
    return int(np.flatnonzero(np.datetime64(day) == DAYS)[0])


# --- weights --------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e6), min_size=20, max_size=80))
def test_weights_sum_to_one_hold_the_cap_and_keep_the_order(sizes):
    size = np.array(sizes)
    weights = capped_weights(size)
    assert weights.sum() == pytest.approx(1)
    assert weights.max() <= 0.05 * (1 + 1e-9)
    order = np.argsort(size)
    assert (np.diff(weights[order]) >= -1e-12).all()


def test_what_is_cut_is_shared_again_until_none_is_above():
    # 100 is cut first; its surplus then lifts 9.9 above the cap of a quarter as well, but not the others.
    weights = capped_weights(np.array([100.0, 9.9, 8.0, 6.0, 4.0, 2.0]), cap=0.25)
    rest = 0.75 * np.array([9.9, 8.0, 6.0, 4.0, 2.0]) / 29.9
    assert rest[0] < 0.25  # closed form: one cut is enough here
    np.testing.assert_allclose(weights, [0.25, *rest])
    weights = capped_weights(np.array([100.0, 20.0, 8.0, 6.0, 4.0, 2.0]), cap=0.25)
    np.testing.assert_allclose(weights, [0.25, 0.25, 0.2, 0.15, 0.1, 0.05])


def test_too_few_have_no_weights():
    assert not capped_weights(np.ones(19)).any()
    np.testing.assert_allclose(capped_weights(np.append(np.ones(20), 0.0)), [*[0.05] * 20, 0.0])


def test_weights_follow_the_square_root_of_the_level():
    level = np.log(np.linspace(100, 400, 60))
    basket = draw_baskets([source(np.tile(level, (len(DAYS), 1)))], DAYS)[0]
    np.testing.assert_allclose(basket.weights[0] / basket.weights[0][0], np.sqrt(np.exp(level - level[0])))


def test_families_weigh_the_same_whatever_their_sources():
    y = growing(0.001)
    sources = [
        source(y, name="pypi", family="usage"),
        source(y, name="npm", family="usage"),
        source(y, family="attention"),
        source(y, name="forks", family="work"),
    ]
    weights = draw_baskets(sources, DAYS)[0].weights.sum(axis=1)
    np.testing.assert_allclose(weights, [1 / 6, 1 / 6, 1 / 3, 1 / 3])


def test_a_family_whose_source_has_too_few_leaves_its_weight_to_the_others():
    y = growing(0.001)
    few = source(np.where(np.arange(N) < 19, y, np.nan), name="pypi", family="usage")
    weights = draw_baskets([few, source(y)], DAYS)[0].weights.sum(axis=1)
    np.testing.assert_allclose(weights, [0, 1])


def test_young_suspect_dead_and_unseen_do_not_enter():
    y = growing(0.001)
    y[START - 30 : START, 3] = np.nan
    s = source(y)
    s.updates[:, 0] = 12
    s.suspect[START - 5, 1] = True
    s.died[2] = START - 6
    assert np.flatnonzero(~eligible(s, START - 5)).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(draw_baskets([s], DAYS)[0].weights[0] == 0).tolist() == [0, 1, 2, 3]


def test_a_basket_knows_nothing_of_the_last_four_days_before_it_and_nothing_after():
    y = noisy(1)
    s = source(y)
    other = source(y.copy(), level=s.level.copy())
    other.level[START - 4 : START + 60] += np.linspace(0, 3, N)
    other.suspect[START - 4 : START + 60, :5] = True
    np.testing.assert_array_equal(draw_baskets([s], DAYS)[0].weights, draw_baskets([other], DAYS)[0].weights)
    other.level[START - 5] += np.linspace(0, 3, N)
    assert (draw_baskets([s], DAYS)[0].weights != draw_baskets([other], DAYS)[0].weights).any()


def test_quarters_begin_in_january_april_july_october():
    assert [str(DAYS[row]) for row in quarter_starts(DAYS)] == [f"2024-{m}-01" for m in ("01", "04", "07", "10")]


# --- the chain ------------------------------------------------------------------------------------------


def test_a_constant_basket_is_a_hundred_to_the_last_bit():
    index = build_index([source(growing(0.0))], DAYS)
    known = index.value[np.isfinite(index.value)]
    assert len(known) == len(DAYS) - START - 6
    assert (known == 100).all()


@pytest.mark.parametrize("rate", [-0.01, 0.0005, 0.004, 0.03])
def test_when_all_grow_alike_the_index_is_their_exponential(rate):
    index = build_index([source(growing(rate)), source(growing(rate), name="forks", family="work")], DAYS)
    known = np.isfinite(index.value)
    t = np.arange(len(DAYS))
    may = DAYS.astype("datetime64[M]") == np.datetime64("2024-05")
    assert index.base_month == np.datetime64("2024-05")
    expected = 100 * np.exp(rate * t) / np.exp(rate * t[may]).mean()
    np.testing.assert_allclose(index.value[known], expected[known], rtol=1e-12)


def test_weights_stay_for_a_quarter_and_the_link_is_their_mean():
    y = growing(0.0)
    y[:, 0] += 0.01 * np.arange(len(DAYS))
    s = source(y)
    basket = draw_baskets([s], DAYS)[0]
    logs = link([s], draw_baskets([s], DAYS), len(DAYS))
    np.testing.assert_allclose(logs[START + 7 + 10] - logs[START + 10], basket.weights[0, 0] * 0.07, rtol=1e-12)


def test_a_leap_of_one_counts_no_more_than_the_clip():
    y = growing(0.0)
    y[200:, 4] += 3.0
    s = source(y)
    baskets = draw_baskets([s], DAYS)
    logs = link([s], baskets, len(DAYS))
    weight = baskets[-2].weights[0, 4]
    np.testing.assert_allclose(logs[206] - logs[192], 0.5 * weight, rtol=1e-12)


def test_an_entrant_does_not_move_the_index_in_the_week_in_which_it_enters():
    """The newcomer rises steeply before it enters and stands out after it: only what comes after counts."""
    y = growing(0.001)
    y[:, 7] += 0.05 * np.arange(len(DAYS))
    s = source(y)
    s.updates[:170, 7] = 5  # too young until the third quarter
    without = source(y[:, np.arange(N) != 7])
    july = constituent_day("2024-07-01")
    with_it, none = (link([x], draw_baskets([x], DAYS), len(DAYS)) for x in (s, without))
    weights = [b.weights[0, 7] for b in draw_baskets([s], DAYS)]
    assert weights[0] == 0
    assert weights[1] > 0
    np.testing.assert_allclose(with_it[: july + 7], none[: july + 7], atol=1e-13)
    step = weights[1] * 0.05 * 7
    np.testing.assert_allclose(with_it[july + 7] - none[july + 7], step, rtol=1e-9)


def test_the_dead_stand_still_for_ninety_days_and_then_count_no_more():
    rate, died = 0.002, START + 40
    y = growing(rate)
    y[died:, 5] = np.nan
    s = source(y, died=np.where(np.arange(N) == 5, died, NEVER))
    baskets = draw_baskets([s], DAYS)
    logs = link([s], baskets, len(DAYS))
    weekly = {row: logs[row] - logs[row - 7] for row in range(START + 14, START + 200)}
    w = baskets[0].weights[0, 5]
    np.testing.assert_allclose(weekly[died - 1], 7 * rate, rtol=1e-12)
    np.testing.assert_allclose(weekly[died + 30], 7 * rate * (1 - w), rtol=1e-12)
    july = constituent_day("2024-07-01")
    assert died + 30 < july < died + 90
    held = baskets[1].weights[0, 5]
    assert held == pytest.approx(w)  # the rebalance does not drop it
    np.testing.assert_allclose(weekly[died + 90], 7 * rate * (1 - held), rtol=1e-12)
    np.testing.assert_allclose(weekly[died + 91], 7 * rate, rtol=1e-12)
    assert baskets[2].weights[0, 5] == 0


def test_the_long_dead_do_not_count_against_the_coverage():
    died = START + 1
    y = growing(0.002)
    y[died:, :18] = np.nan
    s = source(y, died=np.where(np.arange(N) < 18, died, NEVER))
    logs = link([s], draw_baskets([s], DAYS, starts=[START]), len(DAYS))
    assert np.isfinite(logs[START:]).all()
    np.testing.assert_allclose(logs[died + 100] - logs[died + 93], 7 * 0.002, rtol=1e-9)


def test_a_gap_of_one_is_no_zero_growth_and_its_return_sets_it_right():
    rate = 0.003
    y = growing(rate)
    y[:, 2] += 0.004 * np.arange(len(DAYS))
    whole = link([source(y)], draw_baskets([source(y)], DAYS), len(DAYS))
    y[START + 30 : START + 58, 2] = np.nan
    s = source(y, level=source(growing(rate)).level)
    logs = link([s], draw_baskets([source(y, level=s.level)], DAYS), len(DAYS))
    inside = logs[START + 44] - logs[START + 37]
    np.testing.assert_allclose(inside, 7 * rate, rtol=1e-9)  # moves with the others
    other = source(growing(rate) + 0.004 * np.arange(len(DAYS))[:, None] * (np.arange(N) == 2), level=s.level)
    whole = link([other], draw_baskets([other], DAYS), len(DAYS))
    np.testing.assert_allclose(logs[START + 70], whole[START + 70], rtol=1e-9)


def test_an_outage_of_a_source_is_a_gap_and_nothing_is_lost_after_it():
    rate = 0.002
    y = growing(rate)
    y[START + 50 : START + 70] = np.nan
    index = build_index([source(growing(0.0), family="work"), source(y)], DAYS)
    gap = slice(START + 50, START + 70 + 6)
    assert np.isnan(index.linked[START + 50 : START + 70]).all()
    assert np.isnan(index.value[gap]).all()
    assert np.isfinite(index.value[START + 76])
    rise = np.log(index.value[START + 76] / index.value[START + 46])
    np.testing.assert_allclose(rise, 30 * rate / 2, rtol=1e-9)


def test_an_index_that_lost_its_basket_does_not_resume():
    y = growing(0.001)
    y[165:240, :18] = np.nan
    index = build_index([source(y)], DAYS)
    october = constituent_day("2024-10-01")
    assert draw_baskets([source(y)], DAYS)[-1].start == october
    assert draw_baskets([source(y)], DAYS)[-1].weights.any()
    assert np.isnan(index.value[constituent_day("2024-07-15") :]).all()


def test_after_a_long_outage_the_old_basket_goes_on_until_the_series_are_old_enough_again():
    rate = 0.002
    y = growing(rate)
    y[START + 10 : START + 80] = np.nan
    s = source(y)
    s.updates[START + 80 :] = np.minimum(np.arange(len(DAYS) - START - 80) // 7 + 1, 250)[:, None]
    baskets = draw_baskets([s], DAYS)
    july, october = constituent_day("2024-07-01"), constituent_day("2024-10-01")
    assert [b.start for b in baskets] == [START, july, october]
    np.testing.assert_array_equal(baskets[1].weights, baskets[0].weights)
    logs = link([s], baskets, len(DAYS))
    np.testing.assert_allclose(logs[-1] - logs[START], rate * (len(DAYS) - 1 - START), rtol=1e-9)


def test_a_source_that_stays_out_leaves_after_two_draws():
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2025-04-30"))
    y = growing(0.001, days=days)
    gone = np.where(np.arange(len(days))[:, None] < 100, y, np.nan)
    baskets = draw_baskets([source(gone, family="work"), source(y)], days)
    assert [b.weights[0].any() for b in baskets] == [True, True, True, False, False]


def test_with_too_few_entities_there_is_no_index():
    assert build_index([source(growing(0.001, n=19))], DAYS) is None
    assert build_indices([source(growing(0.001, n=19))], DAYS, {}) == {}


def test_a_base_month_with_a_gap_is_refused():
    value = np.full(len(DAYS), 5.0)
    value[100] = np.nan
    with pytest.raises(ValueError, match="base month 2024-04 has a gap"):
        rebase(DAYS, value, np.datetime64("2024-04"))
    with pytest.raises(ValueError, match="base month 2024-12"):  # its last day is not there
        rebase(DAYS, value, np.datetime64("2024-12"))


def test_published_is_the_mean_of_exactly_seven_links():
    linked = np.log(np.arange(1.0, 15.0))
    value = publish(linked)
    assert np.isnan(value[:6]).all()
    np.testing.assert_allclose(value[6:], np.arange(4.0, 12.0))
    linked[9] = np.nan
    assert np.flatnonzero(np.isfinite(publish(linked))).tolist() == [6, 7, 8]


def test_categories_are_indices_of_their_own_members():
    y = growing(0.001, n=60)
    y[:, 30:] += 0.002 * np.arange(len(DAYS))[:, None]
    members = np.arange(60) < 30
    found = build_indices([source(y)], DAYS, {"slow": members, "fast": ~members, "small": np.arange(60) < 5})
    assert set(found) == {"overall", "slow", "fast"}
    last = {name: np.log(index.value[-1] / index.value[START + 6]) for name, index in found.items()}
    days = len(DAYS) - 1 - START - 6
    np.testing.assert_allclose([last["slow"], last["fast"]], [0.001 * days, 0.003 * days], rtol=1e-9)
    assert last["slow"] < last["overall"] < last["fast"]


# --- what must not matter, and what must -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_later_days_change_nothing_before(seed):
    whole = source(noisy(seed, missing=0.1), suspect=np.random.default_rng(seed).random((len(DAYS), N)) < 0.02)
    died = whole.died.copy()
    died[3] = 300
    whole = replace(whole, died=died)
    everything = build_index([whole], DAYS)
    for cut in (160, 181, 183, 250, 275, 301):
        arrays = {k: getattr(whole, k)[:cut] for k in ("y", "level", "updates", "suspect", "growth", "noise")}
        part = build_index([replace(whole, **arrays)], DAYS[:cut])
        np.testing.assert_array_equal(part.value, everything.value[:cut])


@given(st.permutations(range(N)))
def test_the_order_of_the_entities_does_not_matter(order):
    s = source(noisy(3, missing=0.05))
    arrays = {k: getattr(s, k)[:, order] for k in ("y", "level", "updates", "suspect", "growth", "noise")}
    shuffled = replace(s, **arrays, died=s.died[list(order)])
    np.testing.assert_allclose(build_index([shuffled], DAYS).value, build_index([s], DAYS).value, rtol=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    s = source(growing(0.001))
    with pytest.raises(ValueError, match="level of stars has shape"):
        replace(s, level=s.level[:5])
    with pytest.raises(ValueError, match="expected"):
        draw_baskets([s, source(growing(0.001, n=31), name="forks")], DAYS)
    with pytest.raises(ValueError, match="consecutive"):
        draw_baskets([s], np.delete(np.append(DAYS, DAYS[-1] + 1), 5))
    with pytest.raises(ValueError, match="members must have shape"):
        draw_baskets([s], DAYS, np.ones(3, np.bool_))


# --- companions -----------------------------------------------------------------------------------------


def test_momentum_is_the_weighted_growth_of_a_year():
    growth = np.linspace(-0.01, 0.03, N)
    s = source(growing(0.001), growth=growth)
    baskets = draw_baskets([s], DAYS)
    found = momentum([s], baskets, len(DAYS))
    assert np.isnan(found[:START]).all()
    np.testing.assert_allclose(found[START], 52 * baskets[0].weights[0] @ growth)


def test_diffusion_counts_heads_and_only_beyond_noise():
    growth = np.where(np.arange(N) < 12, 0.02, np.where(np.arange(N) < 20, 0.016, -0.05))
    s = source(growing(0.001), growth=growth, noise=0.01)
    found = diffusion([s], draw_baskets([s], DAYS), len(DAYS))
    assert found[START] == pytest.approx(12 / N)  # 0.016 is not beyond 1.645 times 0.01
    s.growth[START + 10, :18] = np.nan
    assert np.isnan(diffusion([s], draw_baskets([s], DAYS), len(DAYS))[START + 10])


def test_relative_to_the_control_takes_the_common_growth_out():
    field, control = (build_index([source(growing(rate))], DAYS) for rate in (0.003, 0.001))
    value = relative(DAYS, field.value, control.value, np.datetime64("2024-05"))
    known = np.isfinite(value)
    np.testing.assert_allclose(np.diff(np.log(value[known])), 0.002, rtol=1e-6)


# --- first prints ---------------------------------------------------------------------------------------


def test_a_revision_is_what_prints_differently():
    days = DAYS[:6]
    printed = np.array([100.0, 100.5, np.nan, 101.0, np.nan, np.nan])
    recomputed = np.array([100.001, 100.62, 99.0, np.nan, np.nan, 102.0])
    last = days[4]
    found = find_revisions(days, printed, recomputed, last)
    assert [(str(r.day), r.change, r.printed, r.recomputed) for r in found] == [
        ("2024-01-02", "revised", 100.5, 100.62),
        ("2024-01-03", "filled", None, 99.0),
        ("2024-01-04", "withdrawn", 101.0, None),
    ]
    np.testing.assert_array_equal(keep_first(days, printed, recomputed, last), [100, 100.5, np.nan, 101, np.nan, 102])
    with pytest.raises(ValueError, match="after the last printed day"):
        find_revisions(days, printed, recomputed, days[1])
    with pytest.raises(ValueError, match="6 days, 5 printed"):
        find_revisions(days, printed[:5], recomputed, last)
