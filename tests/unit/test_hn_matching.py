"""Which Hacker News stories belong to which project, false friends included."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astrid.models import Story
from astrid.watchlist import Project, StoryMatcher, load_watchlist
from astrid.watchlist.matching import LONGEST_URL, strip_url

BLANK = Project("x", "X", "agents", None, (), (), (), (), (), (), (), {})
MATCHER = StoryMatcher(
    [
        replace(BLANK, slug="ollama", hn_urls=("github.com/ollama/ollama", "ollama.com"), hn_names=("ollama",)),
        replace(BLANK, slug="bar", hn_urls=("github.com/foo/bar",)),
        replace(BLANK, slug="dify", hn_names=("Dify",)),
        replace(BLANK, slug="pytorch", hn_names=("pytorch",)),
        replace(BLANK, slug="lightning", hn_names=("pytorch lightning",)),
        replace(BLANK, slug="llama-cpp", hn_names=("llama.cpp",)),
        replace(BLANK, slug="llama3", hn_names=("Llama 3",)),
        replace(BLANK, slug="llama-factory", hn_names=("LLaMA-Factory",)),
        replace(BLANK, slug="vllm", hn_names=("vllm",)),
        replace(BLANK, slug="nano-vllm", hn_names=("nano-vllm",)),
        replace(BLANK, slug="n8n", hn_names=("n8n",)),
        replace(BLANK, slug="transformers-js", hn_names=("transformers.js",)),
        replace(BLANK, slug="tensorflow", hn_names=("tensorflow",)),
        replace(BLANK, slug="12-factor", hn_names=("12-factor agents",)),
        replace(BLANK, slug="openai-codex", hn_names=("OpenAI Codex",)),
        replace(BLANK, slug="codex-cli", hn_names=("Codex CLI",)),
    ]
)


@pytest.fixture(scope="module")
def matcher() -> StoryMatcher:
    return StoryMatcher(load_watchlist())


def story(title: str = "", url: str = "") -> Story:
    return Story(1, datetime(2026, 3, 1, tzinfo=UTC), title, url, 10, 2)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://github.com/foo/bar",
            "http://www.github.com/foo/bar/",
            "https://GitHub.com/Foo/Bar",
            "https://github.com/foo/bar/issues/12?a=b#c",
            "https://github.com/foo/bar#readme",
            "https://github.com/foo/bar.git",
            "https://github.com:443/foo/bar",
            "https://user@github.com/foo//bar",
            "github.com/foo/bar",
        ],
    )
    def test_the_same_page(self, url: str) -> None:
        assert MATCHER.match(story(url=url)) == ("bar",)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "https://github.com/foo/barbaz",
            "https://github.com/foo/bar-baz",
            "https://github.com/foo",
            "https://github.com/",
            "https://example.com/github.com/foo/bar",
            "https://example.com/?u=https://github.com/foo/bar",
            "https://gist.github.com/foo/bar",
            "https://ollama.community",
            "https://notollama.com",
            "https://ollama.com.example.org/",
            "https://ollama.com@example.org/",
            "https://example.org/https://ollama.com/",
            "example.org/https://ollama.com/",
        ],
    )
    def test_false_friends(self, url: str) -> None:
        assert MATCHER.match(story(url=url)) == ()

    def test_every_page_of_a_site(self) -> None:
        assert MATCHER.match(story(url="https://ollama.com/blog/new-engine?ref=hn")) == ("ollama",)

    def test_a_longer_prefix_comes_first(self) -> None:
        projects = [
            replace(BLANK, slug="outer", hn_urls=("example.com",)),
            replace(BLANK, slug="inner", hn_urls=("example.com/inner",)),
        ]
        assert StoryMatcher(projects).match(story(url="https://example.com/inner/x")) == ("inner", "outer")

    @pytest.mark.parametrize("depth", [1, 2, 3, 10, 990, 5_000, 300_000])
    def test_the_work_for_a_url_does_not_grow_with_its_depth(self, depth: int) -> None:
        """Counted, not timed: how often a prefix is looked up, and of how many characters in all."""

        class Counting(dict[str, list[str]]):
            def __init__(self, rules: dict[str, list[str]]) -> None:
                super().__init__(rules)
                self.looked_up: list[str] = []

            def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
                self.looked_up.append(key)
                return super().get(key, default)

        matcher = StoryMatcher(
            [
                replace(BLANK, slug="site", hn_urls=("h.example",)),
                replace(BLANK, slug="deepest", hn_urls=("h.example/a/a/b",)),
            ]
        )
        rules = Counting(matcher._by_url)
        matcher._by_url = rules  # type: ignore[assignment]
        url = "https://h.example/" + "a/" * depth
        assert matcher.match(story(url=url)) == (("site",) if len(url) <= LONGEST_URL else ())
        deepest = "h.example/a/a/b"
        assert len(rules.looked_up) <= deepest.count("/") + 1
        assert sum(map(len, rules.looked_up)) <= 4 * len(deepest)

    def test_a_url_that_is_too_long_is_nobodys_and_the_title_still_counts(self) -> None:
        base = "https://ollama.com/"
        longest = base + "x" * (LONGEST_URL - len(base))
        assert MATCHER.match(story("Dify", longest)) == ("ollama", "dify")
        assert MATCHER.match(story("Dify", longest + "x")) == ("dify",)

    @given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.lists(st.sampled_from("abc"), max_size=4)))
    def test_it_finds_every_rule_that_is_a_prefix_the_longest_first(
        self, path: list[str], rules: list[list[str]]
    ) -> None:
        urls = ["/".join(["h.example", *rule]) for rule in rules]
        matcher = StoryMatcher([replace(BLANK, slug=f"{n}", hn_urls=(u,)) for n, u in enumerate(urls)])
        page = "/".join(["h.example", *path])
        wanted = [n for n, u in enumerate(urls) if f"{page}/".startswith(f"{u}/")]
        wanted.sort(key=lambda n: (-len(urls[n]), n))
        assert matcher.match(story(url=f"https://{page}")) == tuple(str(n) for n in wanted)

    @given(st.text(max_size=80))
    @example("https://a@b:80//c//?d")
    @example("https://[::1]/x")
    def test_stripping_is_idempotent_on_what_it_keeps(self, url: str) -> None:
        once = strip_url(url)
        assert once == once.lower()
        assert not once.endswith("/")
        assert "?" not in once
        assert "#" not in once
        MATCHER.match(story(url=url))


class TestTitles:
    @pytest.mark.parametrize(
        ("title", "slugs"),
        [
            ("Ollama is now available on Windows", ("ollama",)),
            ("Running LLMs with ollama", ("ollama",)),
            ("Why I left OLLAMA", ("ollama",)),
            ("Ollama's new app", ("ollama",)),
            ("Ollama&#x27;s new app", ("ollama",)),
            ("An Ollama-compatible server", ("ollama",)),
            ("(Ollama)", ("ollama",)),
            ("I replaced it with Ollama.", ("ollama",)),
            ("Ollama, vLLM &amp; n8n compared", ("ollama", "vllm", "n8n")),
            ("n8n/Ollama starter kit", ("n8n", "ollama")),
            ("Ollama and Ollama again", ("ollama",)),
            ("Dify raises money", ("dify",)),
            ("Llama.cpp guide", ("llama-cpp",)),
            ("Meta Llama 3", ("llama3",)),
            ("PyTorch Lightning for Dummies", ("lightning",)),
            ("PyTorch  Lightning and PyTorch", ("lightning", "pytorch")),
            ("PyTorch&nbsp;Lightning", ("lightning",)),
            ("OpenAI Codex CLI", ("openai-codex",)),
            ("Codex CLI", ("codex-cli",)),
            ("Nano-vLLM: How a vLLM-style engine works", ("nano-vllm", "vllm")),
            ("12-factor Agents: reliable LLM applications", ("12-factor",)),
            ("Transformers.js", ("transformers-js",)),
            ("“Ollama” explained", ("ollama",)),
        ],
    )
    def test_mentions(self, title: str, slugs: tuple[str, ...]) -> None:
        assert MATCHER.match(story(title)) == slugs

    @pytest.mark.parametrize(
        "title",
        [
            "",
            "Collamas and llamas",
            "Ollamazing",
            "my.ollama.thing",
            "@ollama said",
            "ollama_client released",
            "DIFY yourself",
            "dify",
            "Llama 3.2 is out",
            "Llama 31",
            "TensorFlow.js in the browser",
            "tiny-vllm",
            "The llama family",
            "LLaMA-FACTORY",
            "Transformers are great",
            "Pytorch2",
        ],
    )
    def test_false_friends(self, title: str) -> None:
        assert MATCHER.match(story(title)) == ()

    def test_a_letter_that_grows_in_lower_case_moves_nothing(self) -> None:
        assert MATCHER.match(story("İİİ Dify and İ Ollama")) == ("dify", "ollama")

    def test_the_url_comes_first_and_a_slug_only_once(self) -> None:
        both = story("Show HN: vLLM beside Ollama", "https://github.com/ollama/ollama")
        assert MATCHER.match(both) == ("ollama", "vllm")

    @given(
        name=st.sampled_from(["ollama", "Dify", "llama.cpp", "gpt-oss", "Claude Code", "n8n"]),
        before=st.text("aZ9 .-@_/(&é", max_size=4),
        after=st.text("aZ9 .-@_/)&é", max_size=4),
        change=st.sampled_from([str, str.upper, str.lower, str.title]),
    )
    def test_it_finds_what_a_regular_expression_finds(
        self, name: str, before: str, after: str, change: type[str]
    ) -> None:
        title = f"{before}{change(name)}{after}"
        flags = re.IGNORECASE if name == name.lower() else re.NOFLAG
        wanted = re.search(rf"(?<![\w.\-@]){re.escape(name)}(?!\w|\.[^\W_])", " ".join(title.split()), flags)
        found = StoryMatcher([replace(BLANK, hn_names=(name,))]).match(story(title))
        assert bool(found) == bool(wanted)


class TestShippedRules:
    @pytest.mark.parametrize(
        ("title", "url", "slugs"),
        [
            ("Ollama's new app", "https://ollama.com/blog/new-app", ("ollama",)),
            ("Old news", "https://github.com/jmorganca/ollama", ("ollama",)),
            ("OpenClaw – Moltbot Renamed Again", "https://openclaw.ai/blog", ("openclaw",)),
            ("Langchain Is Pointless", "https://example.com/", ("langchain",)),
            ("The Illustrated DeepSeek-R1", "https://example.com/", ("deepseek-r1",)),
            ("Nano-vLLM: How a vLLM-style inference engine works", "", ("nano-vllm", "vllm")),
            ("FastGPT", "https://kagi.com/fastgpt", ()),
            ("Continue reading", "https://example.com", ()),
            ("The open source agent that whispers", "https://example.com", ()),
            ("Jan is a month name", "https://example.com", ()),
            ("How to boil a goose", "https://github.com/cooking/goose", ()),
            ("OpenAI's Whisper campaign", "https://openai.com/index/whisper", ()),
        ],
    )
    def test_examples(self, matcher: StoryMatcher, title: str, url: str, slugs: tuple[str, ...]) -> None:
        assert matcher.match(story(title, url)) == slugs

    def test_every_rule_of_the_file_finds_its_project(self, matcher: StoryMatcher) -> None:
        for project in load_watchlist():
            for url in project.hn_urls:
                assert project.slug in matcher.match(story(url=f"https://www.{url}/?x=1"))
            for name in project.hn_names:
                assert project.slug in matcher.match(story(f"Show HN: {name} - a thing")), name

    def test_a_night_of_stories_takes_less_than_a_second(self, matcher: StoryMatcher) -> None:
        titles = ["Show HN: I built a thing with Ollama &amp; LangChain in a week", "Ask HN: What are you reading?"]
        stories = [story(titles[i % 2] + str(i), f"https://github.com/someone/repo{i}") for i in range(20_000)]
        start = time.perf_counter()
        first = [matcher.match(one) for one in stories]
        assert time.perf_counter() - start < 1.0
        assert first == [matcher.match(one) for one in stories]
