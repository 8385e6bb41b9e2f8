"""Scale every scan so that its foreground has the reference's typical value: undoes gain, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from platform_core.errors import UnreadableScan
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.foreground import foreground_values
from platform_core.imaging.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class ForegroundScale:
    """What counts as foreground, and which of its values stands for a scan."""

    foreground_above: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Voxels above this are foreground; left out: Otsu's threshold of each volume, which moves with the gain."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """0.5 is the median."""


def learn_reference_value(settings: ForegroundScale, sample: Sequence[Volume], reference: Learned | None) -> Learned:
    """Find the median over the reference's scans of each scan's foreground value.

    Args:
        settings: Which value that is.
        sample: Volumes of the site; not looked at unless it is the reference.
        reference: What this step learned at the reference; None where the reference itself is fitted.

    Returns:
        `reference_value`, in the reference's unit; None (nothing is changed) if no volume of the reference
        has a foreground of positive value.
    """
    if reference is not None:
        return dict(reference)
    values = [value for volume in sample if (value := _value(volume, settings)) is not None and value > 0]
    return {"reference_value": float(f"{np.median(values):.6g}") if values else None}


def scale_to_reference(volume: Volume, settings: ForegroundScale, learned: Learned) -> Volume:
    """Multiply a scan by one number, so that its foreground value becomes the reference's.

    For units that start at zero (MR magnitude), not for HU. Zero stays zero, and no two voxels change their order.
    A scan in which a large part of the foreground is diseased is scaled by its disease too: the median
    holds as long as that part is well below half.

    Args:
        volume: Still volume (z, y, x).
        settings: As in the fit.
        learned: The reference's value.

    Returns:
        float32 volume on the same grid, in the reference's unit; unchanged if it is constant.

    Raises:
        UnreadableScan: `empty_foreground` if no voxel is above the stated threshold; `foreground_not_positive` if
            the value is zero or less, which no gain explains.
    """
    target = learned["reference_value"]
    value = None if target is None else _value(volume, settings)
    if target is None or (value is None and settings.foreground_above is None):
        return replace(volume, voxels=volume.voxels.astype(np.float32))
    if value is None:
        raise UnreadableScan("empty_foreground", f"no voxel above {settings.foreground_above:g}")
    if value <= 0:
        raise UnreadableScan(
            "foreground_not_positive", f"quantile {settings.quantile:g} of the foreground is {value:g}"
        )
    return replace(volume, voxels=np.multiply(volume.voxels, np.float32(target / value), dtype=np.float32))


def _value(volume: Volume, settings: ForegroundScale) -> float | None:
    """The foreground's quantile; None without a foreground."""
    values = foreground_values(volume.voxels, settings.foreground_above)
    return float(np.quantile(values, settings.quantile)) if values.size else None


FOREGROUND_SCALE = Harmonizer(
    name="foreground_scale", settings=ForegroundScale, fit=learn_reference_value, apply=scale_to_reference
)
