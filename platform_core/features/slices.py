"""What features are measured on: a few slices of a volume, read once for all families."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from platform_core.features.scatter import air_sd, haar_sd
from platform_core.imaging.foreground import evenly, threshold_of
from platform_core.imaging.volume import Geometry, Volume, Voxels

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

N_SLICES = 12
CENTRAL = 0.8
"""Share of z that is looked at: the ends of a stack are often empty or fold over."""
MIN_VOXELS = 64
"""Voxels below which a family tells nothing: the relative error of an SD would exceed a tenth."""
MAX_SAMPLE = 200_000
N_BLOCKS = 6
MAX_BLOCK = 16
"""Neighbouring slices of one block; finer ones than eight to a pixel tell no thickness."""


@dataclass(frozen=True, kw_only=True)
class Slices:
    """At most 12 slices, evenly over the central 80 % of z.

    Intensities of CT are told in HU. Those of other modalities have no unit of their own and are told
    relative to the median of the foreground, counted from `zero`.
    """

    voxels: Floats
    """(slice, y, x), in HU or in the scanner's own units."""
    foreground: Mask
    """(slice, y, x): where the patient is."""
    threshold: float | None
    """Foreground lies above it; None for a constant image."""
    blocks: Voxels
    """(block, z, y, x): at most six blocks of neighbouring slices, z twice as thick as a pixel is wide or thicker;
    no block where there are too few slices, or where slices are finer than an eighth of a pixel."""
    geometry: Geometry | None
    """Of the whole volume; None for plain images."""
    size: tuple[int, int, int]
    """Voxels of the whole volume along (x, y, z)."""
    modality: str
    header: Mapping[str, float | None] = field(default_factory=dict)
    """Numbers of the header by their columns in `core__series`."""

    @property
    def unit(self) -> str:
        """Suffix of intensity features that apply here: `hu` or `relative`."""
        return "hu" if self.modality == "CT" else "relative"

    @cached_property
    def scale(self) -> float | None:
        """What one unit is in the numbers of `voxels`: 1 HU, or how far the foreground's median lies above `zero`."""
        if self.modality == "CT":
            return 1.0
        if not self.has_foreground:
            return None
        median = float(np.median(self.voxels[self.foreground])) - self.zero
        return median if median > 0 else None

    @cached_property
    def zero(self) -> float:
        """Where intensities are counted from: 0, or the background's median where that is negative.

        A step that centres a scan (`zscore`, `white_stripe`) leaves no ratio to the number 0.
        """
        if self.modality == "CT" or self.foreground.all():
            return 0.0
        return min(0.0, float(np.median(self.voxels[~self.foreground])))

    @cached_property
    def has_foreground(self) -> bool:
        """Whether there is enough of the patient to measure."""
        return int(np.count_nonzero(self.foreground)) >= MIN_VOXELS

    @cached_property
    def image(self) -> Floats | None:
        """`voxels` in the unit that features are told in; None where that unit is unknown."""
        if self.scale is None or not self.has_foreground:
            return None
        if (self.zero, self.scale) == (0.0, 1.0):
            return self.voxels
        return np.asarray((self.voxels - np.float32(self.zero)) / np.float32(self.scale), dtype=np.float32)

    @cached_property
    def sample(self) -> Floats | None:
        """At most 200 000 of the foreground's values at even steps, in the unit that features are told in."""
        if self.scale is None or not self.has_foreground:
            return None
        values = (evenly(self.voxels[self.foreground], MAX_SAMPLE) - np.float32(self.zero)) / np.float32(self.scale)
        return np.asarray(values, dtype=np.float32)

    @cached_property
    def interior(self) -> Mask:
        """(slice, y - 2, x - 2): where a pixel and its eight neighbours in the slice are foreground."""
        rows = self.foreground[:, :, :-2] & self.foreground[:, :, 1:-1] & self.foreground[:, :, 2:]
        inside: Mask = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
        return inside

    @cached_property
    def haar_sd(self) -> float | None:
        """Noise SD in the foreground by the diagonal Haar band, in the numbers of `voxels`."""
        return haar_sd(self.voxels, self.foreground)

    @cached_property
    def air_sd(self) -> float | None:
        """Noise SD by the air outside the patient, in the numbers of `voxels`."""
        return air_sd(self.voxels, self.foreground, self.modality)


def cut_slices(volume: Volume, modality: str, header: Mapping[str, float | None] | None = None) -> Slices:
    """Cut a volume, its first one for a series in time, into the slices that are measured."""
    still = volume.first()
    voxels = still.voxels[_even_places(still.size[2], N_SLICES)].astype(np.float32)
    threshold = threshold_of(voxels, modality)
    return Slices(
        voxels=voxels,
        foreground=np.zeros(voxels.shape, dtype=bool) if threshold is None else voxels > threshold,
        threshold=threshold,
        blocks=_blocks(still),
        geometry=still.geometry,
        size=still.size,
        modality=modality,
        header=header or {},
    )


def _even_places(n: int, n_max: int) -> npt.NDArray[np.intp]:
    """At most `n_max` of `n` indices, evenly over the central 80 %."""
    edge = (1 - CENTRAL) / 2 * (n - 1)
    return np.unique(np.rint(np.linspace(edge, n - 1 - edge, min(n_max, n))).astype(np.intp))


def _blocks(still: Volume) -> Voxels:
    n_x, n_y, n_z = still.size
    length = 0 if still.geometry is None else _block_length(still.geometry.spacing_mm)
    if not 0 < length <= min(n_z, MAX_BLOCK):
        return np.zeros((0, 0, n_y, n_x), still.voxels.dtype)
    starts = _even_places(n_z - length + 1, N_BLOCKS)
    blocks: Voxels = still.voxels[starts[:, None] + np.arange(length)]
    return blocks


def _block_length(spacing_mm: tuple[float, float, float]) -> int:
    """Slices of two neighbouring boxes that are no thinner than a pixel is wide; 0 if no such number is sensible."""
    x_mm, y_mm, z_mm = spacing_mm
    ratio = max(x_mm, y_mm) / z_mm
    return 2 * max(1, math.ceil(ratio - 0.01)) if ratio < MAX_BLOCK else 0
