"""Answers kept for conditional requests, in the database: they outlive the worker that was told them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import orjson

from astrid.answers import StoredAnswer
from astrid.errors import StoreError
from astrid.store.pool import Connection
from astrid.store.queries import load_queries

if TYPE_CHECKING:
    from astrid.store import Store

log = logging.getLogger(__name__)

FLUSH_AT: Final = 64
MAX_UNWRITTEN: Final = 4 * FLUSH_AT
"""Beyond this many, answers that the database does not take are forgotten: a cache may forget, memory may not grow."""

Key = tuple[str, bytes]

_SQL: Final = load_queries("answers")


async def read_answer(connection: Connection, token: str, address: bytes) -> StoredAnswer | None:
    """See :meth:`astrid.store.Store.read_answer`."""
    row = await connection.fetchrow(_SQL["read_answer"], token, address)
    if row is None:
        return None
    return StoredAnswer(row["etag"], row["last_modified"], orjson.loads(row["headers"]), row["body"])


async def write_answers(
    connection: Connection, answers: Sequence[tuple[Key, StoredAnswer]], confirmed: Sequence[Key], now: datetime
) -> None:
    """See :meth:`astrid.store.Store.write_answers`."""
    # In one order, so that two workers never wait for each other.
    rows = [
        (token, address, a.etag, a.last_modified, orjson.dumps(dict(a.headers)).decode(), a.body, now)
        for (token, address), a in sorted(answers, key=lambda pair: pair[0])
    ]
    await connection.executemany(_SQL["write_answer"], rows)
    await connection.executemany(_SQL["touch_answer"], [(*key, now) for key in sorted(confirmed)])


class StoreAnswers:
    """An :class:`~astrid.answers.AnswerCache` over the store; writes by the handful, and never fails a request.

    Parameters
    ----------
    store
        The open store.
    now
        Reads the run's moment.
    """

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._unwritten: dict[Key, StoredAnswer] = {}
        self._confirmed: set[Key] = set()
        self._is_away = False

    async def get(self, token: str, address: bytes) -> StoredAnswer | None:
        """See :class:`~astrid.answers.AnswerCache`; None also where the database does not answer."""
        key = (token, address)
        if key in self._unwritten:
            return self._unwritten[key]
        try:
            answer = await self._store.read_answer(token, address)
        except StoreError as exc:
            # Once per outage: every request of a night comes through here.
            log.log(logging.DEBUG if self._is_away else logging.WARNING, "no kept answer can be read: %s", exc)
            self._is_away = True
            return None
        self._is_away = False
        if answer is not None:
            # Asked for is as good as confirmed: what has changed is written anew.
            self._confirmed.add(key)
        return answer

    async def put(self, token: str, address: bytes, answer: StoredAnswer) -> None:
        """See :class:`~astrid.answers.AnswerCache`."""
        if len(self._unwritten) >= MAX_UNWRITTEN:
            self._unwritten.clear()
        self._unwritten[token, address] = answer
        if len(self._unwritten) >= FLUSH_AT:
            await self.flush()

    async def flush(self) -> None:
        """Write what is new; what the database does not take stays for the next time."""
        answers, confirmed = dict(self._unwritten), set(self._confirmed)
        if not answers and not confirmed:
            return
        try:
            await self._store.write_answers(list(answers.items()), list(confirmed), self._now())
        except StoreError as exc:
            log.warning("%d answers are not kept: %s", len(answers), exc)
            return
        for key, answer in answers.items():
            if self._unwritten.get(key) is answer:
                del self._unwritten[key]
        self._confirmed -= confirmed
