"""Whether scans that score alike are labelled otherwise than at the reference.

Labels are held against the reference's share of positives at the same score, brought to the site's prevalence.
A score of .7 means something else once a scanner has moved the scores. So the tests speak only where the
caller vouches that acquisition is as it was, or harmonized. They never say that nothing has changed:
what is not found is not excluded, and the least change that would have been found is stated.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.shift.labels.relabelling import ALTERNATIVES
from platform_core.shift.labels.reliability import Reliability
from platform_core.shift.risk import Estimate, Reals

POWER, Z_POWER = 0.8, 0.842
N_DRAWS = 4000
"""Normal pairs behind the power of the score test; always the same ones."""
N_CANDIDATES, FURTHEST_SE = 21, 3.0
"""Prevalences that stand for an estimate and its error, and how many standard errors they reach."""
LEAST_SHARE, MOST_SHARE = 1e-3, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptTest:
    """What labels say about the meaning of scores."""

    verdict: Literal["changed", "not_excluded"]
    p: float
    """Chance of labels this unlike the reference's if nothing changed but prevalence."""
    excess: Estimate
    """Share of positives less what the scores predict, [-1, 1], with its 95 % interval for one look."""
    least_detectable: float | None
    """Share of positives called negative that this many labels show in 80 % of cases, (0, 1]; None if not even all."""
    n: int
    """Labelled patients."""
    because: str


def betting_test(
    reliability: Reliability,
    scores: Reals,
    y: Reals,
    *,
    is_comparable: bool,
    prevalence: Estimate | None = None,
    alpha: float = 0.05,
) -> ConceptTest:
    """Test at every look: `p` is below alpha at any time ever, with nothing changed, in at most alpha of all sites.

    Args:
        reliability: Of the labelled reference.
        scores: Of the site's labelled patients, in the order in which labels came, in the reference's unit.
        y: Their labels, 1 or 0. Patients may be chosen for labelling by their score, but not by their class.
        is_comparable: Acquisition features are as they were when the model was accepted, or harmonized.
        prevalence: Of the site, from unlabelled scores: its interval is taken for a normal distribution's middle
            95 %, over which both explanations are averaged, and the promise holds in the mean over it; None: the
            reference's.
        alpha: Promise of the verdict.

    Raises:
        EmptySample: If there are no labels.
    """
    path = log_e_path(reliability, scores, y, prevalence)
    p = float(np.exp(-max(path.max(), 0)))
    n = _per_bin(reliability, scores)
    least = _least(lambda share: _is_shown(reliability, n, prevalence, alpha, share))
    return _verdict(reliability, scores, y, prevalence, p, least, alpha, is_comparable=is_comparable)


def score_test(
    reliability: Reliability,
    scores: Reals,
    y: Reals,
    *,
    is_comparable: bool,
    prevalence: Estimate | None = None,
    alpha: float = 0.05,
) -> ConceptTest:
    """Test once, at a number of labels fixed beforehand; arguments as for `betting_test`.

    Level and slope of y - p against 2 p - 1, chi-squared with two degrees of freedom. Their variance is that of the
    labels, of the reference's bins, and of the estimated prevalence.

    Source:
        Rao 1948, doi:10.1017/S0305004100023987 (score tests); level and slope of calibration: Cox 1958,
        doi:10.1093/biomet/45.3-4.562.
    """
    from scipy.stats import chi2

    n = _per_bin(reliability, scores)
    moments = _moments(reliability, n, prevalence)
    place = reliability.bins(scores)
    total = moments.gradient[:, place] @ (y - moments.expected[place])
    p = float(chi2.sf(total @ np.linalg.pinv(moments.variance) @ total, 2))
    draws = np.random.default_rng(0).standard_normal((2, N_DRAWS))
    line = float(chi2.isf(alpha, 2))
    least = _least(lambda share: _power(moments, n, share, draws, line) >= POWER)
    return _verdict(reliability, scores, y, prevalence, p, least, alpha, is_comparable=is_comparable)


def log_e_path(reliability: Reliability, scores: Reals, y: Reals, prevalence: Estimate | None = None) -> Reals:
    """Evidence after each label that scores mean something else, in nats; arguments as for `betting_test`.

    Each alternative multiplies its likelihood ratio against the share of positives that reference AND earlier labels
    of the same bin foretell, and their mean is the evidence. Held against the reference alone, whose own sampling
    error would be found in time, twice as many unchanged streams alarm. The prevalence's error is paid for likewise.

    Raises:
        EmptySample: If there are no labels.

    Source:
        Ville 1939 (the bound for all times); Vovk & Wang 2021, doi:10.1214/20-AOS2020 (means of e-values).
    """
    if not len(y):
        raise EmptySample("labels to hold against the scores")
    place = reliability.bins(scores)
    as_before, otherwise = [], []
    for candidate, log_weight in _candidates(reliability, prevalence):
        p = _foretold(place, y, *reliability.counts_at(candidate))
        before = np.cumsum(np.log(np.where(y == 1, p, 1 - p)))
        told = np.stack([np.where(y == 1, change(p) / p, (1 - change(p)) / (1 - p)) for change in ALTERNATIVES])
        changed = np.logaddexp.reduce(np.cumsum(np.log(told), axis=1), axis=0) - math.log(len(ALTERNATIVES))
        as_before.append(log_weight + before)
        otherwise.append(log_weight + before + changed)
    return np.asarray(np.logaddexp.reduce(otherwise) - np.logaddexp.reduce(as_before), dtype=np.float64)


def _foretold(place: npt.NDArray[np.intp], y: Reals, n_positive: Reals, n: Reals) -> Reals:
    """Share of positives that counts and the earlier labels of the same bin foretell for each label."""
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], place[order])
    before = np.cumsum(y[order]) - y[order]
    positives, labels = np.empty(len(y)), np.empty(len(y))
    positives[order], labels[order] = before - before[first], np.arange(len(y)) - first
    return np.asarray((n_positive[place] + positives) / (n[place] + labels), dtype=np.float64)


def _candidates(reliability: Reliability, prevalence: Estimate | None) -> list[tuple[float, float]]:
    """Prevalences and the logarithm of each one's weight: a normal distribution about the estimate."""
    if prevalence is None or prevalence.low == prevalence.high:
        return [(_inside(reliability.prevalence if prevalence is None else prevalence.value), 0.0)]
    z = np.linspace(-FURTHEST_SE, FURTHEST_SE, N_CANDIDATES)
    log_weight = -(z**2) / 2 - np.logaddexp.reduce(-(z**2) / 2)
    se = (prevalence.high - prevalence.low) / (2 * 1.96)
    return [(_inside(prevalence.value + at * se), w) for at, w in zip(z.tolist(), log_weight.tolist(), strict=True)]


def _per_bin(reliability: Reliability, scores: Reals) -> Reals:
    """Labelled patients of the site in each bin."""
    return np.bincount(reliability.bins(scores), minlength=len(reliability.n)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Moments:
    """Of labels under no change but prevalence."""

    expected: Reals
    """(bins,): share of positives."""
    gradient: Reals
    """(2, bins): what y - p is summed with, one for the level and 2 p - 1 for the slope."""
    variance: Reals
    """(2, 2): of the two sums."""


def _moments(reliability: Reliability, n: Reals, prevalence: Estimate | None) -> _Moments:
    """For `n` labels per bin."""
    if not n.sum():
        raise EmptySample("labels to hold against the scores")
    share = _inside(reliability.prevalence if prevalence is None else prevalence.value)
    n_positive, n_reference = reliability.counts_at(share)
    expected = n_positive / n_reference
    binomial = expected * (1 - expected)
    gradient = np.stack([np.ones_like(expected), 2 * expected - 1])
    variance = (gradient * (n * binomial * (1 + n / n_reference))) @ gradient.T
    if prevalence is not None:
        se = (prevalence.high - prevalence.low) / (2 * 1.96)
        moved = gradient @ (n * binomial) / (share * (1 - share)) * se
        variance = variance + np.outer(moved, moved)
    return _Moments(expected, gradient, variance)


def _power(moments: _Moments, n: Reals, share: float, draws: Reals, line: float) -> float:
    """How often the score test exceeds `line` once `share` of the positives are called negative, [0, 1]."""
    p, g = moments.expected, moments.gradient
    q = p * (1 - share)
    variance = moments.variance + (g * (n * (q * (1 - q) - p * (1 - p)))) @ g.T
    values, vectors = np.linalg.eigh(variance)
    spread = vectors * np.sqrt(np.maximum(values, 0))
    totals = (g @ (n * (q - p)))[:, None] + spread @ draws
    statistic = np.einsum("id,ij,jd->d", totals, np.linalg.pinv(moments.variance), totals)
    return float((statistic >= line).mean())


def _least(is_shown: Callable[[float], bool]) -> float | None:
    """The least share, to one per cent of itself, that is shown; None if not even all positives are."""
    if not is_shown(MOST_SHARE):
        return None
    low, high = LEAST_SHARE, MOST_SHARE
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_shown(middle) else (middle, high)
    return high


def _inside(prevalence: float) -> float:
    return float(np.clip(prevalence, 1e-3, 1 - 1e-3))


def _is_shown(reliability: Reliability, n: Reals, prevalence: Estimate | None, alpha: float, share: float) -> bool:
    """Whether some bet's expected evidence clears the line by what 80 % power asks.

    At every prevalence that could explain the labels instead, the less likely ones being evidence by themselves.
    """
    value = _inside(reliability.prevalence if prevalence is None else prevalence.value)
    actual = np.divide(*reliability.counts_at(value)) * (1 - share)
    line = math.log(len(ALTERNATIVES) / alpha)
    candidates = _candidates(reliability, prevalence)
    likeliest = max(log_weight for _, log_weight in candidates)
    for candidate, log_weight in candidates:
        n_positive, n_reference = reliability.counts_at(candidate)
        # halfway through, the earlier labels have moved what is foretold this far
        p = (n_positive + actual * n / 2) / (n_reference + n / 2)
        if_positive, if_negative = (
            np.log(np.stack([ratio(change(p), p) for change in ALTERNATIVES]))
            for ratio in (np.divide, lambda q, p: (1 - q) / (1 - p))
        )
        gained = (actual * if_positive + (1 - actual) * if_negative) @ n
        spread = np.sqrt((if_positive - if_negative) ** 2 @ (n * actual * (1 - actual)))
        if (gained - Z_POWER * spread).max() + likeliest - log_weight < line:
            return False
    return True


def _verdict(
    reliability: Reliability,
    scores: Reals,
    y: Reals,
    prevalence: Estimate | None,
    p: float,
    least: float | None,
    alpha: float,
    *,
    is_comparable: bool,
) -> ConceptTest:
    excess = _excess(reliability, scores, y, prevalence)
    seen = "not even all positives called negative" if least is None else f"{least:.0%} of positives called negative"
    limit = f"{len(y)} labels show {seen} in 80 % of cases"
    told = f"positives differ by {excess.value:+.0%} of patients from what the scores foretell (p {p:.2g})"
    verdict: Literal["changed", "not_excluded"] = "changed" if is_comparable and p <= alpha else "not_excluded"
    if verdict == "changed":
        because = f"scans that score alike are labelled otherwise: {told}"
    elif is_comparable:
        because = f"a change of meaning is not excluded: {limit}"
    else:
        because = (
            f"a change of meaning is not excluded: scans or patients differ, so scores cannot be compared; {limit} else"
        )
    return ConceptTest(verdict=verdict, p=p, excess=excess, least_detectable=least, n=len(y), because=because)


def _excess(reliability: Reliability, scores: Reals, y: Reals, prevalence: Estimate | None) -> Estimate:
    moments = _moments(reliability, _per_bin(reliability, scores), prevalence)
    value = float((y - moments.expected[reliability.bins(scores)]).mean())
    half_width = 1.96 * math.sqrt(moments.variance[0, 0]) / len(y)
    return Estimate(value, value - half_width, value + half_width)
