"""The faults: each does its harm to a running trial, and ends it again."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aio_pika

from astrid.broker.rabbitmq import open_rabbitmq
from astrid.broker.rabbitmq.link import SETTLE_S
from astrid.wire import decode_batch, encode_batch
from tests.chaos.lines import Trap
from tests.chaos.night import Trial, until

How = dict[str, Any]

SPRUNG_S = 8.0
"""So long a trap waits for its moment; then the harm is done at any moment."""

LINE_OF = {"commit": "database", "settle": "database"}
"""On which line an event is seen, if not on the one to the broker."""


async def kill_worker(trial: Trial, how: How) -> None:
    """Kill -9 a worker at an exact moment: it has been given a batch, has committed one, acknowledges one."""
    async with trial.killing:
        if not await _may_kill(trial):
            return
        await _at(trial, how["who"], how["moment"], how["nth"], how["passes"], trial.programs[how["who"]].kill)


async def storm(trial: Trial, how: How) -> None:
    """Kill a worker again and again, each time as soon as it has been given something."""
    for _ in range(how["kills"]):
        async with trial.killing:
            if await _may_kill(trial):
                await _at(trial, how["who"], "deliver", 1, True, trial.programs[how["who"]].kill)


async def kill_producer(trial: Trial, how: How) -> None:
    """Kill -9 the producer: while it publishes, waits for confirms, or writes its plan."""
    events = {"publish": trial.planned, "confirm": max(trial.planned // 8, 1), "commit": 7}[how["moment"]]
    nth = 1 + int(how["part"] * events)
    await _at(trial, "produce", how["moment"], nth, how["passes"], trial.programs["produce"].kill)


async def kill_scorer(trial: Trial, how: How) -> None:
    """Kill -9 the scorer: while it waits, or while it writes scores."""
    await _at(trial, "score", how["moment"], how["nth"], how["passes"], trial.programs["score"].kill)


async def kill_broker(trial: Trial, how: How) -> None:
    """Kill -9 the broker; it comes again with its data.

    Not in the second after a queue was made: RabbitMQ 3.10 notes it on disk that late, and what is killed before never
    works again (docs/adr/0019-delivery.md). That Astrid entrusts nothing to such a queue is a test of its own.
    """
    async with trial.broker_lock:
        await _queues_noted(trial)
        trial.world.broker.kill()
        await _broker_again(trial, how)


async def restart_broker(trial: Trial, how: How) -> None:
    """Stop the broker in order and start it again."""
    async with trial.broker_lock:
        await asyncio.to_thread(trial.world.broker.stop)
        await _broker_again(trial, how)


async def _queues_noted(trial: Trial) -> None:
    """Wait until there are queues and none is new."""
    seen: list[str] = []

    async def none_is_new() -> bool:
        before, seen[:] = list(seen), await asyncio.to_thread(trial.world.broker.queues, trial.vhost)
        return bool(seen) and seen == before

    await until(none_is_new, 30.0, SETTLE_S)


async def _broker_again(trial: Trial, how: How) -> None:
    await asyncio.sleep(how["down_s"])
    trial.world.broker.spawn()
    await trial.world.broker.ready(trial.vhost)


async def kill_database(trial: Trial, how: How) -> None:
    """Kill -9 all processes of the database; it recovers from its log."""
    async with trial.database_lock:
        await asyncio.to_thread(trial.world.database.kill)
        await asyncio.sleep(how["down_s"])
        await trial.world.database.start()


async def stop_database(trial: Trial, how: How) -> None:
    """Shut the database down at once, without a checkpoint."""
    async with trial.database_lock:
        await asyncio.to_thread(trial.world.database.stop, signal.SIGQUIT)
        await asyncio.sleep(how["down_s"])
        await trial.world.database.start()


async def disk_full(trial: Trial, how: How) -> None:
    """Fill the database's disk, and free it again."""
    async with trial.database_lock:
        database = trial.world.database
        database.fill(how["leave_bytes"])
        try:
            await asyncio.sleep(how["for_s"])
        finally:
            database.free()
        await database.ready()


async def cut_broker(trial: Trial, how: How) -> None:
    """Cut a connection to the broker at an exact moment; what is on its way then arrives, or does not."""
    await _cut(trial, "broker", how)


async def cut_database(trial: Trial, how: How) -> None:
    """Cut a connection to the database, such as between a commit and the reply to it."""
    await _cut(trial, "database", how)


async def _cut(trial: Trial, kind: str, how: How) -> None:
    line = trial.lines[how["who"], kind]
    if how["moment"] == "now":
        line.cut()
        return
    trap = Trap(how["moment"], how["nth"], passes=how["passes"], cuts=True)
    line.traps.append(trap)
    if not await _sprung(trial, trap, how["who"]):
        line.cut()


async def cut_after_commit(trial: Trial, how: How) -> None:
    """Cut both of a worker's lines between the commit of a batch and its acknowledgement.

    The worker is ``told`` of the commit, or does not know whether it happened.
    """
    lines = [trial.lines[how["who"], kind] for kind in ("database", "broker")]
    trap = Trap("settle", how["nth"], passes=how["told"], cuts=not how["told"], cuts_lines=lines[1:])
    lines[0].traps.append(trap)
    if not await _sprung(trial, trap, how["who"]):
        for line in lines:
            line.cut()


async def freeze(trial: Trial, how: How) -> None:
    """Let no packet through for some seconds, in silence; then all of them, or the connection is cut."""
    lines = _lines(trial, how)
    for line in lines:
        line.freeze()
    await asyncio.sleep(how["for_s"])
    for line in lines:
        if how["cut"]:
            line.cut()
        line.thaw()


async def abandon(trial: Trial, how: How) -> None:
    """Let the servers see a connection end while the program does not: it is told only seconds later."""
    lines = _lines(trial, how)
    for line in lines:
        line.abandon()
    await asyncio.sleep(how["for_s"])
    for line in lines:
        line.cut()


async def slow(trial: Trial, how: How) -> None:
    """Let few bytes through at a time."""
    lines = [trial.lines[how["who"], kind] for kind in ("database", "broker")]
    for line in lines:
        line.slow(how["delay_s"], how["chunk"])
    await asyncio.sleep(how["for_s"])
    for line in lines:
        line.slow(0.0, 2**16)


def _lines(trial: Trial, how: How) -> list[Any]:
    kinds = ("database", "broker") if how["lines"] == "both" else (how["lines"],)
    return [trial.lines[how["who"], kind] for kind in kinds]


async def stop_worker(trial: Trial, how: How) -> None:
    """Stop a worker for longer than its leases and heartbeats last; then it goes on as if nothing had been."""
    program = trial.programs[how["who"]]

    async def stops() -> bool:
        return program.send(signal.SIGSTOP)

    await until(stops)
    await asyncio.sleep(how["for_s"])
    program.send(signal.SIGCONT)


async def jump_clocks(trial: Trial, how: How) -> None:
    """Set the wall clock of all programs, forth and back."""
    assert trial.clock is not None
    for offset_s in how["jumps"]:
        trial.clock.set(offset_s)
        await asyncio.sleep(0.7)


async def jump_database_clock(trial: Trial, how: How) -> None:
    """Set the wall clock of the database, by which leases and due times are told."""
    assert trial.world.database.clock is not None
    for offset_s in how["jumps"]:
        trial.world.database.clock.set(offset_s)
        await asyncio.sleep(1.0)


async def duplicates(trial: Trial, how: How) -> None:
    """Publish copies of batches, also of those that are done, as a producer that forgot would."""
    async with trial.broker_lock:
        await _queues_there(trial)
        rows = await trial.query('SELECT run_id, body::text AS body FROM batch ORDER BY batch_id COLLATE "C"')
        some = rows[: max(round(how["part"] * len(rows)), 1)]
        batches = [dataclasses.replace(decode_batch(row["body"]), run_id=row["run_id"]) for row in some]
        async with open_rabbitmq(trial.world.broker.url(trial.vhost)) as broker:
            for _ in range(how["copies"]):
                await broker.publish(batches)


async def returns(trial: Trial, how: How) -> None:
    """Take what waits in the queues and give it back, again and again: everything comes under suspicion."""
    async with trial.broker_lock:
        await _queues_there(trial)
        for _ in range(how["times"]):
            async with trial.channel() as channel:
                held = []
                for queue in await trial.work_queues(channel):
                    while (message := await queue.get(fail=False, timeout=60)) is not None:
                        held.append(message)
                for message in held:
                    await message.nack(requeue=True)
            await asyncio.sleep(0.05)


async def poison(trial: Trial, how: How) -> None:
    """Publish what is no batch, or none for us: exactly this may end among the dead letters."""
    async with trial.broker_lock:
        await _queues_there(trial)
        (row,) = await trial.query("SELECT run_id, body::text AS body FROM batch ORDER BY batch_id LIMIT 1")
        good = dataclasses.replace(decode_batch(row["body"]), run_id=row["run_id"])
        queue = f"astrid.{good.source}.{good.lane}"
        bodies = {
            "no JSON": b"\x80\x81 this is no JSON",
            "version": encode_batch(good).replace(b'"version":1', b'"version":99'),
            "too large": encode_batch(good) + b" " * 2**23,
            "unknown source": encode_batch(dataclasses.replace(good, source="usenet", batch_id="")),
        }
        assert b'"version":99' in bodies["version"]
        async with trial.channel() as channel:
            for _ in range(how["copies"]):
                for name, body in bodies.items():
                    await channel.default_exchange.publish(
                        aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), queue
                    )
                    trial.poison.append(name)


async def killer(trial: Trial, how: How) -> None:
    """Let a batch end its worker each time that it runs, as one does that needs more memory than there is."""
    for name in trial.schedule.workers:
        kill = trial.programs[name].kill
        trial.lines[name, "upstream"].traps.append(Trap("request", 1, then=kill, cuts=True, again=True))
    trial.poison.append("killer")
    dead = "SELECT FROM batch WHERE source = 'dockerhub' AND state = 'dead'"
    if not await until(lambda: trial.query(dead), 240.0, 0.3):
        trial.note("the batch that kills was not set aside")


async def _queues_there(trial: Trial) -> None:
    """Wait until the producer has made the queues and written its plan."""

    async def there() -> bool:
        names = trial.world.broker.queues(trial.vhost)
        return any(name.endswith(".nightly") for name in names) and bool(await trial.query("SELECT FROM batch LIMIT 1"))

    await until(there)


async def _may_kill(trial: Trial) -> bool:
    """Wait until no good batch is under heavy suspicion: one whose worker ends thrice while it runs alone is poison.

    Nobody could tell the harm done here from the batch's own, so a third time it is not done.
    """
    spared = "dockerhub" if "killer" in trial.poison else ""

    async def nobody_suspected() -> bool:
        return not await trial.query(
            "SELECT FROM batch WHERE state = 'planned' AND suspect_starts >= 2 AND source <> $1", spared
        )

    if await until(nobody_suspected, 20.0):
        return True
    trial.note("a worker is spared: a good batch has ended two of its kind already")
    return False


async def _at(trial: Trial, who: str, moment: str, nth: int, passes: bool, then: Callable[[], object]) -> None:
    """Do something at an exact moment of a program, or at once where that moment does not come."""
    if moment != "now":
        line = trial.lines[who, LINE_OF.get(moment, "broker")]
        trap = Trap(moment, nth, passes=passes, then=then)
        line.traps.append(trap)
        if await _sprung(trial, trap, who):
            return
        if trap in line.traps:
            line.traps.remove(trap)
    then()


async def _sprung(trial: Trial, trap: Trap, who: str) -> bool:
    """Wait until a trap is sprung; say whether it was, before its program was through or it took too long."""
    waits: Sequence[Awaitable[object]] = [trap.sprung.wait(), trial.programs[who].done.wait()]
    tasks = [asyncio.ensure_future(w) for w in waits]
    try:
        # A producer or scorer is waited for, and a worker that has not begun: their moments come when they come.
        patient = who in ("produce", "score") or not trial.settled
        await asyncio.wait(tasks, timeout=60.0 if patient else SPRUNG_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not trap.sprung.is_set():
        trial.note(f"the {trap.event} of {who} that was waited for did not come")
    return trap.sprung.is_set()


FAULTS: dict[str, Callable[[Trial, How], Awaitable[None]]] = {
    fault.__name__: fault
    for fault in (
        *(kill_worker, storm, kill_producer, kill_scorer, kill_broker, restart_broker, kill_database, stop_database),
        *(disk_full, cut_broker, cut_database, cut_after_commit, freeze, abandon, slow, stop_worker, jump_clocks),
        *(jump_database_clock, duplicates, returns, poison, killer),
    )
}
