"""From inputs to evidence: run every comparison once, and hand the numbers to the diagnosis."""

from dataclasses import dataclass

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.shift.bound import UNKNOWN, Bound, divergence, joint_risk, labelled_risk
from platform_core.shift.compare import FeatureShift, compare, long_table
from platform_core.shift.diagnosis import Bank, Evidence
from platform_core.shift.inputs import Inputs
from platform_core.shift.labels.prevalence import PrevalenceEstimate, estimate_prevalence
from platform_core.shift.mmd import MmdTest, mmd_test
from platform_core.shift.samples import feature_values, header_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Every feature of the period against one other sample."""

    recipe: str
    """What the period's volumes went through."""
    reference: str
    """`site@first day` of the accepted state, or `model@version`."""
    shifts: tuple[FeatureShift, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """What the period is held against; None where there is nothing to hold it against."""

    accepted: Comparison | None
    """Native features, against the accepted state: has the site changed?"""
    native: Comparison | None
    """Native features, against the source domain: how far did it come?"""
    harmonized: Comparison | None
    """Harmonized features, against the source domain: how far is it still?"""
    score: Comparison | None
    """Scores, against the source domain's held-out patients."""
    embedding: MmdTest | None
    """Embeddings, against the source domain's held-out patients."""

    def all(self) -> list[Comparison]:
        """Those that were made."""
        made = (self.accepted, self.native, self.harmonized, self.score)
        return [comparison for comparison in made if comparison is not None]


def compare_samples(inputs: Inputs) -> Comparisons:
    """Every comparison that the inputs allow."""
    native = None if inputs.serving is None else _from_reference(inputs, layout.NATIVE, layout.NATIVE)
    harmonized = None
    if inputs.serving is not None and inputs.reference is not None:
        harmonized = _from_reference(inputs, inputs.serving.recipe, inputs.reference.recipe)
    return Comparisons(
        accepted=_since_accepted(inputs),
        native=native,
        harmonized=harmonized,
        score=_scores(inputs),
        embedding=_embeddings(inputs),
    )


def gather(inputs: Inputs, made: Comparisons) -> Evidence:
    """The evidence for a diagnosis."""
    base = inputs.like_reference if inputs.is_accepted else inputs.accepted
    risks = bound_of(inputs)
    return Evidence(
        n=inputs.current.n,
        n_accepted=inputs.accepted.n,
        n_strata=inputs.n_strata,
        is_accepted=inputs.is_accepted,
        is_reference=inputs.is_reference,
        banks=_banks(),
        protocol=_protocol(),
        since_accepted=made.accepted.shifts if made.accepted else (),
        from_reference=made.harmonized.shifts if made.harmonized else (),
        headers=() if base is None else tuple(header_changes(base, inputs.current)),
        score=made.score.shifts[0] if made.score and made.score.shifts else None,
        prevalence=_prevalence(inputs),
        bound=risks,
    )


def bound_of(inputs: Inputs) -> Bound:
    """The terms of the bound, each where the data can tell."""
    site, source = inputs.scores, inputs.reference_scores
    if inputs.serving is None or inputs.reference is None or site is None or source is None:
        return UNKNOWN
    held_out = site.of_part("evaluation", inputs.workspace.settings.split)
    return Bound(
        source_risk=labelled_risk(source, inputs.reference.calibration),
        divergence=divergence(source.embedding, site.embedding),
        joint_risk=joint_risk(source, site),
        target_risk=labelled_risk(held_out, inputs.serving.calibration),
    )


def _since_accepted(inputs: Inputs) -> Comparison | None:
    if inputs.is_accepted:
        return None
    samples = [feature_values(inputs.workspace, each, layout.NATIVE) for each in (inputs.accepted, inputs.current)]
    name = f"{inputs.accepted.site}@{inputs.accepted.period_start}"
    return Comparison(recipe=layout.NATIVE, reference=name, shifts=compare(*samples))


def _from_reference(inputs: Inputs, recipe: str, source_recipe: str) -> Comparison | None:
    like = inputs.like_reference
    if inputs.serving is None or like is None:
        return None
    there = feature_values(inputs.workspace, like, source_recipe)
    here = feature_values(inputs.workspace, inputs.current, recipe)
    return Comparison(recipe=recipe, reference=inputs.serving.model, shifts=compare(there, here))


def _scores(inputs: Inputs) -> Comparison | None:
    there, here = inputs.reference_scores, inputs.scores
    if inputs.serving is None or there is None or here is None:
        return None
    shifts = compare(*(long_table({"score": scans.score}, ["score"]) for scans in (there, here)))
    return Comparison(recipe=inputs.serving.recipe, reference=inputs.serving.model, shifts=shifts)


def _embeddings(inputs: Inputs) -> MmdTest | None:
    there, here = inputs.reference_scores, inputs.scores
    if there is None or here is None or not there.embedding.shape[1]:
        return None
    if min(len(there), len(here)) < 2 or there.embedding.shape[1] != here.embedding.shape[1]:
        return None
    return mmd_test(there.embedding, here.embedding)


def _prevalence(inputs: Inputs) -> PrevalenceEstimate | None:
    """The estimate; None where scores or reference labels are too few for one."""
    site, source = inputs.scores, inputs.reference_scores
    if inputs.serving is None or site is None or source is None:
        return None
    known = source.where(source.is_labelled)
    try:
        return estimate_prevalence(site.score, known.score, known.y, assumed=inputs.serving.calibration.prevalence)
    except EmptySample:
        return None


def _banks() -> dict[str, Bank]:
    from platform_core.features.measure import FEATURES

    return {name: feature.bank for name, feature in FEATURES.items()}


def _protocol() -> frozenset[str]:
    from platform_core.features import FAMILIES

    return frozenset(feature.name for name in ("acquisition", "geometry") for feature in FAMILIES[name].features)
