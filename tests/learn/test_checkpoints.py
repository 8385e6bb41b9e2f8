"""Weights that others have made: every format on a small file made here, and what is refused."""

import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet
from torch import nn

from platform_core.errors import StorageUnavailable, UnusableWeights
from platform_core.learn import checkpoints
from platform_core.learn.checkpoints import Checkpoint, find_checkpoint, read_checkpoint
from platform_core.learn.networks import NETWORKS, build_network, public_names, weights_sha256
from platform_core.learn.transplant import compare, transplant
from platform_core.manifest.workspace import Workspace

Tensors = dict[str, torch.Tensor]


def tiny(dimensions: int, *, channels: int = 1, classes: int = 1, seed: int = 5, bias: bool = False) -> ResNet:
    """MONAI's network that `resnet_tiny` is cut from, with buffers of its own."""
    torch.manual_seed(seed)
    net = ResNet(
        "basic",
        [1, 1, 1, 1],
        [8, 16, 32, 64],
        spatial_dims=dimensions,
        n_input_channels=channels,
        conv1_t_size=3,
        conv1_t_stride=(1, 2, 2)[-dimensions:],
        no_max_pool=True,
        num_classes=classes,
        bias_downsample=bias,
    )
    with torch.no_grad():
        for _ in range(30):  # running statistics near those of the data
            net.train()(torch.rand(4, channels, *[8] * dimensions))
    return net.eval()


def saved(content: object) -> bytes:
    out = BytesIO()
    torch.save(content, out)
    return out.getvalue()


def checkpoint(tensors: Tensors) -> Checkpoint:
    return Checkpoint(where="w.pt", sha256="", tensors=read_checkpoint(saved(tensors), "w.pt"))


def body(net: ResNet, x: torch.Tensor) -> torch.Tensor:
    """What goes into the last layer of MONAI's network."""
    seen: list[torch.Tensor] = []
    handle = net.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        net(x)
    handle.remove()
    return seen[0]


def bundle_zip(tensors: Tensors) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("lung/configs/inference.json", '{"network": {"_target_": "os.abort"}}')
        archive.writestr("lung/models/model.pt", saved(tensors))
    return out.getvalue()


def _legacy(tensors: Tensors) -> bytes:
    out = BytesIO()
    torch.save(tensors, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


FORMATS: dict[str, Callable[[Tensors], bytes]] = {
    "safetensors": safetensors.torch.save,
    "pytorch": saved,
    "pytorch of before 1.6": _legacy,
    "MedicalNet": lambda tensors: saved({"state_dict": {f"module.{k}": v for k, v in tensors.items()}, "epoch": 3}),
    "a training script": lambda tensors: saved({"optimizer": {"state": {}}, "model": tensors, "epoch": 3}),
    "lightning": lambda tensors: saved({"state_dict": {f"model.net.{k}": v for k, v in tensors.items()}}),
    "MONAI bundle as a zip": bundle_zip,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_network(name: str) -> None:
    net = tiny(3)
    read = read_checkpoint(FORMATS[name](net.state_dict()), "w")
    ours = build_network("resnet_tiny", 3).eval()
    match = transplant(Checkpoint(where="w", sha256="", tensors=read), ours, "resnet_tiny", 3)
    x = torch.rand(2, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.allclose(ours.embed(x), body(net, x), atol=1e-6)
    assert (match.share, match.adapted) == (1.0, ())


def test_a_bundle_may_be_a_folder_of_the_workspace_or_anywhere(workspace: Workspace, tmp_path: Path) -> None:
    data = saved(tiny(2).state_dict())
    workspace.objects.put("models/lung/models/model.pt", data)
    elsewhere = tmp_path / "lung" / "models" / "model.safetensors"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(safetensors.torch.save(tiny(2).state_dict()))
    inside, outside = (find_checkpoint(workspace, p) for p in ("models/lung/", str(tmp_path / "lung")))
    assert inside.tensors.keys() == outside.tensors.keys()
    assert inside.sha256 == hashlib.sha256(data).hexdigest()


def test_a_model_of_ours_can_be_started_from() -> None:
    source, ours = build_network("resnet_tiny", 2, seed=1), build_network("resnet_tiny", 2, seed=2)
    data = safetensors.torch.save({k: v.contiguous() for k, v in source.state_dict().items()})
    tensors = read_checkpoint(data, "model.safetensors")
    head = {name: tensor.clone() for name, tensor in ours.head.state_dict().items()}
    assert transplant(Checkpoint(where="w", sha256="", tensors=tensors), ours, "resnet_tiny", 2).share == 1
    assert torch.equal(
        ours.blocks["block2"].state_dict()["0.conv1.weight"], source.state_dict()["blocks.block2.0.conv1.weight"]
    )
    assert all(torch.equal(tensor, head[name]) for name, tensor in ours.head.state_dict().items())


def torchvision_resnet18(classes: int = 1000) -> Tensors:
    """Names and sizes as torchvision and timm publish them, written down without MONAI."""

    def norm(name: str, n: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")}

    sizes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    n_in = 64
    for depth, n in enumerate((64, 128, 256, 512), start=1):
        for place in (0, 1):
            at = f"layer{depth}.{place}"
            sizes |= {f"{at}.conv1.weight": (n, n_in, 3, 3)} | norm(f"{at}.bn1", n)
            sizes |= {f"{at}.conv2.weight": (n, n, 3, 3)} | norm(f"{at}.bn2", n)
            if n_in != n:
                sizes |= {f"{at}.downsample.0.weight": (n, n_in, 1, 1)} | norm(f"{at}.downsample.1", n)
            n_in = n
    sizes |= {"fc.weight": (classes, 512), "fc.bias": (classes,)}
    return {name: torch.full(size, 0.01) for name, size in sizes.items()}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_names_of_torchvision_and_timm_fill_every_layer(dimensions: int) -> None:
    match = compare(checkpoint(torchvision_resnet18()), "resnet18", dimensions)
    assert match.share == 1
    assert "conv1" in match.adapted
    assert len(match.adapted) == (1 if dimensions == 2 else 20)


@pytest.mark.parametrize(
    ("pattern", "spelling"), [(".layers.", "."), (".layers.norm1.", ".norm.1."), (".layers.conv2.", ".conv.2.")]
)
def test_the_names_of_torchvision_densenet_fill_every_layer(pattern: str, spelling: str) -> None:
    with torch.device("meta"):
        net = DenseNet(spatial_dims=2, in_channels=3, out_channels=1000)
    tensors = {
        name.replace(pattern, spelling).replace(".layers.", ".").replace("class_layers.out", "classifier"): torch.zeros(
            tensor.shape
        )
        for name, tensor in net.state_dict().items()
    }
    assert not any("layers" in name for name in tensors)
    assert compare(Checkpoint(where="w", sha256="", tensors=tensors), "densenet121", 2).share == 1


def test_a_grey_image_looks_to_one_channel_as_it_did_to_three() -> None:
    net = tiny(2, channels=3, classes=1000)
    ours = build_network("resnet_tiny", 2).eval()
    match = transplant(checkpoint(net.state_dict()), ours, "resnet_tiny", 2)
    grey = torch.rand(2, 1, 12, 12)
    with torch.no_grad():
        assert torch.allclose(ours.embed(grey), body(net, grey.expand(-1, 3, -1, -1)), atol=1e-5)
    assert match.adapted == ("conv1",)


def test_inside_a_stack_of_one_image_a_network_answers_as_its_image_network_does() -> None:
    net = tiny(2)
    ours = build_network("resnet_tiny", 3).eval()
    transplant(checkpoint(net.state_dict()), ours, "resnet_tiny", 3)
    image = torch.rand(1, 1, 16, 16)
    stack = image.unsqueeze(2).expand(-1, -1, 65, -1, -1)
    with torch.no_grad():
        flat, deep = net.conv1(image), ours.blocks["stem"].get_submodule("0")(stack)
        assert torch.allclose(deep[:, :, 32], flat, atol=1e-5)
        flat = net.layer2(net.layer1(net.act(net.bn1(flat))))
        deep = ours.blocks["block2"](ours.blocks["block1"](ours.blocks["stem"](stack)))
        assert torch.allclose(deep[:, :, deep.shape[2] // 2], flat, atol=1e-5)


def test_a_bias_before_a_shortcut_s_norm_is_not_lost() -> None:
    """MONAI's ResNet has one by default."""
    net = tiny(2, bias=True)
    ours = build_network("resnet_tiny", 2).eval()
    assert transplant(checkpoint(net.state_dict()), ours, "resnet_tiny", 2).share == 1
    x = torch.rand(2, 1, 12, 12)
    with torch.no_grad():
        assert torch.allclose(ours.embed(x), body(net, x), atol=1e-5)


class Poison:
    """Unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("write", [saved, partial(pickle.dumps, protocol=2), _legacy, bundle_zip])
def test_a_poisoned_pickle_is_refused_and_runs_nothing(tmp_path: Path, write: Any) -> None:
    data = write(dict(tiny(2).state_dict()) | {"extra": Poison(tmp_path / "ran")})
    with pytest.raises(UnusableWeights) as refused:
        read_checkpoint(data, "w.pt")
    assert refused.value.reason == "unsafe"
    assert not (tmp_path / "ran").exists()


def _script() -> bytes:
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format is old, and so are files in it
        torch.jit.save(torch.jit.script(nn.Linear(2, 1)), out)
    return out.getvalue()


def _bomb() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models/model.pt", bytes(2**20))
    data = bytearray(out.getvalue())
    at = data.rindex(b"PK\x01\x02") + 24  # uncompressed size, in the central directory
    data[at : at + 4] = (0xFFFFFFFE).to_bytes(4, "little")
    return bytes(data)


def _without_weights() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.md", "x")
    return out.getvalue()


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "damaged"),
    "a text": (b"<html>not found</html>", "damaged"),
    "half a file": (saved({"a": torch.zeros(9999)})[:20000], "damaged"),
    "half a safetensors file": (safetensors.torch.save({"a": torch.zeros(9999)})[:9000], "damaged"),
    "a program": (_script, "unsafe"),
    "a bomb": (_bomb, "too_large"),
    "a zip without weights": (_without_weights, "other_architecture"),
    "no mapping": (saved([torch.zeros(2)]), "other_architecture"),
    "no tensors": (saved({"state_dict": {"a": 1}}), "other_architecture"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_usable_weights_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 2**31)
    made, reason = REFUSED[name]
    with pytest.raises(UnusableWeights) as refused:
        read_checkpoint(made() if callable(made) else made, "w.pt")
    assert refused.value.reason == reason
    assert "source_weights w.pt" in str(refused.value)


@pytest.mark.parametrize(
    ("made", "wanted"),
    [("resnet18", "resnet10"), ("resnet10", "resnet18"), ("resnet18_a", "resnet18"), ("resnet18", "resnet18_a")],
)
def test_another_depth_or_shortcut_is_refused_with_the_network_that_fits(made: str, wanted: str) -> None:
    """Sharing most of their weights is not being the same."""
    with torch.device("meta"):
        state = NETWORKS[made].whole(2).state_dict()
    other = Checkpoint(where="w.pt", sha256="", tensors={k: torch.zeros(v.shape) for k, v in state.items()})
    network = build_network(wanted, 2)
    before = weights_sha256(network)
    with pytest.raises(UnusableWeights, match=f"set network = '{made}'") as refused:
        transplant(other, network, wanted, 2)
    assert refused.value.reason == "other_architecture"
    assert f"layers of {wanted} match" in str(refused.value)
    assert weights_sha256(network) == before


def test_a_file_of_nothing_like_it_says_which_layers_are_missing() -> None:
    other = Checkpoint(where="w.pt", sha256="", tensors={"encoder1.weight": torch.zeros(2, 2)})
    with pytest.raises(UnusableWeights, match=r"0 of 24 layers.*not in the file: conv1, .* and 21 more") as refused:
        transplant(other, build_network("resnet_tiny", 2), "resnet_tiny", 2)
    assert "choose weights of this network" in str(refused.value)


def test_a_volume_network_does_not_fill_an_image_network() -> None:
    match = compare(checkpoint(tiny(3).state_dict()), "resnet_tiny", 2)
    assert match.unlike[0] == "conv1"
    assert match.share < 0.6


def test_a_layer_with_a_tensor_too_many_does_not_match() -> None:
    tensors = tiny(2).state_dict() | {"layer1.0.conv1.bias": torch.zeros(8)}
    assert compare(checkpoint(tensors), "resnet_tiny", 2).unlike == ("layer1.0.conv1",)


def test_a_decoder_beside_the_network_is_not_held_against_it() -> None:
    tensors = {f"encoder.{k}": v for k, v in tiny(2).state_dict().items()} | {"decoder.up.weight": torch.zeros(3)}
    assert compare(checkpoint(tensors), "resnet_tiny", 2).share == 1


def test_weights_that_are_no_numbers_are_refused() -> None:
    tensors = tiny(2).state_dict()
    tensors["layer3.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    network = build_network("resnet_tiny", 2)
    before = weights_sha256(network)
    with pytest.raises(UnusableWeights) as refused:
        transplant(checkpoint(tensors), network, "resnet_tiny", 2)
    assert refused.value.reason == "not_finite"
    assert weights_sha256(network) == before


def test_half_precision_weights_become_float32() -> None:
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in tiny(2).state_dict().items()}
    network = build_network("resnet_tiny", 2)
    transplant(checkpoint(tensors), network, "resnet_tiny", 2)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_tensor_of_a_network_has_its_public_name(name: str, dimensions: int) -> None:
    names = public_names(name, dimensions)
    with torch.device("meta"):
        assert set(names) == set(NETWORKS[name].whole(dimensions).state_dict())
        assert list(names.values()) == list(build_network(name, dimensions).state_dict())


@pytest.mark.parametrize("place", ["nowhere.pt", "/nowhere/w.pt", "http://example.org/w.pt"])
def test_a_place_without_a_file_is_named(workspace: Workspace, place: str) -> None:
    with pytest.raises(UnusableWeights) as refused:
        find_checkpoint(workspace, place)
    assert refused.value.reason == "missing"
    assert place in str(refused.value)


def test_a_file_other_than_the_one_that_was_meant_is_refused(workspace: Workspace) -> None:
    workspace.objects.put("w.pt", saved(tiny(2).state_dict()))
    with pytest.raises(UnusableWeights, match="expected sha256 0000") as refused:
        find_checkpoint(workspace, "w.pt", sha256="0" * 64)
    assert refused.value.reason == "changed"


class Answer(BytesIO):
    """What a server answers."""

    def __init__(self, data: bytes, url: str) -> None:
        super().__init__(data)
        self.url, self.headers = url, {"Content-Length": str(len(data))}


def test_weights_are_fetched_over_https(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(tiny(2).state_dict())
    monkeypatch.setattr(checkpoints, "urlopen", lambda url, **_: Answer(data, url))
    found = find_checkpoint(workspace, "https://me:secret@hub.example/w.pt?token=secret")
    assert found.where == "https://hub.example/w.pt"
    assert "conv1.weight" in found.tensors


def _failures() -> Iterator[tuple[Any, type[Exception]]]:
    yield lambda *_, **__: Answer(b"", "http://elsewhere"), UnusableWeights
    yield _raising(HTTPError("u", 404, "", None, None)), UnusableWeights  # type: ignore[arg-type]
    yield _raising(HTTPError("u", 503, "", None, None)), StorageUnavailable  # type: ignore[arg-type]
    yield _raising(URLError("no route")), StorageUnavailable
    yield _raising(TimeoutError()), StorageUnavailable


def _raising(error: Exception) -> Any:
    def fail(url: str, timeout: float) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(("answer", "kind"), list(_failures()))
def test_a_server_that_fails_is_told_from_one_that_says_no(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, answer: Any, kind: type[Exception]
) -> None:
    monkeypatch.setattr(checkpoints, "urlopen", answer)
    with pytest.raises(kind, match=r"hub\.example/w\.pt") as failed:
        find_checkpoint(workspace, "https://hub.example/w.pt?token=secret")
    assert "secret" not in str(failed.value)


SMALL = {"layer1.0.conv1.weight": torch.rand(4, 4, 3, 3), "fc.bias": torch.zeros(2)}
SPOILT = [saved(SMALL), _legacy(SMALL), safetensors.torch.save(SMALL), bundle_zip(SMALL)]


@given(
    st.sampled_from(SPOILT),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.2, 1),
)
def test_whatever_is_wrong_with_a_file_it_is_read_or_refused(
    data: bytes, changes: list[tuple[float, int]], share: float
) -> None:
    spoilt = bytearray(data)
    for at, value in changes:
        spoilt[int(at * len(spoilt))] = value
    spoilt = spoilt[: int(share * len(spoilt))] if share < 0.9 else spoilt
    with suppress(UnusableWeights):
        tensors = read_checkpoint(bytes(spoilt), "w.pt")
        match = compare(Checkpoint(where="w.pt", sha256="", tensors=tensors), "resnet_tiny", 2)
        assert match.share < 0.5
