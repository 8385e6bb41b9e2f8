"""Bring every volume to one spacing, along its own axes or the patient's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from platform_core.errors import UnreadableScan
from platform_core.harmonize import oblique
from platform_core.harmonize.axes import is_oblique, put_in_order
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.harmonize.taps import SHRINK_FROM, Floats, Interpolation, spline_coefficients, taps, untouched, weigh
from platform_core.imaging.volume import Geometry, Volume, Voxels

Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]

SAME_WITHIN = 1e-4
"""Relative difference of spacings that is none: 0.05 voxel at the end of 512."""
MAX_VOXELS = 2**29


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample:
    """The grid that every volume gets, and how values come onto it."""

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    """(x, y, z) of the grid; with `axes = "patient"` to the left, the back and the head."""
    interpolation: Interpolation = "linear"
    """`bspline` (cubic) keeps more sharpness and overshoots at edges: values may leave the range of the input."""
    antialias: bool = True
    """Average over the output voxel along an axis that shrinks by 1.2 or more."""
    labels: Literal["nearest", "partial_volume"] = "nearest"
    """`partial_volume`: each class's share moves as a linear image, and the largest share wins."""
    axes: Literal["own", "patient"] = "own"
    """`patient`: the grid lies along the patient's axes, whatever angle the scan was taken at."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where voxels come from and where they go."""

    old: Geometry
    old_size: tuple[int, int, int]
    new: Geometry
    new_size: tuple[int, int, int]

    @property
    def is_turned(self) -> bool:
        return self.old.direction != self.new.direction


def resample(volume: Volume, settings: Resample, learned: Learned) -> Volume:  # noqa: ARG001
    """Interpolate along x, y and z in turn, which for parallel grids is all of interpolation.

    The physical centre of the grid stays where it is and the extent n * spacing is kept to within
    half an output voxel per side, so `origin_mm` moves. Outside the outermost voxel centres
    the edge voxel is repeated (B-spline: the volume is mirrored). Along an axis that shrinks by 1.2 or more the
    interpolated line is averaged over the length of the output voxel, as a scanner's thicker slice would be,
    against aliasing. An axis of one voxel, and one whose spacing is right already, is left alone.

    With `axes = "patient"` axes are first swapped and flipped into the patient's order. A grid that is still more
    than 0.06 degrees off is averaged along its own axes where it shrinks, then interpolated by SimpleITK
    onto a grid of the patient's axes that holds all of it; voxels outside the scan get its least value.

    Args:
        volume: Still volume (z, y, x) with geometry.
        settings: The grid and the way.
        learned: Not used.

    Returns:
        float32 volume in the units of the input.

    Raises:
        UnreadableScan: `grid_too_large` if the result would exceed 2^29 voxels.
    """
    voxels, grid = _planned(volume, settings)
    return Volume(_moved(voxels, grid, settings, settings.interpolation), grid.new)


def resample_label(label: Volume, settings: Resample, learned: Learned) -> Volume:  # noqa: ARG001
    """Bring a label map onto the image's new grid.

    `nearest`: the class of the nearest old voxel. `partial_volume`: the class of the largest share (the smaller class
    of equal ones), and of shares of one class (floats from 0 to 1) the share itself. Outside the scan: the least.
    """
    voxels, grid = _planned(label, settings)
    if settings.labels == "nearest":
        return Volume(_nearest(voxels, grid), grid.new)

    def move(share: Voxels) -> Floats:
        return _moved(share, grid, settings, "linear")

    is_share = voxels.dtype.kind == "f" and voxels.min() >= 0 and voxels.max() <= 1
    return Volume(move(voxels) if is_share else _largest_share(voxels, move), grid.new)


def _planned(volume: Volume, settings: Resample) -> tuple[Voxels, _Grid]:
    """The voxels with their axes in the wanted order, and their way to the new grid."""
    volume = put_in_order(volume) if settings.axes == "patient" else volume
    old, n_old = volume.geometry, volume.size
    assert old is not None, "the recipe skips volumes without geometry"
    if settings.axes == "patient" and is_oblique(old):
        n_new, new = oblique.bounding_grid(old, n_old, settings.spacing_mm)
    else:
        n_new, spacing_mm = _new_grid(n_old, old.spacing_mm, settings.spacing_mm)
        new = _centred(old, n_old, n_new, spacing_mm)
    if np.prod([float(n) for n in n_new]) > MAX_VOXELS:
        raise UnreadableScan("grid_too_large", f"{n_new} voxels at {settings.spacing_mm} mm")
    return volume.voxels, _Grid(old, n_old, new, n_new)


def _moved(voxels: Voxels, grid: _Grid, settings: Resample, interpolation: Interpolation) -> Floats:
    if grid.is_turned:
        voxels, old = _averaged(voxels, grid, settings)
        return oblique.interpolate(voxels, old, grid.new, grid.new_size, interpolation)
    way = zip(grid.old_size, grid.new_size, grid.old.spacing_mm, grid.new.spacing_mm, strict=True)
    x, y, z = (
        untouched(n_old) if old == new else taps(n_old, n_new, new / old, interpolation, antialias=settings.antialias)
        for n_old, n_new, old, new in way
    )
    if interpolation == "bspline":
        voxels = spline_coefficients(voxels, [axis for axis, along in enumerate((z, y, x)) if along.moves])
    return weigh(voxels, (x, y, z))


def _averaged(voxels: Voxels, grid: _Grid, settings: Resample) -> tuple[Voxels, Geometry]:
    """A grid that is to be turned: axes that shrink are averaged first, along themselves."""
    x, y, z = (
        new if settings.antialias and new / old >= SHRINK_FROM else old
        for old, new in zip(grid.old.spacing_mm, grid.new.spacing_mm, strict=True)
    )
    size, spacing_mm = _new_grid(grid.old_size, grid.old.spacing_mm, (x, y, z))
    geometry = _centred(grid.old, grid.old_size, size, spacing_mm)
    return _moved(voxels, _Grid(grid.old, grid.old_size, geometry, size), settings, "linear"), geometry


def _nearest(voxels: Voxels, grid: _Grid) -> Voxels:
    if grid.is_turned:
        return oblique.interpolate(voxels, grid.old, grid.new, grid.new_size, "nearest")
    way = zip(grid.old_size, grid.new_size, grid.old.spacing_mm, grid.new.spacing_mm, strict=True)
    x, y, z = (
        np.clip(np.rint((old - 1) / 2 + (np.arange(new) - (new - 1) / 2) * (b / a)), 0, old - 1).astype(np.intp)
        for old, new, a, b in way
    )
    return voxels[np.ix_(z, y, x)]


def _largest_share(voxels: Voxels, move: Callable[[Voxels], Floats]) -> Voxels:
    classes = np.unique(voxels)
    share = move((voxels == classes[0]).astype(np.float32))
    label = np.full(share.shape, classes[0], dtype=voxels.dtype)
    for number in classes[1:]:
        other = move((voxels == number).astype(np.float32))
        label[other > share] = number
        np.maximum(share, other, out=share)
    return label


def _new_grid(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float], wanted_mm: tuple[float, float, float]
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Voxels and spacing along (x, y, z) of the result."""
    moves = [
        n > 1 and abs(new / old - 1) > SAME_WITHIN for n, old, new in zip(size, spacing_mm, wanted_mm, strict=True)
    ]
    x, y, z = (new if move else old for move, old, new in zip(moves, spacing_mm, wanted_mm, strict=True))
    n_x, n_y, n_z = (max(1, round(n * old / new)) for n, old, new in zip(size, spacing_mm, (x, y, z), strict=True))
    return (n_x, n_y, n_z), (x, y, z)


def _centred(
    geometry: Geometry,
    size: tuple[int, int, int],
    new_size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> Geometry:
    """The new grid about the physical centre of the old one."""
    axes = np.reshape(geometry.direction, (3, 3))
    half_old = (np.asarray(size) - 1) / 2 * np.asarray(geometry.spacing_mm)
    half_new = (np.asarray(new_size) - 1) / 2 * np.asarray(spacing_mm)
    x, y, z = (float(v) for v in np.asarray(geometry.origin_mm) + axes @ (half_old - half_new))
    return replace(geometry, spacing_mm=spacing_mm, origin_mm=(x, y, z))


RESAMPLE = Harmonizer(
    name="resample", settings=Resample, apply=resample, move_label=resample_label, needs_spacing=True, version=2
)
