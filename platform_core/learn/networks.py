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
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet
from torch import nn

from platform_core.catalog import Catalog
from platform_core.errors import BadRequest
from platform_core.learn.contract import Blocks


class Classifier(nn.Module):
    """Blocks that follow one another; one logit of the positive class comes out.

    Input is (n, 1, z, y, x) or (n, 1, y, x), float32.
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

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """The penultimate layer, (n, channels)."""
        for name in self.block_names[:-1]:
            x = self.blocks[name](x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, (n, 1)."""
        logits: torch.Tensor = self.head(self.embed(x))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One architecture."""

    name: str
    whole: Callable[[int], nn.Module]
    """MONAI's network, from the number of spatial dimensions, 2 or 3."""
    cut: Callable[[Any], Mapping[str, nn.Module]]
    """Its blocks in depth order, the head last."""
    least_side: int = 1
    """Fewest voxels along any axis; with fewer, pooling leaves nothing."""


def _resnet_tiny(dimensions: int) -> nn.Module:
    """One basic block per depth, 0.2 million weights in 3-D.

    The first convolution halves the plane but not the slices, which are few and thick.
    """
    net: nn.Module = ResNet(
        "basic",
        [1, 1, 1, 1],
        [8, 16, 32, 64],
        spatial_dims=dimensions,
        n_input_channels=1,
        conv1_t_size=3,
        conv1_t_stride=(1, 2, 2)[-dimensions:],
        no_max_pool=True,
        num_classes=1,
        bias_downsample=False,
    )
    return net


def _resnet(block: str, layers: Sequence[int], dimensions: int, shortcut: str = "B") -> nn.Module:
    """The network that published weights are of: a first convolution of side 7 and stride 2, then pooling."""
    net: nn.Module = ResNet(
        block,
        list(layers),
        [64, 128, 256, 512],
        spatial_dims=dimensions,
        n_input_channels=1,
        conv1_t_stride=2,
        shortcut_type=shortcut,
        num_classes=1,
        bias_downsample=False,
    )
    return net


def _densenet121(dimensions: int) -> nn.Module:
    net: nn.Module = DenseNet(spatial_dims=dimensions, in_channels=1, out_channels=1)
    return net


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


NETWORKS: Catalog[Network] = Catalog(
    "network",
    [
        Network(name="resnet_tiny", whole=_resnet_tiny, cut=_cut_resnet),
        Network(name="resnet10", whole=partial(_resnet, "basic", (1, 1, 1, 1)), cut=_cut_resnet),
        Network(name="resnet18", whole=partial(_resnet, "basic", (2, 2, 2, 2)), cut=_cut_resnet),
        # MedicalNet's 18 layers: its shortcuts have no weights
        Network(name="resnet18_a", whole=partial(_resnet, "basic", (2, 2, 2, 2), shortcut="A"), cut=_cut_resnet),
        Network(name="resnet50", whole=partial(_resnet, "bottleneck", (3, 4, 6, 3)), cut=_cut_resnet),
        Network(name="densenet121", whole=_densenet121, cut=_cut_densenet, least_side=32),
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


def require_fit(name: str, grid: Sequence[int]) -> None:
    """Refuse a grid that is too small for the network.

    Raises:
        UnknownName: If there is no such network.
        BadRequest: If the grid is too small along an axis.
    """
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
