"""What features are measured on: a few slices of a volume, read once for all families."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from platform_core.imaging.foreground import foreground
from platform_core.imaging.volume import Geometry, Volume

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

N_SLICES = 12
CENTRAL = 0.8
"""Share of z that is looked at: the ends of a stack are often empty or fold over."""
MIN_VOXELS = 64
"""Voxels below which a family tells nothing: the relative error of an SD would exceed a tenth."""


@dataclass(frozen=True, kw_only=True)
class Slices:
    """At most 12 slices, evenly over the central 80 % of z.

    Intensities of CT are told in HU. Those of other modalities have no unit of their own and are told
    relative to the median of the foreground.
    """

    voxels: Floats
    """(slice, y, x), in HU or in the scanner's own units."""
    foreground: Mask
    """(slice, y, x): where the patient is."""
    geometry: Geometry | None
    """Of the whole volume; None for plain images."""
    size: tuple[int, int, int]
    """Voxels of the whole volume along (x, y, z)."""
    modality: str

    @property
    def unit(self) -> str:
        """Suffix of intensity features that apply here: `hu` or `relative`."""
        return "hu" if self.modality == "CT" else "relative"

    @cached_property
    def scale(self) -> float | None:
        """What one unit is in the numbers of `voxels`: 1 HU, or the foreground's median, if that is positive."""
        if self.modality == "CT":
            return 1.0
        if not self.has_foreground:
            return None
        median = float(np.median(self.voxels[self.foreground]))
        return median if median > 0 else None

    @cached_property
    def has_foreground(self) -> bool:
        """Whether there is enough of the patient to measure."""
        return int(np.count_nonzero(self.foreground)) >= MIN_VOXELS

    @cached_property
    def interior(self) -> Mask:
        """(slice, y - 2, x - 2): where a pixel and its eight neighbours in the slice are foreground."""
        rows = self.foreground[:, :, :-2] & self.foreground[:, :, 1:-1] & self.foreground[:, :, 2:]
        inside: Mask = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
        return inside


def cut_slices(volume: Volume, modality: str) -> Slices:
    """Cut a volume, its first one for a series in time, into the slices that are measured."""
    still = volume.first()
    n_z = still.size[2]
    edge = (1 - CENTRAL) / 2 * (n_z - 1)
    chosen = np.unique(np.rint(np.linspace(edge, n_z - 1 - edge, min(N_SLICES, n_z))).astype(int))
    voxels = still.voxels[chosen].astype(np.float32)
    mask = foreground(voxels, modality)
    return Slices(voxels=voxels, foreground=mask, geometry=still.geometry, size=still.size, modality=modality)
