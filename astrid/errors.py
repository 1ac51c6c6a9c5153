"""One exception tree, sorted by what the caller must do about it.

The docstring of a class is its default message. A message says what happened, to which
thing, and what to do next; it never carries a secret. Exceptions of libraries stop at
the adapter that calls them (``raise … from exc``).
"""

from __future__ import annotations

import inspect


class AstridError(Exception):
    """Astrid stopped for a reason that it did not name."""

    def __init__(self, message: str | None = None) -> None:
        text = message or inspect.cleandoc(type(self).__doc__ or type(self).__name__)
        # A message may quote an upstream and may be kept in the database, whose texts cannot hold NUL.
        super().__init__(text.replace("\0", "\N{REPLACEMENT CHARACTER}"))


class ConfigError(AstridError):
    """The configuration is wrong: mend the setting that is named, then start again."""


class StoreError(AstridError):
    """The database refused or did not answer: nothing of this unit was written, try again."""


class StoreRefused(StoreError):
    """The database refuses these very values: nothing of this unit was written, the same again will not help."""


class BrokerError(AstridError):
    """The message broker refused or did not answer: unacknowledged batches will be delivered again."""


class SourceError(AstridError):
    """An upstream could not be read."""


class Unavailable(SourceError):
    """The upstream failed or timed out: try the same request again later."""


class Malformed(SourceError):
    """The upstream's answer is not what its contract says: keep the reason, do not guess a value."""


class EntityGone(SourceError):
    """The upstream says that this entity is deleted, private or blocked: a gap, no retry today."""


class TooLate(SourceError):
    """The moment for this snapshot has passed: the day stays a gap."""


class TooLarge(SourceError):
    """The upstream gave up on the size of the request: split the batch."""


class TokenDead(SourceError):
    """The upstream refuses this token for good: replace it; the others go on."""


class NoToken(SourceError):
    """No live token is left for this upstream: set ASTRID_GITHUB_TOKENS to at least one that works."""


class RateLimited(SourceError):
    """The upstream asks to wait.

    ``retry_after_s`` is the wait in seconds that the upstream, or the budget, demands.
    """

    def __init__(self, message: str | None = None, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _rate_limited, (str(self), self.retry_after_s)


def _rate_limited(message: str, retry_after_s: float) -> RateLimited:
    return RateLimited(message, retry_after_s=retry_after_s)
