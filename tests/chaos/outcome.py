"""What a night left, and whether it is what an undisturbed night leaves."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from astrid.catalog import METRIC_BY_NAME
from astrid.errors import Malformed
from astrid.models import Batch
from astrid.store import TableDigest, open_store
from astrid.wire import decode_batch
from tests.chaos.night import Trial
from tests.chaos.world import NIGHT

NEVER_SAID = re.compile(
    r"Traceback \(most recent call last\)|never retrieved|never awaited|Task was destroyed|Fatal Python error"
)
"""What no program says, whatever is done to it."""
LOST = re.compile(r"were lost on their way")
"""What a program says of batches that nothing was heard of in time. A database whose clock jumps makes it say so."""


REASONS = {
    "no JSON": r"not a batch: JSONDecodeError|not a batch",
    "version": r"message of version '?99",
    "too large": r"bytes|large",
    "unknown source": r"usenet|source",
    "killer": r"its worker ended 3 times",
}
"""What the reason of a dead letter says, by what was planted."""

MOVING_ID = METRIC_BY_NAME["depsdev_dependents"].metric_id
_WITH_BATCHES = """
    SELECT kind, state FROM run AS r WHERE day = $1 AND EXISTS (SELECT FROM batch AS b WHERE b.run_id = r.run_id)
    ORDER BY run_id"""
_NOT_CLOSED = "SELECT run_id, state FROM run WHERE state NOT IN ('complete', 'gaps')"


@dataclass(frozen=True)
class Outcome:
    """What a night left: the digest of its tables, how often it wrote a gap, its runs that had batches, the batches by
    state, what is in the dead-letter queue, what the lines of each program saw, and how many requests broke
    which limit of an upstream."""

    digest: dict[str, TableDigest]
    tries: int
    runs: tuple[tuple[str, str], ...]
    batches: dict[str, int]
    dead: tuple[str, ...]
    seen: dict[str, Counter[str]]
    convictions: Counter[str]


async def read_outcome(trial: Trial) -> Outcome:
    """Read what a night left.

    One counter moved while it was counted (:class:`tests.chaos.wire.MovingReader`), so its values are of no two nights
    the same. That it was counted once stands in the revisions; then the values are made equal.
    """
    await trial.query("UPDATE observation SET value = 0 WHERE metric_id = $1", MOVING_ID)
    (tries,) = await trial.query("SELECT coalesce(sum(attempts), 0) AS count FROM gap")
    async with open_store(trial.world.database.url(trial.database), pool_size=1) as store:
        digest = dict(await store.digest())
    runs = await trial.query(_WITH_BATCHES, NIGHT)
    batches = await trial.query("SELECT state, count(*) AS count FROM batch GROUP BY state ORDER BY state")
    seen: dict[str, Counter[str]] = {}
    for (name, _), line in trial.lines.items():
        seen.setdefault(name, Counter()).update(line.seen)
    return Outcome(
        digest,
        int(tries["count"]),
        tuple((r["kind"], r["state"]) for r in runs),
        {r["state"]: r["count"] for r in batches},
        tuple(sorted(await read_dead(trial))),
        seen,
        await trial.world.convictions(),
    )


async def read_dead(trial: Trial) -> list[str]:
    """Return of each dead letter its reason; they stay where they are."""
    if "astrid.dead" not in trial.world.broker.queues(trial.vhost):
        return []
    reasons = []
    async with trial.channel() as channel:
        queue = await channel.declare_queue("astrid.dead", passive=True)
        while (message := await queue.get(fail=False, timeout=60)) is not None:
            reasons.append(str(message.headers.get("x-astrid-reason", "without a reason")))
    return reasons


async def count_messages(trial: Trial) -> dict[str, int]:
    """Return how many messages lie ready in each work queue."""
    counts: dict[str, int] = {}
    async with trial.channel() as channel:
        for name in trial.world.broker.queues(trial.vhost):
            if name.endswith((".nightly", ".backfill")):
                queue = await channel.declare_queue(name, passive=True)
                counts[name] = int(queue.declaration_result.message_count or 0)
    return counts


async def read_left(trial: Trial) -> list[Batch | str]:
    """Return what is left in the work queues: batches, or what is none."""
    left: list[Batch | str] = []
    async with trial.channel() as channel:
        for name in trial.world.broker.queues(trial.vhost):
            if name.endswith((".nightly", ".backfill")):
                queue = await channel.declare_queue(name, passive=True)
                while (message := await queue.get(fail=False, timeout=60)) is not None:
                    with suppress(Malformed):
                        left.append(decode_batch(message.body))
                        continue
                    left.append(f"in {name}: {message.body[:80]!r}")
    return left


def find_said(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Return the lines of the programs' output in which a pattern is found."""
    found = []
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if log.name != "trial.log" and pattern.search(line):
                found.append(f"{log.name}: {line.strip()}")
    return found


async def judge(trial: Trial, found: Outcome, usual: Outcome) -> list[str]:
    """Return what is wrong with a night: how it differs from the usual one, what was lost, doubled or left behind."""
    wrong = []
    for table, expected in usual.digest.items():
        if found.digest[table] != expected:
            wrong.append(f"table {table} differs: {found.digest[table]}, usually {expected}")
    if found.tries != usual.tries:
        wrong.append(f"gaps were written {found.tries} times, usually {usual.tries}: something was committed twice")
    if found.batches != usual.batches:
        wrong.append(f"batches by state: {found.batches}, usually {usual.batches}")
    if found.runs != usual.runs:
        wrong.append(f"runs with batches: {found.runs}, usually {usual.runs}")
    wrong += [f"run {r['run_id']} is {r['state']}" for r in await trial.query(_NOT_CLOSED)]
    planted = Counter(trial.poison)
    letters = Counter(_recognise(reason) for reason in found.dead)
    states = {r["batch_id"]: r["state"] for r in await trial.query("SELECT batch_id, state FROM batch")}
    for left in await read_left(trial):
        if isinstance(left, str) or states.get(left.batch_id, "planned") == "planned":
            wrong.append(f"left in a queue and not done: {left}")
        elif states[left.batch_id] == "dead":
            letters["killer"] += (
                1  # its worker was killed between the commit and the dead letter: the next one writes it
            )
    # Dead letters too are delivered at least once: one that a fault doubled is no more than planted.
    if set(letters) != set(planted) or planted - letters:
        wrong.append(f"dead letters: {dict(letters)}, planted: {dict(planted)}; reasons: {found.dead}")
    wrong += find_said(trial.folder, NEVER_SAID)
    if not trial.schedule.has("jump_database_clock"):
        wrong += find_said(trial.folder, LOST)
    wrong += [f"{p.name} is still there: pid {p.lives[-1].pid}" for p in trial.programs.values() if p.is_alive]
    return wrong


def _recognise(reason: str) -> str:
    """Return what was planted, by the reason that a dead letter carries."""
    for name, said in REASONS.items():
        if re.search(said, reason):
            return name
    return f"unexpected: {reason}"
