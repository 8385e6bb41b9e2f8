"""Cut off intensities that carry nothing for the target: air padding, metal."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.volume import Volume

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipIntensity:
    """The range that is kept, in HU for CT, else in the scanner's own units."""

    low: Finite
    high: Finite

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError("low must be less than high")


def clip_intensity(volume: Volume, settings: ClipIntensity, learned: Learned) -> Volume:  # noqa: ARG001
    """Set values below `low` to `low` and above `high` to `high`; float32, same grid."""
    low, high = np.float32(settings.low), np.float32(settings.high)
    return replace(volume, voxels=np.clip(volume.voxels, low, high, dtype=np.float32))


CLIP_INTENSITY = Harmonizer(name="clip_intensity", settings=ClipIntensity, apply=clip_intensity)
