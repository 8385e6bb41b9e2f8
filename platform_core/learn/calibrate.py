"""Turns a network's logit into a score that means the same at every site and version.

A score is the log likelihood ratio of the two classes: at even odds its sigmoid is the
probability of the positive class. A site's prevalence enters later, by its serving's
calibration, so servings, and a champion and its challenger, can be compared and moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

PRIOR_SD = 1.0
"""Of log slope and intercept: 10 scans are hardly able to move them, 100 hardly feel it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platt:
    """Score = slope x logit + intercept; the slope is positive, so no rank changes."""

    slope: float
    intercept: float

    def score(self, logits: Reals) -> Reals:
        """Scores (natural log of a likelihood ratio) of raw logits."""
        return np.asarray(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept, dtype=np.float64)


def fit_platt(logits: Reals, y: Reals, sites: Sequence[str]) -> Platt:
    """Fit slope and intercept on scans that the network was not trained on.

    Every site's own share of positives is taken out before the fit, so that the score does
    not carry a prevalence. A Gaussian prior about slope 1 and intercept 0 keeps few scans
    from overruling a network that was trained at even odds.

    Args:
        logits: (n,), raw.
        y: (n,), 0 or 1.
        sites: (n,), where each scan comes from.

    Source:
        Platt 1999, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers,
        with a prior instead of his smoothed targets.
    """
    from scipy.optimize import minimize

    base = _prior_logits(y, sites)
    sign = 2.0 * y - 1.0

    def cost(theta: Reals) -> float:
        margin = sign * (np.exp(theta[0]) * logits + theta[1] + base)
        return float(np.logaddexp(0.0, -margin).sum() + 0.5 * np.sum((theta / PRIOR_SD) ** 2))

    best = minimize(cost, x0=np.zeros(2), method="BFGS").x
    return Platt(slope=float(np.exp(best[0])), intercept=float(best[1]))


def log_odds(share: float) -> float:
    """ln(share / (1 - share))."""
    return float(np.log(share) - np.log1p(-share))


def smoothed_share(y: Reals) -> float:
    """Share of positives with half a scan added to each class, so that it is never 0 or 1."""
    return float((y.sum() + 0.5) / (len(y) + 1.0))


def _prior_logits(y: Reals, sites: Sequence[str]) -> Reals:
    names = np.asarray(sites)
    share = {name: smoothed_share(y[names == name]) for name in set(sites)}
    return np.asarray([log_odds(share[name]) for name in sites], dtype=np.float64)
