"""An event loop whose clock jumps to the next timer instead of waiting for it: hours of sleeping cost no time.

Nothing in it may wait for a socket, a thread or a process; what waits for nothing at all is a deadlock and says so.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(AssertionError):
    """Every task waits, and no timer is set: the program would never end."""


class _Selector(selectors.BaseSelector):
    """Knows the loop's own wake-up pipe and nothing else; to select is to let time pass."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, number, events, data)
        self._keys[number] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every task waits, and no timer is set")
        self.now_s += max(timeout, 0.0)
        return []

    def get_map(self) -> dict[int, selectors.SelectorKey]:  # type: ignore[override]
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at the epoch second ``start_s`` and counts its own time."""

    def __init__(self, start_s: float) -> None:
        self._virtual = _Selector()
        self._virtual.now_s = start_s
        super().__init__(self._virtual)
        # Epoch seconds have a resolution of a quarter of a microsecond as floats; a timer may not fall between two.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the virtual epoch second."""
        return self._virtual.now_s


def run_virtual(main: Coroutine[Any, Any, T], start_s: float) -> T:
    """Run a coroutine on a loop of its own that starts at ``start_s``, and end what it leaves behind."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start_s)) as runner:
        return runner.run(main)
