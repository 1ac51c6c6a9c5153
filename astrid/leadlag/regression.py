"""Least squares with errors that may be autocorrelated, and the Granger tests made of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
from scipy import stats

from astrid.leadlag.alignment import F64, I64, lagged


@dataclass(frozen=True, slots=True)
class Fit:
    """An ordinary least squares fit: ``beta`` (k,), residuals (n,), ``hac`` (k, k) covariance of Newey and West."""

    beta: F64
    residual: F64
    hac: F64
    n: int

    @property
    def freedom(self) -> int:
        """Return the degrees of freedom of the residuals."""
        return self.n - len(self.beta)


@dataclass(frozen=True, slots=True)
class Slope:
    """One coefficient: ``p`` is two-sided, from t with n - k degrees of freedom on the HAC error."""

    n: int
    slope: float
    se: float
    t: float
    p: float
    r: float


@dataclass(frozen=True, slots=True)
class Granger:
    """Whether ``order`` lags of a cause improve on as many of the effect itself.

    ``f`` and ``p_f`` are the finite-sample F test, ``w`` and ``p_hac`` the Wald test on the HAC covariance, divided by
    the number of restrictions and read from F with the same degrees of freedom.
    """

    order: int
    n: int
    f: float
    p_f: float
    w: float
    p_hac: float


def bandwidth(n: int) -> int:
    """Return the lags of the Newey-West covariance, floor(4 (n / 100)^(2/9)), at least 1."""
    return max(1, floor(4 * float(np.float64(n / 100) ** (2 / 9))))


def fit(x: F64, y: F64, position: I64, lags: int | None = None) -> Fit:
    """Fit y = x beta + e, (n, k) and (n,), with the HAC covariance of Newey and West (1987), times n / (n - k).

    Bartlett weights 1 - l / (L + 1). Only pairs whose positions differ by exactly l are taken as l apart, so that
    nothing is correlated across a hole or a break.

    Raises
    ------
    ValueError
        If there are not more observations than coefficients, or the columns of x depend on each other.
    """
    n, k = x.shape
    if n <= k:
        raise ValueError(f"{n} observations for {k} coefficients")
    beta, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    if rank < k:
        raise ValueError("the columns of x depend on each other")
    residual = y - x @ beta
    bread = np.linalg.inv(x.T @ x)
    score = x * residual[:, None]
    meat = score.T @ score
    reach = bandwidth(n) if lags is None else lags
    for lag in range(1, reach + 1):
        later, earlier = np.nonzero(position[:, None] - position[None, :] == lag)
        cross = score[later].T @ score[earlier]
        meat += (1 - lag / (reach + 1)) * (cross + cross.T)
    return Fit(beta.astype(np.float64), residual, bread @ meat @ bread * (n / (n - k)), n)


def slope_of(x: F64, y: F64, base: F64, position: I64) -> Slope | None:
    """Return the coefficient of ``x`` beside the columns ``base``; None if there is too little to fit.

    Rows in which something is missing are left out. ``r`` is the correlation of what ``base`` leaves of x and y.
    """
    ok = np.isfinite(x) & np.isfinite(y) & np.isfinite(base).all(axis=1)
    base = base[ok][:, base[ok].any(axis=0)]
    try:
        found = fit(np.column_stack([x[ok], base]), y[ok], position[ok])
    except ValueError:
        return None
    se = float(np.sqrt(max(found.hac[0, 0], 0.0)))
    if se == 0 or found.freedom < 1:
        return None
    t = float(found.beta[0]) / se
    rx, ry = (v - base @ np.linalg.lstsq(base, v, rcond=None)[0] for v in (x[ok], y[ok]))
    scale = float(np.sqrt((rx @ rx) * (ry @ ry)))
    return Slope(
        found.n,
        float(found.beta[0]),
        se,
        t,
        float(2 * stats.t.sf(abs(t), found.freedom)),
        float(rx @ ry) / scale if scale > 0 else float("nan"),
    )


def granger(cause: F64, effect: F64, base: F64, position: I64, order: int) -> Granger | None:
    """Test whether ``order`` past values of ``cause`` help beside as many of ``effect``; None with too little."""
    own = [lagged(effect, position, step) for step in range(1, order + 1)]
    other = [lagged(cause, position, step) for step in range(1, order + 1)]
    whole = np.column_stack([*other, *own, base])
    ok = np.isfinite(whole).all(axis=1) & np.isfinite(effect)
    whole = whole[ok][:, whole[ok].any(axis=0)]
    if len(whole) <= whole.shape[1] + 1:
        return None
    try:
        full = fit(whole, effect[ok], position[ok])
        part = fit(whole[:, order:], effect[ok], position[ok])
    except ValueError:
        return None
    rest, restricted = float(full.residual @ full.residual), float(part.residual @ part.residual)
    if rest <= 0:
        return None
    f = (restricted - rest) / order / (rest / full.freedom)
    beta = full.beta[:order]
    try:
        w = float(beta @ np.linalg.solve(full.hac[:order, :order], beta)) / order
    except np.linalg.LinAlgError:
        return None
    p_f, p_hac = (float(stats.f.sf(max(v, 0.0), order, full.freedom)) for v in (f, w))
    return Granger(order, full.n, f, p_f, w, p_hac)
