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
N_DRAWS = 1999
"""Simulated sites behind the chance of the test at one look."""
TIED = 1e-9
"""Nats within which two ratios are equal: they are sums of the same terms."""
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

    For labels that come night by night. A finding looks at its period's labels by `one_look_test`, which finds more at
    a hundred labels and promises nothing over looks.

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


def one_look_test(
    reliability: Reliability,
    scores: Reals,
    y: Reals,
    *,
    is_comparable: bool,
    prevalence: Estimate | None = None,
    alpha: float = 0.05,
) -> ConceptTest:
    """Test once, at a number of labels fixed beforehand; arguments as for `betting_test`.

    The mean of the same likelihood ratios, held against the reference alone. Its chance is counted among simulated
    sites where nothing changed but prevalence: each draws the shares of the reference's bins from what they are known
    to be, the prevalence from its estimate, and then labels. Of 100 labels with a quarter of the positives called
    negative it finds 55 to 58 % (alpha .0175), a chi-squared score test of level and slope 44 %.

    Source:
        Neyman & Pearson 1933, doi:10.1098/rsta.1933.0009 (likelihood ratios); Box 1980, doi:10.2307/2982063 (chances
        by simulated predictions, the parameters' errors included).
    """
    n = _per_bin(reliability, scores)
    if not n.sum():
        raise EmptySample("labels to hold against the scores")
    n_positive, n_reference = reliability.counts_at(_share(reliability, prevalence))
    p_bin = n_positive / n_reference
    n_called = np.bincount(reliability.bins(scores), weights=y, minlength=len(n)).astype(np.float64)
    seen = _log_ratio(n_called, n, p_bin)
    shares = _simulated_shares(reliability, prevalence)
    ratios = _log_ratio(_simulated(shares, n), n, p_bin)
    p = float((1 + np.sum(ratios >= seen - TIED)) / (1 + N_DRAWS))
    line = float(np.quantile(ratios, 1 - alpha, method="higher"))

    def is_shown(share: float) -> bool:
        changed = _log_ratio(_simulated(shares * (1 - share), n), n, p_bin)
        return float((changed > line).mean()) >= POWER

    return _verdict(reliability, scores, y, prevalence, p, _least(is_shown), alpha, is_comparable=is_comparable)


def _log_ratio(n_positive: Reals, n: Reals, p: Reals) -> Reals:
    """Of the mean over alternatives to no change, in nats, (...); `n_positive` is (..., bins)."""
    if_positive, if_negative = (
        np.log(np.stack([ratio(change(p), p) for change in ALTERNATIVES], axis=1))
        for ratio in (np.divide, lambda q, p: (1 - q) / (1 - p))
    )
    each = n_positive @ if_positive + (n - n_positive) @ if_negative
    return np.asarray(np.logaddexp.reduce(each, axis=-1) - math.log(len(ALTERNATIVES)), dtype=np.float64)


def _simulated_shares(reliability: Reliability, prevalence: Estimate | None) -> Reals:
    """Shares of positives per bin that site and reference may have, (draws, bins); always the same draws."""
    rng = np.random.default_rng(0)
    n_negative = reliability.n - reliability.n_positive
    share = rng.beta(reliability.n_positive + 0.5, n_negative + 0.5, size=(N_DRAWS, len(n_negative)))
    se = 0.0
    if prevalence is not None:
        # at the border of [0, 1] only the side away from it tells the error
        se = max(prevalence.high - prevalence.value, prevalence.value - prevalence.low) / 1.96
    at = np.clip(_share(reliability, prevalence) + se * rng.standard_normal((N_DRAWS, 1)), 1e-3, 1 - 1e-3)
    odds = at / (1 - at) * (1 - reliability.prevalence) / reliability.prevalence
    return np.asarray(share * odds / (share * odds + 1 - share), dtype=np.float64)


def _simulated(shares: Reals, n: Reals) -> Reals:
    """Positives per bin among `n` labels, (draws, bins)."""
    return np.random.default_rng(1).binomial(n.astype(np.intp), shares).astype(np.float64)


def _share(reliability: Reliability, prevalence: Estimate | None) -> float:
    return _inside(reliability.prevalence if prevalence is None else prevalence.value)


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
        return [(_share(reliability, prevalence), 0.0)]
    z = np.linspace(-FURTHEST_SE, FURTHEST_SE, N_CANDIDATES)
    log_weight = -(z**2) / 2 - np.logaddexp.reduce(-(z**2) / 2)
    se = (prevalence.high - prevalence.low) / (2 * 1.96)
    return [(_inside(prevalence.value + at * se), w) for at, w in zip(z.tolist(), log_weight.tolist(), strict=True)]


def _per_bin(reliability: Reliability, scores: Reals) -> Reals:
    """Labelled patients of the site in each bin."""
    return np.bincount(reliability.bins(scores), minlength=len(reliability.n)).astype(np.float64)


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
    value = _share(reliability, prevalence)
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
    """Its variance is that of the labels, of the reference's bins, and of the estimated prevalence."""
    n, share = _per_bin(reliability, scores), _share(reliability, prevalence)
    n_positive, n_reference = reliability.counts_at(share)
    expected = n_positive / n_reference
    binomial = n * expected * (1 - expected)
    variance = float((binomial * (1 + n / n_reference)).sum())
    if prevalence is not None:
        se = (prevalence.high - prevalence.low) / (2 * 1.96)
        variance += (float(binomial.sum()) / (share * (1 - share)) * se) ** 2
    value = float((y - expected[reliability.bins(scores)]).mean())
    half_width = 1.96 * math.sqrt(variance) / len(y)
    return Estimate(value, value - half_width, value + half_width)
