"""How wrong a model is, with intervals that resample patients.

`y` is 1 for the positive class and 0 for the negative; `p` is the calibrated probability
of the positive class. Every function takes one row per scan.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample

Reals = npt.NDArray[np.float64]
Wholes = npt.NDArray[np.intp]
Statistic = Callable[[Wholes], float]
"""Row indices (repeats allowed) to one number; NaN where the rows do not define it."""

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one sure mistake costs 13.8 nats, not infinity."""


class Interval(Protocol):
    """Whatever holds an estimate among other facts."""

    @property
    def value(self) -> float:
        """What was estimated."""

    @property
    def low(self) -> float:
        """Lower end of its 95 % interval."""

    @property
    def high(self) -> float:
        """Upper end."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Interval) -> Self:
        """The estimate alone."""
        return cls(found.value, found.low, found.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskReport:
    """What one model costs on one set of scans; None where the set cannot tell."""

    log_loss: Estimate | None
    """Nats per scan, lower is better."""
    brier: Estimate | None
    """[0, 1], lower is better."""
    balanced_error: Estimate | None
    """[0, 1], mean of the two classes' error rates, lower is better."""
    auroc: Estimate | None
    """[0, 1], higher is better, 0.5 is chance."""
    n_scans: int
    n_patients: int
    n_positive: int
    overlap_loss: Estimate | None = None
    """Of a segmentation: 1 - Dice, mean over scans, [0, 1], lower is better; all other metrics are None then."""


def columns_of(name: str, estimate: Estimate | None, low: str | None = None, high: str | None = None) -> dict[str, Any]:
    """An estimate as three columns of a row, by default `name`, `name_low` and `name_high`; nulls if there is none."""
    numbers = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    return dict(zip((name, low or f"{name}_low", high or f"{name}_high"), numbers, strict=True))


def log_losses(y: Reals, p: Reals) -> Reals:
    """Nats lost on each scan."""
    sure = np.clip(p, CLIP, 1 - CLIP)
    return np.asarray(-np.where(y == 1, np.log(sure), np.log1p(-sure)), dtype=np.float64)


def log_loss(y: Reals, p: Reals) -> float:
    """Mean nats lost per scan; lower is better."""
    return float(log_losses(y, p).mean())


def brier(y: Reals, p: Reals) -> float:
    """Mean squared distance of probability and truth, [0, 1]; lower is better."""
    return float(((p - y) ** 2).mean())


def balanced_error(y: Reals, p: Reals, threshold: float) -> float:
    """Mean of the two classes' error rates, [0, 1]; lower is better; NaN with one class only.

    A scan is called positive from `threshold` on.
    """
    is_positive = y == 1
    if is_positive.all() or not is_positive.any():
        return float("nan")
    called = p >= threshold
    return float(0.5 * ((~called[is_positive]).mean() + called[~is_positive].mean()))


def auroc(y: Reals, p: Reals) -> float:
    """Chance that a positive outranks a negative, ties counted half, [0, 1]; NaN with one class only.

    Source: Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747 (area as Mann-Whitney statistic).
    """
    is_positive = y == 1
    n_positive = int(is_positive.sum())
    n_negative = len(y) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    wins = _mid_ranks(p)[is_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def patient_bootstrap(statistic: Statistic, patients: Sequence[str], *, n: int = 1000, seed: int = 0) -> Estimate:
    """The statistic on all rows, and the 2.5th and 97.5th percentile of it over resampled patients.

    All scans of a drawn patient come along, so that several scans of one patient do not pass
    for several patients. Resamples in which the statistic is NaN are left out.

    Raises:
        EmptySample: If there are no rows.
    """
    if not len(patients):
        raise EmptySample("patients to resample")
    value = statistic(np.arange(len(patients)))
    drawn = [statistic(rows) for rows in _resamples(patients, n, seed)]
    known = np.asarray(drawn)[np.isfinite(drawn)]
    if not known.size:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def measure_risk(
    y: Reals, p: Reals, patients: Sequence[str], *, threshold: float, min_class_patients: int
) -> RiskReport:
    """Every metric with its patient-bootstrap interval.

    Metrics that condition on the class (AUROC, balanced error) are None with fewer than
    `min_class_patients` patients in either class; all are None without rows.
    """
    keys = np.asarray(patients)
    n_class = [len(np.unique(keys[y == value])) for value in (0, 1)]
    has_classes = min(n_class) >= min_class_patients

    def interval(metric: Callable[[Reals, Reals], float], *, evaluable: bool) -> Estimate | None:
        return patient_bootstrap(lambda rows: metric(y[rows], p[rows]), patients) if evaluable else None

    return RiskReport(
        log_loss=interval(log_loss, evaluable=len(y) > 0),
        brier=interval(brier, evaluable=len(y) > 0),
        balanced_error=interval(partial(balanced_error, threshold=threshold), evaluable=has_classes),
        auroc=interval(auroc, evaluable=has_classes),
        n_scans=len(y),
        n_patients=len(np.unique(keys)),
        n_positive=int((y == 1).sum()),
    )


def _resamples(patients: Sequence[str], n: int, seed: int) -> list[Wholes]:
    """Row indices of `n` resamples: as many patients as there are, drawn with replacement, with all their rows."""
    _, patient_of_row = np.unique(np.asarray(patients), return_inverse=True)
    rows = np.argsort(patient_of_row, kind="stable")
    n_rows = np.bincount(patient_of_row)
    first = np.cumsum(n_rows) - n_rows
    drawn = np.random.default_rng(seed).integers(len(n_rows), size=(n, len(n_rows)))
    if len(rows) == len(n_rows):
        return list(rows[drawn])
    return [rows[_runs(first[draw], n_rows[draw])] for draw in drawn]


def _runs(starts: Wholes, lengths: Wholes) -> Wholes:
    """The numbers start, start + 1, ... of every run, one run after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)


def _mid_ranks(values: Reals) -> Reals:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, n_equal = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(n_equal)
    return np.asarray((last - (n_equal - 1) / 2)[place], dtype=np.float64)
