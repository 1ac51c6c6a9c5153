"""Speed of the weekly filter, held against memory bandwidth, pandas and polars.

All contenders get the same float32 block in the same run, with 5 % of the cells missing, on one
thread, alternating. The peers compute what they can of the same outputs with their own vectorised
operations: trailing week, logarithm, a level and a growth per weekday phase by exponential smoothing
of the weekly readings and of their differences, two speeds, and a standardised surprise. They have no
gains that depend on age, no filling, no clipping, no flags: they do less work, not more.
"""

from __future__ import annotations

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # one thread for everyone; polars reads it when it is imported

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from astrid.catalog import Kind
from astrid.scoring.kernels import run
from astrid.scoring.series import FLOW, STOCK, gains

SERIES = 100_000
DAYS = 365
PEER_SERIES = 5_000
"""The peers get fewer series: their time per cell does not depend on the number, their memory does."""

MISSING = 0.05
HISTORY = ("level", "growth_slow", "growth_fast", "z", "last_week")
"""What the peers are asked for, for every day; the kernel computes exactly these for the comparison."""

Block = npt.NDArray[np.float32]


def block(kind: Kind, days: int, n: int, seed: int = 1) -> Block:
    """Return counts of ``n`` growing series with weekly pattern and missing cells, (days, n)."""
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(3.0, 1.5, n)).astype(np.float32)
    growth = rng.normal(0.01, 0.02, n).astype(np.float32)
    week = np.array([1.0, 1.1, 1.1, 1.1, 1.0, 0.6, 0.5], np.float32)
    x = np.empty((days, n), np.float32)
    total = np.zeros(n)
    for day in range(days):
        count = rng.poisson(level * week[day % 7] * np.exp(growth * np.float32(day / 7)))
        total += count
        x[day] = total if kind == "stock" else count
        x[day, rng.random(n) < MISSING] = np.nan
    return x


def alternate(jobs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every job, run in turn ``rounds`` times after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def pandas_filter(x: Block, kind: Kind) -> list[Any]:
    """The nearest that pandas does: shifts, rolling sums and exponential smoothing per weekday phase."""
    import pandas as pd

    par = FLOW if kind == "flow" else STOCK
    frame = pd.DataFrame(x)
    if kind == "flow":
        frame = frame.fillna(frame.shift(7)).rolling(7, min_periods=7).sum()
    y = np.log(frame + par.kappa)
    answers = []
    for speed in (par.slow, par.fast):
        alpha, beta = 1 - float(gains(*speed).inverse_s[-1]), gains(*speed).beta_limit
        phases = []
        for phase in range(7):
            weekly = y.iloc[phase::7]
            step = weekly.diff()
            level = weekly.ewm(alpha=alpha, adjust=True, ignore_na=True).mean()
            growth = step.ewm(alpha=beta, adjust=True, ignore_na=True).mean()
            surprise = step - growth.shift(1)
            spread = surprise.pow(2).ewm(alpha=par.delta, adjust=True, ignore_na=True).mean().shift(1) ** 0.5
            phases.append((level, growth, surprise / spread, step))
        answers += [pd.concat(part).sort_index() for part in zip(*phases, strict=True)]
    return answers


def polars_filter(frame: Any, kind: Kind) -> Any:
    """The nearest that polars does, in one lazy query over a wide frame (one column per series)."""
    import polars as pl

    par = FLOW if kind == "flow" else STOCK
    x = pl.all().exclude("phase")
    if kind == "flow":
        frame = frame.with_columns(x.fill_null(x.shift(7)).rolling_sum(7))
    y = (x + par.kappa).log()
    answers = []
    for name, speed in (("slow", par.slow), ("fast", par.fast)):
        alpha, beta = 1 - float(gains(*speed).inverse_s[-1]), gains(*speed).beta_limit
        step = y.diff()
        growth = step.ewm_mean(alpha=beta, ignore_nulls=True)
        surprise = step - growth.shift(1)
        spread = surprise.pow(2).ewm_mean(alpha=par.delta, ignore_nulls=True).shift(1).sqrt()
        answers += [
            y.ewm_mean(alpha=alpha, ignore_nulls=True).name.suffix(f"_level_{name}"),
            growth.name.suffix(f"_growth_{name}"),
            (surprise / spread).name.suffix(f"_z_{name}"),
            step.name.suffix(f"_week_{name}"),
        ]
    return pl.concat([frame.filter(pl.col("phase") == phase).select(answers) for phase in range(7)])


def polars_frame(x: Block) -> Any:
    """Return the block as polars likes it: one column per series, nulls for missing, and the phase of the day."""
    import polars as pl

    frame = pl.DataFrame({f"c{i}": np.ascontiguousarray(column) for i, column in enumerate(x.T)}).fill_nan(None)
    return frame.with_columns(pl.Series("phase", np.arange(len(x)) % 7))


def result(
    name: str, ours: list[float], peer: list[float], unit: str, ratio: float, target: float | None, note: str
) -> dict[str, Any]:
    """Return one line of the report; ``ours`` and ``peer`` are the samples in ``unit``, stated by their median."""
    return {
        "name": name,
        "ours": float(np.median(ours)),
        "peer": float(np.median(peer)),
        "unit": unit,
        "ratio": ratio,
        "target": target,
        "met": None if target is None else bool(ratio >= target),
        "note": note,
        "samples": {"ours": ours, "peer": peer},
    }


def throughput(kind: Kind, series: int = SERIES, days: int = DAYS, rounds: int = 5) -> dict[str, Any]:
    """Measure Mcells/s of a full history with the last day's outputs, beside memcpy; the ratio is ours in Mcells/s / 100."""
    x = block(kind, days, series)
    copy = np.empty_like(x)
    seconds = alternate({"ours": lambda: run(x, kind), "peer": lambda: np.copyto(copy, x)}, rounds)
    ours, peer = ([x.size / s / 1e6 for s in seconds[k]] for k in ("ours", "peer"))
    name = "score.mcells" if kind == "stock" else "score.mcells_flow"
    note = f"{kind}, {series} x {days} float32, 5 % missing, one thread; peer = memcpy; target 100 Mcells/s (ratio 1)"
    return result(name, ours, peer, "Mcells/s", float(np.median(ours)) / 100, 1.0, note)


def versus(series: int = PEER_SERIES, days: int = DAYS, rounds: int = 5) -> list[dict[str, Any]]:
    """Measure the same outputs for all days by the kernel, pandas and polars, in one alternating run."""
    x = block("flow", days, series)
    frame = polars_frame(x)
    jobs: dict[str, Callable[[], Any]] = {
        "ours": lambda: run(x, "flow", keep=None, fields=HISTORY),
        "pandas": lambda: pandas_filter(x, "flow"),
        "polars": lambda: polars_filter(frame, "flow"),
    }
    seconds = alternate(jobs, rounds)
    lines = []
    for peer, target in (("pandas", 30.0), ("polars", 15.0)):
        ratio = float(np.median(seconds[peer]) / np.median(seconds["ours"]))
        note = f"flow, {series} x {days}, all days of {', '.join(HISTORY)}; {peer} does the simpler job described above"
        lines.append(result(f"score.vs_{peer}", seconds["ours"], seconds[peer], "s", ratio, target, note))
    return lines


def increment(series: int = SERIES, days: int = DAYS, rounds: int = 5) -> dict[str, Any]:
    """Measure one new day from the stored state against recomputing the whole history."""
    x = block("stock", days, series)
    _, state = run(x[:-1], "stock")
    jobs: dict[str, Callable[[], Any]] = {
        "ours": lambda: run(x[-1:], "stock", state=state),
        "peer": lambda: run(x, "stock"),
    }
    seconds = alternate(jobs, rounds)
    ratio = float(np.median(seconds["peer"]) / np.median(seconds["ours"]))
    nightly = float(np.median(seconds["ours"])) * 5_000_000 / series
    note = f"stock, one day for {series} series, state to state, against {days} days; 1,000,000 x 5 would take {nightly:.1f} s"
    return result("score.increment", seconds["ours"], seconds["peer"], "s", ratio, None, note)


def main(rounds: int = 5) -> list[dict[str, Any]]:
    """Run all comparisons of the score."""
    return [
        throughput("stock", rounds=rounds),
        throughput("flow", rounds=rounds),
        *versus(rounds=rounds),
        increment(rounds=rounds),
    ]


if __name__ == "__main__":
    for line in main():
        print({key: value for key, value in line.items() if key != "samples"})
