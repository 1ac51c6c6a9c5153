"""Who gets a bucket's hours if not all fit: snapshots first, tasks fairly, those who waited longest. Pure.

A task that declares how much of a night it takes at most (``Task.hours``) gets no more, however much room there is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final, TypeVar

from astrid.models import Entity
from astrid.pipeline.asks import Ask
from astrid.sources.source import Task

Unit = TypeVar("Unit")

DATED_SHARE: Final = 0.25
"""What dated tasks keep of a bucket if snapshots alone would take all of it.

A snapshot that is not taken tonight is lost, a dated value can still be had: but only until its upstream forgets it.
"""

Price = Callable[[Sequence[Ask]], float]
"""Hours that asks take at the limits of their bucket."""

Rank = Callable[[Task, Entity], float]
"""How urgently an entity is asked for: larger goes first."""


def fit(asks: Sequence[Ask], hours: float, price: Price, rank: Rank) -> list[Ask]:
    """Return what fits into ``hours`` of one bucket; all of it, as it came, if it does.

    Whom a task has no room for is left out of its asks. Windows, which are about everybody, are left out oldest first.
    """
    grouped = [(key, list(own)) for key, own in groupby(asks, key=lambda a: (a.source.name, a.task.name))]
    by_task = {key: own for key, every in grouped if (own := _trim(every, every[0].task.hours, price, rank))}
    bounded = [ask for own in by_task.values() for ask in own]
    if price(bounded) <= hours:
        return bounded
    demand = {key: price(own) for key, own in by_task.items()}
    dated = {key: need for key, need in demand.items() if by_task[key][0].task.timing == "dated"}
    snapshots = {key: need for key, need in demand.items() if key not in dated}
    first = share(snapshots, hours - min(sum(dated.values()), DATED_SHARE * hours))
    allowance = first | share(dated, hours - sum(first.values()))
    return [ask for key, own in by_task.items() for ask in _trim(own, allowance[key], price, rank)]


def share(demand: Mapping[tuple[str, str], float], supply: float) -> dict[tuple[str, str], float]:
    """Divide a supply so that the smallest share is as large as can be (max-min fairness)."""
    shares = {}
    for n, key in enumerate(sorted(demand, key=lambda k: (demand[k], k))):
        shares[key] = min(demand[key], supply / (len(demand) - n))
        supply -= shares[key]
    return shares


def _trim(asks: Sequence[Ask], hours: float, price: Price, rank: Rank) -> list[Ask]:
    """Keep as much of one task as fits: the longest prefix of its units in the order of their urgency."""
    if price(asks) <= hours:
        return list(asks)
    if asks[0].task.span == "windows":
        newest = sorted(asks, key=lambda a: a.last, reverse=True)
        return sorted(newest[: _longest(newest, hours, price)], key=lambda a: a.first)
    units = [(n, e) for n, ask in enumerate(asks) for e in ask.entities]
    # Of equally urgent ones lots are drawn, anew each night: a wait that is longer than the store is looked through is
    # known of nobody, and an order that is always the same would never reach the last.
    random.Random(asks[0].last.toordinal()).shuffle(units)
    urgent = sorted(units, key=lambda unit: -rank(asks[unit[0]].task, unit[1]))

    def kept(units: Sequence[tuple[int, Entity]]) -> list[Ask]:
        chosen = {(n, e.entity_id) for n, e in units}
        some = [
            replace(ask, entities=tuple(e for e in ask.entities if (n, e.entity_id) in chosen))
            for n, ask in enumerate(asks)
        ]
        return [ask for ask in some if ask.entities]

    return kept(urgent[: _longest(urgent, hours, lambda units: price(kept(units)))])


def _longest(units: Sequence[Unit], hours: float, price: Callable[[Sequence[Unit]], float]) -> int:
    """Return how many units, from the first, cost at most ``hours``; more units never cost less."""
    low, high = 0, len(units)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if price(units[:middle]) <= hours else (low, middle - 1)
    return low
