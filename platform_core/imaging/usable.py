"""Whether anything can be computed on a volume at all."""

import math

import numpy as np

from platform_core.errors import UnreadableScan
from platform_core.imaging.volume import Volume

MIN_IN_PLANE = 8
"""Voxels along x and y below which neither noise nor edges can be told."""
MAX_SKEW = 0.03
"""Largest departure of a direction's scalar products from those of unit vectors at right angles.

The door lets 1 % of length and angle pass, as headers round."""


def check_usable(volume: Volume) -> None:
    """Pass a volume that later rooms can work on.

    Raises:
        UnreadableScan: With reason `too_small`, `bad_spacing`, `bad_direction`, `not_finite` or `constant`. A
            left-handed direction is as good as a right-handed one.
    """
    n_x, n_y, n_z = volume.size
    if min(n_x, n_y) < MIN_IN_PLANE or n_z < 1:
        raise UnreadableScan("too_small", f"{n_x} x {n_y} x {n_z} voxels; needs {MIN_IN_PLANE} in the plane")
    if volume.geometry is not None and not _is_spacing(volume.geometry.spacing_mm):
        raise UnreadableScan("bad_spacing", f"spacing {volume.geometry.spacing_mm} mm")
    if volume.geometry is not None and not _is_orthonormal(volume.geometry.direction):
        raise UnreadableScan("bad_direction", "the axes are no unit vectors at right angles")
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UnreadableScan("not_finite", "some voxels are NaN or infinite")
    if low == high:
        raise UnreadableScan("constant", "all voxels are equal")


def _is_spacing(spacing_mm: tuple[float, float, float]) -> bool:
    return bool(np.all(np.isfinite(spacing_mm)) and min(spacing_mm) > 0)


def _is_orthonormal(direction: tuple[float, ...]) -> bool:
    """Whether the columns are unit vectors at right angles; NaN is not."""
    if len(direction) != 9:
        return False
    axes = np.reshape(np.asarray(direction, dtype=np.float64), (3, 3))
    return bool(np.all(np.isfinite(axes)) and np.abs(axes.T @ axes - np.eye(3)).max() <= MAX_SKEW)
