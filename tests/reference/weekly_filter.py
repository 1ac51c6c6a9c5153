"""The weekly filter of one series, slow and obvious: floats, dicts and loops.

Written from the specification alone (docs/methodology.md), in double precision, to be held against
``astrid.scoring.kernels``. ``None`` is "not known". Nothing here is clever, and nothing may become so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NUMBERS = {
    "stock": {"slow": (10.0, 0.1), "fast": (10.0, 1.0), "kappa": 10.0},
    "flow": {"slow": (0.05, 0.002), "fast": (0.1, 0.02), "kappa": 3.0},
}
PHI, CLIP, DELTA = 1.5, 2.0, 0.06
DIFFUSE = 1e7


def gain_table(ql: float, qb: float, length: int) -> list[tuple[float, float, float, float]]:
    """Return (alpha, beta, S, Pbb) for the updates 1 .. length, index 0 unused; Riccati recursion from P = 1e7 I."""
    table = [(0.0, 0.0, math.inf, math.inf)]
    ll, lb, bb = DIFFUSE, 0.0, DIFFUSE
    for k in range(1, length + 1):
        if k > 1:
            ll, lb, bb = ll + 2 * lb + bb + ql, lb + bb, bb + qb
        s = ll + 1.0
        alpha, beta = ll / s, lb / s
        bb = bb - beta * lb
        lb = lb - alpha * lb
        ll = ll - alpha * ll
        table.append((alpha, beta, s, bb))
    return table


TABLES = {(kind, speed): gain_table(*NUMBERS[kind][speed], 250) for kind in NUMBERS for speed in ("slow", "fast")}  # type: ignore[misc]


def is_count(value: float) -> bool:
    return not math.isnan(value) and 0 <= value <= 1e15


def new_phase() -> dict[str, Any]:
    speed = {"l": 0.0, "b": 0.0, "s2": 0.0, "u": 0.0}
    return {"k": 0, "silent": 0, "y": None, "slow": dict(speed), "fast": dict(speed)}


def filter_series(values: Sequence[float], kind: str, outages: Sequence[bool] | None = None) -> list[dict[str, Any]]:
    """Return one dict per day with the names of the kernel's outputs; flags as a set of names."""
    numbers = NUMBERS[kind]
    kappa = float(numbers["kappa"])  # type: ignore[arg-type]
    phases = [new_phase() for _ in range(7)]
    cleaned: list[float | None] = []  # per day: level of a stock, count of a flow
    counts: list[float] = []  # per day: what came (may be negative for a stock)
    offset, last, last_seen = 0.0, None, None
    answers = []
    for t, raw in enumerate(values):
        phase = phases[t % 7]
        outage = outages is not None and outages[t]
        seen = is_count(raw) and not outage
        flags = set()
        silent_days = None if last_seen is None and not seen else 0 if seen else t - last_seen
        born = silent_days is not None
        week_ago = cleaned[t - 7] if t >= 7 else None

        if kind == "flow":
            if seen:
                value: float | None = raw
            elif week_ago is not None and silent_days is not None and silent_days <= 35:
                value = min(week_ago * math.exp(max(-0.5, min(0.5, phase["slow"]["b"]))), 1e15)
            else:
                value = None
            cleaned.append(value)
            counts.append(value or 0.0)
            week = cleaned[t - 6 : t + 1] if t >= 6 else [None]
            reading = born and silent_days < 7 and all(v is not None for v in week)
            total = sum(v for v in week if v is not None) if reading else None
            y = math.log(total + kappa) if reading else None
            floor = PHI / (total + kappa) if reading else None
            events = total
        else:
            if seen:
                value = raw + offset
                if last is not None and last - value > max(20.0, 0.10 * last):
                    offset += last - value
                    value = last
                    flags.add("RESET")
                counts.append(0.0)
                if last is not None:
                    gap = t - last_seen
                    for day in range(max(t - gap + 1, t - 27), t + 1):
                        counts[day] = (value - last) / gap
                last = value
            else:
                counts.append(0.0)
            cleaned.append(last)
            reading = seen
            level_now = last or 0.0
            gained = level_now - (week_ago or 0.0)
            y = math.log(level_now + kappa)
            floor = PHI * (max(gained, 0.0) + 1) / (level_now + kappa) ** 2
            events = gained
        if seen:
            last_seen = t

        z = None
        last_week = None
        if reading:
            phase["k"] = min(phase["k"] + 1, 250)
            if phase["k"] >= 2 and phase["silent"] == 0:
                last_week = y - phase["y"]
            phase["y"] = y
            phase["silent"] = 0
        else:
            phase["silent"] += 1
        k = phase["k"]
        variance = {}
        for speed in ("slow", "fast"):
            f = phase[speed]
            alpha, beta, s, _ = TABLES[kind, speed][k]
            pred = f["l"] + f["b"]
            if not reading:
                f["l"] = pred
                f["u"] = 0.0
                variance[speed] = f["s2"]
                continue
            if k == 1:
                f["l"], f["b"] = y, 0.0
                variance[speed] = floor
                continue
            e = y - pred
            v = max(f["s2"], floor)
            variance[speed] = v
            if k == 2:  # two readings fix level and growth; there is no surprise yet
                f["l"], f["b"] = y, e
                continue
            sd = math.sqrt(v * s)
            u = e / sd
            released = u * f["u"] > 0 and abs(f["u"]) > 1
            c = u if released else max(-CLIP, min(CLIP, u))
            f["l"] = pred + alpha * c * sd
            f["b"] = f["b"] + beta * c * sd
            f["s2"] = f["s2"] + DELTA * (min((c * sd) ** 2 / s, 9 * v) - f["s2"])
            f["u"] = u
            if speed == "slow":
                z = u
        if phase["silent"] > 5:
            phases[t % 7] = phase = new_phase()
            k = 0

        if floor is None:
            floor = PHI * math.exp(-max(0.0, min(40.0, phase["slow"]["l"])))
        window = [0.0] * (27 - t) + counts[max(0, t - 27) :]
        s1 = sum(max(c, 0.0) for c in window)
        s2 = sum(max(c, 0.0) ** 2 for c in window)
        sustain = min(1.0, (s1 * max(s1 - 1, 0) + 784) / (28 * max(s2 - s1, 0) + 784))
        lost = sum(max(-c, 0.0) for c in window)
        grown = k >= 2
        beta_limit = TABLES[kind, "slow"][250][1]
        if kind == "stock" and born and lost > 0.02 * (last or 0.0):
            flags.add("PURGE")
        if born and outage:
            flags.add("SOURCE_GAP")
        elif born and not seen:
            flags.add("GAP")
        if born and k < 4:
            flags.add("YOUNG")
        if born and silent_days > 3:
            flags.add("STALE")
        if grown and reading and events < 10:
            flags.add("SMALL")
        if z is not None and z > 4 and sustain < 0.25:
            flags.add("SPIKE")
        answers.append(
            {
                "level": phase["slow"]["l"] if k >= 1 else None,
                "growth_slow": phase["slow"]["b"] if grown else None,
                "growth_fast": phase["fast"]["b"] if grown else None,
                "last_week": last_week,
                "z": z,
                "z_week": max(p["slow"]["u"] for p in phases) if k >= 3 else None,
                "se": math.sqrt(max(variance["slow"], floor) * TABLES[kind, "slow"][k][3]) if grown else None,
                "se_counting": math.sqrt(floor * beta_limit / (2 - beta_limit)) if grown else None,
                "sustain": sustain if grown else None,
                "updates": k,
                "flags": flags,
                "silent_days": silent_days,
            }
        )
    return answers
