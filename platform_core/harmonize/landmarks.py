"""Move intensities along a monotone line through landmarks."""

import numpy as np
import numpy.typing as npt

from platform_core.imaging.volume import Voxels

Floats = npt.NDArray[np.float64]

NEAREST = 1e-3
"""Landmarks closer than this share of their range are merged: the slope between them would be noise."""


def merge_close(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Landmarks with `x` strictly increasing: those that (nearly) coincide become their mean.

    Args:
        x: Landmarks, non-decreasing, at least one.
        y: What each is mapped to, non-decreasing.
    """
    group = np.concatenate([[0], np.cumsum(np.diff(x) > NEAREST * (x[-1] - x[0]))])
    n = np.bincount(group)
    return np.bincount(group, x) / n, np.bincount(group, y) / n


def map_piecewise(voxels: Voxels, x: Floats, y: Floats) -> npt.NDArray[np.float32]:
    """Map values from `x` to `y`, linearly between landmarks.

    Beyond the outermost landmarks the last segment goes on; a single landmark is a shift.

    Args:
        voxels: (z, y, x), any type; left alone.
        x: Landmarks, strictly increasing.
        y: What each is mapped to; non-decreasing, so that no two voxels change their order.

    Returns:
        A new float32 array of the same axes.
    """
    mapped = np.empty(voxels.shape, dtype=np.float32)
    for z, plane in enumerate(voxels):
        mapped[z] = np.interp(plane, x, y)
        _extend(mapped[z], plane, x, y)
    return mapped


def _extend(mapped: Voxels, plane: Voxels, x: Floats, y: Floats) -> None:
    for end, inner, outside in ((0, 1, plane < x[0]), (-1, -2, plane > x[-1])):
        slope = 1.0 if len(x) == 1 else (y[end] - y[inner]) / (x[end] - x[inner])
        mapped[outside] = y[end] + slope * (plane[outside] - x[end])
