"""Grids at an angle to the patient's axes: the general case, by SimpleITK."""

from itertools import product
from typing import Literal

import numpy as np

from platform_core.imaging.volume import Geometry, Voxels

SLACK = 1e-3
"""Share of an output voxel by which the scan may stick out of the grid, so that rounding adds no voxel."""


def bounding_grid(
    geometry: Geometry, size: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[tuple[int, int, int], Geometry]:
    """The least grid along the patient's axes that holds all of every voxel; same centre.

    Args:
        geometry: The scan's.
        size: The scan's voxels along (x, y, z).
        spacing_mm: The new grid's, (x, y, z).

    Returns:
        Voxels along (x, y, z), and the geometry.
    """
    ends = [(-0.5, n - 0.5) for n in size]
    corners = np.array([[*corner, 1.0] for corner in product(*ends)]) @ geometry.affine.T
    low, high = corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)
    step = np.asarray(spacing_mm)
    n = np.maximum(np.ceil((high - low) / step - SLACK), 1)
    origin = (low + high) / 2 - (n - 1) / 2 * step
    x, y, z = (float(v) for v in origin)
    return (int(n[0]), int(n[1]), int(n[2])), Geometry(spacing_mm, (x, y, z))


def interpolate(
    voxels: Voxels,
    old: Geometry,
    new: Geometry,
    new_size: tuple[int, int, int],
    interpolation: Literal["linear", "bspline", "nearest"],
) -> Voxels:
    """Values of (z, y, x) at the voxel centres of another grid.

    Up to half a voxel outside the outermost centres the edge is repeated; beyond that the least value stands, as
    air does outside what a scanner saw.

    Returns:
        float32, or the type of the input for `nearest`.
    """
    import SimpleITK as sitk  # noqa: N813 - its usual name

    ways = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}
    kept = interpolation == "nearest"
    image = sitk.GetImageFromArray(voxels if kept else voxels.astype(np.float32, copy=False))
    image.SetSpacing(old.spacing_mm)
    image.SetOrigin(old.origin_mm)
    image.SetDirection(old.direction)
    resampler = sitk.ResampleImageFilter()
    resampler.SetNumberOfThreads(1)
    resampler.SetInterpolator(ways[interpolation])
    resampler.SetDefaultPixelValue(float(voxels.min()))
    resampler.SetSize(new_size)
    resampler.SetOutputSpacing(new.spacing_mm)
    resampler.SetOutputOrigin(new.origin_mm)
    resampler.SetOutputDirection(new.direction)
    moved: Voxels = sitk.GetArrayFromImage(resampler.Execute(image))
    return moved
