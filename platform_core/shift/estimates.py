"""What scores and labels tell of a site: its prevalence in every way there is, and what labels are held against."""

from dataclasses import dataclass

import numpy as np

from platform_core.errors import EmptySample
from platform_core.provenance import number_of
from platform_core.shift.labels.bbse import TwoOpinions, two_opinions
from platform_core.shift.labels.labelled_prevalence import LabelledPrevalence, log_e_value, prevalence_from_labels
from platform_core.shift.labels.prevalence import P_FIT, PrevalenceEstimate, estimate_prevalence
from platform_core.shift.labels.reliability import Reliability, fine_bins, reliability_of
from platform_core.shift.material import Material
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.scores import ScoredScans, YesNo


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


def prevalence_at_acceptance(material: Material) -> PrevalenceEstimate | None:
    """From the accepted state's scores, against the reference; None without them, and where it is the period itself."""
    site, source, calibration = material.accepted_scores, material.reference_scores, material.calibration
    if material.is_accepted or site is None or source is None or calibration is None:
        return None
    known = source.where(source.is_labelled)
    try:
        return estimate_prevalence(site.score, known.score, known.y, assumed=calibration.prevalence)
    except EmptySample:
        return None


def prevalence_of(material: Material) -> tuple[TwoOpinions | None, str]:
    """The estimates, or why there are none."""
    site, source, calibration = material.scores, material.reference_scores, material.calibration
    if site is None or source is None or calibration is None:
        return None, ""
    known = source.where(source.is_labelled)
    threshold, assumed = material.threshold_score, calibration.prevalence
    try:
        return two_opinions(site.score, known.score, known.y, threshold=threshold, assumed=assumed), ""
    except EmptySample as error:
        return None, str(error)


def prevalence_through_scanner(material: Material) -> PrevalenceEstimate | None:
    """Against the reference as the site's scanner shows it; None if nobody has shown it, or too little of it."""
    site, shown, calibration = material.scores, material.transported, material.calibration
    if site is None or shown is None or calibration is None:
        return None
    try:
        return estimate_prevalence(site.score, shown.scores, shown.y, assumed=calibration.prevalence)
    except EmptySample:
        return None


def prevalence_told(material: Material) -> LabelledPrevalence | None:
    """From labels; those without a chance count only if none has one: then they are taken as drawn evenly."""
    y, chance = material.current.y, material.current.asked
    is_known = np.isfinite(y)
    if chance is not None and np.isfinite(chance[is_known]).any():
        is_known &= np.isfinite(chance) & (chance > 0)
    if not is_known.any():
        return None
    if chance is None or len(np.unique(chance[is_known])) == 1:
        return prevalence_from_labels(y[is_known])
    return prevalence_from_labels(y[is_known], np.minimum(chance[is_known], 1))


def p_told(told: LabelledPrevalence | None, material: Material) -> float | None:
    """Chance of ever seeing labels this unlike the assumed prevalence, at whatever look; None if drawn unevenly."""
    if told is None or material.calibration is None or not told.is_even:
        return None
    evidence = float(log_e_value(told.n_positive, told.n, material.calibration.prevalence))
    return float(np.exp(-max(evidence, 0.0)))


def labelled_scores(material: Material, prevalence: TwoOpinions | None) -> LabelledScores | None:
    """Labels of the site with their scores; None without any, or with too few labels at the reference."""
    site, source = material.held_out, material.reference_scores
    if site is None or source is None or not site.is_labelled.any():
        return None
    known, told = source.where(source.is_labelled), site.where(site.is_labelled)
    try:
        reliability = reliability_of(known.score, known.y, n_bins=fine_bins(known.y))
    except EmptySample:
        return None
    told = told.where(_is_even(told, reliability))
    share = None
    if prevalence is not None and prevalence.by_scores.p_fit > P_FIT:
        share = Estimate.of(prevalence.by_scores)
    return LabelledScores(reliability=reliability, scores=told.score, y=told.y, prevalence=share)


def _is_even(told: ScoredScans, reliability: Reliability) -> YesNo:
    """Which labels to take so that among scans of like scores each had one chance to be labelled.

    Informed requests prefer scans that are new to the model, also among those that score alike; what labels say at a
    score would be said of those. A label is taken with the least chance of its bin over its own: at least half of them,
    as requests keep to half of the even chance. Labels whose chance is not stated are all taken.
    """
    chance = np.full(len(told), np.nan) if told.chance is None else told.chance
    place, is_stated = reliability.bins(told.score), np.isfinite(chance)
    least = np.ones(len(reliability.n))
    np.minimum.at(least, place[is_stated], chance[is_stated])
    number = np.array([number_of(f"even/{key}") / 2**64 for key in told.series_key.tolist()])
    return np.asarray(~(number * chance > least[place]), dtype=np.bool_)
