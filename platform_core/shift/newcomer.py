"""A new site against the model's reference, at its first patients: what the onboarding test says, as rows.

Both sides are taken as the model sees them, after the recipe: before it, every hospital is another one. Scores of
reference patients from whom the model has learned count as unknown.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.shift.inputs import Inputs
from platform_core.shift.onboarding import LOOKS, N_CARRIERS, OnboardingVerdict, OneShot, onboarding_test
from platform_core.shift.samples import Sample
from platform_core.shift.scored_patients import ScoredPatients
from platform_core.shift.scores import ScoredScans

STATISTIC = "onboarding"


def newcomer_verdict(inputs: Inputs) -> OnboardingVerdict | None:
    """What the looks at a new site say; None where nothing is to be compared.

    The reference's own site is not new, a site after its first period is not, and without a model or a stratum of
    the reference there is nothing to compare with.
    """
    serving, reference, like = inputs.serving, inputs.reference, inputs.like_reference
    if serving is None or reference is None or like is None or not inputs.is_accepted:
        return None
    if inputs.current.site == reference.site or inputs.scores is None or inputs.reference_scores is None:
        return None
    there = _patients(inputs, like, reference.recipe, inputs.reference_scores)
    here = _in_order_of_arrival(inputs, _patients(inputs, inputs.current, serving.recipe, inputs.scores))
    try:
        return onboarding_test(there, here, alpha=inputs.workspace.settings.shift.alpha, looks=LOOKS)
    except EmptySample:
        return None


def newcomer_rows(verdict: OnboardingVerdict | None, *, recipe: str, reference: str) -> list[dict[str, Any]]:
    """Rows of `out__shift` without site, stratum, period and run: one per look, and one per feature that carries it."""
    looks = () if verdict is None else verdict.looks
    return [{"recipe": recipe, "reference": reference} | row for look in looks for row in _rows(look)]


def _rows(look: OneShot) -> list[dict[str, Any]]:
    about = {"statistic": STATISTIC, "n_current": look.n_current, "n_reference": look.n_reference}
    whole = {"feature": "all", "value": look.arm.statistic, "evidence": look.p}
    carried = [{"feature": name, "value": z} for name, z in look.carriers[:N_CARRIERS]] if look.is_different else []
    return [about | row for row in (whole, *carried)]


def _patients(inputs: Inputs, sample: Sample, recipe: str, scores: ScoredScans) -> ScoredPatients:
    found = inputs.patients(sample, recipe)
    score = dict(zip(scores.series_key.tolist(), scores.score.tolist(), strict=True))
    return ScoredPatients(
        features=found.features,
        values=found.values,
        score=np.array([score.get(key, np.nan) for key in sample.keys], dtype=np.float64),
        y=found.y,
    )


def _in_order_of_arrival(inputs: Inputs, patients: ScoredPatients) -> ScoredPatients:
    """By day observed, then by key, which is a hash: the first ones stay the first ones."""
    site, keys = inputs.current.site, inputs.current.keys
    rows = inputs.workspace.lake.read(layout.SERIES, pc.field("site") == site, ["series_key", "observed_on"])
    day = dict(zip(rows.column("series_key").to_pylist(), rows.column("observed_on").to_pylist(), strict=True))
    order: list[int] = sorted(range(len(keys)), key=lambda i: (day[keys[i]], keys[i]))
    return patients.taken(np.array(order, dtype=np.intp))
