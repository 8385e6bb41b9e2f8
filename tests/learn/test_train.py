"""Models are made from patients of the train part, and refused where there is too little to learn from."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from platform_core import layout
from platform_core.errors import BadInput, BadRequest, EmptySample, UnknownName
from platform_core.learn.bundle import CALIBRATION, INFERENCE, LICENSE, METADATA, README, RECIPE, WEIGHTS, read_bundle
from platform_core.learn.networks import weights_sha256
from platform_core.learn.predict import predict_shard
from platform_core.learn.registry import REFERENCE, ModelRef, champion, models, trained_on
from platform_core.learn.train import fine_tune, gather, train_source
from platform_core.manifest.serving import Calibration, Serving, change_serving
from platform_core.manifest.workspace import Workspace

AT = datetime(2026, 3, 1, tzinfo=UTC)
Plant = Callable[..., list[str]]
Choose = Callable[[str, int], list[str]]


@pytest.fixture
def source(with_target: Workspace, plant: Plant, patients_in: Choose) -> ModelRef:
    """A source model, served at its own site, which has patients in all parts."""
    plant(
        "north", 60, patients=patients_in("train", 24) + patients_in("validation", 24) + patients_in("evaluation", 12)
    )
    made = train_source(with_target, "lesion", run="run", at=AT, recipe="r1")
    serving = Serving(
        site="north", target="lesion", model=made.name, recipe="r1", calibration=made.calibration, epoch=-1
    )
    change_serving(with_target, serving, decision_key=None, at=AT, run="run")
    return made


def test_the_first_model_is_champion(with_target: Workspace, source: ModelRef) -> None:
    assert source.name == "lesion@1"
    assert source.alias == "champion"
    assert source.strategy == "from_weights"  # from the weights that come with the platform
    assert champion(with_target, "lesion") == source


def test_only_patients_of_the_train_part_move_weights(
    with_target: Workspace, source: ModelRef, patients_in: Choose
) -> None:
    expected = {("north", f"north-s{name}") for name in patients_in("train", 24)}
    assert trained_on(with_target, source) == expected


def test_the_calibration_assumes_the_prevalence_of_the_source(source: ModelRef) -> None:
    assert source.calibration.prevalence == pytest.approx(0.5, abs=0.02)
    assert source.calibration.threshold == 0.5


def test_equal_data_and_seed_make_equal_weights(with_target: Workspace, source: ModelRef) -> None:
    again = train_source(with_target, "lesion", run="run2", at=AT, recipe="r1")
    assert again.alias == "challenger"
    first, second = (read_bundle(with_target, ref.bundle_uri) for ref in (source, again))
    assert weights_sha256(first.network) == weights_sha256(second.network)
    assert again.reference == source.reference


def test_a_few_held_out_patients_are_joined_by_cross_fitted_ones(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    plant("north", 26, patients=patients_in("train", 24) + patients_in("validation", 2))
    made = train_source(with_target, "lesion", run="run", at=AT, recipe="r1")
    assert made.metrics["north"]["n_held_out"] == 26


@pytest.mark.parametrize("strategy", ["linear_probe", "from_scratch"])
def test_a_challenger_learns_from_the_site_and_from_the_source(
    with_target: Workspace, source: ModelRef, plant: Plant, patients_in: Choose, strategy: str
) -> None:
    names = [f"train{i}x" for i in range(200)]
    keys = plant("south", 200, patients=names, recipe="r2", series=[f"s{i}" for i in range(200)])
    material = gather(with_target, "lesion", "south", keys=keys, recipe="r2")
    made = fine_tune(with_target, material, strategy, run="run", at=AT)
    assert (made.name, made.alias, made.parent) == ("lesion@2", "challenger", "lesion@1")
    own = read_bundle(with_target, made.bundle_uri).reference.to_pylist()
    sites = [row["site"] for row in own]
    assert 60 < sites.count("south") < 140
    assert 0 < sites.count("north") < 24
    assert trained_on(with_target, made) >= trained_on(with_target, source)
    assert champion(with_target, "lesion") == source


def test_series_that_were_not_named_are_not_used(
    with_target: Workspace, source: ModelRef, plant: Plant, patients_in: Choose
) -> None:
    named = plant("south", 24, patients=[f"{name}" for name in patients_in("train", 24)], recipe="r2")
    plant("south", 1, patients=["another"], recipe="r2")
    material = gather(with_target, "lesion", "south", keys=named, recipe="r2")
    made = fine_tune(with_target, material, "linear_probe", run="r", at=AT)
    south = {key for site, key in trained_on(with_target, made) if site == "south"}
    assert south == set(named)


def test_a_scan_that_cannot_be_read_is_counted(with_target: Workspace, plant: Plant, patients_in: Choose) -> None:
    first, *_ = plant("north", 25, patients=patients_in("train", 25))
    with_target.objects.put(layout.volume_path("north", "r1", first, 1), b"no image")
    made = train_source(with_target, "lesion", run="run", at=AT, recipe="r1")
    assert (made.metrics["north"]["n_train"], made.metrics["north"]["n_left_out"]) == (24, 1)


def test_one_class_only_is_refused(with_target: Workspace, plant: Plant, patients_in: Choose) -> None:
    plant("north", 30, patients=patients_in("train", 30), labels=["benign"] * 30)
    with pytest.raises(EmptySample, match="positive patients of north"):
        train_source(with_target, "lesion", run="run", at=AT, recipe="r1")
    assert models(with_target) == []


def test_ten_patients_are_refused(with_target: Workspace, plant: Plant, patients_in: Choose) -> None:
    plant("north", 10, patients=patients_in("train", 10))
    with pytest.raises(EmptySample, match="needs at least 20, found 10"):
        train_source(with_target, "lesion", run="run", at=AT, recipe="r1")


def test_many_scans_of_few_patients_are_few_patients(with_target: Workspace, plant: Plant, patients_in: Choose) -> None:
    names = patients_in("train", 10)
    plant("north", 30, patients=names * 3, series=[f"s{i}" for i in range(30)])
    with pytest.raises(EmptySample, match="found 10"):
        train_source(with_target, "lesion", run="run", at=AT, recipe="r1")


def test_fine_tuning_without_a_champion_is_refused(with_target: Workspace, plant: Plant) -> None:
    keys = plant("south", 4)
    with pytest.raises(BadRequest, match="train its source model first"):
        gather(with_target, "lesion", "south", keys=keys, recipe="r1")


def test_an_unknown_strategy_or_site_is_named(
    with_target: Workspace, source: ModelRef, plant: Plant, patients_in: Choose
) -> None:
    keys = plant("south", 24, patients=patients_in("train", 24))
    material = gather(with_target, "lesion", "south", keys=keys, recipe="r1")
    with pytest.raises(UnknownName, match="linear_probe"):
        fine_tune(with_target, material, "magic", run="run", at=AT)
    with pytest.raises(UnknownName, match="north, south"):
        gather(with_target, "lesion", "west", keys=[], recipe="r1")


def test_the_same_picture_under_both_classes_moves_no_weight(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    """Two labels of one picture: nobody knows which is wrong."""
    keys = plant("north", 26, patients=patients_in("train", 26))
    first, second = (layout.volume_path("north", "r1", key, 1) for key in keys[:2])
    with_target.objects.put(second, with_target.objects.get(first))
    made = train_source(with_target, "lesion", run="run", at=AT, recipe="r1")
    assert (made.metrics["north"]["n_train"], made.metrics["north"]["n_left_out"]) == (24, 2)
    assert trained_on(with_target, made) == {("north", key) for key in keys[2:]}


def test_what_a_version_cost_is_kept(with_target: Workspace, source: ModelRef) -> None:
    """24 scans embedded for the head (8 passes), then an epoch over all; validation suffices to calibrate, no folds."""
    spent = champion(with_target, "lesion")
    assert spent is not None
    assert spent.training is not None
    assert spent.training["n_scan_passes"] == pytest.approx(8 + 24)
    assert spent.training["seconds"] > 0
    assert spent.training["race_key"] is None
    assert spent.training["device"]


def test_a_recipe_that_was_never_fitted_is_asked_for(with_target: Workspace) -> None:
    with pytest.raises(BadRequest, match="never fitted"):
        train_source(with_target, "lesion", run="run", at=AT)


def test_the_serving_of_the_source_says_its_recipe(with_target: Workspace, source: ModelRef) -> None:
    assert train_source(with_target, "lesion", run="run2", at=AT).recipe == "r1"


def test_a_bundle_is_laid_out_as_monai_lays_it_out(with_target: Workspace, source: ModelRef) -> None:
    paths = {path.removeprefix(source.bundle_uri + "/") for path in with_target.objects.list(source.bundle_uri)}
    assert paths == {METADATA, INFERENCE, RECIPE, CALIBRATION, WEIGHTS, REFERENCE, LICENSE, README}
    assert source.bundle_uri.startswith(layout.model_path("lesion", 1))


def test_weights_that_were_changed_are_not_loaded(with_target: Workspace, source: ModelRef) -> None:
    path = f"{source.bundle_uri}/{WEIGHTS}"
    data = bytearray(with_target.objects.get(path))
    data[-1] ^= 1
    with_target.objects.put(path, bytes(data))
    with pytest.raises(BadInput, match="not the weights that were stored"):
        read_bundle(with_target, source.bundle_uri)


def test_a_missing_file_of_a_model_is_named(with_target: Workspace, source: ModelRef) -> None:
    with_target.objects.delete(f"{source.bundle_uri}/{WEIGHTS}")
    with pytest.raises(BadInput, match="missing"):
        read_bundle(with_target, source.bundle_uri)


def test_prediction_is_done_once(with_target: Workspace, source: ModelRef) -> None:
    scans = sorted(key for _, key in trained_on(with_target, source))[:5]
    ask = {"target": "lesion", "model": "lesion@1", "recipe": "r1", "run": "run"}
    first = predict_shard(with_target, "north", scans, **ask)
    second = predict_shard(with_target, "north", scans, **ask)
    assert (first.n_in, first.n_done) == (5, 5)
    assert second.n_in == 0
    rows = with_target.lake.read(layout.PREDICTION).to_pylist()
    assert sorted(row["series_key"] for row in rows) == scans


def test_a_prediction_is_a_score_its_probabilities_and_an_embedding(with_target: Workspace, source: ModelRef) -> None:
    scans = sorted(key for _, key in trained_on(with_target, source))[:3]
    predict_shard(with_target, "north", scans, target="lesion", model="lesion@1", recipe="r1", run="run")
    for row in with_target.lake.read(layout.PREDICTION).to_pylist():
        calibration = Calibration(logit_offset=0, prevalence=0.5, threshold=0.5)
        assert row["probability"][1] == pytest.approx(calibration.probability(row["score"]))
        assert sum(row["probability"]) == pytest.approx(1)
        assert len(row["embedding"]) == 64


def test_what_cannot_be_predicted_is_refused_with_its_reason(
    with_target: Workspace, source: ModelRef, plant: Plant
) -> None:
    flat = plant("south", 1, patients=["flat"], shape=(1, 8, 8))
    other = plant("south", 1, patients=["other"], modality="MR")
    broken = plant("south", 1, patients=["broken"])
    absent = plant("south", 1, patients=["absent"], recipe="elsewhere")
    good = plant("south", 1, patients=["good"])
    with_target.objects.put(layout.volume_path("south", "r1", broken[0], 1), b"no image")
    keys = [*flat, *other, *broken, *absent, *good]
    count = predict_shard(with_target, "south", keys, target="lesion", model="lesion@1", recipe="r1", run="run")
    assert (count.n_in, count.n_done, count.n_refused) == (5, 1, 4)
    rows = [row for row in with_target.lake.read(layout.STAGE).to_pylist() if row["stage"] == "predict"]
    assert {row["series_key"]: row["reason"] for row in rows} == {
        flat[0]: "wrong_dimensions",
        other[0]: "other_modality",
        broken[0]: "not_nifti",
        absent[0]: "no_volume",
        good[0]: None,
    }


def test_an_unknown_model_does_not_predict(with_target: Workspace, source: ModelRef) -> None:
    with pytest.raises(UnknownName, match="lesion@1"):
        predict_shard(with_target, "north", [], target="lesion", model="lesion@7", recipe="r1", run="run")
