"""A new site against the model's reference, at its first patients: what the onboarding test says, as rows.

Both sides are taken as the model sees them, after the recipe: before it, every hospital is another one. Scores of
reference patients from whom the model has learned count as unknown.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.workspace import Workspace
from platform_core.shift.inputs import Inputs
from platform_core.shift.onboarding import LOOKS, N_CARRIERS, OnboardingVerdict, OneShot, onboarding_test
from platform_core.shift.samples import Sample
from platform_core.shift.scored_patients import ScoredPatients
from platform_core.shift.scores import ScoredScans

STATISTIC = "onboarding"
WHOLE = "all"
"""The `feature` of a row about all features and the score together."""
SCOPE = ["stratum", "period_start", "reference"]


def newcomer_verdict(inputs: Inputs) -> OnboardingVerdict | None:
    """What the looks at a new site say; None where nothing is to be compared.

    The reference's own site is not new, a period after the accepted one is not, and without a model or a stratum of
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


def newcomer_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """What `newcomer_verdict` says as columns of `out__shift`: a row per look, and one per feature that carries it.

    The row of a look has the most surprising arm's statistic as value and the p-value of them all as evidence; the
    value of a feature is how far it has moved, in standard errors.
    """
    verdict = newcomer_verdict(inputs)
    return [row for look in (verdict.looks if verdict else ()) for row in _rows(look)]


def newcomer_sentences(workspace: Workspace, site: str) -> list[str]:
    """What the looks at a site said, one sentence per stratum and accepted state, oldest first."""
    where = (pc.field("site") == site) & (pc.field("statistic") == STATISTIC)
    rows = workspace.lake.read(
        layout.SHIFT, where, [*SCOPE, "feature", "value", "evidence", "n_current", "n_reference"]
    )
    states: dict[tuple[Any, ...], dict[tuple[int, str], dict[str, Any]]] = {}
    for row in rows.to_pylist():
        states.setdefault(tuple(row[name] for name in SCOPE), {})[row["n_current"], row["feature"]] = row
    return [f"{state[0]}: {_sentence(looks)}" for state, looks in sorted(states.items())]


def _sentence(looks: dict[tuple[int, str], dict[str, Any]]) -> str:
    """Of the first look that told the site from the reference, else of the last one."""
    numbers = sorted({n for n, _ in looks})
    told = next((n for n in numbers if any(at == n and feature != WHOLE for at, feature in looks)), numbers[-1])
    look = looks[told, WHOLE]
    about = f"{told} patients against {look['n_reference']}, p {look['evidence']:.2g}"
    carried = sorted(
        (row for (n, f), row in looks.items() if n == told and f != WHOLE), key=lambda row: -abs(row["value"])
    )
    if not carried:
        return f"not told apart from the model's reference ({about})"
    named = ", ".join(f"{row['feature']} {'higher' if row['value'] > 0 else 'lower'}" for row in carried)
    return f"unlike the model's reference from the first scans on ({about}): {named}"


def _rows(look: OneShot) -> list[dict[str, Any]]:
    about = {"statistic": STATISTIC, "n_current": look.n_current, "n_reference": look.n_reference}
    whole = {"feature": WHOLE, "value": look.arm.statistic, "evidence": look.p}
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
