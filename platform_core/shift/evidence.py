"""From samples in memory to evidence: every comparison and estimate is made once. Nothing is read or written here.

What a finding rests on is a pure function of `Material`, so that an experiment calls what the product calls.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from platform_core.errors import EmptySample
from platform_core.shift.bound import UNKNOWN, Bound, divergence, expected_risk, joint_risk, labelled_risk
from platform_core.shift.compare import FeatureShift, compare, long_table
from platform_core.shift.estimates import (
    LabelledScores,
    labelled_scores,
    p_told,
    prevalence_at_acceptance,
    prevalence_of,
    prevalence_through_scanner,
    prevalence_told,
)
from platform_core.shift.explanation import Explanation, explain_divergence
from platform_core.shift.labels.bbse import TwoOpinions
from platform_core.shift.labels.labelled_prevalence import LabelledPrevalence
from platform_core.shift.labels.prevalence import P_FIT, PrevalenceEstimate
from platform_core.shift.material import BANKS, Bank, Material
from platform_core.shift.mmd import MmdTest, mmd_test
from platform_core.shift.reweighted import (
    MIN_CLASS_PATIENTS,
    ReweightedDistance,
    class_weights,
    reweighted_distance,
    weighted_ks,
)
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.samples import HeaderChange, Patients, header_changes
from platform_core.shift.statistics import STATISTICS

P_DISPUTED = 0.002
"""Chance of a difference of the two opinions below which they are one dispute: what scores tell comes first, and the
fit test has refused its share of changes of prevalence already."""
WORTH_A_LOOK = 0.05
"""Chance, all features together, above which nobody asks what else could account for a difference."""
FAITHFUL = 0.3
"""Largest residual with which the reference counts as seen through the site's scanner; proposed, see `Transported`."""


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
    on_known_scanners: float = 0.0
    """Share of patients on a scanner model that those compared with were on, [0, 1]."""
    score: FeatureShift | None = None
    """Scores against those of the reference's held-out patients; None before there is a model."""
    embedding: MmdTest | None = None
    """Embeddings against those of the reference's held-out patients."""
    prevalence: TwoOpinions | None = None
    """From scores, and from calls beside it."""
    at_acceptance: PrevalenceEstimate | None = None
    """From the accepted state's scores; None at onboarding, and where it has none under what the site runs now."""
    no_prevalence: str = ""
    """Why there is no estimate; empty before there is a model."""
    labelled_prevalence: LabelledPrevalence | None = None
    """From labels, as if those asked for were drawn with their stated chances, or evenly."""
    p_labelled: float | None = None
    """Chance of ever seeing labels this unlike the assumed prevalence, at whatever look."""
    through_scanner: PrevalenceEstimate | None = None
    """From scores, against the labelled reference as the site's scanner shows it."""
    worst: float | None = None
    """Largest residual of that scanner's imitation."""
    reweighted: Mapping[Bank, ReweightedDistance] = field(default_factory=dict)
    """Features of a bank against those compared with, weighted to the estimated prevalence. Without the bank where
    nothing of it moved, the prevalence did not change, or too few of those compared with have labels."""
    by_prevalence: Mapping[str, float] = field(default_factory=dict)
    """Distance that the estimated change of prevalence makes in a feature, by the classes of the reference."""
    labels: LabelledScores | None = None
    explanation: Explanation | None = None
    """What accounts for the difference that counts; None if there is nothing to compare with."""
    bound: Bound = UNKNOWN

    @property
    def fits(self) -> bool | None:
        """Whether scores are a mixture of the reference's classes, by two opinions; None without scores."""
        if self.prevalence is None:
            return None
        is_disputed = self.prevalence.by_calls.is_usable and self.prevalence.p_agree < P_DISPUTED
        return self.prevalence.by_scores.p_fit > P_FIT and not is_disputed

    @property
    def is_certified(self) -> bool:
        """The reference, as the site's scanner shows it, explains the site's scores."""
        return (
            self.worst is not None
            and self.worst < FAITHFUL
            and self.through_scanner is not None
            and self.through_scanner.p_fit > P_FIT
        )


def evidence_of(material: Material, statistics: Collection[str] = tuple(STATISTICS)) -> Evidence:
    """Run every comparison and estimate that the material allows; of the `statistics`, `ks` is what verdicts need."""
    prevalence, no_prevalence = prevalence_of(material)
    told = prevalence_told(material)
    measured = Evidence(
        n=len(material.current),
        n_accepted=len(material.accepted),
        n_strata=material.n_strata,
        is_accepted=material.is_accepted,
        is_reference=material.is_reference,
        banks=material.banks,
        protocol=material.protocol,
        since_accepted=() if material.is_accepted else compared(material.accepted, material.current, statistics),
        native=compared(material.reference, material.current, statistics),
        from_reference=compared(material.reference_harmonized, material.harmonized, statistics),
        headers=_headers(material),
        on_known_scanners=_on_known_scanners(material),
        score=_score(material, statistics),
        embedding=_embedding(material),
        prevalence=prevalence,
        at_acceptance=prevalence_at_acceptance(material),
        no_prevalence=no_prevalence,
        labelled_prevalence=told,
        p_labelled=p_told(told, material),
        through_scanner=prevalence_through_scanner(material),
        worst=None if material.transported is None else material.transported.worst,
    )
    return replace(
        measured,
        reweighted=_reweighted(material, measured),
        by_prevalence=_by_prevalence(material, prevalence),
        labels=labelled_scores(material, prevalence),
        explanation=_explanation(material, measured),
        bound=bound_of(material, measured),
    )


def bound_of(material: Material, measured: Evidence) -> Bound:
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
        expected_risk=_expected_risk(material, measured),
    )


def _expected_risk(material: Material, measured: Evidence) -> Estimate | None:
    """From labels of the reference alone, as long as they explain the site's scores."""
    source, shown, calibration = material.reference_scores, material.transported, material.calibration
    if calibration is None or source is None:
        return None
    if shown is not None and measured.is_certified and measured.through_scanner is not None:
        return expected_risk(shown.scores, shown.y, calibration, Estimate.of(measured.through_scanner))
    if measured.prevalence is None or not measured.fits:
        return None
    known = source.where(source.is_labelled)
    return expected_risk(known.score, known.y, calibration, Estimate.of(measured.prevalence.by_scores))


def compared(before: Patients | None, after: Patients | None, statistics: Collection[str]) -> tuple[FeatureShift, ...]:
    """Every feature that both sides have; nothing where a side is not known."""
    if before is None or after is None:
        return ()
    there, here = (long_table(_known(side), side.features) for side in (before, after))
    return compare(there, here, statistics)


def _known(side: Patients) -> dict[str, Reals]:
    """Each feature's values, without those that could not be told."""
    columns = zip(side.features, side.values.T, strict=True)
    return {name: column[np.isfinite(column)] for name, column in columns}


def _score(material: Material, statistics: Collection[str]) -> FeatureShift | None:
    if material.reference_scores is None or material.scores is None:
        return None
    both = (material.reference_scores, material.scores)
    there, here = (long_table({"score": scans.score}, ["score"]) for scans in both)
    shifts = compare(there, here, statistics)
    return shifts[0] if shifts else None


def _embedding(material: Material) -> MmdTest | None:
    there, here = material.reference_scores, material.scores
    if there is None or here is None or not there.embedding.shape[1]:
        return None
    if min(len(there), len(here)) < 2 or there.embedding.shape[1] != here.embedding.shape[1]:
        return None
    return mmd_test(there.embedding, here.embedding)


def _on_known_scanners(material: Material) -> float:
    base = material.reference if material.is_accepted else material.accepted
    here = material.current.fields.get("scanner_model", ())
    if base is None or not here:
        return 0.0
    known = set(base.fields.get("scanner_model", ())) - {None}
    return sum(scanner in known for scanner in here) / len(here)


def _headers(material: Material) -> tuple[HeaderChange, ...]:
    base = material.reference if material.is_accepted else material.accepted
    return () if base is None else tuple(header_changes(base.fields, material.current.fields))


def _reweighted(material: Material, measured: Evidence) -> dict[Bank, ReweightedDistance]:
    prevalence = measured.prevalence
    if prevalence is None or not measured.fits or prevalence.by_scores.p_changed >= WORTH_A_LOOK:
        return {}
    shifts = measured.from_reference if material.is_accepted else measured.since_accepted
    found: dict[Bank, ReweightedDistance] = {}
    for bank in BANKS:
        mine = [shift for shift in shifts if material.banks.get(shift.feature, "acquisition") == bank]
        left = None
        if any(shift.p * len(mine) < WORTH_A_LOOK for shift in mine):
            left = _left_over(material, [shift.feature for shift in mine], prevalence.by_scores.value)
        if left is not None:
            found[bank] = left
    return found


def _left_over(material: Material, names: Sequence[str], prevalence: float) -> ReweightedDistance | None:
    """None if those compared with have too few labels, or too few of them make up a sample at that prevalence."""
    if material.sides is None or min(_n_classes(material.sides[0])) < MIN_CLASS_PATIENTS:
        return None
    before, after = (side.narrowed(names) for side in material.sides)
    try:
        return reweighted_distance(names, before.values, before.y, after.values, prevalence=prevalence)
    except EmptySample:
        return None


def _by_prevalence(material: Material, prevalence: TwoOpinions | None) -> dict[str, float]:
    """A mixture of two classes moves by as much of the distance between them as its share does."""
    source = material.reference
    if source is None or prevalence is None or min(_n_classes(source)) < MIN_CLASS_PATIENTS:
        return {}
    change = abs(prevalence.by_scores.value - prevalence.by_scores.assumed)
    positive, negative = source.y == 1, source.y == 0
    apart = {
        name: weighted_ks(column[positive], class_weights(source.y[positive], None), column[negative])
        for name, column in zip(source.features, source.values.T, strict=True)
    }
    return {name: change * distance for name, distance in apart.items() if np.isfinite(distance)}


def _n_classes(side: Patients) -> tuple[int, int]:
    return int((side.y == 0).sum()), int((side.y == 1).sum())


def _explanation(material: Material, measured: Evidence) -> Explanation | None:
    sides = material.sides
    if sides is None or not sides[0].features:
        return None
    before, after = sides
    is_label_story = measured.prevalence is not None and measured.fits
    share = measured.prevalence.by_scores.value if is_label_story and measured.prevalence else None
    return explain_divergence(
        before.features,
        before.values,
        before.y,
        after.values,
        reference_fields=before.fields,
        current_fields=after.fields,
        prevalence=share,
    )
