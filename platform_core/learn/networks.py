"""Networks: MONAI's, cut into named blocks in depth order.

What a block is decides what a strategy can freeze; the embedding is what goes into the
last block, the head. Torch is imported here: only training and prediction come by.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet
from torch import nn

from platform_core.catalog import Catalog
from platform_core.errors import BadRequest
from platform_core.learn.contract import Blocks
from platform_core.learn.unet import LEAST_SIDE, cut_unet
from platform_core.settings import Task


class Classifier(nn.Module):
    """Blocks that follow one another; one logit of the positive class comes out, per scan or per voxel.

    Input is (n, 1, z, y, x) or (n, 1, y, x), float32. Between its blocks a U-Net hands on all that a later one
    needs, as a tuple.
    """

    def __init__(self, blocks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)

    @property
    def block_names(self) -> Blocks:
        """Names in depth order, the head last."""
        return tuple(self.blocks)

    @property
    def head(self) -> nn.Module:
        """The last block: embedding to logit."""
        return self.blocks[self.block_names[-1]]

    @property
    def marks_voxels(self) -> bool:
        """Whether every voxel gets a logit, not the scan."""
        return isinstance(self.head, nn.Conv2d | nn.Conv3d)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """What goes into the head: (n, channels), or (n, channels, z, y, x) where every voxel gets a logit."""
        for name in self.block_names[:-1]:
            x = self.blocks[name](x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, (n, 1), or (n, 1, z, y, x)."""
        logits: torch.Tensor = self.head(self.embed(x))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One architecture."""

    name: str
    made_by: type[nn.Module]
    """MONAI's class."""
    arguments: Callable[[int], dict[str, Any]]
    """What it is called with, JSON-able, from the number of spatial dimensions, 2 or 3."""
    cut: Callable[[Any], Mapping[str, nn.Module]]
    """Its blocks in depth order, the head last."""
    least_side: int = 1
    """Fewest voxels along any axis; with fewer, pooling leaves nothing."""
    task: Task = "classification"
    """Whether a scan gets a logit, or each of its voxels."""

    def whole(self, dimensions: int) -> nn.Module:
        """MONAI's network, uncut, for 2 or 3 spatial dimensions."""
        return self.made_by(**self.arguments(dimensions))

    def definition(self, dimensions: int) -> dict[str, Any]:
        """The same as the `network_def` of a MONAI bundle: anyone with MONAI can build it."""
        place = f"{self.made_by.__module__}.{self.made_by.__qualname__}"
        return {"_target_": place, **self.arguments(dimensions)}


def _resnet_tiny(dimensions: int) -> dict[str, Any]:
    """One basic block per depth, 0.2 million weights in 3-D.

    The first convolution halves the plane but not the slices, which are few and thick.
    """
    return {
        "block": "basic",
        "layers": [1, 1, 1, 1],
        "block_inplanes": [8, 16, 32, 64],
        "spatial_dims": dimensions,
        "n_input_channels": 1,
        "conv1_t_size": 3,
        "conv1_t_stride": [1, 2, 2][-dimensions:],
        "no_max_pool": True,
        "num_classes": 1,
        "bias_downsample": False,
    }


def _resnet(block: str, layers: Sequence[int], dimensions: int, shortcut: str = "B") -> dict[str, Any]:
    """The network that published weights are of: a first convolution of side 7 and stride 2, then pooling."""
    return {
        "block": block,
        "layers": list(layers),
        "block_inplanes": [64, 128, 256, 512],
        "spatial_dims": dimensions,
        "n_input_channels": 1,
        "conv1_t_stride": 2,
        "shortcut_type": shortcut,
        "num_classes": 1,
        "bias_downsample": False,
    }


def _densenet121(dimensions: int) -> dict[str, Any]:
    return {"spatial_dims": dimensions, "in_channels": 1, "out_channels": 1}


def _unet(features: Sequence[int], dimensions: int) -> dict[str, Any]:
    """Five depths; batch normalization, so that what a site's scans look like lies in buffers that can be moved."""
    return {
        "spatial_dims": dimensions,
        "in_channels": 1,
        "out_channels": 1,
        "features": list(features),
        "norm": "batch",
    }


def _cut_resnet(net: ResNet) -> Mapping[str, nn.Module]:
    pool = [] if net.no_max_pool else [net.maxpool]
    return {
        "stem": nn.Sequential(net.conv1, net.bn1, net.act, *pool),
        "block1": net.layer1,
        "block2": net.layer2,
        "block3": net.layer3,
        "block4": nn.Sequential(net.layer4, net.avgpool, nn.Flatten()),
        "head": net.fc,
    }


def _cut_densenet(net: DenseNet) -> Mapping[str, nn.Module]:
    part = net.features
    last = net.class_layers
    return {
        "stem": nn.Sequential(part.conv0, part.norm0, part.relu0, part.pool0),
        "block1": nn.Sequential(part.denseblock1, part.transition1),
        "block2": nn.Sequential(part.denseblock2, part.transition2),
        "block3": nn.Sequential(part.denseblock3, part.transition3),
        "block4": nn.Sequential(part.denseblock4, part.norm5, last.relu, last.pool, last.flatten),
        "head": last.out,
    }


_of_resnet = partial(Network, made_by=ResNet, cut=_cut_resnet)
_of_unet = partial(Network, made_by=BasicUNet, cut=cut_unet, least_side=LEAST_SIDE, task="segmentation")

NETWORKS: Catalog[Network] = Catalog(
    "network",
    [
        _of_resnet(name="resnet_tiny", arguments=_resnet_tiny),
        _of_resnet(name="resnet10", arguments=partial(_resnet, "basic", (1, 1, 1, 1))),
        _of_resnet(name="resnet18", arguments=partial(_resnet, "basic", (2, 2, 2, 2))),
        # MedicalNet's 18 layers: its shortcuts have no weights
        _of_resnet(name="resnet18_a", arguments=partial(_resnet, "basic", (2, 2, 2, 2), shortcut="A")),
        _of_resnet(name="resnet50", arguments=partial(_resnet, "bottleneck", (3, 4, 6, 3))),
        Network(name="densenet121", made_by=DenseNet, arguments=_densenet121, cut=_cut_densenet, least_side=32),
        _of_unet(name="unet_tiny", arguments=partial(_unet, (8, 8, 16, 32, 64, 8))),
        _of_unet(name="unet", arguments=partial(_unet, (32, 32, 64, 128, 256, 32))),
    ],
)


def build_network(name: str, dimensions: int, *, seed: int = 0) -> Classifier:
    """A network with weights drawn from `seed`; the caller's own random numbers are left alone.

    Raises:
        UnknownName: If there is no such network.
    """
    network = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(network.cut(network.whole(dimensions)))


def require_fit(name: str, grid: Sequence[int], task: Task = "classification") -> None:
    """Refuse a network of another task, and a grid that is too small for the network.

    Raises:
        UnknownName: If there is no such network.
        BadRequest: If it is made for another task, or the grid is too small along an axis.
    """
    if NETWORKS[name].task != task:
        those = ", ".join(other.name for other in NETWORKS.values() if other.task == task)
        raise BadRequest(f"{name} does {NETWORKS[name].task}, the target asks for {task}; set `network` to: {those}")
    least = NETWORKS[name].least_side
    if min(grid) < least:
        raise BadRequest(f"{name} needs {least} voxels or more along every axis, the grid is {tuple(grid)}")


def public_names(name: str, dimensions: int) -> dict[str, str]:
    """Every tensor of a classifier by the name that it bears in MONAI's network, in depth order.

    Raises:
        UnknownName: If there is no such network.
    """
    network = NETWORKS[name]
    with torch.device("meta"):
        whole = network.whole(dimensions)
        ours = Classifier(network.cut(whole)).state_dict(keep_vars=True)
    public = {id(tensor): key for key, tensor in whole.state_dict(keep_vars=True).items()}
    return {public[id(tensor)]: key for key, tensor in ours.items()}


def weights_sha256(network: Classifier) -> str:
    """A hash of every parameter and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
