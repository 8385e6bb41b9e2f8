"""Give every scan's foreground the mean 0 and the standard deviation 1."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from platform_core.errors import UnreadableScan
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.foreground import foreground_values
from platform_core.imaging.volume import Volume, Voxels


@dataclass(frozen=True, slots=True, kw_only=True)
class ZScore:
    """What counts as foreground, and when it has no spread."""

    foreground_above: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Voxels above this are foreground (-500 HU suits CT); left out: Otsu's threshold of each volume."""
    floor: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """A standard deviation below this share of the foreground's largest absolute value is rounding."""


def zscore(volume: Volume, settings: ZScore, learned: Learned) -> Volume:  # noqa: ARG001
    """Subtract the mean of the scan's foreground and divide by its standard deviation.

    Every voxel is moved, the background too. Gain and offset of the scanner go; so does whatever of the mean and
    spread was the patient's.

    Args:
        volume: Still volume (z, y, x), any unit.
        settings: What is foreground.
        learned: Not used.

    Returns:
        float32 volume on the same grid, in standard deviations; zero everywhere where the foreground
        has no spread, as in a constant volume.

    Raises:
        UnreadableScan: `empty_foreground` if no voxel is above the stated threshold.
    """
    values = foreground_values(volume.voxels, settings.foreground_above)
    if values.size == 0 and settings.foreground_above is not None:
        raise UnreadableScan("empty_foreground", f"no voxel above {settings.foreground_above:g}")
    mean, spread = _mean_and_spread(values, settings.floor)
    if spread == 0:
        return replace(volume, voxels=np.zeros(volume.voxels.shape, dtype=np.float32))
    voxels = np.subtract(volume.voxels, np.float32(mean), dtype=np.float32)
    voxels /= np.float32(spread)
    return replace(volume, voxels=voxels)


def _mean_and_spread(values: Voxels, floor: float) -> tuple[float, float]:
    """Mean and standard deviation (of n, not n - 1); 0 where it is nothing but rounding."""
    if values.size == 0:
        return 0.0, 0.0
    mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    largest = max(abs(float(values.min())), abs(float(values.max())))
    return mean, spread if spread > floor * largest else 0.0


ZSCORE = Harmonizer(name="zscore", settings=ZScore, apply=zscore)
