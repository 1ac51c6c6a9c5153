"""The simulated Hacker News, pypistats, ClickHouse and archive: contents, limits, and the recorded shapes."""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.models import Request, Response
from astrid.simulators.archive import Archive
from astrid.simulators.clickhouse import ClickHouse
from astrid.simulators.clickhouse_sql import read_select
from astrid.simulators.hackernews import UNREADABLE, Algolia, Firebase
from astrid.simulators.limits import Window
from astrid.simulators.pypistats import PyPIStats
from astrid.simulators.scenarios import SCENARIOS
from astrid.simulators.upstream import Upstream
from tests.synthetic_world import DAYS, FIRST_DAY, GAP, NIGHT, make_stories, make_world

NOW = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=5)
SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
Params = tuple[tuple[str, str], ...]


def ask(
    upstream: Upstream,
    path: str,
    params: Params = (),
    *,
    method: str = "GET",
    content: bytes | None = None,
    now: datetime = NOW,
    night: date = NIGHT,
    headers: Params = (),
) -> Response:
    request = Request(upstream.name, method, path, params, content=content, headers=headers)
    return upstream.respond(request, token=None, now=now, night=night)


def search(upstream: Upstream, night: date = NIGHT, **params: str) -> Any:
    given_params = {"tags": "story", **params}
    return ask(upstream, "/api/v1/search_by_date", tuple(given_params.items()), night=night).json()


class TestAlgolia:
    def test_window_newest_first(self) -> None:
        algolia = Algolia(make_world())
        times = [int(s.created_at.timestamp()) for s in make_stories(40)]
        found = search(
            algolia, numericFilters=f"created_at_i>={times[10]},created_at_i<{times[20]}", hitsPerPage="1000"
        )
        assert [h["objectID"] for h in found["hits"]] == [str(5000 + n) for n in range(19, 9, -1)]
        assert (found["nbHits"], found["nbPages"], found["page"], found["hitsPerPage"]) == (10, 1, 0, 1000)
        assert [h["created_at_i"] for h in found["hits"]] == times[10:20][::-1]

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [(">=", range(20, 40)), (">", range(21, 40)), ("<", range(20)), ("<=", range(21)), ("=", [20])],
    )
    def test_operators(self, condition: str, expected: range | list[int]) -> None:
        at = int(make_stories(40)[20].created_at.timestamp())
        found = search(Algolia(make_world()), numericFilters=f"created_at_i{condition}{at}", hitsPerPage="1000")
        assert sorted(int(h["objectID"]) - 5000 for h in found["hits"]) == list(expected)

    @pytest.mark.parametrize(
        ("query", "found"), [("ollama", 1), ("olama", 1), ("ollamaa", 1), ("ollamo", 1), ("olamo", 0), ("oll", 1)]
    )
    def test_a_search_that_forgives_typos(self, query: str, found: int) -> None:
        """Why stories are matched here and not there: one letter off is another project."""
        stories = (replace(make_stories(1)[0], title="Show HN: Ollama, again", url=""),)
        algolia = Algolia(make_world(stories=stories), scenario=SCENARIOS["hn_typos"])
        assert search(algolia, query=query)["nbHits"] == found
        exact = int(query in "show hn: ollama, again")
        assert search(algolia, query=query, typoTolerance="false")["nbHits"] == exact
        assert search(Algolia(make_world(stories=stories)), query=query)["nbHits"] == exact

    def test_only_a_thousand_hits_can_be_reached(self) -> None:
        algolia = Algolia(make_world(stories=make_stories(1500, step_s=60)))
        first = search(algolia, hitsPerPage="600")
        assert (first["nbHits"], first["nbPages"], len(first["hits"])) == (1500, 2, 600)
        assert len(search(algolia, hitsPerPage="600", page="1")["hits"]) == 400
        assert search(algolia, hitsPerPage="600", page="2")["hits"] == []
        assert len(search(algolia, hitsPerPage="5000")["hits"]) == 1000
        assert search(algolia, hitsPerPage="1")["nbPages"] == 1000

    def test_nothing_newer_than_the_moment_of_reading(self) -> None:
        last = datetime.combine(NIGHT + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=10)
        algolia = Algolia(make_world(stories=make_stories(20, last=last)))
        newest = search(algolia)["hits"][0]["created_at_i"]
        assert newest == int(NOW.timestamp())
        assert search(algolia, night=NIGHT + timedelta(days=1))["nbHits"] == 20

    def test_points_grow_to_the_final_number_and_never_shrink(self) -> None:
        algolia = Algolia(make_world())
        story = make_stories(40)[-1]
        nights = [NIGHT + timedelta(days=n) for n in range(5)]
        points = [search(algolia, night=n, hitsPerPage="1")["hits"][0]["points"] for n in nights]
        assert points == sorted(points)
        assert 1 <= points[0] < story.points
        assert points[3] == points[4] == story.points

    def test_titles_are_escaped_and_ask_hn_has_no_url(self) -> None:
        hits = search(Algolia(make_world()), hitsPerPage="1000")["hits"]
        by_id = {int(h["objectID"]): h for h in hits}
        assert by_id[5001]["title"] == "Tools &amp; &quot;agents&quot; 1"
        assert html.unescape(by_id[5001]["title"]) == make_stories(40)[1].title
        assert by_id[5005]["url"] is None
        assert "ask_hn" in by_id[5005]["_tags"]
        assert search(Algolia(make_world()), tags="(ask_hn,show_hn)")["nbHits"] == 8
        assert search(Algolia(make_world()), tags="story,ask_hn")["nbHits"] == 8
        assert search(Algolia(make_world()), tags="comment")["nbHits"] == 0
        assert search(Algolia(make_world()), query="example.org/12")["nbHits"] == 1

    @needs_samples
    def test_points_cannot_be_filtered(self) -> None:
        recorded = json.loads((SAMPLES / "hn-algolia/error_points_not_filterable_400.json").read_bytes())
        params = (("tags", "story"), ("numericFilters", "created_at_i>1,points>5"))
        answer = ask(Algolia(make_world()), "/api/v1/search_by_date", params)
        assert (answer.status, answer.json()) == (recorded["status"], recorded["body"])

    @needs_samples
    def test_recorded_shape(self) -> None:
        recorded = json.loads((SAMPLES / "hn-algolia/recorded_26_requests.json").read_bytes())
        theirs = next(r["reply"] for r in recorded if r["url"] == "/api/v1/search_by_date?hitsPerPage=1&tags=(story)")
        ours = search(Algolia(make_world()), hitsPerPage="1")
        assert list(ours) == list(theirs)
        assert list(ours["hits"][0]) == list(theirs["hits"][0])
        assert list(ours["hits"][0]["_highlightResult"]) == list(theirs["hits"][0]["_highlightResult"])

    def test_hourly_limit(self) -> None:
        algolia = Algolia(make_world(), hourly=Window("requests", 2, 3600.0))
        statuses = [
            ask(algolia, "/api/v1/search_by_date", now=NOW + timedelta(seconds=s)).status for s in (0, 1, 2, 3600)
        ]
        assert statuses == [200, 200, 429, 200]
        assert algolia.limits.convictions() == 1

    @given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=8), st.text(max_size=8))
    def test_any_parameter_gets_an_answer(self, filters: str, tags: str, size: str, page: str) -> None:
        params = (("numericFilters", filters), ("tags", tags), ("hitsPerPage", size), ("page", page))
        assert ask(Algolia(make_world()), "/api/v1/search_by_date", params).status in (200, 400)


class TestFirebase:
    def test_item_null_and_maxitem(self) -> None:
        firebase = Firebase(make_world())
        item = ask(firebase, "/v0/item/5001.json").json()
        assert (item["id"], item["type"], item["url"]) == (5001, "story", "https://example.org/1")
        assert "url" not in ask(firebase, "/v0/item/5005.json").json()
        for absent in ("/v0/item/1.json", "/v0/item/5039.json"):
            answer = ask(firebase, absent, night=NIGHT - timedelta(days=3))
            assert (answer.status, answer.body) == (200, b"null")
        newest = ask(firebase, "/v0/maxitem.json").json()
        assert newest == 5039 + 9 * 60 + UNREADABLE, "from 20:00 on a comment a minute"
        assert ask(firebase, f"/v0/item/{newest}.json").body == b"null"
        shown = [ask(firebase, f"/v0/item/{n}.json").json() for n in range(5040, newest - UNREADABLE + 1)]
        assert {item["type"] for item in shown if item} <= {"comment", "job", "story"}
        assert max(item["time"] for item in shown if item) > NOW.timestamp() - 600
        assert ask(firebase, "/v0/maxitem.json", night=NIGHT - timedelta(days=1)).json() < 5039
        assert ask(firebase, "/v0/unknown").status == 401

    def test_both_hosts_agree(self) -> None:
        world = make_world()
        hit = search(Algolia(world), hitsPerPage="1")["hits"][0]
        item = ask(Firebase(world), f"/v0/item/{hit['objectID']}.json").json()
        assert (item["score"], item["descendants"], item["time"]) == (
            hit["points"],
            hit["num_comments"],
            hit["created_at_i"],
        )
        assert (item["by"], item["title"]) == (hit["author"], hit["title"])

    @pytest.mark.parametrize("name", ["calm", "hn_crowded", "hn_bursts", "hn_bad_points", "hn_newer_form"])
    def test_both_hosts_have_the_same_stories_of_a_day_whatever_a_scenario_adds(self, name: str) -> None:
        spread = tuple(replace(s, story_id=9_000_000 + 450 * n) for n, s in enumerate(make_stories(40)))
        world = make_world(stories=spread)
        scenario = replace(SCENARIOS[name], hn_bad_points=10 * SCENARIOS[name].hn_bad_points)
        algolia, firebase = Algolia(world, scenario=scenario), Firebase(world, scenario=scenario)
        noon = int((NOW - timedelta(hours=17)).timestamp())
        filters = f"created_at_i>={noon - 5_400},created_at_i<{noon}"
        found = search(algolia, numericFilters=filters, hitsPerPage="1000")
        numbers = range(9_000_000 + 28 * 450, 9_000_000 + 33 * 450)
        items = [i for i in (ask(firebase, f"/v0/item/{n}.json").json() for n in numbers) if i and i["type"] == "story"]
        inside = [i for i in items if noon - 5_400 <= i["time"] < noon and not i.get("dead") and not i.get("deleted")]
        hits = {
            (int(h["objectID"]), h["created_at_i"], h["title"], h.get("url"), h.get("points")) for h in found["hits"]
        }
        assert hits == {(i["id"], i["time"], i["title"], i.get("url"), i["score"]) for i in inside}
        assert len(hits) == found["nbHits"]
        assert (len(hits) > 100) == bool(scenario.hn_crowd)
        assert {h["created_at_i"] % 2_700 for h in found["hits"]} == {0} or not scenario.hn_burst_s

    def test_a_crowd_is_the_same_at_every_look_and_no_days_are_mixed_up(self) -> None:
        spread = tuple(replace(s, story_id=9_000_000 + 450 * n) for n, s in enumerate(make_stories(100, step_s=86_400)))
        algolia = Algolia(make_world(stories=spread), scenario=SCENARIOS["hn_crowded"])
        first = int(make_stories(100, step_s=86_400)[0].created_at.timestamp())

        def count(days: range) -> list[int]:
            windows = [(first + n * 86_400, first + (n + 1) * 86_400) for n in days]
            return [search(algolia, numericFilters=f"created_at_i>={a},created_at_i<{b}")["nbHits"] for a, b in windows]

        each = count(range(80))
        assert each == count(range(80)), "more days than are kept"
        total = search(algolia, numericFilters=f"created_at_i>={first},created_at_i<{first + 80 * 86_400}")["nbHits"]
        assert total == sum(each) == 80 + 80 * 450 // 3 - sum((9_000_000 + 450 * n) % 3 == 0 for n in range(80))

    def test_the_newer_form_only_adds_and_leaves_out_what_is_null(self) -> None:
        newer = search(Algolia(make_world(), scenario=SCENARIOS["hn_newer_form"]), hitsPerPage="1000")
        older = search(Algolia(make_world()), hitsPerPage="1000")
        assert {k: v for k, v in newer.items() if k in older and k != "hits"} == {
            k: v for k, v in older.items() if k != "hits"
        }
        assert newer["exhaustiveNbHits"] is newer["exhaustive"]["nbHits"] is True
        for new, old in zip(newer["hits"], older["hits"], strict=True):
            assert new["story_id"] == int(new["objectID"])
            added = {"story_id", "updated_at", "children"}
            assert {k: v for k, v in new.items() if k not in added} == {
                k: v for k, v in old.items() if k not in added and v is not None
            }

    @needs_samples
    def test_recorded_keys(self) -> None:
        recorded = json.loads((SAMPLES / "hn-firebase/items_and_updates.json").read_bytes())["8863"]
        assert set(recorded) - set(ask(Firebase(make_world()), "/v0/item/5001.json").json()) == {"kids"}


class TestPyPIStats:
    def overall(self, package: str, mirrors: str = "false", night: date = NIGHT) -> Any:
        params = (("mirrors", mirrors),) if mirrors else ()
        return ask(PyPIStats(make_world()), f"/api/packages/{package}/overall", params, night=night).json()

    def test_last_180_days_up_to_the_night(self) -> None:
        body = self.overall("alpha")
        days = [row["date"] for row in body["data"]]
        assert days == [(NIGHT - timedelta(days=n)).isoformat() for n in range(179, -1, -1)]
        assert body["data"][-1] == {"category": "without_mirrors", "date": NIGHT.isoformat(), "downloads": 350}
        assert {row["category"] for row in body["data"]} == {"without_mirrors"}
        assert len(self.overall("alpha", night=FIRST_DAY + timedelta(days=9))["data"]) == 10

    def test_missing_days_are_absent(self) -> None:
        days = [row["date"] for row in self.overall("beta")["data"]]
        assert days[-1] == (FIRST_DAY + timedelta(days=239)).isoformat()
        assert len(days) == 180 - 11

    def test_series_with_mirrors_counts_more(self) -> None:
        stating = PyPIStats(make_world(), scenario=SCENARIOS["pypi_mirrors"])
        rows = ask(stating, "/api/packages/alpha/overall", ()).json()["data"]
        assert [r["category"] for r in rows] == ["with_mirrors"] * 180 + ["without_mirrors"] * 180
        assert all(a["downloads"] > b["downloads"] for a, b in zip(rows[:180], rows[180:], strict=True))
        mirrored = ask(stating, "/api/packages/alpha/overall", (("mirrors", "true"),)).json()["data"]
        assert {r["category"] for r in mirrored} == {"with_mirrors"}
        assert {r["category"] for r in self.overall("alpha", "")["data"]} == {"without_mirrors"}, "no world has them"

    def test_recent(self) -> None:
        upstream = PyPIStats(make_world())
        body = ask(upstream, "/api/packages/alpha/recent").json()
        assert body == {
            "data": {"last_day": 350, "last_week": 7 * 347, "last_month": sum(range(321, 351))},
            "package": "alpha",
            "type": "recent_downloads",
        }
        assert ask(upstream, "/api/packages/alpha/recent", (("period", "week"),)).json()["data"] == {"last_week": 2429}
        assert ask(upstream, "/api/packages/alpha/recent", (("period", "year"),)).status == 404

    def test_counts_that_are_split_and_an_unknown_package_without_data(self) -> None:
        for kind in ("python_major", "python_minor", "system"):
            upstream = PyPIStats(make_world())
            body = ask(upstream, f"/api/packages/alpha/{kind}").json()
            assert body["type"] == f"{kind}_downloads"
            rows = [(row["category"], row["date"]) for row in body["data"]]
            assert rows == sorted(rows)
            of_night = [row["downloads"] for row in body["data"] if row["date"] == NIGHT.isoformat()]
            assert abs(sum(of_night) - 350) <= len(of_night)
            for package in ("unknown", "Alpha"):
                answer = ask(upstream, f"/api/packages/{package}/{kind}")
                assert (answer.status, answer.json()["data"], answer.json()["package"]) == (200, [], package)
        linux = ask(PyPIStats(make_world()), "/api/packages/alpha/system", (("os", "Linux"),)).json()["data"]
        assert {row["category"] for row in linux} == {"Linux"}

    def test_a_feed_that_stands_still_as_a_whole_and_catches_up(self) -> None:
        ends = []
        for n in range(29):
            night = FIRST_DAY + timedelta(days=200 + n)
            site = PyPIStats(make_world(), scenario=SCENARIOS["pypi_stalls"])
            last = ask(site, "/api/packages/alpha/overall", night=night).json()["data"][-1]["date"]
            assert last == site.newest_day(night).isoformat()
            assert ask(site, "/api/packages/alpha/recent", night=night).json()["data"]["last_day"] > 0
            ends.append((night - date.fromisoformat(last)).days)
        assert sorted(set(ends)) == list(range(14))
        assert all(later in (sooner + 1, 0) for sooner, later in pairwise(ends))

    @pytest.mark.parametrize("package", ["unknown", "Alpha"])
    def test_unknown_or_wrong_case_is_the_text_404(self, package: str) -> None:
        answer = ask(PyPIStats(make_world()), f"/api/packages/{package}/overall")
        assert (answer.status, answer.body) == (404, b"404")

    def test_limits_per_second_and_minute(self) -> None:
        upstream = PyPIStats(make_world())
        path = "/api/packages/alpha/recent"
        burst = [ask(upstream, path).status for _ in range(6)]
        assert burst == [200] * 5 + [429]
        steady = [ask(upstream, path, now=NOW + timedelta(seconds=s)).status for s in range(1, 27)]
        assert steady == [200] * 25 + [429]
        refused = ask(upstream, path, now=NOW + timedelta(seconds=30))
        assert refused.headers["content-type"].startswith("text/html")
        assert b"429 RATE LIMIT EXCEEDED" in refused.body
        assert "retry-after" not in refused.headers
        assert upstream.limits.convictions() == 3
        assert ask(upstream, path, now=NOW + timedelta(seconds=60)).status == 200

    @needs_samples
    def test_recorded_shape(self) -> None:
        recorded = json.loads((SAMPLES / "pypistats/overall_pip.json").read_bytes())
        ours = self.overall("alpha", "")
        assert list(ours) == list(recorded)
        assert list(ours["data"][0]) == list(recorded["data"][0])
        assert ours["type"] == recorded["type"]
        recorded = json.loads((SAMPLES / "pypistats/system_csv-diff.json").read_bytes())
        ours = ask(PyPIStats(make_world()), "/api/packages/alpha/system").json()
        assert (sorted(ours), ours["type"]) == (sorted(recorded), recorded["type"])
        assert {row["category"] for row in recorded["data"]} <= {row["category"] for row in ours["data"]}


ROWS = "SELECT project, date, sum(count) AS downloads FROM pypi.pypi_downloads_per_day"
LOGIN = (("user", "demo"), ("database", "pypi"))


def sql(text: str, *, upstream: ClickHouse | None = None, params: Params = LOGIN, night: date = NIGHT) -> Response:
    return ask(upstream or ClickHouse(make_world()), "/", params, method="POST", content=text.encode(), night=night)


def lines(answer: Response) -> list[Any]:
    assert answer.status == 200, answer.body
    return [orjson.loads(line) for line in answer.body.splitlines()]


class TestClickHouse:
    where = "WHERE project IN ('alpha', 'beta', 'none') AND date BETWEEN '2025-08-28' AND '2025-08-30'"

    def test_rows_with_quoted_counts(self) -> None:
        text = f"{ROWS} {self.where} GROUP BY project, date ORDER BY project, date LIMIT 500 FORMAT JSONEachRow"
        first = (date(2025, 8, 28) - FIRST_DAY).days
        assert lines(sql(text)) == [
            {"project": "alpha", "date": f"2025-08-{28 + n}", "downloads": str(100 + first + n)} for n in range(3)
        ] + [{"project": "beta", "date": "2025-08-28", "downloads": str(10_000 + 7 * first)}]

    def test_compact_and_order_and_limit(self) -> None:
        text = (
            f"{ROWS} {self.where} GROUP BY project, date ORDER BY date DESC, project LIMIT 2 FORMAT JSONCompactEachRow"
        )
        assert [row[:2] for row in lines(sql(text))] == [["alpha", "2025-08-30"], ["alpha", "2025-08-29"]]
        text = f"select date, sum(count) from pypi_downloads_per_day {self.where} group by date order by date"
        first = (date(2025, 8, 28) - FIRST_DAY).days
        assert sql(text).body.splitlines()[0] == f"2025-08-28\t{10_100 + 8 * first}".encode()

    def test_counting_queries_show_a_cut(self) -> None:
        where = "WHERE project IN ('alpha','beta') AND date >= toDate('2025-01-01') AND date < '2026-01-01'"
        total = 251 + 240
        for count in (
            f"SELECT uniqExact(project, date) AS n FROM pypi.pypi_downloads_per_day {where}",
            f"SELECT uniqExact((project, date)) AS n FROM pypi.pypi_downloads_per_day {where}",
            f"SELECT count() AS n FROM pypi.pypi_downloads_per_day {where}",
            f"SELECT count() AS n FROM ({ROWS} {where} GROUP BY project, date)",
        ):
            assert lines(sql(count + " FORMAT JSONEachRow")) == [{"n": str(total)}]
        table = "pypi_downloads_per_day"
        text = f"SELECT min(date) AS a, max(date) AS b FROM {table} WHERE project = 'beta' FORMAT JSONEachRow"
        assert lines(sql(text)) == [{"a": "2025-01-01", "b": "2025-08-28"}]

    def test_silent_cut_at_1000_rows(self) -> None:
        world = make_world()
        many = tuple(f"p{n:02}" for n in range(10))
        world = type(world)(**{**_fields(world), "packages": many, "downloads": np.ones((10, DAYS), dtype=np.int64)})
        text = f"{ROWS} GROUP BY project, date ORDER BY project, date LIMIT 5000 FORMAT JSONEachRow"
        assert len(lines(sql(text, upstream=ClickHouse(world)))) == 1000

    def test_silent_cut_at_the_scenarios_rows(self) -> None:
        cut = ClickHouse(make_world(), scenario=SCENARIOS["clickhouse_cut"])
        text = f"{ROWS} {self.where} GROUP BY project, date ORDER BY project, date LIMIT 500 FORMAT JSONEachRow"
        assert lines(sql(text, upstream=cut)) == lines(sql(text)), "few rows are whole"
        text = f"{ROWS} GROUP BY project, date ORDER BY project, date LIMIT 500 FORMAT JSONEachRow"
        assert lines(sql(text, upstream=cut)) == lines(sql(text))[:20]
        count = "SELECT count() AS n FROM pypi.pypi_downloads_per_day FORMAT JSONEachRow"
        assert lines(sql(count, upstream=cut)) == lines(sql(count))

    def test_nothing_after_the_night(self) -> None:
        text = f"{ROWS} WHERE project = 'alpha' GROUP BY project, date ORDER BY date FORMAT JSONEachRow"
        assert lines(sql(text, night=date(2025, 1, 3)))[-1]["date"] == "2025-01-03"
        assert lines(sql(text, night=date(2024, 12, 31))) == []

    @pytest.mark.parametrize(
        ("text", "status", "code"),
        [
            ("SELEC 1", 400, 62),
            ("SELECT project FROM pypi.nothing", 404, 60),
            ("SELECT project FROM other.pypi_downloads_per_day", 404, 81),
            ("SELECT project FROM pypi.pypi_downloads_per_day", 400, 215),
            ("SELECT version FROM pypi.pypi_downloads_per_day", 404, 47),
            ("SELECT avg(count) FROM pypi.pypi_downloads_per_day", 404, 46),
            ("SELECT count() FROM pypi.pypi_downloads_per_day WHERE version = '1'", 404, 47),
            ("SELECT count() FROM pypi.pypi_downloads_per_day WHERE date = 'x'", 500, 53),
            ("SELECT count() FROM pypi.pypi_downloads_per_day FORMAT Nothing", 400, 73),
            ("SELECT count() FROM pypi.pypi_downloads_per_day; DROP TABLE x", 400, 62),
            ("", 400, 62),
        ],
    )
    def test_errors_in_clickhouses_words(self, text: str, status: int, code: int) -> None:
        answer = sql(text)
        assert answer.status == status, answer.body
        assert answer.body.startswith(f"Code: {code}. DB::Exception: ".encode())
        assert answer.headers["x-clickhouse-exception-code"] == str(code)

    def test_only_demo_without_password(self) -> None:
        assert sql("SELECT 1", params=()).status == 403
        assert sql("SELECT 1", params=(("user", "demo"), ("password", "x"))).status == 403

    def test_at_most_four_at_once(self) -> None:
        upstream = ClickHouse(make_world())
        for _ in range(4):
            upstream.arrive(None, "127.0.0.1", NOW)
        answer = sql(f"{ROWS} GROUP BY project, date", upstream=upstream)
        assert (answer.status, answer.body[:9]) == (500, b"Code: 202")
        assert upstream.limits.report()["tokens"]["ip:127.0.0.1"]["convictions"]["reasons"] == {"concurrency": 1}

    @given(st.text("'\\abc,()=<>; \n", max_size=30), st.sampled_from(["", "SELECT ", ROWS + " WHERE ", ROWS + " "]))
    def test_any_text_is_read_or_refused(self, tail: str, start: str) -> None:
        answer = sql(start + tail)
        assert answer.status == 200 or answer.body.startswith(b"Code: ")

    @given(st.text(min_size=1, max_size=20))
    def test_quoted_names_come_back_whole(self, name: str) -> None:
        quoted = name.replace("\\", "\\\\").replace("'", "\\'")
        select = read_select(f"SELECT count() FROM pypi.pypi_downloads_per_day WHERE project IN ('{quoted}')")
        assert select.projects == {name}


def _fields(world: Any) -> dict[str, Any]:
    names = ("first_day", "repos", "stars", "forks", "origin", "stories", "packages", "downloads", "created_estimated")
    return {name: getattr(world, name) for name in names}


class TestArchive:
    def month(self, path: str, night: date = NIGHT, headers: Params = ()) -> Response:
        return ask(Archive(make_world()), path, night=night, headers=headers)

    def test_points_of_one_origin_and_month(self) -> None:
        world = make_world()
        answer = self.month("/stars_daily/2025-02.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
        assert list(rows[0]) == ["repo", "date", "stars", "forks"]
        assert len(rows) == 2 * 28
        assert {r["repo"] for r in rows} == {"owner0/Repo.0", "owner4/Repo.4"}
        for row in rows:
            n, t = world.repo_index[row["repo"].lower()], (date.fromisoformat(row["date"]) - FIRST_DAY).days
            assert (int(row["stars"]), int(row["forks"])) == (world.stars[n, t], world.forks[n, t])

    def test_both_archives_have_every_point_exactly_once(self) -> None:
        world = make_world()
        night = FIRST_DAY + timedelta(days=DAYS - 1)
        points = set()
        count = 0
        for origin in ("stars_daily", "ai_stars_daily"):
            for month in range(1, 13):
                answer = self.month(f"/{origin}/2025-{month:02}.csv", night)
                if answer.status == 200:
                    rows = [line.split(",")[:2] for line in answer.body.decode().splitlines()[1:]]
                    points |= {tuple(row) for row in rows}
                    count += len(rows)
        assert len(points) == count == int((world.stars >= 0).sum())

    def test_gap_has_no_row_and_the_night_is_the_end(self) -> None:
        body = self.month(f"/ai_stars_daily/{NIGHT:%Y-%m}.csv").body.decode()
        days = [line.split(",")[1] for line in body.splitlines() if line.startswith("owner1/")]
        assert max(days) == NIGHT.isoformat()
        assert not [
            line for line in body.splitlines() if line.startswith(f"owner{GAP}/") and line.split(",")[1] >= "2025-09-04"
        ]

    @pytest.mark.parametrize(
        "path",
        ["/stars_daily/2024-12.csv", "/stars_daily/2025-13.csv", "/other/2025-01.csv", "/", "/stars_daily/2025-12.csv"],
    )
    def test_not_found(self, path: str) -> None:
        assert self.month(path).status == 404

    def test_gzip_on_demand(self) -> None:
        packed = self.month("/stars_daily/2025-02.csv", headers=(("accept-encoding", "gzip, deflate"),))
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == self.month("/stars_daily/2025-02.csv").body
