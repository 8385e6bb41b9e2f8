"""Which voxels hold the patient."""

import math

import numpy as np
import numpy.typing as npt

from platform_core.imaging.volume import Voxels

BODY_HU = -500.0
"""Halfway between air (-1000 HU) and water (0 HU)."""
CUT_OFF = 0.01
"""Share of voxels at the lowest value from which a window has cut off what was lower."""
N_BINS = 256
MAX_SAMPLE = 200_000
LAST_BITS = 1e-6
"""Share of the largest value that is rounding in float32: such a difference is none."""


def foreground(voxels: Voxels, modality: str) -> npt.NDArray[np.bool_]:
    """True where a voxel holds the patient, same axes as `voxels`; all False for a constant image.

    CT: above -500 HU, which leaves the lungs out; where a window has cut off all that is lower, above the lowest value.
    Other modalities: above Otsu's threshold.
    """
    threshold = threshold_of(voxels, modality)
    return np.zeros(voxels.shape, dtype=bool) if threshold is None else voxels > threshold


def threshold_of(voxels: Voxels, modality: str) -> float | None:
    """The value above which a voxel holds the patient; None where there is none, in a constant image."""
    if modality != "CT":
        return otsu_threshold(voxels)
    lowest = voxels.min()
    is_cut_off = lowest > BODY_HU and np.count_nonzero(voxels == lowest) > CUT_OFF * voxels.size
    return float(lowest) if is_cut_off else BODY_HU


def foreground_values(voxels: Voxels, above: float | None = None) -> Voxels:
    """The values that hold the patient, as one axis.

    Args:
        voxels: Of any axes.
        above: Values above this are foreground; None: Otsu's threshold.

    Returns:
        A copy, in the order of the voxels. Empty for a constant image, and where nothing is above.
    """
    threshold = otsu_threshold(voxels) if above is None else above
    return voxels[voxels > threshold] if threshold is not None else voxels.reshape(-1)[:0]


def otsu_threshold(voxels: Voxels) -> float | None:
    """The value that best separates dark from bright; None for an image that is constant, or but for its last bits.

    Maximises the variance between the two classes over a histogram of 256 bins from the least to the
    greatest value, taken on at most 200 000 voxels at even steps.

    Source:
        Otsu 1979, IEEE Trans. Syst. Man Cybern. 9(1):62-66, doi:10.1109/TSMC.1979.4310076.
    """
    values = evenly(voxels, MAX_SAMPLE).astype(np.float64, copy=False)
    low, high = float(values.min()), float(values.max())
    if not high - low > LAST_BITS * max(abs(low), abs(high)):
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
    """At most `n_max` of the values at even steps, as one axis; the same ones every time.

    A step that divides the rows would visit a few columns only (512 x 512 x 390 voxels: the first, all air),
    so it is lengthened until every column has its turn.
    """
    flat = voxels.reshape(-1)
    step = max(1, -(-flat.size // n_max))
    while voxels.ndim > 1 and math.gcd(step, voxels.shape[-1]) > 1:
        step += 1
    return flat[::step]
