"""Which voxels hold the patient."""

import numpy as np
import numpy.typing as npt

from platform_core.imaging.volume import Voxels

BODY_HU = -500.0
"""Halfway between air (-1000 HU) and water (0 HU)."""
N_BINS = 256
MAX_SAMPLE = 200_000


def foreground(voxels: Voxels, modality: str) -> npt.NDArray[np.bool_]:
    """True where a voxel holds the patient, same axes as `voxels`; all False for a constant image.

    CT: above -500 HU, which leaves the lungs out. Other modalities: above Otsu's threshold.
    """
    threshold = BODY_HU if modality == "CT" else otsu_threshold(voxels)
    return np.zeros(voxels.shape, dtype=bool) if threshold is None else voxels > threshold


def otsu_threshold(voxels: Voxels) -> float | None:
    """The value that best separates dark from bright; None for a constant image.

    Maximises the variance between the two classes over a histogram of 256 bins from the least to the
    greatest value, taken on at most 200 000 voxels at even steps.

    Source:
        Otsu 1979, IEEE Trans. Syst. Man Cybern. 9(1):62-66, doi:10.1109/TSMC.1979.4310076.
    """
    values = evenly(voxels, MAX_SAMPLE)
    low, high = float(values.min()), float(values.max())
    if not low < high:
        return None
    counts, edges = np.histogram(values, bins=N_BINS, range=(low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    n_dark = np.cumsum(counts)[:-1]
    n_bright = counts.sum() - n_dark
    sum_dark = np.cumsum(counts * middles)[:-1]
    sum_bright = float(counts @ middles) - sum_dark
    between = n_dark * n_bright * (sum_dark / n_dark - sum_bright / n_bright) ** 2
    return float(edges[1:-1][np.argmax(between)])


def evenly(voxels: Voxels, n_max: int) -> Voxels:
    """At most `n_max` of the values at even steps, as one axis; the same ones every time."""
    flat = voxels.reshape(-1)
    return flat[:: max(1, -(-flat.size // n_max))]
