"""The closing count of `make test` is what CI believes, so it is tested like the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import run_tiers

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="good"/>
<testcase classname="a" name="bad"><failure message="no"/></testcase>
<testcase classname="a" name="left_out"><skipped message="no RabbitMQ: not installed"/></testcase>
<testcase classname="a" name="torn"/>
<testcase classname="a" name="torn"><error message="teardown"/></testcase>
</testsuite></testsuites>"""


def test_outcomes_are_counted_once_each(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    result = run_tiers.Result("unit")
    run_tiers.read_report(report, result)
    assert (result.passed, result.failed, result.skipped) == (1, 2, 1)
    assert result.failures == ["a::bad", "a::torn"]
    assert dict(result.skips) == {"no RabbitMQ: not installed": 1}


@pytest.mark.parametrize(("code", "said"), [(5, "ended with 5"), (1, "ended with 1"), (None, "no time left")])
def test_a_bad_end_without_a_failed_test_counts(
    code: int | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_x.py").touch()
    monkeypatch.setattr(run_tiers, "ROOT", tmp_path)
    monkeypatch.setattr(run_tiers, "run", lambda *_: code)
    result = run_tiers.run_tier(run_tiers.TIERS[0], {}, 1.0, [])
    assert result.failed == 1
    assert said in result.failures[0]


def test_a_command_that_overstays_is_ended() -> None:
    assert run_tiers.run(["sleep", "30"], 1.0, {"PATH": "/usr/bin:/bin"}) is None


def test_the_closing_line_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    results = [run_tiers.Result("lint", passed=4), run_tiers.Result("unit", passed=7, failed=1, skipped=2)]
    run_tiers.print_summary(results, 1, "fixed slice")
    assert capsys.readouterr().out.splitlines()[-1] == "11 passed, 1 failed, 2 skipped"
