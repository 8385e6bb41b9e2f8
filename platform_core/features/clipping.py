"""Whether intensities were cut off, or squeezed into a few levels."""

from collections.abc import Mapping

import numpy as np

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Mask, Slices

DECIMALS = 4
"""Every image has a darkest voxel: shares of less than one in ten thousand are told as 0."""


def measure_clipping(slices: Slices) -> Mapping[str, float | None]:
    """Shares of voxels at the ends of the range, and the number of levels.

    voxels_at_min_fraction, voxels_at_max_fraction, foreground_at_max_fraction: voxels, of all or of the foreground's,
        that equal the least or greatest value of the measured slices, to four decimals. Range [0, 1]; they grow
        with clipping (windowed exports, saturation) and with padding. 0 for an image that was not cut. The
        foreground never holds the least value.
    n_levels: distinct values among at most 200 000 of the foreground's. At least 1; falls with coarse
        quantisation (8-bit exports), and grows with noise and, where levels are fine, with the number of voxels.

    Whether a value is cut off does not depend on the grid; how many levels are met does. None without foreground.
    """
    if slices.sample is None:
        return {}
    is_top = slices.voxels == slices.voxels.max()
    told: dict[str, float | None] = {
        "voxels_at_min_fraction": _share(slices.voxels == slices.voxels.min()),
        "voxels_at_max_fraction": _share(is_top),
        "foreground_at_max_fraction": _share(is_top[slices.foreground]),
    }
    return told | {"n_levels": float(len(np.unique(slices.sample)))}


def _share(places: Mask) -> float:
    return round(float(places.mean()), DECIMALS)


def _feature(name: str, meaning: str) -> Feature:
    return Feature(name=name, unit="1", bank="acquisition", meaning=meaning)


CLIPPING = Family(
    name="clipping",
    features=(
        _feature("voxels_at_min_fraction", "share of voxels at the least value"),
        _feature("voxels_at_max_fraction", "share of voxels at the greatest value"),
        _feature("foreground_at_max_fraction", "share of the foreground's voxels at the greatest value"),
        _feature("n_levels", "distinct values in the foreground"),
    ),
    measure=measure_clipping,
)
