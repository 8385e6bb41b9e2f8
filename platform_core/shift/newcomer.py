"""A new site against the model's reference, at its first patients: what the onboarding test says, as rows.

Both sides are taken as the model sees them, after the recipe: before it, every hospital is another one. Scores of
reference patients from whom the model has learned count as unknown.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.stages import in_order_of_arrival
from platform_core.manifest.workspace import Workspace
from platform_core.shift.inputs import Inputs
from platform_core.shift.onboarding import LOOKS, N_CARRIERS, OnboardingVerdict, OneShot, onboarding_test
from platform_core.shift.samples import Sample
from platform_core.shift.scored_patients import ScoredPatients
from platform_core.shift.scores import ScoredScans

STATISTIC = "onboarding"
WHOLE = "all"
"""The `feature` of a row about all features and the score together."""
Row = dict[str, Any]
SCOPE = ["stratum", "reference", "recipe"]
"""Whoever has been looked at under a model and a recipe is not new to them: a border of periods that moves, as old
scans come late, makes no other newcomer."""


def newcomer_verdict(inputs: Inputs) -> OnboardingVerdict | None:
    """What the looks at a new site say that no finding has told before; None where nothing is to be compared.

    The reference's own site is not new, a period after the accepted one is not, and without a model or a stratum of
    the reference there is nothing to compare with.
    """
    serving, reference, like = inputs.serving, inputs.reference, inputs.like_reference
    if serving is None or reference is None or like is None or not inputs.is_accepted:
        return None
    if inputs.current.site == reference.site or inputs.scores is None or inputs.reference_scores is None:
        return None
    had = _had(inputs, serving.model, serving.recipe)
    if had.issuperset(LOOKS):
        return None
    there = _patients(inputs, like, reference.recipe, inputs.reference_scores)
    here = _as_they_came(inputs, _patients(inputs, inputs.current, serving.recipe, inputs.scores))
    try:
        return onboarding_test(there, here, alpha=inputs.workspace.settings.shift.alpha, looks=LOOKS, had=had)
    except EmptySample:
        return None


def newcomer_rows(inputs: Inputs) -> list[Row]:
    """What `newcomer_verdict` says as columns of `out__shift`: a row per look, and one per feature that carries it.

    The row of a look has the most surprising arm's statistic as value and the p-value of them all as evidence; the
    value of a feature is how far it has moved, in standard errors.
    """
    verdict = newcomer_verdict(inputs)
    return [row for look in (verdict.looks if verdict else ()) for row in _rows(look)]


def newcomer_sentences(workspace: Workspace, site: str) -> list[str]:
    """What the looks at a site said, one sentence per stratum, model and recipe."""
    where = (pc.field("site") == site) & (pc.field("statistic") == STATISTIC)
    columns = [*SCOPE, "run", "feature", "value", "evidence", "n_current", "n_reference"]
    states: dict[tuple[Any, ...], dict[int, list[Row]]] = {}
    for row in workspace.lake.read(layout.SHIFT, where, columns).to_pylist():
        looks = states.setdefault(tuple(row[name] for name in SCOPE), {})
        looks.setdefault(row["n_current"], []).append(row)
    return [f"{state[0]}: {_sentence(looks)}" for state, looks in sorted(states.items())]


def _had(inputs: Inputs, model: str, recipe: str) -> set[int]:
    """Numbers of patients at which the stratum has been looked at, under the same model and recipe."""
    where = (pc.field("site") == inputs.current.site) & (pc.field("statistic") == STATISTIC)
    rows = inputs.workspace.lake.read(layout.SHIFT, where, [*SCOPE, "n_current"]).to_pylist()
    scope = (inputs.current.stratum, model, recipe)
    return {row["n_current"] for row in rows if tuple(row[name] for name in SCOPE) == scope}


def _sentence(every: dict[int, list[Row]]) -> str:
    """Of the first look that told the site from the reference, else of the last one."""
    looks = {n: _of_one_run(rows) for n, rows in sorted(every.items())}
    told = next((n for n, rows in looks.items() if len(rows) > 1), max(looks))
    look = looks[told].pop(WHOLE)
    about = f"{told} patients against {look['n_reference']}, p {look['evidence']:.2g}"
    carried = sorted(looks[told].values(), key=lambda row: -abs(row["value"]))
    if not carried:
        return f"not told apart from the model's reference ({about})"
    named = ", ".join(f"{row['feature']} {'higher' if row['value'] > 0 else 'lower'}" for row in carried)
    return f"unlike the model's reference from the first scans on ({about}): {named}"


def _of_one_run(rows: Sequence[Row]) -> dict[str, Row]:
    """By feature, what the first run said that had this look."""
    first = min(row["run"] for row in rows)
    return {row["feature"]: row for row in rows if row["run"] == first}


def _rows(look: OneShot) -> list[Row]:
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


def _as_they_came(inputs: Inputs, patients: ScoredPatients) -> ScoredPatients:
    keys = inputs.current.keys
    place = {key: i for i, key in enumerate(keys)}
    order = [place[key] for key in in_order_of_arrival(inputs.workspace, inputs.current.site, keys)]
    return patients.taken(np.array(order, dtype=np.intp))
