"""The watchlist: its file, its loader, and each check that it must pass."""

from __future__ import annotations

import csv
import gzip
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import astrid.watchlist as watchlist_package
from astrid.errors import ConfigError
from astrid.models import Story
from astrid.watchlist import (
    CATEGORIES,
    COMMON_WORDS,
    PLATFORMS,
    Problem,
    Project,
    StoryMatcher,
    check_watchlist,
    counts,
    load_watchlist,
)
from astrid.watchlist.loading import COLUMNS
from astrid.watchlist.projects import PROVEN_FIELDS

SHIPPED = Path(watchlist_package.__file__).with_name("projects.csv")
SHARED = Path(__file__).parents[3] / "shared" / "data"
HEADER = ",".join(COLUMNS)
GOOD_ROW = "ollama,Ollama,inference,ollama/ollama,jmorganca/ollama,ollama,,,,ollama.com,ollama,"
GOOD_EVIDENCE = "github = a | former_github = b | pypi = c | hn_urls = d | hn_names = e"

GOOD = Project(
    slug="ollama",
    name="Ollama",
    category="inference",
    github="ollama/ollama",
    former_github=("jmorganca/ollama",),
    pypi=("ollama",),
    npm=(),
    huggingface=(),
    dockerhub=(),
    hn_urls=("github.com/ollama/ollama", "github.com/jmorganca/ollama", "ollama.com"),
    hn_names=("ollama",),
    evidence={"github": "a", "former_github": "b", "pypi": "c", "hn_urls": "d", "hn_names": "e"},
)
OTHER = Project("vllm", "vLLM", "inference", None, (), ("vllm",), (), (), (), (), (), {"pypi": "c"})


@pytest.fixture(scope="module")
def shipped() -> tuple[Project, ...]:
    return load_watchlist()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: str, header: str = HEADER) -> Path:
        path = tmp_path / "projects.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return path

    return write


class TestShippedFile:
    def test_it_has_no_problem(self, shipped: tuple[Project, ...]) -> None:
        assert check_watchlist(shipped) == []

    def test_it_is_as_large_as_promised(self, shipped: tuple[Project, ...]) -> None:
        found = counts(shipped)
        assert found.projects == len(shipped) >= 1000
        assert found.platforms["github"] >= 1000
        assert found.platforms["pypi"] >= 350
        assert found.platforms["npm"] >= 60
        assert found.platforms["dockerhub"] >= 25
        assert found.platforms["huggingface"] >= 10
        assert min(found.categories.values()) >= 5
        assert found.categories["learning"] <= found.projects / 10

    def test_every_identifier_says_where_it_is_proven(self, shipped: tuple[Project, ...]) -> None:
        unproven = [
            (project.slug, field, item)
            for project in shipped
            for field in PROVEN_FIELDS
            for item in project.identifiers(field)
            if not project.proof(field, item)
        ]
        assert unproven == []

    def test_every_evidence_is_of_a_documented_kind(self, shipped: tuple[Project, ...]) -> None:
        readme = SHIPPED.with_name("README.md").read_text(encoding="utf-8")
        codes = {
            code for row in re.findall(r"^\| (`.*?) \|", readme, re.MULTILINE) for code in re.findall("`(.*?)`", row)
        }
        file_of_repo = re.compile(r"\S+\.(toml|py|cfg|json|md|ya?ml) of [\w.-]+/[\w.-]+")
        for project in shipped:
            for key, text in project.evidence.items():
                for source in text.split(" + "):
                    assert source in codes or file_of_repo.fullmatch(source), (project.slug, key, source)

    def test_it_is_sorted_for_readable_differences(self, shipped: tuple[Project, ...]) -> None:
        slugs = [project.slug for project in shipped]
        assert slugs == sorted(slugs)

    def test_known_projects(self, shipped: tuple[Project, ...]) -> None:
        projects = {project.slug: project for project in shipped}
        ollama = projects["ollama"]
        assert (ollama.github, ollama.former_github, ollama.pypi) == (
            "ollama/ollama",
            ("jmorganca/ollama",),
            ("ollama",),
        )
        assert "ollama.com" in ollama.hn_urls
        assert projects["langchain"].former_github == ("hwchase17/langchain",)
        assert set(projects["openclaw"].former_github) >= {"clawdbot/clawdbot", "moltbot/moltbot"}
        assert projects["comfyui"].former_github == ("comfyanonymous/ComfyUI",)
        assert projects["llama-cpp"].former_github == ("ggerganov/llama.cpp",)
        assert set(projects["autogpt"].former_github) == {
            "Torantulino/Auto-GPT",
            "Significant-Gravitas/Auto-GPT",
        }
        assert projects["pytorch"].pypi == ("torch",)
        # Packages of these names belong to others.
        assert projects["aider"].pypi == ("aider-chat",)
        assert "autogen" not in projects["autogen"].pypi
        assert projects["yolov5"].pypi == projects["repomix"].pypi == ()

    def test_it_loads_quickly(self) -> None:
        spent = []
        for _ in range(5):
            start = time.perf_counter()
            load_watchlist()
            spent.append(time.perf_counter() - start)
        assert min(spent) < 0.1


class TestLoader:
    def test_a_good_row(self, write: Callable[..., Path]) -> None:
        assert load_watchlist(write(GOOD_ROW + GOOD_EVIDENCE)) == (GOOD,)

    def test_blank_lines_count_as_rows_but_not_as_projects(self, write: Callable[..., Path]) -> None:
        path = write("", GOOD_ROW + GOOD_EVIDENCE, "", "Bad Slug,B,inference,b/b,,,,,,,,github = a")
        with pytest.raises(ConfigError, match=r"row 5: Bad Slug: slug: "):
            load_watchlist(path)

    def test_a_project_without_github(self, write: Callable[..., Path]) -> None:
        (project,) = load_watchlist(write("vllm,vLLM,inference,,,vllm,,,,,,pypi = c"))
        assert project == OTHER

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nowhere\.csv: the watchlist cannot be read"):
            load_watchlist(tmp_path / "nowhere.csv")

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "projects.csv"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="UTF-8"):
            load_watchlist(path)

    def test_an_open_quote(self, write: Callable[..., Path]) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            load_watchlist(write('"ollama,Ollama'))

    @pytest.mark.parametrize("header", ["slug,name", HEADER.replace("pypi", "pip"), ""])
    def test_a_wrong_header(self, write: Callable[..., Path], header: str) -> None:
        with pytest.raises(ConfigError, match="the header must be slug,name,category"):
            load_watchlist(write(GOOD_ROW + GOOD_EVIDENCE, header=header))

    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "projects.csv"
        path.write_text("")
        with pytest.raises(ConfigError, match="row 1: the header must be"):
            load_watchlist(path)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("ollama,Ollama,inference", "row 2: ollama: row: has 3 cells instead of 12: "),
            (GOOD_ROW + GOOD_EVIDENCE + ",more", "row 2: ollama: row: has 13 cells instead of 12: "),
            (GOOD_ROW + "github", "row 2: ollama: evidence: 'github' has no ' = ': write 'field = where"),
            (GOOD_ROW + "github = a | github = b", "row 2: ollama: evidence: states 'github' twice: keep one"),
            (GOOD_ROW.replace("Ollama", " Ollama") + GOOD_EVIDENCE, "row 2: ollama: name: ' Ollama' has stray blanks"),
            (GOOD_ROW + GOOD_EVIDENCE.replace(" | ", "  | "), "row 2: ollama: evidence: "),
            (
                GOOD_ROW + GOOD_EVIDENCE.replace("pypi = c", "npm = c"),
                "pypi: 'ollama' has no evidence: say in `evidence`",
            ),
        ],
    )
    def test_a_broken_row(self, write: Callable[..., Path], row: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_watchlist(write(row))
        assert message in str(caught.value)
        assert "projects.csv: row 2" in str(caught.value)

    def test_all_problems_at_once_in_the_order_of_the_file(self, write: Callable[..., Path]) -> None:
        rows = [f"p{i},P,nonsense,o/p{i},,,,,,,github = a" for i in range(30)]
        rows[3] = "p3,P"
        with pytest.raises(ConfigError) as caught:
            load_watchlist(write(*rows))
        lines = str(caught.value).splitlines()
        assert len(lines) == 21
        assert [int(re.findall(r"row (\d+)", line)[0]) for line in lines[:20]] == list(range(2, 22))
        assert "p3: row: has 2 cells" in lines[3]
        assert lines[-1] == "… and 10 more"


class TestChecks:
    @pytest.mark.parametrize(
        ("change", "field", "what"),
        [
            ({"slug": "Ollama"}, "slug", "is no slug"),
            ({"slug": "a--b"}, "slug", "is no slug"),
            ({"slug": ""}, "slug", "is no slug"),
            ({"name": ""}, "name", "is empty"),
            ({"category": "tools"}, "category", "is unknown"),
            ({"github": "https://github.com/ollama/ollama"}, "github", "is not owner/repo"),
            ({"github": "ollama"}, "github", "is not owner/repo"),
            ({"github": "ollama/ollama.git"}, "github", "is not owner/repo"),
            ({"former_github": ("jmorganca",)}, "former_github", "is not owner/repo"),
            ({"former_github": ("ollama/ollama",)}, "former_github", "is also the current name"),
            ({"pypi": ("Ollama",)}, "pypi", "is not normalised"),
            ({"pypi": ("o_llama",)}, "pypi", "is not normalised"),
            ({"pypi": ("ollama", "ollama")}, "pypi", "is listed twice"),
            ({"npm": ("Ollama",)}, "npm", "is no package name"),
            ({"npm": ("ollama",)}, "npm", "has no evidence"),
            ({"dockerhub": ("Ollama/ollama",)}, "dockerhub", "is no repository"),
            ({"dockerhub": ("ollama",)}, "dockerhub", "is no repository"),
            ({"dockerhub": ("ollama/ollama:latest",)}, "dockerhub", "is no repository"),
            ({"dockerhub": ("ollama/ollama",)}, "dockerhub", "has no evidence"),
            ({"huggingface": ("a/b/c",)}, "huggingface", "is no organisation or repository"),
            ({"hn_urls": ("https://ollama.com",)}, "hn_urls", "is no URL prefix"),
            ({"hn_urls": ("www.ollama.com",)}, "hn_urls", "is no URL prefix"),
            ({"hn_urls": ("ollama.com/",)}, "hn_urls", "is no URL prefix"),
            ({"hn_urls": ("Ollama.com",)}, "hn_urls", "is no URL prefix"),
            ({"hn_urls": ("ollama.com/a?b",)}, "hn_urls", "is no URL prefix"),
            ({"hn_urls": ("github.com",)}, "hn_urls", "covers many projects"),
            ({"hn_urls": ("github.com/ollama",)}, "hn_urls", "covers many projects"),
            ({"hn_urls": ("medium.com",)}, "hn_urls", "covers many projects"),
            ({"hn_names": ("Continue",)}, "hn_names", "is a common word"),
            ({"hn_names": ("open",)}, "hn_names", "is a common word"),
            ({"hn_names": ("ml",)}, "hn_names", "cannot be found as a word"),
            ({"hn_names": ("(ollama)",)}, "hn_names", "cannot be found as a word"),
            ({"evidence": {**GOOD.evidence, "stars": "a"}}, "evidence", "names no field"),
            ({"evidence": {**GOOD.evidence, "npm": "a"}}, "evidence", "is not listed"),
            ({"evidence": {**GOOD.evidence, "pypi:olama": "a"}}, "evidence", "is not listed"),
            ({"evidence": {}}, "github", "has no evidence"),
        ],
    )
    def test_a_fault_of_one_project(self, change: dict[str, object], field: str, what: str) -> None:
        problems = check_watchlist([OTHER, replace(GOOD, **change)])
        assert [p for p in problems if p.field == field and what in p.what and p.position == 1 and p.remedy], problems

    def test_a_project_that_no_platform_knows(self) -> None:
        nothing = Project("x", "X", "agents", None, (), (), (), (), (), (), (), {})
        assert [problem.what for problem in check_watchlist([nothing])] == ["no platform knows this project"]

    def test_evidence_of_one_identifier_stands_before_that_of_its_field(self) -> None:
        project = replace(GOOD, pypi=("ollama", "ollama-x"), evidence={**GOOD.evidence, "pypi:ollama-x": "z"})
        assert check_watchlist([project]) == []
        assert (project.proof("pypi", "ollama"), project.proof("pypi", "ollama-x")) == ("c", "z")

    def test_a_github_address_is_proven_by_the_repository(self) -> None:
        evidence = {"github": "a", "former_github": "b", "pypi": "c", "hn_urls:ollama.com": "d", "hn_names": "e"}
        project = replace(GOOD, evidence=evidence)
        assert check_watchlist([project]) == []
        assert [project.proof("hn_urls", url) for url in project.hn_urls] == ["a", "b", "d"]

    @pytest.mark.parametrize(
        ("change", "field", "what"),
        [
            ({"slug": "ollama"}, "slug", "is used twice"),
            ({"github": "Ollama/Ollama", "evidence": {"pypi": "c", "github": "a"}}, "github", "belongs to ollama too"),
            (
                {"github": "jmorganca/ollama", "evidence": {"pypi": "c", "github": "a"}},
                "github",
                "belongs to ollama too",
            ),
            (
                {"former_github": ("ollama/ollama",), "evidence": {"pypi": "c", "former_github": "a"}},
                "former_github",
                "belongs to ollama too",
            ),
            ({"pypi": ("ollama",)}, "pypi", "belongs to ollama too"),
            (
                {"hn_names": ("Ollama",), "evidence": {"pypi": "c", "hn_names": "a"}},
                "hn_names",
                "belongs to ollama too",
            ),
            (
                {"hn_urls": ("ollama.com",), "evidence": {"pypi": "c", "hn_urls": "a"}},
                "hn_urls",
                "belongs to ollama too",
            ),
            (
                {"hn_urls": ("ollama.com/blog/x",), "evidence": {"pypi": "c", "hn_urls": "a"}},
                "hn_urls",
                "lies within a URL of ollama",
            ),
        ],
    )
    def test_two_projects_that_claim_the_same(self, change: dict[str, object], field: str, what: str) -> None:
        problems = check_watchlist([GOOD, replace(OTHER, **change)])
        assert [p for p in problems if p.field == field and what in p.what and p.position == 1], problems

    def test_neighbours_do_not_collide(self) -> None:
        neighbour = replace(
            OTHER,
            github="ollama/ollama-python",
            hn_urls=("github.com/ollama/ollama-python", "ollama.community"),
            evidence={"pypi": "c", "github": "a", "hn_urls": "d"},
        )
        assert check_watchlist([GOOD, neighbour]) == []

    def test_a_problem_reads_as_one_line(self) -> None:
        assert str(Problem(0, "a", "pypi", "'A' is not normalised", "lower case")) == (
            "a: pypi: 'A' is not normalised: lower case"
        )
        assert str(Problem(0, "", "slug", "x", "y")).startswith("(no slug): ")

    def test_the_common_words_are_words_in_lower_case(self) -> None:
        assert {"continue", "open", "agent", "whisper"} <= COMMON_WORDS
        assert all(word == word.lower() for word in COMMON_WORDS)


class TestProject:
    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(FrozenInstanceError):
            GOOD.slug = "x"  # type: ignore[misc]

    def test_counts_name_every_platform_and_category(self) -> None:
        found = counts([GOOD, OTHER])
        assert found.projects == 2
        assert found.platforms == {"github": 1, "pypi": 2, "npm": 0, "huggingface": 0, "dockerhub": 0, "hackernews": 1}
        assert tuple(found.platforms) == PLATFORMS
        assert tuple(found.categories) == CATEGORIES
        assert {name: n for name, n in found.categories.items() if n} == {"inference": 2}


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here: the evidence cannot be looked up")
class TestEvidence:
    """Whether the archives really say what the evidence claims."""

    def proven_by(self, shipped: tuple[Project, ...], field: str, code: str) -> Iterator[tuple[Project, str]]:
        for project in shipped:
            for item in project.identifiers(field):
                if code in project.proof(field, item).split(" + "):
                    yield project, item

    @pytest.mark.parametrize(
        ("code", "file"), [("stars_daily", "stars_repo_meta"), ("ai_stars_daily", "ai_stars_repo_meta")]
    )
    def test_star_archives(self, shipped: tuple[Project, ...], code: str, file: str) -> None:
        listed = {row["repo"] for row in read_rows(file)}
        claimed = [repo for _, repo in self.proven_by(shipped, "github", code)]
        assert len(claimed) > 200
        assert [repo for repo in claimed if repo not in listed] == []

    def test_renames(self, shipped: tuple[Project, ...]) -> None:
        with (SHARED / "stars_repo_renames.csv").open(encoding="utf-8", newline="") as handle:
            old_names = {row["old_repo"] for row in csv.DictReader(handle)}
        claimed = [repo for _, repo in self.proven_by(shipped, "former_github", "stars_repo_renames")]
        assert claimed
        assert [repo for repo in claimed if repo not in old_names] == []

    def test_renames_that_the_series_show(self, shipped: tuple[Project, ...]) -> None:
        listed = {row["repo"] for file in ("stars_repo_meta", "ai_stars_repo_meta") for row in read_rows(file)}
        claimed = [repo for _, repo in self.proven_by(shipped, "former_github", "series continues")]
        assert claimed
        assert [repo for repo in claimed if repo not in listed] == []

    def test_curated_pairs(self, shipped: tuple[Project, ...]) -> None:
        pairs: set[tuple[str, str]] = set()
        repos: set[str] = set()
        for row in read_rows("bestof_projects_weekly"):
            repo = row["github_id"].lower()
            repos.add(repo)
            if row["pypi_id"]:
                pairs.add((repo, normalise(row["pypi_id"])))
        claimed = list(self.proven_by(shipped, "pypi", "bestof_projects_weekly"))
        assert len(claimed) > 100
        for project, package in claimed:
            names = project.identifiers("github") + project.former_github
            assert any((name.lower(), package) in pairs for name in names), (project.slug, package)
        for field in ("github", "former_github"):
            for project, repo in self.proven_by(shipped, field, "bestof_projects_weekly"):
                assert repo.lower() in repos, project.slug

    def test_package_downloads(self, shipped: tuple[Project, ...]) -> None:
        claimed = {package: project for project, package in self.proven_by(shipped, "pypi", "pypi_monthly_top")}
        assert len(claimed) > 50
        missing = set(claimed)
        with gzip.open(SHARED / "pypi_monthly_top.csv.gz", "rt", encoding="utf-8") as handle:
            for line in handle:
                package, day, _ = line.split(",", 2)
                if day >= "2025-01-01":
                    missing.discard(normalise(package))
        assert missing == set()
        for package, project in claimed.items():
            repo = (project.github or "").split("/")[-1]
            assert normalise(package).replace("-", "") in {
                squash(text) for text in (repo, project.name, project.name.split(" (")[0], project.slug)
            }, project.slug

    def test_stories(self, shipped: tuple[Project, ...]) -> None:
        only_stories = [
            replace(
                project,
                hn_urls=tuple(url for url in project.hn_urls if project.proof("hn_urls", url) == "hn_daily"),
                hn_names=tuple(name for name in project.hn_names if project.proof("hn_names", name) == "hn_daily"),
            )
            for project in shipped
        ]
        rules = {(project.slug, rule) for project in only_stories for rule in project.hn_urls + project.hn_names}
        matchers = [
            (rule, StoryMatcher([replace(project, hn_urls=urls, hn_names=names)]))
            for project in only_stories
            for rule, urls, names in [
                *((url, (url,), ()) for url in project.hn_urls),
                *((name, (), (name,)) for name in project.hn_names),
            ]
        ]
        everything = StoryMatcher(only_stories)
        assert len(rules) == len(matchers) > 30
        found: set[tuple[str, str]] = set()
        for story in read_stories():
            if everything.match(story):
                found |= {(slug, rule) for rule, matcher in matchers for slug in matcher.match(story)}
        assert rules - found == set()


def read_rows(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(SHARED / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as handle:
        yield from csv.DictReader(handle)


def read_stories() -> Iterator[Story]:
    for row in read_rows("hn_daily"):
        yield Story(int(row["id"] or 0), datetime(2026, 1, 1, tzinfo=UTC), row["title"], row["url"], 0, 0)


def normalise(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def squash(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
