"""Quantiles of past errors, such that new errors lie between them as often as said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def conformal_quantiles(errors: F64, probabilities: Sequence[float]) -> F64:
    """Return bounds that one more exchangeable error is below with the given probabilities.

    Of n errors the k-th smallest is taken, k = ceil((n + 1) p) above the median and floor((n + 1) p) below it, each
    within 1..n: a band between two of them holds a new error with at least the nominal probability if n is large
    enough for its tails (split conformal prediction, both tails apart). The median itself is the plain one.

    Raises
    ------
    ValueError
        If there are no errors.
    """
    if not len(errors):
        raise ValueError("there are no errors to calibrate on")
    ranked = np.sort(errors)
    n = len(ranked)
    out = np.empty(len(probabilities))
    for i, p in enumerate(probabilities):
        if p == 0.5:
            out[i] = np.median(ranked)
        else:
            k = np.ceil((n + 1) * p) if p > 0.5 else np.floor((n + 1) * p)
            out[i] = ranked[int(np.clip(k, 1, n)) - 1]
    return out
