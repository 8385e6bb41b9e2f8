"""Move intensities along a monotone line through landmarks."""

import numpy as np
import numpy.typing as npt

from platform_core.harmonize import cuda
from platform_core.harmonize.compiled import compiled_loops
from platform_core.imaging.volume import Voxels

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Segments = tuple[Singles, Singles, Singles, Singles, float]
"""Start, least and greatest way along, and slope of each; and the value at the first landmark."""

N_CODES, SIXTEEN_BITS = 2**16, ("int16", "uint16")
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
    The line is taken as a sum over its segments of slope times the way along the segment. Every term is
    non-decreasing and so is its rounding: in single precision too no two voxels change their order.

    Args:
        voxels: (z, y, x), any type; left alone.
        x: Landmarks, strictly increasing.
        y: What each is mapped to, non-decreasing.

    Returns:
        A new float32 array of the same axes: the same bits whether compiled or not, and to 1e-6 of the largest
        magnitude what double precision gives.
    """
    segments = _segments(x, y)
    if voxels.dtype.name in SIXTEEN_BITS and voxels.size > N_CODES:
        return _by_table(voxels, segments)
    if cuda.is_wanted():
        return cuda.add_segments(voxels, *segments, device="cuda")
    compiled = compiled_loops()
    if compiled is None:
        return _by_numpy(voxels, *segments)
    out = np.empty(voxels.shape, dtype=np.float32)
    compiled.add_segments(np.require(voxels, np.float32, ["C", "A"]).reshape(-1), *segments, out.reshape(-1))
    return out


def _by_table(voxels: Voxels, segments: Segments) -> Singles:
    """Of 16 bits there are fewer values than voxels: each is mapped once."""
    codes = np.arange(N_CODES).astype(np.uint16)
    table = _by_numpy(codes.view(voxels.dtype).reshape(1, 1, -1), *segments).ravel()
    out = np.empty(voxels.shape, dtype=np.float32)
    for plane, mapped in zip(voxels, out, strict=True):
        np.take(table, np.ascontiguousarray(plane).view(np.uint16), out=mapped, mode="clip")
    return out


def _segments(x: Floats, y: Floats) -> Segments:
    way = np.diff(x) if len(x) > 1 else np.ones(1)
    slope = np.diff(y) / way if len(x) > 1 else np.ones(1)
    low, high = np.zeros(len(way)), way.copy()
    low[0], high[-1] = -np.inf, np.inf
    first, least, most, steep = (part.astype(np.float32) for part in (x[: len(way)], low, high, slope))
    return first, least, most, steep, float(y[0])


def _by_numpy(voxels: Voxels, start: Singles, low: Singles, high: Singles, slope: Singles, base: float) -> Singles:
    out = np.full(voxels.shape, base, dtype=np.float32)
    part = np.empty(voxels.shape[1:], dtype=np.float32)
    for plane, mapped in zip(voxels, out, strict=True):
        for first, least, most, steep in zip(start, low, high, slope, strict=True):
            np.subtract(plane, first, out=part, dtype=np.float32)
            np.clip(part, least, most, out=part)
            np.multiply(part, steep, out=part)
            np.add(mapped, part, out=mapped)
    return out
