"""``astrid backfill`` on Ray against simulated upstreams: reads the past once, and says what cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astrid.errors import ConfigError
from astrid.history import choose_sources
from tests.e2e.test_cli import environ, pointed_at, run, simulators

__all__ = ["environ"]


@pytest.mark.timeout(400)
def test_the_past_is_read_once(environ: dict[str, str], tmp_path: Path) -> None:
    with simulators("--speed", "300") as url:
        live = environ | pointed_at(url, tmp_path)
        asked = (
            "backfill",
            "--from",
            "2026-01-20",
            "--to",
            "2026-03-10",
            "--source",
            "hackernews",
            "--source",
            "pypistats",
        )
        code, out, said = run(live, *asked, "--json")
        assert code in (0, 3), said
        result = json.loads(out)
        assert result["day"] == "2026-03-10"
        assert result["batches"]["done"] >= 4, "three months of stories, and packages"
        assert set(result["requests"]) == {"hackernews", "pypistats"}
        before = json.loads(run(live, "digest", "--json")[1])
        assert before["observation"]["rows"] > 1000
        code, out, said = run(live, *asked)
        assert code in (0, 3), said
        assert "0 batches" in out, "nothing was left to ask for"
        assert json.loads(run(live, "digest", "--json")[1]) == before
        slug = (tmp_path / "w.csv").read_text(encoding="utf-8").splitlines()[1].partition(",")[0]
        code, out, said = run(live, "trace", slug, "hn_points", "2026-02-01", "--json")
        assert code == 0, said
        (version,) = json.loads(out)["versions"]
        assert (version["run"]["kind"], version["batches"][0]["task"]) == ("backfill", "window")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "2026-03-10", "--to", "2026-03-01"), "there is nothing to read"),
        (("--from", "2030-01-01"), "the last day that is over is"),
        (("--from", "2026-01-01", "--source", "dockerhub"), "no backfill reads 'dockerhub'"),
        (("--from", "2026-01-01", "--source", "github.commits"), "github.commits cannot be asked"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    environ: dict[str, str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    code, _, error = run(environ | {"ASTRID_NOW": "2026-04-01T05:00Z"}, "backfill", *arguments)
    assert code == 2
    assert said in error


def test_without_a_wish_all_that_can_be_asked_are() -> None:
    assert choose_sources(["npm", "dockerhub", "pypistats"], []) == ["npm", "pypistats"]
    assert choose_sources(["github", "npm"], ["github.commits", "npm", "npm"]) == ["github.commits", "npm"]
    with pytest.raises(ConfigError, match=r"hackernews cannot be asked"):
        choose_sources(["npm"], ["hackernews"])
