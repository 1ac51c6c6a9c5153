"""Boosted trees as plain arrays: what scikit-learn fitted, predicted without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

BLOCK: Final = 512
"""Rows predicted at a time; bounds the memory, changes nothing else."""

ARRAYS: Final = ("feature", "threshold", "missing_left", "left", "right", "value", "roots")


@dataclass(frozen=True, slots=True)
class Trees:
    """All nodes of an ensemble one after another; ``roots`` are the first nodes of its trees.

    At an inner node a row goes ``left`` if its ``feature`` is at most the ``threshold``, or is NaN and
    ``missing_left``; else ``right``. Leaves have feature -1 and lead to themselves. The prediction is ``base`` plus
    the leaves' values.
    """

    feature: npt.NDArray[np.int16]
    threshold: F64
    missing_left: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    value: F64
    roots: npt.NDArray[np.int32]
    base: float

    def predict(self, X: F32, /) -> F64:
        """Return (n,) for features (n, F), NaN allowed: the same as scikit-learn, up to the order of the sum."""
        if not len(X):
            return np.zeros(0)
        return np.concatenate([self._block(X[start : start + BLOCK]) for start in range(0, len(X), BLOCK)])

    def _block(self, X: F32) -> F64:
        rows = np.arange(len(X))[:, None]
        node = np.broadcast_to(self.roots, (len(X), len(self.roots))).copy()
        while True:
            feature = self.feature[node]
            if (feature < 0).all():
                break
            x = X[rows, feature].astype(np.float64)  # of leaves the last feature, which decides nothing
            left = np.where(np.isnan(x), self.missing_left[node], x <= self.threshold[node])
            node = np.where(left, self.left[node], self.right[node])
        total: F64 = self.base + self.value[node].sum(axis=1)
        return total

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return all that is needed to build it again with :func:`from_arrays`."""
        return {name: getattr(self, name) for name in ARRAYS} | {"base": np.array(self.base)}


def from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Trees:
    """Return the ensemble of :meth:`Trees.arrays`.

    Raises
    ------
    ValueError
        If an array is missing, or a node leads out of the ensemble.
    """
    if missing := {*ARRAYS, "base"} - arrays.keys():
        raise ValueError(f"the trees lack {sorted(missing)}")
    trees = Trees(**{name: arrays[name] for name in ARRAYS}, base=float(arrays["base"]))  # type: ignore[arg-type]
    nodes = len(trees.feature)
    for name in ("left", "right", "roots"):
        way = getattr(trees, name)
        if len(way) and not (way.min() >= 0 and way.max() < nodes):
            raise ValueError(f"{name} of the trees leads out of its {nodes} nodes")
    return trees


def export(fitted: HistGradientBoostingRegressor) -> Trees:
    """Return the trees of a fitted ensemble of one output without categories."""
    # scikit-learn has no public way to its trees; tests hold this against its own predictions.
    nodes = [iteration[0].nodes for iteration in fitted._predictors]
    sizes = np.array([len(tree) for tree in nodes])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shift = np.repeat(roots, sizes)
    flat = np.concatenate(nodes)
    leaf = flat["is_leaf"].astype(bool)
    own = np.arange(len(flat))
    return Trees(
        feature=np.where(leaf, -1, flat["feature_idx"]).astype(np.int16),
        threshold=np.where(leaf, 0.0, flat["num_threshold"]).astype(np.float64),
        missing_left=flat["missing_go_to_left"].astype(bool),
        left=np.where(leaf, own, flat["left"] + shift).astype(np.int32),
        right=np.where(leaf, own, flat["right"] + shift).astype(np.int32),
        value=np.where(leaf, flat["value"], 0.0).astype(np.float64),
        roots=roots.astype(np.int32),
        base=float(np.ravel(fitted._baseline_prediction)[0]),
    )
