"""Whether intensities were cut off, or squeezed into a few levels."""

from collections.abc import Mapping

import numpy as np

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Slices

DECIMALS = 4
"""Every image has a darkest voxel: shares of less than one in ten thousand are told as 0."""


def measure_clipping(slices: Slices) -> Mapping[str, float | None]:
    """Shares of voxels at the ends of the range, and the number of levels.

    *_at_min_fraction, *_at_max_fraction: voxels, of all or of the foreground's, that equal the least or greatest
        value of the measured slices, to four decimals. Range [0, 1]; they grow with clipping (windowed exports,
        saturation) and with padding. 0 for an image that was not cut.
    n_levels: distinct values among at most 200 000 of the foreground's. At least 1; falls with coarse
        quantisation (8-bit exports), and grows with noise and, where levels are fine, with the number of voxels.

    Whether a value is cut off does not depend on the grid; how many levels are met does. None without foreground.
    """
    if slices.sample is None:
        return {}
    values = slices.voxels[slices.foreground]
    told: dict[str, float | None] = {}
    for end, value in (("min", slices.voxels.min()), ("max", slices.voxels.max())):
        told[f"voxels_at_{end}_fraction"] = _share(int(np.count_nonzero(slices.voxels == value)), slices.voxels.size)
        told[f"foreground_at_{end}_fraction"] = _share(int(np.count_nonzero(values == value)), values.size)
    return told | {"n_levels": float(len(np.unique(slices.sample)))}


def _share(n: int, of: int) -> float:
    return round(n / of, DECIMALS)


CLIPPING = Family(
    name="clipping",
    features=(
        *(
            Feature(
                name=f"{what}_at_{end}_fraction",
                unit="1",
                bank="acquisition",
                meaning=f"share of {what if what == 'voxels' else 'foreground voxels'} at the {value} value",
            )
            for what in ("voxels", "foreground")
            for end, value in (("min", "least"), ("max", "greatest"))
        ),
        Feature(name="n_levels", unit="1", bank="acquisition", meaning="distinct values in the foreground"),
    ),
    measure=measure_clipping,
)
