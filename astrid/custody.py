"""A budget that is ours for a while: what its last keeper tells us, how much we may spend unseen, when we must stop.

Pure, time is an argument. Keepers follow each other by a lease (:mod:`astrid.pipeline.holdings`); with each renewal the
keeper leaves in it what was spent. What it spent since, a keeper that was killed tells nobody: the next one takes the
short windows for full. A window of an hour would then stop an upstream for an hour, so of long windows a keeper spends
at most a tenth between two renewals, and the next one takes that tenth for spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from astrid.ratelimit import Ask, Budget, Grant, Receipt

ELSEWHERE_S: Final = 5.0
ALLOWANCE_POLL_S: Final = 1.0
"""When to ask again, in real seconds: for a budget that another process keeps, and for one whose spending is to be
written down first."""


class Custody:
    """One budget under a lease. Not ours at first.

    Parameters
    ----------
    make
        Makes the budget anew: an earlier keeper's permits are not this one's.
    speed
        How many of the run's seconds a real second has.
    """

    def __init__(self, make: Callable[[], Budget], speed: float = 1.0) -> None:
        self._make = make
        self._speed = speed
        self._budget: Budget | None = None
        self._until_s = 0.0
        self._granted: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._telling: Counter[str] = Counter()

    def begin(self, state: Mapping[str, Any], age_s: float, *, is_clean: bool, now_s: float, until_s: float) -> None:
        """Take the budget over.

        Parameters
        ----------
        state, age_s
            What the last keeper left, so many real seconds ago.
        is_clean
            Whether it spent nothing after that.
        now_s, until_s
            The run's moment, and until when the lease may be trusted by the clock that ``exchange`` is told.
        """
        self._budget = self._make()
        self._budget.resume(state, age_s * self._speed, now_s, is_clean=is_clean)
        self._granted.clear()
        self._told.clear()
        self._telling.clear()
        self._until_s = until_s

    def begin_blind(self, now_s: float, until_s: float) -> None:
        """Take the budget over from ourselves, where nothing is known of what was spent: every window is full."""
        self.begin({}, 0.0, is_clean=True, now_s=now_s, until_s=until_s)
        if self._budget is not None:
            self._budget.begin_full(now_s)

    @property
    def quarantined(self) -> int:
        """How many of its tokens the upstream refuses."""
        return 0 if self._budget is None else len(self._budget.quarantined)

    def tell(self, now_s: float) -> dict[str, Any]:
        """Return what the next keeper must know; ``renew`` says that it stands in the lease."""
        self._telling = self._granted.copy()
        return {} if self._budget is None else self._budget.tell(now_s)

    def renew(self, until_s: float) -> None:
        """Trust the lease until then; what was last told stands in it."""
        self._told = self._telling
        self._until_s = until_s

    def end(self) -> None:
        """Use the budget no more."""
        self._until_s = 0.0

    def is_ours(self, count_s: float) -> bool:
        """Tell whether the budget may be used at this second of the trusted clock."""
        return self._budget is not None and count_s < self._until_s

    def exchange(
        self, receipts: Sequence[Receipt], unused: Sequence[int], ask: Ask | None, now_s: float, count_s: float
    ) -> Grant:
        """Answer as :meth:`astrid.ratelimit.Budget.exchange` while the budget is ours; no permit outlives that."""
        settled = Grant() if self._budget is None else self._budget.exchange(receipts, unused, None, now_s)
        if ask is None:
            return settled
        if self._budget is None or not self.is_ours(count_s):
            wait_s = ELSEWHERE_S * self._speed
            return Grant(wait_s=wait_s, reason="its budget is another worker's", elsewhere=True)
        left = self._budget.allowance(ask.bucket) - (self._granted[ask.bucket] - self._told[ask.bucket])
        if left <= 0:
            return Grant(wait_s=ALLOWANCE_POLL_S * self._speed, reason="what was spent must be written down first")
        grant = self._budget.acquire(replace(ask, want=min(ask.want, left)), now_s)
        self._granted[ask.bucket] += len(grant.permit_ids)
        if grant.permit_ids:
            return replace(grant, expires_s=min(grant.expires_s, now_s + (self._until_s - count_s) * self._speed))
        return grant
