"""What a site risks under a serving, and whether a change of recipe helps."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from platform_core import layout
from platform_core.manifest.labels import labels_in_force
from platform_core.manifest.schemas import REQUEST
from platform_core.manifest.serving import Serving, change_serving, current_serving
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.situation import difference
from platform_core.shift.risk import Estimate, log_losses
from platform_core.shift.scores import score_rows
from platform_core.storage.tables import rows_of
from platform_core.trial.before_after import harm_of, risk_under
from platform_core.trial.receipt import Receipt, harmonization_receipt

PlantScores = Callable[..., list[str]]
AT = datetime(2026, 3, 1, tzinfo=UTC)


def serving_of(workspace: Workspace, site: str) -> Serving:
    found = current_serving(workspace, site, "lesion")
    assert found is not None
    return found


def plant_features(workspace: Workspace, site: str, recipe: str, keys: Sequence[str], shift: float) -> None:
    rng = np.random.default_rng(len(recipe) + len(keys))
    n = len(keys)
    schema = workspace.lake.schemas[layout.FEATURE].remove_metadata()
    rows = pa.table(
        {
            name: pa.array([{"site": site, "recipe": recipe, "revision": 1, "stratum": "CT"}.get(name)] * n, kind)
            for name, kind in zip(schema.names, schema.types, strict=True)
            if name != "series_key"
        }
        | {
            "series_key": list(keys),
            "noise_hu": rng.normal(shift, 1, n),
            "q50_hu": rng.normal(2 * shift, 1, n),
            "fwhm_mm": [None] * n,
        }
    )
    workspace.lake.append(layout.FEATURE, rows, transaction=f"f/{site}/{recipe}")


def receipt_for(workspace: Workspace, keys: Sequence[str], *, before: str = "r1", after: str = "r2") -> Receipt:
    serving = serving_of(workspace, "south")
    old, new = (replace(serving, recipe=recipe) for recipe in (before, after))
    return harmonization_receipt(workspace, "south", "lesion", before=old, after=new, keys=keys)


def test_harm_is_told_by_every_labelled_patient_whom_the_model_has_not_learned_from(
    served: Workspace, plant_scores: PlantScores, train_on: Callable[..., None]
) -> None:
    file = Path(served.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8").replace("evaluation = 0.98", "evaluation = 0.4"), encoding="utf-8")
    here = open_workspace(served.uri)
    keys = plant_scores("south", 200, {"lesion@1": 2.0})
    serving = serving_of(here, "south")
    of_evaluation = risk_under(here, "south", "lesion", serving, keys)
    of_all = harm_of(here, serving, keys, "CT")
    assert of_evaluation is not None
    assert of_all is not None
    assert of_evaluation.n_patients < 110 < of_all.risk.n_patients == 200
    train_on(1, [("south", key) for key in keys[:60]])
    of_the_others = harm_of(here, serving, keys, "CT")
    assert of_the_others is not None
    assert of_the_others.risk.n_patients == 140


def test_harm_is_told_against_the_reference_at_the_site_s_own_mix(served: Workspace, plant_scores: PlantScores) -> None:
    """The same classes everywhere: at one mix both risks are alike, though either site's own mix costs another risk."""
    north = plant_scores("north", 400, {"lesion@1": 2.0}, n_positive=200)
    keys = plant_scores("south", 401, {"lesion@1": 2.0}, n_positive=40)
    serving = serving_of(served, "south")
    right = replace(serving, calibration=serving.calibration.moved_to(0.1))
    found = harm_of(served, right, keys, "CT")
    assert found is not None
    assert found.accepted is not None
    assert found.risk.log_loss is not None
    excess = difference(found.risk.log_loss, found.accepted)
    assert excess.low < 0 < excess.high
    own_mix = risk_under(served, "north", "lesion", serving_of(served, "north"), north)
    assert own_mix is not None
    assert own_mix.log_loss is not None
    assert difference(found.risk.log_loss, own_mix.log_loss).high < 0


def test_what_the_source_has_made_of_its_own_calibration_hides_no_harm(
    served: Workspace, plant_scores: PlantScores
) -> None:
    plant_scores("north", 400, {"lesion@1": 2.0})
    keys = plant_scores("south", 401, {"lesion@1": 2.0})
    before = harm_of(served, serving_of(served, "south"), keys, "CT")
    north = serving_of(served, "north")
    misread = replace(north, calibration=replace(north.calibration, scale=0.1))
    change_serving(served, misread, decision_key=None, at=AT, run="r")
    after = harm_of(served, serving_of(served, "south"), keys, "CT")
    assert before is not None
    assert after is not None
    assert before.accepted == after.accepted is not None


def test_risk_is_measured_on_labelled_evaluation_patients(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 400, {"lesion@1": 2.0})
    report = risk_under(served, "south", "lesion", serving_of(served, "south"), keys)
    assert report is not None
    assert 370 < report.n_patients < 400
    assert report.auroc is not None
    assert report.auroc.low < 0.921 < report.auroc.high  # the area of two normals 2 apart is Phi(2 / sqrt 2)


def test_scans_count_by_the_inverse_of_the_chance_of_having_been_asked_for(
    served: Workspace, plant_scores: PlantScores
) -> None:
    """Positives were asked for four times as often as negatives: what is measured is what all of them would show."""
    keys = plant_scores("south", 400, {"lesion@1": 2.0})
    serving = serving_of(served, "south")
    even = risk_under(served, "south", "lesion", serving, keys)
    labels = labels_in_force(served, "lesion").to_pylist()
    asked = [
        {"site": "south", "target": "lesion", "series_key": row["series_key"], "drawn": "uniform", "run": "r",
         "requested_at": AT, "sampling_probability": 0.8 if row["value"] == "malignant" else 0.2}
        for row in labels
    ]  # fmt: skip
    served.lake.append(layout.REQUEST, rows_of(REQUEST, asked), transaction="asked")
    weighted = risk_under(served, "south", "lesion", serving, keys)
    scans = score_rows(served, "south", "lesion", "lesion@1", "r1", part="evaluation")
    losses = log_losses(scans.y, serving.calibration.probability(scans.score))
    assert even is not None
    assert weighted is not None
    assert even.log_loss is not None
    assert weighted.log_loss is not None
    assert even.log_loss.value == pytest.approx(losses.mean())
    assert weighted.log_loss.value == pytest.approx(np.average(losses, weights=np.where(scans.y == 1, 1, 4)))
    assert weighted.log_loss.low < weighted.log_loss.value < weighted.log_loss.high
    for name in ("auroc", "balanced_error"):  # told per class, and within a class all chances are equal
        assert getattr(weighted, name).value == pytest.approx(getattr(even, name).value)


def test_a_serving_that_has_not_predicted_has_no_risk(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 40, {"lesion@1": 2.0})
    serving = replace(serving_of(served, "south"), model="lesion@2")
    assert risk_under(served, "south", "lesion", serving, keys) is None


def test_the_right_prevalence_lowers_risk_and_leaves_the_auroc(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 1000, {"lesion@1": 2.0}, n_positive=150)
    serving = serving_of(served, "south")
    moved = replace(serving, calibration=serving.calibration.moved_to(0.15))
    before, after = (risk_under(served, "south", "lesion", s, keys) for s in (serving, moved))
    assert before is not None
    assert after is not None
    assert after.log_loss is not None
    assert before.log_loss is not None
    assert after.log_loss.value < before.log_loss.value - 0.02
    assert after.auroc == before.auroc


def test_a_recipe_that_takes_the_distance_away_helps(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 150, {"lesion@1": 1.5})
    plant_scores("south", 150, {"lesion@1": 1.5}, recipe="r2")
    plant_features(served, "north", "r1", plant_scores("north", 200, {"lesion@1": 1.5}), 0)
    plant_features(served, "south", "r1", keys, 1.5)
    plant_features(served, "south", "r2", keys, 0.05)
    receipt = receipt_for(served, keys)
    assert receipt.reduction is not None
    assert receipt.reduction.low > 0.5
    assert receipt.reduction.low <= receipt.reduction.value <= receipt.reduction.high
    assert receipt.helps
    assert [feature.feature for feature in receipt.features] == ["noise_hu", "q50_hu"]
    assert (receipt.n_patients, receipt.n_reference) == (150, 200)


def test_a_recipe_that_changes_nothing_does_not_help(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 150, {"lesion@1": 1.5})
    plant_scores("south", 150, {"lesion@1": 1.5}, recipe="r2")
    plant_features(served, "north", "r1", plant_scores("north", 200, {"lesion@1": 1.5}), 0)
    plant_features(served, "south", "r1", keys, 1.0)
    plant_features(served, "south", "r2", keys, 1.0)
    receipt = receipt_for(served, keys)
    assert receipt.reduction is not None
    assert receipt.reduction.value == pytest.approx(0)
    assert not receipt.helps


def test_nearer_but_riskier_does_not_help(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 300, {"lesion@1": 2.5})
    plant_scores("south", 300, {"lesion@1": 0.3}, recipe="r2")
    plant_features(served, "north", "r1", plant_scores("north", 200, {"lesion@1": 1.5}), 0)
    plant_features(served, "south", "r1", keys, 1.5)
    plant_features(served, "south", "r2", keys, 0.0)
    receipt = receipt_for(served, keys)
    assert receipt.gain is not None
    assert receipt.gain.high < 0
    assert not receipt.helps


def test_without_features_or_labels_there_is_nothing_to_say_for_a_recipe(
    served: Workspace, plant_scores: PlantScores
) -> None:
    keys = plant_scores("south", 30, {})
    receipt = receipt_for(served, keys)
    assert receipt.reduction is None
    assert receipt.gain is None
    assert not receipt.helps


def test_a_receipt_is_json(served: Workspace, plant_scores: PlantScores) -> None:
    receipt = receipt_for(served, plant_scores("south", 30, {"lesion@1": 1.0}))
    told = json.loads(json.dumps(receipt.to_json(), allow_nan=False))
    assert told["helps"] is False
    assert told["because"] == receipt.because


@pytest.mark.parametrize(
    ("reduction", "gain", "helps"),
    [
        (Estimate(0.5, 0.3, 0.7), None, True),
        (Estimate(0.1, -0.1, 0.3), None, False),
        (Estimate(0.1, -0.1, 0.3), Estimate(0.1, 0.05, 0.2), True),
        (Estimate(0.5, 0.3, 0.7), Estimate(-0.1, -0.2, -0.01), False),
        (Estimate(0.5, 0.3, 0.7), Estimate(-0.1, -0.2, 0.01), True),
        (None, None, False),
    ],
)
def test_a_recipe_helps_if_it_is_nearer_or_better_and_never_if_it_is_worse(
    reduction: Estimate | None, gain: Estimate | None, helps: bool
) -> None:
    receipt = Receipt(
        site="south",
        target="lesion",
        recipe_before="r1",
        recipe_after="r2",
        n_patients=100,
        n_reference=100,
        distance_before=None,
        distance_after=None,
        reduction=reduction,
        gain=gain,
        features=(),
    )
    assert receipt.helps is helps


def test_the_interval_of_the_reduction_holds_its_value(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 60, {"lesion@1": 1.0})
    plant_features(served, "north", "r1", plant_scores("north", 80, {"lesion@1": 1.0}), 0.0)
    plant_features(served, "south", "r1", keys, 2.0)
    plant_features(served, "south", "r2", keys, 0.1)
    reduction = receipt_for(served, keys).reduction
    assert reduction is not None
    assert reduction.low < reduction.value < reduction.high
