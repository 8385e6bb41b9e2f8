"""How many of a site's patients are positive, told from labels, however often one looks.

Labels come in a few at a time, and every night somebody looks. A 95 % interval that is looked at
every night misses the truth in the end; a confidence sequence holds at all looks together. Rows are
patients, one label each. Several scans of one patient are one row, or the promise is void.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals

Counts = int | float | npt.NDArray[np.float64] | npt.NDArray[np.int64]

N_STEPS = 2001
"""Prevalences that the weighted interval tries, 0.05 % apart."""
N_ALTERNATIVES = 64
"""Alternative prevalences of the weighted bets: nodes of the arcsine law, with which 127 equal labels are exact."""
LAST_BISECTION = 50
"""Halvings of an interval: down to the last bit of a float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPrevalence:
    """Share of positives among a site's patients, in [0, 1]."""

    value: float
    """Of the labels, weighted where they were not drawn evenly."""
    low: float
    high: float
    """With `low`: holds the truth at every look there ever is, together, with probability 1 - alpha."""
    n: int
    """Labelled patients."""
    n_positive: int
    is_even: bool = True
    """Drawn with one chance for all."""


def prevalence_from_labels(
    y: Reals, sampling_probability: Reals | None = None, *, least_probability: float | None = None, alpha: float = 0.05
) -> LabelledPrevalence:
    """Tell the prevalence from all labels so far.

    Drawn evenly: the prevalences p0 whose mixture likelihood ratio stays below 1 / alpha,
    B(k + 1/2, n - k + 1/2) / (B(1/2, 1/2) p0^k (1 - p0)^(n - k)), for k positives of n. 1.6 to 1.9
    times as wide as an interval for one look. Drawn unevenly (sick-looking scans first), each label y is
    bet upon with w (y - p0), w the least probability over its own; with even probabilities this is the same.

    Args:
        y: 1 or 0 per labelled patient.
        sampling_probability: Of being asked for a label, (0, 1]; it may depend on anything but the label.
            None: the same for all.
        least_probability: The lower end that the sampling kept to. It must be set before the labels are
            seen; None takes the least that occurs, which is right where the plan's floor has been used.
        alpha: Chance, over all looks together, that the interval ever misses the truth.

    Raises:
        EmptySample: If there are no labels.

    Source:
        Robbins 1970, doi:10.1214/aoms/1177696786 (mixtures of likelihood ratios); Waudby-Smith & Ramdas 2024,
        doi:10.1093/jrsssb/qkad009 (bets on means). Weighting the bets of a binary mean is ours.
    """
    if not len(y):
        raise EmptySample("labels to tell the prevalence from")
    n, k = len(y), int(np.sum(y == 1))
    if sampling_probability is None:
        low, high = _even_bounds(k, n, alpha)
        return LabelledPrevalence(value=k / n, low=low, high=high, n=n, n_positive=k)
    weights = (least_probability or float(sampling_probability.min())) / sampling_probability
    low, high = _weighted_bounds(y, np.minimum(weights, 1), alpha)
    value = float(np.average(y, weights=weights))
    return LabelledPrevalence(value=value, low=min(low, value), high=max(high, value), n=n, n_positive=k, is_even=False)


def log_e_value(n_positive: Counts, n: Counts, assumed: float) -> Reals:
    """Evidence in labels against an assumed prevalence, in nats: 0 is none, from ln(1 / alpha) on it is enough.

    Chance that it EVER gets there while the assumption holds is at most alpha (Ville's inequality). Depends on
    counts alone, so that days may be added up in any order. Broadcasts.

    Args:
        n_positive: Positives among the labels so far.
        n: Labels so far, drawn evenly.
        assumed: Prevalence, (0, 1).
    """
    from scipy.special import betaln, xlog1py, xlogy

    k, total = (np.asarray(counts, dtype=np.float64) for counts in (n_positive, n))
    mixture = betaln(k + 0.5, total - k + 0.5) - betaln(0.5, 0.5)
    told: Reals = mixture - xlogy(k, assumed) - xlog1py(total - k, -assumed)
    return told


def change_log_e(n_positive: Reals, n: Reals, assumed: float) -> Reals:
    """Evidence after each check that the prevalence has at some check left `assumed`, in nats.

    Years of unchanged labels would drown a change, so the labels since every earlier check are judged as well; the
    k-th start is given 6 / (pi k)^2 of the stake. From ln(1 / alpha) on there is a change; the chance of ever getting
    there without one is at most alpha.

    Args:
        n_positive: Positives per check, in order of time.
        n: Labels per check, drawn evenly.
        assumed: Prevalence, (0, 1).
    """
    before = [np.concatenate([[0.0], np.cumsum(counts)]) for counts in (n_positive, n)]
    log_stake = np.log(6 / np.pi**2) - 2 * np.log(np.arange(1, len(n) + 1))
    told = np.empty(len(n))
    for check in range(len(n)):
        k, total = (counts[check + 1] - counts[: check + 1] for counts in before)
        told[check] = np.logaddexp.reduce(log_stake[: check + 1] + log_e_value(k, total, assumed))
    # stakes of starts that are still to come are kept, not bet
    kept = 1 - np.cumsum(np.exp(log_stake))
    return np.asarray(np.logaddexp(told, np.log(np.maximum(kept, np.finfo(float).tiny))), dtype=np.float64)


def labels_needed(assumed: float, actual: float, *, alpha: float = 0.05) -> int:
    """Labels after which about two in three sites with prevalence `actual` are told apart from `assumed`.

    Where the evidence of a site with exactly the expected share of positives reaches ln(1 / alpha); many get there
    earlier, as one look above the line is enough.

    Raises:
        EmptySample: If the two are equal: no number of labels tells them apart.
    """
    if assumed == actual:
        raise EmptySample("difference between the two prevalences")
    low, high = 0, 1
    while log_e_value(high * actual, high, assumed) < math.log(1 / alpha):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = log_e_value(middle * actual, middle, assumed) >= math.log(1 / alpha)
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def _even_bounds(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Where the evidence, convex in the prevalence with its least at k / n, reaches ln(1 / alpha)."""
    ends = []
    for end in (0.0, 1.0):
        inside, outside = k / n, end
        for _ in range(LAST_BISECTION):
            middle = (inside + outside) / 2
            is_refuted = log_e_value(k, n, middle) >= math.log(1 / alpha)
            inside, outside = (inside, middle) if is_refuted else (middle, outside)
        ends.append(outside)
    return ends[0], ends[1]


def _weighted_bounds(y: Reals, weights: Reals, alpha: float) -> tuple[float, float]:
    """Least and greatest prevalence that the weighted bets do not refute, rounded outwards."""
    steps = np.linspace(0, 1, N_STEPS)
    kinds, counts = np.unique(np.stack([y, weights]), axis=1, return_counts=True)
    alternative = np.sin(np.pi * (2 * np.arange(N_ALTERNATIVES) + 1) / (4 * N_ALTERNATIVES)) ** 2
    assumed = steps[1:-1, None]
    stake = (alternative - assumed) / (assumed * (1 - assumed))
    log_wealth = sum(
        n * np.log1p(stake * weight * (label - assumed)) for (label, weight), n in zip(kinds.T, counts, strict=True)
    )
    evidence = np.logaddexp.reduce(log_wealth, axis=1) - math.log(N_ALTERNATIVES)
    inside = np.flatnonzero(evidence < math.log(1 / alpha)) + 1
    if not inside.size:
        return 0.0, 1.0
    return float(steps[inside[0] - 1]), float(steps[inside[-1] + 1])
