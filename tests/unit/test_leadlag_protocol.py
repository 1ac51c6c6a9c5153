"""The protocol and its command: a planted lead, a placebo, BTOS never spliced, bad files."""

from __future__ import annotations

import io
import json
from unittest import mock

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from astrid.cli import app
from astrid.commands import leadlag
from astrid.data.adoption import load_btos, load_indeed, read_adoption, read_index
from astrid.errors import ConfigError
from astrid.leadlag.alignment import Adoption, Series, changes
from astrid.leadlag.protocol import run_protocol
from astrid.leadlag.regression import Granger, Slope
from astrid.leadlag.resampling import Resampled
from astrid.leadlag.verdict import ESTABLISHED, LAG_DAYS, NOT_ESTABLISHED, judge
from tests.conftest import SEED

DAYS = np.arange(np.datetime64("2019-01-01"), np.datetime64("2025-01-01"))


def wandering(rng, scale=0.003):
    """A daily index whose growth changes slowly."""
    growth = np.repeat(rng.normal(0, scale, len(DAYS) // 30 + 1), 30)[: len(DAYS)]
    return Series("index", DAYS, 100 * np.exp(np.cumsum(growth + 0.001)))


def following(index, rng, *, lag, noise, months=60, sign=1.0):
    """Adoption whose logit changes with the growth of the index ``lag`` days before."""
    labels = np.arange(np.datetime64("2019-06"), np.datetime64("2019-06") + months)
    ends = (labels + 1).astype("datetime64[D]") - 1
    place = (ends - np.timedelta64(lag, "D") - DAYS[0]).astype(int)
    growth = np.diff(np.log(index.value)[place])
    logit = -2 + np.append(0, np.cumsum(sign * growth + noise * rng.standard_normal(months - 1)))
    share = 1 / (1 + np.exp(-logit))
    return Adoption("adoption", ends, share, labels.astype(np.int64), np.zeros(months, np.int64), 0)


def planted(seed=SEED, **more):
    rng = np.random.default_rng(seed)
    index, control = wandering(rng), wandering(rng)
    return index, control, following(index, rng, **({"lag": LAG_DAYS, "noise": 0.03} | more))


# --- the protocol ---------------------------------------------------------------------------------------


def test_a_planted_lead_is_established():
    index, control, adoption = planted()
    report = run_protocol(adoption, index, control, np.random.default_rng(1), draws=199)
    assert report.verdict == ESTABLISHED, report.rules
    assert all(rule.holds for rule in report.rules)
    assert report.used == report.changes == 59
    assert report.slope.slope == pytest.approx(30 / 7, rel=0.3)  # a month's growth is that of 30 / 7 weeks
    best = max(report.explored, key=lambda e: e.t)
    assert best.weeks == 8
    assert best.p_max_t <= 0.01
    assert max(report.correlations, key=lambda c: c.r).lag == 2
    assert report.forecast.ratio < 0.8


def test_the_control_in_the_place_of_the_index_is_not():
    index, control, adoption = planted()
    report = run_protocol(adoption, control, index, np.random.default_rng(1), draws=199)
    assert report.verdict == NOT_ESTABLISHED
    assert not next(rule for rule in report.rules if rule.name == "placebo").holds


@pytest.mark.parametrize(
    ("more", "broken"),
    [
        ({"lag": -60}, "direction"),
        ({"lag": -60}, "slope"),
        ({"sign": -1.0}, "slope"),
        ({"months": 20}, "size"),
        ({"noise": 0.5}, "slope"),
    ],
)
def test_what_is_no_lead_is_not_established(more, broken):
    index, control, adoption = planted(**more)
    report = run_protocol(adoption, index, control, np.random.default_rng(1), draws=99)
    assert report.verdict == NOT_ESTABLISHED
    assert not next(rule for rule in report.rules if rule.name == broken).holds, report.rules


def test_without_a_control_nothing_is_established():
    index, _, adoption = planted()
    report = run_protocol(adoption, index, None, np.random.default_rng(1), draws=99)
    assert report.verdict == NOT_ESTABLISHED
    assert [rule.name for rule in report.rules if not rule.holds] == ["placebo"]
    assert report.rules[-1].found == "no control given"


def test_independent_series_are_hardly_ever_established():
    found = 0
    for seed in range(12):
        rng = np.random.default_rng(SEED + seed)
        index, control, other = (wandering(rng) for _ in range(3))
        report = run_protocol(following(other, rng, lag=56, noise=0.03), index, control, rng, draws=39)
        found += report.verdict == ESTABLISHED
    assert found == 0


GOOD = {
    "slope": Slope(30, 0.4, 0.1, 4.0, 0.001, 0.5),
    "resampled": Resampled(99, 3.0, 0.01, 0.1, 0.7),
    "leads": {1: Granger(1, 30, 9, 0.01, 9, 0.01), 2: Granger(2, 30, 9, 0.01, 9, 0.01)},
    "follows": {1: Granger(1, 30, 1, 0.04, 1, 0.4), 2: Granger(2, 30, 1, 0.4, 1, 0.04)},
    "comparison": mock.Mock(ratio=0.8, p=0.05),
    "control": Slope(30, 0.1, 0.1, 1.0, 0.3, 0.1),
    "has_control": True,
}


@pytest.mark.parametrize(
    ("rule", "worse"),
    [
        ("size", {"slope": Slope(23, 0.4, 0.1, 4.0, 0.001, 0.5)}),
        ("slope", {"slope": Slope(30, 0.4, 0.1, 4.0, 0.051, 0.5)}),
        ("slope", {"slope": Slope(30, -0.4, 0.1, -4.0, 0.001, -0.5)}),
        ("slope", {"slope": None}),
        ("bootstrap", {"resampled": Resampled(99, 3.0, 0.06, 0.1, 0.7)}),
        ("bootstrap", {"resampled": None}),
        ("precedence", {"leads": {1: Granger(1, 30, 9, 0.01, 9, 0.01), 2: Granger(2, 30, 9, 0.06, 9, 0.01)}}),
        ("precedence", {"leads": {1: Granger(1, 30, 9, 0.01, 9, 0.01), 2: Granger(2, 30, 9, 0.01, 9, 0.06)}}),
        ("precedence", {"leads": {1: Granger(1, 30, 9, 0.01, 9, 0.01), 2: None}}),
        ("direction", {"follows": {1: Granger(1, 30, 1, 0.05, 1, 0.04), 2: Granger(2, 30, 1, 0.4, 1, 0.4)}}),
        ("direction", {"follows": {1: Granger(1, 30, 1, 0.4, 1, 0.4), 2: Granger(2, 30, 1, 0.05, 1, 0.04)}}),
        ("direction", {"follows": {1: None, 2: Granger(2, 30, 1, 0.4, 1, 0.4)}}),
        ("forecast", {"comparison": mock.Mock(ratio=1.01, p=0.05)}),
        ("forecast", {"comparison": mock.Mock(ratio=0.8, p=0.11)}),
        ("forecast", {"comparison": None}),
        ("placebo", {"control": Slope(30, 0.1, 0.1, 1.0, 0.05, 0.1)}),
        ("placebo", {"control": Slope(23, 0.1, 0.1, 1.0, 0.3, 0.1)}),
        ("placebo", {"control": None}),
        ("placebo", {"has_control": False}),
    ],
)
def test_every_rule_can_break_the_verdict_alone(rule, worse):
    assert judge(**GOOD)[0] == ESTABLISHED
    verdict, rules = judge(**(GOOD | worse))
    assert verdict == NOT_ESTABLISHED
    assert [r.name for r in rules if not r.holds] == ([rule] if worse != {"slope": None} else ["size", "slope"])


# --- what ships -----------------------------------------------------------------------------------------


def test_btos_is_two_series_and_never_spliced():
    adoption = load_btos()
    assert len(adoption.share) == 31
    assert np.flatnonzero(np.isnan(adoption.share)).tolist() == [25]
    found = changes(adoption)
    assert np.bincount(found.segment).tolist() == [24, 4]
    assert np.abs(found.y).max() < 0.2  # the rewording alone would be 0.64
    assert adoption.share[-5] > 1.5 * adoption.share[-7]
    closed = [str(day) for day in found.closed]
    assert closed[23] == "2025-10-21"
    assert closed[24] == "2026-01-21"


def test_indeed_is_monthly_since_2019():
    adoption = load_indeed()
    assert (str(adoption.dates[0]), str(adoption.dates[-1]), len(adoption.share)) == ("2019-01-31", "2026-03-31", 87)
    assert np.isfinite(adoption.share).all()
    assert ((adoption.share > 0.01) & (adoption.share < 0.10)).all()
    assert len(changes(adoption).y) == 86


# --- files ----------------------------------------------------------------------------------------------


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def months(n=14, first="2023-01"):
    return [str(m) + "-01" for m in np.arange(np.datetime64(first), np.datetime64(first) + n)]


def test_a_file_of_adoption_is_read_as_it_is(tmp_path):
    rows = [f"{day},{0.1 + 0.01 * k:.2f}" for k, day in enumerate(months())]
    rows[4] = months()[4] + ","
    found = read_adoption(write(tmp_path / "a.csv", "\ufeffdate,share", *rows))
    assert np.isnan(found.share[4])
    assert (np.diff(found.period) == 1).all()
    assert len(changes(found).y) == 11
    assert found.delay_days is None
    rows = [f"{0.1 + 0.01 * k:.2f},{day},{'new' if k > 6 else 'old'}" for k, day in enumerate(months())]
    assert len(changes(read_adoption(write(tmp_path / "b.csv", "share,date,version", *rows))).y) == 12


def test_every_second_week_left_out_is_a_hole(tmp_path):
    days = np.datetime64("2024-01-04") + 14 * np.array([*range(10), *range(11, 16)])
    found = read_adoption(write(tmp_path / "a.csv", "date,share", *(f"{d},0.{k + 10}" for k, d in enumerate(days))))
    assert len(changes(found).y) == 13


SHARES = [f"{day},0.2" for day in months()]
VALUES = [f"{day},100" for day in months()]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["date,value", *SHARES], "no column share: the header must have date,share, it has date,value"),
        ([], "it has nothing"),
        (["date,share", *SHARES[:3], SHARES[1]], "row 5: 2023-02-01 comes after 2023-03-01: sort the rows"),
        (["date,share", *SHARES[:3], SHARES[2]], "row 5: 2023-03-01 appears twice"),
        (["date,share", "2023-01-01,54"], "row 2: the share 54 is not between 0 and 1; give per cent as fractions"),
        (["date,share", "2023-01-01,-0.1"], "row 2: the share -0.1 is not between 0 and 1"),
        (["date,share", "2023-01-01,0"], "not between 0 and 1"),
        (["date,share", "2023-01-01,nan"], "the share 'nan' is no number"),
        (["date,share", "2023-01-01,a lot"], "row 2: the share 'a lot' is no number"),
        (["date,share", "1/2/2023,0.3"], "row 2: '1/2/2023' is no date of the form YYYY-MM-DD"),
        (["date,share", "2023-01-01,0.3,5"], "row 2 has 3 cells, the header has 2"),
        (["date,share", *SHARES[:11]], "11 figures are too few: give at least 12"),
        (["date,share", *SHARES, "2024-02-20,0.3"], "row 16: 2024-02-01 and 2024-02-20 are in one period"),
    ],
)
def test_a_bad_file_of_adoption_is_refused(tmp_path, lines, message):
    with pytest.raises(ConfigError) as refused:
        read_adoption(write(tmp_path / "a.csv", *lines))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["date,share", *VALUES], "no column value"),
        (["date,value", VALUES[0], "2023-02-01,0"], "row 3: the value 0 is not above 0; leave a gap empty"),
        (["date,value", VALUES[0], "2023-02-01,inf"], "the value 'inf' is no number"),
        (["date,value", VALUES[0], "2023-02-01,"], "at least two values"),
        (["date,value", VALUES[1], VALUES[0]], "comes after"),
    ],
)
def test_a_bad_index_is_refused(tmp_path, lines, message):
    with pytest.raises(ConfigError) as refused:
        read_index(write(tmp_path / "i.csv", *lines))
    assert message in str(refused.value)


def test_what_is_no_csv_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_index(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00date")
    with pytest.raises(ConfigError, match="give the path of a UTF-8 CSV file"):
        read_index(tmp_path / "bytes.csv")


# --- the command ----------------------------------------------------------------------------------------


def invoke(*arguments):
    printed = io.StringIO()
    with mock.patch.object(leadlag, "out", Console(file=printed, width=200)):
        done = CliRunner().invoke(app, ["leadlag", *map(str, arguments)])
    return done, printed.getvalue()


def files(tmp_path, **more):
    index, control, adoption = planted(**more)
    paths = []
    for name, series in (("index", index), ("control", control)):
        rows = (f"{d},{v:.6f}" for d, v in zip(series.dates, series.value, strict=True))
        paths.append(write(tmp_path / f"{name}.csv", "date,value", *rows))
    rows = (f"{d},{v:.9f}" for d, v in zip(adoption.dates, adoption.share, strict=True))
    return [*paths, write(tmp_path / "adoption.csv", "date,share", *rows)]


def test_the_command_says_a_planted_lead_and_its_json_holds_every_rule(tmp_path):
    index, control, target = files(tmp_path)
    done, printed = invoke("--target", target, "--index", index, "--control", control)
    assert done.exit_code == 0, done.exception
    assert printed.splitlines()[0] == "Lead of index.csv over adoption.csv: established"
    assert "Registered lag: 56 days before publication, not known how long" in printed
    again, _ = invoke("--target", target, "--index", index, "--control", control, "--json")
    body = json.loads(again.stdout)
    assert body["verdict"] == "established"
    assert [rule["name"] for rule in body["rules"]] == [
        "size",
        "slope",
        "bootstrap",
        "precedence",
        "direction",
        "forecast",
        "placebo",
    ]
    assert body == json.loads(invoke("--target", target, "--index", index, "--control", control, "--json")[0].stdout)


def test_the_command_says_not_established_without_a_control(tmp_path):
    index, _, _ = files(tmp_path)
    done, printed = invoke("--target", "btos", "--index", index)
    assert done.exit_code == 0, done.exception
    assert printed.startswith("Lead of index.csv over Census BTOS, AI use of US firms: not established")
    assert "no control given" in printed
    assert "in 2 segments" in printed or "in 1 segments" in printed


def test_the_command_says_what_it_needs(tmp_path):
    done, _ = invoke("--target", "btos")
    assert isinstance(done.exception, ConfigError)
    assert "--index FILE.csv, a CSV file with the columns date,value" in str(done.exception)
    index = write(tmp_path / "i.csv", "date,value", *VALUES)
    done, _ = invoke("--target", "ramp", "--index", index)
    assert "--target ramp: neither btos, indeed nor a file" in str(done.exception)
    early = write(tmp_path / "early.csv", "date,value", *(f"{day},100" for day in months(first="2010-01")))
    done, _ = invoke("--index", early)
    assert "too few points: 0 of 28 changes" in str(done.exception)
    assert "the index from 2010-01-01 to 2011-02-01" in str(done.exception)
