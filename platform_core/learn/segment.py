"""What a segmentation says of scans: the voxels it marks, how much of the scan that is, and an embedding."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from platform_core.learn.data import Loaded
from platform_core.learn.device import as_many_as_fit, gpu_or_cpu
from platform_core.learn.networks import Classifier
from platform_core.learn.unet import BOTTOM

Marks = npt.NDArray[np.uint8]
Reals = npt.NDArray[np.float64]

SURE = 0.5
"""Probability from which a voxel counts in a scan's score, whatever a site marks from: sites are compared by scores."""
HALF_A_VOXEL = 0.5
"""Added to the marked and to the unmarked share, so that a scan without either has a logit."""


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """One row per scan."""

    marks: Marks
    """(n, 1, z, y, x) or (n, 1, y, x): 1 where a voxel's probability reaches the threshold."""
    logits: torch.Tensor
    """(n,): log-odds of the share of a scan that its sure voxels fill, each by its probability; float32, on the CPU."""
    embeddings: torch.Tensor
    """(n, channels): the coarsest feature map, its mean over space; float32, on the CPU."""


def segment(network: Classifier, x: torch.Tensor, *, threshold: float = 0.5, batch_size: int = 16) -> Segmented:
    """Every scan of (n, 1, z, y, x) or (n, 1, y, x) as the network sees it in evaluation mode.

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    device = gpu_or_cpu()
    network.to(device).eval()

    def see(at_once: int) -> list[tuple[Marks, torch.Tensor, torch.Tensor]]:
        return [_seen(network, part.to(device), threshold) for part in torch.split(x, at_once)]

    with torch.inference_mode():
        marks, logits, embeddings = zip(*as_many_as_fit(see, batch_size), strict=True)
    network.cpu()
    return Segmented(np.concatenate(marks), torch.cat(logits), torch.cat(embeddings))


def overlap(network: Classifier, data: Loaded, *, threshold: float = 0.5) -> Reals:
    """Dice of each scan with a mask, (n,), [0, 1].

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    assert data.masks is not None, "labelled scans of a segmentation are loaded with their masks"
    if not data.scans:
        return np.empty(0)
    seen = segment(network, torch.from_numpy(data.arrays), threshold=threshold)
    return dice(seen.marks, data.masks.voxels, data.masks.n_outside)


def dice(marks: Marks, truth: Marks, n_outside: npt.NDArray[np.int64]) -> Reals:
    """Overlap of each scan's marked voxels with those that a reader drew, (n,), [0, 1]; higher is better.

    Twice the shared voxels over the sum of both. What was drawn outside the network's grid counts as missed. A scan
    on which neither marks anything counts 1; where only one of them does, 0.

    Args:
        marks: (n, 1, ...), 0 and 1.
        truth: The same shape.
        n_outside: (n,), drawn voxels outside the grid.

    Source:
        Dice 1945, doi:10.2307/1932409; for empty masks Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z.
    """
    a, b = (part.reshape(len(part), -1).astype(bool) for part in (marks, truth))
    total = a.sum(axis=1) + b.sum(axis=1) + n_outside
    shared = (a & b).sum(axis=1)
    return np.where(total == 0, 1.0, 2 * shared / np.maximum(total, 1))


def _seen(network: Classifier, x: torch.Tensor, threshold: float) -> tuple[Marks, torch.Tensor, torch.Tensor]:
    maps = x
    for name in network.block_names[:-1]:
        maps = network.blocks[name](maps)
        if name == BOTTOM:
            embedding = maps[-1].flatten(2).mean(dim=2)
    p = network.head(maps).float().sigmoid()
    sure = (p * (p >= SURE)).flatten(1).sum(dim=1).double()  # doubts about every voxel would outweigh a small region
    n_voxels = p[0].numel()
    logits = torch.log(sure + HALF_A_VOXEL) - torch.log(n_voxels - sure + HALF_A_VOXEL)
    return (p >= threshold).to(torch.uint8).cpu().numpy(), logits.float().cpu(), embedding.float().cpu()
