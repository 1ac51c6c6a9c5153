"""What a run did cost: the difference of two counts, and no reason to lose a night."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

import pytest

from astrid.errors import AstridError
from astrid.pipeline.night import Driver, _between, _count_spent, count_nothing

GITHUB, PYPI = ("github", "core"), ("pypistats", "core")


@pytest.mark.parametrize(
    ("before", "after", "spent"),
    [
        ({}, {GITHUB: (5, 4)}, {GITHUB: (5, 4)}),
        ({GITHUB: (5, 4)}, {GITHUB: (8, 6), PYPI: (1, 1)}, {GITHUB: (3, 2), PYPI: (1, 1)}),
        ({GITHUB: (5, 4)}, {GITHUB: (5, 4)}, {}),
        ({GITHUB: (5, 4)}, {GITHUB: (3, 2)}, {GITHUB: (3, 2)}),
        ({GITHUB: (5, 4)}, {}, {}),
    ],
)
def test_what_lies_between_two_counts(before: Any, after: Any, spent: Any) -> None:
    """A budget that began anew counts from its beginning."""
    assert _between(before, after) == spent


def test_a_count_that_fails_is_said_and_costs_no_night(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(lane: str) -> Mapping[tuple[str, str], tuple[int, int]]:
        raise AstridError(f"a token actor died in the lane {lane}")

    nothing = cast(Any, None)
    driver = Driver(nothing, nothing, nothing, nothing, nothing, nothing, nothing, "test", fail)
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(_count_spent(driver, "nightly")) is None
    assert "a token actor died in the lane nightly" in caplog.text
    assert asyncio.run(count_nothing("nightly")) == {}
