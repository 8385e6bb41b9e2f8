"""How often a score is right: the share of positives per bin of scores, among the labelled reference patients.

Bins and no fitted curve: held against a Platt curve, unchanged sites are called changed in 15 % of tests (300 labels),
as the curve's own misfit is found; held against bins, in 3 to 7 %.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals

N_BINS = 8
"""Equal-frequency bins. More find less and promise more: with 15 bins, 300 reference patients and 30 positives the
calibration bets raise a false alarm in 11 % of streams where 5 % are promised; with 8 in 4.7 % (1,000 streams)."""
MIN_CLASS_PATIENTS = 30
"""Reference patients of either class; with 6 positives false alarms rise to 16 %."""


MOST_BINS, PATIENTS_PER_BIN = 20, 30
"""For a test that pays for the error of every bin by itself: one bin for so many patients of the rarer class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Reference patients per bin of scores, lowest scores first."""

    edges: Reals
    """(bins - 1,), increasing, in the unit of the scores; a score on an edge belongs to the bin below."""
    n_positive: Reals
    """(bins,)"""
    n: Reals
    """(bins,)"""

    @property
    def prevalence(self) -> float:
        """Share of positives in the reference, (0, 1)."""
        return float(self.n_positive.sum() / self.n.sum())

    def bins(self, scores: Reals) -> npt.NDArray[np.intp]:
        """The bin of each score."""
        return np.searchsorted(self.edges, scores)

    def counts_at(self, prevalence: float) -> tuple[Reals, Reals]:
        """What the reference would have counted per bin at another prevalence: positives and patients, not whole.

        Bayes' rule moves all odds by one factor, whatever the scores are. So many patients that the share is as
        uncertain as the rule makes it. Half a patient of each class is added first (Jeffreys).

        Source:
            Elkan 2001, IJCAI, theorem 2 (a change of base rate on posterior odds).
        """
        share = (self.n_positive + 0.5) / (self.n + 1)
        ratio = prevalence / (1 - prevalence) * (1 - self.prevalence) / self.prevalence
        moved = share * ratio / (share * ratio + 1 - share)
        n = (self.n + 1) * share * (1 - share) / (moved * (1 - moved))
        return moved * n, n


def fine_bins(reference_y: Reals) -> int:
    """As many bins as a labelled reference carries, 8 to 20."""
    rarer = int(min(np.sum(reference_y == 1), np.sum(reference_y == 0)))
    return max(N_BINS, min(MOST_BINS, rarer // PATIENTS_PER_BIN))


def reliability_of(reference_scores: Reals, reference_y: Reals, *, n_bins: int = N_BINS) -> Reliability:
    """Count the labelled reference patients per score bin.

    Args:
        reference_scores: One per patient, in any monotone unit.
        reference_y: 1 for positives, 0 for negatives.
        n_bins: At most so many.

    Raises:
        EmptySample: If either class has fewer than `MIN_CLASS_PATIENTS`, or repeated scores leave fewer than two bins.
    """
    n_class = int(min(np.sum(reference_y == 1), np.sum(reference_y == 0)))
    if n_class < MIN_CLASS_PATIENTS:
        raise EmptySample("labelled reference patients of each class", MIN_CLASS_PATIENTS, n_class)
    edges = np.unique(np.quantile(reference_scores, np.arange(1, n_bins) / n_bins, method="inverted_cdf"))
    edges = edges[edges < reference_scores.max()]
    if not edges.size:
        raise EmptySample("bins of distinct reference scores", 2, 1)
    place = np.searchsorted(edges, reference_scores)
    n_bins = len(edges) + 1
    return Reliability(
        edges=np.asarray(edges, dtype=np.float64),
        n_positive=np.bincount(place, weights=reference_y, minlength=n_bins).astype(np.float64),
        n=np.bincount(place, minlength=n_bins).astype(np.float64),
    )
