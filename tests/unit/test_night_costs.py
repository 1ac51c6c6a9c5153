"""What a person reads of what a run costs and did cost."""

from __future__ import annotations

from datetime import date
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from astrid.models import Gap
from astrid.pipeline.costs import Cost, count_night_hours
from astrid.pipeline.plan import LEFT_OUT, NO_NIGHT, PASSED_OVER, Plan
from astrid.pipeline.runs import RunResult
from astrid.store import CostRow
from astrid.terminal import cost_table, explain_left_out, print_result, spent_table


def printed(what: Table) -> str:
    console = Console(record=True, width=140, file=StringIO())
    console.print(what)
    return console.export_text()


class TestWhatAPersonReads:
    COSTS = (
        Cost("github", "github", "core", 58, 1201, 1201, 2.13),
        Cost("github", "github", "graphql", 68, 267, 290, 0.06),
        Cost("pypistats", "pypistats", "core", 38, 373, 373, 0.2),
        Cost("hackernews", "hn_algolia", "core", 2, 6, 6, 0.0006),
    )

    def test_a_plan_says_how_long_the_night_takes_in_all(self) -> None:
        assert count_night_hours(self.COSTS) == 2.13
        text = printed(cost_table(self.COSTS))
        rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
        assert "12 min" in rows["pypistats"]
        assert "373 │      - " in rows["pypistats"], "points only where they are counted apart from requests"
        assert "under a minute" in rows["hackernews"]
        assert "2 h 08 min" in rows["all"]
        assert "The night takes 2 h 08 min at the limits, as long as its slowest budget." in text

    def test_buckets_of_one_upstream_that_two_sources_ask_add_up(self) -> None:
        shared = (*self.COSTS, Cost("other", "github", "core", 1, 5000, 5000, 1.0))
        assert count_night_hours(shared) == pytest.approx(3.13)

    def test_a_plan_of_nothing(self) -> None:
        assert count_night_hours([]) == 0
        assert "The night has nothing to ask." in printed(cost_table([]))

    def test_planned_beside_spent(self) -> None:
        text = printed(spent_table([CostRow(1, "github", "core", 100, 90, 0.51, 103, None)]))
        (row,) = [line for line in text.splitlines() if line.startswith("│")]
        assert [cell.strip() for cell in row.strip("│").split("│")] == [
            *("github", "core", "100", "103", "90", "-", "31 min")
        ]

    def test_a_night_says_how_long_it_took(self) -> None:
        console = Console(record=True, width=140, file=StringIO())
        done = {"done": 3}
        print_result(console, RunResult(1, date(2026, 3, 31), done, {}, 2, 40, hours=0.5))
        said = "Night of 2026-03-31: gaps; 3 batches, 40 projects ranked, 2 gaps; it took 30 min."
        assert console.export_text().strip() == said

    def test_what_is_left_out_is_said_by_its_reason(self) -> None:
        def gaps(reason: str, count: int) -> list[Gap]:
            return [Gap(n, 1, date(2026, 3, 31), reason, True) for n in range(count)]

        left_out = (*gaps(LEFT_OUT, 3), *gaps(PASSED_OVER, 5), *gaps(NO_NIGHT, 7))
        short, stale, lost = explain_left_out(Plan((), left_out, ()), 0.5)
        assert short.startswith("3 values wait for another night")
        assert "0.5 hours" in short
        assert "ASTRID_NIGHT_HOURS" in short
        assert stale.startswith("5 values are not asked for: their feed stands still")
        assert lost.startswith("7 counts of earlier days are lost: no night")
        assert explain_left_out(Plan((), (), ()), 6.0) == []
        assert explain_left_out(Plan((), tuple(gaps(PASSED_OVER, 5)), ()), 6.0) == [stale]
