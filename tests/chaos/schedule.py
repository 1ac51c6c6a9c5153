"""What is done to a night, drawn from a seed: the same seed, the same faults at the same moments of its progress."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

WORKERS = ("w1", "w2", "w3")
DAY_S, HOUR_S = 86_400, 3_600

KINDS = (
    "kill_worker",
    "kill_broker",
    "cut_after_commit",
    "kill_producer",
    "jump_clocks",
    "cut_broker",
    "storm",
    "kill_database",
    "duplicates",
    "cut_database",
    "killer",
    "freeze",
    "slow",
    "kill_scorer",
    "stop_worker",
    "poison",
    "returns",
    "restart_broker",
    "jump_database_clock",
    "stop_database",
    "disk_full",
    "abandon",
)
"""In an order that puts what takes long apart: neighbours make one trial."""

PRIMARY = 2
"""Each trial takes so many kinds in turn, so that few trials in a row have had them all; the rest is drawn."""

LIGHT = tuple(k for k in KINDS if k not in ("killer", "stop_worker", "kill_broker", "restart_broker", "storm"))
"""What may come on top: what neither takes long nor leaves a batch under suspicion."""


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, at which part of the night's work it comes, and how exactly."""

    kind: str
    at: float
    how: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.at:.2f} {self.kind} " + " ".join(f"{k}={v}" for k, v in self.how.items())


@dataclass(frozen=True)
class Schedule:
    """What a trial does: how the programs are started and ended, and the faults in between.

    ``score_early`` starts the scorer beside the producer; ``after_producer`` the workers only when it has ended.
    ``abrupt`` kills everything when the last fault is over and starts anew; else what runs may end its work.
    """

    seed: int
    workers: tuple[str, ...]
    score_early: bool
    after_producer: bool
    abrupt: bool
    faults: tuple[Fault, ...]

    def has(self, kind: str) -> bool:
        """Tell whether a kind of fault is in it."""
        return any(f.kind == kind for f in self.faults)

    def __str__(self) -> str:
        order = "workers after the producer" if self.after_producer else "all at once"
        score = "scorer early" if self.score_early else "scorer late"
        end = "killed and started anew at the end" if self.abrupt else "left to end"
        lines = "".join(f"\n    {fault}" for fault in self.faults)
        return f"seed {self.seed}: {len(self.workers)} workers, {order}, {score}, {end}{lines}"


def draw(seed: int, without: frozenset[str] = frozenset()) -> Schedule:
    """Return the schedule of a seed; kinds of ``without`` cannot be had here and are left out of it."""
    rng = random.Random(f"trial of {seed}")
    kinds = [KINDS[(seed * PRIMARY + n) % len(KINDS)] for n in range(PRIMARY)]
    kinds += rng.sample(LIGHT, rng.choice((1, 1, 2)))
    workers = WORKERS[: rng.choice((2, 2, 3))]
    faults = [_draw_fault(kind, workers, rng) for kind in dict.fromkeys(kinds)]
    schedule = Schedule(
        seed,
        workers,
        # What befalls the scorer must find one.
        score_early=rng.random() < 0.6 or any(f.kind == "kill_scorer" or f.how.get("who") == "score" for f in faults),
        after_producer=rng.random() < 0.4,
        abrupt=rng.random() < 0.5,
        faults=tuple(sorted((f for f in faults if f.kind not in without), key=lambda f: f.at)),
    )
    return schedule


def _draw_fault(kind: str, workers: tuple[str, ...], rng: random.Random) -> Fault:
    at = round(rng.uniform(0.0, 0.7), 2)
    who = rng.choice(workers)
    match kind:
        case "kill_worker":
            moment = rng.choice(("deliver", "settle", "settle", "ack", "commit", "now"))
            how = {"who": who, "moment": moment, "nth": rng.randint(1, 3), "passes": rng.random() < 0.5}
        case "kill_producer":
            moment = rng.choice(("publish", "publish", "confirm", "commit", "commit"))
            how = {"moment": moment, "part": round(rng.random(), 2), "passes": rng.random() < 0.5}
            at = 0.0
        case "kill_scorer":
            how = {
                "moment": rng.choice(("commit", "commit", "now")),
                "nth": rng.randint(1, 8),
                "passes": rng.random() < 0.5,
            }
        case "storm":
            how = {"who": who, "kills": rng.randint(3, 4)}
            at = round(rng.uniform(0.0, 0.3), 2)
        case "cut_broker":
            moment = rng.choice(("deliver", "ack", "ack", "publish", "confirm", "now"))
            victim = "produce" if moment in ("publish", "confirm") else who
            how = {"who": victim, "moment": moment, "nth": rng.randint(1, 4), "passes": rng.random() < 0.5}
            at = 0.0 if victim == "produce" else at
        case "cut_database":
            victim = rng.choice((who, who, "produce", "score"))
            moment = rng.choice(("settle", "commit", "now")) if victim == who else "commit"
            how = {"who": victim, "moment": moment, "nth": rng.randint(1, 4), "passes": rng.random() < 0.5}
            at = at if victim == who else 0.0
        case "cut_after_commit":
            how = {"who": who, "nth": rng.randint(1, 4), "told": rng.random() < 0.5}
        case "freeze":
            lines = rng.choice(("broker", "database", "both"))
            how = {"who": who, "lines": lines, "for_s": round(rng.uniform(3, 14), 1), "cut": rng.random() < 0.5}
        case "abandon":
            how = {
                "who": who,
                "lines": rng.choice(("broker", "database", "both")),
                "for_s": round(rng.uniform(3, 9), 1),
            }
        case "slow":
            how = {"who": who, "delay_s": round(rng.uniform(0.02, 0.15), 3), "chunk": rng.choice((256, 2048, 8192))}
            how |= {"for_s": round(rng.uniform(3, 6), 1)}
        case "kill_broker" | "restart_broker" | "kill_database" | "stop_database":
            how = {"down_s": round(rng.uniform(0, 1.5), 1)}
        case "disk_full":
            how = {"leave_bytes": rng.choice((0, 0, 50_000, 400_000)), "for_s": round(rng.uniform(1.5, 4), 1)}
        case "duplicates":
            how = {"copies": rng.randint(1, 3), "part": round(rng.uniform(0.3, 1), 2)}
        case "returns":
            how = {"times": rng.randint(3, 7)}
            at = round(rng.uniform(0.0, 0.3), 2)
        case "stop_worker":
            how = {"who": who, "for_s": 17}
            at = round(rng.uniform(0.0, 0.4), 2)
        case "jump_clocks":
            how = {
                "jumps": [rng.choice((1, -1)) * rng.choice((HOUR_S, 7 * HOUR_S, DAY_S, 40 * DAY_S)) for _ in range(3)]
            }
        case "jump_database_clock":
            jumps = [rng.choice((HOUR_S, DAY_S)), -rng.choice((HOUR_S, 7 * HOUR_S)), rng.choice((0, DAY_S))]
            how = {"jumps": jumps[: rng.randint(1, 3)]}
        case "poison":
            how = {"copies": rng.randint(1, 2)}
        case "killer":
            how = {}
            at = 0.0
        case _:
            raise ValueError(f"no such fault: {kind}")
    return Fault(kind, at, how)
