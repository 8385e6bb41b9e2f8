"""A U-Net cut into blocks that follow one another.

A decoder needs what the encoder saw at its own depth. So the blocks hand on a tuple of feature maps, the finest
first: an encoder block appends a coarser one, a decoder block takes the two coarsest away and puts back one of the
finer grid. The last map that is left goes into the head, a convolution of one voxel.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

Maps = tuple[torch.Tensor, ...]
"""Feature maps (n, channels, z, y, x) or (n, channels, y, x), the finest first."""

BOTTOM = "down4"
"""The block whose last map is the coarsest: pooled, it is the embedding of a scan."""
LEAST_SIDE = 16
"""Four poolings by 2 leave one voxel."""


class First(nn.Module):
    """The scan to the finest map."""

    def __init__(self, convolve: nn.Module) -> None:
        super().__init__()
        self.convolve = convolve

    def forward(self, x: torch.Tensor) -> Maps:
        """The scan's own grid."""
        return (self.convolve(x),)


class Deeper(nn.Module):
    """One more map, on a grid of half the side."""

    def __init__(self, down: nn.Module) -> None:
        super().__init__()
        self.down = down

    def forward(self, maps: Maps) -> Maps:
        """All maps so far and the new one."""
        return (*maps, self.down(maps[-1]))


class Finer(nn.Module):
    """The coarsest map brought to the grid of the one before, and joined with it."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.up = up

    def forward(self, maps: Maps) -> Maps | torch.Tensor:
        """One map fewer; the last one bare, for the head."""
        joined: torch.Tensor = self.up(maps[-1], maps[-2])
        return (*maps[:-2], joined) if len(maps) > 2 else joined


def cut_unet(net: Any) -> Mapping[str, nn.Module]:
    """MONAI's `BasicUNet` as blocks in the order in which a scan passes them, the head last."""
    return {
        "stem": First(net.conv_0),
        "down1": Deeper(net.down_1),
        "down2": Deeper(net.down_2),
        "down3": Deeper(net.down_3),
        BOTTOM: Deeper(net.down_4),
        "up4": Finer(net.upcat_4),
        "up3": Finer(net.upcat_3),
        "up2": Finer(net.upcat_2),
        "up1": Finer(net.upcat_1),
        "head": net.final_conv,
    }
