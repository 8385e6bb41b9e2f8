"""What one scan costs: a class (n,) or a mask (n, 1, z, y, x) or (n, 1, y, x) against the network's logits."""

import torch
from torch.nn import functional

SMOOTH_VOXELS = 1.0
"""Added above and below in the soft Dice, so that a scan without foreground has a loss and a gradient too."""


def scan_losses(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One loss per scan, (n,); lower is better.

    A class: binary cross-entropy, nats. A mask: cross-entropy, mean over voxels, plus 1 - soft Dice; the first
    tells every voxel which way to go, the second keeps a small region from drowning in the background.

    Args:
        logits: (n, 1) of a scan's positive class, or (n, 1, ...) of every voxel's.
        y: (n,), or whole numbers 0 and 1 of the logits' shape.

    Source:
        Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (Dice and cross-entropy, unweighted sum).
    """
    if y.ndim == 1:
        return functional.binary_cross_entropy_with_logits(logits.squeeze(1), y, reduction="none")
    truth = y.to(torch.float32).flatten(1)
    flat = logits.float().flatten(1)
    entropy = functional.binary_cross_entropy_with_logits(flat, truth, reduction="none").mean(dim=1)
    p = flat.sigmoid()
    shared, total = (p * truth).sum(dim=1), p.sum(dim=1) + truth.sum(dim=1)
    return entropy + 1 - (2 * shared + SMOOTH_VOXELS) / (total + SMOOTH_VOXELS)


def mean_loss(logits: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over scans of what each costs times what it counts."""
    return (scan_losses(logits, y) * weight).mean()
