"""All features of one scan."""

import math
from collections.abc import Mapping

from platform_core.features import FAMILIES
from platform_core.features.contract import Feature
from platform_core.features.slices import cut_slices
from platform_core.imaging.volume import Volume

FEATURES: dict[str, Feature] = {feature.name: feature for family in FAMILIES.values() for feature in family.features}
"""Every feature by its name, family by family: the columns that `core__feature` has beside its keys."""


def measure(volume: Volume, modality: str, header: Mapping[str, float | None] | None = None) -> dict[str, float | None]:
    """Measure a volume; what cannot be told is None, never NaN.

    Args:
        volume: Voxels (z, y, x), or (t, z, y, x) of which the first volume is measured; CT in HU.
        modality: `CT`, or any other.
        header: Numbers of the header by their columns in `core__series`; None where they do not belong to the volume.

    Returns:
        A value for each name in `FEATURES`.
    """
    slices = cut_slices(volume, modality, header)
    told: dict[str, float | None] = dict.fromkeys(FEATURES)
    for family in FAMILIES.values():
        told |= family.measure(slices)
    return {name: value if value is not None and math.isfinite(value) else None for name, value in told.items()}
