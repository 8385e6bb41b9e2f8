"""Whether two volumes have the same voxels, in whatever order their axes are written."""

import itertools

import numpy as np
import numpy.typing as npt

from platform_core.errors import GeometryMismatch
from platform_core.imaging.volume import Geometry, Volume

MOST_ASIDE = 0.1
"""Voxels by which a corner of one grid may lie aside of the other's: what single precision and rounded headers do.

Proposed: a mask that lies half a voxel aside is one of another grid; at a tenth no voxel changes its nearest."""


def onto_grid(label: Volume, image: Volume) -> Volume:
    """A label map of the image's voxels, its axes in the image's order.

    Drawing tools write the same voxels with axes swapped or flipped (NIfTI counts to the front, DICOM to the back);
    such a map is turned, exactly. Nothing is interpolated: a map of another grid is refused. A plain image, which has
    no geometry, is held against the image by its size alone.

    Args:
        label: The label map, still.
        image: The image that it was drawn on; only its grid is looked at.

    Returns:
        The label map with the image's geometry.

    Raises:
        GeometryMismatch: If it has other voxels, with the numbers of both.
    """
    image, label = image.first(), label.first()
    if image.geometry is None or label.geometry is None:
        is_plane = image.size[2] == 1
        if label.size != image.size or (label.geometry is None and image.geometry is not None and not is_plane):
            raise _mismatch(label, image)
        return Volume(label.voxels, image.geometry)
    turn = np.asarray(np.linalg.solve(image.geometry.affine, label.geometry.affine), dtype=np.float64)
    axes = np.rint(turn[:3, :3]).astype(int)
    if not _is_signed_permutation(axes) or _aside(turn, axes, label.size, image.size) > MOST_ASIDE:
        raise _mismatch(label, image)
    source = np.abs(axes).argmax(axis=1)
    voxels = label.voxels.transpose([2 - int(source[axis]) for axis in (2, 1, 0)])
    flips = [axes[axis].sum() < 0 for axis in (2, 1, 0)]
    voxels = voxels[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    if voxels.shape != image.voxels.shape:
        raise _mismatch(label, image)
    return Volume(np.ascontiguousarray(voxels), image.geometry)


def _is_signed_permutation(axes: npt.NDArray[np.int_]) -> bool:
    taken = np.abs(axes)
    return bool(taken.max() == 1 and (taken.sum(axis=0) == 1).all() and (taken.sum(axis=1) == 1).all())


def _aside(
    turn: npt.NDArray[np.float64], axes: npt.NDArray[np.int_], n_label: tuple[int, ...], n_image: tuple[int, ...]
) -> float:
    """Voxels of the image by which the farthest corner of the label map lies aside of where it should."""
    ends = [(0.0, n - 1.0) for n in n_label]
    corners = np.array(list(itertools.product(*ends)))
    start = np.where(axes.sum(axis=1) < 0, np.array(n_image) - 1.0, 0.0)
    found = corners @ turn[:3, :3].T + turn[:3, 3]
    return float(np.abs(found - (corners @ axes.T + start)).max())


def _mismatch(label: Volume, image: Volume) -> GeometryMismatch:
    return GeometryMismatch("grid of a mask", _spelt(image), _spelt(label))


def _spelt(volume: Volume) -> str:
    told = " x ".join(map(str, volume.size))
    return f"{told} voxels without geometry" if volume.geometry is None else f"{told} voxels {_placed(volume.geometry)}"


def _placed(geometry: Geometry) -> str:
    rounded = [tuple(round(float(x), 3) for x in part) for part in (geometry.spacing_mm, geometry.origin_mm)]
    direction = tuple(round(float(x), 3) for x in geometry.direction)
    return f"of {rounded[0]} mm from {rounded[1]} mm along {direction}"
