"""A hospital in memory: features and scores with a planted truth, as the material of one finding."""

from dataclasses import dataclass, replace

import numpy as np

from platform_core.manifest.serving import Calibration
from platform_core.shift.material import Bank, Material
from platform_core.shift.risk import Reals
from platform_core.shift.samples import Patients
from platform_core.shift.scores import ScoredScans
from platform_core.shift.transported import Transported

ACQUISITION = tuple(f"a{i}_hu" for i in range(6))
CONTENT = tuple(f"c{i}_hu" for i in range(4))
BANKS: dict[str, Bank] = {
    **dict.fromkeys(ACQUISITION, "acquisition"),
    **dict.fromkeys(CONTENT, "content"),
}
PREVALENCE = 0.3


@dataclass(frozen=True, kw_only=True)
class Site:
    """What one sample of patients is like; the defaults are the reference's."""

    n: int = 500
    prevalence: float = PREVALENCE
    noise: float = 0.0
    """What the scanner adds: to the first feature in its SD, and to the scores."""
    older: float = 0.0
    """What other patients are like: moves the first feature of content, and the scores of the healthy."""
    sick_look: float = 0.0
    """By how much the last acquisition feature is higher in positives, in its SD."""
    dropped: float = 0.0
    """Share of positives who are called negative."""
    n_labels: int = 100
    scanner: str = "S1"


def sample(site: Site, rng: np.random.Generator) -> tuple[Patients, ScoredScans]:
    """Patients and their scores; the first `n_labels` of them, who come in no order, are labelled."""
    y = (rng.random(site.n) < site.prevalence).astype(float)
    values = rng.normal(size=(site.n, len(ACQUISITION) + len(CONTENT)))
    values[:, 0] += site.noise
    values[:, len(ACQUISITION) - 1] += site.sick_look * y
    values[:, len(ACQUISITION)] += site.older + 0.8 * y
    score = 1.812 * (y - 0.5) + rng.normal(size=site.n) + site.older * (y == 0)
    score = score + site.noise * rng.normal(size=site.n) - site.noise / 2
    told = np.where(rng.random(site.n) < site.dropped, 0.0, y)
    told[site.n_labels :] = np.nan
    fields = {"scanner_model": (site.scanner,) * site.n, "kernel": ("smooth",) * site.n}
    patients = Patients(features=ACQUISITION + CONTENT, values=values, y=told, fields=fields)
    return patients, scored(score, told)


def scored(score: Reals, y: Reals) -> ScoredScans:
    keys = np.array([f"k{i:05d}" for i in range(len(score))])
    return ScoredScans(keys, keys, np.ones(len(keys), dtype=bool), y, score, np.empty((len(keys), 0)))


def material(site: Site, rng: np.random.Generator, *, n_reference: int = 2000, sick_look: float = 0.0) -> Material:
    """A later period of a site that was accepted when it was like the reference."""
    like = Site(n=n_reference, n_labels=n_reference, sick_look=sick_look)
    before, reference = sample(like, rng)
    current, scores = sample(replace(site, sick_look=sick_look), rng)
    calibration = Calibration(
        logit_offset=float(np.log(PREVALENCE / (1 - PREVALENCE))), prevalence=PREVALENCE, threshold=0.5
    )
    return Material(
        current=current,
        accepted=before,
        reference=before,
        scores=scores,
        held_out=scores,
        accepted_scores=reference,
        reference_scores=reference,
        calibration=calibration,
        reference_calibration=calibration,
        banks=BANKS,
    )


def shown(site: Site, rng: np.random.Generator, *, n: int = 1000, worst: float = 0.1) -> Transported:
    """The reference as the site's scanner shows it."""
    there, scores = sample(Site(n=n, n_labels=n, noise=site.noise), rng)
    return Transported(
        transport="t",
        scores=scores.score,
        y=scores.y,
        acquisition=dict(zip(there.features, there.values.T, strict=True)),
        worst=worst,
    )
