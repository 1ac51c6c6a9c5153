"""A random history of writes, each at a moment of its own, and every question that a reader can ask of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from astrid.models import Batch, DeadLetter, Done, Entity, Gap, Identity, Observations
from astrid.store import CanaryRow, Reconciliation, ScoreColumns, ScoreComponents, Store

BEGIN = datetime(2026, 4, 1, 5, tzinfo=UTC)
DAYS = [date(2026, 3, 22) + timedelta(days=n) for n in range(10)]
SUNDAYS = [date(2026, 3, 15), date(2026, 3, 22)]
STARS, FORKS, PYPI = 1, 2, 30
METRICS = (STARS, FORKS, PYPI)
ORIGINS = {STARS: (1, 10, 11), FORKS: (1, 10), PYPI: (5, 6)}
SOURCES = {"github": (STARS, FORKS), "pypistats": (PYPI,)}
CANARIES = ("level", "freshness")
CATEGORIES = ("agents", "rag", "serving")
SLUGS = "abcde"


def score_columns(entity_ids: list[int], scores: list[float], unranked: bool) -> ScoreColumns:
    """Return scores, two parts each, ranked in the order given but for the last one where it is to have no rank."""
    n = len(entity_ids)
    entity, score = np.array(entity_ids, np.int32), np.array(scores, np.float64)
    points = np.tile([0.1, -2.0], n) * np.repeat(score, 2)
    points[::5] = np.nan
    return ScoreColumns(
        entity_id=entity,
        score=score,
        lo=score / 3,
        hi=np.where(score > 50, score + 0.1, np.nan),
        calibrated=score > 40,
        percentile=np.linspace(99.9, 0.1, n),
        growth_per_week=score / 7e3,
        breadth=np.full(n, 1 / 3),
        coverage=np.full(n, 0.75),
        flags=np.arange(n, dtype=np.int32),
        rank=np.where((np.arange(n) == n - 1) & unranked, 0, np.arange(1, n + 1)).astype(np.int32),
        components=ScoreComponents(
            np.repeat(entity, 2), np.tile(np.array([STARS, PYPI], np.int16), n), *[np.repeat(score, 2) / 3] * 6,
            np.full(2 * n, 0.3), points, np.zeros(2 * n, np.int32),  # type: ignore[arg-type]  # six floats go before
        ),
    )  # fmt: skip


class History:
    """Writes to a store at random, at the moment ``now``."""

    def __init__(
        self, store: Store, connection: Any, rng: np.random.Generator, metrics: tuple[int, ...] = METRICS
    ) -> None:
        self.store = store
        self.connection = connection
        self.rng = rng
        self.metrics = metrics
        self.now = BEGIN
        self.ids: dict[str, int] = {}
        self.runs: list[int] = []
        self.batches = 0

    async def begin(self) -> None:
        """Track the first projects and start a run."""
        listed = [(slug, slug.upper(), "agents") for slug in SLUGS[:3]]
        self.ids = await self.store.sync_watchlist(listed, self.now)
        await self.run()

    def plan(self, rounds: int) -> list[Callable[[], Coroutine[Any, Any, object]]]:
        """Return everything that can be written, so many times, in a random order; what matters most, most often."""
        steps = [
            self.observe, self.observe, self.observe, self.rewrite, self.miss, self.miss, self.score, self.score,
            self.rename, self.identify, self.note, self.judge, self.judge, self.accept, self.compare, self.run,
            self.end, self.commit, self.commit, self.spend,
        ] * rounds  # fmt: skip
        return [steps[n] for n in self.rng.permutation(len(steps))]

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def some(self, options: Any) -> list[Any]:
        kept = self.rng.random(len(options)) < 0.5
        return [option for option, keep in zip(options, kept, strict=True) if keep]

    def rows(self, share: float = 0.3) -> list[tuple[int, int, date, float, int]]:
        metric = self.pick(self.metrics)
        return [
            (entity_id, metric, day, float(self.rng.integers(4)), self.pick(ORIGINS[metric]))
            for entity_id in self.ids.values()
            for day in DAYS
            if self.rng.random() < share
        ]

    async def observe(self) -> None:
        """Write some values; of four possible ones, so that many are equal to what stands."""
        await self.store.write_observations(Observations.from_rows(self.rows()), self.pick(self.runs), self.now)

    async def rewrite(self) -> None:
        """Write a whole rectangle twice within one moment."""
        for _ in range(2):
            await self.store.write_observations(Observations.from_rows(self.rows(1.0)), self.pick(self.runs), self.now)

    async def miss(self) -> None:
        """Report gaps, some of them as not asked."""
        reason = self.pick(["the upstream was out", "EntityGone", "not asked: no room"])
        gaps = [
            Gap(entity_id, self.pick(self.metrics), day, reason, bool(self.rng.integers(2)))
            for entity_id in self.some(list(self.ids.values()))
            for day in self.some(DAYS)
        ]
        await self.store.write_gaps(gaps, self.now)

    async def score(self) -> None:
        """Publish scores of a day; whom it leaves out is withdrawn, now and then everybody."""
        whom = self.some(list(self.ids.values()))
        values = [float(v) for v in self.rng.choice([30.0, 41.5, 66.0, 80.125], len(whom))]
        whom, values = (whom, values) if self.rng.integers(4) else ([], [])
        columns = score_columns(whom, values, bool(self.rng.integers(2)))
        await self.store.write_scores(self.pick(self.runs), self.pick(DAYS[-3:]), "1.0", columns, self.now)

    async def rename(self) -> None:
        """Rename and move some projects, and track one more now and then."""
        slugs = SLUGS[: min(len(SLUGS), len(self.ids) + int(self.rng.integers(2)))]
        listed = [(slug, f"{slug.upper()}{self.rng.integers(3)}", self.pick(CATEGORIES)) for slug in slugs]
        self.ids |= await self.store.sync_watchlist(listed, self.now)

    async def identify(self) -> None:
        """Read some identities, on one of two days, of ids and names that come again."""
        found = [
            Identity(entity_id, platform, f"R_{self.rng.integers(2)}", f"name/{self.rng.integers(3)}")
            for entity_id in self.some(list(self.ids.values()))
            for platform in ("github", "pypi")
        ]
        await self.store.record_identities(found, self.pick(DAYS), self.pick(self.runs), self.now)

    async def note(self) -> None:
        """Attach a note to a metric, or end one that stands."""
        last = self.pick([None, DAYS[-1], DAYS[-2]])
        await self.store.record_note(self.pick(self.metrics[:2]), DAYS[0], last, "interpolated", self.now)

    async def judge(self) -> None:
        """Judge a night, once more perhaps."""
        night = self.pick(DAYS[-3:])
        rows = [
            CanaryRow(
                source, name, night, self.pick(["ok", "violated", "violated", "not judged"]),
                float(self.rng.integers(3)), 0.5, None, "why", night - timedelta(days=2), self.pick(self.runs),
                self.now,
            )
            for source in SOURCES
            for name in CANARIES
        ]  # fmt: skip
        await self.store.write_verdicts(rows)

    async def accept(self) -> None:
        """Accept a violation by hand, as ADR 0017 says."""
        async with self.connection.transaction():
            await self.connection.execute("SELECT set_config('astrid.moment', $1, true)", self.now.isoformat())
            await self.connection.execute(
                "UPDATE canary SET state = 'accepted' WHERE state = 'violated' AND source = $1 AND name = 'level' "
                "AND day = (SELECT max(day) FROM canary)",
                self.pick(list(SOURCES)),
            )

    async def compare(self) -> None:
        """Compare weeks, once more perhaps."""
        weeks = [
            Reconciliation(entity_id, week, float(self.rng.integers(3)), 1.0)
            for entity_id in self.some(list(self.ids.values()))
            for week in SUNDAYS
        ]
        await self.store.record_reconciliation(weeks, self.now)

    async def run(self) -> None:
        """Start a run."""
        run_id = await self.store.start_run("nightly", self.pick(DAYS), "0.1.0", "1.0", self.now)
        self.runs.append(run_id)

    async def end(self) -> None:
        """End a run, again perhaps, in another state."""
        state = self.pick(["complete", "gaps", "failed"])
        await self.store.finish_run(self.pick(self.runs), state, {"github": int(self.rng.integers(9))}, state, self.now)

    async def spend(self) -> None:
        """Note what a run was planned to cost and what it did."""
        run_id = self.pick(self.runs)
        await self.store.write_planned(run_id, {("github", "core"): (int(self.rng.integers(9)), 1, 0.5)}, self.now)
        await self.store.add_spent(run_id, {("github", "core"): (1, 1)}, self.now)

    async def commit(self) -> None:
        """Plan a batch and commit it, done or dead."""
        self.batches += 1
        metric, run_id = self.pick(self.metrics), self.pick(self.runs)
        whom = tuple(Entity(self.ids[s], s, f"{s}{self.batches}") for s in self.some(list(self.ids)) or ["a"])
        batch = Batch("github", "nodes", DAYS[-1], DAYS[0], DAYS[-1], whom, run_id=run_id, requests=self.batches)
        await self.store.plan_batches(run_id, [batch], self.now)
        gaps = [Gap(e.entity_id, metric, self.pick(DAYS), "lost", True) for e in whom]
        if self.rng.integers(2):
            named = [Identity(e.entity_id, "github", "R_0", f"name/{self.rng.integers(3)}") for e in whom]
            found = Observations.from_rows(self.rows(0.2), gaps, named)
            await self.store.commit_batch(batch, Done(found, requests=2), self.now)
        else:
            await self.store.commit_batch(batch, DeadLetter("poison"), self.now, gaps)


async def ask_all(history: History, as_of: datetime | None) -> dict[str, Any]:
    """Return the answer of every read of the store that takes ``as_of``, by a name."""
    store, first, last = history.store, DAYS[0], DAYS[-1]
    # In the order of the slugs, also of those that were not tracked yet.
    ids = np.array([history.ids[slug] for slug in sorted(history.ids)], np.int32)
    found: dict[str, Any] = {
        "projects": await store.read_projects(as_of=as_of),
        "github": await store.read_identities("github", as_of=as_of),
        "runs": await store.read_runs(as_of=as_of),
        "costs": await store.read_costs(history.runs, as_of=as_of),
        "open gaps": await store.read_open_gaps(first, last, as_of=as_of),
        "percentiles": await store.read_percentiles(as_of=as_of),
        "scored": await store.latest_scored_day(as_of=as_of),
        "weeks": await store.read_reconciled_weeks(SUNDAYS[0], SUNDAYS[1], as_of=as_of),
    }
    for slug in SLUGS:
        found[f"project {slug}"] = await store.read_project(slug, as_of=as_of)
        found[f"gaps {slug}"] = await store.read_gaps(slug, as_of=as_of)
        found[f"scores {slug}"] = await store.read_score_history(slug, 9, as_of=as_of)
        found[f"weeks {slug}"] = await store.read_reconciliation(slug, as_of=as_of)
        for metric in METRICS:
            found[f"series {slug} {metric}"] = await store.read_series(slug, metric, first, last, as_of=as_of)
    for metric in METRICS:
        found[f"notes {metric}"] = await store.read_notes(metric, as_of=as_of)
        found[f"first {metric}"] = await store.read_first_days(metric, ids.tolist(), as_of=as_of)
        found[f"missing {metric}"] = await store.read_missing(metric, ids, first, last, as_of=as_of)
        found[f"matrix {metric}"] = await store.read_matrix(metric, ids, first, last, as_of=as_of)
        found[f"own {metric}"] = await store.read_matrix(metric, ids, first, last, without=[10, 6], as_of=as_of)
    for source, metrics in SOURCES.items():
        kept_out = await store.read_kept_out(source, ["level"], as_of=as_of)
        found[f"kept out {source}"] = kept_out
        for metric in metrics:
            for name, judged in (("counting", kept_out), ("doubted", kept_out.doubting(history.runs[0]))):
                found[f"{name} {metric}"] = await store.read_matrix(metric, ids, first, last, judged, as_of=as_of)
    for day in (None, *DAYS[-3:]):
        found[f"canaries {day}"] = await store.read_canaries(day, as_of=as_of)
        for category in (None, "rag"):
            found[f"board {day} {category}"] = await store.read_leaderboard(day, category, 4, 0, as_of=as_of)
        if day:
            found[f"scored {day}"] = await store.has_scores(day, as_of=as_of)
    return found


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the names of answers that are not exactly equal; an entity that was not tracked yet has no column."""
    return [name for name in a if not _equal(a[name], b[name])]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        # Entities that came later have columns of gaps in an answer of before.
        width = a.shape[1]
        later = b[:, width:]
        empty = bool(later.all()) if later.dtype == bool else bool(np.isnan(later).all())
        return np.array_equal(a, b[:, :width], equal_nan=a.dtype != bool) and empty
    return bool(a == b)
