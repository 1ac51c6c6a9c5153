"""As of a past moment every question is answered as it was answered then, whatever was written since."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import numpy as np

from astrid.store import Store, open_store
from astrid.store.dumps import export_database, import_database
from tests.store.conftest import Server, _create_database, _drop_database
from tests.store.histories import BEGIN, History, ask_all, differing

ROUNDS = 3
WRITES_PER_QUESTION = 3


async def test_yesterdays_answers_are_given_again(store: Store, connection: Any, server: Server, seed: int) -> None:
    """Each flavour has a history of its own."""
    history = History(store, connection, np.random.default_rng([seed, *server.flavour.name.encode()]))
    await history.begin()
    told: dict[datetime, tuple[dict[str, Any], int]] = {}
    steps = history.plan(ROUNDS)
    for n, step in enumerate(steps):
        # Some things happen within one moment: the last answer of it is the moment's.
        history.now += timedelta(seconds=int(history.rng.integers(3)))
        told.pop(history.now, None)
        await step()
        if n % WRITES_PER_QUESTION == 0 or n == len(steps) - 1:
            told[history.now] = await ask_all(history, None), n
    last = told[history.now][0]
    changed: set[str] = set()
    names = [step.__name__ for step in steps]
    for moment, (answers, n) in told.items():
        again = await ask_all(history, moment)
        assert differing(answers, again) == [], f"as of {moment}, after {names[: n + 1]}, then {names[n + 1 :]}"
        changed |= set(differing(answers, last))
    kinds = {name.split()[0] for name in last}
    assert {name.split()[0] for name in changed} == kinds, "each kind of answer was another one once"
    ever = await ask_all(history, BEGIN - timedelta(seconds=1))
    for name, answer in ever.items():
        if isinstance(answer, np.ndarray):
            assert answer.all() if answer.dtype == bool else np.isnan(answer).all(), name
        else:
            assert not answer, f"before the beginning there was nothing: {name}"


async def test_a_restored_database_answers_the_same(
    embedded_server: Server, embedded_url: str, tmp_path: Path, seed: int
) -> None:
    """A dump carries what was known when: of a restored database every past moment can be asked."""
    connection = await asyncpg.connect(embedded_url)
    async with open_store(embedded_url) as store:
        history = History(store, connection, np.random.default_rng([seed, 34]))
        await history.begin()
        told: dict[datetime, dict[str, Any]] = {}
        for n, step in enumerate(history.plan(1)):
            history.now += timedelta(seconds=1)
            await step()
            if n % 5 == 4:
                told[history.now] = await ask_all(history, None)
    await connection.close()
    await export_database(embedded_url, tmp_path / "dump", code_version="0.1.0")
    name = f"astrid_test_{uuid4().hex[:12]}"
    await _create_database(embedded_server, name)
    try:
        await import_database(embedded_server.direct(name), tmp_path / "dump")
        async with open_store(embedded_server.direct(name)) as history.store:
            for moment, answers in told.items():
                assert differing(answers, await ask_all(history, moment)) == [], f"as of {moment}"
    finally:
        await _drop_database(embedded_server, name)
