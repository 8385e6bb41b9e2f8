"""A second opinion on prevalence: from how many the model calls positive, and what its calls are worth.

Scores in ten bins tell more than calls at one threshold, but lean on more: on every part of the two histograms. Under
a change of prevalence alone both are right, and differ by chance. Where they differ by more, it is something else.
"""

import math
from dataclasses import dataclass

import numpy as np

from platform_core.errors import EmptySample
from platform_core.shift.labels.prevalence import (
    MIN_CLASS_PATIENTS,
    Counts,
    PrevalenceEstimate,
    estimate_prevalence,
    fit_mixture,
    score_edges,
)
from platform_core.shift.risk import Estimate, Reals

LEAST_CONDITION = 0.05
"""Least singular value of the joint table of calls and classes; below, sampling error is multiplied twentyfold."""
N_STEPS = 201
"""Prevalences that the interval tries, 0.5 % apart."""
N_RESAMPLES = 199
Z_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledPrevalence:
    """Share of positives among a period's patients, in [0, 1], with its 95 % interval."""

    value: float
    low: float
    high: float
    condition: float
    """Least singular value of the table, [0, 0.5]: 0 if calls tell nothing of the class, 0.5 if all, at equal odds."""
    p_fit: float
    """Chance of a share of calls this far outside what any prevalence gives; 1 inside."""
    n: int
    n_reference: int

    @property
    def is_usable(self) -> bool:
        """Whether calls tell the classes apart well enough; if not, the interval is all of [0, 1]."""
        return self.condition >= LEAST_CONDITION


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoOpinions:
    """Prevalence by scores and by calls, beside each other."""

    by_scores: PrevalenceEstimate
    by_calls: CalledPrevalence
    difference: Estimate
    """By calls less by scores, with its 95 % interval over resampled patients."""
    p_agree: float
    """Chance of such a difference if both estimate one number."""


@dataclass(frozen=True, slots=True)
class _Calls:
    """Share called positive: at the site, among reference positives and among negatives; each (...)."""

    site: Reals
    positive: Reals
    negative: Reals

    def prevalence(self) -> Reals:
        """What solves site = p positive + (1 - p) negative, in [0, 1]."""
        apart = self.positive - self.negative
        raw = np.divide(self.site - self.negative, apart, out=np.full(np.shape(apart), 0.5), where=apart != 0)
        return np.asarray(np.clip(raw, 0, 1), dtype=np.float64)


def estimate_by_calls(
    scores: Reals, reference_scores: Reals, reference_y: Reals, *, threshold: float
) -> CalledPrevalence:
    """Estimate the share of positives from the share called positive.

    The interval holds every prevalence whose expected share of calls lies within 1.96 standard errors of what was
    seen, errors of the reference's two rates included.

    Args:
        scores: Of the site's period, one per patient.
        reference_scores: Of the labelled reference, in the same unit.
        reference_y: 1 for its positives, 0 for its negatives.
        threshold: Positive is called from here on; at the model's own, or where its rates differ most.

    Raises:
        EmptySample: If there are no scores, or fewer than ten reference patients of a class.

    Source:
        Lipton, Wang & Smola 2018, arXiv:1802.03916 (black box shift estimation); with two classes it is Rogan &
        Gladen 1978, doi:10.1093/oxfordjournals.aje.a112510.
    """
    n = len(scores), *_class_sizes(scores, reference_y)
    is_called = reference_scores >= threshold
    samples = scores >= threshold, is_called[reference_y == 1], is_called[reference_y == 0]
    calls = _Calls(*(np.asarray(sample.mean()) for sample in samples))
    condition = _condition(calls, n[1] / (n[1] + n[2]))
    value = float(calls.prevalence())
    grid = np.linspace(0, 1, N_STEPS)
    inside = grid[_misfit(calls, grid, n) <= Z_95]
    low, high = (float(inside[0]), float(inside[-1])) if inside.size else (value, value)
    if condition < LEAST_CONDITION:
        low, high = 0.0, 1.0
    return CalledPrevalence(
        value=value,
        low=min(low, value),
        high=max(high, value),
        condition=condition,
        p_fit=math.erfc(float(_misfit(calls, np.asarray(value), n)) / math.sqrt(2)),
        n=n[0],
        n_reference=n[1] + n[2],
    )


def two_opinions(
    scores: Reals, reference_scores: Reals, reference_y: Reals, *, threshold: float, assumed: float, seed: int = 0
) -> TwoOpinions:
    """Estimate prevalence by scores and by calls, and say whether they agree.

    The standard error of the difference is found by resampling patients of either side, within the reference's
    classes; both estimates are made on the same resamples, as they share their errors.

    Args:
        scores: Of the site's period, one per patient.
        reference_scores: Of the labelled reference, in the same unit.
        reference_y: 1 for its positives, 0 for its negatives.
        threshold: Positive is called from here on.
        assumed: Prevalence to test against, in (0, 1).
        seed: Of simulation and resampling.

    Raises:
        EmptySample: As `estimate_prevalence`.
    """
    by_scores = estimate_prevalence(scores, reference_scores, reference_y, assumed=assumed, seed=seed)
    by_calls = estimate_by_calls(scores, reference_scores, reference_y, threshold=threshold)
    known = (scores, reference_scores[reference_y == 1], reference_scores[reference_y == 0])
    se = float(_differences(known, score_edges(reference_scores, reference_y), threshold, seed).std())
    value = by_calls.value - by_scores.value
    p_agree = math.erfc(abs(value) / (se * math.sqrt(2))) if se > 0 else float(value == 0)
    return TwoOpinions(
        by_scores=by_scores,
        by_calls=by_calls,
        difference=Estimate(value, value - Z_95 * se, value + Z_95 * se),
        p_agree=p_agree,
    )


def _class_sizes(scores: Reals, reference_y: Reals) -> tuple[int, int]:
    sizes = int(np.sum(reference_y == 1)), int(np.sum(reference_y == 0))
    if min(sizes) < MIN_CLASS_PATIENTS:
        raise EmptySample("labelled reference patients of each class", MIN_CLASS_PATIENTS, min(sizes))
    if not scores.size:
        raise EmptySample("scores of the period")
    return sizes


def _condition(calls: _Calls, share: float) -> float:
    """Least singular value of P(call, class) at the reference."""
    called = np.array([share * calls.positive, (1 - share) * calls.negative])
    table = np.stack([called, np.array([share, 1 - share]) - called])
    return float(np.linalg.svd(table, compute_uv=False)[-1])


def _misfit(calls: _Calls, prevalence: Reals, n: tuple[int, int, int]) -> Reals:
    """Distance of the share of calls from what each prevalence gives, in standard errors of it."""
    expected = prevalence * calls.positive + (1 - prevalence) * calls.negative
    variance = _binomial(expected, n[0])
    variance = variance + prevalence**2 * _binomial(calls.positive, n[1])
    variance = variance + (1 - prevalence) ** 2 * _binomial(calls.negative, n[2])
    return np.asarray(np.abs(calls.site - expected) / np.sqrt(variance), dtype=np.float64)


def _binomial(share: Reals, n: int) -> Reals:
    # a rate of 0 or 1 in few patients is not known without error: half a patient of each kind is added
    smoothed = (share * n + 0.5) / (n + 1)
    return np.asarray(smoothed * (1 - smoothed) / n, dtype=np.float64)


def _differences(samples: tuple[Reals, ...], edges: Reals, threshold: float, seed: int) -> Reals:
    """By calls less by scores, (resamples,)."""
    rng = np.random.default_rng(seed)
    counts, called = [], []
    for sample in samples:
        # cell 2 b + 1 holds those of bin b that are called positive
        cell = 2 * np.searchsorted(edges, sample) + (sample >= threshold)
        share = np.bincount(cell, minlength=2 * (len(edges) + 1)) / len(sample)
        drawn = rng.multinomial(len(sample), share, size=N_RESAMPLES).astype(np.float64)
        counts.append(drawn[:, ::2] + drawn[:, 1::2])
        called.append(drawn[:, 1::2].sum(axis=1) / len(sample))
    return np.asarray(_Calls(*called).prevalence() - fit_mixture(Counts(*counts)).prevalence, dtype=np.float64)
