"""What is drawn from a seed."""

from __future__ import annotations

from collections import Counter

from tests.chaos.faults import FAULTS
from tests.chaos.schedule import KINDS, draw
from tests.run_tiers import FIXED_SEED

FIXED_TRIALS = 10


def test_every_kind_has_its_harm() -> None:
    assert set(KINDS) == set(FAULTS)


def test_a_seed_repeats_its_schedule() -> None:
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    assert len({str(draw(seed)) for seed in range(50)}) == 50


def test_the_fixed_slice_has_every_kind() -> None:
    drawn = Counter(f.kind for n in range(FIXED_TRIALS) for f in draw(FIXED_SEED + n).faults)
    assert set(drawn) == set(KINDS)


def test_a_long_run_has_every_kind_often_and_all_ways_to_begin_and_end() -> None:
    schedules = [draw(seed) for seed in range(1000, 1200)]
    drawn = Counter(f.kind for s in schedules for f in s.faults)
    assert min(drawn[kind] for kind in KINDS) >= 200 * 2 // len(KINDS)
    assert len({(s.score_early, s.after_producer, s.abrupt, len(s.workers)) for s in schedules}) == 16


def test_what_cannot_be_had_is_left_out_and_changes_nothing_else() -> None:
    whole, less = draw(77), draw(77, frozenset({draw(77).faults[0].kind}))
    assert less.faults == whole.faults[1:]
    assert (less.workers, less.abrupt) == (whole.workers, whole.abrupt)
