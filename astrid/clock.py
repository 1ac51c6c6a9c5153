"""The machine's time: the epoch is taken once, at the start of the process, then a clock counts that nobody sets.

``time.time()`` jumps when somebody, or NTP, sets the clock. Within a process Astrid's time goes on evenly, also through
a suspension of the machine, which Linux' ``CLOCK_BOOTTIME`` counts and ``time.monotonic()`` does not.
"""

from __future__ import annotations

import time
from typing import Final

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def count_s() -> float:
    """Return seconds of a clock that nobody sets and that runs on while the machine sleeps; its zero means nothing."""
    return time.clock_gettime(_CLOCK)


_EPOCH_S: Final = time.time() - count_s()


def epoch_s() -> float:
    """Return the epoch second: as it was when this process began, and the seconds counted since."""
    return _EPOCH_S + count_s()
