"""Does another recipe bring a site's scans closer to the reference, and does it do harm?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from platform_core.learn.data import source_recipe
from platform_core.learn.registry import find
from platform_core.manifest.serving import Serving
from platform_core.manifest.stages import series_rows
from platform_core.manifest.workspace import Workspace
from platform_core.shift.adapted import trained_version
from platform_core.shift.reweighted import weighted_ks
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.samples import reference_samples
from platform_core.trial.first_features import Matrix, columns_of, features_of, first_of_each_patient
from platform_core.trial.paired import pair
from platform_core.trial.steps import laid_about, spelt

MIN_PATIENTS = 20
"""Patients of either side who must have a feature for its distance to mean anything."""
N_RESAMPLES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReceipt:
    """One feature's Kolmogorov-Smirnov distance to the reference, [0, 1], 0 if the samples agree."""

    feature: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the change of recipe did to the same scans."""

    site: str
    target: str
    recipe_before: str
    recipe_after: str
    n_patients: int
    n_reference: int
    distance_before: float | None
    """Mean over features; None if no feature can be compared."""
    distance_after: float | None
    reduction: Estimate | None
    """eta = 1 - after / before: 1 if the whole distance is gone, 0 if none of it, below 0 if it grew."""
    gain: Estimate | None
    """Log-loss before less after on labelled evaluation patients, nats per scan; None without any."""
    features: tuple[FeatureReceipt, ...]

    @property
    def helps(self) -> bool:
        """Risk is not higher beyond chance, and either it or the distance is lower beyond chance."""
        if self.gain is not None and self.gain.high < 0:
            return False
        is_nearer = self.reduction is not None and self.reduction.low > 0
        return is_nearer or (self.gain is not None and self.gain.low > 0)

    @property
    def because(self) -> str:
        """One sentence with the numbers."""
        distance = "no feature can be compared"
        if self.reduction is not None:
            distance = f"the distance to the reference falls by {spelt(self.reduction)} of itself"
        risk = "no label says what that means for risk"
        if self.gain is not None:
            risk = f"log-loss falls by {spelt(self.gain)} nats per scan"
        return f"{distance}; {risk}"

    def to_json(self) -> dict[str, Any]:
        """JSON-able, as decisions record it."""
        return {**asdict(self), "helps": self.helps, "because": self.because}


def harmonization_receipt(
    workspace: Workspace, site: str, target: str, *, before: Serving, after: Serving, keys: Sequence[str]
) -> Receipt:
    """Compare the same scans by two recipes with the reference, feature by feature, and by their risk.

    Args:
        workspace: Where features, predictions and labels lie.
        site: The site.
        target: The task.
        before: What the site runs.
        after: The same with another recipe, by which the series were harmonized, measured and predicted.
        keys: The series of one stratum and period; of each patient the first one counts.

    Source:
        The reduction is eta of a divergence D: 1 - D_after / D_before, here of the mean distance.
    """
    chosen = first_of_each_patient(series_rows(workspace, site, keys))
    scans = [row["series_key"] for row in chosen]
    source = workspace.target(target).source_site
    reference = features_of(
        workspace, source, source_recipe(workspace, target), _reference_keys(workspace, target, before, chosen)
    )
    old, new = (features_of(workspace, site, serving.recipe, scans) for serving in (before, after))
    names = _comparable(reference, old, new)
    ref, was, now = (columns_of(matrix, names) for matrix in (reference, old, new))
    distances = (_distances(ref, was), _distances(ref, now))
    pairs = pair(workspace, before, after, keys=keys)
    return Receipt(
        site=site,
        target=target,
        recipe_before=before.recipe,
        recipe_after=after.recipe,
        n_patients=len(scans),
        n_reference=len(ref),
        distance_before=float(distances[0].mean()) if names else None,
        distance_after=float(distances[1].mean()) if names else None,
        reduction=_reduction(ref, was, now) if names else None,
        gain=pairs.gain() if pairs.n_patients >= MIN_PATIENTS else None,
        features=tuple(
            FeatureReceipt(feature=name, before=float(b), after=float(a))
            for name, b, a in zip(names, *distances, strict=True)
        ),
    )


def _reference_keys(
    workspace: Workspace, target: str, serving: Serving, scans: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    """The first scan of every patient of the reference in the stratum of the scans; strata are never mixed."""
    settings = workspace.target(target)
    made_at = find(workspace, trained_version(workspace, serving.model)).created_at
    samples = reference_samples(
        workspace, settings.source_site, settings.modality, observed_before=None, ingested_by=made_at
    )
    strata = {row["stratum"] for row in scans}
    return tuple(key for stratum in sorted(strata & samples.keys()) for key in samples[stratum].keys)


def _comparable(*matrices: Matrix) -> list[str]:
    """Features that enough patients of every sample have."""
    shared = sorted(set.intersection(*(set(matrix.names) for matrix in matrices)))
    return [
        name
        for name in shared
        if all(np.isfinite(columns_of(matrix, [name])).sum() >= MIN_PATIENTS for matrix in matrices)
    ]


def _reduction(reference: Reals, before: Reals, after: Reals) -> Estimate:
    """Eta with its interval: patients of both sides are resampled, the site's in both recipes alike."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(N_RESAMPLES):
        ours = rng.integers(len(before), size=len(before))
        theirs = reference[rng.integers(len(reference), size=len(reference))]
        drawn.append(_eta(theirs, before[ours], after[ours]))
    return laid_about(_eta(reference, before, after), drawn)


def _eta(reference: Reals, before: Reals, after: Reals) -> float:
    had, has = _distances(reference, before).mean(), _distances(reference, after).mean()
    return float(1 - has / had) if had > 0 else 0.0


def _distances(reference: Reals, current: Reals) -> Reals:
    """Kolmogorov-Smirnov distance of every column."""
    even = np.ones(len(reference))
    return np.array([weighted_ks(a, even, b) for a, b in zip(reference.T, current.T, strict=True)], dtype=np.float64)
