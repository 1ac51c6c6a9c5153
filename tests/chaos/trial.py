"""The course of one trial: the night begins, the faults come, the night ends."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.chaos.faults import FAULTS
from tests.chaos.night import Trial, until
from tests.chaos.outcome import Outcome, count_messages, read_outcome
from tests.chaos.programs import FINE, Ailing, Program
from tests.chaos.schedule import Fault

END_S = 100.0
"""So long the programs may take to end their work when the faults are over. Less than the two minutes after which the
product publishes again what a broker lost: of these servers, none may lose anything."""


async def run_trial(trial: Trial) -> Outcome:
    """Run the night with its faults, to its end, and return what it left.

    Raises
    ------
    Ailing
        If a program did what none may do, or the night does not end.
    """
    schedule = trial.schedule
    faults = [asyncio.create_task(_apply(trial, fault)) for fault in schedule.faults]
    try:
        trial.start("produce")
        if schedule.score_early:
            trial.start("score")
        if schedule.after_producer:
            await trial.ended("produce", END_S)
        for name in schedule.workers:
            trial.start(name)
        while faults and any(not f.done() for f in faults):
            await asyncio.wait([*faults], timeout=0.5)
            trial.complain()
        for fault in faults:
            fault.result()
    finally:
        for fault in faults:
            fault.cancel()
        await asyncio.gather(*faults, return_exceptions=True)
    for line in trial.lines.values():
        line.heal()
    await (_begin_anew(trial) if schedule.abrupt else _let_end(trial))
    outcome = await read_outcome(trial)
    trial.note(f"ended: batches {outcome.batches}, requests that broke a limit: {dict(outcome.convictions)}")
    return outcome


async def _apply(trial: Trial, fault: Fault) -> None:
    if fault.at > 0:
        await trial.reach(round(fault.at * trial.planned), 30.0)
    trial.note(f"{fault}")
    await FAULTS[fault.kind](trial, fault.how)
    trial.applied[fault.kind] += 1
    trial.note(f"{fault.kind} is over")


async def _let_end(trial: Trial) -> None:
    """Let what runs end its work, then stop the workers in order."""
    trial.note("the faults are over: what runs may end")
    deadline = time.monotonic() + END_S
    await trial.ended("produce", END_S)
    if not trial.schedule.score_early:
        trial.start("score")
    while not trial.programs["score"].done.is_set():
        await asyncio.wait([trial._minders["score"]], timeout=0.5)
        trial.complain()
        if time.monotonic() > deadline:
            raise Ailing(f"the night did not end within {END_S:.0f} s after the last fault")
    await _serve_again(trial)
    for name in trial.schedule.workers:
        await _tell_to_stop(trial.programs[name])
    for name in trial.schedule.workers:
        await trial.ended(name, 30)
        code = trial.programs[name].lives[-1].code
        if code not in (0, -signal.SIGTERM):
            raise Ailing(f"{name} was told to stop and ended with {code}")


async def _tell_to_stop(program: Program) -> None:
    """Stop a worker in order; one that a fault has just killed has a life to begin before it can be told."""

    async def lives() -> bool:
        return program.is_alive

    await until(lives, 20.0)
    program.wanted = False
    program.send(signal.SIGTERM)


async def _serve_again(trial: Trial) -> None:
    """Let the workers take what the faults left in the queues: copies of what is done already."""

    async def taken() -> bool:
        return not sum((await count_messages(trial)).values())

    await until(taken, 20.0, 0.2)


async def _begin_anew(trial: Trial) -> None:
    """Kill everything, then let the programs run one after the other, as somebody at a terminal would."""
    trial.note("the faults are over: everything is killed and started anew")
    await trial.close()
    for name in ("produce", *trial.schedule.workers, "score"):
        program = trial.programs[name]
        program.wanted, program.serves = True, False
        if name in trial.schedule.workers:
            program.arguments = ["work", "--name", name, "--until-empty"]
    await _must_end(trial, "produce")
    await asyncio.gather(*(_must_end(trial, name) for name in trial.schedule.workers))
    await _must_end(trial, "score")


async def _must_end(trial: Trial, name: str) -> None:
    code = await trial.programs[name].run(END_S)
    if code not in FINE:
        raise Ailing(f"{name} ended with {code} when nothing disturbed it any more")
