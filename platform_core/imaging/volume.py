"""An image with its geometry: what every room passes around."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.errors import GeometryMismatch

Voxels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where voxels lie in the patient: DICOM and ITK convention, x to the left, y to the back, z to the head (LPS).

    Order is (x, y, z) throughout. Column k of `direction` (row-major, nine numbers) is the
    unit vector along which index k grows.
    """

    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4 x 4: index (x, y, z, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels, and their geometry where it is known.

    `voxels` is (z, y, x), or (t, z, y, x) for a series in time; a plain image has z = 1.
    CT is in HU; other modalities in the scanner's own units. `geometry` is None for plain
    images: then nothing in mm can be said of them.
    """

    voxels: Voxels
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        if self.voxels.ndim not in (3, 4):
            raise GeometryMismatch("axes of a volume", "(z, y, x) or (t, z, y, x)", self.voxels.shape)

    @property
    def n_t(self) -> int:
        """Time points; 1 for a still volume."""
        return int(self.voxels.shape[0]) if self.voxels.ndim == 4 else 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along (x, y, z)."""
        n_z, n_y, n_x = self.voxels.shape[-3:]
        return int(n_x), int(n_y), int(n_z)

    def first(self) -> "Volume":
        """The first time point, as a still volume."""
        return self if self.voxels.ndim == 3 else replace(self, voxels=self.voxels[0])
