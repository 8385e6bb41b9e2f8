"""What is changed of a scan each time that a network sees it in training."""

import torch

GAIN_SD, OFFSET_SD = 0.1, 0.05
"""Intensity jitter per scan, relative to the unit range that networks see."""


def augment(x: torch.Tensor, y: torch.Tensor, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Flip and jitter each scan of a batch on its own; masks are flipped with their scans, classes stay.

    Volumes are flipped along z, y and x, images along x only: a projection has an up and a down.
    """
    spatial = range(2, x.ndim) if x.ndim == 5 else (x.ndim - 1,)
    for axis in spatial:
        flipped = _per_scan(torch.rand(len(x), generator=chance) < 0.5, x)
        x = torch.where(flipped, x.flip(axis), x)
        y = torch.where(flipped.to(y.device), y.flip(axis), y) if y.ndim > 1 else y
    gain = _per_scan(1 + GAIN_SD * torch.randn(len(x), generator=chance), x)
    offset = _per_scan(OFFSET_SD * torch.randn(len(x), generator=chance), x)
    return x * gain + offset, y


def _per_scan(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.to(x.device).reshape(-1, *[1] * (x.ndim - 1))
