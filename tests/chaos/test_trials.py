"""Whatever is done to a night, it ends as the night to which nothing is done.

Real RabbitMQ, real PostgreSQL, the real programs; see :mod:`tests.chaos.schedule` for what is drawn from a seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.chaos.night import open_trial
from tests.chaos.outcome import Outcome, judge
from tests.chaos.programs import Ailing
from tests.chaos.references import References
from tests.chaos.schedule import Schedule, draw
from tests.chaos.trial import run_trial
from tests.chaos.world import World, unavailable


def test_a_disturbed_night_ends_like_any_other(
    trial_seed: int, world: World, references: References, record_property: Callable[[str, object], None]
) -> None:
    absent = unavailable(world)
    schedule = draw(trial_seed, frozenset(absent))
    print(schedule)
    usual = references.usual()
    if schedule.has("killer"):
        usual = references.usual(killer=True)
    folder = world.folder / f"trial-{trial_seed}"
    folder.mkdir()
    wrong, facts = asyncio.run(_try(world, folder, schedule, usual))
    record_property("chaos", json.dumps(facts | {"absent": absent}))
    if wrong:
        kept = Path(tempfile.mkdtemp(prefix=f"chaos-{trial_seed}-", dir=os.environ.get("ASTRID_TEST_KEPT")))
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        course = (folder / "trial.log").read_text(encoding="utf-8")
        raise AssertionError("\n".join([*wrong, "", course, f"all output: {kept}"]))
    shutil.rmtree(folder)


async def _try(world: World, folder: Path, schedule: Schedule, usual: Outcome) -> tuple[list[str], dict[str, object]]:
    async with open_trial(world, folder, schedule, sum(usual.batches.values())) as trial:
        convictions: dict[str, int] = {}
        try:
            outcome = await run_trial(trial)
            convictions = dict(outcome.convictions)
            wrong = await judge(trial, outcome, usual)
        except Ailing as exc:
            wrong = [str(exc)]
        return wrong, {"faults": dict(trial.applied), "convictions": convictions}
