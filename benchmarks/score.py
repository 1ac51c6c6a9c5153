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
"""All three get fewer series in the comparison, because the peers' frames of intermediates grow with them."""

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
    frame: pd.DataFrame = pd.DataFrame(x)
    if kind == "flow":
        frame = frame.fillna(frame.shift(7)).rolling(7, min_periods=7).sum()
    y: Any = np.log(frame + par.kappa)
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
    """The nearest that polars does: one lazy query over a long frame sorted by series and day.

    The fastest of six forms that were tried: one integer key per series and phase, a seasonal
    difference as a shift within the series, each intermediate a column of its own. A wide frame with a
    column per series took more than ten times as long, ``group_by().agg()`` half as long again.
    """
    import polars as pl

    par = FLOW if kind == "flow" else STOCK
    x, y, week = pl.col("x"), pl.col("y"), pl.col("last_week")
    query = frame.lazy()
    if kind == "flow":
        query = query.with_columns(x.fill_null(x.shift(7).over("series")))
        query = query.with_columns(x.rolling_sum(7).over("series"))
    query = query.with_columns((x + par.kappa).log().alias("y"))
    query = query.with_columns((y - y.shift(7).over("series")).alias("last_week"))
    speeds = {name: gains(*noise) for name, noise in (("slow", par.slow), ("fast", par.fast))}
    for name, table in speeds.items():
        alpha, beta = 1 - float(table.inverse_s[-1]), table.beta_limit
        query = query.with_columns(
            y.ewm_mean(alpha=alpha, ignore_nulls=True).over("key").alias(f"level_{name}"),
            week.ewm_mean(alpha=beta, ignore_nulls=True).over("key").alias(f"growth_{name}"),
        )
        query = query.with_columns(
            (week - pl.col(f"growth_{name}").shift(7).over("series")).alias(f"surprise_{name}"),
        )
        surprise = pl.col(f"surprise_{name}")
        spread = surprise.pow(2).ewm_mean(alpha=par.delta, ignore_nulls=True).shift(1).over("key").sqrt()
        query = query.with_columns((surprise / spread).alias(f"z_{name}"))
    return query.collect()


def polars_frame(x: Block) -> Any:
    """Return the block as polars likes it: long, sorted by series and day, null for missing, keys ready."""
    import polars as pl

    days, n = x.shape
    series, phase = np.repeat(np.arange(n, dtype=np.int32), days), np.tile(np.arange(days, dtype=np.int32) % 7, n)
    frame = pl.DataFrame({"series": series, "key": series * 7 + phase, "x": np.ascontiguousarray(x.T).ravel()})
    return frame.with_columns(pl.col("x").fill_nan(None))


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
    """Measure Mcells/s of a full history with the last day's outputs, beside memcpy; ratio = ours / 100 Mcells/s."""
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
    note = (
        f"stock, one day for {series} series, state to state, against {days} days; "
        f"extrapolated, 1,000,000 x 5 would take {nightly:.1f} s"
    )
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
