"""``astrid evaluate`` on a file of its own: figures that another program finds too, and clear refusals."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import random
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from astrid.cli import app
from astrid.errors import ConfigError
from tests.demo_runs import ROOT

FIRST = date(2023, 1, 1)
DAYS = 330
REPOS = [f"owner/{i:02}" for i in range(50)]


def run(tmp_path: Path, *arguments: object) -> tuple[int, str, str]:
    environ = os.environ | {"ASTRID_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "astrid", "evaluate", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def write_counts(path: Path, seed: int = 1) -> list[tuple[str, str, int, int]]:
    """Write daily counts in random order, with gaps; owner/00 is called young/00 until day 200."""
    rng = random.Random(seed)
    rows = []
    for i, repo in enumerate(REPOS):
        stars, pace = 500.0 + 40 * i, rng.uniform(0.2, 8)
        for day in range(DAYS):
            pace *= math.exp(rng.gauss(0, 0.03))
            stars += rng.uniform(0.5, 1.5) * pace
            if rng.random() < 0.05:
                continue
            name = "young/00" if i == 0 and day < 200 else repo
            rows.append((name, str(FIRST + timedelta(day)), int(stars), int(stars / 4 + i)))
    rng.shuffle(rows)
    with gzip.open(path, "wt") as file:
        file.write("open_issues,repo,date,stars,forks\n")
        file.writelines(f"0,{repo},{day},{stars},{forks}\n" for repo, day, stars, forks in rows)
    return rows


def read_scores(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def rank(values: list[float]) -> list[float]:
    order = sorted(values)
    return [(order.index(v) + len(order) - 1 - order[::-1].index(v)) / 2 for v in values]


def correlate(a: list[float], b: list[float]) -> float:
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    cov = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    return cov / math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))


@pytest.fixture
def counts(tmp_path: Path) -> tuple[Path, list[tuple[str, str, int, int]]]:
    path = tmp_path / "counts.csv.gz"
    return path, write_counts(path)


def test_another_program_finds_the_same_ic_in_what_was_written(tmp_path: Path, counts: Any) -> None:
    path, rows = counts
    renames = tmp_path / "renames.csv"
    renames.write_text(f"old_repo,new_repo,date\nyoung/00,owner/00,{FIRST + timedelta(200)}\n")
    written = tmp_path / "scores.csv.gz"
    days = [FIRST + timedelta(150 + 7 * k) for k in range(20)]
    code, printed, said = run(
        tmp_path, "--stars", path, "--renames", renames, "--from", days[0], "--to", days[-1], "--horizon", "28",
        "--json", "--scores-out", written,
    )  # fmt: skip
    assert code == 0, said
    result = json.loads(printed)
    assert result["evaluated"] == {
        "every": 7, "days": 20, "first_day": str(days[0]), "last_day": str(days[-1]),
    }  # fmt: skip
    assert result["panel"]["repos"] == 50

    count = {(repo.replace("young", "owner"), date.fromisoformat(day)): stars for repo, day, stars, _ in rows}
    named = {(repo, day) for repo, day, *_ in rows}
    scores: dict[date, dict[str, float]] = {}
    for line in read_scores(written):
        assert list(line) == ["repo", "date", "score", "forecast28", "lo80", "hi80", "lo95", "hi95"]
        assert (line["repo"], line["date"]) in named, "a repository is called as in the input"
        assert line["forecast28"] == line["hi95"] == ""
        assert 0 < float(line["score"]) < 100
        scores.setdefault(date.fromisoformat(line["date"]), {})[line["repo"].replace("young", "owner")] = float(
            line["score"]
        )
    assert sorted(scores) == days

    def look(repo: str, days_to_try: list[date]) -> int | None:
        return next((count[repo, d] for d in days_to_try if (repo, d) in count), None)

    ics = []
    for day in days:
        pairs = []
        for repo, score in scores[day].items():
            later = look(repo, [day + timedelta(28 + k) for k in range(4)])
            # All rules must be known: those that look back 7, 28, 30 and 90 days, and at most three days more.
            known = [look(repo, [day - timedelta(back + k) for k in range(4)]) for back in (7, 28, 30, 90)]
            if later is not None and None not in known:
                pairs.append((score, math.log((later + 10) / (count[repo, day] + 10))))
        if len(pairs) >= 30:
            ics.append(correlate(rank([p[0] for p in pairs]), rank([p[1] for p in pairs])))
    month = result["horizons"]["28"]
    assert month["days"] == len(ics)
    assert month["rows"]["score"]["ic"]["value"] == pytest.approx(sum(ics) / len(ics), abs=2e-3)
    assert 0.3 < month["rows"]["score"]["ic"]["value"] < 1
    assert month["rows"]["score"]["ic"]["lo"] < month["rows"]["score"]["ic"]["hi"]
    assert {"score - ratio_90d", "score - total"} <= set(month["differences"])


def test_rows_after_a_day_change_nothing_that_was_said_until_then(tmp_path: Path, counts: Any) -> None:
    path, rows = counts
    cut = FIRST + timedelta(200)
    short, changed = tmp_path / "short.csv", tmp_path / "changed.csv"
    head = "repo,date,stars,forks\n"
    known = [f"{r},{d},{s},{f}\n" for r, d, s, f in rows if d <= str(cut)]
    short.write_text(head + "".join(known))
    later = [f"{r},{d},{hash_of(r, d)},{f * 3}\n" for r, d, s, f in rows if d > str(cut)]
    changed.write_text(head + "".join(later + known))
    said = []
    for name, file in (("a", path), ("b", short), ("c", changed)):
        out = tmp_path / f"{name}.csv.gz"
        code, printed, text = run(
            tmp_path, "--stars", file, "--from", FIRST + timedelta(95), "--to", cut, "--every", 1, "--scores-out", out,
            "--json",
        )  # fmt: skip
        assert code == 0, text
        assert json.loads(printed)["horizons"]["28"]["block"] == 56, "days, where every day is evaluated"
        said.append(out.read_bytes())
    assert said[0] == said[1] == said[2]
    assert len(read_scores(tmp_path / "a.csv.gz")) > 4000


def hash_of(repo: str, day: str) -> int:
    """Return a count that has nothing to do with the real one, the same in every process."""
    return random.Random(repo + day).randrange(10**6)


def test_the_table_says_figures_and_limits(tmp_path: Path, counts: Any) -> None:
    path, _ = counts
    code, printed, said = run(tmp_path, "--stars", path, "--horizon", "28,7", "--hn", tmp_path / "hn.csv")
    assert code == 0, said
    assert "--hn is for the forecast" in said
    for words in (
        "next 7 days",
        "next 28 days",
        "ratio_90d",
        "score_1.0",
        "What these figures do not show",
        "persists",
    ):
        assert words in printed
    assert "nan" not in printed.lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stars", "nowhere.csv"], ["nowhere.csv", "does not exist"]),
        (["--stars", ROOT / "README.md"], ["README.md", "no column repo"]),
        (["--stars", "{path}", "--horizon", "7,x"], ["--horizon", "7,28,90"]),
        (["--stars", "{path}", "--horizon", "0"], ["--horizon"]),
        (["--stars", "{path}", "--every", "2"], ["--every"]),
        (["--stars", "{path}", "--from", "2031-01-01"], ["2031-01-01", "2023-01-01"]),
        (["--stars", "{path}", "--scores-out", "no-folder/x.csv.gz"], ["no-folder", "folder does not exist"]),
        (["--stars", "{path}", "--model", "shipped"], ["shipped", "--model none"]),
    ],
)
def test_bad_input_is_refused_with_what_to_do(
    tmp_path: Path, counts: Any, arguments: list[object], words: list[str]
) -> None:
    path, _ = counts
    with pytest.raises(ConfigError) as caught:
        app(["evaluate", *(str(a).format(path=path) for a in arguments)], standalone_mode=False)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path, counts: Any) -> None:
    code, printed, said = run(tmp_path, "--stars", counts[0], "--model", "shipped")
    assert (code, printed) == (2, "")
    assert len(said.strip().splitlines()) == 1, said


def test_refused_rows_are_counted_and_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    path.write_text("repo,date,stars\na/a,2024-01-01,5\na/a,2024-01-02,-1\na/a,9024-01-02,7\n")
    code, printed, said = run(tmp_path, "--stars", path, "--json", "--scores-out", tmp_path / "none.csv")
    assert code == 0, said
    result = json.loads(printed)
    assert result["refused"] == {"a day to come": 1, "no count of stars": 1}
    assert result["rows"] == 3
    assert result["horizons"]["28"]["days"] == 0
    assert any("28 days: no day could be measured" in sentence for sentence in result["limits"])
    assert "1 of 3 rows refused: a day to come" in said
    assert (tmp_path / "none.csv").read_text() == "repo,date,score,forecast28,lo80,hi80,lo95,hi95\n"
