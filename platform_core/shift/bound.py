"""The terms of R_T <= R_S + d(S, T) + lambda*, each by itself and with its interval.

They explain; they are not added up, as they have different units, and nothing is decided
on them but target risk.

Source: Ben-David et al. 2010, doi:10.1007/s10994-009-5152-4, theorem 2.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.manifest.serving import Calibration
from platform_core.shift.discriminant import cross_fitted
from platform_core.shift.risk import Estimate, Reals, balanced_error, log_losses, patient_bootstrap
from platform_core.shift.scores import ScoredScans

MIN_PATIENTS = 20
"""Patients of each domain without whom a domain classifier says nothing."""
MIN_RISK_PATIENTS = 10
"""Labelled patients without whom resampling them says nothing."""
MIN_JOINT_LABELS = 300
"""Labels at the site below which the joint risk is noise: its standard error is .04 to .06 at 100 labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The terms; None where the data cannot tell."""

    source_risk: Estimate | None = None
    """Log-loss on the source domain's held-out patients, nats per scan."""
    divergence: Estimate | None = None
    """Proxy A-distance of the embeddings, [0, 2]; 0 if a linear classifier cannot tell the domains apart."""
    joint_risk: Estimate | None = None
    """Sum over both domains of the balanced error of one linear head for both, [0, 2]."""
    target_risk: Estimate | None = None
    """Log-loss on the site's held-out patients, nats per scan."""
    expected_risk: Estimate | None = None
    """What the target risk would be if the reference's labels hold for the site's scores; needs no label of the site.
    An indicator, and never evidence at a gate."""


UNKNOWN = Bound()
"""Before there is a model, every term."""


def labelled_risk(scans: ScoredScans, calibration: Calibration) -> Estimate | None:
    """Log-loss of the calibrated probability on labelled scans, nats per scan; None with fewer than ten patients.

    Scans that were not labelled with one chance for all count by the inverse of theirs.
    """
    known = scans.where(scans.is_labelled)
    if len(np.unique(known.patient_key)) < MIN_RISK_PATIENTS:
        return None
    losses = log_losses(known.y, calibration.probability(known.score))
    weights = known.weight
    return patient_bootstrap(
        lambda rows: float(np.average(losses[rows], weights=weights[rows])), known.patient_key.tolist()
    )


def expected_risk(scores: Reals, y: Reals, calibration: Calibration, prevalence: Estimate) -> Estimate | None:
    """Log-loss of the site's calibration on a labelled reference weighted to the site's prevalence, nats per scan.

    Its interval adds the errors of either class's mean loss and of the prevalence; None with fewer than
    `MIN_RISK_PATIENTS` of a class. It holds as long as positives and negatives score as they do in the reference.

    Args:
        scores: Of the reference, one per patient, as they are or as the site's scanner would have made them.
        y: 1 or 0 for each.
        calibration: Of the site.
        prevalence: Of the site.
    """
    losses = log_losses(y, calibration.probability(scores))
    negative, positive = (losses[y == value] for value in (0, 1))
    if min(len(negative), len(positive)) < MIN_RISK_PATIENTS:
        return None
    share = prevalence.value
    value = float(share * positive.mean() + (1 - share) * negative.mean())
    parts = (
        share * positive.std(ddof=1) / np.sqrt(len(positive)),
        (1 - share) * negative.std(ddof=1) / np.sqrt(len(negative)),
        (positive.mean() - negative.mean()) * (prevalence.high - prevalence.low) / (2 * 1.96),
    )
    half_width = 1.96 * float(np.sqrt(np.sum(np.square(parts))))
    return Estimate(value, max(value - half_width, 0.0), value + half_width)


def divergence(source: Reals, target: Reals) -> Estimate | None:
    """How well a linear classifier tells two sets of embeddings apart: 2 (1 - 2 error), balanced, [0, 2].

    Args:
        source: (patients, dimensions).
        target: (patients, dimensions).

    Returns:
        The cross-fitted distance, its interval resampling patients with the classifiers held
        fixed; None without embeddings or with fewer than `MIN_PATIENTS` in either domain.

    Source:
        Ben-David et al. 2006, Analysis of representations for domain adaptation, NIPS 19, section 5.
    """
    if min(len(source), len(target)) < MIN_PATIENTS or not source.shape[1] or source.shape[1] != target.shape[1]:
        return None
    domain = np.repeat([0.0, 1.0], [len(source), len(target)])
    side = cross_fitted(np.vstack([source, target]), domain)

    def distance(rows: npt.NDArray[np.intp]) -> float:
        return float(np.clip(2 * (1 - 2 * balanced_error(domain[rows], side[rows], 0.0)), 0, 2))

    return patient_bootstrap(distance, [str(i) for i in range(len(domain))])


def joint_risk(source: ScoredScans, target: ScoredScans) -> Estimate | None:
    """The error that one linear head on the embeddings makes on both domains; None below `MIN_JOINT_LABELS`."""
    both = [scans.where(scans.is_labelled) for scans in (source, target)]
    widths = {scans.embedding.shape[1] for scans in both}
    if len(both[1]) < MIN_JOINT_LABELS or len(widths) != 1 or widths == {0}:
        return None
    y = np.concatenate([scans.y for scans in both])
    side = cross_fitted(np.vstack([scans.embedding for scans in both]), y)
    is_target = np.repeat([False, True], [len(scans) for scans in both])
    patients = np.concatenate([scans.patient_key for scans in both]).tolist()

    def error(rows: npt.NDArray[np.intp]) -> float:
        domains = (rows[~is_target[rows]], rows[is_target[rows]])
        return sum(balanced_error(y[domain], side[domain], 0.0) for domain in domains)

    return patient_bootstrap(error, patients)
