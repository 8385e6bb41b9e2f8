"""Bring every volume to one spacing along its own axes."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from platform_core.errors import UnreadableScan
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.volume import Geometry, Volume, Voxels

Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Floats = npt.NDArray[np.float32]

SHRINK_FROM = 1.2
"""Output over input spacing from which voxels are averaged; below it at most the top sixth of frequencies can alias."""
SAME_WITHIN = 1e-4
"""Relative difference of spacings that is none: 0.05 voxel at the end of 512."""
MAX_VOXELS = 2**29
SLAB_VOXELS = 2**18
"""Voxels worked on at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample:
    """The spacing that every volume gets."""

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    """(x, y, z)."""


@dataclass(frozen=True, slots=True)
class _Taps:
    """Output voxel i of one axis is the sum over k of `weight[k, i] * input[index[k, i]]`."""

    index: npt.NDArray[np.intp]
    weight: Floats


def resample(volume: Volume, settings: Resample, learned: Learned) -> Volume:  # noqa: ARG001
    """Resample linearly along x, y and z, which for a grid of the same orientation is all of linear interpolation.

    The physical centre of the grid stays where it is and the extent n * spacing is kept to within
    half an output voxel per side, so `origin_mm` moves. Outside the outermost voxel centres
    the edge voxel is repeated. Along an axis that shrinks by 1.2 or more the interpolated line is
    averaged over the length of the output voxel, as a scanner's thicker slice would be, against aliasing.
    An axis of one voxel, and one whose spacing is right already, is left alone.

    Args:
        volume: Still volume (z, y, x) with geometry.
        settings: The spacing, (x, y, z) in mm.
        learned: Not used.

    Returns:
        float32 volume in the units of the input.

    Raises:
        UnreadableScan: `grid_too_large` if the result would exceed 2^29 voxels.
    """
    assert volume.geometry is not None, "the recipe skips volumes without geometry"
    sizes, spacings = _new_grid(volume.size, volume.geometry.spacing_mm, settings.spacing_mm)
    if np.prod([float(n) for n in sizes]) > MAX_VOXELS:
        raise UnreadableScan("grid_too_large", f"{sizes} voxels at {settings.spacing_mm} mm")
    taps = [
        None if old == new else _taps(n_old, n_new, new / old)
        for n_old, n_new, old, new in zip(volume.size, sizes, volume.geometry.spacing_mm, spacings, strict=True)
    ]
    voxels = _along_plane(_along_z(volume.voxels, taps[2]), taps[1], taps[0])
    return replace(volume, voxels=voxels, geometry=_centred(volume.geometry, volume.size, sizes, spacings))


def resample_label(label: Volume, settings: Resample, learned: Learned) -> Volume:  # noqa: ARG001
    """Give each voxel of the image's new grid the class of the nearest old voxel."""
    assert label.geometry is not None, "the recipe skips volumes without geometry"
    sizes, spacings = _new_grid(label.size, label.geometry.spacing_mm, settings.spacing_mm)
    x, y, z = (
        np.clip(np.rint((old - 1) / 2 + (np.arange(new) - (new - 1) / 2) * (b / a)), 0, old - 1).astype(np.intp)
        for old, new, a, b in zip(label.size, sizes, label.geometry.spacing_mm, spacings, strict=True)
    )
    return replace(
        label, voxels=label.voxels[np.ix_(z, y, x)], geometry=_centred(label.geometry, label.size, sizes, spacings)
    )


def _new_grid(
    size: tuple[int, int, int], spacing_mm: tuple[float, ...], wanted_mm: tuple[float, ...]
) -> tuple[tuple[int, ...], tuple[float, float, float]]:
    """Voxels and spacing along (x, y, z) of the result."""
    moves = [
        n > 1 and abs(new / old - 1) > SAME_WITHIN for n, old, new in zip(size, spacing_mm, wanted_mm, strict=True)
    ]
    x, y, z = (new if move else old for move, old, new in zip(moves, spacing_mm, wanted_mm, strict=True))
    sizes = tuple(max(1, round(n * old / new)) for n, old, new in zip(size, spacing_mm, (x, y, z), strict=True))
    return sizes, (x, y, z)


def _centred(
    geometry: Geometry, size: tuple[int, ...], new_size: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> Geometry:
    """The new grid about the physical centre of the old one."""
    axes = np.reshape(geometry.direction, (3, 3))
    half_old = (np.asarray(size) - 1) / 2 * np.asarray(geometry.spacing_mm)
    half_new = (np.asarray(new_size) - 1) / 2 * np.asarray(spacing_mm)
    x, y, z = (float(v) for v in np.asarray(geometry.origin_mm) + axes @ (half_old - half_new))
    return replace(geometry, spacing_mm=spacing_mm, origin_mm=(x, y, z))


def _taps(n_old: int, n_new: int, factor: float) -> _Taps:
    """Weights of one axis; `factor` is output over input spacing."""
    centres = (n_old - 1) / 2 + (np.arange(n_new) - (n_new - 1) / 2) * factor
    if factor < SHRINK_FROM:
        first = np.floor(centres)
        weight = np.stack([1 - (centres - first), centres - first])
    else:
        first = np.floor(centres - factor / 2)
        voxel = first + np.arange(int(np.ceil(factor)) + 2)[:, None]
        weight = _tent_until(centres + factor / 2 - voxel) - _tent_until(centres - factor / 2 - voxel)
        weight /= weight.sum(axis=0)
    index = first + np.arange(len(weight))[:, None]
    return _Taps(np.clip(index, 0, n_old - 1).astype(np.intp), weight.astype(np.float32))


def _tent_until(u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral up to `u` of the tent from -1 to 1 by which linear interpolation spreads a voxel."""
    u = np.clip(u, -1, 1)
    half = (1 - np.abs(u)) ** 2 / 2
    return np.where(u < 0, half, 1 - half)


def _along_z(voxels: Voxels, taps: _Taps | None) -> Floats:
    if taps is None:
        return np.asarray(voxels, dtype=np.float32)
    out = np.zeros((taps.weight.shape[1], *voxels.shape[1:]), dtype=np.float32)
    for plane, indices, weights in zip(out, taps.index.T, taps.weight.T, strict=True):
        for index, weight in zip(indices, weights, strict=True):
            np.add(plane, weight * voxels[index], out=plane)
    return out


def _along_plane(voxels: Floats, y: _Taps | None, x: _Taps | None) -> Floats:
    """Along y, then x, a few planes at a time."""
    n_z, n_y, n_x = voxels.shape
    shape = (n_z, n_y if y is None else y.weight.shape[1], n_x if x is None else x.weight.shape[1])
    out = np.empty(shape, dtype=np.float32)
    n_planes = max(1, SLAB_VOXELS // (n_y * n_x))
    for start in range(0, n_z, n_planes):
        slab = voxels[start : start + n_planes]
        slab = slab if y is None else _gather(slab, y, axis=1)
        out[start : start + n_planes] = slab if x is None else _gather(slab, x, axis=2)
    return out


def _gather(slab: Floats, taps: _Taps, axis: int) -> Floats:
    weights = taps.weight[:, :, None] if axis == 1 else taps.weight
    total: Floats = np.take(slab, taps.index[0], axis=axis) * weights[0]
    for index, weight in zip(taps.index[1:], weights[1:], strict=True):
        total += np.take(slab, index, axis=axis) * weight
    return total


RESAMPLE = Harmonizer(name="resample", settings=Resample, apply=resample, move_label=resample_label, needs_spacing=True)
