"""One week of one chunk of series through the comb of seven weekly filters.

This is the arithmetic of :mod:`astrid.scoring.kernels`, which cuts the work into chunks and blocks.
Nothing here depends on where a block or a chunk ends: sums are added row by row in an order that the
phase alone decides, everything else is element by element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from astrid.scoring.series import SILENT_DAYS_MAX, UNSEEN, UPDATES_MAX, Bools, Flag, Gains, Parameters, gains
from astrid.scoring.state import PHASES, RING_DAYS, FilterState, Floats

COUNT_MAX: Final = 1e15
"""A larger value is not a count but a defect, and is treated as not observed; squares stay in float32."""

RINGED: Final = frozenset({"sustain", "flags"})
"""Outputs that need the ring of daily counts."""


@dataclass(frozen=True, slots=True)
class _Before:
    """What a block overwrites and its outputs still need."""

    silent_days: npt.NDArray[np.uint16]
    y: Floats
    surprise: Floats
    read_last_week: Bools


class Comb:
    """One chunk: its state, its buffers, and the steps of a block of at most seven days within one week.

    Buffers have shape (7, n); a block of m days uses their first m rows.
    """

    def __init__(self, s: FilterState, par: Parameters) -> None:
        self.s, self.par = s, par
        dtype, shape = s.level.dtype, (PHASES, len(s))
        self.gains: tuple[Gains, Gains] = (gains(*par.slow), gains(*par.fast))
        self.tables = [(g.inverse_s.astype(dtype), g.beta.astype(dtype)) for g in self.gains]
        self.fresh, self.total, self.floor, self.step, self.weight, self.rate = (
            np.empty(shape, dtype) for _ in range(6)
        )
        self.inverse_s, self.beta, self.v, self.u, self.pred, self.e, self.w, self.root = (
            np.empty(shape, dtype) for _ in range(8)
        )
        self.silent = np.empty(shape, np.uint16)
        self.index = np.empty(shape, np.intp)

    def advance(
        self, x: npt.NDArray[np.floating], outages: Bools, out: dict[str, npt.NDArray[Any]], first: int, ring: bool
    ) -> None:
        """Take the days of ``x`` in; write those from row ``first`` on to ``out``, and the ring if asked."""
        s, m = self.s, len(x)
        phases = slice(s.day % PHASES, s.day % PHASES + m)
        missing = (x >= 0) & (x <= COUNT_MAX)
        if outages.any():
            missing &= ~outages[:, None]
        np.logical_not(missing, out=missing)
        if x.dtype != s.level.dtype:
            x = np.where(missing, 0, x).astype(s.level.dtype)
        before: _Before | None = None
        if out or ring:
            before = _Before(
                s.silent_days.copy(), s.y[phases].copy(), s.surprise[0].copy(), s.silent_weeks[phases] == 0
            )

        self._count_silence(missing)
        reset: Bools | None = None
        if s.kind == "flow":
            absent = self._read_flow(x, missing, phases)
        else:
            absent = missing
            reset = self._read_stock(x, missing, phases)
        self._filter(absent, phases)
        if before is not None:
            self._write(missing, absent, reset, outages, phases, before, out, first, ring)
        s.day += m

    def _count_silence(self, missing: Bools) -> None:
        """Count the days since each series was last observed, for every day of the block."""
        lost = missing.astype(np.uint16)
        last = self.s.silent_days
        for row, gone in zip(self.silent, lost, strict=False):
            np.add(last, 1, out=row)
            row *= gone
            last = row
        self.s.silent_days[:] = last

    def _read_flow(self, x: npt.NDArray[np.floating], missing: Bools, phases: slice) -> Bools:
        """Fill gaps, sum the trailing weeks, set y and its noise floor; return where there is no reading."""
        s, par, m = self.s, self.par, len(x)
        fresh, total, floor = self.fresh[:m], self.total[:m], self.floor[:m]
        fresh[...] = x
        gaps = np.flatnonzero(missing)
        if len(gaps):
            growth = np.clip(s.growth[0, phases].reshape(-1)[gaps], -par.fill_growth_max, par.fill_growth_max)
            fill = np.minimum(s.value[phases].reshape(-1)[gaps] * np.exp(growth), COUNT_MAX)
            fill[self.silent[:m].reshape(-1)[gaps] > SILENT_DAYS_MAX] = np.nan
            fresh.reshape(-1)[gaps] = fill
        _trailing_week(np.add, 0.0, s.value, fresh, phases.start, total)
        s.value[phases] = fresh
        absent = np.isnan(total)
        absent |= self.silent[:m] >= PHASES  # a week made of fills alone says nothing new
        if absent.any():
            np.copyto(total, 0, where=absent)
        np.add(total, par.kappa, out=floor)
        np.log(floor, out=s.y[phases])
        np.divide(par.phi, floor, out=floor)
        return absent

    def _read_stock(self, x: npt.NDArray[np.floating], missing: Bools, phases: slice) -> Bools | None:
        """Carry over gaps, splice resets, set y and its noise floor; return where a reset was, None if nowhere."""
        s, par, m = self.s, self.par, len(x)
        value, step, floor, shifted = s.value[phases], self.step[:m], self.floor[:m], self.total[:m]
        week_ago = self.fresh[:m]
        week_ago[...] = value
        np.add(x, s.offset, out=value)
        last = s.last
        for row, gone in zip(value, missing, strict=True):
            np.copyto(row, last, where=gone)
            last = row
        np.subtract(value[0], s.last, out=step[0])
        np.subtract(value[1:], value[:-1], out=step[1:])
        reset = None
        if par.splice:
            fallen = step < -par.reset_floor
            if fallen.any():
                reset = self._splice(x, missing, np.flatnonzero(fallen.any(axis=0)), value)
        s.last[:] = value[-1]
        np.subtract(value, week_ago, out=floor)
        np.maximum(floor, 0, out=floor)
        floor += 1
        np.add(value, par.kappa, out=shifted)
        np.log(shifted, out=s.y[phases])
        floor /= shifted
        floor /= shifted
        floor *= par.phi
        return reset

    def _splice(
        self, x: npt.NDArray[np.floating], missing: Bools, columns: npt.NDArray[np.intp], value: Floats
    ) -> Bools:
        """Redo the cleaning of the few ``columns`` that fell, day by day, and return where a reset was."""
        s, par = self.s, self.par
        reset = np.zeros(x.shape, bool)
        offset, last = s.offset[columns], s.last[columns]
        for day in range(len(x)):
            raw, gone = x[day, columns], missing[day, columns]
            level = np.where(gone, last, raw + offset)
            fall = last - level
            hit = fall > np.maximum(par.reset_floor, par.reset_share * last)
            offset = np.where(hit, offset + fall, offset)
            level = np.where(hit, raw + offset, level)
            reset[day, columns], value[day, columns], self.step[day, columns] = hit, level, level - last
            last = level
        s.offset[columns] = offset
        return reset

    def _filter(self, absent: Bools, phases: slice) -> None:
        """Update both speeds with y where it is present, predict where it is ``absent``, restart what is silent."""
        s, par, m = self.s, self.par, len(absent)
        updates, silent_weeks = s.updates[phases], s.silent_weeks[phases]
        some_absent = bool(absent.any())
        weight: Floats | None = None
        rate: Floats | float = par.delta
        if some_absent:
            weight, rate = self.weight[:m], self.rate[:m]
            np.logical_not(absent, out=weight)
            np.multiply(weight, par.delta, out=rate)
        updates += ~absent
        np.minimum(updates, UPDATES_MAX, out=updates)
        for speed in (1, 0):  # the slow one last: its v and u are what is published
            inverse_s, beta = self._gains(speed, updates, new=speed == 1)
            self._update(speed, phases, weight, rate, inverse_s, beta)
        if some_absent or silent_weeks.any():
            silent_weeks += 1
            silent_weeks *= absent
            silent = np.flatnonzero(silent_weeks > par.silent_weeks)
            if len(silent):
                for field in (s.level, s.growth, s.variance, s.surprise):
                    for speed in (0, 1):
                        field[speed, phases].reshape(-1)[silent] = 0
                updates.reshape(-1)[silent] = 0
                silent_weeks.reshape(-1)[silent] = 0

    def _gains(self, speed: int, updates: npt.NDArray[np.uint8], new: bool) -> tuple[Floats, Floats]:
        """Return 1/S and beta of every cell; as one column where all series of a day have the same age."""
        inverse_s, beta = self.tables[speed]
        if bool((updates == updates[:, :1]).all()):
            age = updates[:, :1].astype(np.intp)
            return inverse_s[age], beta[age]
        m = len(updates)
        if new:
            self.index[:m] = updates
        # mode="wrap" only because it is the fastest: the index is always inside.
        np.take(inverse_s, self.index[:m], out=self.inverse_s[:m], mode="wrap")
        np.take(beta, self.index[:m], out=self.beta[:m], mode="wrap")
        return self.inverse_s[:m], self.beta[:m]

    def _update(
        self, speed: int, phases: slice, weight: Floats | None, rate: Floats | float, inverse_s: Floats, beta: Floats
    ) -> None:
        """One step of the weekly filter for one speed; ``weight`` is 0 where there is no reading."""
        s, par = self.s, self.par
        level, growth = s.level[speed, phases], s.growth[speed, phases]
        variance, surprise = s.variance[speed, phases], s.surprise[speed, phases]
        m = len(level)
        pred, e, v, u, w, root = (b[:m] for b in (self.pred, self.e, self.v, self.u, self.w, self.root))
        np.add(level, growth, out=pred)
        np.subtract(s.y[phases], pred, out=e)
        if weight is not None:
            e *= weight
        np.maximum(variance, self.floor[:m], out=v)
        np.divide(inverse_s, v, out=root)
        np.sqrt(root, out=root)
        np.multiply(e, root, out=u)
        np.abs(u, out=w)
        large = np.flatnonzero(w > par.clip)
        capped = large
        if len(large):
            u_large = u.reshape(-1)[large]
            size = w.reshape(-1)[large]
            released = u_large * surprise.reshape(-1)[large] > size  # same sign, and more than 1 last week
            cut = large[~released]
            e.reshape(-1)[cut] = np.copysign(par.clip, u_large[~released]) / root.reshape(-1)[cut]
            capped = large[released & (size > 3)]
        np.multiply(e, inverse_s, out=w)
        np.subtract(e, w, out=level)
        level += pred
        w *= e  # e^2 / S
        if len(capped):
            w.reshape(-1)[capped] = 9 * v.reshape(-1)[capped]
        w -= variance
        w *= rate
        variance += w
        e *= beta
        growth += e
        surprise[...] = u

    def _write(
        self,
        missing: Bools,
        absent: Bools,
        reset: Bools | None,
        outages: Bools,
        phases: slice,
        before: _Before,
        out: dict[str, npt.NDArray[Any]],
        first: int,
        ring: bool,
    ) -> None:
        """Write the ring of daily counts if asked, and the rows of the block from ``first`` on to ``out``."""
        s, m = self.s, len(missing)
        if ring:
            sustain = np.full(missing.shape, np.nan, np.float32)
            purged = np.zeros(missing.shape, bool)
            silent = before.silent_days
            for day in range(m):
                self._count(day, missing[day], silent)
                silent = self.silent[day]
                if day >= first and RINGED & out.keys():
                    sustain[day] = _sustain(s.steps)
                    if s.kind == "stock":
                        purged[day] = _lost(s.steps) > self.par.purge_share * s.value[phases][day]
        if not out:
            return

        cells = slice(first, m)
        updates = s.updates[phases][cells]
        known, grown, present = updates > 0, updates > 1, ~absent[cells]
        unknown, young = ~known, ~grown

        def put(name: str, values: npt.NDArray[Any], hidden: Bools) -> None:
            out[name][...] = values
            np.copyto(out[name], np.nan, where=hidden)

        if "level" in out:
            put("level", s.level[0, phases][cells], unknown)
        for speed, name in enumerate(("growth_slow", "growth_fast")):
            if name in out:
                put(name, s.growth[speed, phases][cells], young)
        if "last_week" in out:
            no_pair = ~(grown & present & before.read_last_week[cells])
            put("last_week", s.y[phases][cells] - before.y[cells], no_pair)
        surprised = present & (updates > 2)
        if "z" in out:
            put("z", self.u[cells], ~surprised)
        if "sustain" in out:
            put("sustain", sustain[cells], young)
        if {"se", "se_counting"} & out.keys():
            floor = self.floor[cells]
            if s.kind == "flow":  # without a sum a week has no noise floor of its own: take the predicted level's
                level = np.clip(s.level[0, phases][cells], 0.0, 40.0)
                floor = np.where(present, floor, self.par.phi * np.exp(-level))
            if "se_counting" in out:
                beta = self.gains[0].beta_limit
                put("se_counting", np.sqrt(floor * (beta / (2 - beta))), young)
            if "se" in out:
                # Without a reading the variance is what it was, and the floor is the one of the prediction.
                variance = np.where(present, self.v[cells], np.maximum(s.variance[0, phases][cells], floor))
                p_bb = self.gains[0].p_bb.astype(np.float32)
                put("se", np.sqrt(variance) * np.sqrt(p_bb[np.maximum(updates, 2)]), young)
        if "z_week" in out:
            week = np.empty_like(self.u[:m])
            _trailing_week(np.maximum, -np.inf, before.surprise, s.surprise[0, phases], phases.start, week)
            put("z_week", week[cells], updates < 3)
        if "updates" in out:
            out["updates"][...] = updates
        if "silent_days" in out:
            out["silent_days"][...] = self.silent[cells]
        if "flags" in out:
            born = self.silent[cells] < UNSEEN
            out_today = outages[cells, None]
            small = self._small(phases, cells) & grown & present
            spike = surprised & (self.u[cells] > self.par.spike_surprise) & (sustain[cells] < self.par.spike_sustain)
            marks: list[tuple[Flag, Bools]] = [
                (Flag.PURGE, purged[cells] & born),
                (Flag.GAP, missing[cells] & born & ~out_today),
                (Flag.SOURCE_GAP, born & out_today),
                (Flag.YOUNG, born & (updates < self.par.publish_updates)),
                (Flag.SMALL, small),
                (Flag.SPIKE, spike),
                (Flag.STALE, born & (self.silent[cells] > self.par.stale_days)),
            ]
            if reset is not None:
                marks.append((Flag.RESET, reset[cells]))
            flags = out["flags"]
            flags[...] = 0
            for flag, where in marks:
                flags |= where * np.uint16(flag)

    def _small(self, phases: slice, cells: slice) -> Bools:
        """Return where the week brought fewer events than counting can bear."""
        if self.s.kind == "flow":
            few: Bools = self.total[cells] < self.par.small
        else:
            few = self.s.value[phases][cells] - self.fresh[cells] < self.par.small
        return few

    def _count(self, day: int, missing: Bools, silent: npt.NDArray[np.uint16]) -> None:
        """Write one day's count into the ring; ``silent`` are the days without observation before it."""
        s = self.s
        slot = (s.day + day) % RING_DAYS
        if s.kind == "flow":
            fresh = self.fresh[day]
            s.steps[slot] = np.where(np.isnan(fresh), 0, fresh)
            return
        s.steps[slot] = self.step[day]
        back = np.flatnonzero(~missing & (silent > 0))
        if not len(back):
            return
        length = silent[back].astype(np.intp) + 1
        mean = np.where(silent[back] < UNSEEN, self.step[day, back] / length, 0)
        for ago in range(min(int(length[silent[back] < UNSEEN].max(initial=1)), RING_DAYS)):
            reach = length > ago
            s.steps[(slot - ago) % RING_DAYS, back[reach]] = mean[reach]


def _trailing_week(op: np.ufunc, identity: float, week: Floats, block: Floats, phase: int, out: Floats) -> None:
    """Combine the seven days that end with each row of ``block`` (phases from ``phase`` on) into ``out``.

    ``week`` holds the last seven days by phase, before the block is written into it. The order of the
    operations depends on the phase alone: (days of this week, in order) op (days of the last, from its end).
    """
    end = phase + len(block)
    tail = np.full(week.shape[1], identity, week.dtype)
    for row in range(PHASES - 1, phase - 1, -1):
        if row < end:
            out[row - phase] = tail
        op(tail, week[row], out=tail)
    head = np.full(week.shape[1], identity, week.dtype)
    for row in range(end):
        op(head, week[row] if row < phase else block[row - phase], out=head)
        if row >= phase:
            op(out[row - phase], head, out=out[row - phase])


def _sustain(steps: Floats) -> Floats:
    """Return how evenly the counts of 28 days are spread: 1 = steady, 1/28 = all on one day.

    Factorial moments, so that Poisson noise counts as steady; row by row, so that the order of the
    additions does not depend on the number of series.
    """
    first, second = np.zeros_like(steps[0]), np.zeros_like(steps[0])
    for row in steps:
        gained = np.maximum(row, 0)
        first += gained
        second += gained * gained
    prior = RING_DAYS * RING_DAYS
    ratio = (first * np.maximum(first - 1, 0) + prior) / (RING_DAYS * np.maximum(second - first, 0) + prior)
    even: Floats = np.minimum(ratio, 1)
    return even


def _lost(steps: Floats) -> Floats:
    """Return the sum of the negative steps in the ring, as a positive number."""
    total: Floats = np.zeros_like(steps[0])
    for row in steps:
        total -= np.minimum(row, 0)
    return total
