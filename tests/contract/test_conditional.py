"""Conditional requests against the simulated GitHub, whose ETags are bound to tokens, as the real one's are."""

from __future__ import annotations

import asyncio

from astrid.simulators.world import load_world
from benchmarks.conditional import TARGET, Nights


def test_eligible_repeats_come_back_as_304_with_four_tokens_in_rotation() -> None:
    nights = Nights(load_world())
    asyncio.run(nights.run(repositories=40))
    door = nights.door
    assert len({token for token, _ in door.told}) == 4, "a token carried nothing"
    assert door.eligible > 0.4 * door.requests, "nothing repeats in this world, so nothing is shown"
    assert door.unchanged >= TARGET * door.eligible
    assert nights.points <= door.requests - door.unchanged, "a 304 was counted against the primary limit"
    assert nights.convictions == 0


def test_without_a_token_of_its_own_a_request_earns_fewer() -> None:
    own, any_ = Nights(load_world()), Nights(load_world(), sticky=False)
    for nights in (own, any_):
        asyncio.run(nights.run(repositories=40))
    assert any_.door.unchanged < 0.7 * own.door.unchanged
