"""Turns a network's logit into a score that means the same at every site and version.

A score is the log likelihood ratio of the two classes: at even odds its sigmoid is the
probability of the positive class. A site's prevalence enters later, by its serving's
calibration, so servings, and a champion and its challenger, can be compared and moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from platform_core.manifest.serving import Calibration, log_odds

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
    slope, intercept = _slope_and_intercept(logits, y, _prior_logits(y, sites), np.ones(len(y)))
    return Platt(slope=slope, intercept=intercept)


def fit_calibration(score: Reals, y: Reals, present: Calibration, weight: Reals | None = None) -> Calibration:
    """Fit scale and offset of one site to labelled scans that its network has not learned from; no rank changes.

    Few scans move little: the same Gaussian prior lies about the present calibration. The threshold stays.

    Args:
        score: (n,), before calibration.
        y: (n,), 0 or 1.
        present: What the site runs now.
        weight: (n,), 1 / the chance with which each label was asked for; None: all alike.
    """
    each = np.ones(len(y)) if weight is None else weight * len(y) / weight.sum()
    slope, intercept = _slope_and_intercept(present.scale * score, y, np.full(len(y), present.logit_offset), each)
    return replace(
        present,
        scale=present.scale * slope,
        logit_offset=present.logit_offset + intercept,
        prevalence=smoothed_share(y, each),
    )


def smoothed_share(y: Reals, weight: Reals | None = None) -> float:
    """Share of positives with half a scan added to each class, so that it is never 0 or 1."""
    each = np.ones(len(y)) if weight is None else weight
    return float(((each * y).sum() + 0.5) / (each.sum() + 1.0))


def _slope_and_intercept(logits: Reals, y: Reals, base: Reals, weight: Reals) -> tuple[float, float]:
    """Those of slope x logits + intercept + base that make the labels likeliest, under the prior."""
    from scipy.optimize import minimize

    sign = 2.0 * y - 1.0

    def cost(theta: Reals) -> float:
        margin = sign * (np.exp(theta[0]) * logits + theta[1] + base)
        return float((weight * np.logaddexp(0.0, -margin)).sum() + 0.5 * np.sum((theta / PRIOR_SD) ** 2))

    best = minimize(cost, x0=np.zeros(2), method="BFGS").x
    return float(np.exp(best[0])), float(best[1])


def _prior_logits(y: Reals, sites: Sequence[str]) -> Reals:
    names = np.asarray(sites)
    share = {name: smoothed_share(y[names == name]) for name in set(sites)}
    return np.asarray([log_odds(share[name]) for name in sites], dtype=np.float64)
