"""Asking GitHub about many repositories, some of which it cannot answer for, and telling these from an outage.

A query that GitHub gives up on (502, an HTML page, resource limits) is halved until it passes, and grows back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count
from math import gcd
from typing import Final

from astrid.errors import Malformed, TooLarge, Unavailable
from astrid.models import Entity, Request, Response
from astrid.sources.source import PATIENCE

MAX_FAILURES: Final = 14
"""Queries that may fail in a row before GitHub itself is doubted: six halve 100 repositories down to one, and eight
ask for one alone, each far from the last."""
SPREAD: Final = 8
"""Into how many steps a batch is divided when repositories far from each other are tried."""
GROWS_AFTER: Final = 2
"""Clean answers after which a halved query doubles again."""
ALONE: Final = "GitHub gives up on this repository alone"
UNREADABLE: Final = "GitHub's answer about this repository alone cannot be read"
SILENT: Final = "GitHub stopped answering before this repository was asked for"

Question = Callable[[Sequence[Entity]], Request]
"""Builds the query about some entities, none of them too."""
Read = Callable[[Response, Sequence[Entity]], Sequence[Entity]]
"""Takes in the answer about some entities and returns those that a cut one does not state, not all of them."""


@dataclass(slots=True)
class Inquiry:
    """What one batch asks of GitHub, in queries as large as GitHub bears, and whether GitHub answers it.

    One repository that GitHub cannot answer makes every query fail that names it; an outage makes all fail. They are
    told apart by ``answered``: whether any query of the batch, of whatever kind, was answered. ``said`` is what
    GitHub said last when it gave up.
    """

    attempt: int
    answered: bool = False
    said: str = ""

    def ask(
        self, entities: Sequence[Entity], largest: int, question: Question, read: Read
    ) -> Generator[Request, Response, tuple[list[tuple[Entity, str]], list[Entity]]]:
        """Ask about all entities; return whom GitHub gives up on and why, and whom nothing is known of yet.

        A query that fails is halved, down to one entity, and doubles again after two clean answers. Until GitHub has
        answered something, nobody is given up: after ``MAX_FAILURES`` queries, or when each one was tried alone, all
        entities are returned as undecided (see :meth:`decide`); otherwise none is. Once it has answered, an entity
        that fails alone is given up, however many there are and wherever they stand.

        For n entities, whatever the answers are, :meth:`ask`, :meth:`decide` and :meth:`ask` again send at most
        2 n + 21 queries: each that is answered or that gives one up settles an entity; of those that are halved there
        are no more than 6, and one for every two that were answered; ``MAX_FAILURES`` fail before the first answer;
        and of every ``MAX_FAILURES`` in a row one asks whether GitHub answers at all.

        Raises
        ------
        Unavailable
            While the batch's patience lasts, if GitHub stops answering. From then on the rest is given up.
        Malformed
            While the batch's patience lasts, if an answer is no GraphQL answer. From then on that is a failure too.
        """
        waiting = deque(entities)
        given_up: list[tuple[Entity, str]] = []
        # Without a common divisor it meets everybody before anybody again.
        stride = next(s for s in count(max(1, len(entities) // SPREAD)) if gcd(s, len(entities)) == 1)
        size, clean, in_a_row, alone = largest, 0, 0, 0
        while waiting:
            group = [waiting.popleft() for _ in range(min(size, len(waiting)))]
            answer = yield question(group)
            try:
                again = read(answer, group)
            except (TooLarge, Unavailable, Malformed) as exc:
                if isinstance(exc, Malformed) and self.attempt < PATIENCE:
                    raise
                in_a_row += 1
                self.said = f"GitHub gave up on {in_a_row} queries in a row: {exc}"
                size, clean = max(1, len(group) // 2), 0
                if self.answered and len(group) == 1:
                    given_up.append((group[0], UNREADABLE if isinstance(exc, Malformed) else ALONE))
                else:
                    waiting.extendleft(reversed(group))
                if not self.answered:
                    if len(group) == 1:
                        # Its neighbours may be as bad: what fails together was often found together.
                        alone += 1
                        waiting.rotate(-stride)
                    if in_a_row == MAX_FAILURES or alone == len(entities):
                        return given_up, list(entities)
                elif in_a_row % MAX_FAILURES == 0 and waiting and not (yield from self._is_up(question, read)):
                    if self.attempt < PATIENCE:
                        raise Unavailable(self.said) from exc
                    return given_up + [(entity, SILENT) for entity in waiting], []
                continue
            self.answered, in_a_row = True, 0
            if again:
                # A part was answered. Where it is none, the query was too large as a whole.
                waiting.extendleft(reversed(again))
                size, clean = max(1, min(len(group) - len(again), len(group) // 2)), 0
                continue
            clean += 1
            if clean >= GROWS_AFTER and size < largest:
                size, clean = min(largest, 2 * size), 0
        return given_up, []

    def decide(self, question: Question, read: Read) -> Generator[Request, Response, None]:
        """Say what it means that GitHub has answered nothing: an outage, or that it can answer for none of these.

        Raises
        ------
        Unavailable
            While the batch's patience lasts: a later attempt finds it whole. From then on, if GitHub does not even
            answer the same query about nobody; if it does, entities are given up from here on.
        """
        if self.attempt < PATIENCE or not (yield from self._is_up(question, read)):
            raise Unavailable(self.said)
        self.answered = True

    def _is_up(self, question: Question, read: Read) -> Generator[Request, Response, bool]:
        answer = yield question(())
        try:
            read(answer, ())
        except (TooLarge, Unavailable, Malformed):
            return False
        return True
