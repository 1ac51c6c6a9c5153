"""A database or broker that is away for a while: said once, waited for ever longer, said once more when it is back."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0


class Outage:
    """The absence of one service, shared by all tasks that need it; ``what`` names it in the log.

    Waits grow with the time that it has lasted, not with the number of tasks that tried: half of it, from half a second
    to half a minute.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._since_s: float | None = None

    def note(self, error: Exception) -> None:
        """Note that a try failed; the first of an outage is logged."""
        if self._since_s is None:
            self._since_s = asyncio.get_running_loop().time()
            log.warning("%s is away, trying again until it is back: %s", self._what, error)

    def end(self) -> None:
        """Note that a try succeeded."""
        if self._since_s is not None:
            log.warning("%s is back after %.0f s", self._what, asyncio.get_running_loop().time() - self._since_s)
            self._since_s = None

    @property
    def wait_s(self) -> float:
        """How long to wait before the next try."""
        if self._since_s is None:
            return FIRST_WAIT_S
        lasted_s = asyncio.get_running_loop().time() - self._since_s
        return min(max(lasted_s / 2, FIRST_WAIT_S), LONGEST_WAIT_S)
