"""The tracked universe: every project with its database id, and what each source calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt

from astrid.catalog import METRICS
from astrid.models import Entity, Identity
from astrid.scoring.score import nominal_weights
from astrid.sources import SOURCES
from astrid.sources.source import Key
from astrid.watchlist import Project


@dataclass(frozen=True, slots=True)
class Universe:
    """Projects in slug order, ``entity_ids`` int32 (N,) beside them, the identities read so far, and the first day
    on which the repository of a project without an identity was observed, where there is one."""

    projects: tuple[Project, ...]
    entity_ids: npt.NDArray[np.int32]
    github: Mapping[int, Identity]
    since: Mapping[int, date] = field(default_factory=dict)

    @staticmethod
    def build(
        projects: Sequence[Project],
        entity_ids: Mapping[str, int],
        github: Mapping[int, Identity],
        since: Mapping[int, date] | None = None,
    ) -> Universe:
        """Join the watchlist with the ids that the store gave."""
        ordered = tuple(sorted(projects, key=lambda p: p.slug))
        return Universe(ordered, np.array([entity_ids[p.slug] for p in ordered], dtype=np.int32), github, since or {})

    def entities(self, key: Key) -> tuple[Entity, ...]:
        """Return the projects that a source with this kind of key can be asked for.

        ``repository``: key = node id or empty, names = today's name, then the watchlist's and former ones.
        ``package``: key = names[0] = the first PyPI package, the one that is measured.
        ``npm``, ``huggingface``, ``dockerhub``: names = the identifiers there, key = the first, which is measured.
        ``depsdev``: key = slug, names = ``github.com/`` with today's name, ``pypi/`` and ``npm/`` with the first one.
        ``rules``: names = ``url:`` and ``name:`` rules.
        """
        found = []
        for project, number in zip(self.projects, self.entity_ids, strict=True):
            entity_id = int(number)
            if key == "repository" and project.github:
                identity = self.github.get(entity_id)
                upstream_id = identity.upstream_id if identity else ""
                names = self._repository_names(project, entity_id)
                found.append(Entity(entity_id, project.slug, upstream_id, names, self.since.get(entity_id)))
            elif key == "package" and project.pypi:
                found.append(Entity(entity_id, project.slug, project.pypi[0], (project.pypi[0],)))
            elif key in ("npm", "huggingface", "dockerhub") and (stated := project.identifiers(key)):
                found.append(Entity(entity_id, project.slug, stated[0], stated))
            elif key == "depsdev":
                repository = [f"github.com/{name}" for name in self._repository_names(project, entity_id)[:1]]
                first = [f"{platform}/{p}" for platform in ("pypi", "npm") for p in project.identifiers(platform)[:1]]
                if known := (*repository, *first):
                    found.append(Entity(entity_id, project.slug, project.slug, known))
            elif key == "rules" and (project.hn_urls or project.hn_names):
                rules = (*(f"url:{u}" for u in project.hn_urls), *(f"name:{n}" for n in project.hn_names))
                found.append(Entity(entity_id, project.slug, project.slug, rules))
        return tuple(found)

    def _repository_names(self, project: Project, entity_id: int) -> tuple[str, ...]:
        """Return the names of a project's repository, today's first; empty if it has none."""
        if not project.github:
            return ()
        identity = self.github.get(entity_id)
        names = (*((identity.name,) if identity else ()), project.github, *project.former_github)
        # One spelling per name, the watchlist's: GitHub's capitals must not make known work look new.
        spelling = {n.lower(): n for n in (*reversed(names), project.github)}
        return tuple(dict.fromkeys(spelling[n.lower()] for n in names))

    def weights(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the score's nominal weight per scored metric and project, float64 (N,); 0 where it has no such id."""
        present = {}
        for metric in METRICS:
            if metric.weight > 0:
                known = {e.entity_id for e in self.entities(SOURCES[metric.source].key)}
                present[metric.name] = np.isin(self.entity_ids, list(known))
        return nominal_weights(present)
