from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import pytest

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.manifest.schemas import STAGE
from platform_core.manifest.workspace import Workspace
from platform_core.shift.scores import label_and_score_rows
from platform_core.shift.stage import Finding, findings, measure_shift
from platform_core.storage.tables import rows_of
from tests.shift.planted import AT, MODEL, RECIPE, Month, accept, fill, keys_of, prepare

SOURCE = Month(site="a", n=500)


@pytest.fixture
def ready(workspace: Workspace) -> Workspace:
    """A source site with one period, and site b that runs its model."""
    ready = prepare(workspace, "a", "b")
    fill(ready, SOURCE)
    return ready


def measure(workspace: Workspace, site: str = "b", target: str | None = "lesion") -> Finding:
    (found,) = measure_shift(workspace, site, target=target, run="r", at=AT)
    return found


def test_nothing_planted_nothing_found(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1))
    found = measure(ready)
    assert found.kind == "none"
    assert found.reference == "b@2024-01-01"
    assert found.explained_by.startswith("nothing moved beyond chance")


def test_a_new_scanner_is_acquisition_shift_with_its_name(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, noise_hu=17, scanner_model="S2"))
    found = measure(ready)
    assert found.kind == "covariate_acquisition"
    assert found.size == pytest.approx(1.0, abs=0.02)
    assert found.size is not None
    assert found.low is not None
    assert found.high is not None
    assert 0.9 < found.low <= found.size <= found.high
    assert "noise_immerkaer_hu rose from 10" in found.explained_by
    assert "scanner_model 'S2' unseen before (100% of patients)" in found.explained_by
    assert "label status not determined" in found.explained_by


def test_more_positives_are_label_shift_of_that_size(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, n=500, prevalence=0.7))
    found = measure(ready)
    assert found.kind == "label"
    assert found.size == pytest.approx(0.3, abs=0.12)
    assert found.low is not None
    assert found.low > 0
    assert "acquisition is as before" in found.explained_by


def test_other_patients_are_case_mix(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, median_hu=50, spread=2.5))
    found = measure(ready)
    assert found.kind == "covariate_case_mix"
    assert "no mixture of the reference's classes explains the scores" in found.explained_by


def test_noise_that_moves_scores_is_never_called_prevalence(ready: Workspace) -> None:
    """The correction would do harm: .38 to .70 error in the experiment that fixed this rule."""
    fill(ready, Month(site="b"), Month(site="b", number=1, prevalence=0.8, noise_hu=12))
    assert measure(ready).kind == "covariate_acquisition"


def test_a_recognisable_hospital_whose_task_is_sound_is_accepted_at_onboarding(ready: Workspace) -> None:
    fill(ready, Month(site="b", noise_hu=15))
    found = measure(ready)
    assert found.kind == "none"
    assert found.reference == MODEL
    assert "noise_immerkaer_hu differs from the reference's" in found.explained_by
    assert "does not disturb the task" in found.explained_by


def test_a_hospital_whose_scores_no_mixture_explains_is_shifted_at_onboarding(ready: Workspace) -> None:
    fill(ready, Month(site="b", noise_hu=15, spread=3, scanner_model="S9"))
    found = measure(ready)
    assert found.kind == "covariate_acquisition"
    assert "the task is disturbed" in found.explained_by
    assert "scanner_model 'S9'" in found.explained_by


def test_another_prevalence_at_onboarding_is_label_shift(ready: Workspace) -> None:
    fill(ready, Month(site="b", prevalence=0.8))
    assert measure(ready).kind == "label"


def test_labels_that_mean_something_else_are_concept_shift(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=2, n=300, flips=0.45))
    found = measure(ready)
    assert found.kind == "concept"
    assert found.target_risk is not None
    assert found.source_risk is not None
    assert found.target_risk > found.source_risk


def test_few_patients_are_undetermined_and_say_how_many_are_missing(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, n=25, noise_hu=30))
    found = measure(ready)
    assert (found.kind, found.n_needed) == ("undetermined", 35)
    assert found.explained_by == "the period has 25 patients; a verdict needs 60"


def test_one_scan_is_undetermined(ready: Workspace) -> None:
    fill(ready, Month(site="b", n=1))
    found = measure(ready)
    assert (found.kind, found.n_needed) == ("undetermined", 59)
    assert found.explained_by.startswith("the period has 1 patient;")


def test_a_site_without_scans_has_no_finding(ready: Workspace) -> None:
    assert measure_shift(ready, "b", target="lesion", run="r", at=AT) == []


def test_the_source_is_its_own_reference_at_first_and_is_then_watched(ready: Workspace) -> None:
    first = measure(ready, "a")
    assert (first.kind, first.explained_by[:28]) == ("none", "this period is the reference")
    fill(ready, Month(site="a", number=1, noise_hu=17))
    assert measure(ready, "a").kind == "covariate_acquisition"


def test_an_accepted_period_is_what_later_ones_are_held_against(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, noise_hu=17))
    accept(ready, "b", measure(ready).finding_key)
    again = measure(ready)
    assert (again.kind, again.reference) == ("none", MODEL)
    fill(ready, Month(site="b", number=2, noise_hu=17))
    after = measure(ready)
    assert (after.kind, after.reference) == ("none", "b@2024-01-29")
    fill(ready, Month(site="b", number=3))
    assert measure(ready).kind == "covariate_acquisition"


def test_strata_are_measured_apart_and_the_largest_comes_first(ready: Workspace) -> None:
    sharp = "ct/chest/plain/sharp"
    fill(ready, Month(site="b"), Month(site="b", number=1), Month(site="b", number=1, n=30, stratum=sharp))
    found = measure_shift(ready, "b", target="lesion", run="r", at=AT)
    assert [(f.stratum, f.kind, f.n_needed) for f in found] == [
        (SOURCE.stratum, "none", None),
        (sharp, "undetermined", 30),
    ]


def test_equal_inputs_make_one_finding_that_is_written_once(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1))
    first = measure(ready)
    versions = [ready.lake.version(table) for table in (layout.FINDING, layout.SHIFT)]
    (again,) = measure_shift(Workspace(ready.uri), "b", target="lesion", run="another", at=AT)
    assert again == first
    assert [ready.lake.version(table) for table in (layout.FINDING, layout.SHIFT)] == versions
    assert findings(ready, "b") == [first]
    assert findings(ready) == [first]


def test_a_new_label_makes_a_new_finding(ready: Workspace) -> None:
    month = Month(site="b", is_labelled=False)
    fill(ready, month)
    first = measure(ready)
    row = {"site": "b", "target": "lesion", "series_key": keys_of(month)[0], "value": "1", "run": "r"}
    ready.lake.append(layout.LABEL, rows_of(ready.lake.schemas[layout.LABEL], [row]), transaction="one")
    assert measure(ready).finding_key != first.finding_key


def test_features_that_arrive_late_make_a_new_finding(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are measured again at the same revision once there is memory for it."""
    fill(ready, Month(site="b"))
    held, append = [], type(ready.lake).append

    def without_features(lake: Any, table: str, rows: Any, *, transaction: str) -> int:
        if table != layout.FEATURE:
            return append(lake, table, rows, transaction=transaction)
        held.append((rows, transaction))
        return int(rows.num_rows)

    with monkeypatch.context() as late:
        late.setattr(type(ready.lake), "append", without_features)
        fill(ready, Month(site="b", number=1, noise_hu=17, prevalence=0.75))
    first = measure(ready)
    for rows, transaction in held:
        ready.lake.append(layout.FEATURE, rows, transaction=transaction)
    again = measure(ready)
    assert (first.kind, again.kind) == ("undetermined", "covariate_acquisition")
    assert first.finding_key != again.finding_key


def test_every_statistic_of_every_comparison_is_written(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1))
    measure(ready)
    rows = ready.lake.read(layout.SHIFT).to_pylist()
    compared = {(row["recipe"], row["reference"]) for row in rows}
    assert compared == {("native", "b@2024-01-01"), ("native", MODEL), (RECIPE, MODEL)}
    distances = {"ks", "psi", "wasserstein", "jensen_shannon", "mmd"}
    estimates = {"prevalence_from_scores", "fit_from_scores", "prevalence_from_calls", "prevalence_from_labels"}
    assert {row["statistic"] for row in rows} == distances | estimates
    assert {row["feature"] for row in rows} >= {"noise_immerkaer_hu", "spacing_z_mm", "score", "embedding"}
    ks = [row for row in rows if row["statistic"] == "ks"]
    assert all(row["low"] <= row["value"] <= row["high"] and 0 <= row["evidence"] <= 1 for row in ks)
    assert all(row["n_current"] == 150 for row in rows)


def test_scores_are_held_against_patients_that_training_never_saw(ready: Workspace) -> None:
    fill(ready, Month(site="b"))
    measure(ready)
    rows = ready.lake.read(layout.SHIFT, pc.field("feature") == "score").to_pylist()
    held_out = label_and_score_rows(ready, "a", "lesion", MODEL, RECIPE, part="evaluation")
    assert {row["n_reference"] for row in rows} == {len(held_out)}
    assert 0 < len(held_out) < SOURCE.n


def test_scans_refused_by_quality_do_not_count(ready: Workspace) -> None:
    month = Month(site="b", n=80)
    fill(ready, month)
    refused = [
        {"site": "b", "series_key": key, "revision": 1, "stage": "quality", "outcome": "refused", "run": "r"}
        for key in keys_of(month)[:30]
    ]
    ready.lake.append(layout.STAGE, rows_of(STAGE, refused), transaction="refused")
    found = measure(ready)
    assert (found.kind, found.n_needed) == ("undetermined", 10)


def test_images_alone_are_measured_before_there_is_a_target(ready: Workspace) -> None:
    fill(ready, Month(site="c"), Month(site="c", number=1, noise_hu=17))
    found = measure(ready, "c", target=None)
    assert (found.kind, found.target, found.model) == ("covariate_acquisition", None, None)
    assert "label status" not in found.explained_by


def test_a_site_that_runs_nothing_yet_is_measured_by_its_images(ready: Workspace) -> None:
    fill(ready, Month(site="c"))
    found = measure(ready, "c")
    assert (found.kind, found.model) == ("none", None)
    assert "no scores yet" in found.explained_by


def test_an_unknown_target_is_named(ready: Workspace) -> None:
    with pytest.raises(UnknownName, match="lesion"):
        measure(ready, target="fracture")


@pytest.mark.parametrize(
    "month",
    [
        Month(site="b", number=1, missing=("noise_immerkaer_hu",)),
        Month(site="b", number=1, is_labelled=False),
        Month(site="b", number=1, recipe="recipe-never-predicted"),
    ],
    ids=["a feature without values", "no labels", "no scores"],
)
def test_what_is_missing_is_left_out(ready: Workspace, month: Month) -> None:
    fill(ready, Month(site="b"), month)
    assert measure(ready).kind == "none"


def test_a_period_without_features_is_not_called_quiet(ready: Workspace) -> None:
    missing = ("noise_immerkaer_hu", "spacing_z_mm", "q50_hu")
    fill(ready, Month(site="b"), Month(site="b", number=1, missing=missing))
    assert measure(ready).kind == "undetermined"


def test_without_source_labels_prevalence_cannot_be_told_and_that_is_said(workspace: Workspace) -> None:
    ready = prepare(workspace, "a", "b")
    fill(ready, replace(SOURCE, is_labelled=False), Month(site="b"), Month(site="b", number=1, prevalence=0.9))
    found = measure(ready)
    assert found.kind != "label"
    assert "prevalence cannot be told: labelled reference patients of each class" in found.explained_by
    assert found.source_risk is None


def test_terms_of_the_bound_are_reported_where_the_data_can_tell(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, noise_hu=20))
    found = measure(ready)
    for name in ("source_risk", "divergence", "target_risk"):
        low, value, high = (getattr(found, f"{name}{end}") for end in ("_low", "", "_high"))
        assert low <= value <= high
    assert found.divergence is not None
    assert found.divergence > 1
    assert found.joint_risk is None


def test_findings_never_name_a_patient(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, noise_hu=17))
    measure(ready)
    for table in (layout.FINDING, layout.SHIFT):
        assert "patient-b" not in str(ready.lake.read(table).to_pylist())


def test_prevalence_is_written_three_ways_with_interval_and_evidence(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, n=500, prevalence=0.7))
    found = measure(ready)
    rows = {row["statistic"]: row for row in ready.lake.read(layout.SHIFT).to_pylist()}
    for statistic in ("prevalence_from_scores", "prevalence_from_calls", "prevalence_from_labels"):
        row = rows[statistic]
        assert row["low"] < row["value"] < row["high"]
        assert row["value"] == pytest.approx(0.7, abs=0.12)
        assert (row["n_current"], row["reference"]) == (500, MODEL)
    assert rows["prevalence_from_scores"]["evidence"] < 0.01
    assert rows["prevalence_from_labels"]["evidence"] < 0.01
    assert rows["prevalence_from_calls"]["evidence"] > 0.01
    assert "by calls" in found.explained_by
    assert "of 500 labels are positive" in found.explained_by


def test_without_labels_of_the_site_the_reference_foretells_the_risk(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, is_labelled=False))
    found = measure(ready)
    assert (found.target_risk, found.kind) == (None, "none")
    assert found.expected_risk is not None
    assert found.expected_risk == pytest.approx(found.source_risk, abs=0.1)
    assert found.expected_risk_low is not None
    assert found.expected_risk_high is not None
    assert found.expected_risk_low < found.expected_risk < found.expected_risk_high


def test_no_risk_is_foretold_from_scores_that_another_scanner_made(ready: Workspace) -> None:
    fill(ready, Month(site="b"), Month(site="b", number=1, noise_hu=17))
    assert measure(ready).expected_risk is None
