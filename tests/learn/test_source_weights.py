"""A source model that starts from weights that others have made."""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from flows.cli import app
from platform_core import layout
from platform_core.errors import BadRequest, UnknownName, UnusableWeights
from platform_core.learn.built_in import built_in_path
from platform_core.learn.bundle import SourceWeights, read_bundle
from platform_core.learn.checkpoints import Checkpoint, read_checkpoint
from platform_core.learn.networks import NETWORKS
from platform_core.learn.registry import ModelRef, models
from platform_core.learn.train import fine_tune, gather, source_network, train_source
from platform_core.learn.transplant import compare
from platform_core.manifest.serving import Serving, change_serving
from platform_core.manifest.workspace import Workspace, open_workspace

AT = datetime(2026, 3, 1, tzinfo=UTC)
Plant = Callable[..., list[str]]
Choose = Callable[[str, int], list[str]]
Tensors = dict[str, torch.Tensor]


def with_lines(workspace: Workspace, **lines: object) -> Workspace:
    """The workspace with more settings for its target."""
    file = Path(workspace.uri) / layout.SETTINGS
    head = "\n[target.lesion]\n"  # the template has a commented one
    text = "".join(f"{key} = {value!r}\n" for key, value in lines.items())
    file.write_text(file.read_text(encoding="utf-8").replace(head, head + text), encoding="utf-8")
    return open_workspace(workspace.uri)


def published(name: str, dimensions: int) -> Tensors:
    """What the makers of a network publish: its state by its own names."""
    torch.manual_seed(7)
    return dict(NETWORKS[name].whole(dimensions).state_dict())


def saved(tensors: Tensors) -> bytes:
    out = BytesIO()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, out)
    return out.getvalue()


@pytest.fixture
def ready(with_target: Workspace, plant: Plant, patients_in: Choose) -> Workspace:
    """Scans enough, and a learning rate that leaves weights where they are."""
    plant("north", 34, patients=patients_in("train", 24) + patients_in("validation", 10))
    file = Path(with_target.uri) / layout.SETTINGS
    text = file.read_text(encoding="utf-8")
    head = "[target.lesion.train]\n"
    file.write_text(text.replace(head, head + "learning_rate = 1e-9\n"), encoding="utf-8")
    return open_workspace(with_target.uri)


def trained(workspace: Workspace) -> ModelRef:
    return train_source(workspace, "lesion", run="run", at=AT, recipe="r1")


@pytest.mark.parametrize("dimensions", [3, 2])
def test_the_source_model_starts_from_the_weights_that_its_target_names(ready: Workspace, dimensions: int) -> None:
    data = saved(published("resnet_tiny", dimensions))
    ready.objects.put("weights/tiny.pth", data)
    here = with_lines(ready, source_weights="weights/tiny.pth")
    made = trained(here)
    bundle = read_bundle(here, made.bundle_uri)
    found = bundle.network.state_dict()["blocks.block2.0.conv1.weight"]
    expected = published("resnet_tiny", dimensions)["layer2.0.conv1.weight"]
    if dimensions == 2:
        expected = torch.stack([expected / 3] * 3, dim=2)
    assert torch.allclose(found, expected, atol=1e-6)
    assert bundle.source_weights == SourceWeights(where="weights/tiny.pth", sha256=sha256(data).hexdigest(), share=1.0)
    assert (made.strategy, made.alias, made.parent) == ("from_weights", "champion", None)


@pytest.mark.parametrize("dimensions", [3, 2])
def test_by_default_a_source_model_starts_from_the_weights_that_come_with_the_platform(dimensions: int) -> None:
    file = built_in_path("resnet_tiny", dimensions)
    found = Checkpoint(where=file.name, sha256="", tensors=read_checkpoint(file.read_bytes(), file.name))
    assert compare(found, "resnet_tiny", dimensions).share == 1.0
    assert file.stat().st_size < 5e6


def test_the_built_in_weights_are_named_without_a_path_of_this_machine(ready: Workspace) -> None:
    made = trained(ready)
    kept = read_bundle(ready, made.bundle_uri).source_weights
    assert kept is not None
    assert (kept.where, kept.share, made.strategy) == ("built-in resnet_tiny_3d", 1.0, "from_weights")


def test_a_network_without_built_in_weights_starts_from_nothing(ready: Workspace) -> None:
    here = with_lines(ready, network="resnet10")
    assert source_network(here, "lesion")[1] is None


def test_whoever_asks_for_nothing_gets_it(ready: Workspace) -> None:
    here = with_lines(ready, source_weights="nothing")
    made = trained(here)
    assert read_bundle(here, made.bundle_uri).source_weights is None
    assert made.strategy == "from_scratch"


def test_from_scratch_means_from_nothing_even_where_there_are_source_weights(
    ready: Workspace, plant: Plant, patients_in: Choose
) -> None:
    ready.objects.put("w.pth", saved(published("resnet_tiny", 3)))
    here = with_lines(ready, source_weights="w.pth")
    made = trained(here)
    serving = Serving(
        site="north", target="lesion", model=made.name, recipe="r1", calibration=made.calibration, epoch=-1
    )
    change_serving(here, serving, decision_key=None, at=AT, run="run")
    keys = plant("south", 24, patients=patients_in("train", 24))
    material = gather(here, "lesion", "south", keys=keys, recipe="r1")
    new = fine_tune(here, material, "from_scratch", run="run", at=AT)
    bundle = read_bundle(here, new.bundle_uri)
    assert bundle.source_weights is None
    found = bundle.network.state_dict()["blocks.block2.0.conv1.weight"]
    assert not torch.allclose(found, published("resnet_tiny", 3)["layer2.0.conv1.weight"], atol=1e-2)


def test_a_champion_keeps_its_network_whatever_the_settings_say_now(
    ready: Workspace, plant: Plant, patients_in: Choose
) -> None:
    made = trained(ready)
    serving = Serving(
        site="north", target="lesion", model=made.name, recipe="r1", calibration=made.calibration, epoch=-1
    )
    change_serving(ready, serving, decision_key=None, at=AT, run="run")
    here = with_lines(ready, network="resnet10")
    keys = plant("south", 24, patients=patients_in("train", 24))
    material = gather(here, "lesion", "south", keys=keys, recipe="r1")
    new = fine_tune(here, material, "linear_probe", run="run", at=AT)
    assert read_bundle(here, new.bundle_uri).network_name == "resnet_tiny"


def test_weights_of_another_network_make_no_model(ready: Workspace) -> None:
    ready.objects.put("w.pth", saved(published("resnet10", 2)))
    here = with_lines(ready, source_weights="w.pth")
    with pytest.raises(UnusableWeights, match="set network = 'resnet10'"):
        trained(here)
    assert models(here) == []


def test_weights_that_were_exchanged_make_no_model(ready: Workspace) -> None:
    ready.objects.put("w.pth", saved(published("resnet_tiny", 3)))
    here = with_lines(ready, source_weights="w.pth", source_weights_sha256="0" * 64)
    with pytest.raises(UnusableWeights, match="expected sha256"):
        trained(here)


def test_a_network_that_needs_a_larger_grid_says_so(ready: Workspace) -> None:
    with pytest.raises(BadRequest, match=r"densenet121 needs 32 voxels .* the grid is \(8, 8, 8\)"):
        trained(with_lines(ready, network="densenet121"))


def test_an_unknown_network_is_named_with_those_that_exist(ready: Workspace) -> None:
    with pytest.raises(UnknownName, match="resnet18"):
        trained(with_lines(ready, network="resnet19"))


def test_the_command_line_refuses_weights_before_any_work(ready: Workspace) -> None:
    ready.objects.put("w.pth", saved(published("resnet10", 2)))
    here = with_lines(ready, source_weights="w.pth")
    told = CliRunner().invoke(app, ["train", "lesion", "--workspace", here.uri])
    assert isinstance(told.exception, UnusableWeights)
    assert here.lake.read(layout.RECIPE).num_rows == 0
