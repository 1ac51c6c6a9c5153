"""The learned forecast over a panel, as the evaluation asks for it, and the appearances that it may use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from astrid.evaluation.forecast import Forecast
from astrid.evaluation.panel import Panel
from astrid.evaluation.reader import read_dated
from astrid.forecast.attention import Appearances
from astrid.forecast.walk import WalkForward

REPOSITORY: Final = re.compile(r"(?:https?://(?:www\.)?github\.com/)?([\w.-]+/[\w.-]+?)(?:\.git)?/?(?:[/#?].*)?", re.A)
"""A repository's name, bare or in an address on GitHub."""


class WalkForwardForecaster:
    """Forecasts of :class:`~astrid.forecast.walk.WalkForward` in the evaluation's terms (a Forecaster).

    It learns from the panel alone: from each day's counts and appearances up to it, and growth realised by then.
    """

    def __init__(
        self, panel: Panel, attention: Sequence[Appearances] = (), *, horizons: Sequence[int], seed: int = 0
    ) -> None:
        self._walk = WalkForward(panel.stars, panel.forks, panel.first_day, attention, horizons=horizons, seed=seed)

    @property
    def name(self) -> str:
        """Name the model and how it is trained."""
        return self._walk.name

    def forecast(self, row: int) -> dict[int, Forecast]:
        """Return the forecast by horizon, made with rows up to ``row``."""
        return {
            horizon: Forecast(q.median, q.lo80, q.hi80, q.lo95, q.hi95)
            for horizon, q in self._walk.forecast(row).items()
        }


def read_appearances(path: Path, panel: Panel, *, name: str, column: str) -> Appearances:
    """Read appearances of the panel's repositories from a CSV file with ``date``, ``rank`` and ``column``.

    Parameters
    ----------
    name
        Name of the source: the beginning of its features' names, ``hn`` or ``trending``.
    column
        Holds a repository's name or an address: ``url`` of Hacker News, ``repo`` of trending pages. What is not on
        GitHub or not in the panel only shows that the source was read that day. Case does not matter.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no CSV, or lacks a column.
    """
    texts, codes, day, rank = read_dated(path, column, "rank")
    place = {repo.lower(): i for i, repo in enumerate(panel.repos)}
    for former, _, repo in panel.former:
        place.setdefault(repo.lower(), former)
    columns = np.array([_find(text, place) for text in texts] + [-1], np.intp)[codes]
    usable = ~np.isnat(day)
    rows = np.where(usable, (day - panel.first_day).astype(np.int64), 0)
    kept = np.flatnonzero(usable)
    kept = kept[np.argsort(rows[kept], kind="stable")]
    ranks = np.where(np.isnan(rank), np.inf, rank).astype(np.float32)
    return Appearances(name, rows[kept].astype(np.intp), columns[kept], ranks[kept])


def _find(text: str, place: dict[str, int]) -> int:
    found = REPOSITORY.fullmatch(text)
    return place.get(found[1].lower(), -1) if found else -1
