"""From samples in memory to evidence: every comparison and estimate is made once. Nothing is read or written here.

What a finding rests on is a pure function of `Material`, so that an experiment calls what the product calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from platform_core.errors import EmptySample
from platform_core.manifest.serving import Calibration
from platform_core.shift.bound import UNKNOWN, Bound, divergence, joint_risk, labelled_risk
from platform_core.shift.compare import FeatureShift, compare, long_table
from platform_core.shift.labels.bbse import TwoOpinions, two_opinions
from platform_core.shift.mmd import MmdTest, mmd_test
from platform_core.shift.risk import Reals
from platform_core.shift.samples import HeaderChange, Patients, header_changes
from platform_core.shift.scores import ScoredScans
from platform_core.shift.transported import Transported

Bank = Literal["acquisition", "content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that one finding is made from: one stratum and period of a site, and what it is held against."""

    current: Patients
    """The period, native features."""
    accepted: Patients
    """The state that the site was accepted in, native features; the period itself where `is_accepted`."""
    reference: Patients | None = None
    """The source domain's patients of the same stratum, native features; None before there is a model."""
    harmonized: Patients | None = None
    """The period, features by the recipe that the site runs."""
    reference_harmonized: Patients | None = None
    """The source domain's, by the recipe that it runs."""
    is_accepted: bool = False
    """The period is the accepted state itself: the site is new, or was just adapted to it."""
    is_reference: bool = False
    """The period is what the model was trained on."""
    n_strata: int = 1
    """Strata of the period that are tested and share alpha."""
    scores: ScoredScans | None = None
    """The period's patients under what the site runs."""
    held_out: ScoredScans | None = None
    """Those of them whom the model has not learned from."""
    reference_scores: ScoredScans | None = None
    """The source domain's held-out patients under the same model."""
    calibration: Calibration | None = None
    """What the site runs; its prevalence is what is tested against."""
    reference_calibration: Calibration | None = None
    transported: Transported | None = None
    """The labelled reference as the site's scanner would have shown it."""
    banks: Mapping[str, Bank]
    """The bank of each feature; one that is not in it counts as acquisition."""
    protocol: frozenset[str] = frozenset()
    """Features that a person sets at the scanner: they stand still until somebody changes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured on one stratum and period of a site."""

    n: int
    """Patients of the period."""
    n_accepted: int
    """Patients of the accepted state."""
    n_strata: int = 1
    """Strata of the period that are tested and share alpha."""
    is_accepted: bool
    """The period is the accepted state itself: the site is new, or was just adapted to it."""
    is_reference: bool = False
    """The period is what the model was trained on."""
    banks: Mapping[str, Bank]
    """The bank of each feature; one that is not in it counts as acquisition."""
    protocol: frozenset[str] = frozenset()
    """Features that a person sets at the scanner: they stand still until somebody changes them."""
    since_accepted: tuple[FeatureShift, ...] = ()
    """Native features against the accepted state: has the site changed?"""
    native: tuple[FeatureShift, ...] = ()
    """Native features against the source domain: how far did it come?"""
    from_reference: tuple[FeatureShift, ...] = ()
    """Harmonized features against the source domain: how far is it still?"""
    headers: tuple[HeaderChange, ...] = ()
    score: FeatureShift | None = None
    """Scores against those of the reference's held-out patients; None before there is a model."""
    embedding: MmdTest | None = None
    """Embeddings against those of the reference's held-out patients."""
    prevalence: TwoOpinions | None = None
    bound: Bound = UNKNOWN


def evidence_of(material: Material) -> Evidence:
    """Run every comparison and estimate that the material allows."""
    is_accepted = material.is_accepted
    base = material.reference if is_accepted else material.accepted
    return Evidence(
        n=len(material.current),
        n_accepted=len(material.accepted),
        n_strata=material.n_strata,
        is_accepted=is_accepted,
        is_reference=material.is_reference,
        banks=material.banks,
        protocol=material.protocol,
        since_accepted=() if is_accepted else _compared(material.accepted, material.current),
        native=_compared(material.reference, material.current),
        from_reference=_compared(material.reference_harmonized, material.harmonized),
        headers=() if base is None else tuple(header_changes(base.fields, material.current.fields)),
        score=_score(material),
        embedding=_embedding(material),
        prevalence=_prevalence(material),
        bound=bound_of(material),
    )


def bound_of(material: Material) -> Bound:
    """The terms of the bound, each where the data can tell."""
    site, source = material.scores, material.reference_scores
    if site is None or source is None or material.calibration is None or material.reference_calibration is None:
        return UNKNOWN
    held_out = material.held_out
    return Bound(
        source_risk=labelled_risk(source, material.reference_calibration),
        divergence=divergence(source.embedding, site.embedding),
        joint_risk=joint_risk(source, site),
        target_risk=None if held_out is None else labelled_risk(held_out, material.calibration),
    )


def _compared(before: Patients | None, after: Patients | None) -> tuple[FeatureShift, ...]:
    if before is None or after is None:
        return ()
    return compare(*(long_table(_known(side), side.features) for side in (before, after)))


def _known(side: Patients) -> dict[str, Reals]:
    """Each feature's values, without those that could not be told."""
    columns = zip(side.features, side.values.T, strict=True)
    return {name: column[np.isfinite(column)] for name, column in columns}


def _score(material: Material) -> FeatureShift | None:
    there, here = material.reference_scores, material.scores
    if there is None or here is None:
        return None
    shifts = compare(*(long_table({"score": scans.score}, ["score"]) for scans in (there, here)))
    return shifts[0] if shifts else None


def _embedding(material: Material) -> MmdTest | None:
    there, here = material.reference_scores, material.scores
    if there is None or here is None or not there.embedding.shape[1]:
        return None
    if min(len(there), len(here)) < 2 or there.embedding.shape[1] != here.embedding.shape[1]:
        return None
    return mmd_test(there.embedding, here.embedding)


def _prevalence(material: Material) -> TwoOpinions | None:
    """The estimates; None where scores or reference labels are too few for one."""
    site, source, calibration = material.scores, material.reference_scores, material.calibration
    if site is None or source is None or calibration is None:
        return None
    known = source.where(source.is_labelled)
    try:
        return two_opinions(
            site.score,
            known.score,
            known.y,
            threshold=threshold_score(calibration),
            assumed=calibration.prevalence,
        )
    except EmptySample:
        return None


def threshold_score(calibration: Calibration) -> float:
    """The score from which a scan is called positive."""
    share = calibration.threshold
    return float(np.log(share) - np.log1p(-share)) - calibration.logit_offset
