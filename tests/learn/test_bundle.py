"""A stored model is a MONAI bundle: MONAI alone, without this platform, gives the platform's probability."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pyarrow as pa
import pytest
import torch

from platform_core import layout
from platform_core.errors import BadInput
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, fit_recipe, parse_recipe
from platform_core.imaging.nifti import decode_volume, encode_volume
from platform_core.imaging.volume import Geometry, Volume
from platform_core.learn.bundle import METADATA, NOT_STATED, Bundle, describe, read_bundle, read_metadata, write_bundle
from platform_core.learn.calibrate import Platt
from platform_core.learn.data import Framing, frame
from platform_core.learn.networks import NETWORKS, build_network, weights_sha256
from platform_core.learn.predict import network_of
from platform_core.learn.registry import ModelRef
from platform_core.learn.segment import segment
from platform_core.manifest.schemas import FITTED_RECIPE
from platform_core.manifest.serving import Calibration
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.settings import StepSettings
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 1, tzinfo=UTC)
ALONE = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('platform_core', 'flows', 'tasks'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import monai.bundle
monai.bundle.run(config_file='configs/inference.json', image=sys.argv[1], output=sys.argv[2])
"""
CALIBRATION = Calibration(logit_offset=-0.7, prevalence=0.33, threshold=0.4)
WINDOW = Framing(grid=(16, 12, 9), window=(0.0, 100.0))
FRAMINGS = {
    "a window": WINDOW,
    "no window": Framing(grid=(7, 13, 8), window=None),
    "a plane": Framing(grid=(16, 12), window=None),
    "a plane with a window": Framing(grid=(24, 24), window=(10.0, 60.0)),
}
CLIP = StepSettings.model_validate({"harmonizer": "clip_intensity", "low": 0.0, "high": 100.0})
RESAMPLE = StepSettings.model_validate({"harmonizer": "resample", "spacing_mm": [1.5, 1.5, 2.0]})


def kept(workspace: Workspace, *steps: StepSettings) -> tuple[str, FittedRecipe]:
    """A recipe that learns nothing, as the table keeps it."""
    fitted = fit_recipe(parse_recipe(steps), [], None)
    row = {"site": "north", "target": "lesion", "recipe": fitted.name, "steps": fitted.to_json(), "created_at": AT}
    workspace.lake.append(layout.RECIPE, rows_of(FITTED_RECIPE, [row]), transaction=fitted.name)
    return fitted.name, fitted


def stored(
    workspace: Workspace, framing: Framing, *, recipe: str = layout.NATIVE, network: str = "resnet_tiny"
) -> ModelRef:
    """A version with drawn weights whose batch statistics are those of some noise."""
    net = build_network(network, len(framing.grid), seed=4)
    torch.manual_seed(3)
    with torch.no_grad():
        for _ in range(30):
            net.train()(torch.rand(4, 1, *framing.grid))
    keys = pa.table({"site": ["north"], "series_key": ["5e1e5"], "revision": [1]})
    platt = Platt(slope=1.7, intercept=0.3)
    bundle = Bundle(network_name=network, network=net.eval(), framing=framing, platt=platt, reference=keys)
    ref = ModelRef(
        model="lesion", version=2, alias="champion", parent="lesion@1", strategy="full", reference="abc",
        recipe=recipe, metrics={"north": {"auroc": 0.9}}, calibration=CALIBRATION,
        bundle_uri=write_bundle(workspace, bundle, layout.model_path("lesion", 2)), created_at=AT, since=AT, epoch=0,
    )  # fmt: skip
    describe(workspace, ref)
    return ref


def scan(framing: Framing, *, still: bool = True) -> Volume:
    """Larger than the grid along one axis, smaller along another; a plane, or a volume perhaps in time."""
    rng = np.random.default_rng(1)
    if len(framing.grid) == 2:
        return Volume(rng.integers(0, 99, (1, 30, 21)).astype(np.int16), None)
    shape = (11, 20, 9) if still else (2, 11, 20, 9)
    direction = (-1.0, 0.0, 0.0, 0.0, 0.8, -0.6, 0.0, 0.6, 0.8)
    return Volume(rng.integers(-50, 160, shape).astype(np.int16), Geometry((0.7, 0.8, 2.5), direction=direction))


def platform_s(workspace: Workspace, ref: ModelRef, volume: Volume) -> tuple[float, float]:
    """Score and probability as this platform gives them."""
    score, _ = network_of(workspace, ref)(volume)
    return score, float(CALIBRATION.probability(np.array([score]))[0])


def by_monai(root: Path, volume: Volume, *configs: str, **override: Any) -> dict[str, Any]:
    """What MONAI answers to a file, in this process."""
    (root / "scan.nii.gz").write_bytes(encode_volume(volume))
    parser = monai.bundle.ConfigParser()
    parser.read_config([str(root / "configs" / name) for name in configs or ("inference.json",)])
    parser.update({"bundle_root": str(root), "image": str(root / "scan.nii.gz"), **override})
    (answer,) = parser.get_parsed_content("evaluator").run()
    return dict(answer)


@pytest.mark.parametrize("name", FRAMINGS)
def test_monai_answers_as_the_platform_does(with_target: Workspace, name: str) -> None:
    ref = stored(with_target, FRAMINGS[name])
    volume = scan(FRAMINGS[name])
    answer = by_monai(Path(with_target.uri) / ref.bundle_uri, volume)
    assert (answer["score"], answer["probability"]) == pytest.approx(platform_s(with_target, ref, volume), abs=1e-5)
    assert answer["image"] == "scan.nii.gz"


def test_of_a_series_in_time_monai_sees_the_first_volume(with_target: Workspace) -> None:
    ref = stored(with_target, WINDOW)
    volume = scan(WINDOW, still=False)
    answer = by_monai(Path(with_target.uri) / ref.bundle_uri, volume)
    assert answer["probability"] == pytest.approx(platform_s(with_target, ref, volume)[1], abs=1e-5)


@pytest.mark.parametrize("grid", [(16, 16, 32), (32, 16)])
def test_a_segmentation_gives_the_platform_s_score_and_marks_the_file_s_own_voxels(
    with_target: Workspace, tmp_path: Path, grid: tuple[int, ...]
) -> None:
    framing = Framing(grid=grid, window=(0.0, 100.0))
    ref = stored(with_target, framing, network="unet_tiny")
    root, volume = Path(with_target.uri) / ref.bundle_uri, scan(framing)
    answer = by_monai(root, volume, mask_dir=str(tmp_path))
    assert answer["score"] == pytest.approx(platform_s(with_target, ref, volume)[0], abs=1e-5)
    network = read_bundle(with_target, ref.bundle_uri).network
    framed = frame(volume, framing)
    marks = segment(network, torch.from_numpy(framed)[None, None], threshold=CALIBRATION.threshold).marks[0, 0]
    if len(grid) == 2:
        assert answer["n_marked_of_grid"] == marks.sum()
        return
    kept = decode_volume((tmp_path / "scan.nii.gz").read_bytes())
    assert kept.size == volume.size
    assert np.array_equal(frame(kept, Framing(grid=grid, window=(0.0, 1.0))), np.where(inside(volume, grid), marks, 0))
    assert answer["n_marked_voxels"] == kept.voxels.sum() > 0


def inside(volume: Volume, grid: tuple[int, ...]) -> Any:
    """Where the network's grid holds voxels of the volume."""
    ones = Volume(np.ones_like(volume.voxels, dtype=np.float32), volume.geometry)
    ones.voxels[(0,) * 3] = 0.0  # what is padded gets the least value
    return frame(ones, Framing(grid=grid, window=(0.0, 1.0))) > 0


def test_monai_runs_a_bundle_where_this_platform_is_not_installed(with_target: Workspace, tmp_path: Path) -> None:
    recipe, fitted = kept(with_target, CLIP)
    ref = stored(with_target, WINDOW, recipe=recipe)
    root, volume = Path(with_target.uri) / ref.bundle_uri, scan(WINDOW)
    (tmp_path / "native.nii.gz").write_bytes(encode_volume(volume))
    call = [sys.executable, "-I", "-c", ALONE, str(tmp_path / "native.nii.gz"), str(tmp_path / "answers.json")]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (answer,) = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    expected = platform_s(with_target, ref, apply_recipe(fitted, volume).volume)
    assert (answer["score"], answer["probability"]) == pytest.approx(expected, abs=1e-5)
    assert read_metadata(with_target, ref.bundle_uri)["takes"].startswith("native volumes")


def test_where_the_platform_is_installed_a_native_volume_is_harmonized_first(with_target: Workspace) -> None:
    recipe, fitted = kept(with_target, RESAMPLE, CLIP)
    ref = stored(with_target, WINDOW, recipe=recipe)
    root, volume = Path(with_target.uri) / ref.bundle_uri, scan(WINDOW)
    harmonized = apply_recipe(fitted, volume).volume
    expected = platform_s(with_target, ref, harmonized)[1]
    native = by_monai(root, volume, "inference.json", "harmonize.json")
    assert native["probability"] == pytest.approx(expected, abs=1e-5)
    assert by_monai(root, harmonized)["probability"] == pytest.approx(expected, abs=1e-5)
    assert by_monai(root, volume)["probability"] != pytest.approx(expected, abs=1e-4)
    assert read_metadata(with_target, ref.bundle_uri)["takes"].startswith("volumes that recipe.json has harmonized")


def test_a_step_that_monai_would_not_repeat_is_not_left_to_it(with_target: Workspace) -> None:
    """A clip to another range than the network's window."""
    recipe, _ = kept(with_target, StepSettings.model_validate({**CLIP.model_dump(), "low": 20.0}))
    ref = stored(with_target, WINDOW, recipe=recipe)
    assert read_metadata(with_target, ref.bundle_uri)["takes"].startswith("volumes that recipe.json has harmonized")


def test_a_site_s_own_calibration_can_be_given(with_target: Workspace) -> None:
    ref = stored(with_target, WINDOW)
    answer = by_monai(Path(with_target.uri) / ref.bundle_uri, scan(WINDOW), scale=0.5, logit_offset=1.5)
    score, _ = platform_s(with_target, ref, scan(WINDOW))
    assert answer["probability"] == pytest.approx(1 / (1 + np.exp(-(0.5 * score + 1.5))), abs=1e-5)


def test_monai_loads_the_network_by_the_bundle_s_name(with_target: Workspace) -> None:
    ref = stored(with_target, WINDOW)
    root = Path(with_target.uri) / ref.bundle_uri
    net = monai.bundle.load(root.name, bundle_dir=root.parent, workflow_type="inference", source="github", device="cpu")
    ours = read_bundle(with_target, ref.bundle_uri).network
    x = torch.rand(2, 1, *WINDOW.grid)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), ours(x))


def test_the_network_takes_and_gives_what_the_metadata_says(with_target: Workspace) -> None:
    ref = stored(with_target, WINDOW)
    configs = Path(with_target.uri) / ref.bundle_uri / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    monai.bundle.verify_net_in_out("network_def", device="cpu", **files)


def test_what_is_read_back_is_what_was_stored(with_target: Workspace) -> None:
    ref = stored(with_target, WINDOW)
    first = read_bundle(with_target, ref.bundle_uri)
    again = stored(with_target, WINDOW)
    assert again.bundle_uri == ref.bundle_uri
    assert weights_sha256(read_bundle(with_target, again.bundle_uri).network) == weights_sha256(first.network)
    assert first.reference.to_pylist() == [{"site": "north", "series_key": "5e1e5", "revision": 1}]


REQUIRED = {
    "schema": str, "version": str, "monai_version": str, "pytorch_version": str, "numpy_version": str,
    "required_packages_version": dict, "task": str, "description": str, "authors": str, "copyright": str,
    "network_data_format": dict,
}  # fmt: skip
OPTIONAL = {
    "changelog": dict, "data_source": str, "data_type": str, "image_classes": str, "label_classes": str,
    "pred_classes": str, "eval_metrics": dict, "intended_use": str, "references": list,
}  # fmt: skip
TENSOR = {"type": str, "format": str, "num_channels": int, "spatial_shape": list, "dtype": str, "value_range": list,
          "is_patch_data": bool, "channel_def": dict}  # fmt: skip


@pytest.mark.parametrize("name", FRAMINGS)
def test_the_metadata_are_as_monai_s_schema_wants_them(with_target: Workspace, name: str) -> None:
    """The rules of meta_schema_20240725, written down from it: its address cannot be reached in a test."""
    facts = read_metadata(with_target, stored(with_target, FRAMINGS[name]).bundle_uri)
    for key, kind in (REQUIRED | OPTIONAL).items():
        assert isinstance(facts[key], kind), key
    sides = facts["network_data_format"]
    for tensor in [*sides["inputs"].values(), *sides["outputs"].values()]:
        assert {key: type(value) for key, value in tensor.items()} == TENSOR
    assert facts["changelog"] == {"2.0.0": "full from version 1, March 2026"}


def test_intended_use_is_what_the_settings_say_now(with_target: Workspace) -> None:
    ref = stored(with_target, WINDOW)
    assert read_metadata(with_target, ref.bundle_uri)["intended_use"] == NOT_STATED
    file = Path(with_target.uri) / layout.SETTINGS
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("\n[target.lesion]\n", '\n[target.lesion]\nintended_use = "To triage."\n'), "utf-8")
    describe(open_workspace(with_target.uri), ref)
    assert read_metadata(with_target, ref.bundle_uri)["intended_use"] == "To triage."


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_built_from_its_definition(name: str, dimensions: int) -> None:
    definition = json.loads(json.dumps(NETWORKS[name].definition(dimensions)))
    with torch.device("meta"):
        built = monai.bundle.ConfigParser({"net": definition}).get_parsed_content("net").state_dict()
        ours = NETWORKS[name].whole(dimensions).state_dict()
    assert {key: tensor.shape for key, tensor in built.items()} == {key: tensor.shape for key, tensor in ours.items()}


def test_a_bundle_without_its_metadata_is_named(with_target: Workspace) -> None:
    ref = stored(with_target, WINDOW)
    with_target.objects.delete(f"{ref.bundle_uri}/{METADATA}")
    with pytest.raises(BadInput, match=r"metadata\.json: a file of a registered model is missing"):
        describe(with_target, ref)
