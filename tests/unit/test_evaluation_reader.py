"""Panels from CSV files: what is read, what is refused, and how renames are followed."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.errors import ConfigError
from astrid.evaluation.panel import Panel
from astrid.evaluation.reader import Rename, chain, read, read_panel, read_renames

NAN = float("nan")


def day(text):
    return np.datetime64(text, "D")


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def write_renames(path: Path, *lines: str) -> Path:
    return write(path, "old_repo,new_repo,new_first_seen,confidence", *lines)


def series(panel: Panel, repo: str) -> list[float]:
    return panel.stars[:, panel.repos.index(repo)].tolist()


def assert_counts(got: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(got, expected)


def test_unsorted_rows_with_gaps_and_other_columns_become_a_block(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.csv",
        "n_lists,forks,date,repo,stars",
        "1,7,2024-01-04,b/b,40",
        "1,,2024-01-02,a/a,10",
        "1,3,2024-01-02T09:00:00Z,b/b,20",
    )
    panel = read_panel(path)
    assert panel.repos == ("a/a", "b/b")
    assert panel.days.tolist() == [day("2024-01-02"), day("2024-01-03"), day("2024-01-04")]
    assert panel.stars.dtype == np.float32
    assert panel.forks is not None
    assert_counts(series(panel, "a/a"), [10, NAN, NAN])
    assert_counts(series(panel, "b/b"), [20, NAN, 40])
    assert_counts(panel.forks[:, 1].tolist(), [3, NAN, 7])
    assert np.isnan(panel.forks[:, 0]).all()
    assert [panel.locate(day(d)) for d in ("2024-01-01", "2024-01-04", "2024-01-09")] == [-1, 2, 7]


def test_a_compressed_file_is_the_same_panel_and_forks_may_be_absent(tmp_path: Path) -> None:
    lines = "repo,date,stars\r\na/a,2024-01-02,10\r\n"
    (tmp_path / "s.csv").write_text("\ufeff" + lines)
    (tmp_path / "s.csv.gz").write_bytes(gzip.compress(lines.encode()))
    plain, packed = read_panel(tmp_path / "s.csv"), read_panel(tmp_path / "s.csv.gz")
    assert plain.repos == packed.repos == ("a/a",)
    assert plain.forks is packed.forks is None
    assert series(plain, "a/a") == series(packed, "a/a") == [10]


def test_of_two_rows_of_a_day_the_last_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "repo,date,stars", "a/a,2024-01-02,10", "a/a,2024-01-02,11", "a/a,2024-01-02,9")
    assert series(read_panel(path), "a/a") == [9]


def test_defective_rows_are_refused_and_counted(tmp_path: Path) -> None:
    bad_counts = ["-1", "nan", "NaN", "inf", "", "many", "1e16", "1,5"]
    path = write(
        tmp_path / "s.csv",
        "repo,date,stars,forks",
        "a/a,2024-01-02,10,1",
        *(f'a/a,2024-01-03,"{text}",1' for text in bad_counts),
        ",2024-01-03,5,1",
        "a/a,2024-02-30,5,1",
        "a/a,yesterday,5,1",
        "a/a,,5,1",
        "a/a,1970-01-01,5,1",
        "a/a,2024-01-06,5,1",
        "a/a,2024-01-05,1e1,-4",
    )
    reading = read(path, today=day("2024-01-05"))
    assert reading.rows == 16
    assert reading.refused == {
        "no repository": 1,
        "no date": 3,
        "a day before 2000-01-01": 1,
        "a day to come": 1,
        "no count of stars": len(bad_counts),
        "no count of forks (the stars were used)": 1,
    }
    assert_counts(series(reading.panel, "a/a"), [10, NAN, NAN, 10])
    assert reading.panel.forks is not None
    assert_counts(reading.panel.forks[:, 0].tolist(), [1, NAN, NAN, NAN])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["column repo", "repo,date,stars"]),
        (b"repo,day,stars\na/a,2024-01-01,1\n", ["column date"]),
        (b"repo,date,stars,stars\na/a,2024-01-01,1,2\n", ["column stars 2 times"]),
        (b"repo,date,stars\n", ["no usable row", "YYYY-MM-DD"]),
        (b"repo,date,stars\na/a,2024-01-01,-1\n", ["no usable row", "1 with no count"]),
        (b"repo,date,stars\na/a,2024-01-01\n", ["cannot be read as CSV"]),
        (b"repo,date,stars\na/\xff,2024-01-01,1\n", ["cannot be read as CSV"]),
        (b"\x7fELF\x80\x81\n", ["cannot be read as CSV"]),
    ],
)
def test_what_is_no_panel_is_said_with_file_and_remedy(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_panel(path)
    assert all(word in str(caught.value) for word in [*words, "s.csv"]), caught.value
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_opened_are_said(tmp_path: Path) -> None:
    packed = tmp_path / "cut.csv.gz"
    packed.write_bytes(gzip.compress(b"repo,date,stars\n" + b"a/a,2024-01-01,1\n" * 50_000)[:60])
    for path, words in ((tmp_path / "none.csv", "does not exist"), (tmp_path, "cannot be"), (packed, "cannot be")):
        with pytest.raises(ConfigError, match=words):
            read_panel(path)


def test_a_wrong_century_is_refused_before_it_costs_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "repo,date,stars", "a/a,2024-01-01,1", "a/a,9024-01-01,1")
    with pytest.raises(ConfigError, match="9024-01-01; mend"):
        read_panel(path)
    assert read(path, today=day("2024-06-01")).refused == {"a day to come": 1}


def test_renames_join_series_from_their_day_on_and_names_stay_as_in_the_input(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.csv",
        "repo,date,stars",
        "old/x,2024-01-01,1",
        "old/x,2024-01-02,2",
        "mid/x,2024-01-03,3",
        "new/x,2024-01-05,5",
        "old/x,2024-01-05,100",  # somebody else took the free name
    )
    renames = write_renames(
        tmp_path / "r.csv",
        "old/x,mid/x,2024-01-03,high",
        "mid/x,new/x,2024-01-05,medium",
        "new/x,never/seen,2024-03-01,high",
        "other/y,new/x,2024-01-02,high",
    )
    panel = read_panel(path, renames)
    assert panel.repos == ("new/x", "old/x")
    assert_counts(series(panel, "new/x"), [1, 2, 3, NAN, 5])
    assert_counts(series(panel, "old/x"), [NAN, NAN, NAN, NAN, 100])
    assert [panel.names(row)[0] for row in range(5)] == ["old/x", "old/x", "mid/x", "mid/x", "new/x"]
    assert panel.until(2).names(2) == panel.names(2)


def test_a_rename_holds_from_its_own_day_on(tmp_path: Path) -> None:
    lines = ["old/x,2024-01-01,1", "old/x,2024-01-03,300", "new/x,2024-01-03,3"]
    renames = write_renames(tmp_path / "r.csv", "old/x,new/x,2024-01-03,high")
    panel = read_panel(write(tmp_path / "s.csv", "repo,date,stars", *lines), renames)
    assert_counts(series(panel, "new/x"), [1, NAN, 3])
    assert_counts(series(panel, "old/x"), [NAN, NAN, 300])


def test_a_name_in_the_middle_that_the_file_lacks_does_not_break_the_chain(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "repo,date,stars", "old/x,2024-01-01,1", "new/x,2024-01-05,5")
    renames = write_renames(tmp_path / "r.csv", "old/x,mid/x,2024-01-03,high", "mid/x,new/x,2024-01-05,high")
    assert read_panel(path, renames).repos == ("new/x",)


def test_where_both_names_have_a_row_the_later_name_counts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.csv",
        "repo,date,stars",
        "new/x,2024-01-02,12",
        "old/x,2024-01-01,1",
        "old/x,2024-01-02,2",
        "old/x,2024-01-03,3",
        "new/x,2024-01-04,14",
    )
    panel = read_panel(path, write_renames(tmp_path / "r.csv", "old/x,new/x,2024-01-04,high"))
    assert_counts(series(panel, "new/x"), [1, 12, 3, 14])
    assert [panel.names(row)[0] for row in range(4)] == ["old/x", "new/x", "old/x", "new/x"]


def test_renames_back_and_forth_end(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "repo,date,stars", "a/x,2024-01-01,1", "b/x,2024-01-03,3", "a/x,2024-01-05,5")
    renames = write_renames(tmp_path / "r.csv", "a/x,b/x,2024-01-02,high", "b/x,a/x,2024-01-04,high")
    panel = read_panel(path, renames)
    assert panel.repos == ("a/x",)
    assert_counts(series(panel, "a/x"), [1, NAN, 3, NAN, 5])


def test_renames_without_day_or_of_low_confidence_are_left_out(tmp_path: Path) -> None:
    path = write_renames(tmp_path / "r.csv", "a/x,b/x,,high", "a/x,c/x,2024-01-02,low", "a/x,d/x,2024-01-02,high")
    assert read_renames(path) == [Rename("a/x", "d/x", day("2024-01-02"))]
    with pytest.raises(ConfigError, match="no column date or new_first_seen"):
        read_renames(write(tmp_path / "bare.csv", "old_repo,new_repo", "a/x,b/x"))
    with pytest.raises(ConfigError, match="no column old_repo"):
        read_renames(write(tmp_path / "wrong.csv", "from,to"))


NAMES = st.sampled_from(["a/a", "b/b", "c/c", "d/d"])
MOMENTS = st.integers(0, 9).map(lambda d: day("2024-01-01") + d)


@given(st.lists(st.builds(Rename, NAMES, NAMES, MOMENTS), max_size=12), NAMES, MOMENTS)
def test_any_renames_give_a_chain_that_ends_and_never_goes_back_in_time(renames, name, moment) -> None:
    by_old: dict[str, list[Rename]] = {}
    for rename in renames:
        by_old.setdefault(rename.old, []).append(rename)
    found = chain(name, moment, by_old)
    assert found[0] == name
    last = moment
    for old, new in pairwise(found):
        steps = [r.day for r in by_old[old] if r.new == new and r.day >= last]
        assert steps, (found, old, new)
        last = min(steps)
    assert (len(found) == 1) == all(r.day <= moment for r in by_old.get(name, []))
