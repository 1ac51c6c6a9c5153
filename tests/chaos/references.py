"""The nights that nobody disturbs, against which the others are held."""

from __future__ import annotations

import asyncio
import fcntl
import pickle
import shutil
from pathlib import Path

from tests.chaos.night import open_trial
from tests.chaos.outcome import NEVER_SAID, Outcome, find_said
from tests.chaos.schedule import Fault, Schedule
from tests.chaos.trial import run_trial
from tests.chaos.world import World


class References:
    """The usual outcome of a night, without harm or with the one batch that always kills its worker.

    What one process has found out it leaves in ``shelf`` for the others that run trials at the same time.
    """

    def __init__(self, world: World, shelf: Path) -> None:
        self._world = world
        self._shelf = shelf

    def usual(self, *, killer: bool = False) -> Outcome:
        """Return what a night leaves; it is run when it is first asked for."""
        kept = self._shelf / f"reference-{killer}.pickle"
        with (self._shelf / f"reference-{killer}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_bytes(pickle.dumps(None))
                kept.write_bytes(pickle.dumps(asyncio.run(self._run(killer))))
            found: Outcome | None = pickle.loads(kept.read_bytes())
        assert found is not None, "the night that nobody disturbs failed before: see the first failure"
        return found

    async def _run(self, killer: bool) -> Outcome:
        faults = (Fault("killer", 0.0),) if killer else ()
        schedule = Schedule(0, ("w1", "w2"), False, False, False, faults)
        folder = self._world.folder / f"reference-{killer}"
        folder.mkdir()
        async with open_trial(self._world, folder, schedule) as trial:
            outcome = await run_trial(trial)
        _require_sense(outcome, folder, killer)
        shutil.rmtree(folder)
        return outcome


def _require_sense(outcome: Outcome, folder: Path, killer: bool) -> None:
    """Fail where the reference is no night, or the harness no longer sees what the programs do."""
    total = sum(outcome.batches.values())
    workers = outcome.seen["w1"] + outcome.seen["w2"]
    assert not find_said(folder, NEVER_SAID), find_said(folder, NEVER_SAID)
    assert total >= 30, outcome.batches
    assert set(outcome.batches) == ({"done", "dead"} if killer else {"done"}), outcome.batches
    assert outcome.batches.get("dead", 0) == (1 if killer else 0)
    assert len(outcome.dead) == (1 if killer else 0)
    assert outcome.digest["observation"].rows > 10_000
    assert outcome.tries > 1_000
    assert outcome.digest["observation_revision"].rows == 0
    assert outcome.digest["score"].rows >= 100
    if not killer:
        assert outcome.seen["produce"]["publish"] == total
        assert workers["settle"] == total <= workers["ack"] <= workers["deliver"], workers
    assert outcome.seen["score"]["commit"] >= 3
