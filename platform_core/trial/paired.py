"""One set of held-out scans as two servings see it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from platform_core.manifest.serving import Serving
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import Estimate, Reals, log_losses, patient_bootstrap
from platform_core.shift.scores import score_rows


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """One row per scan: its label and two calibrated probabilities of the positive class."""

    patients: tuple[str, ...]
    y: Reals
    before: Reals
    after: Reals

    @property
    def n_patients(self) -> int:
        """Patients, not scans."""
        return len(set(self.patients))

    @property
    def fewest_of_a_class(self) -> int:
        """Patients of the rarer class."""
        keys = np.asarray(self.patients)
        return min(len(set(keys[self.y == value])) for value in (0, 1))

    def gain(self) -> Estimate:
        """Log-loss before less log-loss after, nats per scan, with its patient-bootstrap interval; above 0 is better.

        Raises:
            EmptySample: If there is no pair.
        """
        saved = log_losses(self.y, self.before) - log_losses(self.y, self.after)
        return patient_bootstrap(lambda rows: float(saved[rows].mean()), self.patients)

    def brier_gain(self) -> Estimate:
        """Brier score before less after, with its interval; above 0 is better.

        Raises:
            EmptySample: If there is no pair.
        """
        saved = (self.before - self.y) ** 2 - (self.after - self.y) ** 2
        return patient_bootstrap(lambda rows: float(saved[rows].mean()), self.patients)


def pair(
    workspace: Workspace,
    before: Serving,
    after: Serving,
    *,
    keys: Sequence[str] | None = None,
    known_only: bool = False,
    without: frozenset[str] = frozenset(),
) -> Pairs:
    """Labelled scans of evaluation patients that both servings of one site have predicted.

    Args:
        workspace: Where predictions and labels lie.
        before: One serving.
        after: The other, of the same site and target.
        keys: Only these series; None for all.
        known_only: Leave out scans whose patient is not known: two of them may be one person.
        without: Patients to leave out.
    """
    both = [
        score_rows(workspace, s.site, s.target, s.model, s.recipe, keys=keys, part="evaluation")
        for s in (before, after)
    ]
    first, second = (scans.where(scans.is_labelled) for scans in both)
    shared, rows, other_rows = np.intersect1d(first.series_key, second.series_key, return_indices=True)
    patients = first.patient_key[rows].tolist()
    known = first.patient_known[rows].tolist()
    kept = np.array(
        [key not in without and (is_known or not known_only) for key, is_known in zip(patients, known, strict=True)],
        dtype=bool,
    )
    assert len(kept) == len(shared)
    return Pairs(
        patients=tuple(key for key, is_kept in zip(patients, kept, strict=True) if is_kept),
        y=first.y[rows][kept],
        before=before.calibration.probability(first.score[rows][kept]),
        after=after.calibration.probability(second.score[other_rows][kept]),
    )


def patients_of(workspace: Workspace, series: set[tuple[str, str]]) -> frozenset[str]:
    """Patients of the named (site, series_key)."""
    found: set[str] = set()
    for site in sorted({site for site, _ in series}):
        rows = current_series(workspace, site).select(["series_key", "patient_key"]).to_pylist()
        found |= {str(row["patient_key"]) for row in rows if (site, row["series_key"]) in series}
    return frozenset(found)
