"""The demo's world: what is shipped, and the tool that builds it."""

from __future__ import annotations

import csv
import gzip
import re
import shutil
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import astrid.simulators.world as world_package
from astrid.errors import Malformed
from astrid.simulators.world import World, load_pypi_windows, load_world, read_world
from astrid.simulators.world.history import daily_gains, weekly_rows
from astrid.simulators.world.packing import forge_identities, pack_panels, unpack_panels
from tools.build_world import build
from tools.world_downloads import WEEKEND_SHARE, Window, read_windows, spread_downloads
from tools.world_repos import Wanted, collect_repos
from tools.world_stories import read_stories

FOLDER = Path(world_package.__file__).parent
RAW = Path(__file__).parents[2].parent / "shared" / "data"
needs_raw = pytest.mark.skipif(not RAW.is_dir(), reason="the raw archives are not beside the repository")
SUNDAY = datetime(2026, 3, 29, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def column(world: World, name: str, day: date) -> tuple[int, int]:
    i, t = world.repo_index[name.lower()], world.day_index(day)
    return int(world.stars[i, t]), int(world.origin[i, t])


class TestShipped:
    def test_size_and_speed(self) -> None:
        assert sum(path.stat().st_size for path in FOLDER.glob("*.xz")) <= 3_000_000
        tries = []
        for _ in range(3):
            start = time.process_time()
            read_world(FOLDER)
            tries.append(time.process_time() - start)
        assert min(tries) < 0.5

    def test_shapes(self, world: World) -> None:
        n, t, p = len(world.repos), 455, len(world.packages)
        assert (world.first_day, world.last_day, world.days) == (date(2025, 1, 1), date(2026, 3, 31), t)
        assert world.stars.shape == world.forks.shape == world.origin.shape == (n, t)
        assert [a.dtype.name for a in (world.stars, world.forks, world.origin)] == ["int32", "int32", "int8"]
        assert world.downloads.shape == (p, t)
        assert world.downloads.dtype == np.int64
        assert world.created_estimated.shape == (n,)
        assert not any(a.flags.writeable for a in (world.stars, world.forks, world.origin, world.downloads))

    def test_enough_repositories(self, world: World) -> None:
        known = world.stars >= 0
        assert known.any(axis=1).all()
        first, last = known.argmax(axis=1), world.days - 1 - known[:, ::-1].argmax(axis=1)
        assert len(world.repos) >= 600
        assert ((last - first + 1) >= 380).sum() >= 400

    def test_gaps_agree(self, world: World) -> None:
        gap = world.origin == 0
        assert set(np.unique(world.origin)) == {0, 10, 11}
        assert ((world.stars == -1) == gap).all()
        assert ((world.forks == -1) == gap).all()
        assert (world.stars[~gap] > 0).all()

    def test_identities(self, world: World) -> None:
        names = [repo.name.lower() for repo in world.repos]
        assert names == sorted(set(names))
        assert (
            len({repo.node_id for repo in world.repos}) == len({repo.database_id for repo in world.repos}) == len(names)
        )
        assert all(re.fullmatch(r"R_kgDO[\w-]{6}", repo.node_id) for repo in world.repos)
        assert all(2_000_000_000 <= repo.database_id < 2**31 for repo in world.repos)
        current = set(names)
        assert not [old for repo in world.repos for old in repo.former if old.lower() in current]

    def test_creation_is_not_after_the_first_count(self, world: World) -> None:
        for i, repo in enumerate(world.repos):
            first = world.first_day + timedelta(days=int((world.stars[i] >= 0).argmax()))
            assert repo.created_on <= first, repo.name

    @pytest.mark.parametrize(
        ("name", "day", "stars", "origin"),
        [
            ("ollama/ollama", date(2025, 1, 28), 111_964, 10),
            ("ollama/ollama", date(2025, 1, 29), 113_346, 10),
            ("ollama/ollama", date(2025, 2, 1), 116_412, 11),  # the large archive has no file for this day
            ("ollama/ollama", date(2025, 3, 1), -1, 0),  # neither has
            ("deepseek-ai/DeepSeek-V3", date(2025, 1, 28), 39_919, 10),
            ("deepseek-ai/DeepSeek-V3", date(2025, 1, 29), 52_322, 10),
            ("openclaw/openclaw", date(2026, 1, 28), 74_719, 10),
            ("openclaw/openclaw", date(2026, 1, 29), 91_742, 10),
            ("openclaw/openclaw", date(2026, 1, 30), 106_094, 10),
            ("ggml-org/llama.cpp", date(2025, 2, 15), 74_286, 10),  # under its former name
            ("ggml-org/llama.cpp", date(2025, 2, 16), 74_360, 10),
        ],
    )
    def test_known_events(self, world: World, name: str, day: date, stars: int, origin: int) -> None:
        assert column(world, name, day) == (stars, origin)

    def test_former_names_lead_to_the_same_row(self, world: World) -> None:
        for old, new in (("comfyanonymous/ComfyUI", "Comfy-Org/ComfyUI"), ("clawdbot/clawdbot", "openclaw/openclaw")):
            assert world.repo_index[old.lower()] == world.repo_index[new.lower()]
            assert old in world.repos[world.repo_index[new.lower()]].former

    def test_archives_without_a_day(self, world: World) -> None:
        """The days that README.md lists as absent from one archive or both are so, and no others."""
        assert [str(d) for d in missing_days(world, 10, 11)] == ["2025-03-01", "2025-03-02", "2025-03-03"]
        for day in ("2025-02-14", "2025-02-15", "2026-03-12"):
            assert not (world.origin[:, world.day_index(date.fromisoformat(day))] == 11).any()
        assert date(2025, 8, 20) in missing_days(world, 10)

    def test_outside_days_are_refused(self, world: World) -> None:
        assert world.day_index(world.last_day) == world.days - 1
        for day in (date(2024, 12, 31), date(2026, 4, 1)):
            with pytest.raises(IndexError, match="outside the world"):
                world.day_index(day)

    def test_stories(self, world: World) -> None:
        keys = [(s.created_at, s.story_id) for s in world.stories]
        assert keys == sorted(keys)
        assert len({s.story_id for s in world.stories}) == len(world.stories) > 14_000
        assert world.stories[0].created_at >= datetime(2025, 1, 1, tzinfo=UTC)
        assert world.stories[-1].created_at < datetime(2026, 4, 1, tzinfo=UTC)
        assert all(s.title and s.points >= 0 and s.comments >= 0 for s in world.stories)
        assert all(s.url == "" or s.url.startswith("http") for s in world.stories)
        assert not [
            s
            for s in world.stories
            if re.search("</?(a|em|code|strong|li)>", s.title) or '\\"' in s.title or "\n" in s.title + s.url
        ]
        ids = [s.story_id for s in world.stories]
        assert ids == sorted(ids)

    def test_stories_between(self, world: World) -> None:
        start, end = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 2, tzinfo=UTC)
        assert world.stories_between(start, end) == tuple(s for s in world.stories if start <= s.created_at < end) != ()

    def test_window_totals_stand(self, world: World) -> None:
        windows, totals = load_pypi_windows()
        assert totals.shape == (len(world.packages), len(windows))
        covered = np.zeros(world.downloads.shape, dtype=bool)
        for k, window in enumerate(windows):
            part = slice(world.day_index(window.start), world.day_index(window.end) + 1)
            listed = totals[:, k] >= 0
            assert (world.downloads[listed, part].sum(axis=1) == totals[listed, k]).all()
            covered[listed, part] = True
        assert (covered == (world.downloads >= 0)).all()
        assert max(window.end for window in windows) == date(2026, 2, 28)

    @needs_raw
    def test_window_totals_are_the_real_ones(self, world: World) -> None:
        windows, totals = load_pypi_windows()
        listed = {(w.snapshot.isoformat(), name): (p, k) for k, w in enumerate(windows)
                  for p, name in enumerate(world.packages)}  # fmt: skip
        real = np.full(totals.shape, -1, dtype=np.int64)
        with gzip.open(RAW / "pypi_monthly_top.csv.gz", "rt", newline="") as lines:
            for package, snapshot, downloads, _ in csv.reader(lines):
                place = listed.get((snapshot, re.sub(r"[-_.]+", "-", package).lower()))
                if place:
                    real[place] = int(downloads)
        assert (real == totals).all()

    @needs_raw
    def test_counts_are_the_archives(self, world: World) -> None:
        """Each row of the AI list is in the panel, unless a row of the large archive or of a newer name stands."""
        checked = 0
        with gzip.open(RAW / "ai_stars_daily.csv.gz", "rt", newline="") as lines:
            for repo, day, stars, forks, *_ in csv.reader(lines):
                if "2025-01-01" <= day <= "2026-03-31" and (i := world.repo_index.get(repo.lower())) is not None:
                    t = world.day_index(date.fromisoformat(day))
                    if world.origin[i, t] == 11 and repo.lower() == world.repos[i].name.lower():
                        assert (world.stars[i, t], world.forks[i, t]) == (int(stars), int(forks))
                        checked += 1
                    assert world.origin[i, t] != 0
        assert checked > 100_000

    def test_readme_states_the_counts(self, world: World) -> None:
        text = (FOLDER / "README.md").read_text()
        known = world.stars >= 0
        first, last = known.argmax(axis=1), world.days - 1 - known[:, ::-1].argmax(axis=1)
        for count, what in (
            (len(world.repos), "repositories"),
            (int((last - first + 1 >= 380).sum()), "of them span"),
            (int(known.sum()), "repository days"),
            (int((world.origin == 11).sum()), "of them from the AI list"),
            (int(world.created_estimated.sum()), "creation days are estimated"),
            (len(world.packages), "packages"),
            (int((world.downloads >= 0).sum()), "package days"),
            (len(world.stories), "stories"),
        ):
            assert f"{count:,} {what}" in text

    def test_damaged_data_are_named(self, tmp_path: Path) -> None:
        for path in FOLDER.glob("*.xz"):
            shutil.copy(path, tmp_path)
        (tmp_path / "panels.npz.xz").write_bytes(b"no archive")
        with pytest.raises(Malformed, match=r"panels\.npz\.xz"):
            read_world(tmp_path)


def missing_days(world: World, *origins: int) -> list[date]:
    seen = np.isin(world.origin, origins).any(axis=0)
    return [world.first_day + timedelta(days=int(t)) for t in np.flatnonzero(~seen)]


class TestHistory:
    def test_sums_agree_with_the_snapshots(self, world: World) -> None:
        for i in range(len(world.repos)):
            weeks, days = world.star_history(i, world.last_day)
            known = world.stars[i][world.stars[i] >= 0].astype(int)
            rises = np.maximum(np.diff(known), 0).sum()
            assert days.sum() == known[0] + rises
            assert (np.diff(weeks) == -7 * 86_400).all()
            assert weeks[0] == int(SUNDAY.timestamp())
            assert days[0, 3:].sum() == 0  # Wednesday to Saturday have not come yet
            created = world.repos[i].created_on
            assert timedelta(0) <= created - datetime.fromtimestamp(int(weeks[-1]), UTC).date() < timedelta(days=7)

    def test_an_earlier_day_sees_the_same_past(self, world: World) -> None:
        i = world.repo_index["ollama/ollama"]
        weeks, days = world.star_history(i, date(2025, 1, 29))
        assert datetime.fromtimestamp(int(weeks[0]), UTC).date() == date(2025, 1, 26)
        assert days[0].tolist() == [110_244 - 109_901, 566, 1154, 1382, 0, 0, 0]
        all_weeks, all_days = world.star_history(i, world.last_day)
        assert (all_days[-len(days) + 1 :] == days[1:]).all()
        assert (all_weeks[-len(weeks) :] == weeks).all()
        assert days.sum() <= 113_346 + 200

    def test_answers_may_be_written_to(self, world: World) -> None:
        before = world.star_history(0, world.last_day)[1].copy()
        world.star_history(0, world.last_day)[1][:] = -5
        assert (world.star_history(0, world.last_day)[1] == before).all()

    def test_before_creation_there_is_nothing(self, world: World) -> None:
        weeks, days = world.star_history(0, world.repos[0].created_on - timedelta(days=1))
        assert weeks.shape == (0,)
        assert days.shape == (0, 7)

    def test_gap_fall_and_end(self) -> None:
        stars = np.array([-1, 10, -1, -1, 17, 15, 20, -1], dtype=np.int32)
        part = daily_gains(stars, date(2025, 1, 5), date(2025, 1, 2))  # Sunday; Thursday
        assert part.sunday == date(2024, 12, 29)
        weeks, days = weekly_rows(part, date(2025, 1, 12))
        assert days.tolist() == [[0, 0, 0, 0, 0, 0, 0], [2, 2, 2, 2, 3, 0, 5], [0, 0, 0, 0, 2, 2, 2]]
        assert weeks[-1] == int(datetime(2024, 12, 29, tzinfo=UTC).timestamp())

    def test_creation_after_the_first_count_is_refused(self) -> None:
        with pytest.raises(ValueError, match="later than the first known count"):
            daily_gains(np.array([5, 6]), date(2025, 1, 1), date(2025, 1, 2))

    @given(
        st.lists(st.integers(-1, 50) | st.integers(1000, 90_000), min_size=1, max_size=60),
        st.integers(0, 800),
        st.integers(0, 80),
    )
    def test_agrees_with_the_plain_way(self, counts: list[int], age: int, ahead: int) -> None:
        first = date(2025, 1, 1)
        created, until = first - timedelta(days=age), first + timedelta(days=ahead)
        want: dict[date, int] = {}
        day, level = created - timedelta(days=1), 0
        for t, count in enumerate(counts):
            if count >= 0:
                here = first + timedelta(days=t)
                n, rise = (here - day).days, max(count - level, 0)
                for k in range(1, n + 1):
                    want[day + timedelta(days=k)] = rise * k // n - rise * (k - 1) // n
                day, level = here, count
        weeks, days = weekly_rows(daily_gains(np.array(counts), first, created), until)
        for week, row in zip(weeks, days, strict=True):
            sunday = datetime.fromtimestamp(int(week), UTC).date()
            for k in range(7):
                when = sunday + timedelta(days=k)
                assert row[k] == (want.get(when, 0) if when <= until else 0)


class TestPacking:
    @given(
        st.lists(st.lists(st.integers(-1, 5) | st.integers(-1, 2**62), min_size=3, max_size=3), min_size=1, max_size=5)
    )
    def test_panels_come_back(self, rows: list[list[int]]) -> None:
        panel = np.array(rows, dtype=np.int64)
        back = unpack_panels(pack_panels({"a": panel, "b": np.zeros((2, 3), dtype=np.int8)}))
        assert (back["a"] == panel).all()
        assert (back["a"].dtype.name, back["b"].dtype.name) == ("int64", "int8")

    def test_values_below_a_gap_are_refused(self) -> None:
        with pytest.raises(ValueError, match="'a' holds values below -1"):
            pack_panels({"a": np.array([[-2]])})

    def test_identities_do_not_depend_on_company(self) -> None:
        names = [f"owner/repo{k}" for k in range(2000)]
        ids = forge_identities(names)
        assert len({i for i, _ in ids}) == len({n for _, n in ids}) == 2000
        assert forge_identities(names[:1]) == ids[:1]


def write(path: Path, header: str, rows: Iterable[str]) -> None:
    path.write_bytes(gzip.compress("\n".join([header, *rows, ""]).encode()) if path.suffix == ".gz"
                     else "\n".join([header, *rows, ""]).encode())  # fmt: skip


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of raw archives, small enough to be read by eye."""
    folder = tmp_path / "raw"
    folder.mkdir()
    write(
        folder / "stars_daily.csv.gz",
        "repo,date,stars,forks,open_issues",
        [
            "Old/Tool,2024-12-28,900,9,0",
            "Old/Tool,2025-01-02,1000,10,0",
            "Old/Tool,2025-01-03,1010,11,0",
            "new/tool,2025-01-03,1011,12,0",
            "new/tool,2025-01-05,0,0,0",
            "new/tool,2025-01-06,1100,13,0",
            "new/tool,2026-04-01,9999,99,0",
            "else/where,2025-01-02,5,5,5",
        ],
    )
    write(
        folder / "ai_stars_daily.csv.gz",
        "repo,date,stars,forks,open_issues,n_lists",
        ["new/tool,2025-01-02,1,1,0,1", "NEW/Tool,2025-01-04,1050,12,0,1", "late/one,2025-03-04,800,8,0,1",
         "late/one,2025-03-14,900,9,0,1"],
    )  # fmt: skip
    write(
        folder / "stars_repo_renames.csv",
        "old_repo,new_repo,old_last_seen",
        ["Old/Tool,new/tool,2025-01-03", "oldest/tool,Old/Tool,2020-01-01", "late/one,later/one,2026-05-01"],
    )
    write(
        folder / "bestof_projects_weekly.csv.gz",
        "date,list,github_id," + ",".join("abcdefghijklmnopqrs") + ",created_at,pypi_id",
        [f"2023-01-02,x,old/tool,{',' * 19}2019-05-06,tool"],
    )
    write(folder / "trending_daily.csv.gz", "date,source,language,rank,repo", ["2025-03-01,x,python,1,late/one"])
    write(
        folder / "pypi_snapshots.csv",
        "snapshot_date,rows,min,window_days,installers,method,file,commit,committed_at",
        [
            "2025-01-01,1,1,30,all,BigQuery/pypinfo,f,c,t",
            "2025-02-11,1,1,20,all,BigQuery/pypinfo,f,c,t",
            "2025-03-02,1,1,28,all,ClickHouse last calendar month,f,c,t",
            "2025-04-01,1,1,31,all,ClickHouse last calendar month,f,c,t",
        ],
    )
    write(
        folder / "pypi_monthly_top.csv.gz",
        "package,snapshot_date,downloads_30d,rank",
        ["My_Tool,2025-02-11,20000,1", "my-tool,2025-03-02,40001,1", "other,2025-03-02,7,2", "my-tool,2025-01-01,3,1"],
    )
    write(
        folder / "hn_daily.csv.gz",
        "date,source,rank,id,title,url,points,comments,scrapes_seen,time_utc,by",
        [
            "2024-12-31,top10,1,90,Eve,http://a.example/,5,1,,2024-12-31T22:00Z,x",
            '2025-01-01,top30,1,100,"A \\""quoted\\"" <em>word</em>",https://b.example/,10,9,,,',
            "2025-01-01,top10,1,110,Timed,https://news.ycombinator.com/item?id=110,70,5,,2025-01-01T02:00Z,x",
            "2025-01-02,top30,1,110,Other words,https://c.example/,60,8,,,",
            '2025-01-02,top30,2,105,Spilled,"https://d.example/</a> <a href=""https://e.example/",1,1,,,',
            "2025-01-02,top30,3,106,undefined,https://d.example/,,,,,",
            "2025-01-02,top30,4,111,Too new,https://d.example/,1,1,,,",
        ],
    )
    return folder


class TestBuilder:
    def test_names_and_archives_are_joined(self, raw: Path) -> None:
        wanted = [Wanted("late/one"), Wanted("New/tool"), Wanted("not/there")]
        panel = collect_repos(raw, wanted, date(2025, 1, 1), 80)
        assert [repo.name for repo in panel.repos] == ["late/one", "New/tool"]
        assert panel.repos[1].former() == ["oldest/tool", "Old/Tool"]
        assert panel.stars[1, :7].tolist() == [-1, 1000, 1011, 1050, -1, 1100, -1]
        assert panel.forks[1, :7].tolist() == [-1, 10, 12, 12, -1, 13, -1]
        assert panel.origin[1, :7].tolist() == [0, 10, 10, 11, 0, 10, 0]
        assert panel.broken == ["New/tool 2025-01-05: 1050 -> 0"]
        assert panel.notes == [
            "late/one was later renamed to later/one, which is not joined",
            "1 without a row in the world's days: not/there",
        ]

    def test_creation_days(self, raw: Path) -> None:
        """One is stated; the other gained 10 stars a day and so needs 80 days for its first 800."""
        panel = collect_repos(raw, [Wanted("late/one"), Wanted("new/tool")], date(2025, 1, 1), 80)
        assert panel.created == [(date(2025, 3, 4) - timedelta(days=80), True), (date(2019, 5, 6), False)]

    def test_another_projects_name_is_not_taken(self, raw: Path) -> None:
        panel = collect_repos(raw, [Wanted("new/tool"), Wanted("Old/Tool")], date(2025, 1, 1), 80)
        assert panel.stars[0, 1:4].tolist() == [1, 1011, 1050]
        assert panel.stars[1, 1:4].tolist() == [1000, 1010, -1]
        assert "another project's name" in panel.notes[0]

    def test_stories(self, raw: Path) -> None:
        stories, counts = read_stories(raw, date(2025, 1, 1), date(2025, 1, 3))
        assert [(s.story_id, s.title, s.url, s.points, s.comments) for s in stories] == [
            (100, 'A "quoted" *word*', "https://b.example/", 10, 9),
            (110, "Timed", "", 70, 8),
        ]
        assert stories[0].created_at == datetime(2025, 1, 1, 0, 0, tzinfo=UTC)  # half way from 90 to 110
        assert counts == {
            "rows with spilled markup, skipped": 1,
            "rows without numbers, skipped": 1,
            "rows of a story met before, merged": 1,
            "stories outside the known times, left out": 1,
            "stories with a stated time": 1,
            "stories with an interpolated time": 1,
        }

    def test_windows(self, raw: Path) -> None:
        assert read_windows(raw, date(2025, 1, 1), date(2026, 3, 31)) == [
            Window(date(2025, 2, 11), date(2025, 1, 22), date(2025, 2, 10)),
            Window(date(2025, 3, 2), date(2025, 2, 1), date(2025, 2, 28)),
            Window(date(2025, 4, 1), date(2025, 3, 1), date(2025, 3, 31)),
        ]

    def test_a_window_of_another_length_is_refused(self, raw: Path) -> None:
        path = raw / "pypi_snapshots.csv"
        path.write_text(path.read_text().replace("2025-03-02,1,1,28", "2025-03-02,1,1,30"))
        with pytest.raises(ValueError, match="snapshot of 2025-03-02 states 30 days"):
            read_windows(raw, date(2025, 1, 1), date(2026, 3, 31))

    def test_same_bytes_twice(self, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        outs = [tmp_path / "one", tmp_path / "two"]
        for out in outs:
            build(raw, out, [Wanted("new/tool"), Wanted("late/one")], ["My.Tool", "unlisted"])
        files = sorted(path.name for path in outs[0].iterdir())
        assert files == ["facts.json.xz", "panels.npz.xz", "stories.json.xz"]
        for name in files:
            assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
        small = read_world(outs[0])
        assert small.packages == ("my-tool",)
        assert small.downloads[0, 21:41].sum() == 20_000
        assert small.downloads[0, 31:59].sum() == 40_001
        assert small.downloads[0, 59] == -1
        assert column(small, "OLD/tool", date(2025, 1, 4)) == (1050, 11)
        assert small.repos[1].former == ("oldest/tool", "Old/Tool")
        assert "2 repositories" in capsys.readouterr().out


class TestSpread:
    FIRST = date(2025, 1, 1)

    def windows(self, *spans: tuple[int, int]) -> list[Window]:
        at = [self.FIRST + timedelta(days=d) for d in range(400)]
        return [Window(at[b + 1], at[a], at[b]) for a, b in spans]

    @given(
        st.lists(st.just(-1) | st.integers(0, 50) | st.integers(1000, 10**9), min_size=4, max_size=4),
    )
    def test_sums_are_exact(self, totals: list[int]) -> None:
        spans = [(2, 30), (31, 58), (70, 90), (100, 130)]
        daily = spread_downloads(self.windows(*spans), np.array([totals]), self.FIRST, 140)[0]
        for (a, b), total in zip(spans, totals, strict=True):
            part = daily[a : b + 1]
            assert (part == -1).all() if total < 0 else (part.sum() == total and (part >= 0).all())
        assert (daily[:2] == -1).all()
        assert (daily[131:] == -1).all()

    @given(st.integers(100, 10**8), st.integers(100, 10**8))
    def test_overlapping_windows_both_keep_their_totals(self, one: int, two: int) -> None:
        daily = spread_downloads(self.windows((5, 26), (15, 44)), np.array([[one, two]]), self.FIRST, 60)[0]
        assert daily[5:27].sum() == one
        assert daily[15:45].sum() == two
        assert (daily[5:45] >= 0).all()

    def test_no_step_between_windows(self) -> None:
        spans = [(0, 30), (31, 58), (59, 89), (90, 119)]
        totals = np.array([[3_000_000, 3_600_000, 6_000_000, 6_500_000]])
        daily = spread_downloads(self.windows(*spans), totals, self.FIRST, 120)[0]
        weekday = np.array([(self.FIRST + timedelta(days=t)).weekday() for t in range(120)])
        level = np.log(daily / np.where(weekday >= 5, WEEKEND_SHARE, 1.0))
        assert np.abs(np.diff(level)).max() < 0.04
        assert np.abs(np.diff(level, n=2)[[29, 57, 88]]).max() < 0.001

    def test_weekends_are_low(self) -> None:
        daily = spread_downloads(self.windows((0, 27)), np.array([[2_600_000]]), self.FIRST, 28)[0]
        saturday, monday = 3, 5
        assert daily[saturday] == pytest.approx(WEEKEND_SHARE * daily[monday], rel=1e-3)

    def test_nested_windows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="neither may hold the other"):
            spread_downloads(self.windows((0, 27), (5, 20)), np.array([[5, 5]]), self.FIRST, 28)
