"""The tracked universe: what each source calls a project, and the weights of what it has."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from astrid.catalog import METRICS
from astrid.models import Batch, Entity, Identity
from astrid.pipeline.universe import Universe
from astrid.watchlist import Project, load_watchlist


def project(slug: str, **fields: Any) -> Project:
    empty: dict[str, Any] = {
        "name": slug.title(),
        "category": "agents",
        "github": None,
        "former_github": (),
        "pypi": (),
        "npm": (),
        "huggingface": (),
        "dockerhub": (),
        "hn_urls": (),
        "hn_names": (),
        "evidence": {},
    }
    return Project(slug, **(empty | fields))


DAY = date(2026, 3, 31)
ALPHA = project("alpha", github="Own/Alpha", former_github=("own/alpha", "old/alpha"), pypi=("alpha", "alpha-core"))
BETA = project("beta", hn_urls=("beta.dev",), hn_names=("Beta One",))
IDS = {"alpha": 7, "beta": 3}


def repository(identity: Identity | None) -> Entity:
    (entity,) = Universe.build([BETA, ALPHA], IDS, {7: identity} if identity else {}).entities("repository")
    return entity


def test_slug_order_and_keys() -> None:
    universe = Universe.build([BETA, ALPHA], IDS, {})
    assert [p.slug for p in universe.projects] == ["alpha", "beta"]
    assert universe.entity_ids.tolist() == [7, 3]
    assert universe.entity_ids.dtype == np.int32
    assert universe.entities("repository") == (Entity(7, "alpha", "", ("Own/Alpha", "old/alpha")),)
    assert universe.entities("package") == (Entity(7, "alpha", "alpha", ("alpha",)),)
    assert universe.entities("rules") == (Entity(3, "beta", "beta", ("url:beta.dev", "name:Beta One")),)


def test_deps_dev_is_asked_by_the_name_of_today_and_the_first_packages() -> None:
    packaged = project("gamma", pypi=("gamma", "gamma-core"), npm=("@g/gamma",))
    ids = {**IDS, "gamma": 9}
    before = Universe.build([ALPHA, BETA, packaged], ids, {}).entities("depsdev")
    assert before == (
        Entity(7, "alpha", "alpha", ("github.com/Own/Alpha", "pypi/alpha")),
        Entity(9, "gamma", "gamma", ("pypi/gamma", "npm/@g/gamma")),
    )
    moved = Identity(7, "github", "R_1", "new/alpha")
    after = Universe.build([ALPHA], IDS, {7: moved}).entities("depsdev")
    assert after[0].names == ("github.com/new/alpha", "pypi/alpha")


def test_the_first_observed_day_goes_with_the_repository_alone() -> None:
    universe = Universe.build([BETA, ALPHA], IDS, {}, {7: DAY, 3: DAY})
    assert [e.since for e in universe.entities("repository")] == [DAY]
    assert {e.since for key in ("package", "rules") for e in universe.entities(key)} == {None}  # type: ignore[arg-type]


def test_an_identity_gives_the_key_and_todays_name_first() -> None:
    assert repository(Identity(7, "github", "R_1", "New/Alpha")) == Entity(
        7, "alpha", "R_1", ("New/Alpha", "Own/Alpha", "old/alpha")
    )


@pytest.mark.parametrize("name", ["Own/Alpha", "own/alpha", "OWN/ALPHA"])
def test_batch_ids_stay_when_a_node_id_becomes_known(name: str) -> None:
    before, after = repository(None), repository(Identity(7, "github", "R_1", name))
    assert after == Entity(7, "alpha", "R_1", before.names)
    ids = {Batch("github", "history", DAY, DAY, DAY, (e,)).batch_id for e in (before, after)}
    assert len(ids) == 1


def test_another_package_is_other_work() -> None:
    ids = set()
    for package in ("alpha", "alpha-core"):
        entities = Universe.build([project("alpha", pypi=(package,))], IDS, {}).entities("package")
        ids.add(Batch("pypistats", "overall", DAY, DAY, DAY, entities).batch_id)
    assert len(ids) == 2


def test_weights_are_zero_where_a_project_has_no_such_id() -> None:
    weights = Universe.build([BETA, ALPHA, project("bare")], IDS | {"bare": 1}, {}).weights()
    assert set(weights) == {m.name for m in METRICS if m.weight > 0}
    present = {name: (w > 0).tolist() for name, w in weights.items()}
    assert present == {
        "github_stars": [True, False, False],
        "github_forks": [True, False, False],
        "hn_points": [False, False, True],
        "pypi_downloads": [True, False, False],
    }


def test_nobody() -> None:
    universe = Universe.build([], {}, {})
    assert universe.entities("repository") == ()
    assert {w.shape for w in universe.weights().values()} == {(0,)}


def test_the_watchlist_that_ships() -> None:
    projects = load_watchlist(None)
    universe = Universe.build(projects, {p.slug: n for n, p in enumerate(projects)}, {})
    for key in ("repository", "package", "rules"):
        entities = universe.entities(key)
        assert len(entities) > 10
        assert len({e.entity_id for e in entities}) == len(entities)
        assert all(e.names and len(set(e.names)) == len(e.names) for e in entities)
    assert all(e.names[0].count("/") == 1 for e in universe.entities("repository"))
