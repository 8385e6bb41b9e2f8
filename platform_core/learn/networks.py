"""Networks: MONAI's, cut into named blocks in depth order.

What a block is decides what a strategy can freeze; the embedding is what goes into the
last block, the head. Torch is imported here: only training and prediction come by.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from monai.networks.nets.resnet import ResNet
from torch import nn

from platform_core.catalog import Catalog
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
    """One architecture, small enough for a CPU."""

    name: str
    build: Callable[[int], Classifier]
    """From the number of spatial dimensions, 2 or 3."""


def resnet_tiny(dimensions: int) -> Classifier:
    """A residual network with one basic block per depth, 0.2 million weights in 3-D.

    The first convolution halves the plane but not the slices, which are few and thick.
    """
    net = ResNet(
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
    return Classifier(
        {
            "stem": nn.Sequential(net.conv1, net.bn1, net.act),
            "block1": net.layer1,
            "block2": net.layer2,
            "block3": net.layer3,
            "block4": nn.Sequential(net.layer4, net.avgpool, nn.Flatten()),
            "head": net.fc,
        }
    )


NETWORKS: Catalog[Network] = Catalog("network", [Network(name="resnet_tiny", build=resnet_tiny)])


def build_network(name: str, dimensions: int, *, seed: int = 0) -> Classifier:
    """A network with weights drawn from `seed`; the caller's own random numbers are left alone.

    Raises:
        UnknownName: If there is no such network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name].build(dimensions)


def weights_sha256(network: Classifier) -> str:
    """A hash of every parameter and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
