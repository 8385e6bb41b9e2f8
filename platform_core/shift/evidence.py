"""From samples in memory to evidence: every comparison and estimate is made once. Nothing is read or written here.

What a finding rests on is a pure function of `Material`, so that an experiment calls what the product calls.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from platform_core.errors import EmptySample
from platform_core.manifest.serving import Calibration
from platform_core.shift.bound import UNKNOWN, Bound, divergence, expected_risk, joint_risk, labelled_risk
from platform_core.shift.compare import FeatureShift, compare, long_table
from platform_core.shift.explanation import Explanation, explain_divergence
from platform_core.shift.labels.bbse import TwoOpinions, two_opinions
from platform_core.shift.labels.labelled_prevalence import LabelledPrevalence, log_e_value, prevalence_from_labels
from platform_core.shift.labels.prevalence import PrevalenceEstimate, estimate_prevalence
from platform_core.shift.labels.reliability import Reliability, reliability_of
from platform_core.shift.mmd import MmdTest, mmd_test
from platform_core.shift.reweighted import MIN_CLASS_PATIENTS, ReweightedDistance, reweighted_distance
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.samples import HeaderChange, Patients, header_changes
from platform_core.shift.scores import ScoredScans
from platform_core.shift.statistics import STATISTICS
from platform_core.shift.transported import Transported

Bank = Literal["acquisition", "content"]
BANKS: tuple[Bank, ...] = get_args(Bank)

P_FIT = 0.01
"""Scores less likely than this under every mixture of the reference's classes are no label shift; nor are two estimates
of the prevalence that agree less well than this."""
WORTH_A_LOOK = 0.05
"""Chance, all features together, above which nobody asks what else could account for a difference."""
FAITHFUL = 0.3
"""Largest residual with which the reference counts as seen through the site's scanner; proposed, see `Transported`."""


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
class LabelledScores:
    """Labels at the site, and what the reference foretells of them."""

    reliability: Reliability
    """Of the reference: the share of positives at each score."""
    scores: Reals
    y: Reals
    """1 or 0 for each score."""
    prevalence: Estimate | None
    """Of the site, from all its scores; None: the reference's."""


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
    """From scores, and from calls beside it."""
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
    labels: LabelledScores | None = None
    explanation: Explanation | None = None
    """What accounts for the difference that counts; None if there is nothing to compare with."""
    bound: Bound = UNKNOWN

    @property
    def fits(self) -> bool | None:
        """Whether scores are a mixture of the reference's classes, by two opinions; None without scores."""
        if self.prevalence is None:
            return None
        is_disputed = self.prevalence.by_calls.is_usable and self.prevalence.p_agree < P_FIT
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
    prevalence, no_prevalence = _prevalence(material)
    told = _told_by_labels(material)
    measured = Evidence(
        n=len(material.current),
        n_accepted=len(material.accepted),
        n_strata=material.n_strata,
        is_accepted=material.is_accepted,
        is_reference=material.is_reference,
        banks=material.banks,
        protocol=material.protocol,
        since_accepted=() if material.is_accepted else _compared(material.accepted, material.current, statistics),
        native=_compared(material.reference, material.current, statistics),
        from_reference=_compared(material.reference_harmonized, material.harmonized, statistics),
        headers=_headers(material),
        score=_score(material, statistics),
        embedding=_embedding(material),
        prevalence=prevalence,
        no_prevalence=no_prevalence,
        labelled_prevalence=told,
        p_labelled=_p_labelled(told, material.calibration),
        through_scanner=_through_scanner(material),
        worst=None if material.transported is None else material.transported.worst,
    )
    return replace(
        measured,
        reweighted=_reweighted(material, measured),
        labels=_labels(material, measured),
        explanation=_explanation(material, measured),
        bound=bound_of(material, measured),
    )


def compared_sides(material: Material) -> tuple[Patients, Patients] | None:
    """Before and after, of the comparison that says whether a site has changed; None if there is no before."""
    if not material.is_accepted:
        return _shared(material.accepted, material.current)
    if material.reference_harmonized is None or material.harmonized is None:
        return None
    return _shared(material.reference_harmonized, material.harmonized)


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
        return expected_risk(shown.scores, shown.y, calibration, _estimate(measured.through_scanner))
    if measured.prevalence is None or not measured.fits:
        return None
    known = source.where(source.is_labelled)
    return expected_risk(known.score, known.y, calibration, _estimate(measured.prevalence.by_scores))


def _compared(before: Patients | None, after: Patients | None, statistics: Collection[str]) -> tuple[FeatureShift, ...]:
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


def _headers(material: Material) -> tuple[HeaderChange, ...]:
    base = material.reference if material.is_accepted else material.accepted
    return () if base is None else tuple(header_changes(base.fields, material.current.fields))


def _prevalence(material: Material) -> tuple[TwoOpinions | None, str]:
    """The estimates, or why there are none."""
    site, source, calibration = material.scores, material.reference_scores, material.calibration
    if site is None or source is None or calibration is None:
        return None, ""
    known = source.where(source.is_labelled)
    threshold, assumed = threshold_score(calibration), calibration.prevalence
    try:
        return two_opinions(site.score, known.score, known.y, threshold=threshold, assumed=assumed), ""
    except EmptySample as error:
        return None, str(error)


def _through_scanner(material: Material) -> PrevalenceEstimate | None:
    site, shown, calibration = material.scores, material.transported, material.calibration
    if site is None or shown is None or calibration is None:
        return None
    try:
        return estimate_prevalence(site.score, shown.scores, shown.y, assumed=calibration.prevalence)
    except EmptySample:
        return None


def _told_by_labels(material: Material) -> LabelledPrevalence | None:
    """Labels without a chance count only if none has one: then they are taken as drawn evenly."""
    y, chance = material.current.y, material.current.asked
    is_known = np.isfinite(y)
    if chance is not None and np.isfinite(chance[is_known]).any():
        is_known &= np.isfinite(chance) & (chance > 0)
    if not is_known.any():
        return None
    if chance is None or len(np.unique(chance[is_known])) == 1:
        return prevalence_from_labels(y[is_known])
    return prevalence_from_labels(y[is_known], np.minimum(chance[is_known], 1))


def _p_labelled(told: LabelledPrevalence | None, calibration: Calibration | None) -> float | None:
    if told is None or calibration is None or not told.is_even:
        return None
    evidence = float(log_e_value(told.n_positive, told.n, calibration.prevalence))
    return float(np.exp(-max(evidence, 0.0)))


def _labels(material: Material, measured: Evidence) -> LabelledScores | None:
    """None without labels at the site, or with too few at the reference."""
    site, source = material.held_out, material.reference_scores
    if site is None or source is None or not site.is_labelled.any():
        return None
    known, told = source.where(source.is_labelled), site.where(site.is_labelled)
    try:
        reliability = reliability_of(known.score, known.y)
    except EmptySample:
        return None
    share = None if measured.prevalence is None else _estimate(measured.prevalence.by_scores)
    return LabelledScores(reliability=reliability, scores=told.score, y=told.y, prevalence=share)


def _reweighted(material: Material, measured: Evidence) -> dict[Bank, ReweightedDistance]:
    sides, prevalence = compared_sides(material), measured.prevalence
    if sides is None or prevalence is None or not measured.fits or prevalence.by_scores.p_changed >= WORTH_A_LOOK:
        return {}
    if min(int((sides[0].y == value).sum()) for value in (0, 1)) < MIN_CLASS_PATIENTS:
        return {}
    shifts = measured.from_reference if material.is_accepted else measured.since_accepted
    found: dict[Bank, ReweightedDistance] = {}
    for bank in BANKS:
        names = [shift.feature for shift in shifts if material.banks.get(shift.feature, "acquisition") == bank]
        if any(shift.p * len(names) < WORTH_A_LOOK for shift in shifts if shift.feature in names):
            before, after = (side.narrowed(names) for side in sides)
            found[bank] = reweighted_distance(
                names, before.values, before.y, after.values, prevalence=prevalence.by_scores.value
            )
    return found


def _explanation(material: Material, measured: Evidence) -> Explanation | None:
    sides = compared_sides(material)
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


def _shared(before: Patients, after: Patients) -> tuple[Patients, Patients]:
    names = tuple(name for name in before.features if name in after.features)
    return before.narrowed(names), after.narrowed(names)


def _estimate(found: PrevalenceEstimate) -> Estimate:
    return Estimate(found.value, found.low, found.high)


def threshold_score(calibration: Calibration) -> float:
    """The score from which a scan is called positive."""
    share = calibration.threshold
    return float(np.log(share) - np.log1p(-share)) - calibration.logit_offset
