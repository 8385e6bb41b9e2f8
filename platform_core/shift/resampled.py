"""Metrics of a sample and of a thousand resamples of its patients, all at once: one row of weights per resample.

`y` is 1 for the positive class and 0 for the negative; `p` is the calibrated probability of the positive class;
weights are (resamples, scans). A metric is NaN where a resample does not define it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.shift.risk import Estimate, Reals

Metric = Callable[[Reals], Reals]
"""Weights (resamples, scans) to one number per resample."""
N_RESAMPLES = 1000
AT_ONCE = 2_000_000
"""Weights in memory at a time: 16 MB."""
N_BINS = 15
"""Of the calibration error, as most publications have it (Guo et al. 2017, arXiv:1706.04599)."""
SCANS_PER_BIN = 10
"""Below which a bin's share of positives says nothing; fewer scans make fewer bins."""


def resampled(
    metric: Metric,
    patients: Sequence[str],
    *,
    weight: Reals | None = None,
    n: int = N_RESAMPLES,
    seed: int = 0,
    of_resamples: Metric | None = None,
) -> Estimate:
    """A metric of the sample, and the 2.5th and 97.5th percentile of it over resampled patients.

    All scans of a drawn patient come along. Resamples in which the metric is NaN are left out.

    Args:
        metric: What is measured.
        patients: Of every scan.
        weight: Of every scan, 1 / the probability with which its label was asked for; None: all 1.
        n: Resamples.
        seed: Equal seeds draw equal patients, so that two metrics of the same patients can be compared.
        of_resamples: What is measured on resamples, if not the same.

    Raises:
        EmptySample: If there are no rows.
    """
    if not len(patients):
        raise EmptySample("patients to resample")
    names, patient_of_row = np.unique(np.asarray(patients), return_inverse=True)
    base = np.ones(len(patients)) if weight is None else np.asarray(weight, dtype=np.float64)
    value = float(metric(base[None])[0])
    rng, left, drawn = np.random.default_rng(seed), n, []
    while left:
        k = min(left, max(AT_ONCE // len(patients), 1))
        counts = _counts(rng.integers(len(names), size=(k, len(names))), len(names))
        drawn.append((of_resamples or metric)(counts[:, patient_of_row] * base))
        left -= k
    known = np.concatenate(drawn)
    known = known[np.isfinite(known)]
    if not known.size:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def mean_of(values: Reals, among: npt.NDArray[np.bool_] | None = None) -> Metric:
    """Mean of one value per scan, over the scans of `among` if it is given."""
    chosen = np.ones(len(values)) if among is None else among.astype(np.float64)

    def metric(weights: Reals) -> Reals:
        return _ratio(weights @ (chosen * values), weights @ chosen)

    return metric


def balanced_accuracy_of(y: Reals, called: npt.NDArray[np.bool_]) -> Metric:
    """Mean of sensitivity and specificity, [0, 1], higher is better; NaN with one class only."""
    sensitivity, specificity = mean_of(called.astype(float), y == 1), mean_of((~called).astype(float), y == 0)
    return lambda weights: (sensitivity(weights) + specificity(weights)) / 2


def auroc_of(y: Reals, p: Reals) -> Metric:
    """Chance that a positive outranks a negative, ties counted half, [0, 1], higher is better; NaN with one class only.

    Source: Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747 (area as Mann-Whitney statistic).
    """
    by_value = _by_value(y, p)

    def metric(weights: Reals) -> Reals:
        positive, negative = by_value(weights)
        below = np.cumsum(negative, axis=1) - negative
        wins = (positive * (below + negative / 2)).sum(axis=1)
        return _ratio(wins, positive.sum(axis=1) * negative.sum(axis=1))

    return metric


def sensitivity_of(y: Reals, p: Reals, specificity: float) -> Metric:
    """Sensitivity at the least threshold with at least that specificity, [0, 1], higher is better; no interpolation.

    The threshold is found anew in every resample, as one would that chooses it on such a sample.
    """
    by_value = _by_value(y, p)

    def metric(weights: Reals) -> Reals:
        positive, negative = by_value(weights)
        n_negative = negative.sum(axis=1, keepdims=True)
        below = np.cumsum(negative, axis=1) - negative
        is_specific = below >= specificity * n_negative * (1 - 1e-12)
        found = _ratio((positive * is_specific).sum(axis=1), positive.sum(axis=1))
        return np.where(n_negative[:, 0] > 0, found, np.nan)

    return metric


def calibration_error_of(y: Reals, p: Reals, *, times: int = 1) -> Metric:
    """Root mean square distance of probability and share of positives in bins of equal mass, [0, 1], lower is better.

    The sampling variance of every bin's share is taken off its squared distance: without that, 100 scans of a perfect
    model in 10 bins show an error of 0.10. What is left below 0 counts as 0. Several scans of one patient in a bin
    make it err upward.

    Args:
        y: 0 or 1.
        p: Calibrated probability.
        times: How often the variance is taken off: 2 for resamples, which carry the sample's own error as well.

    Source:
        Broecker 2012, doi:10.1007/s00382-011-1191-1; Kumar, Liang & Ma 2019, arXiv:1909.10155, section 5.
    """
    n_bins = int(np.clip(len(p) // SCANS_PER_BIN, 1, N_BINS))
    edges = np.quantile(p, np.arange(1, n_bins) / n_bins) if len(p) else np.empty(0)
    is_in = (np.searchsorted(edges, p, side="right")[:, None] == np.arange(n_bins)).astype(np.float64)

    def metric(weights: Reals) -> Reals:
        n = weights @ is_in
        share, said = (np.nan_to_num(_ratio(weights @ (is_in * values[:, None]), n)) for values in (y, p))
        variance = share * (1 - share) / np.maximum(n - 1, 1)
        square = (n * ((share - said) ** 2 - times * variance)).sum(axis=1)
        return np.sqrt(np.maximum(_ratio(square, n.sum(axis=1)), 0.0))

    return metric


def _by_value(y: Reals, p: Reals) -> Callable[[Reals], tuple[Reals, Reals]]:
    """Weight of positives and of negatives at every different value of p, in rising order."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=-np.inf) > 0)
    is_positive = (y == 1)[order]

    def sums(weights: Reals) -> tuple[Reals, Reals]:
        ordered = weights[:, order]
        return (
            np.add.reduceat(ordered * is_positive, starts, axis=1),
            np.add.reduceat(ordered * ~is_positive, starts, axis=1),
        )

    return sums


def _counts(draws: npt.NDArray[np.intp], n: int) -> Reals:
    """How often each of n was drawn, per row."""
    rows = np.arange(len(draws))[:, None] * n
    return np.bincount((draws + rows).ravel(), minlength=len(draws) * n).reshape(len(draws), n).astype(np.float64)


def _ratio(above: Reals, below: Reals) -> Reals:
    """Above / below, NaN where there is nothing below."""
    told: Reals = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return told
